//! A pointer to a store is a store.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Blob, BlobInfo, BlobStore, BlobWriter, BoxStream, Quarantine, Resumable};
use crate::digest::Digest;
use crate::error::Result;
use crate::range::ByteRange;

macro_rules! forward {
    ($($pointer:ident)*) => {$(
        #[async_trait]
        impl<S: BlobStore + ?Sized> BlobStore for $pointer<S> {
            async fn stat(&self, digest: &Digest) -> Result<Option<BlobInfo>> {
                (**self).stat(digest).await
            }

            async fn open(&self, digest: &Digest, range: Option<ByteRange>) -> Result<Option<Blob>> {
                (**self).open(digest, range).await
            }

            async fn create(&self, expected: &BlobInfo) -> Result<Box<dyn BlobWriter>> {
                (**self).create(expected).await
            }

            async fn remove(&self, digest: &Digest) -> Result<bool> {
                (**self).remove(digest).await
            }

            fn list(&self) -> BoxStream<Result<BlobInfo>> {
                (**self).list()
            }

            fn as_resumable(&self) -> Option<&dyn Resumable> {
                (**self).as_resumable()
            }

            fn as_quarantine(&self) -> Option<&dyn Quarantine> {
                (**self).as_quarantine()
            }
        }
    )*};
}

forward!(Arc Box);

#[async_trait]
impl<W: BlobWriter + ?Sized> BlobWriter for Box<W> {
    fn position(&self) -> u64 {
        (**self).position()
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        (**self).write(bytes).await
    }

    async fn commit(self: Box<Self>) -> Result<BlobInfo> {
        (*self).commit().await
    }
}
