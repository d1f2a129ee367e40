//! The patch artefact: one self-contained file that makes a blob, out of bases or of nothing.
//!
//! ```text
//! "dstP"  version (1)  method  size of the blob  SHA-256 of the blob
//! whole       the blob
//! compressed  a zstd frame
//! patch       number of bases, SHA-256 of each; limits of opening; splits; lengths; control; data
//! ```
//!
//! Numbers are LEB128. `control` is a zstd frame whose prefix is the shape of the bases; in it the
//! recipe, the ops, and how long each window's and each group's data are.

use super::medium::ReadAt;
use super::open::Limits;
use super::wire::{Fields, put};
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};

pub(crate) const MAGIC: &[u8; 4] = b"dstP";
pub(crate) const VERSION: u8 = 1;
const WHAT: &str = "patch";

/// Bases of one patch.
pub(crate) const MOST_BASES: usize = 4;

/// Bytes that a header can take: streams of the bases that are split are named in it.
const MOST_HEADER: u64 = 4 << 20;

/// How an artefact makes its blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// The blob's bytes as they are.
    Whole,
    /// Compressed.
    Compressed,
    /// What differs from the bases, or from nothing, when all is opened.
    Patch,
}

impl Method {
    /// `whole`, `compressed` or `patch`.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Whole => "whole",
            Method::Compressed => "compressed",
            Method::Patch => "patch",
        }
    }
}

/// What an artefact says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// How it makes the blob.
    pub method: Method,
    /// The blob's size in bytes.
    pub size: u64,
    /// The blob's SHA-256.
    pub digest: Digest,
    /// SHA-256 of each base it needs, in their order.
    pub bases: Vec<Digest>,
}

/// The rest of the header of a patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Details {
    pub(crate) limits: Limits,
    /// Streams of the bases to split, (base, stream).
    pub(crate) splits: Vec<(usize, usize)>,
    /// How long the control is as plain bytes.
    pub(crate) control: u64,
    /// How long its frame is.
    pub(crate) control_frame: u64,
}

impl Header {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.push(VERSION);
        out.push(match self.method {
            Method::Whole => 0,
            Method::Compressed => 1,
            Method::Patch => 2,
        });
        put(&mut out, self.size);
        out.extend_from_slice(self.digest.as_bytes());
        if self.method == Method::Patch {
            put(&mut out, self.bases.len() as u64);
            self.bases.iter().for_each(|base| out.extend_from_slice(base.as_bytes()));
        }
        out
    }

    fn parse(fields: &mut Fields<'_>) -> Result<Header> {
        if fields.take(4)? != MAGIC {
            return Err(Error::new(ErrorKind::Corrupted, "this is no patch: it does not begin as one"));
        }
        let version = fields.byte()?;
        if version != VERSION {
            let message = format!("patch: version {version} is not known here");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let method = match fields.byte()? {
            0 => Method::Whole,
            1 => Method::Compressed,
            2 => Method::Patch,
            other => {
                let message = format!("patch: method {other} is not known here");
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
        };
        let size = fields.number()?;
        let of_blob = digest(fields)?;
        let mut bases = Vec::new();
        if method == Method::Patch {
            for _ in 0..fields.number_up_to(MOST_BASES as u64)? {
                bases.push(digest(fields)?);
            }
        }
        Ok(Header { method, size, digest: of_blob, bases })
    }
}

fn digest(fields: &mut Fields<'_>) -> Result<Digest> {
    let bytes = fields.take(32)?;
    <[u8; 32]>::try_from(bytes)
        .map(Digest::from_bytes)
        .map_err(|_| Error::new(ErrorKind::Corrupted, "patch: a digest is cut short"))
}

impl Details {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        self.limits.write(out);
        put(out, self.splits.len() as u64);
        let mut before = (0, 0);
        for &(base, stream) in &self.splits {
            put(out, (base - before.0) as u64);
            let from = if base == before.0 { before.1 } else { 0 };
            put(out, (stream - from) as u64);
            before = (base, stream);
        }
        put(out, self.control);
        put(out, self.control_frame);
    }

    fn parse(fields: &mut Fields<'_>, bases: usize) -> Result<Details> {
        let limits = Limits::parse(fields)?;
        let mut splits = Vec::new();
        let (mut base, mut stream) = (0_usize, 0_usize);
        for _ in 0..fields.number_up_to(fields.rest().len() as u64)? {
            let step = fields.number_up_to(bases as u64)? as usize;
            if step > 0 {
                stream = 0;
            }
            base += step;
            stream += fields.number_up_to(limits.streams.into())? as usize;
            if base >= bases {
                return Err(Error::new(ErrorKind::Corrupted, "patch: it splits a stream of no base"));
            }
            // In their order, each once: every one of them has two leaves.
            if splits.last().is_some_and(|last| *last >= (base, stream)) {
                return Err(Error::new(ErrorKind::Corrupted, "patch: it splits a stream twice"));
            }
            splits.push((base, stream));
        }
        Ok(Details { limits, splits, control: fields.number()?, control_frame: fields.number()? })
    }
}

/// Reads the header, and how long it is; of a patch its details too.
pub(crate) fn read(artefact: &dyn ReadAt) -> Result<(Header, Option<Details>, u64)> {
    let mut length = artefact.size().min(4 << 10);
    loop {
        let mut bytes = vec![0; length as usize];
        artefact.read_exact_at(&mut bytes, 0)?;
        let mut fields = Fields::new(&bytes, WHAT);
        let parsed = Header::parse(&mut fields).and_then(|header| {
            let details = match header.method {
                Method::Patch => Some(Details::parse(&mut fields, header.bases.len())?),
                _ => None,
            };
            Ok((header, details, length - fields.rest().len() as u64))
        });
        // What is cut short here may go on.
        if parsed.is_ok() || length >= artefact.size().min(MOST_HEADER) {
            return parsed;
        }
        length = (length * 16).min(artefact.size().min(MOST_HEADER));
    }
}
