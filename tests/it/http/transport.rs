//! The client's side: calls over HTTP, and what can go wrong with them.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use super::rig::{A_BIN, Rig, SIZE, noise};
use bytes::Bytes;
use distedge::blob::ByteStream;
use distedge::error::{Error, ErrorKind};
use distedge::secret::Secret;
use distedge::transport::{Call, HttpTransport, Transport, Verb};

fn transport(rig: &Rig) -> HttpTransport {
    HttpTransport::builder(&format!("http://{}", rig.address))
        .with_token(Secret::new("hunter2"))
        .with_answer_timeout(Duration::from_millis(800))
        .build()
        .unwrap()
}

fn stream(chunks: Vec<Result<Bytes, Error>>) -> ByteStream {
    Box::pin(futures_util::stream::iter(chunks))
}

#[test]
fn calls_and_answers() {
    let rig = Rig::new();
    let transport = transport(&rig);
    rig.block_on(async {
        let answer = transport.call(Call::new(Verb::Get, A_BIN)).await.unwrap();
        assert!(answer.status == 200 && answer.body == noise(SIZE));
        let answer = transport.call(Call::new(Verb::Head, A_BIN)).await.unwrap();
        assert!(answer.status == 200 && answer.body.is_empty());
        let answer = transport.call(Call::new(Verb::Get, "/status")).await.unwrap();
        assert_eq!((answer.status, &answer.body[..]), (401, b"no entry".as_slice()));
        let chunks = (0..100).map(|_| Ok(Bytes::from(noise(10_000)))).collect();
        let upload = Call::new(Verb::Patch, "/upload").with_upload(77, 1_000_000, stream(chunks));
        let answer = transport.call(upload).await.unwrap();
        assert_eq!((answer.status, answer.offset), (200, Some(1_000_000)));
        let answer = transport.call(Call::new(Verb::Post, "/upload").with_bytes("hello")).await.unwrap();
        assert_eq!(answer.offset, Some(5));
        let answer = transport.call(Call::new(Verb::Put, "/upload")).await.unwrap();
        assert_eq!(answer.offset, Some(0));
        let upload = Call::new(Verb::Patch, "/seen").with_upload(77, 3, stream(vec![Ok("abc".into())]));
        let seen = String::from_utf8(transport.call(upload).await.unwrap().body.to_vec()).unwrap();
        for part in [
            "\"upload-offset\": \"77\"",
            "application/partial-upload",
            "\"content-length\": \"3\"",
            "Bearer hunter2",
        ] {
            assert!(seen.contains(part), "{part} in {seen}");
        }
        assert!(!seen.contains("transfer-encoding"));
    });
}

#[test]
fn failures_name_the_peer_and_no_credentials() {
    let rig = Rig::new();
    rig.block_on(async {
        let gone = {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap()
        };
        let base = format!("http://{gone}");
        let nobody = HttpTransport::builder(&base).with_token(Secret::new("hunter2")).build().unwrap();
        let error = nobody.call(Call::new(Verb::Get, "/")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains(&base) && error.to_string().contains("refused"), "{error}");
        let transport = transport(&rig);
        for length in [2, 4] {
            let upload =
                Call::new(Verb::Patch, "/upload").with_upload(0, length, stream(vec![Ok("abc".into())]));
            let error = transport.call(upload).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
        }
        let own = vec![Ok("abc".into()), Err(Error::new(ErrorKind::Corrupted, "the disk is broken"))];
        let error = transport
            .call(Call::new(Verb::Patch, "/upload").with_upload(0, 9, stream(own)))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupted);
        assert!(error.to_string().contains("the disk is broken") && !error.to_string().contains("hunter2"));
        let error = transport.call(Call::new(Verb::Get, "nothing")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    });
}

#[test]
fn a_silent_peer_and_an_endless_answer() {
    let rig = Rig::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for (i, socket) in listener.incoming().enumerate() {
            let mut socket = socket.unwrap();
            let _ = socket.read(&mut [0; 4096]);
            match i {
                0 => {}
                1 => socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc").unwrap(),
                2 => {
                    let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
                    continue;
                }
                _ => {
                    let _ = socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
                    while socket.write_all(&[b'x'; 65536]).is_ok() {}
                }
            }
            kept.push(socket);
        }
    });
    let transport = HttpTransport::builder(&format!("http://{address}"))
        .with_answer_timeout(Duration::from_millis(500))
        .with_answer_limit(1_000_000)
        .build()
        .unwrap();
    rig.block_on(async {
        for kind in [ErrorKind::TimedOut, ErrorKind::TimedOut, ErrorKind::Unavailable, ErrorKind::TooLarge] {
            let begun = Instant::now();
            let error = transport.call(Call::new(Verb::Get, "/")).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(&address.to_string()), "{error}");
            assert!(begun.elapsed() < Duration::from_secs(5));
        }
    });
}
