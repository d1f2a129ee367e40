//! The gate over HTTP requests: where a client is, what the policy says of it, why, and what another
//! policy would have said.

use std::sync::Arc;

use bytes::Bytes;
use distedge::address::{AddressHeader, TrustedProxies};
use distedge::audit::{LogOptions, TileLog, origin};
use distedge::edge::{Body, Governance, Handler as _};
use distedge::geo::StaticGeo;
use distedge::govern::Policies;
use distedge::meta::{MemoryStore, MetadataStore};
use distedge::policy::Document;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::support::{House, NOW, TOKEN, TestEdge, identity, name, taken};

const PEER: &str = "192.0.2.1:4711";
const APP: &str = "/files/shop/1.0/app";

struct Gate {
    edge: TestEdge,
    log: Arc<TileLog>,
    _directory: tempfile::TempDir,
}

/// An edge with the private repository `files` and two versions of the bundle `shop`, behind
/// proxies in 192.0.2.0/28 that write `header`.
async fn gate(header: AddressHeader) -> Gate {
    let store: Arc<dyn MetadataStore> = Arc::new(MemoryStore::new());
    let blobs = Arc::new(distedge::blob::MemoryBlobStore::new());
    let mut edge = TestEdge::over("edge-1", store.clone(), blobs, false).await.unwrap();
    let mut house = House::new(&["edge-1"]);
    house.release("shop", "1.0", 1, &[("shop/1.0/app", b"one"), ("shop/1.0/tool", b"tool")]).await;
    house.release("shop", "2.0", 2, &[("shop/2.0/app", b"two"), ("shop/2.0/tool", b"tool two")]).await;
    let directory = tempfile::tempdir().unwrap();
    let tenant = name("default");
    let node = name("edge-1");
    let signer = Arc::new(identity("edge-1"));
    let log = TileLog::open(
        directory.path(),
        &origin(&node, &tenant),
        signer,
        edge.clock.clone(),
        LogOptions::default(),
    );
    let log = Arc::new(log.unwrap());
    let countries = [("198.51.100.0/24", "DE"), ("203.0.113.0/24", "FR"), ("10.0.0.0/8", "DE")];
    let countries = countries.map(|(network, country)| (network.parse().unwrap(), country.parse().unwrap()));
    let proxies = TrustedProxies::new(vec!["192.0.2.0/28".parse().unwrap()], header);
    let governance = Governance::none()
        .with_proxies(proxies)
        .with_geo(Arc::new(StaticGeo::new(countries).unwrap()))
        .with_ledger(log.clone());
    let policies = Arc::new(Policies::open(store, &tenant).await.unwrap());
    edge.edge = edge.edge.with_policies(policies).with_governance(governance);
    edge.converge(&house.desired("edge-1"), &house.blobs).await.unwrap();
    Gate { edge, log, _directory: directory }
}

impl Gate {
    /// An anonymous `GET` from `peer` with these headers.
    async fn get(&self, path: &str, peer: &str, headers: &[(&str, &str)]) -> (StatusCode, Bytes) {
        let mut request = Request::builder().uri(path).header("host", "edge.test");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        taken(self.edge.edge.handle(request, peer.parse().unwrap()).await).await
    }

    /// A control request of the administrator.
    async fn ask(&self, method: Method, path: &str, body: &str) -> (StatusCode, Value) {
        let mut request = Request::builder().method(method).uri(path).header("host", "edge.test");
        request = request.header("authorization", format!("Bearer {TOKEN}"));
        if !body.is_empty() {
            request = request.header("content-length", body.len());
        }
        let body = Body::from_bytes(body.to_owned());
        let response = self.edge.edge.handle(request.body(body).unwrap(), PEER.parse().unwrap()).await;
        let (status, bytes) = taken(response).await;
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn put(&self, policy: Value) {
        let (status, answer) = self.ask(Method::PUT, "/api/v1/policy", &policy.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
    }

    fn kinds(&self) -> Vec<String> {
        let mut kinds = Vec::new();
        let read = self.log.entries(0, |_, bytes| {
            kinds.push(distedge::audit::Entry::parse(bytes)?.kind.as_str().to_owned());
            Ok(true)
        });
        read.unwrap();
        kinds
    }
}

fn everybody_reads() -> Value {
    json!([{ "name": "all", "to": ["anonymous", "authenticated"], "may": ["read"], "on": ["files/**"] }])
}

#[tokio::test]
async fn a_claimed_address_opens_nothing() {
    let gate = gate(AddressHeader::XForwardedFor).await;
    gate.put(json!({
        "grant": everybody_reads(),
        "restrict": [{ "name": "office", "networks": { "allow": ["10.0.0.0/8"] } }],
    }))
    .await;
    let xff = "x-forwarded-for";
    let long = "10.0.0.1, ".repeat(1024);
    for (case, peer, headers, expected) in [
        ("C01", "198.51.100.9:1", &[(xff, "10.0.0.1")][..], 403),
        ("C02", PEER, &[(xff, "10.0.0.1, 198.51.100.7")], 403),
        ("C03", PEER, &[(xff, "10.0.0.1"), (xff, "198.51.100.7")], 403),
        ("C03", PEER, &[(xff, "198.51.100.7"), (xff, "10.0.0.1")], 200),
        ("C04", PEER, &[(xff, "unknown")], 403),
        ("C04", PEER, &[(xff, "10.0.0.1:99")], 403),
        ("C04", PEER, &[(xff, "[::1]:80")], 403),
        ("C04", PEER, &[(xff, "10.0.0.1,,")], 403),
        ("C04", PEER, &[(xff, &long)], 403),
        ("C04", PEER, &[], 403),
        ("C05", PEER, &[("forwarded", "for=10.0.0.1"), (xff, "198.51.100.7")], 403),
        ("C05", PEER, &[("forwarded", "for=198.51.100.7"), (xff, "10.0.0.1")], 200),
        ("C09", "198.51.100.9:1", &[("x-real-ip", "10.0.0.1"), ("cf-connecting-ip", "10.0.0.1")], 403),
        ("C09", PEER, &[("true-client-ip", "10.0.0.1"), (xff, "198.51.100.7")], 403),
        ("C07", "[::ffff:10.0.0.1]:1", &[], 200),
        ("", "10.0.0.1:1", &[(xff, "198.51.100.7")], 200),
    ] {
        let (status, _) = gate.get(APP, peer, headers).await;
        assert_eq!(status, expected, "{case} {peer} {headers:?}");
    }
    // C04: what is not restricted does not ask where the client is.
    gate.put(json!({ "grant": everybody_reads() })).await;
    for value in ["unknown", "1.2.3.4:99", "1.2.3.4,,"] {
        assert_eq!(gate.get(APP, PEER, &[(xff, value)]).await.0, StatusCode::OK);
    }
    gate.put(json!({
        "grant": everybody_reads(),
        "restrict": [{ "name": "not them", "networks": { "deny": ["10.0.0.0/8"] } }],
    }))
    .await;
    assert_eq!(gate.get(APP, "[::ffff:10.0.0.1]:1", &[]).await.0, StatusCode::FORBIDDEN, "C07");
    assert_eq!(gate.get(APP, "198.51.100.9:1", &[]).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_policy_that_is_refused_leaves_the_old_one_in_force() {
    let gate = gate(AddressHeader::None).await;
    assert_eq!(gate.get(APP, PEER, &[]).await.0, StatusCode::UNAUTHORIZED);
    gate.put(json!({ "description": "first", "grant": everybody_reads() })).await;
    assert_eq!(gate.get(APP, PEER, &[]).await.0, StatusCode::OK);
    // C11.
    for network in ["10.0.0.5/8", "0.0.0.0/0", "1.2.3.4/33"] {
        let bad = json!({ "restrict": [{ "name": "r", "networks": { "allow": [network] } }] });
        let (status, answer) = gate.ask(Method::PUT, "/api/v1/policy", &bad.to_string()).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(answer["detail"].as_str().unwrap().contains("restrict[0].networks.allow[0]"), "{answer}");
        let (status, answer) = gate.ask(Method::POST, "/api/v1/policy/check", &bad.to_string()).await;
        assert_eq!((status, &answer["good"]), (StatusCode::OK, &json!(false)));
    }
    assert_eq!(gate.ask(Method::PUT, "/api/v1/policy", "{").await.0, StatusCode::UNPROCESSABLE_ENTITY);
    let (_, shown) = gate.ask(Method::GET, "/api/v1/policy", "").await;
    assert_eq!((&shown["version"], &shown["policy"]["description"]), (&json!(1), &json!("first")));
    assert_eq!(gate.get(APP, PEER, &[]).await.0, StatusCode::OK);
    let kinds = gate.kinds();
    let count = |kind: &str| kinds.iter().filter(|known| *known == kind).count();
    assert_eq!((count("policy.changed"), count("policy.rejected")), (1, 4));
}

#[tokio::test]
async fn a_policy_has_versions_and_a_way_back() {
    let gate = gate(AddressHeader::None).await;
    gate.put(json!({ "description": "open", "grant": everybody_reads() })).await;
    let closed = json!({ "description": "closed" }).to_string();
    let (status, _) = gate.ask(Method::PUT, "/api/v1/policy?expected=0", &closed).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(gate.ask(Method::PUT, "/api/v1/policy?expected=x", &closed).await.0, StatusCode::BAD_REQUEST);
    let (status, answer) = gate.ask(Method::PUT, "/api/v1/policy?expected=1", &closed).await;
    assert_eq!((status, &answer["version"]), (StatusCode::OK, &json!(2)));
    assert_eq!(gate.get(APP, PEER, &[]).await.0, StatusCode::UNAUTHORIZED);
    let back = json!({ "version": 1 }).to_string();
    let (status, answer) = gate.ask(Method::POST, "/api/v1/policy/rollback", &back).await;
    assert_eq!((status, &answer["version"]), (StatusCode::OK, &json!(3)));
    assert_eq!(gate.get(APP, PEER, &[]).await.0, StatusCode::OK);
    let (_, versions) = gate.ask(Method::GET, "/api/v1/policy/versions", "").await;
    assert_eq!(versions[0]["version"], 3);
    assert_eq!(versions[0]["rollback_of"], 1);
    assert_eq!(versions[1]["by"], "token:test");
    let (_, second) = gate.ask(Method::GET, "/api/v1/policy/versions/2", "").await;
    assert_eq!(second["policy"]["description"], "closed");
    assert_eq!(gate.ask(Method::GET, "/api/v1/policy/versions/9", "").await.0, StatusCode::NOT_FOUND);
    // Nobody else learns of it.
    for path in ["/api/v1/policy", "/api/v1/policy/versions", "/api/v1/explain"] {
        assert_eq!(gate.get(path, PEER, &[]).await.0.as_u16() / 100, 4, "{path}");
    }
}

fn steering() -> Value {
    json!({
        "grant": everybody_reads(),
        "steer": [{
            "name": "current", "repository": "files", "from": "shop/current/**", "to": "shop/{version}/**",
            "bundle": "shop",
            "choose": [{ "countries": ["FR"], "version": "1.0" }, { "languages": ["de"], "version": "2.0" }],
            "otherwise": "deny",
        }],
        "restrict": [{ "name": "not old", "versions": ["1.*"], "networks": { "deny": ["203.0.113.66"] } }],
    })
}

#[tokio::test]
async fn one_address_is_another_version_elsewhere() {
    let gate = gate(AddressHeader::None).await;
    gate.put(steering()).await;
    let get = async |peer: &str, languages: &str| {
        let (status, body) =
            gate.get("/files/shop/current/app", peer, &[("accept-language", languages)]).await;
        (status.as_u16(), String::from_utf8_lossy(&body).into_owned())
    };
    assert_eq!(get("203.0.113.1:1", "fr").await, (200, "one".into()));
    assert_eq!(get("198.51.100.1:1", "de-AT, en;q=0.5").await, (200, "two".into()));
    assert_eq!(get("198.51.100.1:1", "ja").await.0, 403, "nothing is meant for it");
    assert_eq!(get("203.0.113.66:1", "fr").await.0, 403, "what it is steered to is restricted");
    let (status, body) = gate.get("/files/shop/current/nothing", "203.0.113.1:1", &[]).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{body:?}");
}

#[tokio::test]
async fn an_explanation_agrees_with_what_clients_get() {
    let gate = gate(AddressHeader::None).await;
    gate.put(steering()).await;
    let explain = async |question: Value| {
        let (status, answer) = gate.ask(Method::POST, "/api/v1/explain", &question.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer["explanation"].clone()
    };
    let current = |address: &str, languages: &str| json!({ "repository": "files", "path": "shop/current/app", "address": address, "languages": languages });
    let french = explain(current("203.0.113.1", "fr")).await;
    assert_eq!((&french["decision"], &french["steered"]["path"]), (&json!("steer"), &json!("shop/1.0/app")));
    let odd = explain(current("203.0.113.66", "fr")).await;
    assert_eq!((&odd["decision"], &odd["rule"]), (&json!("forbid"), &json!("not old")));
    let nobody = explain(current("198.51.100.1", "ja")).await;
    assert_eq!((&nobody["decision"], &nobody["rule"]), (&json!("forbid"), &json!("current")));
    // The edge finds the bundle of an artifact itself.
    let old = json!({ "repository": "files", "path": "shop/1.0/app", "address": "203.0.113.66" });
    assert_eq!(explain(old).await["rule"], "not old");
    let new = json!({ "repository": "files", "path": "shop/2.0/app", "address": "203.0.113.66" });
    assert_eq!(explain(new).await["decision"], "permit");
    let link = json!({ "principal": "link:x", "repository": "files", "path": "shop/1.0/app", "address": "203.0.113.66" });
    assert_eq!(explain(link).await["rule"], "not old");
    let mint = json!({ "action": "mint", "repository": "files", "path": "shop/2.0/app" });
    assert_eq!(explain(mint).await["decision"], "unseen");
    assert_eq!(gate.ask(Method::POST, "/api/v1/explain", r#"{"pth":"x"}"#).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_policy_is_tried_on_the_downloads_of_the_past() {
    let gate = gate(AddressHeader::None).await;
    gate.put(json!({
        "grant": everybody_reads(),
        "restrict": [{ "name": "no french", "countries": { "deny": ["FR"] } }],
    }))
    .await;
    for (peer, expected) in [("203.0.113.1:1", 403), ("198.51.100.1:1", 200), ("198.51.100.2:1", 200)] {
        assert_eq!(gate.get(APP, peer, &[]).await.0, expected);
    }
    let wish = json!({
        "policy": {
            "grant": everybody_reads(),
            "restrict": [{ "name": "one address", "networks": { "allow": ["198.51.100.1", "203.0.113.0/24"] } }],
        },
        "from": NOW.plus(-60),
        "until": NOW.plus(60),
    });
    let (status, report) = gate.ask(Method::POST, "/api/v1/policy/replay", &wish.to_string()).await;
    assert_eq!(status, StatusCode::OK, "{report}");
    assert_eq!((&report["judged"], &report["skipped"]), (&json!(3), &json!(0)), "{report}");
    assert_eq!((&report["newly_denied"], &report["newly_allowed"]), (&json!(1), &json!(1)), "{report}");
    let denied = report["changes"].as_array().unwrap().iter().find(|one| one["allowed"] == false).unwrap();
    assert_eq!((&denied["rule"], &denied["example"]), (&json!("one address"), &json!("files/shop/1.0/app")));
    let bad = json!({ "policy": { "grants": [] }, "from": NOW }).to_string();
    let (status, _) = gate.ask(Method::POST, "/api/v1/policy/replay", &bad).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let never = json!({ "policy": {}, "from": NOW.plus(60) }).to_string();
    assert_eq!(gate.ask(Method::POST, "/api/v1/policy/replay", &never).await.1["judged"], 0);
}

/// An alias has a path of its own. What is closed under one of the two paths is closed under both.
#[tokio::test]
async fn an_alias_is_no_way_around_a_restriction() {
    let gate = gate(AddressHeader::None).await;
    let alias = "/files/shop/latest/app";
    assert_eq!(gate.get(alias, PEER, &[]).await.0, StatusCode::UNAUTHORIZED);
    for on in ["files/shop/latest/**", "files/shop/2.0/**", "files/shop/2.0/tool"] {
        let rule = json!({ "name": "r", "on": [on], "networks": { "allow": ["198.51.100.0/24"] } });
        gate.put(json!({ "grant": everybody_reads(), "restrict": [rule] })).await;
        assert_eq!(gate.get(alias, PEER, &[]).await.0, StatusCode::FORBIDDEN, "{on}");
        assert_eq!(gate.get(alias, "198.51.100.1:1", &[]).await.0, StatusCode::OK, "{on}");
        let question = json!({ "repository": "files", "path": "shop/latest/app", "address": "192.0.2.1" });
        let (_, answer) = gate.ask(Method::POST, "/api/v1/explain", &question.to_string()).await;
        assert_eq!(answer["explanation"]["decision"], "forbid", "{on}: {answer}");
    }
}

#[test]
fn the_example_shows_every_key_of_a_policy() {
    let text = include_str!("../../examples/edge/policy.toml");
    let value: Value = toml::from_str(text).unwrap();
    let document = Document::from_value(&value).unwrap();
    let written = document.to_value();
    for key in ["description", "groups", "networks", "grant", "restrict", "steer", "duties"] {
        assert!(written.get(key).is_some(), "{key}");
    }
    assert_eq!(Document::from_json(&document.to_json()).unwrap(), document);
}
