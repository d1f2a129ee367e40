//! Bundles that travel as patches: what is sent, what a cut costs, and what happens when it fails.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use distedge::blob::{BlobStore as _, BlobStoreExt as _, MemoryBlobStore};
use distedge::catalog::Catalog;
use distedge::delta::pack::FRAME;
use distedge::digest::Digest;
use distedge::distribute::{
    Event, Events, HaveQuestion, Link, Method, Options, Outcome, PartsQuestion, Planner, PlannerOptions,
    Receiver, converge,
};
use distedge::edge::{Edge, Gate};
use distedge::error::{Error, ErrorKind, Result};
use distedge::meta::MemoryStore;
use distedge::transport::{Answer, Call, CallBody, Transport};
use futures_util::StreamExt as _;
use http::StatusCode;
use proptest::prelude::*;

use crate::support::{FixedClock, House, LoopTransport, NOW, TOKEN, TestEdge, identity, name};

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

/// `old` with `length` other bytes in its middle.
fn changed(old: &[u8], seed: u64, length: usize) -> Vec<u8> {
    let mut new = old.to_vec();
    let at = old.len() / 2;
    new.splice(at..at + length / 2, noise(seed, length));
    new
}

/// Copies and quick compression are enough for what is tested here.
fn quick() -> PlannerOptions {
    PlannerOptions { effort: 0, ..PlannerOptions::default() }
}

struct Plans {
    directory: tempfile::TempDir,
    planner: Planner,
}

impl Plans {
    fn new() -> Plans {
        Plans::with(quick())
    }

    fn with(options: PlannerOptions) -> Plans {
        let directory = tempfile::tempdir().unwrap();
        let planner = Planner::open(directory.path(), options).unwrap();
        Plans { directory, planner }
    }

    fn options(&self) -> Options {
        Options::at(NOW).with_planner(self.planner.clone())
    }

    fn files(&self) -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(self.directory.path()).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "plan")).collect()
    }
}

/// A house whose first version is at the edges, and whose second is not.
struct Scene {
    house: House,
    plans: Plans,
    new: Vec<u8>,
}

const OLD_SIZE: usize = 600_000;

impl Scene {
    async fn new(edges: &[&TestEdge], names: &[&str], change: usize) -> Scene {
        let (mut house, plans) = (House::new(names), Plans::new());
        let old = noise(1, OLD_SIZE);
        let new = changed(&old, 2, change);
        house.release("shop", "1.0", 1, &[("shop/1.0/app-1.0.tar", &old)]).await;
        for (edge, name) in edges.iter().zip(names) {
            let desired = house.desired(name);
            let outcome = edge.converge_with(&desired, &house.blobs, plans.options()).await.unwrap();
            assert_eq!((outcome.proofs.len(), outcome.fell_back.len()), (1, 0));
        }
        house.release("shop", "1.1", 2, &[("shop/1.1/app-1.1.tar", &new)]).await;
        Scene { house, plans, new }
    }

    async fn run(&mut self, name: &str, transport: &dyn Transport) -> Result<Outcome> {
        let desired = self.house.desired(name);
        let events: Events = Arc::new(|_| {});
        converge(transport, &self.house.blobs, &desired, self.plans.options(), &events).await
    }
}

#[tokio::test]
async fn the_second_version_travels_as_a_patch() {
    let edge = TestEdge::new("e1").await;
    let mut scene = Scene::new(&[&edge], &["e1"], 5000).await;
    let told: Arc<Mutex<Vec<Event>>> = Arc::default();
    let kept = told.clone();
    let events: Events = Arc::new(move |event| kept.lock().unwrap().push(event));
    let desired = scene.house.desired("e1");
    let options = scene.plans.options();
    let outcome = converge(&edge.transport(), &scene.house.blobs, &desired, options, &events).await.unwrap();
    assert!(outcome.failed.is_empty() && outcome.fell_back.is_empty(), "{outcome:?}");
    assert_eq!((outcome.proofs.len(), outcome.sent_blobs), (2, 1));
    assert_eq!(outcome.whole_bytes, scene.new.len() as u64);
    assert!(outcome.sent_bytes < 6000, "{} bytes", outcome.sent_bytes);
    let tally = outcome.methods[&Method::Patch];
    assert_eq!((tally.blobs, tally.whole, tally.bytes), (1, outcome.whole_bytes, outcome.sent_bytes));
    assert!(edge.get("/files/shop/1.1/app-1.1.tar").await.1 == scene.new);
    let told = told.lock().unwrap();
    let saved: u64 = told.iter().map(|event| if let Event::Saved(bytes) = event { *bytes } else { 0 }).sum();
    let sent: u64 = told.iter().map(|event| if let Event::Sent(bytes) = event { *bytes } else { 0 }).sum();
    assert_eq!(sent, outcome.sent_bytes);
    assert_eq!(saved + sent, outcome.whole_bytes + (outcome.sent_bytes - tally.bytes));
    assert!(told.iter().any(|event| matches!(event, Event::Planned { method: Method::Patch, .. })));
}

#[tokio::test]
async fn edges_at_the_same_version_cause_one_computation() {
    let names = ["e1", "e2", "e3"];
    let mut edges = Vec::new();
    for name in names {
        edges.push(TestEdge::new(name).await);
    }
    let mut scene = Scene::new(&edges.iter().collect::<Vec<_>>(), &names, 5000).await;
    let before = scene.plans.planner.counts().0;
    let mut desired = Vec::new();
    let trust = scene.house.next_trust();
    for name in names {
        let mut one = scene.house.desired(name);
        one.trust = trust.clone();
        desired.push(one);
    }
    let runs = edges
        .iter()
        .zip(&desired)
        .map(|(edge, desired)| edge.converge_with(desired, &scene.house.blobs, scene.plans.options()));
    for outcome in futures_util::future::join_all(runs).await {
        let outcome = outcome.unwrap();
        assert_eq!(outcome.methods[&Method::Patch].blobs, 1, "{outcome:?}");
    }
    assert_eq!(scene.plans.planner.counts().0 - before, 1, "plans that were made");
}

/// Says what an edge of an earlier version says, or lies as it is told to.
#[derive(Debug)]
struct Warped {
    wire: LoopTransport,
    /// A part of a path, and what happens to calls of it.
    what: &'static str,
    answer: Option<(u16, &'static str)>,
    strip: bool,
}

#[async_trait]
impl Transport for Warped {
    async fn call(&self, call: Call) -> Result<Answer> {
        if call.path.contains(self.what)
            && let Some((status, body)) = self.answer
        {
            return Ok(Answer { status, offset: None, body: Bytes::from_static(body.as_bytes()) });
        }
        let mut answer = self.wire.call(call).await?;
        if self.strip {
            let body = String::from_utf8_lossy(&answer.body).replace("\"accepts\"", "\"other\"");
            answer.body = body.into();
        }
        Ok(answer)
    }
}

#[tokio::test]
async fn an_edge_that_takes_no_packs_gets_whole_blobs() {
    for (strip, answer) in [(true, None), (false, Some((404, "{}"))), (false, Some((405, "{}")))] {
        let edge = TestEdge::new("e1").await;
        let mut scene = Scene::new(&[&edge], &["e1"], 5000).await;
        let wire = Warped { wire: edge.transport(), what: "/packs", answer, strip };
        let outcome = scene.run("e1", &wire).await.unwrap();
        assert_eq!((outcome.proofs.len(), outcome.sent_bytes), (2, scene.new.len() as u64), "{outcome:?}");
        assert_eq!(outcome.methods[&Method::Whole].blobs, 1);
        assert_eq!(outcome.fell_back.len(), usize::from(!strip));
        assert!(edge.get("/files/shop/1.1/app-1.1.tar").await.1 == scene.new);
    }
}

#[tokio::test]
async fn an_edge_that_answers_nonsense_gets_whole_blobs_or_an_error() {
    let refused = r#"{"sections":[]}"#;
    for answer in ["nonsense", refused, r#"{"sections":[{"id":7}]}"#] {
        let edge = TestEdge::new("e1").await;
        let mut scene = Scene::new(&[&edge], &["e1"], 5000).await;
        let wire =
            Warped { wire: edge.transport(), what: "/packs", answer: Some((200, answer)), strip: false };
        let outcome = scene.run("e1", &wire).await.unwrap();
        assert_eq!((outcome.proofs.len(), outcome.fell_back.len()), (2, 1), "{outcome:?}");
        assert!(edge.get("/files/shop/1.1/app-1.1.tar").await.1 == scene.new);
    }
}

/// A base was damaged on the edge's disk: the patch makes another blob, which nobody ever sees.
#[tokio::test]
async fn a_damaged_base_falls_back_and_is_set_aside() {
    let (store, blobs) = (Arc::new(MemoryStore::new()), MemoryBlobStore::new());
    let edge = TestEdge::over("e1", store, Arc::new(blobs.clone()), true).await.unwrap();
    let mut scene = Scene::new(&[&edge], &["e1"], 5000).await;
    let old = Digest::of(&noise(1, OLD_SIZE));
    assert!(blobs.damage(&old, |bytes| bytes[1000] ^= 1));
    let outcome = scene.run("e1", &edge.transport()).await.unwrap();
    assert_eq!(outcome.failed.len(), 0, "{outcome:?}");
    assert_eq!(outcome.fell_back.len(), 1);
    assert!(outcome.fell_back[0].1.contains("damaged"), "{:?}", outcome.fell_back);
    assert!(edge.get("/files/shop/1.1/app-1.1.tar").await.1 == scene.new);
    let kinds = edge.event_kinds().await;
    assert!(kinds.contains(&"pack.refused".to_owned()) && kinds.contains(&"blob.damaged".to_owned()));
    assert_eq!(blobs.stat(&old).await.unwrap(), None, "the damaged base is out of reach");
    // The next run brings the base back.
    let outcome = scene.run("e1", &edge.transport()).await.unwrap();
    assert_eq!((outcome.proofs.len(), outcome.sent_blobs), (2, 1), "{outcome:?}");
    assert!(edge.get("/files/shop/1.0/app-1.0.tar").await.1 == noise(1, OLD_SIZE));
}

/// Breaks off every pack after so many bytes, counted over all of them, then lets through.
#[derive(Debug)]
struct Cutting {
    wire: LoopTransport,
    cuts: Mutex<Vec<u64>>,
    sent: Arc<AtomicU64>,
}

#[async_trait]
impl Transport for Cutting {
    async fn call(&self, mut call: Call) -> Result<Answer> {
        if call.path == "/api/v1/packs" {
            let cut = self.cuts.lock().unwrap().pop();
            let sent = self.sent.clone();
            if let CallBody::Stream(length, stream) = call.body {
                let mut left = cut.unwrap_or(u64::MAX);
                let stream = stream.flat_map(move |chunk| {
                    let mut pieces = Vec::new();
                    match chunk {
                        Ok(mut chunk) => {
                            if chunk.len() as u64 > left {
                                chunk.truncate(left as usize);
                            }
                            left -= chunk.len() as u64;
                            sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                            pieces.push(Ok(chunk));
                            if left == 0 {
                                pieces.push(Err(Error::new(ErrorKind::Unavailable, "the line is cut")));
                            }
                        }
                        Err(error) => pieces.push(Err(error)),
                    }
                    futures_util::stream::iter(pieces)
                });
                call.body = CallBody::Stream(length, Box::pin(stream));
            }
            if cut.is_some() {
                self.wire.call(call).await?;
                return Err(Error::new(ErrorKind::Unavailable, "the line was cut"));
            }
        }
        self.wire.call(call).await
    }
}

#[tokio::test]
async fn a_cut_costs_at_most_one_frame() {
    for cuts in [vec![1], vec![0], vec![FRAME - 1, FRAME + 700], vec![300_000, 10], vec![500_000; 3]] {
        let edge = TestEdge::new("e1").await;
        // Three frames of what is new.
        let mut scene = Scene::new(&[&edge], &["e1"], 590_000).await;
        let uncut = {
            let other = TestEdge::new("e1").await;
            let mut twin = Scene::new(&[&other], &["e1"], 590_000).await;
            twin.run("e1", &other.transport()).await.unwrap().sent_bytes
        };
        assert!(uncut > 2 * FRAME, "{uncut}");
        let (count, sent) = (cuts.len() as u64, Arc::new(AtomicU64::new(0)));
        let wire = Cutting { wire: edge.transport(), cuts: Mutex::new(cuts), sent: sent.clone() };
        let outcome = scene.run("e1", &wire).await.unwrap();
        assert!(outcome.failed.is_empty() && outcome.fell_back.is_empty(), "{outcome:?}");
        let over = sent.load(Ordering::Relaxed) - uncut;
        assert!(over <= count * (FRAME + 500), "{over} bytes were repeated after {count} cuts");
        assert!(edge.get("/files/shop/1.1/app-1.1.tar").await.1 == scene.new);
    }
}

/// The edge, and the source, are killed in the middle of a pack and started again.
#[tokio::test]
async fn a_restart_of_either_side_goes_on_inside_the_artefact() {
    let directory = tempfile::tempdir().unwrap();
    let (store, blobs) = (Arc::new(MemoryStore::new()), MemoryBlobStore::new());
    let start = async || {
        let catalog = Catalog::open(store.clone(), name("default")).await.unwrap();
        let (blobs, identity) = (Arc::new(blobs.clone()), Arc::new(identity("e1")));
        let clock = FixedClock::new();
        let receiver = Receiver::open(catalog, blobs, clock.clone(), name("e1"), identity).await.unwrap();
        let receiver = receiver.with_public_repositories(true).with_inbox(directory.path(), 1 << 30).unwrap();
        let tokens = distedge::secret::Secret::new(TOKEN).fingerprint();
        let tokens = distedge::auth::TokenAuthenticator::new([(tokens, "test".to_owned())]);
        let policies: Vec<Arc<dyn distedge::policy::Policy>> =
            vec![Arc::new(distedge::policy::PublicRead), Arc::new(distedge::policy::TokenHolders)];
        let policies = distedge::policy::PolicySet::new(policies);
        TestEdge { edge: Edge::new(receiver, Gate::new(), Arc::new(tokens), policies), clock }
    };
    let edge = start().await;
    let mut scene = Scene::new(&[&edge], &["e1"], 590_000).await;
    let sent = Arc::new(AtomicU64::new(0));
    // The line is cut at every attempt of the run: the source gives up.
    let cuts = Mutex::new(vec![10; 64].into_iter().chain([400_000]).collect());
    let wire = Cutting { wire: edge.transport(), cuts, sent: sent.clone() };
    let outcome = scene.run("e1", &wire).await.unwrap();
    assert_eq!(outcome.failed.len(), 1, "{outcome:?}");
    assert_eq!(edge.get("/files/shop/1.1/app-1.1.tar").await.0, StatusCode::NOT_FOUND);
    drop((edge, wire));
    let edge = start().await;
    scene.plans.planner = Planner::open(scene.plans.directory.path(), quick()).unwrap();
    let outcome = scene.run("e1", &edge.transport()).await.unwrap();
    assert!(outcome.failed.is_empty() && outcome.fell_back.is_empty(), "{outcome:?}");
    assert_eq!(scene.plans.planner.counts(), (0, 1), "the plan was remembered");
    assert!(outcome.sent_bytes + FRAME < 600_000, "{} bytes after the first frame", outcome.sent_bytes);
    assert!(edge.get("/files/shop/1.1/app-1.1.tar").await.1 == scene.new);
    assert_eq!(edge.edge.receiver().collect_garbage().await.unwrap().freed, 0, "nothing is left behind");
}

#[tokio::test]
async fn remembered_plans_may_be_damaged_deleted_and_are_bounded() {
    let mut sent = Vec::new();
    for harm in ["none", "damage", "empty", "delete", "head"] {
        let edges = [TestEdge::new("e1").await, TestEdge::new("e2").await];
        let mut scene = Scene::new(&[&edges[0], &edges[1]], &["e1", "e2"], 5000).await;
        scene.run("e1", &edges[0].transport()).await.unwrap();
        for file in scene.plans.files() {
            let mut bytes = std::fs::read(&file).unwrap();
            match harm {
                "damage" => *bytes.last_mut().unwrap() ^= 1,
                "empty" => bytes.clear(),
                "head" => bytes[0] ^= 1,
                _ => {}
            }
            std::fs::write(&file, bytes).unwrap();
        }
        if harm == "delete" {
            std::fs::remove_dir_all(scene.plans.directory.path()).unwrap();
        }
        let outcome = scene.run("e2", &edges[1].transport()).await.unwrap();
        assert!(outcome.failed.is_empty(), "{harm}: {outcome:?}");
        assert!(edges[1].get("/files/shop/1.1/app-1.1.tar").await.1 == scene.new, "{harm}");
        sent.push(outcome.sent_bytes);
    }
    assert_eq!(sent[1..4], [sent[0]; 3]);

    // Room for one artefact: the older one makes way.
    let plans = Plans::with(PlannerOptions { cache: 8000, ..quick() });
    let (mut house, edge) = (House::new(&["e1"]), TestEdge::new("e1").await);
    let old = noise(1, OLD_SIZE);
    house.release("shop", "1.0", 1, &[("app-1.0.bin", &old)]).await;
    edge.converge(&house.desired("e1"), &house.blobs).await.unwrap();
    for version in 1..4_u64 {
        let path = format!("app-1.{version}.bin");
        let new = changed(&old, version + 100, 5000);
        house.release("shop", &format!("1.{version}"), version + 1, &[(&path, &new)]).await;
        let desired = house.desired("e1");
        let outcome = edge.converge_with(&desired, &house.blobs, plans.options()).await.unwrap();
        assert_eq!(outcome.methods[&Method::Patch].blobs, 1);
        let kept: u64 = plans.files().iter().map(|file| file.metadata().unwrap().len()).sum();
        assert!(kept <= 8000 && plans.files().len() == 1, "{kept} bytes");
    }
}

/// Two tenants of one machine share a store of blobs. A patch against a blob of the other one would
/// tell what is in it.
#[tokio::test]
async fn a_patch_touches_only_what_this_tenant_was_given() {
    use distedge::delta::pack::{Descriptor, PartHead, Writer};
    use distedge::distribute::SectionState;

    let blobs = MemoryBlobStore::new();
    let edge =
        TestEdge::over("e1", Arc::new(MemoryStore::new()), Arc::new(blobs.clone()), true).await.unwrap();
    let mut house = House::new(&["e1"]);
    house.release("shop", "1.0", 1, &[("app-1.0", b"the old one")]).await;
    edge.converge(&house.desired("e1"), &house.blobs).await.unwrap();
    house.release("shop", "1.1", 2, &[("app-1.1", b"the new one")]).await;
    let receiver = edge.edge.receiver();
    receiver.accept_trust(house.next_trust()).await.unwrap();
    receiver.offer(&house.bundles[&(name("shop"), name("1.1"))].envelope).await.unwrap();
    use distedge::blob::BlobStoreExt as _;
    blobs.put(Bytes::from_static(b"another tenant's")).await.unwrap();

    let descriptor = |bytes: &[u8]| Descriptor { digest: Digest::of(bytes), size: bytes.len() as u64 };
    let send = async |target: &[u8], base: &[u8]| {
        let artefact = b"whatever it says".as_slice();
        let head = PartHead::artefact(descriptor(artefact), descriptor(target), vec![descriptor(base)]);
        let mut pack = Writer::new(Vec::new()).unwrap();
        pack.whole(head, artefact).unwrap();
        let pack = Bytes::from(pack.finish().unwrap());
        let stream = Box::pin(futures_util::stream::once(async move { Ok(pack) }));
        let answer = receiver.unpack(stream).await.unwrap();
        assert_eq!(answer.sections[0].state, SectionState::Refused);
        answer.sections[0].why.clone().unwrap()
    };
    let why = send(b"the new one", b"another tenant's").await;
    assert!(why.contains("no bundle here has the base"), "{why}");
    let why = send(b"the new one", b"nobody's").await;
    assert!(why.contains("no bundle here has the base"), "the same for what is not there: {why}");
    let why = send(b"the new one", b"the new one").await;
    assert!(why.contains("no bundle here has the base"), "what is not visible is no base: {why}");
    let why = send(b"something", b"the old one").await;
    assert!(why.contains("no bundle that was offered here needs"), "{why}");
    let why = send(b"the new one", b"the old one").await;
    assert!(why.contains("making"), "{why}");
    assert_eq!(blobs.stat(&Digest::of(b"the new one")).await.unwrap(), None);
    // Nobody without the right is answered at all.
    for path in ["/api/v1/packs", "/api/v1/packs/have", "/api/v1/have"] {
        let response = edge.request(http::Method::POST, path, None).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{path}");
    }
}

#[tokio::test]
async fn an_edge_says_what_resembles_and_the_source_uses_what_it_gave() {
    let edge = TestEdge::new("e1").await;
    let mut house = House::new(&["e1"]);
    let old = noise(1, OLD_SIZE);
    let new = changed(&old, 2, 5000);
    // The edge has it under a bundle of another source.
    house.release("theirs", "7", 1, &[("x/app-1.0.bin", &old)]).await;
    edge.converge(&house.desired("e1"), &house.blobs).await.unwrap();
    house.release("shop", "1.1", 1, &[("y/app-1.1.bin", &new)]).await;
    let theirs = house.bundles[&(name("theirs"), name("7"))].clone();
    let receiver = edge.edge.receiver();
    receiver.accept_trust(house.next_trust()).await.unwrap();
    receiver.offer(&house.bundles[&(name("shop"), name("1.1"))].envelope).await.unwrap();
    let question = HaveQuestion { bundle: name("shop"), version: name("1.1"), items: vec![Digest::of(&new)] };
    let answer = receiver.resembling(&question).await.unwrap();
    assert_eq!(answer.items[0].have[0].digest, Digest::of(&old));
    assert_eq!(answer.items[0].have[0].name, "files/x/app-1.0.bin");
    let unknown = HaveQuestion { version: name("9"), ..question };
    assert_eq!(receiver.resembling(&unknown).await.unwrap_err().kind(), ErrorKind::NotFound);

    // A source that never gave it to this edge goes by what the edge tells of it, whether it has the
    // bytes or not.
    let plans = Plans::new();
    let mut desired = house.desired("e1");
    desired.bundles.retain(|offer| offer.name != theirs.name);
    let events: Events = Arc::new(|_| {});
    let mut options = plans.options();
    options.dry_run = true;
    let outcome =
        converge(&edge.transport(), &house.blobs, &desired, options.clone(), &events).await.unwrap();
    let by_parts = outcome.plan[0].bytes;
    let elsewhere = MemoryBlobStore::new();
    elsewhere.put(Bytes::from(new.clone())).await.unwrap();
    let (other, mut fresh) = (Plans::new(), plans.options());
    fresh = fresh.with_planner(other.planner.clone());
    fresh.dry_run = true;
    let without = converge(&edge.transport(), &elsewhere, &desired, fresh, &events).await.unwrap();
    assert_eq!(without.plan[0].method, Method::Patch, "{:?}", without.plan);
    assert_eq!(without.plan[0].bytes, by_parts);
    // One that gave it under another bundle's name does.
    let statement = House::statement("mine", "1", 1).item(house.item("files", "z/app-1.0.bin", &old).await);
    desired.given.push(house.sign(&statement.build().unwrap()));
    let outcome = converge(&edge.transport(), &house.blobs, &desired, options, &events).await.unwrap();
    assert_eq!(outcome.plan[0].method, Method::Patch, "{:?}", outcome.plan);
    assert_eq!(outcome.plan[0].bases, [Digest::of(&old)]);
    assert!(outcome.plan[0].bytes < by_parts, "{} bytes, {by_parts} by parts", outcome.plan[0].bytes);
}

#[tokio::test]
async fn a_source_without_the_old_blob_still_sends_little() {
    let edge = TestEdge::new("e1").await;
    let mut scene = Scene::new(&[&edge], &["e1"], 5000).await;
    let old = Digest::of(&noise(1, OLD_SIZE));
    scene.house.blobs.remove(&old).await.unwrap();
    let receiver = edge.edge.receiver();
    let outcome = scene.run("e1", &edge.transport()).await.unwrap();
    assert!(outcome.failed.is_empty() && outcome.fell_back.is_empty(), "{outcome:?}");
    assert_eq!(outcome.methods[&Method::Patch].blobs, 1);
    assert_eq!(outcome.proofs.len(), 2);
    assert!(outcome.sent_bytes < OLD_SIZE as u64 / 4, "{} bytes", outcome.sent_bytes);
    assert!(edge.get("/files/shop/1.1/app-1.1.tar").await.1 == scene.new);

    // Only for what is offered, and only of what a visible bundle holds.
    let asked =
        PartsQuestion { bundle: name("shop"), version: name("1.1"), item: Digest::of(&scene.new), base: old };
    receiver.parts(&asked).await.unwrap();
    for wrong in [
        PartsQuestion { version: name("9"), ..asked.clone() },
        PartsQuestion { item: Digest::of(b"other"), ..asked.clone() },
        PartsQuestion { base: Digest::of(b"other"), ..asked },
    ] {
        assert_eq!(receiver.parts(&wrong).await.unwrap_err().kind(), ErrorKind::NotFound);
    }
}

#[tokio::test]
async fn a_dry_run_plans_for_real_and_sends_nothing() {
    let edge = TestEdge::new("e1").await;
    let mut scene = Scene::new(&[&edge], &["e1"], 5000).await;
    let desired = scene.house.desired("e1");
    let mut options = scene.plans.options();
    options.dry_run = true;
    let outcome = edge.converge_with(&desired, &scene.house.blobs, options).await.unwrap();
    assert_eq!((outcome.sent_bytes, outcome.plan.len()), (0, 1));
    let planned = outcome.plan[0].clone();
    assert_eq!((planned.method, planned.size), (Method::Patch, scene.new.len() as u64));
    assert_eq!(planned.bases, [Digest::of(&noise(1, OLD_SIZE))]);
    assert!(!planned.why.is_empty());
    let made = scene.plans.planner.counts().0;
    let outcome = scene.run("e1", &edge.transport()).await.unwrap();
    assert_eq!(outcome.sent_bytes, planned.bytes, "what was said is what is sent");
    assert_eq!(scene.plans.planner.counts().0, made, "the plan was remembered");
}

#[tokio::test]
async fn what_one_edge_got_it_gives_to_another() {
    let (first, second) = (TestEdge::new("e1").await, TestEdge::new("e2").await);
    let mut scene = Scene::new(&[&first, &second], &["e1", "e2"], 5000).await;
    scene.run("e1", &first.transport()).await.unwrap();
    // From here on the first edge's own store feeds the second.
    let catalog = first.edge.receiver().catalog();
    let mut desired = scene.house.desired("e2");
    for offer in &mut desired.bundles {
        offer.envelope = catalog.envelope(&offer.name, &offer.version).await.unwrap().unwrap();
    }
    let plans = Plans::new();
    let store = first.edge.receiver().blobs();
    let outcome = second.converge_with(&desired, &**store, plans.options()).await.unwrap();
    assert_eq!((outcome.proofs.len(), outcome.methods[&Method::Patch].blobs), (2, 1), "{outcome:?}");
    assert!(outcome.sent_bytes < 6000);
    assert!(second.get("/files/shop/1.1/app-1.1.tar").await.1 == scene.new);
}

#[tokio::test]
async fn a_link_keeps_its_rate_and_its_hours() {
    let edge = TestEdge::new("e1").await;
    let mut house = House::new(&["e1"]);
    let (one, two) = (noise(1, 150_000), noise(2, 150_000));
    house.release("shop", "1.0", 1, &[("one", &one), ("two", &two)]).await;
    let clock = FixedClock::new();
    let begun = std::time::Instant::now();
    let link = Link::new(Some(1_000_000), Vec::new(), clock.clone());
    let desired = house.desired("e1");
    let outcome = edge.converge_with(&desired, &house.blobs, Options::at(NOW).with_link(link)).await.unwrap();
    assert_eq!((outcome.proofs.len(), outcome.waits), (1, None));
    // 300 kB, less the quarter of a second that a rested link gives at once.
    assert!(begun.elapsed().as_millis() >= 45, "{:?}", begun.elapsed());

    house.release("shop", "1.1", 2, &[("three", &noise(3, 3_000_000))]).await;
    // NOW is 05:00.
    let window = || vec!["22:00-06:00".parse().unwrap()];
    clock.advance(3600);
    let link = Link::new(None, window(), clock.clone());
    let desired = house.desired("e1");
    let outcome = edge.converge_with(&desired, &house.blobs, Options::at(NOW).with_link(link)).await.unwrap();
    assert_eq!((outcome.proofs.len(), outcome.failed.len(), outcome.sent_bytes), (1, 0, 0), "{outcome:?}");
    assert_eq!(outcome.waits.unwrap().to_string(), "2026-11-22T22:00:00Z");
    assert_eq!(edge.edge.receiver().trust().await.unwrap().unwrap().version, 2, "withdrawals do not wait");

    // It closes while a blob is on its way: what went out stays, and the next night goes on.
    clock.advance(-3600);
    let link = Link::new(None, window(), clock.clone());
    let events: Events = Arc::new(move |event| {
        if matches!(event, Event::Sent(_)) {
            clock.advance(7200);
        }
    });
    let options = Options::at(NOW).with_link(link);
    let outcome = converge(&edge.transport(), &house.blobs, &desired, options, &events).await.unwrap();
    assert_eq!((outcome.proofs.len(), outcome.failed.len()), (1, 0), "{outcome:?}");
    assert!(outcome.waits.is_some());
    let outcome = edge.converge(&desired, &house.blobs).await.unwrap();
    assert_eq!((outcome.proofs.len(), outcome.sent_bytes), (2, 3_000_000 - (1 << 20)));
    assert!(edge.get("/files/three").await.1 == noise(3, 3_000_000));
}

#[tokio::test]
async fn many_small_files_share_packs() {
    let edges = [TestEdge::new("e1").await, TestEdge::new("e2").await];
    let (mut house, plans) = (House::new(&["e1", "e2"]), Plans::new());
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for version in 0..2 {
        let release: BTreeMap<String, Vec<u8>> = (0..100)
            .map(|at| (format!("doc/1.{version}/{at}.txt"), changed(&noise(at, 4000), version + at + 7, 60)))
            .collect();
        let list: Vec<(&str, &[u8])> =
            release.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect();
        house.release("doc", &format!("1.{version}"), version + 1, &list).await;
        files.extend(release);
        // By the second edge everything is planned: what waits for the line goes together.
        for (edge, name) in edges.iter().zip(["e1", "e2"]) {
            let desired = house.desired(name);
            let calls = Arc::new(AtomicU64::new(0));
            let wire = Slow { wire: edge.transport(), packs: calls.clone() };
            let events: Events = Arc::new(|_| {});
            let outcome = converge(&wire, &house.blobs, &desired, plans.options(), &events).await.unwrap();
            assert!(outcome.failed.is_empty() && outcome.fell_back.is_empty(), "{outcome:?}");
            if version == 1 {
                assert_eq!(outcome.methods[&Method::Patch].blobs, 100);
                assert!(outcome.sent_bytes < outcome.whole_bytes / 8, "{outcome:?}");
                assert!(name == "e1" || calls.load(Ordering::Relaxed) < 50, "{calls:?} packs");
            }
        }
    }
    for (path, bytes) in files {
        assert!(edges[1].get(&format!("/files/{path}")).await.1 == bytes, "{path}");
    }
}

/// A line on which each pack takes a moment.
#[derive(Debug)]
struct Slow {
    wire: LoopTransport,
    packs: Arc<AtomicU64>,
}

#[async_trait]
impl Transport for Slow {
    async fn call(&self, call: Call) -> Result<Answer> {
        if call.path == "/api/v1/packs" {
            self.packs.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        }
        self.wire.call(call).await
    }
}

/// What changed between two versions of something.
fn edited(old: &[u8], edits: &[(usize, usize, u64, usize)]) -> Vec<u8> {
    let mut new = old.to_vec();
    for (at, length, seed, more) in edits {
        let at = at % (new.len() + 1);
        let end = (at + length).min(new.len());
        new.splice(at..end, noise(*seed, *more));
    }
    new
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    /// Whatever changed and wherever the line is cut, the edge has the new version, byte for byte.
    #[test]
    fn any_change_and_any_cuts_give_the_new_version(
        length in 0..60_000_usize,
        edits in proptest::collection::vec((0..60_000_usize, 0..20_000_usize, 0..100_u64, 0..20_000_usize), 0..4),
        cuts in proptest::collection::vec(0..30_000_u64, 0..4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut house, plans, edge) = (House::new(&["e1"]), Plans::new(), TestEdge::new("e1").await);
            let old = noise(7, length);
            let new = edited(&old, &edits);
            house.release("shop", "1", 1, &[("app-1.bin", &old)]).await;
            edge.converge(&house.desired("e1"), &house.blobs).await.unwrap();
            house.release("shop", "2", 2, &[("app-2.bin", &new)]).await;
            let desired = house.desired("e1");
            let wire = Cutting { wire: edge.transport(), cuts: Mutex::new(cuts), sent: Arc::default() };
            let events: Events = Arc::new(|_| {});
            let outcome = converge(&wire, &house.blobs, &desired, plans.options(), &events).await.unwrap();
            assert!(outcome.failed.is_empty() && outcome.fell_back.is_empty(), "{outcome:?}");
            assert_eq!(outcome.proofs.len(), 2);
            assert!(edge.get("/files/app-2.bin").await.1 == new);
            for (method, tally) in &outcome.methods {
                assert!(tally.bytes <= tally.whole || *method != Method::Whole, "{tally:?}");
            }
        });
    }
}
