//! Making a pack.

use std::fmt;
use std::io::Write;
use std::ops::Range;

use super::wire::{Kind, MAGIC, TAG, counted_tag, number_length, placed_tag, put_head};
use super::{FRAME, PartHead, VERSION, frame_length};
use crate::delta::ReadAt;
use crate::delta::wire::put;
use crate::digest::Hasher;
use crate::error::{Error, ErrorKind, Result};

/// Writes a pack, record by record.
pub struct Writer<W: Write> {
    out: W,
    /// The part under way, and its next frame.
    part: Option<(PartHead, u64)>,
    parts: u64,
    tags: Hasher,
    header: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// A pack without parts yet.
    pub fn new(mut out: W) -> Result<Writer<W>> {
        out.write_all(&MAGIC).and_then(|()| out.write_all(&[VERSION])).map_err(failed)?;
        Ok(Writer { out, part: None, parts: 0, tags: Hasher::new(), header: Vec::new() })
    }

    /// Begins a part.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] or [`ErrorKind::Invalid`] if the head breaks a limit of the format.
    pub fn begin(&mut self, head: PartHead) -> Result<()> {
        if self.part.is_some() {
            return Err(Error::new(ErrorKind::Internal, "a part of a pack begins inside another"));
        }
        head.check()?;
        let mut body = Vec::new();
        put_head(&mut body, &head);
        self.record(Kind::Head, &body, counted_tag(Kind::Head, self.parts, &body))?;
        let first = head.first;
        self.part = Some((head, first));
        Ok(())
    }

    /// Writes the part's next frame: [`FRAME`] bytes, or what the artefact has left.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if it has another length.
    pub fn frame(&mut self, bytes: &[u8]) -> Result<()> {
        let (head, index) = self.part.as_mut().ok_or_else(outside)?;
        let expected = frame_length(head.length, *index);
        if expected == 0 || bytes.len() as u64 != expected {
            let message =
                format!("frame {index} of {} has {} bytes, not {expected}", head.section, bytes.len());
            return Err(Error::new(ErrorKind::Internal, message));
        }
        let tag = placed_tag(Kind::Frame, &head.section, *index, bytes);
        *index += 1;
        self.record(Kind::Frame, bytes, tag)
    }

    /// Ends the part, which need not go to the artefact's end.
    pub fn end(&mut self) -> Result<()> {
        let (head, index) = self.part.take().ok_or_else(outside)?;
        let mut body = Vec::new();
        put(&mut body, index);
        self.parts += 1;
        self.record(Kind::PartEnd, &body, placed_tag(Kind::PartEnd, &head.section, index, &body))
    }

    /// Writes the frames `head.first..end` of `artefact` as one part.
    pub fn part(&mut self, head: PartHead, artefact: &dyn ReadAt, end: u64) -> Result<()> {
        let (first, length) = (head.first, head.length);
        self.begin(head)?;
        let mut buffer = Vec::new();
        for index in first..end {
            buffer.resize(frame_length(length, index) as usize, 0);
            artefact.read_exact_at(&mut buffer, index * FRAME)?;
            self.frame(&buffer)?;
        }
        self.end()
    }

    /// Writes all of a document, or of an artefact that is in memory, as one part.
    pub fn whole(&mut self, head: PartHead, bytes: &[u8]) -> Result<()> {
        let end = head.frames();
        self.part(head, &bytes, end)
    }

    /// Ends the pack.
    pub fn finish(mut self) -> Result<W> {
        if self.part.is_some() {
            return Err(Error::new(ErrorKind::Internal, "a pack ends inside a part"));
        }
        let mut body = Vec::new();
        put(&mut body, self.parts);
        body.extend_from_slice(std::mem::take(&mut self.tags).finish().as_bytes());
        self.record(Kind::End, &body, counted_tag(Kind::End, self.parts, &body))?;
        self.out.flush().map_err(failed)?;
        Ok(self.out)
    }

    /// Where it writes to; for a buffer that is emptied from time to time.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }

    fn record(&mut self, kind: Kind, body: &[u8], tag: [u8; TAG]) -> Result<()> {
        self.header.clear();
        self.header.push(kind as u8);
        put(&mut self.header, body.len() as u64);
        self.tags.update(&tag);
        let out = &mut self.out;
        out.write_all(&self.header)
            .and_then(|()| out.write_all(body))
            .and_then(|()| out.write_all(&tag))
            .map_err(failed)
    }
}

impl<W: Write> fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("part", &self.part).field("parts", &self.parts).finish_non_exhaustive()
    }
}

/// How many bytes a pack of these parts has, each with the frames it carries: known before the
/// first is written.
pub fn length<'a>(parts: impl IntoIterator<Item = (&'a PartHead, Range<u64>)>) -> u64 {
    let mut total = (MAGIC.len() + 1) as u64;
    let mut count = 0;
    for (head, frames) in parts {
        total += part_length(head, frames);
        count += 1;
    }
    total + end_length(count)
}

/// How many bytes the record that ends a pack of `parts` parts has.
pub(super) fn end_length(parts: u64) -> u64 {
    record_length(number_length(parts) + 32)
}

/// How many bytes a part with these frames adds to a pack.
pub(super) fn part_length(head: &PartHead, frames: Range<u64>) -> u64 {
    let mut body = Vec::new();
    put_head(&mut body, &PartHead { first: frames.start, ..head.clone() });
    let head_length = record_length(body.len() as u64) + record_length(number_length(frames.end));
    if frames.is_empty() {
        return head_length;
    }
    let last = frames.end - 1;
    let whole = last - frames.start;
    head_length + whole * record_length(FRAME) + record_length(frame_length(head.length, last))
}

fn record_length(body: u64) -> u64 {
    1 + number_length(body) + body + TAG as u64
}

#[cold]
fn failed(cause: std::io::Error) -> Error {
    Error::io("writing a pack", cause)
}

#[cold]
fn outside() -> Error {
    Error::new(ErrorKind::Internal, "a pack's frame stands outside of a part")
}
