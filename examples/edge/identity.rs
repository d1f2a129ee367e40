//! Whose word about identity and place is taken: `[geo]`, `[[oidc]]`, `[[client_certificate]]`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use distedge::access::{Identity, Principal};
use distedge::auth::{
    Authenticator, CertificateAuthenticator, CertificateMark, CertificateRule, ClaimPath, ClaimValue, Issuer,
    Jwks, JwksFile, JwksLimits, MAX_LEEWAY, OidcAuthenticator,
};
use distedge::clock::SystemClock;
use distedge::digest::Digest;
use distedge::edge::RemoteJwks;
use distedge::geo::{FirstKnown, GeoResolver, MaxMindGeo, NetworkFile, NoGeo, Stale};
use serde::Deserialize;
use tracing::warn;

use super::config::{number, parsed};
use super::section::Section;

const DAY: u64 = 86_400;

/// Where countries are looked up.
#[derive(Clone, Debug, Default)]
pub(crate) struct GeoConfig {
    database: Option<PathBuf>,
    networks: Option<PathBuf>,
    max_age: Option<Duration>,
    stale: Stale,
}

impl GeoConfig {
    pub(crate) fn read(mut section: Section<'_>, base: &Path) -> Result<GeoConfig, String> {
        let there = |path: PathBuf| there(base, &path);
        let database = section.take_as("database", there)?;
        let networks = section.take_as("networks", there)?;
        let max_age = number(&mut section, "max_age_days", 1..=3650)?;
        let stale = section.take_as("stale", |text: String| match text.as_str() {
            "deny" => Ok(Stale::Deny),
            "serve" => Ok(Stale::Serve),
            _ => Err(format!("{text:?} is neither \"deny\" nor \"serve\"")),
        })?;
        if database.is_none() && (max_age.is_some() || stale.is_some()) {
            return Err(section.error("`geo.max_age_days` and `geo.stale` need `geo.database`"));
        }
        if stale.is_some() && max_age.is_none() {
            return Err(section.error("`geo.stale` needs `geo.max_age_days`"));
        }
        section.finish()?;
        let max_age = max_age.map(|days: u64| Duration::from_secs(days * DAY));
        Ok(GeoConfig { database, networks, max_age, stale: stale.unwrap_or_default() })
    }

    /// Whether the files are good.
    pub(crate) fn check(&self) -> distedge::error::Result<()> {
        self.networks.as_ref().map(NetworkFile::open).transpose()?;
        self.database.as_ref().map(MaxMindGeo::open).transpose()?;
        Ok(())
    }

    /// The resolver. A database that is refused keeps nothing from starting: countries are unknown
    /// until a good one is there.
    pub(crate) fn open(&self) -> distedge::error::Result<Arc<dyn GeoResolver>> {
        let mut resolvers: Vec<Box<dyn GeoResolver>> = Vec::new();
        if let Some(path) = &self.networks {
            resolvers.push(Box::new(NetworkFile::open(path)?));
        }
        if let Some(path) = &self.database {
            let mut geo = MaxMindGeo::watch(path);
            if let Some(max_age) = self.max_age {
                geo = geo.with_max_age(max_age, self.stale);
            }
            if let Err(error) = geo.refresh() {
                warn!(%error, "countries are unknown until there is a good geo database");
            }
            resolvers.push(Box::new(geo));
        }
        Ok(match resolvers.len() {
            0 => Arc::new(NoGeo),
            _ => Arc::new(FirstKnown::new(resolvers)),
        })
    }
}

/// Whom a tenant believes beside the holders of its own tokens.
#[derive(Clone, Debug, Default)]
pub(crate) struct IdentityConfig {
    pub(crate) oidc: Option<Arc<OidcAuthenticator>>,
    certificates: Option<Arc<CertificateAuthenticator>>,
}

impl IdentityConfig {
    /// Takes `[[oidc]]` and `[[client_certificate]]` out of a tenant's table.
    pub(crate) fn take(section: &mut Section<'_>, base: &Path) -> Result<IdentityConfig, String> {
        let issuers = section.tables("oidc")?;
        let issuers: Vec<Issuer> =
            issuers.into_iter().map(|section| issuer(section, base)).collect::<Result<_, _>>()?;
        let rules = section.tables("client_certificate")?;
        let rules: Vec<CertificateRule> = rules.into_iter().map(certificate).collect::<Result<_, _>>()?;
        let mut config = IdentityConfig::default();
        if !issuers.is_empty() {
            let oidc = OidcAuthenticator::new(issuers, Arc::new(SystemClock));
            config.oidc = Some(Arc::new(oidc.map_err(|error| error.to_string())?));
        }
        if !rules.is_empty() {
            let certificates = CertificateAuthenticator::new(rules).map_err(|error| error.to_string())?;
            config.certificates = Some(Arc::new(certificates));
        }
        Ok(config)
    }

    /// Who is asked before the tenant's own tokens, which are tokens of another shape.
    pub(crate) fn authenticators(&self) -> Vec<Arc<dyn Authenticator>> {
        let oidc = self.oidc.clone().map(|oidc| oidc as Arc<dyn Authenticator>);
        let certificates = self.certificates.clone().map(|known| known as Arc<dyn Authenticator>);
        certificates.into_iter().chain(oidc).collect()
    }
}

/// A claim: its name, or the names that lead to it.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected the name of a claim, or a list of the names that lead to it")]
enum Claim {
    Name(String),
    Path(Vec<String>),
}

fn claim(names: Claim) -> Result<ClaimPath, String> {
    let names = match names {
        Claim::Name(name) => vec![name],
        Claim::Path(names) => names,
    };
    ClaimPath::new(names).map_err(|error| error.to_string())
}

fn issuer(mut section: Section<'_>, base: &Path) -> Result<Issuer, String> {
    let name: String = required(&mut section, "issuer")?;
    let audiences: Vec<String> = required(&mut section, "audiences")?;
    let keys = keys(&mut section, base)?;
    let mut issuer = Issuer::new(&name, audiences, keys).map_err(|error| section.error(error))?;
    if let Some(seconds) = number(&mut section, "leeway_seconds", 0..=MAX_LEEWAY.into())? {
        issuer = issuer.with_leeway(seconds).map_err(|error| section.error(error))?;
    }
    if let Some(seconds) = number(&mut section, "max_lifetime_seconds", 60..=30 * DAY)? {
        issuer = issuer.with_max_lifetime(seconds);
    }
    if let Some(path) = section.take_as("name_claim", claim)? {
        issuer = issuer.with_name(path);
    }
    if let Some(prefix) = section.take::<String>("prefix")? {
        issuer = issuer.with_prefix(prefix);
    }
    let services = section.take_as("kind", |text: String| match text.as_str() {
        "user" => Ok(false),
        "service" => Ok(true),
        _ => Err(format!("{text:?} is neither \"user\" nor \"service\"")),
    })?;
    if services == Some(true) {
        issuer = issuer.with_services();
    }
    for mut section in section.tables("service")? {
        if services.is_some() {
            return Err(section.error("`oidc.kind` and [[oidc.service]] exclude each other"));
        }
        issuer = issuer.with_services_where(value(&mut section)?);
        section.finish()?;
    }
    for mut section in section.tables("required")? {
        issuer = issuer.with_required(value(&mut section)?);
        section.finish()?;
    }
    for mut section in section.tables("group")? {
        let has = value(&mut section)?;
        let group: String = required(&mut section, "group")?;
        issuer = issuer.with_group(has, group);
        section.finish()?;
    }
    if let Some(path) = section.take_as("groups_claim", claim)? {
        let prefix: Option<String> = section.take("groups_prefix")?;
        let prefix = prefix.ok_or_else(|| section.error("`oidc.groups_claim` needs `oidc.groups_prefix`"))?;
        issuer = issuer.with_groups_of(path, prefix);
    }
    section.finish()?;
    Ok(issuer)
}

fn keys(section: &mut Section<'_>, base: &Path) -> Result<Jwks, String> {
    let file = section.take_as("jwks_file", |path: PathBuf| there(base, &path))?;
    let authorities = section.take_as("jwks_ca", |path: PathBuf| there(base, &path))?;
    let url = section.take_as("jwks_url", |url: String| {
        RemoteJwks::at(&url, authorities.as_deref()).map_err(|error| error.to_string())
    })?;
    let fresh = number(section, "refresh_seconds", 60..=DAY)?;
    let stale = number(section, "stale_seconds", 0..=30 * DAY)?.unwrap_or(JwksLimits::default().stale);
    let limits = |usual: u32| JwksLimits { fresh: fresh.unwrap_or(usual), stale };
    match (file, url) {
        // A file is looked at as often as it may be.
        (Some(file), None) => Ok(Jwks::new(JwksFile::new(file), limits(60), Arc::new(SystemClock))),
        (None, Some(url)) => Ok(Jwks::new(url, limits(JwksLimits::default().fresh), Arc::new(SystemClock))),
        _ => Err(section.error("an [[oidc]] needs one of `jwks_file` and `jwks_url`")),
    }
}

fn value(section: &mut Section<'_>) -> Result<ClaimValue, String> {
    let path = section.take_as("claim", claim)?;
    let path = path.ok_or_else(|| section.error("`claim` is missing"))?;
    let value: String = required(section, "value")?;
    Ok(ClaimValue::new(path, value))
}

fn certificate(mut section: Section<'_>) -> Result<CertificateRule, String> {
    let fingerprint = section.take_as("fingerprint", parsed::<Digest>)?;
    let name: Option<String> = section.take("name")?;
    let holds = match (fingerprint, name) {
        (Some(digest), None) => CertificateMark::Fingerprint(digest),
        (None, Some(name)) => CertificateMark::Name(name),
        _ => {
            return Err(section.error("a [[client_certificate]] needs one of `fingerprint` and `name`"));
        }
    };
    let (user, service) = (section.take::<String>("user")?, section.take::<String>("service")?);
    let groups: Vec<String> = section.take("groups")?.unwrap_or_default();
    let identity = |name| Arc::new(Identity { name, groups, ..Identity::default() });
    let principal = match (user, service) {
        (Some(name), None) if !name.is_empty() => Principal::User(identity(name)),
        (None, Some(name)) if !name.is_empty() => Principal::Service(identity(name)),
        _ => return Err(section.error("a [[client_certificate]] needs one of `user` and `service`")),
    };
    section.finish()?;
    Ok(CertificateRule { holds, principal })
}

fn required<T: serde::de::DeserializeOwned>(
    section: &mut Section<'_>,
    key: &'static str,
) -> Result<T, String> {
    section.take(key)?.ok_or_else(|| section.error(format_args!("`{key}` is missing")))
}

fn there(base: &Path, path: &Path) -> Result<PathBuf, String> {
    let path = base.join(path);
    match std::fs::File::open(&path) {
        Ok(_) => Ok(path),
        Err(cause) => Err(format!("{} cannot be read: {cause}", path.display())),
    }
}

/// Looks for newer geo data and key sets now and then, so that no request waits for them. It runs
/// until it is dropped.
pub(crate) async fn keep(geo: Arc<dyn GeoResolver>, oidc: Vec<Arc<OidcAuthenticator>>, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let geo = geo.clone();
        match tokio::task::spawn_blocking(move || geo.refresh()).await {
            Ok(Ok(true)) => tracing::info!("geo data was renewed"),
            Ok(Ok(false)) => {}
            Ok(Err(error)) => warn!(%error, "geo data was refused"),
            Err(cause) => warn!(%cause, "geo data could not be looked at"),
        }
        for oidc in &oidc {
            // What fails is logged where it is fetched.
            let _ = oidc.refresh().await;
        }
    }
}
