//! The source service: bundle, sign, distribute.
