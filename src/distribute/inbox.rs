//! Where artefacts wait until all of their frames are here.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::blob::vfs::read_at;
use crate::clock::Timestamp;
use crate::delta::ReadAt;
use crate::delta::pack::{FRAME, Frame, PartHead, SectionId, Tag, frame_length, frame_tag};
use crate::digest::{Digest, Hasher};
use crate::error::{Error, ErrorKind, Result};

/// What a map file begins with; the last byte is its version.
const MAP: &[u8; 8] = b"DEINBOX\x01";
/// A frame in a map file: its number and its tag.
const NOTE: usize = 4 + 8;
/// How many sections may wait, however small they are.
const MAX_SECTIONS: usize = 65_536;

/// Takes artefacts frame by frame, in any order, and gives back what is whole. Clones share it.
///
/// # Layout
/// ```text
/// <hex>.data    the artefact's bytes, with holes where frames are missing
/// <hex>.map     its head, then a note of each frame that is here: number and tag
/// <hex>.note    what is remembered of a set of volumes
/// ```
///
/// # Crashes
/// A frame is written before it is noted, and nothing is synced: what a killed process had noted is
/// here. After a crash of the machine a note may stand for bytes that are not here, so each frame
/// is checked against its tag before it counts. A whole artefact is given out only if its SHA-256 is
/// the section's.
///
/// # Blocking
/// All calls wait for the disk.
#[derive(Clone)]
pub struct Inbox(Arc<Inner>);

struct Inner {
    directory: Option<PathBuf>,
    limit: u64,
    used: AtomicU64,
    sections: Mutex<HashMap<SectionId, Shared>>,
    /// The notes of an inbox in memory; held while one in a directory is changed.
    notes: Mutex<HashMap<Digest, Vec<u8>>>,
}

type Shared = Arc<Mutex<Section>>;

/// What is here of a section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The head it came with.
    pub head: PartHead,
    /// The frames that are not here, in order; none if it is whole.
    pub missing: Vec<Range<u64>>,
}

struct Section {
    head: PartHead,
    frames: Frames,
    /// How many frames are here.
    received: u64,
    /// The digest of the frames before this one, as long as they came in order.
    prefix: (Hasher, u64),
    /// Notes that nobody has checked since the inbox was opened.
    unchecked: Vec<(u64, Tag)>,
    writing: bool,
    verified: bool,
    removed: bool,
}

enum Frames {
    Memory(BTreeMap<u64, Bytes>),
    File { data: Arc<File>, map: File, here: Vec<u64> },
}

impl Inbox {
    /// An inbox in a directory, which is made if it is not there; it goes on with what is in it.
    /// All artefacts together take at most `limit` bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if the directory cannot be used.
    pub fn directory(path: impl AsRef<Path>, limit: u64) -> Result<Inbox> {
        let path = path.as_ref();
        crate::secret::private_directory(path).map_err(|cause| doing("creating", path, cause))?;
        let inbox = Inbox::new(Some(path.to_owned()), limit);
        let mut sections = HashMap::new();
        let mut strangers = Vec::new();
        for entry in fs::read_dir(path).map_err(|cause| doing("listing", path, cause))? {
            let file = entry.map_err(|cause| doing("listing", path, cause))?.path();
            let section = file.file_stem().and_then(|stem| stem.to_str()).map(Digest::from_hex);
            match (section, file.extension().and_then(|extension| extension.to_str())) {
                (Some(Ok(id)), Some("map")) => {
                    if let Some(section) = inbox.0.load(path, &id)? {
                        inbox.0.used.fetch_add(section.unchecked_bytes(), Ordering::Relaxed);
                        sections.insert(id, Arc::new(Mutex::new(section)));
                    } else {
                        strangers.push(file);
                    }
                }
                (Some(Ok(id)), Some("data")) => strangers.push(path.join(format!("{}.data", id.to_hex()))),
                _ => {}
            }
        }
        // A crash came between the two files, or left a map that cannot be read.
        for file in strangers {
            let known = file.file_stem().and_then(|stem| stem.to_str()).map(Digest::from_hex);
            if !known.is_some_and(|id| id.is_ok_and(|id| sections.contains_key(&id))) {
                remove_file(&file)?;
            }
        }
        *lock(&inbox.0.sections) = sections;
        Ok(inbox)
    }

    /// An inbox in memory, of at most `limit` bytes. What is in it is gone with the process.
    pub fn memory(limit: u64) -> Inbox {
        Inbox::new(None, limit)
    }

    fn new(directory: Option<PathBuf>, limit: u64) -> Inbox {
        let (used, sections, notes) = Default::default();
        Inbox(Arc::new(Inner { directory, limit, used, sections, notes }))
    }

    /// How many bytes of artefacts are here.
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed)
    }

    /// The heads of all sections, whole or not, in order of their digests.
    pub fn sections(&self) -> Vec<PartHead> {
        let sections: Vec<Shared> = lock(&self.0.sections).values().cloned().collect();
        let mut heads: Vec<PartHead> = sections.iter().map(|section| lock(section).head.clone()).collect();
        heads.sort_by_key(|head| head.section);
        heads
    }

    /// What is here of a section, if anything is. The first time after a start it reads all of it.
    pub fn position(&self, section: &SectionId) -> Result<Option<Position>> {
        let Some(shared) = self.0.find(section) else { return Ok(None) };
        let mut section = lock(&shared);
        self.0.check(&mut section)?;
        Ok(Some(Position { head: section.head.clone(), missing: section.missing() }))
    }

    /// Begins to take frames of a section. Which ones is up to the caller.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] while another part of it is being taken; [`ErrorKind::NoSpace`] if what
    /// is missing of it does not fit; [`ErrorKind::Mismatch`] if the section is known with another
    /// length.
    pub fn accept(&self, head: &PartHead) -> Result<PartWriter> {
        loop {
            let shared = self.0.find_or_make(head)?;
            let mut section = lock(&shared);
            // It was removed between the two.
            if section.removed {
                continue;
            }
            if section.head.length != head.length {
                let message = format!(
                    "{} has {} bytes, and a part of it says {}",
                    head.section, section.head.length, head.length
                );
                return Err(Error::new(ErrorKind::Mismatch, message));
            }
            if section.writing {
                let message = format!("another part of {} is being received", head.section);
                return Err(Error::new(ErrorKind::Conflict, message));
            }
            self.0.check(&mut section)?;
            self.0.fits(head.length.saturating_sub(section.bytes()))?;
            section.writing = true;
            drop(section);
            return Ok(PartWriter { inner: self.0.clone(), section: shared });
        }
    }

    /// The whole artefact, once all frames are here.
    ///
    /// # Errors
    /// [`ErrorKind::Mismatch`] if its bytes are not those the section is named after; then all of it
    /// is dropped.
    pub fn complete(&self, section: &SectionId) -> Result<Option<Arc<dyn ReadAt>>> {
        let Some(shared) = self.0.find(section) else { return Ok(None) };
        let mut locked = lock(&shared);
        self.0.check(&mut locked)?;
        if locked.removed || locked.received < locked.head.frames() {
            return Ok(None);
        }
        if !locked.verified {
            if locked.digest()? != *section {
                drop(locked);
                self.0.forget(section, &shared)?;
                let message = format!(
                    "what was received as the artefact {section} has another digest; all of it is dropped"
                );
                return Err(Error::new(ErrorKind::Mismatch, message));
            }
            locked.verified = true;
        }
        Ok(Some(locked.artefact()))
    }

    /// Forgets a section; whoever reads its artefact keeps it. `true` if it was here.
    pub fn remove(&self, section: &SectionId) -> Result<bool> {
        let Some(shared) = self.0.find(section) else { return Ok(false) };
        self.0.forget(section, &shared)?;
        Ok(true)
    }

    /// Forgets the sections for which `keep` says no, and in a directory those to which nothing came
    /// since `oldest`. Those that are being received stay. Answers how many bytes that freed.
    pub fn collect(&self, oldest: Timestamp, keep: &dyn Fn(&PartHead) -> bool) -> Result<u64> {
        let sections: Vec<(SectionId, Shared)> =
            lock(&self.0.sections).iter().map(|(id, section)| (*id, section.clone())).collect();
        let mut freed = 0;
        for (id, shared) in sections {
            let section = lock(&shared);
            if section.writing || (keep(&section.head) && section.last()? >= oldest) {
                continue;
            }
            freed += section.bytes() + section.unchecked_bytes();
            drop(section);
            self.0.forget(&id, &shared)?;
        }
        self.0.forget_notes(oldest)?;
        Ok(freed)
    }

    /// Changes what is remembered under a digest; `None` is nothing, before and after.
    pub(super) fn note<T>(
        &self,
        of: &Digest,
        change: impl FnOnce(Option<Vec<u8>>) -> Result<(Option<Vec<u8>>, T)>,
    ) -> Result<T> {
        let mut notes = lock(&self.0.notes);
        let Some(directory) = &self.0.directory else {
            let (after, answer) = change(notes.remove(of))?;
            notes.extend(after.map(|after| (*of, after)));
            return Ok(answer);
        };
        let path = directory.join(format!("{}.note", of.to_hex()));
        let before = match fs::read(&path) {
            Ok(bytes) => Some(bytes),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => None,
            Err(cause) => return Err(doing("reading", &path, cause)),
        };
        let (after, answer) = change(before)?;
        match after {
            None => remove_file(&path)?,
            Some(after) => {
                let draft = path.with_extension("draft");
                let written = fs::write(&draft, after).and_then(|()| fs::rename(&draft, &path));
                written.map_err(|cause| doing("writing", &path, cause))?;
            }
        }
        Ok(answer)
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox")
            .field("directory", &self.0.directory)
            .field("limit", &self.0.limit)
            .field("used", &self.used())
            .finish_non_exhaustive()
    }
}

/// Takes frames of one section; nobody else does until it is dropped.
pub struct PartWriter {
    inner: Arc<Inner>,
    section: Shared,
}

impl PartWriter {
    /// Keeps a frame; one that is here already is left as it is. The frame's tag is believed: it comes
    /// from a reader, or from [`Frame::new`].
    ///
    /// # Errors
    /// [`ErrorKind::NoSpace`] if the inbox or the disk is full; [`ErrorKind::Invalid`] for a frame that
    /// the section does not have; [`ErrorKind::Conflict`] if the section was removed meanwhile.
    pub fn frame(&mut self, frame: &Frame) -> Result<()> {
        let mut section = lock(&self.section);
        let expected = frame_length(section.head.length, frame.index);
        if expected == 0 || frame.bytes.len() as u64 != expected {
            let message = format!(
                "{} has no frame {} of {} bytes",
                section.head.section,
                frame.index,
                frame.bytes.len()
            );
            return Err(Error::invalid(message));
        }
        if section.removed {
            let message = format!("{} was dropped while it was being received", section.head.section);
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        if section.frames.has(frame.index) {
            return Ok(());
        }
        self.inner.fits(expected)?;
        let id = section.head.section;
        let put = section.put(frame);
        put.map_err(|cause| Error::io(format_args!("keeping a frame of {id}"), cause))?;
        if section.prefix.1 == frame.index {
            section.prefix.0.update(&frame.bytes);
            section.prefix.1 += 1;
        }
        self.inner.used.fetch_add(expected, Ordering::Relaxed);
        Ok(())
    }

    /// Makes what is here durable, for frames that are hard to come by once more.
    pub fn sync(&self) -> Result<()> {
        let section = lock(&self.section);
        let Frames::File { data, map, .. } = &section.frames else { return Ok(()) };
        let synced = data.sync_data().and_then(|()| map.sync_data());
        synced.map_err(|cause| Error::io(format_args!("keeping {}", section.head.section), cause))
    }

    /// Whether a frame is here already.
    pub fn has(&self, index: u64) -> bool {
        lock(&self.section).frames.has(index)
    }
}

impl Drop for PartWriter {
    fn drop(&mut self) {
        lock(&self.section).writing = false;
    }
}

impl fmt::Debug for PartWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartWriter")
            .field("section", &lock(&self.section).head.section)
            .finish_non_exhaustive()
    }
}

impl Inner {
    fn find(&self, section: &SectionId) -> Option<Shared> {
        lock(&self.sections).get(section).cloned()
    }

    fn find_or_make(&self, head: &PartHead) -> Result<Shared> {
        let mut sections = lock(&self.sections);
        if let Some(section) = sections.get(&head.section) {
            return Ok(section.clone());
        }
        if sections.len() >= MAX_SECTIONS {
            let message = format!("{MAX_SECTIONS} artefacts wait in the inbox, more do not fit");
            return Err(Error::new(ErrorKind::NoSpace, message));
        }
        self.fits(head.length)?;
        let frames = match &self.directory {
            None => Frames::Memory(BTreeMap::new()),
            Some(directory) => create(directory, head)?,
        };
        let section = Arc::new(Mutex::new(Section::new(head.clone(), frames)));
        sections.insert(head.section, section.clone());
        Ok(section)
    }

    /// What the two files say of a section; `None` if they cannot be read as one.
    fn load(&self, directory: &Path, id: &SectionId) -> Result<Option<Section>> {
        let (data, map) = paths(directory, id);
        let bytes = fs::read(&map).map_err(|cause| doing("reading", &map, cause))?;
        let Some((head, notes)) = parse_map(&bytes).filter(|(head, _)| head.section == *id) else {
            return Ok(None);
        };
        let open = |path: &Path| OpenOptions::new().read(true).write(true).open(path);
        let data = match open(&data) {
            Ok(file) => file,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(doing("opening", &data, cause)),
        };
        let file = OpenOptions::new().read(true).append(true).open(&map);
        let file = file.map_err(|cause| doing("opening", &map, cause))?;
        cut_torn_note(&file, &head).map_err(|cause| doing("cutting", &map, cause))?;
        let here = vec![0; head.frames().div_ceil(64) as usize];
        let mut section = Section::new(head, Frames::File { data: Arc::new(data), map: file, here });
        section.unchecked = notes;
        Ok(Some(section))
    }

    /// Checks what the map says, once: a frame whose bytes are not those that were noted is missing.
    fn check(&self, section: &mut Section) -> Result<()> {
        if section.unchecked.is_empty() {
            return Ok(());
        }
        let counted = section.unchecked_bytes();
        let mut good = Vec::new();
        let mut buffer = Vec::new();
        for (index, tag) in &section.unchecked {
            buffer.resize(frame_length(section.head.length, *index) as usize, 0);
            let there = section.frames.read(&mut buffer, *index)?;
            if there && frame_tag(&section.head.section, *index, &buffer) == *tag {
                good.push(*index);
            }
        }
        section.unchecked.clear();
        section.received = good.len() as u64;
        good.into_iter().for_each(|index| section.frames.mark(index));
        self.used.fetch_sub(counted - section.bytes(), Ordering::Relaxed);
        Ok(())
    }

    fn fits(&self, bytes: u64) -> Result<()> {
        let used = self.used.load(Ordering::Relaxed);
        if used.saturating_add(bytes) <= self.limit {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::NoSpace,
            format!("the inbox holds {used} bytes of at most {}, and {bytes} more do not fit", self.limit),
        ))
    }

    /// Removes the notes that were not changed since `oldest`.
    fn forget_notes(&self, oldest: Timestamp) -> Result<()> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let _notes = lock(&self.notes);
        for entry in fs::read_dir(directory).map_err(|cause| doing("listing", directory, cause))? {
            let path = entry.map_err(|cause| doing("listing", directory, cause))?.path();
            if path.extension().is_some_and(|extension| extension == "note" || extension == "draft") {
                let about = fs::metadata(&path).map_err(|cause| doing("examining", &path, cause))?;
                if changed(&about).map_err(|cause| doing("examining", &path, cause))? < oldest {
                    remove_file(&path)?;
                }
            }
        }
        Ok(())
    }

    fn forget(&self, id: &SectionId, shared: &Shared) -> Result<()> {
        let mut sections = lock(&self.sections);
        let mut section = lock(shared);
        if std::mem::replace(&mut section.removed, true) {
            return Ok(());
        }
        sections.remove(id);
        self.used.fetch_sub(section.bytes() + section.unchecked_bytes(), Ordering::Relaxed);
        if let Some(directory) = &self.directory {
            let (data, map) = paths(directory, id);
            remove_file(&map)?;
            remove_file(&data)?;
        }
        Ok(())
    }
}

impl Section {
    fn new(head: PartHead, frames: Frames) -> Section {
        Section {
            head,
            frames,
            received: 0,
            prefix: (Hasher::new(), 0),
            unchecked: Vec::new(),
            writing: false,
            verified: false,
            removed: false,
        }
    }

    /// Writes a frame, and then its note.
    fn put(&mut self, frame: &Frame) -> io::Result<()> {
        match &mut self.frames {
            Frames::Memory(frames) => {
                frames.insert(frame.index, frame.bytes.clone());
            }
            Frames::File { data, map, .. } => {
                write_all_at(data, &frame.bytes, frame.index * FRAME)?;
                let mut note = [0; NOTE];
                let (number, tag) = note.split_at_mut(4);
                // No artefact may be so long that this cuts anything.
                number.copy_from_slice(&(frame.index as u32).to_le_bytes());
                tag.copy_from_slice(&frame.tag);
                if let Err(cause) = map.write_all(&note) {
                    cut_torn_note(map, &self.head)?;
                    return Err(cause);
                }
            }
        }
        self.frames.mark(frame.index);
        self.received += 1;
        Ok(())
    }

    /// How many bytes the frames that are here have.
    fn bytes(&self) -> u64 {
        let last = self.head.frames().saturating_sub(1);
        let short = FRAME - frame_length(self.head.length, last);
        self.received * FRAME - if self.received > 0 && self.frames.has(last) { short } else { 0 }
    }

    fn unchecked_bytes(&self) -> u64 {
        self.unchecked.iter().map(|(index, _)| frame_length(self.head.length, *index)).sum()
    }

    fn missing(&self) -> Vec<Range<u64>> {
        let mut missing: Vec<Range<u64>> = Vec::new();
        for index in 0..self.head.frames() {
            if self.frames.has(index) {
                continue;
            }
            match missing.last_mut() {
                Some(range) if range.end == index => range.end += 1,
                _ => missing.push(index..index + 1),
            }
        }
        missing
    }

    /// The digest of all bytes, which are here.
    fn digest(&mut self) -> Result<Digest> {
        let mut buffer = Vec::new();
        while self.prefix.1 < self.head.frames() {
            buffer.resize(frame_length(self.head.length, self.prefix.1) as usize, 0);
            if !self.frames.read(&mut buffer, self.prefix.1)? {
                let message = format!("a frame of {} is gone from the inbox", self.head.section);
                return Err(Error::new(ErrorKind::Corrupted, message));
            }
            self.prefix.0.update(&buffer);
            self.prefix.1 += 1;
        }
        Ok(self.prefix.0.clone().finish())
    }

    fn artefact(&self) -> Arc<dyn ReadAt> {
        match &self.frames {
            Frames::Memory(frames) => {
                Arc::new(Pieces { pieces: frames.values().cloned().collect(), size: self.head.length })
            }
            Frames::File { data, .. } => Arc::new(Artefact { data: data.clone(), size: self.head.length }),
        }
    }

    /// When something came to it last; far in the future in memory, which has no old sections.
    fn last(&self) -> Result<Timestamp> {
        let Frames::File { map, .. } = &self.frames else { return Ok(Timestamp::MAX) };
        let about = map.metadata().and_then(|about| changed(&about));
        about.map_err(|cause| Error::io("examining the inbox", cause))
    }
}

impl Frames {
    fn has(&self, index: u64) -> bool {
        match self {
            Frames::Memory(frames) => frames.contains_key(&index),
            Frames::File { here, .. } => {
                here.get((index / 64) as usize).is_some_and(|word| word >> (index % 64) & 1 == 1)
            }
        }
    }

    fn mark(&mut self, index: u64) {
        if let Frames::File { here, .. } = self
            && let Some(word) = here.get_mut((index / 64) as usize)
        {
            *word |= 1 << (index % 64);
        }
    }

    /// Reads frame `index`; `false` if it is not there.
    fn read(&self, buffer: &mut [u8], index: u64) -> Result<bool> {
        match self {
            Frames::Memory(frames) => {
                let Some(bytes) = frames.get(&index).filter(|bytes| bytes.len() == buffer.len()) else {
                    return Ok(false);
                };
                buffer.copy_from_slice(bytes);
                Ok(true)
            }
            Frames::File { data, .. } => {
                let mut done = 0;
                while done < buffer.len() {
                    let read = read_at(data, &mut buffer[done..], index * FRAME + done as u64);
                    match read.map_err(|cause| Error::io("reading the inbox", cause))? {
                        0 => return Ok(false),
                        read => done += read,
                    }
                }
                Ok(true)
            }
        }
    }
}

/// A whole artefact in a file.
#[derive(Debug)]
struct Artefact {
    data: Arc<File>,
    size: u64,
}

impl ReadAt for Artefact {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let left = self.size.saturating_sub(offset).min(buffer.len() as u64) as usize;
        read_at(&self.data, &mut buffer[..left], offset)
            .map_err(|cause| Error::io("reading the inbox", cause))
    }
}

/// A whole artefact in memory, frame by frame.
#[derive(Debug)]
struct Pieces {
    pieces: Vec<Bytes>,
    size: u64,
}

impl ReadAt for Pieces {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let piece = usize::try_from(offset / FRAME).ok().and_then(|index| self.pieces.get(index));
        piece.map_or(Ok(0), |piece| piece.read_at(buffer, offset % FRAME))
    }
}

fn paths(directory: &Path, id: &SectionId) -> (PathBuf, PathBuf) {
    let hex = id.to_hex();
    (directory.join(format!("{hex}.data")), directory.join(format!("{hex}.map")))
}

fn create(directory: &Path, head: &PartHead) -> Result<Frames> {
    let (data_path, map_path) = paths(directory, &head.section);
    let mut options = OpenOptions::new();
    options.read(true).create_new(true);
    remove_file(&data_path)?;
    let data = options.clone().write(true).open(&data_path);
    let data = data.map_err(|cause| doing("creating", &data_path, cause))?;
    remove_file(&map_path)?;
    let map = options.append(true).open(&map_path);
    let mut map = map.map_err(|cause| doing("creating", &map_path, cause))?;
    map.write_all(&map_header(head)).map_err(|cause| doing("writing", &map_path, cause))?;
    let here = vec![0; head.frames().div_ceil(64) as usize];
    Ok(Frames::File { data: Arc::new(data), map, here })
}

fn map_header(head: &PartHead) -> Vec<u8> {
    let head = head.to_bytes();
    [MAP, &(head.len() as u32).to_le_bytes()[..], &head].concat()
}

/// A note that was torn would shift those that follow it.
fn cut_torn_note(map: &File, head: &PartHead) -> io::Result<()> {
    let length = map.metadata()?.len();
    let torn = length.saturating_sub(map_header(head).len() as u64) % NOTE as u64;
    if torn == 0 { Ok(()) } else { map.set_len(length - torn) }
}

/// The head and the notes in a map file.
fn parse_map(bytes: &[u8]) -> Option<(PartHead, Vec<(u64, Tag)>)> {
    let rest = bytes.strip_prefix(MAP)?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (head, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    let head = PartHead::parse(head).ok()?;
    let mut notes = Vec::new();
    for note in rest.chunks_exact(NOTE) {
        let (number, tag) = note.split_first_chunk::<4>()?;
        let index = u64::from(u32::from_le_bytes(*number));
        if index < head.frames() {
            notes.push((index, tag.try_into().ok()?));
        }
    }
    // A frame that was found damaged and came again has two notes; the last one is right.
    notes.reverse();
    notes.sort_by_key(|(index, _)| *index);
    notes.dedup_by_key(|(index, _)| *index);
    Some((head, notes))
}

/// When a file was changed last.
fn changed(about: &fs::Metadata) -> io::Result<Timestamp> {
    let since = about.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Ok(Timestamp::from_unix(i64::try_from(since.as_secs()).unwrap_or(i64::MAX)))
}

fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::write_all_at(file, bytes, offset);
    #[cfg(windows)]
    {
        let mut done = 0;
        while done < bytes.len() {
            done += std::os::windows::fs::FileExt::seek_write(file, &bytes[done..], offset + done as u64)?;
        }
        Ok(())
    }
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(doing("removing", path, cause)),
        _ => Ok(()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cold]
fn doing(what: &str, path: &Path, cause: io::Error) -> Error {
    Error::io(format_args!("{what} {}", path.display()), cause)
}

#[cfg(test)]
#[path = "inbox_tests.rs"]
mod tests;
