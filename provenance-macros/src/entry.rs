//! Where an attribute stands, and the inventory entry that it leaves in the binary.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::ext::IdentExt;
use syn::{Ident, LitStr, Path, Type};

use crate::attr::{Declared, Shared};

/// The place of one attribute.
pub(crate) struct Place {
    /// The last part of its path: the item's identifier, or what `name = ".."` says.
    pub(crate) name: String,
    /// Relative to the package or workspace, with `/`; `unknown` outside the compiler.
    file: String,
    line: u32,
}

impl Place {
    /// The place of the attribute in hand, which stands on `ident`.
    pub(crate) fn new(ident: &Ident, shared: &Shared) -> Self {
        let (file, line) = location();
        Place {
            name: shared
                .name
                .as_ref()
                .map_or_else(|| ident.unraw().to_string(), LitStr::value),
            file,
            line,
        }
    }

    /// An expression of type `Site`, fit for a static.
    pub(crate) fn site(&self, shared: &Shared) -> TokenStream {
        let krate = &shared.krate;
        let Place { name, file, line } = self;
        let terms = shared.terms();
        let terms = if terms.iter().all(|(_, value)| value.is_none()) {
            quote!(#krate::__private::Terms::NONE)
        } else {
            let terms = terms.map(|(key, value)| {
                let key = Ident::new(key, Span::call_site());
                let value = optional(value);
                quote!(#key: #value)
            });
            quote!(#krate::__private::Terms { #(#terms),* })
        };
        quote! {
            #krate::__private::Site {
                path: ::core::concat!(::core::module_path!(), "::", #name),
                file: #file,
                line: #line,
                terms: #terms,
            }
        }
    }
}

/// An inventory entry: one JSON object on one line. INVENTORY.md describes it.
pub(crate) struct Entry {
    krate: Path,
    head: String,
    name: String,
    tail: Object,
    unless_read: Option<Type>,
}

impl Entry {
    /// Of `kind` `model`, `tracked`, `input`, `unvisited`, `egress` or `derived`, with the members that all have.
    pub(crate) fn new(kind: &str, place: &Place, shared: &Shared) -> Self {
        let head = format!(r#"{{"v":1,"kind":{},"path":""#, quoted(kind));
        let mut tail = Object::default()
            .string("at", &format!("{}:{}", place.file, place.line))
            .string("crate", &std::env::var("CARGO_PKG_NAME").unwrap_or_default());
        for (key, value) in shared.terms() {
            if let Some(value) = value {
                tail = tail.string(key, &value.value());
            }
        }
        Entry {
            krate: shared.krate.clone(),
            head,
            name: place.name.clone(),
            tail,
            unless_read: None,
        }
    }

    /// Adds members of its own.
    pub(crate) fn with(mut self, add: impl FnOnce(Object) -> Object) -> Self {
        self.tail = add(self.tail);
        self
    }

    /// Puts `what` behind the path.
    pub(crate) fn of(mut self, what: &str) -> Self {
        self.name.push_str(what);
        self
    }

    /// Leaves the entry out if the compiler finds that an extractor of this type can be visited.
    pub(crate) fn unless_read(mut self, ty: Type) -> Self {
        self.unless_read = Some(ty);
        self
    }

    /// The item that puts the entry into the binary; allowed wherever items are.
    pub(crate) fn emit(self) -> TokenStream {
        let krate = self.krate;
        let head = self.head;
        // `path` stands inside a JSON string, between `head` and `tail`.
        let path = quoted(&self.name);
        let path = path.trim_start_matches('"');
        let path = path.strip_suffix('"').unwrap_or(path);
        let tail = format!("\",{}", self.tail.0) + "}";
        let unless_read = self.unless_read.map(|ty| quote!(unless_read: #ty,));
        quote! {
            #krate::inventory_entry! { #unless_read head: #head, path: #path, tail: #tail }
        }
    }
}

/// The members of a JSON object, in the order in which they are added.
#[derive(Default)]
pub(crate) struct Object(String);

impl Object {
    pub(crate) fn string(self, key: &str, value: &str) -> Self {
        self.raw(key, &quoted(value))
    }

    /// A string, or `null`.
    pub(crate) fn optional(self, key: &str, value: Option<&str>) -> Self {
        self.raw(key, &value.map_or_else(|| "null".to_owned(), quoted))
    }

    pub(crate) fn strings<'v>(self, key: &str, values: impl IntoIterator<Item = &'v str>) -> Self {
        let values: Vec<String> = values.into_iter().map(quoted).collect();
        self.raw(key, &format!("[{}]", values.join(",")))
    }

    pub(crate) fn objects(self, key: &str, values: impl IntoIterator<Item = Object>) -> Self {
        let values: Vec<String> = values.into_iter().map(|object| format!("{{{}}}", object.0)).collect();
        self.raw(key, &format!("[{}]", values.join(",")))
    }

    /// What a declaration says: category, description, kind, pii, secret.
    pub(crate) fn declared(self, declared: &Declared) -> Self {
        let text = |value: &Option<LitStr>| value.as_ref().map(LitStr::value);
        self.string("category", &declared.category.value())
            .string("description", &text(&declared.description).unwrap_or_default())
            .optional("value_kind", text(&declared.kind).as_deref())
            .raw("pii", if declared.pii.unwrap_or(true) { "true" } else { "false" })
            .raw(
                "secret",
                match declared.secret {
                    Some(true) => "true",
                    Some(false) => "false",
                    None => "null",
                },
            )
    }

    fn raw(mut self, key: &str, json: &str) -> Self {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        self.0.push_str(&quoted(key));
        self.0.push(':');
        self.0.push_str(json);
        self
    }
}

/// `Some("text")` or `None`, as tokens.
pub(crate) fn optional<T: quote::ToTokens>(value: Option<T>) -> TokenStream {
    match value {
        Some(value) => quote!(::core::option::Option::Some(#value)),
        None => quote!(::core::option::Option::None),
    }
}

/// A JSON string (RFC 8259).
fn quoted(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for c in text.chars() {
        match c {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            c if u32::from(c) < 0x20 => json.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => json.push(c),
        }
    }
    json.push('"');
    json
}

fn location() -> (String, u32) {
    // Unit tests run outside the compiler, where spans have no place.
    if !proc_macro::is_available() {
        return ("unknown".to_owned(), 0);
    }
    let span = proc_macro::Span::call_site();
    let root = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let file = relative(&span.file(), &root);
    (file, u32::try_from(span.line()).unwrap_or(0))
}

/// `file` without what it tells of the machine: crates outside the workspace, and generated
/// code, are named by absolute paths.
fn relative(file: &str, root: &str) -> String {
    let path = std::path::Path::new(file);
    let path = path.strip_prefix(root).unwrap_or(path);
    let path = match path.file_name() {
        Some(name) if path.is_absolute() => name.as_ref(),
        _ => path,
    };
    path.to_string_lossy().replace('\\', "/")
}

#[cfg(test)]
mod tests {
    use super::{quoted, relative};

    #[test]
    fn places_do_not_tell_of_the_machine() {
        assert_eq!(relative("crm/src/users.rs", "/home/ada/crm"), "crm/src/users.rs");
        assert_eq!(relative("/home/ada/crm/src/users.rs", "/home/ada/crm"), "src/users.rs");
        assert_eq!(relative("/home/ada/crm2/src/users.rs", "/home/ada/crm"), "users.rs");
        assert_eq!(
            relative("/home/ada/target/out/generated.rs", "/home/ada/crm"),
            "generated.rs"
        );
    }

    #[test]
    fn json_strings_are_escaped() {
        assert_eq!(quoted("a\"b\\c\n\u{1}é"), r#""a\"b\\c\n\u0001é""#);
    }
}
