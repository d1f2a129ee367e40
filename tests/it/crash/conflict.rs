//! Two that want the same name at once: one wins, the others are told so (P4).

use std::sync::Arc;

use bytes::Bytes;
use distedge::blob::{BlobStoreExt as _, MemoryBlobStore};
use distedge::bundle::{Statement, TrustDocument, verify};
use distedge::catalog::{BundleState, Resolved};
use distedge::digest::Digest;
use distedge::distribute::{BundleOffer, Receiver};
use distedge::error::{ErrorKind, Result};
use distedge::meta::MemoryStore;
use distedge::testing::block_on;
use futures_util::{StreamExt as _, stream};

use super::schedule::{Task, World, interleave, pausing};
use super::workload::Station;
use crate::support::{House, NOW, name, path, repository};

/// How often each pair is played.
const ROUNDS: u64 = 1000;

/// Bundles of which an edge can hold only one, and a path that shows which.
struct Rivals {
    house: House,
    offers: Vec<BundleOffer>,
    shown: Vec<&'static str>,
    world: World,
}

impl Rivals {
    /// One bundle for each list of files, all of them assigned.
    fn new(files: &[(&'static str, &'static str)]) -> Rivals {
        let mut house = House::new(&["e1"]);
        block_on(async {
            for (number, (path, bytes)) in files.iter().enumerate() {
                let own = format!("own/{number}");
                let bundle = format!("rival{number}");
                let mut builder = House::statement(&bundle, "1.0", 1);
                builder = builder.item(house.item("files", &own, own.as_bytes()).await);
                builder = match bytes.strip_prefix("-> ") {
                    Some(_) => {
                        let (folder, alias) = path.rsplit_once('/').unwrap();
                        builder.alias(name("files"), name(folder), alias, name(&own))
                    }
                    None => builder.item(house.item("files", path, bytes.as_bytes()).await),
                };
                let offer = house.sign(&builder.build().unwrap());
                house.assign(offer);
            }
        });
        let offers = house.bundles.values().cloned().collect();
        let (store, blobs) = (MemoryStore::new(), MemoryBlobStore::new());
        let station = Station::over(Arc::new(store.clone()), Arc::new(blobs.clone()), 0).unwrap();
        block_on(station.receiver.accept_trust(house.next_trust())).unwrap();
        let shown = files.iter().map(|(path, _)| *path).collect();
        Rivals { world: World::of(&store, &blobs), house, offers, shown }
    }

    async fn take(&self, receiver: &Receiver, offer: &BundleOffer) -> Result<Bytes> {
        let answer = receiver.offer(&offer.envelope).await?;
        for want in answer.want {
            let bytes = self.house.blobs.read(&want.digest, u64::MAX).await?.unwrap();
            receiver.upload(&want.digest, 0, stream::iter([Ok(bytes)]).boxed()).await?;
        }
        receiver.commit(&offer.name, &offer.version).await
    }

    /// All at once; answers who won.
    fn play(&self, seed: u64) -> usize {
        let (store, blobs) = self.world.copy();
        let (paused, pausing_blobs) = pausing(&store, &blobs);
        let station = Station::over(paused, pausing_blobs, 0).unwrap();
        let mut results: Vec<Option<Result<Bytes>>> = self.offers.iter().map(|_| None).collect();
        let takes = self.offers.iter().zip(&mut results).map(|(offer, result)| {
            let receiver = &station.receiver;
            Box::pin(async move { *result = Some(self.take(receiver, offer).await) }) as Task<'_>
        });
        interleave(takes.collect(), seed);
        let plain = Station::over(Arc::new(store), Arc::new(blobs), 0).unwrap();
        let catalog = plain.receiver.catalog();
        let mut winner = None;
        for (number, result) in results.into_iter().enumerate() {
            let (offer, result) = (&self.offers[number], result.unwrap());
            let record = block_on(catalog.bundle(&offer.name, &offer.version)).unwrap();
            let committed = record.is_some_and(|record| record.state == BundleState::Committed);
            assert_eq!(committed, result.is_ok(), "seed {seed}: {result:?}");
            let own =
                block_on(catalog.resolve(&repository("files"), &path(&format!("own/{number}")))).unwrap();
            assert_eq!(own.is_some(), committed, "seed {seed}: a part of the loser is visible");
            match result {
                Ok(_) => {
                    assert_eq!(winner.replace(number), None, "seed {seed}: two winners");
                    let shown = block_on(catalog.resolve(&repository("files"), &path(self.shown[number])));
                    assert!(matches!(shown, Ok(Some(Resolved::Artifact(_) | Resolved::Alias(..)))));
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "seed {seed}: {error}"),
            }
        }
        let events = block_on(catalog.events(100)).unwrap();
        let conflicts = events.iter().filter(|event| event.kind == "bundle.conflict").count();
        assert_eq!(conflicts, self.offers.len() - 1, "seed {seed}: {events:?}");
        winner.unwrap_or_else(|| panic!("seed {seed}: nobody won"))
    }

    fn play_all(&self) {
        let mut wins = vec![0; self.offers.len()];
        (0..ROUNDS).for_each(|seed| wins[self.play(seed)] += 1);
        println!("{ROUNDS} rounds, wins: {wins:?}");
        assert!(wins.iter().all(|wins| *wins > 0), "{wins:?}");
    }
}

#[test]
fn one_path_with_different_bytes_has_one_winner() {
    Rivals::new(&[("a/one", "first"), ("a/one", "second"), ("a/one", "third")]).play_all();
}

/// Each had looked whether the other's spelling was there, and neither expected it to stay away: on
/// a file system that folds case one of two committed files would have hidden the other.
#[test]
fn two_spellings_of_one_path_have_one_winner() {
    Rivals::new(&[("a/readme", "first"), ("a/README", "second"), ("a/ReadMe", "third")]).play_all();
}

/// The same between an artifact and an alias: the alias was committed and led nowhere.
#[test]
fn a_path_becomes_an_artifact_or_an_alias() {
    Rivals::new(&[("a/latest/app", "artifact"), ("a/latest/app", "-> own")]).play_all();
}

#[test]
fn one_name_and_version_with_different_statements_has_one_winner() {
    let house = House::new(&["e1"]);
    let offers: Vec<(BundleOffer, TrustDocument)> = (0..3)
        .map(|number| {
            let bytes = format!("content {number}");
            let item = block_on(house.item("files", &format!("a/{number}"), bytes.as_bytes()));
            let statement: Statement = House::statement("shop", "1.0", 1).item(item).build().unwrap();
            (house.sign(&statement), house.trust.clone())
        })
        .collect();
    let (store, blobs) = (MemoryStore::new(), MemoryBlobStore::new());
    drop(Station::over(Arc::new(store.clone()), Arc::new(blobs.clone()), 0).unwrap());
    let mut batch = distedge::meta::Batch::new();
    batch.put("unrelated", "record");
    block_on(distedge::meta::MetadataStore::commit(&store, batch)).unwrap();
    let world = World::of(&store, &blobs);
    let mut wins = [0; 3];
    for seed in 0..ROUNDS {
        let (store, blobs) = world.copy();
        let (paused, pausing_blobs) = pausing(&store, &blobs);
        let station = Station::over(paused, pausing_blobs, 0).unwrap();
        let catalog = station.receiver.catalog();
        let mut results: Vec<Option<Result<Digest>>> = vec![None, None, None];
        let tasks = offers.iter().zip(&mut results).map(|((offer, trust), result)| {
            Box::pin(async move {
                let verified = verify(&offer.envelope, trust, NOW).unwrap();
                let record = catalog.prepare(&verified, &offer.envelope, NOW).await;
                *result = Some(record.map(|record| record.digest));
            }) as Task<'_>
        });
        interleave(tasks.collect(), seed);
        let winners: Vec<usize> =
            (0..3).filter(|number| results[*number].as_ref().unwrap().is_ok()).collect();
        assert_eq!(winners.len(), 1, "seed {seed}: {results:?}");
        let offer = &offers[winners[0]].0;
        wins[winners[0]] += 1;
        for error in results.into_iter().flatten().filter_map(Result::err) {
            assert_eq!(error.kind(), ErrorKind::Conflict, "seed {seed}: {error}");
        }
        let plain = Station::over(Arc::new(store), Arc::new(blobs), 0).unwrap();
        let kept = block_on(plain.receiver.catalog().bundle(&offer.name, &offer.version)).unwrap().unwrap();
        assert_eq!(kept.digest, offer.digest, "seed {seed}");
        let envelope = block_on(plain.receiver.catalog().envelope(&offer.name, &offer.version)).unwrap();
        assert_eq!(envelope.as_ref(), Some(&offer.envelope), "seed {seed}");
    }
    println!("{ROUNDS} rounds, wins: {wins:?}");
}
