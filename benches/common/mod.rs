//! What the benches share: a small release house, child processes, and what the kernel says of them.

#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use distedge::blob::BlobStore;
use distedge::bundle::{
    Assignment, BundleRef, EdgeEntry, Envelope, Item, STATEMENT_PAYLOAD, Source, Statement, TrustDocument,
};
use distedge::clock::{Clock as _, SystemClock, Timestamp};
use distedge::digest::{Checksums, Digest};
use distedge::distribute::{BundleOffer, Desired, Options, Outcome, converge};
use distedge::edge::EdgeOptions;
use distedge::key::{Algorithm, KeySet, Signer, SigningKey, TrustedKey};
use distedge::secret::Secret;
use distedge::server::{Server, ServerConfig};
use distedge::transport::HttpTransport;

const ROLE: &str = "DISTEDGE_BENCH_ROLE";
const NAME: &str = "bench";
const TOKEN: &str = "bench-token";

/// What this process is: `None` for the one that measures.
pub fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// The `key=value` arguments after `--`.
pub fn setting(key: &str, default: u64) -> u64 {
    let prefix = format!("{key}=");
    std::env::args()
        .find_map(|argument| argument.strip_prefix(&prefix).map(str::to_owned))
        .map_or(default, |value| {
            value.replace('_', "").parse().unwrap_or_else(|_| panic!("{key} is a number, not {value:?}"))
        })
}

pub fn now() -> Timestamp {
    SystemClock.now()
}

/// The middle one, or the mean of the middle two.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

pub fn spread(values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    format!("{least:.2} to {most:.2}")
}

/// Says whether a figure is reached.
pub fn verdict(reached: bool) -> &'static str {
    if reached { "reached" } else { "MISSED" }
}

/// This programme again, in another role.
#[derive(Debug)]
pub struct Running {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Running {
    pub fn start(role: &str, argument: &Path) -> Running {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(ROLE, role).arg(argument).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Running { child, output }
    }

    /// The next line it prints.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the child ended without an answer");
        line.trim_end().to_owned()
    }

    /// Processor time so far in seconds: as a user, and in the kernel.
    pub fn cpu(&self) -> [f64; 2] {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        // Linux counts in hundredths of a second towards user space.
        [11, 12].map(|at| fields[at].parse::<f64>().unwrap() / 100.0)
    }

    /// A line of `/proc/PID/status` in MiB: `VmHWM`, `VmRSS`, `RssAnon`, `RssFile`.
    pub fn memory(&self, key: &str) -> f64 {
        memory_of(&self.child.id().to_string(), key)
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// As [`Running::memory`], for a process or for `self`.
pub fn memory_of(process: &str, key: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// An edge in a process of its own, as `examples/edge` puts it together.
#[derive(Debug)]
pub struct EdgeProcess {
    pub process: Running,
    pub address: SocketAddr,
    /// The control token.
    pub token: Secret,
    /// From the start of the process to the first `200` of `/readyz`.
    pub ready: Duration,
}

impl EdgeProcess {
    pub fn start(data: &Path) -> EdgeProcess {
        let started = Instant::now();
        let mut process = Running::start("edge", data);
        let address: SocketAddr = process.line().parse().unwrap();
        let (status, _) = Client::connect(address).get("/readyz");
        assert_eq!(status, 200);
        let ready = started.elapsed();
        let token = Secret::new(std::fs::read(data.join(TOKEN)).unwrap());
        EdgeProcess { process, address, token, ready }
    }

    pub async fn converge(&self, desired: &Desired, blobs: &dyn BlobStore) -> Outcome {
        let transport = HttpTransport::builder(&format!("http://{}", self.address))
            .with_token(self.token.clone())
            .with_answer_timeout(Duration::from_secs(600))
            .build()
            .unwrap();
        let events: distedge::distribute::Events = Arc::new(|_| {});
        let outcome = converge(&transport, blobs, desired, Options::at(now()), &events).await.unwrap();
        assert!(outcome.failed.is_empty(), "{:?}", outcome.failed);
        outcome
    }
}

/// The child's side of [`EdgeProcess`]: serves the data directory in the first argument until killed.
pub fn serve_edge() {
    let data = PathBuf::from(std::env::args_os().nth(1).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut options = EdgeOptions::new(NAME.parse().unwrap()).unwrap();
        options.public = true;
        let opened = distedge::edge::open(&data, options).await.unwrap();
        // Only the first start shows it.
        if let Some(token) = opened.token {
            std::fs::write(data.join(TOKEN), token.expose()).unwrap();
        }
        let config = ServerConfig::new(([127, 0, 0, 1], 0).into());
        let server = Server::bind(config, opened.edge).await.unwrap();
        println!("{}", server.local_addr());
        server.serve(std::future::pending()).await.unwrap();
    });
}

/// A connection that asks one thing after the other.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream, buffer: Vec::new() }
    }

    /// Status and length of the body of a `GET`.
    pub fn get(&mut self, path: &str) -> (u16, u64) {
        self.get_with(path, "")
    }

    /// The same with these lines in the head.
    pub fn get_with(&mut self, path: &str, lines: &str) -> (u16, u64) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\n{lines}\r\n");
        self.stream.write_all(request.as_bytes()).unwrap();
        self.answer()
    }

    /// Status of a `PATCH` of `length` bytes, which `send` writes.
    pub fn patch(
        &mut self,
        path: &str,
        token: &Secret,
        length: u64,
        send: impl FnOnce(&mut TcpStream),
    ) -> u16 {
        let head = format!(
            "PATCH {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {}\r\nUpload-Offset: 0\r\n\
             Content-Length: {length}\r\n\r\n",
            token.expose_str().unwrap()
        );
        self.stream.write_all(head.as_bytes()).unwrap();
        send(&mut self.stream);
        self.answer().0
    }

    fn answer(&mut self) -> (u16, u64) {
        self.buffer.clear();
        let mut chunk = [0; 16 * 1024];
        let head = loop {
            if let Some(end) = self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
            let read = self.stream.read(&mut chunk).unwrap();
            assert!(read > 0, "the connection ended");
            self.buffer.extend_from_slice(&chunk[..read]);
        };
        let text = std::str::from_utf8(&self.buffer[..head]).unwrap().to_ascii_lowercase();
        let status = text[9..12].parse().unwrap();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: u64 = length.map_or(0, |length| length.parse().unwrap());
        let mut taken = (self.buffer.len() - head) as u64;
        while taken < length {
            let read = self.stream.read(&mut chunk).unwrap();
            assert!(read > 0, "the connection ended");
            taken += read as u64;
        }
        (status, length)
    }
}

/// Keys, trust document and bundles of a tenant with one edge.
#[derive(Debug)]
pub struct House {
    root: SigningKey,
    release: Vec<SigningKey>,
    trust: TrustDocument,
    bundles: BTreeMap<String, BundleOffer>,
}

impl House {
    /// Bundles are signed by one key of each algorithm, and all must have signed.
    pub fn new(algorithms: &[Algorithm]) -> House {
        let now = now();
        let root = SigningKey::generate(Algorithm::Ed25519, "root", now).unwrap();
        let release: Vec<SigningKey> = algorithms
            .iter()
            .map(|algorithm| SigningKey::generate(*algorithm, "Release <release@example.test>", now).unwrap())
            .collect();
        let trusted = |key: &SigningKey, owner: String| TrustedKey::new(key.public_key(), &owner, &owner);
        let keys =
            release.iter().enumerate().map(|(at, key)| trusted(key, format!("builder-{at}"))).collect();
        let trust = TrustDocument {
            tenant: "default".parse().unwrap(),
            version: 0,
            issued: now,
            expires: now.plus(90 * 86400),
            root: KeySet::new(1, vec![trusted(&root, "root".into())]).unwrap(),
            release: KeySet::new(algorithms.len() as u32, keys).unwrap(),
            edges: vec![EdgeEntry::new(NAME.parse().unwrap())],
            assignments: Vec::new(),
            withdrawn: Vec::new(),
        };
        House { root, release, trust, bundles: BTreeMap::new() }
    }

    /// Signs a bundle of these items and assigns it to the edge.
    pub fn release(&mut self, bundle: &str, seq: u64, items: impl IntoIterator<Item = Item>) -> &BundleOffer {
        let bundle = BundleRef {
            tenant: "default".parse().unwrap(),
            project: "default".into(),
            name: bundle.parse().unwrap(),
            version: "1.0".parse().unwrap(),
            seq,
        };
        let source = Source { id: "bench".into(), ..Source::default() };
        let statement = Statement::builder(bundle, now(), source).items(items).build().unwrap();
        let payload = statement.to_payload();
        let digest = Digest::of(&payload);
        let signers: Vec<&dyn Signer> = self.release.iter().map(|key| key as &dyn Signer).collect();
        let envelope = Envelope::seal(STATEMENT_PAYLOAD, payload, &signers, now()).unwrap();
        let bundle = statement.bundle();
        let offer = BundleOffer {
            name: bundle.name.clone(),
            version: bundle.version.clone(),
            digest,
            envelope: envelope.to_json().into(),
        };
        self.trust.assignments.push(Assignment {
            bundle: offer.name.clone(),
            version: offer.version.clone(),
            digest,
            edges: vec![NAME.parse().unwrap()],
        });
        let key = offer.name.to_string();
        self.bundles.insert(key.clone(), offer);
        &self.bundles[&key]
    }

    pub fn trust(&self) -> &TrustDocument {
        &self.trust
    }

    pub fn desired(&mut self) -> Desired {
        self.trust.version += 1;
        Desired {
            edge: NAME.parse().unwrap(),
            identity: None,
            trust: self.trust.seal(&[&self.root as &dyn Signer], now()).unwrap().to_json().into(),
            bundles: self.bundles.values().cloned().collect(),
            given: Vec::new(),
        }
    }
}

pub fn item(path: &str, digest: Digest, size: u64) -> Item {
    Item {
        repository: "files".parse().unwrap(),
        format: "generic".into(),
        path: path.parse().unwrap(),
        digest,
        size,
        media_type: None,
        checksums: Checksums::default(),
    }
}

/// A directory on the disk that builds go to, and not in a memory file system.
pub fn scratch() -> tempfile::TempDir {
    let target = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    tempfile::Builder::new().prefix("bench-").tempdir_in(target).unwrap()
}
