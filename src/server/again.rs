//! Polls a future again when it woke itself, without a turn through the scheduler.
//!
//! hyper hands a request's body from the reading half of a connection's task to the handler in the
//! same task, and wakes that task for every piece. To the scheduler that is a task that gives way:
//! it goes to the end of the queue, and another worker is woken to look for work, with a system call
//! and a change of context for every 48 KiB that come in. That was a fifth of what an upload cost.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// How often a future may go on by itself before others get their turn.
const TURNS: usize = 16;

/// Nobody polls: a wake goes to the task.
const IDLE: u8 = 0;
/// The future is being polled.
const POLLING: u8 = 1;
/// It was woken while it was polled.
const WOKEN: u8 = 2;

/// Polls one future.
#[derive(Debug)]
pub(super) struct Again {
    relay: Arc<Relay>,
    waker: Waker,
}

impl Again {
    pub(super) fn new() -> Again {
        let relay = Arc::new(Relay { state: AtomicU8::new(IDLE), task: AtomicWaker::new() });
        Again { waker: Waker::from(Arc::clone(&relay)), relay }
    }

    pub(super) fn poll<F: Future>(
        &self,
        mut future: Pin<&mut F>,
        context: &mut Context<'_>,
    ) -> Poll<F::Output> {
        self.relay.task.register(context.waker());
        for _ in 0..TURNS {
            self.relay.state.store(POLLING, Ordering::Release);
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&self.waker)) {
                return Poll::Ready(output);
            }
            let ended = self.relay.state.compare_exchange(POLLING, IDLE, Ordering::AcqRel, Ordering::Acquire);
            if ended.is_ok() {
                return Poll::Pending;
            }
        }
        self.relay.state.store(IDLE, Ordering::Release);
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

#[derive(Debug)]
struct Relay {
    state: AtomicU8,
    task: AtomicWaker,
}

impl Wake for Relay {
    fn wake(self: Arc<Relay>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Relay>) {
        let noted = self.state.compare_exchange(POLLING, WOKEN, Ordering::AcqRel, Ordering::Acquire);
        if noted == Err(IDLE) {
            self.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Debug, Default)]
    struct Counted(AtomicUsize);

    impl Wake for Counted {
        fn wake(self: Arc<Counted>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Wakes itself `left` times before it is ready; notes the last waker.
    struct Restless {
        left: usize,
        polls: usize,
        seen: Option<Waker>,
    }

    impl Future for Restless {
        type Output = usize;

        fn poll(mut self: Pin<&mut Restless>, context: &mut Context<'_>) -> Poll<usize> {
            self.polls += 1;
            self.seen = Some(context.waker().clone());
            if self.left == 0 {
                return Poll::Ready(self.polls);
            }
            self.left -= 1;
            context.waker().wake_by_ref();
            Poll::Pending
        }
    }

    #[test]
    fn a_future_that_wakes_itself_goes_on_without_the_task() {
        let (again, wakes) = (Again::new(), Arc::new(Counted::default()));
        let waker = Waker::from(Arc::clone(&wakes));
        let mut future = pin!(Restless { left: TURNS - 1, polls: 0, seen: None });
        let polled = again.poll(future.as_mut(), &mut Context::from_waker(&waker));
        assert_eq!(polled, Poll::Ready(TURNS));
        assert_eq!(wakes.0.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_future_that_never_rests_gives_way() {
        let (again, wakes) = (Again::new(), Arc::new(Counted::default()));
        let waker = Waker::from(Arc::clone(&wakes));
        let mut future = pin!(Restless { left: 2 * TURNS, polls: 0, seen: None });
        for round in 1..=2 {
            assert!(again.poll(future.as_mut(), &mut Context::from_waker(&waker)).is_pending());
            assert_eq!(wakes.0.load(Ordering::SeqCst), round);
            assert_eq!(future.polls, round * TURNS);
        }
        assert!(again.poll(future.as_mut(), &mut Context::from_waker(&waker)).is_ready());
    }

    #[test]
    fn a_wake_from_elsewhere_reaches_the_task() {
        let (again, wakes) = (Again::new(), Arc::new(Counted::default()));
        let waker = Waker::from(Arc::clone(&wakes));
        let mut seen = None;
        let mut future = pin!(std::future::poll_fn(|context| {
            seen = Some(context.waker().clone());
            Poll::<()>::Pending
        }));
        assert!(again.poll(future.as_mut(), &mut Context::from_waker(&waker)).is_pending());
        assert_eq!(wakes.0.load(Ordering::SeqCst), 0);
        seen.unwrap().wake();
        assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
    }
}
