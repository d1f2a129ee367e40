//! Content digests: [`Digest`] names bytes, [`Hasher`] makes one from a stream.
//!
//! Trust is SHA-256 alone. [`Checksums`] adds SHA-1 and MD5 as untrusted information for
//! clients that ask for them in headers and indexes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

use crate::error::{Error, Result};

/// A SHA-256 digest. Its text form is `sha256:` and 64 lower-case hex digits
/// (OCI image-spec, *Digests*); nothing else parses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(sha2::Sha256::digest(bytes).into())
    }

    /// The digest with these 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Digest {
        Digest(bytes)
    }

    /// The digest whose 64 lower-case hex digits are `hex`, without an algorithm prefix.
    pub fn from_hex(hex: &str) -> Result<Digest> {
        let mut bytes = [0; 32];
        decode_hex(hex, &mut bytes).ok_or_else(|| bad_digest(hex))?;
        Ok(Digest(bytes))
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 lower-case hex digits, without an algorithm prefix.
    pub fn to_hex(&self) -> String {
        to_hex(&self.0)
    }
}

#[cold]
fn bad_digest(text: &str) -> Error {
    let shown: String = text.chars().take(80).collect();
    Error::invalid(format!("{shown:?} is not a digest: expected \"sha256:\" and 64 lower-case hex digits"))
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Digest> {
        let hex = text.strip_prefix("sha256:").ok_or_else(|| bad_digest(text))?;
        Digest::from_hex(hex).map_err(|_| bad_digest(text))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Lower-case hex of `bytes`.
pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)] as char);
        text.push(DIGITS[usize::from(byte & 15)] as char);
    }
    text
}

/// Decodes exactly `out.len()` bytes of lower-case hex; `None` for anything else.
pub fn decode_hex(text: &str, out: &mut [u8]) -> Option<()> {
    let text = text.as_bytes();
    if text.len() != out.len() * 2 {
        return None;
    }
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    for (pair, byte) in text.chunks_exact(2).zip(out) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(())
}

/// A running SHA-256.
#[derive(Clone, Default)]
pub struct Hasher {
    sha256: sha2::Sha256,
    length: u64,
}

impl Hasher {
    /// A hasher that has seen nothing.
    pub fn new() -> Hasher {
        Hasher::default()
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        self.length += bytes.len() as u64;
    }

    /// How many bytes were taken in.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether nothing was taken in.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The digest of all bytes taken in.
    pub fn finish(self) -> Digest {
        Digest(self.sha256.finalize().into())
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher").field("length", &self.length).finish_non_exhaustive()
    }
}

/// Legacy checksums of an artifact: information for old clients, never a ground for trust.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checksums {
    /// SHA-1, 40 lower-case hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha1: Option<String>,
    /// MD5, 32 lower-case hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub md5: Option<String>,
}

/// A running SHA-256, SHA-1 and MD5 over the same bytes.
#[derive(Clone, Default)]
pub struct ChecksumHasher {
    sha256: Hasher,
    sha1: sha1::Sha1,
    md5: md5::Md5,
}

impl ChecksumHasher {
    /// A hasher that has seen nothing.
    pub fn new() -> ChecksumHasher {
        ChecksumHasher::default()
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        self.sha1.update(bytes);
        self.md5.update(bytes);
    }

    /// Length, digest and legacy checksums of all bytes taken in.
    pub fn finish(self) -> (u64, Digest, Checksums) {
        let length = self.sha256.len();
        let checksums =
            Checksums { sha1: Some(to_hex(&self.sha1.finalize())), md5: Some(to_hex(&self.md5.finalize())) };
        (length, self.sha256.finish(), checksums)
    }
}

impl fmt::Debug for ChecksumHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChecksumHasher").field("length", &self.sha256.length).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_is_strict() {
        let digest = Digest::of(b"abc");
        let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest.to_string(), text);
        assert_eq!(text.parse::<Digest>().unwrap(), digest);
        for bad in [
            "",
            "sha256:",
            &text.to_uppercase(),
            &text[..70],
            &text[7..],
            "md5:900150983cd24fb0d6963f7d28e17f72",
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn checksums_agree_with_known_values() {
        let mut hasher = ChecksumHasher::new();
        hasher.update(b"a");
        hasher.update(b"bc");
        let (length, digest, sums) = hasher.finish();
        assert_eq!((length, digest), (3, Digest::of(b"abc")));
        assert_eq!(sums.sha1.as_deref(), Some("a9993e364706816aba3e25717850c26c9cd0d89d"));
        assert_eq!(sums.md5.as_deref(), Some("900150983cd24fb0d6963f7d28e17f72"));
    }
}
