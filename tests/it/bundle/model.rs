//! Generated statements come back as they were; spoiled ones never bring the reader down.

use distedge::bundle::{Constraints, Envelope, Evidence, Item, Statement, TrustDocument};
use distedge::digest::{Checksums, Digest};
use proptest::prelude::*;

use super::builder;

fn segment() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-zA-Z0-9._+@-]{1,12}", 1 => "[a-zäöüßéЖ 中:]{1,6}"]
        .prop_filter("a folder's own name", |text| text != "." && text != "..")
}

fn item() -> impl Strategy<Value = Item> {
    (
        "[a-z][a-z0-9]{0,4}-local",
        prop::collection::vec(segment(), 1..5),
        any::<[u8; 32]>(),
        0..1_u64 << 40,
        prop::option::of("[a-z]{1,8}/[a-z+.]{1,8}"),
        prop::option::of("[0-9a-f]{40}"),
        prop::option::of("[0-9a-f]{32}"),
    )
        .prop_filter_map("a safe path", |(repository, path, digest, size, media_type, sha1, md5)| {
            Some(Item {
                repository: repository.parse().ok()?,
                format: "generic".into(),
                path: path.join("/").parse().ok()?,
                digest: Digest::from_bytes(digest),
                size,
                media_type,
                checksums: Checksums { sha1, md5 },
            })
        })
}

fn statement() -> impl Strategy<Value = Option<Statement>> {
    let items = prop::collection::vec(item(), 1..40);
    let edges = prop::option::of(prop::collection::vec("[a-z]{1,5}:[a-z*]{1,5}", 0..3));
    (
        items,
        prop::collection::vec(("[a-z]{1,6}", any::<prop::sample::Index>()), 0..6),
        edges,
        any::<[u8; 32]>(),
    )
        .prop_map(|(items, aliases, edges, evidence)| {
            let mut builder = builder().items(items.clone());
            for (alias, target) in aliases {
                let target = target.get(&items);
                let name = "alias/of".parse().ok()?;
                builder = builder.alias(target.repository.clone(), name, &alias, target.path.clone());
            }
            let first = &items[0];
            builder = builder.sbom(first.repository.clone(), first.path.clone(), "spdx-2.3+json", "bundle");
            builder = builder.evidence(Evidence {
                digest: Digest::from_bytes(evidence),
                media_type: "application/vnd.in-toto.provenance+dsse".into(),
            });
            let edges = edges.map(|edges| edges.iter().filter_map(|edge| edge.parse().ok()).collect());
            // Names that meet are refused; what is built obeys every rule.
            builder.constraints(Constraints { edges, ..Constraints::default() }).build().ok()
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn statements_come_back(statement in statement()) {
        if let Some(statement) = statement {
            let payload = statement.to_payload();
            let again = Statement::parse(&payload).unwrap();
            prop_assert_eq!(&again, &statement);
            prop_assert_eq!(again.to_payload(), payload);
            prop_assert_eq!(again.root(), statement.root());
            for item in statement.items() {
                prop_assert_eq!(again.item(&item.repository, &item.path), Some(item));
            }
        }
    }

    /// What is accepted after a mutation is a statement: written again, it reads the same.
    #[test]
    fn mutated_payloads_are_refused_or_sound(
        statement in statement(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..4),
    ) {
        if let Some(statement) = statement {
            let mut payload = statement.to_payload();
            for (at, byte, how) in edits {
                let at = at.index(payload.len());
                match how {
                    0 => payload[at] = byte,
                    1 => payload.insert(at, byte),
                    _ => drop(payload.remove(at)),
                }
            }
            if let Ok(read) = Statement::parse(&payload) {
                prop_assert_eq!(Statement::parse(&read.to_payload()).unwrap(), read);
            }
        }
    }

    #[test]
    fn any_bytes_are_no_envelope(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        prop_assert!(Envelope::parse(&bytes).is_err());
        prop_assert!(Statement::parse(&bytes).is_err());
        prop_assert!(TrustDocument::parse_unverified(&bytes).is_err());
    }
}
