//! Taking a log away: one tar that anyone can verify, and lines for other programmes.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::entry::Entry;
use super::event::kind;
use super::log::TileLog;
use super::note::verifier_key;
use super::tile::{TILE, entries_path, tile_path};
use super::{Person, tar};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};

/// The entries of an export, one a line.
pub(super) const LINES: &str = "entries.jsonl";
/// Downloads that began and whose end was not read yet, at most.
const MAX_OPEN: usize = 65_536;
/// Entries whose people are looked up together.
const TOGETHER: usize = 4096;

/// The form of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// A tar with everything that is needed to verify the log.
    Tar,
    /// The entries as they are in the log, one a line.
    Lines,
    /// Finished downloads as comma-separated values (RFC 4180).
    Csv,
    /// Finished downloads in the combined log format of web servers.
    Combined,
}

impl Format {
    /// Every form.
    pub const ALL: [Format; 4] = [Format::Tar, Format::Lines, Format::Csv, Format::Combined];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Tar => "tar",
            Format::Lines => "jsonl",
            Format::Csv => "csv",
            Format::Combined => "combined",
        }
    }

    /// The type of what is written.
    pub fn media_type(self) -> &'static str {
        match self {
            Format::Tar => "application/x-tar",
            Format::Lines => "application/jsonl",
            Format::Csv => "text/csv; charset=utf-8",
            Format::Combined => "text/plain; charset=utf-8",
        }
    }
}

impl std::str::FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Format> {
        Format::ALL
            .into_iter()
            .find(|format| format.as_str() == text)
            .ok_or_else(|| Error::invalid("an export is one of tar, jsonl, csv, combined"))
    }
}

impl TileLog {
    /// Writes an export of the entries from `from` to before `until`. A tar holds every entry from
    /// the one of `from` on, whatever `until` says: proofs are about all of them.
    ///
    /// The tar holds `entries.jsonl`, `checkpoint`, `cosigned` if there is one, the tiles and bundles of
    /// C2SP `tlog-tiles`, `key` with the log's verifier key, and `consistency`, the proof that the
    /// checkpoint continues the cosigned one.
    ///
    /// Lines of downloads name users and addresses in full, as far as they are not erased; entries
    /// never do.
    pub fn export(
        &self,
        format: Format,
        from: Option<Timestamp>,
        until: Option<Timestamp>,
        out: &mut dyn Write,
    ) -> Result<()> {
        let first = match from {
            Some(from) => self.find(from)?,
            None => self.first(),
        };
        match format {
            Format::Tar => self.export_tar(first, out),
            Format::Lines => self.entries(first, |_, bytes| {
                if !within(bytes, from, until) {
                    return Ok(true);
                }
                out.write_all(bytes).and_then(|()| out.write_all(b"\n")).map_err(writing)?;
                Ok(true)
            }),
            Format::Csv => {
                out.write_all(CSV_HEAD).map_err(writing)?;
                self.export_downloads(first, from, until, &mut |download| csv(out, download))
            }
            Format::Combined => {
                self.export_downloads(first, from, until, &mut |download| combined(out, download))
            }
        }
    }

    fn export_tar(&self, first: u64, out: &mut dyn Write) -> Result<()> {
        let checkpoint = self.flush()?;
        let (size, mtime) = (checkpoint.size, self.shared.clock.now().as_unix());
        let put = |out: &mut dyn Write, name: &str, bytes: &[u8]| {
            tar::file(out, name, bytes, mtime).map_err(writing)
        };
        put(out, "checkpoint", checkpoint.to_note().as_bytes())?;
        if let Some(cosigned) = self.cosigned() {
            put(out, "cosigned", cosigned.to_note().as_bytes())?;
            let proof = self.consistency(cosigned.size, size)?;
            let mut text = format!("from {} to {size}\n", cosigned.size);
            proof.iter().for_each(|hash| {
                text.push_str(&STANDARD.encode(hash));
                text.push('\n');
            });
            put(out, "consistency", text.as_bytes())?;
        }
        let mut key = self.key().to_text();
        let _ = write!(key, "\n{}\n", verifier_key(self.origin(), false, &self.key())?);
        put(out, "key", key.as_bytes())?;
        // Bundles are whole; so what comes before the first one is left out by whole bundles.
        let first = (first / TILE as u64 * TILE as u64).max(self.first());
        let mut length = 0;
        self.entries(first, |seq, bytes| {
            if seq < size {
                length += bytes.len() as u64 + 1;
            }
            Ok(seq + 1 < size)
        })?;
        tar::head(out, LINES, length, mtime).map_err(writing)?;
        self.entries(first, |seq, bytes| {
            if seq < size {
                out.write_all(bytes).and_then(|()| out.write_all(b"\n")).map_err(writing)?;
            }
            Ok(seq + 1 < size)
        })?;
        tar::pad(out, length).map_err(writing)?;
        for level in 0..8 {
            let hashes = size >> (8 * level);
            for index in 0..hashes.div_ceil(TILE as u64) {
                let width = (hashes - index * TILE as u64).min(TILE as u64) as usize;
                let tile = self.tile(level, index, width)?;
                put(out, &tile_path(level, index, width), &tile)?;
            }
        }
        for index in first / TILE as u64..size.div_ceil(TILE as u64) {
            let begin = (index * TILE as u64).max(first);
            let width = (size - index * TILE as u64).min(TILE as u64) as usize;
            if begin.is_multiple_of(TILE as u64) {
                put(out, &entries_path(index, width), &self.entry_bundle(index, width)?)?;
            }
        }
        tar::end(out).map_err(writing)
    }

    fn export_downloads(
        &self,
        first: u64,
        from: Option<Timestamp>,
        until: Option<Timestamp>,
        each: &mut dyn FnMut(&Download<'_>) -> io::Result<()>,
    ) -> Result<()> {
        let mut open: HashMap<u64, Entry<'static>> = HashMap::new();
        let mut ended: Vec<(Entry<'static>, Entry<'static>)> = Vec::new();
        let mut write = |ended: &mut Vec<(Entry<'static>, Entry<'static>)>| -> Result<()> {
            let ids: HashSet<String> =
                ended.iter().filter_map(|(start, _)| start.p.as_ref().map(|p| p.to_string())).collect();
            let people = self.people(&ids)?;
            for (start, end) in ended.drain(..) {
                let person = start.p.as_ref().and_then(|p| people.get(&**p));
                each(&Download { start: &start, end: &end, person }).map_err(writing)?;
            }
            Ok(())
        };
        self.entries(first, |seq, bytes| {
            match super::entry::kind(bytes) {
                Some(kind) if kind == kind::DOWNLOAD_START.as_bytes() => {
                    if open.len() >= MAX_OPEN {
                        open.clear();
                    }
                    open.insert(seq, Entry::read(bytes)?.into_owned());
                }
                Some(kind) if kind == kind::DOWNLOAD_END.as_bytes() && within(bytes, from, until) => {
                    let end = Entry::read(bytes)?.into_owned();
                    let start = match end.of {
                        Some(of) => match open.remove(&of) {
                            Some(start) => Some(start),
                            None => self.entry(of).ok(),
                        },
                        None => Some(end.clone()),
                    };
                    ended.push((start.unwrap_or_else(|| end.clone()), end));
                    if ended.len() >= TOGETHER {
                        write(&mut ended)?;
                    }
                }
                _ => {}
            }
            Ok(true)
        })?;
        write(&mut ended)
    }

    /// The number of the first entry of `moment` or later. Entries are in the order of their times, but
    /// for a few seconds.
    pub fn find(&self, moment: Timestamp) -> Result<u64> {
        let moment = moment.plus(-60);
        let (mut low, mut high) = (self.first(), self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.entry(middle) {
                Ok(entry) if entry.t < moment => low = middle + 1,
                Ok(_) => high = middle,
                Err(error) if error.kind() == ErrorKind::NotFound => high = middle,
                Err(error) => return Err(error),
            }
        }
        Ok(low)
    }
}

/// A download that ended.
struct Download<'d> {
    start: &'d Entry<'static>,
    end: &'d Entry<'static>,
    person: Option<&'d Person>,
}

impl Download<'_> {
    fn who(&self) -> String {
        match self.person.filter(|person| !person.who.is_empty()) {
            Some(person) => person.who.clone(),
            None => self.start.who.as_ref().map_or("-".into(), |who| who.to_string()),
        }
    }

    fn ip(&self) -> String {
        match self.person.and_then(|person| person.ip) {
            Some(ip) => ip.to_string(),
            None => self.start.ip.as_ref().map_or("-".into(), |ip| ip.to_string()),
        }
    }

    fn what(&self, of: impl Fn(&super::What<'static>) -> Option<super::Text<'static>>) -> String {
        self.start.what.as_ref().and_then(of).map(|text| text.to_string()).unwrap_or_default()
    }

    fn res<T>(&self, of: impl Fn(&super::Outcome<'static>) -> Option<T>) -> Option<T> {
        self.end.res.as_ref().and_then(&of).or_else(|| self.start.res.as_ref().and_then(of))
    }
}

const CSV_HEAD: &[u8] =
    b"seq,started,ended,who,credential,address,country,repository,path,sha256,bundle,version,status,bytes,complete\r\n";

fn csv(out: &mut dyn Write, download: &Download<'_>) -> io::Result<()> {
    let (start, end) = (download.start, download.end);
    let number = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
    let fields = [
        end.seq.to_string(),
        start.t.to_string(),
        end.t.to_string(),
        download.who(),
        start.how.as_ref().map(|how| how.to_string()).unwrap_or_default(),
        download.ip(),
        start.cc.map(|country| country.to_string()).unwrap_or_default(),
        download.what(|what| what.repo.clone()),
        download.what(|what| what.path.clone()),
        download.what(|what| what.sha256.clone()),
        download.what(|what| what.bundle.clone()),
        download.what(|what| what.version.clone()),
        number(download.res(|res| res.status).map(u64::from)),
        number(download.res(|res| res.bytes)),
        download.res(|res| res.complete).map(|complete| complete.to_string()).unwrap_or_default(),
    ];
    for (at, field) in fields.iter().enumerate() {
        if at > 0 {
            out.write_all(b",")?;
        }
        // A spreadsheet takes what begins like this for a formula.
        let guard =
            if field.starts_with(['=', '+', '-', '@', '\t', '\r']) && field != "-" { "'" } else { "" };
        if !guard.is_empty() || field.contains([',', '"', '\r', '\n']) {
            write!(out, "\"{guard}{}\"", field.replace('"', "\"\""))?;
        } else {
            out.write_all(field.as_bytes())?;
        }
    }
    out.write_all(b"\r\n")
}

/// `host ident user [time] "request" status bytes "referer" "agent"`.
fn combined(out: &mut dyn Write, download: &Download<'_>) -> io::Result<()> {
    let path = [download.what(|what| what.repo.clone()), download.what(|what| what.path.clone())].join("/");
    let status = download.res(|res| res.status).unwrap_or(200);
    let bytes = download.res(|res| res.bytes).unwrap_or(0);
    writeln!(
        out,
        "{} - {} [{}] \"GET /{} HTTP/1.1\" {status} {bytes} \"-\" \"-\"",
        plain(&download.ip()),
        plain(&download.who()),
        common_time(download.start.t),
        crate::name::encode_path(&path),
    )
}

/// A field of a log line: nothing in it ends the field or the line.
fn plain(text: &str) -> String {
    let keep = |c: char| !(c.is_control() || c.is_whitespace() || c == '"' || c == '\\');
    text.chars().map(|c| if keep(c) { c } else { '_' }).collect()
}

/// `22/Nov/2026:05:00:00 +0000`.
fn common_time(at: Timestamp) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let text = at.to_string();
    let month = text[5..7].parse::<usize>().ok().and_then(|month| MONTHS.get(month.checked_sub(1)?));
    format!("{}/{}/{}:{} +0000", &text[8..10], month.unwrap_or(&"-"), &text[..4], &text[11..19])
}

fn within(bytes: &[u8], from: Option<Timestamp>, until: Option<Timestamp>) -> bool {
    // The spelling has one order with the moments.
    let time = super::entry::time(bytes).unwrap_or_default();
    from.is_none_or(|from| time >= from.to_string().as_bytes())
        && until.is_none_or(|until| time < until.to_string().as_bytes())
}

#[cold]
fn writing(cause: io::Error) -> Error {
    Error::io("writing an export of the audit log", cause)
}
