//! `/api/v1/audit` and `/api/v1/downloads`: the log is read, proven, exported and cosigned; downloads
//! are counted.
//!
//! | path below `/api/v1` | methods | what |
//! |---|---|---|
//! | `audit` | GET | entries that fit a question, a page at a time |
//! | `audit/checkpoint`, `audit/cosigned` | GET | the last checkpoint; the last with a cosignature |
//! | `audit/tile/…` | GET | hashes and bundles of entries (C2SP `tlog-tiles`) |
//! | `audit/proof/inclusion/{entry}/{size}` | GET | that an entry is in the log |
//! | `audit/proof/consistency/{from}/{to}` | GET | that nothing was changed in between |
//! | `audit/cosignature` | POST | a checkpoint with the line of a paired source |
//! | `audit/export` | GET | `format=tar\|jsonl\|csv\|combined` |
//! | `audit/erase` | POST | a person is forgotten; needs `administer` |
//! | `downloads` | GET | counts, by `group` |

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write as _};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, HeaderValue};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Answer, Call};
use crate::access::{Action, Resource};
use crate::audit::{
    Format, Health, Line, LogQuery, MAX_NOTE, TILE, TileLog, parse_number_path, verifier_key,
};
use crate::blocking;
use crate::clock::Timestamp;
use crate::edge::service::nothing;
use crate::edge::{Body, media};
use crate::error::{Error, ErrorKind, Result};
use crate::govern::{DownloadQuery, Group};
use crate::merkle::Hash;
use crate::range::ByteRange;

/// Longest question that comes as a body.
const QUESTION: usize = 16 << 10;

/// Who is to be forgotten.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Erase {
    subject: String,
}

impl Call<'_> {
    pub(super) async fn audit(&self, rest: &[&str], body: Body) -> Answer {
        let Some(log) = self.edge.governance().ledger.clone() else { return Err(self.unknown()) };
        match rest {
            ["cosignature"] => self.cosignature(&log, body).await,
            ["erase"] => self.erase(&log, body).await,
            _ => {
                self.methods("GET, HEAD")?;
                self.may(Action::Audit, Resource::Edge)?;
                match rest {
                    [] => self.entries(log).await,
                    ["status"] => self.log_status(&log),
                    ["checkpoint"] => {
                        let latest = match log.checkpoint() {
                            Some(latest) => latest,
                            None => blocking::run(move || log.flush()).await?,
                        };
                        Ok(media::document(self.admitted.head, NOTE, latest.to_note()))
                    }
                    ["cosigned"] => {
                        let cosigned = log.cosigned().ok_or_else(nothing)?;
                        Ok(media::document(self.admitted.head, NOTE, cosigned.to_note()))
                    }
                    ["tile", "entries", number @ ..] => {
                        let (index, width) = parse_number_path(number.iter().copied()).ok_or_else(nothing)?;
                        self.tile(move || log.entry_bundle(index, width)).await
                    }
                    ["tile", level, number @ ..] => {
                        let plain = level.len() == 1 && level.bytes().all(|byte| byte.is_ascii_digit());
                        let level = level.parse().ok().filter(|_| plain).ok_or_else(nothing)?;
                        let (index, width) = parse_number_path(number.iter().copied()).ok_or_else(nothing)?;
                        self.tile(move || log.tile(level, index, width)).await
                    }
                    ["proof", what @ ("inclusion" | "consistency"), first, second] => {
                        let number = |text: &str| {
                            let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                            text.parse::<u64>().ok().filter(|_| plain)
                        };
                        let (first, second) = number(first).zip(number(second)).ok_or_else(nothing)?;
                        self.proof(log, *what == "inclusion", first, second).await
                    }
                    ["export"] => self.export(log).await,
                    _ => Err(self.unknown()),
                }
            }
        }
    }

    /// Counts of downloads.
    pub(super) async fn downloads(&self) -> Answer {
        self.methods("GET, HEAD")?;
        self.may(Action::Audit, Resource::Edge)?;
        let Some(downloads) = &self.edge.governance().downloads else { return Err(self.unknown()) };
        let mut query = DownloadQuery::new(Group::Artifact);
        for (name, value) in parameters(self.parts.uri.query())? {
            match &*name {
                "group" => query.group = value.parse()?,
                "from" => query.from = Some(value.parse()?),
                "until" => query.until = Some(value.parse()?),
                "value" => query.value = Some(value),
                "step" => query.step = value.parse()?,
                "after" => query.after = Some(value),
                "limit" => query.limit = number(&name, &value)?,
                _ => return Err(unknown_parameter(&name).into()),
            }
        }
        media::json(self.admitted.head, &downloads.query(&query).await?)
    }

    async fn entries(&self, log: Arc<TileLog>) -> Answer {
        let mut query = LogQuery::default();
        for (name, value) in parameters(self.parts.uri.query())? {
            match &*name {
                "from" => query.from = Some(value.parse()?),
                "until" => query.until = Some(value.parse()?),
                "kind" => query.kinds.push(value),
                "who" => query.who = Some(value),
                "repository" => query.repository = Some(value),
                "path" => query.path = Some(value),
                "bundle" => query.bundle = Some(value),
                "object" => query.object = Some(value),
                "request" => query.request = Some(number(&name, &value)?),
                "after" => query.after = Some(number(&name, &value)?),
                "limit" => query.limit = number(&name, &value)?,
                _ => return Err(unknown_parameter(&name).into()),
            }
        }
        let page = blocking::run(move || log.query(&query)).await?;
        let lines: Vec<Value> = page.lines.iter().map(shown).collect();
        media::json(self.admitted.head, &json!({ "entries": lines, "next": page.next }))
    }

    fn log_status(&self, log: &TileLog) -> Answer {
        let health = match log.health() {
            Health::Good => "good",
            Health::Spare => "disk full, writing to the spare segment",
            Health::Full => "disk full",
            _ => "failed",
        };
        let size =
            |checkpoint: Option<crate::audit::Checkpoint>| checkpoint.map(|checkpoint| checkpoint.size);
        let status = json!({
            "origin": log.origin(),
            "key": log.key().to_text(),
            "verifier_key": verifier_key(log.origin(), false, &log.key())?,
            "health": health,
            "first": log.first(),
            "entries": log.len(),
            "signed": size(log.checkpoint()),
            "cosigned": size(log.cosigned()),
        });
        media::json(self.admitted.head, &status)
    }

    async fn tile(&self, read: impl FnOnce() -> Result<Vec<u8>> + Send + 'static) -> Answer {
        let bytes = blocking::run(read).await?;
        let full = bytes.len() >= 32 * TILE;
        let mut response = media::document(self.admitted.head, "application/octet-stream", bytes);
        if full {
            // What is in a full tile never changes; it is for whoever may read the log, and nobody else.
            let forever = HeaderValue::from_static("private, max-age=31536000, immutable");
            response.headers_mut().insert(CACHE_CONTROL, forever);
        }
        Ok(response)
    }

    async fn proof(&self, log: Arc<TileLog>, inclusion: bool, first: u64, second: u64) -> Answer {
        let proof = blocking::run(move || {
            if inclusion { log.inclusion(first, second) } else { log.consistency(first, second) }
        });
        let hashes: Vec<String> = proof.await?.iter().map(|hash: &Hash| STANDARD.encode(hash)).collect();
        let names = if inclusion { ["index", "size"] } else { ["from", "to"] };
        media::json(self.admitted.head, &json!({ names[0]: first, names[1]: second, "hashes": hashes }))
    }

    /// Takes the word of a paired source: whose key it is decides, not what the line calls it.
    async fn cosignature(&self, log: &TileLog, body: Body) -> Answer {
        self.methods("POST")?;
        self.may(Action::Audit, Resource::Edge)?;
        let _share = self.incoming(MAX_NOTE)?;
        let note = body.collect(MAX_NOTE).await?;
        let pairings = self.edge.pairings().ok_or_else(|| self.unknown())?;
        let seen = crate::audit::Checkpoint::parse(&note)?;
        let mut refused = Error::new(ErrorKind::Untrusted, "no paired source cosigned this checkpoint");
        for state in pairings.list().await? {
            let (Some(_), Some(peer)) = (state.to_peer(), state.peer()) else { continue };
            for signature in seen.signatures.iter().filter(|signature| signature.name != log.origin()) {
                match log.accept_cosignature(&note, &signature.name, &peer.key) {
                    Ok(cosigned) => {
                        return media::json(false, &json!({ "size": cosigned.size, "by": peer.name }));
                    }
                    Err(error) if error.kind() == ErrorKind::Untrusted => {}
                    Err(error) => refused = error,
                }
            }
        }
        Err(refused.into())
    }

    async fn erase(&self, log: &Arc<TileLog>, body: Body) -> Answer {
        self.methods("POST")?;
        self.may(Action::Administer, Resource::Edge)?;
        let Erase { subject } = self.json(body, QUESTION).await?;
        let address = subject.parse::<std::net::IpAddr>().is_ok();
        if !address && subject.strip_prefix("user:").is_none_or(str::is_empty) {
            let message = "who is to be forgotten is `user:` and a name, or an address";
            return Err(Error::invalid(message).into());
        }
        let (forgotten, by) = (subject.clone(), self.asker.principal.clone());
        let erasing = Arc::clone(log);
        // Counted first, so that what is counted later has no name to count under.
        if let Some(downloads) = &self.edge.governance().downloads {
            downloads.catch_up().await?;
        }
        let records = blocking::run(move || erasing.erase(&forgotten, &by)).await?;
        if let Some(downloads) = self.edge.governance().downloads.as_ref().filter(|_| !address) {
            downloads.forget(&subject).await?;
        }
        media::json(false, &json!({ "erased": records }))
    }

    async fn export(&self, log: Arc<TileLog>) -> Answer {
        let (mut format, mut from, mut until) = (Format::Tar, None, None);
        for (name, value) in parameters(self.parts.uri.query())? {
            match &*name {
                "format" => format = value.parse()?,
                "from" => from = Some(value.parse::<Timestamp>()?),
                "until" => until = Some(value.parse::<Timestamp>()?),
                _ => return Err(unknown_parameter(&name).into()),
            }
        }
        if self.admitted.head {
            return Ok(media::document(true, format.media_type(), ""));
        }
        // It is written aside, so that its length is known and a slow reader keeps nothing waiting.
        let file = blocking::run(move || written(&log, format, from, until)).await?;
        let length = file.metadata().map_err(|cause| Error::io("reading an export", cause))?.len();
        let mut response = media::document(false, format.media_type(), "");
        if length > 0 {
            *response.body_mut() = Body::file(Arc::new(file), ByteRange::new(0, length)?);
        }
        let headers = response.headers_mut();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        let name = match format {
            Format::Tar => "attachment; filename=\"audit.tar\"",
            Format::Lines => "attachment; filename=\"audit.jsonl\"",
            Format::Csv => "attachment; filename=\"downloads.csv\"",
            _ => "attachment; filename=\"downloads.log\"",
        };
        headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static(name));
        Ok(response)
    }
}

const NOTE: &str = "text/plain; charset=utf-8";

/// Writes an export to a file that has no name any more.
fn written(log: &TileLog, format: Format, from: Option<Timestamp>, until: Option<Timestamp>) -> Result<File> {
    let random = crate::secret::Secret::random(12)?;
    let name = format!("export-{}.part", crate::digest::to_hex(random.expose()));
    let path = log.directory().join(name);
    let during = |cause| Error::io("writing an export", cause);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(&path).map_err(during)?;
    // Where an open file cannot be removed, it is left to the next start of the log.
    let removed = std::fs::remove_file(&path);
    let mut out = BufWriter::with_capacity(1 << 18, file);
    let result = log.export(format, from, until, &mut out).and_then(|()| out.flush().map_err(during));
    if result.is_err() && removed.is_err() {
        let _ = std::fs::remove_file(&path);
    }
    result?;
    out.into_inner().map_err(|error| during(error.into_error()))
}

/// An entry as an answer: what its download's start said, and full names, are put in.
fn shown(line: &Line) -> Value {
    let entry = &line.entry;
    let text = |member: Option<&str>| member.map(str::to_owned);
    let what = line.of(|entry| entry.what.as_ref());
    let members = [
        ("seq", json!(entry.seq)),
        ("at", json!(entry.t)),
        ("kind", json!(&*entry.kind)),
        ("of", json!(entry.of)),
        ("who", json!(line.who())),
        ("credential", json!(text(line.of(|entry| entry.how.as_deref())))),
        (
            "address",
            match line.person.as_ref().and_then(|person| person.ip) {
                Some(ip) => json!(ip),
                None => json!(text(line.of(|entry| entry.ip.as_deref()))),
            },
        ),
        ("country", json!(line.of(|entry| entry.cc))),
        ("repository", json!(text(what.and_then(|what| what.repo.as_deref())))),
        ("path", json!(text(what.and_then(|what| what.path.as_deref())))),
        ("sha256", json!(text(what.and_then(|what| what.sha256.as_deref())))),
        ("bundle", json!(text(what.and_then(|what| what.bundle.as_deref())))),
        ("version", json!(text(what.and_then(|what| what.version.as_deref())))),
        ("object", json!(text(line.of(|entry| entry.about.as_deref())))),
        ("status", json!(entry.res.as_ref().and_then(|res| res.status))),
        ("reason", json!(text(entry.res.as_ref().and_then(|res| res.reason.as_deref())))),
        ("bytes", json!(entry.res.as_ref().and_then(|res| res.bytes))),
        ("range", json!(line.of(|entry| entry.res.as_ref()?.range))),
        ("complete", json!(entry.res.as_ref().and_then(|res| res.complete))),
        ("request", json!(line.of(|entry| entry.req))),
    ];
    let given = members.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(given.map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>())
}

/// The parameters of a query (`application/x-www-form-urlencoded`).
fn parameters(query: Option<&str>) -> Result<Vec<(String, String)>> {
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decoded(name)?, decoded(value)?))
        })
        .collect::<Option<_>>()
        .ok_or_else(|| Error::invalid("the query is not percent-encoded UTF-8"))
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = rest.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
                bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
                rest = &rest[2..];
            }
            _ => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).ok()
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T> {
    value.parse().map_err(|_| Error::invalid(format!("{name:?} must be a whole number")))
}

#[cold]
fn unknown_parameter(name: &str) -> Error {
    let shown: String = name.chars().take(40).collect();
    Error::invalid(format!("there is no parameter {shown:?} here"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_has_one_reading() {
        let read = |query: &str| parameters(Some(query)).ok();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(read("a=b%20c&who=user%3Aal+x"), Some(vec![pair("a", "b c"), pair("who", "user:al x")]));
        assert_eq!(read(""), Some(Vec::new()));
        assert_eq!(read("a=%zz"), None);
        assert_eq!(read("a=%f"), None);
        assert_eq!(read("a=%ff"), None);
        assert_eq!(read("a=%+1"), None);
    }
}
