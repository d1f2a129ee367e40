//! Bundles from the builder to the edge's answer, and every way in which one can be bad.

mod interop;
mod model;
mod signature;
mod statement;
mod trust;

use distedge::bundle::{
    Assignment, BundleRef, EdgeEntry, Envelope, Item, STATEMENT_PAYLOAD, Source, Statement, StatementBuilder,
    TrustDocument,
};
use distedge::clock::Timestamp;
use distedge::digest::{Checksums, Digest};
use distedge::key::{Algorithm, KeySet, Signer, SigningKey, TrustedKey};
use distedge::name::NodeName;

const NOW: Timestamp = Timestamp::from_unix(1_795_323_600);

fn ed25519() -> SigningKey {
    SigningKey::generate(Algorithm::Ed25519, "", NOW).unwrap()
}

fn key_set(threshold: u32, keys: &[(&SigningKey, &str)]) -> KeySet {
    let keys = keys.iter().enumerate();
    let keys = keys.map(|(at, (key, owner))| TrustedKey::new(key.public_key(), owner, &format!("key-{at}")));
    KeySet::new(threshold, keys.collect()).unwrap()
}

fn item(repository: &str, path: &str, content: &[u8]) -> Item {
    Item {
        repository: repository.parse().unwrap(),
        format: "generic".into(),
        path: path.parse().unwrap(),
        digest: Digest::of(content),
        size: content.len() as u64,
        media_type: None,
        checksums: Checksums::default(),
    }
}

fn bundle() -> BundleRef {
    BundleRef {
        tenant: "acme".parse().unwrap(),
        project: "default".into(),
        name: "shop".parse().unwrap(),
        version: "1.4.0".parse().unwrap(),
        seq: 42,
    }
}

fn builder() -> StatementBuilder {
    Statement::builder(bundle(), NOW, Source { id: "build-1".into(), ..Source::default() })
}

/// Two items, an alias and an SBOM entry.
fn statement() -> Statement {
    let mut tarball = item("generic-local", "shop/1.4.0/shop.tar", b"tarball");
    tarball.media_type = Some("application/x-tar".into());
    tarball.checksums.md5 = Some("0123456789abcdef0123456789abcdef".into());
    builder()
        .item(tarball)
        .item(item("generic-local", "shop/1.4.0/bom.json", b"{}"))
        .alias(
            "generic-local".parse().unwrap(),
            "shop".parse().unwrap(),
            "latest",
            "shop/1.4.0/shop.tar".parse().unwrap(),
        )
        .sbom(
            "generic-local".parse().unwrap(),
            "shop/1.4.0/bom.json".parse().unwrap(),
            "cyclonedx-1.6+json",
            "bundle",
        )
        .build()
        .unwrap()
}

fn seal(payload: &[u8], signers: &[&dyn Signer]) -> Vec<u8> {
    Envelope::seal(STATEMENT_PAYLOAD, payload.to_vec(), signers, NOW).unwrap().to_json()
}

fn edge() -> NodeName {
    "fra-1".parse().unwrap()
}

/// A trust document in which `release` signs bundles, and the payload is assigned to [`edge`].
fn trust(root: &KeySet, release: &KeySet, payload: &[u8]) -> TrustDocument {
    let assignment = Assignment {
        bundle: "shop".parse().unwrap(),
        version: "1.4.0".parse().unwrap(),
        digest: Digest::of(payload),
        edges: vec![edge()],
    };
    TrustDocument {
        tenant: "acme".parse().unwrap(),
        version: 1,
        issued: NOW,
        expires: NOW.plus(86_400),
        root: root.clone(),
        release: release.clone(),
        edges: vec![EdgeEntry::new(edge())],
        assignments: vec![assignment],
        withdrawn: Vec::new(),
    }
}
