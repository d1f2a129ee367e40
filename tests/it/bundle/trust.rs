//! Trust documents, assignment and receipts.

use distedge::bundle::{
    Anchor, Constraints, Envelope, Receipt, TRUST_PAYLOAD, TrustDocument, Withdrawal, admit, merkle_root,
    verify,
};
use distedge::digest::Digest;
use distedge::error::ErrorKind;
use distedge::key::{KeySet, Signer, SigningKey};

use super::{NOW, builder, ed25519, edge, item, key_set, seal, statement, trust};

struct World {
    root: SigningKey,
    release: SigningKey,
    roots: KeySet,
    document: TrustDocument,
}

fn world() -> World {
    let (root, release) = (ed25519(), ed25519());
    let roots = key_set(1, &[(&root, "board")]);
    let document = trust(&roots, &key_set(1, &[(&release, "ops")]), &statement().to_payload());
    World { root, release, roots, document }
}

fn sealed(document: &TrustDocument, signers: &[&dyn Signer]) -> Vec<u8> {
    document.seal(signers, NOW).unwrap().to_json()
}

fn accepted(envelope: &[u8], anchor: Anchor<'_>) -> Result<TrustDocument, ErrorKind> {
    TrustDocument::accept(envelope, anchor, &"acme".parse().unwrap(), NOW).map_err(|error| error.kind())
}

#[test]
fn a_document_is_taken_from_its_pinned_root() {
    let world = world();
    let envelope = sealed(&world.document, &[&world.root]);
    assert_eq!(accepted(&envelope, Anchor::Pinned(&world.roots)).as_ref(), Ok(&world.document));
    assert_eq!(accepted(&envelope, Anchor::Current(&world.document)).as_ref(), Ok(&world.document));
    assert_eq!(TrustDocument::parse_unverified(&envelope).unwrap(), world.document);
    let stranger = key_set(1, &[(&ed25519(), "board")]);
    assert_eq!(accepted(&envelope, Anchor::Pinned(&stranger)), Err(ErrorKind::Untrusted));
    let by_release = sealed(&world.document, &[&world.release]);
    assert_eq!(accepted(&by_release, Anchor::Pinned(&world.roots)), Err(ErrorKind::Untrusted));
}

#[test]
fn a_new_root_is_signed_by_the_old_one_and_by_itself() {
    let world = world();
    let next = ed25519();
    let mut document = world.document.clone();
    document.version = 2;
    document.root = key_set(1, &[(&next, "board")]);
    let current = Anchor::Current(&world.document);
    assert_eq!(accepted(&sealed(&document, &[&next]), current), Err(ErrorKind::Untrusted));
    assert_eq!(accepted(&sealed(&document, &[&world.root]), current), Err(ErrorKind::Untrusted));
    assert_eq!(accepted(&sealed(&document, &[&world.root, &next]), current), Ok(document));
}

#[test]
fn versions_only_rise() {
    let world = world();
    let mut current = world.document.clone();
    current.version = 7;
    let with = |version: u64, expires: i64| {
        let mut document = world.document.clone();
        document.version = version;
        document.expires = NOW.plus(expires);
        accepted(&sealed(&document, &[&world.root]), Anchor::Current(&current)).map(|one| one.version)
    };
    assert_eq!(with(8, 1000), Ok(8));
    assert_eq!(with(7, 86_400), Ok(7));
    assert_eq!(with(7, 1000), Err(ErrorKind::Conflict));
    assert_eq!(with(6, 86_400), Err(ErrorKind::Conflict));
}

#[test]
fn expired_early_or_foreign_documents() {
    let world = world();
    let with = |change: fn(&mut TrustDocument)| {
        let mut document = world.document.clone();
        change(&mut document);
        accepted(&sealed(&document, &[&world.root]), Anchor::Pinned(&world.roots)).map(|one| one.version)
    };
    let frozen = |document: &mut TrustDocument| {
        document.issued = NOW.plus(-10);
        document.expires = NOW;
    };
    assert_eq!(with(frozen), Err(ErrorKind::Untrusted));
    assert_eq!(with(|document| document.issued = NOW.plus(301)), Err(ErrorKind::Untrusted));
    assert_eq!(with(|document| document.issued = NOW.plus(300)), Ok(1));
    assert_eq!(with(|document| document.tenant = "globex".parse().unwrap()), Err(ErrorKind::Untrusted));
}

#[test]
fn a_withdrawal_is_for_ever() {
    let world = world();
    let mut current = world.document.clone();
    current.withdrawn.push(Withdrawal {
        bundle: "shop".parse().unwrap(),
        version: "1.4.0".parse().unwrap(),
        digest: Digest::of(&statement().to_payload()),
        reason: "leaks".into(),
        legal: false,
        at: NOW,
    });
    let mut forgetful = world.document.clone();
    forgetful.version = 2;
    let envelope = sealed(&forgetful, &[&world.root]);
    assert_eq!(accepted(&envelope, Anchor::Current(&current)), Err(ErrorKind::Conflict));
    // The old envelope is still well signed; it is not admitted.
    let bundle = seal(&statement().to_payload(), &[&world.release]);
    let verified = verify(&bundle, &current, NOW).unwrap();
    let gone = admit(&verified, &current, &edge()).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::Gone);
    assert_eq!(gone.message(), "the bundle shop 1.4.0 was withdrawn at 2026-11-22T05:00:00Z: leaks");
    assert_eq!(current.assigned(&edge()).count(), 0);
    assert_eq!(world.document.assigned(&edge()).count(), 1);
}

#[test]
fn documents_that_contradict_themselves() {
    let world = world();
    let refused = |change: fn(&mut TrustDocument)| {
        let mut document = world.document.clone();
        change(&mut document);
        document.seal(&[&world.root], NOW).unwrap_err().kind()
    };
    assert_eq!(refused(|one| one.version = 0), ErrorKind::Invalid);
    assert_eq!(refused(|one| one.expires = one.issued), ErrorKind::Invalid);
    assert_eq!(refused(|one| one.edges.push(one.edges[0].clone())), ErrorKind::Invalid);
    assert_eq!(refused(|one| one.edges.clear()), ErrorKind::Invalid);
    assert_eq!(refused(|one| one.assignments.push(one.assignments[0].clone())), ErrorKind::Invalid);
    assert_eq!(refused(|one| one.assignments[0].edges.push(edge())), ErrorKind::Invalid);
    assert_eq!(refused(|one| one.edges[0].site = Some("a\nb".into())), ErrorKind::Invalid);
    assert_eq!(refused(|one| one.release.threshold = 2), ErrorKind::Invalid);

    let text = String::from_utf8(world.document.to_payload()).unwrap();
    for (from, to) in [
        ("\"version\":1,", "\"version\":1,\"version\":1,"),
        ("\"version\":1,", "\"version\":1,\"x\":1,"),
        ("\"version\":1,", "\"version\":1.0,"),
        ("\"threshold\":1", "\"threshold\":0"),
        ("\"name\":\"fra-1\"", "\"name\":\"fra-1\",\"country\":null"),
        ("\"name\":\"fra-1\"", "\"name\":\"FRA\""),
        ("\"alias\":\"key-0\"", "\"alias\":\"key-0\",\"role\":\"x\""),
    ] {
        assert!(text.contains(from), "{from}");
        let payload = text.replacen(from, to, 1);
        let envelope = Envelope::seal(TRUST_PAYLOAD, payload, &[&world.root], NOW).unwrap().to_json();
        assert_eq!(accepted(&envelope, Anchor::Pinned(&world.roots)), Err(ErrorKind::Invalid), "{to}");
    }
    let other = Envelope::seal("application/json", text, &[&world.root], NOW).unwrap().to_json();
    assert_eq!(accepted(&other, Anchor::Pinned(&world.roots)), Err(ErrorKind::Unsupported));
    let large = vec![b' '; 5_000_001];
    assert_eq!(accepted(&large, Anchor::Pinned(&world.roots)), Err(ErrorKind::TooLarge));
}

#[test]
fn a_bundle_is_admitted_where_it_is_assigned() {
    let world = world();
    let bundle = seal(&statement().to_payload(), &[&world.release]);
    let verified = verify(&bundle, &world.document, NOW).unwrap();
    let admitted = |document: &TrustDocument, name: &str| {
        admit(&verified, document, &name.parse().unwrap()).map_err(|error| error.kind())
    };
    assert_eq!(admitted(&world.document, "fra-1"), Ok(()));
    assert_eq!(admitted(&world.document, "fra-2"), Err(ErrorKind::Untrusted));
    let mut other = world.document.clone();
    other.assignments[0].digest = Digest::of(b"other");
    assert_eq!(admitted(&other, "fra-1"), Err(ErrorKind::Conflict));
    let mut other = world.document.clone();
    other.assignments[0].version = "1.4.1".parse().unwrap();
    assert_eq!(admitted(&other, "fra-1"), Err(ErrorKind::Untrusted));
    let mut other = world.document.clone();
    other.tenant = "globex".parse().unwrap();
    assert_eq!(admitted(&other, "fra-1"), Err(ErrorKind::Untrusted));
}

#[test]
fn a_bundle_keeps_its_constraints() {
    let world = world();
    let constraints =
        Constraints { edges: Some(vec!["group:eu".parse().unwrap()]), ..Constraints::default() };
    let bound = builder().item(item("r", "a", b"a")).constraints(constraints).build().unwrap();
    let payload = bound.to_payload();
    let mut document = world.document.clone();
    document.assignments[0].digest = Digest::of(&payload);
    let verified = verify(&seal(&payload, &[&world.release]), &document, NOW).unwrap();
    assert_eq!(admit(&verified, &document, &edge()).unwrap_err().kind(), ErrorKind::Forbidden);
    document.edges[0].labels.insert("group".into(), "eu".into());
    admit(&verified, &document, &edge()).unwrap();
}

#[test]
fn a_receipt_is_the_word_of_one_edge() {
    let identity = ed25519();
    let held = statement();
    let receipt = Receipt {
        edge: edge(),
        tenant: "acme".parse().unwrap(),
        bundle: held.bundle().name.clone(),
        version: held.bundle().version.clone(),
        payload: Digest::of(&held.to_payload()),
        seq: held.bundle().seq,
        items: held.items().len() as u64,
        bytes: held.total_bytes(),
        root: held.root(),
        at: NOW,
    };
    let envelope = receipt.seal(&identity, NOW).unwrap();
    let judged = |envelope: &Envelope| {
        Receipt::verify(&envelope.to_json(), &identity.public_key(), NOW).map_err(|error| error.kind())
    };
    assert_eq!(judged(&envelope).as_ref(), Ok(&receipt));
    assert_eq!(judged(&receipt.seal(&ed25519(), NOW).unwrap()), Err(ErrorKind::Untrusted));
    let mut altered = envelope.clone();
    altered.payload = String::from_utf8(envelope.payload.to_vec()).unwrap().replace("fra-1", "fra-2").into();
    assert_eq!(judged(&altered), Err(ErrorKind::Untrusted));
    let bundle = seal(&held.to_payload(), &[&identity]);
    assert_eq!(judged(&Envelope::parse(&bundle).unwrap()), Err(ErrorKind::Unsupported));

    // The root tells a missing item, a renamed one and another digest apart.
    let items = || held.items().iter().map(|item| (item.name(), item.digest));
    assert_ne!(merkle_root(items().skip(1)), held.root());
    assert_ne!(merkle_root(items().map(|(name, digest)| (format!("{name}x"), digest))), held.root());
    assert_ne!(merkle_root(items().map(|(name, _)| (name, Digest::of(b"x")))), held.root());
    assert_eq!(merkle_root(items()), held.root());
}
