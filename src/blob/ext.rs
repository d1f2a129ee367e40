//! What users of a blob store call, written once over the port.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::{Blob, BlobInfo, BlobStore, ByteStream, Payload};
use crate::blocking;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};

/// How much of a file one read takes.
const CHUNK: u64 = 256 * 1024;

impl Blob {
    /// The bytes as a stream of chunks of at most 256 KiB if they come from a file, and as the store
    /// gives them otherwise.
    pub fn into_stream(self) -> ByteStream {
        let Some(range) = self.range else { return Box::pin(stream::empty()) };
        match self.payload {
            Payload::Bytes(bytes) => Box::pin(stream::once(async move { Ok(bytes) })),
            Payload::Stream(stream) => stream,
            Payload::File(file) => {
                let digest = self.info.digest;
                Box::pin(stream::try_unfold(range.start(), move |at| {
                    let file = Arc::clone(&file);
                    async move {
                        if at == range.end() {
                            return Ok(None);
                        }
                        let chunk = blocking::run(move || {
                            let mut chunk = BytesMut::zeroed(CHUNK.min(range.end() - at) as usize);
                            let read = super::vfs::read_at(&file, &mut chunk, at)
                                .map_err(|cause| Error::io(format_args!("reading blob {digest}"), cause))?;
                            if read == 0 {
                                return Err(cut_short(&digest, at));
                            }
                            chunk.truncate(read);
                            Ok(chunk.freeze())
                        })
                        .await?;
                        let next = at + chunk.len() as u64;
                        Ok(Some((chunk, next)))
                    }
                }))
            }
        }
    }

    /// The bytes in memory.
    ///
    /// # Errors
    /// `TooLarge` if there are more than `limit`; `Corrupted` if there are fewer than promised.
    pub async fn into_bytes(self, limit: u64) -> Result<Bytes> {
        let promised = self.range.map_or(0, |range| range.len());
        let digest = self.info.digest;
        if promised > limit {
            return Err(over_limit(&digest, promised, limit));
        }
        if let Payload::Bytes(bytes) = self.payload {
            return Ok(bytes);
        }
        let mut whole = BytesMut::with_capacity(promised as usize);
        let mut stream = self.into_stream();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk?;
            if whole.len() as u64 + chunk.len() as u64 > promised {
                return Err(over_limit(&digest, whole.len() as u64 + chunk.len() as u64, promised));
            }
            whole.extend_from_slice(&chunk);
        }
        if (whole.len() as u64) < promised {
            return Err(cut_short(&digest, whole.len() as u64));
        }
        Ok(whole.freeze())
    }
}

/// What every [`BlobStore`] can do by virtue of being one.
#[async_trait]
pub trait BlobStoreExt: BlobStore {
    /// Reads a whole blob into memory and verifies it.
    ///
    /// # Errors
    /// `TooLarge` if it has more than `limit` bytes; `Corrupted` if the stored bytes do not have the
    /// digest.
    async fn read(&self, digest: &Digest, limit: u64) -> Result<Option<Bytes>> {
        let Some(blob) = self.open(digest, None).await? else { return Ok(None) };
        let bytes = blob.into_bytes(limit).await?;
        if Digest::of(&bytes) != *digest {
            return Err(damaged(digest));
        }
        Ok(Some(bytes))
    }

    /// Stores `bytes` under their digest.
    async fn put(&self, bytes: Bytes) -> Result<BlobInfo> {
        let expected = BlobInfo { digest: Digest::of(&bytes), size: bytes.len() as u64 };
        let mut writer = self.create(&expected).await?;
        if !bytes.is_empty() {
            writer.write(bytes).await?;
        }
        writer.commit().await
    }

    /// Stores the bytes of `stream`, which must be the blob `expected`; `Mismatch` if they are not.
    async fn put_stream(&self, expected: &BlobInfo, mut stream: ByteStream) -> Result<BlobInfo> {
        let mut writer = self.create(expected).await?;
        while let Some(chunk) = stream.try_next().await? {
            writer.write(chunk).await?;
        }
        writer.commit().await
    }

    /// Reads a blob through and answers whether its stored bytes have its digest; `None` if it is not
    /// here. Memory is bounded.
    async fn verify(&self, digest: &Digest) -> Result<Option<bool>> {
        let Some(blob) = self.open(digest, None).await? else { return Ok(None) };
        let mut hasher = crate::digest::Hasher::new();
        let mut stream = blob.into_stream();
        loop {
            match stream.try_next().await {
                Ok(Some(chunk)) => hasher.update(&chunk),
                Ok(None) => return Ok(Some(hasher.finish() == *digest)),
                // A file cut off behind the store's back is damage found, not a failed look.
                Err(error) if error.kind() == ErrorKind::Corrupted => return Ok(Some(false)),
                Err(error) => return Err(error),
            }
        }
    }
}

impl<S: BlobStore + ?Sized> BlobStoreExt for S {}

#[cold]
fn damaged(digest: &Digest) -> Error {
    Error::new(ErrorKind::Corrupted, format!("the stored bytes of blob {digest} do not have this digest"))
}

#[cold]
fn cut_short(digest: &Digest, at: u64) -> Error {
    Error::new(ErrorKind::Corrupted, format!("the stored bytes of blob {digest} end at byte {at}, too early"))
}

#[cold]
fn over_limit(digest: &Digest, size: u64, limit: u64) -> Error {
    Error::new(
        ErrorKind::TooLarge,
        format!("blob {digest} has {size} bytes, more than the {limit} allowed here"),
    )
}
