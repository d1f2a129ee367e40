//! The source's half: bring one edge to what it should hold, and check what it proves.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use serde::de::DeserializeOwned;

use super::message::{BundleAnswer, OfferAnswer, StatusAnswer, TrustAnswer, Want, path};
use super::receive::attest;
use crate::blob::{BlobStore, ByteStream};
use crate::bundle::{Envelope, Receipt, Statement};
use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::key::PublicKey;
use crate::name::{BundleName, NodeName, Version};
use crate::range::ByteRange;
use crate::transport::{Answer, Call, Transport, Verb};

/// How often one blob's upload is taken up again within one run.
const ATTEMPTS: usize = 4;

/// A bundle an edge should hold.
#[derive(Clone, Debug)]
pub struct BundleOffer {
    /// Its name.
    pub name: BundleName,
    /// Its version.
    pub version: Version,
    /// The statement's digest.
    pub digest: Digest,
    /// The signed envelope.
    pub envelope: Bytes,
}

/// What an edge should have.
#[derive(Clone, Debug)]
pub struct Desired {
    /// The edge's name; one that answers under another name is refused.
    pub edge: NodeName,
    /// The edge's identity key, once it is known; an edge with another key is refused.
    pub identity: Option<PublicKey>,
    /// The trust document's envelope.
    pub trust: Bytes,
    /// The bundles.
    pub bundles: Vec<BundleOffer>,
}

/// How to go about it.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Uploads at a time.
    pub parallel: usize,
    /// Only find out what would be sent. Nothing is changed on the edge.
    pub dry_run: bool,
    /// The moment to judge receipts at.
    pub now: Timestamp,
}

impl Options {
    /// Eight uploads at a time, for real.
    pub fn at(now: Timestamp) -> Options {
        Options { parallel: 8, dry_run: false, now }
    }
}

/// What happens on the way, for progress displays.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The edge answered.
    Contacted,
    /// The edge took a trust document of this version.
    Trusted(u64),
    /// The edge wants this much of a bundle.
    Wanted {
        /// The bundle.
        bundle: BundleName,
        /// Its version.
        version: Version,
        /// How many blobs.
        blobs: u64,
        /// How many bytes of them.
        bytes: u64,
    },
    /// Bytes went out.
    Sent(u64),
    /// A blob is complete at the edge.
    Stored(Digest),
    /// The bundle is visible at the edge, and its receipt was verified.
    Proven {
        /// The bundle.
        bundle: BundleName,
        /// Its version.
        version: Version,
    },
}

/// A blob that a dry run would send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedBlob {
    /// Which.
    pub digest: Digest,
    /// Its size.
    pub size: u64,
    /// How much of it the edge has.
    pub have: u64,
    /// One of its names, `repository/path`.
    pub name: String,
}

/// A receipt that was verified.
#[derive(Clone, Debug)]
pub struct Proof {
    /// The bundle.
    pub bundle: BundleName,
    /// Its version.
    pub version: Version,
    /// What the edge says it has.
    pub receipt: Receipt,
    /// The receipt as it was signed.
    pub envelope: Bytes,
}

/// Where an edge stands after a run.
#[derive(Debug)]
pub struct Outcome {
    /// The edge's identity key.
    pub identity: PublicKey,
    /// Verified receipts, one for each bundle the edge proves to hold.
    pub proofs: Vec<Proof>,
    /// What a dry run would send, or an interrupted run did not.
    pub plan: Vec<PlannedBlob>,
    /// Bytes of blobs that went out.
    pub sent_bytes: u64,
    /// Blobs that were completed.
    pub sent_blobs: u64,
    /// Bundles that did not get there, and why.
    pub failed: Vec<(BundleName, Version, Error)>,
}

/// Who is told of [`Event`]s.
pub type Events = Arc<dyn Fn(Event) + Send + Sync>;

struct Run<'a> {
    transport: &'a dyn Transport,
    blobs: &'a dyn BlobStore,
    desired: &'a Desired,
    events: &'a Events,
    options: Options,
    sent: Mutex<(u64, u64)>,
}

/// Brings one edge to its desired state: trust document first, then each bundle. A bundle that
/// fails does not stop the others.
///
/// # Errors
/// When the edge cannot be reached, is another one than expected, or refuses the trust document.
pub async fn converge(
    transport: &dyn Transport,
    blobs: &dyn BlobStore,
    desired: &Desired,
    options: Options,
    events: &Events,
) -> Result<Outcome> {
    let run = Run { transport, blobs, desired, events, options, sent: Mutex::default() };
    let status: StatusAnswer = run.ask(Call::new(Verb::Get, path::STATUS)).await?;
    if status.name != desired.edge {
        let message = format!("the edge calls itself {:?}, not {:?}", status.name, desired.edge);
        return Err(Error::new(ErrorKind::Untrusted, message));
    }
    if let Some(known) = &desired.identity
        && *known != status.identity
    {
        return Err(other_identity(&desired.edge, known, &status.identity));
    }
    events(Event::Contacted);
    if status.trust_digest != Some(Digest::of(&desired.trust)) && !options.dry_run {
        let call = Call::new(Verb::Put, path::TRUST).with_bytes(desired.trust.clone());
        let answer: TrustAnswer =
            run.ask(call).await.map_err(|error| error.context("sending the trust document"))?;
        events(Event::Trusted(answer.version));
    }
    let mut outcome = Outcome {
        identity: status.identity.clone(),
        proofs: Vec::new(),
        plan: Vec::new(),
        sent_bytes: 0,
        sent_blobs: 0,
        failed: Vec::new(),
    };
    for bundle in &desired.bundles {
        match run.bring(bundle, &status.identity, &mut outcome.plan).await {
            Ok(Some(proof)) => outcome.proofs.push(proof),
            Ok(None) => {}
            Err(error) => outcome.failed.push((bundle.name.clone(), bundle.version.clone(), error)),
        }
    }
    (outcome.sent_bytes, outcome.sent_blobs) = *run.sent.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(outcome)
}

impl Run<'_> {
    async fn bring(
        &self,
        bundle: &BundleOffer,
        identity: &PublicKey,
        plan: &mut Vec<PlannedBlob>,
    ) -> Result<Option<Proof>> {
        let envelope = Envelope::parse(&bundle.envelope)?;
        let statement = Statement::parse(&envelope.payload)?;
        let known = self.look(bundle).await?;
        if let Some(known) = &known {
            if known.digest != bundle.digest {
                let message = format!("the edge holds it with another statement, {}", known.digest);
                return Err(Error::new(ErrorKind::Conflict, message));
            }
            if known.state == "committed" && known.missing == Some(0) {
                let envelope = self
                    .ask_bytes(Call::new(Verb::Get, path::receipt(&bundle.name, &bundle.version)))
                    .await?;
                return self.prove(bundle, &statement, identity, envelope).map(Some);
            }
        }
        if self.options.dry_run {
            self.plan(&statement, known.is_none(), plan).await?;
            return Ok(None);
        }
        let mut want = self.offer(bundle, &statement).await?;
        let total: u64 = want.iter().map(|want| want.size - want.have).sum();
        (self.events)(Event::Wanted {
            bundle: bundle.name.clone(),
            version: bundle.version.clone(),
            blobs: want.len() as u64,
            bytes: total,
        });
        for attempt in 1.. {
            let failed = self.upload_all(&want).await;
            match failed {
                None => break,
                Some(error) if attempt >= ATTEMPTS || !error.kind().is_retryable() => {
                    let names = names(&statement);
                    plan.extend(want.iter().map(|want| planned(want, &names)));
                    return Err(error);
                }
                // The edge knows best how far it got.
                Some(_) => want = self.offer(bundle, &statement).await?,
            }
        }
        let call = Call::new(Verb::Post, path::commit(&bundle.name, &bundle.version));
        let envelope = self.ask_bytes(call).await?;
        self.prove(bundle, &statement, identity, envelope).map(Some)
    }

    async fn look(&self, bundle: &BundleOffer) -> Result<Option<BundleAnswer>> {
        let answer =
            self.transport.call(Call::new(Verb::Get, path::bundle(&bundle.name, &bundle.version))).await?;
        match answer.status {
            404 => Ok(None),
            _ => decode(&self.settle(answer)?).map(Some),
        }
    }

    async fn offer(&self, bundle: &BundleOffer, statement: &Statement) -> Result<Vec<Want>> {
        let call = Call::new(Verb::Post, path::BUNDLES).with_bytes(bundle.envelope.clone());
        let answer: OfferAnswer = self.ask(call).await?;
        if answer.digest != bundle.digest {
            return Err(Error::new(ErrorKind::Mismatch, "the edge took the offer for another statement"));
        }
        // An edge gets what the bundle holds. It knows digests of other things too, and whatever
        // is read here by digest alone would be sent to it.
        let mut sizes: BTreeMap<Digest, u64> =
            statement.items().iter().map(|item| (item.digest, item.size)).collect();
        for want in &answer.want {
            if sizes.remove(&want.digest) != Some(want.size) || want.have > want.size {
                return Err(bad_want(want));
            }
        }
        Ok(answer.want)
    }

    async fn plan(&self, statement: &Statement, unknown: bool, plan: &mut Vec<PlannedBlob>) -> Result<()> {
        // An edge that never heard of the bundle answers for no blob of it, whatever it has.
        let names = names(statement);
        let wants: BTreeMap<Digest, u64> =
            statement.items().iter().map(|item| (item.digest, item.size)).collect();
        for (digest, size) in wants {
            let mut want = Want { digest, size, have: 0 };
            let answer = self.transport.call(Call::new(Verb::Head, path::blob(&digest))).await?;
            if answer.status < 300 {
                want.have = answer.offset.unwrap_or(0).min(size);
            } else if answer.status != 404 || !unknown && answer.status >= 500 {
                self.settle(answer)?;
            }
            if (want.have < size || size == 0) && !plan.iter().any(|planned| planned.digest == digest) {
                plan.push(planned(&want, &names));
            }
        }
        Ok(())
    }

    async fn upload_all(&self, want: &[Want]) -> Option<Error> {
        let mut uploads =
            stream::iter(want).map(|want| self.upload(want)).buffer_unordered(self.options.parallel.max(1));
        let mut failed = None;
        while let Some(result) = uploads.next().await {
            if let Err(error) = result {
                // The others go on: what arrives need not be sent again.
                let worse = failed.as_ref().is_none_or(|old: &Error| old.kind().is_retryable());
                if worse {
                    failed = Some(error);
                }
            }
        }
        failed
    }

    async fn upload(&self, want: &Want) -> Result<()> {
        let Want { digest, size, mut have } = *want;
        for _ in 0..ATTEMPTS {
            let length = size - have;
            let bytes = self.read(&digest, size, have).await?;
            let call = Call::new(Verb::Patch, path::blob(&digest)).with_upload(have, length, bytes);
            let answer = self.transport.call(call).await?;
            match (answer.status, answer.offset) {
                (200..=299, Some(offset)) if offset == size => {
                    let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
                    sent.0 += length;
                    sent.1 += 1;
                    drop(sent);
                    (self.events)(Event::Stored(digest));
                    return Ok(());
                }
                // The upload stands elsewhere; go on from there.
                (200..=299 | 409, Some(offset)) if offset <= size => have = offset,
                _ => {
                    self.settle(answer).map_err(|error| error.context(format_args!("sending {digest}")))?;
                }
            }
        }
        Err(Error::new(ErrorKind::Unavailable, format!("the edge does not complete {digest}")))
    }

    async fn read(&self, digest: &Digest, size: u64, from: u64) -> Result<ByteStream> {
        let range = if from < size { Some(ByteRange::new(from, size)?) } else { None };
        let blob = self.blobs.open(digest, range).await?.ok_or_else(|| {
            Error::new(ErrorKind::Corrupted, format!("{digest} is missing from the source's own store"))
        })?;
        if from == size {
            return Ok(stream::empty().boxed());
        }
        let events = self.events.clone();
        let told = blob.into_stream().inspect(move |chunk| {
            if let Ok(chunk) = chunk {
                events(Event::Sent(chunk.len() as u64));
            }
        });
        Ok(told.boxed())
    }

    fn prove(
        &self,
        bundle: &BundleOffer,
        statement: &Statement,
        identity: &PublicKey,
        envelope: Bytes,
    ) -> Result<Proof> {
        let receipt = Receipt::verify(&envelope, identity, self.options.now)?;
        let expected = attest(&self.desired.edge, statement, bundle.digest, receipt.at);
        if receipt != expected {
            let message = format!(
                "the receipt does not cover the bundle: it is {receipt:?}, expected was {expected:?}"
            );
            return Err(Error::new(ErrorKind::Mismatch, message));
        }
        (self.events)(Event::Proven { bundle: bundle.name.clone(), version: bundle.version.clone() });
        Ok(Proof { bundle: bundle.name.clone(), version: bundle.version.clone(), receipt, envelope })
    }

    async fn ask<T: DeserializeOwned>(&self, call: Call) -> Result<T> {
        decode(&self.ask_bytes(call).await?)
    }

    async fn ask_bytes(&self, call: Call) -> Result<Bytes> {
        let answer = self.transport.call(call).await?;
        self.settle(answer)
    }

    /// The body of a good answer, or the edge's refusal as an error of this crate.
    fn settle(&self, answer: Answer) -> Result<Bytes> {
        if (200..300).contains(&answer.status) {
            return Ok(answer.body);
        }
        Err(refused(&answer))
    }
}

impl fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("edge", &self.desired.edge).finish_non_exhaustive()
    }
}

fn names(statement: &Statement) -> BTreeMap<Digest, String> {
    statement.items().iter().map(|item| (item.digest, format!("{}/{}", item.repository, item.path))).collect()
}

fn planned(want: &Want, names: &BTreeMap<Digest, String>) -> PlannedBlob {
    let name = names.get(&want.digest).cloned().unwrap_or_default();
    PlannedBlob { digest: want.digest, size: want.size, have: want.have, name }
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body)
        .map_err(|cause| Error::invalid(format!("the edge's answer cannot be read: {cause}")))
}

#[derive(serde::Deserialize)]
struct Refusal {
    #[serde(rename = "type")]
    kind: Option<String>,
    detail: Option<String>,
}

#[cold]
fn refused(answer: &Answer) -> Error {
    let refusal = serde_json::from_slice::<Refusal>(&answer.body).ok();
    let named = refusal.as_ref().and_then(|refusal| refusal.kind.as_deref());
    let kind = named.and_then(|kind| ErrorKind::from_name(kind.rsplit(':').next().unwrap_or(kind)));
    let kind = kind.unwrap_or(match answer.status {
        401 => ErrorKind::Unauthenticated,
        403 => ErrorKind::Forbidden,
        404 => ErrorKind::NotFound,
        409 => ErrorKind::Conflict,
        410 | 451 => ErrorKind::Gone,
        507 => ErrorKind::NoSpace,
        500..=599 => ErrorKind::Unavailable,
        _ => ErrorKind::Invalid,
    });
    let detail = refusal.and_then(|refusal| refusal.detail).unwrap_or_else(|| "it gave no reason".into());
    let detail: String = detail.chars().filter(|c| !c.is_control()).take(500).collect();
    Error::new(kind, format!("the edge answered {}: {detail}", answer.status))
}

#[cold]
fn bad_want(want: &Want) -> Error {
    Error::new(
        ErrorKind::Untrusted,
        format!(
            "the edge wants {} with {} bytes, of which it has {}: that is not in the bundle, or is wanted twice",
            want.digest, want.size, want.have
        ),
    )
}

#[cold]
fn other_identity(edge: &NodeName, known: &PublicKey, found: &PublicKey) -> Error {
    let message = format!(
        "the edge {edge} shows the identity key {}, it used to be {}; if it was set up anew on purpose, have the source forget the old key (`edge repin`)",
        found.id(),
        known.id()
    );
    Error::new(ErrorKind::Untrusted, message)
}
