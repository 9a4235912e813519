//! Bodies under a `Content-Encoding`, decoded for the scan. What leaves stays as it is.

use std::io::{self, Write};

use brotli_decompressor::DecompressorWriter;
use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use ruzstd::decoding::FrameDecoder;

/// Compressed bytes that are decoded at a time: what comes out of them is held in memory, at most
/// 1032 times as much, of Brotli at most what is allowed in all, of Zstandard a block.
const BITE: usize = 4 << 10;
/// Decoded bytes that every body may have, and more for each byte of it. Beyond, it is a bomb.
const DECODED: usize = 8 << 20;
const DECODED_PER_BYTE: usize = 64;
/// Largest window of Zstandard that is followed: what the format asks every decoder for.
const WINDOW: u64 = 8 << 20;
/// Longest header of a frame of Zstandard, and its block's header.
const FRAME_HEADER: usize = 18;
const BLOCK_HEADER: usize = 3;

/// How a body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
    /// One that is not decoded: `compress`, several.
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
            b"br" => Encoding::Brotli,
            b"zstd" => Encoding::Zstd,
            _ => Encoding::Other,
        })
    }

    /// The word that events carry.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Encoding::Gzip => "gzip",
            Encoding::Deflate => "deflate",
            Encoding::Brotli => "br",
            Encoding::Zstd => "zstd",
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
    Brotli(Box<DecompressorWriter<Capped>>),
    Zstd(Box<Zstd>),
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
                State::Brotli(decoder) => {
                    decoder.get_mut().left = self.allowed;
                    decoder.write_all(bite).is_ok()
                }
                State::Zstd(decoder) => {
                    let decoded = decoder.push(bite, &mut self.allowed, give);
                    if decoded.is_none() {
                        self.state = State::Lost;
                    }
                    continue;
                }
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
            State::Brotli(decoder) => {
                decoder.get_mut().left = self.allowed;
                decoder.close().is_ok()
            }
            State::Zstd(decoder) => decoder.ends(),
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
            State::Brotli(decoder) => &mut decoder.get_mut().out,
            State::Zstd(_) | State::Waiting(_) | State::Lost => return,
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
            (Encoding::Brotli, _) => State::Brotli(Box::new(DecompressorWriter::new(Capped::default(), BITE))),
            (Encoding::Zstd, _) => State::Zstd(Box::default()),
            (Encoding::Other, _) => State::Lost,
        }
    }
}

/// Memory with an end: a few bytes of Brotli can say gigabytes.
#[derive(Default)]
struct Capped {
    out: Vec<u8>,
    left: usize,
}

impl Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(left) = self.left.checked_sub(bytes.len()) else {
            return Err(io::ErrorKind::OutOfMemory.into());
        };
        self.left = left;
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A frame of Zstandard, block by block.
#[derive(Default)]
struct Zstd {
    decoder: FrameDecoder,
    begun: bool,
    /// A checksum follows the last block.
    checksum: bool,
    /// Not decoded yet: less than a block.
    pending: Vec<u8>,
    out: Vec<u8>,
}

impl Zstd {
    /// `None` if it is not understood, or too much.
    fn push(&mut self, bytes: &[u8], allowed: &mut usize, give: &mut dyn FnMut(&[u8])) -> Option<()> {
        self.pending.extend_from_slice(bytes);
        let mut used = 0;
        while let Some(rest) = self.pending.get(used..) {
            if !self.begun {
                // Only what is shorter than a header and its first block is tried too early.
                let mut header = rest;
                self.decoder.set_max_window_size(WINDOW);
                if self.decoder.init(&mut header).is_err() {
                    return (rest.len() < FRAME_HEADER).then_some(());
                }
                self.begun = true;
                self.checksum = rest.get(4).is_some_and(|descriptor| descriptor & 4 != 0);
                used += rest.len() - header.len();
                continue;
            }
            let Some(block) = block(rest, self.checksum).filter(|_| !self.decoder.is_finished()) else {
                break;
            };
            self.out.resize(BITE, 0);
            let mut source = block;
            loop {
                let (_, written) = self.decoder.decode_from_to(source, &mut self.out).ok()?;
                source = &[];
                if written == 0 {
                    break;
                }
                *allowed = allowed.checked_sub(written)?;
                give(self.out.get(..written)?);
            }
            used += block.len();
        }
        self.pending.drain(..used);
        Some(())
    }

    /// Whether the frame came to its end, with nothing after it. Of one that breaks off, what its
    /// window holds is not given.
    fn ends(&self) -> bool {
        self.begun && self.decoder.is_finished() && self.pending.is_empty()
    }
}

/// The block at the start with its header, and a checksum after the last one, if all of it is there.
fn block(bytes: &[u8], checksum: bool) -> Option<&[u8]> {
    let [a, b, c] = *bytes.first_chunk::<BLOCK_HEADER>()?;
    let header = u32::from_le_bytes([a, b, c, 0]);
    // One byte that is repeated, or so many bytes.
    let length = if header >> 1 & 3 == 1 { 1 } else { header as usize >> 3 };
    let after = if checksum && header & 1 == 1 { 4 } else { 0 };
    bytes.get(..BLOCK_HEADER + length + after)
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
        assert_eq!(of("br"), Some(Encoding::Brotli));
        assert_eq!(of("Zstd"), Some(Encoding::Zstd));
        assert_eq!(of("compress"), Some(Encoding::Other));
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
    fn brotli_and_zstandard() {
        use ruzstd::encoding::{CompressionLevel, compress_to_vec};

        assert_eq!(
            Encoding::Brotli.decode(b"\x0b\x02\x80hello\x03", 100),
            Some((b"hello".to_vec(), true))
        );
        let broken_off = Encoding::Brotli.decode(b"\x0b\x02\x80hel", 100);
        assert!(broken_off.is_none_or(|(_, whole)| !whole));
        assert_eq!(Encoding::Brotli.decode(b"opaque", 100), None);
        let text: Vec<u8> = (0..40_000).flat_map(|n: u32| n.to_string().into_bytes()).collect();
        let bytes = compress_to_vec(&text[..], CompressionLevel::Fastest);
        assert_eq!(Encoding::Zstd.decode(&bytes, usize::MAX), Some((text.clone(), true)));
        assert_eq!(Encoding::Zstd.decode(&bytes, 100), Some((text[..100].to_vec(), false)));
        for length in [1, 7, 5000] {
            let mut decoder = Decoder::new(Encoding::Zstd);
            let mut out = Vec::new();
            for piece in bytes.chunks(length) {
                decoder.push(piece, &mut |decoded| out.extend_from_slice(decoded));
            }
            assert!(decoder.end(&mut |decoded| out.extend_from_slice(decoded)));
            assert_eq!(out, text);
        }
        assert!(
            Encoding::Zstd
                .decode(&bytes[..bytes.len() - 9], usize::MAX)
                .is_none_or(|(_, whole)| !whole)
        );
        assert_eq!(Encoding::Zstd.decode(b"not zstandard, but long enough", 100), None);

        // Each of these blocks says 128 KiB of zeros.
        let mut bomb = b"\x28\xb5\x2f\xfd\0\x38".to_vec();
        let block = (1_u32 << 1 | 1 << 17 << 3).to_le_bytes();
        (0..1000).for_each(|_| bomb.extend([block[0], block[1], block[2], 0]));
        let mut decoder = Decoder::new(Encoding::Zstd);
        let mut given = 0;
        decoder.push(&bomb, &mut |piece| given += piece.len());
        assert!(!decoder.end(&mut |_| ()) && (1..9 << 20).contains(&given), "{given}");
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
