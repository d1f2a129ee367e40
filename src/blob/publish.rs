//! The last step of every upload: the rename that makes a blob visible, and the directory sync that
//! makes the name last.
//!
//! One thread leads at a time. It takes every upload that waits, renames them all and syncs each
//! directory once, so uploads that finish together pay for one sync (group commit). While a name is
//! not synced, or when its sync has failed, the blob is *hidden*: readers do not see it, because a
//! reader might build on it what a crash then leaves without ground.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::BlobInfo;
use super::vfs::Vfs;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};

/// A written and synced file that is to become a blob.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) info: BlobInfo,
    pub(super) from: PathBuf,
    pub(super) to: PathBuf,
    pub(super) dir: PathBuf,
}

#[derive(Debug, Default)]
pub(super) struct Publisher {
    queue: Mutex<Queue>,
    turn: Condvar,
    hidden: Mutex<HashSet<Digest>>,
    failed_syncs: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    led: bool,
    tickets: u64,
    waiting: Vec<(u64, Upload)>,
    done: HashMap<u64, Result<()>>,
}

impl Publisher {
    /// Whether readers must not see this blob. Ask *after* the file was found: the name is hidden
    /// before it appears and shown after it is durable, so a file found and then not hidden is durable.
    pub(super) fn is_hidden(&self, digest: &Digest) -> bool {
        self.hidden().contains(digest)
    }

    /// How many syncs have failed since the store was opened.
    pub(super) fn failed_syncs(&self) -> u64 {
        self.failed_syncs.load(Ordering::Relaxed)
    }

    pub(super) fn count_failed_sync(&self) {
        self.failed_syncs.fetch_add(1, Ordering::Relaxed);
    }

    /// Makes one upload durable and visible, together with all that wait.
    pub(super) fn publish(&self, vfs: &impl Vfs, upload: Upload) -> Result<()> {
        let mut queue = self.queue();
        queue.tickets += 1;
        let ticket = queue.tickets;
        queue.waiting.push((ticket, upload));
        loop {
            if let Some(result) = queue.done.remove(&ticket) {
                return result;
            }
            if queue.led {
                queue = self.turn.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            queue.led = true;
            let batch = std::mem::take(&mut queue.waiting);
            drop(queue);
            let done = {
                let _lead = Lead(self);
                self.publish_all(vfs, batch)
            };
            queue = self.queue();
            queue.done.extend(done);
            self.turn.notify_all();
        }
    }

    /// Runs `work` while no name is being published.
    pub(super) fn exclusively<T>(&self, work: impl FnOnce() -> T) -> T {
        let mut queue = self.queue();
        while queue.led {
            queue = self.turn.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.led = true;
        drop(queue);
        let _lead = Lead(self);
        work()
    }

    fn publish_all(&self, vfs: &impl Vfs, batch: Vec<(u64, Upload)>) -> Vec<(u64, Result<()>)> {
        let mut done = Vec::with_capacity(batch.len());
        let mut renamed: BTreeMap<PathBuf, Vec<(u64, Upload)>> = BTreeMap::new();
        let mut twins: Vec<(u64, Upload)> = Vec::new();
        let mut stored: HashMap<Digest, bool> = HashMap::new();
        for (ticket, upload) in batch {
            let digest = upload.info.digest;
            if stored.insert(digest, false).is_some() {
                twins.push((ticket, upload));
                continue;
            }
            // A blob of another size under this name is damaged: the upload replaces it.
            let there = vfs.stat(&upload.to).is_ok_and(|stat| stat.size == upload.info.size);
            if there && !self.is_hidden(&digest) {
                drop_file(vfs, &upload);
                stored.insert(digest, true);
                done.push((ticket, Ok(())));
                continue;
            }
            let was_hidden = !self.hidden().insert(digest);
            match vfs.rename(&upload.from, &upload.to) {
                Ok(()) => renamed.entry(upload.dir.clone()).or_default().push((ticket, upload)),
                Err(cause) => {
                    if !was_hidden {
                        self.hidden().remove(&digest);
                    }
                    let what = format!("renaming {} to {}", upload.from.display(), upload.to.display());
                    done.push((ticket, Err(Error::io(what, cause))));
                }
            }
        }
        for (dir, uploads) in renamed {
            let synced = vfs.sync_dir(&dir);
            if synced.is_err() {
                self.count_failed_sync();
            }
            for (ticket, upload) in uploads {
                done.push((
                    ticket,
                    match &synced {
                        Ok(()) => {
                            self.hidden().remove(&upload.info.digest);
                            stored.insert(upload.info.digest, true);
                            Ok(())
                        }
                        Err(cause) => {
                            // Whether the name lasts is unknown, and a later sync would not tell. The
                            // blob stays hidden until an upload of it goes through.
                            let _ = vfs.remove(&upload.to);
                            let cause = std::io::Error::new(cause.kind(), cause.to_string());
                            Err(Error::io(format_args!("syncing directory {}", dir.display()), cause))
                        }
                    },
                ));
            }
        }
        for (ticket, twin) in twins {
            drop_file(vfs, &twin);
            let stored = stored.get(&twin.info.digest).copied().unwrap_or_default();
            done.push((ticket, if stored { Ok(()) } else { Err(twin_failed(&twin)) }));
        }
        done
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hidden(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.hidden.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the leader's turn, also when it panics.
struct Lead<'a>(&'a Publisher);

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        self.0.queue().led = false;
        self.0.turn.notify_all();
    }
}

/// Removes the file of an upload that is not needed; one that stays is removed at the next start.
fn drop_file(vfs: &impl Vfs, upload: &Upload) {
    if let Err(error) = vfs.remove(&upload.from) {
        tracing::warn!(path = %upload.from.display(), %error, "a file of a finished upload stays behind");
    }
}

#[cold]
fn twin_failed(twin: &Upload) -> Error {
    Error::new(
        ErrorKind::Io,
        format!("blob {} was uploaded twice at once, and storing it failed", twin.info.digest),
    )
}
