//! Long values among short ones.
//!
//! An edge keeps the envelope of a bundle, up to 32 MiB, beside a record for each of its artifacts.
//! In one tree with them it was read again, whole, for each artifact that was looked for and not
//! found: a first bundle of 100,000 artifacts took more than ten minutes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use distedge::meta::{Batch, MetadataStore, RedbOptions, RedbStore};
use redb::StorageBackend;
use redb::backends::InMemoryBackend;

/// Counts the bytes that are read.
#[derive(Debug)]
struct Counted {
    inner: InMemoryBackend,
    read: Arc<AtomicU64>,
}

impl StorageBackend for Counted {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.read.fetch_add(out.len() as u64, Ordering::Relaxed);
        self.inner.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.inner.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write(offset, data)
    }
}

async fn put(store: &RedbStore, changes: &[(&'static str, &Bytes)]) {
    let mut batch = Batch::new();
    for (key, value) in changes {
        batch.put(*key, (*value).clone());
    }
    store.commit(batch).await.unwrap();
}

#[tokio::test]
async fn a_long_value_costs_its_neighbours_nothing() {
    let read = Arc::new(AtomicU64::new(0));
    let backend = Counted { inner: InMemoryBackend::new(), read: Arc::clone(&read) };
    let store = RedbOptions::new().with_cache(1 << 20).open_backend("counted", backend).unwrap();
    let (long, short) = (Bytes::from(vec![7; 31 << 20]), Bytes::from_static(b"short"));
    put(&store, &[("b", &short), ("e", &long), ("f", &short)]).await;

    let before = read.load(Ordering::Relaxed);
    for at in 0..100 {
        assert_eq!(store.get(format!("a/{at}").as_bytes()).await.unwrap(), None);
        assert_eq!(store.get(b"f").await.unwrap().unwrap().value, short);
    }
    let took = read.load(Ordering::Relaxed) - before;
    assert!(took < 1 << 20, "200 small reads took {took} bytes");
    assert_eq!(store.get(b"e").await.unwrap().unwrap().value, long);
}

/// Every length around the borders, over every other one: no part of the old value stays.
#[tokio::test]
async fn a_value_may_change_between_long_and_short() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("meta.redb");
    let store = RedbStore::open(&path).unwrap();
    let lengths = [0, 1, 16 * 1024, 16 * 1024 + 1, 56 * 1024, 56 * 1024 + 1, 3 * 56 * 1024, 200_000];
    let value =
        |length: usize| -> Bytes { (0..length).map(|at| (at % 251) as u8).collect::<Vec<_>>().into() };
    let other = value(70_000);
    put(&store, &[("k", &other), ("m", &other)]).await;
    for old in lengths {
        for new in lengths {
            put(&store, &[("l", &value(old))]).await;
            put(&store, &[("l", &value(new))]).await;
            let entry = store.get(b"l").await.unwrap().unwrap();
            assert_eq!(entry.value, value(new), "{old} bytes, then {new}");
            let scanned = store.scan(b"k".as_slice()..b"z".as_slice(), 10).await.unwrap();
            let values: Vec<_> = scanned.iter().map(|entry| &entry.value).collect();
            assert_eq!(values, [&other, &value(new), &other]);
            let mut batch = Batch::new();
            batch.expect_unchanged("l", Some(&entry)).delete("l");
            store.commit(batch).await.unwrap();
            assert_eq!(store.get(b"l").await.unwrap(), None);
        }
    }
    drop(store);
    let store = RedbStore::open(&path).unwrap();
    assert_eq!(store.get(b"m").await.unwrap().unwrap().value, other);
}
