//! `token …`, `policy …`, `approvals …`: who may act here, and what takes two of them.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use distedge::access::Scope;
use distedge::audit::kind;
use distedge::clock::{Clock as _, SystemClock, Timestamp};
use distedge::error::{Error, ErrorKind, Result};
use distedge::policy::Document;
use distedge::source::{ChangeRecord, ChangeState};
use distedge::token::{NewUserToken, TokenId, TokenPrincipal, UserTokenRecord};
use serde_json::json;

use crate::acting::Desk;
use crate::output::{Output, table};

#[derive(Subcommand)]
pub(crate) enum Token {
    /// Make a user token and show it once; only its hash is kept.
    New {
        /// Who it stands for: user:NAME or service:NAME.
        principal: TokenPrincipal,
        /// What it is for.
        #[arg(long, default_value = "")]
        description: String,
        /// For how many days it is good; until it is revoked, if not given.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: Option<u32>,
        /// A group it names; several times for several.
        #[arg(long)]
        group: Vec<String>,
        /// What it is narrowed to, like sign:bundle:shop*; several times for several.
        #[arg(long)]
        scope: Vec<Scope>,
        /// Write it into this file, readable by its owner alone, instead of showing it.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// List the tokens there are or were.
    List,
    /// Revoke a token, whatever its life.
    Revoke {
        /// Its id.
        id: TokenId,
        /// Why.
        #[arg(long)]
        reason: String,
    },
}

impl Token {
    pub(crate) async fn run(&self, desk: &Desk, output: &Output) -> Result<()> {
        let (actor, tokens, now) = (desk.actor(), &desk.governance.tokens, SystemClock.now());
        match self {
            Token::New { principal, description, days, group, scope, out } => {
                let mut new = NewUserToken::new(principal.clone());
                new.description.clone_from(description);
                new.expires = days.map(|days| now.plus(i64::from(days) * 24 * 3600));
                new.groups.clone_from(group);
                new.scopes = (!scope.is_empty()).then(|| scope.clone());
                // A token that nobody gets to see is worth nothing.
                let reserved = out.as_deref().map(reserve).transpose()?;
                let event = actor.event(kind::TOKEN_CREATED).about(principal.to_string());
                let made = actor.administer(event, tokens.mint(new, actor.principal(), now)).await;
                let (record, secret) = made.inspect_err(|_| {
                    if let (Some(_), Some(path)) = (&reserved, out) {
                        let _ = std::fs::remove_file(path);
                    }
                })?;
                let text = secret.expose_str().unwrap_or_default();
                let shown = match (reserved, out) {
                    (Some(mut file), Some(path)) => {
                        use std::io::Write as _;
                        let written = writeln!(file, "{text}").and_then(|()| file.sync_all());
                        written.map_err(|cause| Error::io(format!("writing {}", path.display()), cause))?;
                        None
                    }
                    _ => Some(text),
                };
                output.show(
                    || json!({"id": record.id, "principal": record.principal, "expires": record.expires, "token": shown}),
                    || {
                        let id = format!("The token {} stands for {principal}.", record.id);
                        match (shown, out) {
                            (Some(text), _) => format!("{text}\n{id} This is the only time it is shown."),
                            (None, Some(path)) => format!("{id} It is in {}.", path.display()),
                            (None, None) => id,
                        }
                    },
                );
            }
            Token::List => {
                let tokens = tokens.list().await?;
                output.show(
                    || tokens.iter().map(|token| described(token, now)).collect(),
                    || {
                        let rows: Vec<_> = tokens.iter().map(|token| row(token, now)).collect();
                        table(&["TOKEN", "STANDS FOR", "MADE", "BY", "STATE", "FOR"], &rows)
                    },
                );
            }
            Token::Revoke { id, reason } => {
                let event = actor.event(kind::TOKEN_REVOKED).about(id.to_string());
                let by = actor.principal().to_string();
                let revoked = actor.administer(event, tokens.revoke(*id, &by, reason, now)).await?;
                let record = revoked.ok_or_else(|| {
                    Error::new(ErrorKind::NotFound, format!("there is no token with the id {id}"))
                })?;
                output.show(
                    || described(&record, now),
                    || format!("The token {id} of {} opens nothing any more.", record.principal),
                );
            }
        }
        Ok(())
    }
}

/// A record without what tells nothing to people.
fn described(record: &UserTokenRecord, now: Timestamp) -> serde_json::Value {
    json!({
        "id": record.id, "principal": record.principal, "description": record.description,
        "created": record.created, "by": record.by, "expires": record.expires,
        "scopes": record.scopes, "groups": record.groups, "state": state(record, now),
    })
}

fn state(record: &UserTokenRecord, now: Timestamp) -> String {
    match (&record.revoked, record.expires) {
        (Some(revoked), _) => format!("revoked by {}: {}", revoked.by, revoked.reason),
        (None, Some(expires)) if expires <= now => format!("expired {expires}"),
        (None, Some(expires)) => format!("good until {expires}"),
        (None, None) => "good".to_owned(),
    }
}

fn row(record: &UserTokenRecord, now: Timestamp) -> Vec<String> {
    vec![
        record.id.to_string(),
        record.principal.to_string(),
        record.created.to_string(),
        record.by.clone(),
        state(record, now),
        record.description.clone(),
    ]
}

fn reserve(path: &Path) -> Result<std::fs::File> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(|cause| Error::io(format!("creating {}", path.display()), cause))
}

#[derive(Subcommand)]
pub(crate) enum Policy {
    /// Put a policy in force: a TOML or JSON file with grants and duties.
    Put {
        /// The file.
        file: PathBuf,
        /// Only if this version is in force.
        #[arg(long, value_name = "VERSION")]
        expect: Option<u64>,
    },
    /// Show the policy in force as JSON, or an earlier one.
    Show {
        /// The version.
        version: Option<u64>,
    },
    /// Check a file and change nothing.
    Check {
        /// The file.
        file: PathBuf,
    },
    /// List the versions that are kept.
    List,
    /// Put an earlier version in force again.
    Rollback {
        /// The version.
        version: u64,
    },
}

impl Policy {
    pub(crate) async fn run(&self, desk: &Desk, output: &Output) -> Result<()> {
        let (actor, policies, now) = (desk.actor(), &desk.governance.policies, SystemClock.now());
        let by = actor.principal().to_string();
        match self {
            Policy::Put { file, expect } => {
                let document = read(file);
                let event = actor.event(match document {
                    Ok(_) => kind::POLICY_CHANGED,
                    Err(_) => kind::POLICY_REJECTED,
                });
                let put = async { policies.put(document?, *expect, &by, now).await };
                in_force(output, actor.administer(event, put).await?);
            }
            Policy::Show { version } => {
                let current = policies.current();
                let version = version.unwrap_or(current.version);
                let document = match version == current.version {
                    true => current.policy.document().clone(),
                    false => policies.document(version).await?.ok_or_else(|| {
                        Error::new(
                            ErrorKind::NotFound,
                            format!("version {version} of the policy is not kept here"),
                        )
                    })?,
                };
                let shown = json!({"version": version, "policy": document});
                output.show(|| shown.clone(), || format!("{shown:#}"));
            }
            Policy::Check { file } => {
                let document = read(file)?;
                output.show(
                    || json!({"good": true, "policy": document}),
                    || format!("{} is good.", file.display()),
                );
            }
            Policy::List => {
                let versions = policies.versions().await?;
                output.show(
                    || json!(versions),
                    || {
                        let rows: Vec<_> = versions
                            .iter()
                            .map(|one| {
                                let again = one.rollback_of.map(|of| format!("version {of} again"));
                                let what = again.or_else(|| one.description.clone()).unwrap_or_default();
                                vec![one.version.to_string(), one.at.to_string(), one.by.clone(), what]
                            })
                            .collect();
                        table(&["VERSION", "SINCE", "BY", "WHAT"], &rows)
                    },
                );
            }
            Policy::Rollback { version } => {
                let event = actor.event(kind::POLICY_CHANGED).about(format!("version {version} again"));
                let back = policies.rollback(*version, None, &by, now);
                in_force(output, actor.administer(event, back).await?);
            }
        }
        Ok(())
    }
}

fn in_force(output: &Output, version: u64) {
    output.show(|| json!({"version": version}), || format!("Version {version} of the policy is in force."));
}

/// A policy from a file: JSON if its name says so, TOML otherwise.
fn read(file: &Path) -> Result<Document> {
    let bytes =
        std::fs::read(file).map_err(|cause| Error::io(format!("reading {}", file.display()), cause))?;
    let document = match file.extension().is_some_and(|extension| extension == "json") {
        true => Document::from_json(&bytes),
        false => std::str::from_utf8(&bytes)
            .map_err(|_| Error::invalid("it is not text"))
            .and_then(|text| {
                toml::from_str::<serde_json::Value>(text).map_err(|cause| Error::invalid(cause.to_string()))
            })
            .and_then(|value| Document::from_value(&value)),
    };
    document.map_err(|error| error.context(file.display()))
}

#[derive(Subcommand)]
pub(crate) enum Approvals {
    /// List what waits for a second person.
    List {
        /// Also what was decided, and what one person was enough for.
        #[arg(long)]
        all: bool,
    },
    /// Agree to a change that another person asked for, and have it made.
    Approve {
        /// Its id.
        id: String,
    },
    /// Refuse a change, or give up one's own.
    Reject {
        /// Its id.
        id: String,
        /// Why.
        #[arg(long)]
        reason: String,
    },
}

impl Approvals {
    pub(crate) async fn run(&self, desk: &Desk, output: &Output) -> Result<()> {
        let actor = desk.actor();
        match self {
            Approvals::List { all } => {
                let mut changes = actor.source().changes().await?;
                changes.retain(|change| {
                    *all || matches!(change.state, ChangeState::Waiting | ChangeState::Approved)
                });
                output.show(
                    || json!(changes),
                    || {
                        let rows: Vec<_> = changes.iter().map(change_row).collect();
                        table(&["CHANGE", "BUNDLE", "VERSION", "WHAT", "ASKED BY", "SINCE", "STATE"], &rows)
                    },
                );
            }
            Approvals::Approve { id } => changed(output, &actor.approve(id).await?),
            Approvals::Reject { id, reason } => changed(output, &actor.reject(id, reason).await?),
        }
        Ok(())
    }
}

/// Tells what became of a change.
pub(crate) fn changed(output: &Output, record: &ChangeRecord) {
    output.show(|| json!(record), || sentence(record));
}

pub(crate) fn sentence(record: &ChangeRecord) -> String {
    let ChangeRecord { id, bundle, version, change, .. } = record;
    match record.state {
        ChangeState::Waiting => format!(
            "{bundle} {version}, {change}: waits for a second person, who runs `approvals approve {id}`."
        ),
        ChangeState::Rejected => format!("{bundle} {version}, {change}: rejected."),
        _ => format!("{bundle} {version}, {change}: recorded; run `sync` to bring it to the edges."),
    }
}

fn change_row(record: &ChangeRecord) -> Vec<String> {
    let state = match (record.state, &record.decided_by) {
        (ChangeState::Waiting, _) => "waits".to_owned(),
        (ChangeState::Approved, _) => "approved, not done: approve it again".to_owned(),
        (ChangeState::Rejected, Some(by)) => format!("rejected by {by}"),
        (_, Some(by)) => format!("approved by {by}"),
        (_, None) => "done".to_owned(),
    };
    vec![
        record.id.clone(),
        record.bundle.to_string(),
        record.version.to_string(),
        record.change.to_string(),
        record.requested_by.clone(),
        record.requested.to_string(),
        state,
    ]
}
