//! Releases that move as files, for edges that no source can reach.
//!
//! [`prepare`] makes a set of volumes for one edge out of what the source knows the edge to hold;
//! [`Receiver::import`](super::Receiver::import) takes volumes in any order. The edge's [`Receipts`]
//! go back as a file, and the next set is made against them.

mod export;
mod import;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::delta::pack::volume::Volume;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::key::PublicKey;
use crate::name::{BundleName, NodeName, Tenant, Version};

pub use export::{Export, Exported, Shipment, prepare};
pub use import::file_bytes;

/// Most bytes of a file of receipts.
pub const MAX_RECEIPTS: u64 = 64 << 20;

/// What came of a volume at the edge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportAnswer {
    /// The set it belongs to.
    pub set: Digest,
    /// Its number.
    pub number: u32,
    /// How many volumes the set has.
    pub count: u32,
    /// The numbers of the volumes that are still to come.
    pub missing: Vec<u32>,
    /// How many blobs it completed.
    pub stored: u64,
    /// Blobs that could not be made.
    pub failed: Vec<FailedBlob>,
    /// The bundles of the set.
    pub bundles: Vec<ImportedBundle>,
    /// What the edge proves to hold, once no volume is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipts: Option<Receipts>,
}

impl ImportAnswer {
    /// Whether all of the set is at the edge and visible.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.bundles.iter().all(|bundle| bundle.state == "committed")
    }
}

/// A blob that could not be made from its artefact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedBlob {
    /// Which.
    pub digest: Digest,
    /// Why.
    pub why: String,
}

/// Where a bundle of a set stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportedBundle {
    /// Its name.
    pub name: BundleName,
    /// Its version.
    pub version: Version,
    /// `prepared` or `committed`; `refused` if the edge does not take it.
    pub state: String,
    /// How many of its blobs are not here.
    pub missing: u64,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What an edge proves to hold, as a file to carry to its source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipts {
    /// The edge.
    pub edge: NodeName,
    /// Whose bundles these are.
    pub tenant: Tenant,
    /// The key that signed the receipts.
    pub identity: PublicKey,
    /// When the edge put them together, by its clock.
    pub at: Timestamp,
    /// The receipts' envelopes.
    pub receipts: Vec<String>,
}

impl Receipts {
    /// Reads a file of receipts. None of them is verified.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] and [`ErrorKind::Invalid`].
    pub fn parse(bytes: &[u8]) -> Result<Receipts> {
        if bytes.len() as u64 > MAX_RECEIPTS {
            let message = format!("a file of receipts has at most {MAX_RECEIPTS} bytes");
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        serde_json::from_slice(bytes)
            .map_err(|cause| Error::invalid(format!("this is not a file of receipts: {cause}")))
    }
}

/// The refusal of a volume that is not meant for this place.
#[cold]
fn misdirected(volume: &Volume, what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Conflict, format!("{} {what}", volume.place()))
}
