//! One address space for a blob and everything that was decoded from it.

use std::ops::Range;
use std::sync::Arc;

use super::Family;
use super::codec::Chain;
use crate::delta::deflate;
use crate::delta::medium::{ReadAt, Scratch, Spool};
use crate::error::{Error, ErrorKind, Result};

/// A compressed stream that was found and decoded.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    /// What it is coded with.
    pub(super) method: Method,
    /// Where the coded bytes lie in the image.
    pub(crate) coded: Range<u64>,
    /// Where the decoded bytes lie in the image.
    pub(crate) plain: Range<u64>,
    /// The path through the containers.
    pub(crate) name: Arc<str>,
    /// The stream in whose decoded bytes it lies; always one that comes before it.
    pub(crate) parent: Option<usize>,
    /// Whether its content goes on where that of the stream before it ends.
    pub(super) joined: bool,
}

impl Stream {
    /// The family of its codec.
    pub(crate) fn family(&self) -> Family {
        match self.method {
            Method::Deflate => Family::Deflate,
            Method::Xz(_) => Family::Xz,
            Method::Zstd => Family::Zstd,
        }
    }
}

/// How a stream is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Deflate,
    Xz(Chain),
    Zstd,
}

/// What a leaf is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// Headers, padding and directories of a container, and members that are tiny.
    Frame,
    /// A member of a container, or the whole of what was decoded.
    Content,
    /// The coded bytes of a stream that stays closed.
    Coded,
    /// The parse of a split stream.
    Parse,
    /// The heads of a split stream.
    Heads,
}

/// A range of the image that is taken as it is.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    /// Where it lies in the image.
    pub(crate) range: Range<u64>,
    /// The path through the containers; one that ends in `!` is that of a container's frame.
    pub(crate) name: Arc<str>,
    /// What it is.
    pub(crate) kind: Kind,
    /// The innermost opened stream that it begins in; of a side stream the stream it belongs to.
    pub(crate) stream: Option<usize>,
}

/// A piece of a layer. The parts of a layer tile it.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) range: Range<u64>,
    pub(super) name: Arc<str>,
    pub(super) kind: Kind,
    /// The stream that it is the coded form of.
    pub(super) stream: Option<usize>,
}

/// The parse and the heads of a split stream, in image addresses.
pub(super) type Sides = (Range<u64>, Range<u64>);

/// Where a run of the address space is kept.
#[derive(Clone, Copy, Debug)]
struct Segment {
    start: u64,
    spool: usize,
    offset: u64,
}

/// A blob opened down to its leaves.
#[derive(Debug)]
pub(crate) struct Image<'a> {
    blob: &'a dyn ReadAt,
    /// One for each depth of streams, then those of the parses and the heads.
    /// `None` only while one is written to.
    spools: Vec<Option<Box<dyn Spool>>>,
    segments: Vec<Segment>,
    size: u64,
    streams: Vec<Stream>,
    parts: Vec<Part>,
    /// The parts of the blob, then of each stream.
    layers: Vec<Range<usize>>,
    sides: Vec<Option<Sides>>,
    /// The spools that parses and heads are written to.
    side_spools: Option<(usize, usize)>,
    scratch: &'a dyn Scratch,
    /// The most that an encoder may take.
    pub(super) memory: u64,
}

impl<'a> Image<'a> {
    pub(super) fn new(blob: &'a dyn ReadAt, scratch: &'a dyn Scratch, memory: u64) -> Image<'a> {
        Image {
            blob,
            spools: Vec::new(),
            segments: Vec::new(),
            size: blob.size(),
            streams: Vec::new(),
            parts: Vec::new(),
            layers: Vec::new(),
            sides: Vec::new(),
            side_spools: None,
            scratch,
            memory,
        }
    }

    /// All streams, in the order in which their decoded bytes lie in the image.
    pub(crate) fn streams(&self) -> &[Stream] {
        &self.streams
    }

    /// The parse and the heads of a stream that was split.
    pub(crate) fn sides(&self, stream: usize) -> Option<(Range<u64>, Range<u64>)> {
        self.sides.get(stream).cloned().flatten()
    }

    /// The leaves in the order of the image: `opened[i]` says whether stream `i` is opened. One
    /// in a closed stream is not seen at all.
    pub(crate) fn leaves(&self, opened: &[bool]) -> Vec<Leaf> {
        let mut leaves = Vec::new();
        self.walk(&|stream| opened.get(stream).copied().unwrap_or(false), &mut |step| {
            if let Step::Raw(part, stream) = step {
                let Part { range, name, kind, .. } = part.clone();
                leaves.push(Leaf { range, name, kind, stream });
            }
        });
        leaves.sort_by_key(|leaf| leaf.range.start);
        // A member that goes on in the next stream is one leaf.
        leaves.dedup_by(|next: &mut Leaf, last| {
            let goes_on =
                last.range.end == next.range.start && last.kind == next.kind && last.name == next.name;
            if goes_on {
                last.range.end = next.range.end;
            }
            goes_on
        });
        leaves
    }

    /// Splits a deflate stream into how it was said, unless that is done already; gives where
    /// its parse and its heads lie in the image.
    ///
    /// # Errors
    /// Those of the spools, and [`ErrorKind::Invalid`] for a stream of another family.
    pub(crate) fn add_split(&mut self, stream: usize) -> Result<(Range<u64>, Range<u64>)> {
        if let Some(sides) = self.sides(stream) {
            return Ok(sides);
        }
        let Some(Stream { method: Method::Deflate, coded, .. }) = self.streams.get(stream) else {
            return Err(Error::invalid(format!("stream {stream} is not one that can be split")));
        };
        let coded = coded.clone();
        let (parses, heads) = match self.side_spools {
            Some(spools) => spools,
            None => {
                let at = self.spools.len();
                self.spools.push(Some(self.scratch.spool()?));
                self.spools.push(Some(self.scratch.spool()?));
                *self.side_spools.insert((at, at + 1))
            }
        };
        let mut parse_spool = self.take_spool(parses)?;
        let mut heads_spool = self.take_spool(heads)?;
        let (parse_start, heads_start) = (parse_spool.size(), heads_spool.size());
        let split = deflate::split(self, coded, &mut *parse_spool, &mut *heads_spool);
        let parse_len = parse_spool.size() - parse_start;
        let heads_len = heads_spool.size() - heads_start;
        self.put_spool(parses, parse_spool);
        self.put_spool(heads, heads_spool);
        split?;
        let parse = self.map(parses, parse_start, parse_len);
        let heads = self.map(heads, heads_start, heads_len);
        let sides = (parse, heads);
        if self.sides.len() < self.streams.len() {
            self.sides.resize(self.streams.len(), None);
        }
        if let Some(place) = self.sides.get_mut(stream) {
            *place = Some(sides.clone());
        }
        Ok(sides)
    }

    /// The spool of the streams at `depth`, made if there is none, for writing.
    pub(super) fn take_layer_spool(&mut self, depth: usize) -> Result<Box<dyn Spool>> {
        while self.spools.len() <= depth {
            self.spools.push(Some(self.scratch.spool()?));
        }
        self.take_spool(depth)
    }

    fn take_spool(&mut self, index: usize) -> Result<Box<dyn Spool>> {
        let spool = self.spools.get_mut(index).and_then(Option::take);
        spool.ok_or_else(|| Error::new(ErrorKind::Internal, "an image writes to one spool twice at a time"))
    }

    pub(super) fn put_spool(&mut self, index: usize, spool: Box<dyn Spool>) {
        if let Some(place) = self.spools.get_mut(index) {
            *place = Some(spool);
        }
    }

    /// Gives bytes of a spool the next addresses.
    pub(super) fn map(&mut self, spool: usize, offset: u64, length: u64) -> Range<u64> {
        let start = self.size;
        let follows = self
            .segments
            .last()
            .is_some_and(|last| last.spool == spool && last.offset + (start - last.start) == offset);
        if !follows && length > 0 {
            self.segments.push(Segment { start, spool, offset });
        }
        self.size += length;
        start..self.size
    }

    pub(super) fn add_stream(&mut self, stream: Stream) -> usize {
        self.streams.push(stream);
        self.streams.len() - 1
    }

    pub(super) fn add_part(&mut self, part: Part) {
        self.parts.push(part);
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Ends the layer whose parts were added since the last layer ended.
    pub(super) fn end_layer(&mut self) {
        let start = self.layers.last().map_or(0, |layer| layer.end);
        self.layers.push(start..self.parts.len());
    }

    /// Ends the layers of `streams`, whose decoded bytes were scanned as one into the parts from
    /// `first` on: what lies in two of them is cut.
    pub(super) fn end_layers(&mut self, first: usize, streams: Range<usize>) {
        if streams.len() == 1 {
            return self.end_layer();
        }
        let mut parts = self.parts.split_off(first).into_iter();
        let mut rest = parts.next();
        for stream in streams {
            let end = self.streams.get(stream).map_or(self.size, |stream| stream.plain.end);
            while let Some(mut part) = rest.take() {
                if part.range.start >= end {
                    rest = Some(part);
                    break;
                }
                if part.range.end > end {
                    let mut after = part.clone();
                    after.range.start = end;
                    part.range.end = end;
                    rest = Some(after);
                    self.parts.push(part);
                    break;
                }
                self.parts.push(part);
                rest = parts.next();
            }
            self.end_layer();
        }
    }

    /// Goes through the layers depth first, as they are folded.
    pub(super) fn walk<'s>(&'s self, opened: &dyn Fn(usize) -> bool, visit: &mut dyn FnMut(Step<'s>)) {
        let layer = |stream: Option<usize>| {
            let range = self.layers.get(stream.map_or(0, |stream| stream + 1)).cloned().unwrap_or(0..0);
            self.parts.get(range).unwrap_or_default().iter()
        };
        let mut stack = vec![(None, layer(None))];
        while let Some((stream, parts)) = stack.last_mut() {
            match parts.next() {
                Some(Part { stream: Some(inner), .. }) if opened(*inner) => {
                    visit(Step::Enter(*inner));
                    stack.push((Some(*inner), layer(Some(*inner))));
                }
                Some(part) => visit(Step::Raw(part, *stream)),
                None => {
                    if stream.is_some() {
                        visit(Step::Leave);
                    }
                    stack.pop();
                }
            }
        }
    }
}

/// What [`Image::walk`] meets.
pub(super) enum Step<'s> {
    /// A part to be taken as it is, and the opened stream that it lies in.
    Raw(&'s Part, Option<usize>),
    /// An opened stream begins.
    Enter(usize),
    /// It ends.
    Leave,
}

impl ReadAt for Image<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let at_most = |end: u64| usize::try_from(end - offset).unwrap_or(usize::MAX).min(buffer.len());
        let blob = self.blob.size();
        if offset < blob {
            let length = at_most(blob);
            return self.blob.read_at(&mut buffer[..length], offset);
        }
        if offset >= self.size {
            return Ok(0);
        }
        let next = self.segments.partition_point(|segment| segment.start <= offset);
        let end = self.segments.get(next).map_or(self.size, |segment| segment.start);
        let length = at_most(end);
        let segment = next.checked_sub(1).and_then(|at| self.segments.get(at));
        match segment.and_then(|segment| Some((segment, self.spools.get(segment.spool)?.as_ref()?))) {
            Some((segment, spool)) => {
                spool.read_at(&mut buffer[..length], segment.offset + (offset - segment.start))
            }
            None => Err(Error::new(ErrorKind::Internal, "an image is read where it is being written")),
        }
    }
}

/// A range of something, as if it were all there is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slice<'r> {
    inner: &'r dyn ReadAt,
    start: u64,
    end: u64,
}

impl<'r> Slice<'r> {
    pub(super) fn new(inner: &'r dyn ReadAt, range: Range<u64>) -> Slice<'r> {
        Slice { inner, start: range.start, end: range.end.max(range.start) }
    }
}

impl ReadAt for Slice<'_> {
    fn size(&self) -> u64 {
        self.end - self.start
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let left = self.size().saturating_sub(offset);
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        if length == 0 {
            return Ok(0);
        }
        self.inner.read_at(&mut buffer[..length], self.start + offset)
    }
}
