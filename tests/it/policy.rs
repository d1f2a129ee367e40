//! Policies against their slow model.

use std::collections::BTreeMap;

use distedge::policy::{CompiledPolicy, Document};
use serde_json::json;

use crate::fuzz_replay::oracle::{Draw, compare, some_document, some_request};

/// Bytes that look like chance and are the same at every run.
struct Chance(u64);

impl Chance {
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let next = || {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 32) as u8
        };
        std::iter::repeat_with(next).take(count).collect()
    }
}

#[test]
fn a_hundred_thousand_decisions_equal_the_model_s() {
    let mut chance = Chance(0x5eed_0001);
    let mut told: BTreeMap<&str, usize> = BTreeMap::new();
    for _ in 0..2_000 {
        let document = some_document(&mut Draw::new(&chance.bytes(400)));
        let policy = CompiledPolicy::new(Document::from_value(&document).unwrap());
        for _ in 0..50 {
            let request = some_request(&mut Draw::new(&chance.bytes(40)));
            *told.entry(compare(&document, &policy, &request)).or_default() += 1;
        }
    }
    println!("{told:?}");
    assert_eq!(told.values().sum::<usize>(), 100_000);
    assert!(["permit", "unseen", "forbid", "steer"].iter().all(|kind| told[kind] > 500), "{told:?}");
}

#[test]
fn a_hundred_thousand_steerings_equal_the_model_s() {
    let mut chance = Chance(0x5eed_0002);
    let (mut steered, mut decided) = (0, 0);
    while steered < 100_000 {
        let mut document = some_document(&mut Draw::new(&chance.bytes(400)));
        document["restrict"] = json!([]);
        if document["steer"].as_array().is_none_or(Vec::is_empty) {
            continue;
        }
        let policy = CompiledPolicy::new(Document::from_value(&document).unwrap());
        for _ in 0..500 {
            let request = some_request(&mut Draw::new(&chance.bytes(40))).permitted();
            decided += 1;
            if matches!(compare(&document, &policy, &request), "steer" | "forbid") {
                steered += 1;
            }
        }
    }
    println!("{steered} of {decided} requests were steered or refused by a steering rule");
}
