//! The source's half: a set of volumes for one edge.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use super::super::medium::{Spooled, readable};
use super::super::message::Method;
use super::super::order::{BundleOffer, Event, Events, Tally};
use super::super::planner::{Planned, Planner};
use super::super::similar::{Candidate, MAX_BUNDLES, Roles, Shelf, likelihood};
use crate::blob::{BlobInfo, BlobStore, BlobStoreExt as _};
use crate::blocking;
use crate::bundle::{Envelope, Statement};
use crate::delta::pack::volume::{self, Carried, Slice, Volume};
use crate::delta::pack::{Descriptor, FRAME, PartHead, Role};
use crate::delta::{MemoryScratch, ReadAt, Scratch, Spool};
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::name::{NodeName, Tenant};

/// Blobs that are planned ahead of those that are laid by.
const AHEAD: usize = 8;
/// A blob of fewer bytes travels whole: an artefact's head is as long.
const SMALL: u64 = 256;

/// What is to cross an air gap.
#[derive(Clone, Debug)]
pub struct Shipment {
    /// The edge it is for.
    pub edge: NodeName,
    /// Whose bundles these are.
    pub tenant: Tenant,
    /// The trust document's envelope.
    pub trust: Bytes,
    /// The bundles the edge is to get.
    pub bundles: Vec<BundleOffer>,
    /// The bundles it proved to hold: their blobs do not travel, and patches are made against them.
    pub given: Vec<BundleOffer>,
    /// How many bytes a volume may have.
    pub volume: u64,
}

/// A set of volumes, ready to be written.
pub struct Export {
    volumes: Vec<(Volume, Vec<Slice>)>,
    documents: Vec<(PartHead, Bytes)>,
    artefacts: Vec<Artefact>,
    /// The artefacts that are not blobs, one after the other.
    spool: Arc<dyn ReadAt>,
    exported: Exported,
}

/// What a set of volumes holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// How the blobs travel.
    pub methods: BTreeMap<Method, Tally>,
    /// Blobs that the edge has already.
    pub held: u64,
}

struct Artefact {
    head: PartHead,
    /// Where it lies in the spool; a blob lies in the store.
    at: Option<u64>,
}

/// Finds out how every blob that the edge lacks travels best, and lays them out over volumes.
/// Without a planner all blobs travel whole.
///
/// # Errors
/// [`ErrorKind::Corrupted`] for a blob that is missing or damaged in the source's own store;
/// [`ErrorKind::TooLarge`] if the volumes are too small for the bundles' envelopes.
pub async fn prepare(
    blobs: &dyn BlobStore,
    planner: Option<&Planner>,
    scratch: &dyn Scratch,
    shipment: &Shipment,
    events: &Events,
) -> Result<Export> {
    let given = statements(&shipment.given)?;
    let wanted = statements(&shipment.bundles)?;
    let held: BTreeSet<(Digest, u64)> =
        given.iter().flat_map(|statement| statement.items()).map(|item| (item.digest, item.size)).collect();
    let mut exported = Exported::default();
    let mut seen = BTreeSet::new();
    let mut artefacts = Vec::new();
    let mut spool = scratch.spool()?;
    for statement in &wanted {
        let shelf = shelf(statement, &given);
        let mut items = Vec::new();
        for item in statement.items() {
            if seen.insert(item.digest) {
                match held.contains(&(item.digest, item.size)) {
                    true => exported.held += 1,
                    false => items.push((BlobInfo { digest: item.digest, size: item.size }, item.name())),
                }
            }
        }
        let planned = stream::iter(&items).map(|(target, name)| plan(blobs, planner, target, name, &shelf));
        let mut planned = planned.buffered(AHEAD);
        while let Some(found) = planned.next().await {
            let (target, planned) = found?;
            let blob = Descriptor { digest: target.digest, size: target.size };
            let (method, artefact) = match planned {
                None => {
                    (Method::Whole, Artefact { head: PartHead::artefact(blob, blob, Vec::new()), at: None })
                }
                Some(planned) => {
                    let head = PartHead::artefact(planned.artefact, blob, planned.bases);
                    let at = Some(spool.size());
                    spool =
                        blocking::run(move || copied(&*planned.data, planned.artefact.size, spool)).await?;
                    (planned.method, Artefact { head, at })
                }
            };
            let bytes = artefact.head.length;
            let tally = exported.methods.entry(method).or_default();
            tally.blobs += 1;
            tally.whole += target.size;
            tally.bytes += bytes;
            events(Event::Planned { digest: target.digest, method, size: target.size, bytes });
            artefacts.push(artefact);
        }
    }
    let mut documents = vec![(PartHead::document(Role::Trust, &shipment.trust), shipment.trust.clone())];
    for bundle in &shipment.bundles {
        documents.push((PartHead::document(Role::Bundle, &bundle.envelope), bundle.envelope.clone()));
    }
    let carried = shipment.bundles.iter().zip(&documents[1..]);
    let common = Volume {
        set: Digest::of(b""),
        number: 0,
        count: 0,
        tenant: shipment.tenant.clone(),
        edge: shipment.edge.clone(),
        trust: documents[0].0.section,
        bundles: carried
            .map(|(bundle, (head, _))| Carried {
                name: bundle.name.clone(),
                version: bundle.version.clone(),
                envelope: head.section,
            })
            .collect(),
        parts: Vec::new(),
    };
    let heads = |heads: &[(PartHead, Bytes)]| heads.iter().map(|(head, _)| head.clone()).collect::<Vec<_>>();
    let parts: Vec<PartHead> = artefacts.iter().map(|artefact| artefact.head.clone()).collect();
    let volumes = volume::lay_out(&common, &heads(&documents), &parts, shipment.volume)?;
    Ok(Export { volumes, documents, artefacts, spool: Arc::new(Spooled(spool)), exported })
}

impl Export {
    /// What is in the set.
    pub fn exported(&self) -> &Exported {
        &self.exported
    }

    /// The volumes' descriptions, in the order of their numbers.
    pub fn volumes(&self) -> impl ExactSizeIterator<Item = &Volume> {
        self.volumes.iter().map(|(volume, _)| volume)
    }

    /// Writes one of the volumes. The same set is written the same way, byte for byte, each time.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the set has no such volume, and those of `out` and `blobs`.
    pub async fn write<W: Write + Send + 'static>(
        &self,
        blobs: &dyn BlobStore,
        number: u32,
        out: W,
    ) -> Result<W> {
        let (volume, slices) =
            self.volumes.iter().find(|(volume, _)| volume.number == number).ok_or_else(|| {
                let message = format!("the set has the volumes 1 to {}, not {number}", self.volumes.len());
                Error::new(ErrorKind::NotFound, message)
            })?;
        let (described, documents) = (volume.clone(), self.documents.clone());
        let mut writer = blocking::run(move || volume::begin(out, &described, &documents)).await?;
        for Slice { artefact, frames } in slices {
            let artefact = self.artefacts.get(*artefact).ok_or_else(|| {
                Error::new(ErrorKind::Internal, "a volume was laid out with other artefacts")
            })?;
            let bytes = self.open(blobs, artefact).await?;
            let (head, end) = (artefact.head.from_frame(frames.start), frames.end);
            writer = blocking::run(move || {
                writer.part(head, &*bytes, end)?;
                Ok(writer)
            })
            .await?;
        }
        blocking::run(move || writer.finish()).await
    }

    async fn open(&self, blobs: &dyn BlobStore, artefact: &Artefact) -> Result<Arc<dyn ReadAt>> {
        let head = &artefact.head;
        if let Some(from) = artefact.at {
            return Ok(Arc::new(Part { whole: self.spool.clone(), from, size: head.length }));
        }
        let blob = readable(blobs, &head.target.digest, head.target.size, &MemoryScratch).await?;
        blob.ok_or_else(|| missing(&head.target.digest))
    }
}

impl fmt::Debug for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Export")
            .field("volumes", &self.volumes.len())
            .field("artefacts", &self.artefacts.len())
            .field("exported", &self.exported)
            .finish_non_exhaustive()
    }
}

/// A part of a spool.
#[derive(Debug)]
struct Part {
    whole: Arc<dyn ReadAt>,
    from: u64,
    size: u64,
}

impl ReadAt for Part {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let left = self.size.saturating_sub(offset).min(buffer.len() as u64) as usize;
        self.whole.read_at(&mut buffer[..left], self.from + offset)
    }
}

fn statements(bundles: &[BundleOffer]) -> Result<Vec<Statement>> {
    bundles.iter().map(|bundle| Statement::parse(&Envelope::parse(&bundle.envelope)?.payload)).collect()
}

/// What the edge has, the bundles that resemble `wanted` most first.
fn shelf(wanted: &Statement, given: &[Statement]) -> Shelf {
    let mut ranked: Vec<&Statement> = given.iter().collect();
    ranked.sort_by_key(|held| {
        likelihood(wanted.bundle(), &held.bundle().name, held.bundle().seq, held.created().as_unix())
    });
    let mut shelf = Shelf::default();
    for held in ranked.into_iter().take(MAX_BUNDLES) {
        shelf.add(held, &Roles::default());
    }
    shelf
}

/// How a blob travels; `None` if whole.
async fn plan(
    blobs: &dyn BlobStore,
    planner: Option<&Planner>,
    target: &BlobInfo,
    name: &str,
    shelf: &Shelf,
) -> Result<(BlobInfo, Option<Planned>)> {
    if let Some(planner) = planner
        && target.size >= SMALL
    {
        let bases: Vec<Candidate> = shelf.choose(&[name], &target.digest, target.size);
        let planned = planner.plan(blobs, target, &bases).await?;
        if planned.method != Method::Whole && planned.artefact.size < target.size {
            return Ok((*target, Some(planned)));
        }
    }
    // Who carries a volume across does not want to hear there that it was damaged from the start.
    match blobs.verify(&target.digest).await? {
        Some(true) => Ok((*target, None)),
        Some(false) => {
            let message = format!("{} ({name}) is damaged in the source's own store", target.digest);
            Err(Error::new(ErrorKind::Corrupted, message))
        }
        None => Err(missing(&target.digest)),
    }
}

/// Copies an artefact to where it stays until the volumes are written: what a planner remembers may
/// be gone by then, and a file may not stay open for each.
fn copied(artefact: &dyn ReadAt, length: u64, mut spool: Box<dyn Spool>) -> Result<Box<dyn Spool>> {
    let mut buffer = vec![0; length.min(FRAME) as usize];
    let mut at = 0;
    while at < length {
        let piece = (length - at).min(FRAME) as usize;
        artefact.read_exact_at(&mut buffer[..piece], at)?;
        spool.append(&buffer[..piece])?;
        at += piece as u64;
    }
    Ok(spool)
}

#[cold]
fn missing(digest: &Digest) -> Error {
    Error::new(ErrorKind::Corrupted, format!("{digest} is missing from the source's own store"))
}
