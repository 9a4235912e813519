//! JSON texts, made straight into a template and what differs from event to event (numbers, ids of hex digits):
//! the text itself is made only where it stands in a row.

use serde_json::{Map, Value as Json};

use super::pack::{self, DIGITS, MIN_DIGITS, NUMBER};
use crate::vocabulary::Event;

/// A JSON text.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) template: String,
    pub(super) arguments: Vec<u8>,
}

impl Draft {
    /// An object with these members.
    pub(super) fn object(&mut self, members: &Map<String, Json>) {
        self.begin();
        self.members(members);
        self.template.push('}');
    }

    /// An event's payload, with the shapes of its fields.
    pub(super) fn payload(&mut self, event: &Event) {
        if event.shapes.is_empty() {
            return self.object(&event.payload);
        }
        self.begin();
        self.literal("\"fields\":{");
        for (at, shape) in event.shapes.iter().enumerate() {
            self.literal(if at == 0 { "" } else { "," });
            self.word(&shape.name);
            self.literal(":{\"type\":\"");
            self.literal(shape.json_type);
            self.literal("\"");
            if shape.count > 1 {
                self.literal(",\"count\":");
                self.number(shape.count as u64);
            }
            if let Some(length) = shape.length {
                self.literal(",\"length\":");
                self.number(length as u64);
            }
            if let Some(part) = shape.part {
                self.literal(",\"in\":\"");
                self.literal(part);
                self.literal("\"");
            }
            self.literal("}");
        }
        self.literal("}");
        self.members(&event.payload);
        self.literal("}");
    }

    /// An event's extras, with its site.
    pub(super) fn extras(&mut self, event: &Event) {
        let Some(site) = event.site else {
            return self.object(&event.extras);
        };
        self.begin();
        self.literal("\"site\":{\"path\":");
        self.word(site.path);
        self.literal(",\"file\":");
        self.word(site.file);
        self.literal(",\"line\":");
        self.number(site.line.into());
        self.literal("}");
        self.members(&event.extras);
        self.literal("}");
    }

    fn begin(&mut self) {
        self.template.clear();
        self.arguments.clear();
        self.template.push('{');
    }

    fn members(&mut self, members: &Map<String, Json>) {
        for (name, value) in members {
            if !self.template.ends_with('{') {
                self.template.push(',');
            }
            self.word(name);
            self.template.push(':');
            self.value(value);
        }
    }

    fn value(&mut self, value: &Json) {
        match value {
            Json::Null => self.literal("null"),
            Json::Bool(true) => self.literal("true"),
            Json::Bool(false) => self.literal("false"),
            Json::Number(number) => match number.as_u64() {
                Some(number) => self.number(number),
                None => self.literal(&number.to_string()),
            },
            Json::String(text) if text.len() >= MIN_DIGITS && self.digits(text) => {}
            Json::String(text) => self.word(text),
            Json::Array(values) => {
                self.template.push('[');
                for (at, value) in values.iter().enumerate() {
                    self.literal(if at == 0 { "" } else { "," });
                    self.value(value);
                }
                self.template.push(']');
            }
            Json::Object(members) => {
                self.template.push('{');
                self.members(members);
                self.template.push('}');
            }
        }
    }

    fn literal(&mut self, json: &str) {
        self.template.push_str(json);
    }

    fn number(&mut self, number: u64) {
        self.template.push(NUMBER);
        pack::put(&mut self.arguments, number);
    }

    /// A text of hex digits; `false` if it is none.
    fn digits(&mut self, text: &str) -> bool {
        let before = self.arguments.len();
        pack::put(&mut self.arguments, text.len() as u64 / 2);
        if !pack::put_hex(&mut self.arguments, text) {
            self.arguments.truncate(before);
            return false;
        }
        self.template.extend(['"', DIGITS, '"']);
        true
    }

    fn word(&mut self, word: &str) {
        let is_plain = |byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
        if word.bytes().all(is_plain) {
            self.template.push('"');
            self.template.push_str(word);
            self.template.push('"');
        } else {
            // A text is always JSON, in which its control characters are escaped.
            let quoted = serde_json::to_string(word).unwrap_or_else(|_| "\"\"".to_owned());
            self.template.push_str(&quoted);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<u64>().prop_map(Json::from),
            any::<i64>().prop_map(Json::from),
            any::<f64>().prop_map(Json::from),
            "[0-9a-f]{14,18}|[0-9A-F:]{16}|\\PC{0,9}|[\\x00-\\x7f]{0,9}".prop_map(Json::from),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
                proptest::collection::btree_map("\\PC{0,6}|[0-9a-f]{16}", inner, 0..4)
                    .prop_map(|members| members.into_iter().collect::<Map<_, _>>().into()),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_is_what_serde_writes(members in proptest::collection::btree_map("\\PC{0,6}", json(), 0..5)) {
            let members: Map<String, Json> = members.into_iter().collect();
            let mut draft = Draft::default();
            draft.object(&members);
            let text = pack::fill(&draft.template, &draft.arguments);
            prop_assert_eq!(text, serde_json::to_string(&members).ok());
        }
    }
}
