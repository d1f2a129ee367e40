mod build;
mod oddity;
mod property;

use super::check::reopen;
use super::*;
use crate::delta::medium::{MemoryScratch, ReadAt};
use crate::error::{Error, ErrorKind, Result};

/// Opens `blob` under the usual limits; what the streams and the leaves are called.
fn names(blob: &[u8]) -> (Vec<String>, Vec<String>) {
    names_within(blob, &Limits::default())
}

fn names_within(blob: &[u8], limits: &Limits) -> (Vec<String>, Vec<String>) {
    let blob = blob.to_vec();
    let image = open(&blob, "b", &MemoryScratch, limits).unwrap();
    let opened = vec![true; image.streams().len()];
    let leaves = image.leaves(&opened);
    let streams = image.streams().iter().map(|stream| stream.name.to_string()).collect();
    let content = leaves.iter().filter(|leaf| leaf.kind == Kind::Content);
    (streams, content.map(|leaf| leaf.name.to_string()).collect())
}

/// How many streams are found; and that the blob comes back however they are encoded.
fn streams(blob: &[u8]) -> usize {
    let mut counts = Vec::new();
    for seed in [1, 2, 3, 0x1234_5678_9abc_def0] {
        let (count, made) = reopen(blob, seed).unwrap();
        assert!(made == blob, "other bytes came out for seed {seed}");
        counts.push(count);
    }
    counts[0]
}
