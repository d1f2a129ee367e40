//! The edges a source knows, and which of them should hold which bundles.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Source;
use super::check::check_label;
use super::pairing::{master_name, pairing_key, pending_key};
use super::record::{ATTEMPTS, decode, encode, key, lost_race, prefix};
use super::release::bundle_key;
use crate::bundle::{Country, EdgeEntry, Statement};
use crate::clock::{Clock, Timestamp};
use crate::distribute::{Link, Window};
use crate::error::{Error, ErrorKind, Result};
use crate::meta::Batch;
use crate::name::{BundleName, NodeName, Version};
use crate::pattern::Pattern;
use crate::secret::Secret;

/// The least rate of a link, in bytes in a second.
const MIN_RATE: u64 = 1000;

/// An edge as the source knows it. Its token is kept in the vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EdgeRecord {
    /// Its name.
    pub name: NodeName,
    /// Where it is reached, `https://host[:port]`.
    pub url: String,
    /// A PEM file with the certificate authorities to trust for it, instead of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The site it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// The city it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub city: Option<String>,
    /// The country it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<Country>,
    /// Labels: `group` → `eu`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// How many bytes in a second may go to it; as many as there are if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
    /// When bundles may go to it; always if none is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<Window>,
}

impl EdgeRecord {
    /// An edge of this name at this address.
    pub fn new(name: NodeName, url: impl Into<String>) -> EdgeRecord {
        EdgeRecord {
            name,
            url: url.into(),
            ca: None,
            site: None,
            city: None,
            country: None,
            labels: BTreeMap::new(),
            rate: None,
            windows: Vec::new(),
        }
    }

    /// The way to it, if it has limits.
    pub(super) fn link(&self, clock: Arc<dyn Clock>) -> Option<Link> {
        let limited = self.rate.is_some() || !self.windows.is_empty();
        limited.then(|| Link::new(self.rate, self.windows.clone(), clock))
    }

    pub(super) fn check(&self) -> Result<()> {
        let url: http::Uri = self.url.parse().map_err(|_| {
            Error::invalid(format!("{:?} is not an address like https://edge.example:8443", self.url))
        })?;
        let plain = matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some();
        let authority = url.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        if !plain || authority.contains('@') || url.query().is_some() {
            return Err(Error::invalid(
                "an edge's address is http:// or https://, a host, and nothing secret: no user, no query",
            ));
        }
        // Slower than that, a connection looks dead.
        if self.rate.is_some_and(|rate| rate < MIN_RATE) {
            return Err(Error::invalid(format!("an edge gets at least {MIN_RATE} bytes in a second")));
        }
        for (what, text) in [("site", &self.site), ("city", &self.city)] {
            if let Some(text) = text
                && (text.trim().is_empty() || text.len() > 128 || text.chars().any(char::is_control))
            {
                return Err(Error::invalid(format!("a {what} has 1 to 128 bytes and no control characters")));
            }
        }
        self.labels.iter().try_for_each(|(key, value)| check_label(key).and_then(|()| check_label(value)))
    }

    /// Refuses a bundle whose constraints exclude this edge.
    pub(super) fn check_permitted(&self, statement: &Statement) -> Result<()> {
        if statement.constraints().permits_edge(&self.to_entry()) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Forbidden,
            format!("the constraints of the bundle {} exclude the edge {}", statement.bundle(), self.name),
        ))
    }

    /// The edge as the trust document lists it.
    pub(super) fn to_entry(&self) -> EdgeEntry {
        EdgeEntry {
            labels: self.labels.clone(),
            site: self.site.clone(),
            city: self.city.clone(),
            country: self.country,
            ..EdgeEntry::new(self.name.clone())
        }
    }
}

/// Which edges are meant: everything that is given must match. A rule that gives nothing matches
/// no edge. Patterns know `*` and `?`; site, city and country are compared without regard to case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The edge's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Pattern>,
    /// Its site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<Pattern>,
    /// Its city.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub city: Option<Pattern>,
    /// Its country.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<Pattern>,
    /// One of its labels, as `key=value` or by the key alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<Pattern>,
}

impl Rule {
    /// The rule for the edges whose names match `pattern`.
    pub fn named(pattern: Pattern) -> Rule {
        Rule { name: Some(pattern), ..Rule::default() }
    }

    /// Whether `edge` is meant.
    pub fn matches(&self, edge: &EdgeRecord) -> bool {
        let folded = |pattern: &Option<Pattern>, found: Option<&str>| match pattern {
            None => true,
            Some(pattern) => found.is_some_and(|found| {
                let pattern = Pattern::new(&pattern.as_str().to_lowercase());
                pattern.is_ok_and(|pattern| pattern.matches(&found.to_lowercase()))
            }),
        };
        *self != Rule::default()
            && self.name.as_ref().is_none_or(|pattern| pattern.matches(edge.name.as_str()))
            && folded(&self.site, edge.site.as_deref())
            && folded(&self.city, edge.city.as_deref())
            && folded(&self.country, edge.country.as_ref().map(Country::as_str))
            && self.label.as_ref().is_none_or(|pattern| {
                edge.labels
                    .iter()
                    .any(|(key, value)| pattern.matches(key) || pattern.matches(&format!("{key}={value}")))
            })
    }
}

/// That an edge should hold a version of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssignmentRecord {
    /// The bundle.
    pub bundle: BundleName,
    /// Its version.
    pub version: Version,
    /// The edge.
    pub edge: NodeName,
    /// Since when.
    pub since: Timestamp,
}

impl Source {
    /// Adds an edge, or changes what is known of it. `token` is a bootstrap token, for an edge that
    /// this source is not paired with: it is kept in the vault; `None` leaves the one there is.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for an address that is none, or a country that is no code;
    /// [`ErrorKind::Conflict`] for a token of an edge that is paired.
    pub async fn set_edge(&self, edge: &EdgeRecord, token: Option<&Secret>) -> Result<()> {
        edge.check()?;
        if let Some(token) = token {
            if self.pairing(&edge.name).await?.is_some() {
                return Err(paired_already(&edge.name));
            }
            if token.expose_str().is_none_or(|text| text.is_empty() || text.chars().any(char::is_whitespace))
            {
                return Err(Error::invalid("an edge's token is one word of text"));
            }
            self.vault.put(&token_name(&edge.name), token)?;
        }
        self.records.set(edge_key(&edge.name), Some(encode(edge)?)).await
    }

    /// All edges, by name.
    pub async fn edges(&self) -> Result<Vec<EdgeRecord>> {
        self.records.all(&prefix("edge", &[])).await
    }

    /// One edge.
    pub async fn edge(&self, name: &NodeName) -> Result<Option<EdgeRecord>> {
        self.records.load(&edge_key(name)).await
    }

    /// The bootstrap token with which the edge lets this source in, while the two are not paired.
    pub fn edge_token(&self, name: &NodeName) -> Result<Option<Secret>> {
        self.vault.get(&token_name(name))
    }

    pub(super) fn forget_edge_token(&self, name: &NodeName) -> Result<bool> {
        self.vault.remove(&token_name(name))
    }

    /// Forgets an edge, what it should hold and what it proved; `false` if it was not known.
    pub async fn remove_edge(&self, name: &NodeName) -> Result<bool> {
        let known = self.edge(name).await?.is_some();
        let mut batch = Batch::new();
        batch.delete(edge_key(name)).delete(key("status", &[name.as_str()]));
        let pairing = self.pairing(name).await?;
        batch.delete(pairing_key(name)).delete(pending_key(name));
        for assignment in self.assignments().await?.iter().filter(|assignment| assignment.edge == *name) {
            batch.delete(assignment_key(assignment));
        }
        self.records
            .each(&prefix("receipt", &[name.as_str()]), |entry| {
                batch.delete(entry.key.clone());
                Ok(())
            })
            .await?;
        self.records.commit(batch).await?;
        self.vault.remove(&token_name(name))?;
        if let Some(pairing) = pairing {
            self.vault.remove(&master_name(pairing.id))?;
        }
        Ok(known)
    }

    /// The edges that one of `rules` means.
    pub async fn matching_edges(&self, rules: &[Rule]) -> Result<Vec<EdgeRecord>> {
        let mut edges = self.edges().await?;
        edges.retain(|edge| rules.iter().any(|rule| rule.matches(edge)));
        Ok(edges)
    }

    /// Records that `edges` should hold a version of a bundle, besides those that should already.
    /// Nothing is sent; [`converge`](Source::converge) does that.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown bundle or edge; [`ErrorKind::Conflict`] for a draft, or a
    /// bundle that has fewer signatures than the ring demands; [`ErrorKind::Gone`] for a withdrawn
    /// one; [`ErrorKind::Forbidden`] for an edge that the bundle's constraints exclude. Nothing is
    /// recorded then.
    pub async fn assign(&self, bundle: &BundleName, version: &Version, edges: &[NodeName]) -> Result<u64> {
        for _ in 0..ATTEMPTS {
            let (_, entry) = self.distributable(bundle, version).await?;
            let statement = self.statement(bundle, version).await?;
            let mut batch = Batch::new();
            batch.expect_unchanged(bundle_key(bundle, version), Some(&entry));
            let mut assigned = 0;
            for name in edges {
                let known = self.records.entry(&edge_key(name)).await?.ok_or_else(|| {
                    Error::new(ErrorKind::NotFound, format!("there is no edge called {name}"))
                })?;
                let edge: EdgeRecord = decode(&known)?;
                edge.check_permitted(&statement)?;
                batch.expect_unchanged(edge_key(name), Some(&known));
                let assignment = AssignmentRecord {
                    bundle: bundle.clone(),
                    version: version.clone(),
                    edge: name.clone(),
                    since: self.clock.now(),
                };
                let at = assignment_key(&assignment);
                let present = self.records.entry(&at).await?;
                if present.is_none() {
                    batch.expect_unchanged(at.clone(), None).put(at, encode(&assignment)?);
                    assigned += 1;
                }
            }
            if self.records.commit(batch).await? {
                return Ok(assigned);
            }
        }
        Err(lost_race("assigning the bundle"))
    }

    /// Refuses what [`assign`](Source::assign) would refuse, and changes nothing.
    pub(super) async fn check_assignable(
        &self,
        bundle: &BundleName,
        version: &Version,
        edges: &[NodeName],
    ) -> Result<()> {
        self.distributable(bundle, version).await?;
        let statement = self.statement(bundle, version).await?;
        for name in edges {
            let known = self.edge(name).await?;
            let edge = known
                .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no edge called {name}")))?;
            edge.check_permitted(&statement)?;
        }
        Ok(())
    }

    /// Records that `edges` need no longer hold a version of a bundle; answers how many should have.
    pub async fn unassign(&self, bundle: &BundleName, version: &Version, edges: &[NodeName]) -> Result<u64> {
        let mut batch = Batch::new();
        let mut unassigned = 0;
        for assignment in self.assignments_of(bundle, version).await? {
            if edges.contains(&assignment.edge) {
                batch.delete(assignment_key(&assignment));
                unassigned += 1;
            }
        }
        self.records.commit(batch).await?;
        Ok(unassigned)
    }

    /// The desired state: every assignment, by bundle, version and edge.
    pub async fn assignments(&self) -> Result<Vec<AssignmentRecord>> {
        self.records.all(&prefix("assign", &[])).await
    }

    /// The assignments of one version of a bundle.
    pub async fn assignments_of(
        &self,
        bundle: &BundleName,
        version: &Version,
    ) -> Result<Vec<AssignmentRecord>> {
        self.records.all(&prefix("assign", &[bundle.as_str(), version.as_str()])).await
    }
}

pub(super) fn edge_key(name: &NodeName) -> Vec<u8> {
    key("edge", &[name.as_str()])
}

fn assignment_key(assignment: &AssignmentRecord) -> Vec<u8> {
    key("assign", &[assignment.bundle.as_str(), assignment.version.as_str(), assignment.edge.as_str()])
}

#[cold]
fn paired_already(name: &NodeName) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!("{name} is paired with this source, and takes no other token of it"),
    )
}

fn token_name(name: &NodeName) -> String {
    format!("edge-{name}.token")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_means_what_it_gives_and_nothing_when_empty() {
        let mut edge = EdgeRecord::new("eu-west-1".parse().unwrap(), "https://edge.example");
        edge.city = Some("Zürich".into());
        edge.country = Some("CH".parse().unwrap());
        edge.labels = [("group".to_owned(), "prod".to_owned())].into();
        let pattern = |text: &str| Some(Pattern::new(text).unwrap());
        assert!(!Rule::default().matches(&edge));
        assert!(Rule::named(Pattern::new("eu-*").unwrap()).matches(&edge));
        assert!(Rule { city: pattern("ZÜ*"), country: pattern("c?"), ..Rule::default() }.matches(&edge));
        assert!(!Rule { site: pattern("*"), ..Rule::default() }.matches(&edge), "it has no site");
        assert!(Rule { label: pattern("group=pro*"), ..Rule::default() }.matches(&edge));
        assert!(!Rule { label: pattern("group"), country: pattern("US"), ..Rule::default() }.matches(&edge));
    }

    #[test]
    fn an_address_holds_no_secret() {
        let edge = |url: &str| EdgeRecord::new("e".parse().unwrap(), url).check();
        assert!(edge("https://edge.example:8443").is_ok());
        for bad in ["", "edge", "ftp://edge", "https://user:pw@edge", "https://edge/?token=x", "/x"] {
            assert!(edge(bad).is_err(), "{bad}");
        }
    }
}
