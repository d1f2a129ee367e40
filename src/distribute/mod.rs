//! From desired state to a signed receipt: offer, want, upload, commit.
