//! Tokens that were changed on the way, and claims that a second verifier reads.

use distedge::clock::Timestamp;
use distedge::link::{
    Cause, Claims, KeyName, LinkAlgorithm, LinkId, LinkKey, LinkKeys, LinkPolicies, LinkRequest,
    LinkResource, Revocations, SeenTokens, Verifier, inspect, mint,
};
use distedge::name::{ArtifactPath, NodeName, RepositoryName, Tenant};

use crate::fuzz_replay::oracle;

const NOW: Timestamp = Timestamp::from_unix(oracle::ISSUED);

/// The same numbers at every run (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) as usize % most
    }
}

struct World {
    keys: LinkKeys,
    revocations: Revocations,
    policies: LinkPolicies,
    tenant: Tenant,
    edge: NodeName,
    repository: RepositoryName,
    path: ArtifactPath,
}

impl World {
    fn new() -> World {
        let mut keys = LinkKeys::new();
        for (name, algorithm) in [("h1", LinkAlgorithm::HmacSha256), ("e1", LinkAlgorithm::Ed25519)] {
            keys.add(LinkKey::generate(KeyName::new(name).unwrap(), algorithm, NOW).unwrap()).unwrap();
        }
        World {
            keys,
            revocations: Revocations::new(),
            policies: LinkPolicies::default(),
            tenant: "acme".parse().unwrap(),
            edge: "edge-eu".parse().unwrap(),
            repository: "r".parse().unwrap(),
            path: "app/1.0/a".parse().unwrap(),
        }
    }

    fn token(&self, key: &str, number: u128) -> String {
        let resource = LinkResource::parse("r/app/1.0/").unwrap();
        let id = LinkId::from_number(number);
        let claims = Claims::new(id, self.tenant.clone(), resource, NOW, NOW.plus(3_600)).with_subject("x");
        let token = mint(self.keys.key(key).unwrap(), &claims, NOW).unwrap();
        token.expose_str().unwrap().to_owned()
    }

    fn verify(&self, token: &str, seen: Option<&SeenTokens>) -> Result<(), Cause> {
        let now = NOW.plus(1);
        let request = LinkRequest::new(&self.tenant, &self.edge, "GET", &self.repository, &self.path, now);
        let mut verifier = Verifier::new(&self.keys, &self.revocations, &self.policies);
        if let Some(seen) = seen {
            verifier = verifier.with_seen(seen);
        }
        verifier.verify(token, &request).map(drop).map_err(|denied| {
            let message = denied.message();
            assert!(["The link does not open this.", "The link cannot be read."].contains(&message));
            denied.cause
        })
    }
}

/// Case E01: each bit of the tag, each byte of everything else; one body.
#[test]
fn each_flipped_bit_is_refused() {
    let world = World::new();
    for key in ["h1", "e1"] {
        let token = world.token(key, 1);
        world.verify(&token, None).unwrap();
        let (text, tag) = token.rsplit_once('.').unwrap();
        let bytes = oracle::unbase64url(tag);
        for bit in 0..bytes.len() * 8 {
            let mut spoiled = bytes.clone();
            spoiled[bit / 8] ^= 1 << (bit % 8);
            let spoiled = format!("{text}.{}", oracle::base64url(&spoiled));
            assert_eq!(world.verify(&spoiled, None), Err(Cause::BadTag), "bit {bit}");
        }
        let payload = oracle::unbase64url(text.rsplit_once('.').unwrap().1);
        let head = text.rsplit_once('.').unwrap().0;
        for at in 0..payload.len() {
            let mut spoiled = payload.clone();
            spoiled[at] ^= 1;
            let spoiled = format!("{head}.{}.{tag}", oracle::base64url(&spoiled));
            assert_eq!(world.verify(&spoiled, None), Err(Cause::BadTag), "byte {at}");
        }
    }
}

/// A hundred thousand spoiled tokens, with and without a memory of the good ones.
#[test]
fn no_spoiled_token_is_accepted() {
    let world = World::new();
    let seen = SeenTokens::new(64);
    let tokens: Vec<String> = (0..8).map(|at| world.token(if at < 7 { "h1" } else { "e1" }, at)).collect();
    for token in &tokens {
        world.verify(token, Some(&seen)).unwrap();
    }
    let mut random = Random(1);
    let mut below = |most: usize| random.below(most);
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ %";
    let (mut tried, mut verified) = (0, 0);
    while tried < 100_000 {
        // Ed25519 is slow in a test build: one of eight tokens is enough.
        let good = tokens[below(tokens.len())].as_bytes();
        let mut spoiled = good.to_vec();
        for _ in 0..=below(3) {
            let at = below(spoiled.len().max(1));
            match if spoiled.is_empty() { 2 } else { below(6) } {
                0 => spoiled[at] = alphabet[below(alphabet.len())],
                1 => drop(spoiled.remove(at)),
                2 => spoiled.insert(at, alphabet[below(alphabet.len())]),
                3 => spoiled.truncate(at.max(1)),
                4 => {
                    let other = tokens[below(tokens.len())].as_bytes();
                    let from = at.min(other.len());
                    spoiled.splice(at.., other[from..].iter().copied());
                }
                _ => {
                    let other = below(spoiled.len());
                    spoiled.swap(at, other);
                }
            }
        }
        let spoiled = String::from_utf8(spoiled).unwrap();
        if tokens.contains(&spoiled) {
            continue;
        }
        tried += 1;
        let cause = world.verify(&spoiled, Some(&seen)).expect_err(&spoiled);
        verified += usize::from(cause == Cause::BadTag);
        assert!(cause <= Cause::BadTag, "{cause}: {spoiled}");
    }
    assert!(verified > 20_000, "only {verified} of {tried} got as far as the tag");
    assert_eq!(seen.len(), tokens.len());
}

/// A memory skips the signature and nothing else.
#[test]
fn a_remembered_token_is_judged_anew() {
    let mut world = World::new();
    let seen = SeenTokens::default();
    let token = world.token("e1", 5);
    world.verify(&token, Some(&seen)).unwrap();
    world.verify(&token, Some(&seen)).unwrap();
    world.revocations.revoke(LinkId::from_number(5), Timestamp::MAX);
    assert_eq!(world.verify(&token, Some(&seen)), Err(Cause::Revoked));
    world.revocations = Revocations::new();
    world.keys.set_state(&KeyName::new("e1").unwrap(), distedge::link::KeyState::Revoked).unwrap();
    assert_eq!(world.verify(&token, Some(&seen)), Err(Cause::RevokedKey));
    world.keys.remove(&KeyName::new("e1").unwrap());
    assert_eq!(world.verify(&token, Some(&seen)), Err(Cause::UnknownKey));
}

/// Claims of every kind, most of them sound: the verifier and a second one, written from the table
/// of the claims alone, agree.
#[test]
fn two_verifiers_agree() {
    let mut random = Random(2);
    let (mut opened, mut refused) = (0, 0);
    for _ in 0..60_000 {
        let data = claims(&mut |most| random.below(most));
        if oracle::link_claims(data.as_bytes()) { opened += 1 } else { refused += 1 }
    }
    assert!(opened > 3_000 && refused > 3_000, "{opened} opened, {refused} refused");
}

/// Four bytes of a request, and claims that are mostly sound.
fn claims(below: &mut dyn FnMut(usize) -> usize) -> String {
    let mut text = String::new();
    for _ in 0..4 {
        // Low bytes choose what fits most links.
        let byte = if below(3) == 0 { below(128) } else { below(2) };
        text.push(byte as u8 as char);
    }
    let mut members: Vec<String> = vec!["\"v\":1".into(), "\"id\":\"01JD7ZC5N0E8T4S1Q2W3X4Y5Z6\"".into()];
    members.push("\"ten\":\"acme\"".into());
    let resources = [
        r#"[{"e":"generic-local/app/1.0/a"}]"#,
        r#"[{"p":"generic-local/app/1.0/"}]"#,
        r#"[{"p":"generic-local/"}]"#,
        r#"[{"e":"other/x"},{"p":"generic-local/app/"}]"#,
        r#"[{"e":"generic-local/app/1.0/a","p":"x/"}]"#,
        r#"[{"p":"generic-local/app/1.0"}]"#,
        r#"[{"e":"generic-local/app/1.0/a"},{"e":"generic-local/app/1.0/a"}]"#,
    ];
    let usual = if below(4) == 0 { resources.len() } else { 3 };
    members.push(format!("\"res\":{}", resources[below(usual)]));
    members.push(format!("\"iat\":{}", oracle::ISSUED));
    let life = [3_600, 31_536_000, 31_536_001, 0, 1];
    let usual = if below(6) == 0 { life.len() } else { 2 };
    members.push(format!("\"exp\":{}", oracle::ISSUED + life[below(usual)]));
    let optional: [(&str, &[&str]); 12] = [
        ("nbf", &["1800000000", "1800000160", "1800000161", "null", "-1"]),
        ("m", &[r#"["GET"]"#, r#"["HEAD"]"#, r#"["HEAD","GET"]"#, "[]", r#"["PUT"]"#]),
        ("aud", &[r#"["edge-eu"]"#, r#"["europe"]"#, r#"["edge-us"]"#, "[]", r#"["edge-eu","edge-us"]"#]),
        (
            "ip",
            &[
                r#"["203.0.113.0/24"]"#,
                r#"["0.0.0.0/0","::/0"]"#,
                r#"["203.0.113.7/32"]"#,
                r#"["2001:db8::/32"]"#,
                r#"["203.0.113.1/24"]"#,
                r#"["::ffff:203.0.113.0/120"]"#,
            ],
        ),
        ("cc", &[r#"["DE"]"#, r#"["FR","US"]"#, r#"["de"]"#, "[]"]),
        ("n", &["1", "1000000", "0", "1000001", "1.0"]),
        ("bps", &["1", "0", "9007199254740991", "9007199254740992"]),
        ("sub", &["\"cust-42\"", "\"\"", "\"a\\u0000\"", "7"]),
        (
            "sha",
            &[
                "\"ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb\"",
                "\"0000000000000000000000000000000000000000000000000000000000000000\"",
                "\"CA978112CA1BBDCAFAC231B39A23DC4DA786EFF8147C4E72B9807785AFEE48BB\"",
            ],
        ),
        ("ep", &["0", "5", "-5"]),
        ("pol", &["\"partners\""]),
        ("x", &["1"]),
    ];
    for (member, values) in optional {
        let rare = matches!(member, "pol" | "x" | "n");
        if below(if rare { 30 } else { 5 }) == 0 {
            let usual = if below(3) == 0 { values.len() } else { 1 };
            members.push(format!("\"{member}\":{}", values[below(usual)]));
        }
    }
    match below(40) {
        0 => drop(members.remove(below(members.len()))),
        1 => members.push(members[below(members.len())].clone()),
        _ => {}
    }
    // The order of members means nothing.
    let at = below(members.len());
    members.rotate_left(at);
    text.push_str(&format!("{{{}}}", members.join(",")));
    text
}

#[test]
fn looking_into_a_token_verifies_nothing() {
    let world = World::new();
    let token = world.token("h1", 9);
    let unverified = inspect(&token).unwrap();
    assert_eq!((unverified.key.as_str(), unverified.claims.id), ("h1", LinkId::from_number(9)));
    let forged = format!("{}AA", &token[..token.len() - 2]);
    assert_eq!(inspect(&forged).unwrap().claims, unverified.claims);
    assert!(inspect("v1.h1.e30.AA").is_err() && inspect("").is_err());
}

/// A million revoked links: what they take, and that all of them are found.
#[test]
fn a_million_revoked_links_fit() {
    let mut revocations = Revocations::new();
    let id = |number: u64| {
        let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        LinkId::from_number(u128::from(number) << 80 | u128::from(mixed))
    };
    revocations.revoke_all((0..1_000_000).map(|number| (id(number), Timestamp::MAX)));
    assert_eq!(revocations.len(), 1_000_000);
    assert!(revocations.memory() <= 64 << 20, "{} bytes", revocations.memory());
    assert!((0..1_000_000).step_by(97).all(|number| revocations.contains(id(number))));
    assert!((1_000_000..1_010_000).all(|number| !revocations.contains(id(number))));
}
