//! What has to hold for any bytes: one function a fuzz target, which panics when it does not.
//!
//! Each tells whether the input was accepted, so that `tests/it/fuzz_replay.rs`, which includes
//! this file and runs the checked-in seeds without a fuzzer, can tell that they reach both sides.

mod address;
mod code;
mod deflate;
mod delta;
mod document;
mod json;
mod ledger;
mod link;
mod mmdb;
mod openpgp;
mod pack;
mod policy;
mod text;

pub use address::address;
pub use code::delta_code;
pub use deflate::deflate;
pub use delta::{apply, open, plan, recipe};
pub use document::{SIGNED_PAYLOAD, envelope, receipt, signing_key, statement, trust};
pub use json::json;
pub use ledger::audit_segment;
pub use link::{ISSUED, base64url, link_claims, link_token, minted, unbase64url};
pub use mmdb::mmdb;
pub use openpgp::{FIXTURES, openpgp};
pub use pack::pack;
pub use policy::{Draw, compare, policy, some_document, some_request};
pub use text::{pattern, query, range, target};

/// Judges one input; tells whether it was accepted.
pub type Oracle = fn(&[u8]) -> bool;

/// Every fuzz target by name.
pub const TARGETS: &[(&str, Oracle)] = &[
    ("target", target),
    ("range", range),
    ("json", json),
    ("envelope", envelope),
    ("statement", statement),
    ("trust", trust),
    ("receipt", receipt),
    ("openpgp", openpgp),
    ("query", query),
    ("pattern", pattern),
    ("address", address),
    ("policy", policy),
    ("deflate", deflate),
    ("open", open),
    ("recipe", recipe),
    ("pack", pack),
    ("delta_code", delta_code),
    ("apply", apply),
    ("plan", plan),
    ("audit_segment", audit_segment),
    ("mmdb", mmdb),
    ("link_token", link_token),
    ("link_claims", link_claims),
];
