//! What this crate accepts of OpenPGP, whatever the library underneath would: hashes, key
//! algorithms, and what a signature may and must say about itself.

use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType, SignatureVersion, Subpacket, SubpacketData};
use pgp::ser::Serialize;
use pgp::types::{EcdsaPublicParams, EddsaLegacyPublicParams, KeyDetails, KeyVersion, PublicParams};

use super::hex;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};

/// The fewest bits of an RSA modulus.
const MIN_RSA_BITS: u16 = 2048;

#[cold]
pub(super) fn untrusted(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Untrusted, message.into())
}

/// Whether signatures may be made over this hash. sqv 1.1 knows no SHA-3.
pub(super) fn is_allowed_hash(hash: HashAlgorithm) -> bool {
    matches!(hash, HashAlgorithm::Sha256 | HashAlgorithm::Sha384 | HashAlgorithm::Sha512)
}

/// Refuses a key whose version, algorithm or size is not on the list.
pub(super) fn check_key(key: &impl KeyDetails) -> Result<()> {
    let refused = |why: String| untrusted(format!("the OpenPGP key {} {why}", name_of(key)));
    if key.version() != KeyVersion::V4 {
        return Err(refused(format!(
            "is of version {}: only version 4 is accepted",
            u8::from(key.version())
        )));
    }
    match key.public_params() {
        PublicParams::RSA(rsa) => {
            let mut bytes = Vec::new();
            rsa.to_writer(&mut bytes).map_err(super::internal)?;
            // The modulus comes first; a number leads with its length in bits (RFC 9580 section 3.2).
            let bits = bytes.first_chunk().map_or(0, |bits| u16::from_be_bytes(*bits));
            if bits < MIN_RSA_BITS {
                return Err(refused(format!("is RSA with {bits} bits: at least {MIN_RSA_BITS} are needed")));
            }
            Ok(())
        }
        PublicParams::EdDSALegacy(EddsaLegacyPublicParams::Ed25519 { key }) => {
            if key.is_weak() {
                return Err(refused("is a point of small order: anybody can sign with it".into()));
            }
            Ok(())
        }
        PublicParams::ECDSA(EcdsaPublicParams::P256 { .. } | EcdsaPublicParams::P384 { .. }) => Ok(()),
        _ => Err(refused(format!(
            "uses {:?}: accepted are EdDSA (version 4, Ed25519), ECDSA on P-256 and P-384, and RSA from {MIN_RSA_BITS} bits",
            key.algorithm()
        ))),
    }
}

/// The last 16 digits of the fingerprint, as gpg shows keys.
pub(super) fn name_of(key: &impl KeyDetails) -> String {
    let fingerprint = hex(key.fingerprint().as_bytes());
    fingerprint[fingerprint.len().saturating_sub(16)..].to_ascii_uppercase()
}

/// What one signature says about itself, read from the part that it covers.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub created: Timestamp,
    /// When the signature stops counting.
    pub expires: Option<Timestamp>,
    /// How long the key that it speaks about lives, in seconds; 0 stands for ever.
    pub key_lifetime: Option<u32>,
    /// Whether it says that the key may sign data; `None` if it says nothing of what the key may.
    pub may_sign: Option<bool>,
    /// The code of a revocation's reason.
    pub reason: Option<u8>,
    /// The issuer's fingerprint.
    pub issuer: Option<String>,
    /// A primary key binding, from either part: it stands for itself.
    pub back_signature: Option<Signature>,
}

impl Facts {
    pub(super) fn is_expired_at(&self, at: Timestamp) -> bool {
        self.expires.is_some_and(|end| at >= end)
    }
}

/// Reads `signature`, called `what` in sentences.
///
/// Refused are versions other than 4, critical parts that are not understood, and parts said
/// twice: readers differ in which of the two they believe.
pub(super) fn read(signature: &Signature, what: &str) -> Result<Facts> {
    let config = match signature.config() {
        Some(config) if signature.version() == SignatureVersion::V4 => config,
        _ => {
            return Err(untrusted(format!(
                "{what} is of version {}: only version 4 is accepted",
                u8::from(signature.version())
            )));
        }
    };

    let mut created = None;
    let mut expires = None;
    let mut key_lifetime = None;
    let mut may_sign = None;
    let mut reason = None;
    let mut issuer = None;
    let mut back_signature = None;
    for subpacket in config.hashed_subpackets() {
        check_critical(subpacket, config.typ(), what)?;
        match &subpacket.data {
            SubpacketData::SignatureCreationTime(at) => {
                once(&mut created, at.as_secs(), what, "its creation time")?;
            }
            SubpacketData::SignatureExpirationTime(after) => {
                once(&mut expires, after.as_secs(), what, "its expiration")?;
            }
            SubpacketData::KeyExpirationTime(after) => {
                once(&mut key_lifetime, after.as_secs(), what, "the key's expiration")?;
            }
            SubpacketData::KeyFlags(flags) => once(&mut may_sign, flags.sign(), what, "the key's flags")?,
            SubpacketData::RevocationReason(code, _) => {
                once(&mut reason, u8::from(*code), what, "the reason")?;
            }
            SubpacketData::IssuerFingerprint(fingerprint) => {
                once(&mut issuer, hex(fingerprint.as_bytes()), what, "its issuer")?;
            }
            SubpacketData::EmbeddedSignature(inner) => {
                once(&mut back_signature, (**inner).clone(), what, "a signature inside")?;
            }
            _ => {}
        }
    }
    for subpacket in config.unhashed_subpackets() {
        check_critical(subpacket, config.typ(), what)?;
        if let SubpacketData::EmbeddedSignature(inner) = &subpacket.data {
            once(&mut back_signature, (**inner).clone(), what, "a signature inside")?;
        }
    }

    let created = created.ok_or_else(|| untrusted(format!("{what} does not say when it was made")))?;
    let created = Timestamp::from_unix(created.into());
    let expires = match expires {
        None | Some(0) => None,
        Some(after) => Some(created.plus(after.into())),
    };
    Ok(Facts { created, expires, key_lifetime, may_sign, reason, issuer, back_signature })
}

fn once<T>(slot: &mut Option<T>, value: T, what: &str, part: &str) -> Result<()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(untrusted(format!("{what} states {part} twice"))),
    }
}

/// "If a subpacket is encountered that is marked critical but is unknown to the evaluating
/// implementation, the evaluator SHOULD consider the signature to be in error" (RFC 9580
/// section 5.2.3.7). Known is what this policy acts on, or what cannot make a signature say less.
fn check_critical(subpacket: &Subpacket, typ: SignatureType, what: &str) -> Result<()> {
    if !subpacket.is_critical {
        return Ok(());
    }
    let known = match &subpacket.data {
        SubpacketData::SignatureCreationTime(_)
        | SubpacketData::SignatureExpirationTime(_)
        | SubpacketData::IssuerKeyId(_)
        | SubpacketData::IssuerFingerprint(_)
        | SubpacketData::EmbeddedSignature(_) => true,
        SubpacketData::KeyExpirationTime(_)
        | SubpacketData::KeyFlags(_)
        | SubpacketData::RevocationReason(..)
        | SubpacketData::IsPrimary(_)
        | SubpacketData::Features(_)
        | SubpacketData::PreferredSymmetricAlgorithms(_)
        | SubpacketData::PreferredHashAlgorithms(_)
        | SubpacketData::PreferredCompressionAlgorithms(_)
        | SubpacketData::KeyServerPreferences(_) => typ != SignatureType::Binary,
        _ => false,
    };
    if known {
        return Ok(());
    }
    Err(match &subpacket.data {
        SubpacketData::Notation(notation) => {
            let name: String = String::from_utf8_lossy(&notation.name).chars().take(60).collect();
            untrusted(format!("{what} carries the critical notation {name:?}, which is not understood"))
        }
        _ => untrusted(format!(
            "{what} carries a critical subpacket of type {}, which is not understood",
            subpacket.typ().as_u8(false)
        )),
    })
}
