//! What `#[tracked_model]` becomes, as snapshots to read.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use proc_macro2::TokenStream;
use quote::quote;

use crate::ctxt::funnel;
use crate::expand::model;

fn pretty(tokens: TokenStream) -> String {
    prettyplease::unparse(&syn::parse2(tokens).expect("the expansion is Rust"))
}

fn derive(item: TokenStream) -> String {
    pretty(funnel(|cx| model::derive(cx, item)))
}

/// Other derives and attributes stay, in their order, and those under `cfg_attr` keep its condition.
#[cfg(feature = "diesel")]
#[test]
fn model_attribute() {
    insta::assert_snapshot!(pretty(funnel(|cx| model::attribute(
        cx,
        quote!(owner(email), purpose = "accounts"),
        quote! {
            /// Docs stay.
            #[derive(Debug, Insertable, diesel::Queryable, Selectable)]
            #[cfg_attr(feature = "edit", derive(AsChangeset, Clone), serde(default))]
            #[diesel(table_name = users)]
            pub struct User {
                #[tracked("contact.email")]
                email: String,
            }
        }
    ))));
}

#[test]
fn model_insertable() {
    insta::assert_snapshot!(derive(quote! {
        #[tracked_model_args(args(owner(email, id as "user"), purpose = "accounts"))]
        #[tracked_model_args(hook(Insertable))]
        #[diesel(table_name = crate::schema::users)]
        struct NewUser<'a, T> {
            id: Option<i32>,
            #[tracked("contact.email")]
            email: &'a str,
            #[tracked("financial.income")]
            #[diesel(column_name = monthly_income)]
            income: Option<f64>,
            plan: T,
            #[diesel(embed)]
            address: Address,
        }
    }));
}

#[test]
fn model_changeset() {
    insta::assert_snapshot!(derive(quote! {
        #[tracked_model_args(args(table = users))]
        #[tracked_model_args(hook(AsChangeset))]
        struct Changes<'a> {
            id: i32,
            #[tracked("contact.email")]
            email: Option<&'a str>,
            #[tracked("financial.income")]
            income: f64,
        }
    }));
}

#[test]
fn model_queryable() {
    insta::assert_snapshot!(derive(quote! {
        #[tracked_model_args(args(owner(id), table = users, crate = vendored::provenance))]
        #[tracked_model_args(hook(Queryable))]
        struct User {
            id: i32,
            #[tracked("contact.email")]
            email: String,
        }
    }));
}

#[test]
fn model_serialize_as() {
    insta::assert_snapshot!(derive(quote! {
        #[tracked_model_args(args(table = users))]
        #[tracked_model_args(hook(Insertable))]
        struct Encrypted {
            #[diesel(serialize_as = Cipher)]
            #[tracked("contact.email")]
            email: String,
        }
    }));
}

/// After a mistake: Diesel's traits without hooks, so that nothing else fails.
#[test]
fn model_mistakes() {
    insta::assert_snapshot!(derive(quote! {
        #[tracked_model_args(args(owner(mail), table = users))]
        #[tracked_model_args(hook(Queryable))]
        struct User {
            #[tracked("contact.email")]
            email: String,
        }
    }));
}
