//! What rewritten calls go through: stand-ins for reqwest's request builders and clients, with the
//! methods that send.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};

use reqwest::{Client, Request, RequestBuilder, Response, blocking};
use reqwest_middleware as with_middleware;
use reqwest_middleware::ClientWithMiddleware;

use super::exchange::{Origin, exchange, exchange_blocking};
use super::{Handed, Handler, innermost};
use crate::hooks::egress::Frame;
use crate::rewrite::{Pick, Wrap};

/// A request builder that a rewritten call sends.
pub trait Builder: Sized {
    /// What its `send` gives.
    type Sent;

    /// As its `send`, recorded as the function's.
    fn send_from(self, frame: &Frame) -> Self::Sent;
}

/// A client that a rewritten call runs a request on.
pub trait Executes: Clone {
    /// A request of its.
    type Request;
    /// What its `execute` gives.
    type Sent;

    /// As its `execute`, recorded as the function's.
    fn execute_from(self, frame: &Frame, request: Self::Request) -> Self::Sent;
}

impl Builder for RequestBuilder {
    type Sent = Sending<reqwest::Error>;

    fn send_from(self, frame: &Frame) -> Self::Sent {
        match self.build_split() {
            (client, Ok(request)) => client.execute_from(frame, request),
            (_, Err(error)) => Sending::new(async move { Err(error) }),
        }
    }
}

impl Executes for Client {
    type Request = Request;
    type Sent = Sending<reqwest::Error>;

    fn execute_from(self, frame: &Frame, request: Request) -> Self::Sent {
        let origin = Origin::Function(frame.clone());
        // Made only when the record is on disk: from then on its time-outs run.
        Sending::new(exchange(origin, request, move |request| self.execute(request)))
    }
}

impl Builder for with_middleware::RequestBuilder {
    type Sent = Sending<with_middleware::Error>;

    fn send_from(mut self, frame: &Frame) -> Self::Sent {
        let extensions = std::mem::take(self.extensions());
        match self.build_split() {
            (client, Ok(request)) => below_all(client, request, extensions, frame),
            (_, Err(error)) => Sending::new(async move { Err(error.into()) }),
        }
    }
}

impl Executes for ClientWithMiddleware {
    type Request = Request;
    type Sent = Sending<with_middleware::Error>;

    fn execute_from(self, frame: &Frame, request: Request) -> Self::Sent {
        below_all(self, request, http::Extensions::new(), frame)
    }
}

/// Sends it with one more middleware, below those that the client has.
fn below_all(
    client: ClientWithMiddleware,
    request: Request,
    mut extensions: http::Extensions,
    frame: &Frame,
) -> Sending<with_middleware::Error> {
    extensions.insert(Handed(frame.clone()));
    let client = with_middleware::ClientBuilder::from_client(client)
        .with(innermost as Handler)
        .build();
    Sending::new(async move { client.execute_with_extensions(request, &mut extensions).await })
}

impl Builder for blocking::RequestBuilder {
    type Sent = reqwest::Result<blocking::Response>;

    fn send_from(self, frame: &Frame) -> Self::Sent {
        let (client, request) = self.build_split();
        client.execute_from(frame, request?)
    }
}

impl Executes for blocking::Client {
    type Request = blocking::Request;
    type Sent = reqwest::Result<blocking::Response>;

    fn execute_from(self, frame: &Frame, request: blocking::Request) -> Self::Sent {
        exchange_blocking(frame, request, |request| self.execute(request))
    }
}

/// Stands for the future of a send.
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct Sending<E>(Pin<Box<dyn Future<Output = Result<Response, E>> + Send>>);

impl<E> Sending<E> {
    fn new(future: impl Future<Output = Result<Response, E>> + Send + 'static) -> Self {
        Sending(Box::pin(future))
    }
}

impl<E> Future for Sending<E> {
    type Output = Result<Response, E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

/// Stands for a request builder in a rewritten call.
pub struct Sender<B> {
    builder: B,
    frame: Frame,
}

impl<B: Builder> Sender<B> {
    /// As the builder's.
    pub fn send(self) -> B::Sent {
        self.builder.send_from(&self.frame)
    }
}

/// Stands for a client in a rewritten call.
pub struct Executor<C> {
    client: C,
    frame: Frame,
}

impl<C: Executes> Executor<C> {
    /// As the client's.
    pub fn execute(self, request: C::Request) -> C::Sent {
        self.client.execute_from(&self.frame, request)
    }
}

/// The call on a place that holds a client's type. Never made: the call goes through the hook.
pub enum Dead<S> {
    /// Nothing.
    #[doc(hidden)]
    Never(std::convert::Infallible, std::marker::PhantomData<S>),
}

impl<S> Dead<S> {
    /// Takes on the type of the hook.
    pub fn keep<T>(self, _: T) -> S {
        match self {
            Dead::Never(never, _) => match never {},
        }
    }
}

/// A place holds a request builder.
pub struct Held;

impl Held {
    /// What follows is reached.
    pub fn go(&self) {}

    /// Takes the request out of its place.
    pub fn hook<B>(self, frame: &Frame, builder: B) -> Sender<B> {
        Sender {
            builder,
            frame: frame.clone(),
        }
    }
}

/// A place holds a client.
pub struct Clients<C>(C);

impl<C> Clients<C> {
    /// What follows is reached.
    pub fn go(&self) {}

    /// An executor for the client; its place keeps it.
    pub fn hook(self, frame: &Frame) -> Executor<C> {
        Executor {
            client: self.0,
            frame: frame.clone(),
        }
    }
}

macro_rules! builders {
    ($($builder:ty),*) => {$(
        impl Wrap<$builder> {
            /// A send is about to be called on it.
            pub fn __built(self, frame: &Frame) -> Sender<$builder> {
                Held.hook(frame, self.0)
            }
        }

        impl Wrap<&$builder> {
            /// A place that holds a request.
            pub fn __pick_built(&self, _: &Frame) -> Pick<Held, Dead<<$builder as Builder>::Sent>> {
                Pick::Client(Held)
            }
        }
    )*};
}
builders!(
    RequestBuilder,
    with_middleware::RequestBuilder,
    blocking::RequestBuilder
);

macro_rules! clients {
    ($($client:ty: $($holder:ty),*;)*) => {$($(
        impl Wrap<$holder> {
            /// A request is about to be run on it.
            pub fn __execute(self, frame: &Frame) -> Executor<$client> {
                Clients(<$client>::clone(&self.0)).hook(frame)
            }
        }

        impl Wrap<&$holder> {
            /// A place that holds a client.
            pub fn __pick_execute(&self, _: &Frame) -> Pick<Clients<$client>, Dead<<$client as Executes>::Sent>> {
                Pick::Client(Clients(<$client>::clone(self.0)))
            }
        }
    )*)*};
}
clients! {
    Client: Client, &Client, Arc<Client>, &Arc<Client>, LazyLock<Client>, &LazyLock<Client>;
    ClientWithMiddleware: ClientWithMiddleware, &ClientWithMiddleware, Arc<ClientWithMiddleware>,
        &Arc<ClientWithMiddleware>, LazyLock<ClientWithMiddleware>, &LazyLock<ClientWithMiddleware>;
    blocking::Client: blocking::Client, &blocking::Client, Arc<blocking::Client>, &Arc<blocking::Client>,
        LazyLock<blocking::Client>, &LazyLock<blocking::Client>;
}
