//! JWTs of trusted issuers as credentials: access tokens (RFC 9068), ID tokens of OpenID Connect, the
//! tokens that build services give to their jobs.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use http::request::Parts;
use serde_json::Value;

use super::jwks::Jwks;
use super::jwt::{MAX_JWT, Unverified, looks_like_one, refused};
use super::{Authenticator, Challenge, Presented, presented, token_challenge};
use crate::access::{Identity, Principal};
use crate::clock::{Clock, Timestamp};
use crate::error::{Error, Result};

/// Longest credential that is looked at, in bytes: a JWT as a Basic password, in base64.
const MAX_PRESENTED: usize = MAX_JWT / 3 * 4 + 512;
/// Longest name of a principal or a group, in bytes.
const MAX_NAME: usize = 255;
/// Most groups of one principal.
const MAX_GROUPS: usize = 1_000;
/// Largest leeway between the clocks of an issuer and of this node, in seconds.
pub const MAX_LEEWAY: u32 = 60;

/// Where a claim stands: its name, or the names that lead to it through objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPath(Vec<String>);

impl ClaimPath {
    /// The claim that these names lead to.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::error::ErrorKind::Invalid) if there is no name or an empty one.
    pub fn new(names: Vec<String>) -> Result<ClaimPath> {
        if names.is_empty() || names.iter().any(String::is_empty) {
            return Err(Error::invalid("a claim has a name"));
        }
        Ok(ClaimPath(names))
    }

    fn find<'c>(&self, claims: &'c Value) -> Option<&'c Value> {
        self.0.iter().try_fold(claims, |value, name| value.as_object()?.get(name))
    }

    /// The texts of the claim: one, or those of an array. A `scope` is a list (RFC 8693 section 4.2);
    /// true and false are texts too.
    fn texts<'c>(&self, claims: &'c Value) -> Vec<&'c str> {
        let Some(value) = self.find(claims) else { return Vec::new() };
        match value {
            Value::String(text) if self.0.last().is_some_and(|name| name == "scope") => {
                text.split(' ').filter(|scope| !scope.is_empty()).collect()
            }
            Value::String(text) => vec![text],
            Value::Bool(true) => vec!["true"],
            Value::Bool(false) => vec!["false"],
            Value::Array(values) => values.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }
}

impl From<&str> for ClaimPath {
    fn from(name: &str) -> ClaimPath {
        ClaimPath(vec![name.to_owned()])
    }
}

impl fmt::Display for ClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("/"))
    }
}

/// A claim that has, or holds among others, a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimValue {
    /// The claim.
    pub claim: ClaimPath,
    /// The value, byte for byte.
    pub value: String,
}

impl ClaimValue {
    /// A claim with a value.
    pub fn new(claim: impl Into<ClaimPath>, value: impl Into<String>) -> ClaimValue {
        ClaimValue { claim: claim.into(), value: value.into() }
    }

    fn holds(&self, claims: &Value) -> bool {
        self.claim.texts(claims).contains(&self.value.as_str())
    }
}

/// Whose tokens are believed, for whom, and what they make of their holders.
#[derive(Clone, Debug)]
pub struct Issuer {
    issuer: String,
    audiences: Vec<String>,
    keys: Jwks,
    leeway: u32,
    lifetime: u32,
    name: ClaimPath,
    prefix: String,
    service: Service,
    required: Vec<ClaimValue>,
    groups: Vec<(ClaimValue, String)>,
    passed: Option<(ClaimPath, String)>,
}

/// Which holders are services.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Service {
    None,
    All,
    With(ClaimValue),
}

impl Issuer {
    /// Tokens whose `iss` is `issuer`, byte for byte, and whose `aud` is or holds one of `audiences`.
    ///
    /// Their holders are users, named by `sub`, in no group. Clocks may differ by 30 seconds, and a
    /// token lives at most a day.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::error::ErrorKind::Invalid) if a name is empty or there is no
    /// audience: a token for anyone would be one for this node.
    pub fn new(issuer: &str, audiences: Vec<String>, keys: Jwks) -> Result<Issuer> {
        if issuer.is_empty() || audiences.is_empty() || audiences.iter().any(String::is_empty) {
            return Err(Error::invalid("an issuer of tokens has a name and at least one audience"));
        }
        Ok(Issuer {
            issuer: issuer.to_owned(),
            audiences,
            keys,
            leeway: 30,
            lifetime: 86_400,
            name: "sub".into(),
            prefix: String::new(),
            service: Service::None,
            required: Vec::new(),
            groups: Vec::new(),
            passed: None,
        })
    }

    /// Clocks may differ by so many seconds.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::error::ErrorKind::Invalid) for more than [`MAX_LEEWAY`].
    pub fn with_leeway(mut self, seconds: u32) -> Result<Issuer> {
        if seconds > MAX_LEEWAY {
            return Err(Error::invalid(format!("clocks may differ by {MAX_LEEWAY} seconds at most")));
        }
        self.leeway = seconds;
        Ok(self)
    }

    /// Tokens that live longer, from `iat` to `exp` in seconds, are refused.
    #[must_use]
    pub fn with_max_lifetime(mut self, seconds: u32) -> Issuer {
        self.lifetime = seconds;
        self
    }

    /// Holders are named by this claim and not by `sub`. An `email` counts only where
    /// `email_verified` is true.
    #[must_use]
    pub fn with_name(mut self, claim: impl Into<ClaimPath>) -> Issuer {
        self.name = claim.into();
        self
    }

    /// The names of holders begin with this, which keeps them apart from those of other issuers.
    #[must_use]
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Issuer {
        self.prefix = prefix.into();
        self
    }

    /// Holders are services.
    #[must_use]
    pub fn with_services(mut self) -> Issuer {
        self.service = Service::All;
        self
    }

    /// Holders whose tokens have this are services, others are users.
    #[must_use]
    pub fn with_services_where(mut self, has: ClaimValue) -> Issuer {
        self.service = Service::With(has);
        self
    }

    /// Tokens without this are refused. An issuer that serves the world needs it.
    #[must_use]
    pub fn with_required(mut self, has: ClaimValue) -> Issuer {
        self.required.push(has);
        self
    }

    /// Holders whose tokens have this belong to `group`.
    #[must_use]
    pub fn with_group(mut self, has: ClaimValue, group: impl Into<String>) -> Issuer {
        self.groups.push((has, group.into()));
        self
    }

    /// Holders belong to a group for each text of this claim, named `prefix` and the text. The
    /// issuer then decides who is in which group.
    #[must_use]
    pub fn with_groups_of(mut self, claim: impl Into<ClaimPath>, prefix: impl Into<String>) -> Issuer {
        self.passed = Some((claim.into(), prefix.into()));
        self
    }

    /// The issuer's name.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Its keys.
    pub fn keys(&self) -> &Jwks {
        &self.keys
    }

    /// Who holds a token with these claims, which this issuer signed.
    fn holder(&self, claims: &Value, key: Option<&str>, now: Timestamp) -> Result<Principal> {
        self.check_times(claims, now)?;
        let audiences = texts(claims.get("aud")).ok_or_else(|| refused("its audience cannot be read"))?;
        if !audiences.iter().any(|audience| self.audiences.iter().any(|own| own == audience)) {
            return Err(refused("it is for another audience"));
        }
        // RFC 7800: who cannot check that the presenter has the key must not take the token.
        if claims.get("cnf").is_some() {
            return Err(refused("it is bound to a key of its holder"));
        }
        if let Some(missing) = self.required.iter().find(|has| !has.holds(claims)) {
            return Err(refused(format_args!("its claim {} is not what it has to be", missing.claim)));
        }
        let groups = self.groups_of(claims)?;
        let credential = claims.get("jti").and_then(Value::as_str).filter(|id| is_name(id));
        let credential = match credential {
            Some(id) => Some(format!("jwt:{id}")),
            None => key.filter(|key| is_name(key)).map(|key| format!("key:{key}")),
        };
        let identity = Identity { name: self.name_of(claims)?, groups, credential, scopes: None };
        let service = match &self.service {
            Service::None => false,
            Service::All => true,
            Service::With(has) => has.holds(claims),
        };
        let identity = Arc::new(identity);
        Ok(if service { Principal::Service(identity) } else { Principal::User(identity) })
    }

    fn check_times(&self, claims: &Value, now: Timestamp) -> Result<()> {
        let (now, leeway) = (now.as_unix(), i64::from(self.leeway));
        let (Some(expires), Some(issued)) = (moment(claims, "exp")?, moment(claims, "iat")?) else {
            return Err(refused("it does not say when it was issued and when it expires"));
        };
        if now >= expires + leeway {
            return Err(refused("it has expired"));
        }
        let begins = moment(claims, "nbf")?.unwrap_or(issued).max(issued);
        if now + leeway < begins {
            return Err(refused("it is not valid yet"));
        }
        if expires - issued > i64::from(self.lifetime) {
            return Err(refused(format_args!("it lives longer than {} seconds", self.lifetime)));
        }
        Ok(())
    }

    fn name_of(&self, claims: &Value) -> Result<String> {
        let name = self.name.find(claims).and_then(Value::as_str);
        let name = name.filter(|name| is_name(name)).map(|name| format!("{}{name}", self.prefix));
        let name = name.filter(|name| name.len() <= MAX_NAME);
        let name = name.ok_or_else(|| refused(format_args!("its claim {} is no name", self.name)))?;
        let email = self.name.0.last().is_some_and(|last| last == "email");
        if email && claims.get("email_verified") != Some(&Value::Bool(true)) {
            return Err(refused("nobody has verified its e-mail address"));
        }
        Ok(name)
    }

    fn groups_of(&self, claims: &Value) -> Result<Vec<String>> {
        let mapped = self.groups.iter().filter(|(has, _)| has.holds(claims)).map(|(_, group)| group.clone());
        let mut groups: Vec<String> = mapped.collect();
        if let Some((claim, prefix)) = &self.passed {
            let passed = claim.texts(claims).into_iter().filter(|text| is_name(text));
            let passed = passed.map(|text| format!("{prefix}{text}")).filter(|group| group.len() <= MAX_NAME);
            groups.extend(passed);
        }
        groups.sort_unstable();
        groups.dedup();
        if groups.len() > MAX_GROUPS {
            return Err(refused(format_args!("its holder is in more than {MAX_GROUPS} groups")));
        }
        Ok(groups)
    }
}

/// A claim that is a text or an array of texts, and nothing else.
fn texts(value: Option<&Value>) -> Option<Vec<&str>> {
    match value? {
        Value::String(text) => Some(vec![text]),
        Value::Array(values) => values.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

/// Off-spec: RFC 7519 section 2 allows a NumericDate with a fraction; no issuer is known to use one,
/// and readers round them differently.
fn moment(claims: &Value, name: &str) -> Result<Option<i64>> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    // Later moments than this have no text form, and sums of them stay far from the largest number.
    let seconds = value.as_i64().filter(|seconds| (0..=Timestamp::MAX.as_unix()).contains(seconds));
    seconds.map(Some).ok_or_else(|| refused(format_args!("its claim {name} is no time")))
}

/// Whether a text can name a principal, a group or a token in logs and rules.
fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len()) && text.trim() == text && !text.chars().any(char::is_control)
}

/// JWTs of trusted issuers. They come as opaque tokens do: as `Authorization: Bearer`, as the password
/// of `Authorization: Basic`, which package clients know how to send, or as `X-JFrog-Art-Api`.
///
/// Whatever has not the shape of a JWT is not this authenticator's, so it stands in a
/// [`Chain`](super::Chain) before the one for opaque tokens.
#[derive(Debug)]
pub struct OidcAuthenticator {
    issuers: Vec<Issuer>,
    clock: Arc<dyn Clock>,
}

impl OidcAuthenticator {
    /// Believes these issuers.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::error::ErrorKind::Invalid) if two have one name, or the prefix of
    /// one begins with that of another: a holder of the one could take the name of a holder of the
    /// other.
    pub fn new(issuers: Vec<Issuer>, clock: Arc<dyn Clock>) -> Result<OidcAuthenticator> {
        for (at, one) in issuers.iter().enumerate() {
            for other in &issuers[..at] {
                if one.issuer == other.issuer {
                    return Err(Error::invalid(format!("the issuer {:?} is given twice", one.issuer)));
                }
                if one.prefix.starts_with(&other.prefix) || other.prefix.starts_with(&one.prefix) {
                    return Err(Error::invalid(format!(
                        "the names of {:?} and {:?} could be the same: give each a prefix of its own",
                        other.issuer, one.issuer
                    )));
                }
            }
        }
        Ok(OidcAuthenticator { issuers, clock })
    }

    /// The issuers.
    pub fn issuers(&self) -> &[Issuer] {
        &self.issuers
    }

    /// Who holds `token`.
    ///
    /// # Errors
    /// [`ErrorKind::Unauthenticated`](crate::error::ErrorKind::Unauthenticated) and why it is refused;
    /// [`ErrorKind::Unavailable`](crate::error::ErrorKind::Unavailable) if its issuer's keys cannot be
    /// had.
    pub async fn verify(&self, token: &str) -> Result<Principal> {
        let token = Unverified::read(token)?;
        let issuer = self.issuers.iter().find(|issuer| Some(issuer.issuer.as_str()) == token.issuer());
        let issuer = issuer.ok_or_else(|| refused("its issuer is not trusted here"))?;
        let key = issuer.keys.key(token.key()).await?;
        let claims = token.verify(&key)?;
        issuer.holder(&claims, key.id.as_deref(), self.clock.now())
    }

    /// Fetches the key sets that are due. A service calls it now and then.
    ///
    /// # Errors
    /// The first failure, after all were tried.
    pub async fn refresh(&self) -> Result<()> {
        let mut first = Ok(());
        for issuer in &self.issuers {
            let done = issuer.keys.refresh().await;
            first = first.and(done.map_err(|error| error.context(&issuer.issuer)));
        }
        first
    }
}

#[async_trait]
impl Authenticator for OidcAuthenticator {
    async fn authenticate(&self, parts: &Parts) -> Result<Option<Principal>> {
        let Some(Presented { token, .. }) = presented(&parts.headers, MAX_PRESENTED)? else {
            return Ok(None);
        };
        if !looks_like_one(token.expose()) {
            return Ok(None);
        }
        let text = token.expose_str().ok_or_else(|| refused("it cannot be read"))?;
        self.verify(text).await.map(Some)
    }

    fn challenge(&self) -> Option<Challenge> {
        Some(token_challenge())
    }
}

#[cfg(test)]
mod tests;
