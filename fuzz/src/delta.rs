//! Oracles of opening blobs, of making them again, of patches.

use std::sync::Arc;

use distedge::delta::{self, Base, Budget, Limits, MemoryScratch, Method, ReadAt, reapply, refold, reopen};
use distedge::digest::Digest;

/// How streams are encoded, and a blob: it comes back as it was.
pub fn open(data: &[u8]) -> bool {
    let [seed, blob @ ..] = data else { return false };
    let (streams, made) = reopen(blob, u64::from(*seed) + 1).unwrap();
    assert!(made == blob, "other bytes came out");
    streams > 0
}

/// The length of a recipe in one byte, the recipe, and what it is to fold.
pub fn recipe(data: &[u8]) -> bool {
    let Some((length, rest)) = data.split_first() else { return false };
    let Some((recipe, target)) = rest.split_at_checked(usize::from(*length)) else { return false };
    match refold(recipe, target) {
        // No encoder makes far more of its input.
        Ok(made) => {
            assert!(made <= 64 * (1024 + target.len() as u64 + recipe.len() as u64), "{made} bytes");
            true
        }
        Err(error) => {
            assert!(!error.message().is_empty());
            false
        }
    }
}

/// What blobs of a fuzzer are opened with.
const SMALL: Limits =
    Limits { plain: 4 << 20, depth: 4, streams: 256, parts: 1024, ratio: 100, memory: 64 << 20 };

/// A patch against one of three bases, in the form that `reapply` takes; or as it is.
pub fn apply(data: &[u8]) -> bool {
    let Some((choice, patch)) = data.split_first() else { return false };
    let made = match bases().get(usize::from(*choice)) {
        Some(base) => reapply(base, patch).map(drop),
        None => raw(patch),
    };
    if let Err(error) = &made {
        assert!(!error.message().is_empty());
    }
    made.is_ok()
}

fn raw(artefact: &[u8]) -> distedge::error::Result<()> {
    let artefact = artefact.to_vec();
    let bases = bases().map(|base| (Digest::of(&base), Arc::new(base) as Arc<dyn ReadAt>));
    let mut made = Vec::new();
    let header = delta::apply(&artefact, &bases, &SMALL, &MemoryScratch, &mut made)?;
    assert_eq!((header.size, header.digest), (made.len() as u64, Digest::of(&made)));
    Ok(())
}

/// A package, an archive, a program.
fn bases() -> [Vec<u8>; 3] {
    let mut program = vec![0; 120];
    program[..20].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0");
    // One segment that is loaded and run, right behind the headers.
    program[32] = 64;
    program[56] = 1;
    program[64..72].copy_from_slice(&[1, 0, 0, 0, 5, 0, 0, 0]);
    program[96..98].copy_from_slice(&2104_u16.to_le_bytes());
    program[104..106].copy_from_slice(&2104_u16.to_le_bytes());
    for at in 0..248_u32 {
        // call; lea; a jump back.
        program.extend_from_slice(&[0xe8]);
        program.extend_from_slice(&(at.wrapping_mul(2_654_435_761) % 1500).to_le_bytes());
        program.extend_from_slice(&[0x75, 0xf9, 0x90]);
    }
    [
        // Behind the byte that is for another oracle.
        include_bytes!("../seeds/open/tar-gz-zip")[1..].to_vec(),
        include_bytes!("../seeds/open/zip")[1..].to_vec(),
        program,
    ]
}

/// The effort, the length of the old blob in two bytes, the old blob, the new one: what is planned
/// makes the new one.
pub fn plan(data: &[u8]) -> bool {
    let [effort, low, high, rest @ ..] = data else { return false };
    let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
    let (old, new) = rest.split_at(length);
    let (old, new) = (old.to_vec(), new.to_vec());
    let base = Base { digest: Digest::of(&old), data: Arc::new(old) };
    let bases = [(base.digest, base.data.clone())];
    let budget = Budget { effort: effort % 7, ..Budget::default() };
    let plan = delta::plan(&new, &[base], &budget, &SMALL, &MemoryScratch, &|_| {}).unwrap();
    let mut made = Vec::new();
    delta::apply(&*plan.artefact, &bases, &SMALL, &MemoryScratch, &mut made).unwrap();
    assert!(made == new, "other bytes came out");
    assert!(plan.artefact.size() <= new.len() as u64 + 64, "{} of {}", plan.artefact.size(), new.len());
    plan.method == Method::Patch
}
