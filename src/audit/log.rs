//! The transparency log: [`TileLog`].

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;

use super::append::{Append, Done, Health, SegmentFile, Waiter};
use super::disk::{self, Disk, DiskLock, OsDisk};
use super::entry::{Entry, Outcome};
use super::event::{Event, kind};
use super::keeper;
use super::note::Checkpoint;
use super::person::{People, Person};
use super::recover::{Recovered, places, read_note, recover};
use super::segment::FrameReader;
use super::tile::{TILE, TileReader, TileStore, Tree};
use super::{AuditSink, tile_path};
use crate::clock::{Clock, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{PublicKey, Signer};
use crate::merkle::{self, Hash, leaf};

/// How a log is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogOptions {
    /// A segment that has so many bytes is the last no longer. 64 MiB.
    pub segment: u64,
    /// Bytes of the spare segment, which is used when the disk is full. 8 MiB.
    pub spare: u64,
    /// A segment is filled with zeros so many bytes ahead. 1 MiB.
    pub fill: u64,
    /// Entries are durable after so long at the latest. 100 ms.
    pub sync_after: Duration,
    /// Whether an event is durable before it is taken, downloads too (`audit_sync = always`).
    pub sync_always: bool,
    /// There is a checkpoint after so long at the latest. 1 s.
    pub checkpoint_after: Duration,
    /// There is a checkpoint after so many entries at the latest. 4,096.
    pub checkpoint_entries: u64,
    /// Segments whose entries are all older than so many days are dropped. Never.
    pub retain_days: Option<u32>,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions {
            segment: 64 << 20,
            spare: 8 << 20,
            fill: 1 << 20,
            sync_after: Duration::from_millis(100),
            sync_always: false,
            checkpoint_after: Duration::from_secs(1),
            checkpoint_entries: 4096,
            retain_days: None,
        }
    }
}

impl LogOptions {
    /// The same, with every event durable before it is taken.
    #[must_use]
    pub fn with_sync_always(mut self, always: bool) -> LogOptions {
        self.sync_always = always;
        self
    }

    /// The same, with segments dropped after so many days.
    #[must_use]
    pub fn with_retain_days(mut self, days: Option<u32>) -> LogOptions {
        self.retain_days = days;
        self
    }

    /// The same, with these sizes of a segment, of the spare one, and of what is filled ahead.
    #[must_use]
    pub fn with_sizes(mut self, segment: u64, spare: u64, fill: u64) -> LogOptions {
        (self.segment, self.spare, self.fill) = (segment, spare, fill);
        self
    }
}

/// A transparency log in a directory: the audit log of one tenant of one edge.
///
/// Entries are the leaves of a Merkle tree (RFC 6962) whose size and root the edge signs every second
/// and a source cosigns; anyone with the edge's key can tell what was in the log and that nothing was
/// changed. In the directory are `segment/` (the entries), `tile/` (the hashes, C2SP `tlog-tiles`),
/// `checkpoint`, `cosigned` (the last checkpoint with a witness's word) and `person/` (names and
/// addresses, encrypted). What `tlog-tiles` calls entry bundles is made from segments when asked for.
///
/// # What survives
/// - [`record_durable`](AuditSink::record_durable) waits for a sync that it shares with others.
/// - [`record`](AuditSink::record) writes to the file before it returns, so a killed process loses
///   nothing; a power cut loses at most 200 ms. The one exception is `download.end`, which is written
///   along with the next event or after 5 ms: a process killed in between leaves that download as
///   aborted. With [`sync_always`](LogOptions::sync_always) there is no exception and no loss; every
///   call waits for the disk then.
/// - A checkpoint covers durable entries alone.
///
/// One process at a time has a log open.
pub struct TileLog {
    pub(super) shared: Arc<Shared>,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

/// What the callers and the keeper share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) directory: PathBuf,
    pub(super) origin: String,
    pub(super) signer: Arc<dyn Signer>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) options: LogOptions,
    pub(super) people: People,
    pub(super) tiles: TileStore,
    pub(super) append: Mutex<Append>,
    pub(super) wake: Condvar,
    pub(super) tree: Mutex<Tree>,
    pub(super) latest: Mutex<Option<Checkpoint>>,
    pub(super) cosigned: Mutex<Option<Checkpoint>>,
    _lock: DiskLock,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TileLog {
    /// Opens the log in `directory`, or begins one there. `origin` is its name (see
    /// [`origin`](super::origin)) and `signer` the edge's identity key, an Ed25519 key.
    ///
    /// What a crash left half done is cut off, downloads that were running are closed as aborted, and
    /// if entries are missing that a checkpoint speaks of, the log says so in an `audit.gap`.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if another process has it open; [`ErrorKind::Corrupted`] if
    /// entries in the middle are missing.
    pub fn open(
        directory: impl AsRef<Path>,
        origin: &str,
        signer: Arc<dyn Signer>,
        clock: Arc<dyn Clock>,
        options: LogOptions,
    ) -> Result<TileLog> {
        TileLog::open_with(Arc::new(OsDisk), directory, origin, signer, clock, options)
    }

    /// As [`open`](TileLog::open), on another disk.
    pub fn open_with(
        disk: Arc<dyn Disk>,
        directory: impl AsRef<Path>,
        origin: &str,
        signer: Arc<dyn Signer>,
        clock: Arc<dyn Clock>,
        options: LogOptions,
    ) -> Result<TileLog> {
        let shared = Arc::new(Shared::open(disk, directory.as_ref(), origin, signer, clock, options)?);
        let keeper = keeper::spawn(&shared)?;
        Ok(TileLog { shared, keeper: Mutex::new(Some(keeper)) })
    }

    /// The log's name.
    pub fn origin(&self) -> &str {
        &self.shared.origin
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.shared.directory
    }

    /// The key that signs its checkpoints.
    pub fn key(&self) -> PublicKey {
        self.shared.signer.public_key()
    }

    /// How it is. An edge asks before it does what it must not do without a trace.
    pub fn health(&self) -> Health {
        lock(&self.shared.append).health.clone()
    }

    /// How many entries it has, those included that are not durable yet.
    pub fn len(&self) -> u64 {
        lock(&self.shared.append).next
    }

    /// Whether it has no entry; it has one from the start.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many bytes the entries take on disk, without what is filled ahead.
    pub fn entries_length(&self) -> u64 {
        let append = lock(&self.shared.append);
        let before = append.segments.iter().rev().skip(1);
        before.map(|segment| segment.file.length().unwrap_or(0)).sum::<u64>() + append.place.offset
    }

    /// The number of the first entry that is still there.
    pub fn first(&self) -> u64 {
        lock(&self.shared.append).segments.first().map_or(0, |segment| segment.first)
    }

    /// The last checkpoint, with the cosignatures that are known for it.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        let mut latest = lock(&self.shared.latest).clone()?;
        if let Some(cosigned) = lock(&self.shared.cosigned).as_ref()
            && (cosigned.size, cosigned.root) == (latest.size, latest.root)
        {
            latest = cosigned.clone();
        }
        Some(latest)
    }

    /// The last checkpoint that a witness cosigned.
    pub fn cosigned(&self) -> Option<Checkpoint> {
        lock(&self.shared.cosigned).clone()
    }

    /// Makes everything durable and signs a checkpoint over it, on this thread.
    pub fn flush(&self) -> Result<Checkpoint> {
        let waiter = Arc::new(Waiter::default());
        {
            let mut append = lock(&self.shared.append);
            if let Health::Failed(why) = &append.health {
                return Err(Error::new(ErrorKind::Unavailable, format!("the audit log failed: {why}")));
            }
            append.waiting_for_checkpoint.push(Arc::clone(&waiter));
        }
        self.shared.wake.notify_all();
        waiter.block()?;
        let latest = lock(&self.shared.latest).clone();
        latest.ok_or_else(|| Error::new(ErrorKind::Unavailable, "there is no checkpoint yet"))
    }

    /// Makes everything durable that was taken before, on this thread; answers the number of the next
    /// entry then.
    pub fn sync(&self) -> Result<u64> {
        let waiter = Arc::new(Waiter::default());
        let next = {
            let mut append = lock(&self.shared.append);
            if let Health::Failed(why) = &append.health {
                return Err(Error::new(ErrorKind::Unavailable, format!("the audit log failed: {why}")));
            }
            let next = append.written;
            if append.synced >= append.next {
                return Ok(append.synced);
            }
            append.waiting.push((next.saturating_sub(1), Arc::clone(&waiter)));
            next
        };
        self.shared.wake.notify_all();
        waiter.block()?;
        Ok(next.max(lock(&self.shared.append).synced))
    }

    /// Takes the cosignature of a witness called `name` with `key`: `note` is the checkpoint it saw,
    /// with its line.
    ///
    /// # Errors
    /// [`ErrorKind::Untrusted`] if the cosignature does not hold; [`ErrorKind::Conflict`] if the
    /// checkpoint is not one of this log.
    pub fn accept_cosignature(&self, note: &[u8], name: &str, key: &PublicKey) -> Result<Checkpoint> {
        let now = self.shared.clock.now();
        let mut seen = Checkpoint::parse(note)?;
        if seen.verify_cosignature(name, key, now)?.is_none() {
            return Err(Error::new(ErrorKind::Untrusted, format!("{name} did not cosign this checkpoint")));
        }
        if seen.origin != self.shared.origin || self.root(seen.size)? != seen.root {
            return Err(Error::new(ErrorKind::Conflict, "this is not a checkpoint of this log"));
        }
        let mut checkpoint = Checkpoint::new(&self.shared.origin, seen.size, seen.root);
        checkpoint.sign(&*self.shared.signer, now)?;
        seen.signatures.retain(|signature| signature.name == name);
        let mut cosigned = lock(&self.shared.cosigned);
        if let Some(before) = cosigned.as_ref() {
            if before.size > checkpoint.size {
                return Ok(before.clone());
            }
            if before.size == checkpoint.size {
                let others = before.signatures.iter().skip(1).filter(|signature| signature.name != name);
                checkpoint.signatures.extend(others.cloned());
            }
        }
        checkpoint.signatures.extend(seen.signatures);
        let (disk, directory) = (&*self.shared.disk, &self.shared.directory);
        disk::replace(disk, directory, "cosigned", checkpoint.to_note().as_bytes())
            .and_then(|()| disk.sync_dir(directory))
            .map_err(|cause| Error::io("writing a cosigned checkpoint", cause))?;
        *cosigned = Some(checkpoint.clone());
        Ok(checkpoint)
    }

    /// The root over the first `size` entries.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if no checkpoint reaches that far.
    pub fn root(&self, size: u64) -> Result<Hash> {
        self.shared
            .with_hashes(size, |reader| merkle::root(size, |level, index| reader.subtree(level, index)))
    }

    /// Shows that entry `index` is in the tree of `size` entries.
    pub fn inclusion(&self, index: u64, size: u64) -> Result<Vec<Hash>> {
        if index >= size {
            return Err(Error::invalid("an entry's number is less than the size of its tree"));
        }
        self.shared.with_hashes(size, |reader| {
            merkle::inclusion(index, size, |level, index| reader.subtree(level, index))
        })
    }

    /// Shows that the tree of `from` entries is the beginning of the tree of `to`.
    pub fn consistency(&self, from: u64, to: u64) -> Result<Vec<Hash>> {
        if from > to {
            return Err(Error::invalid("a log does not become shorter"));
        }
        self.shared.with_hashes(to, |reader| {
            merkle::consistency(from, to, |level, index| reader.subtree(level, index))
        })
    }

    /// The first `width` hashes of a tile, as `tlog-tiles` serves them.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there are not so many yet.
    pub fn tile(&self, level: u32, index: u64, width: usize) -> Result<Vec<u8>> {
        let missing =
            || Error::new(ErrorKind::NotFound, format!("there is no {}", tile_path(level, index, width)));
        if level > 7 || width == 0 || width > TILE {
            return Err(missing());
        }
        let span = 8 * (level + 1);
        let end = index.checked_mul(TILE as u64).and_then(|first| first.checked_add(width as u64));
        let end = end.filter(|end| end.leading_zeros() >= 8 * level).ok_or_else(missing)? << (span - 8);
        self.shared.with_hashes(end, |reader| {
            let hashes = reader.hashes(level, index)?;
            Ok(hashes.get(..width).ok_or_else(missing)?.as_flattened().to_vec())
        })
    }

    /// A bundle of entries, as `tlog-tiles` serves it: big-endian 16-bit lengths and entries.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there are not so many yet; [`ErrorKind::Gone`] if retention dropped
    /// some of them.
    pub fn entry_bundle(&self, index: u64, width: usize) -> Result<Vec<u8>> {
        let first = index.saturating_mul(TILE as u64);
        let mut bundle = Vec::new();
        let mut count = 0;
        self.entries(first, |_, entry| {
            bundle.extend_from_slice(&(entry.len() as u16).to_be_bytes());
            bundle.extend_from_slice(entry);
            count += 1;
            Ok(count < width)
        })?;
        if count < width {
            return Err(Error::new(ErrorKind::NotFound, "there are not so many entries yet"));
        }
        Ok(bundle)
    }

    /// Shows every entry from number `from` on to `each`, until it answers `false`.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`] if retention dropped the first of them; what `each` answers.
    pub fn entries(&self, from: u64, each: impl FnMut(u64, &[u8]) -> Result<bool>) -> Result<()> {
        self.shared.entries(from, each)
    }

    /// One entry.
    pub fn entry(&self, seq: u64) -> Result<Entry<'static>> {
        let mut found = None;
        self.entries(seq, |_, bytes| {
            found = Some(Entry::read(bytes)?.into_owned());
            Ok(false)
        })?;
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no entry {seq}")))
    }

    /// Who is meant by these commitments (`p` of entries), as far as that was not erased.
    pub fn people(&self, ids: &HashSet<String>) -> Result<HashMap<String, Person>> {
        self.shared.people.resolve(ids)
    }

    /// The commitments of a user (`user:alice`) or of an address.
    pub fn commitments(&self, subject: &str) -> Result<HashSet<String>> {
        self.shared.people.ids(subject)
    }

    /// What stands for a principal where its name must not stand: a keyed hash that stays the same, and
    /// that [`names`](TileLog::names) turns back as long as the person is not erased.
    pub fn pseudonym(&self, subject: &str) -> String {
        self.shared.people.pseudonym(subject)
    }

    /// The principals behind pseudonyms, as far as they are not erased.
    pub fn names(&self, pseudonyms: &HashSet<String>) -> Result<HashMap<String, String>> {
        self.shared.people.names_of(pseudonyms)
    }

    /// Erases a person, `user:alice` or an address: what the log holds of them cannot be read or
    /// guessed any more, and the log verifies as before. `by` is who asked for it. Answers how many
    /// records there were.
    pub fn erase(&self, subject: &str, by: &crate::access::Principal) -> Result<u64> {
        let now = self.shared.clock.now();
        // Recorded first, without the name: an erasure that leaves no trace would be worse than one
        // that was recorded and has to be done again.
        let event = Event::new(now, kind::PERSON_ERASED, by);
        let waiter = self.shared.take(&event, true)?;
        waiter.block()?;
        self.shared.people.erase(subject)
    }

    /// Drops the segments whose entries are all older than `before`. Their hashes stay, so that the
    /// rest can be verified. Answers the number of the first entry that is left.
    pub fn retain(&self, before: Timestamp) -> Result<u64> {
        keeper::retain(&self.shared, before)
    }
}

impl Shared {
    /// Opens a log that nobody keeps yet.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        directory: &Path,
        origin: &str,
        signer: Arc<dyn Signer>,
        clock: Arc<dyn Clock>,
        options: LogOptions,
    ) -> Result<Shared> {
        let during = |cause| Error::io(format_args!("opening the audit log {}", directory.display()), cause);
        disk.create_dirs(&directory.join("segment")).map_err(during)?;
        disk.create_dirs(&directory.join("tile")).map_err(during)?;
        let held = disk.lock(&directory.join("lock")).map_err(during)?.ok_or_else(|| {
            let message = format!("another process has the audit log {} open", directory.display());
            Error::new(ErrorKind::Unavailable, message)
        })?;
        // Exports that were being written when a process died.
        for name in disk.list(directory).map_err(during)? {
            if name.starts_with("export-") && name.ends_with(".part") {
                disk.remove(&directory.join(name)).map_err(during)?;
            }
        }
        let people = People::open(Arc::clone(&disk), directory)?;
        let tiles = TileStore::new(Arc::clone(&disk), directory);
        let latest = read_note(&*disk, &directory.join("checkpoint"))?;
        let cosigned = read_note(&*disk, &directory.join("cosigned"))?;
        // The later one tells more about what must be there.
        let known = [&latest, &cosigned].into_iter().flatten().max_by_key(|checkpoint| checkpoint.size);
        let found = recover(&disk, directory, &tiles, known, None)?;
        let limits = (options.segment, options.fill);
        let mut append = Append::new(Arc::clone(&disk), directory, limits, options.sync_always);
        let open = found.open.clone();
        let gaps = found.gaps.clone();
        let tree = install(&mut append, found);
        if append.segments.is_empty() {
            append.roll()?;
        }
        let now = clock.now();
        if append.next == 0 {
            append.take_entry(own(now, kind::AUDIT_OPENED, Some(origin), None))?;
        }
        for gap in &gaps {
            tracing::error!(log = %directory.display(), gap, "the audit log has a gap");
            append.take_entry(own(now, kind::AUDIT_GAP, None, Some(gap)))?;
        }
        for start in open {
            append.take_entry(aborted(now, start))?;
        }
        Ok(Shared {
            disk,
            directory: directory.to_owned(),
            origin: origin.to_owned(),
            signer,
            clock,
            options,
            people,
            tiles,
            append: Mutex::new(append),
            wake: Condvar::new(),
            tree: Mutex::new(tree),
            latest: Mutex::new(latest),
            cosigned: Mutex::new(cosigned),
            _lock: held,
        })
    }

    /// Takes an event; the waiter is done when it is durable.
    pub(super) fn take(&self, event: &Event, durable: bool) -> Result<Arc<Waiter>> {
        let mut append = lock(&self.append);
        let seq = if append.start_of(event).is_some() {
            // Who it was is said in the start.
            append.take(event, None)?
        } else {
            drop(append);
            let reduced = self.people.reduce(&event.who, event.client, event.at)?;
            append = lock(&self.append);
            append.take(event, reduced.as_deref())?
        };
        let waiter = Arc::new(Waiter::default());
        if durable {
            append.waiting.push((seq, Arc::clone(&waiter)));
        }
        if durable || append.keeper_idle {
            append.keeper_idle = false;
            drop(append);
            self.wake.notify_all();
        }
        Ok(waiter)
    }

    /// Works on the hashes of the first `size` entries; a tile that a crash damaged is made again.
    pub(super) fn with_hashes<T>(
        &self,
        size: u64,
        work: impl Fn(&mut TileReader<'_>) -> Result<T>,
    ) -> Result<T> {
        let tree = lock(&self.tree).clone();
        if size > tree.size() {
            let message = format!("the log has {} signed entries, not {size}", tree.size());
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        work(&mut TileReader::new(&self.tiles, &tree, &|first| self.leaves(first)))
    }

    /// The hashes of 256 entries.
    pub(super) fn leaves(&self, first: u64) -> Result<Vec<Hash>> {
        let mut leaves = Vec::with_capacity(TILE);
        self.entries(first, |_, entry| {
            leaves.push(leaf(entry));
            Ok(leaves.len() < TILE)
        })?;
        Ok(leaves)
    }

    pub(super) fn entries(&self, from: u64, mut each: impl FnMut(u64, &[u8]) -> Result<bool>) -> Result<()> {
        let during =
            |cause| Error::io(format_args!("reading the audit log {}", self.directory.display()), cause);
        let (segments, end) = {
            let mut append = lock(&self.append);
            if !matches!(append.health, Health::Failed(_)) {
                // What a full disk does not take is not there to be read.
                let _ = append.write_out();
            }
            let begin = append.segments.partition_point(|segment| segment.first <= from);
            let Some(begin) = begin.checked_sub(1) else {
                return Err(Error::new(
                    ErrorKind::Gone,
                    format!(
                        "the entries up to {} were dropped",
                        append.segments.first().map_or(0, |s| s.first)
                    ),
                ));
            };
            let segments: Vec<SegmentFile> = (append.segments[begin..].iter().enumerate())
                // Where entries are is of use in the first one alone.
                .map(|(at, segment)| SegmentFile {
                    first: segment.first,
                    file: Arc::clone(&segment.file),
                    places: if at == 0 { segment.places.clone() } else { Vec::new() },
                })
                .collect();
            (segments, append.written)
        };
        for mut segment in segments {
            if segment.first >= end {
                break;
            }
            if segment.first < from && segment.places.is_empty() {
                segment.places = places(&segment.file, segment.first).map_err(during)?;
                let mut append = lock(&self.append);
                if let Some(known) = append.segments.iter_mut().find(|known| known.first == segment.first)
                    && known.places.is_empty()
                {
                    known.places.clone_from(&segment.places);
                }
            }
            let (mut seq, mut reader) = match segment.place(from.max(segment.first)) {
                Some((seq, place)) => (seq, FrameReader::at(Arc::clone(&segment.file), place)),
                None => match FrameReader::start(Arc::clone(&segment.file)).map_err(during)? {
                    Some((head, reader)) => (head.first, reader),
                    None => return Err(damaged(segment.first)),
                },
            };
            while seq < end {
                match reader.next().map_err(during)? {
                    Some(_) if seq < from => {}
                    Some(entry) => {
                        if !each(seq, entry)? {
                            return Ok(());
                        }
                    }
                    None => break,
                }
                seq += 1;
            }
        }
        Ok(())
    }
}

#[cold]
fn damaged(first: u64) -> Error {
    Error::new(ErrorKind::Corrupted, format!("the segment from entry {first} on is damaged"))
}

/// Takes over what was found.
pub(super) fn install(append: &mut Append, found: Recovered) -> Tree {
    append.segments = found.segments;
    (append.next, append.written, append.synced) = (found.next, found.next, found.next);
    append.place = found.place;
    append.link = found.place.link;
    append.filled = found.filled;
    found.tree
}

/// An entry of the log's own.
pub(super) fn own<'a>(
    now: Timestamp,
    kind: &'static str,
    about: Option<&'a str>,
    reason: Option<&'a str>,
) -> Entry<'a> {
    Entry {
        seq: 0,
        t: now,
        kind: kind.into(),
        of: None,
        who: Some("system".into()),
        how: None,
        ip: None,
        cc: None,
        p: None,
        what: None,
        about: about.map(Into::into),
        res: reason.map(|reason| Outcome { reason: Some(reason.into()), ..Outcome::default() }),
        req: None,
    }
}

/// The end of a download that a crash ended.
fn aborted(now: Timestamp, start: u64) -> Entry<'static> {
    let res =
        Outcome { reason: Some("the edge stopped".into()), complete: Some(false), ..Outcome::default() };
    Entry { of: Some(start), who: None, res: Some(res), ..own(now, kind::DOWNLOAD_END, None, None) }
}

#[async_trait]
impl AuditSink for TileLog {
    fn record(&self, event: Event) -> Result<()> {
        let always = self.shared.options.sync_always;
        let waiter = self.shared.take(&event, always)?;
        if always { waiter.block() } else { Ok(()) }
    }

    async fn record_durable(&self, event: Event) -> Result<()> {
        let waiter = self.shared.take(&event, true)?;
        Done(waiter).await
    }
}

impl Drop for TileLog {
    /// Makes everything durable and signs a last checkpoint.
    fn drop(&mut self) {
        lock(&self.shared.append).stop = true;
        self.shared.wake.notify_all();
        if let Some(keeper) = lock(&self.keeper).take() {
            let _ = keeper.join();
        }
    }
}

impl std::fmt::Debug for TileLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TileLog")
            .field("origin", &self.shared.origin)
            .field("directory", &self.shared.directory)
            .finish_non_exhaustive()
    }
}
