//! One send, from its record to its outcome.

use std::future::Future;

use reqwest::{Request, Response, blocking};

use super::failure::Failure;
use super::flight::Flight;
use super::message::Message;
use crate::hooks::egress::{self, Blocked, Frame, Outgoing, Pending, Recording, begin, start};
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
    /// Queues the record. `None` where nothing is in force.
    fn start(&self, message: Message<'_>) -> Result<Option<Recording>, Blocked> {
        let userinfo = message.userinfo();
        match self {
            Origin::Function(frame) => frame.start_send(message.target(&userinfo), message.headers(), message.body()),
            Origin::Host => with(message, true, start).transpose(),
        }
    }

    /// Records it.
    pub(super) fn begin(&self, message: Message<'_>) -> Result<Option<Pending>, Blocked> {
        let userinfo = message.userinfo();
        match self {
            Origin::Function(frame) => frame.begin_send(message.target(&userinfo), message.headers(), message.body()),
            Origin::Host => with(message, true, begin).transpose(),
        }
    }

    /// Records what has left already.
    pub(super) fn after(&self, message: Message<'_>, reason: &str, outcome: Outcome) {
        let userinfo = message.userinfo();
        match self {
            Origin::Function(frame) => {
                let (target, body) = (message.target(&userinfo), message.body());
                frame.sent_already(target, message.headers(), body, reason, outcome);
            }
            Origin::Host => {
                with(message, false, |tracker, outgoing| {
                    egress::record_after(tracker, outgoing, reason, outcome);
                });
            }
        }
    }
}

fn with<R>(message: Message<'_>, enforceable: bool, verb: impl FnOnce(&Tracker, &Outgoing<'_>) -> R) -> Option<R> {
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
    };
    tracker::with(|tracker| verb(tracker, &outgoing))
}

/// Records a request, lets `send` send it once the record is on disk, and records how it ended. Dropped
/// before the answer, nobody can tell how.
pub(super) async fn exchange<E, F>(
    origin: Origin,
    request: Request,
    send: impl FnOnce(Request) -> F,
) -> Result<Response, E>
where
    E: Failure,
    F: Future<Output = Result<Response, E>>,
{
    let recording = match origin.start(Message::of(&request)) {
        Ok(Some(recording)) => recording,
        Ok(None) => return send(request).await,
        Err(blocked) => return Err(E::refused(blocked)),
    };
    let pending = recording.on_disk().await.map_err(E::refused)?;
    let flight = Flight::of(origin, &request, pending);
    let answer = flight.carry(send(request)).await;
    match &answer {
        Ok(response) => flight.land(response.url(), response.status()),
        Err(error) => flight.end(error.outcome()),
    }
    answer
}

/// As [`exchange`], on a thread that waits.
pub(super) fn exchange_blocking(
    frame: &Frame,
    request: blocking::Request,
    send: impl FnOnce(blocking::Request) -> reqwest::Result<blocking::Response>,
) -> reqwest::Result<blocking::Response> {
    let origin = Origin::Function(frame.clone());
    let pending = match origin.begin(Message::of_blocking(&request)) {
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
