//! A real file system that is full: a small tmpfs or ext4, where root may mount one.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use distedge::blob::{BlobInfo, BlobStore, BlobStoreExt, FsBlobStore};
use distedge::digest::Digest;
use distedge::error::{ErrorKind, Result};
use distedge::meta::{MetadataStore, MetadataStoreExt, RedbStore, Revision};
use distedge::testing::block_on;

const BLOCK: u64 = 4096;

struct Mount(tempfile::TempDir);

/// Whether the command went through; if not, a sentence says why the test is skipped.
fn run(command: &str, arguments: &[&str], place: &Path) -> bool {
    let why = match Command::new(command).args(arguments).arg(place).output() {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    eprintln!("skipped, as nothing can be mounted here: {command}: {why}");
    false
}

impl Mount {
    fn tmpfs() -> Option<Mount> {
        let dir = tempfile::tempdir().unwrap();
        run("mount", &["-t", "tmpfs", "-o", "size=6m", "tmpfs"], dir.path()).then(|| Mount(dir))
    }

    fn ext4() -> Option<Mount> {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let image = outside.path().join("image");
        File::create(&image).unwrap().set_len(16 << 20).unwrap();
        let done = run("mkfs.ext4", &["-q", "-m", "0", "-O", "^has_journal"], &image)
            && run("mount", &["-o", "loop", image.to_str().unwrap()], dir.path());
        // The loop device keeps the image.
        done.then(|| Mount(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let done = Command::new("umount").arg("-l").arg(self.path()).status();
        assert!(done.is_ok_and(|status| status.success()), "{} stays mounted", self.path().display());
    }
}

/// Takes all space but some blocks; gives it back when dropped.
struct Filler(PathBuf);

impl Filler {
    fn leaving(dir: &Path, blocks: u64) -> Filler {
        let path = dir.join("filler");
        let mut file = File::create(&path).unwrap();
        let block = [0xff; BLOCK as usize];
        let mut written = 0;
        while file.write_all(&block).is_ok() {
            written += 1;
        }
        file.set_len((written - blocks) * BLOCK).unwrap();
        Filler(path)
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        fs::remove_file(&self.0).unwrap();
    }
}

fn content(number: u64, length: usize) -> Bytes {
    format!("{number} ").bytes().cycle().take(length).collect()
}

/// What must be there, and whether it is.
struct Known {
    blob: BlobInfo,
    record: Bytes,
    revision: Revision,
}

impl Known {
    fn check(&self, blobs: &FsBlobStore, records: &RedbStore, what: &str) {
        let bytes = block_on(blobs.read(&self.blob.digest, 1 << 20)).unwrap();
        assert!(bytes.is_some_and(|bytes| Digest::of(&bytes) == self.blob.digest), "{what}");
        let entry = block_on(records.get(b"record")).unwrap_or_else(|error| panic!("{what}: {error}"));
        let entry = entry.unwrap_or_else(|| panic!("{what}: the record is gone"));
        assert_eq!((&entry.value, entry.revision), (&self.record, self.revision), "{what}");
    }

    /// Uploads and commits until the disk is full.
    fn fill_up(&mut self, blobs: &FsBlobStore, records: &RedbStore, what: &str) {
        for number in 0.. {
            assert!(number < 1000, "{what}: never full");
            match block_on(records.put("record", content(number, 40_000))) {
                Ok(revision) => {
                    assert!(revision > self.revision, "{what}");
                    (self.record, self.revision) = (content(number, 40_000), revision);
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::NoSpace, "{what}: {error}");
                    break;
                }
            }
            self.check(blobs, records, what);
            // So that each one needs more space.
            block_on(records.put(format!("more/{number}"), content(number, 40_000)))
                .map(|revision| assert!(revision > self.revision, "{what}"))
                .unwrap_or_else(|error| assert_eq!(error.kind(), ErrorKind::NoSpace, "{what}: {error}"));
        }
        for number in 0.. {
            assert!(number < 1000, "{what}: never full");
            match block_on(blobs.put(content(number, 9000))) {
                Ok(blob) => self.blob = blob,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::NoSpace, "{what}: {error}");
                    let unstored = Digest::of(&content(number, 9000));
                    assert_eq!(block_on(blobs.stat(&unstored)).unwrap(), None, "{what}");
                    break;
                }
            }
        }
        self.check(blobs, records, what);
    }
}

#[test]
fn a_full_tmpfs_serves_what_is_there_and_heals() {
    if let Some(mount) = Mount::tmpfs() {
        fill_and_heal(&mount, 0..200);
    }
}

#[test]
fn a_full_ext4_serves_what_is_there_and_heals() {
    if let Some(mount) = Mount::ext4() {
        fill_and_heal(&mount, (0..200).step_by(25));
    }
}

/// Opens what was closed just now. A process that another test starts at this moment has its lock
/// for the blink between fork and exec.
fn again<T>(what: &str, open: impl Fn() -> Result<T>) -> T {
    for _ in 0..100 {
        match open() {
            Err(error) if error.kind() == ErrorKind::Conflict => {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            opened => return opened.unwrap_or_else(|error| panic!("{what}: {error}")),
        }
    }
    open().unwrap_or_else(|error| panic!("{what}: {error}"))
}

/// Leaves so many blocks free.
fn fill_and_heal(mount: &Mount, levels: impl Iterator<Item = u64>) {
    let data = mount.path().join("data");
    for free in levels {
        let what = format!("{free} blocks left");
        let _ = fs::remove_dir_all(&data);
        fs::create_dir(&data).unwrap();
        let blobs = FsBlobStore::open(data.join("blobs")).unwrap();
        let records = RedbStore::open(data.join("meta.redb")).unwrap();
        let record = content(free, 3000);
        let revision = block_on(records.put("record", record.clone())).unwrap();
        let blob = block_on(blobs.put(content(free, 20_000))).unwrap();
        let mut known = Known { blob, record, revision };

        let filler = Filler::leaving(mount.path(), free);
        known.fill_up(&blobs, &records, &what);
        // A store whose last commit failed writes nothing at its end, as if it were killed.
        assert!(records.is_read_only(), "{what}");
        drop((blobs, records));
        let blobs = again(&what, || FsBlobStore::open(data.join("blobs")));
        let records = again(&what, || RedbStore::open(data.join("meta.redb")));
        known.check(&blobs, &records, &what);
        known.fill_up(&blobs, &records, &what);
        if free % 20 == 0 {
            // Whoever asks a full disk again and again does not make the file longer each time.
            let meta = data.join("meta.redb");
            let length = || fs::metadata(&meta).unwrap().len();
            let large = content(free, 500_000);
            let lengths: Vec<u64> = (0..6)
                .map(|_| {
                    let error = block_on(records.put("large", large.clone())).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::NoSpace, "{what}: {error}");
                    length()
                })
                .collect();
            assert_eq!(lengths[1], lengths[5], "{what}: {lengths:?}");
            known.check(&blobs, &records, &what);
        }
        drop(filler);
        assert!(block_on(records.put("record", "healed")).unwrap() > known.revision, "{what}");
        assert_eq!(block_on(records.get(b"record")).unwrap().unwrap().value, "healed", "{what}");
        assert!(!records.is_read_only(), "{what}");
        block_on(blobs.put(content(free, 30_000))).unwrap();
    }
}
