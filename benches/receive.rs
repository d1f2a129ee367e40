//! What it costs an edge to receive a large blob, against a minimal programme.
//!
//! ```text
//! cargo bench --bench receive                       # 1 GiB, 7 rounds
//! cargo bench --bench receive -- mib=256 rounds=5
//! ```
//!
//! The same sender writes the same bytes over loopback to, in turn: an edge (HTTP, resumable upload,
//! SHA-256, file, fsync, rename), and a minimal programme that reads the socket, hashes with SHA-256
//! and writes the file; once as it is and once with a sync at the end, which the edge does too.
//! Counted is the processor time of the receiving process, user and system.

mod common;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};

use common::{Client, EdgeProcess, House, Running, item, median, scratch, setting, spread, verdict};
use distedge::digest::Digest;
use distedge::key::Algorithm;
use distedge::transport::{Call, HttpTransport, Transport as _, Verb};
use sha2::Digest as _;

const MIB: usize = 1 << 20;

fn main() {
    match common::role().as_deref() {
        Some("edge") => common::serve_edge(),
        Some("minimal") => minimal(false),
        Some("minimal-synced") => minimal(true),
        _ => measure(),
    }
}

fn measure() {
    let mib = setting("mib", 1024);
    let rounds = setting("rounds", 7);
    let size = mib * MIB as u64;
    let content = Content { block: block(), blocks: mib };
    let digest = content.digest();
    let gib = size as f64 / f64::from(1 << 30);
    println!("receive a blob of {mib} MiB over loopback, {rounds} rounds in turn (goal: ratio <= 1.15)");

    let names = ["edge", "minimal", "minimal-synced"];
    let mut costs = [const { Vec::new() }; 3];
    let (mut walls, mut peaks, mut grown) = ([const { Vec::new() }; 3], Vec::new(), Vec::new());
    for _ in 0..rounds {
        for (at, name) in names.iter().enumerate() {
            let directory = scratch();
            let started;
            let cpu = if *name == "edge" {
                let edge = EdgeProcess::start(directory.path());
                offer(&edge, digest, size);
                let (before, resident) = (edge.process.cpu(), edge.process.memory("VmHWM"));
                started = std::time::Instant::now();
                let path = format!("/api/v1/blobs/{}", digest.to_hex());
                let status =
                    Client::connect(edge.address).patch(&path, &edge.token, size, |to| content.send(to));
                assert_eq!(status / 100, 2, "the edge answered {status}");
                let cpu = edge.process.cpu() - before;
                peaks.push(edge.process.memory("VmHWM"));
                grown.push(edge.process.memory("VmHWM") - resident);
                edge.process.kill();
                cpu
            } else {
                let mut process = Running::start(name, directory.path());
                let address = process.line();
                let before = process.cpu();
                started = std::time::Instant::now();
                let mut stream = TcpStream::connect(address).unwrap();
                content.send(&mut stream);
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                assert_eq!(process.line(), digest.to_hex());
                let cpu = process.cpu() - before;
                process.kill();
                cpu
            };
            walls[at].push(started.elapsed().as_secs_f64());
            costs[at].push(cpu / gib);
        }
    }
    println!("{:<16} {:>14} {:>16} {:>12}", "receiver", "CPU s per GiB", "range", "wall s");
    for (at, name) in names.iter().enumerate() {
        let costs = &costs[at];
        println!("{name:<16} {:>14.3} {:>16} {:>12.2}", median(costs), spread(costs), median(&walls[at]));
    }
    let ratio = |other: usize| {
        let pairs: Vec<f64> = costs[0].iter().zip(&costs[other]).map(|(edge, other)| edge / other).collect();
        format!(
            "{:.3} of the medians, {:.3} the median of the rounds",
            median(&costs[0]) / median(&costs[other]),
            median(&pairs)
        )
    };
    let reached = median(&costs[0]) / median(&costs[1]) <= 1.15;
    println!("edge / minimal:        {}  {}", ratio(1), verdict(reached));
    println!("edge / minimal-synced: {}", ratio(2));
    println!(
        "edge, peak RSS {:.1} MiB, of which {:.1} MiB came with the blob",
        median(&peaks),
        median(&grown)
    );
}

/// Tells the edge of a bundle with the blob in it, so that it takes the upload.
fn offer(edge: &EdgeProcess, digest: Digest, size: u64) {
    let mut house = House::new(&[Algorithm::Ed25519]);
    house.release("large", 1, [item("large.bin", digest, size)]);
    let desired = house.desired();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let base = format!("http://{}", edge.address);
        let transport = HttpTransport::builder(&base).with_token(edge.token.clone()).build().unwrap();
        let trust = Call::new(Verb::Put, "/api/v1/trust").with_bytes(desired.trust.clone());
        let answer = transport.call(trust).await.unwrap();
        assert_eq!(answer.status / 100, 2, "{:?}", answer.body);
        let envelope = desired.bundles[0].envelope.clone();
        let answer =
            transport.call(Call::new(Verb::Post, "/api/v1/bundles").with_bytes(envelope)).await.unwrap();
        assert_eq!(answer.status / 100, 2, "{:?}", answer.body);
    });
}

/// Bytes that do not repeat within a megabyte.
fn block() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(MIB);
    while bytes.len() < MIB {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

struct Content {
    block: Vec<u8>,
    blocks: u64,
}

impl Content {
    fn digest(&self) -> Digest {
        let mut hasher = sha2::Sha256::new();
        (0..self.blocks).for_each(|_| hasher.update(&self.block));
        Digest::from_bytes(hasher.finalize().into())
    }

    fn send(&self, to: &mut TcpStream) {
        (0..self.blocks).for_each(|_| to.write_all(&self.block).unwrap());
    }
}

/// Reads the socket, hashes, writes the file.
fn minimal(synced: bool) {
    let directory = PathBuf::from(std::env::args_os().nth(1).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{}", listener.local_addr().unwrap());
    let (mut stream, _) = listener.accept().unwrap();
    let digest = take(&mut stream, &directory.join("blob"), synced);
    println!("{digest}");
    // The one that measures reads the processor time first, and then ends this process.
    let _ = std::io::stdin().read(&mut [0]);
}

fn take(stream: &mut TcpStream, path: &Path, synced: bool) -> String {
    let mut file = std::fs::File::create(path).unwrap();
    let mut hasher = sha2::Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let read = stream.read(&mut buffer).unwrap();
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        file.write_all(&buffer[..read]).unwrap();
    }
    if synced {
        file.sync_data().unwrap();
    }
    Digest::from_bytes(hasher.finalize().into()).to_hex()
}
