//! `#[derived("category")]`.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;

use super::{Ladder, args_of, field_expr, probe, show_arguments};
use crate::attr::{Args, Declared, Shared};
use crate::ctxt::Ctxt;
use crate::entry::{Entry, Place};
use crate::function::{Flow, Function, take_last};
use crate::symbol;

/// The attribute as a whole.
pub(crate) fn attribute(cx: &Ctxt, args: TokenStream, item: TokenStream) -> TokenStream {
    let (tokens, last) = take_last(args);
    let keys = [symbol::DESCRIPTION, symbol::KIND, symbol::PII, symbol::SECRET];
    let mut args = Args::parse(
        cx,
        tokens.clone(),
        "#[derived]",
        &[&keys, &symbol::SHARED],
        Span::call_site(),
    );
    let shared = Shared::take(&mut args);
    let declared = Declared::take(&mut args);
    let mut function = match Function::parse(cx, "#[derived]", item) {
        Ok(function) => function,
        Err(instead) => return instead,
    };
    let declared = match declared {
        Some(declared) if !cx.failed() => declared,
        _ => return function.original(),
    };
    let krate = &shared.krate;
    if !last && let Some(moved) = function.after_others(&quote!(#krate::derived), &tokens) {
        return moved;
    }
    let place = Place::new(&function.sig.ident, &shared);
    let args = function.take_args();
    let entry = Entry::new("derived", &place, &shared)
        .with(|object| args_of(object.declared(&declared), &args))
        .emit();
    let site = place.site(&shared);
    let field = field_expr(krate, &function.sig.ident.unraw().to_string(), &declared);

    // The body must not see our variables, nor we the body's.
    let here = Span::mixed_site();
    let visitor = Ident::new("visitor", here);
    let arguments = show_arguments(krate, &args);
    let rebindings = Function::rebindings(&args);
    let output_span = match &function.sig.output {
        syn::ReturnType::Default => function.sig.ident.span(),
        syn::ReturnType::Type(_, ty) => ty.span(),
    };
    let result = quote_spanned!(here=> result);
    let probe = probe(
        krate,
        Ladder::Field,
        quote_spanned!(here=> &#result),
        &visitor,
        output_span,
    );
    let finish = quote_spanned! {here=>
        call.result(|#visitor: &mut #krate::__private::Visitor<'_>| {
            #visitor.field(field, |#visitor| #probe);
        });
        #result
    };
    let rest = match function.flow() {
        Flow::Sync => {
            let value = function.in_closure(krate, &rebindings);
            quote_spanned!(here=> let #result = #value; #finish)
        }
        Flow::Async => {
            let (fake_return, body) = (function.fake_return(), &function.body);
            quote_spanned!(here=> let #result = async move { #fake_return #rebindings #body }.await; #finish)
        }
        Flow::Boxed => {
            let future = function.in_closure(krate, &rebindings);
            quote_spanned! {here=>
                let future = #future;
                ::std::boxed::Box::pin(async move { let #result = future.await; #finish })
            }
        }
        Flow::Future => {
            let future = function.in_closure(krate, &rebindings);
            quote_spanned! {here=>
                let future = #future;
                async move { let #result = future.await; #finish }
            }
        }
    };
    function.with_body(quote_spanned! {here=>
        #entry
        let (mut call, field) = {
            static FIELD: #krate::__private::Field = #field;
            static SITE: #krate::__private::DerivedSite = #krate::__private::DerivedSite { site: #site, field: &FIELD };
            (#krate::__private::derived::Call::begin(&SITE), &FIELD)
        };
        call.inputs(#arguments);
        #rest
    })
}
