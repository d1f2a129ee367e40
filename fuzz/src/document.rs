//! Oracles of the signed documents: envelope, statement, trust document, receipt.

use std::sync::OnceLock;

use distedge::bundle::{
    Anchor, Envelope, RECEIPT_PAYLOAD, Receipt, STATEMENT_PAYLOAD, Signature, Statement, TRUST_PAYLOAD,
    TrustDocument,
};
use distedge::clock::Timestamp;
use distedge::key::{KeySet, PublicKey, Signer as _, SigningKey, TrustedKey};
use distedge::secret::Secret;

use super::json;

/// The one payload that [`signing_key`] signs as a statement, in the seeds of `envelope`.
pub const SIGNED_PAYLOAD: &[u8] = b"{\"what\":\"the one payload that is signed\"}";

/// Later than everything in the seeds.
const NOW: Timestamp = Timestamp::from_unix(1_900_000_000);

/// A key whose secret everybody may know.
pub fn signing_key() -> &'static SigningKey {
    static KEY: OnceLock<SigningKey> = OnceLock::new();
    KEY.get_or_init(|| {
        // RFC 8410 PKCS #8 around 32 bytes of 7.
        let pem = "-----BEGIN PRIVATE KEY-----\n\
                   MC4CAQAwBQYDK2VwBCIEIAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH\n\
                   -----END PRIVATE KEY-----\n";
        SigningKey::from_secret(&Secret::new(pem)).unwrap()
    })
}

fn key_set() -> &'static KeySet {
    static SET: OnceLock<KeySet> = OnceLock::new();
    SET.get_or_init(|| {
        KeySet::new(1, vec![TrustedKey::new(signing_key().public_key(), "everybody", "fuzz")]).unwrap()
    })
}

/// An envelope: the bytes that are verified are the bytes that are read, and none other verify.
pub fn envelope(data: &[u8]) -> bool {
    let Ok(envelope) = Envelope::parse(data) else { return false };
    let shown = String::from_utf8_lossy(data);
    assert!(json::members(data).is_some(), "not strict JSON: {shown}");
    let plain: serde_json::Value = serde_json::from_slice(data).unwrap();
    assert_eq!(plain["payloadType"], envelope.payload_type, "{shown}");
    assert_eq!(base64(plain["payload"].as_str().unwrap()), envelope.payload, "{shown}");
    for (at, signature) in envelope.signatures.iter().enumerate() {
        assert_eq!(base64(plain["signatures"][at]["sig"].as_str().unwrap()), signature.sig, "{shown}");
    }
    assert_eq!(
        unpae(&envelope.pae()),
        Some((envelope.payload_type.as_bytes(), &envelope.payload[..])),
        "{shown}"
    );
    assert_eq!(Envelope::parse(&envelope.to_json()).unwrap(), envelope, "{shown}");
    if envelope.verify(key_set(), NOW).is_ok() {
        assert_eq!(envelope.payload, SIGNED_PAYLOAD, "forged: {shown}");
        assert_eq!(envelope.payload_type, STATEMENT_PAYLOAD, "forged: {shown}");
    }
    true
}

/// Base64 in either alphabet, read without any strictness.
fn base64(text: &str) -> Vec<u8> {
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => panic!("{text:?} is not base64"),
        };
        (bits, count) = ((bits << 6 | u32::from(value)) & 0xffff, count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}

/// Takes a pre-authentication encoding apart.
fn unpae(pae: &[u8]) -> Option<(&[u8], &[u8])> {
    let counted = |bytes| -> Option<(&[u8], &[u8])> {
        let bytes: &[u8] = bytes;
        let space = bytes.iter().position(|byte| *byte == b' ')?;
        let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
        bytes[space + 1..].split_at_checked(length)
    };
    let (kind, rest) = counted(pae.strip_prefix(b"DSSEv1 ")?)?;
    let (body, rest) = counted(rest.strip_prefix(b" ")?)?;
    rest.is_empty().then_some((kind, body))
}

/// The payload of a bundle: what is accepted is written so that it is accepted and equal.
pub fn statement(data: &[u8]) -> bool {
    let Ok(statement) = Statement::parse(data) else { return false };
    let shown = String::from_utf8_lossy(data);
    assert!(json::members(data).is_some(), "not strict JSON: {shown}");
    let written = statement.to_payload();
    let again = Statement::parse(&written).unwrap_or_else(|error| panic!("{error}: {shown}"));
    assert_eq!(again, statement, "{shown}");
    assert_eq!(again.to_payload(), written, "{shown}");
    assert_eq!(again.root(), statement.root());
    let items = statement.items();
    let total: u64 = items.iter().map(|item| item.size).sum();
    assert_eq!(statement.total_bytes(), total, "{shown}");
    assert!(items.windows(2).all(|pair| pair[0].name() < pair[1].name()), "unsorted: {shown}");
    for item in items {
        assert_eq!(statement.item(&item.repository, &item.path), Some(item), "{shown}");
    }
    true
}

/// The payload of a trust document: as [`statement`]; and without a signature nothing is in force.
pub fn trust(data: &[u8]) -> bool {
    let unsigned = Signature { keyid: signing_key().public_key().id().to_string(), sig: vec![0; 64] };
    let envelope = Envelope {
        payload_type: TRUST_PAYLOAD.to_owned(),
        payload: data.to_vec().into(),
        signatures: vec![unsigned],
    };
    let bytes = envelope.to_json();
    let Ok(document) = TrustDocument::parse_unverified(&bytes) else { return false };
    assert!(TrustDocument::accept(&bytes, Anchor::Pinned(key_set()), &document.tenant, NOW).is_err());
    let shown = String::from_utf8_lossy(data);
    let written = document.to_payload();
    let again = Envelope { payload: written.clone().into(), ..envelope }.to_json();
    let again = TrustDocument::parse_unverified(&again).unwrap_or_else(|error| panic!("{error}: {shown}"));
    assert_eq!(again, document, "{shown}");
    assert_eq!(again.to_payload(), written, "{shown}");
    for edge in &document.edges {
        for assignment in document.assigned(&edge.name) {
            assert!(document.withdrawal(&assignment.bundle, &assignment.version).is_none(), "{shown}");
        }
    }
    // The root keys that a document names make it theirs: its own say is not enough.
    let sealed = document.seal(&[signing_key()], NOW).unwrap().to_json();
    if let Ok(accepted) = TrustDocument::accept(&sealed, Anchor::Pinned(key_set()), &document.tenant, NOW) {
        assert_eq!(accepted, document, "{shown}");
        assert!(document.expires > NOW, "{shown}");
        let own = document.root.keys.iter().any(|one| one.key == signing_key().public_key());
        assert!(own && document.root.threshold == 1, "{shown}");
    }
    true
}

/// The payload of a receipt: as [`statement`]; and only the edge's own key makes it one.
pub fn receipt(data: &[u8]) -> bool {
    let envelope = Envelope::seal(RECEIPT_PAYLOAD, data.to_vec(), &[signing_key()], NOW).unwrap().to_json();
    let key = signing_key().public_key();
    let Ok(receipt) = Receipt::verify(&envelope, &key, NOW) else { return false };
    let shown = String::from_utf8_lossy(data);
    let stranger = PublicKey::from_ed25519([
        0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07, 0x3a, 0x0e,
        0xe1, 0x72, 0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a,
    ]);
    assert!(Receipt::verify(&envelope, &stranger.unwrap(), NOW).is_err());
    let again = receipt.seal(signing_key(), NOW).unwrap().to_json();
    assert_eq!(Receipt::verify(&again, &key, NOW).unwrap(), receipt, "{shown}");
    true
}
