//! Choosing how a blob travels: whole, compressed, or as what differs from the bases.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::apply::{apply, context};
use super::coarse::{Index, LEAST};
use super::medium::{ReadAt, Scratch, Spool};
use super::open::{self, Codec, Encoding, Family, Image, Kind, Leaf, Limits, Recipe};
use super::ops::{self, Op};
use super::pair::{self, Known, Partner, digest, each_chunk, normal, pair};
use super::patch::{Details, Header, MOST_BASES, Method};
use super::space::Space;
use super::windows::{groups, holes, windows};
use super::wire::put;
use super::{code, lz};
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};

/// A blob that the receiver has.
#[derive(Clone, Debug)]
pub struct Base {
    /// Its SHA-256.
    pub digest: Digest,
    /// Its bytes.
    pub data: Arc<dyn ReadAt>,
}

/// What a plan may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Budget {
    /// 0 to 9: each step about doubles the CPU time that is allowed; 5 is about 5 s for each MB of
    /// the blob. 0 tries nothing but copies and quick compression.
    pub effort: u8,
    /// Bytes of memory.
    pub memory: u64,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { effort: 5, memory: 1 << 30 }
    }
}

impl Budget {
    /// Nanoseconds of CPU time for a blob of `size` bytes; estimates, not readings of a clock, so
    /// that the same blobs give the same plan everywhere.
    fn nanoseconds(self, size: u64) -> u64 {
        let per_byte = match self.effort {
            0 => 50,
            1 => 150,
            2 => 500,
            3 => 1_000,
            4 => 2_000,
            5 => 4_500,
            6 => 9_000,
            7 => 18_000,
            8 => 50_000,
            _ => return u64::MAX,
        };
        // Small blobs are cheap anyway.
        size.saturating_mul(per_byte).saturating_add(200_000_000)
    }
}

/// What a planner is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Opening containers and decoding what is in them.
    Open,
    /// Finding the encoders that made the compressed streams.
    Identify,
    /// Splitting streams whose encoder is not known.
    Split,
    /// Finding what is the same and what is alike.
    Match,
    /// Executables and other binaries.
    Code,
    /// Everything else that is new.
    Windows,
    /// Compressing the whole blob, for comparison.
    Compress,
    /// Making the blob of the patch, and looking at its digest.
    Verify,
}

impl Phase {
    /// Its name, in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Open => "open",
            Phase::Identify => "identify",
            Phase::Split => "split",
            Phase::Match => "match",
            Phase::Code => "code",
            Phase::Windows => "windows",
            Phase::Compress => "compress",
            Phase::Verify => "verify",
        }
    }
}

/// What a patch is made of, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Account {
    /// Compressed streams that were found in the blob.
    pub streams: u64,
    /// Of those, the ones that a base has as they are.
    pub same: u64,
    /// Those that a known encoder makes.
    pub exact: u64,
    /// Those that were split.
    pub split: u64,
    /// Parts of the opened blob.
    pub leaves: u64,
    /// Bytes of the opened blob that are copied.
    pub copied_bytes: u64,
    /// Bytes of it that went through the code engine.
    pub code_bytes: u64,
    /// Other bytes that are new, or look so.
    pub new_bytes: u64,
    /// What the recipe and the ops take in the patch.
    pub control_size: u64,
    /// What the code engine's part takes.
    pub code_size: u64,
    /// What the other new bytes take.
    pub windows_size: u64,
}

/// How a blob travels.
#[derive(Debug)]
pub struct Plan {
    /// How the artefact makes the blob.
    pub method: Method,
    /// The bases it needs.
    pub bases: Vec<Digest>,
    /// What travels: [`apply`] makes the blob of it.
    pub artefact: Box<dyn Spool>,
    /// What the patch is made of, if one was made, chosen or not.
    pub account: Option<Account>,
    /// Why this method, in a sentence.
    pub why: String,
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} streams: {} the same, {} by a known encoder, {} split; {} bytes copied, {} new ones in {}, {} of code in {}",
            self.streams,
            self.same,
            self.exact,
            self.split,
            self.copied_bytes,
            self.new_bytes,
            self.windows_size,
            self.code_bytes,
            self.code_size
        )
    }
}

/// Plans how `target` travels to somebody who has `bases`, the most promising one first.
///
/// A patch is applied here before it is given out: what comes out of the plan makes the blob.
///
/// # Errors
/// Those of the media. What cannot be patched travels whole.
pub fn plan(
    target: &dyn ReadAt,
    bases: &[Base],
    budget: &Budget,
    limits: &Limits,
    scratch: &dyn Scratch,
    progress: &dyn Fn(Phase),
) -> Result<Plan> {
    let size = target.size();
    let header =
        Header { method: Method::Whole, size, digest: digest(target, &(0..size))?, bases: Vec::new() };
    let work = Work { left: Cell::new(budget.nanoseconds(size)), budget: *budget, progress };
    let mut account = None;
    let mut refused = None;
    if !bases.is_empty() && size > 0 {
        let bases = &bases[..bases.len().min(MOST_BASES)];
        match patch(&header, target, bases, limits, scratch, &work) {
            Ok((artefact, made)) => {
                account = Some(made);
                // Half is worth no further thought.
                if artefact.size() < size / 2 {
                    return Ok(chosen(header, bases, artefact, account));
                }
                refused = Some(Ok(artefact));
            }
            Err(error) if error.kind().is_retryable() || error.kind() == ErrorKind::NoSpace => {
                return Err(error);
            }
            Err(error) => refused = Some(Err(error)),
        }
    }
    progress(Phase::Compress);
    let compressed = compressed(&header, target, scratch, budget)?;
    if let Some(Ok(artefact)) = refused {
        if artefact.size() < compressed.size().min(size) {
            return Ok(chosen(header, bases, artefact, account));
        }
        refused = None;
    }
    let why_no_patch = match (refused, &account) {
        (Some(Err(error)), _) => format!("no patch could be made: {error}"),
        (_, Some(account)) => format!("a patch would be larger ({account})"),
        _ => "there is nothing to compare with".to_owned(),
    };
    if compressed.size() < size - size / 32 {
        let why = format!("{why_no_patch}; compressed it is smaller");
        let method = Method::Compressed;
        return Ok(Plan { method, bases: Vec::new(), artefact: compressed, account, why });
    }
    let mut artefact = scratch.spool()?;
    artefact.append(&header.to_bytes())?;
    each_chunk(target, &(0..size), &mut |chunk| artefact.append(chunk))?;
    let why = format!("{why_no_patch}, and compressing gains nothing");
    Ok(Plan { method: Method::Whole, bases: Vec::new(), artefact, account, why })
}

fn chosen(header: Header, bases: &[Base], artefact: Box<dyn Spool>, account: Option<Account>) -> Plan {
    let percent = artefact.size() as f64 * 100.0 / header.size as f64;
    let made = account.as_ref().map(ToString::to_string).unwrap_or_default();
    let why = format!("a patch takes {percent:.1} % ({made})");
    let bases = bases.iter().map(|base| base.digest).collect();
    Plan { method: Method::Patch, bases, artefact, account, why }
}

fn compressed(
    header: &Header,
    target: &dyn ReadAt,
    scratch: &dyn Scratch,
    budget: &Budget,
) -> Result<Box<dyn Spool>> {
    let mut artefact = scratch.spool()?;
    artefact.append(&Header { method: Method::Compressed, ..header.clone() }.to_bytes())?;
    let level = if budget.effort < 5 { 3 } else { 9 };
    lz::stream_in(target, &(0..target.size()), level, &mut |bytes| artefact.append(bytes))?;
    Ok(artefact)
}

/// The budget as it is used up.
struct Work<'a> {
    left: Cell<u64>,
    budget: Budget,
    progress: &'a dyn Fn(Phase),
}

impl Work<'_> {
    /// Takes the cost of handling `bytes` at so many nanoseconds each, if it is there.
    fn take(&self, bytes: u64, nanoseconds: u64) -> bool {
        let cost = bytes.saturating_mul(nanoseconds);
        let enough = cost <= self.left.get();
        if enough {
            self.left.set(self.left.get() - cost);
        }
        enough
    }

    /// As [`take`](Work::take), for what has to be done anyway.
    fn spend(&self, bytes: u64, nanoseconds: u64) {
        self.left.set(self.left.get().saturating_sub(bytes.saturating_mul(nanoseconds)));
    }
}

fn patch(
    header: &Header,
    target: &dyn ReadAt,
    bases: &[Base],
    limits: &Limits,
    scratch: &dyn Scratch,
    work: &Work<'_>,
) -> Result<(Box<dyn Spool>, Account)> {
    (work.progress)(Phase::Open);
    let mut new = open::open(target, "", scratch, limits)?;
    let olds: Vec<&dyn ReadAt> = bases.iter().map(|base| &*base.data).collect();
    let mut space = Space::open(&olds, &[], scratch, limits)?;
    work.spend(new.size() + space.size(), 8);

    let mut account = Account { streams: new.streams().len() as u64, ..Account::default() };
    let streams = streams(&mut new, &mut space, work)?;
    account.same = streams.same.iter().flatten().count() as u64;
    for encoding in &streams.encodings {
        match encoding {
            Encoding::Exact(_) => account.exact += 1,
            Encoding::Split => account.split += 1,
            Encoding::Closed => {}
        }
    }

    (work.progress)(Phase::Match);
    let leaves = new.target(&streams.encodings);
    account.leaves = leaves.len() as u64;
    let ops = ops_of(leaves, &streams, &new, &space, work)?;

    let mut data = scratch.spool()?;
    let mut lengths = Vec::new();
    (work.progress)(Phase::Windows);
    let new_bytes = NewBytes::of(&ops, &new);
    let mut at = 0;
    for window in windows(&ops.ops, &space) {
        let prefix = context(&space, &window.context)?;
        let bytes = new_bytes.read(at, window.length)?;
        at += window.length;
        let frame = squeeze(&prefix, &bytes, work)?;
        put(&mut lengths, frame.len() as u64);
        account.new_bytes += window.length;
        account.windows_size += frame.len() as u64;
        data.append(&frame)?;
    }
    (work.progress)(Phase::Code);
    for group in groups(&ops.ops, &space) {
        let mut encoder = code::Encoder::new(work.budget.memory, work.budget.effort);
        for index in group {
            let (Some(Op::Code { like, length }), Some(range)) = (ops.ops.get(index), ops.from.get(index))
            else {
                continue;
            };
            let old = space.leaves().get(*like).map_or(0..0, |leaf| leaf.range.clone());
            encoder.add(&context(&space, &[old])?, &context(&new, std::slice::from_ref(range))?)?;
            account.code_bytes += length;
        }
        let bytes = encoder.finish()?;
        put(&mut lengths, bytes.len() as u64);
        account.code_size += bytes.len() as u64;
        data.append(&bytes)?;
    }

    let recipe = Recipe::new(&new, &streams.encodings)?;
    account.copied_bytes = recipe.target_size() - account.new_bytes - account.code_bytes;
    let recipe = recipe.to_bytes();
    let mut control = Vec::new();
    put(&mut control, recipe.len() as u64);
    control.extend_from_slice(&recipe);
    ops::write(&ops.ops, &space, &mut control);
    control.extend_from_slice(&lengths);
    let frame = squeeze(&space.shape(), &control, work)?;
    account.control_size = frame.len() as u64;

    let digests: Vec<Digest> = bases.iter().map(|base| base.digest).collect();
    let mut head = Header { method: Method::Patch, bases: digests, ..header.clone() }.to_bytes();
    let details = Details {
        limits: *limits,
        splits: streams.splits,
        control: control.len() as u64,
        control_frame: frame.len() as u64,
    };
    details.write(&mut head);
    let mut artefact = scratch.spool()?;
    artefact.append(&head)?;
    artefact.append(&frame)?;
    each_chunk(&*data, &(0..data.size()), &mut |chunk| artefact.append(chunk))?;

    (work.progress)(Phase::Verify);
    if artefact.size() < header.size {
        let bases: Vec<_> = bases.iter().map(|base| (base.digest, base.data.clone())).collect();
        apply(&*artefact, &bases, limits, scratch, &mut std::io::sink())
            .map_err(|error| error.context("trying the patch"))?;
    }
    Ok((artefact, account))
}

/// New bytes after a prefix, as hard as the budget allows.
fn squeeze(prefix: &[u8], new: &[u8], work: &Work<'_>) -> Result<Vec<u8>> {
    let bytes = (prefix.len() / 2 + new.len()) as u64;
    let search = if work.budget.effort >= 3 && work.take(bytes, 1_200) {
        lz::Search::Best
    } else if work.budget.effort > 0 && work.take(bytes, 120) {
        lz::Search::Good
    } else {
        work.spend(bytes, 10);
        lz::Search::Fast
    };
    lz::compress(prefix, new, search)
}

/// What becomes of the streams of the target.
struct Streams {
    encodings: Vec<Encoding>,
    /// For each stream the one of a base with the same coded bytes, (base, stream).
    same: Vec<Option<(usize, usize)>>,
    /// Streams of the bases that are split.
    splits: Vec<(usize, usize)>,
}

fn streams(new: &mut Image<'_>, space: &mut Space<'_>, work: &Work<'_>) -> Result<Streams> {
    (work.progress)(Phase::Identify);
    let mut coded: HashMap<Digest, (usize, usize)> = HashMap::new();
    let mut named: HashMap<String, Vec<(usize, usize)>> = HashMap::new();
    for place in space.places() {
        coded.entry(digest(space, &place.coded)?).or_insert(place.at);
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
    for index in 0..count {
        let stream = &new.streams()[index];
        if stream.parent.is_some_and(|parent| matches!(found.encodings[parent], Encoding::Closed)) {
            continue;
        }
        if let Some(at) = coded.get(&digest(new, &stream.coded)?) {
            found.same[index] = Some(*at);
            continue;
        }
        let plain = stream.plain.end - stream.plain.start;
        let (per_byte, family) = match stream.family() {
            Family::Deflate => (150, Family::Deflate),
            Family::Xz => (900, Family::Xz),
            Family::Zstd => (600, Family::Zstd),
        };
        if work.take(plain, per_byte)
            && let Some(codec) = open::identify(new, index, hints.get(&family), work.budget.effort)?
        {
            hints.insert(family, codec.clone());
            found.encodings[index] = Encoding::Exact(codec);
        } else if family == Family::Deflate && work.budget.effort > 0 {
            // The stream of the same name, or that stands at the same place among its like.
            let same_name = named.get(&normal(&stream.name));
            partners[index] = same_name.and_then(|choices| choices.first()).copied();
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
    for index in 0..found.encodings.len() {
        if !matches!(found.encodings[index], Encoding::Split) {
            continue;
        }
        let stream = &new.streams()[index];
        let coded = stream.coded.end - stream.coded.start;
        let sides = new.sides(index);
        let base = partners[index].and_then(|(base, stream)| {
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
            kept.extend(partners[index]);
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
struct Ops {
    ops: Vec<Op>,
    from: Vec<std::ops::Range<u64>>,
}

fn ops_of(
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

/// What is made of a leaf that has a partner.
fn like(leaf: &Leaf, index: usize, new: &Image<'_>, space: &Space<'_>, work: &Work<'_>) -> Result<Op> {
    let length = leaf.range.end - leaf.range.start;
    let base = space.leaves().get(index).map_or(0..0, |leaf| leaf.range.clone());
    if is_code(leaf, &base, new, space, work)? {
        return Ok(Op::Code { like: index, length });
    }
    let mut runs = Vec::new();
    if length >= 4 * LEAST && base.end - base.start >= 4 * LEAST {
        work.spend(length + base.end - base.start, 5);
        runs = Index::new(space, std::slice::from_ref(&base))?.runs(space, &base, new, &leaf.range)?;
        runs.iter_mut().for_each(|run| run.new -= leaf.range.start);
    }
    Ok(Op::New { like: Some(index), length, runs })
}

/// The largest member of the code engine.
const MOST_CODE: u64 = 160 << 20;

/// Members up to this size are tried with both engines.
const TRIED: u64 = 4 << 20;

/// Whether the code engine is the better one.
fn is_code(
    leaf: &Leaf,
    base: &std::ops::Range<u64>,
    new: &Image<'_>,
    space: &Space<'_>,
    work: &Work<'_>,
) -> Result<bool> {
    let (length, old_length) = (leaf.range.end - leaf.range.start, base.end - base.start);
    let memory = old_length.saturating_mul(7).saturating_add(length.saturating_mul(2));
    let fits = length.max(old_length) <= MOST_CODE.min(1 << 28) && memory <= work.budget.memory;
    if leaf.kind != Kind::Content
        || !(64..).contains(&length)
        || old_length < 64
        || !fits
        || work.budget.effort < 2
    {
        return Ok(false);
    }
    let head = context(new, &[leaf.range.start..leaf.range.end.min(leaf.range.start + 4096)])?;
    let executable = [&b"\x7fELF"[..], b"MZ", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"\0asm"];
    if length >= 64 << 10 && executable.iter().any(|magic| head.starts_with(magic)) {
        return Ok(work.take(length, 1_500));
    }
    let odd = head.iter().filter(|byte| **byte < 9 || (14..32).contains(*byte)).count();
    if odd * 20 < head.len() || length > TRIED || !work.take(length + old_length, 1_500) {
        return Ok(false);
    }
    let (old, bytes) =
        (context(space, std::slice::from_ref(base))?, context(new, std::slice::from_ref(&leaf.range))?);
    let mut encoder = code::Encoder::new(work.budget.memory, work.budget.effort);
    encoder.add(&old, &bytes)?;
    Ok(encoder.finish()?.len() < lz::compress(&old, &bytes, lz::Search::Good)?.len())
}

/// All bytes that come from the windows, one after the other.
struct NewBytes<'a> {
    new: &'a Image<'a>,
    /// Where each stretch begins among them, and in the image.
    stretches: Vec<(u64, std::ops::Range<u64>)>,
}

impl<'a> NewBytes<'a> {
    fn of(ops: &Ops, new: &'a Image<'a>) -> NewBytes<'a> {
        let (mut stretches, mut at) = (Vec::new(), 0);
        for (op, from) in ops.ops.iter().zip(&ops.from) {
            if let Op::New { length, runs, .. } = op {
                for hole in holes(*length, runs) {
                    let range = from.start + hole.start..from.start + hole.end;
                    stretches.push((at, range));
                    at += hole.end - hole.start;
                }
            }
        }
        NewBytes { new, stretches }
    }

    fn read(&self, start: u64, length: u64) -> Result<Vec<u8>> {
        let end = start + length;
        let mut first = self.stretches.partition_point(|(at, _)| *at <= start).saturating_sub(1);
        let mut ranges = Vec::new();
        while let Some((at, range)) = self.stretches.get(first).filter(|(at, _)| *at < end) {
            let from = range.start + start.saturating_sub(*at);
            ranges.push(from..range.end.min(range.start + (end - at)));
            first += 1;
        }
        context(self.new, &ranges)
    }
}

#[allow(unused)]
fn _unused(_: &pair::Known) -> Result<()> {
    Err(Error::invalid(""))
}
