//! The disk fills up.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use distedge::error::ErrorKind;

use super::{Dice, Fate, Ledger, Machine, is_silence, setting};
use crate::process::{EdgeProcess, call};

struct Small(PathBuf);

impl Machine for Small {
    fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    fn cut(&mut self, edge: EdgeProcess) {
        edge.kill();
    }
}

/// Fills the file system but for `leave` bytes.
fn fill(dir: &Path, leave: u64) {
    let mut file = File::create(dir.join("filler")).unwrap();
    for chunk in [vec![1; 64 * 1024], vec![1; 1024]] {
        while file.write_all(&chunk).is_ok() {}
    }
    let size = file.metadata().unwrap().len();
    file.set_len(size.saturating_sub(leave)).unwrap();
    let _ = file.sync_all();
}

#[test]
#[ignore = "needs a small file system: scripts/power-cut runs it"]
fn a_full_disk_is_told_leaves_nothing_partial_and_heals() {
    let dir = PathBuf::from(std::env::var("DISTEDGE_FULL_DISK").expect("a small mounted file system"));
    let (levels, log) = (setting("DISTEDGE_FULL_LEVELS", 20), dir.with_extension("log"));
    let begun = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut ledger = Ledger::new(Dice::new("full disk"));
    let machine = Small(dir.clone());

    fill(&dir, 0);
    let said = EdgeProcess::try_start(&machine.data(), &log, &[]).err().expect("there is no room");
    let line = said.lines().find(|line| line.contains("edge: ")).unwrap_or_default();
    assert!(said.starts_with("exit status: 1") && line.contains("No space left on device"), "{said}");
    assert!(line.contains(dir.to_str().unwrap()), "{said}");
    fs::remove_file(dir.join("filler")).unwrap();

    let mut edge = ledger.start(&machine, &log);
    runtime.block_on(ledger.release(&[5, 5000]));
    let contact = ledger.contact(&edge);
    runtime.block_on(ledger.converge(&contact)).unwrap();
    let (mut refused, mut took, mut restarted) = (0, 0, 0);
    let mut sentences = std::collections::BTreeSet::new();
    for level in 0..levels {
        // Around the size of the bundle it is most interesting.
        let leave = level * 2 * 1024 * 1024 / levels;
        fill(&dir, leave);
        runtime.block_on(ledger.release(&[300_000, 900_000, 10, 20_000]));
        let contact = ledger.contact(&edge);
        match runtime.block_on(ledger.converge(&contact)) {
            Ok(_) => took += 1,
            Err(error) => {
                assert!(!is_silence(&error), "the edge went away: {error}\n{}", edge.log());
                refused += 1;
                sentences.insert(format!("{}: {}", error.kind(), generic(&error.to_string())));
            }
        }
        // While it is full: nothing partial, everything old is served.
        assert_eq!(edge.get("/healthz", None).status, 200);
        ledger.check(&edge);
        fs::remove_file(dir.join("filler")).unwrap();
        if let Err(error) = runtime.block_on(ledger.converge(&contact)) {
            sentences.insert(format!("afterwards: {}", generic(&error.to_string())));
            drop(edge);
            restarted += 1;
            edge = ledger.start(&machine, &log);
            let contact = ledger.contact(&edge);
            runtime.block_on(ledger.converge(&contact)).expect("it heals");
        }
        ledger.check(&edge);
        // Room for the next level.
        while ledger.live() > 2 {
            ledger.retire(Fate::Removed);
        }
        let contact = ledger.contact(&edge);
        runtime.block_on(ledger.converge(&contact)).unwrap();
        let collected = call(edge.address, "POST", "/api/v1/gc", ledger.token.as_deref(), b"").unwrap();
        assert_eq!(collected.status, 200, "{}", collected.text());
    }
    println!(
        "full disk: {levels} levels in {:.1?}, {refused} refused, {took} taken, {restarted} restarts, 0 lost, 0 partial",
        begun.elapsed()
    );
    for sentence in sentences {
        println!("full disk: {sentence}");
    }
    assert!(refused > 0, "the disk was never full");
    assert_eq!(restarted, 0, "it must heal by itself");
}

/// The metadata file cannot grow and nor can blobs; then they can. In between everything old is served,
/// and afterwards no restart is needed.
#[test]
fn refused_writes_are_told_and_heal_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut ledger = Ledger::new(Dice::new("refused writes"));
    let machine = Small(dir.path().to_owned());
    let log = dir.path().join("log");
    let limit = 4 << 20;
    // The log is a file as well.
    let arguments = ["--public", "--log", "error"];
    let edge = EdgeProcess::start_limited(&machine.data(), &log, limit, &arguments);
    ledger.token = edge.token().map(str::to_owned);
    let contact = ledger.contact(&edge);
    runtime.block_on(ledger.release(&[1000, 0]));
    runtime.block_on(ledger.converge(&contact)).unwrap();

    // A blob that does not fit.
    runtime.block_on(ledger.release(&[limit + 1]));
    let error = runtime.block_on(ledger.converge(&contact)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    ledger.check(&edge);
    ledger.retire_newest();
    // Metadata that does not fit: more and more of it.
    let refused = (0..200).find_map(|_| {
        let names = 400;
        runtime.block_on(ledger.release(&vec![1; names]));
        runtime.block_on(ledger.converge(&contact)).err()
    });
    let refused = refused.expect("the metadata file outgrows the limit");
    assert_eq!(refused.kind(), ErrorKind::NoSpace, "{refused}");
    assert!(fs::metadata(machine.data().join("meta.redb")).unwrap().len() <= limit);
    ledger.check(&edge);
    edge.lift_limit();
    runtime.block_on(ledger.converge(&contact)).expect("it heals");
    ledger.check(&edge);
    assert!(edge.log().contains("File too large"), "{}", edge.log());
}

/// The sentence without digests and numbers, so that equal ones meet.
fn generic(sentence: &str) -> String {
    let words = sentence.split(' ');
    let words = words.map(|word| if word.contains(|c: char| c.is_ascii_digit()) { "#" } else { word });
    words.collect::<Vec<_>>().join(" ")
}
