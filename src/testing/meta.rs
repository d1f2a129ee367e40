//! The checks of [`MetadataStore`]: one function a bullet of the contract, with its name. The macro
//! turns them into tests.

use bytes::Bytes;
use futures_util::TryStreamExt;

use crate::error::ErrorKind;
use crate::meta::{Batch, Entry, Expectation, MAX_KEY, MAX_VALUE, MetadataStore, MetadataStoreExt, Revision};

/// Tests that a [`MetadataStore`] keeps its contract: see [`testing`](crate::testing).
#[macro_export]
macro_rules! metadata_store_suite {
    ($name:ident, $medium:expr $(,)?) => {
        $crate::metadata_store_suite!($name, $medium, $crate::testing::block_on);
    };
    ($name:ident, $medium:expr, $block_on:path) => {
        $crate::__suite! { meta, $name, $medium, $block_on;
            a_batch_is_atomic
            a_committed_batch_is_durable
            expectations_guard_the_batch
            revisions_rise
            scans_are_ordered
            absence_is_not_an_error
            oversize_is_refused
            reads_see_own_writes
        }
    };
}

async fn all<S: MetadataStore>(store: &S) -> Vec<Entry> {
    store.scan_prefix(b"", 3).try_collect().await.expect("scanning works")
}

async fn value<S: MetadataStore>(store: &S, key: &str) -> Option<Bytes> {
    store.get(key.as_bytes()).await.expect("get works").map(|entry| entry.value)
}

/// *A batch is atomic.*
pub async fn a_batch_is_atomic<M: AsyncFn() -> S, S: MetadataStore>(medium: M) {
    let store = medium().await;
    let mut batch = Batch::new();
    batch.put("a", "1").put("b", "1").put("gone", "1");
    store.commit(batch).await.expect("commit works");
    let mut batch = Batch::new();
    batch.put("b", "first").delete("a").put("c", "2").delete("gone").put("b", "2").put("a", "2").delete("a");
    let revision = store.commit(batch).await.expect("commit works");
    let entry =
        |key: &'static str, value: &'static str| Entry { key: key.into(), value: value.into(), revision };
    assert_eq!(all(&store).await, [entry("b", "2"), entry("c", "2")], "the last change of a key counts");

    let before = all(&store).await;
    let mut batch = Batch::new();
    batch.put("x", "1").delete("b").put("y", "1").expect("c", Expectation::Absent);
    store.commit(batch).await.expect_err("the expectation does not hold");
    let mut batch = Batch::new();
    batch.put("x", "1").delete("b").put("", "1");
    store.commit(batch).await.expect_err("an empty key");
    assert_eq!(all(&store).await, before, "a failed batch changed something");
}

/// *A committed batch is durable.*
pub async fn a_committed_batch_is_durable<M: AsyncFn() -> S, S: MetadataStore>(medium: M) {
    let store = medium().await;
    for round in 0..5 {
        let mut batch = Batch::new();
        for number in 0..200 {
            batch.put(format!("key/{number:04}"), format!("{round}"));
        }
        batch.delete(format!("key/{round:04}"));
        store.commit(batch).await.expect("commit works");
    }
    let before = all(&store).await;
    assert_eq!(before.len(), 199);
    drop(store);
    assert_eq!(all(&medium().await).await, before, "after opening anew");
}

/// *Expectations guard the batch.*
pub async fn expectations_guard_the_batch<M: AsyncFn() -> S, S: MetadataStore>(medium: M) {
    let store = medium().await;
    let create = |value: &'static str| {
        let mut batch = Batch::new();
        batch.expect("key", Expectation::Absent).put("key", value);
        batch
    };
    let first = store.commit(create("1")).await.expect("nothing is there");
    let error = store.commit(create("2")).await.expect_err("something is there");
    assert_eq!(error.kind(), ErrorKind::Conflict);

    let replace = |at: Revision, value: &'static str| {
        let mut batch = Batch::new();
        batch.expect("key", Expectation::At(at)).put("key", value);
        batch
    };
    let second = store.commit(replace(first, "2")).await.expect("it is as it was read");
    let error = store.commit(replace(first, "3")).await.expect_err("it was changed meanwhile");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(value(&store, "key").await.as_deref(), Some(&b"2"[..]));

    // The same value written again is another state.
    let third = store.commit(replace(second, "2")).await.expect("it is as it was read");
    assert_ne!(second, third);
    let error = store.commit(replace(second, "4")).await.expect_err("it was written meanwhile");
    assert_eq!(error.kind(), ErrorKind::Conflict);

    let mut batch = Batch::new();
    batch.expect("nowhere", Expectation::At(third)).put("other", "1");
    assert_eq!(store.commit(batch).await.expect_err("not there").kind(), ErrorKind::Conflict);
    assert_eq!(value(&store, "other").await, None);

    let read = store.get(b"key").await.expect("get works");
    let mut batch = Batch::new();
    batch.expect_unchanged("key", read.as_ref()).expect_unchanged("nowhere", None).delete("key");
    store.commit(batch).await.expect("both are as they were read");
    assert_eq!(value(&store, "key").await, None);
}

/// *Revisions rise.*
pub async fn revisions_rise<M: AsyncFn() -> S, S: MetadataStore>(medium: M) {
    let mut last = None;
    for round in 0..3 {
        let store = medium().await;
        for number in 0..3 {
            let mut batch = Batch::new();
            batch.put("key", format!("{round}/{number}"));
            let revision = store.commit(batch).await.expect("commit works");
            assert!(Some(revision) > last, "{revision:?} after {last:?}");
            let entry = store.get(b"key").await.expect("get works").expect("is there");
            assert_eq!(entry.revision, revision);
            last = Some(revision);
            let revision = store.commit(Batch::new()).await.expect("an empty batch is a commit");
            assert!(Some(revision) > last);
            last = Some(revision);
        }
        // The highest revision belongs to no record when the store is opened anew.
        let mut batch = Batch::new();
        batch.delete("key");
        last = Some(store.commit(batch).await.expect("commit works"));
    }
}

/// *Scans are ordered.*
pub async fn scans_are_ordered<M: AsyncFn() -> S, S: MetadataStore>(medium: M) {
    let store = medium().await;
    let keys: [&[u8]; 9] = [b"\0", b"a", b"a\0", b"a/b", b"a0", b"b", b"b\xff", b"b\xff\xff", b"\xff\xff"];
    let mut batch = Batch::new();
    for key in keys.iter().rev() {
        batch.put(Bytes::from_static(key), Bytes::copy_from_slice(key));
    }
    store.commit(batch).await.expect("commit works");
    let scan = async |start: &[u8], end: &[u8], limit: usize| -> Vec<Bytes> {
        let entries = store.scan(start..end, limit).await.expect("scan works");
        entries.iter().for_each(|entry| assert_eq!(entry.key, entry.value));
        entries.into_iter().map(|entry| entry.key).collect()
    };
    assert_eq!(scan(b"", b"\xff\xff\xff", 100).await, keys);
    assert_eq!(scan(b"a", b"b", 100).await, keys[1..5], "start inclusive, end exclusive");
    assert_eq!(scan(b"a", b"b", 2).await, keys[1..3], "at most limit");
    assert_eq!(scan(b"a", b"b", 0).await, keys[..0]);
    assert_eq!(scan(b"a", b"a", 9).await, keys[..0], "an empty range");
    assert_eq!(scan(b"b", b"a", 9).await, keys[..0], "a range turned round");
    for page in [1, 2, 3, 100] {
        for (prefix, expected) in [(&b""[..], &keys[..]), (b"a", &keys[1..5]), (b"b\xff", &keys[6..8])] {
            let found: Vec<Entry> = store.scan_prefix(prefix, page).try_collect().await.expect("scan works");
            let found: Vec<Bytes> = found.into_iter().map(|entry| entry.key).collect();
            assert_eq!(found, expected, "prefix {prefix:?} in pages of {page}");
        }
    }
}

/// *Absence is not an error.*
pub async fn absence_is_not_an_error<M: AsyncFn() -> S, S: MetadataStore>(medium: M) {
    let store = medium().await;
    assert_eq!(store.get(b"nothing").await.expect("get works"), None);
    assert_eq!(store.scan(&b"a"[..]..&b"z"[..], 9).await.expect("scan works"), []);
    let mut batch = Batch::new();
    batch.delete("nothing");
    store.commit(batch).await.expect("deleting nothing is allowed");
    assert_eq!(store.get(b"").await.expect("get works"), None, "no record has the empty key");
}

/// *Oversize is refused.*
pub async fn oversize_is_refused<M: AsyncFn() -> S, S: MetadataStore>(medium: M) {
    let store = medium().await;
    let longest = vec![b'k'; MAX_KEY];
    store.put(longest.clone(), "value").await.expect("the longest key");
    let before = all(&store).await;
    let refused = async |key: Vec<u8>, value: Bytes, kind: ErrorKind| {
        let mut batch = Batch::new();
        batch.put("other", "1").put(key, value);
        assert_eq!(store.commit(batch).await.expect_err("oversize").kind(), kind);
    };
    refused(vec![b'k'; MAX_KEY + 1], Bytes::new(), ErrorKind::TooLarge).await;
    refused(Vec::new(), Bytes::new(), ErrorKind::Invalid).await;
    refused(b"key".to_vec(), vec![0; MAX_VALUE + 1].into(), ErrorKind::TooLarge).await;
    let mut batch = Batch::new();
    batch.put("other", "1").delete(vec![b'k'; MAX_KEY + 1]);
    assert_eq!(store.commit(batch).await.expect_err("oversize").kind(), ErrorKind::TooLarge);
    let mut batch = Batch::new();
    batch.put("other", "1").expect(Bytes::new(), Expectation::Absent);
    assert_eq!(store.commit(batch).await.expect_err("empty").kind(), ErrorKind::Invalid);
    assert_eq!(all(&store).await, before, "a refused batch changed something");
    assert_eq!(store.get(&longest).await.expect("get works").expect("is there").value, "value");
}

/// *Reads see own writes.*
pub async fn reads_see_own_writes<M: AsyncFn() -> S, S: MetadataStore>(medium: M) {
    let store = medium().await;
    for number in 0..20 {
        let mut batch = Batch::new();
        batch.put("counter", format!("{number}")).put(format!("log/{number:02}"), "");
        let revision = store.commit(batch).await.expect("commit works");
        let entry = store.get(b"counter").await.expect("get works").expect("is there");
        assert_eq!((entry.value, entry.revision), (format!("{number}").into(), revision));
        let log: Vec<Entry> = store.scan_prefix(b"log/", 7).try_collect().await.expect("scan works");
        assert_eq!(log.len(), number + 1);
    }
}
