//! `edge …`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use distedge::bundle::Country;
use distedge::error::{Error, ErrorKind, Result};
use distedge::name::NodeName;
use distedge::secret::Secret;
use distedge::source::{EdgeRecord, Source};
use serde_json::json;

use crate::keys::read_secret;
use crate::output::{Output, table};

#[derive(Subcommand)]
pub(crate) enum Edge {
    /// Add an edge, or change what is known of it: what is not given stays as it is.
    Add(Box<Add>),
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
pub(crate) struct Add {
    /// Its name, which the edge must go by as well.
    name: NodeName,
    /// Where it is reached, like https://edge.example:8443.
    url: String,
    /// A file with the token the edge printed at its first start; `-` is standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// The token itself. Others on this machine can read it from the process list: prefer
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
    async fn run(&self, source: &Source, output: &Output) -> Result<()> {
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
        source.set_edge(&edge, token.as_ref()).await?;
        if source.edge_token(&edge.name)?.is_none() {
            output.warn(&format!("the edge {} has no token yet, and will not let this source in", edge.name));
        }
        output.show(|| json!(edge), || format!("The edge {} is known at {}.", edge.name, edge.url));
        Ok(())
    }
}

impl Edge {
    pub(crate) async fn run(&self, source: &Source, output: &Output) -> Result<()> {
        match self {
            Edge::Add(add) => add.run(source, output).await?,
            Edge::List => {
                let edges = source.edges().await?;
                output.show(
                    || json!(edges),
                    || {
                        let rows: Vec<_> = edges.iter().map(row).collect();
                        table(&["EDGE", "URL", "SITE", "CITY", "COUNTRY", "LABELS"], &rows)
                    },
                );
            }
            Edge::Remove { name } => {
                if !source.remove_edge(name).await? {
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
                source.forget_identity(name).await?;
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
