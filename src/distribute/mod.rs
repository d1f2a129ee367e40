//! From desired state to a signed receipt: offer, want, upload, commit.
//!
//! A [`Receiver`] is the edge's half: it verifies before it stores and answers what it still
//! wants. [`converge`] is the source's half: it looks at what an edge proves to have and sends
//! the rest. Both are level-triggered: what should be where is recorded, every step can be
//! repeated, and a cut at any point leaves something the next run continues.

mod garbage;
#[cfg(feature = "delta")]
mod inbox;
mod message;
mod receive;
mod send;
mod similar;

pub use garbage::{GarbageReport, ScrubReport};
#[cfg(feature = "delta")]
pub use inbox::{Inbox, PartWriter, Position};
pub use message::{BundleAnswer, OfferAnswer, StatusAnswer, TrustAnswer, UploadAnswer, Want, path};
pub use receive::Receiver;
pub use send::{BundleOffer, Desired, Event, Events, Options, Outcome, PlannedBlob, Proof, converge};
