//! The file system as the log uses it: [`Disk`], so that a simulator can stand in for it.

use std::any::Any;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

/// Held for as long as a log is open; dropping it lets others in.
pub type DiskLock = Box<dyn Any + Send + Sync>;

/// A file system with the calls whose order decides what of a log survives a crash.
///
/// # Contract
/// - Nothing is durable before [`DiskFile::sync`] for the bytes and the length of a file, and
///   [`sync_dir`](Disk::sync_dir) for the names in a directory.
/// - [`rename`](Disk::rename) replaces its target in one step, also across a crash.
/// - After a failed sync, what was to be synced is lost; a later sync that succeeds says nothing
///   about it.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Makes a directory that only its owner can look into, and those above it; their names are
    /// durable.
    fn create_dirs(&self, path: &Path) -> io::Result<()>;
    /// Makes an empty file to read and write, in place of one that is there.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file to read and write.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// The names in a directory, in no order.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Moves a file, replacing what is there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Locks the file at `path`, making it if needed, against every other user; `None` if another
    /// one has it.
    fn lock(&self, path: &Path) -> io::Result<Option<DiskLock>>;
}

/// An opened file of a [`Disk`]. Several threads may read, write and sync at the same time.
pub trait DiskFile: fmt::Debug + Send + Sync + 'static {
    /// Reads some bytes at `offset`; 0 at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Its length.
    fn length(&self) -> io::Result<u64>;
    /// Cuts it, or extends it with zeros.
    fn set_length(&self, length: u64) -> io::Result<()>;
    /// Makes the bytes and the length durable.
    fn sync(&self) -> io::Result<()>;
}

/// The operating system's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsDisk;

impl Disk for OsDisk {
    fn create_dirs(&self, path: &Path) -> io::Result<()> {
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        let missing: Vec<&Path> = path.ancestors().take_while(|above| !above.exists()).collect();
        for directory in missing.into_iter().rev().filter(|directory| !directory.as_os_str().is_empty()) {
            match builder.create(directory) {
                Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {}
                made => made?,
            }
            let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
            self.sync_dir(parent.unwrap_or(Path::new(".")))?;
        }
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        Ok(Box::new(options.open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(path);
        // A log that was carried away to be verified may be on a medium that cannot be written.
        let file = file.or_else(|cause| match cause.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => File::open(path),
            _ => Err(cause),
        });
        Ok(Box::new(file?))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            // A name that is not UTF-8 is none of the log's.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
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

    fn lock(&self, path: &Path) -> io::Result<Option<DiskLock>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(cause)) if cause.kind() == io::ErrorKind::Unsupported => {
                Ok(Some(Box::new(file)))
            }
            Err(fs::TryLockError::Error(cause)) => Err(cause),
        }
    }
}

impl DiskFile for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            #[cfg(unix)]
            let result = std::os::unix::fs::FileExt::read_at(self, buffer, offset);
            #[cfg(windows)]
            let result = std::os::windows::fs::FileExt::seek_read(self, buffer, offset);
            match result {
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        #[cfg(unix)]
        return std::os::unix::fs::FileExt::write_all_at(self, bytes, offset);
        #[cfg(windows)]
        {
            let (mut bytes, mut offset) = (bytes, offset);
            while !bytes.is_empty() {
                let written = std::os::windows::fs::FileExt::seek_write(self, bytes, offset)?;
                (bytes, offset) = (&bytes[written..], offset + written as u64);
            }
            Ok(())
        }
    }

    fn length(&self) -> io::Result<u64> {
        self.metadata().map(|metadata| metadata.len())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Reads a whole file.
pub(super) fn read(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path)?;
    let mut bytes = vec![0; usize::try_from(file.length()?).map_err(|_| io::ErrorKind::FileTooLarge)?];
    let mut at = 0;
    while at < bytes.len() {
        match file.read_at(&mut bytes[at..], at as u64)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => at += read,
        }
    }
    Ok(bytes)
}

/// Reads a whole file, if there is one.
pub(super) fn read_if_there(disk: &dyn Disk, path: &Path) -> io::Result<Option<Vec<u8>>> {
    match read(disk, path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(cause),
    }
}

/// Writes a whole file in the place of what is there: after a crash there is the old or the new one.
pub(super) fn replace(disk: &dyn Disk, directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let aside = directory.join(format!("{name}.new"));
    let file = disk.create(&aside)?;
    file.write_at(bytes, 0)?;
    file.sync()?;
    disk.rename(&aside, &directory.join(name))
}
