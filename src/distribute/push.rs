//! The source's half of sending less: what the edge has, what is planned against it, and packs.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::lock::Mutex as Turn;
use futures_util::{StreamExt as _, stream};

use super::message::{
    BundleAnswer, HAVE, HaveAnswer, HaveQuestion, Method, PACK, PARTS, PackAnswer, PartsQuestion,
    SectionAnswer, SectionState, SectionsQuestion, StatusAnswer, Want, patches, path,
};
use super::order::{BundleOffer, Event, PlannedBlob};
use super::planner::{Planned, Planner};
use super::send::{ATTEMPTS, Run, decode, names, planned, worse};
use super::similar::{Candidate, MAX_BUNDLES, Roles, Shelf, likelihood};
use crate::blob::{BlobInfo, ByteStream};
use crate::blocking;
use crate::bundle::{BundleRef, Envelope, Statement};
use crate::delta::ReadAt;
use crate::delta::pack::{Descriptor, FRAME, PartHead, Writer, length};
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{Call, Verb};

/// A blob of which fewer bytes than this are missing travels whole: an artefact's head is as long.
const SMALL: u64 = 256;
/// Blobs that are looked at ahead of those that are being sent.
const AHEAD: usize = 64;
/// Bytes of artefacts that one pack gathers before the next begins.
const GATHERED: u64 = 4 << 20;
/// Most artefacts in one pack.
const TOGETHER: usize = 256;
/// Artifacts in one question for what resembles them.
const ASKED: usize = 1000;
/// A blob of which fewer bytes than this are missing is not worth the question what a base is made of.
const WORTH_PARTS: u64 = 16 << 10;
/// Bundles whose blobs are held against an edge's answer.
const HELD_AGAINST: usize = 64;

/// What a run learns of the edge.
#[derive(Debug, Default)]
pub(super) struct Push {
    packs: AtomicBool,
    have: AtomicBool,
    parts: AtomicBool,
    /// Answers about parts are taken one at a time, for their memory.
    listing: Turn<()>,
    at_edge: Mutex<Option<Arc<Vec<BundleAnswer>>>>,
    statements: Mutex<BTreeMap<Digest, Arc<Statement>>>,
}

impl Push {
    /// Notes what the edge says it takes.
    pub(super) fn learn(&self, status: &StatusAnswer) {
        let takes = |what: &str| status.accepts.iter().any(|one| one == what);
        self.packs.store(takes(PACK) && takes(&patches()), Ordering::Relaxed);
        self.have.store(takes(HAVE), Ordering::Relaxed);
        self.parts.store(takes(PARTS), Ordering::Relaxed);
    }

    /// The edge shows one more bundle.
    pub(super) fn committed(&self) {
        *self.at_edge.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// A blob that travels as an artefact.
#[derive(Debug)]
struct Section {
    want: Want,
    planned: Planned,
    /// What went out for it, heads and tags included.
    sent: u64,
}

impl Section {
    fn head(&self) -> PartHead {
        let target = Descriptor { digest: self.want.digest, size: self.want.size };
        PartHead::artefact(self.planned.artefact, target, self.planned.bases.clone())
    }

    fn cost(&self) -> u64 {
        let head = self.head();
        length([(&head, 0..head.frames())])
    }
}

/// How one blob goes.
enum Decided {
    Whole(Want),
    Artefact(Section),
}

enum Job {
    Whole(Want),
    Pack(Vec<Section>),
}

/// What may serve as a base, for the artifacts of one bundle.
#[derive(Default)]
struct Bases {
    shelf: Shelf,
    roles: Roles,
    answered: BTreeMap<Digest, Vec<Candidate>>,
    /// What the edge named that no bundle gave it: only what the edge tells of it is used.
    foreign: BTreeMap<Digest, Candidate>,
    bundle: Option<BundleRef>,
    names: BTreeMap<Digest, String>,
}

impl Bases {
    fn of(&self, want: &Want) -> Vec<Candidate> {
        let Some(name) = self.names.get(&want.digest) else { return Vec::new() };
        let mut called = vec![name.as_str()];
        called.extend(self.roles.of(&want.digest));
        let found = self.shelf.choose(&called, &want.digest, want.size);
        if found.is_empty() { self.answered.get(&want.digest).cloned().unwrap_or_default() } else { found }
    }
}

impl Run<'_> {
    /// Who plans, if anybody does and the edge can use it.
    fn planner(&self) -> Option<&Planner> {
        self.options.planner.as_ref().filter(|_| self.push.packs.load(Ordering::Relaxed))
    }

    /// Sends what is wanted, each blob in the way that takes the fewest bytes; answers the worst
    /// that went wrong.
    pub(super) async fn deliver(&self, statement: &Statement, wants: &[Want]) -> Option<Error> {
        let Some(planner) = self.planner() else { return self.upload_all(wants).await };
        let bases = match self.bases(statement, wants).await {
            Ok(bases) => bases,
            Err(error) => return Some(error),
        };
        let decided = stream::iter(wants).map(|want| self.decide(planner, want, &bases));
        let jobs = decided
            .buffer_unordered(AHEAD)
            .ready_chunks(AHEAD)
            .flat_map(|decided| stream::iter(gathered(decided)));
        let mut results = jobs.map(|job| self.perform(job)).buffer_unordered(self.options.parallel.max(1));
        let mut failed = None;
        while let Some(result) = results.next().await {
            if let Err(error) = result {
                failed = Some(worse(failed, error));
            }
        }
        failed
    }

    /// How each of `wants` would go.
    pub(super) async fn preview(&self, statement: &Statement, wants: &[Want]) -> Result<Vec<PlannedBlob>> {
        let called = names(statement);
        let Some(planner) = self.planner() else {
            return Ok(wants.iter().map(|want| planned(want, &called)).collect());
        };
        let bases = self.bases(statement, wants).await?;
        let mut plan = Vec::new();
        let mut decided = stream::iter(wants).map(|want| self.decide(planner, want, &bases)).buffered(AHEAD);
        while let Some(decided) = decided.next().await {
            plan.push(match decided {
                Decided::Whole(want) => planned(&want, &called),
                Decided::Artefact(section) => PlannedBlob {
                    method: section.planned.method,
                    bytes: section.cost(),
                    bases: section.planned.bases.iter().map(|base| base.digest).collect(),
                    why: section.planned.why.clone(),
                    ..planned(&section.want, &called)
                },
            });
        }
        Ok(plan)
    }

    async fn decide(&self, planner: &Planner, want: &Want, bases: &Bases) -> Decided {
        let left = want.size - want.have;
        if left < SMALL {
            return Decided::Whole(*want);
        }
        let target = BlobInfo { digest: want.digest, size: want.size };
        let by_parts =
            if left < WORTH_PARTS { None } else { self.by_parts(planner, &target, want, bases).await };
        let planned = match by_parts {
            Some(planned) => Ok(planned),
            None => planner.plan(self.blobs, &target, &bases.of(want)).await,
        };
        let planned = match planned {
            Ok(planned) => planned,
            Err(error) => {
                self.fell_back(want.digest, format!("nothing could be planned: {error}"));
                return Decided::Whole(*want);
            }
        };
        let section = Section { want: *want, planned, sent: 0 };
        let bytes = section.cost();
        // An upload that is nearly done is finished.
        let artefact = section.planned.method != Method::Whole && bytes < left;
        let method = if artefact { section.planned.method } else { Method::Whole };
        let bytes = if artefact { bytes } else { left };
        (self.events)(Event::Planned { digest: want.digest, method, size: want.size, bytes });
        if artefact { Decided::Artefact(section) } else { Decided::Whole(*want) }
    }

    /// A plan by what the edge tells of a base, if the base's bytes are not here or must not be used.
    async fn by_parts(
        &self,
        planner: &Planner,
        target: &BlobInfo,
        want: &Want,
        bases: &Bases,
    ) -> Option<Planned> {
        let bundle = bases.bundle.as_ref().filter(|_| self.push.parts.load(Ordering::Relaxed))?;
        let known = bases.of(want);
        for base in &known {
            if self.blobs.stat(&base.digest).await.ok()?.is_some() {
                return None;
            }
        }
        let base = known.first().or_else(|| bases.foreign.get(&want.digest))?;
        let (name, version) = (bundle.name.clone(), bundle.version.clone());
        let question = PartsQuestion { bundle: name, version, item: want.digest, base: base.digest };
        let body = serde_json::to_vec(&question).ok()?;
        let _turn = self.push.listing.lock().await;
        let answer = self.call(Call::new(Verb::Post, path::HAVE_PARTS).with_bytes(body)).await;
        let planned = match answer.and_then(|answer| self.settle(answer)) {
            Ok(parts) => planner.plan_by_parts(self.blobs, target, base, parts.to_vec()).await,
            Err(error) => Err(error),
        };
        // What is not answered is not used.
        planned.inspect_err(|error| tracing::debug!(%error, "nothing was planned by parts")).ok()
    }

    async fn perform(&self, job: Job) -> Result<()> {
        match job {
            Job::Whole(want) => self.upload(&want).await,
            Job::Pack(sections) => self.send(sections).await,
        }
    }

    /// Sends artefacts until each is a blob at the edge; those that make none travel whole.
    async fn send(&self, mut sections: Vec<Section>) -> Result<()> {
        let mut failed = None;
        let mut refused = Vec::new();
        let total: u64 = sections.iter().map(|section| section.planned.artefact.size).sum();
        // What is repeated without asking is less than one frame.
        let mut ask = total > FRAME;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                blocking::sleep(Duration::from_millis(50 << attempt)).await;
            }
            match self.try_send(&mut sections, &mut refused, ask).await {
                Ok(()) => {}
                // The edge, or somebody before it, does not take packs after all.
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::MethodNotAllowed) => {
                    self.push.packs.store(false, Ordering::Relaxed);
                    let why = format!("packs are not taken: {error}");
                    refused.extend(sections.drain(..).map(|section| (section, why.clone())));
                }
                Err(error) if error.kind().is_retryable() || error.kind() == ErrorKind::Corrupted => {
                    failed = Some(error);
                }
                Err(error) => {
                    refused.extend(sections.drain(..).map(|section| (section, error.to_string())));
                }
            }
            if sections.is_empty() || self.is_closed() {
                break;
            }
            ask = true;
        }
        if sections.is_empty() {
            failed = None;
        } else if failed.is_none() {
            let why = "the edge does not complete it";
            refused.extend(sections.into_iter().map(|section| (section, why.to_owned())));
        }
        for (section, why) in refused {
            self.fell_back(section.want.digest, why);
            if let Err(error) = self.upload(&section.want).await {
                failed = Some(worse(failed, error));
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn try_send(
        &self,
        sections: &mut Vec<Section>,
        refused: &mut Vec<(Section, String)>,
        ask: bool,
    ) -> Result<()> {
        let known = if ask { self.positions(sections).await? } else { BTreeMap::new() };
        let known = self.settle_sections(sections, refused, known).await?;
        if sections.is_empty() {
            return Ok(());
        }
        let answers = self.send_once(sections, &known).await?;
        self.settle_sections(sections, refused, answers).await.map(drop)
    }

    /// Acts on what the edge says became of artefacts: those that are done with are taken off the
    /// list. Waits for those that are being applied. Answers what is said of the others.
    async fn settle_sections(
        &self,
        sections: &mut Vec<Section>,
        refused: &mut Vec<(Section, String)>,
        mut answers: BTreeMap<Digest, SectionAnswer>,
    ) -> Result<BTreeMap<Digest, SectionAnswer>> {
        let bytes: u64 = sections.iter().map(|section| section.want.size).sum();
        // An edge that makes less than a megabyte in a second is not making anything.
        let patience = 60_000 + bytes / 1000;
        let mut waited = 0;
        loop {
            let mut working = false;
            for section in std::mem::take(sections) {
                let answer = answers.get(&section.planned.artefact.digest);
                match answer.map(|answer| answer.state) {
                    Some(SectionState::Stored) => {
                        self.stored(&section.want, section.planned.method, section.sent);
                    }
                    Some(SectionState::Refused) => {
                        let why =
                            answer.and_then(|answer| answer.why.as_deref()).unwrap_or("no reason is given");
                        refused.push((section, why.chars().filter(|c| !c.is_control()).take(500).collect()));
                    }
                    state => {
                        working |= state == Some(SectionState::Working);
                        sections.push(section);
                    }
                }
            }
            if !working || waited >= patience {
                return Ok(answers);
            }
            let pause = (waited / 4).clamp(50, 2000);
            blocking::sleep(Duration::from_millis(pause)).await;
            waited += pause;
            answers = self.positions(sections).await?;
        }
    }

    /// Which frames of the artefacts are at the edge. An edge that was started anew does not know
    /// which it has applied, but it knows its blobs.
    async fn positions(&self, sections: &[Section]) -> Result<BTreeMap<Digest, SectionAnswer>> {
        let ids = sections.iter().map(|section| section.planned.artefact.digest).collect();
        let mut answers =
            self.question(path::PACKS_HAVE, &SectionsQuestion { sections: ids }).await.map(by_id)?;
        for section in sections.iter().filter(|section| section.sent > 0) {
            let Some(answer) = answers.get_mut(&section.planned.artefact.digest) else { continue };
            if answer.state == SectionState::Absent {
                let call = Call::new(Verb::Head, path::blob(&section.want.digest));
                if self.call(call).await?.offset == Some(section.want.size) {
                    answer.state = SectionState::Stored;
                }
            }
        }
        Ok(answers)
    }

    async fn send_once(
        &self,
        sections: &mut [Section],
        known: &BTreeMap<Digest, SectionAnswer>,
    ) -> Result<BTreeMap<Digest, SectionAnswer>> {
        let mut parts = Vec::new();
        for section in sections {
            let head = section.head();
            for frames in missing(&head, known.get(&head.section))? {
                let part = head.from_frame(frames.start);
                section.sent += length([(&part, frames.clone())]);
                parts.push(Part { head: part, frames, data: section.planned.data.clone() });
            }
        }
        let bytes = length(parts.iter().map(|part| (&part.head, part.frames.clone())));
        let stream = self.counted(stream_of(parts));
        let call = Call::new(Verb::Post, path::PACKS).with_upload(0, bytes, stream);
        let answer = self.call(call).await?;
        decode::<PackAnswer>(&self.settle(answer)?).map(by_id)
    }

    async fn question<Q, A>(&self, path: &str, question: &Q) -> Result<A>
    where
        Q: serde::Serialize + Sync,
        A: serde::de::DeserializeOwned,
    {
        let body = serde_json::to_vec(question).map_err(|cause| {
            Error::new(ErrorKind::Internal, format!("a question cannot be written: {cause}"))
        })?;
        self.ask(Call::new(Verb::Post, path).with_bytes(body)).await
    }

    /// What the edge has that resembles what is wanted.
    async fn bases(&self, statement: &Statement, wants: &[Want]) -> Result<Bases> {
        let mut bases = Bases { names: names(statement), ..Bases::default() };
        bases.bundle = Some(statement.bundle().clone());
        if wants.iter().all(|want| want.size - want.have < SMALL) {
            return Ok(bases);
        }
        let at_edge = self.at_edge().await?;
        let shown = |offer: &&BundleOffer| {
            at_edge.iter().find(|one| {
                one.digest == offer.digest && one.name == offer.name && one.version == offer.version
            })
        };
        let known = self.desired.bundles.iter().chain(&self.desired.given);
        let mut ranked: Vec<_> = known.filter_map(|offer| shown(&offer).map(|one| (offer, one))).collect();
        ranked.sort_by_key(|(_, one)| {
            likelihood(statement.bundle(), &one.name, one.seq, one.created.as_unix())
        });
        bases.roles.read_all(self.blobs, statement).await;
        for (offer, _) in ranked.into_iter().take(MAX_BUNDLES) {
            let held = self.known(offer)?;
            bases.roles.read_all(self.blobs, &held).await;
            bases.shelf.add(&held, &bases.roles);
        }
        let foreign = at_edge.iter().any(|one| {
            !self.desired.bundles.iter().chain(&self.desired.given).any(|offer| offer.digest == one.digest)
        });
        if foreign && self.push.have.load(Ordering::Relaxed) {
            let open: Vec<Digest> = wants
                .iter()
                .filter(|want| want.size - want.have >= SMALL && bases.of(want).is_empty())
                .map(|want| want.digest)
                .collect();
            self.ask_resembling(statement, &open, &mut bases).await?;
        }
        Ok(bases)
    }

    /// Asks the edge itself what resembles `items`.
    async fn ask_resembling(&self, statement: &Statement, items: &[Digest], bases: &mut Bases) -> Result<()> {
        let bundle = statement.bundle();
        for items in items.chunks(ASKED) {
            let (name, version) = (bundle.name.clone(), bundle.version.clone());
            let question = HaveQuestion { bundle: name, version, items: items.to_vec() };
            let answer: HaveAnswer = match self.question(path::HAVE, &question).await {
                Ok(answer) => answer,
                // What is not answered is not used.
                Err(error) if !error.kind().is_retryable() => return Ok(()),
                Err(error) => return Err(error),
            };
            for one in answer.items {
                for held in one.have.into_iter().take(super::similar::MAX_BASES) {
                    let given = self.was_given(&held.digest, held.size)?;
                    let candidate = Candidate { digest: held.digest, size: held.size, name: held.name };
                    if given {
                        bases.answered.entry(one.item).or_default().push(candidate);
                    } else {
                        bases.foreign.entry(one.item).or_insert(candidate);
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether a bundle that the edge is or was to hold has this blob. A digest that the edge merely
    /// knows must not tell it what else resembles the blob.
    fn was_given(&self, digest: &Digest, size: u64) -> Result<bool> {
        for offer in self.desired.bundles.iter().chain(&self.desired.given).take(HELD_AGAINST) {
            let statement = self.known(offer)?;
            if statement.items().iter().any(|item| item.digest == *digest && item.size == size) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The bundles that the edge shows.
    async fn at_edge(&self) -> Result<Arc<Vec<BundleAnswer>>> {
        let asked = self.push.at_edge.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(known) = asked {
            return Ok(known);
        }
        let answer = self.call(Call::new(Verb::Get, path::BUNDLES)).await?;
        // Without the right to list there is nothing to build on.
        let listed: Vec<BundleAnswer> = match answer.status {
            401 | 403 | 404 => Vec::new(),
            _ => decode(&self.settle(answer)?)?,
        };
        let shown = Arc::new(listed.into_iter().filter(|one| one.state == "committed").collect::<Vec<_>>());
        *self.push.at_edge.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown.clone());
        Ok(shown)
    }

    fn known(&self, offer: &BundleOffer) -> Result<Arc<Statement>> {
        let mut statements = self.push.statements.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(statement) = statements.get(&offer.digest) {
            return Ok(statement.clone());
        }
        let envelope = Envelope::parse(&offer.envelope)?;
        let statement = Arc::new(Statement::parse(&envelope.payload)?);
        statements.insert(offer.digest, statement.clone());
        Ok(statement)
    }
}

/// Blobs as jobs: whole ones on their own, artefacts together as far as they are small.
fn gathered(decided: Vec<Decided>) -> Vec<Job> {
    let mut jobs = Vec::new();
    let (mut pack, mut bytes) = (Vec::new(), 0);
    for one in decided {
        match one {
            Decided::Whole(want) => jobs.push(Job::Whole(want)),
            Decided::Artefact(section) => {
                let more = section.planned.artefact.size;
                if !pack.is_empty() && (bytes + more > GATHERED || pack.len() == TOGETHER) {
                    jobs.push(Job::Pack(std::mem::take(&mut pack)));
                    bytes = 0;
                }
                bytes += more;
                pack.push(section);
            }
        }
    }
    if !pack.is_empty() {
        jobs.push(Job::Pack(pack));
    }
    jobs
}

fn by_id(answer: PackAnswer) -> BTreeMap<Digest, SectionAnswer> {
    answer.sections.into_iter().map(|section| (section.id, section)).collect()
}

/// The frames that the edge does not have; an empty run if it has all and is to apply them.
fn missing(head: &PartHead, answer: Option<&SectionAnswer>) -> Result<Vec<Range<u64>>> {
    let frames = head.frames();
    let Some(answer) = answer.filter(|answer| answer.state == SectionState::Partial) else {
        return Ok(std::iter::once(0..frames).collect());
    };
    if answer.missing.is_empty() {
        return Ok(std::iter::once(frames..frames).collect());
    }
    let mut at = 0;
    let mut runs = Vec::new();
    for (from, until) in &answer.missing {
        if *from < at || until <= from || *until > frames {
            let message = format!("the edge misses frames {from} to {until} of {frames}");
            return Err(Error::invalid(message));
        }
        at = *until;
        runs.push(*from..*until);
    }
    Ok(runs)
}

struct Part {
    head: PartHead,
    frames: Range<u64>,
    data: Arc<dyn ReadAt>,
}

/// A pack on its way out.
struct Packing {
    writer: Option<Writer<Vec<u8>>>,
    parts: std::vec::IntoIter<Part>,
    part: Option<(Part, u64)>,
}

impl Packing {
    /// The next piece: whole frames, so that a stream which ends between two pieces ends between two
    /// frames.
    fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let Some(writer) = &mut self.writer else { return Ok(None) };
            match self.part.take() {
                Some((part, at)) if at < part.frames.end => {
                    let mut frame = vec![0; crate::delta::pack::frame_length(part.head.length, at) as usize];
                    part.data.read_exact_at(&mut frame, at * FRAME)?;
                    writer.frame(&frame)?;
                    self.part = Some((part, at + 1));
                }
                Some(_) => writer.end()?,
                None => match self.parts.next() {
                    Some(part) => {
                        writer.begin(part.head.clone())?;
                        let at = part.frames.start;
                        self.part = Some((part, at));
                    }
                    None => {
                        let rest = self.writer.take().map(Writer::finish).transpose()?;
                        return Ok(rest.map(Bytes::from));
                    }
                },
            }
            if writer.get_mut().len() as u64 >= FRAME {
                return Ok(Some(std::mem::take(writer.get_mut()).into()));
            }
        }
    }
}

fn stream_of(parts: Vec<Part>) -> ByteStream {
    let begin = Writer::new(Vec::new()).map(|writer| Packing {
        writer: Some(writer),
        parts: parts.into_iter(),
        part: None,
    });
    match begin {
        Err(error) => Box::pin(stream::once(async { Err(error) })),
        Ok(packing) => Box::pin(stream::try_unfold(packing, |mut packing| {
            blocking::run(move || Ok(packing.next()?.map(|piece| (piece, packing))))
        })),
    }
}
