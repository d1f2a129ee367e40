//! The edge's half of sending less: takes packs, makes blobs of artefacts, says what it has.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tracing::info;

use super::inbox::{Inbox, PartWriter};
use super::medium::{FileScratch, readable};
use super::message::{
    HAVE, HaveAnswer, HaveQuestion, Held, PACK, PARTS, PackAnswer, PartsQuestion, Resembling, SectionAnswer,
    SectionState, patches,
};
use super::receive::Receiver;
use super::similar::{MAX_BUNDLES, Roles, Shelf, likelihood};
use super::slots::Slots;
use crate::blob::{BlobInfo, BlobWriter, ByteStream};
use crate::blocking;
use crate::catalog::{BundleRecord, BundleState};
use crate::delta::pack::{Descriptor, Event, PartHead, Reader, Role, SectionId};
use crate::delta::{self, Inventory, Limits, MemoryScratch, ReadAt, Scratch};
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};

/// Artefacts that wait in memory when no directory is given.
const IN_MEMORY: u64 = 256 << 20;
/// Artefacts that are applied at the same time: large ones take turns, for their memory.
const AT_A_TIME: usize = 4;
/// An artefact is small if it, its bases and its blob together have no more bytes.
const SMALL: u64 = 2 << 20;
/// How long the answer to a pack waits for its artefacts to be applied.
const PATIENCE: Duration = Duration::from_secs(20);
/// What a writer is given at once.
const PIECE: usize = 256 * 1024;
/// An artefact to which nothing came for so many seconds is given up.
const KEPT_FOR: i64 = 7 * 24 * 3600;
/// Most verdicts that wait to be asked for.
const VERDICTS: usize = 4096;
/// Most entries of statements that are kept at hand.
const INDEXED: usize = 1 << 20;
/// Most artifacts in one question.
const ASKED: usize = 10_000;
/// Most parts of one pack.
const MOST_PARTS: usize = 10_000;
/// Most artefacts in one question.
const SECTIONS: usize = 100_000;

/// What is needed to make blobs of artefacts.
#[derive(Debug)]
pub(super) struct Unpacking {
    pub(super) inbox: Inbox,
    scratch: Arc<dyn Scratch>,
    /// For large and for small artefacts.
    slots: (Slots, Slots),
    /// For inventories.
    listing: Slots,
    verdicts: Mutex<BTreeMap<SectionId, Verdict>>,
    /// The blobs of statements, by the statement's digest.
    indexed: Mutex<BTreeMap<Digest, Index>>,
}

/// Digests and sizes, sorted.
type Index = Arc<[(Digest, u64)]>;

#[derive(Debug)]
enum Verdict {
    Working,
    Stored,
    Refused(String),
}

impl Default for Unpacking {
    fn default() -> Unpacking {
        Unpacking::over(Inbox::memory(IN_MEMORY), Arc::new(MemoryScratch))
    }
}

impl Unpacking {
    fn over(inbox: Inbox, scratch: Arc<dyn Scratch>) -> Unpacking {
        let (verdicts, indexed) = (Mutex::default(), Mutex::default());
        let slots = (Slots::new(1), Slots::new(AT_A_TIME - 1));
        Unpacking { inbox, scratch, slots, listing: Slots::new(1), verdicts, indexed }
    }

    fn verdicts(&self) -> MutexGuard<'_, BTreeMap<SectionId, Verdict>> {
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the right to apply an artefact; `None` if somebody does already.
    fn begin(self: &Arc<Self>, section: SectionId) -> Option<Working> {
        let mut verdicts = self.verdicts();
        if matches!(verdicts.get(&section), Some(Verdict::Working)) {
            return None;
        }
        if verdicts.len() >= VERDICTS {
            verdicts.retain(|_, verdict| matches!(verdict, Verdict::Working));
        }
        verdicts.insert(section, Verdict::Working);
        drop(verdicts);
        Some(Working { unpacking: self.clone(), section })
    }

    /// What became of an artefact, if it was applied. An answer may be lost on its way, so it is
    /// kept for the next question.
    fn verdict(&self, section: &SectionId) -> Option<SectionAnswer> {
        let (state, why) = match self.verdicts().get(section)? {
            Verdict::Working => (SectionState::Working, None),
            Verdict::Stored => (SectionState::Stored, None),
            Verdict::Refused(why) => (SectionState::Refused, Some(why.clone())),
        };
        Some(answer(*section, state, why))
    }

    /// A new part came: what was said of the artefact does not hold any more.
    fn reconsider(&self, section: &SectionId) {
        let mut verdicts = self.verdicts();
        if matches!(verdicts.get(section), Some(Verdict::Stored | Verdict::Refused(_))) {
            verdicts.remove(section);
        }
    }
}

/// The right to apply an artefact, up to its verdict.
struct Working {
    unpacking: Arc<Unpacking>,
    section: SectionId,
}

impl Working {
    fn judge(self, verdict: Verdict) {
        self.unpacking.verdicts().insert(self.section, verdict);
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        let mut verdicts = self.unpacking.verdicts();
        // Given up before its end: it can be begun again.
        if matches!(verdicts.get(&self.section), Some(Verdict::Working)) {
            verdicts.remove(&self.section);
        }
    }
}

/// Which blobs the bundles of this tenant need, and which they have.
pub(super) struct Needs {
    records: Vec<BundleRecord>,
}

impl Receiver {
    /// The same receiver, which keeps what arrives of packs in `directory`, at most `limit` bytes of
    /// it, and goes on with it after a restart. Without this they wait in memory.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if the directory cannot be used.
    pub fn with_inbox(mut self, directory: impl AsRef<Path>, limit: u64) -> Result<Receiver> {
        let directory = directory.as_ref();
        let inbox = Inbox::directory(directory, limit)?;
        let scratch = FileScratch::open(directory.join("scratch"))?;
        self.unpacking = Arc::new(Unpacking::over(inbox, Arc::new(scratch)));
        Ok(self)
    }

    pub(super) fn accepts(&self) -> Vec<String> {
        vec![PACK.to_owned(), patches(), HAVE.to_owned(), PARTS.to_owned()]
    }

    /// Takes a pack. Every frame that arrives whole is kept, also when the stream breaks off. An
    /// artefact that is complete is made into its blob, which is verified, durable, and there.
    ///
    /// An artefact is applied only against blobs that visible bundles of this tenant hold, and only
    /// if it makes a blob that an offered bundle of this tenant needs.
    pub async fn unpack(&self, mut bytes: ByteStream) -> Result<PackAnswer> {
        let needs = self.needs().await?;
        let mut reader = Reader::new();
        let mut taking: Option<PartWriter> = None;
        let mut heads: BTreeMap<SectionId, PartHead> = BTreeMap::new();
        let mut refused: BTreeMap<SectionId, String> = BTreeMap::new();
        while let Some(chunk) = bytes.next().await {
            let chunk = chunk?;
            let mut input = &chunk[..];
            while let Some(event) = reader.feed(&mut input)? {
                match event {
                    Event::Head(head) => {
                        check_count(usize::try_from(reader.parts()).unwrap_or(usize::MAX), MOST_PARTS)?;
                        taking = match self.admit(&needs, &head).await {
                            Ok(writer) => writer,
                            Err(error) => {
                                refused.insert(head.section, error.to_string());
                                None
                            }
                        };
                        heads.insert(head.section, head);
                    }
                    Event::Frame(frame) => {
                        if let Some(mut writer) = taking.take() {
                            let kept = blocking::run(move || writer.frame(&frame).map(|()| writer));
                            taking = Some(kept.await?);
                        }
                    }
                    Event::PartEnd => taking = None,
                    Event::End => {}
                }
            }
        }
        reader.finish()?;
        let ids: Vec<SectionId> = heads.keys().copied().collect();
        let mut complete = Vec::new();
        for (section, head) in heads {
            if !refused.contains_key(&section) && self.is_complete(&section).await? {
                complete.push(head);
            }
        }
        let receiver = self.clone();
        let work = async move {
            let made = stream::iter(complete).map(|head| receiver.make(head));
            made.buffer_unordered(AT_A_TIME).for_each(|()| async {}).await;
        };
        blocking::within(PATIENCE, work).await?;
        let mut answer = self.sections(&ids).await?;
        for section in &mut answer.sections {
            if let Some(why) = refused.remove(&section.id) {
                (section.state, section.why) = (SectionState::Refused, Some(why));
                section.missing.clear();
            }
        }
        Ok(answer)
    }

    /// Which frames of artefacts are here, or what became of them.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] for a question with too many artefacts.
    pub async fn sections(&self, ids: &[SectionId]) -> Result<PackAnswer> {
        check_count(ids.len(), SECTIONS)?;
        let mut sections = Vec::new();
        for (step, id) in ids.iter().enumerate() {
            blocking::after_step(step).await;
            if let Some(judged) = self.unpacking.verdict(id) {
                sections.push(judged);
                continue;
            }
            let (inbox, section) = (self.unpacking.inbox.clone(), *id);
            let position = blocking::run(move || inbox.position(&section)).await?;
            sections.push(match position {
                None => answer(*id, SectionState::Absent, None),
                Some(position) => SectionAnswer {
                    missing: position.missing.iter().map(|run| (run.start, run.end)).collect(),
                    ..answer(*id, SectionState::Partial, None)
                },
            });
        }
        Ok(PackAnswer { sections })
    }

    /// What visible bundles of this tenant have that resembles artifacts of an offered bundle.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the bundle was not offered; [`ErrorKind::TooLarge`] for a question
    /// with too many artifacts.
    pub async fn resembling(&self, question: &HaveQuestion) -> Result<HaveAnswer> {
        check_count(question.items.len(), ASKED)?;
        let statement = self.statement(&question.bundle, &question.version).await?;
        let mut records = self.catalog.bundles().await?;
        records.retain(|record| record.state == BundleState::Committed && record.holds_blobs);
        records.sort_by_key(|record| {
            likelihood(statement.bundle(), &record.name, record.seq, record.created.as_unix())
        });
        let (mut shelf, mut roles) = (Shelf::default(), Roles::default());
        roles.read_all(&*self.blobs, &statement).await;
        for record in records.iter().take(MAX_BUNDLES) {
            let held = self.statement(&record.name, &record.version).await?;
            roles.read_all(&*self.blobs, &held).await;
            shelf.add(&held, &roles);
        }
        let asked: BTreeSet<&Digest> = question.items.iter().collect();
        let mut found: BTreeMap<Digest, Vec<Held>> = BTreeMap::new();
        for (step, item) in statement.items().iter().filter(|item| asked.contains(&item.digest)).enumerate() {
            blocking::after_step(step).await;
            let name = item.name();
            let mut called = vec![name.as_str()];
            called.extend(roles.of(&item.digest));
            let mut have = Vec::new();
            for one in shelf.choose(&called, &item.digest, item.size) {
                if self.blobs.stat(&one.digest).await?.is_some_and(|stored| stored.size == one.size) {
                    have.push(Held { digest: one.digest, size: one.size, name: one.name });
                }
            }
            if !have.is_empty() {
                found.entry(item.digest).or_insert(have);
            }
        }
        let items = found.into_iter().map(|(item, have)| Resembling { item, have }).collect();
        Ok(HaveAnswer { items })
    }

    /// What a blob of a visible bundle of this tenant is made of, told by digests, for an artifact of
    /// an offered bundle.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the bundle was not offered or has no such artifact, or if no visible
    /// bundle has the blob; [`ErrorKind::TooLarge`] if it is made of too many parts.
    pub async fn parts(&self, question: &PartsQuestion) -> Result<Vec<u8>> {
        let statement = self.statement(&question.bundle, &question.version).await?;
        if !statement.items().iter().any(|item| item.digest == question.item) {
            let message = format!("{} is no artifact of the bundle", question.item);
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        // The same for what is not here, and for what is another tenant's.
        let none = || Error::new(ErrorKind::NotFound, format!("{} is not here", question.base));
        let base = self.blobs.stat(&question.base).await?.ok_or_else(none)?;
        let base = Descriptor { digest: question.base, size: base.size };
        if !self.is_in(&self.needs().await?, &base, true).await? {
            return Err(none());
        }
        let slot = self.unpacking.listing.take().await;
        let scratch = self.unpacking.scratch.clone();
        let data = readable(&*self.blobs, &base.digest, base.size, &*scratch).await?.ok_or_else(none)?;
        blocking::run(move || {
            // Held to the end of the work, even if nobody waits for it any more.
            let _slot = slot;
            Inventory::of(&*data, &Limits::default(), &*scratch)?.to_bytes()
        })
        .await
    }

    /// Gives up what came of artefacts that nobody waits for.
    pub(super) async fn discard_sections(&self, awaited: BTreeSet<Digest>) -> Result<u64> {
        let (inbox, oldest) = (self.unpacking.inbox.clone(), self.now().plus(-KEPT_FOR));
        blocking::run(move || inbox.collect(oldest, &|head| awaited.contains(&head.target.digest))).await
    }

    /// Whether frames of this artefact may come; `None` while somebody else sends some.
    pub(super) async fn admit(&self, needs: &Needs, head: &PartHead) -> Result<Option<PartWriter>> {
        if head.role != Role::Artefact {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "a pack for an edge holds artefacts and nothing else",
            ));
        }
        if !self.is_in(needs, &head.target, false).await? {
            let message = format!("no bundle that was offered here needs {}", head.target.digest);
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        for base in &head.bases {
            if !self.is_in(needs, base, true).await? {
                let message = format!("no bundle here has the base {}", base.digest);
                return Err(Error::new(ErrorKind::NotFound, message));
            }
        }
        self.unpacking.reconsider(&head.section);
        let (inbox, head) = (self.unpacking.inbox.clone(), head.clone());
        blocking::run(move || match inbox.accept(&head) {
            Ok(writer) => Ok(Some(writer)),
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(None),
            Err(error) => Err(error),
        })
        .await
    }

    pub(super) async fn is_complete(&self, section: &SectionId) -> Result<bool> {
        let (inbox, section) = (self.unpacking.inbox.clone(), *section);
        let position = blocking::run(move || inbox.position(&section)).await?;
        Ok(position.is_some_and(|position| position.missing.is_empty()))
    }

    /// Makes the blob of a complete artefact, and notes what came of it.
    async fn make(&self, head: PartHead) {
        let Some(working) = self.unpacking.begin(head.section) else { return };
        let verdict = match self.try_make(&head).await {
            Ok(()) => Verdict::Stored,
            Err(error) => Verdict::Refused(self.refuse(&head, error).await.to_string()),
        };
        let (inbox, section) = (self.unpacking.inbox.clone(), head.section);
        if let Err(error) = blocking::run(move || inbox.remove(&section)).await {
            tracing::warn!(%error, "an artefact that is done with stays");
        }
        working.judge(verdict);
    }

    /// Makes the blob of a complete artefact, which is done with then; except when it failed for a
    /// reason that may go away.
    pub(super) async fn make_now(&self, head: &PartHead) -> Result<()> {
        let made = match self.try_make(head).await {
            Err(error) if error.kind().is_retryable() && error.kind() != ErrorKind::Corrupted => {
                return Err(error);
            }
            Err(error) => Err(self.refuse(head, error).await),
            Ok(()) => Ok(()),
        };
        let (inbox, section) = (self.unpacking.inbox.clone(), head.section);
        blocking::run(move || inbox.remove(&section)).await?;
        made
    }

    async fn try_make(&self, head: &PartHead) -> Result<()> {
        let target = BlobInfo { digest: head.target.digest, size: head.target.size };
        let bytes: u64 = head.bases.iter().map(|base| base.size).fold(0, u64::saturating_add);
        let small = bytes.saturating_add(head.length).saturating_add(target.size) <= SMALL;
        let (large, little) = &self.unpacking.slots;
        let slot = if small { little.take().await } else { large.take().await };
        if self.is_here(&target).await? {
            return Ok(());
        }
        let (inbox, section) = (self.unpacking.inbox.clone(), head.section);
        let artefact = blocking::run(move || inbox.complete(&section)).await?.ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, format!("the artefact {section} is not complete any more"))
        })?;
        let scratch = self.unpacking.scratch.clone();
        let mut bases = Vec::new();
        for base in &head.bases {
            let opened = readable(&*self.blobs, &base.digest, base.size, &*scratch).await?;
            let opened = opened.ok_or_else(|| {
                Error::new(ErrorKind::NotFound, format!("the base {} is missing here", base.digest))
            })?;
            bases.push((base.digest, opened));
        }
        let writer = self.blobs.create(&target).await?;
        blocking::run(move || {
            // Held to the end of the work, even if nobody waits for it any more.
            let _slot = slot;
            if section != target.digest {
                check_header(&*artefact, &target)?;
            }
            let mut out = Filling { writer, piece: Vec::with_capacity(PIECE), failed: None };
            let made = match section == target.digest {
                // The artefact is the blob.
                true => copy(&*artefact, &mut out),
                false => delta::apply(&*artefact, &bases, &Limits::default(), &*scratch, &mut out).map(drop),
            };
            // What the store says is more than what can be said through a `Write`.
            if let Some(error) = out.failed.take() {
                return Err(error);
            }
            made?;
            out.finish()
        })
        .await?;
        self.remember_shown(&target.digest).await?;
        info!(blob = %target.digest, bytes = target.size, artefact = head.length, "blob made of an artefact");
        Ok(())
    }

    /// Finds out whether a damaged base is to blame, and notes the refusal.
    async fn refuse(&self, head: &PartHead, error: Error) -> Error {
        let mut error = error.context(format_args!("making {} of an artefact", head.target.digest));
        for base in &head.bases {
            if matches!(self.check_blob(&base.digest).await, Ok(Some(true))) {
                error = error.context(format_args!("the base {} was damaged here", base.digest));
            }
        }
        let noted = self.note("pack.refused", &head.target.digest.to_string(), &error).await;
        noted.err().unwrap_or(error)
    }

    pub(super) async fn needs(&self) -> Result<Needs> {
        let mut records = self.catalog.bundles().await?;
        records.retain(|record| record.holds_blobs);
        records.sort_by_key(|record| std::cmp::Reverse(record.offered));
        Ok(Needs { records })
    }

    /// Whether a bundle of this tenant, a visible one if that is asked for, names this blob.
    async fn is_in(&self, needs: &Needs, blob: &Descriptor, visible: bool) -> Result<bool> {
        for record in &needs.records {
            if visible && record.state != BundleState::Committed {
                continue;
            }
            if self.index(record).await?.binary_search(&(blob.digest, blob.size)).is_ok() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn index(&self, record: &BundleRecord) -> Result<Index> {
        let kept = || self.unpacking.indexed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = kept().get(&record.digest) {
            return Ok(index.clone());
        }
        let statement = self.statement(&record.name, &record.version).await?;
        let mut index: Vec<(Digest, u64)> =
            statement.items().iter().map(|item| (item.digest, item.size)).collect();
        index.sort_unstable();
        index.dedup();
        let index: Index = index.into();
        let mut kept = kept();
        if kept.values().map(|index| index.len()).sum::<usize>() + index.len() > INDEXED {
            kept.clear();
        }
        kept.insert(record.digest, index.clone());
        Ok(index)
    }
}

/// Whether an artefact is for the blob that the pack says.
fn check_header(artefact: &dyn ReadAt, target: &BlobInfo) -> Result<()> {
    let header = delta::inspect(artefact)?;
    if (header.digest, header.size) == (target.digest, target.size) {
        return Ok(());
    }
    let message = format!("the artefact makes {} of {} bytes", header.digest, header.size);
    Err(Error::new(ErrorKind::Mismatch, message))
}

fn copy(artefact: &dyn ReadAt, out: &mut dyn Write) -> Result<()> {
    let mut buffer = vec![0; PIECE];
    let mut at = 0;
    while at < artefact.size() {
        let piece = (artefact.size() - at).min(PIECE as u64) as usize;
        artefact.read_exact_at(&mut buffer[..piece], at)?;
        out.write_all(&buffer[..piece]).map_err(|cause| Error::io("writing a blob", cause))?;
        at += piece as u64;
    }
    Ok(())
}

/// Gives a blob's bytes to its writer, from a thread that may wait.
struct Filling {
    writer: Box<dyn BlobWriter>,
    piece: Vec<u8>,
    failed: Option<Error>,
}

impl Filling {
    fn finish(mut self) -> Result<()> {
        self.flush().map_err(|cause| Error::io("writing a blob", cause))?;
        blocking::wait(self.writer.commit()).map(drop)
    }
}

impl Write for Filling {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        blocking::wait(self.writer.write(full.into())).map_err(|error| {
            let shown = io::Error::other(error.to_string());
            self.failed = Some(error);
            shown
        })
    }
}

fn answer(id: SectionId, state: SectionState, why: Option<String>) -> SectionAnswer {
    SectionAnswer { id, state, missing: Vec::new(), why }
}

fn check_count(asked: usize, most: usize) -> Result<()> {
    if asked <= most {
        return Ok(());
    }
    Err(Error::new(ErrorKind::TooLarge, format!("{asked} at once are more than the {most} allowed here")))
}
