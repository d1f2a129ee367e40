//! The command line of a distedge source.
//!
//! Exit codes: 0 when all was done, 1 when something failed (told in one sentence on standard
//! error), 2 when the command line could not be understood.

mod acting;
mod airgap;
mod artifacts;
mod audit;
mod bundles;
mod edges;
mod keys;
mod link;
mod output;
mod people;
mod sync;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use distedge::error::{ErrorKind, Result};
use distedge::key::Algorithm;
use distedge::name::Tenant;
use distedge::source::{NewKey, Role, Source};
use serde_json::json;

use acting::{Credentials, Desk};
use output::Output;

/// Bundle, sign and distribute releases to distedge edges.
#[derive(Parser)]
#[command(name = "source", version, max_term_width = 110)]
struct Cli {
    /// The data directory.
    #[arg(
        long,
        global = true,
        env = "DISTEDGE_SOURCE_DATA",
        default_value = "distedge-source",
        value_name = "DIR"
    )]
    data: PathBuf,
    /// Print JSON instead of text.
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    by: Credentials,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Set up a source in the data directory, with a root key and a release key.
    Init(Init),
    /// Add files and directories to a repository.
    Add(artifacts::Add),
    /// List artifacts.
    #[command(visible_alias = "select")]
    List(artifacts::List),
    /// List repositories.
    Repos,
    /// Give labels to artifacts, or take them.
    Label(artifacts::Label),
    /// Set or clear properties of artifacts.
    Prop(artifacts::Prop),
    /// Remove artifacts that no bundle holds.
    Remove(artifacts::Remove),
    /// Manage the keys that sign bundles and the trust document.
    #[command(subcommand)]
    Key(keys::Key),
    /// Make, sign and inspect release bundles.
    #[command(subcommand)]
    Bundle(bundles::Bundle),
    /// Manage the edges this source knows.
    #[command(subcommand)]
    Edge(edges::Edge),
    /// Record that edges should hold a bundle, and bring it to them.
    ///
    /// Patterns of one kind are alternatives; kinds restrict each other.
    Distribute(sync::Distribute),
    /// Bring every edge to its desired state.
    #[command(visible_alias = "converge")]
    Sync(sync::Sync),
    /// Show where every edge stands; drift 0 means it proved to hold all it should.
    Status(sync::Status),
    /// Carry releases to edges that cannot be reached, as files.
    #[command(subcommand)]
    AirGap(airgap::AirGap),
    /// Witness the audit logs of edges, and verify them.
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Mint signed URLs for the edges, and take them back.
    #[command(subcommand)]
    Link(link::Link),
    /// Show or export the trust document.
    #[command(subcommand)]
    Trust(sync::Trust),
    /// Manage the tokens of the people who act here.
    #[command(subcommand)]
    Token(people::Token),
    /// Manage what they may do, and what takes two of them.
    #[command(subcommand)]
    Policy(people::Policy),
    /// Agree to distributions and withdrawals that take two people.
    #[command(subcommand)]
    Approvals(people::Approvals),
}

#[derive(Args)]
struct Init {
    /// The tenant whose bundles this source makes.
    #[arg(long, default_value = "default")]
    tenant: Tenant,
    /// The project they belong to.
    #[arg(long, default_value = "default")]
    project: String,
    /// Also make an OpenPGP release key, called `release-pgp`.
    #[arg(long)]
    openpgp: bool,
    /// Make no keys; import them later.
    #[arg(long, conflicts_with = "openpgp")]
    no_keys: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("off")),
        )
        .with_writer(std::io::stderr)
        .init();
    let output = Output::new(cli.json);
    match run(&cli, &output).await {
        Ok(code) => code,
        Err(error) => {
            output.error(&error);
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: &Cli, output: &Output) -> Result<ExitCode> {
    if let Command::Init(init) = &cli.command {
        return set_up(cli, init, output).await;
    }
    if let Command::Sync(sync) = &cli.command
        && let Some(seconds) = sync.watch
    {
        return sync.watch(cli, seconds, output).await;
    }
    if let Command::AirGap(airgap::AirGap::Verify { volumes }) = &cli.command {
        airgap::verify(volumes, output)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Command::Link(link::Link::Inspect { token }) = &cli.command {
        link::inspect(token, output)?;
        return Ok(ExitCode::SUCCESS);
    }
    let desk = open(cli, output).await?;
    let actor = &desk.actor();
    let source = actor.source();
    match &cli.command {
        Command::Init(_) => {}
        Command::Add(add) => add.run(actor, output).await?,
        Command::List(list) => list.run(source, output).await?,
        Command::Repos => artifacts::repositories(source, output).await?,
        Command::Label(label) => label.run(actor, output).await?,
        Command::Prop(prop) => prop.run(actor, output).await?,
        Command::Remove(remove) => remove.run(actor, output).await?,
        Command::Key(key) => key.run(actor, output).await?,
        Command::Bundle(bundle) => bundle.run(actor, output).await?,
        Command::Edge(edge) => edge.run(actor, output).await?,
        Command::Distribute(distribute) => return distribute.run(actor, output).await,
        Command::Sync(sync) => return sync.run(actor, output).await,
        Command::Status(status) => status.run(source, output).await?,
        Command::AirGap(air_gap) => air_gap.run(actor, output).await?,
        Command::Audit(audit) => audit.run(actor, output).await?,
        Command::Link(link) => return link.run(actor, output).await,
        Command::Trust(trust) => trust.run(actor, output).await?,
        Command::Token(token) => token.run(&desk, output).await?,
        Command::Policy(policy) => policy.run(&desk, output).await?,
        Command::Approvals(approvals) => approvals.run(&desk, output).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Opens the source, and waits a while for another command that has it open.
async fn open(cli: &Cli, output: &Output) -> Result<Desk> {
    const PAUSE: Duration = Duration::from_millis(200);
    const TURNS: u32 = 150;
    let mut turn = 0;
    let source = loop {
        match Source::open(&cli.data).await {
            Err(error) if error.kind() == ErrorKind::Conflict && turn < TURNS => {
                if turn == 5 {
                    output.note("Waiting for another command that works on this source…");
                }
                turn += 1;
                tokio::time::sleep(PAUSE).await;
            }
            opened => break opened?,
        }
    };
    Desk::open(source, &cli.data, &cli.by).await
}

async fn set_up(cli: &Cli, init: &Init, output: &Output) -> Result<ExitCode> {
    let source = Source::create(&cli.data, &init.tenant, &init.project).await?;
    let desk = Desk::open(source, &cli.data, &cli.by).await?;
    let actor = desk.actor();
    let source = actor.source();
    let mut made = Vec::new();
    if !init.no_keys {
        let mut wanted =
            vec![(Role::Root, Algorithm::Ed25519, "root"), (Role::Release, Algorithm::Ed25519, "release")];
        if init.openpgp {
            wanted.push((Role::Release, Algorithm::OpenPgp, "release-pgp"));
        }
        for (role, algorithm, alias) in wanted {
            // A second `init` finds the keys of the first.
            if source.ring(role).await?.keys.pair(alias).is_err() {
                made.push(actor.create_key(role, algorithm, &NewKey::new(alias)).await?);
            }
        }
    }
    let profile = source.profile();
    output.show(
        || json!({"data": cli.data, "profile": profile, "keys": made}),
        || {
            let mut text = format!(
                "The source of tenant {} is in {}.\n",
                profile.tenant,
                cli.data.display()
            );
            for pair in &made {
                text += &format!("Made the {} key {}, {}.\n", pair.key.algorithm(), pair.alias, pair.key.id());
            }
            text + "Keep a copy of its keys/ directory in a safe place: without the root key, edges take no new bundles."
        },
    );
    Ok(ExitCode::SUCCESS)
}
