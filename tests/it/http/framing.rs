//! Group B of the hostile cases: where a message begins and ends, and whom it is for.

use super::rig::{A_BIN, Rig, SIZE};
use distedge::edge::Gate;
use distedge::server::Limits;

/// Sends `request` with a second one behind it; answers how many answers came, the first status,
/// and whether the connection was closed.
fn smuggle(rig: &Rig, request: &str) -> (usize, u16) {
    let mut wire = rig.connect();
    wire.send(format!(
        "{request}GET /secret-local/s.bin HTTP/1.1\r\nHost: edge.test\r\nConnection: close\r\n\r\n"
    ));
    let first = wire.reply(false);
    let mut answers = 1;
    while let Some(reply) = wire.try_reply(false) {
        assert!(!reply.text().contains("the secret"), "{request:?}");
        answers += 1;
    }
    (answers, first.status)
}

#[test]
fn a_request_names_one_host() {
    let rig = Rig::new();
    let ask = |head: &str| rig.ask(format!("{head}\r\n\r\n")).status;
    assert_eq!(ask(&format!("GET {A_BIN} HTTP/1.1\r\nHost: edge.test\r\nHost: edge.test")), 400);
    assert_eq!(ask(&format!("GET {A_BIN} HTTP/1.1\r\nHost: edge.test\r\nHost: evil.test")), 400);
    assert_eq!(ask(&format!("GET {A_BIN} HTTP/1.1")), 400);
    assert_eq!(ask(&format!("GET {A_BIN} HTTP/1.0")), 200);
    for bad in
        ["", "a b", "user@edge.test", "edge.test/x", "edge.test:x", "edge.test:", "edge,test", "[::1", "<x>"]
    {
        assert_eq!(ask(&format!("GET {A_BIN} HTTP/1.1\r\nHost: {bad}")), 400, "{bad:?}");
    }
    for good in ["edge.test", "EDGE.test:8080", "127.0.0.1", "[::1]:80", "a_b"] {
        assert_eq!(ask(&format!("GET {A_BIN} HTTP/1.1\r\nHost: {good}")), 200, "{good:?}");
    }
}

#[test]
fn a_target_for_another_host_is_misdirected() {
    let rig = Rig::new();
    let ask =
        |target: &str, host: &str| rig.ask(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")).status;
    assert_eq!(ask(&format!("http://evil.test{A_BIN}"), "edge.test"), 421);
    assert_eq!(ask(&format!("http://edge.test:81{A_BIN}"), "edge.test"), 421);
    assert_eq!(ask(&format!("http://edge.test{A_BIN}"), "edge.test"), 200);
    assert_eq!(ask(&format!("ftp://edge.test{A_BIN}"), "edge.test"), 421);
    assert_eq!(ask(&format!("http://user@edge.test{A_BIN}"), "edge.test"), 400);
    assert_eq!(ask("edge.test:80", "edge.test:80"), 400);
    assert_eq!(ask("edge.test:80", "edge.test"), 421);
    let rig = Rig::with(Limits::default(), Gate::new().with_hosts(["Edge.test", "::1"]), |config| config);
    let ask = |host: &str| rig.ask(format!("GET {A_BIN} HTTP/1.1\r\nHost: {host}\r\n\r\n")).status;
    assert_eq!((ask("edge.test"), ask("EDGE.TEST:8080"), ask("evil.test")), (200, 200, 421));
    assert_eq!(ask("edge.test.evil.test"), 421);
}

#[test]
fn a_message_has_one_length() {
    let rig = Rig::new();
    for headers in [
        "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX",
        "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\nX",
        "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: identity\r\n\r\n",
        "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n",
        "Content-Length: 6\r\nContent-Length: 7\r\n\r\nabcdef",
        "Content-Length: +5\r\n\r\nabcde",
        "Content-Length: -0\r\n\r\n",
        "Content-Length: 5, 5\r\n\r\nabcde",
        "Content-Length: 0x5\r\n\r\nabcde",
        "Content-Length: \r\n\r\n",
        "Content-Length: 99999999999999999999\r\n\r\n",
    ] {
        for line in [
            format!("POST /upload HTTP/1.1\r\nHost: a\r\n{headers}"),
            format!("GET {A_BIN} HTTP/1.1\r\nHost: a\r\n{headers}"),
        ] {
            assert_eq!(smuggle(&rig, &line), (1, 400), "{line:?}");
        }
    }
    let old = "POST /upload HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(smuggle(&rig, old), (1, 400));
    for chunk in ["FFFFFFFFFFFFFFFFF\r\nx", &format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(20_000)), "-1\r\n"]
    {
        let request =
            format!("POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}");
        assert_eq!(smuggle(&rig, &request), (1, 400));
    }
}

#[test]
fn a_get_has_no_body() {
    let rig = Rig::new();
    for method in ["GET", "HEAD", "OPTIONS"] {
        let body = "GET /secret-local/s.bin HTTP/1.1\r\nHost: a\r\n\r\n";
        let request =
            format!("{method} {A_BIN} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let mut wire = rig.connect();
        wire.send(request);
        assert_eq!(wire.reply(method == "HEAD").status, 400, "{method}");
        assert!(wire.is_closed());
    }
    let none = rig.ask(format!("GET {A_BIN} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"));
    assert_eq!(none.status, 200);
}

#[test]
fn broken_header_lines_are_refused() {
    let rig = Rig::new();
    for head in [
        "Host : x",
        "Host: a\r\n folded: y",
        "Host: a\r\nX: b\rc",
        "Host: a\r\nX: b\0c",
        "Host: a\r\nBad name: x",
        "Host: a\r\n: x",
        "Host: a\r\nno colon",
    ] {
        let reply = rig.ask(format!("GET {A_BIN} HTTP/1.1\r\n{head}\r\n\r\n"));
        assert_eq!(reply.status, 400, "{head:?}");
    }
    // Bare line feeds have one reading here: at most one answer.
    let mut wire = rig.connect();
    wire.send(format!("GET {A_BIN} HTTP/1.1\nHost: a\nConnection: close\n\n"));
    let reply = wire.reply(false);
    assert!(reply.status == 400 || reply.status == 200);
    assert!(wire.is_closed());
}

#[test]
fn too_many_or_too_large_headers_are_431() {
    let rig = Rig::new();
    let many: String = (0..100).map(|i| format!("X-{i}: y\r\n")).collect();
    assert_eq!(rig.get(A_BIN, &many).status, 431);
    let fewer: String = (0..99).map(|i| format!("X-{i}: y\r\n")).collect();
    assert_eq!(rig.get(A_BIN, &fewer).status, 200);
    for size in [17 * 1024, 32 * 1024, 64 * 1024, 500 * 1024] {
        assert_eq!(rig.get(A_BIN, &format!("X: {}\r\n", "y".repeat(size))).status, 431, "{size}");
    }
    let agent = format!("User-Agent: \u{1b}[31m\"%0d%0a{}\r\n", "y".repeat(8000));
    let status = rig.get(A_BIN, &agent).status;
    assert!(status == 200 || status == 400, "{status}");
    assert_eq!(rig.get(A_BIN, &format!("User-Agent: \"%0d%0a{}\r\n", "y".repeat(8000))).status, 200);
}

#[test]
fn headers_that_claim_another_target_are_not_read() {
    let rig = Rig::new();
    let claims = "X-Original-URL: /secret-local/s.bin\r\nX-Rewrite-URL: /secret-local/s.bin\r\n\
        X-HTTP-Method-Override: DELETE\r\nX-Method-Override: DELETE\r\nX-HTTP-Method: DELETE\r\n\
        X-Forwarded-Host: evil.test\r\nX-Forwarded-Proto: javascript\r\nX-Forwarded-Prefix: //evil\r\n\
        Forwarded: host=evil.test\r\nX-Host: evil.test\r\n";
    let plain = rig.get(A_BIN, "");
    let reply = rig.get(A_BIN, claims);
    assert_eq!(reply.status, 200);
    assert_eq!(reply.body, plain.body);
    assert!(!format!("{:?}", reply.headers).contains("evil"));
    let refused = rig.get("/nothing", claims);
    assert!(!refused.everything().contains("evil"));
}

#[test]
fn artifacts_are_read_only() {
    let rig = Rig::new();
    for method in ["PUT", "POST", "PATCH", "DELETE", "MKCOL", "COPY", "PROPFIND", "TRACE", "M-SEARCH"] {
        let reply =
            rig.ask(format!("{method} {A_BIN} HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 0\r\n\r\n"));
        assert_eq!(reply.status, 405, "{method}");
        assert_eq!(reply.header("allow"), Some("GET, HEAD"), "{method}");
    }
    assert_eq!(rig.ask("CONNECT evil:443 HTTP/1.1\r\nHost: evil:443\r\n\r\n").status, 405);
    assert_eq!(rig.ask("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n").status, 405);
    for method in ["get", "Get", "GETx", "a"] {
        assert_eq!(rig.ask(format!("{method} {A_BIN} HTTP/1.1\r\nHost: a\r\n\r\n")).status, 501, "{method}");
    }
    assert_eq!(rig.ask("G@T / HTTP/1.1\r\nHost: a\r\n\r\n").status, 400);
}

#[test]
fn expectations_and_upgrades() {
    let rig = Rig::new();
    assert_eq!(rig.get(A_BIN, "Expect: 200-ok\r\n").status, 417);
    for ignored in [
        "Expect: 100-continue\r\n",
        "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
        "Upgrade: websocket\r\nConnection: Upgrade\r\n",
        "Connection: keep-alive, X-Forwarded-For\r\n",
        "Connection: keep-alive, Host\r\n",
    ] {
        let reply = rig.get(A_BIN, ignored);
        assert_eq!((reply.status, reply.body.len()), (200, SIZE), "{ignored:?}");
    }
    let mut wire = rig.connect();
    wire.send("PUT /upload HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    wire.send("hello");
    assert_eq!(wire.reply(false).text(), "5");
}

#[test]
fn requests_in_a_row_are_answered_in_order() {
    let rig = Rig::new();
    let mut wire = rig.connect();
    let ranges = [(0, 9), (1000, 1099), (5, 5), (0, 1_048_575), (77, 200_000)];
    let mut requests = String::new();
    for (first, last) in ranges {
        requests += &format!("GET {A_BIN} HTTP/1.1\r\nHost: a\r\nRange: bytes={first}-{last}\r\n\r\n");
    }
    requests += "GET /generic-local/nothing HTTP/1.1\r\nHost: a\r\n\r\n";
    requests += &format!("HEAD {A_BIN} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    wire.send(requests);
    let bytes = super::rig::noise(SIZE);
    for (first, last) in ranges {
        let reply = wire.reply(false);
        assert_eq!(reply.status, 206);
        assert!(reply.body == bytes[first..=last]);
    }
    assert_eq!(wire.reply(false).status, 404);
    let head = wire.reply(true);
    assert_eq!(head.header("content-length"), Some("1048576"));
    assert!(wire.is_closed());
}

#[test]
fn a_head_has_no_body_whatever_it_says() {
    let rig = Rig::new();
    for path in [A_BIN, "/generic-local/nothing", "/generic-local/%zz", "/generic-local/empty.bin"] {
        let mut wire = rig.connect();
        wire.send(format!(
            "HEAD {path} HTTP/1.1\r\nHost: a\r\nRange: bytes=0-4\r\nConnection: close\r\n\r\n"
        ));
        let head = wire.reply(true);
        assert!(wire.is_closed(), "{path}");
        assert_eq!(head.status, rig.get(path, "").status);
        assert_eq!(head.header("content-length"), rig.get(path, "").header("content-length"));
    }
}
