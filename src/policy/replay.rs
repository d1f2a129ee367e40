//! A policy over the requests of the past: who would be newly denied, who newly allowed.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

use super::compiled::CompiledPolicy;
use super::describe::Described;
use crate::access::{Action, Principal, UseCase};
use crate::clock::Timestamp;
use crate::name::{ArtifactPath, Holder, RepositoryName, Tenant};
use crate::place::Country;

/// Most changes that a report lists, each for any number of requests.
pub const MAX_CHANGES: usize = 1_000;

/// A request of the past, as a log tells of it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PastRequest {
    /// When.
    pub at: Timestamp,
    /// Who, as a principal prints.
    pub who: String,
    /// The groups that the credentials named, if they can still be told.
    pub groups: Vec<String>,
    /// What a peer was paired for.
    pub use_case: Option<UseCase>,
    /// What was to be done.
    pub action: Action,
    /// The repository.
    pub repository: RepositoryName,
    /// The path in it.
    pub path: Option<ArtifactPath>,
    /// Whether the repository is public.
    pub public: bool,
    /// The bundle that held the artifact.
    pub holder: Option<Holder>,
    /// From where.
    pub client: Option<IpAddr>,
    /// From which country.
    pub country: Option<Country>,
    /// Whether it was allowed.
    pub allowed: bool,
}

impl PastRequest {
    /// A request that was allowed, from an unknown place.
    pub fn new(
        at: Timestamp,
        who: impl Into<String>,
        action: Action,
        repository: RepositoryName,
    ) -> PastRequest {
        PastRequest {
            at,
            who: who.into(),
            groups: Vec::new(),
            use_case: None,
            action,
            repository,
            path: None,
            public: false,
            holder: None,
            client: None,
            country: None,
            allowed: true,
        }
    }
}

/// What a new policy would have changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Replay {
    /// Requests that were judged.
    pub judged: u64,
    /// Requests that could not be judged, because the log does not tell enough.
    pub skipped: u64,
    /// Requests that would be denied and were not.
    pub newly_denied: u64,
    /// Requests that would be allowed and were not.
    pub newly_allowed: u64,
    /// The changes, those of most requests first.
    pub changes: Vec<Change>,
    /// Requests whose changes are not listed, because there are more than [`MAX_CHANGES`].
    pub left_out: u64,
}

/// Requests of one principal that would be decided otherwise, by one rule.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Change {
    /// Who.
    pub who: String,
    /// What was to be done.
    pub action: Action,
    /// Whether it would be allowed.
    pub allowed: bool,
    /// The rule that would deny it, or that denied it before.
    pub rule: String,
    /// Why, for the first of the requests.
    pub reason: String,
    /// How many requests.
    pub requests: u64,
    /// The first of them.
    pub first: Timestamp,
    /// The last of them.
    pub last: Timestamp,
    /// What the first was for.
    pub example: String,
}

/// Judges requests of the past by the policy `new`, one after the other as
/// [`Replaying::judge`] gets them. What it would change is told against the policy `old`, or
/// without one against what was decided then.
///
/// A log tells who asked, not all that the credentials said: groups that only credentials name
/// count as far as [`PastRequest::groups`] has them, scopes do not. With an `old` policy both are
/// judged by the same knowledge. Signed URLs are judged by restrictions alone.
pub fn replay(tenant: Tenant, old: Option<CompiledPolicy>, new: CompiledPolicy) -> Replaying {
    Replaying { tenant, old, new, report: Replay::default(), changes: BTreeMap::new() }
}

/// A replay on its way.
#[derive(Debug)]
pub struct Replaying {
    tenant: Tenant,
    old: Option<CompiledPolicy>,
    new: CompiledPolicy,
    report: Replay,
    changes: BTreeMap<(String, Action, bool, String), Change>,
}

impl Replaying {
    /// Judges one more request.
    pub fn judge(&mut self, past: PastRequest) {
        let Some(after) = judge(&self.tenant, &self.new, &past) else {
            self.report.skipped += 1;
            return;
        };
        self.report.judged += 1;
        let before = match &self.old {
            Some(old) => judge(&self.tenant, old, &past).unwrap_or(Ok(())),
            None if past.allowed => Ok(()),
            None => Err(("recorded".to_owned(), "it was refused then".to_owned())),
        };
        let (allowed, (rule, reason)) = match (before, after) {
            (Ok(()), Err(why)) => (false, why),
            (Err(why), Ok(())) => (true, why),
            _ => return,
        };
        if allowed {
            self.report.newly_allowed += 1;
        } else {
            self.report.newly_denied += 1;
        }
        let key = (past.who.clone(), past.action, allowed, rule.clone());
        let full = self.changes.len() >= MAX_CHANGES;
        match self.changes.get_mut(&key) {
            Some(change) => {
                change.requests += 1;
                change.first = change.first.min(past.at);
                change.last = change.last.max(past.at);
            }
            None if full => self.report.left_out += 1,
            None => {
                let example = past.path.map(|path| path.to_string()).unwrap_or_default();
                let change = Change {
                    who: past.who,
                    action: past.action,
                    allowed,
                    rule,
                    reason,
                    requests: 1,
                    first: past.at,
                    last: past.at,
                    example: format!("{}/{example}", past.repository),
                };
                self.changes.insert(key, change);
            }
        }
    }

    /// What came of it.
    pub fn report(self) -> Replay {
        let mut report = self.report;
        report.changes = self.changes.into_values().collect();
        report.changes.sort_by_key(|change| std::cmp::Reverse(change.requests));
        report
    }
}

/// The rule and the reason of a refusal; `None` if the request cannot be judged.
fn judge(
    tenant: &Tenant,
    policy: &CompiledPolicy,
    past: &PastRequest,
) -> Option<Result<(), (String, String)>> {
    let described = Described {
        principal: Some(past.who.clone()),
        groups: past.groups.clone(),
        use_case: past.use_case,
        action: Some(past.action),
        repository: Some(past.repository.clone()),
        path: past.path.clone(),
        public: Some(past.public),
        bundle: past.holder.as_ref().map(|holder| holder.0.clone()),
        version: past.holder.as_ref().map(|holder| holder.1.clone()),
        address: past.client,
        country: past.country,
        ..Described::default()
    };
    let question = described.question(past.at).ok()?;
    let request = question.request(tenant);
    // The log has the path that was delivered, behind all steering.
    let rights = match request.principal {
        Principal::Link(_) => Ok(()),
        _ => policy.rights(&request),
    };
    let judged = rights.and_then(|()| policy.restricted(&request));
    Some(judged.map(drop).map_err(|refusal| (refusal.rule, refusal.reason)))
}
