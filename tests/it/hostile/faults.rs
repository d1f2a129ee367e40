//! Faults that were found, each by the attack that showed it.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use distedge::blob::{BlobStore, BlobStoreExt as _, MemoryBlobStore};
use distedge::bundle::{Constraints, Envelope, STATEMENT_PAYLOAD, Statement};
use distedge::catalog::Catalog;
use distedge::digest::Digest;
use distedge::distribute::{Events, Options, Receiver, converge};
use distedge::error::{ErrorKind, Result};
use distedge::key::{Revocation, Signer};
use distedge::meta::{Batch, MemoryStore, MetadataStore};
use distedge::transport::{Answer, Call, Transport, Verb};
use serde_json::Value;

use super::house::{A_BIN, Lane, shop};
use crate::support::{FixedClock, House, LoopTransport, NOW, TOKEN, TestEdge, identity, name};

/// An edge that wants what it was not offered.
#[derive(Debug)]
struct Greedy {
    edge: LoopTransport,
    want: Value,
    patched: Mutex<Vec<String>>,
}

#[async_trait]
impl Transport for Greedy {
    async fn call(&self, call: Call) -> Result<Answer> {
        if call.verb == Verb::Patch {
            self.patched.lock().unwrap().push(call.path.clone());
        }
        let offer = call.verb == Verb::Post && call.path == "/api/v1/bundles";
        let mut answer = self.edge.call(call).await?;
        if offer {
            let mut body: Value = serde_json::from_slice(&answer.body).unwrap();
            body["want"].as_array_mut().unwrap().extend(self.want.as_array().unwrap().iter().cloned());
            answer.body = serde_json::to_vec(&body).unwrap().into();
        }
        Ok(answer)
    }
}

/// A malicious edge named the digest of a blob of another bundle, and the source sent it; two huge
/// sizes overflowed the sum that the progress bar shows.
#[tokio::test]
async fn an_edge_gets_no_blob_that_is_not_in_the_bundle() {
    let mut house = House::new(&["e1"]);
    house.blobs.put(Bytes::from_static(b"of another customer")).await.unwrap();
    house.release("shop", "1.0", 1, &[("a", b"x")]).await;
    let desired = house.desired("e1");
    let other = Digest::of(b"of another customer");
    let own = Digest::of(b"x");
    for want in [
        serde_json::json!([{"digest": other, "size": 19, "have": 0}]),
        serde_json::json!([{"digest": own, "size": 1, "have": 0}]),
        serde_json::json!([{"digest": other, "size": u64::MAX, "have": 0}, {"digest": Digest::of(b"z"), "size": u64::MAX, "have": 0}]),
    ] {
        let edge = TestEdge::new("e1").await;
        let edge = LoopTransport { edge: edge.edge, token: Some(TOKEN) };
        let greedy = Greedy { edge, want, patched: Mutex::default() };
        let events: Events = Arc::new(|_| {});
        let outcome = converge(&greedy, &house.blobs, &desired, Options::at(NOW), &events).await.unwrap();
        assert_eq!(outcome.failed[0].2.kind(), ErrorKind::Untrusted, "{}", outcome.failed[0].2);
        assert!(greedy.patched.lock().unwrap().is_empty());
        assert_eq!(outcome.sent_bytes, 0);
    }
}

/// A bundle was offered, then its key was stolen and revoked, or the trust document ran out: the
/// commit made it visible all the same.
#[test]
fn a_bundle_is_judged_again_when_it_becomes_visible() {
    for fault in ["revoked", "expired", "replaced"] {
        let mut lane = Lane::new();
        let payload = lane.site.block_on(shop(&lane.house, "1.0", 1, &[("shop/1.0/x", b"x")]));
        lane.assign("1.0", &payload);
        assert_eq!(lane.offer(&lane.seal(&payload)).status, 200);
        match fault {
            "revoked" => {
                let revocation = Revocation { at: NOW, reason: "retired".into(), compromised: false };
                lane.house.trust.release.keys[0].revocation = Some(revocation);
                lane.put_trust();
            }
            "expired" => lane.site.edge.clock.advance(91 * 86400),
            _ => {
                let other = House::new(&["e1"]);
                lane.house.trust.release = other.trust.release;
                lane.put_trust();
            }
        }
        let reply = lane.finish("shop", "1.0", &[b"x"]);
        assert_eq!(reply.status, 403, "{fault}: {}", reply.text());
        assert_eq!(lane.site.get("/generic-local/shop/1.0/x", "").status, 404, "{fault}");
        assert!(lane.site.event_kinds().contains(&"bundle.rejected".to_owned()), "{fault}");
        // What was visible before stays.
        assert_eq!(lane.site.get(A_BIN, "").status, 200, "{fault}");
    }
}

/// Two items of one digest, one with a wrong size: the first download of it found the good blob too
/// long and set it aside, for every bundle that has it.
#[test]
fn one_digest_has_one_size() {
    let item = |path: &str, size| distedge::bundle::Item {
        repository: name("generic-local"),
        format: "generic".into(),
        path: name(path),
        digest: Digest::of(b"yy"),
        size,
        media_type: None,
        checksums: Default::default(),
    };
    let build =
        |one, two| House::statement("shop", "1.0", 1).item(item("a", one)).item(item("b", two)).build();
    assert!(build(2, 2).is_ok());
    assert_eq!(build(2, 1).unwrap_err().kind(), ErrorKind::Invalid);
    let good = String::from_utf8(build(2, 2).unwrap().to_payload()).unwrap();
    let lied = good.replacen("\"size\":2", "\"size\":1", 1).replace("\"bytes\":4", "\"bytes\":3");
    let error = Statement::parse(lied.as_bytes()).unwrap_err();
    assert!(error.to_string().contains("in another"), "{error}");
}

/// A blob that no bundle claimed any more made a bundle with a wrong size of it complete.
#[tokio::test]
async fn a_stored_blob_of_another_size_does_not_count() {
    let blobs = MemoryBlobStore::new();
    blobs.put(Bytes::from_static(b"left over")).await.unwrap();
    let edge =
        TestEdge::over("e1", Arc::new(MemoryStore::new()), Arc::new(blobs.clone()), true).await.unwrap();
    let mut house = House::new(&["e1"]);
    let mut item = house.item("files", "a", b"left over").await;
    item.size = 4;
    let offer = house.sign(&House::statement("shop", "1.0", 1).item(item).build().unwrap());
    house.assign(offer.clone());
    let receiver = edge.edge.receiver();
    receiver.accept_trust(house.next_trust()).await.unwrap();
    assert_eq!(receiver.offer(&offer.envelope).await.unwrap().want.len(), 1);
    assert_eq!(receiver.commit(&offer.name, &offer.version).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert!(blobs.read(&Digest::of(b"left over"), 100).await.unwrap().is_some());
}

/// The observer of the access log took the place of the one that counts.
#[test]
fn ended_downloads_are_counted() {
    let lane = Lane::new();
    assert_eq!(lane.site.get(A_BIN, "").status, 200);
    let counted = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        let text = lane.site.get_as_admin("/metrics").text();
        text.contains("distedge_delivered_bytes_total 1048576\n")
            && text.contains("distedge_downloads_ended_total{end=\"complete\"} 1\n")
    });
    assert!(counted, "{}", lane.site.get_as_admin("/metrics").text());
}

/// Two bundles that were activated at the same moment could each bring one of two names that
/// differ by case alone, or one an artifact and the other an alias of the same name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn look_alikes_do_not_slip_in_side_by_side() {
    for round in 0..40_u64 {
        let mut house = House::new(&["e1"]);
        let edge = TestEdge::new("e1").await;
        let one = house.item("files", "docs/readme", b"1").await;
        let first = house.sign(&House::statement("one", "1.0", 1).item(one).build().unwrap());
        let two = if round % 2 == 0 {
            House::statement("two", "1.0", 1).item(house.item("files", "docs/README", b"2").await)
        } else {
            let item = house.item("files", "elsewhere", b"2").await;
            House::statement("two", "1.0", 1).item(item).alias(
                name("files"),
                name("docs"),
                "readme",
                name("elsewhere"),
            )
        };
        let second = house.sign(&two.build().unwrap());
        house.assign(first.clone());
        house.assign(second.clone());
        let receiver = edge.edge.receiver();
        receiver.accept_trust(house.next_trust()).await.unwrap();
        for offer in [&first, &second] {
            for want in receiver.offer(&offer.envelope).await.unwrap().want {
                let bytes = house.blobs.read(&want.digest, 10).await.unwrap().unwrap();
                let stream = Box::pin(futures_util::stream::once(async move { Ok(bytes) }));
                receiver.upload(&want.digest, 0, stream).await.unwrap();
            }
        }
        let commit = |offer: &distedge::distribute::BundleOffer| {
            let (receiver, offer) = (receiver.clone(), offer.clone());
            tokio::spawn(async move { receiver.commit(&offer.name, &offer.version).await })
        };
        let (one, two) = (commit(&first), commit(&second));
        let (one, two) = (one.await.unwrap(), two.await.unwrap());
        assert!(one.is_ok() != two.is_ok(), "round {round}: {one:?} {two:?}");
        assert_eq!(one.and(two).unwrap_err().kind(), ErrorKind::Conflict, "round {round}");
    }
}

/// An alias was compared with artifacts of exactly its name alone.
#[tokio::test]
async fn an_alias_does_not_look_like_another_name() {
    let mut house = House::new(&["e1"]);
    let edge = TestEdge::new("e1").await;
    house.release("one", "1.0", 1, &[("docs/readme", b"1"), ("Docs2/Guide", b"2")]).await;
    assert!(edge.converge(&house.desired("e1"), &house.blobs).await.unwrap().failed.is_empty());
    for (at, (folder, alias)) in [
        ("docs", "README"),
        ("Docs", "readme"),
        ("docs2", "guide"),
        ("ONE/latest", "app"),
        ("one/latest", "App"),
    ]
    .into_iter()
    .enumerate()
    {
        let version = format!("1.{at}");
        let item = house.item("files", &format!("other/{at}"), b"3").await;
        let statement = House::statement("two", &version, 1)
            .item(item)
            .alias(name("files"), name(folder), alias, name(&format!("other/{at}")))
            .build()
            .unwrap();
        let offer = house.sign(&statement);
        house.assign(offer);
        let outcome = edge.converge(&house.desired("e1"), &house.blobs).await.unwrap();
        let failed = outcome.failed.iter().find(|(_, failed, _)| failed.as_str() == version);
        assert_eq!(failed.unwrap().2.kind(), ErrorKind::Conflict, "{folder}/{alias}");
    }
}

/// One record that could not be read kept every later withdrawal from being done.
#[tokio::test]
async fn a_damaged_record_does_not_save_others_from_withdrawal() {
    let mut house = House::new(&["e1"]);
    let edge = TestEdge::new("e1").await;
    house.release("aaa", "1.0", 1, &[("a/one", b"1")]).await;
    house.release("bbb", "1.0", 1, &[("b/one", b"2")]).await;
    edge.converge(&house.desired("e1"), &house.blobs).await.unwrap();
    let catalog = edge.edge.receiver().catalog();
    let mut batch = Batch::new();
    batch.put(&b"e\0default\0aaa\x001.0"[..], &b"damage"[..]);
    catalog.store().commit(batch).await.unwrap();
    house.withdraw("aaa", "1.0");
    house.withdraw("bbb", "1.0");
    assert!(edge.edge.receiver().accept_trust(house.next_trust()).await.is_err());
    assert_eq!(edge.get("/files/b/one").await.0, 410);
}

/// How many blobs of a bundle are missing costs a look at each of 100,000: not for everybody.
#[test]
fn strangers_do_not_have_every_blob_looked_at() {
    let lane = Lane::new();
    let described = |text: String| serde_json::from_str::<Value>(&text).unwrap()["missing"].clone();
    assert_eq!(described(lane.site.get("/api/v1/bundles/app/1.0", "").text()), Value::Null);
    assert_eq!(described(lane.site.get_as_admin("/api/v1/bundles/app/1.0").text()), 0);
}

/// The names of an object were compared each with each, four thousand objects in one envelope.
#[test]
fn members_given_twice_are_found_among_many() {
    for members in [3, 15, 16, 17, 200, 1000] {
        let mut text =
            String::from("{\"payloadType\":\"x\",\"payload\":\"\",\"signatures\":[{\"sig\":\"\"}],\"y\":{");
        for at in 0..members {
            text.push_str(&format!("\"k{at}\":0,"));
        }
        let whole = |last: &str| format!("{text}{last}:0}}}}");
        assert!(Envelope::parse(whole("\"last\"").as_bytes()).is_ok(), "{members}");
        for twice in ["\"k0\"", "\"k2\"", "\"\\u006b1\"", &format!("\"k{}\"", members - 1)] {
            let error = Envelope::parse(whole(twice).as_bytes()).unwrap_err();
            assert!(error.to_string().contains("given twice"), "{members} {twice}: {error}");
        }
    }
}

/// Whoever had an account on the machine could read what is private over HTTP.
#[cfg(all(unix, feature = "redb"))]
#[tokio::test]
async fn a_new_data_directory_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("new/data");
    let options = distedge::edge::EdgeOptions::new(name("e1")).unwrap();
    let opened = distedge::edge::open(&data, options).await.unwrap();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    assert_eq!(mode(&data.join("identity.key")), 0o600);
    assert!(opened.token.is_some());
}

/// What may be downloaded from some addresses alone was offered to caches that ask for everyone.
#[tokio::test]
async fn what_is_restricted_is_not_for_shared_caches() {
    let mut house = House::new(&["e1"]);
    let edge = TestEdge::new("e1").await;
    let mut constraints = Constraints::default();
    constraints.nets.allow = Some(vec!["127.0.0.0/8".parse().unwrap()]);
    let item = house.item("files", "a/one", b"1").await;
    let statement = House::statement("shop", "1.0", 1).item(item).constraints(constraints).build().unwrap();
    let offer = house.sign(&statement);
    house.assign(offer);
    edge.converge(&house.desired("e1"), &house.blobs).await.unwrap();
    let response = edge.request(http::Method::GET, "/files/a/one", None).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["cache-control"], "private, no-cache");
}

/// An envelope sealed for one purpose is opened for no other.
#[tokio::test]
async fn a_receipt_is_no_bundle_and_a_bundle_no_receipt() {
    let mut house = House::new(&["e1"]);
    let edge = TestEdge::new("e1").await;
    house.release("shop", "1.0", 1, &[("a/one", b"1")]).await;
    let outcome = edge.converge(&house.desired("e1"), &house.blobs).await.unwrap();
    let receipt = outcome.proofs[0].envelope.clone();
    let error = edge.edge.receiver().offer(&receipt).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let signer = edge.edge.receiver().identity().clone();
    let sealed = Envelope::seal(STATEMENT_PAYLOAD, b"{}".to_vec(), &[&*signer as &dyn Signer], NOW).unwrap();
    let error = distedge::bundle::Receipt::verify(&sealed.to_json(), &signer.public_key(), NOW).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

/// Two tenants share a blob store. One read the digest of the other's private artifact in a manifest
/// and named it in a bundle of its own: it committed without ever having had the bytes, and served them.
#[tokio::test]
async fn a_digest_is_no_proof_of_having_the_bytes() {
    let secret = b"of another tenant";
    let digest = Digest::of(secret);
    for resumable in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let blobs: Arc<dyn BlobStore> = match resumable {
            true => Arc::new(distedge::blob::FsBlobStore::open(dir.path()).unwrap()),
            false => Arc::new(MemoryBlobStore::new()),
        };
        let meta: Arc<dyn MetadataStore> = Arc::new(MemoryStore::new());
        let open = async || {
            let catalog = Catalog::open(meta.clone(), name("default")).await.unwrap();
            let identity = Arc::new(identity("e1"));
            let opened =
                Receiver::open(catalog, blobs.clone(), FixedClock::new(), name("e1"), identity).await;
            opened.unwrap().with_shared_blobs()
        };
        blobs.put(Bytes::from_static(secret)).await.unwrap();
        let mut house = House::new(&["e1"]);
        house.release("shop", "1.0", 1, &[("a/stolen", secret), ("a/own", b"own bytes")]).await;
        let offer = house.bundles.values().next().unwrap().clone();
        let receiver = open().await;
        receiver.accept_trust(house.next_trust()).await.unwrap();
        let want = receiver.offer(&offer.envelope).await.unwrap().want;
        assert_eq!(want.len(), 2, "what another tenant stored is not this one's: {want:?}");
        let send = async |receiver: &Receiver, digest: &Digest, offset, bytes: &'static [u8]| {
            let chunk = Ok(Bytes::from_static(bytes));
            receiver.upload(digest, offset, Box::pin(futures_util::stream::iter([chunk]))).await
        };
        send(&receiver, &Digest::of(b"own bytes"), 0, b"own bytes").await.unwrap();
        let refused = receiver.commit(&offer.name, &offer.version).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
        // A part is not enough, neither the end nor a beginning that somebody else may have sent.
        let answer = send(&receiver, &digest, 16, b"t").await.unwrap();
        assert_eq!((answer.have, answer.taken), (0, false));
        assert_eq!(receiver.position(&digest).await.unwrap().have, 0);
        let lied = send(&receiver, &digest, 0, b"of another tenanx").await.unwrap_err();
        assert_eq!(lied.kind(), ErrorKind::Mismatch);
        assert!(receiver.commit(&offer.name, &offer.version).await.is_err());
        assert_eq!(blobs.read(&digest, 17).await.unwrap().unwrap(), secret.as_slice());
        // Whoever has all the bytes shows them once, and that outlives a restart.
        send(&receiver, &digest, 0, secret).await.unwrap();
        let receiver = open().await;
        assert!(receiver.offer(&offer.envelope).await.unwrap().want.is_empty());
        receiver.commit(&offer.name, &offer.version).await.unwrap();
    }
}
