//! Signed URLs for a CDN that stands before an edge: each network checks them its own way.
//!
//! The signers mint; nothing here verifies. What a network cannot express, its signer refuses,
//! instead of signing a URL that opens more than was asked for.

mod akamai;
mod cloudfront;
mod google;

use std::fmt;

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::place::Network;
use crate::secret::Secret;

pub use self::akamai::AkamaiSigner;
pub use self::cloudfront::{CloudFrontSigner, MessageSigner};
pub use self::google::GoogleSigner;

/// What a signed URL is limited to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CdnLimits {
    /// The moment after which the network refuses it.
    pub expires: Timestamp,
    /// The moment before which it does.
    pub starts: Option<Timestamp>,
    /// Where clients may come from.
    pub network: Option<Network>,
    /// Every URL that begins like this, instead of the one URL alone.
    pub prefix: Option<String>,
}

impl CdnLimits {
    /// One URL, until `expires`.
    pub fn until(expires: Timestamp) -> CdnLimits {
        CdnLimits { expires, starts: None, network: None, prefix: None }
    }

    /// The same limits, beginning at `moment`.
    #[must_use]
    pub fn starting(mut self, moment: Timestamp) -> CdnLimits {
        self.starts = Some(moment);
        self
    }

    /// The same limits, for clients of one network.
    #[must_use]
    pub fn for_network(mut self, network: Network) -> CdnLimits {
        self.network = Some(network);
        self
    }

    /// The same limits, for every URL that begins with `prefix`, which ends in `/`.
    #[must_use]
    pub fn for_prefix(mut self, prefix: impl Into<String>) -> CdnLimits {
        self.prefix = Some(prefix.into());
        self
    }
}

/// Signs URLs as one network checks them.
///
/// # Contract
/// - **No more than asked**: a limit that the network cannot express is `Unsupported`.
/// - **One reading**: a URL, or a value, that could be taken for the network's own separators or
///   wildcards is `Invalid`.
pub trait CdnUrlSigner: fmt::Debug + Send + Sync {
    /// `url` with everything that the network wants to see. `url` is absolute, percent-encoded and
    /// without a fragment.
    fn sign(&self, url: &str, limits: &CdnLimits) -> Result<Secret>;
}

/// Checks an absolute URL, and gives its path and query.
fn checked(url: &str) -> Result<&str> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let rest = rest.ok_or_else(|| Error::invalid("a CDN URL is absolute: https://host/path"))?;
    // RFC 3986: nothing else stands in a URI, and a fragment never reaches a server.
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?@!$&'()+,;=%[]".contains(&byte);
    if !url.bytes().all(legal) {
        return Err(Error::invalid("a CDN URL has only characters of RFC 3986, and neither \"*\" nor \"#\""));
    }
    match rest.find('/') {
        Some(at) if at > 0 => Ok(&rest[at..]),
        _ => Err(Error::invalid("a CDN URL names a host and a path")),
    }
}

/// Checks the prefix of [`CdnLimits`], to which `url` must belong.
fn checked_prefix<'a>(url: &str, prefix: &'a str) -> Result<&'a str> {
    let path = checked(prefix)?;
    // Without the slash `/app/1.0` would also sign for `/app/1.0.1`.
    if !prefix.ends_with('/') || prefix.contains('?') || !url.starts_with(prefix) {
        return Err(Error::invalid("a CDN prefix ends in \"/\", has no query, and the URL begins with it"));
    }
    Ok(path)
}

/// `url` with more of a query.
fn with_query(url: &str, query: &str) -> String {
    format!("{url}{}{query}", if url.contains('?') { '&' } else { '?' })
}

#[cold]
fn unsupported(network: &str, what: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("{network} cannot limit a URL by {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_with_a_second_reading_are_refused() {
        assert_eq!(checked("https://cdn.example/a/b.bin?x=1").unwrap(), "/a/b.bin?x=1");
        for bad in [
            "/a",
            "ftp://x/a",
            "https://cdn.example",
            "https:///a",
            "https://x/a*",
            "https://x/a#b",
            "https://x/a b",
            "https://x/a\"b",
            "https://x/ä",
        ] {
            assert!(checked(bad).is_err(), "{bad}");
        }
        for bad in ["https://x/a", "https://x/b/", "https://x/a/?q/"] {
            assert!(checked_prefix("https://x/a/c", bad).is_err(), "{bad}");
        }
        assert_eq!(checked_prefix("https://x/a/c", "https://x/a/").unwrap(), "/a/");
    }
}
