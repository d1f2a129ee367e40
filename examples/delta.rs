//! Patches by hand: what a blob costs to somebody who has another one, and the blob back again.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use distedge::delta::{Base, Budget, Limits, Phase, ReadAt, apply, inspect, plan};
use distedge::digest::{Digest, Hasher};
use distedge::distribute::FileScratch;
use distedge::error::{Error, Result};
use serde_json::{Value, json};

/// Makes and applies patches; each command prints one line of JSON.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a patch that makes NEW of what OLD are.
    Diff {
        /// What the receiver has, the most similar first.
        #[arg(long, value_name = "FILE")]
        old: Vec<PathBuf>,
        /// What it is to get.
        #[arg(long, value_name = "FILE")]
        new: PathBuf,
        /// Where to write the patch.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// How hard to try.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(0..=9))]
        effort: u8,
        /// Bytes of memory for planning, in MiB.
        #[arg(long, default_value_t = 1024, value_name = "MIB")]
        memory: u64,
        /// Tell what the patch is made of, and the CPU time of each phase.
        #[arg(long)]
        explain: bool,
    },
    /// Make the blob.
    Apply {
        /// The bases, in any order.
        #[arg(long, value_name = "FILE")]
        old: Vec<PathBuf>,
        /// The patch.
        #[arg(long, value_name = "FILE")]
        patch: PathBuf,
        /// Where to write the blob.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Tell what a patch says about itself.
    Inspect {
        /// The patch.
        patch: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<Value> {
    let limits = Limits::default();
    match command {
        Command::Diff { old, new, out, effort, memory, explain } => {
            let scratch = beside(&out)?;
            let target = Bytes::open(&new)?;
            let bases = old.iter().map(|path| {
                let data = Bytes::open(path)?;
                Ok(Base { digest: data.digest()?, data: Arc::new(data) })
            });
            let bases = bases.collect::<Result<Vec<_>>>()?;
            let budget = Budget { effort, memory: memory << 20 };
            let clock = Clock::default();
            let plan = plan(&target, &bases, &budget, &limits, &scratch, &|phase| clock.enter(phase))?;
            let phases = clock.stop();
            let mut file = BufWriter::new(create(&out)?);
            let mut at = 0;
            let mut buffer = vec![0; 64 << 10];
            loop {
                let read = plan.artefact.read_at(&mut buffer, at)?;
                if read == 0 {
                    break;
                }
                file.write_all(&buffer[..read]).map_err(|cause| failed("writing", &out, cause))?;
                at += read as u64;
            }
            file.flush().map_err(|cause| failed("writing", &out, cause))?;
            let mut line = json!({
                "bytes": plan.artefact.size(),
                "of": target.size(),
                "method": plan.method.as_str(),
                "why": plan.why,
            });
            if explain {
                line["account"] = json!(plan.account);
                line["cpu_seconds"] = json!(phases);
            }
            Ok(line)
        }
        Command::Apply { old, patch, out } => {
            let artefact = Bytes::open(&patch)?;
            let mut bases: Vec<(Digest, Arc<dyn ReadAt>)> = Vec::new();
            for path in &old {
                let data = Bytes::open(path)?;
                bases.push((data.digest()?, Arc::new(data)));
            }
            // Under another name until it is whole and right.
            let part = out.with_extension("part");
            let mut file = BufWriter::new(create(&part)?);
            let start = cpu_time();
            let made = apply(&artefact, &bases, &limits, &beside(&out)?, &mut file).and_then(|header| {
                file.flush().map(|()| header).map_err(|cause| failed("writing", &part, cause))
            });
            let header = match made {
                Ok(header) => header,
                Err(error) => {
                    let _ = std::fs::remove_file(&part);
                    return Err(error);
                }
            };
            std::fs::rename(&part, &out).map_err(|cause| failed("renaming to", &out, cause))?;
            Ok(json!({
                "bytes": header.size,
                "digest": header.digest,
                "method": header.method.as_str(),
                "cpu_seconds": (cpu_time() - start).as_secs_f64(),
            }))
        }
        Command::Inspect { patch } => {
            let header = inspect(&Bytes::open(&patch)?)?;
            Ok(json!({
                "method": header.method.as_str(),
                "size": header.size,
                "digest": header.digest,
                "bases": header.bases,
            }))
        }
    }
}

fn beside(path: &Path) -> Result<FileScratch> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    FileScratch::open(directory.unwrap_or(Path::new(".")))
}

fn create(path: &Path) -> Result<File> {
    File::create(path).map_err(|cause| failed("making", path, cause))
}

fn failed(what: &str, path: &Path, cause: std::io::Error) -> Error {
    Error::io(format!("{what} {}", path.display()), cause)
}

/// A file's bytes.
#[derive(Debug)]
struct Bytes {
    file: File,
    path: PathBuf,
    size: u64,
}

impl Bytes {
    fn open(path: &Path) -> Result<Bytes> {
        let file = File::open(path).map_err(|cause| failed("opening", path, cause))?;
        let size = file.metadata().map_err(|cause| failed("looking at", path, cause))?.len();
        Ok(Bytes { file, path: path.to_owned(), size })
    }

    fn digest(&self) -> Result<Digest> {
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 64 << 10];
        let mut file = File::open(&self.path).map_err(|cause| failed("opening", &self.path, cause))?;
        loop {
            let read = file.read(&mut buffer).map_err(|cause| failed("reading", &self.path, cause))?;
            if read == 0 {
                return Ok(hasher.finish());
            }
            hasher.update(&buffer[..read]);
        }
    }
}

impl ReadAt for Bytes {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        use std::os::unix::fs::FileExt as _;
        self.file.read_at(buffer, offset).map_err(|cause| failed("reading", &self.path, cause))
    }
}

/// CPU seconds of each phase.
#[derive(Default)]
struct Clock(RefCell<Phases>);

/// Those that have ended, and the one that runs.
type Phases = (BTreeMap<&'static str, f64>, Option<(Phase, Duration)>);

impl Clock {
    fn enter(&self, phase: Phase) {
        self.close(Some(phase));
    }

    fn stop(self) -> BTreeMap<&'static str, f64> {
        self.close(None);
        self.0.into_inner().0
    }

    fn close(&self, next: Option<Phase>) {
        let now = cpu_time();
        let (seconds, running) = &mut *self.0.borrow_mut();
        if let Some((phase, since)) = running.take() {
            *seconds.entry(phase.as_str()).or_default() += (now - since).as_secs_f64();
        }
        *running = next.map(|phase| (phase, now));
    }
}

/// CPU time of this process, all threads.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}
