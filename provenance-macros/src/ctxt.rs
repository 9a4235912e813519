//! Collects every mistake of one macro use, so that one compile reports them all.

use std::cell::RefCell;
use std::fmt::Display;

use proc_macro2::{Span, TokenStream};
use quote::ToTokens;

/// The errors found so far.
#[derive(Default)]
pub(crate) struct Ctxt {
    errors: RefCell<Vec<syn::Error>>,
}

impl Ctxt {
    /// An error at the tokens of `at`, in the user's words, with the fix.
    pub(crate) fn error_at(&self, at: impl ToTokens, message: impl Display) {
        self.syn_error(syn::Error::new_spanned(at, message));
    }

    /// An error at a place that has no tokens of its own, such as an empty attribute.
    pub(crate) fn error_span(&self, span: Span, message: impl Display) {
        self.syn_error(syn::Error::new(span, message));
    }

    /// An error that syn found.
    pub(crate) fn syn_error(&self, error: syn::Error) {
        self.errors.borrow_mut().push(error);
    }

    /// Whether anything was wrong so far.
    pub(crate) fn failed(&self) -> bool {
        !self.errors.borrow().is_empty()
    }
}

/// The one way out of every macro: its output, then every error as `compile_error!`.
pub(crate) fn funnel(expand: impl FnOnce(&Ctxt) -> TokenStream) -> TokenStream {
    let cx = Ctxt::default();
    let mut output = expand(&cx);
    for error in cx.errors.into_inner() {
        output.extend(error.into_compile_error());
    }
    output
}
