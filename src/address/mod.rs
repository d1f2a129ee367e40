//! The client's address: what the peer is, what its proxies say, and what of it can be believed.
//!
//! Headers that name an address are claims. [`client_address`] reads exactly one of them, from its
//! right end, and only as far as machines that the operator trusts have written it. What cannot be
//! told is [`ClientAddress::Unknown`], which every restriction refuses; it never falls back to a
//! claim further left.

mod forwarded;
pub mod proxy;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};
use crate::place::Network;

/// Most bytes of the header that names addresses, all its lines together.
pub const MAX_FIELD: usize = 8 * 1024;
/// Most lines of that header.
pub const MAX_LINES: usize = 16;

/// Where a client is, as far as it can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientAddress {
    /// At this address, in its [canonical] form.
    Known(IpAddr),
    /// It cannot be told.
    Unknown,
}

impl ClientAddress {
    /// The address, if it is known.
    pub fn known(self) -> Option<IpAddr> {
        match self {
            ClientAddress::Known(address) => Some(address),
            ClientAddress::Unknown => None,
        }
    }
}

impl From<Option<IpAddr>> for ClientAddress {
    fn from(address: Option<IpAddr>) -> ClientAddress {
        address.map_or(ClientAddress::Unknown, ClientAddress::Known)
    }
}

/// The header in which trusted proxies name their clients. Its text form is the header's name in
/// lower case, or `none`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddressHeader {
    /// None: the client is the peer of the connection.
    #[default]
    None,
    /// `X-Forwarded-For`: addresses joined by `,`; each proxy appends its peer's.
    XForwardedFor,
    /// `Forwarded` (RFC 7239), of which the `for` parameters are read.
    Forwarded,
}

impl AddressHeader {
    /// The header's name in lower case; `None` if no header is read.
    pub fn name(self) -> Option<&'static str> {
        match self {
            AddressHeader::None => None,
            AddressHeader::XForwardedFor => Some("x-forwarded-for"),
            AddressHeader::Forwarded => Some("forwarded"),
        }
    }
}

impl fmt::Display for AddressHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name().unwrap_or("none"))
    }
}

impl FromStr for AddressHeader {
    type Err = Error;

    fn from_str(text: &str) -> Result<AddressHeader> {
        match text.to_ascii_lowercase().as_str() {
            "none" => Ok(AddressHeader::None),
            "x-forwarded-for" => Ok(AddressHeader::XForwardedFor),
            "forwarded" => Ok(AddressHeader::Forwarded),
            _ => {
                let shown: String = text.chars().take(40).collect();
                Err(Error::invalid(format!(
                    "{shown:?} is no header that addresses are read from: expected none, x-forwarded-for or forwarded"
                )))
            }
        }
    }
}

impl Serialize for AddressHeader {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AddressHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<AddressHeader, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Which machines are believed when they say for whom they ask, and in which header they say it.
///
/// Name the proxies, not the network they live in: whoever is in one of these networks can claim
/// any address, and is itself never taken for a client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustedProxies {
    /// The networks of the proxies; none by default.
    #[serde(default)]
    pub networks: Vec<Network>,
    /// The header they write.
    #[serde(default)]
    pub header: AddressHeader,
}

impl TrustedProxies {
    /// Nobody is believed: the client is the peer.
    pub fn none() -> TrustedProxies {
        TrustedProxies::default()
    }

    /// Proxies in `networks` are believed about what they write in `header`.
    pub fn new(networks: Vec<Network>, header: AddressHeader) -> TrustedProxies {
        TrustedProxies { networks, header }
    }

    /// Whether `address` is one of the proxies.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(address))
    }
}

/// One hop as a header names it: `None` if it cannot be read.
type Hop = Option<IpAddr>;

/// The address of the client behind `peer`, the other end of the connection. `values` are the
/// values of the one header that `proxies` names ([`AddressHeader::name`]), in the order received.
///
/// - A peer that is no trusted proxy is the client, whatever it claims.
/// - The hops that a trusted peer names are walked from right to left as long as they are trusted
///   proxies themselves; the first one that is not is the client.
/// - The client is unknown if a hop on that walk is not a plain address (`unknown`, obfuscated,
///   empty, an address with a port outside of `Forwarded`), if the walk ends without a client, or
///   if the header has more than [`MAX_FIELD`] bytes or [`MAX_LINES`] lines.
///
/// ```
/// use distedge::address::{AddressHeader, ClientAddress, TrustedProxies, client_address};
///
/// let proxies = TrustedProxies::new(vec!["192.0.2.0/28".parse()?], AddressHeader::XForwardedFor);
/// let peer = "192.0.2.1".parse().unwrap();
/// let client = client_address(peer, [&b"10.0.0.1, 198.51.100.7"[..]], &proxies);
/// assert_eq!(client, ClientAddress::Known("198.51.100.7".parse().unwrap()));
/// # Ok::<(), distedge::error::Error>(())
/// ```
pub fn client_address<'a>(
    peer: IpAddr,
    values: impl IntoIterator<Item = &'a [u8]>,
    proxies: &TrustedProxies,
) -> ClientAddress {
    let peer = canonical(peer);
    let Some(address) = peer else { return ClientAddress::Unknown };
    if proxies.header == AddressHeader::None || !proxies.contains(address) {
        return ClientAddress::Known(address);
    }
    let mut lines = [&b""[..]; MAX_LINES];
    let (mut count, mut bytes) = (0, 0);
    for value in values {
        bytes += value.len();
        if count == MAX_LINES || bytes > MAX_FIELD {
            return ClientAddress::Unknown;
        }
        lines[count] = value;
        count += 1;
    }
    // RFC 9110 section 5.3: lines of the same name are one list, in the order received.
    let client = lines[..count].iter().rev().find_map(|line| match proxies.header {
        AddressHeader::None => None,
        AddressHeader::XForwardedFor => first_client(forwarded_for(line), proxies),
        AddressHeader::Forwarded => first_client(forwarded::hops(line).into_iter().rev(), proxies),
    });
    ClientAddress::from(client.flatten())
}

/// The first hop, from the right, that is no trusted proxy: `Some(None)` if it cannot be read.
fn first_client(mut hops: impl Iterator<Item = Hop>, proxies: &TrustedProxies) -> Option<Hop> {
    hops.find(|hop| hop.is_none_or(|address| !proxies.contains(address)))
}

/// The hops of a line of `X-Forwarded-For`, from right to left.
fn forwarded_for(line: &[u8]) -> impl Iterator<Item = Hop> + '_ {
    line.rsplit(|byte| *byte == b',').map(|hop| {
        let hop = hop.trim_ascii();
        std::str::from_utf8(hop).ok()?.parse().ok().and_then(canonical)
    })
}

/// The one form of an address that rules are written for; `None` for an address that says nothing
/// about where its user is.
///
/// | address | becomes | because |
/// | --- | --- | --- |
/// | `::ffff:a.b.c.d` | `a.b.c.d` | RFC 4291 2.5.5.2: an IPv4 address as an IPv6 socket shows it |
/// | `64:ff9b::/96` with a global IPv4 address | that IPv4 address | RFC 6052 2.1: a translator stands between, the client is at the IPv4 address |
/// | `64:ff9b::/96` with another one | unknown | RFC 6052 3.1: must not occur |
/// | `64:ff9b:1::/48` | unknown | RFC 8215: which part of it is an IPv4 address, the network decides |
/// | `2002::/16` (6to4), `2001::/32` (Teredo), `::/96` but `::1` | unknown | the client chooses what it embeds, and the tunnels are gone (RFC 7526, RFC 4291 2.5.5.1) |
///
/// Everything else stays as it is.
pub fn canonical(address: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(v6) = address else { return Some(address) };
    let [a, b, c, d, e, f, _, _] = v6.segments();
    let [.., w, x, y, z] = v6.octets();
    let embedded = Ipv4Addr::new(w, x, y, z);
    match (a, b) {
        (0, 0) if (c, d, e, f) == (0, 0, 0, 0xffff) => Some(IpAddr::V4(embedded)),
        (0, 0) if (c, d, e, f) == (0, 0, 0, 0) && v6 != Ipv6Addr::LOCALHOST => None,
        (0x64, 0xff9b) if (c, d, e, f) == (0, 0, 0, 0) => is_global(embedded).then_some(IpAddr::V4(embedded)),
        (0x64, 0xff9b) if c == 1 => None,
        (0x2002, _) | (0x2001, 0) => None,
        _ => Some(address),
    }
}

/// Whether every address of `network` is one that [`canonical`] turns into another or refuses, so
/// that a rule for it would never be met.
pub fn is_never_seen(network: &Network) -> bool {
    const NEVER: [(&str, u8); 5] =
        [("::", 96), ("64:ff9b::", 96), ("64:ff9b:1::", 48), ("2002::", 16), ("2001::", 32)];
    network.to_string() != "::1/128"
        && NEVER.iter().any(|(first, prefix)| {
            let range = format!("{first}/{prefix}").parse::<Network>();
            network.prefix() >= *prefix && range.is_ok_and(|range| range.contains(network.address()))
        })
}

/// RFC 6890: an IPv4 address that is globally reachable.
fn is_global(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(a == 0
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast()
        || a == 100 && b & 0xc0 == 64
        || (a, b, c) == (192, 0, 0)
        || a == 198 && b & 0xfe == 18
        || a >= 240)
}

#[cfg(test)]
mod tests;
