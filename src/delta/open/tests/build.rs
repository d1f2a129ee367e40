//! Containers made by hand, right and wrong ones.

use std::io::{Read as _, Write as _};

pub(super) fn deflated(plain: &[u8], level: u8) -> Vec<u8> {
    miniz_oxide::deflate::compress_to_vec(plain, level)
}

/// A gzip member with the given flags and what follows the fixed header.
pub(super) fn gzip_with(plain: &[u8], flags: u8, fields: &[u8]) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 3];
    out.extend_from_slice(fields);
    out.extend(deflated(plain, 6));
    out.extend([0; 4]);
    out.extend((plain.len() as u32).to_le_bytes());
    out
}

pub(super) fn gzip(plain: &[u8]) -> Vec<u8> {
    gzip_with(plain, 0, &[])
}

pub(super) fn xz(plain: &[u8], preset: u32) -> Vec<u8> {
    let mut out = Vec::new();
    liblzma::read::XzEncoder::new(plain, preset).read_to_end(&mut out).unwrap();
    out
}

/// In blocks that say their sizes.
pub(super) fn xz_blocks(plain: &[u8], block: u64) -> Vec<u8> {
    let mut builder = liblzma::stream::MtStreamBuilder::new();
    builder.threads(1).preset(0).block_size(block).check(liblzma::stream::Check::Crc64);
    let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), builder.encoder().unwrap());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn zstd(plain: &[u8], level: i32, sized: bool) -> Vec<u8> {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), level).unwrap();
    if sized {
        encoder.set_pledged_src_size(Some(plain.len() as u64)).unwrap();
    }
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

/// A tar header block with the right checksum.
pub(super) fn tar_header(name: &[u8], size: u64, kind: u8) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
    block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    seal(&mut block);
    block
}

/// Writes the checksum of a tar header.
pub(super) fn seal(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

pub(super) fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    out.resize(bytes.len().next_multiple_of(512), 0);
    out
}

pub(super) fn tar(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, content) in members {
        out.extend(tar_header(name.as_bytes(), content.len() as u64, b'0'));
        out.extend(padded(content));
    }
    out.extend([0; 1024]);
    out
}

pub(super) fn ar(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut out = b"!<arch>\n".to_vec();
    for (name, content) in members {
        let size = content.len();
        out.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`\n", 0, 0, 0, 100_644).into_bytes());
        out.extend_from_slice(content);
        if size % 2 == 1 {
            out.push(b'\n');
        }
    }
    out
}

/// One entry of a zip archive as its headers tell it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) method: u16,
    pub(super) coded: Vec<u8>,
    pub(super) plain: u64,
    /// Sizes follow the data.
    pub(super) descriptor: bool,
    /// The directory has the sizes and the offset in a zip64 field.
    pub(super) zip64: bool,
    /// What the directory says is added to the coded length and to the offset.
    pub(super) lie: u32,
    pub(super) shift: i64,
}

pub(super) fn entry(name: &str, plain: &[u8], method: u16) -> Entry {
    let coded = if method == 8 { deflated(plain, 6) } else { plain.to_vec() };
    let plain = plain.len() as u64;
    Entry { name: name.into(), method, coded, plain, descriptor: false, zip64: false, lie: 0, shift: 0 }
}

/// A zip archive behind `before` and with `comment` at its end.
pub(super) fn zip_with(before: &[u8], entries: &[Entry], comment: &[u8]) -> Vec<u8> {
    let mut out = before.to_vec();
    let mut directory = Vec::new();
    for entry in entries {
        let offset = ((out.len() - before.len()) as i64 + entry.shift) as u64;
        let sizes = (entry.coded.len() as u64 + u64::from(entry.lie), entry.plain);
        let flags: u16 = if entry.descriptor { 8 } else { 0 };
        let (coded, plain) = if entry.descriptor { (0, 0) } else { (sizes.0 as u32, sizes.1 as u32) };
        let mut head = Vec::new();
        let mut put = |value: &[u8]| head.extend_from_slice(value);
        put(&20_u16.to_le_bytes());
        put(&flags.to_le_bytes());
        put(&entry.method.to_le_bytes());
        put(&[0; 8]);
        out.extend(b"PK\x03\x04");
        out.extend(&head);
        out.extend(coded.to_le_bytes());
        out.extend(plain.to_le_bytes());
        out.extend((entry.name.len() as u16).to_le_bytes());
        out.extend([0; 2]);
        out.extend(entry.name.as_bytes());
        out.extend(&entry.coded);
        if entry.descriptor {
            out.extend(b"PK\x07\x08\0\0\0\0");
            out.extend((sizes.0 as u32).to_le_bytes());
            out.extend((sizes.1 as u32).to_le_bytes());
        }
        let mut extra = Vec::new();
        let mut numbers = [sizes.0 as u32, sizes.1 as u32, offset as u32];
        if entry.zip64 {
            extra.extend([1, 0, 24, 0]);
            [sizes.1, sizes.0, offset].iter().for_each(|value| extra.extend(value.to_le_bytes()));
            numbers = [u32::MAX; 3];
        }
        directory.extend(b"PK\x01\x02\x14\0");
        directory.extend(&head);
        directory.extend(numbers[0].to_le_bytes());
        directory.extend(numbers[1].to_le_bytes());
        directory.extend((entry.name.len() as u16).to_le_bytes());
        directory.extend((extra.len() as u16).to_le_bytes());
        directory.extend([0; 10]);
        directory.extend(numbers[2].to_le_bytes());
        directory.extend(entry.name.as_bytes());
        directory.extend(extra);
    }
    let start = (out.len() - before.len()) as u64;
    let (mut size, mut offset) = (directory.len() as u32, start as u32);
    out.extend(&directory);
    if entries.iter().any(|entry| entry.zip64) {
        let record = out.len() - before.len();
        out.extend(b"PK\x06\x06");
        out.extend(44_u64.to_le_bytes());
        out.extend([0; 28]);
        out.extend((directory.len() as u64).to_le_bytes());
        out.extend(start.to_le_bytes());
        out.extend(b"PK\x06\x07\0\0\0\0");
        out.extend((record as u64).to_le_bytes());
        out.extend([1, 0, 0, 0]);
        (size, offset) = (u32::MAX, u32::MAX);
    }
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend((entries.len() as u16).to_le_bytes());
    out.extend((entries.len() as u16).to_le_bytes());
    out.extend(size.to_le_bytes());
    out.extend(offset.to_le_bytes());
    out.extend((comment.len() as u16).to_le_bytes());
    out.extend(comment);
    out
}

pub(super) fn zip(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let entries: Vec<Entry> = members.iter().map(|(name, content)| entry(name, content, 8)).collect();
    zip_with(&[], &entries, &[])
}

/// Text that compresses, another one for each seed.
pub(super) fn text(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::new();
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend(
            format!("fn item_{}() -> u{} {{ {} }}\n", state % 97, 8 << (state >> 8 & 3), state >> 50).bytes(),
        );
    }
    out.truncate(length);
    out
}
