//! What has to hold for the bytes of an audit log.

use distedge::audit::segment::{Segment, Tail};
use distedge::audit::{Checkpoint, Entry};
use distedge::merkle::{self, Frontier, Hash};

/// A segment as recovery finds it: what is accepted is a prefix that is written again as it was read,
/// and that verifies in one tree.
pub fn audit_segment(data: &[u8]) -> bool {
    let Ok(segment) = Segment::parse(data) else { return false };
    let written = segment.to_bytes();
    assert_eq!(written.len() as u64, segment.length);
    assert!(data.starts_with(&written), "the accepted prefix is not what was read");
    let again = Segment::parse(&written).expect("what was accepted is accepted again");
    assert_eq!((&again.head, &again.entries, again.tail), (&segment.head, &segment.entries, Tail::Clean));
    if segment.tail == Tail::Clean {
        assert!(data[written.len()..].iter().all(|byte| *byte == 0));
    }
    let leaves: Vec<Hash> = segment.entries.iter().map(|entry| merkle::leaf(entry)).collect();
    let mut tree = Frontier::new();
    leaves.iter().for_each(|leaf| tree.push(*leaf, |_, _| {}));
    let (size, root) = (tree.size(), tree.root());
    let mut subtree = |level: u32, index: u64| {
        let start = (index << level) as usize;
        leaves.get(start..start + (1 << level)).map(merkle::complete).ok_or(())
    };
    // A few are as good as all: the number of entries is the fuzzer's to choose.
    for index in (0..size).step_by((size as usize / 8).max(1)) {
        let proof = merkle::inclusion(index, size, &mut subtree).expect("every subtree is there");
        assert!(merkle::verify_inclusion(&leaves[index as usize], index, size, &proof, &root));
        let mut old = Frontier::new();
        leaves[..index as usize].iter().for_each(|leaf| old.push(*leaf, |_, _| {}));
        let proof = merkle::consistency(index, size, &mut subtree).expect("every subtree is there");
        assert!(merkle::verify_consistency(index, &old.root(), size, &root, &proof));
    }
    for bytes in &segment.entries {
        if let Ok(entry) = Entry::parse(bytes) {
            assert_eq!(entry.encode(), *bytes);
            assert!(bytes.iter().all(|byte| *byte >= b' ' && *byte != 0x7f), "an entry is one line");
        }
        if let Ok(note) = Checkpoint::parse(bytes) {
            assert_eq!(note.to_note().as_bytes(), &bytes[..]);
        }
    }
    !segment.entries.is_empty()
}
