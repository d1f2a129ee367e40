//! Personal data: what a log says of people, and how it forgets them.
//!
//! The log never holds a user's name or a whole address. For every user and address of a month there
//! is one *record* beside the log, in two files of the directory `person`:
//!
//! ```text
//! <month>-<n>.rows   2 length · 24 id · ciphertext (ChaCha20-Poly1305, zero nonce, the id is AAD)
//! <month>-<n>.keys  24 id · 16 tag of the user · 16 tag of the address · 32 key · 4 CRC-32C
//! secret             6 month · 32 monthly key · 32 key of the tags · 4 CRC-32C
//! ```
//! The plaintext is a salt of 16 bytes, the name and the address; the id is the commitment to it:
//! the first 24 bytes of its SHA-256. Every record has a key of its own, so the nonce is used once.
//! Erasing a person is removing the keys of their records, and replacing the monthly key, so that
//! not even a guess can be checked against what the log holds.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _, Nonce};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::append::is_full;
use super::disk::{self, Disk, DiskFile};
use super::segment::crc32c;
use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

/// Bytes of a commitment.
const ID: usize = 24;
/// Bytes of a record of keys.
const KEYS: usize = ID + 16 + 16 + 32 + 4;
/// Names and addresses remembered at a time; who comes back later gets another record.
const REMEMBERED: usize = 16_384;

/// The reduced form of who and from where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reduced {
    /// `user:~` and a hash; `None` if the name is nobody's.
    pub(super) who: Option<String>,
    /// The network, `~` and a hash.
    pub(super) ip: Option<String>,
    /// The commitment; `None` where a full disk has no room for the record.
    pub(super) p: Option<String>,
}

/// Who and from where, in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// The principal, `user:alice`; empty if the record is about an address alone.
    pub who: String,
    /// The address.
    pub ip: Option<IpAddr>,
}

/// The records of a log.
#[derive(Debug)]
pub(super) struct People {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    state: Mutex<State>,
}

struct State {
    month: String,
    /// When the next month begins, in seconds; 0 if nobody looked yet.
    until: i64,
    monthly: Zeroizing<Vec<u8>>,
    tags: Zeroizing<Vec<u8>>,
    remembered: HashMap<(String, Option<IpAddr>), Arc<Reduced>>,
    /// The files that are written to, with their lengths.
    files: Option<Files>,
    /// Whether they hold what is not synced.
    unsynced: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("month", &self.month).finish_non_exhaustive()
    }
}

#[derive(Clone)]
struct Files {
    rows: (Arc<dyn DiskFile>, u64),
    keys: (Arc<dyn DiskFile>, u64),
    fresh: bool,
}

impl People {
    pub(super) fn open(disk: Arc<dyn Disk>, log: &Path) -> Result<People> {
        let directory = log.join("person");
        let during = |cause| Error::io(format_args!("opening {}", directory.display()), cause);
        disk.create_dirs(&directory).map_err(during)?;
        let secret = disk::read_if_there(&*disk, &directory.join("secret")).map_err(during)?;
        // A damaged secret loses the link between the hashes of this month, and nothing else.
        let secret = secret
            .map(Zeroizing::new)
            .filter(|secret| secret.len() == 74 && crc32c(0, &secret[..70]).to_le_bytes() == secret[70..]);
        let state = match secret {
            Some(secret) => State {
                month: String::from_utf8_lossy(&secret[..6]).into_owned(),
                until: 0,
                monthly: Zeroizing::new(secret[6..38].to_vec()),
                tags: Zeroizing::new(secret[38..70].to_vec()),
                remembered: HashMap::new(),
                files: None,
                unsynced: false,
            },
            None => State {
                month: String::new(),
                until: 0,
                monthly: Zeroizing::default(),
                tags: Zeroizing::new(Secret::random(32)?.expose().to_vec()),
                remembered: HashMap::new(),
                files: None,
                unsynced: false,
            },
        };
        Ok(People { disk, directory, state: Mutex::new(state) })
    }

    /// The reduced form of a principal and an address; `None` if neither is personal.
    pub(super) fn reduce(
        &self,
        who: &str,
        ip: Option<IpAddr>,
        at: Timestamp,
    ) -> Result<Option<Arc<Reduced>>> {
        let user = who.strip_prefix("user:");
        let ip = ip.map(|ip| ip.to_canonical());
        if user.is_none() && ip.is_none() {
            return Ok(None);
        }
        let mut state = self.lock();
        let key = (if user.is_some() { who.to_owned() } else { String::new() }, ip);
        if at.as_unix() >= state.until {
            let month = month(at);
            // Events come a little out of order; a clock that jumps back must not change the key.
            if month > state.month {
                state.month = month;
                self.rotate(&mut state)?;
            }
            state.until = month_after(&state.month);
        }
        if let Some(known) = state.remembered.get(&key) {
            return Ok(Some(Arc::clone(known)));
        }
        let reduced = Arc::new(self.record(&mut state, &key.0, ip)?);
        if reduced.p.is_none() {
            return Ok(Some(reduced));
        }
        if state.remembered.len() >= REMEMBERED {
            state.remembered.clear();
        }
        state.remembered.insert(key, Arc::clone(&reduced));
        Ok(Some(reduced))
    }

    /// Makes what was recorded durable.
    pub(super) fn sync(&self) -> std::io::Result<()> {
        let (files, fresh) = {
            let mut state = self.lock();
            if !std::mem::take(&mut state.unsynced) {
                return Ok(());
            }
            let Some(files) = &mut state.files else { return Ok(()) };
            let fresh = std::mem::take(&mut files.fresh);
            (files.clone(), fresh)
        };
        files.rows.0.sync()?;
        files.keys.0.sync()?;
        if fresh { self.disk.sync_dir(&self.directory) } else { Ok(()) }
    }

    /// Removes the keys of a user (`user:alice`) or of an address; how many records they had.
    pub(super) fn erase(&self, subject: &str) -> Result<u64> {
        let mut state = self.lock();
        let tag = tag(&state.tags, &canonical(subject));
        let during = |cause| Error::io(format_args!("erasing in {}", self.directory.display()), cause);
        // What is being written is closed: every file is rewritten whole or not at all.
        state.files = None;
        state.remembered.clear();
        let mut erased = 0;
        for name in self.names(".keys").map_err(during)? {
            let path = self.directory.join(&name);
            let bytes = Zeroizing::new(disk::read(&*self.disk, &path).map_err(during)?);
            let mut kept = Zeroizing::new(Vec::with_capacity(bytes.len()));
            let mut found = 0;
            for record in bytes.as_chunks::<KEYS>().0.iter().filter(|record| is_whole(record)) {
                if record[ID..ID + 16] == tag || record[ID + 16..ID + 32] == tag {
                    found += 1;
                } else {
                    kept.extend_from_slice(record);
                }
            }
            if found > 0 {
                disk::replace(&*self.disk, &self.directory, &name, &kept).map_err(during)?;
                erased += found;
            }
        }
        self.disk.sync_dir(&self.directory).map_err(during)?;
        self.rotate(&mut state)?;
        Ok(erased)
    }

    /// Who is meant by these commitments, as far as that is not erased.
    pub(super) fn resolve(&self, ids: &HashSet<String>) -> Result<HashMap<String, Person>> {
        let mut found = HashMap::new();
        if ids.is_empty() {
            return Ok(found);
        }
        let wanted: HashMap<Vec<u8>, &String> =
            ids.iter().filter_map(|id| Some((URL_SAFE_NO_PAD.decode(id).ok()?, id))).collect();
        let _state = self.lock();
        let during = |cause| Error::io(format_args!("reading {}", self.directory.display()), cause);
        for name in self.names(".keys").map_err(during)? {
            let keys = Zeroizing::new(disk::read(&*self.disk, &self.directory.join(&name)).map_err(during)?);
            let keys: HashMap<&[u8], &[u8]> = (keys.as_chunks::<KEYS>().0.iter())
                .filter(|record| is_whole(record) && wanted.contains_key(&record[..ID]))
                .map(|record| (&record[..ID], &record[ID + 32..ID + 64]))
                .collect();
            if keys.is_empty() {
                continue;
            }
            let rows = self.directory.join(name.replace(".keys", ".rows"));
            let Some(rows) = disk::read_if_there(&*self.disk, &rows).map_err(during)? else { continue };
            for (id, sealed) in rows_of(&rows) {
                let person = keys.get(id).and_then(|key| unseal(key, id, sealed));
                if let (Some(person), Some(text)) = (person, wanted.get(id)) {
                    found.insert((*text).clone(), person);
                }
            }
        }
        Ok(found)
    }

    /// The commitments of the records of a user or of an address.
    pub(super) fn ids(&self, subject: &str) -> Result<HashSet<String>> {
        let state = self.lock();
        let tag = tag(&state.tags, &canonical(subject));
        let during = |cause| Error::io(format_args!("reading {}", self.directory.display()), cause);
        let mut ids = HashSet::new();
        for name in self.names(".keys").map_err(during)? {
            let keys = Zeroizing::new(disk::read(&*self.disk, &self.directory.join(&name)).map_err(during)?);
            for record in keys.as_chunks::<KEYS>().0.iter().filter(|record| is_whole(record)) {
                if record[ID..ID + 16] == tag || record[ID + 16..ID + 32] == tag {
                    ids.insert(URL_SAFE_NO_PAD.encode(&record[..ID]));
                }
            }
        }
        Ok(ids)
    }

    /// A keyed hash of a subject that stays the same.
    pub(super) fn pseudonym(&self, subject: &str) -> String {
        format!("~{}", URL_SAFE_NO_PAD.encode(tag(&self.lock().tags, &canonical(subject))))
    }

    /// The principals behind pseudonyms.
    pub(super) fn names_of(&self, pseudonyms: &HashSet<String>) -> Result<HashMap<String, String>> {
        // The last record of each is as good as every other.
        let mut records: HashMap<String, String> = HashMap::new();
        {
            let _state = self.lock();
            let during = |cause| Error::io(format_args!("reading {}", self.directory.display()), cause);
            for name in self.names(".keys").map_err(during)? {
                let keys = disk::read(&*self.disk, &self.directory.join(&name)).map_err(during)?;
                let keys = Zeroizing::new(keys);
                for record in keys.as_chunks::<KEYS>().0.iter().filter(|record| is_whole(record)) {
                    let pseudonym = format!("~{}", URL_SAFE_NO_PAD.encode(&record[ID..ID + 16]));
                    if pseudonyms.contains(&pseudonym) {
                        records.insert(pseudonym, URL_SAFE_NO_PAD.encode(&record[..ID]));
                    }
                }
            }
        }
        let people = self.resolve(&records.values().cloned().collect())?;
        Ok(records.into_iter().filter_map(|(name, id)| Some((name, people.get(&id)?.who.clone()))).collect())
    }

    /// Removes the records of the months before `moment`'s.
    pub(super) fn forget_before(&self, moment: Timestamp) -> std::io::Result<()> {
        let _state = self.lock();
        let first = month(moment);
        for kind in [".keys", ".rows"] {
            for name in
                self.names(kind)?.iter().filter(|name| name.get(..6).is_some_and(|month| *month < *first))
            {
                self.disk.remove(&self.directory.join(name))?;
            }
        }
        self.disk.sync_dir(&self.directory)
    }

    fn names(&self, kind: &str) -> std::io::Result<Vec<String>> {
        let mut names = self.disk.list(&self.directory)?;
        names.retain(|name| name.ends_with(kind));
        names.sort();
        Ok(names)
    }

    /// A new monthly key: what was hashed with the old one cannot be hashed again.
    fn rotate(&self, state: &mut State) -> Result<()> {
        state.monthly = Zeroizing::new(Secret::random(32)?.expose().to_vec());
        state.remembered.clear();
        state.files = None;
        let mut bytes = Zeroizing::new([state.month.as_bytes(), &state.monthly, &state.tags].concat());
        let crc = crc32c(0, &bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        disk::replace(&*self.disk, &self.directory, "secret", &bytes)
            .and_then(|()| self.disk.sync_dir(&self.directory))
            .map_err(|cause| Error::io(format_args!("writing {}/secret", self.directory.display()), cause))
    }

    /// Writes a record.
    fn record(&self, state: &mut State, who: &str, ip: Option<IpAddr>) -> Result<Reduced> {
        let random = Secret::random(48)?;
        let (salt, key) = random.expose().split_at(16);
        let address = ip.map(|ip| ip.to_string()).unwrap_or_default();
        let plain = [salt, &(who.len() as u16).to_le_bytes(), who.as_bytes(), address.as_bytes()].concat();
        let digest = Digest::of(&plain);
        let id = &digest.as_bytes()[..ID];
        let payload = Payload { msg: &plain, aad: id };
        let sealed = cipher(key).encrypt(&Nonce::default(), payload);
        let sealed = sealed.map_err(|_| Error::new(ErrorKind::Internal, "a record cannot be sealed"))?;
        let of = |subject: &str| if subject.is_empty() { [0; 16] } else { tag(&state.tags, subject) };
        let mut keys = Zeroizing::new([id, &of(who), &of(&address), key].concat());
        let crc = crc32c(0, &keys);
        keys.extend_from_slice(&crc.to_le_bytes());
        let row = [&(sealed.len() as u16).to_le_bytes(), id, &sealed].concat();

        let written = self.files(state).and_then(|files| {
            files.rows.0.write_at(&row, files.rows.1)?;
            files.keys.0.write_at(&keys, files.keys.1)?;
            files.rows.1 += row.len() as u64;
            files.keys.1 += keys.len() as u64;
            Ok(())
        });
        let kept = match written {
            Ok(()) => true,
            // The event is worth more than the name behind it.
            Err(cause) if is_full(&cause) => false,
            Err(cause) => {
                return Err(Error::io(format_args!("writing to {}", self.directory.display()), cause));
            }
        };
        state.unsynced |= kept;

        let hash = |what: &str, text: &str| {
            URL_SAFE_NO_PAD.encode(&hmac(&state.monthly, &[what.as_bytes(), &[0], text.as_bytes()])[..9])
        };
        Ok(Reduced {
            who: (!who.is_empty()).then(|| format!("user:~{}", hash("who", who))),
            ip: ip.map(|ip| format!("{}~{}", network(ip), hash("ip", &address))),
            p: kept.then(|| URL_SAFE_NO_PAD.encode(id)),
        })
    }

    /// The files that are written to: never ones that were there before, whose end may be torn.
    fn files<'s>(&self, state: &'s mut State) -> std::io::Result<&'s mut Files> {
        if state.files.is_none() {
            let taken = self.names(".rows")?;
            let number =
                taken.iter().filter_map(|name| name.get(7..)?.strip_suffix(".rows")?.parse::<u64>().ok());
            let number = number.max().map_or(0, |number| number + 1);
            let create = |kind: &str| {
                let name = format!("{}-{number}.{kind}", state.month);
                self.disk.create(&self.directory.join(name)).map(|file| (Arc::from(file), 0))
            };
            state.files = Some(Files { rows: create("rows")?, keys: create("keys")?, fresh: true });
        }
        state.files.as_mut().ok_or_else(|| std::io::ErrorKind::NotFound.into())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `202612`.
fn month(at: Timestamp) -> String {
    let text = at.to_string();
    [&text[..4], &text[5..7]].concat()
}

/// When the month after this one begins, in seconds since 1970.
fn month_after(month: &str) -> i64 {
    let (year, number) = month.split_at(4);
    let next = match (year.parse::<u32>(), number.parse::<u32>()) {
        (Ok(year), Ok(12)) => format!("{:04}-01-01T00:00:00Z", year + 1),
        (Ok(year), Ok(number)) => format!("{year:04}-{:02}-01T00:00:00Z", number + 1),
        _ => return 0,
    };
    next.parse::<Timestamp>().map_or(i64::MAX, Timestamp::as_unix)
}

/// The /24 or the /48 of an address.
fn network(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        IpAddr::V6(ip) => {
            let [a, b, c, ..] = ip.segments();
            format!("{}/48", std::net::Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
        }
    }
}

/// A subject as records know it: an address in its canonical form, or a principal.
fn canonical(subject: &str) -> String {
    match subject.parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical().to_string(),
        Err(_) => subject.to_owned(),
    }
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    // HMAC takes keys of every length.
    let mut mac = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(key).unwrap_or_else(|_| unreachable!());
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

fn tag(key: &[u8], subject: &str) -> [u8; 16] {
    let [a @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = hmac(key, &[b"tag\0", subject.as_bytes()]);
    a
}

fn cipher(key: &[u8]) -> ChaCha20Poly1305 {
    ChaCha20Poly1305::new(&key.try_into().unwrap_or_default())
}

fn is_whole(record: &[u8; KEYS]) -> bool {
    crc32c(0, &record[..KEYS - 4]).to_le_bytes() == record[KEYS - 4..]
}

/// The rows of a file, up to one that is torn.
fn rows_of(mut bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_le_bytes(*bytes.first_chunk()?));
        let id = bytes.get(2..2 + ID)?;
        let sealed = bytes.get(2 + ID..2 + ID + length)?;
        bytes = &bytes[2 + ID + length..];
        Some((id, sealed))
    })
}

fn unseal(key: &[u8], id: &[u8], sealed: &[u8]) -> Option<Person> {
    let plain = cipher(key).decrypt(&Nonce::default(), Payload { msg: sealed, aad: id }).ok()?;
    if Digest::of(&plain).as_bytes()[..ID] != *id {
        return None;
    }
    let length = usize::from(u16::from_le_bytes(*plain.get(16..)?.first_chunk()?));
    let who = std::str::from_utf8(plain.get(18..18 + length)?).ok()?;
    let ip = std::str::from_utf8(&plain[18 + length..]).ok()?;
    Some(Person { who: who.to_owned(), ip: ip.parse().ok() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::disk::OsDisk;

    const NOW: Timestamp = Timestamp::from_unix(1_795_323_600);

    fn open(directory: &Path) -> People {
        People::open(Arc::new(OsDisk), directory).unwrap()
    }

    fn id(reduced: &Reduced) -> &String {
        reduced.p.as_ref().unwrap()
    }

    fn found(directory: &Path, needle: &str) -> bool {
        std::fs::read_dir(directory).unwrap().any(|entry| {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            bytes.windows(needle.len()).any(|window| window == needle.as_bytes())
        })
    }

    #[test]
    fn a_person_is_found_until_erased() {
        let directory = tempfile::tempdir().unwrap();
        let people = open(directory.path());
        let ip = Some("192.0.2.77".parse().unwrap());
        let alice = people.reduce("user:alice", ip, NOW).unwrap().unwrap();
        assert_eq!(people.reduce("user:alice", ip, NOW).unwrap().unwrap(), alice);
        let bob = people.reduce("user:bob", ip, NOW).unwrap().unwrap();
        let nobody = people.reduce("anonymous", ip, NOW).unwrap().unwrap();
        assert_eq!((&alice.ip, &nobody.who), (&bob.ip, &None));
        assert!(alice.ip.as_deref().unwrap().starts_with("192.0.2.0/24~"));
        assert_ne!(alice.who, bob.who);
        assert!(people.reduce("peer:s1", None, NOW).unwrap().is_none());
        people.sync().unwrap();

        let people = open(directory.path());
        let all: HashSet<String> =
            [&alice, &bob, &nobody].iter().filter_map(|reduced| reduced.p.clone()).collect();
        let resolved = people.resolve(&all).unwrap();
        assert_eq!(resolved[id(&alice)], Person { who: "user:alice".into(), ip });
        assert_eq!(resolved[id(&nobody)], Person { who: String::new(), ip });
        // A later record of the same person goes to another file.
        let again = people.reduce("user:alice", None, NOW).unwrap().unwrap();
        assert_eq!(again.who, alice.who);
        assert_eq!(
            people.ids("user:alice").unwrap(),
            HashSet::from([id(&alice).clone(), id(&again).clone()])
        );
        let files = directory.path().join("person");
        assert!(!found(&files, "alice") && !found(&files, "192.0.2.77"));

        assert_eq!(people.erase("user:alice").unwrap(), 2);
        assert_eq!(people.resolve(&all).unwrap().len(), 2);
        assert!(people.ids("user:alice").unwrap().is_empty());
        // What the log says of her cannot be compared with a guess.
        assert_ne!(people.reduce("user:alice", None, NOW).unwrap().unwrap().who, alice.who);
        assert_eq!(people.erase("192.0.2.77").unwrap(), 2);
        assert!(people.resolve(&all).unwrap().is_empty());
    }

    #[test]
    fn another_month_has_another_key_and_old_ones_are_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let people = open(directory.path());
        let november = people.reduce("user:alice", None, NOW).unwrap().unwrap();
        let later = NOW.plus(31 * 86_400);
        let december = people.reduce("user:alice", None, later).unwrap().unwrap();
        assert_ne!(november.who, december.who);
        people.forget_before(later).unwrap();
        assert_eq!(people.ids("user:alice").unwrap(), HashSet::from([id(&december).clone()]));
    }
}
