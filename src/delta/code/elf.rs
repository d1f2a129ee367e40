//! What the headers of an ELF file say about addresses, and the references in its tables.

use super::site::{Kind, Layout, Segment, Site};

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at.checked_add(2)?).map(|b| u16::from_le_bytes([b[0], b[1]]))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes
        .get(at..at.checked_add(8)?)
        .map(|b| u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]))
}

const X86_64: u16 = 62;
const SECTIONS: usize = 4096;
const SEGMENTS: usize = 64;
const EXECUTABLE: u64 = 4;
const ALLOCATED: u64 = 2;

/// A section with its contents in the file.
#[derive(Clone, Copy, Debug)]
struct Section {
    kind: u32,
    flags: u64,
    offset: usize,
    length: usize,
    name: u32,
}

/// A little-endian 64-bit ELF image for x86-64 that is laid out in memory.
#[derive(Debug)]
pub(super) struct Elf<'a> {
    bytes: &'a [u8],
    pub(super) layout: Layout,
    sections: Vec<Section>,
    names: &'a [u8],
    fixed: bool,
}

impl<'a> Elf<'a> {
    /// Reads the headers; `None` if this is no such image.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Elf<'a>> {
        if bytes.get(..6)? != b"\x7fELF\x02\x01" || u16_at(bytes, 18)? != X86_64 {
            return None;
        }
        let fixed = u16_at(bytes, 16)? == 2;
        let mut loads = Vec::new();
        let table = usize::try_from(u64_at(bytes, 32)?).ok()?;
        for index in 0..usize::from(u16_at(bytes, 56)?).min(SEGMENTS) {
            let at = table.checked_add(index * 56)?;
            if u32_at(bytes, at)? == 1 {
                let load = [8, 16, 32, 40].map(|field| u64_at(bytes, at + field));
                let [Some(offset), Some(address), Some(length), Some(memory)] = load else { return None };
                loads.push((offset, address, length, memory, u32_at(bytes, at + 4)? & 1 != 0));
            }
        }
        let base = loads.iter().map(|load| load.1).min()?;
        let mut segments = Vec::new();
        let mut code = Vec::new();
        for (offset, address, length, memory, executable) in loads {
            let end = offset.checked_add(length)?;
            if end > bytes.len() as u64 || memory < length {
                return None;
            }
            segments.push(Segment {
                offset: u32::try_from(offset).ok()?,
                address: u32::try_from(address - base).ok()?,
                length: u32::try_from(length).ok()?,
                memory: u32::try_from(memory).ok()?,
            });
            if executable {
                code.push((offset as u32, end as u32));
            }
        }
        let sections = sections(bytes).unwrap_or_default();
        let texts: Vec<(u32, u32)> = sections
            .iter()
            .filter(|s| s.flags & EXECUTABLE != 0 && s.kind == 1)
            .map(|s| (s.offset as u32, (s.offset + s.length) as u32))
            .collect();
        if !texts.is_empty() {
            code = texts;
        }
        let names = u16_at(bytes, 62)
            .and_then(|index| sections.get(usize::from(index)))
            .and_then(|s| bytes.get(s.offset..s.offset + s.length))
            .unwrap_or_default();
        let layout = Layout::new(base, segments, code)?;
        Some(Elf { bytes, layout, sections, names, fixed })
    }

    /// Adds the references in tables of the file: relocations, symbols, unwind tables, pointers.
    pub(super) fn data_sites(&self, sites: &mut Vec<Site>, tables: &mut Vec<(u32, u32)>) {
        // Sections that lie over each other have sites without end.
        let mut left = 2 * self.bytes.len();
        for section in &self.sections {
            let Some(rest) = left.checked_sub(section.length) else { return };
            left = rest;
            match section.kind {
                4 => self.relocations(section, sites),
                2 | 11 => self.symbols(section, sites),
                1 | 7 | 0x7000_0001 if section.flags & ALLOCATED != 0 => {
                    match self.name(section) {
                        b".eh_frame" => self.frames(section, sites),
                        b".eh_frame_hdr" => self.frame_index(section, sites, tables),
                        _ if self.fixed && section.flags & EXECUTABLE == 0 => self.pointers(section, sites),
                        _ => None,
                    };
                }
                _ => {}
            }
        }
    }

    fn name(&self, section: &Section) -> &'a [u8] {
        let rest = self.names.get(section.name as usize..).unwrap_or_default();
        rest.split(|&byte| byte == 0).next().unwrap_or_default()
    }

    fn push(&self, sites: &mut Vec<Site>, at: usize, kind: Kind, target: u64) {
        if let Some(target) = self.layout.relative(target) {
            sites.push(Site::new(at as u32, kind, target));
        }
    }

    fn relocations(&self, section: &Section, sites: &mut Vec<Site>) {
        for at in (section.offset..section.offset + section.length).step_by(24) {
            let (Some(place), Some(info), Some(addend)) =
                (u64_at(self.bytes, at), u64_at(self.bytes, at + 8), u64_at(self.bytes, at + 16))
            else {
                return;
            };
            self.push(sites, at, Kind::Absolute, place);
            if matches!(info & 0xffff_ffff, 8 | 37) {
                self.push(sites, at + 16, Kind::Absolute, addend);
            }
        }
    }

    fn symbols(&self, section: &Section, sites: &mut Vec<Site>) {
        for at in (section.offset..section.offset + section.length).step_by(24) {
            let (Some(index), Some(value)) = (u16_at(self.bytes, at + 6), u64_at(self.bytes, at + 8)) else {
                return;
            };
            if index != 0 && index < 0xff00 && value != 0 {
                self.push(sites, at + 8, Kind::Absolute, value);
            }
        }
    }

    fn pointers(&self, section: &Section, sites: &mut Vec<Site>) -> Option<()> {
        let start = section.offset.next_multiple_of(8);
        for at in (start..section.offset + section.length).step_by(8) {
            let value = u64_at(self.bytes, at)?;
            if value >= self.layout.base {
                self.push(sites, at, Kind::Absolute, value);
            }
        }
        Some(())
    }

    fn frame_index(
        &self,
        section: &Section,
        sites: &mut Vec<Site>,
        tables: &mut Vec<(u32, u32)>,
    ) -> Option<()> {
        let start = section.offset;
        if self.bytes.get(start..start + 4)? != [1, 0x1b, 3, 0x3b] {
            return None;
        }
        let base = self.layout.address(start as u32)?;
        let end = start + section.length;
        tables.push((start as u32, end as u32));
        let own = self.layout.address(start as u32 + 4)?;
        self.relative(sites, start + 4, Kind::Forward, own);
        for at in (start + 12..end.saturating_sub(3)).step_by(4) {
            self.relative(sites, at, Kind::Table, base);
        }
        Some(())
    }

    fn relative(&self, sites: &mut Vec<Site>, at: usize, kind: Kind, from: u32) -> Option<()> {
        let value = u32_at(self.bytes, at)?;
        let target = if kind == Kind::Backward { from.wrapping_sub(value) } else { from.wrapping_add(value) };
        if self.layout.holds(target) {
            sites.push(Site::new(at as u32, kind, target));
        }
        Some(())
    }

    fn frames(&self, section: &Section, sites: &mut Vec<Site>) -> Option<()> {
        let mut at = section.offset;
        let end = section.offset + section.length;
        let mut common = (usize::MAX, false, false);
        while at + 12 <= end {
            let length = u32_at(self.bytes, at)? as usize;
            if !(4..0xffff_fff0).contains(&length) {
                at += 4;
                continue;
            }
            let id = u32_at(self.bytes, at + 4)?;
            if id != 0 {
                let parent = (at + 4).checked_sub(id as usize)?;
                if common.0 != parent {
                    let (narrow, handler) = common_entry(self.bytes, parent).unwrap_or((false, false));
                    common = (parent, narrow, handler);
                }
                let address = |at: usize| self.layout.address(at as u32);
                self.relative(sites, at + 4, Kind::Backward, address(at + 4)?);
                if common.1 {
                    self.relative(sites, at + 8, Kind::Forward, address(at + 8)?);
                    if common.2 && *self.bytes.get(at + 16)? == 4 && u32_at(self.bytes, at + 17)? != 0 {
                        self.relative(sites, at + 17, Kind::Forward, address(at + 17)?);
                    }
                }
            }
            at = at.checked_add(4)?.checked_add(length)?;
        }
        Some(())
    }
}

/// Of a common information entry: whether its functions are named by 32-bit distances, and
/// whether its entries point to exception tables.
fn common_entry(bytes: &[u8], at: usize) -> Option<(bool, bool)> {
    let text = bytes.get(at + 9..at + 17)?;
    let end = text.iter().position(|&byte| byte == 0)?;
    let augmentation = &text[..end];
    if augmentation.first() != Some(&b'z') {
        return Some((false, false));
    }
    // Code alignment, data alignment, return register, length: one byte each in practice.
    let mut place = at + 9 + end + 1 + 4;
    let (mut narrow, mut handler) = (false, false);
    for letter in &augmentation[1..] {
        let encoding = *bytes.get(place)?;
        place += 1;
        match letter {
            b'R' => narrow = encoding == 0x1b,
            b'L' => handler = encoding == 0x1b,
            b'P' => place += if encoding & 0x0f == 0x0b || encoding & 0x0f == 3 { 4 } else { 8 },
            _ => return None,
        }
    }
    Some((narrow, handler))
}

fn sections(bytes: &[u8]) -> Option<Vec<Section>> {
    let table = usize::try_from(u64_at(bytes, 40)?).ok()?;
    let count = usize::from(u16_at(bytes, 60)?).min(SECTIONS);
    let mut sections = Vec::with_capacity(count);
    for index in 0..count {
        let at = table.checked_add(index * 64)?;
        let kind = u32_at(bytes, at + 4)?;
        let offset = usize::try_from(u64_at(bytes, at + 24)?).ok()?;
        let mut length = usize::try_from(u64_at(bytes, at + 32)?).ok()?;
        if kind == 8 || offset.checked_add(length).is_none_or(|end| end > bytes.len()) {
            length = 0;
        }
        sections.push(Section {
            kind,
            flags: u64_at(bytes, at + 8)?,
            offset: offset.min(bytes.len()),
            length,
            name: u32_at(bytes, at)?,
        });
    }
    Some(sections)
}
