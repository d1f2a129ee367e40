//! The pairing token: `ept1_` base64url(JSON) `_` CRC-32C.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::text::{CHECKSUM, TokenId, crc32c, decode32, encode32, shown};
use crate::access::UseCase;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::json;
use crate::key::{PublicKey, SigningKey};
use crate::name::NodeName;
use crate::secret::Secret;

/// How long a pairing token is good for unless told otherwise, in seconds.
pub const DEFAULT_TTL: i64 = 300;
/// The longest a pairing token may be good for, in seconds.
pub const MAX_TTL: i64 = 3_600;

const PREFIX: &str = "ept1_";
/// Longer than any token there can be.
const MAX_TEXT: usize = 1_024;

/// What an administrator carries from the issuer to the redeemer. `Debug` hides the seed.
#[derive(Clone)]
pub struct PairingToken {
    id: TokenId,
    use_case: UseCase,
    issuer: NodeName,
    key: PublicKey,
    expires: Timestamp,
    seed: Secret,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire<'a> {
    v: u32,
    id: TokenId,
    #[serde(rename = "use")]
    use_case: UseCase,
    iss: NodeName,
    #[serde(borrow)]
    ik: std::borrow::Cow<'a, str>,
    exp: u64,
    #[serde(borrow)]
    seed: std::borrow::Cow<'a, str>,
}

impl PairingToken {
    /// A token of `issuer`, whose identity key is `key`, with a new seed.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if `key` is no Ed25519 key; if there is no randomness.
    pub fn mint(
        id: TokenId,
        use_case: UseCase,
        issuer: &NodeName,
        key: &PublicKey,
        expires: Timestamp,
    ) -> Result<PairingToken> {
        if key.to_ed25519().is_none() {
            return Err(Error::invalid("an identity key is an Ed25519 key"));
        }
        let seed = Secret::random(32)?;
        Ok(PairingToken { id, use_case, issuer: issuer.clone(), key: key.clone(), expires, seed })
    }

    /// Reads a token.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if it is none, was cut or mistyped; [`ErrorKind::Unsupported`] for
    /// another version.
    pub fn parse(text: &Secret) -> Result<PairingToken> {
        let bad = || Error::invalid("this is not a pairing token: it was cut or mistyped");
        let text = text.expose_str().map(str::trim).filter(|text| text.len() <= MAX_TEXT).ok_or_else(bad)?;
        let (body, checksum) = text.rsplit_once('_').ok_or_else(bad)?;
        let encoded = body.strip_prefix(PREFIX).ok_or_else(bad)?;
        if checksum.len() != CHECKSUM || checksum != format!("{:08x}", crc32c(body.as_bytes())) {
            return Err(bad());
        }
        let json = Zeroizing::new(URL_SAFE_NO_PAD.decode(encoded).map_err(|_| bad())?);
        let wire: Wire<'_> = json::parse("the pairing token", &json)?;
        if wire.v != 1 {
            let message = format!("the pairing token has version {}, and this program knows 1", wire.v);
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let key = PublicKey::from_ed25519(decode32(&wire.ik).ok_or_else(bad)?)?;
        let seed = Zeroizing::new(decode32(&wire.seed).ok_or_else(bad)?);
        Ok(PairingToken {
            id: wire.id,
            use_case: wire.use_case,
            issuer: wire.iss,
            key,
            expires: Timestamp::from_unix(i64::try_from(wire.exp).unwrap_or(i64::MAX)),
            seed: Secret::new(seed.as_slice()),
        })
    }

    /// The token's text, to be shown once. Never log it.
    pub fn to_text(&self) -> Secret {
        // Both were checked when the token was made.
        let key = self.key.to_ed25519().unwrap_or_default();
        let seed: Zeroizing<[u8; 32]> = Zeroizing::new(self.seed.expose().try_into().unwrap_or_default());
        let wire = Wire {
            v: 1,
            id: self.id,
            use_case: self.use_case,
            iss: self.issuer.clone(),
            ik: encode32(&key).into(),
            exp: self.expires.as_unix().unsigned_abs(),
            seed: encode32(&seed).into(),
        };
        // Names and numbers always serialise.
        let json = Zeroizing::new(serde_json::to_vec(&wire).unwrap_or_default());
        let body = Zeroizing::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&*json)));
        Secret::new(format!("{}_{:08x}", *body, crc32c(body.as_bytes())))
    }

    /// The id of the pairing it leads to.
    pub fn id(&self) -> TokenId {
        self.id
    }

    /// What the two are to be paired for.
    pub fn use_case(&self) -> UseCase {
        self.use_case
    }

    /// What its issuer is called.
    pub fn issuer(&self) -> &NodeName {
        &self.issuer
    }

    /// The issuer's identity key.
    pub fn issuer_key(&self) -> &PublicKey {
        &self.key
    }

    /// The issuer's identity key in a form that people can compare, like `1a2b-3c4d-5e6f-7081`.
    pub fn issuer_fingerprint(&self) -> String {
        shown(&self.key.to_ed25519().unwrap_or_default())
    }

    /// The first moment at which it is no longer good.
    pub fn expires(&self) -> Timestamp {
        self.expires
    }

    /// The key pair of its seed.
    ///
    /// # Errors
    /// None that a token that was minted or parsed can have.
    pub fn proof_key(&self) -> Result<SigningKey> {
        SigningKey::from_ed25519_seed(&self.seed)
    }
}

impl fmt::Debug for PairingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PairingToken")
            .field("id", &self.id)
            .field("use_case", &self.use_case)
            .field("issuer", &self.issuer)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}
