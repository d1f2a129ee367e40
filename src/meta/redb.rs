//! A metadata store in one file, through redb.

use std::any::Any;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use ::redb::{
    Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, StorageBackend, StorageError,
    TableDefinition,
};
use async_trait::async_trait;
use bytes::Bytes;

use super::watched::{Trouble, Watched};
use super::{Batch, Entry, Expectation, MetadataStore, Revision, unmet};
use crate::blocking;
use crate::error::{Error, ErrorKind, Result};

/// Key to revision (8 bytes, big-endian) and value.
const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");
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
    /// # Errors
    /// One sentence that names the file: `Conflict` if another process uses it, `Corrupted` if it is
    /// damaged or no database, `NoSpace`, `Io`.
    pub fn open(self, path: impl AsRef<Path>) -> Result<RedbStore> {
        let path = path.as_ref();
        let name = path.display().to_string();
        if fs::metadata(path).map_or(true, |found| found.len() == 0) {
            self.make(path)?;
        }
        let trouble = Arc::<Trouble>::default();
        let database = self.open_file(&name, path, &trouble)?;
        Ok(self.store(name, Some(path.to_owned()), database, trouble))
    }

    /// Opens the store over `backend`, and makes it if the backend is empty; `name` is what errors
    /// call it.
    pub fn open_backend(self, name: impl Into<String>, backend: impl StorageBackend) -> Result<RedbStore> {
        let name = name.into();
        let database = self.open_database(&name, |builder| builder.create_with_backend(backend))?;
        let store = self.store(name, None, database, Arc::default());
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
        let name = new.display().to_string();
        let database = self.open_database(&name, |builder| builder.create(&new))?;
        let store = self.store(name, None, database, Arc::default());
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

    fn open_file(self, name: &str, path: &Path, trouble: &Arc<Trouble>) -> Result<Database> {
        self.open_database(name, |builder| {
            builder.create_with_backend(Watched::open(path, Arc::clone(trouble))?)
        })
    }

    fn open_database(
        self,
        name: &str,
        open: impl FnOnce(&mut ::redb::Builder) -> Result<Database, DatabaseError>,
    ) -> Result<Database> {
        guarded(name, || {
            let mut builder = Database::builder();
            builder.set_cache_size(self.cache);
            open(&mut builder).map_err(|cause| opening_failed(name, cause))
        })
    }

    fn store(
        self,
        name: String,
        path: Option<PathBuf>,
        database: Database,
        trouble: Arc<Trouble>,
    ) -> RedbStore {
        let database = RwLock::new(Some(database));
        RedbStore(Arc::new(Inner { name, options: self, path, database, trouble }))
    }
}

/// Keeps records in one file, by [redb](https://docs.rs/redb). Clones share one open store.
///
/// Every commit is synced before it returns. After a failed write (a full disk) a store of its own
/// file opens it anew with the next call, so that recovery looks at what is there. After a failed sync
/// it answers nothing but errors until the process starts again: what reached the disk is unknown.
/// Commits run on tokio's blocking pool where there is one; reads run inline.
#[derive(Clone)]
pub struct RedbStore(Arc<Inner>);

struct Inner {
    name: String,
    options: RedbOptions,
    /// The file, if the store may open it anew by itself.
    path: Option<PathBuf>,
    /// `None` while the file could not be opened anew.
    database: RwLock<Option<Database>>,
    trouble: Arc<Trouble>,
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
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbStore").field("name", &self.0.name).finish_non_exhaustive()
    }
}

#[async_trait]
impl MetadataStore for RedbStore {
    async fn get(&self, key: &[u8]) -> Result<Option<Entry>> {
        self.0.run(|database| self.0.get(database, key))
    }

    async fn scan(&self, keys: Range<&[u8]>, limit: usize) -> Result<Vec<Entry>> {
        if keys.start >= keys.end {
            return Ok(Vec::new());
        }
        self.0.run(|database| self.0.scan(database, keys, limit))
    }

    async fn commit(&self, batch: Batch) -> Result<Revision> {
        batch.check()?;
        let inner = Arc::clone(&self.0);
        blocking::run(move || inner.run(|database| inner.commit(database, batch))).await
    }
}

impl Inner {
    fn run<T>(&self, work: impl FnOnce(&Database) -> Result<T>) -> Result<T> {
        let database = self.database()?;
        match &*database {
            Some(database) => guarded(&self.name, || work(database)),
            None => Err(self.failed("opening", ::redb::Error::PreviousIo)),
        }
    }

    /// The database, opened anew if an earlier failure is one that passes.
    fn database(&self) -> Result<RwLockReadGuard<'_, Option<Database>>> {
        let open = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let Some(path) = self.path.as_deref().filter(|_| open.is_none() || self.trouble.passes()) else {
            return Ok(open);
        };
        drop(open);
        {
            let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
            let again = database.is_none() || self.trouble.passes();
            if again && !self.trouble.lasts() {
                // The old one has to let go of the file's lock first.
                *database = None;
                self.trouble.forget();
                *database = Some(self.options.open_file(&self.name, path, &self.trouble)?);
                tracing::warn!(file = self.name, "the metadata file was opened anew after a failure");
            }
        }
        Ok(self.database.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn get(&self, database: &Database, key: &[u8]) -> Result<Option<Entry>> {
        let reading = |cause: ::redb::Error| self.failed("reading", cause);
        let transaction = database.begin_read().map_err(|cause| reading(cause.into()))?;
        let table = transaction.open_table(RECORDS).map_err(|cause| reading(cause.into()))?;
        match table.get(key).map_err(|cause| reading(cause.into()))? {
            Some(stored) => self.entry(key, stored.value()).map(Some),
            None => Ok(None),
        }
    }

    fn scan(&self, database: &Database, keys: Range<&[u8]>, limit: usize) -> Result<Vec<Entry>> {
        let reading = |cause: ::redb::Error| self.failed("reading", cause);
        let transaction = database.begin_read().map_err(|cause| reading(cause.into()))?;
        let table = transaction.open_table(RECORDS).map_err(|cause| reading(cause.into()))?;
        let range = table.range::<&[u8]>(keys).map_err(|cause| reading(cause.into()))?;
        let mut entries = Vec::new();
        for record in range.take(limit) {
            let (key, stored) = record.map_err(|cause| reading(cause.into()))?;
            entries.push(self.entry(key.value(), stored.value())?);
        }
        Ok(entries)
    }

    fn commit(&self, database: &Database, batch: Batch) -> Result<Revision> {
        let writing = |cause: ::redb::Error| self.failed("writing", cause);
        // Dropped without a commit, a transaction leaves nothing behind.
        let mut transaction = database.begin_write().map_err(|cause| writing(cause.into()))?;
        transaction.set_durability(Durability::Immediate).map_err(|cause| writing(cause.into()))?;
        transaction.set_quick_repair(self.options.quick_recovery);
        let revision = {
            let mut records = transaction.open_table(RECORDS).map_err(|cause| writing(cause.into()))?;
            for (key, expectation) in &batch.expectations {
                let found = match records.get(&key[..]).map_err(|cause| writing(cause.into()))? {
                    Some(stored) => Some(self.split(key, stored.value())?.0),
                    None => None,
                };
                let met = match expectation {
                    Expectation::Absent => found.is_none(),
                    Expectation::At(revision) => found == Some(*revision),
                };
                if !met {
                    return Err(unmet(key, *expectation, found));
                }
            }
            let mut counters = transaction.open_table(COUNTERS).map_err(|cause| writing(cause.into()))?;
            let last = counters.get(LAST_REVISION).map_err(|cause| writing(cause.into()))?;
            let revision = last.map_or(0, |last| last.value()) + 1;
            counters.insert(LAST_REVISION, revision).map_err(|cause| writing(cause.into()))?;
            for (key, value) in batch.into_sorted_changes() {
                match value {
                    Some(value) => {
                        let mut place = records
                            .insert_reserve(&key[..], HEAD + value.len())
                            .map_err(|cause| writing(cause.into()))?;
                        let (head, body) = place.as_mut().split_at_mut(HEAD);
                        head.copy_from_slice(&revision.to_be_bytes());
                        body.copy_from_slice(&value);
                    }
                    None => {
                        records.remove(&key[..]).map_err(|cause| writing(cause.into()))?;
                    }
                }
            }
            revision
        };
        transaction.commit().map_err(|cause| writing(cause.into()))?;
        Ok(Revision(revision))
    }

    /// Makes the tables, so that reads find them.
    fn prepare(&self) -> Result<()> {
        let writing = |cause: ::redb::Error| self.failed("writing", cause);
        self.run(|database| {
            let reading = database.begin_read().map_err(|cause| writing(cause.into()))?;
            if reading.open_table(RECORDS).is_ok() && reading.open_table(COUNTERS).is_ok() {
                return Ok(());
            }
            let transaction = database.begin_write().map_err(|cause| writing(cause.into()))?;
            transaction.open_table(RECORDS).map_err(|cause| writing(cause.into()))?;
            transaction.open_table(COUNTERS).map_err(|cause| writing(cause.into()))?;
            transaction.commit().map_err(|cause| writing(cause.into()))
        })
    }

    fn entry(&self, key: &[u8], stored: &[u8]) -> Result<Entry> {
        let (revision, value) = self.split(key, stored)?;
        Ok(Entry { key: Bytes::copy_from_slice(key), value: Bytes::copy_from_slice(value), revision })
    }

    fn split<'a>(&self, key: &[u8], stored: &'a [u8]) -> Result<(Revision, &'a [u8])> {
        match stored.split_first_chunk::<HEAD>() {
            Some((head, value)) => Ok((Revision(u64::from_be_bytes(*head)), value)),
            None => {
                let what = format!("the record \"{}\" has no revision", key.escape_ascii());
                Err(corrupted(&self.name, what))
            }
        }
    }

    #[cold]
    fn failed(&self, doing: &str, cause: ::redb::Error) -> Error {
        let name = &self.name;
        match cause {
            ::redb::Error::Io(cause) => io_failed(name, doing, cause),
            ::redb::Error::Corrupted(what) => corrupted(name, what),
            ::redb::Error::TableTypeMismatch { .. } | ::redb::Error::TableDoesNotExist(_) => {
                corrupted(name, cause)
            }
            ::redb::Error::PreviousIo => Error::new(
                ErrorKind::Io,
                format!("{doing} the metadata file {name}: an earlier write failed, open the store anew"),
            ),
            ::redb::Error::LockPoisoned(_) => Error::new(
                ErrorKind::Corrupted,
                format!(
                    "{doing} the metadata file {name}: an earlier call found damage, open the store anew"
                ),
            ),
            cause => Error::new(ErrorKind::Internal, format!("{doing} the metadata file {name}: {cause}"))
                .with_source(cause),
        }
    }
}

#[cold]
fn opening_failed(name: &str, cause: DatabaseError) -> Error {
    match cause {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => Error::new(
            ErrorKind::Conflict,
            format!("another process uses the metadata file {name}: stop it first"),
        ),
        DatabaseError::UpgradeRequired(version) => Error::new(
            ErrorKind::Unsupported,
            format!("the metadata file {name} has format version {version}, which this program cannot read"),
        ),
        DatabaseError::Storage(StorageError::Io(cause)) => io_failed(name, "opening", cause),
        DatabaseError::Storage(StorageError::Corrupted(what)) => corrupted(name, what),
        cause => corrupted(name, cause),
    }
}

#[cold]
fn io_failed(name: &str, doing: &str, cause: io::Error) -> Error {
    match cause.kind() {
        // How redb reports a file that is not its own, or is cut short.
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => corrupted(name, cause),
        _ => Error::io(format_args!("{doing} the metadata file {name}"), cause),
    }
}

#[cold]
fn corrupted(name: &str, what: impl fmt::Display) -> Error {
    Error::new(
        ErrorKind::Corrupted,
        format!("the metadata file {name} is damaged or no metadata file: {what}"),
    )
}

/// Runs `work`; a panic in it is damage found. redb checks much of a file but not all of it, and
/// meets the rest as a broken assumption.
fn guarded<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    // After a panic redb has poisoned its own locks, so no half-changed state is used again.
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result,
        Err(panic) => Err(corrupted(name, panic_message(&*panic))),
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}
