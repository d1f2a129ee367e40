//! ASCII armor (RFC 9580 section 6) and packet framing (section 4.2), read strictly.
//!
//! The sizes are checked before anything is decoded, and the packets are counted before any of
//! them is parsed, so that a hostile input costs no more than its first 64 KiB.
//!
//! Off-spec: text before, between or after armor, partial and indeterminate lengths, and
//! anything else that only some readers take, is refused. Two readers that frame the same bytes
//! differently disagree about what was signed or revoked.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pgp::packet::{PacketHeader, PacketTrait};
use pgp::types::{PacketHeaderVersion, PacketLength, Tag};

use crate::error::{Error, ErrorKind, Result};

/// Armor lines have at most 76 characters; a little more is let pass, a whole file in a line is not.
const MAX_LINE: usize = 128;

/// What an input is to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// The name in sentences.
    pub what: &'static str,
    /// The words of the armor's first line.
    pub label: &'static str,
    /// The most bytes, armored or not.
    pub max_bytes: usize,
    /// The most packets.
    pub max_packets: usize,
}

pub(super) const SIGNATURE: Shape =
    Shape { what: "OpenPGP signature", label: "PGP SIGNATURE", max_bytes: 32 * 1024, max_packets: 4 };

pub(super) const CERTIFICATE: Shape = Shape {
    what: "OpenPGP certificate",
    label: "PGP PUBLIC KEY BLOCK",
    max_bytes: 64 * 1024,
    max_packets: 256,
};

pub(super) const SECRET: Shape = Shape {
    what: "OpenPGP secret key",
    label: "PGP PRIVATE KEY BLOCK",
    max_bytes: 64 * 1024,
    max_packets: 256,
};

impl Shape {
    #[cold]
    pub(super) fn broken(&self, why: impl std::fmt::Display) -> Error {
        Error::invalid(format!("the {} cannot be read: {why}", self.what))
    }

    #[cold]
    fn too_large(&self, what: impl std::fmt::Display) -> Error {
        Error::new(ErrorKind::TooLarge, format!("the {} has {what}", self.what))
    }
}

/// One packet: its header as `pgp` knows it, and its body.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawPacket<'a> {
    pub header: PacketHeader,
    pub tag: Tag,
    pub body: &'a [u8],
    /// Header and body as they were read.
    pub whole: &'a [u8],
}

impl RawPacket<'_> {
    /// Whether `parsed` writes itself as the bytes it was read from.
    ///
    /// A number with leading zeros, or bytes after the last field, would be dropped by the
    /// parser: what it then hashes, or takes a fingerprint of, is not what others see.
    pub(super) fn is_canonical(&self, parsed: &impl PacketTrait) -> bool {
        parsed.to_bytes().is_ok_and(|bytes| bytes == self.body)
    }
}

/// The binary form of `input`, which is binary or armored, of the right shape and size.
pub(super) fn binary(input: &[u8], shape: Shape) -> Result<Cow<'_, [u8]>> {
    if input.len() > shape.max_bytes {
        return Err(shape.too_large(format_args!(
            "{} bytes, more than the {} that are read",
            input.len(),
            shape.max_bytes
        )));
    }
    // Every packet starts with a byte whose highest bit is set (RFC 9580 section 4.2), and
    // armor is ASCII.
    match input.first() {
        None => Err(shape.broken("it is empty")),
        Some(first) if first & 0x80 != 0 => Ok(Cow::Borrowed(input)),
        Some(_) => dearmor(input, shape).map(Cow::Owned),
    }
}

fn dearmor(input: &[u8], shape: Shape) -> Result<Vec<u8>> {
    let text = std::str::from_utf8(input).map_err(|_| shape.broken("it is neither armor nor packets"))?;
    let mut lines = text.lines().map(str::trim_end).skip_while(|line| line.is_empty());

    let first = lines.next().unwrap_or_default();
    let label = first.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----"));
    match label {
        Some(label) if label == shape.label => {}
        Some("PGP SIGNED MESSAGE") => {
            return Err(Error::new(
                ErrorKind::Untrusted,
                "the OpenPGP signature is a cleartext-signed message: only detached binary signatures are accepted",
            ));
        }
        Some("PGP PRIVATE KEY BLOCK") => {
            return Err(shape.broken("it is a secret key; export the public certificate instead"));
        }
        Some(label) => {
            let label: String = label.chars().take(40).collect();
            return Err(shape.broken(format_args!("its armor says {label:?}, and not {:?}", shape.label)));
        }
        None => return Err(shape.broken("it starts neither with a packet nor with a line of armor")),
    }

    // Headers ("Version: …", "Comment: …") end with an empty line.
    for line in lines.by_ref() {
        if line.is_empty() {
            break;
        }
        if !line.contains(": ") || line.starts_with('-') {
            return Err(shape.broken("its armor has no empty line after the headers"));
        }
    }

    let mut body = String::with_capacity(input.len());
    let mut checksum = None;
    let mut ended = false;
    for line in lines.by_ref() {
        if let Some(rest) = line.strip_prefix("-----END ") {
            if rest.strip_suffix("-----") != Some(shape.label) {
                return Err(shape.broken("its armor ends with another label than it starts with"));
            }
            ended = true;
            break;
        }
        if checksum.is_some() || line.len() > MAX_LINE {
            return Err(shape.broken("its armor has a line that does not belong there"));
        }
        match line.strip_prefix('=') {
            Some(sum) if sum.len() == 4 => checksum = Some(sum),
            _ => body.push_str(line),
        }
    }
    if !ended {
        return Err(shape.broken("its armor has no end line"));
    }
    if lines.any(|line| !line.is_empty()) {
        return Err(shape.broken("there is something after its armor"));
    }

    let bytes = STANDARD.decode(&body).map_err(|_| shape.broken("its armor is not base64"))?;
    // RFC 9580 section 6.1 makes the checksum optional; one that is there and wrong tells of damage.
    if let Some(sum) = checksum {
        let sum = STANDARD.decode(sum).map_err(|_| shape.broken("its checksum is not base64"))?;
        if sum != crc24(&bytes) {
            return Err(shape.broken("its armor does not have the checksum it states"));
        }
    }
    Ok(bytes)
}

/// `bytes` as armor with a checksum, which gpg 2.2 wants.
pub(super) fn armor(bytes: &[u8], shape: Shape) -> String {
    let encoded = STANDARD.encode(bytes);
    let mut text = format!("-----BEGIN {}-----\n\n", shape.label);
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        // base64 is ASCII: every index is a character boundary.
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str(&format!("={}\n-----END {}-----\n", STANDARD.encode(crc24(bytes)), shape.label));
    text
}

/// RFC 9580 section 6.1.1.
fn crc24(bytes: &[u8]) -> [u8; 3] {
    let mut crc: u32 = 0xb7_04ce;
    for byte in bytes {
        crc ^= u32::from(*byte) << 16;
        for _ in 0..8 {
            crc <<= 1;
            if crc & 0x100_0000 != 0 {
                crc ^= 0x186_4cfb;
            }
        }
    }
    let [_, a, b, c] = crc.to_be_bytes();
    [a, b, c]
}

/// Splits `bytes` into packets, without looking into any.
pub(super) fn packets(bytes: &[u8], shape: Shape) -> Result<Vec<RawPacket<'_>>> {
    let mut packets = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        if packets.len() == shape.max_packets {
            return Err(shape.too_large(format_args!("more than {} packets", shape.max_packets)));
        }
        let whole = rest;
        let header = PacketHeader::try_from_reader(&mut rest)
            .map_err(|_| shape.broken("a packet header is damaged"))?;
        let PacketLength::Fixed(length) = header.packet_length() else {
            return Err(shape.broken("a packet does not state its whole length"));
        };
        let body = usize::try_from(length)
            .ok()
            .and_then(|length| rest.get(..length))
            .ok_or_else(|| shape.broken("it ends inside a packet"))?;
        rest = &rest[body.len()..];
        let whole = &whole[..whole.len() - rest.len()];
        packets.push(RawPacket { header, tag: header.tag(), body, whole });
    }
    if packets.is_empty() {
        return Err(shape.broken("it holds no packet"));
    }
    Ok(packets)
}

/// One packet in the new format.
pub(super) fn write_packet(packet: &impl PacketTrait, tag: Tag, into: &mut Vec<u8>) -> Result<()> {
    let write = |into: &mut Vec<u8>| {
        let length = packet.write_len();
        PacketHeaderVersion::New.write_header(into, tag, length)?;
        packet.to_writer(into)
    };
    write(into).map_err(super::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn armor_comes_back() {
        for length in [0, 1, 2, 3, 47, 48, 49, 500] {
            // A first byte with the highest bit set, as every packet has.
            let bytes: Vec<u8> = (0..length).map(|i| 0x80 | i as u8).collect();
            let text = armor(&bytes, SIGNATURE);
            assert_eq!(binary(text.as_bytes(), SIGNATURE).unwrap().as_ref(), bytes);
            assert_eq!(binary(text.replace('\n', "\r\n").as_bytes(), SIGNATURE).unwrap().as_ref(), bytes);
        }
    }

    #[test]
    fn damaged_armor_is_refused() {
        let good = armor(&[0xc2, 3, 1, 2, 3], SIGNATURE);
        for (bad, why) in [
            (good.replace("-----END PGP SIGNATURE-----\n", ""), "no end line"),
            (good.replace("END PGP SIGNATURE", "END PGP MESSAGE"), "another label"),
            (good.replace("SIGNATURE", "MESSAGE"), "its armor says"),
            (format!("{good}{good}"), "after its armor"),
            (format!("hello\n{good}"), "neither with a packet"),
            (good.replacen("\n\n", "\n", 1), "no empty line"),
            (good.replace("wg", "w!"), "not base64"),
            (good.replace("wg", "xg"), "checksum"),
            (String::from("\n\n"), "neither with a packet"),
        ] {
            let error = binary(bad.as_bytes(), SIGNATURE).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{bad}");
            assert!(error.message().contains(why), "{error} should say {why:?}\n{bad}");
        }
        assert!(binary(b"", SIGNATURE).is_err());
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        for bad in [
            &[0xc2][..],
            &[0xc2, 5, 1],
            &[0xc2, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            &[0xc2, 0xe1, 1, 2, 0], // partial
            &[0x8b, 1, 2],          // indeterminate
            &[0x40, 1, 2],
            &[],
        ] {
            assert_eq!(packets(bad, SIGNATURE).unwrap_err().kind(), ErrorKind::Invalid, "{bad:?}");
        }
        let five = [0xc2, 0].repeat(5);
        assert_eq!(packets(&five, SIGNATURE).unwrap_err().kind(), ErrorKind::TooLarge);
        assert_eq!(packets(&five[..8], SIGNATURE).unwrap().len(), 4);
    }
}
