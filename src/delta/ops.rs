//! How the target stream is put together, in words of the bases' leaves.
//!
//! Ops are told in the order of the target stream. A *cursor* runs through the leaves of the
//! bases: where the target goes on as the base does, an op is one byte that says nothing new.

use std::ops::Range;

use super::coarse::Run;
use super::space::Space;
use super::wire::{Fields, put, put_signed};
use crate::error::{Error, ErrorKind, Result};

const WHAT: &str = "patch";

/// A step of putting the target stream together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// A leaf of the bases.
    Leaf(usize),
    /// The coded bytes of a stream of the bases, by its place.
    Coded(usize),
    /// `length` bytes, of which `runs` are in the bases; the others come from the windows, where
    /// `like` is what they may resemble.
    New { like: Option<usize>, length: u64, runs: Vec<Run> },
    /// `length` bytes that the code engine makes of a leaf.
    Code { like: usize, length: u64 },
}

/// The low bits of a tag; the next one says that a jump of the cursor goes before.
mod tag {
    pub(super) const LEAF: u8 = 0;
    pub(super) const CODED: u8 = 1;
    pub(super) const NEW: u8 = 2;
    pub(super) const RUNS: u8 = 3;
    pub(super) const FRESH: u8 = 4;
    pub(super) const CODE: u8 = 5;
    pub(super) const JUMP: u8 = 8;
}

/// Ops as columns.
#[derive(Debug, Default)]
struct Columns {
    tags: Vec<u8>,
    jumps: Vec<u8>,
    lengths: Vec<u8>,
    runs: Vec<u8>,
}

/// Writes ops, one column after the other.
pub(crate) fn write(ops: &[Op], space: &Space<'_>, out: &mut Vec<u8>) {
    let mut columns = Columns::default();
    let mut cursor = 0;
    for op in ops {
        columns.op(op, space, &mut cursor);
    }
    put(out, ops.len() as u64);
    for column in [&columns.jumps, &columns.lengths, &columns.runs] {
        put(out, column.len() as u64);
    }
    for column in [columns.tags, columns.jumps, columns.lengths, columns.runs] {
        out.extend_from_slice(&column);
    }
}

impl Columns {
    fn op(&mut self, op: &Op, space: &Space<'_>, cursor: &mut usize) {
        match op {
            Op::Leaf(leaf) => {
                self.tag(tag::LEAF, *leaf as i64 - *cursor as i64);
                *cursor = leaf + 1;
            }
            Op::Coded(place) => {
                self.tag(tag::CODED, *place as i64 - space.place_at(*cursor) as i64);
                *cursor = space.places().get(*place).map_or(*cursor, |place| place.end);
            }
            Op::New { like: None, length, runs } => {
                self.tag(tag::FRESH, 0);
                put(&mut self.lengths, *length);
                self.runs(runs, 0);
            }
            Op::New { like: Some(leaf), length, runs } => {
                let tag = if runs.is_empty() { tag::NEW } else { tag::RUNS };
                self.tag(tag, *leaf as i64 - *cursor as i64);
                let range = leaf_range(space, *leaf);
                put_signed(&mut self.lengths, *length as i64 - (range.end - range.start) as i64);
                if !runs.is_empty() {
                    self.runs(runs, range.start);
                }
                *cursor = leaf + 1;
            }
            Op::Code { like, length } => {
                self.tag(tag::CODE, *like as i64 - *cursor as i64);
                let range = leaf_range(space, *like);
                put_signed(&mut self.lengths, *length as i64 - (range.end - range.start) as i64);
                *cursor = like + 1;
            }
        }
    }

    fn tag(&mut self, tag: u8, jump: i64) {
        if jump == 0 {
            self.tags.push(tag);
        } else {
            self.tags.push(tag | tag::JUMP);
            put_signed(&mut self.jumps, jump);
        }
    }

    /// Positions in the new bytes are relative to the op.
    fn runs(&mut self, runs: &[Run], start: u64) {
        put(&mut self.runs, runs.len() as u64);
        let (mut new, mut old) = (0, start);
        for run in runs {
            put(&mut self.runs, run.new - new);
            put_signed(&mut self.runs, run.old.wrapping_sub(old).cast_signed());
            put(&mut self.runs, run.length);
            (new, old) = (run.new + run.length, run.old + run.length);
        }
    }
}

fn leaf_range(space: &Space<'_>, leaf: usize) -> Range<u64> {
    space.leaves().get(leaf).map_or(0..0, |leaf| leaf.range.clone())
}

/// Reads what [`write`] wrote, of somebody who may lie: every op lies inside the bases, and
/// together they are `target` bytes long.
///
/// # Errors
/// [`ErrorKind::Corrupted`].
pub(crate) fn read(fields: &mut Fields<'_>, space: &Space<'_>, target: u64) -> Result<Vec<Op>> {
    let most = fields.rest().len() as u64;
    let count = fields.number_up_to(most)?;
    let jumps = fields.number_up_to(most)?;
    let lengths = fields.number_up_to(most)?;
    let runs = fields.number_up_to(most)?;
    let tags = fields.take(count)?;
    let mut jumps = Fields::new(fields.take(jumps)?, WHAT);
    let mut lengths = Fields::new(fields.take(lengths)?, WHAT);
    let mut runs = Fields::new(fields.take(runs)?, WHAT);
    let mut ops = Vec::with_capacity(tags.len());
    let (mut cursor, mut done) = (0_usize, 0_u64);
    for tag in tags {
        let jump = if tag & tag::JUMP == 0 { 0 } else { jumps.signed()? };
        let moved = |from: usize| usize::try_from((from as i64).checked_add(jump)?).ok();
        let leaf = || {
            let index = moved(cursor).filter(|index| *index < space.leaves().len());
            index.ok_or_else(|| corrupted("it names a leaf of the bases that is not there"))
        };
        let (op, length) = match tag & !tag::JUMP {
            tag::LEAF => {
                let leaf = leaf()?;
                cursor = leaf + 1;
                let range = leaf_range(space, leaf);
                (Op::Leaf(leaf), range.end - range.start)
            }
            tag::CODED => {
                let place = moved(space.place_at(cursor));
                let found = place.and_then(|index| Some((index, space.places().get(index)?)));
                let (index, place) =
                    found.ok_or_else(|| corrupted("it names a stream of the bases that is not there"))?;
                cursor = place.end;
                (Op::Coded(index), place.coded.end - place.coded.start)
            }
            tag::FRESH => {
                let length = lengths.number()?;
                let runs = read_runs(&mut runs, 0, length, space)?;
                (Op::New { like: None, length, runs }, length)
            }
            kind @ (tag::NEW | tag::RUNS | tag::CODE) => {
                let leaf = leaf()?;
                cursor = leaf + 1;
                let range = leaf_range(space, leaf);
                let length = (range.end - range.start).checked_add_signed(lengths.signed()?);
                let length = length.ok_or_else(|| corrupted("a length is less than nothing"))?;
                let op = match kind {
                    tag::CODE => Op::Code { like: leaf, length },
                    tag::NEW => Op::New { like: Some(leaf), length, runs: Vec::new() },
                    _ => {
                        let runs = read_runs(&mut runs, range.start, length, space)?;
                        Op::New { like: Some(leaf), length, runs }
                    }
                };
                (op, length)
            }
            other => return Err(corrupted(&format!("there is no op {other}"))),
        };
        done = done.checked_add(length).filter(|done| *done <= target).ok_or_else(|| {
            corrupted(&format!("it makes more than the {target} bytes that the recipe takes"))
        })?;
        ops.push(op);
    }
    jumps.end()?;
    lengths.end()?;
    runs.end()?;
    if done != target {
        return Err(corrupted(&format!("it makes {done} of the {target} bytes that the recipe takes")));
    }
    Ok(ops)
}

fn read_runs(fields: &mut Fields<'_>, start: u64, length: u64, space: &Space<'_>) -> Result<Vec<Run>> {
    use super::medium::ReadAt as _;
    let outside = || corrupted("it copies from outside of the bases, or past the end of an op");
    let count = fields.number_up_to(fields.rest().len() as u64)?;
    let mut runs = Vec::new();
    let (mut new, mut old) = (0_u64, start);
    for _ in 0..count {
        let at = new.checked_add(fields.number()?).ok_or_else(outside)?;
        let from = old.wrapping_add_signed(fields.signed()?);
        let run = Run { new: at, old: from, length: fields.number()? };
        new = at.checked_add(run.length).filter(|end| *end <= length).ok_or_else(outside)?;
        old = from.checked_add(run.length).filter(|end| *end <= space.size()).ok_or_else(outside)?;
        runs.push(run);
    }
    Ok(runs)
}

#[cold]
fn corrupted(what: &str) -> Error {
    Error::new(ErrorKind::Corrupted, format!("patch: {what}"))
}
