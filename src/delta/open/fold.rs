//! Making the blob: the leaves go through the encoders, inner ones first.
//!
//! An encoder pulls what it encodes. One whose plain bytes come from encoders themselves gets
//! them through a pipe from a thread of its own, so that nothing is held as a whole.

use std::io::{self, Read, Write};
use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::recipe::Recipe;
use crate::delta::deflate;
use crate::delta::medium::ReadAt;
use crate::error::{Error, ErrorKind, Result};

const BUFFER: usize = 64 << 10;
/// Buffers under way in a pipe.
const PIPE: usize = 4;

impl Recipe {
    /// Writes the blob that this recipe makes of `target`, the target stream.
    ///
    /// # Errors
    /// [`ErrorKind::Mismatch`] if `target` is not as long as it must be,
    /// [`ErrorKind::Corrupted`] if it does not fit the recipe, and those of the media.
    pub(crate) fn fold(&self, target: &dyn ReadAt, out: &mut dyn Write) -> Result<()> {
        if self.target_size() != target.size() {
            return Err(Error::new(
                ErrorKind::Mismatch,
                format!("recipe: it takes {} bytes and there are {}", self.target_size(), target.size()),
            ));
        }
        let mut depths = self.depths();
        let leaves = depths.pop().unwrap_or(0);
        let heads = leaves + self.parses.iter().sum::<u64>();
        let mut place = Place { depths, parse: leaves, heads, ..Place::default() };
        self.scope(target, &mut place, out)
    }

    /// Writes what lies between the edges of one stream, or the whole blob.
    fn scope(&self, target: &dyn ReadAt, place: &mut Place, out: &mut dyn Write) -> Result<()> {
        let streams = place.next(&self.counts, |place| &mut place.scope)?;
        let mut buffer = vec![0; BUFFER];
        for left in (0..=streams).rev() {
            let length = place.next(&self.gaps, |place| &mut place.gap)?;
            let range = place.leaf(length)?;
            copy(target, range, &mut buffer, out)?;
            if left > 0 {
                self.stream(target, place, out)?;
            }
        }
        Ok(())
    }

    /// Writes one coded stream.
    fn stream(&self, target: &dyn ReadAt, place: &mut Place, out: &mut dyn Write) -> Result<()> {
        let choice = place.next(&self.choices, |place| &mut place.choice)?;
        let how = match self.codec(choice) {
            Some(codec) => {
                let needs = codec.needs_length();
                let length =
                    if needs { Some(place.next(&self.plains, |place| &mut place.plain)?) } else { None };
                How::Codec(codec, length)
            }
            None => {
                let parse = self.parses.get(place.side).copied().unwrap_or(0);
                let heads = place.next(&self.heads, |place| &mut place.side)?;
                let parse = place.advance(parse, |place| &mut place.parse);
                let heads = place.advance(heads, |place| &mut place.heads);
                How::Merge(Source::new(target, parse), Source::new(target, heads))
            }
        };
        if self.counts.get(place.scope) == Some(&0) {
            place.scope += 1;
            let length = place.next(&self.gaps, |place| &mut place.gap)?;
            place.depth += 1;
            let range = place.leaf(length)?;
            place.depth -= 1;
            return how.run(&mut Source::new(target, range), out);
        }
        let (sender, receiver) = sync_channel(PIPE);
        let mut inner = place.clone();
        inner.depth += 1;
        let (produced, consumed) = thread::scope(|scope| {
            let producer = thread::Builder::new().name("fold".to_owned()).spawn_scoped(scope, || {
                let mut pipe = PipeIn { sender, buffer: Vec::with_capacity(BUFFER) };
                self.scope(target, &mut inner, &mut pipe)?;
                pipe.flush().map_err(|error| carried("a pipe between encoders", error))
            });
            let producer = producer.map_err(|error| Error::io("starting a thread for an encoder", error))?;
            let mut pipe = PipeOut { receiver, buffer: Vec::new(), at: 0 };
            let consumed = how.run(&mut pipe, out);
            // A producer that is still writing meets a pipe without an end.
            drop(pipe);
            let produced = producer.join().unwrap_or_else(|_| {
                Err(Error::new(ErrorKind::Internal, "an encoder stopped without an answer"))
            });
            Ok::<_, Error>((produced, consumed))
        })?;
        // If both failed, the one that gave up because of the other says so only of a pipe.
        match (produced, consumed) {
            (Err(error), consumed) if consumed.is_ok() || !is_broken_pipe(&error) => Err(error),
            (_, Err(error)) => Err(error),
            _ => {
                inner.depth -= 1;
                *place = inner;
                Ok(())
            }
        }
    }
}

/// How far each column and each part of the target stream has been used.
#[derive(Clone, Debug, Default)]
struct Place {
    scope: usize,
    gap: usize,
    choice: usize,
    plain: usize,
    side: usize,
    /// For each depth where its next leaf begins; and the depth of what is being written.
    depths: Vec<u64>,
    depth: usize,
    parse: u64,
    heads: u64,
}

impl Place {
    fn next(&mut self, column: &[u64], at: fn(&mut Place) -> &mut usize) -> Result<u64> {
        let at = at(self);
        let value = column.get(*at).copied();
        *at += 1;
        value.ok_or_else(|| Error::new(ErrorKind::Corrupted, "recipe: a column is too short"))
    }

    fn leaf(&mut self, length: u64) -> Result<Range<u64>> {
        let depth = self.depths.get_mut(self.depth);
        let at =
            depth.ok_or_else(|| Error::new(ErrorKind::Corrupted, "recipe: it is deeper than it said"))?;
        let start = *at;
        *at += length;
        Ok(start..*at)
    }

    fn advance(&mut self, length: u64, at: fn(&mut Place) -> &mut u64) -> Range<u64> {
        let at = at(self);
        let start = *at;
        *at += length;
        start..*at
    }
}

/// What makes the coded bytes.
enum How<'f> {
    Codec(&'f super::Codec, Option<u64>),
    Merge(Source<'f>, Source<'f>),
}

impl How<'_> {
    fn run(self, plain: &mut dyn Read, out: &mut dyn Write) -> Result<()> {
        match self {
            How::Codec(codec, length) => codec.encode(plain, length, out)?,
            How::Merge(mut parse, mut heads) => {
                deflate::merge(plain, &mut parse, &mut heads, out)?;
                if parse.left() + heads.left() > 0 {
                    return Err(unused());
                }
                0
            }
        };
        match plain.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(unused()),
            Err(error) => Err(carried("reading what was encoded", error)),
        }
    }
}

/// A range of the target stream, to be read once.
#[derive(Debug)]
pub(super) struct Source<'f> {
    target: &'f dyn ReadAt,
    range: Range<u64>,
}

impl<'f> Source<'f> {
    pub(super) fn new(target: &'f dyn ReadAt, range: Range<u64>) -> Source<'f> {
        Source { target, range }
    }

    fn left(&self) -> u64 {
        self.range.end - self.range.start
    }
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = usize::try_from(self.left()).unwrap_or(usize::MAX).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..length).filter(|buffer| !buffer.is_empty()) else { return Ok(0) };
        let read = self.target.read_at(buffer, self.range.start).map_err(io::Error::other)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.range.start += read as u64;
        Ok(read)
    }
}

struct PipeIn {
    sender: SyncSender<Vec<u8>>,
    buffer: Vec<u8>,
}

impl Write for PipeIn {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + bytes.len() > BUFFER && !self.buffer.is_empty() {
            self.flush()?;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(BUFFER));
        self.sender.send(full).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

struct PipeOut {
    receiver: Receiver<Vec<u8>>,
    buffer: Vec<u8>,
    at: usize,
}

impl Read for PipeOut {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at >= self.buffer.len() {
            // The producer is done, well or not; `stream` asks it which.
            let Ok(next) = self.receiver.recv() else { return Ok(0) };
            (self.buffer, self.at) = (next, 0);
        }
        let read = self.buffer.get(self.at..).unwrap_or_default().read(buffer)?;
        self.at += read;
        Ok(read)
    }
}

fn copy(target: &dyn ReadAt, mut range: Range<u64>, buffer: &mut [u8], out: &mut dyn Write) -> Result<()> {
    while !range.is_empty() {
        let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = buffer.get_mut(..length).unwrap_or_default();
        target.read_exact_at(buffer, range.start)?;
        out.write_all(buffer).map_err(|error| carried("writing a blob", error))?;
        range.start += length as u64;
    }
    Ok(())
}

/// The crate's error that an I/O error carries, or one that says what was being done.
#[cold]
pub(super) fn carried(what: &str, error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::io(what, error),
    }
}

fn is_broken_pipe(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|source| source.kind() == io::ErrorKind::BrokenPipe)
}

#[cold]
fn unused() -> Error {
    Error::new(ErrorKind::Corrupted, "recipe: a stream ends before all of its bytes are used")
}
