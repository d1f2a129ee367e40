//! What a socket shows: transfers that are cut while they run, clients that go away, rates.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use distedge::govern::MintOrder;
use distedge::server::{Server, ServerConfig};
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::rig::{Rig, new_user, note, order, pack};
use crate::http::rig::noise;
use crate::support::NOW;

const BIG: &str = "/vault/big.bin";
const SIZE: usize = 96 << 20;
/// A transfer is to be cut within so long.
const WITHIN: Duration = Duration::from_secs(5);

async fn serve(rig: &Rig) -> SocketAddr {
    let config = ServerConfig::new(([127, 0, 0, 1], 0).into());
    let server = Server::bind(config, rig.edge.clone()).await.unwrap();
    let address = server.local_addr();
    tokio::spawn(server.serve(std::future::pending()));
    address
}

async fn house() -> (Rig, SocketAddr) {
    let mut rig = Rig::new().await;
    let half = noise(SIZE / 96);
    rig.publish(vec![pack("big", "1.0", 1).with("vault", "big.bin", &half.repeat(96))]).await;
    let grant = json!({ "name": "g", "to": ["user:alice"], "may": ["read"], "on": ["vault/**"] });
    rig.policy(json!({ "grant": [grant] })).await;
    let address = serve(&rig).await;
    (rig, address)
}

/// Sends a request and reads the head of the answer; how much of the body came with it.
async fn begin(address: SocketAddr, target: &str, lines: &str) -> (TcpStream, String, usize) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {target} HTTP/1.1\r\nHost: edge.test\r\n{lines}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut got = Vec::new();
    loop {
        let mut buffer = [0; 1024];
        let read = stream.read(&mut buffer).await.unwrap();
        assert_ne!(read, 0, "the connection was closed before an answer");
        got.extend_from_slice(&buffer[..read]);
        if let Some(at) = got.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8(got[..at].to_vec()).unwrap();
            return (stream, head, got.len() - at - 4);
        }
    }
}

/// Reads `bytes_per_second` until the end; how many bytes came after what was read already, and how
/// long it took.
async fn read_on(stream: &mut TcpStream, bytes_per_second: usize) -> (usize, Duration) {
    let begun = Instant::now();
    let mut total = 0;
    let mut buffer = vec![0; 64 << 10];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return (total, begun.elapsed()),
            Ok(read) => total += read,
        }
        let due = Duration::from_secs_f64(total as f64 / bytes_per_second as f64);
        tokio::time::sleep(due.saturating_sub(begun.elapsed())).await;
    }
}

/// Waits until the log says how the last download ended.
async fn last_end(rig: &Rig, ends: usize) -> (Option<u64>, Option<bool>) {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let log = rig.log();
        let all: Vec<_> = log.iter().filter(|entry| &*entry.kind == "download.end").collect();
        if all.len() == ends {
            let outcome = all[ends - 1].res.clone().unwrap();
            return (outcome.bytes, outcome.complete);
        }
        assert!(Instant::now() < until, "{} downloads have ended, not {ends}", all.len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn e12_a_running_download_goes_on_after_the_revocation() {
    let (rig, address) = house().await;
    let mut ends = 0;
    for what in ["link", "subject", "everything", "key", "user token"] {
        let of = MintOrder { subject: Some("c".into()), ..order(&["vault/big.bin"]) };
        let (target, lines, user) = if what == "user token" {
            let (token, id) = rig.user(new_user("user:alice")).await;
            (BIG.to_owned(), format!("Authorization: Bearer {token}\r\n"), Some((id, None)))
        } else {
            let (token, id) = rig.link(of).await;
            (
                format!("{BIG}?edge_token={token}"),
                String::new(),
                Some((rig.user(new_user("user:x")).await.1, Some(id))),
            )
        };
        let (mut stream, head, mut got) = begin(address, &target, &lines).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        // It reads, at a rate at which it would take a minute.
        let reader = tokio::spawn(async move {
            let (more, took) = read_on(&mut stream, 1_500_000).await;
            (more, took)
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
        let links = rig.links();
        let revoked = Instant::now();
        match (what, user.unwrap()) {
            ("link", (_, Some(id))) => links.revoke_link(id, note()).await.unwrap(),
            ("subject", _) => drop(links.revoke_subject("c", note()).await.unwrap()),
            ("everything", _) => drop(links.revoke_everything(note()).await.unwrap()),
            ("key", _) => links.revoke_key(&super::rig::key("k1"), note()).await.unwrap(),
            (_, (id, _)) => {
                rig.edge.tokens().unwrap().revoke(id, "t", "left", NOW).await.unwrap().unwrap();
            }
        }
        ends += 1;
        let (bytes, complete) = last_end(&rig, ends).await;
        let cut = revoked.elapsed();
        assert!(cut < WITHIN, "{what}: the edge sent for {cut:?}");
        assert_eq!(complete, Some(false), "{what}");
        assert!(bytes.unwrap() < SIZE as u64, "{what}");
        let (more, _) = reader.await.unwrap();
        got += more;
        assert!(got < SIZE, "{what}: {got} bytes came");
        println!("{what}: cut {} ms after the revocation", cut.as_millis());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn e12_a_client_that_does_not_read_is_never_cut() {
    let (rig, address) = house().await;
    let (token, id) = rig.link(order(&["vault/big.bin"])).await;
    let (user, user_id) = rig.user(new_user("user:alice")).await;
    let (mut linked, head, _) = begin(address, &format!("{BIG}?edge_token={token}"), "").await;
    assert!(head.starts_with("HTTP/1.1 200"));
    let (mut own, head, _) = begin(address, BIG, &format!("Authorization: Bearer {user}\r\n")).await;
    assert!(head.starts_with("HTTP/1.1 200"));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let revoked = Instant::now();
    rig.links().revoke_link(id, note()).await.unwrap();
    rig.edge.tokens().unwrap().revoke(user_id, "t", "left", NOW).await.unwrap().unwrap();
    let (_, complete) = last_end(&rig, 2).await;
    let cut = revoked.elapsed();
    assert!(cut < WITHIN, "cut after {cut:?}");
    assert_eq!(complete, Some(false));
    println!("clients that do not read: cut {} ms after the revocation", cut.as_millis());
    for stream in [&mut linked, &mut own] {
        let (got, _) = read_on(stream, usize::MAX >> 1).await;
        assert!(got < SIZE, "{got} bytes were on their way");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn e12_a_stream_of_http2_goes_on_after_the_revocation() {
    let (rig, address) = house().await;
    let (token, id) = rig.link(order(&["vault/big.bin"])).await;
    let (other, _) = rig.link(order(&["vault/s.bin"])).await;
    for reads in [true, false] {
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut send, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let (token, id) = if reads { (token.clone(), id) } else { rig.link(order(&["vault/big.bin"])).await };
        let ask =
            |target: String| Request::get(format!("http://edge.test{target}")).body(Empty::<Bytes>::new());
        let response = send.send_request(ask(format!("{BIG}?edge_token={token}")).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        let reader = tokio::spawn(async move {
            let (mut got, mut broken) = (0, false);
            if !reads {
                tokio::time::sleep(WITHIN).await;
            }
            while let Some(frame) = body.frame().await {
                match frame {
                    Ok(frame) => got += frame.data_ref().map_or(0, Bytes::len),
                    Err(_) => {
                        broken = true;
                        break;
                    }
                }
                if reads {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
            (got, broken)
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
        let revoked = Instant::now();
        rig.links().revoke_link(id, note()).await.unwrap();
        let (_, complete) = last_end(&rig, if reads { 1 } else { 3 }).await;
        let cut = revoked.elapsed();
        assert!(cut < WITHIN && complete == Some(false), "reads: {reads}: {cut:?}");
        println!("HTTP/2, reads: {reads}: cut {} ms after the revocation", cut.as_millis());
        if reads {
            // The connection serves whoever is not concerned.
            let again = send.send_request(ask(format!("/vault/s.bin?edge_token={other}")).unwrap()).await;
            if let Ok(response) = again {
                assert_eq!(response.status(), 200);
                assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "the secret");
            } else {
                let (mut fresh, head, _) =
                    begin(address, &format!("/vault/s.bin?edge_token={other}"), "Connection: close\r\n")
                        .await;
                assert!(head.starts_with("HTTP/1.1 200"), "{head}");
                read_on(&mut fresh, 1 << 30).await;
            }
        }
        let (got, broken) = reader.await.unwrap();
        assert!(got < SIZE && broken, "{got} bytes, broken: {broken}");
        connection.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_client_that_is_gone_has_used_a_link_up() {
    let (rig, address) = house().await;
    let (token, id) = rig.link(MintOrder { uses: Some(1), ..order(&["vault/big.bin"]) }).await;
    let target = format!("{BIG}?edge_token={token}");
    for round in 1..4 {
        let (mut stream, head, mut got) = begin(address, &target, "").await;
        assert!(head.starts_with("HTTP/1.1 200"), "round {round}: {head}");
        let mut buffer = vec![0; 1 << 20];
        while got < 1 << 20 {
            got += stream.read(&mut buffer).await.unwrap();
        }
        drop(stream);
        let (bytes, complete) = last_end(&rig, round).await;
        assert_eq!(complete, Some(false));
        assert!(bytes.unwrap() >= got as u64, "what was sent is at least what came");
        rig.links().settle().await.unwrap();
        let usage = rig.links().link(id).await.unwrap().unwrap().usage.unwrap();
        assert_eq!((usage.completed, usage.reserved, usage.open), (0, 0, 1), "round {round}");
    }
    let (mut stream, head, got) = begin(address, &target, "Connection: close\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(got + read_on(&mut stream, 1 << 32).await.0, SIZE);
    let (bytes, complete) = last_end(&rig, 4).await;
    assert_eq!((bytes, complete), (Some(SIZE as u64), Some(true)));
    let (_, head, _) = begin(address, &target, "").await;
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rate_is_not_kept_on_the_wire() {
    let (rig, address) = house().await;
    let slow = MintOrder { bps: Some(400_000), ..order(&["vault/big.bin"]) };
    let (token, _) = rig.link(slow).await;
    let lines = "Range: bytes=0-1199999\r\nConnection: close\r\n";
    let begun = Instant::now();
    let (mut stream, head, got) = begin(address, &format!("{BIG}?edge_token={token}"), lines).await;
    assert!(head.starts_with("HTTP/1.1 206"), "{head}");
    let (more, _) = read_on(&mut stream, 1 << 32).await;
    let took = begun.elapsed().as_secs_f64();
    assert_eq!(got + more, 1_200_000);
    let rate = 1_200_000.0 / took;
    println!("1,200,000 bytes at 400,000 a second took {took:.2} s");
    assert!((200_000.0..440_000.0).contains(&rate), "{rate:.0} bytes a second");
    // A rate below what clients are cut for is the edge's own doing.
    let crawl = MintOrder { bps: Some(2_000), ..order(&["vault/big.bin"]) };
    let (token, id) = rig.link(crawl).await;
    let (mut stream, _, _) = begin(address, &format!("{BIG}?edge_token={token}"), "").await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    rig.links().revoke_link(id, note()).await.unwrap();
    let (more, took) = read_on(&mut stream, 1 << 32).await;
    assert!(took < WITHIN && more < 100_000, "{more} bytes in {took:?}");
}
