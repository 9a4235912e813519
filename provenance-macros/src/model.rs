//! A struct or enum as the attributes see it: its fields, what they declare, whose it is.

use proc_macro2::{Span, TokenStream};
use quote::format_ident;
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::spanned::Spanned;
use syn::{Attribute, Data, DeriveInput, Generics, Ident, Index, LitStr, Member, Path, Token, Type};

use crate::attr::{Declared, TrackedAttr, listed, nearest, only_tracked, split_at_commas};
use crate::check;
use crate::ctxt::Ctxt;

/// A type whose fields may be tracked.
pub(crate) struct Model {
    pub(crate) ident: Ident,
    pub(crate) generics: Generics,
    pub(crate) shape: Shape,
}

/// Struct or enum.
pub(crate) enum Shape {
    Struct(Vec<Field>),
    Enum(Vec<Variant>),
}

/// A variant of an enum.
pub(crate) struct Variant {
    pub(crate) ident: Ident,
    pub(crate) fields: Vec<Field>,
}

/// A field of a struct or a variant.
pub(crate) struct Field {
    /// Counts all fields of the type, those of every variant included.
    pub(crate) index: usize,
    /// `email` or `0`.
    pub(crate) member: Member,
    pub(crate) ty: Type,
    /// What its `#[tracked]` says; `None` without one.
    pub(crate) tracked: Option<TrackedAttr>,
    /// The name to record: the column's (`#[diesel(column_name = ..)]`), else the field's.
    pub(crate) name: String,
    /// Every attribute as written, `#[tracked]` included.
    pub(crate) attrs: Vec<Attribute>,
}

/// One entry of `owner(email, id as "user")`.
#[derive(Debug)]
pub(crate) struct Owner {
    pub(crate) member: Member,
    /// `email`, `user`, ..
    pub(crate) kind: String,
}

impl Model {
    /// Reads a derive's input; `None` for a union, which is reported.
    pub(crate) fn parse(cx: &Ctxt, input: &DeriveInput) -> Option<Self> {
        let mut count = 0;
        let shape = match &input.data {
            Data::Struct(data) => Shape::Struct(fields(cx, &data.fields, &mut count)),
            Data::Enum(data) => Shape::Enum(
                data.variants
                    .iter()
                    .map(|variant| {
                        if let Some((attr, _)) = only_tracked(cx, &variant.attrs) {
                            cx.error_at(
                                attr,
                                "`#[tracked]` belongs on a field of the variant, not on the variant",
                            );
                        }
                        Variant {
                            ident: variant.ident.clone(),
                            fields: fields(cx, &variant.fields, &mut count),
                        }
                    })
                    .collect(),
            ),
            Data::Union(data) => {
                cx.error_at(
                    data.union_token,
                    "a union cannot be tracked: which of its fields is valid is not known. Use a struct or an enum",
                );
                return None;
            }
        };
        Some(Model {
            ident: input.ident.clone(),
            generics: input.generics.clone(),
            shape,
        })
    }

    /// Every field, those of all variants included.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &Field> {
        let (fields, variants): (&[Field], &[Variant]) = match &self.shape {
            Shape::Struct(fields) => (fields, &[]),
            Shape::Enum(variants) => (&[], variants),
        };
        fields.iter().chain(variants.iter().flat_map(|variant| &variant.fields))
    }

    /// The field of a struct, or the first of that name in any variant.
    pub(crate) fn field(&self, member: &Member) -> Option<&Field> {
        self.fields().find(|field| field.member == *member)
    }

    /// Reads the entries of `owner(..)`. `table` gives the kind of a field named `id`:
    /// `users` makes it `user`.
    pub(crate) fn owners(&self, cx: &Ctxt, tokens: TokenStream, key: &Ident, table: Option<&str>) -> Vec<Owner> {
        let mut owners: Vec<Owner> = Vec::new();
        let entries = split_at_commas(tokens);
        if entries.is_empty() {
            cx.error_at(
                key,
                "`owner(..)` names a field, as in `owner(email)` or `owner(id as \"user\")`",
            );
        }
        for tokens in entries {
            let (member, kind) = match parse_owner.parse2(tokens.clone()) {
                Ok(entry) => entry,
                Err(_) => {
                    cx.error_at(
                        &tokens,
                        "an owner is a field, `email`, or a field and its kind, `id as \"user\"`",
                    );
                    continue;
                }
            };
            let Some(field) = self.field(&member) else {
                cx.error_at(&member, self.no_such_field(&member));
                continue;
            };
            if owners.iter().any(|owner| owner.member == member) {
                cx.error_at(&member, format!("duplicate owner `{}`: name it once", text(&member)));
                continue;
            }
            let kind = match kind {
                Some(kind) if check::is_word(&kind.value()) => kind.value(),
                Some(kind) => {
                    cx.error_at(
                        kind,
                        "an owner's kind is one word of `a-z`, `0-9` and `_`, such as `\"user\"`",
                    );
                    continue;
                }
                None => match field.owner_kind(table) {
                    Some(kind) => kind,
                    None => {
                        let name = text(&member);
                        cx.error_at(
                            &member,
                            format!("`{name}` does not say whose id it is: write `{name} as \"user\"`"),
                        );
                        continue;
                    }
                },
            };
            owners.push(Owner { member, kind });
        }
        owners
    }

    fn no_such_field(&self, member: &Member) -> String {
        let name = text(member);
        // Variants may share names.
        let mut names: Vec<String> = self.fields().map(|field| text(&field.member)).collect();
        let mut seen = std::collections::HashSet::new();
        names.retain(|name| seen.insert(name.clone()));
        let fix = match nearest(&name, names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None if names.is_empty() => "it has no fields".to_owned(),
            None => format!("it has {}", listed(names.iter().map(String::as_str))),
        };
        format!("no field `{name}` in `{}`: {fix}", self.ident)
    }
}

impl Field {
    /// What `#[tracked(..)]` declares, unless there is none or it says `skip`.
    pub(crate) fn declared(&self) -> Option<&Declared> {
        match &self.tracked {
            Some(TrackedAttr::Declared(declared)) => Some(declared),
            Some(TrackedAttr::Skip) | None => None,
        }
    }

    /// Whether the field says `#[tracked(skip)]`.
    pub(crate) fn skipped(&self) -> bool {
        matches!(self.tracked, Some(TrackedAttr::Skip))
    }

    /// Name of the static that holds the declaration, see [`crate::expand::field_statics`].
    pub(crate) fn static_ident(&self) -> Ident {
        format_ident!("FIELD_{}", self.index)
    }

    /// The place that errors about this field's type point to.
    pub(crate) fn span(&self) -> Span {
        self.ty.span()
    }

    fn owner_kind(&self, table: Option<&str>) -> Option<String> {
        if let Some(declared) = self.declared() {
            return declared.category.value().rsplit('.').next().map(str::to_owned);
        }
        let Member::Named(ident) = &self.member else {
            return None;
        };
        let name = ident.unraw().to_string();
        if name == "id" {
            let table = table?;
            return Some(table.strip_suffix('s').unwrap_or(table).to_owned());
        }
        Some(name.strip_suffix("_id").map_or(name.clone(), str::to_owned)).filter(|kind| check::is_word(kind))
    }
}

/// A member as text: `email`, `0`.
pub(crate) fn text(member: &Member) -> String {
    match member {
        Member::Named(ident) => ident.unraw().to_string(),
        Member::Unnamed(index) => index.index.to_string(),
    }
}

fn fields(cx: &Ctxt, fields: &syn::Fields, count: &mut usize) -> Vec<Field> {
    fields
        .iter()
        .zip(fields.members())
        .map(|(field, member)| {
            let index = *count;
            *count += 1;
            Field {
                index,
                ty: field.ty.clone(),
                tracked: TrackedAttr::of_field(cx, &field.attrs),
                name: column_name(&field.attrs).unwrap_or_else(|| text(&member)),
                attrs: field.attrs.clone(),
                member,
            }
        })
        .collect()
}

/// `#[diesel(column_name = email)]`. What is wrong with it is Diesel's to say.
fn column_name(attrs: &[Attribute]) -> Option<String> {
    let mut found = None;
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("diesel")) {
        let _ = attr.parse_nested_meta(|meta| {
            if meta.path.is_ident("column_name") {
                let value = meta.value()?;
                found = if value.peek(LitStr) {
                    Some(value.parse::<LitStr>()?.value())
                } else {
                    let path = value.parse::<Path>()?;
                    path.segments.last().map(|last| last.ident.unraw().to_string())
                };
            } else if meta.input.peek(Token![=]) {
                meta.value()?.parse::<syn::Expr>()?;
            } else if meta.input.peek(syn::token::Paren) {
                let content;
                syn::parenthesized!(content in meta.input);
                content.parse::<TokenStream>()?;
            }
            Ok(())
        });
    }
    found
}

fn parse_owner(input: ParseStream<'_>) -> syn::Result<(Member, Option<LitStr>)> {
    let member = if input.peek(syn::LitInt) {
        Member::Unnamed(input.parse::<Index>()?)
    } else {
        Member::Named(input.parse()?)
    };
    let kind = if input.is_empty() {
        None
    } else {
        input.parse::<Token![as]>()?;
        Some(input.parse()?)
    };
    Ok((member, kind))
}
