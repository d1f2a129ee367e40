//! A signer's key pairs: which there are, which is the default, which may sign.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{KeyId, KeySet, MAX_KEYS, PublicKey, Revocation, TrustedKey, Window};

/// One key pair of a ring: its public half and its state. The secret half is elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyPair {
    /// The public half.
    pub key: PublicKey,
    /// The name it is called by; unique in the ring.
    pub alias: String,
    /// Whose it is.
    pub owner: String,
    /// When it may sign.
    pub window: Window,
    /// That and why it no longer signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation: Option<Revocation>,
    /// Whether it signs when no alias is named.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub default: bool,
}

impl KeyPair {
    /// Whether the pair may sign at `now`.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] with the reason it may not.
    pub fn usable(&self, now: Timestamp) -> Result<()> {
        let revoked = self.revocation.as_ref().filter(|one| one.compromised || one.at <= now);
        if let Some(revocation) = revoked {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "the key {:?} is revoked since {} ({}) and signs nothing",
                    self.alias, revocation.at, revocation.reason
                ),
            ));
        }
        if now < self.window.from {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("the key {:?} may sign from {} on, and it is {now}", self.alias, self.window.from),
            ));
        }
        match self.window.until {
            Some(until) if now >= until => Err(Error::new(
                ErrorKind::Conflict,
                format!("the key {:?} expired at {until} and signs nothing", self.alias),
            )),
            _ => Ok(()),
        }
    }

    fn to_trusted(&self) -> TrustedKey {
        TrustedKey {
            key: self.key.clone(),
            owner: self.owner.clone(),
            alias: self.alias.clone(),
            window: self.window,
            revocation: self.revocation.clone(),
        }
    }
}

/// The key pairs of one tenant's signer. A pure document without secrets: the caller keeps
/// those, and finds them by [`KeyId`].
///
/// At most one pair is the default; the first one added is, until another is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Pairs", into = "Pairs")]
pub struct KeyRing {
    pairs: Vec<KeyPair>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pairs {
    keys: Vec<KeyPair>,
}

impl KeyRing {
    /// A ring without keys.
    pub fn new() -> KeyRing {
        KeyRing::default()
    }

    /// The pairs, in the order they were added.
    pub fn pairs(&self) -> &[KeyPair] {
        &self.pairs
    }

    /// The pair called `alias`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] with the aliases there are.
    pub fn pair(&self, alias: &str) -> Result<&KeyPair> {
        self.pairs.iter().find(|pair| pair.alias == alias).ok_or_else(|| self.no_such(alias))
    }

    /// The pair with this id.
    pub fn by_id(&self, id: &KeyId) -> Option<&KeyPair> {
        self.pairs.iter().find(|pair| pair.key.id() == *id)
    }

    /// The pair to sign with: the one called `alias`, or the default one.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none; [`ErrorKind::Conflict`] if it is revoked or
    /// outside its window.
    pub fn signer(&self, alias: Option<&str>, now: Timestamp) -> Result<&KeyPair> {
        let pair = match alias {
            Some(alias) => self.pair(alias)?,
            None => self.pairs.iter().find(|pair| pair.default).ok_or_else(no_default)?,
        };
        pair.usable(now)?;
        Ok(pair)
    }

    /// The public halves as a set in which `threshold` distinct owners must sign. Revoked keys
    /// stay in it with their revocation.
    ///
    /// # Errors
    /// As [`KeySet::check`].
    pub fn to_key_set(&self, threshold: u32) -> Result<KeySet> {
        KeySet::new(threshold, self.pairs.iter().map(KeyPair::to_trusted).collect())
    }

    /// Adds a pair.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if the alias or the key is in the ring; [`ErrorKind::Invalid`] for
    /// a bad alias or owner, an empty window, or more than [`MAX_KEYS`] pairs.
    pub fn add(&mut self, key: PublicKey, alias: &str, owner: &str, window: Window) -> Result<()> {
        let default = !self.pairs.iter().any(|pair| pair.default);
        self.insert(KeyPair {
            key,
            alias: alias.into(),
            owner: owner.into(),
            window,
            revocation: None,
            default,
        })
    }

    /// Makes the pair called `alias` the default.
    ///
    /// # Errors
    /// As [`signer`](KeyRing::signer): a key that may not sign is no default.
    pub fn set_default(&mut self, alias: &str, now: Timestamp) -> Result<()> {
        self.signer(Some(alias), now)?;
        for pair in &mut self.pairs {
            pair.default = pair.alias == alias;
        }
        Ok(())
    }

    /// Sets when the pair called `alias` may sign.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], or [`ErrorKind::Invalid`] for an empty window.
    pub fn set_window(&mut self, alias: &str, window: Window) -> Result<()> {
        check_window(alias, &window)?;
        self.pair_mut(alias)?.window = window;
        Ok(())
    }

    /// Revokes the pair called `alias`. A revocation stays; a second one may only make it
    /// stricter (compromised, or earlier).
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], or [`ErrorKind::Conflict`] for a revocation that would loosen
    /// the one there is.
    pub fn revoke(&mut self, alias: &str, revocation: Revocation) -> Result<()> {
        let pair = self.pair_mut(alias)?;
        let looser =
            |old: &&Revocation| (old.compromised && !revocation.compromised) || revocation.at > old.at;
        if let Some(old) = pair.revocation.as_ref().filter(looser) {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("the key {alias:?} is revoked since {} already, and that stays", old.at),
            ));
        }
        pair.revocation = Some(revocation);
        pair.default = false;
        Ok(())
    }

    fn pair_mut(&mut self, alias: &str) -> Result<&mut KeyPair> {
        let missing = self.no_such(alias);
        self.pairs.iter_mut().find(|pair| pair.alias == alias).ok_or(missing)
    }

    fn insert(&mut self, pair: KeyPair) -> Result<()> {
        super::set::check_label("alias", &pair.alias)?;
        super::set::check_label("owner", &pair.owner)?;
        check_window(&pair.alias, &pair.window)?;
        if self.pairs.len() >= MAX_KEYS {
            return Err(Error::invalid(format!("a key ring holds at most {MAX_KEYS} keys")));
        }
        if self.pairs.iter().any(|one| one.alias == pair.alias) {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("the key ring has a key called {:?} already", pair.alias),
            ));
        }
        let id = pair.key.id();
        if let Some(one) = self.by_id(&id) {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("the key {id} is in the key ring already, as {:?}", one.alias),
            ));
        }
        if pair.default && self.pairs.iter().any(|one| one.default) {
            return Err(Error::invalid("a key ring has one default key"));
        }
        self.pairs.push(pair);
        Ok(())
    }

    #[cold]
    fn no_such(&self, alias: &str) -> Error {
        let known: Vec<_> = self.pairs.iter().map(|pair| pair.alias.as_str()).collect();
        let shown: String = alias.chars().take(128).collect();
        Error::new(
            ErrorKind::NotFound,
            format!("the key ring has no key called {shown:?}; it has: {}", known.join(", ")),
        )
    }
}

impl TryFrom<Pairs> for KeyRing {
    type Error = Error;

    fn try_from(pairs: Pairs) -> Result<KeyRing> {
        let mut ring = KeyRing::new();
        for pair in pairs.keys {
            ring.insert(pair)?;
        }
        Ok(ring)
    }
}

impl From<KeyRing> for Pairs {
    fn from(ring: KeyRing) -> Pairs {
        Pairs { keys: ring.pairs }
    }
}

fn check_window(alias: &str, window: &Window) -> Result<()> {
    match window.until {
        Some(until) if until <= window.from => {
            Err(Error::invalid(format!("the key {alias:?} could never sign: its window is {window}")))
        }
        _ => Ok(()),
    }
}

#[cold]
fn no_default() -> Error {
    Error::new(ErrorKind::NotFound, "no key is the default: name one by its alias")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Algorithm, Signer, SigningKey};

    const NOW: Timestamp = Timestamp::from_unix(1_795_323_600);

    fn key() -> PublicKey {
        SigningKey::generate(Algorithm::Ed25519, "", NOW).unwrap().public_key()
    }

    fn revocation(at: Timestamp, compromised: bool) -> Revocation {
        Revocation { at, reason: "laptop lost".into(), compromised }
    }

    #[test]
    fn a_revoked_or_expired_key_signs_nothing() {
        let mut ring = KeyRing::new();
        assert_eq!(ring.signer(None, NOW).unwrap_err().kind(), ErrorKind::NotFound);
        ring.add(key(), "2026", "release", Window { from: NOW, until: Some(NOW.plus(10)) }).unwrap();
        ring.add(key(), "2027", "release", Window::starting(NOW.plus(10))).unwrap();
        assert_eq!(ring.signer(None, NOW).unwrap().alias, "2026");
        let expired = ring.signer(None, NOW.plus(10)).unwrap_err();
        assert_eq!(expired.message(), "the key \"2026\" expired at 2026-11-22T05:00:10Z and signs nothing");
        let early = ring.signer(Some("2027"), NOW).unwrap_err();
        assert!(early.message().contains("may sign from 2026-11-22T05:00:10Z on"), "{early}");
        assert!(ring.set_default("2027", NOW).is_err());
        ring.set_default("2027", NOW.plus(10)).unwrap();
        assert_eq!(ring.signer(None, NOW.plus(10)).unwrap().alias, "2027");
        ring.revoke("2027", revocation(NOW.plus(20), false)).unwrap();
        assert!(ring.signer(Some("2027"), NOW.plus(19)).is_ok());
        let revoked = ring.signer(Some("2027"), NOW.plus(20)).unwrap_err();
        assert!(revoked.message().contains("(laptop lost)"), "{revoked}");
        assert_eq!(ring.signer(None, NOW.plus(10)).unwrap_err().kind(), ErrorKind::NotFound);
        // A revocation is never loosened.
        assert_eq!(
            ring.revoke("2027", revocation(NOW.plus(30), true)).unwrap_err().kind(),
            ErrorKind::Conflict
        );
        ring.revoke("2027", revocation(NOW.plus(20), true)).unwrap();
        assert_eq!(ring.revoke("2027", revocation(NOW, false)).unwrap_err().kind(), ErrorKind::Conflict);
        assert!(ring.signer(Some("2027"), NOW.plus(19)).is_err());
        let missing = ring.signer(Some("2028"), NOW).unwrap_err();
        assert_eq!(missing.message(), "the key ring has no key called \"2028\"; it has: 2026, 2027");
    }

    #[test]
    fn one_alias_one_key_one_default() {
        let (a, b) = (key(), key());
        let mut ring = KeyRing::new();
        ring.add(a.clone(), "a", "ops", Window::ALWAYS).unwrap();
        assert_eq!(ring.add(b.clone(), "a", "ops", Window::ALWAYS).unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(ring.add(a.clone(), "b", "ops", Window::ALWAYS).unwrap_err().kind(), ErrorKind::Conflict);
        let empty = Window { from: NOW, until: Some(NOW) };
        assert_eq!(ring.add(b.clone(), "b", "ops", empty).unwrap_err().kind(), ErrorKind::Invalid);
        ring.add(b, "b", "security", Window::ALWAYS).unwrap();
        assert_eq!(ring.to_key_set(2).unwrap().keys.len(), 2);
        assert!(ring.to_key_set(3).is_err());

        let text = serde_json::to_string(&ring).unwrap();
        assert_eq!(serde_json::from_str::<KeyRing>(&text).unwrap(), ring);
        let two = text.replace("\"alias\":\"b\"", "\"default\":true,\"alias\":\"b\"");
        assert!(serde_json::from_str::<KeyRing>(&two).is_err());
        let same = text.replace("\"alias\":\"b\"", "\"alias\":\"a\"");
        assert!(serde_json::from_str::<KeyRing>(&same).is_err());
        let unknown = text.replace("\"alias\":\"b\"", "\"alias\":\"b\",\"secret\":\"x\"");
        assert!(serde_json::from_str::<KeyRing>(&unknown).is_err());
    }
}
