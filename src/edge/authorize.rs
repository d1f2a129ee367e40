//! The one step between a request and anything it may reach.

use std::net::IpAddr;
use std::sync::Arc;

use http::Response;
use http::request::Parts;
use tracing::debug;

use super::content::{self, Representation};
use super::integrity::Verifier;
use super::{Body, Problem};
use crate::access::{AccessRequest, Action, Decision, Principal, Refusal, Resource};
use crate::clock::Timestamp;
use crate::name::Tenant;
use crate::policy::PolicySet;

/// Who asks, from where, when, in whose space.
#[derive(Clone, Debug)]
pub struct Asker {
    /// The tenant.
    pub tenant: Tenant,
    /// Who.
    pub principal: Principal,
    /// From where.
    pub client: Option<IpAddr>,
    /// When.
    pub now: Timestamp,
}

/// Proof that a decision permitted something. Only [`authorize`] makes one, and no blob can be
/// opened for a client without one.
#[derive(Debug)]
pub struct Authorized {
    action: Action,
}

/// Asks `policies` whether the asker may do `action` on `resource`.
///
/// # Errors
/// The reason of the refusal. It is for the log: the client gets an answer that tells nothing.
pub fn authorize(
    policies: &PolicySet,
    asker: &Asker,
    action: Action,
    resource: Resource<'_>,
) -> Result<Authorized, Refusal> {
    let request = AccessRequest::new(&asker.tenant, &asker.principal, action, resource, asker.now)
        .with_client(asker.client);
    match policies.decide(&request) {
        Decision::Permit | Decision::Steer(_) => Ok(Authorized { action }),
        Decision::Forbid(refusal) => {
            debug!(principal = %asker.principal, action = action.as_str(), ?resource, %refusal, "refused");
            Err(refusal)
        }
    }
}

impl Authorized {
    /// Answers with the bytes of what the decision was about.
    pub async fn respond(
        &self,
        parts: &Parts,
        representation: &Representation,
        verifier: &Arc<Verifier>,
    ) -> Result<Response<Body>, Problem> {
        debug_assert_eq!(self.action, Action::Read);
        content::respond(parts, representation, verifier).await
    }
}
