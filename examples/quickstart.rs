//! One source and two edges in a temporary directory: two versions of a bundle, signed with both
//! kinds of keys, distributed, proven, downloaded and compared, and told in plain sentences. The
//! second version's archive travels as a patch of the first one's.
//!
//! ```text
//! cargo run --release --example quickstart [FILES…]     # by default this repository's own files
//! ```
//!
//! The edges go on until Ctrl-C; with `--once` it ends by itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use distedge::digest::Digest;
use distedge::distribute::Event;
use distedge::edge::EdgeOptions;
use distedge::error::{Error, ErrorKind, Result};
use distedge::key::Algorithm;
use distedge::name::{ArtifactPath, BundleName, NodeName, RepositoryName, Tenant, Version};
use distedge::secret::Secret;
use distedge::server::{Server, ServerConfig};
use distedge::source::{
    AddOptions, ConvergeOptions, EdgeRecord, HttpDial, NewAlias, NewBundle, NewKey, Pattern, Role, Selection,
    Source,
};
use distedge::transport::{Call, HttpTransport, Transport as _, Verb};

/// Shows the main job of distedge, from files to verified downloads.
#[derive(Debug, Parser)]
struct Arguments {
    /// What to release; this repository's own files if nothing is named.
    files: Vec<PathBuf>,
    /// End after the comparison instead of leaving the edges running.
    #[arg(long)]
    once: bool,
}

/// An edge that is served on a socket.
struct Running {
    name: NodeName,
    url: String,
    token: Secret,
    stop: tokio::sync::oneshot::Sender<()>,
    task: tokio::task::JoinHandle<Result<()>>,
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let arguments = Arguments::parse();
    match run(arguments).await {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<()> {
    let home = tempfile::tempdir().map_err(|cause| Error::io("making a temporary directory", cause))?;
    let files = collect(&arguments.files)?;
    println!("Everything lives in {} and is removed at the end.\n", home.path().display());

    let source = source(&home.path().join("source")).await?;
    println!(
        "1. The source has two release keys, one Ed25519 and one OpenPGP, of two owners; a bundle needs both."
    );

    let mut edges = Vec::new();
    for name in ["edge-berlin", "edge-osaka"] {
        let edge = start(home.path(), name).await?;
        source.set_edge(&EdgeRecord::new(edge.name.clone(), &edge.url), Some(&edge.token)).await?;
        println!("2. {name} serves {}", edge.url);
        edges.push(edge);
    }

    let name = BundleName::new("quickstart")?;
    let first = release(&source, &name, "1.0.0", &files, None).await?;
    let notes = format!("Version 2 of {} files. Only this file is new.\n", files.len());
    distribute(&source, &name, &first, &edges).await?;
    let second = release(&source, &name, "2.0.0", &files, Some(&notes)).await?;
    distribute(&source, &name, &second, &edges).await?;

    for status in source.status().await? {
        println!(
            "   {} proves {} of {} bundles; drift {}.",
            status.edge.name, status.proven, status.desired, status.drift
        );
        if status.drift != 0 {
            return Err(Error::new(
                ErrorKind::Mismatch,
                format!("{} did not get everything", status.edge.name),
            ));
        }
    }
    compare(&source, &name, &[first, second], &edges).await?;

    println!("\nTry it:");
    let edge = &edges[0];
    let sample = source.statement(&name, &Version::new("2.0.0")?).await?;
    let path = distedge::name::encode_path(&sample.items()[0].name());
    println!("   curl -sI {}/{path}", edge.url);
    println!("   curl -s {}/files/ | jq .", edge.url);
    println!("   curl -s {}/files/quickstart/latest/notes.txt", edge.url);
    println!("   curl -s {}/api/v1/bundles | jq .", edge.url);
    println!(
        "   curl -s {}/api/v1/bundles/quickstart/2.0.0/receipt | jq -r .payload | base64 -d | jq .",
        edge.url
    );
    if !arguments.once {
        println!("The edges run until Ctrl-C.");
        tokio::signal::ctrl_c().await.map_err(|cause| Error::io("waiting for Ctrl-C", cause))?;
    }
    for edge in edges {
        // The other end is gone only if the server has ended by itself; its result tells why.
        let _ = edge.stop.send(());
        edge.task.await.map_err(|cause| Error::new(ErrorKind::Internal, cause.to_string()))??;
    }
    Ok(())
}

/// A source with its keys: the trust document names both release keys and demands both.
async fn source(directory: &Path) -> Result<Source> {
    let source = Source::create(directory, &Tenant::new("default")?, "quickstart").await?;
    source.create_key(Role::Root, Algorithm::Ed25519, &NewKey::new("root")).await?;
    source.create_key(Role::Release, Algorithm::Ed25519, &NewKey::new("build-service")).await?;
    source.create_key(Role::Release, Algorithm::OpenPgp, &NewKey::new("release-manager")).await?;
    source.set_threshold(Role::Release, 2).await?;
    Ok(source)
}

async fn start(home: &Path, name: &str) -> Result<Running> {
    let name = NodeName::new(name)?;
    let mut options = EdgeOptions::new(name.clone())?;
    options.public = true;
    let opened = distedge::edge::open(home.join(name.as_str()), options).await?;
    let token = opened.token.ok_or_else(|| Error::new(ErrorKind::Internal, "a new edge made no token"))?;
    let server = Server::bind(ServerConfig::new(SocketAddr::from(([127, 0, 0, 1], 0))), opened.edge).await?;
    let url = format!("http://{}", server.local_addr());
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let task = tokio::spawn(server.serve(async move {
        // A dropped sender stops the server as well.
        let _ = stopped.await;
    }));
    Ok(Running { name, url, token, stop, task })
}

/// Makes and signs a version of the bundle.
async fn release(
    source: &Source,
    name: &BundleName,
    version: &str,
    files: &BTreeMap<String, PathBuf>,
    notes: Option<&str>,
) -> Result<Version> {
    let version = Version::new(version)?;
    let repository = RepositoryName::new("files")?;
    let folder = format!("quickstart/{version}");
    let options = AddOptions::default();
    let mut bytes = 0;
    for (path, file) in files {
        let path = ArtifactPath::new(&format!("{folder}/{path}"))?;
        bytes += source.add_file(&repository, &path, file, &options, &|_| {}).await?.size;
    }
    let text = notes.map_or_else(|| format!("Version 1 of {} files.\n", files.len()), str::to_owned);
    let archive = ArtifactPath::new(&format!("{folder}/quickstart-{version}.tar.gz"))?;
    bytes += source.add_bytes(&repository, &archive, tar_gz(files, &text)?, &options).await?.size;
    let notes = ArtifactPath::new(&format!("{folder}/notes.txt"))?;
    bytes += source.add_bytes(&repository, &notes, text, &options).await?.size;
    let selection = Selection::new().with_pattern(Pattern::new(&format!("files/{folder}/**"))?);
    let mut bundle = NewBundle::new(name.clone(), version.clone(), selection);
    bundle.aliases.push(NewAlias {
        repository,
        name: ArtifactPath::new("quickstart/latest")?,
        alias: "notes.txt".into(),
        target: notes,
    });
    source.create_bundle(&bundle).await?;
    let both = ["build-service".to_owned(), "release-manager".to_owned()];
    let record = source.sign_bundle(name, &version, &both).await?;
    println!(
        "\n3. Bundle {name} {version}: {} artifacts, {bytes} bytes, {} signatures.",
        record.items,
        record.signatures.len()
    );
    Ok(version)
}

async fn distribute(source: &Source, name: &BundleName, version: &Version, edges: &[Running]) -> Result<()> {
    let names: Vec<NodeName> = edges.iter().map(|edge| edge.name.clone()).collect();
    source.assign(name, version, &names).await?;
    let begun = Instant::now();
    let progress: distedge::source::ConvergeProgress = Arc::new(|edge, event| {
        if let Event::Wanted { version, blobs, bytes, .. } = event {
            println!(
                "   {edge} wants {blobs} blobs of {version}, {bytes} bytes; what it has is not sent again."
            );
        }
    });
    for outcome in source.converge(&HttpDial, &ConvergeOptions::default(), &progress).await? {
        if let Some(error) = outcome.error {
            return Err(error.context(outcome.edge));
        }
        if let Some((name, version, error)) = outcome.failed.into_iter().next() {
            return Err(error.context(format_args!("{name} {version} on {}", outcome.edge)));
        }
        println!(
            "4. {} took {} blobs, made the bundle visible at once, and signed {} receipts; all verified.",
            outcome.edge, outcome.sent_blobs, outcome.proven
        );
        println!(
            "   Sent {} bytes instead of {} ({:.1} %).",
            outcome.sent_bytes,
            outcome.whole_bytes,
            outcome.sent_bytes as f64 * 100.0 / outcome.whole_bytes.max(1) as f64
        );
        for (method, tally) in &outcome.methods {
            let how = method.as_str();
            println!("     {how:>10}: {} blobs, {} bytes for {}", tally.blobs, tally.bytes, tally.whole);
        }
    }
    if let Some((made, reused)) = source.planner().map(|planner| planner.counts()) {
        println!(
            "   So far {made} plans were made and {reused} were there already: two edges, one computation."
        );
    }
    println!("   It took {:.2} s for both edges.", begun.elapsed().as_secs_f64());
    Ok(())
}

/// Downloads every artifact of every version from every edge and compares digests.
async fn compare(source: &Source, name: &BundleName, versions: &[Version], edges: &[Running]) -> Result<()> {
    for edge in edges {
        let client =
            HttpTransport::builder(&edge.url).with_answer_timeout(Duration::from_secs(60)).build()?;
        let (mut files, mut bytes) = (0, 0);
        for version in versions {
            for item in source.statement(name, version).await?.items() {
                let path = format!("/{}", distedge::name::encode_path(&item.name()));
                let answer = client.call(Call::new(Verb::Get, &path)).await?;
                if answer.status != 200 || Digest::of(&answer.body) != item.digest {
                    let message = format!("{}{path} answers {} with other bytes", edge.url, answer.status);
                    return Err(Error::new(ErrorKind::Mismatch, message));
                }
                files += 1;
                bytes += answer.body.len();
            }
        }
        println!(
            "5. Downloaded {files} files ({bytes} bytes) from {} anonymously: every digest is equal.",
            edge.name
        );
    }
    Ok(())
}

/// An archive of the files and the notes, compressed as a build would.
fn tar_gz(files: &BTreeMap<String, PathBuf>, notes: &str) -> Result<Vec<u8>> {
    let mut tar = Vec::new();
    let mut put = |path: &str, bytes: &[u8]| {
        let mut header = [0; 512];
        let mut field = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
        // Names of more than 100 bytes need an extension of the format that shows nothing here.
        field(0, &path.as_bytes()[..path.len().min(100)]);
        field(100, b"0000644\0");
        field(124, format!("{:011o}\0", bytes.len()).as_bytes());
        field(136, b"00000000000\0        0");
        field(257, b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        tar.extend_from_slice(&header);
        tar.extend_from_slice(bytes);
        tar.resize(tar.len().next_multiple_of(512), 0);
    };
    put("NOTES", notes.as_bytes());
    for (path, file) in files {
        let bytes = std::fs::read(file)
            .map_err(|cause| Error::io(format_args!("reading {}", file.display()), cause))?;
        put(path, &bytes);
    }
    tar.resize(tar.len() + 1024, 0);
    let mut gzip = b"\x1f\x8b\x08\0\0\0\0\0\0\xff".to_vec();
    gzip.extend(miniz_oxide::deflate::compress_to_vec(&tar, 6));
    gzip.extend(crc32(&tar).to_le_bytes());
    gzip.extend((tar.len() as u32).to_le_bytes());
    Ok(gzip)
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |sum: u32, _| (sum >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(sum & 1));
    !bytes.iter().fold(u32::MAX, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), step))
}

/// The files to release, by the path they get.
fn collect(named: &[PathBuf]) -> Result<BTreeMap<String, PathBuf>> {
    let mut files = BTreeMap::new();
    if named.is_empty() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for entry in ["Cargo.toml", "Cargo.lock", "README.md", "LICENSE-MIT", "LICENSE-APACHE"] {
            files.insert(entry.to_owned(), root.join(entry));
        }
        walk(&root.join("src"), "src", &mut files)?;
        walk(&root.join("examples"), "examples", &mut files)?;
    }
    for path in named {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.ok_or_else(|| Error::invalid(format!("{} names no file", path.display())))?;
        if path.is_dir() {
            walk(path, &name, &mut files)?;
        } else if let Some(other) = files.insert(name, path.clone()) {
            let message = format!("{} and {} have the same name", other.display(), path.display());
            return Err(Error::invalid(message));
        }
    }
    Ok(files)
}

fn walk(folder: &Path, under: &str, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let failed = |cause| Error::io(format_args!("reading the directory {}", folder.display()), cause);
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = format!("{under}/{}", entry.file_name().to_string_lossy());
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() {
            walk(&entry.path(), &path, files)?;
        } else if kind.is_file() {
            files.insert(path, entry.path());
        }
    }
    Ok(())
}
