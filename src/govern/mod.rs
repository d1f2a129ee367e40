//! What governs a node: tokens, policies, pairings and signed URLs, as live snapshots over records.
//!
//! Each keeps its records in a metadata store and answers requests from memory. Both services, the
//! edge and the source, use them.

mod downloads;
mod links;
mod pairings;
mod policies;
mod record;
mod tokens;

pub use downloads::{Counts, DownloadPage, DownloadQuery, DownloadRow, Downloads, Group, Step};
pub use links::{
    Admission, KeyRecord, LinkDirectory, LinkInfo, LinkOptions, LinkRecord, LinkVault, Links, LinksApplied,
    MemoryLinkVault, MintOrder, Minted, PolicyRecord, Revocation, RevocationUpdate, Revoked, SharedKey,
    Transfer,
};
pub use pairings::{Pairings, pairing_event};
pub use policies::{InForce, KEPT, Policies, PolicyVersion};
pub(crate) use record::Records;
pub use tokens::Tokens;
