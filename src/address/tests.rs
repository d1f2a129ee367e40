use super::*;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn known(text: &str) -> ClientAddress {
    ClientAddress::Known(address(text))
}

fn trusting(header: AddressHeader) -> TrustedProxies {
    let networks = ["192.0.2.0/24", "2001:db8:1::/48"].map(|network| network.parse().unwrap());
    TrustedProxies::new(networks.to_vec(), header)
}

fn walk(header: AddressHeader, peer: &str, lines: &[&str]) -> ClientAddress {
    client_address(address(peer), lines.iter().map(|line| line.as_bytes()), &trusting(header))
}

fn x_forwarded_for(lines: &[&str]) -> ClientAddress {
    walk(AddressHeader::XForwardedFor, "192.0.2.1", lines)
}

fn forwarded(lines: &[&str]) -> ClientAddress {
    walk(AddressHeader::Forwarded, "192.0.2.1", lines)
}

#[test]
fn a_peer_that_is_no_proxy_claims_in_vain() {
    // C01, C09.
    for header in [AddressHeader::XForwardedFor, AddressHeader::Forwarded, AddressHeader::None] {
        for claim in ["10.0.0.1", "for=10.0.0.1", "unknown", ""] {
            assert_eq!(walk(header, "198.51.100.7", &[claim]), known("198.51.100.7"));
        }
    }
    // C05: without a configured header nobody is asked.
    assert_eq!(walk(AddressHeader::None, "192.0.2.1", &["10.0.0.1"]), known("192.0.2.1"));
}

#[test]
fn the_walk_goes_from_the_right_and_stops_at_the_first_stranger() {
    // C02, C03.
    assert_eq!(x_forwarded_for(&["10.0.0.1, 198.51.100.7"]), known("198.51.100.7"));
    assert_eq!(x_forwarded_for(&["10.0.0.1", "198.51.100.7"]), known("198.51.100.7"));
    assert_eq!(x_forwarded_for(&["10.0.0.1,198.51.100.7 ,\t192.0.2.9"]), known("198.51.100.7"));
    assert_eq!(x_forwarded_for(&["10.0.0.1,198.51.100.7", "192.0.2.9"]), known("198.51.100.7"));
    assert_eq!(x_forwarded_for(&["garbage, 198.51.100.7"]), known("198.51.100.7"), "left of the client");
    assert_eq!(x_forwarded_for(&["::ffff:10.0.0.1"]), known("10.0.0.1"));
    assert_eq!(x_forwarded_for(&["2001:db8:2::1, 2001:db8:1::9"]), known("2001:db8:2::1"));
    assert_eq!(forwarded(&["for=10.0.0.1, for=198.51.100.7;by=203.0.113.43"]), known("198.51.100.7"));
    assert_eq!(forwarded(&["for=10.0.0.1", "proto=https; FOR=198.51.100.7"]), ClientAddress::Unknown);
    assert_eq!(forwarded(&["for=10.0.0.1", "proto=https;FOR=198.51.100.7"]), known("198.51.100.7"));
    assert_eq!(forwarded(&["for=\"[2001:db8:cafe::17]:4711\", for=192.0.2.9"]), known("2001:db8:cafe::17"));
    assert_eq!(forwarded(&["for=\"198.51.100.7:_p-1\""]), known("198.51.100.7"));
    assert_eq!(forwarded(&["for=\"198.\\51.100.7\""]), known("198.51.100.7"), "a quoted pair");
    assert_eq!(walk(AddressHeader::XForwardedFor, "::ffff:192.0.2.1", &["10.0.0.1"]), known("10.0.0.1"));
}

#[test]
fn a_hop_that_cannot_be_read_is_unknown_and_not_the_one_further_left() {
    // C04.
    let long = format!("10.0.0.1{}", ", 192.0.2.9".repeat(1000));
    let filler = format!("10.0.0.1, {}198.51.100.7", " ".repeat(10_000));
    for line in [
        "unknown",
        "1.2.3.4:99",
        "[::1]:80",
        "[::1]",
        "1.2.3.4,,",
        "1.2.3.4,",
        "",
        ",",
        "_hidden",
        "10.0.0.1, 198.51.100.07",
        "10.0.0.1, 198.51.100",
        "10.0.0.1, fe80::1%eth0",
        "10.0.0.1, 198.51.100.7 x",
        "10.0.0.1, \u{e9}",
        "10.0.0.1, unknown, 192.0.2.9",
        "10.0.0.1, 2002:c633:6407::1",
        &long,
        &filler,
    ] {
        assert_eq!(x_forwarded_for(&[line]), ClientAddress::Unknown, "{line}");
    }
    for line in [
        "for=unknown",
        "for=_hidden",
        "for=10.0.0.1, for=unknown",
        "for=10.0.0.1, for=2001:db8:cafe::17",
        "for=10.0.0.1, for=\"2001:db8:cafe::17\"",
        "for=10.0.0.1, for=\"[198.51.100.7]\"",
        "for=10.0.0.1, for=\"198.51.100.7:123456\"",
        "for=10.0.0.1, for=\"198.51.100.7:\"",
        "for=10.0.0.1, by=198.51.100.7",
        "for=10.0.0.1, for=198.51.100.7;for=10.0.0.2",
        "for=10.0.0.1, for=\"198.51.100.7",
        "for=10.0.0.1;by=\", for=\"[2001:db8:cafe::17]\"",
        "for=10.0.0.1, for = 198.51.100.7",
        "for=10.0.0.1,",
        "for=10.0.0.1, for",
        "10.0.0.1",
        "",
    ] {
        assert_eq!(forwarded(&[line]), ClientAddress::Unknown, "{line}");
    }
    let lines = vec!["10.0.0.1"; MAX_LINES + 1];
    assert_eq!(x_forwarded_for(&lines), ClientAddress::Unknown);
}

#[test]
fn a_walk_that_ends_among_proxies_knows_no_client() {
    assert_eq!(x_forwarded_for(&[]), ClientAddress::Unknown);
    assert_eq!(x_forwarded_for(&["192.0.2.8, 192.0.2.9"]), ClientAddress::Unknown);
    assert_eq!(forwarded(&[]), ClientAddress::Unknown);
    assert_eq!(forwarded(&["for=192.0.2.8", "for=192.0.2.9"]), ClientAddress::Unknown);
}

#[test]
fn embedded_addresses_have_one_reading_or_none() {
    for (text, expected) in [
        ("::ffff:10.0.0.1", Some("10.0.0.1")),
        ("64:ff9b::8.8.8.8", Some("8.8.8.8")),
        ("64:ff9b::10.0.0.1", None),
        ("64:ff9b::127.0.0.1", None),
        ("64:ff9b::100.64.0.1", None),
        ("64:ff9b:1::8.8.8.8", None),
        ("64:ff9b:2::8.8.8.8", Some("64:ff9b:2::808:808")),
        ("2002:a00:1::1", None),
        ("2001::1", None),
        ("2001:db8::1", Some("2001:db8::1")),
        ("::10.0.0.1", None),
        ("::", None),
        ("::1", Some("::1")),
        ("10.0.0.1", Some("10.0.0.1")),
    ] {
        assert_eq!(canonical(address(text)), expected.map(address), "{text}");
    }
    for (network, never) in [
        ("64:ff9b::/96", true),
        ("64:ff9b:1:2::/64", true),
        ("2002::/16", true),
        ("2002:a00::/24", true),
        ("::1/128", false),
        ("::/0", false),
        ("::/96", true),
        ("2000::/3", false),
        ("10.0.0.0/8", false),
    ] {
        assert_eq!(is_never_seen(&network.parse().unwrap()), never, "{network}");
    }
}

#[test]
fn the_header_is_one_of_three() {
    for text in ["none", "x-forwarded-for", "forwarded"] {
        assert_eq!(text.parse::<AddressHeader>().unwrap().to_string(), text);
    }
    assert!("x-real-ip".parse::<AddressHeader>().is_err());
    let read: TrustedProxies =
        serde_json::from_str(r#"{"networks":["10.0.0.0/8"],"header":"forwarded"}"#).unwrap();
    assert_eq!(read.header, AddressHeader::Forwarded);
    assert!(serde_json::from_str::<TrustedProxies>(r#"{"network":[]}"#).is_err());
}
