//! The integration tests: one binary, one module a subject.

#![allow(unreachable_pub)]

mod bundle;
mod crash;
mod edge_process;
mod http;
mod lane;
mod process;
mod source;
mod store;
mod support;
