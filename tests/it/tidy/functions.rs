//! Functions and their length.

use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

use super::source;

/// Lines of a function from its name to its closing brace: a screen.
const FUNCTION_LINES_MAX: usize = 70;

#[test]
fn functions_fit_on_a_screen() {
    let mut offences = Vec::new();
    for source in source::all().iter().filter(|source| !source.is_test()) {
        let mut visitor = Visitor::default();
        visitor.visit_file(&source.parsed());
        offences.extend(visitor.long.iter().map(|offence| format!("{}:{offence}", source.path.display())));
    }
    source::none(&offences, "a function fits on a screen of 70 lines");
}

#[derive(Default)]
struct Visitor {
    long: Vec<String>,
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
}
