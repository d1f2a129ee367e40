//! Signed URLs: what one is allowed to say, how it is minted, and what it is worth to a request.
//!
//! A link token is `v1.` or `v2.`, a key id, the claims and a tag, joined by dots:
//!
//! ```text
//! token = prefix "." kid "." base64url(claims, JSON) "." base64url(tag)
//! tag   = HMAC-SHA256(key, "edge-url-token\n" || everything before the last dot)    v1
//!       = Ed25519(key, "edge-url-token\n" || everything before the last dot)        v2
//! ```
//!
//! The claims name resources, not URLs: what is verified is what is served. Everything here is a
//! function of its arguments; [`crate::govern`] keeps the keys, the revocations and the budgets.

mod budget;
pub mod cdn;
mod claims;
mod denied;
mod grace;
mod id;
mod key;
mod policy;
mod revoke;
mod seen;
mod span;
mod token;
mod verify;

pub use self::budget::{Budget, Exhausted, REPEATS, Usage};
pub(crate) use self::claims::filled;
pub use self::claims::{Claims, LinkMethod, LinkResource};
pub use self::denied::{Cause, Denied};
pub use self::grace::{Grace, Graced};
pub use self::id::{KeyName, LinkId};
pub use self::key::{KeyState, LinkAlgorithm, LinkKey, LinkKeys};
pub use self::policy::{LinkPolicies, LinkPolicy, PolicyName};
pub use self::revoke::{Epoch, Note, Revocations};
pub use self::seen::SeenTokens;
pub use self::span::Spans;
pub use self::token::{Unverified, inspect, mint, url_path};
pub use self::verify::{LinkRequest, VerifiedLink, Verifier};

/// Longest token, in bytes.
pub const MAX_TOKEN: usize = 2048;
/// The query parameter that carries a token.
pub const PARAMETER: &str = "edge_token";
/// What leads every signed text, so that a key's tags mean nothing anywhere else.
pub const DOMAIN: &[u8] = b"edge-url-token\n";
/// Longest life of a link, in seconds: 365 days.
pub const MAX_LIFETIME: i64 = 365 * 86_400;
/// The life of a link of which nothing else is said, in seconds.
pub const DEFAULT_LIFETIME: i64 = 86_400;
/// How far a link's beginning may lie ahead of this machine's clock, in seconds. Its end has no
/// such margin.
pub const SKEW: i64 = 60;
/// Most keys of a tenant that are active or verify-only.
pub const MAX_LIVE_KEYS: usize = 8;
/// How long a download that began in time may go on after its link's end, in seconds.
pub const DEFAULT_GRACE: i64 = 3_600;
/// The longest such time, in seconds.
pub const MAX_GRACE: i64 = 86_400;
