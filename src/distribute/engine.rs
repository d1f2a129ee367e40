//! Stand-in until `delta::{plan, apply}` are there.

use std::sync::Arc;

use super::message::Method;
use crate::delta::{ReadAt, Scratch, Spool};
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};

pub(super) const VERSION: u32 = 0;

#[derive(Debug)]
pub(super) struct Base {
    pub(super) digest: Digest,
    pub(super) name: String,
    pub(super) data: Arc<dyn ReadAt>,
}

pub(super) struct Work {
    pub(super) method: Method,
    pub(super) bases: Vec<Digest>,
    pub(super) artefact: Box<dyn Spool>,
    pub(super) why: String,
}

fn all(data: &dyn ReadAt) -> Result<Vec<u8>> {
    let mut bytes = vec![0; data.size() as usize];
    data.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

pub(super) fn plan(
    target: &dyn ReadAt,
    _name: &str,
    bases: &[Base],
    _memory: u64,
    _effort: u8,
    scratch: &dyn Scratch,
) -> Result<Work> {
    let failed = |cause| Error::io("compressing", cause);
    let mut dictionary = Vec::new();
    for base in bases {
        dictionary.extend(all(&base.data)?);
    }
    let mut packer = zstd::bulk::Compressor::with_dictionary(3, &dictionary).map_err(failed)?;
    let bytes = packer.compress(&all(target)?).map_err(failed)?;
    let mut artefact = scratch.spool()?;
    artefact.append(&bytes)?;
    let method = match bases.is_empty() {
        _ if bytes.len() as u64 >= target.size() => Method::Whole,
        true => Method::Compressed,
        false => Method::Patch,
    };
    let why = format!("{} bytes", bytes.len());
    let bases = if method == Method::Patch { bases.iter().map(|base| base.digest).collect() } else { Vec::new() };
    Ok(Work { method, bases, artefact, why })
}

pub(super) fn apply(
    artefact: &dyn ReadAt,
    bases: &[Arc<dyn ReadAt>],
    size: u64,
    _scratch: &dyn Scratch,
    out: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let failed = |cause| Error::new(ErrorKind::Corrupted, format!("the artefact cannot be undone: {cause}"));
    let mut dictionary = Vec::new();
    for base in bases {
        dictionary.extend(all(base)?);
    }
    let mut unpacker = zstd::bulk::Decompressor::with_dictionary(&dictionary).map_err(failed)?;
    out(&unpacker.decompress(&all(artefact)?, size as usize).map_err(failed)?)
}
