//! Finds which bytes of a new file are like which of an old one.

use super::map::Equivalence;

/// Shortest exact match that is looked at.
const SEED: usize = 12;
/// What a match far away must be worth to pay for its entry in the control stream.
const FAR: i32 = 36;
/// The same for a small shift of what came before.
const NEAR: i32 = 12;
const SHIFT: i64 = 96;
const NEAR_SPAN: usize = 512;
/// An extension ends when it has lost this much.
const PATIENCE: i32 = 24;
const CANDIDATES: usize = 8;

/// The sorted suffixes of a text.
#[derive(Debug)]
pub(super) struct Index<'a> {
    text: &'a [u8],
    order: Vec<i32>,
    heads: Vec<u32>,
    /// Which grams of `SEED` bytes occur, as hashes: most searches end here.
    grams: Vec<u64>,
}

/// A hash of `SEED` bytes.
#[inline]
fn gram(bytes: &[u8]) -> Option<u64> {
    let (head, rest) = bytes.split_first_chunk::<8>()?;
    let tail = rest.first_chunk::<4>()?;
    let hash = u64::from_le_bytes(*head).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ u64::from(u32::from_le_bytes(*tail)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    Some((hash ^ hash >> 29).wrapping_mul(0x94d0_49bb_1331_11eb))
}

impl<'a> Index<'a> {
    pub(super) fn new(text: &'a [u8]) -> Index<'a> {
        let mut order = vec![0i32; text.len()];
        divsufsort::sort_in_place(text, &mut order);
        // heads[pair] = how many suffixes sort before every suffix that starts with this pair.
        let mut heads = vec![0u32; 65537];
        for pair in text.windows(2) {
            heads[usize::from(pair[0]) << 8 | usize::from(pair[1])] += 1;
        }
        if let Some(&last) = text.last() {
            heads[usize::from(last) << 8] += 1;
        }
        let mut sum = 0;
        for head in &mut heads {
            let count = *head;
            *head = sum;
            sum += count;
        }
        let mut grams = vec![0u64; (text.len() / 8).next_power_of_two().clamp(1 << 10, 1 << 22)];
        let mask = grams.len() - 1;
        for at in 0..text.len() {
            let Some(hash) = gram(&text[at..]) else { break };
            grams[(hash >> 8) as usize & mask] |= 1 << (hash & 63);
        }
        Index { text, order, heads, grams }
    }

    /// A position in the order next to the longest match of `wanted`, and that match's length.
    fn longest(&self, wanted: &[u8]) -> (usize, usize) {
        let Some(hash) = gram(wanted) else { return (0, 0) };
        if self.grams[(hash >> 8) as usize & (self.grams.len() - 1)] >> (hash & 63) & 1 == 0 {
            return (0, 0);
        }
        let pair = usize::from(wanted[0]) << 8 | usize::from(wanted[1]);
        let (mut low, mut high) = (self.heads[pair] as usize, self.heads[pair + 1] as usize);
        if low == high {
            return (0, 0);
        }
        let (mut low_common, mut high_common) = (0, 0);
        let mut best = (low, 0);
        while low < high {
            let middle = low + (high - low) / 2;
            let suffix = &self.text[self.order[middle] as usize..];
            let skip = low_common.min(high_common);
            let same = skip + common(&suffix[skip.min(suffix.len())..], &wanted[skip..]);
            if same > best.1 {
                best = (middle, same);
            }
            if same == wanted.len() {
                break;
            }
            if same == suffix.len() || suffix[same] < wanted[same] {
                low = middle + 1;
                low_common = same;
            } else {
                high = middle;
                high_common = same;
            }
        }
        best
    }
}

/// How many bytes two texts have in common from their start.
#[inline]
pub(super) fn common(a: &[u8], b: &[u8]) -> usize {
    let length = a.len().min(b.len());
    let (a, b) = (&a[..length], &b[..length]);
    let mut at = 0;
    for (x, y) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        let x = u64::from_le_bytes([x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7]]);
        let y = u64::from_le_bytes([y[0], y[1], y[2], y[3], y[4], y[5], y[6], y[7]]);
        if x != y {
            return at + (x ^ y).trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while at < length && a[at] == b[at] {
        at += 1;
    }
    at
}

/// How far two texts stay alike: length and score. Equal bytes earn one, others cost one and a bit.
fn forward(a: &[u8], b: &[u8], limit: usize) -> (usize, i32) {
    let length = a.len().min(b.len()).min(limit);
    let (mut score, mut best, mut at) = (0i32, (0usize, 0i32), 0usize);
    let mut missed = 0;
    while at < length {
        let same = common(&a[at..length], &b[at..length]);
        if same > 0 {
            missed = 0;
            at += same;
            score += same as i32;
            if score > best.1 {
                best = (at, score);
            }
        }
        if at < length {
            // A changed field costs less per byte than scattered changes.
            score -= if missed == 0 { 3 } else { 1 };
            missed += 1;
            at += 1;
            if score < best.1 - PATIENCE {
                break;
            }
        }
    }
    best
}

fn backward(a: &[u8], b: &[u8], limit: usize) -> (usize, i32) {
    let length = a.len().min(b.len()).min(limit);
    let (mut score, mut best) = (0i32, (0usize, 0i32));
    let mut missed = 0;
    for back in 1..=length {
        if a[a.len() - back] == b[b.len() - back] {
            missed = 0;
            score += 1;
            if score > best.1 {
                best = (back, score);
            }
        } else {
            score -= if missed == 0 { 3 } else { 1 };
            missed += 1;
            if score < best.1 - PATIENCE {
                break;
            }
        }
    }
    best
}

/// Equivalences by new offset, not overlapping in the new file.
pub(super) fn align(old: &[u8], new: &[u8]) -> Vec<Equivalence> {
    let mut found: Vec<Equivalence> = Vec::new();
    if old.len() < 2 {
        return found;
    }
    let index = Index::new(old);
    let mut at = 0usize;
    let (mut rejected, mut reach) = (i64::MIN, 0usize);
    while at + 4 <= new.len() {
        let last = found.last().copied().unwrap_or_default();
        let end = (last.new + last.length) as usize;
        let diagonal = i64::from(last.old) - i64::from(last.new);
        let mut best: Option<(i32, usize, i32)> = None; // gain, old, score
        let mut offer = |place: usize, cost: i32, limit: usize| {
            let (_, score) = forward(&old[place..], &new[at..], limit);
            let (_, behind) = backward(&old[..place], &new[..at], (at - end).min(64));
            let gain = score + behind - cost;
            if best.is_none_or(|best| gain > best.0) {
                best = Some((gain, place, score));
            }
        };
        if at - end < NEAR_SPAN && !found.is_empty() {
            let here = &new[at..at + 4];
            for shift in -SHIFT..=SHIFT {
                let place = at as i64 + diagonal + shift;
                if place >= 0
                    && let Some(there) = old.get(place as usize..place as usize + 4)
                    && there == here
                {
                    offer(place as usize, NEAR, 512);
                }
            }
        }
        let (position, length) = index.longest(&new[at..]);
        let again = index.order.get(position).is_some_and(|&place| i64::from(place) - at as i64 == rejected);
        if length >= SEED && !(again && length < reach) {
            let shortest = length - length / 4;
            let wanted = &new[at..at + shortest];
            let mut try_at = |place: usize| {
                let near = (place as i64 - at as i64 - diagonal).abs();
                let cost = if near <= SHIFT {
                    NEAR
                } else if near < 4096 {
                    FAR - 4
                } else {
                    FAR
                };
                offer(place, cost, 512);
            };
            let fits = |place: &&i32| common(&old[**place as usize..], wanted) == shortest;
            for place in index.order[position..].iter().take(CANDIDATES).take_while(fits) {
                try_at(*place as usize);
            }
            for place in index.order[..position].iter().rev().take(CANDIDATES).take_while(fits) {
                try_at(*place as usize);
            }
        }
        match best {
            Some((gain, place, _)) if gain > 0 => {
                let (length, _) = forward(&old[place..], &new[at..], usize::MAX);
                let (behind, _) = backward(&old[..place], &new[..at], at - end);
                let mut next = Equivalence {
                    new: (at - behind) as u32,
                    old: (place - behind) as u32,
                    length: (length + behind) as u32,
                };
                at += length.max(1);
                if behind == (place - (place - behind)) && next.new as usize == end {
                    overlap(old, new, &mut found, &mut next);
                }
                push(&mut found, next);
            }
            _ => {
                rejected = index.order.get(position).map_or(i64::MIN, |&place| i64::from(place) - at as i64);
                reach = length;
                at += 1;
            }
        }
    }
    found
}

fn push(found: &mut Vec<Equivalence>, next: Equivalence) {
    if let Some(last) = found.last_mut()
        && last.new + last.length == next.new
        && last.old + last.length == next.old
    {
        last.length += next.length;
        return;
    }
    if next.length > 0 {
        found.push(next);
    }
}

/// Moves the border between the last equivalence and the next one to where it fits best.
fn overlap(old: &[u8], new: &[u8], found: &mut Vec<Equivalence>, next: &mut Equivalence) {
    while let Some(last) = found.last_mut() {
        let room = (last.length as usize).min(next.old as usize).min(4096);
        let (mut score, mut best) = (0i32, (0usize, 0i32));
        for back in 1..=room {
            let byte = new[next.new as usize - back];
            let ours = i32::from(byte == old[next.old as usize - back]);
            let theirs = i32::from(byte == old[(last.old + last.length) as usize - back]);
            score += ours - theirs;
            if score > best.1 {
                best = (back, score);
            }
            if score < best.1 - PATIENCE {
                break;
            }
        }
        let cut = best.0 as u32;
        next.new -= cut;
        next.old -= cut;
        next.length += cut;
        last.length -= cut;
        if last.length > 0 {
            return;
        }
        found.pop();
    }
}
