//! Oracles of opening blobs and of making them again.

use distedge::delta::{refold, reopen};

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
