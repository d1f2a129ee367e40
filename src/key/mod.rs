//! Keys: ids, signing and verifying under this crate's own policy, key sets and key rings.
//!
//! A [`PublicKey`] judges one signature; a [`KeySet`] judges whether enough owners signed; a
//! [`KeyRing`] is the list of a signer's key pairs. All are pure: time is an argument, and
//! secrets stay with the caller behind [`Signer`].

mod ed25519;
#[cfg(feature = "openpgp")]
mod openpgp;
mod pae;
mod ring;
mod set;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

pub(crate) use self::pae::pae_head;
pub use self::pae::{pae, pae_parts};
pub use self::ring::{KeyPair, KeyRing};
pub use self::set::{KeySet, MAX_KEYS, TrustedKey};

/// Names a key: lower-case hex, 64 digits for Ed25519 and 40 for OpenPGP.
///
/// The id of an Ed25519 key is the SHA-256 of its canonical TUF key object (TUF 1.0, section
/// 4.2); the id of an OpenPGP key is the fingerprint of its primary key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(Box<str>);

impl KeyId {
    /// Takes `text` as a key id.
    pub fn new(text: &str) -> Result<KeyId> {
        let hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if hex && matches!(text.len(), 40 | 64) { Ok(KeyId(text.into())) } else { Err(bad_key_id(text)) }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cold]
fn bad_key_id(text: &str) -> Error {
    let shown: String = text.chars().take(80).collect();
    Error::invalid(format!("{shown:?} is not a key id: expected 40 or 64 lower-case hex digits"))
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for KeyId {
    type Err = Error;

    fn from_str(text: &str) -> Result<KeyId> {
        KeyId::new(text)
    }
}

impl Serialize for KeyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for KeyId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<KeyId, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        KeyId::new(&text).map_err(serde::de::Error::custom)
    }
}

/// How a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Algorithm {
    /// Pure Ed25519 (RFC 8032), verified strictly.
    Ed25519,
    /// A detached OpenPGP signature over the message.
    OpenPgp,
}

impl Algorithm {
    /// The lower-case name.
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::Ed25519 => "ed25519",
            Algorithm::OpenPgp => "openpgp",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// When a key may sign: from a moment on, and before another one if it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// The first moment of the window.
    pub from: Timestamp,
    /// The first moment after the window; `None` for a window without end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl Window {
    /// From the epoch on, without end.
    pub const ALWAYS: Window = Window { from: Timestamp::EPOCH, until: None };

    /// From `from` on, without end.
    pub const fn starting(from: Timestamp) -> Window {
        Window { from, until: None }
    }

    /// Whether `moment` lies in the window.
    pub fn contains(&self, moment: Timestamp) -> bool {
        moment >= self.from && self.until.is_none_or(|until| moment < until)
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.until {
            Some(until) => write!(f, "{} to {until}", self.from),
            None => write!(f, "{} on", self.from),
        }
    }
}

/// That a key is no longer to be trusted, from when on, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// The first moment at which the key is revoked.
    pub at: Timestamp,
    /// Why, for people.
    pub reason: String,
    /// Whether the secret may be known to others: then no signature of the key counts, whenever
    /// it claims to have been made.
    pub compromised: bool,
}

/// Under which circumstances a signature of a key is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acceptance {
    /// The present moment.
    pub now: Timestamp,
    /// When the key may sign.
    pub window: Window,
    /// Whether and since when the key is revoked.
    pub revocation: Option<Revocation>,
}

impl Acceptance {
    /// At `now`, without a window or a revocation.
    pub const fn at(now: Timestamp) -> Acceptance {
        Acceptance { now, window: Window::ALWAYS, revocation: None }
    }
}

/// The public half of a key pair.
///
/// Its text form is `ed25519:` and 64 hex digits, or an armored OpenPGP public key block.
#[derive(Clone)]
pub struct PublicKey(Kind);

#[derive(Clone)]
enum Kind {
    Ed25519(ed25519::Verifier),
    #[cfg(feature = "openpgp")]
    OpenPgp(std::sync::Arc<openpgp::Certificate>),
}

impl PublicKey {
    /// The Ed25519 key with these bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if they are no point of the curve, not its canonical form, or of
    /// small order (such a key accepts signatures that nobody made).
    pub fn from_ed25519(bytes: [u8; 32]) -> Result<PublicKey> {
        ed25519::Verifier::new(bytes).map(|key| PublicKey(Kind::Ed25519(key)))
    }

    /// The 32 bytes of an Ed25519 key; `None` for a key of another kind.
    pub fn to_ed25519(&self) -> Option<[u8; 32]> {
        match &self.0 {
            Kind::Ed25519(key) => Some(key.to_bytes()),
            #[cfg(feature = "openpgp")]
            Kind::OpenPgp(_) => None,
        }
    }

    /// Reads `ed25519:` and 64 lower-case hex digits, an Ed25519 `PUBLIC KEY` in PEM (RFC 8410),
    /// or an armored OpenPGP public key block.
    pub fn parse(text: &str) -> Result<PublicKey> {
        let text = text.trim();
        if let Some(hex) = text.strip_prefix("ed25519:") {
            return ed25519::Verifier::from_hex(hex).map(|key| PublicKey(Kind::Ed25519(key)));
        }
        if text.starts_with("-----BEGIN PUBLIC KEY-----") {
            return ed25519::Verifier::from_pem(text).map(|key| PublicKey(Kind::Ed25519(key)));
        }
        if text.starts_with("-----BEGIN PGP ") {
            return parse_openpgp(text);
        }
        Err(Error::invalid(
            "this is not a public key: expected \"ed25519:\" and 64 hex digits, a PEM \"PUBLIC KEY\" \
             or an armored OpenPGP public key block",
        ))
    }

    /// The text form, which [`parse`](PublicKey::parse) reads back.
    pub fn to_text(&self) -> String {
        match &self.0 {
            Kind::Ed25519(key) => key.to_text(),
            #[cfg(feature = "openpgp")]
            Kind::OpenPgp(certificate) => certificate.to_armored(),
        }
    }

    /// The form other tools read: SPKI PEM (`openssl`) or the armored block (`gpg --import`).
    pub fn to_pem(&self) -> String {
        match &self.0 {
            Kind::Ed25519(key) => key.to_pem(),
            #[cfg(feature = "openpgp")]
            Kind::OpenPgp(certificate) => certificate.to_armored(),
        }
    }

    /// How the key signs.
    pub fn algorithm(&self) -> Algorithm {
        match &self.0 {
            Kind::Ed25519(_) => Algorithm::Ed25519,
            #[cfg(feature = "openpgp")]
            Kind::OpenPgp(_) => Algorithm::OpenPgp,
        }
    }

    /// The key's id.
    pub fn id(&self) -> KeyId {
        match &self.0 {
            Kind::Ed25519(key) => KeyId(key.id().into()),
            #[cfg(feature = "openpgp")]
            Kind::OpenPgp(certificate) => KeyId(certificate.fingerprint().into()),
        }
    }

    /// Whether `signature` is this key's over `message`, and acceptable.
    ///
    /// An Ed25519 signature carries no time, so `now` must lie in the window and not after a
    /// revocation. An OpenPGP signature is judged at the time it was made, under the policy of
    /// this crate (armored and binary forms are read).
    ///
    /// # Errors
    /// [`ErrorKind::Untrusted`] with the reason.
    pub fn verify(&self, message: &[u8], signature: &[u8], acceptance: &Acceptance) -> Result<()> {
        match &self.0 {
            Kind::Ed25519(key) => {
                accept_now(acceptance)?;
                key.verify(message, signature)
            }
            #[cfg(feature = "openpgp")]
            Kind::OpenPgp(certificate) => certificate.verify(message, signature, acceptance),
        }
    }

    /// Whether `signature` could be one of this key's, told from its outer form alone.
    fn could_have_made(&self, signature: &[u8]) -> bool {
        match &self.0 {
            Kind::Ed25519(_) => signature.len() == ed25519::SIGNATURE,
            #[cfg(feature = "openpgp")]
            Kind::OpenPgp(_) => signature.len() != ed25519::SIGNATURE,
        }
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &PublicKey) -> bool {
        self.to_text() == other.to_text()
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} {})", self.algorithm(), self.id())
    }
}

impl FromStr for PublicKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<PublicKey> {
        PublicKey::parse(text)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_text())
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PublicKey, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        PublicKey::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Something that holds a secret key and signs with it: a [`SigningKey`], an agent, a module.
///
/// # Contract
/// - `public_key` is the same at every call.
/// - What `sign` returns verifies under `public_key` at `now`.
pub trait Signer: fmt::Debug + Send + Sync {
    /// The public half.
    fn public_key(&self) -> PublicKey;

    /// A signature over `message`: 64 bytes for Ed25519, an armored detached signature made at
    /// `now` for OpenPGP.
    fn sign(&self, message: &[u8], now: Timestamp) -> Result<Vec<u8>>;
}

/// A key pair held in memory. `Debug` shows the public half.
pub struct SigningKey(Pair);

enum Pair {
    Ed25519(Box<ed25519::Pair>),
    #[cfg(feature = "openpgp")]
    OpenPgp(Box<openpgp::SecretCertificate>),
}

impl SigningKey {
    /// A new key pair. `user_id` names an OpenPGP certificate's owner (`Name <mail@host>`); an
    /// Ed25519 key carries none.
    pub fn generate(algorithm: Algorithm, user_id: &str, now: Timestamp) -> Result<SigningKey> {
        match algorithm {
            Algorithm::Ed25519 => {
                ed25519::Pair::generate().map(|pair| SigningKey(Pair::Ed25519(Box::new(pair))))
            }
            Algorithm::OpenPgp => generate_openpgp(user_id, now),
        }
    }

    /// The Ed25519 key pair of a seed of 32 bytes (RFC 8032 section 5.1.5).
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for another length.
    pub fn from_ed25519_seed(seed: &Secret) -> Result<SigningKey> {
        ed25519::Pair::from_seed(seed.expose()).map(|pair| SigningKey(Pair::Ed25519(Box::new(pair))))
    }

    /// Reads what [`to_secret`](SigningKey::to_secret) wrote: an Ed25519 `PRIVATE KEY` in PEM
    /// (RFC 8410, as `openssl genpkey` writes it) or an armored OpenPGP private key block.
    pub fn from_secret(secret: &Secret) -> Result<SigningKey> {
        let text = secret.expose_str().unwrap_or_default().trim_start();
        if text.starts_with("-----BEGIN PRIVATE KEY-----") {
            return ed25519::Pair::from_pem(text).map(|pair| SigningKey(Pair::Ed25519(Box::new(pair))));
        }
        if text.starts_with("-----BEGIN PGP ") {
            return secret_openpgp(secret);
        }
        Err(Error::invalid(
            "this is not a private key: expected a PEM \"PRIVATE KEY\" or an armored OpenPGP private key block",
        ))
    }

    /// The pair in the form [`from_secret`](SigningKey::from_secret) reads.
    pub fn to_secret(&self) -> Secret {
        match &self.0 {
            Pair::Ed25519(pair) => pair.to_pem(),
            #[cfg(feature = "openpgp")]
            Pair::OpenPgp(certificate) => certificate.to_secret(),
        }
    }
}

impl Signer for SigningKey {
    fn public_key(&self) -> PublicKey {
        match &self.0 {
            Pair::Ed25519(pair) => PublicKey(Kind::Ed25519(pair.verifier())),
            #[cfg(feature = "openpgp")]
            Pair::OpenPgp(secret) => PublicKey(Kind::OpenPgp(std::sync::Arc::new(secret.certificate()))),
        }
    }

    #[cfg_attr(
        not(feature = "openpgp"),
        expect(unused_variables, reason = "Ed25519 signatures carry no time")
    )]
    fn sign(&self, message: &[u8], now: Timestamp) -> Result<Vec<u8>> {
        match &self.0 {
            Pair::Ed25519(pair) => Ok(pair.sign(message)),
            #[cfg(feature = "openpgp")]
            Pair::OpenPgp(secret) => secret.sign(message, now),
        }
    }
}

impl<S: Signer + ?Sized> Signer for std::sync::Arc<S> {
    fn public_key(&self) -> PublicKey {
        (**self).public_key()
    }

    fn sign(&self, message: &[u8], now: Timestamp) -> Result<Vec<u8>> {
        (**self).sign(message, now)
    }
}

impl<S: Signer + ?Sized> Signer for Box<S> {
    fn public_key(&self) -> PublicKey {
        (**self).public_key()
    }

    fn sign(&self, message: &[u8], now: Timestamp) -> Result<Vec<u8>> {
        (**self).sign(message, now)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.public_key()).finish()
    }
}

#[cfg(feature = "openpgp")]
fn parse_openpgp(text: &str) -> Result<PublicKey> {
    let certificate = openpgp::Certificate::parse(text.as_bytes())?;
    Ok(PublicKey(Kind::OpenPgp(std::sync::Arc::new(certificate))))
}

#[cfg(feature = "openpgp")]
fn generate_openpgp(user_id: &str, now: Timestamp) -> Result<SigningKey> {
    let secret = openpgp::SecretCertificate::generate(user_id, now)?;
    Ok(SigningKey(Pair::OpenPgp(Box::new(secret))))
}

#[cfg(feature = "openpgp")]
fn secret_openpgp(secret: &Secret) -> Result<SigningKey> {
    Ok(SigningKey(Pair::OpenPgp(Box::new(openpgp::SecretCertificate::parse(secret)?))))
}

#[cfg(not(feature = "openpgp"))]
fn parse_openpgp(_text: &str) -> Result<PublicKey> {
    Err(without_openpgp())
}

#[cfg(not(feature = "openpgp"))]
fn generate_openpgp(_user_id: &str, _now: Timestamp) -> Result<SigningKey> {
    Err(without_openpgp())
}

#[cfg(not(feature = "openpgp"))]
fn secret_openpgp(_secret: &Secret) -> Result<SigningKey> {
    Err(without_openpgp())
}

#[cfg(not(feature = "openpgp"))]
#[cold]
fn without_openpgp() -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "OpenPGP keys need the feature \"openpgp\", which this build leaves out",
    )
}

/// The rule for signatures that carry no time of their own.
fn accept_now(acceptance: &Acceptance) -> Result<()> {
    let now = acceptance.now;
    if !acceptance.window.contains(now) {
        return Err(untrusted(format!(
            "the key may sign {}, and it is {now}; its signatures carry no time of their own",
            acceptance.window
        )));
    }
    match &acceptance.revocation {
        Some(revocation) if revocation.compromised || revocation.at <= now => {
            let how = if revocation.compromised { "revoked as compromised" } else { "revoked" };
            Err(untrusted(format!("the key is {how} since {}: {}", revocation.at, revocation.reason)))
        }
        _ => Ok(()),
    }
}

#[cold]
fn untrusted(message: String) -> Error {
    Error::new(ErrorKind::Untrusted, message)
}
