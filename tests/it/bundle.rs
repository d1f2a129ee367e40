//! Bundles from end to end, and every way in which one can be bad.

use distedge::bundle::*;
use distedge::clock::Timestamp;
use distedge::digest::{Checksums, Digest};
use distedge::key::*;

const NOW: Timestamp = Timestamp::from_unix(1_795_323_600);

fn item(repo: &str, path: &str, content: &[u8]) -> Item {
    Item {
        repository: repo.parse().unwrap(),
        format: "generic".into(),
        path: path.parse().unwrap(),
        digest: Digest::of(content),
        size: content.len() as u64,
        media_type: None,
        checksums: Checksums::default(),
    }
}

#[test]
fn happy() {
    let a = SigningKey::generate(Algorithm::Ed25519, "", NOW).unwrap();
    let root = KeySet::new(1, vec![TrustedKey::new(a.public_key(), "ops", "k")]).unwrap();
    let bundle = BundleRef {
        tenant: "acme".parse().unwrap(),
        project: "default".into(),
        name: "shop".parse().unwrap(),
        version: "1.0".parse().unwrap(),
        seq: 1,
    };
    let st = Statement::builder(bundle, NOW, Source { id: "s".into(), ..Source::default() })
        .item(item("g", "b/x", b"x"))
        .item(item("g", "a", b"a"))
        .alias("g".parse().unwrap(), "b".parse().unwrap(), "latest", "b/x".parse().unwrap())
        .build()
        .unwrap();
    let payload = st.to_payload();
    println!("{}", String::from_utf8_lossy(&payload));
    assert_eq!(Statement::parse(&payload).unwrap(), st);
    let env = Envelope::seal(STATEMENT_PAYLOAD, payload.clone(), &[&a], NOW).unwrap().to_json();
    let edge: distedge::name::NodeName = "e1".parse().unwrap();
    let doc = TrustDocument {
        tenant: "acme".parse().unwrap(),
        version: 1,
        issued: NOW,
        expires: NOW.plus(1000),
        root: root.clone(),
        release: root.clone(),
        edges: vec![EdgeEntry::new(edge.clone())],
        assignments: vec![Assignment {
            bundle: "shop".parse().unwrap(),
            version: "1.0".parse().unwrap(),
            digest: Digest::of(&payload),
            edges: vec![edge.clone()],
        }],
        withdrawn: vec![],
    };
    let sealed = doc.seal(&[&a], NOW).unwrap().to_json();
    let doc2 = TrustDocument::accept(&sealed, Anchor::Pinned(&root), &"acme".parse().unwrap(), NOW).unwrap();
    assert_eq!(doc, doc2);
    let v = verify(&env, &doc2, NOW).unwrap();
    admit(&v, &doc2, &edge).unwrap();
}
