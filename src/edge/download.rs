//! A path of a repository on its way to a client: rights, look-up, steering, restrictions, bytes,
//! ledger. There is one way through, for every protocol.

use std::sync::Arc;

use http::header::{HeaderValue, RANGE, REFERRER_POLICY, VARY};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use tracing::warn;

use super::authorize::{Asker, Authorized, authorize, authorized_by};
use super::content::{Cache, Representation, Selected, select};
use super::governance::AuditFull;
use super::problem::Problem;
use super::service::{Edge, nothing, with_slash, withdrawn};
use super::{Admitted, Body, GUARD_INTERVAL, Guard, listing};
use crate::access::{Action, Principal, Refusal, RefusalKind, Resource, Steering};
use crate::audit::{Event, kind};
use crate::blocking;
use crate::catalog::{AliasRecord, ArtifactRecord, Resolved};
use crate::error::{Error, ErrorKind};
use crate::govern::{Admission, Transfer};
use crate::link::{Denied, LinkRequest, PARAMETER};
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
    /// Whether a restriction of the name that was asked for applied, and allowed it.
    pub(super) bound: bool,
}

impl Edge {
    /// Serves a path of a repository.
    pub(super) async fn serve(
        &self,
        parts: &Parts,
        admitted: &Admitted,
        asker: &Asker,
        token: Option<&str>,
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
        let route = match (generic::route(&admitted.target), token) {
            (Ok(route), _) => route,
            (Err(error), None) => return Err(self.absent(asker, &error)),
            // No link is for a name that cannot be.
            (Err(_), Some(_)) => return Err(closed()),
        };
        if let Some(token) = token {
            let Some(path) = route.path.as_ref().filter(|_| !route.folder) else { return Err(closed()) };
            return self.serve_link(parts, admitted, asker, token, &route.repository, path).await;
        }
        let record = self.receiver().catalog().repository(&route.repository).await?;
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
                return Err(restricted(asker));
            }
            return listing::respond(self, parts, admitted, &route.repository, route.path.as_ref()).await;
        }
        let Some(path) = &route.path else { return Ok(with_slash(parts, admitted)) };
        let wish = Wish { asker, repository: &route.repository, path, public, steered: false, bound: false };
        self.find(parts, admitted, wish, &authorized, None).await
    }

    /// Serves what a signed URL opens.
    async fn serve_link(
        &self,
        parts: &Parts,
        admitted: &Admitted,
        asker: &Asker,
        token: &str,
        repository: &RepositoryName,
        path: &ArtifactPath,
    ) -> Result<Response<Body>, Problem> {
        let Some(links) = &self.governance().links else { return Err(closed()) };
        let method = admitted.method.as_str();
        let request = LinkRequest::new(&asker.tenant, links.edge(), method, repository, path, asker.now)
            .with_groups(links.groups())
            .with_place(asker.client, asker.country)
            .with_range(parts.headers.contains_key(RANGE));
        let admission = match links.admit(token, &request) {
            Ok(admission) => admission,
            Err(denied) => return Err(self.link_denied(asker, repository, path, &denied)),
        };
        let mut asker = asker.clone();
        asker.principal = Principal::Link(Arc::new(admission.holder()));
        if self.receiver().catalog().repository(repository).await?.is_none() {
            return Err(nothing());
        }
        let authorized = authorized_by(&admission);
        // What a link opens is for who holds it, in a public repository too.
        let wish = Wish { asker: &asker, repository, path, public: false, steered: false, bound: false };
        self.find(parts, admitted, wish, &authorized, Some(admission)).await
    }

    /// Looks up what is asked for, or what the client is to have instead.
    async fn find(
        &self,
        parts: &Parts,
        admitted: &Admitted,
        mut wish: Wish<'_>,
        authorized: &Authorized,
        admission: Option<Admission>,
    ) -> Result<Response<Body>, Problem> {
        let asker = wish.asker;
        let (repository, public) = (wish.repository, wish.public);
        let resource = Resource::Repository { name: repository, path: Some(wish.path), public };
        let steering = match self.policies().steer(&asker.wants(Action::Read, resource)) {
            Ok(steering) => steering,
            Err(refusal) => {
                self.denied(asker, resource, &refusal);
                return Err(restricted(asker));
            }
        };
        if let Some(steering) = &steering {
            wish.path = &steering.path;
            wish.steered = true;
            let resource = Resource::Repository { name: repository, path: Some(wish.path), public };
            // A link is for what it names, and what stands there is the edge's to choose.
            if admission.is_none()
                && let Err(refusal) = authorize(self.policies(), asker, Action::Read, resource)
            {
                self.denied(asker, resource, &refusal);
                return Err(self.refuse(asker));
            }
        }
        let catalog = self.receiver().catalog();
        match catalog.resolve(repository, wish.path).await? {
            Some(Resolved::Artifact(artifact)) => {
                meant(steering.as_ref(), &artifact, None)?;
                self.deliver(parts, &wish, authorized, &artifact, admission).await
            }
            Some(Resolved::Alias(alias, artifact)) => {
                meant(steering.as_ref(), &artifact, Some(&alias))?;
                // What stands against the alias stands against what it means; `deliver` asks for that.
                let resource = Resource::Repository { name: repository, path: Some(wish.path), public };
                let request = asker.wants(Action::Read, resource).with_holders(&artifact.holders);
                match self.policies().restrict(&request) {
                    Ok(applied) => wish.bound = applied,
                    Err(refusal) => {
                        self.denied(asker, resource, &refusal);
                        return Err(restricted(asker));
                    }
                }
                wish.path = &alias.target;
                self.deliver(parts, &wish, authorized, &artifact, admission).await
            }
            Some(Resolved::Gone(gone)) => Err(withdrawn(&gone)),
            None if wish.steered || admission.is_some() => Err(nothing()),
            None => {
                let below = catalog.list(repository, Some(wish.path), None, 1).await?;
                if below.entries.is_empty() { Err(nothing()) } else { Ok(with_slash(parts, admitted)) }
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
        admission: Option<Admission>,
    ) -> Result<Response<Body>, Problem> {
        let asker = wish.asker;
        let resource =
            Resource::Repository { name: wish.repository, path: Some(wish.path), public: wish.public };
        let applied = match self.stands_against(wish, resource, artifact).await? {
            Ok(applied) => applied,
            Err(refusal) => {
                self.denied(asker, resource, &refusal);
                return Err(restricted(asker));
            }
        };
        // What depends on who asks, or from where, is not for caches that others share.
        let shared = wish.public && !applied && !wish.bound && !wish.steered;
        let representation = representation(artifact, wish.path, shared);
        // Of one range it can be told exactly how much was delivered.
        let counted = admission.as_ref().is_some_and(|admission| admission.link().claims().uses.is_some());
        let selected = select(parts, &representation, counted)?;
        // The whole of an empty artifact has no range, and is a download all the same.
        let ranges = (selected != Selected::Whole).then(|| selected.ranges(artifact.size));
        let moves = parts.method == Method::GET && selected != Selected::NotModified;
        let transfer = match admission {
            None => None,
            Some(admission) => {
                match admission.begin(artifact.digest, artifact.size, ranges.as_deref()).await? {
                    Ok(transfer) => Some(transfer),
                    Err(denied) => return Err(self.link_denied(asker, wish.repository, wish.path, &denied)),
                }
            }
        };
        let event = self.download(wish, artifact, &selected);
        if moves && let Err(error) = self.governance().audit.record(event.clone()) {
            let open = shared && matches!(asker.principal, Principal::Anonymous);
            self.unrecorded(open, &error).inspect_err(|_| give_back(transfer.as_ref()))?;
        }
        let result = authorized.respond(&selected, &representation, self.verifier()).await;
        self.record_damage().await;
        let mut response = match result {
            Ok(response) => response,
            Err(problem) => {
                give_back(transfer.as_ref());
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
        if transfer.is_some() {
            // The address holds the token: it is not for the pages that a client goes to from here.
            response.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        }
        if moves {
            let body = std::mem::take(response.body_mut());
            *response.body_mut() = self.watched(body, asker, event, transfer);
        }
        Ok(response)
    }

    /// The bytes of a download, followed to their end.
    fn watched(&self, mut body: Body, asker: &Asker, event: Event, transfer: Option<Transfer>) -> Body {
        let guard = match &transfer {
            Some(transfer) => {
                let transfer = transfer.clone();
                Some(Arc::new(Guard::new(move || transfer.still_valid())))
            }
            None => self.guard(asker),
        };
        if let Some(guard) = guard {
            body.guarded_by(guard, GUARD_INTERVAL);
        }
        if let Some(rate) = transfer.as_ref().and_then(Transfer::bps) {
            body = body.limited(rate);
        }
        let edge = self.clone();
        self.metrics().download_started();
        body.on_end(move |delivered| {
            if let Some(transfer) = transfer {
                transfer.ended(delivered.bytes);
                edge.settle_links();
            }
            edge.metrics().download_ended(delivered.bytes, delivered.complete);
            edge.ended(event, None, delivered.bytes, delivered.complete);
        });
        body
    }

    /// Writes down, soon, what ended transfers give back to the budgets of their links.
    fn settle_links(&self) {
        let Some(links) = self.governance().links.clone() else { return };
        blocking::spawn(async move {
            if let Err(error) = links.settle().await {
                warn!(%error, "what ended downloads did not use is given back later");
            }
        });
    }

    /// The refusal of a link, recorded. All refusals of one status look alike to the client.
    fn link_denied(
        &self,
        asker: &Asker,
        repository: &RepositoryName,
        path: &ArtifactPath,
        denied: &Denied,
    ) -> Problem {
        let mut event = asker.event(kind::DOWNLOAD_DENIED).because(denied.to_string());
        (event.repository, event.path) = (Some(repository.clone()), Some(path.clone()));
        event.status = Some(denied.status());
        if let Some(link) = denied.link {
            event.who = format!("link:{link}");
            event.credential = Some(link.to_string());
        }
        self.note(event);
        match denied.status() {
            400 => Problem::new(StatusCode::BAD_REQUEST, ErrorKind::Invalid.as_str(), denied.message()),
            429 => Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", denied.message()),
            _ => closed(),
        }
    }

    /// What says whether the credentials of a running download still hold. Expiry cuts nothing that
    /// began in time.
    fn guard(&self, asker: &Asker) -> Option<Arc<Guard>> {
        let credential = asker.principal.credential()?.to_owned();
        let now = asker.now;
        match &asker.principal {
            Principal::User(_) | Principal::Service(_) => {
                // What another authenticator vouched for, it alone could take back. A token may have
                // been revoked since it was looked at: the guard sees that, too.
                let tokens = self.tokens()?.clone();
                Some(Arc::new(Guard::new(move || !tokens.is_revoked(&credential))))
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
        // The rule alone: a sentence can name a person or an address, which could not be erased from it.
        let mut event = asker.event(kind::DOWNLOAD_DENIED).because(refusal.rule.clone());
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

/// Of a transfer that does not begin, nothing is used up.
fn give_back(transfer: Option<&Transfer>) {
    if let Some(transfer) = transfer {
        transfer.ended(0);
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

/// The token of a signed URL in a request's query, if there is one.
///
/// # Errors
/// A [`Problem`] if it is there more than once, or its name is not spelled literally: what one
/// reader takes for the token and another one does not must not get in.
pub(super) fn link_token(query: Option<&str>) -> Result<Option<&str>, Problem> {
    let mut found = None;
    for parameter in query.unwrap_or_default().split('&') {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if name == PARAMETER {
            if found.replace(value).is_some() {
                return Err(malformed("the link's token is there more than once"));
            }
        } else if name.contains('%') && unescaped(name).eq_ignore_ascii_case(PARAMETER) {
            return Err(malformed("the name of the link's token is not spelled as it should be"));
        }
    }
    Ok(found)
}

/// A parameter's name with its escapes undone, as far as they are ASCII.
fn unescaped(name: &str) -> String {
    let mut plain = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(at) = rest.find('%') {
        plain.push_str(&rest[..at]);
        let digits = rest.get(at + 1..at + 3);
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                plain.push(char::from(byte));
                rest = &rest[at + 3..];
            }
            None => {
                plain.push('%');
                rest = &rest[at + 1..];
            }
        }
    }
    plain.push_str(rest);
    plain
}

#[cold]
pub(super) fn malformed(detail: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, ErrorKind::Invalid.as_str(), detail)
}

/// The one answer to a link that does not open what it is used for.
#[cold]
fn closed() -> Problem {
    Problem::new(StatusCode::FORBIDDEN, ErrorKind::Forbidden.as_str(), "The link does not open this.")
}

/// The answer to whom a restriction stops.
#[cold]
pub(super) fn restricted(asker: &Asker) -> Problem {
    match asker.principal {
        Principal::Link(_) => closed(),
        _ => Problem::new(
            StatusCode::FORBIDDEN,
            ErrorKind::Forbidden.as_str(),
            "This may not be downloaded from where you are.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_one_place_and_one_spelling() {
        assert_eq!(link_token(None).unwrap(), None);
        assert_eq!(link_token(Some("a=b&edge_token=v1.x&c")).unwrap(), Some("v1.x"));
        assert_eq!(link_token(Some("edge_token")).unwrap(), Some(""));
        assert_eq!(link_token(Some("Edge_Token=x&edge_token2=y")).unwrap(), None);
        for bad in
            ["edge_token=a&edge_token=b", "edge_token=a&x&edge_token", "edge%5Ftoken=a", "%65dge_token=a"]
        {
            let problem = link_token(Some(bad)).unwrap_err();
            assert_eq!(problem.status(), StatusCode::BAD_REQUEST, "{bad}");
        }
        assert_eq!(link_token(Some("a%zz%4=%&%é=1")).unwrap(), None);
    }
}
