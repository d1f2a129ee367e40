//! What the two halves say to each other, as JSON.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::key::PublicKey;
use crate::name::{BundleName, NodeName, Tenant, Version};

/// Paths of the control surface, percent-encoded.
pub mod path {
    use crate::digest::Digest;
    use crate::name::{BundleName, Version, encode_segment};

    /// Who the edge is and where it stands (`GET`).
    pub const STATUS: &str = "/api/v1/status";
    /// The trust document (`GET`, `PUT`).
    pub const TRUST: &str = "/api/v1/trust";
    /// All bundles (`GET`); an offer (`POST`).
    pub const BUNDLES: &str = "/api/v1/bundles";
    /// A pack of artefacts (`POST`).
    pub const PACKS: &str = "/api/v1/packs";
    /// Which frames of artefacts are there (`POST`).
    pub const PACKS_HAVE: &str = "/api/v1/packs/have";
    /// What resembles the artifacts of a bundle (`POST`).
    pub const HAVE: &str = "/api/v1/have";
    /// What one of those is made of (`POST`).
    pub const HAVE_PARTS: &str = "/api/v1/have/parts";

    /// One bundle (`GET`, `DELETE`).
    pub fn bundle(name: &BundleName, version: &Version) -> String {
        let mut path = format!("{BUNDLES}/");
        encode_segment(name.as_str(), &mut path);
        path.push('/');
        encode_segment(version.as_str(), &mut path);
        path
    }

    /// Activation (`POST`).
    pub fn commit(name: &BundleName, version: &Version) -> String {
        format!("{}/commit", bundle(name, version))
    }

    /// The signed receipt (`GET`).
    pub fn receipt(name: &BundleName, version: &Version) -> String {
        format!("{}/receipt", bundle(name, version))
    }

    /// One blob's upload (`HEAD`, `PATCH`).
    pub fn blob(digest: &Digest) -> String {
        format!("/api/v1/blobs/{}", digest.to_hex())
    }
}

/// The edge's answer to a status question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusAnswer {
    /// The edge's name.
    pub name: NodeName,
    /// Whose space this is.
    pub tenant: Tenant,
    /// The key that signs the edge's receipts.
    pub identity: PublicKey,
    /// The version of the trust document it has.
    pub trust: Option<u64>,
    /// SHA-256 of that document's envelope.
    pub trust_digest: Option<Digest>,
    /// Whether that document has expired: what is here is served, nothing new is accepted.
    pub stale: bool,
    /// The time it judges with.
    pub time: Timestamp,
    /// The version of this protocol: 1.
    pub protocol: u32,
    /// What it takes besides whole blobs: [`PACK`], [`HAVE`], [`PARTS`], and `patch-` with a version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepts: Vec<String>,
}

/// In [`StatusAnswer::accepts`]: packs of artefacts, in their first version.
pub const PACK: &str = "pack-1";
/// In [`StatusAnswer::accepts`]: questions for what resembles something.
pub const HAVE: &str = "have-1";
/// In [`StatusAnswer::accepts`]: questions for what a blob is made of.
pub const PARTS: &str = "parts-1";

/// In [`StatusAnswer::accepts`]: the version of patches that are understood.
#[cfg(feature = "delta")]
pub(super) fn patches() -> String {
    format!("patch-{}", crate::delta::FORMAT)
}

/// How a blob travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Method {
    /// As it is.
    Whole,
    /// Compressed.
    Compressed,
    /// As a patch of what is there.
    Patch,
}

impl Method {
    /// Its name, as answers spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Whole => "whole",
            Method::Compressed => "compressed",
            Method::Patch => "patch",
        }
    }
}

/// Asks which frames of artefacts are there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SectionsQuestion {
    /// The artefacts, by the SHA-256 of their bytes.
    pub sections: Vec<Digest>,
}

/// The edge's answer to a pack, or to a question for frames.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackAnswer {
    /// One for each artefact.
    pub sections: Vec<SectionAnswer>,
}

/// What became of an artefact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SectionAnswer {
    /// The artefact, by the SHA-256 of its bytes.
    pub id: Digest,
    /// What became of it.
    pub state: SectionState,
    /// Frames that are not there, as `[from, until]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<(u64, u64)>,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// See [`SectionAnswer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SectionState {
    /// Nothing of it is here.
    Absent,
    /// The blob it makes is here, verified and durable.
    Stored,
    /// Some frames are here; if none are missing, an empty part has it applied.
    Partial,
    /// All frames are here and the blob is being made; ask again.
    Working,
    /// It makes no blob here. The blob must come in another way.
    Refused,
}

/// Asks what resembles artifacts of an offered bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HaveQuestion {
    /// The bundle, which was offered before.
    pub bundle: BundleName,
    /// Its version.
    pub version: Version,
    /// The digests of the artifacts in question.
    pub items: Vec<Digest>,
}

/// Asks what a blob is made of that resembles an artifact of an offered bundle. The answer is an
/// inventory, as bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartsQuestion {
    /// The bundle, which was offered before.
    pub bundle: BundleName,
    /// Its version.
    pub version: Version,
    /// The artifact that is to travel.
    pub item: Digest,
    /// The blob in question, of a visible bundle.
    pub base: Digest,
}

/// The edge's answer: artifacts of bundles that are visible here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HaveAnswer {
    /// Those for which there is something, with the best first.
    pub items: Vec<Resembling>,
}

/// See [`HaveAnswer`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resembling {
    /// The artifact that was asked about.
    pub item: Digest,
    /// What resembles it.
    pub have: Vec<Held>,
}

/// An artifact that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// `repository/path`.
    pub name: String,
}

/// The edge's answer to a trust document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustAnswer {
    /// The version that is in force.
    pub version: u64,
    /// Bundles that it withdrew here.
    pub withdrawn: u64,
    /// Bundles that it took off this edge, because they are assigned to it no more.
    pub removed: u64,
}

/// A blob the edge needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Want {
    /// Which.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// How many bytes of it are there already.
    pub have: u64,
}

/// The edge's answer to an offer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferAnswer {
    /// `prepared` or `committed`.
    pub state: String,
    /// The statement's digest.
    pub digest: Digest,
    /// What is missing, in order of the digests. Empty: commit, or it is done.
    pub want: Vec<Want>,
}

/// A bundle as the edge describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleAnswer {
    /// Its name.
    pub name: BundleName,
    /// Its version.
    pub version: Version,
    /// `prepared`, `committed`, `withdrawn` or `removed`.
    pub state: String,
    /// The statement's digest.
    pub digest: Digest,
    /// Its place among the versions of this name.
    pub seq: u64,
    /// Number of artifacts.
    pub items: u64,
    /// Their bytes.
    pub bytes: u64,
    /// When it was made.
    pub created: Timestamp,
    /// When it became visible here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activated: Option<Timestamp>,
    /// Blobs of it that are not here, or were found damaged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<u64>,
    /// Why it was withdrawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Where an upload stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadAnswer {
    /// How many bytes are kept.
    pub have: u64,
    /// The blob's size.
    pub size: u64,
    /// Whether the bytes that came with the call were taken; not if they began elsewhere.
    pub taken: bool,
}

impl UploadAnswer {
    /// Whether the blob is stored, verified and durable.
    pub fn is_complete(&self) -> bool {
        self.have == self.size
    }
}
