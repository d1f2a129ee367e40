//! Garbage collection while what it collects is published again, in 10,000 orders (L04). After each,
//! no committed bundle lacks a blob, and whatever was acknowledged is there.

use std::cell::RefCell;
use std::sync::Arc;

use bytes::Bytes;
use distedge::blob::MemoryBlobStore;
use distedge::catalog::BundleState;
use distedge::distribute::Receiver;
use distedge::error::{Error, ErrorKind, Result};
use distedge::meta::MemoryStore;
use distedge::testing::block_on;

use super::schedule::{Task, World, interleave, pausing};
use super::workload::{Plan, Station};

const DAY: usize = 24 * 60;
/// How often each scenario is played: 10,000 interleavings in all.
const RUNS: u64 = 1250;

/// What a task does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Collect,
    /// Offers, uploads and commits, again and again until it is done or refused for good.
    Take(usize),
    Remove(usize),
    /// Sends the trust document that withdraws bundle 0.
    Withdraw,
    /// Removes, collects and offers again, without uploading.
    Recycle(usize),
    Commit(usize),
}

/// What is there before, and what runs against each other.
struct Scenario {
    committed: &'static [usize],
    /// Offered, and all blobs sent.
    prepared: &'static [usize],
    removed: &'static [usize],
    /// How many minutes later.
    later: usize,
    works: &'static [Work],
}

use Work::{Collect, Commit, Recycle, Remove, Take, Withdraw};

/// A run, and what was acknowledged in it.
struct Run<'a> {
    plan: &'a Plan,
    station: Station,
    acknowledged: RefCell<Vec<(usize, Bytes)>>,
    retries: RefCell<u64>,
}

impl Run<'_> {
    fn receiver(&self) -> &Receiver {
        &self.station.receiver
    }

    async fn work(&self, work: Work) {
        let failed = match work {
            Collect => match self.receiver().collect_garbage().await {
                // Another one collects.
                Err(error) if error.kind() == ErrorKind::Conflict => None,
                result => result.err(),
            },
            Take(which) => self.take(which).await.err(),
            Remove(which) => self.remove(which).await.err(),
            Withdraw => self.receiver().accept_trust(self.plan.trust[1].clone()).await.err(),
            Recycle(which) => self.recycle(which).await.err(),
            Commit(which) => match self.commit(which).await {
                // It was gone, or its blobs were.
                Err(error) if [ErrorKind::NotFound, ErrorKind::Conflict].contains(&error.kind()) => None,
                result => result.err(),
            },
        };
        assert!(failed.is_none(), "{work:?}: {failed:?}");
    }

    async fn remove(&self, which: usize) -> Result<()> {
        let offer = &self.plan.releases[which].offer;
        self.receiver().remove(&offer.name, &offer.version).await.map(drop)
    }

    async fn recycle(&self, which: usize) -> Result<()> {
        self.remove(which).await?;
        match self.receiver().collect_garbage().await {
            Err(error) if error.kind() != ErrorKind::Conflict => return Err(error),
            _ => {}
        }
        self.receiver().offer(&self.plan.releases[which].offer.envelope).await.map(drop)
    }

    async fn commit(&self, which: usize) -> Result<()> {
        let offer = &self.plan.releases[which].offer;
        let receipt = self.receiver().commit(&offer.name, &offer.version).await?;
        self.acknowledged.borrow_mut().push((which, receipt));
        Ok(())
    }

    async fn take(&self, which: usize) -> Result<()> {
        for _ in 0..1000 {
            match self.take_once(which).await {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Gone => return Ok(()),
                Err(error) if passing(&error) => *self.retries.borrow_mut() += 1,
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(ErrorKind::Internal, "no end of retries"))
    }

    async fn take_once(&self, which: usize) -> Result<()> {
        let answer = self.receiver().offer(&self.plan.releases[which].offer.envelope).await?;
        for want in answer.want {
            self.station.send(self.plan, &want.digest).await?;
        }
        self.commit(which).await
    }
}

/// What a source tries again: a lost race, a digest that is being collected, an upload of the same
/// blob, an offer that was given up meanwhile.
fn passing(error: &Error) -> bool {
    [ErrorKind::Conflict, ErrorKind::Unavailable, ErrorKind::NotFound].contains(&error.kind())
}

impl Scenario {
    fn world(&self, plan: &Plan) -> World {
        let (store, blobs) = (MemoryStore::new(), MemoryBlobStore::new());
        let station = Station::over(Arc::new(store.clone()), Arc::new(blobs.clone()), 0).unwrap();
        let run = Run { plan, station, acknowledged: RefCell::default(), retries: RefCell::default() };
        block_on(async {
            run.receiver().accept_trust(plan.trust[0].clone()).await.unwrap();
            for which in self.committed {
                run.take(*which).await.unwrap();
            }
            for which in self.removed {
                run.remove(*which).await.unwrap();
            }
            for which in self.prepared {
                let answer = run.receiver().offer(&plan.releases[*which].offer.envelope).await.unwrap();
                for want in answer.want {
                    run.station.send(plan, &want.digest).await.unwrap();
                }
            }
        });
        World::of(&store, &blobs)
    }

    /// One interleaving; answers how often tasks were switched and calls had to be made again.
    fn play(&self, plan: &Plan, world: &World, seed: u64) -> (usize, u64) {
        let what = format!("seed {seed}");
        let (store, blobs) = world.copy();
        let (paused, pausing_blobs) = pausing(&store, &blobs);
        let station = Station::over(paused, pausing_blobs, self.later).unwrap();
        let run = Run { plan, station, acknowledged: RefCell::default(), retries: RefCell::default() };
        let tasks = self.works.iter().map(|work| Box::pin(run.work(*work)) as Task<'_>).collect();
        let switches = interleave(tasks, seed);
        let plain = Station::over(Arc::new(store), Arc::new(blobs), self.later).unwrap();
        plain.check(plan, &what);
        for (which, receipt) in run.acknowledged.borrow().iter() {
            let withdrawn = *which == 0 && self.works.contains(&Withdraw);
            if withdrawn || self.works.contains(&Remove(*which)) || self.works.contains(&Recycle(*which)) {
                continue;
            }
            let release = &plan.releases[*which];
            let state = plain.record(release).map(|record| record.state);
            assert_eq!(state, Some(BundleState::Committed), "{what}: acknowledged and lost");
            let kept =
                block_on(plain.receiver.catalog().receipt(&release.offer.name, &release.offer.version));
            assert_eq!(kept.unwrap().as_ref(), Some(receipt), "{what}");
        }
        plain.check_collection(plan, &what);
        if seed.is_multiple_of(8) {
            plain.check_emptied(plan, &what);
        }
        (switches, run.retries.into_inner())
    }

    fn play_all(&self) {
        let plan = Plan::reference();
        let world = self.world(&plan);
        let (mut switches, mut retries) = (0, 0);
        for seed in 0..RUNS {
            let (switched, again) = self.play(&plan, &world, seed);
            switches += switched;
            retries += again;
        }
        println!("{RUNS} interleavings, {switches} switches, {retries} calls made again");
    }
}

#[test]
fn a_digest_that_was_just_freed_is_needed_again() {
    let works = &[Collect, Take(2)];
    Scenario { committed: &[0], prepared: &[], removed: &[0], later: 1, works }.play_all();
}

#[test]
fn a_bundle_that_shares_a_blob_goes_while_another_comes() {
    let works = &[Collect, Take(1), Remove(0)];
    Scenario { committed: &[0], prepared: &[], removed: &[], later: 1, works }.play_all();
}

/// An operator asked for a collection while the nightly one ran. Each first finished what it took
/// for the leavings of a crash: the second ended the collection of a blob that the first had only
/// marked. A bundle claimed and uploaded that blob, and then the first removed it, with the claim.
#[test]
fn a_second_collection_does_not_free_what_the_first_is_about_to_remove() {
    let works = &[Collect, Collect, Take(0)];
    Scenario { committed: &[0], prepared: &[], removed: &[0], later: 1, works }.play_all();
}

/// A commit had seen every blob. Then the bundle was removed, its blobs were collected, and it was
/// offered anew; to the commit it looked prepared as before, and it made it visible without them.
#[test]
fn a_commit_is_void_when_the_bundle_was_offered_anew_under_it() {
    let works = &[Commit(2), Recycle(2)];
    Scenario { committed: &[], prepared: &[2], removed: &[], later: 1, works }.play_all();
}

/// An offer was a week old when its last blob came. The collector had read that it was not
/// complete, and took it off after the receipt had been returned.
#[test]
fn an_old_offer_that_was_just_committed_is_not_given_up() {
    let works = &[Collect, Take(2)];
    Scenario { committed: &[], prepared: &[2], removed: &[], later: 8 * DAY, works }.play_all();
}

#[test]
fn a_bundle_is_withdrawn_while_another_that_shares_its_blobs_comes() {
    let works = &[Collect, Withdraw, Take(2)];
    Scenario { committed: &[0], prepared: &[], removed: &[], later: 1, works }.play_all();
}

#[test]
fn a_bundle_is_withdrawn_while_it_is_taken() {
    let works = &[Take(0), Withdraw, Collect];
    Scenario { committed: &[2], prepared: &[], removed: &[2], later: 1, works }.play_all();
}

#[test]
fn everything_at_once() {
    let works = &[Collect, Remove(0), Take(2), Take(1)];
    Scenario { committed: &[0, 2], prepared: &[], removed: &[2], later: 1, works }.play_all();
}
