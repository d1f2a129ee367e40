//! gzip members (RFC 1952), one after the other.

use std::ops::Range;

use super::{Frame, Scanner};
use crate::delta::open::image::Method;
use crate::error::Result;

/// The most that a header with all its optional fields may take.
const HEADER: u64 = 128 << 10;

pub(super) fn is(head: &[u8]) -> bool {
    // RFC 1952, section 2.3.1: ID1, ID2, CM = 8; the reserved bits of FLG must be zero.
    matches!(head, [0x1f, 0x8b, 8, flags, ..] if flags & 0xe0 == 0)
}

pub(super) fn scan(scanner: &mut Scanner<'_, '_>, frame: &mut Frame) -> Result<()> {
    frame.joins = true;
    let end = frame.range.end;
    let mut at = frame.range.start;
    while let Some(body) = body(scanner, at..end)? {
        let name = frame.name.clone();
        let Some(stop) = scanner.stream(frame, Method::Deflate, body..end, None, name)? else { break };
        // CRC32 and ISIZE.
        at = stop.saturating_add(8);
        if at >= end {
            break;
        }
    }
    Ok(())
}

/// Where the deflate stream of the member at the beginning of `range` begins.
fn body(scanner: &Scanner<'_, '_>, range: Range<u64>) -> Result<Option<u64>> {
    let Some(fixed) = scanner.read::<10>(range.clone())? else { return Ok(None) };
    if !is(&fixed) {
        return Ok(None);
    }
    let flags = fixed[3];
    let stop = range.end.min(range.start.saturating_add(HEADER));
    let mut at = range.start + 10;
    if flags & 0x04 != 0 {
        let Some(length) = scanner.read::<2>(at..stop)? else { return Ok(None) };
        at += 2 + u64::from(u16::from_le_bytes(length));
    }
    for flag in [0x08, 0x10] {
        if flags & flag != 0 {
            match after_zero(scanner, at..stop)? {
                Some(after) => at = after,
                None => return Ok(None),
            }
        }
    }
    if flags & 0x02 != 0 {
        at += 2;
    }
    Ok((at < stop).then_some(at))
}

/// The address behind the first zero byte in `range`.
fn after_zero(scanner: &Scanner<'_, '_>, range: Range<u64>) -> Result<Option<u64>> {
    let mut at = range.start;
    let mut buffer = [0; 256];
    while at < range.end {
        let length = scanner.fill(&mut buffer, at..range.end)?;
        let bytes = buffer.get(..length).unwrap_or_default();
        if let Some(zero) = bytes.iter().position(|byte| *byte == 0) {
            return Ok(Some(at + zero as u64 + 1));
        }
        at += length as u64;
    }
    Ok(None)
}
