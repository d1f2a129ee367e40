//! Who is asking: the [`Authenticator`] port and its in-tree implementations.

mod certificate;
mod directory;
#[cfg(feature = "oidc")]
mod jwk;
#[cfg(feature = "oidc")]
mod jwks;
#[cfg(feature = "oidc")]
mod jwt;
#[cfg(feature = "oidc")]
mod oidc;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use http::request::Parts;

use crate::access::Principal;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

pub use self::certificate::{CertificateAuthenticator, CertificateMark, CertificateRule, ClientCertificate};
pub use self::directory::{
    DirectoryAuthenticator, PeerAuthenticator, PeerDirectory, TokenDirectory, signed_body,
};
#[cfg(feature = "oidc")]
pub use self::jwks::{Jwks, JwksFile, JwksLimits, JwksSource, JwksState};
#[cfg(feature = "oidc")]
pub use self::oidc::{ClaimPath, ClaimValue, Issuer, MAX_LEEWAY, OidcAuthenticator};

/// Longest credential that is looked at, in bytes.
const MAX_CREDENTIAL: usize = 4096;

/// The header in which clients of JFrog's products present a token.
const API_KEY: &str = "x-jfrog-art-api";

/// A `WWW-Authenticate` value (RFC 9110 section 11.6.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge(HeaderValue);

impl Challenge {
    /// A challenge with this value.
    pub fn new(value: &'static str) -> Challenge {
        Challenge(HeaderValue::from_static(value))
    }

    /// The header value.
    pub fn value(&self) -> &HeaderValue {
        &self.0
    }
}

/// Tells who a request comes from.
///
/// # Contract
/// - **Not mine**: `Ok(None)` means the request holds no credentials of this kind; the next one is asked.
/// - **Bad credentials stop**: `Err` (`Unauthenticated`, or `Invalid` if they cannot be read) means they
///   were presented and do not hold; nobody falls through to anonymous.
/// - **No secret leaves**: errors do not show the credentials.
#[async_trait]
pub trait Authenticator: fmt::Debug + Send + Sync + 'static {
    /// The principal whose credentials `parts` presents.
    async fn authenticate(&self, parts: &Parts) -> Result<Option<Principal>>;

    /// What to answer to who presents nothing.
    fn challenge(&self) -> Option<Challenge>;
}

#[async_trait]
impl<A: Authenticator + ?Sized> Authenticator for Arc<A> {
    async fn authenticate(&self, parts: &Parts) -> Result<Option<Principal>> {
        (**self).authenticate(parts).await
    }

    fn challenge(&self) -> Option<Challenge> {
        (**self).challenge()
    }
}

#[async_trait]
impl<A: Authenticator + ?Sized> Authenticator for Box<A> {
    async fn authenticate(&self, parts: &Parts) -> Result<Option<Principal>> {
        (**self).authenticate(parts).await
    }

    fn challenge(&self) -> Option<Challenge> {
        (**self).challenge()
    }
}

/// Several authenticators, asked in order.
#[derive(Debug, Default)]
pub struct Chain(Vec<Box<dyn Authenticator>>);

impl Chain {
    /// The authenticators in the order in which they are asked.
    pub fn new(links: Vec<Box<dyn Authenticator>>) -> Chain {
        Chain(links)
    }
}

#[async_trait]
impl Authenticator for Chain {
    async fn authenticate(&self, parts: &Parts) -> Result<Option<Principal>> {
        for link in &self.0 {
            if let Some(principal) = link.authenticate(parts).await? {
                return Ok(Some(principal));
            }
        }
        Ok(None)
    }

    fn challenge(&self) -> Option<Challenge> {
        self.0.iter().find_map(|link| link.challenge())
    }
}

/// How a token may be presented.
fn token_challenge() -> Challenge {
    Challenge::new("Basic realm=\"distedge\", charset=\"UTF-8\", Bearer realm=\"distedge\"")
}

/// Opaque tokens of which only the SHA-256 is known here. They come as `Authorization: Bearer`
/// (RFC 6750), as the password of `Authorization: Basic` (RFC 7617), or as `X-JFrog-Art-Api`.
///
/// A token holds 256 random bits, so its plain hash can neither be reversed nor guessed, and a
/// look-up by hash tells nothing through its duration.
#[derive(Debug, Default)]
pub struct TokenAuthenticator(RwLock<HashMap<Digest, String>>);

impl TokenAuthenticator {
    /// Knows these tokens: fingerprint and name of each.
    pub fn new(tokens: impl IntoIterator<Item = (Digest, String)>) -> TokenAuthenticator {
        TokenAuthenticator(RwLock::new(tokens.into_iter().collect()))
    }

    /// Knows one more token.
    pub fn add(&self, fingerprint: Digest, name: String) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(fingerprint, name);
    }

    /// Forgets a token; `true` if it was known.
    pub fn remove(&self, fingerprint: &Digest) -> bool {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(fingerprint).is_some()
    }
}

#[async_trait]
impl Authenticator for TokenAuthenticator {
    async fn authenticate(&self, parts: &Parts) -> Result<Option<Principal>> {
        let Some(Presented { token, .. }) = presented(&parts.headers, MAX_CREDENTIAL)? else {
            return Ok(None);
        };
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        match known.get(&token.fingerprint()) {
            Some(name) => Ok(Some(Principal::Token { name: name.clone() })),
            None => {
                Err(Error::new(ErrorKind::Unauthenticated, "the token that was presented is not valid here"))
            }
        }
    }

    fn challenge(&self) -> Option<Challenge> {
        Some(token_challenge())
    }
}

/// What a request presents.
#[derive(Debug)]
pub(crate) struct Presented {
    /// The user name of `Authorization: Basic`.
    pub(crate) user: Option<String>,
    /// The token.
    pub(crate) token: Secret,
}

/// The token a request presents, if it presents one: as `Authorization: Bearer` (RFC 6750), as the
/// password of `Authorization: Basic` (RFC 7617), or as `X-JFrog-Art-Api`, in at most `limit` bytes.
pub(crate) fn presented(headers: &HeaderMap, limit: usize) -> Result<Option<Presented>> {
    let mut found = None;
    for value in headers.get_all(AUTHORIZATION) {
        keep(&mut found, authorization(bounded(value, limit)?)?)?;
    }
    for value in headers.get_all(API_KEY) {
        let token = Secret::new(bounded(value, limit)?.as_bytes());
        keep(&mut found, Presented { user: None, token })?;
    }
    Ok(found)
}

fn keep(found: &mut Option<Presented>, presented: Presented) -> Result<()> {
    match found.replace(presented) {
        None => Ok(()),
        Some(_) => Err(Error::invalid("the request presents credentials more than once")),
    }
}

fn bounded(value: &HeaderValue, limit: usize) -> Result<&HeaderValue> {
    if value.len() > limit {
        return Err(Error::invalid(format!("the credentials have more than {limit} bytes")));
    }
    Ok(value)
}

fn authorization(value: &HeaderValue) -> Result<Presented> {
    let text = value.to_str().map_err(|_| unreadable())?;
    let (scheme, rest) = text.split_once(' ').ok_or_else(unreadable)?;
    let rest = rest.trim_matches(' ');
    // RFC 9110 section 11.1: the scheme is a case-insensitive token.
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(Presented { user: None, token: Secret::new(rest) });
    }
    if scheme.eq_ignore_ascii_case("basic") {
        let pair = Secret::new(STANDARD.decode(rest).map_err(|_| unreadable())?);
        let at = pair.expose().iter().position(|byte| *byte == b':').ok_or_else(unreadable)?;
        let user = std::str::from_utf8(&pair.expose()[..at]).map_err(|_| unreadable())?;
        return Ok(Presented { user: Some(user.to_owned()), token: Secret::new(&pair.expose()[at + 1..]) });
    }
    Err(Error::new(ErrorKind::Unauthenticated, "the authorization scheme is neither Bearer nor Basic"))
}

#[cold]
fn unreadable() -> Error {
    Error::invalid("the Authorization header cannot be read")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(headers: &[(&'static str, &str)]) -> Result<Option<Principal>> {
        let secret = Secret::new("s3cret");
        let tokens = TokenAuthenticator::new([(secret.fingerprint(), "ci".to_owned())]);
        let mut request = http::Request::new(());
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        let (parts, ()) = request.into_parts();
        futures_util::FutureExt::now_or_never(tokens.authenticate(&parts)).unwrap()
    }

    #[test]
    fn a_token_comes_in_three_ways() {
        let ci = Some(Principal::Token { name: "ci".into() });
        assert_eq!(ask(&[("authorization", "Bearer s3cret")]).unwrap(), ci);
        assert_eq!(ask(&[("authorization", "bearer  s3cret")]).unwrap(), ci);
        assert_eq!(ask(&[("authorization", "Basic dXNlcjpzM2NyZXQ=")]).unwrap(), ci);
        assert_eq!(ask(&[("x-jfrog-art-api", "s3cret")]).unwrap(), ci);
        assert_eq!(ask(&[]).unwrap(), None);
    }

    #[test]
    fn bad_credentials_never_become_anonymous() {
        for bad in ["Bearer s3cre", "Bearer ", "Bearer", "Digest x", "Basic !", "Basic dXNlcg==", ""] {
            assert!(ask(&[("authorization", bad)]).is_err(), "{bad}");
        }
        let twice = [("authorization", "Bearer s3cret"), ("x-jfrog-art-api", "s3cret")];
        assert_eq!(ask(&twice).unwrap_err().kind(), ErrorKind::Invalid);
        assert!(!format!("{:?}", ask(&[("authorization", "Bearer hunter2")])).contains("hunter2"));
    }
}
