//! A look at a stream's first block, which tells much about its encoder.

use std::ops::Range;

use super::broken;
use super::header::Kind;
use super::inflate::Tables;
use super::input::Input;
use super::table::{END, LITERAL, ODD, SECOND, Table, used, with_extra};
use crate::delta::ReadAt;
use crate::error::Result;

/// Tokens that are looked at; more are in no block of zlib's.
const MOST: u32 = 40_000;

/// What the first block shows.
pub(super) struct Survey {
    /// Its tokens; `None` if it is stored or the last block.
    pub(super) tokens: Option<u32>,
    /// The smallest window of zlib's in which the distances fit.
    pub(super) window_bits: u8,
}

/// Looks at the first block of the stream.
///
/// # Errors
/// If it is none, or the bytes cannot be read.
pub(super) fn survey(coded: &dyn ReadAt, range: Range<u64>) -> Result<Survey> {
    let mut input = Input::new(coded, range.start, range.end)?;
    let mut tables = Tables::new();
    let (last, kind) = tables.read(&mut input)?;
    if let Kind::Stored { .. } = kind {
        return Ok(Survey { tokens: None, window_bits: 15 });
    }
    let (mut tokens, mut farthest) = (0, 0);
    while tokens < MOST {
        let Some((_, distance)) = token(&mut input, &tables)? else { break };
        tokens += 1;
        farthest = farthest.max(distance);
    }
    let window_bits = (9..15u8).find(|&bits| farthest + 262 <= 1 << bits).unwrap_or(15);
    Ok(Survey { tokens: (!last).then_some(tokens), window_bits })
}

/// The next token: a length and a distance, or a literal and 0; `None` at the block's end.
#[inline(always)]
pub(super) fn token(input: &mut Input<'_>, tables: &Tables) -> Result<Option<(u32, u32)>> {
    input.refill()?;
    let entry = entry(input, &tables.literals);
    if entry & LITERAL != 0 {
        let byte = super::table::value(entry);
        consume(input, entry);
        return Ok(Some((byte, 0)));
    }
    if entry & ODD != 0 {
        if entry & END == 0 {
            return Err(broken("an unknown literal or length code"));
        }
        consume(input, entry);
        return Ok(None);
    }
    let length = with_extra(entry, input.hold);
    // 258 in the way that no encoder known writes it.
    let odd = length == 258 && used(entry) != super::table::code_bits(entry);
    consume(input, entry);
    let entry = self::entry(input, &tables.distances);
    if entry & ODD != 0 {
        return Err(broken("an unknown distance code"));
    }
    let distance = with_extra(entry, input.hold);
    consume(input, entry);
    Ok(Some((if odd { ODD_LENGTH } else { length }, distance)))
}

/// Stands for a match of 258 bytes that is written as 227 and 31.
pub(super) const ODD_LENGTH: u32 = 259;

#[inline(always)]
fn entry(input: &mut Input<'_>, table: &Table) -> u32 {
    let entry = table.first(input.hold);
    if entry & SECOND == 0 {
        return entry;
    }
    consume(input, entry);
    table.second(entry, input.hold)
}

#[inline(always)]
fn consume(input: &mut Input<'_>, entry: u32) {
    input.hold >>= used(entry);
    input.have -= used(entry);
}
