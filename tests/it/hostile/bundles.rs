//! Group G over the wire: a bundle that is not right leaves nothing behind.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use distedge::bundle::{Envelope, STATEMENT_PAYLOAD};
use distedge::digest::Digest;
use distedge::key::{Algorithm, KeySet, Signer, SigningKey, TrustedKey};
use serde_json::{Value, json};

use super::house::{Lane, shop};
use crate::support::{House, NOW, name};

/// What is wrong, and how it gets into the document.
type Fault = (&'static str, fn(&mut Value));

/// A lane and a statement of `shop` 1.0 that would be accepted, assigned.
fn lane() -> (Lane, Vec<u8>) {
    let mut lane = Lane::new();
    let payload =
        lane.site.block_on(shop(&lane.house, "1.0", 1, &[("shop/1.0/x", b"x"), ("shop/1.0/y", b"yy")]));
    lane.assign("1.0", &payload);
    (lane, payload)
}

/// Offers what `change` makes of a good statement, signed and assigned as if it were meant.
fn changed(lane: &mut Lane, payload: &[u8], what: &str, change: impl FnOnce(&mut Value)) -> (u16, String) {
    let mut json: Value = serde_json::from_slice(payload).unwrap();
    change(&mut json);
    raw(lane, what, serde_json::to_string(&json).unwrap().as_bytes())
}

fn raw(lane: &mut Lane, what: &str, payload: &[u8]) -> (u16, String) {
    lane.assign("1.0", payload);
    let reply = lane.offer(&lane.seal(payload));
    assert!((400..500).contains(&reply.status), "{what}: {} {}", reply.status, reply.text());
    assert_eq!(lane.site.get("/generic-local/shop/", "").status, 404, "{what}");
    assert_eq!(lane.site.get_as_admin("/api/v1/bundles/shop/1.0").status, 404, "{what}");
    (reply.status, reply.text())
}

#[test]
fn the_good_one_is_taken() {
    let (lane, payload) = lane();
    assert_eq!(lane.offer(&lane.seal(&payload)).status, 200);
    assert_eq!(lane.site.get("/generic-local/shop/1.0/x", "").status, 404);
    assert_eq!(lane.finish("shop", "1.0", &[b"x", b"yy"]).status, 200);
    assert_eq!(lane.site.get("/generic-local/shop/1.0/x", "").body, b"x");
}

#[test]
fn g01_one_bit_flipped() {
    let (lane, payload) = lane();
    let envelope: Value = serde_json::from_slice(&lane.seal(&payload)).unwrap();
    let flip = |text: &str| {
        let mut bytes = STANDARD.decode(text).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        STANDARD.encode(bytes)
    };
    let mut one = envelope.clone();
    one["payload"] = flip(envelope["payload"].as_str().unwrap()).into();
    lane.refused(403, one.to_string().as_bytes(), "payload");
    let mut one = envelope.clone();
    one["signatures"][0]["sig"] = flip(envelope["signatures"][0]["sig"].as_str().unwrap()).into();
    lane.refused(403, one.to_string().as_bytes(), "signature");
    let mut one = envelope.clone();
    one["payloadType"] = "application/vnd.in-toto+jsom".into();
    lane.refused(422, one.to_string().as_bytes(), "payloadType");
    assert!(lane.site.event_kinds().contains(&"bundle.rejected".to_owned()));
}

#[test]
fn g02_another_type_under_the_same_signature() {
    let (lane, payload) = lane();
    let envelope: Value = serde_json::from_slice(&lane.seal(&payload)).unwrap();
    for kind in
        ["application/json", "application/vnd.in-toto+json ", "", "application/vnd.distedge.trust+json"]
    {
        let mut one = envelope.clone();
        one["payloadType"] = kind.into();
        let reply = lane.offer(one.to_string().as_bytes());
        assert!(matches!(reply.status, 400 | 422), "{kind:?}: {}", reply.status);
    }
    // A field that slides over the edge of another in the encoding that is signed.
    let shifted = format!("{} {} ", payload.len() + 3, "x");
    let mut body = shifted.into_bytes();
    body.extend_from_slice(&payload);
    let mut one = envelope.clone();
    one["payload"] = STANDARD.encode(body).into();
    lane.refused(403, one.to_string().as_bytes(), "shifted");
}

#[test]
fn g03_one_owner_counts_once() {
    let (mut lane, payload) = lane();
    let second = SigningKey::generate(Algorithm::Ed25519, "", NOW).unwrap();
    let keys = vec![
        TrustedKey::new(lane.house.release.public_key(), "release", "one"),
        TrustedKey::new(second.public_key(), "other", "two"),
    ];
    lane.house.trust.release = KeySet::new(2, keys).unwrap();
    lane.put_trust();
    let mut envelope: Value = serde_json::from_slice(&lane.seal(&payload)).unwrap();
    lane.refused(403, envelope.to_string().as_bytes(), "once");
    let signature = envelope["signatures"][0].clone();
    let mut other = signature.clone();
    let bytes = STANDARD.decode(signature["sig"].as_str().unwrap()).unwrap();
    other["sig"] = URL_SAFE.encode(bytes).into();
    other["keyid"] = second.public_key().id().as_str().into();
    envelope["signatures"] = json!([signature, other, signature]);
    lane.refused(403, envelope.to_string().as_bytes(), "three times");
    let signers = [&lane.house.release as &dyn Signer, &second];
    let both = Envelope::seal(STATEMENT_PAYLOAD, payload, &signers, NOW).unwrap().to_json();
    assert_eq!(lane.offer(&both).status, 200);
}

#[test]
fn g05_the_key_id_is_a_hint() {
    let (lane, payload) = lane();
    let stranger = SigningKey::generate(Algorithm::Ed25519, "", NOW).unwrap();
    let sealed =
        Envelope::seal(STATEMENT_PAYLOAD, payload.clone(), &[&stranger as &dyn Signer], NOW).unwrap();
    let mut envelope: Value = serde_json::from_slice(&sealed.to_json()).unwrap();
    envelope["signatures"][0]["keyid"] = lane.house.release.public_key().id().as_str().into();
    lane.refused(403, envelope.to_string().as_bytes(), "a stranger's signature");
    let mut envelope: Value = serde_json::from_slice(&lane.seal(&payload)).unwrap();
    envelope["signatures"][0]["keyid"] = "".into();
    assert_eq!(lane.offer(envelope.to_string().as_bytes()).status, 200);
}

#[test]
fn g07_a_good_signature_on_something_else() {
    let (mut lane, payload) = lane();
    for (what, member, value) in [
        ("predicate", "predicateType", "https://slsa.dev/provenance/v1"),
        ("statement v0.1", "_type", "https://in-toto.io/Statement/v0.1"),
    ] {
        let (status, _) = changed(&mut lane, &payload, what, |json| json[member] = value.into());
        assert_eq!(status, 422, "{what}");
    }
    // A trust document is not a bundle, nor the other way round.
    let trust = lane.house.next_trust();
    lane.refused(422, &trust, "a trust document");
    assert_eq!(lane.site.send("PUT", "/api/v1/trust", &lane.seal(&payload)).status, 422);
    // Signed by the release key, of the right type, and still no trust document.
    lane.house.trust.version += 10;
    let forged = lane.house.trust.seal(&[&lane.house.release as &dyn Signer], NOW).unwrap().to_json();
    assert_eq!(lane.site.send("PUT", "/api/v1/trust", &forged).status, 403);
}

#[test]
fn g08_another_tenant_or_name() {
    let (mut lane, payload) = lane();
    let text = String::from_utf8(payload.clone()).unwrap();
    let other = text.replace("\"tenant\":\"default\"", "\"tenant\":\"globex\"");
    assert_ne!(other, text);
    assert_eq!(raw(&mut lane, "tenant", other.as_bytes()).0, 403);
    // Signed, and assigned under another name or version, or not at all.
    lane.assign("1.1", &payload);
    lane.house.trust.assignments.retain(|one| one.version.as_str() != "1.0");
    lane.put_trust();
    lane.refused(403, &lane.seal(&payload), "version");
    lane.house.trust.assignments.iter_mut().for_each(|one| one.edges.clear());
    lane.put_trust();
    lane.refused(403, &lane.seal(&payload), "no edge");
}

#[test]
fn g09_same_version_other_content() {
    let (mut lane, payload) = lane();
    assert_eq!(lane.offer(&lane.seal(&payload)).status, 200);
    assert_eq!(lane.finish("shop", "1.0", &[b"x", b"yy"]).status, 200);
    let other = lane.site.block_on(shop(&lane.house, "1.0", 2, &[("shop/1.0/z", b"z")]));
    // Even if a new trust document says so: first while the old one is there, then after it left.
    assert_eq!(lane.offer(&lane.seal(&other)).status, 409);
    lane.assign("1.0", &other);
    assert_eq!(lane.offer(&lane.seal(&other)).status, 409);
    assert!(lane.site.event_kinds().contains(&"bundle.conflict".to_owned()));
    assert_eq!(lane.site.get("/generic-local/shop/1.0/z", "").status, 404);
}

#[test]
fn g10_paths() {
    let (mut lane, payload) = lane();
    for path in [
        "../x",
        "/x",
        "a//b",
        "a\u{0}b",
        "a\\b",
        "a/./b",
        "",
        ".",
        "..",
        "a/..",
        "x/",
        "a%2fb",
        "e\u{301}",
        "a\nb",
        "a\u{85}b",
        &"a/".repeat(70),
        &"a".repeat(256),
    ] {
        changed(&mut lane, &payload, path, |json| {
            json["subject"][0]["name"] = format!("generic-local/{path}").into();
            json["predicate"]["items"][0]["path"] = path.into();
        });
    }
    for (one, two) in [
        ("a/b", "a/b"),
        ("A/b", "a/b"),
        ("\u{c9}", "\u{e9}"),
        ("STRASSE", "stra\u{df}e"),
        ("a", "a/b"),
        ("\u{3a3}", "\u{3c2}"),
        ("\u{212a}", "k"),
    ] {
        changed(&mut lane, &payload, one, |json| {
            for (at, path) in [one, two].into_iter().enumerate() {
                json["subject"][at]["name"] = format!("generic-local/{path}").into();
                json["predicate"]["items"][at]["path"] = path.into();
            }
        });
    }
    for repository in ["api", "..", "UPPER", "a/b", "artifactory", "healthz", ""] {
        changed(&mut lane, &payload, repository, |json| {
            for at in 0..2 {
                let path = json["predicate"]["items"][at]["path"].as_str().unwrap().to_owned();
                json["subject"][at]["name"] = format!("{repository}/{path}").into();
                json["predicate"]["items"][at]["repo"] = repository.into();
            }
        });
    }
}

#[test]
fn g11_counts_and_sizes() {
    let (mut lane, payload) = lane();
    let faults: [Fault; 7] = [
        ("a subject more", |json| {
            let subject = json["subject"][1].clone();
            json["subject"].as_array_mut().unwrap().push(subject);
        }),
        ("order", |json| json["subject"].as_array_mut().unwrap().swap(0, 1)),
        ("both orders", |json| {
            json["subject"].as_array_mut().unwrap().swap(0, 1);
            json["predicate"]["items"].as_array_mut().unwrap().swap(0, 1);
        }),
        ("total items", |json| json["predicate"]["totals"]["items"] = 3.into()),
        ("total bytes", |json| json["predicate"]["totals"]["bytes"] = 4.into()),
        ("index", |json| json["predicate"]["items"][0]["s"] = 1.into()),
        ("no items", |json| {
            json["subject"] = json!([]);
            json["predicate"]["items"] = json!([]);
            json["predicate"]["totals"] = json!({"items": 0, "bytes": 0});
        }),
    ];
    for (what, fault) in faults {
        changed(&mut lane, &payload, what, fault);
    }
}

#[test]
fn g11_a_size_that_is_off_by_one_never_becomes_a_blob() {
    let (mut lane, payload) = lane();
    for off in [1_u64, 3] {
        let mut json: Value = serde_json::from_slice(&payload).unwrap();
        json["predicate"]["items"][1]["size"] = off.into();
        json["predicate"]["totals"]["bytes"] = (off + 1).into();
        json["predicate"]["bundle"]["version"] = format!("2.{off}").into();
        for item in json["subject"].as_array_mut().unwrap() {
            item["name"] = item["name"].as_str().unwrap().replace("1.0", &off.to_string()).into();
        }
        for item in json["predicate"]["items"].as_array_mut().unwrap() {
            item["path"] = item["path"].as_str().unwrap().replace("1.0", &off.to_string()).into();
        }
        let lied = json.to_string().into_bytes();
        lane.assign(&format!("2.{off}"), &lied);
        let reply = lane.offer(&lane.seal(&lied));
        assert_eq!(reply.status, 200, "{}", reply.text());
        let target = format!("/api/v1/blobs/{}", Digest::of(b"yy").to_hex());
        let mut wire = lane.site.connect();
        wire.send(format!(
            "PATCH {target} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer eut1_test\r\nUpload-Offset: 0\r\nContent-Length: 2\r\n\r\nyy"
        ));
        let status = wire.reply(false).status;
        // Too many bytes are refused, too few leave the upload open.
        assert!(if off == 1 { status == 422 } else { status == 204 }, "{off}: {status}");
        let commit = lane.site.send("POST", &format!("/api/v1/bundles/shop/2.{off}/commit"), b"");
        assert_eq!(commit.status, 409);
        lane.house.trust.assignments.retain(|one| !one.version.as_str().starts_with("2."));
        lane.put_trust();
    }
    // The truth is not blocked by the lies that were taken back.
    assert_eq!(lane.offer(&lane.seal(&payload)).status, 200);
}

#[test]
fn g12_digests() {
    let (mut lane, payload) = lane();
    let good = Digest::of(b"x").to_hex();
    for bad in [
        good.to_uppercase(),
        good[..63].to_owned(),
        format!("{good}0"),
        format!("0x{}", &good[2..]),
        String::new(),
    ] {
        changed(&mut lane, &payload, &bad, |json| {
            json["subject"][0]["digest"]["sha256"] = bad.clone().into()
        });
    }
    changed(&mut lane, &payload, "md5", |json| json["subject"][0]["digest"] = json!({"md5": "0".repeat(32)}));
    changed(&mut lane, &payload, "both", |json| json["subject"][0]["digest"]["sha512"] = "0".into());
}

#[test]
fn g13_too_much_and_strange_numbers() {
    let (mut lane, payload) = lane();
    let text = String::from_utf8(payload.clone()).unwrap();
    for size in [
        "1.0",
        "1e0",
        "-1",
        "18446744073709551616",
        "9007199254740993",
        "\"1\"",
        "01",
        "true",
        "null",
        "1E400",
        "NaN",
    ] {
        let bad = text.replacen("\"size\":1", &format!("\"size\":{size}"), 1);
        assert_ne!(bad, text);
        raw(&mut lane, size, bad.as_bytes());
    }
    for (what, bad) in [
        ("twice", text.replacen("\"created\"", "\"created\":\"2026-11-22T05:00:00Z\",\"created\"", 1)),
        ("unknown", text.replacen("\"created\"", "\"creatd\":1,\"created\"", 1)),
        ("more", format!("{text} {{}}")),
        ("mark", format!("\u{feff}{text}")),
        ("cut", text[..text.len() - 1].to_owned()),
    ] {
        raw(&mut lane, what, bad.as_bytes());
    }
    let begun = std::time::Instant::now();
    let deep =
        format!("{{\"payloadType\":\"x\",\"payload\":\"\",\"signatures\":[],\"y\":{}", "[".repeat(10_000));
    assert_eq!(lane.offer(deep.as_bytes()).status, 400);
    // Announced, and not even read.
    let mut wire = lane.site.connect();
    wire.send("POST /api/v1/bundles HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer eut1_test\r\nContent-Length: 34603009\r\n\r\n");
    assert_eq!(wire.reply(false).status, 413);
    let mut wire = lane.site.connect();
    wire.send("PUT /api/v1/trust HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer eut1_test\r\nContent-Length: 5000001\r\n\r\n");
    assert_eq!(wire.reply(false).status, 413);
    assert!(begun.elapsed().as_secs() < 5);
}

#[test]
fn g20_a_withdrawn_bundle_stays_withdrawn() {
    let (mut lane, payload) = lane();
    let envelope = lane.seal(&payload);
    assert_eq!(lane.offer(&envelope).status, 200);
    assert_eq!(lane.finish("shop", "1.0", &[b"x", b"yy"]).status, 200);
    let old_trust = lane.house.trust.clone();
    lane.house.withdraw("shop", "1.0");
    lane.put_trust();
    let gone = |lane: &Lane, when: &str| {
        assert_eq!(lane.offer(&envelope).status, 410, "{when}");
        assert_eq!(lane.site.send("POST", "/api/v1/bundles/shop/1.0/commit", b"").status, 410, "{when}");
        assert_eq!(lane.site.get("/generic-local/shop/1.0/x", "").status, 410, "{when}");
        assert_eq!(lane.site.get("/artifactory/generic-local/shop/1.0/x", "").status, 410, "{when}");
    };
    gone(&lane, "withdrawn");
    // An older trust document, and a newer one that forgets.
    let old = old_trust.seal(&[&lane.house.root as &dyn Signer], NOW).unwrap().to_json();
    assert_eq!(lane.site.send("PUT", "/api/v1/trust", &old).status, 409);
    let mut forgetful = old_trust;
    forgetful.version = lane.house.trust.version + 1;
    let forgetful = forgetful.seal(&[&lane.house.root as &dyn Signer], NOW).unwrap().to_json();
    assert_eq!(lane.site.send("PUT", "/api/v1/trust", &forgetful).status, 409);
    gone(&lane, "replayed trust");
    lane.site.send("DELETE", "/api/v1/bundles/shop/1.0", b"");
    assert_eq!(lane.site.send("POST", "/api/v1/gc", b"").status, 200);
    gone(&lane, "deleted");
}

#[test]
fn g22_an_alias_goes_where_it_was_signed_to() {
    let mut lane = Lane::new();
    let release = |lane: &mut Lane, bundle: &str, version: &str, seq: u64, target: &str| {
        let item = lane.site.block_on(lane.house.item("generic-local", target, target.as_bytes()));
        let statement = House::statement(bundle, version, seq)
            .item(item)
            .alias(name("generic-local"), name("shop"), "stable", name(target))
            .build()
            .unwrap();
        let offer = lane.house.sign(&statement);
        lane.house.assign(offer.clone());
        lane.put_trust();
        let reply = lane.offer(&offer.envelope);
        if reply.status != 200 {
            reply.status
        } else {
            lane.finish(bundle, version, &[target.as_bytes()]).status
        }
    };
    assert_eq!(release(&mut lane, "shop", "2.0", 2, "shop/two"), 200);
    // A lower one arrives later: it may be there, and does not take the alias.
    assert_eq!(release(&mut lane, "shop", "1.0", 1, "shop/one"), 200);
    assert_eq!(lane.site.get("/generic-local/shop/stable", "").body, b"shop/two");
    // Another bundle cannot have it, under any spelling.
    assert_eq!(release(&mut lane, "evil", "9.0", 99, "evil/nine"), 409);
    assert_eq!(lane.site.get("/generic-local/shop/stable", "").body, b"shop/two");
    assert_eq!(release(&mut lane, "shop", "3.0", 3, "shop/three"), 200);
    assert_eq!(lane.site.get("/generic-local/shop/stable", "").body, b"shop/three");
    // Withdrawn: it does not fall back to what was there before.
    lane.house.withdraw("shop", "3.0");
    lane.put_trust();
    assert_eq!(lane.site.get("/generic-local/shop/stable", "").status, 410);
    assert_eq!(lane.site.get("/generic-local/shop/two", "").status, 200);
}
