//! Blobs that nobody needs, and blobs that are not what they were.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::StreamExt as _;
use tracing::info;

use super::receive::Receiver;
use crate::blob::BlobStoreExt as _;
use crate::blocking;
use crate::catalog::BundleState;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};

/// An offered bundle whose blobs have not all come after this many seconds is given up.
const PREPARED_FOR: i64 = 7 * 24 * 3600;

/// Blobs that one commit marks.
const BATCH: usize = 128;

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct GarbageReport {
    /// Blobs looked at.
    pub seen: u64,
    /// Blobs removed.
    pub removed: u64,
    /// Bytes freed, those of given-up uploads included.
    pub freed: u64,
    /// Offered bundles given up, because they were not completed in time.
    pub abandoned: u64,
}

/// What a scrub found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ScrubReport {
    /// Blobs read and hashed.
    pub checked: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs that were damaged and set aside.
    pub damaged: u64,
}

/// The right to be the one collection.
struct Turn<'a>(&'a AtomicBool);

impl Turn<'_> {
    fn take(collecting: &AtomicBool) -> Result<Turn<'_>> {
        if collecting.swap(true, Ordering::AcqRel) {
            return Err(Error::new(ErrorKind::Conflict, "a garbage collection is under way already"));
        }
        Ok(Turn(collecting))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Receiver {
    /// Removes blobs that no bundle here needs. It runs beside uploads and downloads, takes no
    /// lock, and can be cut off at any point: what it began is finished at the next start.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] while another collection of this receiver runs: it would take the
    /// other one's marks for those of a crash, and free a blob that the other then removes.
    pub async fn collect_garbage(&self) -> Result<GarbageReport> {
        let _turn = Turn::take(&self.collecting)?;
        let mut report = GarbageReport::default();
        self.finish_collections().await?;
        let mut awaited = BTreeSet::new();
        for record in self.catalog.bundles().await? {
            let now = self.now();
            let limit = now.plus(-PREPARED_FOR);
            if record.state == BundleState::Prepared
                && record.offered < limit
                && self.catalog.abandon(&record.name, &record.version, limit, now).await?
            {
                report.abandoned += 1;
            } else if record.holds_blobs {
                let statement = self.statement(&record.name, &record.version).await?;
                awaited.extend(self.missing(&statement).await?.into_iter().map(|want| want.digest));
            }
        }
        let mut blobs = self.blobs.list().chunks(BATCH);
        while let Some(batch) = blobs.next().await {
            let batch = batch.into_iter().collect::<Result<Vec<_>>>()?;
            report.seen += batch.len() as u64;
            let digests: Vec<Digest> = batch.iter().map(|info| info.digest).collect();
            let free = self.catalog.begin_collection(&digests).await?;
            for info in batch.iter().filter(|info| free.contains(&info.digest)) {
                if self.blobs.remove(&info.digest).await? {
                    report.removed += 1;
                    report.freed += info.size;
                }
            }
            self.catalog.end_collection(&free).await?;
            blocking::give_way().await;
        }
        if let Some(resumable) = self.blobs.as_resumable() {
            report.freed += resumable.discard(&|digest: &Digest| awaited.contains(digest)).await?;
        }
        #[cfg(feature = "delta")]
        {
            report.freed += self.discard_sections(awaited).await?;
        }
        if report.removed > 0 || report.abandoned > 0 {
            info!(?report, "garbage collected");
        }
        Ok(report)
    }

    /// Reads every blob, and sets aside those whose bytes are not what their name says.
    pub async fn scrub(&self) -> Result<ScrubReport> {
        let mut report = ScrubReport::default();
        let mut blobs = self.blobs.list();
        while let Some(info) = blobs.next().await {
            let info = info?;
            let Some(damaged) = self.check_blob(&info.digest).await? else { continue };
            report.checked += 1;
            report.bytes += info.size;
            report.damaged += u64::from(damaged);
        }
        Ok(report)
    }

    /// Reads a blob, and sets it aside if its bytes are not what its name says: `true`. `None` if it is
    /// not here.
    pub(super) async fn check_blob(&self, digest: &Digest) -> Result<Option<bool>> {
        let Some(blob) = self.blobs.open(digest, None).await? else { return Ok(None) };
        if self.blobs.verify(digest).await? != Some(false) {
            return Ok(Some(false));
        }
        let error = Error::new(ErrorKind::Corrupted, "its bytes do not have its digest any more");
        let aside = match self.blobs.as_quarantine() {
            Some(quarantine) => quarantine.quarantine(digest, blob.stamp).await?,
            None => self.blobs.remove(digest).await?,
        };
        if aside {
            self.note("blob.damaged", &digest.to_string(), &error).await?;
        }
        Ok(Some(aside))
    }

    /// Finishes a collection that its caller gave up half way, unless one is under way.
    pub(super) async fn finish_abandoned_collection(&self) -> Result<()> {
        match Turn::take(&self.collecting) {
            Ok(_turn) => self.finish_collections().await,
            Err(_) => Ok(()),
        }
    }

    pub(super) async fn finish_collections(&self) -> Result<()> {
        let unfinished = self.catalog.unfinished_collections().await?;
        for digest in &unfinished {
            self.blobs.remove(digest).await?;
        }
        self.catalog.end_collection(&unfinished).await
    }
}
