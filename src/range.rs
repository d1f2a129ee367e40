//! Byte ranges of a representation (RFC 9110 section 14).

use crate::error::{Error, Result};

/// A non-empty span of bytes: `start` is the first, `end` is one past the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ByteRange {
    start: u64,
    end: u64,
}

impl ByteRange {
    /// The bytes from `start` up to, not including, `end`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::error::ErrorKind::Invalid) if it would be empty.
    pub fn new(start: u64, end: u64) -> Result<ByteRange> {
        if start < end {
            Ok(ByteRange { start, end })
        } else {
            Err(Error::invalid(format!("the byte range {start}..{end} is empty")))
        }
    }

    /// The first byte's offset.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// One past the last byte's offset.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// How many bytes.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.end - self.start
    }
}

/// Most range specifiers of one `Range` field that are looked at.
pub const MAX_SPECIFIERS: usize = 64;
/// Most parts of one answer.
pub const MAX_PARTS: usize = 16;
/// Longest `Range` field, in bytes.
pub const MAX_FIELD: usize = 4096;

/// What a `Range` field means for a representation of a known size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ranges {
    /// Answer as if there were no `Range`.
    Ignore,
    /// 416: none of the ranges has a byte in it.
    Unsatisfiable,
    /// 206 with these parts: at least one, disjoint, not adjacent, in ascending order.
    Satisfiable(Vec<ByteRange>),
}

impl Ranges {
    /// Reads a `Range` field for a representation of `size` bytes.
    ///
    /// RFC 9110 section 14.2: a server that supports range requests MAY ignore a Range header
    /// field when the selected representation has no content, and MAY ignore or reject one that
    /// contains an invalid ranges-specifier, a ranges-specifier with more than two overlapping
    /// ranges, or a set of many small ranges. All of these are ignored here: a whole answer is
    /// always right. Ignored too are a field over [`MAX_FIELD`] bytes, more than
    /// [`MAX_SPECIFIERS`] specifiers, and what is still more than [`MAX_PARTS`] parts when
    /// overlapping and adjacent ranges have been joined.
    pub fn parse(field: &str, size: u64) -> Ranges {
        if size == 0 || field.len() > MAX_FIELD {
            return Ranges::Ignore;
        }
        // Section 14.1: range-unit names are case-insensitive.
        let Some((unit, set)) = field.split_once('=') else { return Ranges::Ignore };
        if !unit.eq_ignore_ascii_case("bytes") {
            return Ranges::Ignore;
        }
        let mut ranges = Vec::new();
        let mut specifiers = 0;
        for element in set.split(',') {
            let element = element.trim_matches([' ', '\t']);
            // Section 5.6.1.2: a recipient MUST parse and ignore a reasonable number of empty
            // list elements.
            if element.is_empty() {
                continue;
            }
            specifiers += 1;
            if specifiers > MAX_SPECIFIERS {
                return Ranges::Ignore;
            }
            match specifier(element, size) {
                Specifier::Malformed => return Ranges::Ignore,
                Specifier::Outside => {}
                Specifier::Inside(range) => ranges.push(range),
            }
        }
        if specifiers == 0 {
            return Ranges::Ignore;
        }
        if ranges.is_empty() {
            return Ranges::Unsatisfiable;
        }
        let parts = joined(ranges);
        if parts.len() > MAX_PARTS { Ranges::Ignore } else { Ranges::Satisfiable(parts) }
    }
}

enum Specifier {
    Malformed,
    Outside,
    Inside(ByteRange),
}

/// Section 14.1.1: int-range = first-pos "-" [ last-pos ]; suffix-range = "-" suffix-length.
fn specifier(text: &str, size: u64) -> Specifier {
    let Some((first, last)) = text.split_once('-') else { return Specifier::Malformed };
    let (start, end) = match (position(first), position(last)) {
        (Position::None, Position::At(length)) => (size.saturating_sub(length), size),
        (Position::At(first), Position::None) => (first, size),
        // An int-range is invalid if the last-pos value is present and less than first-pos.
        (Position::At(first), Position::At(last)) if first <= last => {
            (first, last.saturating_add(1).min(size))
        }
        _ => return Specifier::Malformed,
    };
    if start < end { Specifier::Inside(ByteRange { start, end }) } else { Specifier::Outside }
}

enum Position {
    None,
    At(u64),
    Malformed,
}

/// 1*DIGIT; a number too large for 64 bits lies behind the end of everything.
fn position(digits: &str) -> Position {
    if digits.is_empty() {
        Position::None
    } else if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        Position::At(digits.parse().unwrap_or(u64::MAX))
    } else {
        Position::Malformed
    }
}

/// Section 15.3.7.2: a server MAY coalesce any of the ranges that overlap or are adjacent.
fn joined(mut ranges: Vec<ByteRange>) -> Vec<ByteRange> {
    ranges.sort_unstable();
    let mut parts: Vec<ByteRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match parts.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => parts.push(range),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZE: u64 = 1_048_576;

    fn parts(field: &str, size: u64) -> Option<Vec<(u64, u64)>> {
        match Ranges::parse(field, size) {
            Ranges::Satisfiable(parts) => Some(parts.iter().map(|part| (part.start, part.end)).collect()),
            _ => None,
        }
    }

    #[test]
    fn malformed_fields_are_ignored() {
        for bad in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=5-2",
            "bytes=0x10-0x20",
            "lines=0-5",
            "bytes= 0 - 5",
            "bytes=+1-5",
            "bytes=1-+5",
            "bytes=a-b",
            "bytes=1",
            "bytes=--1",
            "bytes=1--2",
            "bytes=0-5,x",
            "bytes 0-5",
            "bytes=0-5;6-7",
            " bytes=0-5",
            "bytes =0-5",
            "bytes=1-2-3",
            "bytes=\u{661}-5",
        ] {
            assert_eq!(Ranges::parse(bad, SIZE), Ranges::Ignore, "{bad:?}");
        }
    }

    #[test]
    fn numbers_beyond_everything_are_clipped() {
        for whole in [
            "bytes=0-",
            "bytes=0-18446744073709551615",
            "bytes=-18446744073709551615",
            "bytes=0-99999999999999999999999999",
            "bytes=-99999999999999999999999999",
            "BYTES=0-",
        ] {
            assert_eq!(parts(whole, SIZE), Some(vec![(0, SIZE)]), "{whole}");
        }
        for outside in ["bytes=1048576-", "bytes=-0", "bytes=18446744073709551616-", "bytes=1048576-,-0"] {
            assert_eq!(Ranges::parse(outside, SIZE), Ranges::Unsatisfiable, "{outside}");
        }
        assert_eq!(parts("bytes=1048575-", SIZE), Some(vec![(SIZE - 1, SIZE)]));
        assert_eq!(parts("bytes=0-0,-1", u64::MAX), Some(vec![(0, 1), (u64::MAX - 1, u64::MAX)]));
    }

    #[test]
    fn many_ranges_are_joined_or_ignored() {
        assert_eq!(parts("bytes=0-999999,1-999999,2-999999", SIZE), Some(vec![(0, 1_000_000)]));
        assert_eq!(parts("bytes=0-4,5-9", SIZE), Some(vec![(0, 10)]));
        assert_eq!(parts("bytes=20-29, 0-4", SIZE), Some(vec![(0, 5), (20, 30)]));
        assert_eq!(parts("bytes=0-4,9999999-", SIZE), Some(vec![(0, 5)]));
        let many = |count: u64| {
            let list: Vec<_> = (0..count).map(|i| format!("{}-{}", i * 10, i * 10)).collect();
            format!("bytes={}", list.join(","))
        };
        assert_eq!(parts(&many(16), SIZE).map(|parts| parts.len()), Some(16));
        assert_eq!(Ranges::parse(&many(17), SIZE), Ranges::Ignore);
        assert_eq!(Ranges::parse(&format!("bytes={}", "0-,".repeat(1300)), SIZE), Ranges::Ignore);
        assert_eq!(Ranges::parse(&format!("bytes={}", "0-,".repeat(65)), SIZE), Ranges::Ignore);
    }

    #[test]
    fn an_empty_representation_is_served_whole() {
        for field in ["bytes=0-", "bytes=-1", "bytes=5-9"] {
            assert_eq!(Ranges::parse(field, 0), Ranges::Ignore, "{field}");
        }
    }

    fn spec() -> impl Strategy<Value = String> {
        prop_oneof![
            (0u64..80, 0u64..80).prop_map(|(a, b)| format!("{a}-{b}")),
            (0u64..80).prop_map(|a| format!("{a}-")),
            (0u64..80).prop_map(|a| format!("-{a}")),
        ]
    }

    proptest! {
        #[test]
        fn agrees_with_a_map_of_bytes(size in 1u64..64, specs in prop::collection::vec(spec(), 1..12)) {
            let mut wanted = vec![false; size as usize];
            let mut malformed = false;
            for spec in &specs {
                let (a, b) = spec.split_once('-').unwrap();
                let (first, last) = match (a.parse::<u64>(), b.parse::<u64>()) {
                    (Ok(a), Ok(b)) if a > b => { malformed = true; continue }
                    (Ok(a), Ok(b)) => (a, b + 1),
                    (Ok(a), Err(_)) => (a, size),
                    (Err(_), Ok(n)) => (size.saturating_sub(n), size),
                    _ => unreachable!(),
                };
                for at in first..last.min(size) {
                    wanted[at as usize] = true;
                }
            }
            let field = format!("bytes={}", specs.join(","));
            match Ranges::parse(&field, size) {
                Ranges::Ignore => prop_assert!(malformed),
                Ranges::Unsatisfiable => prop_assert!(!malformed && wanted.iter().all(|byte| !byte)),
                Ranges::Satisfiable(parts) => {
                    prop_assert!(!malformed);
                    let mut given = vec![false; size as usize];
                    let mut free = 0;
                    for (i, part) in parts.iter().enumerate() {
                        prop_assert!(part.start < part.end && part.end <= size);
                        prop_assert!(i == 0 || part.start > free);
                        free = part.end;
                        for at in part.start..part.end {
                            given[at as usize] = true;
                        }
                    }
                    prop_assert_eq!(given, wanted);
                }
            }
        }

        #[test]
        fn any_text_gives_a_bounded_answer(field in "(bytes=)?[-0-9, a]{0,64}", size in 0u64..200) {
            if let Ranges::Satisfiable(parts) = Ranges::parse(&field, size) {
                let total: u64 = parts.iter().map(ByteRange::len).sum();
                prop_assert!(total <= size && parts.len() <= MAX_PARTS);
            }
        }
    }
}
