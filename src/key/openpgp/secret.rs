//! Signing with an OpenPGP key that this crate holds.
//!
//! RSA keys are not signed with: the `rsa` crate underneath leaks timing with every private-key
//! operation (RUSTSEC-2023-0071, "Marvin"). Let gpg sign and bring the detached signature.

use std::fmt;

use pgp::composed::KeyType;
use pgp::crypto::hash::HashAlgorithm;
use pgp::crypto::public_key::PublicKeyAlgorithm;
use pgp::packet::{
    KeyFlags, PubKeyInner, PublicKey, SecretKey, SecretSubkey, SignatureConfig, SignatureType, Subpacket,
    SubpacketData, UserId,
};
use pgp::types::{
    EcdsaPublicParams, KeyDetails, KeyVersion, PacketHeaderVersion, Password, PublicParams, SigningKey, Tag,
};
use pgp_rand::rngs::OsRng;

use super::certificate::{Component, Keys};
use super::wire::{SECRET, SIGNATURE, armor, binary, packets, write_packet};
use super::{Certificate, hex, internal};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

/// The most bytes of a user id.
const MAX_USER_ID: usize = 256;

/// A certificate together with secret keys of it.
#[derive(Clone)]
pub(crate) struct SecretCertificate {
    /// The packets as they were read or made.
    packets: Secret,
    certificate: Certificate,
    /// The keys that may be tried for signing, best first.
    signers: Vec<SigningPart>,
}

#[derive(Clone)]
enum SigningPart {
    Primary(SecretKey),
    Subkey(SecretSubkey),
}

impl SigningPart {
    fn fingerprint(&self) -> String {
        hex(match self {
            SigningPart::Primary(key) => key.fingerprint(),
            SigningPart::Subkey(key) => key.fingerprint(),
        }
        .as_bytes())
    }
}

impl fmt::Debug for SecretCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SecretCertificate").field(&self.certificate.fingerprint()).finish()
    }
}

impl SecretCertificate {
    /// A new version 4 Ed25519 key whose primary part signs, which gpg 2.2 reads.
    ///
    /// `user_id` is what gpg shows, like `Acme releases <releases@acme.example>`.
    pub(crate) fn generate(user_id: &str, now: Timestamp) -> Result<SecretCertificate> {
        if user_id.is_empty() || user_id.len() > MAX_USER_ID || user_id.chars().any(char::is_control) {
            return Err(Error::invalid(format!(
                "the OpenPGP user id has to be 1 to {MAX_USER_ID} bytes without control characters"
            )));
        }
        let created = to_pgp(now)?;
        let make = || -> pgp::errors::Result<(SecretKey, UserId, pgp::packet::Signature)> {
            let (public, secret) = KeyType::Ed25519Legacy.generate(OsRng)?;
            let inner =
                PubKeyInner::new(KeyVersion::V4, PublicKeyAlgorithm::EdDSALegacy, created, None, public)?;
            let key = SecretKey::new(PublicKey::from_inner(inner)?, secret)?;
            let id = UserId::from_str(PacketHeaderVersion::New, user_id)?;
            let mut flags = KeyFlags::default();
            flags.set_certify(true);
            flags.set_sign(true);
            let mut config = config(&key, SignatureType::CertPositive, HashAlgorithm::Sha512, created)?;
            config.hashed_subpackets.push(Subpacket::critical(SubpacketData::KeyFlags(flags))?);
            let binding =
                config.sign_certification(&key, key.public_key(), &Password::empty(), Tag::UserId, &id)?;
            Ok((key, id, binding))
        };
        let (key, id, binding) = make().map_err(internal)?;
        let mut packets = zeroize::Zeroizing::new(Vec::new());
        write_packet(&key, Tag::SecretKey, &mut packets)?;
        write_packet(&id, Tag::UserId, &mut packets)?;
        write_packet(&binding, Tag::Signature, &mut packets)?;
        SecretCertificate::from_packets(&packets)
    }

    /// Reads what [`to_secret`](SecretCertificate::to_secret) or `gpg --export-secret-keys` wrote,
    /// in binary or armor, without a passphrase.
    pub(crate) fn parse(secret: &Secret) -> Result<SecretCertificate> {
        let bytes = zeroize::Zeroizing::new(binary(secret.expose(), SECRET)?.into_owned());
        SecretCertificate::from_packets(&bytes)
    }

    fn from_packets(bytes: &[u8]) -> Result<SecretCertificate> {
        let mut public = Vec::new();
        let mut primary = None;
        let mut subkeys = Vec::new();
        let mut locked = false;
        let mut rsa = false;
        for packet in packets(bytes, SECRET)? {
            match packet.tag {
                Tag::SecretKey => {
                    let key = SecretKey::try_from_reader(packet.header, packet.body)
                        .map_err(|_| SECRET.broken("its primary key is damaged"))?;
                    write_packet(key.public_key(), Tag::PublicKey, &mut public)?;
                    locked |= key.secret_params().is_encrypted();
                    rsa |= is_rsa(&key);
                    if !key.secret_params().is_encrypted() && !is_rsa(&key) {
                        primary = Some(SigningPart::Primary(key));
                    }
                }
                Tag::SecretSubkey => {
                    let key = SecretSubkey::try_from_reader(packet.header, packet.body)
                        .map_err(|_| SECRET.broken("a subkey is damaged"))?;
                    write_packet(key.public_key(), Tag::PublicSubkey, &mut public)?;
                    locked |= key.secret_params().is_encrypted();
                    rsa |= is_rsa(&key);
                    let signs = matches!(
                        key.algorithm(),
                        PublicKeyAlgorithm::EdDSALegacy | PublicKeyAlgorithm::ECDSA
                    );
                    if !key.secret_params().is_encrypted() && signs {
                        subkeys.push(SigningPart::Subkey(key));
                    }
                }
                _ => public.extend_from_slice(packet.whole),
            }
        }
        // A subkey made for signing spares the primary key; the latest comes first, as with gpg.
        let signers: Vec<SigningPart> = subkeys.into_iter().rev().chain(primary).collect();
        if signers.is_empty() {
            return Err(if rsa {
                Error::new(
                    ErrorKind::Unsupported,
                    "RSA secret keys are not signed with here, because doing so leaks them through timing \
                     (RUSTSEC-2023-0071): let gpg sign with `gpg --detach-sign --armor` and add its signature",
                )
            } else if locked {
                Error::new(
                    ErrorKind::Unsupported,
                    "the OpenPGP secret key is locked with a passphrase or kept elsewhere: \
                     remove the passphrase from an exported copy, or let gpg sign and add its signature",
                )
            } else {
                SECRET.broken("it holds no secret key that can sign")
            });
        }
        let (keys, bytes_of_certificate) = Keys::parse(&public)?;
        let certificate = Certificate { keys, bytes: bytes_of_certificate };
        Ok(SecretCertificate { packets: Secret::new(bytes), certificate, signers })
    }

    /// The armored secret key, without a passphrase.
    pub(crate) fn to_secret(&self) -> Secret {
        Secret::new(armor(self.packets.expose(), SECRET))
    }

    /// The public part.
    pub(crate) fn certificate(&self) -> Certificate {
        self.certificate.clone()
    }

    /// An armored detached signature over `message`, made at `now`.
    pub(crate) fn sign(&self, message: &[u8], now: Timestamp) -> Result<Vec<u8>> {
        let mut refusal = None;
        for signer in &self.signers {
            let fingerprint = signer.fingerprint();
            let Some(component) = self.certificate.keys.component(&fingerprint) else { continue };
            match self.certificate.keys.check_may_sign(component, now) {
                Ok(()) => {
                    return match signer {
                        SigningPart::Primary(key) => sign_with(key, component, message, now),
                        SigningPart::Subkey(key) => sign_with(key, component, message, now),
                    };
                }
                Err(why) => refusal = Some(why),
            }
        }
        Err(match refusal {
            Some(why) => why.context("no key of the OpenPGP secret key can sign now"),
            None => SECRET.broken("its secret keys are not those of its certificate"),
        })
    }
}

fn sign_with(
    key: &impl SigningKey,
    component: Component<'_>,
    message: &[u8],
    now: Timestamp,
) -> Result<Vec<u8>> {
    // The hash is at least as strong as the curve.
    let hash = match key.public_params() {
        PublicParams::ECDSA(EcdsaPublicParams::P256 { .. }) => HashAlgorithm::Sha256,
        _ => HashAlgorithm::Sha512,
    };
    let created = to_pgp(now)?;
    let signature = config(key, SignatureType::Binary, hash, created)
        .and_then(|config| config.sign(key, &Password::empty(), message))
        .map_err(internal)?;
    // A fault while signing can give the secret away to whoever sees the result.
    component.check_signature(&signature, message)?;
    let mut packet = Vec::new();
    write_packet(&signature, Tag::Signature, &mut packet)?;
    Ok(armor(&packet, SIGNATURE).into_bytes())
}

fn config(
    key: &impl KeyDetails,
    typ: SignatureType,
    hash: HashAlgorithm,
    created: pgp::types::Timestamp,
) -> pgp::errors::Result<SignatureConfig> {
    let mut config = SignatureConfig::v4(typ, key.algorithm(), hash);
    config.hashed_subpackets = vec![
        Subpacket::regular(SubpacketData::IssuerFingerprint(key.fingerprint()))?,
        Subpacket::critical(SubpacketData::SignatureCreationTime(created))?,
    ];
    config.unhashed_subpackets = vec![Subpacket::regular(SubpacketData::IssuerKeyId(key.legacy_key_id()))?];
    Ok(config)
}

fn is_rsa(key: &impl KeyDetails) -> bool {
    matches!(key.public_params(), PublicParams::RSA(_))
}

fn to_pgp(now: Timestamp) -> Result<pgp::types::Timestamp> {
    u32::try_from(now.as_unix())
        .map(pgp::types::Timestamp::from_secs)
        .map_err(|_| Error::invalid(format!("{now} is after the last moment that OpenPGP can state")))
}
