//! Akamai Edge Authorization tokens, version 2 (`st=…~exp=…~acl=…~hmac=…`).

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::{CdnLimits, CdnUrlSigner, checked, checked_prefix, unsupported, with_query};
use crate::clock::Timestamp;
use crate::digest::to_hex;
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

/// Signs URLs for Akamai's EdgeAuth with HMAC-SHA256.
pub struct AkamaiSigner {
    key: Secret,
    parameter: String,
    salt: Option<Secret>,
    session: Option<String>,
    data: Option<String>,
    escape_early: bool,
}

impl AkamaiSigner {
    /// A signer with the key of the property's behaviour (there given in hex), whose tokens stand in
    /// the query parameter `__token__`.
    ///
    /// # Errors
    /// `Invalid` without a key.
    pub fn new(key: Secret) -> Result<AkamaiSigner> {
        if key.expose().is_empty() {
            return Err(Error::invalid("an EdgeAuth key is empty"));
        }
        let parameter = "__token__".to_owned();
        Ok(AkamaiSigner { key, parameter, salt: None, session: None, data: None, escape_early: false })
    }

    /// The same signer with another query parameter (`hdnts` on older properties).
    #[must_use]
    pub fn with_parameter(mut self, parameter: impl Into<String>) -> AkamaiSigner {
        self.parameter = parameter.into();
        self
    }

    /// The same signer with a salt, which is signed and not sent.
    #[must_use]
    pub fn with_salt(mut self, salt: Secret) -> AkamaiSigner {
        self.salt = Some(salt);
        self
    }

    /// The same signer with a session's id in the token.
    #[must_use]
    pub fn with_session(mut self, session: impl Into<String>) -> AkamaiSigner {
        self.session = Some(session.into());
        self
    }

    /// The same signer with data in the token that the edge may read.
    #[must_use]
    pub fn with_data(mut self, data: impl Into<String>) -> AkamaiSigner {
        self.data = Some(data.into());
        self
    }

    /// The same signer, escaping values before they are signed, if the property is set so.
    #[must_use]
    pub fn with_escape_early(mut self, escape_early: bool) -> AkamaiSigner {
        self.escape_early = escape_early;
        self
    }

    /// A token for one path, which may have a query.
    pub fn url_token(&self, path: &str, limits: &CdnLimits) -> Result<Secret> {
        let mut fields = self.fields(None, limits)?;
        let shown = fields.join("~");
        fields.push(format!("url={}", self.escaped(path)));
        self.finish(shown, &fields)
    }

    /// A token for every path that one of `patterns` matches; `*` and `?` are wildcards there.
    pub fn acl_token(&self, patterns: &[&str], limits: &CdnLimits) -> Result<Secret> {
        if patterns.is_empty() || patterns.iter().any(|pattern| pattern.is_empty() || pattern.contains('!')) {
            return Err(Error::invalid("an EdgeAuth list has at least one pattern, and none with \"!\""));
        }
        let fields = self.fields(Some(patterns.join("!")), limits)?;
        let shown = fields.join("~");
        self.finish(shown, &fields)
    }

    fn fields(&self, acl: Option<String>, limits: &CdnLimits) -> Result<Vec<String>> {
        if limits.starts.is_some_and(|starts| starts == Timestamp::EPOCH || starts >= limits.expires) {
            return Err(Error::invalid("an EdgeAuth token begins after 1970 and before it ends"));
        }
        let mut fields = Vec::new();
        if let Some(network) = &limits.network {
            let address = network.address();
            let one = network.prefix() == if address.is_ipv4() { 32 } else { 128 };
            if !one {
                return Err(unsupported("EdgeAuth", "a network of more than one address"));
            }
            fields.push(format!("ip={}", self.escaped(&address.to_string())));
        }
        if let Some(starts) = limits.starts {
            fields.push(format!("st={}", starts.as_unix()));
        }
        fields.push(format!("exp={}", limits.expires.as_unix()));
        fields.extend(acl.map(|acl| format!("acl={acl}")));
        fields.extend(self.session.as_deref().map(|session| format!("id={}", self.escaped(session))));
        fields.extend(self.data.as_deref().map(|data| format!("data={}", self.escaped(data))));
        // The separator has no escape: with it, one value would become two fields.
        if fields.iter().any(|field| field.contains('~') || field.contains(char::is_control)) {
            return Err(Error::invalid("a value of an EdgeAuth token has a \"~\" or a control character"));
        }
        Ok(fields)
    }

    fn finish(&self, shown: String, fields: &[String]) -> Result<Secret> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.expose())
            .map_err(|_| Error::new(ErrorKind::Internal, "HMAC takes keys of every length"))?;
        mac.update(fields.join("~").as_bytes());
        if let Some(salt) = &self.salt {
            mac.update(b"~salt=");
            mac.update(salt.expose());
        }
        Ok(Secret::new(format!("{shown}~hmac={}", to_hex(&mac.finalize().into_bytes()))))
    }

    /// The form encoding of HTML with lower-case hex digits, if values are escaped early.
    fn escaped(&self, text: &str) -> String {
        if !self.escape_early {
            return text.to_owned();
        }
        let mut out = String::with_capacity(text.len());
        for byte in text.bytes() {
            match byte {
                b' ' => out.push('+'),
                _ if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => out.push(byte as char),
                _ => out.push_str(&format!("%{byte:02x}")),
            }
        }
        out
    }
}

impl CdnUrlSigner for AkamaiSigner {
    fn sign(&self, url: &str, limits: &CdnLimits) -> Result<Secret> {
        let path = checked(url)?;
        let token = match &limits.prefix {
            Some(prefix) => self.acl_token(&[&format!("{}*", checked_prefix(url, prefix)?)], limits)?,
            None => self.url_token(path, limits)?,
        };
        let token = token.expose_str().unwrap_or_default();
        Ok(Secret::new(with_query(url, &format!("{}={token}", self.parameter))))
    }
}

impl fmt::Debug for AkamaiSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AkamaiSigner").field("parameter", &self.parameter).finish_non_exhaustive()
    }
}
