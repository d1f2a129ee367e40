//! An opened blob as a stream of chunks.

use std::fs::File;
use std::io;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};

use super::{Blob, ByteStream, Payload};
use crate::error::{Error, ErrorKind, Result};

/// Bytes of a file that one chunk holds at most.
const CHUNK: u64 = 256 * 1024;

impl Blob {
    /// How many bytes the payload yields.
    pub fn length(&self) -> u64 {
        self.range.map_or(0, |range| range.len())
    }

    /// The bytes as a stream. A file that ends early is an error, never a short stream.
    pub fn into_stream(self) -> ByteStream {
        let Some(range) = self.range else { return stream::empty().boxed() };
        let digest = self.info.digest;
        match self.payload {
            Payload::Bytes(bytes) => stream::once(async move { Ok(bytes) }).boxed(),
            Payload::Stream(bytes) => bytes,
            Payload::File(file) => stream::try_unfold((file, range.start()), move |(file, at)| async move {
                let length = CHUNK.min(range.end() - at);
                if length == 0 {
                    return Ok(None);
                }
                let chunk = read_chunk(&file, at, length as usize)
                    .map_err(|cause| Error::io(format_args!("reading {digest} at byte {at}"), cause))?;
                if chunk.is_empty() {
                    let message = format!("{digest} is truncated: it ends at byte {at}");
                    return Err(Error::new(ErrorKind::Corrupted, message));
                }
                let next = at + chunk.len() as u64;
                Ok(Some((chunk, (file, next))))
            })
            .boxed(),
        }
    }
}

/// Up to `length` bytes at `offset`; fewer only at the end of the file.
fn read_chunk(file: &File, offset: u64, length: usize) -> io::Result<Bytes> {
    let mut buffer = BytesMut::zeroed(length);
    let mut filled = 0;
    while filled < length {
        match read_at(file, &mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(filled);
    Ok(buffer.freeze())
}

/// One positioned read, which leaves the file's cursor alone.
#[cfg(unix)]
pub(crate) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, offset)
}

/// One positioned read.
#[cfg(windows)]
pub(crate) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buffer, offset)
}
