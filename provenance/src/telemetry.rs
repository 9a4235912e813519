//! What the host's own observability sees of us, and we of it: each event as a `tracing` event,
//! trace ids from OpenTelemetry.

use std::sync::Arc;

/// The trace id of OpenTelemetry's current context, as 32 hex digits.
///
/// Asking the context, and not the `tracing` span, leaves a span alone that is not started yet.
#[cfg(feature = "opentelemetry")]
pub(crate) fn trace_id() -> Option<Arc<str>> {
    use opentelemetry::trace::TraceContextExt;
    let id = std::panic::catch_unwind(|| {
        opentelemetry::Context::map_current(|context| context.span().span_context().trace_id())
    });
    let id = id.ok().filter(|id| *id != opentelemetry::TraceId::INVALID)?;
    Some(id.to_string().into())
}

#[cfg(not(feature = "opentelemetry"))]
pub(crate) fn trace_id() -> Option<Arc<str>> {
    None
}

#[cfg(not(feature = "tracing"))]
pub(crate) use silent::{Told, is_listened_to};
#[cfg(feature = "tracing")]
pub(crate) use told::{Told, is_listened_to};

#[cfg(feature = "tracing")]
mod told {
    use std::cell::Cell;
    use std::collections::BTreeSet;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;

    use serde_json::Value as Json;
    use tracing::Level;

    use crate::vocabulary::{Event, EventType};

    thread_local! {
        /// Set while a subscriber has an event of ours in hand: what it does through our own hooks
        /// is recorded, and not told to it again.
        static TELLING: Cell<bool> = const { Cell::new(false) };
    }

    /// What an event says to the host's log: names and counts alone, no value, fingerprint or owner.
    pub(crate) struct Told {
        event_type: EventType,
        request_id: Option<Arc<str>>,
        recipient: Option<Arc<str>>,
        table: Option<String>,
        action: Option<String>,
        categories: String,
        values: usize,
    }

    impl Told {
        /// `None` if nobody listens. `Err` if a subscriber panicked.
        pub(crate) fn of(event: &Event) -> Result<Option<Self>, Panicked> {
            if !is_listened_to()? {
                return Ok(None);
            }
            let word = |key: &str| event.extras.get(key).and_then(Json::as_str).map(str::to_owned);
            let categories: BTreeSet<&str> = event.tags.iter().map(|tag| &*tag.tag.category).collect();
            Ok(Some(Told {
                event_type: event.event_type.clone(),
                request_id: event.request_id.clone(),
                recipient: event.recipient.clone(),
                table: word("table"),
                action: word("action"),
                categories: categories.into_iter().collect::<Vec<_>>().join(","),
                values: event.tags.len(),
            }))
        }

        /// Tells it, in the current span. `event_id`, where the event is on disk already.
        pub(crate) fn tell(self, event_id: Option<String>) -> Result<(), Panicked> {
            telling(|| {
                tracing::event!(
                    target: "provenance",
                    Level::INFO,
                    event_type = self.event_type.as_str(),
                    event_id = event_id.as_deref(),
                    request_id = self.request_id.as_deref(),
                    recipient = self.recipient.as_deref(),
                    table = self.table.as_deref(),
                    action = self.action.as_deref(),
                    categories = self.categories.as_str(),
                    values = self.values,
                );
            })
            .map(|_| ())
        }
    }

    /// Whether anybody listens, in the current span.
    pub(crate) fn is_listened_to() -> Result<bool, Panicked> {
        let listened = telling(|| tracing::enabled!(target: "provenance", Level::INFO))?;
        Ok(listened == Some(true))
    }

    /// A subscriber of the host's panicked.
    #[derive(Debug)]
    pub(crate) struct Panicked;

    /// `Ok(None)` within itself.
    fn telling<R>(tell: impl FnOnce() -> R) -> Result<Option<R>, Panicked> {
        struct Done;
        impl Drop for Done {
            fn drop(&mut self) {
                let _ = TELLING.try_with(|telling| telling.set(false));
            }
        }
        if TELLING.try_with(|telling| telling.replace(true)).unwrap_or(true) {
            return Ok(None);
        }
        let _done = Done;
        match catch_unwind(AssertUnwindSafe(tell)) {
            Ok(result) => Ok(Some(result)),
            Err(panic) => {
                // What a panic carries may panic when it is dropped.
                std::mem::forget(panic);
                Err(Panicked)
            }
        }
    }
}

#[cfg(not(feature = "tracing"))]
mod silent {
    use crate::vocabulary::Event;

    pub(crate) struct Told;

    pub(crate) fn is_listened_to() -> Result<bool, std::convert::Infallible> {
        Ok(false)
    }

    impl Told {
        pub(crate) fn of(_: &Event) -> Result<Option<Self>, std::convert::Infallible> {
            Ok(None)
        }

        pub(crate) fn tell(self, _: Option<String>) -> Result<(), std::convert::Infallible> {
            Ok(())
        }
    }
}
