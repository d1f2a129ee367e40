//! Reference sites: the fields of a file that hold an address, and what they point to.

use super::elf::{Elf, u32_at};
use super::x86::{self, Parsed};

/// How a field names its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// 32 bits from the end of the instruction, which is this many bytes after the field.
    Code(u8),
    /// 64 bits, the address itself.
    Absolute,
    /// 32 bits from the start of the table it is in.
    Table,
    /// 32 bits from the field itself.
    Forward,
    /// 32 bits back from the field itself.
    Backward,
}

/// A field and its target, an address relative to the image's base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Site {
    place: u32,
    pub(super) target: u32,
}

/// Files are smaller than this, so that a site is eight bytes.
pub(super) const LARGEST: usize = 1 << 28;

impl Site {
    pub(super) fn new(at: u32, kind: Kind, target: u32) -> Site {
        let code = match kind {
            Kind::Code(0) => 0,
            Kind::Code(1) => 1,
            Kind::Code(2) => 2,
            Kind::Code(_) => 3,
            Kind::Absolute => 4,
            Kind::Table => 5,
            Kind::Forward => 6,
            Kind::Backward => 7,
        };
        Site { place: at | code << 28, target }
    }

    /// Where in the file.
    #[inline]
    pub(super) fn at(self) -> u32 {
        self.place & (LARGEST as u32 - 1)
    }

    #[inline]
    pub(super) fn kind(self) -> Kind {
        match self.place >> 28 {
            0 => Kind::Code(0),
            1 => Kind::Code(1),
            2 => Kind::Code(2),
            3 => Kind::Code(4),
            4 => Kind::Absolute,
            5 => Kind::Table,
            6 => Kind::Forward,
            _ => Kind::Backward,
        }
    }

    #[inline]
    pub(super) fn width(self) -> u32 {
        if self.place >> 28 == 4 { 8 } else { 4 }
    }

    #[inline]
    pub(super) fn end(self) -> u32 {
        self.at() + self.width()
    }
}

/// A part of a file and where it lies in memory, relative to the image's base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) offset: u32,
    pub(super) address: u32,
    pub(super) length: u32,
    pub(super) memory: u32,
}

/// How a file lies in memory, and where its code is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) base: u64,
    /// By offset, not overlapping.
    pub(super) segments: Vec<Segment>,
    /// File ranges of machine code, by offset, not overlapping.
    pub(super) code: Vec<(u32, u32)>,
    top: u32,
}

impl Layout {
    /// `None` if parts overlap or pass 32 bits.
    pub(super) fn new(base: u64, mut segments: Vec<Segment>, mut code: Vec<(u32, u32)>) -> Option<Layout> {
        segments.sort_by_key(|segment| segment.offset);
        code.sort_unstable();
        let mut end = 0;
        let mut top = 0;
        for segment in &segments {
            if segment.offset < end {
                return None;
            }
            end = segment.offset.checked_add(segment.length)?;
            top = top.max(segment.address.checked_add(segment.memory.max(segment.length))?);
        }
        let mut end = 0;
        for &(from, to) in &code {
            if from < end || to < from || to as usize > LARGEST {
                return None;
            }
            end = to;
        }
        Some(Layout { base, segments, code, top })
    }

    /// The address of a byte of the file.
    #[inline]
    pub(super) fn address(&self, offset: u32) -> Option<u32> {
        let segment = self
            .segments
            .iter()
            .find(|segment| offset >= segment.offset && offset - segment.offset < segment.length)?;
        Some(segment.address.wrapping_add(offset - segment.offset))
    }

    /// The byte of the file that lies at an address.
    pub(super) fn offset(&self, address: u32) -> Option<u32> {
        let segment = self
            .segments
            .iter()
            .find(|segment| address >= segment.address && address - segment.address < segment.length)?;
        Some(segment.offset.wrapping_add(address - segment.address))
    }

    /// An absolute address made relative to the base, if the image holds it.
    pub(super) fn relative(&self, address: u64) -> Option<u32> {
        let relative = u32::try_from(address.checked_sub(self.base)?).ok()?;
        self.holds(relative).then_some(relative)
    }

    /// Whether the image has this address.
    #[inline]
    pub(super) fn holds(&self, address: u32) -> bool {
        address < self.top
    }
}

/// A file with its references.
#[derive(Debug, Default)]
pub(super) struct Sites {
    pub(super) layout: Layout,
    /// By place, not overlapping.
    pub(super) sites: Vec<Site>,
    /// File ranges of tables whose entries count from the table's start.
    pub(super) tables: Vec<(u32, u32)>,
}

impl Sites {
    /// Finds the references of an executable; none for any other file.
    pub(super) fn find(bytes: &[u8]) -> Sites {
        if bytes.len() >= LARGEST {
            return Sites::default();
        }
        let Some(elf) = Elf::parse(bytes) else { return Sites::default() };
        let mut sites = Vec::with_capacity(bytes.len() / 16);
        let mut tables = Vec::new();
        let mut starts = Vec::new();
        for &(from, to) in &elf.layout.code {
            sweep(bytes, from, to, &elf.layout, &mut sites, &mut starts);
        }
        jump_tables(bytes, &elf.layout, starts, &mut sites, &mut tables);
        elf.data_sites(&mut sites, &mut tables);
        sites.sort_unstable_by_key(|site| site.at());
        let mut end = 0;
        sites.retain(|site| {
            let keep = site.at() >= end && site.end() as usize <= bytes.len();
            if keep {
                end = site.end();
            }
            keep
        });
        sites.shrink_to_fit();
        tables.sort_unstable();
        Sites { layout: elf.layout, sites, tables }
    }

    /// The start of the table that a place is in.
    pub(super) fn table(&self, at: u32) -> Option<u32> {
        let index = self.tables.partition_point(|table| table.0 <= at);
        let table = self.tables.get(index.checked_sub(1)?)?;
        (at < table.1).then_some(table.0)
    }
}

/// Reads code from front to end, one instruction after the other.
fn sweep(bytes: &[u8], from: u32, to: u32, layout: &Layout, sites: &mut Vec<Site>, starts: &mut Vec<u32>) {
    let Some(code) = bytes.get(from as usize..to as usize) else { return };
    let Some(origin) = layout.address(from) else { return };
    let mut at = 0usize;
    while at < code.len() {
        let window = &code[at..code.len().min(at + x86::MAX)];
        let Parsed::Whole(instruction) = x86::parse(window) else {
            at += 1;
            continue;
        };
        if instruction.field != 0 {
            let field = at + usize::from(instruction.field);
            let end = at + usize::from(instruction.length);
            let tail = end - field - 4;
            if let Some(distance) = u32_at(code, field).filter(|_| matches!(tail, 0 | 1 | 2 | 4)) {
                let target = origin.wrapping_add(end as u32).wrapping_add(distance);
                if layout.holds(target) {
                    sites.push(Site::new(from + field as u32, Kind::Code(tail as u8), target));
                    if instruction.field > 1 && window[usize::from(instruction.field) - 2] == 0x8d {
                        starts.push(target);
                    }
                }
            }
        }
        at += usize::from(instruction.length);
    }
}

/// Tables of 32-bit distances to code, as compilers make them for `switch`: they start where an
/// address is taken, and end where an entry does not point to code or the next table starts.
fn jump_tables(
    bytes: &[u8],
    layout: &Layout,
    mut starts: Vec<u32>,
    sites: &mut Vec<Site>,
    tables: &mut Vec<(u32, u32)>,
) {
    let code: Vec<(u32, u32)> = layout
        .code
        .iter()
        .filter_map(|&(from, to)| {
            Some((layout.address(from)?, layout.address(from)?.checked_add(to - from)?))
        })
        .collect();
    let is_code = |address: u32| code.iter().any(|&(from, to)| address >= from && address < to);
    starts.sort_unstable();
    starts.dedup();
    for (index, &start) in starts.iter().enumerate() {
        if start % 4 != 0 || is_code(start) {
            continue;
        }
        let Some(offset) = layout.offset(start) else { continue };
        let limit = starts.get(index + 1).map_or(u32::MAX, |&next| next - start).min(4 * 4096);
        let first = sites.len();
        let mut length = 0;
        while length + 4 <= limit {
            let Some(distance) = u32_at(bytes, (offset + length) as usize) else { break };
            let target = start.wrapping_add(distance);
            if !is_code(target) {
                break;
            }
            sites.push(Site::new(offset + length, Kind::Table, target));
            length += 4;
        }
        if length < 12 {
            sites.truncate(first);
        } else {
            tables.push((offset, offset + length));
        }
    }
}
