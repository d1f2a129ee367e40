//! Known encoders, and compressing with them.

use std::io;

use super::hash::{Castagnoli, Multiplied, Rolling};
use super::model::{self, Ends, Settings, Strategy};
use crate::error::{Error, ErrorKind, Result};

/// Plain or coded bytes that a library gets at a time.
const PIECE: usize = 64 * 1024;

/// Compresses `plain` with `encoder`; gives the number of coded bytes.
///
/// # Errors
/// Whatever `plain` and `out` report.
pub(crate) fn encode(encoder: Encoder, plain: &mut dyn io::Read, out: &mut dyn io::Write) -> Result<u64> {
    let mut pipe = Pipe { plain, out, written: 0 };
    encoder.run(&mut pipe)?;
    Ok(pipe.written)
}

struct Pipe<'a> {
    plain: &'a mut dyn io::Read,
    out: &'a mut dyn io::Write,
    written: u64,
}

impl Ends for Pipe<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.plain.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("reading what is to be compressed", error)),
            }
        }
        Ok(filled)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes).map_err(|error| Error::io("writing what was compressed", error))
    }
}

/// Which hash a member of the zlib family finds matches by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    /// zlib as it is published; Java's and Python's, too.
    Stock,
    /// Chromium's with a multiplied hash: node since 2022.
    Chromium,
    /// Chromium's with CRC-32C: node before that.
    ChromiumCrc,
    /// GNU gzip: its memory level is 9.
    Gzip,
}

/// An encoder and its settings: all that its output depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoder {
    /// zlib and its relatives, by our own model of it.
    Zlib { variant: Variant, level: u8, memory: u8, window_bits: u8, strategy: Strategy },
    /// miniz as the crate `miniz_oxide` has it: level 1 to 10.
    Miniz { level: u8 },
    /// zlib-rs, a relative of zlib-ng: level 1 to 9.
    ZlibRs { level: u8 },
}

const VARIANTS: [Variant; 4] = [Variant::Stock, Variant::Chromium, Variant::ChromiumCrc, Variant::Gzip];
const STRATEGIES: [Strategy; 5] =
    [Strategy::Default, Strategy::Filtered, Strategy::Huffman, Strategy::Runs, Strategy::Fixed];
const MINIZ: u8 = 8;
const ZLIB_RS: u8 = 9;

impl Encoder {
    /// zlib with the settings that most callers leave as they are.
    #[cfg(test)]
    pub(crate) fn zlib(variant: Variant, level: u8) -> Encoder {
        Encoder::Zlib { variant, level, memory: 8, window_bits: 15, strategy: Strategy::Default }
    }

    /// The encoder as bytes: one for the libraries, three for the zlib family.
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let kind = |kind: u8, level: u8| kind << 4 | level;
        match self {
            Encoder::Zlib { variant, level, memory, window_bits, strategy } => {
                let at = |found: Option<usize>| found.unwrap_or(0) as u8;
                let variant = at(VARIANTS.iter().position(|&other| other == variant));
                let strategy = at(STRATEGIES.iter().position(|&other| other == strategy));
                vec![kind(variant, level), memory << 4 | strategy, window_bits]
            }
            Encoder::Miniz { level } => vec![kind(MINIZ, level)],
            Encoder::ZlibRs { level } => vec![kind(ZLIB_RS, level)],
        }
    }

    /// The encoder at the beginning of `bytes`, and how many of them it takes.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if this version does not know it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<(Encoder, usize)> {
        let (&first, rest) = bytes.split_first().ok_or_else(unknown)?;
        let (kind, level) = (first >> 4, first & 15);
        match kind {
            MINIZ if (1..=10).contains(&level) => Ok((Encoder::Miniz { level }, 1)),
            ZLIB_RS if (1..=9).contains(&level) => Ok((Encoder::ZlibRs { level }, 1)),
            _ => {
                let variant = *VARIANTS.get(usize::from(kind)).ok_or_else(unknown)?;
                let &[second, window_bits] = rest.first_chunk().ok_or_else(unknown)?;
                let memory = second >> 4;
                let strategy = *STRATEGIES.get(usize::from(second & 15)).ok_or_else(unknown)?;
                let known =
                    (1..=9).contains(&level) && (1..=9).contains(&memory) && (9..=15).contains(&window_bits);
                if !known {
                    return Err(unknown());
                }
                Ok((Encoder::Zlib { variant, level, memory, window_bits, strategy }, 3))
            }
        }
    }

    /// Compresses all that `ends` has.
    pub(super) fn run(self, ends: &mut dyn Ends) -> Result<()> {
        match self {
            Encoder::Zlib { variant, level, memory, window_bits, strategy } => {
                let early = variant == Variant::Gzip;
                let settings = Settings { level, memory, window_bits, strategy, early };
                match variant {
                    Variant::Stock => model::compress(settings, &Rolling::new(memory), ends),
                    Variant::Gzip => model::compress(settings, &Rolling::new(memory.min(8)), ends),
                    Variant::Chromium => model::compress(settings, &Multiplied::new(memory), ends),
                    Variant::ChromiumCrc => model::compress(settings, &Castagnoli::new(memory, level), ends),
                }
            }
            Encoder::Miniz { level } => miniz(level, ends),
            Encoder::ZlibRs { level } => zlib_rs(level, ends),
        }
    }
}

fn miniz(level: u8, ends: &mut dyn Ends) -> Result<()> {
    use miniz_oxide::deflate::core::{
        CompressorOxide, TDEFLFlush, TDEFLStatus, compress, create_comp_flags_from_zip_params,
    };
    let mut state = CompressorOxide::new(create_comp_flags_from_zip_params(level.into(), -15, 0));
    let mut plain = vec![0; PIECE];
    let mut coded = vec![0; PIECE];
    loop {
        let length = ends.read(&mut plain)?;
        let flush = if length < plain.len() { TDEFLFlush::Finish } else { TDEFLFlush::None };
        let mut rest = &plain[..length];
        loop {
            let (status, read, written) = compress(&mut state, rest, &mut coded, flush);
            ends.write(&coded[..written])?;
            rest = &rest[read..];
            match status {
                TDEFLStatus::Done => return Ok(()),
                TDEFLStatus::Okay => {}
                _ => return Err(failed("miniz")),
            }
            if rest.is_empty() && written < coded.len() && flush != TDEFLFlush::Finish {
                break;
            }
        }
    }
}

fn zlib_rs(level: u8, ends: &mut dyn Ends) -> Result<()> {
    use zlib_rs::{Deflate, DeflateFlush, Status};
    let mut state = Deflate::new(level.into(), false, 15);
    let mut plain = vec![0; PIECE];
    let mut coded = vec![0; PIECE];
    loop {
        let length = ends.read(&mut plain)?;
        let flush = if length < plain.len() { DeflateFlush::Finish } else { DeflateFlush::NoFlush };
        let mut at = 0;
        loop {
            let (before_in, before_out) = (state.total_in(), state.total_out());
            let status =
                state.compress(&plain[at..length], &mut coded, flush).map_err(|_| failed("zlib-rs"))?;
            let written = (state.total_out() - before_out) as usize;
            at += (state.total_in() - before_in) as usize;
            ends.write(&coded[..written])?;
            if status == Status::StreamEnd {
                return Ok(());
            }
            if at == length && written < coded.len() {
                if flush == DeflateFlush::Finish {
                    return Err(failed("zlib-rs"));
                }
                break;
            }
        }
    }
}

#[cold]
fn unknown() -> Error {
    Error::new(ErrorKind::Unsupported, "the recipe names a deflate encoder that is not known")
}

#[cold]
fn failed(library: &str) -> Error {
    Error::new(ErrorKind::Internal, format!("{library} failed to compress"))
}
