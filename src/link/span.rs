//! Sets of bytes of an artifact.

use serde::{Deserialize, Deserializer, Serialize};

use crate::range::ByteRange;

/// A set of byte offsets, as ascending spans that do not touch. Each is written as its first
/// offset and one past its last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Spans(Vec<(u64, u64)>);

impl Spans {
    /// No byte.
    pub fn new() -> Spans {
        Spans::default()
    }

    /// The bytes from `start` up to, not including, `end`.
    pub fn of(start: u64, end: u64) -> Spans {
        Spans(if start < end { vec![(start, end)] } else { Vec::new() })
    }

    /// How many bytes.
    pub fn len(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many spans.
    pub fn pieces(&self) -> usize {
        self.0.len()
    }

    /// The spans: first offset, and one past the last.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().copied()
    }

    /// Adds the bytes from `start` up to, not including, `end`.
    pub fn insert(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        // What ends before `start` stays before it; what begins after `end` stays after it.
        let first = self.0.partition_point(|span| span.1 < start);
        let last = self.0.partition_point(|span| span.0 <= end);
        let (mut low, mut high) = (start, end);
        if first < last {
            (low, high) = (low.min(self.0[first].0), high.max(self.0[last - 1].1));
        }
        self.0.splice(first..last, [(low, high)]);
    }

    /// The bytes of either.
    #[must_use]
    pub fn union(&self, other: &Spans) -> Spans {
        let (mut large, small) =
            if self.0.len() >= other.0.len() { (self.clone(), other) } else { (other.clone(), self) };
        small.iter().for_each(|(start, end)| large.insert(start, end));
        large
    }

    /// The bytes of both.
    #[must_use]
    pub fn intersection(&self, other: &Spans) -> Spans {
        let (mut common, mut a, mut b) = (Vec::new(), 0, 0);
        while let (Some(one), Some(two)) = (self.0.get(a), other.0.get(b)) {
            let (start, end) = (one.0.max(two.0), one.1.min(two.1));
            if start < end {
                common.push((start, end));
            }
            if one.1 <= two.1 { a += 1 } else { b += 1 }
        }
        Spans(common)
    }

    /// The bytes of this one that are not of `other`.
    #[must_use]
    pub fn difference(&self, other: &Spans) -> Spans {
        let mut left = Vec::new();
        let mut cuts = other.0.iter().peekable();
        for (mut start, end) in self.iter() {
            while let Some((low, high)) = cuts.peek() {
                if *high <= start {
                    cuts.next();
                } else if *low >= end {
                    break;
                } else {
                    if *low > start {
                        left.push((start, *low));
                    }
                    start = (*high).min(end);
                    if *high >= end {
                        break;
                    }
                }
            }
            if start < end {
                left.push((start, end));
            }
        }
        Spans(left)
    }
}

impl<'a> FromIterator<&'a ByteRange> for Spans {
    fn from_iter<I: IntoIterator<Item = &'a ByteRange>>(ranges: I) -> Spans {
        let mut spans = Spans::new();
        ranges.into_iter().for_each(|range| spans.insert(range.start(), range.end()));
        spans
    }
}

impl<'de> Deserialize<'de> for Spans {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Spans, D::Error> {
        let mut spans = Spans::new();
        for (start, end) in Vec::<(u64, u64)>::deserialize(deserializer)? {
            spans.insert(start, end);
        }
        Ok(spans)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bits(spans: &Spans) -> u64 {
        assert!(spans.0.windows(2).all(|pair| pair[0].1 < pair[1].0), "{spans:?}");
        spans.iter().flat_map(|(start, end)| start..end).fold(0, |bits, at| bits | 1 << at)
    }

    proptest! {
        #[test]
        fn spans_are_sets(
            a in proptest::collection::vec((0_u64..60, 0_u64..60), 0..8),
            b in proptest::collection::vec((0_u64..60, 0_u64..60), 0..8),
        ) {
            let make = |list: &[(u64, u64)]| {
                let mut spans = Spans::new();
                list.iter().for_each(|(start, end)| spans.insert(*start, *end));
                spans
            };
            let plain = |list: &[(u64, u64)]| {
                list.iter().flat_map(|(start, end)| *start..*end).fold(0_u64, |bits, at| bits | 1 << at)
            };
            let (x, y) = (make(&a), make(&b));
            prop_assert_eq!(bits(&x), plain(&a));
            prop_assert_eq!(x.len(), u64::from(plain(&a).count_ones()));
            prop_assert_eq!(bits(&x.union(&y)), plain(&a) | plain(&b));
            prop_assert_eq!(bits(&x.intersection(&y)), plain(&a) & plain(&b));
            prop_assert_eq!(bits(&x.difference(&y)), plain(&a) & !plain(&b));
        }
    }
}
