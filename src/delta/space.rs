//! All bases of a patch, opened, in one address space, with their leaves in one order.

use std::ops::Range;

use super::inventory::{Inventory, Short, short};
use super::medium::{ReadAt, Scratch};
use super::open::{self, Family, Image, Kind, Leaf, Limits};
use super::pair::digest;
use crate::error::{Error, ErrorKind, Result};

/// A stream of a base.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Which base, and which stream of it.
    pub(crate) at: (usize, usize),
    /// Its coded bytes, as addresses of the space.
    pub(crate) coded: Range<u64>,
    /// The index of the first leaf in it; of the next one if it has none.
    pub(crate) first: usize,
    /// One past its last leaf.
    pub(crate) end: usize,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Space<'a> {
    images: Vec<Image<'a>>,
    starts: Vec<u64>,
    size: u64,
    leaves: Vec<Leaf>,
    places: Vec<Place>,
    /// What is known of a base whose bytes are elsewhere.
    told: Option<&'a Inventory>,
}

impl<'a> Space<'a> {
    /// Opens `bases` and splits those of their streams that `splits` names, (base, stream).
    pub(crate) fn open(
        bases: &[&'a dyn ReadAt],
        splits: &[(usize, usize)],
        scratch: &'a dyn Scratch,
        limits: &Limits,
    ) -> Result<Space<'a>> {
        let images = bases.iter().map(|base| open::open(*base, "", scratch, limits));
        let mut space = Space {
            images: images.collect::<Result<_>>()?,
            starts: Vec::new(),
            size: 0,
            leaves: Vec::new(),
            places: Vec::new(),
            told: None,
        };
        space.split(splits)?;
        Ok(space)
    }

    /// One base as an inventory tells it. There are no bytes to read.
    pub(crate) fn told(inventory: &'a Inventory) -> Space<'a> {
        Space {
            images: Vec::new(),
            starts: Vec::new(),
            size: inventory.size,
            leaves: inventory.named(),
            places: inventory.places(),
            told: Some(inventory),
        }
    }

    /// The first half of the digest of a place's coded bytes.
    pub(crate) fn coded_digest(&self, place: usize) -> Result<Short> {
        match self.told {
            Some(told) => Ok(told.places.get(place).map_or(Short::default(), |place| place.3)),
            None => {
                let coded = self.places.get(place).map_or(0..0, |place| place.coded.clone());
                Ok(short(&digest(self, &coded)?))
            }
        }
    }

    /// Splits more streams. Addresses and leaves are other ones afterwards.
    pub(crate) fn split(&mut self, splits: &[(usize, usize)]) -> Result<()> {
        if self.told.is_some() && splits.is_empty() {
            return Ok(());
        }
        let mut sides = Vec::new();
        for &(base, stream) in splits {
            let image = self.images.get_mut(base).ok_or_else(|| no_stream(base, stream))?;
            if image.streams().get(stream).is_none_or(|found| found.family() != Family::Deflate) {
                return Err(no_stream(base, stream));
            }
            let (parse, heads) = image.add_split(stream)?;
            sides.push((base, stream, parse, heads));
        }
        self.starts.clear();
        self.leaves.clear();
        self.places.clear();
        self.size = 0;
        for (base, image) in self.images.iter().enumerate() {
            let start = self.size;
            self.starts.push(start);
            self.size = start.checked_add(image.size()).ok_or_else(too_large)?;
            let moved = |range: &Range<u64>| start + range.start..start + range.end;
            let streams = image.streams();
            let first_place = self.places.len();
            self.places.extend(streams.iter().enumerate().map(|(index, stream)| Place {
                at: (base, index),
                coded: moved(&stream.coded),
                first: usize::MAX,
                end: 0,
            }));
            for leaf in image.leaves(&vec![true; streams.len()]) {
                let index = self.leaves.len();
                let mut around = leaf.stream;
                while let Some(stream) = around {
                    let Some(place) = self.places.get_mut(first_place + stream) else { break };
                    place.first = place.first.min(index);
                    place.end = index + 1;
                    around = streams.get(stream).and_then(|stream| stream.parent);
                }
                self.leaves.push(Leaf { range: moved(&leaf.range), ..leaf });
            }
        }
        let leaves = self.leaves.len();
        for place in &mut self.places {
            if place.end == 0 {
                (place.first, place.end) = (leaves, leaves);
            }
        }
        self.places.sort_by_key(|place| (place.first, std::cmp::Reverse(place.end), place.at));
        for (base, stream, parse, heads) in sides {
            let (Some(start), Some(image)) = (self.starts.get(base), self.images.get(base)) else { continue };
            let name = image.streams().get(stream).map(|stream| stream.name.clone()).unwrap_or_default();
            for (range, kind) in [(parse, Kind::Parse), (heads, Kind::Heads)] {
                let range = start + range.start..start + range.end;
                self.leaves.push(Leaf { range, name: name.clone(), kind, stream: Some(stream) });
            }
        }
        Ok(())
    }

    /// The opened bases.
    pub(crate) fn images(&self) -> &[Image<'a>] {
        &self.images
    }

    /// All leaves: base by base in the order of folding, then the sides of the split streams.
    pub(crate) fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }

    /// All streams, by their first leaf, the outer ones before those in them.
    pub(crate) fn places(&self) -> &[Place] {
        &self.places
    }

    /// The outermost stream whose leaves begin at this leaf, or after it.
    pub(crate) fn place_at(&self, leaf: usize) -> usize {
        self.places.partition_point(|place| place.first < leaf)
    }

    /// What the recipes of the bases have in common with that of a similar target.
    pub(crate) fn shape(&self) -> Vec<u8> {
        match self.told {
            Some(told) => told.shape.clone(),
            None => self.images.iter().flat_map(Image::shape).collect(),
        }
    }
}

impl ReadAt for Space<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        if self.told.is_some() {
            let message = "a base is read of which only an inventory is here";
            return Err(Error::new(ErrorKind::Internal, message));
        }
        // An empty base has its start in common with the next one, which the search finds.
        let index = self.starts.partition_point(|start| *start <= offset);
        let found = index.checked_sub(1).and_then(|index| self.images.get(index).zip(self.starts.get(index)));
        match found {
            Some((image, start)) => image.read_at(buffer, offset - start),
            None => Ok(0),
        }
    }
}

#[cold]
fn no_stream(base: usize, stream: usize) -> Error {
    let message = format!("a patch splits stream {stream} of base {base}, which is not there");
    Error::new(ErrorKind::Corrupted, message)
}

#[cold]
fn too_large() -> Error {
    Error::new(ErrorKind::TooLarge, "the bases are larger than addresses can tell")
}
