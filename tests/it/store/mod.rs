//! The in-tree stores keep their contracts, also when disks lie, fill up and lose power.

mod crash;
mod fault;
mod full;
mod model;
#[cfg(target_os = "linux")]
mod mounted;
mod open;
mod race;
mod suite;
