//! Literals and matches as bits.

use super::output::Output;
use super::table::{DISTANCE_BASE, DISTANCE_EXTRA, LENGTH_BASE, LENGTH_EXTRA, codes};

const END: usize = 256;

/// The code index of each length less 3.
static LENGTH_CODE: [u8; 256] = length_codes();
/// The code of each distance less 1: below 256 as it is, from there on by 128.
static DISTANCE_CODE: [u8; 512] = distance_codes();

const fn length_codes() -> [u8; 256] {
    let mut out = [0; 256];
    let mut at = 0;
    let mut code = 0;
    while at < 256 {
        while code + 1 < 29 && LENGTH_BASE[code + 1] as usize <= at + 3 {
            code += 1;
        }
        out[at] = code as u8;
        at += 1;
    }
    out
}

const fn distance_codes() -> [u8; 512] {
    let mut out = [0; 512];
    let mut at = 0;
    while at < 512 {
        let distance = if at < 256 { at + 1 } else { (at - 256) * 128 + 1 };
        let mut code = 0;
        while code + 1 < 30 && DISTANCE_BASE[code + 1] as usize <= distance {
            code += 1;
        }
        out[at] = code as u8;
        at += 1;
    }
    out
}

/// The code index (0-28) of a match's length less 3.
#[inline(always)]
pub(super) fn length_code(length: u8) -> usize {
    LENGTH_CODE[length as usize] as usize
}

/// The code of a distance less 1.
#[inline(always)]
pub(super) fn distance_code(distance: u16) -> usize {
    let at = if distance < 256 { distance } else { 256 + (distance >> 7) };
    DISTANCE_CODE[at as usize & 511] as usize
}

/// The codes of a block, ready to be written: bits below, their number in the highest byte.
pub(super) struct TokenWriter {
    literals: [u32; END + 1],
    /// By length less 3, with the extra bits.
    lengths: [u32; 256],
    distances: [u32; 32],
    /// 258 written as 227 and 31, which no encoder known does.
    odd: u32,
}

impl TokenWriter {
    pub(super) fn new() -> TokenWriter {
        TokenWriter { literals: [0; END + 1], lengths: [0; 256], distances: [0; 32], odd: 0 }
    }

    /// Takes the codes with these lengths.
    pub(super) fn prepare(&mut self, literals: &[u8], distances: &[u8]) {
        let packed = |bits: &[u16], lengths: &[u8], at: usize| match (bits.get(at), lengths.get(at)) {
            (Some(&bits), Some(&length)) => u32::from(bits) | u32::from(length) << 24,
            _ => 0,
        };
        let mut bits = [0u16; 288];
        codes(literals, &mut bits);
        for at in 0..=END {
            self.literals[at] = packed(&bits, literals, at);
        }
        let with_extra = |code: u32, extra: u32, count: u32| match code >> 24 {
            0 => 0,
            length => (code & 0xffff) | extra << length | (length + count) << 24,
        };
        for at in 0..256 {
            let symbol = length_code(at as u8);
            let extra = at as u32 + 3 - u32::from(LENGTH_BASE[symbol]);
            let code = packed(&bits, literals, END + 1 + symbol);
            self.lengths[at] = with_extra(code, extra, u32::from(LENGTH_EXTRA[symbol]));
        }
        self.odd = with_extra(packed(&bits, literals, 284), 31, 5);
        let mut bits = [0u16; 32];
        codes(distances, &mut bits);
        for at in 0..32 {
            self.distances[at] = packed(&bits, distances, at);
        }
    }

    /// Writes a literal; false if it has no code.
    #[inline(always)]
    pub(super) fn literal(&self, out: &mut Output, byte: u8) -> bool {
        let code = self.literals[byte as usize];
        out.put(code & 0xff_ffff, code >> 24);
        code != 0
    }

    /// Writes a match of a length less 3 and a distance less 1; false if it has no code.
    #[inline(always)]
    pub(super) fn pair(&self, out: &mut Output, length: u8, distance: u16) -> bool {
        self.pair_code(out, self.lengths[length as usize], distance)
    }

    /// Writes a match of 258 bytes in the other way.
    pub(super) fn odd_pair(&self, out: &mut Output, distance: u16) -> bool {
        self.pair_code(out, self.odd, distance)
    }

    #[inline(always)]
    fn pair_code(&self, out: &mut Output, length: u32, distance: u16) -> bool {
        out.put(length & 0xff_ffff, length >> 24);
        let symbol = distance_code(distance);
        let code = self.distances[symbol & 31];
        let count = code >> 24;
        let extra = u32::from(distance) + 1 - u32::from(DISTANCE_BASE[symbol]);
        out.put((code & 0xffff) | extra << count, count + u32::from(DISTANCE_EXTRA[symbol]));
        length != 0 && code != 0
    }

    /// Writes the end of the block; false if it has no code.
    pub(super) fn end(&self, out: &mut Output) -> bool {
        let code = self.literals[END];
        out.put(code & 0xff_ffff, code >> 24);
        code != 0
    }
}
