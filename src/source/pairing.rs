//! Pairing with edges: a token is redeemed, what comes of it is kept, and every call is signed.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Source;
use super::converge::Dial;
use super::edges::EdgeRecord;
use super::keys::Role;
use super::record::{encode, key};
use crate::access::{Principal, Scope, UseCase};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::govern::Pairings;
use crate::key::{Algorithm, PublicKey, SigningKey};
use crate::meta::Batch;
use crate::name::NodeName;
use crate::token::{
    MasterToken, NewPairing, Paired, PairingState, PairingToken, Redeemer, Redemption, Revoke, Rotate,
    Sealed, Step, TokenId,
};
use crate::transport::{Answer, Call, Credentials, IdentitySigner, Transport, Verb};

const REDEEM: &str = "/api/v1/pairings/redeem";
const CONFIRM: &str = "/api/v1/pairings/confirm";
const IDENTITY: &str = "identity.key";

/// A pairing with an edge, as its redeemer keeps it. The master token is in the vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairingRecord {
    /// The edge.
    pub edge: NodeName,
    /// The pairing's id, under which the edge lists it.
    pub id: TokenId,
    /// What the two are paired for.
    pub use_case: UseCase,
    /// The edge's identity key.
    pub peer_key: PublicKey,
    /// What the pairing is narrowed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<Scope>>,
    /// Which master token of the pairing is held.
    pub epoch: u64,
    /// Since when.
    pub since: Timestamp,
    /// When the master token was last replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated: Option<Timestamp>,
}

/// How to pair.
#[derive(Clone, Debug, Default)]
pub struct PairOptions {
    /// What this source is called at the edge; by default `source-` and the beginning of its id.
    pub name: Option<NodeName>,
    /// Where this source is reached, if it can be.
    pub base_url: Option<String>,
}

impl Source {
    /// This source's identity key, which signs its calls to paired edges. It is made when it is
    /// first asked for, and stays.
    ///
    /// # Errors
    /// What the vault says.
    pub fn identity(&self) -> Result<Arc<SigningKey>> {
        let mut known = self.identity.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(known) = &*known {
            return Ok(known.clone());
        }
        let found = match self.vault.get(IDENTITY)? {
            Some(secret) => SigningKey::from_secret(&secret)?,
            None => {
                let made = SigningKey::generate(Algorithm::Ed25519, "", self.clock.now())?;
                self.vault.put(IDENTITY, &made.to_secret())?;
                made
            }
        };
        Ok(known.insert(Arc::new(found)).clone())
    }

    /// What this source is called where nobody says otherwise.
    ///
    /// # Errors
    /// None that a source can have whose id is hex.
    pub fn node_name(&self) -> Result<NodeName> {
        let plain = self.profile.id.chars().filter(char::is_ascii_hexdigit).take(8);
        let name = format!("source-{}", plain.collect::<String>().to_ascii_lowercase());
        NodeName::new(&name)
    }

    /// Redeems a pairing token that `edge` issued, keeps what comes of it, and confirms. From then on
    /// every call to the edge is made with the master token and signed; a bootstrap token that was
    /// kept for it is forgotten.
    ///
    /// The edge is added, or changed to `edge`, when the pairing stands. When an answer is lost, the
    /// same token can be used again within its life.
    ///
    /// # Errors
    /// [`ErrorKind::Untrusted`] if somebody else answers: nothing is kept then;
    /// [`ErrorKind::Invalid`] for a token of another edge; what the edge says, if it refuses.
    pub async fn pair(
        &self,
        edge: &EdgeRecord,
        token: &PairingToken,
        options: &PairOptions,
        dial: &dyn Dial,
    ) -> Result<PairingRecord> {
        edge.check()?;
        if *token.issuer() != edge.name {
            let message = format!("the pairing token is of {}, not of {}", token.issuer(), edge.name);
            return Err(Error::invalid(message));
        }
        let transport = dial.dial(edge, Credentials::default())?;
        let identity = self.identity()?;
        let ring = self.ring(Role::Root).await?;
        let roots = if ring.keys.pairs().is_empty() { None } else { Some(ring.to_key_set()?) };
        let redeemer = Redeemer {
            name: options.name.clone().map_or_else(|| self.node_name(), Ok)?,
            base_url: options.base_url.clone(),
            roots,
        };
        if let Some(kept) = self.pending(&edge.name, token.id()).await? {
            // The token was redeemed before; perhaps only the confirmation's answer is missing.
            let confirmed = self.confirm(&*transport, &kept, &identity).await;
            if confirmed.is_ok() {
                return self.establish(edge, &kept).await;
            }
        }
        let now = self.clock.now();
        let redemption = Redemption::begin(token.clone(), &redeemer, &*identity, now)?;
        let request = Call::new(Verb::Post, REDEEM).with_bytes(redemption.request().to_json());
        let answer = taken(&transport.call(request).await?)?;
        let paired = redemption.finish(&answer, self.clock.now())?;
        self.keep(edge, &paired).await?;
        let record = self.record_of(edge, &paired);
        self.confirm(&*transport, &record, &identity).await?;
        self.establish(edge, &record).await
    }

    /// The pairing with an edge, if there is one.
    pub async fn pairing(&self, edge: &NodeName) -> Result<Option<PairingRecord>> {
        self.records.load(&pairing_key(edge)).await
    }

    /// What lets this source into an edge: the master token and signatures if the two are paired, a
    /// bootstrap token if there is one, or nothing.
    pub async fn credentials(&self, edge: &NodeName) -> Result<Credentials> {
        let Some(pairing) = self.pairing(edge).await? else {
            return Ok(Credentials { token: self.edge_token(edge)?, signer: None });
        };
        let token = self.vault.get(&master_name(pairing.id))?;
        let signer = IdentitySigner::new(self.identity()?, self.clock.clone());
        Ok(Credentials { token, signer: Some(Arc::new(signer)) })
    }

    /// Asks a paired edge for another master token. The old one stays good for ten minutes there, so
    /// that nothing is lost with an answer.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the two are not paired; what the edge says.
    pub async fn rotate_pairing(&self, edge: &NodeName, dial: &dyn Dial) -> Result<PairingRecord> {
        let (record, transport, master) = self.paired(edge, dial).await?;
        let (request, message) = Rotate::begin(&master, &*self.identity()?, self.clock.now())?;
        let path = format!("/api/v1/pairings/{}/rotate", record.id);
        let answer =
            taken(&transport.call(Call::new(Verb::Post, path).with_bytes(request.to_json())).await?)?;
        let now = self.clock.now();
        let (new, rotated) = message.finish(&request, &answer, &record.peer_key, now)?;
        self.vault.put(&master_name(record.id), new.secret())?;
        let record = PairingRecord { epoch: rotated.epoch, rotated: Some(now), ..record };
        self.records.set(pairing_key(edge), Some(encode(&record)?)).await?;
        Ok(record)
    }

    /// Ends the pairing with an edge: the edge is told, and the master token is forgotten. With
    /// `force` it is forgotten even if the edge cannot be told; answers whether it was.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the two are not paired; without `force`, why the edge was not told.
    pub async fn unpair(&self, edge: &NodeName, reason: &str, dial: &dyn Dial, force: bool) -> Result<bool> {
        let (record, transport, _) = self.paired(edge, dial).await?;
        let body = serde_json::json!({ "reason": reason }).to_string();
        let path = format!("/api/v1/pairings/{}", record.id);
        let told = match transport.call(Call::new(Verb::Delete, path).with_bytes(body)).await {
            // Who is let in no more has nothing left to end.
            Ok(answer) if answer.status == 401 => Ok(()),
            Ok(answer) => accepted(&answer),
            Err(error) => Err(error),
        };
        if let Err(error) = &told
            && !force
        {
            return Err(Error::new(error.kind(), format!("the edge was not told: {error}")));
        }
        let mut batch = Batch::new();
        batch.delete(pairing_key(edge));
        self.records.commit(batch).await?;
        self.vault.remove(&master_name(record.id))?;
        Ok(told.is_ok())
    }

    /// A signed word that the pairing with `edge` ends, for whoever can carry it there.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the two are not paired.
    pub async fn revocation(&self, edge: &NodeName, reason: &str) -> Result<Sealed> {
        let record = self.pairing(edge).await?.ok_or_else(|| unpaired(edge))?;
        Revoke::seal(record.id, reason, &*self.identity()?, self.clock.now())
    }

    /// The pairings that this source issued itself, for edges that redeem. They are read anew with
    /// each call: a service keeps what this returns, because nonces are remembered in it.
    pub async fn pairings(&self) -> Result<Pairings> {
        let store = self.records.store().clone();
        Pairings::open(store, &self.profile.tenant, self.node_name()?, self.identity()?).await
    }

    /// Makes a pairing token of this source, for an edge that cannot be dialled. `by` is who asked.
    ///
    /// # Errors
    /// As [`Pairings::issue`].
    pub async fn issue_pairing(
        &self,
        pairings: &Pairings,
        new: NewPairing,
        by: &Principal,
    ) -> Result<(PairingState, PairingToken)> {
        pairings.issue(new, by, self.clock.now()).await
    }

    /// Answers an edge that redeems a token of this source; the root keys of the tenant go with it.
    ///
    /// # Errors
    /// As [`Pairings::redeem`].
    pub async fn redeem_pairing(
        &self,
        pairings: &Pairings,
        request: &Sealed,
        from: Option<IpAddr>,
    ) -> Result<Step<Sealed>> {
        let ring = self.ring(Role::Root).await?;
        let roots = if ring.keys.pairs().is_empty() { None } else { Some(ring.to_key_set()?) };
        pairings.redeem(request, from, roots.as_ref(), self.clock.now()).await
    }

    async fn paired(
        &self,
        edge: &NodeName,
        dial: &dyn Dial,
    ) -> Result<(PairingRecord, Arc<dyn Transport>, MasterToken)> {
        let record = self.pairing(edge).await?.ok_or_else(|| unpaired(edge))?;
        let known = self.edge(edge).await?.ok_or_else(|| unpaired(edge))?;
        let credentials = self.credentials(edge).await?;
        let master = credentials.token.as_ref().ok_or_else(|| {
            Error::new(ErrorKind::Corrupted, format!("the master token of {edge} is not in the vault"))
        })?;
        let master = MasterToken::parse(master)?;
        Ok((record, dial.dial(&known, credentials)?, master))
    }

    /// A redemption of this token whose confirmation was not answered.
    async fn pending(&self, edge: &NodeName, id: TokenId) -> Result<Option<PairingRecord>> {
        let kept: Option<PairingRecord> = self.records.load(&pending_key(edge)).await?;
        Ok(kept.filter(|kept| kept.id == id))
    }

    fn record_of(&self, edge: &EdgeRecord, paired: &Paired) -> PairingRecord {
        PairingRecord {
            edge: edge.name.clone(),
            id: paired.id,
            use_case: paired.use_case,
            peer_key: paired.peer_key.clone(),
            scopes: paired.scopes.clone(),
            epoch: paired.epoch,
            since: self.clock.now(),
            rotated: None,
        }
    }

    /// Keeps the master token and the record beside what is in use: durable before it is confirmed.
    async fn keep(&self, edge: &EdgeRecord, paired: &Paired) -> Result<()> {
        self.vault.put(&master_name(paired.id), paired.master.secret())?;
        let record = self.record_of(edge, paired);
        self.records.set(pending_key(&edge.name), Some(encode(&record)?)).await
    }

    async fn confirm(
        &self,
        transport: &dyn Transport,
        record: &PairingRecord,
        identity: &SigningKey,
    ) -> Result<()> {
        let missing = || Error::new(ErrorKind::Corrupted, "the master token is not in the vault");
        let master = self.vault.get(&master_name(record.id))?.ok_or_else(missing)?;
        let message = MasterToken::parse(&master)?.confirm(identity, self.clock.now())?;
        accepted(&transport.call(Call::new(Verb::Post, CONFIRM).with_bytes(message.to_json())).await?)
    }

    /// The pairing stands: it takes the place of what let this source in before.
    async fn establish(&self, edge: &EdgeRecord, record: &PairingRecord) -> Result<PairingRecord> {
        let before = self.pairing(&edge.name).await?;
        let mut batch = Batch::new();
        batch.put(super::edges::edge_key(&edge.name), encode(edge)?);
        batch.put(pairing_key(&edge.name), encode(record)?);
        batch.delete(pending_key(&edge.name));
        self.records.commit(batch).await?;
        let key = record.peer_key.clone();
        self.remember(&edge.name, &Batch::new(), |contact| contact.identity = Some(key.clone())).await?;
        if let Some(before) = before.filter(|before| before.id != record.id) {
            self.vault.remove(&master_name(before.id))?;
        }
        self.forget_edge_token(&edge.name)?;
        tracing::info!(edge = %edge.name, pairing = %record.id, "paired");
        Ok(record.clone())
    }
}

pub(super) fn pairing_key(edge: &NodeName) -> Vec<u8> {
    key("pairing", &[edge.as_str()])
}

pub(super) fn pending_key(edge: &NodeName) -> Vec<u8> {
    key("pairing-pending", &[edge.as_str()])
}

pub(super) fn master_name(id: TokenId) -> String {
    format!("pairing-{id}.token")
}

/// # Errors
/// What the edge says, if it did not do what it was asked.
pub(super) fn accepted(answer: &Answer) -> Result<()> {
    if (200..300).contains(&answer.status) {
        return Ok(());
    }
    #[derive(Deserialize)]
    struct Said {
        detail: String,
    }
    let kind = match answer.status {
        401 => ErrorKind::Unauthenticated,
        403 => ErrorKind::Forbidden,
        404 => ErrorKind::NotFound,
        409 => ErrorKind::Conflict,
        429 | 500.. => ErrorKind::Unavailable,
        _ => ErrorKind::Invalid,
    };
    let said = serde_json::from_slice::<Said>(&answer.body).map(|said| said.detail);
    let said = said.unwrap_or_else(|_| format!("it answers {}", answer.status));
    Err(Error::new(kind, format!("the edge refuses: {said}")))
}

fn taken(answer: &Answer) -> Result<Sealed> {
    accepted(answer)?;
    Sealed::parse(&answer.body)
}

#[cold]
fn unpaired(edge: &NodeName) -> Error {
    Error::new(ErrorKind::NotFound, format!("this source is not paired with {edge}"))
}
