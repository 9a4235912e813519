//! `#[provenance_input]`.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};

use super::{args_of, shared_only, show_arguments};
use crate::ctxt::Ctxt;
use crate::entry::{Entry, Place};
use crate::function::{Flow, Function, take_last};

/// The attribute as a whole.
pub(crate) fn attribute(cx: &Ctxt, args: TokenStream, item: TokenStream) -> TokenStream {
    let (tokens, last) = take_last(args);
    let shared = shared_only(cx, tokens.clone(), "#[provenance_input]");
    let mut function = match Function::parse(cx, "#[provenance_input]", item) {
        Ok(function) => function,
        Err(instead) => return instead,
    };
    if cx.failed() {
        return function.original();
    }
    let krate = &shared.krate;
    if !last && let Some(moved) = function.after_others(&quote!(#krate::provenance_input), &tokens) {
        return moved;
    }
    let place = Place::new(&function.sig.ident, &shared);
    let args = function.take_args();
    let entry = Entry::new("input", &place, &shared)
        .with(|object| args_of(object, &args))
        .emit();
    let site = place.site(&shared);

    // The body must not see our variables, nor we the body's.
    let here = Span::mixed_site();
    let arguments = show_arguments(krate, &args);
    let (rebindings, body) = (Function::rebindings(&args), &function.body);
    let call = quote_spanned!(here=> call);
    let rest = match function.flow() {
        Flow::Sync => quote_spanned! {here=>
            let _guard = #call.enter();
            #rebindings
            #body
        },
        Flow::Async => {
            let fake_return = function.fake_return();
            quote_spanned!(here=> #call.run(async move { #fake_return #rebindings #body }).await)
        }
        Flow::Boxed => {
            let future = function.in_closure(krate, &rebindings);
            quote_spanned!(here=> ::std::boxed::Box::pin(#call.run(#future)))
        }
        Flow::Future => {
            let future = function.in_closure(krate, &rebindings);
            quote_spanned!(here=> #call.run(#future))
        }
    };
    function.with_body(quote_spanned! {here=>
        #entry
        let #call = {
            static SITE: #krate::__private::InputSite = #krate::__private::InputSite { site: #site };
            #krate::__private::input::Call::begin(&SITE)
        };
        #call.collect(#arguments);
        #rest
    })
}
