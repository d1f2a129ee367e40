//! The redeemer's half: asks, checks the answer against the token, confirms.

use super::message::{Answer, Confirm, Nonce, Redeem, Rotate, Rotated, Sealed};
use super::pairing::PairingToken;
use super::text::{MasterToken, TokenId};
use crate::access::{Scope, UseCase};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{KeySet, PublicKey, Signer};
use crate::name::NodeName;
use crate::secret::Secret;

/// Who redeems.
#[derive(Clone, Debug)]
pub struct Redeemer {
    /// What it is called.
    pub name: NodeName,
    /// Where it is reached, if it can be.
    pub base_url: Option<String>,
    /// The root keys of the tenant, if it is its source.
    pub roots: Option<KeySet>,
}

/// A request that is under way.
#[derive(Debug)]
pub struct Redemption {
    token: PairingToken,
    request: Sealed,
    nonce: Nonce,
}

/// What came of a redemption, for the redeemer to store before it confirms.
#[derive(Clone, Debug)]
pub struct Paired {
    /// The pairing.
    pub id: TokenId,
    /// What the two are paired for.
    pub use_case: UseCase,
    /// What the issuer is called.
    pub peer: NodeName,
    /// The issuer's identity key.
    pub peer_key: PublicKey,
    /// What to present to it.
    pub master: MasterToken,
    /// Which master token of the pairing it is.
    pub epoch: u64,
    /// The scope of the pairing.
    pub scopes: Option<Vec<Scope>>,
    /// The root keys of the tenant, if the issuer named them.
    pub roots: Option<KeySet>,
    /// The issuer's clock when it answered.
    pub time: Timestamp,
}

impl Redemption {
    /// Asks to be paired, with two signatures: by the token's seed and by the redeemer's identity
    /// key `signer`. The same token may be redeemed again with the same key until the pairing is
    /// confirmed, for when an answer was lost.
    ///
    /// Whether the token is still good is the issuer's to say: the two clocks may differ.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for an address or a key that no issuer would take; what the signer says.
    pub fn begin(
        token: PairingToken,
        redeemer: &Redeemer,
        signer: &dyn Signer,
        now: Timestamp,
    ) -> Result<Redemption> {
        let message = Redeem {
            id: token.id(),
            use_case: token.use_case(),
            scopes: None,
            redeemer_key: signer.public_key(),
            name: redeemer.name.clone(),
            base_url: redeemer.base_url.clone(),
            roots: redeemer.roots.clone(),
            nonce: Nonce::random()?,
            ts: now,
        };
        message.check()?;
        Redemption::of(token, &message, signer, now)
    }

    pub(super) fn of(
        token: PairingToken,
        message: &Redeem,
        signer: &dyn Signer,
        now: Timestamp,
    ) -> Result<Redemption> {
        let request = Sealed::seal(message, Some(&token.proof_key()?), signer, now)?;
        Ok(Redemption { token, request, nonce: message.nonce })
    }

    /// What to send to the issuer.
    pub fn request(&self) -> &Sealed {
        &self.request
    }

    /// Reads the issuer's answer.
    ///
    /// # Errors
    /// [`ErrorKind::Untrusted`] if the identity key that the token names did not sign it, or if it
    /// answers another request: nothing of it is to be kept.
    pub fn finish(&self, answer: &Sealed, now: Timestamp) -> Result<Paired> {
        let key = self.token.issuer_key();
        let answer: Answer = answer.open(key, now).map_err(|_| {
            Error::new(
                ErrorKind::Untrusted,
                format!(
                    "the answer is not signed by {}, whose key the pairing token names: nothing was stored, \
                     and somebody may stand between the two",
                    self.token.issuer()
                ),
            )
        })?;
        if answer.hash != self.request.digest() || answer.nonce != self.nonce {
            return Err(Error::new(
                ErrorKind::Untrusted,
                "the answer is to another request: nothing was stored",
            ));
        }
        if answer.peer != *self.token.issuer() {
            return Err(Error::new(ErrorKind::Untrusted, "the answer is in another node's name"));
        }
        let master = MasterToken::parse(&Secret::new(answer.master_token))?;
        if master.id() != self.token.id() {
            return Err(Error::new(
                ErrorKind::Untrusted,
                "the answer has the master token of another pairing",
            ));
        }
        if let Some(roots) = &answer.roots {
            roots.check()?;
        }
        Ok(Paired {
            id: self.token.id(),
            use_case: self.token.use_case(),
            peer: answer.peer,
            peer_key: key.clone(),
            master,
            epoch: answer.epoch,
            scopes: answer.scopes,
            roots: answer.roots,
            time: answer.time,
        })
    }
}

impl Paired {
    /// Tells the issuer that all this is stored.
    ///
    /// # Errors
    /// What the signer says.
    pub fn confirm(&self, signer: &dyn Signer, now: Timestamp) -> Result<Sealed> {
        self.master.confirm(signer, now)
    }
}

impl MasterToken {
    /// Tells the issuer that this token is stored.
    ///
    /// # Errors
    /// What the signer says.
    pub fn confirm(&self, signer: &dyn Signer, now: Timestamp) -> Result<Sealed> {
        let message = Confirm { id: self.id(), master: self.fingerprint(), nonce: Nonce::random()?, ts: now };
        Sealed::seal(&message, None, signer, now)
    }
}

impl Rotate {
    /// Asks for another master token instead of `master`; what is returned first goes to the
    /// issuer, the second to [`finish`](Rotate::finish).
    ///
    /// # Errors
    /// What the signer says.
    pub fn begin(master: &MasterToken, signer: &dyn Signer, now: Timestamp) -> Result<(Sealed, Rotate)> {
        let message =
            Rotate { id: master.id(), master: master.fingerprint(), nonce: Nonce::random()?, ts: now };
        Ok((Sealed::seal(&message, None, signer, now)?, message))
    }

    /// Reads the issuer's answer.
    ///
    /// # Errors
    /// [`ErrorKind::Untrusted`] if `key`, the issuer's identity key, did not sign it or it answers
    /// something else.
    pub fn finish(
        &self,
        request: &Sealed,
        answer: &Sealed,
        key: &PublicKey,
        now: Timestamp,
    ) -> Result<(MasterToken, Rotated)> {
        let untrusted = |why| Error::new(ErrorKind::Untrusted, why);
        let answer: Rotated = answer.open(key, now).map_err(|_| {
            untrusted("the new master token does not come from the paired node: it was not stored")
        })?;
        let master = MasterToken::parse(&Secret::new(answer.master_token.as_str()))?;
        if answer.hash != request.digest() || answer.nonce != self.nonce || master.id() != self.id {
            return Err(untrusted("the answer is to another request: nothing was stored"));
        }
        Ok((master, answer))
    }
}
