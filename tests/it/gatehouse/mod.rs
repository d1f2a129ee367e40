//! The whole gate over an edge that was opened: who comes from where with what, and what becomes
//! of it. Tests are named after the fault.

mod address;
mod audit;
mod bounds;
mod closed;
mod credentials;
mod cut;
mod duties;
mod flood;
mod links;
mod race;
mod rig;
mod rights;
mod secrecy;
mod steer;
mod tenants;
