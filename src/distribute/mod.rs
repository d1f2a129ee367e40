//! From desired state to a signed receipt: offer, want, upload, commit.
//!
//! A [`Receiver`] is the edge's half: it verifies before it stores and answers what it still
//! wants. [`converge`] is the source's half: it looks at what an edge proves to have and sends
//! the rest. Both are level-triggered: what should be where is recorded, every step can be
//! repeated, and a cut at any point leaves something the next run continues.

#[cfg(feature = "delta")]
pub mod airgap;
mod garbage;
#[cfg(feature = "delta")]
mod inbox;
mod link;
#[cfg(feature = "delta")]
mod medium;
mod message;
mod order;
#[cfg(feature = "delta")]
mod planner;
#[cfg(feature = "delta")]
mod push;
mod receive;
mod send;
#[cfg(feature = "delta")]
mod similar;
#[cfg(feature = "delta")]
mod slots;
#[cfg(feature = "delta")]
mod unpack;

pub use crate::window::Window;
pub use garbage::{GarbageReport, ScrubReport};
#[cfg(feature = "delta")]
pub use inbox::{Inbox, PartWriter, Position};
pub use link::Link;
#[cfg(feature = "delta")]
pub use medium::FileScratch;
pub use message::{
    BundleAnswer, HAVE, HaveAnswer, HaveQuestion, Held, Method, OfferAnswer, PACK, PARTS, PackAnswer,
    PartsQuestion, Resembling, SectionAnswer, SectionState, SectionsQuestion, StatusAnswer, TrustAnswer,
    UploadAnswer, Want, path,
};
pub use order::{BundleOffer, Desired, Event, Events, Options, Outcome, PlannedBlob, Proof, Tally};
#[cfg(feature = "delta")]
pub use planner::{Planner, PlannerOptions};
pub use receive::Receiver;
#[cfg(feature = "delta")]
pub(crate) use receive::attest;
pub use send::converge;
