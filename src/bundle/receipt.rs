//! The receipt: an edge's signed word that it holds a bundle, whole.

use serde::{Deserialize, Serialize};

use crate::bundle::dsse::Envelope;
use crate::bundle::{json, limits};
use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::key::{Acceptance, PublicKey, Signer};
use crate::merkle::{self, Frontier};
use crate::name::{BundleName, NodeName, Tenant, Version};

/// The payload type of an envelope around a receipt.
pub const RECEIPT_PAYLOAD: &str = "application/vnd.distedge.receipt+json";

/// What an edge holds of one bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// The edge.
    pub edge: NodeName,
    /// The bundle's tenant.
    pub tenant: Tenant,
    /// The bundle's name.
    pub bundle: BundleName,
    /// The bundle's version.
    pub version: Version,
    /// The digest of the statement's payload bytes.
    pub payload: Digest,
    /// The bundle's `seq`.
    pub seq: u64,
    /// How many items the edge holds.
    pub items: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// The [Merkle root](merkle_root) over what the edge holds.
    pub root: Digest,
    /// When the edge made them visible.
    pub at: Timestamp,
}

impl Receipt {
    /// Signs the receipt with the edge's identity key.
    pub fn seal(&self, signer: &dyn Signer, now: Timestamp) -> Result<Envelope> {
        // Names and numbers always serialise.
        let payload = serde_json::to_vec(self).unwrap_or_default();
        Envelope::seal(RECEIPT_PAYLOAD, payload, &[signer], now)
    }

    /// Reads a receipt that was signed by `key`, the identity key of the edge.
    ///
    /// # Errors
    /// [`ErrorKind::Untrusted`](crate::error::ErrorKind::Untrusted) if `key` did not sign it;
    /// `TooLarge`, `Unsupported` and `Invalid` for the form.
    pub fn verify(envelope: &[u8], key: &PublicKey, now: Timestamp) -> Result<Receipt> {
        let (envelope, message) = Envelope::parse_within(envelope, limits::RECEIPT)?;
        envelope.expect_type(RECEIPT_PAYLOAD)?;
        let [signature] = envelope.signatures.as_slice() else {
            return Err(Error::invalid("a receipt has exactly one signature"));
        };
        key.verify(&message, &signature.sig, &Acceptance::at(now))
            .map_err(|error| error.context("the receipt"))?;
        let receipt: Receipt = json::parse("the receipt", &envelope.payload)?;
        if receipt.seq == 0 {
            return Err(Error::invalid("the receipt: \"seq\" is a number from 1 to 2^53 - 1"));
        }
        Ok(receipt)
    }
}

/// The Merkle root over names (`repository/path`) and digests, in the order given: items are
/// sorted by the bytes of their names.
///
/// RFC 6962 section 2.1 with SHA-256: `MTH({}) = H()`, `MTH({d}) = H(0x00 || d)`,
/// `MTH(D) = H(0x01 || MTH(D[0:k]) || MTH(D[k:n]))` with `k` the largest power of two below `n`.
/// A leaf is `repository/path`, a zero byte, and the digest's text.
pub fn merkle_root<N: AsRef<str>>(items: impl IntoIterator<Item = (N, Digest)>) -> Digest {
    let mut tree = Frontier::new();
    for (name, digest) in items {
        let leaf = merkle::leaf_of(&[name.as_ref().as_bytes(), &[0], digest.to_string().as_bytes()]);
        tree.push(leaf, |_, _| {});
    }
    Digest::from_bytes(tree.root())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naive(leaves: &[Vec<u8>]) -> [u8; 32] {
        match leaves {
            [] => merkle::empty(),
            [leaf] => merkle::leaf(leaf),
            _ => {
                let k = leaves.len().next_power_of_two() / 2;
                merkle::node(&naive(&leaves[..k]), &naive(&leaves[k..]))
            }
        }
    }

    #[test]
    fn root_is_that_of_rfc_6962() {
        for length in 0..70_u64 {
            let items: Vec<_> =
                (0..length).map(|at| (format!("r/{at}"), Digest::of(&at.to_be_bytes()))).collect();
            let leaves: Vec<_> =
                items.iter().map(|(name, digest)| format!("{name}\0{digest}").into_bytes()).collect();
            assert_eq!(merkle_root(items).as_bytes(), &naive(&leaves), "{length} items");
        }
    }
}
