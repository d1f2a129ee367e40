//! Random batches: the metadata stores and a plain map agree on every answer.

use std::collections::BTreeMap;

use bytes::Bytes;
use distedge::error::{ErrorKind, Result};
use distedge::meta::{Batch, Entry, Expectation, MemoryStore, MetadataStore, RedbStore, Revision};
use distedge::testing::block_on;
use distedge::testing::sim::SimDisk;
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Commit { expectations: Vec<(u8, Demand)>, changes: Vec<(u8, Option<Vec<u8>>)> },
    Scan { start: u8, end: u8, limit: usize },
    Get(u8),
    Reopen,
}

#[derive(Clone, Copy, Debug)]
enum Demand {
    Absent,
    AsItIs,
    At(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..12u8;
    let demand = prop_oneof![
        1 => Just(Demand::Absent),
        3 => Just(Demand::AsItIs),
        1 => (0..30u64).prop_map(Demand::At),
    ];
    let value = prop_oneof![4 => vec(any::<u8>(), 0..20), 1 => vec(any::<u8>(), 5000..9000)];
    prop_oneof![
        5 => (vec((key.clone(), demand), 0..3), vec((key.clone(), proptest::option::of(value)), 0..6))
            .prop_map(|(expectations, changes)| Step::Commit { expectations, changes }),
        3 => (key.clone(), key.clone(), 0..15usize)
            .prop_map(|(start, end, limit)| Step::Scan { start, end, limit }),
        2 => key.prop_map(Step::Get),
        1 => Just(Step::Reopen),
    ]
}

fn key(number: u8) -> Bytes {
    // Of different lengths, some of them prefixes of others.
    b"kkkkk/kkkkkk"[..usize::from(number) + 1].to_vec().into()
}

#[derive(Default)]
struct Model {
    records: BTreeMap<Bytes, (Bytes, u64)>,
    last: u64,
}

impl Model {
    fn batch(&self, expectations: &[(u8, Demand)], changes: &[(u8, Option<Vec<u8>>)]) -> (Batch, bool) {
        let mut batch = Batch::new();
        let mut met = true;
        for (number, demand) in expectations {
            let found = self.records.get(&key(*number)).map(|(_, revision)| *revision);
            let expectation = match (demand, found) {
                (Demand::Absent, _) | (Demand::AsItIs, None) => Expectation::Absent,
                (Demand::AsItIs, Some(revision)) => Expectation::At(Revision(revision)),
                (Demand::At(revision), _) => Expectation::At(Revision(*revision)),
            };
            met &= match expectation {
                Expectation::Absent => found.is_none(),
                Expectation::At(revision) => found == Some(revision.0),
            };
            batch.expect(key(*number), expectation);
        }
        for (number, value) in changes {
            match value {
                Some(value) => batch.put(key(*number), value.clone()),
                None => batch.delete(key(*number)),
            };
        }
        (batch, met)
    }

    fn entry(&self, number: u8) -> Option<Entry> {
        let key = key(number);
        let (value, revision) = self.records.get(&key)?.clone();
        Some(Entry { key, value, revision: Revision(revision) })
    }

    fn scan(&self, start: u8, end: u8, limit: usize) -> Vec<Entry> {
        let mut entries: Vec<Entry> = (0..12).filter_map(|number| self.entry(number)).collect();
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        entries.retain(|entry| key(start) <= entry.key && entry.key < key(end));
        entries.truncate(limit);
        entries
    }
}

fn check(store: &dyn MetadataStore, model: &Model, step: &Step, result: &Option<(Batch, bool)>) {
    match step {
        Step::Commit { .. } => {
            let (batch, met) = result.clone().unwrap();
            let done: Result<Revision> = block_on(store.commit(batch));
            match done {
                Ok(revision) => assert!(met && revision == Revision(model.last + 1), "{revision:?}"),
                Err(error) => assert!(!met && error.kind() == ErrorKind::Conflict, "{error}"),
            }
        }
        Step::Scan { start, end, limit } => {
            let (from, to) = (key(*start), key(*end));
            let found = block_on(store.scan(&from[..]..&to[..], *limit)).unwrap();
            assert_eq!(found, model.scan(*start, *end, *limit));
        }
        Step::Get(number) => {
            assert_eq!(block_on(store.get(&key(*number))).unwrap(), model.entry(*number));
        }
        Step::Reopen => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn stores_and_model_give_the_same_answers(steps in vec(step(), 1..40)) {
        let disk = SimDisk::new();
        let mut redb: RedbStore = disk.redb("/meta.redb").unwrap();
        let memory = MemoryStore::new();
        let mut model = Model::default();
        for step in &steps {
            let commit = match step {
                Step::Commit { expectations, changes } => Some(model.batch(expectations, changes)),
                _ => None,
            };
            check(&memory, &model, step, &commit);
            check(&redb, &model, step, &commit);
            if let (Step::Commit { changes, .. }, Some((_, true))) = (step, commit) {
                model.last += 1;
                for (number, value) in changes {
                    match value {
                        Some(value) => {
                            model.records.insert(key(*number), (value.clone().into(), model.last));
                        }
                        None => {
                            model.records.remove(&key(*number));
                        }
                    }
                }
            }
            if matches!(step, Step::Reopen) {
                drop(redb);
                redb = disk.redb("/meta.redb").unwrap();
            }
        }
    }
}
