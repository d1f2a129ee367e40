//! Which encoder made a stream: found by trying.

use std::ops::Range;

use super::encoder::{Encoder, Variant};
use super::model::{Ends, Strategy};
use super::survey::{Survey, survey};
use crate::delta::ReadAt;
use crate::error::{Error, Result};

/// Coded bytes that are compared at a time.
const PIECE: usize = 16 * 1024;
/// A trial that has read no more plain bytes than this has failed early.
const EARLY: u64 = 256 * 1024;

/// The encoder that makes exactly `coded_range` of `coded` from `plain_range` of `plain`.
///
/// `hint`, the encoder of a similar stream, is tried first; then the likely ones, the more of them
/// the higher the `effort` (0 tries only the hint, 9 all). An encoder is given up at the first byte
/// that differs, so most trials end after the first block. What is returned has made the whole
/// stream, padding bits included.
///
/// # Errors
/// Whatever `coded` and `plain` report.
pub(crate) fn identify(
    coded: &dyn ReadAt,
    coded_range: Range<u64>,
    plain: &dyn ReadAt,
    plain_range: Range<u64>,
    hint: Option<Encoder>,
    effort: u8,
) -> Result<Option<Encoder>> {
    let length = plain_range.end.saturating_sub(plain_range.start);
    // Trials that fail late must not add up; those that fail early do not count.
    let budget = length.saturating_mul(2 + u64::from(effort));
    let mut spent = 0;
    let trial = |encoder: Encoder, spent: &mut u64| -> Result<bool> {
        let mut ends = Compare::new(coded, coded_range.clone(), plain, plain_range.clone());
        let result = encoder.run(&mut ends);
        *spent += (ends.plain_range.start - plain_range.start).saturating_sub(EARLY);
        if ends.differs {
            return Ok(false);
        }
        result.map(|()| ends.coded_range.is_empty() && ends.compared == ends.buffered)
    };
    if let Some(hint) = hint
        && trial(hint, &mut spent)?
    {
        return Ok(Some(hint));
    }
    if effort == 0 {
        return Ok(None);
    }
    let survey = survey(coded, coded_range.clone())?;
    for encoder in candidates(&survey, effort) {
        if Some(encoder) != hint && trial(encoder, &mut spent)? {
            return Ok(Some(encoder));
        }
        if spent > budget {
            break;
        }
    }
    Ok(None)
}

/// Levels, the likeliest first.
const LEVELS: [u8; 9] = [6, 9, 1, 5, 4, 7, 8, 3, 2];

/// What may have made such a stream, the likeliest first.
fn candidates(survey: &Survey, effort: u8) -> Vec<Encoder> {
    use Variant::{Chromium, ChromiumCrc, Gzip, Stock};
    // How many tokens fill a block tells zlib's memory level; a last block tells nothing.
    let memory = survey.tokens.map(|tokens| (1..=9u8).find(|&memory| tokens == (1 << (memory + 6)) - 1));
    let early = survey.tokens.is_none_or(|tokens| tokens == (1 << 15) - 1 || tokens & 0xfff == 0);
    let small = matches!(memory, None | Some(Some(8)));
    let miniz = matches!(memory, None | Some(None));
    let mut list = Vec::new();
    let zlib = |variant, level, memory, window_bits| {
        let strategy = Strategy::Default;
        Encoder::Zlib { variant, level, memory, window_bits, strategy }
    };
    let family = |list: &mut Vec<Encoder>, levels: &[u8], variants: &[Variant], window_bits: u8| {
        for &variant in variants {
            let memory = match (variant, memory) {
                (Gzip, _) if early => 9,
                (Gzip, _) | (_, Some(None)) => continue,
                (_, None) => 8,
                (_, Some(Some(memory))) => memory,
            };
            list.extend(levels.iter().map(|&level| zlib(variant, level, memory, window_bits)));
        }
    };
    let libraries = |list: &mut Vec<Encoder>, levels: &[u8]| {
        if small {
            list.extend(levels.iter().filter(|&&level| level < 10).map(|&level| Encoder::ZlibRs { level }));
        }
        if miniz {
            list.extend(levels.iter().map(|&level| Encoder::Miniz { level }));
        }
    };
    family(&mut list, &LEVELS[..2], &[Stock, Gzip, Chromium], 15);
    libraries(&mut list, &LEVELS[..2]);
    if effort >= 3 {
        family(&mut list, &LEVELS[..2], &[ChromiumCrc], 15);
        family(&mut list, &LEVELS[2..], &[Stock, Gzip, Chromium, ChromiumCrc], 15);
        libraries(&mut list, &LEVELS[2..]);
        libraries(&mut list, &[10]);
    }
    if effort >= 5 && memory.is_none() {
        list.extend([6, 9].map(|level| zlib(Stock, level, 9, 15)));
    }
    if effort >= 7 && survey.window_bits < 15 {
        family(&mut list, &LEVELS, &[Stock, Chromium], survey.window_bits);
    }
    list
}

/// Plain bytes in, coded bytes compared with those that are wanted.
struct Compare<'a> {
    coded: &'a dyn ReadAt,
    coded_range: Range<u64>,
    plain: &'a dyn ReadAt,
    plain_range: Range<u64>,
    buffer: Vec<u8>,
    /// How many bytes are in `buffer`, and how many of them have been met.
    buffered: usize,
    compared: usize,
    differs: bool,
}

impl<'a> Compare<'a> {
    fn new(
        coded: &'a dyn ReadAt,
        coded_range: Range<u64>,
        plain: &'a dyn ReadAt,
        plain_range: Range<u64>,
    ) -> Compare<'a> {
        let room = (coded_range.end.saturating_sub(coded_range.start)).min(PIECE as u64) as usize;
        let buffer = vec![0; room];
        Compare { coded, coded_range, plain, plain_range, buffer, buffered: 0, compared: 0, differs: false }
    }
}

impl Ends for Compare<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let left = self.plain_range.end.saturating_sub(self.plain_range.start);
        let length = left.min(buffer.len() as u64) as usize;
        self.plain.read_exact_at(&mut buffer[..length], self.plain_range.start)?;
        self.plain_range.start += length as u64;
        Ok(length)
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if self.compared == self.buffered {
                let left = self.coded_range.end.saturating_sub(self.coded_range.start);
                self.buffered = left.min(self.buffer.len() as u64) as usize;
                self.compared = 0;
                self.coded.read_exact_at(&mut self.buffer[..self.buffered], self.coded_range.start)?;
                self.coded_range.start += self.buffered as u64;
            }
            let length = bytes.len().min(self.buffered - self.compared);
            if length == 0 || self.buffer[self.compared..self.compared + length] != bytes[..length] {
                self.differs = true;
                return Err(Error::invalid("the encoder makes other bytes"));
            }
            self.compared += length;
            bytes = &bytes[length..];
        }
        Ok(())
    }
}
