//! Geo databases: what is verified can be asked anything.

use std::net::{IpAddr, Ipv4Addr};

use distedge::geo::{GeoResolver as _, MaxMindGeo};

/// A database; some of its bytes are addresses to look up.
pub fn mmdb(data: &[u8]) -> bool {
    let Ok(geo) = MaxMindGeo::from_bytes(data.to_vec()) else { return false };
    let fixed = ["0.0.0.0", "127.0.0.1", "192.0.2.1", "255.255.255.255", "::", "::1", "2001:db8::1"];
    let fixed = fixed.iter().filter_map(|address| address.parse().ok());
    let own = data.chunks_exact(16).map(|chunk| {
        let bytes: [u8; 16] = chunk.try_into().unwrap_or_default();
        IpAddr::from(bytes)
    });
    for address in fixed.chain(own.take(500)) {
        let country = geo.resolve(address).country;
        assert_eq!(country, geo.resolve(address).country, "{address}");
        if let Some(country) = country {
            assert!(country.letters().iter().all(u8::is_ascii_uppercase), "{address}: {country}");
        }
        let IpAddr::V6(address) = address else { continue };
        // An IPv4 address has one answer however it is written.
        let v4 = Ipv4Addr::from(address.octets()[12..].first_chunk::<4>().copied().unwrap_or_default());
        let mapped = geo.resolve(v4.to_ipv6_mapped().into());
        assert_eq!(geo.resolve(v4.into()), mapped, "{v4}");
    }
    let state = geo.state();
    assert!(state.built.is_some() && state.database_type.is_some() && state.degraded.is_none());
    true
}
