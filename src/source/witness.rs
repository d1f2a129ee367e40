//! The source as the witness of its edges' logs: it remembers how long each log was and what its root
//! was, and cosigns only what continues that.
//!
//! A thief of an edge's key can sign another past; he cannot take back what the source has seen.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::Source;
use super::converge::Dial;
use super::edges::EdgeRecord;
use super::record::{decode, encode, key};
use crate::audit::{Checkpoint, MAX_NOTE, Report, Trusted, Witness, origin, verify};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{PublicKey, Signer as _};
use crate::merkle::Hash;
use crate::meta::{Batch, Entry};
use crate::name::NodeName;
use crate::transport::{Call, Transport, Verb};

const CHECKPOINT: &str = "/api/v1/audit/checkpoint";
const COSIGNATURE: &str = "/api/v1/audit/cosignature";
/// Seconds between two cosignatures of one log.
const INTERVAL: i64 = 10;
/// `tlog-witness`: no proof has more hashes.
const MAX_PROOF: usize = 63;

/// What the source remembers of an edge's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessRecord {
    /// The edge.
    pub edge: NodeName,
    /// What was cosigned last.
    pub witness: Witness,
    /// When.
    pub at: Timestamp,
    /// When the log was found to contradict what was cosigned before, and how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarm: Option<(Timestamp, String)>,
}

#[derive(Deserialize)]
struct Proof {
    hashes: Vec<String>,
}

impl Source {
    /// What this source is called as a witness.
    pub fn witness_name(&self) -> Result<String> {
        self.node_name().map(|name| name.to_string())
    }

    /// What is remembered of the logs of all edges.
    pub async fn witnessed(&self) -> Result<Vec<WitnessRecord>> {
        self.records.all(&super::record::prefix("witness", &[])).await
    }

    /// Cosigns the log of an edge, if it continues what was seen of it; tells the edge.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if the log has become shorter or another one: the alarm is kept, and
    /// nothing is cosigned any more until [`forget_log`](Source::forget_log).
    /// [`ErrorKind::NotFound`] for an edge that was never reached, whose key is not known.
    pub async fn witness(&self, edge: &NodeName, dial: &dyn Dial) -> Result<WitnessRecord> {
        let record = self.edge(edge).await?;
        let record =
            record.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no edge {edge}")))?;
        let transport = dial.dial(&record, self.credentials(edge).await?)?;
        self.witness_over(&record, &*transport).await
    }

    /// As [`witness`](Source::witness), over a way that is there already.
    pub(super) async fn witness_over(
        &self,
        edge: &EdgeRecord,
        transport: &dyn Transport,
    ) -> Result<WitnessRecord> {
        let id = key("witness", &[edge.name.as_str()]);
        let pinned = self.contact(&edge.name).await?.identity.ok_or_else(|| unknown_key(&edge.name))?;
        let entry = self.meta().get(&id).await?;
        let kept: Option<WitnessRecord> = entry.as_ref().map(decode).transpose()?;
        let name = origin(&edge.name, &self.profile().tenant);
        let witness = match &kept {
            Some(kept) if kept.witness.key == pinned => kept.witness.clone(),
            Some(_) => return Err(other_key(&edge.name)),
            None => Witness::new(name, pinned),
        };
        if let Some((at, why)) = kept.as_ref().and_then(|kept| kept.alarm.as_ref()) {
            return Err(Error::new(ErrorKind::Conflict, format!("since {at}: {why}")));
        }
        let note = answered(transport, Call::new(Verb::Get, CHECKPOINT)).await?;
        let now = self.clock.now();
        let observed = match self.observe(&witness, &note, transport, now).await {
            Ok(observed) => observed,
            Err(error) if error.kind() == ErrorKind::Conflict => {
                let at = kept.as_ref().map_or(now, |kept| kept.at);
                let alarm = Some((now, error.message().to_owned()));
                let record = WitnessRecord { edge: edge.name.clone(), witness, at, alarm };
                self.keep_witness(&id, entry.as_ref(), &record).await?;
                tracing::error!(edge = %edge.name, %error, "the audit log of an edge was rewritten");
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        let record = WitnessRecord { edge: edge.name.clone(), witness: observed.0, at: now, alarm: None };
        // `tlog-witness`: "The witness MUST persist the new checkpoint before responding."
        self.keep_witness(&id, entry.as_ref(), &record).await?;
        let call = Call::new(Verb::Post, COSIGNATURE).with_bytes(observed.1.to_note());
        answered(transport, call).await?;
        Ok(record)
    }

    async fn observe(
        &self,
        witness: &Witness,
        note: &[u8],
        transport: &dyn Transport,
        now: Timestamp,
    ) -> Result<(Witness, Checkpoint)> {
        let fresh = Checkpoint::parse(note)?;
        let mut proof: Vec<Hash> = Vec::new();
        if witness.size > 0 && fresh.size > witness.size {
            let path = format!("/api/v1/audit/proof/consistency/{}/{}", witness.size, fresh.size);
            let answer = answered(transport, Call::new(Verb::Get, path)).await?;
            let answer: Proof = serde_json::from_slice(&answer)
                .map_err(|_| Error::new(ErrorKind::Unsupported, "the edge's proof cannot be read"))?;
            let hash = |text: &String| Hash::try_from(STANDARD.decode(text).ok()?).ok();
            let hashes: Option<Vec<Hash>> = answer.hashes.iter().take(MAX_PROOF + 1).map(hash).collect();
            proof = hashes
                .filter(|hashes| hashes.len() <= MAX_PROOF)
                .ok_or_else(|| Error::new(ErrorKind::Unsupported, "the edge's proof cannot be read"))?;
        }
        let identity = self.identity()?;
        let observed = witness.observe(note, &proof, &self.witness_name()?, &*identity, now)?;
        Ok((observed.witness, observed.checkpoint))
    }

    /// Keeps what was seen, unless another run saw something meanwhile.
    async fn keep_witness(&self, id: &[u8], before: Option<&Entry>, record: &WitnessRecord) -> Result<()> {
        let mut batch = Batch::new();
        batch.expect_unchanged(id.to_vec(), before).put(id.to_vec(), encode(record)?);
        if self.records.commit(batch).await? {
            return Ok(());
        }
        let message = format!("the log of {} is being witnessed by another run", record.edge);
        Err(Error::new(ErrorKind::Unavailable, message))
    }

    /// Cosigns the logs of these edges, each at most every ten seconds; what goes wrong is told in the
    /// records and the log of this programme.
    pub(super) async fn witness_all(&self, edges: &[NodeName], dial: &dyn Dial) {
        let known = self.witnessed().await.unwrap_or_default();
        let now = self.clock.now();
        for edge in edges {
            let recent = known.iter().any(|kept| kept.edge == *edge && kept.at.plus(INTERVAL) > now);
            if recent {
                continue;
            }
            match self.witness(edge, dial).await {
                Ok(record) => tracing::debug!(%edge, size = record.witness.size, "the log was cosigned"),
                // An edge may keep its log elsewhere.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => tracing::warn!(%edge, %error, "the log was not cosigned"),
            }
        }
    }

    /// Forgets what was seen of an edge's log, because the edge was set up anew on purpose.
    pub async fn forget_log(&self, edge: &NodeName) -> Result<()> {
        let mut batch = Batch::new();
        batch.delete(key("witness", &[edge.as_str()]));
        self.records.commit(batch).await.map(drop)
    }

    /// Verifies a log of an edge, or an export of it, against the edge's key and what this source
    /// has seen of it.
    pub async fn verify_log(&self, edge: &NodeName, path: &Path) -> Result<Report> {
        let id = key("witness", &[edge.as_str()]);
        let kept: Option<WitnessRecord> = self.records.load(&id).await?;
        let key: PublicKey = match &kept {
            Some(kept) => kept.witness.key.clone(),
            None => self.contact(edge).await?.identity.ok_or_else(|| unknown_key(edge))?,
        };
        let mut trusted = Trusted::key(key);
        if let Some(kept) = kept.filter(|kept| !kept.witness.note.is_empty()) {
            trusted = trusted
                .with_witness(self.witness_name()?, self.identity()?.public_key())
                .with_witnessed(kept.witness.note);
        }
        verify(path, &trusted, self.clock.now())
    }
}

/// The body of an answer that is no refusal.
async fn answered(transport: &dyn Transport, call: Call) -> Result<Vec<u8>> {
    let path = call.path.clone();
    let answer = transport.call(call).await?;
    if (200..300).contains(&answer.status) && answer.body.len() <= MAX_NOTE {
        return Ok(answer.body.to_vec());
    }
    let kind = match answer.status {
        401 | 403 => ErrorKind::Forbidden,
        404 => ErrorKind::NotFound,
        409 => ErrorKind::Invalid,
        _ => ErrorKind::Unavailable,
    };
    Err(Error::new(kind, format!("the edge answers {} to {path}", answer.status)))
}

#[cold]
fn unknown_key(edge: &NodeName) -> Error {
    Error::new(ErrorKind::NotFound, format!("the identity key of {edge} is not known yet: reach it first"))
}

#[cold]
fn other_key(edge: &NodeName) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!(
            "the log of {edge} was signed with another key; if the edge was set up anew on purpose, have the source forget its log"
        ),
    )
}
