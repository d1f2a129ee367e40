//! Opening a blob down to what was compressed in it, and closing it again bit for bit.
//!
//! [`open`] looks for compressed streams through the containers it knows (gzip, zip, tar, ar, xz,
//! zstd, nested in any way), by content and never by name, and decodes them. What comes out is an
//! [`Image`]: the blob and the decoded layers in one address space. It depends on the bytes and
//! the [`Limits`] alone, so two sides that hold the same blob have the same image of it without
//! a word. A [`Recipe`] says how the blob is made again from its leaves.

#[cfg(any(test, feature = "testing"))]
mod check;
mod codec;
mod fold;
mod image;
mod recipe;
mod scan;

#[cfg(feature = "testing")]
pub use check::{refold, reopen};
pub(crate) use codec::{Codec, fits, identify};
pub(crate) use image::{Image, Kind, Leaf};
pub(crate) use recipe::{Encoding, Recipe};
pub(crate) use scan::open;

use crate::delta::wire::{Fields, put};
use crate::error::Result;

/// How far a blob is opened. Both sides of a transfer must use the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Decoded bytes in all, those of streams that turn out to be damaged included.
    pub plain: u64,
    /// Containers inside each other, compressed or not.
    pub depth: u8,
    /// Compressed streams in all.
    pub streams: u32,
    /// Named parts in all; what is beyond is not told apart.
    pub parts: u32,
    /// Decoded bytes per coded byte of a stream; a stream above it stays closed.
    pub ratio: u32,
    /// Memory of a single decoder or encoder, and of all encoders that run at a time.
    pub memory: u64,
}

impl Limits {
    /// Appends the limits, as patches and inventories tell them.
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        let Limits { plain, depth, streams, parts, ratio, memory } = self;
        for value in [plain, depth.into(), streams.into(), parts.into(), ratio.into(), memory] {
            put(out, value);
        }
    }

    /// Takes what [`write`](Limits::write) appended.
    ///
    /// # Errors
    /// [`Corrupted`](crate::error::ErrorKind::Corrupted) for what no limits are.
    pub(crate) fn parse(fields: &mut Fields<'_>) -> Result<Limits> {
        Ok(Limits {
            plain: fields.number()?,
            depth: fields.number_up_to(u8::MAX.into())? as u8,
            streams: fields.number_up_to(u32::MAX.into())? as u32,
            parts: fields.number_up_to(u32::MAX.into())? as u32,
            ratio: fields.number_up_to(u32::MAX.into())? as u32,
            memory: fields.number()?,
        })
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { plain: 16 << 30, depth: 8, streams: 1 << 18, parts: 1 << 19, ratio: 400, memory: 400 << 20 }
    }
}

/// The family of codecs that a stream belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Family {
    /// Raw deflate; the headers and trailers of gzip and zip are leaves.
    Deflate,
    /// The LZMA2 data of one block; the headers, checks and indexes of .xz are leaves.
    Xz,
    /// One whole Zstandard frame.
    Zstd,
}

#[cfg(test)]
mod tests;
