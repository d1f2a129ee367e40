//! Release bundles: an in-toto Statement in a DSSE envelope; the trust document; receipts.
//!
//! Everything here is a function of bytes, keys and time. A [`Statement`] says what is in a
//! release; an [`Envelope`] carries it with its signatures; a [`TrustDocument`] says whose
//! signatures count and which edge is to hold what; [`verify`] joins the three, and [`admit`]
//! asks whether one edge may have the result. A [`Receipt`] is the edge's answer.

mod constraint;
mod dsse;
mod export;
pub mod limits;
mod receipt;
mod sbom;
mod statement;
mod statement_wire;
mod trust;
mod verify;

pub use self::constraint::{Constraints, EdgePattern, List};
pub use self::dsse::{Envelope, Signature};
pub use self::export::{detached_signature, pae_file, raw_signature, sigstore_bundle};
pub use self::receipt::{RECEIPT_PAYLOAD, Receipt, merkle_root};
pub use self::sbom::{SbomFormat, SbomKind, SbomSummary, summarize};
pub use self::statement::{
    Alias, BundleRef, Evidence, Item, PREDICATE_TYPE, STATEMENT_PAYLOAD, STATEMENT_TYPE, Sbom, Source,
    Statement, StatementBuilder,
};
pub use self::trust::{Anchor, Assignment, EdgeEntry, TRUST_PAYLOAD, TrustDocument, Withdrawal};
pub use self::verify::{VerifiedBundle, admit, verify};
use crate::json;
pub use crate::key::pae;
pub use crate::place::{Country, Network};
