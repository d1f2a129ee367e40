//! Patches of binaries: hostile ones end, and honest ones give back what they were made from.

use distedge::delta::code::{Decoder, Encoder};

/// The first byte chooses, two more say how long the old member is; the rest is a patch of it, or
/// the new member.
pub fn delta_code(data: &[u8]) -> bool {
    let Some((&[mode, low, high], rest)) = data.split_first_chunk::<3>() else { return false };
    let length = usize::from(u16::from_le_bytes([low, high])).min(rest.len());
    let (old, rest) = rest.split_at(length);
    if mode & 1 == 0 {
        return decode(rest, old, 1 << 14).is_some();
    }
    let mut encoder = Encoder::new(1 << 24, mode >> 1);
    encoder.add(old, rest).expect("members of this size fit");
    let patch = encoder.finish().expect("a patch");
    let new = decode(&patch, old, rest.len() as u64).expect("an honest patch is taken");
    assert!(new == rest, "another member came back");
    true
}

fn decode(patch: &[u8], old: &[u8], size: u64) -> Option<Vec<u8>> {
    let mut new = Vec::new();
    let mut decoder = Decoder::new(patch, size).ok()?;
    decoder
        .next(old, size, &mut |piece| {
            new.extend_from_slice(piece);
            Ok(())
        })
        .ok()?;
    assert_eq!(new.len() as u64, size, "a member has another size than it was given");
    Some(new)
}
