//! The one thread that syncs, hashes and signs.

use std::path::Path;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::append::{Append, Health, SPARE, SegmentFile, is_full};
use super::disk;
use super::event::kind;
use super::log::{Shared, install, lock, own};
use super::note::Checkpoint;
use super::recover::recover;
use super::segment::FRAME;
use super::tile::{TILE, give_back, take_unwritten};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::merkle::leaf;

/// How long a `download.end` waits for another event to be written with.
const HOLD: Duration = Duration::from_millis(5);
/// How long after a failure the log is read again, and after a full disk a spare segment is tried.
const PAUSE: Duration = Duration::from_secs(1);
/// How often it is looked whether something is too old to keep.
const HOURLY: Duration = Duration::from_secs(3600);

pub(super) fn spawn(shared: &Arc<Shared>) -> Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    Builder::new()
        .name("audit".into())
        .spawn(move || Keeper::new(shared).run())
        .map_err(|cause| Error::io("starting the thread of the audit log", cause))
}

struct Keeper {
    shared: Arc<Shared>,
    synced: Instant,
    signed: Instant,
    /// When something that failed is tried again.
    again: Option<Instant>,
    retained: Option<Instant>,
}

/// What is to be done next.
struct Due {
    sync: bool,
    checkpoint: bool,
    stop: bool,
}

impl Keeper {
    fn new(shared: Arc<Shared>) -> Keeper {
        let now = Instant::now();
        Keeper { shared, synced: now, signed: now, again: None, retained: None }
    }

    fn run(mut self) {
        loop {
            let due = self.wait();
            if due.sync {
                self.sync();
            }
            if due.checkpoint {
                self.checkpoint();
            }
            self.maintain();
            if due.stop {
                // What could not be done by now is not going to be.
                let mut append = lock(&self.shared.append);
                append.waiting.drain(..).for_each(|(_, waiter)| waiter.done(Err(stopped())));
                append.waiting_for_checkpoint.drain(..).for_each(|waiter| waiter.done(Err(stopped())));
                return;
            }
        }
    }

    /// Waits until something is to be done.
    fn wait(&mut self) -> Due {
        let shared = Arc::clone(&self.shared);
        let options = &shared.options;
        let mut append = lock(&shared.append);
        let mut first = true;
        loop {
            let signed = lock(&shared.latest).as_ref().map_or(0, |latest| latest.size);
            if matches!(append.health, Health::Failed(_)) {
                if append.stop || self.again.is_some_and(|again| again <= Instant::now()) {
                    return Due { sync: false, checkpoint: false, stop: append.stop };
                }
                self.again.get_or_insert_with(|| Instant::now() + PAUSE);
                append = wait_for(&shared, append, Some(PAUSE));
                continue;
            }
            // Held ends are written at the second look, unless something else wrote them.
            if !first || append.stop {
                let _ = append.write_out();
            }
            first = false;
            let asked = !append.waiting_for_checkpoint.is_empty() || append.stop;
            let unsigned = append.next.saturating_sub(signed);
            let checkpoint = asked
                || unsigned >= options.checkpoint_entries
                || unsigned > 0 && self.signed.elapsed() >= options.checkpoint_after;
            let unsynced = append.next > append.synced || append.names_unsynced;
            let sync = !append.waiting.is_empty()
                || checkpoint && unsynced
                || unsynced && self.synced.elapsed() >= options.sync_after;
            let spare = append.spare.is_none() && self.again.is_none_or(|again| again <= Instant::now());
            if sync || checkpoint || spare {
                return Due { sync, checkpoint, stop: append.stop };
            }
            let pause = if append.health == Health::Full {
                Some(PAUSE)
            } else if unsynced {
                Some(HOLD)
            } else if unsigned > 0 {
                Some(options.checkpoint_after.saturating_sub(self.signed.elapsed()))
            } else if append.spare.is_none() {
                Some(PAUSE)
            } else {
                options.retain_days.map(|_| HOURLY)
            };
            append.keeper_idle = !unsynced;
            append = wait_for(&shared, append, pause);
            append.keeper_idle = false;
        }
    }

    /// Makes what was written durable, and hashes it.
    fn sync(&mut self) {
        let (files, names, upto, unhashed) = {
            let mut append = lock(&self.shared.append);
            let _ = append.write_out();
            if matches!(append.health, Health::Failed(_)) {
                return;
            }
            let mut files = std::mem::take(&mut append.unsynced);
            files.extend(append.segments.last().map(|segment| Arc::clone(&segment.file)));
            let names = std::mem::take(&mut append.names_unsynced);
            (files, names, append.written, std::mem::take(&mut append.unhashed))
        };
        self.synced = Instant::now();
        let synced = (self.shared.people.sync())
            .and_then(|()| files.iter().try_for_each(|file| file.sync()))
            .and_then(|()| {
                if names { self.shared.disk.sync_dir(&self.shared.directory.join("segment")) } else { Ok(()) }
            });
        let done = {
            let mut append = lock(&self.shared.append);
            match synced {
                Ok(()) => {
                    append.synced = upto;
                    let (done, waiting) =
                        std::mem::take(&mut append.waiting).into_iter().partition(|(seq, _)| *seq < upto);
                    append.waiting = waiting;
                    done
                }
                Err(cause) => {
                    append.fail(&cause);
                    return;
                }
            }
        };
        let done: Vec<(u64, Arc<super::append::Waiter>)> = done;
        done.into_iter().for_each(|(_, waiter)| waiter.done(Ok(())));
        let mut rest = &unhashed[..];
        while !rest.is_empty() {
            // In parts, so that nobody waits long for the tree.
            let mut tree = lock(&self.shared.tree);
            for _ in 0..TILE {
                let Some(length) = rest.first_chunk().map(|length| u32::from_le_bytes(*length) as usize)
                else {
                    break;
                };
                tree.push(leaf(&rest[FRAME..FRAME + length]));
                rest = &rest[FRAME + length..];
            }
        }
        self.flush_tiles();
    }

    fn flush_tiles(&self) {
        let waiting = take_unwritten(&mut lock(&self.shared.tree));
        if waiting.is_empty() {
            return;
        }
        // Readers find them in memory until they are in files.
        give_back(&mut lock(&self.shared.tree), waiting.clone());
        let (rest, result) = self.shared.tiles.flush(waiting.clone());
        if let Err(cause) = result {
            tracing::warn!(log = %self.shared.directory.display(), %cause, "hashes of the audit log wait to be written");
        }
        let mut tree = lock(&self.shared.tree);
        let mut left = take_unwritten(&mut tree);
        left.drain(..waiting.len() - rest.len());
        give_back(&mut tree, left);
    }

    /// Signs what is durable and hashed.
    fn checkpoint(&mut self) {
        self.signed = Instant::now();
        let (size, root) = {
            let tree = lock(&self.shared.tree);
            (tree.size(), tree.root())
        };
        let waiting = std::mem::take(&mut lock(&self.shared.append).waiting_for_checkpoint);
        let mut result = Ok(());
        if lock(&self.shared.latest).as_ref().is_none_or(|latest| (latest.size, latest.root) != (size, root))
        {
            result = self.sign(size, root);
            if let Err(error) = &result {
                tracing::warn!(log = %self.shared.directory.display(), %error, "the audit log has no new checkpoint");
            }
        }
        for waiter in waiting {
            waiter.done(match &result {
                Ok(()) => Ok(()),
                Err(error) => Err(Error::new(error.kind(), error.message().to_owned())),
            });
        }
    }

    fn sign(&self, size: u64, root: crate::merkle::Hash) -> Result<()> {
        let mut checkpoint = Checkpoint::new(&self.shared.origin, size, root);
        checkpoint.sign(&*self.shared.signer, self.shared.clock.now())?;
        let note = checkpoint.to_note();
        let written =
            disk::replace(&*self.shared.disk, &self.shared.directory, "checkpoint", note.as_bytes());
        // What it covers is durable, so it may be shown even if it could not be kept.
        *lock(&self.shared.latest) = Some(checkpoint);
        written.map_err(|cause| Error::io("writing a checkpoint of the audit log", cause))
    }

    /// What is not urgent: a new spare segment, a failed log, old segments.
    fn maintain(&mut self) {
        let (failed, spare, stop) = {
            let append = lock(&self.shared.append);
            (matches!(append.health, Health::Failed(_)), append.spare.is_none(), append.stop)
        };
        if stop || self.again.is_some_and(|again| again > Instant::now()) {
            return;
        }
        self.again = None;
        if failed {
            if let Err(error) = self.heal() {
                tracing::error!(log = %self.shared.directory.display(), %error, "the audit log stays closed");
                self.again = Some(Instant::now() + PAUSE);
            }
        } else if spare {
            match self.make_spare() {
                Ok(file) => {
                    let mut append = lock(&self.shared.append);
                    append.spare = Some((file, self.shared.options.spare));
                    if matches!(append.health, Health::Spare | Health::Full) {
                        append.health = Health::Good;
                    }
                }
                Err(cause) => {
                    if !is_full(&cause) {
                        tracing::warn!(log = %self.shared.directory.display(), %cause, "the audit log has no spare segment");
                    }
                    self.again = Some(Instant::now() + PAUSE);
                }
            }
        }
        if let Some(days) = self.shared.options.retain_days
            && self.retained.is_none_or(|last| last.elapsed() >= HOURLY)
        {
            self.retained = Some(Instant::now());
            let shared = Arc::clone(&self.shared);
            let before = shared.clock.now().plus(-i64::from(days) * 86_400);
            // It waits for this thread, so it is another one's work.
            let _ = Builder::new().name("audit-retention".into()).spawn(move || {
                if let Err(error) = retain(&shared, before) {
                    tracing::warn!(log = %shared.directory.display(), %error, "old audit entries were not dropped");
                }
            });
        }
    }

    fn make_spare(&self) -> std::io::Result<Arc<dyn disk::DiskFile>> {
        let directory = self.shared.directory.join("segment");
        if let Some(file) = self.kept_spare(&directory.join(SPARE)) {
            return Ok(file);
        }
        let aside = directory.join(format!("{SPARE}.new"));
        let made = (|| {
            let file = self.shared.disk.create(&aside)?;
            let zeros = vec![0; (1 << 20).min(self.shared.options.spare) as usize];
            let mut filled = 0;
            while filled < self.shared.options.spare {
                file.write_at(&zeros, filled)?;
                filled += zeros.len() as u64;
            }
            file.sync()?;
            self.shared.disk.rename(&aside, &directory.join(SPARE))?;
            Ok(Arc::from(file))
        })();
        if made.is_err() {
            // A part of a spare would keep the room that others need.
            let _ = self.shared.disk.remove(&aside);
        }
        made
    }

    /// The spare segment of an earlier process, if nothing was written to it.
    fn kept_spare(&self, path: &Path) -> Option<Arc<dyn disk::DiskFile>> {
        let file = self.shared.disk.open(path).ok()?;
        let mut start = [1; 8];
        let read = file.read_at(&mut start, 0).ok()?;
        let unused =
            read == start.len() && start == [0; 8] && file.length().ok()? == self.shared.options.spare;
        unused.then(|| Arc::from(file))
    }

    /// Reads a log that failed again, and says what is lost.
    fn heal(&self) -> Result<()> {
        let shared = &self.shared;
        let mut append = lock(&shared.append);
        let synced = append.synced;
        let lost = append.forget_unsynced();
        append.spare = None;
        let known = lock(&shared.latest).clone();
        let found = recover(&shared.disk, &shared.directory, &shared.tiles, known.as_ref(), Some(synced))?;
        let gaps = found.gaps.clone();
        *lock(&shared.tree) = install(&mut append, found);
        append.health = Health::Good;
        let now = shared.clock.now();
        let reopened = reopen(&mut append, now, &gaps, lost);
        if reopened.is_err() && append.health == Health::Good {
            append.health = Health::Failed("it could not be opened again".into());
        }
        reopened
    }
}

fn reopen(append: &mut Append, now: Timestamp, gaps: &[String], lost: u64) -> Result<()> {
    // Whatever the disk still thinks of the old file, nothing is added to it.
    append.roll()?;
    for gap in gaps {
        append.take_entry(own(now, kind::AUDIT_GAP, None, Some(gap)))?;
    }
    let lost = format!("the disk failed; up to {lost} entries that were not durable are lost");
    append.take_entry(own(now, kind::AUDIT_GAP, None, Some(&lost)))
}

fn wait_for<'a>(
    shared: &Shared,
    append: MutexGuard<'a, Append>,
    pause: Option<Duration>,
) -> MutexGuard<'a, Append> {
    match pause {
        Some(pause) => shared.wake.wait_timeout(append, pause).unwrap_or_else(PoisonError::into_inner).0,
        None => shared.wake.wait(append).unwrap_or_else(PoisonError::into_inner),
    }
}

/// Drops the segments whose entries are all older than `before`; answers what is the first entry then.
pub(super) fn retain(shared: &Shared, before: Timestamp) -> Result<u64> {
    let segments: Vec<SegmentFile> = lock(&shared.append).segments.clone();
    let first = segments.first().map_or(0, |segment| segment.first);
    let hashed = lock(&shared.tree).size() / TILE as u64 * TILE as u64;
    let mut end = first;
    for segment in segments.iter().skip(1) {
        let begin = segment.first;
        // The segment before ends where this one begins.
        let mut last = None;
        shared.entries(begin.saturating_sub(1), |_, entry| {
            last = Some(super::entry::Entry::read(entry)?.t);
            Ok(false)
        })?;
        let covered = begin.div_ceil(TILE as u64) * TILE as u64;
        if last.is_none_or(|last| last >= before) || covered > hashed {
            break;
        }
        end = begin;
    }
    if end == first {
        return Ok(first);
    }
    // Their hashes are all that is left of them: every tile is compared with the one above it, and made
    // durable, before they go.
    let tiles = end.div_ceil(TILE as u64);
    shared.with_hashes(tiles * TILE as u64, |reader| {
        (first / TILE as u64..tiles).try_for_each(|index| reader.hashes(0, index).map(drop))
    })?;
    let during = |cause| Error::io("dropping old audit entries", cause);
    shared.tiles.sync(first / TILE as u64, tiles).map_err(during)?;
    let mut event = super::Event::by_itself(shared.clock.now(), kind::AUDIT_RETENTION);
    event.object = Some(format!("{first}-{}", end - 1));
    shared.take(&event, true)?.block()?;
    let mut append = lock(&shared.append);
    append.segments.retain(|segment| segment.first >= end);
    drop(append);
    for segment in segments.iter().filter(|segment| segment.first < end) {
        shared.disk.remove(&SegmentFile::path(&shared.directory, segment.first)).map_err(during)?;
    }
    shared.disk.sync_dir(&shared.directory.join("segment")).map_err(during)?;
    shared.people.forget_before(before).map_err(during)?;
    Ok(end)
}

#[cold]
fn stopped() -> Error {
    Error::new(ErrorKind::Unavailable, "the audit log was closed")
}
