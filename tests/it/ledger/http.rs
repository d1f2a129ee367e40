//! The audit log as an edge keeps it and a source witnesses it, over HTTP without sockets.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use distedge::audit::{
    AuditSink as _, Checkpoint, Entry, Event, LogOptions, TILE, TileLog, Trusted, Witness, kind, origin,
    verify,
};
use distedge::blob::MemoryBlobStore;
use distedge::edge::{Body, Governance, Handler as _};
use distedge::error::{ErrorKind, Result};
use distedge::govern::Downloads;
use distedge::key::{Algorithm, Signer as _};
use distedge::merkle;
use distedge::meta::MemoryStore;
use distedge::name::{NodeName, Tenant};
use distedge::secret::Secret;
use distedge::source::{
    ConvergeOptions, ConvergeProgress, Dial, EdgeRecord, MemoryVault, NewKey, Ports, Role, Source,
};
use distedge::testing::block_on;
use distedge::transport::{Credentials, Transport};
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::support::{House, LoopTransport, NOW, TOKEN, TestEdge, identity, name, peer, taken};

/// An edge with a log in a directory.
struct Ledger {
    edge: TestEdge,
    log: Arc<TileLog>,
    directory: tempfile::TempDir,
}

/// With public artifacts.
async fn ledger() -> Ledger {
    let mut house = House::new(&["e1"]);
    house.release("shop", "1.0", 1, &[("app/a.bin", &[7; 40_000]), ("app/b.txt", b"hello")]).await;
    let ledger = bare(TestEdge::new("e1").await);
    ledger.edge.converge(&house.desired("e1"), &house.blobs).await.unwrap();
    ledger
}

fn bare(mut edge: TestEdge) -> Ledger {
    let directory = tempfile::tempdir().unwrap();
    let (tenant, store) = (name::<Tenant>("default"), Arc::new(MemoryStore::new()));
    let log = open(directory.path(), &edge);
    let downloads = Downloads::open(store, &tenant, log.clone());
    let governance = Governance::none().with_ledger(log.clone()).with_downloads(downloads);
    edge.edge = edge.edge.clone().with_governance(governance);
    Ledger { edge, log, directory }
}

fn open(directory: &Path, edge: &TestEdge) -> Arc<TileLog> {
    let origin = origin(&name::<NodeName>("e1"), &name::<Tenant>("default"));
    let options = LogOptions::default().with_sizes(1 << 20, 64 << 10, 64 << 10);
    Arc::new(
        TileLog::open(directory, &origin, Arc::new(identity("e1")), edge.clock.clone(), options).unwrap(),
    )
}

impl Ledger {
    async fn json(&self, path: &str) -> Value {
        let (status, body) = self.edge.get_as_admin(path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap()
    }

    async fn post(&self, path: &str, body: Vec<u8>) -> (StatusCode, Bytes) {
        let request = Request::builder().method(Method::POST).uri(path).header("host", "edge.test");
        let request = request
            .header("authorization", format!("Bearer {TOKEN}"))
            .header("content-length", body.len())
            .body(Body::from_bytes(body));
        taken(self.edge.edge.handle(request.unwrap(), peer()).await).await
    }
}

#[test]
fn downloads_are_in_the_log_and_are_counted() {
    block_on(async {
        let ledger = ledger().await;
        for _ in 0..3 {
            assert_eq!(ledger.edge.get("/files/app/a.bin").await.0, StatusCode::OK);
        }
        let response = ledger.edge.request(Method::GET, "/files/app/a.bin", None).await;
        drop(response);
        ledger.edge.request(Method::HEAD, "/files/app/b.txt", None).await;
        let found = ledger.json("/api/v1/audit?kind=download.&limit=3").await;
        let entries = found["entries"].as_array().unwrap();
        assert_eq!(entries.len(), 3);
        assert_eq!(entries[0]["kind"], "download.start");
        assert_eq!((&entries[1]["kind"], &entries[1]["path"]), (&json!("download.end"), &json!("app/a.bin")));
        assert_eq!((&entries[1]["bytes"], &entries[1]["complete"]), (&json!(40_000), &json!(true)));
        assert_eq!((&entries[1]["address"], &entries[1]["who"]), (&json!("127.0.0.1"), &json!("anonymous")));
        let rest = ledger.json(&format!("/api/v1/audit?kind=download.&after={}", found["next"])).await;
        assert_eq!(rest["entries"].as_array().unwrap().len(), 5);
        let counted = ledger.json("/api/v1/downloads?group=artifact").await;
        assert_eq!(
            counted["rows"],
            json!([{ "value": "files/app/a.bin", "started": 4, "completed": 3, "aborted": 1, "bytes": 120_000 }])
        );
        assert_eq!(ledger.json("/api/v1/downloads?group=subject").await["rows"][0]["value"], "anonymous");
        // It is nobody's business.
        for path in ["/api/v1/audit", "/api/v1/downloads", "/api/v1/audit/checkpoint", "/api/v1/audit/export"]
        {
            assert_eq!(ledger.edge.get(path).await.0, StatusCode::UNAUTHORIZED, "{path}");
        }
        for path in
            ["/api/v1/audit?colour=red", "/api/v1/downloads?group=x", "/api/v1/audit/export?format=zip"]
        {
            assert_eq!(ledger.edge.get_as_admin(path).await.0, StatusCode::BAD_REQUEST, "{path}");
        }
    });
}

#[test]
fn tiles_and_proofs_are_served() {
    block_on(async {
        let ledger = ledger().await;
        for _ in 0..200 {
            ledger.edge.get("/files/app/b.txt").await;
        }
        ledger.log.flush().unwrap();
        let (_, note) = ledger.edge.get_as_admin("/api/v1/audit/checkpoint").await;
        let checkpoint = Checkpoint::parse(&note).unwrap();
        checkpoint.verify(&identity("e1").public_key(), NOW).unwrap();
        let size = checkpoint.size;
        assert!(size > 400, "{size}");
        let (status, tile) = ledger.edge.get_as_admin("/api/v1/audit/tile/0/000").await;
        assert_eq!((status, tile.len()), (StatusCode::OK, 32 * TILE));
        let (_, bundle) = ledger.edge.get_as_admin("/api/v1/audit/tile/entries/000").await;
        let length = usize::from(u16::from_be_bytes([bundle[0], bundle[1]]));
        let first = &bundle[2..2 + length];
        assert_eq!(Entry::parse(first).unwrap().seq, 0);
        assert_eq!(merkle::leaf(first), tile[..32]);
        let (_, upper) = ledger.edge.get_as_admin("/api/v1/audit/tile/1/000.p/1").await;
        assert_eq!(upper, merkle::complete(tile.as_chunks().0)[..]);
        for missing in
            ["tile/0/001", "tile/0/000.p/256", "tile/8/000", "tile/2/000.p/1", "tile/entries/009", "tile/x"]
        {
            let (status, _) = ledger.edge.get_as_admin(&format!("/api/v1/audit/{missing}")).await;
            assert_eq!(status, StatusCode::NOT_FOUND, "{missing}");
        }
        let proof = ledger.json(&format!("/api/v1/audit/proof/inclusion/0/{size}")).await;
        let hashes: Vec<merkle::Hash> = (proof["hashes"].as_array().unwrap().iter())
            .map(|hash| {
                use base64::Engine as _;
                base64::engine::general_purpose::STANDARD.decode(hash.as_str().unwrap()).unwrap()
            })
            .map(|hash| hash.try_into().unwrap())
            .collect();
        assert!(merkle::verify_inclusion(&merkle::leaf(first), 0, size, &hashes, &checkpoint.root));
    });
}

#[test]
fn an_export_is_verified_by_us_and_by_python() {
    block_on(async {
        let ledger = ledger().await;
        for _ in 0..300 {
            ledger.edge.get("/files/app/b.txt").await;
        }
        let note = ledger.log.flush().unwrap().to_note();
        let source = identity("a source");
        let seen = Witness::new(ledger.log.origin(), ledger.log.key())
            .observe(note.as_bytes(), &[], "source-1", &source, NOW)
            .unwrap();
        // Over HTTP only the word of a paired source counts.
        let (status, _) = ledger.post("/api/v1/audit/cosignature", seen.witness.note.clone().into()).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        ledger
            .log
            .accept_cosignature(seen.witness.note.as_bytes(), "source-1", &source.public_key())
            .unwrap();
        ledger.edge.get("/files/app/b.txt").await;
        let (status, tar) = ledger.edge.get_as_admin("/api/v1/audit/export").await;
        assert_eq!(status, StatusCode::OK);
        let path = ledger.directory.path().join("export.tar");
        std::fs::write(&path, &tar).unwrap();
        let trusted = Trusted::key(ledger.log.key()).with_witness("source-1", source.public_key());
        let report = verify(&path, &trusted, NOW).unwrap();
        assert_eq!((report.flaw.clone(), report.witnessed.len()), (None, 1));
        let python = |path: &Path| {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/verify-audit.py");
            let witness = format!("source-1={}", source.public_key().to_text());
            Command::new("python3")
                .arg(script)
                .arg(path)
                .arg(ledger.log.key().to_text())
                .arg(witness)
                .output()
        };
        let available = Command::new("python3").args(["-c", "import cryptography"]).output();
        if !available.is_ok_and(|output| output.status.success()) {
            println!("skipped: python3 with cryptography is not here");
            return;
        }
        let output = python(&path).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stdout).starts_with("good: distedge/e1/default, "));
        // The same with one other character in one line.
        let mut edited = tar.to_vec();
        let at = edited.windows(11).position(|window| window == b"\"complete\":").unwrap();
        edited[at + 11] = b'T';
        std::fs::write(&path, &edited).unwrap();
        assert!(!python(&path).unwrap().status.success());
        assert!(!verify(&path, &trusted, NOW).unwrap().is_good());
    });
}

#[test]
fn an_address_is_erased() {
    block_on(async {
        let ledger = ledger().await;
        ledger.edge.get("/files/app/b.txt").await;
        assert_eq!(
            ledger.json("/api/v1/audit?who=127.0.0.1&kind=download.").await["entries"]
                .as_array()
                .unwrap()
                .len(),
            2
        );
        let (status, body) = ledger.post("/api/v1/audit/erase", br#"{"subject":"127.0.0.1"}"#.to_vec()).await;
        assert_eq!((status, &body[..]), (StatusCode::OK, &br#"{"erased":1}"#[..]));
        let entries = ledger.json("/api/v1/audit?kind=download.end").await;
        assert!(entries["entries"][0]["address"].as_str().unwrap().starts_with("127.0.0.0/24~"));
        assert_eq!(ledger.json("/api/v1/audit?kind=person.erased").await["entries"][0]["who"], "token:test");
        assert_eq!(
            ledger.post("/api/v1/audit/erase", br#"{"subject":"alice"}"#.to_vec()).await.0,
            StatusCode::BAD_REQUEST
        );
        ledger.log.flush().unwrap();
        assert!(verify(ledger.directory.path(), &Trusted::key(ledger.log.key()), NOW).unwrap().is_good());
    });
}

/// One edge, reached without a socket.
#[derive(Debug)]
struct Wire(Mutex<TestEdge>);

impl Dial for Wire {
    fn dial(&self, _: &EdgeRecord, _: Credentials) -> Result<Arc<dyn Transport>> {
        let edge = self.0.lock().unwrap().edge.clone();
        Ok(Arc::new(LoopTransport { edge, token: Some(TOKEN) }))
    }
}

#[test]
fn a_source_remembers_what_it_saw_and_raises_an_alarm() {
    block_on(async {
        let ledger = bare(TestEdge::new("e1").await);
        let (clock, spool) = (ledger.edge.clock.clone(), tempfile::tempdir().unwrap());
        let ports = Ports {
            blobs: Arc::new(MemoryBlobStore::new()),
            meta: Arc::new(MemoryStore::new()),
            clock: clock.clone(),
            vault: Arc::new(MemoryVault::new()),
            spool: spool.path().to_owned(),
        };
        let source = Source::create_over(ports, &name::<Tenant>("default"), "default").await.unwrap();
        for role in [Role::Root, Role::Release] {
            source.create_key(role, Algorithm::Ed25519, &NewKey::new(role.as_str())).await.unwrap();
        }
        let e1: NodeName = name("e1");
        let record = EdgeRecord::new(e1.clone(), "https://e1.example");
        source.set_edge(&record, Some(&Secret::new(TOKEN))).await.unwrap();
        let wire = Wire(Mutex::new(ledger.edge.clone()));
        // The edge's key is not known before the first contact.
        assert_eq!(source.witness(&e1, &wire).await.unwrap_err().kind(), ErrorKind::NotFound);
        for _ in 0..5 {
            ledger.edge.get("/nothing/here").await;
            ledger.log.record(Event::by_itself(NOW, kind::CONFIG_CHANGED)).unwrap();
        }
        ledger.log.flush().unwrap();
        // It is witnessed along with everything else that is done for an edge.
        let progress: ConvergeProgress = Arc::new(|_, _| ());
        source.converge(&wire, &ConvergeOptions::default(), &progress).await.unwrap();
        let seen = source.witnessed().await.unwrap();
        let first = seen[0].witness.size;
        assert!(first >= 6 && seen[0].alarm.is_none(), "{seen:?}");
        // More of the same is seen next time.
        ledger.log.record(Event::by_itself(NOW, kind::CONFIG_CHANGED)).unwrap();
        ledger.log.flush().unwrap();
        clock.advance(11);
        source.converge(&wire, &ConvergeOptions::default(), &progress).await.unwrap();
        assert!(source.witnessed().await.unwrap()[0].witness.size > first);
        assert!(source.verify_log(&e1, ledger.directory.path()).await.unwrap().is_good());

        // L02: somebody has the edge's key and another past.
        let forged = bare(ledger.edge.clone());
        for _ in 0..40 {
            forged.log.record(Event::by_itself(NOW, kind::GC_RUN)).unwrap();
        }
        forged.log.flush().unwrap();
        *wire.0.lock().unwrap() = forged.edge.clone();
        let error = source.witness(&e1, &wire).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        let flaw = source.verify_log(&e1, forged.directory.path()).await.unwrap().flaw.unwrap();
        assert!(flaw.why.contains("witness"), "{flaw}");
        // The alarm stays, also when the old log is back.
        *wire.0.lock().unwrap() = ledger.edge.clone();
        assert_eq!(source.witness(&e1, &wire).await.unwrap_err().kind(), ErrorKind::Conflict);
        assert!(source.witnessed().await.unwrap()[0].alarm.is_some());
    });
}
