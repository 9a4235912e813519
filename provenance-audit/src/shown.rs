//! Text of the evidence, made harmless for where it is shown.

/// Text out of a file that is not trusted: no control characters reach the terminal.
pub(crate) fn shown(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() || is_bidirectional(c) {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

/// Characters that make a terminal show text in another order than it has.
pub(crate) fn is_bidirectional(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The same inside Markdown: nothing in it is markup.
pub(crate) fn cell(text: &str) -> String {
    let mut cell = String::with_capacity(text.len());
    for c in shown(text).chars() {
        match c {
            '&' => cell.push_str("&amp;"),
            '<' => cell.push_str("&lt;"),
            '>' => cell.push_str("&gt;"),
            '\\' | '|' | '`' | '*' | '_' | '[' | ']' | '#' | '!' => cell.extend(['\\', c]),
            c => cell.push(c),
        }
    }
    cell
}

/// Texts on one line; a dash for none.
pub(crate) fn listed<'t>(texts: impl IntoIterator<Item = &'t String>) -> String {
    let line = texts.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    if line.is_empty() { "-".to_owned() } else { line }
}
