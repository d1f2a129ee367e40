//! What governs an edge beyond its policies: where it looks up places, what it records where.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::address::TrustedProxies;
use crate::audit::{AuditSink, Event, TileLog};
use crate::error::Result;
use crate::geo::{GeoResolver, NoGeo};
use crate::govern::{Downloads, Links};

/// The parts that judge requests and remember what happened. Each can be somebody else's.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Governance {
    /// Whose word about a client's address is taken.
    pub proxies: TrustedProxies,
    /// Tells countries.
    pub geo: Arc<dyn GeoResolver>,
    /// The signed URLs it honours.
    pub links: Option<Links>,
    /// Takes what happened.
    pub audit: Arc<dyn AuditSink>,
    /// The same log, if it is one that can be read here.
    pub ledger: Option<Arc<TileLog>>,
    /// Downloads as they are counted from that log.
    pub downloads: Option<Downloads>,
    /// What becomes of public downloads that cannot be recorded.
    pub audit_full: AuditFull,
}

/// What becomes of a public download that the audit log cannot take. Others are refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuditFull {
    /// It is refused too.
    #[default]
    Deny,
    /// It is served, and counted as not recorded.
    Count,
}

impl Governance {
    /// No log, no places, no links: for services that bring their own.
    pub fn none() -> Governance {
        Governance {
            proxies: TrustedProxies::none(),
            geo: Arc::new(NoGeo),
            links: None,
            audit: Arc::new(Unrecorded),
            ledger: None,
            downloads: None,
            audit_full: AuditFull::Deny,
        }
    }

    /// The same, believing these proxies.
    #[must_use]
    pub fn with_proxies(mut self, proxies: TrustedProxies) -> Governance {
        self.proxies = proxies;
        self
    }

    /// The same with this resolver.
    #[must_use]
    pub fn with_geo(mut self, geo: Arc<dyn GeoResolver>) -> Governance {
        self.geo = geo;
        self
    }

    /// The same with these signed URLs.
    #[must_use]
    pub fn with_links(mut self, links: Links) -> Governance {
        self.links = Some(links);
        self
    }

    /// The same with this log.
    #[must_use]
    pub fn with_audit(mut self, audit: Arc<dyn AuditSink>) -> Governance {
        self.audit = audit;
        self
    }

    /// The same with this log, which can be read as well.
    #[must_use]
    pub fn with_ledger(mut self, ledger: Arc<TileLog>) -> Governance {
        self.audit = ledger.clone();
        self.ledger = Some(ledger);
        self
    }

    /// The same with these counters.
    #[must_use]
    pub fn with_downloads(mut self, downloads: Downloads) -> Governance {
        self.downloads = Some(downloads);
        self
    }

    /// The same with this rule for a full log.
    #[must_use]
    pub fn with_audit_full(mut self, rule: AuditFull) -> Governance {
        self.audit_full = rule;
        self
    }
}

/// Forgets everything: for an edge whose embedder keeps no log.
#[derive(Clone, Copy, Default)]
struct Unrecorded;

impl fmt::Debug for Unrecorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unrecorded")
    }
}

#[async_trait]
impl AuditSink for Unrecorded {
    fn record(&self, _: Event) -> Result<()> {
        Ok(())
    }

    async fn record_durable(&self, _: Event) -> Result<()> {
        Ok(())
    }
}
