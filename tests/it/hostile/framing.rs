//! Group B: where a message ends, whom it is for, and what it may claim.

use super::house::{A_BIN, SHARED, SIZE};

/// The first answer to `request`, which is followed by one for something private.
fn first(request: &str) -> u16 {
    let mut wire = SHARED.connect();
    wire.send(request);
    wire.send("GET /secret-local/s.bin HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer eut1_test\r\n\r\n");
    let status = wire.reply(false).status;
    // Whoever smuggles does not hold the token: the second request must not be seen as one.
    assert!(wire.try_reply(false).is_none(), "{request:?}");
    status
}

#[test]
fn b01_two_hosts() {
    for hosts in
        ["Host: edge.test\r\nHost: evil.test", "Host: a\r\nHost: a", "Host: a, b", "Host: a\r\nhost:\r\n"]
    {
        assert_eq!(first(&format!("GET {A_BIN} HTTP/1.1\r\n{hosts}\r\n\r\n")), 400, "{hosts:?}");
    }
}

#[test]
fn b02_no_host() {
    assert_eq!(first(&format!("GET {A_BIN} HTTP/1.1\r\n\r\n")), 400);
    assert_eq!(first(&format!("GET {A_BIN} HTTP/1.1\r\nX-Forwarded-Host: edge.test\r\n\r\n")), 400);
}

#[test]
fn b03_foreign_absolute_form() {
    let ask = |target: &str| SHARED.get(target, "").status;
    assert_eq!(ask(&format!("http://evil.test{A_BIN}")), 421);
    assert_eq!(ask(&format!("https://evil.test{A_BIN}")), 421);
    assert_eq!(ask(&format!("http://edge.test.evil.test{A_BIN}")), 421);
    assert_eq!(ask(&format!("http://edge.test@evil.test{A_BIN}")), 400);
    assert_eq!(ask(&format!("gopher://edge.test{A_BIN}")), 421);
    assert_eq!(ask(&format!("http://edge.test{A_BIN}")), 200);
    assert_eq!(ask("http://edge.test/generic-local/../secret-local/s.bin"), 400);
}

#[test]
fn b04_length_and_chunked() {
    for lines in [
        "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX",
        "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\nX",
        "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
    ] {
        for start in [format!("GET {A_BIN}"), "POST /api/v1/bundles".into(), "PUT /api/v1/trust".into()] {
            assert_eq!(first(&format!("{start} HTTP/1.1\r\nHost: a\r\n{lines}")), 400, "{lines:?}");
        }
    }
}

#[test]
fn b05_lengths_that_are_none() {
    for lines in [
        "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "Content-Length: +5\r\n\r\nabcde",
        "Content-Length: 5 5\r\n\r\nabcde",
        "Content-Length: 1e1\r\n\r\nabcdefghij",
        "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: \u{b}chunked\r\n\r\n0\r\n\r\n",
    ] {
        assert_eq!(first(&format!("POST /api/v1/bundles HTTP/1.1\r\nHost: a\r\n{lines}")), 400, "{lines:?}");
    }
    assert_eq!(first("POST /api/v1/bundles HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400);
}

#[test]
fn b06_broken_lines() {
    for lines in [
        "Host : x",
        "Host: a\r\n folded",
        "Host: a\r\nX: b\rc",
        "Host: a\r\nX\u{1}: y",
        "Host: a\r\nX: \u{7f}",
    ] {
        let status = first(&format!("GET {A_BIN} HTTP/1.1\r\n{lines}\r\n\r\n"));
        assert_eq!(status, 400, "{lines:?}");
    }
}

#[test]
fn b07_bare_line_feeds() {
    let mut wire = SHARED.connect();
    wire.send("GET /generic-local/app/1.0/one.txt HTTP/1.1\nHost: a\nConnection: close\n\n");
    assert!(matches!(wire.reply(false).status, 200 | 400));
    assert!(wire.is_closed());
}

#[test]
fn b09_b10_too_many_or_too_large_headers() {
    let many: String = (0..100).map(|at| format!("X-{at}: y\r\n")).collect();
    assert_eq!(SHARED.get(A_BIN, &many).status, 431);
    assert_eq!(SHARED.get(A_BIN, &format!("X: {}\r\n", "y".repeat(32 * 1024))).status, 431);
    assert_eq!(SHARED.get(A_BIN, &format!("Cookie: {}\r\n", "y".repeat(17 * 1024))).status, 431);
}

#[test]
fn b11_b12_headers_that_claim_another_target() {
    let claims = "X-Original-URL: /secret-local/s.bin\r\nX-Rewrite-URL: /api/v1/status\r\n\
        X-HTTP-Method-Override: DELETE\r\nX-Forwarded-Host: evil.test\r\nX-Forwarded-Proto: javascript\r\n\
        X-Forwarded-Prefix: //evil\r\nX-Forwarded-For: 127.0.0.1, evil\r\nForwarded: host=evil.test\r\n\
        X-Real-IP: evil\r\nX-Remote-User: admin\r\nX-Authenticated-User: evil\r\nVia: evil\r\n";
    let plain = SHARED.get(A_BIN, "");
    assert_eq!(SHARED.get(A_BIN, claims).body, plain.body);
    for target in [
        A_BIN,
        "/generic-local/",
        "/generic-local",
        "/generic-local/app",
        "/secret-local/s.bin",
        "/nothing/x",
        "/.well-known/distedge",
        "/api/v1/bundles",
        "/api/v1/bundles/app/1.0",
        "/",
        "/v2/",
    ] {
        let (with, without) = (SHARED.get(target, claims), SHARED.get(target, ""));
        assert_eq!(with.status, without.status, "{target}");
        assert_eq!(with.body, without.body, "{target}");
        assert!(!format!("{:?}", with.headers).contains("evil"), "{target}");
    }
}

#[test]
fn b13_the_data_plane_is_read_only() {
    for method in ["PUT", "POST", "PATCH", "DELETE", "MKCOL", "COPY", "MOVE", "LOCK", "PROPFIND", "LINK"] {
        for target in
            [A_BIN, "/secret-local/s.bin", "/new/x", "/generic-local/", "/artifactory/generic-local/x", "/"]
        {
            for token in ["", "Authorization: Bearer eut1_test\r\n"] {
                let reply = SHARED.ask(format!(
                    "{method} {target} HTTP/1.1\r\nHost: a\r\n{token}Content-Length: 1\r\n\r\nx"
                ));
                assert_eq!(reply.status, 405, "{method} {target}");
                assert_eq!(reply.header("allow"), Some("GET, HEAD"), "{method} {target}");
            }
        }
    }
}

#[test]
fn b14_strange_methods() {
    assert_eq!(first("CONNECT evil:443 HTTP/1.1\r\nHost: evil:443\r\n\r\n"), 405);
    assert_eq!(first("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n"), 405);
    for method in ["get", "Get", "gEt", "GET1"] {
        assert_eq!(first(&format!("{method} {A_BIN} HTTP/1.1\r\nHost: a\r\n\r\n")), 501, "{method}");
    }
    let reply = SHARED.ask("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((reply.status, reply.header("allow")), (204, Some("GET, HEAD")));
    assert_eq!(SHARED.ask("GET * HTTP/1.1\r\nHost: a\r\n\r\n").status, 400);
    // What is private and what is not there look alike to OPTIONS too.
    let options = |target: &str| SHARED.ask(format!("OPTIONS {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
    let (there, missing) = (options("/secret-local/s.bin"), options("/secret-local/nothing"));
    assert_eq!((there.status, there.headers.len()), (missing.status, missing.headers.len()));
}

#[test]
fn b15_chunks() {
    for chunk in ["FFFFFFFFFFFFFFFFF\r\nx", &format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(20_000)), "-1\r\nx"]
    {
        let request =
            format!("POST /api/v1/bundles HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}");
        assert_eq!(first(&request), 400);
    }
}

#[test]
fn b17_line_breaks_in_a_redirect() {
    SHARED.all(
        400,
        &[
            "/generic-local/%0d%0aSet-Cookie:x=1",
            "/generic-local/app%0d%0aSet-Cookie:x=1",
            "/generic-local/app%0a",
            "/generic-local/%e2%80%a8%0dx",
        ],
    );
    // A redirect is made of the parsed path alone.
    for (target, location) in [
        ("/generic-local", "/generic-local/"),
        ("/generic-local/app?x=//evil.test", "/generic-local/app/"),
        ("/artifactory/generic-local/%61pp", "/artifactory/generic-local/app/"),
        ("http://edge.test/generic-local/app", "/generic-local/app/"),
    ] {
        let reply = SHARED.get(target, "X-Forwarded-Host: evil.test\r\n");
        assert_eq!((reply.status, reply.header("location")), (301, Some(location)), "{target}");
    }
}

#[test]
fn b18_expectations_upgrades_and_hop_by_hop() {
    assert_eq!(SHARED.get(A_BIN, "Expect: 200-ok\r\n").status, 417);
    for lines in [
        "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
        "Connection: keep-alive, X-Forwarded-For\r\n",
        "Connection: Host, Authorization, close\r\n",
        "TE: trailers, deflate\r\n",
    ] {
        let reply = SHARED.get(A_BIN, lines);
        assert_eq!((reply.status, reply.body.len()), (200, SIZE), "{lines:?}");
    }
    // `Connection: Authorization` must neither strip credentials nor grant anything.
    let lines = "Connection: Authorization\r\nAuthorization: Bearer wrong\r\n";
    assert_eq!(SHARED.get(A_BIN, lines).status, 401);
}

#[test]
fn b19_user_agents() {
    let agents = ["\"quoted\"".to_owned(), "%0d%0a[fake]".into(), "\\r\\n".into(), "y".repeat(8192)];
    for agent in agents {
        assert_eq!(SHARED.get(A_BIN, &format!("User-Agent: {agent}\r\n")).status, 200);
    }
    let status = SHARED.get(A_BIN, "User-Agent: \u{1b}[31mred\r\n").status;
    assert!(matches!(status, 200 | 400));
}
