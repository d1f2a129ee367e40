//! The life of link keys.

use std::sync::Arc;

use tracing::warn;

use super::record::{KeyRecord, Revocation, Revoked};
use super::{Inner, Links};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::govern::record::encode;
use crate::key::PublicKey;
use crate::link::{KeyName, KeyState, LinkAlgorithm, LinkKey, LinkKeys, Note};
use crate::meta::Batch;

impl Links {
    /// The keys that are or were here, by name.
    pub async fn keys(&self) -> Result<Vec<(KeyName, KeyRecord)>> {
        let records = self.0.keys.all::<KeyRecord>().await?;
        records.into_iter().map(|(name, record)| Ok((KeyName::new(&name)?, record))).collect()
    }

    /// Makes a key; `None` for a name of its own.
    ///
    /// # Errors
    /// `Conflict` if there is or was a key of that name, or if as many are live as may be.
    pub async fn create_key(
        &self,
        name: Option<KeyName>,
        algorithm: LinkAlgorithm,
        who: &str,
        now: Timestamp,
    ) -> Result<(KeyName, KeyRecord)> {
        let name = match name {
            Some(name) => name,
            None => KeyName::generate()?,
        };
        self.add_key(LinkKey::generate(name, algorithm, now)?, who).await
    }

    /// Takes in a key that was made elsewhere: a `v1` secret that several edges share, or the public
    /// half of a `v2` key ([`LinkKey::public`]).
    ///
    /// # Errors
    /// As [`create_key`](Links::create_key).
    pub async fn add_key(&self, key: LinkKey, who: &str) -> Result<(KeyName, KeyRecord)> {
        let _changing = self.0.changing.lock().await;
        let mut snapshot = (*self.snapshot()).clone();
        if snapshot.revocations.key(key.name()).is_some() {
            let message = format!("the link key {} was revoked", key.name());
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        let record = KeyRecord {
            algorithm: key.algorithm(),
            state: key.state(),
            created: key.created(),
            who: who.to_owned(),
            public: key.public_key().map(PublicKey::to_text),
            last_expires: None,
            revoked: None,
        };
        let name = key.name().clone();
        let secret = key.to_secret();
        snapshot.keys.add(key)?;
        // The secret first: a record without one would be a key that never works.
        if let Some(secret) = secret {
            let (inner, name) = (Arc::clone(&self.0), name.clone());
            crate::blocking::run(move || inner.vault.put(&name, &secret)).await?;
        }
        let mut batch = Batch::new();
        batch.expect_unchanged(self.0.keys.key(name.as_str()), None);
        batch.put(self.0.keys.key(name.as_str()), encode(&record)?);
        self.0.keys.store().commit(batch).await?;
        self.publish(snapshot);
        Ok((name, record))
    }

    /// Lets a key verify what it signed, and sign nothing more.
    ///
    /// # Errors
    /// `NotFound` without the key, `Conflict` if it was revoked.
    pub async fn retire_key(&self, name: &KeyName) -> Result<KeyRecord> {
        let _changing = self.0.changing.lock().await;
        let mut snapshot = (*self.snapshot()).clone();
        snapshot.keys.set_state(name, KeyState::VerifyOnly)?;
        let record = self.0.keys.change::<KeyRecord, _>(name.as_str(), |record| {
            let mut record = record.ok_or_else(|| unknown(name))?;
            record.state = KeyState::VerifyOnly;
            Ok((Some(record.clone()), record))
        });
        let record = record.await?;
        self.publish(snapshot);
        Ok(record)
    }

    /// Takes back a key with every link that it signed, and forgets its secret.
    ///
    /// # Errors
    /// `NotFound` without the key.
    pub async fn revoke_key(&self, name: &KeyName, note: Note) -> Result<()> {
        let algorithm = match self.snapshot().keys.key(name.as_str()) {
            Some(key) => key.algorithm(),
            None => return Err(unknown(name)),
        };
        let what = Revoked::Key { key: name.clone(), algorithm };
        self.revoke(vec![Revocation { what, note }]).await.map(drop)
    }

    /// Forgets the secret of a key that was revoked.
    pub(super) async fn forget_secret(&self, name: &KeyName) {
        let (inner, key) = (Arc::clone(&self.0), name.clone());
        if let Err(error) = crate::blocking::run(move || inner.vault.remove(&key)).await {
            // The key is revoked all the same; the next start tries again.
            warn!(key = %name, %error, "the secret of a revoked link key was not removed");
        }
    }
}

impl Inner {
    pub(super) async fn load_keys(&self) -> Result<LinkKeys> {
        let mut records: Vec<(String, KeyRecord)> = self.keys.all().await?;
        records.sort_by_key(|(_, record)| record.created);
        let mut keys = LinkKeys::new();
        for (name, record) in records {
            let name = KeyName::new(&name)?;
            let key = match record.state {
                KeyState::Revoked => {
                    // A crash may have come between the record and the file.
                    self.vault.remove(&name)?;
                    LinkKey::forgotten(name, record.algorithm, record.created)
                }
                _ => self.load_key(name, &record)?,
            };
            keys.add(key)?;
        }
        Ok(keys)
    }

    fn load_key(&self, name: KeyName, record: &KeyRecord) -> Result<LinkKey> {
        let secret = self.vault.secret(&name)?;
        let key = match (&secret, &record.public) {
            (Some(secret), _) => LinkKey::from_secret(name.clone(), secret, record.created)?,
            (None, Some(public)) => LinkKey::public(name.clone(), PublicKey::parse(public)?, record.created)?,
            (None, None) => {
                warn!(key = %name, "the secret of a link key is missing: its links are refused");
                return Ok(LinkKey::forgotten(name, record.algorithm, record.created));
            }
        };
        if key.algorithm() != record.algorithm {
            let message = format!("the file of the link key {name} has another kind of key");
            return Err(Error::new(ErrorKind::Corrupted, message));
        }
        let mut one = LinkKeys::new();
        one.add(key.clone())?;
        if record.state == KeyState::VerifyOnly {
            one.set_state(&name, KeyState::VerifyOnly)?;
        }
        Ok(one.key(name.as_str()).cloned().unwrap_or(key))
    }
}

#[cold]
pub(super) fn unknown(name: &KeyName) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no link key named {name}"))
}
