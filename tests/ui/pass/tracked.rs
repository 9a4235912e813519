#![deny(warnings)]
#![forbid(unsafe_code)]
#![allow(dead_code)]

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::marker::PhantomData;
use std::net::Ipv4Addr;

use provenance::{Sink, Tracked, Value, Visitor};

struct Opaque;

#[derive(serde::Serialize)]
struct Point {
    x: i32,
    y: i32,
}

#[derive(Tracked)]
#[tracked(owner(email, account_id, id as "user"), purpose = "contract", name = "Person")]
struct Everything<'a, T: Clone, const N: usize>
where
    T: Send,
{
    id: i64,
    account_id: u32,
    #[tracked("contact.email", description = "Email \"address\"", kind = "email", pii = true, secret = false)]
    email: &'a str,
    #[tracked("personal.name")]
    name: Option<Cow<'a, str>>,
    #[tracked("financial.income", pii)]
    income: Vec<Option<f64>>,
    #[tracked("x.address")]
    shown: Ipv4Addr,
    #[tracked("x.address")]
    shown_optional: Option<Ipv4Addr>,
    #[tracked("x.address")]
    shown_changed: Option<Option<Ipv4Addr>>,
    #[tracked("x.address")]
    shown_many: Vec<Ipv4Addr>,
    #[tracked("x.place")]
    serialised: Point,
    #[tracked("x.labels")]
    map: BTreeMap<String, i32>,
    #[tracked("x.numbers")]
    array: [u8; N],
    #[tracked("x.generic")]
    generic: T,
    nested: Vec<Nested>,
    not_tracked: Opaque,
    marker: PhantomData<fn() -> T>,
    #[tracked(skip)]
    skipped: Opaque,
    #[cfg(any())]
    #[tracked]
    absent: Missing,
    r#type: bool,
}

#[derive(Tracked)]
struct Nested(#[tracked("contact.phone_number")] String, Opaque);

#[derive(Tracked)]
struct Unit;

#[derive(Tracked)]
enum Never {}

#[derive(Tracked)]
#[tracked(owner(email))]
enum Contact<T> {
    Mail {
        #[tracked("contact.email")]
        email: String,
        opaque: Opaque,
    },
    Phone(#[tracked("contact.phone_number")] String, T),
    Both(Nested, HashMap<String, Nested>),
    Nothing,
}

#[derive(Tracked)]
struct Page<I: Iterator>
where
    I::Item: Clone,
{
    #[tracked("x.items")]
    items: Vec<I::Item>,
    #[tracked(skip)]
    iterator: I,
}

#[derive(Default)]
struct Seen(Vec<String>);

impl Sink for Seen {
    fn begin(&mut self) {
        self.0.push("(".into());
    }
    fn end(&mut self) {
        self.0.push(")".into());
    }
    fn owner(&mut self, kind: &'static str, value: Value<'_>) {
        self.0.push(format!("{kind} = {}", text(value)));
    }
    fn declared(&mut self, field: &'static provenance::__private::Field, value: Value<'_>) {
        self.0.push(format!("{}: {} {}", field.name, field.category, text(value)));
    }
    fn keyed(&mut self, key: &str, value: Value<'_>) {
        self.0.push(format!("{key} -> {}", text(value)));
    }
    fn missed(&mut self, what: &'static str) {
        self.0.push(format!("missed {what}"));
    }
}

fn text(value: Value<'_>) -> String {
    match value {
        Value::Text(text) => text.to_owned(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
    }
}

fn seen(value: &impl Tracked) -> String {
    let mut seen = Seen::default();
    value.visit(&mut Visitor::new(&mut seen));
    seen.0.join("; ")
}

fn main() {
    let everything = Everything::<_, 2> {
        id: 7,
        account_id: 8,
        email: "ada@example.com",
        name: Some("Ada".into()),
        income: vec![Some(1.5), None, Some(2.0)],
        shown: Ipv4Addr::LOCALHOST,
        shown_optional: Some(Ipv4Addr::LOCALHOST),
        shown_changed: Some(Some(Ipv4Addr::LOCALHOST)),
        shown_many: vec![Ipv4Addr::LOCALHOST],
        serialised: Point { x: 1, y: 2 },
        map: BTreeMap::from([("a".to_owned(), 1)]),
        array: [3, 4],
        generic: "g",
        nested: vec![Nested("+44".into(), Opaque)],
        not_tracked: Opaque,
        marker: PhantomData,
        skipped: Opaque,
        r#type: true,
    };
    assert_eq!(
        seen(&everything),
        "(; email = ada@example.com; account = 8; user = 7; email: contact.email ada@example.com; \
         name: personal.name Ada; income: financial.income 1.5; income: financial.income 2; \
         shown: x.address 127.0.0.1; shown_optional: x.address 127.0.0.1; \
         shown_changed: x.address 127.0.0.1; shown_many: x.address 127.0.0.1; \
         serialised: x.place 1; serialised: x.place 2; map: x.labels 1; array: x.numbers 3; array: x.numbers 4; \
         generic: x.generic g; (; 0: contact.phone_number +44; ); )"
    );
    let mail = Contact::<i32>::Mail { email: "ada@example.com".into(), opaque: Opaque };
    assert_eq!(seen(&mail), "(; email = ada@example.com; email: contact.email ada@example.com; )");
    assert_eq!(seen(&Contact::Phone("+44".into(), 7)), "(; 0: contact.phone_number +44; )");
    let both = Contact::<i32>::Both(
        Nested("1".into(), Opaque),
        HashMap::from([("k".to_owned(), Nested("2".into(), Opaque))]),
    );
    assert_eq!(
        seen(&both),
        "(; (; 0: contact.phone_number 1; ); (; 0: contact.phone_number 2; ); )"
    );
    assert_eq!(seen(&Contact::<i32>::Nothing), "(; )");
    assert_eq!(seen(&Unit), "(; )");
    assert_eq!(
        seen(&Page { items: vec![1, 2], iterator: [1].into_iter() }),
        "(; items: x.items 1; items: x.items 2; )"
    );
}
