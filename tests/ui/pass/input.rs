#![deny(warnings)]
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fmt::Display;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use axum::extract::{Form, Json, Path, Query, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use provenance::{Tracked, derived, provenance_input};

#[derive(Tracked, serde::Deserialize)]
struct Signup {
    #[tracked("contact.email")]
    email: String,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Plain {
    email: String,
}

/// Nothing can read it: a blind spot, not an error.
#[derive(serde::Deserialize)]
struct Unreadable {
    email: String,
}

struct NotClone(u32);

type App = Arc<String>;

#[provenance_input]
async fn signup(State(app): State<App>, Form(form): Form<Signup>) -> impl IntoResponse {
    (StatusCode::CREATED, format!("{app} {}", form.email))
}

#[provenance_input(purpose = "profile", basis = "contract", data_use = "essential", subject = "customer", name = "p")]
async fn profile(
    Path((id, name)): Path<(u64, String)>,
    Query(query): Query<HashMap<String, String>>,
    body: Result<Json<Plain>, axum::extract::rejection::JsonRejection>,
) -> Result<String, (StatusCode, String)> {
    let Json(body) = body.map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
    let n: u32 = query.get("n").map_or("0", |n| n).parse().map_err(|_| (StatusCode::BAD_REQUEST, "n".into()))?;
    Ok(format!("{id} {name} {n} {}", body.email))
}

#[provenance_input]
async fn unreadable(Json(body): Json<Unreadable>) -> String {
    body.email
}

#[provenance_input(crate = provenance)]
fn patterns(mut list: Vec<u32>, (a, mut b): (u32, NotClone), _: NotClone, NotClone(c): NotClone, r#type: &str) -> u32 {
    #![allow(clippy::needless_return)]
    list.push(a);
    b.0 += c;
    return list.len() as u32 + b.0 + r#type.len() as u32;
}

#[provenance_input]
fn generic<T: Display + ?Sized, F>(value: &T, f: F, #[cfg(any())] absent: Missing) -> Option<String>
where
    F: FnOnce(String) -> Option<String>,
{
    let text = f(value.to_string())?;
    Some(text)
}

#[provenance_input]
fn nothing() {}

#[provenance_input]
fn never(n: u32) -> ! {
    std::process::exit(n as i32)
}

#[provenance_input]
async fn never_async(n: u32) -> ! {
    std::process::exit(n as i32)
}

struct Service<'s> {
    prefix: &'s str,
    calls: u32,
}

impl<'s> Service<'s> {
    #[provenance_input(name = "Service::borrow")]
    fn borrow(&self, _key: &str) -> &'s str {
        self.prefix
    }

    #[provenance_input]
    async fn count(&mut self, by: &NotClone) -> Result<&str, Box<dyn std::error::Error + Send + Sync>> {
        self.calls += by.0;
        let _: u32 = "1".parse()?;
        if self.calls > 100 {
            return Err("too many".into());
        }
        Ok(self.prefix)
    }

    #[provenance_input]
    fn consume(self: Box<Self>, email: String) -> impl Iterator<Item = char> {
        let chars: Vec<char> = email.chars().collect();
        chars.into_iter()
    }

    #[provenance_input]
    fn future(&self, n: u32) -> impl Future<Output = u32> + Send {
        let calls = self.calls;
        async move { n + calls }
    }

    #[derived("score.credit", description = "Score", kind = "number", pii = true)]
    fn score(&self, income: f64) -> Result<f64, std::num::ParseFloatError> {
        let base: f64 = "1.5".parse()?;
        if income < 0.0 {
            return Ok(0.0);
        }
        Ok(base + income)
    }

    #[derived("score.credit")]
    async fn score_async(&mut self, NotClone(n): NotClone) -> Option<u32> {
        self.calls += "1".parse::<u32>().ok()?;
        Some(self.calls + n)
    }

    #[derived("score.credit")]
    fn counter<'a>(&'a mut self, others: &'a mut [u32]) -> Option<&'a mut u32> {
        match others.first_mut() {
            Some(0) => Some(&mut self.calls),
            other => other,
        }
    }

    #[derived("x.label")]
    fn label(&self, income: f64) -> impl Display + use<'s> {
        format!("{}{income}", self.prefix)
    }
}

trait Handler {
    #[provenance_input]
    fn by_default(&self, n: u32) -> u32 {
        n + 1
    }

    fn handle(&self, form: Signup) -> impl Future<Output = usize> + Send;

    fn boxed<'life0, 'async_trait>(
        &'life0 self,
        form: Signup,
    ) -> Pin<Box<dyn Future<Output = usize> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait;
}

impl Handler for Service<'_> {
    #[provenance_input]
    async fn handle(&self, form: Signup) -> usize {
        form.email.len() + self.prefix.len()
    }

    // What `#[async_trait]` makes of an `async fn`.
    #[provenance_input]
    #[derived("score.credit")]
    fn boxed<'life0, 'async_trait>(
        &'life0 self,
        form: Signup,
    ) -> Pin<Box<dyn Future<Output = usize> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move {
            if let Some(__ret) = None::<usize> {
                return __ret;
            }
            form.email.len() + self.prefix.len()
        })
    }
}

#[provenance_input]
#[derived("score.both")]
async fn both(Json(values): Json<HashMap<String, String>>, n: usize) -> usize {
    values.len() + n
}

#[derived("score.both")]
#[provenance_input]
fn both_sync((a, b): (u32, u32)) -> u32 {
    a + b
}

macro_rules! handlers {
    ($($name:ident: $ty:ty => $body:block)*) => {$(
        #[provenance_input]
        async fn $name(body: $ty) -> String $body
    )*};
}
handlers! {
    from_macro: String => { "macro".to_owned() }
}

fn ready<T>(future: impl Future<Output = T> + Send) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("pending"),
    }
}

fn main() {
    let _: axum::Router = axum::Router::new()
        .route("/signup", post(signup))
        .route("/profile/{id}/{name}", post(profile))
        .route("/unreadable", get(unreadable))
        .route("/macro", post(from_macro))
        .with_state(Arc::new("app".to_owned()));

    assert_eq!(patterns(vec![1], (2, NotClone(3)), NotClone(0), NotClone(4), "ab"), 11);
    assert_eq!(generic("a", |text| Some(text + "b")), Some("ab".to_owned()));
    nothing();
    let _: (fn(u32) -> !, _) = (never, never_async);

    let mut service = Service { prefix: "p", calls: 0 };
    assert_eq!(service.borrow("k"), "p");
    assert_eq!(ready(service.count(&NotClone(2))).unwrap(), "p");
    assert!(ready(service.count(&NotClone(200))).is_err());
    assert_eq!(ready(service.future(1)), 203);
    assert_eq!(service.score(1.0), Ok(2.5));
    assert_eq!(service.score(-1.0), Ok(0.0));
    assert_eq!(ready(service.score_async(NotClone(1))), Some(204));
    assert_eq!(service.counter(&mut [0]), Some(&mut 203));
    assert_eq!(service.counter(&mut [1]), Some(&mut 1));
    assert_eq!(service.label(1.0).to_string(), "p1");
    assert_eq!(service.by_default(1), 2);
    let form = || Signup { email: "ada".into() };
    assert_eq!(ready(service.handle(form())), 4);
    assert_eq!(ready(service.boxed(form())), 4);
    assert_eq!(Box::new(service).consume("ab".into()).count(), 2);

    assert_eq!(ready(both(Json(HashMap::new()), 1)), 1);
    assert_eq!(both_sync((1, 2)), 3);
    assert_eq!(ready(unreadable(Json(Unreadable { email: "a".into() }))), "a");
}
