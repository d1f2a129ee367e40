//! Pairings: the states of [`token`](crate::token), kept durably and answered from memory.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use crate::access::Principal;
use crate::audit::{Event, kind};
use crate::auth::PeerDirectory;
use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::govern::Records;
use crate::key::{KeySet, PublicKey, Signer};
use crate::meta::MetadataStore;
use crate::name::{NodeName, Tenant};
use crate::secret::Secret;
use crate::token::{
    ControlRequest, Issuer, MasterToken, NewPairing, NonceCache, PairingEvent, PairingState, PairingToken,
    PeerRecord, Phase, Sealed, SignedRequest, Step, TokenId, not_redeemable, open_revoke,
};

/// The pairings that this node issued, of one tenant.
///
/// Every step is one compare-and-set on the record, so that two nodes over one store agree on one
/// winner; what opens this node is in memory, and is taken out before a record says that it is over.
#[derive(Debug)]
pub struct Pairings {
    records: Records,
    name: NodeName,
    signer: Arc<dyn Signer>,
    /// The master tokens that open something, by fingerprint.
    live: RwLock<HashMap<Digest, Live>>,
    nonces: NonceCache,
    /// Changes are made one at a time, so that memory follows the records in their order.
    turn: futures_util::lock::Mutex<()>,
}

#[derive(Clone, Debug)]
struct Live {
    id: TokenId,
    principal: Principal,
    key: PublicKey,
    until: Timestamp,
}

impl Pairings {
    /// Reads the pairings of a tenant. `name` and `signer` are this node's name and identity key.
    ///
    /// # Errors
    /// What the store says; [`ErrorKind::Corrupted`] for a record that cannot be read.
    pub async fn open(
        store: Arc<dyn MetadataStore>,
        tenant: &Tenant,
        name: NodeName,
        signer: Arc<dyn Signer>,
    ) -> Result<Pairings> {
        let pairings = Pairings {
            records: Records::new(store, tenant, "pairing"),
            name,
            signer,
            live: RwLock::default(),
            nonces: NonceCache::default(),
            turn: futures_util::lock::Mutex::new(()),
        };
        pairings.refresh().await?;
        Ok(pairings)
    }

    /// Reads the records again, for a store that other nodes write to as well.
    pub async fn refresh(&self) -> Result<()> {
        let _turn = self.turn.lock().await;
        let states: Vec<(String, PairingState)> = self.records.all().await?;
        let fresh = states.iter().flat_map(|(_, state)| live(state)).collect();
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// Makes a pairing token, which is shown once. `by` is who asked.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a life outside 1 to 3,600 seconds; what the store says.
    pub async fn issue(
        &self,
        new: NewPairing,
        by: &Principal,
        now: Timestamp,
    ) -> Result<(PairingState, PairingToken)> {
        let (state, token) = PairingState::issue(&self.issuer(None), new, by.to_string(), now)?;
        self.records.write(&state.id.to_string(), &state).await?;
        Ok((state, token))
    }

    /// Judges a redemption that came from `from`; `roots` are the root keys of the tenant, if this
    /// node is to tell them. The [`Step`] says what to log and what to answer.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`] if there is no such pairing; what the store says. What the pairing
    /// itself refuses is the step's result.
    pub async fn redeem(
        &self,
        request: &Sealed,
        from: Option<IpAddr>,
        roots: Option<&KeySet>,
        now: Timestamp,
    ) -> Result<Step<Sealed>> {
        let id = request.subject()?;
        let master = MasterToken::mint(id)?;
        let issuer = self.issuer(roots);
        self.step(id, |state| state.redeem(&issuer, request, from, &master, now)).await
    }

    /// Judges a redeemer's confirmation. A pairing of the same name and use case that was there
    /// before ends with it, if it was with the same key; with another key the confirmation is
    /// refused, and that pairing must be revoked first.
    ///
    /// # Errors
    /// As [`redeem`](Pairings::redeem); [`ErrorKind::Conflict`] for a name that is taken.
    pub async fn confirm(&self, message: &Sealed, now: Timestamp) -> Result<Step<()>> {
        let id = message.subject()?;
        let mut replaced = Vec::new();
        if let Some(state) = self.pairing(id).await?
            && let Some(peer) = state.peer()
        {
            for other in self.list().await? {
                let Phase::Confirmed { peer: old, .. } = &other.phase else { continue };
                if other.id == id || old.name != peer.name || other.use_case != state.use_case {
                    continue;
                }
                if old.key != peer.key {
                    return Err(name_taken(peer, &other));
                }
                replaced.push(other.id);
            }
        }
        let step = self.step(id, |state| state.confirm(message, now)).await?;
        if step.result.is_ok() {
            for old in replaced {
                let reason = format!("replaced by the pairing {id}");
                let _ = self.step(old, |state| state.revoke("system", &reason, now)).await?;
            }
        }
        Ok(step)
    }

    /// Judges a peer's request for another master token.
    ///
    /// # Errors
    /// As [`redeem`](Pairings::redeem).
    pub async fn rotate(&self, request: &Sealed, now: Timestamp) -> Result<Step<Sealed>> {
        let id = request.subject()?;
        let master = MasterToken::mint(id)?;
        let issuer = self.issuer(None);
        self.step(id, |state| state.rotate(&issuer, request, &master, now)).await
    }

    /// Ends a pairing, or takes its token back. The result tells whether there was anything to end.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such pairing; what the store says. Then the peer opens
    /// nothing on this node until [`refresh`](Pairings::refresh): try again.
    pub async fn revoke(&self, id: TokenId, by: &str, reason: &str, now: Timestamp) -> Result<Step<bool>> {
        if self.pairing(id).await?.is_none() {
            return Err(Error::new(ErrorKind::NotFound, format!("there is no pairing {id}")));
        }
        self.step(id, |state| state.revoke(by, reason, now)).await
    }

    /// Ends a pairing because its peer says so.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`] if there is no such pairing, [`ErrorKind::Unauthenticated`] if its peer
    /// did not sign that.
    pub async fn revoke_by_peer(&self, message: &Sealed, now: Timestamp) -> Result<Step<bool>> {
        let id = message.subject()?;
        let state = self.pairing(id).await?.ok_or_else(not_redeemable)?;
        let peer = state.peer().ok_or_else(not_redeemable)?;
        let said = open_revoke(message, id, &peer.key, now)?;
        let by = format!("peer:{}", peer.name);
        self.step(id, |state| state.revoke(&by, &said.reason, now)).await
    }

    /// Every pairing there is or was, by id, as it was last written down.
    pub async fn list(&self) -> Result<Vec<PairingState>> {
        let states: Vec<(String, PairingState)> = self.records.all().await?;
        Ok(states.into_iter().map(|(_, state)| state).collect())
    }

    /// One pairing.
    pub async fn pairing(&self, id: TokenId) -> Result<Option<PairingState>> {
        Ok(self.records.read::<PairingState>(&id.to_string()).await?.map(|(state, _)| state))
    }

    /// Ends what has run out; says what to log. For upkeep, now and then.
    pub async fn settle(&self, now: Timestamp) -> Result<Vec<(PairingState, Vec<PairingEvent>)>> {
        let mut ended = Vec::new();
        for state in self.list().await? {
            if state.clone().settle(now).1.is_empty() {
                continue;
            }
            let step = self
                .step(state.id, |state| {
                    let (state, events) = state.settle(now);
                    Step { state, events, result: Ok(()) }
                })
                .await?;
            ended.push((step.state, step.events));
        }
        Ok(ended)
    }

    /// Whether the pairing of this id, as [`Principal::credential`] tells it, is still good: for
    /// transfers that run, now and then.
    pub fn holds(&self, credential: &str, now: Timestamp) -> bool {
        let Ok(id) = credential.parse::<TokenId>() else { return false };
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        live.values().any(|known| known.id == id && now < known.until)
    }

    /// Which peer sends `request` with the master token `token`; `signature` is the value of
    /// [`SIGNATURE_HEADER`](crate::token::SIGNATURE_HEADER).
    ///
    /// # Errors
    /// [`ErrorKind::Unauthenticated`] if the token is not good, or the request is not signed by the
    /// peer's identity key, not of these minutes, or here for a second time.
    pub fn authenticate_control(
        &self,
        token: &MasterToken,
        request: ControlRequest<'_>,
        signature: Option<&str>,
        now: Timestamp,
    ) -> Result<Principal> {
        let known = {
            let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
            live.get(&token.fingerprint()).cloned()
        };
        let known = known.filter(|known| now < known.until).ok_or_else(crate::token::not_valid)?;
        let signature = signature.ok_or_else(unsigned)?;
        SignedRequest::parse(signature)?.verify(request, known.id, &known.key, &self.nonces, now)?;
        Ok(known.principal)
    }

    fn issuer<'a>(&'a self, roots: Option<&'a KeySet>) -> Issuer<'a> {
        Issuer { name: &self.name, signer: &*self.signer, roots }
    }

    /// Takes a pairing one step on, durably and at once.
    async fn step<T>(&self, id: TokenId, take: impl Fn(PairingState) -> Step<T>) -> Result<Step<T>> {
        let _turn = self.turn.lock().await;
        let step = self
            .records
            .change(&id.to_string(), |old: Option<PairingState>| {
                let old = old.ok_or_else(not_redeemable)?;
                let before = old.masters();
                let step = take(old.clone());
                let after = step.state.masters();
                // Before it is written: whoever asked may go away while it is.
                let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
                for (gone, _) in before.iter().filter(|one| !after.iter().any(|other| other.0 == one.0)) {
                    live.remove(gone);
                }
                let changed = (step.state != old).then(|| step.state.clone());
                Ok((changed, step))
            })
            .await?;
        if step.state.masters().is_empty() {
            self.nonces.forget(id);
        }
        let mut known = self.live.write().unwrap_or_else(PoisonError::into_inner);
        known.extend(live(&step.state));
        drop(known);
        Ok(step)
    }
}

/// What opens something by this state.
fn live(state: &PairingState) -> Vec<(Digest, Live)> {
    let (Some(peer), Some(record)) = (state.to_peer(), state.peer()) else { return Vec::new() };
    let principal = Principal::Peer(Arc::new(peer));
    let masters = state.masters().into_iter();
    let entry = |until| Live { id: state.id, principal: principal.clone(), key: record.key.clone(), until };
    masters.map(|(fingerprint, until)| (fingerprint, entry(until))).collect()
}

impl PeerDirectory for Pairings {
    fn find(
        &self,
        token: &Secret,
        request: ControlRequest<'_>,
        signature: Option<&str>,
        now: Timestamp,
    ) -> Result<Option<Principal>> {
        if !MasterToken::is_meant(token) {
            return Ok(None);
        }
        let token = MasterToken::parse(token).map_err(|_| crate::token::not_valid())?;
        self.authenticate_control(&token, request, signature, now).map(Some)
    }
}

/// The line of the log for something that happened to a pairing. `begin` makes a line of a kind, by
/// who made it happen.
pub fn pairing_event(
    state: &PairingState,
    event: &PairingEvent,
    begin: impl FnOnce(&'static str) -> Event,
) -> Event {
    let text = match event {
        PairingEvent::Redeemed => kind::PAIRING_REDEEMED,
        PairingEvent::Failed(_) => kind::PAIRING_FAILED,
        PairingEvent::Replay => kind::PAIRING_REPLAY,
        PairingEvent::Confirmed => kind::PAIRING_CONFIRMED,
        PairingEvent::Expired => kind::PAIRING_EXPIRED,
        PairingEvent::Rotated => kind::PAIRING_ROTATED,
        PairingEvent::Revoked => kind::PAIRING_REVOKED,
    };
    let peer = state.peer().map(|peer| format!("{} with the key {}", peer.name, peer.key.id()));
    let why = match (event, &state.phase) {
        (PairingEvent::Failed(why), _) => Some(why.clone()),
        (_, Phase::Over { reason, .. }) => Some(reason.clone()),
        _ => None,
    };
    let reason: Vec<String> = [Some(state.use_case.to_string()), peer, why].into_iter().flatten().collect();
    begin(text).about(state.id.to_string()).because(reason.join("; "))
}

#[cold]
fn unsigned() -> Error {
    Error::new(ErrorKind::Unauthenticated, "a master token opens nothing unless the request is signed")
}

#[cold]
fn name_taken(peer: &PeerRecord, other: &PairingState) -> Error {
    let message = format!(
        "{} is paired for {} with another key (pairing {}): revoke that pairing first",
        peer.name, other.use_case, other.id
    );
    Error::new(ErrorKind::Conflict, message)
}

#[cfg(test)]
#[path = "pairings_tests.rs"]
mod tests;
