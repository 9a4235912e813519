//! Calls of HTTP, mail and cloud clients in source text that stand outside any `#[egress]` function.
//!
//! A list to look at, not a proof: the source is read, not compiled. A receiver's library is known
//! from the file's `use`s, the types of arguments and fields, and `let`s; calls inside macros, and
//! receivers whose types stand in other files, are not seen.

use std::collections::HashMap;
use std::fmt::Write as _;

use proc_macro2::Span;
use syn::visit::{self, Visit};
use syn::{Attribute, Expr, FnArg, Ident, Item, Pat, Path, Type, UseTree};

/// Most nesting that is followed; what lies deeper is not worth a stack overflow.
const MAX_DEPTH: usize = 64;

/// A client library, and what sends there.
struct Library {
    /// First segment of its paths; `aws_sdk_` stands for all that begin so.
    name: &'static str,
    /// Free functions that send, or that begin what a method sends.
    functions: &'static [&'static str],
    /// Methods that send.
    methods: &'static [&'static str],
}

const LIBRARIES: [Library; 8] = [
    Library {
        name: "ureq",
        functions: &["run"],
        methods: &["call", "send", "send_json", "send_form", "send_empty", "run"],
    },
    Library {
        name: "reqwest",
        functions: &["get"],
        methods: &["send", "execute"],
    },
    Library {
        name: "reqwest_middleware",
        functions: &[],
        methods: &["send", "execute"],
    },
    Library {
        name: "hyper",
        functions: &[],
        methods: &["send_request"],
    },
    Library {
        name: "hyper_util",
        functions: &[],
        methods: &["request", "get"],
    },
    // Its clients are generated: any method that is awaited may send.
    Library {
        name: "tonic",
        functions: &[],
        methods: &[],
    },
    Library {
        name: "lettre",
        functions: &[],
        methods: &["send", "send_raw"],
    },
    Library {
        name: "aws_sdk_",
        functions: &[],
        methods: &["send"],
    },
];

impl Library {
    fn named(name: &str) -> Option<&'static Self> {
        LIBRARIES
            .iter()
            .find(|library| name == library.name || (library.name.ends_with('_') && name.starts_with(library.name)))
    }

    fn is_generated(&self) -> bool {
        self.methods.is_empty()
    }
}

/// A call that sends, outside `#[egress]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct CallSite {
    /// The file, as it was given.
    pub file: String,
    /// The line of the method or function name, from 1.
    pub line: usize,
    /// The library: `ureq`, `reqwest`, `aws_sdk_s3`, ..
    pub library: String,
    /// What is called: `send_json`.
    pub call: String,
    /// The function that it stands in, methods with their type: `Mailer::welcome`.
    pub function: String,
}

/// Every such call in one file.
///
/// # Errors
/// The text is no Rust source: the line, and what the parser says.
pub fn find(file: &str, source: &str) -> Result<Vec<CallSite>, String> {
    let parsed = syn::parse_file(source).map_err(|error| {
        let line = error.span().start().line;
        format!("{file}:{line}: not read as Rust: {error}")
    })?;
    let mut names = Names::default();
    names.visit_file(&parsed);
    let mut finder = Finder {
        file,
        names,
        within: Vec::new(),
        locals: HashMap::new(),
        awaited: false,
        depth: 0,
        found: Vec::new(),
    };
    finder.visit_file(&parsed);
    finder.found.sort();
    finder.found.dedup();
    Ok(finder.found)
}

/// The list for a terminal, ending in a line feed.
pub fn table(sites: &[CallSite]) -> String {
    let mut out = String::new();
    for site in sites {
        let _ = writeln!(
            out,
            "{}:{}: {} `{}` in {}",
            site.file, site.line, site.library, site.call, site.function
        );
    }
    let calls = if sites.len() == 1 { "call stands" } else { "calls stand" };
    let _ = write!(out, "{} {calls} outside any #[egress] function", sites.len());
    out.push_str(match sites {
        [] => ".\n",
        _ => ". Look at each: does personal data leave there? A client with provenance's middleware records it all the same.\n",
    });
    out
}

/// What the file says of names: which library they come from.
#[derive(Default)]
struct Names {
    /// `Agent` -> `ureq`, `http` (a renamed crate) -> `reqwest`.
    imported: HashMap<String, String>,
    /// Fields of structs, by name alone.
    fields: HashMap<String, String>,
}

impl Names {
    fn import(&mut self, library: Option<&str>, tree: &UseTree) {
        let of = |name: &Ident| match library {
            Some(library) => Some(library.to_owned()),
            None => Some(name.to_string()).filter(|name| Library::named(name).is_some()),
        };
        match tree {
            UseTree::Path(path) => {
                if let Some(library) = of(&path.ident) {
                    self.import(Some(&library), &path.tree);
                }
            }
            UseTree::Name(name) => {
                if let Some(library) = of(&name.ident) {
                    self.imported.insert(name.ident.to_string(), library);
                }
            }
            UseTree::Rename(rename) => {
                if let Some(library) = of(&rename.ident) {
                    self.imported.insert(rename.rename.to_string(), library);
                }
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.import(library, tree)),
            _ => {}
        }
    }

    /// The library that a path's first segment belongs to.
    fn of_path(&self, path: &Path) -> Option<String> {
        let first = path.segments.first()?.ident.to_string();
        if Library::named(&first).is_some() {
            return Some(first);
        }
        self.imported.get(&first).cloned()
    }

    /// The first library that a type mentions, arguments included: `Arc<ureq::Agent>`.
    fn of_type(&self, ty: &Type) -> Option<String> {
        struct Mentions<'n>(&'n Names, Option<String>);
        impl<'a> Visit<'a> for Mentions<'_> {
            fn visit_path(&mut self, path: &'a Path) {
                if self.1.is_none() {
                    self.1 = self.0.of_path(path);
                    visit::visit_path(self, path);
                }
            }
        }
        let mut mentions = Mentions(self, None);
        mentions.visit_type(ty);
        mentions.1
    }
}

impl<'a> Visit<'a> for Names {
    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        self.import(None, &item.tree);
    }

    fn visit_field(&mut self, field: &'a syn::Field) {
        if let (Some(name), Some(library)) = (&field.ident, self.of_type(&field.ty)) {
            self.fields.insert(name.to_string(), library);
        }
    }

    // What stands inside functions is theirs.
    fn visit_block(&mut self, _: &'a syn::Block) {}
}

/// Walks the functions.
struct Finder<'f> {
    file: &'f str,
    names: Names,
    /// The type of the `impl`, and the function in hand.
    within: Vec<String>,
    /// Variables of the function in hand: which library their values come from.
    locals: HashMap<String, String>,
    /// The expression in hand stands before `.await`.
    awaited: bool,
    depth: usize,
    found: Vec<CallSite>,
}

impl Finder<'_> {
    fn function(&mut self, attrs: &[Attribute], sig: &syn::Signature, walk: impl FnOnce(&mut Self)) {
        if attrs.iter().any(|attr| is(attr, "egress") || is(attr, "test")) {
            return;
        }
        let outer = std::mem::take(&mut self.locals);
        for input in &sig.inputs {
            if let FnArg::Typed(input) = input
                && let Some(library) = self.names.of_type(&input.ty)
            {
                self.bind(&input.pat, &library);
            }
        }
        self.within.push(sig.ident.to_string());
        walk(self);
        self.within.pop();
        self.locals = outer;
    }

    /// Notes where the values of a pattern's variables come from.
    fn bind(&mut self, pat: &Pat, library: &str) {
        struct Variables<'l>(&'l mut HashMap<String, String>, &'l str);
        impl<'a> Visit<'a> for Variables<'_> {
            fn visit_pat_ident(&mut self, pat: &'a syn::PatIdent) {
                self.0.insert(pat.ident.to_string(), self.1.to_owned());
            }
        }
        Variables(&mut self.locals, library).visit_pat(pat);
    }

    /// The library that a value comes from, told by the root of its expression.
    fn library_of(&self, expr: &Expr) -> Option<String> {
        let mut expr = expr;
        loop {
            expr = match expr {
                Expr::Path(path) => {
                    return match path.path.get_ident() {
                        Some(variable) => self.locals.get(&variable.to_string()).cloned(),
                        None => self.names.of_path(&path.path),
                    };
                }
                Expr::Field(field) => match &field.member {
                    syn::Member::Named(name) if self.names.fields.contains_key(&name.to_string()) => {
                        return self.names.fields.get(&name.to_string()).cloned();
                    }
                    _ => &field.base,
                },
                Expr::Struct(made) => return self.names.of_path(&made.path),
                Expr::Call(call) => &call.func,
                Expr::MethodCall(call) => &call.receiver,
                Expr::Await(inner) => &inner.base,
                Expr::Group(inner) => &inner.expr,
                Expr::Paren(inner) => &inner.expr,
                Expr::Reference(inner) => &inner.expr,
                Expr::Try(inner) => &inner.expr,
                Expr::Unary(inner) => &inner.expr,
                _ => return None,
            };
        }
    }

    fn note(&mut self, library: String, call: &Ident, span: Span) {
        if self.within.is_empty() {
            return;
        }
        self.found.push(CallSite {
            file: self.file.to_owned(),
            line: span.start().line,
            library,
            call: call.to_string(),
            function: self.within.join("::"),
        });
    }
}

impl<'a> Visit<'a> for Finder<'_> {
    fn visit_item(&mut self, item: &'a Item) {
        let attrs = match item {
            Item::Fn(item) => {
                return self.function(&item.attrs, &item.sig, |finder| visit::visit_item_fn(finder, item));
            }
            Item::Mod(item) => &item.attrs,
            Item::Impl(item) => {
                let name = match &*item.self_ty {
                    Type::Path(path) => path.path.segments.last().map(|last| last.ident.to_string()),
                    _ => None,
                };
                let depth = self.within.len();
                self.within.extend(name);
                visit::visit_item_impl(self, item);
                self.within.truncate(depth);
                return;
            }
            _ => return visit::visit_item(self, item),
        };
        if !attrs.iter().any(is_of_tests) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
        self.function(&item.attrs, &item.sig, |finder| visit::visit_impl_item_fn(finder, item));
    }

    fn visit_trait_item_fn(&mut self, item: &'a syn::TraitItemFn) {
        self.function(&item.attrs, &item.sig, |finder| {
            visit::visit_trait_item_fn(finder, item)
        });
    }

    fn visit_local(&mut self, local: &'a syn::Local) {
        visit::visit_local(self, local);
        let typed = match &local.pat {
            Pat::Type(pat) => self.names.of_type(&pat.ty),
            _ => None,
        };
        let library = typed.or_else(|| self.library_of(&local.init.as_ref()?.expr));
        if let Some(library) = library {
            self.bind(&local.pat, &library);
        }
    }

    fn visit_expr(&mut self, expr: &'a Expr) {
        if self.depth == MAX_DEPTH {
            return;
        }
        self.depth += 1;
        let awaited = std::mem::take(&mut self.awaited);
        match expr {
            Expr::Await(inner) => self.awaited = matches!(*inner.base, Expr::MethodCall(_)),
            Expr::MethodCall(call) => {
                if let Some(name) = self.library_of(&call.receiver)
                    && let Some(library) = Library::named(&name)
                    && (library.methods.iter().any(|method| call.method == method)
                        || (library.is_generated() && awaited))
                {
                    self.note(name, &call.method, call.method.span());
                }
            }
            Expr::Call(call) => {
                if let Expr::Path(path) = &*call.func
                    && let Some(name) = self.names.of_path(&path.path)
                    && let Some(library) = Library::named(&name)
                    && let Some(last) = path.path.segments.last()
                    && library.functions.iter().any(|function| last.ident == function)
                    // `reqwest::get`, not `reqwest::Client::get`.
                    && !path.path.segments.iter().any(|segment| is_type(&segment.ident))
                {
                    self.note(name, &last.ident, last.ident.span());
                }
            }
            _ => {}
        }
        visit::visit_expr(self, expr);
        self.awaited = false;
        self.depth -= 1;
    }
}

fn is(attr: &Attribute, name: &str) -> bool {
    attr.path().segments.last().is_some_and(|last| last.ident == name)
}

/// `#[cfg(test)]`.
fn is_of_tests(attr: &Attribute) -> bool {
    is(attr, "cfg") && attr.parse_args::<Ident>().is_ok_and(|condition| condition == "test")
}

fn is_type(name: &Ident) -> bool {
    name.to_string().starts_with(|c: char| c.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[track_caller]
    fn finds(source: &str, expected: &[(usize, &str, &str, &str)]) {
        let found = find("src/lib.rs", source).unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|site| (site.line, &*site.library, &*site.call, &*site.function))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn chains_variables_arguments_and_fields_tell_the_library() {
        finds(
            "use reqwest::{Client as Http, blocking};
            struct Mailer { http: std::sync::Arc<Http>, name: String }
            impl Mailer {
                async fn welcome(&self) {
                    self.http.post(\"x\").json(&1).send().await;
                    self.name.send();
                }
            }
            fn chained() { ureq::post(\"x\").header(\"a\", \"b\").send_json(1)?; }
            fn variable() { let agent = ureq::agent(); let request = agent.get(\"x\"); request.call(); }
            fn argument(client: &blocking::Client, tx: Sender) { client.get(\"x\").send(); tx.send(1); }
            async fn free() { reqwest::get(\"x\").await; reqwest::Client::get(1); }",
            &[
                (5, "reqwest", "send", "Mailer::welcome"),
                (9, "ureq", "send_json", "chained"),
                (10, "ureq", "call", "variable"),
                (11, "reqwest", "send", "argument"),
                (12, "reqwest", "get", "free"),
            ],
        );
    }

    #[test]
    fn generated_clients_and_cloud_services() {
        finds(
            "use tonic::transport::Channel;
            async fn greet(mut client: GreeterClient<Channel>) { client.clone(); client.hello(1).await; }
            async fn store(s3: &aws_sdk_s3::Client) { s3.put_object().bucket(\"b\").send().await; }
            fn mail(transport: &lettre::SmtpTransport) { transport.send(&1); }",
            &[
                (2, "tonic", "hello", "greet"),
                (3, "aws_sdk_s3", "send", "store"),
                (4, "lettre", "send", "mail"),
            ],
        );
    }

    #[test]
    fn egress_functions_and_tests_are_left_out() {
        finds(
            "#[egress(recipient = \"a\")] fn sent() { ureq::get(\"x\").call(); }
            struct C;
            impl C { #[provenance::egress] fn sent(&self) { let f = || ureq::get(\"x\").call(); } }
            #[test] fn tested() { ureq::get(\"x\").call(); }
            #[cfg(test)] mod tests { fn helper() { ureq::get(\"x\").call(); } }
            mod inner { fn seen() { let f = || ureq::get(\"x\").call(); } }",
            &[(6, "ureq", "call", "seen")],
        );
    }

    #[test]
    fn what_is_no_rust_is_an_error_with_its_line() {
        let error = find("src/lib.rs", "fn a() {}\nfn {").unwrap_err();
        assert!(error.starts_with("src/lib.rs:2: not read as Rust"), "{error}");
    }

    #[test]
    fn very_deep_expressions_are_passed_over() {
        let deep = format!(
            "fn f() {{ {}ureq::get(\"x\").call(){} }}",
            "(".repeat(100),
            ")".repeat(100)
        );
        finds(&deep, &[]);
    }
}
