//! A file under redb that remembers what failed: [`Watched`].

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ::redb::backends::FileBackend;
use ::redb::{BackendError, DatabaseError, StorageBackend};

/// What has failed since the file was opened.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    any: AtomicBool,
    sync: AtomicBool,
}

impl Trouble {
    /// Something failed, and opening the file anew puts it right: every sync that was asked for
    /// succeeded, so what the file shows is what the disk has or will get.
    pub(super) fn passes(&self) -> bool {
        self.any.load(Ordering::Acquire) && !self.lasts()
    }

    /// A sync failed. The kernel may show bytes that never reached the disk and call them clean, so
    /// nothing can be built on them in this process.
    pub(super) fn lasts(&self) -> bool {
        self.sync.load(Ordering::Acquire)
    }

    /// The file is opened anew.
    pub(super) fn forget(&self) {
        self.any.store(false, Ordering::Release);
    }

    fn note<T, E>(&self, result: Result<T, E>) -> Result<T, E> {
        if result.is_err() {
            self.any.store(true, Ordering::Release);
        }
        result
    }
}

/// redb's own file backend, watched.
#[derive(Debug)]
pub(super) struct Watched {
    file: FileBackend,
    trouble: Arc<Trouble>,
}

impl Watched {
    /// Opens a file that is there.
    pub(super) fn open(path: &Path, trouble: Arc<Trouble>) -> Result<Watched, DatabaseError> {
        let file: File = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Watched { file: FileBackend::new(file)?, trouble })
    }
}

impl StorageBackend for Watched {
    fn len(&self) -> io::Result<u64> {
        self.trouble.note(self.file.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.trouble.note(self.file.read(offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.trouble.note(self.file.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        let synced = self.file.sync_data();
        if synced.is_err() {
            self.trouble.sync.store(true, Ordering::Release);
        }
        self.trouble.note(synced)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.trouble.note(self.file.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}
