//! Who wants to do what to which thing: the words of an access decision.

use std::fmt;
use std::net::IpAddr;

use crate::clock::Timestamp;
use crate::name::{ArtifactPath, BundleName, RepositoryName, Tenant};

/// Who is asking.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Principal {
    /// Nobody presented credentials.
    Anonymous,
    /// The holder of a token of this name.
    Token {
        /// The token's name, not the token.
        name: String,
    },
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Principal::Anonymous => f.write_str("anonymous"),
            Principal::Token { name } => write!(f, "token:{name}"),
        }
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// Download an artifact or a bundle's documents.
    Read,
    /// See which names there are.
    List,
    /// Offer, upload and commit bundles and trust documents.
    Receive,
    /// Take a bundle off this edge.
    Withdraw,
    /// Read security events and counters.
    Audit,
    /// Everything else that changes the edge.
    Administer,
}

impl Action {
    /// A stable lower-case name.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Read => "read",
            Action::List => "list",
            Action::Receive => "receive",
            Action::Withdraw => "withdraw",
            Action::Audit => "audit",
            Action::Administer => "administer",
        }
    }
}

/// The thing it is to be done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resource<'a> {
    /// The edge itself.
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
    /// The client's address, `None` if it could not be told.
    pub client: Option<IpAddr>,
    /// The moment of the decision.
    pub now: Timestamp,
}

impl<'a> AccessRequest<'a> {
    /// A request of `principal` to do `action` on `resource`.
    pub fn new(
        tenant: &'a Tenant,
        principal: &'a Principal,
        action: Action,
        resource: Resource<'a>,
        now: Timestamp,
    ) -> AccessRequest<'a> {
        AccessRequest { tenant, principal, action, resource, client: None, now }
    }

    /// The same request from a known client address.
    #[must_use]
    pub fn with_client(mut self, client: Option<IpAddr>) -> AccessRequest<'a> {
        self.client = client.map(|address| address.to_canonical());
        self
    }
}

/// The answer to an [`AccessRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Decision {
    /// It may be done.
    Permit,
    /// It may not, for this reason. The reason goes to the log, not to the client.
    Forbid(String),
}
