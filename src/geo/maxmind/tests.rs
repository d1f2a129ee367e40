use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::geo::StaticGeo;
use crate::place::Network;

const BUILT: Timestamp = Timestamp::from_unix(1_800_000_000);

#[derive(Debug)]
struct Fixed(Timestamp);

impl Clock for Fixed {
    fn now(&self) -> Timestamp {
        self.0
    }
}

fn data(folder: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/geo").join(folder);
    let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = files.collect();
    files.sort();
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    files.iter().map(|path| (name(path), fs::read(path).unwrap())).collect()
}

fn good(name: &str) -> Vec<u8> {
    data("good").into_iter().find(|(file, _)| file == name).unwrap().1
}

fn small(rows: &str) -> Vec<u8> {
    StaticGeo::parse(rows).unwrap().to_database("Test-Country", "For tests", BUILT).unwrap()
}

fn file(bytes: &[u8]) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("country.mmdb");
    fs::write(&path, bytes).unwrap();
    (directory, path)
}

fn at(geo: &dyn GeoResolver, address: &str) -> Option<String> {
    geo.resolve(address.parse().unwrap()).country.map(|country| country.to_string())
}

#[test]
fn databases_of_others_tell_countries() {
    for name in ["GeoLite2-Country-Test.mmdb", "GeoLite2-City-Test.mmdb"] {
        let (_directory, path) = file(&good(name));
        let geo = MaxMindGeo::open(&path).unwrap();
        // The network is used in Great Britain and registered in France.
        assert_eq!(at(&geo, "2.125.160.217").as_deref(), Some("GB"), "{name}");
        assert_eq!(at(&geo, "::ffff:2.125.160.217").as_deref(), Some("GB"), "{name}");
        let state = geo.state();
        assert_eq!(state.database_type.as_deref(), name.strip_suffix("-Test.mmdb"));
        assert_eq!((state.degraded, state.file), (None, Some(path)));
        assert!(state.built.unwrap() > Timestamp::from_unix(1_500_000_000));
    }
}

/// Where a network was assigned is not where it is used: a restriction to the first would let in
/// whoever rents addresses there.
#[test]
fn a_registered_country_is_no_country() {
    // The second record, the last in the file, has the one member instead of the other.
    let mut bytes = small("192.0.2.0/24,DE\n198.51.100.0/24,FR");
    let member = b"\x47country";
    let last = bytes.windows(member.len()).rposition(|window| window == member).unwrap();
    bytes.splice(last..last + member.len(), *b"\x52registered_country");
    let (_directory, path) = file(&bytes);
    let geo = MaxMindGeo::open(path).unwrap();
    assert_eq!(at(&geo, "192.0.2.1").as_deref(), Some("DE"));
    assert_eq!(at(&geo, "198.51.100.1"), None);
}

#[test]
fn what_tells_no_countries_is_refused_at_once() {
    for (name, bytes) in data("good") {
        let (_directory, path) = file(&bytes);
        let opened = MaxMindGeo::open(&path);
        if name.contains("Country") || name.contains("City") {
            assert!(opened.is_ok(), "{name}");
        } else {
            assert_eq!(opened.unwrap_err().kind(), ErrorKind::Unsupported, "{name}");
        }
    }
    let (_directory, path) = file(&small("192.0.2.0/24,ZZ\n198.51.100.0/24,EU"));
    assert_eq!(MaxMindGeo::open(path).unwrap_err().kind(), ErrorKind::Unsupported);
}

/// J01: of these files the reader opens more than half, and verifying refuses them all.
#[test]
fn corrupt_files_are_refused_under_load() {
    let corrupt = data("corrupt");
    assert_eq!(corrupt.len(), 25);
    let (_directory, path) = file(&good("GeoLite2-Country-Test.mmdb"));
    let geo = Arc::new(MaxMindGeo::open(&path).unwrap());
    let (stop, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    let opened = corrupt.iter().filter(|(_, bytes)| Reader::from_source(&bytes[..]).is_ok()).count();
    assert!(opened > 0, "opening alone would do");
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(at(&*geo, "2.125.160.217").as_deref(), Some("GB"));
                    assert_eq!(at(&*geo, "127.0.0.1"), None);
                    asked.fetch_add(2, Ordering::Relaxed);
                }
            });
        }
        for (name, bytes) in corrupt.iter().chain(&corrupt) {
            fs::write(&path, bytes).unwrap();
            let error = geo.refresh().unwrap_err();
            let why = error.to_string();
            assert_eq!(error.kind(), ErrorKind::Corrupted, "{name}: {why}");
            let degraded = geo.state().degraded.unwrap();
            assert!(degraded.contains(&why) && degraded.contains("stays in use"), "{degraded}");
            assert!(MaxMindGeo::open(&path).is_err(), "{name}");
            // A good file in between is taken.
            fs::write(&path, good("GeoLite2-City-Test.mmdb")).unwrap();
            assert!(geo.refresh().unwrap(), "{name}");
            assert_eq!(geo.state().degraded, None);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(asked.load(Ordering::Relaxed) > 100);
}

/// J02: a reader that maps the file would end the process with SIGBUS.
#[test]
fn a_file_truncated_in_place_changes_no_answer() {
    let (_directory, path) = file(&good("GeoLite2-Country-Test.mmdb"));
    let geo = MaxMindGeo::open(&path).unwrap();
    for length in [10_000, 1, 0] {
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length).unwrap();
        assert_eq!(at(&geo, "2.125.160.217").as_deref(), Some("GB"));
        assert!(geo.refresh().is_err());
        assert!(!geo.refresh().unwrap(), "it is looked at once");
        assert_eq!(at(&geo, "2.125.160.217").as_deref(), Some("GB"));
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(geo.refresh().unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(at(&geo, "2.125.160.217").as_deref(), Some("GB"));
    // An updater puts another file in its place.
    let fresh = path.with_extension("new");
    fs::write(&fresh, small("2.125.160.216/29,FR")).unwrap();
    fs::rename(&fresh, &path).unwrap();
    assert!(geo.refresh().unwrap());
    assert_eq!(at(&geo, "2.125.160.217").as_deref(), Some("FR"));
}

/// J03.
#[test]
fn addresses_of_nowhere_are_unknown() {
    let (_directory, path) = file(&good("GeoLite2-Country-Test.mmdb"));
    let geo = MaxMindGeo::open(path).unwrap();
    for address in [
        "127.0.0.1",
        "::1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "0.0.0.0",
        "255.255.255.255",
        "fe80::1",
        "fd00::1",
        "ff02::1",
        "::",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "2001:db8::1",
    ] {
        assert_eq!(at(&geo, address), None, "{address}");
    }
    // An IPv4-only tree has nothing to say of IPv6 addresses.
    let only_v4 = Reader::from_source(good("MaxMind-DB-test-ipv4-24.mmdb")).unwrap();
    let only_v4 = Database { reader: only_v4, built: BUILT };
    assert_eq!(only_v4.country("2001:db8::1".parse().unwrap()), None);
}

/// J04.
#[test]
fn a_database_that_is_too_old_denies_or_says_so() {
    const DAYS: Duration = Duration::from_secs(30 * 86_400);
    let (_directory, path) = file(&small("192.0.2.0/24,DE"));
    let geo = |stale, after: i64| {
        let clock = Arc::new(Fixed(BUILT.plus(after)));
        MaxMindGeo::open(&path).unwrap().with_max_age(DAYS, stale).with_clock(clock)
    };
    for (after, known) in [(0, true), (30 * 86_400, true), (30 * 86_400 + 1, false), (-86_401, false)] {
        for stale in [Stale::Deny, Stale::Serve] {
            let geo = geo(stale, after);
            let answers = known || stale == Stale::Serve;
            assert_eq!(at(&geo, "192.0.2.1").is_some(), answers, "{after} {stale:?}");
            assert_eq!(geo.state().degraded.is_none(), known, "{after} {stale:?}");
        }
    }
    assert_eq!(geo(Stale::Deny, 60).state().age, Some(60));
    let why = geo(Stale::Deny, 31 * 86_400).state().degraded.unwrap();
    assert_eq!(why, "the geo database is of 2027-01-15T08:00:00Z, more than 30 days old");
}

#[test]
fn a_database_from_memory_stays() {
    let geo = MaxMindGeo::from_bytes(small("192.0.2.0/24,DE")).unwrap();
    assert!(!geo.refresh().unwrap());
    geo.reload().unwrap();
    assert_eq!(at(&geo, "192.0.2.1").as_deref(), Some("DE"));
    assert_eq!(geo.state().file, None);
    assert!(MaxMindGeo::from_bytes(Vec::new()).is_err());
}

#[test]
fn a_database_may_come_later() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("country.mmdb");
    let geo = MaxMindGeo::watch(&path);
    assert_eq!(geo.state().degraded.as_deref(), Some("no geo database has been read yet"));
    assert_eq!(geo.refresh().unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(at(&geo, "192.0.2.1"), None);
    assert!(geo.state().degraded.unwrap().contains("country.mmdb"));
    fs::write(&path, small("192.0.2.0/24,DE")).unwrap();
    assert!(geo.refresh().unwrap());
    assert_eq!(at(&geo, "192.0.2.1").as_deref(), Some("DE"));
    assert_eq!(geo.state().degraded, None);
}

/// Whoever overwrites the file while it is read leaves it torn.
#[test]
fn halves_of_two_databases_are_refused_or_whole() {
    let (one, two) = (good("GeoLite2-Country-Test.mmdb"), small("192.0.2.0/24,DE\n2001:db8::/32,FR"));
    for at in (0..two.len()).step_by(7) {
        let mut torn = one.clone();
        torn[..at].copy_from_slice(&two[..at]);
        // Whatever it says: nothing panics.
        if let Ok(database) = Database::verified(torn) {
            database.country("2.125.160.217".parse().unwrap());
        }
    }
}

fn networks() -> impl Strategy<Value = Vec<(Network, Country)>> {
    let v4 = (any::<u32>(), 0_u8..=32).prop_map(|(bits, prefix)| {
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        format!("{}/{prefix}", std::net::Ipv4Addr::from(bits & mask))
    });
    let v6 = (any::<u128>(), 0_u8..=128).prop_map(|(bits, prefix)| {
        let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
        format!("{}/{prefix}", std::net::Ipv6Addr::from((bits | 1 << 127) & mask))
    });
    let network = prop_oneof![v4, v6].prop_filter_map("a network", |text| text.parse::<Network>().ok());
    let country = (b'A'..=b'D', b'A'..=b'D').prop_map(|(a, b)| [a, b]);
    let country = country.prop_map(|code| String::from_utf8(code.into()).unwrap().parse().unwrap());
    prop::collection::hash_map(network, country, 1..40).prop_map(|map| map.into_iter().collect())
}

proptest! {
    /// Another's reader finds in the file what was written into it.
    #[test]
    fn a_database_says_what_its_list_says(list in networks(), more in prop::collection::vec(any::<u128>(), 10)) {
        let own = StaticGeo::new(list.clone()).unwrap();
        let bytes = own.to_database("Test", "For tests", BUILT).unwrap();
        let database = Database::verified(bytes).unwrap();
        prop_assert_eq!(database.built, BUILT);
        let near = list.iter().map(|(network, _)| network.address());
        let v4 = more.iter().map(|bits| IpAddr::from((*bits as u32).to_be_bytes()));
        let v6 = more.iter().map(|bits| IpAddr::from(bits.to_be_bytes()));
        // In the format, what begins with 96 zero bits is IPv4.
        let told = |address: &IpAddr| !matches!(address, IpAddr::V6(v6) if u128::from(*v6) >> 32 == 0);
        for address in near.chain(v4).chain(v6).filter(told) {
            prop_assert_eq!(database.country(address), own.resolve(address).country, "{}", address);
        }
    }
}
