//! The code that each attribute becomes, and the pieces that several of them share.

pub(crate) mod derived;
pub(crate) mod egress;
pub(crate) mod input;
pub(crate) mod model;
pub(crate) mod tracked;

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Index, LitStr, Path, Type};

use crate::attr::{Args, Declared, Shared};
use crate::ctxt::Ctxt;
use crate::entry::{Object, optional};
use crate::extractor::{Extractor, PathNames};
use crate::function::Arg;
use crate::model::Model;
use crate::symbol;

/// How generated code asks what a value can do: see `provenance/src/probe.rs`.
#[derive(Clone, Copy)]
pub(crate) enum Ladder {
    /// A declared value: unreadable types are compile errors.
    Field,
    /// A field without `#[tracked]`: what is tracked inside it, if anything.
    Member,
    /// A handler's argument: whatever can be read, and a note of wrappers that cannot.
    Argument,
    /// One that is written as an extractor: what it dereferences to, too, and a note if it cannot be read.
    Extractor,
}

/// A statement that shows `value` (an expression for a reference) to `visitor`, trying what
/// its type can do. Errors about the type point to `span`.
pub(crate) fn probe(krate: &Path, ladder: Ladder, value: impl ToTokens, visitor: &Ident, span: Span) -> TokenStream {
    // The span says where; the hygiene stays the macro's, so that lints know whose code it is.
    let span = Span::mixed_site().located_at(span);
    let method = match ladder {
        Ladder::Field => "visit_as_field",
        Ladder::Member => "visit_as_member",
        Ladder::Argument => "visit_as_argument",
        Ladder::Extractor => "visit_as_extractor",
    };
    let method = Ident::new(method, span);
    quote_spanned! {span=> {
        use #krate::__private::probe::*;
        (&&&&&Probe(#value)).#method(#visitor);
    }}
}

/// An expression of type `Field`, fit for a static.
pub(crate) fn field_expr(krate: &Path, name: &str, declared: &Declared) -> TokenStream {
    let category = &declared.category;
    let description = declared.description.as_ref().map(LitStr::value).unwrap_or_default();
    let kind = optional(declared.kind.as_ref());
    let pii = optional(declared.pii);
    let secret = optional(declared.secret);
    quote! {
        #krate::__private::Field {
            name: #name,
            category: #category,
            description: #description,
            kind: #kind,
            pii: #pii,
            secret: #secret,
        }
    }
}

/// A static for every declared field, named by [`crate::model::Field::static_ident`].
pub(crate) fn field_statics(krate: &Path, model: &Model) -> TokenStream {
    let statics = model.fields().filter_map(|field| {
        let ident = field.static_ident();
        let value = field_expr(krate, &field.name, field.declared()?);
        Some(quote!(static #ident: #krate::__private::Field = #value;))
    });
    quote!(#(#statics)*)
}

/// Statements that ask every type in `ty`, itself included, whether the policy lets it leave:
/// containers say nothing of what they contain. Errors point to `ty`.
fn mentioned_may_leave(krate: &Path, ty: &Type, policy: &Ident) -> TokenStream {
    struct Mentioned<'t>(Vec<&'t Type>);
    impl<'t> Visit<'t> for Mentioned<'t> {
        fn visit_type(&mut self, ty: &'t Type) {
            if matches!(ty, Type::Path(path) if !says_nothing(path)) {
                self.0.push(ty);
            }
            visit::visit_type(self, ty);
        }
        fn visit_type_fn_ptr(&mut self, _: &'t syn::TypeFnPtr) {}
        fn visit_macro(&mut self, _: &'t syn::Macro) {}
        fn visit_expr(&mut self, _: &'t syn::Expr) {}
    }
    let mut mentioned = Mentioned(Vec::new());
    mentioned.visit_type(ty);
    let span = Span::mixed_site().located_at(ty.span());
    let asked = mentioned
        .0
        .into_iter()
        .map(|ty| quote_spanned!(span=> let _: fn() = #krate::__private::policy::Of::<#ty>::may_leave::<#policy>;));
    quote!(#(#asked)*)
}

/// Types of the language that have no fields to declare; leaving them out keeps expansions small.
fn says_nothing(path: &syn::TypePath) -> bool {
    const NOTHING: [&str; 22] = [
        "bool", "char", "f32", "f64", "i8", "i16", "i32", "i64", "i128", "isize", "u8", "u16", "u32", "u64", "u128",
        "usize", "str", "String", "Vec", "Option", "Box", "Cow",
    ];
    path.path
        .segments
        .last()
        .is_some_and(|last| NOTHING.iter().any(|name| last.ident == name))
}

/// Statements that show every argument of a function to `visitor`, by reference.
pub(crate) fn arguments(krate: &Path, args: &[Arg], visitor: &Ident) -> TokenStream {
    let shown = args.iter().map(|arg| {
        let (ident, cfg) = (&arg.ident, &arg.cfg);
        if let Some(PathNames::Each(names)) = arg.path_names() {
            let parts = names.iter().enumerate().map(|(index, name)| {
                let index = Index::from(index);
                let probe = probe(
                    krate,
                    Ladder::Argument,
                    quote!(&#ident.0.#index),
                    visitor,
                    arg.ty.span(),
                );
                show(name.as_deref(), &probe, visitor)
            });
            return quote!(#(#cfg)* { #(#parts)* });
        }
        let whole = match arg.path_names() {
            Some(PathNames::Whole(name)) => Some(name),
            _ => arg.name.clone(),
        };
        let probe = match Extractor::of(&arg.ty) {
            Some(extractor) => {
                let derefs = std::iter::repeat_n(quote!(*), extractor.references);
                probe(
                    krate,
                    Ladder::Extractor,
                    quote!(&#(#derefs)* #ident),
                    visitor,
                    arg.ty.span(),
                )
            }
            None => probe(krate, Ladder::Argument, quote!(&#ident), visitor, arg.ty.span()),
        };
        let shown = show(whole.as_deref(), &probe, visitor);
        quote!(#(#cfg)* #shown)
    });
    quote!(#(#shown)*)
}

fn show(name: Option<&str>, probe: &TokenStream, visitor: &Ident) -> TokenStream {
    match name {
        // To look at `_unused` is our doing, not the user's.
        Some(name) if name.starts_with('_') => quote! {
            #[allow(clippy::used_underscore_binding)] { #visitor.entry(#name, |#visitor| #probe); }
        },
        Some(name) => quote!(#visitor.entry(#name, |#visitor| #probe);),
        None => quote!(#visitor.untracked(|#visitor| #probe);),
    }
}

/// A closure that shows every argument to the visitor it is given.
fn show_arguments(krate: &Path, args: &[Arg]) -> TokenStream {
    let visitor = Ident::new("visitor", Span::mixed_site());
    let shown = arguments(krate, args, &visitor);
    match args {
        [] => quote!(|_: &mut #krate::Visitor<'_>| {}),
        _ => quote!(|#visitor: &mut #krate::Visitor<'_>| { #shown }),
    }
}

/// `args` of an inventory entry.
pub(crate) fn args_of(object: Object, args: &[Arg]) -> Object {
    let args = args.iter().map(|arg| {
        Object::default()
            .optional("name", arg.name.as_deref())
            .string("type", &type_text(&arg.ty))
    });
    object.objects("args", args)
}

/// The arguments of an attribute that takes the shared keys alone.
fn shared_only(cx: &Ctxt, tokens: TokenStream, what: &'static str) -> Shared {
    let mut args = Args::parse(cx, tokens, what, &[&symbol::SHARED], Span::call_site());
    if let Ok(Some(text)) = args.literal() {
        cx.error_at(
            text,
            format!("`{what}` takes no string of its own: remove it, or name its key"),
        );
    }
    Shared::take(&mut args)
}

/// A type as a user would write it, whatever the compiler's spacing of tokens.
fn type_text(ty: &Type) -> String {
    let mut text = ty.to_token_stream().to_string();
    for (spaced, tight) in [
        (" :: ", "::"),
        (" < ", "<"),
        ("< ", "<"),
        (" >", ">"),
        (" ,", ","),
        ("& ", "&"),
        ("( ", "("),
        (" )", ")"),
        ("[ ", "["),
        (" ]", "]"),
        (":: ", "::"),
    ] {
        text = text.replace(spaced, tight);
    }
    text
}
