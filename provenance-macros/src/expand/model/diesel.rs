//! `#[diesel(..)]`, as far as the replaced derives read it.

use proc_macro2::{Ident, TokenStream};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream, Parser};
use syn::punctuated::Punctuated;
use syn::{Attribute, GenericArgument, LitBool, LitStr, Path, PathArguments, Token, Type};

use crate::attr::{nearest, split_at_commas};
use crate::ctxt::Ctxt;

/// What Diesel 2.3 knows on a struct, used or not: a typo of one is an error.
const ON_STRUCT: [&str; 15] = [
    "aggregate",
    "base_query",
    "base_query_type",
    "belongs_to",
    "check_for_backend",
    "foreign_derive",
    "mysql_type",
    "not_sized",
    "postgres_type",
    "primary_key",
    "sql_type",
    "sqlite_type",
    "table_name",
    "treat_none_as_default_value",
    "treat_none_as_null",
];
/// And on a field.
const ON_FIELD: [&str; 11] = [
    "column_name",
    "deserialize_as",
    "embed",
    "select_expression",
    "select_expression_type",
    "serialize_as",
    "skip_insertion",
    "skip_update",
    "sql_type",
    "treat_none_as_default_value",
    "treat_none_as_null",
];

/// On the struct.
pub(super) struct TableAttrs {
    pub(super) tables: Vec<Path>,
    pub(super) primary_key: Vec<String>,
    pub(super) none_as_default: bool,
    pub(super) none_as_null: bool,
    /// Something in them is wrong, and reported.
    broken: bool,
}

impl TableAttrs {
    pub(super) fn parse(cx: &Ctxt, attrs: &[Attribute]) -> Self {
        let mut found = TableAttrs {
            tables: Vec::new(),
            primary_key: vec!["id".to_owned()],
            none_as_default: true,
            none_as_null: false,
            broken: false,
        };
        let sound = each(cx, attrs, &ON_STRUCT, |key, input| {
            match key {
                "table_name" => found.tables.push(value(input)?),
                "primary_key" => {
                    let content;
                    syn::parenthesized!(content in input);
                    let keys = Punctuated::<Ident, Token![,]>::parse_terminated_with(&content, Ident::parse_any)?;
                    found.primary_key = keys.iter().map(unraw).collect();
                }
                "treat_none_as_default_value" => found.none_as_default = value::<LitBool>(input)?.value,
                "treat_none_as_null" => found.none_as_null = value::<LitBool>(input)?.value,
                _ => skip(input)?,
            }
            Ok(())
        });
        found.broken = !sound;
        found
    }

    /// Takes `table = ..` where Diesel's own attribute says nothing.
    pub(super) fn settle_table(&mut self, cx: &Ctxt, table: Option<Path>) {
        match (self.tables.first(), table) {
            (None, Some(table)) => self.tables.push(table),
            (None, None) if self.broken => {}
            (None, None) => cx.error_span(
                proc_macro2::Span::call_site(),
                "which table? Add `#[diesel(table_name = users)]` to the struct or write \
                 `#[tracked_model(table = users)]`",
            ),
            (Some(said), Some(table)) if last_word(said) != last_word(&table) => cx.error_at(
                table,
                format!(
                    "`#[diesel(table_name = ..)]` says `{}` already: remove `table`",
                    last_word(said)
                ),
            ),
            (Some(_), _) => {}
        }
    }
}

/// On a field.
#[derive(Default)]
pub(super) struct FieldAttrs {
    pub(super) embed: bool,
    pub(super) skip_insertion: bool,
    pub(super) skip_update: bool,
    pub(super) serialize_as: Option<Type>,
    pub(super) deserialize_as: Option<Type>,
    pub(super) sql_type: Option<Type>,
    pub(super) none_as_default: Option<LitBool>,
    pub(super) none_as_null: Option<LitBool>,
}

impl FieldAttrs {
    pub(super) fn parse(cx: &Ctxt, attrs: &[Attribute]) -> Self {
        let mut found = FieldAttrs::default();
        each(cx, attrs, &ON_FIELD, |key, input| {
            match key {
                "embed" => found.embed = true,
                "skip_insertion" => found.skip_insertion = true,
                "skip_update" => found.skip_update = true,
                "serialize_as" => found.serialize_as = Some(value(input)?),
                "deserialize_as" => found.deserialize_as = Some(value(input)?),
                "sql_type" => found.sql_type = Some(value(input)?),
                "treat_none_as_default_value" => found.none_as_default = Some(value(input)?),
                "treat_none_as_null" => found.none_as_null = Some(value(input)?),
                // Read by the shared model already.
                "column_name" => {
                    value::<ColumnName>(input)?;
                }
                _ => skip(input)?,
            }
            Ok(())
        });
        found
    }
}

struct ColumnName;

impl Parse for ColumnName {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        match input.peek(LitStr) {
            true => input.parse::<LitStr>().map(|_| ()),
            false => input.call(Ident::parse_any).map(|_| ()),
        }?;
        Ok(ColumnName)
    }
}

/// Hands every argument of every `#[diesel(..)]` to `read`, each parsed on its own. `false` if one is wrong.
fn each(
    cx: &Ctxt,
    attrs: &[Attribute],
    known: &[&'static str],
    mut read: impl FnMut(&str, ParseStream<'_>) -> syn::Result<()>,
) -> bool {
    let mut sound = true;
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("diesel")) {
        let Ok(list) = attr.meta.require_list() else {
            cx.error_at(attr, "write `#[diesel(..)]`");
            sound = false;
            continue;
        };
        for argument in split_at_commas(list.tokens.clone()) {
            let parse = |input: ParseStream<'_>| {
                let key = input.call(Ident::parse_any)?;
                let word = unraw(&key);
                // Keys of a later Diesel are not ours to refuse; typos are.
                if !known.contains(&word.as_str())
                    && let Some(near) = nearest(&word, known.iter().copied())
                {
                    return Err(syn::Error::new(
                        key.span(),
                        format!("unknown key `{word}` in `#[diesel(..)]`: did you mean `{near}`?"),
                    ));
                }
                read(&word, input)
            };
            if let Err(error) = parse.parse2(argument) {
                cx.syn_error(error);
                sound = false;
            }
        }
    }
    sound
}

fn value<T: Parse>(input: ParseStream<'_>) -> syn::Result<T> {
    input.parse::<Token![=]>()?;
    input.parse()
}

fn skip(input: ParseStream<'_>) -> syn::Result<()> {
    input.parse::<TokenStream>().map(drop)
}

/// The last word of a path: `users` of `crate::schema::users`.
pub(super) fn last_word(path: &Path) -> String {
    path.segments.last().map(|last| unraw(&last.ident)).unwrap_or_default()
}

pub(super) fn unraw(ident: &Ident) -> String {
    ident.unraw().to_string()
}

/// `T` of `Option<T>`, which Diesel knows by its name.
pub(super) fn inner_of_option(ty: &Type) -> Option<&Type> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last()?;
    match (&last.arguments, last.ident == "Option") {
        (PathArguments::AngleBracketed(arguments), true) => match arguments.args.first()? {
            GenericArgument::Type(inner) => Some(inner),
            _ => None,
        },
        _ => None,
    }
}
