//! Which leaf of the bases is most like a leaf of the target.

use std::collections::HashMap;
use std::ops::Range;

use super::medium::ReadAt;
use super::open::{Kind, Leaf};
use crate::digest::{Digest, Hasher};
use crate::error::Result;

/// Leaves below this many bytes are too short to tell what they resemble.
const SKETCHED: u64 = 1 << 10;

/// Features of a sketch: two blobs that share half of their chunks share about half of them.
const FEATURES: usize = 16;

/// So many leaves have a feature in common; more would tell nothing, and cost their square.
const COMMON: usize = 64;

/// The part of a leaf that a sketch is made of.
const SKETCH_BYTES: u64 = 1 << 20;

/// SHA-256 of a range.
pub(crate) fn digest(bytes: &dyn ReadAt, range: &Range<u64>) -> Result<Digest> {
    let mut hasher = Hasher::new();
    each_chunk(bytes, range, &mut |chunk| {
        hasher.update(chunk);
        Ok(())
    })?;
    Ok(hasher.finish())
}

/// Calls `take` with the bytes of a range, piece by piece.
pub(crate) fn each_chunk(
    bytes: &dyn ReadAt,
    range: &Range<u64>,
    take: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut at = range.start;
    let mut buffer = vec![0; 64 << 10];
    buffer.truncate(usize::try_from(range.end.saturating_sub(at)).unwrap_or(usize::MAX));
    while at < range.end {
        let length = (range.end - at).min(buffer.len() as u64) as usize;
        bytes.read_exact_at(&mut buffer[..length], at)?;
        take(&buffer[..length])?;
        at += length as u64;
    }
    Ok(())
}

/// A leaf and its digest.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) leaf: Leaf,
    pub(crate) digest: Digest,
}

impl Known {
    /// Looks at each of `leaves`.
    pub(crate) fn all(bytes: &dyn ReadAt, leaves: Vec<Leaf>) -> Result<Vec<Known>> {
        let known = |leaf: Leaf| Ok(Known { digest: digest(bytes, &leaf.range)?, leaf });
        leaves.into_iter().map(known).collect()
    }

    pub(crate) fn length(&self) -> u64 {
        self.leaf.range.end - self.leaf.range.start
    }
}

/// What was found for a leaf of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Partner {
    /// This leaf of the bases is the same.
    Same(usize),
    /// This leaf of the bases is the most similar one.
    Like(usize),
    /// There is nothing like it.
    None,
}

/// Finds a partner for each leaf: the same bytes, else the same name, else the same name but for
/// versions and hashes, else similar bytes.
pub(crate) fn pair(
    old: &[Known],
    old_bytes: &dyn ReadAt,
    new: &[Known],
    new_bytes: &dyn ReadAt,
) -> Result<Vec<Partner>> {
    let mut same: HashMap<Digest, Vec<usize>> = HashMap::new();
    let mut names = Names::default();
    for (index, known) in old.iter().enumerate() {
        same.entry(known.digest).or_default().push(index);
        names.add(index, known);
    }
    let mut partners = vec![Partner::None; new.len()];
    let mut taken = vec![false; old.len()];
    let mut cursor = 0;
    for (partner, known) in partners.iter_mut().zip(new) {
        let Some(choices) = same.get(&known.digest) else { continue };
        // Of equal ones the next in order: it costs nothing to say so.
        let at = choices.partition_point(|index| *index < cursor);
        let Some(index) = choices.get(at).or(choices.last()) else { continue };
        *partner = Partner::Same(*index);
        taken[*index] = true;
        cursor = index + 1;
    }
    for look in [Names::exact, Names::normal] {
        let mut cursor = 0;
        for (partner, known) in partners.iter_mut().zip(new) {
            match *partner {
                Partner::None => {
                    if let Some(index) = look(&names, known, cursor) {
                        *partner = Partner::Like(index);
                        taken[index] = true;
                        cursor = index + 1;
                    }
                }
                Partner::Same(index) | Partner::Like(index) => cursor = index + 1,
            }
        }
    }
    let lonely = |partner: &Partner, known: &Known| {
        *partner == Partner::None && known.leaf.kind == Kind::Content && known.length() >= SKETCHED
    };
    if partners.iter().zip(new).any(|(partner, known)| lonely(partner, known)) {
        let mut sketches: HashMap<u64, Vec<usize>> = HashMap::new();
        for (index, known) in old.iter().enumerate().filter(|(_, known)| known.length() >= SKETCHED) {
            // One that is still in use elsewhere may serve twice, but new names mostly replace old.
            if known.leaf.kind == Kind::Content && !taken[index] {
                for feature in sketch(old_bytes, &known.leaf.range)? {
                    let alike = sketches.entry(feature).or_default();
                    if alike.len() < COMMON {
                        alike.push(index);
                    }
                }
            }
        }
        for (partner, known) in partners.iter_mut().zip(new) {
            if lonely(partner, known) {
                let mut votes: HashMap<usize, usize> = HashMap::new();
                for feature in sketch(new_bytes, &known.leaf.range)? {
                    for index in sketches.get(&feature).into_iter().flatten() {
                        *votes.entry(*index).or_default() += 1;
                    }
                }
                let best = votes.into_iter().max_by_key(|(index, votes)| (*votes, usize::MAX - index));
                if let Some((index, _)) = best {
                    *partner = Partner::Like(index);
                }
            }
        }
    }
    Ok(partners)
}

/// Leaves of the bases by their names.
#[derive(Debug, Default)]
struct Names {
    exact: HashMap<(Kind, Box<str>), Vec<usize>>,
    normal: HashMap<(Kind, Box<str>), Vec<usize>>,
}

impl Names {
    fn add(&mut self, index: usize, known: &Known) {
        let kind = known.leaf.kind;
        self.exact.entry((kind, (*known.leaf.name).into())).or_default().push(index);
        self.normal.entry((kind, normal(&known.leaf.name).into())).or_default().push(index);
    }

    fn exact(&self, known: &Known, cursor: usize) -> Option<usize> {
        next(self.exact.get(&(known.leaf.kind, (*known.leaf.name).into()))?, cursor)
    }

    fn normal(&self, known: &Known, cursor: usize) -> Option<usize> {
        next(self.normal.get(&(known.leaf.kind, normal(&known.leaf.name).into()))?, cursor)
    }
}

/// The first of `choices` from `cursor` on, else the last one.
fn next(choices: &[usize], cursor: usize) -> Option<usize> {
    choices.get(choices.partition_point(|index| *index < cursor)).or(choices.last()).copied()
}

/// A name without what changes from release to release: digits are `0`, hashes are one `0`.
pub(crate) fn normal(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end.max(first.len_utf8()));
        let digits = word.bytes().filter(u8::is_ascii_digit).count();
        if word.len() >= 7 && digits > 0 && is_hex(word) {
            out.push('0');
        } else {
            let mut in_digits = false;
            for c in word.chars() {
                if c.is_ascii_digit() {
                    if !in_digits {
                        out.push('0');
                    }
                    in_digits = true;
                } else {
                    in_digits = false;
                    out.push(c);
                }
            }
        }
        rest = after;
    }
    // 1.0 and 1.0.1 are both versions.
    while let Some(at) = out.find("0.0") {
        out.replace_range(at..at + 3, "0");
    }
    out
}

fn is_hex(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The least hashes of the chunks of a leaf's beginning, cut where the content says so.
fn sketch(bytes: &dyn ReadAt, range: &Range<u64>) -> Result<Vec<u64>> {
    let range = range.start..range.end.min(range.start + SKETCH_BYTES);
    let mut least: Vec<u64> = Vec::with_capacity(FEATURES + 1);
    let (mut rolling, mut chunk, mut length) = (0_u64, 0xcbf2_9ce4_8422_2325_u64, 0);
    each_chunk(bytes, &range, &mut |piece| {
        for byte in piece {
            // Each byte is shifted out after 64 others.
            rolling = (rolling << 1).wrapping_add(mix(u64::from(*byte) + 1));
            chunk = (chunk ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            length += 1;
            // Chunks of a few bytes are everywhere.
            if rolling >> 57 == 0 && length >= 32 {
                let hash = mix(chunk);
                if let Err(at) = least.binary_search(&hash) {
                    least.insert(at, hash);
                    least.truncate(FEATURES);
                }
                (chunk, length) = (0xcbf2_9ce4_8422_2325, 0);
            }
        }
        Ok(())
    })?;
    Ok(least)
}

/// The finaliser of SplitMix64.
pub(crate) fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(name: &str, bytes: &mut Vec<u8>, content: &[u8]) -> Leaf {
        let start = bytes.len() as u64;
        bytes.extend_from_slice(content);
        Leaf { range: start..bytes.len() as u64, name: name.into(), kind: Kind::Content, stream: None }
    }

    fn text(seed: u64, length: usize) -> Vec<u8> {
        (0..length as u64).map(|i| (mix(seed + i / 3) >> 20) as u8).collect()
    }

    #[test]
    fn names_lose_their_versions() {
        for (name, expected) in [
            ("package/lib/a.js", "package/lib/a.js"),
            ("numpy-2.3.4.dist-info/RECORD", "numpy-0.dist-info/RECORD"),
            ("numpy-2.3.dist-info/RECORD", "numpy-0.dist-info/RECORD"),
            ("libopenblas64_-fdde5778.so", "libopenblas0_-0.so"),
            ("main-4f9a01bc22.js", "main-0.js"),
            ("", ""),
            ("é/1", "é/0"),
        ] {
            assert_eq!(normal(name), expected, "{name}");
        }
    }

    #[test]
    fn partners_are_found_by_bytes_then_name_then_likeness() {
        let (mut old_bytes, mut new_bytes) = (Vec::new(), Vec::new());
        let body = text(9, 40_000);
        let mut edited = body.clone();
        edited.splice(20_000..20_010, *b"inserted here, in the middle");
        let old = vec![
            leaf("a", &mut old_bytes, b"one"),
            leaf("b-1.0", &mut old_bytes, b"two"),
            leaf("c", &mut old_bytes, b"three"),
            leaf("was", &mut old_bytes, &body),
            leaf("other", &mut old_bytes, &text(1 << 30, 40_000)),
        ];
        let new = vec![
            leaf("z", &mut new_bytes, b"three"),
            leaf("a", &mut new_bytes, b"uno"),
            leaf("b-1.1", &mut new_bytes, b"due"),
            leaf("is", &mut new_bytes, &edited),
            leaf("new", &mut new_bytes, &text(1 << 40, 40_000)),
        ];
        let old = Known::all(&old_bytes, old).unwrap();
        let new = Known::all(&new_bytes, new).unwrap();
        let found = pair(&old, &old_bytes, &new, &new_bytes).unwrap();
        assert_eq!(
            found,
            [Partner::Same(2), Partner::Like(0), Partner::Like(1), Partner::Like(3), Partner::None]
        );
    }
}
