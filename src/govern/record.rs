//! Typed records of one tenant under the key letter `g`.

use std::sync::Arc;

use futures_util::TryStreamExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind, Result};
use crate::meta::{Batch, Entry, MetadataStore, MetadataStoreExt as _};
use crate::name::Tenant;

/// How often a change that lost a race is tried again.
const ATTEMPTS: usize = 64;
/// Records read at once.
const PAGE: usize = 512;

/// The records of one kind of thing. Keys are `g`, the tenant, the kind and an id, joined by NUL.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    store: Arc<dyn MetadataStore>,
    prefix: String,
}

impl Records {
    /// The records of `kind` of a tenant.
    pub(crate) fn new(store: Arc<dyn MetadataStore>, tenant: &Tenant, kind: &str) -> Records {
        Records { store, prefix: format!("g\0{tenant}\0{kind}\0") }
    }

    /// The store underneath.
    pub(crate) fn store(&self) -> &Arc<dyn MetadataStore> {
        &self.store
    }

    /// The key of a record, for batches of several records.
    pub(crate) fn key(&self, id: &str) -> Vec<u8> {
        format!("{}{id}", self.prefix).into_bytes()
    }

    /// A record and the entry it was read from.
    pub(crate) async fn read<T: DeserializeOwned>(&self, id: &str) -> Result<Option<(T, Entry)>> {
        match self.store.get(&self.key(id)).await? {
            Some(entry) => Ok(Some((decode(&entry)?, entry))),
            None => Ok(None),
        }
    }

    /// All records, by id.
    pub(crate) async fn all<T: DeserializeOwned>(&self) -> Result<Vec<(String, T)>> {
        let mut found = Vec::new();
        let mut entries = self.store.scan_prefix(self.prefix.as_bytes(), PAGE);
        while let Some(entry) = entries.try_next().await? {
            let id = std::str::from_utf8(&entry.key[self.prefix.len()..])
                .map_err(|_| Error::new(ErrorKind::Corrupted, "a record's key is not UTF-8"))?;
            found.push((id.to_owned(), decode(&entry)?));
        }
        Ok(found)
    }

    /// The records whose ids begin with `begin`, by id.
    pub(crate) async fn all_within<T: DeserializeOwned>(&self, begin: &str) -> Result<Vec<(String, T)>> {
        let mut found = Vec::new();
        let prefix = self.key(begin);
        let mut entries = self.store.scan_prefix(&prefix, PAGE);
        while let Some(entry) = entries.try_next().await? {
            let id = std::str::from_utf8(&entry.key[self.prefix.len()..])
                .map_err(|_| Error::new(ErrorKind::Corrupted, "a record's key is not UTF-8"))?;
            found.push((id.to_owned(), decode(&entry)?));
        }
        Ok(found)
    }

    /// Writes a record, whatever was there.
    pub(crate) async fn write<T: Serialize>(&self, id: &str, record: &T) -> Result<()> {
        self.store.put(self.key(id), encode(record)?).await.map(drop)
    }

    /// Changes a record in one step: `change` gets what is there and says what is to be there
    /// (`None`: leave it) and what to answer. It is called again if another change came between.
    pub(crate) async fn change<T, A>(
        &self,
        id: &str,
        mut change: impl FnMut(Option<T>) -> Result<(Option<T>, A)>,
    ) -> Result<A>
    where
        T: Serialize + DeserializeOwned,
    {
        for _ in 0..ATTEMPTS {
            let (old, entry) = self.read::<T>(id).await?.unzip();
            let (new, answer) = change(old)?;
            let Some(new) = new else { return Ok(answer) };
            let mut batch = Batch::new();
            batch.expect_unchanged(self.key(id), entry.as_ref());
            batch.put(self.key(id), encode(&new)?);
            match self.store.commit(batch).await {
                Ok(_) => return Ok(answer),
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "a record kept changing; try again"))
    }
}

/// A record as it is stored.
pub(crate) fn encode<T: Serialize>(record: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(record)
        .map_err(|cause| Error::new(ErrorKind::Internal, format!("a record cannot be written: {cause}")))
}

/// A record as it was stored.
pub(crate) fn decode<T: DeserializeOwned>(entry: &Entry) -> Result<T> {
    serde_json::from_slice(&entry.value)
        .map_err(|cause| Error::new(ErrorKind::Corrupted, format!("a record cannot be read: {cause}")))
}
