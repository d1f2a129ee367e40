//! The messages of pairing: strict JSON under signatures over its pre-authentication encoding.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::text::TokenId;
use crate::access::{Scope, UseCase};
use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::json;
use crate::key::{Acceptance, Algorithm, KeySet, PublicKey, Signer, pae};
use crate::name::NodeName;
use crate::secret::Secret;

/// Most bytes of a sealed message.
pub const MAX_MESSAGE: usize = 256 << 10;
/// How far a message may be dated from the reader's clock, in seconds.
pub(super) const SKEW: i64 = 300;
/// Longest address of a redeemer.
const MAX_URL: usize = 1_024;

/// 128 random bits that a message carries so that it is unlike every other. The text form is 22
/// characters of base64url.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nonce([u8; 16]);

impl Nonce {
    /// A new one.
    ///
    /// # Errors
    /// If the operating system has no randomness.
    pub fn random() -> Result<Nonce> {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(Secret::random(16)?.expose());
        Ok(Nonce(bytes))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Nonce {
    type Err = Error;

    fn from_str(text: &str) -> Result<Nonce> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Nonce).ok_or_else(|| Error::invalid("a nonce is 16 bytes of unpadded base64url"))
    }
}

impl Serialize for Nonce {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Nonce {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Nonce, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A message's bytes with their signatures. What is verified and what is read are the same bytes.
/// `Debug` shows neither.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    body: Vec<u8>,
    /// By the seed of a pairing token.
    proof: Option<Vec<u8>>,
    /// By the sender's identity key.
    signature: Option<Vec<u8>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    body: String,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "json::present")]
    proof: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "json::present")]
    sig: Option<String>,
}

impl Sealed {
    /// Reads `{"body", "proof"?, "sig"?}`, each base64url; nothing is verified.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] over [`MAX_MESSAGE`] bytes, [`ErrorKind::Invalid`] for the form.
    pub fn parse(bytes: &[u8]) -> Result<Sealed> {
        if bytes.len() > MAX_MESSAGE {
            let message = format!("a pairing message has at most {MAX_MESSAGE} bytes");
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        let wire: Wire = json::parse("the pairing message", bytes)?;
        let decode = |text: &str| {
            URL_SAFE_NO_PAD
                .decode(text)
                .map_err(|_| Error::invalid("the pairing message has a member that is not base64url"))
        };
        Ok(Sealed {
            body: decode(&wire.body)?,
            proof: wire.proof.as_deref().map(decode).transpose()?,
            signature: wire.sig.as_deref().map(decode).transpose()?,
        })
    }

    /// The message as it travels.
    pub fn to_json(&self) -> Vec<u8> {
        let encode = |bytes: &Vec<u8>| URL_SAFE_NO_PAD.encode(bytes);
        let wire = Wire {
            body: encode(&self.body),
            proof: self.proof.as_ref().map(encode),
            sig: self.signature.as_ref().map(encode),
        };
        // Texts always serialise.
        serde_json::to_vec(&wire).unwrap_or_default()
    }

    /// What an answer names it by: the SHA-256 of its body.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.body)
    }

    /// The pairing that it says it is about; nothing is verified.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if it does not say.
    pub fn subject(&self) -> Result<TokenId> {
        #[derive(Deserialize)]
        struct Subject {
            id: TokenId,
        }
        json::parse("the pairing message", &self.body).map(|subject: Subject| subject.id)
    }

    pub(super) fn read<T: DeserializeOwned>(&self, what: &str) -> Result<T> {
        json::parse(what, &self.body)
    }

    pub(super) fn seal<T: Message>(
        message: &T,
        proof: Option<&dyn Signer>,
        signer: &dyn Signer,
        now: Timestamp,
    ) -> Result<Sealed> {
        let body = serde_json::to_vec(message).map_err(|cause| {
            Error::new(ErrorKind::Internal, format!("a pairing message cannot be written: {cause}"))
        })?;
        let signed = pae(T::TYPE, &body);
        let proof = proof.map(|proof| proof.sign(&signed, now)).transpose()?;
        let signature = Some(signer.sign(&signed, now)?);
        Ok(Sealed { body, proof, signature })
    }

    /// Whether the seed whose public key is `key` signed.
    pub(super) fn is_proven<T: Message>(&self, key: &PublicKey, now: Timestamp) -> bool {
        let signed = pae(T::TYPE, &self.body);
        let proof = self.proof.as_deref().unwrap_or_default();
        key.verify(&signed, proof, &Acceptance::at(now)).is_ok()
    }

    /// # Errors
    /// [`ErrorKind::Unauthenticated`] unless the identity key `key` signed.
    pub(super) fn check_signature<T: Message>(&self, key: &PublicKey, now: Timestamp) -> Result<()> {
        let Some(signature) = &self.signature else {
            return Err(Error::new(
                ErrorKind::Unauthenticated,
                "the pairing message has no signature of an identity key",
            ));
        };
        key.verify(&pae(T::TYPE, &self.body), signature, &Acceptance::at(now)).map_err(|_| {
            Error::new(
                ErrorKind::Unauthenticated,
                "the signature of the pairing message is not that of the identity key",
            )
        })
    }

    /// The message, once its signature was found good.
    pub(super) fn open<T: Message>(&self, key: &PublicKey, now: Timestamp) -> Result<T> {
        self.check_signature::<T>(key, now)?;
        self.read(T::WHAT)
    }

    /// The same message as somebody sends it who leaves a signature out.
    #[cfg(test)]
    pub(super) fn stripped(mut self, proof: bool, signature: bool) -> Sealed {
        self.proof = self.proof.filter(|_| !proof);
        self.signature = self.signature.filter(|_| !signature);
        self
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.body.len())
    }
}

/// What a message is called, and under which payload type it is signed.
pub(super) trait Message: Serialize + DeserializeOwned {
    const TYPE: &'static str;
    const WHAT: &'static str;
}

macro_rules! message {
    ($name:ident, $kind:literal) => {
        impl Message for $name {
            const TYPE: &'static str = concat!("application/vnd.distedge.pair.", $kind, ".v1+json");
            const WHAT: &'static str = concat!("the pairing's ", $kind);
        }
    };
}

message!(Redeem, "redeem");
message!(Answer, "answer");
message!(Confirm, "confirm");
message!(Rotate, "rotate");
message!(Rotated, "rotated");
message!(Revoke, "revoke");

/// Who holds a pairing token asks to be paired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redeem {
    /// The token's id.
    pub id: TokenId,
    /// The use case, which must be the token's.
    #[serde(rename = "use")]
    pub use_case: UseCase,
    /// The scope, which must be the token's; left out, it is taken as issued.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "json::present")]
    pub scopes: Option<Vec<Scope>>,
    /// The redeemer's identity key.
    pub redeemer_key: PublicKey,
    /// What the redeemer is called.
    pub name: NodeName,
    /// Where it is reached, if it can be.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "json::present")]
    pub base_url: Option<String>,
    /// The root keys of the tenant, if the redeemer is its source.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "json::present")]
    pub roots: Option<KeySet>,
    /// Makes the request unlike every other.
    pub nonce: Nonce,
    /// When it was made.
    pub ts: Timestamp,
}

impl Redeem {
    pub(super) fn check(&self) -> Result<()> {
        if self.redeemer_key.algorithm() != Algorithm::Ed25519 {
            return Err(Error::invalid("an identity key is an Ed25519 key"));
        }
        let plain = |url: &String| url.len() <= MAX_URL && url.bytes().all(|byte| byte.is_ascii_graphic());
        if self.base_url.as_ref().is_some_and(|url| !plain(url) || url.contains('@')) {
            return Err(Error::invalid(format!(
                "a redeemer's address has at most {MAX_URL} visible ASCII characters and no credentials"
            )));
        }
        self.roots.as_ref().map_or(Ok(()), KeySet::check)
    }
}

/// The issuer's yes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The master token.
    pub master_token: String,
    /// What the issuer is called.
    pub peer: NodeName,
    /// The issuer's clock.
    pub time: Timestamp,
    /// The scope of the pairing.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "json::present")]
    pub scopes: Option<Vec<Scope>>,
    /// The root keys of the tenant, if the issuer is its source or already knows them.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "json::present")]
    pub roots: Option<KeySet>,
    /// Which master token of this pairing it is, from 1 on.
    pub epoch: u64,
    /// The [digest](Sealed::digest) of the request that is answered.
    pub hash: Digest,
    /// The nonce of that request.
    pub nonce: Nonce,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("peer", &self.peer).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// The redeemer has stored what it was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confirm {
    /// The pairing.
    pub id: TokenId,
    /// The fingerprint of the master token that was stored.
    pub master: Digest,
    /// Makes the message unlike every other.
    pub nonce: Nonce,
    /// When it was made.
    pub ts: Timestamp,
}

/// The peer asks for another master token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotate {
    /// The pairing.
    pub id: TokenId,
    /// The fingerprint of the master token that it has.
    pub master: Digest,
    /// Makes the message unlike every other.
    pub nonce: Nonce,
    /// When it was made.
    pub ts: Timestamp,
}

/// The issuer's answer to [`Rotate`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotated {
    /// The new master token.
    pub master_token: String,
    /// The first moment at which the old one is no longer good.
    pub until: Timestamp,
    /// Which master token of this pairing it is.
    pub epoch: u64,
    /// The [digest](Sealed::digest) of the request that is answered.
    pub hash: Digest,
    /// The nonce of that request.
    pub nonce: Nonce,
}

impl fmt::Debug for Rotated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rotated")
            .field("epoch", &self.epoch)
            .field("until", &self.until)
            .finish_non_exhaustive()
    }
}

/// One side ends the pairing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revoke {
    /// The pairing.
    pub id: TokenId,
    /// Why.
    pub reason: String,
    /// Makes the message unlike every other.
    pub nonce: Nonce,
    /// When it was made.
    pub ts: Timestamp,
}

impl Revoke {
    /// Signs that the pairing `id` ends.
    ///
    /// # Errors
    /// What the signer says; if there is no randomness.
    pub fn seal(id: TokenId, reason: &str, signer: &dyn Signer, now: Timestamp) -> Result<Sealed> {
        let message = Revoke { id, reason: reason.to_owned(), nonce: Nonce::random()?, ts: now };
        Sealed::seal(&message, None, signer, now)
    }
}

/// Reads that the other side, whose identity key is `key`, ends the pairing `id`.
///
/// # Errors
/// [`ErrorKind::Unauthenticated`] if `key` did not sign it or it is not of these five minutes;
/// [`ErrorKind::Forbidden`] if it is about another pairing.
pub fn open_revoke(sealed: &Sealed, id: TokenId, key: &PublicKey, now: Timestamp) -> Result<Revoke> {
    let message: Revoke = sealed.open(key, now)?;
    check_fresh(message.ts, now)?;
    if message.id != id {
        return Err(other_pairing());
    }
    Ok(message)
}

/// # Errors
/// [`ErrorKind::Unauthenticated`] if the two clocks are too far apart.
pub(super) fn check_fresh(ts: Timestamp, now: Timestamp) -> Result<()> {
    let apart = ts.as_unix() - now.as_unix();
    if apart.abs() <= SKEW {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Unauthenticated,
        format!(
            "the message is dated {} seconds {} this node's clock, at most {SKEW} are allowed",
            apart.abs(),
            if apart > 0 { "ahead of" } else { "behind" }
        ),
    ))
}

#[cold]
pub(super) fn other_pairing() -> Error {
    Error::new(ErrorKind::Forbidden, "the message is about another pairing")
}
