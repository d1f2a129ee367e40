//! What other tools verify: the signed bytes, one signature beside them, a sigstore bundle.
//!
//! - `gpg --verify b.pae.asc b.pae`, `sqv`: [`pae_file`] and [`detached_signature`].
//! - `openssl pkeyutl -verify -rawin`: [`pae_file`] and [`raw_signature`].
//! - sigstore libraries: [`sigstore_bundle`].

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::bundle::dsse::{Envelope, Signature};
use crate::error::{Error, ErrorKind, Result};
use crate::key::KeyId;

const ARMOR: &[u8] = b"-----BEGIN PGP SIGNATURE-----";

/// The bytes that the signatures of the envelope are over.
pub fn pae_file(envelope: &Envelope) -> Vec<u8> {
    envelope.pae()
}

/// The armored OpenPGP signature of the envelope, as it is there: by `key`, or the first one.
///
/// # Errors
/// [`ErrorKind::NotFound`] if there is none.
pub fn detached_signature<'a>(envelope: &'a Envelope, key: Option<&KeyId>) -> Result<&'a [u8]> {
    let mut signatures = envelope.signatures.iter().filter(|one| one.sig.starts_with(ARMOR));
    let found = signatures.find(|one| key.is_none_or(|key| one.keyid == key.as_str()));
    found.map(|one| one.sig.as_slice()).ok_or_else(|| missing("an armored OpenPGP signature", key))
}

/// The 64 bytes of an Ed25519 signature of the envelope: by `key`, or the first one.
///
/// # Errors
/// [`ErrorKind::NotFound`] if there is none.
pub fn raw_signature<'a>(envelope: &'a Envelope, key: Option<&KeyId>) -> Result<&'a [u8]> {
    let mut signatures = envelope.signatures.iter().filter(|one| one.sig.len() == 64);
    let found = signatures.find(|one| key.is_none_or(|key| one.keyid == key.as_str()));
    found.map(|one| one.sig.as_slice()).ok_or_else(|| missing("an Ed25519 signature", key))
}

/// A sigstore bundle v0.3 with exactly one signature, the one by `key`: the format refuses two.
///
/// # Errors
/// [`ErrorKind::NotFound`] if `key` did not sign.
pub fn sigstore_bundle(envelope: &Envelope, key: &KeyId) -> Result<Vec<u8>> {
    let found: Option<&Signature> = envelope.signatures.iter().find(|one| one.keyid == key.as_str());
    let signature = found.ok_or_else(|| missing("a signature", Some(key)))?;
    let bundle = json!({
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": { "publicKey": { "hint": key.as_str() } },
        "dsseEnvelope": {
            "payload": STANDARD.encode(&envelope.payload),
            "payloadType": envelope.payload_type,
            "signatures": [{ "sig": STANDARD.encode(&signature.sig), "keyid": signature.keyid }],
        },
    });
    Ok(bundle.to_string().into_bytes())
}

#[cold]
fn missing(what: &str, key: Option<&KeyId>) -> Error {
    let by = key.map(|key| format!(" by the key {key}")).unwrap_or_default();
    Error::new(
        ErrorKind::NotFound,
        format!("the envelope has no {}{by}", what.trim_start_matches("an ").trim_start_matches("a ")),
    )
}
