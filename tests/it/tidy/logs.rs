//! Log lines and spans: their message is constant, and what they say beside it is a declared field.

use flydex_runtime::telemetry::fields;
use proc_macro2::{Span, TokenStream, TokenTree};
use syn::visit::{self, Visit};

use super::source;

/// The macros of `tracing` that write a line.
const LINES: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
/// The macros of `tracing` that open a span; their first literal is its name.
const SPANS: [&str; 5] = ["error_span", "warn_span", "info_span", "debug_span", "trace_span"];

/// Begins the fields by which a span is named and coloured where it is exported; no line shows them.
const EXPORT_PREFIX: &str = "otel.";

#[test]
fn log_messages_are_constant() {
    let formatted = |tokens| formatted_message(tokens).into_iter().map(|span| (span, "{}".to_owned())).collect();
    source::none(&offences(&LINES, formatted), "values are fields, the message of a log line is constant");
}

#[test]
fn log_fields_are_declared() {
    let is_known = |name: &str| fields::is_declared(name) || name.starts_with(EXPORT_PREFIX);
    let undeclared = |tokens| fields_of(tokens).into_iter().filter(|(_, name)| !is_known(name)).collect();
    let all = [LINES, SPANS].concat();
    source::none(&offences(&all, undeclared), "an undeclared field is left out of its line: see telemetry/fields.rs");
}

fn offences(macros: &[&str], find: impl Fn(TokenStream) -> Vec<(Span, String)>) -> Vec<String> {
    let mut offences = Vec::new();
    for source in source::all().iter().filter(|source| !source.is_test()) {
        let mut visitor = Visitor { macros, find: &find, found: Vec::new() };
        visitor.visit_file(&source.parsed());
        let place = |(span, what): &(Span, String)| format!("{}:{}: {what}", source.path.display(), span.start().line);
        offences.extend(visitor.found.iter().map(place));
    }
    offences
}

struct Visitor<'a, F> {
    macros: &'a [&'a str],
    find: &'a F,
    found: Vec<(Span, String)>,
}

impl<F: Fn(TokenStream) -> Vec<(Span, String)>> Visit<'_> for Visitor<'_, F> {
    fn visit_macro(&mut self, call: &syn::Macro) {
        let segments: Vec<_> = call.path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        let from_tracing = segments.len() == 1 || segments.first().is_some_and(|first| first == "tracing");
        let name = segments.last().map(String::as_str).unwrap_or_default();
        if from_tracing && self.macros.contains(&name) {
            self.found.extend((self.find)(call.tokens.clone()));
        }
        visit::visit_macro(self, call);
    }
}

/// The literal that has a placeholder; also a call of `format!` among the fields.
fn formatted_message(tokens: TokenStream) -> Option<Span> {
    tokens.into_iter().find_map(|token| match token {
        TokenTree::Literal(literal) => literal.to_string().contains('{').then(|| literal.span()),
        TokenTree::Ident(ident) => (ident == "format").then(|| ident.span()),
        TokenTree::Group(group) => formatted_message(group.stream()),
        TokenTree::Punct(_) => None,
    })
}

/// The names of the fields: what stands before `=`, or alone with or without `%` and `?`.
fn fields_of(tokens: TokenStream) -> Vec<(Span, String)> {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let parts = tokens.split(|token| matches!(token, TokenTree::Punct(mark) if mark.as_char() == ','));
    parts.filter_map(field).collect()
}

fn field(part: &[TokenTree]) -> Option<(Span, String)> {
    let is = |token: &TokenTree, wanted: &[char]| matches!(token, TokenTree::Punct(mark) if wanted.contains(&mark.as_char()));
    let part = if part.first().is_some_and(|first| is(first, &['%', '?'])) { &part[1..] } else { part };
    let end = part.iter().position(|token| is(token, &['='])).unwrap_or(part.len());
    let (name, has_value) = (&part[..end], end < part.len());
    let first = name.first()?;
    // A literal alone is the message; `target: "x"` and `parent: y` are settings.
    let is_message = matches!(first, TokenTree::Literal(_)) && !has_value;
    if is_message || name.iter().any(|token| is(token, &[':'])) {
        return None;
    }
    let text: String = name.iter().map(ToString::to_string).collect();
    Some((first.span(), text.trim_matches('"').to_owned()))
}

#[test]
fn a_formatted_message_is_found_and_a_constant_one_is_not() {
    let formatted = |text: &str| formatted_message(text.parse().expect("the text is Rust")).is_some();
    assert!(formatted(r#""machine {} is gone", id"#));
    assert!(formatted(r#"machine.id = %format!("{id}"), "machine is gone""#));
    assert!(!formatted(r#"machine.id = %id, "machine is gone""#));
}

#[test]
fn the_fields_of_a_line_are_found_however_they_are_written() {
    let text = r#"target: "flydex", parent: None, machine.id = %id, "link.id" = link(1, 2), ?shared, bytes, "message""#;
    let found = fields_of(text.parse().expect("the text is Rust"));
    let names: Vec<_> = found.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(names, ["machine.id", "link.id", "shared", "bytes"]);
}
