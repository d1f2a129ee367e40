//! Trust between this edge and others: pairing tokens, pairings and their end, asked of a running edge.

use std::path::PathBuf;

use clap::Args;
use distedge::access::{Scope, UseCase};
use distedge::error::{Error, ErrorKind};
use distedge::name::NodeName;
use distedge::place::Network;
use distedge::secret::Secret;
use distedge::token::TokenId;
use distedge::transport::Verb;
use serde_json::{Value, json};

use crate::remote::Remote;
use crate::token::Destination;
use crate::{Failure, say};

/// What a pairing token is to be.
#[derive(Debug, Args)]
pub(crate) struct Issue {
    #[command(flatten)]
    remote: Remote,
    /// What the two are to be paired for: source-edge, edge-edge, control or peer.
    #[arg(long, value_name = "CASE", default_value = "source-edge")]
    use_case: UseCase,
    /// How many seconds the token is good for, at most 3600.
    #[arg(long, value_name = "SECONDS", default_value_t = distedge::token::DEFAULT_TTL)]
    ttl: i64,
    /// What the other side must call itself.
    #[arg(long, value_name = "NAME")]
    peer: Option<NodeName>,
    /// From where it may be redeemed, like 192.0.2.0/24.
    #[arg(long, value_name = "NETWORK")]
    network: Option<Network>,
    /// What the pairing is narrowed to, like receive:*; several add up.
    #[arg(long, value_name = "SCOPE")]
    scope: Vec<Scope>,
    /// Write the token into this file, readable by its owner alone, instead of showing it.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Issue {
    pub(crate) async fn run(&self) -> Result<(), Failure> {
        let to = Destination::prepare(self.out.as_deref())?;
        let wish = json!({
            "use_case": self.use_case,
            "name": self.peer,
            "ttl": self.ttl,
            "network": self.network,
            "scopes": (!self.scope.is_empty()).then_some(&self.scope),
        });
        let asked = self.remote.ask(Verb::Post, "/api/v1/pairings/tokens", Some(&wish)).await;
        let answer = asked.inspect_err(|_| to.abandon())?;
        let token = answer["token"].as_str().ok_or_else(unreadable)?;
        to.deliver("pairing token", &Secret::new(token))?;
        say(format_args!(
            "It pairs one {} with {}, whose key is {}, until {}.",
            text(&answer["use_case"]),
            text(&answer["issuer"]),
            text(&answer["fingerprint"]),
            text(&answer["expires"])
        ))
    }
}

/// The pairings of an edge.
#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    remote: Remote,
    /// Also those that are over.
    #[arg(long)]
    all: bool,
    /// Show JSON.
    #[arg(long)]
    json: bool,
}

impl List {
    pub(crate) async fn run(&self) -> Result<(), Failure> {
        let answer = self.remote.ask(Verb::Get, "/api/v1/pairings", None).await?;
        if self.json {
            return say(format_args!("{answer:#}"));
        }
        for one in answer.as_array().ok_or_else(unreadable)? {
            if one["state"] == "over" && !self.all {
                continue;
            }
            let detail = &one["detail"];
            let told = match one["state"].as_str() {
                Some("over") => format!("{}: {}", text(&detail["end"]), text(&detail["reason"])),
                Some("confirmed") => format!("since {}", text(&detail["since"])),
                _ => format!("until {}", text(&one["expires"])),
            };
            let peer = one["peer"]["name"].as_str().unwrap_or("-");
            let (id, case, state) = (text(&one["id"]), text(&one["use_case"]), text(&one["state"]));
            say(format_args!("{id}\t{case}\t{peer}\t{state}\t{told}"))?;
        }
        Ok(())
    }
}

/// The end of a pairing.
#[derive(Debug, Args)]
pub(crate) struct End {
    #[command(flatten)]
    remote: Remote,
    /// The pairing's id, or what the other side is called.
    pairing: String,
    /// Why.
    #[arg(long)]
    reason: String,
}

impl End {
    pub(crate) async fn run(&self) -> Result<(), Failure> {
        let listed = self.remote.ask(Verb::Get, "/api/v1/pairings", None).await?;
        let listed = listed.as_array().ok_or_else(unreadable)?;
        let is_id = self.pairing.parse::<TokenId>().is_ok();
        let meant = |one: &&Value| {
            one["state"] != "over"
                && if is_id { one["id"] == *self.pairing } else { one["peer"]["name"] == *self.pairing }
        };
        let meant: Vec<&Value> = listed.iter().filter(meant).collect();
        if meant.is_empty() {
            let message = format!("nothing is paired under {:?}", self.pairing);
            return Err(Error::new(ErrorKind::NotFound, message).into());
        }
        for one in meant {
            let id = text(&one["id"]);
            let why = json!({ "reason": self.reason });
            self.remote.ask(Verb::Delete, &format!("/api/v1/pairings/{id}"), Some(&why)).await?;
            say(format_args!("the pairing {id} is over"))?;
        }
        Ok(())
    }
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

#[cold]
pub(crate) fn unreadable() -> Error {
    Error::new(ErrorKind::Unsupported, "the edge's answer cannot be read")
}
