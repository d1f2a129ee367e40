//! Sets of addresses and countries that answer in a few steps, however large they are.

use std::net::IpAddr;

use crate::place::{Country, Network};

/// A set of addresses: disjoint intervals in order.
///
/// A look-up is a binary search among the intervals of one family: 14 steps in 10,000.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AddressSet {
    v4: Intervals<u32>,
    v6: Intervals<u128>,
}

impl AddressSet {
    /// Every address of both families.
    pub(super) fn any() -> AddressSet {
        AddressSet {
            v4: Intervals { first: vec![0], last: vec![u32::MAX] },
            v6: Intervals { first: vec![0], last: vec![u128::MAX] },
        }
    }

    /// The addresses of `networks`.
    pub(super) fn new<'a>(networks: impl IntoIterator<Item = &'a Network>) -> AddressSet {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            let prefix = u32::from(network.prefix());
            match network.address() {
                IpAddr::V4(first) => {
                    let first = u32::from(first);
                    v4.push((first, first | u32::MAX.checked_shr(prefix).unwrap_or(0)));
                }
                IpAddr::V6(first) => {
                    let first = u128::from(first);
                    v6.push((first, first | u128::MAX.checked_shr(prefix).unwrap_or(0)));
                }
            }
        }
        AddressSet { v4: Intervals::new(v4), v6: Intervals::new(v6) }
    }

    /// Whether `address`, in its canonical form, is in the set.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => self.v4.contains(u32::from(address)),
            IpAddr::V6(address) => self.v6.contains(u128::from(address)),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Intervals<T> {
    first: Vec<T>,
    /// The last member of each interval, which lies in it.
    last: Vec<T>,
}

impl<T: Copy + Ord> Intervals<T> {
    fn new(mut intervals: Vec<(T, T)>) -> Intervals<T> {
        intervals.sort_unstable();
        let (mut firsts, mut lasts): (Vec<T>, Vec<T>) = (Vec::new(), Vec::new());
        for (first, last) in intervals {
            match lasts.last_mut() {
                Some(previous) if first <= *previous => *previous = (*previous).max(last),
                _ => {
                    firsts.push(first);
                    lasts.push(last);
                }
            }
        }
        Intervals { first: firsts, last: lasts }
    }

    fn contains(&self, value: T) -> bool {
        let behind = self.first.partition_point(|first| *first <= value);
        behind > 0 && value <= self.last[behind - 1]
    }
}

/// A set of countries: one bit for each pair of letters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CountrySet([u64; 11]);

impl CountrySet {
    pub(super) fn new(countries: &[Country]) -> CountrySet {
        let mut set = CountrySet::default();
        for country in countries {
            let (word, bit) = place(*country);
            set.0[word] |= bit;
        }
        set
    }

    pub(super) fn contains(&self, country: Country) -> bool {
        let (word, bit) = place(country);
        self.0[word] & bit != 0
    }
}

fn place(country: Country) -> (usize, u64) {
    let [a, b] = country.letters();
    let at = usize::from(a - b'A') * 26 + usize::from(b - b'A');
    (at / 64, 1 << (at % 64))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_pair_of_letters_is_a_country_of_its_own() {
        let letters = || (b'A'..=b'Z').map(char::from);
        let all: Vec<Country> =
            letters().flat_map(|a| letters().map(move |b| format!("{a}{b}").parse().unwrap())).collect();
        for country in &all {
            let set = CountrySet::new(&[*country]);
            assert_eq!(all.iter().filter(|other| set.contains(**other)).count(), 1);
            assert!(set.contains(*country));
        }
    }

    #[test]
    fn every_address_is_in_any() {
        for address in ["0.0.0.0", "255.255.255.255", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"] {
            assert!(AddressSet::any().contains(address.parse().unwrap()));
            assert!(!AddressSet::new([]).contains(address.parse().unwrap()));
        }
    }

    fn network() -> impl Strategy<Value = Network> {
        // Few bits differ, so that networks lie in each other and addresses in networks.
        let v4 = (any::<u32>(), 0_u32..=32).prop_map(|(bits, prefix)| {
            let bits = bits & 0x0300_0103 & u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
            format!("{}/{prefix}", std::net::Ipv4Addr::from(bits)).parse().unwrap()
        });
        let v6 = (any::<u128>(), 0_u32..=128).prop_map(|(bits, prefix)| {
            let bits = bits & (3 << 126 | 3 << 62 | 3) & u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
            format!("{}/{prefix}", std::net::Ipv6Addr::from(bits)).parse().unwrap()
        });
        prop_oneof![v4, v6]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn a_set_contains_what_its_networks_contain(
            networks in prop::collection::vec(network(), 0..12),
            v4 in any::<u32>(),
            v6 in any::<u128>(),
        ) {
            let set = AddressSet::new(&networks);
            let v4 = IpAddr::from((v4 & 0x0300_0103).to_be_bytes());
            let v6 = IpAddr::from((v6 & (3 << 126 | 3 << 62 | 3)).to_be_bytes());
            let ends = networks.iter().map(Network::address);
            for address in [v4, v6].into_iter().chain(ends) {
                let slow = networks.iter().any(|network| network.contains(address));
                prop_assert_eq!(set.contains(address), slow, "{}", address);
            }
        }
    }
}
