//! The connector's own page: the code to scan, and the question to the desk. No script; it reloads itself.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flydex_domain::encoding::sha256;

use super::PageToken;
use crate::pair::desk::{Question, Stage};
use crate::qr;

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:1.1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:3rem auto;padding:0 1rem;text-align:center}\
svg{max-width:100%;height:auto;border-radius:.5rem}\
.code{font-size:2.6rem;font-variant-numeric:tabular-nums;letter-spacing:.1em;margin:.5rem 0}\
form{display:inline}\
button{font:inherit;padding:.7rem 1.6rem;margin:.4rem;border-radius:.6rem;border:1px solid currentColor;cursor:pointer}\
button.yes{background:#0b6b3a;color:#fff;border-color:#0b6b3a}";

/// The page for one stage of a pairing.
pub(super) fn of(stage: &Stage, token: &PageToken) -> Response {
    let (title, body, live) = match stage {
        Stage::Idle => ("FlyDex", "<p>No pairing is going on.</p>".to_owned(), true),
        Stage::Staged(question) => ("Draw a pairing code?", staged(*question, token), true),
        Stage::Offered(url) => {
            let drawn = qr::svg(url.expose()).unwrap_or_default();
            let text = "<p>Scan this with the device that you want to pair. It is good for two minutes.</p>";
            ("Pair a device", format!("{drawn}{text}"), true)
        }
        Stage::Asked(question) => ("Pair this device?", asked(question, token), true),
        Stage::Paired => ("Paired", "<p>The device is paired. You can close this page.</p>".to_owned(), false),
        Stage::Failed(code) => {
            let message = escape(code.message());
            ("Not paired", format!("<p>{message}.</p><p><small>{code}</small></p>"), true)
        }
    };
    page(StatusCode::OK, title, &body, live)
}

/// What someone without the token sees.
pub(super) fn locked() -> Response {
    let body = "<p>Open the address that the terminal shows.</p>";
    page(StatusCode::FORBIDDEN, "FlyDex", body, false)
}

fn staged(question: u64, token: &PageToken) -> String {
    let text = "<p>A page of your FlyDex server on this computer asks to pair a device.</p>";
    format!("{text}{}", buttons(question, token, "Draw the code", "No"))
}

fn asked(question: &Question, token: &PageToken) -> String {
    let (account, device) = (escape(&question.account_name), escape(&question.device_label));
    let (role, code) = (question.role, escape(&question.short_code));
    let buttons = buttons(question.number, token, "Yes, pair", "No");
    format!(
        "<p>“{device}” wants in.</p><p class=\"code\">{code}</p>\
         <p>Go on only if the device shows the same code.</p>\
         <p>Pair with account <strong>{account}</strong> as <strong>{role}</strong>?</p>{buttons}"
    )
}

fn buttons(question: u64, token: &PageToken, yes: &str, no: &str) -> String {
    let form = |answer: &str, text: &str| {
        format!(
            "<form method=\"post\" action=\"/answer\"><input type=\"hidden\" name=\"t\" value=\"{}\">\
             <input type=\"hidden\" name=\"question\" value=\"{question}\">\
             <button class=\"{answer}\" name=\"answer\" value=\"{answer}\">{text}</button></form>",
            token.expose()
        )
    };
    format!("{}{}", form("yes", yes), form("no", no))
}

fn page(status: StatusCode, title: &str, body: &str, live: bool) -> Response {
    let refresh = if live { "<meta http-equiv=\"refresh\" content=\"2\">" } else { "" };
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">{refresh}\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>{title}</title>\
         <style>{STYLE}</style></head><body><main><h1>{title}</h1>{body}</main></body></html>"
    );
    let mut response = (status, Html(html)).into_response();
    let style = STANDARD.encode(sha256(STYLE.as_bytes()));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{style}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    );
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}
