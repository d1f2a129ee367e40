//! What a master token opens, and what it does not.

use distedge::error::Result;
use distedge::source::PairOptions;
use distedge::token::{ControlRequest, SIGNATURE_HEADER, SignedBody};
use distedge::transport::{Call, Credentials, Transport as _, Verb};
use http::Method;
use serde_json::{Value, json};

use super::{Line, Party, edge_record};
use crate::source::Bench;
use crate::support::name;

async fn paired() -> (Bench, Party, Credentials) {
    let (bench, party) = (Bench::with_keys().await, Party::new("e1").await);
    let token = party.issue().await;
    let options = PairOptions { base_url: Some("https://source.example".into()), name: Some(name("s1")) };
    bench.source.pair(&edge_record("e1"), &token, &options, &Line::to(&party)).await.unwrap();
    let credentials = bench.source.credentials(&name("e1")).await.unwrap();
    (bench, party, credentials)
}

fn bearer(credentials: &Credentials) -> String {
    format!("Bearer {}", credentials.token.as_ref().unwrap().expose_str().unwrap())
}

fn sign(credentials: &Credentials, method: &str, target: &str, body: SignedBody) -> String {
    let signer = credentials.signer.as_ref().unwrap();
    signer.sign(ControlRequest { method, target }, body).unwrap()
}

/// F10 over the wire.
#[tokio::test]
async fn a_master_token_without_its_signature_opens_nothing() {
    let (_bench, party, credentials) = paired().await;
    let (bearer, status) = (bearer(&credentials), "/api/v1/status");
    let empty = SignedBody::of(b"");
    let ask = async |target: &str, signature: &str| {
        let headers = [("authorization", &*bearer), (SIGNATURE_HEADER, signature)];
        party.ask(Method::GET, target, &headers, b"").await.0
    };
    assert_eq!(party.ask(Method::GET, status, &[("authorization", &bearer)], b"").await.0, 401);
    let signature = sign(&credentials, "GET", status, empty);
    assert_eq!(ask(status, &signature).await, 200);
    assert_eq!(ask(status, &signature).await, 401, "a second time");
    assert_eq!(ask("/api/v1/bundles", &sign(&credentials, "GET", status, empty)).await, 401, "elsewhere");
    assert_eq!(ask("/api/v1/status?x=1", &sign(&credentials, "GET", status, empty)).await, 401, "the query");
    assert_eq!(ask(status, &sign(&credentials, "PUT", status, empty)).await, 401, "another method");
    assert_eq!(ask(status, &sign(&credentials, "GET", status, SignedBody::Stream)).await, 401, "no digest");
    for seconds in [301, -602] {
        party.clock.advance(seconds);
        assert_eq!(ask(status, &sign(&credentials, "GET", status, empty)).await, 401, "{seconds}");
    }
    assert_eq!(party.log().iter().filter(|kind| *kind == "auth.failed").count(), 8);
}

#[tokio::test]
async fn a_body_that_is_not_what_was_signed_is_not_acted_on() {
    let (bench, party, credentials) = paired().await;
    let (bearer, target) = (bearer(&credentials), "/api/v1/trust");
    let trust = bench.source.trust().await.unwrap();
    let put = async |signed: SignedBody| {
        let signature = sign(&credentials, "PUT", target, signed);
        let headers = [("authorization", &*bearer), (SIGNATURE_HEADER, &*signature)];
        party.ask(Method::PUT, target, &headers, &trust).await.0
    };
    assert_eq!(put(SignedBody::of(b"something else")).await, 401);
    assert_eq!(put(SignedBody::of(b"")).await, 401);
    assert_eq!(put(SignedBody::Stream).await, 401, "a document is not verified by its content alone");
    assert!(party.edge.receiver().trust().await.unwrap().is_none());
    assert_eq!(put(SignedBody::of(&trust)).await, 200);
}

/// What the use case does not need, and what the pairing does not reach.
#[tokio::test]
async fn a_source_may_do_what_it_was_paired_for() {
    let (_bench, party, credentials) = paired().await;
    let wire = party.wire(credentials.clone());
    let call = async |verb, path: &str, body: &str| {
        let call = Call::new(verb, path).with_bytes(body.to_owned());
        wire.call(call).await.unwrap().status
    };
    assert_eq!(call(Verb::Get, "/api/v1/status", "").await, 200);
    for (verb, path, body) in [
        (Verb::Post, "/api/v1/gc", ""),
        (Verb::Post, "/api/v1/tokens", r#"{"principal":"user:x"}"#),
        (Verb::Post, "/api/v1/pairings/tokens", r#"{"use_case":"control"}"#),
        (Verb::Get, "/api/v1/pairings", ""),
        (Verb::Put, "/api/v1/repositories/files", r#"{"public":true}"#),
    ] {
        assert_eq!(call(verb, path, body).await, 404, "{path}");
    }
    let own = party.edge.pairings().unwrap().list().await.unwrap()[0].id;
    assert_eq!(call(Verb::Get, &format!("/api/v1/pairings/{own}"), "").await, 200, "its own pairing");
}

#[tokio::test]
async fn scope_and_name_are_as_issued() {
    let (bench, party) = (Bench::with_keys().await, Party::new("e1").await);
    let wish = json!({ "use_case": "source-edge", "name": "s1", "scopes": ["list:*"], "ttl": 60 });
    let (status, answer) = party.as_admin(Method::POST, "/api/v1/pairings/tokens", &wish).await;
    assert_eq!((status, &answer["issuer"]), (201, &json!("e1")));
    let text = distedge::secret::Secret::new(answer["token"].as_str().unwrap());
    let token = distedge::token::PairingToken::parse(&text).unwrap();
    assert_eq!(answer["fingerprint"], token.issuer_fingerprint());
    let line = Line::to(&party);
    let named = |called: &str| PairOptions { name: Some(name(called)), base_url: None };
    let refused = bench.source.pair(&edge_record("e1"), &token, &named("s2"), &line).await.unwrap_err();
    assert!(refused.to_string().contains("is for s1, not for s2"), "{refused}");
    bench.source.pair(&edge_record("e1"), &token, &named("s1"), &line).await.unwrap();
    let wire = party.wire(bench.source.credentials(&name("e1")).await.unwrap());
    let status = wire.call(Call::new(Verb::Get, "/api/v1/status")).await.unwrap().status;
    assert_eq!(status, 404, "receive is not in its scope");
    assert_eq!(wire.call(Call::new(Verb::Get, "/api/v1/bundles")).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_bad_wish_makes_no_token() {
    let party = Party::new("e1").await;
    for wish in [
        json!({}),
        json!({ "use_case": "everything" }),
        json!({ "use_case": "peer", "ttl": 3601 }),
        json!({ "use_case": "peer", "ttl": 0 }),
        json!({ "use_case": "peer", "network": "10.0.0.1/8" }),
        json!({ "use_case": "peer", "x": 1 }),
    ] {
        let (status, answer) = party.as_admin(Method::POST, "/api/v1/pairings/tokens", &wish).await;
        assert_eq!(status, 400, "{wish}: {answer}");
    }
    let (status, _) = party.ask(Method::POST, "/api/v1/pairings/tokens", &[], b"{}").await;
    assert_eq!(status, 401);
    let (status, _) = party.ask(Method::POST, "/api/v1/pairings/redeem", &[], b"{}").await;
    assert_eq!(status, 400);
    assert!(party.log().is_empty(), "{:?}", party.log());
}

/// The paths that migrating clients know.
#[tokio::test]
async fn the_paths_of_artifactory() {
    let party = Party::new("e1").await;
    let path = "/access/api/v1/service_trust/pairing/mission-control";
    let (status, answer) = party.as_admin(Method::POST, path, &Value::Null).await;
    assert_eq!(status, 200);
    let text = distedge::secret::Secret::new(answer["pairing_token"].as_str().unwrap());
    let token = distedge::token::PairingToken::parse(&text).unwrap();
    assert_eq!(token.use_case(), distedge::access::UseCase::Control);
    let (status, answer) =
        party.as_admin(Method::POST, &path.replace("mission-control", "moon"), &Value::Null).await;
    assert_eq!((status, &answer["errors"][0]["status"]), (400, &json!(400)));
    assert_eq!(party.ask(Method::POST, path, &[], b"").await.0, 401);

    let (_bench, party, credentials) = paired().await;
    let wire = party.wire(credentials);
    let status = async || wire.call(Call::new(Verb::Get, "/api/v1/status")).await.unwrap().status;
    assert_eq!(status().await, 200);
    let path = "/access/api/v1/service_trust/pairings/*";
    let base = |url: &str| json!({ "base_url": url });
    assert_eq!(party.as_admin(Method::DELETE, path, &base("https://other.example")).await.0, 404);
    assert_eq!(party.as_admin(Method::DELETE, path, &base("https://source.example/")).await.0, 200);
    assert_eq!(status().await, 401);
    assert_eq!(party.as_admin(Method::DELETE, path, &base("https://source.example/")).await.0, 404);
}

/// A pairing that nobody can read of has not happened.
#[tokio::test]
async fn what_cannot_be_recorded_is_not_done() {
    use distedge::audit::{AuditSink, Event};
    use distedge::edge::Governance;
    use distedge::error::{Error, ErrorKind};

    #[derive(Debug)]
    struct Full;

    #[async_trait::async_trait]
    impl AuditSink for Full {
        fn record(&self, _: Event) -> Result<()> {
            Err(Error::new(ErrorKind::NoSpace, "the log is full"))
        }

        async fn record_durable(&self, event: Event) -> Result<()> {
            self.record(event)
        }
    }

    let mut party = Party::new("e1").await;
    party.edge = party.edge.with_governance(Governance::none().with_audit(std::sync::Arc::new(Full)));
    let wish = json!({ "use_case": "source-edge" });
    let (status, answer) = party.as_admin(Method::POST, "/api/v1/pairings/tokens", &wish).await;
    assert!(status >= 500 && answer["token"].is_null(), "{status} {answer}");
    let wish = json!({ "principal": "user:x" });
    let (status, answer) = party.as_admin(Method::POST, "/api/v1/tokens", &wish).await;
    assert!(status >= 500 && answer["token"].is_null(), "{status} {answer}");
    let (_, pairings) = party.as_admin(Method::GET, "/api/v1/pairings", &Value::Null).await;
    assert_eq!(pairings[0]["state"], "over");
    let (_, tokens) = party.as_admin(Method::GET, "/api/v1/tokens", &Value::Null).await;
    assert!(!tokens[0]["revoked"].is_null());
}
