//! Values that do not print, compare in constant time, and are wiped when dropped.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};

/// Secret bytes. `Debug` shows `Secret(…)`; there is no `Display` and no `Serialize`.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes over `bytes`.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Secret {
        Secret(Zeroizing::new(bytes.into()))
    }

    /// `length` bytes from the operating system's generator.
    pub fn random(length: usize) -> Result<Secret> {
        let mut bytes = Zeroizing::new(vec![0; length]);
        getrandom::fill(&mut bytes)
            .map_err(|cause| Error::new(ErrorKind::Internal, format!("no randomness: {cause}")))?;
        Ok(Secret(bytes))
    }

    /// A new bearer token: `prefix`, then 32 random bytes as unpadded base64url.
    pub fn token(prefix: &str) -> Result<Secret> {
        let random = Secret::random(32)?;
        Ok(Secret::new(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(random.expose()))))
    }

    /// The bytes themselves. Never log or format what this returns.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The bytes as text, if they are UTF-8. Never log or format what this returns.
    pub fn expose_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The SHA-256 under which a token of 256 random bits may be stored.
    pub fn fingerprint(&self) -> Digest {
        Digest::of(&self.0)
    }

    /// Whether both are the same bytes, in time that depends on the lengths alone.
    pub fn ct_eq(&self, other: &[u8]) -> bool {
        self.0.as_slice().ct_eq(other).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Makes a directory, and those above it, that only its owner can look into. One that is there
/// stays as it is.
#[cfg(any(feature = "redb", feature = "delta"))]
pub(crate) fn private_directory(path: &std::path::Path) -> std::io::Result<()> {
    let mut directory = std::fs::DirBuilder::new();
    directory.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut directory, 0o700);
    directory.create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        let secret = Secret::token("eut1_").unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert!(secret.ct_eq(secret.expose()));
        assert!(!secret.ct_eq(b"eut1_"));
        assert_ne!(Secret::token("").unwrap().expose(), Secret::token("").unwrap().expose());
    }
}
