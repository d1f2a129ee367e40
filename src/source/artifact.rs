//! Repositories and artifacts: what the source has, and how it comes in.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};

use super::check::{check_counts, check_label, check_options, check_property};
use super::file::{self, Spool};
use super::record::{ATTEMPTS, decode, encode, key, lost_race, prefix};
use super::{Selection, Source};
use crate::blob::{BlobInfo, ByteStream};
use crate::blocking;
use crate::clock::Timestamp;
use crate::digest::{ChecksumHasher, Checksums, Digest};
use crate::error::{Error, ErrorKind, Result};
use crate::meta::Batch;
use crate::name::{ArtifactPath, RepositoryName};

/// Most labels, and most properties, of one artifact.
pub const MAX_TAGS: usize = 64;
/// How many artifacts one batch of records holds.
const BATCH: usize = 256;
/// How many files are read at a time.
const PARALLEL: usize = 4;

/// A repository of the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repository {
    /// Its name.
    pub name: RepositoryName,
    /// What its artifacts are served as: `generic` unless told otherwise.
    pub format: String,
    /// When the first artifact came.
    pub created: Timestamp,
}

/// An artifact: bytes under a path of a repository, with what people and pipelines said of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// The repository it is in.
    pub repository: RepositoryName,
    /// Its path there.
    pub path: ArtifactPath,
    /// The digest of its bytes.
    pub digest: Digest,
    /// How many bytes.
    pub size: u64,
    /// Legacy checksums, for clients that ask for them.
    #[serde(default)]
    pub checksums: Checksums,
    /// Its media type, if one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Labels, like `RC1-Approved`.
    #[serde(default)]
    pub labels: BTreeSet<String>,
    /// Properties, like `os` = `linux`.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
    /// When it was added.
    pub added: Timestamp,
}

impl Artifact {
    /// `repository/path`.
    pub fn place(&self) -> String {
        format!("{}/{}", self.repository, self.path)
    }
}

/// What is said of artifacts as they are added.
#[derive(Clone, Debug, Default)]
pub struct AddOptions {
    /// The repository's format; `None` takes what the repository has, `generic` for a new one.
    pub format: Option<String>,
    /// Labels to give.
    pub labels: BTreeSet<String>,
    /// Properties to give.
    pub properties: BTreeMap<String, String>,
    /// The media type.
    pub media_type: Option<String>,
}

/// What adding did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Added {
    /// Artifacts that are new.
    pub added: u64,
    /// Artifacts that were there with the same content; their labels and properties were merged.
    pub known: u64,
    /// The bytes of all of them.
    pub bytes: u64,
    /// Files of a directory that were left out, each with the reason.
    pub skipped: Vec<(PathBuf, String)>,
}

/// How adding goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddEvent {
    /// So many files with so many bytes are to be added.
    Found {
        /// The number of files.
        files: u64,
        /// Their bytes together.
        bytes: u64,
    },
    /// So many more bytes were read and hashed.
    Hashed(u64),
    /// One more file is in the store.
    Stored,
}

/// Told how adding goes on.
pub type AddProgress<'a> = &'a (dyn Fn(AddEvent) + Send + Sync);

/// An artifact whose bytes are in the store and whose record is to be written.
type Pending = (RepositoryName, ArtifactPath, BlobInfo, Checksums);

impl Source {
    /// Adds `bytes` as an artifact.
    ///
    /// An artifact's content never changes: adding the same bytes again merges labels and
    /// properties, other bytes are a [`ErrorKind::Conflict`] that names both digests. So is a path
    /// that differs from a present one by letter case alone. The bytes are durable in the store
    /// before the record is written.
    pub async fn add_bytes(
        &self,
        repository: &RepositoryName,
        path: &ArtifactPath,
        bytes: impl Into<Bytes> + Send,
        options: &AddOptions,
    ) -> Result<Artifact> {
        check_options(options)?;
        let bytes = bytes.into();
        let mut hasher = ChecksumHasher::new();
        hasher.update(&bytes);
        let (size, digest, checksums) = hasher.finish();
        let info = BlobInfo { digest, size };
        self.check_addition(repository, path, &digest).await?;
        self.store_stream(&info, Box::pin(stream::once(async move { Ok(bytes) }))).await?;
        self.record_one((repository.clone(), path.clone(), info, checksums), options).await
    }

    /// Adds the file at `file` as an artifact; see [`add_bytes`](Source::add_bytes).
    pub async fn add_file(
        &self,
        repository: &RepositoryName,
        path: &ArtifactPath,
        file: &Path,
        options: &AddOptions,
        progress: AddProgress<'_>,
    ) -> Result<Artifact> {
        check_options(options)?;
        let opened = Arc::new(file::open(file)?);
        let length = opened.metadata().map_err(|cause| Error::io(file.display(), cause))?.len();
        progress(AddEvent::Found { files: 1, bytes: length });
        let (info, checksums) = hash(&opened, file, progress).await?;
        self.check_addition(repository, path, &info.digest).await?;
        self.store_file(&info, opened, file).await?;
        progress(AddEvent::Stored);
        self.record_one((repository.clone(), path.clone(), info, checksums), options).await
    }

    /// Adds the bytes of `stream` as an artifact; see [`add_bytes`](Source::add_bytes).
    ///
    /// The stream is spooled to an unnamed file of the source's data directory, because a blob's
    /// digest has to be known before it is stored.
    pub async fn add_stream(
        &self,
        repository: &RepositoryName,
        path: &ArtifactPath,
        mut stream: ByteStream,
        options: &AddOptions,
    ) -> Result<Artifact> {
        check_options(options)?;
        let mut spool = Spool::create(&self.spool)?;
        let mut hasher = ChecksumHasher::new();
        while let Some(bytes) = stream.try_next().await? {
            hasher.update(&bytes);
            spool = spool.write(bytes).await?;
        }
        let (size, digest, checksums) = hasher.finish();
        let info = BlobInfo { digest, size };
        self.check_addition(repository, path, &digest).await?;
        self.store_file(&info, spool.into_file()?, Path::new("the stream")).await?;
        self.record_one((repository.clone(), path.clone(), info, checksums), options).await
    }

    /// Adds every file under `directory` to `repository`, below `under` if it is given.
    ///
    /// All files are read and compared with what is there before anything is written: one file in
    /// conflict, and nothing is added. Symbolic links and special files are left out and told of.
    pub async fn add_tree(
        &self,
        repository: &RepositoryName,
        under: Option<&ArtifactPath>,
        directory: &Path,
        options: &AddOptions,
        progress: AddProgress<'_>,
    ) -> Result<Added> {
        self.add_tree_if(&|_| Ok(()), repository, under, directory, options, progress).await
    }

    /// As [`add_tree`](Source::add_tree), if `permit` has nothing against any of the paths.
    pub(super) async fn add_tree_if(
        &self,
        permit: &(dyn Fn(&ArtifactPath) -> Result<()> + Send + Sync),
        repository: &RepositoryName,
        under: Option<&ArtifactPath>,
        directory: &Path,
        options: &AddOptions,
        progress: AddProgress<'_>,
    ) -> Result<Added> {
        check_options(options)?;
        let found = {
            let directory = directory.to_owned();
            blocking::run(move || file::walk(&directory)).await?
        };
        let mut folded = BTreeMap::new();
        let mut files = Vec::with_capacity(found.files.len());
        for (relative, file) in found.files {
            let path = match under {
                Some(under) => ArtifactPath::new(&format!("{under}/{relative}")),
                None => ArtifactPath::new(&relative),
            };
            let path = path.map_err(|error| error.context(file.display()))?;
            permit(&path)?;
            if let Some(other) = folded.insert(path.folded(), file.clone()) {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!(
                        "{} and {} have paths that differ by letter case alone",
                        other.display(),
                        file.display()
                    ),
                ));
            }
            files.push((path, file));
        }
        progress(AddEvent::Found { files: files.len() as u64, bytes: found.bytes });
        let hashed: Vec<(ArtifactPath, PathBuf, BlobInfo, Checksums)> = stream::iter(files)
            .map(|(path, file)| async move {
                let opened = Arc::new(file::open(&file)?);
                let (info, checksums) = hash(&opened, &file, progress).await?;
                self.check_addition(repository, &path, &info.digest).await?;
                Ok::<_, Error>((path, file, info, checksums))
            })
            .buffered(PARALLEL)
            .try_collect()
            .await?;
        let mut report = Added { skipped: found.skipped, ..Added::default() };
        for batch in hashed.chunks(BATCH) {
            let pending: Vec<Pending> = stream::iter(batch)
                .map(|(path, file, info, checksums)| async move {
                    self.store_file(info, Arc::new(file::open(file)?), file).await?;
                    progress(AddEvent::Stored);
                    Ok::<_, Error>((repository.clone(), path.clone(), *info, checksums.clone()))
                })
                .buffered(PARALLEL)
                .try_collect()
                .await?;
            for (artifact, new) in self.record(&pending, options).await? {
                *(if new { &mut report.added } else { &mut report.known }) += 1;
                report.bytes += artifact.size;
            }
        }
        Ok(report)
    }

    /// All repositories, by name.
    pub async fn repositories(&self) -> Result<Vec<Repository>> {
        self.records.all(&prefix("repo", &[])).await
    }

    /// One artifact.
    pub async fn artifact(
        &self,
        repository: &RepositoryName,
        path: &ArtifactPath,
    ) -> Result<Option<Artifact>> {
        self.records.load(&artifact_key(repository, path)).await
    }

    /// The selected artifacts, by repository and path.
    pub async fn artifacts(&self, selection: &Selection) -> Result<Vec<Artifact>> {
        let start = match selection.literal_prefix().split_once('/') {
            Some((repository, path)) => key("art", &[repository, path]),
            None => key("art", &[&selection.literal_prefix()]),
        };
        let mut artifacts = Vec::new();
        self.records
            .each(&start, |entry| {
                let artifact: Artifact = decode(entry)?;
                if selection.matches(&artifact) {
                    artifacts.push(artifact);
                }
                Ok(())
            })
            .await?;
        Ok(artifacts)
    }

    /// Gives and takes labels of the selected artifacts; answers how many artifacts that changed.
    pub async fn label(&self, selection: &Selection, give: &[String], take: &[String]) -> Result<u64> {
        for label in give {
            check_label(label)?;
        }
        self.change(selection, "labelling", |artifact| {
            artifact.labels.extend(give.iter().cloned());
            artifact.labels.retain(|label| !take.contains(label));
        })
        .await
    }

    /// Sets (`Some`) and clears (`None`) properties of the selected artifacts; answers how many
    /// artifacts that changed.
    pub async fn set_properties(
        &self,
        selection: &Selection,
        properties: &BTreeMap<String, Option<String>>,
    ) -> Result<u64> {
        for (name, value) in properties {
            check_property(name, value.as_deref().unwrap_or_default())?;
        }
        self.change(selection, "setting properties", |artifact| {
            for (name, value) in properties {
                match value {
                    Some(value) => artifact.properties.insert(name.clone(), value.clone()),
                    None => artifact.properties.remove(name),
                };
            }
        })
        .await
    }

    /// Removes the selected artifacts, and the bytes that no other artifact has; answers how many
    /// artifacts went.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if any of them is in a bundle, drafts included; nothing is removed.
    pub async fn remove(&self, selection: &Selection) -> Result<u64> {
        let _guard = self.blobs_in_use.lock().await;
        for _ in 0..ATTEMPTS {
            let epoch = self.records.entry(&key("epoch", &[])).await?;
            let artifacts = self.artifacts(selection).await?;
            let used = self.used_places().await?;
            let mut batch = Batch::new();
            // A bundle that is made meanwhile moves the epoch on, and this is judged again.
            batch
                .expect_unchanged(key("epoch", &[]), epoch.as_ref())
                .put(key("epoch", &[]), Bytes::from("{}"));
            for artifact in &artifacts {
                if let Some((name, version)) = used.get(&artifact.place()) {
                    return Err(Error::new(
                        ErrorKind::Conflict,
                        format!("{} is in the bundle {name} {version} and stays", artifact.place()),
                    ));
                }
                let (repository, path) = (artifact.repository.as_str(), artifact.path.as_str());
                batch
                    .delete(key("art", &[repository, path]))
                    .delete(key("fold", &[repository, &artifact.path.folded()]))
                    .delete(key("ref", &[&artifact.digest.to_hex(), repository, path]));
            }
            if !self.records.commit(batch).await? {
                continue;
            }
            for artifact in &artifacts {
                if !self.records.any(&prefix("ref", &[&artifact.digest.to_hex()])).await? {
                    self.blobs.remove(&artifact.digest).await?;
                }
            }
            return Ok(artifacts.len() as u64);
        }
        Err(lost_race("removing artifacts"))
    }

    /// Refuses, before any byte is stored, what [`record`](Source::record) would refuse after.
    async fn check_addition(
        &self,
        repository: &RepositoryName,
        path: &ArtifactPath,
        digest: &Digest,
    ) -> Result<()> {
        match self.artifact(repository, path).await? {
            Some(present) if present.digest != *digest => Err(other_content(&present, digest)),
            Some(_) => Ok(()),
            None => match self.records.entry(&fold_key(repository, path)).await? {
                Some(other) => Err(other_spelling(repository, path, &String::from_utf8_lossy(&other.value))),
                None => Ok(()),
            },
        }
    }

    async fn record_one(&self, pending: Pending, options: &AddOptions) -> Result<Artifact> {
        let recorded = self.record(std::slice::from_ref(&pending), options).await?;
        let first = recorded.into_iter().next();
        first
            .map(|(artifact, _)| artifact)
            .ok_or_else(|| Error::new(ErrorKind::Internal, "nothing was recorded"))
    }

    /// Writes the records of artifacts of one repository whose bytes are stored; answers each
    /// artifact and whether it is new.
    async fn record(&self, pending: &[Pending], options: &AddOptions) -> Result<Vec<(Artifact, bool)>> {
        let _guard = self.blobs_in_use.lock().await;
        for (repository, path, info, _) in pending {
            if self.blobs.stat(&info.digest).await?.is_none() {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    format!("the bytes of {repository}/{path} were removed while they were added; try again"),
                ));
            }
        }
        for _ in 0..ATTEMPTS {
            let mut batch = Batch::new();
            let mut outcome = Vec::with_capacity(pending.len());
            if let Some((repository, ..)) = pending.first() {
                self.record_repository(repository, options, &mut batch).await?;
            }
            for (repository, path, info, checksums) in pending {
                let at = artifact_key(repository, path);
                let entry = self.records.entry(&at).await?;
                let present: Option<Artifact> = entry.as_ref().map(decode).transpose()?;
                let new = present.is_none();
                let mut artifact = match present {
                    Some(present) if present.digest != info.digest => {
                        return Err(other_content(&present, &info.digest));
                    }
                    Some(present) => present,
                    None => {
                        let fold = fold_key(repository, path);
                        if let Some(other) = self.records.entry(&fold).await? {
                            let other = String::from_utf8_lossy(&other.value).into_owned();
                            return Err(other_spelling(repository, path, &other));
                        }
                        let reference =
                            key("ref", &[&info.digest.to_hex(), repository.as_str(), path.as_str()]);
                        batch.expect_unchanged(fold.clone(), None);
                        batch.put(fold, path.as_str().to_owned()).put(reference, Bytes::from("{}"));
                        Artifact {
                            repository: repository.clone(),
                            path: path.clone(),
                            digest: info.digest,
                            size: info.size,
                            checksums: checksums.clone(),
                            media_type: None,
                            labels: BTreeSet::new(),
                            properties: BTreeMap::new(),
                            added: self.clock.now(),
                        }
                    }
                };
                let before = artifact.clone();
                artifact.labels.extend(options.labels.iter().cloned());
                artifact.properties.extend(options.properties.clone());
                if options.media_type.is_some() {
                    artifact.media_type.clone_from(&options.media_type);
                }
                check_counts(&artifact)?;
                if new || artifact != before {
                    batch.expect_unchanged(at.clone(), entry.as_ref()).put(at, encode(&artifact)?);
                }
                outcome.push((artifact, new));
            }
            if self.records.commit(batch).await? {
                return Ok(outcome);
            }
        }
        Err(lost_race("adding artifacts"))
    }

    async fn record_repository(
        &self,
        name: &RepositoryName,
        options: &AddOptions,
        batch: &mut Batch,
    ) -> Result<()> {
        let at = key("repo", &[name.as_str()]);
        let present: Option<Repository> = self.records.load(&at).await?;
        match (present, &options.format) {
            (Some(present), Some(format)) if present.format != *format => Err(Error::new(
                ErrorKind::Conflict,
                format!("the repository {name} has the format {}, not {format}", present.format),
            )),
            (Some(_), _) => Ok(()),
            (None, format) => {
                let format = format.clone().unwrap_or_else(|| "generic".to_owned());
                let repository = Repository { name: name.clone(), format, created: self.clock.now() };
                batch.expect_unchanged(at.clone(), None).put(at, encode(&repository)?);
                Ok(())
            }
        }
    }

    /// Applies `change` to the selected artifacts, in batches.
    async fn change(
        &self,
        selection: &Selection,
        what: &str,
        change: impl Fn(&mut Artifact) + Send + Sync,
    ) -> Result<u64> {
        let mut changed = 0;
        for artifacts in self.artifacts(selection).await?.chunks(BATCH) {
            changed += self.change_batch(selection, artifacts, what, &change).await?;
        }
        Ok(changed)
    }

    async fn change_batch(
        &self,
        selection: &Selection,
        artifacts: &[Artifact],
        what: &str,
        change: &(impl Fn(&mut Artifact) + Send + Sync),
    ) -> Result<u64> {
        for _ in 0..ATTEMPTS {
            let mut batch = Batch::new();
            let mut changed = 0;
            for artifact in artifacts {
                let at = artifact_key(&artifact.repository, &artifact.path);
                let Some(entry) = self.records.entry(&at).await? else { continue };
                let before: Artifact = decode(&entry)?;
                if !selection.matches(&before) {
                    continue;
                }
                let mut after = before.clone();
                change(&mut after);
                if after != before {
                    check_counts(&after)?;
                    batch.expect_unchanged(at.clone(), Some(&entry)).put(at, encode(&after)?);
                    changed += 1;
                }
            }
            if self.records.commit(batch).await? {
                return Ok(changed);
            }
        }
        Err(lost_race(what))
    }

    async fn store_stream(&self, info: &BlobInfo, mut bytes: ByteStream) -> Result<()> {
        if self.blobs.stat(&info.digest).await?.is_some() {
            return Ok(());
        }
        let mut writer = self.blobs.create(info).await?;
        while let Some(chunk) = bytes.try_next().await? {
            writer.write(chunk).await?;
        }
        writer.commit().await.map(drop)
    }

    async fn store_file(&self, info: &BlobInfo, opened: Arc<File>, shown: &Path) -> Result<()> {
        let stored = self.store_stream(info, file::stream(opened, shown.to_owned())).await;
        stored.map_err(|error| match error.kind() {
            ErrorKind::Mismatch => error.context(format!("{} changed while it was added", shown.display())),
            _ => error,
        })
    }
}

/// Reads all of `opened` once, for all its checksums.
async fn hash(opened: &Arc<File>, shown: &Path, progress: AddProgress<'_>) -> Result<(BlobInfo, Checksums)> {
    let mut hasher = ChecksumHasher::new();
    let mut offset = 0;
    loop {
        let file = opened.clone();
        let name = shown.to_owned();
        let read = blocking::run(move || {
            let bytes = file::read_at(&file, offset, &name)?;
            hasher.update(&bytes);
            Ok((hasher, bytes.len() as u64))
        });
        let length;
        (hasher, length) = read.await?;
        if length == 0 {
            let (size, digest, checksums) = hasher.finish();
            return Ok((BlobInfo { digest, size }, checksums));
        }
        offset += length;
        progress(AddEvent::Hashed(length));
    }
}

fn artifact_key(repository: &RepositoryName, path: &ArtifactPath) -> Vec<u8> {
    key("art", &[repository.as_str(), path.as_str()])
}

fn fold_key(repository: &RepositoryName, path: &ArtifactPath) -> Vec<u8> {
    key("fold", &[repository.as_str(), &path.folded()])
}

#[cold]
fn other_content(present: &Artifact, digest: &Digest) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!(
            "{} is there with other content: it has {}, the new bytes have {digest}; an artifact never changes",
            present.place(),
            present.digest
        ),
    )
}

#[cold]
fn other_spelling(repository: &RepositoryName, path: &ArtifactPath, other: &str) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!("{repository}/{path} differs from {repository}/{other} by letter case alone"),
    )
}
