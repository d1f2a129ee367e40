//! Reading the log by what one looks for.

use std::collections::{HashMap, HashSet};

use super::entry::{Entry, kind as kind_of};
use super::event::kind;
use super::log::TileLog;
use super::person::Person;
use crate::clock::Timestamp;
use crate::error::Result;

/// The most entries of a page.
pub const MAX_PAGE: usize = 1_000;
/// Entries that are looked at for one page.
const MAX_LOOKED_AT: u64 = 500_000;

/// What one looks for; what is not given does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// From this moment on.
    pub from: Option<Timestamp>,
    /// Before this moment.
    pub until: Option<Timestamp>,
    /// One of these kinds; one that ends in a full stop stands for all that begin so.
    pub kinds: Vec<String>,
    /// By this principal (`user:alice`, `anonymous`), or from this address.
    pub who: Option<String>,
    /// With this repository.
    pub repository: Option<String>,
    /// With this path, or below it if it ends in a slash.
    pub path: Option<String>,
    /// With this bundle.
    pub bundle: Option<String>,
    /// About this object or with this credential.
    pub object: Option<String>,
    /// Of this request.
    pub request: Option<u64>,
    /// After this entry: the [`next`](Page::next) of the page before.
    pub after: Option<u64>,
    /// At most so many; 0 stands for 100.
    pub limit: usize,
}

/// An entry with what it leaves to others to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The entry.
    pub entry: Entry<'static>,
    /// The `download.start` of a `download.end`, if it is still there.
    pub start: Option<Entry<'static>>,
    /// Who it was, if that was not erased.
    pub person: Option<Person>,
}

impl Line {
    /// Who: the full name if it is known.
    pub fn who(&self) -> Option<&str> {
        let person = self.person.as_ref().map(|person| &*person.who).filter(|who| !who.is_empty());
        person.or_else(|| self.of(|entry| entry.who.as_deref()))
    }

    /// What the entry says, or the start of its download.
    pub fn of<'l, T>(&'l self, member: impl Fn(&'l Entry<'static>) -> Option<T>) -> Option<T> {
        member(&self.entry).or_else(|| self.start.as_ref().and_then(member))
    }
}

/// Some of what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// In the order of the log.
    pub lines: Vec<Line>,
    /// Where to go on; `None` if there is no more.
    pub next: Option<u64>,
}

impl TileLog {
    /// The next entries that fit. A page may have fewer than the limit, or none, and go on.
    pub fn query(&self, query: &LogQuery) -> Result<Page> {
        let limit = if query.limit == 0 { 100 } else { query.limit.min(MAX_PAGE) };
        let begin = match (query.after, query.from) {
            (Some(after), _) => after.saturating_add(1).max(self.first()),
            (None, Some(from)) => self.find(from)?,
            (None, None) => self.first(),
        };
        let people = match &query.who {
            Some(who) => self.commitments(who)?,
            None => HashSet::new(),
        };
        let mut found: Vec<(Entry<'static>, Option<Entry<'static>>)> = Vec::new();
        let mut starts: HashMap<u64, Entry<'static>> = HashMap::new();
        let mut next = None;
        self.entries(begin, |seq, bytes| {
            if found.len() >= limit || seq - begin >= MAX_LOOKED_AT {
                next = Some(seq - 1);
                return Ok(false);
            }
            let kind = kind_of(bytes).unwrap_or_default();
            if !query.wants_kind(kind) {
                return Ok(true);
            }
            let entry = Entry::read(bytes)?;
            if query.until.is_some_and(|until| entry.t >= until.plus(60)) {
                // Entries are in the order of their times, but for a few seconds.
                return Ok(false);
            }
            if query.from.is_some_and(|from| entry.t < from)
                || query.until.is_some_and(|until| entry.t >= until)
                || query.request.is_some_and(|request| entry.req != Some(request))
            {
                return Ok(true);
            }
            let start = match entry.of {
                Some(of) if kind == kind::DOWNLOAD_END.as_bytes() => match starts.remove(&of) {
                    Some(start) => Some(start),
                    None => self.entry(of).ok(),
                },
                _ => None,
            };
            let fits = query.fits(start.as_ref().unwrap_or(&entry), &people);
            if kind == kind::DOWNLOAD_START.as_bytes() && starts.len() < MAX_PAGE {
                starts.insert(seq, entry.clone().into_owned());
            }
            if fits {
                found.push((entry.into_owned(), start));
            }
            Ok(true)
        })?;
        let ids = found.iter().filter_map(|(entry, start)| entry.p.as_ref().or(start.as_ref()?.p.as_ref()));
        let people = self.people(&ids.map(|p| p.to_string()).collect())?;
        let lines = found.into_iter().map(|(entry, start)| {
            let p = entry.p.as_ref().or_else(|| start.as_ref()?.p.as_ref());
            let person = p.and_then(|p| people.get(&**p)).cloned();
            Line { entry, start, person }
        });
        Ok(Page { lines: lines.collect(), next })
    }
}

impl LogQuery {
    fn wants_kind(&self, kind: &[u8]) -> bool {
        let fits = |wanted: &String| {
            let wanted = wanted.as_bytes();
            kind == wanted || wanted.ends_with(b".") && kind.starts_with(wanted)
        };
        self.kinds.is_empty() || self.kinds.iter().any(fits)
    }

    fn fits(&self, entry: &Entry<'_>, people: &HashSet<String>) -> bool {
        let what = entry.what.as_ref();
        let same = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| found == Some(wanted))
        };
        let who = self.who.as_deref().is_none_or(|who| {
            entry.who.as_deref() == Some(who) || entry.p.as_ref().is_some_and(|p| people.contains(&**p))
        });
        let path = self.path.as_deref().is_none_or(|wanted| {
            let found = what.and_then(|what| what.path.as_deref()).unwrap_or_default();
            found == wanted || wanted.ends_with('/') && found.starts_with(wanted)
        });
        let object = self.object.as_deref().is_none_or(|object| {
            entry.about.as_deref() == Some(object) || entry.how.as_deref() == Some(object)
        });
        who && path
            && object
            && same(&self.repository, what.and_then(|what| what.repo.as_deref()))
            && same(&self.bundle, what.and_then(|what| what.bundle.as_deref()))
    }
}
