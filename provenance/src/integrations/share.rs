//! Custom sinks: mail, queues, files, anything that no client hook sees.

use crate::hooks::egress::{Blocked, Body, Outgoing, Pending, Target, begin, start};
use crate::tracker;
use crate::vocabulary::Outcome;

/// Begins a share with `target`, a host or system by name.
///
/// ```no_run
/// # fn deliver(_: &[u8]) -> std::io::Result<()> { Ok(()) }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let mail = b"";
/// let share = provenance::share("smtp.example.com").purpose("receipts").payload(mail).begin()?;
/// match deliver(mail) {
///     Ok(()) => share.sent(),
///     Err(_) => share.error("smtp"),
/// }
/// # Ok(()) }
/// ```
pub fn share(target: &str) -> ShareBuilder<'_> {
    ShareBuilder {
        target,
        recipient: None,
        purpose: None,
        payload: None,
        content_type: None,
    }
}

/// A share in the making. Made by [`share`].
#[must_use = "nothing is recorded before begin()"]
pub struct ShareBuilder<'a> {
    target: &'a str,
    recipient: Option<&'a str>,
    purpose: Option<&'a str>,
    payload: Option<&'a [u8]>,
    content_type: Option<&'a str>,
}

impl<'a> ShareBuilder<'a> {
    /// The recipient's name; otherwise the one whose `hosts` name the target, else the target.
    pub fn recipient(mut self, recipient: &'a str) -> Self {
        self.recipient = Some(recipient);
        self
    }

    /// Why it is sent. Kept as it is: no personal values here.
    pub fn purpose(mut self, purpose: &'a str) -> Self {
        self.purpose = Some(purpose);
        self
    }

    /// What is sent: scanned, never kept.
    pub fn payload<B: AsRef<[u8]> + ?Sized>(mut self, payload: &'a B) -> Self {
        self.payload = Some(payload.as_ref());
        self
    }

    /// How the payload is to be read, `application/json`; otherwise its first byte tells.
    pub fn content_type(mut self, content_type: &'a str) -> Self {
        self.content_type = Some(content_type);
        self
    }

    /// Scans the payload and records the share; when this returns `Ok`, the record is on disk.
    /// Without a tracker in force it does nothing.
    ///
    /// # Errors
    /// [`Blocked`]: by the policy, or because the record could not be persisted in time and the
    /// configuration says `on_evidence_failure: refuse`. Send nothing then.
    pub fn begin(self) -> Result<Share, Blocked> {
        let pending = tracker::with(|tracker| begin(tracker, &self.outgoing())).transpose()?;
        Ok(Share { pending })
    }

    /// As [`ShareBuilder::begin`], for tasks: payload and policy are looked at, and the record is queued, at once; the
    /// future is ready when the record is on disk. It blocks no thread. Dropped, the outcome of the share is
    /// unknown.
    ///
    /// # Errors
    /// As [`ShareBuilder::begin`].
    #[must_use = "nothing may be sent before the record is on disk: await it"]
    pub fn begin_async(self) -> impl Future<Output = Result<Share, Blocked>> + Send + 'static + use<> {
        let started = tracker::with(|tracker| start(tracker, &self.outgoing())).transpose();
        async move {
            let pending = match started? {
                Some(recording) => Some(recording.on_disk().await?),
                None => None,
            };
            Ok(Share { pending })
        }
    }

    fn outgoing(&self) -> Outgoing<'_> {
        Outgoing {
            site: None,
            recipient: self.recipient,
            purpose: self.purpose,
            target: Target::Named(self.target),
            headers: Vec::new(),
            body: match self.payload {
                Some(bytes) => Body::Bytes {
                    bytes,
                    content_type: self.content_type,
                },
                None => Body::Unseen,
            },
            declared: &[],
            enforceable: true,
            hop: None,
        }
    }
}

/// A share under way. Say how it ended; dropped, its outcome is unknown.
#[must_use = "say how it ended: sent(), status(code) or error(kind); dropped, the outcome is unknown"]
pub struct Share {
    pending: Option<Pending>,
}

impl Share {
    /// Handed over to a transport that has no status.
    pub fn sent(self) {
        self.finish(Outcome::Sent);
    }

    /// The recipient answered with this status code.
    pub fn status(self, code: u16) {
        self.finish(Outcome::Status(code));
    }

    /// It failed. `kind` is a word of the program's own, such as `timeout`; never an error's text.
    pub fn error(self, kind: &'static str) {
        self.finish(Outcome::Error(kind));
    }

    fn finish(self, outcome: Outcome) {
        if let Some(pending) = self.pending {
            pending.finish(outcome);
        }
    }
}
