//! What a visit met, kept to be looked at later.

use zeroize::Zeroize;

use crate::memo::Key;
use crate::tracked::{Field, Sink, Value};

/// Most steps that are kept; more is counted by the one who plays.
const MAX_STEPS: usize = 16_384;

/// A visit, as it was. Its raw values stand in one buffer, which is wiped when it is dropped.
#[derive(Default)]
pub(crate) struct Tape {
    bytes: Vec<u8>,
    steps: Vec<Step>,
    depth: usize,
    capped: bool,
}

enum Step {
    Begin,
    End,
    Owner(&'static str, Span),
    Declared(&'static Field, Span),
    Keyed(Span, Span),
    Missed(&'static str),
}

/// A value's place in the buffer.
#[derive(Clone, Copy)]
struct Span {
    form: Form,
    start: usize,
    end: usize,
}

#[derive(Clone, Copy)]
enum Form {
    Text,
    Integer,
    Float,
    Bool,
}

impl Tape {
    /// Bytes of raw values.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there was more than a tape keeps.
    pub(crate) fn is_capped(&self) -> bool {
        self.capped
    }

    /// Tells another sink what this one was told.
    pub(crate) fn play(&self, sink: &mut dyn Sink) {
        for step in &self.steps {
            match step {
                Step::Begin => sink.begin(),
                Step::End => sink.end(),
                Step::Owner(kind, span) => self.value(*span).into_iter().for_each(|value| sink.owner(kind, value)),
                Step::Declared(field, span) => {
                    self.value(*span)
                        .into_iter()
                        .for_each(|value| sink.declared(field, value));
                }
                Step::Keyed(key, span) => {
                    if let (Some(Value::Text(key)), Some(value)) = (self.value(*key), self.value(*span)) {
                        sink.keyed(key, value);
                    }
                }
                Step::Missed(what) => sink.missed(what),
            }
        }
        // Of records that were open when the tape was full.
        (0..self.depth).for_each(|_| sink.end());
    }

    /// Adds the visit to a key.
    pub(crate) fn mark(&self, key: &mut Key) {
        struct Marks<'k>(&'k mut Key);
        impl Sink for Marks<'_> {
            fn begin(&mut self) {
                self.0.number(1);
            }
            fn end(&mut self) {
                self.0.number(2);
            }
            fn owner(&mut self, kind: &'static str, value: Value<'_>) {
                self.0.text(kind);
                self.0.value(value);
            }
            fn declared(&mut self, field: &'static Field, value: Value<'_>) {
                self.0.number(std::ptr::from_ref(field).addr() as u64);
                self.0.value(value);
            }
            fn keyed(&mut self, name: &str, value: Value<'_>) {
                self.0.number(3);
                self.0.text(name);
                self.0.value(value);
            }
        }
        key.number(self.steps.len() as u64);
        self.play(&mut Marks(key));
    }

    fn value(&self, Span { form, start, end }: Span) -> Option<Value<'_>> {
        let bytes = self.bytes.get(start..end)?;
        Some(match form {
            Form::Text => Value::Text(str::from_utf8(bytes).ok()?),
            Form::Integer => Value::Integer(i128::from_le_bytes(bytes.try_into().ok()?)),
            Form::Float => Value::Float(f64::from_le_bytes(bytes.try_into().ok()?)),
            Form::Bool => Value::Bool(bytes == [1]),
        })
    }

    fn keep(&mut self, value: Value<'_>) -> Span {
        match value {
            Value::Text(text) => self.write(Form::Text, text.as_bytes()),
            Value::Integer(number) => self.write(Form::Integer, &number.to_le_bytes()),
            Value::Float(number) => self.write(Form::Float, &number.to_le_bytes()),
            Value::Bool(truth) => self.write(Form::Bool, &[u8::from(truth)]),
        }
    }

    fn write(&mut self, form: Form, bytes: &[u8]) -> Span {
        let start = self.bytes.len();
        let end = start + bytes.len();
        if end > self.bytes.capacity() {
            // A buffer that grows by itself leaves its old bytes behind.
            let mut wider = Vec::with_capacity((2 * end).max(256));
            wider.extend_from_slice(&self.bytes);
            self.bytes.zeroize();
            self.bytes = wider;
        }
        self.bytes.extend_from_slice(bytes);
        Span { form, start, end }
    }

    fn has_room(&mut self) -> bool {
        if self.steps.capacity() == 0 {
            self.steps.reserve(16);
        }
        let room = self.steps.len() < MAX_STEPS;
        self.capped |= !room;
        room
    }
}

impl Drop for Tape {
    fn drop(&mut self) {
        // What is behind the length was never written: the buffer does not shrink.
        self.bytes.as_mut_slice().zeroize();
    }
}

impl Sink for Tape {
    fn begin(&mut self) {
        if self.has_room() {
            self.steps.push(Step::Begin);
            self.depth += 1;
        }
    }

    fn end(&mut self) {
        if self.has_room() && self.depth > 0 {
            self.steps.push(Step::End);
            self.depth -= 1;
        }
    }

    fn owner(&mut self, kind: &'static str, value: Value<'_>) {
        if self.has_room() {
            let value = self.keep(value);
            self.steps.push(Step::Owner(kind, value));
        }
    }

    fn declared(&mut self, field: &'static Field, value: Value<'_>) {
        if self.has_room() {
            let value = self.keep(value);
            self.steps.push(Step::Declared(field, value));
        }
    }

    fn keyed(&mut self, key: &str, value: Value<'_>) {
        if self.has_room() {
            let (key, value) = (self.write(Form::Text, key.as_bytes()), self.keep(value));
            self.steps.push(Step::Keyed(key, value));
        }
    }

    fn missed(&mut self, what: &'static str) {
        if self.has_room() {
            self.steps.push(Step::Missed(what));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    static FIELD: Field = Field {
        name: "email",
        category: "contact.email",
        description: "",
        kind: None,
        pii: None,
        secret: None,
    };

    /// What it was told, in words.
    #[derive(Default)]
    struct Words(Vec<String>);

    fn shown(value: Value<'_>) -> String {
        match value {
            Value::Text(text) => format!("text {text}"),
            Value::Integer(number) => format!("integer {number}"),
            Value::Float(number) => format!("float {}", number.to_bits()),
            Value::Bool(truth) => format!("bool {truth}"),
        }
    }

    impl Sink for Words {
        fn begin(&mut self) {
            self.0.push("begin".into());
        }
        fn end(&mut self) {
            self.0.push("end".into());
        }
        fn owner(&mut self, kind: &'static str, value: Value<'_>) {
            self.0.push(format!("owner {kind} {}", shown(value)));
        }
        fn declared(&mut self, field: &'static Field, value: Value<'_>) {
            self.0.push(format!("declared {} {}", field.name, shown(value)));
        }
        fn keyed(&mut self, key: &str, value: Value<'_>) {
            self.0.push(format!("keyed {key} {}", shown(value)));
        }
        fn missed(&mut self, what: &'static str) {
            self.0.push(format!("missed {what}"));
        }
    }

    fn tell(sink: &mut dyn Sink, steps: &[(u8, String, i128)]) {
        for (what, text, number) in steps {
            match what % 8 {
                0 => sink.declared(&FIELD, Value::Text(text)),
                1 => sink.declared(&FIELD, Value::Integer(*number)),
                2 => sink.keyed(text, Value::Float(*number as f64 / 3.0)),
                3 => sink.owner("user", Value::Integer(*number)),
                4 => sink.missed("nested too deep"),
                5 => sink.keyed(text, Value::Bool(number % 2 == 0)),
                6 => sink.owner("email", Value::Text(text)),
                _ => {
                    sink.begin();
                    sink.declared(&FIELD, Value::Text(text));
                    sink.end();
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_tape_tells_what_it_was_told(steps in prop::collection::vec((any::<u8>(), ".{0,200}", any::<i128>()), 0..60)) {
            let (mut tape, mut heard, mut played) = (Tape::default(), Words::default(), Words::default());
            tell(&mut tape, &steps);
            tell(&mut heard, &steps);
            tape.play(&mut played);
            prop_assert_eq!(heard.0, played.0);
        }
    }

    #[test]
    fn a_full_tape_closes_its_records() {
        let mut tape = Tape::default();
        tape.begin();
        (0..MAX_STEPS).for_each(|_| tape.declared(&FIELD, Value::Bool(true)));
        tape.end();
        let mut played = Words::default();
        tape.play(&mut played);
        assert!(tape.is_capped());
        assert_eq!(played.0.len(), MAX_STEPS + 1);
        assert_eq!(played.0.last().map(String::as_str), Some("end"));
    }
}
