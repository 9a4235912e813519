//! A streamed body: what of it is ready is read ahead, the rest is watched as it passes.

use std::any::Any;
use std::collections::VecDeque;
use std::error::Error as StdError;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use reqwest::{Body, Request};

use crate::hooks::egress::Watcher;

/// Most pieces that are read ahead.
const PIECES: usize = 4096;

/// A streamed body, taken out of its request. It gives the pieces that it would have given, so
/// that the request is framed as without us.
pub(super) struct Ahead {
    pieces: VecDeque<Frame<Bytes>>,
    then: Then,
    body: Body,
    /// What the body said of itself before it was read.
    hint: SizeHint,
    given: u64,
    asked: bool,
    watcher: Option<Watcher>,
}

/// What comes after the pieces.
enum Then {
    /// The rest of the body.
    More,
    End,
    Failed(reqwest::Error),
    /// As whoever polls it would have met it.
    Panicked(Mutex<Box<dyn Any + Send>>),
}

impl Ahead {
    /// Takes a stream out of a request and polls it for as long as it need not wait, up to `limit` bytes.
    pub(super) fn take(request: &mut Request, limit: usize) -> Option<Self> {
        let is_stream = |body: &Body| body.as_bytes().is_none() && !body.is_end_stream();
        if !request.body().is_some_and(is_stream) {
            return None;
        }
        let body = request.body_mut().take()?;
        let mut ahead = Ahead {
            hint: body.size_hint(),
            body,
            pieces: VecDeque::new(),
            then: Then::More,
            given: 0,
            asked: false,
            watcher: None,
        };
        ahead.read(limit);
        Some(ahead)
    }

    fn read(&mut self, limit: usize) {
        let context = &mut Context::from_waker(Waker::noop());
        let mut length = 0;
        while matches!(self.then, Then::More) && length < limit && self.pieces.len() < PIECES {
            let body = &mut self.body;
            let polled = std::panic::catch_unwind(AssertUnwindSafe(|| Pin::new(body).poll_frame(context)));
            self.then = match polled {
                Ok(Poll::Pending) => return,
                Ok(Poll::Ready(Some(Ok(piece)))) => {
                    length += piece.data_ref().map_or(0, Bytes::len);
                    self.pieces.push_back(piece);
                    Then::More
                }
                Ok(Poll::Ready(Some(Err(error)))) => Then::Failed(error),
                Ok(Poll::Ready(None)) => Then::End,
                Err(panic) => Then::Panicked(Mutex::new(panic)),
            };
        }
    }

    /// The bytes read ahead, and whether they are all.
    pub(super) fn beginning(&self) -> (Vec<u8>, bool) {
        let mut bytes = Vec::new();
        for data in self.pieces.iter().filter_map(Frame::data_ref) {
            bytes.extend_from_slice(data);
        }
        (bytes, matches!(self.then, Then::End))
    }

    /// The body again, shown to `watcher` as it passes.
    pub(super) fn into_body(mut self, watcher: Option<Watcher>) -> Body {
        self.watcher = watcher;
        Body::wrap(self)
    }
}

type Piece = Result<Frame<Bytes>, Box<dyn StdError + Send + Sync>>;

impl http_body::Body for Ahead {
    type Data = Bytes;
    type Error = Box<dyn StdError + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Piece>> {
        let this = &mut *self;
        this.asked = true;
        let piece = match this.pieces.pop_front() {
            Some(piece) => piece,
            None => match std::mem::replace(&mut this.then, Then::End) {
                Then::End => return Poll::Ready(None),
                Then::Failed(error) => return Poll::Ready(Some(Err(error.into()))),
                Then::Panicked(panic) => {
                    std::panic::resume_unwind(panic.into_inner().unwrap_or_else(PoisonError::into_inner))
                }
                Then::More => {
                    this.then = Then::More;
                    let piece = match std::task::ready!(Pin::new(&mut this.body).poll_frame(context)) {
                        Some(Ok(piece)) => piece,
                        Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                        None => {
                            if let Some(watcher) = &this.watcher {
                                watcher.end();
                            }
                            return Poll::Ready(None);
                        }
                    };
                    if let (Some(watcher), Some(data)) = (&this.watcher, piece.data_ref())
                        && let Err(blocked) = watcher.pass(data)
                    {
                        return Poll::Ready(Some(Err(blocked.into())));
                    }
                    piece
                }
            },
        };
        this.given += piece.data_ref().map_or(0, |data| data.len() as u64);
        Poll::Ready(Some(Ok(piece)))
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = SizeHint::new();
        if let Some(upper) = self.hint.upper() {
            hint.set_upper(upper.saturating_sub(self.given));
        }
        hint.set_lower(self.hint.lower().saturating_sub(self.given));
        hint
    }

    /// What it said before it was asked for anything decides how the request is framed.
    fn is_end_stream(&self) -> bool {
        self.asked && self.pieces.is_empty() && !matches!(self.then, Then::Failed(_) | Then::Panicked(_)) && {
            self.body.is_end_stream()
        }
    }
}
