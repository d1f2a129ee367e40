//! An edge with embedded stores in one data directory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{AuditFull, Edge, Gate, Governance};
use crate::address::TrustedProxies;
use crate::audit::{self, LogOptions, TileLog};
use crate::auth::{Authenticator, TokenAuthenticator};
use crate::blob::FsBlobStore;
use crate::catalog::{Catalog, RepositoryRecord, TokenRecord};
use crate::clock::{Clock, SystemClock};
use crate::distribute::Receiver;
use crate::error::{Error, ErrorKind, Result};
use crate::geo::{GeoResolver, NoGeo};
use crate::govern::{Downloads, LinkDirectory, LinkOptions, Links, Pairings, Policies, Tokens};
use crate::key::{Algorithm, KeySet, SigningKey};
use crate::meta::RedbStore;
use crate::name::{NodeName, RepositoryName, Tenant};
use crate::policy::PolicySet;
use crate::secret::{Secret, private_directory};

/// Most bytes of artefacts that wait to be complete.
#[cfg(feature = "delta")]
const INBOX: u64 = 16 << 30;

/// What an edge is to be.
#[derive(Clone, Debug)]
pub struct EdgeOptions {
    /// Its name, as sources know it.
    pub name: NodeName,
    /// The tenant it serves.
    pub tenant: Tenant,
    /// Repositories and whether anyone may read them; they are created or changed at the start.
    pub repositories: Vec<(RepositoryName, bool)>,
    /// Whether a repository that a bundle brings along is public.
    pub public: bool,
    /// Host names it answers to; `None` for any.
    pub hosts: Option<Vec<String>>,
    /// The root keys that must have signed its first trust document; `None`: whoever holds the
    /// control token names them.
    pub roots: Option<KeySet>,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// Whose word about a client's address is taken.
    pub proxies: TrustedProxies,
    /// Tells countries.
    pub geo: Arc<dyn GeoResolver>,
    /// The address under which clients reach it, for the links that it makes; what the request that
    /// makes one says, if `None`.
    pub url: Option<String>,
    /// How its log is kept.
    pub log: LogOptions,
    /// What becomes of public downloads that the log does not take.
    pub audit_full: AuditFull,
    /// The groups of edges it belongs to, as links name them.
    pub groups: Vec<NodeName>,
    /// Asked before the edge's own tokens who is there, the last one first.
    pub authenticators: Vec<Arc<dyn Authenticator>>,
}

impl EdgeOptions {
    /// An edge of this name for the tenant `default`, private, with the machine's clock.
    pub fn new(name: NodeName) -> Result<EdgeOptions> {
        Ok(EdgeOptions {
            name,
            tenant: Tenant::new("default")?,
            repositories: Vec::new(),
            public: false,
            hosts: None,
            roots: None,
            clock: Arc::new(SystemClock),
            proxies: TrustedProxies::none(),
            geo: Arc::new(NoGeo),
            url: None,
            log: LogOptions::default(),
            audit_full: AuditFull::Deny,
            groups: Vec::new(),
            authenticators: Vec::new(),
        })
    }
}

/// An opened edge.
#[derive(Debug)]
pub struct Opened {
    /// The edge.
    pub edge: Edge,
    /// The control token, if this was the first start. It is stored as a hash only: whoever does
    /// not note it down now has to make another one.
    pub token: Option<Secret>,
}

/// Opens, or begins, an edge in the directory `data`: `blobs/`, `inbox/`, `audit/`, `links/`,
/// `meta.redb` and `identity.key`.
///
/// # Errors
/// One sentence that names the path, if it cannot be used; `Conflict` if another process uses it.
pub async fn open(data: impl AsRef<Path>, options: EdgeOptions) -> Result<Opened> {
    let data = data.as_ref();
    // What is private over HTTP is private on the machine too.
    private_directory(data)
        .map_err(|cause| Error::io(format_args!("creating the data directory {}", data.display()), cause))?;
    let blobs = Arc::new(FsBlobStore::open(data.join("blobs"))?);
    let store = Arc::new(RedbStore::open(data.join("meta.redb"))?);
    let clock = options.clock;
    let catalog = Catalog::open(store.clone(), options.tenant.clone()).await?;
    let identity = Arc::new(identity(&data.join("identity.key"), &options.name, &*clock)?);
    let tokens_of_users = Arc::new(Tokens::open(store.clone(), &options.tenant).await?);
    let origin = audit::origin(&options.name, &options.tenant);
    let (signer, log) = (identity.clone(), options.log);
    let ledger = Arc::new(TileLog::open(data.join("audit"), &origin, signer, clock.clone(), log)?);
    let downloads = Downloads::open(store.clone(), &options.tenant, ledger.clone());
    let vault = Arc::new(LinkDirectory::open(data.join("links"))?);
    let mut for_links = LinkOptions::new(options.name.clone()).with_groups(options.groups);
    if let Some(url) = options.url {
        for_links = for_links.with_base(url);
    }
    let links = Links::open(store.clone(), &options.tenant, vault, for_links).await?;
    let policies = Arc::new(Policies::open(store.clone(), &options.tenant).await?);
    let pairings =
        Arc::new(Pairings::open(store, &options.tenant, options.name.clone(), identity.clone()).await?);
    for (name, public) in &options.repositories {
        let format = catalog.repository(name).await?.map_or_else(|| "generic".into(), |known| known.format);
        catalog.set_repository(name, &RepositoryRecord { format, public: *public }).await?;
    }
    let mut tokens = catalog.tokens().await?;
    let mut first = None;
    if tokens.is_empty() {
        let token = new_token(&catalog, "admin", &*clock).await?;
        tokens = catalog.tokens().await?;
        first = Some(token);
    }
    let authenticator =
        TokenAuthenticator::new(tokens.into_iter().map(|token| (token.fingerprint, token.name)));
    let mut receiver = Receiver::open(catalog, blobs, clock, options.name, identity).await?;
    receiver = receiver.with_public_repositories(options.public);
    #[cfg(feature = "delta")]
    {
        receiver = receiver.with_inbox(data.join("inbox"), INBOX)?;
    }
    if let Some(roots) = options.roots {
        receiver = receiver.with_pinned_roots(roots);
    }
    for state in pairings.list().await? {
        if let (Some(_), Some(roots)) = (state.to_peer(), state.peer().and_then(|peer| peer.roots.as_ref())) {
            receiver.pin_roots(roots);
        }
    }
    let mut gate = Gate::new();
    if let Some(hosts) = options.hosts {
        gate = gate.with_hosts(hosts);
    }
    let governance = Governance::none()
        .with_proxies(options.proxies)
        .with_geo(options.geo)
        .with_links(links)
        .with_ledger(ledger)
        .with_downloads(downloads)
        .with_audit_full(options.audit_full);
    let mut edge = Edge::new(receiver, gate, Arc::new(authenticator), PolicySet::default())
        .with_access(tokens_of_users, pairings)
        .with_policies(policies)
        .with_governance(governance);
    for authenticator in options.authenticators {
        edge = edge.with_authenticator(Box::new(authenticator));
    }
    Ok(Opened { edge, token: first })
}

/// Makes a control token and stores its hash.
///
/// # Errors
/// [`ErrorKind::Conflict`] if there is a token of that name.
pub async fn new_token(catalog: &Catalog, name: &str, clock: &dyn Clock) -> Result<Secret> {
    let token = Secret::token("eut1_")?;
    let record = TokenRecord {
        name: name.into(),
        fingerprint: token.fingerprint(),
        created: catalog.trusted_now(clock),
    };
    catalog.add_token(&record).await?;
    Ok(token)
}

/// The identity key, made at the first start: the file is whole or not there.
fn identity(path: &Path, name: &NodeName, clock: &dyn Clock) -> Result<SigningKey> {
    match fs::read(path) {
        Ok(text) => {
            let bad =
                |error: Error| error.context(format_args!("reading the identity key {}", path.display()));
            SigningKey::from_secret(&Secret::new(text)).map_err(bad)
        }
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            let key = SigningKey::generate(Algorithm::Ed25519, name.as_str(), clock.now())?;
            write_secret(path, &key.to_secret())?;
            Ok(key)
        }
        Err(cause) => Err(Error::io(format_args!("reading the identity key {}", path.display()), cause)),
    }
}

/// Writes a secret so that only its owner can read it, durably, in one step.
fn write_secret(path: &Path, secret: &Secret) -> Result<()> {
    let draft: PathBuf = path.with_extension("draft");
    let what = |cause| Error::io(format_args!("writing {}", path.display()), cause);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&draft).map_err(what)?;
    file.write_all(secret.expose()).map_err(what)?;
    file.sync_all().map_err(what)?;
    fs::rename(&draft, path).map_err(what)?;
    let parent = path.parent().ok_or_else(|| {
        Error::new(ErrorKind::Invalid, format!("{} has no parent directory", path.display()))
    })?;
    File::open(parent).and_then(|folder| folder.sync_all()).map_err(what)
}
