//! `/api/v1/tokens`: user tokens are made, listed and revoked.

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Call};
use crate::access::{Action, Principal, Resource, Scope};
use crate::audit::kind;
use crate::clock::Timestamp;
use crate::edge::authorize::authorize;
use crate::edge::problem::Problem;
use crate::edge::service::nothing;
use crate::edge::{Body, media};
use crate::error::Error;
use crate::govern::Tokens;
use crate::token::{NewUserToken, TokenId, TokenPrincipal, UserTokenRecord};

/// Longest description of a token that is to be made, and longest word on why one is revoked.
const QUESTION: usize = 64 << 10;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    principal: TokenPrincipal,
    #[serde(default)]
    description: String,
    #[serde(default)]
    expires: Option<Timestamp>,
    /// Seconds from now, instead of `expires`.
    #[serde(default)]
    ttl: Option<u32>,
    #[serde(default)]
    scopes: Option<Vec<Scope>>,
    #[serde(default)]
    groups: Vec<String>,
}

impl Wish {
    fn into_token(self, now: Timestamp) -> Result<NewUserToken, Error> {
        let expires = match (self.expires, self.ttl) {
            (Some(_), Some(_)) => return Err(Error::invalid("a token has `expires` or `ttl`, not both")),
            (expires, None) => expires,
            (None, Some(seconds)) => Some(now.plus(i64::from(seconds))),
        };
        let Wish { principal, description, scopes, groups, .. } = self;
        Ok(NewUserToken { principal, description, expires, scopes, groups })
    }
}

/// Why something is to be revoked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Why {
    reason: String,
}

impl Call<'_> {
    pub(super) async fn tokens(&self, rest: &[&str], body: Body) -> Answer {
        let tokens = self.edge.tokens().ok_or_else(|| self.unknown())?;
        match rest {
            [] if self.admitted.method == Method::POST => self.make_token(tokens, body).await,
            [] => {
                self.methods("GET, HEAD, POST")?;
                let everything = self.administers();
                if !everything && matches!(self.asker.principal, Principal::Anonymous) {
                    return Err(self.unknown());
                }
                let records = tokens.list().await?;
                let seen: Vec<Value> = records
                    .iter()
                    .filter(|record| everything || self.is_own(record))
                    .map(|record| shown(record, None))
                    .collect();
                media::json(self.admitted.head, &seen)
            }
            [id] => {
                self.methods("GET, HEAD, DELETE")?;
                let id: TokenId = id.parse().map_err(|_| self.unknown())?;
                let record =
                    tokens.token(id).await?.filter(|record| self.administers() || self.is_own(record));
                let record = record.ok_or_else(|| self.unknown())?;
                if self.admitted.method != Method::DELETE {
                    return media::json(self.admitted.head, &shown(&record, None));
                }
                let reason = self.reason(body).await?;
                let by = self.asker.principal.to_string();
                let revoked = tokens.revoke(id, &by, &reason, self.asker.now).await?.ok_or_else(nothing)?;
                let event = self.event(kind::TOKEN_REVOKED).about(id.to_string());
                self.record(event.because(reason)).await?;
                media::json(false, &shown(&revoked, None))
            }
            _ => Err(self.unknown()),
        }
    }

    async fn make_token(&self, tokens: &Tokens, body: Body) -> Answer {
        self.may(Action::Administer, Resource::Edge)?;
        let wish: Wish = self.json(body, QUESTION).await?;
        let now = self.asker.now;
        let (record, secret) = tokens.mint(wish.into_token(now)?, &self.asker.principal, now).await?;
        let event = self.event(kind::TOKEN_CREATED).about(record.id.to_string());
        // The owner's name stays out of it: in the log, only who acts can be erased.
        if let Err(problem) = self.record(event).await {
            // What nobody can read of has not happened.
            let reason = "its making could not be recorded";
            tokens.revoke(record.id, "system", reason, now).await?;
            return Err(problem);
        }
        let mut response = media::json(false, &shown(&record, secret.expose_str()))?;
        *response.status_mut() = StatusCode::CREATED;
        Ok(response)
    }

    /// Whether the asker may administer the edge.
    pub(super) fn administers(&self) -> bool {
        authorize(self.edge.policies(), self.asker, Action::Administer, Resource::Edge).is_ok()
    }

    /// Whether the token stands for who asks. Credentials that are narrowed see themselves alone.
    fn is_own(&self, record: &UserTokenRecord) -> bool {
        let principal = &self.asker.principal;
        principal.to_string() == record.principal.to_string()
            && (principal.scopes().is_none() || principal.credential() == Some(&*record.id.to_string()))
    }

    /// Why something is revoked: `{"reason": "…"}`, or a body without bytes.
    pub(super) async fn reason(&self, body: Body) -> Result<String, Problem> {
        if body.length() == Some(0) {
            return Ok(String::from("no reason was given"));
        }
        let Why { reason } = self.json(body, QUESTION).await?;
        if reason.trim().is_empty() || reason.len() > 200 || reason.chars().any(char::is_control) {
            let error = Error::invalid("a reason has 1 to 200 bytes and no control characters");
            return Err(Problem::of(&error));
        }
        Ok(reason)
    }
}

/// A token as it is shown; `secret` only to who made it, this once.
fn shown(record: &UserTokenRecord, secret: Option<&str>) -> Value {
    let mut value = json!({
        "id": record.id,
        "principal": record.principal,
        "description": record.description,
        "created": record.created,
        "by": record.by,
        "expires": record.expires,
        "scopes": record.scopes,
        "groups": record.groups,
        "revoked": record.revoked,
        "last_used": record.last_used,
    });
    if let Some(secret) = secret {
        value["token"] = secret.into();
    }
    value
}
