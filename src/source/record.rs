//! Typed records over the metadata store.
//!
//! A key is `s/`, the record's kind, and its parts, joined by NUL, which no name can hold. A
//! value is JSON, in which an unknown member is damage: nothing of the source's state is read
//! half.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind, Result};
use crate::meta::{Batch, Entry, MetadataStore};

/// How often a change is tried again when others change the same records meanwhile.
pub(super) const ATTEMPTS: usize = 16;
/// How many records one scan asks for.
const PAGE: usize = 1000;

/// The key of a record of `kind`.
pub(super) fn key(kind: &str, parts: &[&str]) -> Vec<u8> {
    let mut key = Vec::with_capacity(64);
    key.extend_from_slice(b"s/");
    key.extend_from_slice(kind.as_bytes());
    for part in parts {
        key.push(0);
        key.extend_from_slice(part.as_bytes());
    }
    key
}

/// What every key of the records of `kind` under `parts` begins with.
pub(super) fn prefix(kind: &str, parts: &[&str]) -> Vec<u8> {
    let mut prefix = key(kind, parts);
    prefix.push(0);
    prefix
}

/// The record in `entry`.
pub(super) fn decode<T: DeserializeOwned>(entry: &Entry) -> Result<T> {
    serde_json::from_slice(&entry.value).map_err(|cause| {
        let key = String::from_utf8_lossy(&entry.key).replace('\0', " ");
        Error::new(ErrorKind::Corrupted, format!("the record {key:?} of the source cannot be read: {cause}"))
    })
}

/// The value that holds `record`.
pub(super) fn encode<T: Serialize>(record: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(record)
        .map_err(|cause| Error::new(ErrorKind::Internal, format!("a record cannot be written: {cause}")))
}

/// The error of a change that lost every race.
#[cold]
pub(super) fn lost_race(what: &str) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!("{what} was not done: others kept changing the same records; try again"),
    )
}

/// The metadata store, seen as records.
#[derive(Clone, Debug)]
pub(super) struct Records {
    store: Arc<dyn MetadataStore>,
}

impl Records {
    pub(super) fn new(store: Arc<dyn MetadataStore>) -> Records {
        Records { store }
    }

    pub(super) fn store(&self) -> &Arc<dyn MetadataStore> {
        &self.store
    }

    pub(super) async fn entry(&self, key: &[u8]) -> Result<Option<Entry>> {
        self.store.get(key).await
    }

    pub(super) async fn load<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>> {
        self.store.get(key).await?.as_ref().map(decode).transpose()
    }

    /// Calls `each` for every record whose key begins with `prefix`, in order.
    pub(super) async fn each(
        &self,
        prefix: &[u8],
        mut each: impl FnMut(&Entry) -> Result<()> + Send,
    ) -> Result<()> {
        // No key holds the byte 0xff, because its parts are UTF-8.
        let mut end = prefix.to_vec();
        end.push(0xff);
        let mut start = prefix.to_vec();
        loop {
            let page = self.store.scan(&start[..]..&end[..], PAGE).await?;
            for entry in &page {
                each(entry)?;
            }
            match page.last() {
                Some(last) if page.len() == PAGE => {
                    start = last.key.to_vec();
                    start.push(0);
                }
                _ => return Ok(()),
            }
        }
    }

    /// Every record whose key begins with `prefix`, in order.
    pub(super) async fn all<T: DeserializeOwned + Send>(&self, prefix: &[u8]) -> Result<Vec<T>> {
        let mut records = Vec::new();
        self.each(prefix, |entry| {
            records.push(decode(entry)?);
            Ok(())
        })
        .await?;
        Ok(records)
    }

    /// Whether any key begins with `prefix`.
    pub(super) async fn any(&self, prefix: &[u8]) -> Result<bool> {
        let mut end = prefix.to_vec();
        end.push(0xff);
        Ok(!self.store.scan(prefix..&end[..], 1).await?.is_empty())
    }

    /// Applies `batch`; `false` if an expectation did not hold.
    pub(super) async fn commit(&self, batch: Batch) -> Result<bool> {
        if batch.changes.is_empty() && batch.expectations.is_empty() {
            return Ok(true);
        }
        match self.store.commit(batch).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes or deletes one record, whatever it was.
    pub(super) async fn set(&self, key: Vec<u8>, value: Option<Vec<u8>>) -> Result<()> {
        let mut batch = Batch::new();
        batch.changes.push((key.into(), value.map(Bytes::from)));
        self.store.commit(batch).await.map(drop)
    }
}
