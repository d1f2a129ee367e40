//! The hashes by which the zlib family finds earlier strings.

/// Where strings that begin alike meet.
pub(super) trait Hasher {
    /// The hash of the string that begins with these four bytes.
    fn hash(&self, bytes: u32) -> u16;
}

/// zlib's: three bytes shifted and mixed.
pub(super) struct Rolling {
    shift: u32,
    mask: u32,
}

impl Rolling {
    pub(super) fn new(memory: u8) -> Rolling {
        let bits = u32::from(memory.clamp(1, 9)) + 7;
        Rolling { shift: bits.div_ceil(3), mask: (1 << bits) - 1 }
    }
}

impl Hasher for Rolling {
    #[inline(always)]
    fn hash(&self, bytes: u32) -> u16 {
        let (a, b, c) = (bytes & 255, bytes >> 8 & 255, bytes >> 16 & 255);
        ((a << (2 * self.shift) ^ b << self.shift ^ c) & self.mask) as u16
    }
}

/// Chromium's on any processor: four bytes, multiplied.
pub(super) struct Multiplied {
    mask: u32,
}

impl Multiplied {
    pub(super) fn new(memory: u8) -> Multiplied {
        Multiplied { mask: (1 << (u32::from(memory.clamp(1, 9)) + 7).max(15)) - 1 }
    }
}

impl Hasher for Multiplied {
    #[inline(always)]
    fn hash(&self, bytes: u32) -> u16 {
        (bytes.wrapping_add(1).wrapping_mul(66521) >> 16 & self.mask) as u16
    }
}

/// Chromium's on processors with CRC instructions: three bytes, or four at the lower levels.
pub(super) struct Castagnoli {
    tables: Box<[[u16; 256]; 4]>,
}

impl Castagnoli {
    pub(super) fn new(memory: u8, level: u8) -> Castagnoli {
        let mask = (1u32 << (u32::from(memory.clamp(1, 9)) + 7).max(15)) - 1;
        let mut tables = Box::new([[0u16; 256]; 4]);
        for (at, table) in tables.iter_mut().enumerate() {
            for (byte, entry) in table.iter_mut().enumerate() {
                // At level 6 and up the fourth byte counts as zero.
                if at < 3 || level < 6 {
                    let mut crc = (byte as u32) << (8 * at);
                    for _ in 0..32 {
                        crc = (crc >> 1) ^ (0x82f6_3b78 * (crc & 1));
                    }
                    *entry = (crc & mask) as u16;
                }
            }
        }
        Castagnoli { tables }
    }
}

impl Hasher for Castagnoli {
    #[inline(always)]
    fn hash(&self, bytes: u32) -> u16 {
        let [a, b, c, d] = bytes.to_le_bytes();
        let [ta, tb, tc, td] = &*self.tables;
        ta[a as usize] ^ tb[b as usize] ^ tc[c as usize] ^ td[d as usize]
    }
}
