//! The zlib family of compressors: hash chains, lazy matching, blocks of a fixed number of tokens.
//!
//! What is compressed comes out bit for bit as the originals write it when they get the whole input
//! and are told to finish, so every limit and every comparison below is theirs: which positions
//! enter the chains, how long a chain is followed, which of two equal matches wins, when the window
//! slides and when a match of three bytes is too far away.

use super::chain::{LONG, MIDDLE, Shortcuts, slide};
use super::hash::Hasher;
use super::tree::Blocks;
use super::window::{MAX_MATCH, Window, boxed, common, word32, word64};
use crate::error::Result;

const MIN_MATCH: usize = 3;
/// Fewer bytes ahead than this, and the window is filled up.
const MIN_LOOKAHEAD: usize = MAX_MATCH + MIN_MATCH + 1;
/// A match of three bytes from farther away is not worth it.
const TOO_FAR: usize = 4096;
/// The level from which on shortcuts pay.
const SHORTCUTS_FROM: u8 = 6;
/// The number of plain bytes from which on they do.
const SHORTCUTS_PAY: usize = 16 * 1024;

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
    state.fill(ends)?;
    let long = !state.ended || state.ahead >= SHORTCUTS_PAY;
    match settings.strategy {
        Strategy::Huffman => state.literals(ends)?,
        Strategy::Runs => state.runs(ends)?,
        _ if settings.level < 4 => state.fast(hasher, ends)?,
        _ if long && settings.level >= SHORTCUTS_FROM && settings.window_bits == 15 => {
            state.shortcuts = Some(Box::new(Shortcuts::new()));
            state.slow::<H, true>(hasher, ends)?;
        }
        _ => state.slow::<H, false>(hasher, ends)?,
    }
    state.flush_block(true, ends)
}

struct State {
    window: Window,
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
    /// For the levels that follow long chains, in a window of the usual size.
    shortcuts: Option<Box<Shortcuts>>,
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
            shortcuts: None,
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
                slide(&mut self.head[..], size as u16);
                slide(&mut self.previous[..], size as u16);
                if let Some(shortcuts) = &mut self.shortcuts {
                    shortcuts.slide(size);
                }
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

    /// The same; where there are shortcuts, they get to know.
    #[inline(always)]
    fn insert_ranked<H: Hasher, const SHORT: bool>(&mut self, hasher: &H, at: usize) -> usize {
        let before = self.insert(hasher, at);
        if SHORT && let Some(shortcuts) = &mut self.shortcuts {
            shortcuts.rank(at, before);
        }
        before
    }

    /// The longest match longer than `previous_length` in the chain that begins at `candidate`; at
    /// `cap` it is known that there is no longer one.
    #[inline(always)]
    fn longest(&mut self, candidate: usize, previous_length: usize, cap: usize) -> usize {
        let window = &*self.window;
        let start = self.start;
        let mut candidate = candidate as u16;
        let mut chain = self.tuning.chain;
        if previous_length >= self.tuning.good {
            chain >>= 2;
        }
        let nice = self.tuning.nice.min(self.ahead).min(cap);
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

    /// What [`longest`](Self::longest) finds, by shortcuts; only far from the end of the input.
    #[inline(always)]
    fn longest_ahead(&mut self, candidate: usize, previous_length: usize) -> usize {
        let Some(shortcuts) = &mut self.shortcuts else {
            return self.longest(candidate, previous_length, MAX_MATCH);
        };
        let window = &*self.window;
        let start = self.start;
        for at in shortcuts.next..=start {
            let word = word64(window, at);
            shortcuts.long.insert(word, at);
            shortcuts.middle.insert(word, at);
        }
        shortcuts.next = start + 1;
        let mut most = self.tuning.chain;
        if previous_length >= self.tuning.good {
            most >>= 2;
        }
        let limit = start.saturating_sub(self.size - MIN_LOOKAHEAD) as u16;
        // Only the first candidate may be as far away as it gets.
        let within = |candidate: u16, steps: usize| {
            steps <= most && (candidate > limit || (candidate == limit && candidate != 0 && steps == 1))
        };
        for (chain, least, cap) in [(&shortcuts.long, LONG, MAX_MATCH), (&shortcuts.middle, MIDDLE, LONG - 1)]
        {
            if previous_length >= cap {
                return previous_length;
            }
            let floor = previous_length.max(least - 1);
            let mut best = floor;
            let mut wanted = word32(window, start + best - 3);
            let mut candidate = chain.before(start as u16);
            let mut seen = 0;
            while candidate >= limit && candidate != 0 {
                let at = candidate as usize;
                if word32(window, at + best - 3) == wanted {
                    let length = common(window, start, at);
                    if length > best {
                        if !within(candidate, shortcuts.steps(start, candidate)) {
                            break;
                        }
                        self.match_start = at;
                        best = length;
                        if length >= self.tuning.nice || length >= cap {
                            return best;
                        }
                        wanted = word32(window, start + best - 3);
                    }
                }
                seen += 1;
                if seen > most
                    && word32(window, at) == word32(window, start)
                    && shortcuts.steps(start, candidate) > most
                {
                    break;
                }
                candidate = chain.before(candidate);
            }
            if best > floor {
                return best;
            }
        }
        if previous_length >= MIDDLE - 1 {
            return previous_length;
        }
        self.longest(candidate, previous_length, MIDDLE - 1)
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
                length = self.longest(candidate, MIN_MATCH - 1, MAX_MATCH);
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
    fn slow<H: Hasher, const SHORT: bool>(&mut self, hasher: &H, ends: &mut dyn Ends) -> Result<()> {
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
                candidate = self.insert_ranked::<H, SHORT>(hasher, self.start);
            }
            let previous_length = length;
            let previous_match = self.match_start;
            length = MIN_MATCH - 1;
            if candidate != 0
                && previous_length < self.tuning.lazy
                && self.start - candidate <= self.max_distance()
            {
                length = if SHORT && self.ahead >= MIN_LOOKAHEAD {
                    self.longest_ahead(candidate, previous_length)
                } else {
                    self.longest(candidate, previous_length, MAX_MATCH)
                };
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
                    self.insert_ranked::<H, SHORT>(hasher, at);
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
