//! Records, numbers and tags as they stand in a pack.

use sha2::Digest as _;

use super::{Descriptor, MAX_BASES, PartHead, Role, SectionId};
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

/// Adds `value` as 7 bits a byte, lowest first; all bytes but the last have the high bit set.
pub(super) fn put_number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// How many bytes [`put_number`] adds.
pub(super) fn number_length(value: u64) -> u64 {
    u64::from((64 - (value | 1).leading_zeros()).div_ceil(7))
}

/// Adds a head's body.
pub(super) fn put_head(out: &mut Vec<u8>, head: &PartHead) {
    out.push(head.role as u8);
    out.extend_from_slice(head.section.as_bytes());
    put_number(out, head.length);
    put_number(out, head.first);
    if head.role == Role::Artefact {
        put_descriptor(out, &head.target);
        put_number(out, head.bases.len() as u64);
        for base in &head.bases {
            put_descriptor(out, base);
        }
    }
}

fn put_descriptor(out: &mut Vec<u8>, descriptor: &Descriptor) {
    out.extend_from_slice(descriptor.digest.as_bytes());
    put_number(out, descriptor.size);
}

/// Reads a head's body.
pub(super) fn parse_head(body: &[u8]) -> Result<PartHead> {
    let mut cursor = Cursor(body);
    let role = match cursor.byte()? {
        0 => Role::Artefact,
        1 => Role::Volume,
        2 => Role::Trust,
        3 => Role::Bundle,
        other => return Err(Error::invalid(format!("a pack has no parts of role {other}"))),
    };
    let section = cursor.digest()?;
    let length = cursor.number()?;
    let first = cursor.number()?;
    let mut head = PartHead {
        role,
        section,
        length,
        first,
        target: Descriptor { digest: section, size: length },
        bases: Vec::new(),
    };
    if role == Role::Artefact {
        head.target = cursor.descriptor()?;
        let bases = cursor.number()?;
        if bases > MAX_BASES as u64 {
            let message = format!("{bases} bases of one part are more than {MAX_BASES}");
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        for _ in 0..bases {
            head.bases.push(cursor.descriptor()?);
        }
    }
    cursor.finish()?;
    head.check()?;
    Ok(head)
}

/// Reads a record's body from the front.
pub(super) struct Cursor<'a>(pub(super) &'a [u8]);

impl Cursor<'_> {
    pub(super) fn number(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit, and a number has one way to be written.
            if bits << shift >> shift != bits || (byte == 0 && shift > 0) {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Error::invalid("a number in a pack's record is written in a way it may not be"))
    }

    pub(super) fn digest(&mut self) -> Result<Digest> {
        let (bytes, rest) = self.0.split_first_chunk::<32>().ok_or_else(short)?;
        self.0 = rest;
        Ok(Digest::from_bytes(*bytes))
    }

    fn descriptor(&mut self) -> Result<Descriptor> {
        Ok(Descriptor { digest: self.digest()?, size: self.number()? })
    }

    fn byte(&mut self) -> Result<u8> {
        let (byte, rest) = self.0.split_first().ok_or_else(short)?;
        self.0 = rest;
        Ok(*byte)
    }

    pub(super) fn finish(self) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(Error::invalid("a record of the pack is longer than what is in it"))
    }
}

#[cold]
fn short() -> Error {
    Error::invalid("a record of the pack is shorter than what is in it")
}
