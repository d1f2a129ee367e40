//! The limits of the documents. They are checked before the work they bound is done.

/// Most bytes of a bundle's envelope.
pub const ENVELOPE: usize = 32 << 20;
/// Most bytes of a trust document's envelope.
pub const TRUST_DOCUMENT: usize = 5_000_000;
/// Most bytes of a receipt's envelope.
pub const RECEIPT: usize = 64 << 10;
/// Most signatures of an envelope.
pub const SIGNATURES: usize = 16;
/// Most bytes of one signature.
pub const SIGNATURE: usize = 32 << 10;
/// Most bytes of a key id.
pub const KEY_ID: usize = 1024;
/// Most bytes of a payload type.
pub const PAYLOAD_TYPE: usize = 255;
/// Most items, and subjects, of a statement.
pub const ITEMS: usize = 100_000;
/// Most aliases of a statement.
pub const ALIASES: usize = 10_000;
/// Most SBOM entries of a statement.
pub const SBOMS: usize = 1_000;
/// Most evidence entries of a statement.
pub const EVIDENCE: usize = 1_000;
/// Most entries of one list of constraints.
pub const CONSTRAINTS: usize = 1_000;
/// Most bytes of a free text (a label, a reason, a place).
pub const TEXT: usize = 1_024;
/// Deepest nesting of JSON arrays and objects.
pub const DEPTH: usize = crate::json::DEPTH;
/// Most members of one JSON object.
pub const MEMBERS: usize = crate::json::MEMBERS;
/// Largest integer: 2^53 - 1, which every JSON reader holds exactly.
pub const INTEGER: u64 = crate::json::INTEGER;
/// Most bytes of an SBOM that is counted; a larger one is kept, and not summarised.
pub const SBOM: usize = 256 << 20;
/// How far a document may be dated ahead of this machine's clock, in seconds.
pub const CLOCK_SKEW: i64 = 300;
