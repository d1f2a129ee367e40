//! Who shares the edge, and whose word it takes: `tenancy`, `[[tenants]]`, `[proxies]`, `[audit]`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use distedge::address::{AddressHeader, TrustedProxies};
use distedge::edge::{AuditFull, Tenancy};
use distedge::name::{RepositoryName, Tenant};
use distedge::place::Network;

use super::config::{hosts, number, parsed, repository};
use super::identity::IdentityConfig;
use super::section::Section;

/// One more tenant of the edge.
#[derive(Clone, Debug)]
pub(crate) struct TenantConfig {
    pub(crate) name: Tenant,
    pub(crate) hosts: Vec<String>,
    pub(crate) public: bool,
    pub(crate) repositories: Vec<(RepositoryName, bool)>,
    /// A policy file that is put in force at every start.
    pub(crate) policy: Option<PathBuf>,
    pub(crate) identity: IdentityConfig,
}

/// How the log is kept.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AuditConfig {
    /// Whether every event is durable at once.
    pub(crate) always: bool,
    pub(crate) full: AuditFull,
    /// After how many days entries may go; 0 for never.
    pub(crate) retention_days: u32,
}

/// Where a tenant keeps what it has: the first one in the data directory itself.
pub(crate) fn directory(data: &Path, tenant: &Tenant, first: &Tenant) -> PathBuf {
    if tenant == first { data.to_owned() } else { data.join("tenants").join(tenant.as_str()) }
}

pub(crate) fn tenancy(text: String) -> Result<Tenancy, String> {
    match text.as_str() {
        "single" => Ok(Tenancy::Single),
        "host" => Ok(Tenancy::Host),
        "path" => Ok(Tenancy::Path),
        _ => Err(format!("{text:?} is none of \"single\", \"host\" and \"path\"")),
    }
}

pub(crate) fn tenants(sections: Vec<Section<'_>>, base: &Path) -> Result<Vec<TenantConfig>, String> {
    let mut tenants: Vec<TenantConfig> = Vec::new();
    for mut section in sections {
        let Some(name) = section.take_as("name", parsed::<Tenant>)? else {
            return Err(section.error("a [[tenants]] needs a `name`"));
        };
        if tenants.iter().any(|known| known.name == name) {
            return Err(section.error(format_args!("the tenant {name} is described twice")));
        }
        let hosts = section.take_as("hosts", hosts)?.unwrap_or_default();
        let public = section.take("public")?.unwrap_or(false);
        let policy = section.take("policy")?.map(|path: PathBuf| base.join(path));
        let mut seen = BTreeSet::new();
        let mut repositories = Vec::new();
        for section in section.tables("repository")? {
            repositories.push(repository(section, &mut seen)?);
        }
        let identity = IdentityConfig::take(&mut section, base)?;
        section.finish()?;
        tenants.push(TenantConfig { name, hosts, public, repositories, policy, identity });
    }
    Ok(tenants)
}

pub(crate) fn proxies(mut section: Section<'_>) -> Result<TrustedProxies, String> {
    let networks = section.take_as("trusted", |texts: Vec<String>| {
        texts.into_iter().map(parsed::<Network>).collect::<Result<Vec<_>, _>>()
    })?;
    let header = section.take_as("header", parsed::<AddressHeader>)?;
    let proxies = match (networks, header) {
        (None, None) => TrustedProxies::none(),
        (Some(networks), Some(header)) => TrustedProxies::new(networks, header),
        _ => return Err(section.error("[proxies] needs both `trusted` and `header`")),
    };
    section.finish()?;
    Ok(proxies)
}

pub(crate) fn audit(mut section: Section<'_>) -> Result<AuditConfig, String> {
    let always = section.take_as("sync", |text: String| match text.as_str() {
        "batched" => Ok(false),
        "always" => Ok(true),
        _ => Err(format!("{text:?} is neither \"batched\" nor \"always\"")),
    })?;
    let full = section.take_as("full", |text: String| match text.as_str() {
        "deny" => Ok(AuditFull::Deny),
        "count" => Ok(AuditFull::Count),
        _ => Err(format!("{text:?} is neither \"deny\" nor \"count\"")),
    })?;
    let retention_days = number(&mut section, "retention_days", 0..=36_500)?.unwrap_or(0);
    section.finish()?;
    Ok(AuditConfig { always: always.unwrap_or(false), full: full.unwrap_or_default(), retention_days })
}
