//! One file a protocol: what a request path means and how the answer is shaped.

pub mod generic;
