//! Calendar dates as people write them.
//!
//! `1990-01-02`, `1990/1/2`, `02.01.1990`, `02/01/1990`, `19900102`, `2 January 1990`, `Jan 2nd, 1990`.
//! Where day and month could be exchanged the day comes first, as in most of the world, and the
//! other reading is given second, for search. Years have four digits.

/// The readings of one text, as ISO dates.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Readings {
    pub(crate) first: String,
    pub(crate) second: Option<String>,
}

/// Reads folded text that is a date, or a date and a time of day, as a whole.
pub(crate) fn read(folded: &str) -> Option<Readings> {
    let (length, readings) = at_start(folded.as_bytes())?;
    let rest = folded.as_bytes().get(length..)?;
    let time = match rest {
        [] => true,
        [b't' | b' ', digits @ ..] => {
            digits.first().is_some_and(u8::is_ascii_digit)
                && digits.len() <= 40
                && digits.iter().all(|b| b.is_ascii_digit() || b":.+-z ".contains(b))
        }
        _ => false,
    };
    time.then_some(readings)
}

/// The date at the start of folded `text`, with its length; nothing of the same word follows it,
/// except a time of day.
pub(crate) fn at_start(text: &[u8]) -> Option<(usize, Readings)> {
    let mut cursor = Cursor { text, at: 0 };
    let readings = match text.first()? {
        b'0'..=b'9' => cursor.digits_first()?,
        _ => cursor.month_first()?,
    };
    match text.get(cursor.at..)? {
        [b't', digit, ..] if digit.is_ascii_digit() => {}
        [next, ..] if next.is_ascii_alphanumeric() || !next.is_ascii() => return None,
        [b'-' | b'/' | b'.', digit, ..] if digit.is_ascii_digit() => return None,
        _ => {}
    }
    Some((cursor.at, readings))
}

struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn digits_first(&mut self) -> Option<Readings> {
        let (first, length) = self.number()?;
        match length {
            8 => {
                let year = first / 10_000;
                // Any eight digits could be a date; those of living people's lives are taken for one.
                (1900..2100).contains(&year).then_some(())?;
                one(year, first / 100 % 100, first % 100)
            }
            4 => {
                let separator = self.separator()?;
                let month = self.short()?;
                (self.separator()? == separator).then_some(())?;
                one(first, month, self.short()?)
            }
            1 | 2 => {
                if let Some(separator) = self.separator() {
                    if let Some(second) = self.short() {
                        (self.separator()? == separator).then_some(())?;
                        let year = self.year()?;
                        return either(year, first, second);
                    }
                } else {
                    self.ordinal();
                }
                self.gap();
                if self.word("of") {
                    self.gap();
                }
                let month = self.month()?;
                self.gap();
                one(self.year()?, month, first)
            }
            _ => None,
        }
    }

    fn month_first(&mut self) -> Option<Readings> {
        let month = self.month()?;
        self.gap();
        let day = self.short()?;
        self.ordinal();
        self.gap();
        one(self.year()?, month, day)
    }

    /// A run of digits, and how many there are.
    fn number(&mut self) -> Option<(u32, usize)> {
        let rest = self.text.get(self.at..)?;
        let length = rest.iter().take(9).take_while(|b| b.is_ascii_digit()).count();
        let digits = rest.get(..length).filter(|_| (1..=8).contains(&length))?;
        self.at += length;
        Some((digits.iter().fold(0, |n, b| n * 10 + u32::from(b - b'0')), length))
    }

    fn short(&mut self) -> Option<u32> {
        let before = self.at;
        let number = self.number().filter(|(_, length)| *length <= 2);
        if number.is_none() {
            self.at = before;
        }
        number.map(|(number, _)| number)
    }

    fn year(&mut self) -> Option<u32> {
        self.number().filter(|(_, length)| *length == 4).map(|(year, _)| year)
    }

    fn separator(&mut self) -> Option<u8> {
        let separator = *self.text.get(self.at)?;
        b"-/.".contains(&separator).then(|| {
            self.at += 1;
            separator
        })
    }

    /// What may stand between the words of a date.
    fn gap(&mut self) {
        let rest = self.text.get(self.at..).unwrap_or_default();
        self.at += rest.iter().take(2).take_while(|b| b" ,.-".contains(b)).count();
    }

    fn ordinal(&mut self) {
        let _ = self.word("st") || self.word("nd") || self.word("rd") || self.word("th");
    }

    fn word(&mut self, word: &str) -> bool {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let found = rest
            .strip_prefix(word.as_bytes())
            .is_some_and(|after| !after.first().is_some_and(u8::is_ascii_alphabetic));
        if found {
            self.at += word.len();
        }
        found
    }

    fn month(&mut self) -> Option<u32> {
        let begins = self.text.get(self.at..)?.first_chunk::<3>()?;
        let known = match begins {
            b"jan" => 0,
            b"feb" => 1,
            b"mar" => 2,
            b"apr" => 3,
            b"may" => 4,
            b"jun" => 5,
            b"jul" => 6,
            b"aug" => 7,
            b"sep" => 8,
            b"oct" => 9,
            b"nov" => 10,
            b"dec" => 11,
            _ => return None,
        };
        let name = MONTHS.get(known)?;
        let short = name.get(..3)?;
        let found = self.word(name) || self.word(short) || (known == 8 && self.word("sept"));
        found.then_some(u32::try_from(known + 1).ok()?)
    }
}

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

fn iso(year: u32, month: u32, day: u32) -> Option<String> {
    let date = jiff::civil::Date::new(year.try_into().ok()?, month.try_into().ok()?, day.try_into().ok()?);
    (year > 0).then_some(())?;
    date.ok().map(|date| date.to_string())
}

fn one(year: u32, month: u32, day: u32) -> Option<Readings> {
    let first = iso(year, month, day)?;
    Some(Readings { first, second: None })
}

fn either(year: u32, a: u32, b: u32) -> Option<Readings> {
    let day_first = iso(year, b, a);
    let month_first = iso(year, a, b).filter(|_| a != b);
    match (day_first, month_first) {
        (Some(first), second) => Some(Readings { first, second }),
        (None, Some(first)) => Some(Readings { first, second: None }),
        (None, None) => None,
    }
}
