use super::*;
use crate::access::UseCase;
use crate::key::{Algorithm, SigningKey};
use crate::meta::MemoryStore;
use crate::token::{ControlSigner, Ended, Redeemer, Redemption, Rotate, SignedBody};

const NOW: Timestamp = Timestamp::from_unix(1_795_323_600);
const REQUEST: ControlRequest<'_> = ControlRequest { method: "GET", target: "/api/v1/status" };

fn key() -> Arc<SigningKey> {
    Arc::new(SigningKey::generate(Algorithm::Ed25519, "", NOW).unwrap())
}

fn root() -> Principal {
    Principal::Token { name: "root".into() }
}

async fn pairings(store: &MemoryStore, signer: &Arc<SigningKey>) -> Arc<Pairings> {
    let tenant = "default".parse().unwrap();
    let opened = Pairings::open(Arc::new(store.clone()), &tenant, "e1".parse().unwrap(), signer.clone());
    Arc::new(opened.await.unwrap())
}

fn begin(token: &PairingToken, signer: &SigningKey) -> Redemption {
    let redeemer = Redeemer { name: "s1".parse().unwrap(), base_url: None, roots: None };
    Redemption::begin(token.clone(), &redeemer, signer, NOW).unwrap()
}

async fn pair(pairings: &Pairings, source: &SigningKey) -> MasterToken {
    let (_, token) = pairings.issue(NewPairing::new(UseCase::SourceEdge), &root(), NOW).await.unwrap();
    let request = begin(&token, source);
    let answer = pairings.redeem(request.request(), None, None, NOW).await.unwrap().result.unwrap();
    let paired = request.finish(&answer, NOW).unwrap();
    let confirmed = pairings.confirm(&paired.confirm(source, NOW).unwrap(), NOW).await.unwrap();
    confirmed.result.unwrap();
    paired.master
}

fn ask(
    pairings: &Pairings,
    master: &MasterToken,
    source: &Arc<SigningKey>,
    now: Timestamp,
) -> Result<Principal> {
    let signer = ControlSigner::new(source.clone());
    let value = signer.sign(REQUEST, SignedBody::of(b""), now).unwrap();
    pairings.authenticate_control(master, REQUEST, Some(&value), now)
}

/// P11: a thousand times, several keys at once over two nodes; at most one of them gets an answer,
/// and none is left with a trust.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_keys_at_once_one_wins_and_the_replay_voids_it() {
    let (store, edge) = (MemoryStore::new(), key());
    let nodes = [pairings(&store, &edge).await, pairings(&store, &edge).await];
    let keys: Vec<Arc<SigningKey>> = (0..3).map(|_| key()).collect();
    for race in 0..1_000 {
        let (state, token) =
            nodes[0].issue(NewPairing::new(UseCase::SourceEdge), &root(), NOW).await.unwrap();
        let runners = keys.iter().enumerate().map(|(at, key)| {
            let (node, request) = (nodes[at % 2].clone(), begin(&token, key));
            tokio::spawn(async move { node.redeem(request.request(), None, None, NOW).await.unwrap() })
        });
        let mut won = 0;
        for runner in runners.collect::<Vec<_>>() {
            match runner.await.unwrap().result {
                Ok(_) => won += 1,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "race {race}: {error}"),
            }
        }
        assert_eq!(won, 1, "race {race}");
        let left = nodes[1].pairing(state.id).await.unwrap().unwrap();
        assert!(matches!(left.phase, Phase::Over { end: Ended::Replayed, .. }), "race {race}: {left:?}");
    }
    assert!(nodes.iter().all(|node| node.live.read().unwrap().is_empty()));
}

/// The same key, impatient: whatever comes of it, one master token is the last one, and it opens.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_impatient_key_ends_with_one_master_token() {
    let (store, edge, source) = (MemoryStore::new(), key(), key());
    let node = pairings(&store, &edge).await;
    for race in 0..200 {
        let (state, token) = node.issue(NewPairing::new(UseCase::SourceEdge), &root(), NOW).await.unwrap();
        let runners = (0..3).map(|_| {
            let (node, request, source) = (node.clone(), begin(&token, &source), source.clone());
            tokio::spawn(async move {
                let answer = node.redeem(request.request(), None, None, NOW).await.unwrap().result.ok()?;
                let paired = request.finish(&answer, NOW).unwrap();
                let message = paired.confirm(&*source, NOW).unwrap();
                let confirmed = node.confirm(&message, NOW).await.unwrap();
                confirmed.result.is_ok().then_some(paired.master)
            })
        });
        let mut good = 0;
        for runner in runners.collect::<Vec<_>>() {
            if let Some(master) = runner.await.unwrap() {
                assert!(ask(&node, &master, &source, NOW).is_ok(), "race {race}");
                good += 1;
            }
        }
        assert_eq!(good, 1, "race {race}");
        let _ = node.revoke(state.id, "user:root", "next race", NOW).await.unwrap();
    }
}

/// F10, and what a restart and a second node remember.
#[tokio::test]
async fn a_stolen_master_token_alone_opens_nothing() {
    let (store, edge, source) = (MemoryStore::new(), key(), key());
    let node = pairings(&store, &edge).await;
    let master = pair(&node, &source).await;
    assert_eq!(ask(&node, &master, &source, NOW).unwrap().to_string(), "peer:s1");
    let kind = |result: Result<Principal>| result.unwrap_err().kind();
    assert_eq!(kind(node.authenticate_control(&master, REQUEST, None, NOW)), ErrorKind::Unauthenticated);
    assert_eq!(kind(ask(&node, &master, &key(), NOW)), ErrorKind::Unauthenticated);
    let other = MasterToken::mint(master.id()).unwrap();
    assert_eq!(kind(ask(&node, &other, &source, NOW)), ErrorKind::Unauthenticated);
    let again = pairings(&store, &edge).await;
    assert!(ask(&again, &master, &source, NOW).is_ok());
}

#[tokio::test]
async fn revoked_by_either_side_it_opens_nothing_from_the_next_request_on() {
    let (store, edge, source) = (MemoryStore::new(), key(), key());
    let node = pairings(&store, &edge).await;
    let master = pair(&node, &source).await;
    let step = node.revoke(master.id(), "user:root", "moved", NOW).await.unwrap();
    assert!(step.result.unwrap());
    assert!(ask(&node, &master, &source, NOW).is_err());
    assert!(!node.revoke(master.id(), "user:root", "moved", NOW).await.unwrap().result.unwrap());
    let missing = node.revoke(TokenId::random().unwrap(), "user:root", "moved", NOW).await;
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);

    let master = pair(&node, &source).await;
    let forged = crate::token::Revoke::seal(master.id(), "x", &*key(), NOW).unwrap();
    assert_eq!(node.revoke_by_peer(&forged, NOW).await.unwrap_err().kind(), ErrorKind::Unauthenticated);
    let said = crate::token::Revoke::seal(master.id(), "gone", &*source, NOW).unwrap();
    assert!(node.revoke_by_peer(&said, NOW).await.unwrap().result.unwrap());
    assert!(ask(&node, &master, &source, NOW).is_err());
    assert!(ask(&*pairings(&store, &edge).await, &master, &source, NOW).is_err());
}

#[tokio::test]
async fn rotation_overlaps_for_ten_minutes() {
    let (store, edge, source) = (MemoryStore::new(), key(), key());
    let node = pairings(&store, &edge).await;
    let old = pair(&node, &source).await;
    let (sealed, message) = Rotate::begin(&old, &*source, NOW).unwrap();
    let answer = node.rotate(&sealed, NOW).await.unwrap().result.unwrap();
    let (new, _) = message.finish(&sealed, &answer, &edge.public_key(), NOW).unwrap();
    assert!(ask(&node, &old, &source, NOW.plus(599)).is_ok());
    assert!(ask(&node, &old, &source, NOW.plus(600)).is_err());
    assert!(ask(&node, &new, &source, NOW.plus(600)).is_ok());
}

#[tokio::test]
async fn a_name_is_not_taken_over_by_another_key() {
    let (store, edge, source) = (MemoryStore::new(), key(), key());
    let node = pairings(&store, &edge).await;
    let first = pair(&node, &source).await;
    let thief = key();
    let (_, token) = node.issue(NewPairing::new(UseCase::SourceEdge), &root(), NOW).await.unwrap();
    let request = begin(&token, &thief);
    let answer = node.redeem(request.request(), None, None, NOW).await.unwrap().result.unwrap();
    let message = request.finish(&answer, NOW).unwrap().confirm(&*thief, NOW).unwrap();
    assert_eq!(node.confirm(&message, NOW).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert!(ask(&node, &first, &source, NOW).is_ok());
    let second = pair(&node, &source).await;
    assert!(ask(&node, &first, &source, NOW).is_err(), "replaced");
    assert!(ask(&node, &second, &source, NOW).is_ok());
}

#[tokio::test]
async fn what_ran_out_is_told_once() {
    let (store, edge, source) = (MemoryStore::new(), key(), key());
    let node = pairings(&store, &edge).await;
    let (waiting, _) = node.issue(NewPairing::new(UseCase::Peer), &root(), NOW).await.unwrap();
    let master = pair(&node, &source).await;
    let ended = node.settle(NOW.plus(300)).await.unwrap();
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0].0.id, waiting.id);
    let line = pairing_event(&ended[0].0, &ended[0].1[0], |kind| Event::by_itself(NOW, kind));
    assert_eq!((&*line.kind, line.object), (kind::PAIRING_EXPIRED, Some(waiting.id.to_string())));
    assert!(node.settle(NOW.plus(900)).await.unwrap().is_empty());
    assert!(ask(&node, &master, &source, NOW.plus(900)).is_ok());
}
