//! The records themselves.

use serde::{Deserialize, Serialize};

use crate::bundle::Constraints;
use crate::clock::Timestamp;
use crate::digest::{Checksums, Digest};
use crate::name::{ArtifactPath, BundleName, Holder, RepositoryName, Version};

/// A repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepositoryRecord {
    /// The package format it speaks, such as `generic`.
    pub format: String,
    /// Whether anyone may read it.
    pub public: bool,
}

/// Where a bundle stands on this edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BundleState {
    /// Accepted; blobs are being received; nothing of it is visible.
    Prepared,
    /// Activated: every artifact and alias is visible.
    Committed,
    /// Withdrawn by the trust document; answers 410 and never returns.
    Withdrawn,
    /// Taken off this edge; may come back.
    Removed,
}

impl BundleState {
    /// The state's name, as records and answers spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            BundleState::Prepared => "prepared",
            BundleState::Committed => "committed",
            BundleState::Withdrawn => "withdrawn",
            BundleState::Removed => "removed",
        }
    }
}

/// A bundle on this edge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleRecord {
    /// Its name.
    pub name: BundleName,
    /// Its version.
    pub version: Version,
    /// SHA-256 of the statement bytes.
    pub digest: Digest,
    /// Its place in the order of the versions of this name.
    pub seq: u64,
    /// Where it stands.
    pub state: BundleState,
    /// How many artifacts it has.
    pub items: u64,
    /// Their sizes, added up, in bytes.
    pub bytes: u64,
    /// When its statement says it was made.
    pub created: Timestamp,
    /// When it was accepted here.
    pub offered: Timestamp,
    /// When it became visible here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activated: Option<Timestamp>,
    /// The repositories it has artifacts in, sorted.
    pub repositories: Vec<RepositoryName>,
    /// Where its artifacts may be downloaded from.
    #[serde(default, skip_serializing_if = "Constraints::is_empty")]
    pub constraints: Constraints,
    /// Why it was withdrawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<GoneRecord>,
    /// Whether its blobs are counted as in use.
    #[serde(default)]
    pub holds_blobs: bool,
}

/// Why a name answers 410 or 451.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoneRecord {
    /// The withdrawn bundle.
    pub bundle: BundleName,
    /// Its version.
    pub version: Version,
    /// The reason given by who withdrew it.
    pub reason: String,
    /// Whether it is for legal reasons (RFC 7725).
    pub legal: bool,
}

/// An artifact: one path of one repository. Field names are short because there are millions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArtifactRecord {
    /// The digest of its bytes.
    #[serde(rename = "d")]
    pub digest: Digest,
    /// Their number.
    #[serde(rename = "n")]
    pub size: u64,
    /// Media type, if the bundle names one.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// When the bundle that brought it was made; the same on every edge.
    #[serde(rename = "t")]
    pub modified: Timestamp,
    /// Legacy checksums; information only.
    #[serde(rename = "c", default)]
    pub checksums: Checksums,
    /// The committed bundles that contain it.
    #[serde(rename = "h")]
    pub holders: Vec<Holder>,
    /// Whether one of them says who may download it: its record tells.
    #[serde(rename = "k", default, skip_serializing_if = "std::ops::Not::not")]
    pub constrained: bool,
    /// Set when its last holder was withdrawn.
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<GoneRecord>,
}

/// An alias: a path that stands for another path of its repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AliasRecord {
    /// The path it stands for.
    pub target: ArtifactPath,
    /// The bundle name whose alias this is.
    pub bundle: BundleName,
    /// The version that set it last.
    pub version: Version,
    /// That version's `seq`; the alias never moves to a lower one.
    pub seq: u64,
    /// Set when that version was withdrawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<GoneRecord>,
    /// Set when that version was taken off this edge.
    #[serde(default)]
    pub removed: bool,
}

/// A bearer token, stored as a hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRecord {
    /// What people call it.
    pub name: String,
    /// SHA-256 of the token.
    pub fingerprint: Digest,
    /// When it was made.
    pub created: Timestamp,
}

/// Something an auditor wants to know of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventRecord {
    /// When.
    pub at: Timestamp,
    /// What: `bundle.conflict`, `bundle.rejected`, `blob.damaged`, ….
    pub kind: String,
    /// Who caused it, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// To what.
    pub what: String,
    /// One sentence.
    pub detail: String,
}

/// One level of a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Folders and files, by name.
    pub entries: Vec<ListEntry>,
    /// The token to continue after, if there is more.
    pub next: Option<String>,
}

/// A folder or a file in a [`Listing`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListEntry {
    /// Its last path segment.
    pub name: String,
    /// Whether it is a folder.
    pub folder: bool,
    /// A file's record.
    pub artifact: Option<ArtifactRecord>,
    /// The path an alias stands for.
    pub alias_of: Option<ArtifactPath>,
}
