//! Tokens and pairing: how two nodes come to trust each other, and what a person presents.
//!
//! Everything here is a function of bytes, keys and time. A [`PairingToken`] carries the seed of a
//! key pair of which its issuer keeps only the public half; the redeemer proves that it holds the
//! seed and its own identity key ([`Redemption`]), and the issuer's [`PairingState`] says what comes
//! of it. What comes of it is a [`MasterToken`], which opens nothing without the
//! [signature](ControlSigner) of the peer's identity key over each request. A [`UserToken`] is what
//! a person or a service account presents.
//!
//! | prefix | what | kept by the issuer |
//! |---|---|---|
//! | `ept1_` | pairing token, one use, at most an hour | the public key of its seed |
//! | `emt1_` | master token of a pairing | its SHA-256 |
//! | `eut1_` | user token | its SHA-256 |

mod control;
mod message;
mod pairing;
mod redeemer;
mod state;
#[cfg(test)]
mod tests;
mod text;
mod user;

pub use self::control::{
    CONTROL_SKEW, ControlRequest, ControlSigner, NONCE_LIFE, NonceCache, SIGNATURE_HEADER, SignedBody,
    SignedRequest,
};
pub use self::message::{
    Answer, Confirm, MAX_MESSAGE, Nonce, Redeem, Revoke, Rotate, Rotated, Sealed, open_revoke,
};
pub use self::pairing::{DEFAULT_TTL, MAX_TTL, PairingToken};
pub use self::redeemer::{Paired, Redeemer, Redemption};
pub(crate) use self::state::not_redeemable;
pub use self::state::{
    CONFIRM_WITHIN, Ended, Issuer, MAX_ATTEMPTS, MasterRecord, NewPairing, PairingEvent, PairingState,
    PeerRecord, Phase, ROTATION_OVERLAP, Step,
};
pub use self::text::{MasterToken, TokenId, UserToken};
pub(crate) use self::user::not_valid;
pub use self::user::{NewUserToken, TokenPrincipal, TokenRevocation, UserTokenRecord};
