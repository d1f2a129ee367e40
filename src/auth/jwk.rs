//! JSON Web Keys (RFC 7517, RFC 7518 section 6, RFC 8037): the keys an issuer signs with, each with
//! the one algorithm it is for.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, RsaParameters,
    RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::error::{Error, Result};
use crate::json::{self, Numbers};

/// Longest key set that is read, in bytes.
pub(super) const MAX_KEY_SET: usize = 256 << 10;
/// Most keys of one set.
const MAX_KEYS: usize = 100;

/// The algorithms that are verified. A key has one of them; what a token says of its algorithm is
/// compared with it and never chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Ed25519,
    Es256,
    Rs256,
    Ps256,
}

impl Algorithm {
    /// Whether this is how a header or a key writes it. RFC 9864 gives EdDSA with Ed25519 a name of
    /// its own.
    pub(super) fn is_called(self, name: &str) -> bool {
        match self {
            Algorithm::Ed25519 => matches!(name, "EdDSA" | "Ed25519"),
            Algorithm::Es256 => name == "ES256",
            Algorithm::Rs256 => name == "RS256",
            Algorithm::Ps256 => name == "PS256",
        }
    }
}

/// A key that verifies.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) id: Option<String>,
    pub(super) algorithm: Algorithm,
    material: Material,
}

#[derive(Clone)]
enum Material {
    /// An Ed25519 key, or a point of P-256, uncompressed.
    Plain(Vec<u8>),
    Rsa(RsaPublicKeyComponents<Vec<u8>>),
}

impl Key {
    /// Whether `signature` is this key's over `message`.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let rsa = |parameters: &'static RsaParameters| match &self.material {
            Material::Rsa(key) => key.verify(parameters, message, signature).is_ok(),
            Material::Plain(_) => false,
        };
        let Material::Plain(bytes) = &self.material else {
            return match self.algorithm {
                Algorithm::Rs256 => rsa(&RSA_PKCS1_2048_8192_SHA256),
                Algorithm::Ps256 => rsa(&RSA_PSS_2048_8192_SHA256),
                Algorithm::Ed25519 | Algorithm::Es256 => false,
            };
        };
        match self.algorithm {
            Algorithm::Ed25519 => UnparsedPublicKey::new(&ED25519, bytes).verify(message, signature).is_ok(),
            Algorithm::Es256 => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, bytes).verify(message, signature).is_ok()
            }
            Algorithm::Rs256 | Algorithm::Ps256 => false,
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// The keys of one issuer.
#[derive(Clone, Debug)]
pub(super) struct Keys(Vec<Key>);

impl Keys {
    /// Reads a JWK set.
    ///
    /// RFC 7517 section 5: keys of a type, curve or use that is not understood, or that lack what
    /// they need, are passed over. So are keys that hold a private part, which is public with them.
    pub(super) fn parse(bytes: &[u8]) -> Result<Keys> {
        if bytes.len() > MAX_KEY_SET {
            return Err(Error::invalid(format!("the key set has more than {MAX_KEY_SET} bytes")));
        }
        let set: Set<'_> = json::read("the key set", bytes, Numbers::Any)?;
        if set.keys.len() > MAX_KEYS {
            return Err(Error::invalid(format!("the key set has more than {MAX_KEYS} keys")));
        }
        let keys: Vec<Key> = set.keys.iter().filter_map(Jwk::key).collect();
        for (at, key) in keys.iter().enumerate() {
            // Two keys of one name would leave it to the token which of them is meant.
            if keys[..at].iter().any(|other| other.id == key.id) {
                return Err(Error::invalid(format!("the key set has two keys with the id {:?}", key.id)));
            }
        }
        if keys.is_empty() {
            return Err(Error::invalid("the key set has no key that can be used here"));
        }
        Ok(Keys(keys))
    }

    /// The key a token names. A token that names none means the only one there is.
    pub(super) fn find(&self, id: Option<&str>) -> Option<&Key> {
        match (id, &self.0[..]) {
            (None, [only]) => Some(only),
            (None, _) => None,
            (Some(id), keys) => keys.iter().find(|key| key.id.as_deref() == Some(id)),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[derive(Deserialize)]
struct Set<'a> {
    #[serde(borrow)]
    keys: Vec<Jwk<'a>>,
}

type Text<'a> = Option<std::borrow::Cow<'a, str>>;

#[derive(Deserialize)]
struct Jwk<'a> {
    #[serde(borrow)]
    kty: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    kid: Text<'a>,
    #[serde(borrow)]
    alg: Text<'a>,
    #[serde(borrow, rename = "use")]
    usage: Text<'a>,
    key_ops: Option<Vec<String>>,
    #[serde(borrow)]
    crv: Text<'a>,
    #[serde(borrow)]
    x: Text<'a>,
    #[serde(borrow)]
    y: Text<'a>,
    #[serde(borrow)]
    n: Text<'a>,
    #[serde(borrow)]
    e: Text<'a>,
    d: Option<IgnoredAny>,
}

impl Jwk<'_> {
    fn key(&self) -> Option<Key> {
        let signs = self.usage.as_deref().is_none_or(|usage| usage == "sig");
        let verifies = self.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if !signs || !verifies || self.d.is_some() {
            return None;
        }
        let (algorithm, material) = match (&*self.kty, self.crv.as_deref()) {
            ("OKP", Some("Ed25519")) => {
                let key = decoded(&self.x)?;
                (key.len() == 32).then_some((Algorithm::Ed25519, Material::Plain(key)))?
            }
            ("EC", Some("P-256")) => {
                let (x, y) = (decoded(&self.x)?, decoded(&self.y)?);
                // RFC 7518 section 6.2.1.2: the length "MUST be the full size of a coordinate".
                let point = [&[4][..], &x, &y].concat();
                (x.len() == 32 && y.len() == 32).then_some((Algorithm::Es256, Material::Plain(point)))?
            }
            ("RSA", _) => {
                let algorithm = match self.alg.as_deref() {
                    None | Some("RS256") => Algorithm::Rs256,
                    Some("PS256") => Algorithm::Ps256,
                    Some(_) => return None,
                };
                (algorithm, rsa(decoded(&self.n)?, decoded(&self.e)?)?)
            }
            _ => return None,
        };
        if self.alg.as_deref().is_some_and(|name| !algorithm.is_called(name)) {
            return None;
        }
        Some(Key { id: self.kid.as_deref().map(str::to_owned), algorithm, material })
    }
}

/// An RSA key of 2048 to 8192 bits, with an exponent that FIPS 186-5 allows and four bytes hold.
fn rsa(n: Vec<u8>, e: Vec<u8>) -> Option<Material> {
    let (n, e) = (stripped(&n), stripped(&e));
    let bits = n.len() * 8 - n.first()?.leading_zeros() as usize;
    let exponent =
        e.iter().try_fold(0_u32, |value, byte| value.checked_mul(256)?.checked_add((*byte).into()))?;
    let good = (2048..=8192).contains(&bits) && exponent >= 65_537 && exponent % 2 == 1;
    good.then(|| Material::Rsa(RsaPublicKeyComponents { n: n.to_owned(), e: e.to_owned() }))
}

/// Some issuers write numbers with a zero byte in front, as ASN.1 does.
fn stripped(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

fn decoded(text: &Text<'_>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text.as_deref()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(keys: &str) -> Option<usize> {
        Keys::parse(format!("{{\"keys\":[{keys}]}}").as_bytes()).ok().map(|keys| keys.len())
    }

    fn ed(more: &str) -> String {
        format!("{{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"{}\"{more}}}", "A".repeat(43))
    }

    fn rsa_key(bytes: usize, e: &str, more: &str) -> String {
        let n = URL_SAFE_NO_PAD.encode(vec![0xc1; bytes]);
        format!("{{\"kty\":\"RSA\",\"n\":\"{n}\",\"e\":\"{e}\"{more}}}")
    }

    #[test]
    fn keys_that_cannot_be_used_are_passed_over() {
        let good = ed("");
        for bad in [
            r#"{"kty":"oct","k":"AAAA"}"#.to_owned(),
            r#"{"kty":"OKP","crv":"X25519","x":"AAAA"}"#.into(),
            r#"{"kty":"OKP","crv":"Ed25519","x":"AAAA"}"#.into(),
            r#"{"kty":"OKP","crv":"Ed25519"}"#.into(),
            r#"{"kty":"EC","crv":"P-256","x":"AAAA","y":"AAAA"}"#.into(),
            r#"{"kty":"EC","crv":"P-521","x":"AAAA","y":"AAAA"}"#.into(),
            r#"{"kty":"new"}"#.into(),
            ed(r#","kid":"k","use":"enc""#),
            ed(r#","kid":"k","key_ops":["sign"]"#),
            ed(r#","kid":"k","alg":"HS256""#),
            ed(r#","kid":"k","alg":"ES256""#),
            ed(r#","kid":"k","d":"AAAA""#),
            rsa_key(128, "AQAB", ""),
            rsa_key(255, "AQAB", ""),
            rsa_key(1025, "AQAB", ""),
            rsa_key(256, "Aw", ""),
            rsa_key(256, "AQAA", ""),
            rsa_key(256, "AQAAAAAB", ""),
            rsa_key(256, "AQAB", r#","alg":"RS512""#),
            rsa_key(256, "AQAB", r#","alg":"RSA-OAEP""#),
            rsa_key(256, "", ""),
            rsa_key(0, "AQAB", ""),
        ] {
            assert_eq!(count(&bad), None, "{bad}");
            assert_eq!(count(&format!("{bad},{good}")), Some(1), "{bad}");
        }
        for good in [
            ed(r#","kid":"k","use":"sig","alg":"EdDSA","key_ops":["verify"],"x5c":["x"],"n":"x""#),
            ed(r#","kid":"k","alg":"Ed25519""#),
            rsa_key(256, "AQAB", r#","kid":"k""#),
            rsa_key(1024, "AQAB", r#","kid":"k","alg":"PS256""#),
        ] {
            assert_eq!(count(&good), Some(1), "{good}");
        }
    }

    #[test]
    fn key_sets_with_two_readings_are_refused() {
        assert_eq!(count(&format!("{},{}", ed(r#","kid":"a""#), ed(r#","kid":"a""#))), None);
        assert_eq!(count(&format!("{},{}", ed(""), ed(""))), None);
        assert_eq!(count(&format!("{},{}", ed(r#","kid":"a""#), ed(""))), Some(2));
        assert_eq!(count(&ed(r#","kid":"a","kid":"b""#)), None);
        assert_eq!(count(&vec![r#"{"kty":"new"}"#; 101].join(",")), None);
        for bad in ["", "{}", "[]", "{\"keys\":[]}", "{\"keys\":{}}", "{\"keys\":[],\"keys\":[]}"] {
            assert!(Keys::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(Keys::parse(&vec![b' '; MAX_KEY_SET + 1]).is_err());
    }
}
