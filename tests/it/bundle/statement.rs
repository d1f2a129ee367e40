//! Faults of the statement: each spoils the whole bundle.

use std::time::Instant;

use distedge::bundle::{Constraints, Envelope, STATEMENT_PAYLOAD, Statement};
use distedge::error::ErrorKind;

use super::{builder, bundle, item, seal, statement};

type Json = serde_json::Value;
/// A fault's name, and how it gets into the document.
type Fault = (&'static str, fn(&mut Json));

/// The statement's JSON after `change`, read again.
fn changed(change: impl FnOnce(&mut Json)) -> Result<Statement, ErrorKind> {
    let mut json: Json = serde_json::from_slice(&statement().to_payload()).unwrap();
    change(&mut json);
    Statement::parse(&serde_json::to_vec(&json).unwrap()).map_err(|error| error.kind())
}

/// The statement's payload with one text replaced by another, read again.
fn replaced(from: &str, to: &str) -> Result<Statement, ErrorKind> {
    let payload = String::from_utf8(statement().to_payload()).unwrap();
    assert!(payload.contains(from), "{from} is not in {payload}");
    Statement::parse(payload.replace(from, to).as_bytes()).map_err(|error| error.kind())
}

/// A statement of two items at these paths of one repository, without aliases.
fn with_paths(first: &str, second: &str) -> Result<Statement, ErrorKind> {
    changed(|json| {
        json["predicate"]["aliases"] = Json::Array(Vec::new());
        for (at, path) in [first, second].into_iter().enumerate() {
            json["subject"][at]["name"] = format!("generic-local/{path}").into();
            json["predicate"]["items"][at]["path"] = path.into();
        }
    })
}

#[test]
fn payload_has_the_members_of_the_format() {
    let json: Json = serde_json::from_slice(&statement().to_payload()).unwrap();
    assert_eq!(json["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(json["predicateType"], "urn:distedge:release-bundle:v1");
    assert_eq!(json["subject"][0]["name"], "generic-local/shop/1.4.0/bom.json");
    let predicate = &json["predicate"];
    assert_eq!(predicate["bundle"]["seq"], 42);
    assert_eq!(predicate["created"], "2026-11-22T05:00:00Z");
    assert_eq!(
        predicate["items"][1],
        serde_json::json!({"s": 1, "repo": "generic-local", "format": "generic", "path": "shop/1.4.0/shop.tar",
            "size": 7, "mediaType": "application/x-tar", "md5": "0123456789abcdef0123456789abcdef"})
    );
    assert_eq!(
        predicate["aliases"][0],
        serde_json::json!({"repo": "generic-local", "format": "generic", "name": "shop", "alias": "latest", "s": 1})
    );
    assert_eq!(
        predicate["sbom"][0],
        serde_json::json!({"s": 0, "format": "cyclonedx-1.6+json", "covers": "bundle"})
    );
    assert_eq!(predicate["totals"], serde_json::json!({"items": 2, "bytes": 9}));
    assert_eq!(changed(|_| ()), Ok(statement()));
}

#[test]
fn unsafe_paths() {
    for bad in [
        "../x", "/x", "a//b", "x/", "a\0b", "a\\b", "a/../b", "./a", "a%2fb", "", ".", "..", "a\nb",
        "e\u{301}", "\u{212b}", "a\u{85}b",
    ] {
        assert_eq!(with_paths(bad, "zz"), Err(ErrorKind::Invalid), "{bad:?}");
    }
    assert!(with_paths("a", "zz").is_ok());
    assert_eq!(with_paths(&"a".repeat(256), "zz"), Err(ErrorKind::Invalid));
    assert_eq!(with_paths(&["a"; 65].join("/"), "zz"), Err(ErrorKind::Invalid));
}

#[test]
fn names_that_meet() {
    for (first, second) in [
        ("a", "a"),
        ("A.txt", "a.txt"),
        ("STRASSE", "stra\u{df}e"),
        ("\u{c9}.bin", "\u{e9}.bin"),
        // A file cannot also be a folder, wherever the two stand in the order.
        ("a/b", "a/b/c"),
        ("Dir", "dir/file"),
    ] {
        assert_eq!(with_paths(first, second), Err(ErrorKind::Invalid), "{first:?} {second:?}");
    }
    for (first, second) in [("a/b", "a/b.c"), ("a/b-c", "a/b/d"), ("a", "aa"), ("a/b", "a/bb/c")] {
        assert!(with_paths(first, second).is_ok(), "{first:?} {second:?}");
    }
    // Between "a/b" and "a/b/c" stands "a/b-c".
    let three = builder().items(["a/b", "a/b-c", "a/b/c"].map(|path| item("r", path, b"")));
    assert_eq!(three.build().unwrap_err().kind(), ErrorKind::Invalid);
    // The same path in two repositories is two artifacts.
    assert!(builder().item(item("r", "a", b"")).item(item("s", "a", b"")).build().is_ok());
    assert!(builder().item(item("r", "a", b"")).item(item("r", "a", b"")).build().is_err());
}

#[test]
fn subjects_and_items_differ() {
    let cases: [Fault; 12] = [
        ("a subject more", |json| {
            let mut more = json["subject"][1].clone();
            more["name"] = "generic-local/zz".into();
            json["subject"].as_array_mut().unwrap().push(more);
        }),
        ("an item less", |json| drop(json["predicate"]["items"].as_array_mut().unwrap().pop())),
        ("another order", |json| json["subject"].as_array_mut().unwrap().reverse()),
        ("both in another order", |json| {
            json["subject"].as_array_mut().unwrap().reverse();
            json["predicate"]["items"].as_array_mut().unwrap().reverse();
            json["predicate"]["items"][0]["s"] = 0.into();
            json["predicate"]["items"][1]["s"] = 1.into();
        }),
        ("another index", |json| json["predicate"]["items"][0]["s"] = 1.into()),
        ("another path", |json| json["predicate"]["items"][0]["path"] = "shop/1.4.0/bom.jsom".into()),
        ("another repository", |json| json["predicate"]["items"][0]["repo"] = "generic-loca".into()),
        ("the border moved", |json| {
            json["predicate"]["items"][0]["repo"] = "generic-local/shop".into();
            json["predicate"]["items"][0]["path"] = "1.4.0/bom.json".into();
        }),
        ("one item more in the totals", |json| json["predicate"]["totals"]["items"] = 3.into()),
        ("one byte less in the totals", |json| json["predicate"]["totals"]["bytes"] = 8.into()),
        ("one byte more in a size", |json| json["predicate"]["items"][0]["size"] = 3.into()),
        ("nothing at all", |json| {
            json["subject"] = Json::Array(Vec::new());
            json["predicate"]["items"] = Json::Array(Vec::new());
        }),
    ];
    for (fault, change) in cases {
        assert_eq!(changed(change), Err(ErrorKind::Invalid), "{fault}");
    }
}

#[test]
fn digests_other_than_sha256_in_lower_case() {
    let digest = |change: fn(&mut Json)| changed(|json| change(&mut json["subject"][0]["digest"]));
    assert_eq!(digest(|digest| digest["sha256"] = "A".repeat(64).into()), Err(ErrorKind::Invalid));
    assert_eq!(digest(|digest| digest["sha256"] = "a".repeat(63).into()), Err(ErrorKind::Invalid));
    assert_eq!(
        digest(|digest| digest["sha256"] = format!("sha256:{}", "a".repeat(57)).into()),
        Err(ErrorKind::Invalid)
    );
    assert_eq!(
        digest(|digest| *digest = serde_json::json!({"md5": "a".repeat(32)})),
        Err(ErrorKind::Invalid)
    );
    assert_eq!(digest(|digest| digest["sha512"] = "a".repeat(128).into()), Err(ErrorKind::Invalid));
    assert_eq!(digest(|digest| *digest = serde_json::json!([hex_of()])), Err(ErrorKind::Invalid));
    for (member, text) in [("sha1", "A".repeat(40)), ("sha1", "a".repeat(39)), ("md5", "g".repeat(32))] {
        let change = |json: &mut Json| json["predicate"]["items"][0][member] = text.clone().into();
        assert_eq!(changed(change), Err(ErrorKind::Invalid), "{member} {text}");
    }
}

fn hex_of() -> String {
    "a".repeat(64)
}

#[test]
fn sizes_that_are_no_sizes() {
    for bad in ["1.0", "1e3", "-1", "18446744073709551616", "9007199254740992", "\"2\"", "null", "02"] {
        assert_eq!(replaced("\"size\":2", &format!("\"size\":{bad}")), Err(ErrorKind::Invalid), "{bad}");
    }
    for bad in ["0", "-1", "1.5", "9007199254740992"] {
        assert_eq!(replaced("\"seq\":42", &format!("\"seq\":{bad}")), Err(ErrorKind::Invalid), "{bad}");
    }
    // Each size is good, and their sum is not.
    let mut large = item("r", "a", b"");
    large.size = (1 << 53) - 1;
    let mut one = item("r", "b", b"");
    one.size = 1;
    assert_eq!(builder().item(large).item(one).build().unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn members_unknown_missing_twice_or_null() {
    for (from, to) in [
        ("\"seq\":42", "\"seq\":42,\"x\":1"),
        ("\"s\":0,\"repo\"", "\"s\":0,\"chunks\":\"\",\"repo\""),
        ("\"totals\":{", "\"x\":[],\"totals\":{"),
        ("\"predicate\":{", "\"createdBy\":\"x\",\"predicate\":{"),
        ("\"seq\":42", "\"seq\":42,\"seq\":42"),
        ("\"totals\":{", "\"totals\":{\"items\":2,\"bytes\":9},\"totals\":{"),
        ("\"alias\":\"latest\"", "\"alias\":\"latest\",\"ali\\u0061s\":\"latest\""),
        ("\"mediaType\":\"application/x-tar\"", "\"mediaType\":null"),
        ("\"seq\":42", "\"seq\":null"),
        (",\"seq\":42", ""),
        ("\"created\":\"2026-11-22T05:00:00Z\"", "\"created\":\"2026-11-22T05:00:00+00:00\""),
        ("\"created\":\"2026-11-22T05:00:00Z\"", "\"created\":1795323600"),
        ("\"tenant\":\"acme\"", "\"tenant\":\"ACME\""),
        ("\"project\":\"default\"", "\"project\":\"a/b\""),
        ("\"mediaType\":\"application/x-tar\"", "\"mediaType\":\"text/html\\r\\nSet-Cookie: a=b\""),
        ("\"mediaType\":\"application/x-tar\"", "\"mediaType\":\"tar\""),
        ("\"format\":\"cyclonedx-1.6+json\"", "\"format\":\"a b\""),
        ("\"covers\":\"bundle\"", "\"covers\":\"a\\nb\""),
        ("{\"_type\"", "\u{feff}{\"_type\""),
        ("{\"_type\"", "[1]{\"_type\""),
    ] {
        assert_eq!(replaced(from, to), Err(ErrorKind::Invalid), "{to}");
    }
    // What may be left out is as if it were empty.
    let less = changed(|json| {
        for member in ["aliases", "sbom", "evidence", "constraints"] {
            json["predicate"].as_object_mut().unwrap().remove(member);
        }
    });
    let less = less.unwrap();
    assert!(less.aliases().is_empty() && less.constraints().is_empty());
    assert_eq!(Statement::parse(&less.to_payload()).unwrap(), less);
}

#[test]
fn another_type_is_told_from_a_broken_one() {
    for (from, to) in [
        ("urn:distedge:release-bundle:v1", "urn:distedge:release-bundle:v2"),
        ("https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"),
        ("https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v1/"),
    ] {
        assert_eq!(replaced(from, to), Err(ErrorKind::Unsupported), "{to}");
    }
    let foreign = br#"{"_type":"https://in-toto.io/Statement/v1","predicateType":"https://jfrog.com/x",
        "predicate":{"score":-1.5e3},"createdAt":"x"}"#;
    assert_eq!(Statement::parse(foreign).unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn aliases_that_lead_astray() {
    let alias = |change: fn(&mut Json)| changed(|json| change(&mut json["predicate"]["aliases"][0]));
    assert!(alias(|alias| alias["alias"] = "stable".into()).is_ok());
    let cases: [Fault; 9] = [
        ("no such item", |alias| alias["s"] = 2.into()),
        ("two segments", |alias| alias["alias"] = "a/b".into()),
        ("up", |alias| alias["alias"] = "..".into()),
        ("empty", |alias| alias["alias"] = "".into()),
        ("up in the name", |alias| alias["name"] = "../shop".into()),
        ("another repository", |alias| alias["repo"] = "other".into()),
        ("another format", |alias| alias["format"] = "oci".into()),
        ("the path of an item", |alias| {
            alias["name"] = "shop/1.4.0".into();
            alias["alias"] = "SHOP.tar".into();
        }),
        ("the folder of an item", |alias| alias["alias"] = "1.4.0".into()),
    ];
    for (fault, change) in cases {
        assert_eq!(alias(change), Err(ErrorKind::Invalid), "{fault}");
    }
    let twice = changed(|json| {
        let mut again = json["predicate"]["aliases"][0].clone();
        again["s"] = 0.into();
        json["predicate"]["aliases"].as_array_mut().unwrap().push(again);
    });
    assert_eq!(twice, Err(ErrorKind::Invalid));
    assert_eq!(changed(|json| json["predicate"]["sbom"][0]["s"] = 2.into()), Err(ErrorKind::Invalid));
}

#[test]
fn constraints_that_are_not_clear() {
    let with = |constraints: Json| changed(|json| json["predicate"]["constraints"] = constraints);
    let full =
        with(serde_json::json!({"countries": {"allow": ["US", "CA"]}, "nets": {"deny": ["192.0.2.0/24"]},
        "edges": ["group:eu", "fra-*"]}))
        .unwrap();
    assert_eq!(Statement::parse(&full.to_payload()).unwrap(), full);
    assert_eq!(full.constraints().edges.as_ref().map(Vec::len), Some(2));
    assert_eq!(*with(serde_json::json!({})).unwrap().constraints(), Constraints::default());
    for bad in [
        serde_json::json!({"countries": {"allow": ["us"]}}),
        serde_json::json!({"countries": {"allow": null}}),
        serde_json::json!({"countries": {"permit": ["US"]}}),
        serde_json::json!({"countries": ["US"]}),
        serde_json::json!({"country": {"allow": ["US"]}}),
        serde_json::json!({"nets": {"deny": ["192.0.2.1/24"]}}),
        serde_json::json!({"edges": "group:eu"}),
        serde_json::json!({"edges": null}),
        serde_json::json!({"edges": [""]}),
        serde_json::json!({"edges": vec!["a"; 1001]}),
    ] {
        assert_eq!(with(bad.clone()), Err(ErrorKind::Invalid), "{bad}");
    }
}

/// The limits hold, and a hostile document is refused at once.
#[test]
fn too_much_of_everything() {
    let many = |count: usize| builder().items((0..count).map(|at| item("r", &format!("f/{at}"), b"")));
    assert_eq!(many(100_001).build().unwrap_err().kind(), ErrorKind::TooLarge);
    let aliases = (0..10_001).fold(many(1), |builder, at| {
        builder.alias("r".parse().unwrap(), "x".parse().unwrap(), &at.to_string(), "f/0".parse().unwrap())
    });
    assert_eq!(aliases.build().unwrap_err().kind(), ErrorKind::TooLarge);
    let sboms = (0..1_001).fold(many(1), |builder, at| {
        builder.sbom("r".parse().unwrap(), "f/0".parse().unwrap(), "spdx-2.3+json", &at.to_string())
    });
    assert_eq!(sboms.build().unwrap_err().kind(), ErrorKind::TooLarge);

    let began = Instant::now();
    let deep = format!("{{\"payload\":{}", "[".repeat(10_000));
    assert_eq!(Envelope::parse(deep.as_bytes()).unwrap_err().kind(), ErrorKind::Invalid);
    let large = vec![b' '; 33 << 20];
    assert_eq!(Envelope::parse(&large).unwrap_err().kind(), ErrorKind::TooLarge);
    assert!(began.elapsed().as_secs() < 5, "refused after {:?}", began.elapsed());
}

/// 100,000 items go through, and 100,001 do not.
#[test]
fn the_largest_bundle() {
    let key = super::ed25519();
    let largest =
        builder().items((0..100_000).map(|at| item("r", &format!("f/{at:06}"), b"x"))).build().unwrap();
    let payload = largest.to_payload();
    let envelope = seal(&payload, &[&key]);
    assert!(envelope.len() < 32 << 20);
    let keys = super::key_set(1, &[(&key, "ops")]);
    let verified =
        distedge::bundle::verify(&envelope, &super::trust(&keys, &keys, &payload), super::NOW).unwrap();
    assert_eq!(*verified.statement(), largest);
    let text = String::from_utf8(payload).unwrap();
    let subject = format!("{{\"name\":\"r/zz\",\"digest\":{{\"sha256\":\"{}\"}}}}]", "0".repeat(64));
    let more = text.replacen("],\"predicateType\"", &format!(",{subject},\"predicateType\""), 1);
    assert_eq!(Statement::parse(more.as_bytes()).unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(*verified.statement().bundle(), bundle());
    assert_eq!(verified.envelope().payload_type, STATEMENT_PAYLOAD);
}
