//! `bundle …`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use distedge::bundle::{Constraints, Country, EdgePattern, List, Network};
use distedge::error::{Error, Result};
use distedge::name::{ArtifactPath, BundleName, RepositoryName, Version};
use distedge::source::{
    Actor, BundleRecord, BundleState, Change, ChangeState, NewAlias, NewBundle, Pattern, Role, Source,
};
use serde_json::json;

use crate::artifacts::Choice;
use crate::keys::read_secret;
use crate::output::{Output, bytes, count, short, table};
use crate::people::changed;

#[derive(Subcommand)]
pub(crate) enum Bundle {
    /// Make a draft from selected artifacts, or a signed bundle with --sign.
    Create(Box<Create>),
    /// Sign a bundle; from then on it never changes.
    Sign {
        #[command(flatten)]
        bundle: Which,
        /// Sign with this key; several times for several. The default key if not given.
        #[arg(long, value_name = "ALIAS")]
        key: Vec<String>,
    },
    /// Attach a signature made elsewhere over the bytes of `bundle export --pae`.
    AttachSignature {
        #[command(flatten)]
        bundle: Which,
        /// The signature: 64 bytes or their base64 for Ed25519, armored or binary for OpenPGP.
        signature: PathBuf,
        /// The key that made it; every release key is tried if not given.
        #[arg(long, value_name = "ALIAS")]
        key: Option<String>,
    },
    /// Show what a bundle holds.
    Show {
        #[command(flatten)]
        bundle: Which,
    },
    /// Verify a bundle's signatures, form and stored bytes.
    Verify {
        #[command(flatten)]
        bundle: Which,
    },
    /// List the bundles.
    List,
    /// Withdraw a bundle for good. `source sync` tells the edges.
    Withdraw {
        #[command(flatten)]
        bundle: Which,
        /// Why.
        #[arg(long)]
        reason: String,
        /// The law demands it: edges answer 451 instead of 410.
        #[arg(long)]
        legal: bool,
    },
    /// Discard a draft.
    Discard {
        #[command(flatten)]
        bundle: Which,
    },
    /// Write the signed envelope.
    Export {
        #[command(flatten)]
        bundle: Which,
        /// Write the bytes that signatures are made over instead.
        #[arg(long)]
        pae: bool,
        /// Where to; standard output if not given.
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

#[derive(Args)]
pub(crate) struct Which {
    /// The bundle's name.
    pub(crate) name: BundleName,
    /// Its version.
    pub(crate) version: Version,
}

#[derive(Args)]
pub(crate) struct Create {
    #[command(flatten)]
    bundle: Which,
    #[command(flatten)]
    choice: Choice,
    /// Sign it at once, with the default key or those of --key.
    #[arg(long)]
    sign: bool,
    /// Sign it at once with this key.
    #[arg(long, value_name = "ALIAS")]
    key: Vec<String>,
    /// Another name for an artifact: REPOSITORY/NAME:ALIAS=PATH.
    #[arg(long, value_name = "ALIAS=PATH")]
    alias: Vec<AliasText>,
    /// Artifacts that are SBOMs (CycloneDX, SPDX), by repository/path.
    #[arg(long, value_name = "PATTERN")]
    sbom: Vec<Pattern>,
    /// Who makes the bundle, where no token says it.
    #[arg(long, env = "USER", default_value = "source")]
    by: String,
    /// Only for downloads from this country (two letters).
    #[arg(long, value_name = "COUNTRY")]
    allow_country: Vec<Country>,
    /// Not for downloads from this country.
    #[arg(long, value_name = "COUNTRY")]
    deny_country: Vec<Country>,
    /// Only for downloads from this network, like 192.0.2.0/24.
    #[arg(long, value_name = "NETWORK")]
    allow_net: Vec<Network>,
    /// Not for downloads from this network.
    #[arg(long, value_name = "NETWORK")]
    deny_net: Vec<Network>,
    /// Only for these edges: a name, or key:value like country:CA.
    #[arg(long, value_name = "EDGE")]
    only_edge: Vec<EdgePattern>,
}

#[derive(Clone)]
struct AliasText(NewAlias);

impl FromStr for AliasText {
    type Err = Error;

    fn from_str(text: &str) -> Result<AliasText> {
        let bad = || {
            Error::invalid(
                "expected REPOSITORY/NAME:ALIAS=PATH, like generic-local/app:latest=app/1.0/app.tar",
            )
        };
        let (alias, target) = text.split_once('=').ok_or_else(bad)?;
        let (name, alias) = alias.rsplit_once(':').ok_or_else(bad)?;
        let (repository, name) = name.split_once('/').ok_or_else(bad)?;
        Ok(AliasText(NewAlias {
            repository: RepositoryName::new(repository)?,
            name: ArtifactPath::new(name)?,
            alias: alias.to_owned(),
            target: ArtifactPath::new(target)?,
        }))
    }
}

fn list<T: Clone>(allow: &[T], deny: &[T]) -> List<T> {
    List { allow: (!allow.is_empty()).then(|| allow.to_vec()), deny: deny.to_vec() }
}

impl Create {
    async fn run(&self, actor: &Actor<'_>, output: &Output) -> Result<()> {
        let Which { name, version } = &self.bundle;
        let mut new = NewBundle::new(name.clone(), version.clone(), self.choice.required()?);
        new.label = self.choice.labels().first().cloned();
        new.by = self.by.clone();
        new.aliases = self.alias.iter().map(|alias| alias.0.clone()).collect();
        new.sboms = self.sbom.clone();
        new.constraints = Constraints {
            countries: list(&self.allow_country, &self.deny_country),
            nets: list(&self.allow_net, &self.deny_net),
            edges: (!self.only_edge.is_empty()).then(|| self.only_edge.clone()),
        };
        let mut record = actor.create_bundle(&new).await?;
        if self.sign || !self.key.is_empty() {
            record = actor.sign_bundle(name, version, &self.key).await?;
        }
        shown(output, &record);
        say_who_is_left(actor.source(), output, &record).await
    }
}

impl Bundle {
    pub(crate) async fn run(&self, actor: &Actor<'_>, output: &Output) -> Result<()> {
        let source = actor.source();
        match self {
            Bundle::Create(create) => create.run(actor, output).await?,
            Bundle::Sign { bundle: Which { name, version }, key } => {
                let record = actor.sign_bundle(name, version, key).await?;
                shown(output, &record);
                say_who_is_left(source, output, &record).await?;
            }
            Bundle::AttachSignature { bundle: Which { name, version }, signature, key } => {
                let content = read_secret(signature)?;
                let text = content.expose_str().map(str::trim).unwrap_or_default();
                let decoded = STANDARD.decode(text).ok().filter(|decoded| decoded.len() == 64);
                let signature = decoded.as_deref().unwrap_or_else(|| content.expose());
                let record = actor.attach_signature(name, version, key.as_deref(), signature).await?;
                shown(output, &record);
                say_who_is_left(source, output, &record).await?;
            }
            Bundle::Show { bundle } => show(source, output, bundle).await?,
            Bundle::Verify { bundle: Which { name, version } } => {
                let found = source.verify_bundle(name, version).await?;
                output.show(
                    || json!(found),
                    || {
                        format!(
                            "The bundle {name} {version} is good: signed by {} ({} needed), {} read and equal.\n{}",
                            found.signers.join(", "),
                            found.threshold,
                            count(found.blobs, "blob"),
                            found.digest
                        )
                    },
                );
            }
            Bundle::List => {
                let bundles = source.bundles().await?;
                output.show(
                    || bundles.iter().map(to_json).collect(),
                    || {
                        let rows: Vec<_> = bundles.iter().map(row).collect();
                        table(&["BUNDLE", "VERSION", "SEQ", "STATE", "ARTIFACTS", "SIZE", "SIGNED BY"], &rows)
                    },
                );
            }
            Bundle::Withdraw { bundle: Which { name, version }, reason, legal } => {
                let change = Change::Withdraw { reason: reason.clone(), legal: *legal };
                let change = actor.change(name, version, change).await?;
                if change.state == ChangeState::Waiting {
                    changed(output, &change);
                    return Ok(());
                }
                let record = source.bundle(name, version).await?;
                output.show(
                    || record.as_ref().map(to_json).unwrap_or_default(),
                    || format!("The bundle {name} {version} is withdrawn; run `sync` to tell the edges."),
                );
            }
            Bundle::Discard { bundle: Which { name, version } } => {
                actor.discard_bundle(name, version).await?;
                output.show(
                    || json!({"discarded": format!("{name} {version}")}),
                    || format!("The draft {name} {version} is discarded."),
                );
            }
            Bundle::Export { bundle: Which { name, version }, pae, output: file } => {
                let content = if *pae {
                    source.signing_bytes(name, version).await?.into()
                } else {
                    source.envelope(name, version).await?
                };
                match file {
                    Some(file) => {
                        std::fs::write(file, &content)
                            .map_err(|cause| Error::io(format!("writing {}", file.display()), cause))?;
                        output.note(&format!("Wrote {} to {}.", bytes(content.len() as u64), file.display()));
                    }
                    None => output.raw(&content),
                }
            }
        }
        Ok(())
    }
}

fn state(record: &BundleRecord) -> &'static str {
    match record.state() {
        BundleState::Draft => "draft",
        BundleState::Signed => "signed",
        BundleState::Withdrawn => "withdrawn",
        _ => "unknown",
    }
}

fn to_json(record: &BundleRecord) -> serde_json::Value {
    let mut value = json!(record);
    value["state"] = json!(record.state());
    value
}

fn row(record: &BundleRecord) -> Vec<String> {
    let signers: Vec<&str> = record.signatures.iter().map(|signature| signature.alias.as_str()).collect();
    vec![
        record.name.to_string(),
        record.version.to_string(),
        record.seq.to_string(),
        state(record).to_owned(),
        record.items.to_string(),
        bytes(record.bytes),
        signers.join(", "),
    ]
}

fn shown(output: &Output, record: &BundleRecord) {
    output.show(
        || to_json(record),
        || {
            let signers: Vec<&str> =
                record.signatures.iter().map(|signature| signature.alias.as_str()).collect();
            let signed = match signers.as_slice() {
                [] => "a draft".to_owned(),
                some => format!("signed by {}", some.join(", ")),
            };
            format!(
                "The bundle {} {} (seq {}) is {signed}: {}, {}.\n{}",
                record.name,
                record.version,
                record.seq,
                count(record.items, "artifact"),
                bytes(record.bytes),
                record.digest
            )
        },
    );
}

/// Says so if a signed bundle has not the signatures of enough owners.
async fn say_who_is_left(source: &Source, output: &Output, record: &BundleRecord) -> Result<()> {
    let ring = source.ring(Role::Release).await?;
    let pairs = record.signatures.iter().filter_map(|signature| ring.keys.pair(&signature.alias).ok());
    let owners = pairs.map(|pair| pair.owner.as_str()).collect::<BTreeSet<_>>().len();
    if owners > 0 && owners < ring.threshold as usize {
        let needed = ring.threshold;
        output.note(&format!("{owners} of {needed} needed owners signed: it cannot be distributed yet."));
    }
    Ok(())
}

async fn show(source: &Source, output: &Output, Which { name, version }: &Which) -> Result<()> {
    let statement = source.statement(name, version).await?;
    let record = source.bundle(name, version).await?;
    let assigned = source.assignments_of(name, version).await?;
    let payload: serde_json::Value = serde_json::from_slice(&statement.to_payload())
        .map_err(|cause| Error::invalid(format!("the statement is not JSON: {cause}")))?;
    output.show(
        || json!({"record": record.as_ref().map(to_json), "statement": payload, "edges": assigned}),
        || {
            let mut text = String::new();
            if let Some(record) = &record {
                text += &table(
                    &["BUNDLE", "VERSION", "SEQ", "STATE", "ARTIFACTS", "SIZE", "SIGNED BY"],
                    &[row(record)],
                );
                text +=
                    &format!("Made {} by {}; {}.\n", record.created, statement.source().by, record.digest);
                if let Some(withdrawn) = &record.withdrawn {
                    text += &format!("Withdrawn {}: {}\n", withdrawn.at, withdrawn.reason);
                }
                for sbom in &record.sboms {
                    text += &format!(
                        "SBOM {} ({}, {})\n",
                        sbom.place,
                        sbom.format,
                        count(sbom.components, "component")
                    );
                }
            }
            for alias in statement.aliases() {
                let item =
                    statement.items().get(alias.item).map(|item| item.path.to_string()).unwrap_or_default();
                text += &format!("Alias {}/{} is {item}\n", alias.repository, alias.path);
            }
            if !assigned.is_empty() {
                let edges: Vec<&str> = assigned.iter().map(|assignment| assignment.edge.as_str()).collect();
                text += &format!("For the edges {}\n", edges.join(", "));
            }
            let rows: Vec<_> = statement
                .items()
                .iter()
                .map(|item| vec![bytes(item.size), short(&item.digest.to_string()).to_owned(), item.name()])
                .collect();
            text + "\n" + &table(&["SIZE", "SHA256", "ARTIFACT"], &rows)
        },
    );
    Ok(())
}
