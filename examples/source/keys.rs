//! `key …`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use distedge::clock::Timestamp;
use distedge::error::{Error, Result};
use distedge::key::{Algorithm, KeyPair, PublicKey, Window};
use distedge::secret::Secret;
use distedge::source::{Actor, NewKey, Role, Source};
use serde_json::json;

use crate::output::{Output, short, table};

#[derive(Subcommand)]
pub(crate) enum Key {
    /// Make a key pair.
    New {
        #[command(flatten)]
        named: Named,
        /// How it signs.
        #[arg(long = "type", value_enum, default_value = "ed25519")]
        kind: Kind,
    },
    /// Import a key pair (PEM `PRIVATE KEY`, or an armored OpenPGP block without a passphrase), or
    /// with --public the public half of a key that stays in gpg or a hardware module.
    Import {
        #[command(flatten)]
        named: Named,
        /// The file; `-` is standard input.
        file: PathBuf,
        /// The file holds a public key.
        #[arg(long)]
        public: bool,
    },
    /// List the keys.
    List,
    /// Show which edges have the keys of today. Every `sync` brings them to all, new edges included.
    Status,
    /// Print a public key as other tools read it (PEM, or an armored OpenPGP block).
    Export {
        #[command(flatten)]
        key: Which,
    },
    /// Make a key the one that signs when none is named.
    Default {
        #[command(flatten)]
        key: Which,
    },
    /// Set when a key may sign.
    Window {
        #[command(flatten)]
        key: Which,
        /// The first moment, like 2026-11-22T05:00:00Z.
        #[arg(long)]
        from: Option<Timestamp>,
        /// The first moment after the window; no end if not given.
        #[arg(long)]
        until: Option<Timestamp>,
    },
    /// Revoke a key. `source sync` tells the edges.
    Revoke {
        #[command(flatten)]
        key: Which,
        /// Why.
        #[arg(long)]
        reason: String,
        /// Others may know the secret half: nothing it ever signed counts.
        #[arg(long)]
        compromised: bool,
    },
    /// Set how many distinct owners must sign.
    Threshold {
        /// The number.
        number: u32,
        /// Of root keys, not release keys.
        #[arg(long)]
        root: bool,
    },
}

#[derive(Args)]
pub(crate) struct Named {
    /// What the key is called.
    alias: String,
    /// A root key, which signs the trust document, not a release key.
    #[arg(long)]
    root: bool,
    /// Whose it is, as thresholds count; the alias if not given.
    #[arg(long)]
    owner: Option<String>,
    /// The first moment at which it may sign.
    #[arg(long)]
    from: Option<Timestamp>,
    /// The first moment at which it may not sign any more.
    #[arg(long)]
    until: Option<Timestamp>,
}

impl Named {
    fn new_key(&self) -> NewKey {
        let key = NewKey::new(&self.alias).with_window(window(self.from, self.until));
        match &self.owner {
            Some(owner) => key.with_owner(owner),
            None => key,
        }
    }
}

#[derive(Args)]
pub(crate) struct Which {
    /// What the key is called.
    alias: String,
    /// A root key, not a release key.
    #[arg(long)]
    root: bool,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Kind {
    Ed25519,
    Openpgp,
}

fn role(root: bool) -> Role {
    if root { Role::Root } else { Role::Release }
}

fn window(from: Option<Timestamp>, until: Option<Timestamp>) -> Window {
    Window { from: from.unwrap_or(Timestamp::EPOCH), until }
}

impl Key {
    pub(crate) async fn run(&self, actor: &Actor<'_>, output: &Output) -> Result<()> {
        let source = actor.source();
        match self {
            Key::New { named, kind } => {
                let algorithm = match kind {
                    Kind::Ed25519 => Algorithm::Ed25519,
                    Kind::Openpgp => Algorithm::OpenPgp,
                };
                let pair = actor.create_key(role(named.root), algorithm, &named.new_key()).await?;
                shown(output, "Made", named.root, &pair);
            }
            Key::Import { named, file, public } => {
                let secret = read_secret(file)?;
                let pair = if *public {
                    let text = secret.expose_str().unwrap_or_default();
                    actor
                        .import_public_key(role(named.root), &named.new_key(), PublicKey::parse(text)?)
                        .await?
                } else {
                    actor.import_key(role(named.root), &named.new_key(), &secret).await?
                };
                shown(output, "Imported", named.root, &pair);
            }
            Key::List => list(source, output).await?,
            Key::Status => status(source, output).await?,
            Key::Export { key } => {
                let ring = source.ring(role(key.root)).await?;
                let pair = ring.keys.pair(&key.alias)?;
                output.show(
                    || json!({"alias": pair.alias, "id": pair.key.id(), "public": pair.key.to_pem()}),
                    || pair.key.to_pem(),
                );
            }
            Key::Default { key } => {
                actor.set_default_key(role(key.root), &key.alias).await?;
                output.show(
                    || json!({"default": key.alias}),
                    || format!("{} is the default {} key.", key.alias, role(key.root).as_str()),
                );
            }
            Key::Window { key, from, until } => {
                let window = window(*from, *until);
                actor.set_key_window(role(key.root), &key.alias, window).await?;
                output.show(|| json!(window), || format!("{} may sign {window}.", key.alias));
            }
            Key::Revoke { key, reason, compromised } => {
                actor.revoke_key(role(key.root), &key.alias, reason, *compromised).await?;
                output.show(
                    || json!({"revoked": key.alias}),
                    || format!("{} is revoked; run `sync` to tell the edges.", key.alias),
                );
            }
            Key::Threshold { number, root } => {
                actor.set_threshold(role(*root), *number).await?;
                output.show(
                    || json!({"threshold": number}),
                    || format!("{number} distinct owners of {} keys must sign.", role(*root).as_str()),
                );
            }
        }
        Ok(())
    }
}

fn shown(output: &Output, did: &str, root: bool, pair: &KeyPair) {
    output.show(
        || json!({"role": role(root), "id": pair.key.id(), "pair": pair}),
        || {
            let default = if pair.default { "; it is the default" } else { "" };
            format!(
                "{did} the {} {} key {}, {}{default}.",
                pair.key.algorithm(),
                role(root).as_str(),
                pair.alias,
                pair.key.id()
            )
        },
    );
}

async fn list(source: &Source, output: &Output) -> Result<()> {
    let (root, release) = (source.ring(Role::Root).await?, source.ring(Role::Release).await?);
    let mut rows = Vec::new();
    let mut keys = Vec::new();
    for (role, ring) in [(Role::Root, &root), (Role::Release, &release)] {
        for pair in ring.keys.pairs() {
            let here = source.has_secret(&pair.key.id())?;
            let mut state = match &pair.revocation {
                Some(revocation) => format!("revoked: {}", revocation.reason),
                None if pair.window == Window::ALWAYS => "good".to_owned(),
                None => pair.window.to_string(),
            };
            if pair.default {
                state += ", default";
            }
            if !here {
                state += ", secret elsewhere";
            }
            rows.push(vec![
                role.as_str().to_owned(),
                pair.alias.clone(),
                pair.owner.clone(),
                pair.key.algorithm().to_string(),
                short(pair.key.id().as_str()).to_owned(),
                state,
            ]);
            keys.push(json!({"role": role, "id": pair.key.id(), "secret": here, "pair": pair}));
        }
    }
    output.show(
        || json!({"threshold": {"root": root.threshold, "release": release.threshold}, "keys": keys}),
        || {
            table(&["ROLE", "ALIAS", "OWNER", "TYPE", "ID", "STATE"], &rows)
                + &format!(
                    "Bundles need the signatures of {} of the release owners, the trust document of {} of the root owners.",
                    release.threshold, root.threshold
                )
        },
    );
    Ok(())
}

async fn status(source: &Source, output: &Output) -> Result<()> {
    let (version, all, edges) = source.key_status().await?;
    let word = |value: serde_json::Value| value.as_str().unwrap_or("-").to_owned();
    output.show(
        || json!({"status": all, "version": version, "details": edges}),
        || {
            let row = |edge: &distedge::source::KeyStatus| {
                vec![
                    edge.edge.to_string(),
                    edge.held.map_or_else(|| "-".to_owned(), |held| held.to_string()),
                    word(json!(edge.state)),
                    edge.at.map_or_else(|| "never".to_owned(), |at| at.to_string()),
                    edge.error.clone().unwrap_or_default(),
                ]
            };
            let rows: Vec<_> = edges.iter().map(row).collect();
            let wanted = match version {
                Some(version) => format!("trust document {version} has the keys of today"),
                None => "the keys of today go out with the next sync".to_owned(),
            };
            table(&["EDGE", "TRUST", "STATUS", "SEEN", "ERROR"], &rows)
                + &format!("{}; {wanted}.", word(json!(all)))
        },
    );
    Ok(())
}

/// A small file that may hold a secret; `-` is standard input.
pub(crate) fn read_secret(file: &Path) -> Result<Secret> {
    use std::io::Read as _;
    const MOST: u64 = 1 << 20;
    let mut content = Vec::new();
    let read = if file == Path::new("-") {
        std::io::stdin().lock().take(MOST + 1).read_to_end(&mut content)
    } else {
        std::fs::File::open(file).and_then(|opened| opened.take(MOST + 1).read_to_end(&mut content))
    };
    read.map_err(|cause| Error::io(format!("reading {}", file.display()), cause))?;
    if content.len() as u64 > MOST {
        return Err(Error::invalid(format!("{} has more than {MOST} bytes", file.display())));
    }
    Ok(Secret::new(content))
}
