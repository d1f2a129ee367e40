//! A path of a repository on its way to a client: rights, look-up, steering, restrictions, bytes,
//! ledger. There is one way through, for every protocol.

use std::sync::Arc;

use http::header::{HeaderValue, VARY};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use tracing::warn;

use super::authorize::{Asker, Authorized, authorize};
use super::content::{Cache, Representation, Selected, select};
use super::governance::AuditFull;
use super::problem::Problem;
use super::service::{Edge, nothing, with_slash, withdrawn};
use super::{Admitted, Body, GUARD_INTERVAL, Guard, listing};
use crate::access::{Action, Principal, Refusal, RefusalKind, Resource, Steering};
use crate::audit::{Event, kind};
use crate::catalog::{AliasRecord, ArtifactRecord, Resolved};
use crate::error::{Error, ErrorKind};
use crate::name::{ArtifactPath, Holder, RESERVED, RepositoryName};
use crate::registry::generic;

/// What is asked for, and who asks.
pub(super) struct Wish<'a> {
    pub(super) asker: &'a Asker,
    pub(super) repository: &'a RepositoryName,
    /// The path that the artifact has, which need not be the one that was asked for.
    pub(super) path: &'a ArtifactPath,
    /// Whether anyone may read the repository.
    pub(super) public: bool,
    /// Whether where the client is chose what it gets.
    pub(super) steered: bool,
}

impl Edge {
    /// Serves a path of a repository.
    pub(super) async fn serve(
        &self,
        parts: &Parts,
        admitted: &Admitted,
        asker: &Asker,
    ) -> Result<Response<Body>, Problem> {
        match admitted.method {
            Method::GET | Method::HEAD => {}
            Method::OPTIONS => return Ok(super::service::allowed("GET, HEAD")),
            _ => return Err(super::service::read_only()),
        }
        let first = admitted.target.segments().first().map_or("", String::as_str);
        if RESERVED.contains(&first) && first != "artifactory" {
            return Err(nothing());
        }
        let route = generic::route(&admitted.target).map_err(|error| self.absent(asker, &error))?;
        let catalog = self.receiver().catalog();
        let record = catalog.repository(&route.repository).await?;
        let public = record.as_ref().is_some_and(|record| record.public);
        let action = if route.folder { Action::List } else { Action::Read };
        let resource = Resource::Repository { name: &route.repository, path: route.path.as_ref(), public };
        let authorized = match authorize(self.policies(), asker, action, resource) {
            Ok(authorized) => authorized,
            Err(refusal) => {
                self.denied(asker, resource, &refusal);
                return Err(self.refuse(asker));
            }
        };
        if record.is_none() || !route.possible {
            return Err(nothing());
        }
        if route.folder {
            if let Err(refusal) = self.policies().restrict(&asker.wants(action, resource)) {
                self.denied(asker, resource, &refusal);
                return Err(restricted());
            }
            return listing::respond(self, parts, admitted, &route.repository, route.path.as_ref()).await;
        }
        let Some(path) = &route.path else { return Ok(with_slash(parts, admitted)) };
        let mut wish = Wish { asker, repository: &route.repository, path, public, steered: false };
        let steering = match self.policies().steer(&asker.wants(action, resource)) {
            Ok(steering) => steering,
            Err(refusal) => {
                self.denied(asker, resource, &refusal);
                return Err(restricted());
            }
        };
        if let Some(steering) = &steering {
            wish.path = &steering.path;
            wish.steered = true;
            let resource = Resource::Repository { name: wish.repository, path: Some(wish.path), public };
            if let Err(refusal) = authorize(self.policies(), asker, action, resource) {
                self.denied(asker, resource, &refusal);
                return Err(self.refuse(asker));
            }
        }
        match catalog.resolve(wish.repository, wish.path).await? {
            Some(Resolved::Artifact(artifact)) => {
                meant(steering.as_ref(), &artifact, None)?;
                self.deliver(parts, &wish, &authorized, &artifact).await
            }
            Some(Resolved::Alias(alias, artifact)) => {
                meant(steering.as_ref(), &artifact, Some(&alias))?;
                wish.path = &alias.target;
                self.deliver(parts, &wish, &authorized, &artifact).await
            }
            Some(Resolved::Gone(gone)) => Err(withdrawn(&gone)),
            None => {
                let below = catalog.list(wish.repository, Some(wish.path), None, 1).await?;
                if below.entries.is_empty() || wish.steered {
                    Err(nothing())
                } else {
                    Ok(with_slash(parts, admitted))
                }
            }
        }
    }

    /// Hands out the bytes of an artifact that the asker may read, if nothing stands against it, and
    /// keeps the books.
    pub(super) async fn deliver(
        &self,
        parts: &Parts,
        wish: &Wish<'_>,
        authorized: &Authorized,
        artifact: &ArtifactRecord,
    ) -> Result<Response<Body>, Problem> {
        let asker = wish.asker;
        let resource =
            Resource::Repository { name: wish.repository, path: Some(wish.path), public: wish.public };
        let applied = match self.stands_against(wish, resource, artifact).await? {
            Ok(applied) => applied,
            Err(refusal) => {
                self.denied(asker, resource, &refusal);
                return Err(restricted());
            }
        };
        // What depends on who asks, or from where, is not for caches that others share.
        let shared = wish.public && !applied && !wish.steered;
        let representation = representation(artifact, wish.path, shared);
        let selected = select(parts, &representation, false)?;
        let moves = parts.method == Method::GET && !selected.ranges(artifact.size).is_empty();
        let event = self.download(wish, artifact, &selected);
        if moves && let Err(error) = self.governance().audit.record(event.clone()) {
            self.unrecorded(shared && matches!(asker.principal, Principal::Anonymous), &error)?;
        }
        let result = authorized.respond(&selected, &representation, self.verifier()).await;
        self.record_damage().await;
        let mut response = match result {
            Ok(response) => response,
            Err(problem) => {
                if moves {
                    self.ended(event, Some(problem.status()), 0, false);
                }
                return Err(problem);
            }
        };
        if wish.steered {
            let headers = response.headers_mut();
            headers.insert(VARY, HeaderValue::from_static("Authorization, Accept-Language"));
        }
        if moves {
            self.watch(response.body_mut(), asker, event);
        }
        Ok(response)
    }

    /// Follows the bytes of a download to their end.
    fn watch(&self, body: &mut Body, asker: &Asker, event: Event) {
        if let Some(guard) = self.guard(asker) {
            body.guarded_by(guard, GUARD_INTERVAL);
        }
        let edge = self.clone();
        self.metrics().download_started();
        body.on_end(move |delivered| {
            edge.metrics().download_ended(delivered.bytes, delivered.complete);
            edge.ended(event, None, delivered.bytes, delivered.complete);
        });
    }

    /// What says whether the credentials of a running download still hold. Expiry cuts nothing that
    /// began in time.
    fn guard(&self, asker: &Asker) -> Option<Arc<Guard>> {
        let credential = asker.principal.credential()?.to_owned();
        let now = asker.now;
        match &asker.principal {
            Principal::User(_) | Principal::Service(_) => {
                // What another authenticator vouched for, it alone could take back.
                let tokens = self.tokens()?.clone();
                tokens.holds(&credential, now).then_some(())?;
                Some(Arc::new(Guard::new(move || tokens.holds(&credential, now))))
            }
            Principal::Peer(_) => {
                let pairings = self.pairings()?.clone();
                Some(Arc::new(Guard::new(move || pairings.holds(&credential, now))))
            }
            _ => None,
        }
    }

    /// Whether nothing stands against the download: `true` if something could have.
    async fn stands_against(
        &self,
        wish: &Wish<'_>,
        resource: Resource<'_>,
        artifact: &ArtifactRecord,
    ) -> Result<Result<bool, Refusal>, Problem> {
        let request = wish.asker.wants(Action::Read, resource).with_holders(&artifact.holders);
        let applied = match self.policies().restrict(&request) {
            Ok(applied) => applied,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if !artifact.constrained {
            return Ok(Ok(applied));
        }
        // Constraints that were signed with a bundle: all bundles that hold the artifact must allow
        // it, and the edge's own rules can only add to them.
        for Holder(name, version) in &artifact.holders {
            let Some(record) = self.receiver().catalog().bundle(name, version).await? else { continue };
            let constraints = &record.constraints;
            let (address, country) = (wish.asker.client, wish.asker.country);
            let against = match (constraints.permits_address(address), constraints.permits_country(country)) {
                (true, true) => continue,
                (false, _) => "nets",
                (true, false) => "countries",
            };
            return Ok(Err(Refusal::new(
                RefusalKind::Restriction,
                format!("bundle {name}/{version} constraints.{against}"),
                "the constraints that were signed with the bundle do not allow it",
            )));
        }
        Ok(Ok(true))
    }

    /// The event that tells of a download's beginning.
    fn download(&self, wish: &Wish<'_>, artifact: &ArtifactRecord, selected: &Selected) -> Event {
        let mut event = wish.asker.event(kind::DOWNLOAD_START);
        event.repository = Some(wish.repository.clone());
        event.path = Some(wish.path.clone());
        event.digest = Some(artifact.digest);
        // The newest of the bundles that hold it; the others are to be found in the catalog.
        if let Some(Holder(name, version)) = artifact.holders.last() {
            event = event.about_bundle(name, version);
        }
        if let Selected::Parts(ranges) = selected
            && let [range] = ranges.as_slice()
        {
            event.range = Some((range.start(), range.end() - 1));
        }
        event
    }

    /// Has it recorded how a download ended.
    fn ended(&self, mut event: Event, status: Option<StatusCode>, bytes: u64, complete: bool) {
        event.kind = kind::DOWNLOAD_END.into();
        event.at = self.receiver().now();
        event.status = status.map(|status| status.as_u16());
        (event.bytes, event.complete) = (Some(bytes), Some(complete));
        if let Err(error) = self.governance().audit.record(event) {
            self.metrics().event_lost();
            warn!(%error, "the end of a download is not in the audit log");
        }
    }

    /// Has it recorded that a download was refused. The refusal stands whether or not it is recorded.
    pub(super) fn denied(&self, asker: &Asker, resource: Resource<'_>, refusal: &Refusal) {
        // Anyone can ask for anything without credentials; what the answer to that is, is no event.
        if refusal.kind == RefusalKind::Right && matches!(asker.principal, Principal::Anonymous) {
            return;
        }
        let mut event = asker.event(kind::DOWNLOAD_DENIED).because(refusal.to_string());
        if let Resource::Repository { name, path, .. } = resource {
            (event.repository, event.path) = (Some(name.clone()), path.cloned());
        }
        self.note(event);
    }

    /// What becomes of a download that the log does not take.
    fn unrecorded(&self, public: bool, error: &Error) -> Result<(), Problem> {
        if public && self.governance().audit_full == AuditFull::Count {
            self.metrics().event_lost();
            return Ok(());
        }
        warn!(%error, "a download is refused, because the audit log does not take it");
        Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::Unavailable.as_str(),
            "The download cannot be recorded at the moment; try again.",
        ))
    }
}

/// Whether what steering chose is part of the bundle that the rule names.
fn meant(
    steering: Option<&Steering>,
    artifact: &ArtifactRecord,
    alias: Option<&AliasRecord>,
) -> Result<(), Problem> {
    let Some(steering) = steering else { return Ok(()) };
    let ours = match (&steering.version, alias) {
        (Some(version), _) => {
            artifact.holders.iter().any(|holder| holder.0 == steering.bundle && holder.1 == *version)
        }
        (None, Some(alias)) => alias.bundle == steering.bundle,
        (None, None) => artifact.holders.iter().any(|holder| holder.0 == steering.bundle),
    };
    if ours { Ok(()) } else { Err(nothing()) }
}

fn representation(artifact: &ArtifactRecord, path: &ArtifactPath, shared: bool) -> Representation {
    // An artifact never changes, but it may be withdrawn, and an alias may move: caches ask again.
    let cache = if shared { Cache::Public } else { Cache::Private };
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

#[cold]
pub(super) fn restricted() -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        ErrorKind::Forbidden.as_str(),
        "This may not be downloaded from where you are.",
    )
}
