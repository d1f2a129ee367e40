//! What a connection is doing, and whether it is too slow at it.
//!
//! Sockets and bodies note their progress in the [`Meter`] of their connection; the connection's
//! task looks at it a few times within each limit. Nothing is timed for each byte.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::Limits;
use crate::edge::Guard;

/// Longest silence granted for bytes that may still be in buffers on the way to the client.
const LONGEST_SILENCE: Duration = Duration::from_secs(300);

/// The progress of one connection.
#[derive(Debug)]
pub(super) struct Meter {
    /// Bytes the operating system has taken.
    written: AtomicU64,
    /// Whether it takes no more for the moment.
    blocked: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Requests under way, from the end of the head to the end of the answer.
    running: usize,
    /// Since when none is under way.
    idle_since: Instant,
    /// Whether there has been a request at all.
    served: bool,
    /// When the first byte after the last request came.
    head_since: Option<Instant>,
    /// Answers under way.
    answers: HashMap<u64, Progress>,
    /// What says whether they may go on, for those that something watches over.
    guards: HashMap<u64, Weak<Guard>>,
    next_answer: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    given: u64,
    /// Whether the edge itself, not the client, is waited for.
    waits_for_source: bool,
}

/// Why a connection is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Idle,
    SlowHead,
    SlowReader,
    /// What was permitted no longer is, and the client does not take what would tell it so.
    Revoked,
}

impl Meter {
    pub(super) fn new() -> Arc<Meter> {
        Arc::new(Meter {
            written: AtomicU64::new(0),
            blocked: AtomicBool::new(false),
            state: Mutex::new(State {
                running: 0,
                idle_since: Instant::now(),
                served: false,
                head_since: None,
                answers: HashMap::new(),
                guards: HashMap::new(),
                next_answer: 0,
            }),
        })
    }

    pub(super) fn wrote(&self, bytes: u64) {
        self.written.fetch_add(bytes, Relaxed);
        self.blocked.store(false, Relaxed);
    }

    pub(super) fn blocks(&self) {
        self.blocked.store(true, Relaxed);
    }

    pub(super) fn read_some(&self) {
        let mut state = self.state();
        if state.running == 0 && state.head_since.is_none() {
            state.head_since = Some(Instant::now());
        }
    }

    /// Notes the beginning of a request; its end is the drop of what this returns.
    pub(super) fn begin(self: &Arc<Self>) -> Running {
        let mut state = self.state();
        state.running += 1;
        state.served = true;
        state.head_since = None;
        Running(Arc::clone(self))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Running(Arc<Meter>);

impl Running {
    /// Notes that its answer is being sent: in HTTP/2 as one of several, each to be looked at. In
    /// HTTP/1 the socket tells all there is.
    pub(super) fn answer(self, http2: bool, guard: Option<&Arc<Guard>>) -> Answer {
        if !http2 && guard.is_none() {
            return Answer { running: self, number: None };
        }
        let mut state = self.0.state();
        let number = state.next_answer;
        state.next_answer += 1;
        if http2 {
            state.answers.insert(number, Progress::default());
        }
        if let Some(guard) = guard {
            state.guards.insert(number, Arc::downgrade(guard));
        }
        drop(state);
        Answer { running: self, number: Some(number) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.running = state.running.saturating_sub(1);
        if state.running == 0 {
            state.idle_since = Instant::now();
        }
    }
}

/// An answer that is being sent.
#[derive(Debug)]
pub(super) struct Answer {
    running: Running,
    number: Option<u64>,
}

impl Answer {
    pub(super) fn gave(&self, bytes: u64) {
        self.note(|progress| {
            progress.given += bytes;
            progress.waits_for_source = false;
        });
    }

    pub(super) fn waits_for_source(&self) {
        self.note(|progress| progress.waits_for_source = true);
    }

    fn note(&self, change: impl FnOnce(&mut Progress)) {
        if let Some(number) = self.number
            && let Some(progress) = self.running.0.state().answers.get_mut(&number)
        {
            change(progress);
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let mut state = self.running.0.state();
            state.answers.remove(&number);
            state.guards.remove(&number);
        }
    }
}

/// The view of a meter over time.
#[derive(Debug)]
pub(super) struct Watch {
    meter: Arc<Meter>,
    http2: bool,
    socket: Option<Stretch>,
    answers: HashMap<u64, Stretch>,
    /// Whether a guard said no at the last look.
    doubted: bool,
}

/// A stretch of time in which a client is waited for.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    since: Instant,
    /// The count of bytes at its beginning.
    from: u64,
    /// How long it may be.
    allowed: Duration,
}

impl Watch {
    pub(super) fn new(meter: Arc<Meter>, http2: bool) -> Watch {
        Watch { meter, http2, socket: None, answers: HashMap::new(), doubted: false }
    }

    /// How often to look so that no limit is overrun by more than a quarter of the shortest.
    pub(super) fn interval(limits: &Limits) -> Duration {
        let shortest = limits.header_timeout.min(limits.idle_timeout).min(limits.rate_grace);
        (shortest / 4).clamp(Duration::from_millis(5), Duration::from_secs(2))
    }

    /// Judges the connection. `pending` tells how many bytes are written and not acknowledged; it
    /// is asked only when there is a suspicion.
    pub(super) fn look(
        &mut self,
        limits: &Limits,
        now: Instant,
        pending: impl Fn() -> Option<u64>,
    ) -> Option<Verdict> {
        if self.is_reader_slow(limits, now, pending) {
            return Some(Verdict::SlowReader);
        }
        if self.is_revoked() {
            return Some(Verdict::Revoked);
        }
        let state = self.meter.state();
        if state.running > 0 {
            return None;
        }
        // HTTP/2 sends frames that are no requests, so a late head cannot be told from them; there
        // the idle time bounds both.
        let head_since = match (state.served, self.http2) {
            (false, _) => Some(state.idle_since),
            (true, false) => state.head_since,
            (true, true) => None,
        };
        if head_since.is_some_and(|since| now - since >= limits.header_timeout) {
            Some(Verdict::SlowHead)
        } else if now - state.idle_since >= limits.idle_timeout {
            Some(Verdict::Idle)
        } else {
            None
        }
    }

    /// Whether a guard says no for the second time. The first time leaves the body itself a chance
    /// to end: it is asked whenever the client takes something, and in HTTP/2 only its stream ends.
    fn is_revoked(&mut self) -> bool {
        let state = self.meter.state();
        let mut guards = state.guards.values().filter_map(Weak::upgrade);
        let doubt = guards.any(|guard| !guard.holds());
        std::mem::replace(&mut self.doubted, doubt) && doubt
    }

    fn is_reader_slow(&mut self, limits: &Limits, now: Instant, pending: impl Fn() -> Option<u64>) -> bool {
        if !self.meter.blocked.load(Relaxed) {
            self.socket = None;
            return self.http2 && self.is_stream_slow(limits, now);
        }
        let written = self.meter.written.load(Relaxed);
        let Some(stretch) = &mut self.socket else {
            let taken = written - pending().unwrap_or(0).min(written);
            self.socket = Some(Stretch { since: now, from: taken, allowed: limits.rate_grace });
            return false;
        };
        if now - stretch.since < stretch.allowed {
            return false;
        }
        // What the system has taken says little, for its buffers are large. Where it tells, what
        // the client has acknowledged counts; elsewhere the buffers get time to run empty.
        match pending() {
            Some(pending) => {
                let taken = written - pending.min(written);
                if taken.saturating_sub(stretch.from) < wanted(limits, now - stretch.since) {
                    return true;
                }
                self.socket = Some(Stretch { since: now, from: taken, allowed: limits.rate_grace });
                false
            }
            None => stretch.is_over(written, limits, now),
        }
    }

    /// Whether a stream stands still although the connection does not.
    fn is_stream_slow(&mut self, limits: &Limits, now: Instant) -> bool {
        let state = self.meter.state();
        self.answers.retain(|number, _| state.answers.contains_key(number));
        state.answers.iter().any(|(number, progress)| {
            if progress.waits_for_source {
                self.answers.remove(number);
                return false;
            }
            let fresh = Stretch { since: now, from: 0, allowed: limits.rate_grace };
            self.answers.entry(*number).or_insert(fresh).is_over(progress.given, limits, now)
        })
    }
}

impl Stretch {
    /// Whether nothing has moved for longer than allowed. After a move of many bytes a long
    /// silence is allowed: they may be on their way to a client that takes the minimum rate.
    fn is_over(&mut self, bytes: u64, limits: &Limits, now: Instant) -> bool {
        let moved = bytes.saturating_sub(self.from);
        if moved == 0 {
            return now - self.since >= self.allowed;
        }
        let drains = Duration::from_secs(moved / limits.minimum_rate.max(1)).min(LONGEST_SILENCE);
        *self = Stretch { since: now, from: bytes, allowed: limits.rate_grace.max(drains) };
        false
    }
}

fn wanted(limits: &Limits, time: Duration) -> u64 {
    u64::try_from(u128::from(limits.minimum_rate) * time.as_millis() / 1000).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits::default()
    }

    #[test]
    fn a_head_and_an_idle_connection_have_their_own_limits() {
        let meter = Meter::new();
        let mut watch = Watch::new(Arc::clone(&meter), false);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(watch.look(&limits(), at(9), || None), None);
        assert_eq!(watch.look(&limits(), at(11), || None), Some(Verdict::SlowHead));
        let running = meter.begin();
        assert_eq!(watch.look(&limits(), at(1000), || None), None);
        drop(running);
        assert_eq!(watch.look(&limits(), at(60), || None), None);
        assert_eq!(watch.look(&limits(), at(80), || None), Some(Verdict::Idle));
        meter.read_some();
        assert_eq!(watch.look(&limits(), at(20), || None), Some(Verdict::SlowHead));
    }

    #[test]
    fn a_reader_is_judged_by_what_it_acknowledged() {
        let meter = Meter::new();
        let mut watch = Watch::new(Arc::clone(&meter), false);
        let _running = meter.begin();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        meter.wrote(1_000_000);
        meter.blocks();
        assert_eq!(watch.look(&limits(), at(0), || Some(900_000)), None);
        assert_eq!(watch.look(&limits(), at(21), || Some(800_000)), None);
        assert_eq!(watch.look(&limits(), at(42), || Some(799_000)), Some(Verdict::SlowReader));
        // Where the system does not tell, a full buffer gets time, but not for ever.
        let mut watch = Watch::new(Arc::clone(&meter), false);
        assert_eq!(watch.look(&limits(), at(0), || None), None);
        meter.wrote(1_000_000);
        meter.blocks();
        assert_eq!(watch.look(&limits(), at(21), || None), None);
        assert_eq!(watch.look(&limits(), at(300), || None), None);
        assert_eq!(watch.look(&limits(), at(330), || None), Some(Verdict::SlowReader));
    }

    #[test]
    fn what_is_revoked_is_cut_even_if_nobody_reads() {
        let meter = Meter::new();
        let mut watch = Watch::new(Arc::clone(&meter), false);
        let holds = Arc::new(AtomicBool::new(true));
        let asked = Arc::clone(&holds);
        let guard = Arc::new(Guard::new(move || asked.load(Relaxed)));
        let answer = meter.begin().answer(false, Some(&guard));
        let now = Instant::now();
        assert_eq!(watch.look(&limits(), now, || None), None);
        holds.store(false, Relaxed);
        assert_eq!(watch.look(&limits(), now, || None), None, "the body may end by itself");
        assert_eq!(watch.look(&limits(), now, || None), Some(Verdict::Revoked));
        drop(answer);
        assert_eq!(watch.look(&limits(), now, || None), None);
        assert_eq!(watch.look(&limits(), now, || None), None);
    }

    #[test]
    fn a_stream_that_stands_still_is_found() {
        let meter = Meter::new();
        let mut watch = Watch::new(Arc::clone(&meter), true);
        let answer = meter.begin().answer(true, None);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        answer.gave(100);
        assert_eq!(watch.look(&limits(), at(0), || None), None);
        answer.waits_for_source();
        assert_eq!(watch.look(&limits(), at(100), || None), None);
        answer.gave(100);
        assert_eq!(watch.look(&limits(), at(101), || None), None);
        assert_eq!(watch.look(&limits(), at(110), || None), None);
        assert_eq!(watch.look(&limits(), at(130), || None), Some(Verdict::SlowReader));
    }
}
