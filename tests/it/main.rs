//! The integration tests: one binary, one module a subject.

#[cfg(all(feature = "server", feature = "client"))]
mod http;
