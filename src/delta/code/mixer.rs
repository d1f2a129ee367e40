//! Mixing of predictions: a small logistic network, in integers.

/// ln(p / (1 - p)) of a 12-bit probability, times 256.
fn stretch_table() -> Box<[i16; 4096]> {
    let mut table = Box::new([0i16; 4096]);
    let mut from = 0;
    for x in -2047..=2047 {
        let to = squash(x) as usize;
        for entry in table.iter_mut().take(to + 1).skip(from) {
            *entry = x as i16;
        }
        from = to + 1;
    }
    for entry in table.iter_mut().skip(from) {
        *entry = 2047;
    }
    table
}

/// The inverse of stretching: 1 / (1 + e^-x), 12 bits, by interpolation between 33 points.
#[inline]
pub(super) fn squash(x: i32) -> i32 {
    const POINTS: [i32; 33] = [
        1, 2, 3, 6, 10, 16, 27, 45, 73, 120, 194, 310, 488, 747, 1101, 1546, 2047, 2549, 2994, 3348, 3607,
        3785, 3901, 3975, 4022, 4050, 4068, 4079, 4085, 4089, 4092, 4093, 4094,
    ];
    let x = x.clamp(-2047, 2047);
    let weight = x & 127;
    let index = ((x >> 7) + 16) as usize;
    (POINTS[index] * (128 - weight) + POINTS[(index + 1).min(32)] * weight + 64) >> 7
}

/// Sixteen-bit squash for the coder: finer near certainty.
fn squash_table() -> Vec<u16> {
    (-2047..=2047)
        .map(|x: i32| {
            // Interpolates in the logistic function's own recurrence: exact enough, and integer.
            let fine = fine_squash(x);
            fine as u16
        })
        .collect()
}

/// 65536 / (1 + e^(-x/256)) by repeated squaring of e^(1/256) in fixed point.
fn fine_squash(x: i32) -> u32 {
    // e^(|x|/256) in 2^-24 units, at most e^8.
    let mut power: u64 = 1 << 24;
    let mut base: u64 = 16_842_880; // e^(1/256) * 2^24
    let mut exponent = x.unsigned_abs();
    while exponent > 0 {
        if exponent & 1 != 0 {
            power = (power * base) >> 24;
        }
        base = (base * base) >> 24;
        exponent >>= 1;
    }
    let small = ((1u64 << 40) / ((1 << 24) + power)) as u32; // 65536 / (1 + e^|x|)
    let value = if x < 0 { small } else { 65536 - small };
    value.clamp(16, 65536 - 16)
}

/// Tables that every mixer shares.
#[derive(Debug)]
pub(super) struct Curves {
    stretch: Box<[i16; 4096]>,
    squash: Vec<u16>,
}

impl Curves {
    pub(super) fn new() -> Curves {
        Curves { stretch: stretch_table(), squash: squash_table() }
    }

    #[inline]
    pub(super) fn stretch(&self, chance: u32) -> i16 {
        self.stretch[(chance & 4095) as usize]
    }

    /// 16 bits.
    #[inline]
    pub(super) fn squash(&self, x: i32) -> u32 {
        u32::from(self.squash[(x.clamp(-2047, 2047) + 2047) as usize])
    }
}

/// Weights for `N` inputs, chosen by a context. A weight of 1 is 8192.
#[derive(Debug)]
pub(super) struct Mixer<const N: usize> {
    weights: Vec<[i16; N]>,
    chosen: usize,
}

impl<const N: usize> Mixer<N> {
    pub(super) fn new(contexts: usize, weight: i16) -> Mixer<N> {
        Mixer { weights: vec![[weight; N]; contexts], chosen: 0 }
    }

    #[inline]
    pub(super) fn mix(&mut self, context: usize, inputs: &[i16; N]) -> i32 {
        self.chosen = context;
        let weights = &self.weights[context];
        let mut sum = 0i32;
        for index in 0..N {
            sum = sum.wrapping_add(i32::from(inputs[index]) * i32::from(weights[index]));
        }
        (sum >> 13).clamp(-2047, 2047)
    }

    /// `error` is 16 bits, the true bit minus what was said.
    #[inline]
    pub(super) fn learn(&mut self, inputs: &[i16; N], error: i32, rate: i32) {
        let weights = &mut self.weights[self.chosen];
        let error = ((error * rate) >> 4).clamp(-32767, 32767) as i16;
        for index in 0..N {
            let step = (i32::from(inputs[index]) * i32::from(error) + (1 << 15)) >> 16;
            weights[index] = weights[index].saturating_add(step as i16);
        }
    }
}
