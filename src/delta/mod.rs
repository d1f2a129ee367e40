//! Moving a blob to somebody who has a similar one: bytes in, bytes out, bounded memory.
//!
//! Release artifacts are compressed, and one changed byte changes the rest of a compressed stream.
//! So a blob is first *opened* down to what was compressed, with a *recipe* that recreates the
//! container bit for bit; what differs is then described against the opened base. A patch is never
//! trusted: the blob that comes out is used only if its SHA-256 is the wanted one.
//!
//! Nothing here does I/O of its own: callers bring [`ReadAt`] for blobs and a [`Scratch`] for
//! what does not fit into memory.

mod apply;
#[cfg(any(test, feature = "testing"))]
mod check;
mod choose;
mod coarse;
#[doc(hidden)]
pub mod code;
mod compose;
mod deflate;
mod inventory;
mod lz;
mod medium;
mod open;
mod ops;
pub mod pack;
mod pair;
mod patch;
mod plan;
mod space;
mod windows;
mod wire;

pub use apply::{apply, inspect};
#[cfg(feature = "testing")]
pub use check::{dismantle, reapply};
/// The oracle of a fuzz target.
#[cfg(feature = "testing")]
#[doc(hidden)]
pub use deflate::judge as judge_deflate;
pub use inventory::Inventory;
pub use medium::{MemoryScratch, ReadAt, Scratch, Spool};
pub use open::Limits;
pub(crate) use patch::VERSION as FORMAT;
pub use patch::{Header, Method};
pub use plan::{Account, Base, Budget, Phase, Plan, plan, plan_by_inventory};

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;
#[cfg(feature = "testing")]
pub use open::{refold, reopen};
