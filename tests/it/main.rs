//! The integration tests: one binary, one module a subject.

#![allow(unreachable_pub)]

mod air_gap;
mod bundle;
mod clients;
mod crash;
mod crash_process;
mod delta_push;
mod edge_process;
mod fuzz_replay;
mod gate;
mod gatehouse;
mod hostile;
mod http;
mod identity;
mod lane;
mod ledger;
mod link;
mod pairing;
mod policy;
mod process;
mod source;
mod store;
mod support;
