//! A source pairs with an edge, and what may happen on the way.

use std::sync::Arc;

use distedge::access::{Principal, UseCase};
use distedge::error::ErrorKind;
use distedge::key::{Algorithm, SigningKey};
use distedge::secret::Secret;
use distedge::source::{ConvergeOptions, ConvergeProgress, KeyState, PairOptions, Propagation};
use distedge::token::{NewPairing, PairingToken, Redeemer, Redemption};
use distedge::transport::{Call, Transport as _, Verb};
use http::Method;
use serde_json::{Value, json};

use super::{Fault, Line, Party, edge_record};
use crate::source::Bench;
use crate::support::{NOW, TOKEN, identity, name};

fn silent() -> ConvergeProgress {
    Arc::new(|_, _| ())
}

async fn pair(bench: &Bench, party: &Party, called: &str) -> distedge::source::PairingRecord {
    let token = party.issue().await;
    let line = Line::to(party);
    bench.source.pair(&edge_record(called), &token, &PairOptions::default(), &line).await.unwrap()
}

async fn converge(bench: &Bench, line: &Line) -> Option<ErrorKind> {
    let outcomes = bench.source.converge(line, &ConvergeOptions::default(), &silent()).await.unwrap();
    outcomes[0].error.as_ref().map(distedge::error::Error::kind)
}

/// S6: a release reaches an edge that was paired, its keys by themselves, all of it signed.
#[tokio::test]
async fn a_paired_edge_is_brought_its_keys_and_its_releases() {
    let (bench, party) = (Bench::with_keys().await, Party::new("e1").await);
    assert_eq!(bench.source.key_status().await.unwrap().1, Propagation::PropagationNotRequested);
    let record = pair(&bench, &party, "e1").await;
    assert_eq!(party.log(), ["pairing.created", "pairing.redeemed", "pairing.confirmed"]);
    assert_eq!(bench.source.pairing(&name("e1")).await.unwrap(), Some(record.clone()));
    let (_, all, edges) = bench.source.key_status().await.unwrap();
    assert_eq!((all, edges[0].state), (Propagation::Failure, KeyState::Pending));

    bench.add("files/app/one", b"one", &[]).await;
    bench.release("app", "1.0", "**").await;
    bench.source.assign(&name("app"), &name("1.0"), &[name("e1")]).await.unwrap();
    let line = Line::to(&party);
    assert_eq!(converge(&bench, &line).await, None);
    let status = bench.source.status().await.unwrap();
    assert_eq!((status[0].proven, status[0].drift), (1, 0));
    let (version, all, edges) = bench.source.key_status().await.unwrap();
    assert_eq!((all, edges[0].state, edges[0].held), (Propagation::Success, KeyState::Success, version));

    // A new key, and everything is pending until the next run.
    let new = distedge::source::NewKey::new("second");
    bench.source.create_key(distedge::source::Role::Release, Algorithm::Ed25519, &new).await.unwrap();
    assert_eq!(bench.source.key_status().await.unwrap().2[0].state, KeyState::Pending);
    assert_eq!(converge(&bench, &line).await, None);
    assert_eq!(bench.source.key_status().await.unwrap().1, Propagation::Success);

    // The roots were pinned at pairing: another source with a control token does not take over.
    let stranger = Bench::with_keys().await;
    stranger.source.set_edge(&edge_record("e1"), Some(&Secret::new(TOKEN))).await.unwrap();
    assert_eq!(converge(&stranger, &line).await, Some(ErrorKind::Untrusted));
}

/// Before any trust document is there, the pairing alone says whose root keys count.
#[tokio::test]
async fn the_roots_are_pinned_at_pairing() {
    let (bench, party) = (Bench::with_keys().await, Party::new("e1").await);
    pair(&bench, &party, "e1").await;
    let stranger = Bench::with_keys().await;
    stranger.source.set_edge(&edge_record("e1"), Some(&Secret::new(TOKEN))).await.unwrap();
    let line = Line::to(&party);
    assert_eq!(converge(&stranger, &line).await, Some(ErrorKind::Untrusted));
    assert_eq!(converge(&bench, &line).await, None);
}

#[tokio::test]
async fn lost_answers_are_asked_for_again() {
    for path in ["/redeem", "/confirm"] {
        let (bench, party) = (Bench::with_keys().await, Party::new("e1").await);
        let (token, line) = (party.issue().await, Line::to(&party));
        line.breaks(Fault::LosesAnswer(path));
        let options = PairOptions::default();
        let error = bench.source.pair(&edge_record("e1"), &token, &options, &line).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{path}");
        assert!(bench.source.pairing(&name("e1")).await.unwrap().is_none());
        bench.source.pair(&edge_record("e1"), &token, &options, &line).await.unwrap();
        assert_eq!(converge(&bench, &line).await, None, "{path}");
    }
}

/// F09: the answer is signed by another key.
#[tokio::test]
async fn an_answer_of_somebody_else_is_thrown_away_and_nothing_is_stored() {
    let (bench, party) = (Bench::with_keys().await, Party::new("e1").await);
    let token = party.issue().await;
    // What a machine in the middle can answer: an honest answer to its own redemption.
    let thief = SigningKey::generate(Algorithm::Ed25519, "", NOW).unwrap();
    let redeemer = Redeemer { name: name("s1"), base_url: None, roots: None };
    let own = Redemption::begin(token.clone(), &redeemer, &thief, NOW).unwrap();
    let wire = party.wire(distedge::transport::Credentials::default());
    let call = Call::new(Verb::Post, "/api/v1/pairings/redeem").with_bytes(own.request().to_json());
    let answer = wire.call(call).await.unwrap();
    let line = Line::to(&party);
    line.breaks(Fault::Answers("/redeem", answer.body.to_vec()));
    let options = PairOptions::default();
    let error = bench.source.pair(&edge_record("e1"), &token, &options, &line).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Untrusted, "{error}");
    assert!(bench.source.edge(&name("e1")).await.unwrap().is_none());
    assert!(bench.source.credentials(&name("e1")).await.unwrap().token.is_none());
    assert!(party.log().contains(&"pairing.replay".to_owned()), "both are void: {:?}", party.log());
}

/// F06: the thief was first.
#[tokio::test]
async fn an_intercepted_token_voids_both_and_is_told() {
    let (bench, party) = (Bench::with_keys().await, Party::new("e1").await);
    let (token, thief) = (party.issue().await, Bench::with_keys().await);
    let (line, options) = (Line::to(&party), PairOptions::default());
    thief.source.pair(&edge_record("e1"), &token, &options, &line).await.unwrap();
    assert_eq!(converge(&thief, &line).await, None);
    let error = bench.source.pair(&edge_record("e1"), &token, &options, &line).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(converge(&thief, &line).await, Some(ErrorKind::Unauthenticated), "the thief is out as well");
    assert!(party.log().contains(&"pairing.replay".to_owned()));
    let (_, list) = party.as_admin(Method::GET, "/api/v1/pairings", &Value::Null).await;
    assert_eq!((&list[0]["state"], &list[0]["detail"]["end"]), (&json!("over"), &json!("replayed")));
}

#[tokio::test]
async fn a_token_of_another_edge_is_not_sent_there() {
    let (bench, party) = (Bench::with_keys().await, Party::new("e1").await);
    let token = party.issue().await;
    let line = Line::to(&party);
    line.breaks(Fault::Cut);
    let options = PairOptions::default();
    let error = bench.source.pair(&edge_record("e2"), &token, &options, &line).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

#[tokio::test]
async fn rotation_and_the_end_of_a_pairing() {
    let (bench, party) = (Bench::with_keys().await, Party::new("e1").await);
    let record = pair(&bench, &party, "e1").await;
    let line = Line::to(&party);
    let edge = name("e1");
    let before = bench.source.credentials(&edge).await.unwrap();
    line.breaks(Fault::LosesAnswer("/rotate"));
    assert!(bench.source.rotate_pairing(&edge, &line).await.is_err());
    let rotated = bench.source.rotate_pairing(&edge, &line).await.unwrap();
    assert_eq!(rotated.epoch, record.epoch + 2);
    let after = bench.source.credentials(&edge).await.unwrap();
    assert_ne!(before.token.as_ref().unwrap().expose(), after.token.unwrap().expose());
    assert_eq!(converge(&bench, &line).await, None);
    let status = || Call::new(Verb::Get, "/api/v1/status");
    let old = party.wire(before);
    assert_eq!(old.call(status()).await.unwrap().status, 200, "the overlap");
    party.clock.advance(600);
    bench.clock.advance(600);
    assert_eq!(old.call(status()).await.unwrap().status, 401, "after it");

    assert!(bench.source.set_edge(&edge_record("e1"), Some(&Secret::new(TOKEN))).await.is_err());
    line.breaks(Fault::Cut);
    assert_eq!(
        bench.source.unpair(&edge, "moved", &line, false).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    *line.fault.lock().unwrap() = None;
    let kept = bench.source.credentials(&edge).await.unwrap();
    assert!(bench.source.unpair(&edge, "moved", &line, false).await.unwrap());
    assert!(bench.source.pairing(&edge).await.unwrap().is_none());
    assert_eq!(party.wire(kept).call(status()).await.unwrap().status, 401);
    assert_eq!(party.log().last().unwrap(), "auth.failed");
    assert!(party.log().contains(&"pairing.revoked".to_owned()));

    // The edge ends it: the source is out at the next request, and may pair again.
    let record = pair(&bench, &party, "e1").await;
    let path = format!("/api/v1/pairings/{}", record.id);
    assert_eq!(party.as_admin(Method::DELETE, &path, &json!({ "reason": "audit" })).await.0, 200);
    assert_eq!(converge(&bench, &line).await, Some(ErrorKind::Unauthenticated));
    pair(&bench, &party, "e1").await;
    assert_eq!(converge(&bench, &line).await, None);
}

/// The other direction: the source issues, and an edge that cannot be dialled redeems.
#[tokio::test]
async fn a_source_issues_and_an_edge_redeems() {
    let bench = Bench::with_keys().await;
    let pairings = bench.source.pairings().await.unwrap();
    let by = Principal::Token { name: "root".into() };
    let new = NewPairing::new(UseCase::SourceEdge);
    let (state, token) = bench.source.issue_pairing(&pairings, new, &by).await.unwrap();
    let token = PairingToken::parse(&token.to_text()).unwrap();
    let edge = identity("e7");
    let redeemer = Redeemer { name: name("e7"), base_url: None, roots: None };
    let request = Redemption::begin(token, &redeemer, &edge, NOW).unwrap();
    let step = bench.source.redeem_pairing(&pairings, request.request(), None).await.unwrap();
    let paired = request.finish(&step.result.unwrap(), NOW).unwrap();
    assert!(paired.roots.is_some(), "the edge pins them");
    let step = pairings.confirm(&paired.confirm(&edge, NOW).unwrap(), NOW).await.unwrap();
    assert_eq!(step.state.to_peer().unwrap().credential, state.id.to_string());
}
