//! One send, from its record to its outcome.

use std::future::Future;

use reqwest::{Request, Response, blocking};

use super::ahead::Ahead;
use super::failure::Failure;
use super::flight::Flight;
use super::message::{Content, Message};
use crate::hooks::egress::{self, Blocked, Frame, Hop, Outgoing, Pending, Recording, begin, start};
use crate::tracker::{self, Tracker};
use crate::vocabulary::Outcome;

/// Whose send it is.
#[derive(Clone)]
pub(super) enum Origin {
    /// That of a function under `#[egress]`.
    Function(Frame),
    /// That of a client with the middleware.
    Host,
}

impl Origin {
    /// How much of a stream may be read ahead; `None` where nothing is in force.
    fn read_ahead(&self) -> Option<usize> {
        let limit = |tracker: &Tracker| tracker.config().egress.read_ahead;
        match self {
            Origin::Function(frame) => frame.read_ahead(),
            Origin::Host => tracker::with(limit),
        }
    }

    /// Queues the record of a request whose body may have been taken out of it.
    fn start_with(&self, request: &Request, ahead: Option<&Ahead>) -> Result<Option<Recording>, Blocked> {
        let message = Message::of(request);
        let Some((bytes, whole)) = ahead.map(Ahead::beginning) else {
            return self.start(message);
        };
        let content = match (whole, bytes.is_empty()) {
            (true, true) => Content::Nothing,
            (true, false) => Content::Bytes(&bytes),
            (false, _) => Content::Stream(&bytes),
        };
        self.start(Message { content, ..message })
    }

    /// Queues the record. `None` where nothing is in force.
    fn start(&self, message: Message<'_>) -> Result<Option<Recording>, Blocked> {
        let userinfo = message.userinfo();
        match self {
            Origin::Function(frame) => frame.start_send(message.target(&userinfo), message.headers(), message.body()),
            Origin::Host => with(message, None, true, start).transpose(),
        }
    }

    /// Records it.
    pub(super) fn begin(&self, message: Message<'_>, hop: Option<Hop>) -> Result<Option<Pending>, Blocked> {
        let userinfo = message.userinfo();
        match self {
            Origin::Function(frame) => {
                frame.begin_hop(message.target(&userinfo), message.headers(), message.body(), hop)
            }
            Origin::Host => with(message, hop, true, begin).transpose(),
        }
    }

    /// Records what has left already.
    pub(super) fn after(&self, message: Message<'_>, hop: Option<Hop>, reason: &str, outcome: Outcome) {
        let userinfo = message.userinfo();
        match self {
            Origin::Function(frame) => {
                let (target, body) = (message.target(&userinfo), message.body());
                frame.sent_already(target, message.headers(), body, hop, reason, outcome);
            }
            Origin::Host => {
                with(message, hop, false, |tracker, outgoing| {
                    egress::record_after(tracker, outgoing, reason, outcome);
                });
            }
        }
    }
}

fn with<R>(
    message: Message<'_>,
    hop: Option<Hop>,
    enforceable: bool,
    verb: impl FnOnce(&Tracker, &Outgoing<'_>) -> R,
) -> Option<R> {
    let userinfo = message.userinfo();
    let outgoing = Outgoing {
        site: None,
        recipient: None,
        purpose: None,
        target: message.target(&userinfo),
        headers: message.headers(),
        body: message.body(),
        declared: &[],
        enforceable,
        hop,
    };
    tracker::with(|tracker| verb(tracker, &outgoing))
}

/// Records a request, lets `send` send it once the record is on disk, and records how it ended. Dropped
/// before the answer, nobody can tell how.
pub(super) async fn exchange<E, F>(
    origin: Origin,
    mut request: Request,
    send: impl FnOnce(Request) -> F,
) -> Result<Response, E>
where
    E: Failure,
    F: Future<Output = Result<Response, E>>,
{
    let Some(limit) = origin.read_ahead() else {
        return send(request).await;
    };
    let ahead = Ahead::take(&mut request, limit);
    let recording = origin.start_with(&request, ahead.as_ref());
    let pending = match recording.map_err(E::refused)? {
        Some(recording) => Some(recording.on_disk().await.map_err(E::refused)?),
        None => None,
    };
    let watcher = pending.as_ref().and_then(Pending::watcher);
    if let Some(ahead) = ahead {
        *request.body_mut() = Some(ahead.into_body(watcher.clone()));
    }
    let Some(pending) = pending else {
        return send(request).await;
    };
    let flight = Flight::of(origin, &request, pending);
    let answer = flight.carry(send(request)).await;
    match &answer {
        Ok(response) => flight.land(response.url(), response.status()),
        Err(error) => flight.end(error.outcome()),
    }
    match (answer, watcher.and_then(|watcher| watcher.blocked())) {
        // Not the client's words for a body that broke off.
        (Err(_), Some(blocked)) => Err(E::refused(blocked)),
        (answer, _) => answer,
    }
}

/// As [`exchange`], on a thread that waits.
pub(super) fn exchange_blocking(
    frame: &Frame,
    request: blocking::Request,
    send: impl FnOnce(blocking::Request) -> reqwest::Result<blocking::Response>,
) -> reqwest::Result<blocking::Response> {
    let origin = Origin::Function(frame.clone());
    let pending = match origin.begin(Message::of_blocking(&request), None) {
        Ok(Some(pending)) => pending,
        Ok(None) => return send(request),
        Err(blocked) => return Err(reqwest::Error::refused(blocked)),
    };
    let flight = Flight::of_blocking(origin, &request, pending);
    let announced = flight.announce();
    let answer = send(request);
    drop(announced);
    match &answer {
        Ok(response) => flight.land(response.url(), response.status()),
        Err(error) => flight.end(error.outcome()),
    }
    answer
}
