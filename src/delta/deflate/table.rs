//! Decoding tables of canonical Huffman codes, and the codes themselves.

use super::broken;
use crate::error::Result;

/// The longest code.
pub(super) const LONGEST: usize = 15;
/// Index bits of the first level for literals and lengths.
pub(super) const LITERAL_BITS: u32 = 11;
/// Index bits of the first level for distances.
pub(super) const DISTANCE_BITS: u32 = 9;

pub(super) const LENGTH_BASE: [u16; 29] = [
    3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195,
    227, 258,
];
pub(super) const LENGTH_EXTRA: [u8; 29] =
    [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
pub(super) const DISTANCE_BASE: [u16; 30] = [
    1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073,
    4097, 6145, 8193, 12289, 16385, 24577,
];
pub(super) const DISTANCE_EXTRA: [u8; 30] =
    [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13];

/// The entry stands for a literal.
pub(super) const LITERAL: u32 = 1 << 31;
/// The entry is a second level, the end of the block, or no code at all.
pub(super) const ODD: u32 = 1 << 15;
/// An odd entry that leads to a second level.
pub(super) const SECOND: u32 = 1 << 14;
/// An odd entry that ends the block.
pub(super) const END: u32 = 1 << 13;

/// Bits that an entry uses up, extra bits included.
#[inline(always)]
pub(super) fn used(entry: u32) -> u32 {
    entry & 31
}

/// Bits of the code alone; for a second level: its index bits.
#[inline(always)]
pub(super) fn code_bits(entry: u32) -> u32 {
    (entry >> 8) & 15
}

/// A literal, a base, or where a second level begins.
#[inline(always)]
pub(super) fn value(entry: u32) -> u32 {
    (entry >> 16) & 0x7fff
}

/// The base of `entry` and the extra bits that follow its code in `hold`.
#[inline(always)]
pub(super) fn with_extra(entry: u32, hold: u64) -> u32 {
    value(entry) + ((hold & ((1u64 << used(entry)) - 1)) >> code_bits(entry)) as u32
}

/// What a table's symbols mean.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Alphabet {
    Literals,
    Distances,
    Lengths,
}

fn meaning(alphabet: Alphabet, symbol: usize) -> (u32, u32) {
    let odd = (ODD, 0);
    match alphabet {
        Alphabet::Lengths => ((symbol as u32) << 16, 0),
        Alphabet::Literals if symbol < 256 => (LITERAL | (symbol as u32) << 16, 0),
        Alphabet::Literals if symbol == 256 => (ODD | END, 0),
        Alphabet::Literals => match (LENGTH_BASE.get(symbol - 257), LENGTH_EXTRA.get(symbol - 257)) {
            (Some(base), Some(extra)) => (u32::from(*base) << 16, u32::from(*extra)),
            _ => odd,
        },
        Alphabet::Distances => match (DISTANCE_BASE.get(symbol), DISTANCE_EXTRA.get(symbol)) {
            (Some(base), Some(extra)) => (u32::from(*base) << 16, u32::from(*extra)),
            _ => odd,
        },
    }
}

/// A two-level decoding table.
pub(super) struct Table {
    entries: Vec<u32>,
    bits: u32,
}

impl Table {
    pub(super) fn new(bits: u32) -> Table {
        Table { entries: vec![ODD; 1 << bits], bits }
    }

    /// The entry for the bits of `hold`, on the first level.
    #[inline(always)]
    pub(super) fn first(&self, hold: u64) -> u32 {
        self.entries[(hold as usize) & ((1 << self.bits) - 1)]
    }

    /// The first-level entries, for a loop that knows their number.
    #[inline(always)]
    pub(super) fn entries(&self) -> &[u32] {
        &self.entries
    }

    /// The entry of the second level that `entry` leads to; `hold` is without the first level's bits.
    #[inline(always)]
    pub(super) fn second(&self, entry: u32, hold: u64) -> u32 {
        let at = value(entry) as usize + (hold as usize & ((1 << code_bits(entry)) - 1));
        self.entries.get(at).copied().unwrap_or(ODD)
    }

    /// Makes this the table of the canonical code with these lengths.
    ///
    /// As zlib does, an incomplete code is taken only if it is a single code of one bit, or none;
    /// and never for the code lengths' own code.
    ///
    /// # Errors
    /// If there are too many codes, or too few.
    pub(super) fn build(&mut self, alphabet: Alphabet, lengths: &[u8]) -> Result<()> {
        let mut count = [0u32; LONGEST + 1];
        for &length in lengths {
            count[length as usize & LONGEST] += 1;
        }
        count[0] = 0;
        let longest = (1..=LONGEST).rev().find(|&length| count[length] != 0).unwrap_or(0);
        let mut left = 1i64;
        for &count in &count[1..] {
            left = left * 2 - i64::from(count);
            if left < 0 {
                return Err(broken("a Huffman code with too many codes"));
            }
        }
        if left > 0 && longest > 0 && (alphabet == Alphabet::Lengths || longest != 1) {
            return Err(broken("an incomplete Huffman code"));
        }

        let size = 1usize << self.bits;
        self.entries.clear();
        self.entries.resize(size, ODD | 1);
        let mut next = [0u32; LONGEST + 2];
        for length in 1..=LONGEST {
            next[length + 1] = (next[length] + count[length]) << 1;
        }
        // Second levels have the room that the longest code with the same beginning needs; in a
        // canonical code that is the last one, so all are as wide as the longest code.
        let wide = (longest as u32).saturating_sub(self.bits);
        for (symbol, &length) in lengths.iter().enumerate() {
            let length = u32::from(length) & 15;
            if length == 0 {
                continue;
            }
            let code = next[length as usize].reverse_bits() >> (32 - length);
            next[length as usize] += 1;
            let (meaning, extra) = meaning(alphabet, symbol);
            if length <= self.bits {
                let entry = meaning | length << 8 | (length + extra);
                for at in (code as usize..size).step_by(1 << length) {
                    self.entries[at] = entry;
                }
                continue;
            }
            let beginning = code as usize & (size - 1);
            if self.entries[beginning] & SECOND == 0 {
                let at = self.entries.len() as u32;
                self.entries[beginning] = ODD | SECOND | at << 16 | wide << 8 | self.bits;
                self.entries.resize(at as usize + (1 << wide), ODD | 1);
            }
            let start = value(self.entries[beginning]) as usize;
            let length = length - self.bits;
            let entry = meaning | length << 8 | (length + extra);
            for at in ((code >> self.bits) as usize..1 << wide).step_by(1 << length) {
                self.entries[start + at] = entry;
            }
        }
        Ok(())
    }
}

/// The canonical codes of these lengths, each with its bits in the order in which they are written.
pub(super) fn codes(lengths: &[u8], codes: &mut [u16]) {
    let mut count = [0u16; LONGEST + 1];
    for &length in lengths {
        count[length as usize & LONGEST] += 1;
    }
    count[0] = 0;
    let mut next = [0u16; LONGEST + 2];
    for length in 1..=LONGEST {
        next[length + 1] = next[length].wrapping_add(count[length]) << 1;
    }
    for (code, &length) in codes.iter_mut().zip(lengths) {
        let length = length as usize & LONGEST;
        if length != 0 {
            *code = next[length].reverse_bits() >> (16 - length);
            next[length] = next[length].wrapping_add(1);
        }
    }
}
