//! Patches for executables and other binaries.
//!
//! A release of a program moves most of its code and changes little of it, but whatever moves
//! changes the fields that hold its address, all over the file. So both files are first read for
//! *reference sites*: branch distances and addresses in instructions, relocations, symbols, unwind
//! and jump tables (`site`, `elf`, `x86`). The aligner finds which bytes are like which while
//! it looks at what the sites point to and not at what they say (`align`, `view`). Both sides
//! then know where everything went (`map`), and so what each site says after the move.
//!
//! What is left goes through a model that predicts each byte from the old one, the bytes before
//! and the instruction it is in (`model`), and an arithmetic coder (`coder`). A site that is
//! taken for something else, or not found, costs bytes of the patch and never the right result.
//!
//! The bytes of a patch: one for the version, one for the size of the model, then the coded
//! numbers and bytes of all members as one stream (`member`). All of it is integer arithmetic.

mod align;
mod coder;
mod elf;
mod map;
mod member;
mod mixer;
mod model;
mod site;
mod track;
mod view;
mod x86;

use self::coder::{Reader, Writer};
use self::map::{Equivalence, Map};
use self::member::{Member, Shared};
use self::site::{Layout, Sites};
use crate::error::{Error, ErrorKind, Result};

const VERSION: u8 = 1;
/// The effort from which files are aligned a second time, by what their references point to.
const THOROUGH: u8 = 3;
/// Size of the model: 2^20 cells for each context, 50 MiB in all, of which only what is used is touched.
const BITS: u32 = 20;
/// Bytes that the decoder may hand out at a time.
const PIECE: usize = 1 << 20;

/// Describes new members by old ones.
#[derive(Debug)]
pub struct Encoder {
    memory: u64,
    effort: u8,
    bits: u32,
    shared: Shared,
    writer: Writer,
}

impl Encoder {
    /// `memory` bounds what [`add`](Encoder::add) takes besides its arguments.
    pub fn new(memory: u64, effort: u8) -> Encoder {
        let bits = BITS;
        Encoder { memory, effort, bits, shared: Shared::new(bits), writer: Writer::new() }
    }

    /// Adds a member.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] if a member is 256 MiB or more, or takes more memory than allowed.
    pub fn add(&mut self, old: &[u8], new: &[u8]) -> Result<()> {
        if old.len() >= site::LARGEST || new.len() >= site::LARGEST {
            return Err(Error::new(ErrorKind::TooLarge, "a binary is too large to be patched in one piece"));
        }
        let needed = 6 * old.len() as u64 + 2 * new.len() as u64;
        if needed > self.memory {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!(
                    "patching this binary takes {needed} bytes of memory, and {} are allowed",
                    self.memory
                ),
            ));
        }
        let sites = Sites::find(old);
        let (layout, list) = equivalences(old, &sites, new, self.effort);
        let (writer, shared) = (&mut self.writer, &mut self.shared);
        let layout = member::code_layout(writer, shared, &layout)?;
        let list = member::code_equivalences(writer, shared, &list, old.len(), new.len())?;
        let mut bytes = new.to_vec();
        Member::new(old, &sites, &layout, &list).code(writer, shared, &list, &mut bytes, true)
    }

    /// The patch of all members.
    pub fn finish(self) -> Result<Vec<u8>> {
        let mut patch = vec![VERSION, self.bits as u8];
        patch.extend_from_slice(&self.writer.finish());
        Ok(patch)
    }
}

fn equivalences(old: &[u8], sites: &Sites, new: &[u8], effort: u8) -> (Layout, Vec<Equivalence>) {
    let found = Sites::find(new);
    let mut list = align::align(&view::blind(old, sites, 0), &view::blind(new, &found, 1));
    if !sites.sites.is_empty() && effort >= THOROUGH {
        let map = Map::new(&sites.layout, &found.layout, &list);
        list = align::align(&view::labelled(old, sites, Some(&map)), &view::labelled(new, &found, None));
    }
    if list.len() > member::most(new.len()) {
        list.retain(|equivalence| equivalence.length >= 16);
    }
    (found.layout, list)
}

/// How many references are found in a file before those that overlap are left out.
#[cfg(test)]
pub(crate) fn sites(bytes: &[u8]) -> usize {
    let mut sites = Vec::new();
    if let Some(elf) = elf::Elf::parse(bytes) {
        elf.data_sites(&mut sites, &mut Vec::new());
    }
    sites.len()
}

/// Makes new members from old ones.
#[derive(Debug)]
pub struct Decoder<'a> {
    shared: Shared,
    reader: Reader<'a>,
    limit: u64,
}

impl<'a> Decoder<'a> {
    /// All members together may have `limit` bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if the patch is of another version.
    pub fn new(bytes: &'a [u8], limit: u64) -> Result<Decoder<'a>> {
        let Some((&[version, bits], rest)) = bytes.split_first_chunk::<2>() else {
            return Err(Error::invalid("a patch of a binary is empty"));
        };
        if version != VERSION || !model::SIZES.contains(&u32::from(bits)) {
            return Err(Error::new(ErrorKind::Unsupported, "a patch of a binary has an unknown version"));
        }
        Ok(Decoder { shared: Shared::new(u32::from(bits)), reader: Reader::new(rest), limit })
    }

    /// Makes the next member, `size` bytes, from `old`.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] past the limit, [`ErrorKind::Invalid`] if the patch is damaged as far
    /// as can be told: the result is to be verified.
    pub fn next(&mut self, old: &[u8], size: u64, out: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        if size > self.limit || size >= site::LARGEST as u64 || old.len() >= site::LARGEST {
            return Err(Error::new(ErrorKind::TooLarge, "a patched binary is larger than the limit"));
        }
        self.limit -= size;
        let sites = Sites::find(old);
        let (reader, shared) = (&mut self.reader, &mut self.shared);
        let layout = member::code_layout(reader, shared, &Layout::default())?;
        let list = member::code_equivalences(reader, shared, &[], old.len(), size as usize)?;
        let mut bytes = vec![0; size as usize];
        Member::new(old, &sites, &layout, &list).code(reader, shared, &list, &mut bytes, false)?;
        bytes.chunks(PIECE).try_for_each(out)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(pairs: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
        let mut encoder = Encoder::new(1 << 30, 5);
        for (old, new) in pairs {
            encoder.add(old, new).unwrap();
        }
        encoder.finish().unwrap()
    }

    fn decode(patch: &[u8], old: &[u8], size: usize) -> Result<Vec<u8>> {
        let mut new = Vec::new();
        Decoder::new(patch, size as u64)?.next(old, size as u64, &mut |piece| {
            new.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(new)
    }

    fn noise(seed: u32, length: usize) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 11) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    /// An executable: functions that call each other, pointers to them, and where all of it lies.
    /// Before function `wedge` there is one more.
    fn executable(functions: usize, wedge: usize) -> Vec<u8> {
        const TEXT: usize = 0x1000;
        let mut starts = Vec::new();
        let mut at = TEXT;
        for index in 0..functions {
            at += if index == wedge { 61 } else { 0 };
            starts.push(at);
            at += 70 + index % 7;
        }
        let data = at.next_multiple_of(8);
        let mut file = vec![0u8; data + 8 * functions];
        file[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
        let mut put = |at: usize, width: usize, value: u64| {
            file[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
        };
        const BASE: u64 = 0x40_0000;
        put(16, 2, 2);
        put(18, 2, 62);
        put(32, 8, 64);
        put(40, 8, 0x200);
        put(54, 2, 56);
        put(56, 2, 1);
        put(58, 2, 64);
        put(60, 2, 3);
        let size = (data + 8 * functions) as u64;
        for (field, value) in [(0, 1), (8, 0), (16, BASE), (32, size), (40, size)] {
            put(64 + field, 8, value);
        }
        let text = [(4, 4, 1), (8, 8, 6), (24, 8, TEXT as u64), (32, 8, (data - TEXT) as u64)];
        let words = [(4, 4, 1), (8, 8, 3), (24, 8, data as u64), (32, 8, 8 * functions as u64)];
        for (section, fields) in [(1, text), (2, words)] {
            for (field, width, value) in fields {
                put(0x200 + 64 * section + field, width, value);
            }
        }
        for (index, &start) in starts.iter().enumerate() {
            put(data + 8 * index, 8, BASE + start as u64);
            let mut at = start;
            for call in 0..5 {
                // mov eax, imm32; call
                put(at, 1, 0xb8);
                put(at + 1, 4, (index * 977 + call * 31) as u64);
                put(at + 5, 1, 0xe8);
                let target = starts[(index * 7 + call * 11) % functions];
                put(at + 6, 4, target.wrapping_sub(at + 10) as u64);
                at += 10;
            }
            put(at, 1, 0xc3);
        }
        file
    }

    #[test]
    fn a_moved_function_moves_all_that_refers_to_it() {
        let (old, new) = (executable(400, 0), executable(400, 130));
        let wrong = old.iter().zip(&new).filter(|(a, b)| a != b).count();
        assert!(wrong > 2000, "{wrong}");
        let patch = encode(&[(old.clone(), new.clone())]);
        assert!(patch.len() < 120, "{} bytes", patch.len());
        assert!(decode(&patch, &old, new.len()).unwrap() == new);
    }

    #[test]
    fn members_share_what_was_learned() {
        let (old, new) = (noise(1, 3000), noise(2, 3000));
        let one = encode(&[(old.clone(), new.clone())]);
        let pairs = vec![(old, new.clone()), (noise(3, 50), new)];
        let both = encode(&pairs);
        assert!(both.len() < one.len() + one.len() / 2, "{} and {} bytes", one.len(), both.len());
        let mut decoder = Decoder::new(&both, 6000).unwrap();
        for (old, new) in &pairs {
            let mut made = Vec::new();
            let mut take = |piece: &[u8]| {
                made.extend_from_slice(piece);
                Ok(())
            };
            decoder.next(old, new.len() as u64, &mut take).unwrap();
            assert!(made == *new);
        }
        assert_eq!(decoder.next(&[], 1, &mut |_| Ok(())).unwrap_err().kind(), ErrorKind::TooLarge);
    }

    #[test]
    fn nothing_of_nothing() {
        for (old, new) in
            [(vec![], vec![]), (vec![7], vec![]), (vec![], vec![7; 40]), (vec![1, 2], vec![2, 1])]
        {
            let patch = encode(&[(old.clone(), new.clone())]);
            assert!(decode(&patch, &old, new.len()).unwrap() == new);
        }
    }

    #[test]
    fn headers_that_lie_are_no_executable() {
        let honest = executable(20, 0);
        for at in (16..0x200 + 192).step_by(14) {
            let mut lying = honest.clone();
            lying[at] ^= 0xff;
            lying[at + 1] ^= 0xff;
            let patch = encode(&[(lying.clone(), honest.clone())]);
            assert!(decode(&patch, &lying, honest.len()).unwrap() == honest);
        }
    }

    #[test]
    fn too_little_memory_is_refused() {
        let error = Encoder::new(100, 5).add(&[0; 100], &[0; 100]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
    }

    #[test]
    fn a_patch_that_ends_early_is_damaged() {
        let (old, new) = (noise(1, 100), noise(2, 9000));
        let patch = encode(&[(old.clone(), new.clone())]);
        assert!(decode(&patch[..1], &old, new.len()).is_err());
        match decode(&patch[..patch.len() / 2], &old, new.len()) {
            Ok(_) => panic!("half a patch made a member"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Invalid),
        }
        let mut other = patch.clone();
        other[0] = 99;
        assert_eq!(decode(&other, &old, new.len()).unwrap_err().kind(), ErrorKind::Unsupported);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn edits_come_back(
            seed in 0u32..1000,
            edits in proptest::collection::vec((0usize..4000, 0usize..80, 0usize..80), 0..12),
        ) {
            let old = noise(seed, 4000);
            let mut new = old.clone();
            for (at, cut, insert) in edits {
                let at = at.min(new.len());
                let end = (at + cut).min(new.len());
                new.splice(at..end, noise(at as u32, insert));
            }
            let patch = encode(&[(old.clone(), new.clone())]);
            prop_assert!(decode(&patch, &old, new.len()).unwrap() == new);
        }

        #[test]
        fn hostile_patches_end(mut patch in proptest::collection::vec(any::<u8>(), 0..300), wedge in 0usize..30) {
            if patch.len() > 2 {
                patch[0] = VERSION;
                patch[1] = 16;
            }
            let _ = decode(&patch, &executable(30, wedge), 5000);
        }

        #[test]
        fn damage_is_seen_or_harmless(at in 2usize..1000, bit in 0u8..8) {
            let (old, new) = (executable(60, 0), executable(60, 20));
            let mut patch = encode(&[(old.clone(), new.clone())]);
            let at = at % patch.len();
            patch[at] ^= 1 << bit;
            if let Ok(made) = decode(&patch, &old, new.len()) {
                prop_assert_eq!(made.len(), new.len());
            }
        }
    }
}
