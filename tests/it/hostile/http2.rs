//! The gate of HTTP/2: what its framing allows and HTTP/1 does not.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::house::{A_BIN, SECRET, SHARED, SIZE};
use crate::support::TOKEN;

/// Status and body, or nothing if the stream or the connection was ended instead.
fn ask(request: http::request::Builder, body: &'static [u8]) -> Option<(StatusCode, Bytes)> {
    let request: Request<Full<Bytes>> = request.body(Full::new(Bytes::from_static(body))).unwrap();
    SHARED.block_on(async {
        let stream = tokio::net::TcpStream::connect(SHARED.address).await.unwrap();
        let (mut send, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.ok()?;
        let connection = tokio::spawn(connection);
        let response = send.send_request(request).await.ok()?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        connection.abort();
        Some((head.status, body))
    })
}

fn get(path: &str) -> http::request::Builder {
    Request::get(format!("http://edge.test{path}"))
}

fn status(request: http::request::Builder) -> u16 {
    ask(request, b"").map_or(0, |(status, _)| status.as_u16())
}

#[test]
fn the_same_rules_hold() {
    let (found, body) = ask(get(A_BIN), b"").unwrap();
    assert_eq!((found, body.len()), (StatusCode::OK, SIZE));
    for path in [
        "/generic-local/../secret-local/s.bin",
        "/generic-local/%2e%2e/secret-local/s.bin",
        "//generic-local/app/1.0/a.bin",
        "/generic-local/app%2f1.0%2fa.bin",
        "/generic-local/%00",
        "/generic-local/%zz",
        "/generic-local/%5c",
    ] {
        assert_eq!(status(get(path)), 400, "{path}");
    }
    for (path, expected) in [
        ("/secret-local/s.bin", 401),
        ("/missing/x", 401),
        ("/generic-local/x", 404),
        ("/%61pi/v1/status", 401),
    ] {
        assert_eq!(status(get(path)), expected, "{path}");
    }
    let good = get("/secret-local/s.bin").header("authorization", format!("Bearer {TOKEN}"));
    assert_eq!(ask(good, b"").unwrap().1, SECRET);
}

#[test]
fn authority_and_host() {
    for (host, expected) in
        [("edge.test", 200), ("evil.test", 421), ("edge.test:81", 421), ("", 400), ("a b", 400)]
    {
        assert_eq!(status(get(A_BIN).header("host", host)), expected, "{host:?}");
    }
    assert_eq!(status(get(A_BIN).header("host", "edge.test").header("host", "edge.test")), 400);
    assert_ne!(status(Request::get(format!("http://user@edge.test{A_BIN}"))), 200);
    assert_ne!(status(Request::get(format!("ftp://edge.test{A_BIN}"))), 200);
}

#[test]
fn bodies_where_none_belongs() {
    // With a length it is refused; without one nobody reads it, and it cannot be a next request.
    for (method, path) in [("GET", A_BIN), ("HEAD", A_BIN), ("OPTIONS", "/")] {
        let request = Request::builder().method(method).uri(format!("http://edge.test{path}"));
        let found = ask(request.header("content-length", "4"), b"body").map(|(status, _)| status.as_u16());
        assert!(matches!(found, Some(400) | None), "{method}: {found:?}");
    }
    let request = get(A_BIN).header("content-length", "3");
    let found = ask(request, b"longer than announced");
    assert!(found.is_none_or(|(status, _)| status == StatusCode::BAD_REQUEST));
}

#[test]
fn headers_of_connections_are_refused_or_ignored() {
    for (name, value) in [
        ("transfer-encoding", "chunked"),
        ("te", "chunked"),
        ("upgrade", "websocket"),
        ("expect", "200-ok"),
        ("connection", "close"),
    ] {
        let found = status(get("/secret-local/s.bin").header(name, value));
        assert!(matches!(found, 0 | 400 | 401 | 417), "{name}: {found}");
    }
    for method in ["TRACE", "get", "PROPFIND", "PUT", "DELETE"] {
        let request = Request::builder().method(method).uri(format!("http://edge.test{A_BIN}"));
        assert!(matches!(status(request), 0 | 405 | 501), "{method}");
    }
}

#[test]
fn large_headers() {
    let found = status(get(A_BIN).header("x", "y".repeat(32 * 1024)));
    assert!(matches!(found, 0 | 431), "{found}");
    let mut many = get("/generic-local/app/1.0/one.txt");
    for at in 0..101 {
        many = many.header(format!("x-{at}"), "y");
    }
    assert!(matches!(status(many), 0 | 431));
    assert_eq!(status(get("/generic-local/app/1.0/one.txt")), 200);
}

#[test]
fn an_upload_without_a_length_stops_at_its_size() {
    // More than the wanted blob, and no header that would say so.
    let site = super::house::Lane::new();
    let payload = site.site.block_on(super::house::shop(&site.house, "1.0", 1, &[("shop/1.0/x", b"four")]));
    let mut site = site;
    site.assign("1.0", &payload);
    assert_eq!(site.offer(&site.seal(&payload)).status, 200);
    let digest = distedge::digest::Digest::of(b"four").to_hex();
    let stream =
        futures_util::stream::iter((0..64).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![7; 16 * 1024]))));
    let body = http_body_util::StreamBody::new(futures_util::StreamExt::map(stream, |chunk| {
        chunk.map(http_body::Frame::data)
    }));
    let request = Request::patch(format!("http://edge.test/api/v1/blobs/{digest}"))
        .header("authorization", format!("Bearer {TOKEN}"))
        .header("upload-offset", "0")
        .body(body)
        .unwrap();
    let found = site.site.block_on(async {
        let stream = tokio::net::TcpStream::connect(site.site.address).await.unwrap();
        let (mut send, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let found = send.send_request(request).await.map(|response| response.status().as_u16());
        connection.abort();
        found.unwrap_or(0)
    });
    assert!(matches!(found, 0 | 422), "{found}");
    assert_eq!(site.finish("shop", "1.0", &[b"four"]).status, 200);
    assert_eq!(site.site.get("/generic-local/shop/1.0/x", "").body, b"four");
}
