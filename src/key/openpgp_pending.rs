//! Stands in until the OpenPGP half of `key` is merged.

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Acceptance;
use crate::secret::Secret;

pub(crate) struct Certificate;
pub(crate) struct SecretCertificate;

fn pending() -> Error {
    Error::new(ErrorKind::Unsupported, "OpenPGP is not merged")
}

impl Certificate {
    pub(crate) fn parse(_bytes: &[u8]) -> Result<Certificate> {
        Err(pending())
    }
    pub(crate) fn fingerprint(&self) -> String {
        String::new()
    }
    pub(crate) fn to_armored(&self) -> String {
        String::new()
    }
    pub(crate) fn verify(&self, _message: &[u8], _signature: &[u8], _acceptance: &Acceptance) -> Result<()> {
        Err(pending())
    }
}

impl SecretCertificate {
    pub(crate) fn generate(_user_id: &str, _now: Timestamp) -> Result<SecretCertificate> {
        Err(pending())
    }
    pub(crate) fn parse(_secret: &Secret) -> Result<SecretCertificate> {
        Err(pending())
    }
    pub(crate) fn to_secret(&self) -> Secret {
        Secret::new("")
    }
    pub(crate) fn certificate(&self) -> Certificate {
        Certificate
    }
    pub(crate) fn sign(&self, _message: &[u8], _now: Timestamp) -> Result<Vec<u8>> {
        Err(pending())
    }
}
