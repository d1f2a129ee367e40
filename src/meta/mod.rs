//! Small ordered records with atomic conditional batches: the [`MetadataStore`] port.
//!
//! Three methods for an implementer; [`MetadataStoreExt`] for users. The suite `testing::meta`
//! checks every bullet of the contract.

mod ext;
mod memory;
#[cfg(feature = "redb")]
mod redb;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};

pub use self::ext::{MetadataStoreExt, prefix_end};
pub use self::memory::MemoryStore;
#[cfg(feature = "redb")]
pub use self::redb::{RedbOptions, RedbStore};

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

    /// Checks every key and value against the limits. Stores call it before anything else.
    ///
    /// # Errors
    /// `Invalid` for an empty key, `TooLarge` for a key or value over its limit.
    pub fn check(&self) -> Result<()> {
        let expected = self.expectations.iter().map(|(key, _)| key);
        for key in expected.chain(self.changes.iter().map(|(key, _)| key)) {
            if key.is_empty() {
                return Err(Error::invalid("a metadata key is empty"));
            }
            if key.len() > MAX_KEY {
                return Err(oversize("key", key, key.len(), MAX_KEY));
            }
        }
        for (key, value) in &self.changes {
            let length = value.as_ref().map_or(0, Bytes::len);
            if length > MAX_VALUE {
                return Err(oversize("value of key", key, length, MAX_VALUE));
            }
        }
        Ok(())
    }

    /// The last change of each key, ascending by key: the order trees like.
    pub fn into_sorted_changes(self) -> BTreeMap<Bytes, Option<Bytes>> {
        self.changes.into_iter().collect()
    }
}

/// What a store says when an expectation of a batch does not hold; `found` is the commit that wrote
/// the record, if there is one.
#[cold]
pub fn unmet(key: &[u8], expectation: Expectation, found: Option<Revision>) -> Error {
    let key = key.escape_ascii();
    let message = match (expectation, found) {
        (Expectation::Absent, _) => format!("the record \"{key}\" exists already"),
        (Expectation::At(_), Some(_)) => format!("the record \"{key}\" was changed by another commit"),
        (Expectation::At(_), None) => format!("the record \"{key}\" was deleted by another commit"),
    };
    Error::new(ErrorKind::Conflict, message)
}

#[cold]
fn oversize(what: &str, key: &[u8], length: usize, limit: usize) -> Error {
    let shown = key[..key.len().min(64)].escape_ascii();
    Error::new(
        ErrorKind::TooLarge,
        format!("the metadata {what} \"{shown}\" has {length} bytes, more than the {limit} allowed"),
    )
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

macro_rules! forward {
    ($($pointer:ident)*) => {$(
        #[async_trait]
        impl<S: MetadataStore + ?Sized> MetadataStore for $pointer<S> {
            async fn get(&self, key: &[u8]) -> Result<Option<Entry>> {
                (**self).get(key).await
            }

            async fn scan(&self, keys: Range<&[u8]>, limit: usize) -> Result<Vec<Entry>> {
                (**self).scan(keys, limit).await
            }

            async fn commit(&self, batch: Batch) -> Result<Revision> {
                (**self).commit(batch).await
            }
        }
    )*};
}

forward!(Arc Box);
