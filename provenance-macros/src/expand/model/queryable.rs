//! `Queryable` and `QueryableByName`: a row becomes the struct, and its values are known.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::{Index, parse_quote};

use super::columns::tracked_bounds;
use super::{Expansion, mixed, where_clause};
use crate::ctxt::Ctxt;

pub(super) fn implementation(expansion: &Expansion<'_>) -> TokenStream {
    let columns = &expansion.columns.0;
    let types: Vec<_> = columns
        .iter()
        .map(|column| column.attrs.deserialize_as.as_ref().unwrap_or(&column.field.ty))
        .collect();
    let sql_types: Vec<_> = (0..columns.len()).map(|index| format_ident!("__ST{index}")).collect();
    let row = mixed("row");
    let fields = columns.iter().enumerate().map(|(index, column)| {
        let member = &column.field.member;
        let index = Index::from(index);
        // A method call, as in Diesel: the type may have a `try_into` of its own.
        quote!(#member: #row.#index.try_into()?)
    });
    let note = note(expansion);
    let ident = &expansion.model.ident;
    let (_, ty_generics, user) = expansion.model.generics.split_for_impl();
    let mut generics = expansion.model.generics.clone();
    generics.params.push(parse_quote!(__DB: diesel::backend::Backend));
    for sql_type in &sql_types {
        generics.params.push(parse_quote!(#sql_type));
    }
    let (impl_generics, ..) = generics.split_for_impl();
    let mut bounds = tracked_bounds(expansion);
    bounds.push(quote!((#(#types,)*): diesel::deserialize::FromStaticSqlRow<(#(#sql_types,)*), __DB>));
    let where_clause = where_clause(&bounds, user);
    let loaded = mixed("loaded");
    quote! {
        #[automatically_derived]
        impl #impl_generics diesel::deserialize::Queryable<(#(#sql_types,)*), __DB>
            for #ident #ty_generics #where_clause
        {
            type Row = (#(#types,)*);

            fn build(#row: (#(#types,)*)) -> diesel::deserialize::Result<Self> {
                #[allow(unused_imports)]
                use ::core::convert::TryInto as _;
                let #loaded = Self { #(#fields,)* };
                #note
                diesel::deserialize::Result::Ok(#loaded)
            }
        }
    }
}

/// For rows whose columns are found by name, those of `sql_query`.
pub(super) fn by_name(cx: &Ctxt, expansion: &Expansion<'_>) -> TokenStream {
    let row = mixed("row");
    let mut fields = Vec::new();
    let mut bounds = tracked_bounds(expansion);
    for column in &expansion.columns.0 {
        let member = &column.field.member;
        let ty = &column.field.ty;
        let span = Span::mixed_site().located_at(column.field.span());
        if column.attrs.embed {
            fields.push(quote!(#member: <#ty as diesel::deserialize::QueryableByName<__DB>>::build(#row)?));
            bounds.push(quote_spanned!(span=> #ty: diesel::deserialize::QueryableByName<__DB>));
            continue;
        }
        let sql_type = match (&column.attrs.sql_type, expansion.attrs.tables.first()) {
            (Some(sql_type), _) => quote!(#sql_type),
            (None, Some(table)) => match column.path(cx, table) {
                Some(path) => quote!(diesel::dsl::SqlTypeOf<#path>),
                None => return TokenStream::new(),
            },
            (None, None) => return TokenStream::new(),
        };
        let read = column.attrs.deserialize_as.as_ref().unwrap_or(ty);
        let name = &column.name;
        fields.push(quote! {
            #member: ::core::convert::Into::<#ty>::into(
                diesel::row::NamedRow::get::<#sql_type, #read>(#row, #name)?
            )
        });
        bounds.push(quote_spanned!(span=> #read: diesel::deserialize::FromSql<#sql_type, __DB>));
    }
    let note = note(expansion);
    let ident = &expansion.model.ident;
    let (_, ty_generics, user) = expansion.model.generics.split_for_impl();
    let mut generics = expansion.model.generics.clone();
    generics.params.push(parse_quote!(__DB: diesel::backend::Backend));
    let (impl_generics, ..) = generics.split_for_impl();
    let where_clause = where_clause(&bounds, user);
    let loaded = mixed("loaded");
    quote! {
        #[automatically_derived]
        impl #impl_generics diesel::deserialize::QueryableByName<__DB> for #ident #ty_generics #where_clause {
            fn build<'provenance>(
                #row: &impl diesel::row::NamedRow<'provenance, __DB>,
            ) -> diesel::deserialize::Result<Self> {
                let #loaded = Self { #(#fields,)* };
                #note
                diesel::deserialize::Result::Ok(#loaded)
            }
        }
    }
}

/// Shows owners and tracked columns; embedded models have a hook of their own.
fn note(expansion: &Expansion<'_>) -> TokenStream {
    if !expansion.tracked {
        return TokenStream::new();
    }
    let krate = &expansion.shared.krate;
    let (loaded, visitor) = (mixed("loaded"), mixed("visitor"));
    let owners = expansion.visit_owners(&visitor, |member| quote!(&#loaded.#member));
    let values = expansion.columns.tracked().map(|column| {
        let member = &column.field.member;
        let visit = column.visit(expansion, &visitor, quote!(&#loaded.#member));
        quote!(#visit;)
    });
    quote! {
        #krate::__private::diesel::loaded(&SITE_0, |#visitor| {
            let _ = &#visitor;
            #owners
            #(#values)*
        });
    }
}
