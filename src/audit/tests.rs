//! The log as a whole: what it keeps, what a crash leaves, what an edit shows.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::access::{Identity, Principal};
use crate::clock::{Clock, Timestamp};
use crate::digest::Digest;
use crate::error::ErrorKind;
use crate::key::{Algorithm, PublicKey, Signer, SigningKey};
use crate::name::{ArtifactPath, BundleName, RepositoryName, Version};
use crate::testing::sim::{Fault, OpKind, SimDisk};
use crate::testing::{ManualClock, block_on};

const NOW: Timestamp = Timestamp::from_unix(1_795_323_600);
const ORIGIN: &str = "distedge/e1/default";

fn key() -> Arc<SigningKey> {
    Arc::new(SigningKey::generate(Algorithm::Ed25519, "", NOW).unwrap())
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(ManualClock::new(NOW))
}

fn small() -> LogOptions {
    LogOptions::default().with_sizes(16 << 10, 8 << 10, 4 << 10)
}

fn open(directory: &Path, key: &Arc<SigningKey>, options: LogOptions) -> TileLog {
    TileLog::open(directory, ORIGIN, key.clone(), clock(), options).unwrap()
}

fn on_disk(disk: &SimDisk, key: &Arc<SigningKey>, options: LogOptions) -> Result<TileLog> {
    TileLog::open_with(Arc::new(disk.clone()), "/log", ORIGIN, key.clone(), clock(), options)
}

fn alice() -> Principal {
    Principal::User(Arc::new(Identity {
        name: "alice".into(),
        credential: Some("eut1_7Q2x".into()),
        ..Identity::default()
    }))
}

/// The start or the end of a download.
fn download(kind: &'static str, request: u64) -> Event {
    let mut event = Event::new(NOW.plus(request as i64 / 100), kind, &alice());
    event.client = Some(format!("192.0.2.{}", request % 250).parse().unwrap());
    event.country = Some("DE".parse().unwrap());
    event.repository = Some(RepositoryName::new("generic-local").unwrap());
    event.path =
        Some(ArtifactPath::new(&format!("shop/app/1.4.{request}/app-1.4.{request}.tar.gz")).unwrap());
    event.digest = Some(Digest::of(&request.to_be_bytes()));
    event.bundle = Some(BundleName::new("shop").unwrap());
    event.version = Some(Version::new("1.4.0").unwrap());
    event.request = Some(request);
    if kind == kind::DOWNLOAD_END {
        (event.status, event.bytes, event.complete) = (Some(200), Some(4096), Some(true));
    }
    event
}

fn administrative(object: u64) -> Event {
    Event::new(NOW, kind::LINK_MINTED, &alice()).about(object.to_string())
}

/// Writes `n` downloads, start and end each.
fn fill(log: &TileLog, from: u64, n: u64) {
    for request in from..from + n {
        log.record(download(kind::DOWNLOAD_START, request)).unwrap();
        log.record(download(kind::DOWNLOAD_END, request)).unwrap();
    }
}

fn all(log: &TileLog) -> Vec<Entry<'static>> {
    let mut entries = Vec::new();
    log.entries(log.first(), |seq, bytes| {
        let entry = Entry::parse(bytes)?.into_owned();
        assert_eq!(entry.seq, seq);
        entries.push(entry);
        Ok(true)
    })
    .unwrap();
    entries
}

fn objects(log: &TileLog) -> BTreeSet<u64> {
    let minted = |entry: &Entry<'_>| {
        (entry.kind.as_str() == kind::LINK_MINTED).then(|| entry.about.as_ref()?.parse().ok())?
    };
    all(log).iter().filter_map(minted).collect()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            // The keeper may have renamed a file meanwhile.
            let _ = std::fs::copy(entry.path(), target);
        }
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn check(path: &Path, key: &PublicKey) -> Report {
    verify(path, &Trusted::key(key.clone()), NOW).unwrap()
}

#[test]
fn what_was_taken_is_read_back_and_verifies() {
    let directory = tempfile::tempdir().unwrap();
    let key = key();
    let log = open(directory.path(), &key, small());
    fill(&log, 0, 700);
    block_on(log.record_durable(administrative(7))).unwrap();
    let checkpoint = log.flush().unwrap();
    assert_eq!(checkpoint.size, 1402);
    assert_eq!(log.root(1402).unwrap(), checkpoint.root);
    let entries = all(&log);
    assert_eq!((entries.len(), entries[0].kind.as_str()), (1402, kind::AUDIT_OPENED));
    let (start, end) = (&entries[1], &entries[2]);
    assert_eq!((end.of, &end.who, &end.what), (Some(1), &None, &None));
    assert!(start.who.as_ref().unwrap().starts_with("user:~"));
    assert!(start.ip.as_ref().unwrap().starts_with("192.0.2.0/24~"));
    let people = log.people(&HashSet::from([start.p.as_ref().unwrap().to_string()])).unwrap();
    let person = people.values().next().unwrap();
    assert_eq!((person.who.as_str(), person.ip.unwrap().to_string().as_str()), ("user:alice", "192.0.2.0"));
    for (index, size) in [(0, 1), (5, 1402), (1401, 1402), (255, 256), (700, 1025)] {
        let proof = log.inclusion(index, size).unwrap();
        let leaf = crate::merkle::leaf(&log.entry(index).unwrap().encode());
        assert!(crate::merkle::verify_inclusion(&leaf, index, size, &proof, &log.root(size).unwrap()));
    }
    drop(log);
    let report = check(directory.path(), &key.public_key());
    assert_eq!((report.flaw.clone(), report.entries.clone(), report.unsigned()), (None, 0..1402, 0));

    let log = open(directory.path(), &key, small());
    assert_eq!((log.len(), log.root(1402).unwrap()), (1402, checkpoint.root));
    fill(&log, 1000, 300);
    let later = log.flush().unwrap();
    let proof = log.consistency(1402, later.size).unwrap();
    assert!(crate::merkle::verify_consistency(1402, &checkpoint.root, later.size, &later.root, &proof));
    assert!(check(directory.path(), &key.public_key()).is_good());
    assert!(TileLog::open(directory.path(), ORIGIN, key.clone(), clock(), small()).is_err(), "it is open");
}

#[test]
fn a_killed_process_loses_nothing_and_its_downloads_are_aborted() {
    let (directory, image) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let key = key();
    let log = open(directory.path(), &key, LogOptions::default());
    fill(&log, 0, 100);
    for request in 200..203 {
        log.record(download(kind::DOWNLOAD_START, request)).unwrap();
    }
    log.record(administrative(1)).unwrap();
    copy(directory.path(), image.path());
    let killed = open(image.path(), &key, LogOptions::default());
    let entries = all(&killed);
    assert_eq!(entries.len(), 1 + 200 + 3 + 1 + 3);
    let aborted: Vec<_> =
        entries[205..].iter().map(|entry| (entry.of, entry.res.as_ref().unwrap().complete)).collect();
    assert_eq!(aborted, [(Some(201), Some(false)), (Some(202), Some(false)), (Some(203), Some(false))]);
    drop(killed);
    // They are closed once.
    assert_eq!(open(image.path(), &key, LogOptions::default()).len(), 208);
    assert!(check(image.path(), &key.public_key()).is_good());
}

#[test]
fn text_of_strangers_stays_in_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path(), &key(), small());
    let mut event = Event::new(NOW, kind::AUTH_FAILED, &Principal::Anonymous);
    let agent = format!("\u{1b}[2J\r\n{{\"seq\":9}}\n\"\\\0{}", "x".repeat(8192));
    event = event.because(agent.clone()).about(agent);
    log.record(event).unwrap();
    let mut line = Vec::new();
    log.entries(1, |_, bytes| {
        line = bytes.to_vec();
        Ok(true)
    })
    .unwrap();
    assert!(line.iter().all(|byte| *byte >= b' ' && *byte != 0x7f) && line.len() < 2048);
    assert!(Entry::parse(&line).unwrap().res.unwrap().reason.unwrap().starts_with("\u{1b}[2J\r\n{"));
}

/// An edit of one place: the name of the first entry that it made bad, if that is known.
fn edit(
    directory: &Path,
    random: &mut impl FnMut(u64) -> u64,
    boundaries: &[(PathBuf, Vec<u64>)],
) -> &'static str {
    let (path, frames) = &boundaries[random(boundaries.len() as u64) as usize];
    let mut bytes = std::fs::read(path).unwrap();
    let frame = |at: u64| frames[at as usize] as usize..frames[at as usize + 1] as usize;
    let count = frames.len() as u64 - 1;
    let what = match random(6) {
        0 => {
            // Anywhere in what is signed: entries, hashes, the checkpoint.
            let all: Vec<PathBuf> = files(directory)
                .into_iter()
                .filter(|path| {
                    let path = path.to_string_lossy();
                    !path.contains("/person/") && !path.ends_with("/lock") && !path.contains("/spare")
                })
                .collect();
            let path = &all[random(all.len() as u64) as usize];
            let mut bytes = std::fs::read(path).unwrap();
            let at = random(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << random(8);
            std::fs::write(path, bytes).unwrap();
            return "flip";
        }
        1 => {
            let at = frames[0] + random(frames[count as usize] - frames[0]);
            bytes[at as usize] ^= 1 << random(8);
            "flip in an entry"
        }
        2 => {
            bytes.drain(frame(random(count)));
            "delete"
        }
        3 => {
            let (one, other) = (random(count), random(count));
            let (one, other) = (one.min(other), one.max(other));
            if one == other {
                bytes.drain(frame(one));
            } else {
                let (first, second) = (bytes[frame(one)].to_vec(), bytes[frame(other)].to_vec());
                bytes.splice(frame(other), first);
                bytes.splice(frame(one), second);
            }
            "swap"
        }
        4 => {
            let copied = bytes[frame(random(count))].to_vec();
            let at = frames[random(count) as usize] as usize;
            bytes.splice(at..at, copied);
            "insert"
        }
        _ => {
            bytes.truncate(frames[random(count) as usize] as usize);
            "cut"
        }
    };
    std::fs::write(path, bytes).unwrap();
    what
}

/// As an editor who knows the format would write them: with good checksums.
fn relinked(directory: &Path) {
    for path in files(&directory.join("segment")).iter().filter(|path| !path.ends_with("spare")) {
        let bytes = std::fs::read(path).unwrap();
        let Some(count) = bytes.get(16..20).map(|count| u32::from_le_bytes(count.try_into().unwrap())) else {
            continue;
        };
        let head = 24 + 8 * count as usize;
        if bytes.len() < head {
            continue;
        }
        let Ok(parsed) = segment::Segment::parse(&bytes[..head]) else { continue };
        let mut rest = &bytes[head..];
        let mut entries = Vec::new();
        while rest.len() >= 8 {
            let length = u32::from_le_bytes(rest[..4].try_into().unwrap()) as usize;
            if length == 0 || length > rest.len() - 8 {
                break;
            }
            entries.push(rest[8..8 + length].to_vec());
            rest = &rest[8 + length..];
        }
        std::fs::write(path, segment::Segment { entries, ..parsed }.to_bytes()).unwrap();
    }
}

#[test]
fn every_one_of_a_thousand_edits_is_found() {
    let (directory, edited) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (key, source) = (key(), key());
    let log = open(directory.path(), &key, small());
    fill(&log, 0, 150);
    let old = log.flush().unwrap();
    fill(&log, 150, 150);
    let checkpoint = log.flush().unwrap();
    let witness = Witness::new(ORIGIN, key.public_key());
    let seen = witness.observe(checkpoint.to_note().as_bytes(), &[], "source/s1", &*source, NOW).unwrap();
    log.accept_cosignature(seen.witness.note.as_bytes(), "source/s1", &source.public_key()).unwrap();
    drop(log);
    let trusted = Trusted::key(key.public_key())
        .with_witness("source/s1", source.public_key())
        .with_witnessed(seen.witness.note.as_bytes());
    let report = verify(directory.path(), &trusted, NOW).unwrap();
    assert_eq!((report.flaw.clone(), report.witnessed.len()), (None, 2));

    let boundaries: Vec<(PathBuf, Vec<u64>)> = files(&directory.path().join("segment"))
        .into_iter()
        .filter(|path| !path.ends_with("spare"))
        .map(|path| {
            let bytes = std::fs::read(&path).unwrap();
            let parsed = segment::Segment::parse(&bytes).unwrap();
            let mut at = 24 + 8 * parsed.head.open.len() as u64;
            let mut frames = vec![at];
            for entry in &parsed.entries {
                at += 8 + entry.len() as u64;
                frames.push(at);
            }
            let relative = path.strip_prefix(directory.path()).unwrap();
            (edited.path().join(relative), frames)
        })
        .collect();
    let mut state = 7_u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let good: Vec<(PathBuf, Vec<u8>)> =
        files(directory.path()).iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
    copy(directory.path(), edited.path());
    let (mut found, mut named) = (0, 0);
    for _ in 0..1_000 {
        for (path, bytes) in &good {
            let target = edited.path().join(path.strip_prefix(directory.path()).unwrap());
            if std::fs::read(&target).ok().as_ref() != Some(bytes) {
                std::fs::write(target, bytes).unwrap();
            }
        }
        let what = edit(edited.path(), &mut random, &boundaries);
        if what != "flip" && random(2) == 0 {
            relinked(edited.path());
        }
        if what == "cut" && random(2) == 0 {
            // With the checkpoint of that time, which was signed.
            std::fs::write(edited.path().join("checkpoint"), old.to_note()).unwrap();
            std::fs::remove_file(edited.path().join("cosigned")).unwrap();
        }
        let same = good.iter().all(|(path, bytes)| {
            let target = edited.path().join(path.strip_prefix(directory.path()).unwrap());
            std::fs::read(target).ok().as_ref() == Some(bytes)
        });
        let report = verify(edited.path(), &trusted, NOW).unwrap();
        found += usize::from(!report.is_good());
        named += usize::from(report.flaw.as_ref().is_some_and(|flaw| flaw.entry.is_some()));
        assert!(!report.is_good() || same, "a {what} was not found");
        assert!(!same, "a {what} changed nothing");
    }
    assert_eq!(found, 1_000);
    // The others are flips in a checkpoint.
    assert!(named > 900, "{named}");
}

#[test]
fn the_first_bad_entry_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let key = key();
    let log = open(directory.path(), &key, LogOptions::default());
    fill(&log, 0, 300);
    drop(log);
    let path = directory.path().join("segment/00000000000000000000");
    let whole = std::fs::read(&path).unwrap();
    let parsed = segment::Segment::parse(&whole).unwrap();
    for bad in [1_usize, 77, 255, 256, 300, 511] {
        let mut edited = parsed.clone();
        let text = String::from_utf8(edited.entries[bad].clone()).unwrap();
        edited.entries[bad] = text.replace("\"t\":\"2026", "\"t\":\"2025").into_bytes();
        std::fs::write(&path, edited.to_bytes()).unwrap();
        let flaw = check(directory.path(), &key.public_key()).flaw.unwrap();
        assert_eq!(flaw.entry, Some(bad as u64), "{flaw}");
        let mut edited = parsed.clone();
        edited.entries.remove(bad);
        std::fs::write(&path, edited.to_bytes()).unwrap();
        assert_eq!(check(directory.path(), &key.public_key()).flaw.unwrap().entry, Some(bad as u64));
    }
    std::fs::write(&path, whole).unwrap();
    assert!(check(directory.path(), &key.public_key()).is_good());
}

/// L02: a thief of the edge's key writes the log anew and signs it.
#[test]
fn a_rewritten_and_signed_log_is_contradicted_by_the_witness() {
    let (directory, forged) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (key, source) = (key(), key());
    let log = open(directory.path(), &key, small());
    fill(&log, 0, 40);
    let witness = Witness::new(ORIGIN, key.public_key());
    let note = log.flush().unwrap().to_note();
    let seen = witness.observe(note.as_bytes(), &[], "source/s1", &*source, NOW).unwrap().witness;
    let thief = open(forged.path(), &key, small());
    fill(&thief, 1, 90);
    let forgery = thief.flush().unwrap();
    drop(thief);
    // By itself it is a good log.
    assert!(check(forged.path(), &key.public_key()).is_good());
    let trusted = Trusted::key(key.public_key())
        .with_witness("source/s1", source.public_key())
        .with_witnessed(seen.note.as_bytes());
    let flaw = verify(forged.path(), &trusted, NOW).unwrap().flaw.unwrap();
    assert!(flaw.why.contains("witness"), "{flaw}");
    // Neither does the witness go on with it.
    let proof = vec![[0; 32]; 5];
    let error = seen.observe(forgery.to_note().as_bytes(), &proof, "source/s1", &*source, NOW).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
}

#[test]
fn a_foreign_or_false_cosignature_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (edge, source) = (key(), key());
    let log = open(directory.path(), &edge, small());
    fill(&log, 0, 3);
    let checkpoint = log.flush().unwrap();
    let witness = Witness::new(ORIGIN, edge.public_key());
    let note = checkpoint.to_note();
    let seen = witness.observe(note.as_bytes(), &[], "source/s1", &*source, NOW).unwrap().witness.note;
    let accept = |note: &str, name: &str, key: &PublicKey| {
        log.accept_cosignature(note.as_bytes(), name, key).map_err(|error| error.kind())
    };
    assert_eq!(accept(&note, "source/s1", &source.public_key()), Err(ErrorKind::Untrusted));
    assert_eq!(accept(&seen, "source/s2", &source.public_key()), Err(ErrorKind::Untrusted));
    assert_eq!(accept(&seen, "source/s1", &key().public_key()), Err(ErrorKind::Untrusted));
    let accepted = accept(&seen, "source/s1", &source.public_key()).unwrap();
    assert_eq!((accepted.to_note(), log.checkpoint().unwrap().to_note()), (seen.clone(), seen.clone()));
    fill(&log, 5, 3);
    log.flush().unwrap();
    assert_eq!(log.cosigned().unwrap().to_note(), seen);
}

#[test]
fn old_segments_go_and_the_rest_verifies() {
    let directory = tempfile::tempdir().unwrap();
    let key = key();
    let log = open(directory.path(), &key, small());
    fill(&log, 0, 1_000);
    log.flush().unwrap();
    // The events of 100 requests have one time.
    let first = log.retain(NOW.plus(5)).unwrap();
    assert!(first > 500 && first < 1_100, "{first}");
    assert_eq!(log.first(), first);
    assert_eq!(log.entry(first - 1).unwrap_err().kind(), ErrorKind::Gone);
    assert_eq!(log.retain(NOW.plus(5)).unwrap(), first);
    let last = log.len() - 1;
    let retention = log.entry(last).unwrap();
    assert_eq!(
        (&*retention.kind, &**retention.about.as_ref().unwrap()),
        (kind::AUDIT_RETENTION, &*format!("0-{}", first - 1))
    );
    let size = log.flush().unwrap().size;
    // Proofs reach into what was dropped.
    log.inclusion(3, size).unwrap();
    log.consistency(100, size).unwrap();
    drop(log);
    let report = check(directory.path(), &key.public_key());
    assert_eq!((report.flaw.clone(), report.entries.start), (None, first));
    let log = open(directory.path(), &key, small());
    assert_eq!(log.first(), first);
    fill(&log, 2_000, 10);
    log.flush().unwrap();
    drop(log);
    assert!(check(directory.path(), &key.public_key()).is_good());
    // Nobody else may drop some.
    let segments = files(&directory.path().join("segment"));
    std::fs::remove_file(&segments[0]).unwrap();
    assert_eq!(check(directory.path(), &key.public_key()).flaw.unwrap().entry, Some(0));
}

#[test]
fn a_person_is_erased_and_the_log_verifies() {
    let directory = tempfile::tempdir().unwrap();
    let key = key();
    let log = open(directory.path(), &key, small());
    fill(&log, 0, 300);
    let p = log.entry(1).unwrap().p.unwrap().to_string();
    log.flush().unwrap();
    let admin = Principal::Token { name: "bootstrap".into() };
    assert_eq!(log.erase("user:alice", &admin).unwrap(), 250);
    assert!(log.people(&HashSet::from([p])).unwrap().is_empty());
    drop(log);
    for path in files(directory.path()) {
        let bytes = std::fs::read(&path).unwrap();
        for needle in ["alice", "192.0.2.17", "192.0.2.249"] {
            let found = bytes.windows(needle.len()).any(|window| window == needle.as_bytes());
            assert!(!found, "{} holds {needle}", path.display());
        }
    }
    assert!(check(directory.path(), &key.public_key()).is_good());
}

#[test]
fn an_export_verifies_and_an_edited_one_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let (key, source) = (key(), key());
    let log = open(&directory.path().join("log"), &key, small());
    fill(&log, 0, 400);
    let note = log.flush().unwrap().to_note();
    let seen = Witness::new(ORIGIN, key.public_key())
        .observe(note.as_bytes(), &[], "source/s1", &*source, NOW)
        .unwrap();
    log.accept_cosignature(seen.witness.note.as_bytes(), "source/s1", &source.public_key()).unwrap();
    fill(&log, 500, 30);
    let mut tar = Vec::new();
    log.export(Format::Tar, None, None, &mut tar).unwrap();
    let path = directory.path().join("log.tar");
    std::fs::write(&path, &tar).unwrap();
    let trusted = Trusted::key(key.public_key()).with_witness("source/s1", source.public_key());
    let report = verify(&path, &trusted, NOW).unwrap();
    assert_eq!((report.flaw.clone(), report.entries.clone()), (None, 0..861));
    assert_eq!(report.witnessed[0].1, 801);
    for at in (600..tar.len()).step_by(tar.len() / 150) {
        let mut edited = tar.clone();
        edited[at] ^= 1;
        std::fs::write(&path, &edited).unwrap();
        // A flip between two files, or in a note that is of no weight, is no edit of the log.
        let harmless = !verify(&path, &trusted, NOW).is_ok_and(|report| report.is_good());
        let text = &tar[at / 512 * 512..at];
        assert!(
            harmless
                || tar[at] == 0
                || text.starts_with(b"from ")
                || text.starts_with(b"ed25519:")
                || text.starts_with(b"consistency")
                || text.starts_with(b"key"),
            "byte {at}"
        );
    }
    // From a later moment on: whole bundles.
    let mut tar = Vec::new();
    log.export(Format::Tar, Some(NOW.plus(63)), None, &mut tar).unwrap();
    std::fs::write(&path, &tar).unwrap();
    let report = verify(&path, &trusted, NOW).unwrap();
    assert!(report.entries.start > 0 && report.entries.start % 256 == 0);
    assert_eq!(
        report.flaw.map(|flaw| flaw.entry),
        Some(Some(0)),
        "entries that were not exported are missing"
    );

    let mut csv = Vec::new();
    log.export(Format::Csv, None, None, &mut csv).unwrap();
    let csv = String::from_utf8(csv).unwrap();
    assert_eq!(csv.lines().count(), 431);
    assert!(
        csv.lines().nth(3).unwrap().contains(",user:alice,eut1_7Q2x,192.0.2.2,DE,generic-local,"),
        "{csv}"
    );
    let mut combined = Vec::new();
    log.export(Format::Combined, Some(NOW.plus(3)), Some(NOW.plus(4)), &mut combined).unwrap();
    let combined = String::from_utf8(combined).unwrap();
    assert_eq!(combined.lines().count(), 100);
    assert_eq!(
        combined.lines().next().unwrap(),
        "192.0.2.50 - user:alice [22/Nov/2026:05:00:03 +0000] \"GET /generic-local/shop/app/1.4.300/app-1.4.300.tar.gz HTTP/1.1\" 200 4096 \"-\" \"-\""
    );
}

#[test]
fn a_failed_sync_is_a_loss_and_the_log_heals() {
    let disk = SimDisk::new();
    let key = key();
    let log = on_disk(&disk, &key, small()).unwrap();
    let durable = |object| block_on(log.record_durable(administrative(object)));
    durable(1).unwrap();
    log.flush().unwrap();
    disk.fail_from(OpKind::Sync, 1, Fault::Io);
    assert_eq!(durable(2).unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(log.record(administrative(3)).unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(matches!(log.health(), Health::Failed(_)));
    disk.heal();
    let mut tries = 0;
    while let Err(error) = log.record(administrative(4)) {
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        tries += 1;
        assert!(tries < 1_000);
        std::thread::sleep(Duration::from_millis(10));
    }
    durable(5).unwrap();
    log.flush().unwrap();
    assert_eq!(objects(&log), BTreeSet::from([1, 4, 5]));
    assert!(all(&log).iter().any(|entry| entry.kind.as_str() == kind::AUDIT_GAP));
    drop(log);
    let image = disk.crash_image(disk.points(), 0);
    assert_eq!(objects(&on_disk(&image, &key, small()).unwrap()), BTreeSet::from([1, 4, 5]));
}

#[test]
fn a_full_disk_uses_the_spare_segment_and_then_says_so() {
    let disk = SimDisk::new();
    let key = key();
    let log = on_disk(&disk, &key, small()).unwrap();
    block_on(log.record_durable(administrative(0))).unwrap();
    log.flush().unwrap();
    while lock_spare(&log) {
        std::thread::sleep(Duration::from_millis(5));
    }
    // What is filled already can be written to; nothing more can be had.
    disk.fill_up();
    let mut taken = 1;
    let error = loop {
        match block_on(log.record_durable(administrative(taken))) {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken < 10_000);
    };
    assert_eq!((error.kind(), log.health()), (ErrorKind::NoSpace, Health::Full));
    assert!(taken > 40, "{taken} events found room in the spare segment");
    assert_eq!(log.record(download(kind::DOWNLOAD_START, 1)).unwrap_err().kind(), ErrorKind::NoSpace);
    disk.empty_out();
    let mut tries = 0;
    while log.health() != Health::Good {
        let _ = log.record(administrative(1_000_000 + tries));
        tries += 1;
        assert!(tries < 1_000, "{:?}", log.health());
        std::thread::sleep(Duration::from_millis(10));
    }
    block_on(log.record_durable(administrative(20_000))).unwrap();
    let found = objects(&log);
    assert!((0..taken).chain([20_000]).all(|object| found.contains(&object)));
    drop(log);
    let again = on_disk(&disk.crash_image(disk.points(), 0), &key, small()).unwrap();
    assert!(found.is_subset(&objects(&again)));
}

/// Whether the spare segment is not there yet.
fn lock_spare(log: &TileLog) -> bool {
    log.shared.append.lock().unwrap().spare.is_none()
}

/// What is missing at the end is told from the last checkpoint.
#[test]
fn a_lost_end_is_a_gap() {
    let directory = tempfile::tempdir().unwrap();
    let key = key();
    let log = open(directory.path(), &key, small());
    fill(&log, 0, 3);
    drop(log);
    let path = directory.path().join("segment/00000000000000000000");
    let mut parsed = segment::Segment::parse(&std::fs::read(&path).unwrap()).unwrap();
    parsed.entries.truncate(4);
    std::fs::write(&path, parsed.to_bytes()).unwrap();
    let log = open(directory.path(), &key, small());
    let gap = log.entry(4).unwrap();
    assert_eq!(&*gap.kind, kind::AUDIT_GAP);
    assert!(gap.res.unwrap().reason.unwrap().contains("over 7 entries, 4 are there"));
}

/// The story of a power cut: durable events are acknowledged one after the other while downloads go
/// on, and the machine stops anywhere. What was acknowledged before is there afterwards; what is there
/// is in order, has one tree, and goes on.
#[test]
fn no_acknowledged_event_is_lost_at_any_crash_point() {
    let points = crash_programme(10_000);
    assert!(points >= 10_000, "{points}");
}

fn crash_programme(wanted: usize) -> usize {
    let key = key();
    let options = || {
        let mut options = LogOptions::default().with_sizes(4 << 10, 2 << 10, 1 << 10);
        (options.checkpoint_entries, options.sync_after) = (8, Duration::from_millis(1));
        options
    };
    let mut tried = 0;
    for round in 0_u64.. {
        if tried >= wanted {
            break;
        }
        let disk = SimDisk::new();
        // A log that was there before, so that recovery meets tiles and older segments.
        let log = on_disk(&disk, &key, options()).unwrap();
        fill(&log, 0, 140 + round);
        drop(log);
        disk.settle();
        let log = on_disk(&disk, &key, options()).unwrap();
        // Per object: the crash point from which on it must be there, also when the process is killed
        // (all that was written is there) or only then.
        let (mut durable, mut written) = (Vec::new(), Vec::new());
        for object in 0..30 {
            log.record(download(kind::DOWNLOAD_START, 1_000 + object)).unwrap();
            log.record(administrative(object * 2)).unwrap();
            written.push((object * 2, disk.points()));
            log.record(download(kind::DOWNLOAD_END, 1_000 + object)).unwrap();
            block_on(log.record_durable(administrative(object * 2 + 1))).unwrap();
            durable.push((object * 2 + 1, disk.points()));
            durable.push((object * 2, disk.points()));
        }
        drop(log);
        let last = disk.points();
        for point in 0..=last {
            for seed in 0..6 {
                let image = disk.crash_image(point, if seed < 4 { seed } else { seed + round * 100 });
                let shared = log::Shared::open(
                    Arc::new(image.clone()),
                    Path::new("/log"),
                    ORIGIN,
                    key.clone(),
                    clock(),
                    options(),
                )
                .unwrap();
                let mut order: Vec<u64> = Vec::new();
                shared
                    .entries(0, |_, bytes| {
                        let entry = Entry::read(bytes)?;
                        let minted = entry.kind.as_str() == kind::LINK_MINTED;
                        order.extend(
                            entry.about.filter(|_| minted).and_then(|about| about.parse::<u64>().ok()),
                        );
                        Ok(true)
                    })
                    .unwrap();
                drop(shared);
                let found: BTreeSet<u64> = order.iter().copied().collect();
                let must = durable.iter().filter(|(_, from)| *from <= point);
                let killed = written.iter().filter(|(_, from)| seed == 1 && *from <= point);
                for (object, _) in must.chain(killed) {
                    assert!(found.contains(object), "{object} is lost at {point} of {last}, seed {seed}");
                }
                // In the order in which they were taken.
                assert!(order.is_sorted());
                if seed > 3 {
                    // What was recovered is one tree, and a second crash finds the same.
                    let log = on_disk(&image, &key, options()).unwrap();
                    let size = log.flush().unwrap().size;
                    let mut tree = crate::merkle::Frontier::new();
                    log.entries(0, |_, bytes| {
                        tree.push(crate::merkle::leaf(bytes), |_, _| {});
                        Ok(tree.size() < size)
                    })
                    .unwrap();
                    assert_eq!(log.root(size).unwrap(), tree.root());
                    drop(log);
                    let again = on_disk(&image.crash_image(image.points(), 0), &key, options()).unwrap();
                    assert!(found.is_subset(&objects(&again)));
                }
                tried += 1;
            }
        }
    }
    tried
}
