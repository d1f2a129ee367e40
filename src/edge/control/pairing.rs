//! `/api/v1/pairings`, and the paths under which clients of Artifactory know the same.

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Call};
use crate::access::{Action, Principal, Resource, Scope, UseCase};
use crate::audit::kind;
use crate::edge::problem::Problem;
use crate::edge::{Body, media};
use crate::error::{Error, ErrorKind};
use crate::govern::{Pairings, pairing_event};
use crate::name::NodeName;
use crate::place::Network;
use crate::token::{
    DEFAULT_TTL, MAX_MESSAGE, NewPairing, PairingState, PairingToken, Phase, Sealed, Step, TokenId,
};

/// Longest question of an administrator.
const QUESTION: usize = 64 << 10;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    use_case: UseCase,
    #[serde(default)]
    name: Option<NodeName>,
    #[serde(default)]
    scopes: Option<Vec<Scope>>,
    #[serde(default)]
    ttl: Option<i64>,
    #[serde(default)]
    network: Option<Network>,
}

#[derive(Deserialize)]
struct Base {
    base_url: String,
}

impl Call<'_> {
    pub(super) async fn pairings(&self, rest: &[&str], body: Body) -> Answer {
        let pairings = self.edge.pairings().ok_or_else(|| self.unknown())?;
        match rest {
            [] => {
                self.methods("GET, HEAD")?;
                self.may(Action::Administer, Resource::Edge)?;
                let states = pairings.list().await?;
                let seen: Vec<Value> = states.into_iter().map(|state| self.shown(state)).collect();
                media::json(self.admitted.head, &seen)
            }
            ["tokens"] => {
                self.methods("POST")?;
                self.may(Action::Administer, Resource::Edge)?;
                let wish: Wish = self.json(body, QUESTION).await?;
                let new = NewPairing {
                    use_case: wish.use_case,
                    peer: wish.name,
                    scopes: wish.scopes,
                    network: wish.network,
                    ttl: wish.ttl.unwrap_or(DEFAULT_TTL),
                };
                let (state, token) = self.issue(pairings, new).await?;
                let answer = json!({
                    "id": state.id,
                    "use_case": state.use_case,
                    "issuer": token.issuer(),
                    "fingerprint": token.issuer_fingerprint(),
                    "expires": state.expires,
                    "token": token.to_text().expose_str(),
                });
                let mut response = media::json(false, &answer)?;
                *response.status_mut() = StatusCode::CREATED;
                Ok(response)
            }
            ["redeem"] => self.redeem(pairings, body).await,
            ["confirm"] => {
                self.methods("POST")?;
                let message = self.sealed(body).await?;
                let step = pairings.confirm(&message, self.asker.now).await;
                let state = self.recorded(step).await?.0;
                if let Some(roots) = state.peer().and_then(|peer| peer.roots.as_ref()) {
                    self.edge.receiver().pin_roots(roots);
                }
                media::json(false, &json!({ "id": state.id, "state": "confirmed" }))
            }
            [id] => {
                self.methods("GET, HEAD, DELETE")?;
                let id: TokenId = id.parse().map_err(|_| self.unknown())?;
                if !self.is_peer(id) {
                    self.may(Action::Administer, Resource::Edge)?;
                }
                if self.admitted.method == Method::DELETE {
                    let reason = self.reason(body).await?;
                    let by = self.asker.principal.to_string();
                    let step = pairings.revoke(id, &by, &reason, self.asker.now).await;
                    let (state, _) = self.recorded(step).await?;
                    return media::json(false, &self.shown(state));
                }
                let state = pairings.pairing(id).await?.ok_or_else(|| self.unknown())?;
                media::json(self.admitted.head, &self.shown(state))
            }
            [id, "rotate"] => {
                self.methods("POST")?;
                let id: TokenId = id.parse().map_err(|_| self.unknown())?;
                if !self.is_peer(id) {
                    return Err(self.unknown());
                }
                let request = self.sealed(body).await?;
                if request.subject()? != id {
                    return Err(Problem::of(&Error::invalid("the request is about another pairing")));
                }
                let step = pairings.rotate(&request, self.asker.now).await;
                let (_, answer) = self.recorded(step).await?;
                Ok(media::document(false, "application/json", answer.to_json()))
            }
            _ => Err(self.unknown()),
        }
    }

    /// The same for clients of Artifactory: `pairing/{use case}`, `exchange`, `pairings/*`.
    ///
    /// Off-spec: `exchange` takes the signed redemption of [`Redemption`](crate::token::Redemption).
    /// A secret that crosses the wire would do away with what pairing is for.
    pub(super) async fn service_trust(&self, rest: &[&str], body: Body) -> Answer {
        let pairings = self.edge.pairings().ok_or_else(|| self.unknown())?;
        match rest {
            ["pairing", case] => {
                self.methods("POST")?;
                self.may(Action::Administer, Resource::Edge)?;
                let (_, token) = self.issue(pairings, NewPairing::new(use_case(case)?)).await?;
                media::json(false, &json!({ "pairing_token": token.to_text().expose_str() }))
            }
            ["exchange"] => self.redeem(pairings, body).await,
            ["pairings", case] => {
                self.methods("DELETE")?;
                self.may(Action::Administer, Resource::Edge)?;
                let only = if *case == "*" { None } else { Some(use_case(case)?) };
                let Base { base_url } = self.json(body, QUESTION).await?;
                let wanted = base_url.trim_end_matches('/');
                let by = self.asker.principal.to_string();
                let mut ended = 0;
                for state in pairings.list().await? {
                    let url = state.peer().and_then(|peer| peer.base_url.as_deref());
                    let meant = url.is_some_and(|url| url.trim_end_matches('/') == wanted)
                        && only.is_none_or(|only| only == state.use_case)
                        && !matches!(state.phase, Phase::Over { .. });
                    if meant {
                        let reason = "revoked by its base_url";
                        let step = pairings.revoke(state.id, &by, reason, self.asker.now).await;
                        self.recorded(step).await?;
                        ended += 1;
                    }
                }
                if ended == 0 {
                    let sentence = "No service with this base_url is paired.";
                    return Err(Problem::new(StatusCode::NOT_FOUND, ErrorKind::NotFound.as_str(), sentence));
                }
                media::json(false, &json!({ "revoked": ended }))
            }
            _ => Err(self.unknown()),
        }
    }

    async fn issue(
        &self,
        pairings: &Pairings,
        new: NewPairing,
    ) -> Result<(PairingState, PairingToken), Problem> {
        let (state, token) = pairings.issue(new, &self.asker.principal, self.asker.now).await?;
        let event = self.event(kind::PAIRING_CREATED).about(state.id.to_string());
        let reason = format!("{}; good until {}", state.use_case, state.expires);
        if let Err(problem) = self.record(event.because(reason)).await {
            // What nobody can read of has not happened.
            let reason = "its making could not be recorded";
            let _ = pairings.revoke(state.id, "system", reason, self.asker.now).await?;
            return Err(problem);
        }
        Ok((state, token))
    }

    async fn redeem(&self, pairings: &Pairings, body: Body) -> Answer {
        self.methods("POST")?;
        let request = self.sealed(body).await?;
        let trust = self.edge.receiver().trust().await?;
        let roots = trust.as_ref().map(|trust| &trust.root);
        let step = pairings.redeem(&request, self.asker.client, roots, self.asker.now).await;
        let (_, answer) = self.recorded(step).await?;
        Ok(media::document(false, "application/json", answer.to_json()))
    }

    async fn sealed(&self, body: Body) -> Result<Sealed, Problem> {
        let _share = self.incoming(MAX_MESSAGE)?;
        Ok(Sealed::parse(&body.collect(MAX_MESSAGE).await?)?)
    }

    /// Records what a step was, before it is answered.
    async fn recorded<T>(&self, step: crate::error::Result<Step<T>>) -> Result<(PairingState, T), Problem> {
        let step = match step {
            Ok(step) => step,
            Err(error) => {
                if error.kind() == ErrorKind::Forbidden || error.kind() == ErrorKind::Conflict {
                    // Anyone can ask for what is not there: most of very many are only counted.
                    self.edge.note(self.event(kind::PAIRING_FAILED).because(error.message().to_owned()));
                }
                return Err(error.into());
            }
        };
        for event in &step.events {
            if matches!(event, crate::token::PairingEvent::Replay) {
                tracing::error!(pairing = %step.state.id, "a pairing token was used by two keys: both are void");
            }
            self.record(pairing_event(&step.state, event, |kind| self.event(kind))).await?;
        }
        Ok((step.state, step.result?))
    }

    /// Whether who asks is the peer of this pairing.
    fn is_peer(&self, id: TokenId) -> bool {
        matches!(&self.asker.principal, Principal::Peer(peer) if peer.credential == id.to_string())
    }

    /// A pairing as it is shown: no hash, no key but the peer's.
    fn shown(&self, state: PairingState) -> Value {
        let (state, _) = state.settle(self.asker.now);
        let (phase, more) = match &state.phase {
            Phase::Issued { attempts } => ("issued", json!({ "wrong_proofs": attempts })),
            Phase::Consumed { until, .. } => ("consumed", json!({ "confirm_until": until })),
            Phase::Confirmed { master, previous, since, .. } => (
                "confirmed",
                json!({
                    "since": since,
                    "epoch": master.epoch,
                    "master_since": master.since,
                    "previous_until": previous.map(|(_, until)| until),
                }),
            ),
            Phase::Over { end, at, reason, .. } => {
                ("over", json!({ "end": end, "at": at, "reason": reason }))
            }
        };
        let peer = state.peer().map(|peer| {
            json!({ "name": peer.name, "key": peer.key, "key_id": peer.key.id(), "base_url": peer.base_url })
        });
        json!({
            "id": state.id,
            "use_case": state.use_case,
            "created": state.created,
            "by": state.by,
            "expires": state.expires,
            "scopes": state.scopes,
            "network": state.network,
            "expected": state.expected,
            "state": phase,
            "detail": more,
            "peer": peer,
        })
    }
}

/// A use case by our name or by one that Artifactory has for it.
fn use_case(text: &str) -> Result<UseCase, Problem> {
    match text {
        "mission-control" | "jfmc" => Ok(UseCase::Control),
        "distribution" | "jfds" => Ok(UseCase::SourceEdge),
        "pdn-server" | "pdnserver" => Ok(UseCase::Peer),
        _ => Ok(text.parse()?),
    }
}
