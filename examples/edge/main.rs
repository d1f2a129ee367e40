//! The reference edge server: a data directory, a configuration file, one process.
//!
//! ```text
//! cargo run --release --example edge -- --data ./edge-data --listen 127.0.0.1:8080
//! ```
//!
//! `edge.toml` beside this file shows every key of the configuration.

mod airgap;
mod audit;
mod config;
mod geo;
mod identity;
mod link;
mod maintenance;
mod policy;
mod remote;
mod section;
mod tenant;
mod token;

use std::io::{self, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use clap::{Parser, Subcommand};
use distedge::clock::SystemClock;
use distedge::edge::{self, Body, EdgeOptions, Handler, Tenants};
use distedge::error::{Error, ErrorKind};
use distedge::geo::GeoResolver;
use distedge::name::NodeName;
use distedge::server::Server;
use http::{Request, Response, StatusCode};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

use config::Config;
use policy::PolicyCommand;
use token::Destination;

/// Serves what signed release bundles bring, read-only.
#[derive(Debug, Parser)]
#[command(name = "edge", version)]
struct Arguments {
    /// The configuration file; without one, defaults and flags decide.
    #[arg(long, env = "DISTEDGE_CONFIG", value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Check the configuration, say whether it is good, and end.
    #[arg(long)]
    check_config: bool,
    /// The data directory; it is made if it is not there.
    #[arg(long, env = "DISTEDGE_DATA", value_name = "DIR", global = true)]
    data: Option<PathBuf>,
    /// The address to listen on; port 0 for any free one.
    #[arg(long, env = "DISTEDGE_LISTEN", value_name = "ADDR", value_parser = config::address)]
    listen: Option<SocketAddr>,
    /// The edge's name, as sources know it.
    #[arg(long, env = "DISTEDGE_NAME", value_name = "NAME")]
    name: Option<NodeName>,
    /// Repositories that bundles bring along may be read by anyone.
    #[arg(long, env = "DISTEDGE_PUBLIC", value_parser = clap::builder::BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    public: Option<bool>,
    /// Write a new token into this file, readable by its owner alone, instead of showing it.
    #[arg(long, env = "DISTEDGE_TOKEN_FILE", value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
    /// What to log: error, warn, info, debug, trace, or a list like "warn,distedge=debug".
    #[arg(long, env = "DISTEDGE_LOG", value_name = "LEVEL", value_parser = config::level)]
    log: Option<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Control tokens of a data directory that no edge is using.
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Take volumes that were carried here, in any order, for an edge that is not running.
    Import {
        /// The volumes.
        #[arg(required = true, value_name = "VOLUME")]
        volumes: Vec<PathBuf>,
        /// When no volume is missing, write the receipts to carry back into this file.
        #[arg(long, value_name = "FILE")]
        receipts: Option<PathBuf>,
    },
    /// Write the receipts of all that an edge holds, which is not running, for its source.
    Receipts {
        /// Where to.
        file: PathBuf,
    },
    /// The audit log: verify it offline, ask a running edge.
    Audit {
        #[command(subcommand)]
        command: audit::Command,
    },
    /// Count the downloads of a running edge.
    Downloads(audit::Downloads),
    /// Geo databases: make one, look into one.
    Geo {
        #[command(subcommand)]
        command: geo::Command,
    },
    /// Signed URLs of a running edge.
    Link {
        #[command(subcommand)]
        command: link::LinkCommand,
    },
    /// Who may do what, from where: the policy of a running edge.
    Policy {
        #[command(subcommand)]
        command: PolicyCommand,
    },
    /// Read volumes and check everything that can be checked without an edge.
    Verify {
        /// The volumes.
        #[arg(required = true, value_name = "VOLUME")]
        volumes: Vec<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token and show it once.
    New {
        /// What to call it.
        name: String,
    },
    /// Forget a token: from the next start on it opens nothing. Without any token left, that start
    /// makes a new one.
    Remove {
        /// What it is called.
        name: String,
    },
    /// List the tokens' names and when they were made.
    List,
}

/// Why it ended: one sentence, and the process's exit code.
#[derive(Debug)]
struct Failure {
    code: u8,
    sentence: String,
}

impl Failure {
    /// What was asked for makes no sense: exit code 2.
    fn usage(sentence: impl Into<String>) -> Failure {
        Failure { code: 2, sentence: sentence.into() }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { code: 1, sentence: error.to_string() }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(act(arguments)),
        Err(cause) => Err(Error::io("starting the runtime", cause).into()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // There is nobody left to tell if this fails.
            let _ = writeln!(io::stderr(), "edge: {}", failure.sentence);
            ExitCode::from(failure.code)
        }
    }
}

async fn act(arguments: Arguments) -> Result<(), Failure> {
    let config = configuration(&arguments)?;
    if arguments.check_config {
        return check(&arguments, &config).await;
    }
    let data = || {
        config.data.clone().ok_or_else(|| {
            Failure::usage("no data directory: name one as `data` in the configuration, or with --data")
        })
    };
    let file = arguments.token_file.as_deref();
    let tenant = config.tenant.clone();
    match arguments.command {
        None => serve(&config, &data()?, file).await,
        Some(Command::Import { volumes, receipts }) => {
            Ok(airgap::import(&config, &data()?, &volumes, receipts.as_deref()).await?)
        }
        Some(Command::Receipts { file }) => Ok(airgap::receipts(&config, &data()?, &file).await?),
        Some(Command::Token { command: TokenCommand::List }) => Ok(token::list(&data()?, tenant).await?),
        Some(Command::Token { command: TokenCommand::Remove { name } }) => {
            Ok(token::remove(&data()?, tenant, &name).await?)
        }
        Some(Command::Token { command: TokenCommand::New { name } }) => {
            let data = data()?;
            let to = Destination::prepare(file)?;
            Ok(token::add(&data, tenant, &name, &to).await.inspect_err(|_| to.abandon())?)
        }
        Some(Command::Verify { volumes }) => Ok(airgap::verify(&volumes)?),
        Some(Command::Geo { command }) => geo::run(&command),
        Some(Command::Audit { command }) => audit::run(&command).await,
        Some(Command::Downloads(command)) => command.run().await,
        Some(Command::Link { command }) => say(link::run(&command).await?),
        Some(Command::Policy { command }) => policy::run(command).await,
    }
}

/// The file's word, then the environment's and the flags'.
fn configuration(arguments: &Arguments) -> Result<Config, Failure> {
    let mut config = match &arguments.config {
        Some(path) => Config::read(path).map_err(Failure::usage)?,
        None => Config::new()?,
    };
    if let Some(data) = &arguments.data {
        config.data = Some(data.clone());
    }
    config.listen = arguments.listen.unwrap_or(config.listen);
    config.public = arguments.public.unwrap_or(config.public);
    if let Some(name) = &arguments.name {
        config.name = name.clone();
    }
    if let Some(level) = &arguments.log {
        config.log.level = level.clone();
    }
    Ok(config)
}

/// Everything that can be told without touching the data directory or the address.
async fn check(arguments: &Arguments, config: &Config) -> Result<(), Failure> {
    let mut elsewhere = config.server();
    elsewhere.address = SocketAddr::from(([127, 0, 0, 1], 0));
    Server::bind(elsewhere, Serving::default()).await.map_err(|error| Failure::usage(error.to_string()))?;
    config.edge()?;
    config.geo.check().map_err(|error| Failure::usage(error.to_string()))?;
    match &arguments.config {
        Some(path) => say(format_args!("{} is good", path.display())),
        None => say("the configuration is good"),
    }
}

async fn serve(config: &Config, data: &Path, token_file: Option<&Path>) -> Result<(), Failure> {
    start_log(config);
    // Before anything is made: the address must be free and the data directory possible.
    let mut signals = Signals::new()?;
    let serving = Serving::default();
    let server = Server::bind(config.server(), serving.clone()).await?;
    if data.exists() && !data.is_dir() {
        let message = format!("the data directory {} is not a directory", data.display());
        return Err(Error::new(ErrorKind::Io, message).into());
    }
    let destination = Destination::prepare(token_file)?;
    let geo = config.geo.open().inspect_err(|_| destination.abandon())?;
    let tenants = open(config, data, &destination, &geo).await.inspect_err(|_| destination.abandon())?;
    // Nothing else sets it.
    let _ = serving.0.set(tenants.clone());
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    say(format_args!("listening on {scheme}://{}", server.local_addr()))?;
    info!(name = %config.name, data = %data.display(), address = %server.local_addr(), "serving");
    let mut upkeep = JoinSet::new();
    for (tenant, edge) in tenants.iter() {
        if config.roots.is_none() && edge.receiver().trust().await?.is_none() {
            warn!(%tenant, "no [trust] roots: whoever presents a control token first names the root keys");
        }
        let directory = tenant::directory(data, tenant, &config.tenant);
        upkeep.spawn(maintenance::run(edge.clone(), directory, config.maintenance));
    }
    upkeep.spawn(identity::keep(geo, config.oidc(), config.maintenance.upkeep));
    let (stop, stopped) = oneshot::channel();
    let (cut, cutting) = oneshot::channel();
    tokio::spawn(async move {
        let signal = signals.next().await;
        info!(signal, "stopping: running requests may end");
        // The receivers are gone only when the process ends anyway.
        let _ = stop.send(());
        let signal = signals.next().await;
        warn!(signal, "running requests are cut");
        let _ = cut.send(());
    });
    tokio::select! {
        ended = server.serve(async { _ = stopped.await }) => ended?,
        _ = cutting => {}
    }
    upkeep.shutdown().await;
    for (tenant, edge) in tenants.iter() {
        if let Err(error) = edge.upkeep().await {
            warn!(%tenant, %error, "the last upkeep failed");
        }
    }
    info!("stopped");
    Ok(())
}

/// Opens every tenant's edge. A control token that is made on the way is delivered: of the first tenant
/// where the user wants it, of the others into a file beside what they have.
async fn open(
    config: &Config,
    data: &Path,
    destination: &Destination,
    geo: &Arc<dyn GeoResolver>,
) -> Result<Tenants, Failure> {
    let mut edges = Vec::new();
    let opened = edge::open(data, EdgeOptions { geo: geo.clone(), ..config.edge()? }).await?;
    match &opened.token {
        Some(token) => destination.deliver("control token", token)?,
        None => destination.abandon(),
    }
    policy::start(&opened.edge, config.policy.as_deref()).await?;
    edges.push((config.tenant.clone(), Vec::new(), opened.edge));
    for tenant in &config.tenants {
        let directory = tenant::directory(data, &tenant.name, &config.tenant);
        let opened =
            edge::open(&directory, EdgeOptions { geo: geo.clone(), ..config.edge_of(tenant)? }).await?;
        if let Some(token) = &opened.token {
            let file = directory.join("control.token");
            Destination::prepare(Some(&file))?
                .deliver(&format!("control token of the tenant {}", tenant.name), token)?;
        }
        policy::start(&opened.edge, tenant.policy.as_deref()).await?;
        edges.push((tenant.name.clone(), tenant.hosts.clone(), opened.edge));
    }
    Ok(Tenants::new(config.tenancy, edges, Arc::new(SystemClock)).await?)
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Signals, Failure> {
        let listen = |kind| signal(kind).map_err(|cause| Error::io("listening for signals", cause));
        Ok(Signals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// The edge, once it is open. The address is taken before, so that a start that fails because of
/// it leaves no data directory behind; requests wait in the listener's queue until then.
#[derive(Clone, Default)]
struct Serving(Arc<OnceLock<Tenants>>);

impl Handler for Serving {
    async fn handle(&self, request: Request<Body>, peer: SocketAddr) -> Response<Body> {
        match self.0.get() {
            Some(tenants) => tenants.handle(request, peer).await,
            None => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                response
            }
        }
    }
}

fn say(sentence: impl std::fmt::Display) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let said = writeln!(out, "{sentence}").and_then(|()| out.flush());
    Ok(said.map_err(|cause| Error::io("writing to standard output", cause))?)
}

fn start_log(config: &Config) {
    let log = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_env_filter(EnvFilter::new(&config.log.level));
    // It fails if there is a log already; there is none.
    let _ = if config.log.json { log.json().flatten_event(true).try_init() } else { log.try_init() };
}
