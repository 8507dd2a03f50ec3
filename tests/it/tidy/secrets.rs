//! Secrets and payloads: what holds one cannot be printed or serialised by accident, and is compared in constant time.
//!
//! A type that wraps a secret says what it never implements, which the compiler holds (`never_implements!`). The rules
//! here find what is not wrapped: by the names of fields, since a name is what tells a token from any other text.

use std::fs;

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};
use syn::{Attribute, Expr, Field, Type};

use super::source::{self, Source};

/// A field whose name is one of these, or ends in it after `_`, holds a secret or content when it is raw.
const SECRET_NAMES: [&str; 17] = [
    "token",
    "cookie",
    "ticket",
    "grant",
    "credential",
    "secret",
    "password",
    "seed",
    "bearer",
    "private_key",
    "redeem_key",
    "recovery_code",
    "recovery_codes",
    "code_verifier",
    "assertion",
    "prompt",
    "payload",
];
/// Types that hide nothing.
const RAW_TYPES: [&str; 7] = ["String", "Vec<u8>", "[u8;", "Bytes", "Zeroizing", "Cow<", "&str"];
/// What hides what it holds only as long as nobody prints it.
const WRAPPERS: [&str; 4] = ["Zeroizing", "SecretString", "ZeroizeOnDrop", "AsymmetricSecretKey"];
/// Types that are serialised with a secret in them, since that is what they are there for: file, type, where it goes.
const EDGES: [(&str, &str, &str); 3] = [
    ("services/control/src/tickets.rs", "TicketJson", "the answer to the device that asked for a ticket"),
    ("services/control/src/agent_status.rs", "Paired", "the answer that gives a machine its first credential"),
    ("services/control/src/machines.rs", "CredentialJson", "the answer that gives a machine its next credential"),
];
/// Where a secret is written into a text on purpose: file, why.
const WRITTEN: [(&str, &str); 3] = [
    ("connector/src/helper.rs", "the address of the desk's page, for the terminal"),
    ("connector/src/helper/page.rs", "the form of the desk's page, for the browser that opened it"),
    ("connector/src/pair/desk.rs", "the address in the QR code, for the terminal"),
];
/// Macros that make a text.
const TEXTS: [&str; 24] = [
    "format",
    "write",
    "writeln",
    "print",
    "println",
    "eprint",
    "eprintln",
    "panic",
    "assert",
    "assert_eq",
    "assert_ne",
    "debug_assert",
    "unreachable",
    "bail",
    "anyhow",
    "ensure",
    "error",
    "warn",
    "info",
    "debug",
    "trace",
    "info_span",
    "debug_span",
    "trace_span",
];
/// What a comparison of may not take longer the more of it is right.
const COMPARED: [&str; 12] = [
    "mac",
    "token",
    "secret",
    "cookie",
    "password",
    "redeem_key",
    "recovery_code",
    "token_sha256",
    "redeem_sha256",
    "device_mac",
    "machine_mac",
    "seed",
];

fn programs() -> Vec<Source> {
    let is_program = |source: &Source| {
        !source.is_test() && !["tests", "loadtest", "xtask"].iter().any(|folder| source.path.starts_with(folder))
    };
    source::all().into_iter().filter(is_program).collect()
}

#[test]
fn what_holds_a_secret_is_not_printed_and_only_the_edge_serialises_it() {
    let offences: Vec<_> = programs()
        .iter()
        .flat_map(|source| {
            let found = derived_over_secrets(&source.parsed());
            let is_edge = |offence: &Derived| {
                offence.derived == "Serialize"
                    && EDGES.iter().any(|(file, name, _)| source.path.ends_with(file) && *name == offence.name)
            };
            let path = source.path.display().to_string();
            found
                .into_iter()
                .filter(|offence| !is_edge(offence))
                .map(move |Derived { line, name, derived, field }| {
                    format!("{path}:{line}: {name} derives {derived} over {field}")
                })
                .collect::<Vec<_>>()
        })
        .collect();
    source::none(&offences, "wrap the field in a type that redacts, or take the derive away");
}

#[test]
fn no_exemption_is_left_when_what_it_was_for_is_gone() {
    let mut offences = Vec::new();
    for (file, name, _) in EDGES {
        let text = fs::read_to_string(source::root().join(file)).unwrap_or_default();
        let parsed = syn::parse_file(&text).expect("the file is Rust");
        if !derived_over_secrets(&parsed).iter().any(|one| one.name == name && one.derived == "Serialize") {
            offences.push(format!("{file}: {name}"));
        }
    }
    for (file, _) in WRITTEN {
        let text = fs::read_to_string(source::root().join(file)).unwrap_or_default();
        let mut visitor = Texts::default();
        visitor.visit_file(&syn::parse_file(&text).expect("the file is Rust"));
        if visitor.exposing.is_empty() {
            offences.push(file.to_owned());
        }
    }
    source::none(&offences, "take it off EDGES or WRITTEN");
}

#[test]
fn what_wraps_a_secret_says_what_it_never_implements() {
    let mut offences = Vec::new();
    // `runtime` knows nothing of the domain, where the macro is.
    for source in programs().into_iter().filter(|source| !source.path.starts_with("services/runtime")) {
        let mut visitor = Types::default();
        visitor.visit_file(&source.parsed());
        for (line, name) in visitor.wrapping {
            if !source.text.contains(&format!("never_implements!({name}:")) {
                offences.push(format!("{}:{line}: {name}", source.path.display()));
            }
        }
    }
    source::none(&offences, "say never_implements!(Name: Display, Serialize, ..) beside the type");
}

#[test]
fn no_secret_is_written_into_a_text() {
    let mut offences = Vec::new();
    for source in programs().iter().filter(|source| !WRITTEN.iter().any(|(file, _)| source.path.ends_with(file))) {
        let mut visitor = Texts::default();
        visitor.visit_file(&source.parsed());
        offences.extend(visitor.exposing.iter().map(|line| format!("{}:{line}", source.path.display())));
    }
    source::none(&offences, "a secret is exposed to the one computation that needs it, and to no text");
}

#[test]
fn secrets_are_compared_in_constant_time() {
    let mut offences = Vec::new();
    for source in programs() {
        let mut visitor = Comparisons::default();
        visitor.visit_file(&source.parsed());
        offences.extend(visitor.found.iter().map(|line| format!("{}:{line}", source.path.display())));
    }
    source::none(&offences, "use subtle's ct_eq, which takes the same time wherever the difference is");
}

/// ADR 003.
#[test]
fn no_message_of_the_wire_can_be_printed() {
    let mut offences = Vec::new();
    for file in ["proto/src/generated/flydex.v1.rs", "proto/agent/src/generated/flydex.agent.v1.rs"] {
        let text = fs::read_to_string(source::root().join(file)).expect("generated code is in the tree");
        let mut visitor = Messages::default();
        visitor.visit_file(&syn::parse_file(&text).expect("generated code is Rust"));
        assert!(visitor.count > 30, "the messages of {file} were found");
        offences.extend(visitor.printable.iter().map(|name| format!("{file}: {name}")));
    }
    source::none(&offences, "generate messages without Debug (docs/adr/003-no-debug-on-wire-messages.md)");
}

// === What is looked for ===

struct Derived {
    line: usize,
    name: String,
    derived: &'static str,
    field: String,
}

fn derived_over_secrets(file: &syn::File) -> Vec<Derived> {
    let mut visitor = Types::default();
    visitor.visit_file(file);
    visitor.derived
}

#[derive(Default)]
struct Types {
    derived: Vec<Derived>,
    wrapping: Vec<(usize, String)>,
}

impl Types {
    fn look(&mut self, name: &syn::Ident, attributes: &[Attribute], fields: &[&Field]) {
        let derives = derives(attributes);
        let line = name.span().start().line;
        for field in fields.iter().filter(|field| is_raw_secret(field)) {
            let derived = ["Debug", "Serialize"].into_iter().filter(|derived| derives.iter().any(|one| one == derived));
            let told =
                format!("{}: {}", field.ident.as_ref().map(ToString::to_string).unwrap_or_default(), text(&field.ty));
            self.derived.extend(derived.map(|derived| Derived {
                line,
                name: name.to_string(),
                derived,
                field: told.clone(),
            }));
        }
        let wraps = fields.iter().any(|field| WRAPPERS.iter().any(|wrapper| text(&field.ty).contains(wrapper)));
        if wraps || derives.iter().any(|one| WRAPPERS.contains(&one.as_str())) {
            self.wrapping.push((line, name.to_string()));
        }
    }
}

impl Visit<'_> for Types {
    fn visit_item_struct(&mut self, item: &syn::ItemStruct) {
        self.look(&item.ident, &item.attrs, &item.fields.iter().collect::<Vec<_>>());
    }

    fn visit_item_enum(&mut self, item: &syn::ItemEnum) {
        self.look(
            &item.ident,
            &item.attrs,
            &item.variants.iter().flat_map(|variant| &variant.fields).collect::<Vec<_>>(),
        );
    }
}

fn derives(attributes: &[Attribute]) -> Vec<String> {
    let mut derives = Vec::new();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("derive")) {
        let _ = attribute.parse_nested_meta(|meta| {
            derives.extend(meta.path.segments.last().map(|segment| segment.ident.to_string()));
            Ok(())
        });
    }
    derives
}

fn is_raw_secret(field: &Field) -> bool {
    let Some(name) = &field.ident else { return text(&field.ty).starts_with("Zeroizing") };
    let (name, ty) = (name.to_string(), text(&field.ty));
    let is_secret = SECRET_NAMES.iter().any(|secret| name == *secret || name.ends_with(&format!("_{secret}")));
    ty.contains("Zeroizing") || is_secret && RAW_TYPES.iter().any(|raw| ty.contains(raw))
}

fn text(ty: &Type) -> String {
    ty.span().source_text().unwrap_or_default().replace(' ', "")
}

#[derive(Default)]
struct Texts {
    exposing: Vec<usize>,
}

impl Visit<'_> for Texts {
    fn visit_macro(&mut self, call: &syn::Macro) {
        let name = call.path.segments.last().map(|segment| segment.ident.to_string()).unwrap_or_default();
        if TEXTS.contains(&name.as_str()) && exposes(call.tokens.clone()) {
            self.exposing.push(call.span().start().line);
        }
        visit::visit_macro(self, call);
    }
}

fn exposes(tokens: TokenStream) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => ident == "expose" || ident == "expose_secret",
        TokenTree::Group(group) => exposes(group.stream()),
        TokenTree::Punct(_) | TokenTree::Literal(_) => false,
    })
}

#[derive(Default)]
struct Comparisons {
    found: Vec<usize>,
}

impl Visit<'_> for Comparisons {
    fn visit_expr_binary(&mut self, binary: &syn::ExprBinary) {
        let compares = matches!(binary.op, syn::BinOp::Eq(_) | syn::BinOp::Ne(_));
        if compares && (is_secret(&binary.left) || is_secret(&binary.right)) {
            self.found.push(binary.op.span().start().line);
        }
        visit::visit_expr_binary(self, binary);
    }
}

/// Whether an expression is a secret by its last name, or exposes one.
#[expect(clippy::wildcard_enum_match_arm, reason = "the grammar has many kinds of expressions that name nothing")]
fn is_secret(expression: &Expr) -> bool {
    let name = match expression {
        Expr::Path(path) => path.path.segments.last().map(|segment| segment.ident.to_string()),
        Expr::Field(field) => match &field.member {
            syn::Member::Named(name) => Some(name.to_string()),
            syn::Member::Unnamed(_) => return is_secret(&field.base),
        },
        Expr::Reference(reference) => return is_secret(&reference.expr),
        Expr::Unary(unary) => return is_secret(&unary.expr),
        Expr::Paren(paren) => return is_secret(&paren.expr),
        Expr::MethodCall(call) => {
            return call.method == "expose"
                || matches!(call.method.to_string().as_str(), "as_bytes" | "as_str" | "as_slice" | "as_ref")
                    && is_secret(&call.receiver);
        }
        _ => None,
    };
    name.is_some_and(|name| COMPARED.contains(&name.as_str()))
}

#[derive(Default)]
struct Messages {
    count: usize,
    printable: Vec<String>,
}

impl Messages {
    fn look(&mut self, name: &syn::Ident, attributes: &[Attribute]) {
        let derives = derives(attributes);
        if !derives.iter().any(|one| one == "Message" || one == "Oneof") {
            return;
        }
        self.count += 1;
        let skips = attributes.iter().any(|attribute| {
            attribute.path().is_ident("prost")
                && attribute.span().source_text().unwrap_or_default().contains("skip_debug")
        });
        if !skips || derives.iter().any(|one| one == "Debug") {
            self.printable.push(name.to_string());
        }
    }
}

impl Visit<'_> for Messages {
    fn visit_item_struct(&mut self, item: &syn::ItemStruct) {
        self.look(&item.ident, &item.attrs);
    }

    fn visit_item_enum(&mut self, item: &syn::ItemEnum) {
        self.look(&item.ident, &item.attrs);
    }

    fn visit_item_impl(&mut self, item: &syn::ItemImpl) {
        if item
            .trait_
            .as_ref()
            .is_some_and(|(_, path, _)| path.segments.last().is_some_and(|segment| segment.ident == "Debug"))
        {
            self.printable.push(text(&item.self_ty));
        }
    }
}

// === That they find ===

fn parsed(text: &str) -> syn::File {
    syn::parse_file(text).expect("the text is Rust")
}

#[test]
fn a_derive_over_a_secret_is_found_and_over_what_hides_it_is_not() {
    let found = |text: &str| derived_over_secrets(&parsed(text)).iter().map(|one| one.derived).collect::<Vec<_>>();
    assert_eq!(found("#[derive(Debug)] struct A { session_token: String }"), ["Debug"]);
    assert_eq!(
        found("#[derive(Clone, Debug, serde::Serialize)] enum A { B { cookie: Option<[u8; 32]> } }"),
        ["Debug", "Serialize"]
    );
    assert_eq!(found("#[derive(Debug)] struct A(Zeroizing<String>);"), ["Debug"]);
    assert_eq!(found("#[derive(Serialize)] struct A { prompt: Bytes }"), ["Serialize"]);
    assert!(found("#[derive(Clone)] struct A { token: String }").is_empty());
    assert!(
        found("#[derive(Debug)] struct A { token: SecretText, grant_id: GrantId, token_sha256: [u8; 32] }").is_empty()
    );
}

#[test]
fn a_secret_in_a_text_and_a_plain_comparison_are_found() {
    let lines = |text: &str| {
        let (mut texts, mut comparisons) = (Texts::default(), Comparisons::default());
        let file = parsed(&format!("fn f() {{ {text}; }}"));
        texts.visit_file(&file);
        comparisons.visit_file(&file);
        (texts.exposing.len(), comparisons.found.len())
    };
    assert_eq!(lines(r#"tracing::info!(error = %key.expose(), "gone")"#), (1, 0));
    assert_eq!(lines(r#"let a = format!("{}", f(secret.expose_secret()))"#), (1, 0));
    assert_eq!(lines(r#"let a = format!("{}", key.len())"#), (0, 0));
    assert_eq!(lines("let a = given.mac == known"), (0, 1));
    assert_eq!(lines("let a = x != *self.key.expose()"), (0, 1));
    assert_eq!(lines("let a = &token.0[..] == b && c.token_sha256 == sha256(d)"), (0, 1));
    assert_eq!(lines("let a = machine_id == body_sha256"), (0, 0));
}

#[test]
fn a_message_with_debug_is_found() {
    let found = |text: &str| {
        let mut visitor = Messages::default();
        visitor.visit_file(&parsed(text));
        visitor.printable
    };
    assert_eq!(found("#[derive(Clone, ::prost::Message)] struct A {}"), ["A"]);
    assert_eq!(found("impl core::fmt::Debug for A {}"), ["A"]);
    assert!(found("#[derive(Clone, ::prost::Message)] #[prost(skip_debug)] struct A {}").is_empty());
}
