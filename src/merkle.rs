//! Merkle trees over a list that only grows (RFC 6962 section 2.1, SHA-256).
//!
//! Everything here is pure. A tree is a [`Frontier`] while it grows; proofs are made from the hashes
//! of complete subtrees, wherever those are kept, and checked without a tree.

use sha2::{Digest as _, Sha256};

/// The hash of a leaf or of a subtree.
pub type Hash = [u8; 32];

/// `MTH({}) = SHA-256()`.
pub fn empty() -> Hash {
    Sha256::digest(b"").into()
}

/// `MTH({d}) = SHA-256(0x00 || d)`.
pub fn leaf(data: &[u8]) -> Hash {
    leaf_of(&[data])
}

/// The hash of the leaf whose data are these parts, one after the other.
pub fn leaf_of(parts: &[&[u8]]) -> Hash {
    let mut hasher = Sha256::new_with_prefix([0]);
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().into()
}

/// `SHA-256(0x01 || left || right)`.
pub fn node(left: &Hash, right: &Hash) -> Hash {
    let mut joined = [1; 65];
    joined[1..33].copy_from_slice(left);
    joined[33..].copy_from_slice(right);
    Sha256::digest(joined).into()
}

/// The root of a complete subtree over these hashes of one level; their number is a power of two.
pub fn complete(hashes: &[Hash]) -> Hash {
    match hashes {
        [] => empty(),
        [one] => *one,
        _ => {
            let (left, right) = hashes.split_at(hashes.len() / 2);
            node(&complete(left), &complete(right))
        }
    }
}

/// What is needed of a tree to let it grow: the roots of its complete subtrees, largest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    nodes: Vec<Hash>,
}

impl Frontier {
    /// The tree without leaves.
    pub fn new() -> Frontier {
        Frontier::default()
    }

    /// The tree of `size` leaves, from the hashes of its complete subtrees: `subtree(level, index)`
    /// is the one over the leaves from `index << level` to `(index + 1) << level`.
    pub fn from_subtrees<E>(
        size: u64,
        mut subtree: impl FnMut(u32, u64) -> Result<Hash, E>,
    ) -> Result<Frontier, E> {
        let mut nodes = Vec::new();
        let mut start = 0;
        for level in (0..u64::BITS).rev().filter(|level| size >> level & 1 == 1) {
            nodes.push(subtree(level, start >> level)?);
            start += 1 << level;
        }
        Ok(Frontier { size, nodes })
    }

    /// How many leaves there are.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf. `formed` is told every subtree that becomes complete by it, the leaf itself
    /// first: its level and its hash.
    pub fn push(&mut self, leaf: Hash, mut formed: impl FnMut(u32, &Hash)) {
        let mut hash = leaf;
        formed(0, &hash);
        for level in 1..=self.size.trailing_ones() {
            // As many complete subtrees as the size has ones stand in `nodes`.
            let left = self.nodes.pop().unwrap_or_default();
            hash = node(&left, &hash);
            formed(level, &hash);
        }
        self.nodes.push(hash);
        self.size += 1;
    }

    /// The root of the whole tree.
    pub fn root(&self) -> Hash {
        let mut nodes = self.nodes.iter().rev();
        let Some(last) = nodes.next() else { return empty() };
        nodes.fold(*last, |right, left| node(left, &right))
    }
}

/// The largest power of two below `n`, which is at least 2.
fn split(n: u64) -> u64 {
    1 << (u64::BITS - 1 - (n - 1).leading_zeros())
}

/// `MTH(D[start:end])` of a part that a proof may name: `start` is a multiple of the power of two at
/// or above `end - start`.
fn part<E>(start: u64, end: u64, subtree: &mut impl FnMut(u32, u64) -> Result<Hash, E>) -> Result<Hash, E> {
    let length = end - start;
    if length.is_power_of_two() {
        return subtree(length.trailing_zeros(), start >> length.trailing_zeros());
    }
    let middle = start + split(length);
    let left = part(start, middle, subtree)?;
    Ok(node(&left, &part(middle, end, subtree)?))
}

/// The root of the tree of `size` leaves.
pub fn root<E>(size: u64, mut subtree: impl FnMut(u32, u64) -> Result<Hash, E>) -> Result<Hash, E> {
    if size == 0 { Ok(empty()) } else { part(0, size, &mut subtree) }
}

/// `PATH(index, D[size])` (RFC 6962 section 2.1.1), for `index < size`.
pub fn inclusion<E>(
    index: u64,
    size: u64,
    mut subtree: impl FnMut(u32, u64) -> Result<Hash, E>,
) -> Result<Vec<Hash>, E> {
    let (mut start, mut end) = (0, size);
    let mut path = Vec::new();
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            path.push(part(middle, end, &mut subtree)?);
            end = middle;
        } else {
            path.push(part(start, middle, &mut subtree)?);
            start = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// `PROOF(from, D[to])` (RFC 6962 section 2.1.2), for `from <= to`. It is empty for `from` 0 and for
/// `from` equal to `to`.
pub fn consistency<E>(
    from: u64,
    to: u64,
    mut subtree: impl FnMut(u32, u64) -> Result<Hash, E>,
) -> Result<Vec<Hash>, E> {
    let mut path = Vec::new();
    if from == 0 || from == to {
        return Ok(path);
    }
    let (mut start, mut end) = (0, to);
    // SUBPROOF(m, D[n], b): `from == end` ends it.
    while from != end {
        let middle = start + split(end - start);
        if from <= middle {
            path.push(part(middle, end, &mut subtree)?);
            end = middle;
        } else {
            path.push(part(start, middle, &mut subtree)?);
            start = middle;
        }
    }
    // `b` is true as long as the part begins at 0: then its hash is the old root, which is known.
    if start != 0 {
        path.push(part(start, end, &mut subtree)?);
    }
    path.reverse();
    Ok(path)
}

/// Whether `proof` shows that the leaf with this hash is number `index` of the tree of `size` leaves
/// with this root (RFC 9162 section 2.1.3.2).
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut fn_, mut sn, mut hash) = (index, size - 1, *leaf);
    for step in proof {
        if sn == 0 {
            return false;
        }
        if fn_ & 1 == 1 || fn_ == sn {
            hash = node(step, &hash);
            while fn_ & 1 == 0 && fn_ != 0 {
                (fn_, sn) = (fn_ >> 1, sn >> 1);
            }
        } else {
            hash = node(&hash, step);
        }
        (fn_, sn) = (fn_ >> 1, sn >> 1);
    }
    sn == 0 && hash == *root
}

/// Whether `proof` shows that the tree of `from` leaves with the root `old` is the beginning of the
/// tree of `to` leaves with the root `new` (RFC 9162 section 2.1.4.2).
pub fn verify_consistency(from: u64, old: &Hash, to: u64, new: &Hash, proof: &[Hash]) -> bool {
    if from == to {
        return proof.is_empty() && old == new;
    }
    if from > to {
        return false;
    }
    if from == 0 {
        return proof.is_empty() && *old == empty();
    }
    let (first, rest) = if from.is_power_of_two() {
        (*old, proof)
    } else {
        match proof.split_first() {
            Some((first, rest)) => (*first, rest),
            None => return false,
        }
    };
    if rest.is_empty() {
        return false;
    }
    let (mut fn_, mut sn) = (from - 1, to - 1);
    while fn_ & 1 == 1 {
        (fn_, sn) = (fn_ >> 1, sn >> 1);
    }
    let (mut fr, mut sr) = (first, first);
    for step in rest {
        if sn == 0 {
            return false;
        }
        if fn_ & 1 == 1 || fn_ == sn {
            (fr, sr) = (node(step, &fr), node(step, &sr));
            while fn_ & 1 == 0 && fn_ != 0 {
                (fn_, sn) = (fn_ >> 1, sn >> 1);
            }
        } else {
            sr = node(&sr, step);
        }
        (fn_, sn) = (fn_ >> 1, sn >> 1);
    }
    sn == 0 && fr == *old && sr == *new
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn naive(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => empty(),
            [leaf] => *leaf,
            _ => {
                let k = leaves.len().next_power_of_two() / 2;
                node(&naive(&leaves[..k]), &naive(&leaves[k..]))
            }
        }
    }

    fn subtree(leaves: &[Hash]) -> impl FnMut(u32, u64) -> Result<Hash, Infallible> {
        |level, index| {
            let start = (index << level) as usize;
            Ok(complete(&leaves[start..start + (1 << level)]))
        }
    }

    #[test]
    fn roots_and_proofs_are_those_of_the_naive_tree() {
        let leaves: Vec<Hash> = (0..70_u64).map(|at| leaf(&at.to_be_bytes())).collect();
        let mut frontier = Frontier::new();
        for size in 0..=leaves.len() {
            let root = naive(&leaves[..size]);
            assert_eq!(frontier.root(), root, "{size}");
            assert_eq!(super::root(size as u64, subtree(&leaves)).unwrap(), root);
            assert_eq!(Frontier::from_subtrees(size as u64, subtree(&leaves)).unwrap(), frontier);
            for index in 0..size {
                let proof = inclusion(index as u64, size as u64, subtree(&leaves)).unwrap();
                let check = |index: usize, proof: &[Hash]| {
                    verify_inclusion(&leaves[index], index as u64, size as u64, proof, &root)
                };
                assert!(check(index, &proof), "{index} of {size}");
                assert!(size == 1 || !check((index + 1) % size, &proof));
                assert!(proof.is_empty() || !check(index, &proof[1..]));
            }
            for from in 0..=size {
                let old = naive(&leaves[..from]);
                let proof = consistency(from as u64, size as u64, subtree(&leaves)).unwrap();
                let check = |old: &Hash, proof: &[Hash]| {
                    verify_consistency(from as u64, old, size as u64, &root, proof)
                };
                assert!(check(&old, &proof), "{from} to {size}");
                assert!(!check(&[7; 32], &proof) || size == 0 && from == 0);
                if let Some((_, rest)) = proof.split_first() {
                    assert!(!check(&old, rest), "{from} to {size}");
                }
            }
            if let Some(leaf) = leaves.get(size) {
                frontier.push(*leaf, |_, _| {});
            }
        }
    }
}
