//! Tokens of users and service accounts, asked of a running edge.

use std::path::PathBuf;

use clap::Subcommand;
use distedge::access::Scope;
use distedge::clock::Timestamp;
use distedge::secret::Secret;
use distedge::token::{TokenId, TokenPrincipal};
use distedge::transport::Verb;
use serde_json::json;

use crate::pairing::{text, unreadable};
use crate::remote::Remote;
use crate::token::Destination;
use crate::{Failure, say};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a token and show it once.
    New {
        #[command(flatten)]
        remote: Remote,
        /// Whom it stands for, like user:alice or service:ci.
        principal: TokenPrincipal,
        /// What it is for.
        #[arg(long, default_value = "")]
        description: String,
        /// How many seconds it is good for; without this and --expires, until it is revoked.
        #[arg(long, value_name = "SECONDS", conflicts_with = "expires")]
        ttl: Option<u32>,
        /// The first moment at which it is no longer good, like 2026-11-22T05:00:00Z.
        #[arg(long, value_name = "TIME")]
        expires: Option<Timestamp>,
        /// What it is narrowed to, like read,list:files/shop/**; several add up.
        #[arg(long, value_name = "SCOPE")]
        scope: Vec<Scope>,
        /// A group that it names.
        #[arg(long, value_name = "GROUP")]
        group: Vec<String>,
        /// Write the token into this file, readable by its owner alone, instead of showing it.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// List tokens; without the right to administer, one's own.
    List {
        #[command(flatten)]
        remote: Remote,
        /// Show JSON.
        #[arg(long)]
        json: bool,
    },
    /// Revoke a token: the next request with it is refused.
    Revoke {
        #[command(flatten)]
        remote: Remote,
        /// Its id.
        id: TokenId,
        /// Why.
        #[arg(long)]
        reason: String,
    },
}

impl Command {
    pub(crate) async fn run(&self) -> Result<(), Failure> {
        match self {
            Command::New { remote, principal, description, ttl, expires, scope, group, out } => {
                let to = Destination::prepare(out.as_deref())?;
                let wish = json!({
                    "principal": principal,
                    "description": description,
                    "ttl": ttl,
                    "expires": expires,
                    "scopes": (!scope.is_empty()).then_some(scope),
                    "groups": group,
                });
                let asked = remote.ask(Verb::Post, "/api/v1/tokens", Some(&wish)).await;
                let answer = asked.inspect_err(|_| to.abandon())?;
                let token = answer["token"].as_str().ok_or_else(unreadable)?;
                let what = format!("token {} of {principal}", text(&answer["id"]));
                Ok(to.deliver(&what, &Secret::new(token))?)
            }
            Command::List { remote, json } => {
                let answer = remote.ask(Verb::Get, "/api/v1/tokens", None).await?;
                if *json {
                    return say(format_args!("{answer:#}"));
                }
                for one in answer.as_array().ok_or_else(unreadable)? {
                    let state = match (&one["revoked"]["reason"], &one["expires"]) {
                        (serde_json::Value::String(reason), _) => format!("revoked: {reason}"),
                        (_, serde_json::Value::String(expires)) => format!("until {expires}"),
                        _ => "good".to_owned(),
                    };
                    let (id, principal) = (text(&one["id"]), text(&one["principal"]));
                    let (used, what) = (text(&one["last_used"]), text(&one["description"]));
                    say(format_args!("{id}\t{principal}\t{state}\tused {used}\t{what}"))?;
                }
                Ok(())
            }
            Command::Revoke { remote, id, reason } => {
                let why = json!({ "reason": reason });
                remote.ask(Verb::Delete, &format!("/api/v1/tokens/{id}"), Some(&why)).await?;
                say(format_args!("the token {id} is revoked"))
            }
        }
    }
}
