//! The reference workload: what an edge lives through, step by step, and what it may look like in
//! between.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use distedge::blob::{BlobStore, BlobStoreExt as _, FsBlobStore};
use distedge::bundle::{Envelope, Receipt, Statement};
use distedge::catalog::{BundleRecord, BundleState, Catalog, Resolved};
use distedge::digest::Digest;
use distedge::distribute::{BundleOffer, Receiver};
use distedge::error::{ErrorKind, Result};
use distedge::meta::{MetadataStore, MetadataStoreExt as _};
use distedge::name::{ArtifactPath, RepositoryName};
use distedge::testing::ManualClock;
use distedge::testing::block_on;
use distedge::testing::sim::SimDisk;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::support::{House, NOW, identity, name, path, repository};

/// What the source does to the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Sends this trust document.
    Trust(usize),
    /// Offers, uploads and commits this bundle.
    Take(usize),
    /// Offers this bundle, which must be refused for good.
    Refused(usize),
    /// Takes this bundle off the edge.
    Remove(usize),
    /// Collects garbage.
    Collect,
}

/// One call of a step: what the edge acknowledges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    Trust(usize),
    Offer(usize),
    Upload(Digest),
    Commit(usize, Bytes),
    Remove(usize),
    Collect,
}

/// An act, and the crash points between which it was under way.
#[derive(Clone, Debug)]
pub struct Entry {
    pub act: Act,
    pub begun: usize,
    pub done: usize,
}

/// One bundle of the workload.
#[derive(Debug)]
pub struct Release {
    pub offer: BundleOffer,
    pub statement: Statement,
}

/// Everything the source has: it is what survives on the other side.
#[derive(Debug)]
pub struct Plan {
    pub trust: Vec<Bytes>,
    pub releases: Vec<Release>,
    pub contents: BTreeMap<Digest, Bytes>,
    pub steps: Vec<Step>,
    withdrawn_by: BTreeMap<usize, usize>,
}

/// All records but the events and the time floor, and all blobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub records: BTreeMap<Bytes, Bytes>,
    pub blobs: BTreeSet<Digest>,
}

/// What must be true of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its receipt was returned: it is visible, with this receipt.
    Visible(Bytes),
    /// It was never committed, or its removal was acknowledged.
    Hidden,
    /// Its withdrawal was acknowledged.
    Withdrawn,
    /// A call that changes it was under way.
    Open,
}

fn content(label: &str, length: usize) -> Vec<u8> {
    label.bytes().chain(*b" ").cycle().take(length).collect()
}

impl Plan {
    /// Three bundles that share blobs, a path and an alias; one is withdrawn, one removed and taken
    /// again.
    pub fn reference() -> Plan {
        let (shared, one, two) = (content("shared", 700), content("one", 900), content("two", 1300));
        let (doc, tool) = (content("doc", 300), content("tool", 600));
        let mut house = House::new(&["e1"]);
        block_on(async {
            let first = [("app/lib", &shared[..]), ("app/1.0/doc", &doc), ("app/1.0/bin", &one)];
            house.release("app", "1.0", 1, &first).await;
            let second = [("app/lib", &shared[..]), ("app/1.1/doc", &doc), ("app/1.1/bin", &two)];
            house.release("app", "1.1", 2, &second).await;
            let third = [("tool/LIB", &shared[..]), ("tool/empty", b""), ("tool/bin", &tool)];
            house.release("tool", "2.0", 1, &third).await;
        });
        let releases = house.bundles.values().cloned().map(Release::new).collect();
        let mut trust = vec![house.next_trust()];
        house.withdraw("app", "1.0");
        trust.push(house.next_trust());
        let contents = [shared, one, two, doc, tool, Vec::new()].map(Bytes::from);
        Plan {
            trust,
            releases,
            contents: contents.into_iter().map(|bytes| (Digest::of(&bytes), bytes)).collect(),
            steps: vec![
                Step::Trust(0),
                Step::Take(0),
                Step::Take(1),
                Step::Take(2),
                Step::Trust(1),
                Step::Refused(0),
                Step::Remove(2),
                Step::Collect,
                Step::Take(2),
                Step::Collect,
            ],
            withdrawn_by: BTreeMap::from([(0, 1)]),
        }
    }

    /// Where a bundle must stand when the power goes at `point`. If `rerun`, the calls that were not
    /// acknowledged by then may have been made again since.
    pub fn standing(&self, bundle: usize, journal: &[Entry], point: usize, rerun: bool) -> Standing {
        let mut standing = Standing::Hidden;
        for entry in journal {
            let next = match &entry.act {
                Act::Commit(which, receipt) if *which == bundle => Standing::Visible(receipt.clone()),
                Act::Remove(which) if *which == bundle => Standing::Hidden,
                Act::Trust(document) if self.withdrawn_by.get(&bundle) == Some(document) => {
                    Standing::Withdrawn
                }
                _ => continue,
            };
            if entry.done <= point {
                standing = next;
            } else if entry.begun < point || rerun {
                return Standing::Open;
            }
        }
        standing
    }

    /// Blobs whose uploads were acknowledged by `point` and which nothing can have collected.
    pub fn stored(&self, journal: &[Entry], point: usize, rerun: bool) -> BTreeSet<Digest> {
        let mut stored = BTreeSet::new();
        for entry in journal {
            match &entry.act {
                Act::Upload(digest) if entry.done <= point => drop(stored.insert(*digest)),
                Act::Collect if entry.begun < point || rerun => stored.clear(),
                _ => {}
            }
        }
        stored
    }
}

impl Release {
    fn new(offer: BundleOffer) -> Release {
        let envelope = Envelope::parse(&offer.envelope).unwrap();
        Release { statement: Statement::parse(&envelope.payload).unwrap(), offer }
    }

    pub fn digests(&self) -> BTreeSet<Digest> {
        self.statement.items().iter().map(|item| item.digest).collect()
    }

    fn alias(&self) -> (RepositoryName, ArtifactPath) {
        (repository("files"), path(&format!("{}/latest/app", self.offer.name)))
    }
}

/// The edge of the workload, over stores that are opened.
#[derive(Debug)]
pub struct Station {
    pub receiver: Receiver,
    clock: ManualClock,
}

impl Station {
    /// Opens, on one simulated disk, all that an edge opens at its start, at the time of `step`.
    pub fn open(disk: &SimDisk, step: usize) -> Result<Station> {
        let blobs = FsBlobStore::open_with(disk.clone(), "/blobs")?;
        let store = disk.redb("/meta.redb")?;
        Station::over(Arc::new(store), Arc::new(blobs), step)
    }

    pub fn over(store: Arc<dyn MetadataStore>, blobs: Arc<dyn BlobStore>, step: usize) -> Result<Station> {
        let clock = ManualClock::new(NOW.plus(60 * step as i64));
        let receiver = block_on(async {
            let catalog = Catalog::open(store, name("default")).await?;
            let identity = Arc::new(identity("e1"));
            Receiver::open(catalog, blobs, Arc::new(clock.clone()), name("e1"), identity).await
        })?;
        Ok(Station { receiver: receiver.with_public_repositories(true), clock })
    }

    /// Does one step, from whatever state its last attempt left; `done` hears of each acknowledged act.
    pub fn run(
        &self,
        plan: &Plan,
        step: usize,
        begin: &mut dyn FnMut(),
        done: &mut dyn FnMut(Act),
    ) -> Result<()> {
        self.clock.set(NOW.plus(60 * step as i64));
        block_on(async {
            match plan.steps[step] {
                Step::Trust(number) => {
                    begin();
                    let answer = self.receiver.accept_trust(plan.trust[number].clone()).await?;
                    assert_eq!(answer.version, number as u64 + 1);
                    done(Act::Trust(number));
                }
                Step::Take(which) => self.take(plan, which, begin, done).await?,
                Step::Refused(which) => {
                    let error = self.receiver.offer(&plan.releases[which].offer.envelope).await.unwrap_err();
                    if error.kind() != ErrorKind::Gone {
                        return Err(error);
                    }
                }
                Step::Remove(which) => {
                    let offer = &plan.releases[which].offer;
                    begin();
                    self.receiver.remove(&offer.name, &offer.version).await?;
                    done(Act::Remove(which));
                }
                Step::Collect => {
                    begin();
                    self.receiver.collect_garbage().await?;
                    done(Act::Collect);
                }
            }
            Ok(())
        })
    }

    async fn take(
        &self,
        plan: &Plan,
        which: usize,
        begin: &mut dyn FnMut(),
        done: &mut dyn FnMut(Act),
    ) -> Result<()> {
        let offer = &plan.releases[which].offer;
        begin();
        let answer = self.receiver.offer(&offer.envelope).await?;
        done(Act::Offer(which));
        for want in answer.want {
            begin();
            self.send(plan, &want.digest).await?;
            done(Act::Upload(want.digest));
        }
        begin();
        let receipt = self.receiver.commit(&offer.name, &offer.version).await?;
        done(Act::Commit(which, receipt));
        Ok(())
    }

    /// Sends a blob from where it stands: its second half if the first is there.
    pub async fn send(&self, plan: &Plan, digest: &Digest) -> Result<()> {
        let bytes = &plan.contents[digest];
        let mut torn = false;
        loop {
            let have = self.receiver.position(digest).await?.have as usize;
            // Every second blob goes in two calls.
            let halves = have == 0 && digest.as_bytes()[1] & 1 == 0;
            let end = if halves { bytes.len().div_ceil(2) } else { bytes.len() };
            let part = bytes.slice(have..end);
            let stream = stream::iter((!part.is_empty()).then_some(Ok(part))).boxed();
            match self.receiver.upload(digest, have as u64, stream).await {
                Ok(answer) if answer.is_complete() => return Ok(()),
                Ok(_) => {}
                // What a crash left of the first half is not what was sent: it starts over, once.
                Err(error) if error.kind() == ErrorKind::Mismatch && !torn => torn = true,
                Err(error) => return Err(error),
            }
        }
    }

    pub fn record(&self, release: &Release) -> Option<BundleRecord> {
        block_on(self.receiver.catalog().bundle(&release.offer.name, &release.offer.version)).unwrap()
    }

    pub fn blobs(&self) -> BTreeSet<Digest> {
        let list = self.receiver.blobs().list().map_ok(|info| info.digest);
        block_on(list.try_collect()).unwrap()
    }

    pub fn snapshot(&self) -> Snapshot {
        let store = self.receiver.catalog().store();
        let entries: Vec<_> = block_on(store.scan_prefix(b"", 1000).try_collect()).unwrap();
        let told = |key: &[u8]| key.starts_with(b"v\0") || key.starts_with(b"f\0");
        let entries = entries.into_iter().filter(|entry| !told(&entry.key));
        Snapshot { records: entries.map(|entry| (entry.key, entry.value)).collect(), blobs: self.blobs() }
    }

    /// Every bundle is whole or not there; what is visible has its bytes; claims are right.
    /// Answers the number of visible bundles.
    pub fn check(&self, plan: &Plan, what: &str) -> usize {
        let visible: Vec<bool> =
            plan.releases.iter().map(|release| self.check_whole(plan, release, what)).collect();
        for (index, release) in plan.releases.iter().enumerate() {
            // The alias leads to the highest version that is visible.
            let newer = plan.releases.iter().zip(&visible).skip(index + 1);
            let superseded = newer
                .filter(|(_, visible)| **visible)
                .any(|(newer, _)| newer.offer.name == release.offer.name);
            let (repository, path) = release.alias();
            let resolved = block_on(self.receiver.catalog().resolve(&repository, &path)).unwrap();
            let mine = match &resolved {
                Some(Resolved::Alias(alias, _)) => alias.version == release.offer.version,
                _ => false,
            };
            assert_eq!(mine, visible[index] && !superseded, "{what}: the alias {path} is {resolved:?}");
        }
        self.check_claims(plan, what);
        visible.into_iter().filter(|visible| *visible).count()
    }

    fn check_whole(&self, plan: &Plan, release: &Release, what: &str) -> bool {
        let (catalog, blobs) = (self.receiver.catalog(), self.receiver.blobs());
        let offer = &release.offer;
        let record = self.record(release);
        let visible = record.as_ref().is_some_and(|record| record.state == BundleState::Committed);
        let kept = block_on(catalog.receipt(&offer.name, &offer.version)).unwrap();
        for item in release.statement.items() {
            let resolved = block_on(catalog.resolve(&item.repository, &item.path)).unwrap();
            let held = match &resolved {
                Some(Resolved::Artifact(artifact)) => {
                    assert_eq!(artifact.digest, item.digest, "{what}: {}", item.path);
                    assert!(!artifact.holders.is_empty(), "{what}: nobody holds {}", item.path);
                    let bytes = block_on(blobs.read(&item.digest, u64::MAX));
                    let bytes = bytes.unwrap_or_else(|error| panic!("{what}: {}: {error}", item.path));
                    assert_eq!(bytes.as_ref(), Some(&plan.contents[&item.digest]), "{what}: {}", item.path);
                    let mine =
                        |one: &distedge::catalog::Holder| one.0 == offer.name && one.1 == offer.version;
                    artifact.holders.iter().any(mine)
                }
                _ => false,
            };
            assert_eq!(
                held, visible,
                "{what}: {}/{} is {record:?}, {} is {resolved:?}",
                offer.name, offer.version, item.path
            );
        }
        if visible {
            let kept =
                kept.unwrap_or_else(|| panic!("{what}: no receipt of {}/{}", offer.name, offer.version));
            let receipt =
                Receipt::verify(&kept, &self.receiver.identity().public_key(), self.receiver.now()).unwrap();
            assert_eq!(receipt.payload, offer.digest, "{what}");
            assert_eq!(receipt.root, release.statement.root(), "{what}");
        }
        visible
    }

    /// Each digest is claimed as often as bundles need it, and nothing is left marked.
    fn check_claims(&self, plan: &Plan, what: &str) {
        let mut expected: BTreeMap<String, u64> = BTreeMap::new();
        for release in &plan.releases {
            if self.record(release).is_some_and(|record| record.holds_blobs) {
                for digest in release.digests() {
                    *expected.entry(digest.to_hex()).or_default() += 1;
                }
            }
        }
        let mut found = BTreeMap::new();
        for (key, value) in self.snapshot().records {
            if let Some(digest) = key.strip_prefix(b"x\0") {
                let claim: serde_json::Value = serde_json::from_slice(&value).unwrap();
                found.insert(String::from_utf8(digest.to_vec()).unwrap(), claim["n"].as_u64().unwrap());
            }
            assert!(!key.starts_with(b"y\0"), "{what}: a collection is unfinished");
        }
        assert_eq!(found, expected, "{what}: claims");
    }

    /// The bundles stand where the journal says.
    pub fn check_standing(&self, plan: &Plan, journal: &[Entry], point: usize, rerun: bool, what: &str) {
        for (index, release) in plan.releases.iter().enumerate() {
            let offer = &release.offer;
            let state = self.record(release).map(|record| record.state);
            match plan.standing(index, journal, point, rerun) {
                Standing::Open => {}
                Standing::Hidden => {
                    assert_ne!(state, Some(BundleState::Committed), "{what}: {}", offer.version);
                }
                Standing::Visible(receipt) => {
                    assert_eq!(state, Some(BundleState::Committed), "{what}: acknowledged and lost");
                    let kept = block_on(self.receiver.catalog().receipt(&offer.name, &offer.version));
                    assert_eq!(kept.unwrap(), Some(receipt), "{what}: another receipt");
                }
                Standing::Withdrawn => {
                    assert_eq!(state, Some(BundleState::Withdrawn), "{what}: a withdrawal is lost");
                    let error = block_on(self.receiver.offer(&offer.envelope)).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::Gone, "{what}: {error}");
                }
            }
        }
        let blobs = self.blobs();
        for digest in plan.stored(journal, point, rerun) {
            assert!(blobs.contains(&digest), "{what}: {digest} was acknowledged and is lost");
        }
        for digest in blobs {
            let read = block_on(self.receiver.blobs().read(&digest, u64::MAX));
            assert!(read.is_ok(), "{what}: {digest} is visible and not whole");
        }
    }

    /// Garbage collection takes what nobody needs, and nothing else.
    pub fn check_collection(&self, plan: &Plan, what: &str) {
        let before = self.blobs();
        block_on(self.receiver.collect_garbage()).unwrap_or_else(|error| panic!("{what}: {error}"));
        let holding = plan
            .releases
            .iter()
            .filter(|release| self.record(release).is_some_and(|record| record.holds_blobs));
        let needed: BTreeSet<Digest> = holding.flat_map(Release::digests).collect();
        let kept: BTreeSet<Digest> = before.intersection(&needed).copied().collect();
        let after = self.blobs();
        assert!(after.is_superset(&kept), "{what}: garbage collection took a blob that is needed");
        // The bytes of an upload that a crash cut off at its very end may have become a blob.
        assert!(after.is_subset(&needed), "{what}: garbage collection left a blob behind");
        self.check(plan, what);
    }

    /// With every bundle gone nothing is left: no blob, no claim, no mark.
    pub fn check_emptied(&self, plan: &Plan, what: &str) {
        for release in &plan.releases {
            block_on(self.receiver.remove(&release.offer.name, &release.offer.version)).unwrap();
        }
        block_on(self.receiver.collect_garbage()).unwrap();
        let left = self.snapshot();
        assert!(left.blobs.is_empty(), "{what}: blobs leak: {:?}", left.blobs);
        for key in left.records.keys() {
            let claim = key.starts_with(b"x\0") || key.starts_with(b"y\0");
            assert!(!claim, "{what}: a claim leaks: {}", key.escape_ascii());
        }
    }
}
