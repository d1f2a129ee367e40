//! An edge in a directory of its own, with releases in it, and requests to it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use distedge::access::{Identity, Principal};
use distedge::audit::Entry;
use distedge::bundle::{BundleRef, Constraints, Envelope, STATEMENT_PAYLOAD, Source, Statement};
use distedge::digest::Digest;
use distedge::distribute::{BundleOffer, Events, Options, converge};
use distedge::edge::{Body, Connection, Edge, EdgeOptions, Handler, open};
use distedge::geo::StaticGeo;
use distedge::govern::{Links, MintOrder};
use distedge::key::Signer;
use distedge::link::{KeyName, LinkAlgorithm, LinkId, LinkKey, Note};
use distedge::policy::Document;
use distedge::secret::Secret;
use distedge::token::{NewUserToken, TokenId};
use http::{HeaderMap, Method, Request, Response};
use serde_json::Value;

use crate::http::rig::noise;
use crate::support::{FixedClock, House, LoopTransport, NOW, name};

/// The secret of the link key `k1`, so that tests can sign what no honest minter would.
pub(super) const LINK_SECRET: [u8; 32] = *b"thirty-two bytes of a link key!!";
/// A client that everybody knows: in 10.0.0.0/8, in Germany.
pub(super) const HERE: &str = "10.1.1.1";
/// One in the same network of which nobody knows the country.
pub(super) const LOST: &str = "10.2.2.2";
/// One in another network, in France.
pub(super) const AWAY: &str = "192.0.2.9";

/// The bytes of `files/app/1.0/a.bin`.
pub(super) fn one() -> Vec<u8> {
    noise(300_000)
}

/// The bytes of `files/app/2.0/a.bin`, to which `files/app/latest` leads.
pub(super) fn two() -> Vec<u8> {
    noise(300_001)
}

pub(super) fn world() -> StaticGeo {
    StaticGeo::parse("10.1.0.0/16,DE\n192.0.2.0/24,FR\n198.51.100.0/24,PL\n2001:db8::/32,DE\n").unwrap()
}

/// A bundle that is to be.
#[derive(Clone, Debug)]
pub(super) struct Pack {
    bundle: String,
    version: String,
    seq: u64,
    items: Vec<(String, String, Vec<u8>)>,
    aliases: Vec<(String, String, String)>,
    constraints: Constraints,
}

pub(super) fn pack(bundle: &str, version: &str, seq: u64) -> Pack {
    let (items, aliases) = (Vec::new(), Vec::new());
    let constraints = Constraints::default();
    Pack { bundle: bundle.into(), version: version.into(), seq, items, aliases, constraints }
}

impl Pack {
    pub(super) fn with(mut self, repository: &str, path: &str, bytes: &[u8]) -> Pack {
        self.items.push((repository.into(), path.into(), bytes.to_vec()));
        self
    }

    /// `folder/last` is another name for `target`, in repository `files`.
    pub(super) fn alias(mut self, folder: &str, last: &str, target: &str) -> Pack {
        self.aliases.push((folder.into(), last.into(), target.into()));
        self
    }

    pub(super) fn bound(mut self, constraints: Value) -> Pack {
        self.constraints = serde_json::from_value(constraints).unwrap();
        self
    }
}

/// An opened edge and whoever sends to it.
pub(super) struct Rig {
    pub(super) edge: Edge,
    pub(super) clock: Arc<FixedClock>,
    pub(super) house: House,
    /// The control token.
    pub(super) token: &'static str,
    pub(super) options: EdgeOptions,
    pub(super) directory: tempfile::TempDir,
}

impl Rig {
    /// Repositories `files` (public) and `vault` (private), bundles `app` 1.0 and 2.0, `near` 1.0 and
    /// `sec` 1.0, the countries of [`world`].
    pub(super) async fn new() -> Rig {
        Rig::with(|_| {}).await
    }

    pub(super) async fn with(change: impl FnOnce(&mut EdgeOptions)) -> Rig {
        let mut rig = Rig::empty("default", change).await;
        rig.publish(vec![
            pack("app", "1.0", 1).with("files", "app/1.0/a.bin", &one()).with("files", "app/1.0/e", b""),
            pack("app", "2.0", 2).with("files", "app/2.0/a.bin", &two()).alias(
                "app",
                "latest",
                "app/2.0/a.bin",
            ),
            pack("near", "1.0", 1).with("files", "app/1.0.1/x", b"next door"),
            pack("sec", "1.0", 1).with("vault", "s.bin", b"the secret").with("vault", "d/t.txt", b"text"),
        ])
        .await;
        rig
    }

    pub(super) async fn empty(tenant: &str, change: impl FnOnce(&mut EdgeOptions)) -> Rig {
        let clock = FixedClock::new();
        let mut options = EdgeOptions::new(name("e1")).unwrap();
        options.tenant = name(tenant);
        options.repositories = vec![(name("files"), true), (name("vault"), false)];
        options.clock = clock.clone();
        options.geo = Arc::new(world());
        change(&mut options);
        let directory = tempfile::tempdir().unwrap();
        let opened = open(directory.path().join("edge"), options.clone()).await.unwrap();
        let token = opened.token.unwrap().expose_str().unwrap().to_owned();
        let mut house = House::new(&["e1"]);
        house.trust.tenant = name(tenant);
        let links = opened.edge.governance().links.clone().unwrap();
        links
            .add_key(LinkKey::hmac(key("k1"), Secret::new(LINK_SECRET), NOW).unwrap(), "test")
            .await
            .unwrap();
        Rig { edge: opened.edge, clock, house, token: token.leak(), options, directory }
    }

    /// Closes the edge and opens it again.
    pub(super) async fn reopened(self) -> Rig {
        let Rig { edge, clock, house, token, options, directory } = self;
        drop(edge);
        // Tasks that settle ended downloads hold the edge for a moment longer.
        for _ in 0..200 {
            match open(directory.path().join("edge"), options.clone()).await {
                Ok(opened) => {
                    assert!(opened.token.is_none(), "the control token is made once");
                    return Rig { edge: opened.edge, clock, house, token, options, directory };
                }
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(25)).await,
            }
        }
        panic!("the edge cannot be opened again");
    }

    /// Signs bundles and brings them to the edge.
    pub(super) async fn publish(&mut self, packs: Vec<Pack>) {
        for pack in packs {
            let bundle = BundleRef {
                tenant: self.house.trust.tenant.clone(),
                project: "default".into(),
                name: name(&pack.bundle),
                version: name(&pack.version),
                seq: pack.seq,
            };
            let source = Source { id: "test".into(), label: String::new(), by: String::new() };
            let mut builder = Statement::builder(bundle, NOW, source).constraints(pack.constraints);
            for (repository, path, bytes) in &pack.items {
                builder = builder.item(self.house.item(repository, path, bytes).await);
            }
            for (folder, last, target) in &pack.aliases {
                builder = builder.alias(name("files"), name(folder), last, name(target));
            }
            let payload = builder.build().unwrap().to_payload();
            let digest = Digest::of(&payload);
            let signers = [&self.house.release as &dyn Signer];
            let envelope = Envelope::seal(STATEMENT_PAYLOAD, payload, &signers, NOW).unwrap();
            self.house.assign(BundleOffer {
                name: name(&pack.bundle),
                version: name(&pack.version),
                digest,
                envelope: envelope.to_json().into(),
            });
        }
        self.converge().await;
    }

    /// Brings the edge to what its house wants.
    pub(super) async fn converge(&mut self) {
        let desired = self.house.desired("e1");
        let transport = LoopTransport { edge: self.edge.clone(), token: Some(self.token) };
        let events: Events = Arc::new(|_| {});
        let outcome = converge(&transport, &self.house.blobs, &desired, Options::at(NOW), &events).await;
        outcome.unwrap();
    }

    /// The data directory.
    pub(super) fn data(&self) -> std::path::PathBuf {
        self.directory.path().join("edge")
    }

    pub(super) async fn policy(&self, document: Value) {
        let document = Document::from_value(&document).unwrap();
        self.edge.policies_in_force().unwrap().put(document, None, "token:admin", NOW).await.unwrap();
    }

    pub(super) fn links(&self) -> Links {
        self.edge.governance().links.clone().unwrap()
    }

    /// The token of a link, and its id.
    pub(super) async fn link(&self, order: MintOrder) -> (String, LinkId) {
        let now = self.edge.receiver().now();
        let minted = self.links().mint(&order, "token:admin", now).await.unwrap();
        (minted.token.expose_str().unwrap().to_owned(), minted.record.claims.id)
    }

    pub(super) async fn user(&self, new: NewUserToken) -> (String, TokenId) {
        let now = self.edge.receiver().now();
        let (record, token) = self.edge.tokens().unwrap().mint(new, &root(), now).await.unwrap();
        (token.expose_str().unwrap().to_owned(), record.id)
    }

    /// The entries of the audit log that are about requests, first to last. The end of a download
    /// is written a little later than it happens.
    pub(super) fn log(&self) -> Vec<Entry<'static>> {
        let ledger = self.edge.governance().ledger.clone().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        ledger.flush().unwrap();
        let mut entries = Vec::new();
        ledger
            .entries(0, |_, bytes| {
                let entry = Entry::parse(bytes)?.into_owned();
                if &*entry.kind != "audit.opened" {
                    entries.push(entry);
                }
                Ok(true)
            })
            .unwrap();
        entries
    }
}

pub(super) fn root() -> Principal {
    Principal::Token { name: "admin".into() }
}

#[allow(dead_code)]
pub(super) fn someone(user: &str, credential: Option<String>) -> Principal {
    Principal::User(Arc::new(Identity { name: user.into(), credential, ..Default::default() }))
}

pub(super) fn key(text: &str) -> KeyName {
    KeyName::new(text).unwrap()
}

pub(super) fn new_user(principal: &str) -> NewUserToken {
    NewUserToken::new(principal.parse().unwrap())
}

pub(super) fn note() -> Note {
    Note { reason: "test".into(), who: "token:admin".into(), at: NOW }
}

/// An order for a link to these resources that lives an hour.
pub(super) fn order(resources: &[&str]) -> MintOrder {
    MintOrder {
        resources: resources.iter().map(|one| (*one).to_owned()).collect(),
        expires_in: Some(3_600),
        algorithm: Some(LinkAlgorithm::HmacSha256),
        ..MintOrder::default()
    }
}

/// A request that is to be.
#[derive(Debug)]
pub(super) struct Ask {
    request: http::request::Builder,
    peer: IpAddr,
    nowhere: bool,
}

pub(super) fn ask(method: &str, target: &str) -> Ask {
    ask_host(method, target, "edge.test")
}

pub(super) fn ask_host(method: &str, target: &str, host: &str) -> Ask {
    let method: Method = method.parse().unwrap();
    let request = Request::builder().method(method).uri(target).header("host", host);
    Ask { request, peer: HERE.parse().unwrap(), nowhere: false }
}

pub(super) fn get(target: &str) -> Ask {
    ask("GET", target)
}

/// `GET` with a link's token.
pub(super) fn opened(path: &str, token: &str) -> Ask {
    get(&format!("{path}?edge_token={token}"))
}

impl Ask {
    pub(super) fn from(mut self, address: &str) -> Ask {
        self.peer = address.parse().unwrap();
        self
    }

    /// From an address that the proxy in front did not tell.
    pub(super) fn at_no_address(mut self) -> Ask {
        self.nowhere = true;
        self
    }

    pub(super) fn header(mut self, name: &str, value: &str) -> Ask {
        self.request = self.request.header(name, value);
        self
    }

    pub(super) fn bearer(self, token: &str) -> Ask {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// The answer with its body not yet read.
    pub(super) async fn begun<H: Handler>(self, handler: &H) -> Response<Body> {
        let mut request = self.request.body(Body::empty()).unwrap();
        let socket = SocketAddr::new(self.peer, 4711);
        if self.nowhere {
            request.extensions_mut().insert(Connection { socket, client: None, secure: false });
        }
        handler.handle(request, socket).await
    }

    pub(super) async fn to<H: Handler>(self, handler: &H) -> Got {
        let response = self.begun(handler).await;
        let (parts, body) = response.into_parts();
        let body = body.collect(1 << 26).await.unwrap();
        Got { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub(super) async fn status<H: Handler>(self, handler: &H) -> u16 {
        self.to(handler).await.status
    }
}

/// An answer that was read to its end.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Got {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Got {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// The same numbers at every run (SplitMix64).
#[derive(Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) as usize % most
    }
}

/// A request with a body, and a token if it is not empty.
pub(super) async fn send(edge: &Edge, method: &str, target: &str, token: &str, body: &str) -> Got {
    let method: Method = method.parse().unwrap();
    let request = Request::builder().method(method).uri(target).header("host", "edge.test");
    let mut request = request.header("content-type", "application/json").header("content-length", body.len());
    if !token.is_empty() {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request.body(Body::from(body.to_owned())).unwrap();
    let response = edge.handle(request, SocketAddr::new(HERE.parse().unwrap(), 4711)).await;
    let (parts, body) = response.into_parts();
    let body = body.collect(1 << 26).await.unwrap();
    Got { status: parts.status.as_u16(), headers: parts.headers, body }
}
