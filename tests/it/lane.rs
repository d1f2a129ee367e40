//! A release from its source to an edge and to who downloads it, without sockets.

use distedge::blob::BlobStore as _;
use distedge::digest::Digest;
use distedge::error::ErrorKind;
use distedge::key::Revocation;
use http::{Method, StatusCode};
use serde_json::Value;

use crate::support::{House, NOW, TOKEN, TestEdge, name, taken};

#[tokio::test]
async fn a_release_goes_through() {
    let mut house = House::new(&["e1"]);
    let edge = TestEdge::new("e1").await;
    house.release("shop", "1.0", 1, &[("shop/1.0/LICENSE", b""), ("shop/1.0/app.bin", b"one")]).await;
    let desired = house.desired("e1");
    let outcome = edge.converge(&desired, &house.blobs).await.unwrap();
    assert_eq!((outcome.proofs.len(), outcome.sent_blobs, outcome.sent_bytes), (1, 2, 3));
    assert!(outcome.failed.is_empty(), "{:?}", outcome.failed);
    assert_eq!(edge.get("/files/shop/1.0/app.bin").await, (StatusCode::OK, "one".into()));
    assert_eq!(edge.get("/files/shop/1.0/LICENSE").await, (StatusCode::OK, "".into()));
    assert_eq!(edge.get("/artifactory/files/shop/1.0/app.bin").await.1, "one");
    assert_eq!(edge.get("/files/shop/latest/app").await.1, "one");

    // Again: nothing to send, the same receipt.
    let again = edge.converge(&desired, &house.blobs).await.unwrap();
    assert_eq!((again.proofs.len(), again.sent_blobs), (1, 0));
    assert_eq!(again.proofs[0].envelope, outcome.proofs[0].envelope);

    // The next version shares a blob and moves the alias.
    house.release("shop", "1.1", 3, &[("shop/1.1/LICENSE", b""), ("shop/1.1/app.bin", b"three")]).await;
    let outcome = edge.converge(&house.desired("e1"), &house.blobs).await.unwrap();
    assert_eq!((outcome.proofs.len(), outcome.sent_blobs), (2, 1));
    assert_eq!(edge.get("/files/shop/latest/app").await.1, "three");

    // A version that was made in between comes late: it is there, the alias stays.
    house.release("shop", "1.0.5", 2, &[("shop/1.0.5/app.bin", b"two")]).await;
    edge.converge(&house.desired("e1"), &house.blobs).await.unwrap();
    assert_eq!(edge.get("/files/shop/1.0.5/app.bin").await.1, "two");
    assert_eq!(edge.get("/files/shop/latest/app").await.1, "three");
}

#[tokio::test]
async fn nothing_is_visible_before_commit() {
    let mut house = House::new(&["e1"]);
    let edge = TestEdge::new("e1").await;
    house.release("shop", "1.0", 1, &[("a/one", b"1"), ("a/two", b"22")]).await;
    let receiver = edge.edge.receiver();
    receiver.accept_trust(house.next_trust()).await.unwrap();
    let offer = house.bundles.values().next().unwrap().clone();
    let answer = receiver.offer(&offer.envelope).await.unwrap();
    assert_eq!(answer.want.len(), 2);
    let one = answer.want.iter().find(|want| want.size == 1).unwrap();
    let bytes = Box::pin(futures_util::stream::once(async { Ok("1".into()) }));
    assert!(receiver.upload(&one.digest, 0, bytes).await.unwrap().is_complete());
    assert_eq!(receiver.commit(&offer.name, &offer.version).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(edge.get("/files/a/one").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(edge.get("/api/v1/bundles").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(edge.get_as_admin("/files/a/one").await.0, StatusCode::NOT_FOUND);
    assert_eq!(edge.get_as_admin("/api/v1/bundles/shop/1.0/receipt").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_withdrawn_bundle_is_gone_for_good() {
    let mut house = House::new(&["e1"]);
    let edge = TestEdge::new("e1").await;
    house.release("shop", "1.0", 1, &[("a/shared", b"s"), ("a/one", b"1")]).await;
    house.release("other", "1.0", 1, &[("a/shared", b"s"), ("b/x", b"x")]).await;
    edge.converge(&house.desired("e1"), &house.blobs).await.unwrap();
    let offer = house.withdraw("shop", "1.0");
    edge.converge(&house.desired("e1"), &house.blobs).await.unwrap();
    let (status, body) = edge.get("/files/a/one").await;
    assert_eq!(status, StatusCode::GONE);
    assert!(String::from_utf8_lossy(&body).contains("bad build"));
    assert_eq!(edge.get("/files/shop/latest/app").await.0, StatusCode::GONE);
    // What another bundle holds stays.
    assert_eq!(edge.get("/files/a/shared").await, (StatusCode::OK, "s".into()));
    // G20: pushed again with its old, valid signatures.
    let error = edge.edge.receiver().offer(&offer.envelope).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Gone);
    assert_eq!(edge.get("/files/a/one").await.0, StatusCode::GONE);
    assert!(edge.event_kinds().await.contains(&"bundle.withdrawn".to_owned()));
    // Its own blobs are free, the shared one is not.
    let report = edge.edge.receiver().collect_garbage().await.unwrap();
    assert_eq!(report.removed, 1);
    assert_eq!(edge.get("/files/a/shared").await.1, "s");
}

#[tokio::test]
async fn a_withdrawal_that_comes_before_the_bundle_holds() {
    let mut house = House::new(&["e1"]);
    let edge = TestEdge::new("e1").await;
    house.release("shop", "1.0", 1, &[("a/one", b"1")]).await;
    let offer = house.withdraw("shop", "1.0");
    house.assign(offer.clone());
    let outcome = edge.converge(&house.desired("e1"), &house.blobs).await.unwrap();
    assert_eq!(outcome.failed.len(), 1, "{outcome:?}");
    assert_eq!(edge.get_as_admin("/files/a/one").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn same_version_other_content_is_a_conflict_and_an_event() {
    let mut house = House::new(&["e1"]);
    let edge = TestEdge::new("e1").await;
    house.release("shop", "1.0", 1, &[("a/one", b"1")]).await;
    edge.converge(&house.desired("e1"), &house.blobs).await.unwrap();
    // The signed list itself says otherwise now: the edge still keeps what it has.
    house.trust.assignments.clear();
    house.bundles.clear();
    house.release("shop", "1.0", 1, &[("a/one", b"other")]).await;
    let mut desired = house.desired("e1");
    let outcome = edge.converge(&desired, &house.blobs).await.unwrap();
    assert_eq!(outcome.failed[0].2.kind(), ErrorKind::Conflict);
    assert_eq!(outcome.proofs.len(), 0);
    let offer = desired.bundles.pop().unwrap();
    assert_eq!(edge.edge.receiver().offer(&offer.envelope).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert!(edge.event_kinds().await.contains(&"bundle.conflict".to_owned()));
}

#[tokio::test]
async fn a_path_is_written_once() {
    let mut house = House::new(&["e1"]);
    let edge = TestEdge::new("e1").await;
    house.release("shop", "1.0", 1, &[("a/one", b"1"), ("a/Readme", b"r")]).await;
    edge.converge(&house.desired("e1"), &house.blobs).await.unwrap();
    for (version, path) in [("1.1", "a/one"), ("1.2", "a/README"), ("1.3", "A/one")] {
        house.release("shop", version, 2, &[(path, b"changed")]).await;
        let outcome = edge.converge(&house.desired("e1"), &house.blobs).await.unwrap();
        let failed = outcome.failed.iter().find(|(_, failed, _)| failed.as_str() == version).unwrap();
        assert_eq!(failed.2.kind(), ErrorKind::Conflict, "{path}");
    }
    assert_eq!(edge.get("/files/a/one").await.1, "1");
    assert_eq!(edge.get("/files/a/README").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn private_and_missing_look_alike() {
    let mut house = House::new(&["e1"]);
    let store = std::sync::Arc::new(distedge::meta::MemoryStore::new());
    let blobs = std::sync::Arc::new(distedge::blob::MemoryBlobStore::new());
    let edge = TestEdge::over("e1", store, blobs, false).await.unwrap();
    house.release("shop", "1.0", 1, &[("a/one", b"1")]).await;
    edge.converge(&house.desired("e1"), &house.blobs).await.unwrap();
    let paths = [
        "/files/a/one",
        "/files/a/two",
        "/missing/a/one",
        "/files/",
        "/missing/",
        "/UPPER/x",
        "/api/v1/status",
        "/api/v1/nothing",
        "/api/v1/bundles/shop/1.0",
        "/api/v1/bundles/shop/9.9",
        "/api/v1/bundles/nope/1/envelope",
        "/artifactory/files/a/one",
    ];
    let mut seen = None;
    for path in paths {
        let response = edge.request(Method::GET, path, None).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{path}");
        assert!(response.headers().contains_key("www-authenticate"), "{path}");
        if path.starts_with("/artifactory") {
            continue;
        }
        let (_, body) = taken(response).await;
        assert_eq!(*seen.get_or_insert(body.clone()), body, "{path}");
    }
    assert_eq!(edge.request(Method::GET, "/files/a/one", Some(TOKEN)).await.status(), StatusCode::OK);
    assert_eq!(edge.request(Method::GET, "/missing/x", Some(TOKEN)).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(
        edge.request(Method::GET, "/files/a/one", Some("wrong")).await.status(),
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn nothing_can_be_written_through_the_data_plane() {
    let mut house = House::new(&["e1"]);
    let edge = TestEdge::new("e1").await;
    house.release("shop", "1.0", 1, &[("a/one", b"1")]).await;
    edge.converge(&house.desired("e1"), &house.blobs).await.unwrap();
    for method in ["PUT", "POST", "PATCH", "DELETE"] {
        for path in ["/files/a/one", "/files/a/new", "/artifactory/files/a/one", "/new/x", "/files/"] {
            for token in [None, Some(TOKEN)] {
                let method = Method::from_bytes(method.as_bytes()).unwrap();
                let response = edge.request(method, path, token).await;
                assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
                assert_eq!(response.headers()["allow"], "GET, HEAD");
            }
        }
    }
    assert_eq!(edge.get("/files/a/one").await.1, "1");
}

#[tokio::test]
async fn folders_list_what_is_there() {
    let mut house = House::new(&["e1"]);
    let edge = TestEdge::new("e1").await;
    let files: &[(&str, &[u8])] =
        &[("a.b", b"1"), ("a/x", b"2"), ("a/y/z", b"3"), ("a0", b"4"), ("b/<q>", b"5"), ("c", b"6")];
    house.release("shop", "1.0", 1, files).await;
    edge.converge(&house.desired("e1"), &house.blobs).await.unwrap();
    let names = |body: &[u8]| -> Vec<String> {
        let page: Value = serde_json::from_slice(body).unwrap();
        let entries = page["entries"].as_array().unwrap().iter();
        entries
            .map(|entry| {
                let slash = if entry["folder"] == true { "/" } else { "" };
                format!("{}{slash}", entry["name"].as_str().unwrap())
            })
            .collect()
    };
    let whole = names(&edge.get("/files/").await.1);
    assert_eq!(whole, ["a.b", "a/", "a0", "b/", "c", "shop/"]);
    assert_eq!(names(&edge.get("/files/a/").await.1), ["x", "y/"]);
    // The same, page by page.
    let (mut paged, mut last) = (Vec::new(), String::new());
    loop {
        let (_, body) = edge.get(&format!("/files/?n=1{last}")).await;
        paged.extend(names(&body));
        let page: Value = serde_json::from_slice(&body).unwrap();
        match page["next"].as_str() {
            Some(next) => last = format!("&last={}", next.replace('/', "%2F")),
            None => break,
        }
    }
    assert_eq!(paged, whole);
    let response = edge.request(Method::GET, "/files/a", None).await;
    assert_eq!(response.status(), StatusCode::MOVED_PERMANENTLY);
    assert_eq!(response.headers()["location"], "/files/a/");
    assert_eq!(edge.get("/files/nope/").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_deleted_bundle_lets_running_downloads_finish() {
    let mut house = House::new(&["e1"]);
    let edge = TestEdge::new("e1").await;
    let big = vec![7; 3 << 20];
    house.release("shop", "1.0", 1, &[("a/big", &big)]).await;
    edge.converge(&house.desired("e1"), &house.blobs).await.unwrap();
    let mut running = Vec::new();
    for _ in 0..50 {
        let mut response = edge.request(Method::GET, "/files/a/big", None).await;
        let first = response.body_mut().next_chunk().await.unwrap().unwrap();
        running.push((first, response));
    }
    let response = edge.request(Method::DELETE, "/api/v1/bundles/shop/1.0", Some(TOKEN)).await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    edge.edge.receiver().collect_garbage().await.unwrap();
    assert_eq!(edge.get("/files/a/big").await.0, StatusCode::NOT_FOUND);
    for (first, response) in running {
        let mut bytes = first.to_vec();
        bytes.extend_from_slice(&taken(response).await.1);
        assert!(bytes == big, "a running download was cut short");
    }
    // The source still wants it there: the next run brings it back.
    let outcome = edge.converge(&house.desired("e1"), &house.blobs).await.unwrap();
    assert_eq!((outcome.proofs.len(), outcome.sent_blobs), (1, 1));
    assert!(edge.get("/files/a/big").await.1 == big);
}

#[tokio::test]
async fn a_flipped_bit_is_caught_reported_and_healed() {
    let mut house = House::new(&["e1"]);
    let store = std::sync::Arc::new(distedge::meta::MemoryStore::new());
    let blobs = distedge::blob::MemoryBlobStore::new();
    let edge = TestEdge::over("e1", store, std::sync::Arc::new(blobs.clone()), true).await.unwrap();
    house.release("shop", "1.0", 1, &[("a/one", b"content"), ("a/two", b"fine")]).await;
    edge.converge(&house.desired("e1"), &house.blobs).await.unwrap();
    assert_eq!(edge.get("/files/a/one").await.1, "content");
    let digest = Digest::of(b"content");
    assert!(blobs.damage(&digest, |bytes| bytes[3] ^= 1));
    let (status, body) = edge.get("/files/a/one").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(!String::from_utf8_lossy(&body).contains("cont"));
    assert_eq!(blobs.stat(&digest).await.unwrap(), None);
    assert!(edge.event_kinds().await.contains(&"blob.damaged".to_owned()));
    let described = edge.get_as_admin("/api/v1/bundles/shop/1.0").await.1;
    assert_eq!(serde_json::from_slice::<Value>(&described).unwrap()["missing"], 1);
    let outcome = edge.converge(&house.desired("e1"), &house.blobs).await.unwrap();
    assert_eq!((outcome.proofs.len(), outcome.sent_blobs), (1, 1));
    assert_eq!(edge.get("/files/a/one").await.1, "content");
}

#[tokio::test]
async fn uploads_that_lie_leave_nothing() {
    let mut house = House::new(&["e1"]);
    let edge = TestEdge::new("e1").await;
    house.release("shop", "1.0", 1, &[("a/one", b"right")]).await;
    let receiver = edge.edge.receiver();
    receiver.accept_trust(house.next_trust()).await.unwrap();
    let offer = house.bundles.values().next().unwrap().clone();
    let want = receiver.offer(&offer.envelope).await.unwrap().want[0];
    let send = |offset, bytes: &'static [u8]| {
        let stream = Box::pin(futures_util::stream::once(async move { Ok(bytes.into()) }));
        receiver.upload(&want.digest, offset, stream)
    };
    assert_eq!(send(0, b"wrong").await.unwrap_err().kind(), ErrorKind::Mismatch);
    assert_eq!(send(0, b"right and more").await.unwrap_err().kind(), ErrorKind::Mismatch);
    assert_eq!(receiver.position(&want.digest).await.unwrap().have, 0);
    let answer = send(0, b"ri").await.unwrap();
    assert_eq!((answer.have, answer.taken), (2, true));
    let answer = send(0, b"right").await.unwrap();
    assert_eq!((answer.have, answer.taken), (2, false));
    assert!(send(2, b"ght").await.unwrap().is_complete());
    // A digest that nobody asked for is not taken.
    let stream = Box::pin(futures_util::stream::once(async { Ok("x".into()) }));
    let error = receiver.upload(&Digest::of(b"x"), 0, stream).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(receiver.commit(&offer.name, &offer.version).await.is_ok());
    assert!(edge.event_kinds().await.contains(&"blob.rejected".to_owned()));
}

#[tokio::test]
async fn an_expired_trust_document_serves_and_accepts_nothing_new() {
    let mut house = House::new(&["e1"]);
    let edge = TestEdge::new("e1").await;
    house.release("shop", "1.0", 1, &[("a/one", b"1")]).await;
    edge.converge(&house.desired("e1"), &house.blobs).await.unwrap();
    edge.clock.advance(91 * 86400);
    house.release("shop", "1.1", 2, &[("a/two", b"2")]).await;
    let offer = house.bundles[&(name("shop"), name("1.1"))].clone();
    let error = edge.edge.receiver().offer(&offer.envelope).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Untrusted);
    assert!(error.to_string().contains("expired"), "{error}");
    assert!(edge.edge.receiver().status().await.unwrap().stale);
    assert_eq!(edge.get("/files/a/one").await.1, "1");
    // The clock goes back: what has expired stays expired.
    edge.clock.advance(-91 * 86400);
    assert!(edge.edge.receiver().now() > NOW.plus(90 * 86400));
    assert!(edge.edge.receiver().offer(&offer.envelope).await.is_err());
}

#[tokio::test]
async fn a_stranger_cannot_replace_the_trust_document() {
    let mut house = House::new(&["e1"]);
    let edge = TestEdge::new("e1").await;
    let receiver = edge.edge.receiver();
    let first = house.next_trust();
    receiver.accept_trust(first.clone()).await.unwrap();
    let second = house.next_trust();
    receiver.accept_trust(second.clone()).await.unwrap();
    // Older, and from somebody else.
    assert!(receiver.accept_trust(first).await.is_err());
    let mut stranger = House::new(&["e1"]);
    stranger.trust.version = 50;
    assert_eq!(receiver.accept_trust(stranger.next_trust()).await.unwrap_err().kind(), ErrorKind::Untrusted);
    assert_eq!(receiver.accept_trust(second).await.unwrap().version, 2);
    assert!(edge.event_kinds().await.contains(&"trust.rejected".to_owned()));
}

/// A client asked for a collection and hung up while it ran: the mark it left kept every bundle that
/// needs the blob out, until the next collection.
#[tokio::test]
async fn a_collection_that_was_given_up_blocks_nobody() {
    let mut house = House::new(&["e1"]);
    let edge = TestEdge::new("e1").await;
    house.release("shop", "1.0", 1, &[("a/one", b"content")]).await;
    let digest = Digest::of(b"content");
    let catalog = edge.edge.receiver().catalog();
    assert_eq!(catalog.begin_collection(&[digest]).await.unwrap(), [digest]);
    assert_eq!(catalog.begin_collection(&[digest]).await.unwrap(), []);
    let outcome = edge.converge(&house.desired("e1"), &house.blobs).await.unwrap();
    assert_eq!((outcome.proofs.len(), outcome.failed.len()), (1, 0), "{:?}", outcome.failed);
    assert_eq!(edge.get("/files/a/one").await.1, "content");
    assert_eq!(edge.edge.receiver().collect_garbage().await.unwrap().removed, 0);
}

#[tokio::test]
async fn a_bundle_that_was_taken_off_and_then_withdrawn_is_gone_too() {
    let mut house = House::new(&["e1"]);
    let edge = TestEdge::new("e1").await;
    house.release("shop", "1.0", 1, &[("a/one", b"1")]).await;
    edge.converge(&house.desired("e1"), &house.blobs).await.unwrap();
    edge.edge.receiver().remove(&name("shop"), &name("1.0")).await.unwrap();
    assert_eq!(edge.get("/files/a/one").await.0, StatusCode::NOT_FOUND);
    house.withdraw("shop", "1.0");
    edge.converge(&house.desired("e1"), &house.blobs).await.unwrap();
    assert_eq!(edge.get("/files/a/one").await.0, StatusCode::GONE);
    assert_eq!(edge.get("/files/shop/latest/app").await.0, StatusCode::GONE);
}

#[tokio::test]
async fn two_versions_with_one_seq_are_a_conflict() {
    let mut house = House::new(&["e1"]);
    let edge = TestEdge::new("e1").await;
    house.release("shop", "1.0", 7, &[("a/one", b"1")]).await;
    edge.converge(&house.desired("e1"), &house.blobs).await.unwrap();
    house.release("shop", "1.1", 7, &[("a/two", b"2")]).await;
    let outcome = edge.converge(&house.desired("e1"), &house.blobs).await.unwrap();
    assert_eq!((outcome.failed.len(), outcome.failed[0].2.kind()), (1, ErrorKind::Conflict));
    assert_eq!(edge.get("/files/shop/latest/app").await.1, "1");
}

/// A signing key was stolen. What it signed alone must not stay on the shelves; a key that only ran
/// out is no reason to take anything down.
#[tokio::test]
async fn bundles_of_a_compromised_key_are_taken_off() {
    let mut house = House::new(&["e1"]);
    let edge = TestEdge::new("e1").await;
    house.release("shop", "1.0", 1, &[("a/one", b"1")]).await;
    edge.converge(&house.desired("e1"), &house.blobs).await.unwrap();
    let key = &mut house.trust.release.keys[0];
    key.window.until = Some(NOW.plus(1));
    let revoke = |compromised| Revocation { at: NOW, reason: "stolen".into(), compromised };
    edge.clock.advance(60);
    edge.edge.receiver().accept_trust(house.next_trust()).await.unwrap();
    assert_eq!(edge.get("/files/a/one").await.0, StatusCode::OK);
    house.trust.release.keys[0].revocation = Some(revoke(false));
    edge.edge.receiver().accept_trust(house.next_trust()).await.unwrap();
    assert_eq!(edge.get("/files/a/one").await.0, StatusCode::OK);
    house.trust.release.keys[0].revocation = Some(revoke(true));
    let answer = edge.edge.receiver().accept_trust(house.next_trust()).await.unwrap();
    assert_eq!(answer.removed, 1);
    assert_eq!(edge.get("/files/a/one").await.0, StatusCode::NOT_FOUND);
    assert!(edge.event_kinds().await.contains(&"bundle.untrusted".to_owned()));
    let outcome = edge.converge(&house.desired("e1"), &house.blobs).await.unwrap();
    assert_eq!(outcome.failed[0].2.kind(), ErrorKind::Untrusted);
}

#[tokio::test]
async fn constraints_of_a_bundle_bind_its_downloads() {
    let mut house = House::new(&["e1"]);
    let edge = TestEdge::new("e1").await;
    for (seq, (path, constraints)) in [
        ("a/net-in", r#"{"nets":{"allow":["127.0.0.0/8"],"deny":[]}}"#),
        ("a/net-out", r#"{"nets":{"deny":["127.0.0.0/8"]}}"#),
        ("a/country", r#"{"countries":{"allow":["DE"],"deny":[]}}"#),
        ("a/edge", r#"{"edges":["e2"]}"#),
    ]
    .into_iter()
    .enumerate()
    {
        let item = house.item("files", path, path.as_bytes()).await;
        let constraints = serde_json::from_str(constraints).unwrap();
        let statement = House::statement(&format!("b{seq}"), "1", 1).item(item).constraints(constraints);
        let offer = house.sign(&statement.build().unwrap());
        house.assign(offer);
    }
    let outcome = edge.converge(&house.desired("e1"), &house.blobs).await.unwrap();
    assert_eq!(outcome.failed.len(), 1, "{:?}", outcome.failed);
    assert_eq!(outcome.failed[0].2.kind(), ErrorKind::Forbidden);
    assert_eq!(edge.get("/files/a/net-in").await.0, StatusCode::OK);
    assert_eq!(edge.get("/files/a/net-out").await.0, StatusCode::FORBIDDEN);
    assert_eq!(edge.get("/files/a/country").await.0, StatusCode::FORBIDDEN);
    assert_eq!(edge.get("/artifactory/files/a/country").await.0, StatusCode::FORBIDDEN);
    assert_eq!(edge.get("/files/a/edge").await.0, StatusCode::NOT_FOUND);
}
