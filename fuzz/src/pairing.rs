//! Oracle of pairing: messages at a state machine.

use std::sync::OnceLock;

use distedge::access::UseCase;
use distedge::clock::Timestamp;
use distedge::key::{Signer as _, SigningKey};
use distedge::name::NodeName;
use distedge::secret::Secret;
use distedge::token::{
    ControlRequest, Ended, Issuer, MasterToken, NewPairing, NonceCache, PairingState, PairingToken, Phase,
    Redeemer, Redemption, Rotate, Sealed, SignedRequest,
};

use super::signing_key;

/// When everything happens.
const NOW: Timestamp = Timestamp::from_unix(1_795_323_600);

struct House {
    name: NodeName,
    issuer: SigningKey,
    keys: [SigningKey; 2],
    state: PairingState,
    token: PairingToken,
}

fn house() -> &'static House {
    static HOUSE: OnceLock<House> = OnceLock::new();
    HOUSE.get_or_init(|| {
        let key = |byte: u8| SigningKey::from_ed25519_seed(&Secret::new([byte; 32])).unwrap();
        let (name, issuer): (NodeName, _) = ("e1".parse().unwrap(), key(1));
        let by = Issuer { name: &name, signer: &issuer, roots: None };
        let new = NewPairing::new(UseCase::SourceEdge);
        let (state, token) = PairingState::issue(&by, new, "fuzz".into(), NOW).unwrap();
        House { keys: [key(2), key(3)], state, token, name, issuer }
    })
}

/// The first byte says how the rest is read: 0 a pairing token, 1 a sealed message at an issuer, 2 a
/// signature's header, 3 a user's or a master token, 4 a stored state, else a programme of pairing
/// whose every state is judged.
///
/// Nothing that was not signed here gets an answer; a state that is over opens nothing and stays so.
pub fn pairing(data: &[u8]) -> bool {
    let Some((way, rest)) = data.split_first() else { return false };
    match way {
        0 => token(rest),
        1 => message(rest),
        2 => header(rest),
        3 => text(rest),
        4 => stored(rest),
        _ => programme(rest),
    }
}

fn token(data: &[u8]) -> bool {
    let Ok(token) = PairingToken::parse(&Secret::new(data)) else { return false };
    let text = token.to_text();
    let again = PairingToken::parse(&text).unwrap();
    assert_eq!(again.to_text().expose(), text.expose());
    assert_eq!((again.id(), again.expires()), (token.id(), token.expires()));
    assert_eq!(again.issuer_key(), token.issuer_key());
    token.proof_key().unwrap();
    true
}

fn message(data: &[u8]) -> bool {
    let Ok(sealed) = Sealed::parse(data) else { return false };
    assert_eq!(Sealed::parse(&sealed.to_json()).unwrap(), sealed);
    let House { state, name, issuer, .. } = house();
    let by = Issuer { name, signer: issuer, roots: None };
    let master = MasterToken::mint(state.id).unwrap();
    let step = state.clone().redeem(&by, &sealed, None, &master, NOW);
    // The seed is new in every run: no input can know it.
    assert!(step.result.is_err() && step.state.masters().is_empty());
    let (step, other) =
        (state.clone().confirm(&sealed, NOW), state.clone().rotate(&by, &sealed, &master, NOW));
    assert!(step.result.is_err() && other.result.is_err());
    true
}

fn header(data: &[u8]) -> bool {
    let Ok(value) = std::str::from_utf8(data) else { return false };
    let Ok(signed) = SignedRequest::parse(value) else { return false };
    let request = ControlRequest { method: "GET", target: "/" };
    let key = signing_key().public_key();
    assert!(signed.verify(request, house().state.id, &key, &NonceCache::default(), NOW).is_err());
    true
}

fn text(data: &[u8]) -> bool {
    let secret = Secret::new(data);
    match (MasterToken::parse(&secret), distedge::token::UserToken::parse(&secret)) {
        (Ok(_), Ok(_)) => panic!("one text is two tokens"),
        (Ok(token), _) => assert_eq!(token.secret().expose(), data),
        (_, Ok(token)) => assert_eq!(token.secret().expose(), data),
        _ => return false,
    }
    true
}

fn stored(data: &[u8]) -> bool {
    let Ok(state) = serde_json::from_slice::<PairingState>(data) else { return false };
    let written = serde_json::to_vec(&state).unwrap();
    assert_eq!(serde_json::from_slice::<PairingState>(&written).unwrap(), state);
    let (settled, _) = state.clone().settle(Timestamp::MAX);
    assert!(!matches!(settled.phase, Phase::Issued { .. } | Phase::Consumed { .. }));
    let step = state.revoke("fuzz", "fuzz", NOW);
    assert!(step.state.masters().is_empty() && step.state.to_peer().is_none());
    true
}

/// Two bytes a step: who and what, and how long after the last.
fn programme(steps: &[u8]) -> bool {
    let House { state, token, name, issuer, keys } = house();
    let by = Issuer { name, signer: issuer, roots: None };
    let redeemer = Redeemer { name: name.clone(), base_url: None, roots: None };
    let (mut state, mut now) = (state.clone(), NOW);
    let mut held: [Option<MasterToken>; 2] = [None, None];
    let mut paired = false;
    for step in steps.chunks_exact(2).take(32) {
        now = now.plus(i64::from(step[1]));
        let who = usize::from(step[0] & 1);
        let (key, before) = (&keys[who], state.clone());
        state = match step[0] >> 1 & 3 {
            0 => {
                let request = Redemption::begin(token.clone(), &redeemer, key, now).unwrap();
                let master = MasterToken::mint(state.id).unwrap();
                let step = state.redeem(&by, request.request(), None, &master, now);
                if let Ok(answer) = &step.result {
                    held[who] = Some(request.finish(answer, now).unwrap().master);
                    assert!(before.peer().is_none_or(|peer| peer.key == key.public_key()));
                }
                step.state
            }
            1 => match &held[who] {
                Some(master) => state.confirm(&master.confirm(key, now).unwrap(), now).state,
                None => continue,
            },
            2 => match &held[who] {
                Some(master) => {
                    let (request, message) = Rotate::begin(master, key, now).unwrap();
                    let new = MasterToken::mint(state.id).unwrap();
                    let step = state.rotate(&by, &request, &new, now);
                    if let Ok(answer) = &step.result {
                        let (new, _) = message.finish(&request, answer, &issuer.public_key(), now).unwrap();
                        held[who] = Some(new);
                    }
                    step.state
                }
                None => continue,
            },
            _ => state.settle(now).0,
        };
        if let Phase::Over { end, .. } = &before.phase {
            assert_eq!(state, before, "what is over stays over");
            assert!(*end != Ended::Revoked && state.masters().is_empty());
        }
        if let Some(peer) = state.to_peer() {
            paired = true;
            let owner = state.peer().unwrap().key.clone();
            let master = held[usize::from(owner != keys[0].public_key())].as_ref().unwrap();
            assert!(state.masters().iter().any(|(one, _)| *one == master.fingerprint()));
            assert_eq!(peer.credential, state.id.to_string());
        }
    }
    paired
}
