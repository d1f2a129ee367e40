//! Writing bits, least significant first.

/// Bytes, and the bits of the next ones.
pub(super) struct Output {
    pub(super) bytes: Vec<u8>,
    hold: u64,
    have: u32,
}

impl Output {
    pub(super) fn new() -> Output {
        Output { bytes: Vec::with_capacity(80 * 1024), hold: 0, have: 0 }
    }

    /// Adds the lowest `count` (at most 32) bits of `bits`; the others are zero.
    #[inline(always)]
    pub(super) fn put(&mut self, bits: u32, count: u32) {
        self.hold |= u64::from(bits) << self.have;
        self.have += count;
        if self.have >= 32 {
            self.bytes.extend_from_slice(&(self.hold as u32).to_le_bytes());
            self.hold >>= 32;
            self.have -= 32;
        }
    }

    /// Fills the last byte up with the lowest bits of `padding`.
    pub(super) fn align(&mut self, padding: u8) {
        let count = self.have.wrapping_neg() & 7;
        self.put(u32::from(padding) & ((1 << count) - 1), count);
        while self.have > 0 {
            self.bytes.push(self.hold as u8);
            self.hold >>= 8;
            self.have -= 8;
        }
    }
}
