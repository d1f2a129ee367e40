//! Follows what has been written: instructions, earlier occurrences, hits.

use super::model::Scene;
use super::site::Layout;
use super::x86::{self, Parsed, Part};

/// Follows instructions through the code of a file as it becomes known.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    range: usize,
    start: usize,
    previous: u32,
    earlier: u32,
}

fn mix(a: u32, b: u32) -> u32 {
    let h = (a ^ b.rotate_left(16)).wrapping_mul(0x9e37_79b1);
    h ^ h >> 15
}

/// What is known about the instruction at a place.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    pub(super) part: u32,
    pub(super) prefix: u32,
    pub(super) previous: u32,
    pub(super) earlier: u32,
}

impl Tracker {
    /// Moves on to `at`; everything before is known.
    #[inline]
    pub(super) fn place(&mut self, new: &[u8], at: usize, layout: &Layout) -> Place {
        while let Some(&(from, to)) = layout.code.get(self.range) {
            if at < from as usize {
                return Place::default();
            }
            if at >= to as usize {
                self.range += 1;
                continue;
            }
            self.start = self.start.max(from as usize);
            loop {
                // Bounded, so that a place is cheap however far back the instruction began.
                let known = &new[self.start..at];
                match x86::parse(&known[..known.len().min(x86::MAX)]) {
                    Parsed::Whole(instruction) => {
                        let length = usize::from(instruction.length);
                        self.earlier = mix(self.earlier, self.previous) & 0x00ff_ffff;
                        self.previous = signature(&known[..length], usize::from(instruction.field));
                        self.start += length;
                    }
                    // Longer than any instruction.
                    Parsed::Unfinished(_) if known.len() >= x86::MAX => self.start += 1,
                    Parsed::Unfinished(part) => {
                        let mut prefix = known.len() as u32;
                        for &byte in known {
                            prefix = mix(prefix, u32::from(byte) + 1);
                        }
                        return Place {
                            part: number(part),
                            prefix,
                            previous: self.previous,
                            earlier: self.earlier,
                        };
                    }
                }
            }
        }
        Place::default()
    }
}

fn number(part: Part) -> u32 {
    match part {
        Part::Opcode => 1,
        Part::ModRm => 2,
        Part::Sib => 3,
        Part::Displacement(index, false) => 4 + u32::from(index & 3),
        Part::Displacement(index, true) => 8 + u32::from(index & 3),
        Part::Immediate(index) => 12 + u32::from(index & 7),
        Part::Branch(index) => 20 + u32::from(index & 3),
    }
}

/// The opcode and the operands' shapes, without displacements and constants.
fn signature(instruction: &[u8], field: usize) -> u32 {
    let keep = if field > 0 { field } else { instruction.len().min(3) };
    let mut hash = instruction.len() as u32;
    for &byte in &instruction[..keep] {
        hash = mix(hash, u32::from(byte) + 1);
    }
    hash
}

const ECHO_BITS: u32 = 20;
const ECHO_BYTES: usize = 6;

/// Bytes of earlier members that are kept.
const HISTORY: usize = 48 << 20;

/// Finds where the last bytes occurred before, in this member or an earlier one.
#[derive(Debug)]
pub(super) struct Echo {
    heads: Vec<u32>,
    history: Vec<u8>,
    at: usize,
    length: u32,
    /// For the last bytes whether they were other ones, the last one lowest; all ones without a place.
    misses: u16,
    next: usize,
}

impl Echo {
    pub(super) fn new() -> Echo {
        Echo {
            heads: vec![0; 1 << ECHO_BITS],
            history: Vec::new(),
            at: 0,
            length: 0,
            misses: u16::MAX,
            next: 0,
        }
    }

    #[inline]
    fn get(&self, new: &[u8], at: usize) -> u8 {
        match at.checked_sub(self.history.len()) {
            Some(at) => new[at],
            None => self.history[at],
        }
    }

    /// What is likely at `at`, how many bytes before it agree, and that with the past in one number.
    #[inline]
    pub(super) fn look(&mut self, new: &[u8], at: usize) -> (u32, u32, u32) {
        if at != self.next || at == 0 {
            self.length = 0;
            self.misses = u16::MAX;
        }
        self.next = at + 1;
        if at < ECHO_BYTES {
            return (256, 0, 0);
        }
        let here = self.history.len() + at;
        if self.misses != u16::MAX {
            let fits = self.get(new, self.at) == new[at - 1];
            self.length = if fits { (self.length + 1).min(65535) } else { 0 };
            self.misses = self.misses << 1 | u16::from(!fits);
            self.at += 1;
            if self.misses.count_ones() > 8 {
                self.misses = u16::MAX;
            }
        }
        let b = &new[at - ECHO_BYTES..at];
        let key = u32::from_le_bytes([b[0], b[1], b[2], b[3]]).wrapping_mul(0x9e37_79b1)
            ^ (u32::from(b[4]) << 8 | u32::from(b[5])).wrapping_mul(0x85eb_ca6b);
        let slot = (key.wrapping_mul(0x2c1b_3c6d) >> (32 - ECHO_BITS)) as usize;
        if self.length < 16 {
            let candidate = self.heads[slot] as usize;
            let mut same = 0;
            while same < candidate.min(at).min(32)
                && self.get(new, candidate - 1 - same) == new[at - 1 - same]
            {
                same += 1;
            }
            if same >= ECHO_BYTES && same as u32 > self.length {
                (self.at, self.length, self.misses) = (candidate, same as u32, 0);
            }
        }
        self.heads[slot] = here as u32;
        if self.misses == u16::MAX {
            return (256, 0, 0);
        }
        let state = if self.misses == 0 { self.length.min(31) / 2 } else { 16 + self.length.min(15) };
        (u32::from(self.get(new, self.at)), self.length, state)
    }

    /// The member ends.
    pub(super) fn end(&mut self, new: &[u8]) {
        if self.history.len() + new.len() <= HISTORY {
            self.history.extend_from_slice(new);
        } else {
            self.history = Vec::new();
            self.heads = vec![0; 1 << ECHO_BITS];
        }
        self.misses = u16::MAX;
        self.length = 0;
        self.next = 0;
    }
}

const RECALL_BITS: u32 = 16;
const RECALLS: usize = 3;

/// Remembers which byte followed a context the last time, and for how many times it was the same.
#[derive(Debug)]
pub(super) struct Recall {
    tables: Vec<(u8, u8)>,
    places: [usize; RECALLS],
}

impl Recall {
    pub(super) fn new() -> Recall {
        Recall { tables: vec![(0, 0); RECALLS << RECALL_BITS], places: [0; RECALLS] }
    }

    /// The likeliest byte, and how it was found, below 16.
    #[inline]
    pub(super) fn look(&mut self, scene: &Scene) -> (u8, u32) {
        let b = scene.before;
        let keys = if scene.part != 0 {
            [
                mix(mix(scene.prefix, scene.previous), scene.earlier),
                mix(scene.prefix, scene.previous),
                mix(scene.prefix, scene.part),
            ]
        } else {
            [mix(b as u32, (b >> 32) as u32 & 0xffff), mix(b as u32, 1), mix(b as u32 & 0xffff, 2)]
        };
        let mut best = (0u8, 0u32);
        let mut rank = 0;
        for (index, key) in keys.iter().enumerate() {
            self.places[index] = index << RECALL_BITS | (key >> (32 - RECALL_BITS)) as usize;
            let (byte, count) = self.tables[self.places[index]];
            // Longer contexts are believed sooner.
            let weight = u32::from(count.min(3)) * [4, 3, 2][index];
            if weight > rank {
                rank = weight;
                best = (byte, 1 + index as u32 * 4 + u32::from(count.min(3)));
            }
        }
        if scene.echo < 256 && (scene.echo_length >= 12 || rank < 8) {
            best = (scene.echo as u8, if scene.echo_length >= 16 { 15 } else { 14 });
        }
        best
    }

    /// What the byte was.
    #[inline]
    pub(super) fn learn(&mut self, byte: u8) {
        for place in self.places {
            let entry = &mut self.tables[place];
            if entry.0 == byte {
                entry.1 = entry.1.saturating_add(1);
            } else if entry.1 > 1 {
                entry.1 /= 2;
            } else {
                *entry = (byte, 1);
            }
        }
    }
}
