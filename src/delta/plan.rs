//! Choosing how a blob travels: whole, compressed, or as what differs from the bases.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::compose::{Against, patch};
use super::inventory::Inventory;
use super::lz;
use super::medium::{ReadAt, Scratch, Spool};
use super::open::Limits;
use super::pair::{digest, each_chunk};
use super::patch::{Header, MOST_BASES, Method};
use crate::digest::Digest;
use crate::error::{ErrorKind, Result};

/// A blob that the receiver has.
#[derive(Clone, Debug)]
pub struct Base {
    /// Its SHA-256.
    pub digest: Digest,
    /// Its bytes.
    pub data: Arc<dyn ReadAt>,
}

/// What a plan may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Budget {
    /// 0 to 9: each step about doubles the CPU time that is allowed; 5 is about 5 s for each MB of
    /// the blob. 0 tries nothing but copies and quick compression.
    pub effort: u8,
    /// Bytes of memory.
    pub memory: u64,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { effort: 5, memory: 1 << 30 }
    }
}

impl Budget {
    /// Nanoseconds of CPU time for a blob of `size` bytes; estimates, not readings of a clock, so
    /// that the same blobs give the same plan everywhere.
    fn nanoseconds(self, size: u64) -> u64 {
        let per_byte = match self.effort {
            0 => 50,
            1 => 150,
            2 => 500,
            3 => 1_000,
            4 => 2_000,
            5 => 4_800,
            6 => 9_000,
            7 => 18_000,
            8 => 50_000,
            _ => return u64::MAX,
        };
        // Small blobs are cheap anyway.
        size.saturating_mul(per_byte).saturating_add(200_000_000)
    }
}

/// What a planner is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Opening containers and decoding what is in them.
    Open,
    /// Finding the encoders that made the compressed streams.
    Identify,
    /// Splitting streams whose encoder is not known.
    Split,
    /// Finding what is the same and what is alike.
    Match,
    /// Executables and other binaries.
    Code,
    /// Everything else that is new.
    Windows,
    /// Compressing the whole blob, for comparison.
    Compress,
    /// Making the blob of the patch, and looking at its digest.
    Verify,
}

impl Phase {
    /// Its name, in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Open => "open",
            Phase::Identify => "identify",
            Phase::Split => "split",
            Phase::Match => "match",
            Phase::Code => "code",
            Phase::Windows => "windows",
            Phase::Compress => "compress",
            Phase::Verify => "verify",
        }
    }
}

/// What a patch is made of, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Account {
    /// Compressed streams that were found in the blob.
    pub streams: u64,
    /// Of those, the ones that a base has as they are.
    pub same: u64,
    /// Those that a known encoder makes.
    pub exact: u64,
    /// Those that were split.
    pub split: u64,
    /// Parts of the opened blob.
    pub leaves: u64,
    /// Bytes of the opened blob that are copied.
    pub copied_bytes: u64,
    /// Bytes of it that went through the code engine.
    pub code_bytes: u64,
    /// Other bytes that are new, or look so.
    pub new_bytes: u64,
    /// What the recipe and the ops take in the patch.
    pub control_size: u64,
    /// What the code engine's part takes.
    pub code_size: u64,
    /// What the other new bytes take.
    pub windows_size: u64,
}

/// How a blob travels.
#[derive(Debug)]
pub struct Plan {
    /// How the artefact makes the blob.
    pub method: Method,
    /// The bases it needs.
    pub bases: Vec<Digest>,
    /// What travels: [`apply`](super::apply) makes the blob of it.
    pub artefact: Box<dyn Spool>,
    /// What the patch is made of, if one was made, chosen or not.
    pub account: Option<Account>,
    /// Why this method, in a sentence.
    pub why: String,
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} streams: {} the same, {} by a known encoder, {} split; {} bytes copied, {} new ones in {}, {} of code in {}",
            self.streams,
            self.same,
            self.exact,
            self.split,
            self.copied_bytes,
            self.new_bytes,
            self.windows_size,
            self.code_bytes,
            self.code_size
        )
    }
}

/// Plans how `target` travels to somebody who has `bases`, the most promising one first.
///
/// A patch is applied here before it is given out: what comes out of the plan makes the blob.
///
/// # Errors
/// Those of the media. What cannot be patched travels whole.
pub fn plan(
    target: &dyn ReadAt,
    bases: &[Base],
    budget: &Budget,
    limits: &Limits,
    scratch: &dyn Scratch,
    progress: &dyn Fn(Phase),
) -> Result<Plan> {
    let bases = &bases[..bases.len().min(MOST_BASES)];
    let against = (!bases.is_empty()).then_some(Against::Bases(bases));
    cheapest(target, against, budget, limits, scratch, progress)
}

/// Plans how `target` travels to somebody who has the blob `base`, whose bytes are not here: what
/// is equal is told by its digests, and nothing is described as similar.
///
/// What comes out of a patch is not tried: it makes the blob if the inventory tells the truth.
///
/// # Errors
/// Those of the media. What cannot be patched travels whole.
pub fn plan_by_inventory(
    target: &dyn ReadAt,
    base: Digest,
    inventory: &Inventory,
    budget: &Budget,
    limits: &Limits,
    scratch: &dyn Scratch,
    progress: &dyn Fn(Phase),
) -> Result<Plan> {
    cheapest(target, Some(Against::Told(base, inventory)), budget, limits, scratch, progress)
}

fn cheapest(
    target: &dyn ReadAt,
    against: Option<Against<'_>>,
    budget: &Budget,
    limits: &Limits,
    scratch: &dyn Scratch,
    progress: &dyn Fn(Phase),
) -> Result<Plan> {
    let size = target.size();
    let header =
        Header { method: Method::Whole, size, digest: digest(target, &(0..size))?, bases: Vec::new() };
    let mut account = None;
    let mut refused = None;
    if let Some(bases) = against
        && size > 0
    {
        match tried(&header, target, bases, budget, limits, scratch, progress) {
            Ok((artefact, made)) => {
                account = Some(made);
                // Half is worth no further thought.
                if artefact.size() < size / 2 {
                    return Ok(chosen(header, bases, artefact, account));
                }
                refused = Some(Ok(artefact));
            }
            Err(error) if error.kind().is_retryable() || error.kind() == ErrorKind::NoSpace => {
                return Err(error);
            }
            Err(error) => refused = Some(Err(error)),
        }
    }
    progress(Phase::Compress);
    let compressed = compressed(&header, target, scratch, budget)?;
    if let Some(Ok(artefact)) = refused {
        if let Some(bases) = against
            && artefact.size() < compressed.size().min(size)
        {
            return Ok(chosen(header, bases, artefact, account));
        }
        refused = None;
    }
    let why_no_patch = match (refused, &account) {
        (Some(Err(error)), _) => format!("no patch could be made: {error}"),
        (_, Some(account)) => format!("a patch would be larger ({account})"),
        _ => "there is nothing to compare with".to_owned(),
    };
    if compressed.size() < size - size / 32 {
        let why = format!("{why_no_patch}; compressed it is smaller");
        let method = Method::Compressed;
        return Ok(Plan { method, bases: Vec::new(), artefact: compressed, account, why });
    }
    let mut artefact = scratch.spool()?;
    artefact.append(&header.to_bytes())?;
    each_chunk(target, &(0..size), &mut |chunk| artefact.append(chunk))?;
    let why = format!("{why_no_patch}, and compressing gains nothing");
    Ok(Plan { method: Method::Whole, bases: Vec::new(), artefact, account, why })
}

/// A patch that makes the target.
fn tried(
    header: &Header,
    target: &dyn ReadAt,
    bases: Against<'_>,
    budget: &Budget,
    limits: &Limits,
    scratch: &dyn Scratch,
    progress: &dyn Fn(Phase),
) -> Result<(Box<dyn Spool>, Account)> {
    let quick = Work::new(*budget, header.size, progress);
    match patch(header, target, bases, limits, scratch, &quick) {
        Err(error) if error.kind() == ErrorKind::Mismatch => {
            let thorough = Work { thorough: true, ..Work::new(*budget, header.size, progress) };
            patch(header, target, bases, limits, scratch, &thorough)
        }
        made => made,
    }
}

fn chosen(header: Header, bases: Against<'_>, artefact: Box<dyn Spool>, account: Option<Account>) -> Plan {
    let percent = artefact.size() as f64 * 100.0 / header.size as f64;
    let made = account.as_ref().map(ToString::to_string).unwrap_or_default();
    let why = format!("a patch takes {percent:.1} % ({made})");
    let bases = match bases {
        Against::Bases(bases) => bases.iter().map(|base| base.digest).collect(),
        Against::Told(digest, _) => vec![digest],
    };
    Plan { method: Method::Patch, bases, artefact, account, why }
}

fn compressed(
    header: &Header,
    target: &dyn ReadAt,
    scratch: &dyn Scratch,
    budget: &Budget,
) -> Result<Box<dyn Spool>> {
    let mut artefact = scratch.spool()?;
    artefact.append(&Header { method: Method::Compressed, ..header.clone() }.to_bytes())?;
    let level = if budget.effort < 5 { 3 } else { 9 };
    lz::stream_in(target, &(0..target.size()), level, &mut |bytes| artefact.append(bytes))?;
    Ok(artefact)
}

/// The budget as it is used up.
pub(super) struct Work<'a> {
    whole: u64,
    left: Cell<u64>,
    pub(super) budget: Budget,
    pub(super) progress: &'a dyn Fn(Phase),
    /// Whether slow encoders are tried on whole streams, because their beginnings misled.
    pub(super) thorough: bool,
}

impl<'a> Work<'a> {
    /// The budget for a blob of `size` bytes.
    pub(super) fn new(budget: Budget, size: u64, progress: &'a dyn Fn(Phase)) -> Work<'a> {
        let whole = budget.nanoseconds(size);
        Work { whole, left: Cell::new(whole), budget, progress, thorough: false }
    }

    /// Takes the cost of trying something out, if half of the budget is left afterwards for what
    /// has to be done.
    pub(super) fn try_out(&self, nanoseconds: u64) -> bool {
        let after = self.left.get().checked_sub(nanoseconds).filter(|after| *after >= self.whole / 2);
        self.left.set(after.unwrap_or(self.left.get()));
        after.is_some()
    }

    /// Takes the cost of handling `bytes` at so many nanoseconds each, if it is there.
    pub(super) fn take(&self, bytes: u64, nanoseconds: u64) -> bool {
        let cost = bytes.saturating_mul(nanoseconds);
        let enough = cost <= self.left.get();
        if enough {
            self.left.set(self.left.get() - cost);
        }
        enough
    }

    /// As [`take`](Work::take), for what has to be done anyway.
    pub(super) fn spend(&self, bytes: u64, nanoseconds: u64) {
        self.left.set(self.left.get().saturating_sub(bytes.saturating_mul(nanoseconds)));
    }
}
