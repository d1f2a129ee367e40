//! What has to hold for any bytes, for tests and fuzzers.

use super::{Codec, Encoding, Limits, Recipe, fits, identify, open};
use crate::delta::medium::{MemoryScratch, ReadAt};
use crate::error::{Error, ErrorKind, Result};

/// Limits under which any input of a fuzzer is done in a moment.
const SMALL: Limits =
    Limits { plain: 4 << 20, depth: 4, streams: 256, parts: 1024, ratio: 100, memory: 64 << 20 };

/// Opens `blob` and makes it again by a recipe in which `seed` chooses how each stream is
/// encoded; gives how many streams there were and what was made.
///
/// # Errors
/// None are expected.
#[doc(hidden)]
pub fn reopen(blob: &[u8], seed: u64) -> Result<(usize, Vec<u8>)> {
    let blob = blob.to_vec();
    let mut image = open(&blob, "blob", &MemoryScratch, &SMALL)?;
    let streams = image.streams().len();
    let mut encodings = Vec::new();
    let mut hint: Option<Codec> = None;
    let mut random = seed | 1;
    for stream in 0..streams {
        // Xorshift.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let codec = if random % 4 < 2 { identify(&image, stream, hint.as_ref(), 2, true)? } else { None };
        let codec = codec.filter(|codec| fits(&image, &encodings, stream, codec));
        encodings.push(match codec {
            Some(codec) => {
                hint = Some(codec.clone());
                Encoding::Exact(codec)
            }
            None if random % 4 != 3 && image.add_split(stream).is_ok() => Encoding::Split,
            None => Encoding::Closed,
        });
    }
    let mut target = Vec::new();
    for leaf in image.target(&encodings) {
        let start = target.len();
        target.resize(start + (leaf.range.end - leaf.range.start) as usize, 0);
        image.read_exact_at(target.get_mut(start..).unwrap_or_default(), leaf.range.start)?;
    }
    let recipe = Recipe::new(&image, &encodings)?;
    let again = Recipe::parse(&recipe.to_bytes(), &SMALL)?;
    if again != recipe {
        return Err(Error::new(ErrorKind::Internal, "a recipe is not read as it was written"));
    }
    let mut out = Vec::new();
    again.fold(&target, &mut out)?;
    Ok((streams, out))
}

/// Follows a recipe that anybody may have written; gives how long the result is.
///
/// # Errors
/// Those of [`Recipe::parse`] and [`Recipe::fold`].
#[doc(hidden)]
pub fn refold(recipe: &[u8], target: &[u8]) -> Result<u64> {
    let recipe = Recipe::parse(recipe, &SMALL)?;
    let mut out = Vec::new();
    recipe.fold(&target.to_vec(), &mut out)?;
    Ok(out.len() as u64)
}
