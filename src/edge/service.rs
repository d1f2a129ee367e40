//! The edge as one service: gate, who, what, may they, serve, tell.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use http::header::{ACCEPT_LANGUAGE, ALLOW, CACHE_CONTROL, HeaderValue, LOCATION, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use tracing::{error, info};

use super::authorize::{Asker, Authorized, authorize};
use super::budget::Budget;
use super::content::{Cache, Representation};
use super::integrity::Verifier;
use super::metric::Metrics;
use super::problem::{Problem, Shape};
use super::{Admitted, Body, Gate, Governance, Handler, control, listing, media};
use crate::access::{Action, Principal, Refusal, Resource};
use crate::audit::kind;
use crate::auth::Authenticator;
use crate::catalog::{ArtifactRecord, EventRecord, GoneRecord, Holder, Resolved};
use crate::digest::Digest;
use crate::distribute::Receiver;
use crate::error::{Error, ErrorKind, Result};
use crate::name::{ArtifactPath, RESERVED, RepositoryName};
use crate::policy::PolicySet;
use crate::registry::generic;

/// Memory for documents on their way to clients.
const OUTGOING: u64 = 256 << 20;
/// Memory for documents that sources send.
const INCOMING: u64 = 512 << 20;

/// An edge: answers HTTP requests over one tenant's catalog and blobs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Edge {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    receiver: Receiver,
    gate: Gate,
    authenticator: Arc<dyn Authenticator>,
    policies: PolicySet,
    verifier: Arc<Verifier>,
    metrics: Arc<Metrics>,
    damage: Arc<Mutex<Vec<(Digest, String)>>>,
    outgoing: Budget,
    incoming: Budget,
    governance: Governance,
    requests: AtomicU64,
}

impl Edge {
    /// An edge over what `receiver` receives: whoever asks is told by `authenticator`, what they
    /// may do is decided by `policies`, which requests are readable by `gate`.
    pub fn new(
        receiver: Receiver,
        gate: Gate,
        authenticator: Arc<dyn Authenticator>,
        policies: PolicySet,
    ) -> Edge {
        let metrics = Arc::new(Metrics::default());
        let damage: Arc<Mutex<Vec<(Digest, String)>>> = Arc::default();
        let found = damage.clone();
        // The finder cannot wait for the metadata store; `upkeep` and the next request record it.
        let verifier = Verifier::new(receiver.blobs().clone()).with_damage_observer(move |digest, reason| {
            found.lock().unwrap_or_else(PoisonError::into_inner).push((*digest, reason.to_owned()));
        });
        let verifier = Arc::new(verifier);
        let (outgoing, incoming) = (Budget::new(OUTGOING), Budget::new(INCOMING));
        let requests = first_request(&receiver);
        Edge {
            inner: Arc::new(Inner {
                receiver,
                gate,
                authenticator,
                policies,
                verifier,
                metrics,
                damage,
                outgoing,
                incoming,
                governance: Governance::none(),
                requests,
            }),
        }
    }

    /// The same edge, governed by `governance`. To be called before the edge is cloned: what was
    /// cloned from it stays as it is.
    #[must_use]
    pub fn with_governance(self, governance: Governance) -> Edge {
        let inner = &self.inner;
        let requests = first_request(&inner.receiver);
        Edge {
            inner: Arc::new(Inner {
                receiver: inner.receiver.clone(),
                gate: inner.gate.clone(),
                authenticator: inner.authenticator.clone(),
                policies: inner.policies.clone(),
                verifier: inner.verifier.clone(),
                metrics: inner.metrics.clone(),
                damage: inner.damage.clone(),
                outgoing: inner.outgoing.clone(),
                incoming: inner.incoming.clone(),
                governance,
                requests,
            }),
        }
    }

    /// What governs this edge.
    pub fn governance(&self) -> &Governance {
        &self.inner.governance
    }

    /// Has it recorded that a control request was refused.
    pub(super) fn control_denied(&self, asker: &Asker, action: Action, refusal: &Refusal) {
        let event = asker.event(kind::CONTROL_DENIED).about(action.as_str()).because(refusal.to_string());
        // A refusal stands whether or not the log takes it.
        let _ = self.inner.governance.audit.record(event);
    }

    /// What receives bundles for this edge.
    pub fn receiver(&self) -> &Receiver {
        &self.inner.receiver
    }

    /// The counters of this edge.
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// Memory for documents on their way out.
    pub(super) fn outgoing(&self) -> &Budget {
        &self.inner.outgoing
    }

    /// Memory for documents on their way in.
    pub(super) fn incoming(&self) -> &Budget {
        &self.inner.incoming
    }

    pub(super) fn policies(&self) -> &PolicySet {
        &self.inner.policies
    }

    async fn answer(&self, parts: &Parts, body: Body, admitted: &Admitted, peer: SocketAddr) -> Answered {
        let first = admitted.target.segments().first().map_or("", String::as_str);
        let asker = match self.asker(parts, peer).await {
            Ok(asker) => asker,
            Err(error) => return Answered { principal: None, result: Err(self.refuse_credentials(&error)) },
        };
        let result = match first {
            "healthz" | "readyz" | "metrics" | ".well-known" | "api" => {
                control::route(self, parts, body, admitted, &asker).await
            }
            "" => self.front(admitted),
            "artifactory" if admitted.target.segments().get(1).is_some_and(|second| second == "api") => {
                control::artifactory(self, admitted, &asker).await
            }
            _ => self.serve(parts, admitted, &asker).await,
        };
        Answered { principal: Some(asker.principal), result }
    }

    async fn asker(&self, parts: &Parts, peer: SocketAddr) -> Result<Asker> {
        let principal = self.inner.authenticator.authenticate(parts).await?.unwrap_or(Principal::Anonymous);
        let client = Some(peer.ip().to_canonical());
        let tenant = self.inner.receiver.catalog().tenant().clone();
        let languages = parts.headers.get(ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
        Ok(Asker {
            tenant,
            principal,
            client,
            country: None,
            languages: languages.map(str::to_owned),
            now: self.inner.receiver.now(),
            request: self.inner.requests.fetch_add(1, Ordering::Relaxed),
        })
    }

    /// Serves a path of a repository.
    async fn serve(
        &self,
        parts: &Parts,
        admitted: &Admitted,
        asker: &Asker,
    ) -> Result<Response<Body>, Problem> {
        match admitted.method {
            Method::GET | Method::HEAD => {}
            Method::OPTIONS => return Ok(allowed("GET, HEAD")),
            _ => return Err(read_only()),
        }
        let first = admitted.target.segments().first().map_or("", String::as_str);
        if RESERVED.contains(&first) && first != "artifactory" {
            return Err(nothing());
        }
        let route = generic::route(&admitted.target).map_err(|error| self.absent(asker, &error))?;
        let catalog = self.inner.receiver.catalog();
        let record = catalog.repository(&route.repository).await?;
        let public = record.as_ref().is_some_and(|record| record.public);
        let action = if route.folder { Action::List } else { Action::Read };
        let resource = Resource::Repository { name: &route.repository, path: route.path.as_ref(), public };
        let Ok(authorized) = authorize(&self.inner.policies, asker, action, resource) else {
            return Err(self.refuse(asker));
        };
        if record.is_none() || !route.possible {
            return Err(nothing());
        }
        if route.folder {
            return listing::respond(self, parts, admitted, &route.repository, route.path.as_ref()).await;
        }
        let Some(path) = &route.path else { return Ok(with_slash(admitted)) };
        match catalog.resolve(&route.repository, path).await? {
            Some(Resolved::Artifact(artifact)) => {
                self.deliver(parts, asker, &authorized, &artifact, path, public).await
            }
            Some(Resolved::Alias(alias, artifact)) => {
                self.deliver(parts, asker, &authorized, &artifact, &alias.target, public).await
            }
            Some(Resolved::Gone(gone)) => Err(withdrawn(&gone)),
            None => {
                let below = catalog.list(&route.repository, Some(path), None, 1).await?;
                if below.entries.is_empty() { Err(nothing()) } else { Ok(with_slash(admitted)) }
            }
        }
    }

    /// Hands out the bytes of an artifact that the asker may read.
    pub(super) async fn deliver(
        &self,
        parts: &Parts,
        asker: &Asker,
        authorized: &Authorized,
        artifact: &ArtifactRecord,
        path: &ArtifactPath,
        public: bool,
    ) -> Result<Response<Body>, Problem> {
        self.restrict(asker, artifact).await?;
        // What depends on the address of who asks is not for caches that others share.
        let representation = representation(artifact, path, public && !artifact.constrained);
        let inner = &self.inner;
        let result = authorized.respond(parts, &representation, &inner.verifier).await;
        self.record_damage().await;
        let mut response = result?;
        if parts.method == Method::GET && response.status().is_success() {
            let metrics = inner.metrics.clone();
            metrics.download_started();
            response.body_mut().on_end(move |delivered| {
                metrics.download_ended(delivered.bytes, delivered.complete);
            });
        }
        Ok(response)
    }

    /// Holds a download against the constraints that were signed with the bundles that contain it.
    /// All of them must allow it; a country that is not known is in no list.
    async fn restrict(&self, asker: &Asker, artifact: &ArtifactRecord) -> Result<(), Problem> {
        if !artifact.constrained {
            return Ok(());
        }
        for Holder(name, version) in &artifact.holders {
            let Some(record) = self.inner.receiver.catalog().bundle(name, version).await? else { continue };
            let constraints = &record.constraints;
            if !constraints.permits_address(asker.client) || !constraints.permits_country(None) {
                info!(bundle = %name, %version, client = ?asker.client, "a bundle's constraints forbid a download");
                return Err(Problem::new(
                    StatusCode::FORBIDDEN,
                    ErrorKind::Forbidden.as_str(),
                    "This may not be downloaded from where you are.",
                ));
            }
        }
        Ok(())
    }

    /// What an edge does about once a minute: keeps the time floor, records damage that was found
    /// while bytes were on their way.
    pub async fn upkeep(&self) -> Result<()> {
        self.record_damage().await;
        self.inner.receiver.catalog().keep_time().await
    }

    async fn record_damage(&self) {
        let found = std::mem::take(&mut *self.inner.damage.lock().unwrap_or_else(PoisonError::into_inner));
        for (digest, reason) in found {
            self.inner.metrics.blob_damaged();
            error!(%digest, reason, "a stored blob is damaged");
            let event =
                EventRecord::new(self.inner.receiver.now(), "blob.damaged", digest.to_string(), reason);
            if let Err(error) = self.inner.receiver.catalog().record_event(&event).await {
                error!(%error, "the event could not be recorded");
            }
        }
    }

    fn front(&self, admitted: &Admitted) -> Result<Response<Body>, Problem> {
        match admitted.method {
            Method::GET | Method::HEAD => {
                let name = self.inner.receiver.name();
                let text = format!("distedge {name}\nread-only; see /.well-known/distedge\n");
                Ok(media::document(admitted.head, "text/plain; charset=utf-8", text))
            }
            Method::OPTIONS => Ok(allowed("GET, HEAD")),
            _ => Err(read_only()),
        }
    }

    /// The answer to who may not: the same for what is private and for what is not there.
    pub(super) fn refuse(&self, asker: &Asker) -> Problem {
        match asker.principal {
            Principal::Anonymous => self.challenge("Credentials are needed for this."),
            _ => nothing(),
        }
    }

    fn absent(&self, asker: &Asker, error: &Error) -> Problem {
        match error.kind() {
            ErrorKind::NotFound => self.refuse(asker),
            _ => Problem::of(error),
        }
    }

    fn refuse_credentials(&self, error: &Error) -> Problem {
        match error.kind() {
            ErrorKind::Unauthenticated => self.challenge(error.message()),
            _ => Problem::of(error),
        }
    }

    fn challenge(&self, detail: &str) -> Problem {
        let problem = Problem::new(StatusCode::UNAUTHORIZED, ErrorKind::Unauthenticated.as_str(), detail);
        match self.inner.authenticator.challenge() {
            Some(challenge) => problem.with_header(WWW_AUTHENTICATE, challenge.value().clone()),
            None => problem,
        }
    }
}

/// Numbers of requests go on rising over restarts, so that the log can join events by them.
fn first_request(receiver: &Receiver) -> AtomicU64 {
    AtomicU64::new(receiver.now().as_unix().unsigned_abs() << 20)
}

struct Answered {
    principal: Option<Principal>,
    result: Result<Response<Body>, Problem>,
}

impl Handler for Edge {
    async fn handle(&self, request: Request<Body>, peer: SocketAddr) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let shape =
            if parts.uri.path().starts_with("/artifactory/") { Shape::Artifactory } else { Shape::Problem };
        let head = parts.method == Method::HEAD;
        let (principal, result) = match self.inner.gate.admit(&parts) {
            Ok(admitted) => {
                let answered = self.answer(&parts, body, &admitted, peer).await;
                (answered.principal, answered.result)
            }
            Err(problem) => (None, Err(problem)),
        };
        let mut response = match result {
            Ok(response) => response,
            Err(problem) => {
                if problem.status().is_server_error() {
                    error!(path = parts.uri.path(), status = problem.status().as_u16(), cause = ?problem.cause(), "failed");
                }
                problem.response(head, shape)
            }
        };
        let status = response.status().as_u16();
        self.inner.metrics.answered(status);
        let line = Line {
            peer,
            principal: principal.map_or_else(|| "-".into(), |principal| principal.to_string()),
            method: parts.method,
            // The query may hold credentials some day; it never gets into a log.
            path: parts.uri.path().chars().take(2048).collect(),
            status,
        };
        response.body_mut().on_end(move |delivered| line.write(delivered.bytes, delivered.complete));
        response
    }
}

/// One line of the access log.
struct Line {
    peer: SocketAddr,
    principal: String,
    method: Method,
    path: String,
    status: u16,
}

impl Line {
    fn write(&self, bytes: u64, complete: bool) {
        info!(
            target: "distedge::access",
            peer = %self.peer,
            principal = self.principal,
            method = %self.method,
            path = self.path,
            status = self.status,
            bytes,
            complete,
            "request"
        );
    }
}

fn representation(artifact: &ArtifactRecord, path: &ArtifactPath, public: bool) -> Representation {
    // An artifact never changes, but it may be withdrawn, and an alias may move: caches ask again.
    let cache = if public { Cache::Public } else { Cache::Private };
    let name = path.file_name();
    Representation {
        info: crate::blob::BlobInfo { digest: artifact.digest, size: artifact.size },
        media_type: artifact.media_type.clone(),
        file_name: name.into(),
        last_modified: artifact.modified,
        checksums: artifact.checksums.clone(),
        cache,
    }
}

/// 204 with the methods that are allowed.
pub(super) fn allowed(methods: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    response
}

fn with_slash(admitted: &Admitted) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    // Made of the parsed path, percent-encoded anew: nothing of the request is echoed.
    if let Ok(location) = HeaderValue::from_str(&format!("{}/", admitted.target.to_path())) {
        response.headers_mut().insert(LOCATION, location);
    }
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cold]
pub(super) fn nothing() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, ErrorKind::NotFound.as_str(), "There is nothing under this path.")
}

#[cold]
fn read_only() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        ErrorKind::MethodNotAllowed.as_str(),
        "An edge is read-only.",
    )
    .with_header(ALLOW, HeaderValue::from_static("GET, HEAD"))
}

/// 410, or 451 for legal reasons (RFC 7725 section 3).
#[cold]
pub(super) fn withdrawn(gone: &GoneRecord) -> Problem {
    let status = if gone.legal { StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS } else { StatusCode::GONE };
    let detail = format!("Withdrawn with bundle {}/{}: {}", gone.bundle, gone.version, gone.reason);
    Problem::new(status, ErrorKind::Gone.as_str(), detail)
}

/// What is public of a repository, for who asks.
pub(super) async fn may_read(edge: &Edge, asker: &Asker, repositories: &[RepositoryName]) -> Result<bool> {
    for name in repositories {
        let public = edge.receiver().catalog().repository(name).await?.is_some_and(|record| record.public);
        let resource = Resource::Repository { name, path: None, public };
        if authorize(edge.policies(), asker, Action::Read, resource).is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}
