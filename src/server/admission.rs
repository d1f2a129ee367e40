//! How many connections there may be, in all and from one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

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
    address: IpAddr,
}

impl Admission {
    pub(super) fn new(limits: &Limits) -> Admission {
        Admission {
            counts: Arc::default(),
            total: limits.connections.unwrap_or_else(affordable),
            per_address: limits.connections_per_address,
        }
    }

    pub(super) fn admit(&self, address: IpAddr) -> Option<Place> {
        let address = network(address);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let from_here = counts.by_address.get(&address).copied().unwrap_or(0);
        if counts.total >= self.total || from_here >= self.per_address {
            tracing::debug!(%address, total = counts.total, from_here, "a connection too many is closed");
            return None;
        }
        counts.total += 1;
        counts.by_address.insert(address, from_here + 1);
        Some(Place { counts: Arc::clone(&self.counts), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.total = counts.total.saturating_sub(1);
        if let Some(from_here) = counts.by_address.get_mut(&self.address) {
            *from_here = from_here.saturating_sub(1);
            if *from_here == 0 {
                counts.by_address.remove(&self.address);
            }
        }
    }
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
}
