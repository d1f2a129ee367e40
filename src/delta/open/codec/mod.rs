//! Encoders that are known to have made a stream.

mod xz;
mod zstd;

use std::io::{self, Read, Write};

use super::fold::{Source, carried};
use super::image::{Method, Slice};
use super::{Encoding, Image};
use crate::delta::deflate;
use crate::delta::medium::ReadAt;
use crate::error::{Error, ErrorKind, Result};

pub(super) use xz::Chain;

/// An encoder with its settings: the same bytes in give the same bytes out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Codec {
    /// Deflate.
    Deflate(deflate::Encoder),
    /// The LZMA2 data of a block of an .xz stream.
    Xz(xz::Params),
    /// A whole Zstandard frame.
    Zstd(zstd::Params),
}

/// Finds the encoder that makes a stream of `image` bit for bit, within `effort`:
/// 0 tries nothing, 9 everything. `hint` is what fitted a stream like it and is tried first.
/// Unless `whole` is asked for, the slowest encoders are judged by the beginning of a long stream:
/// then somebody has to look at what is folded in the end.
///
/// # Errors
/// Those of the media only.
pub(crate) fn identify(
    image: &Image<'_>,
    stream: usize,
    hint: Option<&Codec>,
    effort: u8,
    whole: bool,
) -> Result<Option<Codec>> {
    let Some(stream) = image.streams().get(stream) else { return Ok(None) };
    let coded = Slice::new(image, stream.coded.clone());
    let plain = Slice::new(image, stream.plain.clone());
    let memory = image.memory;
    match stream.method {
        Method::Deflate => {
            let hint = hint.and_then(|hint| if let Codec::Deflate(hint) = hint { Some(*hint) } else { None });
            let found = deflate::identify(&coded, 0..coded.size(), &plain, 0..plain.size(), hint, effort)?;
            Ok(found.map(Codec::Deflate))
        }
        Method::Xz(chain) => {
            let hint = hint.and_then(|hint| if let Codec::Xz(hint) = hint { Some(*hint) } else { None });
            Ok(xz::identify(&coded, &plain, chain, memory, hint, effort, whole)?.map(Codec::Xz))
        }
        Method::Zstd => {
            let hint = hint.and_then(|hint| if let Codec::Zstd(hint) = hint { Some(*hint) } else { None });
            Ok(zstd::identify(&coded, &plain, memory, hint, effort)?.map(Codec::Zstd))
        }
    }
}

/// Whether an encoder may run together with those of the streams around it, which `encodings` has.
pub(crate) fn fits(image: &Image<'_>, encodings: &[Encoding], stream: usize, codec: &Codec) -> bool {
    let parent = |stream: usize| image.streams().get(stream).and_then(|stream| stream.parent);
    let around = std::iter::successors(parent(stream), |outer| parent(*outer));
    let memory = around.fold(codec.memory(), |memory, outer| match encodings.get(outer) {
        Some(Encoding::Exact(outer)) => memory.saturating_add(outer.memory()),
        _ => memory,
    });
    memory <= image.memory
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
                _ => Err(Error::new(ErrorKind::Corrupted, "recipe: bytes after an encoder")),
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
            Err(error) => return Err(carried("reading what is to be encoded", error)),
        }
    }
    Ok(filled)
}

/// Takes what an encoder writes, and stops it at the first byte that is not that of `coded`.
struct Checked<'c> {
    coded: &'c dyn ReadAt,
    at: u64,
    buffer: Vec<u8>,
    differs: bool,
    /// How many bytes of the first write were right.
    first: usize,
}

impl<'c> Checked<'c> {
    fn new(coded: &'c dyn ReadAt) -> Checked<'c> {
        Checked { coded, at: 0, buffer: Vec::new(), differs: false, first: 0 }
    }

    /// How many bytes came and were right; `None` if one was not or the encoder would not run.
    fn judge(&self, ran: Result<u64>) -> Result<Option<u64>> {
        match ran {
            _ if self.differs => Ok(None),
            Ok(_) => Ok(Some(self.at)),
            Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Invalid) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Write for Checked<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len() as u64;
        self.differs = length > self.coded.size() - self.at;
        if !self.differs {
            self.buffer.resize(bytes.len(), 0);
            self.coded.read_exact_at(&mut self.buffer, self.at).map_err(io::Error::other)?;
            self.differs = self.buffer != bytes;
            if self.at == 0 {
                self.first = self.buffer.iter().zip(bytes).take_while(|(a, b)| a == b).count();
            }
        }
        if self.differs {
            return Err(io::Error::other("other bytes"));
        }
        self.at += length;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
