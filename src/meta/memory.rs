//! A metadata store in memory.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Bound, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Batch, Entry, Expectation, MetadataStore, Revision, unmet};
use crate::error::Result;

/// Keeps records in memory: for tests and for what may be lost. Clones share one content.
#[derive(Clone, Default)]
pub struct MemoryStore(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    records: BTreeMap<Bytes, (Bytes, Revision)>,
    last: Revision,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // `commit` checks first and then only inserts and removes, which do not panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("MemoryStore")
            .field("records", &state.records.len())
            .field("last", &state.last)
            .finish()
    }
}

#[async_trait]
impl MetadataStore for MemoryStore {
    async fn get(&self, key: &[u8]) -> Result<Option<Entry>> {
        let state = self.lock();
        Ok(state.records.get_key_value(key).map(entry))
    }

    async fn scan(&self, keys: Range<&[u8]>, limit: usize) -> Result<Vec<Entry>> {
        if keys.start >= keys.end {
            return Ok(Vec::new());
        }
        let state = self.lock();
        let range = (Bound::Included(keys.start), Bound::Excluded(keys.end));
        Ok(state.records.range::<[u8], _>(range).take(limit).map(entry).collect())
    }

    async fn commit(&self, batch: Batch) -> Result<Revision> {
        batch.check()?;
        let mut state = self.lock();
        for (key, expectation) in &batch.expectations {
            let found = state.records.get(key).map(|(_, revision)| *revision);
            let met = match expectation {
                Expectation::Absent => found.is_none(),
                Expectation::At(revision) => found == Some(*revision),
            };
            if !met {
                return Err(unmet(key, *expectation, found));
            }
        }
        state.last.0 += 1;
        let revision = state.last;
        for (key, value) in batch.changes {
            match value {
                Some(value) => state.records.insert(key, (value, revision)),
                None => state.records.remove(&key),
            };
        }
        Ok(revision)
    }
}

fn entry((key, (value, revision)): (&Bytes, &(Bytes, Revision))) -> Entry {
    Entry { key: key.clone(), value: value.clone(), revision: *revision }
}
