//! JSON Web Tokens in the compact form (RFC 7515 section 7.1, RFC 7519), read strictly and believed
//! only after their signature.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::jwk::Key;
use crate::error::{Error, ErrorKind, Result};
use crate::json::{self, Numbers};

/// Longest token, in bytes.
pub(super) const MAX_JWT: usize = 8192;

/// Whether `text` is meant as a JWT: a JSON object in base64url, and two more parts. No opaque token
/// has two dots.
pub(super) fn looks_like_one(text: &[u8]) -> bool {
    // `{` and any byte after it begin so in base64.
    let object = text.starts_with(b"ey") || text.starts_with(b"ew") || text.starts_with(b"e3");
    object && text.iter().filter(|byte| **byte == b'.').count() == 2
}

/// A token that has been read and not yet been believed.
pub(super) struct Unverified<'t> {
    header: Header,
    claims: Value,
    signed: &'t str,
    signature: Vec<u8>,
}

/// The header of a token. What it may bring along to be verified with, or says must be understood,
/// stands here to be refused.
#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default, deserialize_with = "json::present")]
    kid: Option<String>,
    #[serde(default, deserialize_with = "json::present")]
    typ: Option<String>,
    #[serde(default, deserialize_with = "json::present")]
    jwk: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "json::present")]
    jku: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "json::present")]
    x5u: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "json::present")]
    x5c: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "json::present")]
    crit: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "json::present")]
    b64: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "json::present")]
    zip: Option<IgnoredAny>,
}

impl<'t> Unverified<'t> {
    /// Reads a token.
    pub(super) fn read(token: &'t str) -> Result<Unverified<'t>> {
        if token.len() > MAX_JWT {
            return Err(refused(format!("it has more than {MAX_JWT} bytes")));
        }
        let (signed, signature) = token.rsplit_once('.').ok_or_else(unreadable)?;
        let (header, claims) = signed.split_once('.').ok_or_else(unreadable)?;
        let header: Header = json::read("its header", &decoded(header)?, Numbers::Any).map_err(in_token)?;
        header.check()?;
        let claims = decoded(claims)?;
        // The strict reader sees to it that there is one reading; the other then builds the tree.
        json::read::<IgnoredAny>("its claims", &claims, Numbers::Any).map_err(in_token)?;
        let claims: Value = serde_json::from_slice(&claims).map_err(|_| unreadable())?;
        if !claims.is_object() {
            return Err(refused("its claims are no object"));
        }
        Ok(Unverified { header, claims, signed, signature: decoded(signature)? })
    }

    /// The id of the key that it says signed it.
    pub(super) fn key(&self) -> Option<&str> {
        self.header.kid.as_deref()
    }

    /// Who it says issued it. It chooses whose keys are asked, and those must then have signed it.
    pub(super) fn issuer(&self) -> Option<&str> {
        self.claims.get("iss")?.as_str()
    }

    /// The claims, if `key` signed them.
    pub(super) fn verify(self, key: &Key) -> Result<Value> {
        if !key.algorithm.is_called(&self.header.alg) {
            return Err(refused("it says it was signed by another algorithm than its key's"));
        }
        if !key.verifies(self.signed.as_bytes(), &self.signature) {
            return Err(refused("its signature does not hold"));
        }
        Ok(self.claims)
    }
}

impl Header {
    fn check(&self) -> Result<()> {
        let Header { jwk, jku, x5u, x5c, crit, b64, zip, .. } = self;
        let unwanted = [
            ("jwk", jwk),
            ("jku", jku),
            ("x5u", x5u),
            ("x5c", x5c),
            ("crit", crit),
            ("b64", b64),
            ("zip", zip),
        ];
        if let Some((name, _)) = unwanted.into_iter().find(|(_, member)| member.is_some()) {
            return Err(refused(format!("its header has {name:?}")));
        }
        // RFC 8725 section 3.11: other kinds of JWT are signed by the same keys.
        let known = ["JWT", "at+jwt", "application/at+jwt", "application/jwt"];
        match &self.typ {
            Some(typ) if !known.iter().any(|known| typ.eq_ignore_ascii_case(known)) => {
                Err(refused("its header says it is for something else than access"))
            }
            _ => Ok(()),
        }
    }
}

fn decoded(part: &str) -> Result<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| unreadable())
}

#[cold]
fn in_token(error: Error) -> Error {
    refused(error.message())
}

#[cold]
fn unreadable() -> Error {
    refused("it cannot be read")
}

/// The token that was presented does not hold. Nothing of the token stands in the sentence but
/// names of members.
#[cold]
pub(super) fn refused(why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Unauthenticated, format!("the JWT that was presented is refused: {why}"))
}
