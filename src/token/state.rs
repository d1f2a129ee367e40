//! The issuer's half of pairing: a state machine without I/O. Whoever keeps the states writes each
//! step's new state durably, in one compare-and-set, before the result leaves the node.
//!
//! ```text
//!          right proof, first key            confirm ≤ 60 s
//! issued ─────────────────────▶ consumed ─────────────────▶ confirmed ⟲ rotate
//!   │ │ 5 wrong proofs           ⟲ same key │ another key      │ another key, revoke
//!   │ └──▶ burned                           ├──▶ replayed ◀────┤
//!   └────▶ expired       not confirmed ◀────┘                  └──▶ revoked
//! ```

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::message::{
    Answer, Confirm, Message as _, Redeem, Rotate, Rotated, Sealed, check_fresh, other_pairing,
};
use super::pairing::{DEFAULT_TTL, MAX_TTL, PairingToken};
use super::text::{MasterToken, TokenId};
use crate::access::{Peer, Scope, UseCase};
use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{KeySet, PublicKey, Signer};
use crate::name::NodeName;
use crate::place::Network;

/// So many wrong proofs burn a token.
pub const MAX_ATTEMPTS: u32 = 5;
/// A redemption that is not confirmed within so many seconds is void.
pub const CONFIRM_WITHIN: i64 = 60;
/// For so many seconds the master token before the last one is still good.
pub const ROTATION_OVERLAP: i64 = 600;

/// Who issues pairing tokens and answers their redeemers.
#[derive(Clone, Copy, Debug)]
pub struct Issuer<'a> {
    /// What it is called.
    pub name: &'a NodeName,
    /// Its identity key.
    pub signer: &'a dyn Signer,
    /// The root keys of the tenant, if it is to tell them.
    pub roots: Option<&'a KeySet>,
}

/// What a pairing token is to be for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPairing {
    /// What the two are to be paired for.
    pub use_case: UseCase,
    /// What the peer must be called; `None` for any name.
    pub peer: Option<NodeName>,
    /// What the pairing is narrowed to; `None` for everything its use case has a right to.
    pub scopes: Option<Vec<Scope>>,
    /// From where the token may be redeemed; `None` for anywhere.
    pub network: Option<Network>,
    /// How long the token is good for, in seconds: 1 to [`MAX_TTL`].
    pub ttl: i64,
}

impl NewPairing {
    /// For `use_case`, from anywhere, for [`DEFAULT_TTL`] seconds.
    pub fn new(use_case: UseCase) -> NewPairing {
        NewPairing { use_case, peer: None, scopes: None, network: None, ttl: DEFAULT_TTL }
    }
}

/// Who redeemed a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerRecord {
    /// What it is called.
    pub name: NodeName,
    /// Its identity key.
    pub key: PublicKey,
    /// Where it is reached, if it said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// The root keys it brought, if it is the source of the tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roots: Option<KeySet>,
}

/// What is kept of a master token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MasterRecord {
    /// The SHA-256 of its text.
    pub fingerprint: Digest,
    /// Which master token of the pairing it is, from 1 on.
    pub epoch: u64,
    /// When it was made.
    pub since: Timestamp,
}

/// Why a pairing is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Ended {
    /// Nobody redeemed the token in time.
    Expired,
    /// Too many proofs were wrong.
    Burned,
    /// A second key redeemed the token: one of the two was not meant.
    Replayed,
    /// The redeemer did not confirm in time.
    Unconfirmed,
    /// Somebody revoked it.
    Revoked,
}

/// How far a pairing has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Phase {
    /// The token waits for its redeemer.
    Issued {
        /// Wrong proofs so far.
        attempts: u32,
    },
    /// A redeemer has the master token, and has not said that it is stored.
    Consumed {
        /// Who.
        peer: PeerRecord,
        /// The master token.
        master: MasterRecord,
        /// The first moment at which it is too late to confirm.
        until: Timestamp,
    },
    /// The two are paired.
    Confirmed {
        /// With whom.
        peer: PeerRecord,
        /// The master token.
        master: MasterRecord,
        /// The one before, and the first moment at which it is no longer good.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        previous: Option<(MasterRecord, Timestamp)>,
        /// Since when.
        since: Timestamp,
    },
    /// It leads to nothing any more.
    Over {
        /// Why.
        end: Ended,
        /// Since when.
        at: Timestamp,
        /// Why, in one sentence; who revoked it.
        reason: String,
        /// With whom it was, if anybody redeemed it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        peer: Option<PeerRecord>,
    },
}

/// A pairing as its issuer keeps it. It holds no secret: the public key of the seed, and hashes of
/// master tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairingState {
    /// Its id.
    pub id: TokenId,
    /// What it is for.
    pub use_case: UseCase,
    /// What the peer must be called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<NodeName>,
    /// What it is narrowed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<Scope>>,
    /// From where the token may be redeemed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// The public key of the token's seed.
    pub seed_key: PublicKey,
    /// When the token was made.
    pub created: Timestamp,
    /// By whom.
    pub by: String,
    /// The first moment at which the token is no longer good.
    pub expires: Timestamp,
    /// How far it has come.
    pub phase: Phase,
}

/// What happened, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PairingEvent {
    /// A token was redeemed, or redeemed again by the same key.
    Redeemed,
    /// A redemption was refused, for this reason.
    Failed(String),
    /// A second key redeemed the token.
    Replay,
    /// The pairing was confirmed.
    Confirmed,
    /// The token or the redemption ran out.
    Expired,
    /// The master token was replaced.
    Rotated,
    /// The pairing was revoked.
    Revoked,
}

/// What came of a message: the state to keep, what to log, and what to answer.
#[derive(Debug)]
#[must_use]
pub struct Step<T> {
    /// The state from here on.
    pub state: PairingState,
    /// What happened, first to last.
    pub events: Vec<PairingEvent>,
    /// The answer.
    pub result: Result<T>,
}

impl PairingState {
    /// A new pairing and its token.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a life outside 1 to [`MAX_TTL`] seconds or an identity key that is
    /// not Ed25519; if there is no randomness.
    pub fn issue(
        issuer: &Issuer<'_>,
        new: NewPairing,
        by: String,
        now: Timestamp,
    ) -> Result<(PairingState, PairingToken)> {
        if !(1..=MAX_TTL).contains(&new.ttl) {
            return Err(Error::invalid(format!(
                "a pairing token is good for 1 to {MAX_TTL} seconds, not for {}",
                new.ttl
            )));
        }
        let expires = now.plus(new.ttl);
        let key = issuer.signer.public_key();
        let token = PairingToken::mint(TokenId::random()?, new.use_case, issuer.name, &key, expires)?;
        let state = PairingState {
            id: token.id(),
            use_case: new.use_case,
            expected: new.peer,
            scopes: new.scopes,
            network: new.network,
            seed_key: token.proof_key()?.public_key(),
            created: now,
            by,
            expires,
            phase: Phase::Issued { attempts: 0 },
        };
        Ok((state, token))
    }

    /// The peer, if there is or was one.
    pub fn peer(&self) -> Option<&PeerRecord> {
        match &self.phase {
            Phase::Issued { .. } => None,
            Phase::Consumed { peer, .. } | Phase::Confirmed { peer, .. } => Some(peer),
            Phase::Over { peer, .. } => peer.as_ref(),
        }
    }

    /// The principal that the peer acts as, if the two are paired.
    pub fn to_peer(&self) -> Option<Peer> {
        let Phase::Confirmed { peer, .. } = &self.phase else { return None };
        Some(Peer {
            name: peer.name.clone(),
            use_case: self.use_case,
            credential: self.id.to_string(),
            scopes: self.scopes.clone(),
        })
    }

    /// The fingerprints of the master tokens that are good, each with the first moment at which it
    /// is not.
    pub fn masters(&self) -> Vec<(Digest, Timestamp)> {
        let Phase::Confirmed { master, previous, .. } = &self.phase else { return Vec::new() };
        let current = (master.fingerprint, Timestamp::MAX);
        previous.iter().map(|(master, until)| (master.fingerprint, *until)).chain([current]).collect()
    }

    /// What time alone made of it: a token or a redemption that has run out is over.
    pub fn settle(mut self, now: Timestamp) -> (PairingState, Vec<PairingEvent>) {
        let ended = match &self.phase {
            Phase::Issued { .. } if now >= self.expires => {
                Some((Ended::Expired, self.expires, "the token expired before it was redeemed"))
            }
            Phase::Consumed { until, .. } if now >= *until => {
                Some((Ended::Unconfirmed, *until, "the redeemer did not confirm in time"))
            }
            _ => None,
        };
        let Some((end, at, reason)) = ended else { return (self, Vec::new()) };
        self.end(end, at, reason.to_owned());
        (self, vec![PairingEvent::Expired])
    }

    /// Judges a redemption that came from the address `from`. `master` is a new master token of
    /// this pairing, which is handed out if the redemption is good and thrown away otherwise.
    ///
    /// Refusals: 401 (`Unauthenticated`) without a good signature of the identity key, 403
    /// (`Forbidden`) for a wrong proof, use case, scope, name or network and for a token that is
    /// over, 409 (`Conflict`) for a second redeemer.
    pub fn redeem(
        self,
        issuer: &Issuer<'_>,
        request: &Sealed,
        from: Option<IpAddr>,
        master: &MasterToken,
        now: Timestamp,
    ) -> Step<Sealed> {
        let (mut state, mut events) = self.settle(now);
        let result = state.judge(issuer, request, from, master, now, &mut events);
        let told = |event: &PairingEvent| matches!(event, PairingEvent::Replay | PairingEvent::Failed(_));
        if let Err(error) = &result
            && !events.iter().any(told)
        {
            events.push(PairingEvent::Failed(error.to_string()));
        }
        Step { state, events, result }
    }

    fn judge(
        &mut self,
        issuer: &Issuer<'_>,
        request: &Sealed,
        from: Option<IpAddr>,
        master: &MasterToken,
        now: Timestamp,
        events: &mut Vec<PairingEvent>,
    ) -> Result<Sealed> {
        let message: Redeem = request.read(Redeem::WHAT)?;
        message.check()?;
        if message.id != self.id || master.id() != self.id {
            return Err(other_pairing());
        }
        // Who says not even which key is its own has not tried anything yet.
        request.check_signature::<Redeem>(&message.redeemer_key, now)?;
        if !request.is_proven::<Redeem>(&self.seed_key, now) {
            events.push(PairingEvent::Failed(self.wrong_proof(now)));
            return Err(not_redeemable());
        }
        let epoch = match &self.phase {
            Phase::Issued { .. } => 1,
            Phase::Consumed { peer, master, .. } if peer.key == message.redeemer_key => master.epoch + 1,
            Phase::Confirmed { peer, .. } if peer.key == message.redeemer_key => {
                return Err(Error::new(ErrorKind::Conflict, "the two are paired already"));
            }
            Phase::Consumed { .. } | Phase::Confirmed { .. } => {
                let reason = format!(
                    "the pairing token was redeemed by a second key ({}): both are void",
                    message.redeemer_key.id()
                );
                self.end(Ended::Replayed, now, reason.clone());
                events.push(PairingEvent::Replay);
                return Err(Error::new(ErrorKind::Conflict, reason));
            }
            Phase::Over { end, reason, .. } => {
                let kind = if *end == Ended::Replayed { ErrorKind::Conflict } else { ErrorKind::Forbidden };
                return Err(Error::new(kind, format!("the pairing token is void: {reason}")));
            }
        };
        check_fresh(message.ts, now)?;
        self.check_terms(&message, from)?;
        let answer = Answer {
            // It is text.
            master_token: master.secret().expose_str().unwrap_or_default().to_owned(),
            peer: issuer.name.clone(),
            time: now,
            scopes: self.scopes.clone(),
            roots: issuer.roots.cloned(),
            epoch,
            hash: request.digest(),
            nonce: message.nonce,
        };
        let answer = Sealed::seal(&answer, None, issuer.signer, now)?;
        self.phase = Phase::Consumed {
            peer: PeerRecord {
                name: message.name,
                key: message.redeemer_key,
                base_url: message.base_url,
                roots: message.roots,
            },
            master: MasterRecord { fingerprint: master.fingerprint(), epoch, since: now },
            until: now.plus(CONFIRM_WITHIN),
        };
        events.push(PairingEvent::Redeemed);
        Ok(answer)
    }

    /// Counts a wrong proof; says what to log.
    fn wrong_proof(&mut self, now: Timestamp) -> String {
        let Phase::Issued { attempts } = &mut self.phase else { return "a wrong proof".into() };
        *attempts += 1;
        if *attempts < MAX_ATTEMPTS {
            return format!("wrong proof {attempts} of {MAX_ATTEMPTS}");
        }
        self.end(Ended::Burned, now, format!("{MAX_ATTEMPTS} redeemers did not prove that they have it"));
        format!("wrong proof {MAX_ATTEMPTS} of {MAX_ATTEMPTS}: the token is burned")
    }

    /// Whether the request keeps to what the token was issued for.
    fn check_terms(&self, message: &Redeem, from: Option<IpAddr>) -> Result<()> {
        let forbidden = |why: String| Err(Error::new(ErrorKind::Forbidden, why));
        if message.use_case != self.use_case {
            return forbidden(format!(
                "the pairing token is for {}, not for {}",
                self.use_case, message.use_case
            ));
        }
        if message.scopes.is_some() && message.scopes != self.scopes {
            return forbidden("the pairing token was issued for another scope".into());
        }
        if let Some(expected) = &self.expected
            && *expected != message.name
        {
            return forbidden(format!("the pairing token is for {expected}, not for {}", message.name));
        }
        match (self.network, from) {
            (Some(network), Some(from)) if !network.contains(from) => {
                forbidden("the pairing token may not be redeemed from this address".into())
            }
            (Some(_), None) => {
                forbidden("the pairing token is bound to a network, and the address is not known".into())
            }
            _ => Ok(()),
        }
    }

    /// Judges the redeemer's word that it has stored the master token.
    ///
    /// Refusals: 401 without its signature, 403 if there is nothing to confirm, 409 if it stored
    /// another master token than the last one.
    pub fn confirm(self, message: &Sealed, now: Timestamp) -> Step<()> {
        let (mut state, mut events) = self.settle(now);
        let result = state.judge_confirm(message, now);
        match result {
            Ok(true) => events.push(PairingEvent::Confirmed),
            Ok(false) => {}
            Err(ref error) => events.push(PairingEvent::Failed(error.to_string())),
        }
        Step { state, events, result: result.map(drop) }
    }

    /// Tells whether anything changed: a confirmation may come twice.
    fn judge_confirm(&mut self, sealed: &Sealed, now: Timestamp) -> Result<bool> {
        let (peer, master, fresh) = match &self.phase {
            Phase::Consumed { peer, master, .. } => (peer, *master, true),
            Phase::Confirmed { peer, master, .. } => (peer, *master, false),
            Phase::Issued { .. } => return Err(not_redeemable()),
            Phase::Over { reason, .. } => {
                return Err(Error::new(ErrorKind::Forbidden, format!("the pairing is void: {reason}")));
            }
        };
        let message: Confirm = sealed.open(&peer.key, now)?;
        check_fresh(message.ts, now)?;
        if message.id != self.id {
            return Err(other_pairing());
        }
        if message.master != master.fingerprint {
            return Err(Error::new(ErrorKind::Conflict, "another master token was issued since"));
        }
        if fresh {
            self.phase = Phase::Confirmed { peer: peer.clone(), master, previous: None, since: now };
        }
        Ok(fresh)
    }

    /// Replaces the master token by `master`; the one that the peer has stays good for
    /// [`ROTATION_OVERLAP`] seconds, so that an answer may get lost.
    ///
    /// Refusals: 401 without the peer's signature or for a master token that is not good any more,
    /// 403 if the two are not paired.
    pub fn rotate(
        self,
        issuer: &Issuer<'_>,
        request: &Sealed,
        master: &MasterToken,
        now: Timestamp,
    ) -> Step<Sealed> {
        let (mut state, mut events) = self.settle(now);
        let result = state.judge_rotate(issuer, request, master, now);
        if result.is_ok() {
            events.push(PairingEvent::Rotated);
        }
        Step { state, events, result }
    }

    fn judge_rotate(
        &mut self,
        issuer: &Issuer<'_>,
        request: &Sealed,
        new: &MasterToken,
        now: Timestamp,
    ) -> Result<Sealed> {
        let Phase::Confirmed { peer, master, previous, .. } = &mut self.phase else {
            return Err(Error::new(ErrorKind::Forbidden, "the two are not paired"));
        };
        let message: Rotate = request.open(&peer.key, now)?;
        check_fresh(message.ts, now)?;
        if message.id != self.id || new.id() != self.id {
            return Err(other_pairing());
        }
        let until = match previous {
            _ if message.master == master.fingerprint => now.plus(ROTATION_OVERLAP),
            // The answer to the last rotation got lost: what the peer has stays what it was.
            Some((before, until)) if message.master == before.fingerprint && now < *until => *until,
            _ => {
                let sentence = "the master token to be replaced is not valid here";
                return Err(Error::new(ErrorKind::Unauthenticated, sentence));
            }
        };
        let answer = Rotated {
            master_token: new.secret().expose_str().unwrap_or_default().to_owned(),
            until,
            epoch: master.epoch + 1,
            hash: request.digest(),
            nonce: message.nonce,
        };
        let sealed = Sealed::seal(&answer, None, issuer.signer, now)?;
        if message.master == master.fingerprint {
            *previous = Some((*master, until));
        }
        *master = MasterRecord { fingerprint: new.fingerprint(), epoch: answer.epoch, since: now };
        Ok(sealed)
    }

    /// Ends the pairing, or takes the token back, because `by` says so. What is over stays as it is.
    pub fn revoke(self, by: &str, reason: &str, now: Timestamp) -> Step<bool> {
        let (mut state, mut events) = self.settle(now);
        let alive = !matches!(state.phase, Phase::Over { .. });
        if alive {
            state.end(Ended::Revoked, now, format!("{reason} (by {by})"));
            events.push(PairingEvent::Revoked);
        }
        Step { state, events, result: Ok(alive) }
    }

    fn end(&mut self, end: Ended, at: Timestamp, reason: String) {
        let peer = self.peer().cloned();
        self.phase = Phase::Over { end, at, reason, peer };
    }
}

/// What is said to who has not proven to hold the token: the same for all that is not so.
#[cold]
pub(crate) fn not_redeemable() -> Error {
    Error::new(ErrorKind::Forbidden, "there is no pairing token here that this redeems")
}
