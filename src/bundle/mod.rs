//! Release bundles: an in-toto Statement in a DSSE envelope; the trust document; receipts.
