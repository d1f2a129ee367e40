//! The downloads of the past, as the log still tells them.

use std::collections::{HashMap, HashSet};

use crate::access::Action;
use crate::audit::{Entry, Person, Text, TileLog, kind};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::name::{Holder, RepositoryName};
use crate::policy::PastRequest;

/// Entries whose people are looked up at once.
const BATCH: usize = 4096;

/// Shows to `each` every download from `from` on and before `until`, begun or refused. Whoever was
/// erased is told in the form that the log kept. Blocks on files.
pub(super) fn downloads(
    ledger: &TileLog,
    from: Timestamp,
    until: Timestamp,
    public: &HashMap<RepositoryName, bool>,
    mut each: impl FnMut(PastRequest),
) -> Result<()> {
    let mut batch: Vec<Entry<'static>> = Vec::new();
    let mut tell = |batch: &mut Vec<Entry<'static>>| -> Result<()> {
        let ids: HashSet<String> =
            batch.iter().filter_map(|entry| Some(entry.p.as_ref()?.as_str().to_owned())).collect();
        let people = ledger.people(&ids)?;
        let requests = batch.drain(..).filter_map(|entry| past(&entry, &people, public));
        requests.for_each(&mut each);
        Ok(())
    };
    ledger.entries(ledger.first(), |_, bytes| {
        let entry = Entry::parse(bytes)?;
        let download = matches!(entry.kind.as_str(), kind::DOWNLOAD_START | kind::DOWNLOAD_DENIED);
        if download && entry.t >= from && entry.t < until {
            batch.push(entry.into_owned());
        }
        if batch.len() == BATCH {
            tell(&mut batch)?;
        }
        Ok(true)
    })?;
    tell(&mut batch)
}

fn past(
    entry: &Entry<'_>,
    people: &HashMap<String, Person>,
    public: &HashMap<RepositoryName, bool>,
) -> Option<PastRequest> {
    let what = entry.what.as_ref()?;
    let text = |text: &Option<Text<'_>>| text.as_ref().map(|text| text.as_str().to_owned());
    let repository: RepositoryName = text(&what.repo)?.parse().ok()?;
    let person = entry.p.as_ref().and_then(|id| people.get(id.as_str()));
    let full = person.map(|person| person.who.clone()).filter(|who| !who.is_empty());
    let who = full.or_else(|| text(&entry.who)).unwrap_or_else(|| "anonymous".to_owned());
    let public = public.get(&repository).copied().unwrap_or_default();
    let mut past = PastRequest::new(entry.t, who, Action::Read, repository);
    past.path = text(&what.path).and_then(|path| path.parse().ok());
    let bundle = text(&what.bundle).and_then(|name| name.parse().ok());
    let version = text(&what.version).and_then(|version| version.parse().ok());
    past.holder = bundle.zip(version).map(|(bundle, version)| Holder(bundle, version));
    past.client = person.and_then(|person| person.ip);
    past.country = entry.cc;
    past.public = public;
    past.allowed = entry.kind.as_str() == kind::DOWNLOAD_START;
    Some(past)
}
