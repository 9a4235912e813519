//! What `allow(..)` lets through compiles, whatever the shape of the types.
#![deny(warnings)]
#![allow(dead_code)]

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use provenance::{Tracked, egress};

/// Types that contain each other.
#[derive(Tracked)]
struct Post<'a, T: ?Sized> {
    #[tracked("contact.email")]
    by: &'a str,
    comments: Vec<Comment>,
    answers: Option<Box<Post<'a, T>>>,
    plan: Plan,
    more: &'a T,
}

#[derive(Tracked)]
struct Comment {
    #[tracked("contact.email")]
    by: String,
    on: Vec<Arc<Post<'static, str>>>,
}

/// Not tracked at all.
struct Plan;

#[derive(Tracked)]
enum Either<A, B: Iterator<Item = A>> {
    A(A),
    B(B::Item, #[tracked("x.words")] Cow<'static, str>, HashMap<String, [A; 2]>),
}

#[derive(Tracked, Clone)]
#[tracked(owner(email))]
struct Reader<'a> {
    #[tracked("user.contact.email")]
    email: &'a str,
    #[tracked(skip)]
    secret: Unlisted,
}

#[derive(Tracked, Clone)]
struct Unlisted {
    #[tracked("health.note")]
    note: (),
}

type Listed<'a> = Vec<Reader<'a>>;

#[egress(recipient = "a", allow("contact.email", "x.words"))]
fn free(#[payload] post: &Post<'_, str>, #[payload] either: Either<Comment, std::vec::IntoIter<Comment>>, plan: u8) {
    drop((post, either, plan));
}

#[egress(recipient = "b", allow("contact"))]
async fn readers<'a>(#[payload] readers: Listed<'a>, #[payload] one: Option<&mut Reader<'a>>) {
    drop((readers, one));
}

/// Nothing stands in the way of a payload without declarations.
#[egress(recipient = "c", allow())]
fn undeclared(#[payload] text: &str, #[payload] any: &dyn std::any::Any, #[payload] (a, b): (u8, Plan)) {
    drop((text, any, a, b));
}

struct Client<T>(T);

impl<Payload: Tracked + Clone> Client<Payload> {
    #[egress(recipient = "d", allow("contact.email"))]
    fn publish(#[payload] payload: &Payload) -> Self {
        Client(payload.clone())
    }

    #[egress(recipient = "d", allow("contact.email"))]
    fn each(&self, #[payload] payloads: impl Iterator<Item = Payload>, #[payload] last: &impl Tracked) -> usize {
        let _ = last;
        payloads.count()
    }
}

/// Without `allow(..)`, nothing is forbidden.
#[egress(recipient = "e")]
fn anything(#[payload] unlisted: &Unlisted) {
    let _ = unlisted;
}

/// A trait object is still one.
fn object(message: &dyn Tracked) -> &dyn Tracked {
    message
}

fn main() {
    let reader = Reader {
        email: "",
        secret: Unlisted { note: () },
    };
    let client = Client::publish(&reader);
    client.each(std::iter::empty(), &reader);
    undeclared("", &(), (0, Plan));
    anything(&client.0.secret);
    object(&reader);
    let _ = readers(Vec::new(), None);
    let more = "";
    let post = Post {
        by: "",
        comments: Vec::new(),
        answers: None,
        plan: Plan,
        more,
    };
    free(&post, Either::A(Comment { by: String::new(), on: Vec::new() }), 0);
}
