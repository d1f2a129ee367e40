//! What a token is worth to a request.

use std::net::IpAddr;
use std::sync::Arc;

use super::denied::{Cause, Denied};
use super::seen::Seen;
use super::token::Parts;
use super::{
    Claims, Grace, Graced, KeyName, KeyState, LinkKey, LinkKeys, LinkMethod, LinkPolicies, LinkPolicy,
    Revocations, SKEW, SeenTokens,
};
use crate::access::LinkHolder;
use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::name::{ArtifactPath, NodeName, RepositoryName, Tenant};
use crate::place::Country;

/// Everything that a verification looks at beside the token.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LinkRequest<'a> {
    /// The tenant in whose space this happens.
    pub tenant: &'a Tenant,
    /// The edge that is asked.
    pub edge: &'a NodeName,
    /// The groups it belongs to.
    pub groups: &'a [NodeName],
    /// The method, as it came: `GET`.
    pub method: &'a str,
    /// The repository.
    pub repository: &'a RepositoryName,
    /// The path in it, parsed once.
    pub path: &'a ArtifactPath,
    /// The client's address; `None` if it could not be told.
    pub client: Option<IpAddr>,
    /// The client's country; `None` if it could not be told.
    pub country: Option<Country>,
    /// Whether the request asks for a range.
    pub ranged: bool,
    /// What the name means; `None` until it was looked up.
    pub digest: Option<Digest>,
    /// The moment, not below the edge's time floor.
    pub now: Timestamp,
}

impl<'a> LinkRequest<'a> {
    /// A request from an unknown place, without a range, for what was not looked up.
    pub fn new(
        tenant: &'a Tenant,
        edge: &'a NodeName,
        method: &'a str,
        repository: &'a RepositoryName,
        path: &'a ArtifactPath,
        now: Timestamp,
    ) -> LinkRequest<'a> {
        LinkRequest {
            tenant,
            edge,
            groups: &[],
            method,
            repository,
            path,
            client: None,
            country: None,
            ranged: false,
            digest: None,
            now,
        }
    }

    /// The same request at an edge of these groups.
    #[must_use]
    pub fn with_groups(mut self, groups: &'a [NodeName]) -> LinkRequest<'a> {
        self.groups = groups;
        self
    }

    /// The same request from a place, as far as it is known.
    #[must_use]
    pub fn with_place(mut self, client: Option<IpAddr>, country: Option<Country>) -> LinkRequest<'a> {
        self.client = client.map(|address| address.to_canonical());
        self.country = country;
        self
    }

    /// The same request, asking for a range or not.
    #[must_use]
    pub fn with_range(mut self, ranged: bool) -> LinkRequest<'a> {
        self.ranged = ranged;
        self
    }

    /// The same request for these bytes.
    #[must_use]
    pub fn with_digest(mut self, digest: Digest) -> LinkRequest<'a> {
        self.digest = Some(digest);
        self
    }
}

/// A token that opens what was asked for, as far as it can be told before the look-up:
/// [`check_digest`](VerifiedLink::check_digest) is asked after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedLink {
    claims: Arc<Claims>,
    key: KeyName,
    bps: Option<u64>,
    graced: Option<Graced>,
    client: Option<IpAddr>,
}

impl VerifiedLink {
    /// What the link says.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The key that signed it.
    pub fn key(&self) -> &KeyName {
        &self.key
    }

    /// The rate of a download, in bytes a second: the lower one of the link's and its policy's.
    pub fn bps(&self) -> Option<u64> {
        self.bps
    }

    /// Whether the link's time is over and only a download that began in time goes on.
    pub fn is_graced(&self) -> bool {
        self.graced.is_some()
    }

    /// The client's address in its canonical form, as far as it is known.
    pub fn client(&self) -> Option<IpAddr> {
        self.client
    }

    /// Who holds it, for the decision and the log.
    pub fn holder(&self) -> LinkHolder {
        LinkHolder {
            id: self.claims.id.to_string(),
            key: self.key.to_string(),
            subject: self.claims.subject.clone(),
        }
    }

    /// Whether the link opens these bytes, once they are known.
    ///
    /// # Errors
    /// [`Cause::Digest`] if the link names others, [`Cause::Grace`] if its time is over and it is
    /// not these that were begun in time.
    pub fn check_digest(&self, digest: &Digest) -> Result<(), Denied> {
        if self.claims.digest.is_some_and(|named| named != *digest) {
            return Err(Denied::of(Cause::Digest, self.claims.id));
        }
        if self.graced.as_ref().is_some_and(|graced| !graced.covers(digest)) {
            return Err(Denied::of(Cause::Grace, self.claims.id));
        }
        Ok(())
    }
}

/// Verifies tokens against one state of keys, revocations and policies.
#[derive(Clone, Copy, Debug)]
pub struct Verifier<'a> {
    keys: &'a LinkKeys,
    revocations: &'a Revocations,
    policies: &'a LinkPolicies,
    seen: Option<&'a SeenTokens>,
    grace: Option<&'a Grace>,
}

impl<'a> Verifier<'a> {
    /// A verifier without a memory and without grace.
    pub fn new(keys: &'a LinkKeys, revocations: &'a Revocations, policies: &'a LinkPolicies) -> Verifier<'a> {
        Verifier { keys, revocations, policies, seen: None, grace: None }
    }

    /// The same verifier with a memory.
    #[must_use]
    pub fn with_seen(mut self, seen: &'a SeenTokens) -> Verifier<'a> {
        self.seen = Some(seen);
        self
    }

    /// The same verifier with the downloads that began in time.
    #[must_use]
    pub fn with_grace(mut self, grace: &'a Grace) -> Verifier<'a> {
        self.grace = Some(grace);
        self
    }

    /// Verifies `token` for `request`.
    ///
    /// The order is that of the refusals: form, tag, claims, revocation, time, tenant, audience,
    /// artifact, method, address, country; then the digest, if it is known.
    pub fn verify(&self, token: &str, request: &LinkRequest<'_>) -> Result<VerifiedLink, Denied> {
        let Seen { key, claims } = self.authentic(token)?;
        let id = claims.id;
        let deny = |cause| Err(Denied::of(cause, id));
        let policy = self.standing(&claims, &key)?;
        let limited = |limit: &dyn Fn(&LinkPolicy) -> bool| policy.is_none_or(limit);

        if request.now.plus(SKEW) < claims.begins() {
            return deny(Cause::NotYet);
        }
        if !limited(&|policy| policy.not_after.is_none_or(|end| request.now < end)) {
            return deny(Cause::Expired);
        }
        let graced = match request.now < claims.expires {
            true => None,
            false => match self
                .grace
                .filter(|_| request.ranged)
                .and_then(|grace| grace.running(id, request.client, request.now))
            {
                Some(graced) => Some(graced),
                None => return deny(Cause::Expired),
            },
        };

        if claims.tenant != *request.tenant {
            return deny(Cause::Tenant);
        }
        let here = claims.audience.contains(request.edge);
        // A budget is one edge's, so a group does not do for it.
        let in_group =
            claims.uses.is_none() && request.groups.iter().any(|group| claims.audience.contains(group));
        if !(claims.audience.is_empty() || here || in_group) {
            return deny(Cause::Audience);
        }
        let (repository, path) = (request.repository, request.path);
        let covers = |policy: &LinkPolicy| {
            policy.resources.is_empty() || policy.resources.iter().any(|own| own.covers(repository, path))
        };
        if !claims.covers(repository, path) || !limited(&covers) {
            return deny(Cause::Resource);
        }
        let method = |policy: &LinkPolicy| {
            policy.methods.is_empty() || LinkMethod::allowed(&policy.methods, request.method)
        };
        if !LinkMethod::allowed(&claims.methods, request.method) || !limited(&method) {
            return deny(Cause::Method);
        }

        let inside = |networks: &[crate::place::Network]| {
            networks.is_empty()
                || request.client.is_some_and(|client| networks.iter().any(|own| own.contains(client)))
        };
        if !inside(&claims.networks) || !limited(&|policy| inside(&policy.networks)) {
            return deny(Cause::Address);
        }
        let from = |countries: &[Country]| {
            countries.is_empty() || request.country.is_some_and(|country| countries.contains(&country))
        };
        if !from(&claims.countries) || !limited(&|policy| from(&policy.countries)) {
            return deny(Cause::Country);
        }

        let rates = [claims.bps, policy.and_then(|policy| policy.bps)];
        let bps = rates.into_iter().flatten().min();
        let link = VerifiedLink { claims, key, bps, graced, client: request.client };
        if let Some(digest) = &request.digest {
            link.check_digest(digest)?;
        }
        Ok(link)
    }

    /// Whether a link that was verified before may still be used: revocation alone, not time.
    ///
    /// # Errors
    /// [`Cause::RevokedKey`], [`Cause::Revoked`], [`Cause::Epoch`] or [`Cause::PolicyGone`].
    pub fn still_valid(&self, link: &VerifiedLink) -> Result<(), Denied> {
        // A key that left the ring took its links with it.
        if self.keys.key(link.key.as_str()).is_none() {
            return Err(Denied::of(Cause::UnknownKey, link.claims.id));
        }
        self.standing(&link.claims, &link.key).map(drop)
    }

    /// The claims of a token, if a key of ours made them.
    fn authentic(&self, token: &str) -> Result<Seen, Denied> {
        let memory = match self.seen {
            Some(seen) if token.len() <= super::MAX_TOKEN => Some((seen, Digest::of(token.as_bytes()))),
            _ => None,
        };
        let generation = self.keys.generation();
        if let Some(known) = memory.and_then(|(seen, digest)| seen.recall(&digest, generation)) {
            return Ok(known);
        }
        let parts = Parts::read(token)?;
        let key = self.keys.key(parts.key);
        if key.is_some_and(|key| key.algorithm() != parts.algorithm) {
            return Err(Denied::unknown(Cause::WrongAlgorithm));
        }
        // An unknown key costs what a known one costs.
        let judge = key.or_else(|| LinkKey::dummy(parts.algorithm));
        let good = judge.is_some_and(|judge| judge.verify(parts.text, &parts.tag));
        let Some(key) = key else { return Err(Denied::unknown(Cause::UnknownKey)) };
        if key.state() == KeyState::Revoked {
            return Err(Denied::unknown(Cause::RevokedKey));
        }
        if !good {
            return Err(Denied::unknown(Cause::BadTag));
        }
        let claims = match Claims::parse(&parts.payload) {
            Ok(claims) => Arc::new(claims),
            Err(error) => return Err(Denied::unknown(Cause::BadClaims).because(error)),
        };
        let known = Seen { key: key.name().clone(), claims };
        if let Some((seen, digest)) = memory {
            seen.remember(digest, generation, known.clone());
        }
        Ok(known)
    }

    /// The policy that limits the link further, unless the link was revoked.
    fn standing(&self, claims: &Claims, key: &KeyName) -> Result<Option<&'a LinkPolicy>, Denied> {
        let revoked = self.keys.key(key.as_str()).is_some_and(|key| key.state() == KeyState::Revoked);
        if revoked || self.revocations.key(key).is_some() {
            return Err(Denied::of(Cause::RevokedKey, claims.id));
        }
        if self.revocations.contains(claims.id) {
            return Err(Denied::of(Cause::Revoked, claims.id));
        }
        if claims.epoch.unwrap_or(0) < self.revocations.epoch(claims.subject.as_deref()) {
            return Err(Denied::of(Cause::Epoch, claims.id));
        }
        let Some(name) = &claims.policy else { return Ok(None) };
        match self.policies.policy(name).filter(|_| self.revocations.policy(name).is_none()) {
            Some(policy) => Ok(Some(policy)),
            None => Err(Denied::of(Cause::PolicyGone, claims.id)),
        }
    }
}
