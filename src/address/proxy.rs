//! The PROXY protocol, versions 1 and 2 (haproxy's `doc/proxy-protocol.txt`): the bytes with which
//! a proxy begins a connection to say for whom it makes it.
//!
//! Only a connection from a trusted proxy, on a listener that is set to it, may begin so. There it
//! must: the specification forbids guessing whether a header is there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::error::{Error, Result};

/// Longest header of version 1, line end included (section 2.1).
pub const MAX_V1: usize = 107;
/// Longest header of version 2 that is accepted, extensions included.
pub const MAX_V2: usize = 16 + 4096;

/// Section 2.2: the first 12 bytes of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// What the first bytes of a connection say. A length is that of the header: the client's own
/// bytes begin behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reading {
    /// A header may have begun; read on.
    Incomplete,
    /// The proxy connects for itself: the client is the peer.
    Local {
        /// Bytes of the header.
        length: usize,
    },
    /// The proxy connects for a client that it does not name: the client is unknown.
    Unknown {
        /// Bytes of the header.
        length: usize,
    },
    /// The proxy connects for this client.
    Proxied {
        /// The client.
        source: SocketAddr,
        /// Bytes of the header.
        length: usize,
    },
}

/// Reads the header at the start of `bytes`, the first bytes of a connection. Never waits for more
/// than [`MAX_V1`] or [`MAX_V2`] bytes.
///
/// # Errors
/// [`ErrorKind::Invalid`](crate::error::ErrorKind::Invalid) if no header begins there or it is
/// malformed: the connection has to be closed.
pub fn read(bytes: &[u8]) -> Result<Reading> {
    if begins(bytes, SIGNATURE) {
        return read_v2(bytes);
    }
    if begins(bytes, b"PROXY ") {
        return read_v1(bytes);
    }
    Err(bad("it does not begin with one"))
}

/// Whether as much of `bytes` as there is agrees with `start`.
fn begins(bytes: &[u8], start: &[u8]) -> bool {
    let common = bytes.len().min(start.len());
    bytes[..common] == start[..common]
}

/// Section 2.1: `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n`.
fn read_v1(bytes: &[u8]) -> Result<Reading> {
    let window = &bytes[..bytes.len().min(MAX_V1)];
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < MAX_V1 {
            Ok(Reading::Incomplete)
        } else {
            Err(bad("its line does not end"))
        };
    };
    let length = end + 2;
    let line = std::str::from_utf8(&bytes[..end]).map_err(|_| bad("its line is not text"))?;
    let mut words = line.split(' ').skip(1);
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        // The receiver must ignore anything presented before the CRLF.
        return Ok(Reading::Unknown { length });
    }
    let mut next = || words.next().ok_or_else(|| bad("its line is too short"));
    let (source, destination) = (next()?, next()?);
    let (source_port, destination_port) = (next()?, next()?);
    if words.next().is_some() {
        return Err(bad("its line is too long"));
    }
    let address = |text: &str| match family {
        "TCP4" => text.parse::<Ipv4Addr>().map(IpAddr::V4).map_err(|_| bad("an address cannot be read")),
        "TCP6" => text.parse::<Ipv6Addr>().map(IpAddr::V6).map_err(|_| bad("an address cannot be read")),
        _ => Err(bad("its family is none of TCP4, TCP6 and UNKNOWN")),
    };
    let (source, _) = (address(source)?, address(destination)?);
    let (source_port, _) = (port(source_port)?, port(destination_port)?);
    Ok(Reading::Proxied { source: SocketAddr::new(source, source_port), length })
}

/// A decimal number of 0 to 65535 without leading zeroes.
fn port(text: &str) -> Result<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain).ok_or_else(|| bad("a port cannot be read"))
}

/// Section 2.2: signature, version and command, family, length in network order, addresses,
/// extensions.
fn read_v2(bytes: &[u8]) -> Result<Reading> {
    let Some((head, rest)) = bytes.split_first_chunk::<16>() else {
        // A version or command that does not exist needs no more bytes to be refused.
        return match bytes.get(12) {
            Some(&command) if command != 0x20 && command != 0x21 => {
                Err(bad("its version or command is unknown"))
            }
            _ => Ok(Reading::Incomplete),
        };
    };
    let [.., command, family, high, low] = *head;
    let body = usize::from(u16::from_be_bytes([high, low]));
    let length = 16 + body;
    if length > MAX_V2 {
        return Err(bad("it is too long"));
    }
    if command != 0x20 && command != 0x21 {
        return Err(bad("its version or command is unknown"));
    }
    // High four bits: 0 unspecified, 1 IPv4, 2 IPv6, 3 UNIX; low four bits: 0 unspecified, 1 stream,
    // 2 datagram, which no connection here is.
    let addresses = match family {
        0x00 => 0,
        0x11 => 12,
        0x21 => 36,
        0x31 => 216,
        _ => return Err(bad("its family or protocol is not one of a stream")),
    };
    if command == 0x21 && body < addresses {
        return Err(bad("it is shorter than its addresses"));
    }
    let Some(body) = rest.get(..body) else { return Ok(Reading::Incomplete) };
    if command == 0x20 {
        // The receiver must accept this connection as valid and must use the real connection
        // endpoints and discard the protocol block including the family which is ignored.
        return Ok(Reading::Local { length });
    }
    let source = match (family, body) {
        (0x11, [a, b, c, d, _, _, _, _, high, low, ..]) => {
            SocketAddr::from(([*a, *b, *c, *d], u16::from_be_bytes([*high, *low])))
        }
        (0x21, _) => match (body.first_chunk::<16>(), body.get(32..34)) {
            (Some(address), Some(port)) => {
                SocketAddr::from((*address, u16::from_be_bytes([port[0], port[1]])))
            }
            _ => return Err(bad("it is shorter than its addresses")),
        },
        _ => return Ok(Reading::Unknown { length }),
    };
    Ok(Reading::Proxied { source, length })
}

#[cold]
fn bad(why: &str) -> Error {
    Error::invalid(format!("the connection's PROXY header cannot be read: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([command, family]);
        bytes.extend((body.len() as u16).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    fn source(text: &str, length: usize) -> Reading {
        Reading::Proxied { source: text.parse().unwrap(), length }
    }

    #[test]
    fn every_whole_header_is_read_and_every_part_of_it_is_incomplete() {
        let four = [192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 4, 1, 187];
        let mut with_extension = four.to_vec();
        with_extension.extend([0x04, 0, 3, 0, 0, 0]);
        let mut six = [0_u8; 36];
        (six[0], six[1], six[15], six[33]) = (0x20, 1, 9, 80);
        let cases = [
            (b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n".to_vec(), source("192.0.2.7:56324", 45)),
            (b"PROXY TCP6 2001:db8::7 ::1 0 65535\r\n".to_vec(), source("[2001:db8::7]:0", 36)),
            (b"PROXY UNKNOWN\r\n".to_vec(), Reading::Unknown { length: 15 }),
            (b"PROXY UNKNOWN ff::1 ff::2 1 2\r\n".to_vec(), Reading::Unknown { length: 31 }),
            (v2(0x21, 0x11, &four), source("192.0.2.7:56324", 28)),
            (v2(0x21, 0x11, &with_extension), source("192.0.2.7:56324", 34)),
            (v2(0x21, 0x21, &six), source("[2001::9]:80", 52)),
            (v2(0x20, 0x00, &[]), Reading::Local { length: 16 }),
            (v2(0x20, 0x11, &four), Reading::Local { length: 28 }),
            (v2(0x21, 0x00, &[]), Reading::Unknown { length: 16 }),
            (v2(0x21, 0x31, &[0; 216]), Reading::Unknown { length: 232 }),
        ];
        for (header, expected) in cases {
            let mut bytes = header.clone();
            bytes.extend(b"GET / HTTP/1.1\r\n");
            assert_eq!(read(&bytes).unwrap(), expected);
            for cut in 0..header.len() {
                assert_eq!(read(&header[..cut]).unwrap(), Reading::Incomplete, "{cut} of {header:?}");
            }
        }
    }

    #[test]
    fn what_is_no_header_is_refused_at_once() {
        for bad in [
            &b"G"[..],
            b"GET / HTTP/1.1\r\n",
            b"proxy TCP4",
            b"\r\n\r\nG",
            b"\x16\x03\x01",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 56324\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443 x\r\n",
            b"PROXY TCP4  192.0.2.7 198.51.100.1 56324 443\r\n",
            b"PROXY TCP4 2001:db8::7 ::1 1 2\r\n",
            b"PROXY TCP6 192.0.2.7 198.51.100.1 1 2\r\n",
            b"PROXY TCP4 192.0.2.007 198.51.100.1 1 2\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 01 2\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 +1 2\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 1 65536\r\n",
            b"PROXY UDP4 192.0.2.7 198.51.100.1 1 2\r\n",
            b"PROXY unknown\r\n",
            b"PROXY \r\n",
        ] {
            assert!(read(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
        let endless = [&b"PROXY UNKNOWN "[..], &[b'x'; MAX_V1]].concat();
        assert!(read(&endless).is_err());
        assert_eq!(read(&endless[..MAX_V1 - 1]).unwrap(), Reading::Incomplete);
        for bad in [
            v2(0x22, 0x11, &[0; 12]),
            v2(0x11, 0x11, &[0; 12]),
            v2(0x21, 0x12, &[0; 12]),
            v2(0x21, 0x11, &[0; 11]),
            v2(0x21, 0x21, &[0; 35]),
            v2(0x21, 0x41, &[0; 36]),
            v2(0x21, 0x11, &[0; MAX_V2]),
        ] {
            assert!(read(&bad).is_err(), "{bad:?}");
        }
        assert!(read(&v2(0x31, 0x11, &[])[..13]).is_err());
    }
}
