//! Who wants to do what to which thing, from where: the words of an access decision.

mod principal;
mod scope;

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::name::{ArtifactPath, BundleName, Holder, RepositoryName, Tenant, Version};
use crate::place::Country;

pub use principal::{Identity, LinkHolder, Peer, Principal, UseCase};
pub(crate) use scope::reaches;
pub use scope::{ActionSet, Reach, Scope};

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Action {
    /// Download an artifact or a bundle's documents.
    Read,
    /// See which names there are.
    List,
    /// Give labels and properties to artifacts at a source, or take them.
    Label,
    /// Add artifacts and make bundles at a source.
    Bundle,
    /// Sign a bundle.
    Sign,
    /// Say which edges should hold a bundle, and bring it to them.
    Distribute,
    /// Offer, upload and commit bundles and trust documents at an edge.
    Receive,
    /// Take a bundle back.
    Withdraw,
    /// Make and revoke signed URLs.
    Mint,
    /// Read the audit log, counters and download figures.
    Audit,
    /// Everything else that changes the edge or the source: tokens, policies, pairing, keys.
    Administer,
}

impl Action {
    /// Every action.
    pub const ALL: [Action; 11] = [
        Action::Read,
        Action::List,
        Action::Label,
        Action::Bundle,
        Action::Sign,
        Action::Distribute,
        Action::Receive,
        Action::Withdraw,
        Action::Mint,
        Action::Audit,
        Action::Administer,
    ];

    /// A stable lower-case name.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Read => "read",
            Action::List => "list",
            Action::Label => "label",
            Action::Bundle => "bundle",
            Action::Sign => "sign",
            Action::Distribute => "distribute",
            Action::Receive => "receive",
            Action::Withdraw => "withdraw",
            Action::Mint => "mint",
            Action::Audit => "audit",
            Action::Administer => "administer",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Action {
    type Err = Error;

    fn from_str(text: &str) -> Result<Action> {
        Action::ALL.into_iter().find(|action| action.as_str() == text).ok_or_else(|| {
            let shown: String = text.chars().take(40).collect();
            let known: Vec<&str> = Action::ALL.iter().map(|action| action.as_str()).collect();
            Error::invalid(format!("{shown:?} is not an action: expected one of {}", known.join(", ")))
        })
    }
}

impl Serialize for Action {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Action {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Action, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The thing it is to be done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resource<'a> {
    /// The edge, or the source, itself.
    Edge,
    /// A repository, or a folder or artifact in it.
    Repository {
        /// The repository.
        name: &'a RepositoryName,
        /// The path inside it, if one is meant.
        path: Option<&'a ArtifactPath>,
        /// Whether the repository may be read by anyone.
        public: bool,
    },
    /// A bundle, or the list of them.
    Bundle {
        /// The bundle's name, if one is meant.
        name: Option<&'a BundleName>,
    },
}

/// Everything a decision may look at.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AccessRequest<'a> {
    /// The tenant in whose space this happens.
    pub tenant: &'a Tenant,
    /// Who asks.
    pub principal: &'a Principal,
    /// For what.
    pub action: Action,
    /// On what.
    pub resource: Resource<'a>,
    /// The client's address, in its canonical form; `None` if it could not be told.
    pub client: Option<IpAddr>,
    /// The client's country; `None` if it could not be told.
    pub country: Option<Country>,
    /// The value of `Accept-Language` (RFC 9110 section 12.5.4), if the request has one.
    pub languages: Option<&'a str>,
    /// The bundles that brought the artifact here; empty until it has been looked up.
    pub holders: &'a [Holder],
    /// The moment of the decision.
    pub now: Timestamp,
}

impl<'a> AccessRequest<'a> {
    /// A request of `principal` to do `action` on `resource`, from an unknown place.
    pub fn new(
        tenant: &'a Tenant,
        principal: &'a Principal,
        action: Action,
        resource: Resource<'a>,
        now: Timestamp,
    ) -> AccessRequest<'a> {
        AccessRequest {
            tenant,
            principal,
            action,
            resource,
            client: None,
            country: None,
            languages: None,
            holders: &[],
            now,
        }
    }

    /// The same request from a client address, if it is known.
    #[must_use]
    pub fn with_client(mut self, client: Option<IpAddr>) -> AccessRequest<'a> {
        self.client = client.map(|address| address.to_canonical());
        self
    }

    /// The same request from a country, if it is known.
    #[must_use]
    pub fn with_country(mut self, country: Option<Country>) -> AccessRequest<'a> {
        self.country = country;
        self
    }

    /// The same request with an `Accept-Language`.
    #[must_use]
    pub fn with_languages(mut self, languages: Option<&'a str>) -> AccessRequest<'a> {
        self.languages = languages;
        self
    }

    /// The same request for an artifact that these bundles brought.
    #[must_use]
    pub fn with_holders(mut self, holders: &'a [Holder]) -> AccessRequest<'a> {
        self.holders = holders;
        self
    }
}

/// The answer to an [`AccessRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Decision {
    /// It may be done.
    Permit,
    /// It may not.
    Forbid(Refusal),
    /// It may be done on something else, which this client is to have instead.
    Steer(Steering),
}

/// Why something may not be done. It is for the log, not for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What kind of rule stands against it.
    pub kind: RefusalKind,
    /// The rule's name.
    pub rule: String,
    /// One sentence.
    pub reason: String,
}

impl Refusal {
    /// A refusal by `rule`.
    #[cold]
    pub fn new(kind: RefusalKind, rule: impl Into<String>, reason: impl Into<String>) -> Refusal {
        Refusal { kind, rule: rule.into(), reason: reason.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.reason, self.rule)
    }
}

/// What kind of rule refuses. The kind decides the answer: who lacks a right must not learn whether
/// the thing exists; whom a restriction or a duty stops is told that it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalKind {
    /// Nothing grants it.
    Right,
    /// An address, a country, a time or a signed constraint stands against it.
    Restriction,
    /// Separation of duties stands against it.
    Duty,
}

/// Where a client is sent instead of what it named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steering {
    /// The path in the same repository.
    pub path: ArtifactPath,
    /// The bundle whose artifact it must be.
    pub bundle: BundleName,
    /// The version that must hold it; `None` where an alias was chosen.
    pub version: Option<Version>,
    /// The rule that chose.
    pub rule: String,
}
