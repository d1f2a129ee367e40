use distedge::bundle::Envelope;
use distedge::error::ErrorKind;
use distedge::key::{Algorithm, Signer as _, SigningKey, Window};
use distedge::name::{BundleName, Version};
use distedge::source::{BundleState, NewAlias, NewKey, Pattern, Role};

use super::{Bench, NOW, new_bundle, parse};

fn ids(name: &str, version: &str) -> (BundleName, Version) {
    (parse(name), parse(version))
}

#[tokio::test]
async fn a_draft_may_change_and_a_signed_bundle_never() {
    let bench = Bench::with_keys().await;
    let (name, version) = ids("app", "1.0");
    bench.add("r/app/one", b"1", &[]).await;
    let draft = bench.create("app", "1.0", "r/**").await;
    assert_eq!((draft.state(), draft.seq, draft.items), (BundleState::Draft, 1, 1));
    let error = bench.source.envelope(&name, &version).await.unwrap_err();
    assert!(error.to_string().contains("is a draft"), "{error}");

    bench.add("r/app/two", b"22", &[]).await;
    bench.clock.advance(60);
    let draft = bench.create("app", "1.0", "r/**").await;
    assert_eq!((draft.seq, draft.items, draft.bytes), (1, 2, 3));

    let signed = bench.source.sign_bundle(&name, &version, &[]).await.unwrap();
    assert_eq!(signed.state(), BundleState::Signed);
    let envelope = bench.source.envelope(&name, &version).await.unwrap();
    let again = bench.source.sign_bundle(&name, &version, &[]).await.unwrap();
    assert_eq!(again, signed, "one key signs once");

    // The same content again is the same bundle; other content is refused.
    bench.clock.advance(60);
    assert_eq!(bench.create("app", "1.0", "r/**").await, signed);
    let other = new_bundle("app", "1.0", "r/app/one");
    let error = bench.source.create_bundle(&other).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains(&signed.digest.to_string()), "{error}");
    assert_eq!(bench.source.envelope(&name, &version).await.unwrap(), envelope);
    let error = bench.source.discard_bundle(&name, &version).await.unwrap_err();
    assert!(error.to_string().contains("withdraw it instead"), "{error}");

    let next = bench.create("app", "1.1", "r/**").await;
    assert_eq!(next.seq, 2, "seq rises with every version of a name");
    assert_eq!(bench.create("other", "1.1", "r/**").await.seq, 1);
    // The number of a discarded draft is not given again.
    bench.source.discard_bundle(&parse("app"), &parse("1.1")).await.unwrap();
    assert_eq!(bench.create("app", "1.2", "r/**").await.seq, 3);
}

#[tokio::test]
async fn k_of_n_owners_must_sign() {
    let bench = Bench::with_keys().await;
    let (name, version) = ids("app", "1.0");
    bench.add("r/x", b"1", &[]).await;
    bench.release("app", "1.0", "**").await;
    let second = NewKey::new("second").with_owner("release");
    bench.source.create_key(Role::Release, Algorithm::Ed25519, &second).await.unwrap();
    let error = bench.source.set_threshold(Role::Release, 2).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "one owner's two keys are one owner: {error}");
    bench.source.create_key(Role::Release, Algorithm::Ed25519, &NewKey::new("third")).await.unwrap();
    bench.source.set_threshold(Role::Release, 2).await.unwrap();
    bench.source.sign_bundle(&name, &version, &["second".into()]).await.unwrap();
    let error = bench.source.verify_bundle(&name, &version).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Untrusted, "{error}");
    let error = bench.source.assign(&name, &version, &[]).await.unwrap_err();
    assert!(error.to_string().contains("cannot be distributed"), "{error}");
    bench.source.sign_bundle(&name, &version, &["third".into()]).await.unwrap();
    let found = bench.source.verify_bundle(&name, &version).await.unwrap();
    assert_eq!((found.signers.len(), found.threshold, found.blobs), (2, 2, 1));
}

#[tokio::test]
async fn a_key_that_may_not_sign_says_why() {
    let bench = Bench::with_keys().await;
    let (name, version) = ids("app", "1.0");
    bench.add("r/x", b"1", &[]).await;
    bench.create("app", "1.0", "**").await;
    let sign =
        async |alias: &str| bench.source.sign_bundle(&name, &version, &[alias.to_owned()]).await.unwrap_err();
    let error = sign("nobody").await;
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("release"), "it tells which keys there are: {error}");

    let window = Window { from: NOW.plus(100), until: Some(NOW.plus(200)) };
    let later = NewKey::new("later").with_window(window);
    bench.source.create_key(Role::Release, Algorithm::Ed25519, &later).await.unwrap();
    assert!(sign("later").await.to_string().contains("may sign from"));
    bench.clock.advance(200);
    assert!(sign("later").await.to_string().contains("expired at"));

    let error = bench.source.revoke_key(Role::Release, "release", " ", false).await.unwrap_err();
    assert!(error.to_string().contains("needs a reason"), "{error}");
    bench.source.revoke_key(Role::Release, "release", "laptop lost", true).await.unwrap();
    let error = sign("release").await;
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("laptop lost"), "{error}");
    let error = bench.source.sign_bundle(&name, &version, &[]).await.unwrap_err();
    assert!(error.to_string().contains("no key is the default"), "{error}");
    assert_eq!(bench.source.bundle(&name, &version).await.unwrap().unwrap().state(), BundleState::Draft);
}

#[tokio::test]
async fn a_signature_made_elsewhere_is_attached_only_if_it_is_good() {
    let bench = Bench::with_keys().await;
    let (name, version) = ids("app", "1.0");
    bench.add("r/x", b"1", &[]).await;
    bench.create("app", "1.0", "**").await;
    let module = SigningKey::generate(Algorithm::Ed25519, "hsm", NOW).unwrap();
    let new = NewKey::new("hsm");
    bench.source.import_public_key(Role::Release, &new, module.public_key()).await.unwrap();
    let error = bench.source.sign_bundle(&name, &version, &["hsm".into()]).await.unwrap_err();
    assert!(error.to_string().contains("is not here"), "{error}");

    let message = bench.source.signing_bytes(&name, &version).await.unwrap();
    assert!(message.starts_with(b"DSSEv1 28 application/vnd.in-toto+json "));
    let wrong = module.sign(b"something else", NOW).unwrap();
    let error = bench.source.attach_signature(&name, &version, None, &wrong).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Untrusted, "{error}");
    let good = module.sign(&message, NOW).unwrap();
    let error = bench.source.attach_signature(&name, &version, Some("release"), &good).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Untrusted, "{error}");
    let record = bench.source.attach_signature(&name, &version, None, &good).await.unwrap();
    assert_eq!(record.signatures[0].alias, "hsm");
    let again = bench.source.attach_signature(&name, &version, Some("hsm"), &good).await.unwrap();
    assert_eq!(again.signatures.len(), 1);
    assert_eq!(bench.source.verify_bundle(&name, &version).await.unwrap().signers, ["hsm"]);
}

#[tokio::test]
async fn a_key_is_imported_once_and_its_secret_stays_in_the_vault() {
    let bench = Bench::with_keys().await;
    let pair = SigningKey::generate(Algorithm::Ed25519, "", NOW).unwrap();
    bench.source.import_key(Role::Release, &NewKey::new("ci"), &pair.to_secret()).await.unwrap();
    let twice = bench.source.import_key(Role::Release, &NewKey::new("ci2"), &pair.to_secret()).await;
    assert_eq!(twice.unwrap_err().kind(), ErrorKind::Conflict);
    assert!(bench.source.has_secret(&pair.public_key().id()).unwrap());
    let secret = pair.to_secret();
    let body = secret.expose_str().unwrap().lines().nth(1).unwrap();
    let everything = bench.ports.meta.scan(&b"\0"[..]..&b"\xff"[..], 10_000).await.unwrap();
    assert!(!everything.is_empty());
    for entry in everything {
        assert!(!String::from_utf8_lossy(&entry.value).contains(body), "{:?}", entry.key);
    }
}

#[tokio::test]
async fn a_withdrawn_bundle_never_returns() {
    let bench = Bench::with_keys().await;
    let (name, version) = ids("app", "1.0");
    bench.add("r/x", b"1", &[]).await;
    bench.create("app", "1.0", "**").await;
    let error = bench.source.withdraw_bundle(&name, &version, "bad", false).await.unwrap_err();
    assert!(error.to_string().contains("discard it instead"), "{error}");
    bench.source.sign_bundle(&name, &version, &[]).await.unwrap();
    let record = bench.source.withdraw_bundle(&name, &version, "bad build", true).await.unwrap();
    assert_eq!(record.state(), BundleState::Withdrawn);
    for error in [
        bench.source.withdraw_bundle(&name, &version, "again", false).await.unwrap_err(),
        bench.source.create_bundle(&new_bundle("app", "1.0", "**")).await.unwrap_err(),
        bench.source.sign_bundle(&name, &version, &[]).await.unwrap_err(),
        bench.source.assign(&name, &version, &[]).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Gone, "{error}");
        assert!(error.to_string().contains("bad build"), "{error}");
    }
}

#[tokio::test]
async fn aliases_sboms_and_formats_are_in_the_statement() {
    let bench = Bench::with_keys().await;
    bench.add("r/app/1.0/app.bin", b"1", &[]).await;
    let sbom = br#"{"bomFormat":"CycloneDX","specVersion":"1.6","version":1,
        "metadata":{"component":{"type":"application","name":"app"}},
        "components":[{"type":"library","name":"a"},{"type":"library","name":"b"}]}"#;
    bench.add("r/app/1.0/bom.json", sbom, &[]).await;
    let mut new = new_bundle("app", "1.0", "**");
    new.sboms = vec![Pattern::new("**/bom.json").unwrap()];
    new.aliases = vec![NewAlias {
        repository: parse("r"),
        name: parse("app"),
        alias: "latest".into(),
        target: parse("app/1.0/app.bin"),
    }];
    let record = bench.source.create_bundle(&new).await.unwrap();
    assert_eq!((record.sboms[0].format.as_str(), record.sboms[0].components), ("cyclonedx-1.6+json", 2));
    let statement = bench.source.statement(&parse("app"), &parse("1.0")).await.unwrap();
    assert_eq!(statement.aliases()[0].path.as_str(), "app/latest");
    assert_eq!(statement.sboms().len(), 1);

    new.sboms = vec![Pattern::new("**/app.bin").unwrap()];
    let error = bench.source.create_bundle(&new).await.unwrap_err();
    assert!(error.to_string().contains("neither a CycloneDX nor an SPDX"), "{error}");
    new.sboms = vec![Pattern::new("**/missing").unwrap()];
    let error = bench.source.create_bundle(&new).await.unwrap_err();
    assert!(error.to_string().contains("no artifact of the bundle"), "{error}");
    new.sboms.clear();
    new.aliases[0].target = parse("app/1.0/missing");
    assert_eq!(bench.source.create_bundle(&new).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn damage_in_the_own_store_is_found_before_it_travels() {
    let bench = Bench::with_keys().await;
    bench.add("r/x", b"content", &[]).await;
    let (name, version) = ids("app", "1.0");
    bench.release("app", "1.0", "**").await;
    let digest = distedge::digest::Digest::of(b"content");
    assert!(bench.blobs.damage(&digest, |bytes| bytes[0] ^= 1));
    let error = bench.source.verify_bundle(&name, &version).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupted);
    assert!(error.to_string().contains("r/x"), "{error}");
}

#[tokio::test]
async fn the_envelope_is_the_same_every_time_it_is_asked_for() {
    let bench = Bench::with_keys().await;
    bench.add("r/x", b"1", &[]).await;
    bench.release("app", "1.0", "**").await;
    let envelope = bench.source.envelope(&parse("app"), &parse("1.0")).await.unwrap();
    bench.clock.advance(1000);
    assert_eq!(bench.source.envelope(&parse("app"), &parse("1.0")).await.unwrap(), envelope);
    let parsed = Envelope::parse(&envelope).unwrap();
    assert_eq!(parsed.signatures.len(), 1);
}

#[cfg(feature = "openpgp")]
#[tokio::test]
async fn both_kinds_of_keys_sign_one_bundle() {
    let bench = Bench::with_keys().await;
    bench.add("r/x", b"1", &[]).await;
    bench.create("app", "1.0", "**").await;
    bench.source.create_key(Role::Release, Algorithm::OpenPgp, &NewKey::new("pgp")).await.unwrap();
    bench.clock.advance(1);
    let keys = ["release".to_owned(), "pgp".to_owned()];
    bench.source.sign_bundle(&parse("app"), &parse("1.0"), &keys).await.unwrap();
    bench.source.set_threshold(Role::Release, 2).await.unwrap();
    assert_eq!(bench.source.verify_bundle(&parse("app"), &parse("1.0")).await.unwrap().signers.len(), 2);
}
