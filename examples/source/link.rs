//! `link …`: signed URLs that are minted here and honoured at the edges.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use distedge::clock::{Clock as _, SystemClock, Timestamp};
use distedge::digest::Digest;
use distedge::error::{Error, ErrorKind, Result};
use distedge::govern::MintOrder;
use distedge::link::{self, KeyName, LinkId, LinkMethod, Note, PARAMETER, PolicyName};
use distedge::name::NodeName;
use distedge::place::{Country, Network};
use distedge::source::{Actor, HttpDial, LinkPush, LinkTarget};
use serde_json::{Value, json};

use crate::output::{Output, count, table};

#[derive(Subcommand)]
pub(crate) enum Link {
    /// The keys that sign links; edges get the public halves.
    #[command(subcommand)]
    Key(Key),
    /// Make a link, and show its URL at each edge once.
    Mint(Box<Mint>),
    /// List the links that were made here.
    List {
        /// Those after this id.
        #[arg(long, value_name = "ID")]
        after: Option<LinkId>,
        /// At most so many.
        #[arg(long, short = 'n', default_value_t = 100)]
        number: usize,
    },
    /// Show what a token or a URL says, without verifying it and without asking anybody.
    Inspect {
        /// The token, or a URL with one.
        token: String,
    },
    /// Take back a link, or all of a subject, a policy, a key, or of the tenant; every edge is told at
    /// once.
    Revoke(Revoke),
    /// Tell edges what they do not have of the keys and revocations. Every `sync` does it as well.
    Push {
        /// An edge; all of them if none is given.
        #[arg(long)]
        edge: Vec<NodeName>,
        /// Tell everything once more: after this source was put back from a backup.
        #[arg(long)]
        anew: bool,
    },
}

#[derive(Subcommand)]
pub(crate) enum Key {
    /// Make a key. The newest one mints.
    New {
        /// Its id; a new one if not given.
        name: Option<KeyName>,
    },
    /// List the keys.
    List,
    /// Let a key verify what it signed, and sign nothing more.
    Retire {
        /// The key.
        name: KeyName,
        /// Why, for the log.
        #[arg(long, default_value = "rotated")]
        reason: String,
    },
    /// Take back a key with every link that it signed; every edge is told at once.
    Revoke {
        /// The key.
        name: KeyName,
        /// Why.
        #[arg(long)]
        reason: String,
    },
}

/// What the link is to be. What is not said is not limited.
#[derive(Args)]
pub(crate) struct Mint {
    /// Artifacts as `repository/path`; folders with --prefix.
    #[arg(required = true, value_name = "REPOSITORY/PATH")]
    resources: Vec<String>,
    /// What is named are folders: the link opens everything below them.
    #[arg(long)]
    prefix: bool,
    /// An edge that it is for; all of them if none is given.
    #[arg(long, value_name = "NAME")]
    edge: Vec<NodeName>,
    /// How long it lives: `10m`, `24h`, `30d`, or seconds.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = seconds)]
    expires: i64,
    /// When it begins, like 2026-11-22T05:00:00Z.
    #[arg(long, value_name = "TIME")]
    not_before: Option<Timestamp>,
    /// A network that clients may come from.
    #[arg(long, value_name = "CIDR")]
    network: Vec<Network>,
    /// A country that clients may come from.
    #[arg(long, value_name = "CC")]
    country: Vec<Country>,
    /// How many downloads; they are counted by one edge.
    #[arg(long, value_name = "N")]
    uses: Option<u32>,
    /// For whom it is.
    #[arg(long, value_name = "TEXT")]
    subject: Option<String>,
    /// The rate of one download, in bytes a second.
    #[arg(long, value_name = "BYTES")]
    bps: Option<u64>,
    /// The bytes alone that it opens: `sha256:…`.
    #[arg(long, value_name = "DIGEST")]
    digest: Option<Digest>,
    /// Lets clients ask what there is, and fetch nothing.
    #[arg(long)]
    head_only: bool,
    /// The key; the newest one if not given.
    #[arg(long, value_name = "ID")]
    key: Option<KeyName>,
}

#[derive(Args)]
pub(crate) struct Revoke {
    /// The link's id.
    #[arg(required_unless_present_any = ["subject", "policy", "key", "everything"])]
    id: Option<LinkId>,
    /// Every link that was made for a subject so far.
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["id", "policy", "key", "everything"])]
    subject: Option<String>,
    /// Every link under a stored policy of the edges, for good.
    #[arg(long, value_name = "ID", conflicts_with_all = ["id", "key", "everything"])]
    policy: Option<PolicyName>,
    /// Every link of a key, for good.
    #[arg(long, value_name = "ID", conflicts_with_all = ["id", "everything"])]
    key: Option<KeyName>,
    /// Every link of the tenant that was made so far.
    #[arg(long, conflicts_with = "id")]
    everything: bool,
    /// Why, for the log.
    #[arg(long)]
    reason: String,
}

impl Revoke {
    fn target(&self) -> LinkTarget {
        match self {
            Revoke { id: Some(id), .. } => LinkTarget::Link(*id),
            Revoke { subject: Some(subject), .. } => LinkTarget::Subject(subject.clone()),
            Revoke { policy: Some(policy), .. } => LinkTarget::Policy(policy.clone()),
            Revoke { key: Some(key), .. } => LinkTarget::Key(key.clone()),
            _ => LinkTarget::Everything,
        }
    }
}

impl Mint {
    fn order(&self) -> MintOrder {
        let resource = |resource: &String| match (self.prefix, resource.ends_with('/')) {
            (true, false) => format!("{resource}/"),
            _ => resource.clone(),
        };
        MintOrder {
            resources: self.resources.iter().map(resource).collect(),
            expires_in: Some(self.expires),
            not_before: self.not_before,
            methods: if self.head_only { vec![LinkMethod::Head] } else { Vec::new() },
            audience: self.edge.clone(),
            networks: self.network.clone(),
            countries: self.country.clone(),
            uses: self.uses,
            bps: self.bps,
            subject: self.subject.clone(),
            digest: self.digest,
            key: self.key.clone(),
            ..MintOrder::default()
        }
    }

    async fn run(&self, actor: &Actor<'_>, output: &Output) -> Result<ExitCode> {
        if !self.prefix && self.resources.iter().any(|resource| resource.ends_with('/')) {
            return Err(Error::new(ErrorKind::Invalid, "a link for a folder is asked for with --prefix"));
        }
        let signed = actor.mint_link(&self.order()).await?;
        let claims = &signed.minted.record.claims;
        // An edge that has not heard of the key would refuse the link.
        let edges = signed.urls.iter().map(|(edge, _)| edge.clone()).collect();
        let pushes = actor.source().push_links(&HttpDial, Some(&edges)).await?;
        output.show(
            || {
                let urls: serde_json::Map<String, Value> = signed
                    .urls
                    .iter()
                    .map(|(edge, url)| (edge.to_string(), json!(url.expose_str())))
                    .collect();
                json!({
                    "id": claims.id,
                    "expires": claims.expires,
                    "key": signed.minted.record.key,
                    "urls": urls,
                    "token": signed.minted.token.expose_str(),
                    "edges": pushes.iter().map(pushed).collect::<Value>(),
                })
            },
            || {
                let urls = signed.urls.iter().filter_map(|(_, url)| url.expose_str());
                let urls: Vec<&str> = urls.collect();
                urls.join("\n")
            },
        );
        output.note(&format!("The link {} is good until {}.", claims.id, claims.expires));
        if signed.urls.is_empty() {
            output.warn("no edge is known that it could be used at");
        }
        for push in pushes.iter().filter(|push| !complete(push)) {
            output.warn(&format!("{}; until it is, it may refuse the link", sentence(push)));
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Link {
    pub(crate) async fn run(&self, actor: &Actor<'_>, output: &Output) -> Result<ExitCode> {
        match self {
            Link::Key(key) => return key.run(actor, output).await,
            Link::Mint(mint) => return mint.run(actor, output).await,
            Link::List { after, number } => list(actor, *after, *number, output).await?,
            Link::Inspect { token } => inspect(token, output)?,
            Link::Revoke(revoke) => {
                let target = revoke.target();
                return take_back(actor, &target, &revoke.reason, output).await;
            }
            Link::Push { edge, anew } => {
                if *anew {
                    actor.begin_link_list().await?;
                }
                let only = (!edge.is_empty()).then(|| edge.iter().cloned().collect());
                let pushes = actor.push_links(&HttpDial, only.as_ref()).await?;
                return Ok(report(output, &pushes, || json!({}), ""));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Key {
    async fn run(&self, actor: &Actor<'_>, output: &Output) -> Result<ExitCode> {
        match self {
            Key::New { name } => {
                let (name, record) = actor.create_link_key(name.clone()).await?;
                let pushes = actor.source().push_links(&HttpDial, None).await?;
                let made = || json!({"key": name, "record": record});
                return Ok(report(output, &pushes, made, &format!("Made the link key {name}.")));
            }
            Key::List => {
                let keys = actor.source().links().await?.keys().await?;
                output.show(
                    || keys.iter().map(|(name, record)| json!({"key": name, "record": record})).collect(),
                    || {
                        let row = |(name, record): &(KeyName, distedge::govern::KeyRecord)| {
                            let why = record.revoked.as_ref().map(why).unwrap_or_default();
                            let last = record.last_expires.map(|last| last.to_string());
                            vec![
                                name.to_string(),
                                record.state.as_str().to_owned(),
                                record.created.to_string(),
                                last.unwrap_or_default(),
                                why,
                            ]
                        };
                        let rows: Vec<_> = keys.iter().map(row).collect();
                        table(&["KEY", "STATE", "MADE", "LAST LINK UNTIL", "REVOKED"], &rows)
                    },
                );
            }
            Key::Retire { name, reason } => {
                let record = actor.retire_link_key(name, reason).await?;
                output.show(
                    || json!({"key": name, "record": record}),
                    || format!("{name} signs no more links; those that it signed are good until their end."),
                );
            }
            Key::Revoke { name, reason } => {
                return take_back(actor, &LinkTarget::Key(name.clone()), reason, output).await;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn take_back(actor: &Actor<'_>, what: &LinkTarget, reason: &str, output: &Output) -> Result<ExitCode> {
    let revoked = actor.revoke_links(what, reason, &HttpDial).await?;
    let told = || json!({"revoked": what.to_string(), "epoch": revoked.epoch, "sequence": revoked.sequence});
    Ok(report(output, &revoked.edges, told, &format!("Revoked {what}.")))
}

/// Shows how it went at each edge; a failure if it went wrong at one.
fn report(output: &Output, pushes: &[LinkPush], told: impl Fn() -> Value, first: &str) -> ExitCode {
    output.show(
        || {
            let mut shown = told();
            shown["edges"] = pushes.iter().map(pushed).collect();
            shown
        },
        || {
            let lines = pushes.iter().map(sentence);
            let head = (!first.is_empty()).then(|| first.to_owned());
            head.into_iter().chain(lines).collect::<Vec<_>>().join("\n")
        },
    );
    if pushes.iter().all(complete) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn complete(push: &LinkPush) -> bool {
    push.error.is_none() && push.refused.is_empty()
}

fn pushed(push: &LinkPush) -> Value {
    json!({
        "edge": push.edge,
        "error": push.error.as_ref().map(ToString::to_string),
        "applied": push.applied,
        "sent": push.sent,
        "refused_keys": push.refused,
    })
}

fn sentence(push: &LinkPush) -> String {
    let edge = &push.edge;
    match (&push.error, push.refused.as_slice()) {
        (Some(error), _) => format!("{edge}: not told: {error}"),
        (None, []) => {
            let sent = count(push.sent, "revocation");
            format!("{edge}: knows everything up to number {}; {sent} sent", push.applied)
        }
        (None, keys) => {
            let keys: Vec<&str> = keys.iter().map(KeyName::as_str).collect();
            format!("{edge}: does not take the key {}", keys.join(", "))
        }
    }
}

async fn list(actor: &Actor<'_>, after: Option<LinkId>, number: usize, output: &Output) -> Result<()> {
    let (links, now) = (actor.list_links(after, number).await?, SystemClock.now());
    output.show(
        || links.iter().map(|info| json!(info)).collect(),
        || {
            let rows: Vec<_> = links
                .iter()
                .map(|info| {
                    let claims = &info.link.claims;
                    let resources: Vec<String> = claims.resources.iter().map(ToString::to_string).collect();
                    let state = match (info.dead, &info.link.revoked) {
                        (_, Some(note)) => format!("revoked: {}", why(note)),
                        (Some(dead), None) => dead.to_owned(),
                        (None, None) if claims.expires <= now => "expired".to_owned(),
                        (None, None) => "good".to_owned(),
                    };
                    let edges: Vec<&str> = claims.audience.iter().map(NodeName::as_str).collect();
                    vec![
                        claims.id.to_string(),
                        resources.join(" "),
                        claims.expires.to_string(),
                        if edges.is_empty() { "all".to_owned() } else { edges.join(",") },
                        claims.subject.clone().unwrap_or_default(),
                        info.link.who.clone(),
                        state,
                    ]
                })
                .collect();
            table(&["LINK", "OPENS", "UNTIL", "EDGES", "SUBJECT", "BY", "STATE"], &rows)
        },
    );
    Ok(())
}

/// Shows what a token says of itself.
pub(crate) fn inspect(text: &str, output: &Output) -> Result<()> {
    let token = match text.split_once('?') {
        Some((_, query)) => {
            let lead = format!("{PARAMETER}=");
            let mut pairs = query.split('&').filter_map(|pair| pair.strip_prefix(lead.as_str()));
            pairs.next().ok_or_else(|| Error::new(ErrorKind::Invalid, "the URL carries no link"))?
        }
        None => text,
    };
    let said = link::inspect(token)?;
    output.show(
        || json!({"algorithm": said.algorithm, "key": said.key, "claims": said.claims, "verified": false}),
        || {
            let claims = serde_json::to_string_pretty(&said.claims).unwrap_or_default();
            format!("Nothing of this is verified.\n{} with the key {}\n{claims}", said.algorithm, said.key)
        },
    );
    Ok(())
}

fn why(note: &Note) -> String {
    format!("{} ({}, {})", note.reason, note.who, note.at)
}

/// `10m`, `24h`, `30d`, or seconds.
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
