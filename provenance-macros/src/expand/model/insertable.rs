//! `Insertable`, for the struct and for references to it.

use proc_macro2::TokenStream;
use quote::quote;
use syn::Path;

use super::columns::{Assertions, By, Conversion, Element, tracked_bounds, with_lifetime};
use super::diesel::inner_of_option;
use super::{Expansion, where_clause};
use crate::ctxt::Ctxt;

pub(super) fn implementation(cx: &Ctxt, expansion: &Expansion<'_>) -> TokenStream {
    let tables = expansion.attrs.tables.iter().enumerate().map(|(index, table)| {
        let ident = &expansion.model.ident;
        let (impl_generics, ty_generics, user) = expansion.model.generics.split_for_impl();
        let owned = insert(cx, expansion, (index, table), By::Value);
        // A conversion takes the field by value, so it cannot be inserted by reference.
        let converts =
            |column: &super::columns::Column<'_>| column.attrs.serialize_as.is_some() && !column.attrs.skip_insertion;
        let borrowed =
            (!expansion.columns.0.iter().any(converts)).then(|| insert(cx, expansion, (index, table), By::Reference));
        quote! {
            #owned
            #borrowed
            #[automatically_derived]
            impl #impl_generics diesel::internal::derives::insertable::UndecoratedInsertRecord<#table::table>
                for #ident #ty_generics #user {}
        }
    });
    quote!(#(#tables)*)
}

fn insert(cx: &Ctxt, expansion: &Expansion<'_>, (index, table): (usize, &Path), by: By) -> TokenStream {
    let Some((elements, mut bounds)) = elements(cx, expansion, table, by) else {
        return TokenStream::new();
    };
    bounds.extend(tracked_bounds(expansion));
    let types: Vec<_> = elements.iter().map(|element| &element.ty).collect();
    let exprs = elements.iter().map(|element| &element.expr);
    let record = expansion.record("insert", index);
    let generics = &expansion.model.generics;
    let ident = &expansion.model.ident;
    let (_, ty_generics, user) = generics.split_for_impl();
    let target = by.ty(&syn::parse_quote!(#ident #ty_generics));
    let generics = match by {
        By::Value => generics.clone(),
        By::Reference => with_lifetime(generics),
    };
    let (impl_generics, ..) = generics.split_for_impl();
    let where_clause = where_clause(&bounds, user);
    quote! {
        #[automatically_derived]
        impl #impl_generics diesel::insertable::Insertable<#table::table> for #target #where_clause {
            type Values = <(#(#types,)*) as diesel::insertable::Insertable<#table::table>>::Values;

            fn values(self) -> <(#(#types,)*) as diesel::insertable::Insertable<#table::table>>::Values {
                #record
                diesel::insertable::Insertable::<#table::table>::values((#(#exprs,)*))
            }
        }
    }
}

/// The tuple, and what its types must be; `None` where a column's name is wrong.
fn elements(cx: &Ctxt, expansion: &Expansion<'_>, table: &Path, by: By) -> Option<(Vec<Element>, Vec<TokenStream>)> {
    let mut elements = Vec::new();
    let mut assertions = Assertions::default();
    for column in expansion.columns.0.iter().filter(|column| !column.attrs.skip_insertion) {
        let attrs = &column.attrs;
        let ty = &column.field.ty;
        if attrs.embed {
            elements.push(column.embedded(cx, attrs.none_as_default.as_ref(), "treat_none_as_default_value", by));
            continue;
        }
        column.check_none_flag(cx, attrs.none_as_default.as_ref(), "treat_none_as_default_value");
        let path = column.path(cx, table)?;
        let optional = attrs
            .none_as_default
            .as_ref()
            .map_or(expansion.attrs.none_as_default, |flag| flag.value);
        let stored = attrs.serialize_as.as_ref().unwrap_or(ty);
        let checked = inner_of_option(stored).filter(|_| optional).unwrap_or(stored);
        assertions.push(column.assertion(&path, checked, by));
        elements.push(match (&attrs.serialize_as, optional) {
            (Some(target), true) => column.converted(expansion, &path, target, Conversion::NoneIsDefault),
            (Some(target), false) => column.converted(expansion, &path, target, Conversion::Whole),
            (None, optional) => column.assignment(expansion, &path, by, optional),
        });
    }
    Some((elements, assertions.finish()))
}
