//! Group E: tokens of links that are spoiled, too long, of others, or used elsewhere.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use distedge::link::{Claims, DOMAIN, LinkAlgorithm, LinkId, LinkKey, LinkResource, mint};
use distedge::secret::Secret;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::rig::{Got, LINK_SECRET, Random, Rig, get, key, note, opened, order};
use crate::support::{NOW, name};

const A: &str = "/files/app/1.0/a.bin";
const S: &str = "/vault/s.bin";

fn hmac(text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(&LINK_SECRET).unwrap();
    mac.update(DOMAIN);
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// A token of the key `k1` with any payload at all, tagged as it should be.
pub(super) fn forged(payload: &str) -> String {
    let text = format!("v1.k1.{}", URL_SAFE_NO_PAD.encode(payload));
    let tag = URL_SAFE_NO_PAD.encode(hmac(&text));
    format!("{text}.{tag}")
}

pub(super) fn claims() -> Value {
    json!({
        "v": 1, "id": LinkId::generate(NOW).unwrap().to_string(), "ten": "default",
        "res": [{ "e": "vault/s.bin" }], "iat": NOW.as_unix(), "exp": NOW.as_unix() + 3_600,
    })
}

pub(super) async fn refused(rig: &Rig, token: &str) -> Got {
    let got = opened(S, token).to(&rig.edge).await;
    assert_ne!(got.status, 200, "{token}");
    got
}

/// A house, a good token for `vault/s.bin`, and the one answer to every token that is not.
pub(super) async fn house() -> (Rig, String, Got) {
    let rig = Rig::new().await;
    let (token, _) = rig.link(order(&["vault/s.bin"])).await;
    assert_eq!(opened(S, &token).to(&rig.edge).await.body, "the secret");
    let (other, _) = rig.link(order(&["vault/d/t.txt"])).await;
    let no = refused(&rig, &other).await;
    assert_eq!(no.status, 403);
    (rig, token, no)
}

#[tokio::test]
async fn e01_one_bit_or_one_byte_is_changed() {
    let (rig, token, no) = house().await;
    let (text, tag) = token.rsplit_once('.').unwrap();
    let tag = URL_SAFE_NO_PAD.decode(tag).unwrap();
    for bit in 0..256 {
        let mut spoiled = tag.clone();
        spoiled[bit / 8] ^= 1 << (bit % 8);
        let spoiled = format!("{text}.{}", URL_SAFE_NO_PAD.encode(spoiled));
        assert_eq!(refused(&rig, &spoiled).await, no, "bit {bit}");
    }
    let (head, payload) = text.rsplit_once('.').unwrap();
    let tag = URL_SAFE_NO_PAD.encode(tag);
    let payload = URL_SAFE_NO_PAD.decode(payload).unwrap();
    for at in 0..payload.len() {
        let mut spoiled = payload.clone();
        spoiled[at] ^= 1;
        let spoiled = format!("{head}.{}.{tag}", URL_SAFE_NO_PAD.encode(spoiled));
        assert_eq!(refused(&rig, &spoiled).await, no, "byte {at}");
    }
    assert_eq!(opened(S, &token).status(&rig.edge).await, 200, "the good one is still good");
}

#[tokio::test]
async fn e02_the_key_is_another_an_unknown_or_a_revoked_one() {
    let (rig, token, no) = house().await;
    let links = rig.links();
    let second = LinkKey::hmac(key("k2"), Secret::new([7; 32]), NOW).unwrap();
    links.add_key(second, "test").await.unwrap();
    links.create_key(Some(key("ed")), LinkAlgorithm::Ed25519, "test", NOW).await.unwrap();
    for other in ["k2", "k3", "k1x", "K1", "dummy"] {
        let swapped = token.replacen(".k1.", &format!(".{other}."), 1);
        let got = refused(&rig, &swapped).await;
        assert!(got == no || got.status == 400 && !other.starts_with('k'), "{other}: {got:?}");
    }
    // A v1 token that names a v2 key, and the other way round.
    assert_eq!(refused(&rig, &token.replacen(".k1.", ".ed.", 1)).await.status, 400);
    assert_eq!(refused(&rig, &token.replacen("v1.", "v2.", 1)).await.status, 400);
    assert_eq!(opened(S, &token).status(&rig.edge).await, 200);
    links.retire_key(&key("k1")).await.unwrap();
    assert_eq!(opened(S, &token).status(&rig.edge).await, 200, "a retired key verifies");
    links.revoke_key(&key("k1"), note()).await.unwrap();
    assert_eq!(refused(&rig, &token).await, no);
    drop(links);
    let rig = rig.reopened().await;
    assert_eq!(refused(&rig, &token).await, no, "also after a restart");
}

#[tokio::test]
async fn e04_the_token_comes_twice() {
    let (rig, token, _) = house().await;
    let user = rig.user(super::rig::new_user("user:alice")).await.0;
    let twice = format!("{S}?edge_token={token}&edge_token={token}");
    assert_eq!(get(&twice).status(&rig.edge).await, 400);
    for query in [
        format!("edge_token={token}&a=b&edge_token"),
        format!("edge_token&edge_token={token}"),
        format!("edge%5ftoken={token}"),
        format!("edge_token={token}&%65dge_token={token}"),
        format!("EDGE%5FTOKEN={token}"),
        "edge_token=".to_owned(),
        "edge_token".to_owned(),
    ] {
        assert_eq!(get(&format!("{S}?{query}")).status(&rig.edge).await, 400, "{query}");
    }
    for (header, value) in [
        ("authorization", format!("Bearer {token}")),
        ("authorization", format!("Bearer {user}")),
        ("authorization", format!("Bearer {}", rig.token)),
        ("authorization", format!("Basic {}", STANDARD.encode(format!("u:{user}")))),
        ("authorization", String::new()),
        ("x-jfrog-art-api", user.clone()),
    ] {
        assert_eq!(opened(S, &token).header(header, &value).status(&rig.edge).await, 400, "{header}");
    }
    // As a header it is nobody's token.
    assert_eq!(get(S).bearer(&token).status(&rig.edge).await, 401);
    assert_eq!(get(S).header("x-jfrog-art-api", &token).status(&rig.edge).await, 401);
    // The name is written in one way.
    assert_eq!(get(&format!("{S}?Edge_Token={token}")).status(&rig.edge).await, 401);
}

#[tokio::test]
async fn e08_a_plain_hash_in_place_of_an_hmac() {
    let (rig, token, no) = house().await;
    let (text, _) = token.rsplit_once('.').unwrap();
    let plain = |parts: &[&[u8]]| {
        let mut hash = Sha256::new();
        parts.iter().for_each(|part| hash.update(part));
        hash.finalize().to_vec()
    };
    // Glue padding of a message of 32 + 15 + n bytes.
    let length = LINK_SECRET.len() + DOMAIN.len() + text.len();
    let mut glue = vec![0x80_u8];
    while (length + glue.len()) % 64 != 56 {
        glue.push(0);
    }
    glue.extend_from_slice(&((length as u64) * 8).to_be_bytes());
    let mut without_domain = Hmac::<Sha256>::new_from_slice(&LINK_SECRET).unwrap();
    without_domain.update(text.as_bytes());
    let mut behind = Hmac::<Sha256>::new_from_slice(&LINK_SECRET).unwrap();
    behind.update(text.as_bytes());
    behind.update(DOMAIN);
    for tag in [
        plain(&[&LINK_SECRET, DOMAIN, text.as_bytes()]),
        plain(&[&LINK_SECRET, text.as_bytes()]),
        plain(&[DOMAIN, text.as_bytes()]),
        plain(&[&LINK_SECRET, DOMAIN, text.as_bytes(), &glue, b"x"]),
        without_domain.finalize().into_bytes().to_vec(),
        behind.finalize().into_bytes().to_vec(),
        vec![0; 32],
        LINK_SECRET.to_vec(),
    ] {
        let spoiled = format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag));
        assert_eq!(refused(&rig, &spoiled).await, no);
    }
}

#[tokio::test]
async fn e09_a_tag_of_another_length_or_spelling() {
    let (rig, token, _) = house().await;
    let (text, tag) = token.rsplit_once('.').unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(tag).unwrap();
    let longer = [&bytes[..], &[0]].concat();
    // 43 digits hold 258 bits: the last two mean nothing and must be zero.
    let last = tag.bytes().last().unwrap();
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let at = DIGITS.iter().position(|digit| *digit == last).unwrap();
    let mut tags = vec![
        String::new(),
        URL_SAFE_NO_PAD.encode(&bytes[..16]),
        URL_SAFE_NO_PAD.encode(&bytes[..31]),
        URL_SAFE_NO_PAD.encode(longer),
        format!("{tag}="),
        format!("{tag}%3D"),
        format!("{tag} ").replace(' ', "%20"),
        format!("{tag}."),
        format!("{tag}\u{0}").replace('\u{0}', "%00"),
        distedge::digest::Digest::of(b"").to_hex(),
        STANDARD.encode(&bytes).replace('+', "%2B").replace('/', "%2F"),
        tag.replacen(&tag[..1], &format!("%{:02X}", tag.as_bytes()[0]), 1),
    ];
    for other in 1..4 {
        tags.push(format!("{}{}", &tag[..42], char::from(DIGITS[at ^ other])));
    }
    for tag in tags {
        let status = refused(&rig, &format!("{text}.{tag}")).await.status;
        assert!(matches!(status, 400 | 403), "{tag}: {status}");
    }
    for token in
        [format!("{token}.x"), format!("x.{token}"), text.to_owned(), format!(" {token}").replace(' ', "+")]
    {
        assert!(matches!(refused(&rig, &token).await.status, 400 | 403), "{token}");
    }
}

#[tokio::test]
async fn e10_a_jwt_in_place_of_a_token() {
    let (rig, _, _) = house().await;
    let claims = json!({ "sub": "alice", "exp": NOW.as_unix() + 3_600, "res": [{ "e": "vault/s.bin" }] });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = |header: Value| {
        let text = format!("{}.{}", part(&header), part(&claims));
        let mut mac = Hmac::<Sha256>::new_from_slice(&LINK_SECRET).unwrap();
        mac.update(text.as_bytes());
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
    };
    let none = format!("{}.{}.", part(&json!({ "alg": "none", "typ": "JWT" })), part(&claims));
    for jwt in [none, signed(json!({ "alg": "HS256", "kid": "k1" })), signed(json!({ "alg": "HS256" }))] {
        assert_eq!(refused(&rig, &jwt).await.status, 400);
        assert_eq!(get(S).bearer(&jwt).status(&rig.edge).await, 401);
        assert_eq!(get(&format!("{S}?sig={jwt}")).status(&rig.edge).await, 401, "nobody reads it");
        assert_eq!(get(&format!("{A}?sig={jwt}")).status(&rig.edge).await, 200);
        assert_eq!(get(S).header("x-jfrog-art-api", &jwt).status(&rig.edge).await, 401);
    }
}

#[tokio::test]
async fn e11_claims_that_say_two_things() {
    let (rig, _, no) = house().await;
    let good = claims().to_string();
    assert_eq!(opened(S, &forged(&good)).status(&rig.edge).await, 200, "what is spoiled below is good");
    let exp = format!(r#""exp":{}"#, NOW.as_unix() + 3_600);
    assert!(good.contains(&exp));
    for spoiled in [
        r#""exp":1e99"#.to_owned(),
        r#""exp":-1"#.to_owned(),
        format!(r#""exp":"{}""#, NOW.as_unix() + 3_600),
        format!("{exp}.0"),
        r#""exp":null"#.to_owned(),
        r#""exp":[1800003600]"#.to_owned(),
        r#""exp":true"#.to_owned(),
        r#""exp":9007199254740993"#.to_owned(),
        r#""exp":18446744073709551616"#.to_owned(),
        r#""exp":1E10"#.to_owned(),
        format!("{exp},{exp}"),
        format!("{exp},\"admin\":true"),
        format!("{exp},\"n\":0"),
        format!("{exp},\"ip\":[]"),
        format!("{exp},\"ip\":null"),
        format!("{exp},\"cc\":[]"),
        format!("{exp},\"aud\":[]"),
        format!("{exp},\"m\":[\"PUT\"]"),
        format!(r#"{exp},"\u0065xp":9999999999"#),
        r#""Exp":1800003600"#.to_owned(),
    ] {
        let token = forged(&good.replacen(&exp, &spoiled, 1));
        assert_eq!(refused(&rig, &token).await, no, "{spoiled}");
    }
    for whole in [format!("{good}x"), format!("[{good}]"), "null".into(), "{}".into(), good.replace('}', "")]
    {
        assert_eq!(refused(&rig, &forged(&whole)).await, no, "{whole}");
    }
}

#[tokio::test]
async fn e18_a_token_that_is_too_long() {
    let (rig, token, _) = house().await;
    for (length, expected) in [(2_049, 400), (4_000, 400), (40_000, 414)] {
        let long = format!("{token}{}", "A".repeat(length - token.len()));
        assert_eq!(refused(&rig, &long).await.status, expected, "{length}");
        let padded = format!("{S}?edge_token={token}&x={}", "A".repeat(length));
        let expected = if expected == 414 { 414 } else { 200 };
        assert_eq!(get(&padded).status(&rig.edge).await, expected, "{length} bytes of something else");
    }
    // As long as a token may be: many resources.
    let mut claims = Claims::new(
        LinkId::generate(NOW).unwrap(),
        name("default"),
        LinkResource::parse("vault/s.bin").unwrap(),
        NOW,
        NOW.plus(60),
    );
    let signer = LinkKey::hmac(key("k1"), Secret::new(LINK_SECRET), NOW).unwrap();
    let mut longest = None;
    for at in 0..64 {
        let more = LinkResource::parse(&format!("vault/{}/{at}", "x".repeat(100))).unwrap();
        claims = claims.with_resource(more);
        match mint(&signer, &claims, NOW) {
            Ok(token) => longest = Some(token),
            Err(_) => break,
        }
    }
    let longest = longest.unwrap();
    assert!(longest.expose().len() > 1_800);
    assert_eq!(opened(S, longest.expose_str().unwrap()).status(&rig.edge).await, 200);
}

#[tokio::test]
async fn e19_the_query_asks_for_another_type() {
    let (rig, token, _) = house().await;
    let plain = opened(S, &token).to(&rig.edge).await;
    for more in [
        "response-content-type=text/html&response-content-disposition=inline",
        "response-cache-control=public&response-expires=0&response-content-encoding=gzip",
        "X-Amz-Signature=00&Expires=9999999999&method=DELETE&path=/vault/d/t.txt",
        "a=%0d%0aSet-Cookie:x=1",
    ] {
        let got = get(&format!("{S}?{more}&edge_token={token}")).to(&rig.edge).await;
        assert_eq!(got, plain, "{more}");
    }
    assert_eq!(plain.header("referrer-policy"), Some("no-referrer"));
    assert!(plain.header("cache-control").unwrap().contains("private"), "{plain:?}");
    // A link into a public repository is no public download.
    let (token, _) = rig.link(order(&["files/app/1.0/a.bin"])).await;
    let linked = opened(A, &token).to(&rig.edge).await;
    assert!(linked.header("cache-control").unwrap().contains("private"), "{linked:?}");
    assert!(get(A).to(&rig.edge).await.header("cache-control").unwrap().contains("public"));
}

/// Thousands of tokens that differ from a good one in a few places.
#[tokio::test]
async fn spoiled_tokens_of_every_kind() {
    let (rig, token, _) = house().await;
    let mut random = Random(9);
    for _ in 0..5_000 {
        let mut spoiled = token.clone().into_bytes();
        for _ in 0..=random.below(3) {
            let at = random.below(spoiled.len().max(1)).min(spoiled.len() - 1);
            match random.below(4) {
                0 => spoiled[at] = b"ABCxyz019-_.="[random.below(13)],
                1 if spoiled.len() > 2 => drop(spoiled.remove(at)),
                2 => spoiled.insert(at, b"A.-%"[random.below(3)]),
                _ => spoiled.truncate(at.max(2)),
            }
        }
        let spoiled = String::from_utf8(spoiled).unwrap();
        if spoiled != token {
            let status = refused(&rig, &spoiled).await.status;
            assert!(matches!(status, 400 | 403), "{status}: {spoiled}");
        }
    }
}
