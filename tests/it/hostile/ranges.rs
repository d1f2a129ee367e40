//! Group D, and what a browser is told about artifacts (I11).

use super::house::{A_BIN, SHARED, SIZE};
use crate::http::rig::noise;

#[test]
fn d01_a_thousand_ranges() {
    for ranges in
        [vec!["0-"; 1300].join(","), (0..1300).map(|at| format!("{at}-{at}")).collect::<Vec<_>>().join(",")]
    {
        let reply = SHARED.get(A_BIN, &format!("Range: bytes={ranges}\r\n"));
        assert!(matches!(reply.status, 200 | 416), "{}", reply.status);
        assert!(reply.body.len() <= SIZE + 4096);
    }
}

#[test]
fn d02_d03_numbers_beyond_all() {
    let whole = noise(SIZE);
    for range in [
        "0-18446744073709551615",
        "-18446744073709551615",
        "0-99999999999999999999999999",
        "-99999999999999999999",
    ] {
        let reply = SHARED.get(A_BIN, &format!("Range: bytes={range}\r\n"));
        assert!(matches!(reply.status, 200 | 206), "{range}");
        assert!(reply.body == whole, "{range}");
    }
    assert_eq!(SHARED.get(A_BIN, "Range: bytes=0-18446744073709551615\r\n").status, 206);
    assert_eq!(SHARED.get(A_BIN, "Range: bytes=-0\r\n").status, 416);
}

#[test]
fn d04_at_the_end() {
    for range in
        ["1048576-", "1048576-1048576", "18446744073709551615-", "18446744073709551614-18446744073709551615"]
    {
        let reply = SHARED.get(A_BIN, &format!("Range: bytes={range}\r\n"));
        assert_eq!((reply.status, reply.header("content-range")), (416, Some("bytes */1048576")), "{range}");
    }
    assert_eq!(SHARED.get(A_BIN, "Range: bytes=1048575-\r\n").body.len(), 1);
    let empty = SHARED.get("/generic-local/empty.bin", "Range: bytes=0-0\r\n");
    assert!(matches!(empty.status, 200 | 416) && empty.body.len() < 1024);
}

#[test]
fn d05_malformed_ranges_are_ignored() {
    for range in [
        "bytes=5-2",
        "bytes=0x10-0x20",
        "lines=0-5",
        "bytes= 0 - 5",
        "bytes=+1-2",
        "bytes=1-2-3",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "=0-1",
        "bytes 0-1",
    ] {
        let reply = SHARED.get(A_BIN, &format!("Range: {range}\r\n"));
        assert_eq!((reply.status, reply.body.len()), (200, SIZE), "{range}");
    }
}

#[test]
fn d06_d07_overlapping_and_repeated() {
    let reply = SHARED.get(A_BIN, "Range: bytes=0-999999,1-999999,2-999999\r\n");
    assert!(matches!(reply.status, 200 | 206));
    assert!(reply.body.len() <= SIZE + 4096);
    let reply = SHARED.get(A_BIN, "Range: bytes=0-1\r\nRange: bytes=5-6\r\n");
    assert!(reply.status == 400 || reply.body.len() == SIZE);
}

#[test]
fn d09_encodings_change_nothing() {
    let reply = SHARED.get(A_BIN, "Range: bytes=0-9\r\nAccept-Encoding: gzip, br, identity;q=0\r\n");
    assert_eq!((reply.status, &reply.body[..]), (206, &noise(SIZE)[..10]));
    assert_eq!(reply.header("content-encoding"), None);
}

#[test]
fn d10_d11_costly_conditions() {
    let nested = format!("If-Modified-Since: {}\r\n", "(".repeat(12 * 1024));
    assert_eq!(SHARED.get(A_BIN, &nested).status, 200);
    let nested = format!("If-Modified-Since: {}\r\n", "(".repeat(60 * 1024));
    assert_eq!(SHARED.get(A_BIN, &nested).status, 431);
    let tags: Vec<String> = (0..5000).map(|at| format!("\"{at}\"")).collect();
    assert!(matches!(SHARED.get(A_BIN, &format!("If-None-Match: {}\r\n", tags.join(","))).status, 200 | 431));
    let tags: Vec<String> = (0..1500).map(|at| format!("\"{at}\"")).collect();
    assert_eq!(SHARED.get(A_BIN, &format!("If-None-Match: {}\r\n", tags.join(","))).status, 200);
}

#[test]
fn conditions_of_another_representation_give_the_whole() {
    let tag = SHARED.get(A_BIN, "").header("etag").unwrap().to_owned();
    let status = |lines: &str| SHARED.get(A_BIN, lines).status;
    assert_eq!(status(&format!("Range: bytes=0-9\r\nIf-Range: {tag}\r\n")), 206);
    for validator in
        ["\"other\"", &format!("W/{tag}"), "Thu, 01 Jan 1970 00:00:00 GMT", "*", "", "\"", "garbage"]
    {
        let lines = format!("Range: bytes=0-9\r\nIf-Range: {validator}\r\n");
        assert_eq!(SHARED.get(A_BIN, &lines).body.len(), SIZE, "{validator}");
    }
    assert_eq!(status(&format!("If-None-Match: \"x\", {tag}\r\n")), 304);
    assert_eq!(status("If-Match: \"x\"\r\n"), 412);
}

#[test]
fn i11_pages_among_the_artifacts_do_not_run() {
    for path in ["/generic-local/page.html", "/generic-local/image.svg", "/generic-local/liar.txt"] {
        for lines in ["", "Range: bytes=0-4\r\n", "Accept: text/html\r\n"] {
            let reply = SHARED.get(path, lines);
            assert!(matches!(reply.status, 200 | 206), "{path}");
            assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{path}");
            assert!(reply.header("content-disposition").unwrap().starts_with("attachment"), "{path}");
            assert!(reply.header("content-security-policy").unwrap().starts_with("sandbox"), "{path}");
        }
    }
}

#[test]
fn names_are_data_in_pages_and_headers() {
    let page = SHARED.get("/generic-local/odd/", "Accept: text/html\r\n");
    assert_eq!(page.status, 200);
    assert!(!page.text().contains("<script>alert"), "{}", page.text());
    assert!(page.header("content-security-policy").unwrap().contains("default-src 'none'"));
    let file = "/generic-local/odd/%22%3E%3Cscript%3Ealert(1)%3C%C3%A4.txt";
    let reply = SHARED.get(file, "");
    assert_eq!(reply.status, 200);
    let disposition = reply.header("content-disposition").unwrap();
    assert_eq!(disposition.matches('"').count(), 2, "{disposition}");
    assert!(disposition.is_ascii() && !disposition.contains('<'), "{disposition}");
    // A 404 does not repeat what was asked for.
    let reply = SHARED.get("/generic-local/%3Cscript%3Ealert(2)%3C%2Fscript%3E", "Accept: text/html\r\n");
    assert!(!reply.everything().contains("alert(2)"), "{}", reply.everything());
    assert!(!reply.header("content-type").unwrap().contains("html"));
}
