//! The whole gate over an edge that was opened: who comes from where with what, and what becomes
//! of it. Tests are named after the fault.

mod address;
mod audit;
mod closed;
mod cut;
mod duties;
mod flood;
mod links;
mod race;
mod rights;
mod rig;
mod secrecy;
mod steer;
mod tenants;
