//! What a bundle says about where it may go: countries, networks, edges.
//!
//! Constraints travel with the bundle and are signed with it; an edge may be stricter, never
//! looser.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::bundle::limits;
use crate::bundle::trust::EdgeEntry;
use crate::error::{Error, Result};
use crate::place::{Country, Network, text_serde};

/// Where a bundle may go. The default restricts nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constraints {
    /// Countries of the clients.
    #[serde(default, skip_serializing_if = "List::is_empty")]
    pub countries: List<Country>,
    /// Networks of the clients.
    #[serde(default, skip_serializing_if = "List::is_empty")]
    pub nets: List<Network>,
    /// Edges that may hold the bundle; `None` for every edge, an empty list for none.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "super::json::present")]
    pub edges: Option<Vec<EdgePattern>>,
}

impl Constraints {
    /// Whether nothing is restricted.
    pub fn is_empty(&self) -> bool {
        *self == Constraints::default()
    }

    /// Whether a client in `country` (`None` if it could not be told) may have the bundle.
    pub fn permits_country(&self, country: Option<Country>) -> bool {
        self.countries.permits(|one| country == Some(*one), country.is_some())
    }

    /// Whether a client at `address` (`None` if it could not be told) may have the bundle.
    pub fn permits_address(&self, address: Option<IpAddr>) -> bool {
        self.nets.permits(|net| address.is_some_and(|address| net.contains(address)), address.is_some())
    }

    /// Whether `edge` may hold the bundle.
    pub fn permits_edge(&self, edge: &EdgeEntry) -> bool {
        self.edges.as_ref().is_none_or(|patterns| patterns.iter().any(|pattern| pattern.matches(edge)))
    }

    pub(crate) fn check(&self) -> Result<()> {
        let lists = [
            ("countries.allow", self.countries.allow.as_ref().map_or(0, Vec::len)),
            ("countries.deny", self.countries.deny.len()),
            ("nets.allow", self.nets.allow.as_ref().map_or(0, Vec::len)),
            ("nets.deny", self.nets.deny.len()),
            ("edges", self.edges.as_ref().map_or(0, Vec::len)),
        ];
        match lists.iter().find(|(_, length)| *length > limits::CONSTRAINTS) {
            Some((name, length)) => Err(Error::invalid(format!(
                "the constraint {name} has {length} entries, at most {} are allowed",
                limits::CONSTRAINTS
            ))),
            None => Ok(()),
        }
    }
}

/// What is allowed and what is denied. A denial wins; without `allow`, what is not denied is
/// allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List<T> {
    /// Only these; `None` for all, an empty list for none.
    #[serde(
        default = "none",
        skip_serializing_if = "Option::is_none",
        deserialize_with = "super::json::present"
    )]
    pub allow: Option<Vec<T>>,
    /// Not these.
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<T>,
}

fn none<T>() -> Option<T> {
    None
}

impl<T> Default for List<T> {
    fn default() -> List<T> {
        List { allow: None, deny: Vec::new() }
    }
}

impl<T> List<T> {
    /// Whether nothing is restricted.
    pub fn is_empty(&self) -> bool {
        self.allow.is_none() && self.deny.is_empty()
    }

    fn permits(&self, is: impl Fn(&T) -> bool, known: bool) -> bool {
        // What could not be told is permitted only if there is nothing to ask.
        if self.is_empty() {
            return true;
        }
        known && !self.deny.iter().any(&is) && self.allow.as_ref().is_none_or(|allow| allow.iter().any(is))
    }
}

/// Chooses edges: by name (`fra-1`, `fra-*`), or by `key:value` with `site`, `city`, `country`
/// or a label's name as the key (`country:DE`, `group:eu`, `city:San *`).
///
/// `*` stands for any run of characters, also none.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EdgePattern(Box<str>);

impl EdgePattern {
    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `edge` is one of those chosen.
    pub fn matches(&self, edge: &EdgeEntry) -> bool {
        let Some((key, pattern)) = self.0.split_once(':') else {
            return glob(&self.0, edge.name.as_str());
        };
        let value = match key {
            "name" => Some(edge.name.as_str()),
            "site" => edge.site.as_deref(),
            "city" => edge.city.as_deref(),
            "country" => edge.country.as_ref().map(Country::as_str),
            label => edge.labels.get(label).map(String::as_str),
        };
        value.is_some_and(|value| glob(pattern, value))
    }
}

impl FromStr for EdgePattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<EdgePattern> {
        let name = |text: &str, extra: &[u8]| {
            let byte = |byte: u8| {
                byte.is_ascii_lowercase()
                    || byte.is_ascii_digit()
                    || b".-".contains(&byte)
                    || extra.contains(&byte)
            };
            !text.is_empty() && text.len() <= 64 && text.bytes().all(byte)
        };
        let sound = match text.split_once(':') {
            None => name(text, b"*"),
            Some((key, value)) => {
                name(key, b"_")
                    && !value.is_empty()
                    && value.len() <= 256
                    && !value.chars().any(char::is_control)
            }
        };
        if sound {
            Ok(EdgePattern(text.into()))
        } else {
            Err(bad(text, "an edge pattern: expected a node name or \"key:value\", \"*\" for any run"))
        }
    }
}

impl fmt::Display for EdgePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EdgePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

text_serde!(EdgePattern);

/// Whether `text` matches `pattern`, in which `*` stands for any run. Linear in both for one
/// `*`, quadratic at worst.
fn glob(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut pieces: Vec<_> = pieces.collect();
    let Some(last) = pieces.pop() else { return rest.is_empty() };
    for piece in pieces {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cold]
fn bad(text: &str, what: &str) -> Error {
    let shown: String = text.chars().take(80).collect();
    Error::invalid(format!("{shown:?} is not {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_told_is_not_permitted() {
        let free = Constraints::default();
        assert!(free.permits_country(None) && free.permits_address(None));
        let us: Country = "US".parse().unwrap();
        let cu: Country = "CU".parse().unwrap();
        let mut bound = Constraints::default();
        bound.countries.deny = vec![cu];
        assert!(bound.permits_country(Some(us)));
        assert!(!bound.permits_country(Some(cu)) && !bound.permits_country(None));
        bound.countries.allow = Some(vec![]);
        assert!(!bound.permits_country(Some(us)));
        bound.nets.allow = Some(vec!["10.0.0.0/8".parse().unwrap()]);
        assert!(bound.permits_address("10.1.2.3".parse().ok()));
        assert!(!bound.permits_address("11.1.2.3".parse().ok()) && !bound.permits_address(None));
        for bad in ["us", "USA", "U", "U1", ""] {
            assert!(bad.parse::<Country>().is_err(), "{bad}");
        }
    }

    #[test]
    fn edges_are_chosen_by_name_place_and_label() {
        let mut edge = EdgeEntry::new("fra-1.dc".parse().unwrap());
        edge.labels.insert("group".into(), "eu".into());
        edge.site = Some("Frankfurt 3".into());
        edge.country = Some("DE".parse().unwrap());
        let matches = |pattern: &str| pattern.parse::<EdgePattern>().unwrap().matches(&edge);
        for yes in [
            "fra-1.dc",
            "fra-*",
            "*",
            "*-*.dc",
            "name:fra-1.dc",
            "group:eu",
            "group:*",
            "site:Frank*3",
            "country:DE",
        ] {
            assert!(matches(yes), "{yes}");
        }
        for no in
            ["fra-1", "fra-2*", "*x", "group:us", "city:*", "country:D", "tier:eu", "site:*Frankfurt", "a*a"]
        {
            assert!(!matches(no), "{no}");
        }
        for bad in ["", "A", "a b", "group:", ":eu", "group:a\nb", "Group:eu"] {
            assert!(bad.parse::<EdgePattern>().is_err(), "{bad}");
        }
        assert!(!glob("ab*ba", "aba"));
        assert!(glob("ab*ba", "abba"));
    }
}
