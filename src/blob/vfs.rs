//! The file system as [`FsBlobStore`](super::FsBlobStore) uses it.
//!
//! The seam exists so that a simulator can stand in for the disk and drop, tear or fail what was
//! not synced. It is synchronous and has exactly the calls whose order decides what survives a
//! crash. [`OsVfs`] is the real one.

use std::any::Any;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Payload, Stamp};
use crate::range::ByteRange;

/// What is known of a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStat {
    /// Its length in bytes.
    pub size: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// The state of its bytes.
    pub stamp: Stamp,
}

/// Held for as long as a directory is in use; dropping it lets others in.
pub type Lock = Box<dyn Any + Send + Sync>;

/// A file system.
///
/// # Contract
/// - Nothing is durable before [`VfsFile::sync`] for the bytes of a file, and
///   [`sync_dir`](Vfs::sync_dir) for the names in a directory.
/// - [`rename`](Vfs::rename) replaces its target in one step, also across a crash.
/// - After a failed sync, what was to be synced is lost; a later sync that succeeds says nothing
///   about it.
pub trait Vfs: fmt::Debug + Send + Sync + 'static {
    /// An opened file.
    type File: VfsFile;

    /// Makes one directory, whose parent exists. `AlreadyExists` if there is something.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes a file to read and append to. `AlreadyExists` if there is something.
    fn create(&self, path: &Path) -> io::Result<Self::File>;
    /// Opens a file to read and append to, and makes it if it is not there.
    fn append(&self, path: &Path) -> io::Result<Self::File>;
    /// Opens a file to read.
    fn open(&self, path: &Path) -> io::Result<Self::File>;
    /// What is known of a path.
    fn stat(&self, path: &Path) -> io::Result<FileStat>;
    /// The names in a directory, in no order.
    fn list(&self, path: &Path) -> io::Result<Vec<OsString>>;
    /// Moves a file, replacing what is there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// As [`sync_dir`](Vfs::sync_dir) for each of many; the order is free.
    fn sync_dirs(&self, paths: &[PathBuf]) -> io::Result<()> {
        paths.iter().try_for_each(|path| self.sync_dir(path))
    }
    /// Locks the file at `path`, making it if needed, against every other user; `None` if another
    /// one has it.
    fn lock(&self, path: &Path) -> io::Result<Option<Lock>>;
}

/// An opened file of a [`Vfs`].
pub trait VfsFile: fmt::Debug + Send + Sync + 'static {
    /// Writes at the end.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Reads some bytes at `offset`; 0 at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Makes the bytes and the length durable.
    fn sync(&self) -> io::Result<()>;
    /// Takes away the permission to write, where there is such a thing.
    fn make_read_only(&self) -> io::Result<()>;
    /// What is known of the file.
    fn stat(&self) -> io::Result<FileStat>;
    /// The bytes of `range`, which lies inside the file, in the cheapest form.
    fn into_payload(self, range: ByteRange) -> io::Result<Payload>;
}

/// The operating system's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsVfs;

impl Vfs for OsVfs {
    type File = File;

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).append(true).create_new(true).open(path)
    }

    fn append(&self, path: &Path) -> io::Result<File> {
        let open = || OpenOptions::new().read(true).append(true).create(true).open(path);
        match open() {
            // A crash between `make_read_only` and the rename leaves such a file behind.
            Err(cause) if cause.kind() == io::ErrorKind::PermissionDenied && make_writable(path).is_ok() => {
                open()
            }
            result => result,
        }
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        File::open(path)
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        fs::metadata(path).map(|metadata| file_stat(&metadata))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.file_name())).collect()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        // Elsewhere a directory cannot be opened as a file, and names are durable with the rename.
        if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
    }

    fn sync_dirs(&self, paths: &[PathBuf]) -> io::Result<()> {
        // Each sync waits for the disk to flush. Those that wait together share a flush: 256 take a
        // tenth of the time, which is most of what an edge needs to start.
        const TOGETHER: usize = 8;
        std::thread::scope(|scope| {
            let sync = |part: &[PathBuf]| part.iter().try_for_each(|path| self.sync_dir(path));
            let part = paths.len().div_ceil(TOGETHER).max(1);
            let others: Vec<_> = paths
                .chunks(part)
                .map(|part| (part, std::thread::Builder::new().spawn_scoped(scope, move || sync(part))))
                .collect();
            others.into_iter().try_for_each(|(part, thread)| match thread {
                Ok(thread) => thread.join().unwrap_or_else(|_| Err(io::Error::other("a sync panicked"))),
                // No thread is to be had: it is done here.
                Err(_) => sync(part),
            })
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(cause)) if cause.kind() == io::ErrorKind::Unsupported => {
                tracing::warn!(
                    path = %path.display(),
                    "this file system has no file locks: nothing stops a second process here"
                );
                Ok(Some(Box::new(file)))
            }
            Err(fs::TryLockError::Error(cause)) => Err(cause),
        }
    }
}

impl VfsFile for File {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        Write::write_all(self, bytes)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        read_at(self, buffer, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn make_read_only(&self) -> io::Result<()> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            self.set_permissions(fs::Permissions::from_mode(0o444))
        }
        // Elsewhere a read-only file could not be removed either.
        #[cfg(not(unix))]
        Ok(())
    }

    fn stat(&self) -> io::Result<FileStat> {
        self.metadata().map(|metadata| file_stat(&metadata))
    }

    fn into_payload(self, _: ByteRange) -> io::Result<Payload> {
        Ok(Payload::File(Arc::new(self)))
    }
}

/// Reads some bytes of `file` at `offset`, whatever its cursor.
pub(crate) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        #[cfg(unix)]
        let result = std::os::unix::fs::FileExt::read_at(file, buffer, offset);
        #[cfg(windows)]
        let result = std::os::windows::fs::FileExt::seek_read(file, buffer, offset);
        match result {
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn make_writable(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o644))
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

fn file_stat(metadata: &fs::Metadata) -> FileStat {
    #[cfg(unix)]
    let stamp = {
        use std::os::unix::fs::MetadataExt;
        // Nanoseconds since the epoch fit until the year 2262; what matters is that they differ.
        let moment = |seconds: i64, nanos: i64| {
            seconds.wrapping_mul(1_000_000_000).wrapping_add(nanos).cast_unsigned()
        };
        Stamp([
            metadata.dev(),
            metadata.ino(),
            metadata.len(),
            moment(metadata.mtime(), metadata.mtime_nsec()),
            moment(metadata.ctime(), metadata.ctime_nsec()),
        ])
    };
    #[cfg(not(unix))]
    let stamp = {
        let nanos = |time: io::Result<std::time::SystemTime>| {
            let since = time.ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
            since.map_or(0, |since| since.as_nanos() as u64)
        };
        Stamp([0, 0, metadata.len(), nanos(metadata.modified()), nanos(metadata.created())])
    };
    FileStat { size: metadata.len(), is_dir: metadata.is_dir(), stamp }
}
