//! What may be done: the [`Policy`] port, and the policies that operators write.
//!
//! A [`Document`] says who may do what (grants), from where and when (restrictions), which version
//! a client gets under one address (steering) and what one person must not do alone (duties). It
//! is read as a whole or refused as a whole. [`CompiledPolicy`] decides by it,
//! [`explains`](CompiledPolicy::explain) its decisions, and [`replay`] tells what another document
//! would have changed.

mod compiled;
mod describe;
mod document;
mod duty;
mod explain;
mod grant;
mod index;
mod language;
mod read;
mod replay;
mod restrict;
mod sets;
mod steer;
mod words;

use std::fmt;
use std::sync::Arc;

use crate::access::{AccessRequest, Action, Decision, Principal, Refusal, RefusalKind, Resource, Steering};

pub use compiled::CompiledPolicy;
pub use describe::{Described, Question};
pub use document::{
    Choice, Chosen, Document, Grant, MAX_DOCUMENT, MAX_RULES, Otherwise, Restriction, Sides, Steer,
};
pub use duty::{Duties, History};
pub use explain::{Explanation, Outcome, Stage, Steered, Step, Verdict};
pub use replay::{Change, MAX_CHANGES, PastRequest, Replay, Replaying, replay};
pub use steer::Template;
pub use words::{Hours, Language, Net, Selector};

/// What one policy says of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// It may be done, unless another policy forbids it.
    Permit,
    /// It may not be done, whatever others say.
    Forbid(Refusal),
    /// It may be done on something else.
    Steer(Steering),
    /// Nothing to say.
    Abstain,
}

/// Judges requests. Pure and infallible: what it needs, it has.
///
/// # Contract
/// - **Same request, same effect**: an evaluation depends on the request and on nothing else.
/// - **Doubt is not a permit**: what it cannot tell, it abstains from or forbids.
pub trait Policy: fmt::Debug + Send + Sync + 'static {
    /// Whether the principal has a right to what it asks for. This is asked before anything is
    /// looked up, so that who has no right cannot learn what there is.
    fn evaluate(&self, request: &AccessRequest<'_>) -> Effect;

    /// Whether this client is to have something else instead: [`Effect::Steer`], or
    /// [`Effect::Forbid`] where nothing is meant for it. Asked of who has the right.
    fn steer(&self, request: &AccessRequest<'_>) -> Effect {
        let _ = request;
        Effect::Abstain
    }

    /// Whether something stands against handing this artifact to this client here and now. Asked
    /// after the look-up, with the bundles that brought the artifact. [`Effect::Permit`] means that
    /// a restriction applied and allowed it, so the answer is not for others.
    fn restrict(&self, request: &AccessRequest<'_>) -> Effect {
        let _ = request;
        Effect::Abstain
    }
}

impl<P: Policy + ?Sized> Policy for Arc<P> {
    fn evaluate(&self, request: &AccessRequest<'_>) -> Effect {
        (**self).evaluate(request)
    }

    fn steer(&self, request: &AccessRequest<'_>) -> Effect {
        (**self).steer(request)
    }

    fn restrict(&self, request: &AccessRequest<'_>) -> Effect {
        (**self).restrict(request)
    }
}

impl<P: Policy + ?Sized> Policy for Box<P> {
    fn evaluate(&self, request: &AccessRequest<'_>) -> Effect {
        (**self).evaluate(request)
    }

    fn steer(&self, request: &AccessRequest<'_>) -> Effect {
        (**self).steer(request)
    }

    fn restrict(&self, request: &AccessRequest<'_>) -> Effect {
        (**self).restrict(request)
    }
}

/// Several policies that judge together: forbid overrides permit; nobody permits: deny. The first
/// that steers decides where a permitted request goes.
#[derive(Clone, Debug, Default)]
pub struct PolicySet(Vec<Arc<dyn Policy>>);

impl PolicySet {
    /// These policies, in any order.
    pub fn new(policies: Vec<Arc<dyn Policy>>) -> PolicySet {
        PolicySet(policies)
    }

    /// The decision on `request`.
    pub fn decide(&self, request: &AccessRequest<'_>) -> Decision {
        let (mut permitted, mut steered) = (false, None);
        for policy in &self.0 {
            match policy.evaluate(request) {
                Effect::Forbid(refusal) => return Decision::Forbid(refusal),
                Effect::Permit => permitted = true,
                Effect::Steer(steering) => steered = steered.or(Some(steering)),
                Effect::Abstain => {}
            }
        }
        match (permitted, steered) {
            (true, Some(steering)) => Decision::Steer(steering),
            (true, None) => Decision::Permit,
            (false, _) => Decision::Forbid(ungranted(request)),
        }
    }

    /// What the client is to have instead of what it named, if something; the first policy that has
    /// a say decides.
    ///
    /// # Errors
    /// The refusal, where nothing is meant for this client.
    pub fn steer(&self, request: &AccessRequest<'_>) -> Result<Option<Steering>, Refusal> {
        for policy in &self.0 {
            match policy.steer(request) {
                Effect::Steer(steering) => return Ok(Some(steering)),
                Effect::Forbid(refusal) => return Err(refusal),
                Effect::Permit | Effect::Abstain => {}
            }
        }
        Ok(None)
    }

    /// Whether a restriction applied to the request, all of them allowing it.
    ///
    /// # Errors
    /// The refusal of the first policy that forbids.
    pub fn restrict(&self, request: &AccessRequest<'_>) -> Result<bool, Refusal> {
        let mut applied = false;
        for policy in &self.0 {
            match policy.restrict(request) {
                Effect::Forbid(refusal) => return Err(refusal),
                Effect::Permit => applied = true,
                Effect::Steer(_) | Effect::Abstain => {}
            }
        }
        Ok(applied)
    }

    /// The same policies and one more.
    #[must_use]
    pub fn with(mut self, policy: Arc<dyn Policy>) -> PolicySet {
        self.0.push(policy);
        self
    }
}

#[cold]
fn ungranted(request: &AccessRequest<'_>) -> Refusal {
    let reason = format!("nothing permits {} to {}", request.principal, request.action.as_str());
    Refusal::new(RefusalKind::Right, "no-grant", reason)
}

/// Anyone may read and list public repositories.
#[derive(Clone, Copy, Debug, Default)]
pub struct PublicRead;

impl Policy for PublicRead {
    fn evaluate(&self, request: &AccessRequest<'_>) -> Effect {
        match (request.action, request.resource) {
            (Action::Read | Action::List, Resource::Repository { public: true, .. }) => Effect::Permit,
            _ => Effect::Abstain,
        }
    }
}

/// Whoever holds a token may do everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenHolders;

impl Policy for TokenHolders {
    fn evaluate(&self, request: &AccessRequest<'_>) -> Effect {
        match request.principal {
            Principal::Token { .. } => Effect::Permit,
            _ => Effect::Abstain,
        }
    }
}

#[cfg(test)]
mod tests;
