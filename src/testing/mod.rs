//! For tests of this crate and of implementers of its ports: conformance suites, fault wrappers, a
//! manual clock and the crash simulator.
//!
//! A suite is one macro line; each bullet of the port's contract becomes one `#[test]`:
//!
//! ```
//! use distedge::blob::MemoryBlobStore;
//!
//! distedge::blob_store_suite!(memory, || {
//!     let medium = MemoryBlobStore::new();
//!     async move || medium.clone()
//! });
//! # fn main() {}
//! ```
//!
//! The argument is a closure that makes a fresh *medium*: an async closure that opens the store over
//! it, and is called again after the store was dropped where the contract speaks of a restart. Whatever
//! the medium needs (a temporary directory) lives in the async closure. A last argument names another
//! `block_on` than this module's, to run the checks inside a runtime.

pub mod blob;
mod clock;
mod fault;
pub mod meta;
pub mod sim;

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

pub use clock::ManualClock;
pub use fault::{Flaky, Plan, Slow, Torn};

/// Runs a future to its end on this thread, without any runtime.
pub fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            // A wake between the poll and here is not lost: the token makes `park` return at once.
            Poll::Pending => thread::park(),
        }
    }
}

/// Expands to one test a check of a suite of this module.
#[doc(hidden)]
#[macro_export]
macro_rules! __suite {
    ($suite:ident, $name:ident, $medium:expr, $block_on:path; $($check:ident)*) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            $(
                #[test]
                fn $check() {
                    let medium = ($medium)();
                    $block_on($crate::testing::$suite::$check(medium));
                }
            )*
        }
    };
}
