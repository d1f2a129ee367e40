//! The source service: artifacts come in, are selected, bundled, signed and distributed.
//!
//! A [`Source`] stands on a [`BlobStore`], a
//! [`MetadataStore`], a [`Clock`] and a [`Vault`]
//! for its secrets. All its state is typed records of the metadata store; every change is one
//! conditional batch, and bytes are durable before a record names them.
//!
//! What should be where is recorded ([`assign`](Source::assign)), not done:
//! [`converge`](Source::converge) compares it with what each edge has proven and sends what is
//! missing, to every edge on its own.

mod actor;
#[cfg(feature = "delta")]
mod airgap;
mod artifact;
mod change;
mod check;
mod converge;
#[cfg(feature = "client")]
mod dial;
mod edges;
mod file;
mod governance;
mod keys;
mod link;
mod pairing;
mod propagation;
mod query;
mod record;
mod release;
mod selection;
mod state;
mod trust;
mod vault;
mod witness;

#[cfg(feature = "redb")]
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::lock::Mutex;
use serde::{Deserialize, Serialize};

pub use self::actor::{Actor, Authority, Operator};
#[cfg(feature = "delta")]
pub use self::airgap::{AirGapOptions, Recorded, VOLUME_SIZE};
pub use self::artifact::{AddEvent, AddOptions, AddProgress, Added, Artifact, MAX_TAGS, Repository};
pub use self::change::{Change, ChangeRecord, ChangeState};
pub use self::converge::{
    ContactRecord, ConvergeOptions, ConvergeProgress, Dial, EdgeOutcome, EdgeStatus, ReceiptRecord,
};
#[cfg(feature = "client")]
pub use self::dial::HttpDial;
pub use self::edges::{AssignmentRecord, EdgeRecord, Rule};
pub use self::governance::Governance;
pub use self::keys::{NewKey, Ring, Role};
pub use self::link::{LinkPush, LinkTarget, LinksRevoked, SignedUrl};
pub use self::pairing::{PairOptions, PairingRecord};
pub use self::propagation::{KeyState, KeyStatus, Propagation};
pub use self::query::{MAX_DEPTH, MAX_QUERY, Query};
pub use self::selection::Selection;
pub use self::state::{
    BundleRecord, BundleState, NewAlias, NewBundle, SbomRecord, SignatureRecord, Verification,
    WithdrawalRecord,
};
pub use self::trust::{TRUST_DAYS, TrustRecord};
pub use self::vault::{DirVault, MemoryVault, Vault};
pub use self::witness::WitnessRecord;
pub use crate::pattern::{MAX_PATTERN, Pattern};

use self::record::{Records, encode, key};
use crate::blob::BlobStore;
use crate::clock::{Clock, Timestamp};
use crate::digest::to_hex;
#[cfg(feature = "delta")]
use crate::distribute::Planner;
#[cfg(all(feature = "redb", feature = "delta"))]
use crate::distribute::PlannerOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::govern::Links;
use crate::key::SigningKey;
use crate::meta::{Batch, MetadataStore};
use crate::name::Tenant;
use crate::secret::Secret;
#[cfg(feature = "redb")]
use crate::secret::private_directory;

/// Who a source is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// A random name that stays, in every bundle it makes.
    pub id: String,
    /// The tenant whose bundles it makes.
    pub tenant: Tenant,
    /// The project they belong to.
    pub project: String,
    /// When it was set up.
    pub created: Timestamp,
}

/// What a source stands on.
#[derive(Clone, Debug)]
pub struct Ports {
    /// Where bytes are.
    pub blobs: Arc<dyn BlobStore>,
    /// Where records are.
    pub meta: Arc<dyn MetadataStore>,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// Where secrets are.
    pub vault: Arc<dyn Vault>,
    /// A directory for bytes whose digest is not known yet.
    pub spool: PathBuf,
}

#[cfg(feature = "redb")]
const META: &str = "meta.redb";

#[cfg(feature = "redb")]
impl Ports {
    /// The stores that are embedded in a data directory.
    fn embedded(directory: &Path) -> Result<Ports> {
        let spool = directory.join("spool");
        std::fs::create_dir_all(&spool)
            .map_err(|cause| Error::io(format!("creating {}", spool.display()), cause))?;
        Ok(Ports {
            meta: Arc::new(crate::meta::RedbStore::open(directory.join(META))?),
            blobs: Arc::new(crate::blob::FsBlobStore::open(directory.join("blobs"))?),
            clock: Arc::new(crate::clock::SystemClock),
            vault: Arc::new(DirVault::open(directory.join("keys"))?),
            spool,
        })
    }
}

/// A source of release bundles.
///
/// One process at a time works on one metadata store; within it a source is shared behind an
/// [`Arc`], and all its methods may run at the same time.
#[derive(Debug)]
pub struct Source {
    profile: Profile,
    records: Records,
    blobs: Arc<dyn BlobStore>,
    clock: Arc<dyn Clock>,
    vault: Arc<dyn Vault>,
    spool: PathBuf,
    #[cfg(feature = "delta")]
    planner: Option<Planner>,
    /// Held while records come to name blobs, and while blobs without a record are removed.
    blobs_in_use: Mutex<()>,
    /// The identity key, once it was asked for.
    identity: std::sync::Mutex<Option<Arc<SigningKey>>>,
    /// Its signed URLs, once they were asked for: one snapshot for all, or numbers would be given twice.
    links: Mutex<Option<Links>>,
}

impl Source {
    /// Sets up a source for `tenant` and `project`, or opens the one that is there.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if the store holds the source of another tenant or project.
    pub async fn create_over(ports: Ports, tenant: &Tenant, project: &str) -> Result<Source> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if project.is_empty() || project.len() > 128 || !project.bytes().all(plain) {
            return Err(Error::invalid(format!(
                "{project:?} is not a project's name: expected 1 to 128 of letters, digits and . _ -"
            )));
        }
        let records = Records::new(ports.meta.clone());
        let profile = Profile {
            id: to_hex(Secret::random(16)?.expose()),
            tenant: tenant.clone(),
            project: project.to_owned(),
            created: ports.clock.now(),
        };
        let mut batch = Batch::new();
        batch.expect_unchanged(key("self", &[]), None).put(key("self", &[]), encode(&profile)?);
        records.commit(batch).await?;
        let source = Source::open_over(ports).await?;
        if source.profile.tenant != *tenant || source.profile.project != project {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "this is the source of the tenant {} and the project {}, and stays that",
                    source.profile.tenant, source.profile.project
                ),
            ));
        }
        Ok(source)
    }

    /// Sets up a source in a data directory, or opens the one that is there: blobs under `blobs/`,
    /// records in `meta.redb`, each secret in a file of mode 0600 under `keys/`.
    ///
    /// # Errors
    /// As [`create_over`](Source::create_over); [`ErrorKind::Conflict`] or [`ErrorKind::Unavailable`]
    /// if another process has it open.
    #[cfg(feature = "redb")]
    pub async fn create(directory: impl AsRef<Path>, tenant: &Tenant, project: &str) -> Result<Source> {
        let directory = directory.as_ref();
        // What is not released yet is nobody's business on this machine.
        private_directory(directory)
            .map_err(|cause| Error::io(format!("creating {}", directory.display()), cause))?;
        let source = Source::create_over(Ports::embedded(directory)?, tenant, project).await?;
        source.remembering(directory)
    }

    /// Opens the source of a data directory.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if none was set up there.
    #[cfg(feature = "redb")]
    pub async fn open(directory: impl AsRef<Path>) -> Result<Source> {
        let directory = directory.as_ref();
        // Asked first, so that a mistyped path does not leave empty stores behind.
        if !directory.join(META).is_file() {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("{} holds no source; set one up with init", directory.display()),
            ));
        }
        let source = Source::open_over(Ports::embedded(directory)?).await;
        source
            .and_then(|source| source.remembering(directory))
            .map_err(|error| error.context(directory.display()))
    }

    #[cfg(all(feature = "redb", feature = "delta"))]
    fn remembering(self, directory: &Path) -> Result<Source> {
        let planner = Planner::open(directory.join("plans"), PlannerOptions::default())?;
        Ok(self.with_planner(planner))
    }

    #[cfg(all(feature = "redb", not(feature = "delta")))]
    fn remembering(self, _: &Path) -> Result<Source> {
        Ok(self)
    }

    /// The same source, which sends less than whole blobs where `planner` finds a way. A source in a
    /// data directory has one.
    #[cfg(feature = "delta")]
    #[must_use]
    pub fn with_planner(mut self, planner: Planner) -> Source {
        self.planner = Some(planner);
        self
    }

    /// Who finds out how little needs to be sent.
    #[cfg(feature = "delta")]
    pub fn planner(&self) -> Option<&Planner> {
        self.planner.as_ref()
    }

    /// Opens the source that is in the stores.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none.
    pub async fn open_over(ports: Ports) -> Result<Source> {
        let records = Records::new(ports.meta);
        let profile: Profile = records
            .load(&key("self", &[]))
            .await?
            .ok_or_else(|| Error::new(ErrorKind::NotFound, "no source was set up here"))?;
        Ok(Source {
            profile,
            records,
            blobs: ports.blobs,
            clock: ports.clock,
            vault: ports.vault,
            spool: ports.spool,
            #[cfg(feature = "delta")]
            planner: None,
            blobs_in_use: Mutex::new(()),
            identity: std::sync::Mutex::default(),
            links: Mutex::new(None),
        })
    }

    /// Who this source is.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The store that holds its records, and those of what governs it.
    pub fn meta(&self) -> &Arc<dyn MetadataStore> {
        self.records.store()
    }

    /// The store that holds the artifacts' bytes.
    pub fn blobs(&self) -> &Arc<dyn BlobStore> {
        &self.blobs
    }
}
