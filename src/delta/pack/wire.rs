//! Records, numbers and tags as they stand in a pack.

use sha2::Digest as _;

use super::{Descriptor, MAX_BASES, PartHead, Role, SectionId};
use crate::delta::wire::{Fields, put};
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};

/// What every pack begins with. The first byte is not text, and a transfer that changes line ends
/// breaks the last two.
pub(super) const MAGIC: [u8; 8] = *b"\x89DEPAK\r\n";
/// Length of a tag.
pub(super) const TAG: usize = 8;
/// The most a record's kind and length take.
pub(super) const MAX_HEADER: usize = 4;
/// The longest head: fixed fields, numbers at their longest, all bases.
pub(super) const MAX_HEAD: u64 = (1 + 32 + 10 + 10 + 32 + 10 + 10 + MAX_BASES * (32 + 10)) as u64;

/// The tag of a record: the first bytes of a SHA-256.
pub type Tag = [u8; TAG];

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Head = 1,
    Frame = 2,
    PartEnd = 3,
    End = 4,
}

impl Kind {
    pub(super) fn from_byte(byte: u8) -> Result<Kind> {
        match byte {
            1 => Ok(Kind::Head),
            2 => Ok(Kind::Frame),
            3 => Ok(Kind::PartEnd),
            4 => Ok(Kind::End),
            other => Err(Error::invalid(format!("a pack has no records of kind {other}"))),
        }
    }
}

/// The tag of frame `index` of `section`: it holds for this place only.
pub fn frame_tag(section: &SectionId, index: u64, bytes: &[u8]) -> Tag {
    placed_tag(Kind::Frame, section, index, bytes)
}

/// The tag of a record that belongs to frame `index` of `section`.
pub(super) fn placed_tag(kind: Kind, section: &SectionId, index: u64, body: &[u8]) -> Tag {
    tag(kind, &[section.as_bytes(), &index.to_le_bytes()], body)
}

/// The tag of a record that stands after `parts` whole parts.
pub(super) fn counted_tag(kind: Kind, parts: u64, body: &[u8]) -> Tag {
    tag(kind, &[&parts.to_le_bytes()], body)
}

fn tag(kind: Kind, context: &[&[u8]], body: &[u8]) -> Tag {
    let mut hash = sha2::Sha256::new();
    hash.update([kind as u8]);
    for part in context {
        hash.update(part);
    }
    hash.update(body);
    let mut tag = Tag::default();
    tag.copy_from_slice(&hash.finalize()[..TAG]);
    tag
}

/// How many bytes a number takes.
pub(super) fn number_length(value: u64) -> u64 {
    u64::from((64 - (value | 1).leading_zeros()).div_ceil(7))
}

/// Adds a head's body.
pub(super) fn put_head(out: &mut Vec<u8>, head: &PartHead) {
    out.push(head.role as u8);
    out.extend_from_slice(head.section.as_bytes());
    put(out, head.length);
    put(out, head.first);
    if head.role == Role::Artefact {
        put_descriptor(out, &head.target);
        put(out, head.bases.len() as u64);
        for base in &head.bases {
            put_descriptor(out, base);
        }
    }
}

fn put_descriptor(out: &mut Vec<u8>, descriptor: &Descriptor) {
    out.extend_from_slice(descriptor.digest.as_bytes());
    put(out, descriptor.size);
}

/// Reads a head's body.
pub(super) fn parse_head(body: &[u8]) -> Result<PartHead> {
    let mut fields = Fields::new(body, "the head of a part");
    let role = match fields.byte()? {
        0 => Role::Artefact,
        1 => Role::Volume,
        2 => Role::Trust,
        3 => Role::Bundle,
        other => return Err(Error::invalid(format!("a pack has no parts of role {other}"))),
    };
    let section = digest(&mut fields)?;
    let length = fields.number()?;
    let first = fields.number()?;
    let mut head = PartHead {
        role,
        section,
        length,
        first,
        target: Descriptor { digest: section, size: length },
        bases: Vec::new(),
    };
    if role == Role::Artefact {
        head.target = descriptor(&mut fields)?;
        let bases = fields.number()?;
        if bases > MAX_BASES as u64 {
            let message = format!("{bases} bases of one part are more than {MAX_BASES}");
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        for _ in 0..bases {
            head.bases.push(descriptor(&mut fields)?);
        }
    }
    fields.end()?;
    head.check()?;
    Ok(head)
}

fn descriptor(fields: &mut Fields<'_>) -> Result<Descriptor> {
    Ok(Descriptor { digest: digest(fields)?, size: fields.number()? })
}

/// The next 32 bytes, as a digest.
pub(super) fn digest(fields: &mut Fields<'_>) -> Result<Digest> {
    let bytes = fields.take(32)?;
    // `take` gave as many as were asked for.
    Ok(Digest::from_bytes(bytes.try_into().unwrap_or_default()))
}
