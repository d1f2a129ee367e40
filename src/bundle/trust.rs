//! The trust document: whose signatures count, which edge is to hold what, what is withdrawn.
//!
//! It is signed by the tenant's root keys, has a version that only rises and an expiry, and is
//! pinned on an edge when the edge is set up. It stands where a TUF repository can stand later.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::bundle::dsse::Envelope;
use crate::bundle::statement::check_text;
use crate::bundle::{json, limits};
use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{KeySet, Signer};
use crate::name::{BundleName, NodeName, Tenant, Version};
use crate::place::Country;

/// The payload type of an envelope around a trust document.
pub const TRUST_PAYLOAD: &str = "application/vnd.distedge.trust+json";

/// Keys, edges, assignments and withdrawals of one tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustDocument {
    /// The tenant it speaks for.
    pub tenant: Tenant,
    /// From 1; rises with every change.
    pub version: u64,
    /// When it was made.
    pub issued: Timestamp,
    /// From when on it is not accepted any more.
    pub expires: Timestamp,
    /// Who signs trust documents.
    pub root: KeySet,
    /// Who signs bundles.
    pub release: KeySet,
    /// The edges of the tenant.
    #[serde(default)]
    pub edges: Vec<EdgeEntry>,
    /// Which edge is to hold which bundle.
    #[serde(default)]
    pub assignments: Vec<Assignment>,
    /// Bundles that are not to be served any more, ever.
    #[serde(default)]
    pub withdrawn: Vec<Withdrawal>,
}

/// An edge, and what it can be chosen by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EdgeEntry {
    /// Its name.
    pub name: NodeName,
    /// Labels: `group` → `eu`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Its site.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "json::present")]
    pub site: Option<String>,
    /// Its city.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "json::present")]
    pub city: Option<String>,
    /// Its country.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "json::present")]
    pub country: Option<Country>,
}

impl EdgeEntry {
    /// An edge without labels or place.
    pub fn new(name: NodeName) -> EdgeEntry {
        EdgeEntry { name, labels: BTreeMap::new(), site: None, city: None, country: None }
    }
}

/// That some edges are to hold a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assignment {
    /// The bundle's name.
    pub bundle: BundleName,
    /// The bundle's version.
    pub version: Version,
    /// The digest of the statement's payload bytes.
    pub digest: Digest,
    /// The edges.
    pub edges: Vec<NodeName>,
}

/// That a bundle is not to be served any more. A withdrawal is for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Withdrawal {
    /// The bundle's name.
    pub bundle: BundleName,
    /// The bundle's version.
    pub version: Version,
    /// The digest of the statement's payload bytes.
    pub digest: Digest,
    /// Why, for people.
    pub reason: String,
    /// Whether for legal reasons (HTTP status 451 instead of 410).
    pub legal: bool,
    /// When.
    pub at: Timestamp,
}

/// What an edge holds a new trust document against.
#[derive(Clone, Copy, Debug)]
pub enum Anchor<'a> {
    /// The root keys that were pinned when the edge was set up.
    Pinned(&'a KeySet),
    /// The trust document in force.
    Current(&'a TrustDocument),
}

impl TrustDocument {
    /// Signs the document.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a document that no edge would accept; what a signer says.
    pub fn seal(&self, signers: &[&dyn Signer], now: Timestamp) -> Result<Envelope> {
        self.check()?;
        Envelope::seal(TRUST_PAYLOAD, self.to_payload(), signers, now)
    }

    /// The document as JSON, the payload of its envelope.
    pub fn to_payload(&self) -> Vec<u8> {
        // Names, numbers and maps with text keys always serialise.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads the document in an envelope without looking at its signatures: for the one that
    /// made it, and for showing. Never for deciding.
    pub fn parse_unverified(envelope: &[u8]) -> Result<TrustDocument> {
        let (envelope, _) = Envelope::parse_within(envelope, limits::TRUST_DOCUMENT)?;
        envelope.expect_type(TRUST_PAYLOAD)?;
        TrustDocument::parse(&envelope.payload)
    }

    /// Takes a document as the one in force, held against the `anchor`.
    ///
    /// Giving the document in force again is no error.
    ///
    /// # Errors
    /// [`ErrorKind::Untrusted`] if the signatures, the tenant or the time do not allow it;
    /// [`ErrorKind::Conflict`] if the version is lower, or the same with other content, or a
    /// withdrawal is missing; [`ErrorKind::TooLarge`], [`ErrorKind::Unsupported`] and
    /// [`ErrorKind::Invalid`] for the form.
    pub fn accept(
        envelope: &[u8],
        anchor: Anchor<'_>,
        tenant: &Tenant,
        now: Timestamp,
    ) -> Result<TrustDocument> {
        // TUF 1.0 section 5.3.3-4: at most a fixed number of bytes; signed by a threshold of the
        // keys of the trusted root and by a threshold of the keys of the new one.
        let (envelope, message) = Envelope::parse_within(envelope, limits::TRUST_DOCUMENT)?;
        envelope.expect_type(TRUST_PAYLOAD)?;
        let old = match anchor {
            Anchor::Pinned(root) => root,
            Anchor::Current(current) => &current.root,
        };
        let by_old =
            |error: Error| error.context("the trust document is not signed by the root keys in force");
        envelope.verify_message(&message, old, now).map_err(by_old)?;
        let document = TrustDocument::parse(&envelope.payload)?;
        let by_own = |error: Error| error.context("the trust document is not signed by its own root keys");
        envelope.verify_message(&message, &document.root, now).map_err(by_own)?;
        if document.tenant != *tenant {
            return Err(untrusted(format!(
                "the trust document is for the tenant {}, not for {tenant}",
                document.tenant
            )));
        }
        // TUF 1.0 section 5.3.5: the version only rises (against rollback).
        if let Anchor::Current(current) = anchor {
            document.follows(current)?;
        }
        // TUF 1.0 section 5.3.10: not expired (against freeze).
        if document.expires <= now {
            return Err(untrusted(format!(
                "the trust document expired at {}, and it is {now}",
                document.expires
            )));
        }
        if document.issued > now.plus(limits::CLOCK_SKEW) {
            return Err(untrusted(format!(
                "the trust document is dated {}, and it is {now}",
                document.issued
            )));
        }
        Ok(document)
    }

    /// The entry of this edge.
    pub fn edge(&self, name: &NodeName) -> Option<&EdgeEntry> {
        self.edges.iter().find(|edge| edge.name == *name)
    }

    /// The withdrawal of this bundle.
    pub fn withdrawal(&self, bundle: &BundleName, version: &Version) -> Option<&Withdrawal> {
        self.withdrawn.iter().find(|one| one.bundle == *bundle && one.version == *version)
    }

    /// What `edge` is to hold and is not withdrawn.
    pub fn assigned<'a>(&'a self, edge: &'a NodeName) -> impl Iterator<Item = &'a Assignment> + 'a {
        let withdrawn: BTreeSet<_> = self.withdrawn.iter().map(|one| (&one.bundle, &one.version)).collect();
        let mine = self.assignments.iter().filter(move |one| one.edges.contains(edge));
        mine.filter(move |one| !withdrawn.contains(&(&one.bundle, &one.version)))
    }

    fn parse(payload: &[u8]) -> Result<TrustDocument> {
        let document: TrustDocument = json::parse("the trust document", payload)?;
        document.check().map_err(|error| error.context("the trust document"))?;
        Ok(document)
    }

    fn check(&self) -> Result<()> {
        if self.version == 0 || self.version > limits::INTEGER {
            return Err(Error::invalid("\"version\" is a number from 1 to 2^53 - 1"));
        }
        if self.expires <= self.issued {
            return Err(Error::invalid("it expires before it is issued"));
        }
        self.root.check().map_err(|error| error.context("root"))?;
        self.release.check().map_err(|error| error.context("release"))?;
        let mut names = BTreeSet::new();
        for edge in &self.edges {
            if !names.insert(&edge.name) {
                return Err(Error::invalid(format!("the edge {} is listed twice", edge.name)));
            }
            let texts = edge.labels.iter().flat_map(|(key, value)| [key, value]);
            for text in texts.chain(&edge.site).chain(&edge.city) {
                check_text("a label, site or city of an edge", text, 1)?;
            }
        }
        let mut bundles = BTreeSet::new();
        for one in &self.assignments {
            if !bundles.insert((&one.bundle, &one.version)) {
                return Err(Error::invalid(format!("{} {} is assigned twice", one.bundle, one.version)));
            }
            let mut edges = BTreeSet::new();
            for edge in &one.edges {
                if !names.contains(edge) {
                    return Err(Error::invalid(format!(
                        "{} {} is assigned to the edge {edge}, which is not listed",
                        one.bundle, one.version
                    )));
                }
                if !edges.insert(edge) {
                    return Err(Error::invalid(format!(
                        "{} {} is assigned to the edge {edge} twice",
                        one.bundle, one.version
                    )));
                }
            }
        }
        let mut withdrawn = BTreeSet::new();
        for one in &self.withdrawn {
            if !withdrawn.insert((&one.bundle, &one.version)) {
                return Err(Error::invalid(format!("{} {} is withdrawn twice", one.bundle, one.version)));
            }
            check_text("the reason of a withdrawal", &one.reason, 0)?;
        }
        Ok(())
    }

    fn follows(&self, current: &TrustDocument) -> Result<()> {
        let conflict = |message: String| Err(Error::new(ErrorKind::Conflict, message));
        if self.version < current.version {
            return conflict(format!(
                "the trust document has version {}, version {} is in force",
                self.version, current.version
            ));
        }
        if self.version == current.version && self != current {
            return conflict(format!("there are two trust documents of version {}", self.version));
        }
        let kept: BTreeSet<_> = self.withdrawn.iter().map(|one| (&one.bundle, &one.version)).collect();
        match current.withdrawn.iter().find(|one| !kept.contains(&(&one.bundle, &one.version))) {
            Some(lost) => conflict(format!(
                "the trust document drops the withdrawal of {} {}, and a withdrawal is for ever",
                lost.bundle, lost.version
            )),
            None => Ok(()),
        }
    }
}

#[cold]
fn untrusted(message: String) -> Error {
    Error::new(ErrorKind::Untrusted, message)
}
