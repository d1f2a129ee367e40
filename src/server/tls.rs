//! TLS from PEM files.

use std::sync::Arc;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls;

use super::TlsFiles;
use crate::error::{Error, Result};

pub(super) fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor> {
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
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|cause| {
            Error::invalid(format!(
                "the TLS certificate {certificate} and key {key_file} cannot be used together: {cause}"
            ))
        })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
