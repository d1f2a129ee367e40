//! Moving a blob to somebody who has a similar one: bytes in, bytes out, bounded memory.
//!
//! Release artifacts are compressed, and one changed byte changes the rest of a compressed stream.
//! So a blob is first *opened* down to what was compressed, with a *recipe* that recreates the
//! container bit for bit; what differs is then described against the opened base. A patch is never
//! trusted: the blob that comes out is used only if its SHA-256 is the wanted one.
//!
//! Nothing here does I/O of its own: callers bring [`ReadAt`] for blobs and a [`Scratch`] for
//! what does not fit into memory.

mod deflate;
mod medium;
mod open;
mod wire;

pub use medium::{MemoryScratch, ReadAt, Scratch, Spool};
#[cfg(feature = "testing")]
pub use open::{refold, reopen};
