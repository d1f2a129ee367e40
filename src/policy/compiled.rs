//! A policy as it decides.

use std::sync::Arc;

use super::document::Document;
use super::duty::Duties;
use super::grant::{Grants, Members, peer_may};
use super::restrict::Restrictions;
use super::steer::Steers;
use super::{Effect, Policy};
use crate::access::{AccessRequest, Action, Decision, Principal, Refusal, RefusalKind, Resource, Steering};

/// A [`Document`] and the indexes with which it decides. Cheap to clone.
///
/// A request is decided in three steps, because a client must not learn from the kind of a refusal
/// what there is:
///
/// 1. [`rights`](CompiledPolicy::rights), before anything is looked up: a refusal reads as if
///    nothing was there;
/// 2. [`steered`](CompiledPolicy::steered): the path to look up instead, to which there must be a
///    right too;
/// 3. [`restricted`](CompiledPolicy::restricted), with the bundles that hold what was found.
///
/// They are also the three questions of the port [`Policy`].
/// [`explain`](CompiledPolicy::explain) tells rule by rule how they come out.
#[derive(Clone, Debug, Default)]
pub struct CompiledPolicy {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) document: Document,
    pub(super) members: Members,
    pub(super) grants: Grants,
    pub(super) restrictions: Restrictions,
    pub(super) steers: Steers,
}

impl CompiledPolicy {
    /// The policy that `document` describes.
    pub fn new(document: Document) -> CompiledPolicy {
        let members = Members::new(&document);
        let grants = Grants::new(&document, &members);
        let restrictions = Restrictions::new(&document);
        let steers = Steers::new(&document);
        CompiledPolicy { inner: Arc::new(Inner { document, members, grants, restrictions, steers }) }
    }

    /// What the policy was made from.
    pub fn document(&self) -> &Document {
        &self.inner.document
    }

    /// What one person must not do alone.
    pub fn duties(&self) -> Duties {
        self.inner.document.duties
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.inner
    }

    /// Whether somebody has the right to do this. Looks at the principal, the action and the
    /// resource.
    ///
    /// - The scopes of credentials narrow everything that follows.
    /// - The holder of the control token may do everything.
    /// - A signed URL gives no rights: what it opens, it says itself.
    /// - Anyone else may read and list public repositories, do what their use case needs (paired
    ///   services), and do what a grant says.
    ///
    /// # Errors
    /// A refusal of the kind [`Right`](RefusalKind::Right) by one of the rules `scope`, `link` and
    /// `no-grant`.
    pub fn rights(&self, request: &AccessRequest<'_>) -> Result<(), Refusal> {
        let AccessRequest { principal, action, resource, .. } = *request;
        if let Some(scopes) = principal.scopes()
            && !scopes.iter().any(|scope| scope.contains(action, resource))
        {
            return Err(out_of_scope(request));
        }
        let granted = match principal {
            Principal::Token { .. } => true,
            Principal::Link(_) => return Err(link(request)),
            _ if is_public(action, resource) => true,
            Principal::Peer(peer) if peer_may(peer.use_case, action, resource) => true,
            _ => self.inner.grants.permit(&self.inner.members, principal, action, resource),
        };
        if granted { Ok(()) } else { Err(ungranted(request)) }
    }

    /// Where a client that asks to read a path is sent instead; `None` if the path stands.
    ///
    /// The first rule whose `from` the path meets decides. Of its choices those count that name no
    /// country or the client's. Among those before the first one without languages the client's
    /// `Accept-Language` decides (RFC 4647 look-up); if none suits, that first one without
    /// languages is taken, and if there is none, what `otherwise` says.
    ///
    /// Restrictions of both paths hold: those of the path that was asked for are judged here, apart
    /// from those about bundles; [`restricted`](CompiledPolicy::restricted) judges what was found.
    ///
    /// # Errors
    /// A refusal of the kind [`Restriction`](RefusalKind::Restriction) by the rule's or a
    /// restriction's name.
    pub fn steered(&self, request: &AccessRequest<'_>) -> Result<Option<Steering>, Refusal> {
        let Inner { document, members, restrictions, steers, .. } = &*self.inner;
        let steering = steers.steer(document, request);
        if !matches!(steering, Ok(None)) {
            restrictions.permit(document, members, request, true)?;
        }
        steering
    }

    /// Whether it may be done from where the client is, now. Looks also at the client's address and
    /// country, at the time, and at the bundles that hold the artifact. `Ok(true)` if restrictions
    /// are about the request, and are met: the answer is not for others.
    ///
    /// # Errors
    /// A refusal of the kind [`Restriction`](RefusalKind::Restriction) by the name of the first
    /// restriction that is not met.
    pub fn restricted(&self, request: &AccessRequest<'_>) -> Result<bool, Refusal> {
        let Inner { document, members, restrictions, .. } = &*self.inner;
        restrictions.permit(document, members, request, false)
    }

    /// All steps. Where the answer is a steering, what it leads to still has to pass
    /// [`restricted`](CompiledPolicy::restricted) with the bundles that hold it.
    pub fn decide(&self, request: &AccessRequest<'_>) -> Decision {
        let steps = || {
            self.rights(request)?;
            let steering = self.steered(request)?;
            match &steering {
                Some(steering) => self.rights(&elsewhere(request, steering))?,
                None => self.restricted(request).map(drop)?,
            }
            Ok(steering)
        };
        match steps() {
            Ok(None) => Decision::Permit,
            Ok(Some(steering)) => Decision::Steer(steering),
            Err(refusal) => Decision::Forbid(refusal),
        }
    }
}

/// Silent where no grant is found, so that other policies may give the right; what credentials are
/// narrowed to, no other policy widens.
impl Policy for CompiledPolicy {
    fn evaluate(&self, request: &AccessRequest<'_>) -> Effect {
        match self.rights(request) {
            Ok(()) => Effect::Permit,
            Err(refusal) if refusal.rule == SCOPE => Effect::Forbid(refusal),
            Err(_) => Effect::Abstain,
        }
    }

    fn steer(&self, request: &AccessRequest<'_>) -> Effect {
        match self.steered(request) {
            Ok(Some(steering)) => Effect::Steer(steering),
            Ok(None) => Effect::Abstain,
            Err(refusal) => Effect::Forbid(refusal),
        }
    }

    fn restrict(&self, request: &AccessRequest<'_>) -> Effect {
        match self.restricted(request) {
            Ok(true) => Effect::Permit,
            Ok(false) => Effect::Abstain,
            Err(refusal) => Effect::Forbid(refusal),
        }
    }
}

/// The same request for what it is steered to.
pub(super) fn elsewhere<'a>(request: &AccessRequest<'a>, steering: &'a Steering) -> AccessRequest<'a> {
    let mut request = request.clone();
    if let Resource::Repository { path, .. } = &mut request.resource {
        *path = Some(&steering.path);
    }
    request
}

/// The rule that credentials narrow what may be done.
pub(super) const SCOPE: &str = "scope";

/// Whether everybody may do it because the repository is public.
pub(super) fn is_public(action: Action, resource: Resource<'_>) -> bool {
    matches!(action, Action::Read | Action::List)
        && matches!(resource, Resource::Repository { public: true, .. })
}

#[cold]
fn out_of_scope(request: &AccessRequest<'_>) -> Refusal {
    let reason = format!("the credentials of {} are not good for this", request.principal);
    Refusal::new(RefusalKind::Right, SCOPE, reason)
}

#[cold]
fn link(request: &AccessRequest<'_>) -> Refusal {
    let reason = format!("{} opens what it says and gives no other right", request.principal);
    Refusal::new(RefusalKind::Right, "link", reason)
}

#[cold]
fn ungranted(request: &AccessRequest<'_>) -> Refusal {
    let reason = format!("nothing permits {} to {}", request.principal, request.action);
    Refusal::new(RefusalKind::Right, "no-grant", reason)
}
