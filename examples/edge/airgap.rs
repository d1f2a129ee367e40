//! Volumes that were carried here, and receipts to carry back: offline commands.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use distedge::delta::pack::volume;
use distedge::distribute::Receiver;
use distedge::distribute::airgap::{ImportAnswer, Receipts, file_bytes};
use distedge::edge;
use distedge::error::{Error, ErrorKind, Result};

use crate::config::Config;

/// Imports volumes, one after the other. One that is refused does not keep the others out.
pub(crate) async fn import(
    config: &Config,
    data: &Path,
    volumes: &[PathBuf],
    receipts: Option<&Path>,
) -> Result<()> {
    let receiver = open(config, data).await?;
    let (mut set, mut last, mut failed) = (None, None, Vec::new());
    for path in volumes {
        let imported = async { receiver.import(set, file_bytes(path)?).await };
        match imported.await {
            Ok(answer) => {
                say(&format!(
                    "{}: volume {} of {} completed {}\n",
                    path.display(),
                    answer.number,
                    answer.count,
                    count(answer.stored, "blob")
                ))?;
                set = Some(answer.set);
                last = Some(answer);
            }
            Err(error) => failed.push(error.context(path.display())),
        }
    }
    if let Some(answer) = &last {
        say(&told(answer))?;
        if let (Some(path), Some(proof)) = (receipts, &answer.receipts) {
            write(path, proof)?;
        }
    }
    match failed.len() {
        0 => {}
        1 => return Err(failed.remove(0)),
        number => {
            for error in &failed {
                say(&format!("{error}\n"))?;
            }
            return Err(Error::new(ErrorKind::Corrupted, format!("{number} volumes were not imported")));
        }
    }
    match last {
        Some(answer) if answer.missing.is_empty() && !answer.is_complete() => {
            let why = answer.failed.first().map_or_else(String::new, |one| format!(": {}", one.why));
            let message =
                format!("the set is here and not complete{why}; have it exported again with --whole");
            Err(Error::new(ErrorKind::Conflict, message))
        }
        _ => Ok(()),
    }
}

/// Writes the receipts of all that the edge holds.
pub(crate) async fn receipts(config: &Config, data: &Path, to: &Path) -> Result<()> {
    write(to, &open(config, data).await?.receipts().await?)
}

/// Checks volumes; needs no edge.
pub(crate) fn verify(volumes: &[PathBuf]) -> Result<()> {
    for path in volumes {
        let mut file = fs::File::open(path)
            .map_err(|cause| Error::io(format_args!("reading {}", path.display()), cause))?;
        let verified = volume::verify(&mut file).map_err(|error| error.context(path.display()))?;
        say(&format!(
            "{}: {} for {}, good\n",
            path.display(),
            verified.volume.place(),
            verified.volume.edge
        ))?;
    }
    Ok(())
}

async fn open(config: &Config, data: &Path) -> Result<Receiver> {
    // Opening would make it: a mistyped directory must not become an edge.
    if !data.join("meta.redb").exists() {
        let message = format!("there is no edge in {}: start one there first", data.display());
        return Err(Error::new(ErrorKind::NotFound, message));
    }
    match edge::open(data, config.edge()?).await {
        Ok(opened) => Ok(opened.edge.receiver().clone()),
        Err(error) if error.kind() == ErrorKind::Conflict => {
            Err(error.context("an edge that runs takes volumes at POST /api/v1/volumes"))
        }
        Err(error) => Err(error),
    }
}

fn told(answer: &ImportAnswer) -> String {
    let mut text = String::new();
    for bundle in &answer.bundles {
        text += &match &bundle.why {
            Some(why) => format!("{} {} was refused: {why}\n", bundle.name, bundle.version),
            None if bundle.missing > 0 => {
                format!("{} {} lacks {}\n", bundle.name, bundle.version, count(bundle.missing, "blob"))
            }
            None => format!("{} {} is {}\n", bundle.name, bundle.version, bundle.state),
        };
    }
    for failed in &answer.failed {
        text += &format!("{} could not be made: {}\n", failed.digest, failed.why);
    }
    if !answer.missing.is_empty() {
        let numbers: Vec<String> = answer.missing.iter().map(u32::to_string).collect();
        text += &format!("missing of {} volumes: {}\n", answer.count, numbers.join(", "));
    }
    text
}

fn write(path: &Path, receipts: &Receipts) -> Result<()> {
    let text = serde_json::to_vec_pretty(receipts)
        .map_err(|cause| Error::new(ErrorKind::Internal, format!("receipts cannot be written: {cause}")))?;
    fs::write(path, text).map_err(|cause| Error::io(format_args!("writing {}", path.display()), cause))?;
    let receipts = count(receipts.receipts.len() as u64, "receipt");
    say(&format!("{} holds {receipts} to carry back\n", path.display()))
}

fn count(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

fn say(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    let said = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    said.map_err(|cause| Error::io("writing to standard output", cause))
}
