//! The integration tests: one binary, one module a subject.

#![allow(unreachable_pub)]

mod bundle;
mod http;
mod lane;
mod source;
mod store;
mod support;
