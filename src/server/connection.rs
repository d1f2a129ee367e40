//! One connection, from its first byte to its close.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;

use super::admission::Place;
use super::again::Again;
use super::meter::{Answer, Meter, Verdict, Watch};
use super::socket::{Socket, unacknowledged};
use super::{Limits, tls};
use crate::address::proxy::Reading;
use crate::auth::ClientCertificate;
use crate::edge::{Body, Connection, Handler, problem};
use crate::error::{Error, ErrorKind};

/// Bytes of answers kept ready for one client. With one piece of a body on top, this is what a
/// slow client costs.
const SEND_BUFFER: usize = 32 * 1024;
/// The same over HTTP/1.1, where hyper has one limit for both directions: pieces of an upload that are
/// smaller than this cost a fifth more of processor time.
const BUFFER: usize = 256 * 1024;
/// Room for the request line, beside the header block.
const REQUEST_LINE: usize = 9 * 1024;

/// What one connection's task works with.
pub(super) struct Task<H> {
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) limits: Limits,
    pub(super) handler: H,
    /// Whether the other end is a proxy that must say for whom it connects.
    pub(super) proxied: bool,
    pub(super) peer: SocketAddr,
    pub(super) place: Place,
    pub(super) stopped: watch::Receiver<bool>,
}

/// What every request of a connection is told of it.
#[derive(Clone)]
struct Facts {
    /// The client, as the handler gets it.
    peer: SocketAddr,
    connection: Connection,
    certificate: Option<ClientCertificate>,
}

/// The peer of a connection whose client the proxy does not name.
const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

impl<H: Handler> Task<H> {
    /// Serves the connection until it ends. Its end is nobody's failure.
    pub(super) async fn run(mut self, stream: TcpStream) {
        let peer = self.peer;
        let meter = Meter::new();
        let mut socket = Socket::new(stream, Arc::clone(&meter));
        let ends = socket.ends();
        let Some(client) = self.client(&mut socket).await else { return };
        let connection = Connection { socket: peer, client, secure: self.tls.is_some() };
        let mut facts = Facts { peer: client.unwrap_or(NOBODY), connection, certificate: None };
        let Some(tls) = &self.tls else {
            match tokio::time::timeout(self.limits.header_timeout, socket.is_http2()).await {
                Ok(Ok(http2)) => self.serve(socket, http2, meter, ends, facts).await,
                Ok(Err(error)) => {
                    tracing::debug!(%peer, %error, "a connection broke before its first request")
                }
                Err(_) => tracing::debug!(%peer, "a connection without a request is closed"),
            }
            return;
        };
        match tokio::time::timeout(self.limits.handshake_timeout, tls.accept(socket)).await {
            Ok(Ok(stream)) => {
                let session = stream.get_ref().1;
                let http2 = session.alpn_protocol() == Some(b"h2");
                facts.certificate =
                    session.peer_certificates().and_then(<[_]>::first).map(tls::client_certificate);
                self.serve(stream, http2, meter, ends, facts).await;
            }
            Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
            Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
        }
    }

    /// For whom the connection was made, if that can be told; `None` if it is to be closed.
    async fn client(&mut self, socket: &mut Socket) -> Option<Option<SocketAddr>> {
        let peer = self.peer;
        if !self.proxied {
            return Some(Some(peer));
        }
        let client = match tokio::time::timeout(self.limits.header_timeout, socket.proxied()).await {
            Ok(Ok(Reading::Proxied { source, .. })) => {
                Some(SocketAddr::new(source.ip().to_canonical(), source.port()))
            }
            Ok(Ok(Reading::Local { .. })) => Some(peer),
            Ok(Ok(_)) => None,
            Ok(Err(error)) => {
                tracing::debug!(%peer, %error, "a connection from a proxy is closed");
                return None;
            }
            Err(_) => {
                tracing::debug!(%peer, "a proxy that does not say for whom it connects is cut");
                return None;
            }
        };
        match client {
            Some(client) if !self.place.settle(client.ip()) => None,
            client => Some(client),
        }
    }

    async fn serve<S>(
        self,
        stream: S,
        http2: bool,
        meter: Arc<Meter>,
        ends: Option<(SocketAddr, SocketAddr)>,
        facts: Facts,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let limits = self.limits.clone();
        let peer = facts.peer;
        let service = Requests {
            handler: self.handler,
            facts,
            meter: Arc::clone(&meter),
            http2,
            rate: Rate { bytes: limits.minimum_rate, grace: limits.rate_grace },
        };
        let watch = Watch::new(meter, http2);
        let io = TokioIo::new(stream);
        if http2 {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder
                .timer(TokioTimer::new())
                .max_concurrent_streams(limits.streams)
                .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
                .max_send_buf_size(SEND_BUFFER);
            let connection = builder.serve_connection(io, service);
            let graceful = |connection: Pin<&mut _>| http2::Connection::graceful_shutdown(connection);
            watched(connection, graceful, watch, &limits, self.stopped, ends, peer).await;
        } else {
            let mut builder = http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                // The watch has a limit for the head and another one for the time between requests.
                .header_read_timeout(None)
                // A client may close its half when it has sent its request.
                .half_close(true)
                .writev(true)
                .max_buf_size(BUFFER.max(limits.header_bytes + REQUEST_LINE))
                .max_headers(limits.headers)
                .max_header_size(limits.header_bytes + REQUEST_LINE);
            let connection = builder.serve_connection(io, service);
            let graceful = |connection: Pin<&mut _>| http1::Connection::graceful_shutdown(connection);
            watched(connection, graceful, watch, &limits, self.stopped, ends, peer).await;
        }
    }
}

/// Drives `connection` to its end, or drops it when the watch says so.
async fn watched<C>(
    connection: C,
    graceful_shutdown: impl Fn(Pin<&mut C>),
    mut watch: Watch,
    limits: &Limits,
    mut stopped: watch::Receiver<bool>,
    ends: Option<(SocketAddr, SocketAddr)>,
    peer: SocketAddr,
) where
    C: Future<Output = hyper::Result<()>>,
{
    let mut connection = std::pin::pin!(connection);
    let again = Again::new();
    let mut looks = tokio::time::interval(Watch::interval(limits));
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut stopping = false;
    // A connection that was asked to end gets this long to say goodbye.
    let mut leaving: Option<Instant> = None;
    loop {
        tokio::select! {
            biased;
            result = std::future::poll_fn(|context| again.poll(connection.as_mut(), context)) => {
                if let Err(error) = result {
                    tracing::debug!(%peer, %error, "a connection broke");
                }
                return;
            }
            _ = stopped.wait_for(|stop| *stop), if !stopping => {
                stopping = true;
                graceful_shutdown(connection.as_mut());
            }
            now = looks.tick() => {
                if leaving.is_some_and(|until| now >= until) {
                    return;
                }
                match watch.look(limits, now, || unacknowledged(ends, limits.rate_grace / 20)) {
                    None => {}
                    Some(Verdict::Idle) if leaving.is_none() => {
                        leaving = Some(now + Duration::from_secs(2));
                        graceful_shutdown(connection.as_mut());
                    }
                    Some(Verdict::Idle) => {}
                    Some(verdict) => {
                        tracing::debug!(%peer, ?verdict, "a connection is cut");
                        return;
                    }
                }
            }
        }
    }
}

/// The requests of one connection.
struct Requests<H> {
    handler: H,
    facts: Facts,
    meter: Arc<Meter>,
    http2: bool,
    rate: Rate,
}

impl<H: Handler> Service<Request<Incoming>> for Requests<H> {
    type Response = Response<Outgoing>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Outgoing>, Error>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let running = self.meter.begin();
        let (handler, rate, http2) = (self.handler.clone(), self.rate, self.http2);
        let Facts { peer, connection, certificate } = self.facts.clone();
        Box::pin(async move {
            let mut request = request.map(|body| match body.is_end_stream() {
                true => Body::empty(),
                false => Body::wrap(Paced::new(body, rate)),
            });
            // Extensions cost an allocation, and most connections have nothing to tell.
            if connection.secure || connection.client != Some(connection.socket) {
                request.extensions_mut().insert(connection);
            }
            if let Some(certificate) = certificate {
                request.extensions_mut().insert(certificate);
            }
            let head = request.method() == http::Method::HEAD;
            let answered = AssertUnwindSafe(handler.handle(request, peer)).catch_unwind().await;
            let response = answered.unwrap_or_else(|_| {
                tracing::error!(%peer, "a request handler panicked");
                problem::response(&Error::new(ErrorKind::Internal, "the request's handler panicked"), head)
            });
            Ok(response.map(|body| {
                let answer = running.answer(http2, body.guard());
                Outgoing { body, answer }
            }))
        })
    }
}

/// An answer's body that notes its progress.
struct Outgoing {
    body: Body,
    answer: Answer,
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Pending => self.answer.waits_for_source(),
            Poll::Ready(Some(Ok(frame))) => {
                self.answer.gave(frame.data_ref().map_or(0, |bytes| bytes.len() as u64));
            }
            Poll::Ready(Some(Err(error))) => {
                tracing::warn!(%error, "an answer is broken off");
            }
            Poll::Ready(None) => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[derive(Clone, Copy)]
struct Rate {
    bytes: u64,
    grace: Duration,
}

/// A request's body that fails when its client sends too slowly. Only time in which the client is
/// waited for counts.
struct Paced {
    body: Incoming,
    rate: Rate,
    /// When the client began to be waited for.
    waiting: Option<Instant>,
    /// Time and bytes of the present stretch of waiting.
    waited: Duration,
    received: u64,
    timer: Pin<Box<Sleep>>,
}

impl Paced {
    fn new(body: Incoming, rate: Rate) -> Paced {
        let timer = Box::pin(tokio::time::sleep(rate.grace));
        Paced { body, rate, waiting: None, waited: Duration::ZERO, received: 0, timer }
    }

    fn is_too_slow(&mut self, waited: Duration) -> bool {
        if waited < self.rate.grace {
            return false;
        }
        let wanted = u128::from(self.rate.bytes) * waited.as_millis() / 1000;
        let slow = u128::from(self.received) < wanted;
        (self.waited, self.received) = (Duration::ZERO, 0);
        slow
    }
}

impl http_body::Body for Paced {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let too_slow =
            || Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::TimedOut, "the client sends too slowly"))));
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            if let Some(since) = self.waiting.take() {
                self.waited += since.elapsed();
            }
            if let Some(Ok(frame)) = &frame {
                self.received += frame.data_ref().map_or(0, |bytes| bytes.len() as u64);
            }
            let waited = self.waited;
            if self.is_too_slow(waited) {
                return too_slow();
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(io::Error::other)));
        }
        let now = Instant::now();
        let since = match self.waiting {
            Some(since) => since,
            None => {
                self.waiting = Some(now);
                let deadline = now + self.rate.grace.saturating_sub(self.waited);
                self.timer.as_mut().reset(deadline);
                now
            }
        };
        ready!(self.timer.as_mut().poll(context));
        let waited = (self.waited + since.elapsed()).max(self.rate.grace);
        if self.is_too_slow(waited) {
            return too_slow();
        }
        // A new stretch begins here, with the client still being waited for.
        let now = Instant::now();
        self.waiting = Some(now);
        let deadline = now + self.rate.grace;
        self.timer.as_mut().reset(deadline);
        ready!(self.timer.as_mut().poll(context));
        too_slow()
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
