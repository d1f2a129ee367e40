//! The source's two key rings: release keys sign bundles, root keys sign the trust document.
//!
//! A ring is a public document in the metadata store. Each secret half is one entry of the
//! [`Vault`](super::Vault), `key-<id>.secret`: in a data directory that is a file of mode 0600 under
//! `keys/`. A key whose secret is elsewhere (gpg, a hardware module) is in the ring by its public
//! half alone; its signatures are made there and attached.

use serde::{Deserialize, Serialize};

use super::Source;
use super::record::{ATTEMPTS, decode, encode, key, lost_race};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{
    Algorithm, KeyId, KeyPair, KeyRing, KeySet, PublicKey, Revocation, Signer, SigningKey, Window,
};
use crate::meta::Batch;
use crate::secret::Secret;

/// What the keys of a ring are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Role {
    /// They sign release bundles.
    Release,
    /// They sign the trust document, which names the release keys.
    Root,
}

impl Role {
    /// The lower-case name.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Release => "release",
            Role::Root => "root",
        }
    }
}

/// A key that is to join a ring.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// What it is called in the ring.
    pub alias: String,
    /// Whose it is: a threshold counts owners, not keys.
    pub owner: String,
    /// When it may sign.
    pub window: Window,
}

impl NewKey {
    /// A key called `alias` that is its own owner and may always sign.
    pub fn new(alias: impl Into<String>) -> NewKey {
        let alias = alias.into();
        NewKey { owner: alias.clone(), alias, window: Window::ALWAYS }
    }

    /// The same key, owned by `owner`.
    #[must_use]
    pub fn with_owner(mut self, owner: impl Into<String>) -> NewKey {
        self.owner = owner.into();
        self
    }

    /// The same key, good in `window` only.
    #[must_use]
    pub fn with_window(mut self, window: Window) -> NewKey {
        self.window = window;
        self
    }
}

/// A ring and how many owners of it must sign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ring {
    /// How many distinct owners must sign.
    pub threshold: u32,
    /// The keys.
    pub keys: KeyRing,
}

impl Default for Ring {
    fn default() -> Ring {
        Ring { threshold: 1, keys: KeyRing::new() }
    }
}

impl Ring {
    /// The ring as a key set of the trust document.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if fewer owners are in it than must sign.
    pub fn to_key_set(&self) -> Result<KeySet> {
        self.keys.to_key_set(self.threshold)
    }
}

impl Source {
    /// The ring of `role`.
    pub async fn ring(&self, role: Role) -> Result<Ring> {
        Ok(self.records.load(&ring_key(role)).await?.unwrap_or_default())
    }

    /// Makes a key pair and adds it to the ring. The first key of a ring is its default.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if the alias is taken.
    pub async fn create_key(&self, role: Role, algorithm: Algorithm, new: &NewKey) -> Result<KeyPair> {
        let user_id = format!("{} ({} {} key)", new.owner, self.profile.tenant, role.as_str());
        let pair = SigningKey::generate(algorithm, &user_id, self.clock.now())?;
        self.add_key(role, new, pair.public_key(), Some(pair.to_secret())).await
    }

    /// Adds an existing key pair to the ring: an Ed25519 `PRIVATE KEY` in PEM or an armored OpenPGP
    /// private key block without a passphrase.
    pub async fn import_key(&self, role: Role, new: &NewKey, secret: &Secret) -> Result<KeyPair> {
        let pair = SigningKey::from_secret(secret)?;
        self.add_key(role, new, pair.public_key(), Some(pair.to_secret())).await
    }

    /// Adds the public half of a key whose secret half stays elsewhere.
    pub async fn import_public_key(&self, role: Role, new: &NewKey, public: PublicKey) -> Result<KeyPair> {
        self.add_key(role, new, public, None).await
    }

    /// Makes the key called `alias` the one that signs when none is named.
    pub async fn set_default_key(&self, role: Role, alias: &str) -> Result<()> {
        let now = self.clock.now();
        self.change_ring(role, |ring| ring.keys.set_default(alias, now)).await.map(drop)
    }

    /// Sets when the key called `alias` may sign.
    pub async fn set_key_window(&self, role: Role, alias: &str, window: Window) -> Result<()> {
        self.change_ring(role, |ring| ring.keys.set_window(alias, window)).await.map(drop)
    }

    /// Revokes the key called `alias`: it signs nothing more, and the next trust document tells
    /// every edge. With `compromised`, nothing it ever signed counts.
    pub async fn revoke_key(&self, role: Role, alias: &str, reason: &str, compromised: bool) -> Result<()> {
        if reason.trim().is_empty() || reason.len() > 1024 || reason.chars().any(char::is_control) {
            return Err(Error::invalid("a revocation needs a reason of 1 to 1024 bytes on one line"));
        }
        let revocation = Revocation { at: self.clock.now(), reason: reason.to_owned(), compromised };
        self.change_ring(role, |ring| ring.keys.revoke(alias, revocation.clone())).await.map(drop)
    }

    /// Sets how many distinct owners of the ring must sign.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the ring has fewer owners.
    pub async fn set_threshold(&self, role: Role, threshold: u32) -> Result<()> {
        self.change_ring(role, |ring| {
            ring.threshold = threshold;
            ring.to_key_set().map(drop)
        })
        .await
        .map(drop)
    }

    /// Whether the secret half of a key is here.
    pub fn has_secret(&self, id: &KeyId) -> Result<bool> {
        Ok(self.vault.get(&secret_name(id))?.is_some())
    }

    /// The key called `alias`, or the default one, ready to sign.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if it is revoked or outside its window, or if its secret half is
    /// elsewhere.
    pub async fn signer(&self, role: Role, alias: Option<&str>) -> Result<SigningKey> {
        let ring = self.ring(role).await?;
        let pair = ring.keys.signer(alias, self.clock.now())?;
        self.open_secret(pair)?.ok_or_else(|| {
            Error::new(
                ErrorKind::Conflict,
                format!(
                    "the secret half of the key {:?} is not here: sign elsewhere and attach the signature",
                    pair.alias
                ),
            )
        })
    }

    /// The key pair of a ring's entry, if its secret half is here.
    pub(super) fn open_secret(&self, pair: &KeyPair) -> Result<Option<SigningKey>> {
        let id = pair.key.id();
        let Some(secret) = self.vault.get(&secret_name(&id))? else { return Ok(None) };
        let opened = SigningKey::from_secret(&secret)
            .map_err(|error| error.context(format!("the secret half of the key {:?}", pair.alias)))?;
        if opened.public_key().id() != id {
            return Err(Error::new(
                ErrorKind::Corrupted,
                format!("the secret kept for the key {:?} belongs to another key", pair.alias),
            ));
        }
        Ok(Some(opened))
    }

    async fn add_key(
        &self,
        role: Role,
        new: &NewKey,
        public: PublicKey,
        secret: Option<Secret>,
    ) -> Result<KeyPair> {
        let add = |ring: &mut Ring| ring.keys.add(public.clone(), &new.alias, &new.owner, new.window);
        // Tried on a copy first: a key that cannot join leaves no secret behind, and overwrites none.
        add(&mut self.ring(role).await?)?;
        if let Some(secret) = secret {
            // The secret is durable before the ring names the key.
            self.vault.put(&secret_name(&public.id()), &secret)?;
        }
        let ring = self.change_ring(role, add).await?;
        ring.keys.pair(&new.alias).cloned()
    }

    async fn change_ring(&self, role: Role, change: impl Fn(&mut Ring) -> Result<()> + Send) -> Result<Ring> {
        let at = ring_key(role);
        for _ in 0..ATTEMPTS {
            let entry = self.records.entry(&at).await?;
            let mut ring: Ring = entry.as_ref().map(decode).transpose()?.unwrap_or_default();
            change(&mut ring)?;
            let mut batch = Batch::new();
            batch.expect_unchanged(at.clone(), entry.as_ref()).put(at.clone(), encode(&ring)?);
            if self.records.commit(batch).await? {
                return Ok(ring);
            }
        }
        Err(lost_race("changing the key ring"))
    }
}

fn ring_key(role: Role) -> Vec<u8> {
    key("ring", &[role.as_str()])
}

fn secret_name(id: &KeyId) -> String {
    format!("key-{id}.secret")
}
