//! Geo databases on the command line: made from a list of networks, and asked.

use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use distedge::clock::{Clock as _, SystemClock};
use distedge::error::{Error, Result};
use distedge::geo::{GeoResolver as _, MaxMindGeo, StaticGeo};

use super::{Failure, say};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a database in the MaxMind DB format out of a list of networks.
    Build {
        /// The list: lines such as `192.0.2.0/24,DE`, or a JSON array of `network` and `country`.
        networks: PathBuf,
        /// The database; one that is there is replaced in one step.
        database: PathBuf,
        /// What it is to say it is.
        #[arg(long, value_name = "TYPE", default_value = "distedge-Country")]
        database_type: String,
        /// What it is to say of itself.
        #[arg(long, value_name = "TEXT", default_value = "Countries of networks")]
        description: String,
    },
    /// Verify a database from end to end, and look addresses up.
    Lookup {
        /// The database.
        database: PathBuf,
        /// The addresses.
        addresses: Vec<IpAddr>,
    },
}

pub(crate) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Build { networks, database, database_type, description } => {
            let text = std::fs::read_to_string(networks)
                .map_err(|cause| Error::io(format_args!("reading {}", networks.display()), cause))?;
            let list = StaticGeo::parse(&text).map_err(|error| error.context(networks.display()))?;
            let bytes = list.to_database(database_type, description, SystemClock.now())?;
            replace(database, &bytes)?;
            say(format_args!("{}: {} networks, {} bytes", database.display(), list.len(), bytes.len()))
        }
        Command::Lookup { database, addresses } => {
            let geo = MaxMindGeo::open(database)?;
            let state = geo.state();
            let kind = state.database_type.unwrap_or_default();
            let built = state.built.map(|built| built.to_string()).unwrap_or_default();
            say(format_args!("{}: {kind}, of {built}", database.display()))?;
            for address in addresses {
                match geo.resolve(*address).country {
                    Some(country) => say(format_args!("{address} {country}"))?,
                    None => say(format_args!("{address} unknown"))?,
                }
            }
            Ok(())
        }
    }
}

/// An edge that reads the file meanwhile sees the old one or the new one.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let draft = path.with_extension("draft");
    let what = |cause| Error::io(format_args!("writing {}", path.display()), cause);
    let mut file = std::fs::File::create(&draft).map_err(what)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(what)?;
    std::fs::rename(&draft, path).map_err(what)
}
