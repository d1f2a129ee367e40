//! The checks of [`BlobStore`], [`Resumable`] and [`Quarantine`]: one function a bullet of the
//! contract, with its name. The macros turn them into tests.

use bytes::Bytes;
use futures_util::TryStreamExt;

use crate::blob::{BlobInfo, BlobStore, BlobStoreExt, Payload, Quarantine, Resumable};
use crate::digest::Digest;
use crate::error::ErrorKind;
use crate::range::ByteRange;

/// Tests that a [`BlobStore`] keeps its contract: see [`testing`](crate::testing).
#[macro_export]
macro_rules! blob_store_suite {
    ($name:ident, $medium:expr $(,)?) => {
        $crate::blob_store_suite!($name, $medium, $crate::testing::block_on);
    };
    ($name:ident, $medium:expr, $block_on:path) => {
        $crate::__suite! { blob, $name, $medium, $block_on;
            a_committed_blob_is_durable
            nothing_is_visible_before_commit
            a_short_long_or_wrong_upload_is_invisible
            committing_twice_is_harmless
            a_range_is_clipped_by_the_store
            removal_is_final_and_idempotent
            absence_is_not_an_error
            listing_is_complete
            stored_bytes_are_given_as_they_are
        }
    };
}

/// Tests that a blob store's [`Resumable`] keeps its contract: see [`testing`](crate::testing).
#[macro_export]
macro_rules! resumable_suite {
    ($name:ident, $medium:expr $(,)?) => {
        $crate::resumable_suite!($name, $medium, $crate::testing::block_on);
    };
    ($name:ident, $medium:expr, $block_on:path) => {
        $crate::__suite! { blob, $name, $medium, $block_on;
            an_upload_resumes_at_the_byte
            one_writer_at_a_time
            a_failed_commit_starts_over
            discarding_spares_what_is_kept_or_in_use
        }
    };
}

/// Tests that a blob store's [`Quarantine`] keeps its contract: see [`testing`](crate::testing).
#[macro_export]
macro_rules! quarantine_suite {
    ($name:ident, $medium:expr $(,)?) => {
        $crate::quarantine_suite!($name, $medium, $crate::testing::block_on);
    };
    ($name:ident, $medium:expr, $block_on:path) => {
        $crate::__suite! { blob, $name, $medium, $block_on;
            a_blob_in_quarantine_is_out_of_reach
            a_blob_in_another_state_stays
        }
    };
}

/// Bytes of this length that no other seed has.
fn bytes(seed: u64, length: usize) -> Bytes {
    let mut state = seed;
    std::iter::repeat_with(|| super::sim::random(&mut state) as u8).take(length).collect()
}

fn info(bytes: &[u8]) -> BlobInfo {
    BlobInfo { digest: Digest::of(bytes), size: bytes.len() as u64 }
}

async fn listed<S: BlobStore>(store: &S) -> Vec<BlobInfo> {
    let mut all: Vec<BlobInfo> = store.list().try_collect().await.expect("listing works");
    all.sort_by_key(|info| info.digest);
    all
}

async fn assert_absent<S: BlobStore>(store: &S, digest: &Digest, when: &str) {
    assert_eq!(store.stat(digest).await.expect("stat works"), None, "{when}: stat knows the blob");
    assert!(store.open(digest, None).await.expect("open works").is_none(), "{when}: open knows the blob");
    let all = listed(store).await;
    assert!(all.iter().all(|info| info.digest != *digest), "{when}: list knows the blob");
}

async fn assert_stored<S: BlobStore>(store: &S, expected: &Bytes, when: &str) {
    let info = info(expected);
    assert_eq!(store.stat(&info.digest).await.expect("stat works"), Some(info), "{when}: stat");
    let read = store.read(&info.digest, info.size).await.expect("reading works");
    assert_eq!(read.as_ref(), Some(expected), "{when}: the bytes");
}

/// *A committed blob is durable.*
pub async fn a_committed_blob_is_durable<M: AsyncFn() -> S, S: BlobStore>(medium: M) {
    let content = bytes(1, 100_000);
    let store = medium().await;
    assert_eq!(store.put(content.clone()).await.expect("put works"), info(&content));
    drop(store);
    assert_stored(&medium().await, &content, "after opening anew").await;
}

/// *Nothing is visible before commit.*
pub async fn nothing_is_visible_before_commit<M: AsyncFn() -> S, S: BlobStore>(medium: M) {
    let content = bytes(2, 5000);
    let expected = info(&content);
    let store = medium().await;
    let mut writer = store.create(&expected).await.expect("create works");
    assert_absent(&store, &expected.digest, "after create").await;
    writer.write(content.slice(..3000)).await.expect("write works");
    writer.write(content.slice(3000..)).await.expect("write works");
    assert_eq!(writer.position(), 5000);
    assert_absent(&store, &expected.digest, "after the last write").await;
    drop(writer);
    assert_absent(&store, &expected.digest, "after the writer was dropped").await;
    drop(store);
    let store = medium().await;
    assert_absent(&store, &expected.digest, "after opening anew").await;
    store.put(content.clone()).await.expect("an aborted upload does not stand in the way");
    assert_stored(&store, &content, "after a second upload").await;
}

/// *A short, long or wrong upload is invisible.*
pub async fn a_short_long_or_wrong_upload_is_invisible<M: AsyncFn() -> S, S: BlobStore>(medium: M) {
    let content = bytes(3, 1000);
    let expected = info(&content);
    let store = medium().await;

    let mut short = store.create(&expected).await.expect("create works");
    short.write(content.slice(..999)).await.expect("write works");
    assert_eq!(short.commit().await.expect_err("a short upload").kind(), ErrorKind::Mismatch);
    assert_absent(&store, &expected.digest, "after a short upload").await;

    let mut long = store.create(&expected).await.expect("create works");
    long.write(content.clone()).await.expect("write works");
    let error = long.write(Bytes::from_static(b"x")).await.expect_err("a byte too much");
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    assert!(long.commit().await.is_err(), "a writer that failed commits");
    assert_absent(&store, &expected.digest, "after a long upload").await;

    let mut wrong = store.create(&expected).await.expect("create works");
    wrong.write(bytes(4, 1000)).await.expect("write works");
    assert_eq!(wrong.commit().await.expect_err("a wrong upload").kind(), ErrorKind::Mismatch);
    assert_absent(&store, &expected.digest, "after a wrong upload").await;
    assert_absent(&store, &info(&bytes(4, 1000)).digest, "under the digest it has").await;

    let empty = store.create(&expected).await.expect("create works");
    assert_eq!(empty.commit().await.expect_err("an empty upload").kind(), ErrorKind::Mismatch);
    assert_absent(&store, &expected.digest, "after an empty upload").await;
}

/// *Committing twice is harmless.*
pub async fn committing_twice_is_harmless<M: AsyncFn() -> S, S: BlobStore>(medium: M) {
    let content = bytes(5, 1000);
    let expected = info(&content);
    let store = medium().await;
    let mut first = store.create(&expected).await.expect("create works");
    let mut second = store.create(&expected).await.expect("two uploads at once");
    first.write(content.clone()).await.expect("write works");
    second.write(content.clone()).await.expect("write works");
    first.commit().await.expect("the first commit");
    let stamp = store.open(&expected.digest, None).await.expect("open works").expect("is there").stamp;
    assert_eq!(second.commit().await.expect("the second commit"), expected);
    assert_stored(&store, &content, "after both").await;
    let again = store.open(&expected.digest, None).await.expect("open works").expect("is there").stamp;
    assert_eq!(again, stamp, "the second commit touched the blob");
    assert_eq!(listed(&store).await, [expected]);
}

/// *A range is clipped by the store.*
pub async fn a_range_is_clipped_by_the_store<M: AsyncFn() -> S, S: BlobStore>(medium: M) {
    let content = bytes(6, 1000);
    let store = medium().await;
    let digest = store.put(content.clone()).await.expect("put works").digest;
    for (start, end, clipped) in
        [(0, 1, 1), (0, 1000, 1000), (10, 20, 20), (990, 2000, 1000), (999, u64::MAX, 1000)]
    {
        let asked = ByteRange::new(start, end).expect("a range");
        let blob = store.open(&digest, Some(asked)).await.expect("open works").expect("is there");
        assert_eq!(blob.info.size, 1000, "the info is the whole blob's");
        assert_eq!(blob.range, Some(ByteRange::new(start, clipped).expect("a range")), "{start}..{end}");
        let got = blob.into_bytes(1000).await.expect("reading works");
        assert_eq!(got, content.slice(start as usize..clipped as usize), "{start}..{end}");
    }
    for (start, end) in [(1000, 1001), (5000, u64::MAX)] {
        let asked = ByteRange::new(start, end).expect("a range");
        let error = store.open(&digest, Some(asked)).await.expect_err("a range past the end");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{start}..{end}");
    }
    let empty = store.put(Bytes::new()).await.expect("put works").digest;
    let blob = store.open(&empty, None).await.expect("open works").expect("is there");
    assert_eq!((blob.info.size, blob.range), (0, None));
    assert_eq!(blob.into_bytes(0).await.expect("reading works"), Bytes::new());
    let error = store.open(&empty, Some(ByteRange::new(0, 1).expect("a range"))).await;
    assert_eq!(error.expect_err("a range of nothing").kind(), ErrorKind::Invalid);
}

/// *Removal is final and idempotent.*
pub async fn removal_is_final_and_idempotent<M: AsyncFn() -> S, S: BlobStore>(medium: M) {
    let content = bytes(7, 70_000);
    let store = medium().await;
    let digest = store.put(content.clone()).await.expect("put works").digest;
    let reader = store.open(&digest, None).await.expect("open works").expect("is there");
    assert!(store.remove(&digest).await.expect("remove works"), "it was here");
    assert_absent(&store, &digest, "after removal").await;
    assert_eq!(reader.into_bytes(70_000).await.expect("an open reader keeps reading"), content);
    assert!(!store.remove(&digest).await.expect("remove works"), "it was not here any more");
    drop(store);
    let store = medium().await;
    assert_absent(&store, &digest, "after opening anew").await;
    store.put(content.clone()).await.expect("a removed blob can come again");
    assert_stored(&store, &content, "after it came again").await;
}

/// *Absence is not an error.*
pub async fn absence_is_not_an_error<M: AsyncFn() -> S, S: BlobStore>(medium: M) {
    let store = medium().await;
    let digest = Digest::of(b"never stored");
    assert_absent(&store, &digest, "in an empty store").await;
    let range = ByteRange::new(5, 10).expect("a range");
    assert!(store.open(&digest, Some(range)).await.expect("open works").is_none());
    assert!(!store.remove(&digest).await.expect("remove works"));
    assert_eq!(store.read(&digest, 1).await.expect("read works"), None);
    if let Some(resumable) = store.as_resumable() {
        let expected = BlobInfo { digest, size: 1 };
        assert_eq!(resumable.position(&expected).await.expect("position works"), 0);
    }
    if let Some(quarantine) = store.as_quarantine() {
        assert!(!quarantine.quarantine(&digest, None).await.expect("quarantine works"));
    }
}

/// *Listing is complete.*
pub async fn listing_is_complete<M: AsyncFn() -> S, S: BlobStore>(medium: M) {
    let store = medium().await;
    let mut expected = Vec::new();
    for number in 0..60 {
        expected.push(store.put(bytes(100 + number, number as usize * 7)).await.expect("put works"));
    }
    let gone = expected.swap_remove(17);
    assert!(store.remove(&gone.digest).await.expect("remove works"));
    let mut unfinished = store.create(&info(b"unfinished")).await.expect("create works");
    unfinished.write(Bytes::from_static(b"unfin")).await.expect("write works");
    expected.sort_by_key(|info| info.digest);
    assert_eq!(listed(&store).await, expected);
    drop(unfinished);
    drop(store);
    assert_eq!(listed(&medium().await).await, expected, "after opening anew");
}

/// *Stored bytes are given as they are.*
pub async fn stored_bytes_are_given_as_they_are<M: AsyncFn() -> S, S: BlobStore>(medium: M) {
    let store = medium().await;
    for (seed, length) in [0, 1, 511, 512, 4096, 65_537, 300_000].into_iter().enumerate() {
        let content = bytes(200 + seed as u64, length);
        let expected = info(&content);
        let mut writer = store.create(&expected).await.expect("create works");
        for chunk in content.chunks(7 + length / 5) {
            writer.write(Bytes::copy_from_slice(chunk)).await.expect("write works");
        }
        assert_eq!(writer.position(), expected.size);
        writer.commit().await.expect("commit works");
        assert_stored(&store, &content, "whole").await;
        let blob = store.open(&expected.digest, None).await.expect("open works").expect("is there");
        assert_eq!(blob.info, expected);
        if let Payload::Bytes(bytes) = &blob.payload {
            assert_eq!(*bytes, content);
        }
        let again = store.open(&expected.digest, None).await.expect("open works").expect("is there");
        assert_eq!(again.stamp, blob.stamp, "nobody wrote, and the stamp changed");
        let streamed: Vec<Bytes> = blob.into_stream().try_collect().await.expect("streaming works");
        assert_eq!(streamed.concat(), content);
        assert_eq!(store.verify(&expected.digest).await.expect("verify works"), Some(true));
        if length > 0 {
            let error = store.read(&expected.digest, expected.size - 1).await.expect_err("over the limit");
            assert_eq!(error.kind(), ErrorKind::TooLarge);
        }
    }
}

fn resumable<S: BlobStore>(store: &S) -> &dyn Resumable {
    store.as_resumable().expect("the store resumes uploads")
}

/// *An upload resumes at the byte.*
pub async fn an_upload_resumes_at_the_byte<M: AsyncFn() -> S, S: BlobStore>(medium: M) {
    let content = bytes(8, 700_001);
    let expected = info(&content);
    let store = medium().await;
    let mut writer = resumable(&store).resume(&expected).await.expect("resume begins an upload");
    assert_eq!(writer.position(), 0);
    writer.write(content.slice(..1)).await.expect("write works");
    drop(writer);
    assert_eq!(resumable(&store).position(&expected).await.expect("position works"), 1);
    let mut writer = resumable(&store).resume(&expected).await.expect("resume works");
    assert_eq!(writer.position(), 1);
    writer.write(content.slice(1..600_000)).await.expect("write works");
    drop(writer);
    assert_absent(&store, &expected.digest, "while unfinished").await;
    drop(store);
    let store = medium().await;
    assert_eq!(resumable(&store).position(&expected).await.expect("position works"), 600_000);
    assert_absent(&store, &expected.digest, "unfinished, after opening anew").await;
    let mut writer = resumable(&store).resume(&expected).await.expect("resume works");
    assert_eq!(writer.position(), 600_000);
    writer.write(content.slice(600_000..)).await.expect("write works");
    assert_eq!(writer.commit().await.expect("commit works"), expected);
    assert_stored(&store, &content, "after the resumed upload").await;
    assert_eq!(resumable(&store).position(&expected).await.expect("position works"), 0);
}

/// *One writer at a time.*
pub async fn one_writer_at_a_time<M: AsyncFn() -> S, S: BlobStore>(medium: M) {
    let content = bytes(9, 1000);
    let expected = info(&content);
    let other = info(&bytes(10, 1000));
    let store = medium().await;
    let mut writer = resumable(&store).resume(&expected).await.expect("resume works");
    let error = resumable(&store).resume(&expected).await.expect_err("a second writer");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    drop(resumable(&store).resume(&other).await.expect("another blob is free"));
    writer.write(content.clone()).await.expect("the first writer goes on");
    writer.commit().await.expect("commit works");
    drop(resumable(&store).resume(&expected).await.expect("free after commit"));
    drop(resumable(&store).resume(&expected).await.expect("free after a drop"));
}

/// *A failed commit starts over.*
pub async fn a_failed_commit_starts_over<M: AsyncFn() -> S, S: BlobStore>(medium: M) {
    let content = bytes(11, 1000);
    let expected = info(&content);
    let store = medium().await;
    let mut writer = resumable(&store).resume(&expected).await.expect("resume works");
    writer.write(bytes(12, 1000)).await.expect("write works");
    assert_eq!(writer.commit().await.expect_err("wrong bytes").kind(), ErrorKind::Mismatch);
    assert_eq!(resumable(&store).position(&expected).await.expect("position works"), 0);
    let mut writer = resumable(&store).resume(&expected).await.expect("resume works");
    assert_eq!(writer.position(), 0, "wrong bytes were kept");
    writer.write(content.clone()).await.expect("write works");
    writer.commit().await.expect("commit works");
    assert_stored(&store, &content, "after starting over").await;
}

/// *Discarding spares what is kept or in use.*
pub async fn discarding_spares_what_is_kept_or_in_use<M: AsyncFn() -> S, S: BlobStore>(medium: M) {
    let store = medium().await;
    let contents = [bytes(13, 100), bytes(14, 200), bytes(15, 300)];
    for content in &contents {
        let mut writer = resumable(&store).resume(&info(content)).await.expect("resume works");
        writer.write(content.slice(..content.len() / 2)).await.expect("write works");
    }
    let kept = Digest::of(&contents[0]);
    let mut used = resumable(&store).resume(&info(&contents[1])).await.expect("resume works");
    let freed = resumable(&store).discard(&|digest| *digest == kept).await.expect("discard works");
    assert_eq!(freed, 150);
    used.write(contents[1].slice(100..)).await.expect("a writer in use goes on");
    used.commit().await.expect("commit works");
    assert_eq!(resumable(&store).position(&info(&contents[0])).await.expect("position works"), 50);
    assert_eq!(resumable(&store).position(&info(&contents[2])).await.expect("position works"), 0);
}

fn quarantine<S: BlobStore>(store: &S) -> &dyn Quarantine {
    store.as_quarantine().expect("the store has a quarantine")
}

/// *A blob in quarantine is out of reach.*
pub async fn a_blob_in_quarantine_is_out_of_reach<M: AsyncFn() -> S, S: BlobStore>(medium: M) {
    let content = bytes(16, 1000);
    let store = medium().await;
    let digest = store.put(content.clone()).await.expect("put works").digest;
    assert!(quarantine(&store).quarantine(&digest, None).await.expect("quarantine works"));
    assert_absent(&store, &digest, "in quarantine").await;
    assert!(!quarantine(&store).quarantine(&digest, None).await.expect("quarantine works"));
    drop(store);
    let store = medium().await;
    assert_absent(&store, &digest, "in quarantine, after opening anew").await;
    store.put(content.clone()).await.expect("a good copy can come");
    assert_stored(&store, &content, "after a good copy came").await;
    assert!(quarantine(&store).quarantine(&digest, None).await.expect("a second time"));
    assert_absent(&store, &digest, "in quarantine a second time").await;
}

/// *A blob in another state stays.*
pub async fn a_blob_in_another_state_stays<M: AsyncFn() -> S, S: BlobStore>(medium: M) {
    let content = bytes(17, 1000);
    let store = medium().await;
    let digest = store.put(content.clone()).await.expect("put works").digest;
    let stamp = store.open(&digest, None).await.expect("open works").expect("is there").stamp;
    let Some(stamp) = stamp else { return };
    let mut other = stamp;
    other.0[4] ^= 1;
    assert!(!quarantine(&store).quarantine(&digest, Some(other)).await.expect("quarantine works"));
    assert_stored(&store, &content, "under another stamp").await;
    assert!(quarantine(&store).quarantine(&digest, Some(stamp)).await.expect("quarantine works"));
    assert_absent(&store, &digest, "under its own stamp").await;
}
