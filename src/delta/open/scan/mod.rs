//! Finding compressed streams through containers, by content.
//!
//! A scanner of a container walks it front to back, tells [`Scanner`] where members lie, and
//! leaves alone what it does not understand. Whatever the bytes are, the parts that come out tile
//! what was scanned; errors are those of the medium only.

mod ar;
mod gzip;
mod tar;
mod xz;
mod zip;
mod zstd;

use std::ops::Range;
use std::sync::Arc;

use super::Limits;
use super::image::{Image, Kind, Method, Part, Slice, Stream};
use crate::delta::deflate;
use crate::delta::medium::{ReadAt, Scratch};
use crate::error::{Error, ErrorKind, Result};

/// Members smaller than this stay with the frame around them.
const TINY_MEMBER: u64 = 256;
/// Streams smaller than this are not worth a line in a recipe.
const TINY_STREAM: u64 = 32;
/// Names are cut to their last bytes.
const NAME: usize = 256;
/// What every stream may decode to, whatever the ratio.
const FLOOR: u64 = 1 << 20;
/// How much of the beginning of a member its kind is told by.
const HEAD: usize = 512;

/// Opens `blob` as far as `limits` allow. Whatever is odd or damaged stays as it is.
///
/// # Errors
/// Those of the media only.
pub(crate) fn open<'a>(
    blob: &'a dyn ReadAt,
    name: &str,
    scratch: &'a dyn Scratch,
    limits: &Limits,
) -> Result<Image<'a>> {
    let image = Image::new(blob, scratch, limits.memory);
    let mut scanner = Scanner { image, limits, spent: 0, group: 0..0, depth: 0 };
    scanner.region(0..blob.size(), name.into(), 0)?;
    scanner.image.end_layer();
    let mut depths: Vec<u8> = Vec::new();
    while let Some(stream) = scanner.image.streams().get(scanner.group.end) {
        let name = stream.name.clone();
        let outer = stream.parent.and_then(|parent| depths.get(parent)).copied();
        scanner.depth = outer.map_or(1, |depth| depth.saturating_add(1));
        let range = scanner.next_group();
        depths.resize(scanner.group.end, scanner.depth);
        let first = scanner.image.parts().len();
        scanner.region(range, name, scanner.depth)?;
        scanner.image.end_layers(first, scanner.group.clone());
    }
    Ok(scanner.image)
}

/// What an entry of a container promises about a coded stream.
#[derive(Clone, Copy, Debug)]
struct Promise {
    coded: u64,
    plain: u64,
}

/// A stream that begins in the decoded bytes of one stream and ends in those of the next.
struct Crosses;

pub(super) struct Scanner<'s, 'a> {
    image: Image<'a>,
    limits: &'s Limits,
    /// Bytes that were decoded, for nothing or not.
    spent: u64,
    /// The streams whose decoded bytes are being scanned as if they were one, and how deep they lie.
    group: Range<usize>,
    depth: u8,
}

impl Scanner<'_, '_> {
    /// Goes to the next streams that belong together; gives where they lie.
    fn next_group(&mut self) -> Range<u64> {
        let streams = self.image.streams().get(self.group.end..).unwrap_or_default();
        let (mut range, mut length) = (0..0, 0);
        for stream in streams {
            if length == 0 {
                range.start = stream.plain.start;
            } else if !stream.joined {
                break;
            }
            range.end = stream.plain.end;
            length += 1;
        }
        self.group = self.group.end..self.group.end + length;
        range
    }

    /// The stream of the group that all of `range` lies in; `Err` if it lies in several.
    fn layer_of(&self, range: &Range<u64>) -> Result<Option<usize>, Crosses> {
        let streams = self.image.streams().get(self.group.clone()).unwrap_or_default();
        let at = streams.partition_point(|stream| stream.plain.end <= range.start);
        match streams.get(at) {
            Some(stream) if range.end > stream.plain.end => Err(Crosses),
            Some(_) => Ok(Some(self.group.start + at)),
            None => Ok(None),
        }
    }

    /// Scans a member, or a whole layer: adds parts that tile `range`.
    fn region(&mut self, range: Range<u64>, name: Arc<str>, nest: u8) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let room = self.image.parts().len() < self.limits.parts as usize;
        if nest < self.limits.depth && room {
            let mut head = [0; HEAD];
            let length = self.fill(&mut head, range.clone())?;
            let head = head.get(..length).unwrap_or_default();
            let mut frame = Frame::new(range.clone(), &name, nest);
            if gzip::is(head) {
                gzip::scan(self, &mut frame)?;
            } else if tar::is(head) {
                tar::scan(self, &mut frame)?;
            } else if ar::is(head) {
                ar::scan(self, &mut frame)?;
            } else if xz::is(head) {
                xz::scan(self, &mut frame)?;
            } else if zstd::is(head) {
                zstd::scan(self, &mut frame)?;
            } else {
                zip::scan(self, &mut frame, head)?;
            }
            if frame.found {
                return self.frame_to(&mut frame, range.end);
            }
        }
        self.part(range, &name, Kind::Content, None);
        Ok(())
    }

    /// A member of a container at `range`; what lies before it belongs to the frame.
    fn member(&mut self, frame: &mut Frame, range: Range<u64>, name: &str) -> Result<()> {
        frame.found = true;
        if range.end - range.start < TINY_MEMBER || !self.has_room() {
            return Ok(());
        }
        self.frame_to(frame, range.start)?;
        frame.cursor = range.end;
        let name = frame.inside(name);
        self.region(range, name, frame.nest + 1)
    }

    /// A member that is not looked into.
    fn opaque(&mut self, frame: &mut Frame, range: Range<u64>, name: &str) -> Result<()> {
        if range.end - range.start < TINY_MEMBER || !self.has_room() {
            return Ok(());
        }
        self.frame_to(frame, range.start)?;
        frame.cursor = range.end;
        let name = frame.inside(name);
        self.part(range, &name, Kind::Content, None);
        Ok(())
    }

    /// A part of the frame that belongs to one member.
    fn header(&mut self, frame: &mut Frame, range: Range<u64>, name: &str) -> Result<()> {
        if range.start < frame.cursor || !self.has_room() {
            return Ok(());
        }
        self.frame_to(frame, range.start)?;
        frame.cursor = range.end;
        let name = frame.inside(name);
        self.part(range, &name, Kind::Frame, None);
        Ok(())
    }

    /// Decodes the stream that begins at `range` and ends in it; gives where it ends, or `None`
    /// if it stays closed. `name` is that of what comes out.
    fn stream(
        &mut self,
        frame: &mut Frame,
        method: Method,
        range: Range<u64>,
        promise: Option<Promise>,
        name: Arc<str>,
    ) -> Result<Option<u64>> {
        let length = range.end - range.start;
        let streams = self.image.streams().len() < self.limits.streams as usize;
        if length < TINY_STREAM || !streams || !self.has_room() || frame.nest >= self.limits.depth {
            return Ok(None);
        }
        let left = self.limits.plain.saturating_sub(self.spent);
        let ratio = length.saturating_mul(u64::from(self.limits.ratio)).max(FLOOR);
        let mut limit = left.min(ratio);
        if let Some(promise) = promise {
            if promise.plain > limit {
                return Ok(None);
            }
            limit = promise.plain;
        }
        let spool_at = usize::from(self.depth);
        let mut spool = self.image.take_layer_spool(spool_at)?;
        let start = spool.size();
        let decoded = {
            let coded = Slice::new(&self.image, range.clone());
            let mut out = |bytes: &[u8]| spool.append(bytes);
            match method {
                Method::Deflate => {
                    deflate::inflate(&coded, 0, limit, &mut out).map(|extent| (extent.coded, extent.plain))
                }
                Method::Xz(chain) => chain.decode(&coded, limit, self.limits.memory, &mut out),
                Method::Zstd => zstd::decode(&coded, limit, self.limits.memory, &mut out),
            }
        };
        let written = spool.size() - start;
        self.image.put_spool(spool_at, spool);
        self.spent = self.spent.saturating_add(written);
        let (coded, plain) = match decoded {
            Ok(extent) => extent,
            Err(error) if is_about_content(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let kept = promise.is_none_or(|promise| promise.coded == coded && promise.plain == plain);
        if !kept || plain != written || coded < TINY_STREAM || plain == 0 {
            return Ok(None);
        }
        let coded = range.start..range.start + coded;
        let Ok(parent) = self.layer_of(&coded) else { return Ok(None) };
        frame.found = true;
        self.frame_to(frame, coded.start)?;
        frame.cursor = coded.end;
        let plain = self.image.map(spool_at, start, written);
        let joined = frame.joins && frame.streams > 0;
        frame.streams += 1;
        let stream = Stream { method, coded: coded.clone(), plain, name: name.clone(), parent, joined };
        let stream = self.image.add_stream(stream);
        let end = coded.end;
        self.part(coded, &name, Kind::Coded, Some(stream));
        Ok(Some(end))
    }

    /// What lies before `end` and is no member's belongs to the frame.
    fn frame_to(&mut self, frame: &mut Frame, end: u64) -> Result<()> {
        if frame.cursor > end {
            return Err(Error::new(ErrorKind::Internal, "a scanner went backwards"));
        }
        self.part(frame.cursor..end, &frame.label.clone(), Kind::Frame, None);
        frame.cursor = end;
        Ok(())
    }

    fn part(&mut self, range: Range<u64>, name: &Arc<str>, kind: Kind, stream: Option<usize>) {
        if range.is_empty() {
            return;
        }
        self.image.add_part(Part { range, name: name.clone(), kind, stream });
    }

    fn has_room(&self) -> bool {
        self.image.parts().len() < self.limits.parts as usize
    }

    /// Reads the beginning of `range`, as much as there is and fits.
    fn fill(&self, buffer: &mut [u8], range: Range<u64>) -> Result<usize> {
        let length = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        let length = length.min(buffer.len());
        let buffer = buffer.get_mut(..length).unwrap_or_default();
        self.image.read_exact_at(buffer, range.start)?;
        Ok(length)
    }

    /// Reads `N` bytes at the beginning of `range`, if it has as many.
    fn read<const N: usize>(&self, range: Range<u64>) -> Result<Option<[u8; N]>> {
        let mut bytes = [0; N];
        Ok((self.fill(&mut bytes, range)? == N).then_some(bytes))
    }
}

/// A container while it is walked.
pub(super) struct Frame {
    range: Range<u64>,
    /// Up to here parts have been added.
    cursor: u64,
    name: Arc<str>,
    label: Arc<str>,
    nest: u8,
    /// Whether it is a container at all.
    found: bool,
    /// Whether its streams are pieces of one content, and how many there are.
    joins: bool,
    streams: usize,
}

impl Frame {
    fn new(range: Range<u64>, name: &Arc<str>, nest: u8) -> Frame {
        let label = cut(&format!("{name}!"));
        Frame {
            cursor: range.start,
            range,
            name: name.clone(),
            label,
            nest,
            found: false,
            joins: false,
            streams: 0,
        }
    }

    /// The name of a member.
    fn inside(&self, member: &str) -> Arc<str> {
        cut(&format!("{}!{}", self.name, member))
    }
}

/// The end of a name that is too long, on a character's boundary.
fn cut(name: &str) -> Arc<str> {
    let mut start = name.len().saturating_sub(NAME);
    while !name.is_char_boundary(start) {
        start += 1;
    }
    name.get(start..).unwrap_or_default().into()
}

/// The name in a header, made printable; it is shown and compared, and never a path to write to.
fn printable(bytes: &[u8]) -> String {
    let bytes = bytes.get(..bytes.len().min(4 * NAME)).unwrap_or_default();
    String::from_utf8_lossy(bytes).chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Whether an error says that the bytes are no good, and not that they could not be read.
fn is_about_content(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Invalid
            | ErrorKind::Corrupted
            | ErrorKind::TooLarge
            | ErrorKind::Unsupported
            | ErrorKind::Mismatch
    )
}

fn le16(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, |b| u64::from(u16::from_le_bytes(b)))
}

fn le32(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, |b| u64::from(u32::from_le_bytes(b)))
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}
