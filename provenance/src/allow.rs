//! What an `#[egress]` function may send: one rule, asked by the compiler of what its `#[payload]`
//! types declare, and at run time of what was found in the bytes.

use crate::tracked::{Field, Tracked};

/// The predecessor's keys, and the shorthand that people write, sorted; `preferences.*` is
/// `user.account.settings.*` throughout.
pub(crate) const ALIASES: &[(&str, &str)] = &[
    ("contact.city", "user.contact.address.city"),
    ("contact.country", "user.contact.address.country"),
    ("contact.mobile", "user.contact.phone_number"),
    ("contact.name", "user.name"),
    ("contact.phone", "user.contact.phone_number"),
    ("contact.postal_code", "user.contact.address.postal_code"),
    ("contact.street", "user.contact.address.street"),
    ("financial.account", "user.financial.bank_account"),
    ("financial.amount", "user.financial.expense"),
    ("financial.card", "user.financial.credit_card"),
    ("financial.currency", "user.financial.currency"),
    ("financial.expense", "user.financial.expense"),
    ("financial.iban", "user.financial.bank_account"),
    ("financial.income", "user.financial.income"),
    ("financial.salary", "user.financial.income"),
    ("personal.address", "user.contact.address"),
    ("personal.birth_date", "user.demographic.date_of_birth"),
    ("personal.birthday", "user.demographic.date_of_birth"),
    ("personal.date_of_birth", "user.demographic.date_of_birth"),
    ("personal.email", "user.contact.email"),
    ("personal.first_name", "user.name.first"),
    ("personal.gender", "user.demographic.gender"),
    ("personal.language", "user.demographic.language"),
    ("personal.last_name", "user.name.last"),
    ("personal.marital_status", "user.demographic.marital_status"),
    ("personal.name", "user.name"),
    ("personal.phone", "user.contact.phone_number"),
    ("personal.username", "user.account.username"),
    ("security.credentials", "user.authorization.credentials"),
    ("security.otp", "user.authorization.credentials"),
    ("security.password", "user.authorization.password"),
    ("security.pin", "user.authorization.credentials"),
    ("security.token", "user.authorization.credentials"),
];

/// A category in full: `contact.email` is `("user.", "contact.email")`. In two parts, because the
/// compiler joins no text.
#[derive(Clone, Copy)]
pub(crate) struct Key<'a> {
    pub(crate) head: &'static str,
    pub(crate) tail: &'a str,
}

impl<'a> Key<'a> {
    /// The canonical key of a category as written.
    pub(crate) const fn of(written: &'a str) -> Self {
        let mut at = 0;
        while at < ALIASES.len() {
            let (alias, canonical) = ALIASES[at];
            if begins(written, alias) && written.len() == alias.len() {
                return Key {
                    head: canonical,
                    tail: "",
                };
            }
            at += 1;
        }
        if begins(written, "preferences.") {
            let (_, preference) = written.split_at("preferences.".len());
            return Key {
                head: "user.account.settings.",
                tail: preference,
            };
        }
        let full = is_at_or_below(written, "user") || is_at_or_below(written, "system") || is_at_or_below(written, "x");
        Key {
            head: if full { "" } else { "user." },
            tail: written,
        }
    }

    const fn len(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    const fn byte(&self, at: usize) -> u8 {
        match at.checked_sub(self.head.len()) {
            Some(at) => self.tail.as_bytes()[at],
            None => self.head.as_bytes()[at],
        }
    }

    /// Whether this is `other`, or a category below it.
    const fn is_of(&self, other: &Key<'_>) -> bool {
        if self.len() < other.len() || (self.len() > other.len() && self.byte(other.len()) != b'.') {
            return false;
        }
        let mut at = 0;
        while at < other.len() {
            if self.byte(at) != other.byte(at) {
                return false;
            }
            at += 1;
        }
        true
    }
}

/// Whether `category` may leave under `allow`: it is listed, or below one that is.
pub(crate) const fn allows(allow: &[&str], category: &str) -> bool {
    let category = Key::of(category);
    let mut at = 0;
    while at < allow.len() {
        if category.is_of(&Key::of(allow[at])) {
            return true;
        }
        at += 1;
    }
    false
}

const fn begins(text: &str, with: &str) -> bool {
    matches!(text.as_bytes().split_at_checked(with.len()), Some((head, _)) if same(head, with.as_bytes()))
}

const fn same(one: &[u8], other: &[u8]) -> bool {
    let mut at = 0;
    while at < one.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// `user` and `user.name`, not `username`.
const fn is_at_or_below(text: &str, top: &str) -> bool {
    begins(text, top) && (text.len() == top.len() || text.as_bytes()[top.len()] == b'.')
}

/// What an `#[egress(allow(..))]` function promises. Generated code implements it.
pub trait Policy {
    /// The function's name.
    const FUNCTION: &'static str;
    /// The categories that may leave.
    const ALLOW: &'static [&'static str];
}

/// A type that is mentioned in what leaves. One that declares something is asked; every other one
/// ([`Undeclared`]) has nothing to say.
pub struct Of<T: ?Sized>(std::marker::PhantomData<T>);

impl<T: Tracked> Of<T> {
    /// Asks the type. Never called: the compiler answers when it sees the name.
    pub fn may_leave<P: Policy>() {
        let _: fn() = T::may_leave::<P>;
    }
}

/// The answer of a type without declarations.
pub trait Undeclared {
    /// Nothing is asked.
    fn may_leave<P: Policy>() {}
}

impl<T: ?Sized> Undeclared for Of<T> {}

/// As [`Of::may_leave`], of an argument whose type has no name (`impl Tracked`).
pub fn value_may_leave<P: Policy, T: Tracked>(_: &T) {
    let _: fn() = T::may_leave::<P>;
}

/// One declared field of a type that leaves; evaluated by the compiler.
///
/// # Panics
/// In the compiler alone: the field's category is not allowed. The panic is the build's error.
#[track_caller]
pub const fn field_may_leave<P: Policy>(type_name: &str, field: &Field) {
    if !allows(P::ALLOW, field.category) {
        let message = Message::new()
            .then("egress policy: `")
            .then(P::FUNCTION)
            .then("` sends `")
            .then(type_name)
            .then("`, which carries `")
            .then(field.name)
            .then("` (")
            .then(field.category)
            .then("): its allow(..) does not list that. Allow the category, or send a type without the field");
        panic!("{}", message.text());
    }
}

/// Text that the compiler joins.
struct Message {
    bytes: [u8; 512],
    len: usize,
}

impl Message {
    const fn new() -> Self {
        Message {
            bytes: [0; 512],
            len: 0,
        }
    }

    /// Appends what there is room for.
    const fn then(mut self, text: &str) -> Self {
        let mut at = 0;
        while at < text.len() && self.len < self.bytes.len() {
            self.bytes[self.len] = text.as_bytes()[at];
            self.len += 1;
            at += 1;
        }
        self
    }

    const fn text(&self) -> &str {
        match std::str::from_utf8(self.bytes.split_at(self.len).0) {
            Ok(text) => text,
            // Cut within a character.
            Err(_) => "egress policy: a `#[payload]` carries a field whose category is not in allow(..)",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_category_allows_what_is_below_it() {
        assert!(allows(&["contact.email"], "contact.email"));
        assert!(allows(&["contact.email"], "user.contact.email"));
        assert!(allows(&["user.contact"], "contact.email"));
        assert!(allows(&["financial", "contact"], "contact.address.city"));
        assert!(!allows(&["contact.email"], "contact"));
        assert!(!allows(&["contact.email"], "contact.email_hash"));
        assert!(!allows(&["financial.income"], "contact.email"));
        assert!(!allows(&[], "contact.email"));
    }
}
