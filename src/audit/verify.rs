//! Verifying a log without the edge that wrote it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Take};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{Disk, DiskFile, OsDisk};
use super::entry::{self, Entry};
use super::event::kind;
use super::note::Checkpoint;
use super::segment::{FrameReader, MAX_ENTRY, Tail};
use super::tar;
use super::tile::{TILE, Tree, entries_path, take_unwritten, tile_path};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::key::PublicKey;
use crate::merkle::leaf;

/// What a log is verified against.
#[derive(Clone, Debug)]
pub struct Trusted {
    /// The key of the edge that wrote it.
    pub key: PublicKey,
    /// Witnesses: the name and the key of each.
    pub witnesses: Vec<(String, PublicKey)>,
    /// Checkpoints that witnesses cosigned and kept. Without one, a log whose end was cut off, or that
    /// was written anew with the edge's key, cannot be told from a good one.
    pub witnessed: Vec<Vec<u8>>,
}

impl Trusted {
    /// The edge's key alone.
    pub fn key(key: PublicKey) -> Trusted {
        Trusted { key, witnesses: Vec::new(), witnessed: Vec::new() }
    }

    /// The same, and a witness.
    #[must_use]
    pub fn with_witness(mut self, name: impl Into<String>, key: PublicKey) -> Trusted {
        self.witnesses.push((name.into(), key));
        self
    }

    /// The same, and a checkpoint that a witness kept.
    #[must_use]
    pub fn with_witnessed(mut self, note: impl Into<Vec<u8>>) -> Trusted {
        self.witnessed.push(note.into());
        self
    }
}

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The log's name, as its checkpoint says.
    pub origin: String,
    /// How many entries the checkpoint covers.
    pub size: u64,
    /// The entries that are there.
    pub entries: Range<u64>,
    /// Witnesses whose word was found and holds: the name, the size, and when.
    pub witnessed: Vec<(String, u64, Timestamp)>,
    /// The first thing that is wrong.
    pub flaw: Option<Flaw>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.flaw.is_none()
    }

    /// Entries after those that the checkpoint covers: there is no proof for them yet.
    pub fn unsigned(&self) -> u64 {
        self.entries.end.saturating_sub(self.size)
    }
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// The first entry that is bad, as far as that can be told.
    pub entry: Option<u64>,
    /// What is wrong.
    pub why: String,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.entry {
            Some(entry) => write!(f, "entry {entry}: {}", self.why),
            None => f.write_str(&self.why),
        }
    }
}

/// Verifies the log in `path`: the directory of a log, or an export (`.tar`, or what was unpacked from
/// one). It is read through once.
///
/// # Errors
/// [`ErrorKind::Io`] and [`ErrorKind::NotFound`] if it cannot be read. What is wrong with what was read
/// is in the report.
pub fn verify(path: impl AsRef<Path>, trusted: &Trusted, now: Timestamp) -> Result<Report> {
    let path = path.as_ref();
    let mut files = Files::open(path).map_err(|cause| {
        let kind = match cause.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::InvalidData => ErrorKind::Invalid,
            _ => ErrorKind::Io,
        };
        Error::new(kind, format!("reading {}: {cause}", path.display()))
    })?;
    let mut verifier = Verifier {
        tree: Tree::default(),
        notes: Vec::new(),
        report: Report { origin: String::new(), size: 0, entries: 0..0, witnessed: Vec::new(), flaw: None },
        suspect: None,
        retained: 0,
        fits: false,
    };
    match verifier.run(&mut files, trusted, now) {
        Ok(()) => {}
        Err(Stop::Flaw(flaw)) => verifier.report.flaw = Some(flaw),
        Err(Stop::Io(cause)) => return Err(Error::io(format_args!("reading {}", path.display()), cause)),
    }
    Ok(verifier.report)
}

enum Stop {
    Flaw(Flaw),
    Io(io::Error),
}

impl From<io::Error> for Stop {
    fn from(cause: io::Error) -> Stop {
        Stop::Io(cause)
    }
}

#[cold]
fn flaw(entry: impl Into<Option<u64>>, why: impl Into<String>) -> Stop {
    Stop::Flaw(Flaw { entry: entry.into(), why: why.into() })
}

struct Verifier {
    tree: Tree,
    /// Sizes and roots that must be met on the way, and who says so.
    notes: Vec<(Checkpoint, String)>,
    report: Report,
    /// The first entry that does not fit the stored hashes.
    suspect: Option<(u64, String)>,
    /// Entries before this one were dropped by retention, as a later entry says.
    retained: u64,
    /// Whether some signed root was met.
    fits: bool,
}

impl Verifier {
    fn run(&mut self, files: &mut Files, trusted: &Trusted, now: Timestamp) -> Result<(), Stop> {
        let note = files.small("checkpoint")?.ok_or_else(|| flaw(None, "there is no checkpoint"))?;
        let checkpoint = self.own_note(&note, "the checkpoint", trusted, now)?;
        (self.report.origin, self.report.size) = (checkpoint.origin.clone(), checkpoint.size);
        self.witnesses(&checkpoint, trusted, now)?;
        if let Some(note) = files.small("cosigned")? {
            let cosigned = self.own_note(&note, "the cosigned checkpoint", trusted, now)?;
            if self.witnesses(&cosigned, trusted, now)? == 0 && !trusted.witnesses.is_empty() {
                return Err(flaw(None, "the cosigned checkpoint has no cosignature of a known witness"));
            }
            self.notes.push((cosigned, "the cosigned checkpoint".into()));
        }
        for note in &trusted.witnessed {
            let seen = Checkpoint::parse(note)
                .map_err(|error| flaw(None, format!("what a witness kept cannot be read: {error}")))?;
            if self.witnesses(&seen, trusted, now)? == 0 {
                return Err(flaw(None, "what a witness kept has no cosignature of a known witness"));
            }
            if seen.origin != checkpoint.origin {
                return Err(flaw(None, format!("what a witness kept is of the log {}", seen.origin)));
            }
            self.notes.push((seen, "a witness".into()));
        }
        let signed = checkpoint.size;
        self.notes.push((checkpoint, "the checkpoint".into()));
        self.notes.sort_by_key(|(note, _)| note.size);
        if let Some((seen, who)) = self.notes.last().filter(|(note, _)| note.size > signed) {
            let why = format!(
                "{who} speaks of {} entries, the log is signed up to {signed}: its end was cut off",
                seen.size
            );
            return Err(flaw(signed, why));
        }
        let entries = self.entries(files);
        // A tile that does not fit says where an entry was changed, if the signed root was not met.
        match (entries, self.suspect.take()) {
            (Ok(()), None) => {}
            (Ok(()), Some((entry, why))) => return Err(flaw(entry, why)),
            (Err(Stop::Flaw(found)), Some((entry, why)))
                if !self.fits && found.entry.is_none_or(|found| entry <= found) =>
            {
                return Err(flaw(entry, why));
            }
            (Err(stop), _) => return Err(stop),
        }
        if self.report.entries.start > self.retained {
            return Err(flaw(
                0,
                "entries are missing at the beginning, and no entry says that they were dropped",
            ));
        }
        Ok(())
    }

    fn own_note(
        &self,
        note: &[u8],
        what: &str,
        trusted: &Trusted,
        now: Timestamp,
    ) -> Result<Checkpoint, Stop> {
        let bad = |error: Error| flaw(None, format!("{what}: {error}"));
        let checkpoint = Checkpoint::parse(note).map_err(bad)?;
        checkpoint.verify(&trusted.key, now).map_err(bad)?;
        if self.report.origin.is_empty() || self.report.origin == checkpoint.origin {
            Ok(checkpoint)
        } else {
            Err(flaw(None, format!("{what} is of another log")))
        }
    }

    /// Notes who cosigned; how many of the known witnesses did.
    fn witnesses(&mut self, note: &Checkpoint, trusted: &Trusted, now: Timestamp) -> Result<usize, Stop> {
        let mut count = 0;
        for (name, key) in &trusted.witnesses {
            let cosigned = note.verify_cosignature(name, key, now);
            if let Some(at) = cosigned.map_err(|error| flaw(None, error.to_string()))? {
                self.report.witnessed.push((name.clone(), note.size, at));
                count += 1;
            }
        }
        Ok(count)
    }

    fn entries(&mut self, files: &mut Files) -> Result<(), Stop> {
        let first = files.first()?;
        self.report.entries = first..first;
        self.meet()?;
        // What was dropped is there by its hashes.
        while self.tree.size() < first {
            let size = self.tree.size();
            let name = tile_path(0, size / TILE as u64, TILE);
            let bytes = files.small(&name)?.filter(|bytes| bytes.len() == 32 * TILE);
            let bytes = bytes.ok_or_else(|| flaw(size, format!("{name} is missing or damaged")))?;
            for hash in bytes.as_chunks::<32>().0.iter().take((first - size) as usize) {
                self.tree.push(*hash);
                self.meet()?;
            }
            take_unwritten(&mut self.tree);
        }
        let mut stream = files.stream(first)?;
        loop {
            let seq = self.tree.size();
            match stream.next(seq) {
                Ok(Some(entry)) => {
                    if entry::seq(entry) != Some(seq) {
                        return Err(flaw(seq, "it does not have this number"));
                    }
                    if entry::kind(entry) == Some(kind::AUDIT_RETENTION.as_bytes()) {
                        self.retention(entry);
                    }
                    self.tree.push(leaf(entry));
                }
                Ok(None) => break,
                Err(stop) => return Err(stop),
            }
            self.report.entries.end = self.tree.size();
            self.meet()?;
            if self.tree.size().is_multiple_of(TILE as u64) {
                self.compare(files)?;
            }
        }
        let end = self.tree.size();
        if end < self.report.size {
            return Err(flaw(end, "it is missing, and so are those after it"));
        }
        self.partial(files)
    }

    fn retention(&mut self, entry: &[u8]) {
        let about = Entry::read(entry).ok().and_then(|entry| entry.about.map(|about| about.to_string()));
        let last =
            about.and_then(|about| about.split_once('-').and_then(|(_, last)| last.parse::<u64>().ok()));
        self.retained = self.retained.max(last.map_or(0, |last| last.saturating_add(1)));
    }

    /// Compares the root with what is signed over this size.
    fn meet(&mut self) -> Result<(), Stop> {
        let size = self.tree.size();
        while let Some((note, who)) = self.notes.first().filter(|(note, _)| note.size == size) {
            if note.root != self.tree.root() {
                self.fits = false;
                let why = format!("the {size} entries up to here are not those that {who} was signed over");
                return Err(flaw(size.saturating_sub(1), why));
            }
            self.fits = true;
            self.notes.remove(0);
        }
        Ok(())
    }

    /// Compares the tiles that have become full with those that are stored.
    fn compare(&mut self, files: &mut Files) -> Result<(), Stop> {
        for tile in take_unwritten(&mut self.tree) {
            if self.suspect.is_some() {
                return Ok(());
            }
            let (level, index, hashes) = tile.parts();
            let name = tile_path(level, index, TILE);
            let stored = files.small(&name)?;
            self.suspect(level, index, &name, hashes, stored);
        }
        Ok(())
    }

    fn suspect(
        &mut self,
        level: u32,
        index: u64,
        name: &str,
        hashes: &[crate::merkle::Hash],
        stored: Option<Vec<u8>>,
    ) {
        let first = (index * TILE as u64) << (8 * level);
        match stored {
            // Files of tiles are not synced: a log that lost its power may lack some.
            None => {}
            Some(bytes) if bytes == hashes.as_flattened() => {}
            Some(bytes) => {
                let differs = |at: &usize| bytes.as_chunks::<32>().0.get(*at) != Some(&hashes[*at]);
                let at = (0..hashes.len()).find(differs).unwrap_or_default();
                let entry = first + ((at as u64) << (8 * level));
                self.suspect = Some((entry, format!("it does not fit the hash in {name}")));
            }
        }
    }

    /// An export has the partial tiles as well.
    fn partial(&mut self, files: &mut Files) -> Result<(), Stop> {
        let size = self.tree.size();
        for (level, hashes) in self.tree.edge().iter().enumerate().filter(|(_, hashes)| !hashes.is_empty()) {
            let index = size >> (8 * (level + 1));
            let name = tile_path(level as u32, index, hashes.len());
            if self.suspect.is_none()
                && let Some(stored) = files.small(&name)?
            {
                let hashes = hashes.clone();
                self.suspect(level as u32, index, &name, &hashes, Some(stored));
                return Ok(());
            }
        }
        Ok(())
    }
}

/// The files of a log.
enum Files {
    Directory(PathBuf),
    Archive { path: PathBuf, file: File, index: BTreeMap<String, (u64, u64)> },
}

impl Files {
    fn open(path: &Path) -> io::Result<Files> {
        if path.is_dir() {
            return Ok(Files::Directory(path.to_owned()));
        }
        let mut file = File::open(path)?;
        let index = tar::index(&mut BufReader::new(&mut file))?;
        Ok(Files::Archive { path: path.to_owned(), file, index })
    }

    /// A file that is small enough to be read whole.
    fn small(&mut self, name: &str) -> io::Result<Option<Vec<u8>>> {
        // A bundle of the longest entries is the largest of them.
        const LIMIT: u64 = (TILE * (2 + MAX_ENTRY)) as u64 + 1;
        let mut bytes = Vec::new();
        match self {
            Files::Directory(path) => match File::open(path.join(name)) {
                Ok(file) => file.take(LIMIT).read_to_end(&mut bytes)?,
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(cause) => return Err(cause),
            },
            Files::Archive { file, index, .. } => {
                let Some((offset, length)) = index.get(name) else { return Ok(None) };
                file.seek(SeekFrom::Start(*offset))?;
                file.take((*length).min(LIMIT)).read_to_end(&mut bytes)?
            }
        };
        Ok(Some(bytes))
    }

    fn segments(&self) -> io::Result<Option<Vec<u64>>> {
        let Files::Directory(path) = self else { return Ok(None) };
        match OsDisk.list(&path.join("segment")) {
            Ok(names) => {
                let numbers = names.iter().filter(|name| name.len() == 20);
                let mut firsts: Vec<u64> = numbers.filter_map(|name| name.parse().ok()).collect();
                firsts.sort_unstable();
                Ok(Some(firsts))
            }
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(cause),
        }
    }

    /// The number of the first entry that is there.
    fn first(&mut self) -> io::Result<u64> {
        if let Some(firsts) = self.segments()? {
            return Ok(firsts.first().copied().unwrap_or(0));
        }
        let Some(mut lines) = self.lines()? else { return Ok(0) };
        let mut line = Vec::new();
        lines.read_until(b'\n', &mut line)?;
        Ok(entry::seq(&line).unwrap_or(0))
    }

    fn lines(&mut self) -> io::Result<Option<BufReader<Take<File>>>> {
        match self {
            Files::Directory(path) => match File::open(path.join(super::export::LINES)) {
                Ok(file) => Ok(Some(BufReader::with_capacity(1 << 18, file.take(u64::MAX)))),
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(cause) => Err(cause),
            },
            Files::Archive { path, index, .. } => {
                let Some((offset, length)) = index.get(super::export::LINES) else { return Ok(None) };
                let mut file = File::open(path)?;
                file.seek(SeekFrom::Start(*offset))?;
                Ok(Some(BufReader::with_capacity(1 << 18, file.take(*length))))
            }
        }
    }

    /// The entries from `first` on.
    fn stream(&mut self, first: u64) -> Result<Stream, Stop> {
        if let (Files::Directory(path), Some(firsts)) = (&*self, self.segments()?) {
            let directory = path.join("segment");
            return Ok(Stream::Segments { directory, firsts: firsts.into(), reader: None });
        }
        let Some(lines) = self.lines()? else {
            return Err(flaw(None, format!("there is neither a segment nor {}", super::export::LINES)));
        };
        let bundles = match self {
            Files::Directory(path) => Files::Directory(path.clone()),
            Files::Archive { path, index, .. } => {
                Files::Archive { path: path.clone(), file: File::open(&*path)?, index: index.clone() }
            }
        };
        Ok(Stream::Lines { lines, line: Vec::new(), bundles, bundle: Vec::new(), at: 0, next: first })
    }
}

/// Entries, one after the other.
enum Stream {
    Segments {
        directory: PathBuf,
        firsts: std::collections::VecDeque<u64>,
        reader: Option<FrameReader<Arc<dyn DiskFile>>>,
    },
    /// The lines of an export, compared with its bundles.
    Lines {
        lines: BufReader<Take<File>>,
        line: Vec<u8>,
        bundles: Files,
        bundle: Vec<u8>,
        at: usize,
        next: u64,
    },
}

impl Stream {
    fn next(&mut self, seq: u64) -> Result<Option<&[u8]>, Stop> {
        let mut failed = None;
        match self {
            Stream::Segments { directory, firsts, reader } => loop {
                let advanced = reader.as_mut().is_some_and(|reader| match reader.advance() {
                    Ok(advanced) => advanced,
                    Err(cause) => {
                        failed = Some(cause);
                        false
                    }
                });
                if let Some(cause) = failed.take() {
                    return Err(cause.into());
                }
                if advanced {
                    return Ok(reader.as_ref().map(FrameReader::entry));
                }
                if reader.as_ref().is_some_and(|reader| reader.tail() == Tail::Torn) {
                    return Err(flaw(seq, "it is damaged"));
                }
                let Some(first) = firsts.pop_front() else { return Ok(None) };
                if first != seq {
                    return Err(flaw(seq, "it is missing"));
                }
                let file: Arc<dyn DiskFile> =
                    Arc::from(OsDisk.open(&directory.join(format!("{first:020}")))?);
                match FrameReader::start(file)? {
                    Some((head, started)) if head.first == first => *reader = Some(started),
                    _ => return Err(flaw(seq, "the head of its segment is damaged")),
                }
            },
            Stream::Lines { lines, line, bundles, bundle, at, next } => {
                line.clear();
                lines.take(MAX_ENTRY as u64 + 2).read_until(b'\n', line)?;
                if *next % TILE as u64 == 0 || bundle.is_empty() {
                    *bundle = read_bundle(bundles, *next / TILE as u64)?.unwrap_or_default();
                    *at = 0;
                    // An export may begin in the middle of a bundle.
                    for _ in 0..*next % TILE as u64 {
                        *at += bundled(bundle, *at).map_or(0, |entry| 2 + entry.len());
                    }
                }
                let entry = bundled(bundle, *at);
                if line.is_empty() {
                    return if entry.is_none() { Ok(None) } else { Err(flaw(seq, "it is in no line")) };
                }
                if line.pop() != Some(b'\n') || entry != Some(&**line) {
                    return Err(flaw(seq, "the line is not the entry that is in the bundle"));
                }
                (*at, *next) = (*at + 2 + line.len(), *next + 1);
                Ok(Some(line))
            }
        }
    }
}

fn bundled(bundle: &[u8], at: usize) -> Option<&[u8]> {
    let rest = bundle.get(at..)?;
    let length = usize::from(u16::from_be_bytes(*rest.first_chunk()?));
    rest.get(2..2 + length)
}

/// A bundle: a full one, or the widest partial one.
fn read_bundle(files: &mut Files, index: u64) -> io::Result<Option<Vec<u8>>> {
    if let Some(full) = files.small(&entries_path(index, TILE))? {
        return Ok(Some(full));
    }
    let width = match files {
        Files::Directory(path) => {
            let partial = entries_path(index, 1);
            let directory = path.join(partial.trim_end_matches("/1"));
            match OsDisk.list(&directory) {
                Ok(names) => names.iter().filter_map(|name| name.parse().ok()).max(),
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => None,
                Err(cause) => return Err(cause),
            }
        }
        Files::Archive { index: names, .. } => {
            (1..TILE).rev().find(|width| names.contains_key(&entries_path(index, *width)))
        }
    };
    match width {
        Some(width) => files.small(&entries_path(index, width)),
        None => Ok(None),
    }
}
