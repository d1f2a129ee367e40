//! Small ordered records with atomic conditional batches: the [`MetadataStore`] port.
//!
//! Three methods for an implementer; [`MetadataStoreExt`] for users. The suite `testing::meta`
//! checks every bullet of the contract.

use std::fmt;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::Result;

/// Longest key, in bytes.
pub const MAX_KEY: usize = 2048;
/// Longest value, in bytes.
pub const MAX_VALUE: usize = 64 * 1024 * 1024;

/// The number of a commit; each commit of a store has a higher one than all before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(pub u64);

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
    /// The commit that wrote it.
    pub revision: Revision,
}

/// What a batch demands of a key before anything is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// There is no record.
    Absent,
    /// There is a record, written by this commit.
    At(Revision),
}

/// Changes that happen together or not at all.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Demands, checked before anything is changed.
    pub expectations: Vec<(Bytes, Expectation)>,
    /// Records to write (`Some`) or to delete (`None`), in order; the last one of a key counts.
    pub changes: Vec<(Bytes, Option<Bytes>)>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Demands that `key` is as `expectation` says.
    pub fn expect(&mut self, key: impl Into<Bytes>, expectation: Expectation) -> &mut Batch {
        self.expectations.push((key.into(), expectation));
        self
    }

    /// Demands that `key` still is as it was read: `Some(entry)` or nothing.
    pub fn expect_unchanged(&mut self, key: impl Into<Bytes>, read: Option<&Entry>) -> &mut Batch {
        let expectation = read.map_or(Expectation::Absent, |entry| Expectation::At(entry.revision));
        self.expect(key, expectation)
    }

    /// Writes a record.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> &mut Batch {
        self.changes.push((key.into(), Some(value.into())));
        self
    }

    /// Deletes a record, if there is one.
    pub fn delete(&mut self, key: impl Into<Bytes>) -> &mut Batch {
        self.changes.push((key.into(), None));
        self
    }
}

/// A store of small ordered records.
///
/// # Contract
/// - **A batch is atomic**: every change or none, also across a crash; readers never see a part.
/// - **A committed batch is durable** when `commit` returns.
/// - **Expectations guard the batch**: if one does not hold, the error is `Conflict` and nothing changes.
/// - **Revisions rise**: each commit's is higher than all before it, also after a restart; a record
///   carries the revision of the commit that wrote it.
/// - **Scans are ordered**: ascending by key bytes, start inclusive, end exclusive, at most `limit`;
///   one scan sees one state of the store.
/// - **Absence is not an error**: `get` answers `None`; deleting nothing is allowed.
/// - **Oversize is refused**: keys over [`MAX_KEY`] or empty, values over [`MAX_VALUE`]: `TooLarge`
///   or `Invalid`, and nothing changes.
/// - **Reads see own writes**: after `commit` returned, `get` and `scan` of anyone see it.
#[async_trait]
pub trait MetadataStore: fmt::Debug + Send + Sync + 'static {
    /// The record under `key`.
    async fn get(&self, key: &[u8]) -> Result<Option<Entry>>;
    /// The first `limit` records with keys in `keys`, ascending.
    async fn scan(&self, keys: Range<&[u8]>, limit: usize) -> Result<Vec<Entry>>;
    /// Applies every change of `batch`, or none.
    async fn commit(&self, batch: Batch) -> Result<Revision>;
}
