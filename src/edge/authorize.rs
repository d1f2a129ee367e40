//! The one step between a request and anything it may reach.

use std::net::IpAddr;
use std::sync::Arc;

use http::Response;
use tracing::debug;

use super::content::{self, Representation, Selected};
use super::integrity::Verifier;
use super::{Body, Problem};
use crate::access::{AccessRequest, Action, Decision, Principal, Refusal, Resource};
use crate::audit::Event;
use crate::clock::Timestamp;
use crate::govern::Admission;
use crate::name::Tenant;
use crate::place::Country;
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
    /// The country that is in; `None` if it cannot be told.
    pub country: Option<Country>,
    /// The request's `Accept-Language`.
    pub languages: Option<String>,
    /// When.
    pub now: Timestamp,
    /// The number of the request, for the log.
    pub request: u64,
}

impl Asker {
    /// The access request of who asks.
    pub fn wants<'a>(&'a self, action: Action, resource: Resource<'a>) -> AccessRequest<'a> {
        AccessRequest::new(&self.tenant, &self.principal, action, resource, self.now)
            .with_client(self.client)
            .with_country(self.country)
            .with_languages(self.languages.as_deref())
    }

    /// An event of the request.
    pub fn event(&self, kind: &'static str) -> Event {
        let mut event = Event::new(self.now, kind, &self.principal).from_place(self.client, self.country);
        event.request = Some(self.request);
        event
    }
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
    match policies.decide(&asker.wants(action, resource)) {
        Decision::Permit | Decision::Steer(_) => Ok(Authorized { action }),
        Decision::Forbid(refusal) => {
            debug!(principal = %asker.principal, action = action.as_str(), ?resource, %refusal, "refused");
            Err(refusal)
        }
    }
}

/// The proof that a signed URL is good for what is read, and that nothing was revoked since.
pub(super) fn authorized_by(_: &Admission) -> Authorized {
    Authorized { action: Action::Read }
}

impl Authorized {
    /// Answers with the bytes of what the decision was about.
    pub async fn respond(
        &self,
        selected: &Selected,
        representation: &Representation,
        verifier: &Arc<Verifier>,
    ) -> Result<Response<Body>, Problem> {
        debug_assert_eq!(self.action, Action::Read);
        content::respond(selected, representation, verifier).await
    }
}
