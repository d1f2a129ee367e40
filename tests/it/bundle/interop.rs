//! Other people's tools verify what this crate signs: one command each.
//!
//! A tool that is not installed is named and passed over; under `CI=true` that is a failure.

use std::fs;
use std::path::Path;
use std::process::Command;

use distedge::bundle::{
    Envelope, STATEMENT_PAYLOAD, detached_signature, pae_file, raw_signature, sigstore_bundle,
};
use distedge::clock::{Clock, SystemClock};
use distedge::digest::to_hex;
use distedge::error::ErrorKind;
use distedge::key::{Algorithm, Signer, SigningKey};
use tempfile::TempDir;

use super::{ed25519, statement};
use crate::clients::tool::{node_modules, present, python, run};

fn program(tool: &str, version: &str) -> bool {
    present(tool, Command::new(tool).arg(version))
}

fn write(directory: &TempDir, name: &str, bytes: impl AsRef<[u8]>) -> std::path::PathBuf {
    let path = directory.path().join(name);
    fs::write(&path, bytes).unwrap();
    path
}

/// Good bytes pass, and the same bytes with one bit flipped do not.
fn both_ways(signed: &Path, mut verify: impl FnMut() -> (bool, String)) {
    let (good, said) = verify();
    assert!(good, "{said}");
    let mut bytes = fs::read(signed).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(signed, &bytes).unwrap();
    let (bad, said) = verify();
    assert!(!bad, "a flipped bit passed: {said}");
}

#[test]
fn openssl_verifies_the_ed25519_signature() {
    if !program("openssl", "version") {
        return;
    }
    let key = ed25519();
    let now = SystemClock.now();
    let envelope = Envelope::seal(STATEMENT_PAYLOAD, statement().to_payload(), &[&key], now).unwrap();
    let directory = TempDir::new().unwrap();
    let pae = write(&directory, "b.pae", pae_file(&envelope));
    let sig = write(&directory, "b.sig", raw_signature(&envelope, Some(&key.public_key().id())).unwrap());
    let pem = write(&directory, "key.pem", key.public_key().to_pem());
    both_ways(&pae, || {
        let mut openssl = Command::new("openssl");
        openssl.args(["pkeyutl", "-verify", "-rawin", "-pubin"]);
        run(openssl.arg("-inkey").arg(&pem).arg("-sigfile").arg(&sig).arg("-in").arg(&pae))
    });
}

/// A key that OpenSSL made signs here, and OpenSSL reads back the pair written here.
#[test]
fn openssl_keys_are_read_and_written() {
    if !program("openssl", "version") {
        return;
    }
    let directory = TempDir::new().unwrap();
    let secret = directory.path().join("secret.pem");
    let (made, said) =
        run(Command::new("openssl").args(["genpkey", "-algorithm", "ed25519", "-out"]).arg(&secret));
    assert!(made, "{said}");
    let key = SigningKey::from_secret(&distedge::secret::Secret::new(fs::read(&secret).unwrap())).unwrap();
    let (read, public) = run(Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(&secret));
    assert!(read && public == key.public_key().to_pem(), "{public}");
    let again = write(&directory, "again.pem", key.to_secret().expose());
    let (read, same) = run(Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(again));
    assert!(read && same == public, "{same}");
}

#[cfg(feature = "openpgp")]
#[test]
fn gpg_and_sqv_verify_the_detached_signature() {
    let now = SystemClock.now();
    let key = SigningKey::generate(Algorithm::OpenPgp, "Release <r@example.org>", now.plus(-60)).unwrap();
    let other = ed25519();
    let envelope = Envelope::seal(STATEMENT_PAYLOAD, statement().to_payload(), &[&other, &key], now).unwrap();
    let directory = TempDir::new().unwrap();
    let asc = write(&directory, "b.pae.asc", detached_signature(&envelope, None).unwrap());
    let certificate = write(&directory, "key.asc", key.public_key().to_pem());
    assert_eq!(
        detached_signature(&envelope, Some(&other.public_key().id())).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    if program("gpg", "--version") {
        let pae = write(&directory, "gpg.pae", pae_file(&envelope));
        let gpg = || {
            let mut gpg = Command::new("gpg");
            gpg.args(["--batch", "--no-autostart", "--trust-model", "always", "--homedir"])
                .arg(directory.path());
            gpg
        };
        let (imported, said) = run(gpg().arg("--import").arg(&certificate));
        assert!(imported, "{said}");
        both_ways(&pae, || run(gpg().arg("--verify").arg(&asc).arg(&pae)));
    }
    if program("sqv", "--version") {
        let pae = write(&directory, "sqv.pae", pae_file(&envelope));
        both_ways(&pae, || run(Command::new("sqv").arg("--keyring").arg(&certificate).arg(&asc).arg(&pae)));
    }
}

#[test]
fn securesystemslib_verifies_the_envelope() {
    let python = python();
    let probe = "from securesystemslib.signer import SSlibKey; import cryptography";
    if !present("securesystemslib (Python)", Command::new(&python).args(["-c", probe])) {
        return;
    }
    let (a, b) = (ed25519(), ed25519());
    let now = SystemClock.now();
    let envelope = Envelope::seal(STATEMENT_PAYLOAD, statement().to_payload(), &[&a, &b], now).unwrap();
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("envelope.json");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/securesystemslib_verify.py");
    let verify = |envelope: &Envelope, threshold: &str, keys: &[&SigningKey]| {
        fs::write(&path, envelope.to_json()).unwrap();
        let files = keys
            .iter()
            .enumerate()
            .map(|(at, key)| write(&directory, &format!("{at}.pem"), key.public_key().to_pem()));
        run(Command::new(&python).arg(&script).arg(&path).arg(threshold).args(files))
    };
    let (good, said) = verify(&envelope, "2", &[&a, &b]);
    assert!(good, "{said}");
    let mut ids = [a.public_key().id().to_string(), b.public_key().id().to_string()];
    ids.sort();
    assert_eq!(said.split_whitespace().collect::<Vec<_>>(), ids);
    assert!(!verify(&envelope, "2", &[&a]).0);
    let mut altered = envelope.clone();
    altered.payload = [&altered.payload[..], b" "].concat().into();
    assert!(!verify(&altered, "1", &[&a, &b]).0);
}

#[test]
fn sigstore_verifies_the_bundle() {
    let node = || {
        let mut node = Command::new("node");
        node.env("NODE_PATH", node_modules());
        node
    };
    if !present("@sigstore/verify (node)", node().args(["-e", "require('@sigstore/verify')"])) {
        return;
    }
    let (a, b) = (ed25519(), ed25519());
    let envelope =
        Envelope::seal(STATEMENT_PAYLOAD, statement().to_payload(), &[&a, &b], SystemClock.now()).unwrap();
    let directory = TempDir::new().unwrap();
    let id = b.public_key().id();
    let path = write(&directory, "b.sigstore.json", sigstore_bundle(&envelope, &id).unwrap());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/sigstore_verify.cjs");
    let verify = |key: &SigningKey| {
        let pem = write(&directory, "key.pem", key.public_key().to_pem());
        run(node().arg(&script).arg(&path).arg(pem).arg(id.as_str()))
    };
    let (good, said) = verify(&b);
    assert!(good, "{said}");
    assert!(!verify(&a).0);
}

/// The format of sigstore refuses two signatures, so a bundle carries the one that is named.
#[test]
fn sigstore_bundle_has_one_signature() {
    let (a, b) = (ed25519(), ed25519());
    let envelope =
        Envelope::seal(STATEMENT_PAYLOAD, statement().to_payload(), &[&a, &b], SystemClock.now()).unwrap();
    let id = b.public_key().id();
    let bundle: serde_json::Value =
        serde_json::from_slice(&sigstore_bundle(&envelope, &id).unwrap()).unwrap();
    assert_eq!(bundle["mediaType"], "application/vnd.dev.sigstore.bundle.v0.3+json");
    assert_eq!(bundle["verificationMaterial"]["publicKey"]["hint"], id.as_str());
    assert_eq!(bundle["dsseEnvelope"]["signatures"].as_array().unwrap().len(), 1);
    let inner = Envelope::parse(&serde_json::to_vec(&bundle["dsseEnvelope"]).unwrap()).unwrap();
    assert_eq!((inner.payload, &inner.signatures[0]), (envelope.payload.clone(), &envelope.signatures[1]));
    let stranger = ed25519().public_key().id();
    assert_eq!(sigstore_bundle(&envelope, &stranger).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(
        to_hex(&raw_signature(&envelope, None).unwrap()[..4]),
        to_hex(&envelope.signatures[0].sig[..4])
    );
}
