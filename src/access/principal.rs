//! Who is asking.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Scope;
use crate::error::{Error, Result};
use crate::name::NodeName;

/// Who is asking.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Principal {
    /// Nobody presented credentials.
    Anonymous,
    /// The holder of the control token of this name: the first administrator, who may do everything.
    Token {
        /// The token's name, not the token.
        name: String,
    },
    /// A person.
    User(Arc<Identity>),
    /// A service account.
    Service(Arc<Identity>),
    /// A paired service.
    Peer(Arc<Peer>),
    /// The holder of a signed URL.
    Link(Arc<LinkHolder>),
}

impl Principal {
    /// The groups it belongs to, as its credentials say.
    pub fn groups(&self) -> &[String] {
        match self {
            Principal::User(identity) | Principal::Service(identity) => &identity.groups,
            _ => &[],
        }
    }

    /// What its credentials narrow it to; `None` for everything it has a right to.
    pub fn scopes(&self) -> Option<&[Scope]> {
        match self {
            Principal::User(identity) | Principal::Service(identity) => identity.scopes.as_deref(),
            Principal::Peer(peer) => peer.scopes.as_deref(),
            _ => None,
        }
    }

    /// What was presented: the id of a token, of a link, of a key. Never a secret.
    pub fn credential(&self) -> Option<&str> {
        match self {
            Principal::Anonymous | Principal::Token { .. } => None,
            Principal::User(identity) | Principal::Service(identity) => identity.credential.as_deref(),
            Principal::Peer(peer) => Some(&peer.credential),
            Principal::Link(link) => Some(&link.id),
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Principal::Anonymous => f.write_str("anonymous"),
            Principal::Token { name } => write!(f, "token:{name}"),
            Principal::User(identity) => write!(f, "user:{}", identity.name),
            Principal::Service(identity) => write!(f, "service:{}", identity.name),
            Principal::Peer(peer) => write!(f, "peer:{}", peer.name),
            Principal::Link(link) => write!(f, "link:{}", link.id),
        }
    }
}

/// A person or a service account, as its credentials tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Its name, unique among those of its kind in a tenant.
    pub name: String,
    /// The groups its credentials name; a policy may know more.
    pub groups: Vec<String>,
    /// The id of the token, the JWT or the certificate that was presented.
    pub credential: Option<String>,
    /// What the credentials narrow it to; `None` for everything it has a right to.
    pub scopes: Option<Vec<Scope>>,
}

/// A paired service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: NodeName,
    /// What it was paired for.
    pub use_case: UseCase,
    /// The id of its pairing.
    pub credential: String,
    /// What the pairing narrows it to; `None` for everything its use case has a right to.
    pub scopes: Option<Vec<Scope>>,
}

/// The holder of a signed URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkHolder {
    /// The link's id.
    pub id: String,
    /// The id of the key that signed it.
    pub key: String,
    /// For whom it was made, if it says so.
    pub subject: Option<String>,
}

/// What two services are paired for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum UseCase {
    /// A source sends bundles to an edge.
    SourceEdge,
    /// An edge feeds another edge.
    EdgeEdge,
    /// A control plane administers.
    Control,
    /// Edges share the load of one origin.
    Peer,
}

impl UseCase {
    /// Every use case.
    pub const ALL: [UseCase; 4] = [UseCase::SourceEdge, UseCase::EdgeEdge, UseCase::Control, UseCase::Peer];

    /// A stable lower-case name.
    pub fn as_str(self) -> &'static str {
        match self {
            UseCase::SourceEdge => "source-edge",
            UseCase::EdgeEdge => "edge-edge",
            UseCase::Control => "control",
            UseCase::Peer => "peer",
        }
    }
}

impl fmt::Display for UseCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for UseCase {
    type Err = Error;

    fn from_str(text: &str) -> Result<UseCase> {
        UseCase::ALL.into_iter().find(|case| case.as_str() == text).ok_or_else(|| {
            let shown: String = text.chars().take(40).collect();
            let known: Vec<&str> = UseCase::ALL.iter().map(|case| case.as_str()).collect();
            Error::invalid(format!("{shown:?} is not a use case: expected one of {}", known.join(", ")))
        })
    }
}

impl Serialize for UseCase {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for UseCase {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<UseCase, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
