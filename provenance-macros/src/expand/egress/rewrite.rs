//! Calls in a function's body that could be a client's get a hook that the receiver's type
//! decides on: see `provenance/src/hooks/egress/frame.rs`.
//!
//! Left alone: calls on what a closure or future borrows from outside (the hook would move it there), calls
//! with a turbofish or closures for arguments, calls that are awaited and of a name that only synchronous
//! clients have, receivers that are a field of a temporary, an index or a macro, arguments of macros, nested
//! items, and fully qualified calls.

use std::collections::HashSet;

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote_spanned};
use syn::parse::Parser;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::visit_mut::{self, VisitMut};
use syn::{Block, Expr, ExprCall, ExprMethodCall, Item, Local, LocalInit, Member, PatIdent, Path, parse_quote_spanned};

/// The static that every function under `#[egress]` has.
pub(super) fn site_ident() -> Ident {
    Ident::new("__PROVENANCE_EGRESS_SITE", Span::mixed_site())
}

/// A body with its calls rewritten.
pub(super) struct Rewritten {
    pub(super) body: TokenStream,
    /// Some of them could be sends.
    pub(super) sends: bool,
    /// Some are in closures and futures that may run where the function's frame is not known.
    pub(super) loose: bool,
}

/// Rewrites a function's body.
///
/// # Errors
/// It does not parse.
pub(super) fn rewrite(krate: &Path, frame: &Ident, body: TokenStream) -> syn::Result<Rewritten> {
    let mut statements = Block::parse_within.parse2(body)?;
    let mut rewriter = Rewriter {
        krate,
        frame,
        holder: Holder::Frame,
        sends: false,
        loose: false,
        touched: false,
        own: None,
    };
    statements
        .iter_mut()
        .for_each(|statement| rewriter.visit_stmt_mut(statement));
    let mut tokens = TokenStream::new();
    statements.iter().for_each(|statement| statement.to_tokens(&mut tokens));
    Ok(Rewritten {
        body: tokens,
        sends: rewriter.sends,
        loose: rewriter.loose,
    })
}

/// Where the code in hand finds the frame.
#[derive(Clone, Copy, PartialEq)]
enum Holder {
    /// In the variable: the body itself, and closures and futures that own a clone.
    Frame,
    /// By the site: closures that borrow, so that they need not outlive more than they did.
    Site,
}

struct Rewriter<'a> {
    krate: &'a Path,
    frame: &'a Ident,
    holder: Holder,
    sends: bool,
    loose: bool,
    /// Something was rewritten since this was last reset.
    touched: bool,
    /// The variables of the closure or future in hand, if what it has from outside must not be named by value.
    own: Option<HashSet<Ident>>,
}

/// What a method could be.
#[derive(Clone, Copy, PartialEq)]
enum Method {
    /// Sends the request that the receiver is, with the body that is its argument.
    Send,
    /// Sends the request that the receiver is, with its body.
    Built,
    /// Runs the request that is its argument.
    Run,
    /// As `Run`, now or later.
    Execute,
    /// Adds query parameters.
    Query,
}

impl Method {
    fn of(call: &ExprMethodCall) -> Option<Self> {
        if call.turbofish.is_some() || call.args.iter().any(|arg| matches!(arg, Expr::Closure(_))) {
            return None;
        }
        Some(match (call.method.to_string().as_str(), call.args.len()) {
            ("call" | "send_empty", 0) | ("send" | "send_json" | "send_form", 1) => Method::Send,
            ("send", 0) if cfg!(feature = "reqwest") => Method::Built,
            ("run", 1) => Method::Run,
            // What is passed by reference is a connection, or a statement for one.
            ("execute", 1)
                if cfg!(feature = "reqwest") && !call.args.iter().any(|arg| matches!(arg, Expr::Reference(_))) =>
            {
                Method::Execute
            }
            ("query" | "query_raw", 2) | ("query_pairs" | "query_pairs_raw", 1) => Method::Query,
            _ => return None,
        })
    }

    /// The hooks for a receiver of its own, and for a place.
    fn hooks(self) -> (&'static str, &'static str) {
        match self {
            Method::Send => ("__hook", "__pick"),
            Method::Built => ("__built", "__pick_built"),
            Method::Run => ("__run", "__pick_run"),
            Method::Execute => ("__execute", "__pick_execute"),
            Method::Query => ("__query", "__query"),
        }
    }

    /// Whether a client has it whose calls may be awaited.
    fn may_be_async(self) -> bool {
        matches!(self, Method::Built | Method::Execute)
    }
}

impl VisitMut for Rewriter<'_> {
    fn visit_item_mut(&mut self, _: &mut Item) {}

    fn visit_local_mut(&mut self, local: &mut Local) {
        // Where nothing else tells, the compiler tells by the body how often a closure may be called.
        match &mut local.init {
            Some(LocalInit { expr, .. }) if matches!(**expr, Expr::Closure(_)) => {
                let own = self.own.replace(variables(expr));
                self.visit_expr_mut(expr);
                self.own = own;
            }
            _ => visit_mut::visit_local_mut(self, local),
        }
    }

    fn visit_expr_mut(&mut self, expr: &mut Expr) {
        match expr {
            Expr::Closure(closure) if closure.capture.is_some() && closure.asyncness.is_none() => {
                self.visit_owner(expr);
            }
            Expr::Async(future) if future.capture.is_some() => {
                self.visit_owner(expr);
            }
            Expr::Closure(_) | Expr::Async(_) => {
                let outside = std::mem::replace(&mut self.holder, Holder::Site);
                let own = self.own.replace(variables(expr));
                visit_mut::visit_expr_mut(self, expr);
                self.holder = outside;
                self.own = own;
            }
            Expr::Const(_) => {}
            Expr::Await(awaited) => match &mut *awaited.base {
                Expr::MethodCall(call) => {
                    self.visit_operands(call);
                    if Method::of(call).is_some_and(Method::may_be_async)
                        && let Some(rewritten) = self.rewritten(call, true)
                    {
                        *expr = rewritten;
                    }
                }
                base => self.visit_expr_mut(base),
            },
            Expr::Call(call) => {
                self.visit_expr_mut(&mut call.func);
                call.args.iter_mut().for_each(|arg| self.visit_argument(arg));
                if let Some(rewritten) = self.rewritten_function(call) {
                    *expr = rewritten;
                }
            }
            Expr::MethodCall(call) => {
                self.visit_operands(call);
                // A future may borrow from its arguments: in an arm of a `match` they would end too early.
                let may_outlive = Method::of(call).is_some_and(Method::may_be_async) && borrows(call);
                if (!may_outlive || is_value(&call.receiver))
                    && let Some(rewritten) = self.rewritten(call, false)
                {
                    *expr = rewritten;
                }
            }
            _ => visit_mut::visit_expr_mut(self, expr),
        }
    }
}

impl Rewriter<'_> {
    fn visit_operands(&mut self, call: &mut ExprMethodCall) {
        self.visit_expr_mut(&mut call.receiver);
        call.args.iter_mut().for_each(|arg| self.visit_argument(arg));
    }

    /// A closure or future that owns what it captures gets a clone of the frame.
    fn visit_owner(&mut self, expr: &mut Expr) {
        let outside = std::mem::replace(&mut self.holder, Holder::Frame);
        let touched = std::mem::replace(&mut self.touched, false);
        visit_mut::visit_expr_mut(self, expr);
        self.holder = outside;
        if self.touched {
            let (frame, holder) = (self.frame, self.holder());
            let here = Span::mixed_site();
            *expr = parse_quote_spanned!(here=> { let #frame = ::core::clone::Clone::clone(#holder); #expr });
        }
        self.touched |= touched;
    }

    /// An argument outlives its own expression: a call in it that borrows temporaries is left
    /// alone, for in an arm of a `match` they would end too early.
    fn visit_argument(&mut self, arg: &mut Expr) {
        match arg {
            Expr::MethodCall(call) if Method::of(call).is_some() && is_place(&call.receiver) && borrows(call) => {
                visit_mut::visit_expr_method_call_mut(self, call);
            }
            _ => self.visit_expr_mut(arg),
        }
    }

    /// The call with its hook: in place, or as what stands for it. `awaited`: an `.await` follows, and becomes
    /// part of what is given back.
    fn rewritten(&mut self, call: &mut ExprMethodCall, awaited: bool) -> Option<Expr> {
        let method = Method::of(call)?;
        let (krate, holder) = (self.krate, self.holder());
        let span = Span::mixed_site().located_at(call.method.span());
        let (hook, pick) = method.hooks();
        if is_value(&call.receiver) {
            let hook = Ident::new(hook, span);
            let receiver = &call.receiver;
            *call.receiver = parse_quote_spanned!(span=> #krate::__private::egress::Wrap(#receiver).#hook(#holder));
            self.seen(method);
            return None;
        }
        if method == Method::Query || !is_place(&call.receiver) {
            return None;
        }
        let moves = matches!(method, Method::Send | Method::Built);
        let named = |own: &HashSet<Ident>| root(&call.receiver).is_some_and(|root| own.contains(root));
        if moves && self.own.as_ref().is_some_and(|own| !named(own)) {
            return None;
        }
        self.seen(method);
        let pick = Ident::new(pick, span);
        let (place, name, args) = (&call.receiver, &call.method, &call.args);
        let sender = match method {
            Method::Execute => quote_spanned!(span=> client.hook(#holder)),
            Method::Run => quote_spanned!(span=> client.hook(#holder, &#place)),
            Method::Send | Method::Built | Method::Query => quote_spanned!(span=> client.hook(#holder, #place)),
        };
        let (dot_await, other) = match (method.may_be_async(), awaited) {
            (true, true) => (quote_spanned!(span=> .await), quote_spanned!(span=> #call.await)),
            // A client's future is another type than the hook's: what never happens takes on either.
            (true, false) => (TokenStream::new(), quote_spanned!(span=> other.keep(#call))),
            (false, _) => (TokenStream::new(), call.to_token_stream()),
        };
        let bound = match (method.may_be_async(), awaited) {
            (true, false) => quote_spanned!(span=> other),
            _ => quote_spanned!(span=> _),
        };
        Some(parse_quote_spanned! {span=>
            // The block ends its temporaries, which an `.await` in the arguments must not meet.
            (match { let pick = #krate::__private::egress::Wrap(&#place).#pick(#holder); pick } {
                #[allow(unreachable_code, clippy::all)]
                #krate::__private::egress::Pick::Client(client) => {
                    client.go();
                    #sender.#name(#args) #dot_await
                }
                #krate::__private::egress::Pick::Other(#bound) => #other,
            })
        })
    }

    /// `ureq::run(request)`: the one function of a client that sends a request it is given.
    fn rewritten_function(&mut self, call: &ExprCall) -> Option<Expr> {
        let Expr::Path(path) = &*call.func else { return None };
        let segments: Vec<String> = path.path.segments.iter().map(|s| s.ident.to_string()).collect();
        let known = segments == ["ureq", "run"] && path.qself.is_none();
        let plain = path.path.segments.iter().all(|segment| segment.arguments.is_none());
        let (true, true, Some(request), 1) = (known, plain, call.args.first(), call.args.len()) else {
            return None;
        };
        let (krate, holder, function) = (self.krate, self.holder(), &call.func);
        let span = Span::mixed_site().located_at(call.func.span());
        self.seen(Method::Run);
        Some(parse_quote_spanned! {span=>
            #krate::__private::egress::Wrap(#request).__through(#holder, |request| #function(request))
        })
    }

    fn seen(&mut self, method: Method) {
        self.touched = true;
        self.sends |= method != Method::Query;
        self.loose |= self.holder == Holder::Site;
    }

    /// An expression of type `&Frame`.
    fn holder(&self) -> TokenStream {
        let (krate, frame, site) = (self.krate, self.frame, site_ident());
        let here = Span::mixed_site();
        match self.holder {
            Holder::Frame => quote_spanned!(here=> &#frame),
            Holder::Site => quote_spanned!(here=> &#krate::__private::egress::Frame::current(&#site)),
        }
    }
}

/// A variable, or a field of one: it must not be moved unless the call would.
fn is_place(expr: &Expr) -> bool {
    match expr {
        Expr::Path(path) => path.qself.is_none(),
        Expr::Field(field) => matches!(field.member, Member::Named(_) | Member::Unnamed(_)) && is_place(&field.base),
        Expr::Paren(paren) => is_place(&paren.expr),
        Expr::Group(group) => is_place(&group.expr),
        _ => false,
    }
}

/// The variable of a place; `None` for the path of a static or constant.
fn root(place: &Expr) -> Option<&Ident> {
    match place {
        Expr::Path(path) => path.path.get_ident(),
        Expr::Field(field) => root(&field.base),
        Expr::Paren(paren) => root(&paren.expr),
        Expr::Group(group) => root(&group.expr),
        _ => None,
    }
}

/// The names that the patterns in an expression bind.
fn variables(expr: &Expr) -> HashSet<Ident> {
    struct Finder(HashSet<Ident>);
    impl<'ast> Visit<'ast> for Finder {
        fn visit_pat_ident(&mut self, pat: &'ast PatIdent) {
            self.0.insert(pat.ident.clone());
            visit::visit_pat_ident(self, pat);
        }
    }
    let mut finder = Finder(HashSet::new());
    finder.visit_expr(expr);
    finder.0
}

/// An expression that gives a value of its own.
fn is_value(expr: &Expr) -> bool {
    match expr {
        Expr::Call(_) | Expr::MethodCall(_) | Expr::Await(_) | Expr::Try(_) | Expr::Reference(_) | Expr::Match(_) => {
            true
        }
        Expr::Paren(paren) => is_value(&paren.expr),
        Expr::Group(group) => is_value(&group.expr),
        _ => false,
    }
}

/// Whether an argument may borrow from a value that only lives as long as the call.
fn borrows(call: &ExprMethodCall) -> bool {
    struct Finder(bool);
    impl<'ast> Visit<'ast> for Finder {
        fn visit_expr(&mut self, expr: &'ast Expr) {
            let owner = match expr {
                Expr::Reference(reference) => Some(&*reference.expr),
                Expr::MethodCall(call) => Some(&*call.receiver),
                _ => None,
            };
            self.0 |= owner.is_some_and(|owner| !is_place(owner) && !matches!(owner, Expr::Lit(_)));
            visit::visit_expr(self, expr);
        }
    }
    let mut finder = Finder(false);
    call.args.iter().for_each(|arg| finder.visit_expr(arg));
    finder.0
}
