//! How much memory the documents of all requests together may take.
//!
//! Artifacts go out in small pieces, but an envelope of 32 MiB is read, taken apart and held as a
//! whole. A few clients that ask for many of them, or send many, must not take the machine's
//! memory: what does not fit is told to come again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;
use http::header::{HeaderValue, RETRY_AFTER};

use super::Problem;
use crate::error::ErrorKind;

/// Bytes that may be taken.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    left: Arc<AtomicU64>,
}

/// Bytes that were taken; dropping gives them back.
#[derive(Debug)]
pub(super) struct Share {
    left: Arc<AtomicU64>,
    bytes: u64,
}

impl Budget {
    pub(super) fn new(bytes: u64) -> Budget {
        Budget { left: Arc::new(AtomicU64::new(bytes)) }
    }

    /// Takes `bytes`, or refuses with 503 until others have given some back.
    pub(super) fn take(&self, bytes: u64) -> Result<Share, Problem> {
        let taken =
            self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
        match taken {
            Ok(_) => Ok(Share { left: Arc::clone(&self.left), bytes }),
            Err(_) => Err(busy()),
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.left.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

#[cold]
fn busy() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Unavailable.as_str(),
        "Too many large documents are under way; try again.",
    )
    .with_header(RETRY_AFTER, HeaderValue::from_static("1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back() {
        let budget = Budget::new(10);
        let first = budget.take(6).unwrap();
        let refused = budget.take(5).unwrap_err();
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(
            refused.response(false, super::super::problem::Shape::Problem).headers()["retry-after"],
            "1"
        );
        let second = budget.take(4).unwrap();
        drop(first);
        assert!(budget.take(7).is_err());
        drop(second);
        assert!(budget.take(10).is_ok());
        assert!(budget.take(u64::MAX).is_err());
    }
}
