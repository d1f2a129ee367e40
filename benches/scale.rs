//! One edge with a million small artifacts: memory when idle, time to be ready, memory while serving.
//!
//! ```text
//! cargo bench --bench scale                         # 10 bundles of 100,000 artifacts
//! cargo bench --bench scale -- bundles=2 items=10_000 requests=50_000
//! ```
//!
//! Artifacts have paths of their own and share `blobs` distinct blobs of 1 KiB: what grows with the
//! number of artifacts is records. The bundles go to the edge as a source sends them, over HTTP.

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Client, EdgeProcess, House, item, median, scratch, setting, verdict};
use distedge::blob::{BlobStoreExt as _, MemoryBlobStore};
use distedge::digest::Digest;
use distedge::key::Algorithm;

fn main() {
    match common::role().as_deref() {
        Some("edge") => common::serve_edge(),
        _ => measure(),
    }
}

fn measure() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    println!("{:<38} {:>8} {:>8} {:>8} {:>9}", "an edge with", "RSS MiB", "anon", "file", "ready ms");
    let few = scratch();
    let idle = idle("no artifact", few.path());
    let mut house = House::new(&[Algorithm::Ed25519]);
    runtime.block_on(fill(few.path(), &mut house, 1, 1_000, 1_000));
    let some = self::idle("1,000 artifacts", few.path());

    let (bundles, items) = (setting("bundles", 10), setting("items", 100_000));
    let blobs = setting("blobs", 100);
    let many = scratch();
    let mut house = House::new(&[Algorithm::Ed25519]);
    let times = runtime.block_on(fill(many.path(), &mut house, bundles, items, blobs));
    let stored = std::fs::metadata(many.path().join("meta.redb")).unwrap().len();
    let full = self::idle(&format!("{} artifacts in {bundles} bundles", bundles * items), many.path());
    println!();
    println!(
        "idle, at most 1,000 artifacts: {:.1} MiB (goal: <= 32)  {}",
        some.0.max(idle.0),
        verdict(some.0.max(idle.0) <= 32.0)
    );
    println!(
        "ready with {} artifacts: {:.0} ms (goal: < 1,000)  {}",
        bundles * items,
        full.1,
        verdict(full.1 < 1000.0)
    );
    println!(
        "a bundle of {items} artifacts took {:.1} s from offer to receipt (median of {}); meta.redb has {:.0} MiB",
        median(&times),
        times.len(),
        stored as f64 / f64::from(1 << 20)
    );
    serve(many.path(), bundles, items);
}

/// Memory and readiness after a start on what is there, the median of five starts.
fn idle(name: &str, data: &std::path::Path) -> (f64, f64) {
    let mut figures = [const { Vec::new() }; 4];
    for _ in 0..5 {
        let edge = EdgeProcess::start(data);
        std::thread::sleep(Duration::from_secs(1));
        figures[0].push(edge.process.memory("VmRSS"));
        figures[1].push(edge.process.memory("RssAnon"));
        figures[2].push(edge.process.memory("RssFile"));
        figures[3].push(edge.ready.as_secs_f64() * 1000.0);
        edge.process.kill();
    }
    let [resident, anon, file, ready] = figures.map(|values| median(&values));
    println!("{name:<38} {resident:>8.1} {anon:>8.1} {file:>8.1} {ready:>9.0}");
    (resident, ready)
}

fn blob(at: u64) -> Bytes {
    at.to_le_bytes().repeat(128).into()
}

fn path(bundle: u64, at: u64) -> String {
    format!("app-{bundle}/1.0/module-{:03}/file-{at:06}.bin", at / 1000)
}

/// Sends the bundles one after the other; answers the seconds of each.
async fn fill(data: &std::path::Path, house: &mut House, bundles: u64, items: u64, blobs: u64) -> Vec<f64> {
    let edge = EdgeProcess::start(data);
    let store = MemoryBlobStore::new();
    let mut digests = Vec::new();
    for at in 0..blobs {
        store.put(blob(at)).await.unwrap();
        digests.push(Digest::of(&blob(at)));
    }
    let mut times = Vec::new();
    for bundle in 0..bundles {
        let digest = |at: u64| digests[usize::try_from(at % blobs).unwrap()];
        let items = (0..items).map(|at| item(&path(bundle, at), digest(at), 1024));
        house.release(&format!("app-{bundle}"), bundle + 1, items);
        let mut desired = house.desired();
        // What the edge proved before needs no other proof.
        desired.bundles.retain(|offer| offer.name.as_str() == format!("app-{bundle}"));
        let started = Instant::now();
        let outcome = edge.converge(&desired, &store).await;
        assert_eq!(outcome.proofs.len(), 1);
        times.push(started.elapsed().as_secs_f64());
    }
    edge.process.kill();
    times
}

/// Random artifacts over eight connections, and the memory on the way.
fn serve(data: &std::path::Path, bundles: u64, items: u64) {
    let requests = setting("requests", 1_600_000);
    let edge = EdgeProcess::start(data);
    let before: f64 = edge.process.cpu().iter().sum();
    println!("\nserving random artifacts over 8 connections");
    println!("{:>12} {:>8} {:>8} {:>8} {:>12}", "requests", "RSS MiB", "anon", "file", "requests/s");
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut resident = Vec::new();
    for part in 0..8 {
        let started = Instant::now();
        let share = requests / 64;
        std::thread::scope(|scope| {
            for _ in 0..8 {
                seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(part);
                let (address, mut state) = (edge.address, seed | 1);
                scope.spawn(move || {
                    let mut client = Client::connect(address);
                    for _ in 0..share {
                        state ^= state << 13;
                        state ^= state >> 7;
                        state ^= state << 17;
                        let path = path(state % bundles, (state >> 20) % items);
                        assert_eq!(client.get(&format!("/files/{path}")), (200, 1024), "{path}");
                    }
                });
            }
        });
        let memory = |key| edge.process.memory(key);
        resident.push(memory("VmRSS"));
        println!(
            "{:>12} {:>8.1} {:>8.1} {:>8.1} {:>12.0}",
            (part + 1) * share * 8,
            memory("VmRSS"),
            memory("RssAnon"),
            memory("RssFile"),
            (share * 8) as f64 / started.elapsed().as_secs_f64()
        );
    }
    let cpu = (edge.process.cpu().iter().sum::<f64>() - before) / (requests / 64 * 64) as f64 * 1e6;
    let (first, last) = (resident[3], resident[7]);
    println!(
        "from the half to the end the memory went from {first:.1} to {last:.1} MiB  {}; {cpu:.1} us of CPU a request",
        verdict(last <= first * 1.05 + 1.0)
    );
    edge.process.kill();
}
