//! Why a link does not open what was asked for.

use std::fmt;

use super::LinkId;
use crate::error::{Error, ErrorKind};

/// What stands against a request with a link, in the order in which it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// The token has not the form of one.
    Malformed,
    /// The token's prefix names another algorithm than its key has.
    WrongAlgorithm,
    /// No such key is known.
    UnknownKey,
    /// The tag is not this key's over these bytes.
    BadTag,
    /// The claims break a rule of theirs.
    BadClaims,
    /// The key was revoked.
    RevokedKey,
    /// The link was revoked.
    Revoked,
    /// Everything of the link's epoch was revoked.
    Epoch,
    /// The policy that limits the link is gone.
    PolicyGone,
    /// The link's time has not come.
    NotYet,
    /// The link's time is over.
    Expired,
    /// The link is another tenant's.
    Tenant,
    /// The link is for another edge.
    Audience,
    /// The link does not name this artifact.
    Resource,
    /// The link does not allow this method.
    Method,
    /// The client's address is not among the link's networks, or not known.
    Address,
    /// The client's country is not among the link's, or not known.
    Country,
    /// The name means other bytes than when the link was made.
    Digest,
    /// Another link or another client began this download.
    Grace,
    /// The link was used as often as it may be.
    Used,
    /// The link is used faster than it may be.
    Rate,
}

impl Cause {
    /// A stable kebab-case name, for the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Malformed => "malformed",
            Cause::WrongAlgorithm => "wrong-algorithm",
            Cause::UnknownKey => "unknown-key",
            Cause::BadTag => "bad-tag",
            Cause::BadClaims => "bad-claims",
            Cause::RevokedKey => "revoked-key",
            Cause::Revoked => "revoked",
            Cause::Epoch => "epoch",
            Cause::PolicyGone => "policy-gone",
            Cause::NotYet => "not-yet",
            Cause::Expired => "expired",
            Cause::Tenant => "tenant",
            Cause::Audience => "audience",
            Cause::Resource => "resource",
            Cause::Method => "method",
            Cause::Address => "address",
            Cause::Country => "country",
            Cause::Digest => "digest",
            Cause::Grace => "grace",
            Cause::Used => "used",
            Cause::Rate => "rate",
        }
    }

    /// The HTTP status that tells of it.
    pub fn status(self) -> u16 {
        match self {
            Cause::Malformed | Cause::WrongAlgorithm => 400,
            Cause::Rate => 429,
            _ => 403,
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Cause::Malformed => "the token has not the form of one",
            Cause::WrongAlgorithm => "the token's prefix names another algorithm than its key has",
            Cause::UnknownKey => "no such link key is known",
            Cause::BadTag => "the tag is not this key's over these bytes",
            Cause::BadClaims => "the claims break a rule of theirs",
            Cause::RevokedKey => "the link's key was revoked",
            Cause::Revoked => "the link was revoked",
            Cause::Epoch => "everything of the link's epoch was revoked",
            Cause::PolicyGone => "the policy that limits the link is gone",
            Cause::NotYet => "the link's time has not come",
            Cause::Expired => "the link's time is over",
            Cause::Tenant => "the link is another tenant's",
            Cause::Audience => "the link is for another edge",
            Cause::Resource => "the link does not name this artifact",
            Cause::Method => "the link does not allow this method",
            Cause::Address => "the client's address is not among the link's networks",
            Cause::Country => "the client's country is not among the link's",
            Cause::Digest => "the name means other bytes than when the link was made",
            Cause::Grace => "the link's time is over, and this download did not begin in time",
            Cause::Used => "the link was used as often as it may be",
            Cause::Rate => "the link is used faster than it may be",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal. `status` is for the client, everything else for the log alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// What stands against it.
    pub cause: Cause,
    /// The link, once its tag was found good.
    pub link: Option<LinkId>,
    /// More about it, where there is more: which claim breaks which rule.
    pub detail: Option<Box<str>>,
}

impl Denied {
    /// A refusal of a token whose link is not known.
    #[cold]
    pub(super) fn unknown(cause: Cause) -> Denied {
        Denied { cause, link: None, detail: None }
    }

    /// A refusal of a link.
    #[cold]
    pub(super) fn of(cause: Cause, link: LinkId) -> Denied {
        Denied { cause, link: Some(link), detail: None }
    }

    #[cold]
    pub(super) fn because(mut self, detail: impl fmt::Display) -> Denied {
        self.detail = Some(detail.to_string().into());
        self
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.cause.status()
    }

    /// The one sentence that a client is told: the same for all refusals of a status.
    pub fn message(&self) -> &'static str {
        match self.status() {
            400 => "The link cannot be read.",
            429 => "The link is used too fast.",
            _ => "The link does not open this.",
        }
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.cause.sentence())?;
        match &self.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Denied {}

impl From<Denied> for Error {
    /// The error that a client may be shown; the cause stays behind it.
    fn from(denied: Denied) -> Error {
        let kind = match denied.status() {
            400 => ErrorKind::Invalid,
            429 => ErrorKind::Unavailable,
            _ => ErrorKind::Forbidden,
        };
        Error::new(kind, denied.message()).with_source(denied)
    }
}
