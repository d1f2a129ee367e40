//! A metadata store in one file, through redb.

mod failure;
mod medium;

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use ::redb::backends::FileBackend;
use ::redb::{
    Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition,
    WriteTransaction,
};
use async_trait::async_trait;
use bytes::Bytes;

use self::failure::{Failure, corrupted, guarded, io_failed, opening_failed};
use self::medium::{Direct, Medium, Overlay};
use super::{Batch, Entry, Expectation, MetadataStore, Revision, unmet};
use crate::blocking;
use crate::error::{Error, ErrorKind, Result};

/// Key to revision (8 bytes, big-endian) and value; with the highest bit of the revision set, to the
/// length of the value (8 bytes, big-endian), which lies in [`PARTS`].
const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");
/// Long values, by key and number of the part.
///
/// redb reads a whole leaf at a time. A value of 30 MiB among the records would be read again for
/// every small neighbour that is looked for.
const PARTS: TableDefinition<'_, (&[u8], u32), &[u8]> = TableDefinition::new("parts");
/// A value with more bytes is a long one.
const LONG: usize = 16 * 1024;
/// Bytes of a part: with its key it fits into a page of 64 KiB.
const PART: usize = 56 * 1024;
const IS_LONG: u64 = 1 << 63;
/// Counters of the store itself.
const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");
const LAST_REVISION: &str = "revision";
const HEAD: usize = 8;

/// How a [`RedbStore`] is opened.
#[derive(Clone, Copy, Debug)]
pub struct RedbOptions {
    cache: usize,
    quick_recovery: bool,
}

impl Default for RedbOptions {
    fn default() -> RedbOptions {
        RedbOptions { cache: 16 * 1024 * 1024, quick_recovery: true }
    }
}

impl RedbOptions {
    /// The defaults: a cache of 16 MiB and quick recovery.
    pub fn new() -> RedbOptions {
        RedbOptions::default()
    }

    /// At most this many bytes of cache.
    #[must_use]
    pub fn with_cache(mut self, bytes: usize) -> RedbOptions {
        self.cache = bytes;
        self
    }

    /// Whether a start after a crash is immediate, at the price of one more sync a commit; without
    /// it such a start reads the whole file.
    #[must_use]
    pub fn with_quick_recovery(mut self, quick: bool) -> RedbOptions {
        self.quick_recovery = quick;
        self
    }

    /// Opens the store in the file `path`, and makes it if it is not there. Its directory must exist.
    ///
    /// On a full disk a file that is there opens too, to read: see [`RedbStore`].
    ///
    /// # Errors
    /// One sentence that names the file: `Conflict` if another process uses it, `Corrupted` if it is
    /// damaged or no database, `NoSpace`, `Io`.
    pub fn open(self, path: impl AsRef<Path>) -> Result<RedbStore> {
        let path = path.as_ref();
        if fs::metadata(path).map_or(true, |found| found.len() == 0) {
            self.make(path)?;
        }
        self.open_file(path, OpenOptions::new().read(true).write(true))
    }

    /// Opens the store over `backend`, and makes it if the backend is empty; `name` is what errors
    /// call it.
    pub fn open_backend(self, name: impl Into<String>, backend: impl StorageBackend) -> Result<RedbStore> {
        let store = self.open_medium(name.into(), Box::new(backend))?;
        store.0.prepare()?;
        Ok(store)
    }

    /// Makes the file under another name and then renames it: redb cannot open what a crash leaves
    /// of a file that was being made.
    fn make(self, path: &Path) -> Result<()> {
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        let new = PathBuf::from(new);
        let doing =
            |what: &str, path: &Path, cause| Error::io(format_args!("{what} {}", path.display()), cause);
        match fs::remove_file(&new) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                return Err(doing("removing", &new, cause));
            }
            _ => {}
        }
        let store = self.open_file(&new, OpenOptions::new().read(true).write(true).create_new(true))?;
        store.0.prepare()?;
        drop(store);
        fs::rename(&new, path).map_err(|cause| doing("creating the metadata file", path, cause))?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        if cfg!(unix) {
            File::open(parent)
                .and_then(|dir| dir.sync_all())
                .map_err(|cause| doing("syncing directory", parent, cause))?;
        }
        Ok(())
    }

    fn open_file(self, path: &Path, how: &OpenOptions) -> Result<RedbStore> {
        let name = path.display().to_string();
        let file = how.open(path).map_err(|cause| io_failed(&name, "opening", cause))?;
        let backend = FileBackend::new(file).map_err(|cause| opening_failed(&name, cause))?;
        self.open_medium(name, Box::new(backend))
    }

    fn open_medium(self, name: String, backend: Box<dyn StorageBackend>) -> Result<RedbStore> {
        let medium = Medium::new(backend);
        let open = match self.open_to_write(&name, &medium) {
            Ok(open) => open,
            Err(error) if error.kind() == ErrorKind::NoSpace && !medium.is_new() => {
                let Ok(open) = self.open_to_read(&name, &medium) else { return Err(error) };
                tracing::warn!(%error, "the metadata store opens to read only");
                open
            }
            Err(error) => return Err(error),
        };
        let (open, reopening) = (RwLock::new(open), Mutex::new(()));
        Ok(RedbStore(Arc::new(Inner { name, options: self, medium, open, reopening })))
    }

    fn open_to_write(self, name: &str, medium: &Arc<Medium>) -> Result<Open> {
        medium.roll_back();
        let database = self.open_database(name, Direct(Arc::clone(medium)))?;
        Ok(Open { database, writable: true, broken: AtomicBool::new(false), retired: Arc::default() })
    }

    fn open_to_read(self, name: &str, medium: &Arc<Medium>) -> Result<Open> {
        let retired = Arc::new(AtomicBool::new(false));
        let overlay = Overlay::new(Arc::clone(medium), Arc::clone(&retired));
        let database =
            self.open_database(name, overlay.map_err(|cause| io_failed(name, "opening", cause))?)?;
        Ok(Open { database, writable: false, broken: AtomicBool::new(false), retired })
    }

    fn open_database(self, name: &str, backend: impl StorageBackend) -> Result<Database> {
        guarded(name, || {
            let mut builder = Database::builder();
            builder.set_cache_size(self.cache);
            Ok(builder.create_with_backend(backend).map_err(|cause| opening_failed(name, cause))?)
        })
        .map_err(|failure| failure.into_error(name, "opening"))
    }
}

/// Keeps records in one file, by [redb](https://docs.rs/redb). Clones share one open store.
///
/// Every commit is synced before it returns. Commits run on tokio's blocking pool where there is one;
/// reads run inline.
///
/// # When the disk fails
/// A commit whose write or sync fails returns the error: [`NoSpace`](ErrorKind::NoSpace) on a full
/// disk. It is lost, and is never tried again. From then on the store
/// [reads only](RedbStore::is_read_only): `get` and `scan` answer the last state that was synced,
/// for which nothing is written, so they go on while the disk is full. The next commit opens the file
/// anew to write, from that same state; if this fails it returns why, and the one after it tries again.
/// A start on a full disk begins at the same place: reads answer, and commits say `NoSpace` until there
/// is space.
///
/// If the process ends before another commit went through, the next start may find the lost commit
/// after all: whole, never in part.
///
/// Without [quick recovery](RedbOptions::with_quick_recovery) each of these openings reads the whole
/// file.
#[derive(Clone)]
pub struct RedbStore(Arc<Inner>);

struct Inner {
    name: String,
    options: RedbOptions,
    medium: Arc<Medium>,
    open: RwLock<Open>,
    /// Held by the one who opens a database over the medium.
    reopening: Mutex<()>,
}

struct Open {
    database: Database,
    writable: bool,
    /// redb refuses everything after an I/O error.
    broken: AtomicBool,
    retired: Arc<AtomicBool>,
}

impl Open {
    fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// Runs `work`, and notes whether it leaves the database broken.
    fn attempt<T>(
        &self,
        name: &str,
        work: impl FnOnce(&Database) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let result = guarded(name, || work(&self.database));
        if result.as_ref().is_err_and(Failure::breaks) {
            self.broken.store(true, Ordering::Release);
        }
        result
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // What a database that only reads would write at its end is for nobody.
        self.retired.store(true, Ordering::Release);
    }
}

impl RedbStore {
    /// Opens the store in the file `path` with the default options: see [`RedbOptions::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<RedbStore> {
        RedbOptions::new().open(path)
    }

    /// Opens the store over a backend with the default options: see [`RedbOptions::open_backend`].
    pub fn with_backend(backend: impl StorageBackend) -> Result<RedbStore> {
        RedbOptions::new().open_backend("metadata", backend)
    }

    /// Whether a failed write, or a start on a full disk, has left the store to read only. The next
    /// commit tries to end this.
    pub fn is_read_only(&self) -> bool {
        let open = self.0.open();
        !open.writable || open.is_broken()
    }
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbStore").field("name", &self.0.name).finish_non_exhaustive()
    }
}

#[async_trait]
impl MetadataStore for RedbStore {
    async fn get(&self, key: &[u8]) -> Result<Option<Entry>> {
        self.0.read(|database| self.0.get(database, key))
    }

    async fn scan(&self, keys: Range<&[u8]>, limit: usize) -> Result<Vec<Entry>> {
        if keys.start >= keys.end {
            return Ok(Vec::new());
        }
        self.0.read(|database| self.0.scan(database, keys.clone(), limit))
    }

    async fn commit(&self, batch: Batch) -> Result<Revision> {
        batch.check()?;
        let inner = Arc::clone(&self.0);
        blocking::run(move || inner.write(|transaction| inner.apply(transaction, batch))).await
    }
}

impl Inner {
    fn open(&self) -> RwLockReadGuard<'_, Open> {
        self.open.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, doing: &str, failure: Failure) -> Error {
        failure.into_error(&self.name, doing)
    }

    /// Reads, if need be from the last durable state of a store whose disk has failed.
    fn read<T>(&self, work: impl Fn(&Database) -> Result<T, Failure>) -> Result<T> {
        {
            let open = self.open();
            if !open.is_broken() {
                match open.attempt(&self.name, &work) {
                    Err(failure) if failure.is_of_an_earlier_error() => {}
                    result => return result.map_err(|failure| self.failed("reading", failure)),
                }
            }
        }
        self.retreat()?;
        self.open().attempt(&self.name, work).map_err(|failure| self.failed("reading", failure))
    }

    /// Runs one transaction to its end.
    fn write(
        &self,
        apply: impl FnOnce(&mut WriteTransaction) -> Result<Revision, Failure>,
    ) -> Result<Revision> {
        let result = loop {
            let open = self.open();
            if !open.writable || open.is_broken() {
                drop(open);
                self.advance()?;
                continue;
            }
            // While it waits for its turn another commit may fail, which is not the fault of this one.
            match open.attempt(&self.name, |database| Ok(database.begin_write()?)) {
                Err(failure) if failure.is_of_an_earlier_error() => {}
                Err(failure) => break Err(failure),
                Ok(transaction) => break self.write_in(&open, transaction, apply),
            }
        };
        if result.as_ref().is_err_and(Failure::breaks) || self.open().is_broken() {
            // So that no reader has to.
            if let Err(error) = self.retreat() {
                tracing::warn!(%error, "the metadata store cannot be read");
            }
        }
        result.map_err(|failure| self.failed("writing", failure))
    }

    fn write_in(
        &self,
        open: &Open,
        mut transaction: WriteTransaction,
        apply: impl FnOnce(&mut WriteTransaction) -> Result<Revision, Failure>,
    ) -> Result<Revision, Failure> {
        let before = self.medium.durable();
        let mut made = None;
        let result = open.attempt(&self.name, |_| {
            let revision = apply(&mut transaction)?;
            made = Some(revision);
            transaction.commit()?;
            Ok(revision)
        });
        match (&result, made) {
            // redb tidies up after the last sync of a commit, and may fail then. `open` keeps other
            // commits out, so who finds this revision finds this commit.
            (Err(failure), Some(revision))
                if failure.breaks()
                    && self.medium.durable() != before
                    && self.durable_revision() == Some(revision) =>
            {
                Ok(revision)
            }
            _ => result,
        }
    }

    fn durable_revision(&self) -> Option<Revision> {
        let open = self.options.open_to_read(&self.name, &self.medium).ok()?;
        let last = open.attempt(&self.name, |database| {
            let last = database.begin_read()?.open_table(COUNTERS)?.get(LAST_REVISION)?;
            Ok(last.map(|last| Revision(last.value())))
        });
        last.ok().flatten()
    }

    /// Opens a broken store to read.
    fn retreat(&self) -> Result<()> {
        let _turn = self.reopening.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.open().is_broken() {
            return Ok(());
        }
        let open = self.options.open_to_read(&self.name, &self.medium)?;
        tracing::warn!(file = self.name, "the metadata store reads only, after an I/O error");
        self.replace(open);
        Ok(())
    }

    /// Opens a store that only reads to write.
    fn advance(&self) -> Result<()> {
        // Drops a broken database: two that write would be one too many.
        if self.open().is_broken() {
            self.retreat()?;
        }
        let _turn = self.reopening.lock().unwrap_or_else(PoisonError::into_inner);
        if self.open().writable {
            return Ok(());
        }
        // Readers go on meanwhile: nothing they can see is overwritten before the first commit.
        let open = self.options.open_to_write(&self.name, &self.medium);
        let open = open.map_err(|error| error.context("the metadata store reads only"))?;
        tracing::info!(file = self.name, "the metadata store is open to write again");
        self.replace(open);
        Ok(())
    }

    /// Waits for the readers under way, whose database goes.
    fn replace(&self, open: Open) {
        let mut place = self.open.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *place, open);
        drop(place);
        drop(old);
    }

    fn get(&self, database: &Database, key: &[u8]) -> Result<Option<Entry>, Failure> {
        let reading = database.begin_read()?;
        match reading.open_table(RECORDS)?.get(key)? {
            Some(stored) => Ok(Some(self.entry(&reading, key, stored.value())?)),
            None => Ok(None),
        }
    }

    fn scan(&self, database: &Database, keys: Range<&[u8]>, limit: usize) -> Result<Vec<Entry>, Failure> {
        let reading = database.begin_read()?;
        let mut entries = Vec::new();
        for record in reading.open_table(RECORDS)?.range::<&[u8]>(keys)?.take(limit) {
            let (key, stored) = record?;
            entries.push(self.entry(&reading, key.value(), stored.value())?);
        }
        Ok(entries)
    }

    /// Dropped without a commit, a transaction leaves nothing behind.
    fn apply(&self, transaction: &mut WriteTransaction, batch: Batch) -> Result<Revision, Failure> {
        transaction.set_durability(Durability::Immediate)?;
        transaction.set_quick_repair(self.options.quick_recovery);
        let mut records = transaction.open_table(RECORDS)?;
        for (key, expectation) in &batch.expectations {
            let found = match records.get(&key[..])? {
                Some(stored) => Some(self.head(key, stored.value())?.revision),
                None => None,
            };
            let met = match expectation {
                Expectation::Absent => found.is_none(),
                Expectation::At(revision) => found == Some(*revision),
            };
            if !met {
                return Err(unmet(key, *expectation, found).into());
            }
        }
        let mut counters = transaction.open_table(COUNTERS)?;
        let revision = counters.get(LAST_REVISION)?.map_or(0, |last| last.value()) + 1;
        counters.insert(LAST_REVISION, revision)?;
        let mut parts = transaction.open_table(PARTS)?;
        for (key, value) in batch.into_sorted_changes() {
            if let Some(old) = records.get(&key[..])?
                && let Stored::Long(length) = self.head(&key, old.value())?.value
            {
                for part in 0..part_count(length) {
                    parts.remove((&key[..], part))?;
                }
            }
            match value {
                Some(value) if value.len() > LONG => {
                    for (part, bytes) in (0..).zip(value.chunks(PART)) {
                        parts.insert((&key[..], part), bytes)?;
                    }
                    let head = [revision | IS_LONG, value.len() as u64].map(u64::to_be_bytes).concat();
                    records.insert(&key[..], &head[..])?;
                }
                Some(value) => {
                    let mut place = records.insert_reserve(&key[..], HEAD + value.len())?;
                    let (head, body) = place.as_mut().split_at_mut(HEAD);
                    head.copy_from_slice(&revision.to_be_bytes());
                    body.copy_from_slice(&value);
                }
                None => drop(records.remove(&key[..])?),
            }
        }
        Ok(Revision(revision))
    }

    /// Makes the tables, so that reads find them.
    fn prepare(&self) -> Result<()> {
        let found = self.read(|database| {
            let reading = database.begin_read()?;
            Ok(reading.open_table(RECORDS).is_ok() && reading.open_table(COUNTERS).is_ok())
        })?;
        if found {
            return Ok(());
        }
        self.write(|transaction| {
            transaction.open_table(RECORDS)?;
            transaction.open_table(COUNTERS)?;
            Ok(Revision(0))
        })?;
        Ok(())
    }

    fn entry(&self, reading: &ReadTransaction, key: &[u8], stored: &[u8]) -> Result<Entry, Failure> {
        let Head { revision, value } = self.head(key, stored)?;
        let value = match value {
            Stored::Here(value) => Bytes::copy_from_slice(value),
            Stored::Long(length) => {
                let parts = reading.open_table(PARTS)?;
                let mut value = Vec::new();
                for part in 0..part_count(length) {
                    match parts.get((key, part))? {
                        Some(bytes) => {
                            // Reserved when the first part is found to be there.
                            value.reserve_exact((length as usize).saturating_sub(value.len()));
                            value.extend_from_slice(bytes.value());
                        }
                        None => break,
                    }
                }
                if value.len() as u64 != length {
                    return Err(self.damaged(key, "is not complete").into());
                }
                value.into()
            }
        };
        Ok(Entry { key: Bytes::copy_from_slice(key), value, revision })
    }

    fn head<'a>(&self, key: &[u8], stored: &'a [u8]) -> Result<Head<'a>> {
        let Some((head, value)) = stored.split_first_chunk::<HEAD>() else {
            return Err(self.damaged(key, "has no revision"));
        };
        let head = u64::from_be_bytes(*head);
        let revision = Revision(head & !IS_LONG);
        if head & IS_LONG == 0 {
            return Ok(Head { revision, value: Stored::Here(value) });
        }
        match value.try_into().map(u64::from_be_bytes) {
            Ok(length) if length <= u64::from(u32::MAX) => Ok(Head { revision, value: Stored::Long(length) }),
            _ => Err(self.damaged(key, "has no length")),
        }
    }

    #[cold]
    fn damaged(&self, key: &[u8], what: &str) -> Error {
        corrupted(&self.name, format!("the record \"{}\" {what}", key.escape_ascii()))
    }
}

/// What a record says before its value.
struct Head<'a> {
    revision: Revision,
    value: Stored<'a>,
}

enum Stored<'a> {
    Here(&'a [u8]),
    /// In [`PARTS`], with this many bytes.
    Long(u64),
}

fn part_count(length: u64) -> u32 {
    u32::try_from(length.div_ceil(PART as u64)).unwrap_or(u32::MAX)
}
