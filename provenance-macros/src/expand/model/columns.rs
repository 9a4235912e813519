//! The fields of a model as columns, and the pieces that inserts and updates share.

use std::collections::{BTreeSet, HashMap};

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::visit_mut::VisitMut;
use syn::{GenericParam, Generics, Lifetime, LitBool, Member, Path, Type, parse_quote};

use super::diesel::{FieldAttrs, inner_of_option};
use super::{Expansion, mixed};
use crate::ctxt::Ctxt;
use crate::expand::{Ladder, probe};
use crate::model::{Field, Model};

pub(super) struct Columns<'m>(pub(super) Vec<Column<'m>>);

/// A field with what Diesel's attributes say of it.
pub(super) struct Column<'m> {
    pub(super) field: &'m Field,
    pub(super) name: String,
    pub(super) attrs: FieldAttrs,
    /// Place in `COLUMNS`, for a tracked one.
    place: Option<usize>,
}

impl<'m> Columns<'m> {
    pub(super) fn of(cx: &Ctxt, model: &'m Model) -> Self {
        let mut tracked = 0;
        let columns = model.fields().map(|field| {
            let place = field.declared().map(|_| {
                tracked += 1;
                tracked - 1
            });
            Column {
                field,
                name: field.name.clone(),
                attrs: FieldAttrs::parse(cx, &field.attrs),
                place,
            }
        });
        Columns(columns.collect())
    }

    pub(super) fn tracked(&self) -> impl Iterator<Item = &Column<'m>> {
        self.0.iter().filter(|column| column.place.is_some())
    }
}

/// Whether a statement takes the struct or a reference to it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Value,
    Reference,
}

impl By {
    /// The lifetime of the reference.
    pub(super) fn lifetime() -> Lifetime {
        Lifetime::new("'provenance", Span::mixed_site())
    }

    /// `T` or `&'provenance T`.
    pub(super) fn ty(self, ty: &Type) -> TokenStream {
        let lifetime = By::lifetime();
        match self {
            By::Value => ty.to_token_stream(),
            By::Reference => quote!(&#lifetime #ty),
        }
    }
}

/// One element of the tuple that stands for the record.
pub(super) struct Element {
    pub(super) ty: TokenStream,
    pub(super) expr: TokenStream,
}

impl Column<'_> {
    /// The element of an embedded record; `flag` is what `word` says of this field.
    pub(super) fn embedded(&self, cx: &Ctxt, flag: Option<&LitBool>, word: &str, by: By) -> Element {
        if let Some(ty) = &self.attrs.serialize_as {
            cx.error_at(
                ty,
                "an embedded record has no column to convert for: remove `serialize_as` or `embed`",
            );
        }
        if let Some(flag) = flag {
            cx.error_at(
                flag,
                format!("an embedded record decides by itself: remove `{word}`, or `embed`"),
            );
        }
        let member = &self.field.member;
        let reference = (by == By::Reference).then(|| quote!(&));
        Element {
            ty: by.ty(&self.field.ty),
            expr: quote!(#reference self.#member),
        }
    }

    /// Reports `word` on a field that is no `Option`.
    pub(super) fn check_none_flag(&self, cx: &Ctxt, flag: Option<&LitBool>, word: &str) {
        if flag.is_some() && inner_of_option(&self.field.ty).is_none() {
            cx.error_at(
                &self.field.ty,
                format!("`{word}` is for fields of type `Option<_>`: remove it, or change the type"),
            );
        }
    }

    /// The column's path, `users::email`; raw, as columns may be named by keywords.
    pub(super) fn path(&self, cx: &Ctxt, table: &Path) -> Option<TokenStream> {
        let name = &self.name;
        let span = self.name_span();
        if name.chars().all(|c| c.is_ascii_digit()) {
            cx.error_span(
                span,
                "which column? Add `#[diesel(column_name = email)]` to the field of the tuple struct",
            );
            return None;
        }
        let raw = syn::parse_str::<Ident>(&format!("r#{name}"));
        let Ok(mut ident) = raw else {
            cx.error_span(
                span,
                format!("`{name}` cannot name a column in Rust: `table!` probably calls it `{name}_`"),
            );
            return None;
        };
        ident.set_span(span);
        Some(quote!(#table::#ident))
    }

    fn name_span(&self) -> Span {
        let span = match &self.field.member {
            Member::Named(ident) => ident.span(),
            Member::Unnamed(_) => self.field.span(),
        };
        Span::mixed_site().located_at(span)
    }

    /// `column = value`; with `optional`, nothing where the field is `None` (or always something,
    /// for a field that is no `Option`).
    pub(super) fn assignment(&self, expansion: &Expansion<'_>, path: &TokenStream, by: By, optional: bool) -> Element {
        let member = &self.field.member;
        let ty = &self.field.ty;
        let inner = inner_of_option(ty);
        let x = mixed("x");
        match (optional, inner) {
            (true, Some(inner)) => {
                let element = self.equals(expansion, path, by, inner, quote!(#x));
                let as_ref = (by == By::Reference).then(|| quote!(.as_ref()));
                let (element_ty, expr) = (element.ty, element.expr);
                Element {
                    ty: quote!(::core::option::Option<#element_ty>),
                    expr: quote!(self.#member #as_ref .map(|#x| #expr)),
                }
            }
            (true, None) => some(self.equals(expansion, path, by, ty, self.access(by))),
            (false, _) => self.equals(expansion, path, by, ty, self.access(by)),
        }
    }

    fn access(&self, by: By) -> TokenStream {
        let member = &self.field.member;
        match by {
            By::Value => quote!(self.#member),
            By::Reference => quote!(&self.#member),
        }
    }

    fn equals(&self, expansion: &Expansion<'_>, path: &TokenStream, by: By, ty: &Type, value: TokenStream) -> Element {
        let ty = by.ty(ty);
        let Some(place) = self.place.filter(|_| expansion.tracked) else {
            return eq(path, ty, value);
        };
        let krate = &expansion.shared.krate;
        let (record, bound, visitor) = (mixed("record"), mixed("bound"), mixed("visitor"));
        let access = match by {
            By::Value => quote!(#bound),
            By::Reference => quote!(*#bound),
        };
        let visit = self.visit(expansion, &visitor, access);
        eq(
            path,
            quote!(#krate::__private::diesel::Bind<#ty>),
            quote!(#record.bind(&COLUMNS[#place], #value, |#bound, #visitor| #visit)),
        )
    }

    /// `column = Into::<As>::into(value)`: what is tracked is the value before.
    pub(super) fn converted(
        &self,
        expansion: &Expansion<'_>,
        path: &TokenStream,
        target: &Type,
        conversion: Conversion,
    ) -> Element {
        let member = &self.field.member;
        let (x, before) = (mixed("x"), mixed("before"));
        let into = quote!(::core::convert::Into::<#target>::into);
        let inner = inner_of_option(target);
        let (see, bind): (TokenStream, &dyn Fn(TokenStream) -> TokenStream);
        let krate = &expansion.shared.krate;
        let (record, visitor) = (mixed("record"), mixed("visitor"));
        let place = self.place.filter(|_| expansion.tracked);
        let bind_tracked = |value: TokenStream| quote!(#record.bind_seen(&COLUMNS[#place], #value, #before));
        let bind_plain = |value: TokenStream| value;
        let seen = |access: TokenStream| {
            let visit = self.visit(expansion, &visitor, access);
            quote!(let #before = #record.see(|#visitor| #visit);)
        };
        let of = |ty: &Type| match place {
            Some(_) => quote!(#krate::__private::diesel::Bind<#ty>),
            None => ty.to_token_stream(),
        };
        match place {
            Some(_) => {
                bind = &bind_tracked;
                see = match conversion {
                    Conversion::EachSome => seen(quote!(&#x)),
                    _ => seen(quote!(&self.#member)),
                };
            }
            None => {
                bind = &bind_plain;
                see = TokenStream::new();
            }
        }
        match (conversion, inner) {
            (Conversion::NoneIsDefault, Some(inner)) => {
                let element = eq(path, of(inner), bind(quote!(#x)));
                let (ty, expr) = (element.ty, element.expr);
                Element {
                    ty: quote!(::core::option::Option<#ty>),
                    expr: quote!({ #see #into(self.#member).map(|#x| #expr) }),
                }
            }
            (Conversion::NoneIsDefault, None) => {
                let element = some(eq(path, of(target), bind(quote!(#into(self.#member)))));
                let expr = element.expr;
                Element {
                    ty: element.ty,
                    expr: quote!({ #see #expr }),
                }
            }
            (Conversion::EachSome, inner) => {
                let element = eq(path, of(inner.unwrap_or(target)), bind(quote!(#into(#x))));
                let (ty, expr) = (element.ty, element.expr);
                Element {
                    ty: quote!(::core::option::Option<#ty>),
                    expr: quote!(self.#member.map(|#x| { #see #expr })),
                }
            }
            (Conversion::Whole, _) => {
                let element = eq(path, of(target), bind(quote!(#into(self.#member))));
                let expr = element.expr;
                Element {
                    ty: element.ty,
                    expr: quote!({ #see #expr }),
                }
            }
        }
    }

    /// An expression that shows `access`, a reference, to `visitor` under this column's declaration.
    pub(super) fn visit(&self, expansion: &Expansion<'_>, visitor: &Ident, access: TokenStream) -> TokenStream {
        let v = mixed("v");
        let declaration = self.field.static_ident();
        let probe = probe(&expansion.shared.krate, Ladder::Field, access, &v, self.field.span());
        quote!(#visitor.field(&#declaration, |#v| #probe))
    }

    /// `&'a T: AsExpression<..>`, at the field: without it a wrong type is an overflow, late.
    pub(super) fn assertion(&self, path: &TokenStream, ty: &Type, by: By) -> (Type, TokenStream) {
        let span = self.name_span();
        let ty_tokens = by.ty(ty);
        let bound = quote_spanned! {span=>
            #ty_tokens: diesel::expression::AsExpression<<#path as diesel::Expression>::SqlType>
        };
        (ty.clone(), bound)
    }
}

/// How a `serialize_as` field treats `None`.
#[derive(Clone, Copy)]
pub(super) enum Conversion {
    /// A `None` of the target is the column's default.
    NoneIsDefault,
    /// A `None` of the field is left out, anything else is converted.
    EachSome,
    /// Converted as it is.
    Whole,
}

fn eq(path: &TokenStream, ty: TokenStream, value: TokenStream) -> Element {
    Element {
        ty: quote!(diesel::dsl::Eq<#path, #ty>),
        expr: quote!(diesel::ExpressionMethods::eq(#path, #value)),
    }
}

fn some(element: Element) -> Element {
    let Element { ty, expr } = element;
    Element {
        ty: quote!(::core::option::Option<#ty>),
        expr: quote!(::core::option::Option::Some(#expr)),
    }
}

/// Bounds on types, without those that the compiler cannot keep apart: the same type with
/// several lifetimes (rust-lang/rust#21974).
#[derive(Default)]
pub(super) struct Assertions {
    bounds: Vec<(Type, TokenStream)>,
    lifetimes: HashMap<Type, BTreeSet<Vec<Lifetime>>>,
}

impl Assertions {
    pub(super) fn push(&mut self, (mut ty, bound): (Type, TokenStream)) {
        struct Erase(Vec<Lifetime>);
        impl VisitMut for Erase {
            fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
                self.0.push(std::mem::replace(lifetime, parse_quote!('static)));
            }
        }
        let mut erase = Erase(Vec::new());
        erase.visit_type_mut(&mut ty);
        self.lifetimes.entry(ty.clone()).or_default().insert(erase.0);
        self.bounds.push((ty, bound));
    }

    pub(super) fn finish(self) -> Vec<TokenStream> {
        let Assertions { bounds, lifetimes } = self;
        bounds
            .into_iter()
            .filter(|(ty, _)| lifetimes.get(ty).is_none_or(|variants| variants.len() <= 1))
            .map(|(_, bound)| bound)
            .collect()
    }
}

/// `T: Tracked` for every type parameter of a field that is read: the probe resolves inside the
/// generic body, so it must know there.
pub(super) fn tracked_bounds(expansion: &Expansion<'_>) -> Vec<TokenStream> {
    if !expansion.tracked {
        return Vec::new();
    }
    let krate = &expansion.shared.krate;
    let read = |column: &&Column<'_>| {
        column.place.is_some() || expansion.owners.iter().any(|o| o.member == column.field.member)
    };
    let words: BTreeSet<String> = expansion
        .columns
        .0
        .iter()
        .filter(read)
        .flat_map(|column| words(column.field.ty.to_token_stream()))
        .collect();
    expansion
        .model
        .generics
        .params
        .iter()
        .filter_map(|param| match param {
            GenericParam::Type(param) if words.contains(&param.ident.to_string()) => {
                let ident = &param.ident;
                Some(quote!(#ident: #krate::Tracked))
            }
            _ => None,
        })
        .collect()
}

fn words(tokens: TokenStream) -> Vec<String> {
    tokens
        .into_iter()
        .flat_map(|token| match token {
            proc_macro2::TokenTree::Group(group) => words(group.stream()),
            proc_macro2::TokenTree::Ident(ident) => vec![ident.to_string()],
            _ => Vec::new(),
        })
        .collect()
}

/// The struct's generics with the lifetime of a reference to it.
pub(super) fn with_lifetime(generics: &Generics) -> Generics {
    let mut generics = generics.clone();
    let lifetime = By::lifetime();
    generics.params.push(parse_quote!(#lifetime));
    generics
}
