use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use serde_json::json;

use super::*;
use crate::auth::{JwksFile, JwksLimits, JwksSource, TokenAuthenticator};
use crate::error::ErrorKind;

/// When the tokens in `tests/data/oidc` are valid.
const NOW: i64 = 1_800_000_000;

#[derive(Debug, Default)]
struct Hand(AtomicI64);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix(NOW + self.0.load(Ordering::SeqCst))
    }
}

/// A key set that can be exchanged, and counts how often it is fetched.
#[derive(Debug, Default)]
struct Source {
    answer: Mutex<Option<String>>,
    fetched: AtomicUsize,
}

#[async_trait]
impl JwksSource for Arc<Source> {
    async fn fetch(&self) -> Result<Bytes> {
        self.fetched.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        let answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner).clone();
        answer.map(Bytes::from).ok_or_else(|| Error::new(ErrorKind::Unavailable, "the issuer is away"))
    }
}

impl Source {
    fn answers(&self, answer: Option<String>) {
        *self.answer.lock().unwrap() = answer;
    }
}

struct Signer {
    ed: Ed25519KeyPair,
    p256: EcdsaKeyPair,
    source: Arc<Source>,
    clock: Arc<Hand>,
}

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Signer {
    fn new() -> Signer {
        let random = SystemRandom::new();
        let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let p256 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let signer = Signer {
            ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap(),
            p256: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, p256.as_ref(), &random).unwrap(),
            source: Arc::default(),
            clock: Arc::default(),
        };
        signer
            .source
            .answers(Some(json!({ "keys": [signer.ed_key("ed"), signer.p256_key("p256")] }).to_string()));
        signer
    }

    fn ed_key(&self, kid: &str) -> Value {
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": encoded(self.ed.public_key()) })
    }

    fn p256_key(&self, kid: &str) -> Value {
        let point = self.p256.public_key().as_ref();
        json!({ "kty": "EC", "crv": "P-256", "kid": kid, "x": encoded(&point[1..33]), "y": encoded(&point[33..]) })
    }

    fn jwks(&self) -> Jwks {
        Jwks::new(self.source.clone(), JwksLimits { fresh: 3_600, stale: 7_200 }, self.clock.clone())
    }

    fn issuer(&self) -> Issuer {
        Issuer::new("https://id.acme.test", vec!["edge".into(), "other-edge".into()], self.jwks()).unwrap()
    }

    fn authenticator(&self, issuer: Issuer) -> OidcAuthenticator {
        OidcAuthenticator::new(vec![issuer], self.clock.clone()).unwrap()
    }

    /// Signs with the Ed25519 key, whatever the header says.
    fn sign(&self, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", encoded(header), encoded(claims));
        format!("{signed}.{}", encoded(self.ed.sign(signed.as_bytes())))
    }

    fn token(&self, claims: &Value) -> String {
        self.sign(r#"{"alg":"EdDSA","kid":"ed","typ":"JWT"}"#, &claims.to_string())
    }
}

fn claims() -> Value {
    json!({
        "iss": "https://id.acme.test", "aud": "edge", "sub": "alice", "jti": "t-1",
        "iat": NOW - 10, "exp": NOW + 600,
    })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

fn verify(authenticator: &OidcAuthenticator, token: &str) -> Result<Principal> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(authenticator.verify(token))
}

fn parts(name: &'static str, value: &str) -> Parts {
    http::Request::builder().header(name, value).body(()).unwrap().into_parts().0
}

fn fixture(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/oidc").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn tokens_of_others_are_verified_with_every_algorithm() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/oidc/keys.json");
    let keys = Jwks::new(JwksFile::new(path), JwksLimits::default(), Arc::new(Hand::default()));
    let issuer = Issuer::new("https://id.acme.test", vec!["edge".into()], keys.clone()).unwrap();
    let issuer = issuer.with_group(ClaimValue::new("groups", "builders"), "ci");
    let authenticator = OidcAuthenticator::new(vec![issuer], Arc::new(Hand::default())).unwrap();
    let tokens: BTreeMap<String, BTreeMap<String, String>> =
        serde_json::from_value(fixture("tokens.json")).unwrap();
    assert_eq!(tokens["good"].len(), 4);
    for (name, token) in &tokens["good"] {
        let alice = verify(&authenticator, token).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(alice.to_string(), "user:alice");
        assert_eq!(alice.groups(), ["ci"]);
        assert_eq!(alice.credential(), Some("jwt:t-1"));
    }
    for (name, token) in &tokens["bad"] {
        assert_eq!(verify(&authenticator, token).unwrap_err().kind(), ErrorKind::Unauthenticated, "{name}");
    }
    // Of seven keys, P-384, the short one and the symmetric one are of no use.
    assert_eq!(keys.state().keys, 4);
    // Any other bit, and it does not hold.
    for token in tokens["good"].values() {
        for at in (0..token.len()).step_by(97) {
            let mut spoiled = token.clone().into_bytes();
            spoiled[at] = if spoiled[at] == b'A' { b'Q' } else { b'A' };
            let spoiled = String::from_utf8(spoiled).unwrap();
            assert!(verify(&authenticator, &spoiled).is_err(), "{at}: {spoiled}");
        }
    }
}

/// F14 and E10: what a token says of keys and algorithms never chooses them.
#[test]
fn a_token_does_not_bring_its_own_trust() {
    let (signer, stranger) = (Signer::new(), Signer::new());
    let authenticator = signer.authenticator(signer.issuer());
    let claims = claims().to_string();
    let good = signer.sign(r#"{"alg":"EdDSA","kid":"ed"}"#, &claims);
    assert!(verify(&authenticator, &good).is_ok());
    assert!(verify(&authenticator, &signer.sign(r#"{"alg":"Ed25519","kid":"ed"}"#, &claims)).is_ok());

    // Its own key, under the id of a trusted one.
    let own = stranger.ed_key("ed");
    let stolen = stranger.sign(&json!({ "alg": "EdDSA", "kid": "ed", "jwk": own }).to_string(), &claims);
    for token in [stolen, stranger.sign(r#"{"alg":"EdDSA","kid":"ed"}"#, &claims)] {
        assert_eq!(verify(&authenticator, &token).unwrap_err().kind(), ErrorKind::Unauthenticated);
    }
    // Even a token that holds is refused if it brings such things along.
    for more in [
        r#""jwk":{}"#,
        r#""jwk":null"#,
        r#""jku":"https://evil.test/keys""#,
        r#""x5u":"https://evil.test/cert""#,
        r#""x5c":["AAAA"]"#,
        r#""crit":["exp"],"exp":1"#,
        r#""crit":[]"#,
        r#""b64":false"#,
        r#""zip":"DEF""#,
        r#""typ":"logout+jwt""#,
        r#""typ":"dpop+jwt""#,
        r#""typ":null"#,
        r#""kid":"p256""#,
        r#""alg":"none""#,
    ] {
        let token = signer.sign(&format!(r#"{{"alg":"EdDSA","kid":"ed",{more}}}"#), &claims);
        assert!(verify(&authenticator, &token).is_err(), "{more}");
    }
    for header in [
        r#"{"alg":"none","kid":"ed"}"#,
        r#"{"alg":"None","kid":"ed"}"#,
        r#"{"alg":"","kid":"ed"}"#,
        r#"{"kid":"ed"}"#,
        r#"{"alg":null,"kid":"ed"}"#,
        r#"{"alg":["EdDSA"],"kid":"ed"}"#,
        r#"{"alg":"eddsa","kid":"ed"}"#,
        r#"{"alg":"ES256","kid":"ed"}"#,
        r#"{"alg":"RS256","kid":"ed"}"#,
        r#"{"alg":"EdDSA"}"#,
        r#"{"alg":"EdDSA","kid":null}"#,
        r#"{"alg":"EdDSA","kid":"p256"}"#,
        r#"{"alg":"ES256","kid":"p256"}"#,
        r#"{"alg":"EdDSA","kid":"../ed"}"#,
        r#"{"alg":"EdDSA","kid":["ed"]}"#,
        r#"{"alg":"EdDSA","alg":"EdDSA","kid":"ed"}"#,
        r#"["EdDSA","ed"]"#,
    ] {
        let token = signer.sign(header, &claims);
        assert!(verify(&authenticator, &token).is_err(), "{header}");
        let unsigned = format!("{}.", token.rsplit_once('.').unwrap().0);
        assert!(verify(&authenticator, &unsigned).is_err(), "{header}");
    }
    // The public key as the secret of an HMAC.
    let public = signer.ed.public_key().as_ref();
    for secret in [public, encoded(public).as_bytes(), signer.ed_key("ed").to_string().as_bytes()] {
        let signed = format!("{}.{}", encoded(r#"{"alg":"HS256","kid":"ed"}"#), encoded(&claims));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes());
        let error = verify(&authenticator, &format!("{signed}.{}", encoded(tag))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthenticated);
    }
}

#[test]
fn a_p256_signature_has_one_form() {
    let signer = Signer::new();
    let authenticator = signer.authenticator(signer.issuer());
    let signed = format!("{}.{}", encoded(r#"{"alg":"ES256","kid":"p256"}"#), encoded(claims().to_string()));
    let signature = signer.p256.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
    assert!(verify(&authenticator, &format!("{signed}.{}", encoded(signature.as_ref()))).is_ok());
    let long = [signature.as_ref(), &[0]].concat();
    for bad in [&long[..], &signature.as_ref()[..63], &[0; 64], &[]] {
        assert!(verify(&authenticator, &format!("{signed}.{}", encoded(bad))).is_err());
    }
}

#[test]
fn claims_that_do_not_hold_are_refused() {
    let signer = Signer::new();
    let authenticator = signer.authenticator(signer.issuer());
    let leeway = 30;
    for (good, why) in [
        (claims(), "plain"),
        (with("aud", json!(["x", "other-edge"])), "one of several audiences"),
        (with("exp", json!(NOW - leeway + 1)), "expired within the leeway"),
        (with("iat", json!(NOW + leeway)), "issued ahead within the leeway"),
        (with("nbf", json!(NOW + leeway)), "begins within the leeway"),
        (with("weight", json!(-1.5e300)), "claims nobody asks for"),
        (with("x", json!({ "y": [null, true, { "z": "\u{1f600}" }] })), "claims nobody asks for"),
    ] {
        assert!(verify(&authenticator, &signer.token(&good)).is_ok(), "{why}");
    }
    for (bad, why) in [
        (with("iss", json!("https://id.acme.test/")), "another spelling of the issuer"),
        (with("iss", json!("https://evil.test")), "another issuer"),
        (with("iss", json!(["https://id.acme.test"])), "a list of issuers"),
        (without("iss"), "no issuer"),
        (with("aud", json!("shop")), "replayed from another audience"),
        (with("aud", json!(["shop", "Edge"])), "another case"),
        (with("aud", json!([])), "no audience"),
        (with("aud", json!(["edge", 1])), "an audience that is no text"),
        (with("aud", json!({ "edge": true })), "an audience that is an object"),
        (with("aud", Value::Null), "a null audience"),
        (without("aud"), "a token for anyone"),
        (with("exp", json!(NOW - leeway)), "expired"),
        (with("exp", json!(0)), "expired long ago"),
        (with("exp", json!(-1)), "expired before time"),
        (with("exp", json!(1e99)), "a number nobody can hold"),
        (with("exp", json!(u64::MAX)), "after every time"),
        (with("exp", json!(NOW + 600).as_f64().unwrap().into()), "a fraction"),
        (with("exp", json!((NOW + 600).to_string())), "a text"),
        (with("exp", Value::Null), "null"),
        (without("exp"), "no end"),
        (with("exp", json!(NOW - 10 + 86_401)), "too long a life"),
        (with("iat", json!(NOW + leeway + 1)), "issued in the future"),
        (without("iat"), "no beginning"),
        (with("nbf", json!(NOW + leeway + 1)), "not yet valid"),
        (with("nbf", json!("0")), "a beginning that is no number"),
        (with("sub", json!("")), "no name"),
        (with("sub", json!("a\nb")), "a line break in the name"),
        (with("sub", json!(" alice")), "a blank before the name"),
        (with("sub", json!("a".repeat(256))), "a long name"),
        (with("sub", json!(7)), "a name that is a number"),
        (without("sub"), "nobody"),
        (with("cnf", json!({ "jkt": "x" })), "bound to a key"),
        (json!([]), "an array"),
    ] {
        let error = verify(&authenticator, &signer.token(&bad)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{why}: {error}");
    }
    let twice = |more: &str| claims().to_string().replacen('{', &format!("{{{more},"), 1);
    for bad in [
        twice(r#""aud":"shop""#),
        twice(r#""\u0073ub":"admin""#),
        twice(r#""x":{"a":1,"a":2}"#),
        twice(r#""x":"\ud800""#),
        format!("{} x", claims()),
        "\u{feff}{}".into(),
        String::new(),
        "[".repeat(3_000),
    ] {
        let error = verify(&authenticator, &signer.sign(r#"{"alg":"EdDSA","kid":"ed"}"#, &bad)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{bad}: {error}");
    }
}

#[test]
fn a_compact_token_has_one_spelling() {
    let signer = Signer::new();
    let authenticator = signer.authenticator(signer.issuer());
    let good = signer.token(&claims());
    assert!(verify(&authenticator, &good).is_ok());
    let parts: Vec<&str> = good.split('.').collect();
    let long = signer.token(&with("x", json!("x".repeat(8_000))));
    for bad in [
        format!("{good}="),
        format!("{good}.{}", parts[2]),
        format!(" {good}"),
        format!("{good}\n"),
        format!("{}..{}", parts[0], parts[2]),
        format!("{}.{}", parts[0], parts[1]),
        good.replace('.', ".."),
        "..".into(),
        String::new(),
        long,
    ] {
        assert_eq!(verify(&authenticator, &bad).unwrap_err().kind(), ErrorKind::Unauthenticated, "{bad}");
    }
}

#[test]
fn claims_make_names_groups_and_services() {
    let signer = Signer::new();
    let path =
        |names: &[&str]| ClaimPath::new(names.iter().map(|name| (*name).to_owned()).collect()).unwrap();
    let issuer = signer
        .issuer()
        .with_prefix("acme:")
        .with_services_where(ClaimValue::new("idtyp", "app"))
        .with_required(ClaimValue::new("owner", "acme"))
        .with_group(ClaimValue::new(path(&["realm", "roles"]), "release"), "releasers")
        .with_group(ClaimValue::new("scope", "read"), "readers")
        .with_group(ClaimValue::new("admin", "true"), "admins")
        .with_groups_of("groups", "okta/");
    let authenticator = signer.authenticator(issuer);
    let mut claims = claims();
    assert!(verify(&authenticator, &signer.token(&claims)).is_err(), "what is required is missing");
    claims["owner"] = json!("acme");
    let alice = verify(&authenticator, &signer.token(&claims)).unwrap();
    assert_eq!(alice.to_string(), "user:acme:alice");
    assert!(alice.groups().is_empty() && alice.scopes().is_none());
    claims["realm"] = json!({ "roles": ["x", "release"] });
    claims["scope"] = json!("openid  read");
    claims["admin"] = json!(true);
    claims["groups"] = json!(["b", "a", "a", 7, "", "x\ny"]);
    claims["idtyp"] = json!("app");
    let alice = verify(&authenticator, &signer.token(&claims)).unwrap();
    assert_eq!(alice.to_string(), "service:acme:alice");
    assert_eq!(alice.groups(), ["admins", "okta/a", "okta/b", "readers", "releasers"]);
    // Near misses make nothing.
    claims["realm"] = json!({ "roles": ["releases", "Release"] });
    claims["scope"] = json!("read:all");
    claims["admin"] = json!("false");
    claims["groups"] = json!({ "a": true });
    assert!(verify(&authenticator, &signer.token(&claims)).unwrap().groups().is_empty());
    claims["groups"] = json!((0..1_001).map(|at| at.to_string()).collect::<Vec<_>>());
    assert!(verify(&authenticator, &signer.token(&claims)).is_err());
}

/// Whoever can enter any address as theirs would be anybody.
#[test]
fn an_email_counts_only_if_it_is_verified() {
    let signer = Signer::new();
    let authenticator = signer.authenticator(signer.issuer().with_name("email"));
    let mut claims = with("email", json!("alice@acme.test"));
    for unverified in [Value::Null, json!(false), json!("true"), json!(1)] {
        claims["email_verified"] = unverified;
        assert!(verify(&authenticator, &signer.token(&claims)).is_err());
    }
    claims["email_verified"] = json!(true);
    assert_eq!(verify(&authenticator, &signer.token(&claims)).unwrap().to_string(), "user:alice@acme.test");
}

#[test]
fn an_issuer_speaks_for_its_own_keys_and_names_only() {
    let (one, two) = (Signer::new(), Signer::new());
    let issuer = |signer: &Signer, name: &str, prefix: &str| {
        Issuer::new(name, vec!["edge".into()], signer.jwks()).unwrap().with_prefix(prefix)
    };
    let first = issuer(&one, "https://id.acme.test", "a:");
    let second = issuer(&two, "https://id.other.test", "b:");
    let both = OidcAuthenticator::new(vec![first, second], one.clock.clone()).unwrap();
    let other = with("iss", json!("https://id.other.test"));
    assert_eq!(verify(&both, &one.token(&claims())).unwrap().to_string(), "user:a:alice");
    assert_eq!(verify(&both, &two.token(&other)).unwrap().to_string(), "user:b:alice");
    // The ids of their keys are the same.
    assert!(verify(&both, &one.token(&other)).is_err());
    assert!(verify(&both, &two.token(&claims())).is_err());
    for (left, right) in [("", ""), ("", "b:"), ("a:", "a:b:"), ("a:", "a:")] {
        let issuers = vec![issuer(&one, "x", left), issuer(&two, "y", right)];
        assert!(OidcAuthenticator::new(issuers, one.clock.clone()).is_err(), "{left:?} {right:?}");
    }
    let twice = vec![issuer(&one, "x", "a:"), issuer(&two, "x", "b:")];
    assert!(OidcAuthenticator::new(twice, one.clock.clone()).is_err());
    assert!(Issuer::new("x", vec![], one.jwks()).is_err());
    assert!(Issuer::new("", vec!["edge".into()], one.jwks()).is_err());
    assert!(one.issuer().with_leeway(61).is_err());
}

#[tokio::test]
async fn tokens_come_in_three_ways_and_others_pass() {
    let signer = Signer::new();
    let authenticator = signer.authenticator(signer.issuer());
    let ask = async |name: &'static str, value: &str| authenticator.authenticate(&parts(name, value)).await;
    let good = signer.token(&with("x", json!("x".repeat(4_000))));
    assert!(good.len() > 4_096);
    let basic = |password: &str| format!("Basic {}", STANDARD.encode(format!("ci:{password}")));
    for (name, value) in [
        ("authorization", format!("Bearer {good}")),
        ("authorization", basic(&good)),
        ("x-jfrog-art-api", good.clone()),
    ] {
        assert_eq!(ask(name, &value).await.unwrap().unwrap().to_string(), "user:alice", "{name}");
    }
    for other in ["Bearer eut1_abc", "Bearer eyJ.x", "Bearer a.b.c", "Bearer x", "Basic Y2k6eA=="] {
        assert_eq!(ask("authorization", other).await.unwrap(), None, "{other}");
    }
    for bad in [
        format!("Bearer {good}x"),
        format!("Bearer {}", signer.token(&with("aud", json!("x")))),
        format!("Bearer {}.e30.", encoded(r#"{"alg":"none"}"#)),
        basic(&format!("{good}x")),
    ] {
        let error = ask("authorization", &bad).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthenticated);
        assert!(!error.to_string().contains("eyJ"), "{error}");
    }
    let mut twice = parts("authorization", &format!("Bearer {good}"));
    twice.headers.append("x-jfrog-art-api", good.parse().unwrap());
    assert_eq!(authenticator.authenticate(&twice).await.unwrap_err().kind(), ErrorKind::Invalid);

    // Before opaque tokens in a chain.
    let opaque = crate::secret::Secret::new("s3cret");
    let opaque = TokenAuthenticator::new([(opaque.fingerprint(), "admin".to_owned())]);
    let chain = crate::auth::Chain::new(vec![Box::new(authenticator), Box::new(opaque)]);
    let admin = chain.authenticate(&parts("authorization", "Bearer s3cret")).await.unwrap().unwrap();
    assert_eq!(admin.to_string(), "token:admin");
    let alice = chain.authenticate(&parts("authorization", &format!("Bearer {good}"))).await.unwrap();
    assert_eq!(alice.unwrap().to_string(), "user:alice");
}

#[tokio::test]
async fn random_key_ids_cause_one_fetch_a_minute() {
    let signer = Signer::new();
    let authenticator = Arc::new(signer.authenticator(signer.issuer()));
    let fetched = || signer.source.fetched.load(Ordering::SeqCst);
    let good = signer.token(&claims());
    // Everybody comes at once, and the keys are not there yet.
    let all = (0..50).map(|_| authenticator.verify(&good));
    assert!(futures_util::future::join_all(all).await.iter().all(Result::is_ok));
    assert_eq!(fetched(), 1);
    for minute in 0..3 {
        let strangers: Vec<String> = (0..50)
            .map(|at| {
                signer.sign(&format!(r#"{{"alg":"EdDSA","kid":"{minute}-{at}"}}"#), &claims().to_string())
            })
            .collect();
        let all = strangers.iter().map(|token| authenticator.verify(token));
        for refused in futures_util::future::join_all(all).await {
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unauthenticated);
        }
        assert_eq!(fetched(), 1 + minute);
        signer.clock.0.fetch_add(60, Ordering::SeqCst);
    }
    // A key that was added is found with the first token that names it.
    let keys = json!({ "keys": [signer.ed_key("next")] });
    signer.source.answers(Some(keys.to_string()));
    let next = signer.sign(r#"{"alg":"EdDSA","kid":"next"}"#, &claims().to_string());
    assert!(authenticator.verify(&next).await.is_ok());
    assert!(authenticator.verify(&good).await.is_err(), "a key that was taken back is gone");
    assert_eq!(fetched(), 4);
}

#[tokio::test]
async fn keys_are_believed_for_a_bounded_time() {
    let signer = Signer::new();
    let keys = signer.jwks();
    let issuer = Issuer::new("https://id.acme.test", vec!["edge".into()], keys.clone()).unwrap();
    let authenticator = signer.authenticator(issuer.with_max_lifetime(1_000_000));
    let fetched = || signer.source.fetched.load(Ordering::SeqCst);
    let good = signer.token(&with("exp", json!(NOW + 900_000)));
    let after = async |seconds: i64| {
        signer.clock.0.store(seconds, Ordering::SeqCst);
        let answer = authenticator.verify(&good).await;
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        answer
    };
    assert!(after(0).await.is_ok());
    assert!(after(3_600).await.is_ok());
    assert_eq!(fetched(), 1, "it is fresh for an hour");
    // The issuer goes away: what is there is believed for two hours more, and asked for once a minute.
    signer.source.answers(None);
    assert!(after(3_601).await.is_ok());
    assert!(after(3_602).await.is_ok());
    assert_eq!(fetched(), 2);
    assert_eq!(keys.state().fault.as_deref(), Some("the issuer is away"));
    assert!(keys.refresh().await.is_ok(), "a minute has not passed");
    assert!(after(10_800).await.is_ok());
    assert_eq!(after(10_801).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(after(11_000).await.unwrap_err().kind(), ErrorKind::Unavailable);
    // A bad key set is no key set.
    signer.source.answers(Some(r#"{"keys":[]}"#.into()));
    assert_eq!(after(12_000).await.unwrap_err().kind(), ErrorKind::Unavailable);
    signer.source.answers(Some(json!({ "keys": [signer.ed_key("ed")] }).to_string()));
    assert!(after(13_000).await.is_ok());
    assert_eq!(keys.state().fault, None);
    assert_eq!(keys.state().fetched, Some(Timestamp::from_unix(NOW + 13_000)));
    // One key: a token may leave its id out.
    let nameless = signer.sign(r#"{"alg":"EdDSA"}"#, &with("exp", json!(NOW + 900_000)).to_string());
    assert!(authenticator.verify(&nameless).await.is_ok());
}

/// Whoever breaks off its requests would otherwise keep the keys from ever being fetched: each
/// attempt counts, and none comes to its end.
#[tokio::test]
async fn a_request_that_breaks_off_leaves_the_fetch_running() {
    let signer = Signer::new();
    let authenticator = signer.authenticator(signer.issuer());
    let good = signer.token(&claims());
    let mut broken = Box::pin(authenticator.verify(&good));
    assert!(futures_util::poll!(&mut broken).is_pending());
    drop(broken);
    assert!(authenticator.verify(&good).await.is_ok());
    assert_eq!(signer.source.fetched.load(Ordering::SeqCst), 1);
}
