//! A blob store in a directory.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::publish::{Publisher, Upload};
use super::vfs::{Lock, OsVfs, Vfs, VfsFile};
use super::{
    Blob, BlobInfo, BlobStore, BlobWriter, BoxStream, Payload, Quarantine, Resumable, Stamp, clip, upload,
};
use crate::blocking;
use crate::digest::{Digest, Hasher};
use crate::error::{Error, ErrorKind, Result};
use crate::range::ByteRange;

/// How much of a kept upload one read takes when it is hashed again.
const CHUNK: usize = 256 * 1024;

/// Keeps blobs as files in a directory. Clones share one open store.
///
/// # Layout
/// ```text
/// lock                        held by the process that has the store open
/// blobs/sha256/<ab>/<hex>     one read-only file a blob; <ab> are the first two digits
/// tmp/<n>                     uploads under way; emptied by `open`
/// partial/<hex>               uploads that can be resumed
/// quarantine/<hex>            damaged blobs, kept for inspection
/// ```
///
/// # Durable order
/// Create in `tmp` or `partial`, write, sync the file, rename, sync the directory; only then is
/// the blob visible and [`commit`](BlobWriter::commit) returns. Uploads that commit together share
/// directory syncs. All names are synced once by `open`, so what a killed process had renamed and
/// not synced is durable before it is seen.
///
/// A failed sync loses the upload: its file is removed, kept bytes included, and the next upload
/// starts from a new file. Nothing is ever synced again in the hope that it is clean.
/// [`failed_syncs`](FsBlobStore::failed_syncs) tells that it happened.
///
/// A removal is not synced: a crash of the machine may bring a removed blob back, whole, under its
/// own digest, to be removed again.
///
/// # Blocking
/// `commit`, `remove`, `resume` and listing wait for the disk and run on tokio's blocking pool where
/// there is one. `write` goes to the page cache inline, which is cheaper than a change of thread.
pub struct FsBlobStore<V: Vfs = OsVfs>(Arc<Inner<V>>);

struct Inner<V> {
    vfs: V,
    root: PathBuf,
    blobs: PathBuf,
    next_temporary: AtomicU64,
    publisher: Publisher,
    writers: Mutex<HashSet<Digest>>,
    _lock: Lock,
}

impl FsBlobStore {
    /// Opens the store in the directory `root`, and makes it if it is not there.
    ///
    /// A store that is there needs no space to open: on a full disk its blobs can be read, uploads
    /// fail with `NoSpace`, and both go well again when there is space.
    ///
    /// # Errors
    /// One sentence that names the path: `Conflict` if another process (or another store in this one)
    /// uses it, `NoSpace` if the disk is too full to make it, `Io` if it is not a directory or cannot
    /// be written.
    pub fn open(root: impl AsRef<Path>) -> Result<FsBlobStore> {
        FsBlobStore::open_with(OsVfs, root)
    }
}

impl<V: Vfs> FsBlobStore<V> {
    /// As [`open`](FsBlobStore::open), on another file system.
    pub fn open_with(vfs: V, root: impl AsRef<Path>) -> Result<FsBlobStore<V>> {
        let root = root.as_ref().to_owned();
        make_dir_all(&vfs, &root)?;
        let lock_path = root.join("lock");
        let lock = match vfs.lock(&lock_path) {
            Ok(Some(lock)) => lock,
            Ok(None) => return Err(in_use(&root)),
            Err(cause) => return Err(not_writable(&root, cause)),
        };
        let blobs = root.join("blobs").join("sha256");
        for dir in [root.join("blobs"), blobs.clone(), root.join("tmp"), root.join("partial")] {
            make_dir(&vfs, &dir).map_err(|cause| not_writable(&root, cause))?;
        }
        make_dir(&vfs, &root.join("quarantine")).map_err(|cause| not_writable(&root, cause))?;
        let there: HashSet<_> =
            vfs.list(&blobs).map_err(|cause| doing("listing", &blobs, cause))?.into_iter().collect();
        let mut shards = Vec::new();
        for shard in 0..=u8::MAX {
            let name = crate::digest::to_hex(&[shard]);
            let dir = blobs.join(&name);
            if there.contains(OsStr::new(&name)) {
                shards.push(dir);
            } else {
                make_dir(&vfs, &dir).map_err(|cause| not_writable(&root, cause))?;
            }
        }
        vfs.sync_dirs(&shards).map_err(|cause| doing("syncing the directories in", &blobs, cause))?;
        for dir in [&blobs, &root.join("blobs"), &root] {
            sync_dir(&vfs, dir)?;
        }
        let tmp = root.join("tmp");
        for name in vfs.list(&tmp).map_err(|cause| doing("listing", &tmp, cause))? {
            let path = tmp.join(name);
            vfs.remove(&path).map_err(|cause| doing("removing", &path, cause))?;
        }
        if let Err(cause) = probe(&vfs, &tmp.join("probe")) {
            let error = not_writable(&root, cause);
            if error.kind() != ErrorKind::NoSpace {
                return Err(error);
            }
            tracing::warn!(%error, "what is stored can be read, and uploads fail until there is space");
        }
        Ok(FsBlobStore(Arc::new(Inner {
            vfs,
            root,
            blobs,
            next_temporary: AtomicU64::new(0),
            publisher: Publisher::default(),
            writers: Mutex::default(),
            _lock: lock,
        })))
    }

    /// The directory of the store.
    pub fn root(&self) -> &Path {
        &self.0.root
    }

    /// How many syncs have failed since the store was opened. Above 0 the disk is in doubt: every
    /// upload concerned has failed, and a careful operator looks at the disk before he goes on.
    pub fn failed_syncs(&self) -> u64 {
        self.0.publisher.failed_syncs()
    }
}

impl<V: Vfs> Clone for FsBlobStore<V> {
    fn clone(&self) -> FsBlobStore<V> {
        FsBlobStore(Arc::clone(&self.0))
    }
}

impl<V: Vfs> fmt::Debug for FsBlobStore<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FsBlobStore").field("root", &self.0.root).finish_non_exhaustive()
    }
}

#[async_trait]
impl<V: Vfs> BlobStore for FsBlobStore<V> {
    async fn stat(&self, digest: &Digest) -> Result<Option<BlobInfo>> {
        self.0.stat(digest)
    }

    async fn open(&self, digest: &Digest, range: Option<ByteRange>) -> Result<Option<Blob>> {
        let path = self.0.blob_path(digest);
        let file = match self.0.vfs.open(&path) {
            Ok(file) => file,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(doing("opening", &path, cause)),
        };
        if self.0.publisher.is_hidden(digest) {
            return Ok(None);
        }
        let stat = file.stat().map_err(|cause| doing("examining", &path, cause))?;
        let range = clip(stat.size, range)?;
        let payload = match range {
            Some(range) => file.into_payload(range).map_err(|cause| doing("reading", &path, cause))?,
            None => Payload::Bytes(Bytes::new()),
        };
        let info = BlobInfo { digest: *digest, size: stat.size };
        Ok(Some(Blob { info, range, payload, stamp: Some(stat.stamp) }))
    }

    async fn create(&self, expected: &BlobInfo) -> Result<Box<dyn BlobWriter>> {
        let number = self.0.next_temporary.fetch_add(1, Ordering::Relaxed);
        let path = self.0.root.join("tmp").join(number.to_string());
        let file = self.0.vfs.create(&path).map_err(|cause| doing("creating", &path, cause))?;
        Ok(Box::new(FsWriter {
            store: Arc::clone(&self.0),
            expected: *expected,
            file: Some(file),
            path,
            hasher: Hasher::new(),
            fate: Fate::Remove,
            failed: false,
            turn: None,
        }))
    }

    async fn remove(&self, digest: &Digest) -> Result<bool> {
        let (inner, digest) = (Arc::clone(&self.0), *digest);
        // Who stops waiting takes the removal back, unless it has been done. Left waiting for the
        // blocking pool it could come at any time later, and take a blob that was stored since.
        let wanted = Wanted(Arc::new(AtomicBool::new(true)));
        let still_wanted = Arc::clone(&wanted.0);
        let removed = blocking::run(move || {
            inner.publisher.exclusively(|| match still_wanted.load(Ordering::Acquire) {
                true => inner.remove(&digest),
                false => Ok(false),
            })
        });
        removed.await
    }

    fn list(&self) -> BoxStream<Result<BlobInfo>> {
        let inner = Arc::clone(&self.0);
        let shards = stream::iter(0..=u8::MAX).then(move |shard| {
            let inner = Arc::clone(&inner);
            blocking::run(move || inner.list_shard(shard))
        });
        Box::pin(shards.map_ok(|infos| stream::iter(infos.into_iter().map(Ok))).try_flatten())
    }

    fn as_resumable(&self) -> Option<&dyn Resumable> {
        Some(self)
    }

    fn as_quarantine(&self) -> Option<&dyn Quarantine> {
        Some(self)
    }
}

#[async_trait]
impl<V: Vfs> Resumable for FsBlobStore<V> {
    async fn position(&self, expected: &BlobInfo) -> Result<u64> {
        let path = self.0.partial_path(&expected.digest);
        match self.0.vfs.stat(&path) {
            Ok(stat) => Ok(stat.size),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(cause) => Err(doing("examining", &path, cause)),
        }
    }

    async fn resume(&self, expected: &BlobInfo) -> Result<Box<dyn BlobWriter>> {
        if !self.0.writers().insert(expected.digest) {
            return Err(upload::busy(expected));
        }
        let turn = Turn { store: Arc::clone(&self.0), digest: expected.digest };
        let (inner, expected) = (Arc::clone(&self.0), *expected);
        blocking::run(move || {
            let path = inner.partial_path(&expected.digest);
            // More than the whole cannot be the beginning of it.
            if inner.vfs.stat(&path).is_ok_and(|stat| stat.size > expected.size) {
                inner.vfs.remove(&path).map_err(|cause| doing("removing", &path, cause))?;
            }
            let file = inner.vfs.append(&path).map_err(|cause| doing("opening", &path, cause))?;
            let hasher = hash_again(&file).map_err(|cause| doing("reading", &path, cause))?;
            Ok(Box::new(FsWriter {
                store: inner,
                expected,
                file: Some(file),
                path,
                hasher,
                fate: Fate::Keep,
                failed: false,
                turn: Some(turn),
            }) as Box<dyn BlobWriter>)
        })
        .await
    }

    async fn discard(&self, keep: &(dyn for<'a> Fn(&'a Digest) -> bool + Sync)) -> Result<u64> {
        let dir = self.0.root.join("partial");
        let mut freed = 0;
        for name in self.0.vfs.list(&dir).map_err(|cause| doing("listing", &dir, cause))? {
            let Some(digest) = name.to_str().and_then(|name| Digest::from_hex(name).ok()) else { continue };
            // Held over the removal, so that no writer starts on a file that goes away.
            let writers = self.0.writers();
            if writers.contains(&digest) || keep(&digest) {
                continue;
            }
            let path = dir.join(name);
            let size = self.0.vfs.stat(&path).map_or(0, |stat| stat.size);
            match self.0.vfs.remove(&path) {
                Ok(()) => freed += size,
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
                Err(cause) => return Err(doing("removing", &path, cause)),
            }
        }
        Ok(freed)
    }
}

#[async_trait]
impl<V: Vfs> Quarantine for FsBlobStore<V> {
    async fn quarantine(&self, digest: &Digest, stamp: Option<Stamp>) -> Result<bool> {
        let (inner, digest) = (Arc::clone(&self.0), *digest);
        blocking::run(move || inner.publisher.exclusively(|| inner.quarantine(&digest, stamp))).await
    }
}

impl<V: Vfs> Inner<V> {
    fn shard_path(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(crate::digest::to_hex(&digest.as_bytes()[..1]))
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.shard_path(digest).join(digest.to_hex())
    }

    fn partial_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("partial").join(digest.to_hex())
    }

    fn stat(&self, digest: &Digest) -> Result<Option<BlobInfo>> {
        let path = self.blob_path(digest);
        match self.vfs.stat(&path) {
            Ok(_) if self.publisher.is_hidden(digest) => Ok(None),
            Ok(stat) => Ok(Some(BlobInfo { digest: *digest, size: stat.size })),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(doing("examining", &path, cause)),
        }
    }

    fn remove(&self, digest: &Digest) -> Result<bool> {
        let path = self.blob_path(digest);
        match self.vfs.remove(&path) {
            Ok(()) => Ok(!self.publisher.is_hidden(digest)),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(cause) => Err(doing("removing", &path, cause)),
        }
    }

    fn quarantine(&self, digest: &Digest, stamp: Option<Stamp>) -> Result<bool> {
        let path = self.blob_path(digest);
        let stat = match self.vfs.stat(&path) {
            Ok(stat) => stat,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(cause) => return Err(doing("examining", &path, cause)),
        };
        if self.publisher.is_hidden(digest) || stamp.is_some_and(|stamp| stamp != stat.stamp) {
            return Ok(false);
        }
        let dir = self.root.join("quarantine");
        let aside = dir.join(digest.to_hex());
        self.vfs.rename(&path, &aside).map_err(|cause| {
            Error::io(format_args!("moving {} to {}", path.display(), aside.display()), cause)
        })?;
        // If this fails the blob may come back with a crash, and is then found damaged again.
        sync_dir(&self.vfs, &dir)?;
        sync_dir(&self.vfs, &self.shard_path(digest))?;
        Ok(true)
    }

    fn list_shard(&self, shard: u8) -> Result<Vec<BlobInfo>> {
        let dir = self.blobs.join(crate::digest::to_hex(&[shard]));
        let names = self.vfs.list(&dir).map_err(|cause| doing("listing", &dir, cause))?;
        let mut infos = Vec::with_capacity(names.len());
        for name in names {
            let Some(digest) = name.to_str().and_then(|name| Digest::from_hex(name).ok()) else { continue };
            infos.extend(self.stat(&digest)?);
        }
        Ok(infos)
    }

    fn writers(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.writers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to be the one resumable upload of a digest.
struct Turn<V: Vfs> {
    store: Arc<Inner<V>>,
    digest: Digest,
}

impl<V: Vfs> Drop for Turn<V> {
    fn drop(&mut self) {
        self.store.writers().remove(&self.digest);
    }
}

/// What becomes of the file when the writer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Remove,
    Keep,
    /// It has been renamed or removed already.
    Gone,
}

struct FsWriter<V: Vfs> {
    store: Arc<Inner<V>>,
    expected: BlobInfo,
    file: Option<V::File>,
    path: PathBuf,
    hasher: Hasher,
    fate: Fate,
    failed: bool,
    // Declared last: the next writer starts when the file's fate is done.
    turn: Option<Turn<V>>,
}

impl<V: Vfs> fmt::Debug for FsWriter<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FsWriter")
            .field("expected", &self.expected)
            .field("position", &self.hasher.len())
            .field("path", &self.path)
            .field("resumable", &self.turn.is_some())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl<V: Vfs> BlobWriter for FsWriter<V> {
    fn position(&self) -> u64 {
        self.hasher.len()
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let Some(file) = self.file.as_mut().filter(|_| !self.failed) else {
            return Err(upload::broken(&self.expected));
        };
        if let Err(error) = upload::check_fits(&self.expected, self.hasher.len(), bytes.len()) {
            self.failed = true;
            self.fate = Fate::Remove;
            return Err(error);
        }
        if let Err(cause) = file.write_all(&bytes) {
            // What reached a kept file is hashed again before the upload goes on.
            self.failed = true;
            return Err(doing("writing", &self.path, cause));
        }
        self.hasher.update(&bytes);
        Ok(())
    }

    async fn commit(mut self: Box<Self>) -> Result<BlobInfo> {
        if self.failed {
            return Err(upload::broken(&self.expected));
        }
        if let Err(error) = upload::check_whole(&self.expected, std::mem::take(&mut self.hasher)) {
            self.fate = Fate::Remove;
            return Err(error);
        }
        blocking::run(move || self.finish()).await
    }
}

impl<V: Vfs> FsWriter<V> {
    fn finish(mut self) -> Result<BlobInfo> {
        let store = Arc::clone(&self.store);
        let Some(file) = self.file.take() else { return Err(upload::broken(&self.expected)) };
        if let Err(cause) = file.sync() {
            self.fate = Fate::Remove;
            store.publisher.count_failed_sync();
            return Err(doing("syncing", &self.path, cause));
        }
        // Protects from slips, not from enemies: a file system without permissions is no error.
        if let Err(error) = file.make_read_only() {
            tracing::debug!(path = %self.path.display(), %error, "a blob stays writable");
        }
        drop(file);
        let upload = Upload {
            info: self.expected,
            from: self.path.clone(),
            to: store.blob_path(&self.expected.digest),
            dir: store.shard_path(&self.expected.digest),
        };
        store.publisher.publish(&store.vfs, upload)?;
        self.fate = Fate::Gone;
        Ok(self.expected)
    }
}

impl<V: Vfs> Drop for FsWriter<V> {
    fn drop(&mut self) {
        drop(self.file.take());
        if self.fate == Fate::Remove {
            match self.store.vfs.remove(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %self.path.display(), %error, "a broken upload stays behind");
                }
                _ => {}
            }
        }
    }
}

/// Says, when it is dropped, that nobody waits any more.
struct Wanted(Arc<AtomicBool>);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

fn hash_again(file: &impl VfsFile) -> io::Result<Hasher> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        match file.read_at(&mut buffer, hasher.len())? {
            0 => return Ok(hasher),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// Makes `path` and what is missing above it, durably.
fn make_dir_all(vfs: &impl Vfs, path: &Path) -> Result<()> {
    match vfs.stat(path) {
        Ok(stat) if stat.is_dir => return Ok(()),
        Ok(_) => return Err(not_a_directory(path)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
        Err(cause) if cause.kind() == io::ErrorKind::NotADirectory => return Err(not_a_directory(path)),
        Err(cause) => return Err(doing("examining the data directory", path, cause)),
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        make_dir_all(vfs, parent)?;
    }
    make_dir(vfs, path).map_err(|cause| doing("creating the data directory", path, cause))?;
    sync_dir(vfs, parent.unwrap_or(Path::new(".")))
}

/// Makes one directory; `false` if it was there.
fn make_dir(vfs: &impl Vfs, path: &Path) -> io::Result<bool> {
    match vfs.create_dir(path) {
        Ok(()) => Ok(true),
        // A full disk may refuse before it finds that there is nothing to do.
        Err(cause) => match vfs.stat(path) {
            Ok(stat) if stat.is_dir => Ok(false),
            _ => Err(cause),
        },
    }
}

fn sync_dir(vfs: &impl Vfs, path: &Path) -> Result<()> {
    vfs.sync_dir(path).map_err(|cause| doing("syncing directory", path, cause))
}

/// Writes and removes a small file.
fn probe(vfs: &impl Vfs, path: &Path) -> io::Result<()> {
    let mut file = vfs.create(path)?;
    let written = file.write_all(b"distedge").and_then(|()| file.sync());
    let removed = vfs.remove(path);
    written.and(removed)
}

#[cold]
fn doing(what: &str, path: &Path, cause: io::Error) -> Error {
    Error::io(format_args!("{what} {}", path.display()), cause)
}

#[cold]
fn not_writable(root: &Path, cause: io::Error) -> Error {
    Error::io(format_args!("the data directory {} cannot be written", root.display()), cause)
}

#[cold]
fn not_a_directory(path: &Path) -> Error {
    Error::new(ErrorKind::Io, format!("the data directory {} is not a directory", path.display()))
}

#[cold]
fn in_use(root: &Path) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!("another process uses the data directory {}: stop it first", root.display()),
    )
}
