//! Identifiers of people, as commands are given them. None is ever repeated in a message.

use std::io::BufRead;

use provenance::{Owner, Pseudonyms};

use super::output::Failure;

/// Longest line that may be an identifier.
const MAX_LINE: usize = 4096;

/// What a line holds.
pub(super) enum Line {
    /// White space.
    Empty,
    /// An identifier, as written, and the pseudonym it has in the evidence.
    Person(String, Owner),
    /// Something else.
    Unusable,
}

/// Reads lines that may be of any length, one at a time.
pub(super) struct Lines<R>(R);

impl<R: BufRead> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        Lines(reader)
    }

    /// The next line; `None` at the end. Of a line that is too long for an identifier, nothing is kept.
    pub(super) fn next(&mut self, pseudonyms: &Pseudonyms) -> std::io::Result<Option<Line>> {
        let Some(line) = self.line()? else { return Ok(None) };
        Ok(Some(match line {
            Some(line) => match std::str::from_utf8(&line).map(|text| text.trim_start_matches('\u{feff}').trim()) {
                Ok("") => Line::Empty,
                Ok(text) => match owner(pseudonyms, text) {
                    Some(owner) => Line::Person(text.to_owned(), owner),
                    None => Line::Unusable,
                },
                Err(_) => Line::Unusable,
            },
            None => Line::Unusable,
        }))
    }

    fn line(&mut self) -> std::io::Result<Option<Option<Vec<u8>>>> {
        let (mut line, mut long, mut any) = (Vec::new(), false, false);
        loop {
            let chunk = match self.0.fill_buf() {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                chunk => chunk?,
            };
            if chunk.is_empty() {
                return Ok(any.then_some((!long).then_some(line)));
            }
            any = true;
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let part = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or_default();
            long |= line.len() + part.len() > MAX_LINE;
            if !long {
                line.extend_from_slice(part);
            }
            let used = end.map_or(chunk.len(), |end| end + 1);
            self.0.consume(used);
            if end.is_some() {
                return Ok(Some((!long).then_some(line)));
            }
        }
    }
}

/// The person whom `email:ada@example.com`, `user:7` or a bare address names.
pub(super) fn owner(pseudonyms: &Pseudonyms, text: &str) -> Option<Owner> {
    match text.split_once(':') {
        Some((kind, value)) if is_kind(kind) => pseudonyms.owner(kind, value.trim()),
        _ if text.contains('@') => pseudonyms.owner("email", text),
        _ => None,
    }
}

fn is_kind(kind: &str) -> bool {
    kind.starts_with(|c: char| c.is_ascii_lowercase())
        && kind
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// What to write instead of what is no identifier.
pub(super) fn expected() -> Failure {
    Failure::said(
        "--owner: expected an identifier such as email:ada@example.com or user:7 (or - to read them from standard input)",
    )
}
