//! The source: what comes in, what is selected, signed and sent, and what is refused.

mod artifacts;
mod bundles;
mod command;
mod converge;
mod duties;
mod links;
mod query;
mod trust;

use std::sync::Arc;

use distedge::blob::MemoryBlobStore;
use distedge::clock::Timestamp;
use distedge::key::Algorithm;
use distedge::meta::MemoryStore;
use distedge::source::{
    AddOptions, BundleRecord, MemoryVault, NewBundle, NewKey, Pattern, Ports, Role, Selection, Source,
};
use distedge::testing::ManualClock;

pub(super) const NOW: Timestamp = Timestamp::from_unix(1_795_323_600);

pub(super) fn parse<T: std::str::FromStr<Err = distedge::error::Error>>(text: &str) -> T {
    text.parse().unwrap()
}

/// A source in memory, with its clock and its stores within reach.
pub(super) struct Bench {
    pub source: Source,
    pub clock: ManualClock,
    pub blobs: MemoryBlobStore,
    pub ports: Ports,
}

impl Bench {
    pub async fn new() -> Bench {
        let clock = ManualClock::new(NOW);
        let blobs = MemoryBlobStore::new();
        let ports = Ports {
            blobs: Arc::new(blobs.clone()),
            meta: Arc::new(MemoryStore::new()),
            clock: Arc::new(clock.clone()),
            vault: Arc::new(MemoryVault::new()),
            spool: std::env::temp_dir(),
        };
        let source = Source::create_over(ports.clone(), &parse("default"), "default").await.unwrap();
        Bench { source, clock, blobs, ports }
    }

    /// A bench with a root key and a release key.
    pub async fn with_keys() -> Bench {
        let bench = Bench::new().await;
        for (role, alias) in [(Role::Root, "root"), (Role::Release, "release")] {
            bench.source.create_key(role, Algorithm::Ed25519, &NewKey::new(alias)).await.unwrap();
        }
        bench
    }

    /// Adds `bytes` at `place`, `repository/path`.
    pub async fn add(&self, place: &str, bytes: &[u8], labels: &[&str]) {
        let (repository, path) = place.split_once('/').unwrap();
        let options = AddOptions {
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            ..AddOptions::default()
        };
        self.source.add_bytes(&parse(repository), &parse(path), bytes.to_vec(), &options).await.unwrap();
    }

    pub async fn create(&self, name: &str, version: &str, pattern: &str) -> BundleRecord {
        self.source.create_bundle(&new_bundle(name, version, pattern)).await.unwrap()
    }

    /// Makes and signs a bundle with the default key.
    pub async fn release(&self, name: &str, version: &str, pattern: &str) -> BundleRecord {
        self.create(name, version, pattern).await;
        self.source.sign_bundle(&parse(name), &parse(version), &[]).await.unwrap()
    }
}

pub(super) fn everything(pattern: &str) -> Selection {
    Selection::new().with_pattern(Pattern::new(pattern).unwrap())
}

pub(super) fn new_bundle(name: &str, version: &str, pattern: &str) -> NewBundle {
    NewBundle::new(parse(name), parse(version), everything(pattern))
}
