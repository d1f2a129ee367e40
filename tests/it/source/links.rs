//! Signed URLs minted at the source: honoured at the edges, taken back at once, and never by others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use distedge::access::{Identity, Principal, Scope};
use distedge::audit::{AuditSink, Event, MemoryAudit};
use distedge::auth::TokenAuthenticator;
use distedge::blob::MemoryBlobStore;
use distedge::catalog::Catalog;
use distedge::clock::Clock as _;
use distedge::distribute::Receiver;
use distedge::edge::{Body, Edge, Gate, Governance, Handler as _};
use distedge::error::{Error, ErrorKind, Result};
use distedge::govern::{
    LinkOptions, LinkVault as _, Links, MemoryLinkVault, MintOrder, Pairings, RevocationUpdate, Tokens,
};
use distedge::link::{KeyName, LinkAlgorithm, LinkPolicy};
use distedge::meta::{Batch, MemoryStore, MetadataStore};
use distedge::name::{NodeName, Tenant};
use distedge::policy::{CompiledPolicy, Document, PolicySet, TokenHolders};
use distedge::secret::Secret;
use distedge::source::{
    Authority, ConvergeOptions, ConvergeProgress, Dial, EdgeRecord, LinkPush, LinkTarget, PairOptions, Ports,
    SignedUrl, Source,
};
use distedge::token::{PairingToken, SIGNATURE_HEADER};
use distedge::transport::{Answer, Call, CallBody, Credentials, Transport, Verb};
use http::{Method, Request};
use serde_json::{Value, json};

use super::{Bench, NOW, parse};
use crate::support::{FixedClock, TOKEN, identity, peer};

/// An edge that honours signed URLs.
#[derive(Clone, Debug)]
struct Site {
    edge: Edge,
    links: Links,
    vault: Arc<MemoryLinkVault>,
    audit: Arc<MemoryAudit>,
}

impl Site {
    async fn new(called: &str) -> Site {
        Site::of(called, "default").await
    }

    async fn of(called: &str, tenant: &str) -> Site {
        let store: Arc<dyn MetadataStore> = Arc::new(MemoryStore::new());
        let tenant: Tenant = parse(tenant);
        let catalog = Catalog::open(store.clone(), tenant.clone()).await.unwrap();
        let (blobs, key) = (Arc::new(MemoryBlobStore::new()), Arc::new(identity(called)));
        let receiver = Receiver::open(catalog, blobs, FixedClock::new(), parse(called), key.clone());
        let bootstrap = TokenAuthenticator::new([(Secret::new(TOKEN).fingerprint(), "admin".to_owned())]);
        let policies = PolicySet::new(vec![Arc::new(CompiledPolicy::default())]);
        let tokens = Tokens::open(store.clone(), &tenant).await.unwrap();
        let pairings = Pairings::open(store.clone(), &tenant, parse(called), key).await.unwrap();
        let vault = Arc::new(MemoryLinkVault::default());
        let options = LinkOptions::new(parse(called));
        let links = Links::open(store, &tenant, vault.clone(), options).await.unwrap();
        let audit = Arc::new(MemoryAudit::default());
        let governance = Governance::none().with_links(links.clone()).with_audit(audit.clone());
        let edge = Edge::new(receiver.await.unwrap(), Gate::new(), Arc::new(bootstrap), policies)
            .with_access(Arc::new(tokens), Arc::new(pairings))
            .with_governance(governance);
        Site { edge, links, vault, audit }
    }

    async fn send(&self, mut request: http::request::Builder, body: Body, length: u64) -> Answer {
        request = request.header("host", "edge.test");
        if length > 0 {
            request = request.header("content-length", length);
        }
        let response = self.edge.handle(request.body(body).unwrap(), peer()).await;
        let offset =
            response.headers().get("upload-offset").and_then(|value| value.to_str().ok()?.parse().ok());
        let status = response.status().as_u16();
        Answer { status, offset, body: response.into_body().collect(1 << 26).await.unwrap() }
    }

    /// Status of an anonymous `GET` of what a link opens, without its host.
    async fn get(&self, path: &str) -> u16 {
        let request = Request::builder().method(Method::GET).uri(path);
        self.send(request, Body::empty(), 0).await.status
    }

    async fn opens(&self, signed: &SignedUrl) -> u16 {
        self.get(signed.minted.path.expose_str().unwrap()).await
    }

    async fn ask(&self, method: Method, path: &str, token: Option<&str>, body: &Value) -> (u16, Value) {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let length = body.len() as u64;
        let answer = self.send(request, Body::from_bytes(Bytes::from(body)), length).await;
        (answer.status, serde_json::from_slice(&answer.body).unwrap_or(Value::Null))
    }

    fn log(&self, kind: &str) -> Vec<Event> {
        self.audit.events().into_iter().filter(|event| event.kind == kind).collect()
    }
}

/// The ways to all edges; one that was pulled does not answer.
#[derive(Debug, Default)]
struct Net(Mutex<BTreeMap<NodeName, Option<Site>>>);

impl Net {
    fn plug(&self, site: &Site) {
        self.0.lock().unwrap().insert(site.edge.receiver().name().clone(), Some(site.clone()));
    }

    fn pull(&self, name: &str) {
        self.0.lock().unwrap().insert(parse(name), None);
    }
}

#[derive(Debug)]
struct Wire(Option<Site>, Credentials);

#[async_trait]
impl Transport for Wire {
    async fn call(&self, call: Call) -> Result<Answer> {
        let Some(site) = &self.0 else {
            return Err(Error::new(ErrorKind::Unavailable, "connecting to 192.0.2.1: connection refused"));
        };
        let signature = self.1.sign(&call)?;
        let mut request = Request::builder().method(call.verb.as_str()).uri(&call.path);
        if let Some(token) = &self.1.token {
            request = request.header("authorization", format!("Bearer {}", token.expose_str().unwrap()));
        }
        if let Some(signature) = signature {
            request = request.header(SIGNATURE_HEADER, signature);
        }
        if let Some(offset) = call.offset {
            request = request.header("upload-offset", offset);
        }
        let (length, body) = match call.body {
            CallBody::Bytes(bytes) => (bytes.len() as u64, Body::from_bytes(bytes)),
            CallBody::Stream(length, stream) => (length, Body::from_stream(length, stream)),
        };
        Ok(site.send(request, body, length).await)
    }
}

impl Dial for Net {
    fn dial(&self, edge: &EdgeRecord, credentials: Credentials) -> Result<Arc<dyn Transport>> {
        let site = self.0.lock().unwrap().get(&edge.name).cloned().flatten();
        Ok(Arc::new(Wire(site, credentials)))
    }
}

fn record(called: &str) -> EdgeRecord {
    EdgeRecord::new(parse(called), format!("https://{called}.example/"))
}

fn operator() -> Principal {
    Authority::local_operator()
}

async fn converge(source: &Source, net: &Net) -> Vec<distedge::source::EdgeOutcome> {
    let silent: ConvergeProgress = Arc::new(|_, _| ());
    source.converge(net, &ConvergeOptions::default(), &silent).await.unwrap()
}

fn file() -> MintOrder {
    MintOrder { resources: vec!["files/app/one".into()], ..MintOrder::default() }
}

/// A source and two edges that hold what it released.
struct World {
    bench: Bench,
    net: Net,
    sites: [Site; 2],
}

impl World {
    async fn new() -> World {
        let (bench, net) = (Bench::with_keys().await, Net::default());
        let sites = [Site::new("e1").await, Site::new("e2").await];
        for (site, name) in sites.iter().zip(["e1", "e2"]) {
            net.plug(site);
            bench.source.set_edge(&record(name), Some(&Secret::new(TOKEN))).await.unwrap();
        }
        bench.add("files/app/one", b"one", &[]).await;
        bench.release("app", "1.0", "**").await;
        bench.source.assign(&parse("app"), &parse("1.0"), &[parse("e1"), parse("e2")]).await.unwrap();
        for outcome in converge(&bench.source, &net).await {
            assert!(outcome.is_complete(), "{outcome:?}");
        }
        World { bench, net, sites }
    }

    async fn mint(&self, order: MintOrder) -> SignedUrl {
        self.bench.source.mint_link(&order, &operator()).await.unwrap()
    }

    async fn push(&self) -> Vec<LinkPush> {
        self.bench.source.push_links(&self.net, None).await.unwrap()
    }

    async fn revoke(&self, what: LinkTarget) -> Vec<LinkPush> {
        self.bench.source.revoke_links(&what, "test", &operator(), &self.net).await.unwrap().edges
    }

    async fn opens(&self, signed: &SignedUrl) -> [u16; 2] {
        [self.sites[0].opens(signed).await, self.sites[1].opens(signed).await]
    }
}

#[tokio::test]
async fn an_edge_opens_a_link_that_it_never_saw_and_cannot_mint_one() {
    let world = World::new().await;
    assert!(world.sites[0].links.keys().await.unwrap().is_empty(), "nobody asked for a key");
    let signed = world.mint(file()).await;
    assert!(signed.made.is_some());
    let urls: Vec<_> =
        signed.urls.iter().map(|(edge, url)| (edge.as_str(), url.expose_str().unwrap())).collect();
    let path = signed.minted.path.expose_str().unwrap();
    assert_eq!(urls[0], ("e1", format!("https://e1.example{path}").as_str()));
    assert_eq!(urls.len(), 2);
    assert_eq!(world.opens(&signed).await, [403, 403], "the key is not known there");
    for push in world.push().await {
        assert!(push.error.is_none() && push.refused.is_empty(), "{push:?}");
    }
    assert_eq!(world.opens(&signed).await, [200, 200]);
    let only = world.mint(MintOrder { audience: vec![parse("e2")], ..file() }).await;
    assert_eq!((only.made, only.urls.len()), (None, 1));
    let only = world.mint(MintOrder { audience: vec![parse("e2")], ..file() }).await;
    assert_eq!(world.opens(&only).await, [403, 200]);

    let site = &world.sites[0];
    let key = site.links.keys().await.unwrap().remove(0).0;
    assert!(site.vault.secret(&key).unwrap().is_none());
    assert!(site.links.mint(&MintOrder { key: Some(key), ..file() }, "x", NOW).await.is_err());
    let wish = json!({ "resources": ["files/app/one"] });
    let (status, answer) = site.ask(Method::POST, "/api/v1/links", Some(TOKEN), &wish).await;
    assert_eq!(status, 404, "{answer}");

    let unknown = MintOrder { audience: vec![parse("e9")], ..file() };
    let error = world.bench.source.mint_link(&unknown, &operator()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let counted = MintOrder { uses: Some(1), ..file() };
    let error = world.bench.source.mint_link(&counted, &operator()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let counted = world.mint(MintOrder { audience: vec![parse("e1")], ..counted }).await;
    assert_eq!((world.opens(&counted).await, world.sites[0].opens(&counted).await), ([200, 403], 403));
}

#[tokio::test]
async fn what_is_taken_back_is_dead_at_every_edge() {
    let world = World::new().await;
    let links = world.bench.source.links().await.unwrap();
    let policy = "partners".parse().unwrap();
    for links in [&links, &world.sites[0].links, &world.sites[1].links] {
        links.set_policy(&policy, LinkPolicy::default(), "x", NOW).await.unwrap();
    }
    let plain = world.mint(file()).await;
    world.push().await;
    let order = || MintOrder { subject: Some("bob".into()), policy: Some(policy.clone()), ..file() };
    let key = plain.minted.record.key.clone();
    for (step, target) in ["link", "subject", "policy", "everything", "key"].iter().enumerate() {
        let order = match *target {
            "everything" | "key" => MintOrder { policy: None, ..order() },
            _ => order(),
        };
        let signed = world.mint(order).await;
        assert_eq!(world.opens(&signed).await, [200, 200], "{target}");
        let what = match *target {
            "link" => LinkTarget::Link(signed.minted.record.claims.id),
            "subject" => LinkTarget::Subject("bob".into()),
            "policy" => LinkTarget::Policy(policy.clone()),
            "everything" => LinkTarget::Everything,
            _ => LinkTarget::Key(key.clone()),
        };
        for push in world.revoke(what).await {
            assert!(push.error.is_none() && push.refused.is_empty(), "{push:?}");
            assert_eq!((push.applied, push.sent), (step as u64 + 1, 1), "{target}");
        }
        assert_eq!(world.opens(&signed).await, [403, 403], "{target}");
        let other = if step < 3 { [200, 200] } else { [403, 403] };
        assert_eq!(world.opens(&plain).await, other, "{target}");
    }
    assert_eq!(world.sites[0].log("link.revoked").len(), 5);
    // The next link has another key, and edges hear of it by the next run.
    let signed = world.mint(file()).await;
    assert!(signed.made.is_some());
    assert!(converge(&world.bench.source, &world.net).await.iter().all(|outcome| outcome.is_complete()));
    assert_eq!(world.opens(&signed).await, [200, 200]);
    let error = world
        .bench
        .source
        .revoke_links(&LinkTarget::Everything, " ", &operator(), &world.net)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn an_edge_that_was_away_catches_up() {
    let world = World::new().await;
    let (one, two) = (world.mint(file()).await, world.mint(file()).await);
    world.push().await;
    world.net.pull("e2");
    let pushes = world.revoke(LinkTarget::Link(one.minted.record.claims.id)).await;
    assert!(pushes[0].error.is_none());
    assert_eq!(pushes[1].error.as_ref().unwrap().kind(), ErrorKind::Unavailable);
    world.revoke(LinkTarget::Link(two.minted.record.claims.id)).await;
    assert_eq!(world.opens(&one).await, [403, 200], "nobody has told it");
    let outcomes = converge(&world.bench.source, &world.net).await;
    assert!(outcomes[0].is_complete() && outcomes[1].links.is_some());

    world.net.plug(&world.sites[1]);
    let outcomes = converge(&world.bench.source, &world.net).await;
    assert!(outcomes.iter().all(|outcome| outcome.is_complete()), "{outcomes:?}");
    assert_eq!((world.opens(&one).await, world.opens(&two).await), ([403, 403], [403, 403]));
    // Who has everything is asked, and told nothing.
    let told = world.sites[1].log("link.revoked").len();
    let pushes = world.push().await;
    assert_eq!((pushes[1].applied, pushes[1].sent), (2, 0));
    assert_eq!(world.sites[1].log("link.revoked").len(), told);
    // One that was set up anew is told everything.
    let fresh = Site::new("e2").await;
    world.net.plug(&fresh);
    let pushes = world.push().await;
    assert_eq!((pushes[1].applied, pushes[1].sent), (2, 2));
    assert_eq!(fresh.links.sequence(), 2);
}

/// Two sources let in by one token count each for itself; nobody's old word undoes anything.
#[tokio::test]
async fn the_words_of_others_and_old_ones_change_nothing() {
    let world = World::new().await;
    let site = &world.sites[0];
    let signed = world.mint(file()).await;
    world.push().await;
    let links = world.bench.source.links().await.unwrap();
    let before = links.update(0).await.unwrap();
    let stranger = Bench::new().await;
    stranger.source.set_edge(&record("e1"), Some(&Secret::new(TOKEN))).await.unwrap();
    for subject in ["a", "b", "c"] {
        let what = LinkTarget::Subject(subject.into());
        stranger.source.revoke_links(&what, "test", &operator(), &world.net).await.unwrap();
    }
    assert_eq!(site.opens(&signed).await, 200);
    // The stranger is at number three, and the source's own number one still counts.
    world.revoke(LinkTarget::Link(signed.minted.record.claims.id)).await;
    assert_eq!(site.opens(&signed).await, 403);

    let generation = site.links.generation();
    let path = "/api/v1/link-revocations";
    let (status, answer) = site.ask(Method::POST, path, Some(TOKEN), &json!(before)).await;
    assert_eq!((status, &answer["applied"]), (200, &json!(1)), "a word from before the revocation");
    let current = json!(links.update(0).await.unwrap());
    assert_eq!(site.ask(Method::POST, path, Some(TOKEN), &current).await.0, 200, "said twice");
    assert_eq!(site.links.generation(), generation);
    assert_eq!(site.opens(&signed).await, 403);

    let next: RevocationUpdate = serde_json::from_value(current.clone()).unwrap();
    let gap = RevocationUpdate { after: 7, sequence: 8, ..next.clone() };
    assert_eq!(site.ask(Method::POST, path, Some(TOKEN), &json!(gap)).await.0, 409, "some are missing");
    let named = RevocationUpdate { list: Some("../x".into()), ..next };
    assert_eq!(site.ask(Method::POST, path, Some(TOKEN), &json!(named)).await.0, 400);
    for token in [None, Some("eut1_nobody")] {
        assert_eq!(site.ask(Method::POST, path, token, &current).await.0, 401);
        let (status, answer) = site.ask(Method::GET, &format!("{path}/applied"), token, &Value::Null).await;
        assert_eq!(status, 401, "{answer}");
    }
    assert_eq!(site.links.generation(), generation);
}

#[tokio::test]
async fn an_edge_of_another_tenant_refuses() {
    let world = World::new().await;
    let foreign = Site::of("e3", "acme").await;
    world.net.plug(&foreign);
    world.bench.source.set_edge(&record("e3"), Some(&Secret::new(TOKEN))).await.unwrap();
    let signed = world.mint(file()).await;
    let pushes = world.revoke(LinkTarget::Link(signed.minted.record.claims.id)).await;
    assert!(pushes[0].error.is_none() && pushes[1].error.is_none());
    let error = pushes[2].error.as_ref().unwrap();
    assert!(error.to_string().contains("another tenant's"), "{error}");
    assert_eq!((foreign.links.sequence(), foreign.links.keys().await.unwrap().len()), (0, 0));
    assert_eq!(foreign.opens(&signed).await, 403);
}

/// A source came back from a backup with numbers that edges had seen used for other revocations.
#[tokio::test]
async fn a_source_that_was_put_back_tells_everything_again() {
    let world = World::new().await;
    let (one, two) = (world.mint(file()).await, world.mint(file()).await);
    world.push().await;
    let backup: Arc<dyn MetadataStore> = Arc::new(MemoryStore::new());
    // The list is named when it is told the first time.
    let mut batch = Batch::new();
    for entry in world.bench.ports.meta.scan(&b"\0"[..]..&b"\xff"[..], 10_000).await.unwrap() {
        batch.put(entry.key, entry.value);
    }
    backup.commit(batch).await.unwrap();
    world.revoke(LinkTarget::Subject("a".into())).await;
    world.revoke(LinkTarget::Subject("b".into())).await;

    let ports = Ports { meta: backup, ..world.bench.ports.clone() };
    let source = Source::open_over(ports).await.unwrap();
    let take = async |signed: &SignedUrl| {
        let what = LinkTarget::Link(signed.minted.record.claims.id);
        source.revoke_links(&what, "test", &operator(), &world.net).await.unwrap().edges
    };
    for push in take(&one).await {
        assert!(push.error.is_none(), "{push:?}");
        assert_eq!((push.applied, push.sent), (1, 1));
    }
    assert_eq!(world.opens(&one).await, [403, 403]);
    assert!(take(&two).await.iter().all(|push| (push.applied, push.sent) == (2, 1)));
    assert_eq!(world.opens(&two).await, [403, 403]);
    // The operator may ask for it, too.
    source.begin_link_list().await.unwrap();
    let pushes = source.push_links(&world.net, None).await.unwrap();
    assert!(pushes.iter().all(|push| (push.applied, push.sent) == (2, 2)), "{pushes:?}");
}

#[tokio::test]
async fn a_paired_edge_is_told_in_the_name_of_its_source() {
    let (bench, net) = (Bench::with_keys().await, Net::default());
    let site = Site::new("e1").await;
    net.plug(&site);
    let wish = json!({ "use_case": "source-edge" });
    let (status, answer) = site.ask(Method::POST, "/api/v1/pairings/tokens", Some(TOKEN), &wish).await;
    assert_eq!(status, 201, "{answer}");
    let token = PairingToken::parse(&Secret::new(answer["token"].as_str().unwrap())).unwrap();
    let options = PairOptions { name: Some(parse("center")), base_url: None };
    bench.source.pair(&record("e1"), &token, &options, &net).await.unwrap();
    bench.add("files/app/one", b"one", &[]).await;
    bench.release("app", "1.0", "**").await;
    bench.source.assign(&parse("app"), &parse("1.0"), &[parse("e1")]).await.unwrap();
    let signed = bench.source.mint_link(&file(), &operator()).await.unwrap();
    assert!(converge(&bench.source, &net).await[0].is_complete());
    assert_eq!(site.opens(&signed).await, 200);
    let what = LinkTarget::Link(signed.minted.record.claims.id);
    let revoked = bench.source.revoke_links(&what, "lost", &operator(), &net).await.unwrap();
    assert!(revoked.edges[0].error.is_none(), "{revoked:?}");
    assert_eq!(site.opens(&signed).await, 403);
    let event = site.log("link.revoked").pop().unwrap();
    assert!(event.reason.as_deref().unwrap().contains("center"), "{event:?}");
    let list = bench.source.links().await.unwrap().list_name().await.unwrap();
    assert_eq!(site.links.applied("center", Some(&list)).await.unwrap(), 1);

    // Whoever has no signature of the pair is nobody, whatever else it presents.
    let credentials = bench.source.credentials(&parse("e1")).await.unwrap();
    let unsigned = Wire(Some(site.clone()), Credentials { signer: None, ..credentials });
    let call = Call::new(Verb::Post, "/api/v1/link-revocations").with_bytes("{}");
    assert_eq!(unsigned.call(call).await.unwrap().status, 401);
}

#[tokio::test]
async fn a_name_that_is_taken_is_told_and_old_keys_make_room() {
    let world = World::new().await;
    let (source, site) = (&world.bench.source, &world.sites[0]);
    let key = |text: &str| KeyName::new(text).unwrap();
    site.links.create_key(Some(key("taken")), LinkAlgorithm::HmacSha256, "x", NOW).await.unwrap();
    source.create_link_key(Some(key("taken")), &operator()).await.unwrap();
    let pushes = world.push().await;
    assert_eq!((&pushes[0].refused[..], pushes[0].error.is_none()), (&[key("taken")][..], true));
    assert!(pushes[1].refused.is_empty());
    let outcomes = converge(source, &world.net).await;
    assert!(outcomes[0].links.as_ref().unwrap().to_string().contains("taken"));
    source.revoke_links(&LinkTarget::Key(key("taken")), "clash", &operator(), &world.net).await.unwrap();

    let links = source.links().await.unwrap();
    for number in 0..20 {
        let name = key(&format!("k{number}"));
        world.bench.clock.advance(1);
        source.create_link_key(Some(name.clone()), &operator()).await.unwrap();
        let signed = world.mint(MintOrder { expires_in: Some(10), ..file() }).await;
        assert_eq!(signed.minted.record.key, name);
        let pushes = world.push().await;
        assert!(pushes.iter().all(|push| push.refused.is_empty()), "{number}: {pushes:?}");
        links.retire_key(&name).await.unwrap();
        // Its link is over, and so is it.
        world.bench.clock.advance(2 * 86_400);
        let now = world.bench.clock.now();
        links.upkeep(now).await.unwrap();
        assert!(links.keys().await.unwrap().iter().all(|(known, _)| *known != name));
    }
}

#[tokio::test]
async fn an_edge_without_signed_urls_fails_no_run() {
    let (bench, net) = (Bench::with_keys().await, Net::default());
    let mut site = Site::new("e1").await;
    site.edge = site.edge.clone().with_governance(Governance::none());
    net.plug(&site);
    bench.source.set_edge(&record("e1"), Some(&Secret::new(TOKEN))).await.unwrap();
    bench.source.mint_link(&file(), &operator()).await.unwrap();
    assert!(converge(&bench.source, &net).await[0].is_complete());
    let pushes = bench.source.push_links(&net, None).await.unwrap();
    assert_eq!(pushes[0].error.as_ref().unwrap().kind(), ErrorKind::NotFound);
}

fn user(name: &str, scopes: &[&str]) -> Principal {
    Principal::User(Arc::new(Identity {
        name: name.into(),
        groups: Vec::new(),
        credential: None,
        scopes: Some(scopes.iter().map(|scope| parse::<Scope>(scope)).collect()),
    }))
}

/// What alice, who may give away one folder, may do at the source, and bob, who may mint anything.
#[tokio::test]
async fn nobody_gives_away_or_takes_back_what_is_not_theirs() {
    let world = World::new().await;
    let audit = Arc::new(MemoryAudit::default());
    let grant = json!({ "grant": [
        { "name": "alice", "to": ["user:alice"], "may": ["mint", "read"], "on": ["files/app/**"] },
        { "name": "bob", "to": ["user:bob"], "may": ["mint"], "on": ["*"] },
    ]});
    let policy = CompiledPolicy::new(Document::from_value(&grant).unwrap());
    let policies = PolicySet::new(vec![Arc::new(TokenHolders), Arc::new(policy)]);
    let mut authority = Authority::local(audit.clone()).with_policies(policies, Default::default());
    let source = &world.bench.source;
    let forbidden = |error: Error| assert_eq!(error.kind(), ErrorKind::Forbidden, "{error}");
    let (alice, bob) = (user("alice", &["*:*"]), user("bob", &["*:*"]));
    let signed = {
        let (alice, bob) = (source.acting_as(alice.clone(), &authority), source.acting_as(bob, &authority));
        let signed = alice.mint_link(&file()).await.unwrap();
        let folder = |text: &str| MintOrder { resources: vec![text.into()], ..MintOrder::default() };
        alice.mint_link(&folder("files/app/")).await.unwrap();
        for outside in ["files/", "files/other/", "files/other", "other/app/one"] {
            forbidden(alice.mint_link(&folder(outside)).await.unwrap_err());
        }
        forbidden(bob.mint_link(&file()).await.unwrap_err());
        let own = source.mint_link(&file(), &operator()).await.unwrap();
        let foreign = LinkTarget::Link(own.minted.record.claims.id);
        forbidden(alice.revoke_links(&foreign, "mine?", &world.net).await.unwrap_err());
        forbidden(
            alice.revoke_links(&LinkTarget::Subject("x".into()), "mine?", &world.net).await.unwrap_err(),
        );
        forbidden(bob.revoke_links(&LinkTarget::Everything, "all", &world.net).await.unwrap_err());
        forbidden(bob.create_link_key(None).await.unwrap_err());
        assert_eq!(
            (alice.list_links(None, 10).await.unwrap().len(), bob.list_links(None, 10).await.unwrap().len()),
            (2, 3)
        );
        bob.revoke_links(&foreign, "a mistake", &world.net).await.unwrap();
        world.push().await;
        assert_eq!(world.opens(&signed).await, [200, 200]);
        let target = LinkTarget::Link(signed.minted.record.claims.id);
        alice.revoke_links(&target, "a mistake", &world.net).await.unwrap();
        signed
    };
    assert_eq!(world.opens(&signed).await, [403, 403]);
    let events: Vec<_> = audit.events().into_iter().filter(|event| event.kind.starts_with("link.")).collect();
    let kinds: Vec<&str> = events.iter().map(|event| &*event.kind).collect();
    assert_eq!(kinds, ["link.key.created", "link.minted", "link.minted", "link.revoked", "link.revoked"]);
    assert_eq!(events[1].object.as_deref(), Some(signed.minted.record.claims.id.to_string().as_str()));
    let text = format!("{:?}", audit.events());
    assert!(!text.contains(signed.minted.token.expose_str().unwrap()));

    // A link that cannot be recorded is dead before anybody has it.
    authority.audit = Arc::new(Full);
    let operator = source.acting_as(operator(), &authority);
    let error = operator.mint_link(&file()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    let listed = source.links().await.unwrap().list(None, 100).await.unwrap();
    let unrecorded = |reason: &str| reason.contains("could not be recorded");
    let dead =
        listed.iter().filter(|info| info.link.revoked.as_ref().is_some_and(|note| unrecorded(&note.reason)));
    assert_eq!(dead.map(|info| info.dead).collect::<Vec<_>>(), [Some("revoked")]);
    let before = source.links().await.unwrap().sequence();
    let error = operator.revoke_links(&LinkTarget::Everything, "all", &world.net).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    assert_eq!(source.links().await.unwrap().sequence(), before);
}

/// A log that takes nothing more.
#[derive(Debug)]
struct Full;

#[async_trait]
impl AuditSink for Full {
    fn record(&self, _: Event) -> Result<()> {
        Err(Error::new(ErrorKind::NoSpace, "the log is full"))
    }

    async fn record_durable(&self, event: Event) -> Result<()> {
        self.record(event)
    }
}
