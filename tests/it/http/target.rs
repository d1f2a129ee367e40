//! Group A of the hostile cases: one target has one reading.

use super::rig::{A_BIN, Rig};
use distedge::name::Target;
use proptest::prelude::*;

#[test]
fn a_path_with_two_readings_is_refused() {
    let rig = Rig::new();
    for path in [
        "/generic-local/../secret-local/s.bin",
        "/generic-local/%2e%2e/secret-local/s.bin",
        "/generic-local/%2E%2e/secret-local/s.bin",
        "/generic-local/.%2e/secret-local/s.bin",
        "/generic-local/%2e%2e%2fsecret-local%2fs.bin",
        "/%2F%2F%2F%2F%2F%2F%2F..%2F..%2F..%2F..%2F..%2F..%2F..%2Fetc%2Fpasswd",
        "//generic-local/app/1.0/a.bin",
        "/generic-local//app/1.0/a.bin",
        "/generic-local/app/./1.0/a.bin",
        "/generic-local/%252e%252e/secret-local/s.bin",
        "/generic-local/%25%32%65%25%32%65/secret-local/s.bin",
        "/generic-local/app/1.0/a.bin%00.txt",
        "/generic-local/app\\..\\..\\s.bin",
        "/generic-local/app%5c..%5c..%5cs.bin",
        "/generic-local/%c0%ae%c0%ae/s.bin",
        "/generic-local/%ed%a0%80/s.bin",
        "/generic-local/%zz",
        "/a%",
        "/a%4",
        "/generic-local/\u{e9}",
        "/generic-local/app%2f1.0%2fa.bin",
        "/%0d%0aSet-Cookie:x=1",
        "/generic-local/..",
        "/generic-local/app/1.0/a.bin/..",
        "/..",
        "/%2e",
        "/generic-local/a%7fb",
        "/generic-local/app/1.0/..;/s.bin%2f",
        "generic-local/app/1.0/a.bin",
        "*",
    ] {
        let reply = rig.get(path, "");
        assert_eq!(reply.status, 400, "{path}");
        assert!(!reply.everything().contains("secret"), "{path}");
        assert!(reply.header("set-cookie").is_none());
    }
    let raw = rig.ask(b"GET /generic-local/\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(raw.status, 400);
    let raw = rig.ask(b"GET /generic-local/\xff HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(raw.status, 400);
    let raw = rig.ask(b"GET /generic-local/a\x00b HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(raw.status, 400);
}

#[test]
fn what_nobody_has_is_not_found() {
    let rig = Rig::new();
    for path in [
        "/generic-local/%EF%BC%8E%EF%BC%8E/s.bin",
        "/generic-local/app/1.0/A.BIN",
        "/generic-local/app/1.0/a.bin.",
        "/generic-local/app/1.0/a.bin%20",
        "/generic-local/app/1.0/a.bin::$DATA",
        "/GENERIC-LOCAL/app/1.0/a.bin",
        "/generic-local/app/1.0/a.bin;x=1",
        &format!("/generic-local/{}", "a".repeat(256)),
    ] {
        assert_eq!(rig.get(path, "").status, 404, "{path}");
    }
}

#[test]
fn long_targets_are_414() {
    let rig = Rig::new();
    for length in [2049, 9 * 1024, 20 * 1024] {
        let status = rig.get(&format!("/{}", "a/".repeat(length / 2)), "").status;
        assert!(status == 414 || (length > 16 * 1024 && status == 431), "{length}: {status}");
    }
    assert_eq!(rig.get(&format!("{A_BIN}?{}", "q".repeat(8200)), "").status, 414);
    assert_eq!(rig.get(&format!("{A_BIN}?{}", "q".repeat(2000)), "").status, 200);
}

#[test]
fn encoded_letters_are_the_same_letters() {
    let rig = Rig::new();
    let plain = rig.get(A_BIN, "");
    let encoded = rig.get("/generic-local/%61pp/1.0/a.bin", "");
    assert_eq!((plain.status, encoded.status), (200, 200));
    assert_eq!(plain.header("etag"), encoded.header("etag"));
    assert_eq!(plain.body, encoded.body);
}

#[test]
fn queries_and_fragments_change_nothing() {
    let rig = Rig::new();
    let plain = rig.get(A_BIN, "");
    for target in
        ["?x=../../s.bin#y", "?", "?a=b&c", "#/../../secret-local/s.bin", "?path=/secret-local/s.bin"]
    {
        let reply = rig.get(&format!("{A_BIN}{target}"), "");
        assert!(reply.status == 200 || reply.status == 400, "{target}");
        if reply.status == 200 {
            assert_eq!(reply.body, plain.body, "{target}");
        }
    }
}

#[test]
fn refusals_under_artifactory_have_its_shape() {
    let rig = Rig::new();
    let reply = rig.get("/artifactory/generic-local/nothing", "");
    assert_eq!(reply.status, 404);
    let document: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(document["errors"][0]["status"], 404);
    assert!(document["errors"][0]["message"].is_string());
    let reply = rig.get("/generic-local/nothing", "");
    assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    let document: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(document["type"], "urn:distedge:problem:not-found");
}

proptest! {
    #[test]
    fn no_accepted_target_has_an_unsafe_segment(path in "(/|[%a-fA-F0-9._~\\\\-]|[ -~]|%2[eEfF]|%5[cC]|\\.\\.){0,40}") {
        if let Ok(target) = Target::parse(&path) {
            for segment in target.segments() {
                prop_assert!(!segment.is_empty() && segment != "." && segment != "..");
                prop_assert!(!segment.chars().any(|c| c.is_control() || matches!(c, '/' | '\\' | '%')));
            }
            prop_assert_eq!(Target::parse(&target.to_path()).unwrap(), target);
        }
    }
}
