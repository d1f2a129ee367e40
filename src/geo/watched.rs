//! A file whose content is taken anew when it changes, and only if it is good.

use std::fs::{File, Metadata};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::SystemTime;

use crate::error::{Error, ErrorKind, Result};

/// What was read from a file, until something better can be.
#[derive(Debug)]
pub(super) struct Watched<T> {
    /// `None` if it came from elsewhere, and stays.
    path: Option<PathBuf>,
    /// Longest file, in bytes.
    limit: u64,
    current: RwLock<Option<Arc<T>>>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Whether it was read at all.
    begun: bool,
    /// How the file looked when it was read last, whether it was taken or not.
    stamp: Option<Stamp>,
    /// Why it was not taken.
    fault: Option<String>,
}

/// What changes when a file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    length: u64,
    modified: Option<SystemTime>,
    file: u64,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        #[cfg(unix)]
        let file = std::os::unix::fs::MetadataExt::ino(metadata);
        #[cfg(not(unix))]
        let file = 0;
        Stamp { length: metadata.len(), modified: metadata.modified().ok(), file }
    }
}

impl<T> Watched<T> {
    /// Watches `path`; nothing is read yet.
    pub(super) fn new(path: impl Into<PathBuf>, limit: u64) -> Watched<T> {
        Watched { path: Some(path.into()), limit, current: RwLock::default(), seen: Mutex::default() }
    }

    /// `value`, which no file stands behind.
    pub(super) fn fixed(value: T) -> Watched<T> {
        let current = RwLock::new(Some(Arc::new(value)));
        Watched { path: None, limit: 0, current, seen: Mutex::default() }
    }

    /// The file, if there is one.
    pub(super) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// What was taken last.
    pub(super) fn current(&self) -> Option<Arc<T>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Calls `use_it` with what was taken last.
    pub(super) fn with<R>(&self, use_it: impl FnOnce(&T) -> R) -> Option<R> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).as_deref().map(use_it)
    }

    /// Why the file, as it is, was not taken.
    pub(super) fn fault(&self) -> Option<String> {
        self.seen().fault.clone()
    }

    /// Reads the file if it looks otherwise than last time; `true` if it was taken.
    pub(super) fn refresh(&self, load: impl FnOnce(Vec<u8>) -> Result<T>) -> Result<bool> {
        let Some(path) = &self.path else { return Ok(false) };
        let mut seen = self.seen();
        let stamp = std::fs::metadata(path).ok().as_ref().map(Stamp::of);
        if seen.begun && seen.stamp == stamp {
            return Ok(false);
        }
        self.take(path, &mut seen, load).map(|()| true)
    }

    /// Reads the file, whether it looks otherwise or not.
    pub(super) fn reload(&self, load: impl FnOnce(Vec<u8>) -> Result<T>) -> Result<()> {
        self.path.as_ref().map_or(Ok(()), |path| self.take(path, &mut self.seen(), load))
    }

    fn take(&self, path: &Path, seen: &mut Seen, load: impl FnOnce(Vec<u8>) -> Result<T>) -> Result<()> {
        seen.begun = true;
        // A writer that is at work while the file is read leaves it with another stamp.
        let loaded = self.read(path, &mut seen.stamp).and_then(load);
        match loaded.map_err(|error| error.context(path.display())) {
            Ok(value) => {
                let value = Some(Arc::new(value));
                let old = std::mem::replace(
                    &mut *self.current.write().unwrap_or_else(PoisonError::into_inner),
                    value,
                );
                // A large one is freed when nobody waits for the lock.
                drop(old);
                seen.fault = None;
                Ok(())
            }
            Err(error) => {
                seen.fault = Some(error.to_string());
                Err(error)
            }
        }
    }

    fn read(&self, path: &Path, stamp: &mut Option<Stamp>) -> Result<Vec<u8>> {
        *stamp = None;
        // Opening a pipe would wait for its writer.
        let metadata = std::fs::metadata(path).map_err(|cause| Error::io("reading", cause))?;
        *stamp = Some(Stamp::of(&metadata));
        if !metadata.is_file() {
            return Err(Error::invalid("it is not a file"));
        }
        let file = File::open(path).map_err(|cause| Error::io("opening", cause))?;
        let mut bytes = Vec::new();
        let read = file.take(self.limit + 1).read_to_end(&mut bytes);
        let length = read.map_err(|cause| Error::io("reading", cause))?;
        if length as u64 > self.limit {
            return Err(Error::new(ErrorKind::TooLarge, format!("it has more than {} bytes", self.limit)));
        }
        Ok(bytes)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
