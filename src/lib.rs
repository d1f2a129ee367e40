#![doc = include_str!("../README.md")]

pub mod access;
pub mod address;
pub mod audit;
pub mod auth;
pub mod blob;
mod blocking;
pub mod bundle;
pub mod catalog;
pub mod clock;
#[cfg(feature = "delta")]
pub mod delta;
pub mod digest;
pub mod distribute;
pub mod edge;
pub mod error;
pub mod geo;
pub mod govern;
mod json;
pub mod key;
pub mod link;
pub mod meta;
pub mod name;
pub mod pattern;
pub mod place;
pub mod policy;
pub mod range;
pub mod registry;
pub mod secret;
#[cfg(feature = "server")]
pub mod server;
pub mod source;
#[cfg(feature = "testing")]
pub mod testing;
pub mod token;
pub mod transport;
pub mod window;
