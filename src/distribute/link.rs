//! What the way to one edge may carry: so many bytes in a second, at certain hours.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use crate::blocking;
use crate::clock::{Clock, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{ByteStream, Call, CallBody};
use crate::window::Window;

/// Most bytes that are let through at once.
const PIECE: usize = 64 * 1024;
/// Most bytes that go without a look at the hour; a chunk that is shorter goes as a whole.
const GRANTED: usize = 1 << 20;

/// The limits of one link. Everything that is sent over it counts together.
#[derive(Clone, Debug)]
pub struct Link {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    rate: Option<u64>,
    windows: Vec<Window>,
    clock: Arc<dyn Clock>,
    bucket: Mutex<Bucket>,
}

impl Link {
    /// A link of so many bytes in a second (`None`: as many as there are), usable in these windows
    /// (none: always).
    pub fn new(rate: Option<u64>, windows: Vec<Window>, clock: Arc<dyn Clock>) -> Link {
        let rate = rate.map(|rate| rate.max(1));
        let bucket = Mutex::new(Bucket::new(rate.unwrap_or(u64::MAX), Instant::now()));
        Link { inner: Arc::new(Inner { rate, windows, clock, bucket }) }
    }

    /// When the link opens, if it is closed.
    pub fn closed_until(&self) -> Option<Timestamp> {
        let (now, windows) = (self.inner.clock.now(), &self.inner.windows);
        if windows.is_empty() || windows.iter().any(|window| window.closes(now).is_some()) {
            return None;
        }
        windows.iter().filter_map(|window| window.opens(now)).min().or(Some(Timestamp::MAX))
    }

    /// The call, whose body goes out as fast as the link allows, and stops between two chunks when
    /// the link closes.
    pub(super) async fn shape(&self, mut call: Call) -> Call {
        if self.inner.rate.is_none() && self.inner.windows.is_empty() {
            return call;
        }
        call.body = match call.body {
            CallBody::Bytes(bytes) => {
                // Documents are short and go whenever they must, but they count.
                self.take(bytes.len()).await;
                CallBody::Bytes(bytes)
            }
            CallBody::Stream(length, stream) => CallBody::Stream(length, self.clone().shaped(stream)),
        };
        call
    }

    fn shaped(self, stream: ByteStream) -> ByteStream {
        let piece = self.inner.rate.map_or(usize::MAX, |rate| (rate / 8).clamp(256, PIECE as u64) as usize);
        let begin = Shaped { link: self, stream, rest: Bytes::new(), granted: 0, failed: false };
        Box::pin(stream::unfold(begin, move |mut shaped| async move {
            match shaped.next(piece).await {
                Ok(next) => next.map(|next| (Ok(next), shaped)),
                Err(error) => {
                    shaped.failed = true;
                    Some((Err(error), shaped))
                }
            }
        }))
    }

    async fn take(&self, bytes: usize) {
        if self.inner.rate.is_none() {
            return;
        }
        let wait = {
            let mut bucket = self.inner.bucket.lock().unwrap_or_else(PoisonError::into_inner);
            bucket.take(bytes as u64, Instant::now())
        };
        blocking::sleep(wait).await;
    }
}

/// A body on its way through a link.
struct Shaped {
    link: Link,
    stream: ByteStream,
    rest: Bytes,
    /// How much of `rest` may go before the hour is looked at again.
    granted: usize,
    failed: bool,
}

impl Shaped {
    async fn next(&mut self, piece: usize) -> Result<Option<Bytes>> {
        if self.failed {
            return Ok(None);
        }
        if self.granted == 0 {
            if let Some(opens) = self.link.closed_until() {
                return Err(closed(opens));
            }
            while self.rest.is_empty() {
                match self.stream.next().await {
                    Some(chunk) => self.rest = chunk?,
                    None => return Ok(None),
                }
            }
            self.granted = self.rest.len().min(GRANTED);
        }
        let next = self.rest.split_to(self.granted.min(piece));
        self.granted -= next.len();
        self.link.take(next.len()).await;
        Ok(Some(next))
    }
}

/// Tokens for bytes: they come at a rate, and what nobody took in a quarter of a second is lost.
#[derive(Debug)]
struct Bucket {
    rate: u64,
    /// When the bytes that were let through so far are paid for.
    paid: Instant,
}

impl Bucket {
    fn new(rate: u64, now: Instant) -> Bucket {
        Bucket { rate, paid: now }
    }

    /// How long to wait before `bytes` more may go.
    fn take(&mut self, bytes: u64, now: Instant) -> Duration {
        let credit = now.checked_sub(Duration::from_millis(250)).unwrap_or(now);
        let from = self.paid.max(credit);
        self.paid = from + Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        self.paid.saturating_duration_since(now)
    }
}

#[cold]
pub(super) fn closed(opens: Timestamp) -> Error {
    Error::new(ErrorKind::Unavailable, format!("the link's window has closed; it opens at {opens}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_closed_link_says_when_it_opens() {
        #[derive(Debug)]
        struct Still(Timestamp);
        impl Clock for Still {
            fn now(&self) -> Timestamp {
                self.0
            }
        }
        let link = |now: &str, windows: &[&str]| {
            let windows = windows.iter().map(|window| window.parse().unwrap()).collect();
            Link::new(None, windows, Arc::new(Still(at(now)))).closed_until()
        };
        assert_eq!(link("2026-11-22T12:00:00Z", &[]), None);
        assert_eq!(link("2026-11-22T12:00:00Z", &["11:00-13:00"]), None);
        let both = ["13:00-14:00", "12:30-12:45"];
        assert_eq!(link("2026-11-22T12:00:00Z", &both), Some(at("2026-11-22T12:30:00Z")));
    }

    #[test]
    fn all_streams_together_keep_the_rate() {
        let begin = Instant::now() + Duration::from_secs(10);
        let mut bucket = Bucket::new(1000, begin);
        let mut now = begin;
        let mut sent = 0;
        // Two streams that take 100 bytes each, as fast as they are let.
        for _ in 0..50 {
            let (one, two) = (bucket.take(100, now), bucket.take(100, now));
            assert!(two > one);
            now += two;
            sent += 200;
        }
        let seconds = now.duration_since(begin).as_secs_f64();
        assert!((f64::from(sent) / seconds - 1000.0).abs() < 1.0, "{sent} bytes in {seconds} s");
        // A pause saves up a quarter of a second and no more.
        now += Duration::from_secs(60);
        assert_eq!(bucket.take(250, now), Duration::ZERO);
        assert_eq!(bucket.take(1000, now), Duration::from_secs(1));
    }
}
