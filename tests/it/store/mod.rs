//! The in-tree stores keep their contracts, also when disks lie, fill up and lose power.

mod crash;
mod fault;
mod full;
mod model;
mod open;
mod race;
mod suite;
