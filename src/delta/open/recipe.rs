//! How a blob is made again from its leaves.
//!
//! The *target stream* is all leaves of an image in its order (those of the blob, then those of
//! the streams in it, then those one deeper), then the parses of the split streams, then their heads. A [`Recipe`] has one column for each kind of number, so that
//! recipes of similar containers have runs of bytes in common.

use super::image::{Image, Kind, Leaf, Sides, Step};
use super::{Codec, Limits};
use crate::delta::wire::{Fields, put};
use crate::error::{Error, ErrorKind, Result};

const WHAT: &str = "recipe";
const VERSION: u8 = 1;

/// How the coded bytes of a stream are made again.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Encoding {
    /// Not at all: the stream is not opened, its coded bytes are a leaf.
    Closed,
    /// By an encoder that makes the same bits of the plain bytes.
    Exact(Codec),
    /// By the plain bytes together with their parse and their heads.
    Split,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Recipe {
    /// How many opened streams lie directly in the blob, then in each opened stream, depth first.
    pub(super) counts: Vec<u64>,
    /// How many bytes are taken as they are before, between and after the edges of streams.
    pub(super) gaps: Vec<u64>,
    pub(super) codecs: Vec<Codec>,
    /// For each opened stream 0 if it is split, else 1 + the index of its codec.
    pub(super) choices: Vec<u64>,
    /// The lengths of decoded bytes where the codec has to know.
    pub(super) plains: Vec<u64>,
    /// The lengths of the parses, and of the heads.
    pub(super) parses: Vec<u64>,
    pub(super) heads: Vec<u64>,
}

impl Image<'_> {
    /// What the target stream is made of under these encodings, in its order.
    pub(crate) fn target(&self, encodings: &[Encoding]) -> Vec<Leaf> {
        let is_open = |stream| !matches!(encodings.get(stream), None | Some(Encoding::Closed));
        let opened: Vec<bool> = (0..self.streams().len()).map(is_open).collect();
        let mut leaves = self.leaves(&opened);
        let mut heads = Vec::new();
        self.walk(&is_open, &mut |step| {
            let Step::Enter(stream) = step else { return };
            let Some((Encoding::Split, found)) = encodings.get(stream).zip(self.streams().get(stream)) else {
                return;
            };
            if let Some((parse, head)) = self.sides(stream) {
                let leaf = |range, kind| Leaf { range, name: found.name.clone(), kind, stream: Some(stream) };
                leaves.push(leaf(parse, Kind::Parse));
                heads.push(leaf(head, Kind::Heads));
            }
        });
        leaves.append(&mut heads);
        leaves
    }

    /// What is common to the recipes of blobs like this one: the columns that do not depend on
    /// the encoders, as if all streams were opened.
    pub(crate) fn shape(&self) -> Vec<u8> {
        let mut recipe = Recipe::default();
        recipe.outline(self, &|_| true);
        recipe.choices = vec![1; recipe.counts.len().saturating_sub(1)];
        recipe.to_bytes()
    }
}

impl Recipe {
    /// The recipe that makes the blob of `image` again; `encodings` go with its streams, and what
    /// is missing is closed. Split streams were split before ([`Image::add_split`]).
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] for a stream that was not split, or a codec of another family.
    pub(crate) fn new(image: &Image<'_>, encodings: &[Encoding]) -> Result<Recipe> {
        let mut recipe = Recipe::default();
        let is_open = |stream| !matches!(encodings.get(stream), None | Some(Encoding::Closed));
        let streams = recipe.outline(image, &is_open);
        for at in streams {
            let Some((stream, encoding)) = image.streams().get(at).zip(encodings.get(at)) else { continue };
            match encoding {
                Encoding::Closed => {}
                Encoding::Exact(codec) => {
                    let known = recipe.codecs.iter().position(|known| known == codec);
                    let index = known.unwrap_or_else(|| {
                        recipe.codecs.push(codec.clone());
                        recipe.codecs.len() - 1
                    });
                    recipe.choices.push(1 + index as u64);
                    if codec.needs_length() {
                        recipe.plains.push(stream.plain.end - stream.plain.start);
                    }
                }
                Encoding::Split => {
                    let (parse, heads): Sides = image.sides(at).ok_or_else(not_split)?;
                    recipe.choices.push(0);
                    recipe.parses.push(parse.end - parse.start);
                    recipe.heads.push(heads.end - heads.start);
                }
            }
        }
        Ok(recipe)
    }

    /// Fills the columns that only depend on where streams lie; gives the streams in their order.
    fn outline(&mut self, image: &Image<'_>, is_open: &dyn Fn(usize) -> bool) -> Vec<usize> {
        let mut streams = Vec::new();
        let mut scopes = vec![0];
        self.counts.push(0);
        let mut gap = 0;
        image.walk(is_open, &mut |step| match step {
            Step::Raw(part, _) => gap += part.range.end - part.range.start,
            Step::Enter(stream) => {
                self.gaps.push(std::mem::take(&mut gap));
                if let Some(count) = scopes.last().and_then(|scope: &usize| self.counts.get_mut(*scope)) {
                    *count += 1;
                }
                scopes.push(self.counts.len());
                self.counts.push(0);
                streams.push(stream);
            }
            Step::Leave => {
                self.gaps.push(std::mem::take(&mut gap));
                scopes.pop();
            }
        });
        self.gaps.push(gap);
        streams
    }

    /// How long the target stream is that it folds.
    pub(crate) fn target_size(&self) -> u64 {
        let all = self.gaps.iter().chain(&self.parses).chain(&self.heads);
        all.fold(0, |sum, length| sum.saturating_add(*length))
    }

    /// The columns one after the other.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put(&mut out, self.choices.len() as u64);
        put(&mut out, self.codecs.len() as u64);
        for codec in &self.codecs {
            let (tag, bytes) = codec.to_bytes();
            out.push(tag);
            put(&mut out, bytes.len() as u64);
            out.extend_from_slice(&bytes);
        }
        let columns = [&self.counts, &self.choices, &self.gaps, &self.plains, &self.parses, &self.heads];
        columns.into_iter().flatten().for_each(|value| put(&mut out, *value));
        out
    }

    /// Reads what somebody else wrote.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupted`] for what no recipe is, [`ErrorKind::TooLarge`] for one that needs
    /// more depth, streams or memory than `limits` allow.
    pub(crate) fn parse(bytes: &[u8], limits: &Limits) -> Result<Recipe> {
        let mut fields = Fields::new(bytes, WHAT);
        let version = fields.byte()?;
        if version != VERSION {
            let message = format!("recipe: version {version} is not known");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        // Each stream and each codec takes at least a byte.
        let most = bytes.len() as u64;
        let streams = fields.number_up_to(most)?;
        if streams > u64::from(limits.streams) {
            return Err(too_large(format!("it opens {streams} streams")));
        }
        let mut recipe = Recipe::default();
        for _ in 0..fields.number_up_to(streams)? {
            let tag = fields.byte()?;
            let length = fields.number()?;
            recipe.codecs.push(Codec::parse(tag, fields.take(length)?)?);
        }
        let column = |fields: &mut Fields<'_>, length: u64, most: u64| -> Result<Vec<u64>> {
            (0..length).map(|_| fields.number_up_to(most)).collect()
        };
        recipe.counts = column(&mut fields, streams + 1, streams)?;
        recipe.choices = column(&mut fields, streams, recipe.codecs.len() as u64)?;
        recipe.gaps = column(&mut fields, 2 * streams + 1, u64::MAX)?;
        let needing =
            recipe.choices.iter().filter(|choice| recipe.codec(**choice).is_some_and(Codec::needs_length));
        let plains = needing.count() as u64;
        recipe.plains = column(&mut fields, plains, u64::MAX)?;
        let split = recipe.choices.iter().filter(|choice| **choice == 0).count() as u64;
        recipe.parses = column(&mut fields, split, u64::MAX)?;
        recipe.heads = column(&mut fields, split, u64::MAX)?;
        fields.end()?;
        recipe.check(limits)?;
        Ok(recipe)
    }

    /// Where the leaves at each depth begin in the target stream, and where all of them end.
    pub(super) fn depths(&self) -> Vec<u64> {
        let mut totals = vec![0_u64];
        let mut counts = self.counts.iter().copied();
        let mut open = vec![counts.next().unwrap_or(0)];
        for gap in &self.gaps {
            if totals.len() < open.len() {
                totals.resize(open.len(), 0);
            }
            if let Some(total) = open.len().checked_sub(1).and_then(|depth| totals.get_mut(depth)) {
                *total = total.saturating_add(*gap);
            }
            match open.last_mut() {
                Some(0) | None => {
                    open.pop();
                }
                Some(left) => {
                    *left -= 1;
                    open.push(counts.next().unwrap_or(0));
                }
            }
        }
        let mut start = 0_u64;
        let starts = totals.iter().map(|total| {
            start = start.saturating_add(*total);
            start
        });
        std::iter::once(0).chain(starts).collect()
    }

    /// The codec of a choice; `None` for a split stream.
    pub(super) fn codec(&self, choice: u64) -> Option<&Codec> {
        usize::try_from(choice.checked_sub(1)?).ok().and_then(|index| self.codecs.get(index))
    }

    /// Whether the counts make a tree, and how deep it is and what it costs.
    fn check(&self, limits: &Limits) -> Result<()> {
        let lengths = self.gaps.iter().chain(&self.parses).chain(&self.heads);
        let sum = lengths.into_iter().try_fold(0_u64, |sum, length| sum.checked_add(*length));
        if sum.is_none() {
            return Err(too_large("it takes more bytes than there can be".to_owned()));
        }
        // Streams that are still to come at each depth, and the memory of the encoders down to it.
        let mut open: Vec<(u64, u64)> = Vec::new();
        for (at, count) in self.counts.iter().enumerate() {
            let mut memory = 0;
            if let Some(stream) = at.checked_sub(1) {
                while open.last().is_some_and(|(left, _)| *left == 0) {
                    open.pop();
                }
                let Some((left, outer)) = open.last_mut() else { return Err(no_tree()) };
                *left -= 1;
                let codec = self.choices.get(stream).and_then(|choice| self.codec(*choice));
                memory = outer.saturating_add(codec.map_or(0, Codec::memory));
                if memory > limits.memory {
                    return Err(too_large(format!("its encoders take {memory} bytes of memory")));
                }
            }
            open.push((*count, memory));
            if open.len() > 1 + usize::from(limits.depth) {
                return Err(too_large(format!("it goes {} streams deep", open.len() - 1)));
            }
        }
        if open.iter().any(|(left, _)| *left > 0) { Err(no_tree()) } else { Ok(()) }
    }
}

#[cold]
fn no_tree() -> Error {
    Error::new(ErrorKind::Corrupted, "recipe: its streams do not make a tree")
}

#[cold]
fn too_large(what: String) -> Error {
    Error::new(ErrorKind::TooLarge, format!("recipe: {what}"))
}

#[cold]
fn not_split() -> Error {
    Error::new(ErrorKind::Internal, "a recipe is made of a stream that was not split")
}
