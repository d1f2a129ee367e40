//! Releases that move as files: volumes in any order, lost, damaged, cut off; receipts back.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use distedge::blob::{ByteStream, MemoryBlobStore};
use distedge::catalog::Catalog;
use distedge::delta::pack::FRAME;
use distedge::delta::pack::volume::{self, Volume};
use distedge::distribute::airgap::{Export, ImportAnswer, Receipts, file_bytes};
use distedge::distribute::{Events, Method, Planner, PlannerOptions, Receiver, SectionState};
use distedge::error::{Error, ErrorKind, Result};
use distedge::key::Algorithm;
use distedge::meta::MemoryStore;
use distedge::name::NodeName;
use distedge::source::{
    AddOptions, AirGapOptions, EdgeRecord, MemoryVault, NewBundle, NewKey, Pattern, Ports, Role, Selection,
    Source,
};
use distedge::testing::ManualClock;
use futures_util::{StreamExt as _, stream};

use crate::process::{EdgeProcess, edge_binary, request, run};
use crate::support::{NOW, identity, name};

const MB: u64 = 1_000_000;

/// Bytes that do not compress.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A source, and room for what it writes.
struct Gap {
    source: Source,
    clock: ManualClock,
    directory: tempfile::TempDir,
}

impl Gap {
    async fn new(edges: &[&str]) -> Gap {
        let (clock, directory) = (ManualClock::new(NOW), tempfile::tempdir().unwrap());
        let ports = Ports {
            blobs: Arc::new(MemoryBlobStore::new()),
            meta: Arc::new(MemoryStore::new()),
            clock: Arc::new(clock.clone()),
            vault: Arc::new(MemoryVault::new()),
            spool: directory.path().join("spool"),
        };
        let planner = Planner::open(directory.path().join("plans"), PlannerOptions::default()).unwrap();
        let source =
            Source::create_over(ports, &name("default"), "default").await.unwrap().with_planner(planner);
        for (role, alias) in [(Role::Root, "root"), (Role::Release, "release")] {
            source.create_key(role, Algorithm::Ed25519, &NewKey::new(alias)).await.unwrap();
        }
        for edge in edges {
            source.set_edge(&EdgeRecord::new(name(edge), "http://unreachable.test"), None).await.unwrap();
        }
        Gap { source, clock, directory }
    }

    /// Signs a bundle `shop` of these files, for all edges.
    async fn release(&self, version: &str, files: &[(&str, &[u8])]) {
        for (path, bytes) in files {
            let path = format!("shop/{version}/{path}");
            let options = AddOptions::default();
            self.source.add_bytes(&name("files"), &name(&path), bytes.to_vec(), &options).await.unwrap();
        }
        let pattern = Pattern::new(&format!("files/shop/{version}/**")).unwrap();
        let new = NewBundle::new(name("shop"), name(version), Selection::new().with_pattern(pattern));
        self.source.create_bundle(&new).await.unwrap();
        self.source.sign_bundle(&name("shop"), &name(version), &[]).await.unwrap();
        let edges: Vec<NodeName> =
            self.source.edges().await.unwrap().into_iter().map(|edge| edge.name).collect();
        self.source.assign(&name("shop"), &name(version), &edges).await.unwrap();
    }

    fn options(&self) -> AirGapOptions {
        AirGapOptions { volume: MB, ..AirGapOptions::default() }
    }

    async fn export(&self, edge: &str, options: &AirGapOptions) -> Result<Export> {
        let quiet: Events = Arc::new(|_| ());
        self.source.air_gap(&name(edge), options, &quiet).await
    }

    /// Writes all volumes for an edge into a directory of this name.
    async fn volumes(&self, edge: &str, into: &str) -> Vec<PathBuf> {
        let export = self.export(edge, &self.options()).await.unwrap();
        self.source.write_volumes(&export, &self.path(into), edge, &[]).await.unwrap()
    }

    fn path(&self, of: &str) -> PathBuf {
        self.directory.path().join(of)
    }

    async fn drift(&self, edge: &str) -> u64 {
        let status = self.source.status().await.unwrap();
        status.iter().find(|status| status.edge.name.as_str() == edge).unwrap().drift
    }
}

/// Three files that take three volumes of a megabyte.
async fn three_volumes() -> (Gap, Vec<PathBuf>) {
    let gap = Gap::new(&["e1", "e2"]).await;
    let files = [("a.tar", noise(1, 900_000)), ("b.tar", noise(2, 1_100_000)), ("c.tar", noise(3, 300_000))];
    let files: Vec<(&str, &[u8])> = files.iter().map(|(path, bytes)| (*path, &bytes[..])).collect();
    gap.release("1.0", &files).await;
    let volumes = gap.volumes("e1", "out").await;
    assert_eq!(volumes.len(), 3);
    (gap, volumes)
}

/// An edge that can be killed: its stores and its inbox outlive it.
struct FarEdge {
    name: &'static str,
    store: Arc<MemoryStore>,
    blobs: MemoryBlobStore,
    clock: ManualClock,
    inbox: tempfile::TempDir,
    receiver: Receiver,
}

impl FarEdge {
    async fn new(edge: &'static str) -> FarEdge {
        let (store, blobs, clock) = (Arc::default(), MemoryBlobStore::new(), ManualClock::new(NOW));
        let inbox = tempfile::tempdir().unwrap();
        let receiver = FarEdge::open(edge, &store, &blobs, &clock, inbox.path()).await;
        FarEdge { name: edge, store, blobs, clock, inbox, receiver }
    }

    async fn open(
        edge: &str,
        store: &Arc<MemoryStore>,
        blobs: &MemoryBlobStore,
        clock: &ManualClock,
        inbox: &Path,
    ) -> Receiver {
        let catalog = Catalog::open(store.clone(), name("default")).await.unwrap();
        let (blobs, clock) = (Arc::new(blobs.clone()), Arc::new(clock.clone()));
        let receiver =
            Receiver::open(catalog, blobs, clock, name(edge), Arc::new(identity(edge))).await.unwrap();
        receiver.with_inbox(inbox, 1 << 30).unwrap()
    }

    async fn restart(&mut self) {
        let (store, blobs, clock) = (&self.store, &self.blobs, &self.clock);
        self.receiver = FarEdge::open(self.name, store, blobs, clock, self.inbox.path()).await;
    }

    async fn import(&self, volume: &Path) -> Result<ImportAnswer> {
        self.receiver.import(None, file_bytes(volume).unwrap()).await
    }

    async fn visible(&self, path: &str) -> Option<u64> {
        let found = self.receiver.catalog().artifact(&name("files"), &name(path)).await.unwrap();
        found.map(|artifact| artifact.size)
    }
}

fn bytes_of(bytes: &[u8]) -> ByteStream {
    Box::pin(stream::iter(
        bytes.chunks(100_000).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect::<Vec<_>>(),
    ))
}

fn described(path: &Path) -> Volume {
    volume::verify(&mut fs::File::open(path).unwrap()).unwrap().volume
}

#[tokio::test]
async fn volumes_come_in_any_order_and_a_lost_one_is_sent_again() {
    let (gap, volumes) = three_volumes().await;
    for (volume, number) in volumes.iter().zip(1..) {
        let described = described(volume);
        assert_eq!((described.number, described.count, described.edge.as_str()), (number, 3, "e1"));
        assert!(fs::metadata(volume).unwrap().len() <= MB);
    }
    let edge = FarEdge::new("e1").await;
    let third = edge.import(&volumes[2]).await.unwrap();
    assert_eq!((third.number, third.count, third.missing.clone()), (3, 3, vec![1, 2]));
    assert_eq!((third.bundles[0].state.as_str(), third.is_complete()), ("prepared", false));
    let first = edge.import(&volumes[0]).await.unwrap();
    assert_eq!((first.missing, first.stored), (vec![2], 1));
    // The second one was lost; the first one again does no harm.
    let again = edge.import(&volumes[0]).await.unwrap();
    assert_eq!((again.missing, again.stored), (vec![2], 0));
    assert_eq!(edge.visible("shop/1.0/a.tar").await, None, "nothing is visible before all is here");
    let export = gap.export("e1", &gap.options()).await.unwrap();
    let resent = gap.source.write_volumes(&export, &gap.path("again"), "e1", &[2]).await.unwrap();
    assert!(fs::read(&resent[0]).unwrap() == fs::read(&volumes[1]).unwrap(), "the same set, byte for byte");
    let last = edge.import(&resent[0]).await.unwrap();
    assert!(last.is_complete(), "{last:?}");
    assert_eq!(edge.visible("shop/1.0/b.tar").await, Some(1_100_000));
    assert_eq!(
        fs::read_dir(edge.inbox.path())
            .unwrap()
            .filter(|entry| { entry.as_ref().unwrap().file_type().unwrap().is_file() })
            .count(),
        0,
        "nothing waits any more"
    );

    // The receipts go back as a file.
    assert_eq!(gap.drift("e1").await, 4);
    let file = serde_json::to_vec(&last.receipts.unwrap()).unwrap();
    let recorded = gap.source.record_receipts(&Receipts::parse(&file).unwrap()).await.unwrap();
    assert_eq!((recorded.kept, recorded.drift), (1, 0));
    assert_eq!((gap.drift("e1").await, gap.drift("e2").await), (0, 4));
    assert_eq!(gap.export("e1", &gap.options()).await.unwrap_err().kind(), ErrorKind::Conflict);
}

/// The import was killed in the middle of a frame: what had come before is not taken twice.
#[tokio::test]
async fn an_import_that_was_cut_off_goes_on() {
    let (_gap, volumes) = three_volumes().await;
    let mut edge = FarEdge::new("e1").await;
    let whole = fs::read(&volumes[0]).unwrap();
    let begun = described(&volumes[0]).parts[0].0;
    let cut = bytes_of(&whole[..700_000]);
    let cut = cut.chain(stream::iter([Err(Error::new(ErrorKind::Unavailable, "the stick was pulled"))]));
    let error = edge.receiver.import(None, Box::pin(cut)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    edge.restart().await;
    let kept = edge.receiver.sections(&[begun]).await.unwrap().sections.remove(0);
    assert_eq!(kept.state, SectionState::Partial);
    assert_eq!(kept.missing, [(2, 4)], "two frames of 256 KiB were whole");
    // A file that ends too early says so.
    let short = edge.receiver.import(None, bytes_of(&whole[..700_000])).await.unwrap_err();
    assert_eq!(short.kind(), ErrorKind::Corrupted);
    assert!(short.message().starts_with("volume 1 of 3: the pack is cut off"), "{short}");
    for volume in &volumes {
        edge.restart().await;
        edge.import(volume).await.unwrap();
    }
    assert_eq!(edge.visible("shop/1.0/c.tar").await, Some(300_000));
}

#[tokio::test]
async fn a_damaged_volume_is_refused_by_its_number_and_can_be_replaced() {
    let (_gap, volumes) = three_volumes().await;
    let edge = FarEdge::new("e1").await;
    let good = fs::read(&volumes[1]).unwrap();
    for at in [400_000, good.len() - 20] {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        let error = volume::verify(&mut &bad[..]).unwrap_err();
        assert!(error.message().starts_with("volume 2 of 3: "), "{error}");
        let error = edge.receiver.import(None, bytes_of(&bad)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupted);
        assert!(error.message().starts_with("volume 2 of 3: "), "{error}");
    }
    let mut answer = None;
    for volume in &volumes {
        answer = Some(edge.import(volume).await.unwrap());
    }
    assert!(answer.unwrap().is_complete());
}

#[tokio::test]
async fn volumes_for_others_and_of_other_sets_are_refused() {
    let (gap, volumes) = three_volumes().await;
    let (edge, other) = (FarEdge::new("e1").await, FarEdge::new("e2").await);
    let error = other.import(&volumes[0]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(error.message(), "volume 1 of 3 is for the edge e1, and this is e2");
    let first = edge.import(&volumes[0]).await.unwrap();
    let options = AirGapOptions { volume: 3 * MB, ..gap.options() };
    let export = gap.export("e1", &options).await.unwrap();
    let whole = gap.source.write_volumes(&export, &gap.path("large"), "e1", &[]).await.unwrap();
    let error = edge.receiver.import(Some(first.set), file_bytes(&whole[0]).unwrap()).await.unwrap_err();
    assert_eq!(error.message(), "volume 1 of 1 belongs to another set than the volume before");
    // Meant as it is, it brings everything: nobody waits for the first set any more.
    assert!(edge.import(&whole[0]).await.unwrap().is_complete());
    assert!(edge.import(&volumes[2]).await.unwrap().is_complete());
    // A stranger's receipts, and those of a key that is not the edge's.
    let mut receipts = edge.receiver.receipts().await.unwrap();
    receipts.edge = name("e2");
    assert_eq!(gap.source.record_receipts(&receipts).await.unwrap_err().kind(), ErrorKind::Mismatch);
    receipts.edge = name("e3");
    assert_eq!(gap.source.record_receipts(&receipts).await.unwrap_err().kind(), ErrorKind::NotFound);
    gap.source.record_receipts(&edge.receiver.receipts().await.unwrap()).await.unwrap();
    receipts.edge = name("e1");
    receipts.identity = other.receiver.receipts().await.unwrap().identity;
    assert_eq!(gap.source.record_receipts(&receipts).await.unwrap_err().kind(), ErrorKind::Untrusted);
    assert_eq!(gap.drift("e1").await, 0);
}

#[tokio::test]
async fn volumes_that_lay_too_long_are_refused() {
    let (gap, volumes) = three_volumes().await;
    let edge = FarEdge::new("e1").await;
    edge.clock.advance(91 * 86_400);
    let error = edge.import(&volumes[0]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Untrusted);
    assert!(error.message().starts_with("volume 1 of 3: the trust document expired at"), "{error}");
    // Exported anew they are good.
    gap.clock.advance(91 * 86_400);
    let mut answer = None;
    for volume in gap.volumes("e1", "anew").await {
        answer = Some(edge.import(&volume).await.unwrap());
    }
    assert!(answer.unwrap().is_complete());
}

#[tokio::test]
async fn the_second_release_travels_as_what_changed() {
    let gap = Gap::new(&["e1", "e2"]).await;
    let old = noise(1, 900_000);
    let mut new = old.clone();
    new.splice(400_000..400_500, noise(7, 900));
    let same = noise(2, 200_000);
    gap.release("1.0", &[("app-1.0.tar", &old), ("same.bin", &same)]).await;
    let edge = FarEdge::new("e1").await;
    let mut answer = None;
    for volume in gap.volumes("e1", "one").await {
        answer = Some(edge.import(&volume).await.unwrap());
    }
    gap.source.record_receipts(&answer.unwrap().receipts.unwrap()).await.unwrap();
    gap.release("1.1", &[("app-1.1.tar", &new), ("same.bin", &same)]).await;
    let export = gap.export("e1", &gap.options()).await.unwrap();
    let tally = export.exported().methods[&Method::Patch];
    assert_eq!((tally.blobs, tally.whole, export.exported().held), (1, new.len() as u64, 1));
    let volumes = gap.volumes("e1", "two").await;
    assert_eq!(volumes.len(), 1);
    let length = fs::metadata(&volumes[0]).unwrap().len();
    assert!(length < 20_000, "{length} bytes");
    let answer = edge.import(&volumes[0]).await.unwrap();
    assert!(answer.is_complete(), "{answer:?}");
    assert_eq!(edge.visible("shop/1.1/app-1.1.tar").await, Some(new.len() as u64));
    assert_eq!(answer.receipts.unwrap().receipts.len(), 2);

    // Somebody set the edge up anew: its source counts on what is not there any more.
    let fresh = FarEdge::new("e1").await;
    let answer = fresh.import(&volumes[0]).await.unwrap();
    assert_eq!((answer.missing.clone(), answer.failed.len(), answer.is_complete()), (vec![], 1, false));
    assert!(answer.failed[0].why.contains("base"), "{answer:?}");
    let options = AirGapOptions { whole: true, ..gap.options() };
    let export = gap.export("e1", &options).await.unwrap();
    let mut answer = None;
    for volume in gap.source.write_volumes(&export, &gap.path("all"), "e1", &[]).await.unwrap() {
        answer = Some(fresh.import(&volume).await.unwrap());
    }
    assert!(answer.unwrap().is_complete());
    assert_eq!(fresh.visible("shop/1.1/app-1.1.tar").await, Some(new.len() as u64));
}

#[tokio::test]
async fn one_refused_bundle_does_not_keep_the_others_out() {
    let gap = Gap::new(&["e1"]).await;
    gap.release("1.0", &[("a", b"one")]).await;
    let old = gap.volumes("e1", "old").await;
    gap.source.withdraw_bundle(&name("shop"), &name("1.0"), "wrong build", false).await.unwrap();
    gap.release("1.1", &[("a", b"two")]).await;
    let edge = FarEdge::new("e1").await;
    assert!(edge.import(&gap.volumes("e1", "new").await[0]).await.unwrap().is_complete());
    // An old volume neither brings back what was withdrawn nor an old trust document.
    let answer = edge.import(&old[0]).await.unwrap();
    assert_eq!((answer.bundles[0].state.as_str(), answer.is_complete()), ("refused", false));
    assert!(answer.bundles[0].why.is_some());
    assert_eq!(edge.visible("shop/1.0/a").await, None);
    assert_eq!(edge.receiver.trust().await.unwrap().unwrap().version, 2);
}

/// Runs the source's command line to its end.
fn source(data: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(edge_binary().with_file_name("source"));
    command.args(arguments).env("DISTEDGE_SOURCE_DATA", data).stdin(Stdio::null());
    command.output().expect("the source starts: run `cargo build --example source` first")
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The edge is killed in the middle of a volume, and told to go on by hand.
#[test]
fn a_killed_edge_goes_on_with_its_volumes() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let text = |name: &str| path(name).to_str().unwrap().to_owned();
    let source = |arguments: &[&str]| source(&path("source"), arguments);
    fs::write(path("disk.img"), noise(1, 2_500_000)).unwrap();
    said(&source(&["init"]));
    said(&source(&["add", "files/disk", &text("disk.img")]));
    said(&source(&["bundle", "create", "disk", "1.0", "**", "--sign"]));
    said(&source(&["edge", "add", "far", "http://far.invalid"]));
    said(&source(&["distribute", "disk", "1.0", "--edge", "far", "--later"]));
    let out = text("stick");
    let told = said(&source(&["air-gap", "export", "far", "--volume-size", "1MB", "--out", &out]));
    assert!(told.starts_with("3 volumes for far"), "{told}");
    let volumes: Vec<String> =
        (1..=3).map(|number| text(&format!("stick/far.00{number}.distedge"))).collect();

    let (data, log) = (path("far"), path("far.log"));
    let edge = EdgeProcess::start(&data, &log, &["--name", "far", "--public"]);
    let token = edge.token().unwrap().to_owned();
    let first = fs::read(&volumes[0]).unwrap();
    let mut stream = TcpStream::connect(edge.address).unwrap();
    let head = request(edge.address, "POST", "/api/v1/volumes", Some(&token), first.len());
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&first[..700_000]).unwrap();
    let noted = || {
        let files = fs::read_dir(data.join("inbox")).unwrap().map(|file| file.unwrap().path());
        let mut data = files.filter(|file| file.extension().is_some_and(|extension| extension == "data"));
        data.next().is_some_and(|data| fs::metadata(data).unwrap().len() >= 2 * FRAME)
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    while !noted() {
        assert!(Instant::now() < deadline, "nothing was kept:\n{}", edge.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    edge.kill();

    let import = |arguments: &[&str]| {
        let data = text("far");
        run(&[&["--data", &data, "--name", "far", "--public", "import"], arguments].concat())
    };
    let mut bad = first.clone();
    bad[500_000] ^= 1;
    fs::write(path("bad.distedge"), bad).unwrap();
    let refused = import(&[&text("bad.distedge")]);
    assert_eq!(refused.status.code(), Some(1));
    let sentence = String::from_utf8(refused.stderr).unwrap();
    assert!(sentence.contains("bad.distedge: volume 1 of 3: the pack is damaged"), "{sentence}");
    let told = said(&import(&[&volumes[2], &volumes[0]]));
    assert!(told.ends_with("disk 1.0 lacks 1 blob\nmissing of 3 volumes: 2\n"), "{told}");
    let told = said(&import(&[&volumes[1], "--receipts", &text("receipts.json")]));
    assert!(told.contains("disk 1.0 is committed"), "{told}");
    assert_eq!(
        said(&source(&["air-gap", "receipts", &text("receipts.json")])),
        "far: 1 bundle proven, drift 0.\n"
    );
    let edge = EdgeProcess::start(&data, &log, &["--name", "far", "--public"]);
    assert!(edge.get("/files/disk/disk.img", None).body == noise(1, 2_500_000));
}
