//! Functions: their length, and the messages that they log.

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

use super::source::{self, Source};

/// Lines of a function from its name to its closing brace: a screen.
const FUNCTION_LINES_MAX: usize = 70;
/// The macros of `tracing` whose message must be constant.
const LOG_MACROS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

#[test]
fn functions_fit_on_a_screen() {
    source::none(&offences(|visitor| &visitor.long), "a function fits on a screen of 70 lines");
}

#[test]
fn log_messages_are_constant() {
    source::none(&offences(|visitor| &visitor.formatted), "values are fields, the message of a log line is constant");
}

fn offences(select: fn(&Visitor) -> &Vec<String>) -> Vec<String> {
    let mut offences = Vec::new();
    for source in source::all().iter().filter(|source| !source.is_test()) {
        offences.extend(select(&look(source)).iter().map(|offence| format!("{}:{offence}", source.path.display())));
    }
    offences
}

fn look(source: &Source) -> Visitor {
    let file = syn::parse_file(source.without_tests());
    let file = file.unwrap_or_else(|error| panic!("{}: {error}", source.path.display()));
    let mut visitor = Visitor::default();
    visitor.visit_file(&file);
    visitor
}

#[derive(Default)]
struct Visitor {
    long: Vec<String>,
    formatted: Vec<String>,
}

impl Visitor {
    fn measure(&mut self, name: &syn::Ident, block: &syn::Block) {
        let first = name.span().start().line;
        let lines = block.span().end().line - first + 1;
        if lines > FUNCTION_LINES_MAX {
            self.long.push(format!("{first}: {name} has {lines} lines"));
        }
    }
}

impl Visit<'_> for Visitor {
    fn visit_item_fn(&mut self, function: &syn::ItemFn) {
        self.measure(&function.sig.ident, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &syn::ImplItemFn) {
        self.measure(&function.sig.ident, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_macro(&mut self, call: &syn::Macro) {
        let segments: Vec<_> = call.path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        let from_tracing = segments.len() == 1 || segments.first().is_some_and(|first| first == "tracing");
        let logs = segments.last().is_some_and(|last| LOG_MACROS.contains(&last.as_str()));
        if logs
            && from_tracing
            && let Some(span) = formatted_message(call.tokens.clone())
        {
            self.formatted.push(format!("{}: the message is formatted", span.start().line));
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

#[test]
fn a_formatted_message_is_found_and_a_constant_one_is_not() {
    let formatted = |text: &str| formatted_message(text.parse().expect("the text is Rust")).is_some();
    assert!(formatted(r#""machine {} is gone", id"#));
    assert!(formatted(r#"machine.id = %format!("{id}"), "machine is gone""#));
    assert!(!formatted(r#"machine.id = %id, "machine is gone""#));
}
