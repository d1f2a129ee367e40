//! The text of a token: `prefix id _ secret _ checksum`.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::{Digest, to_hex};
use crate::error::{Error, Result};
use crate::secret::Secret;

/// Digits of an id.
const ID: usize = 16;
/// Characters of 32 bytes as unpadded base64url.
const SECRET: usize = 43;
/// Digits of a checksum.
pub(super) const CHECKSUM: usize = 8;

/// Names a token or a pairing: 16 lower-case hex digits. It is no secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(u64);

impl TokenId {
    /// A new id.
    ///
    /// # Errors
    /// If the operating system has no randomness.
    pub fn random() -> Result<TokenId> {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(Secret::random(8)?.expose());
        Ok(TokenId(u64::from_be_bytes(bytes)))
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TokenId {
    type Err = Error;

    fn from_str(text: &str) -> Result<TokenId> {
        let hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let value = (hex && text.len() == ID).then(|| u64::from_str_radix(text, 16).ok()).flatten();
        value.map(TokenId).ok_or_else(|| {
            let shown: String = text.chars().take(40).collect();
            Error::invalid(format!("{shown:?} is not the id of a token: expected {ID} lower-case hex digits"))
        })
    }
}

impl Serialize for TokenId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TokenId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TokenId, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

macro_rules! token {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name {
            id: TokenId,
            text: Secret,
        }

        impl $name {
            /// What its text begins with.
            pub const PREFIX: &'static str = $prefix;

            /// A new token of this id, with 256 random bits.
            ///
            /// # Errors
            /// If the operating system has no randomness.
            pub fn mint(id: TokenId) -> Result<$name> {
                let random = Secret::random(32)?;
                let secret = URL_SAFE_NO_PAD.encode(random.expose());
                let body = format!("{}{id}_{secret}", $prefix);
                let text = format!("{body}_{:08x}", crc32c(body.as_bytes()));
                Ok($name { id, text: Secret::new(text) })
            }

            /// Whether `text` is meant to be such a token: it has the prefix and the length of one.
            pub fn is_meant(text: &Secret) -> bool {
                text.expose().len() == $prefix.len() + ID + SECRET + CHECKSUM + 2
                    && text.expose().starts_with($prefix.as_bytes())
            }

            /// Reads a token.
            ///
            /// # Errors
            /// [`ErrorKind::Invalid`](crate::error::ErrorKind::Invalid) if the text is none, or was
            /// mistyped or cut.
            pub fn parse(text: &Secret) -> Result<$name> {
                let bad = || Error::invalid(concat!("this is not a ", $what, ": it was cut or mistyped"));
                if !$name::is_meant(text) {
                    return Err(bad());
                }
                let whole = text.expose_str().ok_or_else(bad)?;
                let (body, checksum) = whole.rsplit_once('_').ok_or_else(bad)?;
                if format!("{:08x}", crc32c(body.as_bytes())) != checksum {
                    return Err(bad());
                }
                let (id, secret) = body[$prefix.len()..].split_once('_').ok_or_else(bad)?;
                let bytes = Secret::new(URL_SAFE_NO_PAD.decode(secret).map_err(|_| bad())?);
                if bytes.expose().len() != 32 {
                    return Err(bad());
                }
                Ok($name { id: id.parse().map_err(|_| bad())?, text: text.clone() })
            }

            /// Its id.
            pub fn id(&self) -> TokenId {
                self.id
            }

            /// The token itself, to be shown once. Never log it.
            pub fn secret(&self) -> &Secret {
                &self.text
            }

            /// Under which it is stored: the SHA-256 of its text, the id included.
            pub fn fingerprint(&self) -> Digest {
                self.text.fingerprint()
            }
        }
    };
}

token!(
    /// What a paired service presents with every control request: `emt1_<id>_<32 bytes>_<crc>`. The
    /// id is that of the pairing.
    MasterToken, "emt1_", "master token"
);
token!(
    /// What a person or a service account presents: `eut1_<id>_<32 bytes>_<crc>`.
    UserToken, "eut1_", "user token"
);

/// CRC-32C (Castagnoli; RFC 3720 appendix B.4), for mistakes and not against malice.
pub(super) const fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    let mut at = 0;
    while at < bytes.len() {
        crc = crc >> 8 ^ TABLE[((crc ^ bytes[at] as u32) & 0xff) as usize];
        at += 1;
    }
    !crc
}

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// 32 bytes as text.
pub(super) fn encode32(bytes: &[u8; 32]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads 32 bytes of canonical, unpadded base64url.
pub(super) fn decode32(text: &str) -> Option<[u8; 32]> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

/// A key's fingerprint for people: the first 16 hex digits of the SHA-256 of its bytes, in fours.
pub(super) fn shown(key: &[u8; 32]) -> String {
    let hex = to_hex(&Digest::of(key).as_bytes()[..8]);
    [&hex[..4], &hex[4..8], &hex[8..12], &hex[12..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3720 appendix B.4, and the check value of the catalogue of CRC algorithms.
    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    #[test]
    fn a_token_comes_back_and_any_slip_is_seen() {
        let id = TokenId::random().unwrap();
        let token = MasterToken::mint(id).unwrap();
        let again = MasterToken::parse(token.secret()).unwrap();
        assert_eq!((again.id(), again.fingerprint()), (id, token.fingerprint()));
        assert!(UserToken::parse(token.secret()).is_err());
        let text = token.secret().expose().to_vec();
        for at in 0..text.len() {
            let mut slip = text.clone();
            slip[at] = if slip[at] == b'a' { b'b' } else { b'a' };
            let error = MasterToken::parse(&Secret::new(slip)).unwrap_err();
            assert!(!error.to_string().contains("emt1"), "{error}");
            assert!(MasterToken::parse(&Secret::new(&text[..at])).is_err());
        }
        assert!(!format!("{token:?}").contains("emt1"), "{token:?}");
    }
}
