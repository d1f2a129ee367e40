//! Faults that the programmes of this module found, or that a look at what they found led to.

use std::sync::Arc;
use std::sync::mpsc;

use distedge::blob::{BlobStore as _, BlobStoreExt as _, FsBlobStore, MemoryBlobStore};
use distedge::catalog::Resolved;
use distedge::error::ErrorKind;
use distedge::meta::MemoryStore;
use distedge::testing::block_on;
use distedge::testing::sim::{Fault, OpKind};
use futures_util::{StreamExt as _, stream};

use super::image::Reference;
use super::workload::{Plan, Station, Step};
use crate::support::House;

/// The power went between the last byte of an upload and the rename that makes it a blob. After
/// the start the edge counted the kept bytes as the blob: it wanted nothing, committed the bundle
/// and signed a receipt, and then had no such blob to serve.
#[test]
fn kept_bytes_of_an_upload_are_no_blob() {
    let plan = Plan::reference();
    let blobs = MemoryBlobStore::new();
    let station = Station::over(Arc::new(MemoryStore::new()), Arc::new(blobs.clone()), 0).unwrap();
    let (receiver, offer) = (&station.receiver, &plan.releases[0].offer);
    block_on(receiver.accept_trust(plan.trust[0].clone())).unwrap();
    let want = block_on(receiver.offer(&offer.envelope)).unwrap().want;
    for want in &want {
        let expected = distedge::blob::BlobInfo { digest: want.digest, size: want.size };
        let mut writer = block_on(blobs.as_resumable().unwrap().resume(&expected)).unwrap();
        block_on(writer.write(plan.contents[&want.digest].clone())).unwrap();
    }
    // Wherever the source goes on, the kept bytes become the blob.
    let first = want[0].digest;
    assert!(block_on(receiver.upload(&first, 0, stream::empty().boxed())).unwrap().is_complete());
    assert!(block_on(blobs.stat(&first)).unwrap().is_some());
    assert!(block_on(receiver.offer(&offer.envelope)).unwrap().want.is_empty());
    assert!(block_on(receiver.commit(&offer.name, &offer.version)).is_ok());
    assert_eq!(station.check(&plan, "completed"), 1);
}

/// The same, when what was kept is not what was sent: it starts over.
#[test]
fn kept_bytes_that_are_wrong_are_thrown_away() {
    let plan = Plan::reference();
    let blobs = MemoryBlobStore::new();
    let station = Station::over(Arc::new(MemoryStore::new()), Arc::new(blobs.clone()), 0).unwrap();
    let (receiver, offer) = (&station.receiver, &plan.releases[0].offer);
    block_on(receiver.accept_trust(plan.trust[0].clone())).unwrap();
    let want = block_on(receiver.offer(&offer.envelope)).unwrap().want[0];
    let expected = distedge::blob::BlobInfo { digest: want.digest, size: want.size };
    let mut writer = block_on(blobs.as_resumable().unwrap().resume(&expected)).unwrap();
    block_on(writer.write(vec![0; want.size as usize].into())).unwrap();
    drop(writer);
    let error = block_on(receiver.upload(&want.digest, 0, stream::empty().boxed())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    assert_eq!(block_on(receiver.position(&want.digest)).unwrap().have, 0);
    block_on(station.send(&plan, &want.digest)).unwrap();
    assert!(block_on(receiver.position(&want.digest)).unwrap().is_complete());
}

/// A client hung up while its collection of garbage waited for the blocking pool. The collection
/// was over for everybody, its mark was cleared away, the blob was uploaded anew and promised, and
/// then the pool had time for the removal.
#[test]
fn a_removal_that_nobody_waits_for_does_not_happen() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(1)
        .build()
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let store = FsBlobStore::open(dir.path()).unwrap();
    let info = block_on(store.put("promised".into())).unwrap();
    let (free, busy) = mpsc::channel::<()>();
    runtime.block_on(async {
        let pool = tokio::task::spawn_blocking(move || busy.recv());
        let mut removal = Box::pin(store.remove(&info.digest));
        assert!(futures_util::poll!(&mut removal).is_pending());
        drop(removal);
        free.send(()).unwrap();
        pool.await.unwrap().unwrap();
        // The pool has one thread: what waited has had its turn when this is done.
        tokio::task::spawn_blocking(|| ()).await.unwrap();
        assert_eq!(store.stat(&info.digest).await.unwrap(), Some(info));
        assert!(store.remove(&info.digest).await.unwrap());
    });
}

/// A full disk kept a withdrawal from being done, and had room again for what came next: the
/// bundle, which was assigned no more either, was taken off like any other. The withdrawal found
/// nothing to take away later, and its artifacts answered 404 for good where 410 was due.
#[test]
fn a_withdrawal_that_failed_is_not_done_as_a_removal() {
    let reference = Reference::record();
    let (plan, step) = (&reference.plan, 4);
    assert_eq!(plan.steps[step], Step::Trust(1));
    let mut failed = 0;
    for number in 1.. {
        let disk = reference.disk_before(step);
        let station = Station::open(&disk, step).unwrap();
        let before = disk.count(OpKind::Write);
        disk.fail_nth(OpKind::Write, number, Fault::NoSpace);
        let result = station.run(plan, step, &mut || (), &mut drop);
        if disk.count(OpKind::Write) < before + number {
            break;
        }
        failed += usize::from(result.is_err());
        disk.heal();
        drop(station);
        let station = Station::open(&disk, step).unwrap();
        station.run(plan, step, &mut || (), &mut drop).unwrap();
        for item in plan.releases[0].statement.items().iter().filter(|item| item.path.as_str() != "app/lib") {
            let resolved =
                block_on(station.receiver.catalog().resolve(&item.repository, &item.path)).unwrap();
            assert!(matches!(resolved, Some(Resolved::Gone(_))), "write {number}: {resolved:?}");
        }
    }
    assert!(failed > 10, "{failed} writes failed");
}

/// A version came with other content than the trust document names for it, and no event told.
#[test]
fn a_version_with_other_content_than_assigned_leaves_an_event() {
    let mut house = House::new(&["e1"]);
    block_on(house.release("shop", "1.0", 1, &[("a/one", b"1")]));
    let item = block_on(house.item("files", "a/one", b"other"));
    let other = house.sign(&House::statement("shop", "1.0", 1).item(item).build().unwrap());
    let station = Station::over(Arc::new(MemoryStore::new()), Arc::new(MemoryBlobStore::new()), 0).unwrap();
    block_on(station.receiver.accept_trust(house.next_trust())).unwrap();
    let error = block_on(station.receiver.offer(&other.envelope)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let events = block_on(station.receiver.catalog().events(10)).unwrap();
    assert!(events.iter().any(|event| event.kind == "bundle.conflict"), "{events:?}");
}
