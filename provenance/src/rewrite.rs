//! How a rewritten call finds out, by method resolution, whether its receiver is a client: an
//! integration's own method on [`Wrap`] of a client's type comes before the blanket answers of [`Other`].

use std::marker::PhantomData;

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
pub enum Pick<C, O = Same> {
    /// A client, or a request of one.
    Client(C),
    /// Anything else.
    Other(O),
}

/// The call stays as it is.
pub struct Same;

impl Same {
    /// The result of the call.
    pub fn keep<T>(self, result: T) -> T {
        result
    }
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

/// No client in a place of type `T`. Nothing ever is one of these.
pub struct NeverAt<T>(Never, PhantomData<T>);

impl<T> NeverAt<&T> {
    /// Tells the compiler that what follows is never reached.
    pub fn go(&self) -> ! {
        match self.0 {}
    }

    /// What the place holds, for its type.
    pub fn hook(self, _: &Frame) -> T {
        match self.0 {}
    }
}

/// The answers for every type that is no client's.
pub trait Other<T> {
    /// A receiver of a send.
    fn __hook(self, frame: &Frame) -> T;
    /// A receiver of the send of a request that has its body.
    fn __built(self, frame: &Frame) -> T;
    /// A receiver of query parameters.
    fn __query(self, frame: &Frame) -> T;
    /// A receiver of a whole request.
    fn __run(self, frame: &Frame) -> T;
    /// A receiver of a whole request, now or later.
    fn __execute(self, frame: &Frame) -> T;
    /// A place that a send would take.
    fn __pick(&self, frame: &Frame) -> Pick<Never>;
    /// A place that the send of a request with its body would take.
    fn __pick_built(&self, frame: &Frame) -> Pick<Never>;
    /// A place that runs a whole request.
    fn __pick_run(&self, frame: &Frame) -> Pick<Never>;
    /// A place that runs a whole request, now or later.
    fn __pick_execute(&self, frame: &Frame) -> Pick<NeverAt<T>>;
    /// The argument of a function that sends a whole request.
    fn __through<R>(self, frame: &Frame, send: impl FnOnce(T) -> R) -> R;
    /// A function's result that is no `Result`.
    fn __failed(&self) -> bool;
}

impl<T> Other<T> for Wrap<T> {
    fn __hook(self, frame: &Frame) -> T {
        frame.other(false);
        self.0
    }

    fn __built(self, frame: &Frame) -> T {
        frame.other(true);
        self.0
    }

    fn __query(self, _: &Frame) -> T {
        self.0
    }

    fn __run(self, frame: &Frame) -> T {
        frame.other(false);
        self.0
    }

    fn __execute(self, frame: &Frame) -> T {
        frame.other(false);
        self.0
    }

    fn __pick(&self, frame: &Frame) -> Pick<Never> {
        frame.other(false);
        Pick::Other(Same)
    }

    fn __pick_built(&self, frame: &Frame) -> Pick<Never> {
        frame.other(true);
        Pick::Other(Same)
    }

    fn __pick_run(&self, frame: &Frame) -> Pick<Never> {
        frame.other(false);
        Pick::Other(Same)
    }

    fn __pick_execute(&self, frame: &Frame) -> Pick<NeverAt<T>> {
        frame.other(false);
        Pick::Other(Same)
    }

    fn __through<R>(self, frame: &Frame, send: impl FnOnce(T) -> R) -> R {
        frame.other(false);
        send(self.0)
    }

    fn __failed(&self) -> bool {
        false
    }
}
