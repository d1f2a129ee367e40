//! The integration tests: one binary, one module a subject.

mod lane;
mod source;
mod store;
mod support;
