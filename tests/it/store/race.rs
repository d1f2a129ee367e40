//! Many at once: no interleaving loses a blob that was stored, or a count.

use std::sync::Barrier;
use std::thread;

use bytes::Bytes;
use distedge::blob::{BlobInfo, BlobStore, BlobStoreExt, FsBlobStore, MemoryBlobStore};
use distedge::digest::Digest;
use distedge::error::ErrorKind;
use distedge::meta::{Batch, MemoryStore, MetadataStore, RedbStore};
use distedge::testing::block_on;
use distedge::testing::sim::SimDisk;

/// One removes while the others upload: whoever uploads after the last removal finds the blob.
fn remove_against_put<S: BlobStore>(store: &S, rounds: usize) {
    for round in 0..rounds {
        let bytes = Bytes::from(format!("round {round}"));
        let digest = Digest::of(&bytes);
        let start = Barrier::new(3);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    start.wait();
                    block_on(store.put(bytes.clone())).unwrap();
                });
            }
            scope.spawn(|| {
                start.wait();
                block_on(store.remove(&digest)).unwrap();
            });
        });
        if let Some(read) = block_on(store.read(&digest, 99)).unwrap() {
            assert_eq!(read, bytes);
        }
        block_on(store.put(bytes.clone())).unwrap();
        assert_eq!(block_on(store.read(&digest, 99)).unwrap(), Some(bytes), "round {round}: lost");
    }
}

#[test]
fn a_blob_stored_after_its_removal_is_there() {
    remove_against_put(&MemoryBlobStore::new(), 500);
    remove_against_put(&FsBlobStore::open_with(SimDisk::new(), "/data").unwrap(), 500);
    let dir = tempfile::tempdir().unwrap();
    remove_against_put(&FsBlobStore::open(dir.path()).unwrap(), 50);
}

#[test]
fn readers_see_a_blob_whole_or_not_at_all() {
    let store = FsBlobStore::open_with(SimDisk::new(), "/data").unwrap();
    let bytes = Bytes::from(vec![7; 5000]);
    let digest = Digest::of(&bytes);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for _ in 0..300 {
                block_on(store.put(bytes.clone())).unwrap();
                assert!(block_on(store.remove(&digest)).unwrap());
            }
        });
        while !writer.is_finished() {
            if let Some(blob) = block_on(store.open(&digest, None)).unwrap() {
                assert_eq!(blob.info, BlobInfo { digest, size: 5000 });
                assert_eq!(block_on(blob.into_bytes(5000)).unwrap(), bytes);
            }
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_uploads_at_once_are_all_stored() {
    let dir = tempfile::tempdir().unwrap();
    let store = FsBlobStore::open(dir.path()).unwrap();
    let uploads: Vec<_> = (0..60)
        .map(|number| {
            let store = store.clone();
            // Every blob by two at once.
            tokio::spawn(async move { store.put(Bytes::from(format!("blob {}", number / 2))).await })
        })
        .collect();
    for upload in uploads {
        let stored = upload.await.unwrap().unwrap();
        assert!(store.verify(&stored.digest).await.unwrap().unwrap());
    }
    assert_eq!(std::fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn an_upload_given_up_while_it_commits_ends_one_way_or_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = FsBlobStore::open(dir.path()).unwrap();
    for number in 0..20 {
        let bytes = Bytes::from(format!("blob {number}"));
        let expected = BlobInfo { digest: Digest::of(&bytes), size: bytes.len() as u64 };
        let mut writer = store.as_resumable().unwrap().resume(&expected).await.unwrap();
        writer.write(bytes.clone()).await.unwrap();
        let patience = std::time::Duration::from_micros(number * 20);
        let _ = tokio::time::timeout(patience, writer.commit()).await;
        // The upload of before may still be ending.
        let writer = loop {
            match store.as_resumable().unwrap().resume(&expected).await {
                Ok(writer) => break writer,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict),
            }
            tokio::task::yield_now().await;
        };
        let mut writer = writer;
        let rest = bytes.slice(writer.position() as usize..);
        writer.write(rest).await.unwrap();
        writer.commit().await.unwrap();
        assert_eq!(store.read(&expected.digest, 99).await.unwrap(), Some(bytes));
    }
}

fn count_up<S: MetadataStore>(store: &S, workers: usize, rounds: usize) {
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let mut done = 0;
                while done < rounds {
                    let read = block_on(store.get(b"counter")).unwrap();
                    let count = read.as_ref().map_or(0, |entry| {
                        std::str::from_utf8(&entry.value).unwrap().parse::<usize>().unwrap()
                    });
                    let mut batch = Batch::new();
                    batch.expect_unchanged("counter", read.as_ref());
                    batch.put("counter", (count + 1).to_string());
                    match block_on(store.commit(batch)) {
                        Ok(_) => done += 1,
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict),
                    }
                }
            });
        }
    });
    let count = block_on(store.get(b"counter")).unwrap().unwrap().value;
    assert_eq!(count, (workers * rounds).to_string());
}

#[test]
fn no_count_is_lost_between_read_and_commit() {
    count_up(&MemoryStore::new(), 4, 200);
    let disk = SimDisk::new();
    count_up(&disk.redb("/meta.redb").unwrap(), 4, 50);
    let dir = tempfile::tempdir().unwrap();
    count_up(&RedbStore::open(dir.path().join("meta.redb")).unwrap(), 2, 10);
}
