//! The conformance suites over every in-tree store, plain, through `dyn`, and inside a runtime.

use std::sync::Arc;
use std::time::Duration;

use distedge::blob::{BlobStore, FsBlobStore, MemoryBlobStore};
use distedge::error::ErrorKind;
use distedge::meta::{MemoryStore, MetadataStore, RedbStore};
use distedge::testing::sim::SimDisk;
use distedge::testing::{Flaky, Plan, Slow, Torn};
use distedge::{blob_store_suite, metadata_store_suite, quarantine_suite, resumable_suite};

fn on_tokio<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn temp() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

macro_rules! every_blob_suite {
    ($name:ident, $medium:expr, $block_on:path) => {
        mod $name {
            use super::*;
            blob_store_suite!(blobs, $medium, $block_on);
            resumable_suite!(resumable, $medium, $block_on);
            quarantine_suite!(quarantine, $medium, $block_on);
        }
    };
    ($name:ident, $medium:expr) => {
        every_blob_suite!($name, $medium, distedge::testing::block_on);
    };
}

fn memory_blobs() -> impl AsyncFn() -> MemoryBlobStore {
    let medium = MemoryBlobStore::new();
    async move || medium.clone()
}

fn file_blobs() -> impl AsyncFn() -> FsBlobStore {
    let dir = temp();
    async move || FsBlobStore::open(dir.path().join("deep/data")).unwrap()
}

every_blob_suite!(memory, memory_blobs);
every_blob_suite!(files, file_blobs);
every_blob_suite!(files_on_tokio, file_blobs, on_tokio);
every_blob_suite!(simulated_disk, || {
    let disk = SimDisk::new();
    async move || FsBlobStore::open_with(disk.clone(), "/data").unwrap()
});
every_blob_suite!(through_arc_dyn, || {
    let medium = file_blobs();
    async move || Arc::new(medium().await) as Arc<dyn BlobStore>
});
every_blob_suite!(through_box_dyn, || {
    let medium = memory_blobs();
    async move || Box::new(medium().await) as Box<dyn BlobStore>
});
every_blob_suite!(through_wrappers, || {
    let medium = memory_blobs();
    async move || {
        let never = || Plan::every(0, ErrorKind::Io);
        Slow::new(Torn::new(Flaky::new(medium().await, never()), never()), |_| std::future::ready(()))
    }
});
every_blob_suite!(
    through_slow_on_tokio,
    || {
        let medium = file_blobs();
        async move || Slow::new(medium().await, |_| tokio::time::sleep(Duration::from_micros(50)))
    },
    on_tokio
);

fn memory_records() -> impl AsyncFn() -> MemoryStore {
    let medium = MemoryStore::new();
    async move || medium.clone()
}

fn file_records() -> impl AsyncFn() -> RedbStore {
    let dir = temp();
    async move || RedbStore::open(dir.path().join("meta.redb")).unwrap()
}

mod records {
    use super::*;

    metadata_store_suite!(memory, memory_records);
    metadata_store_suite!(redb, file_records);
    metadata_store_suite!(redb_on_tokio, file_records, on_tokio);
    metadata_store_suite!(redb_on_simulated_disk, || {
        let disk = SimDisk::new();
        async move || disk.redb("/meta.redb").unwrap()
    });
    metadata_store_suite!(through_arc_dyn, || {
        let medium = file_records();
        async move || Arc::new(medium().await) as Arc<dyn MetadataStore>
    });
    metadata_store_suite!(through_box_dyn, || {
        let medium = memory_records();
        async move || Box::new(medium().await) as Box<dyn MetadataStore>
    });
    metadata_store_suite!(through_wrappers, || {
        let medium = memory_records();
        async move || {
            let never = || Plan::every(0, ErrorKind::Io);
            Slow::new(Torn::new(Flaky::new(medium().await, never()), never()), |_| std::future::ready(()))
        }
    });
}
