//! Typed records over a metadata store, and the one atomic activation of a bundle.
