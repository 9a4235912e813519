//! `multipart/form-data`, a frame at a time, by the parser that axum itself uses: what it sees is
//! what the handler sees.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use axum::body::Bytes;
use futures_util::stream::Stream;

use super::body::is_json;

/// Most bytes of one text part.
const TEXT_CAP: usize = 64 * 1024;
/// Most parts of one body; what follows is not read.
const MAX_PARTS: usize = 1024;
/// Most bytes that the parser may hold back, looking for a boundary or the end of a part's headers.
const HELD_CAP: usize = 64 * 1024;

/// A body in the course of being read.
pub(super) struct Parts {
    frames: Frames,
    /// Not to be asked while a part of it is open.
    multipart: multer::Multipart<'static>,
    open: Option<Open>,
    count: usize,
    /// Bytes given to the parser since it last gave something.
    held: usize,
}

struct Open {
    field: multer::Field<'static>,
    content: Content,
}

enum Content {
    Kept { bytes: Vec<u8>, json: bool },
    TooLong,
    File,
}

/// A part that the handler has read to its end.
pub(super) enum Part<'p> {
    Value {
        name: &'p str,
        bytes: &'p [u8],
        json: bool,
    },
    TooLong,
    /// A file, or anything else that is no text.
    File,
}

/// What became of a frame.
#[derive(PartialEq, Eq)]
pub(super) enum Fed {
    More,
    Ended,
    /// No such body, or beyond a cap.
    Unreadable,
}

/// Frames on their way to the parser.
#[derive(Clone, Default)]
struct Frames(Arc<Mutex<VecDeque<Bytes>>>);

impl Frames {
    fn queue(&self) -> std::sync::MutexGuard<'_, VecDeque<Bytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream for Frames {
    type Item = Result<Bytes, Infallible>;

    /// Never ends: the parser knows the end when it sees it.
    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.queue().pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Poll::Pending,
        }
    }
}

impl Parts {
    /// `None` without a boundary.
    pub(super) fn new(content_type: &str) -> Option<Self> {
        let boundary = multer::parse_boundary(content_type).ok()?;
        let frames = Frames::default();
        Some(Parts {
            multipart: multer::Multipart::new(frames.clone(), boundary),
            frames,
            open: None,
            count: 0,
            held: 0,
        })
    }

    /// Reads a frame; `take` gets every part that ends in it.
    pub(super) fn feed(&mut self, frame: &Bytes, mut take: impl FnMut(Part<'_>)) -> Fed {
        self.held = self.held.saturating_add(frame.len());
        self.frames.queue().push_back(frame.clone());
        // Nobody is woken: the next frame asks again.
        let mut context = Context::from_waker(Waker::noop());
        loop {
            let pending = match &mut self.open {
                None => match self.multipart.poll_next_field(&mut context) {
                    Poll::Ready(Ok(Some(field))) => {
                        self.count = self.count.saturating_add(1);
                        if self.count > MAX_PARTS {
                            return Fed::Unreadable;
                        }
                        self.open = Some(Open::new(field));
                        false
                    }
                    Poll::Ready(Ok(None)) => return Fed::Ended,
                    Poll::Ready(Err(_)) => return Fed::Unreadable,
                    Poll::Pending => true,
                },
                Some(open) => match Pin::new(&mut open.field).poll_next(&mut context) {
                    Poll::Ready(Some(Ok(bytes))) => {
                        open.content.push(&bytes);
                        false
                    }
                    Poll::Ready(Some(Err(_))) => return Fed::Unreadable,
                    Poll::Ready(None) => {
                        if let Some(part) = open.part() {
                            take(part);
                        }
                        self.open = None;
                        false
                    }
                    Poll::Pending => true,
                },
            };
            if !pending {
                self.held = 0;
            } else if self.held > HELD_CAP {
                return Fed::Unreadable;
            } else {
                return Fed::More;
            }
        }
    }
}

impl Open {
    fn new(field: multer::Field<'static>) -> Self {
        let media = field
            .content_type()
            .map(|media| media.essence_str().to_ascii_lowercase());
        let json = media.as_deref().is_some_and(is_json);
        let text = media.is_none_or(|media| media.starts_with("text/"));
        let content = if field.file_name().is_none() && (text || json) {
            Content::Kept {
                bytes: Vec::new(),
                json,
            }
        } else {
            Content::File
        };
        Open { field, content }
    }

    /// What it is, now that it is whole; `None` without a name.
    fn part(&self) -> Option<Part<'_>> {
        Some(match &self.content {
            Content::Kept { bytes, json } => Part::Value {
                name: self.field.name()?,
                bytes,
                json: *json,
            },
            Content::TooLong => Part::TooLong,
            Content::File => Part::File,
        })
    }
}

impl Content {
    fn push(&mut self, more: &[u8]) {
        let Content::Kept { bytes, .. } = self else { return };
        if bytes.len().saturating_add(more.len()) > TEXT_CAP {
            *self = Content::TooLong;
        } else {
            bytes.extend_from_slice(more);
        }
    }
}
