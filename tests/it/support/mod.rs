//! A small release house for tests: keys, bundles, trust documents, edges without sockets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use distedge::auth::TokenAuthenticator;
use distedge::blob::{BlobStore, BlobStoreExt as _, MemoryBlobStore};
use distedge::bundle::{
    Assignment, BundleRef, EdgeEntry, Item, Source, Statement, StatementBuilder, TrustDocument, Withdrawal,
};
use distedge::catalog::Catalog;
use distedge::clock::{Clock, Timestamp};
use distedge::digest::{ChecksumHasher, Digest};
use distedge::distribute::{BundleOffer, Desired, Options, Outcome, Receiver, converge};
use distedge::edge::{Body, Edge, Gate, Handler};
use distedge::error::Result;
use distedge::key::{Algorithm, KeySet, Signer, SigningKey, TrustedKey};
use distedge::meta::{MemoryStore, MetadataStore};
use distedge::name::{ArtifactPath, BundleName, NodeName, RepositoryName, Tenant, Version};
use distedge::policy::{PolicySet, PublicRead, TokenHolders};
use distedge::secret::Secret;
use distedge::transport::{Answer, Call, CallBody, Transport, Verb};
use http::{Method, Request, Response, StatusCode};

pub const NOW: Timestamp = Timestamp::from_unix(1_795_323_600);
pub const TOKEN: &str = "eut1_test";

#[derive(Debug)]
pub struct FixedClock(pub Mutex<Timestamp>);

impl FixedClock {
    pub fn new() -> Arc<FixedClock> {
        Arc::new(FixedClock(Mutex::new(NOW)))
    }

    pub fn advance(&self, seconds: i64) {
        let mut now = self.0.lock().unwrap();
        *now = now.plus(seconds);
    }
}

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

pub fn name<T: std::str::FromStr<Err = distedge::error::Error>>(text: &str) -> T {
    text.parse().unwrap()
}

/// Makes bundles and trust documents, and keeps the blobs.
#[derive(Debug)]
pub struct House {
    pub root: SigningKey,
    pub release: SigningKey,
    pub blobs: MemoryBlobStore,
    pub trust: TrustDocument,
    pub bundles: BTreeMap<(BundleName, Version), BundleOffer>,
}

impl House {
    pub fn new(edges: &[&str]) -> House {
        let key = |name| SigningKey::generate(Algorithm::Ed25519, name, NOW).unwrap();
        let (root, release) = (key("root"), key("release"));
        let set = |key: &SigningKey, owner| {
            KeySet::new(1, vec![TrustedKey::new(key.public_key(), owner, owner)]).unwrap()
        };
        let trust = TrustDocument {
            tenant: name("default"),
            version: 0,
            issued: NOW,
            expires: NOW.plus(90 * 86400),
            root: set(&root, "root"),
            release: set(&release, "release"),
            edges: edges.iter().map(|edge| EdgeEntry::new(name(edge))).collect(),
            assignments: Vec::new(),
            withdrawn: Vec::new(),
        };
        House { root, release, blobs: MemoryBlobStore::new(), trust, bundles: BTreeMap::new() }
    }

    pub async fn item(&self, repository: &str, path: &str, bytes: &[u8]) -> Item {
        self.blobs.put(Bytes::copy_from_slice(bytes)).await.unwrap();
        let mut hasher = ChecksumHasher::new();
        hasher.update(bytes);
        let (size, digest, checksums) = hasher.finish();
        Item {
            repository: name(repository),
            format: "generic".into(),
            path: name(path),
            digest,
            size,
            media_type: None,
            checksums,
        }
    }

    pub fn statement(bundle: &str, version: &str, seq: u64) -> StatementBuilder {
        let bundle = BundleRef {
            tenant: name("default"),
            project: "default".into(),
            name: name(bundle),
            version: name(version),
            seq,
        };
        let source = Source { id: "test".into(), label: String::new(), by: String::new() };
        Statement::builder(bundle, NOW, source)
    }

    /// Signs a statement; assigns nothing.
    pub fn sign(&self, statement: &Statement) -> BundleOffer {
        let payload = statement.to_payload();
        let digest = Digest::of(&payload);
        let envelope = distedge::bundle::Envelope::seal(
            distedge::bundle::STATEMENT_PAYLOAD,
            payload,
            &[&self.release as &dyn Signer],
            NOW,
        )
        .unwrap();
        let bundle = statement.bundle();
        BundleOffer {
            name: bundle.name.clone(),
            version: bundle.version.clone(),
            digest,
            envelope: envelope.to_json().into(),
        }
    }

    /// Signs a bundle of files `(path, bytes)` in repository `files`, and assigns it to all edges.
    pub async fn release(&mut self, bundle: &str, version: &str, seq: u64, files: &[(&str, &[u8])]) {
        let mut builder = House::statement(bundle, version, seq);
        for (path, bytes) in files {
            builder = builder.item(self.item("files", path, bytes).await);
        }
        let last = files.last().unwrap().0;
        builder = builder.alias(name("files"), name(&format!("{bundle}/latest")), "app", name(last));
        let offer = self.sign(&builder.build().unwrap());
        self.assign(offer);
    }

    pub fn assign(&mut self, offer: BundleOffer) {
        self.trust.assignments.push(Assignment {
            bundle: offer.name.clone(),
            version: offer.version.clone(),
            digest: offer.digest,
            edges: self.trust.edges.iter().map(|edge| edge.name.clone()).collect(),
        });
        self.bundles.insert((offer.name.clone(), offer.version.clone()), offer);
    }

    pub fn withdraw(&mut self, bundle: &str, version: &str) -> BundleOffer {
        let key = (name(bundle), name(version));
        let offer = self.bundles.remove(&key).unwrap();
        self.trust.withdrawn.push(Withdrawal {
            bundle: key.0.clone(),
            version: key.1.clone(),
            digest: offer.digest,
            reason: "bad build".into(),
            legal: false,
            at: NOW,
        });
        self.trust.assignments.retain(|one| (&one.bundle, &one.version) != (&key.0, &key.1));
        offer
    }

    /// The trust document as it stands, one version up.
    pub fn next_trust(&mut self) -> Bytes {
        self.trust.version += 1;
        self.trust.seal(&[&self.root as &dyn Signer], NOW).unwrap().to_json().into()
    }

    pub fn desired(&mut self, edge: &str) -> Desired {
        Desired {
            edge: name(edge),
            identity: None,
            trust: self.next_trust(),
            bundles: self.bundles.values().cloned().collect(),
            given: Vec::new(),
        }
    }
}

/// An edge in memory.
#[derive(Clone, Debug)]
pub struct TestEdge {
    pub edge: Edge,
    pub clock: Arc<FixedClock>,
}

impl TestEdge {
    pub async fn new(edge: &str) -> TestEdge {
        let store: Arc<dyn MetadataStore> = Arc::new(MemoryStore::new());
        TestEdge::over(edge, store, Arc::new(MemoryBlobStore::new()), true).await.unwrap()
    }

    pub async fn over(
        edge: &str,
        store: Arc<dyn MetadataStore>,
        blobs: Arc<dyn BlobStore>,
        public: bool,
    ) -> Result<TestEdge> {
        let clock = FixedClock::new();
        let tenant: Tenant = name("default");
        let catalog = Catalog::open(store, tenant).await?;
        let identity = identity(edge);
        let receiver =
            Receiver::open(catalog, blobs, clock.clone(), name::<NodeName>(edge), Arc::new(identity))
                .await?
                .with_public_repositories(public);
        let tokens = TokenAuthenticator::new([(Secret::new(TOKEN).fingerprint(), "test".to_owned())]);
        let policies = PolicySet::new(vec![Arc::new(PublicRead), Arc::new(TokenHolders)]);
        let edge = Edge::new(receiver, Gate::new(), Arc::new(tokens), policies);
        Ok(TestEdge { edge, clock })
    }

    pub async fn converge(&self, desired: &Desired, blobs: &dyn BlobStore) -> Result<Outcome> {
        self.converge_with(desired, blobs, Options::at(NOW)).await
    }

    pub async fn converge_with(
        &self,
        desired: &Desired,
        blobs: &dyn BlobStore,
        options: Options,
    ) -> Result<Outcome> {
        let events: distedge::distribute::Events = Arc::new(|_| {});
        converge(&self.transport(), blobs, desired, options, &events).await
    }

    pub fn transport(&self) -> LoopTransport {
        LoopTransport { edge: self.edge.clone(), token: Some(TOKEN) }
    }

    pub async fn request(&self, method: Method, path: &str, token: Option<&str>) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(path).header("host", "edge.test");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        self.edge.handle(request.body(Body::empty()).unwrap(), peer()).await
    }

    /// Status and body of an anonymous `GET`.
    pub async fn get(&self, path: &str) -> (StatusCode, Bytes) {
        taken(self.request(Method::GET, path, None).await).await
    }

    pub async fn get_as_admin(&self, path: &str) -> (StatusCode, Bytes) {
        taken(self.request(Method::GET, path, Some(TOKEN)).await).await
    }

    pub async fn event_kinds(&self) -> Vec<String> {
        let events = self.edge.receiver().catalog().events(100).await.unwrap();
        events.into_iter().map(|event| event.kind).collect()
    }
}

pub async fn taken(response: Response<Body>) -> (StatusCode, Bytes) {
    let status = response.status();
    (status, response.into_body().collect(1 << 26).await.unwrap())
}

pub fn peer() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 4711))
}

/// The same identity key for the same name, so that an edge can be opened again.
pub fn identity(edge: &str) -> SigningKey {
    static KEYS: Mutex<BTreeMap<String, Vec<u8>>> = Mutex::new(BTreeMap::new());
    let mut keys = KEYS.lock().unwrap();
    let secret = keys.entry(edge.to_owned()).or_insert_with(|| {
        SigningKey::generate(Algorithm::Ed25519, edge, NOW).unwrap().to_secret().expose().to_vec()
    });
    SigningKey::from_secret(&Secret::new(secret.clone())).unwrap()
}

/// Calls an edge directly, without a socket.
#[derive(Debug)]
pub struct LoopTransport {
    pub edge: Edge,
    pub token: Option<&'static str>,
}

#[async_trait]
impl Transport for LoopTransport {
    async fn call(&self, call: Call) -> Result<Answer> {
        let method = match call.verb {
            Verb::Get => Method::GET,
            Verb::Head => Method::HEAD,
            Verb::Put => Method::PUT,
            Verb::Post => Method::POST,
            Verb::Patch => Method::PATCH,
            Verb::Delete => Method::DELETE,
        };
        let mut request = Request::builder().method(method).uri(&call.path).header("host", "edge.test");
        if let Some(token) = self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(offset) = call.offset {
            request = request.header("upload-offset", offset);
        }
        let (length, body) = match call.body {
            CallBody::Bytes(bytes) => (bytes.len() as u64, Body::from_bytes(bytes)),
            CallBody::Stream(length, stream) => (length, Body::from_stream(length, stream)),
        };
        if length > 0 {
            request = request.header("content-length", length);
        }
        let response = self.edge.handle(request.body(body).unwrap(), peer()).await;
        let offset =
            response.headers().get("upload-offset").and_then(|value| value.to_str().ok()?.parse().ok());
        let status = response.status().as_u16();
        Ok(Answer { status, offset, body: response.into_body().collect(1 << 26).await? })
    }
}

#[allow(dead_code)]
pub fn repository(text: &str) -> RepositoryName {
    name(text)
}

#[allow(dead_code)]
pub fn path(text: &str) -> ArtifactPath {
    name(text)
}
