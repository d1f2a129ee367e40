//! The edge as one service: gate, who, what, may they, serve, tell.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use http::header::{
    ACCEPT_LANGUAGE, ALLOW, AUTHORIZATION, CACHE_CONTROL, HeaderValue, LOCATION, WWW_AUTHENTICATE,
};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use tracing::{error, info};

use super::authorize::{Asker, authorize};
use super::budget::Budget;
use super::download::{link_token, malformed};
use super::integrity::Verifier;
use super::metric::Metrics;
use super::problem::{Problem, Shape};
use super::sampler::Sampler;
use super::tenancy::mount;
use super::{Admitted, Body, Connection, Gate, Governance, Handler, control, media};
use crate::access::{Action, Principal, Refusal, Resource};
use crate::address::{TrustedProxies, client_address};
use crate::audit::{Event, kind};
use crate::auth::{Authenticator, Chain, DirectoryAuthenticator, PeerAuthenticator, signed_body};
use crate::catalog::{EventRecord, GoneRecord};
use crate::clock::{Clock, Timestamp};
use crate::digest::Digest;
use crate::distribute::Receiver;
use crate::error::{Error, ErrorKind, Result};
use crate::govern::{Pairings, Policies, Tokens, pairing_event};
use crate::name::RepositoryName;
use crate::policy::PolicySet;
use crate::token::SignedBody;

/// Memory for documents on their way to clients.
const OUTGOING: u64 = 256 << 20;
/// Memory for documents that sources send.
const INCOMING: u64 = 512 << 20;
/// How old the time at which a token was last used may be on disk, in seconds.
const USE_RESOLUTION: i64 = 3_600;

/// An edge: answers HTTP requests over one tenant's catalog and blobs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Edge {
    inner: Arc<Inner>,
}

#[derive(Clone, Debug)]
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
    requests: Arc<AtomicU64>,
    sampler: Arc<Sampler>,
    in_force: Option<Arc<Policies>>,
    tokens: Option<Arc<Tokens>>,
    pairings: Option<Arc<Pairings>>,
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
                sampler: Arc::default(),
                in_force: None,
                tokens: None,
                pairings: None,
            }),
        }
    }

    /// The same edge, governed by `governance`. As with every `with_`: what was cloned from this
    /// edge before stays as it is.
    #[must_use]
    pub fn with_governance(self, governance: Governance) -> Edge {
        self.changed(|inner| inner.governance = governance)
    }

    /// The same edge, whose requests are also judged by the policy in force.
    #[must_use]
    pub fn with_policies(self, policies: Arc<Policies>) -> Edge {
        self.changed(|inner| {
            inner.policies = inner.policies.clone().with(policies.clone());
            inner.in_force = Some(policies);
        })
    }

    /// The same edge, which also lets in whom these user tokens and pairings name, and hands them
    /// out.
    #[must_use]
    pub fn with_access(self, tokens: Arc<Tokens>, pairings: Arc<Pairings>) -> Edge {
        let clock: Arc<dyn Clock> = Arc::new(EdgeClock(self.inner.receiver.clone()));
        self.changed(|inner| {
            inner.authenticator = Arc::new(Chain::new(vec![
                Box::new(PeerAuthenticator::new(pairings.clone(), clock.clone())),
                Box::new(DirectoryAuthenticator::new(tokens.clone(), clock)),
                Box::new(inner.authenticator.clone()),
            ]));
            inner.tokens = Some(tokens);
            inner.pairings = Some(pairings);
        })
    }

    /// The same edge, which asks `authenticator` before all others who is there.
    #[must_use]
    pub fn with_authenticator(self, authenticator: Box<dyn Authenticator>) -> Edge {
        self.changed(|inner| {
            inner.authenticator =
                Arc::new(Chain::new(vec![authenticator, Box::new(inner.authenticator.clone())]));
        })
    }

    fn changed(self, change: impl FnOnce(&mut Inner)) -> Edge {
        let mut inner = Arc::unwrap_or_clone(self.inner);
        change(&mut inner);
        Edge { inner: Arc::new(inner) }
    }

    /// The policies, if this edge has any that can be changed.
    pub fn policies_in_force(&self) -> Option<&Arc<Policies>> {
        self.inner.in_force.as_ref()
    }

    /// The user tokens, if this edge has any.
    pub fn tokens(&self) -> Option<&Arc<Tokens>> {
        self.inner.tokens.as_ref()
    }

    /// The pairings, if this edge has any.
    pub fn pairings(&self) -> Option<&Arc<Pairings>> {
        self.inner.pairings.as_ref()
    }

    /// What governs this edge.
    pub fn governance(&self) -> &Governance {
        &self.inner.governance
    }

    /// Has it recorded that a control request was refused.
    pub(super) fn control_denied(&self, asker: &Asker, action: Action, refusal: &Refusal) {
        if !matches!(asker.principal, Principal::Anonymous) {
            let event = asker.event(kind::CONTROL_DENIED).about(action.as_str());
            // The rule alone: a reason can name a person, who could not be erased from it.
            self.note(event.because(refusal.rule.clone()));
        }
    }

    /// Records something that stands whether or not it is recorded, and that anyone can cause: of
    /// very many in one second, most are only counted.
    pub(super) fn note(&self, event: Event) {
        if let Some(event) = self.inner.sampler.admit(event)
            && self.inner.governance.audit.record(event).is_err()
        {
            self.inner.metrics.event_lost();
        }
    }

    /// Reads blobs and checks them.
    pub(super) fn verifier(&self) -> &Arc<Verifier> {
        &self.inner.verifier
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
        let token = match link_token(parts.uri.query()) {
            Ok(Some(_)) if presents(parts) => {
                let both = malformed("a request comes with a link or with credentials, not with both");
                return Answered { principal: None, result: Err(both) };
            }
            Ok(token) => token,
            Err(problem) => return Answered { principal: None, result: Err(problem) },
        };
        let (asker, outcome) = self.asker(parts, peer).await;
        if let Err(error) = outcome {
            self.note(asker.event(kind::AUTH_FAILED).because(error.message().to_owned()));
            return Answered { principal: None, result: Err(self.refuse_credentials(&error)) };
        }
        let body = match signed(parts, body, admitted, &asker.principal) {
            Ok(body) => body,
            Err(error) => {
                self.note(asker.event(kind::AUTH_FAILED).because(error.message().to_owned()));
                return Answered { principal: None, result: Err(self.refuse_credentials(&error)) };
            }
        };
        let result = match first {
            "healthz" | "readyz" | "metrics" | ".well-known" | "api" => {
                control::route(self, parts, body, admitted, &asker).await
            }
            "access" => control::access(self, parts, body, admitted, &asker).await,
            "" => self.front(admitted),
            "artifactory" if admitted.target.segments().get(1).is_some_and(|second| second == "api") => {
                control::artifactory(self, parts, body, admitted, &asker).await
            }
            _ => self.serve(parts, admitted, &asker, token).await,
        };
        Answered { principal: Some(asker.principal), result }
    }

    async fn asker(&self, parts: &Parts, peer: SocketAddr) -> (Asker, Result<()>) {
        let governance = &self.inner.governance;
        let client = client(parts, peer.ip(), &governance.proxies);
        let languages = parts.headers.get(ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
        let mut asker = Asker {
            tenant: self.inner.receiver.catalog().tenant().clone(),
            principal: Principal::Anonymous,
            client,
            country: client.and_then(|client| governance.geo.resolve(client).country),
            languages: languages.map(str::to_owned),
            now: self.inner.receiver.now(),
            request: self.inner.requests.fetch_add(1, Ordering::Relaxed),
        };
        let outcome = match self.inner.authenticator.authenticate(parts).await {
            Ok(principal) => {
                asker.principal = principal.unwrap_or(Principal::Anonymous);
                Ok(())
            }
            Err(error) => Err(error),
        };
        (asker, outcome)
    }

    /// What an edge does about once a minute: keeps the time floor, records damage that was found
    /// while bytes were on their way.
    pub async fn upkeep(&self) -> Result<()> {
        self.record_damage().await;
        self.settle_access().await?;
        if let Some(links) = &self.inner.governance.links {
            links.upkeep(self.inner.receiver.now()).await?;
        }
        if let Some(downloads) = &self.inner.governance.downloads {
            downloads.catch_up().await?;
        }
        self.inner.receiver.catalog().keep_time().await
    }

    /// Ends what has run out, writes down what was used.
    async fn settle_access(&self) -> Result<()> {
        let now = self.inner.receiver.now();
        if let Some(tokens) = &self.inner.tokens {
            tokens.settle(now.plus(-USE_RESOLUTION), now).await?;
        }
        let Some(pairings) = &self.inner.pairings else { return Ok(()) };
        for (state, events) in pairings.settle(now).await? {
            for event in events {
                let line = pairing_event(&state, &event, |kind| Event::by_itself(now, kind));
                self.inner.governance.audit.record_durable(line).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn record_damage(&self) {
        let found = std::mem::take(&mut *self.inner.damage.lock().unwrap_or_else(PoisonError::into_inner));
        for (digest, reason) in found {
            self.inner.metrics.blob_damaged();
            error!(%digest, reason, "a stored blob is damaged");
            let event =
                EventRecord::new(self.inner.receiver.now(), "blob.damaged", digest.to_string(), reason);
            if let Err(error) = self.inner.receiver.catalog().record_event(&event).await {
                error!(%error, "the event could not be recorded");
            }
            self.note(Event::by_itself(event.at, kind::BLOB_DAMAGED).about(event.what));
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

    pub(super) fn absent(&self, asker: &Asker, error: &Error) -> Problem {
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

/// Tells the edge's time to authenticators: no clock that was turned back makes a token good again.
#[derive(Debug)]
struct EdgeClock(Receiver);

impl Clock for EdgeClock {
    fn now(&self) -> Timestamp {
        self.0.now()
    }
}

/// The body of a request, held to what its signature says if a paired service sent it.
fn signed(parts: &Parts, body: Body, admitted: &Admitted, principal: &Principal) -> Result<Body> {
    if !matches!(principal, Principal::Peer(_)) {
        return Ok(body);
    }
    match signed_body(&parts.headers)? {
        SignedBody::Digest(digest) => body.held_to(digest),
        SignedBody::Stream if control::verifies_content(admitted) => Ok(body),
        SignedBody::Stream => {
            Err(Error::new(ErrorKind::Unauthenticated, "the signature of this request must be over its body"))
        }
    }
}

/// Whether a request's header presents credentials.
fn presents(parts: &Parts) -> bool {
    parts.headers.contains_key(AUTHORIZATION) || parts.headers.contains_key("x-jfrog-art-api")
}

/// The client's address, as far as it can be told.
fn client(parts: &Parts, peer: IpAddr, proxies: &TrustedProxies) -> Option<IpAddr> {
    // A proxy that connects for nobody it would name.
    if parts.extensions.get::<Connection>().is_some_and(|connection| connection.client.is_none()) {
        return None;
    }
    let name = proxies.header.name();
    let values = name.into_iter().flat_map(|name| parts.headers.get_all(name)).map(HeaderValue::as_bytes);
    client_address(peer, values, proxies).known()
}

/// Numbers of requests go on rising over restarts, so that the log can join events by them.
fn first_request(receiver: &Receiver) -> Arc<AtomicU64> {
    Arc::new(AtomicU64::new(receiver.now().as_unix().unsigned_abs() << 20))
}

struct Answered {
    principal: Option<Principal>,
    result: Result<Response<Body>, Problem>,
}

impl Handler for Edge {
    async fn handle(&self, request: Request<Body>, peer: SocketAddr) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let foreign = ["/artifactory/", "/access/"].iter().any(|prefix| parts.uri.path().starts_with(prefix));
        let shape = if foreign { Shape::Artifactory } else { Shape::Problem };
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
        // RFC 9110 section 15.5.2: a server that answers 401 must send a challenge.
        if response.status() == StatusCode::UNAUTHORIZED
            && !response.headers().contains_key(WWW_AUTHENTICATE)
            && let Some(challenge) = self.inner.authenticator.challenge()
        {
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge.value().clone());
        }
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

/// 204 with the methods that are allowed.
pub(super) fn allowed(methods: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    response
}

pub(super) fn with_slash(parts: &Parts, admitted: &Admitted) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    // Made of the parsed path, percent-encoded anew: nothing of the request is echoed.
    if let Ok(location) = HeaderValue::from_str(&format!("{}{}/", mount(parts), admitted.target.to_path())) {
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
pub(super) fn read_only() -> Problem {
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
