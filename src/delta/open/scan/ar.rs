//! ar archives: .deb packages and static libraries, with the names of GNU and BSD.

use super::{Frame, Scanner, printable};
use crate::error::Result;

const MAGIC: &[u8] = b"!<arch>\n";

pub(super) fn is(head: &[u8]) -> bool {
    head.starts_with(MAGIC)
}

pub(super) fn scan(scanner: &mut Scanner<'_, '_>, frame: &mut Frame) -> Result<()> {
    let end = frame.range.end;
    let mut at = frame.range.start + MAGIC.len() as u64;
    while let Some(header) = scanner.read::<60>(at..end)? {
        let (name, rest) = header.split_at(16);
        let Some(size) = decimal(rest.get(32..42).unwrap_or_default()) else { break };
        let start = at + 60;
        if !rest.ends_with(b"`\n") || size > end - start {
            break;
        }
        let stop = start + size;
        let name = name.trim_ascii_end();
        // BSD keeps a long name at the beginning of the member.
        let inner = name.strip_prefix(b"#1/").and_then(decimal).filter(|length| *length <= size.min(1024));
        match inner {
            Some(length) => {
                let mut long = vec![0; usize::try_from(length).unwrap_or(0)];
                scanner.fill(&mut long, start..stop)?;
                scanner.member(frame, start + length..stop, &printable(long.trim_ascii_end()))?;
            }
            None => {
                let short = name.strip_suffix(b"/").unwrap_or(name);
                scanner.member(frame, start..stop, &printable(short))?;
            }
        }
        at = stop + size % 2;
        if at >= end {
            break;
        }
    }
    Ok(())
}

fn decimal(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text.trim_ascii()).ok()?.parse().ok()
}
