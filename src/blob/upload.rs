//! What every upload checks, and what it says when a check fails.

use super::BlobInfo;
use crate::digest::Hasher;
use crate::error::{Error, ErrorKind, Result};

/// Whether `more` bytes at `position` stay within the expected size.
pub(super) fn check_fits(expected: &BlobInfo, position: u64, more: usize) -> Result<()> {
    if position + more as u64 > expected.size { Err(too_long(expected)) } else { Ok(()) }
}

/// Whether the bytes taken in are the expected blob.
pub(super) fn check_whole(expected: &BlobInfo, taken: Hasher) -> Result<()> {
    if taken.len() != expected.size {
        return Err(too_short(expected, taken.len()));
    }
    let found = taken.finish();
    if found != expected.digest {
        return Err(Error::new(
            ErrorKind::Mismatch,
            format!("the upload of blob {} has the digest {found}", expected.digest),
        ));
    }
    Ok(())
}

#[cold]
fn too_long(expected: &BlobInfo) -> Error {
    Error::new(
        ErrorKind::Mismatch,
        format!("the upload of blob {} exceeds its size of {} bytes", expected.digest, expected.size),
    )
}

#[cold]
fn too_short(expected: &BlobInfo, taken: u64) -> Error {
    Error::new(
        ErrorKind::Mismatch,
        format!("the upload of blob {} ended after {taken} of {} bytes", expected.digest, expected.size),
    )
}

#[cold]
pub(super) fn busy(expected: &BlobInfo) -> Error {
    Error::new(ErrorKind::Conflict, format!("blob {} is being uploaded already", expected.digest))
}

#[cold]
pub(super) fn broken(expected: &BlobInfo) -> Error {
    Error::new(
        ErrorKind::Io,
        format!("the upload of blob {} failed earlier and cannot go on", expected.digest),
    )
}
