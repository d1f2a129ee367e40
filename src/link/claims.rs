//! What a link says. Everything that is not said here is refused.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeOwned, Error as _};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{LinkId, MAX_LIFETIME, PolicyName};
use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::json;
use crate::name::{ArtifactPath, NodeName, RepositoryName, Tenant};
use crate::place::{Country, Network};

/// Most resources of a link.
const RESOURCES: usize = 16;
/// Most edges and groups of a link.
const AUDIENCE: usize = 32;
/// Most networks of a link.
const NETWORKS: usize = 16;
/// Most countries of a link.
const COUNTRIES: usize = 64;
/// Most downloads of a link that counts them.
const USES: u32 = 1_000_000;
/// Longest subject, in characters.
const SUBJECT: usize = 128;

/// A method that a link allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LinkMethod {
    /// Download; asking about it is included.
    #[serde(rename = "GET")]
    Get,
    /// Ask about it.
    #[serde(rename = "HEAD")]
    Head,
}

impl LinkMethod {
    /// Whether one of `methods` allows a request with `method`.
    pub(super) fn allowed(methods: &[LinkMethod], method: &str) -> bool {
        match method {
            "GET" => methods.contains(&LinkMethod::Get),
            "HEAD" => !methods.is_empty(),
            _ => false,
        }
    }
}

/// What a link opens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LinkResource {
    /// One artifact: `{"e":"repository/path"}`.
    Exact {
        /// The repository.
        repository: RepositoryName,
        /// The path in it.
        path: ArtifactPath,
    },
    /// Everything below a folder: `{"p":"repository/folder/"}`, or `{"p":"repository/"}`.
    Prefix {
        /// The repository.
        repository: RepositoryName,
        /// The folder; `None` for the whole repository.
        folder: Option<ArtifactPath>,
    },
}

impl LinkResource {
    /// Reads `repository/path` as an artifact and `repository/folder/` as a folder.
    pub fn parse(text: &str) -> Result<LinkResource> {
        if text.ends_with('/') { LinkResource::prefix(text) } else { LinkResource::exact(text) }
    }

    fn exact(text: &str) -> Result<LinkResource> {
        let (repository, path) = text.split_once('/').ok_or_else(|| bad_resource(text))?;
        Ok(LinkResource::Exact { repository: repository.parse()?, path: path.parse()? })
    }

    fn prefix(text: &str) -> Result<LinkResource> {
        // Without the slash `app/1.0` would also open `app/1.0.1`.
        let text = text.strip_suffix('/').ok_or_else(|| bad_resource(text))?;
        let (repository, folder) = match text.split_once('/') {
            Some((repository, folder)) => (repository, Some(folder.parse()?)),
            None => (text, None),
        };
        Ok(LinkResource::Prefix { repository: repository.parse()?, folder })
    }

    /// The repository.
    pub fn repository(&self) -> &RepositoryName {
        match self {
            LinkResource::Exact { repository, .. } | LinkResource::Prefix { repository, .. } => repository,
        }
    }

    /// The artifact or the folder; `None` for a whole repository.
    pub fn path(&self) -> Option<&ArtifactPath> {
        match self {
            LinkResource::Exact { path, .. } => Some(path),
            LinkResource::Prefix { folder, .. } => folder.as_ref(),
        }
    }

    /// Whether it opens this artifact. Names are compared byte by byte.
    pub fn covers(&self, repository: &RepositoryName, path: &ArtifactPath) -> bool {
        match self {
            LinkResource::Exact { repository: own, path: exact } => own == repository && exact == path,
            LinkResource::Prefix { repository: own, folder } => {
                own == repository
                    && folder.as_ref().is_none_or(|folder| {
                        let rest = path.as_str().strip_prefix(folder.as_str());
                        rest.is_some_and(|rest| rest.starts_with('/'))
                    })
            }
        }
    }
}

#[cold]
fn bad_resource(text: &str) -> Error {
    let shown: String = text.chars().take(120).collect();
    Error::invalid(format!("{shown:?} is neither \"repository/path\" nor a folder \"repository/folder/\""))
}

impl fmt::Display for LinkResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkResource::Exact { repository, path } => write!(f, "{repository}/{path}"),
            LinkResource::Prefix { repository, folder: Some(folder) } => write!(f, "{repository}/{folder}/"),
            LinkResource::Prefix { repository, folder: None } => write!(f, "{repository}/"),
        }
    }
}

impl Serialize for LinkResource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        let name = if matches!(self, LinkResource::Exact { .. }) { "e" } else { "p" };
        map.serialize_entry(name, &format_args!("{self}"))?;
        map.end()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireResource<'a> {
    #[serde(borrow, default, deserialize_with = "json::present")]
    e: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "json::present")]
    p: Option<Cow<'a, str>>,
}

impl<'de> Deserialize<'de> for LinkResource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<LinkResource, D::Error> {
        let wire = WireResource::deserialize(deserializer)?;
        let read = match (wire.e, wire.p) {
            (Some(exact), None) => LinkResource::exact(&exact),
            (None, Some(prefix)) => LinkResource::prefix(&prefix),
            _ => return Err(D::Error::custom("a resource is one of \"e\" and \"p\"")),
        };
        read.map_err(D::Error::custom)
    }
}

/// The claims of a link. [`check`](Claims::check) says which of them go together; what does not
/// pass is neither minted nor accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Claims {
    v: One,
    /// The link's id.
    pub id: LinkId,
    /// `ten`: the tenant.
    #[serde(rename = "ten")]
    pub tenant: Tenant,
    /// `res`: 1 to 16 artifacts and folders.
    #[serde(rename = "res", deserialize_with = "filled")]
    pub resources: Vec<LinkResource>,
    /// `iat`: when it was made.
    #[serde(rename = "iat", with = "seconds")]
    pub issued: Timestamp,
    /// `nbf`: not before; when it was made, if left out.
    #[serde(
        rename = "nbf",
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "seconds::some",
        deserialize_with = "seconds::present"
    )]
    pub not_before: Option<Timestamp>,
    /// `exp`: from this second on it is dead; at most 365 days after `iat`.
    #[serde(rename = "exp", with = "seconds")]
    pub expires: Timestamp,
    /// `m`: the methods; `GET` and `HEAD` if left out.
    #[serde(rename = "m", default = "both", deserialize_with = "filled")]
    pub methods: Vec<LinkMethod>,
    /// `aud`: edges, and groups of edges; every edge that has the key, if left out.
    #[serde(rename = "aud", default, skip_serializing_if = "Vec::is_empty", deserialize_with = "filled")]
    pub audience: Vec<NodeName>,
    /// `ip`: at most 16 networks that clients may come from.
    #[serde(rename = "ip", default, skip_serializing_if = "Vec::is_empty", deserialize_with = "filled")]
    pub networks: Vec<Network>,
    /// `cc`: at most 64 countries that clients may come from.
    #[serde(rename = "cc", default, skip_serializing_if = "Vec::is_empty", deserialize_with = "filled")]
    pub countries: Vec<Country>,
    /// `n`: how many downloads, 1 to 1,000,000; with one exact resource and one edge.
    #[serde(
        rename = "n",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "json::present"
    )]
    pub uses: Option<u32>,
    /// `bps`: the rate of one download, in bytes a second.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "json::present")]
    pub bps: Option<u64>,
    /// `sub`: for whom it is, at most 128 characters; for the log and for revocation.
    #[serde(
        rename = "sub",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "json::present"
    )]
    pub subject: Option<String>,
    /// `sha`: the SHA-256 of the one artifact; the link dies if the name comes to mean other bytes.
    #[serde(
        rename = "sha",
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "hex::some",
        deserialize_with = "hex::present"
    )]
    pub digest: Option<Digest>,
    /// `ep`: its epoch; 0 if left out.
    #[serde(
        rename = "ep",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "json::present"
    )]
    pub epoch: Option<u64>,
    /// `pol`: a stored policy of the edge with further limits.
    #[serde(
        rename = "pol",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "json::present"
    )]
    pub policy: Option<PolicyName>,
}

impl Claims {
    /// The claims of a link that opens `resource` for `GET` and `HEAD`, on every edge.
    pub fn new(
        id: LinkId,
        tenant: Tenant,
        resource: LinkResource,
        issued: Timestamp,
        expires: Timestamp,
    ) -> Claims {
        Claims {
            v: One,
            id,
            tenant,
            resources: vec![resource],
            issued,
            not_before: None,
            expires,
            methods: both(),
            audience: Vec::new(),
            networks: Vec::new(),
            countries: Vec::new(),
            uses: None,
            bps: None,
            subject: None,
            digest: None,
            epoch: None,
            policy: None,
        }
    }

    /// The same claims, opening one more resource.
    #[must_use]
    pub fn with_resource(mut self, resource: LinkResource) -> Claims {
        self.resources.push(resource);
        self
    }

    /// The same claims, beginning at `moment`.
    #[must_use]
    pub fn with_not_before(mut self, moment: Timestamp) -> Claims {
        self.not_before = Some(moment);
        self
    }

    /// The same claims with these methods alone.
    #[must_use]
    pub fn with_methods(mut self, methods: Vec<LinkMethod>) -> Claims {
        self.methods = methods;
        self
    }

    /// The same claims for these edges and groups.
    #[must_use]
    pub fn with_audience(mut self, audience: Vec<NodeName>) -> Claims {
        self.audience = audience;
        self
    }

    /// The same claims for clients of these networks.
    #[must_use]
    pub fn with_networks(mut self, networks: Vec<Network>) -> Claims {
        self.networks = networks;
        self
    }

    /// The same claims for clients of these countries.
    #[must_use]
    pub fn with_countries(mut self, countries: Vec<Country>) -> Claims {
        self.countries = countries;
        self
    }

    /// The same claims for so many downloads.
    #[must_use]
    pub fn with_uses(mut self, uses: u32) -> Claims {
        self.uses = Some(uses);
        self
    }

    /// The same claims with a rate, in bytes a second.
    #[must_use]
    pub fn with_bps(mut self, bps: u64) -> Claims {
        self.bps = Some(bps);
        self
    }

    /// The same claims for a subject.
    #[must_use]
    pub fn with_subject(mut self, subject: impl Into<String>) -> Claims {
        self.subject = Some(subject.into());
        self
    }

    /// The same claims for these bytes alone.
    #[must_use]
    pub fn with_digest(mut self, digest: Digest) -> Claims {
        self.digest = Some(digest);
        self
    }

    /// The same claims of an epoch.
    #[must_use]
    pub fn with_epoch(mut self, epoch: u64) -> Claims {
        self.epoch = Some(epoch);
        self
    }

    /// The same claims under a stored policy.
    #[must_use]
    pub fn with_policy(mut self, policy: PolicyName) -> Claims {
        self.policy = Some(policy);
        self
    }

    /// Reads claims from their JSON, and checks them.
    ///
    /// # Errors
    /// `Invalid` for what is not strict JSON, for a duplicate or unknown member at any level, for
    /// numbers that are not whole, and for what [`check`](Claims::check) refuses.
    pub fn parse(payload: &[u8]) -> Result<Claims> {
        let claims: Claims = json::parse("the claims", payload)?;
        claims.check()?;
        Ok(claims)
    }

    /// The JSON that [`parse`](Claims::parse) reads.
    pub fn to_payload(&self) -> Vec<u8> {
        // Nothing here fails: there are no maps with odd keys and no writer that errs.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Whether the claims go together.
    ///
    /// # Errors
    /// `Invalid` with the claim and its rule.
    pub fn check(&self) -> Result<()> {
        few("res", &self.resources, RESOURCES)?;
        few("m", &self.methods, 2)?;
        if self.resources.is_empty() || self.methods.is_empty() {
            return Err(rule("res and m name at least one each"));
        }
        few("aud", &self.audience, AUDIENCE)?;
        few("ip", &self.networks, NETWORKS)?;
        few("cc", &self.countries, COUNTRIES)?;
        let life = self.expires.as_unix() - self.issued.as_unix();
        if life <= 0 || life > MAX_LIFETIME {
            return Err(rule("exp is after iat, and at most 365 days"));
        }
        if self.not_before.is_some_and(|start| start >= self.expires) {
            return Err(rule("nbf is before exp"));
        }
        let exact = self.resources.iter().all(|resource| matches!(resource, LinkResource::Exact { .. }));
        if self.uses.is_some() {
            if self.uses > Some(USES) || self.uses == Some(0) {
                return Err(rule("n is from 1 to 1,000,000"));
            }
            if !exact || self.resources.len() != 1 {
                return Err(rule("n needs exactly one exact resource"));
            }
            // A budget that several edges spend from would be spent several times.
            if self.audience.len() != 1 {
                return Err(rule("n needs exactly one edge in aud"));
            }
        }
        if self.digest.is_some() && !(exact && self.resources.len() == 1) {
            return Err(rule("sha needs exactly one exact resource"));
        }
        if self.bps.is_some_and(|bps| bps == 0 || bps > json::INTEGER) {
            return Err(rule("bps is from 1 to 2^53 - 1"));
        }
        if self.epoch.is_some_and(|epoch| epoch > json::INTEGER) {
            return Err(rule("ep is at most 2^53 - 1"));
        }
        let fits = |subject: &String| {
            let length = subject.chars().take(SUBJECT + 1).count();
            (1..=SUBJECT).contains(&length) && !subject.chars().any(char::is_control)
        };
        if !self.subject.as_ref().is_none_or(fits) {
            return Err(rule("sub has 1 to 128 characters, none of them a control character"));
        }
        Ok(())
    }

    /// When it begins.
    pub fn begins(&self) -> Timestamp {
        self.not_before.unwrap_or(self.issued)
    }

    /// Whether one of the resources is this artifact or a folder above it.
    pub fn covers(&self, repository: &RepositoryName, path: &ArtifactPath) -> bool {
        self.resources.iter().any(|resource| resource.covers(repository, path))
    }
}

#[cold]
fn rule(rule: &str) -> Error {
    Error::invalid(format!("the claims: {rule}"))
}

/// A list that has no more entries than allowed, and none twice.
fn few<T: PartialEq>(claim: &str, list: &[T], most: usize) -> Result<()> {
    if list.len() > most {
        return Err(rule(&format!("{claim} has at most {most} entries")));
    }
    if list.iter().enumerate().any(|(at, entry)| list[..at].contains(entry)) {
        return Err(rule(&format!("{claim} names something twice")));
    }
    Ok(())
}

fn both() -> Vec<LinkMethod> {
    vec![LinkMethod::Get, LinkMethod::Head]
}

/// Reads a list that, when given, is not empty: an empty one could be taken for no limit.
pub(crate) fn filled<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let list = Vec::<T>::deserialize(deserializer)?;
    if list.is_empty() { Err(D::Error::custom("a list is empty")) } else { Ok(list) }
}

/// The one version of the claims: the number 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct One;

impl Serialize for One {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(1)
    }
}

impl<'de> Deserialize<'de> for One {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<One, D::Error> {
        match u64::deserialize(deserializer)? {
            1 => Ok(One),
            other => Err(D::Error::custom(format_args!("v is {other}, and 1 is known"))),
        }
    }
}

/// Moments as whole seconds since the epoch.
mod seconds {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    use crate::clock::Timestamp;

    pub(super) fn serialize<S: Serializer>(moment: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(moment.as_unix())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let seconds = u64::deserialize(deserializer)?;
        let seconds = i64::try_from(seconds).ok().filter(|seconds| *seconds <= Timestamp::MAX.as_unix());
        // Clamping would turn one moment into another.
        seconds.map(Timestamp::from_unix).ok_or_else(|| D::Error::custom("a time is after the year 9999"))
    }

    pub(super) fn some<S: Serializer>(moment: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
        match moment {
            Some(moment) => serialize(moment, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn present<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Timestamp>, D::Error> {
        deserialize(d).map(Some)
    }
}

/// A digest as 64 hex digits.
mod hex {
    use std::borrow::Cow;

    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    use crate::digest::Digest;

    pub(super) fn some<S: Serializer>(digest: &Option<Digest>, serializer: S) -> Result<S::Ok, S::Error> {
        match digest {
            Some(digest) => serializer.serialize_str(&digest.to_hex()),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Digest>, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        Digest::from_hex(&text).map(Some).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: &str = r#"{"v":1,"id":"01JD7ZC5N0E8T4S1Q2W3X4Y5Z6","ten":"acme","res":[{"e":"generic-local/a b"}],"iat":100,"nbf":100,"exp":200,"m":["GET"],"aud":["edge-eu"],"ip":["192.0.2.0/24"],"cc":["DE"],"n":1,"bps":9,"sub":"x","sha":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","ep":2,"pol":"p"}"#;

    #[test]
    fn claims_come_back_as_they_were() {
        let claims = Claims::parse(MOST.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(claims.to_payload()).unwrap(), MOST);
    }

    #[test]
    fn loose_claims_are_refused() {
        for (from, to) in [
            (r#""exp":200"#, r#""exp":1e99"#),
            (r#""exp":200"#, r#""exp":-1"#),
            (r#""exp":200"#, r#""exp":"200""#),
            (r#""exp":200"#, r#""exp":200.0"#),
            (r#""exp":200"#, r#""exp":null"#),
            (r#""exp":200"#, r#""exp":200,"exp":200"#),
            (r#""exp":200"#, r#""exp":100"#),
            (r#""exp":200"#, r#""exp":31536101"#),
            (r#""exp":200"#, r#""exp":9007199254740991"#),
            (r#""exp":200,"#, ""),
            (r#""iat":100,"#, ""),
            (r#""nbf":100"#, r#""nbf":200"#),
            (r#""nbf":100"#, r#""nbf":null"#),
            (r#""v":1"#, r#""v":2"#),
            (r#""v":1"#, r#""v":"1""#),
            (r#""v":1,"#, ""),
            (r#""v":1"#, r#""v":1,"x":1"#),
            (r#"{"e":"generic-local/a b"}"#, ""),
            (r#"{"e":"generic-local/a b"}"#, r#"{"e":"generic-local/a b","x":1}"#),
            (r#"{"e":"generic-local/a b"}"#, r#"{"e":"generic-local/a b","e":"generic-local/c"}"#),
            (r#"{"e":"generic-local/a b"}"#, r#"{"e":"generic-local/a b","p":"generic-local/"}"#),
            (r#"{"e":"generic-local/a b"}"#, "{}"),
            (r#"{"e":"generic-local/a b"}"#, r#"{"e":"generic-local/../b"}"#),
            (r#"{"e":"generic-local/a b"}"#, r#"{"e":"generic-local/a/"}"#),
            (r#"{"e":"generic-local/a b"}"#, r#"{"e":"generic-local"}"#),
            (r#"{"e":"generic-local/a b"}"#, r#"{"e":"api/a"}"#),
            (r#"{"e":"generic-local/a b"}"#, r#"{"p":"generic-local/a/"}"#),
            (r#"{"e":"generic-local/a b"}"#, r#"{"p":"generic-local/a"}"#),
            (r#"{"e":"generic-local/a b"}"#, r#"{"e":"r/a"},{"e":"r/b"}"#),
            (r#"["GET"]"#, "[]"),
            (r#"["GET"]"#, r#"["GET","GET"]"#),
            (r#"["GET"]"#, r#"["PUT"]"#),
            (r#"["GET"]"#, r#""GET""#),
            (r#"["edge-eu"]"#, "[]"),
            (r#"["edge-eu"]"#, r#"["edge-eu","edge-us"]"#),
            (r#"["192.0.2.0/24"]"#, "[]"),
            (r#"["192.0.2.0/24"]"#, "null"),
            (r#"["192.0.2.0/24"]"#, r#"["192.0.2.1/24"]"#),
            (r#"["DE"]"#, "[]"),
            (r#"["DE"]"#, r#"["de"]"#),
            (r#""n":1"#, r#""n":0"#),
            (r#""n":1"#, r#""n":1000001"#),
            (r#""n":1"#, r#""n":4294967297"#),
            (r#""bps":9"#, r#""bps":0"#),
            (r#""sub":"x""#, r#""sub":"""#),
            (r#""sub":"x""#, r#""sub":"a\u0007""#),
            (r#""sha":"e3"#, r#""sha":"E3"#),
            (r#""ep":2"#, r#""ep":-2"#),
            (r#""pol":"p""#, r#""pol":"P/..""#),
        ] {
            let spoiled = MOST.replacen(from, to, 1);
            assert_ne!(spoiled, MOST, "{from}");
            assert!(Claims::parse(spoiled.as_bytes()).is_err(), "{spoiled}");
        }
        assert!(
            Claims::parse(MOST.replacen("\"x\"", &format!("\"{}\"", "ß".repeat(128)), 1).as_bytes()).is_ok()
        );
        assert!(
            Claims::parse(MOST.replacen("\"x\"", &format!("\"{}\"", "ß".repeat(129)), 1).as_bytes()).is_err()
        );
    }

    #[test]
    fn a_folder_is_not_its_sibling() {
        let repository = RepositoryName::new("r").unwrap();
        let path = |text: &str| ArtifactPath::new(text).unwrap();
        let folder = LinkResource::parse("r/app/1.0/").unwrap();
        assert!(folder.covers(&repository, &path("app/1.0/x/y")));
        for other in ["app/1.0.1/x", "app/1.0", "app/1", "App/1.0/x"] {
            assert!(!folder.covers(&repository, &path(other)), "{other}");
        }
        assert!(!folder.covers(&RepositoryName::new("s").unwrap(), &path("app/1.0/x")));
        assert!(LinkResource::parse("r/").unwrap().covers(&repository, &path("a")));
        assert!(LinkResource::parse("r").is_err());
    }
}
