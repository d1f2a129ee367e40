use std::collections::BTreeMap;
use std::sync::Arc;

use distedge::access::{Identity, LinkHolder, Principal};
use distedge::audit::{AuditSink as _, Event, LogOptions, TileLog, kind};
use distedge::clock::Timestamp;
use distedge::govern::{Counts, DownloadQuery, Downloads, Group, Step};
use distedge::key::{Algorithm, SigningKey};
use distedge::meta::MemoryStore;
use distedge::name::{ArtifactPath, BundleName, RepositoryName, Tenant, Version};
use distedge::testing::{ManualClock, block_on};

const HOUR: i64 = 3_600;
const NOW: Timestamp = Timestamp::from_unix(1_795_323_600);

trait Plus {
    fn plus(&mut self, other: &Counts);
}

impl Plus for Counts {
    fn plus(&mut self, other: &Counts) {
        self.started += other.started;
        self.completed += other.completed;
        self.aborted += other.aborted;
        self.bytes += other.bytes;
    }
}

struct World {
    directory: tempfile::TempDir,
    key: Arc<SigningKey>,
    store: Arc<MemoryStore>,
    log: Option<Arc<TileLog>>,
}

impl World {
    fn new() -> World {
        World {
            directory: tempfile::tempdir().unwrap(),
            key: Arc::new(SigningKey::generate(Algorithm::Ed25519, "", NOW).unwrap()),
            store: Arc::new(MemoryStore::new()),
            log: None,
        }
    }

    fn open(&mut self) -> Downloads {
        self.log = None;
        let options = LogOptions::default().with_sizes(1 << 20, 16 << 10, 64 << 10);
        let clock = Arc::new(ManualClock::new(NOW));
        let log = TileLog::open(self.directory.path(), "distedge/e/t", self.key.clone(), clock, options);
        let log = Arc::new(log.unwrap());
        self.log = Some(Arc::clone(&log));
        Downloads::open(self.store.clone(), &Tenant::new("t").unwrap(), log)
    }
}

fn principal(n: u64) -> Principal {
    match n % 5 {
        0 => Principal::Anonymous,
        1 => Principal::Link(Arc::new(LinkHolder {
            id: format!("L{}", n % 3),
            key: "k".into(),
            subject: None,
        })),
        _ => Principal::User(Arc::new(Identity { name: format!("u{}", n % 7), ..Identity::default() })),
    }
}

fn event(kind: &'static str, n: u64, at: Timestamp) -> Event {
    let mut event = Event::new(at, kind, &principal(n));
    event.client = Some([192, 0, 2, (n % 90) as u8].into());
    event.country = (!n.is_multiple_of(4)).then(|| ["DE", "FR", "US"][n as usize % 3].parse().unwrap());
    event.repository = Some(RepositoryName::new("generic-local").unwrap());
    event.path = Some(ArtifactPath::new(&format!("a/{}", n % 40)).unwrap());
    event.bundle = Some(BundleName::new("shop").unwrap());
    event.version = Some(Version::new(&format!("1.{}", n % 6)).unwrap());
    event.request = Some(n);
    event
}

fn rows(downloads: &Downloads, query: &DownloadQuery) -> BTreeMap<String, Counts> {
    let mut query = query.clone();
    query.limit = 7;
    let mut found = BTreeMap::new();
    loop {
        let page = block_on(downloads.query(&query)).unwrap();
        found.extend(page.rows.into_iter().map(|row| {
            let at = row.at.map_or(String::new(), |at| format!("{at} "));
            (format!("{at}{}", row.value), row.counts)
        }));
        match page.next {
            Some(next) => query.after = Some(next),
            None => return found,
        }
    }
}

/// P22: what was counted is what happened, and a restart in the middle changes nothing.
#[test]
fn a_hundred_thousand_events_are_counted_as_they_were() {
    let mut world = World::new();
    let mut downloads = world.open();
    let mut real: BTreeMap<(&str, String), Counts> = BTreeMap::new();
    let mut hours: BTreeMap<String, Counts> = BTreeMap::new();
    let mut open: Vec<(u64, Timestamp)> = Vec::new();
    let mut state = 3_u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut count = |n: u64, at: Timestamp, counts: Counts| {
        let event = event(kind::DOWNLOAD_START, n, at);
        let version = format!("shop/{}", event.version.as_ref().unwrap());
        let mut values = vec![
            ("artifact", format!("generic-local/a/{}", n % 40)),
            ("bundle", "shop".to_owned()),
            ("version", version),
            ("subject", event.who.clone()),
            ("country", event.country.map_or("unknown".into(), |country| country.to_string())),
        ];
        values.extend(event.who.strip_prefix("link:").map(|link| ("link", link.to_owned())));
        values.into_iter().for_each(|value| real.entry(value).or_default().plus(&counts));
        let hour = Timestamp::from_unix(at.as_unix() / HOUR * HOUR);
        hours.entry(format!("{hour} shop")).or_default().plus(&counts);
    };
    let mut n = 0;
    for step in 0..100_000_u64 {
        let at = NOW.plus(step as i64 * 3);
        let log = world.log.as_ref().unwrap();
        if random(2) == 0 || open.is_empty() {
            n += 1;
            log.record(event(kind::DOWNLOAD_START, n, at)).unwrap();
            open.push((n, at));
            count(n, at, Counts { started: 1, ..Counts::default() });
        } else {
            let (n, _) = open.swap_remove(random(open.len() as u64) as usize);
            let mut end = event(kind::DOWNLOAD_END, n, at);
            let complete = random(3) > 0;
            let bytes = random(1 << 20);
            (end.bytes, end.complete) = (Some(bytes), Some(complete));
            log.record(end).unwrap();
            let (completed, aborted) = (u64::from(complete), u64::from(!complete));
            count(n, at, Counts { started: 0, completed, aborted, bytes });
        }
        if step % 9_000 == 8_999 {
            block_on(downloads.catch_up()).unwrap();
        }
        if step == 50_000 {
            drop(downloads);
            // What was running is over with the process, and is counted as aborted.
            for (n, _) in open.drain(..) {
                count(n, NOW, Counts { aborted: 1, ..Counts::default() });
            }
            downloads = world.open();
        }
    }
    for group in Group::ALL {
        let wanted: BTreeMap<String, Counts> = real
            .iter()
            .filter(|((name, _), _)| *name == group.as_str())
            .map(|((_, value), counts)| (value.clone(), *counts))
            .collect();
        assert_eq!(rows(&downloads, &DownloadQuery::new(group)), wanted, "{group}");
    }
    let mut query = DownloadQuery::new(Group::Bundle);
    query.step = Step::Hour;
    assert_eq!(rows(&downloads, &query), hours);
    query.step = Step::All;
    (query.from, query.until) = (Some(NOW.plus(5 * HOUR)), Some(NOW.plus(31 * HOUR)));
    let mut within = Counts::default();
    let (first, last) = (NOW.plus(5 * HOUR).to_string(), NOW.plus(31 * HOUR).to_string());
    hours
        .iter()
        .filter(|(hour, _)| ***hour >= *first && ***hour < *last)
        .for_each(|(_, counts)| within.plus(counts));
    assert_eq!(block_on(downloads.query(&query)).unwrap().total, within);
    // The same counters, opened again.
    drop(downloads);
    let downloads = world.open();
    let mut query = DownloadQuery::new(Group::Artifact);
    query.value = Some("generic-local/a/7".into());
    let page = block_on(downloads.query(&query)).unwrap();
    let known = real[&("artifact", "generic-local/a/7".to_owned())];
    let open_there = open.iter().filter(|(n, _)| n % 40 == 7).count() as u64;
    assert_eq!(page.rows[0].counts, Counts { aborted: known.aborted + open_there, ..known });
}

#[test]
fn an_erased_person_is_counted_without_a_name() {
    let mut world = World::new();
    let downloads = world.open();
    let log = world.log.clone().unwrap();
    for n in 0..70 {
        log.record(event(kind::DOWNLOAD_START, n, NOW)).unwrap();
    }
    let query = DownloadQuery::new(Group::Subject);
    let before = rows(&downloads, &query);
    assert!(before.contains_key("user:u2"));
    log.erase("user:u2", &Principal::Anonymous).unwrap();
    block_on(downloads.forget("user:u2")).unwrap();
    let mut after = rows(&downloads, &query);
    assert_eq!(after.remove("erased"), before.get("user:u2").copied());
    assert!(after.iter().all(|(value, counts)| before[value] == *counts));
    // It stays so after a restart.
    drop(downloads);
    drop(log);
    assert!(rows(&world.open(), &query).contains_key("erased"));
}
