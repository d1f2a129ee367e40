//! Encoders that are known to have made a stream.

mod xz;
mod zstd;

use std::io::{self, Read, Write};

use super::{Family, Image};
use crate::delta::deflate;
use crate::error::{Error, Result};

/// An encoder with its settings: the same bytes in give the same bytes out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Codec {
    /// Deflate.
    Deflate(deflate::Encoder),
    /// A whole .xz stream.
    Xz(xz::Params),
    /// A whole Zstandard frame.
    Zstd(zstd::Params),
}

/// Finds the encoder that makes a stream of `image` bit for bit, within `effort`:
/// 0 tries nothing, 9 everything. `hint` is what fitted a stream like it and is tried first.
///
/// # Errors
/// Those of the media only.
pub(crate) fn identify(
    image: &Image<'_>,
    stream: usize,
    hint: Option<&Codec>,
    effort: u8,
) -> Result<Option<Codec>> {
    let Some(stream) = image.streams().get(stream) else { return Ok(None) };
    match stream.family {
        Family::Deflate => {
            let hint = match hint {
                Some(Codec::Deflate(encoder)) => Some(*encoder),
                _ => None,
            };
            let found =
                deflate::identify(image, stream.coded.clone(), image, stream.plain.clone(), hint, effort)?;
            Ok(found.map(Codec::Deflate))
        }
        Family::Xz => Ok(None),
        Family::Zstd => Ok(None),
    }
}

impl Codec {
    /// The tag of the family and the settings, as recipes hold them.
    pub(super) fn to_bytes(&self) -> (u8, Vec<u8>) {
        match self {
            Codec::Deflate(encoder) => (1, encoder.to_bytes()),
            Codec::Xz(params) => (2, params.to_bytes()),
            Codec::Zstd(params) => (3, params.to_bytes()),
        }
    }

    pub(super) fn parse(tag: u8, bytes: &[u8]) -> Result<Codec> {
        match tag {
            1 => match deflate::Encoder::parse(bytes)? {
                (encoder, used) if used == bytes.len() => Ok(Codec::Deflate(encoder)),
                _ => Err(Error::invalid("recipe: there are bytes after the settings of an encoder")),
            },
            2 => Ok(Codec::Xz(xz::Params::parse(bytes)?)),
            3 => Ok(Codec::Zstd(zstd::Params::parse(bytes)?)),
            _ => Err(Error::invalid(format!("recipe: there is no codec family {tag}"))),
        }
    }

    /// About how much memory encoding takes.
    pub(super) fn memory(&self) -> u64 {
        match self {
            Codec::Deflate(_) => 1 << 20,
            Codec::Xz(params) => params.memory(),
            Codec::Zstd(params) => params.memory(),
        }
    }

    /// Whether [`Codec::encode`] has to know how much there will be.
    pub(super) fn needs_length(&self) -> bool {
        matches!(self, Codec::Zstd(params) if params.needs_length())
    }

    /// Encodes all of `plain`, which is `length` bytes if that was asked for.
    pub(super) fn encode(
        &self,
        plain: &mut dyn Read,
        length: Option<u64>,
        out: &mut dyn Write,
    ) -> Result<u64> {
        match self {
            Codec::Deflate(encoder) => deflate::encode(*encoder, plain, out),
            Codec::Xz(params) => params.encode(plain, out),
            Codec::Zstd(params) => params.encode(plain, length, out),
        }
    }
}

/// Reads until `buffer` is full or nothing more comes.
fn fill(plain: &mut dyn Read, buffer: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match plain.read(buffer.get_mut(filled..).unwrap_or_default()) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("reading what is to be encoded", error)),
        }
    }
    Ok(filled)
}
