//! Arguments whose type is written as a web framework's extractor: `Form<Signup>`.
//!
//! What a macro sees is names. So an alias of an extractor is not recognised, and a type of the
//! user's own that is called `Form<_>` is taken for one: both go by what the type can do.

use syn::ext::IdentExt;
use syn::visit::{self, Visit};
use syn::visit_mut::VisitMut;
use syn::{Expr, GenericArgument, Generics, Ident, Lifetime, Pat, PathArguments, Type, TypeParamBound, WherePredicate};

/// Of axum, actix-web, Rocket and their companions: what comes from the client, and dereferences to it.
const NAMES: [&str; 12] = [
    "Cbor",
    "Form",
    "Json",
    "Lenient",
    "LenientForm",
    "MsgPack",
    "MultipartForm",
    "Path",
    "Query",
    "Strict",
    "TypedMultipart",
    "Valid",
];

/// Bounds that say nothing of how a value could be visited.
const BLIND: [&str; 12] = [
    "Clone",
    "Copy",
    "Debug",
    "Default",
    "Deserialize",
    "DeserializeOwned",
    "Eq",
    "Hash",
    "PartialEq",
    "Send",
    "Sync",
    "Unpin",
];

/// An extractor that a function takes.
pub(crate) struct Extractor<'t> {
    /// Without references, `Option` and `Result` around it.
    ty: &'t Type,
    /// References around all that is the argument's type.
    pub(crate) references: usize,
}

/// Whether an extractor can be visited, as far as its function tells.
pub(crate) enum Verdict {
    /// The compiler can say; the type as an item inside the function may write it.
    Ask(Box<Type>),
    /// It holds a type parameter of the function's that promises nothing.
    Never,
    /// It may hold a parameter of the `impl` around, which no item inside may name.
    Unknown,
}

impl<'t> Extractor<'t> {
    pub(crate) fn of(ty: &'t Type) -> Option<Self> {
        match ty {
            Type::Group(group) => Extractor::of(&group.elem),
            Type::Paren(paren) => Extractor::of(&paren.elem),
            Type::Reference(reference) => Extractor::of(&reference.elem).map(|inner| Extractor {
                references: inner.references + 1,
                ..inner
            }),
            Type::Path(path) => {
                let last = path.path.segments.last()?;
                let content = only_content(&last.arguments)?;
                if last.ident == "Option" || last.ident == "Result" {
                    // References inside cannot be taken off from outside.
                    return Extractor::of(content).filter(|inner| inner.references == 0);
                }
                let named = NAMES.iter().any(|name| last.ident == name);
                named.then_some(Extractor { ty, references: 0 })
            }
            _ => None,
        }
    }

    pub(crate) fn verdict(&self, generics: &Generics) -> Verdict {
        let mut names = Names {
            generics,
            parameter: None,
            unknown: false,
        };
        names.visit_type(self.ty);
        if names.unknown {
            return Verdict::Unknown;
        }
        match names.parameter {
            Some(parameter) if is_blind(&parameter, generics) => Verdict::Never,
            Some(_) => Verdict::Unknown,
            None => {
                let mut ty = self.ty.clone();
                Unnamed.visit_type_mut(&mut ty);
                Verdict::Ask(Box::new(ty))
            }
        }
    }
}

/// The names that a pattern gives to what stands in a path: `Path(id)`, `Path((id, email))`.
pub(crate) enum PathNames {
    Whole(String),
    Each(Vec<Option<String>>),
}

/// Of an argument that is `Path<..>` itself. Path parameters come by position: the pattern alone names them.
pub(crate) fn path_names(pat: &Pat, ty: &Type) -> Option<PathNames> {
    let (Pat::TupleStruct(pat), Type::Path(path)) = (pat, ty) else {
        return None;
    };
    let last = path.path.segments.last().filter(|last| last.ident == "Path")?;
    let content = only_content(&last.arguments)?;
    let name = |pat: &Pat| match pat {
        Pat::Ident(pat) if pat.subpat.is_none() => Some(pat.ident.unraw().to_string()),
        _ => None,
    };
    match (pat.elems.len(), pat.elems.first()?, content) {
        (1, Pat::Tuple(tuple), Type::Tuple(types)) if tuple.elems.len() == types.elems.len() => {
            let rest = tuple.elems.iter().any(|elem| matches!(elem, Pat::Rest(_)));
            (!rest).then(|| PathNames::Each(tuple.elems.iter().map(name).collect()))
        }
        (1, only, _) => name(only).map(PathNames::Whole),
        _ => None,
    }
}

/// The first type among the arguments of a type.
fn only_content(arguments: &PathArguments) -> Option<&Type> {
    let PathArguments::AngleBracketed(arguments) = arguments else {
        return None;
    };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    })
}

/// Looks for names that an item inside the function could not write.
struct Names<'g> {
    generics: &'g Generics,
    /// A type parameter of the function's.
    parameter: Option<Ident>,
    unknown: bool,
}

impl<'a> Visit<'a> for Names<'_> {
    fn visit_type(&mut self, ty: &'a Type) {
        match ty {
            Type::Path(path) => {
                let first = path.path.segments.first().map(|segment| &segment.ident);
                if let Some(first) = first.filter(|_| path.path.leading_colon.is_none()) {
                    // `T`, `DB`: what parameters are called, those of the `impl` too.
                    let may_be_parameter = !first.to_string().contains(|c: char| c.is_lowercase());
                    if self.generics.type_params().any(|parameter| parameter.ident == *first) {
                        self.parameter = Some(first.clone());
                    } else if may_be_parameter || first == "Self" {
                        self.unknown = true;
                    }
                }
                visit::visit_type(self, ty);
            }
            Type::Array(_) | Type::Group(_) | Type::Paren(_) | Type::Reference(_) | Type::Slice(_) | Type::Tuple(_) => {
                visit::visit_type(self, ty);
            }
            _ => self.unknown = true,
        }
    }

    fn visit_expr(&mut self, expr: &'a Expr) {
        self.unknown |= !matches!(expr, Expr::Lit(_));
    }
}

/// Lets the compiler find every lifetime, where those of the function are not in scope.
struct Unnamed;

impl VisitMut for Unnamed {
    fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
        if lifetime.ident != "static" {
            *lifetime = Lifetime::new("'_", lifetime.span());
        }
    }
}

/// Whether no bound of a parameter may make it visible.
fn is_blind(parameter: &Ident, generics: &Generics) -> bool {
    let blind = |bound: &TypeParamBound| match bound {
        TypeParamBound::Trait(bound) => bound
            .path
            .segments
            .last()
            .is_some_and(|last| BLIND.iter().any(|name| last.ident == name)),
        bound => matches!(bound, TypeParamBound::Lifetime(_)),
    };
    let own = generics.type_params().filter(|param| param.ident == *parameter);
    let mut own = own.flat_map(|param| &param.bounds);
    let whole = generics.where_clause.iter().flat_map(|clause| &clause.predicates);
    let mut others = whole.filter_map(|predicate| match predicate {
        WherePredicate::Type(predicate) => match &predicate.bounded_ty {
            Type::Path(path) if path.path.is_ident(parameter) => Some(&predicate.bounds),
            _ => None,
        },
        _ => None,
    });
    own.all(blind) && others.all(|bounds| bounds.iter().all(blind))
}
