//! Control requests: each is signed by the peer's identity key.
//!
//! What is signed is the [parts encoding](crate::key::pae_parts) of type `edge-req/v1` over the
//! method, the target with its query, the body's SHA-256 in lower-case hex (or `UNSIGNED-STREAM`),
//! the time in Unix seconds and a nonce. One header carries what the request itself does not say:
//!
//! ```text
//! distedge-signature: v1;ts=1795323600;nonce=<22 base64url>;body=<64 hex>;sig=<86 base64url>
//! ```

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::message::{Nonce, SKEW, check_fresh};
use super::text::TokenId;
use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Acceptance, PublicKey, Signer, pae_parts};

/// The header that carries the signature.
pub const SIGNATURE_HEADER: &str = "distedge-signature";
/// How far a request may be dated from the receiver's clock, in seconds.
pub const CONTROL_SKEW: i64 = SKEW;
/// For how long no nonce may come again, in seconds: as long as a request with it could be fresh.
pub const NONCE_LIFE: i64 = 2 * CONTROL_SKEW;

const TYPE: &str = "edge-req/v1";
const UNSIGNED: &str = "UNSIGNED-STREAM";
/// Longest value of the header.
const MAX_HEADER: usize = 512;
/// Nonces that are remembered of one peer.
const MAX_NONCES: usize = 1 << 19;
/// Seconds of one bucket of nonces.
const BUCKET: i64 = 60;

/// What the signature says of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignedBody {
    /// It has this digest, and must be checked against it before it is acted on.
    Digest(Digest),
    /// Nothing: it is verified by content where it goes (a blob under its digest, a pack).
    Stream,
}

impl SignedBody {
    /// The body is these bytes.
    pub fn of(bytes: &[u8]) -> SignedBody {
        SignedBody::Digest(Digest::of(bytes))
    }

    fn to_text(self) -> String {
        match self {
            SignedBody::Digest(digest) => digest.to_hex(),
            SignedBody::Stream => UNSIGNED.to_owned(),
        }
    }

    fn parse(text: &str) -> Result<SignedBody> {
        if text == UNSIGNED { Ok(SignedBody::Stream) } else { Digest::from_hex(text).map(SignedBody::Digest) }
    }
}

/// What is signed of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlRequest<'a> {
    /// The method, as it is sent.
    pub method: &'a str,
    /// The target in origin form with its query, as it is sent.
    pub target: &'a str,
}

fn message(request: ControlRequest<'_>, body: SignedBody, ts: Timestamp, nonce: Nonce) -> Vec<u8> {
    let (body, ts, nonce) = (body.to_text(), ts.as_unix().to_string(), nonce.to_string());
    pae_parts(
        TYPE,
        &[
            request.method.as_bytes(),
            request.target.as_bytes(),
            body.as_bytes(),
            ts.as_bytes(),
            nonce.as_bytes(),
        ],
    )
}

/// Signs control requests with a node's identity key.
#[derive(Clone, Debug)]
pub struct ControlSigner {
    signer: Arc<dyn Signer>,
}

impl ControlSigner {
    /// Signs with `signer`, which holds an Ed25519 key.
    pub fn new(signer: Arc<dyn Signer>) -> ControlSigner {
        ControlSigner { signer }
    }

    /// The value of [`SIGNATURE_HEADER`] for a request at `now`.
    ///
    /// # Errors
    /// What the signer says; if there is no randomness.
    pub fn sign(&self, request: ControlRequest<'_>, body: SignedBody, now: Timestamp) -> Result<String> {
        let nonce = Nonce::random()?;
        let signature = self.signer.sign(&message(request, body, now, nonce), now)?;
        Ok(format!(
            "v1;ts={};nonce={nonce};body={};sig={}",
            now.as_unix(),
            body.to_text(),
            URL_SAFE_NO_PAD.encode(signature)
        ))
    }
}

/// What [`SIGNATURE_HEADER`] says. It is worth nothing before [`verify`](SignedRequest::verify).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedRequest {
    ts: Timestamp,
    nonce: Nonce,
    body: SignedBody,
    signature: Vec<u8>,
}

impl SignedRequest {
    /// Reads the header's value.
    ///
    /// # Errors
    /// [`ErrorKind::Unauthenticated`]: what cannot be read signs nothing.
    pub fn parse(value: &str) -> Result<SignedRequest> {
        SignedRequest::read(value).ok_or_else(|| refused("the request's signature cannot be read"))
    }

    fn read(value: &str) -> Option<SignedRequest> {
        let mut members = (value.len() <= MAX_HEADER).then(|| value.split(';'))?;
        let mut member = |name: &str| members.next()?.strip_prefix(name)?.strip_prefix('=');
        // The version is a member without a value.
        if !value.starts_with("v1;") {
            return None;
        }
        let _ = member("v1");
        let ts = member("ts")?;
        let seconds: i64 =
            ts.parse().ok().filter(|seconds: &i64| *seconds >= 0 && seconds.to_string() == ts)?;
        let read = SignedRequest {
            ts: Timestamp::from_unix(seconds),
            nonce: member("nonce")?.parse().ok()?,
            body: SignedBody::parse(member("body")?).ok()?,
            signature: URL_SAFE_NO_PAD.decode(member("sig")?).ok()?,
        };
        members.next().is_none().then_some(read)
    }

    /// What it says of the body.
    pub fn body(&self) -> SignedBody {
        self.body
    }

    /// Whether the identity key `key` of the peer `peer` signed this request in these minutes, and
    /// for the first time.
    ///
    /// # Errors
    /// [`ErrorKind::Unauthenticated`] if not; [`ErrorKind::Unavailable`] if so many requests came
    /// that it cannot be told.
    pub fn verify(
        &self,
        request: ControlRequest<'_>,
        peer: TokenId,
        key: &PublicKey,
        nonces: &NonceCache,
        now: Timestamp,
    ) -> Result<()> {
        check_fresh(self.ts, now)?;
        let signed = message(request, self.body, self.ts, self.nonce);
        key.verify(&signed, &self.signature, &Acceptance::at(now))
            .map_err(|_| refused("the request is not signed by the paired node"))?;
        // Last, so that nobody else fills the memory of a peer.
        nonces.take(peer, self.nonce, self.ts, now)
    }
}

/// The nonces of the last minutes, by peer.
///
/// A nonce is remembered until no request that carries it could be fresh. What was forgotten stays
/// refused, also when the clock is turned back. It is kept in memory: after a restart, a request of
/// the minutes before could come a second time, if somebody recorded it inside TLS.
#[derive(Debug)]
pub struct NonceCache {
    peers: Mutex<HashMap<TokenId, Seen>>,
    most: usize,
}

#[derive(Debug, Default)]
struct Seen {
    /// By the minute of the request's time.
    buckets: BTreeMap<i64, HashSet<Nonce>>,
    count: usize,
    /// Requests dated before this are refused: their nonces are forgotten.
    floor: i64,
}

impl Default for NonceCache {
    fn default() -> NonceCache {
        NonceCache::new(MAX_NONCES)
    }
}

impl NonceCache {
    /// Remembers at most `most` nonces of a peer.
    pub fn new(most: usize) -> NonceCache {
        NonceCache { peers: Mutex::default(), most }
    }

    /// Forgets a peer that is none any more.
    pub fn forget(&self, peer: TokenId) {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).remove(&peer);
    }

    fn take(&self, peer: TokenId, nonce: Nonce, ts: Timestamp, now: Timestamp) -> Result<()> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = peers.entry(peer).or_default();
        let oldest = (now.as_unix() - CONTROL_SKEW).div_euclid(BUCKET);
        while let Some(entry) = seen.buckets.first_entry().filter(|entry| *entry.key() < oldest) {
            seen.floor = seen.floor.max((entry.key() + 1) * BUCKET);
            seen.count -= entry.remove().len();
        }
        if ts.as_unix() < seen.floor {
            return Err(refused("the request is older than what this node remembers"));
        }
        if seen.count >= self.most {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "the peer sends more requests than are remembered",
            ));
        }
        if !seen.buckets.entry(ts.as_unix().div_euclid(BUCKET)).or_default().insert(nonce) {
            return Err(refused("the request came before"));
        }
        seen.count += 1;
        Ok(())
    }
}

#[cold]
fn refused(why: &'static str) -> Error {
    Error::new(ErrorKind::Unauthenticated, why)
}
