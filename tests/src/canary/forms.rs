//! The forms that a text takes on its way into a log, a database or a dump: encoded, escaped, printed as a list, hashed.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};
use flydex_domain::encoding::sha256;

/// Every form that these bytes are looked for in.
pub(super) fn of(bytes: &[u8]) -> BTreeSet<Vec<u8>> {
    let mut forms = BTreeSet::from([bytes.to_vec()]);
    for hexadecimal in [hex(bytes), hex(bytes).to_uppercase()] {
        forms.insert(hexadecimal.into_bytes());
    }
    for shift in 0..3 {
        for alphabet in [alphabet::STANDARD, alphabet::URL_SAFE] {
            forms.insert(base64(bytes, shift, &alphabet).into_bytes());
        }
    }
    // As a list of numbers, which is what `{:?}` and JSON make of bytes.
    let numbers: Vec<_> = bytes.iter().map(u8::to_string).collect();
    forms.extend([numbers.join(", ").into_bytes(), numbers.join(",").into_bytes()]);
    forms.extend(
        bytes
            .utf8_chunks()
            .next()
            .filter(|chunk| chunk.invalid().is_empty())
            .map(|chunk| escaped(chunk.valid()))
            .into_iter()
            .flatten(),
    );
    forms
}

/// What a text of few possibilities is recognised by as well: whoever has its hash can guess it.
pub(super) fn of_hash(text: &str) -> BTreeSet<Vec<u8>> {
    of(&sha256(text.as_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The characters that these bytes alone decide when `shift` bytes stand before them in their group of three.
fn base64(bytes: &[u8], shift: usize, alphabet: &alphabet::Alphabet) -> String {
    let mut group = vec![0; shift];
    group.extend_from_slice(bytes);
    let text = GeneralPurpose::new(alphabet, NO_PAD).encode(&group);
    let (first, end) = ((shift * 8).div_ceil(6), group.len() * 8 / 6);
    text[first..end].to_owned()
}

/// As JSON, as Rust, as XML and as an address escape it.
fn escaped(text: &str) -> Vec<Vec<u8>> {
    let inner = |quoted: String| quoted[1..quoted.len() - 1].to_owned();
    let percent = |keep: &dyn Fn(u8) -> bool| {
        text.bytes().fold(String::new(), |mut all, byte| {
            if keep(byte) {
                all.push(char::from(byte));
            } else {
                let _ = write!(all, "%{byte:02X}");
            }
            all
        })
    };
    let address = percent(&|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte));
    let form = address.replace("%20", "+");
    let path = percent(&|byte| byte.is_ascii_graphic() && !b"\"#%<>?`{}".contains(&byte));
    let markup = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    let json = inner(serde_json::Value::from(text).to_string());
    let ascii = text.chars().fold(String::new(), |mut all, character| {
        let _ = if character.is_ascii() {
            write!(all, "{character}")
        } else {
            write!(all, "\\u{:04x}", u32::from(character))
        };
        all
    });
    let all = [address.to_lowercase(), address, form, path, markup, json, ascii, inner(format!("{text:?}"))];
    all.into_iter().map(String::into_bytes).collect()
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

    use super::*;

    const TEXT: &str = "sing \"a song\" of six+pence/ \u{fc}";

    fn stands_in(text: &[u8]) -> bool {
        of(TEXT.as_bytes()).iter().any(|form| text.windows(form.len()).any(|window| window == &form[..]))
    }

    #[test]
    fn a_text_is_known_in_every_encoding_and_at_every_alignment() {
        for before in ["", "a", "ab", "abc"] {
            for after in ["", "z", "zy", "zyx"] {
                let whole = format!("{before}{TEXT}{after}");
                for encoded in [STANDARD.encode(&whole), URL_SAFE_NO_PAD.encode(&whole), hex(whole.as_bytes())] {
                    assert!(stands_in(encoded.as_bytes()), "{encoded}");
                }
                for printed in [
                    format!("{whole:?}"),
                    format!("{:?}", whole.as_bytes()),
                    serde_json::json!({ "text": whole }).to_string(),
                    serde_json::json!({ "bytes": whole.as_bytes() }).to_string(),
                    hex(whole.as_bytes()).to_uppercase(),
                    "sing%20%22a%20song%22%20of%20six%2Bpence%2F%20%C3%BC".to_owned(),
                    "sing+%22a+song%22+of+six%2Bpence%2F+%C3%BC".to_owned(),
                    "sing &quot;a song&quot; of six+pence/ \u{fc}".to_owned(),
                ] {
                    assert!(stands_in(printed.as_bytes()), "{printed}");
                }
            }
        }
        assert!(!stands_in(b"sing a song of sixpence"));
    }

    #[test]
    fn what_is_not_text_is_known_by_its_bytes() {
        let forms = of(&[0xff, 0, 0x41]);
        assert!(forms.contains(&vec![0xff, 0, 0x41]) && forms.contains(&b"ff0041"[..]));
        assert!(forms.contains(&b"255, 0, 65"[..]));
    }

    #[test]
    fn a_short_code_is_known_by_its_hash() {
        let forms = of_hash("483201");
        assert!(forms.contains(sha256(b"483201").as_slice()) && forms.contains(hex(&sha256(b"483201")).as_bytes()));
    }
}
