//! Release bundles at the source: draft, sign, withdraw.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::Source;
use super::artifact::Artifact;
use super::check::check_label;
use super::keys::Role;
use super::record::{ATTEMPTS, decode, encode, key, lost_race, prefix};
use super::state::{
    BundleRecord, BundleState, NewAlias, NewBundle, SbomRecord, SignatureRecord, Verification,
    WithdrawalRecord,
};
use crate::blob::BlobStoreExt as _;
use crate::bundle::{self, BundleRef, Envelope, Item, STATEMENT_PAYLOAD, Signature, Statement};
use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Acceptance, Signer};
use crate::meta::{Batch, Entry};
use crate::name::{BundleName, RepositoryName, Version};

impl Source {
    /// Makes a draft of a bundle, or replaces the draft of this name and version.
    ///
    /// Its `seq` is one more than the last one given to the name. A bundle that anyone has signed
    /// is never replaced; asked for again with the same content, it is answered as it is.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the selection is empty or an alias or SBOM names nothing in it;
    /// [`ErrorKind::Conflict`] if the version is signed with other content; [`ErrorKind::Gone`] if
    /// it was withdrawn.
    pub async fn create_bundle(&self, new: &NewBundle) -> Result<BundleRecord> {
        if let Some(label) = &new.label {
            check_label(label)?;
        }
        for _ in 0..ATTEMPTS {
            let epoch = self.records.entry(&key("epoch", &[])).await?;
            let seq_key = key("seq", &[new.name.as_str()]);
            let seq_entry = self.records.entry(&seq_key).await?;
            let last: u64 = seq_entry.as_ref().map(decode).transpose()?.unwrap_or(0);
            let present = self.bundle_entry(&new.name, &new.version).await?;
            let (seq, created) = match &present {
                Some((record, _)) => (record.seq, record.created),
                None => (last + 1, self.clock.now()),
            };
            if let Some((record, _)) = &present
                && let Some(withdrawn) = &record.withdrawn
            {
                return Err(gone(record, withdrawn));
            }
            let artifacts = self.artifacts(&new.selection).await?;
            let (payload, sboms) = self.state_bundle(new, &artifacts, seq, created).await?;
            let digest = Digest::of(&payload);
            if let Some((record, _)) = &present
                && !record.signatures.is_empty()
            {
                return if record.digest == digest {
                    Ok(record.clone())
                } else {
                    Err(signed_otherwise(record, digest))
                };
            }
            let record = BundleRecord {
                name: new.name.clone(),
                version: new.version.clone(),
                seq,
                digest,
                created,
                items: artifacts.len() as u64,
                bytes: artifacts.iter().map(|artifact| artifact.size).sum(),
                sboms,
                signatures: Vec::new(),
                withdrawn: None,
            };
            let at = bundle_key(&new.name, &new.version);
            let mut batch = Batch::new();
            // Removing an artifact moves the epoch on as well, so no bundle is left without bytes.
            batch
                .expect_unchanged(key("epoch", &[]), epoch.as_ref())
                .put(key("epoch", &[]), Bytes::from("{}"))
                .expect_unchanged(at.clone(), present.as_ref().map(|(_, entry)| entry))
                .put(at, encode(&record)?)
                .put(payload_key(&new.name, &new.version), payload);
            if present.is_none() {
                batch.expect_unchanged(seq_key.clone(), seq_entry.as_ref()).put(seq_key, encode(&seq)?);
            }
            if self.records.commit(batch).await? {
                return Ok(record);
            }
        }
        Err(lost_race("making the bundle"))
    }

    /// Signs a bundle with the release keys called `aliases`, or with the default one if none is
    /// named. A key that has signed already does not sign again. From the first signature on the
    /// bundle never changes.
    pub async fn sign_bundle(
        &self,
        name: &BundleName,
        version: &Version,
        aliases: &[String],
    ) -> Result<BundleRecord> {
        self.sign_as(name, version, aliases, None).await
    }

    /// As [`sign_bundle`](Source::sign_bundle), noting who does it.
    pub(super) async fn sign_as(
        &self,
        name: &BundleName,
        version: &Version,
        aliases: &[String],
        by: Option<&str>,
    ) -> Result<BundleRecord> {
        let mut signers = Vec::new();
        let ring = self.ring(Role::Release).await?;
        let wanted: Vec<Option<&str>> = match aliases {
            [] => vec![None],
            some => some.iter().map(|alias| Some(alias.as_str())).collect(),
        };
        for alias in wanted {
            let alias = ring.keys.signer(alias, self.clock.now())?.alias.clone();
            signers.push((self.signer(Role::Release, Some(&alias)).await?, alias));
        }
        let now = self.clock.now();
        self.add_signatures(name, version, |pae, record| {
            let mut made = Vec::new();
            for (signer, alias) in &signers {
                let keyid = signer.public_key().id().to_string();
                if !record.signatures.iter().any(|signature| signature.keyid == keyid) {
                    made.push(SignatureRecord {
                        keyid,
                        alias: alias.clone(),
                        sig: STANDARD.encode(signer.sign(pae, now)?),
                        at: now,
                        by: by.map(str::to_owned),
                    });
                }
            }
            Ok(made)
        })
        .await
    }

    /// Attaches a signature that was made elsewhere over the bytes of
    /// [`signing_bytes`](Source::signing_bytes), by the key called `alias` or any of the ring.
    ///
    /// # Errors
    /// [`ErrorKind::Untrusted`] if no such key made it, or the key may not sign.
    pub async fn attach_signature(
        &self,
        name: &BundleName,
        version: &Version,
        alias: Option<&str>,
        signature: &[u8],
    ) -> Result<BundleRecord> {
        self.attach_as(name, version, alias, signature, None).await
    }

    /// As [`attach_signature`](Source::attach_signature), noting who does it.
    pub(super) async fn attach_as(
        &self,
        name: &BundleName,
        version: &Version,
        alias: Option<&str>,
        signature: &[u8],
        by: Option<&str>,
    ) -> Result<BundleRecord> {
        let ring = self.ring(Role::Release).await?;
        let candidates: Vec<_> = match alias {
            Some(alias) => vec![ring.keys.pair(alias)?],
            None => ring.keys.pairs().iter().collect(),
        };
        let now = self.clock.now();
        self.add_signatures(name, version, |pae, record| {
            let mut refusal = None;
            for pair in &candidates {
                let acceptance = Acceptance { now, window: pair.window, revocation: pair.revocation.clone() };
                match pair.key.verify(pae, signature, &acceptance) {
                    Ok(()) => {
                        let keyid = pair.key.id().to_string();
                        let known = record.signatures.iter().any(|signature| signature.keyid == keyid);
                        let made = SignatureRecord {
                            keyid,
                            alias: pair.alias.clone(),
                            sig: STANDARD.encode(signature),
                            at: now,
                            by: by.map(str::to_owned),
                        };
                        return Ok(if known { Vec::new() } else { vec![made] });
                    }
                    Err(error) => refusal = Some(error),
                }
            }
            Err(match (refusal, candidates.len()) {
                (Some(error), 1) => error.context(format_args!("the signature by {:?}", candidates[0].alias)),
                _ => Error::new(
                    ErrorKind::Untrusted,
                    format!(
                        "no key of the release ring made this signature over the bundle {name} {version}"
                    ),
                ),
            })
        })
        .await
    }

    /// The exact bytes a signature of the bundle is made over: DSSE's pre-authentication encoding.
    pub async fn signing_bytes(&self, name: &BundleName, version: &Version) -> Result<Vec<u8>> {
        self.require(name, version).await?;
        Ok(bundle::pae(STATEMENT_PAYLOAD, &self.payload(name, version).await?))
    }

    /// The signed envelope.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] for a draft.
    pub async fn envelope(&self, name: &BundleName, version: &Version) -> Result<Bytes> {
        let (record, _) = self.require(name, version).await?;
        if record.signatures.is_empty() {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("the bundle {name} {version} is a draft: sign it first"),
            ));
        }
        let payload = self.payload(name, version).await?;
        Ok(seal(&record, payload)?.to_json().into())
    }

    /// All bundles, by name and `seq`.
    pub async fn bundles(&self) -> Result<Vec<BundleRecord>> {
        let mut bundles: Vec<BundleRecord> = self.records.all(&prefix("bundle", &[])).await?;
        bundles.sort_by(|a, b| (&a.name, a.seq).cmp(&(&b.name, b.seq)));
        Ok(bundles)
    }

    /// One bundle.
    pub async fn bundle(&self, name: &BundleName, version: &Version) -> Result<Option<BundleRecord>> {
        Ok(self.bundle_entry(name, version).await?.map(|(record, _)| record))
    }

    /// What a bundle says.
    pub async fn statement(&self, name: &BundleName, version: &Version) -> Result<Statement> {
        self.require(name, version).await?;
        Statement::parse(&self.payload(name, version).await?)
    }

    /// Verifies a bundle as an edge would, and reads every blob of it again.
    ///
    /// # Errors
    /// [`ErrorKind::Untrusted`] if too few owners signed; [`ErrorKind::Corrupted`] for a blob that is
    /// missing or damaged.
    pub async fn verify_bundle(&self, name: &BundleName, version: &Version) -> Result<Verification> {
        let envelope = self.envelope(name, version).await?;
        let now = self.clock.now();
        let trust = self.compose_trust().await?;
        let verified = bundle::verify(&envelope, &trust, now)?;
        let mut seen = BTreeSet::new();
        for item in verified.statement().items() {
            if !seen.insert(item.digest) {
                continue;
            }
            let place = item.name();
            match self.blobs.verify(&item.digest).await? {
                Some(true) => {}
                Some(false) => {
                    let message =
                        format!("the stored bytes of {place} do not have the digest {}", item.digest);
                    return Err(Error::new(ErrorKind::Corrupted, message));
                }
                None => {
                    let message =
                        format!("the bytes of {place}, {}, are missing from the store", item.digest);
                    return Err(Error::new(ErrorKind::Corrupted, message));
                }
            }
        }
        let signers = verified.signers().iter().map(|signer| signer.alias.clone()).collect();
        Ok(Verification {
            digest: verified.payload_digest(),
            signers,
            threshold: trust.release.threshold,
            blobs: seen.len() as u64,
        })
    }

    /// Withdraws a signed bundle for good: the next trust document tells every edge to serve it no
    /// more, and it is assigned to none. `legal` says that the law demands it.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] for a draft, which is discarded instead; [`ErrorKind::Gone`] if it was
    /// withdrawn before.
    pub async fn withdraw_bundle(
        &self,
        name: &BundleName,
        version: &Version,
        reason: &str,
        legal: bool,
    ) -> Result<BundleRecord> {
        for _ in 0..ATTEMPTS {
            let (mut record, entry) = self.withdrawable(name, version, reason).await?;
            record.withdrawn =
                Some(WithdrawalRecord { reason: reason.to_owned(), legal, at: self.clock.now() });
            let at = bundle_key(name, version);
            let mut batch = Batch::new();
            batch.expect_unchanged(at.clone(), Some(&entry)).put(at, encode(&record)?);
            self.records
                .each(&prefix("assign", &[name.as_str(), version.as_str()]), |entry| {
                    batch.delete(entry.key.clone());
                    Ok(())
                })
                .await?;
            if self.records.commit(batch).await? {
                return Ok(record);
            }
        }
        Err(lost_race("withdrawing the bundle"))
    }

    /// A bundle that may be withdrawn for `reason`, with the entry its record was read from.
    pub(super) async fn withdrawable(
        &self,
        name: &BundleName,
        version: &Version,
        reason: &str,
    ) -> Result<(BundleRecord, Entry)> {
        if reason.trim().is_empty() || reason.len() > 1024 || reason.chars().any(char::is_control) {
            return Err(Error::invalid("a withdrawal needs a reason of 1 to 1024 bytes on one line"));
        }
        let (record, entry) = self.require(name, version).await?;
        if record.state() == BundleState::Draft {
            let message = format!("the bundle {name} {version} is a draft: discard it instead");
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        match &record.withdrawn {
            Some(withdrawn) => Err(gone(&record, withdrawn)),
            None => Ok((record, entry)),
        }
    }

    /// Discards a draft.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if anyone has signed it.
    pub async fn discard_bundle(&self, name: &BundleName, version: &Version) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let (record, entry) = self.require(name, version).await?;
            if record.state() != BundleState::Draft {
                let message = format!("the bundle {name} {version} is signed: withdraw it instead");
                return Err(Error::new(ErrorKind::Conflict, message));
            }
            let at = bundle_key(name, version);
            let mut batch = Batch::new();
            batch.expect_unchanged(at.clone(), Some(&entry)).delete(at).delete(payload_key(name, version));
            if self.records.commit(batch).await? {
                return Ok(());
            }
        }
        Err(lost_race("discarding the draft"))
    }

    /// A bundle that may be distributed, with the entry its record was read from.
    pub(super) async fn distributable(
        &self,
        name: &BundleName,
        version: &Version,
    ) -> Result<(BundleRecord, Entry)> {
        let (record, entry) = self.require(name, version).await?;
        if let Some(withdrawn) = &record.withdrawn {
            return Err(gone(&record, withdrawn));
        }
        if record.signatures.is_empty() {
            let message = format!("the bundle {name} {version} is a draft: sign it first");
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        let set = self.ring(Role::Release).await?.to_key_set()?;
        let envelope = seal(&record, self.payload(name, version).await?)?;
        envelope.verify(&set, self.clock.now()).map_err(|error| {
            error.context(format_args!("the bundle {name} {version} cannot be distributed"))
        })?;
        Ok((record, entry))
    }

    /// `repository/path` of every artifact that a bundle holds, and the bundle.
    pub(super) async fn used_places(&self) -> Result<BTreeMap<String, (BundleName, Version)>> {
        let mut used = BTreeMap::new();
        for record in self.bundles().await? {
            let statement = self.statement(&record.name, &record.version).await?;
            for item in statement.items() {
                used.insert(item.name(), (record.name.clone(), record.version.clone()));
            }
        }
        Ok(used)
    }

    /// The statement's bytes, and what its SBOMs say.
    async fn state_bundle(
        &self,
        new: &NewBundle,
        artifacts: &[Artifact],
        seq: u64,
        created: Timestamp,
    ) -> Result<(Bytes, Vec<SbomRecord>)> {
        if artifacts.is_empty() {
            return Err(Error::invalid(format!(
                "the bundle {} {} would be empty: nothing is selected",
                new.name, new.version
            )));
        }
        let formats: BTreeMap<RepositoryName, String> = self
            .repositories()
            .await?
            .into_iter()
            .map(|repository| (repository.name, repository.format))
            .collect();
        let format = |repository: &RepositoryName| {
            formats.get(repository).cloned().unwrap_or_else(|| "generic".to_owned())
        };
        let reference = BundleRef {
            tenant: self.profile.tenant.clone(),
            project: self.profile.project.clone(),
            name: new.name.clone(),
            version: new.version.clone(),
            seq,
        };
        let from = bundle::Source {
            id: self.profile.id.clone(),
            label: new.label.clone().unwrap_or_default(),
            by: new.by.clone(),
        };
        let items = artifacts.iter().map(|artifact| Item {
            repository: artifact.repository.clone(),
            format: format(&artifact.repository),
            path: artifact.path.clone(),
            digest: artifact.digest,
            size: artifact.size,
            media_type: artifact.media_type.clone(),
            checksums: artifact.checksums.clone(),
        });
        let mut builder =
            Statement::builder(reference, created, from).items(items).constraints(new.constraints.clone());
        for alias in &new.aliases {
            let NewAlias { repository, name, alias, target } = alias.clone();
            builder = builder.alias(repository, name, &alias, target);
        }
        let mut sboms = Vec::new();
        for pattern in &new.sboms {
            if !artifacts.iter().any(|artifact| pattern.matches(&artifact.place())) {
                return Err(Error::invalid(format!("no artifact of the bundle is the SBOM {pattern}")));
            }
        }
        for artifact in artifacts {
            let place = artifact.place();
            if !new.sboms.iter().any(|pattern| pattern.matches(&place)) {
                continue;
            }
            let bytes = self.blobs.read(&artifact.digest, bundle::limits::SBOM as u64).await?;
            let bytes = bytes.ok_or_else(|| {
                Error::new(ErrorKind::Corrupted, format!("the bytes of {place} are missing from the store"))
            })?;
            let summary = bundle::summarize(&bytes).ok_or_else(|| {
                Error::invalid(format!("{place} is neither a CycloneDX nor an SPDX document"))
            })?;
            let format = summary.format.to_string();
            builder = builder.sbom(artifact.repository.clone(), artifact.path.clone(), &format, "bundle");
            sboms.push(SbomRecord { place, format, components: summary.components, name: summary.name });
        }
        let payload = builder.build()?.to_payload();
        Ok((payload.into(), sboms))
    }

    async fn add_signatures(
        &self,
        name: &BundleName,
        version: &Version,
        make: impl Fn(&[u8], &BundleRecord) -> Result<Vec<SignatureRecord>> + Send,
    ) -> Result<BundleRecord> {
        for _ in 0..ATTEMPTS {
            let (mut record, entry) = self.require(name, version).await?;
            if let Some(withdrawn) = &record.withdrawn {
                return Err(gone(&record, withdrawn));
            }
            let payload = self.payload(name, version).await?;
            if Digest::of(&payload) != record.digest {
                return Err(Error::new(
                    ErrorKind::Corrupted,
                    format!("the stored statement of the bundle {name} {version} does not have its digest"),
                ));
            }
            let made = make(&bundle::pae(STATEMENT_PAYLOAD, &payload), &record)?;
            if made.is_empty() {
                return Ok(record);
            }
            record.signatures.extend(made);
            if record.signatures.len() > bundle::limits::SIGNATURES {
                let message = format!("a bundle has at most {} signatures", bundle::limits::SIGNATURES);
                return Err(Error::new(ErrorKind::TooLarge, message));
            }
            let at = bundle_key(name, version);
            let mut batch = Batch::new();
            batch.expect_unchanged(at.clone(), Some(&entry)).put(at, encode(&record)?);
            if self.records.commit(batch).await? {
                return Ok(record);
            }
        }
        Err(lost_race("signing the bundle"))
    }

    async fn payload(&self, name: &BundleName, version: &Version) -> Result<Bytes> {
        let entry = self.records.entry(&payload_key(name, version)).await?;
        entry.map(|entry| entry.value).ok_or_else(|| {
            Error::new(
                ErrorKind::Corrupted,
                format!("the statement of the bundle {name} {version} is missing"),
            )
        })
    }

    async fn bundle_entry(
        &self,
        name: &BundleName,
        version: &Version,
    ) -> Result<Option<(BundleRecord, Entry)>> {
        let entry = self.records.entry(&bundle_key(name, version)).await?;
        entry.map(|entry| Ok((decode(&entry)?, entry))).transpose()
    }

    pub(super) async fn require(
        &self,
        name: &BundleName,
        version: &Version,
    ) -> Result<(BundleRecord, Entry)> {
        self.bundle_entry(name, version)
            .await?
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no bundle {name} {version}")))
    }
}

fn seal(record: &BundleRecord, payload: Bytes) -> Result<Envelope> {
    let mut signatures = Vec::with_capacity(record.signatures.len());
    for signature in &record.signatures {
        let sig = STANDARD.decode(&signature.sig).map_err(|cause| {
            let message = format!(
                "a signature of the bundle {} {} cannot be read: {cause}",
                record.name, record.version
            );
            Error::new(ErrorKind::Corrupted, message)
        })?;
        signatures.push(Signature { keyid: signature.keyid.clone(), sig });
    }
    Ok(Envelope { payload_type: STATEMENT_PAYLOAD.to_owned(), payload, signatures })
}

pub(super) fn bundle_key(name: &BundleName, version: &Version) -> Vec<u8> {
    key("bundle", &[name.as_str(), version.as_str()])
}

fn payload_key(name: &BundleName, version: &Version) -> Vec<u8> {
    key("payload", &[name.as_str(), version.as_str()])
}

#[cold]
fn signed_otherwise(record: &BundleRecord, digest: Digest) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!(
            "the bundle {} {} is signed with other content: it has the statement {}, this would be {digest}; \
             a version never changes",
            record.name, record.version, record.digest
        ),
    )
}

#[cold]
fn gone(record: &BundleRecord, withdrawn: &WithdrawalRecord) -> Error {
    Error::new(
        ErrorKind::Gone,
        format!(
            "the bundle {} {} was withdrawn at {}: {}",
            record.name, record.version, withdrawn.at, withdrawn.reason
        ),
    )
}
