//! The text of a token: minted, taken apart, looked into.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::denied::{Cause, Denied};
use super::{Claims, KeyName, LinkAlgorithm, LinkKey, LinkResource, MAX_TOKEN, PARAMETER};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::name::{encode_path, encode_segment};
use crate::secret::Secret;

/// A token of `key` that says `claims`.
///
/// # Errors
/// `Invalid` for claims that no verifier would accept, `TooLarge` if the token would be longer than
/// [`MAX_TOKEN`], `Conflict` if the key does not mint.
pub fn mint(key: &LinkKey, claims: &Claims, now: Timestamp) -> Result<Secret> {
    claims.check()?;
    let payload = claims.to_payload();
    // What is minted is what is read: one of them would otherwise be wrong.
    if Claims::parse(&payload)? != *claims {
        return Err(Error::new(ErrorKind::Internal, "the claims do not come back as they were"));
    }
    let prefix = key.algorithm().prefix();
    let text = format!("{prefix}.{}.{}", key.name(), URL_SAFE_NO_PAD.encode(payload));
    let tag = URL_SAFE_NO_PAD.encode(key.tag(&text, now)?);
    if text.len() + 1 + tag.len() > MAX_TOKEN {
        let message = format!("the link would be longer than {MAX_TOKEN} bytes: give it fewer claims");
        return Err(Error::new(ErrorKind::TooLarge, message));
    }
    Ok(Secret::new(format!("{text}.{tag}")))
}

/// The path and query under which `token` opens `resource`. A folder's URL ends in `/`; whoever
/// has it puts the rest of the path before the `?`.
pub fn url_path(resource: &LinkResource, token: &Secret) -> Secret {
    let mut path = String::from("/");
    encode_segment(resource.repository().as_str(), &mut path);
    path.push('/');
    if let Some(inside) = resource.path() {
        path.push_str(&encode_path(inside.as_str()));
        if matches!(resource, LinkResource::Prefix { .. }) {
            path.push('/');
        }
    }
    // Every byte of a token may stand in a query as it is.
    let token = token.expose_str().unwrap_or_default();
    Secret::new(format!("{path}?{PARAMETER}={token}"))
}

/// What a token says of itself. **Nothing of it was verified.**
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unverified {
    /// The algorithm that the prefix names.
    pub algorithm: LinkAlgorithm,
    /// The key that it names.
    pub key: KeyName,
    /// What it claims.
    pub claims: Claims,
}

/// Looks into a token without verifying it.
///
/// # Errors
/// `Invalid` if it has not the form of a token, or its claims are not strictly valid.
pub fn inspect(token: &str) -> Result<Unverified> {
    let parts = Parts::read(token).map_err(|_| Error::invalid("this has not the form of a link token"))?;
    Ok(Unverified {
        algorithm: parts.algorithm,
        key: KeyName::new(parts.key)?,
        claims: Claims::parse(&parts.payload)?,
    })
}

/// A token in its parts.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    pub(super) algorithm: LinkAlgorithm,
    pub(super) key: &'a str,
    /// Everything before the last dot: what is tagged.
    pub(super) text: &'a str,
    pub(super) payload: Vec<u8>,
    pub(super) tag: Vec<u8>,
}

impl<'a> Parts<'a> {
    /// Takes a token apart. The base64url is canonical: no padding, no stray bits, no other alphabet,
    /// so that a token has one spelling.
    pub(super) fn read(token: &'a str) -> Result<Parts<'a>, Denied> {
        let malformed = || Denied::unknown(Cause::Malformed);
        if token.len() > MAX_TOKEN {
            return Err(malformed());
        }
        let (text, tag) = token.rsplit_once('.').ok_or_else(malformed)?;
        let mut parts = text.split('.');
        let (Some(prefix), Some(key), Some(payload), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed());
        };
        let algorithm = prefix.parse().map_err(|_| malformed())?;
        let decoded = |part: &str| {
            URL_SAFE_NO_PAD.decode(part).ok().filter(|bytes| !bytes.is_empty()).ok_or_else(malformed)
        };
        if !KeyName::fits(key) {
            return Err(malformed());
        }
        Ok(Parts { algorithm, key, text, payload: decoded(payload)?, tag: decoded(tag)? })
    }
}
