//! Credentials that another made, and those that were taken back while they were used.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use distedge::auth::{Issuer, Jwks, JwksLimits, JwksSource, OidcAuthenticator};
use distedge::edge::Body;
use distedge::error::Result;
use distedge::key::{Algorithm, Signer as _, SigningKey};
use distedge::token::NewUserToken;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::Response;
use serde_json::{Value, json};
use sha2::Sha256;

use super::rig::{HERE, Rig, get, new_user};
use crate::support::{FixedClock, NOW};

const S: &str = "/vault/s.bin";

/// A key set of one key.
#[derive(Debug)]
struct OneKey(String);

#[async_trait]
impl JwksSource for OneKey {
    async fn fetch(&self) -> Result<Bytes> {
        Ok(Bytes::from(self.0.clone()))
    }
}

struct Jwt {
    key: SigningKey,
    public: [u8; 32],
}

impl Jwt {
    fn new() -> Jwt {
        let key = SigningKey::generate(Algorithm::Ed25519, "", NOW).unwrap();
        let public = key.public_key().to_ed25519().unwrap();
        Jwt { key, public }
    }

    fn jwk(&self, kid: &str) -> Value {
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": URL_SAFE_NO_PAD.encode(self.public) })
    }

    fn claims() -> Value {
        json!({ "iss": "https://id.test", "aud": "e1", "sub": "alice", "iat": NOW.as_unix(), "exp": NOW.as_unix() + 600 })
    }

    fn text(header: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}", part(header), part(&Jwt::claims()))
    }

    fn sign(&self, header: &Value) -> String {
        let text = Jwt::text(header);
        let tag = self.key.sign(text.as_bytes(), NOW).unwrap();
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag))
    }
}

#[tokio::test]
async fn f14_a_jwt_brings_its_own_key() {
    let (trusted, evil) = (Jwt::new(), Jwt::new());
    let clock = FixedClock::new();
    let set = json!({ "keys": [trusted.jwk("k1")] }).to_string();
    let keys = Jwks::new(OneKey(set), JwksLimits::default(), clock.clone());
    let issuer = Issuer::new("https://id.test", vec!["e1".into()], keys).unwrap();
    let oidc = OidcAuthenticator::new(vec![issuer], clock).unwrap();
    let rig = Rig::with(|options| options.authenticators = vec![Arc::new(oidc)]).await;
    let grant = json!({ "name": "g", "to": ["user:alice"], "may": ["read"], "on": ["vault/**"] });
    rig.policy(json!({ "grant": [grant] })).await;
    let good = trusted.sign(&json!({ "alg": "EdDSA", "kid": "k1" }));
    assert_eq!(get(S).bearer(&good).status(&rig.edge).await, 200);
    let hmac = |header: Value, secret: &[u8]| {
        let text = Jwt::text(&header);
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
        mac.update(text.as_bytes());
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
    };
    let (head, tag) = good.rsplit_once('.').unwrap();
    let header = good.split('.').next().unwrap();
    for bad in [
        evil.sign(&json!({ "alg": "EdDSA", "kid": "k1" })),
        evil.sign(&json!({ "alg": "EdDSA", "kid": "k1", "jwk": evil.jwk("k1") })),
        evil.sign(&json!({ "alg": "EdDSA", "jwk": evil.jwk("k1") })),
        evil.sign(&json!({ "alg": "EdDSA", "kid": "k1", "jku": "https://evil.test/keys" })),
        evil.sign(&json!({ "alg": "EdDSA", "kid": "k1", "x5c": ["AAAA"] })),
        evil.sign(&json!({ "alg": "EdDSA", "kid": "../../k1" })),
        trusted.sign(&json!({ "alg": "EdDSA", "kid": "k1", "crit": ["x"], "x": 1 })),
        trusted.sign(&json!({ "alg": "ES256", "kid": "k1" })),
        trusted.sign(&json!({ "alg": "none", "kid": "k1" })),
        format!("{}.", Jwt::text(&json!({ "alg": "none" }))),
        format!("{}.", Jwt::text(&json!({ "alg": "NonE", "kid": "k1" }))),
        hmac(json!({ "alg": "HS256", "kid": "k1" }), &trusted.public),
        hmac(json!({ "alg": "HS256", "kid": "k1" }), b""),
        format!("{head}."),
        format!("{head}.{}", &tag[..40]),
        format!("{header}.{}.{tag}", URL_SAFE_NO_PAD.encode(json!({ "sub": "root" }).to_string())),
        format!("{good}.x"),
    ] {
        let refused = get(S).bearer(&bad).status(&rig.edge).await;
        assert!(matches!(refused, 400 | 401), "{refused}: {bad}");
        let public = get("/files/app/1.0/a.bin").bearer(&bad).status(&rig.edge).await;
        assert!(matches!(public, 400 | 401), "public, too: {public}: {bad}");
    }
    rig.clock.advance(0);
    assert_eq!(get(S).bearer(&good).status(&rig.edge).await, 200);
}

/// A token is revoked after it was looked at and before the download begins: as when the two
/// requests come at once.
#[tokio::test]
async fn a_revocation_between_look_and_begin_cuts_nothing() {
    #[derive(Debug)]
    struct Late(distedge::access::Principal);
    #[async_trait]
    impl distedge::auth::Authenticator for Late {
        async fn authenticate(
            &self,
            _: &http::request::Parts,
        ) -> Result<Option<distedge::access::Principal>> {
            Ok(Some(self.0.clone()))
        }

        fn challenge(&self) -> Option<distedge::auth::Challenge> {
            None
        }
    }
    let rig = Rig::new().await;
    let (_, id) = rig.user(new_user("user:alice")).await;
    rig.edge.tokens().unwrap().revoke(id, "t", "left", NOW).await.unwrap();
    let guarded = |response: &Response<Body>| response.body().guard().is_some_and(|guard| !guard.holds());
    let late = super::rig::someone("alice", Some(id.to_string()));
    let edge = rig.edge.clone().with_authenticator(Box::new(Late(late)));
    let begun = get("/files/app/1.0/a.bin").begun(&edge).await;
    assert!(guarded(&begun), "a download with a token that was revoked has nobody to cut it");
    // Somebody else's credentials are not looked for among the tokens.
    for credential in [Some("kid-1".to_owned()), None, Some("0123456789abcdef".into())] {
        let other = super::rig::someone("alice", credential);
        let edge = rig.edge.clone().with_authenticator(Box::new(Late(other)));
        let begun = get("/files/app/1.0/a.bin").begun(&edge).await;
        assert!(begun.body().guard().is_none_or(|guard| guard.holds()));
    }
}

/// Time alone cuts nothing that began in time, whatever upkeep forgets meanwhile.
#[tokio::test]
async fn upkeep_cuts_a_download_whose_token_ran_out() {
    let rig = Rig::new().await;
    let new = NewUserToken { expires: Some(NOW.plus(60)), ..new_user("user:alice") };
    let (token, id) = rig.user(new).await;
    let begun = get("/files/app/1.0/a.bin").bearer(&token).from(HERE).begun(&rig.edge).await;
    let guard = begun.body().guard().unwrap().clone();
    assert!(guard.holds());
    rig.clock.advance(61);
    assert!(guard.holds());
    rig.edge.upkeep().await.unwrap();
    assert!(guard.holds(), "it began in time");
    assert_eq!(get("/files/app/1.0/a.bin").bearer(&token).status(&rig.edge).await, 401);
    rig.edge.tokens().unwrap().revoke(id, "t", "left", NOW.plus(61)).await.unwrap();
    assert!(!guard.holds(), "revocation cuts it");
}
