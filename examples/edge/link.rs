//! Signed URLs of a running edge: minted, listed, looked into, taken back.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use distedge::error::{Error, Result};
use distedge::link::{self, PARAMETER};
use distedge::transport::Verb;
use serde_json::{Map, Value, json};

use crate::remote::Remote;

/// What to do about signed URLs.
#[derive(Debug, Subcommand)]
pub(crate) enum LinkCommand {
    /// Make a link and show it once.
    Mint(Mint),
    /// List the links that were made here.
    List {
        /// Those after this id.
        #[arg(long, value_name = "ID")]
        after: Option<String>,
        /// At most so many.
        #[arg(long, short = 'n', default_value_t = 100)]
        number: usize,
        #[command(flatten)]
        remote: Remote,
    },
    /// Show one link, and what was used of it.
    Show {
        /// Its id.
        id: String,
        #[command(flatten)]
        remote: Remote,
    },
    /// Show what a token or a URL says, without verifying it and without asking an edge.
    Inspect {
        /// The token, or a URL with one.
        token: String,
    },
    /// Take back a link, or every link of a subject, a policy, a key, or of the tenant.
    Revoke(Revoke),
    /// The keys that sign links.
    Key {
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// Stored policies, which limit links that name them, also after they were handed out.
    Policy {
        #[command(subcommand)]
        command: PolicyCommand,
    },
}

/// What the link is to be. What is not said is not limited.
#[derive(Debug, Args)]
pub(crate) struct Mint {
    /// Artifacts, as `repository/path`, and folders, as `repository/folder/`.
    #[arg(required = true, value_name = "RESOURCE")]
    resources: Vec<String>,
    /// How long it lives: `10m`, `24h`, `30d`, or seconds.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = seconds)]
    expires_in: i64,
    /// When it begins (RFC 3339, UTC).
    #[arg(long, value_name = "TIME")]
    not_before: Option<String>,
    /// How many downloads.
    #[arg(long, value_name = "N")]
    uses: Option<u32>,
    /// A network that clients may come from; may be given again.
    #[arg(long, value_name = "CIDR")]
    network: Vec<String>,
    /// A country that clients may come from; may be given again.
    #[arg(long, value_name = "CC")]
    country: Vec<String>,
    /// An edge or a group of edges; may be given again.
    #[arg(long, value_name = "NAME")]
    audience: Vec<String>,
    /// GET or HEAD; may be given again.
    #[arg(long, value_name = "METHOD")]
    method: Vec<String>,
    /// The rate of one download, in bytes a second.
    #[arg(long, value_name = "BYTES")]
    bps: Option<u64>,
    /// For whom it is.
    #[arg(long, value_name = "TEXT")]
    subject: Option<String>,
    /// The bytes alone that it opens: `sha256:…`.
    #[arg(long, value_name = "DIGEST")]
    digest: Option<String>,
    /// A stored policy.
    #[arg(long, value_name = "ID")]
    policy: Option<String>,
    /// The key; the newest one otherwise.
    #[arg(long, value_name = "ID")]
    key: Option<String>,
    /// `v1` or `v2`; that of the newest key otherwise.
    #[arg(long, value_name = "ALGORITHM")]
    algorithm: Option<String>,
    /// Write everything that the edge answers, as JSON, instead of the URL alone.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

/// What is taken back, and why.
#[derive(Debug, Args)]
pub(crate) struct Revoke {
    /// The link's id.
    #[arg(required_unless_present_any = ["subject", "policy", "key", "everything"])]
    id: Option<String>,
    /// Every link that was made for a subject so far.
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["id", "policy", "key", "everything"])]
    subject: Option<String>,
    /// Every link under a stored policy, for good.
    #[arg(long, value_name = "ID", conflicts_with_all = ["id", "key", "everything"])]
    policy: Option<String>,
    /// Every link of a key.
    #[arg(long, value_name = "ID", conflicts_with_all = ["id", "everything"])]
    key: Option<String>,
    /// Every link of the tenant that was made so far.
    #[arg(long, conflicts_with = "id")]
    everything: bool,
    /// Why, for the log.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key.
    New {
        /// Its id; a new one otherwise.
        name: Option<String>,
        /// `v1`: edges that verify can also mint. `v2`: they need the public half alone.
        #[arg(long, default_value = "v2")]
        algorithm: String,
        /// Take in the public half of a `v2` key that was made elsewhere, from this file.
        #[arg(long, value_name = "FILE")]
        public: Option<PathBuf>,
        #[command(flatten)]
        remote: Remote,
    },
    /// List the keys.
    List {
        #[command(flatten)]
        remote: Remote,
    },
    /// Let a key verify what it signed, and sign nothing more.
    Retire {
        /// Its id.
        name: String,
        /// Why, for the log.
        #[arg(long, value_name = "TEXT", default_value = "rotation")]
        reason: String,
        #[command(flatten)]
        remote: Remote,
    },
    /// Take back a key with every link it signed.
    Revoke {
        /// Its id.
        name: String,
        /// Why, for the log.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        remote: Remote,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Store a policy from a file (JSON: networks, countries, not_after, methods, resources, bps).
    Set {
        /// Its id.
        name: String,
        /// The file.
        file: PathBuf,
        #[command(flatten)]
        remote: Remote,
    },
    /// List the policies.
    List {
        #[command(flatten)]
        remote: Remote,
    },
    /// Take a policy away: its links are dead as long as it is.
    Remove {
        /// Its id.
        name: String,
        #[command(flatten)]
        remote: Remote,
    },
}

/// Does it; gives what is to be shown.
pub(crate) async fn run(command: &LinkCommand) -> Result<String> {
    match command {
        LinkCommand::Mint(mint) => mint.run().await,
        LinkCommand::List { after, number, remote } => {
            let after = after.as_ref().map(|id| format!("&after={id}")).unwrap_or_default();
            let page = remote.ask(Verb::Get, &format!("/api/v1/links?n={number}{after}"), None).await?;
            let links = page["links"].as_array().cloned().unwrap_or_default();
            let mut lines: Vec<String> = links.iter().map(line).collect();
            if let Some(next) = page["next"].as_str() {
                lines.push(format!("more after {next}"));
            }
            Ok(lines.join("\n"))
        }
        LinkCommand::Show { id, remote } => {
            pretty(&remote.ask(Verb::Get, &format!("/api/v1/links/{id}"), None).await?)
        }
        LinkCommand::Inspect { token } => inspect(token),
        LinkCommand::Revoke(revoke) => revoke.run().await,
        LinkCommand::Key { command } => key(command).await,
        LinkCommand::Policy { command } => policy(command).await,
    }
}

impl Mint {
    async fn run(&self) -> Result<String> {
        let mut wish = Map::new();
        wish.insert("resources".into(), json!(self.resources));
        wish.insert("expires_in".into(), json!(self.expires_in));
        // The edge refuses empty lists: they could be taken for no limit.
        let lists = [
            ("networks", &self.network),
            ("countries", &self.country),
            ("audience", &self.audience),
            ("methods", &self.method),
        ];
        for (name, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            wish.insert(name.into(), json!(list));
        }
        for (name, value) in [
            ("not_before", json!(self.not_before)),
            ("uses", json!(self.uses)),
            ("bps", json!(self.bps)),
            ("subject", json!(self.subject)),
            ("digest", json!(self.digest)),
            ("policy", json!(self.policy)),
            ("key", json!(self.key)),
            ("algorithm", json!(self.algorithm)),
        ] {
            if !value.is_null() {
                wish.insert(name.into(), value);
            }
        }
        let minted = self.remote.ask(Verb::Post, "/api/v1/links", Some(&Value::Object(wish))).await?;
        match minted["url"].as_str() {
            Some(url) if !self.json => Ok(url.to_owned()),
            _ => pretty(&minted),
        }
    }
}

impl Revoke {
    async fn run(&self) -> Result<String> {
        let (verb, path, body) = match &self.id {
            Some(id) => (Verb::Delete, format!("/api/v1/links/{id}"), json!({ "reason": self.reason })),
            None => {
                let mut body = json!({ "reason": self.reason });
                for (name, value) in
                    [("subject", &self.subject), ("policy", &self.policy), ("key", &self.key)]
                {
                    if let Some(value) = value {
                        body[name] = json!(value);
                    }
                }
                if self.everything {
                    body["everything"] = json!(true);
                }
                (Verb::Post, "/api/v1/links/revoke".to_owned(), body)
            }
        };
        pretty(&self.remote.ask(verb, &path, Some(&body)).await?)
    }
}

async fn key(command: &KeyCommand) -> Result<String> {
    match command {
        KeyCommand::New { name, algorithm, public, remote } => {
            let mut wish = json!({ "algorithm": algorithm });
            if let Some(name) = name {
                wish["name"] = json!(name);
            }
            if let Some(file) = public {
                wish["public"] = json!(text(file)?.trim());
            }
            pretty(&remote.ask(Verb::Post, "/api/v1/link-keys", Some(&wish)).await?)
        }
        KeyCommand::List { remote } => {
            let keys = remote.ask(Verb::Get, "/api/v1/link-keys", None).await?;
            let keys = keys.as_array().cloned().unwrap_or_default();
            let shown = |key: &Value| fields(key, &["id", "algorithm", "state", "created", "who"]);
            Ok(keys.iter().map(shown).collect::<Vec<_>>().join("\n"))
        }
        KeyCommand::Retire { name, reason, remote } => {
            let path = format!("/api/v1/link-keys/{name}/retire");
            pretty(&remote.ask(Verb::Post, &path, Some(&json!({ "reason": reason }))).await?)
        }
        KeyCommand::Revoke { name, reason, remote } => {
            let path = format!("/api/v1/link-keys/{name}/revoke");
            pretty(&remote.ask(Verb::Post, &path, Some(&json!({ "reason": reason }))).await?)
        }
    }
}

async fn policy(command: &PolicyCommand) -> Result<String> {
    match command {
        PolicyCommand::Set { name, file, remote } => {
            let policy = parsed(text(file)?.as_bytes())?;
            pretty(&remote.ask(Verb::Put, &format!("/api/v1/link-policies/{name}"), Some(&policy)).await?)
        }
        PolicyCommand::List { remote } => {
            pretty(&remote.ask(Verb::Get, "/api/v1/link-policies", None).await?)
        }
        PolicyCommand::Remove { name, remote } => {
            pretty(&remote.ask(Verb::Delete, &format!("/api/v1/link-policies/{name}"), None).await?)
        }
    }
}

fn inspect(token: &str) -> Result<String> {
    let parameter = format!("{PARAMETER}=");
    let token = match token.split_once(&parameter) {
        Some((_, rest)) => rest.split(['&', '#']).next().unwrap_or(rest),
        None => token,
    };
    let found = link::inspect(token)?;
    let claims = parsed(&found.claims.to_payload())?;
    let shown = json!({
        "verified": false,
        "algorithm": found.algorithm.prefix(),
        "key": found.key,
        "expires": found.claims.expires,
        "claims": claims,
    });
    pretty(&shown)
}

/// One link in one line.
fn line(link: &Value) -> String {
    let resources = link["resources"].as_array().cloned().unwrap_or_default();
    let resources: Vec<&str> = resources.iter().filter_map(Value::as_str).collect();
    let state = link["dead"].as_str().unwrap_or("alive");
    let head = fields(link, &["id", "expires", "who", "subject"]);
    format!("{head}\t{state}\t{}", resources.join(" "))
}

fn fields(value: &Value, names: &[&str]) -> String {
    names.iter().map(|name| value[*name].as_str().unwrap_or("-")).collect::<Vec<_>>().join("\t")
}

fn pretty(value: &Value) -> Result<String> {
    serde_json::to_string_pretty(value).map_err(|cause| Error::invalid(format!("JSON: {cause}")))
}

fn parsed(bytes: &[u8]) -> Result<Value> {
    serde_json::from_slice(bytes).map_err(|cause| Error::invalid(format!("this is not JSON: {cause}")))
}

fn text(file: &Path) -> Result<String> {
    fs::read_to_string(file).map_err(|cause| Error::io(format_args!("reading {}", file.display()), cause))
}

/// Seconds, or a number with `s`, `m`, `h` or `d` behind it.
fn seconds(text: &str) -> Result<i64, String> {
    let (digits, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err("a time is a number of seconds, or has s, m, h or d behind it".into()),
    };
    let number: i64 = digits.parse().map_err(|_| "a time begins with a number".to_owned())?;
    number.checked_mul(unit).ok_or_else(|| "this is too long".to_owned())
}
