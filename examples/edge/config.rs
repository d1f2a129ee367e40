//! What an edge is to be: one TOML file, changed by the environment and by flags.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use distedge::address::TrustedProxies;
use distedge::audit::LogOptions;
use distedge::auth::OidcAuthenticator;
use distedge::edge::{EdgeOptions, Tenancy, gate};
use distedge::error::Result as EdgeResult;
use distedge::key::{KeySet, PublicKey, TrustedKey};
use distedge::name::{NodeName, RepositoryName, Tenant};
use distedge::place::Network;
use distedge::server::{ClientDemand, Limits, ServerConfig};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::identity::{GeoConfig, IdentityConfig};
use super::section::{Section, Source};
use super::tenant::{self, AuditConfig, TenantConfig};

/// Everything an edge is told.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) name: NodeName,
    pub(crate) tenant: Tenant,
    /// Where it keeps what it has; a file must name it, or a flag.
    pub(crate) data: Option<PathBuf>,
    pub(crate) listen: SocketAddr,
    pub(crate) hosts: Option<Vec<String>>,
    /// Whether a repository that a bundle brings along is public.
    pub(crate) public: bool,
    pub(crate) repositories: Vec<(RepositoryName, bool)>,
    pub(crate) tls: Option<TlsConfig>,
    /// Proxies that begin their connections with a header of the PROXY protocol.
    pub(crate) proxy_protocol: Vec<Network>,
    pub(crate) limits: Limits,
    pub(crate) roots: Option<KeySet>,
    pub(crate) log: Log,
    pub(crate) maintenance: Maintenance,
    pub(crate) tenancy: Tenancy,
    /// The tenants beside the first one.
    pub(crate) tenants: Vec<TenantConfig>,
    /// The first tenant's policy file.
    pub(crate) policy: Option<PathBuf>,
    pub(crate) proxies: TrustedProxies,
    pub(crate) audit: AuditConfig,
    pub(crate) geo: GeoConfig,
    /// Whom the first tenant believes beside the holders of its own tokens.
    pub(crate) identity: IdentityConfig,
    /// The address under which clients reach it.
    pub(crate) url: Option<String>,
    /// The groups of edges it belongs to, as signed URLs name them.
    pub(crate) groups: Vec<NodeName>,
}

/// The edge's own certificate, and whose certificates it asks for.
#[derive(Debug)]
pub(crate) struct TlsConfig {
    /// Certificate chain and key.
    cert: PathBuf,
    key: PathBuf,
    clients: Option<(PathBuf, ClientDemand)>,
}

/// How it tells what it does.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) json: bool,
    /// A directive as `tracing` reads it: `info`, or `warn,distedge=debug`.
    pub(crate) level: String,
}

/// What it does by itself, and how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Maintenance {
    /// Keeping time and recording damage.
    pub(crate) upkeep: Duration,
    /// Removing blobs that no bundle needs; `None` for never.
    pub(crate) garbage: Option<Duration>,
    /// Reading every blob again; `None` for never.
    pub(crate) scrub: Option<Duration>,
}

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

impl Config {
    /// The defaults.
    pub(crate) fn new() -> EdgeResult<Config> {
        Ok(Config {
            name: NodeName::new("edge")?,
            tenant: Tenant::new("default")?,
            data: None,
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            hosts: None,
            public: false,
            repositories: Vec::new(),
            tls: None,
            proxy_protocol: Vec::new(),
            limits: Limits::default(),
            roots: None,
            log: Log { json: false, level: "info".into() },
            maintenance: Maintenance {
                upkeep: Duration::from_secs(60),
                garbage: Some(Duration::from_secs(DAY)),
                scrub: Some(Duration::from_secs(7 * DAY)),
            },
            tenancy: Tenancy::Single,
            tenants: Vec::new(),
            policy: None,
            proxies: TrustedProxies::none(),
            audit: AuditConfig::default(),
            geo: GeoConfig::default(),
            identity: IdentityConfig::default(),
            url: None,
            groups: Vec::new(),
        })
    }

    /// The defaults, changed by the file `path`. Paths in the file are relative to its directory.
    pub(crate) fn read(path: &Path) -> Result<Config, String> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|cause| format!("the configuration {name} cannot be read: {cause}"))?;
        let base = path.parent().unwrap_or(Path::new(""));
        Config::parse(Source { name: &name, text: &text }, base)
    }

    fn parse(source: Source<'_>, base: &Path) -> Result<Config, String> {
        let mut config = Config::new().map_err(|error| error.to_string())?;
        let mut file = source.section()?;
        set(&mut config.name, file.take_as("name", parsed)?);
        set(&mut config.tenant, file.take_as("tenant", parsed)?);
        config.data = file.take("data")?.map(|data: PathBuf| base.join(data));
        set(&mut config.listen, file.take_as("listen", |text: String| address(&text))?);
        config.hosts = file.take_as("hosts", hosts)?;
        set(&mut config.public, file.take("public")?);
        let mut seen = BTreeSet::new();
        for section in file.tables("repository")? {
            config.repositories.push(repository(section, &mut seen)?);
        }
        set(&mut config.tenancy, file.take_as("tenancy", tenant::tenancy)?);
        config.tenants = tenant::tenants(file.tables("tenants")?, base)?;
        config.policy = file.take("policy")?.map(|path: PathBuf| base.join(path));
        config.proxies = tenant::proxies(file.table("proxies")?)?;
        config.audit = tenant::audit(file.table("audit")?)?;
        config.geo = GeoConfig::read(file.table("geo")?, base)?;
        config.identity = IdentityConfig::take(&mut file, base)?;
        config.url = file.take_as("url", url)?;
        let groups = file.take_as("groups", |names: Vec<String>| {
            names.into_iter().map(parsed::<NodeName>).collect::<Result<Vec<_>, _>>()
        })?;
        set(&mut config.groups, groups);
        config.tls = tls(file.table("tls")?, base)?;
        config.proxy_protocol = server(file.table("server")?)?;
        config.limits = limits(file.table("limits")?)?;
        config.roots = roots(file.table("trust")?)?;
        config.log.read(file.table("log")?)?;
        config.maintenance.read(file.table("maintenance")?)?;
        file.finish()?;
        Ok(config)
    }

    /// What the edge itself has to know.
    pub(crate) fn edge(&self) -> EdgeResult<EdgeOptions> {
        let mut options = EdgeOptions::new(self.name.clone())?;
        options.tenant = self.tenant.clone();
        options.repositories = self.repositories.clone();
        options.public = self.public;
        options.hosts = self.hosts.clone();
        options.roots = self.roots.clone();
        options.proxies = self.proxies.clone();
        options.authenticators = self.identity.authenticators();
        options.url.clone_from(&self.url);
        options.groups = self.groups.clone();
        options.audit_full = self.audit.full;
        let days = Some(self.audit.retention_days).filter(|days| *days > 0);
        options.log = LogOptions::default().with_sync_always(self.audit.always).with_retain_days(days);
        Ok(options)
    }

    /// What the edge of another tenant has to know.
    pub(crate) fn edge_of(&self, tenant: &TenantConfig) -> EdgeResult<EdgeOptions> {
        let mut options = self.edge()?;
        options.tenant = tenant.name.clone();
        options.repositories = tenant.repositories.clone();
        options.public = tenant.public;
        options.authenticators = tenant.identity.authenticators();
        // Which host is whose is told before.
        options.hosts = None;
        Ok(options)
    }

    /// Whose key sets have to be kept fresh.
    pub(crate) fn oidc(&self) -> Vec<Arc<OidcAuthenticator>> {
        let others = self.tenants.iter().map(|tenant| &tenant.identity);
        std::iter::once(&self.identity).chain(others).filter_map(|known| known.oidc.clone()).collect()
    }

    /// What its sockets have to know.
    pub(crate) fn server(&self) -> ServerConfig {
        let mut config = ServerConfig::new(self.listen).with_limits(self.limits.clone());
        if !self.proxy_protocol.is_empty() {
            config = config.with_proxies(self.proxy_protocol.iter().copied());
        }
        let Some(tls) = &self.tls else { return config };
        config = config.with_tls(&tls.cert, &tls.key);
        match &tls.clients {
            Some((authorities, demand)) => config.with_client_authorities(authorities, *demand),
            None => config,
        }
    }
}

impl Log {
    fn read(&mut self, mut section: Section<'_>) -> Result<(), String> {
        let json = section.take_as("format", |text: String| match text.as_str() {
            "json" => Ok(true),
            "text" => Ok(false),
            _ => Err(format!("{text:?} is neither \"text\" nor \"json\"")),
        })?;
        set(&mut self.json, json);
        set(&mut self.level, section.take_as("level", |text: String| level(&text))?);
        section.finish()
    }
}

impl Maintenance {
    fn read(&mut self, mut section: Section<'_>) -> Result<(), String> {
        let every = |unit: u64| {
            move |count: u64| (count > 0).then(|| Duration::from_secs(count.saturating_mul(unit)))
        };
        let upkeep = number(&mut section, "upkeep_seconds", 1..=HOUR)?;
        set(&mut self.upkeep, upkeep.map(Duration::from_secs));
        set(&mut self.garbage, number(&mut section, "gc_hours", 0..=365 * 24)?.map(every(HOUR)));
        set(&mut self.scrub, number(&mut section, "scrub_days", 0..=3650)?.map(every(DAY)));
        section.finish()
    }
}

/// An address to listen on.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!(
            "{text:?} is not an address to listen on: an IP address and a port, such as \"127.0.0.1:8080\""
        )
    })
}

/// What to log, as `tracing` reads it.
pub(crate) fn level(text: &str) -> Result<String, String> {
    // The filter takes any bare word for a module's name, and would log nothing else.
    let plain = |part: &str| part.contains('=') || part.trim().parse::<LevelFilter>().is_ok();
    match EnvFilter::try_new(text) {
        Ok(_) if text.split(',').all(plain) => Ok(text.to_owned()),
        _ => Err(format!(
            "{text:?} is not a log level: error, warn, info, debug, trace, or a list like \"warn,distedge=debug\""
        )),
    }
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

pub(crate) fn parsed<T: FromStr<Err: Display>>(text: String) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

/// The address of an edge, without a slash at its end.
fn url(text: String) -> Result<String, String> {
    let plain = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let sound =
        |rest: &str| !rest.is_empty() && !rest.ends_with('/') && rest.bytes().all(|b| b.is_ascii_graphic());
    match plain {
        Some(rest) if sound(rest) && !rest.contains(['?', '#', '"']) => Ok(text),
        _ => Err(format!(
            "{text:?} is not an address like \"https://dl.example.com\", without a slash at its end"
        )),
    }
}

pub(crate) fn hosts(names: Vec<String>) -> Result<Vec<String>, String> {
    if names.is_empty() {
        return Err(
            "the list is empty, and no request would be answered; leave it out to answer to any name".into(),
        );
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._[:]".contains(&byte);
    match names.iter().find(|name| name.is_empty() || !name.bytes().all(allowed)) {
        Some(bad) => Err(format!("{bad:?} is not a host name")),
        None => Ok(names),
    }
}

pub(crate) fn repository(
    mut section: Section<'_>,
    seen: &mut BTreeSet<RepositoryName>,
) -> Result<(RepositoryName, bool), String> {
    let fresh = |text: String| {
        let name: RepositoryName = parsed(text)?;
        if seen.insert(name.clone()) { Ok(name) } else { Err(format!("{name} is described twice")) }
    };
    let Some(name) = section.take_as("name", fresh)? else {
        return Err(section.error("a [[repository]] needs a `name`"));
    };
    let public = section.take("public")?.unwrap_or(false);
    section.finish()?;
    Ok((name, public))
}

fn tls(mut section: Section<'_>, base: &Path) -> Result<Option<TlsConfig>, String> {
    let there = |path: PathBuf| {
        let path = base.join(path);
        match std::fs::File::open(&path) {
            Ok(_) => Ok(path),
            Err(cause) => Err(format!("{} cannot be read: {cause}", path.display())),
        }
    };
    let pair = (section.take_as("cert", there)?, section.take_as("key", there)?);
    let authorities = section.take_as("client_ca", there)?;
    let demand = section.take_as("client_auth", |text: String| match text.as_str() {
        "optional" => Ok(ClientDemand::Optional),
        "required" => Ok(ClientDemand::Required),
        _ => Err(format!("{text:?} is neither \"optional\" nor \"required\"")),
    })?;
    let clients = match (authorities, demand) {
        (Some(authorities), Some(demand)) => Some((authorities, demand)),
        (None, None) => None,
        _ => return Err(section.error("[tls] needs both `client_ca` and `client_auth`, or neither")),
    };
    let tls = match pair {
        (Some(cert), Some(key)) => Some(TlsConfig { cert, key, clients }),
        (None, None) if clients.is_none() => None,
        _ => return Err(section.error("[tls] needs both `cert` and `key`")),
    };
    section.finish()?;
    Ok(tls)
}

fn server(mut section: Section<'_>) -> Result<Vec<Network>, String> {
    let networks = section.take_as("proxy_protocol", |texts: Vec<String>| {
        texts.into_iter().map(parsed::<Network>).collect::<Result<Vec<_>, _>>()
    })?;
    section.finish()?;
    Ok(networks.unwrap_or_default())
}

fn limits(mut section: Section<'_>) -> Result<Limits, String> {
    let mut limits = Limits::default();
    for (key, place) in [
        ("header_seconds", &mut limits.header_timeout),
        ("handshake_seconds", &mut limits.handshake_timeout),
        ("idle_seconds", &mut limits.idle_timeout),
        ("rate_grace_seconds", &mut limits.rate_grace),
    ] {
        set(place, number(&mut section, key, 1..=DAY)?.map(Duration::from_secs));
    }
    set(&mut limits.drain, number(&mut section, "drain_seconds", 0..=DAY)?.map(Duration::from_secs));
    set(&mut limits.minimum_rate, number(&mut section, "minimum_rate", 0..=1 << 40)?);
    // The gate behind the sockets lets no more through.
    let (bytes, fields) = (gate::MAX_HEADER_BYTES as u64, gate::MAX_HEADERS as u64);
    set(&mut limits.header_bytes, number(&mut section, "header_bytes", 8192..=bytes)?);
    set(&mut limits.headers, number(&mut section, "headers", 16..=fields)?);
    set(&mut limits.streams, number(&mut section, "streams", 1..=10_000)?);
    let connections = 1..=1_000_000;
    set(
        &mut limits.connections_per_address,
        number(&mut section, "connections_per_address", connections.clone())?,
    );
    limits.connections = number(&mut section, "connections", connections)?;
    section.finish()?;
    Ok(limits)
}

fn roots(mut section: Section<'_>) -> Result<Option<KeySet>, String> {
    let keys = section.take_as("roots", |texts: Vec<String>| {
        texts.iter().map(|text| PublicKey::parse(text).map_err(|error| error.to_string())).collect()
    })?;
    let threshold = section.take::<u32>("threshold")?;
    let set = match (keys, threshold) {
        (None, None) => None,
        (None, Some(_)) => return Err(section.error("`trust.threshold` needs `trust.roots`")),
        (Some(keys), threshold) => {
            let keys: Vec<PublicKey> = keys;
            // Each key stands for its own owner: the file knows no more of them.
            let owner = |at: usize| format!("root {}", at + 1);
            let keys = keys.into_iter().enumerate();
            let keys = keys.map(|(at, key)| TrustedKey::new(key, &owner(at), &owner(at))).collect();
            let bad = |error| section.error(format_args!("[trust]: {error}"));
            Some(KeySet::new(threshold.unwrap_or(1), keys).map_err(bad)?)
        }
    };
    section.finish()?;
    Ok(set)
}

pub(crate) fn number<T: TryFrom<u64>>(
    section: &mut Section<'_>,
    key: &'static str,
    range: RangeInclusive<u64>,
) -> Result<Option<T>, String> {
    section.take_as(key, |value: i64| {
        let inside = u64::try_from(value).ok().filter(|value| range.contains(value));
        inside.and_then(|value| T::try_from(value).ok()).ok_or_else(|| {
            format!("{value} is out of range: {} to {} are possible", range.start(), range.end())
        })
    })
}
