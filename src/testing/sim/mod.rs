//! A disk that forgets what was not synced: the crash simulator.
//!
//! A [`SimDisk`] is a [`Vfs`](crate::blob::vfs::Vfs) and, for one file at a time, a redb backend
//! ([`SimDisk::redb`]), so that blobs and metadata lie on one disk and crash together. It records
//! every operation that changes something. The moment after each is a *crash point*;
//! [`SimDisk::crash_image`] makes the disk as a machine could find it when it comes up again after
//! the power went out there.
//!
//! # What a crash may do
//! - Bytes written to a file since its last sync survive, are lost, or are torn: a prefix of the
//!   writes, the last one cut at a 512-byte block, or any subset of blocks. A block is atomic.
//! - Names made, moved or removed in a directory since its last sync survive or not, each on its own,
//!   in any combination. A move is atomic, and is durable when the directory it leads to is synced.
//!   Syncing a file does not make its name durable.
//! - After a failed sync, what was to be synced is not on the disk and never will be, though readers
//!   still see it until the crash.
//!
//! The same point and seed always give the same image. Seeds 0 to 3 are the corner cases: all that
//! was not synced is lost; all survives; the names survive and the bytes do not; the bytes survive
//! and the names do not. Every other seed is a random mixture.
//!
//! ```
//! use distedge::blob::{BlobStore, BlobStoreExt, FsBlobStore};
//! use distedge::testing::{block_on, sim::SimDisk};
//!
//! let disk = SimDisk::new();
//! let store = FsBlobStore::open_with(disk.clone(), "/data")?;
//! let info = block_on(store.put("artifact".into()))?;
//! let acknowledged = disk.points();
//! for seed in 0..10 {
//!     let image = disk.crash_image(acknowledged, seed);
//!     let store = FsBlobStore::open_with(image, "/data")?;
//!     assert_eq!(block_on(store.stat(&info.digest))?, Some(info));
//! }
//! # Ok::<(), distedge::error::Error>(())
//! ```

mod disk;
mod state;

pub use disk::{Fault, OpKind, SimDisk, SimFile};

/// The next number of a SplitMix64 sequence.
pub(super) fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
