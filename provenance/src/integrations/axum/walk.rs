//! JSON as it is parsed, shown to a visitor.

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess};

use crate::tracked::{Value, Visitor};

/// Visits JSON while it is parsed, without building it.
pub(super) struct Walk<'a, 'v>(pub(super) &'a mut Visitor<'v>);

impl<'de> DeserializeSeed<'de> for Walk<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> serde::de::Visitor<'de> for Walk<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.0.value(Value::Bool(value));
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.0.value(Value::Integer(value.into()));
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.0.value(Value::Integer(value.into()));
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.0.value(Value::Float(value));
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.0.value(Value::Text(value));
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while elements.next_element_seed(Walk(&mut *self.0))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(key) = members.next_key::<std::borrow::Cow<'_, str>>()? {
            let mut walked = None;
            self.0
                .entry(&key, |visitor| walked = Some(members.next_value_seed(Walk(visitor))));
            match walked {
                Some(result) => result?,
                // The visitor does not go deeper; the parser still has to.
                None => drop(members.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}
