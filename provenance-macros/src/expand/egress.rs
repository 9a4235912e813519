//! `#[egress]`.

use proc_macro2::{Delimiter, Group, Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{FnArg, LitStr, Token, Type, TypeImplTrait, TypeParamBound};

use super::{args_of, arguments, mentioned_may_leave};
use crate::attr::{Args, Shared};
use crate::check;
use crate::ctxt::Ctxt;
use crate::entry::{Entry, Place, optional};
use crate::function::{Arg, Flow, Function, take_last};
use crate::symbol;

mod rewrite;

use rewrite::Rewritten;

const WHAT: &str = "#[egress]";

/// The attribute as a whole.
pub(crate) fn attribute(cx: &Ctxt, args: TokenStream, item: TokenStream) -> TokenStream {
    let (tokens, last) = take_last(args);
    let mut args = Args::parse(
        cx,
        tokens.clone(),
        WHAT,
        &[&symbol::EGRESS, &symbol::SHARED],
        Span::call_site(),
    );
    if let Ok(Some(text)) = args.literal() {
        let value = text.value();
        cx.error_at(
            text,
            format!("`{WHAT}` takes no string of its own: write `recipient = \"{value}\"`"),
        );
    }
    let shared = Shared::take(&mut args);
    let recipient = args.string(symbol::RECIPIENT).filter(|name| is_named(cx, name));
    let allow = args
        .list(symbol::ALLOW)
        .map(|(key, tokens)| categories(cx, &key, tokens));
    let mut function = match Function::parse(cx, WHAT, item) {
        Ok(function) => function,
        Err(instead) => return without_payload_marks(instead),
    };
    let krate = &shared.krate;
    if !last
        && !cx.failed()
        && let Some(moved) = function.after_others(&quote!(#krate::egress), &tokens)
    {
        return moved;
    }
    let marked = take_payload_marks(cx, &mut function);
    let here = Span::mixed_site();
    let frame = Ident::new("frame", here);
    // What does not parse is the compiler's to explain.
    let Ok(Rewritten { body, sends, loose }) = rewrite::rewrite(krate, &frame, function.body.clone()) else {
        return function.original();
    };
    if !marked.is_empty() && !sends && recipient.is_none() && !cx.failed() {
        cx.error_span(
            Span::call_site(),
            format!(
                "`{WHAT}` sees no call in this body that could be a client's, so its `#[payload]` is recorded as sent \
                 by the function as a whole: say to whom, with `recipient = \"..\"`"
            ),
        );
    }
    if cx.failed() {
        return function.original();
    }
    function.body = body;

    let place = Place::new(&function.sig.ident, &shared);
    let args = function.take_args();
    let payload: Vec<Arg> = args
        .iter()
        .zip(0..)
        .filter(|(_, at)| marked.contains(at))
        .map(|(arg, _)| arg.clone())
        .collect();
    let entry = Entry::new("egress", &place, &shared)
        .with(|object| {
            let object = object.optional("recipient", recipient.as_ref().map(LitStr::value).as_deref());
            let object = match &allow {
                Some(allow) => object.strings(
                    "allow",
                    allow
                        .iter()
                        .map(LitStr::value)
                        .collect::<Vec<_>>()
                        .iter()
                        .map(String::as_str),
                ),
                None => object,
            };
            args_of(object, &payload)
        })
        .emit();
    let site = place.site(&shared);
    let policy = allow
        .as_ref()
        .filter(|_| !payload.is_empty())
        .map(|allow| policy(krate, &place.name, allow, &payload));
    let recipient = optional(recipient.as_ref());
    let allow = optional(allow.as_ref().map(|allow| quote!(&[#(#allow),*])));
    let site_ident = rewrite::site_ident();
    let payload = (!payload.is_empty()).then(|| {
        let visitor = Ident::new("visitor", here);
        let arguments = arguments(krate, &payload, &visitor);
        quote_spanned!(here=> #frame.payload(|#visitor: &mut #krate::__private::Visitor<'_>| { #arguments });)
    });
    let rest = match (&payload, sends) {
        (Some(_), false) => whole(krate, &frame, &function, &args),
        _ => {
            let (rebindings, body) = (Function::rebindings(&args), &function.body);
            // A frame on the thread's stack would be left there by an `.await`.
            let enter = (function.flow() == Flow::Sync).then(|| quote_spanned!(here=> let _entered = #frame.enter();));
            quote_spanned!(here=> #enter #rebindings #body)
        }
    };
    function.with_body(quote_spanned! {here=>
        #entry
        static #site_ident: #krate::__private::EgressSite = #krate::__private::EgressSite {
            site: #site,
            recipient: #recipient,
            allow: #allow,
        };
        #[allow(unused_imports)]
        use #krate::__private::egress::Other as _;
        #policy
        let #frame = #krate::__private::egress::Frame::begin(&#site_ident, #loose, #sends);
        #payload
        #rest
    })
}

/// Has the compiler compare what the `#[payload]` types declare with `allow(..)`.
fn policy(krate: &syn::Path, function: &str, allow: &[LitStr], payload: &[Arg]) -> TokenStream {
    let here = Span::mixed_site();
    let policy = Ident::new("Leaving", here);
    let asked = payload.iter().map(|Arg { ident, ty, cfg, .. }| {
        let asked = match unnamed(ty) {
            // Its own name is `_`.
            Some(of) if is_tracked(of) => {
                let span = here.located_at(ty.span());
                quote_spanned!(span=> #krate::__private::policy::value_may_leave::<#policy, _>(&#ident);)
            }
            Some(_) => TokenStream::new(),
            None => mentioned_may_leave(krate, ty, &policy),
        };
        quote!(#(#cfg)* { #asked })
    });
    quote_spanned! {here=>
        {
            struct #policy;
            impl #krate::__private::policy::Policy for #policy {
                const FUNCTION: &'static str = #function;
                const ALLOW: &'static [&'static str] = &[#(#allow),*];
            }
            #[allow(unused_imports)]
            use #krate::__private::policy::Undeclared as _;
            #(#asked)*
        }
    }
}

/// `impl Trait`, and references to it.
fn unnamed(ty: &Type) -> Option<&TypeImplTrait> {
    match ty {
        Type::ImplTrait(ty) => Some(ty),
        Type::Reference(ty) => unnamed(&ty.elem),
        Type::Paren(ty) => unnamed(&ty.elem),
        Type::Group(ty) => unnamed(&ty.elem),
        _ => None,
    }
}

fn is_tracked(ty: &TypeImplTrait) -> bool {
    ty.bounds.iter().any(|bound| match bound {
        TypeParamBound::Trait(bound) => bound.path.segments.last().is_some_and(|last| last.ident == "Tracked"),
        _ => false,
    })
}

/// The share of a function in whose body no call can be rewritten: recorded before the body
/// runs, and finished with what it returns.
fn whole(krate: &syn::Path, frame: &Ident, function: &Function, args: &[Arg]) -> TokenStream {
    let here = Span::mixed_site();
    let rebindings = Function::rebindings(args);
    let finish = quote_spanned! {here=>
        call.finish(#krate::__private::egress::Wrap(&result).__failed());
        result
    };
    match function.flow() {
        Flow::Sync => {
            let value = function.in_closure(krate, &rebindings);
            quote_spanned! {here=>
                let call = #frame.share();
                #[allow(clippy::let_unit_value)]
                let result = #value;
                #finish
            }
        }
        Flow::Async => {
            let (fake_return, body) = (function.fake_return(), &function.body);
            quote_spanned! {here=>
                let call = #frame.share();
                #[allow(clippy::let_unit_value)]
                let result = async move { #fake_return #rebindings #body }.await;
                #finish
            }
        }
        flow @ (Flow::Boxed | Flow::Future) => {
            let future = function.in_closure(krate, &rebindings);
            let future_then_finish = quote_spanned! {here=>
                async move {
                    let call = #frame.share();
                    #[allow(clippy::let_unit_value)]
                    let result = future.await;
                    #finish
                }
            };
            let value = match flow {
                Flow::Boxed => quote_spanned!(here=> ::std::boxed::Box::pin(#future_then_finish)),
                _ => future_then_finish,
            };
            quote_spanned! {here=>
                let future = #future;
                #value
            }
        }
    }
}

fn is_named(cx: &Ctxt, recipient: &LitStr) -> bool {
    let named = !recipient.value().trim().is_empty();
    if !named {
        cx.error_at(
            recipient,
            "`recipient` is empty: name who receives the data, such as `\"mailchimp\"`",
        );
    }
    named
}

/// The categories of `allow(..)`; one word, such as `financial`, stands for all below it.
fn categories(cx: &Ctxt, key: &Ident, tokens: TokenStream) -> Vec<LitStr> {
    match Punctuated::<LitStr, Token![,]>::parse_terminated.parse2(tokens) {
        Ok(listed) => listed
            .into_iter()
            .filter(|one| check::is_word(&one.value()) || check::category(cx, one))
            .collect(),
        Err(_) => {
            cx.error_at(key, "`allow` takes categories: write `allow(\"contact.email\", ..)`");
            Vec::new()
        }
    }
}

/// Takes `#[payload]` off the arguments; gives the positions of those that had it, `self` not counted.
fn take_payload_marks(cx: &Ctxt, function: &mut Function) -> Vec<usize> {
    let mut marked = Vec::new();
    let mut position = 0;
    for input in &mut function.sig.inputs {
        let attrs = match input {
            FnArg::Receiver(receiver) => &mut receiver.attrs,
            FnArg::Typed(typed) => &mut typed.attrs,
        };
        let Some(at) = attrs.iter().position(|attr| attr.path().is_ident(symbol::PAYLOAD)) else {
            position += usize::from(matches!(input, FnArg::Typed(_)));
            continue;
        };
        let mark = attrs.remove(at);
        if attrs.iter().any(|attr| attr.path().is_ident(symbol::PAYLOAD)) {
            cx.error_at(&mark, "duplicate `#[payload]`: give it once");
            attrs.retain(|attr| !attr.path().is_ident(symbol::PAYLOAD));
        }
        if mark.meta.require_path_only().is_err() {
            cx.error_at(
                mark.meta.to_token_stream(),
                "`#[payload]` takes no arguments: what the type declares is recorded",
            );
        }
        match input {
            FnArg::Receiver(_) => cx.error_at(
                mark,
                "`#[payload]` belongs on an argument, not on `self`: pass what is sent",
            ),
            FnArg::Typed(_) => {
                marked.push(position);
                position += 1;
            }
        }
    }
    marked
}

/// An item that is no function, with the marks taken off that only we understand.
fn without_payload_marks(item: TokenStream) -> TokenStream {
    let mut kept: Vec<TokenTree> = Vec::new();
    for token in item {
        match token {
            TokenTree::Group(group) if is_payload_mark(&group) && ends_with_pound(&kept) => {
                kept.pop();
            }
            TokenTree::Group(group) => {
                let mut inner = Group::new(group.delimiter(), without_payload_marks(group.stream()));
                inner.set_span(group.span());
                kept.push(TokenTree::Group(inner));
            }
            token => kept.push(token),
        }
    }
    kept.into_iter().collect()
}

fn is_payload_mark(group: &Group) -> bool {
    let first = group.stream().into_iter().next();
    group.delimiter() == Delimiter::Bracket
        && matches!(first, Some(TokenTree::Ident(ident)) if ident == symbol::PAYLOAD)
}

fn ends_with_pound(tokens: &[TokenTree]) -> bool {
    matches!(tokens.last(), Some(TokenTree::Punct(punct)) if punct.as_char() == '#')
}
