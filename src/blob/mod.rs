//! Content-addressed immutable bytes: the [`BlobStore`] port and its in-tree stores.
//!
//! An implementer writes [`BlobStore`] (five methods) and, for uploads, a [`BlobWriter`]; users
//! call [`BlobStoreExt`] as well, which is implemented for every store. What a store promises is
//! written at the trait, and the suite `testing::blob` checks every bullet of it.

mod ext;
mod forward;
mod fs;
mod memory;
mod publish;
mod upload;
pub mod vfs;

use std::fmt;
use std::fs::File;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::range::ByteRange;

pub use ext::BlobStoreExt;
pub use fs::FsBlobStore;
pub use memory::MemoryBlobStore;

/// A boxed stream, as this crate hands it out.
pub type BoxStream<T> = Pin<Box<dyn Stream<Item = T> + Send + 'static>>;

/// A stream of byte chunks that may fail on the way.
pub type ByteStream = BoxStream<Result<Bytes>>;

/// What is known of a blob without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlobInfo {
    /// Its SHA-256.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// Identifies one state of stored bytes: as long as the stamp is equal, nobody has written to
/// them through the storage's interface.
///
/// A file's stamp is made of device, inode, size, mtime and ctime. A reader that has verified a
/// blob under a stamp needs not verify it again under the same stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stamp(pub [u64; 5]);

/// An opened blob, or a range of one.
#[derive(Debug)]
pub struct Blob {
    /// The whole blob's digest and size, as stored.
    pub info: BlobInfo,
    /// Which bytes of it `payload` yields; `0..size` when no range was asked for, `None` if the
    /// blob is empty.
    pub range: Option<ByteRange>,
    /// The bytes.
    pub payload: Payload,
    /// The state of the stored bytes, if the store can tell.
    pub stamp: Option<Stamp>,
}

/// The bytes of an opened [`Blob`], in the form the store can give them at least cost.
pub enum Payload {
    /// In memory.
    Bytes(Bytes),
    /// A file, to be read with positioned reads from `range.start()`.
    File(Arc<File>),
    /// A stream of chunks.
    Stream(ByteStream),
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Payload::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Payload::File(_) => f.write_str("File"),
            Payload::Stream(_) => f.write_str("Stream"),
        }
    }
}

/// `range` of a blob of `size` bytes, clipped to what there is; the whole blob if it is `None`, and
/// `None` if the blob is empty. Stores call it in their `open`.
///
/// # Errors
/// [`Invalid`](crate::error::ErrorKind::Invalid) if `range` starts at or past the end.
pub fn clip(size: u64, range: Option<ByteRange>) -> Result<Option<ByteRange>> {
    match range {
        None if size == 0 => Ok(None),
        None => ByteRange::new(0, size).map(Some),
        Some(range) if range.start() < size => ByteRange::new(range.start(), range.end().min(size)).map(Some),
        Some(range) => Err(Error::invalid(format!(
            "the range {}..{} starts past the end of a blob of {size} bytes",
            range.start(),
            range.end()
        ))),
    }
}

/// A store of immutable blobs, each named by its digest.
///
/// # Contract
/// - **A committed blob is durable**: when [`BlobWriter::commit`] returns, the blob survives a
///   crash of the process and, where the medium can, of the machine.
/// - **Nothing is visible before commit**: until then `stat`, `open` and `list` do not know it;
///   dropping the writer aborts.
/// - **A short, long or wrong upload is invisible**: `commit` fails with `Mismatch` if the bytes do
///   not have the expected size and digest; a `write` beyond the size fails with `Mismatch` at once.
/// - **Committing twice is harmless**: a blob that is there already is left as it is.
/// - **A range is clipped by the store**: `open` with a range past the end yields what there is; a
///   range that starts at or past the end is `Invalid`.
/// - **Removal is final and idempotent**: `remove` answers whether the blob was there; readers that
///   opened it before keep reading.
/// - **Absence is not an error**: `stat` and `open` answer `None`, `remove` answers `false`.
/// - **Listing is complete**: `list` yields each blob that was committed before it began and not
///   removed meanwhile, once, in no order.
/// - **Stored bytes are given as they are**: the store does not verify on `open`; see [`Stamp`].
#[async_trait]
pub trait BlobStore: fmt::Debug + Send + Sync + 'static {
    /// Size of a blob, if it is here.
    async fn stat(&self, digest: &Digest) -> Result<Option<BlobInfo>>;
    /// Opens a blob or one range of it.
    async fn open(&self, digest: &Digest, range: Option<ByteRange>) -> Result<Option<Blob>>;
    /// Starts a new upload of the blob `expected`.
    async fn create(&self, expected: &BlobInfo) -> Result<Box<dyn BlobWriter>>;
    /// Removes a blob; `true` if it was here.
    async fn remove(&self, digest: &Digest) -> Result<bool>;
    /// All blobs.
    fn list(&self) -> BoxStream<Result<BlobInfo>>;

    /// The ability to continue broken uploads, if the store has it.
    fn as_resumable(&self) -> Option<&dyn Resumable> {
        None
    }

    /// The ability to set damaged blobs aside, if the store has it.
    fn as_quarantine(&self) -> Option<&dyn Quarantine> {
        None
    }
}

/// An upload under way. Dropping it without [`commit`](BlobWriter::commit) aborts it; a writer that
/// came from [`Resumable::resume`] leaves its bytes behind to be continued.
#[async_trait]
pub trait BlobWriter: fmt::Debug + Send {
    /// How many bytes have been taken in.
    fn position(&self) -> u64;
    /// Takes in the next bytes.
    async fn write(&mut self, bytes: Bytes) -> Result<()>;
    /// Verifies size and digest and makes the blob durable, then visible.
    async fn commit(self: Box<Self>) -> Result<BlobInfo>;
}

/// Optional ability: uploads that survive a cut and a restart.
///
/// # Contract
/// - **An upload resumes at the byte**: after a drop, `position` and a further `resume` tell how
///   many bytes are kept, also in a store opened anew over the same medium.
/// - **One writer at a time**: `resume` while a writer of the same digest lives is `Conflict`.
/// - **A failed commit starts over**: after a `Mismatch` nothing is kept.
/// - **Discarding spares what is kept or in use**: uploads with a living writer stay as well.
#[async_trait]
pub trait Resumable: Send + Sync {
    /// How many bytes of an unfinished upload are kept; 0 if there is none.
    async fn position(&self, expected: &BlobInfo) -> Result<u64>;
    /// Continues, or begins, the upload of `expected`.
    async fn resume(&self, expected: &BlobInfo) -> Result<Box<dyn BlobWriter>>;
    /// Forgets unfinished uploads for which `keep` says no; answers how many bytes that freed.
    async fn discard(&self, keep: &(dyn for<'a> Fn(&'a Digest) -> bool + Sync)) -> Result<u64>;
}

/// Optional ability: keep a damaged blob for inspection, out of reach of every reader.
///
/// # Contract
/// - **A blob in quarantine is out of reach**: the store does not know it any more, and a good copy
///   can be uploaded under its digest. Readers that opened it before keep reading.
/// - **A blob in another state stays**: with a stamp, only the state that was judged is taken away.
#[async_trait]
pub trait Quarantine: Send + Sync {
    /// Takes the blob out of the store and keeps its bytes aside; `true` if it was here. When
    /// `stamp` is given, a blob whose stored bytes are in another state stays where it is.
    async fn quarantine(&self, digest: &Digest, stamp: Option<Stamp>) -> Result<bool>;
}
