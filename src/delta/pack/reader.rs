//! Taking a pack apart while it arrives.

use std::fmt;
use std::io::{self, Read};

use bytes::Bytes;

use super::wire::{
    Kind, MAGIC, MAX_HEAD, MAX_HEADER, TAG, Tag, counted_tag, digest, frame_tag, parse_head, placed_tag,
};
use super::{PartHead, SectionId, VERSION, frame_length};
use crate::delta::wire::Fields;
use crate::digest::Hasher;
use crate::error::{Error, ErrorKind, Result};

/// What a [`Reader`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A part begins.
    Head(PartHead),
    /// The part's next frame, whole and undamaged.
    Frame(Frame),
    /// The part ends.
    PartEnd,
    /// The pack ends.
    End,
}

/// A frame of an artefact.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its number in the artefact.
    pub index: u64,
    /// Its tag, which was checked: [`frame_tag`].
    pub tag: Tag,
    /// Its bytes.
    pub bytes: Bytes,
}

impl Frame {
    /// Frame `index` of `section`.
    pub fn new(section: &SectionId, index: u64, bytes: Bytes) -> Frame {
        Frame { index, tag: frame_tag(section, index, &bytes), bytes }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame {}, {} bytes", self.index, self.bytes.len())
    }
}

/// Reads a pack from bytes that come in pieces of any length. Keeps at most one record.
pub struct Reader {
    state: State,
    /// What has come of the record under way.
    buffer: Vec<u8>,
    parts: u64,
    frames: u64,
    tags: Hasher,
}

#[derive(Debug)]
enum State {
    Magic,
    Between,
    Inside { head: PartHead, next: u64 },
    Ended,
    Failed,
}

impl Default for Reader {
    fn default() -> Reader {
        Reader::new()
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("state", &self.state)
            .field("parts", &self.parts)
            .field("frames", &self.frames)
            .finish_non_exhaustive()
    }
}

impl Reader {
    /// A reader that has seen nothing.
    pub fn new() -> Reader {
        Reader { state: State::Magic, buffer: Vec::new(), parts: 0, frames: 0, tags: Hasher::new() }
    }

    /// Takes bytes from the front of `input` up to the next event; `None` when all were taken.
    ///
    /// # Errors
    /// One sentence about what is wrong, after which nothing more is taken: [`ErrorKind::Invalid`]
    /// for what is not a pack or breaks its order, [`ErrorKind::Unsupported`] for another version,
    /// [`ErrorKind::TooLarge`] for a field past its limit, [`ErrorKind::Corrupted`] for damage.
    pub fn feed(&mut self, input: &mut &[u8]) -> Result<Option<Event>> {
        let result = self.step(input);
        if result.is_err() {
            self.state = State::Failed;
        }
        result
    }

    /// Says that no more bytes come.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupted`] if the pack is cut off; the sentence says after how many frames.
    pub fn finish(&self) -> Result<()> {
        match &self.state {
            State::Ended => Ok(()),
            State::Failed => Err(refused()),
            State::Magic if !MAGIC.starts_with(&self.buffer[..self.buffer.len().min(MAGIC.len())]) => {
                Err(not_a_pack())
            }
            _ => Err(self.cut_off()),
        }
    }

    /// How many whole parts were given.
    pub fn parts(&self) -> u64 {
        self.parts
    }

    /// How many whole frames were given.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    fn step(&mut self, input: &mut &[u8]) -> Result<Option<Event>> {
        match self.state {
            State::Failed => return Err(refused()),
            State::Ended if input.is_empty() => return Ok(None),
            State::Ended => return Err(Error::invalid("bytes follow the end of the pack")),
            State::Magic => {
                if !self.fill(MAGIC.len() + 1, input) {
                    return Ok(None);
                }
                self.check_magic()?;
                self.buffer.clear();
                self.state = State::Between;
            }
            State::Between | State::Inside { .. } => {}
        }
        let Some((kind, header, length)) = self.header(input)? else { return Ok(None) };
        if !self.fill(header + length + TAG, input) {
            return Ok(None);
        }
        let record = Bytes::from(std::mem::take(&mut self.buffer));
        let body = record.slice(header..header + length);
        let mut tag = Tag::default();
        tag.copy_from_slice(&record[header + length..]);
        self.event(kind, body, tag).map(Some)
    }

    /// Takes from `input` until `wanted` bytes of the record are here; `false` if they are not yet.
    fn fill(&mut self, wanted: usize, input: &mut &[u8]) -> bool {
        let missing = wanted.saturating_sub(self.buffer.len());
        let (taken, rest) = input.split_at(missing.min(input.len()));
        self.buffer.extend_from_slice(taken);
        *input = rest;
        taken.len() == missing
    }

    fn check_magic(&self) -> Result<()> {
        let (magic, version) = self.buffer.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(not_a_pack());
        }
        match version {
            [VERSION] => Ok(()),
            [0] => Err(not_a_pack()),
            other => Err(Error::new(
                ErrorKind::Unsupported,
                format!("the pack has version {}, this program reads version {VERSION}", other[0]),
            )),
        }
    }

    /// The kind of the record under way, the length of its header and of its body.
    fn header(&mut self, input: &mut &[u8]) -> Result<Option<(Kind, usize, usize)>> {
        if !self.fill(1, input) {
            return Ok(None);
        }
        let kind = Kind::from_byte(self.buffer[0])?;
        let limit = self.limit(kind)?;
        for header in 2..=MAX_HEADER {
            if !self.fill(header, input) {
                return Ok(None);
            }
            if self.buffer[header - 1] < 0x80 {
                let length = Fields::new(&self.buffer[1..header], "a record of a pack").number()?;
                if length > limit {
                    let message =
                        format!("a record of {length} bytes is more than the {limit} it may have here");
                    return Err(Error::new(ErrorKind::TooLarge, message));
                }
                return Ok(Some((kind, header, length as usize)));
            }
        }
        Err(Error::new(
            ErrorKind::TooLarge,
            format!("a record has more than the {limit} bytes it may have here"),
        ))
    }

    /// How long a record of this kind may be here.
    fn limit(&self, kind: Kind) -> Result<u64> {
        match (kind, &self.state) {
            (Kind::Head, State::Between) => Ok(MAX_HEAD),
            (Kind::Frame, State::Inside { head, next }) if *next < head.frames() => {
                Ok(frame_length(head.length, *next))
            }
            (Kind::Frame, State::Inside { head, .. }) => Err(Error::invalid(format!(
                "a part has more than the {} frames that {} has",
                head.frames(),
                head.section
            ))),
            (Kind::PartEnd, State::Inside { .. }) => Ok(10),
            (Kind::End, State::Between) => Ok(10 + 32),
            (Kind::Head | Kind::End, _) => Err(Error::invalid("a part of the pack does not end")),
            (Kind::Frame | Kind::PartEnd, _) => Err(Error::invalid("a frame stands outside of a part")),
        }
    }

    fn event(&mut self, kind: Kind, body: Bytes, tag: Tag) -> Result<Event> {
        let expected = match &self.state {
            State::Inside { head, next } => placed_tag(kind, &head.section, *next, &body),
            _ => counted_tag(kind, self.parts, &body),
        };
        if tag != expected {
            return Err(self.damaged());
        }
        match (kind, &mut self.state) {
            (Kind::Head, state) => {
                let head = parse_head(&body)?;
                *state = State::Inside { head: head.clone(), next: head.first };
                self.tags.update(&tag);
                Ok(Event::Head(head))
            }
            (Kind::Frame, State::Inside { head, next }) => {
                let expected = frame_length(head.length, *next);
                if body.len() as u64 != expected {
                    let message =
                        format!("frame {next} of {} has {} bytes, not {expected}", head.section, body.len());
                    return Err(Error::invalid(message));
                }
                let index = *next;
                *next += 1;
                self.frames += 1;
                self.tags.update(&tag);
                Ok(Event::Frame(Frame { index, tag, bytes: body }))
            }
            (Kind::PartEnd, State::Inside { next, .. }) => {
                let mut fields = Fields::new(&body, "the end of a part");
                let end = fields.number()?;
                fields.end()?;
                if end != *next {
                    return Err(Error::invalid(format!("a part ends at frame {end}, and {next} was next")));
                }
                self.state = State::Between;
                self.parts += 1;
                self.tags.update(&tag);
                Ok(Event::PartEnd)
            }
            (Kind::End, state) => {
                let mut fields = Fields::new(&body, "the end of a pack");
                let parts = fields.number()?;
                let tags = digest(&mut fields)?;
                fields.end()?;
                *state = State::Ended;
                if parts != self.parts || tags != std::mem::take(&mut self.tags).finish() {
                    return Err(Error::new(
                        ErrorKind::Corrupted,
                        format!("the pack ends after {} parts, and not those it was made of", self.parts),
                    ));
                }
                Ok(Event::End)
            }
            // `limit` has refused these.
            (Kind::Frame | Kind::PartEnd, _) => Err(Error::invalid("a frame stands outside of a part")),
        }
    }

    /// Where the reader is, for a sentence.
    fn place(&self) -> String {
        match &self.state {
            State::Inside { head, next } => format!("in frame {next} of {}", head.section),
            _ => format!("after {} whole parts", self.parts),
        }
    }

    #[cold]
    fn damaged(&self) -> Error {
        let message =
            format!("the pack is damaged {}; {} whole frames came before", self.place(), self.frames);
        Error::new(ErrorKind::Corrupted, message)
    }

    #[cold]
    fn cut_off(&self) -> Error {
        let message =
            format!("the pack is cut off {}; {} whole frames came before", self.place(), self.frames);
        Error::new(ErrorKind::Corrupted, message)
    }
}

/// Reads all of a pack from `input`, which ends with it.
///
/// # Errors
/// Those of the reader, of `input` and of `each`.
pub fn read(input: &mut dyn Read, each: &mut dyn FnMut(Event) -> Result<()>) -> Result<()> {
    let mut reader = Reader::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = match input.read(&mut buffer) {
            Ok(0) => return reader.finish(),
            Ok(read) => read,
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
            Err(cause) => return Err(Error::io("reading a pack", cause)),
        };
        let mut bytes = &buffer[..read];
        while let Some(event) = reader.feed(&mut bytes)? {
            each(event)?;
        }
    }
}

#[cold]
fn not_a_pack() -> Error {
    Error::invalid("this is not a pack: it does not begin like one")
}

#[cold]
fn refused() -> Error {
    Error::invalid("the pack was refused before")
}
