//! kill -9.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use distedge::blob::{BlobInfo, BlobStore, FsBlobStore};
use distedge::digest::Digest;
use distedge::meta::MemoryStore;

use super::{Dice, Ledger, Machine, control, programme, setting};
use crate::process::{EdgeProcess, call, reply, request};
use crate::support::{NOW, TestEdge};

struct Killer(PathBuf);

impl Machine for Killer {
    fn data(&self) -> PathBuf {
        self.0.clone()
    }

    fn cut(&mut self, edge: EdgeProcess) {
        edge.kill();
    }
}

/// 100 cycles; `DISTEDGE_KILL_CYCLES` says otherwise.
#[test]
fn what_was_acknowledged_survives_kill_9_and_nothing_is_partly_visible() {
    let dir = tempfile::tempdir().unwrap();
    let dir = crate::crash_process::Kept(dir);
    let mut machine = Killer(dir.path().join("data"));
    programme("kill -9", &mut machine, &dir.path().join("log"), setting("DISTEDGE_KILL_CYCLES", 100));
}

/// A first start makes directories, a metadata file, an identity and a token; it may be cut off
/// between any two of them.
#[test]
fn a_first_start_that_is_killed_can_be_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::new(Dice::new("first start"));
    for round in 0..12 {
        let mut machine = Killer(dir.path().join(round.to_string()));
        let log = dir.path().join("log");
        ledger.token = None;
        for _ in 0..2 {
            let edge = EdgeProcess::launch(&machine.data(), &log, &[]);
            std::thread::sleep(Duration::from_millis(ledger.dice.below(80)));
            machine.cut(edge);
        }
        let edge = ledger.start(&machine, &log);
        assert_eq!(edge.get("/api/v1/status", ledger.token.as_deref()).status, 200);
    }
}

fn wait_until_visible(ledger: &mut Ledger, edge: &EdgeProcess) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let contact = ledger.contact(edge);
    let sent = runtime.block_on(ledger.converge(&contact)).unwrap();
    ledger.check(edge);
    sent
}

/// Half of an upload was acknowledged, then a second part broke off in the middle and the edge was
/// killed: after its restart no byte that it had is sent again.
#[test]
fn an_upload_resumes_at_the_byte_after_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Killer(dir.path().join("data"));
    let log = dir.path().join("log");
    let mut ledger = Ledger::new(Dice::new("resume"));
    let edge = ledger.start(&machine, &log);
    let token = ledger.token.clone();
    let token = token.as_deref();
    let size = 3 * 1024 * 1024 + 17;
    futures_util::FutureExt::now_or_never(ledger.release(&[size])).expect("memory does not wait");
    let bytes = ledger.sent[0].files[0].1.clone();
    let blob = format!("/api/v1/blobs/{}", Digest::of(&bytes).to_hex());
    let offer = ledger.sent[0].offer.clone();
    assert_eq!(call(edge.address, "PUT", "/api/v1/trust", token, &ledger.trust).unwrap().status, 200);
    let want = call(edge.address, "POST", "/api/v1/bundles", token, &offer.envelope).unwrap();
    assert_eq!(want.json()["want"][0]["have"], 0);

    let half = bytes.len() / 2;
    let begin = |offset: usize, length: usize, address| {
        let head = request(address, "PATCH", &blob, token, length);
        let mut stream = TcpStream::connect(address).unwrap();
        let head = head.replace("\r\n\r\n", &format!("\r\nupload-offset: {offset}\r\n\r\n"));
        stream.write_all(head.as_bytes()).unwrap();
        stream
    };
    let mut stream = begin(0, half, edge.address);
    stream.write_all(&bytes[..half]).unwrap();
    let answer = reply(stream, "PATCH").unwrap();
    assert_eq!((answer.status, answer.header("upload-offset")), (204, Some(half.to_string().as_str())));

    // The rest is announced, a part of it sent.
    let mut stream = begin(half, bytes.len() - half, edge.address);
    let part = 700_000;
    stream.write_all(&bytes[half..half + part]).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    edge.kill();
    let _ = stream.read(&mut [0; 1]);

    let edge = ledger.start(&machine, &log);
    let position = call(edge.address, "HEAD", &blob, token, b"").unwrap();
    let position: usize = position.header("upload-offset").unwrap().parse().unwrap();
    assert!((half..=half + part).contains(&position), "{position}");
    assert_eq!(edge.get(&control(&offer, ""), token).json()["state"], "prepared");
    let sent = wait_until_visible(&mut ledger, &edge);
    assert_eq!(sent as usize, bytes.len() - position, "bytes that were there are sent again");
    println!("resume: killed at {position} of {}, {sent} bytes sent afterwards", bytes.len());
}

/// SIGTERM lets a download end that is under way.
#[test]
fn a_stop_waits_for_a_download_under_way() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Killer(dir.path().join("data"));
    let log = dir.path().join("log");
    let mut ledger = Ledger::new(Dice::new("stop"));
    let edge = ledger.start(&machine, &log);
    // More than the socket's buffers take.
    let size = 24 * 1024 * 1024;
    futures_util::FutureExt::now_or_never(ledger.release(&[size])).expect("memory does not wait");
    wait_until_visible(&mut ledger, &edge);
    let (path, bytes) = ledger.sent[0].files[0].clone();
    let mut stream = TcpStream::connect(edge.address).unwrap();
    stream.write_all(request(edge.address, "GET", &format!("/files/{path}"), None, 0).as_bytes()).unwrap();
    let mut first = [0; 1];
    stream.peek(&mut first).unwrap();
    edge.terminate();
    std::thread::sleep(Duration::from_millis(300));
    assert!(TcpStream::connect(edge.address).is_err(), "a stopping edge takes no new connections");
    let answer = reply(stream, "GET").unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.body == bytes);
    assert_eq!(edge.wait(Duration::from_secs(20)).code(), Some(0));
}

/// kill -9 came between the last byte of an upload and its rename: the edge took the bytes in its
/// upload area for a stored blob, wanted nothing, and acknowledged a bundle that it could not serve.
#[tokio::test]
async fn a_whole_upload_that_was_not_committed_is_no_blob() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::new(Dice::new("uncommitted"));
    ledger.house.trust.issued = NOW;
    ledger.release(&[5000, 6000]).await;
    let store = FsBlobStore::open(dir.path()).unwrap();
    let resumable = store.as_resumable().unwrap();
    let mut wrong = true;
    for (_, bytes) in &ledger.sent[0].files {
        let info = BlobInfo { digest: Digest::of(bytes), size: bytes.len() as u64 };
        let mut writer = resumable.resume(&info).await.unwrap();
        // One is what it should be, the other has the right length alone.
        wrong = !wrong;
        writer.write(if wrong { vec![7; bytes.len()] } else { bytes.clone() }.into()).await.unwrap();
        drop(writer);
        assert_eq!(resumable.position(&info).await.unwrap(), info.size);
    }
    let blobs: Arc<dyn BlobStore> = Arc::new(store);
    let edge = TestEdge::over("edge", Arc::new(MemoryStore::new()), blobs, true).await.unwrap();
    let desired = ledger.house.desired("edge");
    let outcome = edge.converge(&desired, &ledger.house.blobs).await.unwrap();
    assert_eq!(outcome.proofs.len(), 1, "{:?}", outcome.failed);
    for (path, bytes) in &ledger.sent[0].files {
        let (status, body) = edge.get(&format!("/files/{path}")).await;
        assert!(status == 200 && body == bytes[..], "{path}: {status}");
    }
    assert!(edge.event_kinds().await.contains(&"blob.rejected".to_owned()));
}
