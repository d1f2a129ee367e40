//! Pairing and control requests: every refusal by name, and a model of the state machine.

use std::net::IpAddr;
use std::sync::Arc;

use proptest::prelude::*;

use super::message::Redeem;
use super::*;
use crate::access::{Scope, UseCase};
use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::error::{ErrorKind, Result};
use crate::key::{Algorithm, Signer, SigningKey};
use crate::name::NodeName;
use crate::secret::Secret;

const NOW: Timestamp = Timestamp::from_unix(1_795_323_600);
const HERE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 9)));

fn key() -> SigningKey {
    SigningKey::generate(Algorithm::Ed25519, "", NOW).unwrap()
}

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

fn redeemer(called: &str) -> Redeemer {
    Redeemer { name: name(called), base_url: Some("https://source.example".into()), roots: None }
}

struct Table {
    edge: SigningKey,
    name: NodeName,
}

impl Table {
    fn new() -> Table {
        Table { edge: key(), name: name("e1") }
    }

    fn issuer(&self) -> Issuer<'_> {
        Issuer { name: &self.name, signer: &self.edge, roots: None }
    }

    fn issue(&self) -> (PairingState, PairingToken) {
        self.issue_for(NewPairing::new(UseCase::SourceEdge))
    }

    fn issue_for(&self, new: NewPairing) -> (PairingState, PairingToken) {
        PairingState::issue(&self.issuer(), new, "user:root".into(), NOW).unwrap()
    }

    fn redeem(&self, state: PairingState, sealed: &Sealed, now: Timestamp) -> Step<Sealed> {
        let master = MasterToken::mint(state.id).unwrap();
        state.redeem(&self.issuer(), sealed, HERE, &master, now)
    }
}

fn begin(token: &PairingToken, key: &SigningKey, now: Timestamp) -> Redemption {
    Redemption::begin(token.clone(), &redeemer("s1"), key, now).unwrap()
}

fn kind<T>(result: &Result<T>) -> Option<ErrorKind> {
    result.as_ref().err().map(crate::error::Error::kind)
}

/// A redemption that says something else than its token.
fn altered(token: &PairingToken, key: &SigningKey, alter: impl FnOnce(&mut Redeem)) -> Redemption {
    let mut message = Redeem {
        id: token.id(),
        use_case: token.use_case(),
        scopes: None,
        redeemer_key: key.public_key(),
        name: name("s1"),
        base_url: None,
        roots: None,
        nonce: Nonce::random().unwrap(),
        ts: NOW,
    };
    alter(&mut message);
    Redemption::of(token.clone(), &message, key, NOW).unwrap()
}

#[test]
fn a_pairing_token_comes_back_and_a_slip_is_seen() {
    let table = Table::new();
    let (_, token) = table.issue();
    let text = token.to_text();
    let again = PairingToken::parse(&text).unwrap();
    assert_eq!(again.to_text().expose(), text.expose());
    assert_eq!(
        (again.id(), again.use_case(), again.expires()),
        (token.id(), UseCase::SourceEdge, NOW.plus(300))
    );
    assert_eq!(again.issuer_key(), &table.edge.public_key());
    assert_eq!(again.proof_key().unwrap().public_key(), token.proof_key().unwrap().public_key());
    assert!(!format!("{token:?}").contains("seed"), "{token:?}");
    let text = text.expose_str().unwrap();
    for at in 0..text.len() {
        let mut slip = text.as_bytes().to_vec();
        slip[at] = if slip[at] == b'a' { b'b' } else { b'a' };
        assert!(PairingToken::parse(&Secret::new(slip)).is_err(), "at {at}");
        assert!(PairingToken::parse(&Secret::new(&text.as_bytes()[..at])).is_err());
    }
}

#[test]
fn a_token_lives_no_longer_than_an_hour() {
    let table = Table::new();
    for (ttl, good) in [(0, false), (1, true), (3_600, true), (3_601, false), (-5, false)] {
        let new = NewPairing { ttl, ..NewPairing::new(UseCase::Peer) };
        assert_eq!(PairingState::issue(&table.issuer(), new, String::new(), NOW).is_ok(), good, "{ttl}");
    }
}

#[test]
fn the_issuer_keeps_nothing_that_redeems() {
    let table = Table::new();
    let (state, token) = table.issue();
    let source = key();
    let request = begin(&token, &source, NOW);
    let step = table.redeem(state.clone(), request.request(), NOW);
    let paired = request.finish(&step.result.unwrap(), NOW).unwrap();
    let kept = serde_json::to_string(&[&state, &step.state]).unwrap();
    let seed = token.to_text();
    let seed = seed.expose_str().unwrap();
    let master = paired.master.secret().expose_str().unwrap();
    for secret in [seed, &seed[5..40], master, &master[22..65]] {
        assert!(!kept.contains(secret));
    }
}

/// F07, and the default life of 300 seconds.
#[test]
fn at_299_seconds_yes_at_301_no() {
    let table = Table::new();
    for (after, expected) in
        [(299, None), (300, Some(ErrorKind::Forbidden)), (301, Some(ErrorKind::Forbidden))]
    {
        let (state, token) = table.issue();
        let request = begin(&token, &key(), NOW.plus(after));
        let step = table.redeem(state, request.request(), NOW.plus(after));
        assert_eq!(kind(&step.result), expected, "after {after} seconds");
        if expected.is_some() {
            assert_eq!(step.events[0], PairingEvent::Expired);
            assert!(matches!(step.state.phase, Phase::Over { end: Ended::Expired, .. }));
        }
    }
}

/// F07: the fifth wrong proof burns the token, the sixth finds it burned, and so does the right one.
#[test]
fn wrong_proofs_burn_the_token() {
    let table = Table::new();
    let (mut state, token) = table.issue();
    let (_, other) = table.issue();
    let source = key();
    let wrong = altered(&other, &source, |message| message.id = token.id());
    for attempt in 1..=6 {
        let step = table.redeem(state, wrong.request(), NOW);
        assert_eq!(kind(&step.result), Some(ErrorKind::Forbidden), "attempt {attempt}");
        state = step.state;
        let burned = matches!(state.phase, Phase::Over { end: Ended::Burned, .. });
        assert_eq!(burned, attempt >= 5, "attempt {attempt}");
    }
    let step = table.redeem(state, begin(&token, &source, NOW).request(), NOW);
    assert_eq!(kind(&step.result), Some(ErrorKind::Forbidden));
    assert!(step.result.unwrap_err().to_string().contains("5 redeemers"));
}

/// F08: identity signature missing 401; another use case 403; a wider scope 403.
#[test]
fn signatures_use_case_and_scope_are_as_issued() {
    let table = Table::new();
    let scopes: Vec<Scope> = vec!["receive:*".parse().unwrap()];
    let new = NewPairing {
        scopes: Some(scopes.clone()),
        peer: Some(name("s1")),
        network: Some("192.0.2.0/24".parse().unwrap()),
        ..NewPairing::new(UseCase::SourceEdge)
    };
    let (state, token) = table.issue_for(new);
    let source = key();
    let good = begin(&token, &source, NOW);
    let refused = |sealed: &Sealed| table.redeem(state.clone(), sealed, NOW).result.unwrap_err().kind();
    assert_eq!(refused(&good.request().clone().stripped(false, true)), ErrorKind::Unauthenticated);
    assert_eq!(refused(&good.request().clone().stripped(true, false)), ErrorKind::Forbidden);
    let alter = |alter: fn(&mut Redeem)| refused(altered(&token, &source, alter).request());
    assert_eq!(alter(|message| message.use_case = UseCase::Control), ErrorKind::Forbidden);
    assert_eq!(alter(|message| message.scopes = Some(vec!["*:*".parse().unwrap()])), ErrorKind::Forbidden);
    assert_eq!(alter(|message| message.name = "s2".parse().unwrap()), ErrorKind::Forbidden);
    assert_eq!(alter(|message| message.ts = NOW.plus(301)), ErrorKind::Unauthenticated);
    assert_eq!(alter(|message| message.redeemer_key = key().public_key()), ErrorKind::Unauthenticated);
    let master = MasterToken::mint(token.id()).unwrap();
    for from in [None, Some("198.51.100.1".parse().unwrap())] {
        let step = state.clone().redeem(&table.issuer(), good.request(), from, &master, NOW);
        assert_eq!(kind(&step.result), Some(ErrorKind::Forbidden), "from {from:?}");
    }
    let step = table.redeem(state, altered(&token, &source, |m| m.scopes = Some(scopes)).request(), NOW);
    assert!(step.result.is_ok());
}

/// F06: the interception detector.
#[test]
fn a_second_key_voids_both() {
    let table = Table::new();
    let (state, token) = table.issue();
    let (thief, source) = (key(), key());
    let request = begin(&token, &thief, NOW);
    let step = table.redeem(state, request.request(), NOW);
    let paired = request.finish(&step.result.unwrap(), NOW).unwrap();
    let confirmed = step.state.confirm(&paired.confirm(&thief, NOW).unwrap(), NOW).state;
    assert!(confirmed.to_peer().is_some());
    for late in [10, 400] {
        let now = NOW.plus(late);
        let mut token = token.clone();
        token = PairingToken::parse(&token.to_text()).unwrap();
        let step = table.redeem(confirmed.clone(), begin(&token, &source, now).request(), now);
        assert_eq!(kind(&step.result), Some(ErrorKind::Conflict), "after {late} seconds");
        assert_eq!(step.events, [PairingEvent::Replay]);
        assert!(step.state.to_peer().is_none() && step.state.masters().is_empty());
        let again = table.redeem(step.state, begin(&token, &thief, now).request(), now);
        assert_eq!(kind(&again.result), Some(ErrorKind::Conflict));
    }
}

#[test]
fn a_lost_answer_is_asked_for_again() {
    let table = Table::new();
    let (state, token) = table.issue();
    let source = key();
    let first = begin(&token, &source, NOW);
    let step = table.redeem(state, first.request(), NOW);
    let lost = first.finish(&step.result.unwrap(), NOW).unwrap();
    let second = begin(&token, &source, NOW.plus(59));
    let step = table.redeem(step.state, second.request(), NOW.plus(59));
    let answer = step.result.unwrap();
    assert_eq!(
        first.finish(&answer, NOW).unwrap_err().kind(),
        ErrorKind::Untrusted,
        "another request's answer"
    );
    let paired = second.finish(&answer, NOW).unwrap();
    assert_eq!(paired.epoch, 2);
    let late = NOW.plus(118);
    let stale = step.state.clone().confirm(&lost.confirm(&source, late).unwrap(), late);
    assert_eq!(kind(&stale.result), Some(ErrorKind::Conflict));
    let step = step.state.confirm(&paired.confirm(&source, late).unwrap(), late);
    assert!(step.result.is_ok());
    assert_eq!(step.state.masters(), [(paired.master.fingerprint(), Timestamp::MAX)]);
    let twice = step.state.confirm(&paired.confirm(&source, late).unwrap(), late);
    assert!(twice.result.is_ok() && twice.events.is_empty());
}

#[test]
fn without_a_confirmation_in_a_minute_the_trust_is_void() {
    let table = Table::new();
    let (state, token) = table.issue();
    let source = key();
    let request = begin(&token, &source, NOW);
    let step = table.redeem(state, request.request(), NOW);
    let paired = request.finish(&step.result.unwrap(), NOW).unwrap();
    assert!(step.state.masters().is_empty(), "nothing opens before the confirmation");
    let late = NOW.plus(60);
    let step = step.state.confirm(&paired.confirm(&source, late).unwrap(), late);
    assert_eq!(kind(&step.result), Some(ErrorKind::Forbidden));
    assert!(matches!(step.state.phase, Phase::Over { end: Ended::Unconfirmed, .. }));
    let stranger = table.issue();
    let step = stranger.0.confirm(&paired.confirm(&source, NOW).unwrap(), NOW);
    assert_eq!(kind(&step.result), Some(ErrorKind::Forbidden));
}

/// F09.
#[test]
fn an_answer_of_another_key_is_thrown_away() {
    let table = Table::new();
    let (state, token) = table.issue();
    let request = begin(&token, &key(), NOW);
    let impostor = Table::new();
    let step = impostor.redeem(state, request.request(), NOW);
    let error = request.finish(&step.result.unwrap(), NOW).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Untrusted);
    assert!(error.to_string().contains("nothing was stored"), "{error}");
}

#[test]
fn a_rotation_may_lose_its_answer() {
    let table = Table::new();
    let (state, token) = table.issue();
    let source = key();
    let request = begin(&token, &source, NOW);
    let step = table.redeem(state, request.request(), NOW);
    let paired = request.finish(&step.result.unwrap(), NOW).unwrap();
    let state = step.state.confirm(&paired.confirm(&source, NOW).unwrap(), NOW).state;
    let rotate = |state: PairingState, from: &MasterToken, signer: &SigningKey, now: Timestamp| {
        let (sealed, message) = Rotate::begin(from, signer, now).unwrap();
        let step = state.rotate(&table.issuer(), &sealed, &MasterToken::mint(from.id()).unwrap(), now);
        let finished = step
            .result
            .map(|answer| message.finish(&sealed, &answer, &table.edge.public_key(), now).unwrap());
        (step.state, finished)
    };
    let old = &paired.master;
    // The first answer is lost; the second comes.
    let (state, _) = rotate(state, old, &source, NOW);
    let (state, finished) = rotate(state, old, &source, NOW.plus(30));
    let (new, rotated) = finished.unwrap();
    assert_eq!((rotated.epoch, rotated.until), (3, NOW.plus(600)));
    let masters = state.masters();
    assert_eq!(masters, [(old.fingerprint(), NOW.plus(600)), (new.fingerprint(), Timestamp::MAX)]);
    let (state, refused) = rotate(state, old, &source, NOW.plus(600));
    assert_eq!(kind(&refused), Some(ErrorKind::Unauthenticated), "the overlap is over");
    let (state, refused) = rotate(state, &new, &key(), NOW.plus(601));
    assert_eq!(kind(&refused), Some(ErrorKind::Unauthenticated), "signed by another key");
    let step = state.revoke("user:root", "moved", NOW);
    assert!(step.result.unwrap() && step.state.masters().is_empty());
    assert!(!step.state.revoke("user:root", "again", NOW).result.unwrap());
}

#[test]
fn a_revocation_is_signed_and_about_one_pairing() {
    let (source, id) = (key(), TokenId::random().unwrap());
    let sealed = Sealed::parse(&Revoke::seal(id, "moved", &source, NOW).unwrap().to_json()).unwrap();
    assert_eq!(open_revoke(&sealed, id, &source.public_key(), NOW).unwrap().reason, "moved");
    let kind =
        |id, key: &SigningKey, now| open_revoke(&sealed, id, &key.public_key(), now).unwrap_err().kind();
    assert_eq!(kind(id, &key(), NOW), ErrorKind::Unauthenticated);
    assert_eq!(kind(id, &source, NOW.plus(301)), ErrorKind::Unauthenticated);
    assert_eq!(kind(TokenId::random().unwrap(), &source, NOW), ErrorKind::Forbidden);
}

const REQUEST: ControlRequest<'_> = ControlRequest { method: "PUT", target: "/api/v1/trust?x=1" };

/// F10: no signature, a second time, 301 seconds away, another request, another key.
#[test]
fn a_control_request_is_signed_once_for_what_it_is() {
    let (source, peer) = (key(), TokenId::random().unwrap());
    let public = source.public_key();
    let signer = ControlSigner::new(Arc::new(source));
    let nonces = NonceCache::default();
    let value = signer.sign(REQUEST, SignedBody::of(b"body"), NOW).unwrap();
    let signed = SignedRequest::parse(&value).unwrap();
    assert_eq!(signed.body(), SignedBody::of(b"body"));
    let check = |request, key: &_, nonces: &_, now| kind(&signed.verify(request, peer, key, nonces, now));
    let refused = Some(ErrorKind::Unauthenticated);
    assert_eq!(check(ControlRequest { method: "POST", ..REQUEST }, &public, &nonces, NOW), refused);
    assert_eq!(check(ControlRequest { target: "/api/v1/trust", ..REQUEST }, &public, &nonces, NOW), refused);
    assert_eq!(check(REQUEST, &key().public_key(), &nonces, NOW), refused);
    for (apart, expected) in [(-301, refused), (-300, None), (300, None), (301, refused)] {
        assert_eq!(check(REQUEST, &public, &NonceCache::default(), NOW.plus(apart)), expected, "{apart}");
    }
    assert_eq!(check(REQUEST, &public, &nonces, NOW), None);
    assert_eq!(check(REQUEST, &public, &nonces, NOW), refused, "a second time");
    assert_eq!(check(REQUEST, &public, &nonces, NOW.plus(300)), refused, "a second time, late");
    let other = value.replace(&Digest::of(b"body").to_hex(), &Digest::of(b"evil").to_hex());
    let other = SignedRequest::parse(&other).unwrap();
    assert_eq!(kind(&other.verify(REQUEST, peer, &public, &nonces, NOW)), refused);
    for bad in [
        "",
        "v1",
        "v2;x",
        &value[1..],
        &format!("{value};"),
        &format!("{value};x=1"),
        &value.replace("v1", "v2"),
    ] {
        assert_eq!(kind(&SignedRequest::parse(bad)), refused, "{bad}");
    }
}

/// P23: what was forgotten does not come back with the clock.
#[test]
fn a_clock_turned_back_lets_no_nonce_in_again() {
    let (source, peer) = (key(), TokenId::random().unwrap());
    let public = source.public_key();
    let signer = ControlSigner::new(Arc::new(source));
    let nonces = NonceCache::new(2);
    let signed = |now| SignedRequest::parse(&signer.sign(REQUEST, SignedBody::Stream, now).unwrap()).unwrap();
    let first = signed(NOW);
    first.verify(REQUEST, peer, &public, &nonces, NOW).unwrap();
    let later = NOW.plus(3_600);
    signed(later).verify(REQUEST, peer, &public, &nonces, later).unwrap();
    assert_eq!(kind(&first.verify(REQUEST, peer, &public, &nonces, NOW)), Some(ErrorKind::Unauthenticated));
    signed(later).verify(REQUEST, peer, &public, &nonces, later).unwrap();
    let full = signed(later).verify(REQUEST, peer, &public, &nonces, later);
    assert_eq!(kind(&full), Some(ErrorKind::Unavailable), "a full memory refuses");
    let another = TokenId::random().unwrap();
    signed(later).verify(REQUEST, another, &public, &nonces, later).unwrap();
    nonces.forget(peer);
}

#[test]
fn user_tokens_end_by_time_and_by_word() {
    let mut new = NewUserToken::new("user:alice@example.org".parse().unwrap());
    new.expires = Some(NOW.plus(60));
    let (record, token) = UserTokenRecord::mint(new.clone(), "token:root".into(), NOW).unwrap();
    assert_eq!(UserToken::parse(token.secret()).unwrap().fingerprint(), record.fingerprint);
    assert_eq!(record.to_principal().to_string(), "user:alice@example.org");
    assert!(record.check(NOW.plus(59)).is_ok());
    assert_eq!(record.check(NOW.plus(60)).unwrap_err().kind(), ErrorKind::Unauthenticated);
    let revoked = record.revoke("user:bob", "left", NOW).unwrap();
    assert!(revoked.check(NOW).is_err());
    assert_eq!(revoked.clone().revoke("user:eve", "other", NOW).unwrap(), revoked, "the first word stands");
    let text = serde_json::to_string(&revoked).unwrap();
    assert_eq!(serde_json::from_str::<UserTokenRecord>(&text).unwrap(), revoked);
    new.expires = Some(NOW);
    assert!(UserTokenRecord::mint(new, String::new(), NOW).is_err());
    for bad in ["alice", "user:", "group:x", "user:a b", "user:a:b", "peer:x"] {
        assert!(bad.parse::<TokenPrincipal>().is_err(), "{bad}");
    }
}

/// What somebody does in the model.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// Party redeems: with the right proof or a wrong one.
    Redeem {
        party: usize,
        right: bool,
    },
    /// Party confirms the last master token it was given.
    Confirm {
        party: usize,
    },
    /// Party rotates the last master token it was given; its answer arrives or is lost.
    Rotate {
        party: usize,
        lost: bool,
    },
    Revoke,
    Wait(i64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let party = 0..2_usize;
    let act = prop_oneof![
        4 => (party.clone(), prop::bool::weighted(0.7)).prop_map(|(party, right)| Act::Redeem { party, right }),
        4 => party.clone().prop_map(|party| Act::Confirm { party }),
        2 => (party, any::<bool>()).prop_map(|(party, lost)| Act::Rotate { party, lost }),
        1 => Just(Act::Revoke),
        3 => prop_oneof![Just(1_i64), Just(59), Just(60), Just(241), Just(600)].prop_map(Act::Wait),
    ];
    prop::collection::vec(act, 1..24)
}

/// The slow model: what may be so, in plain numbers.
#[derive(Debug)]
struct Model {
    owner: Option<usize>,
    confirmed: bool,
    over: bool,
    wrong: u32,
    until: i64,
    /// Good master tokens and when they end.
    good: Vec<(Digest, i64)>,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_state_machine_equals_its_model(acts in acts()) {
        let table = Table::new();
        let (mut state, token) = table.issue();
        let (_, stranger) = table.issue();
        let keys = [key(), key()];
        let mut held: [Option<(Paired, MasterToken)>; 2] = [None, None];
        let mut clock = 0_i64;
        let mut model =
            Model { owner: None, confirmed: false, over: false, wrong: 0, until: 300, good: Vec::new() };
        for act in acts {
            let now = NOW.plus(clock);
            if !model.over && !model.confirmed && clock >= model.until {
                model.over = true;
            }
            match act {
                Act::Wait(seconds) => clock += seconds,
                Act::Redeem { party, right } => {
                    let from = if right { &token } else { &stranger };
                    let request = altered(from, &keys[party], |message| {
                        message.id = token.id();
                        message.ts = now;
                    });
                    let request = Redemption::of(token.clone(), &request.request().read("").unwrap(), &keys[party], now)
                        .map(|whole| if right { whole } else { request }).unwrap();
                    let step = table.redeem(state, request.request(), now);
                    state = step.state;
                    let good = right && !model.over
                        && (model.owner.is_none() || model.owner == Some(party) && !model.confirmed);
                    prop_assert_eq!(step.result.is_ok(), good, "{:?} in {:?}", act, model);
                    if good {
                        let paired = request.finish(&step.result.unwrap(), now).unwrap();
                        let master = paired.master.clone();
                        held[party] = Some((paired, master));
                        (model.owner, model.until) = (Some(party), clock + 60);
                    } else if right && !model.over && model.owner != Some(party) {
                        model.over = true;
                    } else if !right && !model.over && model.owner.is_none() {
                        model.wrong += 1;
                        model.over = model.wrong == 5;
                    }
                }
                Act::Confirm { party } => {
                    let Some((paired, _)) = &held[party] else { continue };
                    let step = state.confirm(&paired.confirm(&keys[party], now).unwrap(), now);
                    state = step.state;
                    if step.result.is_ok() {
                        prop_assert!(!model.over && model.owner == Some(party), "{model:?}");
                        if !model.confirmed {
                            model.good = vec![(paired.master.fingerprint(), i64::MAX)];
                        }
                        model.confirmed = true;
                    } else {
                        let rotated = model.good.last().is_some_and(|one| one.0 != paired.master.fingerprint());
                        prop_assert!(model.over || model.owner != Some(party) || rotated, "{model:?}");
                    }
                }
                Act::Rotate { party, lost } => {
                    let Some((_, master)) = &mut held[party] else { continue };
                    let (sealed, message) = Rotate::begin(master, &keys[party], now).unwrap();
                    let new = MasterToken::mint(master.id()).unwrap();
                    let step = state.rotate(&table.issuer(), &sealed, &new, now);
                    state = step.state;
                    let old = master.fingerprint();
                    let end = model.good.iter().find(|(one, end)| *one == old && clock < *end).map(|(_, end)| *end);
                    let good = !model.over && model.confirmed && model.owner == Some(party) && end.is_some();
                    prop_assert_eq!(step.result.is_ok(), good, "{:?} in {:?}", act, model);
                    if let (Ok(answer), Some(end)) = (step.result, end) {
                        let until = end.min(clock + 600);
                        model.good = vec![(old, until), (new.fingerprint(), i64::MAX)];
                        let (taken, _) = message.finish(&sealed, &answer, &table.edge.public_key(), now).unwrap();
                        if !lost {
                            *master = taken;
                        }
                    }
                }
                Act::Revoke => {
                    let step = state.revoke("user:root", "test", now);
                    state = step.state;
                    prop_assert_eq!(step.result.unwrap(), !model.over);
                    model.over = true;
                }
            }
            let now = NOW.plus(clock);
            let good: Vec<Digest> = state.masters().into_iter().filter(|(_, end)| now < *end).map(|(one, _)| one).collect();
            let mut expected: Vec<Digest> =
                model.good.iter().filter(|(_, end)| clock < *end).map(|(one, _)| *one).collect();
            if model.over || !model.confirmed {
                expected.clear();
            }
            prop_assert_eq!(good, expected, "{:?}", model);
            let text = serde_json::to_string(&state).unwrap();
            prop_assert_eq!(&serde_json::from_str::<PairingState>(&text).unwrap(), &state);
        }
    }
}
