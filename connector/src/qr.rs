//! The QR code of a pairing address, for a terminal and for the connector's own page.

use qrcode::render::{svg, unicode};
use qrcode::{EcLevel, QrCode};

/// The pairing address does not fit a QR code; it is shown as text then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the address is too long for a QR code")]
pub struct TooLong;

/// Draws with half blocks, two modules to a character, with the quiet zone that readers need.
///
/// With `coloured` the colours are set explicitly, so that it reads on light and on dark terminals alike;
/// without, light modules are drawn, which suits a dark terminal.
///
/// # Errors
/// [`TooLong`] when no code holds the text.
pub fn terminal(text: &str, coloured: bool) -> Result<String, TooLong> {
    let code = code(text)?;
    let mut renderer = code.render::<unicode::Dense1x2>();
    if coloured {
        let drawn = renderer.build();
        let lines = drawn.lines().map(|line| format!("\u{1b}[38;5;16;48;5;231m{line}\u{1b}[0m"));
        return Ok(lines.collect::<Vec<_>>().join("\n"));
    }
    Ok(renderer.dark_color(unicode::Dense1x2::Light).light_color(unicode::Dense1x2::Dark).build())
}

/// Draws as an SVG element for a page: black on white in every theme, since readers need the contrast.
///
/// # Errors
/// [`TooLong`] when no code holds the text.
pub fn svg(text: &str) -> Result<String, TooLong> {
    let drawn = code(text)?
        .render()
        .min_dimensions(280, 280)
        .dark_color(svg::Color("#000000"))
        .light_color(svg::Color("#ffffff"))
        .build();
    // The XML declaration has no place inside a page.
    Ok(drawn.split_once("?>").map_or(drawn.clone(), |(_, element)| element.to_owned()))
}

fn code(text: &str) -> Result<QrCode, TooLong> {
    QrCode::with_error_correction_level(text, EcLevel::L).map_err(|_| TooLong)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: &str =
        "https://relay.example/pair#00000000-0000-0000-0000-000000000001.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    #[test]
    fn the_terminal_code_is_drawn_with_half_blocks() {
        insta::assert_snapshot!(terminal(ADDRESS, false).unwrap());
    }

    #[test]
    fn a_coloured_code_sets_and_resets_the_colours_of_each_line() {
        let drawn = terminal(ADDRESS, true).unwrap();
        assert!(drawn.lines().all(|line| line.starts_with("\u{1b}[38;5;16;48;5;231m") && line.ends_with("\u{1b}[0m")));
    }

    #[test]
    fn the_page_code_is_one_element_without_script_or_style() {
        let drawn = svg(ADDRESS).unwrap();
        assert!(drawn.starts_with("<svg"), "{}", &drawn[..60]);
        for forbidden in ["<script", "style=", "href", "<?xml"] {
            assert!(!drawn.contains(forbidden), "{forbidden}");
        }
    }

    #[test]
    fn a_text_that_no_code_holds_is_an_error() {
        assert_eq!(terminal(&"a".repeat(4000), false), Err(TooLong));
    }
}
