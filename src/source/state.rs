//! What a bundle is made of, and what the source remembers of it.

use serde::{Deserialize, Serialize};

use super::Selection;
use crate::bundle::Constraints;
use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::name::{ArtifactPath, BundleName, RepositoryName, Version};
use crate::pattern::Pattern;

/// A name that a bundle gives one of its artifacts, like a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAlias {
    /// The repository of the name and the artifact.
    pub repository: RepositoryName,
    /// What the alias belongs to, like an image's or a package's name.
    pub name: ArtifactPath,
    /// The alias itself, like `latest`.
    pub alias: String,
    /// The artifact's path.
    pub target: ArtifactPath,
}

/// What a bundle is to be made of.
#[derive(Clone, Debug)]
pub struct NewBundle {
    /// Its name.
    pub name: BundleName,
    /// Its version.
    pub version: Version,
    /// Its artifacts.
    pub selection: Selection,
    /// The label that called for it, if one did.
    pub label: Option<String>,
    /// Who made it.
    pub by: String,
    /// Names it gives.
    pub aliases: Vec<NewAlias>,
    /// Which of its artifacts are SBOMs, by `repository/path`.
    pub sboms: Vec<Pattern>,
    /// Where it may go.
    pub constraints: Constraints,
}

impl NewBundle {
    /// A bundle of `selection` without aliases, SBOMs or constraints.
    pub fn new(name: BundleName, version: Version, selection: Selection) -> NewBundle {
        NewBundle {
            name,
            version,
            selection,
            label: None,
            by: String::from("source"),
            aliases: Vec::new(),
            sboms: Vec::new(),
            constraints: Constraints::default(),
        }
    }
}

/// A signature of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignatureRecord {
    /// The key's id.
    pub keyid: String,
    /// What the key is called here.
    pub alias: String,
    /// The signature, in base64.
    pub sig: String,
    /// When it was made or attached.
    pub at: Timestamp,
    /// Who made or attached it, as a principal prints, if it came through an
    /// [`Actor`](super::Actor).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// What an SBOM of a bundle says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SbomRecord {
    /// Where it is, `repository/path`.
    pub place: String,
    /// Its format, like `cyclonedx-1.6+json`.
    pub format: String,
    /// How many components it lists.
    pub components: u64,
    /// What it is the SBOM of, if it says.
    pub name: Option<String>,
}

/// That a bundle was withdrawn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WithdrawalRecord {
    /// Why.
    pub reason: String,
    /// Whether the law demanded it.
    pub legal: bool,
    /// When.
    pub at: Timestamp,
}

/// Where a bundle stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum BundleState {
    /// Nobody has signed it; it may be replaced or discarded.
    Draft,
    /// Somebody has signed it; it never changes.
    Signed,
    /// It is withdrawn and never returns.
    Withdrawn,
}

/// A bundle of the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleRecord {
    /// Its name.
    pub name: BundleName,
    /// Its version.
    pub version: Version,
    /// Its place among the versions of this name.
    pub seq: u64,
    /// The digest of the statement.
    pub digest: Digest,
    /// When it was made.
    pub created: Timestamp,
    /// How many artifacts it has.
    pub items: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// Its SBOMs.
    #[serde(default)]
    pub sboms: Vec<SbomRecord>,
    /// Its signatures.
    #[serde(default)]
    pub signatures: Vec<SignatureRecord>,
    /// That and why it was withdrawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdrawn: Option<WithdrawalRecord>,
}

impl BundleRecord {
    /// Where the bundle stands.
    pub fn state(&self) -> BundleState {
        if self.withdrawn.is_some() {
            BundleState::Withdrawn
        } else if self.signatures.is_empty() {
            BundleState::Draft
        } else {
            BundleState::Signed
        }
    }
}

/// What verifying a bundle found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Verification {
    /// The digest of the statement.
    pub digest: Digest,
    /// The aliases of the keys whose signatures count.
    pub signers: Vec<String>,
    /// How many distinct owners must sign.
    pub threshold: u32,
    /// How many distinct blobs were read and hashed.
    pub blobs: u64,
}
