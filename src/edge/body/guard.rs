//! What may happen to bytes on their way: they are held back, or cut off.

use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;

use super::Body;
use crate::blob::ByteStream;
use crate::blocking;
use crate::error::{Error, ErrorKind, Result};

/// How often a running transfer is asked whether it may go on.
pub const GUARD_INTERVAL: Duration = Duration::from_secs(1);
/// Most bytes that a limited transfer gives at once.
const PIECE: usize = 16 * 1024;

/// Says whether what was permitted still is. A body that carries one asks it at most once in
/// [`GUARD_INTERVAL`] and fails when it says no; a server asks it for answers whose client does not
/// read, too, and drops the connection.
pub struct Guard(Box<dyn Fn() -> bool + Send + Sync>);

impl Guard {
    /// A guard that asks `holds`. It must be cheap and must not wait.
    pub fn new(holds: impl Fn() -> bool + Send + Sync + 'static) -> Guard {
        Guard(Box::new(holds))
    }

    /// Whether the transfer may go on.
    pub fn holds(&self) -> bool {
        (self.0)()
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guard")
    }
}

#[cold]
pub(super) fn cut() -> Error {
    Error::new(ErrorKind::Forbidden, "the right to this download was taken back while it ran")
}

/// The bytes of `body`, at most `rate` of them in a second, on average over a second.
pub(super) fn slowly(body: Body, rate: u64) -> ByteStream {
    let rate = rate.max(1);
    let begin = Paced { body, rest: Bytes::new(), started: Instant::now(), given: 0 };
    Box::pin(stream::unfold(begin, move |mut paced| async move {
        let next = paced.next(rate).await?;
        Some((next, paced))
    }))
}

struct Paced {
    body: Body,
    rest: Bytes,
    started: Instant,
    given: u64,
}

impl Paced {
    async fn next(&mut self, rate: u64) -> Option<Result<Bytes>> {
        if self.rest.is_empty() {
            match self.body.next_chunk().await? {
                Ok(chunk) => self.rest = chunk,
                Err(error) => return Some(Err(error)),
            }
        }
        // An eighth of a second's bytes at a time, so that slow is not the same as in jerks.
        let most = usize::try_from(rate / 8).unwrap_or(PIECE).clamp(1, PIECE);
        let piece = self.rest.split_to(self.rest.len().min(most));
        self.given += piece.len() as u64;
        let due = Duration::from_secs_f64(self.given as f64 / rate as f64);
        let ahead = due.saturating_sub(self.started.elapsed());
        blocking::sleep(ahead).await;
        Some(Ok(piece))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use super::*;

    #[test]
    fn a_guard_that_says_no_cuts_the_body() {
        let holds = Arc::new(AtomicBool::new(true));
        let asked = holds.clone();
        let told = Arc::new(AtomicU64::new(u64::MAX));
        let end = told.clone();
        let mut body = Body::from_bytes(vec![7; 1 << 20]);
        body.guarded_by(Arc::new(Guard::new(move || asked.load(Ordering::Relaxed))), Duration::ZERO);
        body.on_end(move |delivered| {
            assert!(!delivered.complete);
            end.store(delivered.bytes, Ordering::Relaxed);
        });
        let first = futures_util::FutureExt::now_or_never(body.next_chunk()).unwrap().unwrap().unwrap();
        holds.store(false, Ordering::Relaxed);
        let error = futures_util::FutureExt::now_or_never(body.next_chunk()).unwrap().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Forbidden);
        assert!(futures_util::FutureExt::now_or_never(body.next_chunk()).unwrap().is_none());
        drop(body);
        assert_eq!(told.load(Ordering::Relaxed), first.len() as u64);
    }

    #[test]
    fn a_limited_body_is_the_same_bytes() {
        let bytes: Vec<u8> = (0..100_000_u32).map(|at| at as u8).collect();
        let told = Arc::new(AtomicU64::new(0));
        let end = told.clone();
        let mut body = Body::from_bytes(bytes.clone());
        body.on_end(move |delivered| {
            assert!(delivered.complete);
            end.store(delivered.bytes, Ordering::Relaxed);
        });
        let limited = body.limited(1 << 40);
        assert_eq!(limited.length(), Some(100_000));
        let got = futures_util::FutureExt::now_or_never(limited.collect(1 << 20)).unwrap().unwrap();
        assert_eq!(got, bytes);
        assert_eq!(told.load(Ordering::Relaxed), 100_000, "the observer is told by the outer body");
    }
}
