//! The control surface: `/api/v1`, health, counters, and what anyone may know of an edge.
//!
//! | path | methods | for |
//! |---|---|---|
//! | `/healthz`, `/readyz` | GET | anyone |
//! | `/metrics` | GET | `audit` |
//! | `/.well-known/distedge` | GET | anyone |
//! | `/api/v1/status`, `/api/v1/trust` | GET; PUT (trust) | `receive` |
//! | `/api/v1/bundles` | GET; POST an envelope | who may read some; `receive` |
//! | `/api/v1/bundles/{name}/{version}` | GET, DELETE | who may read it; `withdraw` |
//! | `/api/v1/bundles/{name}/{version}/commit` | POST | `receive` |
//! | `/api/v1/bundles/{name}/{version}/{document}` | GET | who may read the bundle |
//! | `/api/v1/blobs/{hex}` | HEAD, PATCH | `receive` |
//! | `/api/v1/packs`, `/api/v1/packs/have`, `/api/v1/have`, `/api/v1/have/parts` | POST | `receive` |
//! | `/api/v1/volumes` | POST | `receive` |
//! | `/api/v1/keys`, `/api/v1/keys/{id}` | GET | anyone |
//! | `/api/v1/repositories`, `…/{name}` | GET; PUT | `administer` |
//! | `/api/v1/events`, `/api/v1/governance` | GET | `audit` |
//! | `/api/v1/link-keys`, `…/{kid}/retire`, `…/{kid}/revoke` | GET, POST; POST | `administer` |
//! | `/api/v1/links`, `…/{id}` | GET, POST; GET, DELETE | `mint` and `read` on what the link opens |
//! | `/api/v1/links/revoke` | POST | `mint` (a subject), `administer` |
//! | `/api/v1/link-policies/{id}` | GET; PUT, DELETE | `mint`; `administer` |
//! | `/api/v1/link-revocations`, `…/applied` | GET, POST; GET | `receive` |
//! | `/artifactory/api/signed/url`, `…/{id}` | POST; DELETE | as `/api/v1/links` |
//! | `/api/v1/audit`, `…/status`, `…/checkpoint`, `…/tile/…`, `…/proof/…`, `…/export` | GET | `audit` |
//! | `/api/v1/audit/cosignature`, `…/erase` | POST | `audit`; `administer` |
//! | `/api/v1/downloads` | GET | `audit` |
//! | `/api/v1/gc`, `/api/v1/scrub` | POST | `administer` |
//! | `/api/v1/tokens`, `…/{id}` | GET, POST; GET, DELETE | `administer`; one's own: its user |
//! | `/api/v1/pairings`, `…/{id}`, `…/tokens` | GET; GET, DELETE; POST | `administer`; one's own: its peer |
//! | `/api/v1/pairings/redeem`, `…/confirm` | POST | who holds a pairing token |
//! | `/api/v1/pairings/{id}/rotate` | POST | its peer |
//! | `/api/v1/policy`, `…/versions`, `…/versions/{number}` | GET; PUT the policy | `administer` |
//! | `/api/v1/policy/check`, `…/rollback`, `…/replay`, `/api/v1/explain` | POST | `administer` |
//! | `/access/api/v1/service_trust/…` | POST, DELETE | the same, as clients of Artifactory ask |

mod audit;
mod link;
mod pairing;
mod past;
mod policy;
mod token;

use http::header::{ALLOW, CONTENT_LENGTH, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::access::{Action, Resource};
use crate::audit::{Event, Health, kind};
use crate::bundle::limits;
use crate::catalog::RepositoryRecord;
use crate::digest::Digest;
use crate::distribute::{BundleAnswer, UploadAnswer};
#[cfg(feature = "delta")]
use crate::distribute::{HaveQuestion, PartsQuestion, SectionsQuestion};
use crate::edge::authorize::{Asker, authorize};
use crate::edge::budget::Share;
use crate::edge::download::restricted;
use crate::edge::problem::Problem;
use crate::edge::service::{Edge, allowed, nothing};
use crate::edge::{Admitted, Body, document, media};
use crate::error::{Error, ErrorKind};
use crate::key::PublicKey;
use crate::name::{BundleName, RepositoryName, Version};

/// How much of an upload has arrived (after draft-ietf-httpbis-resumable-upload).
const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");

/// Longest question of a source.
#[cfg(feature = "delta")]
const QUESTION: usize = 8 << 20;

type Answer = Result<Response<Body>, Problem>;

/// One control request on its way.
struct Call<'a> {
    edge: &'a Edge,
    parts: &'a Parts,
    admitted: &'a Admitted,
    asker: &'a Asker,
}

/// Answers everything whose first segment belongs to the edge itself.
pub(super) async fn route(
    edge: &Edge,
    parts: &Parts,
    body: Body,
    admitted: &Admitted,
    asker: &Asker,
) -> Answer {
    let call = Call { edge, parts, admitted, asker };
    let segments: Vec<&str> = admitted.target.segments().iter().map(String::as_str).collect();
    if admitted.target.has_trailing_slash() {
        return Err(call.unknown());
    }
    match segments.as_slice() {
        ["healthz"] => call.plain("ok\n"),
        ["readyz"] => call.ready().await,
        ["metrics"] => {
            call.methods("GET, HEAD")?;
            call.may(Action::Audit, Resource::Edge)?;
            let text = edge.metrics().to_text();
            Ok(media::document(admitted.head, "text/plain; version=0.0.4; charset=utf-8", text))
        }
        [".well-known", "distedge"] => call.well_known().await,
        ["api", "v1", "status"] => {
            call.methods("GET, HEAD")?;
            call.may(Action::Receive, Resource::Edge)?;
            media::json(admitted.head, &edge.receiver().status().await?)
        }
        ["api", "v1", "trust"] => call.trust(body).await,
        ["api", "v1", "keys"] => call.keys().await,
        ["api", "v1", "keys", id] => call.key(id).await,
        ["api", "v1", "blobs", hex] => call.blob(hex, body).await,
        #[cfg(feature = "delta")]
        ["api", "v1", "packs"] => call.pack(body).await,
        #[cfg(feature = "delta")]
        ["api", "v1", "volumes"] => call.volume(body).await,
        #[cfg(feature = "delta")]
        ["api", "v1", "packs", "have"] => {
            let question: SectionsQuestion = call.question(body).await?;
            media::json(false, &edge.receiver().sections(&question.sections).await?)
        }
        #[cfg(feature = "delta")]
        ["api", "v1", "have"] => {
            let question: HaveQuestion = call.question(body).await?;
            media::json(false, &edge.receiver().resembling(&question).await?)
        }
        #[cfg(feature = "delta")]
        ["api", "v1", "have", "parts"] => {
            let question: PartsQuestion = call.question(body).await?;
            let inventory = edge.receiver().parts(&question).await?;
            Ok(media::document(false, "application/octet-stream", inventory))
        }
        ["api", "v1", "bundles"] => call.bundles(body).await,
        ["api", "v1", "bundles", name, version, rest @ ..] => {
            match (BundleName::new(name), Version::new(version)) {
                (Ok(name), Ok(version)) => call.bundle(&name, &version, rest).await,
                _ => Err(call.unknown()),
            }
        }
        ["api", "v1", "repositories"] => call.repositories().await,
        ["api", "v1", "repositories", name] => call.repository(name, body).await,
        ["api", "v1", "events"] => call.events().await,
        ["api", "v1", "governance"] => call.governance(),
        ["api", "v1", "audit", rest @ ..] => call.audit(rest, body).await,
        ["api", "v1", "downloads"] => call.downloads().await,
        ["api", "v1", "gc"] => {
            call.methods("POST")?;
            call.may(Action::Administer, Resource::Edge)?;
            let report = edge.receiver().collect_garbage().await?;
            call.record(call.event(kind::GC_RUN)).await?;
            media::json(false, &report)
        }
        ["api", "v1", "scrub"] => {
            call.methods("POST")?;
            call.may(Action::Administer, Resource::Edge)?;
            let report = edge.receiver().scrub().await?;
            call.record(call.event(kind::SCRUB_RUN)).await?;
            media::json(false, &report)
        }
        ["api", "v1", "tokens", rest @ ..] => call.tokens(rest, body).await,
        ["api", "v1", "link-keys", rest @ ..] => call.link_keys(rest, body).await,
        ["api", "v1", "links", rest @ ..] => call.links(rest, body).await,
        ["api", "v1", "link-policies", rest @ ..] => call.link_policies(rest, body).await,
        ["api", "v1", "link-revocations", rest @ ..] => call.link_revocations(rest, body).await,
        ["api", "v1", "pairings", rest @ ..] => call.pairings(rest, body).await,
        ["api", "v1", "policy", rest @ ..] => call.policy(rest, body).await,
        ["api", "v1", "explain"] => call.explain(body).await,
        _ => Err(call.unknown()),
    }
}

/// Whether what comes with the request is verified by its own content where it goes: only such a
/// body may be left out of a peer's signature.
pub(super) fn verifies_content(admitted: &Admitted) -> bool {
    let segments: Vec<&str> = admitted.target.segments().iter().map(String::as_str).collect();
    match segments.as_slice() {
        ["api", "v1", "blobs", _] => admitted.method == Method::PATCH,
        ["api", "v1", "packs"] | ["api", "v1", "volumes"] => admitted.method == Method::POST,
        _ => false,
    }
}

/// Trust between services, at the paths where clients of Artifactory ask for it.
pub(super) async fn access(
    edge: &Edge,
    parts: &Parts,
    body: Body,
    admitted: &Admitted,
    asker: &Asker,
) -> Answer {
    let call = Call { edge, parts, admitted, asker };
    let segments: Vec<&str> = admitted.target.segments().iter().map(String::as_str).collect();
    match segments.as_slice() {
        ["access", "api", "v1", "service_trust", rest @ ..] => call.service_trust(rest, body).await,
        _ => Err(call.unknown()),
    }
}

/// The few system routes that clients of Artifactory ask before anything else.
pub(super) async fn artifactory(
    edge: &Edge,
    parts: &Parts,
    body: Body,
    admitted: &Admitted,
    asker: &Asker,
) -> Answer {
    let segments: Vec<&str> = admitted.target.segments().iter().map(String::as_str).collect();
    let read = matches!(admitted.method, Method::GET | Method::HEAD);
    match segments.as_slice() {
        ["artifactory", "api", "system", "ping"] if read => {
            Ok(media::document(admitted.head, "text/plain; charset=utf-8", "OK"))
        }
        ["artifactory", "api", "system", "version"] if read => {
            let version = json!({ "version": env!("CARGO_PKG_VERSION"), "product": "distedge" });
            media::json(admitted.head, &version)
        }
        ["artifactory", "api", "signed", "url", rest @ ..] => {
            Call { edge, parts, admitted, asker }.signed_url(rest, body).await
        }
        _ => Err(edge.refuse(asker)),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RepositorySetting {
    public: bool,
    #[serde(default)]
    format: Option<String>,
}

#[derive(Serialize)]
struct KeyAnswer<'a> {
    id: String,
    algorithm: &'static str,
    owner: &'a str,
    alias: &'a str,
    key: String,
    revoked: bool,
}

impl Call<'_> {
    async fn ready(&self) -> Answer {
        // One read of the metadata store: an edge that cannot look up is not ready.
        match self.edge.receiver().catalog().trust().await {
            Ok(_) => self.plain("ready\n"),
            Err(error) => Err(Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                ErrorKind::Unavailable.as_str(),
                format!("The metadata store does not answer ({}).", error.kind()),
            )),
        }
    }

    async fn well_known(&self) -> Answer {
        self.methods("GET, HEAD")?;
        let receiver = self.edge.receiver();
        let identity = receiver.identity().public_key();
        let about = json!({
            "name": receiver.name(),
            "software": concat!("distedge/", env!("CARGO_PKG_VERSION")),
            "tenants": [receiver.catalog().tenant()],
            "identity": { "id": identity.id().as_str(), "key": identity.to_text() },
            "protocols": ["generic", "distedge-control-1"],
            "keys": "/api/v1/keys",
        });
        media::json(self.admitted.head, &about)
    }

    async fn trust(&self, body: Body) -> Answer {
        self.methods("GET, HEAD, PUT")?;
        self.may(Action::Receive, Resource::Edge)?;
        if self.admitted.method != Method::PUT {
            let kept = self.edge.receiver().catalog().trust().await?.ok_or_else(nothing)?;
            return Ok(media::document(self.admitted.head, document::ENVELOPE_TYPE, kept.value));
        }
        let _share = self.incoming(limits::TRUST_DOCUMENT)?;
        let envelope = body.collect(limits::TRUST_DOCUMENT).await?;
        let accepted = self.edge.receiver().accept_trust(envelope).await?;
        self.record(self.event(kind::TRUST_ACCEPTED).about(accepted.version.to_string())).await?;
        media::json(false, &accepted)
    }

    async fn keys(&self) -> Answer {
        self.methods("GET, HEAD")?;
        let trust = self.edge.receiver().trust().await?;
        let keys: Vec<KeyAnswer<'_>> = trust
            .iter()
            .flat_map(|trust| &trust.release.keys)
            .map(|trusted| KeyAnswer {
                id: trusted.key.id().to_string(),
                algorithm: trusted.key.algorithm().as_str(),
                owner: &trusted.owner,
                alias: &trusted.alias,
                key: trusted.key.to_text(),
                revoked: trusted.revocation.is_some(),
            })
            .collect();
        media::json(self.admitted.head, &keys)
    }

    async fn key(&self, id: &str) -> Answer {
        self.methods("GET, HEAD")?;
        let trust = self.edge.receiver().trust().await?;
        let found: Option<&PublicKey> = trust
            .iter()
            .flat_map(|trust| &trust.release.keys)
            .map(|trusted| &trusted.key)
            .find(|key| key.id().as_str() == id);
        let key = found.ok_or_else(nothing)?;
        Ok(media::document(self.admitted.head, "text/plain; charset=utf-8", key.to_pem()))
    }

    async fn blob(&self, hex: &str, body: Body) -> Answer {
        self.methods("HEAD, PATCH")?;
        self.may(Action::Receive, Resource::Edge)?;
        let digest = Digest::from_hex(hex)?;
        let receiver = self.edge.receiver();
        if self.admitted.method == Method::HEAD {
            let position = receiver.position(&digest).await?;
            return Ok(uploaded(StatusCode::NO_CONTENT, position));
        }
        let offset = self.number(&UPLOAD_OFFSET)?;
        let length = self.admitted.content_length.unwrap_or(0);
        let position = receiver.position(&digest).await?;
        if offset.checked_add(length).is_none_or(|end| end > position.size) {
            let message =
                format!("{digest} has {} bytes; {length} bytes at {offset} would be more", position.size);
            return Err(Problem::of(&Error::new(ErrorKind::Mismatch, message)).and_close());
        }
        let answer = match receiver.upload(&digest, offset, body.into_stream()).await {
            Ok(answer) => answer,
            // What was not read of the body cannot be told from the next request.
            Err(error) => return Err(Problem::of(&error).and_close()),
        };
        if !answer.taken && !answer.is_complete() {
            let problem = Problem::new(
                StatusCode::CONFLICT,
                ErrorKind::Conflict.as_str(),
                format!("The upload stands at byte {}, not at {offset}.", answer.have),
            );
            return Err(problem.with_header(UPLOAD_OFFSET, HeaderValue::from(answer.have)).and_close());
        }
        if answer.taken {
            self.edge.metrics().received(length);
        }
        let status = if answer.is_complete() { StatusCode::CREATED } else { StatusCode::NO_CONTENT };
        Ok(uploaded(status, answer))
    }

    #[cfg(feature = "delta")]
    async fn pack(&self, body: Body) -> Answer {
        self.methods("POST")?;
        self.may(Action::Receive, Resource::Edge)?;
        let length = self.admitted.content_length.unwrap_or(0);
        match self.edge.receiver().unpack(body.into_stream()).await {
            Ok(answer) => {
                self.edge.metrics().received(length);
                media::json(false, &answer)
            }
            // What was not read of the body cannot be told from the next request.
            Err(error) => Err(Problem::of(&error).and_close()),
        }
    }

    /// A volume that was carried here.
    #[cfg(feature = "delta")]
    async fn volume(&self, body: Body) -> Answer {
        self.methods("POST")?;
        self.may(Action::Receive, Resource::Edge)?;
        let length = self.admitted.content_length.unwrap_or(0);
        let _share = self.incoming(limits::ENVELOPE)?;
        match self.edge.receiver().import(None, body.into_stream()).await {
            Ok(answer) => {
                self.edge.metrics().received(length);
                media::json(false, &answer)
            }
            // What was not read of the body cannot be told from the next request.
            Err(error) => Err(Problem::of(&error).and_close()),
        }
    }

    /// A question of the source, as JSON.
    #[cfg(feature = "delta")]
    async fn question<T: serde::de::DeserializeOwned>(&self, body: Body) -> Result<T, Problem> {
        self.methods("POST")?;
        self.may(Action::Receive, Resource::Edge)?;
        let _share = self.incoming(QUESTION)?;
        let question = body.collect(QUESTION).await?;
        Ok(serde_json::from_slice(&question)
            .map_err(|cause| Error::invalid(format!("the question cannot be read: {cause}")))?)
    }

    async fn bundles(&self, body: Body) -> Answer {
        self.methods("GET, HEAD, POST")?;
        let receiver = self.edge.receiver();
        if self.admitted.method == Method::POST {
            self.may(Action::Receive, Resource::Bundle { name: None })?;
            let _share = self.incoming(limits::ENVELOPE)?;
            let envelope = body.collect(limits::ENVELOPE).await?;
            return match receiver.offer(&envelope).await {
                Ok(answer) => {
                    let mut event = self.event(kind::BUNDLE_RECEIVED);
                    event.digest = Some(answer.digest);
                    self.record(event).await?;
                    media::json(false, &answer)
                }
                Err(error) => {
                    let conflict = error.kind() == ErrorKind::Conflict;
                    let kind = if conflict { kind::BUNDLE_CONFLICT } else { kind::BUNDLE_REJECTED };
                    self.edge.note(self.event(kind).because(error.message().to_owned()));
                    Err(error.into())
                }
            };
        }
        let everything =
            authorize(self.edge.policies(), self.asker, Action::List, Resource::Bundle { name: None })
                .is_ok();
        let mut seen = Vec::new();
        for record in receiver.catalog().bundles().await? {
            if everything || document::may_see(self.edge, self.asker, &record).await? {
                seen.push(BundleAnswer::from(&record));
            }
        }
        if seen.is_empty() && !everything {
            return Err(self.edge.refuse(self.asker));
        }
        media::json(self.admitted.head, &seen)
    }

    async fn bundle(&self, name: &BundleName, version: &Version, rest: &[&str]) -> Answer {
        let receiver = self.edge.receiver();
        match rest {
            ["commit"] => {
                self.methods("POST")?;
                self.may(Action::Receive, Resource::Bundle { name: Some(name) })?;
                let fresh = receiver
                    .catalog()
                    .bundle(name, version)
                    .await?
                    .is_some_and(|record| record.activated.is_none());
                let receipt = receiver.commit(name, version).await?;
                if fresh {
                    self.edge.metrics().bundle_committed();
                    self.record(self.event(kind::BUNDLE_COMMITTED).about_bundle(name, version)).await?;
                }
                Ok(media::document(false, document::ENVELOPE_TYPE, receipt))
            }
            [] if self.admitted.method == Method::DELETE => {
                self.may(Action::Withdraw, Resource::Bundle { name: Some(name) })?;
                if !receiver.remove(name, version).await? {
                    return Err(nothing());
                }
                self.record(self.event(kind::BUNDLE_WITHDRAWN).about_bundle(name, version)).await?;
                Ok(allowed("GET, HEAD, DELETE"))
            }
            _ => {
                self.methods(if rest.is_empty() { "GET, HEAD, DELETE" } else { "GET, HEAD" })?;
                document::respond(self.edge, self.parts, self.admitted, self.asker, name, version, rest).await
            }
        }
    }

    async fn repositories(&self) -> Answer {
        self.methods("GET, HEAD")?;
        let mut seen = Vec::new();
        for (name, record) in self.edge.receiver().catalog().repositories().await? {
            let resource = Resource::Repository { name: &name, path: None, public: record.public };
            if authorize(self.edge.policies(), self.asker, Action::List, resource).is_ok() {
                seen.push(json!({ "name": name, "format": record.format, "public": record.public }));
            }
        }
        if seen.is_empty() {
            self.may(Action::List, Resource::Edge)?;
        }
        media::json(self.admitted.head, &seen)
    }

    async fn repository(&self, name: &str, body: Body) -> Answer {
        self.methods("PUT")?;
        self.may(Action::Administer, Resource::Edge)?;
        let name = RepositoryName::new(name)?;
        let setting = body.collect(4096).await?;
        let setting: RepositorySetting = serde_json::from_slice(&setting)
            .map_err(|cause| Error::invalid(format!("the repository setting cannot be read: {cause}")))?;
        let catalog = self.edge.receiver().catalog();
        let known = catalog.repository(&name).await?;
        let format = setting.format.or(known.map(|known| known.format)).unwrap_or_else(|| "generic".into());
        let record = RepositoryRecord { format, public: setting.public };
        // First the log: what makes a repository public must not happen without a trace.
        let mut event = self.event(kind::CONFIG_CHANGED).because(match record.public {
            true => "the repository is public",
            false => "the repository is private",
        });
        event.repository = Some(name.clone());
        self.record(event).await?;
        catalog.set_repository(&name, &record).await?;
        media::json(false, &json!({ "name": name, "format": record.format, "public": record.public }))
    }

    async fn events(&self) -> Answer {
        self.methods("GET, HEAD")?;
        self.may(Action::Audit, Resource::Edge)?;
        media::json(self.admitted.head, &self.edge.receiver().catalog().events(1000).await?)
    }

    /// What governs the edge at the moment, and how that is.
    fn governance(&self) -> Answer {
        self.methods("GET, HEAD")?;
        self.may(Action::Audit, Resource::Edge)?;
        let governance = self.edge.governance();
        let ledger = governance.ledger.as_ref().map(|ledger| {
            let health = ledger.health();
            json!({
                "origin": ledger.origin(),
                "entries": ledger.len(),
                "health": health.as_str(),
                "good": health == Health::Good,
            })
        });
        let geo = governance.geo.state();
        let policy = self.edge.policies_in_force().map(|policies| policies.current().version);
        let state = json!({
            "policy": policy,
            "geo": geo,
            "audit": ledger,
            "degraded": geo.degraded.is_some()
                || governance.ledger.as_ref().is_some_and(|ledger| ledger.health() != Health::Good),
        });
        media::json(self.admitted.head, &state)
    }

    fn plain(&self, text: &'static str) -> Answer {
        self.methods("GET, HEAD")?;
        Ok(media::document(self.admitted.head, "text/plain; charset=utf-8", text))
    }

    /// Refuses what is not in `methods`, a list as in `Allow`.
    fn methods(&self, methods: &'static str) -> Result<(), Problem> {
        if methods.split(", ").any(|method| method == self.admitted.method.as_str()) {
            return Ok(());
        }
        let problem = Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            ErrorKind::MethodNotAllowed.as_str(),
            format!("This path allows {methods}."),
        );
        Err(problem.with_header(ALLOW, HeaderValue::from_static(methods)))
    }

    /// Refuses who may not do `action` on `resource`, and has it recorded.
    fn may(&self, action: Action, resource: Resource<'_>) -> Result<(), Problem> {
        self.has_right(action, resource)?;
        if let Err(refusal) = self.edge.policies().restrict(&self.asker.wants(action, resource)) {
            self.edge.control_denied(self.asker, action, &refusal);
            return Err(restricted(self.asker));
        }
        Ok(())
    }

    /// Refuses who has no right to do `action` on `resource`, from wherever, and has it recorded.
    fn has_right(&self, action: Action, resource: Resource<'_>) -> Result<(), Problem> {
        if let Err(refusal) = authorize(self.edge.policies(), self.asker, action, resource) {
            self.edge.control_denied(self.asker, action, &refusal);
            return Err(self.edge.refuse(self.asker));
        }
        Ok(())
    }

    /// An event of this request, at this moment, by who asks.
    fn event(&self, kind: &'static str) -> Event {
        self.asker.event(kind)
    }

    /// Records what is about to be answered, and waits until that is durable.
    async fn record(&self, event: Event) -> Result<(), Problem> {
        self.edge.governance().audit.record_durable(event).await.map_err(|error| {
            tracing::warn!(%error, "a change is refused, because the audit log does not take it");
            // Whatever is wrong with the log: the request was good, and may be good again.
            Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                ErrorKind::Unavailable.as_str(),
                "The change cannot be recorded at the moment; try again.",
            )
        })
    }

    /// A JSON document of at most `limit` bytes that the client sends.
    async fn json<T: serde::de::DeserializeOwned>(&self, body: Body, limit: usize) -> Result<T, Problem> {
        let _share = self.incoming(limit)?;
        let bytes = body.collect(limit).await?;
        // What serde says of bytes can quote them, and they may hold a secret.
        Ok(serde_json::from_slice(&bytes).map_err(|cause| {
            Error::invalid(format!(
                "the request's body is not what is expected here (line {}, column {}): {}",
                cause.line(),
                cause.column(),
                shape(&cause)
            ))
        })?)
    }

    fn unknown(&self) -> Problem {
        self.edge.refuse(self.asker)
    }

    /// Memory for a document of at most `limit` bytes that the client sends: as it came, decoded,
    /// read, and as it is stored.
    fn incoming(&self, limit: usize) -> Result<Share, Problem> {
        let length = self.admitted.content_length.unwrap_or(u64::MAX).min(limit as u64);
        self.edge.incoming().take(4 * length).map_err(Problem::and_close)
    }

    fn number(&self, name: &HeaderName) -> Result<u64, Problem> {
        let value = self.parts.headers.get(name).and_then(|value| value.to_str().ok());
        let digits = value.filter(|value| value.bytes().all(|byte| byte.is_ascii_digit()));
        let number = digits.and_then(|value| value.parse().ok());
        number.ok_or_else(|| {
            Problem::of(&Error::invalid(format!("the header {name} must hold one whole number"))).and_close()
        })
    }
}

/// What is wrong with a JSON document, without its content: field names and kinds of value only.
fn shape(cause: &serde_json::Error) -> String {
    let text = cause.to_string();
    match cause.classify() {
        serde_json::error::Category::Data
            if ["unknown field", "missing field", "duplicate field"]
                .iter()
                .any(|known| text.starts_with(known)) =>
        {
            text.split(" at line ").next().unwrap_or_default().to_owned()
        }
        serde_json::error::Category::Data => "a value does not fit its field".to_owned(),
        serde_json::error::Category::Eof => "it ends too early".to_owned(),
        _ => "it is not JSON".to_owned(),
    }
}

fn uploaded(status: StatusCode, answer: UploadAnswer) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(UPLOAD_OFFSET, HeaderValue::from(answer.have));
    headers.insert(UPLOAD_LENGTH, HeaderValue::from(answer.size));
    if status != StatusCode::NO_CONTENT {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
    }
    response
}
