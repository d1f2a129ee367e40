//! Databases in the MaxMind DB format: GeoLite2, GeoIP2, DB-IP, and what
//! [`StaticGeo::to_database`](super::StaticGeo::to_database) writes.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use maxminddb::{PathElement, Reader, WithinOptions};

use super::watched::Watched;
use super::{GeoResolver, GeoState, Lookup};
use crate::blocking;
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::place::Country;

/// Longest database, in bytes. It is held in memory.
const MAX_FILE: u64 = 1 << 30;

/// How far the clocks of the one who built a database and of this node may differ, in seconds.
const AHEAD: i64 = 86_400;

/// Codes that databases use where they know no country: two of continents' size, and two that ISO
/// 3166-1 leaves to users.
const NO_COUNTRY: [&str; 4] = ["AP", "EU", "XX", "ZZ"];

/// Where a record says in which country its addresses are used. `registered_country`, where the
/// network was assigned, and `represented_country` are other things: they would turn an unknown
/// place, which restrictions deny, into a known one.
const COUNTRY: [PathElement<'static>; 2] = [PathElement::Key("country"), PathElement::Key("iso_code")];

/// What a database is worth that is older than the limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stale {
    /// Nothing: every look-up is unknown, and restricted content is denied.
    #[default]
    Deny,
    /// It answers all the same, and the state says that it is too old.
    Serve,
}

/// A database in the MaxMind DB format, held in memory and exchanged as a whole.
///
/// A file is verified from end to end before it is used, and must tell countries. One that is
/// refused leaves the database before it in use; [`state`](GeoResolver::state) says why. Nothing that
/// happens to the file in place can reach the database that is in use.
#[derive(Debug)]
pub struct MaxMindGeo {
    file: Watched<Database>,
    max_age: Option<Duration>,
    stale: Stale,
    clock: Arc<dyn Clock>,
}

#[derive(Debug)]
struct Database {
    reader: Reader<Vec<u8>>,
    built: Timestamp,
}

impl MaxMindGeo {
    /// Opens the database in the file `path`, of any age.
    ///
    /// # Errors
    /// Why the file cannot be used, with its name: [`ErrorKind::Corrupted`] if it is damaged,
    /// [`ErrorKind::Unsupported`] if it tells no countries, [`ErrorKind::Io`] if it cannot be read.
    pub fn open(path: impl Into<PathBuf>) -> Result<MaxMindGeo> {
        let geo = MaxMindGeo::watch(path);
        geo.reload()?;
        Ok(geo)
    }

    /// The database in the file `path` from the first [`refresh`](GeoResolver::refresh) at which it
    /// is good. Until then everything is unknown, and the state says why.
    pub fn watch(path: impl Into<PathBuf>) -> MaxMindGeo {
        MaxMindGeo::of(Watched::new(path, MAX_FILE))
    }

    /// The database that these bytes are, for as long as this lives.
    ///
    /// # Errors
    /// As [`MaxMindGeo::open`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<MaxMindGeo> {
        Database::verified(bytes).map(|database| MaxMindGeo::of(Watched::fixed(database)))
    }

    fn of(file: Watched<Database>) -> MaxMindGeo {
        MaxMindGeo { file, max_age: None, stale: Stale::default(), clock: Arc::new(SystemClock) }
    }

    /// The same database, which is too old after `max_age`.
    #[must_use]
    pub fn with_max_age(mut self, max_age: Duration, stale: Stale) -> MaxMindGeo {
        (self.max_age, self.stale) = (Some(max_age), stale);
        self
    }

    /// The same database, its age told by `clock`.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> MaxMindGeo {
        self.clock = clock;
        self
    }

    /// Reads the file again, whether it looks otherwise or not. It may wait for the disk.
    ///
    /// # Errors
    /// As [`MaxMindGeo::open`]; the database before it stays in use.
    pub fn reload(&self) -> Result<()> {
        self.file.reload(Database::verified)
    }

    /// [`refresh`](GeoResolver::refresh) off the async workers.
    ///
    /// # Errors
    /// As [`MaxMindGeo::open`], once for each file that is refused.
    pub async fn upkeep(self: Arc<MaxMindGeo>) -> Result<bool> {
        blocking::run(move || self.refresh()).await
    }

    /// Why the database is too old for the limit at `now`, if it is.
    fn too_old(&self, built: Timestamp, now: Timestamp) -> Option<String> {
        let limit = i64::try_from(self.max_age?.as_secs()).unwrap_or(i64::MAX);
        if built > now.plus(AHEAD) {
            // It would stay young for as long as its builder liked.
            return Some(format!("the geo database says it is from the future, {built}"));
        }
        let old = built.plus(limit) < now;
        old.then(|| format!("the geo database is of {built}, more than {} days old", limit / 86_400))
    }
}

impl GeoResolver for MaxMindGeo {
    fn resolve(&self, address: IpAddr) -> Lookup {
        let country = self.file.with(|database| {
            let denied = self.max_age.is_some()
                && self.stale == Stale::Deny
                && self.too_old(database.built, self.clock.now()).is_some();
            if denied { None } else { database.country(address) }
        });
        Lookup::of(country.flatten())
    }

    fn state(&self) -> GeoState {
        let mut state = GeoState { file: self.file.path().map(Path::to_owned), ..GeoState::default() };
        let Some(database) = self.file.current() else {
            let why = self.file.fault();
            state.degraded = Some(why.unwrap_or_else(|| "no geo database has been read yet".into()));
            return state;
        };
        let now = self.clock.now();
        state.database_type = Some(database.reader.metadata().database_type.clone());
        state.built = Some(database.built);
        state.age = u64::try_from(now.as_unix() - database.built.as_unix()).ok();
        let kept = |why| format!("{why}; the geo database of {} stays in use", database.built);
        let refused = self.file.fault().map(kept);
        let faults: Vec<String> = refused.into_iter().chain(self.too_old(database.built, now)).collect();
        state.degraded = (!faults.is_empty()).then(|| faults.join("; "));
        state
    }

    fn refresh(&self) -> Result<bool> {
        self.file.refresh(Database::verified)
    }
}

impl Database {
    fn verified(bytes: Vec<u8>) -> Result<Database> {
        // Opening a database looks at its metadata alone: it takes damaged ones.
        let reader = Reader::from_source(bytes).map_err(|cause| damaged(&cause))?;
        reader.verify().map_err(|cause| damaged(&cause))?;
        let built = i64::try_from(reader.metadata().build_epoch).unwrap_or(i64::MAX);
        let database = Database { reader, built: Timestamp::from_unix(built) };
        if !database.tells_countries() {
            let kind = database.reader.metadata().database_type.chars().take(80).collect::<String>();
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("the database, of type {kind:?}, has a country.iso_code in no record"),
            ));
        }
        Ok(database)
    }

    /// Verifying has bounded how many networks there are.
    fn tells_countries(&self) -> bool {
        let Ok(networks) = self.reader.networks(WithinOptions::default()) else { return false };
        networks.flatten().any(|network| country_of(&network).is_some())
    }

    fn country(&self, address: IpAddr) -> Option<Country> {
        country_of(&self.reader.lookup(address.to_canonical()).ok()?)
    }
}

/// The value has one type: values of any type nest as deep as the file likes.
fn country_of(found: &maxminddb::LookupResult<'_, Vec<u8>>) -> Option<Country> {
    let code: &str = found.decode_path(&COUNTRY).ok()??;
    if NO_COUNTRY.contains(&code) { None } else { code.parse().ok() }
}

#[cold]
fn damaged(cause: &maxminddb::MaxMindDbError) -> Error {
    let cause: String = cause.to_string().chars().take(300).collect();
    Error::new(ErrorKind::Corrupted, format!("the geo database is damaged: {cause}"))
}

#[cfg(test)]
mod tests;
