//! What is kept of a user token.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::text::{TokenId, UserToken};
use crate::access::{Identity, Principal, Scope};
use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};

/// Longest name, description, group or reason, in bytes.
const MAX_LABEL: usize = 200;
/// Most groups and most scopes of one token.
const MAX_LIST: usize = 256;

/// Who a user token stands for. The text form is `user:NAME` or `service:NAME`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TokenPrincipal {
    /// A person.
    User(String),
    /// A service account.
    Service(String),
}

impl TokenPrincipal {
    /// The name, without the kind.
    pub fn name(&self) -> &str {
        match self {
            TokenPrincipal::User(name) | TokenPrincipal::Service(name) => name,
        }
    }
}

impl fmt::Display for TokenPrincipal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenPrincipal::User(name) => write!(f, "user:{name}"),
            TokenPrincipal::Service(name) => write!(f, "service:{name}"),
        }
    }
}

impl FromStr for TokenPrincipal {
    type Err = Error;

    fn from_str(text: &str) -> Result<TokenPrincipal> {
        let name = |name: &str| {
            let plain = |c: char| c.is_alphanumeric() || "-._@+".contains(c);
            (!name.is_empty() && name.len() <= MAX_LABEL && name.chars().all(plain)).then(|| name.to_owned())
        };
        let principal = match text.split_once(':') {
            Some(("user", rest)) => name(rest).map(TokenPrincipal::User),
            Some(("service", rest)) => name(rest).map(TokenPrincipal::Service),
            _ => None,
        };
        principal.ok_or_else(|| {
            let shown: String = text.chars().take(80).collect();
            Error::invalid(format!(
                "{shown:?} is not a principal: expected user:NAME or service:NAME, of letters, digits and -._@+"
            ))
        })
    }
}

impl Serialize for TokenPrincipal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TokenPrincipal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TokenPrincipal, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What a new user token is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewUserToken {
    /// Who it stands for.
    pub principal: TokenPrincipal,
    /// What it is for, in people's words.
    #[serde(default)]
    pub description: String,
    /// The first moment at which it is no longer good; `None` for one that is good until revoked.
    #[serde(default)]
    pub expires: Option<Timestamp>,
    /// What it is narrowed to; `None` for everything its principal has a right to.
    #[serde(default)]
    pub scopes: Option<Vec<Scope>>,
    /// The groups it names.
    #[serde(default)]
    pub groups: Vec<String>,
}

impl NewUserToken {
    /// A token without groups, an end or a scope.
    pub fn new(principal: TokenPrincipal) -> NewUserToken {
        NewUserToken {
            principal,
            description: String::new(),
            expires: None,
            scopes: None,
            groups: Vec::new(),
        }
    }

    fn check(&self, now: Timestamp) -> Result<()> {
        if self.expires.is_some_and(|expires| expires <= now) {
            return Err(Error::invalid("the token would have expired before it is made"));
        }
        if self.groups.len() > MAX_LIST || self.scopes.as_ref().is_some_and(|scopes| scopes.len() > MAX_LIST)
        {
            return Err(Error::invalid(format!(
                "a token has at most {MAX_LIST} groups and {MAX_LIST} scopes"
            )));
        }
        check_text("description", &self.description, true)?;
        self.groups.iter().try_for_each(|group| check_text("group", group, false))
    }
}

fn check_text(what: &str, text: &str, empty: bool) -> Result<()> {
    if text.len() > MAX_LABEL || text.chars().any(char::is_control) || text.trim().is_empty() && !empty {
        return Err(Error::invalid(format!(
            "a {what} has at most {MAX_LABEL} bytes and no control characters"
        )));
    }
    Ok(())
}

/// That and why a token was revoked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRevocation {
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// What is kept of a user token, for as long as the log may name it. It holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserTokenRecord {
    /// Its id.
    pub id: TokenId,
    /// Who it stands for.
    pub principal: TokenPrincipal,
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// When it was made.
    pub created: Timestamp,
    /// By whom.
    pub by: String,
    /// The first moment at which it is no longer good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// What it is narrowed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<Scope>>,
    /// The groups it names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// That it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<TokenRevocation>,
    /// The SHA-256 of its text.
    pub fingerprint: Digest,
    /// When it was last presented, as far as that was written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<Timestamp>,
}

impl UserTokenRecord {
    /// A new token and what is kept of it.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for an expiry in the past, texts with control characters, or too many
    /// groups or scopes; if there is no randomness.
    pub fn mint(new: NewUserToken, by: String, now: Timestamp) -> Result<(UserTokenRecord, UserToken)> {
        new.check(now)?;
        let token = UserToken::mint(TokenId::random()?)?;
        let record = UserTokenRecord {
            id: token.id(),
            principal: new.principal,
            description: new.description,
            created: now,
            by,
            expires: new.expires,
            scopes: new.scopes,
            groups: new.groups,
            revoked: None,
            fingerprint: token.fingerprint(),
            last_used: None,
        };
        Ok((record, token))
    }

    /// The principal it stands for.
    pub fn to_principal(&self) -> Principal {
        let identity = Arc::new(Identity {
            name: self.principal.name().to_owned(),
            groups: self.groups.clone(),
            credential: Some(self.id.to_string()),
            scopes: self.scopes.clone(),
        });
        match &self.principal {
            TokenPrincipal::User(_) => Principal::User(identity),
            TokenPrincipal::Service(_) => Principal::Service(identity),
        }
    }

    /// Whether it is good at `now`.
    ///
    /// # Errors
    /// [`ErrorKind::Unauthenticated`] if it is revoked or has expired.
    pub fn check(&self, now: Timestamp) -> Result<()> {
        if self.revoked.is_some() || self.expires.is_some_and(|expires| now >= expires) {
            return Err(not_valid());
        }
        Ok(())
    }

    /// The same token, revoked; the first revocation stands.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a reason that is empty or cannot be shown.
    pub fn revoke(mut self, by: &str, reason: &str, now: Timestamp) -> Result<UserTokenRecord> {
        check_text("reason", reason, false)?;
        self.revoked.get_or_insert_with(|| TokenRevocation {
            at: now,
            by: by.to_owned(),
            reason: reason.to_owned(),
        });
        Ok(self)
    }
}

/// One sentence for every token that opens nothing, so that it tells nothing.
#[cold]
pub(crate) fn not_valid() -> Error {
    Error::new(ErrorKind::Unauthenticated, "the token that was presented is not valid here")
}
