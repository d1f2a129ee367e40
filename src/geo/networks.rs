//! Countries by a list of networks: for tests, small installations and internal networks.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::tree::Forest;
use super::watched::Watched;
use super::{GeoResolver, GeoState, Lookup};
use crate::error::{Error, Result};
use crate::place::{Country, Network};

/// Longest file with networks, in bytes.
const MAX_FILE: u64 = 64 << 20;

/// A list of networks and their countries. Of several that hold an address the smallest answers.
#[derive(Clone, Default)]
pub struct StaticGeo {
    pub(super) forest: Forest,
    networks: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    network: Network,
    country: Country,
}

impl StaticGeo {
    /// Knows these networks.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::error::ErrorKind::Invalid) if a network is given twice.
    pub fn new(networks: impl IntoIterator<Item = (Network, Country)>) -> Result<StaticGeo> {
        let mut geo = StaticGeo::default();
        for (network, country) in networks {
            geo.insert(network, country)?;
        }
        Ok(geo)
    }

    /// Reads a list: CSV with lines `192.0.2.0/24,DE`, where the first may be `network,country` and
    /// those that are empty or begin with `#` do not count; or a JSON array of
    /// `{"network": "192.0.2.0/24", "country": "DE"}`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::error::ErrorKind::Invalid), with the line, for what is neither
    /// and for a network that is given twice.
    pub fn parse(text: &str) -> Result<StaticGeo> {
        if text.trim_start().starts_with('[') {
            let rows: Vec<Row> = serde_json::from_str(text)
                .map_err(|cause| Error::invalid(format!("the list of networks cannot be read: {cause}")))?;
            return StaticGeo::new(rows.into_iter().map(|row| (row.network, row.country)));
        }
        let mut geo = StaticGeo::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') || number == 0 && line == "network,country" {
                continue;
            }
            geo.line(line).map_err(|error| error.context(format_args!("line {}", number + 1)))?;
        }
        Ok(geo)
    }

    /// How many networks it knows.
    pub fn len(&self) -> usize {
        self.networks
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.networks == 0
    }

    fn line(&mut self, line: &str) -> Result<()> {
        let (network, country) = line
            .split_once(',')
            .ok_or_else(|| Error::invalid("expected a network, a comma and a country"))?;
        self.insert(network.trim().parse()?, country.trim().parse()?)
    }

    fn insert(&mut self, network: Network, country: Country) -> Result<()> {
        if !self.forest.insert(network, country) {
            return Err(Error::invalid(format!("the network {network} is given twice")));
        }
        self.networks += 1;
        Ok(())
    }
}

impl GeoResolver for StaticGeo {
    fn resolve(&self, address: IpAddr) -> Lookup {
        Lookup::of(self.forest.find(address))
    }

    fn state(&self) -> GeoState {
        GeoState { database_type: Some("networks".into()), ..GeoState::default() }
    }
}

impl fmt::Debug for StaticGeo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticGeo").field("networks", &self.networks).finish_non_exhaustive()
    }
}

/// A [`StaticGeo`] read from a file, and read again when the file changes. A file that cannot be
/// read leaves the list that was there in force.
#[derive(Debug)]
pub struct NetworkFile(Watched<StaticGeo>);

impl NetworkFile {
    /// Reads the file, which [`StaticGeo::parse`] describes.
    ///
    /// # Errors
    /// Why the file cannot be used, with its name.
    pub fn open(path: impl Into<PathBuf>) -> Result<NetworkFile> {
        let file = NetworkFile(Watched::new(path, MAX_FILE));
        file.0.reload(load)?;
        Ok(file)
    }
}

fn load(bytes: Vec<u8>) -> Result<StaticGeo> {
    let text = String::from_utf8(bytes).map_err(|_| Error::invalid("the list of networks is not UTF-8"))?;
    StaticGeo::parse(&text)
}

impl GeoResolver for NetworkFile {
    fn resolve(&self, address: IpAddr) -> Lookup {
        self.0.with(|geo| geo.resolve(address)).unwrap_or_default()
    }

    fn state(&self) -> GeoState {
        GeoState {
            file: self.0.path().map(Path::to_owned),
            database_type: Some("networks".into()),
            degraded: self.0.fault(),
            ..GeoState::default()
        }
    }

    fn refresh(&self) -> Result<bool> {
        self.0.refresh(load)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(geo: &dyn GeoResolver, address: &str) -> Option<String> {
        geo.resolve(address.parse().unwrap()).country.map(|country| country.to_string())
    }

    #[test]
    fn the_smallest_network_answers_in_any_order() {
        let rows = ["192.0.2.0/24,DE", "192.0.2.128/25,FR", "0.0.0.0/0,US", "192.0.2.129/32,PL"];
        let mut backwards = rows;
        backwards.reverse();
        for rows in [rows, backwards] {
            let geo = StaticGeo::parse(&rows.join("\r\n")).unwrap();
            for (address, country) in [
                ("192.0.2.1", "DE"),
                ("192.0.2.128", "FR"),
                ("192.0.2.129", "PL"),
                ("::ffff:192.0.2.129", "PL"),
                ("127.0.0.1", "US"),
            ] {
                assert_eq!(at(&geo, address).as_deref(), Some(country), "{address}");
            }
            assert_eq!(at(&geo, "2001:db8::1"), None);
        }
    }

    #[test]
    fn lists_that_say_two_things_are_refused() {
        let good = "network,country\n# ours\n\n 192.0.2.0/24 , DE \n2001:db8::/32,FR\n";
        assert_eq!(StaticGeo::parse(good).unwrap().len(), 2);
        let json = r#" [{"network":"192.0.2.0/24","country":"DE"}]"#;
        assert_eq!(at(&StaticGeo::parse(json).unwrap(), "192.0.2.9").as_deref(), Some("DE"));
        assert!(StaticGeo::parse("").unwrap().is_empty());
        for bad in [
            "192.0.2.0/24,DE\n192.0.2.0/24,FR",
            "192.0.2.0/24,DE\n192.0.2.0/24,DE",
            "192.0.2.1/24,DE",
            "192.0.2.0/24,de",
            "192.0.2.0/24,",
            "192.0.2.0/24",
            "192.0.2.0/24,DE,x",
            "192.0.2.0/24,DE\nnetwork,country",
            r#"[{"network":"192.0.2.0/24","country":"DE","x":1}]"#,
            r#"[{"network":"192.0.2.0/24","country":"DE","country":"FR"}]"#,
            r#"[{"network":"192.0.2.0/24"}]"#,
            "[",
        ] {
            assert!(StaticGeo::parse(bad).is_err(), "{bad}");
        }
        let why = StaticGeo::parse("192.0.2.0/24,DE\n\nx").unwrap_err().to_string();
        assert_eq!(why, "line 3: expected a network, a comma and a country");
    }

    #[test]
    fn a_bad_list_keeps_the_old_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("networks.csv");
        std::fs::write(&path, "192.0.2.0/24,DE\n").unwrap();
        let geo = NetworkFile::open(&path).unwrap();
        assert!(!geo.refresh().unwrap(), "nothing changed");
        for bad in [Some(&b"192.0.2.0/24,D"[..]), Some(b"\xff"), None] {
            match bad {
                Some(bad) => std::fs::write(&path, bad).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            let why = geo.refresh().unwrap_err().to_string();
            assert!(why.contains("networks.csv"), "{why}");
            assert!(!geo.refresh().unwrap(), "it is looked at once");
            assert_eq!(geo.state().degraded, Some(why));
            assert_eq!(at(&geo, "192.0.2.1").as_deref(), Some("DE"));
        }
        std::fs::write(&path, "192.0.2.0/24,FR\n").unwrap();
        assert!(geo.refresh().unwrap());
        assert_eq!(at(&geo, "192.0.2.1").as_deref(), Some("FR"));
        assert_eq!(geo.state().degraded, None);
        assert!(NetworkFile::open(directory.path()).is_err(), "a directory");
    }

    proptest! {
        /// The trie answers what looking at every network in turn does.
        #[test]
        fn the_trie_equals_a_list(
            rows in prop::collection::vec((any::<u32>(), 0_u8..=32, 0_u8..26), 0..40),
            addresses in prop::collection::vec(any::<u32>(), 0..20),
        ) {
            let mut list: Vec<(Network, Country)> = Vec::new();
            for (address, prefix, letter) in rows {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                let text = format!("{}/{prefix}", std::net::Ipv4Addr::from(address & mask));
                let network: Network = text.parse().unwrap();
                if list.iter().all(|(other, _)| *other != network) {
                    let letters = format!("D{}", char::from(b'A' + letter));
                    list.push((network, letters.parse().unwrap()));
                }
            }
            let geo = StaticGeo::new(list.clone()).unwrap();
            let near = list.iter().map(|(network, _)| network.address());
            for address in near.chain(addresses.into_iter().map(|bits| IpAddr::from(bits.to_be_bytes()))) {
                let inside = list.iter().filter(|(network, _)| network.contains(address));
                let expected = inside.max_by_key(|(network, _)| network.prefix()).map(|(_, country)| *country);
                prop_assert_eq!(geo.resolve(address).country, expected);
            }
        }
    }
}
