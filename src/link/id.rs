//! The names of links and of their keys.

use std::fmt;
use std::str::FromStr;

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::place::text_serde;

/// Crockford's base 32: no I, L, O, U.
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// A link's id: a ULID, 26 characters of Crockford's base 32 in upper case. Ids of later moments
/// are greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(u128);

impl LinkId {
    /// An id for a link made at `now`: 48 bits of time in milliseconds and 80 random bits.
    pub fn generate(now: Timestamp) -> Result<LinkId> {
        let mut random = [0_u8; 16];
        getrandom::fill(&mut random[6..])
            .map_err(|cause| Error::new(ErrorKind::Internal, format!("no randomness: {cause}")))?;
        let milliseconds = u64::try_from(now.as_unix()).unwrap_or(0).saturating_mul(1000);
        Ok(LinkId(u128::from(milliseconds & 0xffff_ffff_ffff) << 80 | u128::from_be_bytes(random)))
    }

    /// The id with this number.
    pub const fn from_number(number: u128) -> LinkId {
        LinkId(number)
    }

    /// The id as a number, in the order of the texts.
    pub const fn number(self) -> u128 {
        self.0
    }
}

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0_u8; 26];
        for (at, digit) in text.iter_mut().rev().enumerate() {
            *digit = DIGITS[(self.0 >> (5 * at)) as usize & 31];
        }
        // Every digit is ASCII.
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for LinkId {
    type Err = Error;

    fn from_str(text: &str) -> Result<LinkId> {
        let bytes = text.as_bytes();
        // 26 digits hold 130 bits: the first is at most 7.
        if bytes.len() != 26 || bytes[0] > b'7' {
            return Err(bad_id(text));
        }
        let mut number = 0_u128;
        for byte in bytes {
            let digit = DIGITS.iter().position(|digit| digit == byte).ok_or_else(|| bad_id(text))?;
            number = number << 5 | digit as u128;
        }
        Ok(LinkId(number))
    }
}

#[cold]
fn bad_id(text: &str) -> Error {
    let shown: String = text.chars().take(40).collect();
    Error::invalid(format!("{shown:?} is not a link's id: expected a ULID, 26 digits in upper case"))
}

/// The id of a link key: 1-32 of `a-z 0-9 _ -`, led by a letter or digit. It may name a file.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName(Box<str>);

impl KeyName {
    /// Checks `text` and takes it as an id.
    pub fn new(text: &str) -> Result<KeyName> {
        if KeyName::fits(text) { Ok(KeyName(text.into())) } else { Err(bad_name(text)) }
    }

    /// A new id: `k` and eight random hex digits.
    pub fn generate() -> Result<KeyName> {
        let random = crate::secret::Secret::random(4)?;
        Ok(KeyName(format!("k{}", crate::digest::to_hex(random.expose())).into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn fits(text: &str) -> bool {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        (1..=32).contains(&text.len())
            && text.bytes().all(|byte| plain(byte) || b"_-".contains(&byte))
            && text.bytes().next().is_some_and(plain)
    }
}

#[cold]
fn bad_name(text: &str) -> Error {
    let shown: String = text.chars().take(40).collect();
    Error::invalid(format!("{shown:?} is not a link key's id: expected 1 to 32 of a-z, 0-9, - and _"))
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl FromStr for KeyName {
    type Err = Error;

    fn from_str(text: &str) -> Result<KeyName> {
        KeyName::new(text)
    }
}

text_serde!(LinkId, KeyName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_one_spelling() {
        let text = "01JD7ZC5N0E8T4S1Q2W3X4Y5Z6";
        let id: LinkId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(LinkId::from_number(u128::MAX).to_string(), "7ZZZZZZZZZZZZZZZZZZZZZZZZZ");
        for bad in
            ["", "8ZZZZZZZZZZZZZZZZZZZZZZZZZ", "01jd7zc5n0e8t4s1q2w3x4y5z6", "01JD7ZC5N0E8T4S1Q2W3X4Y5ZI"]
        {
            assert!(bad.parse::<LinkId>().is_err(), "{bad}");
        }
        let now = Timestamp::from_unix(1_800_000_000);
        let (one, two) = (LinkId::generate(now).unwrap(), LinkId::generate(now.plus(1)).unwrap());
        assert!(one < two && one.to_string() < two.to_string());
        assert_ne!(one, LinkId::generate(now).unwrap());
    }

    #[test]
    fn a_key_id_cannot_leave_its_directory() {
        for bad in ["", ".", "../x", "a/b", "A", "-a", "a.b", &"a".repeat(33)] {
            assert!(KeyName::new(bad).is_err(), "{bad:?}");
        }
        assert!(KeyName::new("k1-eu_2").is_ok());
        assert!(KeyName::fits(KeyName::generate().unwrap().as_str()));
    }
}
