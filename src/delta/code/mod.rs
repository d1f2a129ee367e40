//! Patches for executables and other binaries.
//!
//! A release of a program moves most of its code and changes little of it, but whatever moves
//! changes the fields that hold its address, all over the file. So both files are first read for
//! *reference sites*: branch distances and addresses in instructions, relocations, symbols, unwind
//! and jump tables ([`site`], [`elf`], [`x86`]). The aligner finds which bytes are like which while
//! it looks at what the sites point to and not at what they say ([`align`], [`view`]). Both sides
//! then know where everything went ([`map`]), and so what each site says after the move.
//!
//! What is left goes through a model that predicts each byte from the old one, the bytes before
//! and the instruction it is in ([`model`]), and an arithmetic coder ([`coder`]). A site that is
//! taken for something else, or not found, costs bytes of the patch and never the right result.
//!
//! The bytes of a patch: one for the version, one for the size of the model, then the coded
//! numbers and bytes of all members as one stream ([`member`]). All of it is integer arithmetic.

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
/// Bytes that the decoder may hand out at a time.
const PIECE: usize = 1 << 20;

/// Describes new members by old ones.
#[derive(Debug)]
pub(crate) struct Encoder {
    memory: u64,
    effort: u8,
    bits: u32,
    shared: Shared,
    writer: Writer,
}

impl Encoder {
    /// `memory` bounds what [`add`](Encoder::add) takes besides its arguments.
    pub(crate) fn new(memory: u64, effort: u8) -> Encoder {
        let bits = 20;
        Encoder { memory, effort, bits, shared: Shared::new(bits), writer: Writer::new() }
    }

    /// Adds a member.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] if a member is 256 MiB or more, or takes more memory than allowed.
    pub(crate) fn add(&mut self, old: &[u8], new: &[u8]) -> Result<()> {
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
        let (layout, list) = equivalences(old, &sites, new);
        let (writer, shared) = (&mut self.writer, &mut self.shared);
        let layout = member::code_layout(writer, shared, &layout)?;
        let list = member::code_equivalences(writer, shared, &list, old.len(), new.len())?;
        shared.echo.restart();
        let mut bytes = new.to_vec();
        Member::new(old, &sites, &layout, &list).code(writer, shared, &list, &mut bytes, true)
    }

    /// The patch of all members.
    pub(crate) fn finish(self) -> Result<Vec<u8>> {
        let mut patch = vec![VERSION, self.bits as u8];
        patch.extend_from_slice(&self.writer.finish());
        Ok(patch)
    }
}

fn equivalences(old: &[u8], sites: &Sites, new: &[u8]) -> (Layout, Vec<Equivalence>) {
    let found = Sites::find(new);
    let mut list = align::align(&view::blind(old, sites, 0), &view::blind(new, &found, 1));
    if !sites.sites.is_empty() {
        let map = Map::new(&sites.layout, &found.layout, &list);
        list = align::align(&view::labelled(old, sites, Some(&map)), &view::labelled(new, &found, None));
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
pub(crate) struct Decoder<'a> {
    shared: Shared,
    reader: Reader<'a>,
    limit: u64,
}

impl<'a> Decoder<'a> {
    /// All members together may have `limit` bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if the patch is of another version.
    pub(crate) fn new(bytes: &'a [u8], limit: u64) -> Result<Decoder<'a>> {
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
    pub(crate) fn next(
        &mut self,
        old: &[u8],
        size: u64,
        out: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        if size > self.limit || size >= site::LARGEST as u64 || old.len() >= site::LARGEST {
            return Err(Error::new(ErrorKind::TooLarge, "a patched binary is larger than the limit"));
        }
        self.limit -= size;
        let sites = Sites::find(old);
        let (reader, shared) = (&mut self.reader, &mut self.shared);
        let layout = member::code_layout(reader, shared, &Layout::default())?;
        let list = member::code_equivalences(reader, shared, &[], old.len(), size as usize)?;
        shared.echo.restart();
        let mut bytes = vec![0; size as usize];
        Member::new(old, &sites, &layout, &list).code(reader, shared, &list, &mut bytes, false)?;
        bytes.chunks(PIECE).try_for_each(out)
    }
}
