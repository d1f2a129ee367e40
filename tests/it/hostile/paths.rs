//! Group A: one object, one spelling.

use super::house::{A_BIN, SHARED, SIZE};

#[test]
fn a01_dot_dot_segments() {
    SHARED.all(
        400,
        &[
            "/generic-local/../secret-local/s.bin",
            "/generic-local/app/../../secret-local/s.bin",
            "/artifactory/../secret-local/s.bin",
            "/artifactory/generic-local/../../secret-local/s.bin",
            "/../secret-local/s.bin",
            "/generic-local/..",
            "/generic-local/../",
            "/api/v1/../../secret-local/s.bin",
            "/healthz/../secret-local/s.bin",
            "/.well-known/../secret-local/s.bin",
        ],
    );
}

#[test]
fn a02_encoded_dots() {
    SHARED.all(
        400,
        &[
            "/generic-local/%2e%2e/secret-local/s.bin",
            "/generic-local/%2E%2E/secret-local/s.bin",
            "/generic-local/.%2e/secret-local/s.bin",
            "/generic-local/%2e./secret-local/s.bin",
            "/artifactory/%2e%2e/secret-local/s.bin",
            "/%2e%2e",
            "/%2e",
        ],
    );
}

#[test]
fn a03_encoded_dots_and_slashes() {
    SHARED.all(
        400,
        &[
            "/generic-local/%2e%2e%2fsecret-local%2fs.bin",
            "/generic-local/..%2Fsecret-local/s.bin",
            "/generic-local%2f..%2fsecret-local%2fs.bin",
            "/secret-local%2fs.bin",
        ],
    );
}

#[test]
fn a04_the_nexus_request() {
    SHARED.all(400, &["/%2F%2F%2F%2F%2F%2F%2F..%2F..%2F..%2F..%2F..%2F..%2F..%2Fetc%2Fpasswd"]);
}

#[test]
fn a05_empty_segments() {
    SHARED.all(
        400,
        &[
            "//generic-local/app/1.0/a.bin",
            "/generic-local//app/1.0/a.bin",
            "/generic-local/app/1.0//a.bin",
            "/generic-local/app/1.0/a.bin//",
            "/generic-local//",
            "///",
            "/artifactory//secret-local/s.bin",
            "/api//v1/status",
            "//healthz",
        ],
    );
}

#[test]
fn a06_single_dots() {
    SHARED.all(
        400,
        &["/generic-local/app/./1.0/a.bin", "/./generic-local/app/1.0/a.bin", "/generic-local/.", "/."],
    );
}

#[test]
fn a07_double_encoding() {
    SHARED.all(
        400,
        &[
            "/generic-local/%252e%252e/secret-local/s.bin",
            "/generic-local/%25%32%65%25%32%65/secret-local/s.bin",
            "/generic-local/app/1.0/a%25.bin",
            "/secret-local/%2573.bin",
        ],
    );
}

#[test]
fn a08_nul() {
    SHARED.all(400, &["/generic-local/app/1.0/a.bin%00.txt", "/generic-local/%00", "/%00/healthz"]);
    assert_eq!(SHARED.ask(b"GET /generic-local/a\0b HTTP/1.1\r\nHost: a\r\n\r\n").status, 400);
}

#[test]
fn a09_backslashes() {
    SHARED.all(
        400,
        &[
            "/generic-local/app\\..\\..\\s.bin",
            "/generic-local/app%5c..%5c..%5cs.bin",
            "/generic-local\\..\\secret-local/s.bin",
            "\\secret-local\\s.bin",
            "/%5c%5cevil.test/x",
        ],
    );
}

#[test]
fn a10_overlong_and_broken_utf_8() {
    SHARED.all(
        400,
        &[
            "/generic-local/%c0%ae%c0%ae/s.bin",
            "/generic-local/%e0%80%ae%e0%80%ae/s.bin",
            "/generic-local/%c0%af..%c0%afs.bin",
            "/generic-local/%ff",
            "/generic-local/%ed%a0%80",
            "/generic-local/%f4%90%80%80",
        ],
    );
}

#[test]
fn a11_broken_escapes() {
    SHARED.all(400, &["/generic-local/%zz", "/a%", "/a%4", "/generic-local/%+41", "/%u002e%u002e/s.bin"]);
}

#[test]
fn a12_raw_bytes() {
    assert_eq!(SHARED.ask(b"GET /generic-local/\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n").status, 400);
    assert_eq!(SHARED.ask(b"GET /generic-local/\xff HTTP/1.1\r\nHost: a\r\n\r\n").status, 400);
    SHARED.all(404, &["/generic-local/%C3%A9"]);
}

#[test]
fn a13_encoded_slash() {
    SHARED.all(
        400,
        &["/generic-local/app%2f1.0%2fa.bin", "/generic-local%2Fapp/1.0/a.bin", "/api%2fv1%2fstatus"],
    );
}

#[test]
fn a14_encoded_letters_are_the_same_letters() {
    let plain = SHARED.get(A_BIN, "");
    for target in [
        "/generic-local/%61pp/1.0/a.bin",
        "/%67eneric-local/app/1%2E0/a.bin",
        "/artifactory/generic-local/app/1.0/%61.bin",
        "/%61rtifactory/generic-local/app/1.0/a.bin",
    ] {
        let reply = SHARED.get(target, "");
        assert_eq!((reply.status, reply.body.len()), (200, SIZE), "{target}");
        assert_eq!(reply.header("etag"), plain.header("etag"), "{target}");
    }
    // A spelling opens no door: the control surface and private things stay what they are.
    for target in ["/%61pi/v1/status", "/api/v1/%73tatus", "/%73ecret-local/s.bin", "/%6detrics"] {
        assert_eq!(SHARED.get(target, "").status, 401, "{target}");
    }
}

#[test]
fn a16_fullwidth_dots_are_a_name() {
    SHARED.all(
        404,
        &[
            "/generic-local/%EF%BC%8E%EF%BC%8E/s.bin",
            "/generic-local/%E2%80%A4%E2%80%A4/s.bin",
            "/generic-local/app%EF%BC%8F1.0/a.bin",
        ],
    );
}

#[test]
fn a18_no_folding_and_no_windows_rules() {
    SHARED.all(
        404,
        &[
            "/generic-local/app/1.0/A.BIN",
            "/generic-local/APP/1.0/a.bin",
            "/generic-local/app/1.0/a.bin.",
            "/generic-local/app/1.0/a.bin%20",
            "/generic-local/app/1.0/a.bin::$DATA",
            "/generic-local/app/1.0/a.bin;x=1",
            "/generic-local/app/1.0/%e2%80%8ba.bin",
            "/generic-local/odd/%22%3E%3Cscript%3Ealert(1)%3Ca%CC%88.txt",
        ],
    );
    SHARED.all(
        401,
        &["/GENERIC-LOCAL/app/1.0/a.bin", "/Artifactory/generic-local/app/1.0/a.bin", "/API/v1/status"],
    );
}

#[test]
fn a19_long_paths() {
    let segment = format!("/generic-local/{}", "a".repeat(256));
    SHARED.all(404, &[&segment, &format!("/secret-local/{}", "a".repeat(256))]);
    SHARED.all(414, &[&format!("/generic-local/{}", "a/".repeat(4600)), &format!("/{}", "%61".repeat(3000))]);
    SHARED.all(
        404,
        &[&format!("/generic-local{}", "/a".repeat(70)), &format!("/generic-local{}", "/a".repeat(1000))],
    );
}

#[test]
fn a20_queries_and_fragments() {
    let plain = SHARED.get(A_BIN, "");
    for rest in ["?x=../../s.bin#y", "?/../secret-local/s.bin", "?%00", "?a=b?c=d", "?n=-1&last=../"] {
        let reply = SHARED.get(&format!("{A_BIN}{rest}"), "");
        assert!(reply.status == 400 || reply.body == plain.body, "{rest}");
    }
    assert!(matches!(SHARED.get(&format!("{A_BIN}#/../s.bin"), "").status, 200 | 400));
}

#[test]
fn a_listing_asked_for_nonsense_answers_400() {
    SHARED.all(
        400,
        &[
            "/generic-local/?n=-1",
            "/generic-local/?n=x",
            "/generic-local/?n=99999999999999999999999",
            "/generic-local/?last=../",
            "/generic-local/?last=%00",
            "/generic-local/?last=a%2Fb",
        ],
    );
    assert_eq!(SHARED.get("/generic-local/?n=18446744073709551615", "").status, 200);
    assert_eq!(SHARED.get("/generic-local/?n=0", "").status, 200);
    assert_eq!(SHARED.get("/generic-local/?last=%F4%8F%BF%BF", "").status, 200);
}
