//! What it costs to decode, verify and parse a large bundle.
//!
//! ```text
//! cargo bench --bench bundle                        # 100,000 items
//! cargo bench --bench bundle -- items=60_000 checksums=1 runs=20
//! ```
//!
//! With the legacy checksums of every item, 100,000 items do not fit into the 32 MiB of an envelope.
//!
//! Each run is a process of its own that holds the envelope and the trust document and calls
//! `bundle::verify` once; the peak of its resident memory counts all of that.

mod common;

use std::path::Path;
use std::time::Instant;

use common::{House, Running, item, median, memory_of, now, scratch, setting, spread, verdict};
use distedge::bundle::{TrustDocument, verify};
use distedge::digest::Digest;
use distedge::key::Algorithm;

fn main() {
    match common::role().as_deref() {
        Some("verify") => verify_once(),
        _ => measure(),
    }
}

fn measure() {
    let items = setting("items", 100_000);
    let runs = setting("runs", 11);
    let checksums = setting("checksums", 0) == 1;
    println!("verify a bundle of {items} items, {runs} processes each (goal: <= 300 ms, <= 256 MiB)");
    println!(
        "{:<22} {:>13} {:>11} {:>16} {:>13} {:>10}",
        "signed by", "envelope MiB", "median ms", "range ms", "peak RSS MiB", "goal"
    );
    for (name, algorithms) in [
        ("Ed25519", &[Algorithm::Ed25519][..]),
        ("Ed25519 and OpenPGP", &[Algorithm::Ed25519, Algorithm::OpenPgp]),
    ] {
        let directory = scratch();
        let mut house = House::new(algorithms);
        let items = (0..items).map(|at| {
            let path = format!("app/1.0/part-{:03}/file-{at:06}", at / 1000);
            let mut item = item(&path, Digest::of(&at.to_le_bytes()), at);
            if checksums {
                item.checksums.sha1 = Some("da39a3ee5e6b4b0d3255bfef95601890afd80709".into());
                item.checksums.md5 = Some("d41d8cd98f00b204e9800998ecf8427e".into());
            }
            item
        });
        let envelope = house.release("large", 1, items).envelope.clone();
        std::fs::write(directory.path().join("envelope"), &envelope).unwrap();
        std::fs::write(directory.path().join("trust"), house.desired().trust).unwrap();
        let (mut times, mut peaks) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            let line = Running::start("verify", directory.path()).line();
            let (time, peak) = line.split_once(' ').unwrap();
            times.push(time.parse().unwrap());
            peaks.push(peak.parse().unwrap());
        }
        let (time, peak) = (median(&times), peaks.iter().copied().fold(0.0, f64::max));
        println!(
            "{name:<22} {:>13.1} {time:>11.1} {:>16} {peak:>13.1} {:>10}",
            envelope.len() as f64 / f64::from(1 << 20),
            spread(&times),
            verdict(time <= 300.0 && peak <= 256.0)
        );
    }
}

fn verify_once() {
    let directory = std::env::args_os().nth(1).unwrap();
    let read = |name: &str| std::fs::read(Path::new(&directory).join(name)).unwrap();
    let trust = TrustDocument::parse_unverified(&read("trust")).unwrap();
    let (envelope, now) = (read("envelope"), now());
    let started = Instant::now();
    let bundle = verify(&envelope, &trust, now).unwrap();
    let time = started.elapsed().as_secs_f64() * 1000.0;
    assert!(!bundle.statement().items().is_empty());
    println!("{time} {}", memory_of("self", "VmHWM"));
}
