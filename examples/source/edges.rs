//! `edge …`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use distedge::bundle::Country;
use distedge::distribute::Window;
use distedge::error::{Error, ErrorKind, Result};
use distedge::name::NodeName;
use distedge::secret::Secret;
use distedge::source::{Actor, EdgeRecord, HttpDial, PairOptions};
use distedge::token::PairingToken;
use serde_json::json;

use crate::keys::read_secret;
use crate::output::{Output, bytes, table};

#[derive(Subcommand)]
pub(crate) enum Edge {
    /// Add an edge, or change what is known of it: what is not given stays as it is.
    Add(Box<Add>),
    /// Pair with an edge: redeem a pairing token that its administrator made.
    ///
    /// From then on every call to the edge carries a master token and is signed by this source's
    /// identity key. The edge is added if it is not known.
    Pair(Box<Pair>),
    /// End the pairing with an edge.
    Unpair {
        /// Its name.
        name: NodeName,
        /// Why.
        #[arg(long, default_value = "unpaired by the source")]
        reason: String,
        /// Forget the master token even if the edge cannot be told.
        #[arg(long)]
        force: bool,
    },
    /// Replace the master token of a paired edge.
    Rotate {
        /// Its name.
        name: NodeName,
    },
    /// Limit what goes to an edge, and when.
    Set(Set),
    /// List the edges.
    List,
    /// Forget an edge, what it should hold and what it proved.
    Remove {
        /// Its name.
        name: NodeName,
    },
    /// Forget an edge's identity key, because the edge was set up anew: the next contact pins the new one.
    Repin {
        /// Its name.
        name: NodeName,
    },
}

#[derive(Args)]
pub(crate) struct Set {
    /// Its name.
    name: NodeName,
    /// How much may go to it in a second, like 500kB, 10MB or 2MiB; `none` for as much as there is.
    #[arg(long, value_name = "BYTES", value_parser = parse_rate)]
    rate: Option<Rate>,
    /// Hours at which bundles may go to it, in UTC, like 22:00-06:00 or "sat,sun 00:00-24:00"; several
    /// are alternatives.
    #[arg(long, value_name = "HOURS")]
    window: Vec<Window>,
    /// Bundles may go to it at any hour.
    #[arg(long, conflicts_with = "window")]
    any_time: bool,
}

#[derive(Clone, Copy, Debug)]
struct Rate(Option<u64>);

fn parse_rate(text: &str) -> Result<Rate> {
    if text == "none" {
        return Ok(Rate(None));
    }
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim().trim_end_matches("/s") {
        "" | "B" => Some(1),
        "kB" | "k" => Some(1000),
        "KiB" => Some(1 << 10),
        "MB" | "M" => Some(1_000_000),
        "MiB" => Some(1 << 20),
        "GB" | "G" => Some(1_000_000_000),
        "GiB" => Some(1 << 30),
        _ => None,
    };
    let rate = number.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    match rate.filter(|rate| *rate > 0) {
        Some(rate) => Ok(Rate(Some(rate))),
        None => Err(Error::invalid(format!("{text:?} is not a rate: expected bytes in a second, like 10MB"))),
    }
}

impl Set {
    async fn run(&self, actor: &Actor<'_>, output: &Output) -> Result<()> {
        let source = actor.source();
        let mut edge = source.edge(&self.name).await?.ok_or_else(|| unknown(&self.name))?;
        if let Some(Rate(rate)) = self.rate {
            edge.rate = rate;
        }
        if self.any_time || !self.window.is_empty() {
            edge.windows.clone_from(&self.window);
        }
        actor.set_edge(&edge, None).await?;
        output.show(|| json!(edge), || format!("The edge {}: {}.", edge.name, limits(&edge)));
        Ok(())
    }
}

fn limits(edge: &EdgeRecord) -> String {
    let rate = edge.rate.map_or_else(|| "any rate".to_owned(), |rate| format!("{} in a second", bytes(rate)));
    let windows: Vec<String> = edge.windows.iter().map(ToString::to_string).collect();
    let hours = if windows.is_empty() { "at any time".to_owned() } else { windows.join("; ") };
    format!("{rate}, {hours}")
}

#[derive(Args)]
pub(crate) struct Add {
    /// Its name, which the edge must go by as well.
    name: NodeName,
    /// Where it is reached, like https://edge.example:8443.
    url: String,
    /// Deprecated: `edge pair` needs no such token. A file with a control token of the edge, for an
    /// edge that is not paired; `-` is standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// Deprecated, as --token-file: the token itself. Others on this machine can read it from the process list: prefer
    /// --token-file or the environment.
    #[arg(long, env = "DISTEDGE_EDGE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// A file with the certificate authority to trust for it, in PEM.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The site it belongs to.
    #[arg(long)]
    site: Option<String>,
    /// The city it is in.
    #[arg(long)]
    city: Option<String>,
    /// The country it is in (two letters).
    #[arg(long)]
    country: Option<Country>,
    /// A label, like group=eu; a bare word is given the value `true`.
    #[arg(long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
}

impl Add {
    async fn run(&self, actor: &Actor<'_>, output: &Output) -> Result<()> {
        let source = actor.source();
        if std::env::args_os().any(|arg| arg.to_string_lossy().starts_with("--token=") || arg == "--token") {
            output.warn(
                "a token on the command line can be read by others on this machine; prefer --token-file",
            );
        }
        let token = match (&self.token_file, &self.token) {
            (Some(file), _) => {
                let content = read_secret(file)?;
                Some(Secret::new(content.expose_str().unwrap_or_default().trim()))
            }
            (None, token) => token.as_deref().map(Secret::new),
        };
        let known = source.edge(&self.name).await?;
        let mut edge = known.unwrap_or_else(|| EdgeRecord::new(self.name.clone(), &self.url));
        edge.url.clone_from(&self.url);
        if let Some(file) = &self.ca {
            let found = std::fs::canonicalize(file);
            edge.ca = Some(found.map_err(|cause| Error::io(format!("reading {}", file.display()), cause))?);
        }
        edge.site = self.site.clone().or(edge.site);
        edge.city = self.city.clone().or(edge.city);
        edge.country = self.country.or(edge.country);
        if !self.label.is_empty() {
            let labels = self.label.iter().map(|label| label.split_once('=').unwrap_or((label, "true")));
            edge.labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        }
        if travels_in_the_clear(&edge.url) {
            output
                .warn(&format!("the token for {} travels unencrypted: use https outside of tests", edge.url));
        }
        actor.set_edge(&edge, token.as_ref()).await?;
        if source.credentials(&edge.name).await?.token.is_none() {
            output.warn(&format!(
                "the edge {} will not let this source in yet: pair with it by `edge pair`",
                edge.name
            ));
        }
        output.show(|| json!(edge), || format!("The edge {} is known at {}.", edge.name, edge.url));
        Ok(())
    }
}

#[derive(Args)]
pub(crate) struct Pair {
    /// Its name, as the pairing token says it.
    name: NodeName,
    /// Where it is reached, like https://edge.example:8443.
    url: String,
    /// A file with the pairing token; `-` is standard input.
    #[arg(long, value_name = "FILE", default_value = "-")]
    pairing_token_file: PathBuf,
    /// The fingerprint of the edge's key that its administrator read out; another one is refused.
    #[arg(long, value_name = "FINGERPRINT")]
    fingerprint: Option<String>,
    /// What this source is to be called at the edge.
    #[arg(long, value_name = "NAME")]
    call_me: Option<NodeName>,
    /// Where this source is reached, if it can be.
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    /// A file with the certificate authority to trust for it, in PEM.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl Pair {
    async fn run(&self, actor: &Actor<'_>, output: &Output) -> Result<()> {
        let source = actor.source();
        let token = PairingToken::parse(&read_secret(&self.pairing_token_file)?)?;
        let found = token.issuer_fingerprint();
        if let Some(expected) = &self.fingerprint
            && *expected != found
        {
            let message = format!("the pairing token names the key {found}, not {expected}");
            return Err(Error::new(ErrorKind::Untrusted, message));
        }
        output.note(&format!("Pairing with {}, whose key is {found}.", token.issuer()));
        let known = source.edge(&self.name).await?;
        let mut edge = known.unwrap_or_else(|| EdgeRecord::new(self.name.clone(), &self.url));
        edge.url.clone_from(&self.url);
        if let Some(file) = &self.ca {
            let found = std::fs::canonicalize(file);
            edge.ca = Some(found.map_err(|cause| Error::io(format!("reading {}", file.display()), cause))?);
        }
        if travels_in_the_clear(&edge.url) {
            output
                .warn(&format!("what goes to {} travels unencrypted: use https outside of tests", edge.url));
        }
        let options = PairOptions { name: self.call_me.clone(), base_url: self.base_url.clone() };
        let pairing = actor.pair(&edge, &token, &options, &HttpDial).await?;
        output.show(
            || json!(pairing),
            || format!("Paired with {}; `sync` brings it the keys and its bundles.", edge.name),
        );
        Ok(())
    }
}

impl Edge {
    pub(crate) async fn run(&self, actor: &Actor<'_>, output: &Output) -> Result<()> {
        let source = actor.source();
        match self {
            Edge::Add(add) => add.run(actor, output).await?,
            Edge::Set(set) => set.run(actor, output).await?,
            Edge::Pair(pair) => pair.run(actor, output).await?,
            Edge::Unpair { name, reason, force } => {
                let told = actor.unpair(name, reason, &HttpDial, *force).await?;
                let how = if told { "the edge knows" } else { "the edge was not told" };
                output.show(
                    || json!({"unpaired": name, "told": told}),
                    || format!("The pairing with {name} is over; {how}."),
                );
            }
            Edge::Rotate { name } => {
                let pairing = actor.rotate_pairing(name, &HttpDial).await?;
                output.show(
                    || json!(pairing),
                    || format!("{name} has master token {} of this pairing.", pairing.epoch),
                );
            }
            Edge::List => {
                let edges = source.edges().await?;
                output.show(
                    || json!(edges),
                    || {
                        let rows: Vec<_> = edges.iter().map(row).collect();
                        table(&["EDGE", "URL", "SITE", "CITY", "COUNTRY", "LABELS", "LIMITS"], &rows)
                    },
                );
            }
            Edge::Remove { name } => {
                if !actor.remove_edge(name).await? {
                    return Err(unknown(name));
                }
                output.show(
                    || json!({"removed": name}),
                    || format!("The edge {name} is forgotten; what it holds, it keeps."),
                );
            }
            Edge::Repin { name } => {
                if source.edge(name).await?.is_none() {
                    return Err(unknown(name));
                }
                actor.forget_identity(name).await?;
                output.show(
                    || json!({"repinned": name}),
                    || format!("The next contact with the edge {name} pins its identity key."),
                );
            }
        }
        Ok(())
    }
}

fn row(edge: &EdgeRecord) -> Vec<String> {
    let labels: Vec<String> = edge.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    vec![
        edge.name.to_string(),
        edge.url.clone(),
        edge.site.clone().unwrap_or_default(),
        edge.city.clone().unwrap_or_default(),
        edge.country.as_ref().map(ToString::to_string).unwrap_or_default(),
        labels.join(","),
        if edge.rate.is_none() && edge.windows.is_empty() { String::new() } else { limits(edge) },
    ]
}

fn travels_in_the_clear(url: &str) -> bool {
    let Ok(url) = url.parse::<http::Uri>() else { return false };
    let host = url.host().unwrap_or_default();
    url.scheme_str() == Some("http") && host != "localhost" && host != "[::1]" && !host.starts_with("127.")
}

#[cold]
pub(crate) fn unknown(name: &NodeName) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no edge called {name}"))
}
