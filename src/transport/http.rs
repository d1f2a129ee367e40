//! Calls over HTTP: [`HttpTransport`].

use std::error::Error as StdError;
use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::time::Instant;

use super::{Answer, ByteStream, Call, CallBody, Credentials, Transport, Verb};
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;
use crate::token::SIGNATURE_HEADER;

const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
/// Idle connections are given up before a peer gives them up.
const POOL_IDLE: Duration = Duration::from_secs(30);

type SendBody = UnsyncBoxBody<Bytes, Error>;

/// A way to a peer over HTTP/1.1, with or without TLS. Connections are kept and used again.
#[derive(Clone)]
pub struct HttpTransport {
    client: Client<HttpsConnector<HttpConnector>, SendBody>,
    base: Arc<str>,
    credentials: Credentials,
    answer_timeout: Duration,
    answer_limit: usize,
}

/// What an [`HttpTransport`] is made of.
#[derive(Clone)]
pub struct HttpTransportBuilder {
    base: String,
    credentials: Credentials,
    authorities: Option<PathBuf>,
    connect_timeout: Duration,
    answer_timeout: Duration,
    answer_limit: usize,
}

impl HttpTransport {
    /// A transport to the peer at `base`, an `http` or `https` URL, with the system's certificate
    /// authorities and without a token.
    pub fn new(base: &str) -> Result<HttpTransport> {
        HttpTransport::builder(base).build()
    }

    /// A transport to the peer at `base`, to be told more about.
    pub fn builder(base: &str) -> HttpTransportBuilder {
        HttpTransportBuilder {
            base: base.to_owned(),
            credentials: Credentials::default(),
            authorities: None,
            connect_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(60),
            answer_limit: 64 * 1024 * 1024,
        }
    }

    /// The peer's URL.
    pub fn base(&self) -> &str {
        &self.base
    }

    fn request(&self, call: Call, progress: &Progress) -> Result<Request<SendBody>> {
        let wrong = |cause: &dyn fmt::Display| {
            Error::invalid(format!("the call {:?} to {} cannot be made: {cause}", call.path, self.base))
        };
        if !call.path.starts_with('/') {
            return Err(wrong(&"its path does not start with \"/\""));
        }
        let uri: Uri = format!("{}{}", self.base, call.path).parse().map_err(|cause| wrong(&cause))?;
        let mut request = Request::new(SendBody::default());
        *request.uri_mut() = uri;
        *request.method_mut() = method(call.verb);
        let headers = request.headers_mut();
        if let Some(token) = &self.credentials.token {
            let mut value = Vec::from(b"Bearer ");
            value.extend_from_slice(token.expose());
            let mut value = HeaderValue::from_maybe_shared(Bytes::from(value))
                .map_err(|_| wrong(&"the token is not fit for a header"))?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        if let Some(signature) = self.credentials.sign(&call)? {
            let value = HeaderValue::from_str(&signature).map_err(|cause| wrong(&cause))?;
            headers.insert(HeaderName::from_static(SIGNATURE_HEADER), value);
        }
        if call.verb == Verb::Patch {
            headers.insert(UPLOAD_OFFSET, HeaderValue::from(call.offset.unwrap_or(0)));
            let kind = HeaderValue::from_static("application/partial-upload");
            headers.insert(header::CONTENT_TYPE, kind);
        }
        let (length, body) = match call.body {
            CallBody::Bytes(bytes) => (bytes.len() as u64, sendable(Full::new(bytes))),
            CallBody::Stream(length, stream) => {
                let counted = Counted { stream, remaining: length, progress: progress.clone() };
                (length, sendable(StreamBody::new(counted.map(|chunk| chunk.map(Frame::data)))))
            }
        };
        // The peer takes no chunked bodies: the length is always said, also where it is 0.
        if !matches!(call.verb, Verb::Get | Verb::Head) {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            *request.body_mut() = body;
        }
        Ok(request)
    }

    async fn collect(&self, mut body: Incoming, progress: &Progress) -> Result<Bytes> {
        let mut collected = BytesMut::new();
        while let Some(frame) = self.in_time(progress, body.frame()).await? {
            let frame = frame.map_err(|cause| self.broken("its answer broke off", &cause))?;
            progress.note();
            let Ok(chunk) = frame.into_data() else { continue };
            if collected.len() + chunk.len() > self.answer_limit {
                return Err(Error::new(
                    ErrorKind::TooLarge,
                    format!("the answer of {} is longer than {} bytes", self.base, self.answer_limit),
                ));
            }
            collected.extend_from_slice(&chunk);
        }
        Ok(collected.freeze())
    }

    /// Waits for `future` as long as something moves.
    async fn in_time<T>(&self, progress: &Progress, future: impl Future<Output = T>) -> Result<T> {
        let mut future = std::pin::pin!(future);
        loop {
            let deadline = progress.last() + self.answer_timeout;
            tokio::select! {
                biased;
                value = &mut future => return Ok(value),
                () = tokio::time::sleep_until(deadline) => {
                    if progress.last() + self.answer_timeout <= Instant::now() {
                        return Err(Error::new(ErrorKind::TimedOut, format!(
                            "{} has not moved for {} seconds", self.base, self.answer_timeout.as_secs()
                        )));
                    }
                }
            }
        }
    }

    #[cold]
    fn broken(&self, what: &str, cause: &(dyn StdError + 'static)) -> Error {
        let mut reasons = Vec::new();
        let mut timed_out = false;
        let mut at = Some(cause);
        while let Some(error) = at {
            // A failure of this side's own stream is this side's error, not the peer's.
            if let Some(own) = error.downcast_ref::<Error>() {
                return Error::new(own.kind(), format!("sending to {}: {own}", self.base));
            }
            let io = error.downcast_ref::<std::io::Error>();
            timed_out |= io.is_some_and(|io| io.kind() == std::io::ErrorKind::TimedOut);
            let reason = error.to_string();
            if reasons.last() != Some(&reason) {
                reasons.push(reason);
            }
            at = error.source();
        }
        let kind = if timed_out { ErrorKind::TimedOut } else { ErrorKind::Unavailable };
        Error::new(kind, format!("{}: {what}: {}", self.base, reasons.join(": ")))
    }
}

#[async_trait]
impl Transport for HttpTransport {
    async fn call(&self, call: Call) -> Result<Answer> {
        let progress = Progress::begin();
        let request = self.request(call, &progress)?;
        let response = self.in_time(&progress, self.client.request(request)).await?;
        let response = response.map_err(|cause| {
            let what = if cause.is_connect() { "it cannot be reached" } else { "the call failed" };
            self.broken(what, &cause)
        })?;
        progress.note();
        let (head, body) = response.into_parts();
        let offset = head.headers.get(UPLOAD_OFFSET).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = self.collect(body, &progress).await?;
        Ok(Answer { status: head.status.as_u16(), offset, body })
    }
}

impl fmt::Debug for HttpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTransport").field("base", &self.base).finish_non_exhaustive()
    }
}

impl HttpTransportBuilder {
    /// Presents this bearer token with every call.
    #[must_use]
    pub fn with_token(mut self, token: Secret) -> HttpTransportBuilder {
        self.credentials.token = Some(token);
        self
    }

    /// Presents these credentials with every call.
    #[must_use]
    pub fn with_credentials(mut self, credentials: Credentials) -> HttpTransportBuilder {
        self.credentials = credentials;
        self
    }

    /// Trusts the certificate authorities in this PEM file, and no others.
    #[must_use]
    pub fn with_authorities(mut self, file: impl Into<PathBuf>) -> HttpTransportBuilder {
        self.authorities = Some(file.into());
        self
    }

    /// How long connecting may take (10 seconds).
    #[must_use]
    pub fn with_connect_timeout(mut self, timeout: Duration) -> HttpTransportBuilder {
        self.connect_timeout = timeout;
        self
    }

    /// How long nothing may move in either direction (60 seconds).
    #[must_use]
    pub fn with_answer_timeout(mut self, timeout: Duration) -> HttpTransportBuilder {
        self.answer_timeout = timeout;
        self
    }

    /// Longest answer, in bytes (64 MiB).
    #[must_use]
    pub fn with_answer_limit(mut self, limit: usize) -> HttpTransportBuilder {
        self.answer_limit = limit;
        self
    }

    /// The transport.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a URL that is not `http://` or `https://` with a host, one with
    /// credentials, a query or a fragment, and for certificate authorities that cannot be used.
    pub fn build(self) -> Result<HttpTransport> {
        let base = checked_base(&self.base)?;
        let tls = tls_config(base.starts_with("https:"), self.authorities.as_deref())?;
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(self.connect_timeout));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(POOL_IDLE)
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .build(connector);
        Ok(HttpTransport {
            client,
            base: base.into(),
            credentials: self.credentials,
            answer_timeout: self.answer_timeout,
            answer_limit: self.answer_limit,
        })
    }
}

impl fmt::Debug for HttpTransportBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL has not been checked yet, and may hold credentials.
        f.debug_struct("HttpTransportBuilder").finish_non_exhaustive()
    }
}

fn checked_base(text: &str) -> Result<String> {
    // The text itself is not shown: it may hold the credentials it is refused for.
    let bad = |why: &str| Error::invalid(format!("the peer's URL {why}"));
    let uri: Uri = text.parse().map_err(|_| bad("cannot be read"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(bad("does not begin with \"http://\" or \"https://\""));
    }
    let authority = uri.authority().filter(|authority| !authority.host().is_empty());
    let authority = authority.ok_or_else(|| bad("names no host"))?;
    if authority.as_str().contains('@') {
        return Err(bad("holds credentials; they belong in the token"));
    }
    if uri.query().is_some() || text.contains('#') {
        return Err(bad("has a query or a fragment"));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

fn tls_config(needed: bool, authorities: Option<&Path>) -> Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    if let Some(file) = authorities {
        let shown = file.display();
        let bad = |cause: &dyn fmt::Display| {
            Error::invalid(format!("the certificate authorities in {shown} cannot be used: {cause}"))
        };
        for certificate in CertificateDer::pem_file_iter(file).map_err(|cause| bad(&cause))? {
            roots.add(certificate.map_err(|cause| bad(&cause))?).map_err(|cause| bad(&cause))?;
        }
        if roots.is_empty() {
            return Err(bad(&"there is no certificate in it"));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|cause| Error::new(ErrorKind::Internal, format!("TLS cannot be set up: {cause}")))?;
    if needed && authorities.is_none() {
        use hyper_rustls::ConfigBuilderExt as _;
        let builder = builder.with_native_roots().map_err(|cause| {
            Error::new(ErrorKind::Unavailable, format!("the system has no certificate authorities: {cause}"))
        })?;
        return Ok(builder.with_no_client_auth());
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn method(verb: Verb) -> Method {
    match verb {
        Verb::Get => Method::GET,
        Verb::Head => Method::HEAD,
        Verb::Put => Method::PUT,
        Verb::Post => Method::POST,
        Verb::Patch => Method::PATCH,
        Verb::Delete => Method::DELETE,
    }
}

fn sendable<B>(body: B) -> SendBody
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    UnsyncBoxBody::new(body.map_err(|cause| match cause.into().downcast::<Error>() {
        Ok(own) => *own,
        Err(other) => Error::new(ErrorKind::Internal, other.to_string()),
    }))
}

/// When something last moved.
#[derive(Clone)]
struct Progress(Arc<Mutex<Instant>>);

impl Progress {
    fn begin() -> Progress {
        Progress(Arc::new(Mutex::new(Instant::now())))
    }

    fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An upload's stream that notes progress and holds to its length.
struct Counted {
    stream: ByteStream,
    remaining: u64,
    progress: Progress,
}

impl Stream for Counted {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        let polled = self.stream.poll_next_unpin(context);
        if let Poll::Ready(Some(Ok(chunk))) = &polled {
            self.progress.note();
            match self.remaining.checked_sub(chunk.len() as u64) {
                Some(remaining) => self.remaining = remaining,
                None => return Poll::Ready(Some(Err(wrong_length()))),
            }
        }
        match polled {
            Poll::Ready(None) if self.remaining > 0 => {
                self.remaining = 0;
                Poll::Ready(Some(Err(wrong_length())))
            }
            polled => polled,
        }
    }
}

#[cold]
fn wrong_length() -> Error {
    Error::new(ErrorKind::Mismatch, "the upload does not have the announced length")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_with_credentials_are_refused_and_not_shown() {
        for bad in [
            "",
            "edge",
            "ftp://edge",
            "http://",
            "http://u:hunter2@edge",
            "https://edge/?x=hunter2",
            "http://edge/#hunter2",
            "/path",
            "http://ed ge",
        ] {
            let error = HttpTransport::new(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{bad}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        let transport =
            HttpTransport::builder("http://edge:8080/").with_token(Secret::new("hunter2")).build().unwrap();
        assert_eq!(transport.base(), "http://edge:8080");
        assert!(!format!("{transport:?}").contains("hunter2"));
    }
}
