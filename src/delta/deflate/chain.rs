//! Shortcuts through the hash chains, which find what the chains would, only sooner.
//!
//! zlib follows the chain of all strings that begin with the same three bytes, though it looks for
//! a match that is longer than the one it has. So the same positions are also chained by more bytes:
//! whatever matches long enough is in the chain of many bytes, which is short. How far zlib would
//! have followed its own chain is told by *ranks*: positions in one chain of zlib's are numbered,
//! and so the difference of two numbers is the number of steps.

/// Positions whose first bytes have the same hash, the last one first.
pub(super) struct Chain {
    head: Box<[u16; 32768]>,
    previous: Box<[u16; 32768]>,
    /// How many bytes: as a shift that keeps them.
    shift: u32,
}

impl Chain {
    /// A chain of the strings that begin with the same `bytes` (at most 8) bytes.
    pub(super) fn new(bytes: u32) -> Chain {
        Chain { head: super::window::boxed(), previous: super::window::boxed(), shift: 64 - 8 * bytes }
    }

    /// Adds the string that begins with `word` at `at`.
    #[inline(always)]
    pub(super) fn insert(&mut self, word: u64, at: usize) {
        let hash = (word << self.shift).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 49;
        let head = &mut self.head[hash as usize & 0x7fff];
        self.previous[at & 0x7fff] = *head;
        *head = at as u16;
    }

    /// The position before `at` in its chain, 0 for none.
    #[inline(always)]
    pub(super) fn before(&self, at: u16) -> u16 {
        self.previous[at as usize & 0x7fff]
    }

    /// Moves all positions down.
    pub(super) fn slide(&mut self, by: u16) {
        slide(&mut self.head[..], by);
        slide(&mut self.previous[..], by);
    }
}

/// Moves positions down; those that fall out are none.
pub(super) fn slide(positions: &mut [u16], by: u16) {
    positions.iter_mut().for_each(|at| *at = at.saturating_sub(by));
}

/// The shortcuts of one window.
pub(super) struct Shortcuts {
    pub(super) long: Chain,
    pub(super) middle: Chain,
    /// The number of each position in zlib's own chain.
    ranks: Box<[u16; 32768]>,
    /// The first position that is not in `long` and `middle` yet.
    pub(super) next: usize,
}

/// Matches of at least so many bytes are in the chain of long ones.
pub(super) const LONG: usize = 8;
/// The same for the chain of middling ones.
pub(super) const MIDDLE: usize = 5;

impl Shortcuts {
    pub(super) fn new() -> Shortcuts {
        Shortcuts {
            long: Chain::new(LONG as u32),
            middle: Chain::new(MIDDLE as u32),
            ranks: super::window::boxed(),
            next: 0,
        }
    }

    /// Notes that in zlib's chain `at` follows on `before`.
    #[inline(always)]
    pub(super) fn rank(&mut self, at: usize, before: usize) {
        self.ranks[at & 0x7fff] = self.ranks[before & 0x7fff].wrapping_add(1);
    }

    /// How many steps zlib takes from `at` to `candidate`.
    #[inline(always)]
    pub(super) fn steps(&self, at: usize, candidate: u16) -> usize {
        let candidate = self.ranks[candidate as usize & 0x7fff];
        usize::from(self.ranks[at & 0x7fff].wrapping_sub(candidate))
    }

    pub(super) fn slide(&mut self, by: usize) {
        self.long.slide(by as u16);
        self.middle.slide(by as u16);
        self.next = self.next.saturating_sub(by);
    }
}
