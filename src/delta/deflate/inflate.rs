//! Decoding: table-driven, with a window of its own.

use super::header::{self, Codes, FIXED_DISTANCES, Kind, fixed_literals};
use super::input::{Input, word};
use super::table::{
    Alphabet, DISTANCE_BITS, END, LITERAL, LITERAL_BITS, ODD, SECOND, Table, used, value, with_extra,
};
use super::{Extent, broken};
use crate::delta::ReadAt;
use crate::error::{Error, ErrorKind, Result};

/// How far back a match may reach.
pub(super) const WINDOW: usize = 32 * 1024;
/// Plain bytes before they are handed out.
const ROOM: usize = 128 * 1024;
/// What one step of the loop may write: two literals, a match, and the overshoot of its copy.
const SLACK: usize = 2 + 258 + 32;

/// Decodes raw deflate (RFC 1951) at `offset` up to the end of its final block.
///
/// Plain bytes go to `out` as they come. What zlib accepts is accepted, and nothing else.
///
/// # Errors
/// [`ErrorKind::Invalid`] if it is no deflate stream or ends too early; [`ErrorKind::TooLarge`] for
/// more than `limit` plain bytes; whatever `coded` and `out` report.
pub(crate) fn inflate(
    coded: &dyn ReadAt,
    offset: u64,
    limit: u64,
    out: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<Extent> {
    let mut input = Input::new(coded, offset, u64::MAX)?;
    let mut window = Window { bytes: vec![0; WINDOW + ROOM + SLACK], pos: 0, sent: 0, plain: 0, limit, out };
    let mut tables = Tables::new();
    loop {
        let (last, kind) = tables.read(&mut input)?;
        match kind {
            Kind::Stored { length, .. } => input.bytes(length, &mut |bytes| window.append(bytes))?,
            Kind::Fixed | Kind::Dynamic => block(&mut input, &mut window, &tables)?,
        }
        input.check()?;
        if last {
            break;
        }
    }
    window.flush()?;
    input.align();
    Ok(Extent { coded: input.position() - offset, plain: window.plain })
}

/// The decoding tables of the current block.
pub(super) struct Tables {
    pub(super) codes: Codes,
    pub(super) literals: Table,
    pub(super) distances: Table,
    small: Table,
    fixed: bool,
}

impl Tables {
    pub(super) fn new() -> Tables {
        Tables {
            codes: Codes::new(),
            literals: Table::new(LITERAL_BITS),
            distances: Table::new(DISTANCE_BITS),
            small: Table::new(7),
            fixed: false,
        }
    }

    /// Reads a block's header and gets ready for its tokens.
    pub(super) fn read(&mut self, input: &mut Input<'_>) -> Result<(bool, Kind)> {
        let (last, kind) = header::read(input, &mut self.codes, &mut self.small)?;
        match kind {
            Kind::Stored { .. } => {}
            Kind::Fixed => {
                if !self.fixed {
                    self.literals.build(Alphabet::Literals, &fixed_literals())?;
                    self.distances.build(Alphabet::Distances, &FIXED_DISTANCES)?;
                }
                self.fixed = true;
            }
            Kind::Dynamic => {
                self.fixed = false;
                self.literals.build(Alphabet::Literals, self.codes.literal_lengths())?;
                self.distances.build(Alphabet::Distances, self.codes.distance_lengths())?;
            }
        }
        Ok((last, kind))
    }
}

struct Window<'a> {
    bytes: Vec<u8>,
    /// Where the next plain byte goes.
    pos: usize,
    /// Up to where bytes have been handed out.
    sent: usize,
    /// How many have been handed out in all.
    plain: u64,
    limit: u64,
    out: &'a mut dyn FnMut(&[u8]) -> Result<()>,
}

impl Window<'_> {
    /// Hands out what is there, and makes room.
    fn flush(&mut self) -> Result<()> {
        let plain = self.plain + (self.pos - self.sent) as u64;
        if plain > self.limit {
            return Err(too_large(self.limit));
        }
        if self.pos > self.sent {
            (self.out)(&self.bytes[self.sent..self.pos])?;
        }
        self.plain = plain;
        if self.pos > WINDOW {
            self.bytes.copy_within(self.pos - WINDOW..self.pos, 0);
            self.pos = WINDOW;
        }
        self.sent = self.pos;
        Ok(())
    }

    fn append(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if self.pos >= WINDOW + ROOM {
                self.flush()?;
            }
            let piece = bytes.len().min(WINDOW + ROOM - self.pos);
            self.bytes[self.pos..self.pos + piece].copy_from_slice(&bytes[..piece]);
            self.pos += piece;
            bytes = &bytes[piece..];
        }
        Ok(())
    }
}

/// Decodes one block's tokens.
fn block(input: &mut Input<'_>, window: &mut Window<'_>, tables: &Tables) -> Result<()> {
    loop {
        if input.pos >= input.low() {
            input.more()?;
        }
        if window.pos >= WINDOW + ROOM {
            window.flush()?;
        }
        if run(input, window, tables)? {
            return Ok(());
        }
    }
}

/// Decodes tokens until input or room run low (false) or the block ends (true).
#[inline(never)]
fn run(input: &mut Input<'_>, window: &mut Window<'_>, tables: &Tables) -> Result<bool> {
    const LITERAL_MASK: usize = (1 << LITERAL_BITS) - 1;
    const DISTANCE_MASK: usize = (1 << DISTANCE_BITS) - 1;
    let Some(literals) = tables.literals.entries().first_chunk::<{ LITERAL_MASK + 1 }>() else {
        return Err(broken("a Huffman code without a table"));
    };
    let Some(distances) = tables.distances.entries().first_chunk::<{ DISTANCE_MASK + 1 }>() else {
        return Err(broken("a Huffman code without a table"));
    };
    let low = input.low();
    let (mut pos, mut hold, mut have) = (input.pos, input.hold, input.have);
    let buffer = input.buffer();
    let bytes = &mut window.bytes[..];
    let mut at = window.pos;
    let mut ended = false;

    macro_rules! refill {
        () => {
            hold |= word(buffer, pos) << have;
            pos += (63 - have as usize) >> 3;
            have |= 56;
        };
    }
    macro_rules! consume {
        ($entry:expr) => {
            hold >>= used($entry);
            have -= used($entry);
        };
    }

    while pos < low && at < WINDOW + ROOM {
        refill!();
        let mut entry = literals[hold as usize & LITERAL_MASK];
        if entry & LITERAL != 0 {
            consume!(entry);
            bytes[at] = value(entry) as u8;
            at += 1;
            entry = literals[hold as usize & LITERAL_MASK];
            if entry & LITERAL != 0 {
                consume!(entry);
                bytes[at] = value(entry) as u8;
                at += 1;
                entry = literals[hold as usize & LITERAL_MASK];
                if entry & LITERAL != 0 {
                    consume!(entry);
                    bytes[at] = value(entry) as u8;
                    at += 1;
                    continue;
                }
            }
            refill!();
        }
        if entry & ODD != 0 {
            if entry & SECOND != 0 {
                consume!(entry);
                entry = tables.literals.second(entry, hold);
                if entry & LITERAL != 0 {
                    consume!(entry);
                    bytes[at] = value(entry) as u8;
                    at += 1;
                    continue;
                }
            }
            if entry & ODD != 0 {
                if entry & END == 0 {
                    return Err(broken("an unknown literal or length code"));
                }
                consume!(entry);
                ended = true;
                break;
            }
        }
        let length = with_extra(entry, hold) as usize;
        consume!(entry);
        entry = distances[hold as usize & DISTANCE_MASK];
        if entry & ODD != 0 {
            if entry & SECOND != 0 {
                consume!(entry);
                entry = tables.distances.second(entry, hold);
            }
            if entry & ODD != 0 {
                return Err(broken("an unknown distance code"));
            }
        }
        let distance = with_extra(entry, hold) as usize;
        consume!(entry);
        if distance > at {
            return Err(broken("a distance that reaches before the beginning"));
        }
        copy(bytes, at, distance, length);
        at += length;
    }
    (input.pos, input.hold, input.have) = (pos, hold, have);
    window.pos = at;
    Ok(ended)
}

/// Copies a match; up to 31 bytes after it may be overwritten too.
#[inline(always)]
fn copy(bytes: &mut [u8], at: usize, distance: usize, length: usize) {
    let end = at + length;
    let mut to = at;
    let mut from = at - distance;
    if distance >= 16 {
        while to < end {
            let Some(&chunk) = bytes.get(from..).and_then(|bytes| bytes.first_chunk::<16>()) else { return };
            let Some(room) = bytes.get_mut(to..).and_then(|bytes| bytes.first_chunk_mut::<16>()) else {
                return;
            };
            *room = chunk;
            to += 16;
            from += 16;
        }
    } else if distance == 1 {
        let byte = bytes[from];
        bytes[at..end].fill(byte);
    } else {
        while to < end {
            bytes[to] = bytes[from];
            to += 1;
            from += 1;
        }
    }
}

#[cold]
fn too_large(limit: u64) -> Error {
    Error::new(ErrorKind::TooLarge, format!("the deflate stream has more than {limit} plain bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plain_of(coded: &[u8]) -> Result<(Extent, Vec<u8>)> {
        let mut plain = Vec::new();
        let extent = inflate(&coded, 0, 1 << 20, &mut |bytes| {
            plain.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok((extent, plain))
    }

    /// What zlib makes of it, if it accepts the stream.
    fn oracle(coded: &[u8]) -> Option<Vec<u8>> {
        let mut plain = vec![0; 1 << 20];
        let config = zlib_rs::InflateConfig { window_bits: -15 };
        let (plain, code) = zlib_rs::decompress_slice(&mut plain, coded, config);
        (code == zlib_rs::ReturnCode::Ok).then(|| plain.to_vec())
    }

    fn sample() -> Vec<u8> {
        let mut state = 1u32;
        let mut plain = Vec::new();
        while plain.len() < 3000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            match state >> 30 {
                0 => plain.extend_from_slice(&state.to_le_bytes()),
                1 => plain.extend_from_slice(b"the same words again, "),
                2 => plain.extend(std::iter::repeat_n((state >> 8) as u8, 40)),
                _ => {
                    let at = (state >> 8) as usize % (plain.len() + 1);
                    let end = plain.len().min(at + 30);
                    plain.extend_from_within(at..end);
                }
            }
        }
        plain
    }

    #[test]
    fn a_stream_ends_with_its_final_block_and_not_with_the_bytes() {
        let plain = sample();
        let mut coded = miniz_oxide::deflate::compress_to_vec(&plain, 6);
        let length = coded.len() as u64;
        coded.extend_from_slice(b"what follows");
        let (extent, got) = plain_of(&coded).unwrap();
        assert_eq!((extent.coded, extent.plain), (length, plain.len() as u64));
        assert_eq!(got, plain);
    }

    #[test]
    fn a_truncated_stream_is_refused_at_every_byte() {
        for level in [0, 1, 9] {
            let coded = miniz_oxide::deflate::compress_to_vec(&sample(), level);
            for length in 0..coded.len() {
                assert_eq!(plain_of(&coded[..length]).unwrap_err().kind(), ErrorKind::Invalid, "{length}");
            }
        }
    }

    #[test]
    fn a_flipped_bit_is_judged_as_zlib_does() {
        let coded = miniz_oxide::deflate::compress_to_vec(&sample(), 6);
        for bit in 0..coded.len() * 8 {
            let mut coded = coded.clone();
            coded[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(plain_of(&coded).ok().map(|(_, plain)| plain), oracle(&coded), "bit {bit}");
        }
    }

    #[test]
    fn too_many_plain_bytes_are_too_large() {
        let coded = miniz_oxide::deflate::compress_to_vec(&vec![0; 1 << 20], 9);
        let mut seen = 0;
        let error = inflate(&coded, 0, 300_000, &mut |bytes| {
            seen += bytes.len();
            Ok(())
        })
        .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        assert!(seen <= 300_000);
        assert!(inflate(&coded, 0, 1 << 20, &mut |_| Ok(())).is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_as_zlib_does(
            coded in proptest::collection::vec(any::<u8>(), 0..200),
            kind in 0u8..4,
        ) {
            let mut coded = coded;
            if let Some(first) = coded.first_mut() {
                *first = (*first & !6) | kind << 1;
            }
            prop_assert_eq!(plain_of(&coded).ok().map(|(_, plain)| plain), oracle(&coded));
        }
    }
}
