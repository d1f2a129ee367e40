//! What has to hold for any patch, for tests and fuzzers.

use std::sync::Arc;

use super::apply::apply;
use super::medium::{MemoryScratch, ReadAt};
use super::open::Limits;
use super::patch::{self, Details, Header, Method};
use super::space::Space;
use super::{lz, wire};
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};

/// Limits under which any input of a fuzzer is done in a moment.
pub(super) const SMALL: Limits =
    Limits { plain: 4 << 20, depth: 4, streams: 256, parts: 1024, ratio: 100, memory: 64 << 20 };

/// What the blob of a patch may have here.
const MOST: u64 = 1 << 20;

/// Follows a patch against `base` that anybody may have written: a first byte that says whether
/// the first stream of the base is split, how long the control is in two bytes, the control, the
/// data. Around them comes what would stop a patch before: a header, the frame of the control.
/// Gives the blob.
///
/// # Errors
/// Those of [`apply`]; none if a patch that makes something does not make it again when its
/// header says what it is.
#[doc(hidden)]
pub fn reapply(base: &[u8], patch: &[u8]) -> Result<Vec<u8>> {
    let [split, low, high, rest @ ..] = patch else { return Err(Error::invalid("no patch")) };
    let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
    let (control, data) = rest.split_at(length);
    let splits: &[(usize, usize)] = if split & 1 == 1 { &[(0, 0)] } else { &[] };
    let base = base.to_vec();
    let mut header =
        Header { method: Method::Patch, size: MOST, digest: Digest::of(b""), bases: vec![Digest::of(&base)] };
    let frame = {
        let space = Space::open(&[&base], splits, &MemoryScratch, &SMALL)?;
        lz::compress(&space.shape(), control, lz::Search::Fast)?
    };
    let bases: [(Digest, Arc<dyn ReadAt>); 1] = [(Digest::of(&base), Arc::new(base))];
    let run = |header: &Header| {
        let artefact = wrapped(header, splits, control.len(), &frame, data);
        let mut made = Vec::new();
        let result = apply(&artefact, &bases, &SMALL, &MemoryScratch, &mut made);
        assert!(made.len() as u64 <= header.size, "{} bytes of {}", made.len(), header.size);
        (made, result)
    };
    let (made, result) = run(&header);
    let error = match result {
        Err(error) if error.kind() == ErrorKind::Mismatch => error,
        Err(error) => return Err(error),
        Ok(_) => return Ok(made),
    };
    (header.size, header.digest) = (made.len() as u64, Digest::of(&made));
    let (again, result) = run(&header);
    assert!(again == made, "the same patch makes something else");
    // One that was cut off where it was too long is refused again.
    result.map(|_| again).map_err(|_| error)
}

fn wrapped(header: &Header, splits: &[(usize, usize)], control: usize, frame: &[u8], data: &[u8]) -> Vec<u8> {
    let mut artefact = header.to_bytes();
    let details = Details {
        limits: SMALL,
        splits: splits.to_vec(),
        control: control as u64,
        control_frame: frame.len() as u64,
    };
    details.write(&mut artefact);
    artefact.extend_from_slice(frame);
    artefact.extend_from_slice(data);
    artefact
}

/// What [`reapply`] takes, of a patch against `base`.
///
/// # Errors
/// Those of reading it.
#[doc(hidden)]
pub fn dismantle(base: &[u8], artefact: &[u8]) -> Result<Vec<u8>> {
    let (base, artefact) = (base.to_vec(), artefact.to_vec());
    let (_, details, start) = patch::read(&artefact)?;
    let details = details.ok_or_else(|| Error::invalid("this is no patch"))?;
    let space = Space::open(&[&base], &details.splits, &MemoryScratch, &details.limits)?;
    let mut fields = wire::Fields::new(artefact.get(start as usize..).unwrap_or_default(), "patch");
    let frame = fields.take(details.control_frame)?;
    let control = lz::decompress(&space.shape(), frame, details.control as usize)?;
    let mut parts = vec![u8::from(!details.splits.is_empty())];
    parts.extend_from_slice(&(control.len() as u16).to_le_bytes());
    parts.extend_from_slice(&control);
    parts.extend_from_slice(fields.rest());
    Ok(parts)
}
