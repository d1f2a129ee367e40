//! What the next byte is likely to be: context mixing over what is known to both sides.

use super::coder::Coder;
use super::mixer::{Curves, Mixer};

/// What both sides know before a byte is coded.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scene {
    /// The bytes before, the last one lowest.
    pub(super) before: u64,
    /// The byte that the old file makes likely, or 256.
    pub(super) guess: u32,
    /// The old byte after that one.
    pub(super) ahead: u32,
    /// The old byte before that one.
    pub(super) behind: u32,
    /// For the last bytes with a guess whether it was right, the last one lowest.
    pub(super) hits: u32,
    /// Which part of an instruction this is, below 32; 0 outside of code.
    pub(super) part: u32,
    /// The instruction up to here.
    pub(super) prefix: u32,
    /// The instruction before, without its operands.
    pub(super) previous: u32,
    /// The two instructions before that one.
    pub(super) earlier: u32,
    /// Where in the file.
    pub(super) at: u32,
    /// 0 outside of a reference, else 1 + the byte in it, and 8 if it is already known to be wrong.
    pub(super) field: u32,
    /// What followed the last time that the bytes before were these, or 256; and for how long it fits.
    pub(super) echo: u32,
    pub(super) echo_length: u32,
    /// The same and how often it did not fit, below 32.
    pub(super) echo_state: u32,
}

const CONTEXTS: usize = 12;
const INPUTS: usize = 16;
const FLAGS: usize = 7;
const FLAG_INPUTS: usize = 8;
const FLAG_BITS: u32 = 18;
/// Bits of the number of cells of one context.
pub(super) const SIZES: std::ops::RangeInclusive<u32> = 16..=22;

/// 22 bits of probability, 10 of experience.
const UNKNOWN: u32 = 1 << 31;

#[inline]
fn hash(a: u32, b: u32, c: u32) -> u32 {
    let h = a.wrapping_mul(0x2f0b_4c47)
        ^ b.wrapping_mul(0x9e37_79b1).rotate_left(13)
        ^ c.wrapping_mul(0x85eb_ca6b).rotate_left(7);
    let h = (h ^ h >> 16).wrapping_mul(0x7feb_352d);
    h ^ h >> 15
}

/// The state of the byte model, shared by all members of a patch.
pub(super) struct Model {
    curves: Curves,
    cells: Vec<[u32; 16]>,
    mask: usize,
    divide: Box<[i32; 1024]>,
    by_match: Mixer<INPUTS>,
    by_part: Mixer<INPUTS>,
    echo: Vec<u32>,
    flags: Vec<u32>,
    flag_mix: Mixer<FLAG_INPUTS>,
    flag_part: Mixer<FLAG_INPUTS>,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("cells", &self.cells.len()).finish_non_exhaustive()
    }
}

#[inline]
fn update(cell: &mut u32, bit: u32, divide: &[i32; 1024], limit: u32) {
    let count = *cell & 1023;
    let chance = (*cell >> 10) as i32;
    let goal = if bit != 0 { (1 << 22) - 1 } else { 0 };
    let step = (((goal - chance) >> 3) * divide[count as usize]) >> 10;
    *cell = ((chance + step) as u32) << 10 | (count + u32::from(count < limit));
}

impl Model {
    /// A model for about `bytes` coded bytes.
    pub(super) fn new(bits: u32) -> Model {
        let bits = bits.clamp(*SIZES.start(), *SIZES.end());
        let size = 1usize << bits;
        Model {
            curves: Curves::new(),
            cells: vec![[0; 16]; size / 16 * CONTEXTS],
            mask: size / 16 - 1,
            divide: Box::new(std::array::from_fn(|count| 16384 / (2 * count as i32 + 3))),
            by_match: Mixer::new(64 * 8 * 2, (1 << 11) + 512),
            by_part: Mixer::new(32 * 256, (1 << 11) + 512),
            echo: vec![UNKNOWN; 64 * 8],
            flags: vec![0; FLAGS << FLAG_BITS],
            flag_mix: Mixer::new(256, 1 << 12),
            flag_part: Mixer::new(32 * 16, 1 << 12),
        }
    }

    /// Whether the guess is right.
    pub(super) fn hit<C: Coder>(&mut self, coder: &mut C, scene: &Scene, bit: u32) -> u32 {
        let guess = scene.guess;
        let last = scene.before as u32 & 0xff;
        let recent = scene.hits & 0xff;
        let misses = (!scene.hits).count_ones();
        let since = (!scene.hits).trailing_zeros();
        let contexts = [
            hash(recent, scene.part, scene.field),
            hash(guess << 8 | last, scene.part, scene.hits & 3),
            hash(scene.prefix, guess, scene.previous),
            hash(guess << 16 | scene.ahead << 8 | scene.behind, last, scene.hits & 1),
            hash(since << 8 | misses, scene.field, scene.part),
            hash(scene.prefix, scene.hits & 15, guess),
            hash(scene.echo << 8 | guess, scene.echo_state, scene.hits & 3),
        ];
        let mut inputs = [0i16; FLAG_INPUTS];
        let mut places = [0usize; FLAGS];
        for (index, context) in contexts.iter().enumerate() {
            places[index] = index << FLAG_BITS | (*context >> (32 - FLAG_BITS)) as usize;
            let cell = self.flags[places[index]] ^ UNKNOWN;
            inputs[index] = if cell & 1023 == 0 { 0 } else { self.curves.stretch(cell >> 20) };
        }
        inputs[FLAGS] = 256;
        let a = self.flag_mix.mix(recent as usize, &inputs);
        let b = self.flag_part.mix((scene.part << 4 | scene.field & 15) as usize, &inputs);
        let chance = self.curves.squash((a + b) >> 1);
        let bit = coder.bit(chance, bit);
        let truth = (bit << 16) as i32;
        let error_a = truth - self.curves.squash(a) as i32;
        let error_b = truth - self.curves.squash(b) as i32;
        self.flag_mix.learn(&inputs, error_a, 10);
        self.flag_part.learn(&inputs, error_b, 10);
        for place in places {
            let mut cell = self.flags[place] ^ UNKNOWN;
            update(&mut cell, bit, &self.divide, 250);
            self.flags[place] = cell ^ UNKNOWN;
        }
        bit
    }

    /// A byte of which is known only what `scene` says.
    pub(super) fn byte<C: Coder>(&mut self, coder: &mut C, scene: &Scene, byte: u8) -> u8 {
        let contexts = contexts(scene);
        let mut symbol = 1u32;
        let mut bases = [0usize; CONTEXTS];
        let mut local = [[0u32; 16]; CONTEXTS];
        let guess = scene.guess;
        let echo_state = scene.echo_state;
        for half in 0..2u32 {
            // All first cells are asked for before any of them is looked at: memory is slow.
            let (mut keys, mut checks) = ([0u32; CONTEXTS], [0u32; CONTEXTS]);
            for (index, context) in contexts.iter().enumerate() {
                let key = if half == 0 { *context } else { hash(*context, symbol, 0x1234) };
                bases[index] = (key as usize & self.mask) + index * (self.mask + 1);
                checks[index] = self.cells[bases[index]][0];
                keys[index] = key | 1;
            }
            for (index, check) in keys.into_iter().enumerate() {
                let cells = &mut local[index];
                if checks[index] == check {
                    *cells = self.cells[bases[index]];
                } else {
                    *cells = [UNKNOWN; 16];
                    cells[0] = check;
                }
            }
            let mut node = 1usize;
            for shift in (0..4).rev() {
                let depth = 7 - (half * 4 + (3 - shift));
                let wanted = u32::from(byte) >> depth & 1;
                let mut inputs = [0i16; INPUTS];
                for index in 0..CONTEXTS {
                    let cell = local[index][node & 15];
                    let value = self.curves.stretch(cell >> 20);
                    inputs[index] = if cell & 1023 == 0 { 0 } else { value };
                }
                // The echo speaks as long as the bits so far are its own.
                let fits = scene.echo < 256 && (scene.echo | 256) >> (depth + 1) == symbol;
                let echo_bit = scene.echo >> depth & 1;
                let echo_place = (echo_state * 8 + depth) as usize;
                if fits {
                    let value = self.curves.stretch(self.echo[echo_place] >> 20);
                    inputs[CONTEXTS] = if echo_bit != 0 { value } else { -value };
                }
                inputs[CONTEXTS + 1] = 256;
                let guessed = guess < 256 && (guess | 256) >> (depth + 1) == symbol;
                let state = if fits { 1 + echo_state } else { 0 } * 2 + u32::from(guessed);
                let a = self.by_match.mix((state * 8 + depth) as usize, &inputs);
                let b = self.by_part.mix((scene.part << 8 | symbol) as usize, &inputs);
                let chance = self.curves.squash((a + b) >> 1);
                let bit = coder.bit(chance, wanted);
                let truth = (bit << 16) as i32;
                let error_a = truth - self.curves.squash(a) as i32;
                let error_b = truth - self.curves.squash(b) as i32;
                self.by_match.learn(&inputs, error_a, 14);
                self.by_part.learn(&inputs, error_b, 14);
                for cells in &mut local {
                    update(&mut cells[node & 15], bit, &self.divide, 60);
                }
                if fits {
                    update(&mut self.echo[echo_place], u32::from(bit == echo_bit), &self.divide, 1000);
                }
                node = node * 2 + bit as usize;
                symbol = symbol * 2 + bit;
            }
            for (slot, cells) in bases.iter().zip(&local) {
                self.cells[*slot] = *cells;
            }
        }
        symbol as u8
    }
}

fn contexts(scene: &Scene) -> [u32; CONTEXTS] {
    let b = scene.before;
    let (c1, c2, c3, c4) = (b as u32 & 0xff, b as u32 & 0xffff, b as u32 & 0xff_ffff, b as u32);
    let c6 = hash(c4, (b >> 32) as u32 & 0xffff, 6);
    let common = [
        hash(c1, scene.part, 1),
        hash(c2, 2, scene.part),
        hash(c3, 3, 0),
        hash(c4, 4, 0),
        c6,
        hash(scene.guess, scene.hits & 7, scene.part | 5 << 8),
        hash(scene.guess << 16 | scene.ahead << 8 | c1, 6, scene.field),
        hash(scene.behind << 16 | scene.guess << 8 | c1, 7, scene.hits & 1),
    ];
    let special = if scene.part != 0 {
        [
            hash(scene.prefix, scene.part, 8),
            hash(scene.prefix, scene.previous, 9),
            hash(scene.prefix, scene.previous, hash(scene.earlier, 10, 0)),
            hash(scene.previous, scene.part, scene.earlier ^ 11),
        ]
    } else {
        let (b4, b8) = ((b >> 24) as u32 & 0xff, (b >> 56) as u32);
        [
            hash(b4, scene.at & 3, c1 << 8 | 8),
            hash(b8 << 8 | b4, scene.at & 7, 9),
            hash(b8, scene.at & 7, c1 << 8 | 10),
            hash((b >> 40) as u32 & 0xff_ffff, 11, scene.at & 3),
        ]
    };
    let mut all = [0; CONTEXTS];
    all[..8].copy_from_slice(&common);
    all[8..].copy_from_slice(&special);
    all
}
