//! So many at a time.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::select_all;
use futures_util::lock::{Mutex, OwnedMutexGuard};

/// A fixed number of places for work that needs much memory.
#[derive(Debug)]
pub(super) struct Slots(Vec<Arc<Mutex<()>>>);

impl Slots {
    pub(super) fn new(count: usize) -> Slots {
        Slots((0..count.max(1)).map(|_| Arc::default()).collect())
    }

    /// A place, as soon as one is free, until it is dropped.
    pub(super) async fn take(&self) -> OwnedMutexGuard<()> {
        select_all(self.0.iter().map(|slot| slot.clone().lock_owned().boxed())).await.0
    }
}
