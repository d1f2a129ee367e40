//! Ed25519 keys: text, PEM and TUF forms; strict verification.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::Signer as _;
use zeroize::Zeroizing;

use crate::digest::{decode_hex, to_hex};
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

/// Length of a signature, in bytes.
pub(super) const SIGNATURE: usize = 64;

/// SubjectPublicKeyInfo up to the key's bytes (RFC 8410 section 4).
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// PrivateKeyInfo, version 1, up to the seed's bytes (RFC 8410 section 7).
const PKCS8: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// A public key that is safe to verify with.
#[derive(Clone)]
pub(super) struct Verifier(ed25519_dalek::VerifyingKey);

impl Verifier {
    pub(super) fn new(bytes: [u8; 32]) -> Result<Verifier> {
        // RFC 8032 section 5.1.3: the y-coordinate is below p = 2^255 - 19.
        let canonical =
            bytes[0] < 0xed || bytes[31] & 0x7f != 0x7f || bytes[1..31].iter().any(|byte| *byte != 0xff);
        let key = ed25519_dalek::VerifyingKey::from_bytes(&bytes).ok().filter(|_| canonical);
        let key = key.ok_or_else(|| Error::invalid("these 32 bytes are not an Ed25519 public key"))?;
        if key.is_weak() {
            return Err(Error::invalid("this Ed25519 public key has small order and would accept forgeries"));
        }
        Ok(Verifier(key))
    }

    pub(super) fn from_hex(hex: &str) -> Result<Verifier> {
        let mut bytes = [0; 32];
        decode_hex(hex, &mut bytes).ok_or_else(|| {
            Error::invalid("an Ed25519 public key is \"ed25519:\" and 64 lower-case hex digits")
        })?;
        Verifier::new(bytes)
    }

    pub(super) fn from_pem(text: &str) -> Result<Verifier> {
        let der = pem_body(text, "PUBLIC KEY")
            .ok_or_else(|| Error::invalid("the PEM \"PUBLIC KEY\" block is damaged"))?;
        let key = der.strip_prefix(&SPKI).and_then(|key| <[u8; 32]>::try_from(key).ok());
        Verifier::new(key.ok_or_else(|| Error::invalid("the PEM \"PUBLIC KEY\" is not an Ed25519 key"))?)
    }

    pub(super) fn to_text(&self) -> String {
        format!("ed25519:{}", to_hex(self.0.as_bytes()))
    }

    pub(super) fn to_pem(&self) -> String {
        pem("PUBLIC KEY", &[&SPKI[..], self.0.as_bytes()].concat())
    }

    /// TUF 1.0 section 4.2: the id of a key is the hexdigest of the SHA-256 of its canonical form.
    pub(super) fn id(&self) -> String {
        let object = format!(
            r#"{{"keytype":"ed25519","keyval":{{"public":"{}"}},"scheme":"ed25519"}}"#,
            to_hex(self.0.as_bytes())
        );
        crate::digest::Digest::of(object.as_bytes()).to_hex()
    }

    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<()> {
        let signature = <[u8; SIGNATURE]>::try_from(signature).map_err(|_| {
            refused(format!("an Ed25519 signature has {SIGNATURE} bytes, this one has {}", signature.len()))
        })?;
        let signature = ed25519_dalek::Signature::from_bytes(&signature);
        self.0
            .verify_strict(message, &signature)
            .map_err(|_| refused("the Ed25519 signature is not this key's over these bytes".into()))
    }
}

/// A key pair.
pub(super) struct Pair(ed25519_dalek::SigningKey);

impl Pair {
    pub(super) fn generate() -> Result<Pair> {
        Pair::from_seed(Secret::random(32)?.expose())
    }

    pub(super) fn from_pem(text: &str) -> Result<Pair> {
        let der = Zeroizing::new(
            pem_body(text, "PRIVATE KEY")
                .ok_or_else(|| Error::invalid("the PEM \"PRIVATE KEY\" block is damaged"))?,
        );
        let seed = der
            .strip_prefix(&PKCS8)
            .ok_or_else(|| Error::invalid("the PEM \"PRIVATE KEY\" is not an Ed25519 key"))?;
        Pair::from_seed(seed)
    }

    fn from_seed(seed: &[u8]) -> Result<Pair> {
        let seed = Zeroizing::new(
            <[u8; 32]>::try_from(seed).map_err(|_| Error::invalid("an Ed25519 seed has 32 bytes"))?,
        );
        Ok(Pair(ed25519_dalek::SigningKey::from_bytes(&seed)))
    }

    pub(super) fn to_pem(&self) -> Secret {
        let mut der = Zeroizing::new(PKCS8.to_vec());
        der.extend_from_slice(self.0.as_bytes());
        Secret::new(pem("PRIVATE KEY", &der))
    }

    pub(super) fn verifier(&self) -> Verifier {
        Verifier(self.0.verifying_key())
    }

    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).to_bytes().to_vec()
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    // Both structures have at most 64 characters of base64, one line of RFC 7468.
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

fn pem_body(text: &str, label: &str) -> Option<Vec<u8>> {
    let rest = text.trim().strip_prefix(&format!("-----BEGIN {label}-----"))?;
    let body = rest.strip_suffix(&format!("-----END {label}-----"))?;
    let body: Zeroizing<String> = Zeroizing::new(body.chars().filter(|c| !c.is_ascii_whitespace()).collect());
    STANDARD.decode(body.as_bytes()).ok()
}

#[cold]
fn refused(message: String) -> Error {
    Error::new(ErrorKind::Untrusted, message)
}
