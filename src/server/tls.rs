//! TLS from PEM files.

use std::sync::Arc;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, RootCertStore};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::{ClientDemand, ClientTrust, TlsFiles};
use crate::auth::ClientCertificate;
use crate::digest::Digest;
use crate::error::{Error, Result};

pub(super) fn acceptor(files: &TlsFiles, clients: Option<&ClientTrust>) -> Result<TlsAcceptor> {
    let certificate = files.certificate.display();
    let key_file = files.key.display();
    let bad_certificate =
        |cause| Error::invalid(format!("the TLS certificate {certificate} cannot be used: {cause}"));
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
        .map_err(bad_certificate)?;
    if chain.is_empty() {
        return Err(Error::invalid(format!("there is no certificate in the PEM file {certificate}")));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|cause| Error::invalid(format!("the TLS key {key_file} cannot be used: {cause}")))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = match clients {
        Some(clients) => verifier(clients, &provider)?,
        None => WebPkiClientVerifier::no_client_auth(),
    };
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_client_cert_verifier(verifier).with_single_cert(chain, key))
        .map_err(|cause| {
            Error::invalid(format!(
                "the TLS certificate {certificate} and key {key_file} cannot be used together: {cause}"
            ))
        })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    if clients.is_some() {
        // A session that is resumed is not verified again, and certificates run out.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Verifies clients' certificates against the authorities of a file.
fn verifier(clients: &ClientTrust, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>> {
    let file = clients.authorities.display();
    let unusable = |cause: &dyn std::fmt::Display| {
        Error::invalid(format!("the client authorities {file} cannot be used: {cause}"))
    };
    let mut roots = RootCertStore::empty();
    for certificate in
        CertificateDer::pem_file_iter(&clients.authorities).map_err(|cause| unusable(&cause))?
    {
        let certificate = certificate.map_err(|cause| unusable(&cause))?;
        roots.add(certificate).map_err(|cause| unusable(&cause))?;
    }
    if roots.is_empty() {
        return Err(Error::invalid(format!("there is no certificate in the PEM file {file}")));
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = match clients.demand {
        ClientDemand::Optional => builder.allow_unauthenticated(),
        ClientDemand::Required => builder,
    };
    builder.build().map_err(|cause| unusable(&cause))
}

/// What a verified certificate says of its holder. A certificate whose names cannot be read has none,
/// and is known by its fingerprint alone.
pub(super) fn client_certificate(leaf: &CertificateDer<'_>) -> ClientCertificate {
    ClientCertificate { fingerprint: Digest::of(leaf), names: names(leaf).unwrap_or_default() }
}

/// RFC 5280 section 4.2.1.6: the subject alternative names that are text.
fn names(leaf: &[u8]) -> Option<Vec<String>> {
    let certificate = Certificate::from_der(leaf).ok()?;
    let (_, SubjectAltName(names)) = certificate.tbs_certificate().get_extension().ok()??;
    let text = |name: GeneralName| match name {
        GeneralName::Rfc822Name(name)
        | GeneralName::DnsName(name)
        | GeneralName::UniformResourceIdentifier(name) => Some(name.to_string()),
        _ => None,
    };
    Some(names.into_iter().filter_map(text).collect())
}
