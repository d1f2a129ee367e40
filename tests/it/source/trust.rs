use bytes::Bytes;
use distedge::bundle::{Anchor, TrustDocument};
use distedge::error::ErrorKind;
use distedge::key::Algorithm;
use distedge::source::{EdgeRecord, NewKey, Role, Source};

use super::{Bench, NOW, parse};

const DAY: i64 = 24 * 60 * 60;

async fn document(source: &Source) -> (Bytes, TrustDocument) {
    let envelope = source.trust().await.unwrap();
    let document = TrustDocument::parse_unverified(&envelope).unwrap();
    (envelope, document)
}

#[tokio::test]
async fn the_version_rises_with_every_change_and_only_then() {
    let bench = Bench::with_keys().await;
    let (envelope, first) = document(&bench.source).await;
    assert_eq!((first.version, first.issued, first.expires), (1, NOW, NOW.plus(90 * DAY)));
    bench.clock.advance(DAY);
    assert_eq!(bench.source.trust().await.unwrap(), envelope, "nothing changed");

    let mut last = first;
    for step in 0..5 {
        match step {
            0 => bench.source.set_edge(&EdgeRecord::new(parse("e1"), "https://e1"), None).await.unwrap(),
            1 => {
                bench.add("r/x", b"1", &[]).await;
                bench.release("app", "1.0", "**").await;
                // A bundle that is assigned to nobody is nobody's affair.
                assert_eq!(document(&bench.source).await.1, last);
                let edges = [parse("e1")];
                assert_eq!(bench.source.assign(&parse("app"), &parse("1.0"), &edges).await.unwrap(), 1);
                assert_eq!(bench.source.assign(&parse("app"), &parse("1.0"), &edges).await.unwrap(), 0);
            }
            2 => {
                drop(bench.source.withdraw_bundle(&parse("app"), &parse("1.0"), "bad", false).await.unwrap())
            }
            3 => bench.source.revoke_key(Role::Release, "release", "lost", false).await.unwrap(),
            _ => assert!(bench.source.remove_edge(&parse("e1")).await.unwrap()),
        }
        let (envelope, next) = document(&bench.source).await;
        assert_eq!(next.version, last.version + 1, "step {step}");
        let now = NOW.plus(DAY);
        let anchor = Anchor::Current(&last);
        TrustDocument::accept(&envelope, anchor, &parse("default"), now).unwrap();
        last = next;
    }
    assert_eq!((last.assignments.len(), last.withdrawn.len(), last.edges.len()), (0, 1, 0));
    assert!(last.release.keys[0].revocation.is_some());
}

#[tokio::test]
async fn it_is_signed_anew_before_it_expires() {
    let bench = Bench::with_keys().await;
    bench.source.set_trust_days(30).await.unwrap();
    let (_, first) = document(&bench.source).await;
    bench.clock.advance(20 * DAY);
    assert_eq!(document(&bench.source).await.1.version, 1);
    bench.clock.advance(1);
    let (_, second) = document(&bench.source).await;
    assert_eq!((second.version, second.expires), (2, NOW.plus(50 * DAY + 1)));
    assert_eq!(second.release, first.release);
    assert_eq!(bench.source.set_trust_days(0).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn a_document_that_edges_would_refuse_is_never_published() {
    let bench = Bench::new().await;
    let error = bench.source.trust().await.unwrap_err();
    assert!(error.to_string().contains("there is no root key"), "{error}");
    for (role, alias) in [(Role::Root, "root"), (Role::Release, "release")] {
        bench.source.create_key(role, Algorithm::Ed25519, &NewKey::new(alias)).await.unwrap();
    }
    let (envelope, first) = document(&bench.source).await;
    // A root key that is replaced at once, without a document that names both, cuts the edges off.
    bench.source.create_key(Role::Root, Algorithm::Ed25519, &NewKey::new("root2")).await.unwrap();
    bench.source.revoke_key(Role::Root, "root", "rotated", false).await.unwrap();
    let error = bench.source.trust().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("edges would refuse"), "{error}");
    assert_eq!(bench.source.trust_record().await.unwrap().unwrap().version, first.version);
    drop(envelope);
}

#[tokio::test]
async fn root_keys_rotate_through_a_document_that_names_both() {
    let bench = Bench::with_keys().await;
    let (_, first) = document(&bench.source).await;
    bench.source.create_key(Role::Root, Algorithm::Ed25519, &NewKey::new("root2")).await.unwrap();
    let (envelope, second) = document(&bench.source).await;
    TrustDocument::accept(&envelope, Anchor::Current(&first), &parse("default"), NOW).unwrap();
    bench.source.revoke_key(Role::Root, "root", "rotated", false).await.unwrap();
    let (envelope, third) = document(&bench.source).await;
    TrustDocument::accept(&envelope, Anchor::Current(&second), &parse("default"), NOW).unwrap();
    assert_eq!(third.version, 3);
}
