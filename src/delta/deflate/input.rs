//! The coded side: bits, least significant first, out of a [`ReadAt`].

use super::truncated;
use crate::delta::ReadAt;
use crate::error::Result;

/// Coded bytes in memory at a time.
const BUFFER: usize = 64 * 1024;
/// Zero bytes behind the end of the coded bytes, so that a word can always be read.
const PAD: usize = 64;
/// What the decoding loop may use up between two looks at [`Input::low`].
const MARGIN: usize = 40;

/// Bits of `coded`, beginning at an offset.
///
/// `hold` has at least `have` valid bits; above them may stand bits that are read once more.
/// Behind the end of the coded bytes come a few zero bits; who uses them up is told so by
/// [`check`](Input::check).
pub(super) struct Input<'a> {
    coded: &'a dyn ReadAt,
    /// Where the next bytes for `buffer` are.
    next: u64,
    end: u64,
    buffer: Vec<u8>,
    filled: usize,
    pub(super) pos: usize,
    pub(super) hold: u64,
    pub(super) have: u32,
}

impl<'a> Input<'a> {
    pub(super) fn new(coded: &'a dyn ReadAt, offset: u64, end: u64) -> Result<Input<'a>> {
        let end = end.min(coded.size());
        let room = end.saturating_sub(offset).min(BUFFER as u64) as usize;
        let mut input = Input {
            coded,
            next: offset,
            end,
            buffer: vec![0; room + PAD],
            filled: 0,
            pos: 0,
            hold: 0,
            have: 0,
        };
        input.more()?;
        Ok(input)
    }

    /// The buffer, padded: any position at which [`low`](Input::low) is false has 64 bytes after it.
    #[inline(always)]
    pub(super) fn buffer(&self) -> &[u8] {
        &self.buffer
    }

    /// The position from which on [`more`](Input::more) has to be called.
    #[inline(always)]
    pub(super) fn low(&self) -> usize {
        if self.next < self.end { self.filled - MARGIN.min(self.filled) } else { self.filled + 8 }
    }

    /// Moves what is left to the front and reads on.
    ///
    /// # Errors
    /// If all bits are used up, and some that never were.
    pub(super) fn more(&mut self) -> Result<()> {
        if self.next >= self.end {
            return if self.pos >= self.filled + 8 { Err(truncated()) } else { Ok(()) };
        }
        let left = self.filled - self.pos;
        self.buffer.copy_within(self.pos..self.filled, 0);
        self.pos = 0;
        let room = self.buffer.len() - PAD - left;
        let take = (self.end - self.next).min(room as u64) as usize;
        self.coded.read_exact_at(&mut self.buffer[left..left + take], self.next)?;
        self.next += take as u64;
        self.filled = left + take;
        self.buffer[self.filled..].fill(0);
        Ok(())
    }

    /// At least 56 bits in `hold`.
    #[inline]
    pub(super) fn refill(&mut self) -> Result<()> {
        if self.pos >= self.low() {
            self.more()?;
        }
        self.hold |= word(&self.buffer, self.pos) << self.have;
        self.pos += (63 - self.have as usize) >> 3;
        self.have |= 56;
        Ok(())
    }

    /// The next `count` (at most 32) bits.
    #[inline]
    pub(super) fn bits(&mut self, count: u32) -> Result<u32> {
        if self.have < count {
            self.refill()?;
        }
        let bits = self.hold & ((1 << count) - 1);
        self.hold >>= count;
        self.have -= count;
        Ok(bits as u32)
    }

    /// The bits up to the next byte boundary, and how many.
    pub(super) fn align(&mut self) -> (u8, u32) {
        let count = self.have & 7;
        let bits = (self.hold & ((1 << count) - 1)) as u8;
        self.hold >>= count;
        self.have -= count;
        (bits, count)
    }

    /// Hands out the next `length` bytes in pieces; only after [`align`](Input::align).
    pub(super) fn bytes(&mut self, length: usize, out: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.pos -= (self.have / 8) as usize;
        (self.hold, self.have) = (0, 0);
        let mut left = length;
        while left > 0 {
            if self.pos >= self.filled {
                if self.next >= self.end {
                    return Err(truncated());
                }
                self.more()?;
            }
            let piece = left.min(self.filled - self.pos);
            out(&self.buffer[self.pos..self.pos + piece])?;
            self.pos += piece;
            left -= piece;
        }
        Ok(())
    }

    /// Where the byte after the last one used lies.
    pub(super) fn position(&self) -> u64 {
        (self.next - self.filled as u64) + self.pos as u64 - u64::from(self.have / 8)
    }

    /// # Errors
    /// If more bits were used than there are.
    pub(super) fn check(&self) -> Result<()> {
        if self.position() > self.end { Err(truncated()) } else { Ok(()) }
    }
}

/// Eight bytes at `pos`.
#[inline(always)]
pub(super) fn word(buffer: &[u8], pos: usize) -> u64 {
    match buffer.get(pos..pos + 8) {
        Some(bytes) => u64::from_le_bytes([
            bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7],
        ]),
        None => 0,
    }
}
