//! Why a request is decided as it is: every rule that was looked at, and what it said.

use std::fmt;

use serde::Serialize;

use super::compiled::{CompiledPolicy, Inner, SCOPE, elsewhere, is_public};
use super::document::{Grant, Steer};
use super::grant::peer_may;
use crate::access::{AccessRequest, Decision, Principal, Refusal, RefusalKind, Steering};
use crate::name::{ArtifactPath, BundleName, Version};

/// Most rules of an explanation that are not about the request.
const MAX_SILENT: usize = 200;

/// The chain of rules that led to a decision, in the order in which they were looked at.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Explanation {
    /// The decision.
    pub decision: Outcome,
    /// The rule that decided.
    pub rule: String,
    /// Why, in one sentence.
    pub reason: String,
    /// Where the client is sent, if it is steered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steered: Option<Steered>,
    /// The rules that were looked at.
    pub steps: Vec<Step>,
    /// How many more rules were looked at that are not about the request.
    pub left_out: usize,
}

/// A decision in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Outcome {
    /// It may be done.
    Permit,
    /// Nothing gives the right: the client is answered as if nothing was there.
    Unseen,
    /// It may not be done from there, or not then.
    Forbid,
    /// It may be done on something else.
    Steer,
}

/// Where a client is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Steered {
    /// The path in the same repository.
    pub path: ArtifactPath,
    /// The bundle that must hold it.
    pub bundle: BundleName,
    /// The version of it; `None` for the one that an alias means.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
}

/// One rule, and what it said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Step {
    /// What kind of rule.
    pub stage: Stage,
    /// Its name.
    pub rule: String,
    /// What it said.
    pub verdict: Verdict,
    /// Why, in one sentence.
    pub why: String,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} {}: {}", self.stage.as_str(), self.rule, self.verdict.as_str(), self.why)
    }
}

/// What kind of rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Stage {
    /// What the credentials are narrowed to.
    Scope,
    /// A rule that always holds.
    Builtin,
    /// A grant.
    Grant,
    /// A steering rule.
    Steer,
    /// A restriction.
    Restrict,
}

impl Stage {
    /// A stable lower-case name.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Scope => "scope",
            Stage::Builtin => "builtin",
            Stage::Grant => "grant",
            Stage::Steer => "steer",
            Stage::Restrict => "restrict",
        }
    }
}

/// What one rule said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Verdict {
    /// It gives the right, or what it asks for is met.
    Permits,
    /// It stands against it.
    Denies,
    /// It sends the client elsewhere.
    Steers,
    /// It is not about this request.
    Silent,
}

impl Verdict {
    /// A stable lower-case name.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Permits => "permits",
            Verdict::Denies => "denies",
            Verdict::Steers => "steers",
            Verdict::Silent => "silent",
        }
    }
}

impl CompiledPolicy {
    /// How [`decide`](CompiledPolicy::decide) comes to its decision on `request`. Looks at the rules
    /// one after the other, so it costs more than the decision.
    pub fn explain(&self, request: &AccessRequest<'_>) -> Explanation {
        let mut chain = Chain::default();
        let decision = chain.decide(self.inner(), request);
        let (outcome, rule, reason, steered) = match decision {
            Ok((rule, reason, None)) => (Outcome::Permit, rule, reason, None),
            Ok((_, _, Some(Steering { path, bundle, version, rule }))) => {
                let reason = format!("{rule} sends the client to {path}");
                (Outcome::Steer, rule, reason, Some(Steered { path, bundle, version }))
            }
            Err(Refusal { kind: RefusalKind::Right, rule, reason }) => (Outcome::Unseen, rule, reason, None),
            Err(Refusal { rule, reason, .. }) => (Outcome::Forbid, rule, reason, None),
        };
        Explanation { decision: outcome, rule, reason, steered, steps: chain.steps, left_out: chain.left_out }
    }

    /// What the policy says of a request by the holder of a signed URL that opens the artifact: no
    /// grant is asked for, restrictions bind it.
    pub fn explain_link(&self, request: &AccessRequest<'_>) -> Explanation {
        let why = "what a signed URL opens, it says itself";
        let step = Step {
            stage: Stage::Builtin,
            rule: "link".to_owned(),
            verdict: Verdict::Permits,
            why: why.to_owned(),
        };
        let mut explanation = Explanation {
            decision: Outcome::Permit,
            rule: "link".to_owned(),
            reason: why.to_owned(),
            steered: None,
            steps: vec![step],
            left_out: 0,
        };
        explanation.add_target(self, request);
        explanation
    }
}

impl Explanation {
    /// Whether it may be done, here or on what it steers to.
    pub fn permits(&self) -> bool {
        matches!(self.decision, Outcome::Permit | Outcome::Steer)
    }

    /// Adds what a restriction outside of the policy says: one that was signed with a bundle. A
    /// denial is the decision from then on; a permission adds a step and changes nothing.
    pub fn add_restriction(&mut self, rule: impl Into<String>, verdict: Verdict, why: impl Into<String>) {
        let (rule, why) = (rule.into(), why.into());
        if verdict == Verdict::Denies && self.permits() {
            self.decision = Outcome::Forbid;
            self.rule.clone_from(&rule);
            self.reason.clone_from(&why);
        }
        self.steps.push(Step { stage: Stage::Restrict, rule, verdict, why });
    }

    /// Adds what the restrictions of `policy` say of what the client is steered to.
    pub fn add_target(&mut self, policy: &CompiledPolicy, request: &AccessRequest<'_>) {
        let mut chain = Chain::default();
        let refusal = chain.restrict(policy.inner(), request, false).err();
        self.steps.extend(chain.steps);
        self.left_out += chain.left_out;
        if let Some(refusal) = refusal
            && self.permits()
        {
            self.decision = Outcome::Forbid;
            (self.rule, self.reason) = (refusal.rule, refusal.reason);
        }
    }

    /// Whether `decision` is what was explained.
    pub fn agrees_with(&self, decision: &Decision) -> bool {
        match decision {
            Decision::Permit => self.decision == Outcome::Permit,
            Decision::Forbid(refusal) => {
                let outcome =
                    if refusal.kind == RefusalKind::Right { Outcome::Unseen } else { Outcome::Forbid };
                self.decision == outcome && self.rule == refusal.rule
            }
            Decision::Steer(steering) => {
                self.rule == steering.rule
                    && self.steered.as_ref().is_some_and(|steered| {
                        steered.path == steering.path
                            && steered.bundle == steering.bundle
                            && steered.version == steering.version
                    })
            }
        }
    }
}

#[derive(Default)]
struct Chain {
    steps: Vec<Step>,
    silent: usize,
    left_out: usize,
}

impl Chain {
    fn note(&mut self, stage: Stage, rule: &str, verdict: Verdict, why: String) {
        if verdict == Verdict::Silent {
            if self.silent == MAX_SILENT {
                self.left_out += 1;
                return;
            }
            self.silent += 1;
        }
        self.steps.push(Step { stage, rule: rule.to_owned(), verdict, why });
    }

    /// The rule and the reason of a permission, and where it steers.
    fn decide(
        &mut self,
        policy: &Inner,
        request: &AccessRequest<'_>,
    ) -> Result<(String, String, Option<Steering>), Refusal> {
        let (rule, reason) = self.rights(policy, request)?;
        let steering = self.steer(policy, request);
        let asked = !matches!(steering, Ok(None));
        self.restrict(policy, request, asked)?;
        let steering = steering?;
        if let Some(steering) = &steering {
            self.rights(policy, &elsewhere(request, steering))?;
        }
        Ok((rule, reason, steering))
    }

    fn rights(&mut self, policy: &Inner, request: &AccessRequest<'_>) -> Result<(String, String), Refusal> {
        let AccessRequest { principal, action, resource, .. } = *request;
        let refuse = |rule: &str, reason: String| Refusal::new(RefusalKind::Right, rule, reason);
        if let Some(scopes) = principal.scopes() {
            let scope = scopes.iter().find(|scope| scope.contains(action, resource));
            match scope {
                Some(scope) => {
                    self.note(Stage::Scope, SCOPE, Verdict::Permits, format!("{scope} is in its scopes"))
                }
                None => {
                    let why = format!("none of the {} scopes of {principal} is for this", scopes.len());
                    self.note(Stage::Scope, SCOPE, Verdict::Denies, why.clone());
                    return Err(refuse(SCOPE, why));
                }
            }
        }
        let builtin = match principal {
            Principal::Token { .. } => {
                Some(("control-token", "the holder of the control token may do everything".to_owned()))
            }
            Principal::Link(_) => {
                let why = format!("{principal} opens what it says and gives no other right");
                self.note(Stage::Builtin, "link", Verdict::Denies, why.clone());
                return Err(refuse("link", why));
            }
            _ if is_public(action, resource) => {
                Some(("public", "anyone may read and list a public repository".to_owned()))
            }
            Principal::Peer(peer) if peer_may(peer.use_case, action, resource) => {
                Some(("use-case", format!("who is paired for {} may {action}", peer.use_case)))
            }
            _ => None,
        };
        if let Some((rule, why)) = builtin {
            self.note(Stage::Builtin, rule, Verdict::Permits, why.clone());
            return Ok((rule.to_owned(), why));
        }
        for grant in &policy.document.grants {
            match silence(policy, grant, request) {
                Some(why) => self.note(Stage::Grant, &grant.name, Verdict::Silent, why),
                None => {
                    let why = format!("{principal} may {action} this");
                    self.note(Stage::Grant, &grant.name, Verdict::Permits, why.clone());
                    return Ok((grant.name.clone(), why));
                }
            }
        }
        Err(refuse("no-grant", format!("nothing permits {principal} to {action}")))
    }

    fn steer(&mut self, policy: &Inner, request: &AccessRequest<'_>) -> Result<Option<Steering>, Refusal> {
        for steer in &policy.document.steers {
            let Some(rest) = steer.concerns(request) else {
                self.note(Stage::Steer, &steer.name, Verdict::Silent, not_from(steer));
                continue;
            };
            let steering = steer.apply(request, rest);
            match &steering {
                Ok(steering) => {
                    let version = steering
                        .version
                        .as_ref()
                        .map_or("an alias of it".to_owned(), |version| version.to_string());
                    let why =
                        format!("it sends the client to {} of {}, {version}", steering.path, steering.bundle);
                    self.note(Stage::Steer, &steer.name, Verdict::Steers, why);
                }
                Err(refusal) => self.note(Stage::Steer, &steer.name, Verdict::Denies, refusal.reason.clone()),
            }
            return steering.map(Some);
        }
        Ok(None)
    }

    fn restrict(&mut self, policy: &Inner, request: &AccessRequest<'_>, asked: bool) -> Result<(), Refusal> {
        let Inner { document, members, restrictions, .. } = policy;
        for (at, restriction) in document.restrictions.iter().enumerate() {
            if asked && restriction.is_about_bundles() {
                let why = "it is about bundles, and is judged where the client is sent".to_owned();
                self.note(Stage::Restrict, &restriction.name, Verdict::Silent, why);
                continue;
            }
            if !restrictions.concerns(document, members, at, request) {
                let why = "it is not about this action, thing, principal or bundle".to_owned();
                self.note(Stage::Restrict, &restriction.name, Verdict::Silent, why);
                continue;
            }
            match restrictions.breach(document, at, request) {
                None => {
                    let why = "address, country and time are as it asks".to_owned();
                    self.note(Stage::Restrict, &restriction.name, Verdict::Permits, why);
                }
                Some(breach) => {
                    let why = breach.reason(request);
                    self.note(Stage::Restrict, &restriction.name, Verdict::Denies, why.clone());
                    return Err(Refusal::new(RefusalKind::Restriction, restriction.name.clone(), why));
                }
            }
        }
        Ok(())
    }
}

/// Why a grant does not give the right; `None` if it does.
fn silence(policy: &Inner, grant: &Grant, request: &AccessRequest<'_>) -> Option<String> {
    if !grant.to.iter().any(|who| policy.members.matches(who, request.principal)) {
        return Some(format!("it is not for {}", request.principal));
    }
    if !grant.may.contains(&request.action) {
        return Some(format!("it does not say {}", request.action));
    }
    if !grant.on.iter().any(|reach| reach.contains(request.resource)) {
        return Some("it does not reach this".to_owned());
    }
    None
}

fn not_from(steer: &Steer) -> String {
    format!("it is about reading {}/{}", steer.repository, steer.from)
}
