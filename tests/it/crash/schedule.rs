//! A cooperative scheduler: every store call lets the others go first, in an order that a seed
//! decides.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use bytes::Bytes;
use distedge::blob::{
    Blob, BlobInfo, BlobStore, BlobStoreExt as _, BlobWriter, BoxStream, MemoryBlobStore, Resumable,
};
use distedge::digest::Digest;
use distedge::error::Result;
use distedge::meta::{Batch, Entry, MemoryStore, MetadataStore, MetadataStoreExt as _, Revision};
use distedge::range::ByteRange;
use distedge::testing::block_on;
use futures_util::{StreamExt as _, TryStreamExt as _};

/// A piece of work that runs against others.
pub type Task<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Polls the tasks in the order that `seed` gives until all are done; answers how often it switched.
pub fn interleave(mut tasks: Vec<Task<'_>>, seed: u64) -> usize {
    let mut context = Context::from_waker(Waker::noop());
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let (mut last, mut switches) = (usize::MAX, 0);
    // Some runs change often, some let a task go on for long.
    let patience = [0, 1, 3, 10, 40][seed as usize % 5];
    while !tasks.is_empty() {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let stay = last < tasks.len() && !(random >> 40).is_multiple_of(patience + 1);
        let turn = if stay { last } else { (random >> 8) as usize % tasks.len() };
        switches += usize::from(turn != last);
        last = turn;
        if tasks[turn].as_mut().poll(&mut context).is_ready() {
            drop(tasks.swap_remove(turn));
            last = usize::MAX;
        }
    }
    switches
}

/// Lets the others go first, once.
pub async fn pause() {
    let mut paused = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut paused, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A store that pauses before every call.
#[derive(Clone, Debug, Default)]
pub struct Pausing<S>(pub S);

#[async_trait]
impl MetadataStore for Pausing<MemoryStore> {
    async fn get(&self, key: &[u8]) -> Result<Option<Entry>> {
        pause().await;
        self.0.get(key).await
    }

    async fn scan(&self, keys: Range<&[u8]>, limit: usize) -> Result<Vec<Entry>> {
        pause().await;
        self.0.scan(keys, limit).await
    }

    async fn commit(&self, batch: Batch) -> Result<Revision> {
        pause().await;
        self.0.commit(batch).await
    }
}

#[async_trait]
impl BlobStore for Pausing<MemoryBlobStore> {
    async fn stat(&self, digest: &Digest) -> Result<Option<BlobInfo>> {
        pause().await;
        self.0.stat(digest).await
    }

    async fn open(&self, digest: &Digest, range: Option<ByteRange>) -> Result<Option<Blob>> {
        pause().await;
        self.0.open(digest, range).await
    }

    async fn create(&self, expected: &BlobInfo) -> Result<Box<dyn BlobWriter>> {
        pause().await;
        Ok(Box::new(Pausing(self.0.create(expected).await?)))
    }

    async fn remove(&self, digest: &Digest) -> Result<bool> {
        pause().await;
        self.0.remove(digest).await
    }

    fn list(&self) -> BoxStream<Result<BlobInfo>> {
        Box::pin(self.0.list().then(|info| async move {
            pause().await;
            info
        }))
    }

    fn as_resumable(&self) -> Option<&dyn Resumable> {
        Some(self)
    }
}

#[async_trait]
impl Resumable for Pausing<MemoryBlobStore> {
    async fn position(&self, expected: &BlobInfo) -> Result<u64> {
        pause().await;
        self.0.position(expected).await
    }

    async fn resume(&self, expected: &BlobInfo) -> Result<Box<dyn BlobWriter>> {
        pause().await;
        Ok(Box::new(Pausing(self.0.resume(expected).await?)))
    }

    async fn discard(&self, keep: &(dyn for<'a> Fn(&'a Digest) -> bool + Sync)) -> Result<u64> {
        pause().await;
        self.0.discard(keep).await
    }
}

#[async_trait]
impl BlobWriter for Pausing<Box<dyn BlobWriter>> {
    fn position(&self) -> u64 {
        self.0.position()
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        pause().await;
        self.0.write(bytes).await
    }

    async fn commit(self: Box<Self>) -> Result<BlobInfo> {
        pause().await;
        self.0.commit().await
    }
}

/// Both stores of an edge, as they can be copied for every run.
#[derive(Debug)]
pub struct World {
    records: Vec<Entry>,
    blobs: Vec<Bytes>,
}

impl World {
    pub fn of(store: &dyn MetadataStore, blobs: &dyn BlobStore) -> World {
        let digests: Vec<BlobInfo> = block_on(blobs.list().try_collect()).unwrap();
        let read = |info: &BlobInfo| block_on(blobs.read(&info.digest, u64::MAX)).unwrap().unwrap();
        World {
            records: block_on(store.scan_prefix(b"", 1000).try_collect()).unwrap(),
            blobs: digests.iter().map(read).collect(),
        }
    }

    pub fn copy(&self) -> (MemoryStore, MemoryBlobStore) {
        let (store, blobs) = (MemoryStore::new(), MemoryBlobStore::new());
        let mut batch = Batch::new();
        for entry in &self.records {
            batch.put(entry.key.clone(), entry.value.clone());
        }
        block_on(store.commit(batch)).unwrap();
        for bytes in &self.blobs {
            block_on(blobs.put(bytes.clone())).unwrap();
        }
        (store, blobs)
    }
}

pub fn pausing(store: &MemoryStore, blobs: &MemoryBlobStore) -> (Arc<dyn MetadataStore>, Arc<dyn BlobStore>) {
    (Arc::new(Pausing(store.clone())), Arc::new(Pausing(blobs.clone())))
}
