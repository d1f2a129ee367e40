//! How often a link may still be used: `n` downloads, counted by the bytes that were delivered.
//!
//! A download is a *slot*: one artifact, one client. It holds the bytes that were delivered and
//! those that running requests have reserved, and it is open until every byte was delivered; then
//! it is one use. The bytes of all slots together never exceed `n` times the size. In an open slot
//! what was delivered may be asked for again, for a client that lost it on the way; what a running
//! request has reserved is nobody else's. After a crash the reservations of the requests that died
//! are *unconfirmed*: paid, and free once for the client that had paid.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Spans;
use crate::digest::Digest;

/// What one slot may move in all, repeats included, as a multiple of the artifact's size.
pub const REPEATS: u64 = 4;
/// Most spans of one request or one slot.
const PIECES: usize = 1_024;
/// Most open slots of a link; beyond it the oldest idle one is closed as far as it got.
const SLOTS: usize = 1_024;

/// There is not enough left for the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted;

/// The uses of one link. It is stored as it is serialised.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Downloads that were delivered to the last byte.
    closed: u64,
    /// Open downloads, oldest first.
    slots: Vec<Slot>,
    /// What open downloads had got when they were given up to make room.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    given_up: Vec<GivenUp>,
    /// The next reservation's number.
    next: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Slot {
    digest: Digest,
    size: u64,
    client: Option<IpAddr>,
    delivered: Spans,
    /// Paid by a request that died with the process.
    unconfirmed: Spans,
    reservations: Vec<Reservation>,
    /// Bytes that were delivered in all, repeats included.
    moved: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reservation {
    id: u64,
    /// Everything that was asked for.
    asked: Spans,
    /// What of it is paid by this request.
    fresh: Spans,
    /// What of it was unconfirmed.
    revived: Spans,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenUp {
    digest: Digest,
    size: u64,
    bytes: u64,
}

/// What was used of a link so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Downloads that were delivered to the last byte.
    pub completed: u64,
    /// Downloads that began and may go on.
    pub open: u64,
    /// Bytes of those that were delivered, each counted once.
    pub delivered: u64,
    /// Bytes that running requests have reserved.
    pub reserved: u64,
}

/// An empty artifact is taken for one byte long: its download is a use all the same.
fn length(size: u64) -> u64 {
    size.max(1)
}

impl Slot {
    /// Bytes that nobody else can have.
    fn held(&self) -> u64 {
        let reserved = |one: &Reservation| one.fresh.len() + one.revived.len();
        self.delivered.len() + self.unconfirmed.len() + self.reservations.iter().map(reserved).sum::<u64>()
    }

    fn is_complete(&self) -> bool {
        self.delivered.len() == length(self.size)
    }

    /// What a request for `asked` would pay here: what is new, and what was paid before a crash.
    /// `None` if it does not fit in.
    fn price(&self, asked: &Spans) -> Option<(Spans, Spans)> {
        let taken = |one: &Reservation| {
            !one.fresh.intersection(asked).is_empty() || !one.revived.intersection(asked).is_empty()
        };
        if self.is_complete() || self.reservations.iter().any(taken) {
            return None;
        }
        let running: u64 = self.reservations.iter().map(|one| one.asked.len()).sum();
        let most = length(self.size).saturating_mul(REPEATS);
        let all = self.moved.saturating_add(running).saturating_add(asked.len());
        if all > most || self.delivered.pieces() + self.reservations.len() > PIECES {
            return None;
        }
        let revived = asked.intersection(&self.unconfirmed);
        Some((asked.difference(&self.delivered).difference(&revived), revived))
    }
}

impl Budget {
    /// Nothing was used.
    pub fn new() -> Budget {
        Budget::default()
    }

    /// Reserves what a request asks for (`None`: all of it) of an artifact of `size` bytes, for a
    /// link of `uses` downloads. The answer names the reservation until it is
    /// [settled](Budget::settle).
    ///
    /// # Errors
    /// [`Exhausted`] if it is more than what is left, or if the slot moved [`REPEATS`] times the
    /// size already; nothing changes then.
    pub fn reserve(
        &mut self,
        uses: u32,
        digest: Digest,
        size: u64,
        client: Option<IpAddr>,
        asked: Option<&Spans>,
    ) -> Result<u64, Exhausted> {
        let whole = Spans::of(0, length(size));
        let asked = match asked {
            Some(asked) if size > 0 => asked.intersection(&whole),
            _ => whole,
        };
        if asked.is_empty() || asked.pieces() > PIECES {
            return Err(Exhausted);
        }
        let own = |slot: &Slot| slot.digest == digest && slot.size == size && slot.client == client;
        // The slot in which it costs least; none is as good as an empty one.
        let best = self
            .slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| own(slot))
            .filter_map(|(at, slot)| slot.price(&asked).map(|(fresh, revived)| (at, fresh, revived)))
            .min_by_key(|(_, fresh, _)| fresh.len());
        let (at, fresh, revived) = match best {
            Some((at, fresh, revived)) => (Some(at), fresh, revived),
            None => (None, asked.clone(), Spans::new()),
        };
        if u128::from(fresh.len()) > self.left(uses, &digest, size) {
            return Err(Exhausted);
        }
        let at = match at {
            Some(at) => at,
            None => {
                self.make_room();
                let (delivered, unconfirmed) = (Spans::new(), Spans::new());
                let reservations = Vec::new();
                self.slots.push(Slot {
                    digest,
                    size,
                    client,
                    delivered,
                    unconfirmed,
                    reservations,
                    moved: 0,
                });
                self.slots.len() - 1
            }
        };
        let id = self.next;
        self.next += 1;
        let slot = &mut self.slots[at];
        slot.unconfirmed = slot.unconfirmed.difference(&revived);
        slot.reservations.push(Reservation { id, asked, fresh, revived });
        Ok(id)
    }

    /// Ends a reservation, of which `delivered` left this machine. The rest is given back. Settling
    /// what is settled changes nothing.
    pub fn settle(&mut self, id: u64, delivered: &Spans) {
        let found = self.slots.iter().enumerate().find_map(|(at, slot)| {
            slot.reservations.iter().position(|one| one.id == id).map(|index| (at, index))
        });
        let Some((at, index)) = found else { return };
        let slot = &mut self.slots[at];
        let one = slot.reservations.remove(index);
        // An empty artifact has no byte to deliver; its one byte is delivered with the answer.
        let got = if slot.size == 0 { one.asked.clone() } else { one.asked.intersection(delivered) };
        slot.moved = slot.moved.saturating_add(got.len());
        slot.delivered = slot.delivered.union(&got);
        slot.unconfirmed = slot.unconfirmed.union(&one.revived).difference(&slot.delivered);
        self.tidy();
    }

    /// Ends a reservation of which nobody knows how much was delivered: it stays paid, and is free
    /// once for the same client.
    pub fn abandon(&mut self, id: u64) {
        for slot in &mut self.slots {
            if let Some(index) = slot.reservations.iter().position(|one| one.id == id) {
                let one = slot.reservations.remove(index);
                slot.unconfirmed = slot.unconfirmed.union(&one.fresh).union(&one.revived);
            }
        }
        self.tidy();
    }

    /// What a start makes of a stored budget: the requests that held reservations are dead, and how
    /// much of them was delivered nobody knows.
    pub fn recover(&mut self) {
        for slot in &mut self.slots {
            for one in std::mem::take(&mut slot.reservations) {
                slot.unconfirmed = slot.unconfirmed.union(&one.fresh).union(&one.revived);
            }
        }
        self.tidy();
    }

    /// Closes idle slots whose last byte was delivered, and drops those that hold nothing.
    fn tidy(&mut self) {
        let complete = |slot: &Slot| slot.reservations.is_empty() && slot.is_complete();
        let before = self.slots.len();
        self.slots.retain(|slot| !complete(slot));
        self.closed += (before - self.slots.len()) as u64;
        self.slots.retain(|slot| slot.held() > 0 || !slot.reservations.is_empty());
    }

    /// Whether requests hold reservations.
    pub fn is_running(&self) -> bool {
        self.slots.iter().any(|slot| !slot.reservations.is_empty())
    }

    /// What was used so far.
    pub fn usage(&self) -> Usage {
        let reserved = |slot: &Slot| slot.held() - slot.delivered.len();
        Usage {
            completed: self.closed,
            open: self.slots.len() as u64,
            delivered: self.slots.iter().map(|slot| slot.delivered.len()).sum(),
            reserved: self.slots.iter().map(reserved).sum(),
        }
    }

    /// Bytes of this artifact that nobody has or holds. Downloads of what the name meant before
    /// count as whole ones.
    fn left(&self, uses: u32, digest: &Digest, size: u64) -> u128 {
        let (mut whole, mut bytes) = (u128::from(self.closed), 0);
        for slot in &self.slots {
            if slot.digest == *digest { bytes += u128::from(slot.held()) } else { whole += 1 }
        }
        for gone in &self.given_up {
            if gone.digest == *digest {
                bytes += u128::from(gone.bytes);
            } else {
                whole += u128::from(gone.bytes.div_ceil(length(gone.size)));
            }
        }
        (u128::from(uses).saturating_sub(whole) * u128::from(length(size))).saturating_sub(bytes)
    }

    /// Gives up the oldest slot that is idle, if there are as many as may be.
    fn make_room(&mut self) {
        if self.slots.len() < SLOTS {
            return;
        }
        let Some(at) = self.slots.iter().position(|slot| slot.reservations.is_empty()) else { return };
        let slot = self.slots.remove(at);
        let bytes = slot.held();
        match self.given_up.iter_mut().find(|gone| gone.digest == slot.digest) {
            Some(gone) => gone.bytes = gone.bytes.saturating_add(bytes),
            None => self.given_up.push(GivenUp { digest: slot.digest, size: slot.size, bytes }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: u64 = 100;

    fn address(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([203, 0, 113, last]))
    }

    fn ask(budget: &mut Budget, uses: u32, client: u8, range: Option<(u64, u64)>) -> Result<u64, Exhausted> {
        let spans = range.map(|(start, end)| Spans::of(start, end));
        budget.reserve(uses, Digest::of(b"a"), SIZE, address(client), spans.as_ref())
    }

    #[test]
    fn one_of_a_hundred_parallel_downloads_wins() {
        let mut budget = Budget::new();
        let won = (0..100).filter_map(|_| ask(&mut budget, 1, 7, None).ok()).collect::<Vec<_>>();
        assert_eq!(won.len(), 1);
        budget.settle(won[0], &Spans::of(0, SIZE));
        assert_eq!(ask(&mut budget, 1, 7, None), Err(Exhausted));
        assert_eq!(ask(&mut budget, 1, 7, Some((99, 100))), Err(Exhausted), "the download is over");
        assert_eq!(budget.usage(), Usage { completed: 1, ..Usage::default() });
        // Two uses: two of the hundred, in slots of their own.
        let mut budget = Budget::new();
        let won = (0..100).filter_map(|_| ask(&mut budget, 2, 7, None).ok()).collect::<Vec<_>>();
        assert_eq!(won.len(), 2);
        budget.settle(won[0], &Spans::of(0, SIZE));
        budget.settle(won[1], &Spans::of(0, SIZE));
        assert_eq!(ask(&mut budget, 2, 7, None), Err(Exhausted));
    }

    #[test]
    fn a_cut_download_goes_on_without_paying_again() {
        let mut budget = Budget::new();
        let id = ask(&mut budget, 1, 7, None).unwrap();
        budget.settle(id, &Spans::of(0, 40));
        assert_eq!(ask(&mut budget, 1, 8, None), Err(Exhausted), "40 bytes are gone for everybody else");
        let id = ask(&mut budget, 1, 7, Some((38, 100))).unwrap();
        assert_eq!(ask(&mut budget, 1, 7, Some((60, 61))), Err(Exhausted), "it is reserved");
        let again = ask(&mut budget, 1, 7, Some((0, 10))).unwrap();
        budget.settle(id, &Spans::of(38, 100));
        budget.settle(again, &Spans::of(0, 10));
        assert_eq!(budget.usage(), Usage { completed: 1, ..Usage::default() });
        assert_eq!(ask(&mut budget, 1, 7, Some((0, 1))), Err(Exhausted));
    }

    #[test]
    fn a_crash_neither_charges_twice_nor_gives_to_others() {
        let mut budget = Budget::new();
        let id = ask(&mut budget, 1, 7, Some((0, 50))).unwrap();
        budget.settle(id, &Spans::of(0, 50));
        ask(&mut budget, 1, 7, Some((50, 100))).unwrap();
        let stored = serde_json::to_string(&budget).unwrap();
        let mut budget: Budget = serde_json::from_str(&stored).unwrap();
        budget.recover();
        assert!(!budget.is_running());
        assert_eq!(ask(&mut budget, 1, 8, None), Err(Exhausted));
        assert_eq!(ask(&mut budget, 1, 8, Some((50, 51))), Err(Exhausted));
        let id = ask(&mut budget, 1, 7, Some((50, 100))).unwrap();
        assert_eq!(ask(&mut budget, 1, 7, Some((60, 61))), Err(Exhausted), "free once, not twice at a time");
        // Cut again: what was paid before the crash stays paid, for the same client alone.
        budget.settle(id, &Spans::of(50, 60));
        assert_eq!(ask(&mut budget, 1, 8, Some((60, 61))), Err(Exhausted));
        let id = ask(&mut budget, 1, 7, Some((60, 100))).unwrap();
        budget.settle(id, &Spans::of(60, 100));
        assert_eq!(budget.usage().completed, 1);
        assert_eq!(ask(&mut budget, 1, 7, None), Err(Exhausted));
    }

    #[test]
    fn repeats_are_bounded() {
        let mut budget = Budget::new();
        let id = ask(&mut budget, 1, 7, Some((0, 90))).unwrap();
        budget.settle(id, &Spans::of(0, 90));
        let mut moved = 90;
        while let Ok(id) = ask(&mut budget, 1, 7, Some((0, 90))) {
            budget.settle(id, &Spans::of(0, 90));
            moved += 90;
        }
        assert_eq!(moved, 360, "four times the size at most");
    }

    #[test]
    fn other_bytes_under_the_same_name_are_not_another_budget() {
        let mut budget = Budget::new();
        let id = ask(&mut budget, 2, 7, None).unwrap();
        budget.settle(id, &Spans::of(0, 1));
        let mut other = |client| budget.reserve(2, Digest::of(b"b"), 1 << 30, address(client), None);
        assert!(other(8).is_ok());
        assert_eq!(other(9), Err(Exhausted));
    }

    #[test]
    fn an_empty_artifact_is_used_up_too() {
        let mut budget = Budget::new();
        let mut get = || {
            let id = budget.reserve(2, Digest::of(b""), 0, None, None)?;
            budget.settle(id, &Spans::new());
            Ok::<(), Exhausted>(())
        };
        assert_eq!((get(), get(), get()), (Ok(()), Ok(()), Err(Exhausted)));
    }

    #[test]
    fn many_clients_that_stop_early_do_not_fill_the_record() {
        let mut budget = Budget::new();
        let mut granted = 0_u64;
        for client in 0..3 * SLOTS as u64 {
            let address = Some(IpAddr::from(u128::from(client).to_be_bytes()));
            let Ok(id) = budget.reserve(100, Digest::of(b"a"), SIZE, address, Some(&Spans::of(0, 4))) else {
                break;
            };
            budget.settle(id, &Spans::of(0, 4));
            granted += 4;
        }
        assert_eq!(granted, 100 * SIZE);
        assert!(budget.slots.len() <= SLOTS);
    }

    proptest! {
        /// Whatever clients ask, cut and crash: new bytes never exceed `n` times the size.
        #[test]
        fn no_order_of_events_gives_more_than_was_bought(
            uses in 1_u32..4,
            steps in proptest::collection::vec((0_u8..8, 0_u8..3, 0_u64..SIZE, 1_u64..=SIZE, 0_u64..=SIZE), 1..80),
        ) {
            let mut budget = Budget::new();
            let mut running: Vec<(u64, u64, u64)> = Vec::new();
            for (what, client, start, length, sent) in steps {
                match what {
                    0..=3 => {
                        let end = (start + length).min(SIZE);
                        if let Ok(id) = ask(&mut budget, uses, client, Some((start, end))) {
                            running.push((id, start, end));
                        }
                    }
                    4..=6 if !running.is_empty() => {
                        let (id, start, end) = running.remove(start as usize % running.len());
                        budget.settle(id, &Spans::of(start, end.min(start + sent)));
                    }
                    7 => {
                        let text = serde_json::to_string(&budget).unwrap();
                        budget = serde_json::from_str(&text).unwrap();
                        budget.recover();
                        running.clear();
                    }
                    _ => {}
                }
                let usage = budget.usage();
                let held = usage.completed * SIZE + usage.delivered + usage.reserved;
                prop_assert!(held <= u64::from(uses) * SIZE, "{:?}", usage);
            }
        }
    }
}
