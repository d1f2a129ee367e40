//! Authenticators over directories of tokens and of paired services.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use http::HeaderMap;
use http::request::Parts;

use super::{Authenticator, Challenge, MAX_CREDENTIAL, Presented, presented, token_challenge};
use crate::access::Principal;
use crate::clock::{Clock, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;
use crate::token::{ControlRequest, SIGNATURE_HEADER, SignedBody, SignedRequest};

/// Knows user tokens.
///
/// # Contract
/// - **Not mine**: `Ok(None)` for what is no token of its kind.
/// - **Bad credentials stop**: `Unauthenticated` for a token of its kind that is not good at `now`, or
///   that is presented under the name of somebody else.
/// - **Memory is bounded** by the tokens there are, not by those that are presented.
pub trait TokenDirectory: fmt::Debug + Send + Sync + 'static {
    /// Who presents `token`, with the user name `user` beside it if the request has one.
    fn find(&self, user: Option<&str>, token: &Secret, now: Timestamp) -> Result<Option<Principal>>;
}

/// Knows paired services.
///
/// # Contract
/// - **Not mine**: `Ok(None)` for what is no master token.
/// - **A token alone is nothing**: `Unauthenticated` without a signature of the peer's identity key
///   over this very request, made within five minutes and never seen before.
pub trait PeerDirectory: fmt::Debug + Send + Sync + 'static {
    /// Which peer presents `token` with `request`; `signature` is the value of [`SIGNATURE_HEADER`].
    fn find(
        &self,
        token: &Secret,
        request: ControlRequest<'_>,
        signature: Option<&str>,
        now: Timestamp,
    ) -> Result<Option<Principal>>;
}

/// Authenticates by the tokens of a [`TokenDirectory`].
#[derive(Debug)]
pub struct DirectoryAuthenticator {
    directory: Arc<dyn TokenDirectory>,
    clock: Arc<dyn Clock>,
}

impl DirectoryAuthenticator {
    /// By the tokens of `directory`.
    pub fn new(directory: Arc<dyn TokenDirectory>, clock: Arc<dyn Clock>) -> DirectoryAuthenticator {
        DirectoryAuthenticator { directory, clock }
    }
}

#[async_trait]
impl Authenticator for DirectoryAuthenticator {
    async fn authenticate(&self, parts: &Parts) -> Result<Option<Principal>> {
        let Some(Presented { user, token }) = presented(&parts.headers, MAX_CREDENTIAL)? else {
            return Ok(None);
        };
        self.directory.find(user.as_deref(), &token, self.clock.now())
    }

    fn challenge(&self) -> Option<Challenge> {
        Some(token_challenge())
    }
}

/// Authenticates paired services of a [`PeerDirectory`].
///
/// A signature that says nothing of the body ([`SignedBody::Stream`]) authenticates as well: who
/// acts on the request asks [`signed_body`] and holds the body to it.
#[derive(Debug)]
pub struct PeerAuthenticator {
    directory: Arc<dyn PeerDirectory>,
    clock: Arc<dyn Clock>,
}

impl PeerAuthenticator {
    /// By the pairings of `directory`.
    pub fn new(directory: Arc<dyn PeerDirectory>, clock: Arc<dyn Clock>) -> PeerAuthenticator {
        PeerAuthenticator { directory, clock }
    }
}

#[async_trait]
impl Authenticator for PeerAuthenticator {
    async fn authenticate(&self, parts: &Parts) -> Result<Option<Principal>> {
        let Some(Presented { token, .. }) = presented(&parts.headers, MAX_CREDENTIAL)? else {
            return Ok(None);
        };
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        let request = ControlRequest { method: parts.method.as_str(), target };
        self.directory.find(&token, request, signature(&parts.headers)?, self.clock.now())
    }

    fn challenge(&self) -> Option<Challenge> {
        None
    }
}

/// What the signature of a request that was authenticated says of its body.
///
/// # Errors
/// `Unauthenticated` if there is no signature, or more than one.
pub fn signed_body(headers: &HeaderMap) -> Result<SignedBody> {
    let value = signature(headers)?.ok_or_else(|| bad("the request is not signed"))?;
    SignedRequest::parse(value).map(|signed| signed.body())
}

fn signature(headers: &HeaderMap) -> Result<Option<&str>> {
    let mut values = headers.get_all(SIGNATURE_HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(bad("the request is signed more than once"));
    }
    value.to_str().map(Some).map_err(|_| bad("the request's signature cannot be read"))
}

#[cold]
fn bad(why: &'static str) -> Error {
    Error::new(ErrorKind::Unauthenticated, why)
}
