//! Who presents a TLS client certificate: [`ClientCertificate`] as the server hands it over, and
//! [`CertificateAuthenticator`], which knows some of them.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use http::header::AUTHORIZATION;
use http::request::Parts;

use super::{API_KEY, Authenticator, Challenge};
use crate::access::{Identity, Principal};
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};

/// The certificate that a client proved to hold in the TLS handshake, and that the server's
/// authorities vouch for. The server puts it into the request's extensions; nothing that a client
/// sends in a header becomes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// SHA-256 of the certificate's DER encoding.
    pub fingerprint: Digest,
    /// Its subject alternative names (RFC 5280 section 4.2.1.6) of the kinds dNSName,
    /// uniformResourceIdentifier and rfc822Name, as they are written. The common name of the
    /// subject is not among them: nobody promises that it is unique.
    pub names: Vec<String>,
}

/// Whose certificate it is: one rule of a [`CertificateAuthenticator`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRule {
    /// What the certificate must have.
    pub holds: CertificateMark,
    /// Who its holder is.
    pub principal: Principal,
}

/// What tells one certificate from others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CertificateMark {
    /// It is this one and no other.
    Fingerprint(Digest),
    /// It has this subject alternative name, byte for byte: a SPIFFE id or another URI, a DNS name,
    /// an e-mail address. A wildcard is a name like any other.
    Name(String),
}

/// Client certificates that were proved in the TLS handshake, mapped to principals.
///
/// A certificate without a rule is not this authenticator's: the authorities let it in, and the
/// request may present other credentials. If it presents a token, the token counts alone. A certificate
/// that two rules give to two principals is refused.
#[derive(Debug, Default)]
pub struct CertificateAuthenticator(HashMap<CertificateMark, Principal>);

impl CertificateAuthenticator {
    /// Knows these certificates.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if two rules speak of the same mark,
    /// a name is empty, or a principal is neither a user nor a service.
    pub fn new(rules: impl IntoIterator<Item = CertificateRule>) -> Result<CertificateAuthenticator> {
        let mut known = HashMap::new();
        for CertificateRule { holds, principal } in rules {
            if matches!(&holds, CertificateMark::Name(name) if name.is_empty()) {
                return Err(Error::invalid("a rule for client certificates names nothing"));
            }
            if !matches!(principal, Principal::User(_) | Principal::Service(_)) {
                return Err(Error::invalid(format!("a client certificate cannot make {principal}")));
            }
            if known.insert(holds.clone(), principal).is_some() {
                return Err(Error::invalid(format!("two rules speak of the certificate with {holds}")));
            }
        }
        Ok(CertificateAuthenticator(known))
    }

    /// Who holds `certificate`; `None` if no rule speaks of it.
    ///
    /// # Errors
    /// [`ErrorKind::Unauthenticated`] if its names belong to
    /// different principals.
    pub fn identify(&self, certificate: &ClientCertificate) -> Result<Option<Principal>> {
        // The one certificate that is meant goes before what others may have as well.
        let found = match self.0.get(&CertificateMark::Fingerprint(certificate.fingerprint)) {
            Some(principal) => Some(principal),
            None => self.by_name(&certificate.names)?,
        };
        Ok(found.map(|principal| with_credential(principal, &certificate.fingerprint)))
    }

    fn by_name(&self, names: &[String]) -> Result<Option<&Principal>> {
        let mut found: Option<&Principal> = None;
        for name in names {
            let Some(principal) = self.0.get(&CertificateMark::Name(name.clone())) else { continue };
            if found.is_some_and(|other| other != principal) {
                return Err(two_holders());
            }
            found = Some(principal);
        }
        Ok(found)
    }
}

impl std::fmt::Display for CertificateMark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CertificateMark::Fingerprint(digest) => write!(f, "the fingerprint {digest}"),
            CertificateMark::Name(name) => write!(f, "the name {name:?}"),
        }
    }
}

#[async_trait]
impl Authenticator for CertificateAuthenticator {
    async fn authenticate(&self, parts: &Parts) -> Result<Option<Principal>> {
        // A token in the request goes before the certificate of its connection, also a bad one.
        if parts.headers.contains_key(AUTHORIZATION) || parts.headers.contains_key(API_KEY) {
            return Ok(None);
        }
        match parts.extensions.get::<ClientCertificate>() {
            Some(certificate) => self.identify(certificate),
            None => Ok(None),
        }
    }

    fn challenge(&self) -> Option<Challenge> {
        // A certificate is asked for in the handshake, not in an answer.
        None
    }
}

fn with_credential(principal: &Principal, fingerprint: &Digest) -> Principal {
    let credential = Some(format!("x509:{}", fingerprint.to_hex()));
    let identity = |known: &Identity| Arc::new(Identity { credential: credential.clone(), ..known.clone() });
    match principal {
        Principal::User(known) => Principal::User(identity(known)),
        Principal::Service(known) => Principal::Service(identity(known)),
        other => other.clone(),
    }
}

#[cold]
fn two_holders() -> Error {
    Error::new(
        ErrorKind::Unauthenticated,
        "the client certificate has names that belong to different principals here",
    )
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn service(name: &str) -> Principal {
        let groups = vec!["builders".to_owned()];
        Principal::Service(Arc::new(Identity { name: name.into(), groups, ..Identity::default() }))
    }

    fn rule(name: &str, principal: Principal) -> CertificateRule {
        CertificateRule { holds: CertificateMark::Name(name.into()), principal }
    }

    fn certificate(names: &[&str]) -> ClientCertificate {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        ClientCertificate { fingerprint: Digest::of(names.concat().as_bytes()), names }
    }

    fn known() -> CertificateAuthenticator {
        let holds = CertificateMark::Fingerprint(certificate(&["this.one"]).fingerprint);
        CertificateAuthenticator::new([
            rule("spiffe://acme.test/ns/ci/sa/builder", service("builder")),
            rule("*.acme.test", service("wild")),
            CertificateRule { holds, principal: service("pinned") },
        ])
        .unwrap()
    }

    #[test]
    fn a_name_must_be_the_same_byte_for_byte() {
        let builder = known().identify(&certificate(&["x.test", "spiffe://acme.test/ns/ci/sa/builder"]));
        let builder = builder.unwrap().unwrap();
        assert_eq!(builder.to_string(), "service:builder");
        assert_eq!(builder.groups(), ["builders"]);
        assert!(builder.credential().unwrap().starts_with("x509:"));
        for other in [
            "spiffe://acme.test/ns/ci/sa/builder/",
            "spiffe://acme.test/ns/ci/sa",
            "SPIFFE://acme.test/ns/ci/sa/builder",
            "build.acme.test",
            "",
        ] {
            assert_eq!(known().identify(&certificate(&[other])).unwrap(), None, "{other}");
        }
        assert_eq!(known().identify(&certificate(&[])).unwrap(), None);
    }

    #[test]
    fn a_fingerprint_goes_before_names() {
        let pinned = known().identify(&certificate(&["this.one"])).unwrap().unwrap();
        assert_eq!(pinned.to_string(), "service:pinned");
    }

    #[test]
    fn names_of_two_principals_make_none() {
        let both = certificate(&["*.acme.test", "spiffe://acme.test/ns/ci/sa/builder"]);
        assert_eq!(known().identify(&both).unwrap_err().kind(), ErrorKind::Unauthenticated);
    }

    #[test]
    fn rules_that_contradict_each_other_are_refused() {
        for rules in [
            vec![rule("a", service("x")), rule("a", service("y"))],
            vec![rule("", service("x"))],
            vec![rule("a", Principal::Anonymous)],
            vec![rule("a", Principal::Token { name: "admin".into() })],
        ] {
            assert!(CertificateAuthenticator::new(rules.clone()).is_err(), "{rules:?}");
        }
    }

    #[test]
    fn a_header_is_no_certificate() {
        let mut request = http::Request::new(());
        for name in ["x-client-cert", "x-forwarded-client-cert", "x-ssl-client-san"] {
            let value = "URI=spiffe://acme.test/ns/ci/sa/builder".parse().unwrap();
            request.headers_mut().insert(name, value);
        }
        let (mut parts, ()) = request.into_parts();
        assert_eq!(known().authenticate(&parts).now_or_never().unwrap().unwrap(), None);
        parts.extensions.insert(certificate(&["*.acme.test"]));
        let wild = known().authenticate(&parts).now_or_never().unwrap().unwrap().unwrap();
        assert_eq!(wild.to_string(), "service:wild");
        for name in ["authorization", "x-jfrog-art-api"] {
            let mut parts = parts.clone();
            parts.headers.insert(name, "Bearer x".parse().unwrap());
            assert_eq!(known().authenticate(&parts).now_or_never().unwrap().unwrap(), None, "{name}");
        }
    }
}
