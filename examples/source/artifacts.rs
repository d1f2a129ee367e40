//! `add`, `list`, `label`, `prop`, `remove`, `repos`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::Args;
use distedge::blob::ByteStream;
use distedge::error::{Error, Result};
use distedge::name::{ArtifactPath, RepositoryName};
use distedge::source::{Actor, AddEvent, AddOptions, Added, Pattern, Query, Selection, Source};
use futures_util::stream;
use serde_json::json;
use tokio::io::AsyncReadExt as _;

use crate::output::{Output, bytes, count, short, table};

/// Which artifacts: all that is given must hold.
#[derive(Args)]
pub(crate) struct Choice {
    /// Patterns over repository/path, one of which must match (`*`, `**`, `?`).
    #[arg(value_name = "PATTERN")]
    patterns: Vec<Pattern>,
    /// Only artifacts with this label; all of them if given several times.
    #[arg(long, value_name = "LABEL")]
    label: Vec<String>,
    /// Only artifacts for which this holds, like 'prop.os=linux and not size>1GiB'.
    ///
    /// Fields: repo, path, name, label, digest, sha256, size, added, media, prop.KEY. Operators: = and
    /// != (equal), ~ and !~ (pattern), < <= > >= (size and added). Join with and, or, not and
    /// parentheses; quote values that hold spaces.
    #[arg(long, short, value_name = "QUERY")]
    query: Option<Query>,
}

impl Choice {
    pub(crate) fn selection(&self) -> Selection {
        let mut selection = Selection::new();
        for pattern in &self.patterns {
            selection = selection.with_pattern(pattern.clone());
        }
        for label in &self.label {
            selection = selection.with_label(label);
        }
        match &self.query {
            Some(query) => selection.with_query(query.clone()),
            None => selection,
        }
    }

    /// The selection, or an error if nothing was asked for.
    pub(crate) fn required(&self) -> Result<Selection> {
        let selection = self.selection();
        if selection.is_empty() {
            return Err(Error::invalid(
                "nothing is selected: give a pattern, a label or a query (\"**\" is everything)",
            ));
        }
        Ok(selection)
    }

    pub(crate) fn labels(&self) -> &[String] {
        &self.label
    }
}

#[derive(Args)]
pub(crate) struct Add {
    /// Where to: REPOSITORY or REPOSITORY/FOLDER.
    #[arg(value_name = "REPOSITORY[/FOLDER]")]
    to: String,
    /// Files and directories; a directory's content goes below the folder; `-` is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The path inside the folder, for one file or standard input; its own name otherwise.
    #[arg(long = "as", value_name = "PATH")]
    path: Option<String>,
    /// A label to give.
    #[arg(long, value_name = "LABEL")]
    label: Vec<String>,
    /// A property to give.
    #[arg(long = "prop", value_name = "KEY=VALUE", value_parser = pair)]
    properties: Vec<(String, String)>,
    /// The media type.
    #[arg(long, value_name = "TYPE")]
    media_type: Option<String>,
    /// The repository's format, when it is new (`generic` if not given).
    #[arg(long)]
    format: Option<String>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl Add {
    pub(crate) async fn run(&self, actor: &Actor<'_>, output: &Output) -> Result<()> {
        let (repository, folder) = match self.to.split_once('/') {
            Some((repository, folder)) => {
                (RepositoryName::new(repository)?, Some(ArtifactPath::new(folder.trim_end_matches('/'))?))
            }
            None => (RepositoryName::new(&self.to)?, None),
        };
        if self.path.is_some() && self.files.len() != 1 {
            return Err(Error::invalid("--as names one file, and several are given"));
        }
        let options = AddOptions {
            format: self.format.clone(),
            labels: self.label.iter().cloned().collect(),
            properties: self.properties.iter().cloned().collect(),
            media_type: self.media_type.clone(),
        };
        let progress = output.progress();
        let bar = progress.bar("adding");
        let events = |event: AddEvent| match event {
            AddEvent::Found { bytes, .. } => bar.expect(bytes),
            AddEvent::Hashed(bytes) => bar.advance(bytes),
            AddEvent::Stored => bar.done_one(),
            _ => {}
        };
        let mut total = Added::default();
        for file in &self.files {
            if file.is_dir() {
                if self.path.is_some() {
                    return Err(Error::invalid("--as names a file, and a directory is given"));
                }
                let added = actor.add_tree(&repository, folder.as_ref(), file, &options, &events).await?;
                total.added += added.added;
                total.known += added.known;
                total.bytes += added.bytes;
                total.skipped.extend(added.skipped);
                continue;
            }
            let path = self.path_of(folder.as_ref(), file)?;
            let known = actor.source().artifact(&repository, &path).await?.is_some();
            let artifact = if file == Path::new("-") {
                actor.add_stream(&repository, &path, stdin(), &options).await?
            } else {
                actor.add_file(&repository, &path, file, &options, &events).await?
            };
            *(if known { &mut total.known } else { &mut total.added }) += 1;
            total.bytes += artifact.size;
        }
        bar.finish();
        for (path, why) in &total.skipped {
            output.warn(&format!("{} was left out: {why}", path.display()));
        }
        output.show(
            || json!(total),
            || {
                let known = match total.known {
                    0 => String::new(),
                    known => format!(", {known} there already"),
                };
                format!(
                    "Added {} to {repository}{known} ({}).",
                    count(total.added, "artifact"),
                    bytes(total.bytes)
                )
            },
        );
        Ok(())
    }

    fn path_of(&self, folder: Option<&ArtifactPath>, file: &Path) -> Result<ArtifactPath> {
        let name = match (&self.path, file.file_name().and_then(|name| name.to_str())) {
            (Some(path), _) => path.clone(),
            (None, _) if file == Path::new("-") => {
                return Err(Error::invalid("standard input has no name: give it one with --as"));
            }
            (None, Some(name)) => name.to_owned(),
            (None, None) => {
                return Err(Error::invalid(format!("{} has no file name in UTF-8", file.display())));
            }
        };
        match folder {
            Some(folder) => ArtifactPath::new(&format!("{folder}/{name}")),
            None => ArtifactPath::new(&name),
        }
    }
}

fn stdin() -> ByteStream {
    Box::pin(stream::try_unfold(tokio::io::stdin(), |mut stdin| async move {
        let mut chunk = vec![0; 1 << 20];
        let length =
            stdin.read(&mut chunk).await.map_err(|cause| Error::io("reading standard input", cause))?;
        chunk.truncate(length);
        Ok((length > 0).then(|| (chunk.into(), stdin)))
    }))
}

#[derive(Args)]
pub(crate) struct List {
    #[command(flatten)]
    choice: Choice,
    /// Also show digests, labels and properties.
    #[arg(long, short)]
    long: bool,
}

impl List {
    pub(crate) async fn run(&self, source: &Source, output: &Output) -> Result<()> {
        let mut selection = self.choice.selection();
        if selection.is_empty() {
            selection = Selection::all();
        }
        let artifacts = source.artifacts(&selection).await?;
        output.show(
            || json!(artifacts),
            || {
                let total: u64 = artifacts.iter().map(|artifact| artifact.size).sum();
                let rows: Vec<Vec<String>> = artifacts
                    .iter()
                    .map(|artifact| {
                        let mut row = vec![bytes(artifact.size), artifact.place()];
                        if self.long {
                            let properties: Vec<String> = artifact
                                .properties
                                .iter()
                                .map(|(key, value)| format!("{key}={value}"))
                                .collect();
                            let labels: Vec<&str> = artifact.labels.iter().map(String::as_str).collect();
                            row.extend([
                                short(&artifact.digest.to_string()).to_owned(),
                                labels.join(","),
                                properties.join(","),
                            ]);
                        }
                        row
                    })
                    .collect();
                let headings: &[&str] = if self.long {
                    &["SIZE", "ARTIFACT", "SHA256", "LABELS", "PROPERTIES"]
                } else {
                    &["SIZE", "ARTIFACT"]
                };
                let summary = format!("{}, {}", count(artifacts.len() as u64, "artifact"), bytes(total));
                if rows.is_empty() { summary } else { table(headings, &rows) + &summary }
            },
        );
        Ok(())
    }
}

pub(crate) async fn repositories(source: &Source, output: &Output) -> Result<()> {
    let repositories = source.repositories().await?;
    output.show(
        || json!(repositories),
        || {
            let rows: Vec<_> = repositories
                .iter()
                .map(|repository| {
                    vec![
                        repository.name.to_string(),
                        repository.format.clone(),
                        repository.created.to_string(),
                    ]
                })
                .collect();
            table(&["REPOSITORY", "FORMAT", "CREATED"], &rows)
        },
    );
    Ok(())
}

#[derive(Args)]
pub(crate) struct Label {
    #[command(flatten)]
    choice: Choice,
    /// A label to give.
    #[arg(long, value_name = "LABEL", required_unless_present = "remove")]
    add: Vec<String>,
    /// A label to take.
    #[arg(long, value_name = "LABEL")]
    remove: Vec<String>,
}

impl Label {
    pub(crate) async fn run(&self, actor: &Actor<'_>, output: &Output) -> Result<()> {
        let changed = actor.label(&self.choice.required()?, &self.add, &self.remove).await?;
        output.show(|| json!({"changed": changed}), || format!("Changed {}.", count(changed, "artifact")));
        Ok(())
    }
}

#[derive(Args)]
pub(crate) struct Prop {
    #[command(flatten)]
    choice: Choice,
    /// A property to set.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair, required_unless_present = "clear")]
    set: Vec<(String, String)>,
    /// A property to clear.
    #[arg(long, value_name = "KEY")]
    clear: Vec<String>,
}

impl Prop {
    pub(crate) async fn run(&self, actor: &Actor<'_>, output: &Output) -> Result<()> {
        let mut properties: BTreeMap<String, Option<String>> =
            self.set.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect();
        let set: BTreeSet<&String> = self.set.iter().map(|(key, _)| key).collect();
        if let Some(both) = self.clear.iter().find(|key| set.contains(key)) {
            return Err(Error::invalid(format!("the property {both} is both set and cleared")));
        }
        properties.extend(self.clear.iter().map(|key| (key.clone(), None)));
        let changed = actor.set_properties(&self.choice.required()?, &properties).await?;
        output.show(|| json!({"changed": changed}), || format!("Changed {}.", count(changed, "artifact")));
        Ok(())
    }
}

#[derive(Args)]
pub(crate) struct Remove {
    #[command(flatten)]
    choice: Choice,
}

impl Remove {
    pub(crate) async fn run(&self, actor: &Actor<'_>, output: &Output) -> Result<()> {
        let removed = actor.remove(&self.choice.required()?).await?;
        output.show(|| json!({"removed": removed}), || format!("Removed {}.", count(removed, "artifact")));
        Ok(())
    }
}
