//! `#[provenance_input]`.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};

use super::{args_of, shared_only, show_arguments, type_text};
use crate::attr::Shared;
use crate::ctxt::Ctxt;
use crate::entry::{Entry, Place};
use crate::extractor::{Extractor, Verdict};
use crate::function::{Arg, Flow, Function, take_last};

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
    let unvisited = unvisited(&function, &args, &place, &shared);
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
        #unvisited
        let #call = {
            static SITE: #krate::__private::InputSite = #krate::__private::InputSite { site: #site };
            #krate::__private::input::Call::begin(&SITE)
        };
        #call.collect(#arguments);
        #rest
    })
}

/// An inventory entry for every argument that comes from the client and cannot be visited, so that it is
/// known before any request comes.
fn unvisited(function: &Function, args: &[Arg], place: &Place, shared: &Shared) -> TokenStream {
    let entries = args.iter().enumerate().filter_map(|(index, arg)| {
        let ty = type_text(&arg.ty);
        let name = arg.name.clone().unwrap_or_else(|| index.to_string());
        let entry = Entry::new("unvisited", place, shared)
            .of(&format!("({name}: {ty})"))
            .with(|object| object.string("type", &ty));
        let entry = match Extractor::of(&arg.ty)?.verdict(&function.sig.generics) {
            Verdict::Ask(ty) => entry.unless_read(*ty),
            Verdict::Never => entry,
            Verdict::Unknown => return None,
        };
        let (cfg, entry) = (&arg.cfg, entry.emit());
        Some(quote!(#(#cfg)* #entry))
    });
    quote!(#(#entries)*)
}
