//! `edge policy …`: the policy of a running edge, and the policy files of a configuration.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use distedge::access::{Action, UseCase};
use distedge::audit::{Event, kind};
use distedge::clock::{Clock as _, SystemClock, Timestamp};
use distedge::edge::Edge;
use distedge::error::{Error, ErrorKind, Result};
use distedge::name::{ArtifactPath, BundleName, RepositoryName, Version};
use distedge::place::Country;
use distedge::policy::{Described, Document, MAX_DOCUMENT};
use distedge::transport::Verb;
use serde_json::{Value, json};
use tracing::{info, warn};

use super::remote::Remote;
use super::{Failure, say};

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Show the policy in force, or an earlier one.
    Show {
        #[command(flatten)]
        remote: Remote,
        /// Which; the one in force by default.
        #[arg(long, value_name = "NUMBER")]
        version: Option<u64>,
    },
    /// List the versions that are kept.
    Versions {
        #[command(flatten)]
        remote: Remote,
    },
    /// Read a policy file (TOML or JSON) and say everything that is wrong with it. Asks no edge.
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Put a policy file in force.
    Put {
        #[command(flatten)]
        remote: Remote,
        /// The file.
        file: PathBuf,
        /// Only if this version is in force.
        #[arg(long, value_name = "NUMBER")]
        expect: Option<u64>,
    },
    /// Put an earlier policy in force again.
    Rollback {
        #[command(flatten)]
        remote: Remote,
        /// Which.
        version: u64,
    },
    /// Say why a request would be decided as it would be.
    Explain {
        #[command(flatten)]
        remote: Remote,
        #[command(flatten)]
        request: Request,
    },
    /// Say whom a policy file would have denied or allowed what, over the downloads of the past.
    Replay {
        #[command(flatten)]
        remote: Remote,
        /// The file.
        file: PathBuf,
        /// The first moment.
        #[arg(long, value_name = "TIME")]
        from: Timestamp,
        /// The moment after the last one; this moment by default.
        #[arg(long, value_name = "TIME")]
        until: Option<Timestamp>,
    },
}

/// A request in words.
#[derive(Debug, Args)]
pub(crate) struct Request {
    /// Who: anonymous, user:NAME, service:NAME, peer:NAME, link:ID.
    #[arg(long, value_name = "WHO", default_value = "anonymous")]
    who: String,
    /// A group that the credentials name.
    #[arg(long = "group", value_name = "NAME")]
    groups: Vec<String>,
    /// What a peer is paired for.
    #[arg(long, value_name = "CASE")]
    use_case: Option<UseCase>,
    /// What is to be done.
    #[arg(long, value_name = "ACTION", default_value = "read")]
    action: Action,
    /// The repository, and the path in it behind a slash.
    #[arg(long, value_name = "REPOSITORY/PATH")]
    path: Option<String>,
    /// The bundle that holds it; by default what the edge finds.
    #[arg(long, value_name = "NAME")]
    bundle: Option<BundleName>,
    /// The bundle's version.
    #[arg(long, value_name = "VERSION")]
    version: Option<Version>,
    /// The client's address; unknown by default.
    #[arg(long, value_name = "ADDRESS")]
    address: Option<std::net::IpAddr>,
    /// The client's country; by default what the edge finds for the address.
    #[arg(long, value_name = "CC")]
    country: Option<Country>,
    /// The client's Accept-Language.
    #[arg(long, value_name = "FIELD")]
    languages: Option<String>,
    /// When; this moment by default.
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
}

impl Request {
    fn described(self) -> Result<Described> {
        let place = self.path.as_deref().map(|path| path.split_once('/').unwrap_or((path, "")));
        let repository = place.map(|(name, _)| name.parse::<RepositoryName>()).transpose()?;
        let path = place.map(|(_, path)| path.trim_end_matches('/')).filter(|path| !path.is_empty());
        Ok(Described {
            principal: Some(self.who),
            groups: self.groups,
            use_case: self.use_case,
            action: Some(self.action),
            repository,
            path: path.map(str::parse::<ArtifactPath>).transpose()?,
            bundle: self.bundle,
            version: self.version,
            address: self.address,
            country: self.country,
            languages: self.languages,
            at: self.at,
            ..Described::default()
        })
    }
}

pub(crate) async fn run(command: PolicyCommand) -> Result<(), Failure> {
    match command {
        PolicyCommand::Show { remote, version } => {
            let path = version
                .map_or("/api/v1/policy".to_owned(), |version| format!("/api/v1/policy/versions/{version}"));
            show(&remote.ask(Verb::Get, &path, None).await?)
        }
        PolicyCommand::Versions { remote } => {
            let versions = remote.ask(Verb::Get, "/api/v1/policy/versions", None).await?;
            for one in versions.as_array().into_iter().flatten() {
                let word = |key: &str| one[key].as_str().unwrap_or("").to_owned();
                let again = one["rollback_of"].as_u64().map_or(String::new(), |of| format!("\tagain {of}"));
                say(format_args!(
                    "{}\t{}\t{}\t{}{again}",
                    one["version"],
                    word("at"),
                    word("by"),
                    word("description")
                ))?;
            }
            Ok(())
        }
        PolicyCommand::Check { file } => {
            let document = document(&file).map_err(|error| Failure::usage(error.to_string()))?;
            say(format_args!(
                "{} is good: {} grants, {} restrictions, {} steering rules",
                file.display(),
                document.grants.len(),
                document.restrictions.len(),
                document.steers.len()
            ))
        }
        PolicyCommand::Put { remote, file, expect } => {
            let document = document(&file).map_err(|error| Failure::usage(error.to_string()))?;
            let query = expect.map_or(String::new(), |expect| format!("?expected={expect}"));
            let path = format!("/api/v1/policy{query}");
            let answer = remote.ask(Verb::Put, &path, Some(&document.to_value())).await?;
            say(format_args!("version {} is in force", answer["version"]))
        }
        PolicyCommand::Rollback { remote, version } => {
            let body = json!({ "version": version });
            let answer = remote.ask(Verb::Post, "/api/v1/policy/rollback", Some(&body)).await?;
            say(format_args!("version {} is in force; it says what {version} said", answer["version"]))
        }
        PolicyCommand::Explain { remote, request } => {
            let body = serde_json::to_value(request.described()?).map_err(unwritable)?;
            explained(&remote.ask(Verb::Post, "/api/v1/explain", Some(&body)).await?)
        }
        PolicyCommand::Replay { remote, file, from, until } => {
            let document = document(&file).map_err(|error| Failure::usage(error.to_string()))?;
            let mut body = json!({ "policy": document.to_value(), "from": from });
            if let Some(until) = until {
                body["until"] = json!(until);
            }
            replayed(&remote.ask(Verb::Post, "/api/v1/policy/replay", Some(&body)).await?)
        }
    }
}

fn show(value: &Value) -> Result<(), Failure> {
    say(serde_json::to_string_pretty(value).map_err(unwritable)?)
}

fn explained(answer: &Value) -> Result<(), Failure> {
    let explanation = &answer["explanation"];
    let word = |value: &Value, key: &str| value[key].as_str().unwrap_or("").to_owned();
    for step in explanation["steps"].as_array().into_iter().flatten() {
        say(format_args!(
            "{:<9} {:<8} {}: {}",
            word(step, "stage"),
            word(step, "verdict"),
            word(step, "rule"),
            word(step, "why")
        ))?;
    }
    if let Some(left_out) = explanation["left_out"].as_u64().filter(|left_out| *left_out > 0) {
        say(format_args!("… and {left_out} rules that are not about this"))?;
    }
    say(format_args!(
        "{} by {}: {} (policy version {})",
        word(explanation, "decision"),
        word(explanation, "rule"),
        word(explanation, "reason"),
        answer["version"]
    ))
}

fn replayed(report: &Value) -> Result<(), Failure> {
    say(format_args!(
        "{} requests judged, {} skipped: {} newly denied, {} newly allowed",
        report["judged"], report["skipped"], report["newly_denied"], report["newly_allowed"]
    ))?;
    for change in report["changes"].as_array().into_iter().flatten() {
        let word = |key: &str| change[key].as_str().unwrap_or("").to_owned();
        let what = if change["allowed"] == true { "allowed" } else { "denied" };
        say(format_args!(
            "{what}\t{}\t{}\t{} requests\t{} ({})\tlike {}",
            word("who"),
            word("action"),
            change["requests"],
            word("rule"),
            word("reason"),
            word("example")
        ))?;
    }
    Ok(())
}

#[cold]
fn unwritable(cause: serde_json::Error) -> Error {
    Error::new(ErrorKind::Internal, format!("the document cannot be written: {cause}"))
}

/// Reads a policy file: JSON if its name ends in `.json`, TOML otherwise.
pub(crate) fn document(file: &Path) -> Result<Document> {
    let bytes =
        fs::read(file).map_err(|cause| Error::io(format_args!("reading {}", file.display()), cause))?;
    let read = || {
        if file.extension().is_some_and(|extension| extension == "json") {
            return Document::from_json(&bytes);
        }
        if bytes.len() > MAX_DOCUMENT {
            return Err(Error::invalid(format!(
                "it has {} bytes, at most {MAX_DOCUMENT} are allowed",
                bytes.len()
            )));
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| Error::invalid("it is not UTF-8"))?;
        let value: Value = toml::from_str(text).map_err(|cause| Error::invalid(cause.to_string()))?;
        Document::from_value(&value)
    };
    read().map_err(|error| error.context(file.display()))
}

/// Puts the policy file of a configuration in force, if it says anything else than what is. A file
/// that is refused leaves the old policy in force; an edge that never had one does not start then.
pub(crate) async fn start(edge: &Edge, file: Option<&Path>) -> Result<()> {
    let (Some(file), Some(policies)) = (file, edge.policies_in_force()) else { return Ok(()) };
    let current = policies.current();
    let document = match document(file) {
        Ok(document) => document,
        Err(error) if current.version == 0 => return Err(error),
        Err(error) => {
            warn!(%error, version = current.version, "the policy file is refused; the old policy stays in force");
            let event = Event::by_itself(SystemClock.now(), kind::POLICY_REJECTED);
            return edge.governance().audit.record(event.because(error.message().to_owned()));
        }
    };
    if current.version > 0 && *current.policy.document() == document {
        return Ok(());
    }
    let now = SystemClock.now();
    let event = Event::by_itself(now, kind::POLICY_CHANGED)
        .about(format!("policy version {}", current.version + 1))
        .because(format!("the configuration names {}", file.display()));
    edge.governance().audit.record_durable(event).await?;
    let version = policies.put(document, Some(current.version), "system", now).await?;
    info!(version, file = %file.display(), "the policy file is in force");
    Ok(())
}
