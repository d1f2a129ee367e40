//! Long work and async tasks: calls that wait for the disk are kept off the workers, long loops
//! give way.

use std::task::Poll;

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

/// Lets other tasks run.
pub(crate) async fn give_way() {
    let mut given = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut given, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Lets other tasks run after every 64th step of a loop.
pub(crate) async fn after_step(step: usize) {
    if step % 64 == 63 {
        give_way().await;
    }
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
