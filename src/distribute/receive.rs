//! The edge's half: verify before anything is stored, then want, take, activate, attest.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt as _;
use tracing::{info, warn};

use super::message::{BundleAnswer, OfferAnswer, StatusAnswer, TrustAnswer, UploadAnswer, Want};
use crate::blob::{BlobInfo, BlobStore, ByteStream, Resumable};
use crate::blocking;
use crate::bundle::{self, Anchor, Envelope, Receipt, Statement, TrustDocument, VerifiedBundle};
use crate::catalog::{self, BundleRecord, BundleState, Catalog, EventRecord, GoneRecord};
use crate::clock::{Clock, Timestamp};
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{KeySet, Signer, TrustedKey, Window};
use crate::meta::Revision;
use crate::name::{BundleName, NodeName, Tenant, Version};

/// How often a commit starts over because the bundle was offered anew under it.
const COMMIT_ATTEMPTS: usize = 8;

/// A trust document and the revision of the record it was read from.
type Parsed = (Revision, Arc<TrustDocument>);

/// Receives bundles for one tenant of one edge.
#[derive(Clone, Debug)]
pub struct Receiver {
    pub(super) catalog: Catalog,
    pub(super) blobs: Arc<dyn BlobStore>,
    pub(super) clock: Arc<dyn Clock>,
    name: NodeName,
    identity: Arc<dyn Signer>,
    pinned: Arc<Mutex<Option<KeySet>>>,
    public: bool,
    /// Whether other tenants put their blobs into the same store.
    shared: bool,
    cached: Arc<Mutex<Option<Parsed>>>,
    pub(super) collecting: Arc<AtomicBool>,
    #[cfg(feature = "delta")]
    pub(super) unpacking: Arc<super::unpack::Unpacking>,
}

impl Receiver {
    /// A receiver over a catalog and a blob store, for the edge `name` whose receipts `identity`
    /// signs. Finishes what a crash left half done.
    pub async fn open(
        catalog: Catalog,
        blobs: Arc<dyn BlobStore>,
        clock: Arc<dyn Clock>,
        name: NodeName,
        identity: Arc<dyn Signer>,
    ) -> Result<Receiver> {
        let (cached, collecting) = (Arc::default(), Arc::default());
        let (pinned, public, shared) = (Arc::default(), false, false);
        let receiver = Receiver {
            catalog,
            blobs,
            clock,
            name,
            identity,
            pinned,
            public,
            shared,
            cached,
            collecting,
            #[cfg(feature = "delta")]
            unpacking: Arc::default(),
        };
        receiver.finish_collections().await?;
        if let Some(trust) = receiver.trust().await? {
            receiver.apply(&trust).await?;
        }
        Ok(receiver)
    }

    /// The same receiver, which takes its first trust document only if these root keys signed it.
    /// Without this, whoever may call the control surface pins the first one.
    #[must_use]
    pub fn with_pinned_roots(self, roots: KeySet) -> Receiver {
        *self.pinned.lock().unwrap_or_else(PoisonError::into_inner) = Some(roots);
        self
    }

    /// Pins these root keys, which a paired source named, unless others are pinned already. A trust
    /// document that is in force names its own.
    pub fn pin_roots(&self, roots: &KeySet) {
        self.pinned.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| roots.clone());
    }

    /// The same receiver; repositories that a bundle brings along are public from the start.
    #[must_use]
    pub fn with_public_repositories(mut self, public: bool) -> Receiver {
        self.public = public;
        self
    }

    /// The same receiver, over a blob store into which other tenants put their blobs as well. Every
    /// tenant of such a store must have it, and one metadata store must hold the records of all.
    ///
    /// A digest in a signed bundle is no proof that its maker has the bytes: he may have read it in
    /// somebody's manifest. So a blob counts as here only if this tenant has shown all its bytes once,
    /// to which it answers as if the store did not have them. Uploads begin anew after a break,
    /// because bytes that are kept under a digest may be another tenant's.
    #[must_use]
    pub fn with_shared_blobs(mut self) -> Receiver {
        self.shared = true;
        self
    }

    /// The records it writes to.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The blobs it writes to.
    pub fn blobs(&self) -> &Arc<dyn BlobStore> {
        &self.blobs
    }

    /// The edge's name.
    pub fn name(&self) -> &NodeName {
        &self.name
    }

    /// The key that signs the edge's receipts.
    pub fn identity(&self) -> &Arc<dyn Signer> {
        &self.identity
    }

    /// The time it judges with; it never goes back.
    pub fn now(&self) -> Timestamp {
        self.catalog.trusted_now(&*self.clock)
    }

    /// Who this is and where it stands.
    pub async fn status(&self) -> Result<StatusAnswer> {
        let trust = self.trust().await?;
        let now = self.now();
        let digest = self.catalog.trust().await?.map(|entry| Digest::of(&entry.value));
        Ok(StatusAnswer {
            name: self.name.clone(),
            tenant: self.catalog.tenant().clone(),
            identity: self.identity.public_key(),
            trust: trust.as_ref().map(|trust| trust.version),
            trust_digest: digest,
            stale: trust.is_some_and(|trust| trust.expires <= now),
            time: now,
            protocol: 1,
            accepts: self.accepts(),
        })
    }

    #[cfg(not(feature = "delta"))]
    fn accepts(&self) -> Vec<String> {
        Vec::new()
    }

    /// The trust document in force.
    pub async fn trust(&self) -> Result<Option<Arc<TrustDocument>>> {
        Ok(self.in_force().await?.map(|(_, trust)| trust))
    }

    /// The trust document in force, and the revision of its record.
    async fn in_force(&self) -> Result<Option<Parsed>> {
        let Some(entry) = self.catalog.trust().await? else { return Ok(None) };
        {
            let cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((revision, trust)) = &*cached
                && *revision == entry.revision
            {
                return Ok(Some((*revision, trust.clone())));
            }
        }
        let parsed = (entry.revision, Arc::new(TrustDocument::parse_unverified(&entry.value)?));
        *self.cached.lock().unwrap_or_else(PoisonError::into_inner) = Some(parsed.clone());
        Ok(Some(parsed))
    }

    /// Takes a trust document if it is a successor of the one in force, and does what it says:
    /// withdraws, and takes off what is assigned to this edge no more.
    pub async fn accept_trust(&self, envelope: Bytes) -> Result<TrustAnswer> {
        let now = self.now();
        self.catalog.keep_time().await?;
        let old = self.catalog.trust().await?;
        let current = self.trust().await?;
        let tenant = self.catalog.tenant();
        let trust = match self.successor(&envelope, current.as_deref(), tenant, now) {
            Ok(trust) => Arc::new(trust),
            Err(error) => {
                self.note("trust.rejected", "trust document", &error).await?;
                return Err(error);
            }
        };
        if old.as_ref().is_none_or(|old| old.value != envelope) {
            let detail = format!("version {} is in force, until {}", trust.version, trust.expires);
            let event = EventRecord::new(now, "trust.accepted", "trust document", detail);
            self.catalog.set_trust(old.as_ref(), envelope, &event).await?;
            info!(version = trust.version, "trust document accepted");
        }
        self.apply(&trust).await
    }

    fn successor(
        &self,
        envelope: &[u8],
        current: Option<&TrustDocument>,
        tenant: &Tenant,
        now: Timestamp,
    ) -> Result<TrustDocument> {
        let first;
        let pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let anchor = match (current, &pinned) {
            (Some(current), _) => Anchor::Current(current),
            (None, Some(roots)) => Anchor::Pinned(roots),
            // Trust on first use: whoever holds the control token names the roots.
            (None, None) => {
                first = TrustDocument::parse_unverified(envelope)?.root;
                Anchor::Pinned(&first)
            }
        };
        TrustDocument::accept(envelope, anchor, tenant, now)
    }

    /// Verifies an offered bundle and prepares to receive it; answers which blobs are wanted.
    pub async fn offer(&self, envelope: &Bytes) -> Result<OfferAnswer> {
        let now = self.now();
        self.catalog.keep_time().await?;
        match self.prepare(envelope, now).await {
            Ok((record, statement)) => {
                let want = self.missing(&statement).await?;
                info!(bundle = %record.name, version = %record.version, want = want.len(), "bundle offered");
                Ok(OfferAnswer { state: record.state.as_str().into(), digest: record.digest, want })
            }
            Err(error) => {
                // A conflict has left its own event.
                if error.kind() != ErrorKind::Conflict {
                    self.note("bundle.rejected", "offer", &error).await?;
                }
                Err(error)
            }
        }
    }

    async fn prepare(&self, envelope: &Bytes, now: Timestamp) -> Result<(BundleRecord, Statement)> {
        let verified = match self.judge(envelope, now).await {
            Ok((_, verified)) => verified,
            Err(error) => {
                if error.kind() == ErrorKind::Conflict {
                    self.note("bundle.conflict", "offer", &error).await?;
                }
                return Err(error);
            }
        };
        let record = match self.catalog.prepare(&verified, envelope, now).await {
            // A blob it needs is marked as being collected, and nobody may be collecting it any more.
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                self.finish_abandoned_collection().await?;
                self.catalog.prepare(&verified, envelope, now).await?
            }
            prepared => prepared?,
        };
        Ok((record, verified.into_statement()))
    }

    /// Whether this edge may hold the bundle, under the trust document in force, whose revision is
    /// given with it. Signatures over many megabytes take a while: others are served meanwhile.
    async fn judge(&self, envelope: &Bytes, now: Timestamp) -> Result<(Revision, VerifiedBundle)> {
        let (revision, trust) = self.in_force().await?.ok_or_else(no_trust)?;
        if trust.expires <= now {
            return Err(stale(&trust));
        }
        let (envelope, name) = (envelope.clone(), self.name.clone());
        let verified = blocking::run(move || {
            let verified = bundle::verify(&envelope, &trust, now)?;
            bundle::admit(&verified, &trust, &name)?;
            Ok(verified)
        });
        Ok((revision, verified.await?))
    }

    /// A bundle as others may see it, with the number of its blobs that are missing.
    pub async fn describe(&self, name: &BundleName, version: &Version) -> Result<Option<BundleAnswer>> {
        let Some(record) = self.catalog.bundle(name, version).await? else { return Ok(None) };
        let mut answer = BundleAnswer::from(&record);
        if record.holds_blobs {
            let statement = self.statement(name, version).await?;
            answer.missing = Some(self.missing(&statement).await?.len() as u64);
        }
        Ok(Some(answer))
    }

    /// Where the upload of a blob stands.
    pub async fn position(&self, digest: &Digest) -> Result<UploadAnswer> {
        let size = self.claimed(digest).await?;
        let info = BlobInfo { digest: *digest, size };
        let (_, have) = self.have(&info).await?;
        Ok(UploadAnswer { have, size, taken: false })
    }

    /// Takes bytes of a wanted blob, which begin at `offset`. The last byte completes it: the blob
    /// is verified, durable, and there. A stream that breaks off leaves what came before.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for a blob that no bundle here needs; [`ErrorKind::Mismatch`] if the
    /// bytes do not have the digest, after which the upload starts over.
    pub async fn upload(&self, digest: &Digest, offset: u64, mut bytes: ByteStream) -> Result<UploadAnswer> {
        let size = self.claimed(digest).await?;
        let info = BlobInfo { digest: *digest, size };
        if self.is_here(&info).await? {
            return Ok(UploadAnswer { have: size, size, taken: false });
        }
        let mut writer = match self.resumable() {
            Some(resumable) => {
                // Resuming hashes what is kept anew: not for bytes that do not fit there.
                let position = resumable.position(&info).await?;
                if position != offset && position < size {
                    return Ok(UploadAnswer { have: position, size, taken: false });
                }
                resumable.resume(&info).await?
            }
            None => self.blobs.create(&info).await?,
        };
        // A crash came between the last byte and the blob: what is kept is completed as it is.
        let kept_whole = size > 0 && writer.position() == size;
        if writer.position() != offset && !kept_whole {
            return Ok(UploadAnswer { have: writer.position(), size, taken: false });
        }
        if !kept_whole {
            while let Some(chunk) = bytes.next().await {
                if let Err(error) = writer.write(chunk?).await {
                    return Err(self.lied(digest, error).await);
                }
            }
        }
        let have = writer.position();
        if have == size {
            if let Err(error) = writer.commit().await {
                return Err(self.lied(digest, error).await);
            }
            self.remember_shown(digest).await?;
        }
        Ok(UploadAnswer { have, size, taken: !kept_whole })
    }

    /// Makes a prepared bundle visible and answers the signed receipt; repeated, the same receipt.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] while blobs are missing.
    pub async fn commit(&self, name: &BundleName, version: &Version) -> Result<Bytes> {
        for _ in 0..COMMIT_ATTEMPTS {
            if let Some(receipt) = self.try_commit(name, version).await? {
                return Ok(receipt);
            }
        }
        Err(Error::new(ErrorKind::Unavailable, format!("bundle {name}/{version} keeps changing; try again")))
    }

    /// `None` if the bundle was removed and offered again meanwhile: its blobs may be gone.
    async fn try_commit(&self, name: &BundleName, version: &Version) -> Result<Option<Bytes>> {
        let now = self.now();
        let found = self.catalog.bundle_at(name, version).await?;
        let (record, revision) = found.ok_or_else(|| catalog::unknown(name, version))?;
        if !record.holds_blobs {
            return Err(match record.state {
                BundleState::Withdrawn => {
                    Error::new(ErrorKind::Gone, format!("bundle {name}/{version} was withdrawn"))
                }
                _ => catalog::unknown(name, version),
            });
        }
        if record.state == BundleState::Committed {
            let statement = self.statement(name, version).await?;
            self.refuse_missing(&record, &statement).await?;
        } else if !self.activate(&record, revision, now).await? {
            return Ok(None);
        }
        match self.catalog.receipt(name, version).await? {
            Some(receipt) => Ok(Some(receipt)),
            None => {
                let message = format!("the receipt of bundle {name}/{version} is missing");
                Err(Error::new(ErrorKind::Corrupted, message))
            }
        }
    }

    /// Makes a prepared bundle visible, if it may still be here: since it was offered its keys may
    /// have been revoked, or the bundle assigned elsewhere. `false` if its record, which was read at
    /// `revision`, has changed.
    async fn activate(&self, record: &BundleRecord, revision: Revision, now: Timestamp) -> Result<bool> {
        let (name, version) = (&record.name, &record.version);
        let envelope =
            self.catalog.envelope(name, version).await?.ok_or_else(|| catalog::unknown(name, version))?;
        let what = format!("{name}/{version}");
        let (trust, verified) = match self.judge(&envelope, now).await {
            Ok(judged) => judged,
            Err(error) => {
                self.note("bundle.rejected", &what, &error).await?;
                return Err(error);
            }
        };
        let statement = verified.statement();
        self.refuse_missing(record, statement).await?;
        let receipt = attest(&self.name, statement, record.digest, now);
        let envelope = receipt.seal(&*self.identity, now)?.to_json();
        let activated =
            self.catalog.activate(statement, revision, trust, envelope.into(), self.public, now).await;
        match activated {
            Ok(None) => return Ok(false),
            Ok(Some(_)) => {}
            Err(error) => {
                if error.kind() == ErrorKind::Conflict {
                    self.note("bundle.conflict", &what, &error).await?;
                }
                return Err(error);
            }
        }
        info!(bundle = %name, %version, items = statement.items().len(), "bundle activated");
        Ok(true)
    }

    async fn refuse_missing(&self, record: &BundleRecord, statement: &Statement) -> Result<()> {
        let missing = self.missing(statement).await?;
        let Some(first) = missing.first() else { return Ok(()) };
        Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "{} blobs of {}/{} are missing, {} first",
                missing.len(),
                record.name,
                record.version,
                first.digest
            ),
        ))
    }

    /// Takes a bundle off this edge: its artifacts answer 404, its blobs are free to be collected.
    pub async fn remove(&self, name: &BundleName, version: &Version) -> Result<bool> {
        let removed = self.catalog.remove(name, version, self.now()).await?;
        if removed {
            info!(bundle = %name, %version, "bundle removed");
        }
        Ok(removed)
    }

    async fn apply(&self, trust: &TrustDocument) -> Result<TrustAnswer> {
        let now = self.now();
        let mut answer = TrustAnswer { version: trust.version, withdrawn: 0, removed: 0 };
        let mut failed = None;
        for withdrawal in &trust.withdrawn {
            let gone = GoneRecord {
                bundle: withdrawal.bundle.clone(),
                version: withdrawal.version.clone(),
                reason: withdrawal.reason.clone(),
                legal: withdrawal.legal,
            };
            match self.catalog.withdraw(&gone, withdrawal.digest, now).await {
                Ok(true) => {
                    warn!(bundle = %gone.bundle, version = %gone.version, reason = gone.reason, "bundle withdrawn");
                    answer.withdrawn += 1;
                }
                Ok(false) => {}
                // One damaged record must not keep the other withdrawals from being done.
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        // When a newer document has come, what it does not assign is taken off with it.
        let Some((revision, in_force)) = self.in_force().await? else {
            return failed.map_or(Ok(answer), Err);
        };
        let trusted = without_compromised(&trust.release);
        for record in self.catalog.bundles().await? {
            if record.holds_blobs
                && let Some(trusted) = &trusted
                && let Err(error) = self.check_again(&record, trusted, now).await
            {
                match self.take_off_untrusted(&record, error).await {
                    Ok(removed) => answer.removed += u64::from(removed),
                    Err(error) => failed = failed.or(Some(error)),
                }
                continue;
            }
            let assigned = trust.assigned(&self.name).any(|one| {
                one.bundle == record.name && one.version == record.version && one.digest == record.digest
            });
            // What could not be withdrawn just now stays to be withdrawn: taken off instead, its
            // artifacts would answer 404 for good, and not 410.
            let withdrawn = trust.withdrawal(&record.name, &record.version).is_some();
            if record.holds_blobs && !assigned && !withdrawn && in_force.version == trust.version {
                match self.catalog.unassign(&record.name, &record.version, revision, now).await {
                    Ok(removed) => answer.removed += u64::from(removed),
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
        }
        failed.map_or(Ok(answer), Err)
    }

    /// Whether keys that are not compromised still carry a bundle that was accepted earlier.
    async fn check_again(&self, record: &BundleRecord, trusted: &KeySet, now: Timestamp) -> Result<()> {
        let envelope = self.catalog.envelope(&record.name, &record.version).await?;
        let envelope = envelope.ok_or_else(|| catalog::unknown(&record.name, &record.version))?;
        let trusted = trusted.clone();
        blocking::run(move || Envelope::parse(&envelope)?.verify(&trusted, now).map(drop)).await
    }

    /// Takes off a bundle that the remaining keys do not carry. A store that could not answer says
    /// nothing about signatures: then the bundle stays, and the error is told.
    async fn take_off_untrusted(&self, record: &BundleRecord, why: Error) -> Result<bool> {
        if why.kind().is_retryable() {
            return Err(why);
        }
        self.note("bundle.untrusted", &format!("{}/{}", record.name, record.version), &why).await?;
        self.remove(&record.name, &record.version).await
    }

    pub(super) async fn statement(&self, name: &BundleName, version: &Version) -> Result<Statement> {
        self.catalog.statement(name, version).await?.ok_or_else(|| catalog::unknown(name, version))
    }

    pub(super) async fn missing(&self, statement: &Statement) -> Result<Vec<Want>> {
        let blobs: BTreeMap<Digest, u64> =
            statement.items().iter().map(|item| (item.digest, item.size)).collect();
        let mut missing = Vec::new();
        for (step, (digest, size)) in blobs.into_iter().enumerate() {
            blocking::after_step(step).await;
            let (stored, have) = self.have(&BlobInfo { digest, size }).await?;
            // All bytes of an upload may be here without being a blob: what counts is the store.
            if !stored {
                missing.push(Want { digest, size, have });
            }
        }
        Ok(missing)
    }

    /// Whether a blob is stored and counts as this tenant's.
    pub(super) async fn is_here(&self, info: &BlobInfo) -> Result<bool> {
        // A blob of another size under this name is not the one that is meant.
        let stored = self.blobs.stat(&info.digest).await?.is_some_and(|stored| stored.size == info.size);
        Ok(stored && (!self.shared || self.catalog.has_shown(&info.digest).await?))
    }

    /// Notes that all bytes of a blob came from this tenant, where that makes a difference.
    pub(super) async fn remember_shown(&self, digest: &Digest) -> Result<()> {
        if self.shared { self.catalog.note_shown(digest).await } else { Ok(()) }
    }

    /// Uploads that go on after a break, unless the beginning may be another tenant's.
    fn resumable(&self) -> Option<&dyn Resumable> {
        self.blobs.as_resumable().filter(|_| !self.shared)
    }

    /// Whether a blob is stored, and how many of its bytes are here.
    async fn have(&self, info: &BlobInfo) -> Result<(bool, u64)> {
        if self.is_here(info).await? {
            return Ok((true, info.size));
        }
        let Some(resumable) = self.resumable() else { return Ok((false, 0)) };
        let position = resumable.position(info).await?;
        if position == 0 || position < info.size {
            return Ok((false, position));
        }
        // A crash came between the last byte and the commit; nobody will send that byte again.
        let completed = async { resumable.resume(info).await?.commit().await };
        match completed.await {
            Ok(_) => Ok((true, info.size)),
            Err(error) if error.kind() == ErrorKind::Mismatch => {
                self.lied(&info.digest, error).await;
                Ok((false, 0))
            }
            // Somebody is completing it at this moment.
            Err(error) if error.kind() == ErrorKind::Conflict => {
                let stored = self.blobs.stat(&info.digest).await?;
                Ok((stored.is_some_and(|stored| stored.size == info.size), info.size))
            }
            Err(error) => Err(error),
        }
    }

    async fn claimed(&self, digest: &Digest) -> Result<u64> {
        self.catalog.claimed_size(digest).await?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("no bundle that was offered here needs {digest}"))
        })
    }

    /// Bytes that are not what was promised are worth an event; other failures are not.
    async fn lied(&self, digest: &Digest, error: Error) -> Error {
        if error.kind() == ErrorKind::Mismatch
            && let Err(failed) = self.note("blob.rejected", &digest.to_string(), &error).await
        {
            return failed;
        }
        error
    }

    pub(super) async fn note(&self, kind: &str, what: &str, error: &Error) -> Result<()> {
        warn!(kind, what, %error, "security event");
        self.catalog.record_event(&EventRecord::new(self.now(), kind, what, error.message())).await
    }
}

/// The keys that have not been compromised, if some have been. A key that merely ran out, or was
/// replaced, still carries what was accepted while it was good.
fn without_compromised(keys: &KeySet) -> Option<KeySet> {
    let compromised = |key: &TrustedKey| key.revocation.as_ref().is_some_and(|revoked| revoked.compromised);
    if !keys.keys.iter().any(compromised) {
        return None;
    }
    let left = keys.keys.iter().filter(|key| !compromised(key)).cloned();
    let left = left.map(|key| TrustedKey { window: Window::ALWAYS, revocation: None, ..key });
    Some(KeySet { threshold: keys.threshold, keys: left.collect() })
}

/// What an edge says when it holds every item of `statement`.
pub(crate) fn attest(edge: &NodeName, statement: &Statement, payload: Digest, at: Timestamp) -> Receipt {
    let bundle = statement.bundle();
    Receipt {
        edge: edge.clone(),
        tenant: bundle.tenant.clone(),
        bundle: bundle.name.clone(),
        version: bundle.version.clone(),
        payload,
        seq: bundle.seq,
        items: statement.items().len() as u64,
        bytes: statement.total_bytes(),
        root: statement.root(),
        at,
    }
}

impl From<&BundleRecord> for BundleAnswer {
    fn from(record: &BundleRecord) -> BundleAnswer {
        BundleAnswer {
            name: record.name.clone(),
            version: record.version.clone(),
            state: record.state.as_str().into(),
            digest: record.digest,
            seq: record.seq,
            items: record.items,
            bytes: record.bytes,
            created: record.created,
            activated: record.activated,
            missing: None,
            reason: record.gone.as_ref().map(|gone| gone.reason.clone()),
        }
    }
}

#[cold]
fn no_trust() -> Error {
    Error::new(ErrorKind::Untrusted, "this edge has no trust document yet; send one first")
}

#[cold]
fn stale(trust: &TrustDocument) -> Error {
    let message = format!(
        "the trust document, version {}, expired at {}; nothing new is accepted",
        trust.version, trust.expires
    );
    Error::new(ErrorKind::Untrusted, message)
}
