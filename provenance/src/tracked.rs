//! The trait that every hook reads values through.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::BuildHasher;
use std::rc::Rc;
use std::sync::Arc;

use crate::allow::Policy;

/// How deep a value is followed into nested containers; what lies deeper is counted, not visited.
pub(crate) const MAX_DEPTH: u8 = 32;

/// A value whose tracked parts can be visited.
///
/// Derive it (`#[derive(Tracked)]`); `#[tracked_model]` implements it too. Implement it by
/// hand for a type of your own that stands for one value:
///
/// ```
/// use provenance::{Tracked, Value, Visitor};
/// struct Iban(String);
/// impl Tracked for Iban {
///     fn visit(&self, visitor: &mut Visitor<'_>) {
///         visitor.value(Value::Text(&self.0));
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be tracked",
    label = "no `Tracked` here",
    note = "add `#[derive(provenance::Tracked)]` to the type, or `#[tracked(skip)]` to the field"
)]
pub trait Tracked {
    /// Hands every tracked value inside `self` to the visitor.
    fn visit(&self, visitor: &mut Visitor<'_>);

    /// Asks every declared field whether `P` lets it leave. Derives write it; it is never called:
    /// the compiler answers.
    #[doc(hidden)]
    fn may_leave<P: Policy>()
    where
        Self: Sized,
    {
    }
}

/// What `#[tracked(..)]` says about a field.
#[derive(Debug, PartialEq, Eq)]
pub struct Field {
    /// Field or column name.
    pub name: &'static str,
    /// Category as written, `contact.email`.
    pub category: &'static str,
    /// Description in the user's words, or the empty string.
    pub description: &'static str,
    /// `text`, `email`, `phone`, `number`, `date` or `id`; `None` leaves it to the category.
    pub kind: Option<&'static str>,
    /// Whether this is personal data; `None` means yes.
    pub pii: Option<bool>,
    /// Whether the value is a secret; `None` leaves it to the category and the name.
    pub secret: Option<bool>,
}

/// One value, as it stands in the program.
///
/// Its `Debug` shows the type alone: a value must not end up in a log.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    /// Text of any kind.
    Text(&'a str),
    /// A whole number.
    Integer(i128),
    /// A binary floating-point number.
    Float(f64),
    /// A truth value.
    Bool(bool),
}

impl std::fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Value::Text(_) => "Text(..)",
            Value::Integer(_) => "Integer(..)",
            Value::Float(_) => "Float(..)",
            Value::Bool(_) => "Bool(..)",
        })
    }
}

/// Receives what a visit meets. Implemented inside this crate, by the hooks.
pub trait Sink {
    /// A record (struct or model) begins; owners named until [`Sink::end`] are its owners.
    fn begin(&mut self) {}
    /// The record ends.
    fn end(&mut self) {}
    /// The record in hand says whose it is: `kind` such as `email` or `user`.
    fn owner(&mut self, kind: &'static str, value: Value<'_>) {
        let _ = (kind, value);
    }
    /// A value under a declared field.
    fn declared(&mut self, field: &'static Field, value: Value<'_>);
    /// A value under a key that is known only at run time (a map's key, a JSON member).
    fn keyed(&mut self, key: &str, value: Value<'_>) {
        let _ = (key, value);
    }
    /// Something that could not be visited: too deep, no name to go by, or a type without `Tracked`.
    fn missed(&mut self, what: &'static str) {
        let _ = what;
    }
}

#[derive(Clone, Copy)]
enum Name<'v> {
    Declared(&'static Field),
    Key(&'v str),
    Owner(&'static str),
    Untracked,
    None,
}

/// Walks a value and reports to a hook. Generated code and hand-written [`Tracked`]
/// implementations call it; it never panics and follows at most 32 levels.
pub struct Visitor<'v> {
    sink: &'v mut dyn Sink,
    name: Name<'v>,
    depth: u8,
}

impl<'v> Visitor<'v> {
    /// A visitor that reports to `sink`.
    #[doc(hidden)]
    pub fn new(sink: &'v mut dyn Sink) -> Self {
        Visitor {
            sink,
            name: Name::None,
            depth: 0,
        }
    }

    fn deeper(&mut self, name: Name<'_>, visit: impl FnOnce(&mut Visitor<'_>)) {
        if self.depth >= MAX_DEPTH {
            self.sink.missed("nested too deep");
            return;
        }
        visit(&mut Visitor {
            sink: &mut *self.sink,
            name,
            depth: self.depth + 1,
        });
    }

    /// One record: what `visit` meets belongs to the owners it names.
    pub fn record(&mut self, visit: impl FnOnce(&mut Visitor<'_>)) {
        self.sink.begin();
        self.deeper(Name::None, visit);
        self.sink.end();
    }

    /// A declared field: values that `visit` meets directly are recorded under it.
    pub fn field(&mut self, field: &'static Field, visit: impl FnOnce(&mut Visitor<'_>)) {
        self.deeper(Name::Declared(field), visit);
    }

    /// A member known by its key at run time.
    pub fn entry(&mut self, key: &str, visit: impl FnOnce(&mut Visitor<'_>)) {
        match self.name {
            // A map under a declared field: every value in it is of that field.
            Name::Declared(field) => self.deeper(Name::Declared(field), visit),
            Name::Owner(_) => {}
            Name::Key(_) | Name::Untracked | Name::None => self.deeper(Name::Key(key), visit),
        }
    }

    /// A field without `#[tracked]`: plain values in it are passed over, records and keyed
    /// members inside it are still met.
    pub fn untracked(&mut self, visit: impl FnOnce(&mut Visitor<'_>)) {
        self.deeper(Name::Untracked, visit);
    }

    /// The value that `visit` meets says whose record this is.
    pub fn owner(&mut self, kind: &'static str, visit: impl FnOnce(&mut Visitor<'_>)) {
        self.deeper(Name::Owner(kind), visit);
    }

    /// One value, under the field, key or owner in hand.
    pub fn value(&mut self, value: Value<'_>) {
        match self.name {
            Name::Declared(field) => self.sink.declared(field, value),
            Name::Key(key) => self.sink.keyed(key, value),
            Name::Owner(kind) => self.sink.owner(kind, value),
            Name::Untracked => {}
            Name::None => self.sink.missed("a value without a name"),
        }
    }

    /// Every element of a sequence, under the name in hand.
    pub fn elements<'t, T: Tracked + ?Sized + 't>(&mut self, elements: impl IntoIterator<Item = &'t T>) {
        if self.depth >= MAX_DEPTH {
            self.sink.missed("nested too deep");
            return;
        }
        for element in elements {
            element.visit(&mut Visitor {
                sink: &mut *self.sink,
                name: self.name,
                depth: self.depth + 1,
            });
        }
    }

    /// Something here that cannot be visited; `what` names a type or a reason, never a value.
    pub fn missed(&mut self, what: &'static str) {
        self.sink.missed(what);
    }
}

macro_rules! text {
    ($($ty:ty),*) => {$(
        impl Tracked for $ty {
            fn visit(&self, visitor: &mut Visitor<'_>) {
                visitor.value(Value::Text(self));
            }
        }
    )*};
}
text!(str, String, Cow<'_, str>);

macro_rules! integer {
    ($($ty:ty),*) => {$(
        impl Tracked for $ty {
            fn visit(&self, visitor: &mut Visitor<'_>) {
                match i128::try_from(*self) {
                    Ok(value) => visitor.value(Value::Integer(value)),
                    Err(_) => visitor.value(Value::Text(&self.to_string())),
                }
            }
        }
    )*};
}
integer!(i8, i16, i32, i64, i128, isize, u8, u16, u32, u64, u128, usize);

impl Tracked for f64 {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.value(Value::Float(*self));
    }
}

impl Tracked for f32 {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        // Through text: 4200.1_f32 is 4200.1 to its user, not 4200.10009765625.
        visitor.value(Value::Float(self.to_string().parse().unwrap_or(f64::from(*self))));
    }
}

impl Tracked for bool {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.value(Value::Bool(*self));
    }
}

impl Tracked for char {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.value(Value::Text(self.encode_utf8(&mut [0; 4])));
    }
}

impl Tracked for () {
    fn visit(&self, _: &mut Visitor<'_>) {}
}

macro_rules! pointer {
    ($($ty:ty),*) => {$(
        impl<T: Tracked + ?Sized> Tracked for $ty {
            fn visit(&self, visitor: &mut Visitor<'_>) {
                (**self).visit(visitor);
            }
        }
    )*};
}
pointer!(&T, &mut T, Box<T>, Rc<T>, Arc<T>);

impl<T: Tracked> Tracked for Option<T> {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        if let Some(value) = self {
            value.visit(visitor);
        }
    }
}

impl<T: Tracked, E> Tracked for Result<T, E> {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        if let Ok(value) = self {
            value.visit(visitor);
        }
    }
}

impl<T: Tracked, const N: usize> Tracked for [T; N] {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.elements(self);
    }
}

macro_rules! sequence {
    ($($ty:ty),*) => {$(
        impl<T: Tracked> Tracked for $ty {
            fn visit(&self, visitor: &mut Visitor<'_>) {
                visitor.elements(self);
            }
        }
    )*};
}
sequence!([T], Vec<T>, VecDeque<T>, BTreeSet<T>);

impl<T: Tracked, S: BuildHasher> Tracked for HashSet<T, S> {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.elements(self);
    }
}

impl<K: AsRef<str>, V: Tracked> Tracked for BTreeMap<K, V> {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        for (key, value) in self {
            visitor.entry(key.as_ref(), |v| value.visit(v));
        }
    }
}

impl<K: AsRef<str>, V: Tracked, S: BuildHasher> Tracked for HashMap<K, V, S> {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        for (key, value) in self {
            visitor.entry(key.as_ref(), |v| value.visit(v));
        }
    }
}

macro_rules! tuple {
    ($($name:ident . $index:tt),+) => {
        impl<$($name: Tracked),+> Tracked for ($($name,)+) {
            fn visit(&self, visitor: &mut Visitor<'_>) {
                $(visitor.elements([&self.$index]);)+
            }
        }
    };
}
tuple!(A.0);
tuple!(A.0, B.1);
tuple!(A.0, B.1, C.2);
tuple!(A.0, B.1, C.2, D.3);

#[cfg(feature = "runtime")]
impl Tracked for serde_json::Value {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        use serde_json::Value as Json;
        match self {
            Json::Null => {}
            Json::Bool(value) => value.visit(visitor),
            Json::Number(number) => match (number.as_i128(), number.as_f64()) {
                (Some(value), _) => visitor.value(Value::Integer(value)),
                (None, Some(value)) => visitor.value(Value::Float(value)),
                (None, None) => visitor.missed("a number out of range"),
            },
            Json::String(text) => text.visit(visitor),
            Json::Array(elements) => visitor.elements(elements),
            Json::Object(members) => {
                for (key, value) in members {
                    visitor.entry(key, |v| value.visit(v));
                }
            }
        }
    }
}
