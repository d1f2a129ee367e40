//! Choosing, for everything in a blob, what it is made of.

use std::collections::HashMap;
use std::ops::Range;

use super::apply::context;
use super::coarse::{Index, LEAST, Run};
use super::inventory::{CHUNKED, Inventory, Short, cut, short};
use super::medium::ReadAt as _;
use super::open::{self, Codec, Encoding, Family, Image, Kind, Leaf};
use super::ops::{LEAST_CODE, MOST_HEADER, Op, adds, worth_code};
use super::pair::{Known, Partner, digest, normal, pair};
use super::plan::{Phase, Work};
use super::space::Space;
use super::windows::holes;
use super::{code, lz};
use crate::error::Result;

/// What becomes of the streams of the target.
pub(super) struct Streams {
    pub(super) encodings: Vec<Encoding>,
    /// For each stream the one of a base with the same coded bytes, (base, stream).
    pub(super) same: Vec<Option<(usize, usize)>>,
    /// Streams of the bases that are split.
    pub(super) splits: Vec<(usize, usize)>,
}

pub(super) fn streams(new: &mut Image<'_>, space: &mut Space<'_>, work: &Work<'_>) -> Result<Streams> {
    (work.progress)(Phase::Identify);
    let mut coded: HashMap<Short, (usize, usize)> = HashMap::new();
    let mut named: HashMap<String, Vec<(usize, usize)>> = HashMap::new();
    for (index, place) in space.places().iter().enumerate() {
        coded.entry(space.coded_digest(index)?).or_insert(place.at);
        let stream = space.images().get(place.at.0).and_then(|image| image.streams().get(place.at.1));
        if let Some(stream) = stream
            && stream.family() == Family::Deflate
        {
            named.entry(normal(&stream.name)).or_default().push(place.at);
        }
    }
    let count = new.streams().len();
    let mut found =
        Streams { encodings: vec![Encoding::Closed; count], same: vec![None; count], splits: Vec::new() };
    let mut partners: Vec<Option<(usize, usize)>> = vec![None; count];
    let mut hints: HashMap<Family, Codec> = HashMap::new();
    for (index, partner) in partners.iter_mut().enumerate() {
        let stream = &new.streams()[index];
        if stream.parent.is_some_and(|parent| matches!(found.encodings[parent], Encoding::Closed)) {
            continue;
        }
        if let Some(at) = coded.get(&short(&digest(new, &stream.coded)?)) {
            found.same[index] = Some(*at);
            continue;
        }
        let plain = stream.plain.end - stream.plain.start;
        let (per_byte, family) = match stream.family() {
            Family::Deflate => (150, Family::Deflate),
            Family::Xz => (450, Family::Xz),
            Family::Zstd => (600, Family::Zstd),
        };
        if work.take(plain, per_byte)
            && let Some(codec) =
                open::identify(new, index, hints.get(&family), work.budget.effort, work.thorough)?
            && open::fits(new, &found.encodings, index, &codec)
        {
            hints.insert(family, codec.clone());
            found.encodings[index] = Encoding::Exact(codec);
        } else if family == Family::Deflate && work.budget.effort > 0 {
            // The stream of the same name, or that stands at the same place among its like.
            let same_name = named.get(&normal(&stream.name));
            *partner = same_name.and_then(|choices| choices.first()).copied();
            found.encodings[index] = Encoding::Split;
        }
    }
    split(new, space, &mut found, &partners, work)?;
    Ok(found)
}

/// Splits the streams that no encoder was found for, and closes those that it does not pay for.
fn split(
    new: &mut Image<'_>,
    space: &mut Space<'_>,
    found: &mut Streams,
    partners: &[Option<(usize, usize)>],
    work: &Work<'_>,
) -> Result<()> {
    (work.progress)(Phase::Split);
    for (index, encoding) in found.encodings.iter_mut().enumerate() {
        if matches!(encoding, Encoding::Split) {
            if new.add_split(index).is_err() {
                *encoding = Encoding::Closed;
            } else if let Some(at) = partners[index] {
                found.splits.push(at);
            }
        }
    }
    found.splits.sort_unstable();
    found.splits.dedup();
    space.split(&found.splits)?;
    let mut kept = Vec::new();
    for (index, partner) in partners.iter().enumerate() {
        if !matches!(found.encodings[index], Encoding::Split) {
            continue;
        }
        let stream = &new.streams()[index];
        let coded = stream.coded.end - stream.coded.start;
        let sides = new.sides(index);
        let base = partner.and_then(|(base, stream)| {
            let image = space.images().get(base)?;
            Some((image, image.streams().get(stream)?.plain.clone(), image.sides(stream)?))
        });
        let Some((parse, heads)) = sides else { continue };
        let mut cost = 0;
        let plain = stream.plain.clone();
        let pairs = match &base {
            Some((_, old, (old_parse, old_heads))) => {
                [(old, &plain), (old_parse, &parse), (old_heads, &heads)]
            }
            None => [(&(0..0), &plain), (&(0..0), &parse), (&(0..0), &heads)],
        };
        for (old, range) in pairs {
            // The beginning is enough of a sample.
            let most = 4 << 20;
            let length = range.end - range.start;
            let part = range.start..range.end.min(range.start + most);
            let prefix = match &base {
                Some((image, ..)) => context(image, &[old.start..old.end.min(old.start + most)])?,
                None => Vec::new(),
            };
            let bytes = context(new, &[part])?;
            work.spend((prefix.len() + bytes.len()) as u64, 15);
            let size = lz::compress(&prefix, &bytes, lz::Search::Fast)?.len() as u64;
            cost += size * length / (bytes.len() as u64).max(1);
        }
        if cost < coded - coded / 16 {
            kept.extend(*partner);
        } else {
            found.encodings[index] = Encoding::Closed;
        }
    }
    kept.sort_unstable();
    kept.dedup();
    found.splits = kept;
    space.split(&found.splits)?;
    // What lies in a stream that was closed again is closed with it.
    for index in 0..found.encodings.len() {
        let parent = new.streams()[index].parent;
        if parent.is_some_and(|parent| matches!(found.encodings[parent], Encoding::Closed)) {
            found.encodings[index] = Encoding::Closed;
            found.same[index] = None;
        }
    }
    Ok(())
}

/// The ops, and which range of the target's image each of them makes.
pub(super) struct Ops {
    pub(super) ops: Vec<Op>,
    pub(super) from: Vec<Range<u64>>,
}

pub(super) fn ops_of(
    leaves: Vec<Leaf>,
    streams: &Streams,
    new: &Image<'_>,
    space: &Space<'_>,
    work: &Work<'_>,
) -> Result<Ops> {
    let places: HashMap<(usize, usize), usize> =
        space.places().iter().enumerate().map(|(index, place)| (place.at, index)).collect();
    let copied: HashMap<(u64, u64), usize> = (streams.same.iter().zip(new.streams()))
        .filter_map(|(same, stream)| Some(((stream.coded.start, stream.coded.end), *places.get(&(*same)?)?)))
        .collect();
    let coded_from = |leaf: &Leaf| match leaf.kind {
        Kind::Coded => copied.get(&(leaf.range.start, leaf.range.end)).copied(),
        _ => None,
    };
    let (coded, open): (Vec<Leaf>, Vec<Leaf>) =
        leaves.iter().cloned().partition(|leaf| coded_from(leaf).is_some());
    drop(coded);
    let old = Known::all(space, space.leaves().to_vec())?;
    let known = Known::all(new, open)?;
    let mut partners = pair(&old, space, &known, new)?.into_iter();
    let mut made = Ops { ops: Vec::new(), from: Vec::new() };
    let mut everything = None;
    for leaf in leaves {
        let range = leaf.range.clone();
        let length = range.end - range.start;
        let op = match coded_from(&leaf) {
            Some(place) => Op::Coded(place),
            None => match partners.next().unwrap_or(Partner::None) {
                _ if length == 0 => continue,
                Partner::Same(index) => Op::Leaf(index),
                Partner::Like(index) => like(&leaf, index, new, space, work)?,
                Partner::None => {
                    let mut runs = Vec::new();
                    if length >= 16 * LEAST {
                        let index = match &mut everything {
                            Some(index) => index,
                            empty => {
                                let ranges: Vec<_> =
                                    space.leaves().iter().map(|leaf| leaf.range.clone()).collect();
                                work.spend(space.size(), 5);
                                empty.insert(Index::new(space, &ranges)?)
                            }
                        };
                        runs = index.runs(space, &(0..space.size()), new, &range)?;
                        runs.iter_mut().for_each(|run| run.new -= range.start);
                    }
                    Op::New { like: None, length, runs }
                }
            },
        };
        made.ops.push(op);
        made.from.push(range);
    }
    Ok(made)
}

/// The ops against a base of which only an inventory is known: nothing needs its bytes here.
pub(super) fn ops_by(
    leaves: Vec<Leaf>,
    streams: &Streams,
    new: &Image<'_>,
    base: &Inventory,
    work: &Work<'_>,
) -> Result<Ops> {
    let copied: HashMap<(u64, u64), usize> = (streams.same.iter().zip(new.streams()))
        .filter_map(|(same, stream)| Some(((stream.coded.start, stream.coded.end), (*same)?.1)))
        .collect();
    let mut same: HashMap<(u64, Short), Vec<usize>> = HashMap::new();
    let mut chunks: HashMap<(u64, Short), u64> = HashMap::new();
    for (index, (range, _, digest)) in base.leaves.iter().enumerate() {
        same.entry((range.end - range.start, *digest)).or_default().push(index);
        let mut at = range.start;
        for chunk in base.chunks.get(index).into_iter().flatten() {
            chunks.entry((chunk.length, chunk.digest)).or_insert(at);
            at += chunk.length;
        }
    }
    let mut made = Ops { ops: Vec::new(), from: Vec::new() };
    let mut cursor = 0;
    for leaf in leaves {
        let range = leaf.range;
        let length = range.end - range.start;
        if length == 0 {
            continue;
        }
        let coded = copied.get(&(range.start, range.end)).filter(|_| leaf.kind == Kind::Coded);
        let op = if let Some(place) = coded {
            Op::Coded(*place)
        } else if let Some(choices) = same.get(&(length, short(&digest(new, &range)?)))
            && let Some(index) = choices.get(choices.partition_point(|at| *at < cursor)).or(choices.last())
        {
            cursor = index + 1;
            Op::Leaf(*index)
        } else {
            let mut runs: Vec<Run> = Vec::new();
            if length >= CHUNKED / 4 && !chunks.is_empty() {
                work.spend(length, 5);
                let mut at = 0;
                for chunk in cut(new, &range)? {
                    if let Some(old) = chunks.get(&(chunk.length, chunk.digest)) {
                        match runs.last_mut() {
                            Some(run) if run.new + run.length == at && run.old + run.length == *old => {
                                run.length += chunk.length;
                            }
                            _ => runs.push(Run { new: at, old: *old, length: chunk.length }),
                        }
                    }
                    at += chunk.length;
                }
            }
            Op::New { like: None, length, runs }
        };
        made.ops.push(op);
        made.from.push(range);
    }
    Ok(made)
}

/// New bytes that are not worth the code engine.
const FEW_NEW: u64 = 1 << 10;

/// What is made of a leaf that has a partner.
fn like(leaf: &Leaf, index: usize, new: &Image<'_>, space: &Space<'_>, work: &Work<'_>) -> Result<Op> {
    let length = leaf.range.end - leaf.range.start;
    let base = space.leaves().get(index).map_or(0..0, |leaf| leaf.range.clone());
    let mut runs = Vec::new();
    if length >= 4 * LEAST && base.end - base.start >= 4 * LEAST {
        work.spend(length + base.end - base.start, 5);
        runs = Index::new(space, std::slice::from_ref(&base))?.runs(space, &base, new, &leaf.range)?;
        runs.iter_mut().for_each(|run| run.new -= leaf.range.start);
    }
    // Where next to nothing is new, and in a member of which only a piece is here, runs are the best.
    let new_bytes: u64 = holes(length, &runs).map(|hole| hole.end - hole.start).sum();
    if new_bytes > FEW_NEW.max(length / 512) && is_code(leaf, &base, new, space, work)? {
        return Ok(Op::Code { like: index, length });
    }
    if leaf.kind == Kind::Frame && length <= MOST_HEADER && length == base.end - base.start {
        let old = context(space, std::slice::from_ref(&base))?;
        if let Some(adds) = adds(&old, &context(new, std::slice::from_ref(&leaf.range))?) {
            return Ok(Op::Header { like: index, adds });
        }
    }
    Ok(Op::New { like: Some(index), length, runs })
}

/// The largest member of the code engine.
const MOST_CODE: u64 = 160 << 20;

/// Members up to this size are tried with both engines.
const TRIED: u64 = 4 << 20;

/// Nanoseconds that a trial takes before the first byte: the code engine's tables are large.
const TRIAL: u64 = 30_000_000;

/// Whether the code engine is the better one.
fn is_code(
    leaf: &Leaf,
    base: &Range<u64>,
    new: &Image<'_>,
    space: &Space<'_>,
    work: &Work<'_>,
) -> Result<bool> {
    let (length, old_length) = (leaf.range.end - leaf.range.start, base.end - base.start);
    let memory = old_length.saturating_mul(7).saturating_add(length.saturating_mul(2));
    let fits = length.max(old_length) <= MOST_CODE.min(1 << 28) && memory <= work.budget.memory;
    if leaf.kind != Kind::Content
        || !worth_code(old_length, length)
        || old_length < LEAST_CODE
        || !fits
        || work.budget.effort < 2
    {
        return Ok(false);
    }
    let head = context(new, &[leaf.range.start..leaf.range.end.min(leaf.range.start + 4096)])?;
    let executable = [&b"\x7fELF"[..], b"MZ", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"\0asm"];
    if length >= 64 << 10 && executable.iter().any(|magic| head.starts_with(magic)) {
        return Ok(work.take(length, 1_200));
    }
    let odd = head.iter().filter(|byte| **byte < 9 || (14..32).contains(*byte)).count();
    if odd * 20 < head.len() || length > TRIED || !work.try_out(TRIAL + (length + old_length) * 1_500) {
        return Ok(false);
    }
    let (old, bytes) =
        (context(space, std::slice::from_ref(base))?, context(new, std::slice::from_ref(&leaf.range))?);
    let mut encoder = code::Encoder::new(work.budget.memory, work.budget.effort);
    encoder.add(&old, &bytes)?;
    Ok(encoder.finish()?.len() < lz::compress(&old, &bytes, lz::Search::Good)?.len())
}
