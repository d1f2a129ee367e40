//! A request with a link on its way: admitted, begun, ended.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fmt, mem};

use futures_util::lock::Mutex as AsyncMutex;

use super::{Links, STRIPES};
use crate::access::LinkHolder;
use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::error::Result;
use crate::link::{Budget, Cause, Claims, Denied, LinkId, LinkRequest, MAX_GRACE, Spans, VerifiedLink};
use crate::range::ByteRange;

/// A token that was found good for a request, before what it asks for was looked up.
#[derive(Debug)]
pub struct Admission {
    links: Links,
    link: VerifiedLink,
    generation: u64,
    now: Timestamp,
    download: bool,
}

impl Admission {
    pub(super) fn new(
        links: Links,
        link: VerifiedLink,
        generation: u64,
        request: &LinkRequest<'_>,
    ) -> Admission {
        Admission { links, link, generation, now: request.now, download: request.method == "GET" }
    }

    /// What was verified.
    pub fn link(&self) -> &VerifiedLink {
        &self.link
    }

    /// Who holds the link, for the decision and the log.
    pub fn holder(&self) -> LinkHolder {
        self.link.holder()
    }

    /// Begins the transfer of `ranges` (`None`: all) of an artifact of `size` bytes. When it returns,
    /// what the link's budget pays for it is reserved for good. An answer without bytes, for which
    /// there are no ranges, costs nothing.
    ///
    /// The inner error is the link's, the outer one the store's.
    pub async fn begin(
        self,
        digest: Digest,
        size: u64,
        ranges: Option<&[ByteRange]>,
    ) -> Result<Result<Transfer, Denied>> {
        if let Err(denied) = self.link.check_digest(&digest) {
            return Ok(Err(denied));
        }
        let id = self.link.claims().id;
        let download = self.download && ranges.is_none_or(|ranges| !ranges.is_empty());
        let mut reservation = None;
        if download && let Some(uses) = self.link.claims().uses {
            let asked = ranges.map(|ranges| ranges.iter().collect::<Spans>());
            match self.links.reserve(&self.link, uses, digest, size, asked.as_ref()).await? {
                Some(number) => {
                    let asked = asked.unwrap_or_else(|| Spans::of(0, size));
                    reservation = Some(Reservation { id, number, asked });
                }
                None => return Ok(Err(Denied { cause: Cause::Used, link: Some(id), detail: None })),
            }
        }
        if download {
            let near = self.link.claims().expires <= self.now.plus(MAX_GRACE);
            self.links.remember(&self.link, digest, self.now, near);
        }
        let length = ranges.map_or(size, |ranges| ranges.iter().map(ByteRange::len).sum());
        Ok(Ok(Transfer(Arc::new(Running {
            digest,
            length,
            reservation: Mutex::new(reservation),
            generation: AtomicU64::new(self.generation),
            admission: self,
        }))))
    }
}

/// A transfer that may run. Cheap to clone; it ends once, by [`ended`](Transfer::ended) or with its
/// last clone.
#[derive(Clone)]
pub struct Transfer(Arc<Running>);

struct Running {
    admission: Admission,
    digest: Digest,
    /// How many bytes were asked for.
    length: u64,
    reservation: Mutex<Option<Reservation>>,
    generation: AtomicU64,
}

struct Reservation {
    id: LinkId,
    number: u64,
    asked: Spans,
}

/// A reservation whose request is over; what was delivered, if it is known.
pub(super) struct Ended {
    pub(super) id: LinkId,
    pub(super) number: u64,
    pub(super) delivered: Option<Spans>,
}

impl Transfer {
    /// What was verified.
    pub fn link(&self) -> &VerifiedLink {
        &self.0.admission.link
    }

    /// The rate, in bytes a second.
    pub fn bps(&self) -> Option<u64> {
        self.link().bps()
    }

    /// Whether the transfer may go on: `false` once the link, its subject's or tenant's epoch, its
    /// key or its policy was revoked. Time alone does not end it. It costs one load as long as
    /// nothing was revoked.
    pub fn still_valid(&self) -> bool {
        let links = &self.0.admission.links;
        let generation = links.generation();
        if self.0.generation.load(Ordering::Relaxed) == generation {
            return true;
        }
        let valid = links.snapshot().verifier().still_valid(self.link()).is_ok();
        if valid {
            self.0.generation.store(generation, Ordering::Relaxed);
        }
        valid
    }

    /// The transfer is over after the first `bytes` bytes of its ranges. What was not delivered is
    /// given back to the budget, soon by itself, or at once by [`Links::settle`].
    pub fn ended(&self, bytes: u64) {
        let admission = &self.0.admission;
        let reservation = mem::take(&mut *self.0.reservation.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(reservation) = reservation {
            let delivered = Some(first(&reservation.asked, bytes));
            let Reservation { id, number, .. } = reservation;
            admission.links.ended().push(Ended { id, number, delivered });
        }
        if admission.download && bytes < self.0.length {
            // Whoever was cut may come back after the link's end.
            admission.links.remember(&admission.link, self.0.digest, admission.now, true);
        }
    }
}

impl fmt::Debug for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transfer").field("link", &self.link().claims().id).finish_non_exhaustive()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let reservation = self.reservation.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Reservation { id, number, .. }) = reservation {
            self.admission.links.ended().push(Ended { id, number, delivered: None });
        }
    }
}

/// The first `bytes` bytes of `spans`.
fn first(spans: &Spans, mut bytes: u64) -> Spans {
    let mut taken = Spans::new();
    for (start, end) in spans.iter() {
        let length = bytes.min(end - start);
        taken.insert(start, start + length);
        bytes -= length;
    }
    taken
}

impl Links {
    pub(super) fn stripe(&self, id: LinkId) -> &AsyncMutex<std::collections::HashMap<LinkId, Budget>> {
        // The low bits of an id are random.
        &self.0.running[(id.number() % STRIPES as u128) as usize]
    }

    /// Gives back what ended transfers did not deliver, durably.
    pub async fn settle(&self) -> Result<()> {
        let mut left: Vec<Ended> = mem::take(&mut *self.ended());
        while let Some(id) = left.last().map(|ended| ended.id) {
            let mut running = self.stripe(id).lock().await;
            let (own, others): (Vec<_>, Vec<_>) = left.into_iter().partition(|ended| ended.id == id);
            left = others;
            let Some(old) = running.get(&id) else { continue };
            let mut budget = old.clone();
            own.iter().for_each(|ended| ended.apply(&mut budget));
            if let Err(error) = self.0.budgets.write(&id.to_string(), &budget).await {
                self.ended().extend(own.into_iter().chain(left));
                return Err(error);
            }
            keep(&mut running, id, budget);
        }
        Ok(())
    }

    /// Reserves durably; `None` if there is not enough left.
    async fn reserve(
        &self,
        link: &VerifiedLink,
        uses: u32,
        digest: Digest,
        size: u64,
        asked: Option<&Spans>,
    ) -> Result<Option<u64>> {
        let Claims { id, .. } = *link.claims();
        let mut running = self.stripe(id).lock().await;
        let mut budget = match running.get(&id) {
            Some(budget) => budget.clone(),
            None => {
                let stored = self.0.budgets.read::<Budget>(&id.to_string()).await?;
                let mut budget = stored.map_or_else(Budget::new, |(budget, _)| budget);
                // Nothing of this process holds a reservation of it.
                budget.recover();
                budget
            }
        };
        let own: Vec<Ended> = {
            let mut ended = self.ended();
            let (own, others) = mem::take(&mut *ended).into_iter().partition(|ended| ended.id == id);
            *ended = others;
            own
        };
        own.iter().for_each(|ended| ended.apply(&mut budget));
        let reserved = budget.reserve(uses, digest, size, link.client(), asked).ok();
        if (reserved.is_some() || !own.is_empty())
            && let Err(error) = self.0.budgets.write(&id.to_string(), &budget).await
        {
            self.ended().extend(own);
            return Err(error);
        }
        keep(&mut running, id, budget);
        Ok(reserved)
    }

    fn remember(&self, link: &VerifiedLink, digest: Digest, now: Timestamp, near: bool) {
        if !near || link.is_graced() {
            return;
        }
        let mut grace = self.0.grace.write().unwrap_or_else(PoisonError::into_inner);
        if grace.begin(link.claims(), digest, link.client(), now) {
            self.0.grace_changed.store(true, Ordering::Release);
        }
    }
}

/// Keeps a budget in memory as long as requests hold reservations of it.
fn keep(running: &mut std::collections::HashMap<LinkId, Budget>, id: LinkId, budget: Budget) {
    if budget.is_running() {
        running.insert(id, budget);
    } else {
        running.remove(&id);
    }
}

impl Ended {
    fn apply(&self, budget: &mut Budget) {
        match &self.delivered {
            Some(delivered) => budget.settle(self.number, delivered),
            None => budget.abandon(self.number),
        }
    }
}
