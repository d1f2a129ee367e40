//! Releases for edges that cannot be reached: volumes out, receipts in.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use super::Source;
use super::converge::{ReceiptRecord, receipt_key};
use super::record::encode;
use super::state::BundleRecord;
use crate::blocking;
use crate::bundle::Receipt;
use crate::distribute::airgap::{Export, Receipts, Shipment, prepare};
use crate::distribute::{BundleOffer, Events, FileScratch, attest};
use crate::error::{Error, ErrorKind, Result};
use crate::meta::Batch;
use crate::name::{BundleName, NodeName, Version};

/// How large a volume is unless told otherwise.
pub const VOLUME_SIZE: u64 = 100_000_000;

/// What to carry to an edge.
#[derive(Clone, Debug)]
pub struct AirGapOptions {
    /// These bundles; if none is named, all that the edge should hold and has not proven to hold.
    pub bundles: Vec<(BundleName, Version)>,
    /// How many bytes a volume may have.
    pub volume: u64,
    /// Count on nothing that the edge proved to hold: all blobs, as they are.
    pub whole: bool,
}

impl Default for AirGapOptions {
    fn default() -> AirGapOptions {
        AirGapOptions { bundles: Vec::new(), volume: VOLUME_SIZE, whole: false }
    }
}

/// What came of a file of receipts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The edge.
    pub edge: NodeName,
    /// How many receipts were verified and kept.
    pub kept: u64,
    /// Bundles the edge holds that it need not, or that this source does not know.
    pub ignored: Vec<(BundleName, Version)>,
    /// The edge's drift; see [`EdgeStatus::drift`](super::EdgeStatus::drift).
    pub drift: u64,
}

impl Source {
    /// Makes a set of volumes for an edge. What its receipts prove to be there does not travel.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown edge or bundle; [`ErrorKind::Conflict`] for a bundle that
    /// the edge need not hold, or if there is nothing to carry; as [`prepare`].
    pub async fn air_gap(&self, edge: &NodeName, options: &AirGapOptions, events: &Events) -> Result<Export> {
        if self.edge(edge).await?.is_none() {
            return Err(unknown(edge));
        }
        let desired = self.desired().await?.remove(edge).unwrap_or_default();
        let proven = self.proven(edge, &desired).await?;
        let named: Vec<(BundleName, Version)> = match options.bundles.is_empty() {
            false => options.bundles.clone(),
            true => desired
                .iter()
                .filter(|record| options.whole || !proven.contains_key(&id(record)))
                .map(id)
                .collect(),
        };
        if named.is_empty() {
            let message =
                format!("the edge {edge} has proven to hold all it should: there is nothing to carry");
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        let (mut bundles, mut given) = (Vec::new(), Vec::new());
        for (name, version) in &named {
            let record = desired.iter().find(|record| record.name == *name && record.version == *version);
            let record = match record {
                Some(record) => record,
                None => return Err(self.not_for(edge, name, version).await),
            };
            bundles.push(self.offer_of(record).await?);
        }
        for record in desired.iter().filter(|record| !options.whole && !named.contains(&id(record))) {
            if proven.contains_key(&id(record)) {
                given.push(self.offer_of(record).await?);
            }
        }
        let shipment = Shipment {
            edge: edge.clone(),
            tenant: self.profile.tenant.clone(),
            trust: self.trust().await?,
            bundles,
            given,
            volume: options.volume,
        };
        let planner = self.planner.as_ref().filter(|_| !options.whole);
        let scratch = FileScratch::open(self.spool.join("air-gap"))?;
        prepare(&*self.blobs, planner, &scratch, &shipment, events).await
    }

    /// Writes volumes of a set into `directory` as `NAME.001.distedge` and so on: all of them, or
    /// those whose numbers are given. A file is whole and durable, or not there.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] and [`ErrorKind::NoSpace`] with the file's path.
    pub async fn write_volumes(
        &self,
        export: &Export,
        directory: &Path,
        name: &str,
        only: &[u32],
    ) -> Result<Vec<PathBuf>> {
        fs::create_dir_all(directory)
            .map_err(|cause| Error::io(format_args!("creating {}", directory.display()), cause))?;
        let numbers: Vec<u32> = match only {
            [] => export.volumes().map(|volume| volume.number).collect(),
            some => some.to_vec(),
        };
        let mut paths = Vec::new();
        for number in numbers {
            let path = directory.join(format!("{name}.{number:03}.distedge"));
            let draft = path.with_extension("draft");
            let written = async {
                let file = File::create(&draft)
                    .map_err(|cause| Error::io(format_args!("creating {}", draft.display()), cause))?;
                let out = export.write(&*self.blobs, number, BufWriter::new(file)).await?;
                let (from, to) = (draft.clone(), path.clone());
                blocking::run(move || publish(out, &from, &to)).await
            };
            if let Err(error) = written.await {
                // What cannot be removed either is named in the error.
                let _ = fs::remove_file(&draft);
                return Err(error.context(format_args!("writing {}", path.display())));
            }
            paths.push(path);
        }
        Ok(paths)
    }

    /// Verifies what an edge says it holds, and keeps it as its proof.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown edge; [`ErrorKind::Untrusted`] if the receipts are not
    /// signed by the edge's identity key; [`ErrorKind::Mismatch`] if one does not cover its bundle.
    pub async fn record_receipts(&self, receipts: &Receipts) -> Result<Recorded> {
        let edge = &receipts.edge;
        if self.edge(edge).await?.is_none() {
            return Err(unknown(edge));
        }
        if receipts.tenant != self.profile.tenant {
            let message =
                format!("the receipts are of the tenant {}, not of {}", receipts.tenant, self.profile.tenant);
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        let contact = self.contact(edge).await?;
        if let Some(known) = &contact.identity
            && *known != receipts.identity
        {
            let message = format!(
                "the receipts of {edge} are signed with the identity key {}, it used to be {}; if the edge was set up anew on purpose, have the source forget the old key (`edge repin`)",
                receipts.identity.id(),
                known.id()
            );
            return Err(Error::new(ErrorKind::Untrusted, message));
        }
        let now = self.clock.now();
        let desired = self.desired().await?.remove(edge).unwrap_or_default();
        let mut batch = Batch::new();
        let mut ignored = Vec::new();
        let mut kept = BTreeMap::new();
        for envelope in &receipts.receipts {
            let receipt = Receipt::verify(envelope.as_bytes(), &receipts.identity, now)?;
            let wanted = desired
                .iter()
                .find(|record| record.name == receipt.bundle && record.version == receipt.version);
            let Some(record) = wanted else {
                ignored.push((receipt.bundle, receipt.version));
                continue;
            };
            let statement = self.statement(&record.name, &record.version).await?;
            let expected = attest(edge, &statement, record.digest, receipt.at);
            if receipt != expected {
                let message = format!(
                    "the receipt does not cover the bundle: it is {receipt:?}, expected was {expected:?}"
                );
                return Err(Error::new(ErrorKind::Mismatch, message));
            }
            let record = ReceiptRecord {
                bundle: receipt.bundle,
                version: receipt.version,
                payload: receipt.payload,
                items: receipt.items,
                bytes: receipt.bytes,
                root: receipt.root,
                at: receipt.at,
                envelope: envelope.clone(),
            };
            kept.insert((record.bundle.clone(), record.version.clone()), ());
            batch.put(receipt_key(edge, &record.bundle, &record.version), encode(&record)?);
        }
        // What the edge once proved, it does not prove any more; unless the file is an old one.
        let newer = contact.contacted.is_none_or(|contacted| contacted <= receipts.at);
        for receipt in self.receipts(edge).await? {
            if newer && !kept.contains_key(&(receipt.bundle.clone(), receipt.version.clone())) {
                batch.delete(receipt_key(edge, &receipt.bundle, &receipt.version));
            }
        }
        self.remember(edge, &batch, |contact| {
            contact.contacted = contact.contacted.max(Some(receipts.at.min(now)));
            contact.identity.get_or_insert_with(|| receipts.identity.clone());
        })
        .await?;
        let (_, drift) = self.drift(edge, &desired).await?;
        Ok(Recorded { edge: edge.clone(), kept: kept.len() as u64, ignored, drift })
    }

    /// The bundles of `desired` that the edge proved to hold.
    async fn proven(
        &self,
        edge: &NodeName,
        desired: &[BundleRecord],
    ) -> Result<BTreeMap<(BundleName, Version), ReceiptRecord>> {
        let receipts = self.receipts(edge).await?.into_iter();
        let of = |receipt: &ReceiptRecord| (receipt.bundle.clone(), receipt.version.clone());
        let counts = |receipt: &ReceiptRecord| {
            desired.iter().any(|record| id(record) == of(receipt) && record.digest == receipt.payload)
        };
        Ok(receipts.filter(counts).map(|receipt| (of(&receipt), receipt)).collect())
    }

    async fn offer_of(&self, record: &BundleRecord) -> Result<BundleOffer> {
        let (name, version) = id(record);
        let envelope = self.envelope(&name, &version).await?;
        Ok(BundleOffer { name, version, digest: record.digest, envelope })
    }

    /// Why a bundle does not travel to an edge.
    async fn not_for(&self, edge: &NodeName, name: &BundleName, version: &Version) -> Error {
        match self.distributable(name, version).await {
            Err(error) => error,
            Ok(_) => Error::new(
                ErrorKind::Conflict,
                format!(
                    "{name} {version} is not for the edge {edge}: record that first (`distribute … --later`)"
                ),
            ),
        }
    }
}

fn id(record: &BundleRecord) -> (BundleName, Version) {
    (record.name.clone(), record.version.clone())
}

/// Makes a written file durable and gives it its name.
fn publish(out: BufWriter<File>, draft: &Path, path: &Path) -> Result<()> {
    let published = (|| {
        let file = out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        file.sync_all()?;
        fs::rename(draft, path)?;
        // Elsewhere a directory cannot be opened as a file, and names are durable with the rename.
        if cfg!(unix)
            && let Some(parent) = path.parent()
        {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            File::open(parent)?.sync_all()?;
        }
        Ok(())
    })();
    published.map_err(|cause: std::io::Error| Error::io(format_args!("keeping {}", path.display()), cause))
}

#[cold]
fn unknown(edge: &NodeName) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no edge called {edge}"))
}
