//! `#[tracked_model]`: Diesel's own traits, with tracked columns that report themselves.
//!
//! The attribute takes the derives that it replaces out of the list and adds one of its own,
//! because only a derive sees the struct without the fields that `#[cfg]` removes.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, format_ident, quote};
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::visit::Visit;
use syn::visit_mut::VisitMut;
use syn::{Attribute, Data, DeriveInput, Field, Meta, Path, Token, parse_quote};

mod changeset;
mod columns;
mod diesel;
mod insertable;
mod queryable;

use super::tracked::{declarations, implementation};
use super::{field_statics, probe};
use crate::attr::{Args, Shared};
use crate::ctxt::Ctxt;
use crate::entry::{Entry, Place};
use crate::model::{Model, Owner};
use crate::{fallback, symbol};
use columns::Columns;
use diesel::TableAttrs;

const WHAT: &str = "#[tracked_model]";
/// Derives that are replaced: they carry values into and out of the database.
const HOOKED: [&str; 4] = ["Insertable", "AsChangeset", "Queryable", "QueryableByName"];
/// Derives that make a struct a model as well; they stay Diesel's, without a hook.
const NOT_HOOKED: [&str; 1] = ["HasQuery"];

/// The attribute: takes Diesel's derives out of the list and adds its own.
pub(crate) fn attribute(cx: &Ctxt, args: TokenStream, item: TokenStream) -> TokenStream {
    let krate = shared(&Ctxt::default(), args.clone()).krate;
    let Ok(mut input) = syn::parse2::<DeriveInput>(item.clone()) else {
        cx.error_span(
            Span::call_site(),
            "`#[tracked_model]` belongs on a struct that Diesel reads or writes",
        );
        return item;
    };
    let has_fields = matches!(&input.data, Data::Struct(data) if !data.fields.is_empty());
    if !has_fields {
        cx.error_span(
            Span::call_site(),
            "`#[tracked_model]` belongs on a struct with fields: Diesel reads and writes those. For other types, \
             use `#[derive(Tracked)]`",
        );
        return without_hooks(input, &krate);
    }
    if input.attrs.iter().any(|attr| attr.path().is_ident(ARGS)) {
        cx.error_span(
            Span::call_site(),
            "duplicate `#[tracked_model]`: put every key into one attribute",
        );
        return item;
    }
    let mut found = false;
    let attrs: Vec<Attribute> = input
        .attrs
        .iter()
        .flat_map(|attr| {
            rewrite(&attr.meta, &mut found)
                .into_iter()
                .map(|meta| Attribute { meta, ..attr.clone() })
        })
        .collect();
    if !found {
        cx.error_span(Span::call_site(), missing_derive(&input));
        return without_hooks(input, &krate);
    }
    input.attrs = attrs;
    quote! {
        #[derive(#krate::__private::TrackedModel)]
        #[tracked_model_args(args(#args))]
        #input
    }
}

/// Carries the attribute's arguments, and the derives that it took, to the derive.
const ARGS: &str = "tracked_model_args";

/// An attribute of the item without the derives that are replaced; those become
/// `#[tracked_model_args(hook(..))]`, under the same `cfg_attr` if there is one.
fn rewrite(meta: &Meta, found: &mut bool) -> Vec<Meta> {
    let Meta::List(list) = meta else {
        return vec![meta.clone()];
    };
    if list.path.is_ident("cfg_attr") {
        let parse = |input: syn::parse::ParseStream<'_>| {
            let condition: Meta = input.parse()?;
            input.parse::<Token![,]>()?;
            Ok((condition, Punctuated::<Meta, Token![,]>::parse_terminated(input)?))
        };
        if let Ok((condition, metas)) = parse.parse2(list.tokens.clone()) {
            let metas = metas.iter().flat_map(|meta| rewrite(meta, found));
            return vec![parse_quote!(cfg_attr(#condition, #(#metas),*))];
        }
    }
    if list.path.is_ident("derive")
        && let Ok(derives) = Punctuated::<Path, Token![,]>::parse_terminated.parse2(list.tokens.clone())
    {
        let is_any = |path: &Path, names: &[&str]| {
            path.segments
                .last()
                .is_some_and(|last| names.iter().any(|name| last.ident == name))
        };
        *found |= derives
            .iter()
            .any(|path| is_any(path, &HOOKED) || is_any(path, &NOT_HOOKED));
        let (hooked, kept): (Vec<Path>, Vec<Path>) = derives
            .into_iter()
            .partition(|path| cfg!(feature = "diesel") && is_any(path, &HOOKED));
        let mut metas: Vec<Meta> = Vec::new();
        if !kept.is_empty() {
            metas.push(parse_quote!(derive(#(#kept),*)));
        }
        if !hooked.is_empty() {
            metas.push(parse_quote!(tracked_model_args(hook(#(#hooked),*))));
        }
        return metas;
    }
    vec![meta.clone()]
}

fn missing_derive(input: &DeriveInput) -> &'static str {
    struct Seen(bool);
    impl<'a> Visit<'a> for Seen {
        fn visit_attribute(&mut self, attr: &'a Attribute) {
            self.0 |= attr.path().is_ident("diesel");
        }
    }
    let mut seen = Seen(false);
    seen.visit_derive_input(input);
    if seen.0 {
        "move `#[tracked_model]` above `#[derive(..)]`: it has to see Diesel's derives to hook them"
    } else {
        "no Diesel derive below `#[tracked_model]`: add one, such as `#[derive(Insertable)]`, and if it stands above, \
         move `#[tracked_model]` above `#[derive(..)]`. For a struct that is no model, use `#[derive(Tracked)]`"
    }
}

/// The item as if the attribute were not there, for after an error.
fn without_hooks(mut input: DeriveInput, krate: &Path) -> TokenStream {
    struct Strip;
    impl VisitMut for Strip {
        fn visit_field_mut(&mut self, field: &mut Field) {
            field.attrs.retain(|attr| !attr.path().is_ident(symbol::TRACKED));
        }
    }
    let tracked = fallback::tracked(&input, krate);
    Strip.visit_derive_input_mut(&mut input);
    quote!(#input #tracked)
}

fn shared(cx: &Ctxt, args: TokenStream) -> Shared {
    Shared::take(&mut parse_args(cx, args))
}

fn parse_args(cx: &Ctxt, args: TokenStream) -> Args<'_> {
    Args::parse(
        cx,
        args,
        WHAT,
        &[&[symbol::OWNER, symbol::TABLE], &symbol::SHARED],
        Span::call_site(),
    )
}

/// The derive that the attribute adds: sees the struct as the compiler will.
pub(crate) fn derive(cx: &Ctxt, item: TokenStream) -> TokenStream {
    let input: DeriveInput = match syn::parse2(item) {
        Ok(input) => input,
        Err(error) => {
            cx.syn_error(error);
            return TokenStream::new();
        }
    };
    let Passed { args, hooks } = Passed::read(&input.attrs);
    let mut args = parse_args(cx, args);
    let shared = Shared::take(&mut args);
    let owner = args.list(symbol::OWNER);
    let table = args.path(symbol::TABLE);
    if let Ok(Some(category)) = args.literal() {
        cx.error_at(
            category,
            "a category belongs on a field: move it there. On the struct, `owner(email)` says whose the record is",
        );
    }
    let Some(model) = Model::parse(cx, &input) else {
        return fallback::tracked(&input, &shared.krate);
    };
    let mut attrs = TableAttrs::parse(cx, &input.attrs);
    attrs.settle_table(cx, table);
    let table = attrs.tables.first().map(diesel::last_word);
    let owners = match owner {
        Some((key, tokens)) => model.owners(cx, tokens, &key, table.as_deref()),
        None => Vec::new(),
    };
    let columns = Columns::of(cx, &model);
    let expansion = Expansion {
        shared: &shared,
        model: &model,
        attrs: &attrs,
        owners: &owners,
        columns: &columns,
        // After an error the program still has Diesel's traits, so that nothing else fails.
        tracked: !cx.failed(),
    };
    let traits = expansion.traits(cx, &hooks);
    if cx.failed() {
        let tracked = fallback::tracked(&input, &shared.krate);
        return quote!(#tracked const _: () = { #traits };);
    }

    let statics = field_statics(&shared.krate, &model);
    let implementation = implementation(&shared.krate, &model, &owners);
    let place = Place::new(&model.ident, &shared);
    let entry = Entry::new("model", &place, &shared)
        .with(|object| {
            let object = object.string("table", &table.unwrap_or_default());
            let columns = owners
                .iter()
                .filter_map(|owner| Some(model.field(&owner.member)?.name.as_str()));
            declarations(object, &model, &owners).strings("owner_columns", columns)
        })
        .emit();
    let sites = expansion.sites(&place, &hooks);
    quote! {
        // The tuples that Diesel wants hold references to fields, whatever the fields are.
        #[allow(clippy::ref_option_ref)]
        const _: () = {
            #statics
            #sites
            #implementation
            #traits
            #entry
        };
    }
}

/// What the attribute passed on.
struct Passed {
    args: TokenStream,
    /// Last words of the derives that it took.
    hooks: Vec<String>,
}

impl Passed {
    fn read(attrs: &[Attribute]) -> Self {
        let mut passed = Passed {
            args: TokenStream::new(),
            hooks: Vec::new(),
        };
        for attr in attrs.iter().filter(|attr| attr.path().is_ident(ARGS)) {
            let Ok(Meta::List(list)) = attr.parse_args::<Meta>() else {
                continue;
            };
            if list.path.is_ident("args") {
                passed.args = list.tokens;
            } else if let Ok(paths) = Punctuated::<Path, Token![,]>::parse_terminated.parse2(list.tokens) {
                passed.hooks.extend(paths.iter().map(diesel::last_word));
            }
        }
        passed
    }
}

/// What the implementations are written from.
struct Expansion<'e> {
    shared: &'e Shared,
    model: &'e Model,
    attrs: &'e TableAttrs,
    owners: &'e [Owner],
    columns: &'e Columns<'e>,
    tracked: bool,
}

impl Expansion<'_> {
    /// Diesel's traits, those that the user derived.
    fn traits(&self, cx: &Ctxt, hooks: &[String]) -> TokenStream {
        let mut output = TokenStream::new();
        for hook in hooks {
            output.extend(match hook.as_str() {
                "Insertable" => insertable::implementation(cx, self),
                "AsChangeset" => changeset::implementation(cx, self),
                "QueryableByName" => queryable::by_name(cx, self),
                _ => queryable::implementation(self),
            });
        }
        output
    }

    /// `SITE_0` and `COLUMNS`: what the hooks know of this model, a site a table.
    fn sites(&self, place: &Place, hooks: &[String]) -> TokenStream {
        if hooks.is_empty() {
            return TokenStream::new();
        }
        let krate = &self.shared.krate;
        let site = place.site(self.shared);
        let model = diesel::unraw(&self.model.ident);
        let columns = self.columns.tracked().map(|column| {
            let name = &column.name;
            let field = column.field.static_ident();
            quote!(#krate::__private::Column { name: #name, field: &#field })
        });
        let count = self.columns.tracked().count();
        let sites = self.attrs.tables.iter().enumerate().map(|(index, table)| {
            let ident = site_ident(index);
            let table = diesel::last_word(table);
            quote! {
                static #ident: #krate::__private::ModelSite = #krate::__private::ModelSite {
                    site: #site,
                    model: #model,
                    table: #table,
                    columns: &COLUMNS,
                };
            }
        });
        quote! {
            static COLUMNS: [#krate::__private::Column; #count] = [#(#columns),*];
            #(#sites)*
        }
    }

    /// `Record::insert(&SITE_0, ..)`, before the fields are moved out of `self`.
    fn record(&self, constructor: &str, table: usize) -> TokenStream {
        if !self.tracked {
            return TokenStream::new();
        }
        let krate = &self.shared.krate;
        let constructor = format_ident!("{constructor}");
        let site = site_ident(table);
        let visitor = mixed("visitor");
        let record = mixed("record");
        let owners = self.visit_owners(&visitor, |member| quote!(&self.#member));
        quote! {
            let #record = #krate::__private::diesel::Record::#constructor(&#site, |#visitor| {
                let _ = &#visitor;
                #owners
            });
        }
    }

    /// Statements that show the owners of a record to `visitor`.
    fn visit_owners(&self, visitor: &Ident, access: impl Fn(&syn::Member) -> TokenStream) -> TokenStream {
        let v = mixed("v");
        let owners = self.owners.iter().filter_map(|owner| {
            let field = self.model.field(&owner.member)?;
            let kind = &owner.kind;
            let probe = probe(
                &self.shared.krate,
                super::Ladder::Field,
                access(&owner.member),
                &v,
                field.span(),
            );
            Some(quote!(#visitor.owner(#kind, |#v| #probe);))
        });
        quote!(#(#owners)*)
    }
}

fn site_ident(table: usize) -> Ident {
    format_ident!("SITE_{table}")
}

fn mixed(word: &str) -> Ident {
    Ident::new(word, Span::mixed_site())
}

/// Empty unless there is something to say.
fn where_clause(predicates: &[TokenStream], user: Option<&syn::WhereClause>) -> TokenStream {
    let user = user.map(|clause| clause.predicates.to_token_stream());
    let separator = user
        .as_ref()
        .filter(|user| !user.is_empty() && !ends_with_comma(user))
        .map(|_| quote!(,));
    quote!(where #user #separator #(#predicates,)*)
}

fn ends_with_comma(tokens: &TokenStream) -> bool {
    tokens.to_string().trim_end().ends_with(',')
}
