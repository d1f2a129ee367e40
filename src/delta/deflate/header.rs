//! The headers of blocks (RFC 1951, section 3.2.3), kept as they stood.

use super::broken;
use super::input::Input;
use super::output::Output;
use super::table::{Alphabet, ODD, Table, codes, used, value};
use crate::error::Result;

/// The order in which the lengths of the code lengths' code are written.
pub(super) const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
/// Most literal and length codes.
pub(super) const LITERALS: usize = 286;
/// Most distance codes.
pub(super) const DISTANCES: usize = 30;

/// What a block's header says.
pub(super) enum Kind {
    /// That many bytes follow as they are; `padding` are the bits that were skipped.
    Stored {
        length: usize,
        padding: u8,
    },
    Fixed,
    Dynamic,
}

/// The header of a dynamic block: what was written, and the code lengths that it means.
#[derive(Clone)]
pub(super) struct Codes {
    pub(super) literals: usize,
    pub(super) distances: usize,
    /// The lengths of the code lengths' code, in [`ORDER`], as many as were written.
    pub(super) order: Vec<u8>,
    /// The code lengths as they were written, one byte each: see [`run`].
    pub(super) symbols: Vec<u8>,
    /// Literals and lengths, then distances.
    pub(super) lengths: Vec<u8>,
}

impl Codes {
    pub(super) fn new() -> Codes {
        Codes { literals: 0, distances: 0, order: Vec::new(), symbols: Vec::new(), lengths: Vec::new() }
    }

    /// The lengths of the code lengths' code, by symbol.
    pub(super) fn order_lengths(&self) -> [u8; 19] {
        let mut lengths = [0; 19];
        for (&length, &at) in self.order.iter().zip(&ORDER) {
            lengths[at] = length;
        }
        lengths
    }

    pub(super) fn literal_lengths(&self) -> &[u8] {
        &self.lengths[..self.literals]
    }

    pub(super) fn distance_lengths(&self) -> &[u8] {
        &self.lengths[self.literals..]
    }

    /// Begins with nothing known but the numbers of codes.
    ///
    /// # Errors
    /// If there may not be so many.
    pub(super) fn restart(&mut self, literals: usize, distances: usize) -> Result<()> {
        if literals > LITERALS || distances > DISTANCES {
            return Err(broken("a block with too many length or distance codes"));
        }
        (self.literals, self.distances) = (literals, distances);
        self.order.clear();
        self.symbols.clear();
        self.lengths.clear();
        Ok(())
    }

    /// Whether code lengths are still missing.
    pub(super) fn is_short(&self) -> bool {
        self.lengths.len() < self.literals + self.distances
    }

    /// Adds what a written symbol means.
    ///
    /// # Errors
    /// If it repeats nothing, or goes too far.
    pub(super) fn push(&mut self, symbol: u8) -> Result<()> {
        let (length, times) = match run(symbol) {
            Some((0, _, times)) => (symbol, times),
            Some((16, _, times)) => match self.lengths.last() {
                Some(&last) => (last, times),
                None => return Err(broken("a repetition of no code length")),
            },
            Some((_, _, times)) => (0, times),
            None => return Err(broken("an unknown code length")),
        };
        let total = self.lengths.len() + times;
        if total > self.literals + self.distances {
            return Err(broken("more code lengths than codes"));
        }
        self.lengths.resize(total, length);
        self.symbols.push(symbol);
        Ok(())
    }

    /// # Errors
    /// If no code ends the block.
    pub(super) fn finish(&self) -> Result<()> {
        if self.lengths.get(256).is_none_or(|&length| length == 0) {
            return Err(broken("a block that cannot end"));
        }
        Ok(())
    }
}

/// Code lengths in one byte: 0-15 are themselves; 16-19 repeat the last one 3-6 times, 32-39 are
/// 3-10 zeros, 128-255 are 11-138 zeros. Gives the symbol (0 for a length), its extra bits' value
/// and how many lengths it stands for.
pub(super) fn run(byte: u8) -> Option<(u8, u32, usize)> {
    match byte {
        0..=15 => Some((0, 0, 1)),
        16..=19 => Some((16, u32::from(byte - 16), usize::from(byte - 16) + 3)),
        32..=39 => Some((17, u32::from(byte - 32), usize::from(byte - 32) + 3)),
        128..=255 => Some((18, u32::from(byte - 128), usize::from(byte - 128) + 11)),
        _ => None,
    }
}

/// Writes code lengths as zlib does: runs of 3 and more become repetitions, one alphabet at a time.
pub(super) fn runs(lengths: &[u8], symbols: &mut Vec<u8>) {
    let mut before = None;
    let mut at = 0;
    while at < lengths.len() {
        let length = lengths[at];
        let same = lengths[at..].iter().take_while(|&&other| other == length).count();
        let most = match length {
            0 => 138,
            _ if before == Some(length) => 6,
            _ => 7,
        };
        let count = same.min(most);
        let least = if length != 0 && before != Some(length) { 4 } else { 3 };
        if count < least {
            symbols.extend(std::iter::repeat_n(length, count));
        } else if length != 0 {
            let mut times = count;
            if before != Some(length) {
                symbols.push(length);
                times -= 1;
            }
            symbols.push(16 + times as u8 - 3);
        } else if count <= 10 {
            symbols.push(32 + count as u8 - 3);
        } else {
            symbols.push(128 + (count - 11) as u8);
        }
        before = Some(length);
        at += count;
    }
}

/// Writes the header of a dynamic block, behind its first three bits.
pub(super) fn write(out: &mut Output, literals: usize, distances: usize, order: &[u8], symbols: &[u8]) {
    out.put(literals as u32 - 257, 5);
    out.put(distances as u32 - 1, 5);
    out.put(order.len() as u32 - 4, 4);
    let mut lengths = [0; 19];
    for (&length, &at) in order.iter().zip(&ORDER) {
        out.put(u32::from(length), 3);
        lengths[at] = length;
    }
    let mut bits = [0; 19];
    codes(&lengths, &mut bits);
    for &byte in symbols {
        let (symbol, extra) = match run(byte) {
            Some((0, ..)) | None => (byte.min(15), 0),
            Some((symbol, extra, _)) => (symbol, extra),
        };
        let at = symbol as usize;
        out.put(u32::from(bits[at]), u32::from(lengths[at]));
        out.put(extra, [2, 3, 7][at.clamp(16, 18) - 16] * u32::from(at >= 16));
    }
}

/// Reads a block's header; the code lengths of a dynamic block come to `codes`.
pub(super) fn read(input: &mut Input<'_>, codes: &mut Codes, small: &mut Table) -> Result<(bool, Kind)> {
    let last = input.bits(1)? == 1;
    let kind = match input.bits(2)? {
        0 => {
            let (padding, _) = input.align();
            let length = input.bits(16)?;
            if input.bits(16)? != !length & 0xffff {
                return Err(broken("a stored block whose length is not confirmed"));
            }
            Kind::Stored { length: length as usize, padding }
        }
        1 => Kind::Fixed,
        2 => {
            let literals = input.bits(5)? as usize + 257;
            let distances = input.bits(5)? as usize + 1;
            let order = input.bits(4)? + 4;
            codes.restart(literals, distances)?;
            for _ in 0..order {
                codes.order.push(input.bits(3)? as u8);
            }
            small.build(Alphabet::Lengths, &codes.order_lengths())?;
            while codes.is_short() {
                input.refill()?;
                let entry = small.first(input.hold);
                if entry & ODD != 0 {
                    return Err(broken("an unknown code length"));
                }
                input.hold >>= used(entry);
                input.have -= used(entry);
                let symbol = match value(entry) {
                    16 => 16 + input.bits(2)? as u8,
                    17 => 32 + input.bits(3)? as u8,
                    18 => 128 + input.bits(7)? as u8,
                    length => length as u8,
                };
                codes.push(symbol)?;
            }
            codes.finish()?;
            Kind::Dynamic
        }
        _ => return Err(broken("a block of an unknown kind")),
    };
    input.check()?;
    Ok((last, kind))
}

/// The code lengths of a fixed block.
pub(super) fn fixed_literals() -> [u8; 288] {
    std::array::from_fn(|symbol| match symbol {
        0..=143 => 8,
        144..=255 => 9,
        256..=279 => 7,
        _ => 8,
    })
}

/// The code lengths of a fixed block's distances.
pub(super) const FIXED_DISTANCES: [u8; 32] = [5; 32];
