//! Pairing and tokens over the wire: an edge without a socket, a source in memory, and whoever stands
//! between them.

mod command;
mod control;
mod token;
mod wire;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use distedge::audit::{Event, MemoryAudit};
use distedge::auth::TokenAuthenticator;
use distedge::blob::MemoryBlobStore;
use distedge::catalog::Catalog;
use distedge::distribute::Receiver;
use distedge::edge::{Body, Edge, Gate, Governance, Handler};
use distedge::error::{Error, ErrorKind, Result};
use distedge::govern::{Pairings, Tokens};
use distedge::meta::{MemoryStore, MetadataStore};
use distedge::policy::{CompiledPolicy, PolicySet};
use distedge::secret::Secret;
use distedge::source::{Dial, EdgeRecord};
use distedge::token::{PairingToken, SIGNATURE_HEADER};
use distedge::transport::{Answer, Call, CallBody, Credentials, Transport};
use http::{Method, Request};
use serde_json::{Value, json};

use crate::support::{FixedClock, TOKEN, identity, name, peer};

/// An edge that pairs, its clock and its log.
#[derive(Clone, Debug)]
struct Party {
    edge: Edge,
    clock: Arc<FixedClock>,
    audit: Arc<MemoryAudit>,
}

impl Party {
    async fn new(called: &str) -> Party {
        Party::over(called, Arc::new(MemoryStore::new())).await
    }

    async fn over(called: &str, store: Arc<dyn MetadataStore>) -> Party {
        let (clock, audit) = (FixedClock::new(), Arc::new(MemoryAudit::default()));
        let tenant = name("default");
        let catalog = Catalog::open(store.clone(), name("default")).await.unwrap();
        let key = Arc::new(identity(called));
        let blobs = Arc::new(MemoryBlobStore::new());
        let receiver = Receiver::open(catalog, blobs, clock.clone(), name(called), key.clone());
        let receiver = receiver.await.unwrap();
        let bootstrap = TokenAuthenticator::new([(Secret::new(TOKEN).fingerprint(), "admin".to_owned())]);
        let policies = PolicySet::new(vec![Arc::new(CompiledPolicy::default())]);
        let tokens = Tokens::open(store.clone(), &tenant).await.unwrap();
        let pairings = Pairings::open(store, &tenant, name(called), key).await.unwrap();
        let edge = Edge::new(receiver, Gate::new(), Arc::new(bootstrap), policies)
            .with_access(Arc::new(tokens), Arc::new(pairings))
            .with_governance(Governance::none().with_audit(audit.clone()));
        Party { edge, clock, audit }
    }

    /// Asks with these headers; the answer's body as JSON, `null` if there is none.
    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, Value) {
        let mut request = Request::builder().method(method).uri(path).header("host", "edge.test");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !body.is_empty() {
            request = request.header("content-length", body.len());
        }
        let body = Body::from_bytes(Bytes::copy_from_slice(body));
        let response = self.edge.handle(request.body(body).unwrap(), peer()).await;
        let status = response.status().as_u16();
        let bytes = response.into_body().collect(1 << 20).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn as_admin(&self, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let bearer = format!("Bearer {TOKEN}");
        self.ask(method, path, &[("authorization", &bearer)], body.as_bytes()).await
    }

    async fn issue(&self) -> PairingToken {
        let wish = json!({ "use_case": "source-edge" });
        let (status, answer) = self.as_admin(Method::POST, "/api/v1/pairings/tokens", &wish).await;
        assert_eq!(status, 201, "{answer}");
        PairingToken::parse(&Secret::new(answer["token"].as_str().unwrap())).unwrap()
    }

    fn log(&self) -> Vec<String> {
        self.audit.events().into_iter().map(|event: Event| event.kind.into_owned()).collect()
    }

    /// A way to the edge that presents `credentials`, signatures included.
    fn wire(&self, credentials: Credentials) -> Arc<Wire> {
        Arc::new(Wire { party: self.clone(), credentials, fault: Arc::default() })
    }
}

/// What goes wrong on the way, once.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    /// The call to this path arrives, and its answer does not.
    LosesAnswer(&'static str),
    /// The answer to a call to this path is somebody else's.
    Answers(&'static str, Vec<u8>),
    /// Nothing arrives.
    Cut,
}

#[derive(Debug)]
struct Wire {
    party: Party,
    credentials: Credentials,
    fault: Arc<Mutex<Option<Fault>>>,
}

#[async_trait]
impl Transport for Wire {
    async fn call(&self, call: Call) -> Result<Answer> {
        let lost = || Error::new(ErrorKind::Unavailable, "the connection was cut");
        let fault = self.fault.lock().unwrap().clone();
        if fault == Some(Fault::Cut) {
            return Err(lost());
        }
        let signature = self.credentials.sign(&call)?;
        let mut request =
            Request::builder().method(call.verb.as_str()).uri(&call.path).header("host", "edge.test");
        if let Some(token) = &self.credentials.token {
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
        if length > 0 {
            request = request.header("content-length", length);
        }
        let response = self.party.edge.handle(request.body(body).unwrap(), peer()).await;
        let offset =
            response.headers().get("upload-offset").and_then(|value| value.to_str().ok()?.parse().ok());
        let status = response.status().as_u16();
        let body = response.into_body().collect(1 << 26).await?;
        match fault {
            Some(Fault::LosesAnswer(path)) if call.path.ends_with(path) => {
                *self.fault.lock().unwrap() = None;
                Err(lost())
            }
            Some(Fault::Answers(path, bytes)) if call.path.ends_with(path) => {
                Ok(Answer { status: 200, offset, body: bytes.into() })
            }
            _ => Ok(Answer { status, offset, body }),
        }
    }
}

/// Dials the one edge there is.
#[derive(Debug)]
struct Line {
    party: Party,
    fault: Arc<Mutex<Option<Fault>>>,
}

impl Line {
    fn to(party: &Party) -> Line {
        Line { party: party.clone(), fault: Arc::default() }
    }

    fn breaks(&self, fault: Fault) {
        *self.fault.lock().unwrap() = Some(fault);
    }
}

impl Dial for Line {
    fn dial(&self, _: &EdgeRecord, credentials: Credentials) -> Result<Arc<dyn Transport>> {
        Ok(Arc::new(Wire { party: self.party.clone(), credentials, fault: self.fault.clone() }))
    }
}

fn edge_record(called: &str) -> EdgeRecord {
    EdgeRecord::new(name(called), format!("https://{called}.example"))
}
