//! Long runs of bytes that are in both, found by block hashes as rsync does, cut to the byte.

use std::collections::HashMap;
use std::ops::Range;

use super::medium::ReadAt;
use crate::error::Result;

/// Runs shorter than this are left to the engines.
pub(crate) const LEAST: u64 = 1 << 10;

/// Hashes of one index; blocks grow with what is indexed.
const MOST_BLOCKS: u64 = 1 << 20;

/// Bytes of the new side that are looked at in one go.
const PIECE: usize = 1 << 20;

/// The multiplier of the polynomial hash, odd and without structure.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// `length` bytes that stand at `old` in the base and at `new` in the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) new: u64,
    pub(crate) old: u64,
    pub(crate) length: u64,
}

/// Blocks of a base by their hash.
#[derive(Debug)]
pub(crate) struct Index {
    block: usize,
    blocks: HashMap<u64, u64>,
}

impl Index {
    /// Reads `ranges` of `bytes`.
    pub(crate) fn new(bytes: &dyn ReadAt, ranges: &[Range<u64>]) -> Result<Index> {
        let total: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        let block = (total / MOST_BLOCKS).max(LEAST / 2).next_power_of_two();
        let block = usize::try_from(block).unwrap_or(1 << 30);
        let mut blocks = HashMap::new();
        let mut buffer = vec![0; block];
        for range in ranges {
            let mut at = range.start;
            while range.end - at >= block as u64 {
                bytes.read_exact_at(&mut buffer, at)?;
                // A block that repeats is worth one entry: runs of zeros have many.
                blocks.entry(hash(&buffer)).or_insert(at);
                at += block as u64;
            }
        }
        Ok(Index { block, blocks })
    }

    /// The runs of `new` in `range` that are in the base as well, in their order, not overlapping,
    /// each at least [`LEAST`] bytes. `old_within` bounds them on the base's side.
    pub(crate) fn runs(
        &self,
        old: &dyn ReadAt,
        old_within: &Range<u64>,
        new: &dyn ReadAt,
        range: &Range<u64>,
    ) -> Result<Vec<Run>> {
        let mut runs: Vec<Run> = Vec::new();
        if self.blocks.is_empty() || range.end - range.start < self.block as u64 {
            return Ok(runs);
        }
        let out_factor = (0..self.block).fold(1_u64, |power, _| power.wrapping_mul(FACTOR));
        let mut buffer = vec![0; PIECE.max(4 * self.block)];
        let mut at = range.start;
        'piece: while range.end - at >= self.block as u64 {
            let length = (range.end - at).min(buffer.len() as u64) as usize;
            let piece = &mut buffer[..length];
            new.read_exact_at(piece, at)?;
            let mut rolling = hash(&piece[..self.block]);
            let (mut start, mut quiet_until) = (0, 0);
            loop {
                if start >= quiet_until
                    && let Some(found) = self.blocks.get(&rolling)
                {
                    let done = runs.last().map_or(range.start, |run| run.new + run.length);
                    let run = Run { new: at + start as u64, old: *found, length: self.block as u64 };
                    let run = stretch(old, old_within, new, &(done..range.end), run)?;
                    if run.length >= LEAST {
                        at = run.new + run.length;
                        runs.push(run);
                        continue 'piece;
                    }
                    // A place that is a little alike is not looked at again at every byte.
                    quiet_until = start + self.block / 8;
                }
                let Some(incoming) = piece.get(start + self.block) else { break };
                rolling = rolling
                    .wrapping_mul(FACTOR)
                    .wrapping_add(u64::from(*incoming) + 1)
                    .wrapping_sub((u64::from(piece[start]) + 1).wrapping_mul(out_factor));
                start += 1;
            }
            if range.end == at + length as u64 {
                break;
            }
            at += start as u64 + 1;
        }
        Ok(runs)
    }
}

fn hash(block: &[u8]) -> u64 {
    block.iter().fold(0, |hash: u64, byte| hash.wrapping_mul(FACTOR).wrapping_add(u64::from(*byte) + 1))
}

/// How far two places go on with the same bytes, in both directions. What a hash found may not be
/// the same at all: then nothing is left of the run.
fn stretch(
    old: &dyn ReadAt,
    old_within: &Range<u64>,
    new: &dyn ReadAt,
    new_within: &Range<u64>,
    run: Run,
) -> Result<Run> {
    let (mut ours, mut theirs) = (vec![0; 16 << 10], vec![0; 16 << 10]);
    let mut length = 0;
    loop {
        let left = (new_within.end - run.new - length).min(old_within.end.saturating_sub(run.old + length));
        let part = left.min(ours.len() as u64) as usize;
        if part == 0 {
            break;
        }
        new.read_exact_at(&mut ours[..part], run.new + length)?;
        old.read_exact_at(&mut theirs[..part], run.old + length)?;
        let same = ours[..part].iter().zip(&theirs[..part]).take_while(|(a, b)| a == b).count();
        length += same as u64;
        if same < part {
            break;
        }
    }
    let mut back = 0;
    if length == 0 {
        return Ok(Run { length, ..run });
    }
    loop {
        let left = (run.new - back - new_within.start).min((run.old - back).saturating_sub(old_within.start));
        let part = left.min(ours.len() as u64) as usize;
        if part == 0 {
            break;
        }
        new.read_exact_at(&mut ours[..part], run.new - back - part as u64)?;
        old.read_exact_at(&mut theirs[..part], run.old - back - part as u64)?;
        let same = ours[..part].iter().rev().zip(theirs[..part].iter().rev()).take_while(|(a, b)| a == b);
        let same = same.count();
        back += same as u64;
        if same < part {
            break;
        }
    }
    Ok(Run { new: run.new - back, old: run.old - back, length: length + back })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        (0..length as u64).map(|i| (super::super::pair::mix(seed + i) >> 11) as u8).collect()
    }

    fn found(old: &[u8], new: &[u8]) -> Vec<Run> {
        let (old_all, new_all) = (0..old.len() as u64, 0..new.len() as u64);
        let (old, new) = (old.to_vec(), new.to_vec());
        let index = Index::new(&old, std::slice::from_ref(&old_all)).unwrap();
        index.runs(&old, &old_all, &new, &new_all).unwrap()
    }

    #[test]
    fn an_insertion_leaves_two_runs() {
        let old = noise(1, 3_000_000);
        let new = [&old[..1_500_001], b"new", &old[1_500_001..]].concat();
        let runs = found(&old, &new);
        assert_eq!(
            runs,
            [
                Run { new: 0, old: 0, length: 1_500_001 },
                Run { new: 1_500_004, old: 1_500_001, length: 1_499_999 },
            ]
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn runs_are_true_and_in_order(
            cuts in prop::collection::vec((0..60_000_usize, 0..9_000_usize), 0..8), zeros in 0..5_000_usize,
        ) {
            let old = [noise(7, 60_000), vec![0; zeros]].concat();
            let mut new = Vec::new();
            for (start, length) in cuts {
                new.extend_from_slice(&old[start.min(old.len())..(start + length).min(old.len())]);
                new.push(start as u8);
            }
            let mut done = 0;
            for run in found(&old, &new) {
                prop_assert!(run.new >= done && run.length >= LEAST);
                done = run.new + run.length;
                let (at, from, length) = (run.new as usize, run.old as usize, run.length as usize);
                prop_assert_eq!(&new[at..at + length], &old[from..from + length]);
            }
        }
    }
}
