//! Where the addresses of the old image are in the new one.

use std::collections::BTreeMap;

use super::site::{Kind, Layout, Segment, Site, Sites};

/// Bytes of the new file that are like bytes of the old one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Equivalence {
    pub(super) new: u32,
    pub(super) old: u32,
    pub(super) length: u32,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    from: u32,
    to: u32,
    length: u32,
}

const PAGE: u32 = 9;
const FILTER: usize = 1 << 16;

/// A map of addresses, from equivalences and from what the references already seen have taught.
#[derive(Debug)]
pub(super) struct Map {
    /// By `from`, not overlapping.
    pieces: Vec<Piece>,
    /// For each page of old addresses the number of pieces that start before it.
    pages: Vec<u32>,
    learned: BTreeMap<u32, u32>,
    filter: Vec<u64>,
}

impl Map {
    pub(super) fn new(old: &Layout, new: &Layout, equivalences: &[Equivalence]) -> Map {
        let mut pieces = Vec::with_capacity(equivalences.len());
        for equivalence in equivalences {
            split(old, new, equivalence, &mut pieces);
        }
        pieces.sort_unstable_by_key(|piece| (piece.from, u32::MAX - piece.length));
        let mut kept: Vec<Piece> = Vec::with_capacity(pieces.len());
        for mut piece in pieces {
            while let Some(last) = kept.last_mut() {
                let end = last.from + last.length;
                if piece.from >= end {
                    break;
                }
                if piece.length > last.length {
                    // What was cut before may begin later than this one.
                    last.length = piece.from.saturating_sub(last.from);
                    if last.length == 0 {
                        kept.pop();
                        continue;
                    }
                } else {
                    let cut = (end - piece.from).min(piece.length);
                    piece.from += cut;
                    piece.to = piece.to.wrapping_add(cut);
                    piece.length -= cut;
                }
                break;
            }
            if piece.length > 0 {
                kept.push(piece);
            }
        }
        let last = kept.last().map_or(0, |piece| piece.from >> PAGE);
        let mut pages = Vec::with_capacity(last as usize + 2);
        let mut index = 0;
        for page in 0..=last {
            while index < kept.len() && kept[index].from < page << PAGE {
                index += 1;
            }
            pages.push(index as u32);
        }
        Map { pieces: kept, pages, learned: BTreeMap::new(), filter: vec![0; FILTER / 64] }
    }

    /// The likely new address of what was at `target`.
    #[inline]
    pub(super) fn project(&self, target: u32) -> u32 {
        let bit = filter_bit(target);
        if self.filter[bit / 64] >> (bit % 64) & 1 != 0
            && let Some(&known) = self.learned.get(&target)
        {
            return known;
        }
        let page = (target >> PAGE) as usize;
        let mut index = self.pages.get(page).or(self.pages.last()).map_or(0, |&index| index as usize);
        while index < self.pieces.len() && self.pieces[index].from <= target {
            index += 1;
        }
        let before = index.checked_sub(1).map(|index| self.pieces[index]);
        if let Some(piece) = before
            && target - piece.from < piece.length
        {
            return piece.to.wrapping_add(target - piece.from);
        }
        self.nearest(target, before, self.pieces.get(index).copied())
    }

    /// Between pieces: the one whose edge is nearest, or a learned neighbour that is nearer.
    #[cold]
    fn nearest(&self, target: u32, before: Option<Piece>, after: Option<Piece>) -> u32 {
        let mut best = (u32::MAX, 0u32);
        let mut offer = |distance: u32, shift: u32| {
            if distance < best.0 {
                best = (distance, shift);
            }
        };
        if let Some(piece) = before {
            offer(target - (piece.from + piece.length) + 1, piece.to.wrapping_sub(piece.from));
        }
        if let Some(piece) = after {
            offer((piece.from - target).saturating_mul(2), piece.to.wrapping_sub(piece.from));
        }
        if let Some((from, to)) = self.learned.range(..target).next_back() {
            offer(target - from, to.wrapping_sub(*from));
        }
        target.wrapping_add(best.1)
    }

    /// Remembers that `target` went to `new`.
    pub(super) fn learn(&mut self, target: u32, new: u32) {
        let bit = filter_bit(target);
        self.filter[bit / 64] |= 1 << (bit % 64);
        self.learned.insert(target, new);
    }
}

#[inline]
fn filter_bit(target: u32) -> usize {
    (target.wrapping_mul(0x9e37_79b1) >> 16) as usize % FILTER
}

/// An equivalence of file ranges as one of addresses; parts that are not in memory are left out.
fn split(old: &Layout, new: &Layout, equivalence: &Equivalence, pieces: &mut Vec<Piece>) {
    let end = equivalence.old.saturating_add(equivalence.length);
    let overlap = |segment: &Segment, from: u32, to: u32| {
        let start = from.max(segment.offset);
        let stop = to.min(segment.offset.saturating_add(segment.length));
        (start < stop).then_some((start, stop))
    };
    for from in &old.segments {
        let Some((start, stop)) = overlap(from, equivalence.old, end) else { continue };
        let shifted = equivalence.new + (start - equivalence.old);
        for to in &new.segments {
            let Some((first, last)) = overlap(to, shifted, shifted.saturating_add(stop - start)) else {
                continue;
            };
            pieces.push(Piece {
                from: from.address.wrapping_add(start - from.offset + (first - shifted)),
                to: to.address.wrapping_add(first - to.offset),
                length: last - first,
            });
        }
    }
    // Addresses near the end of 32 bits would overflow in `project`.
    pieces.retain(|piece| piece.from.checked_add(piece.length).is_some());
}

/// Turns an old site into the bytes that the new file has if everything was only moved.
#[derive(Debug)]
pub(super) struct Projector<'a> {
    pub(super) old: &'a Sites,
    pub(super) new: &'a Layout,
    pub(super) map: Map,
}

impl Projector<'_> {
    /// What the field says at `place` of the new file, and how to read it: the address it counts from.
    #[inline]
    pub(super) fn predict(&self, site: Site, place: u32) -> Option<(u64, u32)> {
        let target = self.map.project(site.target);
        let origin = self.origin(site, place)?;
        Some((value(site.kind(), target, origin, self.new.base), origin))
    }

    #[inline]
    fn origin(&self, site: Site, place: u32) -> Option<u32> {
        match site.kind() {
            Kind::Absolute => Some(0),
            Kind::Code(tail) => Some(self.new.address(place)?.wrapping_add(4 + u32::from(tail))),
            Kind::Forward | Kind::Backward => self.new.address(place),
            Kind::Table => {
                let start = self.old.table(site.at())?;
                Some(self.map.project(self.old.layout.address(start)?))
            }
        }
    }

    /// Learns from the field's real value.
    #[inline]
    pub(super) fn learn(&mut self, site: Site, origin: u32, real: u64) {
        let target = match site.kind() {
            Kind::Absolute => {
                let Some(target) = self.new.relative(real) else { return };
                target
            }
            Kind::Backward => origin.wrapping_sub(real as u32),
            _ => origin.wrapping_add(real as u32),
        };
        if self.new.holds(target) {
            self.map.learn(site.target, target);
        }
    }
}

#[inline]
fn value(kind: Kind, target: u32, origin: u32, base: u64) -> u64 {
    match kind {
        Kind::Absolute => base.wrapping_add(u64::from(target)),
        Kind::Backward => u64::from(origin.wrapping_sub(target)),
        _ => u64::from(target.wrapping_sub(origin)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_that_were_cut_give_way_to_longer_ones() {
        let segment = Segment { offset: 0, address: 0, length: 1000, memory: 1000 };
        let layout = Layout::new(0, vec![segment], Vec::new()).unwrap();
        // The second begins behind the first when it is cut, and behind the third.
        let list = [(0, 0, 10), (10, 2, 10), (20, 3, 20)];
        let list = list.map(|(new, old, length)| Equivalence { new, old, length });
        let map = Map::new(&layout, &layout, &list);
        assert_eq!([2, 3, 22].map(|target| map.project(target)), [2, 20, 39]);
    }
}
