//! Attribute arguments: `"literal"`, `word`, `key = value` and `key(list)`, separated by commas.
//!
//! Each argument is parsed on its own, so that one mistake does not hide the next.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Attribute, Expr, ExprLit, Ident, Lit, LitStr, Meta, Path, Token, parse_quote};

use crate::check;
use crate::ctxt::Ctxt;
use crate::symbol;

/// What `#[tracked(..)]` says about a field.
pub(crate) enum TrackedAttr {
    /// `#[tracked(skip)]`: not visited at all.
    Skip,
    /// `#[tracked("category", ..)]`.
    Declared(Declared),
}

/// The declaration of a tracked value: a field, or the result of a derivation.
pub(crate) struct Declared {
    /// The category as written; its span is the place of errors about it.
    pub(crate) category: LitStr,
    pub(crate) description: Option<LitStr>,
    pub(crate) kind: Option<LitStr>,
    pub(crate) pii: Option<bool>,
    pub(crate) secret: Option<bool>,
}

impl TrackedAttr {
    /// Reads the `#[tracked]` of a field, if there is one.
    pub(crate) fn of_field(cx: &Ctxt, attrs: &[Attribute]) -> Option<Self> {
        let (attr, tokens) = only_tracked(cx, attrs)?;
        let mut args = Args::parse(
            cx,
            tokens,
            "#[tracked]",
            &[&symbol::FIELD],
            // The brackets: `attr.span()` is `#` alone, as spans cannot be joined.
            attr.bracket_token.span.join(),
        );
        if args.flag(symbol::SKIP) {
            if !args.is_empty() {
                cx.error_at(
                    attr,
                    "`skip` stands alone: a skipped field is not visited. Write `#[tracked(skip)]`, or leave `skip` out",
                );
            }
            return Some(TrackedAttr::Skip);
        }
        Declared::take(&mut args).map(TrackedAttr::Declared)
    }
}

impl Declared {
    /// Takes `"category", description = .., kind = .., pii = .., secret = ..` out of `args`.
    pub(crate) fn take(args: &mut Args<'_>) -> Option<Self> {
        let (cx, what, span) = (args.cx, args.what, args.span);
        let category = args.literal();
        let kind = args.string(symbol::KIND);
        let declared = Declared {
            description: args.string(symbol::DESCRIPTION),
            pii: args.boolean(symbol::PII),
            secret: args.boolean(symbol::SECRET),
            kind: kind.filter(|kind| check::kind(cx, kind)),
            category: match category {
                Ok(Some(category)) => category,
                // Said already what is wrong with it.
                Err(()) => return None,
                Ok(None) => {
                    let name = what.trim_start_matches("#[").trim_end_matches(']');
                    let skip = if name == symbol::TRACKED {
                        ", or `#[tracked(skip)]` to leave the field out"
                    } else {
                        ""
                    };
                    cx.error_span(
                        span,
                        format!("missing category: write it first, as in `#[{name}(\"contact.email\")]`{skip}"),
                    );
                    return None;
                }
            },
        };
        check::category(cx, &declared.category).then_some(declared)
    }
}

/// The keys that every attribute accepts.
pub(crate) struct Shared {
    pub(crate) purpose: Option<LitStr>,
    pub(crate) basis: Option<LitStr>,
    pub(crate) data_use: Option<LitStr>,
    pub(crate) subject: Option<LitStr>,
    /// The last part of the path under which the item is recorded, instead of its identifier.
    pub(crate) name: Option<LitStr>,
    /// Path of the runtime crate, `::provenance` unless `crate = path` says otherwise.
    pub(crate) krate: Path,
}

impl Shared {
    /// Takes the shared keys out of `args`.
    pub(crate) fn take(args: &mut Args<'_>) -> Self {
        Shared {
            purpose: args.string(symbol::PURPOSE),
            basis: args.string(symbol::BASIS),
            data_use: args.string(symbol::DATA_USE),
            subject: args.string(symbol::SUBJECT),
            name: args.string(symbol::NAME),
            krate: args.path(symbol::CRATE).unwrap_or_else(|| parse_quote!(::provenance)),
        }
    }

    /// The keys about why, with their values, in a fixed order.
    pub(crate) fn terms(&self) -> [(&'static str, Option<&LitStr>); 4] {
        [
            (symbol::PURPOSE, self.purpose.as_ref()),
            (symbol::BASIS, self.basis.as_ref()),
            (symbol::DATA_USE, self.data_use.as_ref()),
            (symbol::SUBJECT, self.subject.as_ref()),
        ]
    }
}

/// The arguments of one attribute. Take what you know by key; unknown and duplicate keys and
/// values of the wrong type are reported as errors with the fix.
pub(crate) struct Args<'c> {
    cx: &'c Ctxt,
    /// The attribute as messages name it, `#[egress]`.
    what: &'static str,
    /// Where to point when something is missing.
    span: Span,
    args: Vec<Arg>,
    /// Something could not be read, so nothing is said to be missing.
    malformed: bool,
}

struct Arg {
    /// `None` for a literal.
    key: Option<Ident>,
    value: Value,
}

enum Value {
    Literal(Lit),
    Word,
    Expr(Expr),
    List(TokenStream),
}

impl<'c> Args<'c> {
    /// Parses the tokens between an attribute's parentheses. `keys` are those that it knows;
    /// `span` is the attribute's own place.
    pub(crate) fn parse(
        cx: &'c Ctxt,
        tokens: TokenStream,
        what: &'static str,
        keys: &[&[&'static str]],
        span: Span,
    ) -> Self {
        let known: Vec<&str> = keys.concat();
        let mut args: Vec<Arg> = Vec::new();
        let mut malformed = false;
        for tokens in split_at_commas(tokens) {
            let arg = match parse_arg.parse2(tokens.clone()) {
                Ok(arg) => arg,
                Err(_) => {
                    cx.error_at(&tokens, unreadable(&tokens, what, &known));
                    malformed = true;
                    continue;
                }
            };
            match &arg.key {
                Some(key) if !known.contains(&word(key).as_str()) => {
                    cx.error_at(key, unknown_key(&word(key), what, &known));
                }
                key if args.iter().any(|earlier| same_key(&earlier.key, key)) => match key {
                    Some(key) => cx.error_at(key, format!("duplicate key `{}` in `{what}`: give it once", word(key))),
                    None => cx.error_at(
                        &tokens,
                        format!("`{what}` takes one string before its keys: remove this one"),
                    ),
                },
                _ => args.push(arg),
            }
        }
        Args {
            cx,
            what,
            span,
            args,
            malformed,
        }
    }

    /// Whether everything has been taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.args.is_empty()
    }

    /// The string without a key. `Err` if there is something else instead; that is reported.
    pub(crate) fn literal(&mut self) -> Result<Option<LitStr>, ()> {
        let Some(at) = self.args.iter().position(|arg| arg.key.is_none()) else {
            return if self.malformed { Err(()) } else { Ok(None) };
        };
        match self.args.remove(at).value {
            Value::Literal(Lit::Str(text)) => Ok(Some(text)),
            value => {
                let text = value.to_token_stream().to_string();
                self.cx
                    .error_at(value, format!("expected a string: write `\"..\"` instead of `{text}`"));
                Err(())
            }
        }
    }

    /// `key = "text"`.
    pub(crate) fn string(&mut self, key: &'static str) -> Option<LitStr> {
        let (ident, value) = self.take(key)?;
        match &value {
            Value::Expr(Expr::Lit(ExprLit {
                lit: Lit::Str(text), ..
            })) => return Some(text.clone()),
            // The usual slip: the quotes are missing.
            Value::Expr(Expr::Path(path)) => {
                let text = path.to_token_stream().to_string().replace(' ', "");
                self.wrong(&ident, value, key, format!("`{key} = \"{text}\"`"));
            }
            _ => self.wrong(&ident, value, key, format!("`{key} = \"..\"`")),
        }
        None
    }

    /// `key = true`, `key = false`, or `key` alone, which is `true`.
    pub(crate) fn boolean(&mut self, key: &'static str) -> Option<bool> {
        let (ident, value) = self.take(key)?;
        match &value {
            Value::Word => return Some(true),
            Value::Expr(Expr::Lit(ExprLit {
                lit: Lit::Bool(value), ..
            })) => return Some(value.value),
            _ => self.wrong(&ident, value, key, format!("`{key} = true` or `{key} = false`")),
        }
        None
    }

    /// `key` alone.
    pub(crate) fn flag(&mut self, key: &'static str) -> bool {
        match self.take(key) {
            Some((_, Value::Word)) => true,
            Some((ident, value)) => {
                self.wrong(&ident, value, key, format!("`{key}` alone"));
                true
            }
            None => false,
        }
    }

    /// `key(..)`: the key and what stands between the parentheses.
    pub(crate) fn list(&mut self, key: &'static str) -> Option<(Ident, TokenStream)> {
        let (ident, value) = self.take(key)?;
        if let Value::List(tokens) = value {
            return Some((ident, tokens));
        }
        self.wrong(&ident, value, key, format!("`{key}(..)`"));
        None
    }

    /// `key = some::path`, or the same in quotes.
    pub(crate) fn path(&mut self, key: &'static str) -> Option<Path> {
        let (ident, value) = self.take(key)?;
        match &value {
            Value::Expr(Expr::Path(path)) if path.qself.is_none() => return Some(path.path.clone()),
            Value::Expr(Expr::Lit(ExprLit {
                lit: Lit::Str(text), ..
            })) => {
                if let Ok(path) = text.parse() {
                    return Some(path);
                }
            }
            _ => {}
        }
        self.wrong(&ident, value, key, format!("`{key} = some::path`"));
        None
    }

    fn take(&mut self, key: &str) -> Option<(Ident, Value)> {
        let at = self
            .args
            .iter()
            .position(|arg| arg.key.as_ref().is_some_and(|ident| ident.unraw() == key))?;
        let arg = self.args.remove(at);
        Some((arg.key?, arg.value))
    }

    fn wrong(&self, ident: &Ident, value: Value, key: &str, fix: String) {
        let mut at = value.to_token_stream();
        if at.is_empty() {
            at = ident.to_token_stream();
        }
        self.cx
            .error_at(at, format!("wrong value for `{key}` in `{}`: write {fix}", self.what));
    }
}

impl ToTokens for Value {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        match self {
            Value::Literal(lit) => lit.to_tokens(tokens),
            Value::Word => {}
            Value::Expr(expr) => expr.to_tokens(tokens),
            Value::List(list) => list.to_tokens(tokens),
        }
    }
}

/// The one attribute named `tracked`, with the tokens between its parentheses.
pub(crate) fn only_tracked<'a>(cx: &Ctxt, attrs: &'a [Attribute]) -> Option<(&'a Attribute, TokenStream)> {
    let mut tracked = attrs.iter().filter(|attr| attr.path().is_ident(symbol::TRACKED));
    let first = tracked.next()?;
    for again in tracked {
        cx.error_at(again, "duplicate `#[tracked]`: put every key into one attribute");
    }
    match &first.meta {
        Meta::Path(_) => Some((first, TokenStream::new())),
        Meta::List(list) => Some((first, list.tokens.clone())),
        Meta::NameValue(pair) => {
            let value = pair.value.to_token_stream();
            cx.error_at(first, format!("write `#[tracked({value})]`"));
            None
        }
    }
}

/// The known word that `word` is probably meant to be.
pub(crate) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let limit = word.chars().count().max(3) / 3;
    known
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(word, known), known))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// `a`, `b` and `c`.
pub(crate) fn listed<'k>(words: impl IntoIterator<Item = &'k str>) -> String {
    let words: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
        None => "nothing".to_owned(),
    }
}

/// Splits at the commas that are not inside brackets; empty parts (a trailing comma) go.
pub(crate) fn split_at_commas(tokens: TokenStream) -> Vec<TokenStream> {
    let mut parts = vec![TokenStream::new()];
    for token in tokens {
        match (&token, parts.last_mut()) {
            (TokenTree::Punct(punct), _) if punct.as_char() == ',' => parts.push(TokenStream::new()),
            (_, Some(part)) => part.extend([token]),
            (_, None) => {}
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

fn parse_arg(input: ParseStream<'_>) -> syn::Result<Arg> {
    if input.peek(Lit) {
        let lit = input.parse()?;
        return Ok(Arg {
            key: None,
            value: Value::Literal(lit),
        });
    }
    let key = Some(input.call(Ident::parse_any)?);
    let value = if input.is_empty() {
        Value::Word
    } else if input.peek(Token![=]) {
        input.parse::<Token![=]>()?;
        Value::Expr(input.parse()?)
    } else {
        let content;
        syn::parenthesized!(content in input);
        Value::List(content.parse()?)
    };
    Ok(Arg { key, value })
}

fn unreadable(tokens: &TokenStream, what: &str, known: &[&str]) -> String {
    let text = tokens.to_string().replace(' ', "");
    if text
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_'))
    {
        return format!("a category is a string: write `\"{text}\"`");
    }
    format!(
        "cannot read this: `{what}` takes a string, or `key = value` with the keys {}",
        listed(known.iter().copied())
    )
}

fn unknown_key(key: &str, what: &str, known: &[&str]) -> String {
    if let Some(near) = nearest(key, known.iter().copied()) {
        return format!("unknown key `{key}` in `{what}`: did you mean `{near}`?");
    }
    let elsewhere = match key {
        symbol::OWNER => "; `owner(..)` belongs on the type, as in `#[tracked(owner(email))]`",
        _ if symbol::FIELD.contains(&key) => "; it belongs on a field, in `#[tracked(..)]`",
        _ if symbol::SHARED.contains(&key) => "; it belongs on the type or function",
        _ => "",
    };
    format!(
        "unknown key `{key}` in `{what}`: it takes {}{elsewhere}",
        listed(known.iter().copied())
    )
}

fn word(key: &Ident) -> String {
    key.unraw().to_string()
}

fn same_key(a: &Option<Ident>, b: &Option<Ident>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.unraw() == b.unraw(),
        (None, None) => true,
        _ => false,
    }
}
