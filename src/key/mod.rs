//! Keys: ids, signing and verifying under this crate's own policy, key rings.

#[cfg(feature = "openpgp")]
mod openpgp;

use crate::clock::Timestamp;

/// When signatures of a key count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first moment.
    pub from: Timestamp,
    /// The moment from which signatures no longer count; `None` leaves the window open.
    pub until: Option<Timestamp>,
}

/// A key is no longer trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// From this moment on.
    pub at: Timestamp,
    /// Why, for people.
    pub reason: String,
    /// Whether somebody else may hold the secret: then nothing it ever signed counts.
    pub compromised: bool,
}

/// Under which circumstances a signature is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acceptance {
    /// The present moment.
    pub now: Timestamp,
    /// When signatures of the key count.
    pub window: Window,
    /// Whether and from when the key is no longer trusted.
    pub revocation: Option<Revocation>,
}
