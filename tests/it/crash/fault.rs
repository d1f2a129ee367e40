//! The disk fills up or breaks at every single operation of the reference workload.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use distedge::error::ErrorKind;
use distedge::testing::sim::{Fault, OpKind, SimDisk};

use super::image::Reference;
use super::workload::{Entry, Station};

/// One operation of one step that fails, alone or with all that follow.
#[derive(Clone, Copy, Debug)]
struct Case {
    step: usize,
    kind: OpKind,
    number: u64,
    fault: Fault,
    lasting: bool,
}

impl Reference {
    /// The disk as it is before a step.
    pub fn disk_before(&self, step: usize) -> SimDisk {
        let point = step.checked_sub(1).map_or(0, |before| self.done[before]);
        self.disk.crash_image(point, 1)
    }

    fn cases(&self) -> Vec<Case> {
        let mut cases = Vec::new();
        for step in 0..self.done.len() {
            let disk = self.disk_before(step);
            let station = Station::open(&disk, step).unwrap();
            let before = OpKind::ALL.map(|kind| disk.count(kind));
            station.run(&self.plan, step, &mut || (), &mut drop).unwrap();
            for (kind, before) in OpKind::ALL.into_iter().zip(before) {
                for number in 1..=disk.count(kind) - before {
                    for (fault, lasting) in
                        [(Fault::Io, false), (Fault::NoSpace, false), (Fault::NoSpace, true)]
                    {
                        cases.push(Case { step, kind, number, fault, lasting });
                    }
                }
            }
        }
        cases
    }

    /// What was acknowledged before the step, and in it; the rest of the step was tried.
    fn told(&self, step: usize, acknowledged: &[super::workload::Act]) -> Vec<Entry> {
        let start = step.checked_sub(1).map_or(0, |before| self.done[before]);
        let end = self.done[step];
        let known = self.journal.iter().filter(|entry| entry.done <= end);
        let told = known.map(|entry| {
            let done = entry.done <= start || acknowledged.contains(&entry.act);
            Entry { act: entry.act.clone(), begun: 0, done: if done { 0 } else { usize::MAX } }
        });
        told.collect()
    }
}

fn play(reference: &Reference, case: Case) -> &'static str {
    let Case { step, kind, number, fault, lasting } = case;
    let plan = &reference.plan;
    let what = format!("{case:?}");
    let disk = reference.disk_before(step);
    let station = Station::open(&disk, step).unwrap();
    if lasting {
        disk.fail_from(kind, number, fault);
    } else {
        disk.fail_nth(kind, number, fault);
    }
    let mut acknowledged = Vec::new();
    let result = station.run(plan, step, &mut || (), &mut |act| acknowledged.push(act));
    disk.heal();
    let told = reference.told(step, &acknowledged);
    // The power goes right then: what was acknowledged is there, what was not is whole or absent.
    for seed in [0, 1, 7] {
        let what = format!("{what}, power cut, seed {seed}");
        let image = disk.crash_image(disk.points(), seed);
        let station = Station::open(&image, step).unwrap_or_else(|error| panic!("{what}: {error}"));
        station.check_standing(plan, &told, 1, false, &what);
        station.check(plan, &what);
        reference.go_on(&station, step, false, &what);
        station.check(plan, &what);
    }
    let Err(error) = result else {
        station.check_standing(plan, &told, 1, false, &what);
        reference.go_on(&station, step, false, &what);
        return "did not matter";
    };
    assert!(
        [ErrorKind::Io, ErrorKind::NoSpace].contains(&error.kind()),
        "{what}: not told as a fault of the disk: {error}"
    );
    // The fault is gone: the edge goes on, at the latest after a restart.
    let again = station.run(plan, step, &mut || (), &mut drop);
    let (station, way) = match again {
        Ok(()) => (station, "gone on at once"),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Io, "{what}, again: {error}");
            drop(station);
            let station =
                Station::open(&disk, step).unwrap_or_else(|error| panic!("{what}, restart: {error}"));
            (station, "gone on after a restart")
        }
    };
    station.check_standing(plan, &told, 1, true, &what);
    reference.go_on(&station, step, false, &what);
    station.check(plan, &what);
    drop(station);
    // And the power goes after all: what was acknowledged since then is there as well.
    let all: Vec<_> = told.iter().map(|entry| entry.act.clone()).collect();
    let told = reference.told(step, &all);
    for seed in [0, 1, 7] {
        let what = format!("{what}, {way}, then a power cut, seed {seed}");
        let image = disk.crash_image(disk.points(), seed);
        let station = Station::open(&image, step).unwrap_or_else(|error| panic!("{what}: {error}"));
        station.check_standing(plan, &told, 1, false, &what);
        station.check(plan, &what);
    }
    way
}

#[test]
fn a_disk_that_fails_at_any_operation_makes_no_false_promise() {
    let started = Instant::now();
    let reference = Reference::record();
    let cases = reference.cases();
    let (next, counts) = (AtomicUsize::new(0), Mutex::new(BTreeMap::<String, u64>::new()));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let way = play(&reference, *case);
                    let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
                    *counts.entry(format!("{:?}", case.kind)).or_default() += 1;
                    *counts.entry(way.to_owned()).or_default() += 1;
                }
            });
        }
    });
    let seconds = started.elapsed().as_secs_f64();
    println!("{} faults in {seconds:.0} s: {:?}", cases.len(), counts.lock().unwrap());
    assert!(cases.len() > 1000);
}
