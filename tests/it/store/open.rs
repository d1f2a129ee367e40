//! A data directory that cannot be used gets one clear sentence, and a used one is found as it was.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use distedge::blob::{BlobInfo, BlobStore, BlobStoreExt, FsBlobStore, Payload};
use distedge::digest::Digest;
use distedge::error::{Error, ErrorKind};
use distedge::meta::{Batch, MetadataStore, MetadataStoreExt, RedbOptions, RedbStore};
use distedge::testing::block_on;
use distedge::testing::sim::{Fault, OpKind, SimDisk};
use futures_util::TryStreamExt;

fn temp() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// The error is one line and names the path.
fn assert_clear(error: &Error, kind: ErrorKind, path: &Path) {
    assert_eq!(error.kind(), kind, "{error}");
    let message = error.message();
    assert!(message.contains(path.to_str().unwrap()), "no path in: {message}");
    assert!(!message.contains('\n'), "more than one line: {message}");
}

fn blob_file(root: &Path, digest: &Digest) -> std::path::PathBuf {
    let hex = digest.to_hex();
    root.join("blobs/sha256").join(&hex[..2]).join(hex)
}

#[test]
fn a_file_in_place_of_the_data_directory_is_named() {
    let dir = temp();
    let file = dir.path().join("data");
    fs::write(&file, "not a directory").unwrap();
    let error = FsBlobStore::open(&file).unwrap_err();
    assert_clear(&error, ErrorKind::Io, &file);
    assert!(error.message().contains("not a directory"), "{error}");
    let error = FsBlobStore::open(file.join("below")).unwrap_err();
    assert_clear(&error, ErrorKind::Io, &file);
    assert_eq!(fs::read(&file).unwrap(), b"not a directory");
}

#[test]
fn a_data_directory_that_cannot_be_written_is_named() {
    // Permissions do not stop root, so the disk says no.
    let io = [OpKind::CreateDir, OpKind::Create, OpKind::Write, OpKind::Sync].map(|kind| (kind, Fault::Io));
    // Without space there is nothing to read either in a directory that is new.
    let full = [OpKind::CreateDir, OpKind::Create].map(|kind| (kind, Fault::NoSpace));
    for (kind, fault) in io.into_iter().chain(full) {
        let expected = if fault == Fault::Io { ErrorKind::Io } else { ErrorKind::NoSpace };
        {
            let disk = SimDisk::new();
            disk.fail_from(kind, 1, fault);
            let error = FsBlobStore::open_with(disk.clone(), "/data").unwrap_err();
            assert_clear(&error, expected, Path::new("/data"));
            disk.heal();
            FsBlobStore::open_with(disk, "/data").unwrap();
        }
    }
}

#[test]
#[cfg(unix)]
fn a_read_only_directory_is_named() {
    use std::os::unix::fs::PermissionsExt;
    if rustix::process::geteuid().is_root() {
        // Permissions do not stop root; `a_data_directory_that_cannot_be_written_is_named` stands in.
        return;
    }
    let dir = temp();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let error = FsBlobStore::open(dir.path()).unwrap_err();
    assert_clear(&error, ErrorKind::Io, dir.path());
}

#[test]
fn a_second_user_of_the_data_directory_is_refused() {
    let dir = temp();
    let first = FsBlobStore::open(dir.path()).unwrap();
    let error = FsBlobStore::open(dir.path()).unwrap_err();
    assert_clear(&error, ErrorKind::Conflict, dir.path());
    assert!(error.message().starts_with("another process uses"), "{error}");
    let clone = first.clone();
    drop(first);
    assert!(FsBlobStore::open(dir.path()).is_err(), "a clone still uses it");
    drop(clone);
    FsBlobStore::open(dir.path()).unwrap();
}

#[test]
fn leftovers_of_a_killed_process_are_removed() {
    let dir = temp();
    let store = FsBlobStore::open(dir.path()).unwrap();
    let expected = BlobInfo { digest: Digest::of(b"whole"), size: 5 };
    let mut writer = block_on(store.create(&expected)).unwrap();
    block_on(writer.write(Bytes::from_static(b"who"))).unwrap();
    // A killed process runs no destructor.
    std::mem::forget(writer);
    let tmp = dir.path().join("tmp");
    assert_eq!(fs::read_dir(&tmp).unwrap().count(), 1);
    fs::write(tmp.join("other"), "x").unwrap();
    // The forgotten writer holds the store and its lock: another directory has the same content.
    let copy = temp();
    fs::create_dir(copy.path().join("tmp")).unwrap();
    fs::copy(tmp.join("other"), copy.path().join("tmp/other")).unwrap();
    let store = FsBlobStore::open(copy.path()).unwrap();
    assert_eq!(fs::read_dir(copy.path().join("tmp")).unwrap().count(), 0);
    assert_eq!(block_on(store.list().try_collect::<Vec<_>>()).unwrap(), []);
}

#[test]
fn strange_files_are_no_blobs() {
    let dir = temp();
    let store = FsBlobStore::open(dir.path()).unwrap();
    let stored = block_on(store.put(Bytes::from_static(b"blob"))).unwrap();
    let shard = blob_file(dir.path(), &stored.digest).parent().unwrap().to_owned();
    for name in ["README", ".hidden", "ABCD", &stored.digest.to_hex()[..63]] {
        fs::write(shard.join(name), "x").unwrap();
    }
    assert_eq!(block_on(store.list().try_collect::<Vec<_>>()).unwrap(), [stored]);
}

#[test]
#[cfg(unix)]
fn a_stored_blob_is_a_read_only_file() {
    use std::os::unix::fs::PermissionsExt;
    let dir = temp();
    let store = FsBlobStore::open(dir.path()).unwrap();
    let stored = block_on(store.put(Bytes::from_static(b"blob"))).unwrap();
    let mode = fs::metadata(blob_file(dir.path(), &stored.digest)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o444);
    let blob = block_on(store.open(&stored.digest, None)).unwrap().unwrap();
    assert!(matches!(blob.payload, Payload::File(_)));
}

#[test]
fn damage_behind_the_stores_back_is_seen_and_set_aside() {
    for damage in [&b"blot"[..], b"blo", b"blob and more", b""] {
        let dir = temp();
        let store = FsBlobStore::open(dir.path()).unwrap();
        let digest = block_on(store.put(Bytes::from_static(b"blob"))).unwrap().digest;
        let good = block_on(store.open(&digest, None)).unwrap().unwrap().stamp;
        let file = blob_file(dir.path(), &digest);
        fs::remove_file(&file).unwrap();
        fs::write(&file, damage).unwrap();
        let bad = block_on(store.open(&digest, None)).unwrap().unwrap().stamp;
        assert_ne!(good, bad, "the stamp tells");
        assert_eq!(block_on(store.read(&digest, 99)).unwrap_err().kind(), ErrorKind::Corrupted);
        assert_eq!(block_on(store.verify(&digest)).unwrap(), Some(false));
        let quarantine = store.as_quarantine().unwrap();
        assert!(!block_on(quarantine.quarantine(&digest, good)).unwrap(), "judged in another state");
        assert!(block_on(quarantine.quarantine(&digest, bad)).unwrap());
        assert_eq!(fs::read(dir.path().join("quarantine").join(digest.to_hex())).unwrap(), damage);
        block_on(store.put(Bytes::from_static(b"blob"))).unwrap();
        assert_eq!(block_on(store.read(&digest, 99)).unwrap().as_deref(), Some(&b"blob"[..]));
    }
}

#[test]
fn a_blob_cut_short_is_replaced_by_the_next_upload() {
    let dir = temp();
    let store = FsBlobStore::open(dir.path()).unwrap();
    let digest = block_on(store.put(Bytes::from_static(b"blob"))).unwrap().digest;
    let file = blob_file(dir.path(), &digest);
    fs::remove_file(&file).unwrap();
    fs::write(&file, "bl").unwrap();
    block_on(store.put(Bytes::from_static(b"blob"))).unwrap();
    assert_eq!(block_on(store.read(&digest, 99)).unwrap().as_deref(), Some(&b"blob"[..]));
}

#[test]
fn a_damaged_upload_starts_over() {
    let dir = temp();
    let store = FsBlobStore::open(dir.path()).unwrap();
    let expected = BlobInfo { digest: Digest::of(b"whole"), size: 5 };
    for (kept, position) in [(&b"wrong and longer"[..], 0), (b"xx", 2)] {
        fs::write(dir.path().join("partial").join(expected.digest.to_hex()), kept).unwrap();
        let mut writer = block_on(store.as_resumable().unwrap().resume(&expected)).unwrap();
        assert_eq!(writer.position(), position);
        block_on(writer.write(Bytes::from_static(&b"whole"[position as usize..]))).unwrap();
        let result = block_on(writer.commit());
        assert_eq!(result.is_ok(), position == 0);
        assert_eq!(block_on(store.as_resumable().unwrap().position(&expected)).unwrap(), 0);
    }
}

#[test]
fn a_metadata_file_that_is_none_or_damaged_is_named() {
    let dir = temp();
    let path = dir.path().join("meta.redb");
    let store = RedbStore::open(&path).unwrap();
    for round in 0..20 {
        let mut batch = Batch::new();
        for key in 0..200 {
            batch.put(format!("{key:04}"), format!("{round} {}", "x".repeat(100)));
        }
        block_on(store.commit(batch)).unwrap();
    }
    drop(store);
    let good = fs::read(&path).unwrap();

    for bytes in [&b"not a database"[..], &[0; 8192], b"x", &good[..100], &good[..5000]] {
        fs::write(&path, bytes).unwrap();
        let error = RedbStore::open(&path).unwrap_err();
        assert_clear(&error, ErrorKind::Corrupted, &path);
        assert_eq!(fs::read(&path).unwrap(), bytes, "evidence was overwritten");
    }

    // Damage anywhere: an error that names the file, or the right records; never a panic.
    let mut found = 0;
    for (number, page) in (0..good.len()).step_by(4096).enumerate() {
        let mut bytes = good.clone();
        let end = bytes.len().min(page + 4096);
        match number % 3 {
            0 => bytes[page..end].fill(0xff),
            1 => bytes[page..end].fill(0),
            _ => bytes[page..end].iter_mut().for_each(|byte| *byte ^= 0x55),
        }
        fs::write(&path, &bytes).unwrap();
        let result = RedbStore::open(&path).and_then(|store| {
            let all: Vec<_> = block_on(store.scan_prefix(b"", 1000).try_collect())?;
            block_on(store.put("new", "value"))?;
            Ok(all)
        });
        if let Err(error) = result {
            found += 1;
            assert!(error.message().contains(path.to_str().unwrap()), "page {number}: {error}");
            assert!(!error.message().contains('\n'), "page {number}: {error}");
        }
    }
    assert!(found > 0, "no damage was found");
}

#[test]
fn a_second_user_of_the_metadata_file_is_refused() {
    let dir = temp();
    let path = dir.path().join("meta.redb");
    let first = RedbStore::open(&path).unwrap();
    assert_clear(&RedbStore::open(&path).unwrap_err(), ErrorKind::Conflict, &path);
    drop(first);
    RedbStore::open(&path).unwrap();
}

#[test]
fn a_missing_directory_of_the_metadata_file_is_named() {
    let dir = temp();
    let path = dir.path().join("nowhere/meta.redb");
    assert_clear(&RedbStore::open(&path).unwrap_err(), ErrorKind::Io, &path);
}

#[test]
fn a_start_that_was_cut_leaves_nothing_in_the_way() {
    let dir = temp();
    let path = dir.path().join("meta.redb");
    fs::write(dir.path().join("meta.redb.new"), "half a database").unwrap();
    fs::write(&path, "").unwrap();
    let store = RedbStore::open(&path).unwrap();
    block_on(store.put("key", "value")).unwrap();
    assert!(!dir.path().join("meta.redb.new").exists());
}

#[test]
fn a_hundred_thousand_records_go_in_one_batch() {
    let dir = temp();
    let store = RedbOptions::new().with_cache(4 << 20).open(dir.path().join("meta.redb")).unwrap();
    let mut batch = Batch::new();
    for number in 0..100_000u64 {
        // In an order no tree likes.
        batch.put(format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15)), "value");
    }
    block_on(store.commit(batch)).unwrap();
    let mut found = 0;
    let mut pages = store.scan_pages(b"", 10_000);
    while let Some(page) = block_on(pages.try_next()).unwrap() {
        found += page.len();
    }
    assert_eq!(found, 100_000);
}
