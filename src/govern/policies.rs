//! The policy of a tenant: the one in force, and those before it.

use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Records;
use super::record::encode;
use crate::access::AccessRequest;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::meta::{Batch, MetadataStore};
use crate::name::Tenant;
use crate::policy::{CompiledPolicy, Document, Effect, Policy};

/// Versions that are kept, the one in force included.
pub const KEPT: usize = 100;

/// The record that says which version is in force.
const CURRENT: &str = "current";

/// The policies of a tenant. Cheap to clone.
///
/// One policy is in force at a time. Requests are judged by a snapshot in memory, which is changed
/// as a whole after its record is durable: no request sees half a policy, and a document that is
/// refused changes nothing. As a [`Policy`] it judges by the one in force.
#[derive(Clone, Debug)]
pub struct Policies {
    records: Records,
    live: Arc<RwLock<Arc<InForce>>>,
}

/// The policy in force.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct InForce {
    /// Its version; 0 if none was ever set, and only built-in rules hold.
    pub version: u64,
    /// The policy.
    pub policy: CompiledPolicy,
}

/// A policy that was put in force, without its document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PolicyVersion {
    /// Its version; each is one more than the one before it.
    pub version: u64,
    /// When it came into force.
    pub at: Timestamp,
    /// Who put it in force, as a principal prints.
    pub by: String,
    /// What its document says it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The version whose document was put in force again, if it was so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_of: Option<u64>,
}

/// The record `current`: all versions that are kept, oldest first. The last one is in force.
#[derive(Default, Serialize, Deserialize)]
struct History {
    versions: Vec<PolicyVersion>,
}

impl Policies {
    /// The policies of a tenant, with the one in force read from `store`.
    ///
    /// # Errors
    /// Those of the store, and [`ErrorKind::Corrupted`] if the document in force can no longer be
    /// read: there is no policy to fall back to that its operator would have agreed to.
    pub async fn open(store: Arc<dyn MetadataStore>, tenant: &Tenant) -> Result<Policies> {
        let records = Records::new(store, tenant, "policy");
        let history = records.read::<History>(CURRENT).await?.map(|(history, _)| history);
        let in_force = match history.as_ref().and_then(|history| history.versions.last()) {
            None => InForce { version: 0, policy: CompiledPolicy::default() },
            Some(last) => {
                let document = read(&records, last.version).await?.ok_or_else(|| missing(last.version))?;
                InForce { version: last.version, policy: CompiledPolicy::new(document) }
            }
        };
        Ok(Policies { records, live: Arc::new(RwLock::new(Arc::new(in_force))) })
    }

    /// The policy in force.
    pub fn current(&self) -> Arc<InForce> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts `document` in force at the word of `by`, and answers with its version.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if `expected` is given and is not the version in force; those of the
    /// store. The old policy stays in force then.
    pub async fn put(
        &self,
        document: Document,
        expected: Option<u64>,
        by: &str,
        now: Timestamp,
    ) -> Result<u64> {
        self.replace(document, expected, by, now, None).await
    }

    /// Puts the document of an earlier version in force again, as a version of its own.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if that version is not kept; those of [`put`](Policies::put).
    pub async fn rollback(
        &self,
        version: u64,
        expected: Option<u64>,
        by: &str,
        now: Timestamp,
    ) -> Result<u64> {
        let document = self.document(version).await?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("version {version} of the policy is not kept here"))
        })?;
        self.replace(document, expected, by, now, Some(version)).await
    }

    /// The versions that are kept, newest first.
    pub async fn versions(&self) -> Result<Vec<PolicyVersion>> {
        let history = self.records.read::<History>(CURRENT).await?;
        Ok(history.map(|(history, _)| history.versions.into_iter().rev().collect()).unwrap_or_default())
    }

    /// The document of a version, if it is kept.
    pub async fn document(&self, version: u64) -> Result<Option<Document>> {
        read(&self.records, version).await
    }

    async fn replace(
        &self,
        document: Document,
        expected: Option<u64>,
        by: &str,
        now: Timestamp,
        rollback_of: Option<u64>,
    ) -> Result<u64> {
        let (history, entry) = self.records.read::<History>(CURRENT).await?.unzip();
        let mut history = history.unwrap_or_default();
        let current = history.versions.last().map_or(0, |last| last.version);
        if expected.is_some_and(|expected| expected != current) {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("version {current} of the policy is in force, and not the one that was expected"),
            ));
        }
        let version = current + 1;
        history.versions.push(PolicyVersion {
            version,
            at: now,
            by: by.to_owned(),
            description: document.description.clone(),
            rollback_of,
        });
        let mut batch = Batch::new();
        batch.expect_unchanged(self.records.key(CURRENT), entry.as_ref());
        while history.versions.len() > KEPT {
            batch.delete(self.records.key(&id(history.versions.remove(0).version)));
        }
        batch.put(self.records.key(CURRENT), encode(&history)?);
        batch.put(self.records.key(&id(version)), document.to_json());
        let in_force = Arc::new(InForce { version, policy: CompiledPolicy::new(document) });
        self.records.store().commit(batch).await?;
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        // Of two changes at once, the one that was recorded last stays.
        if live.version < version {
            *live = in_force;
        }
        Ok(version)
    }
}

impl Policy for Policies {
    fn evaluate(&self, request: &AccessRequest<'_>) -> Effect {
        self.current().policy.evaluate(request)
    }

    fn steer(&self, request: &AccessRequest<'_>) -> Effect {
        self.current().policy.steer(request)
    }

    fn restrict(&self, request: &AccessRequest<'_>) -> Effect {
        self.current().policy.restrict(request)
    }
}

fn id(version: u64) -> String {
    format!("v{version:020}")
}

async fn read(records: &Records, version: u64) -> Result<Option<Document>> {
    match records.read::<Value>(&id(version)).await? {
        None => Ok(None),
        Some((value, _)) => match Document::from_value(&value) {
            Ok(document) => Ok(Some(document)),
            Err(cause) => Err(Error::new(
                ErrorKind::Corrupted,
                format!("version {version} of the policy cannot be read any more: {}", cause.message()),
            )),
        },
    }
}

#[cold]
fn missing(version: u64) -> Error {
    Error::new(ErrorKind::Corrupted, format!("the document of version {version} of the policy is missing"))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use serde_json::json;

    use super::*;
    use crate::access::{Action, Principal, Resource};
    use crate::meta::MemoryStore;
    use crate::name::RepositoryName;

    const NOW: Timestamp = Timestamp::from_unix(1_795_323_600);

    fn run<T>(future: impl Future<Output = T>) -> T {
        future.now_or_never().expect("nothing in memory waits")
    }

    fn granting(user: &str) -> Document {
        let grant =
            json!({ "name": "g", "to": [format!("user:{user}")], "may": ["read"], "on": ["files/**"] });
        Document::from_value(&json!({ "description": user, "grant": [grant] })).unwrap()
    }

    fn may(policies: &Policies, user: &str) -> bool {
        let tenant = Tenant::new("acme").unwrap();
        let files = RepositoryName::new("files").unwrap();
        let identity = crate::access::Identity { name: user.into(), ..Default::default() };
        let principal = Principal::User(Arc::new(identity));
        let resource = Resource::Repository { name: &files, path: None, public: false };
        let request = AccessRequest::new(&tenant, &principal, Action::List, resource, NOW);
        let read = AccessRequest { action: Action::Read, ..request };
        policies.evaluate(&read) == Effect::Permit
    }

    #[test]
    fn a_change_is_in_force_at_once_and_after_a_restart() {
        let store: Arc<dyn MetadataStore> = Arc::new(MemoryStore::new());
        let tenant = Tenant::new("acme").unwrap();
        let policies = run(Policies::open(store.clone(), &tenant)).unwrap();
        let other = policies.clone();
        assert_eq!(policies.current().version, 0);
        assert!(!may(&policies, "alice"));
        assert_eq!(run(policies.put(granting("alice"), Some(0), "user:root", NOW)).unwrap(), 1);
        assert!(may(&other, "alice"));
        let late = run(policies.put(granting("bob"), Some(0), "user:root", NOW)).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::Conflict);
        assert!(may(&other, "alice") && !may(&other, "bob"));
        assert_eq!(run(policies.put(granting("bob"), None, "user:root", NOW)).unwrap(), 2);
        assert!(!may(&other, "alice") && may(&other, "bob"));
        assert_eq!(run(policies.rollback(1, Some(2), "user:root", NOW)).unwrap(), 3);
        let again = run(Policies::open(store.clone(), &tenant)).unwrap();
        assert_eq!(again.current().version, 3);
        assert!(may(&again, "alice") && !may(&again, "bob"));
        let versions = run(again.versions()).unwrap();
        let told: Vec<_> = versions.iter().map(|one| (one.version, one.rollback_of)).collect();
        assert_eq!(told, [(3, Some(1)), (2, None), (1, None)]);
        assert_eq!(run(again.rollback(9, None, "user:root", NOW)).unwrap_err().kind(), ErrorKind::NotFound);
        let stranger = run(Policies::open(store, &Tenant::new("other").unwrap())).unwrap();
        assert_eq!(stranger.current().version, 0);
    }

    #[test]
    fn a_hundred_versions_are_kept() {
        let store: Arc<dyn MetadataStore> = Arc::new(MemoryStore::new());
        let tenant = Tenant::new("acme").unwrap();
        let policies = run(Policies::open(store, &tenant)).unwrap();
        for _ in 0..KEPT + 5 {
            run(policies.put(granting("alice"), None, "user:root", NOW)).unwrap();
        }
        assert_eq!(run(policies.versions()).unwrap().len(), KEPT);
        assert!(run(policies.document(5)).unwrap().is_none());
        assert!(run(policies.document(6)).unwrap().is_some());
        assert_eq!(policies.current().version, KEPT as u64 + 5);
    }

    #[test]
    fn a_policy_that_can_no_longer_be_read_is_not_replaced_by_none() {
        let store: Arc<dyn MetadataStore> = Arc::new(MemoryStore::new());
        let tenant = Tenant::new("acme").unwrap();
        let policies = run(Policies::open(store.clone(), &tenant)).unwrap();
        run(policies.put(granting("alice"), None, "user:root", NOW)).unwrap();
        let mut batch = Batch::new();
        batch.put(policies.records.key(&id(1)), r#"{"grants":[]}"#.to_owned());
        run(store.commit(batch)).unwrap();
        assert_eq!(run(Policies::open(store, &tenant)).unwrap_err().kind(), ErrorKind::Corrupted);
    }
}
