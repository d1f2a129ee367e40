//! Bytes to and from another node: the [`Transport`] port.
//!
//! A transport carries one call at a time to one peer and brings the answer back. It knows how
//! to reach the peer and how to present its credentials; what the calls mean is `distribute`'s
//! affair.

#[cfg(feature = "client")]
mod http;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;

use crate::clock::Clock;
use crate::error::Result;
use crate::key::Signer;
use crate::secret::Secret;
use crate::token::{ControlRequest, ControlSigner, SignedBody};

#[cfg(feature = "client")]
pub use self::http::{HttpTransport, HttpTransportBuilder};

/// Signs the calls of a transport, for a peer that this node is paired with.
///
/// # Contract
/// - What `sign` returns is the value of the header
///   [`SIGNATURE_HEADER`](crate::token::SIGNATURE_HEADER) for this one call.
/// - `request` has the path as the caller gave it, without what the transport puts before it.
pub trait RequestSigner: fmt::Debug + Send + Sync + 'static {
    /// A signature over a call with such a body.
    fn sign(&self, request: ControlRequest<'_>, body: SignedBody) -> Result<String>;
}

/// Signs with this node's identity key, at the time of its clock.
#[derive(Clone, Debug)]
pub struct IdentitySigner {
    signer: ControlSigner,
    clock: Arc<dyn Clock>,
}

impl IdentitySigner {
    /// Signs with `key`, an Ed25519 key.
    pub fn new(key: Arc<dyn Signer>, clock: Arc<dyn Clock>) -> IdentitySigner {
        IdentitySigner { signer: ControlSigner::new(key), clock }
    }
}

impl RequestSigner for IdentitySigner {
    fn sign(&self, request: ControlRequest<'_>, body: SignedBody) -> Result<String> {
        self.signer.sign(request, body, self.clock.now())
    }
}

/// What a node presents to a peer.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// A token, with every call.
    pub token: Option<Secret>,
    /// A signature over every call, if the two are paired.
    pub signer: Option<Arc<dyn RequestSigner>>,
}

impl Credentials {
    /// A token alone.
    pub fn token(token: Secret) -> Credentials {
        Credentials { token: Some(token), signer: None }
    }

    /// The value of the signature's header for a call; `None` if calls are not signed.
    ///
    /// # Errors
    /// What the signer says.
    pub fn sign(&self, call: &Call) -> Result<Option<String>> {
        let Some(signer) = &self.signer else { return Ok(None) };
        let body = match &call.body {
            CallBody::Bytes(bytes) => SignedBody::of(bytes),
            CallBody::Stream(..) => SignedBody::Stream,
        };
        signer.sign(ControlRequest { method: call.verb.as_str(), target: &call.path }, body).map(Some)
    }
}

/// A stream of byte chunks that may fail on the way.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send + 'static>>;

/// What a [`Call`] wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Read.
    Get,
    /// Read the head only.
    Head,
    /// Set.
    Put,
    /// Do.
    Post,
    /// Append to an upload.
    Patch,
    /// Remove.
    Delete,
}

impl Verb {
    /// The method of HTTP that says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Get => "GET",
            Verb::Head => "HEAD",
            Verb::Put => "PUT",
            Verb::Post => "POST",
            Verb::Patch => "PATCH",
            Verb::Delete => "DELETE",
        }
    }
}

/// The bytes that go with a [`Call`].
pub enum CallBody {
    /// In memory.
    Bytes(Bytes),
    /// A stream of exactly this many bytes.
    Stream(u64, ByteStream),
}

impl fmt::Debug for CallBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallBody::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            CallBody::Stream(length, _) => write!(f, "Stream({length})"),
        }
    }
}

/// One request to the peer.
#[derive(Debug)]
pub struct Call {
    /// What is wanted.
    pub verb: Verb,
    /// The path on the peer, absolute and percent-encoded.
    pub path: String,
    /// For [`Verb::Patch`]: the offset at which the body continues the upload.
    pub offset: Option<u64>,
    /// The body.
    pub body: CallBody,
}

impl Call {
    /// A call without a body.
    pub fn new(verb: Verb, path: impl Into<String>) -> Call {
        Call { verb, path: path.into(), offset: None, body: CallBody::Bytes(Bytes::new()) }
    }

    /// The same call with these bytes as its body.
    #[must_use]
    pub fn with_bytes(mut self, bytes: impl Into<Bytes>) -> Call {
        self.body = CallBody::Bytes(bytes.into());
        self
    }

    /// The same call continuing an upload at `offset` with `length` bytes of `stream`.
    #[must_use]
    pub fn with_upload(mut self, offset: u64, length: u64, stream: ByteStream) -> Call {
        self.offset = Some(offset);
        self.body = CallBody::Stream(length, stream);
        self
    }
}

/// The peer's answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status code.
    pub status: u16,
    /// For uploads: how many bytes the peer has.
    pub offset: Option<u64>,
    /// The body, bounded by the transport's answer limit.
    pub body: Bytes,
}

/// A way to one peer.
///
/// # Contract
/// - **An answer is the peer's**: any status is an `Ok`; an `Err` means no complete answer came
///   (`Unavailable`, `TimedOut`), and nothing is known of what the peer did.
/// - **Bounded answers**: a body over the limit is `TooLarge`, never unbounded memory.
/// - **Credentials stay in**: neither errors nor `Debug` show them.
#[async_trait]
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// Sends `call` and waits for the answer.
    async fn call(&self, call: Call) -> Result<Answer>;
}

#[async_trait]
impl<T: Transport + ?Sized> Transport for Arc<T> {
    async fn call(&self, call: Call) -> Result<Answer> {
        (**self).call(call).await
    }
}

#[async_trait]
impl<T: Transport + ?Sized> Transport for Box<T> {
    async fn call(&self, call: Call) -> Result<Answer> {
        (**self).call(call).await
    }
}
