//! Wrappers that make a store fail, tear or dawdle.

use std::fmt;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{TryStreamExt, stream};

use crate::blob::{Blob, BlobInfo, BlobStore, BlobWriter, BoxStream, Quarantine, Resumable, Stamp};
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::meta::{Batch, Entry, MetadataStore, Revision};
use crate::range::ByteRange;

/// Decides which operations fail: given the number of the operation, from 1, and its name, answers
/// the kind of the error, or `None` to let it pass.
///
/// Names are those of the port's methods; those of a writer are `write` and `commit`.
#[derive(Clone)]
pub struct Plan {
    count: Arc<AtomicU64>,
    decide: Arc<Decide>,
}

type Decide = dyn Fn(u64, &str) -> Option<ErrorKind> + Send + Sync;

impl Plan {
    /// A plan that asks `decide`.
    pub fn new(decide: impl Fn(u64, &str) -> Option<ErrorKind> + Send + Sync + 'static) -> Plan {
        Plan { count: Arc::default(), decide: Arc::new(decide) }
    }

    /// Every `n`th operation fails; none if `n` is 0.
    pub fn every(n: u64, kind: ErrorKind) -> Plan {
        Plan::new(move |number, _| (n != 0 && number.is_multiple_of(n)).then_some(kind))
    }

    /// The operations with these numbers fail.
    pub fn at(numbers: impl IntoIterator<Item = u64>, kind: ErrorKind) -> Plan {
        let numbers: Vec<u64> = numbers.into_iter().collect();
        Plan::new(move |number, _| numbers.contains(&number).then_some(kind))
    }

    /// Every operation of this name fails.
    pub fn on(name: &'static str, kind: ErrorKind) -> Plan {
        Plan::new(move |_, operation| (operation == name).then_some(kind))
    }

    /// How many operations there were.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    fn next(&self, operation: &str) -> Option<Error> {
        let number = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        let kind = (self.decide)(number, operation)?;
        Some(Error::new(kind, format!("planned failure of operation {number} ({operation})")))
    }

    fn check(&self, operation: &str) -> Result<()> {
        self.next(operation).map_or(Ok(()), Err)
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan").field("count", &self.count()).finish_non_exhaustive()
    }
}

/// A store whose operations fail by plan, without having been done.
#[derive(Clone, Debug)]
pub struct Flaky<S> {
    inner: S,
    plan: Plan,
}

impl<S> Flaky<S> {
    /// Wraps a store of either port.
    pub fn new(inner: S, plan: Plan) -> Flaky<S> {
        Flaky { inner, plan }
    }
}

/// A store whose writing operations stop midway by plan: of a `write` the first half is taken in, and
/// a `commit` is done, and then they report the failure. Other operations are not counted.
#[derive(Clone, Debug)]
pub struct Torn<S> {
    inner: S,
    plan: Plan,
}

impl<S> Torn<S> {
    /// Wraps a store of either port.
    pub fn new(inner: S, plan: Plan) -> Torn<S> {
        Torn { inner, plan }
    }
}

type Pause = Arc<dyn Fn(&'static str) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// A store that waits before each operation, as long as a given hook takes.
#[derive(Clone)]
pub struct Slow<S> {
    inner: S,
    pause: Pause,
}

impl<S> Slow<S> {
    /// Wraps a store of either port; `pause` is given the operation's name.
    pub fn new<P, F>(inner: S, pause: P) -> Slow<S>
    where
        P: Fn(&'static str) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        Slow { inner, pause: Arc::new(move |operation| Box::pin(pause(operation))) }
    }
}

impl<S: fmt::Debug> fmt::Debug for Slow<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slow").field("inner", &self.inner).finish_non_exhaustive()
    }
}

/// What happens before an operation goes to the wrapped store.
#[async_trait]
trait Before: Send + Sync {
    async fn before(&self, operation: &'static str) -> Result<()>;
}

#[async_trait]
impl<S: Send + Sync> Before for Flaky<S> {
    async fn before(&self, operation: &'static str) -> Result<()> {
        self.plan.check(operation)
    }
}

#[async_trait]
impl<S: Send + Sync> Before for Torn<S> {
    async fn before(&self, _: &'static str) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl<S: Send + Sync> Before for Slow<S> {
    async fn before(&self, operation: &'static str) -> Result<()> {
        (self.pause)(operation).await;
        Ok(())
    }
}

/// The abilities of the wrapped store, through the wrapper's faults.
macro_rules! wrap {
    ($($wrapper:ident)*) => {$(
        #[async_trait]
        impl<S: BlobStore + Clone> BlobStore for $wrapper<S> {
            async fn stat(&self, digest: &Digest) -> Result<Option<BlobInfo>> {
                self.before("stat").await?;
                self.inner.stat(digest).await
            }

            async fn open(&self, digest: &Digest, range: Option<ByteRange>) -> Result<Option<Blob>> {
                self.before("open").await?;
                self.inner.open(digest, range).await
            }

            async fn create(&self, expected: &BlobInfo) -> Result<Box<dyn BlobWriter>> {
                self.before("create").await?;
                let inner = self.inner.create(expected).await?;
                Ok(Box::new(Writer { inner, faults: self.clone() }))
            }

            async fn remove(&self, digest: &Digest) -> Result<bool> {
                self.before("remove").await?;
                self.inner.remove(digest).await
            }

            fn list(&self) -> BoxStream<Result<BlobInfo>> {
                let faults = self.clone();
                let all = stream::once(async move {
                    faults.before("list").await?;
                    Ok::<_, Error>(faults.inner.list())
                });
                Box::pin(all.try_flatten())
            }

            fn as_resumable(&self) -> Option<&dyn Resumable> {
                self.inner.as_resumable().map(|_| self as &dyn Resumable)
            }

            fn as_quarantine(&self) -> Option<&dyn Quarantine> {
                self.inner.as_quarantine().map(|_| self as &dyn Quarantine)
            }
        }

        #[async_trait]
        impl<S: BlobStore + Clone> Resumable for $wrapper<S> {
            async fn position(&self, expected: &BlobInfo) -> Result<u64> {
                self.before("position").await?;
                self.inner.as_resumable().ok_or_else(unable)?.position(expected).await
            }

            async fn resume(&self, expected: &BlobInfo) -> Result<Box<dyn BlobWriter>> {
                self.before("resume").await?;
                let inner = self.inner.as_resumable().ok_or_else(unable)?.resume(expected).await?;
                Ok(Box::new(Writer { inner, faults: self.clone() }))
            }

            async fn discard(&self, keep: &(dyn for<'a> Fn(&'a Digest) -> bool + Sync)) -> Result<u64> {
                self.before("discard").await?;
                self.inner.as_resumable().ok_or_else(unable)?.discard(keep).await
            }
        }

        #[async_trait]
        impl<S: BlobStore + Clone> Quarantine for $wrapper<S> {
            async fn quarantine(&self, digest: &Digest, stamp: Option<Stamp>) -> Result<bool> {
                self.before("quarantine").await?;
                self.inner.as_quarantine().ok_or_else(unable)?.quarantine(digest, stamp).await
            }
        }
    )*};
}

wrap!(Flaky Torn Slow);

#[cold]
fn unable() -> Error {
    Error::new(ErrorKind::Unsupported, "the wrapped store lacks this ability")
}

#[derive(Debug)]
struct Writer<F> {
    inner: Box<dyn BlobWriter>,
    faults: F,
}

macro_rules! wrap_writer {
    ($($wrapper:ident)*) => {$(
        #[async_trait]
        impl<S: BlobStore + Clone> BlobWriter for Writer<$wrapper<S>> {
            fn position(&self) -> u64 {
                self.inner.position()
            }

            async fn write(&mut self, bytes: Bytes) -> Result<()> {
                self.faults.before("write").await?;
                self.inner.write(bytes).await
            }

            async fn commit(self: Box<Self>) -> Result<BlobInfo> {
                self.faults.before("commit").await?;
                self.inner.commit().await
            }
        }

        #[async_trait]
        impl<S: MetadataStore> MetadataStore for $wrapper<S> {
            async fn get(&self, key: &[u8]) -> Result<Option<Entry>> {
                self.before("get").await?;
                self.inner.get(key).await
            }

            async fn scan(&self, keys: Range<&[u8]>, limit: usize) -> Result<Vec<Entry>> {
                self.before("scan").await?;
                self.inner.scan(keys, limit).await
            }

            async fn commit(&self, batch: Batch) -> Result<Revision> {
                self.before("commit").await?;
                self.inner.commit(batch).await
            }
        }
    )*};
}

wrap_writer!(Flaky Slow);

#[async_trait]
impl<S: BlobStore + Clone> BlobWriter for Writer<Torn<S>> {
    fn position(&self) -> u64 {
        self.inner.position()
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        match self.faults.plan.next("write") {
            None => self.inner.write(bytes).await,
            Some(error) => {
                self.inner.write(bytes.slice(..bytes.len() / 2)).await?;
                Err(error)
            }
        }
    }

    async fn commit(self: Box<Self>) -> Result<BlobInfo> {
        let info = self.inner.commit().await?;
        self.faults.plan.check("commit")?;
        Ok(info)
    }
}

#[async_trait]
impl<S: MetadataStore> MetadataStore for Torn<S> {
    async fn get(&self, key: &[u8]) -> Result<Option<Entry>> {
        self.inner.get(key).await
    }

    async fn scan(&self, keys: Range<&[u8]>, limit: usize) -> Result<Vec<Entry>> {
        self.inner.scan(keys, limit).await
    }

    async fn commit(&self, batch: Batch) -> Result<Revision> {
        let revision = self.inner.commit(batch).await?;
        self.plan.check("commit")?;
        Ok(revision)
    }
}
