//! Other people's tools verify what this crate signs.
