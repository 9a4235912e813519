//! Bodies on their way to a client: whole ones, and ones that are written while they are sent.

use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::api::Stream;
use crate::export::Error;

/// Bytes of one piece.
const PIECE: usize = 64 * 1024;
/// Pieces that wait for the client: with the one that is being filled, all that is in memory of an answer.
const WAITING: usize = 4;
/// How long a client may take for a piece.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether it took one.
const LOOK: Duration = Duration::from_millis(2);

/// A body. One that cannot be written to its end is an error: the connection breaks off, and nobody takes what came for
/// whole.
pub(crate) enum Outgoing {
    Whole(Bytes),
    Written(Receiver<Piece>),
}

pub(crate) enum Piece {
    Bytes(Bytes),
    /// All was written.
    End,
}

impl Outgoing {
    pub(crate) fn whole(body: Vec<u8>) -> Self {
        Outgoing::Whole(body.into())
    }

    /// Writes `stream` on a thread of its own. `stalled` is called where the client takes nothing any more.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn written(stream: Box<Stream>, stalled: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let (sender, pieces) = channel(WAITING);
        std::thread::Builder::new()
            .name("provenance-export".into())
            .spawn(move || {
                let mut out = Pieces {
                    filled: Vec::with_capacity(PIECE),
                    sender,
                };
                let written = Stream::write(*stream, &mut out).map_err(|error| match error {
                    Error::Output(error) => error,
                    Error::Evidence(_) => io::ErrorKind::Other.into(),
                });
                let ended = written.and_then(|()| out.flush()).and_then(|()| out.send(Piece::End));
                if ended.is_err_and(|error| error.kind() == io::ErrorKind::TimedOut) {
                    stalled();
                }
            })?;
        Ok(Outgoing::Written(pieces))
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Outgoing::Whole(rest) => {
                let length = rest.len().min(PIECE);
                Poll::Ready((length > 0).then(|| Ok(Frame::data(rest.split_to(length)))))
            }
            Outgoing::Written(pieces) => pieces.poll_recv(context).map(|piece| match piece {
                Some(Piece::Bytes(bytes)) => Some(Ok(Frame::data(bytes))),
                Some(Piece::End) => None,
                None => Some(Err(io::ErrorKind::UnexpectedEof.into())),
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Outgoing::Whole(rest) if rest.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Outgoing::Whole(rest) => SizeHint::with_exact(rest.len() as u64),
            Outgoing::Written(_) => SizeHint::default(),
        }
    }
}

/// Hands on what is written, a piece at a time.
struct Pieces {
    filled: Vec<u8>,
    sender: Sender<Piece>,
}

impl Pieces {
    /// Waits until there is room. It is looked, not awaited: this thread outlives the runtime at the end of the process.
    fn send(&mut self, mut piece: Piece) -> io::Result<()> {
        let begun = Instant::now();
        loop {
            piece = match self.sender.try_send(piece) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Closed(_)) => return Err(io::ErrorKind::BrokenPipe.into()),
                Err(TrySendError::Full(_)) if begun.elapsed() > PATIENCE => return Err(io::ErrorKind::TimedOut.into()),
                Err(TrySendError::Full(piece)) => piece,
            };
            std::thread::sleep(LOOK);
        }
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE - self.filled.len());
        self.filled.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        if self.filled.len() >= PIECE {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.filled.is_empty() {
            return Ok(());
        }
        let filled = std::mem::replace(&mut self.filled, Vec::with_capacity(PIECE));
        self.send(Piece::Bytes(filled.into()))
    }
}
