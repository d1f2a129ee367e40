//! Several tenants on one address: each request goes to one tenant's edge, and to nothing else.
//!
//! Each tenant's edge has its own stores, keys, rights, counters and log, so there is nothing that
//! one could learn of another beyond this file. A tenant that does not exist answers as one does
//! that has only private things, apart from what every tenant tells to anyone: its front page, its
//! `/.well-known/distedge` and its release keys.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use http::request::Parts;
use http::uri::{PathAndQuery, Uri};
use http::{Request, Response};

use super::gate::without_port;
use super::{Body, Edge, Gate, Governance, Handler};
use crate::auth::TokenAuthenticator;
use crate::blob::MemoryBlobStore;
use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::distribute::Receiver;
use crate::error::{Error, Result};
use crate::govern::{LinkOptions, Links, MemoryLinkVault, Pairings, Policies, Tokens};
use crate::key::{Algorithm, SigningKey};
use crate::meta::MemoryStore;
use crate::name::{NodeName, RESERVED, Target, Tenant};
use crate::policy::PolicySet;

/// How a request names its tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tenancy {
    /// There is one tenant.
    #[default]
    Single,
    /// By the host: each tenant has host names. Other hosts are the first tenant's.
    Host,
    /// By the first segment of the path. What belongs to the edge itself (`/healthz`, `/api/…`)
    /// without a tenant before it is the first tenant's.
    Path,
}

/// The tenants of an edge. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tenants(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    tenancy: Tenancy,
    edges: Vec<(Tenant, Edge)>,
    hosts: HashMap<String, usize>,
    nowhere: Edge,
}

/// Where a tenant is mounted: what stands before its own paths.
#[derive(Clone, Debug)]
struct Mount(Arc<str>);

/// What a client must write before a path of this edge: empty, or `/tenant`.
pub(super) fn mount(parts: &Parts) -> &str {
    parts.extensions.get::<Mount>().map_or("", |mount| &mount.0)
}

impl Tenants {
    /// The edges of tenants, first the one that also answers for what names no tenant; with each
    /// the host names that are its own.
    ///
    /// # Errors
    /// [`Invalid`](crate::error::ErrorKind::Invalid) if there is none, if two have the same name or host, if several are
    /// there and requests cannot name them, or if the name of one stands for something else in a
    /// path.
    pub async fn new(
        tenancy: Tenancy,
        edges: Vec<(Tenant, Vec<String>, Edge)>,
        clock: Arc<dyn Clock>,
    ) -> Result<Tenants> {
        if edges.is_empty() {
            return Err(Error::invalid("an edge needs a tenant"));
        }
        if tenancy == Tenancy::Single && edges.len() > 1 {
            return Err(Error::invalid("several tenants need a tenancy by host or by path"));
        }
        let mut hosts = HashMap::new();
        let mut known: Vec<(Tenant, Edge)> = Vec::new();
        for (at, (tenant, names, edge)) in edges.into_iter().enumerate() {
            if known.iter().any(|(other, _)| *other == tenant) {
                return Err(Error::invalid(format!("the tenant {tenant} is there twice")));
            }
            if tenancy == Tenancy::Path && RESERVED.contains(&tenant.as_str()) {
                return Err(Error::invalid(format!(
                    "a tenant in paths cannot be called {tenant}: that is the edge's own"
                )));
            }
            for host in names {
                if hosts.insert(host.to_ascii_lowercase(), at).is_some_and(|other| other != at) {
                    return Err(Error::invalid(format!("the host {host} belongs to two tenants")));
                }
            }
            known.push((tenant, edge));
        }
        let nowhere = nowhere(clock).await?;
        Ok(Tenants(Arc::new(Inner { tenancy, edges: known, hosts, nowhere })))
    }

    /// The tenants and their edges, the first one first.
    pub fn iter(&self) -> impl Iterator<Item = (&Tenant, &Edge)> {
        self.0.edges.iter().map(|(tenant, edge)| (tenant, edge))
    }

    /// The edge of a tenant.
    pub fn edge(&self, tenant: &Tenant) -> Option<&Edge> {
        self.iter().find(|(known, _)| *known == tenant).map(|(_, edge)| edge)
    }

    fn choose(&self, parts: &mut Parts) -> &Edge {
        let first = &self.0.edges[0].1;
        match self.0.tenancy {
            Tenancy::Single => first,
            Tenancy::Host => {
                let host = parts
                    .uri
                    .host()
                    .or_else(|| parts.headers.get(http::header::HOST)?.to_str().ok())
                    .map(|host| without_port(host).to_ascii_lowercase());
                let at = host.and_then(|host| self.0.hosts.get(&host)).copied().unwrap_or(0);
                &self.0.edges[at].1
            }
            Tenancy::Path => {
                // A target that cannot be read names no tenant, and every edge refuses it alike.
                let Ok(target) = Target::parse(parts.uri.path()) else { return first };
                let Some(segment) = target.segments().first() else { return first };
                if RESERVED.contains(&segment.as_str()) || segment == ".well-known" {
                    return first;
                }
                let named = self.0.edges.iter().find(|(tenant, _)| tenant.as_str() == segment);
                match rebase(&parts.uri) {
                    Some(uri) => parts.uri = uri,
                    None => return first,
                }
                parts.extensions.insert(Mount(format!("/{segment}").into()));
                named.map_or(&self.0.nowhere, |(_, edge)| edge)
            }
        }
    }
}

impl Handler for Tenants {
    async fn handle(&self, request: Request<Body>, peer: SocketAddr) -> Response<Body> {
        let (mut parts, body) = request.into_parts();
        let edge = self.choose(&mut parts);
        edge.handle(Request::from_parts(parts, body), peer).await
    }
}

/// The target without its first segment, otherwise byte for byte as it came.
fn rebase(uri: &Uri) -> Option<Uri> {
    let whole = uri.path_and_query()?.as_str();
    let end = whole.find('?').unwrap_or(whole.len());
    let rest = match whole[1..end].find('/') {
        Some(at) => whole[1 + at..].to_owned(),
        None => format!("/{}", &whole[end..]),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(rest.parse::<PathAndQuery>().ok()?);
    Uri::from_parts(parts).ok()
}

/// An edge that has nothing and knows nobody.
async fn nowhere(clock: Arc<dyn Clock>) -> Result<Edge> {
    let (store, tenant) = (Arc::new(MemoryStore::new()), Tenant::new("nowhere")?);
    let catalog = Catalog::open(store.clone(), tenant.clone()).await?;
    let identity = SigningKey::generate(Algorithm::Ed25519, "nowhere", clock.now())?;
    let name = NodeName::new("nowhere")?;
    let blobs = Arc::new(MemoryBlobStore::new());
    let receiver = Receiver::open(catalog, blobs, clock, name, Arc::new(identity)).await?;
    let authenticator = Arc::new(TokenAuthenticator::default());
    // It judges links, users and peers as every other edge does, and finds none of them good: what
    // cannot be read is answered in the same way everywhere.
    let tokens = Arc::new(Tokens::open(store.clone(), &tenant).await?);
    let pairings =
        Pairings::open(store.clone(), &tenant, receiver.name().clone(), receiver.identity().clone());
    let pairings = Arc::new(pairings.await?);
    let options = LinkOptions::new(receiver.name().clone());
    let links = Links::open(store.clone(), &tenant, Arc::new(MemoryLinkVault::default()), options).await?;
    let policies = Arc::new(Policies::open(store, &tenant).await?);
    Ok(Edge::new(receiver, Gate::new(), authenticator, PolicySet::default())
        .with_access(tokens, pairings)
        .with_policies(policies)
        .with_governance(Governance::none().with_links(links)))
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::clock::SystemClock;
    use crate::error::ErrorKind;
    use crate::meta::MetadataStore;
    use crate::name::RepositoryName;
    use crate::policy::PublicRead;

    async fn edge(tenant: &str, public: &str) -> Edge {
        let store: Arc<dyn MetadataStore> = Arc::new(MemoryStore::new());
        let catalog = Catalog::open(store, Tenant::new(tenant).unwrap()).await.unwrap();
        let record = crate::catalog::RepositoryRecord { format: "generic".into(), public: true };
        catalog.set_repository(&RepositoryName::new(public).unwrap(), &record).await.unwrap();
        let identity = SigningKey::generate(Algorithm::Ed25519, "e", SystemClock.now()).unwrap();
        let name = NodeName::new("e").unwrap();
        let blobs = Arc::new(MemoryBlobStore::new());
        let receiver = Receiver::open(catalog, blobs, Arc::new(SystemClock), name, Arc::new(identity)).await;
        let tokens = TokenAuthenticator::default();
        tokens.add(crate::secret::Secret::new(format!("token of {tenant}")).fingerprint(), "t".into());
        let policies = PolicySet::new(vec![Arc::new(PublicRead)]);
        Edge::new(receiver.unwrap(), Gate::new(), Arc::new(tokens), policies)
    }

    async fn ask(tenants: &Tenants, host: &str, target: &str, token: Option<&str>) -> (StatusCode, String) {
        let mut request = Request::get(target).header("host", host);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Body::empty()).unwrap();
        let peer = SocketAddr::from(([127, 0, 0, 1], 9));
        let response = tenants.handle(request, peer).await;
        let status = response.status();
        let location = response.headers().get("location").map(|value| value.to_str().unwrap().to_owned());
        let body = response.into_body().collect(1 << 16).await.unwrap();
        (status, location.unwrap_or_else(|| String::from_utf8(body.to_vec()).unwrap()))
    }

    async fn tenants(tenancy: Tenancy) -> Tenants {
        let edges = vec![
            (Tenant::new("acme").unwrap(), vec!["acme.test".into()], edge("acme", "files").await),
            (Tenant::new("globex").unwrap(), vec!["Globex.test".into()], edge("globex", "other").await),
        ];
        Tenants::new(tenancy, edges, Arc::new(SystemClock)).await.unwrap()
    }

    #[tokio::test]
    async fn a_path_names_its_tenant() {
        let tenants = tenants(Tenancy::Path).await;
        assert_eq!(ask(&tenants, "x", "/acme/files/", None).await.0, StatusCode::OK);
        assert_eq!(ask(&tenants, "x", "/globex/other/?n=3", None).await.0, StatusCode::OK);
        assert_eq!(ask(&tenants, "x", "/globex/other", None).await.1, "/globex/other/");
        assert_eq!(ask(&tenants, "x", "/%61cme/files/", None).await.0, StatusCode::OK);
        assert_eq!(ask(&tenants, "x", "/healthz", None).await.0, StatusCode::OK);
        for bad in ["//acme/files/x", "/acme//files/x", "/acme/%2e%2e/globex/other/", "/acme/../x"] {
            assert_eq!(ask(&tenants, "x", bad, None).await.0, StatusCode::BAD_REQUEST, "{bad}");
        }
    }

    #[tokio::test]
    async fn a_tenant_that_is_not_there_answers_like_one_that_is_private() {
        let tenants = tenants(Tenancy::Path).await;
        let private = ask(&tenants, "x", "/globex/secret/a.bin", None).await;
        assert_eq!(private.0, StatusCode::UNAUTHORIZED);
        assert_eq!(ask(&tenants, "x", "/zzz/secret/a.bin", None).await, private);
        assert_eq!(ask(&tenants, "x", "/globex/missing/a.bin", None).await, private);
        // The token of one tenant tells nothing of the others.
        let foreign = ask(&tenants, "x", "/globex/secret/a.bin", Some("token of acme")).await;
        assert_eq!(foreign.0, StatusCode::UNAUTHORIZED);
        assert_eq!(ask(&tenants, "x", "/zzz/secret/a.bin", Some("token of acme")).await, foreign);
        let own = ask(&tenants, "x", "/acme/secret/a.bin", Some("token of acme")).await;
        assert_eq!(own.0, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn a_host_names_its_tenant() {
        let tenants = tenants(Tenancy::Host).await;
        assert_eq!(ask(&tenants, "acme.test", "/files/", None).await.0, StatusCode::OK);
        assert_eq!(ask(&tenants, "GLOBEX.test:8080", "/other/", None).await.0, StatusCode::OK);
        assert_eq!(ask(&tenants, "globex.test", "/files/", None).await.0, StatusCode::UNAUTHORIZED);
        assert_eq!(ask(&tenants, "elsewhere.test", "/files/", None).await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn tenants_that_cannot_be_told_apart_are_refused() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let one =
            |name: &str, host: &str, edge: Edge| (Tenant::new(name).unwrap(), vec![host.to_owned()], edge);
        let (a, b) = (edge("a", "x").await, edge("b", "x").await);
        for (tenancy, edges) in [
            (Tenancy::Single, vec![one("a", "h", a.clone()), one("b", "i", b.clone())]),
            (Tenancy::Path, vec![one("a", "h", a.clone()), one("a", "i", b.clone())]),
            (Tenancy::Host, vec![one("a", "h", a.clone()), one("b", "H", b.clone())]),
            (Tenancy::Path, vec![one("api", "h", a.clone())]),
            (Tenancy::Path, vec![]),
        ] {
            let refused = Tenants::new(tenancy, edges, clock.clone()).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Invalid);
        }
    }
}
