//! .xz streams, one after the other, down to the LZMA2 data of their blocks.

use std::ops::Range;

use super::{Frame, Scanner};
use crate::delta::open::codec::Chain;
use crate::delta::open::image::Method;
use crate::error::Result;

const MAGIC: &[u8] = b"\xfd7zXZ\0";
/// How much padding between two streams is looked through.
const PADDING: u64 = 64 << 10;
/// More blocks than this in a stream: the index is not walked.
const BLOCKS: u64 = 1 << 16;

pub(super) fn is(head: &[u8]) -> bool {
    head.starts_with(MAGIC)
}

pub(super) fn scan(scanner: &mut Scanner<'_, '_>, frame: &mut Frame) -> Result<()> {
    frame.joins = true;
    let end = frame.range.end;
    let mut at = frame.range.start;
    while let Some(header) = scanner.read::<12>(at..end)? {
        // The check's kind is in the second byte of the flags.
        if !is(&header) || header[6] != 0 {
            break;
        }
        at += 12;
        let check = match header[7] {
            0 => 0,
            kind @ 1..=15 => 4 << ((kind - 1) / 3),
            _ => break,
        };
        while let Some(body) = block(scanner, at..end)? {
            let name = frame.name.clone();
            let method = Method::Xz(body.chain);
            let Some(stop) = scanner.stream(frame, method, body.data..end, None, name)? else {
                return Ok(());
            };
            // Blocks are padded to four bytes, counted from their headers, before the check.
            at = stop + (stop - at).wrapping_neg() % 4 + check;
        }
        match after_index(scanner, at..end)? {
            Some(after) => at = after,
            None => break,
        }
    }
    Ok(())
}

struct Block {
    chain: Chain,
    data: u64,
}

/// The header of the block at the beginning of `range`; `None` for the index, or what is not
/// understood.
fn block(scanner: &Scanner<'_, '_>, range: Range<u64>) -> Result<Option<Block>> {
    let Some([size]) = scanner.read::<1>(range.clone())? else { return Ok(None) };
    if size == 0 {
        return Ok(None);
    }
    let size = 4 * (u64::from(size) + 1);
    let mut header = [0; 1024];
    let length = scanner.fill(&mut header, range.start..range.end.min(range.start + size))?;
    if length as u64 != size {
        return Ok(None);
    }
    let header = header.get(1..length - 4).unwrap_or_default();
    Ok(chain(header).map(|chain| Block { chain, data: range.start + size }))
}

/// The filters in a block header, from its flags on.
fn chain(header: &[u8]) -> Option<Chain> {
    let (flags, mut rest) = header.split_first()?;
    for present in [0x40, 0x80] {
        if flags & present != 0 {
            (_, rest) = number(rest)?;
        }
    }
    let mut chain = Chain::default();
    for left in (0..=flags & 3).rev() {
        let (id, after) = number(rest)?;
        let (size, after) = number(after)?;
        let (properties, after) = after.split_at_checked(usize::try_from(size).ok()?)?;
        rest = after;
        match (id, properties, left) {
            (0x21, [dictionary], 0) => chain.dictionary = *dictionary,
            (id @ 4..=11, [], 1) => chain.branch = id as u8,
            _ => return None,
        }
    }
    chain.is_known().then_some(chain)
}

/// Behind the index at the beginning of `range`, the footer and the padding.
fn after_index(scanner: &Scanner<'_, '_>, range: Range<u64>) -> Result<Option<u64>> {
    let mut at = range.start;
    let mut take = || -> Result<Option<u64>> {
        let mut bytes = [0; 9];
        let length = scanner.fill(&mut bytes, at..range.end)?;
        let bytes = bytes.get(..length).unwrap_or_default();
        let Some((value, rest)) = number(bytes) else { return Ok(None) };
        at += (length - rest.len()) as u64;
        Ok(Some(value))
    };
    let Some(0) = take()? else { return Ok(None) };
    let Some(records) = take()?.filter(|records| *records <= BLOCKS) else { return Ok(None) };
    for _ in 0..2 * records {
        if take()?.is_none() {
            return Ok(None);
        }
    }
    at += (at - range.start).wrapping_neg() % 4 + 4;
    let footer = scanner.read::<12>(at..range.end)?;
    if !footer.is_some_and(|footer| footer.ends_with(b"YZ")) {
        return Ok(None);
    }
    at += 12;
    // Stream padding: zeros, four at a time.
    let most = range.end.min(at.saturating_add(PADDING));
    while scanner.read::<4>(at..most)? == Some([0; 4]) {
        at += 4;
    }
    Ok(Some(at))
}

/// A number of up to nine bytes, seven bits each, the low ones first.
fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (at, byte) in bytes.iter().take(9).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(at + 1..)?));
        }
    }
    None
}
