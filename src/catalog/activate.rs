//! What happens to a bundle as a whole: prepare, activate, withdraw, remove. Each is one batch.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::record::{AliasRecord, ArtifactRecord, BundleRecord, BundleState, EventRecord, GoneRecord};
use super::{Catalog, RepositoryRecord, decode, encode};
use crate::blocking::after_step;
use crate::bundle::{BundleRef, Constraints, Envelope, Item, Statement, VerifiedBundle};
use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::meta::{Batch, Expectation, Revision};
use crate::name::{ArtifactPath, BundleName, Holder, RepositoryName, Version};

/// Why a bundle's artifacts leave the shelves.
enum Retraction {
    Withdrawn(GoneRecord),
    Removed,
    /// Still not complete, and offered before this time.
    Abandoned(Timestamp),
    /// The trust document that this commit wrote assigns it to this edge no more.
    Unassigned(Revision),
}

/// What a name of a repository is to stand for.
#[derive(Clone, Copy)]
enum Kind {
    Artifact,
    Alias,
}

impl Catalog {
    /// Accepts a verified bundle, of which `envelope` is the source: its record says `prepared`, its blobs count as in use, and
    /// nothing of it is visible. A bundle that is here already stays as it is.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`] if it was withdrawn; [`ErrorKind::Conflict`] if name and version, or one
    /// of its paths, stand for other content here (that leaves a security event).
    pub async fn prepare(
        &self,
        verified: &VerifiedBundle,
        envelope: &[u8],
        now: Timestamp,
    ) -> Result<BundleRecord> {
        let statement = verified.statement();
        let bundle = statement.bundle();
        let key = self.bundle_key("b", &bundle.name, &bundle.version);
        let result = self
            .retry(|| async {
                let old = self.read::<BundleRecord>(&key).await?;
                let mut batch = Batch::new();
                batch.expect_unchanged(key.clone(), old.as_ref().map(|(_, entry)| entry));
                if let Some((old, _)) = old {
                    match old.state {
                        BundleState::Withdrawn => return Err(withdrawn(&old)),
                        _ if old.digest != verified.payload_digest() => {
                            return Err(rewritten(&old, verified.payload_digest()));
                        }
                        BundleState::Prepared | BundleState::Committed => return Ok(Some(old)),
                        BundleState::Removed => {}
                    }
                }
                self.refuse_equal_seq(bundle).await?;
                // The answer is thrown away: this finds conflicts before a byte is sent.
                self.shelve(&mut Batch::new(), statement, false).await?;
                let record = BundleRecord {
                    name: bundle.name.clone(),
                    version: bundle.version.clone(),
                    digest: verified.payload_digest(),
                    seq: bundle.seq,
                    state: BundleState::Prepared,
                    items: statement.items().len() as u64,
                    bytes: statement.total_bytes(),
                    created: statement.created(),
                    offered: now,
                    activated: None,
                    repositories: repositories(statement).into_keys().collect(),
                    constraints: statement.constraints().clone(),
                    gone: None,
                    holds_blobs: true,
                };
                batch.put(key.clone(), encode(&record)?);
                batch.put(
                    self.bundle_key("e", &bundle.name, &bundle.version),
                    Bytes::copy_from_slice(envelope),
                );
                if !self.claim(&mut batch, &blobs(statement), 1).await? {
                    return Ok(None);
                }
                Ok(self.commit(batch).await?.map(|_| record))
            })
            .await;
        if let Err(error) = &result
            && error.kind() == ErrorKind::Conflict
        {
            let what = format!("{}/{}", bundle.name, bundle.version);
            self.record_event(&EventRecord::new(now, "bundle.conflict", what, error.message())).await?;
        }
        result
    }

    /// Two versions of one name with the same `seq` have no order, and an alias would belong to
    /// whichever came last.
    async fn refuse_equal_seq(&self, bundle: &BundleRef) -> Result<()> {
        for entry in self.scan_all(&self.key("b", &[bundle.name.as_str(), ""])).await? {
            let other: BundleRecord = decode(&entry)?;
            // What was taken back before anyone could see it leaves its place free.
            let seen = other.state != BundleState::Removed || other.activated.is_some();
            if seen && other.seq == bundle.seq && other.version != bundle.version {
                return Err(conflict(format!(
                    "{} {} has the seq {} here; {} cannot have it too",
                    other.name, other.version, other.seq, bundle.version
                )));
            }
        }
        Ok(())
    }

    /// The statement of a bundle that was accepted here, read back from its envelope.
    pub async fn statement(&self, name: &BundleName, version: &Version) -> Result<Option<Statement>> {
        let Some(envelope) = self.envelope(name, version).await? else { return Ok(None) };
        let envelope = Envelope::parse(&envelope)?;
        Ok(Some(Statement::parse(&envelope.payload)?))
    }

    /// Makes every artifact and alias of a prepared bundle visible, together with its receipt.
    ///
    /// The caller has read the record that the commit `prepared` wrote
    /// ([`bundle_at`](Catalog::bundle_at)), and has seen after that that every blob is stored and that
    /// the trust document of the revision `trust` allows it. `None` if the record has changed since:
    /// the blobs may be gone. A repository that is not known yet is created; anyone may read it if
    /// `public` says so.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if a path or alias stands for something else since it was prepared;
    /// [`ErrorKind::Unavailable`] if another trust document came meanwhile.
    pub async fn activate(
        &self,
        statement: &Statement,
        prepared: Revision,
        trust: Revision,
        receipt: Bytes,
        public: bool,
        now: Timestamp,
    ) -> Result<Option<BundleRecord>> {
        let bundle = statement.bundle();
        let key = self.bundle_key("b", &bundle.name, &bundle.version);
        self.retry(|| async {
            let Some((mut record, entry)) = self.read::<BundleRecord>(&key).await? else {
                return Err(unknown(&bundle.name, &bundle.version));
            };
            match record.state {
                BundleState::Committed => return Ok(Some(Some(record))),
                BundleState::Withdrawn => return Err(withdrawn(&record)),
                BundleState::Removed => return Err(unknown(&bundle.name, &bundle.version)),
                BundleState::Prepared if entry.revision != prepared => return Ok(Some(None)),
                BundleState::Prepared => {}
            }
            let mut batch = Batch::new();
            batch.expect_unchanged(key.clone(), Some(&entry));
            let in_force = self.trust().await?.map(|entry| entry.revision);
            if in_force != Some(trust) {
                return Err(judged_anew(&bundle.name, &bundle.version));
            }
            batch.expect(self.key("t", &[]), Expectation::At(trust));
            self.shelve(&mut batch, statement, public).await?;
            record.state = BundleState::Committed;
            record.activated = Some(now);
            batch.put(key.clone(), encode(&record)?);
            batch.put(self.bundle_key("c", &bundle.name, &bundle.version), receipt.clone());
            let what = format!("{}/{}", bundle.name, bundle.version);
            let detail = format!("{} artifacts became visible", record.items);
            self.add_event(&mut batch, &EventRecord::new(now, "bundle.committed", what, detail))?;
            Ok(self.commit(batch).await?.map(|_| Some(record)))
        })
        .await
    }

    /// Withdraws a bundle for good; one that was never here is remembered as withdrawn.
    /// `true` if that changed anything.
    pub async fn withdraw(&self, gone: &GoneRecord, digest: Digest, now: Timestamp) -> Result<bool> {
        self.retract(&gone.bundle, &gone.version, Some(digest), Retraction::Withdrawn(gone.clone()), now)
            .await
    }

    /// Takes a bundle off this edge; it may come back. `true` if it was here.
    pub async fn remove(&self, name: &BundleName, version: &Version, now: Timestamp) -> Result<bool> {
        self.retract(name, version, None, Retraction::Removed, now).await
    }

    /// Takes back an offer that was made before `offered` and is not committed yet. `true` if it
    /// was one.
    pub async fn abandon(
        &self,
        name: &BundleName,
        version: &Version,
        offered: Timestamp,
        now: Timestamp,
    ) -> Result<bool> {
        self.retract(name, version, None, Retraction::Abandoned(offered), now).await
    }

    /// As [`remove`](Catalog::remove), unless another trust document is in force by now than the one
    /// of the revision `trust`.
    pub async fn unassign(
        &self,
        name: &BundleName,
        version: &Version,
        trust: Revision,
        now: Timestamp,
    ) -> Result<bool> {
        self.retract(name, version, None, Retraction::Unassigned(trust), now).await
    }

    async fn retract(
        &self,
        name: &BundleName,
        version: &Version,
        digest: Option<Digest>,
        why: Retraction,
        now: Timestamp,
    ) -> Result<bool> {
        let key = self.bundle_key("b", name, version);
        self.retry(|| async {
            let old = self.read::<BundleRecord>(&key).await?;
            let mut batch = Batch::new();
            batch.expect_unchanged(key.clone(), old.as_ref().map(|(_, entry)| entry));
            let mut record = match (old, digest) {
                (Some((record, _)), _) => record,
                (None, Some(digest)) => tombstone(name, version, digest, now),
                (None, None) => return Ok(Some(false)),
            };
            let (state, kind, detail) = match &why {
                Retraction::Withdrawn(gone) => {
                    (BundleState::Withdrawn, "bundle.withdrawn", gone.reason.clone())
                }
                Retraction::Removed | Retraction::Unassigned(_) => {
                    (BundleState::Removed, "bundle.removed", "taken off this edge".into())
                }
                Retraction::Abandoned(_) => {
                    (BundleState::Removed, "bundle.removed", "not completed in time".into())
                }
            };
            match why {
                Retraction::Abandoned(offered)
                    if record.state != BundleState::Prepared || record.offered >= offered =>
                {
                    return Ok(Some(false));
                }
                Retraction::Unassigned(revision) => match self.trust().await? {
                    Some(trust) if trust.revision == revision => {
                        batch.expect_unchanged(trust.key.clone(), Some(&trust));
                    }
                    _ => return Ok(Some(false)),
                },
                _ => {}
            }
            if record.state == state || record.state == BundleState::Withdrawn {
                return Ok(Some(false));
            }
            if record.holds_blobs {
                let statement = self.statement(name, version).await?.ok_or_else(|| unknown(name, version))?;
                if record.state == BundleState::Committed {
                    self.unshelve(&mut batch, &statement, &why).await?;
                }
                if !self.claim(&mut batch, &blobs(&statement), -1).await? {
                    return Ok(None);
                }
            } else if matches!(why, Retraction::Withdrawn(_))
                && record.activated.is_some()
                && let Some(statement) = self.statement(name, version).await?
            {
                self.unshelve(&mut batch, &statement, &why).await?;
            }
            record.state = state;
            record.holds_blobs = false;
            if let Retraction::Withdrawn(gone) = &why {
                record.gone = Some(gone.clone());
            }
            batch.put(key.clone(), encode(&record)?);
            self.add_event(&mut batch, &EventRecord::new(now, kind, format!("{name}/{version}"), detail))?;
            Ok(self.commit(batch).await?.map(|_| true))
        })
        .await
    }

    /// Adds to `batch` everything that makes the artifacts and aliases of `statement` visible.
    async fn shelve(&self, batch: &mut Batch, statement: &Statement, public: bool) -> Result<()> {
        let bundle = statement.bundle();
        let holder = Holder(bundle.name.clone(), bundle.version.clone());
        for (repository, format) in repositories(statement) {
            let key = self.key("r", &[repository.as_str()]);
            match self.read::<RepositoryRecord>(&key).await? {
                Some((known, _)) if known.format != format => {
                    return Err(conflict(format!(
                        "repository {repository} holds {} artifacts here, the bundle has {format} ones",
                        known.format
                    )));
                }
                Some(_) => {}
                None => {
                    batch.expect_unchanged(key.clone(), None);
                    batch.put(key, encode(&RepositoryRecord { format, public })?);
                }
            }
        }
        for (step, item) in statement.items().iter().enumerate() {
            after_step(step).await;
            let key = self.key("a", &[item.repository.as_str(), item.path.as_str()]);
            let old = self.read::<ArtifactRecord>(&key).await?;
            batch.expect_unchanged(key.clone(), old.as_ref().map(|(_, entry)| entry));
            let mut record = match old {
                Some((old, _)) if old.digest != item.digest => {
                    return Err(conflict(format!(
                        "{}/{} has the content {} here, the bundle brings {}",
                        item.repository, item.path, old.digest, item.digest
                    )));
                }
                Some((old, _)) => old,
                None => {
                    self.refuse_look_alikes(batch, &item.repository, &item.path, Kind::Artifact).await?;
                    fresh(item, statement.created())
                }
            };
            if !record.holders.contains(&holder) {
                record.holders.push(holder.clone());
            }
            record.gone = None;
            record.constrained |= restricts_downloads(statement.constraints());
            batch.put(key, encode(&record)?);
        }
        for alias in statement.aliases() {
            let path = &alias.path;
            let what = format!("{}/{path}", alias.repository);
            let key = self.key("l", &[alias.repository.as_str(), path.as_str()]);
            let old = self.read::<AliasRecord>(&key).await?;
            batch.expect_unchanged(key.clone(), old.as_ref().map(|(_, entry)| entry));
            if old.is_none() {
                self.refuse_look_alikes(batch, &alias.repository, path, Kind::Alias).await?;
            }
            if let Some((old, _)) = &old {
                if old.bundle != bundle.name {
                    return Err(conflict(format!("the alias {what} belongs to the bundle {}", old.bundle)));
                }
                // An alias never moves to a lower seq.
                if old.seq > bundle.seq {
                    continue;
                }
            }
            let record = AliasRecord {
                target: statement.items()[alias.item].path.clone(),
                bundle: bundle.name.clone(),
                version: bundle.version.clone(),
                seq: bundle.seq,
                gone: None,
                removed: false,
            };
            batch.put(key, encode(&record)?);
        }
        Ok(())
    }

    /// A name that is not here yet must not be an alias and an artifact at once, nor differ from a
    /// known name by case or normalisation alone. `batch` demands that it stays so: two bundles
    /// that meet here cannot both bring their half of a pair.
    async fn refuse_look_alikes(
        &self,
        batch: &mut Batch,
        repository: &RepositoryName,
        path: &ArtifactPath,
        kind: Kind,
    ) -> Result<()> {
        let (other, here, wanted) = match kind {
            Kind::Artifact => ("l", "an alias", "an artifact"),
            Kind::Alias => ("a", "an artifact", "an alias"),
        };
        let key = self.key(other, &[repository.as_str(), path.as_str()]);
        if self.store.get(&key).await?.is_some() {
            return Err(conflict(format!("{repository}/{path} is {here} here and cannot become {wanted}")));
        }
        batch.expect(key, Expectation::Absent);
        let folded = path.folded();
        let key = self.key("n", &[repository.as_str(), &folded]);
        let indexed = self.store.get(&key).await?;
        batch.expect_unchanged(key.clone(), indexed.as_ref());
        let mut twin = indexed.map(|entry| String::from_utf8_lossy(&entry.value).into_owned());
        if folded != path.as_str() {
            for kind in ["a", "l"] {
                let plain = self.key(kind, &[repository.as_str(), &folded]);
                if self.store.get(&plain).await?.is_some() {
                    twin.get_or_insert_with(|| folded.clone());
                }
                batch.expect(plain, Expectation::Absent);
            }
            batch.put(key, Bytes::copy_from_slice(path.as_str().as_bytes()));
        }
        match twin {
            Some(twin) if twin != path.as_str() => Err(conflict(format!(
                "{repository}/{path} and {twin:?}, which is here, differ by letter case alone"
            ))),
            _ => Ok(()),
        }
    }

    /// Adds to `batch` everything that takes the artifacts and aliases of `statement` away.
    async fn unshelve(&self, batch: &mut Batch, statement: &Statement, why: &Retraction) -> Result<()> {
        let bundle = statement.bundle();
        for (step, item) in statement.items().iter().enumerate() {
            after_step(step).await;
            let key = self.key("a", &[item.repository.as_str(), item.path.as_str()]);
            let Some((mut record, entry)) = self.read::<ArtifactRecord>(&key).await? else {
                // Taken off before it was withdrawn: who asks for it learns why it is gone.
                if let Retraction::Withdrawn(gone) = why {
                    let record =
                        ArtifactRecord { gone: Some(gone.clone()), ..fresh(item, statement.created()) };
                    batch.expect(key.clone(), Expectation::Absent).put(key, encode(&record)?);
                }
                continue;
            };
            batch.expect_unchanged(key.clone(), Some(&entry));
            record.holders.retain(|holder| holder.0 != bundle.name || holder.1 != bundle.version);
            match why {
                Retraction::Withdrawn(gone) if record.holders.is_empty() => {
                    record.gone = Some(gone.clone());
                    batch.put(key, encode(&record)?);
                }
                _ if record.holders.is_empty() => {
                    batch.delete(key);
                    let folded = item.path.folded();
                    if folded != item.path.as_str() {
                        batch.delete(self.key("n", &[item.repository.as_str(), &folded]));
                    }
                }
                _ => {
                    batch.put(key, encode(&record)?);
                }
            }
        }
        for alias in statement.aliases() {
            let key = self.key("l", &[alias.repository.as_str(), alias.path.as_str()]);
            let Some((mut record, entry)) = self.read::<AliasRecord>(&key).await? else { continue };
            if record.bundle != bundle.name || record.version != bundle.version {
                continue;
            }
            batch.expect_unchanged(key.clone(), Some(&entry));
            match why {
                Retraction::Withdrawn(gone) => record.gone = Some(gone.clone()),
                _ => record.removed = true,
            }
            batch.put(key, encode(&record)?);
        }
        Ok(())
    }
}

impl EventRecord {
    /// An event that nobody in particular caused.
    pub fn new(
        at: Timestamp,
        kind: impl Into<String>,
        what: impl Into<String>,
        detail: impl Into<String>,
    ) -> EventRecord {
        EventRecord { at, kind: kind.into(), who: None, what: what.into(), detail: detail.into() }
    }

    /// The same event, caused by `who`.
    #[must_use]
    pub fn by(mut self, who: impl Into<String>) -> EventRecord {
        self.who = Some(who.into());
        self
    }
}

fn fresh(item: &Item, modified: Timestamp) -> ArtifactRecord {
    ArtifactRecord {
        digest: item.digest,
        size: item.size,
        media_type: item.media_type.clone(),
        modified,
        checksums: item.checksums.clone(),
        holders: Vec::new(),
        constrained: false,
        gone: None,
    }
}

fn repositories(statement: &Statement) -> BTreeMap<RepositoryName, String> {
    statement.items().iter().map(|item| (item.repository.clone(), item.format.clone())).collect()
}

fn blobs(statement: &Statement) -> BTreeMap<Digest, u64> {
    statement.items().iter().map(|item| (item.digest, item.size)).collect()
}

fn tombstone(name: &BundleName, version: &Version, digest: Digest, now: Timestamp) -> BundleRecord {
    BundleRecord {
        name: name.clone(),
        version: version.clone(),
        digest,
        seq: 0,
        state: BundleState::Removed,
        items: 0,
        bytes: 0,
        created: now,
        offered: now,
        activated: None,
        repositories: Vec::new(),
        constraints: Constraints::default(),
        gone: None,
        holds_blobs: false,
    }
}

#[cold]
fn conflict(message: String) -> Error {
    Error::new(ErrorKind::Conflict, message)
}

#[cold]
fn judged_anew(name: &BundleName, version: &Version) -> Error {
    let message = format!("the trust document changed while {name}/{version} was activated; try again");
    Error::new(ErrorKind::Unavailable, message)
}

#[cold]
fn rewritten(old: &BundleRecord, offered: Digest) -> Error {
    conflict(format!(
        "bundle {}/{} exists here with the statement {}; the offered one is {offered}",
        old.name, old.version, old.digest
    ))
}

#[cold]
fn withdrawn(record: &BundleRecord) -> Error {
    let reason = record.gone.as_ref().map_or("no reason was given", |gone| &gone.reason);
    Error::new(ErrorKind::Gone, format!("bundle {}/{} was withdrawn: {reason}", record.name, record.version))
}

#[cold]
pub(crate) fn unknown(name: &BundleName, version: &Version) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no bundle {name}/{version} here"))
}

fn restricts_downloads(constraints: &Constraints) -> bool {
    !constraints.countries.is_empty() || !constraints.nets.is_empty()
}
