//! Group D of the hostile cases: ranges and preconditions, and what comes with an artifact.

use super::rig::{A_BIN, Rig, SIZE, noise};
use distedge::digest::Digest;

#[test]
fn numbers_beyond_the_end_are_clipped() {
    let rig = Rig::new();
    let bytes = noise(SIZE);
    for (range, first, last) in [
        ("bytes=0-18446744073709551615", 0, SIZE - 1),
        ("bytes=-18446744073709551615", 0, SIZE - 1),
        ("bytes=0-999999999999999999999999", 0, SIZE - 1),
        ("bytes=1048575-", SIZE - 1, SIZE - 1),
        ("bytes=-1", SIZE - 1, SIZE - 1),
        ("bytes=100-199", 100, 199),
        ("BYTES=0-0", 0, 0),
        ("bytes=0-999999,1-999999,2-999999", 0, 999_999),
        ("bytes=5-9,0-4", 0, 9),
    ] {
        let reply = rig.get(A_BIN, &format!("Range: {range}\r\n"));
        assert_eq!(reply.status, 206, "{range}");
        assert_eq!(reply.header("content-range"), Some(format!("bytes {first}-{last}/{SIZE}").as_str()));
        assert!(reply.body == bytes[first..=last], "{range}");
    }
}

#[test]
fn a_range_without_a_byte_is_416() {
    let rig = Rig::new();
    for range in ["bytes=1048576-", "bytes=-0", "bytes=99999999-999999999", "bytes=18446744073709551616-"] {
        let reply = rig.get(A_BIN, &format!("Range: {range}\r\n"));
        assert_eq!(reply.status, 416, "{range}");
        assert_eq!(reply.header("content-range"), Some("bytes */1048576"));
    }
}

#[test]
fn a_malformed_range_is_ignored() {
    let rig = Rig::new();
    let whole = noise(SIZE);
    for range in [
        "Range: bytes=5-2",
        "Range: bytes=0x10-0x20",
        "Range: lines=0-5",
        "Range: bytes= 0 - 5",
        "Range: bytes",
        "Range: bytes=",
        "Range: ",
        "Range: bytes=a-b",
        "Range: bytes=0-5,junk",
        "Range: bytes=\u{e9}-5",
        "Range: bytes=0-5\r\nRange: bytes=7-9",
        "Range: bytes=0-5\r\nRange: bytes=0-5",
        "Request-Range: bytes=0-5",
    ] {
        let reply = rig.get(A_BIN, &format!("{range}\r\n"));
        assert_eq!(reply.status, 200, "{range}");
        assert!(reply.body == whole, "{range}");
    }
}

#[test]
fn many_ranges_do_not_multiply_the_answer() {
    let rig = Rig::new();
    let list = |count: usize, step: usize, length: usize| -> String {
        let list: Vec<_> = (0..count).map(|i| format!("{}-{}", i * step, i * step + length)).collect();
        format!("Range: bytes={}\r\n", list.join(","))
    };
    for lines in [
        format!("Range: bytes={}0-\r\n", "0-,".repeat(1299)),
        format!("Range: bytes={}-1\r\n", "-1,".repeat(1000)),
        list(1000, 5, 0),
        list(64, 2, 0),
        list(17, 60_000, 50_000),
        list(16, 60_000, 59_990),
        list(40, 1, 1_000_000),
    ] {
        let reply = rig.get(A_BIN, &lines);
        assert!(matches!(reply.status, 200 | 206 | 416), "{}", reply.status);
        assert!(reply.body.len() <= SIZE + 4096, "{}", reply.body.len());
        assert!(!reply.cut);
    }
}

#[test]
fn several_ranges_come_as_parts() {
    let rig = Rig::new();
    let bytes = noise(SIZE);
    let reply = rig.get(A_BIN, "Range: bytes=1000-1999, 0-99 ,-50,99999999-\r\n");
    assert_eq!(reply.status, 206);
    assert!(!reply.cut && reply.header("content-range").is_none());
    let boundary =
        reply.header("content-type").unwrap().strip_prefix("multipart/byteranges; boundary=").unwrap();
    let mut rest = reply.body.as_slice();
    for (first, last) in [(0, 99), (1000, 1999), (SIZE - 50, SIZE - 1)] {
        let lead = if first == 0 { "" } else { "\r\n" };
        let head = format!(
            "{lead}--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes {first}-{last}/{SIZE}\r\n\r\n"
        );
        rest = rest.strip_prefix(head.as_bytes()).unwrap();
        rest = rest.strip_prefix(&bytes[first..=last]).unwrap();
    }
    assert_eq!(rest, format!("\r\n--{boundary}--\r\n").as_bytes());
    let again = rig.get(A_BIN, "Range: bytes=0-1,5-6\r\n");
    assert!(!again.header("content-type").unwrap().contains(boundary));
}

#[test]
fn encodings_change_nothing() {
    let rig = Rig::new();
    let reply = rig.get(A_BIN, "Range: bytes=10-19\r\nAccept-Encoding: gzip, br, zstd\r\n");
    assert_eq!(reply.status, 206);
    assert!(reply.body == noise(SIZE)[10..20] && reply.header("content-encoding").is_none());
    let reply = rig.get(A_BIN, "Accept-Encoding: gzip;q=1, identity;q=0\r\n");
    assert_eq!((reply.status, reply.header("content-encoding")), (200, None));
}

#[test]
fn an_empty_artifact_can_be_resumed() {
    let rig = Rig::new();
    for lines in ["", "Range: bytes=0-\r\n", "Range: bytes=-5\r\n", "Range: bytes=0-1,4-\r\n"] {
        let reply = rig.get("/generic-local/empty.bin", lines);
        assert_eq!((reply.status, reply.header("content-length")), (200, Some("0")), "{lines}");
    }
}

#[test]
fn preconditions_over_the_wire() {
    let rig = Rig::new();
    let first = rig.get(A_BIN, "");
    let tag = first.header("etag").unwrap().to_owned();
    let date = first.header("last-modified").unwrap().to_owned();
    assert_eq!(tag, format!("\"{}\"", Digest::of(&noise(SIZE))));
    for (lines, status) in [
        (format!("If-None-Match: {tag}\r\n"), 304),
        (format!("If-None-Match: W/{tag}\r\n"), 304),
        (format!("If-None-Match: \"x\"\r\nIf-None-Match: {tag}\r\n"), 304),
        ("If-None-Match: *\r\n".into(), 304),
        (format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {date}\r\n"), 200),
        (format!("If-Modified-Since: {date}\r\n"), 304),
        ("If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n".into(), 200),
        (format!("If-Modified-Since: {}\r\n", "(".repeat(10_000)), 200),
        ("If-Modified-Since: never\r\n".into(), 200),
        ("If-Match: \"x\"\r\n".into(), 412),
        (format!("If-Match: {tag}\r\n"), 200),
        ("If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n".into(), 412),
        (format!("If-Range: {tag}\r\nRange: bytes=0-4\r\n"), 206),
        (format!("If-Range: {date}\r\nRange: bytes=0-4\r\n"), 206),
        (format!("If-Range: W/{tag}\r\nRange: bytes=0-4\r\n"), 200),
        ("If-Range: \"x\"\r\nRange: bytes=0-4\r\n".into(), 200),
        ("If-Range: \"x\"\r\nRange: bytes=9999999-\r\n".into(), 200),
        (format!("If-None-Match: {tag}\r\nRange: bytes=0-4\r\n"), 304),
    ] {
        let reply = rig.get(A_BIN, &lines);
        assert_eq!(reply.status, status, "{}", &lines[..lines.len().min(100)]);
        if status == 304 {
            assert_eq!(reply.header("etag"), Some(tag.as_str()));
            assert!(reply.header("cache-control").is_some() && reply.header("last-modified").is_some());
            assert!(reply.body.is_empty());
        }
    }
    let huge = rig.get(A_BIN, &format!("If-Modified-Since: {}\r\n", "(".repeat(60_000)));
    assert!(matches!(huge.status, 200 | 431));
}

#[test]
fn thousands_of_tags_are_compared_quickly() {
    let tag = format!("\"{}\"", Digest::of(b"x"));
    let mut headers = http::HeaderMap::new();
    let list: Vec<_> = (0..5000).map(|i| format!("\"{i}\"")).collect();
    headers.insert(http::header::IF_NONE_MATCH, list.join(",").parse().unwrap());
    let begun = std::time::Instant::now();
    let outcome = distedge::edge::conditional::evaluate(&headers, &tag, super::rig::MODIFIED);
    assert_eq!(outcome, distedge::edge::conditional::Outcome::Proceed);
    assert!(begun.elapsed() < std::time::Duration::from_millis(50), "{:?}", begun.elapsed());
    let rig = Rig::new();
    let status = rig.get(A_BIN, &format!("If-None-Match: {}\r\n", list.join(","))).status;
    assert!(matches!(status, 200 | 431), "{status}");
}

#[test]
fn an_artifact_tells_what_it_is() {
    let rig = Rig::new();
    let reply = rig.get(A_BIN, "");
    let digest = Digest::of(&noise(SIZE));
    use base64::Engine as _;
    let base64 = base64::engine::general_purpose::STANDARD.encode(digest.as_bytes());
    for (name, value) in [
        ("repr-digest", format!("sha-256=:{base64}:").as_str()),
        ("x-checksum-sha256", &digest.to_hex()),
        ("x-checksum-sha1", &"a".repeat(40)),
        ("accept-ranges", "bytes"),
        ("last-modified", "Sun, 22 Nov 2026 05:00:00 GMT"),
        ("content-length", "1048576"),
        ("content-type", "application/octet-stream"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(reply.header(name), Some(value), "{name}");
    }
    // What is not a checksum is not sent as one.
    assert_eq!(reply.header("x-checksum-md5"), None);
    let part = rig.get(A_BIN, "Range: bytes=0-4\r\n");
    assert_eq!(part.header("repr-digest"), reply.header("repr-digest"));
}

#[test]
fn pages_among_the_artifacts_do_not_run() {
    let rig = Rig::new();
    for path in ["/generic-local/page.html", "/generic-local/liar.txt"] {
        let reply = rig.get(path, "");
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        assert!(reply.header("content-disposition").unwrap().starts_with("attachment; filename="));
        assert!(reply.header("content-security-policy").unwrap().starts_with("sandbox; default-src 'none'"));
    }
    let odd = rig.get("/generic-local/odd.txt", "");
    assert_eq!(
        (odd.header("content-type"), odd.header("set-cookie")),
        (Some("application/octet-stream"), None)
    );
}

#[test]
fn delivered_bytes_are_told() {
    let rig = Rig::new();
    rig.get(A_BIN, "Range: bytes=0-99\r\n");
    rig.get(A_BIN, "");
    let mut wire = rig.connect();
    wire.send("GET /generic-local/big.bin HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut some = [0; 100];
    std::io::Read::read_exact(&mut wire.stream, &mut some).unwrap();
    drop(wire);
    for _ in 0..200 {
        if rig.site.delivered.lock().unwrap().len() == 3 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let delivered = rig.site.delivered.lock().unwrap().clone();
    assert_eq!((delivered[0].bytes, delivered[0].complete), (100, true));
    assert_eq!((delivered[1].bytes, delivered[1].complete), (SIZE as u64, true));
    assert!(!delivered[2].complete && delivered[2].bytes < 12 * SIZE as u64);
}
