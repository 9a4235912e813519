//! Bodies under a `Content-Encoding`, decoded for the scan. What leaves stays as it is.

use std::io::Write;

use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

/// Compressed bytes that are decoded at a time: what comes out of them is held in memory, at most
/// 1032 times as much.
const BITE: usize = 4 << 10;
/// Decoded bytes that every body may have, and more for each byte of it. Beyond, it is a bomb.
const DECODED: usize = 8 << 20;
const DECODED_PER_BYTE: usize = 64;

/// How a body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Gzip,
    Deflate,
    /// One that is not decoded: `br`, `zstd`, several.
    Other,
}

impl Encoding {
    /// What the headers say; `None` for a body that stands as it is.
    pub(super) fn of(headers: &[(&str, &[u8])]) -> Option<Self> {
        let mut named = headers
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case("content-encoding"))
            .flat_map(|(_, value)| value.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|word| !word.is_empty() && !word.eq_ignore_ascii_case(b"identity"));
        let word = named.next()?;
        Some(match word.to_ascii_lowercase().as_slice() {
            _ if named.next().is_some() => Encoding::Other,
            b"gzip" | b"x-gzip" => Encoding::Gzip,
            b"deflate" => Encoding::Deflate,
            _ => Encoding::Other,
        })
    }

    /// The word that events carry.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Encoding::Gzip => "gzip",
            Encoding::Deflate => "deflate",
            Encoding::Other => "other",
        }
    }

    /// The whole of a body, at most `most` bytes, and whether that is all of it; `None` if it does
    /// not begin as it says.
    pub(super) fn decode(self, bytes: &[u8], most: usize) -> Option<(Vec<u8>, bool)> {
        let mut decoder = Decoder::new(self);
        let mut decoded = Vec::new();
        for bite in bytes.chunks(BITE) {
            decoder.push(bite, &mut |piece| decoded.extend_from_slice(piece));
            if decoded.len() > most {
                decoded.truncate(most);
                return Some((decoded, false));
            }
        }
        let whole = decoder.end(&mut |piece| decoded.extend_from_slice(piece));
        let fits = decoded.len() <= most;
        decoded.truncate(most);
        (whole || !decoded.is_empty()).then_some((decoded, whole && fits))
    }
}

/// Decodes a body piece by piece.
pub(super) struct Decoder {
    state: State,
    allowed: usize,
}

enum State {
    /// Nothing has come yet.
    Waiting(Encoding),
    Gzip(Box<MultiGzDecoder<Vec<u8>>>),
    Zlib(Box<ZlibDecoder<Vec<u8>>>),
    Deflate(Box<DeflateDecoder<Vec<u8>>>),
    /// What comes is not understood, or too much.
    Lost,
}

impl Decoder {
    pub(super) fn new(encoding: Encoding) -> Self {
        Decoder {
            state: State::Waiting(encoding),
            allowed: DECODED,
        }
    }

    /// Gives what `bytes` decode to; nothing more after the first mistake.
    pub(super) fn push(&mut self, bytes: &[u8], give: &mut dyn FnMut(&[u8])) {
        self.allowed = self
            .allowed
            .saturating_add(bytes.len().saturating_mul(DECODED_PER_BYTE));
        for bite in bytes.chunks(BITE) {
            if let State::Waiting(encoding) = self.state {
                self.state = State::new(encoding, bite);
            }
            let written = match &mut self.state {
                State::Gzip(decoder) => decoder.write_all(bite).is_ok(),
                State::Zlib(decoder) => decoder.write_all(bite).is_ok(),
                State::Deflate(decoder) => decoder.write_all(bite).is_ok(),
                State::Waiting(_) | State::Lost => return,
            };
            self.drain(give);
            if !written {
                self.state = State::Lost;
            }
        }
    }

    /// Gives the rest; whether all of the body was understood.
    pub(super) fn end(&mut self, give: &mut dyn FnMut(&[u8])) -> bool {
        let ended = match &mut self.state {
            State::Gzip(decoder) => decoder.try_finish().is_ok(),
            State::Zlib(decoder) => decoder.try_finish().is_ok(),
            State::Deflate(decoder) => decoder.try_finish().is_ok(),
            State::Waiting(_) => true,
            State::Lost => false,
        };
        self.drain(give);
        ended && !matches!(self.state, State::Lost)
    }

    fn drain(&mut self, give: &mut dyn FnMut(&[u8])) {
        let out = match &mut self.state {
            State::Gzip(decoder) => decoder.get_mut(),
            State::Zlib(decoder) => decoder.get_mut(),
            State::Deflate(decoder) => decoder.get_mut(),
            State::Waiting(_) | State::Lost => return,
        };
        give(out);
        let left = self.allowed.checked_sub(out.len());
        out.clear();
        match left {
            Some(left) => self.allowed = left,
            None => self.state = State::Lost,
        }
    }
}

impl State {
    fn new(encoding: Encoding, first: &[u8]) -> Self {
        match (encoding, first) {
            (Encoding::Gzip, _) => State::Gzip(Box::new(MultiGzDecoder::new(Vec::new()))),
            // `deflate` is zlib's format; some send it bare.
            (Encoding::Deflate, [a, b, ..]) if a & 0x0f == 8 && u16::from_be_bytes([*a, *b]) % 31 == 0 => {
                State::Zlib(Box::new(ZlibDecoder::new(Vec::new())))
            }
            (Encoding::Deflate, _) => State::Deflate(Box::new(DeflateDecoder::new(Vec::new()))),
            (Encoding::Other, _) => State::Lost,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    fn compressed(text: &[u8]) -> [(Encoding, Vec<u8>); 3] {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(text).unwrap();
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(text).unwrap();
        let mut bare = DeflateEncoder::new(Vec::new(), Compression::default());
        bare.write_all(text).unwrap();
        [
            (Encoding::Gzip, gzip.finish().unwrap()),
            (Encoding::Deflate, zlib.finish().unwrap()),
            (Encoding::Deflate, bare.finish().unwrap()),
        ]
    }

    #[test]
    fn what_the_headers_say() {
        let of = |value: &str| Encoding::of(&[("x", b"gzip"), ("Content-Encoding", value.as_bytes())]);
        assert_eq!(of("GZIP "), Some(Encoding::Gzip));
        assert_eq!(of("identity"), None);
        assert_eq!(of("identity, deflate"), Some(Encoding::Deflate));
        assert_eq!(of("gzip, gzip"), Some(Encoding::Other));
        assert_eq!(of("br"), Some(Encoding::Other));
        assert_eq!(Encoding::of(&[("accept-encoding", b"gzip")]), None);
    }

    #[test]
    fn whole_bodies_and_pieces_decode_to_the_same() {
        let text: Vec<u8> = (0..40_000).flat_map(|n: u32| n.to_string().into_bytes()).collect();
        for (encoding, bytes) in compressed(&text) {
            assert_eq!(encoding.decode(&bytes, usize::MAX), Some((text.clone(), true)));
            assert_eq!(encoding.decode(&bytes, 100), Some((text[..100].to_vec(), false)));
            let mut decoder = Decoder::new(encoding);
            let mut out = Vec::new();
            for piece in bytes.chunks(7) {
                decoder.push(piece, &mut |decoded| out.extend_from_slice(decoded));
            }
            assert!(decoder.end(&mut |decoded| out.extend_from_slice(decoded)));
            assert_eq!(out, text);
        }
        assert_eq!(Encoding::Gzip.decode(b"not at all", 100), None);
        assert_eq!(Encoding::Gzip.decode(b"", 100), Some((Vec::new(), true)));
    }

    #[test]
    fn what_breaks_off_gives_its_beginning() {
        let text = b"alice@example.com and much more text that is not the same all over".repeat(9);
        for (encoding, bytes) in compressed(&text) {
            let (decoded, whole) = encoding.decode(&bytes[..bytes.len() - 20], usize::MAX).unwrap();
            assert!(!decoded.is_empty() && text.starts_with(&decoded), "{encoding:?}");
            assert!(encoding == Encoding::Deflate || !whole);
        }
    }

    #[test]
    fn bombs_are_given_up() {
        let zeros = vec![0; 64 << 20];
        for (encoding, bytes) in compressed(&zeros) {
            let mut decoder = Decoder::new(encoding);
            let mut given = 0;
            decoder.push(&bytes, &mut |piece| given += piece.len());
            assert!(!decoder.end(&mut |_| ()), "{encoding:?}");
            assert!(given < 24 << 20, "{encoding:?}: {given}");
        }
    }
}
