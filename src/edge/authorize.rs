//! The one step between a request and anything it may reach.

use std::net::IpAddr;

use tracing::debug;

use crate::access::{AccessRequest, Action, Decision, Principal, Resource};
use crate::blob::{Blob, BlobStore};
use crate::catalog::ArtifactRecord;
use crate::clock::Timestamp;
use crate::error::Result;
use crate::name::Tenant;
use crate::policy::PolicySet;
use crate::range::ByteRange;

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
) -> Result<Authorized, String> {
    let request = AccessRequest::new(&asker.tenant, &asker.principal, action, resource, asker.now)
        .with_client(asker.client);
    match policies.decide(&request) {
        Decision::Permit => Ok(Authorized { action }),
        Decision::Forbid(reason) => {
            debug!(principal = %asker.principal, action = action.as_str(), ?resource, reason, "refused");
            Err(reason)
        }
    }
}

impl Authorized {
    /// Opens the blob of an artifact, or a range of it.
    pub async fn open(
        &self,
        blobs: &dyn BlobStore,
        artifact: &ArtifactRecord,
        range: Option<ByteRange>,
    ) -> Result<Option<Blob>> {
        debug_assert_eq!(self.action, Action::Read);
        blobs.open(&artifact.digest, range).await
    }
}
