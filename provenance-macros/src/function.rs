//! A function under an attribute: its signature parsed, its body kept as raw tokens, so that
//! what the user is still typing in there stays the compiler's to judge.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, TokenStreamExt, format_ident, quote, quote_spanned};
use syn::parse::{Parse, ParseStream, Parser};
use syn::spanned::Spanned;
use syn::visit_mut::{self, VisitMut};
use syn::{
    Attribute, FnArg, GenericArgument, Ident, Item, Pat, Path, PathArguments, ReturnType, Signature, Token, Type,
    TypeParamBound, Visibility, parse_quote, parse_quote_spanned,
};

use crate::ctxt::Ctxt;
use crate::extractor::{PathNames, path_names};

/// A free function or a method, with its body.
#[derive(Clone)]
pub(crate) struct Function {
    /// Outer attributes, then inner ones.
    pub(crate) attrs: Vec<Attribute>,
    vis: Visibility,
    /// `default`, as in specialisation.
    default: Option<Ident>,
    pub(crate) sig: Signature,
    /// What stands between the braces, inner attributes taken out.
    pub(crate) body: TokenStream,
    /// Of the braces.
    pub(crate) body_span: Span,
}

/// An argument that generated code may look at, by reference, before the body runs.
#[derive(Clone)]
pub(crate) struct Arg {
    /// The variable that holds it.
    pub(crate) ident: Ident,
    /// Its name in the source; `None` for a pattern such as `Form(form)`.
    pub(crate) name: Option<String>,
    pub(crate) ty: Type,
    /// `#[cfg(..)]`, which decides whether there is such an argument at all.
    pub(crate) cfg: Vec<Attribute>,
    /// For a pattern: the `let` that gives the body its variables.
    rebind: Option<Pat>,
}

impl Arg {
    /// The names that its pattern gives to path parameters.
    pub(crate) fn path_names(&self) -> Option<PathNames> {
        path_names(self.rebind.as_ref()?, &self.ty)
    }
}

/// How the body gives its result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flow {
    Sync,
    /// `async fn`.
    Async,
    /// `-> Pin<Box<dyn Future>>`, which is what `#[async_trait]` makes of an `async fn`.
    Boxed,
    /// `-> impl Future`.
    Future,
}

impl Function {
    /// Reads the item under `attribute` (`#[egress]`). If it is none that the attribute can
    /// stand on, that is reported, and `Err` is what to write instead.
    pub(crate) fn parse(cx: &Ctxt, attribute: &str, item: TokenStream) -> Result<Self, TokenStream> {
        match parse_function.parse2(item.clone()) {
            Ok(function) => match function.sig.constness {
                Some(constness) => {
                    cx.error_at(
                        constness,
                        format!("`{attribute}` cannot record a `const fn`: it may run in the compiler. Drop `const`"),
                    );
                    Err(item)
                }
                None => Ok(function),
            },
            Err(error) => {
                match syn::parse2::<TraitMethod>(item.clone()) {
                    Ok(method) => cx.error_at(
                        method.0,
                        format!("`{attribute}` needs a body: put it on the method of each `impl`"),
                    ),
                    Err(_) => match syn::parse2::<Item>(item.clone()) {
                        Ok(other) => {
                            let (name, at) = describe(&other);
                            cx.error_at(
                                at,
                                format!("`{attribute}` belongs on a function or method, not on {name}: move it there"),
                            );
                        }
                        Err(_) => cx.syn_error(error),
                    },
                }
                Err(item)
            }
        }
    }

    /// The arguments but `self`. Patterns are replaced by variables; [`Function::rebindings`]
    /// gives the body what it had.
    pub(crate) fn take_args(&mut self) -> Vec<Arg> {
        let mut args = Vec::new();
        for (index, input) in self.sig.inputs.iter_mut().enumerate() {
            let FnArg::Typed(input) = input else { continue };
            let cfg = |attr: &&Attribute| attr.path().is_ident("cfg");
            let cfg = input.attrs.iter().filter(cfg).cloned().collect();
            let ty = (*input.ty).clone();
            if let Pat::Ident(pat) = &*input.pat
                && is_variable(pat)
            {
                let name = syn::ext::IdentExt::unraw(&pat.ident).to_string();
                args.push(Arg {
                    ident: pat.ident.clone(),
                    // Patterns that we or `#[async_trait]` replaced before.
                    name: (!name.starts_with("__a")).then_some(name),
                    ty,
                    cfg,
                    rebind: None,
                });
                continue;
            }
            let ident = format_ident!("__a{}", index, span = Span::mixed_site());
            let variable = Pat::Ident(syn::PatIdent {
                attrs: Vec::new(),
                by_ref: None,
                mutability: None,
                ident: ident.clone(),
                subpat: None,
            });
            args.push(Arg {
                ident,
                name: None,
                ty,
                cfg,
                rebind: Some(std::mem::replace(&mut *input.pat, variable)),
            });
        }
        args
    }

    /// `let Form(form) = __a0;` for every pattern among `args`: belongs before the body, where
    /// the body runs.
    pub(crate) fn rebindings(args: &[Arg]) -> TokenStream {
        let lets = args.iter().filter_map(|arg| {
            let (pat, ident, cfg) = (arg.rebind.as_ref()?, &arg.ident, &arg.cfg);
            Some(quote!(#(#cfg)* let #pat = #ident;))
        });
        quote!(#(#lets)*)
    }

    pub(crate) fn flow(&self) -> Flow {
        if self.sig.asyncness.is_some() {
            return Flow::Async;
        }
        match &self.sig.output {
            ReturnType::Type(_, ty) if is_impl_future(ty) => Flow::Future,
            ReturnType::Type(_, ty) if is_boxed_future(ty) => Flow::Boxed,
            _ => Flow::Sync,
        }
    }

    /// The return type, unless it mentions `impl Trait` or is `!`: then it cannot be written.
    pub(crate) fn output(&self) -> Option<Type> {
        match &self.sig.output {
            ReturnType::Default => Some(parse_quote_spanned!(self.sig.ident.span()=> ())),
            ReturnType::Type(_, ty) if matches!(**ty, Type::Never(_)) => None,
            ReturnType::Type(_, ty) => {
                let mut erased = (**ty).clone();
                let mut finder = EraseImpl { found: false };
                finder.visit_type_mut(&mut erased);
                (!finder.found).then_some(erased)
            }
        }
    }

    /// A statement for the front of an `async` block that has this function's body: it tells
    /// the block's type, so that `?` works and type errors point to where they would.
    pub(crate) fn fake_return(&self) -> TokenStream {
        let ty = match &self.sig.output {
            ReturnType::Default => parse_quote_spanned!(self.sig.ident.span()=> ()),
            // Nothing to tell: `!` is no type to write here, `impl Trait` names none.
            ReturnType::Type(_, ty) if matches!(**ty, Type::Never(_) | Type::ImplTrait(_)) => {
                return TokenStream::new();
            }
            ReturnType::Type(_, ty) => {
                let mut erased = (**ty).clone();
                EraseImpl { found: false }.visit_type_mut(&mut erased);
                erased
            }
        };
        let span = Span::mixed_site().located_at(ty.span());
        quote_spanned! {span=>
            #[allow(unknown_lints, unreachable_code, clippy::all, clippy::pedantic, clippy::restriction)]
            if false {
                let __fake_return: #ty = loop {};
                return __fake_return;
            }
        }
    }

    /// The body as a closure that is called at once, so that `return` and `?` end it alone. The
    /// call tells the compiler that it is called once: else it could not return what it borrows.
    pub(crate) fn in_closure(&self, krate: &Path, rebindings: &TokenStream) -> TokenStream {
        let (body, output) = (&self.body, self.output().map(|ty| quote!(-> #ty)));
        quote!(#krate::__private::once(move || #output { #rebindings #body }))
    }

    /// The function with this attribute moved below its other attribute macros, if it has any
    /// that would see our variables in the place of its patterns (`#[instrument(skip(app))]` on
    /// `State(app): State<App>`). `path` names the attribute.
    pub(crate) fn after_others(&self, path: &TokenStream, args: &TokenStream) -> Option<TokenStream> {
        let pattern = |input: &FnArg| match input {
            FnArg::Typed(input) => !matches!(&*input.pat, Pat::Ident(pat) if is_variable(pat)),
            FnArg::Receiver(_) => false,
        };
        if !self.sig.inputs.iter().any(pattern) || !self.attrs.iter().any(may_be_macro) {
            return None;
        }
        let mut function = self.clone();
        let last = Ident::new(LAST, Span::mixed_site());
        function.attrs.push(parse_quote!(#[#path(#last, #args)]));
        Some(function.original())
    }

    /// The function with another body.
    pub(crate) fn with_body(&self, body: TokenStream) -> TokenStream {
        let Function { vis, default, sig, .. } = self;
        let outer = self.attrs.iter();
        let mut braces = proc_macro2::Group::new(proc_macro2::Delimiter::Brace, body);
        braces.set_span(self.body_span);
        quote!(#(#outer)* #vis #default #sig #braces)
    }

    /// The function as it was read.
    pub(crate) fn original(&self) -> TokenStream {
        self.with_body(self.body.clone())
    }
}

/// The word that [`Function::after_others`] puts before an attribute's arguments.
const LAST: &str = "__last";

/// The arguments of an attribute, and whether it was moved below the others.
pub(crate) fn take_last(args: TokenStream) -> (TokenStream, bool) {
    let mut rest = args.clone().into_iter();
    match (rest.next(), rest.next()) {
        (Some(TokenTree::Ident(word)), Some(TokenTree::Punct(_))) if word == LAST => (rest.collect(), true),
        _ => (args, false),
    }
}

/// Whether an attribute may be another macro: it is none of the compiler's that stand on
/// functions, none of a tool's, and none of ours, which understand each other.
fn may_be_macro(attr: &Attribute) -> bool {
    const INERT: [&str; 24] = [
        "allow",
        "cfg",
        "cold",
        "deny",
        "deprecated",
        "derived",
        "diagnostic",
        "doc",
        "egress",
        "expect",
        "export_name",
        "forbid",
        "ignore",
        "inline",
        "link_section",
        "must_use",
        "no_mangle",
        "payload",
        "provenance_input",
        "should_panic",
        "target_feature",
        "track_caller",
        "unsafe",
        "warn",
    ];
    const TOOLS: [&str; 4] = ["clippy", "diagnostic", "miri", "rustfmt"];
    let segments = &attr.path().segments;
    let is = |segment: Option<&syn::PathSegment>, names: &[&str]| {
        segment.is_some_and(|segment| names.iter().any(|name| segment.ident == name))
    };
    let of_tool = segments.len() > 1 && is(segments.first(), &TOOLS);
    !of_tool && !is(segments.last(), &INERT)
}

fn is_variable(pat: &syn::PatIdent) -> bool {
    pat.by_ref.is_none() && pat.subpat.is_none()
}

fn parse_function(input: ParseStream<'_>) -> syn::Result<Function> {
    let mut attrs = input.call(Attribute::parse_outer)?;
    let vis = input.parse()?;
    let default = default_keyword(input)?;
    let sig = input.parse()?;
    let content;
    let brace = syn::braced!(content in input);
    // An attribute inside means the same outside, where it survives new statements before the body.
    attrs.extend(content.call(Attribute::parse_inner)?.into_iter().map(|mut attr| {
        attr.style = syn::AttrStyle::Outer;
        attr
    }));
    Ok(Function {
        attrs,
        vis,
        default,
        sig,
        body: content.parse()?,
        body_span: brace.span.join(),
    })
}

fn default_keyword(input: ParseStream<'_>) -> syn::Result<Option<Ident>> {
    let ahead = input.fork();
    match ahead.parse::<Ident>() {
        Ok(ident) if ident == "default" => input.parse().map(Some),
        _ => Ok(None),
    }
}

/// `fn f(&self);`
struct TraitMethod(Token![;]);

impl Parse for TraitMethod {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        input.call(Attribute::parse_outer)?;
        input.parse::<Visibility>()?;
        input.parse::<Signature>()?;
        input.parse().map(TraitMethod)
    }
}

/// What an item is, in words, with the tokens to point to.
pub(crate) fn describe(item: &Item) -> (&'static str, TokenStream) {
    match item {
        Item::Struct(item) => ("a struct", item.ident.to_token_stream()),
        Item::Enum(item) => ("an enum", item.ident.to_token_stream()),
        Item::Union(item) => ("a union", item.ident.to_token_stream()),
        Item::Trait(item) => ("a trait", item.ident.to_token_stream()),
        Item::Impl(item) => ("an `impl` block", item.self_ty.to_token_stream()),
        Item::Mod(item) => ("a module", item.ident.to_token_stream()),
        Item::Type(item) => ("a type alias", item.ident.to_token_stream()),
        Item::Const(item) => ("a constant", item.ident.to_token_stream()),
        Item::Static(item) => ("a static", item.ident.to_token_stream()),
        Item::Fn(item) => ("a function", item.sig.ident.to_token_stream()),
        Item::Use(item) => ("a `use`", item.tree.to_token_stream()),
        other => {
            let mut first = TokenStream::new();
            first.append_all(other.to_token_stream().into_iter().take(1).collect::<Vec<TokenTree>>());
            ("this item", first)
        }
    }
}

/// Writes `_` for every `impl Trait`.
struct EraseImpl {
    found: bool,
}

impl VisitMut for EraseImpl {
    fn visit_type_mut(&mut self, ty: &mut Type) {
        if matches!(ty, Type::ImplTrait(_)) {
            self.found = true;
            *ty = parse_quote_spanned!(ty.span()=> _);
        } else {
            visit_mut::visit_type_mut(self, ty);
        }
    }
}

fn is_future<'b>(bounds: impl IntoIterator<Item = &'b TypeParamBound>) -> bool {
    bounds.into_iter().any(|bound| match bound {
        TypeParamBound::Trait(bound) => bound.path.segments.last().is_some_and(|last| last.ident == "Future"),
        _ => false,
    })
}

fn is_impl_future(ty: &Type) -> bool {
    matches!(ungrouped(ty), Type::ImplTrait(ty) if is_future(&ty.bounds))
}

fn is_boxed_future(ty: &Type) -> bool {
    let future = only_argument(ty, "Pin").and_then(|ty| only_argument(ty, "Box"));
    matches!(future.map(ungrouped), Some(Type::TraitObject(ty)) if is_future(&ty.bounds))
}

fn only_argument<'t>(ty: &'t Type, name: &str) -> Option<&'t Type> {
    let Type::Path(path) = ungrouped(ty) else { return None };
    let last = path.path.segments.last()?;
    let PathArguments::AngleBracketed(args) = &last.arguments else {
        return None;
    };
    match args.args.first()? {
        GenericArgument::Type(ty) if last.ident == name => Some(ty),
        _ => None,
    }
}

fn ungrouped(ty: &Type) -> &Type {
    match ty {
        Type::Group(group) => ungrouped(&group.elem),
        Type::Paren(paren) => ungrouped(&paren.elem),
        _ => ty,
    }
}
