//! A certificate: its keys, and what they said about themselves and when.
//!
//! The packets are grouped here and not by the library, which passes over what it does not
//! expect: a revocation in an odd place would be lost. A certificate comes from its owner's
//! export and is pinned, so everything that does not belong there refuses it as a whole.

use std::collections::HashSet;

use pgp::packet::{PublicKey, PublicSubkey, Signature, SignatureType, UserAttribute, UserId};
use pgp::types::{KeyDetails, Tag};

use super::policy::{Facts, check_key, is_allowed_hash, name_of, read, untrusted};
use super::wire::{CERTIFICATE, RawPacket, binary, packets};
use super::{hex, moment};
use crate::clock::Timestamp;
use crate::error::Result;

/// The keys of one certificate with their verified self-signatures.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    primary: PublicKey,
    /// Signatures of the primary key over itself.
    direct: Vec<Facts>,
    revocations: Vec<Facts>,
    users: Vec<User>,
    subkeys: Vec<Subkey>,
}

#[derive(Clone, Debug)]
struct User {
    id: UserId,
    bindings: Vec<Facts>,
    revocations: Vec<Facts>,
}

#[derive(Clone, Debug)]
struct Subkey {
    key: PublicSubkey,
    bindings: Vec<Facts>,
    revocations: Vec<Facts>,
}

/// One key of a certificate.
#[derive(Clone, Copy, Debug)]
pub(super) enum Component<'a> {
    Primary(&'a PublicKey),
    Subkey(&'a PublicSubkey),
}

impl Component<'_> {
    pub(super) fn created(&self) -> Timestamp {
        moment(match self {
            Component::Primary(key) => key.created_at(),
            Component::Subkey(key) => key.created_at(),
        })
    }

    pub(super) fn name(&self) -> String {
        match self {
            Component::Primary(key) => name_of(*key),
            Component::Subkey(key) => name_of(*key),
        }
    }

    pub(super) fn check_key(&self) -> Result<()> {
        match self {
            Component::Primary(key) => check_key(*key),
            Component::Subkey(key) => check_key(*key),
        }
    }

    /// Whether the numbers of `signature` over `message` are right under this key.
    pub(super) fn check_signature(&self, signature: &Signature, message: &[u8]) -> Result<()> {
        let (result, algorithm) = match self {
            Component::Primary(key) => (signature.verify(*key, message), key.algorithm()),
            Component::Subkey(key) => (signature.verify(*key, message), key.algorithm()),
        };
        if !signature.config().is_some_and(|config| config.pub_alg == algorithm) {
            return Err(untrusted(format!(
                "the OpenPGP signature names another algorithm than that of key {}",
                self.name()
            )));
        }
        result.map_err(|cause| {
            untrusted(format!("the OpenPGP signature by key {} does not fit the message", self.name()))
                .with_source(cause)
        })
    }
}

impl Keys {
    /// Reads a certificate in binary or armor. The second value is its binary form.
    pub(super) fn parse(input: &[u8]) -> Result<(Keys, Vec<u8>)> {
        let bytes = binary(input, CERTIFICATE)?;
        let keys = Keys::group(&packets(&bytes, CERTIFICATE)?)?;
        Ok((keys, bytes.into_owned()))
    }

    fn group(packets: &[RawPacket<'_>]) -> Result<Keys> {
        let (first, rest) = match packets.split_first() {
            Some((first, rest)) if first.tag == Tag::PublicKey => (first, rest),
            Some((first, _)) if matches!(first.tag, Tag::SecretKey | Tag::SecretSubkey) => {
                return Err(CERTIFICATE.broken("it is a secret key; export the public certificate instead"));
            }
            _ => return Err(CERTIFICATE.broken("it does not start with a public key")),
        };
        let primary = PublicKey::try_from_reader(first.header, first.body)
            .map_err(|cause| CERTIFICATE.broken("its primary key is damaged").with_source(cause))?;
        if !first.is_canonical(&primary) {
            return Err(CERTIFICATE.broken("its primary key is not in the one form that keys have"));
        }
        check_key(&primary)?;

        let mut keys = Keys {
            primary,
            direct: Vec::new(),
            revocations: Vec::new(),
            users: Vec::new(),
            subkeys: Vec::new(),
        };
        let mut seen: HashSet<&[u8]> = HashSet::from([first.body]);
        let mut last = Tag::PublicKey;
        for packet in rest {
            match packet.tag {
                Tag::Signature => {
                    keys.add_signature(packet, last)?;
                    continue;
                }
                Tag::UserId if last != Tag::PublicSubkey => {
                    let id = UserId::try_from_reader(packet.header, packet.body)
                        .map_err(|cause| CERTIFICATE.broken("a user id is damaged").with_source(cause))?;
                    keys.users.push(User { id, bindings: Vec::new(), revocations: Vec::new() });
                }
                // Pictures say nothing about keys; what signs them is passed over.
                Tag::UserAttribute if last != Tag::PublicSubkey => {
                    UserAttribute::try_from_reader(packet.header, packet.body)
                        .map_err(|cause| CERTIFICATE.broken("a picture is damaged").with_source(cause))?;
                }
                Tag::PublicSubkey => {
                    let key = PublicSubkey::try_from_reader(packet.header, packet.body)
                        .map_err(|cause| CERTIFICATE.broken("a subkey is damaged").with_source(cause))?;
                    if !packet.is_canonical(&key) {
                        return Err(CERTIFICATE.broken("a subkey is not in the one form that keys have"));
                    }
                    keys.subkeys.push(Subkey { key, bindings: Vec::new(), revocations: Vec::new() });
                }
                Tag::PublicKey => {
                    return Err(CERTIFICATE.broken("there is more than one certificate in it"));
                }
                other => {
                    return Err(CERTIFICATE
                        .broken(format_args!("a packet of type {} does not belong there", u8::from(other))));
                }
            }
            // The same part twice has its signatures in two places, and readers differ in which they see.
            if !seen.insert(packet.body) {
                return Err(CERTIFICATE.broken("it holds the same key or user id twice"));
            }
            last = packet.tag;
        }
        Ok(keys)
    }

    /// Files the signature in `packet`, which stands after a packet of type `after`.
    fn add_signature(&mut self, packet: &RawPacket<'_>, after: Tag) -> Result<()> {
        let signature = Signature::try_from_reader(packet.header, packet.body)
            .map_err(|cause| CERTIFICATE.broken("a signature in it is damaged").with_source(cause))?;
        if !packet.is_canonical(&signature) {
            return Err(CERTIFICATE.broken("a signature in it is not in the one form that signatures have"));
        }
        let Some(typ) = signature.typ() else {
            return Err(CERTIFICATE.broken("a signature in it is of an unknown version"));
        };
        use SignatureType as T;
        let place = match (after, typ) {
            (Tag::PublicKey, T::Key | T::KeyRevocation)
            | (
                Tag::UserId,
                T::CertGeneric | T::CertPersona | T::CertCasual | T::CertPositive | T::CertRevocation,
            )
            | (Tag::PublicSubkey, T::SubkeyBinding | T::SubkeyRevocation) => after,
            (
                Tag::UserAttribute,
                T::CertGeneric | T::CertPersona | T::CertCasual | T::CertPositive | T::CertRevocation,
            ) => return Ok(()),
            _ => {
                return Err(CERTIFICATE.broken(format_args!(
                    "a signature of type 0x{:02x} is out of its place",
                    u8::from(typ)
                )));
            }
        };

        let revokes = matches!(typ, T::KeyRevocation | T::SubkeyRevocation | T::CertRevocation);
        if !self.is_by_primary(&signature) {
            // Somebody else's word on a user id is no matter here. On a key it can only be that
            // of a designated revoker, whose certificate is not at hand.
            if place == Tag::UserId || !revokes {
                return Ok(());
            }
            return Err(untrusted(format!(
                "the OpenPGP certificate {} is revoked by another key, whose word cannot be checked",
                name_of(&self.primary)
            )));
        }

        let verified = match place {
            Tag::PublicKey => signature.verify_key(&self.primary),
            Tag::UserId => match self.users.last() {
                Some(user) => signature.verify_certification(&self.primary, Tag::UserId, &user.id),
                None => return Ok(()),
            },
            _ => match self.subkeys.last() {
                Some(subkey) => signature.verify_subkey_binding(&self.primary, &subkey.key),
                None => return Ok(()),
            },
        };
        let what = format!("a self-signature of the OpenPGP certificate {}", name_of(&self.primary));
        let facts = read(&signature, &what)?;
        verified.map_err(|cause| untrusted(format!("{what} does not verify")).with_source(cause))?;

        // A weak hash binds nothing. A revocation is believed whatever its hash: forging one
        // takes trust away and gives none.
        let strong = signature.hash_alg().is_some_and(is_allowed_hash);
        if !revokes && !strong {
            return Ok(());
        }
        match (place, revokes) {
            (Tag::PublicKey, true) => self.revocations.push(facts),
            (Tag::PublicKey, false) => self.direct.push(facts),
            (Tag::UserId, _) => {
                if let Some(user) = self.users.last_mut() {
                    if revokes { &mut user.revocations } else { &mut user.bindings }.push(facts);
                }
            }
            _ => {
                if let Some(subkey) = self.subkeys.last_mut() {
                    if revokes { &mut subkey.revocations } else { &mut subkey.bindings }.push(facts);
                }
            }
        }
        Ok(())
    }

    /// Whether `signature` names the primary key as its issuer, or nobody.
    fn is_by_primary(&self, signature: &Signature) -> bool {
        let fingerprints = signature.issuer_fingerprint();
        let ids = signature.issuer_key_id();
        (fingerprints.is_empty() && ids.is_empty())
            || fingerprints.contains(&&self.primary.fingerprint())
            || ids.contains(&&self.primary.legacy_key_id())
    }

    /// The primary key's fingerprint in lower-case hex.
    pub(super) fn fingerprint(&self) -> String {
        hex(self.primary.fingerprint().as_bytes())
    }

    /// The key with `fingerprint` in lower-case hex.
    pub(super) fn component(&self, fingerprint: &str) -> Option<Component<'_>> {
        if self.fingerprint() == fingerprint {
            return Some(Component::Primary(&self.primary));
        }
        self.subkeys
            .iter()
            .find(|subkey| hex(subkey.key.fingerprint().as_bytes()) == fingerprint)
            .map(|subkey| Component::Subkey(&subkey.key))
    }

    /// Refuses unless `component` could sign data at the moment `at`, as the certificate tells it.
    ///
    /// What the owner said later about the time before, other than a revocation, changes nothing.
    pub(super) fn check_may_sign(&self, component: Component<'_>, at: Timestamp) -> Result<()> {
        let primary = Component::Primary(&self.primary);
        primary.check_key()?;
        component.check_key()?;
        check_created(&primary, at)?;
        check_revocations(&primary, &self.revocations, at)?;

        let direct = newest(&self.direct, at);
        let users: Vec<&Facts> = self
            .users
            .iter()
            .filter(|user| !user.revocations.iter().any(|facts| is_revoked(facts, at)))
            .flat_map(|user| newest(&user.bindings, at))
            .collect();
        if direct.is_empty() && users.is_empty() {
            return Err(untrusted(format!(
                "the OpenPGP key {} had no valid self-signature over an accepted hash at {at}",
                primary.name()
            )));
        }
        for facts in direct.iter().chain(&users) {
            check_lifetime(&primary, facts, at)?;
        }

        match component {
            Component::Primary(_) => {
                let by_direct = |facts: &&Facts| facts.may_sign == Some(true);
                let direct_allows = !direct.is_empty() && direct.iter().all(by_direct);
                let allowed = !direct.iter().any(|facts| facts.may_sign == Some(false))
                    && users.iter().all(|facts| facts.may_sign.unwrap_or(direct_allows))
                    && (direct_allows || !users.is_empty());
                if allowed { Ok(()) } else { Err(no_signing(&component)) }
            }
            Component::Subkey(key) => self.check_subkey(key, at),
        }
    }

    fn check_subkey(&self, key: &PublicSubkey, at: Timestamp) -> Result<()> {
        let component = Component::Subkey(key);
        let fingerprint = key.fingerprint();
        let Some(subkey) = self.subkeys.iter().find(|subkey| subkey.key.fingerprint() == fingerprint) else {
            return Err(no_signing(&component));
        };
        check_created(&component, at)?;
        check_revocations(&component, &subkey.revocations, at)?;
        let bindings = newest(&subkey.bindings, at);
        if bindings.is_empty() {
            return Err(untrusted(format!(
                "the OpenPGP subkey {} was not bound to its certificate over an accepted hash at {at}",
                component.name()
            )));
        }
        for facts in bindings {
            check_lifetime(&component, facts, at)?;
            if facts.may_sign != Some(true) {
                return Err(no_signing(&component));
            }
            self.check_back_signature(key, facts, at)?;
        }
        Ok(())
    }

    /// "A signature that binds a signing subkey MUST have an Embedded Signature subpacket in this
    /// binding signature that contains a Primary Key Binding Signature made by the signing subkey
    /// on the primary key and subkey" (RFC 9580 section 5.2.1.8). Without it, anybody could claim
    /// somebody else's signing key as a subkey.
    fn check_back_signature(&self, key: &PublicSubkey, binding: &Facts, at: Timestamp) -> Result<()> {
        let name = name_of(key);
        let Some(inner) = &binding.back_signature else {
            return Err(untrusted(format!("the OpenPGP subkey {name} did not sign its binding")));
        };
        let what = format!("the back-signature of the OpenPGP subkey {name}");
        let facts = read(inner, &what)?;
        if !inner.hash_alg().is_some_and(is_allowed_hash) {
            return Err(untrusted(format!("{what} is not over SHA-256, SHA-384 or SHA-512")));
        }
        if facts.created > at || facts.is_expired_at(at) {
            return Err(untrusted(format!("{what} did not count at {at}")));
        }
        inner
            .verify_primary_key_binding(key, &self.primary)
            .map_err(|cause| untrusted(format!("{what} does not verify")).with_source(cause))
    }
}

/// The last word at the moment `at`: more than one if they were given in the same second.
fn newest(facts: &[Facts], at: Timestamp) -> Vec<&Facts> {
    let last = facts.iter().map(|facts| facts.created).filter(|created| *created <= at).max();
    facts.iter().filter(|facts| Some(facts.created) == last && !facts.is_expired_at(at)).collect()
}

/// A key that may be in other hands was perhaps never in the right ones, so such a revocation
/// reaches back; so does one without a reason, since nothing tells that it does not.
fn is_hard(revocation: &Facts) -> bool {
    // Superseded, retired, user id no longer valid (RFC 9580 section 5.2.3.31).
    !matches!(revocation.reason, Some(1 | 3 | 32))
}

fn is_revoked(revocation: &Facts, at: Timestamp) -> bool {
    is_hard(revocation) || revocation.created <= at
}

fn check_revocations(key: &Component<'_>, revocations: &[Facts], at: Timestamp) -> Result<()> {
    let Some(revocation) = revocations.iter().find(|facts| is_revoked(facts, at)) else {
        return Ok(());
    };
    Err(untrusted(if is_hard(revocation) {
        let reason = match revocation.reason {
            Some(2) => "as compromised",
            None | Some(0) => "without a reason, which counts as compromised",
            Some(_) => "for an unknown reason, which counts as compromised",
        };
        format!("the OpenPGP key {} is revoked {reason}", key.name())
    } else {
        format!("the OpenPGP key {} was retired at {}, and signed at {at}", key.name(), revocation.created)
    }))
}

fn check_created(key: &Component<'_>, at: Timestamp) -> Result<()> {
    if at >= key.created() {
        return Ok(());
    }
    Err(untrusted(format!("the OpenPGP key {} was made at {}, after {at}", key.name(), key.created())))
}

fn check_lifetime(key: &Component<'_>, facts: &Facts, at: Timestamp) -> Result<()> {
    match facts.key_lifetime {
        None | Some(0) => Ok(()),
        Some(seconds) => {
            let end = key.created().plus(seconds.into());
            if at < end {
                return Ok(());
            }
            Err(untrusted(format!("the OpenPGP key {} expired at {end}, before {at}", key.name())))
        }
    }
}

#[cold]
fn no_signing(key: &Component<'_>) -> crate::error::Error {
    untrusted(format!("the OpenPGP key {} is not marked for signing data", key.name()))
}
