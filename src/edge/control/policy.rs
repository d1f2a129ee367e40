//! `/api/v1/policy` and `/api/v1/explain`: the policy in force, those before it, why a request is
//! decided as it is, and what another policy would have decided.

use std::collections::HashMap;

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Call, past};
use crate::access::{Action, Principal, Resource};
use crate::audit::kind;
use crate::blocking;
use crate::catalog::Resolved;
use crate::clock::Timestamp;
use crate::edge::problem::Problem;
use crate::edge::{Body, media};
use crate::error::{Error, ErrorKind, Result};
use crate::govern::Policies;
use crate::name::{ArtifactPath, Holder, RepositoryName};
use crate::policy::{
    CompiledPolicy, Described, Document, Explanation, MAX_DOCUMENT, Question, Verdict, replay,
};

/// Longest described request, and longest wish for a rollback.
const QUESTION: usize = 64 << 10;
/// How often a change without an expectation is tried again when another one came between.
const ATTEMPTS: usize = 8;
/// Longest reason that an event takes.
const REASON: usize = 500;

/// What a rollback goes back to.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rollback {
    version: u64,
    /// The version that must be in force.
    #[serde(default)]
    expected: Option<u64>,
}

/// A policy, and the time over which it is to be tried.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Replayed {
    policy: Value,
    from: Timestamp,
    /// This moment by default.
    #[serde(default)]
    until: Option<Timestamp>,
}

impl Call<'_> {
    pub(super) async fn policy(&self, rest: &[&str], body: Body) -> Answer {
        let policies = self.edge.policies_in_force().ok_or_else(|| self.unknown())?;
        match rest {
            [] => {
                self.methods("GET, HEAD, PUT")?;
                self.may(Action::Administer, Resource::Edge)?;
                if self.admitted.method == http::Method::PUT {
                    return self.put_policy(policies, body).await;
                }
                let in_force = policies.current();
                let document = in_force.policy.document().to_value();
                media::json(self.admitted.head, &json!({ "version": in_force.version, "policy": document }))
            }
            ["check"] => {
                self.methods("POST")?;
                self.may(Action::Administer, Resource::Edge)?;
                let answer = match self.document(body).await? {
                    Ok(document) => json!({
                        "good": true,
                        "grants": document.grants.len(),
                        "restrictions": document.restrictions.len(),
                        "steers": document.steers.len(),
                    }),
                    Err(error) => json!({ "good": false, "why": error.message() }),
                };
                media::json(false, &answer)
            }
            ["versions"] => {
                self.methods("GET, HEAD")?;
                self.may(Action::Administer, Resource::Edge)?;
                media::json(self.admitted.head, &policies.versions().await?)
            }
            ["versions", number] => {
                self.methods("GET, HEAD")?;
                self.may(Action::Administer, Resource::Edge)?;
                let version = number.parse().map_err(|_| self.unknown())?;
                let document = policies.document(version).await?.ok_or_else(|| self.unknown())?;
                let document = document.to_value();
                media::json(self.admitted.head, &json!({ "version": version, "policy": document }))
            }
            ["rollback"] => {
                self.methods("POST")?;
                self.may(Action::Administer, Resource::Edge)?;
                let Rollback { version, expected } = self.json(body, QUESTION).await?;
                let document = policies.document(version).await?.ok_or_else(|| self.unknown())?;
                self.enforce(policies, document, expected, Some(version)).await
            }
            ["replay"] => {
                self.methods("POST")?;
                self.may(Action::Administer, Resource::Edge)?;
                self.replay(policies, body).await
            }
            _ => Err(self.unknown()),
        }
    }

    async fn put_policy(&self, policies: &Policies, body: Body) -> Answer {
        let expected = self.expected()?;
        match self.document(body).await? {
            Ok(document) => self.enforce(policies, document, expected, None).await,
            Err(error) => {
                let reason: String = error.message().chars().take(REASON).collect();
                self.edge.note(self.event(kind::POLICY_REJECTED).because(reason));
                Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "policy-refused", error.message()))
            }
        }
    }

    /// Puts a document in force, having recorded that before: what the log does not tell of does
    /// not happen.
    async fn enforce(
        &self,
        policies: &Policies,
        document: Document,
        expected: Option<u64>,
        again: Option<u64>,
    ) -> Answer {
        let by = self.asker.principal.to_string();
        for attempt in 1..=ATTEMPTS {
            let base = expected.unwrap_or_else(|| policies.current().version);
            if base != policies.current().version {
                return Err(outdated(policies.current().version));
            }
            let event = self.event(kind::POLICY_CHANGED).about(format!("policy version {}", base + 1));
            let why = match (again, &document.description) {
                (Some(version), _) => format!("back to version {version}"),
                (None, Some(description)) => description.chars().take(REASON).collect(),
                (None, None) => String::from("no description"),
            };
            self.record(event.because(why)).await?;
            let put = match again {
                Some(version) => policies.rollback(version, Some(base), &by, self.asker.now).await,
                None => policies.put(document.clone(), Some(base), &by, self.asker.now).await,
            };
            match put {
                Ok(version) => return media::json(false, &json!({ "version": version })),
                Err(error) => {
                    let event =
                        self.event(kind::POLICY_REJECTED).about(format!("policy version {}", base + 1));
                    self.edge.note(event.because(error.message().to_owned()));
                    if error.kind() != ErrorKind::Conflict || expected.is_some() || attempt == ATTEMPTS {
                        return Err(error.into());
                    }
                }
            }
        }
        Err(outdated(policies.current().version))
    }

    /// A policy document that the client sends.
    async fn document(&self, body: Body) -> Result<Result<Document>, Problem> {
        let _share = self.incoming(MAX_DOCUMENT)?;
        let bytes = body.collect(MAX_DOCUMENT).await?;
        blocking::run(move || Ok(Document::from_json(&bytes))).await.map_err(Problem::from)
    }

    /// `expected=N` of the query: the version that must be in force.
    fn expected(&self) -> Result<Option<u64>, Problem> {
        let query = self.parts.uri.query().unwrap_or_default();
        match query.split_once('=') {
            None if query.is_empty() => Ok(None),
            Some(("expected", number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => {
                number.parse().map(Some).map_err(|_| bad_query())
            }
            _ => Err(bad_query()),
        }
    }

    /// Why a described request would be decided as it would be now.
    pub(super) async fn explain(&self, body: Body) -> Answer {
        let policies = self.edge.policies_in_force().ok_or_else(|| self.unknown())?;
        self.methods("POST")?;
        self.may(Action::Administer, Resource::Edge)?;
        let mut described: Described = self.json(body, QUESTION).await?;
        self.complete(&mut described).await?;
        let mut question = described.question(self.asker.now)?;
        let mut alias = None;
        if question.lacks_holders() {
            let (holders, target) = self.found(&question).await?;
            question = question.with_holders(holders);
            alias = target;
        }
        let in_force = policies.current();
        let (policy, tenant) = (&in_force.policy, &self.asker.tenant);
        let request = question.request(tenant);
        let mut explanation = match request.principal {
            Principal::Link(_) => policy.explain_link(&request),
            _ => policy.explain(&request),
        };
        // As a download goes: to what it is steered to, and to what an alias means.
        let mut target = question.clone();
        if let Some(steered) = &explanation.steered {
            target = target.at_path(steered.path.clone());
            let (holders, meant) = self.found(&target).await?;
            target = target.with_holders(holders);
            alias = meant;
            explanation.add_target(policy, &target.request(tenant));
        }
        if let Some(path) = alias {
            target = target.at_path(path);
            explanation.add_target(policy, &target.request(tenant));
        }
        self.constraints(&target, &mut explanation).await?;
        media::json(
            false,
            &json!({ "version": in_force.version, "request": question.described(), "explanation": explanation }),
        )
    }

    /// Adds to a description what the edge can tell itself.
    async fn complete(&self, described: &mut Described) -> Result<()> {
        if described.country.is_none()
            && let Some(address) = described.address
        {
            described.country = self.edge.governance().geo.resolve(address).country;
        }
        if described.public.is_none()
            && let Some(name) = &described.repository
        {
            let record = self.edge.receiver().catalog().repository(name).await?;
            described.public = Some(record.is_some_and(|record| record.public));
        }
        Ok(())
    }

    /// The bundles that hold the artifact a question is about, and its path if an alias was named.
    async fn found(&self, question: &Question) -> Result<(Vec<Holder>, Option<ArtifactPath>)> {
        let described = question.described();
        let (Some(repository), Some(path)) = (&described.repository, &described.path) else {
            return Ok((Vec::new(), None));
        };
        let found = self.edge.receiver().catalog().resolve(repository, path).await?;
        Ok(match found {
            Some(Resolved::Artifact(artifact)) => (artifact.holders.clone(), None),
            Some(Resolved::Alias(alias, artifact)) => (artifact.holders.clone(), Some(alias.target.clone())),
            Some(Resolved::Gone(_)) | None => (Vec::new(), None),
        })
    }

    /// Adds what was signed with the bundles that hold the artifact.
    async fn constraints(&self, question: &Question, explanation: &mut Explanation) -> Result<()> {
        let request = question.request(&self.asker.tenant);
        for Holder(name, version) in question.holders() {
            let Some(record) = self.edge.receiver().catalog().bundle(name, version).await? else { continue };
            if record.constraints.is_empty() {
                continue;
            }
            let address = record.constraints.permits_address(request.client);
            let country = record.constraints.permits_country(request.country);
            let rule = format!("bundle {name}/{version} constraints");
            match (address, country) {
                (true, true) => {
                    explanation.add_restriction(
                        rule,
                        Verdict::Permits,
                        "the constraints signed with it allow it",
                    );
                }
                (false, _) => explanation.add_restriction(
                    rule,
                    Verdict::Denies,
                    "the networks that were signed with it do not allow it",
                ),
                (true, false) => explanation.add_restriction(
                    rule,
                    Verdict::Denies,
                    "the countries that were signed with it do not allow it",
                ),
            }
        }
        Ok(())
    }

    /// A policy over the downloads of the past.
    async fn replay(&self, policies: &Policies, body: Body) -> Answer {
        let Some(ledger) = self.edge.governance().ledger.clone() else {
            let why = "the log of this edge cannot be read back";
            return Err(Error::new(ErrorKind::Unsupported, why).into());
        };
        let Replayed { policy, from, until } = self.json(body, MAX_DOCUMENT).await?;
        let new = match Document::from_value(&policy) {
            Ok(document) => CompiledPolicy::new(document),
            Err(error) => {
                return Err(Problem::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "policy-refused",
                    error.message(),
                ));
            }
        };
        let catalog = self.edge.receiver().catalog();
        let repositories = catalog.repositories().await?;
        let public: HashMap<RepositoryName, bool> =
            repositories.into_iter().map(|(name, record)| (name, record.public)).collect();
        let old = policies.current().policy.clone();
        let tenant = self.asker.tenant.clone();
        let until = until.unwrap_or(self.asker.now);
        let report = blocking::run(move || {
            let mut replay = replay(tenant, Some(old), new);
            past::downloads(&ledger, from, until, &public, |past| replay.judge(past))?;
            Ok(replay.report())
        });
        media::json(false, &report.await?)
    }
}

#[cold]
fn outdated(current: u64) -> Problem {
    let why = format!("version {current} of the policy is in force, and not the one that was expected");
    Problem::of(&Error::new(ErrorKind::Conflict, why))
}

#[cold]
fn bad_query() -> Problem {
    Problem::of(&Error::invalid("the query may be expected=N, the version that must be in force"))
}
