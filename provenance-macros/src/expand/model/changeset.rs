//! `AsChangeset`, for the struct and for references to it.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::{GenericParam, Path, parse_quote};

use super::columns::{Assertions, By, Column, Conversion, Element, tracked_bounds, with_lifetime};
use super::diesel::inner_of_option;
use super::{Expansion, where_clause};
use crate::ctxt::Ctxt;

pub(super) fn implementation(cx: &Ctxt, expansion: &Expansion<'_>) -> TokenStream {
    let Some(table) = expansion.attrs.tables.first() else {
        return TokenStream::new();
    };
    if let Some(second) = expansion.attrs.tables.get(1) {
        cx.error_at(second, "a changeset is of one table: remove this `table_name`");
    }
    let columns: Vec<&Column<'_>> = expansion
        .columns
        .0
        .iter()
        .filter(|column| !expansion.attrs.primary_key.contains(&column.name))
        .collect();
    if columns.is_empty() {
        cx.error_span(
            Span::call_site(),
            "an update changes no primary key, and this struct has no other column: add one, or remove `AsChangeset`",
        );
        return TokenStream::new();
    }
    let columns: Vec<_> = columns.into_iter().filter(|column| !column.attrs.skip_update).collect();
    let owned = update(cx, expansion, table, &columns, By::Value);
    // A conversion takes the field by value, so it cannot be used by reference.
    let borrowed = columns
        .iter()
        .all(|column| column.attrs.serialize_as.is_none())
        .then(|| update(cx, expansion, table, &columns, By::Reference));
    quote!(#owned #borrowed)
}

fn update(cx: &Ctxt, expansion: &Expansion<'_>, table: &Path, columns: &[&Column<'_>], by: By) -> TokenStream {
    let Some((elements, assertions)) = elements(cx, expansion, table, columns, by) else {
        return TokenStream::new();
    };
    let types: Vec<_> = elements.iter().map(|element| &element.ty).collect();
    let exprs = elements.iter().map(|element| &element.expr);
    let record = expansion.record("update", 0);
    let ident = &expansion.model.ident;
    let generics = &expansion.model.generics;
    let (_, ty_generics, user) = generics.split_for_impl();
    let target = by.ty(&syn::parse_quote!(#ident #ty_generics));
    let mut bounds = tracked_bounds(expansion);
    if by == By::Reference {
        bounds.push(quote!((#(#types,)*): diesel::query_builder::AsChangeset));
    }
    let check = check(expansion, &assertions, by);
    let generics = match by {
        By::Value => generics.clone(),
        By::Reference => with_lifetime(generics),
    };
    let (impl_generics, ..) = generics.split_for_impl();
    let where_clause = where_clause(&bounds, user);
    quote! {
        #check
        #[automatically_derived]
        impl #impl_generics diesel::query_builder::AsChangeset for #target #where_clause {
            type Target = #table::table;
            type Changeset = <(#(#types,)*) as diesel::query_builder::AsChangeset>::Changeset;

            fn as_changeset(self) -> <Self as diesel::query_builder::AsChangeset>::Changeset {
                #record
                diesel::query_builder::AsChangeset::as_changeset((#(#exprs,)*))
            }
        }
    }
}

/// A function whose bounds say which field has a wrong type.
fn check(expansion: &Expansion<'_>, assertions: &[TokenStream], by: By) -> TokenStream {
    let mut generics = expansion.model.generics.clone();
    if by == By::Reference {
        // What `&'provenance T` needs to be a type.
        let lifetime = By::lifetime();
        for param in &mut generics.params {
            match param {
                GenericParam::Lifetime(param) => param.bounds.push(lifetime.clone()),
                GenericParam::Type(param) => param.bounds.push(parse_quote!(#lifetime)),
                GenericParam::Const(_) => {}
            }
        }
        generics = with_lifetime(&generics);
    }
    let (params, _, user) = generics.split_for_impl();
    let where_clause = where_clause(assertions, user);
    quote! {
        const _: () = {
            #[allow(clippy::multiple_bound_locations)]
            fn _check #params () #where_clause {}
        };
    }
}

/// The tuple, and what its types must be; `None` where a column's name is wrong.
fn elements(
    cx: &Ctxt,
    expansion: &Expansion<'_>,
    table: &Path,
    columns: &[&Column<'_>],
    by: By,
) -> Option<(Vec<Element>, Vec<TokenStream>)> {
    let mut elements = Vec::new();
    let mut assertions = Assertions::default();
    for column in columns {
        let attrs = &column.attrs;
        let ty = &column.field.ty;
        if attrs.embed {
            elements.push(column.embedded(cx, attrs.none_as_null.as_ref(), "treat_none_as_null", by));
            continue;
        }
        column.check_none_flag(cx, attrs.none_as_null.as_ref(), "treat_none_as_null");
        let path = column.path(cx, table)?;
        let null = attrs
            .none_as_null
            .as_ref()
            .map_or(expansion.attrs.none_as_null, |flag| flag.value);
        let left_out = !null && inner_of_option(ty).is_some();
        let stored = attrs.serialize_as.as_ref().unwrap_or(ty);
        let checked = inner_of_option(stored).filter(|_| left_out).unwrap_or(stored);
        assertions.push(column.assertion(&path, checked, by));
        elements.push(match (&attrs.serialize_as, left_out) {
            (Some(target), true) => column.converted(expansion, &path, target, Conversion::EachSome),
            (Some(target), false) => column.converted(expansion, &path, target, Conversion::Whole),
            (None, left_out) => column.assignment(expansion, &path, by, left_out),
        });
    }
    Some((elements, assertions.finish()))
}
