//! Huffman codes as zlib builds them, and blocks as zlib writes them.
//!
//! The choices are zlib's down to the order in which equal frequencies are taken, because another
//! order gives other, equally short codes.

use super::header::{self, DISTANCES, FIXED_DISTANCES, LITERALS, ORDER, fixed_literals};
use super::output::Output;
use super::table::{DISTANCE_EXTRA, LENGTH_EXTRA, LONGEST, codes};
use super::token::{self, TokenWriter};

const HEAP: usize = 2 * LITERALS + 1;
const END: usize = 256;

/// Code lengths and codes of one alphabet.
struct Tree<const N: usize> {
    frequencies: [u32; N],
    lengths: [u8; N],
    codes: [u16; N],
    /// The largest symbol in use.
    last: usize,
}

/// What a block costs with its own codes and with the fixed ones, in bits.
#[derive(Default)]
struct Cost {
    own: i64,
    fixed: i64,
}

struct Shape<'a> {
    extra: &'a dyn Fn(usize) -> u32,
    fixed: &'a [u8],
    limit: usize,
}

impl<const N: usize> Tree<N> {
    fn new() -> Tree<N> {
        Tree { frequencies: [0; N], lengths: [0; N], codes: [0; N], last: 0 }
    }

    /// Chooses the code lengths and adds up what they cost.
    fn build(&mut self, shape: &Shape<'_>, cost: &mut Cost) {
        let mut heap = [0u16; HEAP + 1];
        let mut frequency = [0u32; HEAP + 1];
        let mut depth = [0u8; HEAP + 1];
        let mut parent = [0u16; HEAP + 1];
        let mut bits = [0u8; HEAP + 1];
        let mut size = 0;
        self.lengths = [0; N];
        let mut used = None;
        frequency[..N].copy_from_slice(&self.frequencies);
        for (symbol, &frequency) in self.frequencies.iter().enumerate() {
            if frequency != 0 {
                size += 1;
                heap[size] = symbol as u16;
                used = Some(symbol);
            }
        }
        // There are always two codes at least: the next of the first three symbols, else the first.
        while size < 2 {
            let symbol = if used.is_none_or(|last| last < 2) { used.map_or(0, |last| last + 1) } else { 0 };
            used = used.max(Some(symbol));
            size += 1;
            heap[size] = symbol as u16;
            frequency[symbol] = 1;
            cost.own -= 1;
            cost.fixed -= i64::from(shape.fixed.get(symbol).copied().unwrap_or(0));
        }
        self.last = used.unwrap_or(0);
        let lighter = |a: u16, b: u16, frequency: &[u32], depth: &[u8]| {
            let (a, b) = (a as usize, b as usize);
            frequency[a] < frequency[b] || (frequency[a] == frequency[b] && depth[a] <= depth[b])
        };
        let down = |heap: &mut [u16], size: usize, mut at: usize, frequency: &[u32], depth: &[u8]| {
            let moved = heap[at];
            let mut child = at * 2;
            while child <= size {
                if child < size && lighter(heap[child + 1], heap[child], frequency, depth) {
                    child += 1;
                }
                if lighter(moved, heap[child], frequency, depth) {
                    break;
                }
                heap[at] = heap[child];
                at = child;
                child *= 2;
            }
            heap[at] = moved;
        };
        for at in (1..=size / 2).rev() {
            down(&mut heap, size, at, &frequency, &depth);
        }
        // Sorted by frequency, from the end of the heap's room.
        let mut sorted = HEAP;
        let mut node = N;
        loop {
            let first = heap[1];
            heap[1] = heap[size];
            size -= 1;
            down(&mut heap, size, 1, &frequency, &depth);
            let second = heap[1];
            sorted -= 1;
            heap[sorted] = first;
            sorted -= 1;
            heap[sorted] = second;
            frequency[node] = frequency[first as usize] + frequency[second as usize];
            depth[node] = depth[first as usize].max(depth[second as usize]) + 1;
            parent[first as usize] = node as u16;
            parent[second as usize] = node as u16;
            heap[1] = node as u16;
            node += 1;
            down(&mut heap, size, 1, &frequency, &depth);
            if size < 2 {
                break;
            }
        }
        sorted -= 1;
        heap[sorted] = heap[1];
        self.assign(shape, cost, &heap, sorted, &parent, &frequency, &mut bits);
        codes(&self.lengths, &mut self.codes);
    }

    #[allow(clippy::too_many_arguments)]
    fn assign(
        &mut self,
        shape: &Shape<'_>,
        cost: &mut Cost,
        heap: &[u16],
        root: usize,
        parent: &[u16],
        frequency: &[u32],
        bits: &mut [u8],
    ) {
        let mut count = [0i32; LONGEST + 1];
        let mut overflow = 0i32;
        for &node in &heap[root + 1..HEAP] {
            let node = node as usize;
            let mut length = bits[parent[node] as usize] as usize + 1;
            if length > shape.limit {
                length = shape.limit;
                overflow += 1;
            }
            bits[node] = length as u8;
            if node > self.last || node >= N {
                continue;
            }
            count[length] += 1;
            self.lengths[node] = length as u8;
            let extra = (shape.extra)(node);
            cost.own += i64::from(frequency[node]) * (length as i64 + i64::from(extra));
            if let Some(&fixed) = shape.fixed.get(node) {
                cost.fixed += i64::from(frequency[node]) * (i64::from(fixed) + i64::from(extra));
            }
        }
        if overflow == 0 {
            return;
        }
        while overflow > 0 {
            let mut length = shape.limit - 1;
            while length > 0 && count[length] == 0 {
                length -= 1;
            }
            count[length] -= 1;
            count[length + 1] += 2;
            count[shape.limit] -= 1;
            overflow -= 2;
        }
        let mut at = HEAP;
        for length in (1..=shape.limit).rev() {
            let mut left = count[length];
            while left > 0 && at > root {
                at -= 1;
                let node = heap[at] as usize;
                if node > self.last || node >= N {
                    continue;
                }
                let change = length as i64 - i64::from(self.lengths[node]);
                cost.own += change * i64::from(frequency[node]);
                self.lengths[node] = length as u8;
                left -= 1;
            }
        }
    }
}

/// The tokens of a block until it is written.
pub(super) struct Blocks {
    pub(super) out: Output,
    tokens: Vec<u32>,
    /// As many tokens end a block.
    room: usize,
    /// After every so many tokens the block may end early: a mask of their number.
    early: usize,
    literals: Tree<LITERALS>,
    distances: Tree<DISTANCES>,
    small: Tree<19>,
    writer: TokenWriter,
    always_fixed: bool,
}

impl Blocks {
    pub(super) fn new(room: usize, always_fixed: bool, early: bool) -> Blocks {
        let mut literals = Tree::new();
        literals.frequencies[END] = 1;
        Blocks {
            out: Output::new(),
            tokens: Vec::with_capacity(room),
            room,
            early: if early { 0xfff } else { usize::MAX },
            literals,
            distances: Tree::new(),
            small: Tree::new(),
            writer: TokenWriter::new(),
            always_fixed,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.tokens.len() >= self.room
    }

    /// Whether the block, which stands for `plain` bytes, saves so much that GNU gzip ends it.
    pub(super) fn is_worth_ending(&self, plain: u64) -> bool {
        let tokens = self.tokens.len() as u64;
        let matches: u64 = self.distances.frequencies.iter().map(|&count| u64::from(count)).sum();
        let extra = self.distances.frequencies.iter().zip(&DISTANCE_EXTRA);
        let bits: u64 = extra.map(|(&count, &extra)| u64::from(count) * (5 + u64::from(extra))).sum();
        tokens & self.early as u64 == 0 && matches < tokens / 2 && (tokens * 8 + bits) >> 3 < plain / 2
    }

    /// Adds a literal; true if it may be time to end the block.
    #[inline(always)]
    pub(super) fn literal(&mut self, byte: u8) -> bool {
        self.tokens.push(u32::from(byte));
        self.literals.frequencies[byte as usize] += 1;
        self.tokens.len() >= self.room || self.tokens.len() & self.early == 0
    }

    /// Adds a match of a length less 3 and a distance less 1; true if it may be time to end the block.
    #[inline(always)]
    pub(super) fn pair(&mut self, length: u8, distance: u16) -> bool {
        self.tokens.push(1 << 31 | u32::from(distance) << 8 | u32::from(length));
        self.literals.frequencies[(END + 1 + token::length_code(length)).min(LITERALS - 1)] += 1;
        self.distances.frequencies[token::distance_code(distance).min(DISTANCES - 1)] += 1;
        self.tokens.len() >= self.room || self.tokens.len() & self.early == 0
    }

    /// Writes the block; `plain` is what it stands for, if that is still at hand.
    pub(super) fn flush(&mut self, plain: Option<&[u8]>, last: bool) {
        let mut cost = Cost::default();
        let literal_extra = |symbol: usize| match symbol.checked_sub(END + 1) {
            Some(at) => u32::from(LENGTH_EXTRA[at]),
            None => 0,
        };
        let fixed = fixed_literals();
        self.literals.build(&Shape { extra: &literal_extra, fixed: &fixed, limit: LONGEST }, &mut cost);
        let distance_extra = |symbol: usize| u32::from(DISTANCE_EXTRA[symbol]);
        let shape = Shape { extra: &distance_extra, fixed: &FIXED_DISTANCES, limit: LONGEST };
        self.distances.build(&shape, &mut cost);

        let mut symbols = Vec::with_capacity(LITERALS + DISTANCES);
        header::runs(&self.literals.lengths[..=self.literals.last], &mut symbols);
        header::runs(&self.distances.lengths[..=self.distances.last], &mut symbols);
        self.small.frequencies = [0; 19];
        for &symbol in &symbols {
            let at = match header::run(symbol) {
                Some((0, ..)) | None => symbol.min(15),
                Some((symbol, ..)) => symbol,
            };
            self.small.frequencies[at as usize] += 1;
        }
        let small_extra = |symbol: usize| [2, 3, 7][symbol.clamp(16, 18) - 16] * u32::from(symbol >= 16);
        let shape = Shape { extra: &small_extra, fixed: &[], limit: 7 };
        self.small.build(&shape, &mut cost);
        let written = (4..=19).rev().find(|&at| self.small.lengths[ORDER[at - 1]] != 0).unwrap_or(4);
        cost.own += 3 * written as i64 + 5 + 5 + 4;

        let own = (cost.own + 3 + 7) >> 3;
        let fixed_cost = (cost.fixed + 3 + 7) >> 3;
        let best = if fixed_cost <= own || self.always_fixed { fixed_cost } else { own };
        match plain {
            Some(plain) if plain.len() as i64 + 4 <= best => stored(&mut self.out, plain, last),
            _ if best == fixed_cost => {
                self.out.put(u32::from(last) | 1 << 1, 3);
                self.writer.prepare(&fixed, &FIXED_DISTANCES);
                self.write_tokens();
            }
            _ => {
                self.out.put(u32::from(last) | 2 << 1, 3);
                let order: Vec<u8> = ORDER[..written].iter().map(|&at| self.small.lengths[at]).collect();
                let (literals, distances) = (self.literals.last + 1, self.distances.last + 1);
                header::write(&mut self.out, literals, distances, &order, &symbols);
                self.writer.prepare(&self.literals.lengths, &self.distances.lengths);
                self.write_tokens();
            }
        }
        if last {
            self.out.align(0);
        }
        self.tokens.clear();
        self.literals.frequencies = [0; LITERALS];
        self.literals.frequencies[END] = 1;
        self.distances.frequencies = [0; DISTANCES];
    }

    fn write_tokens(&mut self) {
        for &token in &self.tokens {
            if token >> 31 == 0 {
                self.writer.literal(&mut self.out, token as u8);
            } else {
                self.writer.pair(&mut self.out, token as u8, (token >> 8) as u16);
            }
        }
        self.writer.end(&mut self.out);
    }
}

/// Writes a stored block.
pub(super) fn stored(out: &mut Output, plain: &[u8], last: bool) {
    out.put(u32::from(last), 3);
    out.align(0);
    let length = plain.len() as u16;
    out.bytes.extend_from_slice(&length.to_le_bytes());
    out.bytes.extend_from_slice(&(!length).to_le_bytes());
    out.bytes.extend_from_slice(plain);
}
