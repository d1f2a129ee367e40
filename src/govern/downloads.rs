//! Who fetched what, how often, and how much of it.
//!
//! The counters are made from the audit log and from nothing else: they are in the metadata store with
//! the number of the entry up to which they count, in one batch, and the entries after it are added
//! whenever somebody asks. So they are exact, also after a crash, and cost a download nothing.
//!
//! A record holds the counts of one value (an artifact, a bundle…) of one day, by the hour. Subjects
//! stand in it under a keyed hash that means nothing once the person is erased.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use futures_util::lock::Mutex;
use serde::{Deserialize, Serialize};

use super::Records;
use super::record::encode;
use crate::audit::{Entry, TileLog, kind};
use crate::blocking;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::meta::{Batch, MetadataStore};
use crate::name::Tenant;

const HOUR: i64 = 3_600;
const DAY: i64 = 86_400;
/// Records that are changed together at most, about; the entries of one step go on until then.
const MAX_CHANGED: usize = 2_048;
/// Entries of one step.
const MAX_STEP: u64 = 100_000;
/// Downloads that are remembered until their end is met; others are looked up in the log.
const MAX_OPEN: usize = 65_536;
/// Different values that one answer may be made of.
const MAX_VALUES: usize = 200_000;
/// Most rows of a page.
const MAX_PAGE: usize = 1_000;
/// The longest value; a longer one is cut, and what is cut alike is counted together.
const MAX_VALUE: usize = 1_300;

/// What downloads are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Group {
    /// `repository/path`.
    Artifact,
    /// The bundle that brought it.
    Bundle,
    /// `bundle/version`.
    Version,
    /// Who fetched it: a principal, `anonymous`, or `erased`.
    Subject,
    /// From which country; `unknown` if that could not be told.
    Country,
    /// By which signed URL.
    Link,
}

impl Group {
    /// Every group.
    pub const ALL: [Group; 6] =
        [Group::Artifact, Group::Bundle, Group::Version, Group::Subject, Group::Country, Group::Link];

    /// A stable lower-case name.
    pub fn as_str(self) -> &'static str {
        match self {
            Group::Artifact => "artifact",
            Group::Bundle => "bundle",
            Group::Version => "version",
            Group::Subject => "subject",
            Group::Country => "country",
            Group::Link => "link",
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Group {
    type Err = Error;

    fn from_str(text: &str) -> Result<Group> {
        Group::ALL.into_iter().find(|group| group.as_str() == text).ok_or_else(|| {
            let known: Vec<&str> = Group::ALL.iter().map(|group| group.as_str()).collect();
            Error::invalid(format!("downloads are grouped by one of {}", known.join(", ")))
        })
    }
}

/// How many downloads, and how much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Downloads that began.
    #[serde(default)]
    pub started: u64,
    /// Downloads whose last byte was delivered.
    #[serde(default)]
    pub completed: u64,
    /// Downloads that ended before.
    #[serde(default)]
    pub aborted: u64,
    /// Bytes that were delivered.
    #[serde(default)]
    pub bytes: u64,
}

impl Counts {
    fn add(&mut self, other: &Counts) {
        self.started += other.started;
        self.completed += other.completed;
        self.aborted += other.aborted;
        self.bytes += other.bytes;
    }
}

/// What one wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DownloadQuery {
    /// By what.
    pub group: Group,
    /// From the hour of this moment on.
    pub from: Option<Timestamp>,
    /// Before the hour of this moment.
    pub until: Option<Timestamp>,
    /// Of this value alone, or of those that begin with it if it ends in a slash.
    pub value: Option<String>,
    /// Whether each row is about one hour, about one day, or about all of the time asked for.
    pub step: Step,
    /// After this row: the [`next`](DownloadPage::next) of the page before.
    pub after: Option<String>,
    /// At most so many; 0 stands for 100.
    pub limit: usize,
}

impl DownloadQuery {
    /// Everything by `group`.
    pub fn new(group: Group) -> DownloadQuery {
        DownloadQuery { group, from: None, until: None, value: None, step: Step::All, after: None, limit: 0 }
    }
}

/// The time that a row is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Step {
    /// All of the time asked for.
    #[default]
    All,
    /// A day.
    Day,
    /// An hour.
    Hour,
}

impl FromStr for Step {
    type Err = Error;

    fn from_str(text: &str) -> Result<Step> {
        match text {
            "all" => Ok(Step::All),
            "day" => Ok(Step::Day),
            "hour" => Ok(Step::Hour),
            _ => Err(Error::invalid("a row is about one of all, day, hour")),
        }
    }
}

/// One value's downloads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DownloadRow {
    /// The value: an artifact, a bundle…
    pub value: String,
    /// When the hour or the day begins, if rows are about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// How many.
    #[serde(flatten)]
    pub counts: Counts,
}

/// Some of the rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DownloadPage {
    /// In the order of their values.
    pub rows: Vec<DownloadRow>,
    /// Where to go on; `None` if there is no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// All of them together, those on other pages included.
    pub total: Counts,
    /// The counters count the entries of the log before this one.
    pub position: u64,
}

/// The counters of a tenant's downloads. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Downloads {
    records: Records,
    log: Arc<TileLog>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    open: HashMap<u64, Arc<Dimensions>>,
    /// Subjects by the commitment in the log.
    subjects: HashMap<String, String>,
}

/// What a download is counted under.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Dimensions([Option<String>; 6]);

/// The changes of one step.
#[derive(Debug, Default)]
struct Folded {
    /// By group and value, day, and hour.
    counts: BTreeMap<(u8, i64, String), BTreeMap<u8, Counts>>,
    position: u64,
    done: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    hours: BTreeMap<u8, Counts>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Position {
    next: u64,
}

impl Downloads {
    /// The counters in `store`, which are made from `log`.
    pub fn open(store: Arc<dyn MetadataStore>, tenant: &Tenant, log: Arc<TileLog>) -> Downloads {
        Downloads { records: Records::new(store, tenant, "downloads"), log, state: Arc::default() }
    }

    /// Counts what is new in the log; answers the number of the first entry that is not counted.
    ///
    /// An edge calls it now and then, so that a question does not have much to wait for.
    pub async fn catch_up(&self) -> Result<u64> {
        let mut state = self.state.lock().await;
        self.count(&mut state).await
    }

    async fn count(&self, state: &mut State) -> Result<u64> {
        loop {
            let (position, entry) = self.records.read::<Position>("position").await?.unzip();
            let from = position.map_or(0, |position| position.next).max(self.log.first());
            let log = Arc::clone(&self.log);
            let mut taken = std::mem::take(state);
            let (taken, folded) = blocking::run(move || {
                let folded = fold(&log, from, &mut taken)?;
                Ok((taken, folded))
            })
            .await?;
            *state = taken;
            if folded.position == from {
                return Ok(from);
            }
            let mut batch = Batch::new();
            let key = self.records.key("position");
            batch.expect_unchanged(key.clone(), entry.as_ref());
            batch.put(key, encode(&Position { next: folded.position })?);
            for ((group, day, value), hours) in folded.counts {
                let id = id(group, day, &value);
                let mut record =
                    self.records.read::<Record>(&id).await?.map_or_else(Record::default, |read| read.0);
                for (hour, counts) in hours {
                    record.hours.entry(hour).or_default().add(&counts);
                }
                batch.put(self.records.key(&id), encode(&record)?);
            }
            // If another one counted meanwhile, nothing of this is written, and it begins anew.
            match self.records.store().commit(batch).await {
                Ok(_) if folded.done => return Ok(folded.position),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Answers a question, with all that happened before it.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] if there are too many different values in the time asked for.
    pub async fn query(&self, query: &DownloadQuery) -> Result<DownloadPage> {
        let position = self.catch_up().await?;
        let limit = if query.limit == 0 { 100 } else { query.limit.min(MAX_PAGE) };
        let first = query.from.map_or(0, |from| from.as_unix() / HOUR);
        let end = query.until.map_or(i64::MAX, |until| (until.as_unix() + HOUR - 1) / HOUR);
        let group = query.group as u8;
        let mut wanted = query.value.clone();
        if let (Group::Subject, Some(value)) = (query.group, &wanted) {
            wanted = Some(self.subject(value));
        }
        let fits = |value: &str| match &wanted {
            Some(wanted) => value == wanted || wanted.ends_with('/') && value.starts_with(&**wanted),
            None => true,
        };
        let mut rows: BTreeMap<(String, i64), Counts> = BTreeMap::new();
        let mut total = Counts::default();
        let last = if end == i64::MAX { "~".to_owned() } else { day_text((end - 1) * HOUR / DAY + 1) };
        let from = self.records.key(&format!("{group}/{}", day_text(first * HOUR / DAY)));
        let until = self.records.key(&format!("{group}/{last}"));
        let mut at = from;
        loop {
            let entries = self.records.store().scan(&at[..]..&until[..], 512).await?;
            let Some(newest) = entries.last() else { break };
            let following = [&newest.key[..], b"\0"].concat();
            for entry in &entries {
                let prefix = self.records.key("").len();
                let id = std::str::from_utf8(&entry.key[prefix..]).unwrap_or_default();
                let Some((day, value)) = parse_id(id).filter(|(_, value)| fits(value)) else { continue };
                let record: Record = serde_json::from_slice(&entry.value)
                    .map_err(|_| Error::new(ErrorKind::Corrupted, "a count of downloads cannot be read"))?;
                for (hour, counts) in &record.hours {
                    let moment = day * 24 + i64::from(*hour);
                    if moment < first || moment >= end {
                        continue;
                    }
                    let at = match query.step {
                        Step::All => 0,
                        Step::Day => day * DAY,
                        Step::Hour => moment * HOUR,
                    };
                    rows.entry((value.to_owned(), at)).or_default().add(counts);
                    total.add(counts);
                }
                if rows.len() > MAX_VALUES {
                    let message = format!("there are more than {MAX_VALUES} rows: ask for a shorter time");
                    return Err(Error::new(ErrorKind::TooLarge, message));
                }
            }
            at = following;
        }
        let after = query.after.as_deref().and_then(|after| {
            let (at, value) = after.split_once(':')?;
            Some((value.to_owned(), at.parse::<i64>().ok()?))
        });
        if query.after.is_some() && after.is_none() {
            return Err(Error::invalid("`after` is the `next` of the page before"));
        }
        let mut rest = rows.into_iter().filter(|(key, _)| after.as_ref().is_none_or(|after| key > after));
        let page: Vec<((String, i64), Counts)> = rest.by_ref().take(limit).collect();
        let next = rest.next().and(page.last()).map(|((value, at), _)| format!("{at}:{value}"));
        let mut rows: Vec<DownloadRow> = page
            .into_iter()
            .map(|((value, at), counts)| {
                let at = (query.step != Step::All).then(|| Timestamp::from_unix(at));
                DownloadRow { value, at, counts }
            })
            .collect();
        if query.group == Group::Subject {
            self.name(&mut rows).await?;
        }
        Ok(DownloadPage { rows, next, total, position })
    }

    /// Forgets who the subject of some downloads was: they are counted as `erased` from here on. To be
    /// called after [`TileLog::erase`].
    pub async fn forget(&self, subject: &str) -> Result<()> {
        let mut state = self.state.lock().await;
        self.count(&mut state).await?;
        state.subjects.clear();
        state.open.clear();
        let hash = self.subject(subject);
        for (id, record) in self.records.all_within::<Record>(&format!("{}/", Group::Subject as u8)).await? {
            let Some((day, value)) = parse_id(&id) else { continue };
            if value != hash {
                continue;
            }
            let erased = self::id(Group::Subject as u8, day, ERASED);
            let (mut sum, entry) = match self.records.read::<Record>(&erased).await? {
                Some((sum, entry)) => (sum, Some(entry)),
                None => (Record::default(), None),
            };
            for (hour, counts) in &record.hours {
                sum.hours.entry(*hour).or_default().add(counts);
            }
            let mut batch = Batch::new();
            batch.expect_unchanged(self.records.key(&erased), entry.as_ref());
            batch.put(self.records.key(&erased), encode(&sum)?);
            batch.delete(self.records.key(&id));
            self.records.store().commit(batch).await?;
        }
        Ok(())
    }

    /// A subject as the records know it.
    fn subject(&self, subject: &str) -> String {
        if subject.starts_with("user:") { self.log.pseudonym(subject) } else { subject.to_owned() }
    }

    /// Puts names in the place of pseudonyms, as far as they are not erased.
    async fn name(&self, rows: &mut [DownloadRow]) -> Result<()> {
        let wanted: HashSet<String> = rows.iter().map(|row| row.value.clone()).collect();
        let log = Arc::clone(&self.log);
        let names = blocking::run(move || log.names(&wanted)).await?;
        for row in rows {
            if let Some(name) = names.get(&row.value) {
                row.value.clone_from(name);
            }
        }
        Ok(())
    }
}

/// The subject of downloads whose person was erased.
const ERASED: &str = "erased";

fn day_text(day: i64) -> String {
    format!("{day:06}")
}

/// `<group>/<day>/<value>`.
fn id(group: u8, day: i64, value: &str) -> String {
    format!("{group}/{}/{value}", day_text(day))
}

fn parse_id(id: &str) -> Option<(i64, &str)> {
    let (_, rest) = id.split_once('/')?;
    let (day, value) = rest.split_once('/')?;
    Some((day.parse().ok()?, value))
}

/// Counts entries from `from` on, until there is enough for a batch.
fn fold(log: &TileLog, from: u64, state: &mut State) -> Result<Folded> {
    let mut folded = Folded { position: from, done: true, ..Folded::default() };
    // What a power cut could still take away, and give its number to another entry, must not count.
    let durable = log.sync()?;
    log.entries(from, |seq, bytes| {
        if seq >= durable {
            return Ok(false);
        }
        if folded.counts.len() >= MAX_CHANGED || seq - from >= MAX_STEP {
            folded.done = false;
            return Ok(false);
        }
        folded.position = seq + 1;
        let is = |kind: &str| Entry::kind_of(bytes) == Some(kind.as_bytes());
        let counts = if is(kind::DOWNLOAD_START) {
            let entry = Entry::read(bytes)?;
            if entry.req.is_some() {
                let dimensions = Arc::new(dimensions(log, &entry, state)?);
                if state.open.len() >= MAX_OPEN {
                    state.open.clear();
                }
                state.open.insert(seq, Arc::clone(&dimensions));
                (entry.t, dimensions, Counts { started: 1, ..Counts::default() })
            } else {
                let dimensions = Arc::new(dimensions(log, &entry, state)?);
                (entry.t, dimensions, Counts { started: 1, ..Counts::default() })
            }
        } else if is(kind::DOWNLOAD_END) {
            let entry = Entry::read(bytes)?;
            let known = entry.of.and_then(|of| state.open.remove(&of));
            let dimensions = match (known, entry.of) {
                (Some(known), _) => known,
                (None, Some(of)) => match log.entry(of) {
                    Ok(start) => Arc::new(dimensions(log, &start, state)?),
                    Err(error) if matches!(error.kind(), ErrorKind::Gone | ErrorKind::NotFound) => {
                        Arc::new(dimensions(log, &entry, state)?)
                    }
                    Err(error) => return Err(error),
                },
                (None, None) => Arc::new(dimensions(log, &entry, state)?),
            };
            let res = entry.res.as_ref();
            let complete = res.and_then(|res| res.complete) == Some(true);
            let counts = Counts {
                started: 0,
                completed: u64::from(complete),
                aborted: u64::from(!complete),
                bytes: res.and_then(|res| res.bytes).unwrap_or(0),
            };
            (entry.t, dimensions, counts)
        } else {
            return Ok(true);
        };
        let (at, dimensions, counts) = counts;
        let (day, hour) = (at.as_unix() / DAY, (at.as_unix() % DAY / HOUR) as u8);
        for (group, value) in dimensions.0.iter().enumerate() {
            if let Some(value) = value {
                let hours = folded.counts.entry((group as u8, day, value.clone())).or_default();
                hours.entry(hour).or_default().add(&counts);
            }
        }
        Ok(true)
    })?;
    Ok(folded)
}

fn dimensions(log: &TileLog, start: &Entry<'_>, state: &mut State) -> Result<Dimensions> {
    let what = start.what.as_ref();
    let text = |text: &crate::audit::Text<'_>| {
        let mut end = text.len().min(MAX_VALUE);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text[..end].to_owned()
    };
    let artifact = what.and_then(|what| {
        let artifact = format!("{}/{}", what.repo.as_ref()?, what.path.as_ref()?);
        Some(text(&artifact.as_str().into()))
    });
    let bundle = what.and_then(|what| what.bundle.as_ref()).map(text);
    let version = what.and_then(|what| what.version.as_ref());
    let version = bundle.as_ref().zip(version).map(|(bundle, version)| format!("{bundle}/{version}"));
    let who = start.who.as_ref();
    let subject = match who {
        Some(who) if who.starts_with("user:~") => match &start.p {
            Some(p) => subject(log, p, state)?,
            None => ERASED.to_owned(),
        },
        Some(who) => text(who),
        None => "unknown".to_owned(),
    };
    let link = who.and_then(|who| who.strip_prefix("link:")).map(|link| text(&link.into()));
    let country = start.cc.map_or_else(|| "unknown".to_owned(), |country| country.to_string());
    Ok(Dimensions([artifact, bundle, version, Some(subject), Some(country), link]))
}

/// The pseudonym behind a commitment.
fn subject(log: &TileLog, p: &str, state: &mut State) -> Result<String> {
    if let Some(known) = state.subjects.get(p) {
        return Ok(known.clone());
    }
    let person = log.people(&HashSet::from([p.to_owned()]))?.remove(p);
    let subject = person.map_or_else(|| ERASED.to_owned(), |person| log.pseudonym(&person.who));
    if state.subjects.len() >= MAX_OPEN {
        state.subjects.clear();
    }
    state.subjects.insert(p.to_owned(), subject.clone());
    Ok(subject)
}

#[cfg(all(test, feature = "testing"))]
#[path = "downloads_tests.rs"]
mod tests;
