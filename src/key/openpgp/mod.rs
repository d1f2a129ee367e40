//! OpenPGP signatures under this crate's policy.
//!
//! The library underneath (`pgp`) checks the numbers and has no policy: it accepts MD5, SHA-1,
//! text-mode signatures, and signatures of expired and revoked keys. What is accepted here is
//! what `sqv` of Debian 12 accepts, and less:
//!
//! - one certificate and detached signatures of type Binary (0x00), version 4, over SHA-256,
//!   SHA-384 or SHA-512; no cleartext-signed messages;
//! - keys of version 4: EdDSA on Ed25519 (the legacy form that gpg 2.2 makes), ECDSA on P-256
//!   and P-384, RSA from 2048 bits;
//! - the signature names its key by fingerprint, in the part that it covers;
//! - at the time that the signature states, the key existed, was bound to the certificate by
//!   signatures of that time over accepted hashes (a subkey in both directions), was marked for
//!   signing, was not expired, and was not retired; at no time was it revoked as compromised;
//! - that time lies in the window that the trust document gives the key, and not more than five
//!   minutes ahead; the signature itself has not expired;
//! - nothing critical is left that is not understood; sizes and counts are bounded.
//!
//! A key that expired later does not take back what it signed in time. A later self-signature
//! does not vouch for earlier times either: when a key's expiry is extended, the older
//! self-signatures have to stay in the certificate for its older signatures to stand.

mod certificate;
mod policy;
mod secret;
mod wire;

#[cfg(test)]
mod differential;
#[cfg(test)]
mod forge;
#[cfg(test)]
mod gnupg;
#[cfg(test)]
mod tests;

pub(crate) use secret::SecretCertificate;

use pgp::packet::{Signature, SignatureType};
use pgp::types::Tag;

use self::certificate::Keys;
use self::policy::{Facts, is_allowed_hash, untrusted};
use self::wire::{CERTIFICATE, RawPacket, SIGNATURE, armor, binary, packets};
use super::Acceptance;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};

/// How far ahead of the present a signature's time may be, in seconds.
const MAX_AHEAD: i64 = 5 * 60;

/// One OpenPGP certificate whose self-signatures have been verified.
///
/// Whether a key of it may sign is decided for each signature, at that signature's time.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    keys: Keys,
    /// The packets as they were read.
    bytes: Vec<u8>,
}

impl Certificate {
    /// Reads exactly one certificate, binary or armored, of at most 64 KiB.
    ///
    /// # Errors
    ///
    /// `Invalid` if it cannot be read, `TooLarge`, or `Untrusted` if its primary key is not of an
    /// accepted kind or a self-signature does not verify.
    pub(crate) fn parse(input: &[u8]) -> Result<Certificate> {
        let (keys, bytes) = Keys::parse(input)?;
        Ok(Certificate { keys, bytes })
    }

    /// The primary key's fingerprint: 40 digits of lower-case hex.
    pub(crate) fn fingerprint(&self) -> String {
        self.keys.fingerprint()
    }

    /// The certificate in armor; equal packets give equal text.
    pub(crate) fn to_armored(&self) -> String {
        armor(&self.bytes, CERTIFICATE)
    }

    /// Accepts if `signature`, a detached signature in binary or armor, is one over `message` by
    /// a key of this certificate and all rules of this module hold.
    ///
    /// Of up to four signature packets all have to be of an accepted form, and one has to stand.
    ///
    /// # Errors
    ///
    /// `Untrusted` with the rule that is broken; `Invalid` or `TooLarge` if it cannot be read.
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8], acceptance: &Acceptance) -> Result<()> {
        let bytes = binary(signature, SIGNATURE)?;
        // The form of all is checked before one is judged. sqv 1.1 panics on some forms even
        // beside a good signature, and what it does not accept is not accepted here.
        let signatures: Vec<(Signature, Facts)> =
            packets(&bytes, SIGNATURE)?.iter().map(read_signature).collect::<Result<_>>()?;
        let mut refusal = None;
        for (signature, facts) in &signatures {
            match self.judge(signature, facts, message, acceptance) {
                Ok(()) => return Ok(()),
                Err(why) => refusal = refusal.or(Some(why)),
            }
        }
        Err(refusal.unwrap_or_else(|| SIGNATURE.broken("it holds no packet")))
    }

    fn judge(
        &self,
        signature: &Signature,
        facts: &Facts,
        message: &[u8],
        acceptance: &Acceptance,
    ) -> Result<()> {
        let issuer = facts.issuer.as_deref().unwrap_or_default();
        let component = self.keys.component(issuer).ok_or_else(|| {
            untrusted(format!(
                "the OpenPGP signature is by key {issuer}, which certificate {} does not have",
                self.fingerprint()
            ))
        })?;
        component.check_signature(signature, message)?;

        let at = facts.created;
        self.keys.check_may_sign(component, at)?;
        if at > acceptance.now.plus(MAX_AHEAD) {
            return Err(untrusted(format!(
                "the OpenPGP signature is from the future: made at {at}, and it is {}",
                acceptance.now
            )));
        }
        if facts.is_expired_at(acceptance.now) {
            return Err(untrusted(format!(
                "the OpenPGP signature has expired: it was made at {at} for a limited time"
            )));
        }
        let window = &acceptance.window;
        if at < window.from || window.until.is_some_and(|until| at >= until) {
            return Err(untrusted(format!(
                "the OpenPGP signature was made at {at}, outside the window in which its key is trusted"
            )));
        }
        match &acceptance.revocation {
            Some(revocation) if revocation.compromised => Err(untrusted(format!(
                "the key of the OpenPGP signature is revoked as compromised: {}",
                revocation.reason
            ))),
            Some(revocation) if at >= revocation.at => Err(untrusted(format!(
                "the key of the OpenPGP signature is revoked since {}, and signed at {at}: {}",
                revocation.at, revocation.reason
            ))),
            _ => Ok(()),
        }
    }
}

/// Reads one data signature and refuses every form but the accepted one.
fn read_signature(packet: &RawPacket<'_>) -> Result<(Signature, Facts)> {
    if packet.tag != Tag::Signature {
        return Err(SIGNATURE.broken("a packet in it is not a signature"));
    }
    let signature = Signature::try_from_reader(packet.header, packet.body)
        .map_err(|cause| SIGNATURE.broken("its packet is damaged").with_source(cause))?;
    if !packet.is_canonical(&signature) {
        return Err(SIGNATURE.broken("it is not in the one form that signatures have"));
    }
    let facts = policy::read(&signature, "the OpenPGP signature")?;
    match signature.typ() {
        Some(SignatureType::Binary) => {}
        Some(SignatureType::Text) => {
            return Err(untrusted(
                "the OpenPGP signature is in text mode, which lets line ends change: \
                 only binary signatures are accepted",
            ));
        }
        other => {
            return Err(untrusted(format!(
                "the OpenPGP signature is of type 0x{:02x}: only 0x00 (binary) is accepted",
                other.map_or(0xff, u8::from)
            )));
        }
    }
    match signature.hash_alg() {
        Some(hash) if is_allowed_hash(hash) => {}
        hash => {
            let hash = hash.map_or_else(|| "no hash".to_owned(), |hash| hash.to_string());
            return Err(untrusted(format!(
                "the OpenPGP signature is over {hash}: accepted are SHA-256, SHA-384 and SHA-512"
            )));
        }
    }
    if facts.issuer.is_none() {
        return Err(untrusted("the OpenPGP signature does not name the fingerprint of its key"));
    }
    Ok((signature, facts))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn moment(at: pgp::types::Timestamp) -> Timestamp {
    Timestamp::from_unix(at.as_secs().into())
}

/// The library failed where it had no reason to.
#[cold]
fn internal(cause: pgp::errors::Error) -> Error {
    Error::new(ErrorKind::Internal, format!("OpenPGP: {cause}"))
}
