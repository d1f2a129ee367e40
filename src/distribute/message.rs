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
