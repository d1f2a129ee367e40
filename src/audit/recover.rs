//! Opening a log: what is there, what a crash left half done, what is missing.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::append::{SPARE, SegmentFile};
use super::disk::{self, Disk, DiskFile};
use super::entry;
use super::event::kind;
use super::note::Checkpoint;
use super::segment::{FrameReader, Place, Tail};
use super::tile::{TILE, TileStore, Tree, restore};
use crate::error::{Error, ErrorKind, Result};
use crate::merkle::{Hash, leaf};

/// A log as it was found.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) segments: Vec<SegmentFile>,
    /// The number of the next entry.
    pub(super) next: u64,
    /// Where it goes.
    pub(super) place: Place,
    /// How far the last segment is filled.
    pub(super) filled: u64,
    pub(super) tree: Tree,
    /// Downloads that began and did not end.
    pub(super) open: BTreeSet<u64>,
    /// What is missing, for `audit.gap`.
    pub(super) gaps: Vec<String>,
}

/// Reads the log in `directory`. Entries from `trusted` on are cut off: they were not synced when the
/// disk failed.
pub(super) fn recover(
    disk: &Arc<dyn Disk>,
    directory: &Path,
    tiles: &TileStore,
    checkpoint: Option<&Checkpoint>,
    trusted: Option<u64>,
) -> Result<Recovered> {
    let during = |cause| Error::io(format_args!("opening the audit log {}", directory.display()), cause);
    let folder = directory.join("segment");
    let mut firsts = Vec::new();
    for name in disk.list(&folder).map_err(during)? {
        match name.parse::<u64>() {
            Ok(first) if name.len() == 20 => firsts.push(first),
            _ if name.starts_with(SPARE) && name != SPARE => {
                disk.remove(&folder.join(&name)).map_err(during)?
            }
            _ => {}
        }
    }
    firsts.sort_unstable();
    let mut found = Recovered {
        segments: Vec::new(),
        next: 0,
        place: Place { offset: 0, link: 0 },
        filled: 0,
        tree: Tree::default(),
        open: BTreeSet::new(),
        gaps: Vec::new(),
    };
    let signed = checkpoint.map_or(0, |checkpoint| checkpoint.size);
    // Nothing that was signed before needs to be read again.
    let covered = signed.min(trusted.unwrap_or(u64::MAX)) / TILE as u64 * TILE as u64;
    let begin = firsts.partition_point(|first| *first <= covered).saturating_sub(1);
    let mut leaves: Vec<Hash> = Vec::new();
    for (at, first) in firsts.iter().enumerate() {
        let path = SegmentFile::path(directory, *first);
        let file: Arc<dyn DiskFile> = Arc::from(disk.open(&path).map_err(during)?);
        if at < begin {
            found.segments.push(SegmentFile { first: *first, file, places: Vec::new() });
            continue;
        }
        let follows = at == begin || *first == found.next;
        let beyond = trusted.is_some_and(|trusted| *first > trusted || *first == trusted && at > begin);
        let read = if follows && !beyond { read(&file, *first, trusted).map_err(during)? } else { None };
        let Some(read) = read else {
            // Nothing behind a hole was ever acknowledged. If the disk decayed, the checkpoint says
            // that something is missing; it is kept aside.
            let aside = folder.join(format!("{first:020}.aside"));
            disk.rename(&path, &aside).map_err(during)?;
            continue;
        };
        if at == begin && *first > covered {
            // What came before was dropped by retention; its hashes are in tiles.
            leaves.clear();
        }
        leaves.extend(read.leaves.iter().skip(covered.saturating_sub(*first) as usize));
        found.open = read.open;
        (found.next, found.place, found.filled) = (read.next, read.place, read.place.offset);
        if read.tail == Tail::Clean && read.next == read.end {
            found.filled = file.length().map_err(during)?;
        } else {
            file.set_length(read.place.offset).map_err(during)?;
        }
        // What another process wrote may be in memory only; from here on it counts as durable.
        file.sync().map_err(during)?;
        found.segments.push(SegmentFile { first: *first, file, places: read.places });
    }
    disk.sync_dir(&folder).map_err(during)?;

    if let Some(checkpoint) = checkpoint.filter(|checkpoint| checkpoint.size > found.next) {
        found.gaps.push(format!(
            "the last checkpoint was signed over {} entries, {} are there",
            checkpoint.size, found.next
        ));
    }
    if found.segments.is_empty() {
        return Ok(found);
    }
    let checkpoint = checkpoint.filter(|checkpoint| checkpoint.size <= found.next);
    let near = covered <= found.next && found.segments[begin.min(found.segments.len() - 1)].first <= covered;
    let quick = near.then(|| restore(tiles, covered, &[])).and_then(Result::ok);
    if let Some(mut tree) = quick
        && grow(&mut tree, &leaves, checkpoint)
    {
        found.tree = tree;
        return Ok(found);
    }
    let (tree, fits) = rebuild(tiles, &found.segments, found.next, checkpoint)?;
    found.tree = tree;
    if !fits {
        found.gaps.push("the entries are not those over which the last checkpoint was signed".into());
    }
    Ok(found)
}

/// Adds leaves; tells whether the root is that of the checkpoint on the way.
fn grow(tree: &mut Tree, leaves: &[Hash], checkpoint: Option<&Checkpoint>) -> bool {
    let mut fits = true;
    let mut check = |tree: &Tree| {
        if let Some(checkpoint) = checkpoint.filter(|checkpoint| checkpoint.size == tree.size()) {
            fits = tree.root() == checkpoint.root;
        }
    };
    check(tree);
    for leaf in leaves {
        tree.push(*leaf);
        check(tree);
    }
    fits
}

/// The tree from every entry that is there, and the tiles of those that retention dropped.
fn rebuild(
    tiles: &TileStore,
    segments: &[SegmentFile],
    next: u64,
    checkpoint: Option<&Checkpoint>,
) -> Result<(Tree, bool)> {
    let mut tree = Tree::default();
    let dropped = segments.first().map_or(0, |segment| segment.first);
    let mut fits = true;
    while tree.size() < dropped {
        let hashes = tiles.read(0, tree.size() / TILE as u64)?;
        let wanted = (dropped - tree.size()).min(TILE as u64) as usize;
        fits &= grow(&mut tree, &hashes[..wanted], checkpoint);
    }
    for segment in segments {
        let read = read(&segment.file, segment.first, Some(next))
            .map_err(|cause| Error::io("reading a segment of the audit log", cause))?;
        let leaves = read.map(|read| read.leaves).unwrap_or_default();
        if segment.first != tree.size() {
            return Err(Error::new(
                ErrorKind::Corrupted,
                format!("the audit log lacks the entries {} to {}", tree.size(), segment.first - 1),
            ));
        }
        fits &= grow(&mut tree, &leaves, checkpoint);
    }
    Ok((tree, fits))
}

struct Read {
    next: u64,
    /// The number after the last good entry, whether it is trusted or not.
    end: u64,
    place: Place,
    places: Vec<Place>,
    leaves: Vec<Hash>,
    open: BTreeSet<u64>,
    tail: Tail,
}

/// Reads a segment whose first entry is number `first`; `None` if its head is not good.
fn read(file: &Arc<dyn DiskFile>, first: u64, trusted: Option<u64>) -> std::io::Result<Option<Read>> {
    let Some((head, mut reader)) = FrameReader::start(Arc::clone(file))? else { return Ok(None) };
    if head.first != first {
        return Ok(None);
    }
    let mut segment = SegmentFile { first, file: Arc::clone(file), places: Vec::new() };
    let mut open: BTreeSet<u64> = head.open.into_iter().collect();
    let (mut next, mut leaves) = (first, Vec::new());
    let mut place = reader.place();
    let mut end = first;
    while let Some(bytes) = reader.next()? {
        if entry::seq(bytes) != Some(end) {
            break;
        }
        end += 1;
        if trusted.is_some_and(|trusted| next >= trusted) {
            continue;
        }
        segment.note(next, place);
        leaves.push(leaf(bytes));
        track(bytes, next, &mut open);
        next += 1;
        place = reader.place();
    }
    let tail = reader.tail();
    Ok(Some(Read { next, end, place, places: segment.places, leaves, open, tail }))
}

/// Follows which downloads are open.
fn track(bytes: &[u8], seq: u64, open: &mut BTreeSet<u64>) {
    match entry::kind(bytes) {
        // One that no request joins to its end is not followed.
        Some(kind)
            if kind == kind::DOWNLOAD_START.as_bytes()
                && entry::Entry::read(bytes).is_ok_and(|entry| entry.req.is_some()) =>
        {
            open.insert(seq);
        }
        Some(kind) if kind == kind::DOWNLOAD_END.as_bytes() => {
            if let Some(start) = entry::Entry::read(bytes).ok().and_then(|entry| entry.of) {
                open.remove(&start);
            }
        }
        _ => {}
    }
}

/// The noted places of a segment that nobody read yet.
pub(super) fn places(file: &Arc<dyn DiskFile>, first: u64) -> std::io::Result<Vec<Place>> {
    let mut segment = SegmentFile { first, file: Arc::clone(file), places: Vec::new() };
    if let Some((_, mut reader)) = FrameReader::start(Arc::clone(file))? {
        let mut seq = first;
        let mut place = reader.place();
        while reader.next()?.is_some() {
            segment.note(seq, place);
            (seq, place) = (seq + 1, reader.place());
        }
    }
    Ok(segment.places)
}

/// Reads a note that was written by this log, if it is there and whole.
pub(super) fn read_note(disk: &dyn Disk, path: &Path) -> Result<Option<Checkpoint>> {
    let bytes = disk::read_if_there(disk, path)
        .map_err(|cause| Error::io(format_args!("reading {}", path.display()), cause))?;
    Ok(bytes.and_then(|bytes| Checkpoint::parse(&bytes).ok()))
}
