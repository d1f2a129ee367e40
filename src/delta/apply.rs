//! Making a blob from a patch artefact.

use std::io::{self, Write};
use std::ops::Range;
use std::sync::Arc;

use super::medium::{ReadAt, Scratch, Spool};
use super::open::{Limits, Recipe};
use super::ops::{self, Op};
use super::pair::each_chunk;
use super::patch::{self, Details, Header, Method};
use super::space::Space;
use super::windows::{groups, holes, windows};
use super::wire::Fields;
use super::{code, lz};
use crate::digest::{Digest, Hasher};
use crate::error::{Error, ErrorKind, Result};

/// Bytes of the target stream that any blob may have.
const FLOOR: u64 = 64 << 20;

/// Plain bytes of a control frame.
const MOST_CONTROL: u64 = 64 << 20;

/// What an artefact says about itself; nothing of it is proven.
///
/// # Errors
/// [`ErrorKind::Corrupted`] if it is no artefact, [`ErrorKind::Unsupported`] if it is one of a
/// later version.
pub fn inspect(artefact: &dyn ReadAt) -> Result<Header> {
    patch::read(artefact).map(|(header, _, _)| header)
}

/// Writes the blob that `artefact` makes of `bases` to `out`, and says what it is.
///
/// `bases` are found by their digests; more than the artefact needs may be given. Bytes reach
/// `out` before their digest is known: whoever keeps them must wait for the `Ok`. `limits` bound
/// what is decoded on the way; never more bytes come than the header declares.
///
/// # Errors
/// [`ErrorKind::NotFound`] if a base is missing, [`ErrorKind::Corrupted`] for a damaged artefact,
/// [`ErrorKind::Mismatch`] if what came out is not the blob (because the artefact lies, or a base
/// is not what it was), [`ErrorKind::TooLarge`] if `limits` are not enough.
pub fn apply(
    artefact: &dyn ReadAt,
    bases: &[(Digest, Arc<dyn ReadAt>)],
    limits: &Limits,
    scratch: &dyn Scratch,
    out: &mut dyn Write,
) -> Result<Header> {
    let (header, details, start) = patch::read(artefact)?;
    let mut sink = Sink { out, hasher: Hasher::new(), left: header.size, failed: None };
    let made = match details {
        None => plain(artefact, &header, start, &mut sink),
        Some(details) => patched(artefact, &header, &details, start, bases, limits, scratch, &mut sink),
    };
    if let Some(error) = sink.failed.take() {
        return Err(error);
    }
    made?;
    let found = sink.hasher.finish();
    if sink.left > 0 || found != header.digest {
        return Err(wrong(&header, sink.left, bases));
    }
    Ok(header)
}

fn plain(artefact: &dyn ReadAt, header: &Header, start: u64, sink: &mut Sink<'_>) -> Result<()> {
    let rest = start..artefact.size();
    match header.method {
        Method::Whole => each_chunk(artefact, &rest, &mut |chunk| sink.write_all(chunk).map_err(unwritten)),
        _ => lz::stream_out(artefact, &rest, sink),
    }
}

#[allow(clippy::too_many_arguments)]
fn patched(
    artefact: &dyn ReadAt,
    header: &Header,
    details: &Details,
    start: u64,
    bases: &[(Digest, Arc<dyn ReadAt>)],
    limits: &Limits,
    scratch: &dyn Scratch,
    sink: &mut Sink<'_>,
) -> Result<()> {
    within(&details.limits, limits)?;
    let mut needed: Vec<&dyn ReadAt> = Vec::new();
    for digest in &header.bases {
        let found = bases.iter().find(|(known, _)| known == digest);
        let (_, data) = found.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("the patch needs {digest}, which is not here"))
        })?;
        needed.push(&**data);
    }
    let space = Space::open(&needed, &details.splits, scratch, &details.limits)?;
    // What is made on the way to a small blob is not large either.
    let from_ratio = header.size.saturating_mul(details.limits.ratio.into()).saturating_add(FLOOR);
    let most = details.limits.plain.min(from_ratio).saturating_add(header.size);
    let mut reader = Data { artefact, at: start };
    if details.control > MOST_CONTROL {
        return Err(Error::new(ErrorKind::TooLarge, "patch: its control is too long"));
    }
    let frame = reader.next(details.control_frame, details.control)?;
    let control = lz::decompress(&space.shape(), &frame, details.control as usize)?;
    let mut fields = Fields::new(&control, "patch");
    let recipe = fields.number()?;
    let recipe = Recipe::parse(fields.take(recipe)?, &details.limits)?;
    let target = recipe.target_size();
    if target > most {
        let message = format!("patch: it makes {target} bytes on the way, and {most} are allowed");
        return Err(Error::new(ErrorKind::TooLarge, message));
    }
    let ops = ops::read(&mut fields, &space, target)?;
    let made = engines(&ops, &space, &mut fields, &mut reader, scratch)?;
    reader.end()?;
    let target = Target::new(&ops, &space, &made);
    recipe.fold(&target, sink)
}

/// The limits a patch was made with must be no more than those that are given here.
pub(super) fn within(asked: &Limits, allowed: &Limits) -> Result<()> {
    let fits = asked.plain <= allowed.plain
        && asked.depth <= allowed.depth
        && asked.streams <= allowed.streams
        && asked.parts <= allowed.parts
        && asked.ratio <= allowed.ratio
        && asked.memory <= allowed.memory;
    if fits {
        return Ok(());
    }
    Err(Error::new(ErrorKind::TooLarge, format!("the patch asks for {asked:?}; allowed are {allowed:?}")))
}

/// What the engines made, one after the other.
#[derive(Debug)]
struct Made {
    windows: Box<dyn Spool>,
    code: Box<dyn Spool>,
    headers: Box<dyn Spool>,
}

fn engines(
    ops: &[Op],
    space: &Space<'_>,
    fields: &mut Fields<'_>,
    reader: &mut Data<'_>,
    scratch: &dyn Scratch,
) -> Result<Made> {
    let (windows, groups) = (windows(ops, space), groups(ops, space));
    let lengths = (0..windows.len() + groups.len()).map(|_| fields.number()).collect::<Result<Vec<_>>>()?;
    fields.end()?;
    let (window_lengths, group_lengths) = lengths.split_at(windows.len());
    let mut made = Made { windows: scratch.spool()?, code: scratch.spool()?, headers: scratch.spool()? };
    for (window, length) in windows.iter().zip(window_lengths) {
        let context = context(space, &window.context)?;
        let frame = reader.next(*length, window.length)?;
        made.windows.append(&lz::decompress(&context, &frame, window.length as usize)?)?;
    }
    for op in ops {
        let Op::Header { like, adds } = op else { continue };
        let range = space.leaves().get(*like).map_or(0..0, |leaf| leaf.range.clone());
        let mut header = context(space, &[range])?;
        ops::add_to(&mut header, adds)?;
        made.headers.append(&header)?;
    }
    for (group, length) in groups.iter().zip(group_lengths) {
        let total = group.iter().map(|op| if let Op::Code { length, .. } = &ops[*op] { *length } else { 0 });
        let total = total.sum();
        let bytes = reader.next(*length, total)?;
        let mut decoder = code::Decoder::new(&bytes, total)?;
        for op in group {
            let Op::Code { like, length } = &ops[*op] else { continue };
            let old = space.leaves().get(*like).map_or(0..0, |leaf| leaf.range.clone());
            let old = context(space, &[old])?;
            let before = made.code.size();
            decoder.next(&old, *length, &mut |piece| made.code.append(piece))?;
            if made.code.size() - before != *length {
                let message =
                    format!("patch: a member has {} of its {length} bytes", made.code.size() - before);
                return Err(Error::new(ErrorKind::Corrupted, message));
            }
        }
    }
    Ok(made)
}

/// The bytes of some ranges, one after the other.
pub(crate) fn context(bytes: &dyn ReadAt, ranges: &[Range<u64>]) -> Result<Vec<u8>> {
    let total: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    let mut context = vec![0; usize::try_from(total).map_err(|_| too_long(total))?];
    let mut at = 0;
    for range in ranges {
        let length = (range.end - range.start) as usize;
        bytes.read_exact_at(&mut context[at..at + length], range.start)?;
        at += length;
    }
    Ok(context)
}

/// Takes the data of windows and groups off the artefact.
struct Data<'a> {
    artefact: &'a dyn ReadAt,
    at: u64,
}

impl Data<'_> {
    /// The next `length` bytes, which stand for `plain` ones.
    fn next(&mut self, length: u64, plain: u64) -> Result<Vec<u8>> {
        // What is taken into memory: no engine makes much more of what cannot be made less.
        if length > plain.saturating_add(plain / 2).saturating_add(64 << 10) {
            let message = format!("patch: {length} bytes of it are to make {plain}");
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        let end = self.at.checked_add(length).filter(|end| *end <= self.artefact.size());
        let end = end.ok_or_else(|| Error::new(ErrorKind::Corrupted, "patch: it ends too early"))?;
        let bytes = context(self.artefact, &[self.at..end])?;
        self.at = end;
        Ok(bytes)
    }

    fn end(&self) -> Result<()> {
        match self.artefact.size() - self.at {
            0 => Ok(()),
            left => Err(Error::new(ErrorKind::Corrupted, format!("patch: {left} bytes after its end"))),
        }
    }
}

/// Where a stretch of the target stream lies.
#[derive(Clone, Copy, Debug)]
enum Place {
    Bases(u64),
    Windows(u64),
    Code(u64),
    Headers(u64),
}

/// The target stream: bases and what the engines made, as the ops put them together.
#[derive(Debug)]
struct Target<'a> {
    space: &'a Space<'a>,
    made: &'a Made,
    starts: Vec<(u64, Place)>,
    size: u64,
}

impl<'a> Target<'a> {
    fn new(ops: &[Op], space: &'a Space<'a>, made: &'a Made) -> Target<'a> {
        let mut target = Target { space, made, starts: Vec::new(), size: 0 };
        let (mut from_windows, mut from_code, mut from_headers) = (0, 0, 0);
        for op in ops {
            match op {
                Op::Leaf(leaf) => {
                    let range = space.leaves().get(*leaf).map_or(0..0, |leaf| leaf.range.clone());
                    target.push(range.end - range.start, Place::Bases(range.start));
                }
                Op::Coded(place) => {
                    let range = space.places().get(*place).map_or(0..0, |place| place.coded.clone());
                    target.push(range.end - range.start, Place::Bases(range.start));
                }
                Op::Code { length, .. } => {
                    target.push(*length, Place::Code(from_code));
                    from_code += length;
                }
                Op::Header { like, .. } => {
                    let range = space.leaves().get(*like).map_or(0..0, |leaf| leaf.range.clone());
                    target.push(range.end - range.start, Place::Headers(from_headers));
                    from_headers += range.end - range.start;
                }
                Op::New { length, runs, .. } => {
                    let mut runs_left = runs.iter().peekable();
                    let mut holes = holes(*length, runs).peekable();
                    while runs_left.peek().is_some() || holes.peek().is_some() {
                        let next_run = runs_left.peek().map_or(u64::MAX, |run| run.new);
                        if holes.peek().is_some_and(|hole| hole.start < next_run) {
                            let hole = holes.next().unwrap_or_default();
                            target.push(hole.end - hole.start, Place::Windows(from_windows));
                            from_windows += hole.end - hole.start;
                        } else if let Some(run) = runs_left.next() {
                            target.push(run.length, Place::Bases(run.old));
                        }
                    }
                }
            }
        }
        target
    }

    fn push(&mut self, length: u64, place: Place) {
        if length > 0 {
            self.starts.push((self.size, place));
            self.size += length;
        }
    }
}

impl ReadAt for Target<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        if offset >= self.size {
            return Ok(0);
        }
        let index = self.starts.partition_point(|(start, _)| *start <= offset);
        let end = self.starts.get(index).map_or(self.size, |(start, _)| *start);
        let Some((start, place)) = index.checked_sub(1).and_then(|index| self.starts.get(index)) else {
            return Ok(0);
        };
        let length = (end - offset).min(buffer.len() as u64) as usize;
        let buffer = &mut buffer[..length];
        match place {
            Place::Bases(at) => self.space.read_at(buffer, at + (offset - start)),
            Place::Windows(at) => self.made.windows.read_at(buffer, at + (offset - start)),
            Place::Code(at) => self.made.code.read_at(buffer, at + (offset - start)),
            Place::Headers(at) => self.made.headers.read_at(buffer, at + (offset - start)),
        }
    }
}

/// Passes bytes on, counts them down and hashes them.
struct Sink<'a> {
    out: &'a mut dyn Write,
    hasher: Hasher,
    left: u64,
    failed: Option<Error>,
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            let error = Error::new(ErrorKind::Mismatch, "the patch makes more bytes than it declares");
            self.failed = self.failed.take().or(Some(error));
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if let Err(cause) = self.out.write_all(bytes) {
            let kind = cause.kind();
            self.failed = self.failed.take().or_else(|| Some(unwritten(cause)));
            return Err(kind.into());
        }
        self.hasher.update(bytes);
        self.left -= bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// What went wrong, when all went well but the blob is another one.
#[cold]
fn wrong(header: &Header, left: u64, bases: &[(Digest, Arc<dyn ReadAt>)]) -> Error {
    for (digest, data) in bases.iter().filter(|(digest, _)| header.bases.contains(digest)) {
        match super::pair::digest(data, &(0..data.size())) {
            Ok(found) if found == *digest => {}
            Ok(found) => {
                let message = format!("the base {digest} is not what it was: its bytes have {found}");
                return Error::new(ErrorKind::Mismatch, message);
            }
            Err(error) => return error.context(format_args!("reading the base {digest} again")),
        }
    }
    let message = match left {
        0 => format!("the patch does not make {}", header.digest),
        left => format!("the patch makes {left} bytes less than the {} it declares", header.size),
    };
    Error::new(ErrorKind::Mismatch, message)
}

#[cold]
fn unwritten(cause: io::Error) -> Error {
    Error::io("writing what a patch makes", cause)
}

#[cold]
fn too_long(length: u64) -> Error {
    Error::new(ErrorKind::TooLarge, format!("{length} bytes do not fit into memory"))
}
