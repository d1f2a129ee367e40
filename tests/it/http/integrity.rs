//! A blob that does not match its digest is never served whole.

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use super::rig::{A_BIN, Rig, SIZE, noise};
use async_trait::async_trait;
use bytes::Bytes;
use distedge::blob::{Blob, BlobInfo, BlobStore, BlobWriter, BoxStream, Payload, Stamp};
use distedge::digest::Digest;
use distedge::edge::integrity::Verifier;
use distedge::error::{Error, ErrorKind, Result};
use distedge::range::ByteRange;

const BIG: &str = "/generic-local/big.bin";

/// Flips one bit of the blob behind `path`.
fn flip(rig: &Rig, path: &str, at: u64) {
    let file = rig.store.file(&rig.digest(path));
    let file = std::fs::OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

fn damages(rig: &Rig) -> usize {
    rig.damage.lock().unwrap().len()
}

#[test]
fn a_flipped_bit_is_never_served_whole() {
    for (path, size, lines, at) in [
        (A_BIN, SIZE, "", SIZE / 2),
        (A_BIN, SIZE, "Range: bytes=0-99\r\n", SIZE - 1),
        (A_BIN, SIZE, "Range: bytes=0-9,20-29\r\n", 0),
        (BIG, 12 * SIZE, "", 0),
        (BIG, 12 * SIZE, "", 12 * SIZE - 1),
        (BIG, 12 * SIZE, "Range: bytes=5-9\r\n", 12 * SIZE - 1),
    ] {
        let rig = Rig::new();
        flip(&rig, path, at as u64);
        let mut wire = rig.connect();
        wire.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{lines}\r\n"));
        match wire.try_reply(false) {
            Some(reply) if reply.status == 200 => {
                assert!(reply.cut && reply.body.len() < size, "{path} {lines} {at}");
            }
            Some(reply) => assert_eq!(reply.status, 503, "{path} {lines}"),
            None => {}
        }
        assert_eq!(damages(&rig), 1, "{path} {lines}");
        assert_eq!(rig.store.quarantined.load(SeqCst), 1);
        for lines in ["", "Range: bytes=0-4\r\n"] {
            let again = rig.get(path, lines);
            assert_eq!(again.status, 503);
            assert!(again.text().contains("urn:distedge:problem:corrupted"));
        }
        assert_eq!(
            rig.ask(format!("HEAD {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).status,
            503
        );
        assert_eq!(damages(&rig), 1, "damage is reported once");
    }
}

#[test]
fn a_bit_that_flips_after_the_first_download_is_found() {
    for path in [A_BIN, BIG] {
        let rig = Rig::new();
        assert_eq!(rig.get(path, "").status, 200);
        flip(&rig, path, 77);
        let mut wire = rig.connect();
        wire.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let reply = wire.try_reply(false);
        assert!(reply.is_none_or(|reply| reply.status == 503 || reply.cut), "{path}");
        assert_eq!(damages(&rig), 1);
    }
}

#[test]
fn a_truncated_or_grown_file_is_found() {
    for (path, length) in [(A_BIN, SIZE - 1), (A_BIN, SIZE + 1), (A_BIN, 0), (BIG, SIZE), (BIG, 13 * SIZE)] {
        let rig = Rig::new();
        let file = rig.store.file(&rig.digest(path));
        std::fs::OpenOptions::new().write(true).open(file).unwrap().set_len(length as u64).unwrap();
        assert_eq!(rig.get(path, "").status, 503, "{path} {length}");
        assert_eq!(damages(&rig), 1);
    }
    let rig = Rig::new();
    std::fs::remove_file(rig.store.file(&rig.digest(A_BIN))).unwrap();
    assert_eq!(rig.get(A_BIN, "").status, 503);
}

#[test]
fn a_blob_that_is_put_back_is_served_again() {
    let rig = Rig::new();
    flip(&rig, A_BIN, 5);
    assert_eq!(rig.get(A_BIN, "").status, 503);
    std::fs::write(rig.store.file(&rig.digest(A_BIN)), noise(SIZE)).unwrap();
    assert!(rig.get(A_BIN, "").body == noise(SIZE));
}

#[test]
fn a_file_that_shrinks_under_a_download_cuts_it() {
    let rig = Rig::new();
    assert_eq!(rig.get(BIG, "").body.len(), 12 * SIZE);
    let mut wire = rig.connect();
    wire.send(format!("GET {BIG} HTTP/1.1\r\nHost: a\r\n\r\n"));
    std::thread::sleep(std::time::Duration::from_millis(100));
    let file = rig.store.file(&rig.digest(BIG));
    std::fs::OpenOptions::new().write(true).open(file).unwrap().set_len(10).unwrap();
    let reply = wire.reply(false);
    assert!(reply.cut || reply.body == noise(12 * SIZE));
}

/// A store whose every byte read is counted.
#[derive(Debug)]
struct Counting {
    bytes: Bytes,
    stamp: Option<Stamp>,
    read: Arc<AtomicU64>,
}

#[async_trait]
impl BlobStore for Counting {
    async fn stat(&self, digest: &Digest) -> Result<Option<BlobInfo>> {
        Ok(Some(BlobInfo { digest: *digest, size: self.bytes.len() as u64 }))
    }

    async fn open(&self, digest: &Digest, range: Option<ByteRange>) -> Result<Option<Blob>> {
        let size = self.bytes.len() as u64;
        let range = range.or_else(|| ByteRange::new(0, size).ok());
        let bytes = range
            .map_or(Bytes::new(), |range| self.bytes.slice(range.start() as usize..range.end() as usize));
        let read = Arc::clone(&self.read);
        let stream = futures_util::stream::unfold(bytes, move |mut bytes| {
            let read = Arc::clone(&read);
            async move {
                if bytes.is_empty() {
                    return None;
                }
                tokio::task::yield_now().await;
                let chunk = bytes.split_to(bytes.len().min(100_000));
                read.fetch_add(chunk.len() as u64, SeqCst);
                Some((Ok(chunk), bytes))
            }
        });
        let info = BlobInfo { digest: *digest, size };
        Ok(Some(Blob { info, range, payload: Payload::Stream(Box::pin(stream)), stamp: self.stamp }))
    }

    async fn create(&self, _: &BlobInfo) -> Result<Box<dyn BlobWriter>> {
        Err(Error::new(ErrorKind::Unsupported, "this store is read-only"))
    }

    async fn remove(&self, _: &Digest) -> Result<bool> {
        Ok(false)
    }

    fn list(&self) -> BoxStream<Result<BlobInfo>> {
        Box::pin(futures_util::stream::empty())
    }
}

fn counting(size: usize, stamp: Option<Stamp>) -> (Arc<Verifier>, BlobInfo, Arc<AtomicU64>) {
    let bytes = Bytes::from(noise(size));
    let info = BlobInfo { digest: Digest::of(&bytes), size: size as u64 };
    let read = Arc::new(AtomicU64::new(0));
    let store = Counting { bytes, stamp, read: Arc::clone(&read) };
    (Arc::new(Verifier::new(Arc::new(store))), info, read)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_at_one_unknown_blob_hashes_it_once() {
    let (verifier, info, read) = counting(3 * SIZE, Some(Stamp([1; 5])));
    let part = ByteRange::new(5, 15).unwrap();
    let crowd = (0..50).map(|_| {
        let verifier = Arc::clone(&verifier);
        tokio::spawn(async move {
            let mut parts = verifier.parts(&info, &[part]).await.unwrap();
            parts.pop().unwrap().collect(100).await.unwrap()
        })
    });
    for one in futures_util::future::join_all(crowd).await {
        assert_eq!(one.unwrap(), noise(15)[5..]);
    }
    assert_eq!(read.load(SeqCst), info.size + 50 * 10, "one hash and fifty parts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_at_one_large_blob_hashes_it_at_most_twice() {
    let (verifier, info, read) = counting(9 * SIZE, Some(Stamp([1; 5])));
    let crowd = (0..20).map(|_| {
        let verifier = Arc::clone(&verifier);
        tokio::spawn(
            async move { verifier.whole(&info).await.unwrap().collect(9 * SIZE).await.unwrap().len() },
        )
    });
    for one in futures_util::future::join_all(crowd).await {
        assert_eq!(one.unwrap(), 9 * SIZE);
    }
    assert!(read.load(SeqCst) <= info.size * 21, "{}", read.load(SeqCst));
}

#[tokio::test]
async fn a_store_without_stamps_is_hashed_each_time() {
    let (verifier, info, _) = counting(9 * SIZE, None);
    assert_eq!(verifier.whole(&info).await.unwrap().collect(9 * SIZE).await.unwrap().len(), 9 * SIZE);
    let wrong = BlobInfo { digest: Digest::of(b"other"), size: info.size };
    for _ in 0..2 {
        let error = verifier.whole(&wrong).await.unwrap().collect(9 * SIZE).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupted);
        let part = ByteRange::new(0, 1).unwrap();
        assert_eq!(verifier.parts(&wrong, &[part]).await.unwrap_err().kind(), ErrorKind::Corrupted);
    }
    let (verifier, info, _) = counting(100, None);
    assert_eq!(verifier.whole(&info).await.unwrap().collect(100).await.unwrap(), noise(100));
    let wrong = BlobInfo { digest: Digest::of(b"other"), size: 100 };
    assert_eq!(verifier.whole(&wrong).await.unwrap_err().kind(), ErrorKind::Corrupted);
}
