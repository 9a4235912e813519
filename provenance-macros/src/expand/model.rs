//! `#[tracked_model]`.

use proc_macro2::TokenStream;

use crate::ctxt::Ctxt;

/// The attribute: takes Diesel's derives out of the list and adds its own.
pub(crate) fn attribute(cx: &Ctxt, args: TokenStream, item: TokenStream) -> TokenStream {
    let _ = (cx, args);
    item
}

/// The derive that the attribute adds: sees the struct as the compiler will.
pub(crate) fn derive(cx: &Ctxt, item: TokenStream) -> TokenStream {
    let _ = (cx, item);
    TokenStream::new()
}
