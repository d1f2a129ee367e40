//! The audit log on the command line: verified offline, asked, exported and erased over HTTP.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use distedge::audit::{Report, Trusted, verify};
use distedge::clock::{Clock as _, SystemClock, Timestamp};
use distedge::error::{Error, ErrorKind};
use distedge::key::PublicKey;
use distedge::transport::{Call, Verb};
use serde_json::Value;

use super::remote::Remote;
use super::{Failure, say};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Verify a log or an export of one, without the edge: every entry, hash and signature.
    Verify(Verify),
    /// Show entries.
    Query(Query),
    /// Fetch an export.
    Export {
        /// tar (verifiable), jsonl (entries), csv or combined (finished downloads).
        #[arg(long, default_value = "tar")]
        format: String,
        /// From this moment on, 2026-11-22T05:00:00Z.
        #[arg(long)]
        from: Option<Timestamp>,
        /// Before this moment.
        #[arg(long)]
        until: Option<Timestamp>,
        /// Where to.
        file: PathBuf,
        #[command(flatten)]
        remote: Remote,
    },
    /// Say how the log is: its name, key, length, and what was signed and cosigned.
    Status {
        #[command(flatten)]
        remote: Remote,
    },
    /// Forget a person: `user:NAME` or an address. The log verifies as before.
    Erase {
        /// Who.
        subject: String,
        #[command(flatten)]
        remote: Remote,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The directory of a log (`audit` in a data directory), or an export.
    path: PathBuf,
    /// The edge's identity key, `ed25519:…` or a file with it. `audit status` shows it; take it from
    /// where you trust it.
    #[arg(long, value_name = "KEY")]
    key: String,
    /// A witness, NAME=KEY: the name and the identity key of a source.
    #[arg(long, value_name = "NAME=KEY")]
    witness: Vec<String>,
    /// A checkpoint that a witness kept: without one, a log that was cut short or written anew with
    /// the edge's key cannot be told from a good one.
    #[arg(long, value_name = "FILE")]
    witnessed: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Query {
    /// From this moment on, 2026-11-22T05:00:00Z.
    #[arg(long)]
    from: Option<Timestamp>,
    /// Before this moment.
    #[arg(long)]
    until: Option<Timestamp>,
    /// Of this kind; `download.` for all that begin so.
    #[arg(long)]
    kind: Vec<String>,
    /// By this principal (`user:alice`), or from this address.
    #[arg(long)]
    who: Option<String>,
    /// Of this repository.
    #[arg(long)]
    repository: Option<String>,
    /// Of this path, or below it if it ends in a slash.
    #[arg(long)]
    path: Option<String>,
    /// Of this bundle.
    #[arg(long)]
    bundle: Option<String>,
    /// About this object: the id of a link, a token, a pairing.
    #[arg(long)]
    object: Option<String>,
    /// At most so many.
    #[arg(long, default_value_t = 1_000)]
    limit: usize,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Args)]
pub(crate) struct Downloads {
    /// By artifact, bundle, version, subject, country or link.
    #[arg(long, default_value = "artifact")]
    group: String,
    /// One line for all of the time, or for each day or hour.
    #[arg(long, default_value = "all")]
    step: String,
    /// From the hour of this moment on.
    #[arg(long)]
    from: Option<Timestamp>,
    /// Before the hour of this moment.
    #[arg(long)]
    until: Option<Timestamp>,
    /// Of this value alone, or of those below it if it ends in a slash.
    #[arg(long)]
    value: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

pub(crate) async fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Verify(command) => command.run(),
        Command::Query(command) => command.run().await,
        Command::Export { format, from, until, file, remote } => {
            let query = parameters([
                ("format", Some(format.clone())),
                ("from", from.map(|from| from.to_string())),
                ("until", until.map(|until| until.to_string())),
            ]);
            let answer = remote.send(Call::new(Verb::Get, format!("/api/v1/audit/export?{query}"))).await?;
            std::fs::write(file, &answer.body)
                .map_err(|cause| Error::io(format_args!("writing {}", file.display()), cause))?;
            say(format_args!("{}: {} bytes", file.display(), answer.body.len()))
        }
        Command::Status { remote } => {
            let status = remote.ask(Verb::Get, "/api/v1/audit/status", None).await?;
            for name in ["origin", "key", "verifier_key", "health", "first", "entries", "signed", "cosigned"]
            {
                say(format_args!("{name}: {}", text(&status[name])))?;
            }
            Ok(())
        }
        Command::Erase { subject, remote } => {
            let question = serde_json::json!({ "subject": subject });
            let answer = remote.ask(Verb::Post, "/api/v1/audit/erase", Some(&question)).await?;
            say(format_args!("erased {} records", text(&answer["erased"])))
        }
    }
}

impl Verify {
    fn run(&self) -> Result<(), Failure> {
        let mut trusted = Trusted::key(key(&self.key)?);
        for witness in &self.witness {
            let (name, text) = witness
                .split_once('=')
                .ok_or_else(|| Failure::usage("a witness is its name, \"=\" and its key"))?;
            trusted = trusted.with_witness(name, key(text)?);
        }
        for file in &self.witnessed {
            let note = std::fs::read(file)
                .map_err(|cause| Error::io(format_args!("reading {}", file.display()), cause))?;
            trusted = trusted.with_witnessed(note);
        }
        report(&verify(&self.path, &trusted, SystemClock.now())?)
    }
}

/// Says what was found; a flaw ends the programme with 1.
fn report(report: &Report) -> Result<(), Failure> {
    if let Some(flaw) = &report.flaw {
        return Err(
            Error::new(ErrorKind::Mismatch, format!("the log is not what it should be: {flaw}")).into()
        );
    }
    let (first, end) = (report.entries.start, report.entries.end);
    say(format_args!("{}: {} entries are signed", report.origin, report.size))?;
    say(format_args!("entries {first} to {} were read, and none was changed", end.saturating_sub(1)))?;
    if report.unsigned() > 0 {
        say(format_args!("{} newer entries are not signed yet", report.unsigned()))?;
    }
    for (name, size, at) in &report.witnessed {
        say(format_args!("{name} had seen {size} of them on {at}"))?;
    }
    Ok(())
}

impl Query {
    async fn run(&self) -> Result<(), Failure> {
        let mut after: Option<u64> = None;
        let mut left = self.limit;
        while left > 0 {
            let mut query = parameters([
                ("from", self.from.map(|from| from.to_string())),
                ("until", self.until.map(|until| until.to_string())),
                ("who", self.who.clone()),
                ("repository", self.repository.clone()),
                ("path", self.path.clone()),
                ("bundle", self.bundle.clone()),
                ("object", self.object.clone()),
                ("after", after.map(|after| after.to_string())),
                ("limit", Some(left.min(1_000).to_string())),
            ]);
            for kind in &self.kind {
                query.push_str(&format!("&kind={}", encoded(kind)));
            }
            let page = self.remote.ask(Verb::Get, &format!("/api/v1/audit?{query}"), None).await?;
            for entry in page["entries"].as_array().into_iter().flatten() {
                say(entry)?;
                left -= 1;
            }
            match page["next"].as_u64() {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        Ok(())
    }
}

impl Downloads {
    pub(crate) async fn run(&self) -> Result<(), Failure> {
        let mut after: Option<String> = None;
        say("started completed aborted bytes value")?;
        loop {
            let query = parameters([
                ("group", Some(self.group.clone())),
                ("step", Some(self.step.clone())),
                ("from", self.from.map(|from| from.to_string())),
                ("until", self.until.map(|until| until.to_string())),
                ("value", self.value.clone()),
                ("after", after.clone()),
                ("limit", Some("1000".into())),
            ]);
            let page = self.remote.ask(Verb::Get, &format!("/api/v1/downloads?{query}"), None).await?;
            for row in page["rows"].as_array().into_iter().flatten() {
                let at = row["at"].as_str().map(|at| format!(" {at}")).unwrap_or_default();
                say(format_args!("{}{at} {}", counts(row), text(&row["value"])))?;
            }
            after = page["next"].as_str().map(str::to_owned);
            if after.is_none() {
                return say(format_args!("{} in all", counts(&page["total"])));
            }
        }
    }
}

fn counts(row: &Value) -> String {
    let counts = ["started", "completed", "aborted", "bytes"].map(|name| text(&row[name]));
    counts.join(" ")
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A key, or a file with one.
fn key(text: &str) -> Result<PublicKey, Failure> {
    match PublicKey::parse(text) {
        Ok(key) => Ok(key),
        Err(error) => match std::fs::read_to_string(text) {
            Ok(file) => Ok(PublicKey::parse(file.lines().next().unwrap_or_default())
                .or_else(|_| PublicKey::parse(&file))?),
            Err(_) => Err(Failure::usage(error.to_string())),
        },
    }
}

fn parameters<const N: usize>(pairs: [(&str, Option<String>); N]) -> String {
    let given = pairs.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", encoded(&value?))));
    given.collect::<Vec<_>>().join("&")
}

fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
