//! Entries: an event as the log holds it, one line of strict JSON.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Visitor};

use super::segment::MAX_ENTRY;
use crate::clock::Timestamp;
use crate::digest::{Digest, to_hex};
use crate::error::{Error, ErrorKind, Result};
use crate::place::Country;

/// Longest texts of an entry, in bytes; what is longer is cut and ends in `…`.
const MAX_WHO: usize = 256;
const MAX_HOW: usize = 128;
const MAX_ABOUT: usize = 512;
const MAX_REASON: usize = 1024;
/// What is left of a reason and an object where escapes make an entry too long.
const SHORT: usize = 64;

/// An event as the log holds it.
///
/// It is one JSON object with its members in the order of the fields, without blanks; members that
/// do not apply are left out. Control characters are escaped, those beyond ASCII and those that
/// change the direction of writing as well, so that a line stays a line wherever it is shown.
///
/// An entry holds the reduced form of personal data: `user:~` and a keyed hash in place of a user's
/// name, the network and a keyed hash in place of an address. What they stand for is in an encrypted
/// table beside the log, under `p`, which is also the salted commitment to it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry<'a> {
    /// Its number: the first entry of a log is 0.
    pub seq: u64,
    /// When it happened.
    pub t: Timestamp,
    /// One of [`kind`](super::kind).
    #[serde(borrow)]
    pub kind: Text<'a>,
    /// Of a `download.end`: the number of its `download.start`, which says the rest.
    #[serde(default)]
    pub of: Option<u64>,
    /// Who: `anonymous`, `peer:…`, `user:~` and a keyed hash.
    #[serde(borrow, default)]
    pub who: Option<Text<'a>>,
    /// The id of what was presented.
    #[serde(borrow, default)]
    pub how: Option<Text<'a>>,
    /// The /24 or /48 of the address, `~`, and a keyed hash of the address.
    #[serde(borrow, default)]
    pub ip: Option<Text<'a>>,
    /// The country.
    #[serde(default)]
    pub cc: Option<Country>,
    /// The commitment to the full name and address.
    #[serde(borrow, default)]
    pub p: Option<Text<'a>>,
    /// What it was about.
    #[serde(borrow, default)]
    pub what: Option<What<'a>>,
    /// What else it was about.
    #[serde(borrow, default)]
    pub about: Option<Text<'a>>,
    /// What came of it.
    #[serde(borrow, default)]
    pub res: Option<Outcome<'a>>,
    /// Joins the entries of one request.
    #[serde(default)]
    pub req: Option<u64>,
}

/// What an event was about.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct What<'a> {
    /// The repository.
    #[serde(borrow)]
    pub repo: Option<Text<'a>>,
    /// The path in it.
    #[serde(borrow)]
    pub path: Option<Text<'a>>,
    /// The SHA-256 of what was there, in hex.
    #[serde(borrow)]
    pub sha256: Option<Text<'a>>,
    /// The bundle.
    #[serde(borrow)]
    pub bundle: Option<Text<'a>>,
    /// Its version.
    #[serde(borrow)]
    pub version: Option<Text<'a>>,
}

/// What came of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Outcome<'a> {
    /// The HTTP status.
    pub status: Option<u16>,
    /// Why.
    #[serde(borrow)]
    pub reason: Option<Text<'a>>,
    /// Bytes delivered.
    pub bytes: Option<u64>,
    /// The first and the last byte that were asked for.
    pub range: Option<(u64, u64)>,
    /// Whether everything was delivered.
    pub complete: Option<bool>,
}

/// Text that borrows from the line it was read from where that is possible.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Text<'a>(pub Cow<'a, str>);

impl Text<'_> {
    /// The same text on its own.
    pub fn into_owned(self) -> Text<'static> {
        Text(Cow::Owned(self.0.into_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Text<'a> {
        Text(Cow::Borrowed(text))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text<'a>, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Visit)
    }
}

impl<'a> Entry<'a> {
    /// Reads an entry.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] unless the bytes are exactly what [`encode`](Entry::encode) makes.
    pub fn parse(bytes: &'a [u8]) -> Result<Entry<'a>> {
        let entry = Entry::read(bytes)?;
        if entry.encode() != bytes {
            return Err(Error::invalid("the entry is not written the way entries are"));
        }
        Ok(entry)
    }

    /// Reads an entry whose bytes the log vouches for.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if they are none.
    pub fn read(bytes: &'a [u8]) -> Result<Entry<'a>> {
        serde_json::from_slice(bytes)
            .map_err(|cause| Error::invalid(format!("the entry cannot be read: {cause}")))
    }

    /// The kind of an entry that the log vouches for, without reading it all.
    pub fn kind_of(bytes: &[u8]) -> Option<&[u8]> {
        kind(bytes)
    }

    /// The line.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        self.encode_into(&mut out);
        out
    }

    pub(super) fn encode_into(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"seq\":");
        number(out, self.seq);
        out.extend_from_slice(b",\"t\":\"");
        moment(out, self.t);
        out.push(b'"');
        let mut members = Members { out, first: false };
        members.text("kind", Some(&self.kind));
        members.number("of", self.of);
        members.text("who", self.who.as_deref());
        members.text("how", self.how.as_deref());
        members.text("ip", self.ip.as_deref());
        members.text("cc", self.cc.as_ref().map(Country::as_str));
        members.text("p", self.p.as_deref());
        if let Some(what) = &self.what {
            members.object("what", |members| {
                members.text("repo", what.repo.as_deref());
                members.text("path", what.path.as_deref());
                members.text("sha256", what.sha256.as_deref());
                members.text("bundle", what.bundle.as_deref());
                members.text("version", what.version.as_deref());
            });
        }
        members.text("about", self.about.as_deref());
        if let Some(res) = &self.res {
            members.object("res", |members| {
                members.number("status", res.status.map(u64::from));
                members.text("reason", res.reason.as_deref());
                members.number("bytes", res.bytes);
                if let Some((first, last)) = res.range {
                    members.name("range");
                    members.out.push(b'[');
                    number(members.out, first);
                    members.out.push(b',');
                    number(members.out, last);
                    members.out.push(b']');
                }
                if let Some(complete) = res.complete {
                    members.name("complete");
                    members.out.extend_from_slice(if complete { b"true" } else { b"false" });
                }
            });
        }
        members.number("req", self.req);
        out.push(b'}');
    }

    /// Cuts the free texts so that the line fits.
    pub(super) fn fit(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let start = out.len();
        cut(&mut self.who, MAX_WHO);
        cut(&mut self.how, MAX_HOW);
        cut(&mut self.about, MAX_ABOUT);
        if let Some(res) = &mut self.res {
            cut(&mut res.reason, MAX_REASON);
        }
        self.encode_into(out);
        if out.len() - start > MAX_ENTRY {
            // Texts full of what must be escaped are nothing that was said to inform.
            out.truncate(start);
            [&mut self.who, &mut self.how, &mut self.about].into_iter().for_each(|text| cut(text, SHORT));
            if let Some(res) = &mut self.res {
                cut(&mut res.reason, SHORT);
            }
            self.encode_into(out);
        }
        if out.len() - start > MAX_ENTRY {
            out.truncate(start);
            return Err(Error::new(ErrorKind::TooLarge, format!("an event has at most {MAX_ENTRY} bytes")));
        }
        Ok(())
    }

    /// The same entry on its own.
    pub fn into_owned(self) -> Entry<'static> {
        let own = |text: Option<Text<'_>>| text.map(Text::into_owned);
        Entry {
            seq: self.seq,
            t: self.t,
            kind: self.kind.into_owned(),
            of: self.of,
            who: own(self.who),
            how: own(self.how),
            ip: own(self.ip),
            cc: self.cc,
            p: own(self.p),
            what: self.what.map(|what| What {
                repo: own(what.repo),
                path: own(what.path),
                sha256: own(what.sha256),
                bundle: own(what.bundle),
                version: own(what.version),
            }),
            about: own(self.about),
            res: self.res.map(|res| Outcome {
                status: res.status,
                reason: own(res.reason),
                bytes: res.bytes,
                range: res.range,
                complete: res.complete,
            }),
            req: self.req,
        }
    }
}

fn cut(text: &mut Option<Text<'_>>, limit: usize) {
    if let Some(long) = text.as_ref().filter(|text| text.len() > limit) {
        let mut end = limit - '…'.len_utf8();
        while !long.is_char_boundary(end) {
            end -= 1;
        }
        *text = Some(Text(Cow::Owned(format!("{}…", &long[..end]))));
    }
}

/// The digest as an entry holds it.
pub(super) fn hex(digest: &Digest) -> Text<'static> {
    Text(Cow::Owned(to_hex(digest.as_bytes())))
}

struct Members<'o> {
    out: &'o mut Vec<u8>,
    first: bool,
}

impl Members<'_> {
    fn name(&mut self, name: &str) {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn text(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.name(name);
            string(self.out, text);
        }
    }

    fn number(&mut self, name: &str, value: Option<u64>) {
        if let Some(value) = value {
            self.name(name);
            number(self.out, value);
        }
    }

    fn object(&mut self, name: &str, members: impl FnOnce(&mut Members<'_>)) {
        self.name(name);
        self.out.push(b'{');
        members(&mut Members { out: self.out, first: true });
        self.out.push(b'}');
    }
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let plain = |byte: &u8| (b' '..0x7f).contains(byte) && *byte != b'"' && *byte != b'\\';
    if text.as_bytes().iter().all(plain) {
        out.extend_from_slice(text.as_bytes());
    } else {
        text.chars().for_each(|c| character(out, c));
    }
    out.push(b'"');
}

#[cold]
fn character(out: &mut Vec<u8>, c: char) {
    match c {
        '"' | '\\' => out.extend_from_slice(&[b'\\', c as u8]),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        // C0, DEL and C1 command terminals; the rest ends lines or turns the direction of writing.
        '\0'..='\u{1f}'
        | '\u{7f}'..='\u{9f}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{2069}'
        | '\u{feff}' => out.extend_from_slice(format!("\\u{:04x}", c as u32).as_bytes()),
        _ => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

pub(super) fn number(out: &mut Vec<u8>, mut value: u64) {
    let (mut digits, mut at) = ([0; 20], 20);
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// RFC 3339, as [`Timestamp`] prints, without its detours.
fn moment(out: &mut Vec<u8>, at: Timestamp) {
    let seconds = at.as_unix().unsigned_abs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // The civil calendar in eras of 400 years that begin on 1 March.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let two = |value: u64| [b'0' + (value / 10) as u8, b'0' + (value % 10) as u8];
    let mut text = *b"0000-00-00T00:00:00Z";
    for (at, value) in [
        (0, year / 100),
        (2, year % 100),
        (5, month),
        (8, date),
        (11, second / 3600),
        (14, second / 60 % 60),
        (17, second % 60),
    ] {
        text[at..at + 2].copy_from_slice(&two(value));
    }
    out.extend_from_slice(&text);
}

/// The number with which an entry begins.
pub(super) fn seq(entry: &[u8]) -> Option<u64> {
    let rest = entry.strip_prefix(b"{\"seq\":")?;
    let digits = rest.iter().position(|byte| *byte == b',')?;
    let text = std::str::from_utf8(&rest[..digits]).ok()?;
    text.parse().ok().filter(|_| text == "0" || text.starts_with(|c: char| ('1'..='9').contains(&c)))
}

/// The kind of an entry that begins as entries do.
pub(super) fn kind(entry: &[u8]) -> Option<&[u8]> {
    let rest = &entry[entry.iter().position(|byte| *byte == b',')?..];
    // `,"t":"2026-11-22T05:00:00Z","kind":"`
    let rest = rest.get(6 + 20 + 2..)?.strip_prefix(b"\"kind\":\"")?;
    Some(&rest[..rest.iter().position(|byte| *byte == b'"')?])
}

/// The time of an entry that begins as entries do, as it is written.
pub(super) fn time(entry: &[u8]) -> Option<&[u8]> {
    entry[entry.iter().position(|byte| *byte == b',')?..].get(6..26)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Entry<'static> {
        Entry {
            seq: 12,
            t: Timestamp::from_unix(1_795_323_600),
            kind: "download.start".into(),
            of: Some(3),
            who: Some("user:~AAAA".into()),
            how: Some("tok\u{1b}[2J\"\\\r\n\u{9b}\u{202e}ü".into()),
            ip: Some("192.0.2.0/24~AAAA".into()),
            cc: Some("DE".parse().unwrap()),
            p: Some("pp".into()),
            what: Some(What { repo: Some("r".into()), version: Some("1.0".into()), ..What::default() }),
            about: Some("x".into()),
            res: Some(Outcome {
                status: Some(206),
                reason: Some("why".into()),
                bytes: Some(7),
                range: Some((0, 6)),
                complete: Some(true),
            }),
            req: Some(u64::MAX),
        }
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let line = full().encode();
        assert_eq!(Entry::parse(&line).unwrap(), full());
        assert_eq!(Entry::parse(&line).unwrap().into_owned(), full());
        assert_eq!((seq(&line), kind(&line)), (Some(12), Some(&b"download.start"[..])));
        assert_eq!(time(&line), Some(&b"2026-11-22T05:00:00Z"[..]));
        let text = String::from_utf8(line).unwrap();
        for (from, to) in [
            ("\"seq\":12", "\"seq\":012"),
            ("{", "{ "),
            ("\"of\":3", "\"of\":3,\"of\":3"),
            ("\"of\":3", "\"of\":3.0"),
            ("why", "\\u0077hy"),
            ("\"cc\"", "\"cd\""),
            ("}", "}\n"),
        ] {
            assert!(Entry::parse(text.replace(from, to).as_bytes()).is_err(), "{from} {to}");
        }
    }

    #[test]
    fn control_bytes_are_escaped() {
        let line = full().encode();
        assert!(line.iter().all(|byte| (b' '..0x7f).contains(byte) || *byte >= 0x80));
        assert!(String::from_utf8(line).unwrap().contains(r#"tok\u001b[2J\"\\\r\n\u009b\u202eü"#));
    }

    #[test]
    fn a_long_text_is_cut_and_the_line_fits() {
        let mut entry = full();
        let long = "\u{1b}".repeat(9000);
        (entry.about, entry.who) = (Some(long.as_str().into()), Some(long.as_str().into()));
        entry.res = Some(Outcome { reason: Some(long.as_str().into()), ..Outcome::default() });
        entry.what = Some(What { path: Some(Text(Cow::Borrowed(&long[..1024]))), ..What::default() });
        let mut line = Vec::new();
        entry.fit(&mut line).unwrap();
        assert!(line.len() <= MAX_ENTRY, "{}", line.len());
        Entry::parse(&line).unwrap();
    }

    #[test]
    fn moments_are_those_of_the_calendar() {
        for at in (0..253_402_300_799_i64).step_by(86_400 * 13 + 3_601) {
            let at = Timestamp::from_unix(at);
            let mut text = Vec::new();
            moment(&mut text, at);
            assert_eq!(String::from_utf8(text).unwrap(), at.to_string());
        }
    }
}
