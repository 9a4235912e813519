//! How a rewritten call finds out, by method resolution, whether its receiver is a client: an
//! integration's own method on [`Wrap`] of a client's type comes before the blanket answers of [`Other`].

#[cfg(feature = "runtime")]
use crate::hooks::egress::Frame;
#[cfg(not(feature = "runtime"))]
use crate::noop::egress::Frame;

/// A receiver, argument or result to be asked for its type.
pub struct Wrap<T>(pub T);

impl<T, E> Wrap<&Result<T, E>> {
    /// Whether a function's result is an error.
    pub fn __failed(&self) -> bool {
        self.0.is_err()
    }
}

/// What a place holds.
pub enum Pick<C> {
    /// A client, or a request of one.
    Client(C),
    /// Anything else.
    Other,
}

/// No client. Nothing ever is one of these.
pub enum Never {}

impl Never {
    /// Tells the compiler that what follows is never reached.
    pub fn go(&self) -> ! {
        match *self {}
    }

    /// The receiver itself, for its type.
    pub fn hook<T>(self, _: &Frame, _: T) -> T {
        match self {}
    }
}

/// The answers for every type that is no client's.
pub trait Other<T> {
    /// A receiver of a send.
    fn __hook(self, frame: &Frame) -> T;
    /// A receiver of query parameters.
    fn __query(self, frame: &Frame) -> T;
    /// A receiver of a whole request.
    fn __run(self, frame: &Frame) -> T;
    /// A place that a send would take.
    fn __pick(&self, frame: &Frame) -> Pick<Never>;
    /// A place that runs a whole request.
    fn __pick_run(&self, frame: &Frame) -> Pick<Never>;
    /// The argument of a function that sends a whole request.
    fn __through<R>(self, frame: &Frame, send: impl FnOnce(T) -> R) -> R;
    /// A function's result that is no `Result`.
    fn __failed(&self) -> bool;
}

impl<T> Other<T> for Wrap<T> {
    fn __hook(self, frame: &Frame) -> T {
        frame.other();
        self.0
    }

    fn __query(self, _: &Frame) -> T {
        self.0
    }

    fn __run(self, frame: &Frame) -> T {
        frame.other();
        self.0
    }

    fn __pick(&self, frame: &Frame) -> Pick<Never> {
        frame.other();
        Pick::Other
    }

    fn __pick_run(&self, frame: &Frame) -> Pick<Never> {
        frame.other();
        Pick::Other
    }

    fn __through<R>(self, frame: &Frame, send: impl FnOnce(T) -> R) -> R {
        frame.other();
        send(self.0)
    }

    fn __failed(&self) -> bool {
        false
    }
}
