//! How generated code asks, without specialisation, what a value can do.
//!
//! `(&&&&&Probe(&value)).visit_as_field(visitor)`: method resolution takes references off one
//! by one, so an implementation for more references is tried first. Each ladder below is one
//! method name with its rungs, the best first.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Display, Write};
use std::marker::PhantomData;
use std::ops::Deref;

use serde::Serialize;

use self::depth::{Flat, Nested};
use self::walk::walk;
use crate::tracked::{Tracked, Value, Visitor};

mod walk;

/// A value to be asked. Also in scope of every probe: nothing else is public here but traits.
pub struct Probe<'a, T: ?Sized>(pub &'a T);

/// A container around the value that is of interest, such as `axum::Form`.
pub trait Inner {
    /// What it contains.
    type Inner: ?Sized;
    /// The content, if there is any.
    fn inner(&self) -> Option<&Self::Inner>;
}

impl<W: Inner> Inner for Option<W> {
    type Inner = W::Inner;
    fn inner(&self) -> Option<&Self::Inner> {
        self.as_ref()?.inner()
    }
}

impl<W: Inner, E> Inner for Result<W, E> {
    type Inner = W::Inner;
    fn inner(&self) -> Option<&Self::Inner> {
        self.as_ref().ok()?.inner()
    }
}

/// What an extractor of any framework dereferences to, such as the `Signup` in an `Option<Form<Signup>>`.
///
/// Asked only of arguments whose type is written as an extractor's: shared state dereferences too.
pub trait Reach<Depth> {
    /// What it contains.
    type Target: ?Sized;
    /// The content, if there is any.
    fn reach(&self) -> Option<&Self::Target>;
}

impl<T: Deref + ?Sized> Reach<Flat> for T {
    type Target = T::Target;
    fn reach(&self) -> Option<&T::Target> {
        Some(self)
    }
}

impl<Depth, T: Reach<Depth>> Reach<Nested<Depth>> for Option<T> {
    type Target = T::Target;
    fn reach(&self) -> Option<&T::Target> {
        self.as_ref()?.reach()
    }
}

impl<Depth, T: Reach<Depth>, E> Reach<Nested<Depth>> for Result<T, E> {
    type Target = T::Target;
    fn reach(&self) -> Option<&T::Target> {
        self.as_ref().ok()?.reach()
    }
}

/// What a tracked field must be able to do. Nothing implements it: it carries the message.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be tracked",
    label = "this is neither `Tracked` nor `Display` nor `Serialize`",
    note = "add `#[derive(provenance::Tracked)]` to the type, implement `provenance::Tracked` by hand, or leave a \
            field out with `#[tracked(skip)]`"
)]
pub trait Readable {}

/// Containers of [`Display`] values, common around types of other crates: `Option<NaiveDate>`.
/// `Depth` keeps containers of values apart from containers of containers.
pub trait Displayed<Depth> {
    /// Shows every element.
    fn show(&self, visitor: &mut Visitor<'_>);
}

// Not here, where every probe would see them.
mod depth {
    /// The depth of a container of values.
    pub struct Flat;

    /// The depth of a container of containers, such as `Option<Option<NaiveDate>>`.
    pub struct Nested<Depth>(Depth);
}

macro_rules! displayed {
    ($([$($generics:tt)*] $container:ty: $elements:ident;)+) => {$(
        impl<T: Display, $($generics)*> Displayed<Flat> for $container {
            fn show(&self, visitor: &mut Visitor<'_>) {
                self.$elements().for_each(|value| display(value, visitor));
            }
        }
        impl<Depth, T: Displayed<Depth>, $($generics)*> Displayed<Nested<Depth>> for $container {
            fn show(&self, visitor: &mut Visitor<'_>) {
                self.$elements().for_each(|inner| inner.show(visitor));
            }
        }
    )+};
}

displayed! {
    [] Option<T>: iter;
    [E] Result<T, E>: iter;
    [] [T]: iter;
    [const N: usize] [T; N]: iter;
    [] Vec<T>: iter;
    [K] BTreeMap<K, T>: values;
    [K, S] HashMap<K, T, S>: values;
}

impl<Depth, T: Displayed<Depth> + ?Sized> Displayed<Depth> for &T {
    fn show(&self, visitor: &mut Visitor<'_>) {
        (**self).show(visitor);
    }
}

/// Writes a trait and its one implementation for each rung.
macro_rules! ladder {
    ($method:ident { $($rung:ident: [$($refs:tt)*] $(($($bound:tt)+))? => $visit:expr;)+ }) => {$(
        #[doc(hidden)]
        pub trait $rung {
            fn $method(&self, visitor: &mut Visitor<'_>);
        }
        impl<T: ?Sized $(+ $($bound)+)?> $rung for $($refs)* Probe<'_, T> {
            fn $method(&self, visitor: &mut Visitor<'_>) {
                let visit: fn(&T, &mut Visitor<'_>) = $visit;
                visit(self.0, visitor);
            }
        }
    )+};
}

ladder!(visit_as_field {
    FieldTracked: [&&&&] (Tracked) => T::visit;
    FieldDisplay: [&&&] (Display) => display;
    FieldSerialize: [&] (Serialize) => walk;
});

#[doc(hidden)]
pub trait FieldDisplayed<Depth> {
    fn visit_as_field(&self, visitor: &mut Visitor<'_>);
}

impl<Depth, T: Displayed<Depth> + ?Sized> FieldDisplayed<Depth> for &&Probe<'_, T> {
    fn visit_as_field(&self, visitor: &mut Visitor<'_>) {
        self.0.show(visitor);
    }
}

/// The last rung of `visit_as_field`: the bound on the method is not asked when the rung is
/// chosen, so it fails afterwards, with the message of [`Readable`].
#[doc(hidden)]
pub trait FieldUnreadable<T: ?Sized> {
    fn visit_as_field(&self, visitor: &mut Visitor<'_>)
    where
        T: Readable;
}

impl<T: ?Sized> FieldUnreadable<T> for Probe<'_, T> {
    fn visit_as_field(&self, _: &mut Visitor<'_>)
    where
        T: Readable,
    {
    }
}

ladder!(visit_as_member {
    MemberTracked: [&] (Tracked) => T::visit;
    MemberOpaque: [] => |_, _| {};
});

ladder!(visit_as_argument {
    ArgumentTracked: [&&&&] (Tracked) => T::visit;
    ArgumentInner: [&&&] (Inner<Inner: Serialize>) => |wrapper, visitor| {
        if let Some(inner) = wrapper.inner() {
            walk(inner, visitor);
        }
    };
    ArgumentSerialize: [&&] (Serialize) => walk;
    ArgumentUnreadable: [&] (Inner) => |_, visitor| visitor.missed(std::any::type_name::<T>());
    ArgumentOpaque: [] => |_, _| {};
});

ladder!(visit_as_extractor {
    ExtractorTracked: [&&&&] (Tracked) => T::visit;
    ExtractorSerialize: [&] (Serialize) => walk;
    ExtractorUnreadable: [] => |_, visitor| visitor.missed(std::any::type_name::<T>());
});

#[doc(hidden)]
pub trait ExtractorOfTracked<Depth> {
    fn visit_as_extractor(&self, visitor: &mut Visitor<'_>);
}

impl<Depth, T: Reach<Depth, Target: Tracked> + ?Sized> ExtractorOfTracked<Depth> for &&&Probe<'_, T> {
    fn visit_as_extractor(&self, visitor: &mut Visitor<'_>) {
        if let Some(content) = self.0.reach() {
            content.visit(visitor);
        }
    }
}

#[doc(hidden)]
pub trait ExtractorOfSerialize<Depth> {
    fn visit_as_extractor(&self, visitor: &mut Visitor<'_>);
}

impl<Depth, T: Reach<Depth, Target: Serialize> + ?Sized> ExtractorOfSerialize<Depth> for &&Probe<'_, T> {
    fn visit_as_extractor(&self, visitor: &mut Visitor<'_>) {
        if let Some(content) = self.0.reach() {
            walk(content, visitor);
        }
    }
}

/// The same question about a type, for the compiler to answer: a constant of [`Visits`] itself stands
/// before one of [`Unread`], wherever its bound holds. `inventory_entry!` asks all of them.
#[doc(hidden)]
pub struct Visits<T: ?Sized>(PhantomData<T>);

#[doc(hidden)]
pub trait Unread {
    const TRACKED: bool = false;
    const OF_TRACKED: bool = false;
    const SERIALIZE: bool = false;
    const OF_SERIALIZE: bool = false;
}

impl<T: ?Sized> Unread for Visits<T> {}

macro_rules! visits {
    ($($name:ident: ($($bound:tt)+);)+) => {$(
        #[doc(hidden)]
        impl<T: ?Sized + $($bound)+> Visits<T> {
            pub const $name: bool = true;
        }
    )+};
}
visits! {
    TRACKED: (Tracked);
    OF_TRACKED: (Deref<Target: Tracked>);
    SERIALIZE: (Serialize);
    OF_SERIALIZE: (Deref<Target: Serialize>);
}

/// A value as the text that it shows. `Display` of the user's may fail: that is no panic here.
fn display<T: Display + ?Sized>(value: &T, visitor: &mut Visitor<'_>) {
    let mut text = Text::default();
    match write!(text, "{value}") {
        Ok(()) => visitor.value(Value::Text(&text.0)),
        Err(_) => visitor.missed("a value that cannot be displayed"),
    }
}

/// Longest text that is taken from `Display`, in bytes.
const MAX_TEXT: usize = 64 * 1024;

#[derive(Default)]
struct Text(String);

impl Write for Text {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        if self.0.len().saturating_add(part.len()) > MAX_TEXT {
            return Err(fmt::Error);
        }
        self.0.push_str(part);
        Ok(())
    }
}

#[cfg(test)]
#[allow(
    clippy::needless_borrow,
    reason = "generated code asks with all references, whatever the rung"
)]
mod tests {
    use std::borrow::Cow;
    use std::net::Ipv4Addr;

    use super::*;
    use crate::tracked::{Field, Sink};

    static FIELD: Field = Field {
        name: "field",
        category: "x.field",
        description: "",
        kind: None,
        pii: None,
        secret: None,
    };

    #[derive(Default)]
    struct Seen(Vec<String>);

    /// What `Debug` does not show.
    fn raw(value: Value<'_>) -> String {
        match value {
            Value::Text(text) => format!("Text({text:?})"),
            Value::Integer(value) => format!("Integer({value})"),
            Value::Float(value) => format!("Float({value:?})"),
            Value::Bool(value) => format!("Bool({value})"),
        }
    }

    impl Sink for Seen {
        fn declared(&mut self, field: &'static Field, value: Value<'_>) {
            self.0.push(format!("{}: {}", field.name, raw(value)));
        }
        fn keyed(&mut self, key: &str, value: Value<'_>) {
            self.0.push(format!("{key} -> {}", raw(value)));
        }
        fn missed(&mut self, what: &'static str) {
            self.0.push(format!("missed {what}"));
        }
    }

    fn seen(visit: impl FnOnce(&mut Visitor<'_>)) -> Vec<String> {
        let mut seen = Seen::default();
        visit(&mut Visitor::new(&mut seen));
        seen.0
    }

    macro_rules! field {
        ($value:expr) => {
            seen(|v| v.field(&FIELD, |v| (&&&&&Probe(&$value)).visit_as_field(v)))
        };
    }
    macro_rules! argument {
        ($value:expr) => {
            seen(|v| v.entry("arg", |v| (&&&&&Probe(&$value)).visit_as_argument(v)))
        };
    }

    /// `Tracked` says 1, `Display` 2, `Serialize` 3: the answer names the rung.
    macro_rules! can {
        ($name:ident $(, $ability:ident)*) => {
            struct $name;
            $(can!(@ $ability $name);)*
        };
        (@ tracked $name:ident) => {
            impl Tracked for $name {
                fn visit(&self, visitor: &mut Visitor<'_>) {
                    visitor.value(Value::Integer(1));
                }
            }
        };
        (@ display $name:ident) => {
            impl Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("2")
                }
            }
        };
        (@ serialize $name:ident) => {
            impl Serialize for $name {
                fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    serializer.serialize_u8(3)
                }
            }
        };
    }
    can!(All, tracked, display, serialize);
    can!(Shown, display, serialize);
    can!(Printed, display);
    can!(Serialised, serialize);
    can!(Opaque);

    struct Wrapper<T>(T);

    impl<T> Inner for Wrapper<T> {
        type Inner = T;
        fn inner(&self) -> Option<&T> {
            Some(&self.0)
        }
    }

    #[test]
    fn a_field_takes_the_best_rung() {
        assert_eq!(field!(All), ["field: Integer(1)"]);
        assert_eq!(field!(Shown), [r#"field: Text("2")"#]);
        assert_eq!(field!(Serialised), ["field: Integer(3)"]);
        assert_eq!(field!(Some(Shown)), [r#"field: Text("2")"#]);
        assert_eq!(field!(vec![Shown, Shown]).len(), 2);
        assert_eq!(field!(Ok::<_, Opaque>(Shown)), [r#"field: Text("2")"#]);
        assert_eq!(field!(Some(Serialised)), ["field: Integer(3)"]);
        // What a changeset holds of a nullable column, and other containers of containers.
        assert_eq!(field!(Some(Some(Printed))), [r#"field: Text("2")"#]);
        assert!(field!(Some(None::<Printed>)).is_empty());
        assert_eq!(field!(Some([vec![Printed], vec![Printed]])).len(), 2);
        assert_eq!(field!(&[BTreeMap::from([(1, Some(Printed))])][..]).len(), 1);
        assert_eq!(field!(HashMap::from([("k", Printed)])), [r#"field: Text("2")"#]);
        assert_eq!(field!(Ipv4Addr::LOCALHOST), [r#"field: Text("127.0.0.1")"#]);
    }

    #[test]
    fn an_argument_takes_the_best_rung() {
        assert_eq!(argument!(All), ["arg -> Integer(1)"]);
        assert_eq!(argument!(Shown), ["arg -> Integer(3)"]);
        // `Display` alone does not make a parameter: think of the extractor `Uri`.
        assert!(argument!(Printed).is_empty());
        assert_eq!(argument!(Serialised), ["arg -> Integer(3)"]);
        assert_eq!(argument!(Wrapper(Serialised)), ["arg -> Integer(3)"]);
        assert_eq!(argument!(Some(Wrapper(Serialised))), ["arg -> Integer(3)"]);
        assert!(argument!(None::<Wrapper<Serialised>>).is_empty());
        assert!(argument!(Opaque).is_empty());
        let missed = argument!(Wrapper(Opaque));
        assert!(
            matches!(&missed[..], [only] if only.starts_with("missed ") && only.contains("Wrapper")),
            "{missed:?}"
        );
    }

    struct Extractor<T>(T);

    impl<T> Deref for Extractor<T> {
        type Target = T;
        fn deref(&self) -> &T {
            &self.0
        }
    }

    macro_rules! extractor {
        ($value:expr) => {
            seen(|v| v.entry("arg", |v| (&&&&&Probe(&$value)).visit_as_extractor(v)))
        };
    }
    macro_rules! read {
        ($ty:ty) => {
            Visits::<$ty>::TRACKED
                || Visits::<$ty>::OF_TRACKED
                || Visits::<$ty>::SERIALIZE
                || Visits::<$ty>::OF_SERIALIZE
        };
    }

    #[test]
    fn an_extractor_is_seen_through_by_whatever_it_holds() {
        assert_eq!(extractor!(All), ["arg -> Integer(1)"]);
        assert_eq!(extractor!(Extractor(All)), ["arg -> Integer(1)"]);
        assert_eq!(extractor!(Extractor(Serialised)), ["arg -> Integer(3)"]);
        assert_eq!(extractor!(Serialised), ["arg -> Integer(3)"]);
        assert_eq!(extractor!(Some(Extractor(All))), ["arg -> Integer(1)"]);
        assert_eq!(
            extractor!(Ok::<_, Opaque>(Some(Extractor(Serialised)))),
            ["arg -> Integer(3)"]
        );
        assert!(extractor!(None::<Extractor<All>>).is_empty());
        for missed in [
            extractor!(Extractor(Opaque)),
            extractor!(Extractor(Printed)),
            extractor!(Opaque),
        ] {
            assert!(
                matches!(&missed[..], [only] if only.starts_with("missed ")),
                "{missed:?}"
            );
        }
    }

    #[test]
    #[allow(
        clippy::assertions_on_constants,
        reason = "that the compiler knows is what is tested"
    )]
    fn the_compiler_knows_which_rung_there_is() {
        fn unbounded<T>() -> bool {
            read!(Extractor<T>)
        }
        assert!(read!(All) && read!(Extractor<All>) && read!(Serialised) && read!(Extractor<Serialised>));
        assert!(read!(Extractor<Box<str>>) && read!(Extractor<Cow<'_, str>>));
        assert!(!read!(Opaque) && !read!(Extractor<Opaque>) && !read!(Extractor<Printed>));
        assert!(
            !unbounded::<All>(),
            "as the ladder, which is chosen where the function stands"
        );
    }

    #[test]
    fn a_member_is_visited_if_it_is_tracked() {
        let all = seen(|v| v.entry("k", |v| (&&&&&Probe(&All)).visit_as_member(v)));
        assert_eq!(all, ["k -> Integer(1)"]);
        let shown = seen(|v| v.entry("k", |v| (&&&&&Probe(&Shown)).visit_as_member(v)));
        assert!(shown.is_empty());
    }

    #[derive(Serialize)]
    struct Form {
        email: &'static str,
        income: Option<f64>,
        age: u128,
        tags: Vec<Kind>,
        address: BTreeMap<u8, (char, bool)>,
        unit: (),
    }

    #[derive(Serialize)]
    enum Kind {
        Plain,
        Wrapped(f32),
        Pair(i8, i8),
        Record { city: &'static str },
    }

    #[test]
    fn serialize_gives_members_and_their_values() {
        let form = Form {
            email: "ada@example.com",
            income: Some(1.5),
            age: u128::MAX,
            tags: vec![
                Kind::Plain,
                Kind::Wrapped(0.1),
                Kind::Pair(1, 2),
                Kind::Record { city: "London" },
            ],
            address: BTreeMap::from([(1, ('a', true))]),
            unit: (),
        };
        assert_eq!(
            argument!(Wrapper(&form)),
            [
                r#"email -> Text("ada@example.com")"#.to_owned(),
                "income -> Float(1.5)".to_owned(),
                format!(r#"age -> Text("{}")"#, u128::MAX),
                r#"tags -> Text("Plain")"#.to_owned(),
                "tags -> Float(0.1)".to_owned(),
                "tags -> Integer(1)".to_owned(),
                "tags -> Integer(2)".to_owned(),
                r#"city -> Text("London")"#.to_owned(),
                r#"1 -> Text("a")"#.to_owned(),
                "1 -> Bool(true)".to_owned(),
            ]
        );
        assert_eq!(field!(&form).len(), 10);
        assert!(field!(&form).iter().all(|line| line.starts_with("field: ")));
    }

    struct Russian(usize);

    impl Serialize for Russian {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            match self.0.checked_sub(1) {
                Some(less) => serializer.collect_seq([Russian(less)]),
                None => serializer.serialize_u8(0),
            }
        }
    }

    struct NestedMap(usize);

    impl Serialize for NestedMap {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            match self.0.checked_sub(1) {
                Some(less) => serializer.collect_map([("k", NestedMap(less))]),
                None => serializer.serialize_u8(0),
            }
        }
    }

    #[test]
    fn what_is_too_much_is_counted_and_nothing_overflows() {
        assert_eq!(argument!(Russian(100_000)), ["missed nested too deep"]);
        assert_eq!(argument!(NestedMap(100_000)), ["missed nested too deep"]);
        // A vector of `Tracked` values has the visitor's own limits; this one goes by `Serialize`.
        let many: Vec<Serialised> = (0..20_000).map(|_| Serialised).collect();
        let seen = argument!(many);
        assert_eq!(seen.len(), 10_001);
        assert_eq!(seen.last().map(String::as_str), Some("missed too many values"));
    }

    struct Failing;

    impl Display for Failing {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            Err(fmt::Error)
        }
    }

    impl Serialize for Wrapper<Failing> {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("ada@example.com is not acceptable"))
        }
    }

    #[test]
    fn debug_shows_no_value() {
        let values = [
            Value::Text("ada"),
            Value::Integer(7),
            Value::Float(7.5),
            Value::Bool(true),
        ];
        let shown = format!("{values:?}");
        assert_eq!(shown, "[Text(..), Integer(..), Float(..), Bool(..)]");
    }

    #[test]
    fn a_failing_implementation_is_counted_without_its_message() {
        assert_eq!(field!(Failing), ["missed a value that cannot be displayed"]);
        assert_eq!(field!(Wrapper(Failing)), ["missed a value that cannot be serialised"]);
    }
}
