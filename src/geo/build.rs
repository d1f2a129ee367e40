//! A list of networks as a MaxMind DB file (format 2.0), for every program that reads such files.

use super::StaticGeo;
use super::tree::Tree;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::place::Country;

/// Between the search tree and the data section stand 16 zero bytes.
const SEPARATOR: usize = 16;
const METADATA_MARKER: &[u8] = b"\xab\xcd\xefMaxMind.com";
/// IPv4 addresses stand in the IPv6 tree behind 96 zero bits.
const V4_PREFIX: u8 = 96;

impl StaticGeo {
    /// The list as a MaxMind DB file whose records have the one member `country.iso_code`.
    /// `database_type` and `description` are what the file says of itself, `built` is when its data
    /// was put together.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for an IPv6 network inside `::/96`, where the format keeps IPv4, and for
    /// a type or description that is empty or longer than 200 bytes; [`ErrorKind::TooLarge`] if the
    /// numbers of the format do not reach.
    pub fn to_database(&self, database_type: &str, description: &str, built: Timestamp) -> Result<Vec<u8>> {
        for text in [database_type, description] {
            if text.is_empty() || text.len() > 200 {
                return Err(Error::invalid("a geo database has a type and a description of 1 to 200 bytes"));
            }
        }
        let mut tree = self.forest.v6.clone();
        let graft = tree.reach(0, V4_PREFIX);
        let node = tree.node(graft);
        if node.country.is_some() || node.children != [0, 0] {
            return Err(Error::invalid("an IPv6 network lies in ::/96, where the format keeps IPv4"));
        }
        let mut writer = Writer { nodes: Vec::new(), countries: Vec::new(), graft, v4: &self.forest.v4 };
        // The way to the graft makes the root a node, so its record is 0.
        writer.record(&tree, 0, None, true);
        writer.finish(database_type, description, built)
    }
}

/// What a search tree's record leads to.
#[derive(Clone, Copy)]
enum Record {
    Node(usize),
    Country(usize),
    Nothing,
}

struct Writer<'a> {
    nodes: Vec<[Record; 2]>,
    /// In the order in which they stand in the data section.
    countries: Vec<Country>,
    /// The node of the IPv6 tree in whose place the IPv4 tree comes.
    graft: u32,
    v4: &'a Tree,
}

impl Writer<'_> {
    /// The record for the node `at`, where `above` is the country of what is around it.
    fn record(&mut self, tree: &Tree, at: u32, above: Option<Country>, v6: bool) -> Record {
        if v6 && at == self.graft {
            // A network around ::/96 is one of IPv6 addresses: it says nothing of IPv4.
            return self.record(self.v4, 0, None, false);
        }
        let node = tree.node(at);
        let country = node.country.or(above);
        if node.children == [0, 0] {
            return self.country(country);
        }
        let index = self.nodes.len();
        self.nodes.push([Record::Nothing; 2]);
        for (side, child) in node.children.into_iter().enumerate() {
            let record =
                if child == 0 { self.country(country) } else { self.record(tree, child, country, v6) };
            self.nodes[index][side] = record;
        }
        Record::Node(index)
    }

    fn country(&mut self, country: Option<Country>) -> Record {
        let Some(country) = country else { return Record::Nothing };
        let known = self.countries.iter().position(|other| *other == country);
        Record::Country(known.unwrap_or_else(|| {
            self.countries.push(country);
            self.countries.len() - 1
        }))
    }

    fn finish(self, database_type: &str, description: &str, built: Timestamp) -> Result<Vec<u8>> {
        let mut data = Vec::new();
        let mut offsets = Vec::new();
        for country in &self.countries {
            offsets.push(data.len());
            map(&mut data, 1);
            string(&mut data, "country");
            map(&mut data, 1);
            string(&mut data, "iso_code");
            string(&mut data, country.as_str());
        }
        let count = self.nodes.len();
        let too_large =
            || Error::new(ErrorKind::TooLarge, "there are too many networks for one geo database");
        let largest = u32::try_from(count + SEPARATOR + data.len()).map_err(|_| too_large())?;
        let width = if largest < 1 << 24 { 3 } else { 4 };
        let mut file = Vec::with_capacity(count * 2 * width + data.len() + 512);
        for record in self.nodes.iter().flatten() {
            let value = match *record {
                Record::Node(index) => index,
                Record::Nothing => count,
                Record::Country(country) => count + SEPARATOR + offsets[country],
            };
            // None is larger than the largest.
            file.extend_from_slice(&(value as u32).to_be_bytes()[4 - width..]);
        }
        file.extend_from_slice(&[0; SEPARATOR]);
        file.extend_from_slice(&data);
        file.extend_from_slice(METADATA_MARKER);
        map(&mut file, 9);
        string(&mut file, "binary_format_major_version");
        number(&mut file, UINT16, 2);
        string(&mut file, "binary_format_minor_version");
        number(&mut file, UINT16, 0);
        string(&mut file, "build_epoch");
        number(&mut file, UINT64, built.as_unix().unsigned_abs());
        string(&mut file, "database_type");
        string(&mut file, database_type);
        string(&mut file, "description");
        map(&mut file, 1);
        string(&mut file, "en");
        string(&mut file, description);
        string(&mut file, "ip_version");
        number(&mut file, UINT16, 6);
        string(&mut file, "languages");
        file.extend_from_slice(&[0, ARRAY - 7]);
        string(&mut file, "node_count");
        number(&mut file, UINT32, count as u64);
        string(&mut file, "record_size");
        number(&mut file, UINT16, width as u64 * 8);
        Ok(file)
    }
}

const STRING: u8 = 2;
const UINT16: u8 = 5;
const UINT32: u8 = 6;
const MAP: u8 = 7;
const UINT64: u8 = 9;
const ARRAY: u8 = 11;

fn map(out: &mut Vec<u8>, members: u8) {
    out.push(MAP << 5 | members);
}

/// "If the value is 29, then the size is 29 + the next byte after the type specifying bytes."
fn string(out: &mut Vec<u8>, text: &str) {
    match text.len() {
        short @ 0..29 => out.push(STRING << 5 | short as u8),
        long => out.extend_from_slice(&[STRING << 5 | 29, (long - 29) as u8]),
    }
    out.extend_from_slice(text.as_bytes());
}

/// Leading zero bytes are left out. A type above 7 stands in a byte of its own, less 7.
fn number(out: &mut Vec<u8>, kind: u8, value: u64) {
    let bytes = value.to_be_bytes();
    let digits = &bytes[value.leading_zeros() as usize / 8..];
    let size = digits.len() as u8;
    if kind > MAP {
        out.extend_from_slice(&[size, kind - 7])
    } else {
        out.push(kind << 5 | size)
    }
    out.extend_from_slice(digits);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_format_cannot_say_is_refused() {
        let at = Timestamp::from_unix(1_800_000_000);
        let own = StaticGeo::parse("::1/128,DE").unwrap();
        assert_eq!(own.to_database("x", "y", at).unwrap_err().kind(), ErrorKind::Invalid);
        let own = StaticGeo::parse("::/96,DE").unwrap();
        assert!(own.to_database("x", "y", at).is_err());
        assert!(StaticGeo::default().to_database("", "y", at).is_err());
        assert!(StaticGeo::default().to_database("x", &"y".repeat(201), at).is_err());
    }
}
