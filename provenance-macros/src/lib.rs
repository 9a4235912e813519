//! The attributes of the `provenance` crate; use them through it.
//!
//! Each attribute goes the same way: `attr` parses its keys, `model` and `entry` read the
//! item, `check` finds what is wrong, `expand` writes the code, and `fallback` writes what is
//! needed instead when something is wrong, so that the user sees every mistake and no
//! follow-on errors. Generated code is small and calls `provenance::__private`.

use proc_macro::TokenStream;

mod attr;
mod check;
mod ctxt;
mod entry;
mod expand;
mod fallback;
mod function;
mod model;
mod symbol;
#[cfg(test)]
mod tests;

use ctxt::funnel;

/// Hooks on a Diesel model.
#[proc_macro_attribute]
pub fn tracked_model(args: TokenStream, item: TokenStream) -> TokenStream {
    funnel(|cx| expand::model::attribute(cx, args.into(), item.into())).into()
}

/// The part of `#[tracked_model]` that sees the struct after `#[cfg]`; added by it.
#[doc(hidden)]
#[proc_macro_derive(TrackedModel, attributes(tracked, diesel, tracked_model_args))]
pub fn derive_tracked_model(item: TokenStream) -> TokenStream {
    funnel(|cx| expand::model::derive(cx, item.into())).into()
}

/// Makes the tracked fields of a type visible to the hooks.
#[proc_macro_derive(Tracked, attributes(tracked))]
pub fn derive_tracked(item: TokenStream) -> TokenStream {
    funnel(|cx| expand::tracked::derive(cx, item.into())).into()
}

/// Records what comes in through a handler's arguments.
#[proc_macro_attribute]
pub fn provenance_input(args: TokenStream, item: TokenStream) -> TokenStream {
    funnel(|cx| expand::input::attribute(cx, args.into(), item.into())).into()
}

/// Records what a function sends, and to whom.
#[proc_macro_attribute]
pub fn egress(args: TokenStream, item: TokenStream) -> TokenStream {
    funnel(|cx| expand::egress::attribute(cx, args.into(), item.into())).into()
}

/// Records a function's result as derived from its arguments.
#[proc_macro_attribute]
pub fn derived(args: TokenStream, item: TokenStream) -> TokenStream {
    funnel(|cx| expand::derived::attribute(cx, args.into(), item.into())).into()
}
