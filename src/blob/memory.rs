//! A blob store in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::stream;

use super::{
    Blob, BlobInfo, BlobStore, BlobWriter, BoxStream, Payload, Quarantine, Resumable, Stamp, clip, upload,
};
use crate::digest::{Digest, Hasher};
use crate::error::Result;
use crate::range::ByteRange;

/// Keeps blobs in memory: for tests and for what may be lost. Clones share one content, and so does
/// a store "opened anew": its durability is that of the process.
#[derive(Clone, Default)]
pub struct MemoryBlobStore(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    blobs: BTreeMap<Digest, Stored>,
    quarantine: BTreeMap<Digest, Bytes>,
    partial: BTreeMap<Digest, BytesMut>,
    writers: BTreeSet<Digest>,
    writes: u64,
}

#[derive(Clone)]
struct Stored {
    bytes: Bytes,
    stamp: Stamp,
}

impl State {
    fn insert(&mut self, digest: Digest, bytes: Bytes) {
        self.writes += 1;
        let stamp = Stamp([0, self.writes, bytes.len() as u64, 0, 0]);
        self.blobs.insert(digest, Stored { bytes, stamp });
    }
}

impl MemoryBlobStore {
    /// An empty store.
    pub fn new() -> MemoryBlobStore {
        MemoryBlobStore::default()
    }

    /// The bytes kept aside for `digest`, if it is in quarantine.
    pub fn quarantined(&self, digest: &Digest) -> Option<Bytes> {
        self.lock().quarantine.get(digest).cloned()
    }

    /// Changes stored bytes behind the store's back, as a bad disk does; the stamp changes with them.
    /// Answers whether the blob was here.
    #[cfg(feature = "testing")]
    pub fn damage(&self, digest: &Digest, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut state = self.lock();
        let Some(stored) = state.blobs.get(digest) else { return false };
        let mut bytes = stored.bytes.to_vec();
        change(&mut bytes);
        state.insert(*digest, bytes.into());
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change under the lock is one insertion or removal, so a panic leaves no half of one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryBlobStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("MemoryBlobStore").field("blobs", &state.blobs.len()).finish_non_exhaustive()
    }
}

#[async_trait]
impl BlobStore for MemoryBlobStore {
    async fn stat(&self, digest: &Digest) -> Result<Option<BlobInfo>> {
        let state = self.lock();
        Ok(state
            .blobs
            .get(digest)
            .map(|stored| BlobInfo { digest: *digest, size: stored.bytes.len() as u64 }))
    }

    async fn open(&self, digest: &Digest, range: Option<ByteRange>) -> Result<Option<Blob>> {
        let Some(stored) = self.lock().blobs.get(digest).cloned() else { return Ok(None) };
        let size = stored.bytes.len() as u64;
        let range = clip(size, range)?;
        let bytes = match range {
            // Clipped to the length of a `Bytes`, so both ends fit.
            Some(range) => stored.bytes.slice(range.start() as usize..range.end() as usize),
            None => Bytes::new(),
        };
        Ok(Some(Blob {
            info: BlobInfo { digest: *digest, size },
            range,
            payload: Payload::Bytes(bytes),
            stamp: Some(stored.stamp),
        }))
    }

    async fn create(&self, expected: &BlobInfo) -> Result<Box<dyn BlobWriter>> {
        Ok(Box::new(MemoryWriter {
            store: self.clone(),
            expected: *expected,
            bytes: BytesMut::new(),
            hasher: Hasher::new(),
            resumable: false,
            failed: false,
        }))
    }

    async fn remove(&self, digest: &Digest) -> Result<bool> {
        Ok(self.lock().blobs.remove(digest).is_some())
    }

    fn list(&self) -> BoxStream<Result<BlobInfo>> {
        let state = self.lock();
        let all: Vec<_> = state
            .blobs
            .iter()
            .map(|(digest, stored)| Ok(BlobInfo { digest: *digest, size: stored.bytes.len() as u64 }))
            .collect();
        Box::pin(stream::iter(all))
    }

    fn as_resumable(&self) -> Option<&dyn Resumable> {
        Some(self)
    }

    fn as_quarantine(&self) -> Option<&dyn Quarantine> {
        Some(self)
    }
}

#[async_trait]
impl Resumable for MemoryBlobStore {
    async fn position(&self, expected: &BlobInfo) -> Result<u64> {
        Ok(self.lock().partial.get(&expected.digest).map_or(0, |bytes| bytes.len() as u64))
    }

    async fn resume(&self, expected: &BlobInfo) -> Result<Box<dyn BlobWriter>> {
        let mut state = self.lock();
        if !state.writers.insert(expected.digest) {
            return Err(upload::busy(expected));
        }
        let mut bytes = state.partial.remove(&expected.digest).unwrap_or_default();
        drop(state);
        if bytes.len() as u64 > expected.size {
            bytes.clear();
        }
        let mut hasher = Hasher::new();
        hasher.update(&bytes);
        Ok(Box::new(MemoryWriter {
            store: self.clone(),
            expected: *expected,
            bytes,
            hasher,
            resumable: true,
            failed: false,
        }))
    }

    async fn discard(&self, keep: &(dyn for<'a> Fn(&'a Digest) -> bool + Sync)) -> Result<u64> {
        let mut freed = 0;
        self.lock().partial.retain(|digest, bytes| {
            let kept = keep(digest);
            if !kept {
                freed += bytes.len() as u64;
            }
            kept
        });
        Ok(freed)
    }
}

#[async_trait]
impl Quarantine for MemoryBlobStore {
    async fn quarantine(&self, digest: &Digest, stamp: Option<Stamp>) -> Result<bool> {
        let mut state = self.lock();
        let there = state.blobs.get(digest).map(|stored| stored.stamp);
        if there.is_none() || (stamp.is_some() && stamp != there) {
            return Ok(false);
        }
        if let Some(stored) = state.blobs.remove(digest) {
            state.quarantine.insert(*digest, stored.bytes);
        }
        Ok(true)
    }
}

struct MemoryWriter {
    store: MemoryBlobStore,
    expected: BlobInfo,
    bytes: BytesMut,
    hasher: Hasher,
    resumable: bool,
    failed: bool,
}

impl fmt::Debug for MemoryWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryWriter")
            .field("expected", &self.expected)
            .field("position", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl BlobWriter for MemoryWriter {
    fn position(&self) -> u64 {
        self.bytes.len() as u64
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        if self.failed {
            return Err(upload::broken(&self.expected));
        }
        if let Err(error) = upload::check_fits(&self.expected, self.position(), bytes.len()) {
            self.failed = true;
            self.bytes.clear();
            return Err(error);
        }
        self.hasher.update(&bytes);
        self.bytes.extend_from_slice(&bytes);
        Ok(())
    }

    async fn commit(mut self: Box<Self>) -> Result<BlobInfo> {
        if self.failed {
            return Err(upload::broken(&self.expected));
        }
        let hasher = std::mem::take(&mut self.hasher);
        let bytes = std::mem::take(&mut self.bytes).freeze();
        upload::check_whole(&self.expected, hasher)?;
        let mut state = self.store.lock();
        if !state.blobs.contains_key(&self.expected.digest) {
            state.insert(self.expected.digest, bytes);
        }
        Ok(self.expected)
    }
}

impl Drop for MemoryWriter {
    fn drop(&mut self) {
        if self.resumable {
            let bytes = std::mem::take(&mut self.bytes);
            let mut state = self.store.lock();
            state.writers.remove(&self.expected.digest);
            if !bytes.is_empty() {
                state.partial.insert(self.expected.digest, bytes);
            }
        }
    }
}
