//! A stream out of its plain bytes, its parse and its heads: see [`split`](super::split).

use std::io;

use super::header::{self, Codes, FIXED_DISTANCES, fixed_literals, run};
use super::output::Output;
use super::split::{LONG_RUN, ODD_BIT, PADDED, PADDED_END};
use super::token::TokenWriter;
use crate::error::{Error, ErrorKind, Result};

/// Bytes of each source in memory, and coded ones before they are written.
const PIECE: usize = 64 * 1024;

/// Makes the deflate stream that was [`split`](super::split()) again; gives the number of coded bytes.
///
/// Each source ends where its part of the stream ends.
///
/// # Errors
/// [`ErrorKind::Corrupted`] if the three do not fit together; whatever sources and `out` report.
pub(crate) fn merge(
    plain: &mut dyn io::Read,
    parse: &mut dyn io::Read,
    heads: &mut dyn io::Read,
    out: &mut dyn io::Write,
) -> Result<u64> {
    let mut merge = Merge {
        plain: Source::new(plain),
        parse: Source::new(parse),
        heads: Source::new(heads),
        sink: out,
        out: Output::new(),
        written: 0,
        left: None,
    };
    let mut codes = Codes::new();
    let mut writer = TokenWriter::new();
    let mut prepared = false;
    loop {
        let first = merge.heads.byte()?;
        let last = first & 1 == 1;
        let odd = first & !(7 | PADDED | PADDED_END) != 0;
        if odd || (first & PADDED != 0 && first & 6 != 0) || (first & PADDED_END != 0 && !last) {
            return Err(unfit("a block with unknown marks"));
        }
        merge.out.put(u32::from(first & 7), 3);
        match first >> 1 & 3 {
            0 => merge.stored(first & PADDED != 0)?,
            1 => {
                let tokens = merge.heads.number()?;
                if !prepared {
                    writer.prepare(&fixed_literals(), &FIXED_DISTANCES);
                    prepared = true;
                }
                merge.tokens(tokens, &writer)?;
            }
            2 => {
                let tokens = merge.heads.number()?;
                merge.codes(&mut codes)?;
                writer.prepare(codes.literal_lengths(), codes.distance_lengths());
                prepared = false;
                header::write(&mut merge.out, codes.literals, codes.distances, &codes.order, &codes.symbols);
                merge.tokens(tokens, &writer)?;
            }
            _ => return Err(unfit("a block of an unknown kind")),
        }
        if last {
            let padding = if first & PADDED_END != 0 { merge.heads.byte()? } else { 0 };
            merge.out.align(padding);
            break;
        }
    }
    merge.flush(0)?;
    if !(merge.plain.is_empty()? && merge.parse.is_empty()? && merge.heads.is_empty()?) {
        return Err(unfit("bytes left over"));
    }
    Ok(merge.written)
}

struct Merge<'a> {
    plain: Source<'a>,
    parse: Source<'a>,
    heads: Source<'a>,
    sink: &'a mut dyn io::Write,
    out: Output,
    written: u64,
    /// How many literals are left before the next match, if that is known.
    left: Option<u64>,
}

impl Merge<'_> {
    fn stored(&mut self, padded: bool) -> Result<()> {
        let length = u16::from_le_bytes([self.heads.byte()?, self.heads.byte()?]);
        let padding = if padded { self.heads.byte()? } else { 0 };
        self.out.align(padding);
        self.out.bytes.extend_from_slice(&length.to_le_bytes());
        self.out.bytes.extend_from_slice(&(!length).to_le_bytes());
        let mut left = usize::from(length);
        while left > 0 {
            let piece = self.plain.some(left)?;
            self.out.bytes.extend_from_slice(piece);
            left -= piece.len();
        }
        self.flush(PIECE)
    }

    /// Reads the header of a dynamic block.
    fn codes(&mut self, codes: &mut Codes) -> Result<()> {
        let literals = match usize::from(self.heads.byte()?) {
            low @ 0..=30 => 256 + low,
            _ => return Err(unfit("a block with too many or too few codes")),
        };
        let distances = usize::from(self.heads.byte()?);
        let order = usize::from(self.heads.byte()?);
        if literals < 257 || distances == 0 || !(4..=19).contains(&order) {
            return Err(unfit("a block with too many or too few codes"));
        }
        codes.restart(literals, distances).map_err(|_| unfit("a block with too many codes"))?;
        for _ in 0..order {
            codes.order.push(self.heads.byte()?);
        }
        if codes.order.iter().any(|&length| length > 7) {
            return Err(unfit("a code length that is too long"));
        }
        let small = codes.order_lengths();
        while codes.is_short() {
            let byte = self.heads.byte()?;
            let symbol = match run(byte) {
                Some((0, ..)) => byte,
                Some((symbol, ..)) => symbol,
                None => return Err(unfit("an unknown code length")),
            };
            if small[usize::from(symbol)] == 0 {
                return Err(unfit("a code length without a code"));
            }
            codes.push(byte).map_err(|_| unfit("code lengths for more codes than there are"))?;
        }
        Ok(())
    }

    /// Writes `count` tokens and the end of the block.
    fn tokens(&mut self, count: u64, writer: &TokenWriter) -> Result<()> {
        let mut count = count;
        while count > 0 {
            let run = match self.left {
                Some(run) => run,
                None => self.run()?,
            };
            let literals = run.min(count);
            self.literals(literals, writer)?;
            count -= literals;
            self.left = Some(run - literals);
            if count == 0 {
                break;
            }
            count -= 1;
            self.left = None;
            let [length, high, low] = self.parse.three()?;
            let distance = u16::from_be_bytes([high, low]);
            self.plain.skip(usize::from(length) + 3)?;
            let written = if distance & ODD_BIT == 0 {
                writer.pair(&mut self.out, length, distance)
            } else if length == 255 {
                writer.odd_pair(&mut self.out, distance & !ODD_BIT)
            } else {
                false
            };
            if !written {
                return Err(unfit("a match without a code"));
            }
            self.flush(PIECE)?;
        }
        if !writer.end(&mut self.out) {
            return Err(unfit("a block that cannot end"));
        }
        Ok(())
    }

    fn run(&mut self) -> Result<u64> {
        match self.parse.byte()? {
            LONG_RUN => Ok(self.parse.number()?.saturating_add(u64::from(LONG_RUN))),
            run => Ok(u64::from(run)),
        }
    }

    #[inline]
    fn literals(&mut self, mut count: u64, writer: &TokenWriter) -> Result<()> {
        while count > 0 {
            let piece = self.plain.some(count.min(PIECE as u64) as usize)?;
            for &byte in piece {
                if !writer.literal(&mut self.out, byte) {
                    return Err(unfit("a literal without a code"));
                }
            }
            count -= piece.len() as u64;
            if self.out.bytes.len() > PIECE {
                self.flush(PIECE)?;
            }
        }
        Ok(())
    }

    /// Writes coded bytes if there are more than `least`.
    #[inline]
    fn flush(&mut self, least: usize) -> Result<()> {
        if self.out.bytes.len() > least {
            let written = self.sink.write_all(&self.out.bytes);
            written.map_err(|error| Error::io("writing a deflate stream", error))?;
            self.written += self.out.bytes.len() as u64;
            self.out.bytes.clear();
        }
        Ok(())
    }
}

/// Bytes of a reader, some at a time.
struct Source<'a> {
    reader: &'a mut dyn io::Read,
    buffer: Vec<u8>,
    filled: usize,
    at: usize,
}

impl<'a> Source<'a> {
    fn new(reader: &'a mut dyn io::Read) -> Source<'a> {
        Source { reader, buffer: vec![0; PIECE], filled: 0, at: 0 }
    }

    /// Reads on if there is nothing left; true if that was all.
    fn is_empty(&mut self) -> Result<bool> {
        while self.at == self.filled {
            match self.reader.read(&mut self.buffer) {
                Ok(read) => (self.at, self.filled) = (0, read),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::io("reading the parts of a deflate stream", error)),
            }
            if self.filled == 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    #[cold]
    fn more(&mut self) -> Result<()> {
        if self.is_empty()? { Err(unfit("too few bytes")) } else { Ok(()) }
    }

    #[inline]
    fn byte(&mut self) -> Result<u8> {
        if self.at == self.filled {
            self.more()?;
        }
        self.at += 1;
        Ok(self.buffer[self.at - 1])
    }

    #[inline]
    fn three(&mut self) -> Result<[u8; 3]> {
        match self.buffer[self.at..self.filled].first_chunk() {
            Some(&bytes) => {
                self.at += 3;
                Ok(bytes)
            }
            None => Ok([self.byte()?, self.byte()?, self.byte()?]),
        }
    }

    /// At least one byte and at most `most`.
    #[inline]
    fn some(&mut self, most: usize) -> Result<&[u8]> {
        if self.at == self.filled {
            self.more()?;
        }
        let from = self.at;
        self.at = self.filled.min(from + most);
        Ok(&self.buffer[from..self.at])
    }

    #[inline]
    fn skip(&mut self, count: usize) -> Result<()> {
        let mut left = count;
        while left > 0 {
            left -= self.some(left)?.len();
        }
        Ok(())
    }

    fn number(&mut self) -> Result<u64> {
        let mut number = 0u64;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 127) << shift;
            if byte < 128 {
                return Ok(number);
            }
        }
        Err(unfit("a number that is too long"))
    }
}

#[cold]
fn unfit(what: &str) -> Error {
    Error::new(ErrorKind::Corrupted, format!("the parts of a deflate stream have {what}"))
}
