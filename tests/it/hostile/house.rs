//! An edge with a public and a private repository, on a socket.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use distedge::blob::MemoryBlobStore;
use distedge::bundle::{Envelope, STATEMENT_PAYLOAD};
use distedge::catalog::RepositoryRecord;
use distedge::digest::Digest;
use distedge::distribute::BundleOffer;
use distedge::key::Signer;
use distedge::meta::MemoryStore;
use distedge::server::{Limits, Server, ServerConfig};
use tokio::runtime::Runtime;

use crate::http::rig::{Reply, Wire, noise};
use crate::support::{House, NOW, TOKEN, TestEdge, name};

pub(super) const SIZE: usize = 1_048_576;
pub(super) const A_BIN: &str = "/generic-local/app/1.0/a.bin";
pub(super) const SECRET: &[u8] = b"the secret";

/// The edge that all tests share which only read.
pub(super) static SHARED: LazyLock<Site> = LazyLock::new(Site::new);

pub(super) struct Site {
    pub(super) address: SocketAddr,
    pub(super) edge: TestEdge,
    runtime: Runtime,
}

impl Site {
    /// Public `generic-local`, private `secret-local`.
    pub(super) fn new() -> Site {
        let (site, _) = Site::with_house(Limits::default());
        site
    }

    pub(super) fn with_house(limits: Limits) -> (Site, House) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut house = House::new(&["e1"]);
        let edge = runtime.block_on(async {
            let edge =
                TestEdge::over("e1", Arc::new(MemoryStore::new()), Arc::new(MemoryBlobStore::new()), false)
                    .await
                    .unwrap();
            let record = RepositoryRecord { format: "generic".into(), public: true };
            edge.edge.receiver().catalog().set_repository(&name("generic-local"), &record).await.unwrap();
            fill(&mut house).await;
            let outcome = edge.converge(&house.desired("e1"), &house.blobs).await.unwrap();
            assert!(outcome.failed.is_empty(), "{:?}", outcome.failed);
            edge
        });
        let config = ServerConfig::new(([127, 0, 0, 1], 0).into()).with_limits(limits);
        let server = runtime.block_on(Server::bind(config, edge.edge.clone())).unwrap();
        let address = server.local_addr();
        runtime.spawn(server.serve(std::future::pending()));
        (Site { address, edge, runtime }, house)
    }

    pub(super) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
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

    /// `GET target` with more header lines, each ending in CRLF.
    pub(super) fn get(&self, target: &str, lines: &str) -> Reply {
        self.ask(format!("GET {target} HTTP/1.1\r\nHost: edge.test\r\n{lines}\r\n"))
    }

    pub(super) fn get_as_admin(&self, target: &str) -> Reply {
        self.get(target, &format!("Authorization: Bearer {TOKEN}\r\n"))
    }

    /// A request of the control surface with the token.
    pub(super) fn send(&self, method: &str, target: &str, body: &[u8]) -> Reply {
        let mut wire = self.connect();
        wire.send(format!(
            "{method} {target} HTTP/1.1\r\nHost: edge.test\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        ));
        wire.send(body);
        wire.reply(method == "HEAD")
    }

    /// Every one of `targets` gets `status`, and nothing that is private.
    pub(super) fn all(&self, status: u16, targets: &[&str]) {
        for target in targets {
            let reply = self.get(target, "");
            assert_eq!(reply.status, status, "{target}: {}", reply.text());
            assert!(!reply.everything().contains("secret"), "{target}: {}", reply.everything());
            assert!(reply.header("set-cookie").is_none(), "{target}");
        }
    }

    pub(super) fn event_kinds(&self) -> Vec<String> {
        self.block_on(self.edge.event_kinds())
    }
}

async fn fill(house: &mut House) {
    let mut builder = House::statement("app", "1.0", 1);
    let files: [(&str, &str, Vec<u8>, Option<&str>); 7] = [
        ("generic-local", "app/1.0/a.bin", noise(SIZE), None),
        ("generic-local", "app/1.0/one.txt", b"one".to_vec(), None),
        ("generic-local", "page.html", b"<script>alert(1)</script>".to_vec(), None),
        ("generic-local", "image.svg", b"<svg onload='alert(1)'/>".to_vec(), None),
        ("generic-local", "liar.txt", b"<svg/>".to_vec(), Some("image/svg+xml")),
        ("generic-local", "odd/\"><script>alert(1)<\u{e4}.txt", b"odd".to_vec(), None),
        ("generic-local", "empty.bin", Vec::new(), None),
    ];
    for (repository, path, bytes, media_type) in files {
        let mut item = house.item(repository, path, &bytes).await;
        item.media_type = media_type.map(str::to_owned);
        builder = builder.item(item);
    }
    let builder = builder.alias(name("generic-local"), name("app"), "latest", name("app/1.0/a.bin"));
    let offer = house.sign(&builder.build().unwrap());
    house.assign(offer);
    let item = house.item("secret-local", "s.bin", SECRET).await;
    let builder = House::statement("hidden", "1.0", 1).item(item).alias(
        name("secret-local"),
        name("alias"),
        "latest",
        name("s.bin"),
    );
    let offer = house.sign(&builder.build().unwrap());
    house.assign(offer);
}

/// An edge that tests may change, and the house that signs for it.
pub(super) struct Lane {
    pub(super) site: Site,
    pub(super) house: House,
}

impl Lane {
    pub(super) fn new() -> Lane {
        let (site, house) = Site::with_house(Limits::default());
        Lane { site, house }
    }

    /// The envelope of `payload` by the release key.
    pub(super) fn seal(&self, payload: &[u8]) -> Vec<u8> {
        let signer = &self.house.release as &dyn Signer;
        Envelope::seal(STATEMENT_PAYLOAD, payload.to_vec(), &[signer], NOW).unwrap().to_json()
    }

    /// Assigns the statement `payload` of bundle `version` of `shop` to the edge, in force.
    pub(super) fn assign(&mut self, version: &str, payload: &[u8]) {
        let old = (name("shop"), name(version));
        self.house.trust.assignments.retain(|one| (one.bundle.clone(), one.version.clone()) != old);
        self.house.assign(BundleOffer {
            name: name("shop"),
            version: name(version),
            digest: Digest::of(payload),
            envelope: Bytes::new(),
        });
        self.put_trust();
    }

    pub(super) fn put_trust(&mut self) {
        let trust = self.house.next_trust();
        let reply = self.site.send("PUT", "/api/v1/trust", &trust);
        assert_eq!(reply.status, 200, "{}", reply.text());
    }

    pub(super) fn offer(&self, envelope: &[u8]) -> Reply {
        self.site.send("POST", "/api/v1/bundles", envelope)
    }

    /// Sends every wanted blob and commits.
    pub(super) fn finish(&self, bundle: &str, version: &str, blobs: &[&[u8]]) -> Reply {
        for blob in blobs {
            let digest = Digest::of(blob);
            let mut wire = self.site.connect();
            wire.send(format!(
                "PATCH /api/v1/blobs/{} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n\
                 Upload-Offset: 0\r\nContent-Length: {}\r\n\r\n",
                digest.to_hex(),
                blob.len()
            ));
            wire.send(blob);
            let reply = wire.reply(false);
            assert_eq!(reply.status, 201, "{}", reply.text());
        }
        self.site.send("POST", &format!("/api/v1/bundles/{bundle}/{version}/commit"), b"")
    }

    /// The envelope is refused with `status`, and the edge shows nothing of it.
    pub(super) fn refused(&self, status: u16, envelope: &[u8], what: &str) {
        let reply = self.offer(envelope);
        assert_eq!(reply.status, status, "{what}: {}", reply.text());
        for path in ["/generic-local/shop/1.0/x", "/generic-local/shop/"] {
            assert_eq!(self.site.get(path, "").status, 404, "{what}");
        }
        assert_eq!(self.site.get_as_admin("/api/v1/bundles/shop/1.0").status, 404, "{what}");
        let commit = self.site.send("POST", "/api/v1/bundles/shop/1.0/commit", b"");
        assert_eq!(commit.status, 404, "{what}");
    }
}

/// The statement of bundle `shop` with these files in `generic-local`.
pub(super) async fn shop(house: &House, version: &str, seq: u64, files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = House::statement("shop", version, seq);
    for (path, bytes) in files {
        builder = builder.item(house.item("generic-local", path, bytes).await);
    }
    builder.build().unwrap().to_payload()
}
