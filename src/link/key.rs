//! The keys of links.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::{DOMAIN, KeyName, MAX_LIVE_KEYS};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Acceptance, Algorithm, PublicKey, Signer as _, SigningKey};
use crate::secret::Secret;

/// Bytes of an HMAC key, and of its tag.
const HMAC_LENGTH: usize = 32;

/// How a key tags. A token's prefix names it, and the key decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum LinkAlgorithm {
    /// `v1`: HMAC-SHA256 (RFC 2104) with a key of 32 bytes. Whoever verifies can also mint.
    #[serde(rename = "v1")]
    HmacSha256,
    /// `v2`: Ed25519 (RFC 8032). An edge that has the public half verifies and cannot mint.
    #[serde(rename = "v2")]
    Ed25519,
}

impl LinkAlgorithm {
    /// The prefix of its tokens.
    pub fn prefix(self) -> &'static str {
        match self {
            LinkAlgorithm::HmacSha256 => "v1",
            LinkAlgorithm::Ed25519 => "v2",
        }
    }
}

impl fmt::Display for LinkAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.prefix())
    }
}

impl FromStr for LinkAlgorithm {
    type Err = Error;

    fn from_str(text: &str) -> Result<LinkAlgorithm> {
        match text {
            "v1" => Ok(LinkAlgorithm::HmacSha256),
            "v2" => Ok(LinkAlgorithm::Ed25519),
            _ => Err(Error::invalid("a link's algorithm is \"v1\" (HMAC-SHA256) or \"v2\" (Ed25519)")),
        }
    }
}

/// What a key is good for. It only goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum KeyState {
    /// It mints and verifies.
    Active,
    /// It verifies what it minted.
    VerifyOnly,
    /// It is good for nothing, and forgotten but for its name.
    Revoked,
}

impl KeyState {
    /// A stable kebab-case name.
    pub fn as_str(self) -> &'static str {
        match self {
            KeyState::Active => "active",
            KeyState::VerifyOnly => "verify-only",
            KeyState::Revoked => "revoked",
        }
    }
}

/// A key for links and for nothing else.
#[derive(Clone)]
pub struct LinkKey {
    name: KeyName,
    algorithm: LinkAlgorithm,
    material: Material,
    state: KeyState,
    created: Timestamp,
}

#[derive(Clone)]
enum Material {
    /// The secret, and the state of an HMAC that has taken in the domain.
    Hmac(Arc<(Secret, Hmac<Sha256>)>),
    Pair(Arc<(SigningKey, PublicKey)>),
    Public(Arc<PublicKey>),
    Forgotten,
}

impl LinkKey {
    /// A new key.
    pub fn generate(name: KeyName, algorithm: LinkAlgorithm, now: Timestamp) -> Result<LinkKey> {
        match algorithm {
            LinkAlgorithm::HmacSha256 => LinkKey::hmac(name, Secret::random(HMAC_LENGTH)?, now),
            LinkAlgorithm::Ed25519 => {
                LinkKey::pair(name, SigningKey::generate(Algorithm::Ed25519, "", now)?, now)
            }
        }
    }

    /// A `v1` key with these 32 bytes.
    pub fn hmac(name: KeyName, secret: Secret, created: Timestamp) -> Result<LinkKey> {
        if secret.expose().len() != HMAC_LENGTH {
            return Err(Error::invalid(format!("a v1 link key has {HMAC_LENGTH} bytes")));
        }
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose())
            .map_err(|_| Error::new(ErrorKind::Internal, "HMAC takes keys of every length"))?;
        mac.update(DOMAIN);
        let material = Material::Hmac(Arc::new((secret, mac)));
        Ok(LinkKey { name, algorithm: LinkAlgorithm::HmacSha256, material, state: KeyState::Active, created })
    }

    /// A `v2` key that mints.
    pub fn pair(name: KeyName, key: SigningKey, created: Timestamp) -> Result<LinkKey> {
        let public = ed25519(key.public_key())?;
        let material = Material::Pair(Arc::new((key, public)));
        Ok(LinkKey { name, algorithm: LinkAlgorithm::Ed25519, material, state: KeyState::Active, created })
    }

    /// A `v2` key that verifies what is minted elsewhere.
    pub fn public(name: KeyName, key: PublicKey, created: Timestamp) -> Result<LinkKey> {
        let material = Material::Public(Arc::new(ed25519(key)?));
        let state = KeyState::VerifyOnly;
        Ok(LinkKey { name, algorithm: LinkAlgorithm::Ed25519, material, state, created })
    }

    /// The name of a key that was revoked.
    pub fn forgotten(name: KeyName, algorithm: LinkAlgorithm, created: Timestamp) -> LinkKey {
        LinkKey { name, algorithm, material: Material::Forgotten, state: KeyState::Revoked, created }
    }

    /// The key's id.
    pub fn name(&self) -> &KeyName {
        &self.name
    }

    /// How it tags.
    pub fn algorithm(&self) -> LinkAlgorithm {
        self.algorithm
    }

    /// What it is good for.
    pub fn state(&self) -> KeyState {
        self.state
    }

    /// When it was made.
    pub fn created(&self) -> Timestamp {
        self.created
    }

    /// The public half of a `v2` key.
    pub fn public_key(&self) -> Option<&PublicKey> {
        match &self.material {
            Material::Pair(pair) => Some(&pair.1),
            Material::Public(public) => Some(public),
            Material::Hmac(_) | Material::Forgotten => None,
        }
    }

    /// Whether it has what minting takes.
    pub fn can_mint(&self) -> bool {
        self.state == KeyState::Active && matches!(self.material, Material::Hmac(_) | Material::Pair(_))
    }

    /// The secret part, as [`from_secret`](LinkKey::from_secret) reads it: a line with the prefix,
    /// then 32 bytes in hex or a PEM `PRIVATE KEY`. `None` if the key has none.
    pub fn to_secret(&self) -> Option<Secret> {
        match &self.material {
            Material::Hmac(hmac) => {
                let hex = zeroize::Zeroizing::new(crate::digest::to_hex(hmac.0.expose()));
                Some(Secret::new(format!("v1\n{}\n", *hex)))
            }
            Material::Pair(pair) => {
                let mut text = b"v2\n".to_vec();
                text.extend_from_slice(pair.0.to_secret().expose());
                Some(Secret::new(text))
            }
            Material::Public(_) | Material::Forgotten => None,
        }
    }

    /// Reads what [`to_secret`](LinkKey::to_secret) wrote.
    pub fn from_secret(name: KeyName, secret: &Secret, created: Timestamp) -> Result<LinkKey> {
        let damaged = || Error::new(ErrorKind::Corrupted, "the file of a link key cannot be read");
        let text = secret.expose_str().ok_or_else(damaged)?;
        match text.split_once('\n') {
            Some(("v1", hex)) => {
                let mut bytes = zeroize::Zeroizing::new([0; HMAC_LENGTH]);
                crate::digest::decode_hex(hex.trim_end(), &mut *bytes).ok_or_else(damaged)?;
                LinkKey::hmac(name, Secret::new(bytes.as_slice()), created)
            }
            Some(("v2", pem)) => LinkKey::pair(name, SigningKey::from_secret(&Secret::new(pem))?, created),
            _ => Err(damaged()),
        }
    }

    /// The tag over `text`.
    pub(super) fn tag(&self, text: &str, now: Timestamp) -> Result<Vec<u8>> {
        match &self.material {
            Material::Hmac(hmac) if self.state == KeyState::Active => {
                let mut mac = hmac.1.clone();
                mac.update(text.as_bytes());
                Ok(mac.finalize().into_bytes().to_vec())
            }
            Material::Pair(pair) if self.state == KeyState::Active => {
                pair.0.sign(&[DOMAIN, text.as_bytes()].concat(), now)
            }
            _ => Err(Error::new(
                ErrorKind::Conflict,
                format!("the link key {} is {} and does not mint", self.name, self.state.as_str()),
            )),
        }
    }

    /// Whether `tag` is this key's over `text`, in time that does not depend on where they differ.
    /// A forgotten key does the work too, and never agrees.
    pub(super) fn verify(&self, text: &str, tag: &[u8]) -> bool {
        match &self.material {
            Material::Hmac(hmac) => {
                let mut mac = hmac.1.clone();
                mac.update(text.as_bytes());
                mac.verify_slice(tag).is_ok()
            }
            Material::Pair(pair) => agrees(&pair.1, text, tag),
            Material::Public(public) => agrees(public, text, tag),
            Material::Forgotten => {
                if let Some(dummy) = LinkKey::dummy(self.algorithm) {
                    let _ = dummy.verify(text, tag);
                }
                false
            }
        }
    }

    /// A key that nobody has, for tokens of keys that nobody knows.
    pub(super) fn dummy(algorithm: LinkAlgorithm) -> Option<&'static LinkKey> {
        static HMAC: OnceLock<Option<LinkKey>> = OnceLock::new();
        static ED25519: OnceLock<Option<LinkKey>> = OnceLock::new();
        let cell = match algorithm {
            LinkAlgorithm::HmacSha256 => &HMAC,
            LinkAlgorithm::Ed25519 => &ED25519,
        };
        let make = || LinkKey::generate(KeyName::new("dummy").ok()?, algorithm, Timestamp::EPOCH).ok();
        cell.get_or_init(make).as_ref()
    }
}

fn agrees(key: &PublicKey, text: &str, tag: &[u8]) -> bool {
    key.verify(&[DOMAIN, text.as_bytes()].concat(), tag, &Acceptance::at(Timestamp::EPOCH)).is_ok()
}

fn ed25519(key: PublicKey) -> Result<PublicKey> {
    if key.algorithm() == Algorithm::Ed25519 {
        Ok(key)
    } else {
        Err(Error::invalid("a v2 link key is an Ed25519 key"))
    }
}

impl fmt::Debug for LinkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("LinkKey");
        shown.field("name", &self.name).field("algorithm", &self.algorithm).field("state", &self.state);
        shown.finish_non_exhaustive()
    }
}

/// The keys of a tenant. Revoked ones stay as names, so that none comes back.
#[derive(Clone, Debug)]
pub struct LinkKeys {
    keys: Vec<LinkKey>,
    generation: u64,
}

impl Default for LinkKeys {
    fn default() -> LinkKeys {
        LinkKeys { keys: Vec::new(), generation: next_generation() }
    }
}

/// Two rings with the same number have the same keys, within a process.
fn next_generation() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl LinkKeys {
    /// A ring without keys.
    pub fn new() -> LinkKeys {
        LinkKeys::default()
    }

    /// All keys, in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = &LinkKey> {
        self.keys.iter()
    }

    /// The key of this name.
    pub fn key(&self, name: &str) -> Option<&LinkKey> {
        self.keys.iter().find(|key| key.name.as_str() == name)
    }

    /// A number that changes with every change of the ring.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The key to mint with: the one of this name, or the newest of `algorithm`, or the newest.
    ///
    /// # Errors
    /// `NotFound` if there is no such key, `Conflict` if it does not mint.
    pub fn minting(&self, name: Option<&KeyName>, algorithm: Option<LinkAlgorithm>) -> Result<&LinkKey> {
        let fits = |key: &&LinkKey| algorithm.is_none_or(|algorithm| key.algorithm == algorithm);
        let found = match name {
            Some(name) => self.keys.iter().filter(fits).find(|key| key.name == *name),
            None => self.keys.iter().filter(fits).filter(|key| key.can_mint()).max_by_key(|key| key.created),
        };
        let key =
            found.ok_or_else(|| Error::new(ErrorKind::NotFound, "there is no such link key to mint with"))?;
        if key.can_mint() {
            return Ok(key);
        }
        let message = format!("the link key {} does not mint here", key.name);
        Err(Error::new(ErrorKind::Conflict, message))
    }

    /// Adds a key.
    ///
    /// # Errors
    /// `Conflict` if there is or was one of this name, or if as many are live as may be.
    pub fn add(&mut self, key: LinkKey) -> Result<()> {
        if self.key(key.name.as_str()).is_some() {
            let message = format!("there is or was a link key named {}", key.name);
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        let live = self.keys.iter().filter(|key| key.state != KeyState::Revoked).count();
        if key.state != KeyState::Revoked && live >= MAX_LIVE_KEYS {
            let message = format!("{MAX_LIVE_KEYS} link keys are live already: revoke or remove one first");
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        self.keys.push(key);
        self.generation = next_generation();
        Ok(())
    }

    /// Moves a key forward to `state`; a revoked key forgets its secret.
    ///
    /// # Errors
    /// `NotFound` without the key, `Conflict` for a step back.
    pub fn set_state(&mut self, name: &KeyName, state: KeyState) -> Result<()> {
        let key = self.keys.iter_mut().find(|key| key.name == *name);
        let key =
            key.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no link key named {name}")))?;
        if state < key.state {
            let message = format!("the link key {name} is {} and stays so", key.state.as_str());
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        key.state = state;
        if state == KeyState::Revoked {
            key.material = Material::Forgotten;
        }
        self.generation = next_generation();
        Ok(())
    }

    /// Takes a key off, whose links are all dead; `true` if it was there.
    pub fn remove(&mut self, name: &KeyName) -> bool {
        let before = self.keys.len();
        self.keys.retain(|key| key.name != *name);
        self.generation = next_generation();
        self.keys.len() != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix(1_800_000_000);

    #[test]
    fn keys_come_back_from_their_files_and_do_not_print() {
        for algorithm in [LinkAlgorithm::HmacSha256, LinkAlgorithm::Ed25519] {
            let key = LinkKey::generate(KeyName::new("k1").unwrap(), algorithm, NOW).unwrap();
            let secret = key.to_secret().unwrap();
            let again = LinkKey::from_secret(key.name().clone(), &secret, NOW).unwrap();
            assert_eq!(again.algorithm(), algorithm);
            assert!(again.verify("v1.k1.x", &key.tag("v1.k1.x", NOW).unwrap()));
            assert!(!again.verify("v1.k1.y", &key.tag("v1.k1.x", NOW).unwrap()));
            let lines = secret.expose_str().unwrap().lines().nth(1).unwrap().to_owned();
            assert!(!format!("{key:?}").contains(&lines));
        }
    }

    #[test]
    fn a_key_only_goes_forward() {
        let mut keys = LinkKeys::new();
        let name = |text: &str| KeyName::new(text).unwrap();
        for at in 0..MAX_LIVE_KEYS {
            let key =
                LinkKey::generate(name(&format!("k{at}")), LinkAlgorithm::HmacSha256, NOW.plus(at as i64));
            keys.add(key.unwrap()).unwrap();
        }
        let more = LinkKey::generate(name("more"), LinkAlgorithm::HmacSha256, NOW).unwrap();
        assert_eq!(keys.add(more.clone()).unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(keys.minting(None, None).unwrap().name().as_str(), "k7");
        let generation = keys.generation();
        keys.set_state(&name("k7"), KeyState::VerifyOnly).unwrap();
        assert_ne!(keys.generation(), generation);
        assert_eq!(keys.minting(None, None).unwrap().name().as_str(), "k6");
        assert!(keys.set_state(&name("k7"), KeyState::Active).is_err());
        assert!(keys.minting(Some(&name("k7")), None).is_err());
        keys.set_state(&name("k7"), KeyState::Revoked).unwrap();
        assert!(keys.key("k7").unwrap().to_secret().is_none());
        keys.add(more).unwrap();
        let back = LinkKey::generate(name("k7"), LinkAlgorithm::HmacSha256, NOW).unwrap();
        assert!(keys.add(back).is_err(), "a revoked key came back");
        assert!(keys.minting(None, Some(LinkAlgorithm::Ed25519)).is_err());
    }

    #[test]
    fn a_public_key_verifies_and_does_not_mint() {
        let pair = LinkKey::generate(KeyName::new("k").unwrap(), LinkAlgorithm::Ed25519, NOW).unwrap();
        let public = pair.public_key().unwrap().clone();
        let public = LinkKey::public(KeyName::new("k").unwrap(), public, NOW).unwrap();
        assert!(public.verify("t", &pair.tag("t", NOW).unwrap()));
        assert!(public.tag("t", NOW).is_err() && public.to_secret().is_none() && !public.can_mint());
    }
}
