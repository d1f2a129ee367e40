//! Segments: the files that hold the entries.
//!
//! ```text
//! head   8  "deaudit1"
//!        8  number of the first entry
//!        4  number of downloads that were open when the segment began
//!      8*n  the numbers of their `download.start`
//!        4  CRC-32C of all that, and the first link of the chain
//! frame  4  length of the entry, 2 to 16384
//!        4  CRC-32C of: the link before (4), the length (4), the entry; the next link
//!        n  the entry
//! …
//! zeros to the end of the file
//! ```
//! Numbers are little-endian. Each checksum covers the one before it, so that what a crash left of
//! older bytes is never taken for the continuation.

use std::io;

use crate::error::{Error, ErrorKind, Result};

/// The longest entry, in bytes.
pub const MAX_ENTRY: usize = 16 << 10;

const MAGIC: &[u8; 8] = b"deaudit1";
/// Bytes of a frame before its entry.
pub(super) const FRAME: usize = 8;
/// Bytes of a head without open downloads.
const HEAD: usize = 24;
/// No edge serves more downloads at a time.
const MAX_OPEN: usize = 1 << 20;
/// Bytes read at once.
const CHUNK: usize = 256 << 10;

/// CRC-32C (Castagnoli), by sixteen tables.
pub(super) fn crc32c(start: u32, bytes: &[u8]) -> u32 {
    let mut crc = !start;
    let (blocks, rest) = bytes.as_chunks::<16>();
    for block in blocks {
        let first = u32::from_le_bytes([block[0], block[1], block[2], block[3]]) ^ crc;
        let mut next = 0;
        for (at, byte) in first.to_le_bytes().into_iter().chain(block[4..].iter().copied()).enumerate() {
            next ^= TABLES[15 - at][usize::from(byte)];
        }
        crc = next;
    }
    for byte in rest {
        crc = crc >> 8 ^ TABLES[0][usize::from(crc as u8 ^ byte)];
    }
    !crc
}

static TABLES: [[u32; 256]; 16] = tables();

const fn tables() -> [[u32; 256]; 16] {
    let mut tables = [[0; 256]; 16];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut table = 1;
    while table < 16 {
        let mut byte = 0;
        while byte < 256 {
            let before: u32 = tables[table - 1][byte];
            tables[table][byte] = before >> 8 ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        table += 1;
    }
    tables
}

/// The head of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The number of the segment's first entry.
    pub first: u64,
    /// The downloads that were open when it began, by the numbers of their start.
    pub open: Vec<u64>,
}

impl Head {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&self.first.to_le_bytes());
        bytes.extend_from_slice(&(self.open.len() as u32).to_le_bytes());
        self.open.iter().for_each(|open| bytes.extend_from_slice(&open.to_le_bytes()));
        let crc = crc32c(0, &bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The head, its length and the first link of the chain.
    fn decode(bytes: &[u8]) -> Option<(Head, usize, u32)> {
        let count = u32::from_le_bytes(*bytes.get(16..)?.first_chunk()?) as usize;
        let end = (count <= MAX_OPEN).then_some(HEAD - 4 + 8 * count)?;
        let body = bytes.get(..end)?;
        let crc = u32::from_le_bytes(*bytes.get(end..)?.first_chunk()?);
        if !body.starts_with(MAGIC) || crc32c(0, body) != crc {
            return None;
        }
        let first = u64::from_le_bytes(*body[8..].first_chunk()?);
        let open = body[20..].as_chunks().0.iter().map(|open| u64::from_le_bytes(*open)).collect();
        Some((Head { first, open }, end + 4, crc))
    }
}

/// The link of a frame.
pub(super) fn link(before: u32, entry: &[u8]) -> u32 {
    let mut start = [0; 8];
    start[..4].copy_from_slice(&before.to_le_bytes());
    start[4..].copy_from_slice(&(entry.len() as u32).to_le_bytes());
    crc32c(crc32c(0, &start), entry)
}

/// Where a reader stands: the offset of the next frame and the link before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) link: u32,
}

/// What follows a segment's last good frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Nothing, or zeros.
    Clean,
    /// Bytes that are no frame of this chain.
    Torn,
}

/// Reads the frames of a segment, in chunks.
#[derive(Debug)]
pub(super) struct FrameReader<R> {
    source: R,
    /// The place of `buffer[at]`.
    place: Place,
    buffer: Vec<u8>,
    at: usize,
    /// Where the last entry is in it.
    found: std::ops::Range<usize>,
    /// What was found instead of a frame.
    tail: Option<Tail>,
}

/// Something to read a segment from.
pub(super) trait ReadAt {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl ReadAt for &[u8] {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }
}

impl<F: super::disk::DiskFile + ?Sized> ReadAt for std::sync::Arc<F> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        super::disk::DiskFile::read_at(&**self, buffer, offset)
    }
}

impl<R: ReadAt> FrameReader<R> {
    /// Reads the head; `None` if there is no good one.
    pub(super) fn start(source: R) -> io::Result<Option<(Head, FrameReader<R>)>> {
        let mut reader = FrameReader::at(source, Place { offset: 0, link: 0 });
        let mut wanted = HEAD;
        loop {
            if !reader.fill(wanted)? {
                return Ok(None);
            }
            if let Some((head, length, link)) = Head::decode(&reader.buffer[reader.at..]) {
                reader.at += length;
                reader.place = Place { offset: length as u64, link };
                return Ok(Some((head, reader)));
            }
            let count = reader.buffer[reader.at..][16..].first_chunk().map_or(0, |n| u32::from_le_bytes(*n));
            let length = HEAD + 8 * (count as usize).min(MAX_OPEN);
            if length <= wanted {
                return Ok(None);
            }
            wanted = length;
        }
    }

    /// Reads on at a place that an earlier reader stood at.
    pub(super) fn at(source: R, place: Place) -> FrameReader<R> {
        FrameReader { source, place, buffer: Vec::new(), at: 0, found: 0..0, tail: None }
    }

    /// Where the next frame begins.
    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// The next entry; `None` after the last good frame.
    pub(super) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        Ok(if self.advance()? { Some(self.entry()) } else { None })
    }

    /// The entry that [`advance`](FrameReader::advance) found.
    pub(super) fn entry(&self) -> &[u8] {
        &self.buffer[self.found.clone()]
    }

    /// Goes on to the next entry; `false` after the last good frame.
    pub(super) fn advance(&mut self) -> io::Result<bool> {
        if self.tail.is_some() {
            return Ok(false);
        }
        if !self.fill(FRAME)? {
            let rest = self.buffer[self.at..].iter().any(|byte| *byte != 0);
            self.tail = Some(if rest { Tail::Torn } else { Tail::Clean });
            return Ok(false);
        }
        let head: [u8; FRAME] = *self.buffer[self.at..].first_chunk().unwrap_or(&[0; FRAME]);
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let crc = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        if length == 0 {
            self.tail = Some(if crc == 0 && self.only_zeros()? { Tail::Clean } else { Tail::Torn });
            return Ok(false);
        }
        if length > MAX_ENTRY || !self.fill(FRAME + length)? {
            self.tail = Some(Tail::Torn);
            return Ok(false);
        }
        let from = self.at + FRAME;
        if link(self.place.link, &self.buffer[from..from + length]) != crc {
            self.tail = Some(Tail::Torn);
            return Ok(false);
        }
        self.at = from + length;
        self.found = from..self.at;
        self.place = Place { offset: self.place.offset + (FRAME + length) as u64, link: crc };
        Ok(true)
    }

    /// What stands after the last good frame; known once [`next`](FrameReader::next) said `None`.
    pub(super) fn tail(&self) -> Tail {
        self.tail.unwrap_or(Tail::Torn)
    }

    /// Whether nothing but zeros is left.
    fn only_zeros(&mut self) -> io::Result<bool> {
        let mut offset = self.place.offset + (self.buffer.len() - self.at) as u64;
        if self.buffer[self.at..].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = self.source.read_at(&mut chunk, offset)?;
            if read == 0 {
                return Ok(true);
            }
            if chunk[..read].iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            offset += read as u64;
        }
    }

    /// Has `length` bytes in the buffer from `at` on; `false` if the file ends before.
    fn fill(&mut self, length: usize) -> io::Result<bool> {
        if self.buffer.len() - self.at >= length {
            return Ok(true);
        }
        self.buffer.drain(..self.at);
        self.at = 0;
        while self.buffer.len() < length {
            let have = self.buffer.len();
            self.buffer.resize(have + CHUNK.max(length), 0);
            let read = self.source.read_at(&mut self.buffer[have..], self.place.offset + have as u64);
            self.buffer.truncate(have + *read.as_ref().unwrap_or(&0));
            if read? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A segment that is in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its head.
    pub head: Head,
    /// Its entries, up to the first frame that is not good.
    pub entries: Vec<Vec<u8>>,
    /// What follows them.
    pub tail: Tail,
    /// Length of the good part, in bytes.
    pub length: u64,
}

impl Segment {
    /// Reads a segment as recovery does.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupted`] if its head is not good.
    pub fn parse(bytes: &[u8]) -> Result<Segment> {
        let bad = || Error::new(ErrorKind::Corrupted, "the head of the segment is damaged");
        let read = |cause| Error::io("reading the segment", cause);
        let (head, mut reader) = FrameReader::start(bytes).map_err(read)?.ok_or_else(bad)?;
        let mut entries = Vec::new();
        while let Some(entry) = reader.next().map_err(read)? {
            entries.push(entry.to_vec());
        }
        Ok(Segment { head, entries, tail: reader.tail(), length: reader.place().offset })
    }

    /// The segment as it is written, without the zeros after it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.head.encode();
        let mut chain = crc32c(0, &bytes[..bytes.len() - 4]);
        for entry in &self.entries {
            chain = link(chain, entry);
            push_frame(&mut bytes, chain, entry);
        }
        bytes
    }
}

/// Appends a frame whose link is known.
pub(super) fn push_frame(bytes: &mut Vec<u8>, link: u32, entry: &[u8]) {
    bytes.extend_from_slice(&(entry.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&link.to_le_bytes());
    bytes.extend_from_slice(entry);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_is_that_of_rfc_3720() {
        // RFC 3720 appendix B.4.
        assert_eq!(crc32c(0, &[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(0, &[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(0, &(0..32).collect::<Vec<u8>>()), 0x46dd_794e);
        assert_eq!(crc32c(crc32c(0, b"12345"), b"6789"), crc32c(0, b"123456789"));
    }

    fn segment() -> Segment {
        let mut segment = Segment {
            head: Head { first: 7, open: vec![3, 5] },
            entries: (0..40_usize).map(|n| vec![b'a' + (n % 26) as u8; 2 + n * 7]).collect(),
            tail: Tail::Clean,
            length: 0,
        };
        segment.length = segment.to_bytes().len() as u64;
        segment
    }

    #[test]
    fn what_is_written_is_read() {
        let segment = segment();
        let mut bytes = segment.to_bytes();
        assert_eq!(Segment::parse(&bytes).unwrap(), segment);
        bytes.resize(bytes.len() + 600_000, 0);
        assert_eq!(Segment::parse(&bytes).unwrap(), segment);
        *bytes.last_mut().unwrap() = 1;
        assert_eq!(Segment::parse(&bytes).unwrap().tail, Tail::Torn);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_seen() {
        let segment = segment();
        let bytes = segment.to_bytes();
        for at in 0..bytes.len() {
            let mut spoiled = bytes.clone();
            spoiled[at] ^= 1 << (at % 8);
            if let Ok(read) = Segment::parse(&spoiled) {
                assert_eq!(read.tail, Tail::Torn, "byte {at}");
                assert!(segment.entries.starts_with(&read.entries) && read.entries.len() < 40);
            }
            if let Ok(read) = Segment::parse(&bytes[..at]) {
                assert!(segment.entries.starts_with(&read.entries) && read.entries.len() < 40);
            }
        }
    }

    #[test]
    fn older_bytes_are_not_the_continuation() {
        let segment = segment();
        let old = segment.to_bytes();
        // Another entry of the same length in the place of the eleventh: the twelfth is stale.
        let mut other = segment.clone();
        other.entries.truncate(11);
        other.entries[10].fill(b'!');
        let mut bytes = other.to_bytes();
        let written = bytes.len();
        bytes.extend_from_slice(&old[written..]);
        let read = Segment::parse(&bytes).unwrap();
        assert_eq!((read.entries, read.tail), (other.entries, Tail::Torn));
    }
}
