//! Google Cloud CDN: signed URLs and signed URL prefixes (Cloud CDN documentation, *Use signed
//! URLs*).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;

use super::{CdnLimits, CdnUrlSigner, checked, checked_prefix, unsupported, with_query};
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

/// Signs URLs for Cloud CDN with HMAC-SHA1 and a key of 128 bits, as it wants them.
pub struct GoogleSigner {
    key_name: String,
    key: Secret,
}

impl GoogleSigner {
    /// A signer with a key of 16 bytes and the name under which Cloud CDN knows it.
    ///
    /// # Errors
    /// `Invalid` for another length, or a name that is not of `a-z 0-9 -`.
    pub fn new(key_name: &str, key: Secret) -> Result<GoogleSigner> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if key_name.is_empty() || key_name.len() > 63 || !key_name.bytes().all(plain) {
            return Err(Error::invalid("the name of a Cloud CDN key is 1 to 63 of a-z, 0-9 and -"));
        }
        if key.expose().len() != 16 {
            return Err(Error::invalid("a Cloud CDN key has 16 bytes"));
        }
        Ok(GoogleSigner { key_name: key_name.to_owned(), key })
    }

    fn signature(&self, text: &str) -> Result<String> {
        let mut mac = Hmac::<Sha1>::new_from_slice(self.key.expose())
            .map_err(|_| Error::new(ErrorKind::Internal, "HMAC takes keys of every length"))?;
        mac.update(text.as_bytes());
        Ok(URL_SAFE.encode(mac.finalize().into_bytes()))
    }
}

impl CdnUrlSigner for GoogleSigner {
    fn sign(&self, url: &str, limits: &CdnLimits) -> Result<Secret> {
        checked(url)?;
        if limits.starts.is_some() {
            return Err(unsupported("Cloud CDN", "a beginning"));
        }
        if limits.network.is_some() {
            return Err(unsupported("Cloud CDN", "a network"));
        }
        let end = format!("Expires={}&KeyName={}", limits.expires.as_unix(), self.key_name);
        let Some(prefix) = &limits.prefix else {
            let text = with_query(url, &end);
            let signature = self.signature(&text)?;
            return Ok(Secret::new(format!("{text}&Signature={signature}")));
        };
        checked_prefix(url, prefix)?;
        let policy = format!("URLPrefix={}&{end}", URL_SAFE.encode(prefix));
        let signature = self.signature(&policy)?;
        Ok(Secret::new(with_query(url, &format!("{policy}&Signature={signature}"))))
    }
}

impl fmt::Debug for GoogleSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GoogleSigner").field("key_name", &self.key_name).finish_non_exhaustive()
    }
}
