//! Oracles of client addresses: the walk over trusted proxies, and PROXY headers.

use std::net::IpAddr;

use distedge::address::proxy::{self, Reading};
use distedge::address::{AddressHeader, ClientAddress, TrustedProxies, client_address};

/// A first byte that chooses, then bytes: of an `X-Forwarded-For` (0), of a `Forwarded` (1), lines
/// joined by LF, or of a PROXY header (2). An address left of an untrusted hop is never the client.
pub fn address(data: &[u8]) -> bool {
    let Some((way, rest)) = data.split_first() else { return false };
    match way % 3 {
        0 => forwarded_for(rest),
        1 => forwarded(rest),
        _ => proxied(rest),
    }
}

fn walk(header: AddressHeader, field: &[u8]) -> (ClientAddress, TrustedProxies) {
    let networks = ["192.0.2.0/24", "2001:db8:1::/48"].map(|network| network.parse().unwrap());
    let proxies = TrustedProxies::new(networks.to_vec(), header);
    let peer = "192.0.2.1".parse().unwrap();
    let lines = || field.split(|byte| *byte == b'\n');
    let client = client_address(peer, lines(), &proxies);
    // From a stranger the same header says nothing.
    let stranger: IpAddr = "203.0.113.9".parse().unwrap();
    assert_eq!(client_address(stranger, lines(), &proxies), ClientAddress::Known(stranger));
    if let ClientAddress::Known(address) = client {
        assert!(!proxies.contains(address), "{address} is a proxy");
        assert_eq!(address, address.to_canonical());
    }
    (client, proxies)
}

fn forwarded_for(field: &[u8]) -> bool {
    let (client, proxies) = walk(AddressHeader::XForwardedFor, field);
    let text = String::from_utf8_lossy(field);
    let hops: Vec<&str> =
        text.split(['\n', ',']).map(|hop| hop.trim_matches([' ', '\t', '\r', '\x0c'])).collect();
    let slow = if field.len() > 8 * 1024 || field.iter().filter(|byte| **byte == b'\n').count() >= 16 {
        None
    } else {
        let first = hops.iter().rev().map(|hop| hop.parse::<IpAddr>().ok().map(|hop| hop.to_canonical()));
        first.into_iter().find(|hop| hop.is_none_or(|hop| !proxies.contains(hop))).flatten()
    };
    match client {
        // Some forms of IPv6 that hold an IPv4 address stand for it, or for nothing.
        ClientAddress::Known(IpAddr::V4(_)) if matches!(slow, Some(IpAddr::V6(_))) => {}
        ClientAddress::Known(client) => assert_eq!(Some(client), slow, "{text:?}"),
        ClientAddress::Unknown => {
            let odd = slow.is_some_and(is_embedding);
            let odd_proxy = hops.iter().any(|hop| hop.parse().is_ok_and(is_embedding));
            assert!(slow.is_none() || odd || odd_proxy, "{text:?}");
        }
    }
    client != ClientAddress::Unknown
}

fn is_embedding(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => {
            let [a, b, ..] = address.segments();
            matches!((a, b), (0, 0) | (0x64, 0xff9b) | (0x2002, _) | (0x2001, 0))
        }
    }
}

fn forwarded(field: &[u8]) -> bool {
    let (client, _) = walk(AddressHeader::Forwarded, field);
    let ClientAddress::Known(address) = client else { return false };
    // Whatever a proxy further right had said would have been the client.
    for last in ["for=198.51.100.7", "for=unknown", "for=_x", "proto=http", "x"] {
        let more = [field, b"\n", last.as_bytes()].concat();
        let (client, _) = walk(AddressHeader::Forwarded, &more);
        let expected = match last {
            "for=198.51.100.7" if more.len() <= 8 * 1024 => client.known().map(|known| known.to_string()),
            _ => None,
        };
        assert_eq!(client.known().map(|known| known.to_string()), expected);
        assert!(client.known().is_none_or(|known| known.to_string() == "198.51.100.7"));
    }
    // And who claims more on the left changes nothing.
    let claimed = [&b"for=10.9.8.7\n"[..], field].concat();
    let (same, _) = walk(AddressHeader::Forwarded, &claimed);
    assert!(
        matches!(same, ClientAddress::Known(known) if known == address)
            || claimed.len() > 8 * 1024
            || many(&claimed)
    );
    true
}

fn many(field: &[u8]) -> bool {
    field.iter().filter(|byte| **byte == b'\n').count() >= 16
}

fn proxied(bytes: &[u8]) -> bool {
    let read = proxy::read(bytes);
    let length = match &read {
        Err(error) => {
            assert!(!error.message().is_empty());
            // What is refused stays refused, whatever comes after it.
            assert!(proxy::read(&[bytes, b"more"].concat()).is_err());
            return false;
        }
        Ok(Reading::Incomplete) => {
            assert!(bytes.len() < proxy::MAX_V2, "it waits for more than a header may have");
            return true;
        }
        Ok(Reading::Local { length } | Reading::Unknown { length } | Reading::Proxied { length, .. }) => {
            *length
        }
        Ok(_) => return true,
    };
    assert!(length <= bytes.len() && length <= proxy::MAX_V2);
    // The same header with nothing or with anything behind it reads the same.
    assert_eq!(proxy::read(&bytes[..length]).unwrap(), read.unwrap());
    assert_eq!(proxy::read(&bytes[..length - 1]).unwrap(), Reading::Incomplete);
    true
}
