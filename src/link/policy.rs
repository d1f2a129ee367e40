//! Stored policies: limits of links that can change after the links were handed out.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{LinkMethod, LinkResource};
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::place::{Country, Network};

/// The id of a stored policy: 1-64 of `a-z 0-9 . _ -`, led by a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyName(Box<str>);

impl PolicyName {
    /// Checks `text` and takes it as an id.
    pub fn new(text: &str) -> Result<PolicyName> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let good = (1..=64).contains(&text.len())
            && text.bytes().all(|byte| plain(byte) || b"._-".contains(&byte))
            && text.bytes().next().is_some_and(plain);
        if good { Ok(PolicyName(text.into())) } else { Err(bad_name(text)) }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cold]
fn bad_name(text: &str) -> Error {
    let shown: String = text.chars().take(80).collect();
    Error::invalid(format!("{shown:?} is not a link policy's id: expected 1 to 64 of a-z, 0-9, -, . and _"))
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PolicyName {
    type Err = Error;

    fn from_str(text: &str) -> Result<PolicyName> {
        PolicyName::new(text)
    }
}

impl Serialize for PolicyName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for PolicyName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PolicyName, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        PolicyName::new(&text).map_err(serde::de::Error::custom)
    }
}

/// Further limits of every link that names the policy. What is left out limits nothing; a list
/// that is given is not empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkPolicy {
    /// The networks that clients may come from.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "super::claims::filled")]
    pub networks: Vec<Network>,
    /// The countries that clients may come from.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "super::claims::filled")]
    pub countries: Vec<Country>,
    /// From this moment on the links are dead, without grace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// The methods.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "super::claims::filled")]
    pub methods: Vec<LinkMethod>,
    /// The artifacts.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "super::claims::filled")]
    pub resources: Vec<LinkResource>,
    /// The rate of one download, in bytes a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bps: Option<u64>,
}

impl LinkPolicy {
    /// Most entries of one list.
    pub const MAX_ENTRIES: usize = 1_000;

    /// Checks the limits of a policy that is to be stored.
    ///
    /// # Errors
    /// `Invalid` for a list of more than [`MAX_ENTRIES`](LinkPolicy::MAX_ENTRIES) entries or a
    /// rate of 0.
    pub fn check(&self) -> Result<()> {
        let lists = [self.networks.len(), self.countries.len(), self.methods.len(), self.resources.len()];
        if lists.iter().any(|length| *length > LinkPolicy::MAX_ENTRIES) {
            let most = LinkPolicy::MAX_ENTRIES;
            return Err(Error::invalid(format!("a list of a link policy has more than {most} entries")));
        }
        if self.bps == Some(0) {
            return Err(Error::invalid("a link policy's rate is 0: links without bytes are revoked instead"));
        }
        Ok(())
    }
}

/// The stored policies of a tenant. A link whose policy is not among them is dead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkPolicies(BTreeMap<PolicyName, LinkPolicy>);

impl LinkPolicies {
    /// The policy of this name.
    pub fn policy(&self, name: &PolicyName) -> Option<&LinkPolicy> {
        self.0.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&PolicyName, &LinkPolicy)> {
        self.0.iter()
    }

    /// Puts a policy in force.
    pub fn set(&mut self, name: PolicyName, policy: LinkPolicy) {
        self.0.insert(name, policy);
    }

    /// Takes a policy away; `true` if it was there.
    pub fn remove(&mut self, name: &PolicyName) -> bool {
        self.0.remove(name).is_some()
    }
}
