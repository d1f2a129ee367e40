//! A binary arithmetic coder, and the numbers that go through it.
//!
//! Modelling is written once for both directions: [`Coder::bit`] is given the bit when encoding
//! and answers it when decoding.

/// One direction of the arithmetic coder.
pub(super) trait Coder {
    /// Codes one bit that is 1 with a probability of `one` / 65536, `one` in 1..=65535.
    fn bit(&mut self, one: u32, bit: u32) -> u32;
    /// Bytes read beyond the end of the input, 0 when encoding: a sign of damage.
    fn missing(&self) -> usize;
    /// Whether more was read than a writer leaves out.
    fn ended(&self) -> bool {
        self.missing() > 2
    }
}

/// Writes.
#[derive(Debug)]
pub(super) struct Writer {
    low: u32,
    high: u32,
    out: Vec<u8>,
}

impl Writer {
    pub(super) fn new() -> Writer {
        Writer { low: 0, high: u32::MAX, out: Vec::new() }
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        // Two bytes say which interval it is: a reader takes zeros for the two that it still wants.
        self.out.extend_from_slice(&self.high.to_be_bytes()[..2]);
        self.out
    }
}

#[inline]
fn middle(low: u32, high: u32, one: u32) -> u32 {
    low + ((u64::from(high - low) * u64::from(one)) >> 16) as u32
}

impl Coder for Writer {
    #[inline]
    fn bit(&mut self, one: u32, bit: u32) -> u32 {
        let middle = middle(self.low, self.high, one);
        if bit != 0 {
            self.high = middle;
        } else {
            self.low = middle + 1;
        }
        while (self.low ^ self.high) >> 24 == 0 {
            self.out.push((self.high >> 24) as u8);
            self.low <<= 8;
            self.high = self.high << 8 | 255;
        }
        bit
    }

    fn missing(&self) -> usize {
        0
    }
}

/// Reads.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    low: u32,
    high: u32,
    value: u32,
    rest: &'a [u8],
    missing: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        let mut reader = Reader { low: 0, high: u32::MAX, value: 0, rest: bytes, missing: 0 };
        for _ in 0..4 {
            reader.shift();
        }
        reader
    }

    #[inline]
    fn shift(&mut self) {
        let byte = match self.rest.split_first() {
            Some((&first, rest)) => {
                self.rest = rest;
                first
            }
            None => {
                self.missing += 1;
                0
            }
        };
        self.value = self.value << 8 | u32::from(byte);
    }
}

impl Coder for Reader<'_> {
    #[inline]
    fn bit(&mut self, one: u32, _: u32) -> u32 {
        let middle = middle(self.low, self.high, one);
        let bit = u32::from(self.value <= middle);
        if bit != 0 {
            self.high = middle;
        } else {
            self.low = middle + 1;
        }
        while (self.low ^ self.high) >> 24 == 0 {
            self.low <<= 8;
            self.high = self.high << 8 | 255;
            self.shift();
        }
        bit
    }

    fn missing(&self) -> usize {
        self.missing
    }
}

/// The probability of a bit, adapting quickly at first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chance(u16, u8);

impl Chance {
    pub(super) const NEW: Chance = Chance(1 << 15, 0);

    #[inline]
    pub(super) fn code(&mut self, coder: &mut impl Coder, bit: u32) -> u32 {
        let bit = coder.bit(u32::from(self.0).clamp(32, 65535 - 32), bit);
        let goal = if bit != 0 { 65535i32 } else { 0 };
        self.0 = (i32::from(self.0) + (goal - i32::from(self.0)) / (i32::from(self.1) + 2)) as u16;
        self.1 = (self.1 + 1).min(60);
        bit
    }
}

/// Numbers below 2^32 by their size and their leading bits, with a choice of `contexts`.
#[derive(Debug)]
pub(super) struct Number {
    sizes: Vec<[Chance; 64]>,
    lead: Vec<[Chance; 33 * 8]>,
}

impl Number {
    pub(super) fn new(contexts: usize) -> Number {
        Number { sizes: vec![[Chance::NEW; 64]; contexts], lead: vec![[Chance::NEW; 33 * 8]; contexts] }
    }

    pub(super) fn code(&mut self, coder: &mut impl Coder, context: usize, value: u32) -> u32 {
        let size = 32 - value.leading_zeros();
        let sizes = &mut self.sizes[context];
        let mut node = 1;
        for shift in (0..6).rev() {
            node = node * 2 + sizes[node].code(coder, size >> shift & 1) as usize;
        }
        let size = (node as u32 & 63).min(32);
        if size < 2 {
            return size;
        }
        let lead = &mut self.lead[context][size as usize * 8..][..8];
        let mut result = 1u32;
        let mut node = 1usize;
        for shift in (0..size - 1).rev() {
            let bit = value >> shift & 1;
            let bit = if node < 8 { lead[node].code(coder, bit) } else { coder.bit(1 << 15, bit) };
            node = (node * 2 + bit as usize).min(8);
            result = result << 1 | bit;
        }
        result
    }
}

/// A signed difference as a number: small ones of either sign are small.
pub(super) fn fold(value: i32) -> u32 {
    (value << 1 ^ value >> 31) as u32
}

/// The inverse of [`fold`].
pub(super) fn unfold(value: u32) -> i32 {
    (value >> 1) as i32 ^ -((value & 1) as i32)
}
