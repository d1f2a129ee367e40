//! In which country an address is: the [`GeoResolver`] port and its in-tree implementations.
//!
//! What is not known is unknown, and an error is unknown as well: a restriction by country denies
//! what is unknown, so no resolver can open a door by failing.

mod build;
#[cfg(feature = "geo")]
mod maxmind;
mod networks;
mod tree;
mod watched;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use crate::clock::Timestamp;
use crate::error::Result;
use crate::place::Country;

#[cfg(feature = "geo")]
pub use self::maxmind::{MaxMindGeo, Stale};
pub use self::networks::{NetworkFile, StaticGeo};

/// What a resolver says of an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lookup {
    /// The country in which the address is used; `None` if that is not known.
    pub country: Option<Country>,
}

impl Lookup {
    /// Nothing is known.
    pub const UNKNOWN: Lookup = Lookup { country: None };

    /// The address is used in this country, if in any that is known.
    pub fn of(country: Option<Country>) -> Lookup {
        Lookup { country }
    }
}

/// What a resolver answers from, for people who look after it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct GeoState {
    /// The file it was read from, if from one.
    pub file: Option<PathBuf>,
    /// What the file says it is: `GeoLite2-Country`.
    pub database_type: Option<String>,
    /// When its data was put together.
    pub built: Option<Timestamp>,
    /// How old the data is, in seconds.
    pub age: Option<u64>,
    /// What is wrong with it, as one sentence: the file was refused, or the data is too old.
    pub degraded: Option<String>,
}

/// Tells countries from addresses.
///
/// # Contract
/// - **Unknown is unknown**: an address that is not known, private or loopback addresses that
///   nobody entered, data that cannot be read: all are [`Lookup::UNKNOWN`], never a guess.
/// - **One address, one answer**: an IPv4-mapped IPv6 address is its IPv4 address.
/// - **Never in the way**: `resolve` waits for no disk and no network, and answers while the data
///   is being exchanged.
/// - **Bad data changes nothing**: data that is refused leaves what was there in use, and
///   [`state`](GeoResolver::state) says so.
pub trait GeoResolver: fmt::Debug + Send + Sync + 'static {
    /// Where `address` is used.
    fn resolve(&self, address: IpAddr) -> Lookup;

    /// What it answers from.
    fn state(&self) -> GeoState;

    /// Looks whether there is newer data, and takes it; `true` if it did. It costs one `stat` if
    /// there is none, and may wait for the disk for seconds if there is.
    ///
    /// # Errors
    /// Why newer data was refused, the first time it is seen.
    fn refresh(&self) -> Result<bool> {
        Ok(false)
    }
}

impl<G: GeoResolver + ?Sized> GeoResolver for Arc<G> {
    fn resolve(&self, address: IpAddr) -> Lookup {
        (**self).resolve(address)
    }

    fn state(&self) -> GeoState {
        (**self).state()
    }

    fn refresh(&self) -> Result<bool> {
        (**self).refresh()
    }
}

impl<G: GeoResolver + ?Sized> GeoResolver for Box<G> {
    fn resolve(&self, address: IpAddr) -> Lookup {
        (**self).resolve(address)
    }

    fn state(&self) -> GeoState {
        (**self).state()
    }

    fn refresh(&self) -> Result<bool> {
        (**self).refresh()
    }
}

/// Knows no country.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoGeo;

impl GeoResolver for NoGeo {
    fn resolve(&self, _address: IpAddr) -> Lookup {
        Lookup::UNKNOWN
    }

    fn state(&self) -> GeoState {
        GeoState::default()
    }
}

/// Several resolvers: the first that knows a country answers. An operator's own networks go before
/// a database of the world.
#[derive(Debug, Default)]
pub struct FirstKnown(Vec<Box<dyn GeoResolver>>);

impl FirstKnown {
    /// The resolvers in the order in which they are asked.
    pub fn new(resolvers: Vec<Box<dyn GeoResolver>>) -> FirstKnown {
        FirstKnown(resolvers)
    }
}

impl GeoResolver for FirstKnown {
    fn resolve(&self, address: IpAddr) -> Lookup {
        let known = self.0.iter().map(|resolver| resolver.resolve(address));
        known.into_iter().find(|lookup| lookup.country.is_some()).unwrap_or_default()
    }

    /// The state of the last, which knows most, and everything that is wrong with any.
    fn state(&self) -> GeoState {
        let states: Vec<GeoState> = self.0.iter().map(|resolver| resolver.state()).collect();
        let faults: Vec<&str> = states.iter().filter_map(|state| state.degraded.as_deref()).collect();
        let degraded = (!faults.is_empty()).then(|| faults.join("; "));
        GeoState { degraded, ..states.last().cloned().unwrap_or_default() }
    }

    fn refresh(&self) -> Result<bool> {
        // One bad file does not keep the others from being read.
        let (mut taken, mut fault) = (false, None);
        for resolver in &self.0 {
            match resolver.refresh() {
                Ok(newer) => taken |= newer,
                Err(error) => fault = fault.or(Some(error)),
            }
        }
        fault.map_or(Ok(taken), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(resolver: &dyn GeoResolver, address: &str) -> Option<String> {
        resolver.resolve(address.parse().unwrap()).country.map(|country| country.to_string())
    }

    #[test]
    fn without_data_everything_is_unknown() {
        for address in ["127.0.0.1", "10.0.0.1", "8.8.8.8", "::1", "2001:db8::1", "::ffff:8.8.8.8"] {
            assert_eq!(at(&NoGeo, address), None);
            assert_eq!(at(&FirstKnown::default(), address), None);
        }
        assert_eq!(NoGeo.state(), GeoState::default());
        assert!(!NoGeo.refresh().unwrap());
    }

    #[test]
    fn own_networks_go_before_the_world() {
        let own = StaticGeo::parse("10.0.0.0/8,DE\n8.8.8.0/24,FR\n").unwrap();
        let world = StaticGeo::parse("8.0.0.0/8,US\n").unwrap();
        let both = FirstKnown::new(vec![Box::new(own), Box::new(Arc::new(world))]);
        assert_eq!(at(&both, "10.1.2.3").as_deref(), Some("DE"));
        assert_eq!(at(&both, "8.8.8.8").as_deref(), Some("FR"));
        assert_eq!(at(&both, "8.1.1.1").as_deref(), Some("US"));
        assert_eq!(at(&both, "9.9.9.9"), None);
        assert_eq!(both.state().degraded, None);
    }
}
