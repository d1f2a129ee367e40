//! Slow clients, many clients, TLS, HTTP/2, and the end of the server.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use super::rig::{A_BIN, Rig, SIZE, Wire, noise};
use distedge::edge::Gate;
use distedge::error::ErrorKind;
use distedge::server::{Limits, Server, ServerConfig};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};

fn short() -> Limits {
    let mut limits = Limits::default();
    limits.header_timeout = Duration::from_millis(400);
    limits.handshake_timeout = Duration::from_millis(400);
    limits.idle_timeout = Duration::from_millis(1200);
    limits.rate_grace = Duration::from_millis(800);
    limits.minimum_rate = 20_000;
    limits.drain = Duration::from_millis(1500);
    limits
}

/// How long the server leaves the connection open while `drip` is sent every 50 ms.
fn lasts(wire: &mut Wire, drip: &[u8]) -> Duration {
    let begun = Instant::now();
    wire.stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut scratch = [0; 4096];
    while begun.elapsed() < Duration::from_secs(10) {
        match wire.stream.read(&mut scratch) {
            Ok(0) => return begun.elapsed(),
            Ok(_) => {}
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
            {
                let _ = wire.stream.write_all(drip);
            }
            Err(_) => return begun.elapsed(),
        }
    }
    panic!("the connection is still open");
}

#[test]
fn a_head_that_drips_is_cut() {
    let rig = Rig::with_limits(short());
    for opening in ["", "G", "GET / HTTP/1.1\r\nHost: a\r\n", "PRI * HTTP/2.0\r\n\r\nS"] {
        let mut wire = rig.connect();
        wire.send(opening);
        let lasted = lasts(&mut wire, if opening.is_empty() { b"" } else { b"x" });
        assert!(lasted < Duration::from_secs(3), "{opening:?} {lasted:?}");
    }
    // The same on a connection that has been good before.
    let mut wire = rig.connect();
    wire.send(format!("GET {A_BIN} HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\n\r\n"));
    assert_eq!(wire.reply(false).status, 206);
    wire.send("GET / HTTP/1.1\r\nX: ");
    assert!(lasts(&mut wire, b"y") < Duration::from_secs(3));
    assert_eq!(rig.get(A_BIN, "").status, 200);
}

#[test]
fn an_idle_connection_is_kept_for_a_while_and_closed() {
    let rig = Rig::with_limits(short());
    let mut wire = rig.connect();
    for _ in 0..3 {
        wire.send(format!("GET {A_BIN} HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\n\r\n"));
        assert_eq!(wire.reply(false).status, 206);
        std::thread::sleep(Duration::from_millis(700));
    }
    let lasted = lasts(&mut wire, b"");
    assert!(lasted < Duration::from_secs(4), "{lasted:?}");
}

#[test]
fn an_upload_that_drips_is_cut_and_a_steady_one_is_not() {
    let rig = Rig::with_limits(short());
    let mut wire = rig.connect();
    wire.send("PUT /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
    assert!(lasts(&mut wire, b"x") < Duration::from_secs(4));
    // A first burst buys no time for a standstill.
    let mut wire = rig.connect();
    wire.send("PUT /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
    wire.send(noise(500_000));
    assert!(lasts(&mut wire, b"") < Duration::from_secs(4));
    let mut wire = rig.connect();
    wire.send("PUT /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n");
    for _ in 0..30 {
        wire.send(noise(10_000));
        std::thread::sleep(Duration::from_millis(40));
    }
    assert_eq!(wire.reply(false).text(), "300000");
}

#[test]
fn a_reader_that_stops_is_cut_and_a_slow_one_is_not() {
    let rig = Rig::with_limits(short());
    let mut stopped = rig.connect();
    stopped.send("GET /generic-local/big.bin HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut slow = rig.connect();
    slow.send("GET /generic-local/big.bin HTTP/1.1\r\nHost: a\r\n\r\n");
    // Far above the minimum rate, because a client acknowledges in coarse steps.
    let begun = Instant::now();
    let mut received = 0;
    let mut chunk = vec![0; 100_000];
    while begun.elapsed() < Duration::from_secs(3) {
        received += slow.stream.read(&mut chunk).unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
    let rest = slow.reply_rest();
    assert!(received + rest > 12 * SIZE, "{received} {rest}");
    let delivered = rig.site.delivered.lock().unwrap().clone();
    assert!(delivered.iter().any(|end| !end.complete), "the reader that stopped was cut: {delivered:?}");
}

impl Wire {
    fn reply_rest(&mut self) -> usize {
        let mut rest = Vec::new();
        self.stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let _ = self.stream.read_to_end(&mut rest);
        rest.len()
    }
}

#[test]
fn connections_over_the_cap_are_closed_and_room_is_found_again() {
    let mut limits = Limits::default();
    limits.connections_per_address = 5;
    let rig = Rig::with_limits(limits);
    let mut held: Vec<Wire> = (0..5).map(|_| rig.connect()).collect();
    for wire in &mut held {
        wire.send(format!("GET {A_BIN} HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\n\r\n"));
        assert_eq!(wire.reply(false).status, 206);
    }
    assert!(rig.connect().is_closed());
    held.pop();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(rig.get(A_BIN, "").status, 200);
}

#[test]
fn a_panic_is_one_answer_and_not_the_end() {
    let rig = Rig::new();
    let mut wire = rig.connect();
    wire.send("GET /panic HTTP/1.1\r\nHost: a\r\n\r\n");
    let reply = wire.reply(false);
    assert_eq!(reply.status, 500);
    assert!(!reply.text().contains("as it was asked to"));
    wire.send(format!("GET {A_BIN} HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_eq!(wire.reply(false).status, 200);
}

#[test]
fn a_half_closed_client_gets_its_answer() {
    let rig = Rig::new();
    let mut wire = rig.connect();
    wire.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    wire.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(wire.reply(false).text(), "late");
    assert!(wire.is_closed());
}

#[test]
fn a_stop_lets_running_requests_finish() {
    let mut rig = Rig::with_limits(short());
    let mut idle = rig.connect();
    idle.send(format!("GET {A_BIN} HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\n\r\n"));
    idle.reply(false);
    let mut running = rig.connect();
    running.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    std::thread::sleep(Duration::from_millis(100));
    let begun = Instant::now();
    rig.stop();
    assert_eq!(running.reply(false).text(), "late");
    assert!(idle.is_closed() && running.is_closed());
    drop((idle, running));
    rig.stopped();
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert!(std::net::TcpStream::connect(rig.address).is_err());
}

#[test]
fn a_stop_does_not_wait_for_ever() {
    let mut limits = short();
    limits.rate_grace = Duration::from_secs(60);
    let mut rig = Rig::with_limits(limits);
    let mut stuck = rig.connect();
    stuck.send("PUT /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc");
    std::thread::sleep(Duration::from_millis(100));
    let begun = Instant::now();
    rig.stop();
    rig.stopped();
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert!(stuck.try_reply(false).is_none());
}

fn tls_rig() -> (Rig, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap().keep();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(dir.join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let rig =
        Rig::with(short(), Gate::new(), |config| config.with_tls(dir.join("cert.pem"), dir.join("key.pem")));
    (rig, dir)
}

/// A client's TLS stream to the rig that offers `protocol`.
async fn tls(
    rig: &Rig,
    authority: &std::path::Path,
    protocol: &[u8],
) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    use rustls_pki_types::pem::PemObject;
    use tokio_rustls::rustls;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls_pki_types::CertificateDer::from_pem_file(authority).unwrap()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let socket = tokio::net::TcpStream::connect(rig.address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    connector.connect("localhost".try_into().unwrap(), socket).await.unwrap()
}

#[test]
fn http_2_over_tls_and_in_the_clear() {
    let (rig, dir) = tls_rig();
    rig.block_on(async {
        let stream = tls(&rig, &dir.join("cert.pem"), b"h2").await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
        http2_journey(stream, "https").await;
    });
    let rig = Rig::new();
    rig.block_on(async {
        http2_journey(tokio::net::TcpStream::connect(rig.address).await.unwrap(), "http").await;
    });
}

async fn http2_journey<S>(stream: S, scheme: &str)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut send, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = |path: &str| http::Request::get(format!("{scheme}://localhost{path}"));
    let whole = noise(SIZE);
    let mut answers = Vec::new();
    for i in 0..20_usize {
        let range = format!("bytes={}-{}", i * 1000, i * 5000 + 60_000);
        answers.push(
            send.send_request(
                request(A_BIN).header("range", range).body(Empty::<bytes::Bytes>::new()).unwrap(),
            ),
        );
    }
    for (i, answer) in answers.into_iter().enumerate() {
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 206);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(body == whole[i * 1000..=i * 5000 + 60_000]);
    }
    for (request, status) in [
        (request("/generic-local/%2e%2e/x"), 400),
        (request(A_BIN).header("host", "evil.test"), 400),
        (request(A_BIN).header("host", "localhost"), 200),
        (request(A_BIN).method("DELETE"), 405),
        (request(A_BIN).method("get"), 501),
        (request(A_BIN).header("content-length", "5"), 400),
        (request(A_BIN).header("x", "y".repeat(15 * 1024)), 200),
        (request(A_BIN).header("x", "y".repeat(17 * 1024)), 431),
        (request("/panic"), 500),
    ] {
        let sent = request.body(Empty::<bytes::Bytes>::new()).unwrap();
        let what = format!("{sent:?}").chars().take(200).collect::<String>();
        match send.send_request(sent).await {
            Ok(answer) => assert!(
                answer.status() == status || (status == 400 && answer.status() == 421),
                "{what}: {}",
                answer.status()
            ),
            // A malformed message may also be answered with a reset (RFC 9113 section 8.1.1).
            Err(error) => assert_eq!(status, 400, "{what}: {error}"),
        }
        send.ready().await.unwrap();
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u32;
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// `:method GET`, `:scheme http`, `:authority a`, `:path path` (RFC 7541).
fn head(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x41, 1, b'a', 0x04, path.len() as u8];
    block.extend(path.as_bytes());
    block
}

fn http2(rig: &Rig, settings: &[u8]) -> Wire {
    let mut wire = rig.connect();
    wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    wire.send(frame(SETTINGS, 0, 0, settings));
    wire
}

/// Whether the server ends the connection within `most` repetitions of `frames`.
fn is_ended_by(wire: &mut Wire, most: u32, mut frames: impl FnMut(u32) -> Vec<u8>) -> bool {
    wire.stream.set_nonblocking(true).unwrap();
    let mut scratch = vec![0; 65536];
    let mut number = 0;
    while number < most {
        let mut batch: Vec<u8> = (number..number + 100).flat_map(&mut frames).collect();
        number += 100;
        while !batch.is_empty() {
            match wire.stream.read(&mut scratch) {
                Ok(0) => return true,
                Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return true,
                _ => {}
            }
            match wire.stream.write(&batch) {
                Ok(written) => drop(batch.drain(..written)),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(_) => return true,
            }
        }
    }
    false
}

#[test]
fn floods_of_frames_end_the_connection() {
    let rig = Rig::new();
    let reset = |i: u32| {
        let stream = 2 * i + 1;
        let mut frames = frame(HEADERS, END_HEADERS | END_STREAM, stream, &head(A_BIN));
        frames.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        frames
    };
    assert!(is_ended_by(&mut http2(&rig, &[]), 100_000, reset), "rapid reset");
    let mut wire = http2(&rig, &[]);
    wire.send(frame(HEADERS, END_STREAM, 1, &head(A_BIN)));
    // A literal header field that is not indexed: name "x", value of 100 bytes.
    let mut field = vec![0, 1, b'x', 100];
    field.extend([b'y'; 100]);
    assert!(is_ended_by(&mut wire, 100_000, |_| frame(CONTINUATION, 0, 1, &field)), "CONTINUATION");
    let mut wire = http2(&rig, &[]);
    wire.send(frame(HEADERS, END_STREAM, 1, &head(A_BIN)));
    assert!(is_ended_by(&mut wire, 100_000, |_| frame(CONTINUATION, 0, 1, &[])), "empty CONTINUATION");
    let mut wire = http2(&rig, &[]);
    wire.send(frame(HEADERS, END_HEADERS, 1, &head("/upload")));
    assert!(is_ended_by(&mut wire, 1_000_000, |_| frame(DATA, 0, 1, &[])), "empty DATA");
    assert_eq!(rig.get(A_BIN, "").status, 200);
}

#[test]
fn a_stream_without_a_window_is_cut_and_pings_do_not_keep_a_connection() {
    let rig = Rig::with_limits(short());
    let mut wire = http2(&rig, &[0, 4, 0, 0, 0, 0]);
    wire.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &head(A_BIN)));
    assert!(lasts(&mut wire, &frame(PING, 0, 0, &[0; 8])) < Duration::from_secs(5));
    let mut wire = http2(&rig, &[]);
    wire.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &head("/generic-local/nothing")));
    assert!(lasts(&mut wire, &frame(PING, 0, 0, &[0; 8])) < Duration::from_secs(6));
    let mut wire = http2(&rig, &[]);
    assert!(lasts(&mut wire, &frame(PING, 0, 0, &[0; 8])) < Duration::from_secs(5));
}

#[test]
fn http_1_over_tls_and_a_handshake_that_drips() {
    let (rig, dir) = tls_rig();
    rig.block_on(async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tls(&rig, &dir.join("cert.pem"), b"http/1.1").await;
        let request = format!("GET {A_BIN} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(&noise(SIZE)));
    });
    for opening in [b"".as_slice(), b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n"] {
        let mut wire = rig.connect();
        wire.send(opening);
        assert!(lasts(&mut wire, b"") < Duration::from_secs(3));
    }
}

#[test]
fn bad_tls_files_and_addresses_get_a_sentence() {
    let (rig, dir) = tls_rig();
    let other = rcgen::generate_simple_self_signed(["other".to_owned()]).unwrap();
    std::fs::write(dir.join("other.pem"), other.signing_key.serialize_pem()).unwrap();
    std::fs::write(dir.join("empty.pem"), "").unwrap();
    let attempt = |certificate: &str, key: &str| {
        let config =
            ServerConfig::new(([127, 0, 0, 1], 0).into()).with_tls(dir.join(certificate), dir.join(key));
        rig.block_on(Server::bind(config, rig.site.clone())).unwrap_err()
    };
    for (certificate, key, named) in [
        ("missing.pem", "key.pem", "missing.pem"),
        ("empty.pem", "key.pem", "empty.pem"),
        ("cert.pem", "missing.pem", "missing.pem"),
        ("cert.pem", "empty.pem", "empty.pem"),
        ("cert.pem", "cert.pem", "cert.pem"),
        ("cert.pem", "other.pem", "other.pem"),
    ] {
        let error = attempt(certificate, key);
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(named), "{error}");
    }
    let taken = rig.block_on(Server::bind(ServerConfig::new(rig.address), rig.site.clone())).unwrap_err();
    assert!(taken.to_string().contains(&rig.address.to_string()), "{taken}");
}
