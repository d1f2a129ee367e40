//! `Forwarded` (RFC 7239): the hops of one line.

use std::net::IpAddr;

use super::{Hop, canonical};

/// The hops of a line, from left to right. A line that does not follow the grammar is one hop that
/// cannot be read: where its elements begin and end is anybody's guess.
pub(super) fn hops(line: &[u8]) -> Vec<Hop> {
    Reader { rest: line }.elements().unwrap_or_else(|| vec![None])
}

/// RFC 7239 section 4:
///
/// ```text
/// Forwarded         = 1#forwarded-element
/// forwarded-element = [ forwarded-pair ] *( ";" [ forwarded-pair ] )
/// forwarded-pair    = token "=" value
/// value             = token / quoted-string
/// ```
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn elements(mut self) -> Option<Vec<Hop>> {
        let mut hops = Vec::new();
        loop {
            self.skip_space();
            hops.push(self.element()?);
            self.skip_space();
            match self.next() {
                None => return Some(hops),
                Some(b',') => {}
                Some(_) => return None,
            }
        }
    }

    /// One element: the address that its `for` names.
    fn element(&mut self) -> Option<Hop> {
        let (mut hop, mut named) = (None, false);
        loop {
            if !matches!(self.rest.first(), None | Some(b',' | b';' | b' ' | b'\t')) {
                let name = self.token()?;
                if self.next() != Some(b'=') {
                    return None;
                }
                let value = self.value()?;
                if name.eq_ignore_ascii_case(b"for") {
                    // Each parameter MUST NOT occur more than once per field-value.
                    hop = if named { None } else { node(&value) };
                    named = true;
                }
            }
            match self.rest.first() {
                Some(b';') => self.rest = &self.rest[1..],
                _ => return Some(hop),
            }
        }
    }

    fn value(&mut self) -> Option<Vec<u8>> {
        if self.rest.first() != Some(&b'"') {
            return self.token().map(<[u8]>::to_vec);
        }
        self.rest = &self.rest[1..];
        let mut value = Vec::new();
        loop {
            match self.next()? {
                b'"' => return Some(value),
                b'\\' => value.push(self.next()?),
                byte => value.push(byte),
            }
        }
    }

    /// RFC 9110 section 5.6.2: token = 1*tchar.
    fn token(&mut self) -> Option<&'a [u8]> {
        let is_tchar = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        let length = self.rest.iter().take_while(|byte| is_tchar(byte)).count();
        let (token, rest) = self.rest.split_at(length);
        self.rest = rest;
        (!token.is_empty()).then_some(token)
    }

    fn skip_space(&mut self) {
        while let [b' ' | b'\t', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }
}

/// RFC 7239 section 6: the address of a node; `None` for `unknown`, an obfuscated name and all
/// that is no node.
///
/// ```text
/// node      = nodename [ ":" node-port ]
/// nodename  = IPv4address / "[" IPv6address "]" / "unknown" / obfnode
/// node-port = port / obfport
/// ```
fn node(value: &[u8]) -> Hop {
    let text = std::str::from_utf8(value).ok()?;
    let (address, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            (IpAddr::V6(address.parse().ok()?), port)
        }
        None => {
            let at = text.find(':').unwrap_or(text.len());
            (IpAddr::V4(text[..at].parse().ok()?), &text[at..])
        }
    };
    if port.is_empty() || is_port(port.strip_prefix(':')?) { canonical(address) } else { None }
}

/// RFC 7239 section 6: port = 1*5DIGIT, obfport = "_" 1*(ALPHA / DIGIT / "." / "_" / "-").
fn is_port(text: &str) -> bool {
    match text.strip_prefix('_') {
        Some(name) => {
            !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        }
        None => (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()),
    }
}
