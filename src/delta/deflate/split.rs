//! What a stream says, and how it was said: any deflate stream, whatever its encoder.
//!
//! *Parse* is one record for each match, whatever block it is in: the number of literals before it
//! (a byte; 255 means that the rest follows as a base-128 number), its length less 3 (a byte), its
//! distance less 1 (two bytes, most significant first; the highest bit set for 258 bytes written
//! as 227 and 31). Literals after the last match are a number alone.
//!
//! *Heads* is one record for each block: a byte (bit 0: last block, bits 1-2: kind, bit 3: the bits
//! that were skipped before a stored block follow in a byte, bit 4: the same for those after the
//! last block); then for a stored block its length in two bytes; for others the number of tokens as
//! a base-128 number; then for a dynamic block the numbers of literal, distance and code length
//! codes and the code lengths as they were written, each a byte. Base-128 numbers have their least
//! significant digit first, and the highest bit set in all but the last.
//!
//! So equal content said in an equal way gives equal bytes, wherever it is in the stream.

use std::ops::Range;

use super::broken;
use super::header::Kind;
use super::inflate::Tables;
use super::input::Input;
use super::survey::{ODD_LENGTH, token};
use crate::delta::{ReadAt, Spool};
use crate::error::Result;

/// The highest bit of a distance: 258 bytes were written as 227 and 31.
pub(super) const ODD_BIT: u16 = 1 << 15;
/// A number of literals that does not fit into a byte.
pub(super) const LONG_RUN: u8 = 255;
/// Bits of a head's first byte.
pub(super) const PADDED: u8 = 1 << 3;
pub(super) const PADDED_END: u8 = 1 << 4;
/// Bytes that are collected before they are handed on.
const PIECE: usize = 64 * 1024;

/// Splits the stream in `range` into its parse and its heads; with the plain bytes,
/// [`merge`](super::merge) makes the same stream of them.
///
/// # Errors
/// [`ErrorKind::Invalid`](crate::error::ErrorKind::Invalid) if there is no deflate stream, or
/// another number of bytes; whatever `coded` and the spools report.
pub(crate) fn split(
    coded: &dyn ReadAt,
    range: Range<u64>,
    parse: &mut dyn Spool,
    heads: &mut dyn Spool,
) -> Result<()> {
    let mut input = Input::new(coded, range.start, range.end)?;
    let mut tables = Tables::new();
    let mut parse = Collected { bytes: Vec::with_capacity(PIECE + 16), spool: parse };
    let mut head = Vec::new();
    let mut run = 0u64;
    loop {
        let (last, kind) = tables.read(&mut input)?;
        head.clear();
        let mut first = u8::from(last);
        match kind {
            Kind::Stored { length, padding } => {
                head.extend_from_slice(&(length as u16).to_le_bytes());
                if padding != 0 {
                    first |= PADDED;
                    head.push(padding);
                }
                input.bytes(length, &mut |_| Ok(()))?;
            }
            Kind::Fixed | Kind::Dynamic => {
                let tokens = tokens(&mut input, &tables, &mut parse, &mut run)?;
                number(tokens, &mut head);
                first |= 1 << 1;
                if let Kind::Dynamic = kind {
                    first ^= 3 << 1;
                    let codes = &tables.codes;
                    let numbers = [codes.literals, codes.distances, codes.order.len()];
                    head.extend(numbers.map(|number| (number & 255) as u8));
                    head.extend_from_slice(&codes.order);
                    head.extend_from_slice(&codes.symbols);
                }
            }
        }
        input.check()?;
        if last {
            let (padding, _) = input.align();
            if padding != 0 {
                first |= PADDED_END;
                head.push(padding);
            }
        }
        heads.append(&[first])?;
        heads.append(&head)?;
        if last {
            break;
        }
    }
    if run > 0 {
        parse.run(run);
    }
    parse.flush(0)?;
    if input.position() != range.end {
        return Err(broken("more bytes after its end"));
    }
    Ok(())
}

/// Reads the tokens of a block and gives their number.
fn tokens(input: &mut Input<'_>, tables: &Tables, parse: &mut Collected<'_>, run: &mut u64) -> Result<u64> {
    let mut tokens = 0;
    while let Some((length, distance)) = token(input, tables)? {
        tokens += 1;
        if distance == 0 {
            *run += 1;
            continue;
        }
        parse.run(*run);
        *run = 0;
        let odd = if length == ODD_LENGTH { ODD_BIT } else { 0 };
        let [high, low] = ((distance - 1) as u16 | odd).to_be_bytes();
        parse.bytes.extend_from_slice(&[length.min(258).saturating_sub(3) as u8, high, low]);
        parse.flush(PIECE)?;
    }
    Ok(tokens)
}

struct Collected<'a> {
    bytes: Vec<u8>,
    spool: &'a mut dyn Spool,
}

impl Collected<'_> {
    #[inline]
    fn run(&mut self, run: u64) {
        if run < u64::from(LONG_RUN) {
            self.bytes.push(run as u8);
        } else {
            self.bytes.push(LONG_RUN);
            number(run - u64::from(LONG_RUN), &mut self.bytes);
        }
    }

    /// Hands the bytes on if there are more than `least`.
    #[inline]
    fn flush(&mut self, least: usize) -> Result<()> {
        if self.bytes.len() > least {
            self.spool.append(&self.bytes)?;
            self.bytes.clear();
        }
        Ok(())
    }
}

fn number(mut number: u64, out: &mut Vec<u8>) {
    while number >= 128 {
        out.push(number as u8 | 128);
        number >>= 7;
    }
    out.push(number as u8);
}
