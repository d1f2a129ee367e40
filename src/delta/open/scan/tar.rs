//! tar archives: ustar, GNU and PAX, for telling members apart and naming them.

use std::ops::Range;

use super::{Frame, Scanner, printable};
use crate::error::Result;

const BLOCK: u64 = 512;
/// The most that the name or the attributes of one entry may take.
const EXTENSION: u64 = 64 << 10;
/// The most blocks that continue the map of a sparse file.
const SPARSE: u32 = 1 << 12;

pub(super) fn is(head: &[u8]) -> bool {
    entry(head).is_some()
}

struct Entry {
    size: u64,
    kind: u8,
    name: String,
    /// Whether blocks with the rest of a sparse map come first.
    sparse_more: bool,
}

pub(super) fn scan(scanner: &mut Scanner<'_, '_>, frame: &mut Frame) -> Result<()> {
    let end = frame.range.end;
    let mut at = frame.range.start;
    let (mut long, mut long_size) = (None, None);
    while let Some(header) = scanner.read::<512>(at..end)? {
        let Some(mut entry) = entry(&header) else { break };
        frame.found = true;
        let mut start = at + BLOCK;
        if entry.sparse_more {
            match after_sparse(scanner, start..end)? {
                Some(after) => start = after,
                None => break,
            }
        }
        // Links, devices, directories and pipes have no content, whatever their size says.
        let extension = matches!(entry.kind, b'x' | b'L' | b'K' | b'g');
        let size = match entry.kind {
            b'1'..=b'6' => 0,
            _ if extension => entry.size,
            _ => long_size.take().unwrap_or(entry.size),
        };
        if size > end.saturating_sub(start) {
            break;
        }
        let stop = start + size;
        if extension {
            if matches!(entry.kind, b'x' | b'L') && size <= EXTENSION {
                let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
                scanner.fill(&mut bytes, start..stop)?;
                if entry.kind == b'L' {
                    long = Some(printable(until_zero(&bytes)));
                } else {
                    let (path, size) = pax(&bytes);
                    long = path.or(long);
                    long_size = size.or(long_size);
                }
            }
        } else {
            if let Some(name) = long.take() {
                entry.name = name;
            }
            long_size = None;
            scanner.member(frame, start..stop, &entry.name)?;
        }
        let padded = size.div_ceil(BLOCK).saturating_mul(BLOCK);
        match start.checked_add(padded) {
            Some(next) if next < end => at = next,
            _ => break,
        }
    }
    Ok(())
}

/// What a header block says; `None` if its checksum is not right.
fn entry(block: &[u8]) -> Option<Entry> {
    let block: &[u8; 512] = block.get(..512)?.try_into().ok()?;
    if block[0] == 0 && block[345] == 0 {
        return None;
    }
    let stored = number(&block[148..156])?;
    // The sum of all bytes, with those of the checksum itself taken as spaces.
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    let own: u64 = block[148..156].iter().map(|byte| u64::from(*byte)).sum();
    if sum - own + 8 * u64::from(b' ') != stored {
        return None;
    }
    let size = number(&block[124..136])?;
    let mut name = printable(until_zero(&block[..100]));
    // POSIX.1-1988: a prefix; GNU keeps other things there.
    if &block[257..263] == b"ustar\0" && block[345] != 0 {
        name = format!("{}/{}", printable(until_zero(&block[345..500])), name);
    }
    Some(Entry { size, kind: block[156], name, sparse_more: block[156] == b'S' && block[482] != 0 })
}

/// Behind the blocks that continue a sparse map.
fn after_sparse(scanner: &Scanner<'_, '_>, range: Range<u64>) -> Result<Option<u64>> {
    let mut at = range.start;
    for _ in 0..SPARSE {
        let Some(block) = scanner.read::<512>(at..range.end)? else { return Ok(None) };
        at += BLOCK;
        if block[504] == 0 {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

/// Octal digits among spaces and zeros, or GNU's base 256.
fn number(field: &[u8]) -> Option<u64> {
    if let [first @ (0x80 | 0xff), rest @ ..] = field {
        let (high, low) = rest.split_at_checked(rest.len().checked_sub(8)?)?;
        let positive = *first == 0x80 && high.iter().all(|byte| *byte == 0);
        return positive.then(|| low.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)));
    }
    let text = until_zero(field).trim_ascii();
    text.iter().try_fold(0_u64, |value, byte| match byte {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

/// The path and the size in PAX records, `length key=value\n` each.
fn pax(mut bytes: &[u8]) -> (Option<String>, Option<u64>) {
    let (mut path, mut size) = (None, None);
    while let Some(space) = bytes.iter().take(8).position(|byte| *byte == b' ') {
        let text = bytes.get(..space).and_then(|text| std::str::from_utf8(text).ok());
        let Some(length) = text.and_then(|text| text.parse::<usize>().ok()) else { break };
        let Some((record, rest)) = bytes.split_at_checked(length) else { break };
        let Some(record) = record.get(space + 1..).and_then(|record| record.strip_suffix(b"\n")) else {
            break;
        };
        if let Some(value) = record.strip_prefix(b"path=").or(record.strip_prefix(b"GNU.sparse.name=")) {
            path = Some(printable(value));
        } else if let Some(value) = record.strip_prefix(b"size=") {
            size = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
        }
        bytes = rest;
    }
    (path, size)
}

fn until_zero(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    field.get(..end).unwrap_or_default()
}
