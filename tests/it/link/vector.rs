//! Tokens made by other programs, each with what it opens.
//!
//! `tests/data/links/vectors.json` is the set of the format's definition; `more.json` is made by
//! `more.py` beside it.

use std::path::Path;

use distedge::clock::Timestamp;
use distedge::digest::decode_hex;
use distedge::key::PublicKey;
use distedge::link::{
    Cause, Grace, KeyName, LinkKey, LinkKeys, LinkPolicies, LinkRequest, Revocations, SeenTokens, Verifier,
};
use distedge::name::{ArtifactPath, NodeName, RepositoryName, Target, Tenant};
use distedge::secret::Secret;
use serde::Deserialize;

#[derive(Deserialize)]
struct File {
    keys_hex: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    public_keys: std::collections::BTreeMap<String, String>,
    edge_id: NodeName,
    tenant: Tenant,
    #[serde(default)]
    groups: Vec<NodeName>,
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    token: String,
    request: String,
    now: i64,
    client_ip: Option<String>,
    country: Option<String>,
    expect: String,
    #[serde(default)]
    cause: Option<String>,
}

fn read(name: &str) -> File {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/links").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn keys(file: &File) -> LinkKeys {
    let mut keys = LinkKeys::new();
    for (name, hex) in &file.keys_hex {
        let mut bytes = [0; 32];
        decode_hex(hex, &mut bytes).unwrap();
        let name = KeyName::new(name).unwrap();
        keys.add(LinkKey::hmac(name, Secret::new(bytes), Timestamp::EPOCH).unwrap()).unwrap();
    }
    for (name, key) in &file.public_keys {
        let key = PublicKey::parse(key).unwrap();
        keys.add(LinkKey::public(KeyName::new(name).unwrap(), key, Timestamp::EPOCH).unwrap()).unwrap();
    }
    keys
}

/// The status and, for the log, the cause.
fn answer(file: &File, verifier: &Verifier<'_>, vector: &Vector) -> (u16, Option<Cause>) {
    let (method, target) = vector.request.split_once(' ').unwrap();
    let Ok(target) = Target::parse(target) else { return (400, None) };
    let [repository, path @ ..] = target.segments() else { return (400, None) };
    let (repository, path) =
        (RepositoryName::new(repository).unwrap(), ArtifactPath::new(&path.join("/")).unwrap());
    let now = Timestamp::from_unix(vector.now);
    let request = LinkRequest::new(&file.tenant, &file.edge_id, method, &repository, &path, now)
        .with_groups(&file.groups)
        .with_place(
            vector.client_ip.as_ref().map(|client| client.parse().unwrap()),
            vector.country.as_ref().map(|country| country.parse().unwrap()),
        );
    match verifier.verify(&vector.token, &request) {
        Ok(_) => (200, None),
        Err(denied) => (denied.status(), Some(denied.cause)),
    }
}

fn run(name: &str, least: usize) {
    let file = read(name);
    let (keys, revocations, policies) = (keys(&file), Revocations::new(), LinkPolicies::default());
    let (seen, grace) = (SeenTokens::default(), Grace::default());
    let plain = Verifier::new(&keys, &revocations, &policies);
    let remembering = plain.with_seen(&seen).with_grace(&grace);
    assert!(file.vectors.len() >= least, "{} vectors in {name}", file.vectors.len());
    for vector in &file.vectors {
        let status = match vector.expect.as_str() {
            "allow" => 200,
            "deny" => 403,
            status => status.parse().unwrap(),
        };
        let (found, cause) = answer(&file, &plain, vector);
        assert_eq!(found, status, "{}: {cause:?}", vector.name);
        if let Some(wanted) = &vector.cause {
            assert_eq!(cause.map(Cause::as_str), Some(wanted.as_str()), "{}", vector.name);
        }
        for _ in 0..2 {
            assert_eq!(answer(&file, &remembering, vector), (found, cause), "{}", vector.name);
        }
    }
    assert!(!seen.is_empty());
}

#[test]
fn the_vectors_of_the_format() {
    run("vectors.json", 36);
}

#[test]
fn more_vectors() {
    run("more.json", 40);
}
