//! Signed URLs of one tenant: keys, minted links, revocations, budgets.
//!
//! Requests are answered from a snapshot in memory. Whatever changes it is durable before it shows:
//! one conditional batch, then the next snapshot. Tokens are not kept at all, and the secrets of
//! keys are in a [`LinkVault`].

mod key;
mod mint;
mod record;
mod revoke;
#[cfg(test)]
mod tests;
mod transfer;
mod vault;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use futures_util::lock::Mutex as AsyncMutex;

use super::Records;
use crate::clock::Timestamp;
use crate::error::Result;
use crate::link::{
    Budget, DEFAULT_GRACE, Denied, Epoch, Grace, LinkId, LinkKeys, LinkPolicies, LinkRequest, PolicyName,
    Revocations, SeenTokens, Verifier,
};
use crate::meta::MetadataStore;
use crate::name::{NodeName, Tenant};

pub use mint::{MintOrder, Minted};
pub use record::{
    KeyRecord, LinkInfo, LinkRecord, LinksApplied, PolicyRecord, Revocation, RevocationUpdate, Revoked,
    SharedKey,
};
pub use transfer::{Admission, Transfer};
pub use vault::{LinkDirectory, LinkVault, MemoryLinkVault};

/// Budgets are guarded by so many locks.
const STRIPES: usize = 64;
/// How often what ran out is looked for, in seconds.
const CLEANING: i64 = 3_600;
/// How long the record of a link is kept after its end, in seconds.
const KEEP: i64 = 30 * 86_400;

/// What an edge is to know of itself to judge links.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LinkOptions {
    /// The edge's name, as `aud` says it.
    pub edge: NodeName,
    /// The groups it belongs to.
    pub groups: Vec<NodeName>,
    /// How long a download that began in time may go on after its link's end, in seconds.
    pub grace: i64,
    /// What clients write before a path, `https://dl.example.com`; told by each request if left out.
    pub base: Option<String>,
}

impl LinkOptions {
    /// An edge of no group, with the default grace.
    pub fn new(edge: NodeName) -> LinkOptions {
        LinkOptions { edge, groups: Vec::new(), grace: DEFAULT_GRACE, base: None }
    }

    /// The same edge in these groups.
    #[must_use]
    pub fn with_groups(mut self, groups: Vec<NodeName>) -> LinkOptions {
        self.groups = groups;
        self
    }

    /// The same edge under this address, `https://dl.example.com`, without a slash at its end.
    #[must_use]
    pub fn with_base(mut self, base: impl Into<String>) -> LinkOptions {
        self.base = Some(base.into());
        self
    }

    /// The same edge with another grace, in seconds.
    #[must_use]
    pub fn with_grace(mut self, seconds: i64) -> LinkOptions {
        self.grace = seconds;
        self
    }
}

/// The signed URLs of a tenant. Cheap to clone; every clone is the same.
#[derive(Clone)]
pub struct Links(Arc<Inner>);

struct Inner {
    tenant: Tenant,
    options: LinkOptions,
    vault: Arc<dyn LinkVault>,
    keys: Records,
    minted: Records,
    /// The list of revocations, under their sequence numbers.
    revoked: Records,
    policies: Records,
    budgets: Records,
    state: Records,
    snapshot: RwLock<Arc<Snapshot>>,
    /// Rises with every snapshot: whoever has seen this number has nothing to ask.
    generation: AtomicU64,
    /// One change at a time.
    changing: AsyncMutex<()>,
    seen: SeenTokens,
    grace: RwLock<Grace>,
    grace_changed: AtomicBool,
    /// Budgets of links with running requests.
    running: Vec<AsyncMutex<HashMap<LinkId, Budget>>>,
    /// Reservations that ended and are not settled.
    ended: Mutex<Vec<transfer::Ended>>,
    cleaned: AtomicI64,
}

/// What requests are judged by.
#[derive(Clone, Debug, Default)]
struct Snapshot {
    keys: LinkKeys,
    revocations: Revocations,
    policies: LinkPolicies,
    /// The last revocation's number.
    sequence: u64,
}

impl Snapshot {
    fn verifier(&self) -> Verifier<'_> {
        Verifier::new(&self.keys, &self.revocations, &self.policies)
    }

    fn apply(&mut self, revocation: &Revocation) {
        let note = || revocation.note.clone();
        match &revocation.what {
            Revoked::Link { id, until } => self.revocations.revoke(*id, *until),
            Revoked::Subject { subject, minimum } => {
                self.revocations.raise_subject(subject, Epoch { minimum: *minimum, note: note() });
            }
            Revoked::Tenant { minimum } => {
                self.revocations.raise(Epoch { minimum: *minimum, note: note() });
            }
            Revoked::Key { key, .. } => {
                // It need not be here: then its name alone is known to be bad.
                let _ = self.keys.set_state(key, crate::link::KeyState::Revoked);
                self.revocations.revoke_key(key.clone(), note());
            }
            Revoked::Policy { policy } => {
                self.policies.remove(policy);
                self.revocations.revoke_policy(policy.clone(), note());
            }
        }
    }
}

impl Links {
    /// Reads what `store` has of the tenant's links, and the secrets of its keys from `vault`.
    ///
    /// # Errors
    /// Those of the store and of the vault. A key whose secret is missing is revoked in memory: its
    /// links are refused, and everything else goes on.
    pub async fn open(
        store: Arc<dyn MetadataStore>,
        tenant: &Tenant,
        vault: Arc<dyn LinkVault>,
        options: LinkOptions,
    ) -> Result<Links> {
        let records = |kind| Records::new(Arc::clone(&store), tenant, kind);
        let inner = Inner {
            tenant: tenant.clone(),
            vault,
            keys: records("link-key"),
            minted: records("link"),
            revoked: records("link-revoked"),
            policies: records("link-policy"),
            budgets: records("link-budget"),
            state: records("link-state"),
            snapshot: RwLock::default(),
            generation: AtomicU64::new(0),
            changing: AsyncMutex::new(()),
            seen: SeenTokens::default(),
            grace: RwLock::new(Grace::new(options.grace)),
            grace_changed: AtomicBool::new(false),
            running: (0..STRIPES).map(|_| AsyncMutex::default()).collect(),
            ended: Mutex::default(),
            cleaned: AtomicI64::new(0),
            options,
        };
        let mut snapshot = Snapshot { keys: inner.load_keys().await?, ..Snapshot::default() };
        for (name, record) in inner.policies.all::<PolicyRecord>().await? {
            snapshot.policies.set(PolicyName::new(&name)?, record.policy);
        }
        let mut links = Vec::new();
        for (number, revocation) in inner.revoked.all::<Revocation>().await? {
            snapshot.sequence = snapshot.sequence.max(number.parse().unwrap_or(0));
            match revocation.what {
                // A million of them are sorted at once.
                Revoked::Link { id, until } => links.push((id, until)),
                _ => snapshot.apply(&revocation),
            }
        }
        snapshot.revocations.revoke_all(links);
        // The last one may have been forgotten since.
        if let Some((sequence, _)) = inner.state.read::<u64>("sequence").await? {
            snapshot.sequence = snapshot.sequence.max(sequence);
        }
        if let Some((stored, _)) = inner.state.read::<Grace>("grace").await? {
            let stored = stored.with_seconds(inner.options.grace);
            *inner.grace.write().unwrap_or_else(PoisonError::into_inner) = stored;
        }
        let links = Links(Arc::new(inner));
        links.publish(snapshot);
        Ok(links)
    }

    /// The tenant whose links these are.
    pub fn tenant(&self) -> &Tenant {
        &self.0.tenant
    }

    /// The edge, as `aud` says it.
    pub fn edge(&self) -> &NodeName {
        &self.0.options.edge
    }

    /// The edge's groups.
    pub fn groups(&self) -> &[NodeName] {
        &self.0.options.groups
    }

    /// What clients write before a path, if the edge was told.
    pub fn base(&self) -> Option<&str> {
        self.0.options.base.as_deref()
    }

    /// Judges a token as far as it can be judged before the look-up. `request` names the edge and
    /// its groups; it need not know the digest.
    pub fn admit(&self, token: &str, request: &LinkRequest<'_>) -> Result<Admission, Denied> {
        // In this order: a revocation that comes between leaves a number that is too low, and the
        // transfer asks once more.
        let generation = self.generation();
        let snapshot = self.snapshot();
        let grace = self.0.grace.read().unwrap_or_else(PoisonError::into_inner);
        let verifier = snapshot.verifier().with_seen(&self.0.seen).with_grace(&grace);
        let link = verifier.verify(token, request)?;
        Ok(Admission::new(self.clone(), link, generation, request))
    }

    /// A number that rises whenever something was revoked, or a key or policy changed.
    pub fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    /// Does what is to be done now and then: settles what ended, forgets what ran out, and stores
    /// which downloads may go on. An edge calls it every few seconds.
    pub async fn upkeep(&self, now: Timestamp) -> Result<()> {
        self.settle().await?;
        if self.0.grace_changed.swap(false, Ordering::AcqRel) {
            let grace = {
                let mut grace = self.0.grace.write().unwrap_or_else(PoisonError::into_inner);
                grace.forget(now);
                grace.clone()
            };
            self.0.state.write("grace", &grace).await?;
        }
        if now.as_unix() - self.0.cleaned.load(Ordering::Acquire) >= CLEANING {
            self.forget(now).await?;
            self.0.cleaned.store(now.as_unix(), Ordering::Release);
        }
        Ok(())
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.0.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn publish(&self, snapshot: Snapshot) {
        *self.0.snapshot.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
        self.0.generation.fetch_add(1, Ordering::AcqRel);
    }

    fn ended(&self) -> MutexGuard<'_, Vec<transfer::Ended>> {
        self.0.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links").field("tenant", &self.0.tenant).finish_non_exhaustive()
    }
}
