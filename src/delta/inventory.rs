//! What a blob is made of, told by digests: enough to plan against it without its bytes.

use std::ops::Range;
use std::sync::Arc;

use super::lz;
use super::medium::{ReadAt, Scratch};
use super::open::{Kind, Leaf, Limits};
use super::pair::{digest, each_chunk, mix};
use super::space::{Place, Space};
use super::wire::{Fields, put};
use crate::digest::{Digest, Hasher};
use crate::error::{Error, ErrorKind, Result};

const MAGIC: &[u8; 4] = b"dstI";
const VERSION: u8 = 1;
const WHAT: &str = "inventory";

/// The longest inventory, as it travels and unpacked.
const MOST_BYTES: usize = 16 << 20;
const MOST_PLAIN: u64 = 64 << 20;

/// Leaves from this size on are told by their chunks as well.
pub(super) const CHUNKED: u64 = 64 << 10;

/// Chunks end where the hash says so, within these bounds.
const LEAST_CHUNK: usize = 4 << 10;
const MOST_CHUNK: usize = 64 << 10;
const CHUNK_BITS: u32 = 14;

/// The first half of a SHA-256.
pub(crate) type Short = [u8; 16];

pub(crate) fn short(digest: &Digest) -> Short {
    let mut short = Short::default();
    short.iter_mut().zip(digest.as_bytes()).for_each(|(to, from)| *to = *from);
    short
}

/// A stretch of a leaf, which ends where its content says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) length: u64,
    pub(crate) digest: Short,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inventory {
    pub(super) limits: Limits,
    pub(super) size: u64,
    pub(super) leaves: Vec<(Range<u64>, Kind, Short)>,
    /// For each leaf its chunks, if it is long.
    pub(super) chunks: Vec<Vec<Chunk>>,
    /// Coded bytes, first and end leaf.
    pub(super) places: Vec<(Range<u64>, usize, usize, Short)>,
    pub(super) shape: Vec<u8>,
}

impl Inventory {
    /// Opens `blob` and lists what is in it.
    ///
    /// # Errors
    /// Those of the media.
    pub fn of(blob: &dyn ReadAt, limits: &Limits, scratch: &dyn Scratch) -> Result<Inventory> {
        let space = Space::open(&[blob], &[], scratch, limits)?;
        let (mut leaves, mut chunks, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for leaf in space.leaves() {
            leaves.push((leaf.range.clone(), leaf.kind, short(&digest(&space, &leaf.range)?)));
            let is_long = leaf.range.end - leaf.range.start >= CHUNKED;
            chunks.push(if is_long { cut(&space, &leaf.range)? } else { Vec::new() });
        }
        for (index, place) in space.places().iter().enumerate() {
            places.push((place.coded.clone(), place.first, place.end, space.coded_digest(index)?));
        }
        Ok(Inventory { limits: *limits, size: space.size(), leaves, chunks, places, shape: space.shape() })
    }

    /// The bytes that travel.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] for a blob of too many parts.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut plain = Vec::new();
        self.limits.write(&mut plain);
        put(&mut plain, self.size);
        for length in [self.leaves.len(), self.places.len(), self.shape.len()] {
            put(&mut plain, length as u64);
        }
        let mut at = 0;
        for ((range, kind, _), chunks) in self.leaves.iter().zip(&self.chunks) {
            plain.push(u8::from(*kind == Kind::Content));
            put(&mut plain, range.start - at);
            put(&mut plain, range.end - range.start);
            at = range.end;
            if range.end - range.start >= CHUNKED {
                put(&mut plain, chunks.len() as u64);
                chunks.iter().for_each(|chunk| put(&mut plain, chunk.length));
            }
        }
        let mut before = 0;
        for (coded, first, end, _) in &self.places {
            put(&mut plain, (first - before) as u64);
            put(&mut plain, (end - first) as u64);
            put(&mut plain, coded.start);
            put(&mut plain, coded.end - coded.start);
            before = *first;
        }
        plain.extend_from_slice(&self.shape);
        self.leaves.iter().for_each(|(_, _, digest)| plain.extend_from_slice(digest));
        self.places.iter().for_each(|(.., digest)| plain.extend_from_slice(digest));
        self.chunks.iter().flatten().for_each(|chunk| plain.extend_from_slice(&chunk.digest));
        if plain.len() as u64 > MOST_PLAIN {
            return Err(too_large(plain.len()));
        }
        let mut out = MAGIC.to_vec();
        out.push(VERSION);
        put(&mut out, plain.len() as u64);
        out.extend(lz::compress(&[], &plain, lz::Search::Fast)?);
        if out.len() > MOST_BYTES { Err(too_large(out.len())) } else { Ok(out) }
    }

    /// Reads what somebody else wrote. That it tells the truth is not known.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupted`], [`ErrorKind::TooLarge`], and [`ErrorKind::Unsupported`] for a later
    /// version.
    pub fn parse(bytes: &[u8]) -> Result<Inventory> {
        if bytes.len() > MOST_BYTES {
            return Err(too_large(bytes.len()));
        }
        let mut outer = Fields::new(bytes, WHAT);
        if outer.take(4)? != MAGIC {
            return Err(corrupted("it does not begin as one"));
        }
        let version = outer.byte()?;
        if version != VERSION {
            let message = format!("inventory: version {version} is not known here");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let length = outer.number_up_to(MOST_PLAIN)?;
        let plain = lz::decompress(&[], outer.rest(), length as usize)?;
        let mut fields = Fields::new(&plain, WHAT);
        let limits = Limits::parse(&mut fields)?;
        // Positions are told as signed numbers in patches.
        let size = fields.number_up_to(i64::MAX.cast_unsigned())?;
        // Each of them has a digest further on.
        let leaf_count = fields.number_up_to(length / 16)?;
        let place_count = fields.number_up_to(length / 16)?;
        let shape_length = fields.number()?;
        let within = |start: u64, length: u64| {
            let end = start.checked_add(length).filter(|end| *end <= size);
            end.map(|end| start..end).ok_or_else(|| corrupted("a part of it lies outside of the blob"))
        };
        let (mut leaves, mut chunks, mut places) = (Vec::new(), Vec::new(), Vec::new());
        let (mut at, mut chunks_left) = (0_u64, length / 16);
        for _ in 0..leaf_count {
            let kind = match fields.byte()? {
                0 => Kind::Frame,
                1 => Kind::Content,
                _ => return Err(corrupted("a leaf is of no known kind")),
            };
            let gap = within(at, fields.number()?)?;
            let range = within(gap.end, fields.number()?)?;
            at = range.end;
            let mut cuts = Vec::new();
            if range.end - range.start >= CHUNKED {
                let mut left = range.end - range.start;
                let count = fields.number_up_to(chunks_left)?;
                chunks_left -= count;
                for _ in 0..count {
                    let length = fields.number_up_to(left)?;
                    left -= length;
                    cuts.push(Chunk { length, digest: Short::default() });
                }
                if left > 0 {
                    return Err(corrupted("the chunks of a leaf are not all of it"));
                }
            }
            leaves.push((range, kind, Short::default()));
            chunks.push(cuts);
        }
        let mut before = 0;
        for _ in 0..place_count {
            let first = before + fields.number_up_to(leaf_count - before)?;
            let end = first + fields.number_up_to(leaf_count - first)?;
            let coded = within(fields.number()?, fields.number()?)?;
            before = first;
            places.push((coded, first as usize, end as usize, Short::default()));
        }
        let shape = fields.take(shape_length)?.to_vec();
        let slots = leaves.iter_mut().map(|(_, _, digest)| digest);
        let slots = slots.chain(places.iter_mut().map(|(.., digest)| digest));
        for slot in slots.chain(chunks.iter_mut().flatten().map(|chunk| &mut chunk.digest)) {
            slot.copy_from_slice(fields.take(16)?);
        }
        fields.end()?;
        Ok(Inventory { limits, size, leaves, chunks, places, shape })
    }

    pub(super) fn places(&self) -> Vec<Place> {
        let place = |(index, (coded, first, end, _)): (usize, &(Range<u64>, usize, usize, Short))| Place {
            at: (0, index),
            coded: coded.clone(),
            first: *first,
            end: *end,
        };
        self.places.iter().enumerate().map(place).collect()
    }

    pub(super) fn named(&self) -> Vec<Leaf> {
        let name: Arc<str> = "".into();
        let leaf = |(range, kind, _): &(Range<u64>, Kind, Short)| Leaf {
            range: range.clone(),
            name: name.clone(),
            kind: *kind,
            stream: None,
        };
        self.leaves.iter().map(leaf).collect()
    }
}

/// The chunks of a range.
pub(crate) fn cut(bytes: &dyn ReadAt, range: &Range<u64>) -> Result<Vec<Chunk>> {
    let gear: Vec<u64> = (0..256).map(|byte| mix(byte + 1)).collect();
    let mut chunks = Vec::new();
    let (mut hasher, mut length, mut hash) = (Hasher::new(), 0_usize, 0_u64);
    each_chunk(bytes, range, &mut |piece| {
        let mut done = 0;
        for (at, byte) in piece.iter().enumerate() {
            hash = (hash << 1).wrapping_add(gear[usize::from(*byte)]);
            length += 1;
            if length >= MOST_CHUNK || length >= LEAST_CHUNK && hash >> (64 - CHUNK_BITS) == 0 {
                hasher.update(&piece[done..=at]);
                done = at + 1;
                let digest = short(&std::mem::replace(&mut hasher, Hasher::new()).finish());
                chunks.push(Chunk { length: length as u64, digest });
                (length, hash) = (0, 0);
            }
        }
        hasher.update(&piece[done..]);
        Ok(())
    })?;
    if length > 0 {
        chunks.push(Chunk { length: length as u64, digest: short(&hasher.finish()) });
    }
    Ok(chunks)
}

#[cold]
fn too_large(length: usize) -> Error {
    Error::new(ErrorKind::TooLarge, format!("inventory: {length} bytes are too many"))
}

#[cold]
fn corrupted(what: &str) -> Error {
    Error::new(ErrorKind::Corrupted, format!("inventory: {what}"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{gzip, tar, text, zip};
    use super::super::{Budget, MemoryScratch, Method, Plan, apply, plan_by_inventory};
    use super::*;

    fn members(changed: &[usize]) -> Vec<(String, Vec<u8>)> {
        let content = |at: usize| text(at as u64 * 7 + u64::from(changed.contains(&at)), 9000 + at * 400);
        (0..40).map(|at| (format!("pkg/file{at}"), content(at))).collect()
    }

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        (0..length as u64).map(|at| mix(seed << 40 | at) as u8).collect()
    }

    fn planned(new: &[u8], digest: Digest, inventory: &Inventory) -> Plan {
        let budget = Budget { effort: 2, ..Budget::default() };
        let (limits, new) = (Limits::default(), new.to_vec());
        plan_by_inventory(&new, digest, inventory, &budget, &limits, &MemoryScratch, &|_| ()).unwrap()
    }

    fn made(plan: &Plan, old: &[u8]) -> Result<Vec<u8>> {
        let bases: [(Digest, Arc<dyn ReadAt>); 1] = [(Digest::of(old), Arc::new(old.to_vec()))];
        let mut out = Vec::new();
        apply(&*plan.artefact, &bases, &Limits::default(), &MemoryScratch, &mut out)?;
        Ok(out)
    }

    fn inventory(old: &[u8]) -> Inventory {
        Inventory::of(&old.to_vec(), &Limits::default(), &MemoryScratch).unwrap()
    }

    #[test]
    fn what_is_equal_does_not_travel() {
        let plain = noise(3, 2 << 20);
        let longer = [&plain[..1_000_001], b"an insertion", &plain[1_000_001..]].concat();
        for (old, new) in [
            (gzip(&tar(&members(&[])), 6), gzip(&tar(&members(&[3, 20])), 6)),
            (zip(&members(&[]), 1, 6), zip(&members(&[5]), 1, 6)),
            (plain, longer),
        ] {
            let told = inventory(&old);
            let bytes = told.to_bytes().unwrap();
            assert_eq!(Inventory::parse(&bytes).unwrap(), told);
            let plan = planned(&new, Digest::of(&old), &told);
            assert_eq!(plan.method, Method::Patch, "{}", plan.why);
            let most = new.len() as u64 * 15 / 100;
            assert!(plan.artefact.size() <= most, "{} of {}: {}", plan.artefact.size(), new.len(), plan.why);
            assert!(made(&plan, &old).unwrap() == new);
        }
    }

    #[test]
    fn an_inventory_that_lies_makes_no_wrong_blob() {
        let old = zip(&members(&[])[..6], 1, 6);
        let new = zip(&members(&[2])[..6], 1, 6);
        let told = inventory(&old);
        let bytes = told.to_bytes().unwrap();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            Inventory::parse(&flipped[..at]).unwrap_err();
            let Ok(other) = Inventory::parse(&flipped) else { continue };
            if let Ok(blob) = made(&planned(&new, Digest::of(&old), &other), &old) {
                assert!(blob == new);
            }
        }
        // Digests that are swapped, and leaves that are longer than they are.
        let mut lying = told.clone();
        let (first, last) = (lying.leaves[1].2, lying.leaves[3].2);
        (lying.leaves[1].2, lying.leaves[3].2) = (last, first);
        if let Ok(blob) = made(&planned(&new, Digest::of(&old), &lying), &old) {
            assert!(blob == new);
        }
        lying.size = 10;
        Inventory::parse(&lying.to_bytes().unwrap()).unwrap_err();
    }
}
