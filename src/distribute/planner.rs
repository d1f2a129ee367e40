//! How blobs travel: planned once for every pair of a target and its bases, and remembered.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures_util::lock::Mutex as Turn;
use serde::{Deserialize, Serialize};

use super::medium::{FilePart, FileScratch, Spooled, digest_of, readable};
use super::message::Method;
use super::similar::Candidate;
use super::slots::Slots;
use crate::blob::{BlobInfo, BlobStore};
use crate::blocking;
use crate::delta::pack::Descriptor;
use crate::delta::{self, Base, Budget, FORMAT, Inventory, Limits, ReadAt};
use crate::digest::{Digest, to_hex};
use crate::error::{Error, ErrorKind, Result};
use crate::secret::{Secret, private_directory};

/// The version of what is remembered; others are planned anew.
const VERSION: u32 = 1;
/// Longest head of a remembered plan.
const MAX_HEAD: usize = 64 * 1024;
/// How much of the head is read at once.
const STEP: usize = 4096;

/// How a [`Planner`] works.
#[derive(Clone, Debug)]
pub struct PlannerOptions {
    /// 0 (quick) to 9 (small).
    pub effort: u8,
    /// Memory for one plan, in bytes.
    pub memory: u64,
    /// Plans at a time.
    pub parallel: usize,
    /// Bytes of artefacts that are remembered; the oldest go first.
    pub cache: u64,
}

impl Default for PlannerOptions {
    fn default() -> PlannerOptions {
        PlannerOptions { effort: 5, memory: 1 << 30, parallel: 1, cache: 4 << 30 }
    }
}

/// Plans how blobs travel. What it found is kept in a directory, which may be deleted at any time;
/// whoever asks while a plan is being made waits for it. Clones share everything.
#[derive(Clone)]
pub struct Planner {
    inner: Arc<Inner>,
    effort: u8,
}

struct Inner {
    directory: PathBuf,
    scratch: FileScratch,
    options: PlannerOptions,
    slots: Slots,
    flights: Mutex<BTreeMap<Digest, Weak<Turn<()>>>>,
    made: AtomicU64,
    reused: AtomicU64,
}

/// How a blob travels.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    pub(super) method: Method,
    pub(super) artefact: Descriptor,
    pub(super) bases: Vec<Descriptor>,
    pub(super) data: Arc<dyn ReadAt>,
    pub(super) why: String,
}

/// The head of a remembered plan; the artefact's bytes follow after a line feed.
#[derive(Serialize, Deserialize)]
struct Head {
    version: u32,
    key: Digest,
    target: Digest,
    method: Method,
    artefact: Digest,
    bytes: u64,
    bases: Vec<(Digest, u64)>,
    why: String,
}

impl Planner {
    /// A planner that remembers in `directory`, which is made if it is missing.
    pub fn open(directory: impl AsRef<Path>, options: PlannerOptions) -> Result<Planner> {
        let directory = directory.as_ref().to_owned();
        private_directory(&directory)
            .map_err(|cause| Error::io(format!("making {}", directory.display()), cause))?;
        let scratch = FileScratch::open(directory.join("scratch"))?;
        let slots = Slots::new(options.parallel);
        let (flights, made, reused) = Default::default();
        let effort = options.effort.min(9);
        Ok(Planner {
            inner: Arc::new(Inner { directory, scratch, options, slots, flights, made, reused }),
            effort,
        })
    }

    /// The same planner with another effort, 0 to 9.
    #[must_use]
    pub fn with_effort(mut self, effort: u8) -> Planner {
        self.effort = effort.min(9);
        self
    }

    /// How many plans were made, and how many were remembered.
    pub fn counts(&self) -> (u64, u64) {
        (self.inner.made.load(Ordering::Relaxed), self.inner.reused.load(Ordering::Relaxed))
    }

    /// How `target` travels to somebody who has `bases`. Bases that are not in `blobs`, or are damaged
    /// there, are left out.
    pub(super) async fn plan(
        &self,
        blobs: &dyn BlobStore,
        target: &BlobInfo,
        bases: &[Candidate],
    ) -> Result<Planned> {
        let key = self.key(target, bases);
        let turn = self.flight(key).lock_owned().await;
        let inner = self.inner.clone();
        if let Some(planned) = blocking::run(move || Ok(inner.load(&key))).await? {
            self.inner.reused.fetch_add(1, Ordering::Relaxed);
            return Ok(planned);
        }
        let slot = self.inner.slots.take().await;
        let scratch = &self.inner.scratch;
        let data = readable(blobs, &target.digest, target.size, scratch).await?.ok_or_else(|| {
            let message = format!("{} is missing from the source's own store", target.digest);
            Error::new(ErrorKind::Corrupted, message)
        })?;
        let mut opened = Vec::new();
        for base in bases {
            if let Some(data) = readable(blobs, &base.digest, base.size, scratch).await? {
                opened.push(Base { digest: base.digest, data });
            }
        }
        let (inner, target, effort) = (self.inner.clone(), *target, self.effort);
        blocking::run(move || {
            // Held to the end of the work, even if nobody waits for it any more.
            let (_turn, _slot) = (turn, slot);
            inner.make(key, &target, data, opened, None, effort)
        })
        .await
    }

    /// How `target` travels to somebody who has `base`, of which he told `parts`.
    pub(super) async fn plan_by_parts(
        &self,
        blobs: &dyn BlobStore,
        target: &BlobInfo,
        base: &Candidate,
        parts: Vec<u8>,
    ) -> Result<Planned> {
        // What one edge tells is not held against another.
        let told = Digest::of(&parts);
        let key = self.key(target, std::slice::from_ref(base));
        let key = Digest::of(format!("{key} {told}").as_bytes());
        let turn = self.flight(key).lock_owned().await;
        let inner = self.inner.clone();
        if let Some(planned) = blocking::run(move || Ok(inner.load(&key))).await? {
            self.inner.reused.fetch_add(1, Ordering::Relaxed);
            return Ok(planned);
        }
        let slot = self.inner.slots.take().await;
        let data = readable(blobs, &target.digest, target.size, &self.inner.scratch).await?;
        let data = data.ok_or_else(|| {
            let message = format!("{} is missing from the source's own store", target.digest);
            Error::new(ErrorKind::Corrupted, message)
        })?;
        let base = Descriptor { digest: base.digest, size: base.size };
        let (inner, target, effort) = (self.inner.clone(), *target, self.effort);
        blocking::run(move || {
            let (_turn, _slot) = (turn, slot);
            let inventory = Inventory::parse(&parts)?;
            inner.make(key, &target, data, Vec::new(), Some((base, inventory)), effort)
        })
        .await
    }

    fn key(&self, target: &BlobInfo, bases: &[Candidate]) -> Digest {
        let mut text = format!("{VERSION} {} {} {}", FORMAT, self.effort, target.digest);
        for base in bases {
            text += &format!(" {}", base.digest);
        }
        Digest::of(text.as_bytes())
    }

    /// The right to be the one who makes a plan.
    fn flight(&self, key: Digest) -> Arc<Turn<()>> {
        let mut flights = self.inner.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if flights.len() > 1024 {
            flights.retain(|_, flight| flight.strong_count() > 0);
        }
        if let Some(flight) = flights.get(&key).and_then(Weak::upgrade) {
            return flight;
        }
        let flight = Arc::new(Turn::new(()));
        flights.insert(key, Arc::downgrade(&flight));
        flight
    }
}

impl Inner {
    fn path(&self, key: &Digest) -> PathBuf {
        self.directory.join(format!("{}.plan", key.to_hex()))
    }

    fn make(
        &self,
        key: Digest,
        target: &BlobInfo,
        data: Arc<dyn ReadAt>,
        mut bases: Vec<Base>,
        told: Option<(Descriptor, Inventory)>,
        effort: u8,
    ) -> Result<Planned> {
        // A patch of damaged bytes would be remembered, and refused by every edge.
        if digest_of(&*data)? != target.digest {
            let message = format!("{} is damaged in the source's own store", target.digest);
            return Err(Error::new(ErrorKind::Corrupted, message));
        }
        bases.retain(|base| match digest_of(&*base.data) {
            Ok(digest) if digest == base.digest => true,
            _ => {
                tracing::warn!(digest = %base.digest, "a damaged blob of the source's own store is no base");
                false
            }
        });
        let budget = Budget { effort, memory: self.options.memory };
        let (limits, scratch) = (Limits::default(), &self.scratch);
        let work = match &told {
            Some((base, inventory)) => {
                delta::plan_by_inventory(&data, base.digest, inventory, &budget, &limits, scratch, &|_| ())?
            }
            None => delta::plan(&data, &bases, &budget, &limits, scratch, &|_| ())?,
        };
        self.made.fetch_add(1, Ordering::Relaxed);
        let mut used = Vec::new();
        for digest in &work.bases {
            let held = bases.iter().map(|base| Descriptor { digest: base.digest, size: base.data.size() });
            let mut known = held.chain(told.iter().map(|(base, _)| *base));
            let base = known.find(|base| base.digest == *digest).ok_or_else(|| {
                Error::new(ErrorKind::Internal, format!("a plan uses {digest}, which was no base"))
            })?;
            used.push(base);
        }
        let artefact = Descriptor { digest: digest_of(&*work.artefact)?, size: work.artefact.size() };
        let data: Arc<dyn ReadAt> = Arc::new(Spooled(work.artefact));
        let method = match work.method {
            delta::Method::Whole => Method::Whole,
            delta::Method::Compressed => Method::Compressed,
            delta::Method::Patch => Method::Patch,
        };
        let planned = Planned { method, artefact, bases: used, data, why: work.why };
        match self.store(&key, target, &planned) {
            // Read back, so that the spool's room is free.
            Ok(()) => Ok(self.load(&key).unwrap_or(planned)),
            Err(error) => {
                tracing::warn!(%error, "a plan cannot be remembered");
                Ok(planned)
            }
        }
    }

    /// A plan that is remembered. One that cannot be read, or is not what it was, is none.
    fn load(&self, key: &Digest) -> Option<Planned> {
        let path = self.path(key);
        let mut file = File::open(&path).ok()?;
        let mut text = Vec::new();
        let end = loop {
            let begin = text.len();
            (&mut file).take(STEP as u64).read_to_end(&mut text).ok()?;
            if let Some(end) = text[begin..].iter().position(|byte| *byte == b'\n') {
                break begin + end;
            }
            if text.len() == begin || text.len() > MAX_HEAD {
                return None;
            }
        };
        let head: Head = serde_json::from_slice(&text[..end]).ok()?;
        let artefact = Descriptor { digest: head.artefact, size: head.bytes };
        // A blob that travels whole needs no artefact.
        let data: Arc<dyn ReadAt> = match head.method {
            Method::Whole => Arc::new(Vec::new()),
            _ => Arc::new(FilePart { file: Arc::new(file), from: end as u64 + 1, size: head.bytes }),
        };
        let sound = head.version == VERSION && head.key == *key;
        if !sound || head.method != Method::Whole && digest_of(&*data).ok()? != head.artefact {
            return None;
        }
        let bases = head.bases.into_iter().map(|(digest, size)| Descriptor { digest, size }).collect();
        Some(Planned { method: head.method, artefact, bases, data, why: head.why })
    }

    fn store(&self, key: &Digest, target: &BlobInfo, planned: &Planned) -> Result<()> {
        let head = Head {
            version: VERSION,
            key: *key,
            target: target.digest,
            method: planned.method,
            artefact: planned.artefact.digest,
            bytes: planned.artefact.size,
            bases: planned.bases.iter().map(|base| (base.digest, base.size)).collect(),
            why: planned.why.clone(),
        };
        let mut text = serde_json::to_vec(&head)
            .map_err(|cause| Error::new(ErrorKind::Internal, format!("a plan cannot be written: {cause}")))?;
        text.push(b'\n');
        let bytes = if planned.method == Method::Whole { 0 } else { planned.artefact.size };
        self.make_room(text.len() as u64 + bytes)?;
        let path = self.path(key);
        let draft = self.directory.join(format!("{}.draft", to_hex(Secret::random(12)?.expose())));
        let written = (|| {
            // Nothing is synced: what a crash tears does not have its digest.
            let mut file = File::create(&draft)?;
            file.write_all(&text)?;
            let mut buffer = vec![0; STEP * 32];
            let mut at = 0;
            while at < bytes {
                let length = (bytes - at).min(buffer.len() as u64) as usize;
                planned.data.read_exact_at(&mut buffer[..length], at).map_err(io::Error::other)?;
                file.write_all(&buffer[..length])?;
                at += length as u64;
            }
            fs::rename(&draft, &path)
        })();
        written.map_err(|cause: io::Error| {
            let _ = fs::remove_file(&draft);
            Error::io(format!("writing {}", path.display()), cause)
        })
    }

    /// Removes the oldest plans until `bytes` more fit.
    fn make_room(&self, bytes: u64) -> Result<()> {
        let failed = |cause| Error::io(format!("listing {}", self.directory.display()), cause);
        let mut plans = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            // One that is gone already takes no room.
            let Ok(about) = entry.metadata() else { continue };
            if about.is_file() {
                plans.push((about.modified().map_err(failed)?, about.len(), entry.path()));
            }
        }
        let mut used: u64 = plans.iter().map(|(_, bytes, _)| bytes).sum();
        plans.sort();
        for (_, length, path) in plans {
            if used.saturating_add(bytes) <= self.options.cache {
                return Ok(());
            }
            if fs::remove_file(&path).is_ok() {
                used -= length;
            }
        }
        match used.saturating_add(bytes) <= self.options.cache {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::NoSpace, format!("{bytes} bytes are more than may be kept"))),
        }
    }
}

impl fmt::Debug for Planner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Planner")
            .field("directory", &self.inner.directory)
            .field("effort", &self.effort)
            .finish_non_exhaustive()
    }
}
