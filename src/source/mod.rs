//! The source service: artifacts come in, are selected, bundled, signed and distributed.
//!
//! A [`Source`] stands on a [`BlobStore`](crate::blob::BlobStore), a
//! [`MetadataStore`](crate::meta::MetadataStore), a [`Clock`](crate::clock::Clock) and a [`Vault`]
//! for its secrets. All its state is typed records of the metadata store; every change is one
//! conditional batch, and bytes are durable before a record names them.
//!
//! What should be where is recorded ([`assign`](Source::assign)), not done:
//! [`converge`](Source::converge) compares it with what each edge has proven and sends what is
//! missing, to every edge on its own.

mod artifact;
mod edges;
mod file;
mod keys;
mod pattern;
mod query;
mod record;
mod selection;
mod vault;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::lock::Mutex;
use serde::{Deserialize, Serialize};

pub use self::artifact::{AddEvent, AddOptions, AddProgress, Added, Artifact, MAX_TAGS, Repository};
pub use self::edges::{AssignmentRecord, EdgeRecord, Rule};
pub use self::keys::{NewKey, Ring, Role};
pub use self::pattern::{MAX_PATTERN, Pattern};
pub use self::query::{MAX_DEPTH, MAX_QUERY, Query};
pub use self::selection::Selection;
pub use self::vault::{DirVault, MemoryVault, Vault};

use self::record::{Records, encode, key};
use crate::blob::BlobStore;
use crate::clock::{Clock, Timestamp};
use crate::digest::to_hex;
use crate::error::{Error, ErrorKind, Result};
use crate::meta::{Batch, MetadataStore};
use crate::name::Tenant;
use crate::secret::Secret;

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
    /// Held while records come to name blobs, and while blobs without a record are removed.
    blobs_in_use: Mutex<()>,
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
            blobs_in_use: Mutex::new(()),
        })
    }

    /// Who this source is.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The store that holds the artifacts' bytes.
    pub fn blobs(&self) -> &Arc<dyn BlobStore> {
        &self.blobs
    }
}
