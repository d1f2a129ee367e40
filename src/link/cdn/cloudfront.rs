//! Amazon CloudFront: canned and custom policies (Developer Guide, *Use signed URLs*).

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{CdnLimits, CdnUrlSigner, checked, checked_prefix, unsupported, with_query};
use crate::error::{Error, Result};
use crate::secret::Secret;

/// Signs a policy with the private key of a CloudFront public key: RSA PKCS #1 v1.5 with SHA-1, or
/// ECDSA P-256 with SHA-1, as CloudFront checks them. This crate holds no such key: it stays with
/// the caller, in a file, a key service or a token.
pub trait MessageSigner: Send + Sync {
    /// The signature over `message`, in the bytes that the algorithm gives.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>>;
}

impl<F> MessageSigner for F
where
    F: Fn(&[u8]) -> Result<Vec<u8>> + Send + Sync,
{
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        self(message)
    }
}

/// Signs URLs for CloudFront: with a canned policy if an end is the only limit, else with a custom
/// one.
#[derive(Clone)]
pub struct CloudFrontSigner {
    key_pair: String,
    signer: Arc<dyn MessageSigner>,
}

impl CloudFrontSigner {
    /// A signer with the id of a public key that CloudFront knows.
    ///
    /// # Errors
    /// `Invalid` for an id that is not of letters and digits.
    pub fn new(key_pair: &str, signer: Arc<dyn MessageSigner>) -> Result<CloudFrontSigner> {
        if key_pair.is_empty() || !key_pair.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(Error::invalid("the id of a CloudFront key is of letters and digits"));
        }
        Ok(CloudFrontSigner { key_pair: key_pair.to_owned(), signer })
    }

    /// The policy for `url`, byte by byte as it is signed.
    fn policy(url: &str, limits: &CdnLimits) -> Result<String> {
        let resource = match &limits.prefix {
            Some(prefix) => {
                checked_prefix(url, prefix)?;
                format!("{prefix}*")
            }
            None => url.to_owned(),
        };
        let mut condition = format!("\"DateLessThan\":{{\"AWS:EpochTime\":{}}}", limits.expires.as_unix());
        if let Some(network) = &limits.network {
            if network.address().is_ipv6() {
                return Err(unsupported("CloudFront", "an IPv6 network"));
            }
            condition.push_str(&format!(",\"IpAddress\":{{\"AWS:SourceIp\":\"{network}\"}}"));
        }
        if let Some(starts) = limits.starts {
            condition.push_str(&format!(",\"DateGreaterThan\":{{\"AWS:EpochTime\":{}}}", starts.as_unix()));
        }
        // No character of a checked URL has an escape in JSON.
        Ok(format!("{{\"Statement\":[{{\"Resource\":\"{resource}\",\"Condition\":{{{condition}}}}}]}}"))
    }
}

impl CdnUrlSigner for CloudFrontSigner {
    fn sign(&self, url: &str, limits: &CdnLimits) -> Result<Secret> {
        checked(url)?;
        let policy = CloudFrontSigner::policy(url, limits)?;
        let signature = encoded(&self.signer.sign(policy.as_bytes())?);
        let canned = limits.starts.is_none() && limits.network.is_none() && limits.prefix.is_none();
        let first = match canned {
            true => format!("Expires={}", limits.expires.as_unix()),
            false => format!("Policy={}", encoded(policy.as_bytes())),
        };
        let query = format!("{first}&Signature={signature}&Key-Pair-Id={}", self.key_pair);
        Ok(Secret::new(with_query(url, &query)))
    }
}

impl fmt::Debug for CloudFrontSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloudFrontSigner").field("key_pair", &self.key_pair).finish_non_exhaustive()
    }
}

/// Base64 in which what a query would misread is replaced: `+` by `-`, `=` by `_`, `/` by `~`.
fn encoded(bytes: &[u8]) -> String {
    STANDARD.encode(bytes).replace('+', "-").replace('=', "_").replace('/', "~")
}
