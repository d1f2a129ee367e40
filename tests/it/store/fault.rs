//! A full or broken disk fails what it concerns, and nothing else: no false success, nothing old lost,
//! and the store works again when the disk does.

use std::sync::Arc;

use bytes::Bytes;
use distedge::blob::{BlobInfo, BlobStore, BlobStoreExt, FsBlobStore, MemoryBlobStore};
use distedge::clock::{Clock, Timestamp};
use distedge::digest::Digest;
use distedge::error::{ErrorKind, Result};
use distedge::meta::{Batch, Entry, MemoryStore, MetadataStore, MetadataStoreExt};
use distedge::testing::sim::{Fault, OpKind, SimDisk};
use distedge::testing::{Flaky, ManualClock, Plan, Slow, Torn, block_on};
use futures_util::TryStreamExt;

fn open(disk: &SimDisk) -> FsBlobStore<SimDisk> {
    FsBlobStore::open_with(disk.clone(), "/data").unwrap()
}

fn info(bytes: &[u8]) -> BlobInfo {
    BlobInfo { digest: Digest::of(bytes), size: bytes.len() as u64 }
}

fn content(number: usize) -> Bytes {
    format!("content {number} ").repeat(40 + number).into()
}

/// Puts one blob at once and one by a resumed upload.
fn workload(store: &FsBlobStore<SimDisk>) -> [Result<BlobInfo>; 2] {
    let resumed = async {
        let bytes = content(2);
        let resumable = store.as_resumable().unwrap();
        let mut writer = resumable.resume(&info(&bytes)).await?;
        let rest = bytes.slice(writer.position() as usize..);
        writer.write(rest.slice(..rest.len().min(100))).await?;
        drop(writer);
        let mut writer = resumable.resume(&info(&bytes)).await?;
        writer.write(bytes.slice(writer.position() as usize..)).await?;
        writer.commit().await
    };
    [block_on(store.put(content(1))), block_on(resumed)]
}

#[test]
fn no_fault_of_the_disk_is_taken_for_success() {
    let mut faults = 0;
    for kind in OpKind::ALL {
        for fault in [Fault::Io, Fault::NoSpace] {
            for n in 1.. {
                let disk = SimDisk::new();
                let store = open(&disk);
                let old = block_on(store.put(content(0))).unwrap();
                let before = disk.count(kind);
                disk.fail_nth(kind, n, fault);
                let results = workload(&store);
                let struck = disk.count(kind) - before >= n;
                let what = format!("{fault:?} at {kind:?} {n}");
                // Removing what a broken upload leaves is no part of it.
                if struck && kind != OpKind::Remove {
                    faults += 1;
                    let failed = results.iter().find_map(|result| result.as_ref().err());
                    let error = failed.unwrap_or_else(|| panic!("{what}: nobody was told"));
                    let expected = if fault == Fault::Io { ErrorKind::Io } else { ErrorKind::NoSpace };
                    assert_eq!(error.kind(), expected, "{what}: {error}");
                    assert!(error.message().contains("/data/"), "{what}: no path in {error}");
                }
                for (result, number) in results.iter().zip([1, 2]) {
                    let known = block_on(store.stat(&info(&content(number)).digest)).unwrap();
                    assert_eq!(known.as_ref(), result.as_ref().ok(), "{what}: seen and told differ");
                }
                assert_eq!(block_on(store.read(&old.digest, 9999)).unwrap(), Some(content(0)), "{what}");
                // What was reported stored survives the power going out right here.
                for seed in 0..6 {
                    let after = open(&disk.crash_image(disk.points(), seed));
                    for stored in results.iter().flatten().chain([&old]) {
                        let bytes = block_on(after.read(&stored.digest, 9999));
                        assert!(bytes.is_ok_and(|bytes| bytes.is_some()), "{what}, seed {seed}: lost");
                    }
                }
                // The disk works again, and so does the same store.
                disk.heal();
                for result in workload(&store) {
                    let stored = result.unwrap_or_else(|error| panic!("{what}: later: {error}"));
                    for seed in 0..6 {
                        let after = open(&disk.crash_image(disk.points(), seed));
                        let bytes = block_on(after.read(&stored.digest, 9999));
                        assert!(bytes.is_ok_and(|bytes| bytes.is_some()), "{what}, seed {seed}: lost later");
                    }
                }
                if !struck {
                    break;
                }
            }
        }
    }
    assert!(faults >= 20, "{faults} faults struck");
}

#[test]
fn a_failed_fsync_is_never_retried_as_clean() {
    // fsync reports an error once and then calls the lost pages clean: an upload that syncs the same
    // file again is told that all is well, and its bytes are gone with the power.
    let disk = SimDisk::new();
    let store = open(&disk);
    let bytes = content(3);
    let expected = info(&bytes);
    let resumable = store.as_resumable().unwrap();
    let mut writer = block_on(resumable.resume(&expected)).unwrap();
    block_on(writer.write(bytes.clone())).unwrap();
    disk.fail_nth(OpKind::Sync, 1, Fault::Io);
    assert_eq!(block_on(writer.commit()).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(store.failed_syncs(), 1);
    assert_eq!(block_on(resumable.position(&expected)).unwrap(), 0, "lost bytes were kept to go on from");
    let syncs = disk.count(OpKind::Sync);
    let writer = block_on(resumable.resume(&expected)).unwrap();
    assert_eq!(writer.position(), 0);
    drop(writer);
    assert_eq!(disk.count(OpKind::Sync), syncs, "something was synced again");
}

#[test]
fn a_blob_whose_name_was_not_synced_stays_hidden() {
    // The rename went through, the directory sync did not. Whoever saw the blob would record it, and
    // the power would take it from under the record.
    let disk = SimDisk::new();
    let store = open(&disk);
    disk.fail_nth(OpKind::SyncDir, 1, Fault::Io);
    disk.fail_nth(OpKind::Remove, 1, Fault::Io);
    let expected = info(&content(4));
    assert_eq!(block_on(store.put(content(4))).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(block_on(store.stat(&expected.digest)).unwrap(), None);
    assert!(block_on(store.open(&expected.digest, None)).unwrap().is_none());
    assert_eq!(block_on(store.list().try_collect::<Vec<_>>()).unwrap(), []);
    assert!(!block_on(store.remove(&expected.digest)).unwrap());
    block_on(store.put(content(4))).unwrap();
    assert_eq!(block_on(store.stat(&expected.digest)).unwrap(), Some(expected));
    let image = disk.crash_image(disk.points(), 0);
    assert_eq!(block_on(open(&image).stat(&expected.digest)).unwrap(), Some(expected));
}

#[test]
fn a_full_disk_keeps_what_was_uploaded_so_far() {
    let disk = SimDisk::new();
    let store = open(&disk);
    let bytes = content(5);
    let expected = info(&bytes);
    let resumable = store.as_resumable().unwrap();
    let mut writer = block_on(resumable.resume(&expected)).unwrap();
    block_on(writer.write(bytes.slice(..200))).unwrap();
    disk.fail_from(OpKind::Write, 1, Fault::NoSpace);
    assert_eq!(block_on(writer.write(bytes.slice(200..400))).unwrap_err().kind(), ErrorKind::NoSpace);
    assert!(block_on(writer.write(bytes.slice(200..400))).is_err(), "a broken writer goes on");
    assert!(block_on(writer.commit()).is_err(), "a broken writer commits");
    disk.heal();
    let mut writer = block_on(resumable.resume(&expected)).unwrap();
    assert!(writer.position() >= 200, "resumed at {}", writer.position());
    block_on(writer.write(bytes.slice(writer.position() as usize..))).unwrap();
    block_on(writer.commit()).unwrap();
    assert_eq!(block_on(store.read(&expected.digest, 9999)).unwrap(), Some(bytes));
}

#[test]
fn a_commit_of_records_that_failed_is_whole_or_absent() {
    let mut struck = 0;
    for kind in [OpKind::Write, OpKind::Sync] {
        for fault in [Fault::Io, Fault::NoSpace] {
            for n in 1.. {
                let disk = SimDisk::new();
                let store = disk.redb("/meta.redb").unwrap();
                let batch = |value: &'static str| {
                    let mut batch = Batch::new();
                    for key in 0..20 {
                        batch.put(format!("{key:02}"), value);
                    }
                    batch
                };
                block_on(store.commit(batch("old"))).unwrap();
                let before = disk.count(kind);
                disk.fail_nth(kind, n, fault);
                let result = block_on(store.commit(batch("new")));
                let done = disk.count(kind) - before < n;
                let what = format!("{fault:?} at {kind:?} {n}");
                assert!(result.is_ok() || !done, "{what}");
                let acknowledged = result.is_ok();
                if let Err(error) = &result {
                    struck += 1;
                    let expected = if fault == Fault::Io { ErrorKind::Io } else { ErrorKind::NoSpace };
                    assert_eq!(error.kind(), expected, "{what}: {error}");
                    assert!(error.message().contains("/meta.redb"), "{what}: no path in {error}");
                    // What was not acknowledged is not shown.
                    let shown = block_on(store.get(b"00")).unwrap().unwrap();
                    assert_eq!(shown.value, "old", "{what}");
                }
                drop(store);
                disk.heal();
                let images = (0..6).map(|seed| disk.crash_image(disk.points(), seed));
                for image in images.chain([disk.clone()]) {
                    let store = image.redb("/meta.redb").unwrap();
                    let entries: Vec<Entry> = block_on(store.scan_prefix(b"", 100).try_collect()).unwrap();
                    assert_eq!(entries.len(), 20, "{what}");
                    let value = &entries[0].value;
                    assert!(entries.iter().all(|entry| entry.value == value), "{what}: {entries:?}");
                    assert!(value == "new" || (!acknowledged && value == "old"), "{what}: {value:?}");
                    block_on(store.commit(batch("later"))).unwrap();
                    drop(store);
                    // What recovery built on holds, also after another cut.
                    for seed in 0..6 {
                        let after = image.crash_image(image.points(), seed).redb("/meta.redb").unwrap();
                        let entries: Vec<Entry> =
                            block_on(after.scan_prefix(b"", 100).try_collect()).unwrap();
                        assert!(
                            entries.len() == 20 && entries.iter().all(|entry| entry.value == "later"),
                            "{what}, seed {seed}: {entries:?}"
                        );
                    }
                }
                if done {
                    break;
                }
            }
        }
    }
    assert!(struck > 8, "{struck} faults struck");
}

#[test]
fn a_flaky_store_fails_by_plan_and_does_nothing() {
    let plan = Plan::at([2, 5], ErrorKind::Unavailable);
    let blobs = Flaky::new(Arc::new(MemoryBlobStore::new()), plan.clone());
    let bytes = content(6);
    // create is 1, write is 2.
    assert_eq!(block_on(blobs.put(bytes.clone())).unwrap_err().kind(), ErrorKind::Unavailable);
    // create is 3, write is 4, commit is 5.
    assert_eq!(block_on(blobs.put(bytes.clone())).unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(block_on(blobs.stat(&Digest::of(&bytes))).unwrap(), None);
    block_on(blobs.put(bytes.clone())).unwrap();
    assert_eq!(plan.count(), 9);

    let records = Flaky::new(MemoryStore::new(), Plan::every(2, ErrorKind::Io));
    block_on(records.put("a", "1")).unwrap();
    assert_eq!(block_on(records.put("a", "2")).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(block_on(records.get(b"a")).unwrap().unwrap().value, "1");
}

#[test]
fn a_torn_store_has_done_what_it_says_failed() {
    let blobs = Torn::new(MemoryBlobStore::new(), Plan::on("commit", ErrorKind::Unavailable));
    assert_eq!(block_on(blobs.put(content(7))).unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(block_on(blobs.stat(&Digest::of(&content(7)))).unwrap().is_some(), "the answer was lost");
    let blobs = Torn::new(MemoryBlobStore::new(), Plan::on("write", ErrorKind::Unavailable));
    let expected = info(&content(8));
    let mut writer = block_on(blobs.as_resumable().unwrap().resume(&expected)).unwrap();
    assert!(block_on(writer.write(content(8))).is_err());
    drop(writer);
    assert_eq!(block_on(blobs.as_resumable().unwrap().position(&expected)).unwrap(), expected.size / 2);

    let records = Torn::new(MemoryStore::new(), Plan::on("commit", ErrorKind::TimedOut));
    assert_eq!(block_on(records.put("a", "1")).unwrap_err().kind(), ErrorKind::TimedOut);
    assert_eq!(block_on(records.get(b"a")).unwrap().unwrap().value, "1");
}

#[test]
fn a_slow_store_asks_its_hook_before_each_operation() {
    let (told, heard) = std::sync::mpsc::channel();
    let blobs = Slow::new(MemoryBlobStore::new(), move |operation| {
        told.send(operation).unwrap();
        std::future::ready(())
    });
    block_on(blobs.put(content(9))).unwrap();
    drop(blobs);
    assert_eq!(heard.iter().collect::<Vec<_>>(), ["create", "write", "commit"]);
}

#[test]
fn a_manual_clock_moves_only_when_told() {
    let clock = ManualClock::new(Timestamp::from_unix(1000));
    let same = clock.clone();
    assert_eq!(clock.advance(5), Timestamp::from_unix(1005));
    assert_eq!(same.advance(-10), Timestamp::from_unix(995));
    clock.set(Timestamp::from_unix(7));
    assert_eq!(same.now(), Timestamp::from_unix(7));
}
