//! HTTP from the socket to the blob: hostile requests, ranges, damage, slow clients.

mod framing;
mod integrity;
mod limits;
mod peers;
mod ranges;
pub(crate) mod rig;
mod target;
mod transport;
