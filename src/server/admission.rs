//! How many connections there may be, in all and from one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Limits;

/// Descriptors kept free for files and listeners.
const RESERVED_FILES: usize = 32;
/// Most connections when nothing is configured.
const MOST: usize = 8192;

#[derive(Clone, Debug)]
pub(super) struct Admission {
    counts: Arc<Mutex<Counts>>,
    total: usize,
    per_address: usize,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A connection's place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    counts: Arc<Mutex<Counts>>,
    per_address: usize,
    /// Under whose number it is; nobody's while a proxy has not told.
    address: Option<IpAddr>,
}

impl Admission {
    pub(super) fn new(limits: &Limits) -> Admission {
        Admission {
            counts: Arc::default(),
            total: limits.connections.unwrap_or_else(affordable),
            per_address: limits.connections_per_address,
        }
    }

    /// A place for a connection from `address`.
    pub(super) fn admit(&self, address: IpAddr) -> Option<Place> {
        let mut place = self.admit_proxy()?;
        place.settle(address).then_some(place)
    }

    /// A place for a connection from a proxy, which counts under nobody's number until it is
    /// [settled](Place::settle): one proxy brings the connections of many clients.
    pub(super) fn admit_proxy(&self) -> Option<Place> {
        let mut counts = lock(&self.counts);
        if counts.total >= self.total {
            tracing::debug!(total = counts.total, "a connection too many is closed");
            return None;
        }
        counts.total += 1;
        Some(Place { counts: Arc::clone(&self.counts), per_address: self.per_address, address: None })
    }
}

impl Place {
    /// Counts the connection under `address`; `false` if that has as many as it may.
    pub(super) fn settle(&mut self, address: IpAddr) -> bool {
        let address = network(address);
        let mut counts = lock(&self.counts);
        let from_here = counts.by_address.get(&address).copied().unwrap_or(0);
        if from_here >= self.per_address {
            tracing::debug!(%address, from_here, "a connection too many from one address is closed");
            return false;
        }
        counts.by_address.insert(address, from_here + 1);
        self.address = Some(address);
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        counts.total = counts.total.saturating_sub(1);
        if let Some(address) = self.address
            && let Some(from_here) = counts.by_address.get_mut(&address)
        {
            *from_here = from_here.saturating_sub(1);
            if *from_here == 0 {
                counts.by_address.remove(&address);
            }
        }
    }
}

fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One customer of an IPv6 network has at least 64 bits of addresses.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        address => address,
    }
}

/// Half of the descriptors this process may open: a connection may have a file open as well.
fn affordable() -> usize {
    let text = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let files = text
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|soft| soft.parse::<usize>().ok());
    files.map_or(MOST, |files| (files.saturating_sub(RESERVED_FILES) / 2).clamp(1, MOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_and_given_back() {
        let limits = Limits { connections: Some(3), connections_per_address: 2, ..Limits::default() };
        let admission = Admission::new(&limits);
        let one: IpAddr = "2001:db8::1".parse().unwrap();
        let neighbour: IpAddr = "2001:db8::2".parse().unwrap();
        let other: IpAddr = "192.0.2.1".parse().unwrap();
        let first = admission.admit(one).unwrap();
        let _second = admission.admit(neighbour).unwrap();
        assert!(admission.admit(one).is_none());
        let _third = admission.admit(other).unwrap();
        assert!(admission.admit("192.0.2.2".parse().unwrap()).is_none());
        drop(first);
        assert!(admission.admit(one).is_some());
        assert!(affordable() >= 1);
    }

    #[test]
    fn a_proxys_connections_count_under_their_clients() {
        let limits = Limits { connections: Some(4), connections_per_address: 1, ..Limits::default() };
        let admission = Admission::new(&limits);
        let (one, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let mut first = admission.admit_proxy().unwrap();
        let mut second = admission.admit_proxy().unwrap();
        let mut third = admission.admit_proxy().unwrap();
        assert!(first.settle(one) && second.settle(other));
        assert!(!third.settle(one));
        drop(first);
        assert!(third.settle(one));
        let _fourth = admission.admit_proxy().unwrap();
        let _fifth = admission.admit_proxy().unwrap();
        assert!(admission.admit_proxy().is_none());
        drop((second, third));
        assert!(admission.admit(one).is_some() && admission.admit(other).is_some());
    }
}
