//! The power goes out at every moment of the reference workload.
//!
//! `DISTEDGE_CRASH_POINTS=100000` looks at that many crash images instead of 10,000.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use distedge::testing::sim::SimDisk;

use super::workload::{Entry, Plan, Snapshot, Station};

/// The workload, as it went without any trouble.
pub struct Reference {
    pub plan: Plan,
    pub disk: SimDisk,
    pub journal: Vec<Entry>,
    /// The crash point at which each step was done.
    pub done: Vec<usize>,
    /// What each step left.
    pub after: Vec<Snapshot>,
}

impl Reference {
    pub fn record() -> Reference {
        let plan = Plan::reference();
        let disk = SimDisk::new();
        let station = Station::open(&disk, 0).unwrap();
        disk.settle();
        let mut journal = Vec::new();
        let (mut done, mut after) = (Vec::new(), Vec::new());
        for step in 0..plan.steps.len() {
            // Both hear of the same act, one after the other.
            let begun = Cell::new(0);
            station
                .run(&plan, step, &mut || begun.set(disk.points()), &mut |act| {
                    journal.push(Entry { act, begun: begun.get(), done: disk.points() });
                })
                .unwrap();
            done.push(disk.points());
            after.push(station.snapshot());
        }
        let visible = station.check(&plan, "the workload");
        assert_eq!(visible, 2);
        Reference { plan, disk, journal, done, after }
    }

    /// The first step that was not done at `point`.
    fn interrupted(&self, point: usize) -> usize {
        self.done.iter().position(|done| *done > point).unwrap_or(self.done.len())
    }

    /// Goes on from `step`, after which all is as if nothing had happened.
    pub fn go_on(&self, station: &Station, step: usize, to_the_end: bool, what: &str) {
        let last = if to_the_end { self.done.len() } else { self.done.len().min(step + 1) };
        for step in step..last {
            station
                .run(&self.plan, step, &mut || (), &mut drop)
                .unwrap_or_else(|error| panic!("{what}: step {step} cannot be repeated: {error}"));
            let found = station.snapshot();
            assert_eq!(changes(&found, &self.after[step]), Vec::<String>::new(), "{what}: after step {step}");
            let unknown = found.blobs.iter().find(|digest| !self.plan.contents.contains_key(digest));
            assert_eq!(unknown, None, "{what}: after step {step}");
            if step + 1 == self.done.len() {
                assert_eq!(found.blobs, self.after[step].blobs, "{what}: at the end");
            }
        }
    }
}

/// Records that differ.
fn changes(found: &Snapshot, expected: &Snapshot) -> Vec<String> {
    let keys: BTreeSet<_> = found.records.keys().chain(expected.records.keys()).collect();
    let differ = keys.into_iter().filter(|key| found.records.get(*key) != expected.records.get(*key));
    let show = |snapshot: &Snapshot, key| {
        snapshot.records.get(key).map(|value: &bytes::Bytes| value.escape_ascii().to_string())
    };
    differ
        .map(|key| {
            format!("{}: {:?} instead of {:?}", key.escape_ascii(), show(found, key), show(expected, key))
        })
        .collect()
}

#[derive(Default)]
struct Counts(Mutex<BTreeMap<&'static str, u64>>);

impl Counts {
    fn add(&self, what: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default() += 1;
    }

    fn of(&self, what: &str) -> u64 {
        self.0.lock().unwrap().get(what).copied().unwrap_or_default()
    }
}

fn look(reference: &Reference, image: &SimDisk, point: usize, seed: u64, counts: &Counts) {
    let plan = &reference.plan;
    let what = format!("crash point {point}, seed {seed}");
    let step = reference.interrupted(point);
    let number = point as u64 + seed;
    let station = Station::open(image, step).unwrap_or_else(|error| panic!("{what}: {error}"));
    let recovered = image.points();
    station.check_standing(plan, &reference.journal, point, false, &what);
    if station.check(plan, &what) > 0 {
        counts.add("with visible bundles");
    }
    if number.is_multiple_of(2) {
        station.check_collection(plan, &what);
        counts.add("collected");
    }
    let to_the_end = number % 16 == 3;
    reference.go_on(&station, step, to_the_end, &what);
    station.check(plan, &what);
    counts.add(if to_the_end { "continued to the end" } else { "continued by a step" });
    if number % 16 == 5 {
        station.check_emptied(plan, &what);
        counts.add("emptied");
    }
    drop(station);
    if number % 8 == 1 {
        // The power goes a second time: while the edge starts, or in what it does after that.
        let after = image.points() - recovered;
        let second = match number / 8 % 4 {
            0 => recovered * (seed as usize % 7) / 7,
            1 => recovered - seed as usize % 6,
            _ => recovered + after * (seed as usize % 11) / 11,
        };
        let what = format!("{what}, then {second} of {recovered} and {after}, seed {}", seed + 3);
        let image = image.crash_image(second, seed + 3);
        let station = Station::open(&image, step).unwrap_or_else(|error| panic!("{what}: {error}"));
        station.check_standing(plan, &reference.journal, point, true, &what);
        station.check(plan, &what);
        reference.go_on(&station, step, false, &what);
        station.check(plan, &what);
        counts.add("cut twice");
    }
    counts.add("images");
}

#[test]
fn a_bundle_survives_every_crash_point_whole_or_not_at_all() {
    let wanted: u64 = match std::env::var("DISTEDGE_CRASH_POINTS") {
        Ok(number) => number.parse().expect("DISTEDGE_CRASH_POINTS is a number"),
        Err(_) => 10_000,
    };
    let started = Instant::now();
    let reference = Reference::record();
    let points = reference.disk.points() as u64 + 1;
    let seeds = wanted.div_ceil(points);
    let (next, counts) = (AtomicU64::new(0), Counts::default());
    let image = Mutex::new(());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    // Images are made in order, which is cheap.
                    let turn = image.lock().unwrap();
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let (point, seed) = ((number / seeds) as usize, number % seeds);
                    if number >= points * seeds {
                        return;
                    }
                    let image = reference.disk.crash_image(point, seed);
                    drop(turn);
                    look(&reference, &image, point, seed, &counts);
                }
            });
        }
    });
    println!(
        "{points} crash points x {seeds} seeds in {:.0} s: {:?}",
        started.elapsed().as_secs_f64(),
        counts.0.lock().unwrap()
    );
    assert!(counts.of("images") >= wanted);
    assert!(counts.of("with visible bundles") > 0 && counts.of("cut twice") > 0);
}
