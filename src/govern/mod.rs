//! What governs a node: tokens, policies, pairings and signed URLs, as live snapshots over records.
//!
//! Each keeps its records in a metadata store and answers requests from memory. Both services, the
//! edge and the source, use them.

mod links;
mod record;

pub use links::{
    Admission, KeyRecord, LinkDirectory, LinkInfo, LinkOptions, LinkRecord, LinkVault, Links, MemoryLinkVault,
    MintOrder, Minted, PolicyRecord, Revocation, RevocationUpdate, Revoked, SharedKey, Transfer,
};
pub(crate) use record::Records;
