//! The source's half: bring one edge to what it should hold, and check what it proves.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use serde::de::DeserializeOwned;

use super::link::Link;
use super::message::{BundleAnswer, Method, OfferAnswer, StatusAnswer, TrustAnswer, Want, path};
use super::order::{BundleOffer, Desired, Event, Events, Options, Outcome, PlannedBlob, Proof, Tally};
#[cfg(feature = "delta")]
use super::push::Push;
use super::receive::attest;
use crate::blob::{BlobStore, ByteStream};
use crate::bundle::{Envelope, Receipt, Statement};
use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::key::PublicKey;
use crate::name::NodeName;
use crate::range::ByteRange;
use crate::transport::{Answer, Call, Transport, Verb};

/// How often one blob's upload is taken up again within one run.
pub(super) const ATTEMPTS: usize = 4;

pub(super) struct Run<'a> {
    pub(super) transport: &'a dyn Transport,
    pub(super) blobs: &'a dyn BlobStore,
    pub(super) desired: &'a Desired,
    pub(super) events: &'a Events,
    pub(super) options: Options,
    ledger: Arc<Mutex<Ledger>>,
    #[cfg(feature = "delta")]
    pub(super) push: Push,
}

/// What went out so far.
#[derive(Debug, Default)]
struct Ledger {
    sent_bytes: u64,
    sent_blobs: u64,
    whole_bytes: u64,
    methods: BTreeMap<Method, Tally>,
    fell_back: Vec<(Digest, String)>,
    waits: Option<Timestamp>,
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
    let run = Run {
        transport,
        blobs,
        desired,
        events,
        options,
        ledger: Arc::default(),
        #[cfg(feature = "delta")]
        push: Push::default(),
    };
    let status: StatusAnswer = run.ask(Call::new(Verb::Get, path::STATUS)).await?;
    #[cfg(feature = "delta")]
    run.push.learn(&status);
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
    if status.trust_digest != Some(Digest::of(&desired.trust)) && !run.options.dry_run {
        let call = Call::new(Verb::Put, path::TRUST).with_bytes(desired.trust.clone());
        let answer: TrustAnswer =
            run.ask(call).await.map_err(|error| error.context("sending the trust document"))?;
        events(Event::Trusted(answer.version));
    }
    let mut proofs = Vec::new();
    let mut plan = Vec::new();
    let mut failed = Vec::new();
    for bundle in &desired.bundles {
        match run.bring(bundle, &status.identity, &mut plan).await {
            Ok(Some(proof)) => proofs.push(proof),
            Ok(None) => {}
            // What the closed link cut off goes on when it opens.
            Err(error) if error.kind().is_retryable() && run.is_closed() => {}
            Err(error) => failed.push((bundle.name.clone(), bundle.version.clone(), error)),
        }
    }
    let ledger = std::mem::take(&mut *run.ledger());
    Ok(Outcome {
        identity: status.identity,
        proofs,
        plan,
        sent_bytes: ledger.sent_bytes,
        sent_blobs: ledger.sent_blobs,
        whole_bytes: ledger.whole_bytes,
        methods: ledger.methods,
        fell_back: ledger.fell_back,
        waits: ledger.waits,
        failed,
    })
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
        if self.is_closed() {
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
            #[cfg(feature = "delta")]
            let failed = self.deliver(&statement, &want).await;
            #[cfg(not(feature = "delta"))]
            let failed = self.upload_all(&want).await;
            match failed {
                None => break,
                Some(error) if error.kind().is_retryable() && self.is_closed() => return Err(error),
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
        #[cfg(feature = "delta")]
        self.push.committed();
        self.prove(bundle, &statement, identity, envelope).map(Some)
    }

    async fn look(&self, bundle: &BundleOffer) -> Result<Option<BundleAnswer>> {
        let answer = self.call(Call::new(Verb::Get, path::bundle(&bundle.name, &bundle.version))).await?;
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
        let mut missing = Vec::new();
        let wants: BTreeMap<Digest, u64> =
            statement.items().iter().map(|item| (item.digest, item.size)).collect();
        for (digest, size) in wants {
            let mut want = Want { digest, size, have: 0 };
            let answer = self.call(Call::new(Verb::Head, path::blob(&digest))).await?;
            if answer.status < 300 {
                want.have = answer.offset.unwrap_or(0).min(size);
            } else if answer.status != 404 || !unknown && answer.status >= 500 {
                self.settle(answer)?;
            }
            if (want.have < size || size == 0) && !plan.iter().any(|planned| planned.digest == digest) {
                missing.push(want);
            }
        }
        #[cfg(feature = "delta")]
        plan.extend(self.preview(statement, &missing).await?);
        #[cfg(not(feature = "delta"))]
        plan.extend(missing.iter().map(|want| planned(want, &names(statement))));
        Ok(())
    }

    /// Sends blobs as they are; answers the worst that went wrong.
    pub(super) async fn upload_all(&self, want: &[Want]) -> Option<Error> {
        let mut uploads =
            stream::iter(want).map(|want| self.upload(want)).buffer_unordered(self.options.parallel.max(1));
        let mut failed = None;
        while let Some(result) = uploads.next().await {
            if let Err(error) = result {
                // The others go on: what arrives need not be sent again.
                failed = Some(worse(failed, error));
            }
        }
        failed
    }

    pub(super) async fn upload(&self, want: &Want) -> Result<()> {
        let Want { digest, size, mut have } = *want;
        for _ in 0..ATTEMPTS {
            let length = size - have;
            let bytes = self.read(&digest, size, have).await?;
            let call = Call::new(Verb::Patch, path::blob(&digest)).with_upload(have, length, bytes);
            let answer = self.call(call).await?;
            match (answer.status, answer.offset) {
                (200..=299, Some(offset)) if offset == size => {
                    self.stored(want, Method::Whole, size - want.have);
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
        Ok(self.counted(blob.into_stream()))
    }

    /// The stream, whose bytes are counted as sent.
    pub(super) fn counted(&self, stream: ByteStream) -> ByteStream {
        let (events, ledger) = (self.events.clone(), self.ledger.clone());
        let told = stream.inspect(move |chunk| {
            if let Ok(chunk) = chunk {
                let bytes = chunk.len() as u64;
                ledger.lock().unwrap_or_else(PoisonError::into_inner).sent_bytes += bytes;
                events(Event::Sent(bytes));
            }
        });
        told.boxed()
    }

    /// Notes that a blob is complete at the edge.
    pub(super) fn stored(&self, want: &Want, method: Method, bytes: u64) {
        let whole = want.size - want.have;
        let mut ledger = self.ledger();
        ledger.sent_blobs += 1;
        ledger.whole_bytes += whole;
        let tally = ledger.methods.entry(method).or_default();
        tally.blobs += 1;
        tally.whole += whole;
        tally.bytes += bytes;
        drop(ledger);
        if let Some(saved) = whole.checked_sub(bytes).filter(|saved| *saved > 0) {
            (self.events)(Event::Saved(saved));
        }
        (self.events)(Event::Stored(want.digest));
    }

    /// Notes that a blob cannot travel as planned.
    #[cfg(feature = "delta")]
    pub(super) fn fell_back(&self, digest: Digest, why: String) {
        tracing::warn!(edge = %self.desired.edge, %digest, why, "the blob travels whole");
        self.ledger().fell_back.push((digest, why.clone()));
        (self.events)(Event::FellBack { digest, why });
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the link is closed; then it is noted until when.
    pub(super) fn is_closed(&self) -> bool {
        let opens = self.options.link.as_ref().and_then(Link::closed_until);
        if opens.is_some() {
            self.ledger().waits = opens;
        }
        opens.is_some()
    }

    /// Calls the edge, as fast as the link allows.
    pub(super) async fn call(&self, mut call: Call) -> Result<Answer> {
        if let Some(link) = &self.options.link {
            call = link.shape(call).await;
        }
        self.transport.call(call).await
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

    pub(super) async fn ask<T: DeserializeOwned>(&self, call: Call) -> Result<T> {
        decode(&self.ask_bytes(call).await?)
    }

    async fn ask_bytes(&self, call: Call) -> Result<Bytes> {
        let answer = self.call(call).await?;
        self.settle(answer)
    }

    /// The body of a good answer, or the edge's refusal as an error of this crate.
    pub(super) fn settle(&self, answer: Answer) -> Result<Bytes> {
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

/// The error that says more: one that a further attempt does not mend.
pub(super) fn worse(old: Option<Error>, error: Error) -> Error {
    match old {
        Some(old) if !old.kind().is_retryable() => old,
        _ => error,
    }
}

pub(super) fn names(statement: &Statement) -> BTreeMap<Digest, String> {
    statement.items().iter().map(|item| (item.digest, format!("{}/{}", item.repository, item.path))).collect()
}

pub(super) fn planned(want: &Want, names: &BTreeMap<Digest, String>) -> PlannedBlob {
    let Want { digest, size, have } = *want;
    PlannedBlob {
        digest,
        size,
        have,
        name: names.get(&digest).cloned().unwrap_or_default(),
        method: Method::Whole,
        bytes: size - have,
        bases: Vec::new(),
        why: String::new(),
    }
}

pub(super) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
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
