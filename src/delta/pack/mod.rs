//! The framed stream that carries artefacts: over a connection, or as a file.
//!
//! An *artefact* is what makes a blob on the other side: the blob itself, or a patch. It is opaque
//! here. A pack is a row of *parts*; a part carries an artefact, or a run of frames of one, so the
//! same format serves for pushing, for going on after a cut, and for volumes of a given size.
//! Every frame has a tag of its own: what was cut or damaged costs one frame.
//!
//! The tags find accidents, not attacks. What an artefact says is believed only when the blob that
//! comes out has the digest that a signed statement names.

mod reader;
pub mod volume;
mod wire;
mod writer;

use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};

pub use reader::{Event, Frame, Reader, read};
pub use wire::{Tag, frame_tag};
pub use writer::{Writer, length};

/// Bytes of an artefact in one frame; only an artefact's last frame has fewer.
pub const FRAME: u64 = 256 * 1024;
/// The version of the format.
pub const VERSION: u8 = 1;
/// How long a document, such as an envelope, may be.
pub const MAX_DOCUMENT: u64 = 64 * 1024 * 1024;
/// How long an artefact may be: 16 TiB.
pub const MAX_ARTEFACT: u64 = 1 << 44;
/// How many bases an artefact may need.
pub const MAX_BASES: usize = 64;

/// Names an artefact, or a document, by the SHA-256 of its bytes.
pub type SectionId = Digest;

/// Bytes that are somewhere, by digest and size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Descriptor {
    /// Their SHA-256.
    pub digest: Digest,
    /// How many they are.
    pub size: u64,
}

/// What a part carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Role {
    /// An artefact, which makes a blob.
    Artefact = 0,
    /// The description of the volume that the pack is: [`volume::Volume`].
    Volume = 1,
    /// The envelope of a trust document.
    Trust = 2,
    /// The envelope of a bundle.
    Bundle = 3,
}

/// How a part begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartHead {
    /// What it carries.
    pub role: Role,
    /// The artefact, or the document.
    pub section: SectionId,
    /// How many bytes all of that has.
    pub length: u64,
    /// The number of the first frame here.
    pub first: u64,
    /// The blob that the artefact makes; for a document the document itself.
    pub target: Descriptor,
    /// The blobs that must be there to make it, in the order the artefact names them.
    pub bases: Vec<Descriptor>,
}

impl PartHead {
    /// The head of a part with all of an artefact.
    pub fn artefact(section: Descriptor, target: Descriptor, bases: Vec<Descriptor>) -> PartHead {
        PartHead {
            role: Role::Artefact,
            section: section.digest,
            length: section.size,
            first: 0,
            target,
            bases,
        }
    }

    /// The head of a part with all of a document.
    pub fn document(role: Role, bytes: &[u8]) -> PartHead {
        let target = Descriptor { digest: Digest::of(bytes), size: bytes.len() as u64 };
        PartHead { role, section: target.digest, length: target.size, first: 0, target, bases: Vec::new() }
    }

    /// The same artefact, from frame `first` on.
    #[must_use]
    pub fn from_frame(&self, first: u64) -> PartHead {
        PartHead { first, ..self.clone() }
    }

    /// The head as it stands in a pack, without its tag.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        wire::put_head(&mut bytes, self);
        bytes
    }

    /// Reads what [`to_bytes`](PartHead::to_bytes) wrote.
    pub(crate) fn parse(bytes: &[u8]) -> Result<PartHead> {
        wire::parse_head(bytes)
    }

    /// How many frames the whole artefact has.
    pub fn frames(&self) -> u64 {
        frames(self.length)
    }

    /// # Errors
    /// [`ErrorKind::TooLarge`] or [`ErrorKind::Invalid`] if it breaks a limit of the format.
    fn check(&self) -> Result<()> {
        let longest = if self.role == Role::Artefact { MAX_ARTEFACT } else { MAX_DOCUMENT };
        if self.length > longest {
            let message = format!("a part of {} bytes is more than the {longest} it may have", self.length);
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        if self.bases.len() > MAX_BASES {
            let message = format!("{} bases of one part are more than {MAX_BASES}", self.bases.len());
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        if self.first > self.frames() {
            let message = format!(
                "a part begins at frame {}, and {} has only {}",
                self.first,
                self.section,
                self.frames()
            );
            return Err(Error::invalid(message));
        }
        Ok(())
    }
}

/// How many frames `length` bytes make.
pub fn frames(length: u64) -> u64 {
    length.div_ceil(FRAME)
}

/// How many bytes frame `index` of `length` bytes has; 0 if there is no such frame.
pub fn frame_length(length: u64, index: u64) -> u64 {
    length.saturating_sub(index.saturating_mul(FRAME)).min(FRAME)
}

#[cfg(test)]
mod tests;
