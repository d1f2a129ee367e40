//! Making a patch: what was chosen, compressed and put in order.

use std::ops::Range;

use super::apply::{apply, context, within};
use super::choose::{Ops, ops_by, ops_of, streams};
use super::inventory::Inventory;
use super::medium::{ReadAt, Scratch, Spool};
use super::open::{self, Encoding, Image, Limits, Recipe};
use super::ops::{self, Op};
use super::pair::each_chunk;
use super::patch::{Details, Header, Method};
use super::plan::{Account, Base, Phase, Work};
use super::space::Space;
use super::windows::{groups, holes, windows};
use super::wire::put;
use super::{code, lz};
use crate::digest::{Digest, Hasher};
use crate::error::{Error, ErrorKind, Result};

/// What a patch is made against.
#[derive(Clone, Copy)]
pub(super) enum Against<'a> {
    /// Blobs.
    Bases(&'a [Base]),
    /// What somebody says of a blob that is not here.
    Told(Digest, &'a Inventory),
}

/// A patch that makes `target` of `bases`, tried out, and what it is made of.
pub(super) fn patch(
    header: &Header,
    target: &dyn ReadAt,
    bases: Against<'_>,
    limits: &Limits,
    scratch: &dyn Scratch,
    work: &Work<'_>,
) -> Result<(Box<dyn Spool>, Account)> {
    (work.progress)(Phase::Open);
    let limits = match bases {
        Against::Bases(_) => limits,
        Against::Told(_, inventory) => {
            within(&inventory.limits, limits)?;
            &inventory.limits
        }
    };
    let mut new = open::open(target, "", scratch, limits)?;
    let olds: Vec<&dyn ReadAt> = match bases {
        Against::Bases(bases) => bases.iter().map(|base| &*base.data).collect(),
        Against::Told(..) => Vec::new(),
    };
    let mut space = match bases {
        Against::Bases(_) => Space::open(&olds, &[], scratch, limits)?,
        Against::Told(_, inventory) => Space::told(inventory),
    };
    work.spend(new.size() + if olds.is_empty() { 0 } else { space.size() }, 8);

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
    let ops = match bases {
        Against::Bases(_) => ops_of(leaves, &streams, &new, &space, work)?,
        Against::Told(_, inventory) => ops_by(leaves, &streams, &new, inventory, work)?,
    };

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
    let recipe_bytes = recipe.to_bytes();
    let mut control = Vec::new();
    put(&mut control, recipe_bytes.len() as u64);
    control.extend_from_slice(&recipe_bytes);
    ops::write(&ops.ops, &space, &mut control);
    control.extend_from_slice(&lengths);
    let frame = squeeze(&space.shape(), &control, work)?;
    account.control_size = frame.len() as u64;

    let digests: Vec<Digest> = match bases {
        Against::Bases(bases) => bases.iter().map(|base| base.digest).collect(),
        Against::Told(digest, _) => vec![digest],
    };
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
    match bases {
        _ if artefact.size() >= header.size => {}
        Against::Bases(bases) => {
            let bases: Vec<_> = bases.iter().map(|base| (base.digest, base.data.clone())).collect();
            apply(&*artefact, &bases, limits, scratch, &mut std::io::sink())
                .map_err(|error| error.context("trying the patch"))?;
        }
        // What is copied cannot be tried here, but that the recipe makes the blob of it.
        Against::Told(..) => {
            let mut hashed = Hashed(Hasher::new());
            recipe.fold(&NewBytes::all(&ops, &new), &mut hashed)?;
            if hashed.0.finish() != header.digest {
                return Err(Error::new(ErrorKind::Mismatch, "the recipe does not make the blob again"));
            }
        }
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

/// Only looks at what is written.
struct Hashed(Hasher);

impl std::io::Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// All bytes that come from the windows, one after the other.
#[derive(Debug)]
struct NewBytes<'a> {
    new: &'a Image<'a>,
    /// Where each stretch begins among them, and in the image.
    stretches: Vec<(u64, Range<u64>)>,
    size: u64,
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
        NewBytes { new, stretches, size: at }
    }

    /// The whole target stream.
    fn all(ops: &Ops, new: &'a Image<'a>) -> NewBytes<'a> {
        let (mut stretches, mut at) = (Vec::new(), 0);
        for range in &ops.from {
            stretches.push((at, range.clone()));
            at += range.end - range.start;
        }
        NewBytes { new, stretches, size: at }
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

impl ReadAt for NewBytes<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let at = self.stretches.partition_point(|(at, _)| *at <= offset).checked_sub(1);
        let Some((at, range)) = at.and_then(|at| self.stretches.get(at)) else { return Ok(0) };
        let from = range.start.saturating_add(offset - at).min(range.end);
        let length = usize::try_from(range.end - from).unwrap_or(usize::MAX).min(buffer.len());
        self.new.read_at(&mut buffer[..length], from)
    }
}
