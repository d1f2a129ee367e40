//! Calls that wait for the disk, kept off the async workers where there are any.

use crate::error::Result;

/// Runs `work`, which may wait for the disk.
///
/// Inside a tokio runtime (feature `tokio`) it runs on the blocking pool and goes on to its end
/// even if the returned future is dropped. Everywhere else it runs inline.
pub(crate) async fn run<T, W>(work: W) -> Result<T>
where
    T: Send + 'static,
    W: FnOnce() -> Result<T> + Send + 'static,
{
    #[cfg(feature = "tokio")]
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        return match runtime.spawn_blocking(work).await {
            Ok(result) => result,
            Err(cause) => Err(unfinished(cause)),
        };
    }
    work()
}

#[cfg(feature = "tokio")]
#[cold]
fn unfinished(cause: tokio::task::JoinError) -> crate::error::Error {
    use crate::error::{Error, ErrorKind};
    if cause.is_cancelled() {
        return Error::new(ErrorKind::Unavailable, "the runtime shut down before a storage call finished");
    }
    Error::new(ErrorKind::Internal, format!("a storage call did not finish: {cause}"))
}
