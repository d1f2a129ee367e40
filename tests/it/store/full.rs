//! A disk that is full, or broken for a while, stops what needs it and nothing else.
//!
//! The stories behind it: a disk was full for a minute, and the store refused reads until somebody
//! restarted it; the restart then failed too, because opening wanted to write. And a sync failed, the
//! database was opened anew over the page cache, and a commit that never reached the disk was built on.

use bytes::Bytes;
use distedge::blob::vfs::Vfs;
use distedge::blob::{BlobStoreExt, FsBlobStore};
use distedge::error::{ErrorKind, Result};
use distedge::meta::{Batch, MetadataStore, MetadataStoreExt, RedbOptions, RedbStore, Revision};
use distedge::testing::block_on;
use distedge::testing::sim::{Fault, OpKind, SimDisk};
use futures_util::TryStreamExt;

const KEYS: usize = 12;

/// All keys with one value, large enough that the file grows now and then.
fn batch(value: usize) -> Batch {
    let mut batch = Batch::new();
    for key in 0..KEYS {
        batch.put(format!("{key:02}"), text(value));
    }
    batch
}

fn text(value: usize) -> Bytes {
    format!("{value:04} ").repeat(100 + value * 20).into()
}

fn commit(store: &RedbStore, value: usize) -> Result<Revision> {
    block_on(store.commit(batch(value)))
}

/// The one value all records have, and their revision.
fn state(store: &RedbStore, what: &str) -> (usize, Revision) {
    let all: Vec<_> = block_on(store.scan_prefix(b"", 100).try_collect())
        .unwrap_or_else(|error| panic!("{what}: reading: {error}"));
    assert_eq!(all.len(), KEYS, "{what}: {all:?}");
    let first = &all[0];
    for entry in &all {
        assert!(entry.value == first.value && entry.revision == first.revision, "{what}: {all:?}");
    }
    let got = block_on(store.get(b"05")).unwrap_or_else(|error| panic!("{what}: reading: {error}"));
    assert_eq!(got.as_ref(), Some(&all[5]), "{what}: get and scan differ");
    let value = std::str::from_utf8(&first.value[..4]).unwrap().parse().unwrap();
    assert_eq!(first.value, text(value), "{what}");
    (value, first.revision)
}

fn open(disk: &SimDisk, options: RedbOptions) -> Result<RedbStore> {
    if disk.stat("/meta.redb".as_ref()).is_err() {
        drop(disk.redb("/meta.redb").unwrap());
    }
    options.open_backend("/meta.redb", disk.open("/meta.redb".as_ref()).unwrap())
}

/// The disk fails from the `n`th operation of `kind` on; `false` if the workload has fewer.
fn fail_and_heal(options: RedbOptions, kind: OpKind, n: u64, fault: Fault) -> bool {
    let what = format!("{fault:?} from {kind:?} {n} on, {options:?}");
    let expected = if fault == Fault::Io { ErrorKind::Io } else { ErrorKind::NoSpace };
    let disk = SimDisk::new();
    let store = open(&disk, options).unwrap();
    commit(&store, 0).unwrap();
    let mut last = state(&store, &what);
    let before = disk.count(kind);
    disk.fail_from(kind, n, fault);
    let mut failed = Vec::new();
    for value in 1..5 {
        match commit(&store, value) {
            Ok(revision) => {
                assert!(failed.is_empty(), "{what}: {value} went through on a failing disk");
                assert!(revision > last.1, "{what}");
                last = (value, revision);
            }
            Err(error) => {
                failed.push(value);
                assert_eq!(error.kind(), expected, "{what}: {error}");
                assert!(error.message().contains("/meta.redb"), "{what}: no path in {error}");
                assert!(store.is_read_only(), "{what}");
            }
        }
        assert_eq!(state(&store, &what), last, "{what}: not the last state that was synced");
    }
    let struck = disk.count(kind) - before >= n;
    assert!(struck || failed.is_empty(), "{what}");
    // The power goes out: a lost commit may turn up, but whole, and nothing acknowledged is gone.
    for seed in 0..6 {
        let after = open(&disk.crash_image(disk.points(), seed), options).unwrap();
        let (found, _) = state(&after, &what);
        assert!(found == last.0 || failed.contains(&found), "{what}, seed {seed}: {found}");
    }
    disk.heal();
    let revision = commit(&store, 7).unwrap_or_else(|error| panic!("{what}: healed: {error}"));
    assert!(revision > last.1, "{what}: {revision:?} after {last:?}");
    assert!(!store.is_read_only(), "{what}");
    assert_eq!(state(&store, &what), (7, revision));
    // Nothing was built on what a failed sync had lost.
    for seed in 0..6 {
        let after = open(&disk.crash_image(disk.points(), seed), options).unwrap();
        assert_eq!(state(&after, &what), (7, revision), "{what}, seed {seed}");
        assert!(commit(&after, 8).unwrap() > revision, "{what}, seed {seed}");
    }
    struck
}

#[test]
fn a_full_disk_stops_commits_and_no_reads() {
    for options in [RedbOptions::new(), RedbOptions::new().with_quick_recovery(false)] {
        let struck = (1..).take_while(|n| fail_and_heal(options, OpKind::Write, *n, Fault::NoSpace)).count();
        assert!(struck > 20, "{struck} points");
    }
}

#[test]
fn a_disk_that_cannot_sync_stops_commits_and_no_reads() {
    for options in [RedbOptions::new(), RedbOptions::new().with_quick_recovery(false)] {
        for fault in [Fault::Io, Fault::NoSpace] {
            let struck = (1..).take_while(|n| fail_and_heal(options, OpKind::Sync, *n, fault)).count();
            assert!(struck >= 4, "{struck} points");
        }
    }
}

#[test]
fn a_commit_lost_in_a_failed_sync_is_not_built_on() {
    // The sync fails once, and every later one says that all is well. The bytes it was about are gone
    // with the power, though readers of the file saw them all the time.
    for options in [RedbOptions::new(), RedbOptions::new().with_quick_recovery(false)] {
        for kind in [OpKind::Sync, OpKind::Write] {
            for n in 1.. {
                let what = format!("{kind:?} {n}, {options:?}");
                let disk = SimDisk::new();
                let store = open(&disk, options).unwrap();
                let first = commit(&store, 0).unwrap();
                let before = disk.count(kind);
                disk.fail_nth(kind, n, Fault::Io);
                let lost = commit(&store, 1);
                let struck = disk.count(kind) - before >= n;
                if !struck {
                    break;
                }
                if lost.is_ok() {
                    // What failed was no part of it.
                    continue;
                }
                assert_eq!(state(&store, &what), (0, first));
                // Only one record, so that the others stay where they are.
                let revision = block_on(store.put("05", "other")).unwrap();
                assert!(revision > first, "{what}");
                for seed in 0..6 {
                    let after = open(&disk.crash_image(disk.points(), seed), options).unwrap();
                    let all: Vec<_> = block_on(after.scan_prefix(b"", 100).try_collect()).unwrap();
                    for (key, entry) in all.iter().enumerate() {
                        let expected = if key == 5 { Bytes::from("other") } else { text(0) };
                        assert_eq!(entry.value, expected, "{what}, seed {seed}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_start_on_a_full_disk_serves_what_is_there() {
    // Shut down in order, killed, or killed after a commit that failed.
    for end in ["closed", "killed", "failed"] {
        for options in [RedbOptions::new(), RedbOptions::new().with_quick_recovery(false)] {
            for kind in [OpKind::Write, OpKind::Sync] {
                for n in 1..12 {
                    let what = format!("{end}, full from {kind:?} {n} on, {options:?}");
                    let disk = SimDisk::new();
                    let store = open(&disk, options).unwrap();
                    let blobs = FsBlobStore::open_with(disk.clone(), "/data").unwrap();
                    let blob = block_on(blobs.put(text(1))).unwrap();
                    commit(&store, 0).unwrap();
                    drop(blobs);
                    match end {
                        "closed" => drop(store),
                        "killed" => std::mem::forget(store),
                        _ => {
                            disk.fail_from(OpKind::Write, 3, Fault::NoSpace);
                            commit(&store, 9).unwrap_err();
                            disk.heal();
                            std::mem::forget(store);
                        }
                    }
                    disk.fail_from(kind, n, Fault::NoSpace);
                    for kind in [OpKind::Create, OpKind::CreateDir] {
                        disk.fail_from(kind, 1, Fault::NoSpace);
                    }
                    let store = open(&disk, options).unwrap_or_else(|error| panic!("{what}: {error}"));
                    let (mut value, mut revision) = state(&store, &what);
                    assert_eq!(value, 0, "{what}");
                    let blobs = FsBlobStore::open_with(disk.clone(), "/data")
                        .unwrap_or_else(|error| panic!("{what}: {error}"));
                    assert_eq!(block_on(blobs.read(&blob.digest, 99_999)).unwrap(), Some(text(1)), "{what}");
                    let upload = block_on(blobs.put(text(2))).unwrap_err();
                    assert_eq!(upload.kind(), ErrorKind::NoSpace, "{what}: {upload}");
                    for next in 1..12 {
                        match commit(&store, next) {
                            Ok(committed) => (value, revision) = (next, committed),
                            Err(error) => assert_eq!(error.kind(), ErrorKind::NoSpace, "{what}: {error}"),
                        }
                        assert_eq!(state(&store, &what), (value, revision), "{what}");
                    }
                    assert!(store.is_read_only(), "{what}");
                    disk.heal();
                    assert!(commit(&store, 20).unwrap() > revision, "{what}");
                    assert_eq!(state(&store, &what).0, 20, "{what}");
                    let stored = block_on(blobs.put(text(2))).unwrap();
                    assert!(block_on(blobs.read(&stored.digest, 99_999)).unwrap().is_some(), "{what}");
                }
            }
        }
    }
}

#[test]
fn a_full_disk_makes_no_empty_store() {
    // Nothing is there and nothing can be made: an empty store in memory would be a lie.
    for n in 1..8 {
        let disk = SimDisk::new();
        disk.fail_from(OpKind::Write, n, Fault::NoSpace);
        let error = match disk.redb("/meta.redb") {
            Err(error) => error,
            // From its last steps on the store is whole.
            Ok(store) => block_on(store.put("key", "value")).unwrap_err(),
        };
        assert_eq!(error.kind(), ErrorKind::NoSpace, "write {n}: {error}");
        disk.heal();
        block_on(disk.redb("/meta.redb").unwrap().put("key", "value")).unwrap();
    }
}

#[test]
fn readers_and_writers_at_once_survive_a_flapping_disk() {
    let disk = SimDisk::new();
    let store = open(&disk, RedbOptions::new()).unwrap();
    commit(&store, 0).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut last = Revision(0);
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let all = block_on(store.scan(b"0".as_slice()..b"2".as_slice(), 100)).unwrap();
                    let (first, count) = (&all[0], all.len());
                    assert!(count == KEYS && all.iter().all(|entry| entry.value == first.value), "{all:?}");
                    assert!(first.revision >= last, "a reader went back in time");
                    last = first.revision;
                }
            });
        }
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                let store = &store;
                scope.spawn(move || {
                    for round in 0..60 {
                        if let Err(error) = commit(store, round % 5 * 2 + writer) {
                            assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
                        }
                    }
                })
            })
            .collect();
        let mut n = 0;
        while writers.iter().any(|writer| !writer.is_finished()) {
            n += 1;
            disk.fail_nth([OpKind::Write, OpKind::Sync][n % 2], 1 + n as u64 % 7, Fault::NoSpace);
            std::thread::sleep(std::time::Duration::from_millis(3));
            disk.heal();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    commit(&store, 3).unwrap();
}
