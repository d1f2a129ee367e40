//! Bringing every edge to its desired state, each on its own, and keeping what it proved.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join;
use futures_util::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};

use super::Source;
use super::edges::{AssignmentRecord, EdgeRecord, edge_key};
use super::record::{ATTEMPTS, decode, encode, key, lost_race, prefix};
use super::state::BundleRecord;
use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::distribute::{self, BundleOffer, Desired, Event, Method, PlannedBlob, Tally};
use crate::error::{Error, ErrorKind, Result};
use crate::key::PublicKey;
use crate::meta::Batch;
use crate::name::{BundleName, NodeName, Version};
use crate::transport::{Credentials, Transport};

/// Makes a way to an edge.
pub trait Dial: fmt::Debug + Send + Sync {
    /// A transport to `edge`, which presents `credentials` with every call. Nothing need be
    /// connected yet.
    fn dial(&self, edge: &EdgeRecord, credentials: Credentials) -> Result<Arc<dyn Transport>>;
}

/// How to converge.
#[derive(Clone, Debug)]
pub struct ConvergeOptions {
    /// Only these edges; `None` for all.
    pub edges: Option<BTreeSet<NodeName>>,
    /// Edges at a time.
    pub parallel: usize,
    /// Uploads to one edge at a time.
    pub uploads: usize,
    /// Only find out what would be sent; nothing changes, here or at the edges.
    pub dry_run: bool,
    /// Send whole blobs, and look for nothing smaller.
    pub whole: bool,
    /// How hard to look, 0 to 9; as the planner does by itself if not given.
    pub effort: Option<u8>,
}

impl Default for ConvergeOptions {
    fn default() -> ConvergeOptions {
        ConvergeOptions { edges: None, parallel: 8, uploads: 8, dry_run: false, whole: false, effort: None }
    }
}

/// Told what happens at which edge.
pub type ConvergeProgress = Arc<dyn Fn(&NodeName, Event) + Send + Sync>;

/// What came of one edge in one run.
#[derive(Debug)]
#[non_exhaustive]
pub struct EdgeOutcome {
    /// The edge.
    pub edge: NodeName,
    /// Why nothing could be done, if nothing could.
    pub error: Option<Error>,
    /// Bundles that did not get there, and why.
    pub failed: Vec<(BundleName, Version, Error)>,
    /// How many bundles the edge proved to hold.
    pub proven: u64,
    /// Bytes that went out for blobs.
    pub sent_bytes: u64,
    /// Blobs that were completed.
    pub sent_blobs: u64,
    /// Bytes that whole blobs would have taken.
    pub whole_bytes: u64,
    /// What was completed, by the way it travelled.
    pub methods: BTreeMap<Method, Tally>,
    /// Blobs that could not travel as planned, and why.
    pub fell_back: Vec<(Digest, String)>,
    /// When its window opens, if that is what the rest waits for.
    pub waits: Option<Timestamp>,
    /// Why it did not get the revocations and public keys of signed URLs, if it should have.
    pub links: Option<Error>,
    /// What a dry run would send, or a broken run did not.
    pub plan: Vec<PlannedBlob>,
    /// The edge's drift after the run, or as a dry run found it; see [`EdgeStatus::drift`].
    pub drift: u64,
}

impl EdgeOutcome {
    /// Whether everything that was to be done was done.
    pub fn is_complete(&self) -> bool {
        self.error.is_none() && self.failed.is_empty() && self.waits.is_none() && self.links.is_none()
    }
}

/// A receipt of an edge, verified and kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptRecord {
    /// The bundle.
    pub bundle: BundleName,
    /// Its version.
    pub version: Version,
    /// The digest of the statement the edge holds.
    pub payload: Digest,
    /// How many artifacts it holds of it.
    pub items: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// The root over their paths and digests.
    pub root: Digest,
    /// When the edge made them visible.
    pub at: Timestamp,
    /// The receipt as the edge signed it.
    pub envelope: String,
}

/// What is remembered of an edge between runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContactRecord {
    /// When the edge last answered as itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contacted: Option<Timestamp>,
    /// When it was last tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried: Option<Timestamp>,
    /// Why the last run failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The edge's identity key, pinned at pairing or at first contact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<PublicKey>,
    /// The version of the trust document that it has in force, as it last said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<u64>,
}

/// Where an edge stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct EdgeStatus {
    /// The edge.
    pub edge: EdgeRecord,
    /// What is remembered of it.
    pub contact: ContactRecord,
    /// How many bundles it should hold.
    pub desired: u64,
    /// How many of them it proved to hold.
    pub proven: u64,
    /// Bundles and artifacts it should hold and has not proven to hold: 0 when all is well.
    pub drift: u64,
}

impl Source {
    /// Brings every edge to its desired state: each gets the trust document, the bundles that are
    /// assigned to it, and the keys and revocations of signed URLs, and answers with receipts, which are verified and kept.
    ///
    /// Edges are independent of each other: what goes wrong with one is told in its outcome, and
    /// the others go on. Running it again is harmless and does only what is left to do.
    ///
    /// # Errors
    /// Only what concerns all edges: no keys, or a store that fails.
    pub async fn converge(
        &self,
        dial: &dyn Dial,
        options: &ConvergeOptions,
        progress: &ConvergeProgress,
    ) -> Result<Vec<EdgeOutcome>> {
        let edges = self.chosen(options.edges.as_ref()).await?;
        let wanted = self.desired().await?;
        let run = self.run(&edges, &wanted, dial, options, progress);
        if options.dry_run {
            return run.await;
        }
        // What was taken back does not wait for bytes that travel.
        let (outcomes, told) = join(run, self.tell_links(&edges, dial)).await;
        let (mut outcomes, mut told) = (outcomes?, told?);
        for outcome in &mut outcomes {
            outcome.links = told.remove(&outcome.edge);
        }
        let reached = outcomes.iter().filter(|outcome| outcome.error.is_none());
        let reached: Vec<NodeName> = reached.map(|outcome| outcome.edge.clone()).collect();
        self.witness_all(&reached, dial).await;
        Ok(outcomes)
    }

    /// What would be sent if `edges` were to hold a version of a bundle. Nothing changes, here or
    /// at the edges.
    ///
    /// # Errors
    /// As [`assign`](Source::assign); an edge that cannot be reached says so in its outcome.
    pub async fn preview(
        &self,
        bundle: &BundleName,
        version: &Version,
        edges: &[NodeName],
        dial: &dyn Dial,
        options: &ConvergeOptions,
        progress: &ConvergeProgress,
    ) -> Result<Vec<EdgeOutcome>> {
        let (record, _) = self.distributable(bundle, version).await?;
        let chosen: BTreeSet<NodeName> = edges.iter().cloned().collect();
        let edges = self.chosen(Some(&chosen)).await?;
        let statement = self.statement(bundle, version).await?;
        for edge in &edges {
            edge.check_permitted(&statement)?;
        }
        let wanted = chosen.into_iter().map(|edge| (edge, vec![record.clone()])).collect();
        let options = ConvergeOptions { dry_run: true, ..options.clone() };
        self.run(&edges, &wanted, dial, &options, progress).await
    }

    async fn run(
        &self,
        edges: &[EdgeRecord],
        wanted: &BTreeMap<NodeName, Vec<BundleRecord>>,
        dial: &dyn Dial,
        options: &ConvergeOptions,
        progress: &ConvergeProgress,
    ) -> Result<Vec<EdgeOutcome>> {
        // A dry run signs nothing: the document is not sent.
        let trust = if options.dry_run { Bytes::new() } else { self.trust().await? };
        let version =
            if options.dry_run { None } else { self.trust_record().await?.map(|last| last.version) };
        let mut offers: BTreeMap<(BundleName, Version), BundleOffer> = BTreeMap::new();
        for record in edges.iter().filter_map(|edge| wanted.get(&edge.name)).flatten() {
            if let Entry::Vacant(vacant) = offers.entry((record.name.clone(), record.version.clone())) {
                let envelope = self.envelope(&record.name, &record.version).await?;
                let (name, version) = vacant.key().clone();
                vacant.insert(BundleOffer { name, version, digest: record.digest, envelope });
            }
        }
        let none = Vec::new();
        let outcomes = stream::iter(edges).map(|edge| {
            let records = wanted.get(&edge.name).unwrap_or(&none);
            let bundles = records
                .iter()
                .filter_map(|record| offers.get(&(record.name.clone(), record.version.clone())).cloned())
                .collect();
            self.converge_edge(edge, records, bundles, (trust.clone(), version), dial, options, progress)
        });
        outcomes.buffered(options.parallel.max(1)).collect::<Vec<_>>().await.into_iter().collect()
    }

    /// Where every edge stands, by name.
    pub async fn status(&self) -> Result<Vec<EdgeStatus>> {
        let wanted = self.desired().await?;
        let mut status = Vec::new();
        for edge in self.edges().await? {
            let records = wanted.get(&edge.name).map(Vec::as_slice).unwrap_or_default();
            let (proven, drift) = self.drift(&edge.name, records).await?;
            let contact = self.contact(&edge.name).await?;
            status.push(EdgeStatus { edge, contact, desired: records.len() as u64, proven, drift });
        }
        Ok(status)
    }

    /// What an edge proved to hold.
    pub async fn receipts(&self, edge: &NodeName) -> Result<Vec<ReceiptRecord>> {
        self.records.all(&prefix("receipt", &[edge.as_str()])).await
    }

    /// Forgets an edge's identity key and receipts, because the edge was set up anew on purpose:
    /// the next contact pins its new key.
    pub async fn forget_identity(&self, edge: &NodeName) -> Result<()> {
        let mut batch = Batch::new();
        self.records
            .each(&prefix("receipt", &[edge.as_str()]), |entry| {
                batch.delete(entry.key.clone());
                Ok(())
            })
            .await?;
        self.remember(edge, &batch, |contact| contact.identity = None).await
    }

    pub(super) async fn chosen(&self, only: Option<&BTreeSet<NodeName>>) -> Result<Vec<EdgeRecord>> {
        let mut edges = self.edges().await?;
        if let Some(only) = only {
            if let Some(unknown) = only.iter().find(|name| !edges.iter().any(|edge| edge.name == **name)) {
                return Err(Error::new(ErrorKind::NotFound, format!("there is no edge called {unknown}")));
            }
            edges.retain(|edge| only.contains(&edge.name));
        }
        Ok(edges)
    }

    /// The bundles that each edge should hold, withdrawn ones left out, in the order of `seq`.
    pub(super) async fn desired(&self) -> Result<BTreeMap<NodeName, Vec<BundleRecord>>> {
        let mut desired: BTreeMap<NodeName, Vec<BundleRecord>> = BTreeMap::new();
        let mut holders: BTreeMap<(BundleName, Version), Vec<NodeName>> = BTreeMap::new();
        for AssignmentRecord { bundle, version, edge, .. } in self.assignments().await? {
            holders.entry((bundle, version)).or_default().push(edge);
        }
        for record in self.bundles().await? {
            if record.withdrawn.is_some() {
                continue;
            }
            for edge in holders.remove(&(record.name.clone(), record.version.clone())).unwrap_or_default() {
                desired.entry(edge).or_default().push(record.clone());
            }
        }
        Ok(desired)
    }

    #[allow(clippy::too_many_arguments)]
    async fn converge_edge(
        &self,
        edge: &EdgeRecord,
        records: &[BundleRecord],
        bundles: Vec<BundleOffer>,
        (trust, version): (Bytes, Option<u64>),
        dial: &dyn Dial,
        options: &ConvergeOptions,
        progress: &ConvergeProgress,
    ) -> Result<EdgeOutcome> {
        let pinned = self.contact(&edge.name).await?.identity;
        let given = self.given(&edge.name, &bundles).await?;
        let desired = Desired { edge: edge.name.clone(), identity: pinned.clone(), trust, bundles, given };
        let (told, name) = (progress.clone(), edge.name.clone());
        let events: Arc<dyn Fn(Event) + Send + Sync> = Arc::new(move |event| told(&name, event));
        let reached = async {
            let transport = dial.dial(edge, self.credentials(&edge.name).await?)?;
            let now = self.clock.now();
            let mut how = distribute::Options::at(now);
            (how.parallel, how.dry_run) = (options.uploads, options.dry_run);
            how.link = edge.link(self.clock.clone());
            #[cfg(feature = "delta")]
            if let Some(planner) = self.planner.clone().filter(|_| !options.whole) {
                how.planner = Some(match options.effort {
                    Some(effort) => planner.with_effort(effort),
                    None => planner,
                });
            }
            distribute::converge(&*transport, &*self.blobs, &desired, how, &events).await
        };
        let reached = reached.await;
        let mut outcome = EdgeOutcome {
            edge: edge.name.clone(),
            error: None,
            failed: Vec::new(),
            proven: 0,
            sent_bytes: 0,
            sent_blobs: 0,
            whole_bytes: 0,
            methods: BTreeMap::new(),
            fell_back: Vec::new(),
            waits: None,
            links: None,
            plan: Vec::new(),
            drift: 0,
        };
        let mut proven = None;
        match reached {
            Err(error) => {
                tracing::warn!(edge = %edge.name, %error, "the edge was not brought to its desired state");
                if !options.dry_run {
                    let now = self.clock.now();
                    self.remember(&edge.name, &Batch::new(), |contact| {
                        contact.tried = Some(now);
                        contact.error = Some(error.to_string());
                    })
                    .await?;
                }
                outcome.error = Some(error);
            }
            Ok(run) => {
                if !options.dry_run {
                    let receipts = self.receipt_changes(&edge.name, records, &run).await?;
                    let failure = failure(&run.failed);
                    let now = self.clock.now();
                    self.remember(&edge.name, &receipts, |contact| {
                        contact.tried = Some(now);
                        contact.contacted = Some(now);
                        contact.error.clone_from(&failure);
                        // A run comes back only if the edge has the document it was to have.
                        contact.trust = version.or(contact.trust);
                        // A key that was forgotten on purpose during the run stays forgotten.
                        if pinned.is_none() && contact.identity.is_none() {
                            contact.identity = Some(run.identity.clone());
                        }
                    })
                    .await?;
                }
                if options.dry_run {
                    let names = run.proofs.iter().map(|proof| (proof.bundle.clone(), proof.version.clone()));
                    proven = Some(names.collect::<BTreeSet<_>>());
                }
                for (name, version, error) in &run.failed {
                    tracing::warn!(edge = %edge.name, bundle = %name, %version, %error, "the bundle did not get there");
                }
                outcome.proven = run.proofs.len() as u64;
                outcome.failed = run.failed;
                outcome.plan = run.plan;
                outcome.sent_bytes = run.sent_bytes;
                outcome.sent_blobs = run.sent_blobs;
                outcome.whole_bytes = run.whole_bytes;
                outcome.methods = run.methods;
                outcome.fell_back = run.fell_back;
                outcome.waits = run.waits;
            }
        }
        outcome.drift = match proven {
            // A dry run keeps no receipts: what the edge proved just now counts.
            Some(proven) => {
                tally(records, |record| proven.contains(&(record.name.clone(), record.version.clone()))).1
            }
            None => self.drift(&edge.name, records).await?.1,
        };
        Ok(outcome)
    }

    /// Bundles that the edge proved to hold besides `bundles`: it may hold them still.
    async fn given(&self, edge: &NodeName, bundles: &[BundleOffer]) -> Result<Vec<BundleOffer>> {
        let mut given = Vec::new();
        for receipt in self.receipts(edge).await? {
            if bundles.iter().any(|one| one.name == receipt.bundle && one.version == receipt.version) {
                continue;
            }
            // A draft of the same name may have taken its place.
            let Some(record) = self.bundle(&receipt.bundle, &receipt.version).await? else { continue };
            if record.digest == receipt.payload && record.withdrawn.is_none() {
                let envelope = self.envelope(&record.name, &record.version).await?;
                given.push(BundleOffer {
                    name: record.name,
                    version: record.version,
                    digest: record.digest,
                    envelope,
                });
            }
        }
        Ok(given)
    }

    /// What a run means for the receipts that are kept.
    async fn receipt_changes(
        &self,
        edge: &NodeName,
        records: &[BundleRecord],
        run: &distribute::Outcome,
    ) -> Result<Batch> {
        let mut batch = Batch::new();
        // What the edge need not hold any more, it has been told to take off.
        for receipt in self.receipts(edge).await? {
            if !records.iter().any(|one| one.name == receipt.bundle && one.version == receipt.version) {
                batch.delete(receipt_key(edge, &receipt.bundle, &receipt.version));
            }
        }
        // What the edge once proved, it does not prove any more.
        for (name, version, _) in &run.failed {
            batch.delete(receipt_key(edge, name, version));
        }
        for proof in &run.proofs {
            let envelope = String::from_utf8(proof.envelope.to_vec())
                .map_err(|_| Error::new(ErrorKind::Internal, "a verified receipt is not UTF-8"))?;
            let receipt = ReceiptRecord {
                payload: proof.receipt.payload,
                items: proof.receipt.items,
                bytes: proof.receipt.bytes,
                root: proof.receipt.root,
                at: proof.receipt.at,
                bundle: proof.bundle.clone(),
                version: proof.version.clone(),
                envelope,
            };
            batch.put(receipt_key(edge, &receipt.bundle, &receipt.version), encode(&receipt)?);
        }
        Ok(batch)
    }

    /// Changes what is remembered of an edge, together with `changes`. An edge that was removed
    /// meanwhile is not remembered.
    pub(super) async fn remember(
        &self,
        edge: &NodeName,
        changes: &Batch,
        update: impl Fn(&mut ContactRecord) + Send,
    ) -> Result<()> {
        let at = contact_key(edge);
        for _ in 0..ATTEMPTS {
            let Some(known) = self.records.entry(&edge_key(edge)).await? else { return Ok(()) };
            let entry = self.records.entry(&at).await?;
            let mut contact: ContactRecord = entry.as_ref().map(decode).transpose()?.unwrap_or_default();
            update(&mut contact);
            let mut batch = changes.clone();
            batch
                .expect_unchanged(edge_key(edge), Some(&known))
                .expect_unchanged(at.clone(), entry.as_ref())
                .put(at.clone(), encode(&contact)?);
            if self.records.commit(batch).await? {
                return Ok(());
            }
        }
        Err(lost_race("remembering where the edge stands"))
    }

    /// How many of `records` the edge has proven to hold, and its drift.
    pub(super) async fn drift(&self, edge: &NodeName, records: &[BundleRecord]) -> Result<(u64, u64)> {
        let receipts: BTreeMap<(BundleName, Version), Digest> = self
            .receipts(edge)
            .await?
            .into_iter()
            .map(|receipt| ((receipt.bundle, receipt.version), receipt.payload))
            .collect();
        Ok(tally(records, |record| {
            receipts.get(&(record.name.clone(), record.version.clone())) == Some(&record.digest)
        }))
    }

    pub(super) async fn contact(&self, edge: &NodeName) -> Result<ContactRecord> {
        Ok(self.records.load(&contact_key(edge)).await?.unwrap_or_default())
    }
}

/// The first failure in one sentence, and how many there are besides.
fn failure(failed: &[(BundleName, Version, Error)]) -> Option<String> {
    let (name, version, error) = failed.first()?;
    let others = match failed.len() {
        1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    Some(format!("the bundle {name} {version}: {error}{others}"))
}

/// How many of `records` are `proven`, and the drift that the others are.
fn tally(records: &[BundleRecord], proven: impl Fn(&BundleRecord) -> bool) -> (u64, u64) {
    records.iter().fold((0, 0), |(count, drift), record| {
        if proven(record) { (count + 1, drift) } else { (count, drift + 1 + record.items) }
    })
}

fn contact_key(edge: &NodeName) -> Vec<u8> {
    key("status", &[edge.as_str()])
}

pub(super) fn receipt_key(edge: &NodeName, bundle: &BundleName, version: &Version) -> Vec<u8> {
    key("receipt", &[edge.as_str(), bundle.as_str(), version.as_str()])
}
