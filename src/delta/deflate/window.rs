//! The bytes among which matches are found.

/// The longest match.
pub(super) const MAX_MATCH: usize = 258;
/// Twice the largest window, and what a comparison may read past it.
pub(super) const SIZE: usize = 2 * 32768 + 1024;

/// Both halves of the window.
pub(super) type Window = Box<[u8; SIZE]>;

/// Zeros on the heap.
pub(super) fn boxed<T: Copy + Default, const N: usize>() -> Box<[T; N]> {
    let boxed = vec![T::default(); N].into_boxed_slice().try_into();
    // The length is right by construction; the other arm only spares a panic.
    boxed.unwrap_or_else(|_| Box::new([T::default(); N]))
}

#[inline(always)]
pub(super) fn word32(window: &[u8; SIZE], at: usize) -> u32 {
    match window.get(at..at + 4) {
        Some(bytes) => u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
        None => 0,
    }
}

#[inline(always)]
pub(super) fn word64(window: &[u8; SIZE], at: usize) -> u64 {
    super::input::word(window, at)
}

/// How many bytes at `a` and `b` agree, up to the longest match.
#[inline(always)]
pub(super) fn common(window: &[u8; SIZE], a: usize, b: usize) -> usize {
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
