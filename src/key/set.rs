//! Who may sign, and whether enough of them did.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Acceptance, PublicKey, Revocation, Window};

/// Most keys of one set.
pub const MAX_KEYS: usize = 32;
/// Most bytes hashed for one [`KeySet::verify`]: what 32 signatures over the largest payload cost.
const MAX_WORK: usize = 1 << 30;

/// A public key, whose it is, and when it counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustedKey {
    /// The key.
    pub key: PublicKey,
    /// Whose it is. Thresholds count owners, not keys.
    pub owner: String,
    /// A name for people.
    pub alias: String,
    /// When the key may sign.
    pub window: Window,
    /// That and why it no longer counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation: Option<Revocation>,
}

impl TrustedKey {
    /// A key of `owner`, good at any time until it is revoked.
    pub fn new(key: PublicKey, owner: &str, alias: &str) -> TrustedKey {
        TrustedKey { key, owner: owner.into(), alias: alias.into(), window: Window::ALWAYS, revocation: None }
    }

    fn acceptance(&self, now: Timestamp) -> Acceptance {
        Acceptance { now, window: self.window, revocation: self.revocation.clone() }
    }
}

/// Keys of which a number of distinct owners must sign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySet {
    /// How many distinct owners must sign.
    pub threshold: u32,
    /// The keys, at most [`MAX_KEYS`].
    pub keys: Vec<TrustedKey>,
}

impl KeySet {
    /// A checked set.
    ///
    /// # Errors
    /// As [`check`](KeySet::check).
    pub fn new(threshold: u32, keys: Vec<TrustedKey>) -> Result<KeySet> {
        let set = KeySet { threshold, keys };
        set.check()?;
        Ok(set)
    }

    /// Whether the set can be used: 1 to [`MAX_KEYS`] keys, no key twice, no alias twice, owners
    /// and aliases of 1 to 128 printable characters, and a threshold of at least 1 that the
    /// distinct owners can reach.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] with the fault.
    pub fn check(&self) -> Result<()> {
        if self.keys.is_empty() || self.keys.len() > MAX_KEYS {
            return Err(Error::invalid(format!(
                "a key set has 1 to {MAX_KEYS} keys, this one has {}",
                self.keys.len()
            )));
        }
        let mut ids = BTreeSet::new();
        let mut owners = BTreeSet::new();
        let mut aliases = BTreeSet::new();
        for key in &self.keys {
            check_label("owner", &key.owner)?;
            check_label("alias", &key.alias)?;
            let id = key.key.id();
            if !aliases.insert(key.alias.as_str()) {
                return Err(Error::invalid(format!("the key alias {:?} is used twice", key.alias)));
            }
            if !ids.insert(id.clone()) {
                return Err(Error::invalid(format!("the key {id} is listed twice")));
            }
            owners.insert(key.owner.as_str());
        }
        if self.threshold == 0 || self.threshold as usize > owners.len() {
            return Err(Error::invalid(format!(
                "the threshold is {}, but the keys have {} distinct owner(s): it must be 1 to {}",
                self.threshold,
                owners.len(),
                owners.len()
            )));
        }
        Ok(())
    }

    /// Whether enough distinct owners signed `message`; `signatures` are pairs of key id and
    /// signature. Returns one key for each owner that signed.
    ///
    /// # Errors
    /// [`ErrorKind::Untrusted`] below the threshold, with the reason for each signature that did
    /// not count; [`ErrorKind::Invalid`] for a set that fails its [`check`](KeySet::check).
    pub fn verify(
        &self,
        message: &[u8],
        signatures: &[(&str, &[u8])],
        now: Timestamp,
    ) -> Result<Vec<&TrustedKey>> {
        self.check()?;
        let mut counted: Vec<&TrustedKey> = Vec::new();
        let mut refusals: Vec<String> = Vec::new();
        let mut work = 0_usize;
        for (at, (keyid, signature)) in signatures.iter().enumerate() {
            // DSSE 1.0.2, protocol: the key id is an unauthenticated hint; it orders the
            // attempts and decides nothing.
            let (hinted, others): (Vec<_>, Vec<_>) =
                self.keys.iter().partition(|key| key.key.id().as_str() == *keyid);
            let mut refusal = None;
            for key in hinted.into_iter().chain(others) {
                // An owner that already counted cannot count again, whichever key signed.
                if counted.iter().any(|one| one.owner == key.owner) || !key.key.could_have_made(signature) {
                    continue;
                }
                work = work.saturating_add(message.len());
                if work > MAX_WORK {
                    return Err(too_much_work());
                }
                match key.key.verify(message, signature, &key.acceptance(now)) {
                    Ok(()) => {
                        counted.push(key);
                        refusal = None;
                        break;
                    }
                    // The hinted key comes first: its reason is the one that helps.
                    Err(error) => {
                        let reason = || format!("signature {at} by {:?}: {error}", key.alias);
                        refusal.get_or_insert_with(reason);
                    }
                }
            }
            refusals.extend(refusal);
        }
        if counted.len() < self.threshold as usize {
            return Err(below_threshold(counted.len(), self.threshold, signatures.len(), &refusals));
        }
        Ok(counted)
    }
}

pub(super) fn check_label(what: &str, text: &str) -> Result<()> {
    if text.is_empty() || text.len() > 128 || text.chars().any(char::is_control) {
        return Err(Error::invalid(format!(
            "{text:?} is not a key's {what}: 1 to 128 bytes without control characters"
        )));
    }
    Ok(())
}

#[cold]
fn below_threshold(counted: usize, threshold: u32, signatures: usize, refusals: &[String]) -> Error {
    let mut message =
        format!("{counted} of {threshold} required owners signed, {signatures} signature(s) were given");
    for refusal in refusals {
        message.push_str("; ");
        message.push_str(refusal);
    }
    Error::new(ErrorKind::Untrusted, message)
}

#[cold]
fn too_much_work() -> Error {
    Error::new(
        ErrorKind::Untrusted,
        "the signatures do not name their keys, and trying every key would cost too much",
    )
}
