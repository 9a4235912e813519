//! One scan: parts into leaves, leaves into searches, finds into hits.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::index::{Index, Known, Lane};
use super::json::{Piece, locate, shown, walk};
use super::sieve::{Outline, Sieve, runs};
use super::{Form, Hit, Limits, Media, Part, Scan, Shape, decode, shapes};
use crate::vocabulary::Fingerprint;
use crate::vocabulary::canonical::fold::Folded;

/// Most places at which one value is reported.
const PLACES: usize = 16;
/// Most shapes that are reported of a message.
const SHAPES: usize = 64;
/// How deep encodings are followed.
const LAYERS: usize = 3;
/// Decoded bytes that every message may have, and more for each byte of it.
const DECODED: usize = 8 << 10;
const DECODED_PER_BYTE: usize = 4;
/// Bytes that text may have when normalised, and more for each byte of it.
const FOLDED: usize = 64 << 10;
const FOLDED_PER_BYTE: usize = 3;
/// Effort (about a nanosecond each) that every message may cost, and more for each byte of it:
/// reached only by payloads made for it.
const EFFORT: usize = 16 << 20;
const EFFORT_PER_BYTE: usize = 64;
/// Most keys, and the longest, that are remembered as clean.
const CLEAN_KEYS: usize = 256;
const CLEAN_KEY: usize = 64;
/// Bytes that a compressed part may have when inflated, and more for each byte of it: text seldom
/// has so many, bombs have many times more.
const INFLATED: usize = 64 << 10;
const INFLATED_PER_BYTE: usize = 64;
/// Longest leaf that is sifted as it stands; longer ones are seldom free of line breaks.
const SIFTED: usize = 1 << 10;
/// What a look-up costs.
pub(super) const LOOKUP: usize = 16;

pub(super) struct Scanner<'d> {
    pub(super) index: &'d Index,
    pub(super) sieve: Sieve<'d>,
    limits: Limits,
    strong: Vec<Ranked>,
    weak: Vec<Ranked>,
    places: HashMap<Fingerprint, usize>,
    /// Keys in which nothing was found: most documents repeat theirs.
    clean_keys: HashSet<Vec<u8>>,
    /// Memory for folded text, used again: one for each layer.
    spare: Vec<Folded>,
    /// What has the shape of personal data, if that is asked for.
    shapes: Option<Vec<Shape>>,
    /// Shapes of the leaf in hand.
    shaped: Vec<(&'static str, Range<usize>)>,
    /// The sieve let the leaf in hand pass already.
    sifted: bool,
    /// The part in hand was compressed.
    inflated: bool,
    /// Memory for what the sieve lets pass.
    suspects: (Vec<usize>, Vec<usize>),
    leaves: usize,
    unscanned: usize,
    dropped: usize,
    decoded: usize,
    effort: usize,
}

/// A hit with its place in the order of the message: leaf, then position.
struct Ranked((usize, usize), Hit);

/// A leaf of a part.
#[derive(Clone, Copy)]
struct Spot<'a> {
    part: &'a str,
    /// `/user/email`, `query.`; empty for the part itself.
    path: &'a str,
    /// What follows the path: the name of a form's field, `/{key}` for a key itself.
    suffix: &'a str,
    key: Option<&'a str>,
    /// Whether a place says the range of bytes; they begin at this offset of the part.
    ranged: Option<usize>,
    /// The leaf is a key: weak values inside it mean nothing at all.
    is_key: bool,
    /// The leaf is a piece of JSON that was not followed: not to be taken for JSON in a string.
    is_json: bool,
}

impl Spot<'_> {
    /// The place of a range of it, or of it as a whole.
    fn place(&self, range: &Range<usize>, whole: bool) -> String {
        let mut place = self.part.to_owned();
        if !self.path.is_empty() || !self.suffix.is_empty() {
            place.push(':');
            place.push_str(self.path);
            place.push_str(self.suffix);
        }
        if let (Some(offset), false) = (self.ranged, whole && self.ranged == Some(0)) {
            place.push_str(&format!("@{}..{}", offset + range.start, offset + range.end));
        }
        place
    }
}

/// Where a search is: a leaf, or what was decoded from `outer` of it.
pub(super) struct At<'a> {
    spot: Spot<'a>,
    outer: Option<Range<usize>>,
    layers: usize,
    met: &'a mut HashMap<Fingerprint, Vec<Range<usize>>>,
}

impl<'a> At<'a> {
    fn decoded<'b>(&'b mut self, range: Range<usize>, key: Option<&'b str>) -> At<'b>
    where
        'a: 'b,
    {
        At {
            spot: Spot {
                key: key.or(self.spot.key),
                ..self.spot
            },
            outer: Some(self.outer.clone().unwrap_or(range)),
            layers: self.layers + 1,
            met: self.met,
        }
    }
}

/// A value met.
pub(super) struct Find {
    /// In the searched bytes.
    pub(super) range: Range<usize>,
    /// The leaf as a whole.
    pub(super) whole: bool,
    pub(super) form: Form,
}

impl<'d> Scanner<'d> {
    pub(super) fn new(index: &'d Index, limits: Limits, shapes: bool) -> Self {
        Scanner {
            index,
            sieve: Sieve::new(index, shapes),
            limits,
            strong: Vec::new(),
            weak: Vec::new(),
            places: HashMap::new(),
            clean_keys: HashSet::new(),
            spare: Vec::new(),
            shapes: shapes.then(Vec::new),
            shaped: Vec::new(),
            sifted: false,
            inflated: false,
            suspects: Default::default(),
            leaves: 0,
            unscanned: 0,
            dropped: 0,
            decoded: DECODED,
            effort: EFFORT,
        }
    }

    pub(super) fn finish(mut self) -> Scan {
        let room = self.limits.hits.saturating_sub(self.strong.len());
        self.dropped += self.weak.len().saturating_sub(room);
        self.weak.truncate(room);
        let mut ranked = self.strong;
        ranked.append(&mut self.weak);
        ranked.sort_by_key(|ranked| ranked.0);
        Scan {
            hits: ranked.into_iter().map(|ranked| ranked.1).collect(),
            shapes: self.shapes.unwrap_or_default(),
            unscanned: self.unscanned,
            dropped: self.dropped,
        }
    }

    pub(super) fn part(&mut self, part: &Part<'_>) {
        let bytes = match part.bytes.get(..self.limits.bytes) {
            Some(within) => within,
            None => part.bytes,
        };
        self.unscanned += part.bytes.len() - bytes.len();
        if self.index.is_empty() && self.shapes.is_none() {
            return;
        }
        self.decoded = self
            .decoded
            .saturating_add(bytes.len().saturating_mul(DECODED_PER_BYTE));
        self.effort = self.effort.saturating_add(bytes.len().saturating_mul(EFFORT_PER_BYTE));
        let most = INFLATED + bytes.len().saturating_mul(INFLATED_PER_BYTE);
        let before = self.unscanned;
        let mut broken = false;
        if let Some((inflated, whole)) = decode::inflate(bytes, most.min(self.limits.bytes)) {
            self.effort = self
                .effort
                .saturating_add(inflated.len().saturating_mul(EFFORT_PER_BYTE));
            self.inflated = true;
            match inflated.iter().find(|byte| !byte.is_ascii_whitespace()) {
                _ if part.media == Media::Form => self.pairs(&part.place, "", &inflated),
                Some(b'{' | b'[') => self.json(&part.place, &inflated),
                _ => self.text(&part.place, &inflated, 0, false),
            }
            self.inflated = false;
            if whole {
                return;
            }
            // Text that only begins so hides behind it else.
            broken = true;
        }
        match part.media {
            Media::Json => self.json(&part.place, bytes),
            Media::Form => self.pairs(&part.place, "", bytes),
            Media::Url => self.url(&part.place, bytes),
            Media::Text => self.text(&part.place, bytes, 0, false),
        }
        if broken {
            // Nobody can say how long the rest is; a bomb's is long.
            self.unscanned = before.saturating_add(bytes.len());
        }
    }

    fn json(&mut self, part: &str, bytes: &[u8]) {
        let mut outline = Outline::default();
        if self.sieve.json(bytes, self.limits.depth, &mut outline).is_none() {
            self.doubtful_json(part, bytes, 0);
            return;
        }
        self.sifted = true;
        locate(bytes, &outline, &mut |path, key, offset, piece| {
            let spot = Spot {
                part,
                path,
                suffix: "",
                key,
                ranged: None,
                is_key: false,
                is_json: false,
            };
            match piece {
                Piece::Leaf(leaf) => self.leaf(spot, leaf),
                Piece::Key(key) => self.key(part, path, "/{key}", key),
                Piece::Deep(rest) => {
                    self.doubtful_json(part, rest, offset);
                    true
                }
            }
        });
        self.sifted = false;
    }

    /// What is deep, broken off or no JSON at all, leaf by leaf and then as text.
    fn doubtful_json(&mut self, part: &str, bytes: &[u8], offset: usize) {
        let depth = self.limits.depth;
        let understood = walk(bytes, depth, &mut |path, key, piece| {
            let spot = Spot {
                part,
                path,
                suffix: "",
                key,
                ranged: None,
                is_key: false,
                is_json: false,
            };
            match piece {
                Piece::Leaf(leaf) => self.leaf(spot, leaf),
                Piece::Key(key) => self.key(part, path, "/{key}", key),
                Piece::Deep(deep) => {
                    self.unscanned += deep.len();
                    self.leaf(Spot { is_json: true, ..spot }, deep)
                }
            }
        });
        if let Some(rest) = bytes.get(understood..).filter(|rest| !rest.is_empty()) {
            self.text(part, rest, offset + understood, true);
        }
    }

    fn pairs(&mut self, part: &str, prefix: &str, bytes: &[u8]) {
        let (decoded, pairs) = form(bytes);
        let mut outline = Outline::default();
        // All of it at once: most pairs hold nothing.
        let suspects = self.sieve.leaves(&decoded, &mut outline).then_some(outline.suspects);
        let mut suspects = suspects.as_deref();
        let mut suspected = |range: &Range<usize>| {
            let Some(rest) = suspects else { return true };
            let before = rest.partition_point(|at| *at < range.start);
            suspects = rest.get(before..);
            let within = rest.get(before).is_some_and(|at| *at < range.end);
            within
                || decoded
                    .get(range.start)
                    .is_some_and(|byte| !byte.is_ascii_alphanumeric())
        };
        for (key, value) in pairs {
            let (in_key, in_value) = (suspected(&key), suspected(&value));
            let get = |range: Range<usize>| decoded.get(range).unwrap_or_default();
            let (key, value) = (get(key), get(value));
            let masked = in_key && self.key(part, prefix, "{key}", key);
            if !in_value {
                continue;
            }
            let spot = Spot {
                part,
                path: prefix,
                suffix: shown(key, masked),
                key: Some(&String::from_utf8_lossy(key)),
                ranged: None,
                is_key: false,
                is_json: false,
            };
            self.leaf(spot, value);
        }
    }

    fn url(&mut self, part: &str, bytes: &[u8]) {
        let (rest, fragment) = split(bytes, b'#');
        let (path, query) = split(rest, b'?');
        let segments = path.split(|b| *b == b'/').filter(|segment| !segment.is_empty());
        let segments = segments.enumerate().map(|(i, segment)| (format!("path.{i}"), segment));
        let fragment = (!fragment.is_empty()).then(|| ("fragment".to_owned(), fragment));
        for (path, text) in segments.chain(fragment) {
            let spot = Spot {
                part,
                path: &path,
                suffix: "",
                key: None,
                ranged: None,
                is_key: false,
                is_json: false,
            };
            self.leaf(spot, &Cow::from(percent_encoding::percent_decode(text)));
        }
        self.pairs(part, "query.", query);
    }

    fn text(&mut self, part: &str, bytes: &[u8], offset: usize, is_json: bool) {
        let spot = Spot {
            part,
            path: "",
            suffix: "",
            key: None,
            ranged: Some(offset),
            is_key: false,
            is_json,
        };
        self.leaf(spot, bytes);
    }

    /// Searches a key; whether it holds a registered value, so that it must not be shown.
    fn key(&mut self, part: &str, path: &str, suffix: &str, key: &[u8]) -> bool {
        if self.clean_keys.contains(key) {
            return false;
        }
        let spot = Spot {
            part,
            path,
            suffix,
            key: None,
            ranged: None,
            is_key: true,
            is_json: false,
        };
        let found = self.leaf(spot, key);
        if !found && key.len() <= CLEAN_KEY && self.clean_keys.len() < CLEAN_KEYS {
            self.clean_keys.insert(key.to_vec());
        }
        found
    }

    /// Searches a leaf; whether anything was found.
    fn leaf(&mut self, spot: Spot<'_>, bytes: &[u8]) -> bool {
        self.leaves += 1;
        if !self.sifted && bytes.len() <= SIFTED && self.sieve.is_clean(bytes) {
            return false;
        }
        let mut met = HashMap::new();
        let mut at = At {
            spot,
            outer: None,
            layers: 0,
            met: &mut met,
        };
        self.shaped.clear();
        self.search(&mut at, bytes);
        !met.is_empty()
    }

    /// What has the shape of personal data, and is no registered value.
    fn shapes(&mut self, at: &At<'_>, bytes: &[u8]) {
        let Some(reported) = &mut self.shapes else { return };
        shapes::find(bytes, |range, category| {
            let whole = at.outer.is_none() && range == (0..bytes.len());
            let range = at.outer.clone().unwrap_or(range);
            let overlaps = |other: &Range<usize>| other.start < range.end && range.start < other.end;
            let registered = at.met.values().flatten().any(overlaps);
            let again = self
                .shaped
                .iter()
                .any(|(known, other)| *known == category && overlaps(other));
            if registered || again {
                return;
            }
            if reported.len() >= SHAPES {
                self.dropped += 1;
                return;
            }
            reported.push(Shape {
                category,
                place: at.spot.place(&range, whole),
            });
            self.shaped.push((category, range));
        });
    }

    fn search(&mut self, at: &mut At<'_>, bytes: &[u8]) {
        let view = self.fold(at, bytes);
        if view.text.is_empty() {
            self.spare.push(view);
            return;
        }
        self.whole(at, &view);
        let (mut words, mut digits) = std::mem::take(&mut self.suspects);
        // Of what is no ASCII, folding may change where a run ends.
        let runs = self.sieve.text(view.text.as_bytes(), &mut words, &mut digits) || !bytes.is_ascii();
        let searched = self.words(at, &view, &words) && self.digits(at, &view, &digits);
        self.spare.push(view);
        words.clear();
        digits.clear();
        self.suspects = (words, digits);
        if !searched {
            // Out of effort: some of it was searched, but nobody can say how much it matters.
            self.unscanned += if at.layers == 0 { bytes.len() } else { 0 };
            return;
        }
        if runs {
            self.runs(at, bytes);
        }
        self.shapes(at, bytes);
        if at.layers < LAYERS && !self.nested_json(at, bytes) {
            self.escapes(at, bytes);
        }
    }

    fn fold(&mut self, at: &At<'_>, bytes: &[u8]) -> Folded {
        let mut view = self.spare.pop().unwrap_or_default();
        view.clear();
        let mut position = 0;
        view.text.reserve(bytes.len());
        let most = FOLDED + bytes.len() * FOLDED_PER_BYTE;
        if let Ok(text) = std::str::from_utf8(bytes) {
            self.unscanned += view.push(text, 0, most);
            view.finish();
            return view;
        }
        for chunk in bytes.utf8_chunks() {
            let (valid, invalid) = (chunk.valid(), chunk.invalid());
            self.unscanned += view.push(valid, position, most);
            position += valid.len();
            if !invalid.is_empty() {
                view.push("\u{fffd}", position, most);
                position += invalid.len();
                self.unscanned += if at.layers == 0 { invalid.len() } else { 0 };
            }
        }
        view.finish();
        view
    }

    /// Base64 and hex runs: digests, or more text.
    fn runs(&mut self, at: &mut At<'_>, bytes: &[u8]) {
        for range in runs(bytes) {
            let run = bytes.get(range.clone()).unwrap_or_default();
            if !self.run(at, &range, run) {
                for piece in decode::pieces(run) {
                    self.run(at, &range, piece);
                }
            }
        }
    }

    /// Whether the run was understood.
    fn run(&mut self, at: &mut At<'_>, range: &Range<usize>, run: &[u8]) -> bool {
        let mut understood = false;
        if let Some(hash) = self.index.digest(run) {
            for known in self.index.find(hash) {
                let find = Find {
                    range: range.clone(),
                    whole: false,
                    form: Form::Hashed,
                };
                understood = true;
                self.report(at, &known, find);
            }
        }
        if !decode::could_be_text(run) {
            return understood;
        }
        for decoded in [decode::hex(run), decode::base64(run)].into_iter().flatten() {
            if at.layers < LAYERS && decode::is_text(&decoded) {
                understood = true;
                self.search_decoded(at, range, &decoded);
            }
        }
        understood
    }

    /// Percent-encoding, pluses for spaces, backslash escapes, entities and quoted-printable, line by
    /// line where places are ranges.
    fn escapes(&mut self, at: &mut At<'_>, bytes: &[u8]) {
        let marks = memchr::memchr2(b'&', b'=', bytes).is_some();
        if !marks && memchr::memchr3(b'%', b'+', b'\\', bytes).is_none() {
            return;
        }
        if marks && decode::has_soft_breaks(bytes) {
            // They join lines, so these are not taken one by one.
            if let Some(decoded) = decode::quoted_printable(bytes) {
                self.search_decoded(at, &(0..bytes.len()), &decoded);
            }
        }
        let lines = at.spot.ranged.is_some() && at.outer.is_none();
        let mut start = 0;
        for line in bytes.split(|b| lines && *b == b'\n') {
            let range = start..start + line.len();
            start = range.end + 1;
            // One at a time: what is left is met in what was decoded.
            let decoded = decode::percent(line)
                .or_else(|| decode::pluses(line))
                .or_else(|| decode::unescape(line))
                .or_else(|| decode::entities(line))
                .or_else(|| decode::quoted_printable(line));
            if let Some(decoded) = decoded {
                self.search_decoded(at, &range, &decoded);
            }
        }
    }

    fn search_decoded(&mut self, at: &mut At<'_>, range: &Range<usize>, decoded: &[u8]) {
        match self.decoded.checked_sub(decoded.len()) {
            Some(left) => {
                self.decoded = left;
                self.search(&mut at.decoded(range.clone(), None), decoded);
            }
            None => self.unscanned += decoded.len(),
        }
    }

    /// JSON inside a string: its leaves count as wholes. Whether all of it was understood.
    fn nested_json(&mut self, at: &mut At<'_>, bytes: &[u8]) -> bool {
        let trimmed = bytes.trim_ascii();
        let begins = trimmed.starts_with(b"{") || trimmed.starts_with(b"[");
        if !begins || (at.spot.is_json && at.layers == 0) {
            return false;
        }
        let depth = self.limits.depth;
        let understood = walk(bytes, depth, &mut |_, key, piece| {
            match piece {
                Piece::Leaf(leaf) | Piece::Key(leaf) => match self.decoded.checked_sub(leaf.len()) {
                    Some(left) => {
                        self.decoded = left;
                        self.search(&mut at.decoded(0..bytes.len(), key), leaf);
                    }
                    None => self.unscanned += leaf.len(),
                },
                // Searched as text already.
                Piece::Deep(deep) => self.unscanned += deep.len(),
            }
            false
        });
        understood == bytes.len()
    }

    /// Looks a canonical form up.
    pub(super) fn lookup(&mut self, at: &mut At<'_>, lane: Lane, canonical: &str, find: impl Fn() -> Find) {
        if self.index.has_length(lane, canonical.len()) && self.spend(LOOKUP) {
            for known in self.index.find(self.index.hash(lane, canonical.as_bytes())) {
                self.report(at, &known, find());
            }
        }
    }

    /// `false` if the effort allowed is used up.
    pub(super) fn spend(&mut self, effort: usize) -> bool {
        let left = self.effort.checked_sub(effort);
        self.effort = left.unwrap_or(0);
        left.is_some()
    }

    /// Makes a find a hit, unless the value is known to stand there.
    pub(super) fn report(&mut self, at: &mut At<'_>, known: &Known, find: Find) {
        let spot = at.spot;
        if spot.is_key && known.weak && !find.whole {
            return;
        }
        let range = at.outer.clone().unwrap_or(find.range);
        let met = at.met.entry(known.fingerprint).or_default();
        let again = match spot.ranged {
            Some(_) => met.iter().any(|m| m.start < range.end && range.start < m.end),
            None => !met.is_empty(),
        };
        if again {
            // That it stands there too is known to what looks for shapes.
            if met.len() < PLACES {
                met.push(range);
            }
            return;
        }
        let places = self.places.entry(known.fingerprint).or_default();
        let hits = if known.weak { &mut self.weak } else { &mut self.strong };
        if *places >= PLACES || hits.len() >= self.limits.hits {
            self.dropped += 1;
            return;
        }
        *places += 1;
        let place = spot.place(&range, find.whole && at.outer.is_none());
        let form = match find.form {
            Form::Hashed => Form::Hashed,
            _ if at.layers > 0 || self.inflated => Form::Encoded,
            form => form,
        };
        let order = (self.leaves, range.start);
        met.push(range);
        hits.push(Ranked(
            order,
            Hit {
                fingerprint: known.fingerprint,
                place,
                key: spot.key.map(str::to_owned),
                form,
                weak: known.weak,
            },
        ));
    }
}

/// A form's pairs decoded, a quote after each key and value, and where they stand.
#[allow(clippy::type_complexity)]
fn form(bytes: &[u8]) -> (Vec<u8>, Vec<(Range<usize>, Range<usize>)>) {
    let mut decoded = Vec::with_capacity(bytes.len() + 2);
    let mut pairs = Vec::with_capacity(16);
    let mut rest = bytes;
    loop {
        let begin = decoded.len();
        let mut value = None;
        let mut end = None;
        let mut bytes = rest.iter();
        while let Some(byte) = bytes.next() {
            match byte {
                b'&' => {
                    end = Some(bytes.as_slice());
                    break;
                }
                b'=' if value.is_none() => {
                    value = Some(decoded.len() + 1);
                    decoded.push(b'"');
                }
                b'+' => decoded.push(b' '),
                b'%' => match bytes.as_slice() {
                    [a, b, after @ ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => {
                        decoded.extend(decode::nibble(*a).zip(decode::nibble(*b)).map(|(a, b)| a << 4 | b));
                        bytes = after.iter();
                    }
                    _ => decoded.push(b'%'),
                },
                byte => decoded.push(*byte),
            }
        }
        let until = decoded.len();
        decoded.push(b'"');
        let key = begin..value.map_or(until, |value| value - 1);
        if value.is_some() || !key.is_empty() {
            pairs.push((key, value.unwrap_or(until)..until));
        }
        match end {
            Some(after) => rest = after,
            None => return (decoded, pairs),
        }
    }
}

fn split(bytes: &[u8], at: u8) -> (&[u8], &[u8]) {
    match memchr::memchr(at, bytes) {
        Some(found) => (&bytes[..found], &bytes[found + 1..]),
        None => (bytes, &[]),
    }
}
