//! Programs that share no code with this crate, against real processes on loopback: what people
//! fetch a release with, and what they verify it with.

mod download;
mod house;
mod proxy;
mod release;
pub mod tool;
mod verify;
