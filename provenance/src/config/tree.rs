//! Three syntaxes, one tree: what a configuration file says, with the lines on which it says so.
//!
//! The file is not trusted to be sane: nesting is bounded, a key may be given once, and YAML's
//! anchors, aliases and tags (which can blow a small file up) are refused.

use std::collections::HashMap;

/// Nesting that a configuration may have; the deepest key in use is at 4.
const MAX_DEPTH: usize = 32;

/// One value of the file.
#[derive(Debug)]
pub(super) struct Node {
    /// Line of its key, or of the value itself in lists; the first is 1.
    pub(super) line: usize,
    pub(super) value: Value,
}

#[derive(Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Text(String),
    /// A scalar that no key takes, by its description.
    Other(&'static str),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Value {
    /// What it is, for messages; never what it says.
    pub(super) fn describe(&self) -> &'static str {
        match self {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Integer(_) => "a number",
            Value::Text(_) => "text",
            Value::Other(what) => what,
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

/// What is wrong with the syntax, and where. The message quotes nothing of the file but keys.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub(super) line: Option<usize>,
    pub(super) message: String,
}

impl SyntaxError {
    fn new(line: usize, message: impl Into<String>) -> Self {
        SyntaxError {
            line: Some(line),
            message: message.into(),
        }
    }

    fn too_deep(line: usize) -> Self {
        SyntaxError::new(line, format!("nested more than {MAX_DEPTH} levels deep"))
    }

    fn duplicate(line: usize, key: &str, first: usize) -> Self {
        SyntaxError::new(
            line,
            format!("`{}` is given twice; first on line {first}", key.escape_debug()),
        )
    }
}

/// A map under construction: each key once.
#[derive(Default)]
struct Entries {
    entries: Vec<(String, Node)>,
    lines: HashMap<String, usize>,
}

impl Entries {
    fn claim(&mut self, key: &str, line: usize) -> Result<(), SyntaxError> {
        match self.lines.insert(key.to_owned(), line) {
            Some(first) => Err(SyntaxError::duplicate(line, key, first)),
            None => Ok(()),
        }
    }
}

#[cfg(feature = "yaml")]
pub(super) mod yaml {
    //! YAML 1.2, core schema. From the parser's events, not from a loaded document: a loader
    //! copies what an alias names, so a few lines could fill the memory.

    use saphyr_parser::{Event, Parser, ScalarStyle};

    use super::{Entries, MAX_DEPTH, Node, SyntaxError, Value};

    enum Open {
        List(usize, Vec<Node>),
        /// With the key that waits for its value.
        Map(usize, Entries, Option<(String, usize)>),
    }

    pub(in super::super) fn parse(text: &str) -> Result<Node, SyntaxError> {
        let mut open: Vec<Open> = Vec::new();
        let mut root: Option<Node> = None;
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|e| SyntaxError::new(e.marker().line(), e.info()))?;
            let line = span.start.line();
            let done = match event {
                Event::Alias(_) => return Err(SyntaxError::new(line, "YAML aliases are not supported here")),
                Event::Scalar(_, _, _, Some(_))
                | Event::SequenceStart(_, Some(_))
                | Event::MappingStart(_, Some(_)) => {
                    return Err(SyntaxError::new(line, "YAML tags are not supported here"));
                }
                Event::SequenceStart(..) | Event::MappingStart(..) if open.len() >= MAX_DEPTH => {
                    return Err(SyntaxError::too_deep(line));
                }
                Event::SequenceStart(..) => {
                    open.push(Open::List(line, Vec::new()));
                    continue;
                }
                Event::MappingStart(..) => {
                    open.push(Open::Map(line, Entries::default(), None));
                    continue;
                }
                Event::Scalar(text, style, ..) => {
                    if let Some(Open::Map(_, entries, key @ None)) = open.last_mut() {
                        entries.claim(&text, line)?;
                        *key = Some((text.into_owned(), line));
                        continue;
                    }
                    let value = match style {
                        ScalarStyle::Plain => plain(&text),
                        _ => Value::Text(text.into_owned()),
                    };
                    Node { line, value }
                }
                Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                    Some(Open::List(line, nodes)) => Node {
                        line,
                        value: Value::List(nodes),
                    },
                    Some(Open::Map(line, entries, _)) => Node {
                        line,
                        value: Value::Map(entries.entries),
                    },
                    None => continue,
                },
                Event::DocumentStart(_) if root.is_some() => {
                    return Err(SyntaxError::new(
                        line,
                        "a second YAML document begins here; only one is read",
                    ));
                }
                _ => continue,
            };
            match open.last_mut() {
                None => root = Some(done),
                Some(Open::List(_, nodes)) => nodes.push(done),
                Some(Open::Map(_, entries, key)) => match key.take() {
                    Some((key, line)) => entries.entries.push((
                        key,
                        Node {
                            line,
                            value: done.value,
                        },
                    )),
                    None => return Err(SyntaxError::new(done.line, "a key must be plain text")),
                },
            }
        }
        Ok(root.unwrap_or(Node {
            line: 1,
            value: Value::Null,
        }))
    }

    fn plain(text: &str) -> Value {
        match text {
            "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
            "true" | "True" | "TRUE" => return Value::Bool(true),
            "false" | "False" | "FALSE" => return Value::Bool(false),
            _ => {}
        }
        let numeric = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c))
            && text.contains(|c: char| c.is_ascii_digit());
        match (text.parse::<i64>(), text.parse::<f64>()) {
            (Ok(number), _) if numeric => Value::Integer(number),
            (_, Ok(_)) if numeric => Value::Other("a number that is not whole"),
            _ => Value::Text(text.to_owned()),
        }
    }
}

pub(super) mod json {
    //! JSON through serde_json. It does not say where a value stood, so the reader below counts.

    use std::cell::Cell;
    use std::fmt;
    use std::io;

    use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

    use super::{Entries, MAX_DEPTH, Node, SyntaxError, Value};

    pub(in super::super) fn parse(text: &str) -> Result<Node, SyntaxError> {
        let line = Cell::new(1);
        let refused = Cell::new(None);
        let mut reader = serde_json::Deserializer::from_reader(Counted {
            rest: text.as_bytes(),
            line: &line,
        });
        let seed = Seed {
            line: &line,
            refused: &refused,
            depth: 0,
        };
        let node = seed
            .deserialize(&mut reader)
            .and_then(|node| reader.end().map(|()| node));
        node.map_err(|error| {
            refused.take().unwrap_or_else(|| {
                let message = match error.classify() {
                    serde_json::error::Category::Eof => "the JSON ends too early".to_owned(),
                    _ => without_place(&error.to_string()),
                };
                SyntaxError::new(error.line().max(1), message)
            })
        })
    }

    /// serde_json ends its messages with ` at line 1 column 2`.
    fn without_place(message: &str) -> String {
        message.split(" at line ").next().unwrap_or(message).to_owned()
    }

    struct Counted<'a> {
        rest: &'a [u8],
        line: &'a Cell<usize>,
    }

    impl io::Read for Counted<'_> {
        /// One byte at a time, so that the count does not run ahead of the parser.
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match (self.rest.split_first(), buffer.first_mut()) {
                (Some((byte, rest)), Some(slot)) => {
                    *slot = *byte;
                    self.rest = rest;
                    if *byte == b'\n' {
                        self.line.set(self.line.get() + 1);
                    }
                    Ok(1)
                }
                _ => Ok(0),
            }
        }
    }

    #[derive(Clone, Copy)]
    struct Seed<'a> {
        line: &'a Cell<usize>,
        /// Carries our own finding past serde_json's error type.
        refused: &'a Cell<Option<SyntaxError>>,
        depth: usize,
    }

    impl Seed<'_> {
        fn node<E>(self, value: Value) -> Result<Node, E> {
            Ok(Node {
                line: self.line.get(),
                value,
            })
        }

        fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
            if self.depth >= MAX_DEPTH {
                return Err(self.refuse(SyntaxError::too_deep(self.line.get())));
            }
            Ok(Seed {
                depth: self.depth + 1,
                ..self
            })
        }

        fn refuse<E: serde::de::Error>(self, error: SyntaxError) -> E {
            self.refused.set(Some(error));
            E::custom("refused")
        }
    }

    impl<'de> DeserializeSeed<'de> for Seed<'_> {
        type Value = Node;

        fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
            deserializer.deserialize_any(self)
        }
    }

    impl<'de> Visitor<'de> for Seed<'_> {
        type Value = Node;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("JSON")
        }

        fn visit_unit<E: serde::de::Error>(self) -> Result<Node, E> {
            self.node(Value::Null)
        }

        fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Node, E> {
            self.node(Value::Bool(value))
        }

        fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Node, E> {
            self.node(Value::Integer(value))
        }

        fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Node, E> {
            self.node(i64::try_from(value).map_or(Value::Other("a number out of range"), Value::Integer))
        }

        fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Node, E> {
            self.node(Value::Other("a number that is not whole"))
        }

        fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Node, E> {
            self.node(Value::Text(value.to_owned()))
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Node, A::Error> {
            let (line, inner) = (self.line.get(), self.deeper()?);
            let mut nodes = Vec::new();
            while let Some(node) = elements.next_element_seed(inner)? {
                nodes.push(node);
            }
            Ok(Node {
                line,
                value: Value::List(nodes),
            })
        }

        fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Node, A::Error> {
            let (line, inner) = (self.line.get(), self.deeper()?);
            let mut entries = Entries::default();
            while let Some(key) = members.next_key::<String>()? {
                let line = self.line.get();
                entries
                    .claim(&key, line)
                    .map_err(|error| self.refuse::<A::Error>(error))?;
                let value = members.next_value_seed(inner)?.value;
                entries.entries.push((key, Node { line, value }));
            }
            Ok(Node {
                line,
                value: Value::Map(entries.entries),
            })
        }
    }
}

pub(super) mod toml {
    //! TOML through the toml crate, which keeps spans, bounds nesting and refuses duplicates itself.

    use toml::Spanned;
    use toml::de::{DeTable, DeValue};

    use super::{MAX_DEPTH, Node, SyntaxError, Value};

    pub(in super::super) fn parse(text: &str) -> Result<Node, SyntaxError> {
        let lines = Lines::of(text);
        let table = DeTable::parse(text).map_err(|error| SyntaxError {
            line: error.span().map(|span| lines.at(span.start)),
            // Not `to_string()`, which quotes the line: a token may stand in it.
            message: error.message().to_owned(),
        })?;
        Ok(Node {
            line: 1,
            value: map(table.get_ref(), &lines, 0)?,
        })
    }

    /// Offsets at which lines end, so that a span's line is a binary search away.
    struct Lines(Vec<usize>);

    impl Lines {
        fn of(text: &str) -> Self {
            Lines(text.match_indices('\n').map(|(offset, _)| offset).collect())
        }

        fn at(&self, offset: usize) -> usize {
            self.0.partition_point(|end| *end < offset) + 1
        }
    }

    fn map(table: &DeTable<'_>, lines: &Lines, depth: usize) -> Result<Value, SyntaxError> {
        let mut entries = table
            .iter()
            .map(|(key, value)| {
                let line = lines.at(key.span().start);
                let value = convert(value, lines, depth + 1)?.value;
                Ok((key.get_ref().clone().into_owned(), Node { line, value }))
            })
            .collect::<Result<Vec<_>, _>>()?;
        entries.sort_by_key(|(_, node)| node.line);
        Ok(Value::Map(entries))
    }

    fn convert(node: &Spanned<DeValue<'_>>, lines: &Lines, depth: usize) -> Result<Node, SyntaxError> {
        let line = lines.at(node.span().start);
        if depth > MAX_DEPTH {
            return Err(SyntaxError::too_deep(line));
        }
        let value = match node.get_ref() {
            DeValue::String(text) => Value::Text(text.clone().into_owned()),
            DeValue::Boolean(truth) => Value::Bool(*truth),
            DeValue::Integer(number) => i64::from_str_radix(&number.as_str().replace('_', ""), number.radix())
                .map_or(Value::Other("a number out of range"), Value::Integer),
            DeValue::Float(_) => Value::Other("a number that is not whole"),
            DeValue::Datetime(_) => Value::Other("a date"),
            DeValue::Array(nodes) => Value::List(
                nodes
                    .iter()
                    .map(|node| convert(node, lines, depth + 1))
                    .collect::<Result<_, _>>()?,
            ),
            DeValue::Table(table) => map(table, lines, depth)?,
        };
        Ok(Node { line, value })
    }
}
