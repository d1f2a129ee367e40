//! zip archives: wheels, jars, nupkgs, with anything before and after them.
//!
//! The central directory says what there is; an entry is used only where its local header agrees
//! and it ends before the next one begins.

use std::ops::Range;

use super::{Frame, Promise, Scanner, le16, le32, le64, printable};
use crate::delta::open::image::Method;
use crate::error::Result;

/// The end record without its comment, and the longest comment.
const END: u64 = 22;
const COMMENT: u64 = 0xffff;
const LOCAL: u64 = 30;
const CENTRAL: u64 = 46;

/// One entry of the central directory.
struct Entry {
    /// Where the entry itself lies.
    central: Range<u64>,
    /// Where its local header lies in the image.
    local: u64,
    coded: u64,
    plain: u64,
    method: u16,
    encrypted: bool,
    name: Box<str>,
}

/// The central directory: where it lies, and how far offsets in it are off.
struct Directory {
    range: Range<u64>,
    shift: u64,
}

pub(super) fn scan(scanner: &mut Scanner<'_, '_>, frame: &mut Frame, head: &[u8]) -> Result<()> {
    let range = frame.range.clone();
    // Archives with a programme before them have no comment: one look tells.
    let reach = if head.starts_with(b"PK\x03\x04") { END + COMMENT } else { END };
    let Some(directory) = directory(scanner, range.clone(), reach)? else { return Ok(()) };
    let mut entries = entries(scanner, range.start, &directory)?;
    let central: Vec<_> = entries.iter().map(|entry| (entry.central.clone(), entry.name.clone())).collect();
    entries.sort_by_key(|entry| entry.local);
    entries.dedup_by_key(|entry| entry.local);
    let mut rest = entries.as_slice();
    while let [entry, after @ ..] = rest {
        rest = after;
        let stop = after.first().map_or(directory.range.start, |next| next.local.min(directory.range.start));
        let Some(header) = scanner.read::<30>(entry.local..stop)? else { continue };
        if !header.starts_with(b"PK\x03\x04") || le16(&header, 8) != u64::from(entry.method) {
            continue;
        }
        let start = entry.local + LOCAL + le16(&header, 26) + le16(&header, 28);
        let Some(end) = start.checked_add(entry.coded).filter(|end| *end <= stop) else {
            continue;
        };
        frame.found = true;
        let method = match entry.method {
            8 => Some(Method::Deflate),
            93 => Some(Method::Zstd),
            // Stored; and a whole .xz file, which is found by its magic number.
            0 | 95 => {
                scanner.member(frame, start..end, &entry.name)?;
                continue;
            }
            _ => None,
        };
        if let Some(method) = method.filter(|_| !entry.encrypted) {
            let promise = Promise { coded: entry.coded, plain: entry.plain };
            let name = frame.inside(&entry.name);
            if scanner.stream(frame, method, start..end, Some(promise), name)?.is_some() {
                continue;
            }
        }
        scanner.opaque(frame, start..end, &entry.name)?;
    }
    if frame.found {
        // Each entry by itself: between releases most differ in a time and an offset.
        for (range, name) in central {
            scanner.header(frame, range, &name)?;
        }
    }
    Ok(())
}

/// Finds the end record in the last `reach` bytes, and through it the central directory.
fn directory(scanner: &Scanner<'_, '_>, range: Range<u64>, reach: u64) -> Result<Option<Directory>> {
    let length = range.end - range.start;
    if length < END {
        return Ok(None);
    }
    let reach = reach.min(length);
    let mut tail = vec![0; usize::try_from(reach).unwrap_or(0)];
    let base = range.end - reach;
    // Most archives have no comment.
    let plain = scanner.read::<22>(range.end - END..range.end)?;
    if let Some(end) = plain.filter(|end| is_end(end, 0))
        && let Some(found) = by_end(scanner, &range, range.end - END, &end)?
    {
        return Ok(Some(found));
    }
    if reach == END {
        return Ok(None);
    }
    scanner.fill(&mut tail, base..range.end)?;
    for at in (0..tail.len().saturating_sub(END as usize)).rev() {
        let Some(end) = tail.get(at..at + END as usize) else { continue };
        let comment = tail.len() - at - END as usize;
        if is_end(end, comment)
            && let Some(found) = by_end(scanner, &range, base + at as u64, end)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Whether these bytes are an end record with at most so long a comment behind it.
fn is_end(end: &[u8], room: usize) -> bool {
    end.starts_with(b"PK\x05\x06") && le16(end, 20) <= room as u64
}

/// The central directory that the end record at `at` tells of, if it lies where it says.
fn by_end(scanner: &Scanner<'_, '_>, range: &Range<u64>, at: u64, end: &[u8]) -> Result<Option<Directory>> {
    let (mut size, mut offset, mut stop) = (le32(end, 12), le32(end, 16), at);
    // Zip64: a locator right before the end record, and the record that it locates before that.
    if let Some(locator_at) = at.checked_sub(20).filter(|locator_at| *locator_at >= range.start) {
        let locator = scanner.read::<20>(locator_at..at)?.unwrap_or([0; 20]);
        if locator.starts_with(b"PK\x06\x07") {
            let said = range.start.checked_add(le64(&locator, 8));
            let tried = [said, locator_at.checked_sub(56)];
            for record_at in tried.into_iter().flatten() {
                if record_at < range.start || record_at >= locator_at {
                    continue;
                }
                let record = scanner.read::<56>(record_at..locator_at)?.unwrap_or([0; 56]);
                if record.starts_with(b"PK\x06\x06") {
                    (size, offset, stop) = (le64(&record, 40), le64(&record, 48), record_at);
                    break;
                }
            }
        }
    }
    let Some(start) = stop.checked_sub(size).filter(|start| *start >= range.start) else { return Ok(None) };
    // What lies before the archive is not counted by some who made one.
    let Some(shift) = (start - range.start).checked_sub(offset) else { return Ok(None) };
    let first = scanner.read::<4>(start..stop)?;
    Ok((first == Some(*b"PK\x01\x02")).then_some(Directory { range: start..stop, shift }))
}

fn entries(scanner: &Scanner<'_, '_>, base: u64, directory: &Directory) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut at = directory.range.start;
    let mut variable = vec![0; 2 * 0xffff];
    while entries.len() < scanner.limits.parts as usize {
        let Some(header) = scanner.read::<46>(at..directory.range.end)? else { break };
        if !header.starts_with(b"PK\x01\x02") {
            break;
        }
        let (name_len, extra_len) = (le16(&header, 28), le16(&header, 30));
        let start = at;
        at += CENTRAL;
        let end = directory.range.end.min(at + name_len + extra_len);
        let length = scanner.fill(&mut variable, at..end)?;
        let bytes = variable.get(..length).unwrap_or_default();
        let Some((name, extra)) = bytes.split_at_checked(name_len as usize) else { break };
        at += name_len + extra_len + le16(&header, 32);
        let (mut coded, mut plain, mut offset) = (le32(&header, 20), le32(&header, 24), le32(&header, 42));
        zip64(extra, &mut [&mut plain, &mut coded, &mut offset]);
        let Some(local) = base.checked_add(directory.shift).and_then(|base| base.checked_add(offset)) else {
            continue;
        };
        entries.push(Entry {
            central: start..at.min(directory.range.end),
            local,
            coded,
            plain,
            method: le16(&header, 10) as u16,
            encrypted: header[8] & 1 != 0,
            name: printable(name).into(),
        });
    }
    Ok(entries)
}

/// Replaces the values that are all ones by those of the zip64 extra field, in their order.
fn zip64(mut extra: &[u8], values: &mut [&mut u64]) {
    while extra.len() >= 4 {
        let (id, length) = (le16(extra, 0), le16(extra, 2) as usize);
        let Some(mut field) = extra.get(4..4 + length) else { return };
        if id == 1 {
            for value in values.iter_mut().filter(|value| ***value == 0xffff_ffff) {
                let Some((bytes, rest)) = field.split_at_checked(8) else { return };
                **value = le64(bytes, 0);
                field = rest;
            }
            return;
        }
        extra = extra.get(4 + length..).unwrap_or_default();
    }
}
