//! Downloads that began in time and may go on after their link's end.

use std::collections::HashMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Claims, DEFAULT_GRACE, LinkId, MAX_GRACE};
use crate::clock::Timestamp;
use crate::digest::Digest;

/// Most downloads that are remembered.
const ENTRIES: usize = 65_536;
/// Most artifacts of one link and one client.
const ARTIFACTS: usize = 64;

/// Which downloads began in time: by link, bytes and client. For a bounded time after the link's
/// end they may go on with range requests. Revocation ends them as it ends everything else.
#[derive(Clone, Debug)]
pub struct Grace {
    seconds: i64,
    entries: HashMap<(LinkId, Option<IpAddr>), Entry>,
    /// Artifacts in all entries.
    count: usize,
}

#[derive(Clone, Debug)]
struct Entry {
    until: Timestamp,
    digests: Vec<Digest>,
}

/// The downloads of one link and one client that may go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graced(Vec<Digest>);

impl Graced {
    /// Whether a download of these bytes is among them.
    pub fn covers(&self, digest: &Digest) -> bool {
        self.0.contains(digest)
    }
}

/// One download, as it is stored.
#[derive(Debug, Serialize, Deserialize)]
struct Line(LinkId, Option<IpAddr>, Timestamp, Digest);

impl Grace {
    /// No download began. They may go on for `seconds` after their link's end, at most for
    /// [`MAX_GRACE`], and never for longer than the link's whole life.
    pub fn new(seconds: i64) -> Grace {
        Grace { seconds: seconds.clamp(0, MAX_GRACE), entries: HashMap::new(), count: 0 }
    }

    /// The same downloads; those that begin from now on may go on for `seconds`.
    #[must_use]
    pub fn with_seconds(mut self, seconds: i64) -> Grace {
        self.seconds = seconds.clamp(0, MAX_GRACE);
        self
    }

    /// A download of `digest` by `client` begins at `now`; `true` if it was not known. It is not
    /// remembered if the link's time is over, or if too many are.
    pub fn begin(&mut self, claims: &Claims, digest: Digest, client: Option<IpAddr>, now: Timestamp) -> bool {
        let life = claims.expires.as_unix() - claims.issued.as_unix();
        let seconds = self.seconds.min(life);
        if now >= claims.expires || seconds <= 0 {
            return false;
        }
        let key = (claims.id, client.map(|client| client.to_canonical()));
        if self.entries.get(&key).is_some_and(|entry| entry.digests.contains(&digest)) {
            return false;
        }
        if self.count >= ENTRIES {
            self.forget(now);
            self.make_room();
        }
        self.insert(key, claims.expires.plus(seconds), digest)
    }

    /// Drops the quarter whose end is farthest, if there is no room: a download of theirs that is
    /// cut is remembered again, long before it matters.
    fn make_room(&mut self) {
        if self.count < ENTRIES {
            return;
        }
        let mut ends: Vec<Timestamp> = self.entries.values().map(|entry| entry.until).collect();
        let keep = ends.len() * 3 / 4;
        let at = keep.min(ends.len() - 1);
        let (_, last, _) = ends.select_nth_unstable(at);
        let (last, mut ties) = (*last, self.entries.len() - keep);
        self.entries.retain(|_, entry| {
            let far = entry.until >= last && ties > 0;
            ties -= usize::from(far);
            !far
        });
        self.count = self.entries.values().map(|entry| entry.digests.len()).sum();
    }

    fn insert(&mut self, key: (LinkId, Option<IpAddr>), until: Timestamp, digest: Digest) -> bool {
        if self.count >= ENTRIES {
            return false;
        }
        let entry = self.entries.entry(key).or_insert(Entry { until, digests: Vec::new() });
        if entry.digests.len() >= ARTIFACTS {
            return false;
        }
        entry.digests.push(digest);
        self.count += 1;
        true
    }

    /// The downloads of this link and client that may still go on at `now`.
    pub fn running(&self, link: LinkId, client: Option<IpAddr>, now: Timestamp) -> Option<Graced> {
        let entry = self.entries.get(&(link, client.map(|client| client.to_canonical())))?;
        (now < entry.until).then(|| Graced(entry.digests.clone()))
    }

    /// Forgets the downloads whose time is over; `true` if there were some.
    pub fn forget(&mut self, now: Timestamp) -> bool {
        let before = self.count;
        self.entries.retain(|_, entry| now < entry.until);
        self.count = self.entries.values().map(|entry| entry.digests.len()).sum();
        self.count != before
    }

    /// How many downloads are remembered.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl Default for Grace {
    fn default() -> Grace {
        Grace::new(DEFAULT_GRACE)
    }
}

impl Serialize for Grace {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let lines = self.entries.iter().flat_map(|((link, client), entry)| {
            entry.digests.iter().map(|digest| Line(*link, *client, entry.until, *digest))
        });
        (self.seconds, lines.collect::<Vec<Line>>()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Grace {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Grace, D::Error> {
        let (seconds, lines) = <(i64, Vec<Line>)>::deserialize(deserializer)?;
        let mut grace = Grace::new(seconds);
        for Line(link, client, until, digest) in lines {
            grace.insert((link, client), until, digest);
        }
        Ok(grace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::LinkResource;

    const ISSUED: Timestamp = Timestamp::from_unix(1_800_000_000);

    fn claims(life: i64) -> Claims {
        let resource = LinkResource::parse("r/").unwrap();
        let id = LinkId::from_number(1);
        Claims::new(id, "acme".parse().unwrap(), resource, ISSUED, ISSUED.plus(life))
    }

    #[test]
    fn what_began_in_time_goes_on_for_a_while() {
        let client = Some("203.0.113.7".parse().unwrap());
        let (claims, digest) = (claims(7_200), Digest::of(b"a"));
        let mut grace = Grace::default();
        assert!(grace.begin(&claims, digest, client, claims.expires.plus(-1)));
        assert!(!grace.begin(&claims, digest, client, claims.expires.plus(-1)), "known");
        assert!(!grace.begin(&claims, Digest::of(b"late"), client, claims.expires));
        let text = serde_json::to_string(&grace).unwrap();
        let mut grace: Grace = serde_json::from_str(&text).unwrap();
        let at =
            |grace: &Grace, client, seconds| grace.running(claims.id, client, claims.expires.plus(seconds));
        assert!(at(&grace, client, 3_599).unwrap().covers(&digest));
        assert!(!at(&grace, client, 3_599).unwrap().covers(&Digest::of(b"late")));
        assert!(at(&grace, Some("::ffff:203.0.113.7".parse().unwrap()), 0).is_some());
        assert!(at(&grace, client, 3_600).is_none());
        assert!(
            at(&grace, None, 0).is_none() && at(&grace, Some("203.0.113.8".parse().unwrap()), 0).is_none()
        );
        assert!(grace.forget(claims.expires.plus(3_600)) && grace.is_empty());
    }

    #[test]
    fn a_full_table_keeps_what_ends_soon() {
        let mut grace = Grace::new(60);
        let client = |number: u32| Some(IpAddr::from(number.to_be_bytes()));
        let (soon, mut far) = (claims(600), claims(86_400));
        far.id = LinkId::from_number(2);
        for number in 0..ENTRIES as u32 - 1 {
            assert!(grace.begin(&far, Digest::of(b"a"), client(number), ISSUED));
        }
        for number in 0..100 {
            assert!(grace.begin(&soon, Digest::of(b"a"), client(number), ISSUED));
        }
        assert!(grace.len() < ENTRIES);
        assert!((0..100).all(|number| grace.running(soon.id, client(number), soon.expires).is_some()));
    }

    #[test]
    fn grace_is_not_longer_than_the_life() {
        let (claims, digest) = (claims(60), Digest::of(b"a"));
        let mut grace = Grace::new(i64::MAX);
        grace.begin(&claims, digest, None, ISSUED);
        assert!(grace.running(claims.id, None, claims.expires.plus(59)).is_some());
        assert!(grace.running(claims.id, None, claims.expires.plus(60)).is_none());
        let mut none = Grace::new(0);
        assert!(!none.begin(&claims, digest, None, ISSUED));
    }
}
