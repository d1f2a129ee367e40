//! Keys: ids, signing and verifying under this crate's own policy, key rings.
