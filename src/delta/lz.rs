//! Text, archives and everything that moved in pieces: zstd with the base as what came before.

use std::io::Write;
use std::ops::Range;

use zstd::stream::raw::{Decoder, Encoder, InBuffer, Operation, OutBuffer};
use zstd::zstd_safe::{CParameter, DParameter};

use super::medium::ReadAt;
use super::pair::each_chunk;
use crate::error::{Error, ErrorKind, Result};

/// The longest window, prefix and new bytes together, as a power of two: what a decoder takes
/// without being asked (RFC 8878, 3.1.1.1.2 names 8 MiB as the least; this one is ours).
const WINDOW_LOG_MAX: u32 = 27;

/// How hard to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Search {
    /// Level 3: about 100 MB/s.
    Fast,
    /// Level 12: about 10 MB/s.
    Good,
    /// Level 19: about 1 MB/s.
    Best,
}

impl Search {
    fn level(self) -> i32 {
        match self {
            Search::Fast => 3,
            Search::Good => 12,
            Search::Best => 19,
        }
    }
}

/// `new` as a zstd frame that refers to `prefix`.
pub(crate) fn compress(prefix: &[u8], new: &[u8], search: Search) -> Result<Vec<u8>> {
    let whole = (prefix.len() + new.len()).max(1);
    let window = whole.next_power_of_two().ilog2().clamp(10, WINDOW_LOG_MAX);
    let parameters = || -> std::io::Result<Encoder<'_>> {
        let mut encoder = match prefix {
            [] => Encoder::new(search.level())?,
            _ => Encoder::with_ref_prefix(search.level(), prefix)?,
        };
        encoder.set_parameter(CParameter::WindowLog(window))?;
        encoder.set_parameter(CParameter::ContentSizeFlag(true))?;
        encoder.set_parameter(CParameter::ChecksumFlag(false))?;
        if search != Search::Fast {
            // By default the tables are too small for a prefix: what is far away is not found.
            encoder.set_parameter(CParameter::HashLog(window.clamp(6, 25)))?;
            encoder.set_parameter(CParameter::ChainLog((window + 1).clamp(6, 26)))?;
        }
        if prefix.len() > 1 << 20 {
            encoder.set_parameter(CParameter::EnableLongDistanceMatching(true))?;
        }
        encoder.set_pledged_src_size(Some(new.len() as u64))?;
        Ok(encoder)
    };
    let mut encoder = parameters().map_err(failed)?;
    let mut out = Vec::with_capacity(new.len() / 8 + 64);
    let mut buffer = vec![0; 128 << 10];
    let mut input = InBuffer::around(new);
    while input.pos() < new.len() {
        let mut output = OutBuffer::around(&mut buffer[..]);
        encoder.run(&mut input, &mut output).map_err(failed)?;
        out.extend_from_slice(output.as_slice());
    }
    loop {
        let mut output = OutBuffer::around(&mut buffer[..]);
        let left = encoder.finish(&mut output, true).map_err(failed)?;
        out.extend_from_slice(output.as_slice());
        if left == 0 {
            return Ok(out);
        }
    }
}

/// `range` of `bytes` as a zstd frame, at a level that keeps up with a network.
pub(crate) fn stream_in(
    bytes: &dyn ReadAt,
    range: &Range<u64>,
    level: i32,
    out: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let parameters = || -> std::io::Result<Encoder<'_>> {
        let mut encoder = Encoder::new(level)?;
        encoder.set_parameter(CParameter::ChecksumFlag(false))?;
        encoder.set_pledged_src_size(Some(range.end - range.start))?;
        Ok(encoder)
    };
    let mut encoder = parameters().map_err(failed)?;
    let mut buffer = vec![0; 128 << 10];
    each_chunk(bytes, range, &mut |chunk| {
        let mut input = InBuffer::around(chunk);
        while input.pos() < chunk.len() {
            let mut output = OutBuffer::around(&mut buffer[..]);
            encoder.run(&mut input, &mut output).map_err(failed)?;
            out(output.as_slice())?;
        }
        Ok(())
    })?;
    loop {
        let mut output = OutBuffer::around(&mut buffer[..]);
        let left = encoder.finish(&mut output, true).map_err(failed)?;
        out(output.as_slice())?;
        if left == 0 {
            return Ok(());
        }
    }
}

/// What the frame in `range` of `bytes` stands for.
///
/// # Errors
/// [`ErrorKind::Corrupted`] if the frame is damaged, or something follows it.
pub(crate) fn stream_out(bytes: &dyn ReadAt, range: &Range<u64>, out: &mut dyn Write) -> Result<()> {
    let mut decoder = Decoder::new().map_err(failed)?;
    let mut buffer = vec![0; 128 << 10];
    let mut hint = 1;
    each_chunk(bytes, range, &mut |chunk| {
        let mut input = InBuffer::around(chunk);
        loop {
            if hint == 0 {
                return Err(Error::new(ErrorKind::Corrupted, "patch: there are bytes after its frame"));
            }
            let mut output = OutBuffer::around(&mut buffer[..]);
            hint = decoder.run(&mut input, &mut output).map_err(damaged)?;
            // Of a frame that has ended nothing is left, even if the buffer is full.
            let more = output.as_slice().len() == output.capacity() && hint != 0;
            out.write_all(output.as_slice()).map_err(failed)?;
            if input.pos() == chunk.len() && !more {
                return Ok(());
            }
        }
    })?;
    match hint {
        0 => Ok(()),
        _ => Err(Error::new(ErrorKind::Corrupted, "patch: its frame is cut short")),
    }
}

/// The `length` bytes that `frame` stands for, given `prefix`.
///
/// # Errors
/// [`ErrorKind::Corrupted`] if the frame is damaged, or stands for another number of bytes.
pub(crate) fn decompress(prefix: &[u8], frame: &[u8], length: usize) -> Result<Vec<u8>> {
    let parameters = || -> std::io::Result<Decoder<'_>> {
        let mut decoder = match prefix {
            [] => Decoder::new()?,
            _ => Decoder::with_ref_prefix(prefix)?,
        };
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))?;
        Ok(decoder)
    };
    let mut decoder = parameters().map_err(failed)?;
    let mut out: Vec<u8> = Vec::new();
    let mut buffer = vec![0; 128 << 10];
    let mut input = InBuffer::around(frame);
    loop {
        let before = input.pos();
        let mut output = OutBuffer::around(&mut buffer[..]);
        let hint = decoder.run(&mut input, &mut output).map_err(damaged)?;
        let produced = output.as_slice();
        if produced.len() > length - out.len() {
            return Err(Error::new(
                ErrorKind::Corrupted,
                format!("a window of a patch has more than {length} bytes"),
            ));
        }
        let idle = produced.is_empty() && input.pos() == before;
        out.extend_from_slice(produced);
        if hint == 0 && input.pos() == frame.len() && out.len() == length {
            return Ok(out);
        }
        if idle || hint == 0 {
            let message = format!(
                "a window of a patch has {} bytes instead of {length}, or bytes after its end",
                out.len()
            );
            return Err(Error::new(ErrorKind::Corrupted, message));
        }
    }
}

#[cold]
fn failed(cause: std::io::Error) -> Error {
    Error::io("zstd", cause)
}

#[cold]
fn damaged(cause: std::io::Error) -> Error {
    Error::new(ErrorKind::Corrupted, format!("a window of a patch is damaged: {cause}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn windows_come_back(prefix: Vec<u8>, new: Vec<u8>, at: prop::sample::Index) {
            let mut mixed = new.clone();
            mixed.splice(..0, prefix.iter().copied());
            for search in [Search::Fast, Search::Good, Search::Best] {
                let frame = compress(&prefix, &mixed, search).unwrap();
                prop_assert_eq!(&decompress(&prefix, &frame, mixed.len()).unwrap(), &mixed);
                decompress(&prefix, &frame, mixed.len() + 1).unwrap_err();
                if !mixed.is_empty() {
                    decompress(&prefix, &frame, mixed.len() - 1).unwrap_err();
                }
                let cut = at.index(frame.len());
                decompress(&prefix, &frame[..cut], mixed.len()).unwrap_err();
                let longer = [&frame[..], &[0]].concat();
                decompress(&prefix, &longer, mixed.len()).unwrap_err();
                let mut flipped = frame.clone();
                flipped[cut] ^= 0x10;
                // Right, wrong or an error; never more than was asked for.
                if let Ok(other) = decompress(&prefix, &flipped, mixed.len()) {
                    prop_assert_eq!(other.len(), mixed.len());
                }
            }
        }
    }

    #[test]
    fn a_far_prefix_is_found() {
        let noise: Vec<u8> = (0..3_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let frame = compress(&noise, &noise, Search::Good).unwrap();
        assert!(frame.len() < 4000, "{}", frame.len());
    }
}
