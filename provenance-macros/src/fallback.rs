//! What to write when something is wrong, so that nothing else fails because of it.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{DeriveInput, Path};

/// An implementation of `Tracked` that visits nothing.
pub(crate) fn tracked(input: &DeriveInput, krate: &Path) -> TokenStream {
    let ident = &input.ident;
    let (impl_generics, ty_generics, where_clause) = input.generics.split_for_impl();
    quote! {
        #[automatically_derived]
        impl #impl_generics #krate::Tracked for #ident #ty_generics #where_clause {
            fn visit(&self, _: &mut #krate::Visitor<'_>) {}
        }
    }
}
