//! Deflate streams (RFC 1951): decoded, and made again bit for bit.

mod chain;
mod encoder;
mod hash;
mod header;
mod identify;
mod inflate;
mod input;
#[cfg(feature = "testing")]
mod judge;
mod merge;
mod model;
mod output;
mod split;
mod survey;
mod table;
#[cfg(test)]
mod tests;
mod token;
mod tree;
mod window;

#[cfg(test)]
pub(crate) use encoder::Variant;
pub(crate) use encoder::{Encoder, encode};
pub(crate) use identify::identify;
pub(crate) use inflate::inflate;
#[cfg(feature = "testing")]
pub use judge::judge;
pub(crate) use merge::merge;
pub(crate) use split::split;

use crate::error::{Error, ErrorKind};

/// How far a deflate stream reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Bytes of the stream, the last one maybe used in part.
    pub(crate) coded: u64,
    /// Bytes that it stands for.
    pub(crate) plain: u64,
}

#[cold]
fn broken(what: &'static str) -> Error {
    Error::new(ErrorKind::Invalid, format!("the deflate stream has {what}"))
}

#[cold]
fn truncated() -> Error {
    Error::new(ErrorKind::Invalid, "the deflate stream ends too early")
}
