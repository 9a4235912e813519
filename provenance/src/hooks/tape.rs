//! What a visit met, kept to be looked at later.

use std::cell::{RefCell, RefMut};

use zeroize::Zeroize;

use crate::memo::Key;
use crate::tracked::{Field, Sink, Value};

/// Most steps that are kept; more is counted by the one who plays.
const MAX_STEPS: usize = 16_384;

thread_local! {
    /// Empty buffers of this thread's tapes, to be used again.
    static SPARE: RefCell<Vec<Buffers>> = const { RefCell::new(Vec::new()) };
    /// What a visit is taken down on that is looked at, or copied, at once.
    static SCRATCH: RefCell<Tape> = const { RefCell::new(Tape::new()) };
}
/// Most spare ones of a thread.
const MAX_SPARE: usize = 4;
/// Most bytes of one, and most of its steps.
const MAX_SPARE_BYTES: usize = 4096;
const MAX_SPARE_STEPS: usize = 128;
/// A buffer is wiped by pieces of so many bytes, and is as many of them.
const PIECE: usize = 32;

type Buffers = (Vec<u8>, Vec<Step>);

/// Calls `then` with an empty tape of this thread's, which is wiped afterwards; `None` as the thread ends.
pub(crate) fn on_scratch<R>(then: impl FnOnce(&mut Tape) -> R) -> Option<R> {
    struct Used<'t>(RefMut<'t, Tape>);
    impl Drop for Used<'_> {
        fn drop(&mut self) {
            self.0.clear();
            if self.0.capacity() > MAX_SPARE_BYTES || self.0.steps.capacity() > MAX_SPARE_STEPS {
                *self.0 = Tape::new();
            }
        }
    }
    let with = |scratch: &RefCell<Tape>| match scratch.try_borrow_mut() {
        Ok(tape) => then(&mut Used(tape).0),
        // Within itself.
        Err(_) => then(&mut Tape::take()),
    };
    SCRATCH.try_with(with).ok()
}

/// A visit, as it was. Its raw values stand in one buffer, one after the other, which is wiped when it is
/// dropped.
pub(crate) struct Tape {
    /// Zeros behind what is used.
    buffer: Vec<u8>,
    used: usize,
    steps: Vec<Step>,
    depth: usize,
    capped: bool,
}

#[derive(Clone, Copy)]
enum Step {
    Begin,
    End,
    Owner(&'static str, Span),
    Declared(&'static Field, Span),
    /// The key, then the value.
    Keyed(Span, Span),
    Missed(&'static str),
}

/// A value in the buffer, behind those of the steps before.
#[derive(Clone, Copy)]
struct Span {
    form: Form,
    length: u32,
}

#[derive(Clone, Copy)]
enum Form {
    Text,
    Integer,
    Float,
    Bool,
}

/// Where a part of a tape begins.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Place {
    byte: usize,
    step: usize,
}

impl Place {
    /// Where this place of a tape stands once that tape was copied behind `base`.
    pub(crate) fn behind(self, base: Place) -> Place {
        Place {
            byte: base.byte + self.byte,
            step: base.step + self.step,
        }
    }
}

impl Tape {
    pub(crate) const fn new() -> Self {
        Tape {
            buffer: Vec::new(),
            used: 0,
            steps: Vec::new(),
            depth: 0,
            capped: false,
        }
    }

    /// An empty one, with buffers of one that was dropped.
    pub(crate) fn take() -> Self {
        let spare = SPARE.try_with(|spare| spare.try_borrow_mut().ok()?.pop()).ok();
        let (buffer, steps) = spare.flatten().unwrap_or_default();
        Tape {
            buffer,
            used: 0,
            steps,
            depth: 0,
            capped: false,
        }
    }

    fn wipe(&mut self) {
        let used = self.used.div_ceil(PIECE) * PIECE;
        // Most tapes are short: a few stores cost less than a call that looks at the length.
        for piece in self.buffer.get_mut(..used).unwrap_or_default().chunks_exact_mut(PIECE) {
            piece.zeroize();
        }
        self.used = 0;
    }

    /// Forgets what it was told, and keeps its memory.
    pub(crate) fn clear(&mut self) {
        self.wipe();
        self.steps.clear();
        (self.depth, self.capped) = (0, false);
    }

    /// Bytes that it has room for, of values.
    pub(crate) fn capacity(&self) -> usize {
        self.buffer.len()
    }

    fn written(&self) -> &[u8] {
        self.buffer.get(..self.used).unwrap_or_default()
    }

    /// Bytes of raw values.
    pub(crate) fn bytes(&self) -> usize {
        self.used
    }

    /// Bytes that it takes, about.
    pub(crate) fn size(&self) -> usize {
        self.used + size_of_val(&*self.steps)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Whether there was more than a tape keeps.
    pub(crate) fn is_capped(&self) -> bool {
        self.capped
    }

    /// The declared fields that had a value.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &'static Field> {
        self.steps.iter().filter_map(|step| match step {
            Step::Declared(field, _) => Some(*field),
            _ => None,
        })
    }

    /// Where the next step will stand.
    pub(crate) fn place(&self) -> Place {
        Place {
            byte: self.used,
            step: self.steps.len(),
        }
    }

    /// Copies what `other` was told, whatever there is already: the caller bounds it.
    pub(crate) fn append(&mut self, other: &Tape) {
        self.put(other.written());
        self.steps.extend_from_slice(&other.steps);
    }

    /// Tells another sink what this one was told.
    pub(crate) fn play(&self, sink: &mut dyn Sink) {
        self.play_part(Place::default(), self.place(), sink);
        // Of records that were open when the tape was full.
        (0..self.depth).for_each(|_| sink.end());
    }

    /// Tells another sink what this one was told between two places.
    pub(crate) fn play_part(&self, from: Place, to: Place, sink: &mut dyn Sink) {
        let mut at = from.byte;
        let mut next = |span: &Span| {
            let begin = at;
            at += span.length as usize;
            self.value(span.form, begin, at)
        };
        for step in self.steps.get(from.step..to.step).unwrap_or_default() {
            match step {
                Step::Begin => sink.begin(),
                Step::End => sink.end(),
                Step::Owner(kind, span) => next(span).into_iter().for_each(|value| sink.owner(kind, value)),
                Step::Declared(field, span) => next(span).into_iter().for_each(|value| sink.declared(field, value)),
                Step::Keyed(key, span) => {
                    if let (Some(Value::Text(key)), Some(value)) = (next(key), next(span)) {
                        sink.keyed(key, value);
                    }
                }
                Step::Missed(what) => sink.missed(what),
            }
        }
    }

    /// Adds the visit to a key.
    pub(crate) fn mark(&self, key: &mut Key) {
        key.number(self.steps.len() as u64);
        for step in &self.steps {
            let span = |span: &Span| u64::from(span.length) << 8 | span.form as u64;
            match step {
                Step::Begin => key.number(1),
                Step::End => key.number(2),
                Step::Owner(kind, value) => {
                    key.number(3 | span(value) << 8);
                    key.text(kind);
                }
                Step::Declared(field, value) => {
                    key.number(4 | span(value) << 8);
                    key.number(std::ptr::from_ref(*field).addr() as u64);
                }
                Step::Keyed(name, value) => {
                    key.number(5 | span(name) << 8);
                    key.number(span(value));
                }
                Step::Missed(_) => {}
            }
        }
        key.slice(self.written());
    }

    fn value(&self, form: Form, start: usize, end: usize) -> Option<Value<'_>> {
        let bytes = self.written().get(start..end)?;
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
        self.put(bytes);
        Span {
            form,
            // What is longer is refused before.
            length: u32::try_from(bytes.len()).unwrap_or_default(),
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        let end = self.used + bytes.len();
        if end > self.buffer.len() {
            self.widen(end);
        }
        if let Some(room) = self.buffer.get_mut(self.used..end) {
            room.copy_from_slice(bytes);
            self.used = end;
        }
    }

    #[cold]
    fn widen(&mut self, end: usize) {
        // A buffer that grows by itself leaves its old bytes behind.
        let mut wider = vec![0; (2 * end).next_multiple_of(PIECE).max(8 * PIECE)];
        if let Some(room) = wider.get_mut(..self.used) {
            room.copy_from_slice(self.written());
        }
        let used = self.used;
        self.wipe();
        (self.buffer, self.used) = (wider, used);
    }

    /// Whether a step with these texts is kept.
    fn has_room(&mut self, value: Option<Value<'_>>) -> bool {
        let fits = match value {
            Some(Value::Text(text)) => u32::try_from(text.len()).is_ok(),
            _ => true,
        };
        let room = fits && self.steps.len() < MAX_STEPS;
        self.capped |= !room;
        room
    }
}

impl Default for Tape {
    fn default() -> Self {
        Tape::new()
    }
}

impl Drop for Tape {
    fn drop(&mut self) {
        self.wipe();
        let (buffer, mut steps) = (std::mem::take(&mut self.buffer), std::mem::take(&mut self.steps));
        let is_spare = (1..=MAX_SPARE_BYTES).contains(&buffer.len()) && steps.capacity() <= MAX_SPARE_STEPS;
        if !is_spare {
            return;
        }
        steps.clear();
        let _ = SPARE.try_with(|spare| {
            if let Ok(mut spare) = spare.try_borrow_mut()
                && spare.len() < MAX_SPARE
            {
                spare.push((buffer, steps));
            }
        });
    }
}

impl Sink for Tape {
    fn begin(&mut self) {
        if self.has_room(None) {
            self.steps.push(Step::Begin);
            self.depth += 1;
        }
    }

    fn end(&mut self) {
        if self.depth > 0 && self.has_room(None) {
            self.steps.push(Step::End);
            self.depth -= 1;
        }
    }

    fn owner(&mut self, kind: &'static str, value: Value<'_>) {
        if self.has_room(Some(value)) {
            let value = self.keep(value);
            self.steps.push(Step::Owner(kind, value));
        }
    }

    fn declared(&mut self, field: &'static Field, value: Value<'_>) {
        if self.has_room(Some(value)) {
            let value = self.keep(value);
            self.steps.push(Step::Declared(field, value));
        }
    }

    fn keyed(&mut self, key: &str, value: Value<'_>) {
        if self.has_room(Some(Value::Text(key))) && self.has_room(Some(value)) {
            let (key, value) = (self.write(Form::Text, key.as_bytes()), self.keep(value));
            self.steps.push(Step::Keyed(key, value));
        }
    }

    fn missed(&mut self, what: &'static str) {
        if self.has_room(None) {
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
