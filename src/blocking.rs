//! Long work and async tasks: calls that wait for the disk are kept off the workers, long loops
//! give way.

use std::task::Poll;
use std::time::Duration;

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

/// Waits for `future` on this thread: for work that [`run`] runs, where it meets what is async.
#[cfg(feature = "delta")]
pub(crate) fn wait<F: Future>(future: F) -> F::Output {
    use std::sync::Arc;
    use std::task::{Context, Wake};
    use std::thread;

    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut context = Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

/// Pauses. Inside a tokio runtime other tasks run meanwhile.
pub(crate) async fn sleep(duration: Duration) {
    if duration.is_zero() {
        return;
    }
    #[cfg(feature = "tokio")]
    if tokio::runtime::Handle::try_current().is_ok() {
        return tokio::time::sleep(duration).await;
    }
    std::thread::sleep(duration);
}

/// Waits for `work` at most so long. Inside a tokio runtime it goes on to its end even if nobody
/// waits any more; everywhere else it is waited for.
#[cfg(any(feature = "delta", feature = "oidc"))]
pub(crate) async fn within<T, W>(limit: Duration, work: W) -> Result<Option<T>>
where
    T: Send + 'static,
    W: Future<Output = T> + Send + 'static,
{
    #[cfg(feature = "tokio")]
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        return match tokio::time::timeout(limit, runtime.spawn(work)).await {
            Ok(Ok(value)) => Ok(Some(value)),
            Ok(Err(cause)) => Err(unfinished(cause)),
            Err(_) => Ok(None),
        };
    }
    let _ = limit;
    Ok(Some(work.await))
}

/// Has `work` done by itself inside a tokio runtime. Everywhere else it is not done: for what
/// somebody else does later.
pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) {
    #[cfg(feature = "tokio")]
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(work);
        return;
    }
    drop(work);
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
