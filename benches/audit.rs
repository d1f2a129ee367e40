//! The audit log: durable events with 64 producers, what an event costs in bytes and in CPU, and how
//! fast a log is verified and proofs are made.
//!
//! ```text
//! cargo bench --bench audit                           # 1,000,000 downloads' entries to verify
//! cargo bench --bench audit -- entries=10_000_000     # the size of the issue's figure for proofs
//! ```
//!
//! It works in a directory under `target`, because a temporary one may be in memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use distedge::access::{Identity, Principal};
use distedge::audit::{AuditSink, Event, LogOptions, TileLog, Trusted, kind, verify};
use distedge::clock::{Clock as _, SystemClock};
use distedge::digest::Digest;
use distedge::key::{Algorithm, SigningKey};
use distedge::name::{ArtifactPath, BundleName, RepositoryName, Version};
use distedge::testing::block_on;

fn main() {
    let entries = setting("entries", 1_000_000);
    let directory = scratch();
    let key = Arc::new(SigningKey::generate(Algorithm::Ed25519, "", SystemClock.now()).unwrap());
    durable(&directory.join("durable"), &key);
    let path = directory.join("downloads");
    let log = downloads(&path, &key, entries);
    proofs(&log);
    drop(log);
    verified(&path, &key);
    std::fs::remove_dir_all(&directory).unwrap();
}

/// Durable events of 64 threads, 5 seconds long.
fn durable(path: &Path, key: &Arc<SigningKey>) {
    for producers in [1, 16, 64] {
        let log = Arc::new(open(path, key));
        let stop = Arc::new(AtomicBool::new(false));
        let began = Instant::now();
        let threads: Vec<_> = (0..producers)
            .map(|_| {
                let (log, stop) = (Arc::clone(&log), Arc::clone(&stop));
                std::thread::spawn(move || {
                    let mut times = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        let event =
                            Event::new(SystemClock.now(), kind::LINK_MINTED, &user(7)).about("01J8ZQ");
                        let begun = Instant::now();
                        block_on(log.record_durable(event)).unwrap();
                        times.push(begun.elapsed());
                    }
                    times
                })
            })
            .collect();
        std::thread::sleep(Duration::from_secs(5));
        stop.store(true, Ordering::Relaxed);
        let mut times: Vec<Duration> =
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        let rate = times.len() as f64 / began.elapsed().as_secs_f64();
        times.sort();
        let at = |share: f64| times[(times.len() as f64 * share) as usize].as_secs_f64() * 1e3;
        let goal = if producers == 64 {
            let good = rate >= 20_000.0 && at(0.99) <= 10.0;
            format!("(goal: >= 20,000 at <= 10 ms)  {}", verdict(good))
        } else {
            String::new()
        };
        println!(
            "{producers:>2} producers: {rate:>8.0} durable events/s, p50 {:.2} ms, p99 {:.2} ms  {goal}",
            at(0.5),
            at(0.99)
        );
    }
}

/// Starts and ends of downloads by one thread: what they cost in CPU and in bytes.
fn downloads(path: &Path, key: &Arc<SigningKey>, entries: u64) -> TileLog {
    let log = open(path, key);
    let now = SystemClock.now();
    let users: Vec<Principal> = (0..100).map(user).collect();
    let paths: Vec<ArtifactPath> = (0..1_000)
        .map(|n| {
            ArtifactPath::new(&format!("org/acme/shop/app/1.4.{n}/app-1.4.{n}-linux-x86_64.tar.gz")).unwrap()
        })
        .collect();
    let (repository, bundle) =
        (RepositoryName::new("generic-local").unwrap(), BundleName::new("shop").unwrap());
    let version = Version::new("1.4.0").unwrap();
    let (began, process, thread) = (Instant::now(), process_cpu(), thread_cpu());
    for n in 0..entries / 2 {
        let user = &users[n as usize % users.len()];
        let make = |kind| {
            let mut event = Event::new(now.plus(n as i64 / 10_000), kind, user);
            // 5,000 addresses.
            let [_, _, a, b] = ((n % 5_000) as u32).to_be_bytes();
            event.client = Some([198, 51, a, b].into());
            event.country = Some("DE".parse().unwrap());
            event.repository = Some(repository.clone());
            event.path = Some(paths[n as usize % paths.len()].clone());
            event.digest = Some(Digest::from_bytes([7; 32]));
            event.bundle = Some(bundle.clone());
            event.version = Some(version.clone());
            event.request = Some(n);
            event
        };
        let mut start = make(kind::DOWNLOAD_START);
        start.status = Some(200);
        log.record(start).unwrap();
        let mut end = make(kind::DOWNLOAD_END);
        (end.status, end.bytes, end.complete) = (Some(200), Some(16_384), Some(true));
        log.record(end).unwrap();
    }
    let caller = thread_cpu() - thread;
    log.flush().unwrap();
    let (wall, whole) = (began.elapsed().as_secs_f64(), process_cpu() - process);
    let per = |seconds: f64| seconds * 1e6 / (entries / 2) as f64;
    println!(
        "a download, start and end: {:.2} us CPU in the caller, {:.2} us in all (goal with the gate: <= 1.6 us); {:.0} events/s",
        per(caller),
        per(whole),
        entries as f64 / wall
    );
    let mut parts = [("entries", 0), ("hashes", 0), ("people", 0)];
    parts[0].1 = log.entries_length();
    parts[1].1 = size(&path.join("tile"));
    parts[2].1 = size(&path.join("person"));
    let total: u64 = parts.iter().map(|part| part.1).sum();
    let each = total as f64 / entries as f64;
    let shown: Vec<String> =
        parts.iter().map(|(name, bytes)| format!("{name} {:.1}", *bytes as f64 / entries as f64)).collect();
    println!(
        "{each:.0} bytes an event on disk ({}) (goal: <= 450)  {}",
        shown.join(", "),
        verdict(each <= 450.0)
    );
    log
}

fn proofs(log: &TileLog) {
    let size = log.flush().unwrap().size;
    let mut times = Vec::new();
    let mut at = 1_u64;
    for _ in 0..200 {
        at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let begun = Instant::now();
        log.inclusion((at >> 20) % size, size).unwrap();
        times.push(begun.elapsed());
    }
    times.sort();
    let p99 = times[times.len() * 99 / 100].as_secs_f64() * 1e3;
    println!(
        "inclusion proof at {size} entries: p99 {p99:.2} ms (goal: <= 5 at 10^7)  {}",
        verdict(p99 <= 5.0)
    );
}

fn verified(path: &Path, key: &Arc<SigningKey>) {
    use distedge::key::Signer as _;
    let (began, cpu) = (Instant::now(), thread_cpu());
    let report = verify(path, &Trusted::key(key.public_key()), SystemClock.now()).unwrap();
    assert!(report.is_good(), "{:?}", report.flaw);
    let rate = report.size as f64 / began.elapsed().as_secs_f64();
    let of_cpu = report.size as f64 / (thread_cpu() - cpu);
    println!(
        "verified {} entries offline: {rate:.0}/s, {of_cpu:.0} in a second of CPU (goal: >= 300,000)  {}",
        report.size,
        verdict(rate >= 300_000.0)
    );
    let began = Instant::now();
    drop(open(path, key));
    println!("opened and closed in {:.0} ms", began.elapsed().as_secs_f64() * 1e3);
}

fn open(path: &Path, key: &Arc<SigningKey>) -> TileLog {
    let clock = Arc::new(SystemClock);
    TileLog::open(path, "distedge/bench/default", key.clone(), clock, LogOptions::default()).unwrap()
}

fn user(n: usize) -> Principal {
    Principal::User(Arc::new(Identity {
        name: format!("user{n}@example.com"),
        credential: Some(format!("eut1_{n:08x}")),
        ..Identity::default()
    }))
}

fn scratch() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    let path = target.join(format!("audit-bench-{}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn size(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
    entries
        .map(
            |entry| if entry.path().is_dir() { size(&entry.path()) } else { entry.metadata().unwrap().len() },
        )
        .sum()
}

/// CPU seconds of this thread (Linux).
fn thread_cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

/// CPU seconds of all threads that are alive (Linux).
fn process_cpu() -> f64 {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return 0.0 };
    tasks
        .map(|task| {
            let text = std::fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap_or_default();
            text.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
        })
        .sum()
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::args()
        .find_map(|argument| argument.strip_prefix(&format!("{name}=")).map(|text| text.replace('_', "")))
        .map_or(default, |text| text.parse().unwrap())
}

fn verdict(good: bool) -> &'static str {
    if good { "reached" } else { "MISSED" }
}
