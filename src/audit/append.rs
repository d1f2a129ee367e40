//! The end of the log: where entries get their number and go to the file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::{Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use super::disk::{Disk, DiskFile};
use super::entry::{Entry, Outcome, Text, What, hex};
use super::event::{Event, kind};
use super::person::Reduced;
use super::segment::{FRAME, Head, Place, link, push_frame};
use super::tile::TILE;
use crate::error::{Error, ErrorKind, Result};

/// Bytes of `download.end` that wait for the next write at most.
const MAX_HELD: usize = 64 << 10;
/// Bytes of entries that wait to be synced and hashed at most: more means that the disk hangs.
const MAX_UNHASHED: usize = 64 << 20;

/// The name of the spare segment.
pub(super) const SPARE: &str = "spare";

/// How the log is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Health {
    /// Events are taken.
    Good,
    /// The disk is full: events go to the spare segment that was kept for that, as long as it lasts.
    Spare,
    /// The disk is full, and so is the spare segment: no event is taken.
    Full,
    /// A write or a sync failed: no event is taken until the log has been read again.
    Failed(String),
}

impl Health {
    /// A stable lower-case name.
    pub fn as_str(&self) -> &'static str {
        match self {
            Health::Good => "good",
            Health::Spare => "spare",
            Health::Full => "full",
            Health::Failed(_) => "failed",
        }
    }
}

/// A file of entries and where they are in it.
#[derive(Clone, Debug)]
pub(super) struct SegmentFile {
    pub(super) first: u64,
    pub(super) file: Arc<dyn DiskFile>,
    /// The place of the first entry, and of every one after it whose number is a multiple of 256;
    /// empty if nobody looked yet.
    pub(super) places: Vec<Place>,
}

impl SegmentFile {
    pub(super) fn path(directory: &Path, first: u64) -> PathBuf {
        directory.join("segment").join(format!("{first:020}"))
    }

    /// Takes note of the place of an entry.
    pub(super) fn note(&mut self, seq: u64, place: Place) {
        if seq == self.first || seq.is_multiple_of(TILE as u64) {
            self.places.push(place);
        }
    }

    /// The last noted place at or before `seq`, and the number of the entry there.
    pub(super) fn place(&self, seq: u64) -> Option<(u64, Place)> {
        let index = (seq / TILE as u64).checked_sub(self.first / TILE as u64)? as usize;
        let number =
            if index == 0 { self.first } else { (self.first / TILE as u64 + index as u64) * TILE as u64 };
        self.places.get(index).map(|place| (number, *place))
    }
}

/// The end of the log.
#[derive(Debug)]
pub(super) struct Append {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) directory: PathBuf,
    /// Longest segment, and how much is filled with zeros at once.
    pub(super) limits: (u64, u64),
    /// Every segment, oldest first; the last is written to.
    pub(super) segments: Vec<SegmentFile>,
    /// The number of the next entry.
    pub(super) next: u64,
    /// Entries before this one are in the file.
    pub(super) written: u64,
    /// Entries before this one are durable.
    pub(super) synced: u64,
    /// Where the held frames go.
    pub(super) place: Place,
    /// The link after the held frames.
    pub(super) link: u32,
    /// How far the file is filled.
    pub(super) filled: u64,
    /// Frames that are not written yet.
    held: Vec<u8>,
    scratch: Vec<u8>,
    /// Entries that were written and not hashed, as frames.
    pub(super) unhashed: Vec<u8>,
    /// Files before the last that are not synced yet.
    pub(super) unsynced: Vec<Arc<dyn DiskFile>>,
    /// Whether names in `segment/` are not synced yet.
    pub(super) names_unsynced: bool,
    /// The spare segment and its length.
    pub(super) spare: Option<(Arc<dyn DiskFile>, u64)>,
    /// Downloads that began, by request.
    pub(super) open: HashMap<u64, u64>,
    pub(super) health: Health,
    /// Whether every event is to be synced before it is taken.
    pub(super) always: bool,
    pub(super) waiting: Vec<(u64, Arc<Waiter>)>,
    pub(super) waiting_for_checkpoint: Vec<Arc<Waiter>>,
    pub(super) stop: bool,
    pub(super) keeper_idle: bool,
}

impl Append {
    pub(super) fn new(disk: Arc<dyn Disk>, directory: &Path, limits: (u64, u64), always: bool) -> Append {
        Append {
            disk,
            directory: directory.to_owned(),
            limits,
            segments: Vec::new(),
            next: 0,
            written: 0,
            synced: 0,
            place: Place { offset: 0, link: 0 },
            link: 0,
            filled: 0,
            held: Vec::new(),
            scratch: Vec::new(),
            unhashed: Vec::new(),
            unsynced: Vec::new(),
            names_unsynced: false,
            spare: None,
            open: HashMap::new(),
            health: Health::Good,
            always,
            waiting: Vec::new(),
            waiting_for_checkpoint: Vec::new(),
            stop: false,
            keeper_idle: false,
        }
    }

    /// The start of the download whose end this event is, if it is in the log.
    pub(super) fn start_of(&self, event: &Event) -> Option<u64> {
        if event.kind == kind::DOWNLOAD_END { self.open.get(&event.request?).copied() } else { None }
    }

    /// Takes an event; answers its number.
    pub(super) fn take(&mut self, event: &Event, reduced: Option<&Reduced>) -> Result<u64> {
        match &self.health {
            Health::Failed(why) => return Err(failed(why)),
            _ if self.unhashed.len() > MAX_UNHASHED => return Err(hanging()),
            _ => {}
        }
        if self.place.offset + self.held.len() as u64 >= self.limits.0 {
            self.write_out()?;
            self.roll()?;
        }
        let of = self.start_of(event);
        let mut entry = entry(event, reduced, self.next, of);
        self.scratch.clear();
        entry.fit(&mut self.scratch)?;
        self.push(event.kind == kind::DOWNLOAD_END && !self.always)?;
        if let Some(request) = event.request {
            match &*event.kind {
                kind::DOWNLOAD_START => drop(self.open.insert(request, self.next - 1)),
                kind::DOWNLOAD_END => drop(self.open.remove(&request)),
                _ => {}
            }
        }
        Ok(self.next - 1)
    }

    /// Takes an entry of the log's own.
    pub(super) fn take_entry(&mut self, mut entry: Entry<'_>) -> Result<()> {
        entry.seq = self.next;
        self.scratch.clear();
        entry.fit(&mut self.scratch)?;
        self.push(false)
    }

    /// Appends what is in `scratch`.
    fn push(&mut self, may_wait: bool) -> Result<()> {
        let (start, before) = (self.held.len(), self.link);
        self.link = link(self.link, &self.scratch);
        push_frame(&mut self.held, self.link, &self.scratch);
        self.next += 1;
        if may_wait && self.held.len() < MAX_HELD {
            return Ok(());
        }
        let result = self.write_out();
        if result.is_err() && !self.held.is_empty() {
            // A failed change of segments may have linked the held frames anew; a failed log is read
            // again anyway.
            self.held.truncate(start);
            (self.link, self.next) = (before, self.next - 1);
        }
        result
    }

    /// Writes what is held.
    pub(super) fn write_out(&mut self) -> Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        let written = self.fill().and_then(|()| self.file().write_at(&self.held, self.place.offset));
        match written {
            Ok(()) if self.health == Health::Full => self.health = Health::Spare,
            Ok(()) => {}
            Err(cause) if is_full(&cause) => {
                if self.spare.is_none() {
                    self.health = Health::Full;
                    return Err(full());
                }
                self.roll()?;
                self.health = Health::Spare;
                // The spare is filled with zeros already.
                if let Err(cause) = self.file().write_at(&self.held, self.place.offset) {
                    return Err(self.fail(&cause));
                }
            }
            Err(cause) => return Err(self.fail(&cause)),
        }
        self.note_written();
        Ok(())
    }

    /// Has zeros where the held frames go: the file is not extended at every write, and a full disk
    /// is met here, where nothing is half done.
    fn fill(&mut self) -> std::io::Result<()> {
        let end = self.place.offset + self.held.len() as u64;
        while self.filled < end {
            let zeros = vec![0; self.limits.1.max(1) as usize];
            self.file().write_at(&zeros, self.filled)?;
            self.filled += zeros.len() as u64;
        }
        Ok(())
    }

    /// Takes the held frames for written.
    fn note_written(&mut self) {
        let Some(segment) = self.segments.last_mut() else { return };
        let mut at = 0;
        while let Some(head) = self.held.get(at..).and_then(|rest| rest.first_chunk::<FRAME>()) {
            segment.note(self.written, self.place);
            let length = FRAME + u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
            let link = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
            self.place = Place { offset: self.place.offset + length as u64, link };
            self.written += 1;
            at += length;
        }
        self.unhashed.extend_from_slice(&self.held);
        self.held.clear();
    }

    /// Goes on in another segment: the spare one, if there is one. Held frames go there.
    pub(super) fn roll(&mut self) -> Result<()> {
        let mut open: Vec<u64> = self.open.values().copied().collect();
        open.sort_unstable();
        let head = Head { first: self.written, open }.encode();
        let directory = self.directory.join("segment");
        let path = SegmentFile::path(&self.directory, self.written);
        let made: std::io::Result<_> = match self.spare.take() {
            Some((file, filled)) => file
                .write_at(&head, 0)
                .and_then(|()| self.disk.rename(&directory.join(SPARE), &path))
                .map(|()| (file, filled)),
            None => self.disk.create(&path).and_then(|file| {
                file.write_at(&head, 0)?;
                Ok((Arc::from(file), head.len() as u64))
            }),
        };
        let (file, filled) = match made {
            Ok(made) => made,
            Err(cause) if is_full(&cause) => {
                self.health = Health::Full;
                return Err(full());
            }
            Err(cause) => return Err(self.fail(&cause)),
        };
        self.unsynced.extend(self.segments.last().map(|segment| Arc::clone(&segment.file)));
        self.names_unsynced = true;
        self.segments.push(SegmentFile { first: self.written, file, places: Vec::new() });
        let tail = head.len() - 4;
        let first = u32::from_le_bytes([head[tail], head[tail + 1], head[tail + 2], head[tail + 3]]);
        self.place = Place { offset: head.len() as u64, link: first };
        self.filled = filled.max(head.len() as u64);
        self.relink();
        Ok(())
    }

    /// Links the held frames to the segment they go to.
    fn relink(&mut self) {
        self.link = self.place.link;
        let held = std::mem::take(&mut self.held);
        let mut rest = &held[..];
        while let Some(length) = rest.first_chunk().map(|length| u32::from_le_bytes(*length) as usize) {
            let entry = &rest[FRAME..FRAME + length];
            self.link = link(self.link, entry);
            push_frame(&mut self.held, self.link, entry);
            rest = &rest[FRAME + length..];
        }
    }

    fn file(&self) -> &dyn DiskFile {
        // A log that is open has a segment.
        &*self.segments[self.segments.len() - 1].file
    }

    /// From here on nothing is taken until the log has been read again.
    #[cold]
    pub(super) fn fail(&mut self, cause: &std::io::Error) -> Error {
        tracing::error!(log = %self.directory.display(), %cause, "the audit log failed");
        self.health = Health::Failed(cause.to_string());
        let error = failed(&cause.to_string());
        self.waiting.drain(..).for_each(|(_, waiter)| waiter.done(Err(failed(&cause.to_string()))));
        self.waiting_for_checkpoint.drain(..).for_each(|waiter| waiter.done(Err(failed(&cause.to_string()))));
        error
    }

    /// What was held or not synced is lost; what `synced` covers stays.
    pub(super) fn forget_unsynced(&mut self) -> u64 {
        let lost = self.next - self.synced;
        self.held.clear();
        self.unhashed.clear();
        self.unsynced.clear();
        let synced = self.synced;
        self.open.retain(|_, start| *start < synced);
        lost
    }
}

/// An event as an entry.
fn entry<'a>(event: &'a Event, reduced: Option<&'a Reduced>, seq: u64, of: Option<u64>) -> Entry<'a> {
    let text = |text: &'a Option<String>| text.as_deref().map(Text::from);
    let res = Outcome {
        status: event.status,
        reason: text(&event.reason),
        bytes: event.bytes,
        range: event.range,
        complete: event.complete,
    };
    let mut entry = Entry {
        seq,
        t: event.at,
        kind: (&*event.kind).into(),
        of,
        who: None,
        how: None,
        ip: None,
        cc: None,
        p: None,
        what: None,
        about: None,
        res: (res != Outcome::default()).then_some(res),
        req: event.request,
    };
    if of.is_some() {
        // The start says the rest.
        return entry;
    }
    let what = What {
        repo: event.repository.as_ref().map(|name| name.as_str().into()),
        path: event.path.as_ref().map(|path| path.as_str().into()),
        sha256: event.digest.as_ref().map(hex),
        bundle: event.bundle.as_ref().map(|bundle| bundle.as_str().into()),
        version: event.version.as_ref().map(|version| version.as_str().into()),
    };
    entry.who = Some(match reduced.and_then(|reduced| reduced.who.as_deref()) {
        Some(reduced) => reduced.into(),
        None => event.who.as_str().into(),
    });
    entry.how = text(&event.credential);
    entry.ip = reduced.and_then(|reduced| reduced.ip.as_deref()).map(Text::from);
    entry.cc = event.country;
    entry.p = reduced.and_then(|reduced| reduced.p.as_deref()).map(Text::from);
    entry.what = (what != What::default()).then_some(what);
    entry.about = text(&event.object);
    entry
}

/// Whether the disk has no room, as against not working.
pub(super) fn is_full(cause: &std::io::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(cause.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

#[cold]
fn full() -> Error {
    Error::new(ErrorKind::NoSpace, "the disk is full and the audit log takes no more events")
}

#[cold]
fn hanging() -> Error {
    Error::new(ErrorKind::Unavailable, "the disk does not keep up with the audit log")
}

#[cold]
fn failed(why: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("the audit log failed and is being read again: {why}"))
}

/// Somebody who waits until something is durable.
#[derive(Debug, Default)]
pub(super) struct Waiter {
    state: Mutex<(Option<Result<()>>, Option<Waker>)>,
    ready: Condvar,
}

impl Waiter {
    pub(super) fn done(&self, result: Result<()>) {
        let waker = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.0 = Some(result);
            state.1.take()
        };
        self.ready.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Waits on this thread.
    pub(super) fn block(&self) -> Result<()> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state =
            self.ready.wait_while(state, |state| state.0.is_none()).unwrap_or_else(PoisonError::into_inner);
        state.0.take().unwrap_or(Ok(()))
    }
}

/// Waits as a task.
#[derive(Debug)]
pub(super) struct Done(pub(super) Arc<Waiter>);

impl Future for Done {
    type Output = Result<()>;

    fn poll(self: std::pin::Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.0.take() {
            Some(result) => Poll::Ready(result),
            None => {
                state.1 = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}
