//! The audit log: what it keeps, what a crash leaves of it, what an edit shows, what is counted.

mod downloads;
mod http;
mod log;
