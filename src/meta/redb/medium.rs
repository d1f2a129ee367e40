//! The bytes below a redb database. They outlive the databases opened over them, so a database that
//! met a failed write can be dropped and another one opened over the same bytes, under the same lock.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use ::redb::{BackendError, StorageBackend};

/// At least the length of redb's header, the one part of a file that it overwrites in place. All
/// else goes to places that no durable state refers to.
const HEAD: usize = 512;
const PAGE: usize = 4096;

type Span = (Bound<u64>, Bound<u64>);

/// The bytes, and which state of them is durable.
///
/// After a failed sync readers of a file still see what was to be synced, though it may never reach
/// the disk; a database opened over it would take a lost commit for a good one. So the head is kept
/// here as the last sync that succeeded left it, and a new database begins with that one.
pub(super) struct Medium {
    backend: Box<dyn StorageBackend>,
    head: Mutex<Option<Head>>,
    locked: Mutex<Vec<Span>>,
}

#[derive(Clone)]
struct Head {
    current: Vec<u8>,
    durable: Vec<u8>,
}

impl Medium {
    pub(super) fn new(backend: Box<dyn StorageBackend>) -> Arc<Medium> {
        Arc::new(Medium { backend, head: Mutex::default(), locked: Mutex::default() })
    }

    /// Forgets what was written to the head and not synced.
    pub(super) fn roll_back(&self) {
        if let Some(head) = &mut *self.head() {
            head.current.clone_from(&head.durable);
        }
    }

    /// Whether there is nothing durable to read.
    pub(super) fn is_new(&self) -> bool {
        self.durable().is_empty()
    }

    /// The head as the last sync left it.
    pub(super) fn durable(&self) -> Vec<u8> {
        self.head().as_ref().map(|head| head.durable.clone()).unwrap_or_default()
    }

    fn head(&self) -> MutexGuard<'_, Option<Head>> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The head, as the file has it if it was not asked for before. A database asks after it has
    /// taken its locks, so no other process changes it any more.
    fn with_head<T>(&self, work: impl FnOnce(&mut Head) -> T) -> io::Result<T> {
        let mut head = self.head();
        match &mut *head {
            Some(head) => Ok(work(head)),
            none => {
                let mut found = vec![0; self.backend.len()?.min(HEAD as u64) as usize];
                self.backend.read(0, &mut found)?;
                Ok(work(none.insert(Head { current: found.clone(), durable: found })))
            }
        }
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Span>> {
        self.locked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks stay until the medium goes: between two databases nobody else gets in.
    fn lock(
        &self,
        span: Span,
        lock: impl FnOnce(&dyn StorageBackend) -> Result<bool, BackendError>,
    ) -> Result<bool, BackendError> {
        let mut locked = self.locked();
        if locked.contains(&span) {
            return Ok(true);
        }
        let done = lock(&*self.backend)?;
        if done {
            locked.push(span);
        }
        Ok(done)
    }
}

impl fmt::Debug for Medium {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Medium").field(&self.backend).finish()
    }
}

impl Drop for Medium {
    fn drop(&mut self) {
        if let Err(error) = self.backend.close() {
            tracing::debug!(%error, "closing the metadata file");
        }
    }
}

/// The medium, to read and write.
#[derive(Debug)]
pub(super) struct Direct(pub(super) Arc<Medium>);

impl StorageBackend for Direct {
    fn len(&self) -> io::Result<u64> {
        self.0.backend.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.backend.read(offset, out)?;
        if offset >= HEAD as u64 {
            return Ok(());
        }
        self.0.with_head(|head| {
            let head = head.current.get(offset as usize..).unwrap_or_default();
            let shared = head.len().min(out.len());
            out[..shared].copy_from_slice(&head[..shared]);
        })
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        // A file that is being made has no head before it grows.
        self.0.with_head(|_| ())?;
        self.0.backend.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        let synced = self.0.with_head(|head| head.current.clone())?;
        self.0.backend.sync_data()?;
        self.0.with_head(|head| head.durable = synced)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if offset < HEAD as u64 {
            self.0.with_head(|head| {
                let (from, to) = (offset as usize, (offset as usize + data.len()).min(HEAD));
                if head.current.len() < to {
                    head.current.resize(to, 0);
                }
                head.current[from..to].copy_from_slice(&data[..to - from]);
            })?;
        }
        self.0.backend.write(offset, data)
    }

    // `close` does nothing: the medium stays open and locked.

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.lock((start, end), |backend| backend.try_lock_range(start, end))
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.lock((start, end), |backend| backend.try_lock_shared_range(start, end))
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock((start, end), |backend| backend.lock_range(start, end).map(|()| true)).map(drop)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock((start, end), |backend| backend.lock_shared_range(start, end).map(|()| true)).map(drop)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        let mut locked = self.0.locked();
        self.0.backend.unlock_range(start, end)?;
        locked.retain(|span| *span != (start, end));
        Ok(())
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.backend.query_lock_range(start, end)
    }
}

/// The last durable state of the medium, to read. What recovery writes is kept in memory, so it
/// needs no space and cannot fail for want of it; the medium stays as it is.
#[derive(Debug)]
pub(super) struct Overlay {
    medium: Arc<Medium>,
    memory: RwLock<Memory>,
    retired: Arc<AtomicBool>,
}

struct Memory {
    length: u64,
    /// The medium shows through below this offset, where there is no page.
    below: u64,
    pages: BTreeMap<u64, Box<[u8; PAGE]>>,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("length", &self.length).field("pages", &self.pages.len()).finish()
    }
}

impl Overlay {
    /// Once `retired` is set every call fails, so that dropping the database over it is cheap.
    pub(super) fn new(medium: Arc<Medium>, retired: Arc<AtomicBool>) -> io::Result<Overlay> {
        let length = medium.backend.len()?;
        let head = medium.with_head(|head| head.durable.clone())?;
        let memory = Memory { length, below: length, pages: BTreeMap::new() };
        let overlay = Overlay { medium, memory: RwLock::new(memory), retired };
        overlay.write(0, &head)?;
        Ok(overlay)
    }

    fn check(&self) -> io::Result<()> {
        if self.retired.load(Ordering::Acquire) { Err(io::Error::other("retired")) } else { Ok(()) }
    }

    fn read_from(&self, memory: &Memory, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let end = offset + out.len() as u64;
        let shown = (memory.below.clamp(offset, end) - offset) as usize;
        let (through, beyond) = out.split_at_mut(shown);
        if !through.is_empty() {
            self.medium.backend.read(offset, through)?;
        }
        beyond.fill(0);
        for (number, page) in memory.pages.range(offset / PAGE as u64..end.div_ceil(PAGE as u64)) {
            let start = number * PAGE as u64;
            let (from, to) = (start.max(offset), (start + PAGE as u64).min(end));
            out[(from - offset) as usize..(to - offset) as usize]
                .copy_from_slice(&page[(from - start) as usize..(to - start) as usize]);
        }
        Ok(())
    }
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        self.check()?;
        Ok(self.memory.read().unwrap_or_else(PoisonError::into_inner).length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.check()?;
        let memory = self.memory.read().unwrap_or_else(PoisonError::into_inner);
        if offset + out.len() as u64 > memory.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_from(&memory, offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.check()?;
        let mut memory = self.memory.write().unwrap_or_else(PoisonError::into_inner);
        memory.length = length;
        memory.below = memory.below.min(length);
        memory.pages.split_off(&length.div_ceil(PAGE as u64));
        // What is cut off reads as zeros if the file grows again.
        if let Some(page) = memory.pages.get_mut(&(length / PAGE as u64)) {
            page[(length % PAGE as u64) as usize..].fill(0);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        let mut memory = self.memory.write().unwrap_or_else(PoisonError::into_inner);
        let end = offset + data.len() as u64;
        for number in offset / PAGE as u64..end.div_ceil(PAGE as u64) {
            let start = number * PAGE as u64;
            if !memory.pages.contains_key(&number) {
                let mut page = Box::new([0; PAGE]);
                self.read_from(&memory, start, &mut page[..])?;
                memory.pages.insert(number, page);
            }
            let Some(page) = memory.pages.get_mut(&number) else { continue };
            let (from, to) = (start.max(offset), (start + PAGE as u64).min(end));
            page[(from - start) as usize..(to - start) as usize]
                .copy_from_slice(&data[(from - offset) as usize..(to - offset) as usize]);
        }
        memory.length = memory.length.max(end);
        Ok(())
    }

    // The medium holds the locks.

    fn try_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn unlock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }
}
