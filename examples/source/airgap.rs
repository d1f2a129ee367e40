//! `air-gap …`.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use clap::{Args, Subcommand};
use distedge::delta::pack::volume;
use distedge::distribute::Events;
use distedge::distribute::airgap::{MAX_RECEIPTS, Receipts};
use distedge::error::{Error, ErrorKind, Result};
use distedge::name::{BundleName, NodeName, Version};
use distedge::source::{Actor, AirGapOptions, Recorded};
use serde_json::json;

use crate::output::{Output, bytes, count, short};

#[derive(Subcommand)]
pub(crate) enum AirGap {
    /// Write what an edge lacks as volumes, files to be carried there.
    ///
    /// What its receipts prove to be there does not travel. The edge takes the volumes in any order
    /// with `edge import`.
    Export(Export),
    /// Take the receipts that were carried back: the source's picture of the edge is right again.
    Receipts {
        /// The file that `edge import` or `edge receipts` wrote.
        file: PathBuf,
    },
    /// Read volumes and check everything that can be checked here. Needs no source.
    Verify {
        /// The volumes.
        #[arg(required = true, value_name = "VOLUME")]
        volumes: Vec<PathBuf>,
    },
}

#[derive(Args)]
pub(crate) struct Export {
    /// The edge they are for.
    edge: NodeName,
    /// Where to write them.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How large a volume may be, like 650MB or 4GiB.
    #[arg(long, default_value = "100MB", value_name = "SIZE")]
    volume_size: Size,
    /// Only this bundle; several times for several. All that the edge should hold and has not proven
    /// to hold, if not given.
    #[arg(long, num_args = 2, value_names = ["NAME", "VERSION"])]
    bundle: Vec<String>,
    /// First take the receipts in this file.
    #[arg(long, value_name = "FILE")]
    since: Option<PathBuf>,
    /// Count on nothing at the edge: all blobs, whole.
    #[arg(long, conflicts_with = "since")]
    whole: bool,
    /// Write only this volume of the set, to send it once more; several times for several.
    #[arg(long, value_name = "NUMBER")]
    only: Vec<u32>,
    /// The beginning of the files' names; the edge's name if not given.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

/// A number of bytes.
#[derive(Clone, Copy)]
struct Size(u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let unit: u64 = match text[digits..].trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "kb" | "k" => 1_000,
            "mb" | "m" => 1_000_000,
            "gb" | "g" => 1_000_000_000,
            "kib" => 1 << 10,
            "mib" => 1 << 20,
            "gib" => 1 << 30,
            _ => return Err("expected a size like 650MB or 4GiB".into()),
        };
        let number: Option<u64> = text[..digits].parse().ok();
        let size = number.and_then(|number| number.checked_mul(unit)).filter(|size| *size > 0);
        size.map(Size).ok_or_else(|| "expected a size like 650MB or 4GiB".into())
    }
}

impl AirGap {
    pub(crate) async fn run(&self, actor: &Actor<'_>, output: &Output) -> Result<()> {
        match self {
            AirGap::Export(export) => export.run(actor, output).await,
            AirGap::Receipts { file } => {
                let recorded = actor.source().record_receipts(&read_receipts(file)?).await?;
                output.show(|| to_json(&recorded), || sentence(&recorded));
                Ok(())
            }
            AirGap::Verify { volumes } => verify(volumes, output),
        }
    }
}

impl Export {
    async fn run(&self, actor: &Actor<'_>, output: &Output) -> Result<()> {
        let source = actor.source();
        if let Some(file) = &self.since {
            let recorded = source.record_receipts(&read_receipts(file)?).await?;
            if recorded.edge != self.edge {
                let message = format!("{} holds the receipts of {}", file.display(), recorded.edge);
                return Err(Error::invalid(message));
            }
            output.note(&sentence(&recorded));
        }
        let mut bundles = Vec::new();
        for pair in self.bundle.chunks(2) {
            if let [name, version] = pair {
                bundles.push((name.parse::<BundleName>()?, version.parse::<Version>()?));
            }
        }
        let options = AirGapOptions { bundles, volume: self.volume_size.0, whole: self.whole };
        let quiet: Events = Arc::new(|_| ());
        let export = actor.air_gap(&self.edge, &options, &quiet).await?;
        let name = self.name.as_deref().unwrap_or(self.edge.as_str());
        let files = source.write_volumes(&export, &self.out, name, &self.only).await?;
        let exported = export.exported();
        let (blobs, whole, travel) =
            exported.methods.values().fold((0, 0, 0), |(blobs, whole, bytes), tally| {
                (blobs + tally.blobs, whole + tally.whole, bytes + tally.bytes)
            });
        let set = export.volumes().next().map(|volume| volume.set.to_string()).unwrap_or_default();
        output.show(
            || {
                json!({
                    "edge": self.edge, "set": set, "volumes": export.volumes().len(), "files": files,
                    "blobs": blobs, "whole": whole, "bytes": travel, "held": exported.held,
                })
            },
            || {
                let mut text = format!(
                    "{} for {}, set {}: {} of {} as {}; {} there already.\n",
                    count(export.volumes().len() as u64, "volume"),
                    self.edge,
                    short(&set),
                    count(blobs, "blob"),
                    bytes(whole),
                    bytes(travel),
                    count(exported.held, "blob"),
                );
                for file in &files {
                    text += &format!("Wrote {}.\n", file.display());
                }
                text
            },
        );
        Ok(())
    }
}

/// Checks volumes; goes on after one that is damaged, so that all of those are named.
pub(crate) fn verify(volumes: &[PathBuf], output: &Output) -> Result<()> {
    let (mut good, mut lines, mut bad) = (Vec::new(), String::new(), Vec::new());
    for path in volumes {
        let file = File::open(path).map_err(|cause| Error::io(format!("reading {}", path.display()), cause));
        match file.and_then(|file| volume::verify(&mut BufReader::new(file))) {
            Ok(verified) => {
                let volume = &verified.volume;
                lines += &format!(
                    "{}: {} for {}, set {}, {}\n",
                    path.display(),
                    volume.place(),
                    volume.edge,
                    short(&volume.set.to_string()),
                    bytes(verified.bytes)
                );
                good.push(json!({
                    "file": path, "set": volume.set, "number": volume.number, "count": volume.count,
                    "edge": volume.edge, "bundles": volume.bundles, "bytes": verified.bytes,
                }));
            }
            Err(error) => bad.push(error.context(path.display())),
        }
    }
    if !good.is_empty() {
        output.show(|| json!(good), || lines);
    }
    match bad.len() {
        0 => Ok(()),
        1 => Err(bad.remove(0)),
        number => {
            bad.iter().for_each(|error| output.warn(error.message()));
            Err(Error::new(ErrorKind::Corrupted, format!("{number} volumes are not good")))
        }
    }
}

fn read_receipts(file: &Path) -> Result<Receipts> {
    let failed = |cause| Error::io(format!("reading {}", file.display()), cause);
    // Asked first: a file that is none of ours may be large.
    if std::fs::metadata(file).map_err(failed)?.len() > MAX_RECEIPTS {
        return Err(Error::new(ErrorKind::TooLarge, format!("{} is too large for receipts", file.display())));
    }
    Receipts::parse(&std::fs::read(file).map_err(failed)?).map_err(|error| error.context(file.display()))
}

fn to_json(recorded: &Recorded) -> serde_json::Value {
    json!({"edge": recorded.edge, "kept": recorded.kept, "ignored": recorded.ignored, "drift": recorded.drift})
}

fn sentence(recorded: &Recorded) -> String {
    let mut text =
        format!("{}: {} proven, drift {}.", recorded.edge, count(recorded.kept, "bundle"), recorded.drift);
    for (name, version) in &recorded.ignored {
        text += &format!("\nIt also holds {name} {version}, which it need not.");
    }
    text
}
