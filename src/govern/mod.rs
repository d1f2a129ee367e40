//! What governs a node: tokens, policies, pairings and signed URLs, as live snapshots over records.
//!
//! Each keeps its records in a metadata store and answers requests from memory. Both services, the
//! edge and the source, use them.

mod pairings;
mod policies;
mod record;
mod tokens;

pub use pairings::{Pairings, pairing_event};
pub use policies::{InForce, KEPT, Policies, PolicyVersion};
pub(crate) use record::Records;
pub use tokens::Tokens;
