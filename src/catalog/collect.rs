//! Which blobs are in use, counted per digest, so that a collector and a receiver that meet over
//! one blob settle it with one conditional commit and without a lock.
//!
//! A digest's claim counts the bundles that need it. A collector may mark a digest that nobody
//! claims as *being collected*; while the mark stands, nobody can claim it. So a blob is either
//! claimed before the mark (the mark's commit fails) or after the collector is done (the receiver
//! sees that the blob is missing and asks for it).

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Catalog, encode};
use crate::blocking::after_step;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::meta::{Batch, Expectation};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claim {
    /// How many bundles need the blob; 0 while it is being collected.
    n: u64,
    /// The blob's size in bytes.
    s: u64,
}

impl Catalog {
    /// The size of a blob that some bundle, prepared or committed here, needs.
    pub async fn claimed_size(&self, digest: &Digest) -> Result<Option<u64>> {
        let claim = self.read::<Claim>(&self.claim_key(digest)).await?;
        Ok(claim.filter(|(claim, _)| claim.n > 0).map(|(claim, _)| claim.s))
    }

    /// Adds to `batch` one claim more (`1`) or fewer (`-1`) on each digest; `false` if one of them
    /// is being collected just now.
    pub(super) async fn claim(
        &self,
        batch: &mut Batch,
        blobs: &BTreeMap<Digest, u64>,
        step: i64,
    ) -> Result<bool> {
        for (index, (digest, size)) in blobs.iter().enumerate() {
            after_step(index).await;
            let key = self.claim_key(digest);
            let old = self.read::<Claim>(&key).await?;
            let count = match &old {
                Some((claim, _)) if claim.n == 0 => return Ok(false),
                Some((claim, _)) if claim.s != *size => return Err(other_size(digest, claim.s, *size)),
                Some((claim, _)) => claim.n,
                None => 0,
            };
            batch.expect_unchanged(key.clone(), old.as_ref().map(|(_, entry)| entry));
            match count.saturating_add_signed(step) {
                0 => batch.delete(key),
                n => batch.put(key, encode(&Claim { n, s: *size })?),
            };
        }
        Ok(true)
    }

    /// Marks those of `digests` that nobody needs as being collected, and answers which they are.
    /// Remove their blobs, then call [`end_collection`](Catalog::end_collection).
    pub async fn begin_collection(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        self.retry(|| async {
            let (mut free, mut batch) = (Vec::new(), Batch::new());
            for digest in digests {
                let key = self.claim_key(digest);
                if self.store.get(&key).await?.is_none() {
                    batch.expect(key.clone(), Expectation::Absent);
                    batch.put(key, encode(&Claim { n: 0, s: 0 })?).put(self.mark_key(digest), Bytes::new());
                    free.push(*digest);
                }
            }
            if free.is_empty() {
                return Ok(Some(free));
            }
            Ok(self.commit(batch).await?.map(|_| free))
        })
        .await
    }

    /// Takes the marks away, after the blobs were removed.
    pub async fn end_collection(&self, digests: &[Digest]) -> Result<()> {
        if digests.is_empty() {
            return Ok(());
        }
        self.retry(|| async {
            let mut batch = Batch::new();
            for digest in digests {
                let key = self.claim_key(digest);
                // A claim that was made since is not taken away, whoever comes late.
                let mark = self.read::<Claim>(&key).await?.filter(|(claim, _)| claim.n == 0);
                if let Some((_, entry)) = mark {
                    batch.expect_unchanged(key.clone(), Some(&entry)).delete(key);
                }
                batch.delete(self.mark_key(digest)).delete(self.shown_key(digest));
            }
            Ok(self.commit(batch).await?.map(drop))
        })
        .await
    }

    /// Digests whose collection began and did not end: a crash came between. Finish them first.
    pub async fn unfinished_collections(&self) -> Result<Vec<Digest>> {
        let marks = self.scan_all(&self.key("y", &[""])).await?;
        marks.iter().map(|entry| Digest::from_hex(super::last_part(&entry.key)?)).collect()
    }

    /// Notes that this tenant has shown all bytes of a blob, in a blob store that others use as well.
    pub async fn note_shown(&self, digest: &Digest) -> Result<()> {
        let mut batch = Batch::new();
        batch.put(self.shown_key(digest), Bytes::new());
        self.store.commit(batch).await.map(drop)
    }

    /// Whether this tenant has once shown all bytes of a blob.
    pub async fn has_shown(&self, digest: &Digest) -> Result<bool> {
        Ok(self.store.get(&self.shown_key(digest)).await?.is_some())
    }

    // Claims are counted over all tenants of a store: the blobs are shared, the names are not.
    fn claim_key(&self, digest: &Digest) -> Bytes {
        format!("x\0{}", digest.to_hex()).into()
    }

    fn mark_key(&self, digest: &Digest) -> Bytes {
        self.key("y", &[&digest.to_hex()])
    }

    fn shown_key(&self, digest: &Digest) -> Bytes {
        self.key("z", &[&digest.to_hex()])
    }
}

#[cold]
fn other_size(digest: &Digest, known: u64, claimed: u64) -> Error {
    let message = format!("{digest} has {known} bytes in another bundle, {claimed} bytes in this one");
    Error::new(ErrorKind::Conflict, message)
}
