//! Which encoder made a stream: found by trying.

use std::ops::Range;

use super::encoder::{Encoder, Variant};
use super::model::{Ends, Strategy};
use super::survey::{Survey, survey};
use crate::delta::ReadAt;
use crate::error::{Error, Result};

/// Coded bytes that are compared at a time.
const PIECE: usize = 16 * 1024;

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
    // Trials that fail late must not add up.
    let budget = length.saturating_mul(2 + u64::from(effort)).max(1 << 20);
    let mut spent = 0;
    let trial = |encoder: Encoder, spent: &mut u64| -> Result<bool> {
        let mut ends = Compare::new(coded, coded_range.clone(), plain, plain_range.clone());
        let result = encoder.run(&mut ends);
        *spent += ends.plain_range.start - plain_range.start;
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

/// What may have made such a stream, the likeliest first.
fn candidates(survey: &Survey, effort: u8) -> Vec<Encoder> {
    let mut list = Vec::new();
    // One block says nothing about when a block is full.
    let memories: &[u8] = match survey.memory {
        Some(0) => &[],
        Some(1) => &[1],
        Some(2) => &[2],
        Some(3) => &[3],
        Some(4) => &[4],
        Some(5) => &[5],
        Some(6) => &[6],
        Some(7) => &[7],
        Some(8) => &[8],
        Some(_) => &[9],
        None if effort >= 5 => &[8, 9],
        None => &[8],
    };
    let levels: &[u8] = if effort < 3 { &[6, 9] } else { &[6, 9, 1, 5, 4, 7, 8, 3, 2] };
    let variants: &[Variant] = match effort {
        0..=2 => &[Variant::Stock, Variant::Chromium],
        _ => &[Variant::Stock, Variant::Chromium, Variant::ChromiumCrc],
    };
    let mut zlib = |levels: &[u8], window_bits: u8| {
        for &memory in memories {
            for &level in levels {
                for &variant in variants {
                    let strategy = Strategy::Default;
                    list.push(Encoder::Zlib { variant, level, memory, window_bits, strategy });
                }
            }
        }
    };
    zlib(&levels[..2], 15);
    zlib(&levels[2..], 15);
    if effort >= 7 && survey.window_bits < 15 {
        zlib(levels, survey.window_bits);
    }
    let likely = 2 * variants.len() * memories.len();
    let mut libraries = Vec::new();
    if matches!(survey.memory, None | Some(8)) {
        libraries.extend([9, 6].map(|level| Encoder::ZlibRs { level }));
    }
    if survey.memory.is_none_or(|memory| memory == 0) {
        libraries.extend([6, 9].map(|level| Encoder::Miniz { level }));
    }
    let likely = likely.min(list.len());
    let rest = list.split_off(likely);
    list.extend(libraries);
    list.extend(rest);
    if effort >= 3 {
        if matches!(survey.memory, None | Some(8)) {
            list.extend([1, 2, 3, 4, 5, 7, 8].map(|level| Encoder::ZlibRs { level }));
        }
        if survey.memory.is_none_or(|memory| memory == 0) {
            list.extend([1, 2, 3, 4, 5, 7, 8, 10].map(|level| Encoder::Miniz { level }));
        }
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
