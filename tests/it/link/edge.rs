//! Signed URLs on an edge: minted, used, counted and taken back over HTTP.

use std::sync::Arc;

use distedge::access::{AccessRequest, Action, Principal, Resource};
use distedge::audit::{MemoryAudit, kind};
use distedge::auth::TokenAuthenticator;
use distedge::blob::MemoryBlobStore;
use distedge::catalog::Catalog;
use distedge::distribute::Receiver;
use distedge::edge::{Body, Edge, Gate, Governance, Handler as _};
use distedge::govern::{LinkOptions, Links, MemoryLinkVault};
use distedge::meta::{MemoryStore, MetadataStore};
use distedge::name::{NodeName, Tenant};
use distedge::policy::{Effect, Policy, PolicySet};
use distedge::secret::Secret;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::support::{FixedClock, House, TestEdge, identity, name, peer, taken};

const ADMIN: &str = "eut1_admin";
/// May mint everywhere, and read `app/1.0/**` alone.
const PARTNER: &str = "eut1_partner";

#[derive(Debug)]
struct Rights;

impl Policy for Rights {
    fn evaluate(&self, request: &AccessRequest<'_>) -> Effect {
        let Principal::Token { name } = request.principal else { return Effect::Abstain };
        let readable = match request.resource {
            Resource::Repository { path: Some(path), .. } => {
                path.as_str() == "app/1.0" || path.as_str().starts_with("app/1.0/")
            }
            _ => false,
        };
        match (name.as_str(), request.action) {
            ("admin", _) => Effect::Permit,
            ("partner", Action::Mint) if !matches!(request.resource, Resource::Edge) => Effect::Permit,
            ("partner", Action::Read) if readable => Effect::Permit,
            _ => Effect::Abstain,
        }
    }
}

struct World {
    edge: Edge,
    clock: Arc<FixedClock>,
    audit: Arc<MemoryAudit>,
    links: Links,
}

impl World {
    async fn new() -> World {
        let store: Arc<dyn MetadataStore> = Arc::new(MemoryStore::new());
        let clock = FixedClock::new();
        let tenant: Tenant = name("default");
        let catalog = Catalog::open(store.clone(), tenant.clone()).await.unwrap();
        let receiver = Receiver::open(
            catalog,
            Arc::new(MemoryBlobStore::new()),
            clock.clone(),
            name::<NodeName>("e1"),
            Arc::new(identity("e1")),
        );
        let receiver = receiver.await.unwrap();
        let tokens = [ADMIN, PARTNER].map(|token| (Secret::new(token).fingerprint(), token[5..].to_owned()));
        let options = LinkOptions::new(name("e1"));
        let links = Links::open(store, &tenant, Arc::new(MemoryLinkVault::default()), options).await.unwrap();
        let audit = Arc::new(MemoryAudit::default());
        let governance = Governance::none().with_links(links.clone()).with_audit(audit.clone());
        let policies = PolicySet::new(vec![Arc::new(Rights)]);
        let edge = Edge::new(receiver, Gate::new(), Arc::new(TokenAuthenticator::new(tokens)), policies)
            .with_governance(governance);
        let mut house = House::new(&["e1"]);
        house
            .release("shop", "1", 1, &[("app/1.0/a b.bin", b"0123456789"), ("app/2.0/b.bin", b"second")])
            .await;
        let test = TestEdge { edge: edge.clone(), clock: clock.clone() };
        let transport = crate::support::LoopTransport { edge: edge.clone(), token: Some(ADMIN) };
        let events: distedge::distribute::Events = Arc::new(|_| {});
        let options = distedge::distribute::Options::at(crate::support::NOW);
        let desired = house.desired("e1");
        distedge::distribute::converge(&transport, &house.blobs, &desired, options, &events).await.unwrap();
        drop(test);
        World { edge, clock, audit, links }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> (StatusCode, http::HeaderMap, bytes::Bytes) {
        let mut request = Request::builder().method(method).uri(path).header("host", "edge.test");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        if !body.is_empty() {
            request = request.header("content-length", body.len());
        }
        let body = if body.is_empty() { Body::empty() } else { Body::from_bytes(body) };
        let response = self.edge.handle(request.body(body).unwrap(), peer()).await;
        let headers = response.headers().clone();
        let (status, bytes) = taken(response).await;
        (status, headers, bytes)
    }

    async fn ask(&self, method: Method, path: &str, token: &str, body: Value) -> (StatusCode, Value) {
        let body = (!body.is_null()).then_some(body);
        let (status, _, bytes) = self.send(method, path, Some(token), body).await;
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn key(&self, algorithm: &str) {
        let wish = json!({ "algorithm": algorithm });
        let (status, key) = self.ask(Method::POST, "/api/v1/link-keys", ADMIN, wish).await;
        assert_eq!((status, &key["algorithm"]), (StatusCode::CREATED, &json!(algorithm)), "{key}");
    }

    /// Mints, and gives the path of the URL and the id.
    async fn mint(&self, wish: Value) -> (String, String) {
        let (status, link) = self.ask(Method::POST, "/api/v1/links", ADMIN, wish).await;
        assert_eq!(status, StatusCode::CREATED, "{link}");
        let url = link["url"].as_str().unwrap();
        (url.strip_prefix("http://edge.test").unwrap().to_owned(), link["id"].as_str().unwrap().to_owned())
    }

    async fn get(&self, path: &str) -> (u16, bytes::Bytes) {
        let (status, _, bytes) = self.send(Method::GET, path, None, None).await;
        (status.as_u16(), bytes)
    }
}

fn file() -> Value {
    json!({ "repository": "files", "path": "app/1.0/a b.bin" })
}

fn with(mut value: Value, member: &str, set: Value) -> Value {
    value[member] = set;
    value
}

#[tokio::test]
async fn a_link_opens_one_file_until_it_is_taken_back() {
    let world = World::new().await;
    for algorithm in ["v1", "v2"] {
        world.key(algorithm).await;
        let (url, id) = world.mint(with(file(), "algorithm", json!(algorithm))).await;
        assert!(url.starts_with(&format!("/files/app/1.0/a%20b.bin?edge_token={algorithm}.")), "{url}");
        assert_eq!(world.get(&url).await, (200, "0123456789".into()));
        let plain = url.split_once('?').unwrap().0;
        assert_eq!(world.get(plain).await.0, 401);
        // Case E04.
        let token = url.split_once('?').unwrap().1;
        assert_eq!(world.get(&format!("{url}&{token}")).await.0, 400);
        let (status, ..) = world.send(Method::GET, &url, Some(ADMIN), None).await;
        assert_eq!(status, 400);
        // Case E19.
        let (status, headers, _) =
            world.send(Method::GET, &format!("{url}&response-content-type=text/html"), None, None).await;
        assert_eq!(status, 200);
        assert_ne!(headers["content-type"], "text/html");
        // Case E06.
        let other = url.replace("a%20b.bin", "a%20b.bin.sig");
        let refused = world.get(&other).await;
        // Any other last character; an `A` is replaced by one that can stand there, too.
        let last = if url.ends_with('A') { 'Q' } else { 'A' };
        let forged = world.get(&format!("{}{last}", &url[..url.len() - 1])).await;
        assert!(refused.0 == 403 && (forged.0 == 400 || forged == refused));

        let path = format!("/api/v1/links/{id}");
        let (status, seen) = world.ask(Method::GET, &path, ADMIN, Value::Null).await;
        assert_eq!(
            (status, &seen["dead"], &seen["who"]),
            (StatusCode::OK, &Value::Null, &json!("token:admin"))
        );
        assert_eq!(world.ask(Method::GET, &path, PARTNER, Value::Null).await.0, 404);
        assert_eq!(world.ask(Method::DELETE, &path, PARTNER, json!({"reason": "x"})).await.0, 404);
        let (status, seen) = world.ask(Method::DELETE, &path, ADMIN, json!({"reason": "sent to all"})).await;
        assert_eq!((status, &seen["dead"]), (StatusCode::OK, &json!("revoked")), "{seen}");
        assert_eq!(world.get(&url).await, refused, "one body for all refusals");
    }
    let (status, page) = world.ask(Method::GET, "/api/v1/links?n=1", ADMIN, Value::Null).await;
    assert_eq!((status, page["links"].as_array().unwrap().len()), (StatusCode::OK, 1));
    let next = format!("/api/v1/links?after={}", page["next"].as_str().unwrap());
    let (_, page) = world.ask(Method::GET, &next, ADMIN, Value::Null).await;
    assert_eq!((page["links"].as_array().unwrap().len(), &page["next"]), (1, &Value::Null));
}

/// Nobody gives away what they do not have.
#[tokio::test]
async fn who_may_not_read_may_not_mint() {
    let world = World::new().await;
    world.key("v1").await;
    let mint = async |body: Value| world.ask(Method::POST, "/api/v1/links", PARTNER, body).await.0.as_u16();
    assert_eq!(mint(file()).await, 201);
    assert_eq!(mint(json!({ "resources": ["files/app/1.0/"] })).await, 201);
    for beyond in ["files/app/2.0/b.bin", "files/app/", "files/", "nowhere/x"] {
        assert_eq!(mint(json!({ "resources": [beyond] })).await, 404, "{beyond}");
    }
    assert_eq!(mint(json!({ "resources": ["files/app/1.0/x", "files/y"] })).await, 404);
    let (status, ..) = world.send(Method::POST, "/api/v1/links", None, Some(file())).await;
    assert_eq!(status, 401);
    for administers in ["/api/v1/link-keys", "/api/v1/links/revoke"] {
        let body = json!({ "everything": true, "reason": "x", "algorithm": "v1" });
        let status = world.ask(Method::POST, administers, PARTNER, body).await.0;
        assert!(status == 404 || status == 400, "{administers}: {status}");
    }
    // What nobody understands must not be taken for no limit.
    for wish in [
        with(file(), "adresses", json!(["192.0.2.0/24"])),
        with(file(), "networks", json!([])),
        with(file(), "uses", json!(0)),
        with(file(), "expires_in", json!(366 * 86_400)),
        json!({ "path": "x" }),
        json!({}),
    ] {
        let (status, answer) = world.ask(Method::POST, "/api/v1/links", ADMIN, wish.clone()).await;
        assert_eq!(status, 400, "{wish}: {answer}");
    }
}

#[tokio::test]
async fn a_counted_link_is_used_up() {
    let world = World::new().await;
    world.key("v1").await;
    let (url, id) = world.mint(with(file(), "uses", json!(1))).await;
    let (status, _, body) = world.send(Method::HEAD, &url, None, None).await;
    assert_eq!((status.as_u16(), body.len()), (200, 0));
    assert_eq!(world.get(&url).await.0, 200);
    assert_eq!(world.get(&url).await.0, 403);
    let (_, seen) = world.ask(Method::GET, &format!("/api/v1/links/{id}"), ADMIN, Value::Null).await;
    assert_eq!(seen["usage"]["completed"], 1, "{seen}");
}

#[tokio::test]
async fn policies_subjects_and_keys_take_their_links_with_them() {
    let world = World::new().await;
    world.key("v1").await;
    let (status, _) = world.ask(Method::PUT, "/api/v1/link-policies/partners", ADMIN, json!({})).await;
    assert_eq!(status, 200);
    let (limited, _) = world.mint(with(file(), "policy", json!("partners"))).await;
    let (bobs, _) = world.mint(with(file(), "subject", json!("bob"))).await;
    let (plain, _) = world.mint(file()).await;
    assert_eq!(world.get(&limited).await.0, 200);
    let far = json!({ "networks": ["192.0.2.0/24"] });
    world.ask(Method::PUT, "/api/v1/link-policies/partners", ADMIN, far).await;
    assert_eq!(world.get(&limited).await.0, 403);
    let revoke = async |body: Value| world.ask(Method::POST, "/api/v1/links/revoke", ADMIN, body).await;
    assert_eq!(revoke(json!({ "subject": "bob" })).await.0, 400, "without a reason");
    assert_eq!(revoke(json!({ "subject": "bob", "reason": "left" })).await.1["epoch"], 1);
    assert_eq!((world.get(&bobs).await.0, world.get(&plain).await.0), (403, 200));
    let (_, keys) = world.ask(Method::GET, "/api/v1/link-keys", ADMIN, Value::Null).await;
    let key = keys[0]["id"].as_str().unwrap();
    let step = format!("/api/v1/link-keys/{key}/retire");
    assert_eq!(
        world.ask(Method::POST, &step, ADMIN, json!({"reason": "old"})).await.1["state"],
        "verify-only"
    );
    assert_eq!(world.get(&plain).await.0, 200);
    assert_eq!(world.ask(Method::POST, "/api/v1/links", ADMIN, file()).await.0, 404, "nothing mints");
    let step = format!("/api/v1/link-keys/{key}/revoke");
    assert_eq!(world.ask(Method::POST, &step, ADMIN, json!({"reason": "lost"})).await.1["state"], "revoked");
    assert_eq!(world.get(&plain).await.0, 403);
    // What this edge knows, another one can be told.
    let (_, update) = world.ask(Method::GET, "/api/v1/link-revocations?after=1", ADMIN, Value::Null).await;
    assert_eq!((&update["after"], &update["sequence"]), (&json!(1), &json!(2)), "{update}");
    let other = World::new().await;
    let all = world.ask(Method::GET, "/api/v1/link-revocations", ADMIN, Value::Null).await.1;
    let (status, answer) = other.ask(Method::POST, "/api/v1/link-revocations", ADMIN, all).await;
    assert_eq!((status, &answer["applied"]), (StatusCode::OK, &json!(2)));
    assert_eq!(other.links.sequence(), 2);
}

#[tokio::test]
async fn clients_of_artifactory_get_their_url_and_can_take_it_back() {
    let world = World::new().await;
    world.key("v1").await;
    let place = "/artifactory/api/signed/url";
    let wish = json!({ "repo_path": "/files/app/1.0/a b.bin", "valid_for_secs": 600 });
    let (status, headers, body) = world.send(Method::POST, place, Some(ADMIN), Some(wish)).await;
    assert_eq!(status, 201);
    let url = std::str::from_utf8(&body).unwrap();
    let path = url.strip_prefix("http://edge.test").unwrap();
    assert_eq!(world.get(path).await.0, 200);
    world.clock.advance(600);
    assert_eq!(world.get(path).await.0, 403);
    let milliseconds = (distedge::clock::Timestamp::as_unix(crate::support::NOW) + 4_000) * 1000;
    let wish = json!({ "repo_path": "files/app/1.0/a b.bin", "expiry": milliseconds });
    let (_, later, body) = world.send(Method::POST, place, Some(ADMIN), Some(wish)).await;
    let path = std::str::from_utf8(&body).unwrap().strip_prefix("http://edge.test").unwrap().to_owned();
    assert_eq!(world.get(&path).await.0, 200);
    assert_ne!(headers["x-link-id"], later["x-link-id"]);
    let one = format!("{place}/{}", later["x-link-id"].to_str().unwrap());
    let (status, _, body) = world.send(Method::DELETE, &one, Some(ADMIN), None).await;
    assert_eq!((status.as_u16(), body.len()), (204, 0));
    assert_eq!(world.get(&path).await.0, 403);
    let (status, ..) = world.send(Method::POST, place, None, Some(json!({ "repo_path": "x/y" }))).await;
    assert_eq!(status, 401);
}

/// Case E20, as far as the log goes.
#[tokio::test]
async fn the_log_names_links_and_tells_no_token() {
    let world = World::new().await;
    world.key("v1").await;
    let (url, id) = world.mint(with(file(), "subject", json!("cust-42"))).await;
    world.get(&url).await;
    world.get(&url.replace("1.0", "2.0")).await;
    world.ask(Method::DELETE, &format!("/api/v1/links/{id}"), ADMIN, json!({"reason": "over"})).await;
    world.get(&url).await;
    let events = world.audit.events();
    for wanted in [
        kind::LINK_KEY_CREATED,
        kind::LINK_MINTED,
        kind::DOWNLOAD_START,
        kind::DOWNLOAD_END,
        kind::DOWNLOAD_DENIED,
        kind::LINK_REVOKED,
    ] {
        assert!(events.iter().any(|event| event.kind == wanted), "no {wanted}");
    }
    let text = format!("{events:?}");
    let token = url.split_once("edge_token=").unwrap().1;
    for part in [token, token.split('.').nth(2).unwrap(), token.split('.').nth(3).unwrap()] {
        assert!(!text.contains(part), "{part}");
    }
    assert!(text.contains(&id));
}
