//! Typed records over a metadata store, and the one atomic activation of a bundle.
//!
//! The metadata store is the source of truth; everything here is a conditional batch or a read.
//! Keys are NUL-joined parts, led by one letter for the kind of record (`docs/design.md` lists
//! them); no name of this crate can hold a NUL, so keys are unambiguous and ordered.

mod activate;
mod collect;
mod record;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::clock::{Clock, Timestamp};
use crate::digest::to_hex;
use crate::error::{Error, ErrorKind, Result};
use crate::meta::{Batch, Entry, Expectation, MetadataStore, MetadataStoreExt as _, Revision, prefix_end};
use crate::name::{ArtifactPath, BundleName, RepositoryName, Tenant, Version};

pub use crate::name::Holder;
pub(crate) use activate::unknown;
pub use record::{
    AliasRecord, ArtifactRecord, BundleRecord, BundleState, EventRecord, GoneRecord, ListEntry, Listing,
    RepositoryRecord, TokenRecord,
};

/// How often a batch that lost a race is tried again.
const ATTEMPTS: usize = 64;

/// One tenant's records in a metadata store.
#[derive(Clone, Debug)]
pub struct Catalog {
    store: Arc<dyn MetadataStore>,
    tenant: Tenant,
    floor: Arc<AtomicI64>,
}

/// What a path of a repository stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// An artifact that may be served.
    Artifact(Box<ArtifactRecord>),
    /// An alias, and the artifact it stands for.
    Alias(Box<AliasRecord>, Box<ArtifactRecord>),
    /// It was here and has been withdrawn.
    Gone(GoneRecord),
}

impl Catalog {
    /// The catalog of `tenant` in `store`.
    pub async fn open(store: Arc<dyn MetadataStore>, tenant: Tenant) -> Result<Catalog> {
        let catalog = Catalog { store, tenant, floor: Arc::new(AtomicI64::new(0)) };
        if let Some((floor, _)) = catalog.read::<Timestamp>(&catalog.key("f", &[])).await? {
            catalog.floor.store(floor.as_unix(), Ordering::Relaxed);
        }
        Ok(catalog)
    }

    /// Whose records these are.
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// The store underneath.
    pub fn store(&self) -> &Arc<dyn MetadataStore> {
        &self.store
    }

    /// The time to judge with: the clock's, but never earlier than any time judged with before
    /// that was [kept](Catalog::keep_time). Turning the clock back extends nothing.
    pub fn trusted_now(&self, clock: &dyn Clock) -> Timestamp {
        let now = clock.now().as_unix();
        Timestamp::from_unix(self.floor.fetch_max(now, Ordering::Relaxed).max(now))
    }

    /// Makes the time floor durable.
    pub async fn keep_time(&self) -> Result<()> {
        let floor = Timestamp::from_unix(self.floor.load(Ordering::Relaxed));
        let key = self.key("f", &[]);
        if self.read::<Timestamp>(&key).await?.is_some_and(|(kept, _)| kept >= floor) {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.put(key, encode(&floor)?);
        self.store.commit(batch).await.map(drop)
    }

    // Repositories.

    /// A repository's record.
    pub async fn repository(&self, name: &RepositoryName) -> Result<Option<RepositoryRecord>> {
        Ok(self.read(&self.key("r", &[name.as_str()])).await?.map(|(record, _)| record))
    }

    /// All repositories, by name.
    pub async fn repositories(&self) -> Result<Vec<(RepositoryName, RepositoryRecord)>> {
        let mut found = Vec::new();
        for entry in self.scan_all(&self.key("r", &[""])).await? {
            let name = last_part(&entry.key)?;
            found.push((RepositoryName::new(name)?, decode(&entry)?));
        }
        Ok(found)
    }

    /// Creates a repository or changes who may read it.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if it exists with another format.
    pub async fn set_repository(&self, name: &RepositoryName, record: &RepositoryRecord) -> Result<()> {
        let key = self.key("r", &[name.as_str()]);
        self.retry(|| async {
            let old = self.read::<RepositoryRecord>(&key).await?;
            if let Some((old, _)) = &old
                && old.format != record.format
            {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!("repository {name} holds {} artifacts, not {}", old.format, record.format),
                ));
            }
            // An edge that starts on a full disk sets what is set.
            if old.as_ref().is_some_and(|(old, _)| old == record) {
                return Ok(Some(()));
            }
            let mut batch = Batch::new();
            batch.expect_unchanged(key.clone(), old.as_ref().map(|(_, entry)| entry));
            batch.put(key.clone(), encode(record)?);
            Ok(self.commit(batch).await?.map(drop))
        })
        .await
    }

    // Bundles.

    /// A bundle's record.
    pub async fn bundle(&self, name: &BundleName, version: &Version) -> Result<Option<BundleRecord>> {
        Ok(self.read(&self.bundle_key("b", name, version)).await?.map(|(record, _)| record))
    }

    /// A bundle's record, and the commit that wrote it.
    pub async fn bundle_at(
        &self,
        name: &BundleName,
        version: &Version,
    ) -> Result<Option<(BundleRecord, Revision)>> {
        let found = self.read(&self.bundle_key("b", name, version)).await?;
        Ok(found.map(|(record, entry)| (record, entry.revision)))
    }

    /// All bundles, by name and then by version as text.
    pub async fn bundles(&self) -> Result<Vec<BundleRecord>> {
        self.scan_all(&self.key("b", &[""])).await?.iter().map(decode).collect()
    }

    /// The envelope of a bundle, byte for byte as it was accepted.
    pub async fn envelope(&self, name: &BundleName, version: &Version) -> Result<Option<Bytes>> {
        Ok(self.store.get(&self.bundle_key("e", name, version)).await?.map(|entry| entry.value))
    }

    /// The receipt envelope of a committed bundle.
    pub async fn receipt(&self, name: &BundleName, version: &Version) -> Result<Option<Bytes>> {
        Ok(self.store.get(&self.bundle_key("c", name, version)).await?.map(|entry| entry.value))
    }

    // Artifacts.

    /// What `path` of `repository` stands for.
    pub async fn resolve(
        &self,
        repository: &RepositoryName,
        path: &ArtifactPath,
    ) -> Result<Option<Resolved>> {
        if let Some(artifact) = self.artifact(repository, path).await? {
            return Ok(Some(match artifact.gone.clone() {
                Some(gone) => Resolved::Gone(gone),
                None => Resolved::Artifact(Box::new(artifact)),
            }));
        }
        let Some(alias) = self.alias(repository, path).await? else { return Ok(None) };
        if let Some(gone) = &alias.gone {
            return Ok(Some(Resolved::Gone(gone.clone())));
        }
        if alias.removed {
            return Ok(None);
        }
        match self.artifact(repository, &alias.target).await? {
            Some(artifact) => Ok(Some(match artifact.gone.clone() {
                Some(gone) => Resolved::Gone(gone),
                None => Resolved::Alias(Box::new(alias), Box::new(artifact)),
            })),
            None => Ok(None),
        }
    }

    /// The record of an artifact, also of a withdrawn one.
    pub async fn artifact(
        &self,
        repository: &RepositoryName,
        path: &ArtifactPath,
    ) -> Result<Option<ArtifactRecord>> {
        Ok(self.read(&self.key("a", &[repository.as_str(), path.as_str()])).await?.map(|(record, _)| record))
    }

    /// The record of an alias, also of one that answers no more.
    pub async fn alias(
        &self,
        repository: &RepositoryName,
        path: &ArtifactPath,
    ) -> Result<Option<AliasRecord>> {
        Ok(self.read(&self.key("l", &[repository.as_str(), path.as_str()])).await?.map(|(record, _)| record))
    }

    /// One level of a repository: the folders and files right below `folder` (`None` for the top),
    /// in the order of their paths, after the entry that the token
    /// `after` names ([`Listing::next`]), at most `limit`.
    ///
    /// The cost follows what is listed, not what lies below it.
    pub async fn list(
        &self,
        repository: &RepositoryName,
        folder: Option<&ArtifactPath>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Listing> {
        let prefix = folder.map(|folder| format!("{folder}/")).unwrap_or_default();
        let mut listing = Listing::default();
        let mut artifacts = Walk::new(self.key("a", &[repository.as_str(), ""]), &prefix, after);
        let mut aliases = Walk::new(self.key("l", &[repository.as_str(), ""]), &prefix, after);
        let mut last = None;
        loop {
            let artifact =
                artifacts.peek::<ArtifactRecord>(&*self.store, |record| record.gone.is_none()).await?;
            let alias = aliases
                .peek::<AliasRecord>(&*self.store, |record| record.gone.is_none() && !record.removed)
                .await?;
            let Some(name) = [&artifact, &alias].into_iter().flatten().min().cloned() else { break };
            if listing.entries.len() == limit {
                listing.next = last;
                break;
            }
            if artifact.as_ref() == Some(&name) {
                artifacts.advance();
            }
            if alias.as_ref() == Some(&name) {
                aliases.advance();
            }
            if let Some(folder) = name.strip_suffix('/') {
                listing.entries.push(ListEntry { name: folder.into(), folder: true, ..ListEntry::default() });
            } else {
                let path = ArtifactPath::new(&format!("{prefix}{name}"))?;
                let (alias_of, record) = match self.resolve(repository, &path).await? {
                    Some(Resolved::Artifact(record)) => (None, record),
                    Some(Resolved::Alias(alias, record)) => (Some(alias.target), record),
                    _ => continue,
                };
                let (name, artifact) = (name.clone(), Some(*record));
                listing.entries.push(ListEntry { name, folder: false, artifact, alias_of });
            }
            last = Some(name);
        }
        Ok(listing)
    }

    // Trust document.

    /// The trust document's envelope, as it was accepted last.
    pub async fn trust(&self) -> Result<Option<Entry>> {
        self.store.get(&self.key("t", &[])).await
    }

    /// Keeps a newer trust document, if the kept one still is `old`.
    pub async fn set_trust(&self, old: Option<&Entry>, envelope: Bytes, event: &EventRecord) -> Result<()> {
        let key = self.key("t", &[]);
        let mut batch = Batch::new();
        batch.expect_unchanged(key.clone(), old).put(key, envelope);
        self.add_event(&mut batch, event)?;
        self.store.commit(batch).await.map(drop)
    }

    // Tokens.

    /// All tokens that were ever created and not removed.
    pub async fn tokens(&self) -> Result<Vec<TokenRecord>> {
        self.scan_all(&self.key("k", &[""])).await?.iter().map(decode).collect()
    }

    /// Adds a token under its fingerprint.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if there is one of that name.
    pub async fn add_token(&self, token: &TokenRecord) -> Result<()> {
        let key = self.key("k", &[&token.name]);
        let mut batch = Batch::new();
        batch.expect(key.clone(), Expectation::Absent).put(key, encode(token)?);
        self.store.commit(batch).await.map(drop)
    }

    /// Forgets the token of this name; `true` if there was one. A running edge knows its tokens from
    /// its start.
    pub async fn remove_token(&self, name: &str) -> Result<bool> {
        let key = self.key("k", &[name]);
        self.retry(|| async {
            let Some(entry) = self.store.get(&key).await? else { return Ok(Some(false)) };
            let mut batch = Batch::new();
            batch.expect_unchanged(key.clone(), Some(&entry)).delete(key.clone());
            Ok(self.commit(batch).await?.map(|_| true))
        })
        .await
    }

    // Events.

    /// The newest `limit` security events, newest first.
    pub async fn events(&self, limit: usize) -> Result<Vec<EventRecord>> {
        let prefix = self.key("v", &[""]);
        self.store.scan(&prefix[..]..&prefix_end(&prefix)[..], limit).await?.iter().map(decode).collect()
    }

    /// Records a security event, durably.
    pub async fn record_event(&self, event: &EventRecord) -> Result<()> {
        let mut batch = Batch::new();
        self.add_event(&mut batch, event)?;
        self.store.commit(batch).await.map(drop)
    }

    fn add_event(&self, batch: &mut Batch, event: &EventRecord) -> Result<()> {
        let mut random = [0; 8];
        getrandom::fill(&mut random)
            .map_err(|cause| Error::new(ErrorKind::Internal, format!("no randomness: {cause}")))?;
        // Counted down, so that the newest comes first in a scan.
        let id = format!("{:012}-{}", Timestamp::MAX.as_unix() - event.at.as_unix(), to_hex(&random));
        batch.put(self.key("v", &[&id]), encode(event)?);
        Ok(())
    }

    // Plumbing.

    fn key(&self, kind: &str, parts: &[&str]) -> Bytes {
        let mut key = Vec::with_capacity(64);
        key.extend_from_slice(kind.as_bytes());
        key.push(0);
        key.extend_from_slice(self.tenant.as_str().as_bytes());
        for part in parts {
            key.push(0);
            key.extend_from_slice(part.as_bytes());
        }
        key.into()
    }

    fn bundle_key(&self, kind: &str, name: &BundleName, version: &Version) -> Bytes {
        self.key(kind, &[name.as_str(), version.as_str()])
    }

    async fn read<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<(T, Entry)>> {
        match self.store.get(key).await? {
            Some(entry) => Ok(Some((decode(&entry)?, entry))),
            None => Ok(None),
        }
    }

    /// Every record whose key starts with `prefix`.
    async fn scan_all(&self, prefix: &[u8]) -> Result<Vec<Entry>> {
        self.store.scan_prefix(prefix, 1000).try_collect().await
    }

    /// Commits `batch`; `None` if one of its expectations did not hold.
    async fn commit(&self, batch: Batch) -> Result<Option<Revision>> {
        match self.store.commit(batch).await {
            Ok(revision) => Ok(Some(revision)),
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Runs a read-then-commit again while it loses races (answers `None`).
    async fn retry<T, F: Future<Output = Result<Option<T>>>>(
        &self,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T> {
        for _ in 0..ATTEMPTS {
            if let Some(done) = attempt().await? {
                return Ok(done);
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "too many changes at once; try again"))
    }
}

/// One ordered walk over the names right below a prefix, skipping what lies deeper. A folder's
/// name ends in `/`, so names come in the order of the keys.
struct Walk {
    base: Bytes,
    prefix: String,
    start: String,
    held: Option<String>,
    done: bool,
}

impl Walk {
    fn new(base: Bytes, prefix: &str, after: Option<&str>) -> Walk {
        let mut walk = Walk {
            base,
            prefix: prefix.into(),
            start: prefix.into(),
            held: after.map(str::to_owned),
            done: false,
        };
        walk.advance();
        walk
    }

    /// The next name; a folder that holds only dead records is passed over.
    async fn peek<T: DeserializeOwned>(
        &mut self,
        store: &dyn MetadataStore,
        alive: impl Fn(&T) -> bool,
    ) -> Result<Option<String>> {
        while self.held.is_none() && !self.done {
            let from = [&self.base[..], self.start.as_bytes()].concat();
            let end = prefix_end(&[&self.base[..], self.prefix.as_bytes()].concat());
            let page = store.scan(&from[..]..&end[..], 16).await?;
            self.done = page.is_empty();
            for entry in &page {
                let path =
                    std::str::from_utf8(&entry.key[self.base.len()..]).map_err(|_| damaged(&entry.key))?;
                self.start = format!("{path}\0");
                if alive(&decode::<T>(entry)?) {
                    let rest = &path[self.prefix.len()..];
                    self.held = Some(rest.split_inclusive('/').next().unwrap_or(rest).to_owned());
                    break;
                }
            }
        }
        Ok(self.held.clone())
    }

    /// Moves past the name that is held.
    fn advance(&mut self) {
        self.start = match self.held.take() {
            // '0' follows '/', so this is just past everything inside the folder.
            Some(name) => match name.strip_suffix('/') {
                Some(folder) => format!("{}{folder}0", self.prefix),
                None => format!("{}{name}\0", self.prefix),
            },
            None => return,
        };
    }
}

fn last_part(key: &[u8]) -> Result<&str> {
    let part = key.rsplit(|byte| *byte == 0).next().unwrap_or_default();
    std::str::from_utf8(part).map_err(|_| damaged(key))
}

fn encode(record: &impl Serialize) -> Result<Bytes> {
    serde_json::to_vec(record)
        .map(Bytes::from)
        .map_err(|cause| Error::new(ErrorKind::Internal, format!("a record cannot be written: {cause}")))
}

fn decode<T: DeserializeOwned>(entry: &Entry) -> Result<T> {
    serde_json::from_slice(&entry.value).map_err(|cause| damaged(&entry.key).with_source(cause))
}

#[cold]
fn damaged(key: &[u8]) -> Error {
    let shown = String::from_utf8_lossy(key).replace('\0', "|");
    Error::new(ErrorKind::Corrupted, format!("the metadata record {shown:?} cannot be read"))
}
