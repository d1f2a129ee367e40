//! The zlib family of compressors: hash chains, lazy matching, blocks of a fixed number of tokens.
//!
//! What is compressed comes out bit for bit as the originals write it when they get the whole input
//! and are told to finish, so every limit and every comparison below is theirs: which positions
//! enter the chains, how long a chain is followed, which of two equal matches wins, when the window
//! slides and when a match of three bytes is too far away.

use super::hash::Hasher;
use super::tree::Blocks;
use crate::error::Result;

const MIN_MATCH: usize = 3;
const MAX_MATCH: usize = 258;
/// Fewer bytes ahead than this, and the window is filled up.
const MIN_LOOKAHEAD: usize = MAX_MATCH + MIN_MATCH + 1;
/// A match of three bytes from farther away is not worth it.
const TOO_FAR: usize = 4096;
/// Twice the largest window, and what a comparison may read past it.
const SIZE: usize = 2 * 32768 + 1024;

/// What a level means.
#[derive(Clone, Copy)]
struct Tuning {
    good: usize,
    lazy: usize,
    nice: usize,
    chain: usize,
}

const fn tuning(good: usize, lazy: usize, nice: usize, chain: usize) -> Tuning {
    Tuning { good, lazy, nice, chain }
}

const TUNING: [Tuning; 10] = [
    tuning(0, 0, 0, 0),
    tuning(4, 4, 8, 4),
    tuning(4, 5, 16, 8),
    tuning(4, 6, 32, 32),
    tuning(4, 4, 16, 16),
    tuning(8, 16, 32, 32),
    tuning(8, 16, 128, 128),
    tuning(8, 32, 128, 256),
    tuning(32, 128, 258, 1024),
    tuning(32, 258, 258, 4096),
];

/// zlib's strategies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strategy {
    Default,
    Filtered,
    Huffman,
    Runs,
    Fixed,
}

/// The settings that the output depends on, beside the hash.
#[derive(Clone, Copy)]
pub(super) struct Settings {
    /// 1 to 9.
    pub(super) level: u8,
    /// 1 to 9.
    pub(super) memory: u8,
    /// 9 to 15.
    pub(super) window_bits: u8,
    pub(super) strategy: Strategy,
    /// A block may end early if the matches save much, as in GNU gzip.
    pub(super) early: bool,
}

/// A source of plain bytes and where coded ones go.
pub(super) trait Ends {
    /// Fills `buffer` as far as there are bytes.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize>;
    fn write(&mut self, bytes: &[u8]) -> Result<()>;
}

/// Compresses all that `ends` has.
pub(super) fn compress<H: Hasher>(settings: Settings, hasher: &H, ends: &mut dyn Ends) -> Result<()> {
    let mut state = State::new(settings);
    match settings.strategy {
        Strategy::Huffman => state.literals(ends)?,
        Strategy::Runs => state.runs(ends)?,
        _ if settings.level < 4 => state.fast(hasher, ends)?,
        _ => state.slow(hasher, ends)?,
    }
    state.flush_block(true, ends)
}

struct State {
    window: Box<[u8; SIZE]>,
    /// The position before with the same hash, by position.
    previous: Box<[u16; 32768]>,
    /// The last position with a hash; 0 is none.
    head: Box<[u16; 65536]>,
    size: usize,
    tuning: Tuning,
    strategy: Strategy,
    blocks: Blocks,
    start: usize,
    ahead: usize,
    /// Where the block begins; negative if that has slid out of the window.
    block: isize,
    match_start: usize,
    ended: bool,
}

fn boxed<T: Copy + Default, const N: usize>() -> Box<[T; N]> {
    let boxed = vec![T::default(); N].into_boxed_slice().try_into();
    // The length is right by construction; the other arm only spares a panic.
    boxed.unwrap_or_else(|_| Box::new([T::default(); N]))
}

#[inline(always)]
fn word32(window: &[u8; SIZE], at: usize) -> u32 {
    match window.get(at..at + 4) {
        Some(bytes) => u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
        None => 0,
    }
}

#[inline(always)]
fn word64(window: &[u8; SIZE], at: usize) -> u64 {
    super::input::word(window, at)
}

/// How many bytes at `a` and `b` agree, up to the longest match.
#[inline(always)]
fn common(window: &[u8; SIZE], a: usize, b: usize) -> usize {
    let mut length = 0;
    while length < MAX_MATCH {
        let differ = word64(window, a + length) ^ word64(window, b + length);
        if differ != 0 {
            return (length + (differ.trailing_zeros() / 8) as usize).min(MAX_MATCH);
        }
        length += 8;
    }
    MAX_MATCH
}

impl State {
    fn new(settings: Settings) -> State {
        let room = (1 << (settings.memory.clamp(1, 9) + 6)) - 1;
        let fixed = settings.strategy == Strategy::Fixed;
        let early = settings.early && settings.level > 2;
        State {
            window: boxed(),
            previous: boxed(),
            head: boxed(),
            size: 1 << settings.window_bits.clamp(9, 15),
            tuning: TUNING[settings.level.min(9) as usize],
            strategy: settings.strategy,
            blocks: Blocks::new(room, fixed, early),
            start: 0,
            ahead: 0,
            block: 0,
            match_start: 0,
            ended: false,
        }
    }

    fn max_distance(&self) -> usize {
        self.size - MIN_LOOKAHEAD
    }

    /// Fills the window up, which slides by half when its upper half is used up.
    fn fill(&mut self, ends: &mut dyn Ends) -> Result<()> {
        let size = self.size;
        loop {
            if self.start >= size + self.max_distance() {
                self.window.copy_within(size..2 * size, 0);
                self.match_start = self.match_start.saturating_sub(size);
                self.start -= size;
                self.block -= size as isize;
                let slide = size as u16;
                self.head.iter_mut().for_each(|at| *at = at.saturating_sub(slide));
                self.previous.iter_mut().for_each(|at| *at = at.saturating_sub(slide));
            }
            if self.ended || self.ahead >= MIN_LOOKAHEAD {
                return Ok(());
            }
            let from = self.start + self.ahead;
            let read = ends.read(&mut self.window[from..2 * size])?;
            self.ahead += read;
            self.ended = from + read < 2 * size;
        }
    }

    fn flush_block(&mut self, last: bool, ends: &mut dyn Ends) -> Result<()> {
        let plain = usize::try_from(self.block).ok().and_then(|block| self.window.get(block..self.start));
        self.blocks.flush(plain, last);
        self.block = self.start as isize;
        ends.write(&self.blocks.out.bytes)?;
        self.blocks.out.bytes.clear();
        Ok(())
    }

    /// Adds a literal; true if the block ends here.
    #[inline(always)]
    fn literal(&mut self, at: usize) -> bool {
        self.blocks.literal(self.window[at]) && self.is_full()
    }

    /// Adds a match; true if the block ends here.
    #[inline(always)]
    fn pair(&mut self, length: usize, distance: usize) -> bool {
        self.blocks.pair((length - MIN_MATCH) as u8, (distance - 1) as u16) && self.is_full()
    }

    #[cold]
    fn is_full(&self) -> bool {
        self.blocks.is_full() || self.blocks.is_worth_ending((self.start as isize - self.block) as u64)
    }

    /// Puts the string at `at` into its chain and gives the one before it.
    #[inline(always)]
    fn insert<H: Hasher>(&mut self, hasher: &H, at: usize) -> usize {
        let hash = hasher.hash(word32(&self.window, at));
        let before = self.head[hash as usize];
        self.head[hash as usize] = at as u16;
        self.previous[at & (self.size - 1) & 0x7fff] = before;
        before as usize
    }

    /// The longest match longer than `best` in the chain that begins at `candidate`, or `best`.
    #[inline(always)]
    fn longest(&mut self, candidate: usize, previous_length: usize) -> usize {
        let window = &*self.window;
        let start = self.start;
        let mut candidate = candidate as u16;
        let mut chain = self.tuning.chain;
        if previous_length >= self.tuning.good {
            chain >>= 2;
        }
        let nice = self.tuning.nice.min(self.ahead);
        let limit = start.saturating_sub(self.max_distance()) as u16;
        let mask = (self.size - 1) as u16 & 0x7fff;
        let mut best = previous_length;
        // The last four bytes that a better match must have; for three bytes the first ones.
        let mut tail = best.saturating_sub(3);
        let mut care = if best < 3 { 0xff_ffff } else { u32::MAX };
        let mut wanted = word32(window, start + tail);
        loop {
            let at = candidate as usize;
            if (word32(window, at + (tail & 511)) ^ wanted) & care == 0 {
                let length = common(window, start, at);
                if length > best {
                    self.match_start = at;
                    best = length;
                    if length >= nice {
                        break;
                    }
                    tail = best - 3;
                    care = u32::MAX;
                    wanted = word32(window, start + tail);
                }
            }
            candidate = self.previous[(candidate & mask) as usize];
            chain -= 1;
            if candidate <= limit || chain == 0 {
                break;
            }
        }
        best.min(self.ahead)
    }

    /// Levels 1 to 3: the first match that is found is taken.
    fn fast<H: Hasher>(&mut self, hasher: &H, ends: &mut dyn Ends) -> Result<()> {
        loop {
            if self.ahead < MIN_LOOKAHEAD {
                self.fill(ends)?;
                if self.ahead == 0 {
                    return Ok(());
                }
            }
            let mut candidate = 0;
            if self.ahead >= MIN_MATCH {
                candidate = self.insert(hasher, self.start);
            }
            let mut length = MIN_MATCH - 1;
            if candidate != 0 && self.start - candidate <= self.max_distance() {
                length = self.longest(candidate, MIN_MATCH - 1);
            }
            let full;
            if length >= MIN_MATCH {
                full = self.pair(length, self.start - self.match_start);
                self.ahead -= length;
                if length <= self.tuning.lazy && self.ahead >= MIN_MATCH {
                    for at in self.start + 1..self.start + length {
                        self.insert(hasher, at);
                    }
                }
                self.start += length;
            } else {
                full = self.literal(self.start);
                self.ahead -= 1;
                self.start += 1;
            }
            if full {
                self.flush_block(false, ends)?;
            }
        }
    }

    /// Levels 4 to 9: a match is taken only if the next position has no better one.
    fn slow<H: Hasher>(&mut self, hasher: &H, ends: &mut dyn Ends) -> Result<()> {
        let mut length = MIN_MATCH - 1;
        let mut pending = false;
        loop {
            if self.ahead < MIN_LOOKAHEAD {
                self.fill(ends)?;
                if self.ahead == 0 {
                    break;
                }
            }
            let mut candidate = 0;
            if self.ahead >= MIN_MATCH {
                candidate = self.insert(hasher, self.start);
            }
            let previous_length = length;
            let previous_match = self.match_start;
            length = MIN_MATCH - 1;
            if candidate != 0
                && previous_length < self.tuning.lazy
                && self.start - candidate <= self.max_distance()
            {
                length = self.longest(candidate, previous_length);
                if length <= 5
                    && (self.strategy == Strategy::Filtered
                        || (length == MIN_MATCH && self.start - self.match_start > TOO_FAR))
                {
                    length = MIN_MATCH - 1;
                }
            }
            if previous_length >= MIN_MATCH && length <= previous_length {
                let most = (self.start + self.ahead).saturating_sub(MIN_MATCH);
                let distance = self.start - 1 - previous_match;
                let full = self.pair(previous_length, distance);
                self.ahead -= previous_length - 1;
                let end = self.start + previous_length - 1;
                for at in self.start + 1..end.min(most + 1) {
                    self.insert(hasher, at);
                }
                self.start = end;
                pending = false;
                length = MIN_MATCH - 1;
                if full {
                    self.flush_block(false, ends)?;
                }
                continue;
            }
            if pending && self.literal(self.start - 1) {
                self.flush_block(false, ends)?;
            }
            pending = true;
            self.start += 1;
            self.ahead -= 1;
        }
        if pending {
            // The end flushes this block, full or not.
            self.literal(self.start - 1);
        }
        Ok(())
    }

    /// No matches at all.
    fn literals(&mut self, ends: &mut dyn Ends) -> Result<()> {
        loop {
            if self.ahead == 0 {
                self.fill(ends)?;
                if self.ahead == 0 {
                    return Ok(());
                }
            }
            let full = self.literal(self.start);
            self.ahead -= 1;
            self.start += 1;
            if full {
                self.flush_block(false, ends)?;
            }
        }
    }

    /// Only runs of one byte.
    fn runs(&mut self, ends: &mut dyn Ends) -> Result<()> {
        loop {
            if self.ahead <= MAX_MATCH {
                self.fill(ends)?;
                if self.ahead == 0 {
                    return Ok(());
                }
            }
            let mut length = 0;
            if self.ahead >= MIN_MATCH && self.start > 0 {
                length = common(&self.window, self.start, self.start - 1).min(self.ahead);
            }
            let full = if length >= MIN_MATCH {
                self.ahead -= length;
                self.start += length;
                self.pair(length, 1)
            } else {
                self.ahead -= 1;
                self.start += 1;
                self.literal(self.start - 1)
            };
            if full {
                self.flush_block(false, ends)?;
            }
        }
    }
}
