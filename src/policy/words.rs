//! The words of a policy document.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::read::check_name;
use crate::access::UseCase;
use crate::address::is_never_seen;
use crate::error::{Error, Result};
use crate::name::NodeName;
use crate::place::Network;
use crate::window::Window;

macro_rules! text_serialize {
    ($name:ty) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

/// Whom a rule is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Selector {
    /// `anonymous`: whoever presents no credentials.
    Anonymous,
    /// `authenticated`: every user and every service account, and the control token.
    Authenticated,
    /// `user:NAME`.
    User(String),
    /// `service:NAME`.
    Service(String),
    /// `group:NAME`: the members that the policy names, and whoever's credentials name the group.
    Group(String),
    /// `peer:NAME`: a paired service.
    Peer(NodeName),
    /// `use-case:NAME`: every service paired for it.
    UseCase(UseCase),
    /// `link`: every holder of a signed URL. Only restrictions can be about them: what a link
    /// opens, it says itself.
    Link,
}

impl FromStr for Selector {
    type Err = Error;

    fn from_str(text: &str) -> Result<Selector> {
        let name = |name: &str| match check_principal(name) {
            Ok(()) => Ok(name.to_owned()),
            Err(why) => Err(Error::invalid(why)),
        };
        match text.split_once(':') {
            None if text == "anonymous" => Ok(Selector::Anonymous),
            None if text == "authenticated" => Ok(Selector::Authenticated),
            None if text == "link" => Ok(Selector::Link),
            Some(("user", rest)) => name(rest).map(Selector::User),
            Some(("service", rest)) => name(rest).map(Selector::Service),
            Some(("group", rest)) => match check_name(rest) {
                Ok(()) => Ok(Selector::Group(rest.to_owned())),
                Err(why) => Err(Error::invalid(why)),
            },
            Some(("peer", rest)) => rest.parse().map(Selector::Peer),
            Some(("use-case", rest)) => rest.parse().map(Selector::UseCase),
            _ => Err(bad(
                text,
                "somebody: expected anonymous, authenticated, user:NAME, service:NAME, group:NAME, peer:NAME or use-case:NAME",
            )),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selector::Anonymous => f.write_str("anonymous"),
            Selector::Authenticated => f.write_str("authenticated"),
            Selector::User(name) => write!(f, "user:{name}"),
            Selector::Service(name) => write!(f, "service:{name}"),
            Selector::Group(name) => write!(f, "group:{name}"),
            Selector::Peer(name) => write!(f, "peer:{name}"),
            Selector::UseCase(case) => write!(f, "use-case:{case}"),
            Selector::Link => f.write_str("link"),
        }
    }
}

text_serialize!(Selector);

/// Names of persons come from identity providers: `alice`, `alice@example.com`, `https://…#7`.
fn check_principal(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > 256 || name.trim() != name || name.chars().any(char::is_control) {
        let shown: String = name.chars().take(80).collect();
        return Err(format!("{shown:?} is not the name of a principal"));
    }
    Ok(())
}

/// Addresses that a restriction is about.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Net {
    /// `any`: every address, of IPv4 and IPv6, that is known.
    Any,
    /// A network in CIDR notation, or one address.
    Network(Network),
    /// The name of a list under `[networks]`.
    List(String),
}

impl FromStr for Net {
    type Err = Error;

    fn from_str(text: &str) -> Result<Net> {
        if text == "any" {
            return Ok(Net::Any);
        }
        let looks_like_address =
            text.contains(['/', ':']) || text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        if !looks_like_address {
            return match check_name(text) {
                Ok(()) => Ok(Net::List(text.to_owned())),
                Err(why) => Err(Error::invalid(why)),
            };
        }
        let network: Network = match (text.contains('/'), text.contains(':')) {
            (true, _) => text.parse()?,
            (false, true) => format!("{text}/128").parse()?,
            (false, false) => format!("{text}/32").parse()?,
        };
        if network.prefix() == 0 {
            return Err(Error::invalid(format!("{text:?} is every address: write \"any\" if that is meant")));
        }
        if is_never_seen(&network) {
            return Err(Error::invalid(format!(
                "no client is ever seen in {text:?}: its addresses stand for IPv4 addresses or are taken for unknown"
            )));
        }
        Ok(Net::Network(network))
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Net::Any => f.write_str("any"),
            Net::Network(network) => write!(f, "{network}"),
            Net::List(name) => f.write_str(name),
        }
    }
}

text_serialize!(Net);

/// Hours of the week in UTC, like [`Window`], with ranges of days: `mon-fri 08:00-18:00`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hours {
    text: String,
    pub(super) window: Window,
}

impl FromStr for Hours {
    type Err = Error;

    fn from_str(text: &str) -> Result<Hours> {
        let window = match text.trim().rsplit_once(' ') {
            Some((days, hours)) => format!("{} {hours}", spread(days)).parse()?,
            None => text.parse()?,
        };
        Ok(Hours { text: text.to_owned(), window })
    }
}

/// `mon-wed,sat` as `mon,tue,wed,sat`. What is no range of days stays as it is.
fn spread(days: &str) -> String {
    const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let position = |day: &str| DAYS.iter().position(|known| day.eq_ignore_ascii_case(known));
    let spread = days.split(',').map(|part| {
        let ends = part.trim().split_once('-').and_then(|(a, b)| Some((position(a)?, position(b)?)));
        match ends {
            Some((first, last)) => {
                let count = (last + 7 - first) % 7 + 1;
                (first..first + count).map(|day| DAYS[day % 7]).collect::<Vec<_>>().join(",")
            }
            None => part.to_owned(),
        }
    });
    spread.collect::<Vec<_>>().join(",")
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

text_serialize!(Hours);

/// The tag of a language (RFC 5646): `de`, `pt-BR`, `zh-Hant`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Language(Box<str>);

impl Language {
    /// The tag as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Language {
    type Err = Error;

    fn from_str(text: &str) -> Result<Language> {
        let subtag = |part: &str| {
            (1..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
        };
        let sound = text.len() <= 64
            && text.bytes().take_while(|byte| *byte != b'-').all(|byte| byte.is_ascii_alphabetic())
            && text.split('-').all(subtag);
        if sound { Ok(Language(text.into())) } else { Err(bad(text, "a language tag, like de or pt-BR")) }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_serialize!(Language);

#[cold]
fn bad(text: &str, what: &str) -> Error {
    let shown: String = text.chars().take(80).collect();
    Error::invalid(format!("{shown:?} is not {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_written_as_they_are_read() {
        for text in [
            "anonymous",
            "authenticated",
            "link",
            "user:a@b.example",
            "service:ci",
            "group:Ops team",
            "peer:fra-1",
            "use-case:edge-edge",
        ] {
            assert_eq!(text.parse::<Selector>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "alice",
            "user:",
            "user: a",
            "group:a:b",
            "token:x",
            "peer:UP",
            "use-case:x",
            "Anonymous",
            "*",
        ] {
            assert!(bad.parse::<Selector>().is_err(), "{bad}");
        }
        for (text, written) in [
            ("any", "any"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("2001:db8::7", "2001:db8::7/128"),
            ("::1", "::1/128"),
            ("office", "office"),
        ] {
            assert_eq!(text.parse::<Net>().unwrap().to_string(), written);
        }
        // C11.
        for bad in [
            "10.0.0.5/8",
            "0.0.0.0/0",
            "::/0",
            "1.2.3.4/33",
            "1.2.3",
            "::ffff:10.0.0.1",
            "2002::/16",
            "64:ff9b::/96",
            "",
            "10.0.0.0/08",
        ] {
            assert!(bad.parse::<Net>().is_err(), "{bad}");
        }
        for text in ["mon-fri 08:00-18:00", "22:00-06:00", "sat,sun 00:00-24:00", "fri-mon,wed 01:00-02:00"] {
            assert_eq!(text.parse::<Hours>().unwrap().to_string(), text);
        }
        assert_eq!(
            "fri-mon 01:00-02:00".parse::<Hours>().unwrap().window.to_string(),
            "mon,fri,sat,sun 01:00-02:00"
        );
        for bad in ["mon-fri", "mon-xyz 08:00-18:00", "mon- 08:00-18:00"] {
            assert!(bad.parse::<Hours>().is_err(), "{bad}");
        }
        for text in ["de", "pt-BR", "zh-Hant-TW", "x"] {
            assert_eq!(text.parse::<Language>().unwrap().to_string(), text);
        }
        for bad in ["", "-", "de-", "4x", "de--AT", "toolongtag", "d\u{e9}", "*"] {
            assert!(bad.parse::<Language>().is_err(), "{bad}");
        }
    }
}
