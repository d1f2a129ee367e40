//! A request in words, to be judged as if somebody made it.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::access::{AccessRequest, Action, Identity, LinkHolder, Peer, Principal, Resource, Scope, UseCase};
use crate::address::canonical;
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::name::{ArtifactPath, BundleName, Holder, RepositoryName, Tenant, Version};
use crate::place::Country;

/// A request in words. What is left out is unknown, or not asked for.
///
/// With a repository it is about an artifact or a folder; with a bundle alone it is about that
/// bundle; with neither, about the edge itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Described {
    /// Who, as a principal prints: `user:alice`, `peer:fra-1`, `link:ID`; `anonymous` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// The groups that the credentials name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// What the credentials are narrowed to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<Scope>>,
    /// What a peer is paired for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_case: Option<UseCase>,
    /// What is to be done; `read` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// The repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepositoryName>,
    /// The path in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<ArtifactPath>,
    /// Whether the repository is public.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public: Option<bool>,
    /// The bundle that holds the artifact, or that is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bundle: Option<BundleName>,
    /// The bundle's version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// The client's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The client's country.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub country: Option<Country>,
    /// The client's `Accept-Language`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub languages: Option<String>,
    /// When; this moment by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

impl Described {
    /// The description as a question that a policy can judge. `now` is the moment if none is
    /// described.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::error::ErrorKind::Invalid) if it contradicts itself: a path
    /// without a repository, a version without a bundle, a peer without a use case.
    pub fn question(self, now: Timestamp) -> Result<Question> {
        if self.path.is_some() && self.repository.is_none() {
            return Err(Error::invalid("a path is described without its repository"));
        }
        let holders = match (self.bundle.clone(), self.version.clone()) {
            (Some(bundle), Some(version)) => vec![Holder(bundle, version)],
            (None, Some(_)) => return Err(Error::invalid("a version is described without its bundle")),
            (Some(_), None) if self.repository.is_some() => {
                return Err(Error::invalid("the bundle of an artifact is described without its version"));
            }
            _ => Vec::new(),
        };
        let who = self.principal.as_deref().unwrap_or("anonymous");
        let principal = principal(who, self.groups.clone(), self.scopes.clone(), self.use_case)?;
        Ok(Question { principal, holders, at: self.at.unwrap_or(now), described: self })
    }
}

/// A described request, ready to be judged.
#[derive(Clone, Debug)]
pub struct Question {
    principal: Principal,
    holders: Vec<Holder>,
    at: Timestamp,
    described: Described,
}

impl Question {
    /// What was described.
    pub fn described(&self) -> &Described {
        &self.described
    }

    /// The bundles that hold the artifact.
    pub fn holders(&self) -> &[Holder] {
        &self.holders
    }

    /// Whether it is about an artifact that no bundle is described for.
    pub fn lacks_holders(&self) -> bool {
        self.holders.is_empty() && self.described.path.is_some()
    }

    /// The same question about an artifact that these bundles hold.
    #[must_use]
    pub fn with_holders(mut self, holders: Vec<Holder>) -> Question {
        self.holders = holders;
        self
    }

    /// The same question about another path of the repository.
    #[must_use]
    pub fn at_path(mut self, path: ArtifactPath) -> Question {
        self.described.path = Some(path);
        self
    }

    /// The request in the space of `tenant`.
    pub fn request<'a>(&'a self, tenant: &'a Tenant) -> AccessRequest<'a> {
        let described = &self.described;
        let resource = match (&described.repository, &described.bundle) {
            (Some(name), _) => Resource::Repository {
                name,
                path: described.path.as_ref(),
                public: described.public.unwrap_or_default(),
            },
            (None, Some(name)) => Resource::Bundle { name: Some(name) },
            (None, None) => Resource::Edge,
        };
        let action = described.action.unwrap_or(Action::Read);
        AccessRequest::new(tenant, &self.principal, action, resource, self.at)
            .with_client(described.address.and_then(canonical))
            .with_country(described.country)
            .with_languages(described.languages.as_deref())
            .with_holders(&self.holders)
    }
}

/// The principal that prints as `who`, as far as it can be made again.
fn principal(
    who: &str,
    groups: Vec<String>,
    scopes: Option<Vec<Scope>>,
    use_case: Option<UseCase>,
) -> Result<Principal> {
    let identity = |name: &str| {
        Arc::new(Identity {
            name: name.to_owned(),
            groups: groups.clone(),
            credential: None,
            scopes: scopes.clone(),
        })
    };
    match who.split_once(':') {
        None if who == "anonymous" => Ok(Principal::Anonymous),
        Some(("token", name)) => Ok(Principal::Token { name: name.to_owned() }),
        Some(("user", name)) => Ok(Principal::User(identity(name))),
        Some(("service", name)) => Ok(Principal::Service(identity(name))),
        Some(("peer", name)) => {
            let use_case =
                use_case.ok_or_else(|| Error::invalid(format!("{who} is described without its use case")))?;
            Ok(Principal::Peer(Arc::new(Peer {
                name: name.parse()?,
                use_case,
                credential: String::new(),
                scopes,
            })))
        }
        Some(("link", id)) => {
            Ok(Principal::Link(Arc::new(LinkHolder { id: id.to_owned(), key: String::new(), subject: None })))
        }
        _ => {
            let shown: String = who.chars().take(80).collect();
            Err(Error::invalid(format!(
                "{shown:?} is no principal: expected anonymous, user:NAME, service:NAME, peer:NAME, link:ID or token:NAME"
            )))
        }
    }
}
