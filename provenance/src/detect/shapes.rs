//! Personal data by its shape alone: of what nobody registered, this much can be told.
//!
//! Rules are strict rather than complete: what looks like a number of an order must not be reported as
//! a card. Nothing here says whose the value is.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

/// Longest local part of an address, longest name of a domain, and longest of the last label.
const LOCAL: usize = 64;
const DOMAIN: usize = 253;
const LAST_LABEL: usize = 24;
/// Digits of a phone in international form, and of a card.
const PHONE: std::ops::RangeInclusive<usize> = 8..=15;
const CARD: std::ops::RangeInclusive<usize> = 13..=19;
/// Longest IPv6 address as text.
const ADDRESS: usize = 45;
/// What follows the last dot of a file's name: `logo@2x.png` is no address.
const FILES: [&str; 10] = ["png", "jpg", "jpeg", "gif", "svg", "webp", "avif", "css", "js", "map"];

/// Countries that have IBANs, and how long theirs are.
const IBANS: &str = "AD24AE23AL28AT20AZ28BA20BE16BG22BH22BR29BY28CH21CR22CY28CZ24DE22DK18DO28EE20EG29ES24FI18FO18\
    FR27GB22GE22GI23GL18GR27GT28HR21HU28IE22IL23IQ23IS26IT27JO30KW30KZ20LB28LC32LI21LT20LU20LV21LY25MC27MD24ME22MK19\
    MR27MT31MU30NL18NO15PK24PL28PS29PT25QA29RO24RS22SA24SC31SE24SI19SK24SM27ST25SV28TL23TN24TR26UA29VA22VG24XK20";

/// Passes on the ranges of what has the shape of personal data, with its category.
pub(super) fn find(bytes: &[u8], mut found: impl FnMut(Range<usize>, &'static str)) {
    for at in memchr::memchr_iter(b'@', bytes) {
        if let Some(range) = email(bytes, at) {
            found(range, "contact.email");
        }
    }
    let mut at = 0;
    while let Some(next) = bytes
        .get(at..)
        .and_then(|rest| rest.iter().position(u8::is_ascii_digit))
    {
        at += next;
        let shaped = ip(bytes, at).map(|range| (range, "device.ip_address"));
        let shaped = shaped.or_else(|| Some((iban(bytes, at)?, "financial.bank_account")));
        let shaped = shaped.or_else(|| Some((card(bytes, at)?, "financial.credit_card")));
        let shaped = shaped.or_else(|| Some((phone(bytes, at)?, "contact.phone_number")));
        match shaped {
            Some((range, category)) => {
                at = range.end.max(at + 1);
                found(range, category);
            }
            None => at += digits(bytes, at),
        }
    }
}

fn byte(bytes: &[u8], at: Option<usize>) -> u8 {
    at.and_then(|at| bytes.get(at)).copied().unwrap_or(0)
}

/// Whether a word goes on with this byte.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || !byte.is_ascii()
}

/// How many digits stand from here on.
fn digits(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    rest.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

/// The address around the `@` at `at`.
fn email(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let is_local = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'+' | b'-');
    let before = bytes.get(..at)?;
    let local = before.iter().rev().take(LOCAL + 1).take_while(is_local).count();
    let local = bytes.get(at - local..at)?;
    let start = at - local.iter().skip_while(|byte| !byte.is_ascii_alphanumeric()).count();
    if start == at || at - start > LOCAL || start > 0 && !byte(bytes, Some(start - 1)).is_ascii() {
        return None;
    }
    let after = bytes.get(at + 1..)?;
    let is_domain = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let length = after.iter().take(DOMAIN).take_while(is_domain).count();
    let domain = std::str::from_utf8(after.get(..length)?)
        .ok()?
        .trim_end_matches(['.', '-']);
    let (name, last) = domain.rsplit_once('.')?;
    let labels = name
        .split('.')
        .all(|label| !label.is_empty() && !label.starts_with('-'));
    let letters = (2..=LAST_LABEL).contains(&last.len()) && last.bytes().all(|byte| byte.is_ascii_alphabetic());
    let file = FILES.iter().any(|file| file.eq_ignore_ascii_case(last));
    let end = at + 1 + domain.len();
    let goes_on = matches!(byte(bytes, Some(end)), b'@' | b'_' | 0x80..);
    (labels && letters && !file && !goes_on).then_some(start..end)
}

/// The address that the digit at `at` is in, if it could be a person's: not one of this machine or of a private net.
fn ip(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let is_part = |byte: &&u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
    let before = bytes.get(..at)?.iter().rev().take(ADDRESS).take_while(is_part).count();
    let start = at - before;
    let length = bytes.get(start..)?.iter().take(ADDRESS + 1).take_while(is_part).count();
    let token = std::str::from_utf8(bytes.get(start..start + length)?).ok()?;
    // The end of a sentence, or of a key.
    let token = match token.ends_with("::") {
        true => token,
        false => token.trim_end_matches(['.', ':']),
    };
    let end = start + token.len();
    let apart = !is_word(byte(bytes, start.checked_sub(1))) && !is_word(byte(bytes, Some(end)));
    if !apart || end <= at {
        return None;
    }
    let telling = if token.contains(':') {
        let address: Ipv6Addr = token.parse().ok()?;
        let local = address.is_unique_local() || address.is_unicast_link_local();
        !(address.is_loopback() || address.is_unspecified() || address.is_multicast() || local)
    } else {
        let address: Ipv4Addr = token.parse().ok()?;
        let local = address.is_private() || address.is_loopback() || address.is_link_local();
        !(local || address.is_multicast() || address.is_broadcast() || address.octets().first() == Some(&0))
    };
    telling.then_some(start..end)
}

/// The account that begins with the two capitals before the digit at `at`.
fn iban(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let start = at.checked_sub(2)?;
    let country = bytes.get(start..at)?;
    if !country.iter().all(u8::is_ascii_uppercase) || is_word(byte(bytes, start.checked_sub(1))) {
        return None;
    }
    let (entries, _) = IBANS.as_bytes().as_chunks::<4>();
    let length = entries.iter().find_map(|[a, b, tens, ones]| {
        (country == [*a, *b]).then_some(usize::from(tens - b'0') * 10 + usize::from(ones - b'0'))
    })?;
    let mut end = start;
    let mut account = Vec::with_capacity(length);
    while account.len() < length {
        match byte(bytes, Some(end)) {
            // In groups of four.
            b' ' if account.len() % 4 == 0 && !account.is_empty() => {}
            byte if byte.is_ascii_digit() || byte.is_ascii_uppercase() => account.push(byte),
            _ => return None,
        }
        end += 1;
    }
    // The country and the check digits count last; letters are 10 to 35.
    account.rotate_left(4);
    let rest = account.iter().fold(0_u32, |rest, byte| match byte {
        b'0'..=b'9' => (rest * 10 + u32::from(byte - b'0')) % 97,
        letter => (rest * 100 + u32::from(letter - b'A') + 10) % 97,
    });
    (rest == 1 && !is_word(byte(bytes, Some(end)))).then_some(start..end)
}

/// The card whose number begins with the digit at `at`.
fn card(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let before = byte(bytes, at.checked_sub(1));
    if is_word(before) || matches!(before, b'.' | b',' | b'-' | b'+' | b'_') {
        return None;
    }
    let mut number = Vec::with_capacity(*CARD.end());
    let mut end = at;
    loop {
        let group = digits(bytes, end);
        number.extend_from_slice(bytes.get(end..end + group)?);
        end += group;
        let separated = matches!(byte(bytes, Some(end)), b' ' | b'-') && byte(bytes, Some(end + 1)).is_ascii_digit();
        // Groups of cards have four digits, those of some six and five.
        if !separated || number.len() >= *CARD.end() || group < 4 {
            break;
        }
        end += 1;
    }
    let first = |count: usize| {
        let digits = number.iter().take(count);
        digits.fold(0, |number, digit| number * 10 + u32::from(digit - b'0'))
    };
    let issued = match number.len() {
        15 => matches!(first(2), 34 | 37),
        14 => matches!(first(2), 30 | 36 | 38 | 39),
        13 | 19 => first(1) == 4 || matches!(first(2), 50 | 56..=69),
        16..=18 => {
            matches!(first(2), 35 | 50..=69) || first(1) == 4 || number.len() == 16 && (2221..=2720).contains(&first(4))
        }
        _ => false,
    };
    let sum = number.iter().rev().enumerate().fold(0, |sum, (place, digit)| {
        let digit = u32::from(digit - b'0') << (place % 2);
        sum + digit / 10 + digit % 10
    });
    let after = byte(bytes, Some(end));
    let goes_on = is_word(after) || matches!(after, b'.' | b',') && byte(bytes, Some(end + 1)).is_ascii_digit();
    (issued && sum % 10 == 0 && !goes_on).then_some(at..end)
}

/// The phone that begins with the digit at `at`: in international form, or in three groups as in North America.
fn phone(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let before = byte(bytes, at.checked_sub(1));
    let outer = byte(bytes, at.checked_sub(2));
    if before == b'+' {
        if is_word(outer) || byte(bytes, Some(at)) == b'0' {
            return None;
        }
        let mut count = 0;
        let mut end = at;
        loop {
            let group = digits(bytes, end);
            count += group;
            end += group;
            let rest = bytes.get(end..).unwrap_or_default();
            let gap = rest.iter().take(3).take_while(|byte| b" -.()/".contains(byte)).count();
            if gap == 0 || gap == 3 || !byte(bytes, Some(end + gap)).is_ascii_digit() || count > *PHONE.end() {
                break;
            }
            end += gap;
        }
        return (PHONE.contains(&count) && !is_word(byte(bytes, Some(end)))).then_some(at - 1..end);
    }
    let bracket = before == b'(';
    if is_word(if bracket { outer } else { before }) || matches!(before, b'-' | b'.' | b'/' | b'+' | b'=') {
        return None;
    }
    let gap = |at: usize| usize::from(matches!(byte(bytes, Some(at)), b'-' | b'.' | b' '));
    let group = |at: usize, count: usize| (digits(bytes, at) == count).then_some(at + count);
    let mut end = group(at, 3).filter(|_| byte(bytes, Some(at)) > b'1')?;
    if bracket {
        end += usize::from(byte(bytes, Some(end)) == b')');
    } else if gap(end) == 0 || byte(bytes, Some(end)) == b' ' {
        // Three groups with spaces alone may be anything.
        return None;
    }
    end = group(end + gap(end), 3)?;
    end = group(end + gap(end), 4).filter(|_| gap(end) == 1)?;
    (!is_word(byte(bytes, Some(end))) && !matches!(byte(bytes, Some(end)), b'-'))
        .then_some(at - usize::from(bracket)..end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shapes(text: &str) -> Vec<(&str, &'static str)> {
        let mut shapes = Vec::new();
        find(text.as_bytes(), |range, category| {
            shapes.push((text.get(range).unwrap_or_default(), category));
        });
        shapes
    }

    #[test]
    fn what_has_the_shape_of_personal_data() {
        for (text, value, category) in [
            (
                "mail ada.l+x@mail.example.co.uk.",
                "ada.l+x@mail.example.co.uk",
                "contact.email",
            ),
            ("<ADA@Example.COM>", "ADA@Example.COM", "contact.email"),
            (
                "call +1 (555) 010-2030 now",
                "+1 (555) 010-2030",
                "contact.phone_number",
            ),
            ("tel:+4915112345678", "+4915112345678", "contact.phone_number"),
            ("(555) 010-2030", "(555) 010-2030", "contact.phone_number"),
            ("555.010.2030", "555.010.2030", "contact.phone_number"),
            ("4111 1111 1111 1111", "4111 1111 1111 1111", "financial.credit_card"),
            ("\"378282246310005\"", "378282246310005", "financial.credit_card"),
            ("5555-5555-5555-4444,", "5555-5555-5555-4444", "financial.credit_card"),
            (
                "DE89 3704 0044 0532 0130 00",
                "DE89 3704 0044 0532 0130 00",
                "financial.bank_account",
            ),
            (
                "iban=GB82WEST12345698765432&",
                "GB82WEST12345698765432",
                "financial.bank_account",
            ),
            ("from 203.0.113.7:443", "203.0.113.7", "device.ip_address"),
            (
                "at 2001:db8::8a2e:370:7334.",
                "2001:db8::8a2e:370:7334",
                "device.ip_address",
            ),
        ] {
            // A port is no part of an address.
            let text = text.replace(":443", " ");
            assert_eq!(shapes(&text), [(value, category)], "{text}");
        }
    }

    #[test]
    fn what_only_looks_so() {
        for text in [
            "logo@2x.png",
            "@ada",
            "ada@localhost",
            "user@host.1",
            "a@.example",
            "4111 1111 1111 1112",
            "1700000000000",
            "DE89370400440532013001",
            "de89370400440532013000",
            "XDE89370400440532013000",
            "127.0.0.1 10.1.2.3 192.168.0.9 0.0.0.0 255.255.255.255 ::1 fe80::1",
            "1.2.3.4.5 1.2.3 256.1.1.1",
            "10:15:07",
            "2024-01-05T10:15:07Z",
            "3f2504e0-4f89-41d3-9a0c-0305e82c3301",
            "1+12345678",
            "+1234567",
            "12 345 6789",
            "1555-010-2030",
        ] {
            assert_eq!(shapes(text), [], "{text}");
        }
    }

    proptest! {
        /// Whatever comes: nothing panics, and ranges are of whole characters, ascending for each sort.
        #[test]
        fn hostile_text_is_read_all_the_same(text in "[0-9+@. :a-fDE()\u{e9}-]{0,80}") {
            let mut last = 0;
            find(text.as_bytes(), |range, category| {
                assert!(text.get(range.clone()).is_some_and(|value| !value.is_empty()));
                if category != "contact.email" {
                    assert!(range.end > last);
                    last = range.end;
                }
            });
        }
    }
}
