//! What was taken back.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{KeyName, LinkId, PolicyName};
use crate::clock::Timestamp;

/// So many revocations are kept beside the sorted ones before they are sorted in.
const ASIDE: usize = 1_024;

/// Why something was taken back, by whom, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Why.
    pub reason: String,
    /// Who did it, as a principal prints.
    pub who: String,
    /// When.
    pub at: Timestamp,
}

/// The least epoch that is still good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// Links of a lower epoch are dead.
    pub minimum: u64,
    /// Why.
    pub note: Note,
}

/// Everything of a tenant that was taken back: links, keys, policies, and all links of a subject or
/// of the tenant up to an epoch. Nothing in it is ever undone; links are forgotten when their time
/// would be over anyway.
///
/// A million links take 24 MB: a sorted array, and a few beside it. A copy shares the array.
#[derive(Clone, Debug, Default)]
pub struct Revocations {
    sorted: Arc<Sorted>,
    aside: BTreeMap<u128, i64>,
    tenant: Option<Epoch>,
    subjects: BTreeMap<String, Epoch>,
    keys: BTreeMap<KeyName, Note>,
    policies: BTreeMap<PolicyName, Note>,
}

/// Ids in ascending order, and until when each must be known, in seconds.
#[derive(Debug, Default)]
struct Sorted {
    ids: Vec<u128>,
    until: Vec<i64>,
}

impl Revocations {
    /// Nothing was taken back.
    pub fn new() -> Revocations {
        Revocations::default()
    }

    /// Takes back a link, of which nobody needs to know after `until`.
    pub fn revoke(&mut self, id: LinkId, until: Timestamp) {
        self.revoke_all([(id, until)]);
    }

    /// Takes back many links at once.
    pub fn revoke_all(&mut self, links: impl IntoIterator<Item = (LinkId, Timestamp)>) {
        for (id, until) in links {
            let kept = self.aside.entry(id.number()).or_insert(0);
            *kept = (*kept).max(until.as_unix());
        }
        if self.aside.len() > ASIDE {
            self.settle(i64::MIN);
        }
    }

    /// Whether a link was taken back.
    pub fn contains(&self, id: LinkId) -> bool {
        let number = id.number();
        self.sorted.ids.binary_search(&number).is_ok()
            || (!self.aside.is_empty() && self.aside.contains_key(&number))
    }

    /// How many links are known to be taken back.
    pub fn len(&self) -> usize {
        let again = self.aside.keys().filter(|id| self.sorted.ids.binary_search(id).is_ok()).count();
        self.sorted.ids.len() + self.aside.len() - again
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.sorted.ids.is_empty() && self.aside.is_empty()
    }

    /// Bytes of memory that the links take, about.
    pub fn memory(&self) -> usize {
        self.sorted.ids.capacity() * 16 + self.sorted.until.capacity() * 8 + self.aside.len() * 48
    }

    /// Forgets the links that need not be known at `now`; says which.
    pub fn forget(&mut self, now: Timestamp) -> Vec<LinkId> {
        let now = now.as_unix();
        let aside = self.aside.iter().filter(|(_, until)| **until < now).map(|(id, _)| *id);
        let sorted = self
            .sorted
            .ids
            .iter()
            .zip(&self.sorted.until)
            .filter(|(id, until)| **until < now && !self.aside.contains_key(id));
        let gone: Vec<LinkId> = aside.chain(sorted.map(|(id, _)| *id)).map(LinkId::from_number).collect();
        if !gone.is_empty() {
            self.settle(now);
        }
        gone
    }

    /// Sorts everything in that must be known at `now`.
    fn settle(&mut self, now: i64) {
        let aside = std::mem::take(&mut self.aside);
        let room = self.sorted.ids.len() + aside.len();
        let mut merged = Sorted { ids: Vec::with_capacity(room), until: Vec::with_capacity(room) };
        let old = std::mem::take(&mut self.sorted);
        let mut aside = aside.into_iter().peekable();
        let mut push = |id: u128, until: i64| {
            if until >= now {
                merged.ids.push(id);
                merged.until.push(until);
            }
        };
        for (id, until) in old.ids.iter().zip(&old.until) {
            while let Some((fresh, end)) = aside.next_if(|(fresh, _)| fresh < id) {
                push(fresh, end);
            }
            let again = aside.next_if(|(fresh, _)| fresh == id).map_or(*until, |(_, end)| end.max(*until));
            push(*id, again);
        }
        aside.for_each(|(id, until)| push(id, until));
        self.sorted = Arc::new(merged);
    }

    /// The least epoch that is good for a link of this subject.
    pub fn epoch(&self, subject: Option<&str>) -> u64 {
        let tenant = self.tenant.as_ref().map_or(0, |epoch| epoch.minimum);
        if self.subjects.is_empty() {
            return tenant;
        }
        let subject = subject.and_then(|subject| self.subjects.get(subject));
        tenant.max(subject.map_or(0, |epoch| epoch.minimum))
    }

    /// The tenant's epoch, if it was ever raised.
    pub fn tenant_epoch(&self) -> Option<&Epoch> {
        self.tenant.as_ref()
    }

    /// The subjects whose links were taken back.
    pub fn subjects(&self) -> impl Iterator<Item = (&str, &Epoch)> {
        self.subjects.iter().map(|(subject, epoch)| (subject.as_str(), epoch))
    }

    /// The epoch that takes back every link of the tenant.
    pub fn next_tenant_epoch(&self) -> u64 {
        let subjects = self.subjects.values().map(|epoch| epoch.minimum).max();
        self.epoch(None).max(subjects.unwrap_or(0)) + 1
    }

    /// The epoch that takes back every link of a subject.
    pub fn next_epoch(&self, subject: &str) -> u64 {
        self.epoch(Some(subject)) + 1
    }

    /// Raises the tenant's epoch; `false` if it was as high.
    pub fn raise(&mut self, epoch: Epoch) -> bool {
        let higher = self.tenant.as_ref().is_none_or(|old| old.minimum < epoch.minimum);
        if higher {
            self.tenant = Some(epoch);
        }
        higher
    }

    /// Raises a subject's epoch; `false` if it was as high.
    pub fn raise_subject(&mut self, subject: &str, epoch: Epoch) -> bool {
        let higher = self.subjects.get(subject).is_none_or(|old| old.minimum < epoch.minimum);
        if higher {
            self.subjects.insert(subject.to_owned(), epoch);
        }
        higher
    }

    /// Why a key was taken back, if it was.
    pub fn key(&self, key: &KeyName) -> Option<&Note> {
        self.keys.get(key)
    }

    /// The keys that were taken back.
    pub fn keys(&self) -> impl Iterator<Item = (&KeyName, &Note)> {
        self.keys.iter()
    }

    /// Takes back a key with all links it made; `false` if it was already.
    pub fn revoke_key(&mut self, key: KeyName, note: Note) -> bool {
        let fresh = !self.keys.contains_key(&key);
        self.keys.entry(key).or_insert(note);
        fresh
    }

    /// Why a policy was taken back, if it was.
    pub fn policy(&self, policy: &PolicyName) -> Option<&Note> {
        self.policies.get(policy)
    }

    /// The policies that were taken back.
    pub fn policies(&self) -> impl Iterator<Item = (&PolicyName, &Note)> {
        self.policies.iter()
    }

    /// Takes back a policy with all links under it; `false` if it was already.
    pub fn revoke_policy(&mut self, policy: PolicyName, note: Note) -> bool {
        let fresh = !self.policies.contains_key(&policy);
        self.policies.entry(policy).or_insert(note);
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note() -> Note {
        Note { reason: "lost".into(), who: "user:alice".into(), at: Timestamp::from_unix(1) }
    }

    #[test]
    fn ids_are_found_wherever_they_are_kept() {
        let mut revocations = Revocations::new();
        let id =
            |number: u64| LinkId::from_number(u128::from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 40);
        for number in 0..5_000 {
            revocations.revoke(id(number), Timestamp::from_unix(1_000 + number as i64));
        }
        assert_eq!(revocations.len(), 5_000);
        assert!((0..5_000).all(|number| revocations.contains(id(number))));
        assert!((5_000..9_000).all(|number| !revocations.contains(id(number))));
        // One that is revoked again is known for the longer time.
        revocations.revoke(id(0), Timestamp::from_unix(9_000));
        assert_eq!(revocations.len(), 5_000);
        let copy = revocations.clone();
        let gone = revocations.forget(Timestamp::from_unix(2_000));
        assert_eq!(gone.len(), 999);
        assert!(
            revocations.contains(id(0)) && !revocations.contains(id(1)) && revocations.contains(id(1_000))
        );
        assert_eq!(revocations.len(), 4_001);
        assert!(copy.contains(id(1)), "a copy is a copy");
        assert!(revocations.forget(Timestamp::from_unix(2_000)).is_empty());
    }

    #[test]
    fn epochs_rise_over_what_was_minted_meanwhile() {
        let mut revocations = Revocations::new();
        assert_eq!(revocations.epoch(Some("bob")), 0);
        let epoch = |minimum| Epoch { minimum, note: note() };
        assert!(revocations.raise_subject("bob", epoch(revocations.next_epoch("bob"))));
        assert!(revocations.raise_subject("bob", epoch(revocations.next_epoch("bob"))));
        assert_eq!((revocations.epoch(Some("bob")), revocations.epoch(Some("eve"))), (2, 0));
        // A link of bob's has epoch 2: all of the tenant's must be below the tenant's next.
        assert_eq!(revocations.next_tenant_epoch(), 3);
        assert!(revocations.raise(epoch(3)));
        assert!(!revocations.raise(epoch(2)) && !revocations.raise_subject("bob", epoch(1)));
        assert_eq!((revocations.epoch(Some("bob")), revocations.epoch(None)), (3, 3));
        assert_eq!(revocations.next_epoch("bob"), 4);
    }
}
