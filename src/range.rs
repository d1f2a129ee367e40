//! Byte ranges of a representation (RFC 9110 section 14).

use crate::error::{Error, Result};

/// A non-empty span of bytes: `start` is the first, `end` is one past the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ByteRange {
    start: u64,
    end: u64,
}

impl ByteRange {
    /// The bytes from `start` up to, not including, `end`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::error::ErrorKind::Invalid) if it would be empty.
    pub fn new(start: u64, end: u64) -> Result<ByteRange> {
        if start < end {
            Ok(ByteRange { start, end })
        } else {
            Err(Error::invalid(format!("the byte range {start}..{end} is empty")))
        }
    }

    /// The first byte's offset.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// One past the last byte's offset.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// How many bytes.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.end - self.start
    }
}
