//! How the target stream is put together, in words of the bases' leaves.
//!
//! Ops are told in the order of the target stream. A *cursor* runs through the leaves of the
//! bases: where the target goes on as the base does, an op is one byte that says nothing new.

use std::collections::BTreeMap;
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
    /// A leaf of the bases, to whose fields something is added: a header with another time, or
    /// another place in the file.
    Header { like: usize, adds: Vec<Add> },
    /// `length` bytes that the code engine makes of a leaf.
    Code { like: usize, length: u64 },
}

/// A 32-bit number, the low byte first, that is added to what stands at `at`, modulo 2^32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Add {
    pub(crate) at: u32,
    pub(crate) value: u32,
}

/// The longest leaf that adds are looked for in.
pub(crate) const MOST_HEADER: u64 = 4 << 10;

/// Adds of one op.
const MOST_ADDS: usize = 8;

/// Ways to change a header that are remembered; the next one like it costs nothing.
const REMEMBERED: usize = 64;

/// What makes `new` of `old`, if that is little.
pub(crate) fn adds(old: &[u8], new: &[u8]) -> Option<Vec<Add>> {
    if old.len() != new.len() || old.len() as u64 > MOST_HEADER {
        return None;
    }
    let mut adds = Vec::new();
    let mut at = 0;
    while let Some(next) = (at..old.len()).find(|at| old[*at] != new[*at]) {
        // Fields of headers stand at even places; the last bytes may be no whole field.
        at = (next & !1).max(at);
        let value = field(new, at).wrapping_sub(field(old, at));
        adds.push(Add { at: at as u32, value });
        at += 4;
        if adds.len() > MOST_ADDS {
            return None;
        }
    }
    Some(adds)
}

/// `old` with `adds`.
///
/// # Errors
/// [`ErrorKind::Corrupted`] for an add outside of it.
pub(crate) fn add_to(old: &mut [u8], adds: &[Add]) -> Result<()> {
    for add in adds {
        let value = field(old, add.at as usize).wrapping_add(add.value).to_le_bytes();
        let place = old.get_mut(add.at as usize..).filter(|place| !place.is_empty());
        let place = place.ok_or_else(|| corrupted("it changes a header past its end"))?;
        let length = place.len().min(4);
        place[..length].copy_from_slice(&value[..length]);
    }
    Ok(())
}

/// The number at `at`; what would be past the end is 0.
fn field(bytes: &[u8], at: usize) -> u32 {
    let mut field = [0; 4];
    for (to, from) in field.iter_mut().zip(bytes.iter().skip(at)) {
        *to = *from;
    }
    u32::from_le_bytes(field)
}

/// Which fields of headers were changed before, the latest way first.
#[derive(Debug, Default)]
struct Memory(Vec<Vec<u32>>);

impl Memory {
    fn find(&self, fields: &[u32]) -> Option<usize> {
        self.0.iter().position(|known| known == fields)
    }

    fn take(&mut self, index: usize) -> Option<Vec<u32>> {
        (index < self.0.len()).then(|| self.0.remove(index))
    }

    fn put(&mut self, fields: Vec<u32>) {
        self.0.truncate(REMEMBERED - 1);
        self.0.insert(0, fields);
    }
}

/// The low bits of a tag; the next one says that a jump of the cursor goes before.
mod tag {
    pub(super) const LEAF: u8 = 0;
    pub(super) const CODED: u8 = 1;
    pub(super) const NEW: u8 = 2;
    pub(super) const RUNS: u8 = 3;
    pub(super) const FRESH: u8 = 4;
    pub(super) const CODE: u8 = 5;
    pub(super) const HEADER: u8 = 6;
    pub(super) const JUMP: u8 = 8;
}

/// Ops as columns.
#[derive(Debug, Default)]
struct Columns {
    tags: Vec<u8>,
    jumps: Vec<u8>,
    lengths: Vec<u8>,
    runs: Vec<u8>,
    adds: Vec<u8>,
    /// What is added, by field: the times in one column, the offsets in another.
    values: BTreeMap<u32, Vec<u8>>,
    memory: Memory,
}

/// Writes ops, one column after the other.
pub(crate) fn write(ops: &[Op], space: &Space<'_>, out: &mut Vec<u8>) {
    let mut columns = Columns::default();
    let mut cursor = 0;
    for op in ops {
        columns.op(op, space, &mut cursor);
    }
    put(out, ops.len() as u64);
    for column in [&columns.jumps, &columns.lengths, &columns.runs, &columns.adds] {
        put(out, column.len() as u64);
    }
    for column in [columns.tags, columns.jumps, columns.lengths, columns.runs, columns.adds] {
        out.extend_from_slice(&column);
    }
    put(out, columns.values.len() as u64);
    for (at, values) in &columns.values {
        put(out, u64::from(*at));
        put(out, values.len() as u64);
    }
    columns.values.values().for_each(|values| out.extend_from_slice(values));
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
            Op::Header { like, adds } => {
                self.tag(tag::HEADER, *like as i64 - *cursor as i64);
                let fields: Vec<u32> = adds.iter().map(|add| add.at).collect();
                match self.memory.find(&fields) {
                    Some(index) => {
                        put(&mut self.adds, index as u64 + 1);
                        self.memory.take(index);
                    }
                    None => {
                        put(&mut self.adds, 0);
                        put(&mut self.adds, fields.len() as u64);
                        fields.iter().for_each(|at| put(&mut self.adds, u64::from(*at)));
                    }
                }
                self.memory.put(fields);
                for add in adds {
                    self.values.entry(add.at).or_default().extend_from_slice(&add.value.to_le_bytes());
                }
                *cursor = like + 1;
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

/// Whether the code engine may make `new` bytes of `old` ones: what it does is paid by what it makes.
pub(crate) fn worth_code(old: u64, new: u64) -> bool {
    old / 16 <= new && new >= LEAST_CODE
}

/// The shortest member of the code engine.
pub(crate) const LEAST_CODE: u64 = 64;

/// Ops of one patch: more than a blob has leaves and streams under the limits that are usual.
const MOST_OPS: u64 = 1 << 21;

/// Runs of one patch.
const MOST_RUNS: usize = 1 << 21;

/// Reads what [`write`] wrote, of somebody who may lie: every op lies inside the bases, and
/// together they are `target` bytes long.
///
/// # Errors
/// [`ErrorKind::Corrupted`].
pub(crate) fn read(fields: &mut Fields<'_>, space: &Space<'_>, target: u64) -> Result<Vec<Op>> {
    let most = fields.rest().len() as u64;
    let count = fields.number_up_to(most)?;
    // A few bytes of a compressed control stand for as many ops as there are numbers.
    if count > MOST_OPS {
        return Err(too_large(format!("it has {count} ops, more than {MOST_OPS}")));
    }
    let jumps = fields.number_up_to(most)?;
    let lengths = fields.number_up_to(most)?;
    let runs = fields.number_up_to(most)?;
    let adds = fields.number_up_to(most)?;
    let tags = fields.take(count)?;
    let mut jumps = Fields::new(fields.take(jumps)?, WHAT);
    let mut lengths = Fields::new(fields.take(lengths)?, WHAT);
    let mut runs = Fields::new(fields.take(runs)?, WHAT);
    let mut adds = Fields::new(fields.take(adds)?, WHAT);
    let mut values = read_values(fields)?;
    let mut memory = Memory::default();
    let mut runs_left = MOST_RUNS;
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
                let runs = read_runs(&mut runs, 0, length, space, &mut runs_left)?;
                (Op::New { like: None, length, runs }, length)
            }
            tag::HEADER => {
                let leaf = leaf()?;
                cursor = leaf + 1;
                let range = leaf_range(space, leaf);
                if range.end - range.start > MOST_HEADER {
                    return Err(corrupted("it changes a header that is too long for one"));
                }
                let adds = read_adds(&mut adds, &mut values, &mut memory)?;
                (Op::Header { like: leaf, adds }, range.end - range.start)
            }
            kind @ (tag::NEW | tag::RUNS | tag::CODE) => {
                let leaf = leaf()?;
                cursor = leaf + 1;
                let range = leaf_range(space, leaf);
                let length = (range.end - range.start).checked_add_signed(lengths.signed()?);
                let length = length.ok_or_else(|| corrupted("a length is less than nothing"))?;
                let op = match kind {
                    // All of the leaf is read and looked through for it.
                    tag::CODE if !worth_code(range.end - range.start, length) => {
                        return Err(corrupted("it makes next to nothing of a long binary"));
                    }
                    tag::CODE => Op::Code { like: leaf, length },
                    tag::NEW => Op::New { like: Some(leaf), length, runs: Vec::new() },
                    _ => {
                        let runs = read_runs(&mut runs, range.start, length, space, &mut runs_left)?;
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
    adds.end()?;
    values.values().try_for_each(Fields::end)?;
    if done != target {
        return Err(corrupted(&format!("it makes {done} of the {target} bytes that the recipe takes")));
    }
    Ok(ops)
}

/// The columns of what is added, by field.
type Values<'a> = BTreeMap<u32, Fields<'a>>;

fn read_values<'a>(fields: &mut Fields<'a>) -> Result<Values<'a>> {
    let mut lengths = Vec::new();
    for _ in 0..fields.number_up_to(MOST_HEADER)? {
        lengths.push((fields.number_up_to(MOST_HEADER)? as u32, fields.number()?));
    }
    let column = |(at, length)| Ok((at, Fields::new(fields.take(length)?, WHAT)));
    lengths.into_iter().map(column).collect()
}

fn read_adds(fields: &mut Fields<'_>, values: &mut Values<'_>, memory: &mut Memory) -> Result<Vec<Add>> {
    let unknown = || corrupted("it changes a header as none before it");
    let at = match fields.number_up_to(REMEMBERED as u64)?.checked_sub(1) {
        Some(index) => memory.take(index as usize).ok_or_else(unknown)?,
        None => {
            let count = fields.number_up_to(MOST_ADDS as u64)?;
            (0..count).map(|_| Ok(fields.number_up_to(MOST_HEADER)? as u32)).collect::<Result<_>>()?
        }
    };
    let add = |at: &u32| {
        let mut value = [0; 4];
        value.copy_from_slice(values.get_mut(at).ok_or_else(unknown)?.take(4)?);
        Ok(Add { at: *at, value: u32::from_le_bytes(value) })
    };
    let adds = at.iter().map(add).collect();
    memory.put(at);
    adds
}

fn read_runs(
    fields: &mut Fields<'_>,
    start: u64,
    length: u64,
    space: &Space<'_>,
    left: &mut usize,
) -> Result<Vec<Run>> {
    use super::medium::ReadAt as _;
    let outside = || corrupted("it copies from outside of the bases, or past the end of an op");
    let count = fields.number_up_to(fields.rest().len() as u64)?;
    let after = left.checked_sub(count as usize);
    *left = after.ok_or_else(|| too_large(format!("it has more than {MOST_RUNS} runs")))?;
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
fn too_large(what: String) -> Error {
    Error::new(ErrorKind::TooLarge, format!("patch: {what}"))
}

#[cold]
fn corrupted(what: &str) -> Error {
    Error::new(ErrorKind::Corrupted, format!("patch: {what}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn adds_make_the_new_header(old in prop::collection::vec(any::<u8>(), 0..60), edits: Vec<(prop::sample::Index, u8)>) {
            let mut new = old.clone();
            for (at, byte) in edits.iter().filter(|_| !old.is_empty()).take(4) {
                let at = at.index(new.len());
                new[at] = *byte;
            }
            let found = adds(&old, &new).unwrap();
            let mut made = old.clone();
            add_to(&mut made, &found).unwrap();
            prop_assert_eq!(made, new);
        }
    }

    #[test]
    fn adds_past_the_end_are_refused() {
        let mut header = [0; 6];
        add_to(&mut header, &[Add { at: 4, value: 0x0102_0304 }]).unwrap();
        assert_eq!(header, [0, 0, 0, 0, 4, 3]);
        add_to(&mut header, &[Add { at: 6, value: 1 }]).unwrap_err();
    }
}
