//! `#[derive(Tracked)]`, and the implementation of `Tracked` that models have too.

use std::collections::BTreeSet;

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::visit::{self, Visit};
use syn::{DeriveInput, GenericParam, Generics, Path, parse_quote};

use super::{Ladder, field_statics, mentioned_may_leave, probe};
use crate::attr::{Args, Shared, only_tracked};
use crate::ctxt::Ctxt;
use crate::entry::{Entry, Object, Place};
use crate::model::{Field, Model, Owner, Shape};
use crate::{fallback, symbol};

/// The derive.
pub(crate) fn derive(cx: &Ctxt, item: TokenStream) -> TokenStream {
    let input: DeriveInput = match syn::parse2(item) {
        Ok(input) => input,
        Err(error) => {
            cx.syn_error(error);
            return TokenStream::new();
        }
    };
    let (tokens, span) = match only_tracked(cx, &input.attrs) {
        Some((attr, tokens)) => (tokens, attr.bracket_token.span.join()),
        None => (TokenStream::new(), Span::call_site()),
    };
    let mut args = Args::parse(cx, tokens, "#[tracked]", &[&[symbol::OWNER], &symbol::SHARED], span);
    let shared = Shared::take(&mut args);
    let owner = args.list(symbol::OWNER);
    if let Ok(Some(category)) = args.literal() {
        cx.error_at(
            category,
            "a category belongs on a field: move it there. On the type, `#[tracked(owner(email))]` says whose it is",
        );
    }
    let Some(model) = Model::parse(cx, &input) else {
        return fallback::tracked(&input, &shared.krate);
    };
    let owners = match owner {
        Some((key, tokens)) => model.owners(cx, tokens, &key, None),
        None => Vec::new(),
    };
    if cx.failed() {
        return fallback::tracked(&input, &shared.krate);
    }
    let statics = field_statics(&shared.krate, &model);
    let implementation = implementation(&shared.krate, &model, &owners);
    let entry = Entry::new("tracked", &Place::new(&model.ident, &shared), &shared)
        .with(|object| declarations(object, &model, &owners))
        .emit();
    quote! {
        const _: () = {
            #statics
            #implementation
            #entry
        };
    }
}

/// `fields` and `owner` of an inventory entry.
pub(crate) fn declarations(object: Object, model: &Model, owners: &[Owner]) -> Object {
    let fields = model.fields().filter_map(|field| {
        Some(
            Object::default()
                .string("name", &field.name)
                .declared(field.declared()?),
        )
    });
    object
        .objects("fields", fields)
        .strings("owner", owners.iter().map(|owner| owner.kind.as_str()))
}

/// `impl Tracked`: a record, its owners, its fields. Needs [`field_statics`] in scope.
pub(crate) fn implementation(krate: &Path, model: &Model, owners: &[Owner]) -> TokenStream {
    let record = Ident::new("record", Span::mixed_site());
    let body = match &model.shape {
        Shape::Struct(fields) => visits(krate, fields, owners, &record, |field| {
            let member = &field.member;
            quote!(&self.#member)
        }),
        Shape::Enum(variants) if variants.is_empty() => quote!(match *self {}),
        Shape::Enum(variants) => {
            let arms = variants.iter().map(|variant| {
                let ident = &variant.ident;
                let seen = |field: &&Field| !field.skipped() || owners.iter().any(|o| o.member == field.member);
                let bindings = variant.fields.iter().filter(seen).map(|field| {
                    let member = &field.member;
                    let binding = binding(field);
                    quote!(#member: #binding,)
                });
                let visits = visits(krate, &variant.fields, owners, &record, |field| {
                    binding(field).into_token_stream()
                });
                quote!(Self::#ident { #(#bindings)* .. } => { #visits })
            });
            quote!(match self { #(#arms)* })
        }
    };
    let may_leave = may_leave(krate, model);
    let ident = &model.ident;
    let generics = bounded(krate, model);
    let (impl_generics, ty_generics, where_clause) = generics.split_for_impl();
    let visitor = Ident::new("visitor", Span::mixed_site());
    let param = if model.fields().all(Field::skipped) && owners.is_empty() {
        quote!(_)
    } else {
        record.into_token_stream()
    };
    quote! {
        #[automatically_derived]
        impl #impl_generics #krate::Tracked for #ident #ty_generics #where_clause {
            fn visit(&self, #visitor: &mut #krate::Visitor<'_>) {
                #visitor.record(|#param| { #body });
            }
            #may_leave
        }
    }
}

/// What the compiler asks when the type is a `#[payload]`: every declared field, and every type
/// that a field mentions. Nothing for a type without either.
fn may_leave(krate: &Path, model: &Model) -> Option<TokenStream> {
    let here = Span::mixed_site();
    let (policy, name) = (Ident::new("P", here), model.ident.unraw().to_string());
    let fields: Vec<TokenStream> = model
        .fields()
        .filter(|field| !field.skipped())
        .map(|field| {
            let span = here.located_at(field.span());
            let declared = field.declared().map(|_| {
                let declaration = field.static_ident();
                quote_spanned!(span=> const {
                    #krate::__private::policy::field_may_leave::<#policy>(#name, &#declaration)
                };)
            });
            let mentioned = mentioned_may_leave(krate, &field.ty, &policy);
            quote!(#declared #mentioned)
        })
        .filter(|asked| !asked.is_empty())
        .collect();
    (!fields.is_empty()).then(|| {
        quote_spanned! {here=>
            fn may_leave<#policy: #krate::__private::policy::Policy>() {
                #[allow(unused_imports)]
                use #krate::__private::policy::Undeclared as _;
                #(#fields)*
            }
        }
    })
}

fn binding(field: &Field) -> Ident {
    format_ident!("field_{}", field.index, span = Span::mixed_site())
}

fn visits(
    krate: &Path,
    fields: &[Field],
    owners: &[Owner],
    record: &Ident,
    access: impl Fn(&Field) -> TokenStream,
) -> TokenStream {
    let v = Ident::new("v", Span::mixed_site());
    let owners = owners.iter().filter_map(|owner| {
        let field = fields.iter().find(|field| field.member == owner.member)?;
        let probe = probe(krate, Ladder::Field, access(field), &v, field.span());
        let kind = &owner.kind;
        Some(quote!(#record.owner(#kind, |#v| #probe);))
    });
    let fields = fields.iter().filter(|field| !field.skipped()).map(|field| {
        if field.declared().is_some() {
            let probe = probe(krate, Ladder::Field, access(field), &v, field.span());
            let declaration = field.static_ident();
            quote!(#record.field(&#declaration, |#v| #probe);)
        } else {
            let probe = probe(krate, Ladder::Member, access(field), &v, field.span());
            quote!(#record.untracked(|#v| #probe);)
        }
    });
    quote!(#(#owners)* #(#fields)*)
}

/// The generics with `T: Tracked` for every type parameter that a visited field mentions:
/// the probe resolves inside the generic body, so it must know there.
fn bounded(krate: &Path, model: &Model) -> Generics {
    let mut mentioned = Mentioned {
        params: model
            .generics
            .params
            .iter()
            .filter_map(|param| match param {
                GenericParam::Type(param) => Some(param.ident.clone()),
                _ => None,
            })
            .collect(),
        used: BTreeSet::new(),
        projections: Vec::new(),
    };
    for field in model.fields().filter(|field| !field.skipped()) {
        mentioned.visit_type(&field.ty);
    }
    let mut generics = model.generics.clone();
    let Mentioned {
        params,
        used,
        projections,
    } = mentioned;
    let where_clause = generics.make_where_clause();
    for param in params.iter().filter(|param| used.contains(param)) {
        where_clause.predicates.push(parse_quote!(#param: #krate::Tracked));
    }
    for projection in projections {
        where_clause.predicates.push(parse_quote!(#projection: #krate::Tracked));
    }
    generics
}

struct Mentioned {
    params: Vec<Ident>,
    used: BTreeSet<Ident>,
    /// `T::Item`, which needs the bound itself, `T` not.
    projections: Vec<syn::TypePath>,
}

impl<'a> Visit<'a> for Mentioned {
    fn visit_type_path(&mut self, ty: &'a syn::TypePath) {
        let segments = &ty.path.segments;
        if segments.last().is_some_and(|last| last.ident == "PhantomData") {
            return;
        }
        if ty.qself.is_none()
            && let Some(first) = segments.first()
            && self.params.contains(&first.ident)
        {
            if segments.len() == 1 {
                self.used.insert(first.ident.clone());
            } else if !self.projections.contains(ty) {
                self.projections.push(ty.clone());
            }
        }
        visit::visit_type_path(self, ty);
    }

    // A function pointer's parameters are not values of the record.
    fn visit_type_fn_ptr(&mut self, _: &'a syn::TypeFnPtr) {}

    fn visit_macro(&mut self, _: &'a syn::Macro) {}
}
