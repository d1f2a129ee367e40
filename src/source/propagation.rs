//! Which edges have the keys that count. The trust document carries them to every edge with each
//! run of [`converge`](Source::converge), new edges included; here is how far it got.

use serde::Serialize;

use super::Source;
use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::error::{ErrorKind, Result};
use crate::name::NodeName;

/// How far the keys of today have got to one edge. The text form is that of other products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum KeyState {
    /// It has them.
    Success,
    /// The next run brings them.
    Pending,
    /// The last run failed.
    Failure,
    /// The edge has never been reached, because nothing lets this source in.
    PropagationNotRequested,
}

/// How far they have got to all edges together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum Propagation {
    /// Every edge has them.
    Success,
    /// Some have.
    PartialSuccess,
    /// None has.
    Failure,
    /// There are no edges.
    PropagationNotRequested,
    /// There are no keys that could be sent.
    NoKeyToPropagate,
}

/// One edge and the keys of today.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct KeyStatus {
    /// The edge.
    pub edge: NodeName,
    /// The version of the trust document that it has in force.
    pub held: Option<u64>,
    /// When it last said so.
    pub at: Option<Timestamp>,
    /// Whether that has the keys of today.
    pub state: KeyState,
    /// Why the last run failed.
    pub error: Option<String>,
}

impl Source {
    /// How far the keys of today have got: the version of the trust document that has them (`None`
    /// if it is not signed yet), all edges together, and each edge. Nothing is signed or sent.
    pub async fn key_status(&self) -> Result<(Option<u64>, Propagation, Vec<KeyStatus>)> {
        let last = self.trust_record().await?;
        let current = match self.compose_trust().await {
            Ok(document) => last.filter(|last| last.content == Digest::of(&document.to_payload())),
            Err(error) if error.kind() == ErrorKind::Conflict => {
                return Ok((None, Propagation::NoKeyToPropagate, Vec::new()));
            }
            Err(error) => return Err(error),
        };
        let version = current.map(|current| current.version);
        let mut edges = Vec::new();
        for edge in self.edges().await? {
            let contact = self.contact(&edge.name).await?;
            let known = self.credentials(&edge.name).await?.token.is_some();
            let state = match (version, contact.trust, &contact.error) {
                (Some(version), Some(held), _) if held >= version => KeyState::Success,
                (_, None, None) if !known => KeyState::PropagationNotRequested,
                (_, _, Some(_)) => KeyState::Failure,
                _ => KeyState::Pending,
            };
            let error = contact.error.filter(|_| state == KeyState::Failure);
            edges.push(KeyStatus {
                edge: edge.name,
                held: contact.trust,
                at: contact.contacted,
                state,
                error,
            });
        }
        let done = edges.iter().filter(|edge| edge.state == KeyState::Success).count();
        let all = match done {
            _ if edges.is_empty() => Propagation::PropagationNotRequested,
            done if done == edges.len() => Propagation::Success,
            0 => Propagation::Failure,
            _ => Propagation::PartialSuccess,
        };
        Ok((version, all, edges))
    }
}
