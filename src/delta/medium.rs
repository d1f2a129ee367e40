//! Where the bytes of bases, targets and intermediate results lie.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};

/// Bytes that can be read anywhere.
pub trait ReadAt: fmt::Debug + Send + Sync {
    /// How many there are.
    fn size(&self) -> u64;
    /// Reads some bytes at `offset`; 0 only at or past the end, or into an empty buffer.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize>;

    /// Fills `buffer` with the bytes at `offset`.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupted`] if there are fewer.
    fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> Result<()> {
        while !buffer.is_empty() {
            let read = self.read_at(buffer, offset)?;
            if read == 0 {
                return Err(short(self.size(), offset));
            }
            buffer = &mut buffer[read..];
            offset += read as u64;
        }
        Ok(())
    }
}

/// Bytes that are still being written, at the end only.
pub trait Spool: ReadAt {
    /// Adds bytes at the end.
    fn append(&mut self, bytes: &[u8]) -> Result<()>;
}

/// Makes room for intermediate results: files that nobody else sees, or memory.
pub trait Scratch: fmt::Debug + Send + Sync {
    /// A new, empty spool. What it holds is gone when it is dropped.
    fn spool(&self) -> Result<Box<dyn Spool>>;
}

/// A [`Scratch`] in memory, for small blobs and tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryScratch;

impl Scratch for MemoryScratch {
    fn spool(&self) -> Result<Box<dyn Spool>> {
        Ok(Box::new(Vec::new()))
    }
}

impl Spool for Vec<u8> {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.extend_from_slice(bytes);
        Ok(())
    }
}

impl ReadAt for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.as_slice().read_at(buffer, offset)
    }
}

impl ReadAt for [u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let start = usize::try_from(offset).map_or(self.len(), |offset| offset.min(self.len()));
        let length = buffer.len().min(self.len() - start);
        buffer[..length].copy_from_slice(&self[start..start + length]);
        Ok(length)
    }
}

impl ReadAt for bytes::Bytes {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self[..].read_at(buffer, offset)
    }
}

impl<T: ReadAt + ?Sized> ReadAt for Arc<T> {
    fn size(&self) -> u64 {
        (**self).size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        (**self).read_at(buffer, offset)
    }
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn size(&self) -> u64 {
        (**self).size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        (**self).read_at(buffer, offset)
    }
}

#[cold]
fn short(size: u64, offset: u64) -> Error {
    Error::new(ErrorKind::Corrupted, format!("bytes end at {offset}, though they should be {size}"))
}
