//! Patches that lie, media that fail, and inputs that are made to be slow.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::medium::{ReadAt, Scratch, Spool};
use super::patch::Details;
use super::space::Space;
use super::tests::{base, gzip, tar, text, zip};
use super::wire::put;
use super::*;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};

/// A patch against `old` whose control and data somebody made up.
fn forged(old: &[u8], size: u64, control: &[u8], data: &[u8]) -> Vec<u8> {
    let old = old.to_vec();
    let limits = Limits::default();
    let space = Space::open(&[&old], &[], &MemoryScratch, &limits).unwrap();
    let frame = lz::compress(&space.shape(), control, lz::Search::Fast).unwrap();
    let mut artefact = Header {
        method: Method::Patch,
        size,
        digest: Digest::of(b"something"),
        bases: vec![Digest::of(&old)],
    }
    .to_bytes();
    let details = Details {
        limits,
        splits: Vec::new(),
        control: control.len() as u64,
        control_frame: frame.len() as u64,
    };
    details.write(&mut artefact);
    [&artefact[..], &frame, data].concat()
}

/// What applying says of a patch that makes one leaf of `target` bytes by these columns of ops.
fn refused(old: &[u8], target: u64, ops: &[u8], data: &[u8]) -> Error {
    let mut control = Vec::new();
    let mut recipe = vec![1, 0, 0, 0];
    put(&mut recipe, target);
    put(&mut control, recipe.len() as u64);
    control.extend(recipe);
    control.extend(ops);
    let artefact = forged(old, target, &control, data);
    let bases = [(Digest::of(old), base(old).data)];
    apply(&artefact, &bases, &Limits::default(), &MemoryScratch, &mut std::io::sink()).unwrap_err()
}

/// Ops as columns: tags, jumps, lengths, runs, adds.
fn columns(columns: [&[u8]; 5]) -> Vec<u8> {
    let mut out = Vec::new();
    columns.iter().for_each(|column| put(&mut out, column.len() as u64));
    columns.iter().for_each(|column| out.extend_from_slice(column));
    // No values that are added.
    out.push(0);
    out
}

#[test]
fn a_small_control_does_not_become_a_large_list() {
    let old = text(1, 5000);
    // Three million new stretches of nothing: a few hundred bytes, and hundreds of megabytes of ops.
    let many = 3 << 20;
    let ops = columns([&vec![4; many], &[], &vec![0; many], &vec![0; many], &[]]);
    let error = refused(&old, 0, &ops, &[]);
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    // One op with as many runs of nothing.
    let mut runs = Vec::new();
    put(&mut runs, many as u64);
    runs.resize(runs.len() + 3 * many, 0);
    let error = refused(&old, 1, &columns([&[4], &[], &[1], &runs, &[]]), &[]);
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
}

#[test]
fn frames_that_are_far_longer_than_what_they_make_are_not_read() {
    let old = text(1, 5000);
    let mut ops = columns([&[4], &[], &[1], &[0], &[]]);
    put(&mut ops, 200_000);
    let error = refused(&old, 1, &ops, &vec![0; 200_000]);
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
}

#[test]
fn a_long_binary_is_not_worked_through_for_a_byte() {
    let old = text(1, 5000);
    let mut lengths = Vec::new();
    wire::put_signed(&mut lengths, 64 - 5000);
    let error = refused(&old, 64, &columns([&[5], &[], &lengths, &[], &[]]), &[]);
    assert!(error.message().contains("next to nothing"), "{error}");
}

#[test]
fn compressed_blobs_of_whole_buffers_come_back() {
    for size in [(128 << 10) - 1, 128 << 10, 256 << 10, 384 << 10] {
        let blob = text(3, size);
        let budget = Budget { effort: 0, ..Budget::default() };
        let made = plan(&blob, &[], &budget, &Limits::default(), &MemoryScratch, &|_| {}).unwrap();
        assert_eq!(made.method, Method::Compressed);
        let mut out = Vec::new();
        apply(&*made.artefact, &[], &Limits::default(), &MemoryScratch, &mut out).unwrap();
        assert!(out == blob);
    }
}

/// Fails from the given call on; counts calls.
#[derive(Clone, Debug)]
struct Failing {
    calls: Arc<AtomicU64>,
    fails: u64,
}

impl Failing {
    fn at(fails: u64) -> Failing {
        Failing { calls: Arc::default(), fails }
    }

    fn step(&self) -> Result<()> {
        match self.calls.fetch_add(1, Ordering::Relaxed) >= self.fails {
            true => Err(Error::new(ErrorKind::NoSpace, "the disk is full")),
            false => Ok(()),
        }
    }
}

impl Scratch for Failing {
    fn spool(&self) -> Result<Box<dyn Spool>> {
        self.step()?;
        Ok(Box::new(FailingSpool(self.clone(), Vec::new())))
    }
}

#[derive(Debug)]
struct FailingSpool(Failing, Vec<u8>);

impl Spool for FailingSpool {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.step()?;
        Spool::append(&mut self.1, bytes)
    }
}

impl ReadAt for FailingSpool {
    fn size(&self) -> u64 {
        self.1.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.0.step()?;
        self.1.read_at(buffer, offset)
    }
}

fn package(seed: u64) -> Vec<u8> {
    let members: Vec<(String, Vec<u8>)> =
        (0..4).map(|i| (format!("p/{i}.txt"), text(i + 9 + seed / (i + 1), 3000))).collect();
    gzip(
        &tar(&[members, vec![("p/inner.zip".into(), zip(&[("a".into(), text(seed, 2000))], 1, 6))]].concat()),
        6,
    )
}

#[test]
fn a_scratch_that_fails_anywhere_gives_an_error_or_the_blob() {
    let (old, new) = (package(1), package(2));
    let budget = Budget { effort: 3, ..Budget::default() };
    let limits = Limits::default();
    let counting = Failing::at(u64::MAX);
    let good = plan(&new, &[base(&old)], &budget, &limits, &counting, &|_| {}).unwrap();
    assert_eq!(good.method, Method::Patch);
    let artefact = {
        let mut bytes = vec![0; good.artefact.size() as usize];
        good.artefact.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    };
    let bases = [(Digest::of(&old), base(&old).data)];
    let steps = counting.calls.load(Ordering::Relaxed);
    let (mut failed, mut full) = (0, 0);
    for at in (0..steps).step_by((steps / 40).max(1) as usize) {
        match plan(&new, &[base(&old)], &budget, &limits, &Failing::at(at), &|_| {}) {
            Err(error) => {
                failed += 1;
                full += u64::from(error.kind() == ErrorKind::NoSpace);
            }
            Ok(made) => {
                // What was made before the medium failed can still be read elsewhere.
                assert_ne!(made.method, Method::Whole, "{}", made.why);
            }
        }
    }
    assert!(failed > 0 && failed == full, "{failed} {full}");
    let counting = Failing::at(u64::MAX);
    apply(&artefact, &bases, &limits, &counting, &mut Vec::new()).unwrap();
    let steps = counting.calls.load(Ordering::Relaxed);
    for at in 0..steps {
        let mut out = Vec::new();
        let error = apply(&artefact, &bases, &limits, &Failing::at(at), &mut out).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{at}: {error}");
        assert!(out.len() < new.len() || out == new);
    }
}

/// A base that is another one, or shorter, from some call on.
#[derive(Debug)]
struct Changing {
    bytes: Vec<u8>,
    calls: AtomicU64,
    at: u64,
    cut: bool,
}

impl ReadAt for Changing {
    fn size(&self) -> u64 {
        self.bytes.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let changed = self.calls.fetch_add(1, Ordering::Relaxed) >= self.at;
        match (changed, self.cut) {
            (true, true) => self.bytes[..self.bytes.len() / 2].read_at(buffer, offset),
            (true, false) => {
                let read = self.bytes.read_at(buffer, offset)?;
                buffer[..read].iter_mut().for_each(|byte| *byte ^= 1);
                Ok(read)
            }
            _ => self.bytes.read_at(buffer, offset),
        }
    }
}

#[test]
fn a_base_that_changes_under_way_gives_an_error_or_the_blob() {
    let (old, new) = (package(1), package(2));
    let budget = Budget { effort: 2, ..Budget::default() };
    let limits = Limits::default();
    let good = plan(&new, &[base(&old)], &budget, &limits, &MemoryScratch, &|_| {}).unwrap();
    for cut in [false, true] {
        for at in (0..200).step_by(3) {
            let changing = || -> Arc<dyn ReadAt> {
                Arc::new(Changing { bytes: old.clone(), calls: AtomicU64::new(0), at, cut })
            };
            let mut out = Vec::new();
            let bases = [(Digest::of(&old), changing())];
            match apply(&*good.artefact, &bases, &limits, &MemoryScratch, &mut out) {
                Ok(_) => assert!(out == new),
                Err(error) => assert!(!error.message().is_empty()),
            }
            if at % 9 == 0 {
                let changing = Base { digest: Digest::of(&old), data: changing() };
                // It travels somehow; a patch of what is gone is not given out.
                let made = plan(&new, &[changing], &budget, &limits, &MemoryScratch, &|_| {});
                if let Ok(made) = made {
                    let bases = [(Digest::of(&old), base(&old).data)];
                    let mut out = Vec::new();
                    let applied = apply(&*made.artefact, &bases, &limits, &MemoryScratch, &mut out);
                    assert!(applied.is_err() || out == new);
                    assert!(made.method == Method::Patch || applied.is_ok(), "{}", made.why);
                }
            }
        }
    }
}

#[test]
fn dismantled_patches_are_followed() {
    let (old, new) = (package(1), package(2));
    let made = plan(&new, &[base(&old)], &Budget::default(), &check::SMALL, &MemoryScratch, &|_| {}).unwrap();
    assert_eq!(made.method, Method::Patch);
    let mut artefact = vec![0; made.artefact.size() as usize];
    made.artefact.read_exact_at(&mut artefact, 0).unwrap();
    let parts = check::dismantle(&old, &artefact).unwrap();
    assert!(check::reapply(&old, &parts).unwrap() == new);
}

#[test]
fn sections_that_lie_over_each_other_are_not_all_read() {
    // A program whose every section is the whole file, full of relocations.
    let mut program = vec![0; 40_000];
    program[..6].copy_from_slice(b"\x7fELF\x02\x01");
    (program[16], program[18], program[32], program[40], program[56]) = (3, 62, 64, 120, 1);
    program[60..62].copy_from_slice(&500_u16.to_le_bytes());
    (program[64], program[68]) = (1, 4);
    program[96..98].copy_from_slice(&40_000_u16.to_le_bytes());
    program[104..108].copy_from_slice(&u32::MAX.to_le_bytes());
    for at in (120..120 + 500 * 64).step_by(64) {
        program[at + 4] = 4;
        program[at + 32..at + 34].copy_from_slice(&40_000_u16.to_le_bytes());
    }
    assert!(code::sites(&program) <= 2 * 40_000 / 24 * 2 + 40_000 / 4);
}

#[test]
fn thousands_of_small_binaries_are_not_all_tried_out() {
    let work = plan::Work::new(Budget { effort: 5, ..Budget::default() }, 10 << 20, &|_| {});
    let tried = (0..10_000).take_while(|_| work.try_out(30_000_000)).count();
    assert!((100..1000).contains(&tried), "{tried}");
    // What has to be done still can be.
    assert!(work.take(10 << 20, 1_200));
}

#[test]
fn encoders_that_do_not_fit_together_are_not_used_together() {
    let member = |seed| lz::compress(&[], &text(seed, 9000), lz::Search::Best).unwrap();
    let nested =
        |seed| lz::compress(&[], &[member(seed), text(seed + 1, 9000)].concat(), lz::Search::Best).unwrap();
    // One of these encoders fits, two do not.
    let limits = Limits { memory: 100 << 20, ..Limits::default() };
    let (old, new) = (nested(1), nested(2));
    let budget = Budget { effort: 9, ..Budget::default() };
    let made = plan(&new, &[base(&old)], &budget, &limits, &MemoryScratch, &|_| {}).unwrap();
    assert!(!made.why.contains("no patch could be made"), "{}", made.why);
}
