//! `docs/diesel-matrix.md`, written from what the columns show.

use std::fmt::Write;
use std::path::Path;

use super::Outcome;
use super::cells::{COLUMNS, MATRIX, NOTES};

const INTRODUCTION: &str = "\
# What Diesel's operations leave in the evidence

Written by the test `matrix::every_cell`, which runs each operation on a real database, lets triggers write down
what was committed, and compares that with the DATA_STORAGE events, value by value. SQLite runs with the feature
`sqlite-probe`, all columns with `sql-fallback`. Renew it with
`PROVENANCE_RENEW=1 cargo nextest run -p provenance-tests --all-features -E 'test(matrix::every_cell)'`.

- **exact**: the events are certain, and equal to what was committed (nothing, where nothing was).
- **uncertain**: what was committed lies between the certain events and all of them; the note is the word in
  `extras.reason`.
- **not seen**: committed without an event, and counted as a blind spot.

No cell has a certain event for what was not committed.
";

/// The page; `seen` has a row for each of the matrix, a cell a column.
pub(super) fn page(seen: &[Vec<Outcome>]) -> String {
    let mut page = INTRODUCTION.to_owned();
    let mut notes = Notes::default();
    let mut seen = seen.iter();
    for (group, rows) in MATRIX {
        write!(page, "\n## {group}\n\n| operation |").unwrap();
        for column in COLUMNS {
            write!(page, " {column} |").unwrap();
        }
        page.push_str("\n|---|---|---|---|---|\n");
        for ((operation, _), outcomes) in rows.iter().zip(&mut seen) {
            write!(page, "| {} |", operation.replace('_', " ")).unwrap();
            for outcome in outcomes {
                write!(page, " {} |", notes.cell(outcome)).unwrap();
            }
            page.push('\n');
        }
    }
    page.push_str("\n## Notes\n\n");
    for (at, word) in notes.0.iter().enumerate() {
        let known = NOTES.iter().find(|(known, _)| known == word);
        let text = known.map_or("", |(_, text)| text);
        writeln!(page, "{}. `{word}`: {text}", at + 1).unwrap();
    }
    page
}

/// Words in the order of their first use.
#[derive(Default)]
struct Notes(Vec<String>);

impl Notes {
    fn cell(&mut self, outcome: &Outcome) -> String {
        match outcome {
            Outcome::Exact => "exact".into(),
            Outcome::Uncertain(words) => format!("uncertain{}", self.marks(words.iter())),
            Outcome::NotSeen(word) => format!("not seen{}", self.marks([word])),
            Outcome::Absent(word) => format!("-{}", self.marks([word])),
            Outcome::Wrong(_) => "**wrong**".into(),
        }
    }

    fn marks(&mut self, words: impl IntoIterator<Item = impl ToString>) -> String {
        let mut marks = String::new();
        for word in words {
            let word = word.to_string();
            let at = self.0.iter().position(|known| *known == word).unwrap_or_else(|| {
                self.0.push(word);
                self.0.len() - 1
            });
            write!(marks, " [{}]", at + 1).unwrap();
        }
        marks
    }
}

/// Fails where the file is not `page`, and says how to renew it.
pub(super) fn compare(page: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/diesel-matrix.md");
    if std::env::var_os("PROVENANCE_RENEW").is_some() {
        std::fs::write(&file, page).unwrap();
    }
    let found = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        found == page,
        "docs/diesel-matrix.md is not what the test saw. Run this test with PROVENANCE_RENEW=1, then read the diff."
    );
}
