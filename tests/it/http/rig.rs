//! A server over a small handler, and a client that sends what it is told, byte for byte.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use distedge::blob::{Blob, BlobInfo, BlobStore, BlobWriter, BoxStream, Payload, Quarantine, Stamp};
use distedge::clock::Timestamp;
use distedge::digest::{Checksums, Digest};
use distedge::edge::content::{self, Cache, Representation};
use distedge::edge::integrity::Verifier;
use distedge::edge::problem::Shape;
use distedge::edge::{Body, Delivered, Gate, Handler, Problem};
use distedge::error::{Error, ErrorKind, Result};
use distedge::range::ByteRange;
use distedge::server::{Limits, Server, ServerConfig};
use http::{Method, Request, Response, StatusCode};

/// The size of the artifact in the hostile cases.
pub(super) const SIZE: usize = 1_048_576;
pub(super) const A_BIN: &str = "/generic-local/app/1.0/a.bin";
pub(super) const MODIFIED: Timestamp = Timestamp::from_unix(1_795_323_600);

/// `length` bytes that do not repeat soon.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

type Artifact = (&'static str, Digest, Vec<u8>, Option<&'static str>);

static ARTIFACTS: LazyLock<Vec<Artifact>> = LazyLock::new(|| {
    [
        ("generic-local/app/1.0/a.bin", noise(SIZE), None),
        ("generic-local/big.bin", noise(12 * SIZE), None),
        ("generic-local/empty.bin", Vec::new(), None),
        ("generic-local/page.html", b"<script>alert(1)</script>".to_vec(), None),
        ("generic-local/liar.txt", b"<svg/>".to_vec(), Some("image/svg+xml")),
        ("generic-local/odd.txt", b"odd".to_vec(), Some("text/plain\r\nSet-Cookie: x=1")),
        ("secret-local/s.bin", b"the secret".to_vec(), None),
    ]
    .map(|(path, bytes, media_type)| (path, Digest::of(&bytes), bytes, media_type))
    .into()
});

/// Blobs as files of one directory, read-only through the port; tests write to the files.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) path: PathBuf,
    pub(super) opened: AtomicUsize,
    pub(super) quarantined: AtomicUsize,
}

impl Folder {
    pub(super) fn file(&self, digest: &Digest) -> PathBuf {
        self.path.join(digest.to_hex())
    }
}

#[async_trait]
impl BlobStore for Folder {
    async fn stat(&self, digest: &Digest) -> Result<Option<BlobInfo>> {
        Ok(self.open(digest, None).await?.map(|blob| blob.info))
    }

    async fn open(&self, digest: &Digest, range: Option<ByteRange>) -> Result<Option<Blob>> {
        self.opened.fetch_add(1, SeqCst);
        let Ok(file) = File::open(self.file(digest)) else { return Ok(None) };
        let meta = file.metadata().map_err(|cause| Error::io("reading metadata", cause))?;
        let nanos = |seconds: i64, nanos: i64| (seconds as u64).wrapping_mul(1_000_000_000) + nanos as u64;
        let stamp = Stamp([
            meta.dev(),
            meta.ino(),
            meta.len(),
            nanos(meta.mtime(), meta.mtime_nsec()),
            nanos(meta.ctime(), meta.ctime_nsec()),
        ]);
        Ok(Some(Blob {
            info: BlobInfo { digest: *digest, size: meta.len() },
            range: range.or_else(|| ByteRange::new(0, meta.len()).ok()),
            payload: Payload::File(Arc::new(file)),
            stamp: Some(stamp),
        }))
    }

    async fn create(&self, _: &BlobInfo) -> Result<Box<dyn BlobWriter>> {
        Err(Error::new(ErrorKind::Unsupported, "this store is read-only"))
    }

    async fn remove(&self, digest: &Digest) -> Result<bool> {
        Ok(std::fs::remove_file(self.file(digest)).is_ok())
    }

    fn list(&self) -> BoxStream<Result<BlobInfo>> {
        Box::pin(futures_util::stream::empty())
    }

    fn as_quarantine(&self) -> Option<&dyn Quarantine> {
        Some(self)
    }
}

#[async_trait]
impl Quarantine for Folder {
    async fn quarantine(&self, digest: &Digest, _: Option<Stamp>) -> Result<bool> {
        self.quarantined.fetch_add(1, SeqCst);
        let aside = self.path.join(format!("quarantine-{}", digest.to_hex()));
        Ok(std::fs::rename(self.file(digest), aside).is_ok())
    }
}

/// Serves artifacts under fixed paths, and takes uploads under `/upload`.
#[derive(Clone)]
pub(super) struct Site {
    gate: Gate,
    verifier: Arc<Verifier>,
    artifacts: Arc<HashMap<String, Representation>>,
    pub(super) delivered: Arc<Mutex<Vec<Delivered>>>,
}

impl Handler for Site {
    async fn handle(&self, request: Request<Body>, _peer: SocketAddr) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let head = parts.method == Method::HEAD;
        let shape =
            if parts.uri.path().starts_with("/artifactory/") { Shape::Artifactory } else { Shape::Problem };
        self.answer(&parts, body).await.unwrap_or_else(|problem| problem.response(head, shape))
    }
}

impl Site {
    async fn answer(&self, parts: &http::request::Parts, mut body: Body) -> Result<Response<Body>, Problem> {
        let admitted = self.gate.admit(parts)?;
        match admitted.target.segments().first().map(String::as_str) {
            Some("upload") => {
                let mut received = 0;
                while let Some(chunk) = body.next_chunk().await {
                    received += chunk?.len();
                }
                let mut response = Response::new(Body::from(received.to_string()));
                response.headers_mut().insert("upload-offset", received.into());
                return Ok(response);
            }
            Some("seen") => {
                let seen = format!("{:?} {:?} {:?}", parts.method, parts.headers, admitted);
                return Ok(Response::new(Body::from(seen)));
            }
            Some("slow") => {
                tokio::time::sleep(Duration::from_millis(600)).await;
                return Ok(Response::new(Body::from("late")));
            }
            Some("panic") => panic!("as it was asked to"),
            Some("status") => {
                let mut response = Response::new(Body::from("no entry"));
                *response.status_mut() = StatusCode::UNAUTHORIZED;
                return Ok(response);
            }
            _ => {}
        }
        if !matches!(admitted.method, Method::GET | Method::HEAD) {
            return Err(Error::new(ErrorKind::MethodNotAllowed, "artifacts are read-only").into());
        }
        let path = admitted.target.segments().join("/");
        let missing = || Error::new(ErrorKind::NotFound, "there is no such artifact");
        let artifact = self.artifacts.get(&path).ok_or_else(missing)?;
        let mut response =
            content::respond(&content::select(parts, artifact, false)?, artifact, &self.verifier).await?;
        let delivered = Arc::clone(&self.delivered);
        response.body_mut().on_end(move |end| delivered.lock().unwrap().push(end));
        Ok(response)
    }
}

/// A running server; stops when dropped.
pub(super) struct Rig {
    pub(super) address: SocketAddr,
    pub(super) site: Site,
    pub(super) store: Arc<Folder>,
    pub(super) damage: Arc<Mutex<Vec<String>>>,
    runtime: Option<tokio::runtime::Runtime>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    served: Option<tokio::task::JoinHandle<Result<()>>>,
    _dir: tempfile::TempDir,
}

impl Rig {
    pub(super) fn new() -> Rig {
        Rig::with(Limits::default(), Gate::new(), |config| config)
    }

    pub(super) fn with_limits(limits: Limits) -> Rig {
        Rig::with(limits, Gate::new(), |config| config)
    }

    pub(super) fn with(limits: Limits, gate: Gate, configure: impl Fn(ServerConfig) -> ServerConfig) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Folder {
            path: dir.path().to_owned(),
            opened: AtomicUsize::new(0),
            quarantined: AtomicUsize::new(0),
        });
        let mut artifacts = HashMap::new();
        for (path, digest, bytes, media_type) in &*ARTIFACTS {
            let (path, digest) = (*path, *digest);
            std::fs::write(store.file(&digest), bytes).unwrap();
            let representation = Representation {
                info: BlobInfo { digest, size: bytes.len() as u64 },
                media_type: media_type.map(str::to_owned),
                file_name: path.rsplit('/').next().unwrap().to_owned(),
                last_modified: MODIFIED,
                checksums: Checksums { sha1: Some("a".repeat(40)), md5: Some("not hex".into()) },
                cache: Cache::Public,
            };
            artifacts.insert(path.to_owned(), representation);
        }
        let damage = Arc::new(Mutex::new(Vec::new()));
        let reports = Arc::clone(&damage);
        let verifier = Verifier::new(Arc::clone(&store) as Arc<dyn BlobStore>)
            .with_damage_observer(move |digest, why| reports.lock().unwrap().push(format!("{digest} {why}")));
        let site = Site {
            gate,
            verifier: Arc::new(verifier),
            artifacts: Arc::new(artifacts),
            delivered: Arc::default(),
        };
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let config = ServerConfig::new(([127, 0, 0, 1], 0).into()).with_limits(limits);
        let server = runtime.block_on(Server::bind(configure(config), site.clone())).unwrap();
        let address = server.local_addr();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let served = runtime.spawn(server.serve(async {
            let _ = stopped.await;
        }));
        Rig {
            address,
            site,
            store,
            damage,
            runtime: Some(runtime),
            stop: Some(stop),
            served: Some(served),
            _dir: dir,
        }
    }

    pub(super) fn digest(&self, path: &str) -> Digest {
        self.site.artifacts[path.trim_start_matches('/')].info.digest
    }

    pub(super) fn connect(&self) -> Wire {
        Wire::to(self.address)
    }

    /// Sends `request` on a connection of its own and reads one answer.
    pub(super) fn ask(&self, request: impl AsRef<[u8]>) -> Reply {
        let mut wire = self.connect();
        wire.send(request);
        wire.reply(false)
    }

    /// `GET path` with more header lines, each ending in CRLF.
    pub(super) fn get(&self, path: &str, lines: &str) -> Reply {
        self.ask(format!("GET {path} HTTP/1.1\r\nHost: edge.test\r\n{lines}\r\n"))
    }

    pub(super) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.as_ref().unwrap().block_on(future)
    }

    /// Begins a graceful stop.
    pub(super) fn stop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }

    /// Waits until `serve` has returned.
    pub(super) fn stopped(&mut self) {
        let served = self.served.take().unwrap();
        self.block_on(served).unwrap().unwrap();
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A raw connection.
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

/// A parsed answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Whether the connection ended before the announced length.
    pub(crate) cut: bool,
}

impl Wire {
    pub(crate) fn to(address: SocketAddr) -> Wire {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Wire { stream, buffer: Vec::new() }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // A server that has seen enough may have closed.
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// The next answer; `head` if it is to a HEAD request.
    pub(crate) fn reply(&mut self, head: bool) -> Reply {
        self.try_reply(head).expect("an answer")
    }

    /// The next answer, or `None` if the connection ends before one.
    pub(crate) fn try_reply(&mut self, head: bool) -> Option<Reply> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.fill() {
                return None;
            }
        };
        let text = String::from_utf8(self.buffer.drain(..end).collect()).unwrap();
        let mut lines = text.split("\r\n");
        let status: u16 = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        if status == 100 {
            return self.try_reply(head);
        }
        let mut reply = Reply { status, headers, body: Vec::new(), cut: false };
        let length = match reply.header("content-length") {
            _ if head || status == 304 => 0,
            Some(length) => length.parse().unwrap(),
            None => 0,
        };
        while self.buffer.len() < length && !reply.cut {
            reply.cut = !self.fill();
        }
        let taken = length.min(self.buffer.len());
        reply.body = self.buffer.drain(..taken).collect();
        Some(reply)
    }

    /// Waits for the first bytes of an answer, and keeps them for it.
    pub(crate) fn peek(&mut self) -> bool {
        !self.buffer.is_empty() || self.fill()
    }

    /// Whether the server closes now, without sending more.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && !self.fill()
    }

    fn fill(&mut self) -> bool {
        let mut chunk = [0; 65536];
        match self.stream.read(&mut chunk) {
            Ok(0) => false,
            Ok(length) => {
                self.buffer.extend_from_slice(&chunk[..length]);
                true
            }
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe
                ) =>
            {
                false
            }
            Err(error) => panic!("the server neither answers nor closes: {error}"),
        }
    }
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(header, _)| header == name);
        let value = values.next()?;
        assert!(values.next().is_none(), "{name} appears twice");
        Some(&value.1)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Everything the client sees.
    pub(crate) fn everything(&self) -> String {
        format!("{:?} {}", self.headers, self.text())
    }
}
