//! Power goes out at every moment of a workload, and nothing that was acknowledged is lost.
//!
//! The stories behind it: a blob whose name was synced before its bytes came back empty; a blob whose
//! name was never synced was gone after it had been reported stored; a database that trusted a half
//! written header rolled a commit back. Each crash image is opened as a machine opens its disk after
//! such a night, and is looked at whole.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::thread;

use bytes::Bytes;
use distedge::blob::{BlobInfo, BlobStore, BlobStoreExt, FsBlobStore};
use distedge::digest::Digest;
use distedge::meta::{Batch, Entry, MetadataStore, MetadataStoreExt, Revision};
use distedge::testing::block_on;
use distedge::testing::sim::SimDisk;
use futures_util::TryStreamExt;

/// Seeds 0 to 3 are the corner cases, the others random.
const SEEDS: u64 = 10;
/// How many blobs the reference workload puts: enough for 10,000 crash images.
const BLOBS: u64 = 160;

fn content(number: u64, length: usize) -> Bytes {
    let line = format!("artifact {number} ");
    line.bytes().cycle().take(length).collect()
}

/// Of many lengths, up to a few blocks.
fn sized(number: u64) -> Bytes {
    content(number, 100 + number as usize * 97 % 4000)
}

fn info(bytes: &[u8]) -> BlobInfo {
    BlobInfo { digest: Digest::of(bytes), size: bytes.len() as u64 }
}

fn open(disk: &SimDisk) -> FsBlobStore<SimDisk> {
    FsBlobStore::open_with(disk.clone(), "/data").unwrap()
}

/// An open store on a disk whose first crash point is here.
fn prepared() -> (SimDisk, FsBlobStore<SimDisk>) {
    let disk = SimDisk::new();
    let store = open(&disk);
    disk.settle();
    (disk, store)
}

/// What was acknowledged, and at which crash point.
#[derive(Default)]
struct Acknowledged {
    stored: Vec<(BlobInfo, usize)>,
    /// From the first point on the removal had begun, so the blob may be here or not.
    removed: Vec<(BlobInfo, usize)>,
}

/// Every blob an image knows is whole, and every one it must know is there.
fn check_blobs(image: &SimDisk, point: usize, acknowledged: &Acknowledged, what: &str) {
    let store = open(image);
    let known: Vec<BlobInfo> = block_on(store.list().try_collect()).unwrap();
    for blob in &known {
        let read = block_on(store.read(&blob.digest, u64::MAX));
        assert!(read.is_ok_and(|bytes| bytes.is_some()), "{what}: {} is visible and not whole", blob.digest);
    }
    for (blob, at) in &acknowledged.stored {
        let removed = acknowledged.removed.iter().any(|(gone, from)| gone == blob && *from <= point);
        if *at <= point && !removed {
            assert!(known.contains(blob), "{what}: {} was acknowledged and is lost", blob.digest);
        }
    }
}

fn check_every_point(disk: &SimDisk, check: impl Fn(&SimDisk, usize, &str)) -> usize {
    let mut images = 0;
    for point in 0..=disk.points() {
        for seed in 0..SEEDS {
            let image = disk.crash_image(point, seed);
            check(&image, point, &format!("crash point {point}, seed {seed}"));
            images += 1;
        }
    }
    images
}

#[test]
fn an_acknowledged_blob_survives_every_crash_point() {
    let (disk, store) = prepared();
    let mut acknowledged = Acknowledged::default();
    for number in 0..BLOBS {
        let bytes = sized(number);
        let expected = info(&bytes);
        let half = bytes.len() / 2;
        match number % 4 {
            // An upload that is cut and resumed.
            1 => {
                let resumable = store.as_resumable().unwrap();
                let mut writer = block_on(resumable.resume(&expected)).unwrap();
                block_on(writer.write(bytes.slice(..half))).unwrap();
                drop(writer);
                let mut writer = block_on(resumable.resume(&expected)).unwrap();
                assert_eq!(writer.position(), half as u64);
                block_on(writer.write(bytes.slice(half..))).unwrap();
                block_on(writer.commit()).unwrap();
            }
            // In several writes.
            2 => {
                let mut writer = block_on(store.create(&expected)).unwrap();
                for chunk in bytes.chunks(600) {
                    block_on(writer.write(Bytes::copy_from_slice(chunk))).unwrap();
                }
                block_on(writer.commit()).unwrap();
            }
            _ => drop(block_on(store.put(bytes)).unwrap()),
        }
        acknowledged.stored.push((expected, disk.points()));
        if number % 5 == 4 {
            let (gone, _) = acknowledged.stored[number as usize - 3];
            acknowledged.removed.push((gone, disk.points()));
            assert!(block_on(store.remove(&gone.digest)).unwrap());
        }
        if number % 10 == 9 {
            // Removed and uploaded again: acknowledged anew.
            let (gone, _) = acknowledged.removed.remove(0);
            acknowledged.stored.retain(|(blob, _)| *blob != gone);
            let number = (0..BLOBS).find(|number| info(&sized(*number)) == gone).unwrap();
            block_on(store.put(sized(number))).unwrap();
            acknowledged.stored.push((gone, disk.points()));
        }
    }
    let images = check_every_point(&disk, |image, point, what| {
        check_blobs(image, point, &acknowledged, what);
    });
    assert!(images >= 10_000, "{images} images");
}

#[test]
fn blobs_put_at_once_share_syncs_and_survive() {
    let (disk, store) = prepared();
    let acknowledged = Mutex::new(Acknowledged::default());
    thread::scope(|scope| {
        for worker in 0..4 {
            let (disk, store, acknowledged) = (&disk, &store, &acknowledged);
            scope.spawn(move || {
                for number in 0..10 {
                    // Every fifth is one that all workers put.
                    let number = if number % 5 == 0 { 1000 + number } else { worker * 100 + number };
                    let stored = block_on(store.put(content(number, 700))).unwrap();
                    let point = disk.points();
                    acknowledged.lock().unwrap().stored.push((stored, point));
                }
            });
        }
    });
    let acknowledged = acknowledged.into_inner().unwrap();
    assert_eq!(acknowledged.stored.len(), 40);
    check_every_point(&disk, |image, point, what| check_blobs(image, point, &acknowledged, what));
}

#[test]
fn a_crash_during_recovery_loses_nothing_either() {
    let (disk, store) = prepared();
    let mut acknowledged = Acknowledged::default();
    for number in 0..3 {
        let stored = block_on(store.put(content(number, 900))).unwrap();
        acknowledged.stored.push((stored, disk.points()));
    }
    let mut unfinished = block_on(store.create(&info(b"unfinished"))).unwrap();
    block_on(unfinished.write(Bytes::from_static(b"unfin"))).unwrap();
    for point in 0..=disk.points() {
        for seed in [0, 1, 4, 5] {
            let image = disk.crash_image(point, seed);
            drop(open(&image));
            // Opening syncs 256 directories; the last steps change something again.
            let last = image.points();
            for second in [0, 1, 2, last / 2, last - 3, last - 2, last - 1, last] {
                let what = format!("crash point {point}, seed {seed}, then {second}");
                check_blobs(&image.crash_image(second, seed + 3), point, &acknowledged, &what);
            }
        }
    }
}

#[test]
fn a_first_start_can_be_cut_anywhere() {
    let disk = SimDisk::new();
    drop(open(&disk));
    drop(disk.redb("/meta.redb").unwrap());
    for point in (0..=disk.points()).step_by(3) {
        for seed in 0..5 {
            let image = disk.crash_image(point, seed);
            let store = open(&image);
            block_on(store.put(content(1, 100))).unwrap();
            let records = image.redb("/meta.redb").unwrap();
            block_on(records.put("key", "value")).unwrap();
        }
    }
}

type Records = BTreeMap<Bytes, (Bytes, Revision)>;

fn records(entries: Vec<Entry>) -> Records {
    entries.into_iter().map(|entry| (entry.key, (entry.value, entry.revision))).collect()
}

/// A workload on records: the state after each commit, and the point at which it was acknowledged.
fn commit_batches(disk: &SimDisk, batches: u64) -> Vec<(Records, usize)> {
    let store = disk.redb("/meta.redb").unwrap();
    disk.settle();
    let mut states = vec![(Records::new(), 0)];
    for number in 0..batches {
        let mut batch = Batch::new();
        for key in 0..3 + number % 5 {
            batch.put(
                format!("record/{:02}", (number * 3 + key) % 17),
                content(number, 40 + key as usize * 60),
            );
        }
        batch.put("both/a", format!("{number}")).put("both/b", format!("{number}"));
        batch.delete(format!("record/{:02}", number % 17));
        block_on(store.commit(batch)).unwrap();
        let state = records(block_on(store.scan_prefix(b"", 100).try_collect()).unwrap());
        states.push((state, disk.points()));
    }
    states
}

/// The records of an image are those after one commit, and after no earlier one than was acknowledged.
fn check_records(image: &SimDisk, point: usize, states: &[(Records, usize)], what: &str) {
    let store = image.redb("/meta.redb").unwrap_or_else(|error| panic!("{what}: {error}"));
    let found = records(block_on(store.scan_prefix(b"", 100).try_collect()).unwrap());
    let acknowledged = states.iter().rposition(|(_, at)| *at <= point).unwrap();
    let allowed = &states[acknowledged..states.len().min(acknowledged + 2)];
    assert!(
        allowed.iter().any(|(state, _)| *state == found),
        "{what}: {found:?} is not the state after commit {acknowledged} nor the next"
    );
    let last = found.values().map(|(_, revision)| *revision).max();
    let revision = block_on(store.put("after", "the crash")).unwrap();
    assert!(Some(revision) > last, "{what}: {revision:?} after {last:?}");
}

#[test]
fn a_batch_is_whole_or_absent_at_every_crash_point() {
    let disk = SimDisk::new();
    let states = commit_batches(&disk, 25);
    check_every_point(&disk, |image, point, what| check_records(image, point, &states, what));
}

#[test]
fn a_record_never_points_to_a_blob_that_is_gone() {
    let (disk, store) = prepared();
    let index = disk.redb("/meta.redb").unwrap();
    disk.settle();
    let mut acknowledged = Acknowledged::default();
    for number in 0..12 {
        let mut batch = Batch::new();
        for part in 0..2 {
            let stored = block_on(store.put(content(number * 2 + part, 300))).unwrap();
            acknowledged.stored.push((stored, disk.points()));
            batch.put(format!("{number}/{part}"), stored.digest.to_string());
        }
        block_on(index.commit(batch)).unwrap();
    }
    check_every_point(&disk, |image, point, what| {
        check_blobs(image, point, &acknowledged, what);
        let index = image.redb("/meta.redb").unwrap();
        let store = open(image);
        let entries: Vec<Entry> = block_on(index.scan_prefix(b"", 100).try_collect()).unwrap();
        assert_eq!(entries.len() % 2, 0, "{what}: half a batch");
        for entry in entries {
            let digest = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
            assert!(
                block_on(store.stat(&digest)).unwrap().is_some(),
                "{what}: {digest} is recorded and gone"
            );
        }
    });
}
