//! Distributions, recalls and withdrawals as records: who wanted them, who agreed, what came of it.
//!
//! A change that one principal may make is carried out at once, and its record tells who made it. A
//! change that takes two waits as a record until another principal agrees. The word is durable
//! before the deed: a crash between them leaves a change that is approved and not done, which
//! approving it again finishes.

use serde::{Deserialize, Serialize};

use super::Source;
use super::record::{ATTEMPTS, decode, encode, key, lost_race, prefix};
use crate::access::Action;
use crate::audit::kind;
use crate::clock::Timestamp;
use crate::digest::{Digest, to_hex};
use crate::error::{Error, ErrorKind, Result};
use crate::meta::Batch;
use crate::name::{BundleName, NodeName, Version};
use crate::secret::Secret;

/// What is to become of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
#[non_exhaustive]
pub enum Change {
    /// These edges should hold it, besides those that should already.
    Distribute {
        /// The edges.
        edges: Vec<NodeName>,
    },
    /// These edges need hold it no longer.
    Recall {
        /// The edges.
        edges: Vec<NodeName>,
    },
    /// It is taken back for good.
    Withdraw {
        /// Why.
        reason: String,
        /// Whether the law demands it.
        legal: bool,
    },
}

impl Change {
    /// The action whose right and duties count.
    pub fn action(&self) -> Action {
        match self {
            Change::Distribute { .. } | Change::Recall { .. } => Action::Distribute,
            Change::Withdraw { .. } => Action::Withdraw,
        }
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Change::Distribute { .. } => kind::BUNDLE_DISTRIBUTED,
            Change::Recall { .. } => kind::BUNDLE_RECALLED,
            Change::Withdraw { .. } => kind::BUNDLE_WITHDRAWN,
        }
    }
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |edges: &[NodeName]| edges.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", ");
        match self {
            Change::Distribute { edges } => write!(f, "distribute to {}", list(edges)),
            Change::Recall { edges } => write!(f, "recall from {}", list(edges)),
            Change::Withdraw { reason, legal: false } => write!(f, "withdraw: {reason}"),
            Change::Withdraw { reason, legal: true } => write!(f, "withdraw as the law demands: {reason}"),
        }
    }
}

/// Where a change stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ChangeState {
    /// Another principal has to agree.
    Waiting,
    /// It may be done, and is about to be.
    Approved,
    /// It is done.
    Done,
    /// It was refused or given up.
    Rejected,
}

/// A change of a bundle that somebody asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeRecord {
    /// Its id: 12 hexadecimal digits.
    pub id: String,
    /// The bundle.
    pub bundle: BundleName,
    /// Its version.
    pub version: Version,
    /// The digest of its statement.
    pub digest: Digest,
    /// What is to become of it.
    pub change: Change,
    /// Who asked, as a principal prints.
    pub requested_by: String,
    /// When.
    pub requested: Timestamp,
    /// Where it stands.
    pub state: ChangeState,
    /// Who agreed or refused; nobody where one principal was enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<String>,
    /// When it was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided: Option<Timestamp>,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Source {
    /// All changes that were made or asked for through an [`Actor`](super::Actor), oldest first.
    pub async fn changes(&self) -> Result<Vec<ChangeRecord>> {
        let mut changes: Vec<ChangeRecord> = self.records.all(&prefix("change", &[])).await?;
        changes.sort_by(|a, b| (a.requested, &a.id).cmp(&(b.requested, &b.id)));
        Ok(changes)
    }

    /// One change.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none of this id.
    pub async fn change_record(&self, id: &str) -> Result<ChangeRecord> {
        self.records.load(&key("change", &[id])).await?.ok_or_else(|| {
            let shown: String = id.chars().take(40).collect();
            Error::new(ErrorKind::NotFound, format!("there is no change with the id {shown:?}"))
        })
    }

    /// Refuses a change that could not be carried out.
    pub(super) async fn check_change(
        &self,
        bundle: &BundleName,
        version: &Version,
        change: &Change,
    ) -> Result<()> {
        match change {
            Change::Distribute { edges } | Change::Recall { edges } if edges.is_empty() => {
                Err(Error::invalid("no edge is named"))
            }
            Change::Distribute { edges } => self.check_assignable(bundle, version, edges).await,
            Change::Recall { .. } => self.require(bundle, version).await.map(drop),
            Change::Withdraw { reason, .. } => self.withdrawable(bundle, version, reason).await.map(drop),
        }
    }

    /// Keeps a new change; the same one of the same principal that waits already is answered.
    pub(super) async fn keep_change(
        &self,
        bundle: &BundleName,
        version: &Version,
        change: Change,
        by: &str,
        state: ChangeState,
    ) -> Result<ChangeRecord> {
        if state == ChangeState::Waiting {
            let same = |record: &ChangeRecord| {
                record.state == ChangeState::Waiting
                    && record.requested_by == by
                    && (&record.bundle, &record.version, &record.change) == (bundle, version, &change)
            };
            if let Some(record) = self.changes().await?.into_iter().find(same) {
                return Ok(record);
            }
        }
        let (bundle_record, _) = self.require(bundle, version).await?;
        let record = ChangeRecord {
            id: to_hex(Secret::random(6)?.expose()),
            bundle: bundle.clone(),
            version: version.clone(),
            digest: bundle_record.digest,
            change,
            requested_by: by.to_owned(),
            requested: self.clock.now(),
            state,
            decided_by: None,
            decided: None,
            reason: None,
        };
        let at = key("change", &[&record.id]);
        let mut batch = Batch::new();
        batch.expect_unchanged(at.clone(), None).put(at, encode(&record)?);
        if self.records.commit(batch).await? { Ok(record) } else { Err(lost_race("keeping the change")) }
    }

    /// Moves a change on; `decide` refuses from where it may not go there.
    pub(super) async fn move_change(
        &self,
        id: &str,
        decide: impl Fn(&mut ChangeRecord) -> Result<()> + Send,
    ) -> Result<ChangeRecord> {
        let at = key("change", &[id]);
        for _ in 0..ATTEMPTS {
            self.change_record(id).await?;
            let Some(entry) = self.records.entry(&at).await? else { continue };
            let mut record: ChangeRecord = decode(&entry)?;
            decide(&mut record)?;
            let mut batch = Batch::new();
            batch.expect_unchanged(at.clone(), Some(&entry)).put(at.clone(), encode(&record)?);
            if self.records.commit(batch).await? {
                return Ok(record);
            }
        }
        Err(lost_race("deciding the change"))
    }

    /// Carries out what was approved, and says so. Doing it twice does no more than doing it once.
    pub(super) async fn carry_out(&self, record: &ChangeRecord) -> Result<ChangeRecord> {
        let ChangeRecord { bundle, version, .. } = record;
        match &record.change {
            Change::Distribute { edges } => self.assign(bundle, version, edges).await.map(drop)?,
            Change::Recall { edges } => self.unassign(bundle, version, edges).await.map(drop)?,
            Change::Withdraw { reason, legal } => {
                // Withdrawn is withdrawn, whoever was first.
                match self.withdraw_bundle(bundle, version, reason, *legal).await {
                    Err(error) if error.kind() == ErrorKind::Gone => {}
                    other => drop(other?),
                }
            }
        }
        self.move_change(&record.id, |record| {
            record.state = ChangeState::Done;
            Ok(())
        })
        .await
    }
}
