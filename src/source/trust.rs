//! The trust document: what the source's state means for its edges, signed by the root keys.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Source;
use super::edges::EdgeRecord;
use super::keys::Role;
use super::record::{ATTEMPTS, decode, encode, key, lost_race};
use super::state::BundleState;
use crate::bundle::{Anchor, Assignment, TrustDocument, Withdrawal};
use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Signer, SigningKey};
use crate::meta::Batch;
use crate::name::{BundleName, NodeName, Version};

/// How long a trust document is good for, unless told otherwise.
pub const TRUST_DAYS: u32 = 90;

const DAY: i64 = 24 * 60 * 60;

/// The trust document that was last signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustRecord {
    /// Its version.
    pub version: u64,
    /// When it was signed.
    pub issued: Timestamp,
    /// When it expires.
    pub expires: Timestamp,
    /// The digest of all it says, but for the three above.
    pub content: Digest,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    trust_days: u32,
}

impl Source {
    /// Sets for how many days (1 to 3,650) the following trust documents are good.
    pub async fn set_trust_days(&self, days: u32) -> Result<()> {
        if !(1..=3650).contains(&days) {
            return Err(Error::invalid("a trust document is good for 1 to 3650 days"));
        }
        self.records.set(key("settings", &[]), Some(encode(&Settings { trust_days: days })?)).await
    }

    /// The trust document that was last signed, if any.
    pub async fn trust_record(&self) -> Result<Option<TrustRecord>> {
        self.records.load(&key("trust", &[])).await
    }

    /// The trust document's envelope, as every edge should have it.
    ///
    /// It is signed anew, with a higher version, when what it says has changed, or when less than a
    /// third of its life is left.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if the ring of root keys or of release keys is empty, or if the
    /// root keys whose secrets are here are not enough for the edges to accept the document.
    pub async fn trust(&self) -> Result<Bytes> {
        for _ in 0..ATTEMPTS {
            let now = self.clock.now();
            let entry = self.records.entry(&key("trust", &[])).await?;
            let last: Option<TrustRecord> = entry.as_ref().map(decode).transpose()?;
            let envelope = self.records.entry(&key("trustdoc", &[])).await?.map(|entry| entry.value);
            let mut document = self.compose_trust().await?;
            let content = Digest::of(&document.to_payload());
            if let (Some(last), Some(envelope)) = (&last, &envelope)
                && last.content == content
                && last.expires.as_unix() - now.as_unix()
                    >= (last.expires.as_unix() - last.issued.as_unix()) / 3
            {
                return Ok(envelope.clone());
            }
            let settings: Option<Settings> = self.records.load(&key("settings", &[])).await?;
            let days = settings.map_or(TRUST_DAYS, |settings| settings.trust_days);
            document.version = last.map_or(1, |last| last.version + 1);
            document.issued = now;
            document.expires = now.plus(i64::from(days) * DAY);
            let signers = self.root_signers(now).await?;
            let signers: Vec<&dyn Signer> = signers.iter().map(|signer| signer as &dyn Signer).collect();
            let sealed: Bytes = document.seal(&signers, now)?.to_json().into();
            self.check_acceptable(&sealed, envelope.as_deref(), now)?;
            let record =
                TrustRecord { version: document.version, issued: now, expires: document.expires, content };
            let mut batch = Batch::new();
            batch
                .expect_unchanged(key("trust", &[]), entry.as_ref())
                .put(key("trust", &[]), encode(&record)?)
                .put(key("trustdoc", &[]), sealed.clone());
            if self.records.commit(batch).await? {
                tracing::info!(version = record.version, expires = %record.expires, "trust document signed");
                return Ok(sealed);
            }
        }
        Err(lost_race("signing the trust document"))
    }

    /// What the trust document is to say, with a version and times that are yet to be set.
    pub(super) async fn compose_trust(&self) -> Result<TrustDocument> {
        let root = self.ring(Role::Root).await?;
        let release = self.ring(Role::Release).await?;
        for (role, ring) in [(Role::Root, &root), (Role::Release, &release)] {
            if ring.keys.pairs().is_empty() {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!("there is no {} key: make or import one first", role.as_str()),
                ));
            }
        }
        let edges = self.edges().await?;
        let bundles = self.bundles().await?;
        let mut holders: BTreeMap<(BundleName, Version), Vec<NodeName>> = BTreeMap::new();
        for assignment in self.assignments().await? {
            holders.entry((assignment.bundle, assignment.version)).or_default().push(assignment.edge);
        }
        let mut assignments = Vec::new();
        let mut withdrawn = Vec::new();
        for record in bundles {
            match (record.state(), record.withdrawn) {
                (_, Some(withdrawal)) => withdrawn.push(Withdrawal {
                    bundle: record.name,
                    version: record.version,
                    digest: record.digest,
                    reason: withdrawal.reason,
                    legal: withdrawal.legal,
                    at: withdrawal.at,
                }),
                (BundleState::Signed, None) => {
                    if let Some(edges) = holders.remove(&(record.name.clone(), record.version.clone())) {
                        assignments.push(Assignment {
                            bundle: record.name,
                            version: record.version,
                            digest: record.digest,
                            edges,
                        });
                    }
                }
                _ => {}
            }
        }
        Ok(TrustDocument {
            tenant: self.profile.tenant.clone(),
            version: 1,
            issued: Timestamp::EPOCH,
            expires: Timestamp::MAX,
            root: root.to_key_set()?,
            release: release.to_key_set()?,
            edges: edges.iter().map(EdgeRecord::to_entry).collect(),
            assignments,
            withdrawn,
        })
    }

    /// Every root key that may sign and whose secret is here: the keys of the document before as
    /// well, so that edges follow when a key is added.
    async fn root_signers(&self, now: Timestamp) -> Result<Vec<SigningKey>> {
        let ring = self.ring(Role::Root).await?;
        let mut signers = Vec::new();
        for pair in ring.keys.pairs().iter().filter(|pair| pair.usable(now).is_ok()) {
            signers.extend(self.open_secret(pair)?);
        }
        if signers.is_empty() {
            return Err(Error::new(
                ErrorKind::Conflict,
                "no root key that may sign has its secret half here, so the trust document cannot be signed",
            ));
        }
        Ok(signers)
    }

    /// Refuses to publish what the edges would refuse.
    fn check_acceptable(&self, sealed: &[u8], before_envelope: Option<&[u8]>, now: Timestamp) -> Result<()> {
        let (before, own);
        let anchor = match before_envelope {
            Some(envelope) => {
                before = TrustDocument::parse_unverified(envelope)?;
                Anchor::Current(&before)
            }
            None => {
                own = TrustDocument::parse_unverified(sealed)?;
                Anchor::Pinned(&own.root)
            }
        };
        TrustDocument::accept(sealed, anchor, &self.profile.tenant, now).map(drop).map_err(|error| {
            Error::new(
                ErrorKind::Conflict,
                format!("edges would refuse the trust document that can be signed here: {error}"),
            )
        })
    }
}
