//! The crash programme on the real edge: what was acknowledged is there after a crash, what is
//! visible is whole.
//!
//! A ledger keeps what the edge was sent and what it acknowledged. Each cycle starts the edge on
//! what the last crash left, compares it with the ledger, loads it with offers, uploads, commits,
//! withdrawals and collections, and cuts it off at a random moment.

mod full;
mod kill;
mod power;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use distedge::clock::{Clock as _, SystemClock};
use distedge::distribute::{BundleOffer, Desired, Method, Options, Planner, PlannerOptions, converge};
use distedge::error::{Error, ErrorKind};
use distedge::key::PublicKey;
use distedge::name::{BundleName, Version};
use distedge::secret::Secret;
use distedge::transport::HttpTransport;

use crate::process::{EdgeProcess, Reply, call, run};
use crate::support::{House, name};

/// A small generator, so that a failing run can be repeated from its seed.
pub(super) struct Dice(u64);

impl Dice {
    /// Seeded by `DISTEDGE_SEED`, or by the clock; the seed is printed.
    pub(super) fn new(what: &str) -> Dice {
        let given = std::env::var("DISTEDGE_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| {
            u64::from(std::process::id()) << 32 ^ SystemClock.now().as_unix().unsigned_abs()
        });
        println!("{what}: DISTEDGE_SEED={seed}");
        Dice(seed)
    }

    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(super) fn bytes(&mut self, length: u64) -> Vec<u8> {
        (0..length.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).take(length as usize).collect()
    }
}

/// Where a bundle should be by the word of the last trust document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Assigned,
    Withdrawn,
    Removed,
}

#[derive(Debug)]
struct Sent {
    offer: BundleOffer,
    seq: u64,
    files: Vec<(String, Vec<u8>)>,
    /// The receipt, once it was returned and verified.
    receipt: Option<Bytes>,
    fate: Fate,
    /// Whether the edge has acknowledged the trust document that decided the fate.
    settled: bool,
}

/// How an edge is cut off, and where it lives.
pub(super) trait Machine {
    fn data(&self) -> PathBuf;

    /// Ends the process the hard way; then the data directory is what the crash left.
    fn cut(&mut self, edge: EdgeProcess);
}

#[derive(Debug, Default)]
pub(super) struct Figures {
    cycles: u64,
    cut_at_start: u64,
    acknowledged: u64,
    patched: u64,
    withdrawn: u64,
    removed: u64,
    collections: u64,
    collections_cut: u64,
    pending_found_whole: u64,
    pending_found_absent: u64,
    upload_bytes_kept: u64,
    checked: u64,
}

/// What the edge was sent, and what it said.
pub(super) struct Ledger {
    pub(super) house: House,
    pub(super) dice: Dice,
    pub(super) figures: Figures,
    pub(super) token: Option<String>,
    identity: Option<PublicKey>,
    trust: Bytes,
    sent: Vec<Sent>,
    shared: Vec<Vec<u8>>,
    serial: u64,
    planner: (tempfile::TempDir, Planner),
    /// Lost or partly visible bundles, one sentence each.
    faults: Vec<String>,
}

impl Ledger {
    pub(super) fn new(mut dice: Dice) -> Ledger {
        let mut house = House::new(&["edge"]);
        // The process lives in real time.
        house.trust.issued = SystemClock.now();
        house.trust.expires = SystemClock.now().plus(30 * 86400);
        let trust = house.next_trust();
        let plans = tempfile::tempdir().unwrap();
        let quick = PlannerOptions { effort: 0, ..PlannerOptions::default() };
        let planner = Planner::open(plans.path(), quick).unwrap();
        let shared = (0..6).map(|size| dice.bytes(size * 3000)).collect();
        Ledger {
            house,
            dice,
            figures: Figures::default(),
            token: None,
            identity: None,
            trust,
            sent: Vec::new(),
            shared,
            serial: 0,
            planner: (plans, planner),
            faults: Vec::new(),
        }
    }

    /// Starts the edge; it has to come up, whatever the crash left.
    pub(super) fn start(&mut self, machine: &dyn Machine, log: &Path) -> EdgeProcess {
        let data = machine.data();
        if self.token.is_none() && data.join("meta.redb").exists() {
            // The first start was cut off, and its token may have been made and never shown.
            let path = data.to_str().unwrap();
            let made = run(&["token", "new", "again", "--data", path]);
            let text = String::from_utf8(made.stdout).unwrap();
            self.token =
                text.lines().next().and_then(|line| line.strip_prefix("token again: ")).map(str::to_owned);
        }
        let edge = EdgeProcess::start(&data, log, &["--public"]);
        if let Some(token) = edge.token() {
            self.token.get_or_insert_with(|| token.to_owned());
        }
        edge
    }

    /// Makes a new bundle that the edge is to hold, of files of these sizes.
    pub(super) async fn release(&mut self, sizes: &[u64]) {
        self.release_with(sizes, None).await;
    }

    /// The same, with one of the blobs that bundles share.
    async fn release_with(&mut self, sizes: &[u64], shared: Option<usize>) {
        self.serial += 1;
        let serial = self.serial;
        let (bundle, version) = (format!("app{}", serial % 4), format!("1.{serial}"));
        let mut files = Vec::new();
        for (at, size) in sizes.iter().enumerate() {
            let bytes = self.successor(&bundle, at).unwrap_or_else(|| self.dice.bytes(*size));
            files.push((format!("{bundle}/{version}/{at}"), bytes));
        }
        if let Some(shared) = shared {
            files.push((format!("{bundle}/{version}/shared"), self.shared[shared].clone()));
        }
        let listed: Vec<(&str, &[u8])> =
            files.iter().map(|(path, bytes)| (path.as_str(), &bytes[..])).collect();
        self.house.release(&bundle, &version, serial, &listed).await;
        let key: (BundleName, Version) = (name(&bundle), name(&version));
        let offer = self.house.bundles[&key].clone();
        let fate = Fate::Assigned;
        self.sent.push(Sent { offer, seq: serial, files, receipt: None, fate, settled: false });
        self.trust = self.house.next_trust();
    }

    /// What an edge that holds the last version of the bundle needs not be sent whole: its file `at`,
    /// changed here and there. Every other time there is none.
    fn successor(&mut self, bundle: &str, at: usize) -> Option<Vec<u8>> {
        let held = |one: &&Sent| one.fate == Fate::Assigned && one.offer.name.as_str() == bundle;
        let (_, old) = self.sent.iter().rev().find(held)?.files.get(at)?;
        let mut new = old.clone();
        if new.len() < 1000 || self.dice.below(2) == 0 {
            return None;
        }
        let change = self.dice.bytes(100);
        let from = self.dice.below(new.len() as u64 - 100) as usize;
        new[from..from + 100].copy_from_slice(&change);
        Some(new)
    }

    /// Withdraws a bundle, or takes it off the edge.
    pub(super) fn retire(&mut self, fate: Fate) {
        let live: Vec<usize> =
            (0..self.sent.len()).filter(|at| self.sent[*at].fate == Fate::Assigned).collect();
        if live.is_empty() {
            return;
        }
        let at = live[self.dice.below(live.len() as u64) as usize];
        self.retire_at(at, fate);
    }

    /// Takes off the bundle that was made last.
    pub(super) fn retire_newest(&mut self) {
        self.retire_at(self.sent.len() - 1, Fate::Removed);
    }

    fn retire_at(&mut self, at: usize, fate: Fate) {
        let one = &mut self.sent[at];
        (one.fate, one.settled) = (fate, false);
        let key = (one.offer.name.clone(), one.offer.version.clone());
        match fate {
            Fate::Withdrawn => drop(self.house.withdraw(key.0.as_str(), key.1.as_str())),
            _ => {
                self.house.bundles.remove(&key);
                self.house.trust.assignments.retain(|one| (&one.bundle, &one.version) != (&key.0, &key.1));
            }
        }
        self.trust = self.house.next_trust();
    }

    /// Brings the edge to what it should hold, and notes what it acknowledges. `false` once the edge
    /// does not answer any more.
    pub(super) async fn converge(&mut self, edge: &Contact) -> Result<u64, Error> {
        let wanted = |one: &&Sent| one.fate == Fate::Assigned && one.receipt.is_none();
        let held = |one: &&Sent| one.fate == Fate::Assigned && one.receipt.is_some();
        let desired = Desired {
            edge: name("edge"),
            identity: self.identity.clone(),
            trust: self.trust.clone(),
            bundles: self.sent.iter().filter(wanted).map(|one| one.offer.clone()).collect(),
            given: self.sent.iter().filter(held).map(|one| one.offer.clone()).collect(),
        };
        let events: distedge::distribute::Events = Arc::new(|_| {});
        let options = Options::at(SystemClock.now()).with_planner(self.planner.1.clone());
        let outcome = converge(&edge.transport, &self.house.blobs, &desired, options, &events).await?;
        self.identity = Some(outcome.identity);
        for one in self.sent.iter_mut().filter(|one| one.fate != Fate::Assigned && !one.settled) {
            one.settled = true;
            match one.fate {
                Fate::Withdrawn => self.figures.withdrawn += 1,
                _ => self.figures.removed += 1,
            }
        }
        for proof in outcome.proofs {
            let one = self
                .sent
                .iter_mut()
                .find(|one| (&one.offer.name, &one.offer.version) == (&proof.bundle, &proof.version));
            let one = one.expect("a proof is of a bundle that was sent");
            one.receipt = Some(proof.envelope);
            self.figures.acknowledged += 1;
        }
        self.figures.patched += outcome.methods.get(&Method::Patch).map_or(0, |tally| tally.blobs);
        match outcome.failed.into_iter().next() {
            Some((_, _, error)) => Err(error),
            None => Ok(outcome.sent_bytes),
        }
    }

    /// One thing after the other, until the edge does not answer any more.
    async fn work(&mut self, edge: &Contact) {
        loop {
            let live = self.live();
            match self.dice.below(100) {
                0..10 if live > 3 => self.retire(Fate::Withdrawn),
                10..20 if live > 10 => self.retire(Fate::Removed),
                20..32 => match call(edge.address(), "POST", "/api/v1/gc", self.token.as_deref(), b"") {
                    Ok(reply) => {
                        assert_eq!(reply.status, 200, "{}", reply.text());
                        self.figures.collections += 1;
                    }
                    Err(_) => {
                        self.figures.collections_cut += 1;
                        return;
                    }
                },
                _ => {
                    let mut sizes: Vec<u64> = (0..1 + self.dice.below(4)).map(|_| 0).collect();
                    for size in &mut sizes {
                        *size = self.dice.below(3000);
                    }
                    if self.dice.below(3) == 0 {
                        sizes.push(64 * 1024 + self.dice.below(512 * 1024));
                    }
                    let shared = self.dice.below(3 * self.shared.len() as u64) as usize;
                    let shared = Some(shared).filter(|at| *at < self.shared.len());
                    self.release_with(&sizes, shared).await;
                    if live > 40 {
                        self.retire(Fate::Removed);
                    }
                }
            }
            match self.converge(edge).await {
                Ok(_) => {}
                Err(error) if is_silence(&error) => return,
                Err(error) => panic!("the edge refused what it should take: {error}"),
            }
        }
    }

    /// Compares the edge with the ledger.
    pub(super) fn check(&mut self, edge: &EdgeProcess) {
        let token = self.token.clone();
        let mut tops: BTreeMap<BundleName, (u64, bool, Vec<u8>)> = BTreeMap::new();
        let mut faults = Vec::new();
        for one in &self.sent {
            let replies: Vec<Reply> =
                one.files.iter().map(|(path, _)| edge.get(&format!("/files/{path}"), None)).collect();
            let who = format!("{}/{}", one.offer.name, one.offer.version);
            let visible = replies.iter().filter(|reply| reply.status == 200).count();
            self.figures.checked += 1;
            for (reply, (path, bytes)) in replies.iter().zip(&one.files) {
                match reply.status {
                    200 if reply.body == *bytes => {}
                    200 => faults.push(format!("{path} has other bytes")),
                    401 | 404 | 410 => {}
                    status => faults.push(format!("{path} answers {status}: {}", reply.text())),
                }
            }
            if visible != 0 && visible != replies.len() {
                faults.push(format!("{who} is partly visible: {visible} of {}", replies.len()));
            }
            let gone = replies.iter().all(|reply| reply.status == 410);
            match (one.fate, one.settled, &one.receipt) {
                (Fate::Assigned, _, Some(receipt)) => {
                    let kept = edge.get(&control(&one.offer, "/receipt"), token.as_deref());
                    if visible == 0 || kept.status != 200 || kept.body != receipt[..] {
                        faults.push(format!("{who} was acknowledged and is lost ({})", kept.status));
                    }
                }
                (Fate::Assigned, _, None) => {
                    let state = edge.get(&control(&one.offer, ""), token.as_deref());
                    let state =
                        if state.status == 404 { "absent".into() } else { state.json()["state"].clone() };
                    if (visible > 0) != (state == "committed") {
                        faults.push(format!("{who} is {state}, and {visible} files are visible"));
                    }
                    match visible {
                        0 => self.figures.pending_found_absent += 1,
                        _ => self.figures.pending_found_whole += 1,
                    }
                    self.figures.upload_bytes_kept += kept_bytes(edge, one, token.as_deref());
                }
                (Fate::Withdrawn, true, Some(_)) if !gone => {
                    faults.push(format!("{who} was withdrawn and answers otherwise"));
                }
                (Fate::Withdrawn | Fate::Removed, true, _) if visible > 0 => {
                    faults.push(format!("{who} was taken off and is visible"));
                }
                _ => {}
            }
            let top = (one.seq, visible > 0, one.files.last().map(|file| file.1.clone()).unwrap_or_default());
            let best = tops.entry(one.offer.name.clone()).or_insert_with(|| top.clone());
            if best.0 < top.0 {
                *best = top;
            }
        }
        // An alias appears together with the artifacts of its bundle.
        for (bundle, (_, visible, bytes)) in tops {
            let reply = edge.get(&format!("/files/{bundle}/latest/app"), None);
            if visible && (reply.status != 200 || reply.body != bytes) {
                faults.push(format!(
                    "the alias of {bundle} answers {} and not its newest version",
                    reply.status
                ));
            }
        }
        self.faults.extend(faults);
        assert!(self.faults.is_empty(), "{:#?}\n{:?}", self.faults, self.figures);
        // What is over and was compared once is not compared again for ever.
        let over = self.sent.iter().filter(|one| one.fate != Fate::Assigned && one.settled).count();
        let mut surplus = over.saturating_sub(12);
        self.sent.retain(|one| {
            let drop = surplus > 0 && one.fate != Fate::Assigned && one.settled;
            surplus -= usize::from(drop);
            !drop
        });
    }

    /// How many bundles the edge is to hold.
    pub(super) fn live(&self) -> usize {
        self.sent.iter().filter(|one| one.fate == Fate::Assigned).count()
    }

    pub(super) fn contact(&self, edge: &EdgeProcess) -> Contact {
        Contact::new(edge, self.token.as_deref().expect("the token is known"))
    }
}

/// A client of one edge process.
pub(super) struct Contact {
    transport: HttpTransport,
    address: std::net::SocketAddr,
}

impl Contact {
    fn new(edge: &EdgeProcess, token: &str) -> Contact {
        let transport = HttpTransport::builder(&format!("http://{}", edge.address))
            .with_token(Secret::new(token))
            .with_connect_timeout(Duration::from_secs(5))
            .with_answer_timeout(Duration::from_secs(30))
            .build()
            .unwrap();
        Contact { transport, address: edge.address }
    }

    fn address(&self) -> std::net::SocketAddr {
        self.address
    }
}

fn control(offer: &BundleOffer, rest: &str) -> String {
    format!("/api/v1/bundles/{}/{}{rest}", offer.name, offer.version)
}

/// Whether nobody answered, as opposed to a refusal.
fn is_silence(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::TimedOut)
        && !error.to_string().contains("the edge answered")
}

/// How much of a pending bundle's uploads is there.
fn kept_bytes(edge: &EdgeProcess, one: &Sent, token: Option<&str>) -> u64 {
    let mut kept = 0;
    for (_, bytes) in &one.files {
        let digest = distedge::digest::Digest::of(bytes);
        let reply = call(edge.address, "HEAD", &format!("/api/v1/blobs/{}", digest.to_hex()), token, b"");
        let reply = reply.expect("the edge answers");
        if let Some(offset) = reply.header("upload-offset") {
            let offset: u64 = offset.parse().unwrap();
            assert!(offset <= bytes.len() as u64, "more of an upload than there is");
            kept += offset;
        }
    }
    kept
}

/// Cycles of load, cut, restart and comparison.
pub(super) fn programme(what: &str, machine: &mut (dyn Machine + Send), log: &Path, cycles: u64) {
    let begun = Instant::now();
    let mut ledger = Ledger::new(Dice::new(what));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for cycle in 0..cycles {
        if ledger.dice.below(5) == 0 {
            // Recovery is cut off as well.
            let edge = EdgeProcess::launch(&machine.data(), log, &["--public"]);
            std::thread::sleep(Duration::from_millis(ledger.dice.below(60)));
            machine.cut(edge);
            ledger.figures.cut_at_start += 1;
        }
        let edge = ledger.start(machine, log);
        ledger.check(&edge);
        let contact = ledger.contact(&edge);
        let after = Duration::from_micros(2000 + ledger.dice.below(300_000));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(after);
                machine.cut(edge);
            });
            runtime.block_on(ledger.work(&contact));
        });
        ledger.figures.cycles = cycle + 1;
    }
    let edge = ledger.start(machine, log);
    ledger.check(&edge);
    // What was under way can be completed.
    let contact = ledger.contact(&edge);
    runtime.block_on(ledger.converge(&contact)).expect("the edge takes the rest");
    ledger.check(&edge);
    println!("{what}: 0 lost, 0 partial in {:.1?}; {:?}", begun.elapsed(), ledger.figures);
    assert!(
        ledger.figures.acknowledged >= cycles / 2,
        "hardly anything was acknowledged: {:?}",
        ledger.figures
    );
}

/// A number from the environment.
pub(super) fn setting(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => otherwise,
    }
}

/// A directory that stays for inspection when the test fails.
pub(super) struct Kept(pub(super) tempfile::TempDir);

impl Kept {
    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.disable_cleanup(true);
            println!("what the crash left is in {}", self.0.path().display());
        }
    }
}
