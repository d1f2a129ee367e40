//! Certificates and signatures that no honest program makes, for the tests.

use pgp::composed::KeyType;
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{
    KeyFlags, PubKeyInner, PublicKey, PublicSubkey, RevocationCode, SecretKey, SecretSubkey, Signature,
    SignatureConfig, SignatureType, Subpacket, SubpacketData, UserId,
};
use pgp::types::{
    Duration, KeyDetails, KeyVersion, PacketHeaderVersion, Password, SigningKey, Tag, Timestamp,
};
use pgp_rand::rngs::OsRng;

use super::wire::write_packet;

pub(super) const DAY: u32 = 86_400;

/// A primary key with one user id.
pub(super) struct Owner {
    pub key: SecretKey,
    id: UserId,
}

fn inner(kind: &KeyType, version: KeyVersion, created: u32) -> (PubKeyInner, pgp::types::SecretParams) {
    let (public, secret) = kind.generate(OsRng).unwrap();
    let created = Timestamp::from_secs(created);
    (PubKeyInner::new(version, kind.to_alg(), created, None, public).unwrap(), secret)
}

/// A statement by `key`, made at `at`, that says `more` besides time and issuer.
pub(super) fn statement(
    key: &impl SigningKey,
    typ: SignatureType,
    hash: HashAlgorithm,
    at: u32,
    more: Vec<SubpacketData>,
) -> SignatureConfig {
    let mut config = match key.version() {
        KeyVersion::V6 => SignatureConfig::v6(OsRng, typ, key.algorithm(), hash).unwrap(),
        _ => SignatureConfig::v4(typ, key.algorithm(), hash),
    };
    let mut parts = vec![
        SubpacketData::IssuerFingerprint(key.fingerprint()),
        SubpacketData::SignatureCreationTime(Timestamp::from_secs(at)),
    ];
    parts.extend(more);
    config.hashed_subpackets = parts.into_iter().map(|data| Subpacket::regular(data).unwrap()).collect();
    config
}

/// What a key may do: certify, sign.
pub(super) fn flags(certify: bool, sign: bool) -> SubpacketData {
    let mut flags = KeyFlags::default();
    flags.set_certify(certify);
    flags.set_sign(sign);
    SubpacketData::KeyFlags(flags)
}

pub(super) fn lifetime(seconds: u32) -> SubpacketData {
    SubpacketData::KeyExpirationTime(Duration::from_secs(seconds))
}

pub(super) fn reason(code: u8) -> SubpacketData {
    SubpacketData::RevocationReason(RevocationCode::from(code), "".into())
}

impl Owner {
    pub(super) fn new(kind: &KeyType, created: u32) -> Owner {
        Owner::with_version(kind, KeyVersion::V4, created)
    }

    pub(super) fn with_version(kind: &KeyType, version: KeyVersion, created: u32) -> Owner {
        let (inner, secret) = inner(kind, version, created);
        let key = SecretKey::new(PublicKey::from_inner(inner).unwrap(), secret).unwrap();
        Owner { key, id: UserId::from_str(PacketHeaderVersion::New, "Forge <forge@example.test>").unwrap() }
    }

    pub(super) fn primary(&self) -> Vec<u8> {
        packet(self.key.public_key(), Tag::PublicKey)
    }

    pub(super) fn user(&self) -> Vec<u8> {
        packet(&self.id, Tag::UserId)
    }

    /// A self-signature over the user id.
    pub(super) fn certify(&self, hash: HashAlgorithm, at: u32, more: Vec<SubpacketData>) -> Vec<u8> {
        self.over_user(statement(&self.key, SignatureType::CertPositive, hash, at, more))
    }

    pub(super) fn over_user(&self, config: SignatureConfig) -> Vec<u8> {
        packet(
            &config
                .sign_certification(
                    &self.key,
                    self.key.public_key(),
                    &Password::empty(),
                    Tag::UserId,
                    &self.id,
                )
                .unwrap(),
            Tag::Signature,
        )
    }

    /// A signature over the primary key itself.
    pub(super) fn over_key(
        &self,
        typ: SignatureType,
        hash: HashAlgorithm,
        at: u32,
        more: Vec<SubpacketData>,
    ) -> Vec<u8> {
        let config = statement(&self.key, typ, hash, at, more);
        packet(
            &config.sign_key(&self.key, &Password::empty(), self.key.public_key()).unwrap(),
            Tag::Signature,
        )
    }

    /// Key, user id and one good self-signature.
    pub(super) fn certificate(&self, at: u32, more: Vec<SubpacketData>) -> Vec<u8> {
        [self.primary(), self.user(), self.certify(HashAlgorithm::Sha256, at, more)].concat()
    }

    /// A subkey packet's worth of secret key.
    pub(super) fn subkey(&self, kind: &KeyType, created: u32) -> SecretSubkey {
        let (inner, secret) = inner(kind, KeyVersion::V4, created);
        SecretSubkey::new(PublicSubkey::from_inner(inner).unwrap(), secret).unwrap()
    }

    /// A signature of the primary key over `subkey`.
    pub(super) fn over_subkey(
        &self,
        subkey: &SecretSubkey,
        typ: SignatureType,
        hash: HashAlgorithm,
        at: u32,
        more: Vec<SubpacketData>,
    ) -> Vec<u8> {
        let config = statement(&self.key, typ, hash, at, more);
        packet(
            &config
                .sign_subkey_binding(
                    &self.key,
                    self.key.public_key(),
                    &Password::empty(),
                    subkey.public_key(),
                )
                .unwrap(),
            Tag::Signature,
        )
    }

    /// The back-signature that belongs into the binding of `subkey`.
    pub(super) fn back_signature(
        &self,
        subkey: &SecretSubkey,
        hash: HashAlgorithm,
        at: u32,
    ) -> SubpacketData {
        let config = statement(subkey, SignatureType::KeyBinding, hash, at, Vec::new());
        SubpacketData::EmbeddedSignature(Box::new(
            config
                .sign_primary_key_binding(
                    subkey,
                    subkey.public_key(),
                    &Password::empty(),
                    self.key.public_key(),
                )
                .unwrap(),
        ))
    }
}

/// A data signature made from `config`.
pub(super) fn sign(key: &impl SigningKey, config: SignatureConfig, message: &[u8]) -> Vec<u8> {
    packet(&config.sign(key, &Password::empty(), message).unwrap(), Tag::Signature)
}

/// A plain binary signature over SHA-256.
pub(super) fn sign_at(key: &impl SigningKey, at: u32, message: &[u8]) -> Vec<u8> {
    sign(key, statement(key, SignatureType::Binary, HashAlgorithm::Sha256, at, Vec::new()), message)
}

/// A signature in the form of PGP 2, over [`MESSAGE`].
fn sign_version_3(key: &SecretKey, at: u32) -> Vec<u8> {
    let created = Timestamp::from_secs(at);
    let hash = HashAlgorithm::Sha256;
    let config =
        SignatureConfig::v3(SignatureType::Binary, key.algorithm(), hash, created, key.legacy_key_id());
    let digest = hash.digest(&[MESSAGE, &[0], &at.to_be_bytes()].concat()).unwrap();
    let numbers = key.sign(&Password::empty(), hash, &digest).unwrap();
    packet(&Signature::from_config(config, [digest[0], digest[1]], numbers).unwrap(), Tag::Signature)
}

pub(super) fn subkey_packet(subkey: &SecretSubkey) -> Vec<u8> {
    packet(subkey.public_key(), Tag::PublicSubkey)
}

fn packet(packet: &impl pgp::packet::PacketTrait, tag: Tag) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_packet(packet, tag, &mut bytes).unwrap();
    bytes
}

/// One thing to judge.
#[derive(Clone)]
pub(super) struct Case {
    pub name: String,
    pub certificate: Vec<u8>,
    pub message: Vec<u8>,
    pub signature: Vec<u8>,
}

pub(super) const MESSAGE: &[u8] = b"DSSEv1 28 application/vnd.in-toto+json 2 {}\nline two \r\n";

/// Every forged case with what is to become of it: `None` accepts, otherwise the refusal says this.
///
/// `now` is in seconds; keys are 100 days old, signatures ten.
pub(super) fn cases(now: u32) -> Vec<(Case, Option<&'static str>)> {
    use HashAlgorithm::{Sha256, Sha384, Sha512};
    use SignatureType as T;

    let mut cases = Vec::new();
    let born = now - 100 * DAY;
    let at = now - 10 * DAY;
    let mut add = |name: &str, certificate: &[u8], signature: Vec<u8>, why: Option<&'static str>| {
        let (name, certificate) = (name.to_owned(), certificate.to_vec());
        cases.push((Case { name, certificate, message: MESSAGE.to_vec(), signature }, why));
    };
    let owner = Owner::new(&KeyType::Ed25519Legacy, born);
    let key = &owner.key;
    let both = || vec![flags(true, true)];
    let good = owner.certificate(born, both());
    let usual = |typ, hash, more| statement(key, typ, hash, at, more);

    // Signatures.
    for hash in [Sha256, Sha384, Sha512] {
        add(&format!("good-{hash}"), &good, sign(key, usual(T::Binary, hash, vec![]), MESSAGE), None);
    }
    add(
        "sha3",
        &good,
        sign(key, usual(T::Binary, HashAlgorithm::Sha3_256, vec![]), MESSAGE),
        Some("SHA3-256"),
    );
    add("text-mode", &good, sign(key, usual(T::Text, Sha256, vec![]), MESSAGE), Some("text mode"));
    for typ in [0x02, 0x40] {
        let mut forged = sign_at(key, at, MESSAGE);
        forged[3] = typ;
        add(&format!("type-{typ:#04x}"), &good, forged, Some("of type 0x"));
    }
    add("wrong-message", &good, sign_at(key, at, b"another"), Some("does not fit the message"));
    let stranger = Owner::new(&KeyType::Ed25519Legacy, born);
    add("stranger", &good, sign_at(&stranger.key, at, MESSAGE), Some("does not have"));
    let mut config = usual(T::Binary, Sha256, vec![]);
    config.hashed_subpackets.remove(0);
    add("no-issuer", &good, sign(key, config, MESSAGE), Some("does not name the fingerprint"));
    let id = SubpacketData::IssuerKeyId(key.legacy_key_id());
    let mut config = usual(T::Binary, Sha256, vec![id]);
    config.hashed_subpackets.remove(0);
    add("short-issuer", &good, sign(key, config, MESSAGE), Some("does not name the fingerprint"));
    let mut config = usual(T::Binary, Sha256, vec![]);
    config.hashed_subpackets.remove(1);
    add("no-creation-time", &good, sign(key, config, MESSAGE), Some("does not say when"));
    let twice = SubpacketData::SignatureCreationTime(Timestamp::from_secs(born + 1));
    add(
        "two-creation-times",
        &good,
        sign(key, usual(T::Binary, Sha256, vec![twice]), MESSAGE),
        Some("twice"),
    );
    let expiry = |after| SubpacketData::SignatureExpirationTime(Duration::from_secs(after));
    add(
        "signature-expired",
        &good,
        sign(key, usual(T::Binary, Sha256, vec![expiry(DAY)]), MESSAGE),
        Some("has expired"),
    );
    add(
        "signature-not-yet-expired",
        &good,
        sign(key, usual(T::Binary, Sha256, vec![expiry(11 * DAY)]), MESSAGE),
        None,
    );
    add(
        "signature-never-expires",
        &good,
        sign(key, usual(T::Binary, Sha256, vec![expiry(0)]), MESSAGE),
        None,
    );
    add("before-the-key", &good, sign_at(key, born - 1, MESSAGE), Some("was made at"));
    add("from-the-future", &good, sign_at(key, now + 3600, MESSAGE), Some("from the future"));
    let mut config = usual(T::Binary, Sha256, vec![]);
    config.hashed_subpackets.push(Subpacket::regular(SubpacketData::Other(99, "x".into())).unwrap());
    add("unknown-subpacket", &good, sign(key, config, MESSAGE), None);
    // `pgp` refuses to sign an unknown critical subpacket, and takes experimental ones.
    let mut config = usual(T::Binary, Sha256, vec![]);
    config.hashed_subpackets.push(Subpacket::critical(SubpacketData::Experimental(101, "x".into())).unwrap());
    add(
        "unknown-critical-subpacket",
        &good,
        sign(key, config, MESSAGE),
        Some("critical subpacket of type 101"),
    );
    let notation = |critical| {
        let data = SubpacketData::Notation(pgp::packet::Notation {
            readable: true,
            name: "level@example.test".into(),
            value: "low".into(),
        });
        let mut config = usual(T::Binary, Sha256, vec![]);
        config
            .hashed_subpackets
            .push(Subpacket { is_critical: critical, ..Subpacket::regular(data).unwrap() });
        sign(key, config, MESSAGE)
    };
    add("notation", &good, notation(false), None);
    add("critical-notation", &good, notation(true), Some("critical notation"));
    for version in [2, 3, 5, 6, 7] {
        let mut forged = sign_at(key, at, MESSAGE);
        forged[2] = version;
        add(&format!("version-{version}"), &good, forged, Some(""));
    }
    add("version-3-signed", &good, sign_version_3(key, at), Some("of version 3"));
    let (one, other) = (sign_at(key, at, MESSAGE), sign_at(&stranger.key, at, MESSAGE));
    add("two-signatures-one-good", &good, [other.clone(), one.clone()].concat(), None);
    add("two-signatures-none-good", &good, [other.clone(), other.clone()].concat(), Some("does not have"));
    let weak = sign(key, usual(T::Binary, HashAlgorithm::Sha3_256, vec![]), MESSAGE);
    add("two-signatures-one-good-one-sha3", &good, [one.clone(), weak].concat(), Some("SHA3-256"));
    add("five-signatures", &good, one.repeat(5), Some("more than 4 packets"));
    add("empty", &good, Vec::new(), Some("empty"));
    add("not-a-signature", &good, owner.user(), Some("not a signature"));

    // Keys.
    let kinds = [
        ("good-p256", KeyType::ECDSA(pgp::crypto::ecc_curve::ECCCurve::P256), None),
        ("good-p384", KeyType::ECDSA(pgp::crypto::ecc_curve::ECCCurve::P384), None),
        ("p521", KeyType::ECDSA(pgp::crypto::ecc_curve::ECCCurve::P521), Some("accepted are")),
        ("secp256k1", KeyType::ECDSA(pgp::crypto::ecc_curve::ECCCurve::Secp256k1), Some("accepted are")),
        ("ed25519-of-rfc-9580", KeyType::Ed25519, Some("accepted are")),
    ];
    for (name, kind, why) in kinds {
        let owner = Owner::new(&kind, born);
        let hash = owner.key.public_params().hash_alg();
        let certificate = [owner.primary(), owner.user(), owner.certify(hash, born, both())].concat();
        let config = statement(&owner.key, T::Binary, hash, at, vec![]);
        add(name, &certificate, sign(&owner.key, config, MESSAGE), why);
    }
    let six = Owner::with_version(&KeyType::Ed25519, KeyVersion::V6, born);
    let direct = six.over_key(T::Key, Sha256, born, both());
    add("version-6", &[six.primary(), direct].concat(), sign_at(&six.key, at, MESSAGE), Some("version 6"));

    // Certificates.
    let plain = || sign_at(key, at, MESSAGE);
    let mut made = |name: &str, parts: &[Vec<u8>], why| add(name, &parts.concat(), plain(), why);
    let (primary, user) = (owner.primary(), owner.user());
    let ok = owner.certify(Sha256, born, both());
    made("no-self-signature", &[primary.clone(), user.clone()], Some("no valid self-signature"));
    made("bare-key", std::slice::from_ref(&primary), Some("no valid self-signature"));
    made(
        "certify-only",
        &[primary.clone(), user.clone(), owner.certify(Sha256, born, vec![flags(true, false)])],
        Some("not marked for signing"),
    );
    made(
        "no-key-flags",
        &[primary.clone(), user.clone(), owner.certify(Sha256, born, vec![])],
        Some("not marked for signing"),
    );
    let direct = owner.over_key(T::Key, Sha256, born, both());
    made("direct-only", &[primary.clone(), direct.clone()], None);
    made(
        "direct-flags",
        &[primary.clone(), direct.clone(), user.clone(), owner.certify(Sha256, born, vec![])],
        None,
    );
    made(
        "direct-says-no",
        &[
            primary.clone(),
            owner.over_key(T::Key, Sha256, born, vec![flags(true, false)]),
            user.clone(),
            ok.clone(),
        ],
        Some("not marked"),
    );
    made(
        "self-signature-later",
        &[primary.clone(), user.clone(), owner.certify(Sha256, at + 1, both())],
        Some("no valid self-signature"),
    );
    made(
        "expired-before",
        &[
            primary.clone(),
            user.clone(),
            owner.certify(Sha256, born, vec![flags(true, true), lifetime(89 * DAY)]),
        ],
        Some("expired at"),
    );
    made(
        "expired-since",
        &[
            primary.clone(),
            user.clone(),
            owner.certify(Sha256, born, vec![flags(true, true), lifetime(91 * DAY)]),
        ],
        None,
    );
    let short = owner.certify(Sha256, born + DAY, vec![flags(true, true), lifetime(5 * DAY)]);
    made("shortened", &[primary.clone(), user.clone(), ok.clone(), short.clone()], Some("expired at"));
    let long = owner.certify(Sha256, at + DAY, both());
    made("extended-too-late", &[primary.clone(), user.clone(), short.clone(), long], Some("expired at"));
    let long = owner.certify(Sha256, at - DAY, both());
    made("extended-in-time", &[primary.clone(), user.clone(), short, long], None);
    let fleeting = owner.certify(Sha256, born, vec![flags(true, true), expiry(DAY)]);
    made(
        "self-signature-expired",
        &[primary.clone(), user.clone(), fleeting],
        Some("no valid self-signature"),
    );
    let revoked = |at, more| owner.over_key(T::KeyRevocation, Sha256, at, more);
    let body = [user.clone(), ok.clone()].concat();
    for (name, revocation, why) in [
        ("revoked-compromised", revoked(at + DAY, vec![reason(2)]), Some("revoked as compromised")),
        ("revoked-no-reason", revoked(at + DAY, vec![reason(0)]), Some("without a reason")),
        ("revoked-nothing-said", revoked(at + DAY, vec![]), Some("without a reason")),
        ("revoked-unknown-reason", revoked(at + DAY, vec![reason(77)]), Some("unknown reason")),
        ("retired-before", revoked(at - DAY, vec![reason(3)]), Some("was retired")),
        ("superseded-before", revoked(at - DAY, vec![reason(1)]), Some("was retired")),
        ("retired-since", revoked(at + DAY, vec![reason(3)]), None),
    ] {
        made(name, &[primary.clone(), revocation.clone(), body.clone()], why);
        made(
            &format!("{name}-misplaced"),
            &[primary.clone(), body.clone(), revocation],
            Some("out of its place"),
        );
    }
    let by_stranger = {
        let config = statement(&stranger.key, T::KeyRevocation, Sha256, at, vec![]);
        let signature = config.sign_key(&stranger.key, &Password::empty(), key.public_key()).unwrap();
        packet(&signature, Tag::Signature)
    };
    made("revoked-by-another", &[primary.clone(), by_stranger, body.clone()], Some("another key"));
    let user_revoked = owner.over_user(statement(key, T::CertRevocation, Sha256, at - DAY, vec![reason(32)]));
    made("user-revoked", &[primary.clone(), body.clone(), user_revoked], Some("no valid self-signature"));
    let user_revoked = owner.over_user(statement(key, T::CertRevocation, Sha256, at + DAY, vec![reason(32)]));
    made("user-revoked-since", &[primary.clone(), body.clone(), user_revoked], None);
    let mut critical = statement(key, T::CertPositive, Sha256, born, both());
    critical
        .hashed_subpackets
        .push(Subpacket::critical(SubpacketData::Experimental(101, "x".into())).unwrap());
    made(
        "critical-in-self-signature",
        &[primary.clone(), user.clone(), owner.over_user(critical)],
        Some("critical subpacket"),
    );
    let mut bent = ok.clone();
    *bent.last_mut().unwrap() ^= 1;
    made("damaged-self-signature", &[primary.clone(), user.clone(), bent], Some("does not verify"));
    made(
        "two-certificates",
        &[primary.clone(), body.clone(), stranger.certificate(born, both())],
        Some("more than one certificate"),
    );
    made("user-twice", &[primary.clone(), body.clone(), body.clone()], Some("twice"));
    made(
        "trailing-packet",
        &[primary.clone(), body.clone(), vec![0xca, 3, b'P', b'G', b'P']],
        Some("does not belong"),
    );

    // Subkeys.
    let sub = owner.subkey(&KeyType::Ed25519Legacy, born + DAY);
    let certifier = owner.certificate(born, vec![flags(true, false)]);
    let bound = born + DAY;
    let back = |hash, at| owner.back_signature(&sub, hash, at);
    let bind = |at, more| owner.over_subkey(&sub, T::SubkeyBinding, Sha256, at, more);
    let full = || vec![flags(false, true), back(Sha256, bound)];
    let packet = subkey_packet(&sub);
    let mut sub_case = |name: &str, parts: &[Vec<u8>], why| {
        let certificate = [certifier.clone(), packet.clone(), parts.concat()].concat();
        add(name, &certificate, sign_at(&sub, at, MESSAGE), why);
    };
    sub_case("subkey", &[bind(bound, full())], None);
    sub_case("subkey-unbound", &[], Some("not bound"));
    sub_case("subkey-bound-later", &[bind(at + DAY, full())], Some("not bound"));
    sub_case(
        "subkey-without-back-signature",
        &[bind(bound, vec![flags(false, true)])],
        Some("did not sign its binding"),
    );
    sub_case(
        "subkey-back-signature-later",
        &[bind(bound, vec![flags(false, true), back(Sha256, at + DAY)])],
        Some("did not count"),
    );
    sub_case(
        "subkey-back-signature-of-another",
        &[bind(bound, vec![flags(false, true), stranger.back_signature(&sub, Sha256, bound)])],
        Some("does not verify"),
    );
    sub_case(
        "subkey-without-flag",
        &[bind(bound, vec![flags(false, false), back(Sha256, bound)])],
        Some("not marked"),
    );
    sub_case("subkey-expired", &[bind(bound, [full(), vec![lifetime(DAY)]].concat())], Some("expired at"));
    sub_case("subkey-expired-since", &[bind(bound, [full(), vec![lifetime(95 * DAY)]].concat())], None);
    let unbind = |at, more| owner.over_subkey(&sub, T::SubkeyRevocation, Sha256, at, more);
    sub_case(
        "subkey-compromised",
        &[bind(bound, full()), unbind(at + DAY, vec![reason(2)])],
        Some("revoked as compromised"),
    );
    sub_case(
        "subkey-revoked-nothing-said",
        &[bind(bound, full()), unbind(at + DAY, vec![])],
        Some("without a reason"),
    );
    sub_case(
        "subkey-retired",
        &[bind(bound, full()), unbind(at - DAY, vec![reason(3)])],
        Some("was retired"),
    );
    sub_case("subkey-retired-since", &[bind(bound, full()), unbind(at + DAY, vec![reason(3)])], None);
    cases
}

/// RSA, and the weak hashes that only RSA keys speak over.
pub(super) fn rsa_cases(now: u32) -> Vec<(Case, Option<&'static str>)> {
    use HashAlgorithm::{Md5, Ripemd160, Sha1, Sha224, Sha256, Sha512};

    let (born, at) = (now - 100 * DAY, now - 10 * DAY);
    let mut cases = Vec::new();
    let mut add = |name: String, certificate: Vec<u8>, signature: Vec<u8>, why| {
        cases.push((Case { name, certificate, message: MESSAGE.to_vec(), signature }, why));
    };
    let both = || vec![flags(true, true)];
    let small = Owner::new(&KeyType::Rsa(1024), born);
    add(
        "rsa-1024".into(),
        small.certificate(born, both()),
        sign_at(&small.key, at, MESSAGE),
        Some("RSA with 1024 bits"),
    );

    let owner = Owner::new(&KeyType::Rsa(2048), born);
    let sub = owner.subkey(&KeyType::Rsa(2048), born);
    let good = owner.certificate(born, both());
    let certifier = owner.certificate(born, vec![flags(true, false)]);
    let by_owner = |hash| {
        let config = statement(&owner.key, SignatureType::Binary, hash, at, Vec::new());
        sign(&owner.key, config, MESSAGE)
    };
    add("rsa-2048".into(), good.clone(), by_owner(Sha512), None);
    for hash in [Md5, Sha1, Ripemd160, Sha224] {
        add(format!("{hash}"), good.clone(), by_owner(hash), Some("accepted are SHA-256"));
        let weak = [owner.primary(), owner.user(), owner.certify(hash, born, both())].concat();
        let why = Some("no valid self-signature over an accepted hash");
        add(format!("self-signature-{hash}"), weak, by_owner(Sha256), why);
        let bind = |hash, back| {
            let more = vec![flags(false, true), owner.back_signature(&sub, back, born)];
            let binding = owner.over_subkey(&sub, SignatureType::SubkeyBinding, hash, born, more);
            [certifier.clone(), subkey_packet(&sub), binding].concat()
        };
        let signature = || sign_at(&sub, at, MESSAGE);
        add(format!("subkey-binding-{hash}"), bind(hash, Sha256), signature(), Some("not bound"));
        add(format!("back-signature-{hash}"), bind(Sha256, hash), signature(), Some("is not over SHA-256"));
    }
    cases
}
