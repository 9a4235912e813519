//! Visits a value through `Serialize`: members become entries, the rest plain values.

use std::cell::Cell;
use std::fmt::{self, Display, Write};

use serde::Serialize;
use serde::ser::{self, Serializer};

use super::{Text, display};
use crate::tracked::{MAX_DEPTH, Tracked, Value, Visitor};

/// Most values that are read out of one argument or field.
const MAX_VALUES: usize = 10_000;

/// Shows every value inside `value` to `visitor`, up to [`MAX_VALUES`] and [`MAX_DEPTH`].
pub(super) fn walk<T: Serialize + ?Sized>(value: &T, visitor: &mut Visitor<'_>) {
    let left = Cell::new(MAX_VALUES);
    let stopped = value.serialize(Walk {
        visitor: &mut *visitor,
        left: &left,
        depth: 0,
    });
    match stopped {
        Ok(()) => {}
        Err(Stopped::TooMany) => visitor.missed("too many values"),
        Err(Stopped::Failed) => visitor.missed("a value that cannot be serialised"),
    }
}

struct Walk<'w, 'v> {
    visitor: &'w mut Visitor<'v>,
    left: &'w Cell<usize>,
    depth: u8,
}

/// Why a walk ended early. The user's own message may hold a value, so it is dropped.
#[derive(Debug)]
enum Stopped {
    TooMany,
    Failed,
}

impl Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the value was not read to its end")
    }
}

impl std::error::Error for Stopped {}

impl ser::Error for Stopped {
    fn custom<T: Display>(_: T) -> Self {
        Stopped::Failed
    }
}

impl<'v> Walk<'_, 'v> {
    fn leaf<T: Tracked + ?Sized>(self, value: &T) -> Result<(), Stopped> {
        self.spend()?;
        value.visit(self.visitor);
        Ok(())
    }

    fn spend(&self) -> Result<(), Stopped> {
        let left = self.left.get().checked_sub(1).ok_or(Stopped::TooMany)?;
        self.left.set(left);
        Ok(())
    }

    /// A part that has no name of its own.
    fn part<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Stopped> {
        if self.depth >= MAX_DEPTH {
            self.visitor.missed("nested too deep");
            return Ok(());
        }
        value.serialize(Walk {
            visitor: &mut *self.visitor,
            left: self.left,
            depth: self.depth.saturating_add(1),
        })
    }

    fn member<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) -> Result<(), Stopped> {
        let (left, depth) = (self.left, self.depth.saturating_add(1));
        let mut result = Ok(());
        self.visitor.entry(key, |visitor| {
            result = value.serialize(Walk { visitor, left, depth });
        });
        result
    }
}

macro_rules! leaves {
    ($($method:ident: $ty:ty,)*) => {$(
        fn $method(self, value: $ty) -> Result<(), Stopped> {
            self.leaf(&value)
        }
    )*};
}

impl<'w, 'v> Serializer for Walk<'w, 'v> {
    type Ok = ();
    type Error = Stopped;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Members<'w, 'v>;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    leaves! {
        serialize_bool: bool,
        serialize_i8: i8,
        serialize_i16: i16,
        serialize_i32: i32,
        serialize_i64: i64,
        serialize_i128: i128,
        serialize_u8: u8,
        serialize_u16: u16,
        serialize_u32: u32,
        serialize_u64: u64,
        serialize_u128: u128,
        serialize_f32: f32,
        serialize_f64: f64,
        serialize_char: char,
        serialize_str: &str,
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<(), Stopped> {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.leaf(text),
            Err(_) => {
                self.visitor.missed("bytes");
                Ok(())
            }
        }
    }

    fn serialize_none(self) -> Result<(), Stopped> {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(mut self, value: &T) -> Result<(), Stopped> {
        self.part(value)
    }

    fn serialize_unit(self) -> Result<(), Stopped> {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Stopped> {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Stopped> {
        self.spend()?;
        self.visitor.value(Value::Text(variant));
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(mut self, _: &'static str, value: &T) -> Result<(), Stopped> {
        self.part(value)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        mut self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), Stopped> {
        self.part(value)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self, Stopped> {
        Ok(self)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, Stopped> {
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, Stopped> {
        Ok(self)
    }

    fn serialize_tuple_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Result<Self, Stopped> {
        Ok(self)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Members<'w, 'v>, Stopped> {
        Ok(Members { walk: self, key: None })
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Stopped> {
        Ok(self)
    }

    fn serialize_struct_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Result<Self, Stopped> {
        Ok(self)
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<(), Stopped> {
        self.spend()?;
        display(value, self.visitor);
        Ok(())
    }
}

macro_rules! sequences {
    ($($trait:ident::$method:ident,)*) => {$(
        impl ser::$trait for Walk<'_, '_> {
            type Ok = ();
            type Error = Stopped;
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Stopped> {
                self.part(value)
            }
            fn end(self) -> Result<(), Stopped> {
                Ok(())
            }
        }
    )*};
}
sequences! {
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field,
}

macro_rules! structs {
    ($($trait:ident,)*) => {$(
        impl ser::$trait for Walk<'_, '_> {
            type Ok = ();
            type Error = Stopped;
            fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Stopped> {
                self.member(key, value)
            }
            fn end(self) -> Result<(), Stopped> {
                Ok(())
            }
        }
    )*};
}
structs! {
    SerializeStruct,
    SerializeStructVariant,
}

struct Members<'w, 'v> {
    walk: Walk<'w, 'v>,
    /// `None` where the key has no text.
    key: Option<String>,
}

impl ser::SerializeMap for Members<'_, '_> {
    type Ok = ();
    type Error = Stopped;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Stopped> {
        let mut text = Text::default();
        self.key = write!(text, "{}", Key(key)).ok().map(|()| text.0);
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Stopped> {
        match self.key.take() {
            Some(key) => self.walk.member(&key, value),
            None => {
                self.walk.visitor.missed("a key that is no text");
                Ok(())
            }
        }
    }

    fn end(self) -> Result<(), Stopped> {
        Ok(())
    }
}

/// Scalars as text: what serde writes into a `Formatter`; an error for all else.
struct Key<'a, T: ?Sized>(&'a T);

impl<T: Serialize + ?Sized> Display for Key<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.serialize(f)
    }
}
