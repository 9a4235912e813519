//! How generated code asks, without specialisation, what a value can do.
//!
//! `(&&&&&Probe(&value)).visit_as_field(visitor)`: method resolution takes references off one
//! by one, so an implementation for more references is tried first. Each ladder below is one
//! method name with its rungs, the best first.

use std::fmt::{self, Display, Write};

use serde::Serialize;

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

/// What a tracked field must be able to do. Nothing implements it: it carries the message.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be tracked",
    label = "this is neither `Tracked` nor `Display` nor `Serialize`",
    note = "add `#[derive(provenance::Tracked)]` to the type, implement `provenance::Tracked` by hand, or leave a \
            field out with `#[tracked(skip)]`"
)]
pub trait Readable {}

/// Containers of [`Display`] values, common around types of other crates: `Option<NaiveDate>`.
pub trait Displayed {
    /// Shows every element.
    fn show(&self, visitor: &mut Visitor<'_>);
}

impl<T: Display> Displayed for Option<T> {
    fn show(&self, visitor: &mut Visitor<'_>) {
        self.iter().for_each(|value| display(value, visitor));
    }
}

impl<T: Display, E> Displayed for Result<T, E> {
    fn show(&self, visitor: &mut Visitor<'_>) {
        self.iter().for_each(|value| display(value, visitor));
    }
}

impl<T: Display> Displayed for [T] {
    fn show(&self, visitor: &mut Visitor<'_>) {
        self.iter().for_each(|value| display(value, visitor));
    }
}

impl<T: Display> Displayed for Vec<T> {
    fn show(&self, visitor: &mut Visitor<'_>) {
        self.as_slice().show(visitor);
    }
}

impl<T: Displayed + ?Sized> Displayed for &T {
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
    FieldDisplayed: [&&] (Displayed) => T::show;
    FieldSerialize: [&] (Serialize) => walk;
});

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
