//! Faults of the envelope and its signatures.

use base64_of::{standard, url_safe};
use distedge::bundle::{Envelope, STATEMENT_PAYLOAD, Signature, TrustDocument, pae, verify};
use distedge::error::ErrorKind;
use distedge::key::{Algorithm, KeySet, Revocation, Signer, SigningKey, Window};

use super::{NOW, ed25519, key_set, seal, statement, trust};

/// Base64 without a dependency: these tests spell envelopes by hand.
mod base64_of {
    fn encode(bytes: &[u8], last: &[u8; 2]) -> String {
        let mut digits: Vec<u8> = (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9').collect();
        digits.extend_from_slice(last);
        let mut text = String::new();
        for group in bytes.chunks(3) {
            let mut word = [0; 4];
            word[1..=group.len()].copy_from_slice(group);
            let word = u32::from_be_bytes(word);
            for at in 0..4 {
                let digit = digits[(word >> (18 - 6 * at) & 63) as usize];
                text.push(if at <= group.len() { digit as char } else { '=' });
            }
        }
        text
    }

    pub(super) fn standard(bytes: &[u8]) -> String {
        encode(bytes, b"+/")
    }

    pub(super) fn url_safe(bytes: &[u8]) -> String {
        encode(bytes, b"-_").trim_end_matches('=').into()
    }
}

/// What [`verify`] says of an envelope, under a trust document with these release keys.
fn judged(envelope: &[u8], release: &KeySet) -> Result<(), ErrorKind> {
    let payload = Envelope::parse(envelope).map(|one| one.payload).unwrap_or_default();
    verify(envelope, &trust(release, release, &payload), NOW).map(|_| ()).map_err(|error| error.kind())
}

fn spelled(payload: &str, signatures: &[(&str, &str)]) -> Vec<u8> {
    let signatures: Vec<_> =
        signatures.iter().map(|(keyid, sig)| serde_json::json!({"keyid": keyid, "sig": sig})).collect();
    serde_json::json!({"payloadType": STATEMENT_PAYLOAD, "payload": payload, "signatures": signatures})
        .to_string()
        .into_bytes()
}

#[test]
fn one_bit_flipped() {
    let key = ed25519();
    let keys = key_set(1, &[(&key, "ops")]);
    let good = Envelope::parse(&seal(&statement().to_payload(), &[&key])).unwrap();
    assert_eq!(judged(&good.to_json(), &keys), Ok(()));
    for bit in 0..good.payload.len() * 8 {
        let mut payload = good.payload.to_vec();
        payload[bit / 8] ^= 1 << (bit % 8);
        let bad = Envelope { payload: payload.into(), ..good.clone() };
        assert_eq!(judged(&bad.to_json(), &keys), Err(ErrorKind::Untrusted), "bit {bit} of the payload");
    }
    for bit in 0..512 {
        let mut bad = good.clone();
        bad.signatures[0].sig[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(judged(&bad.to_json(), &keys), Err(ErrorKind::Untrusted), "bit {bit} of the signature");
    }
    for bit in 0..good.payload_type.len() * 8 {
        let mut kind = good.payload_type.clone().into_bytes();
        kind[bit / 8] ^= 1 << (bit % 8);
        let Ok(payload_type) = String::from_utf8(kind) else { continue };
        let bad = Envelope { payload_type, ..good.clone() };
        assert!(judged(&bad.to_json(), &keys).is_err(), "bit {bit} of the payload type");
    }
}

/// The same bytes to sign, with the border between type and body moved.
#[test]
fn payload_type_changed_under_the_same_signature() {
    let key = ed25519();
    let keys = key_set(1, &[(&key, "ops")]);
    let good = Envelope::parse(&seal(&statement().to_payload(), &[&key])).unwrap();
    for other in ["application/json", "application/vnd.in-toto+json ", "application/vnd.in-TOTO+json", ""] {
        let bad = Envelope { payload_type: other.into(), ..good.clone() };
        assert!(judged(&bad.to_json(), &keys).is_err(), "{other:?}");
        assert!(bad.verify(&keys, NOW).is_err(), "{other:?}");
    }
    let body = b"7 application/x 5 hello";
    let moved = Envelope {
        payload_type: "t".into(),
        payload: body.to_vec().into(),
        signatures: vec![Signature {
            keyid: String::new(),
            sig: key.sign(&pae("t 23 7", b"application/x 5 hello"), NOW).unwrap(),
        }],
    };
    assert_eq!(moved.verify(&keys, NOW).unwrap_err().kind(), ErrorKind::Untrusted);
}

#[test]
fn threshold_counts_owners() {
    let (a, b, c) = (ed25519(), ed25519(), ed25519());
    let payload = statement().to_payload();
    let keys = key_set(2, &[(&a, "ops"), (&b, "ops"), (&c, "security")]);
    assert_eq!(judged(&seal(&payload, &[&a]), &keys), Err(ErrorKind::Untrusted));
    // Two keys of one owner are one owner.
    assert_eq!(judged(&seal(&payload, &[&a, &b]), &keys), Err(ErrorKind::Untrusted));
    assert_eq!(judged(&seal(&payload, &[&a, &c]), &keys), Ok(()));
    assert_eq!(judged(&seal(&payload, &[&c, &b]), &keys), Ok(()));

    let sig = a.sign(&pae(STATEMENT_PAYLOAD, &payload), NOW).unwrap();
    let (id, other) = (a.public_key().id().to_string(), c.public_key().id().to_string());
    for twice in [
        [(id.as_str(), standard(&sig)), (id.as_str(), standard(&sig))],
        [(id.as_str(), standard(&sig)), (id.as_str(), url_safe(&sig))],
        [(id.as_str(), standard(&sig)), (other.as_str(), standard(&sig))],
        [(id.as_str(), standard(&sig)), ("", url_safe(&sig))],
    ] {
        let signatures: Vec<_> = twice.iter().map(|(keyid, sig)| (*keyid, sig.as_str())).collect();
        let envelope = spelled(&standard(&payload), &signatures);
        assert_eq!(judged(&envelope, &keys), Err(ErrorKind::Untrusted), "{signatures:?}");
        let one = KeySet { threshold: 1, ..keys.clone() };
        assert_eq!(judged(&envelope, &one), Ok(()));
    }
    // Sixteen copies are one signature.
    let sixteen = vec![(id.as_str(), standard(&sig)); 16];
    let sixteen: Vec<_> = sixteen.iter().map(|(keyid, sig)| (*keyid, sig.as_str())).collect();
    assert_eq!(judged(&spelled(&standard(&payload), &sixteen), &keys), Err(ErrorKind::Untrusted));
}

#[test]
fn key_sets_that_cannot_be_used() {
    let (a, b) = (ed25519(), ed25519());
    let good = key_set(1, &[(&a, "ops"), (&b, "security")]);
    let broken = |change: fn(&mut KeySet)| {
        let mut set = good.clone();
        change(&mut set);
        set.check().unwrap_err().kind()
    };
    assert_eq!(broken(|set| set.threshold = 0), ErrorKind::Invalid);
    assert_eq!(broken(|set| set.threshold = 3), ErrorKind::Invalid);
    assert_eq!(broken(|set| set.keys.clear()), ErrorKind::Invalid);
    assert_eq!(broken(|set| set.keys[1].owner = "".into()), ErrorKind::Invalid);
    assert_eq!(broken(|set| set.keys[1].alias = set.keys[0].alias.clone()), ErrorKind::Invalid);
    // Equal key material under two owners would count twice.
    assert_eq!(broken(|set| set.keys[1].key = set.keys[0].key.clone()), ErrorKind::Invalid);
    let many: Vec<_> = (0..33).map(|_| ed25519()).collect();
    let many: Vec<_> = many.iter().map(|key| (key, "ops")).collect();
    assert!(std::panic::catch_unwind(|| key_set(1, &many)).is_err());
    // A set that was not checked is checked before it is used.
    let unchecked = KeySet { threshold: 0, keys: good.keys.clone() };
    assert_eq!(judged(&seal(&statement().to_payload(), &[&a]), &unchecked), Err(ErrorKind::Invalid));
}

#[test]
fn key_id_is_a_hint_only() {
    let (ours, theirs) = (ed25519(), ed25519());
    let payload = statement().to_payload();
    let keys = key_set(1, &[(&ours, "ops")]);
    let message = pae(STATEMENT_PAYLOAD, &payload);
    let (good, bad) = (ours.sign(&message, NOW).unwrap(), theirs.sign(&message, NOW).unwrap());
    let id = ours.public_key().id().to_string();
    let with =
        |keyid: &str, sig: &[u8]| judged(&spelled(&standard(&payload), &[(keyid, &standard(sig))]), &keys);
    assert_eq!(with(&id, &bad), Err(ErrorKind::Untrusted));
    assert_eq!(with("", &good), Ok(()));
    assert_eq!(with("whatever", &good), Ok(()));
    assert_eq!(with(&theirs.public_key().id().to_string(), &good), Ok(()));
    assert_eq!(with(&theirs.public_key().id().to_string(), &bad), Err(ErrorKind::Untrusted));
    for length in [0, 1, 63, 65, 128] {
        assert_eq!(with(&id, &vec![0; length]), Err(ErrorKind::Untrusted), "{length} bytes");
    }
    // A signature nobody knows does no harm beside a good one.
    let both = spelled(&standard(&payload), &[("x", &standard(&bad)), (&id, &standard(&good))]);
    assert_eq!(judged(&both, &keys), Ok(()));
}

/// Without key ids every key would have to be tried over the whole payload.
#[test]
fn signatures_without_key_ids_do_not_cost_without_end() {
    let keys: Vec<_> = (0..32).map(|_| ed25519()).collect();
    let names: Vec<_> = (0..32).map(|at| format!("owner-{at}")).collect();
    let keys: Vec<_> = keys.iter().zip(names.iter().map(String::as_str)).collect();
    let set = key_set(1, &keys);
    let envelope = Envelope {
        payload_type: STATEMENT_PAYLOAD.into(),
        payload: vec![b' '; 20 << 20].into(),
        signatures: vec![Signature { keyid: String::new(), sig: vec![7; 64] }; 16],
    };
    let error = envelope.verify(&set, NOW).unwrap_err();
    assert!(error.message().contains("would cost too much"), "{error}");
}

#[test]
fn good_signature_on_another_kind_of_message() {
    let key = ed25519();
    let keys = key_set(1, &[(&key, "ops")]);
    let text = String::from_utf8(statement().to_payload()).unwrap();
    for (from, to) in [
        ("urn:distedge:release-bundle:v1", "https://slsa.dev/provenance/v1"),
        ("https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"),
    ] {
        let envelope = seal(text.replace(from, to).as_bytes(), &[&key]);
        assert_eq!(judged(&envelope, &keys), Err(ErrorKind::Unsupported), "{to}");
        // The signatures are judged first: a stranger learns nothing about what is supported.
        let stranger = seal(text.replace(from, to).as_bytes(), &[&ed25519()]);
        assert_eq!(judged(&stranger, &keys), Err(ErrorKind::Untrusted), "{to}");
    }
    for kind in
        ["application/vnd.distedge.trust+json", "application/vnd.distedge.receipt+json", "edge-req/v1"]
    {
        let other = Envelope::seal(kind, text.clone(), &[&key], NOW).unwrap().to_json();
        assert_eq!(judged(&other, &keys), Err(ErrorKind::Unsupported), "{kind}");
    }
    // The raw payload, and the payload under another type's encoding.
    for message in [text.clone().into_bytes(), pae("application/vnd.distedge.trust+json", text.as_bytes())] {
        let sig = standard(&key.sign(&message, NOW).unwrap());
        let envelope = spelled(&standard(text.as_bytes()), &[("", &sig)]);
        assert_eq!(judged(&envelope, &keys), Err(ErrorKind::Untrusted));
    }
}

#[test]
fn bundle_of_another_tenant() {
    let key = ed25519();
    let keys = key_set(1, &[(&key, "ops")]);
    let payload = statement().to_payload();
    let envelope = seal(&payload, &[&key]);
    let globex = TrustDocument { tenant: "globex".parse().unwrap(), ..trust(&keys, &keys, &payload) };
    let error = verify(&envelope, &globex, NOW).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Untrusted);
    assert_eq!(
        error.message(),
        "the bundle shop 1.4.0 belongs to the tenant acme, the trust document is of globex"
    );
}

#[test]
fn keys_outside_their_window_or_revoked() {
    let key = ed25519();
    let envelope = seal(&statement().to_payload(), &[&key]);
    let with = |window: Window, revocation: Option<Revocation>| {
        let mut keys = key_set(1, &[(&key, "ops")]);
        keys.keys[0].window = window;
        keys.keys[0].revocation = revocation;
        judged(&envelope, &keys)
    };
    let revoked = |at, compromised| Some(Revocation { at, reason: "lost".into(), compromised });
    assert_eq!(with(Window { from: NOW, until: Some(NOW.plus(1)) }, None), Ok(()));
    assert_eq!(with(Window { from: NOW.plus(1), until: None }, None), Err(ErrorKind::Untrusted));
    assert_eq!(with(Window { from: NOW.plus(-9), until: Some(NOW) }, None), Err(ErrorKind::Untrusted));
    assert_eq!(with(Window::ALWAYS, revoked(NOW, false)), Err(ErrorKind::Untrusted));
    assert_eq!(with(Window::ALWAYS, revoked(NOW.plus(1), false)), Ok(()));
    assert_eq!(with(Window::ALWAYS, revoked(NOW.plus(1), true)), Err(ErrorKind::Untrusted));
}

#[cfg(feature = "openpgp")]
mod openpgp {
    use super::*;

    fn openpgp() -> SigningKey {
        SigningKey::generate(Algorithm::OpenPgp, "Release <release@example.org>", NOW.plus(-60)).unwrap()
    }

    #[test]
    fn both_kinds_of_keys_make_a_threshold() {
        let (a, b) = (ed25519(), openpgp());
        let payload = statement().to_payload();
        let keys = key_set(2, &[(&a, "ops"), (&b, "security")]);
        let envelope = seal(&payload, &[&a, &b]);
        let verified = verify(&envelope, &trust(&keys, &keys, &payload), NOW).unwrap();
        assert_eq!(verified.signers().len(), 2);
        assert_eq!(judged(&seal(&payload, &[&b]), &keys), Err(ErrorKind::Untrusted));
        // Their certificate travels as text.
        let text = serde_json::to_string(&keys).unwrap();
        let again: KeySet = serde_json::from_str(&text).unwrap();
        assert_eq!(again, keys);
        assert_eq!(judged(&envelope, &again), Ok(()));
        assert_eq!(b.public_key().id().as_str().len(), 40);
        let copy = SigningKey::from_secret(&b.to_secret()).unwrap();
        assert_eq!(judged(&seal(&payload, &[&a, &copy]), &keys), Ok(()));
    }

    #[test]
    fn revoked_openpgp_keys_count_by_the_time_of_signing() {
        let key = openpgp();
        let envelope = seal(&statement().to_payload(), &[&key]);
        let with = |revocation| {
            let mut keys = key_set(1, &[(&key, "ops")]);
            keys.keys[0].revocation = Some(revocation);
            judged(&envelope, &keys)
        };
        let revoked = |at, compromised| Revocation { at, reason: "left".into(), compromised };
        assert_eq!(with(revoked(NOW.plus(1), false)), Ok(()));
        assert_eq!(with(revoked(NOW, false)), Err(ErrorKind::Untrusted));
        assert_eq!(with(revoked(NOW.plus(1), true)), Err(ErrorKind::Untrusted));
    }

    /// A Release Bundle v2 in the shape that JFrog documents: interoperation, not acceptance.
    #[test]
    fn jfrog_envelope_verifies_and_is_unsupported() {
        let key = openpgp();
        let keys = key_set(1, &[(&key, "ops")]);
        let payload = br#"{"_type":"https://in-toto.io/Statement/v1",
            "subject":[{"digest":{"sha256":"a1b2"},"name":"a/b.jar"}],
            "predicateType":"https://jfrog.com/evidence/release-bundle/v1",
            "predicate":{"timestamp":"2026-11-22T05:00:00.123Z","score":0.5},
            "createdAt":"2026-11-22T05:00:00.123Z","createdBy":"admin","markdown":"IyBo"}"#;
        let sig = key.sign(&pae(STATEMENT_PAYLOAD, payload), NOW).unwrap();
        assert!(sig.starts_with(b"-----BEGIN PGP SIGNATURE-----"));
        let envelope = spelled(&standard(payload), &[("release-key", &standard(&sig))]);
        assert!(Envelope::parse(&envelope).unwrap().verify(&keys, NOW).is_ok());
        assert_eq!(judged(&envelope, &keys), Err(ErrorKind::Unsupported));
    }
}
