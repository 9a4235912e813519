//! The look of pages.

use maud::{DOCTYPE, Markup, PreEscaped, html};

/// The style sheet of the audit pages.
pub(crate) const STYLE: &str = include_str!("sheet.css");

/// A whole page that needs nothing else: a file to be opened, or printed.
pub(crate) fn document(title: &str, style: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="referrer" content="no-referrer";
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                title { (title) }
                style { (PreEscaped(style)) }
            }
            body { (body) }
        }
    }
}
