//! What governs a source: the policy and the user tokens in its own records.

use std::sync::Arc;

use super::{Authority, Operator, Source};
use crate::access::Principal;
use crate::audit::AuditSink;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::govern::{Policies, Tokens};
use crate::policy::PolicySet;
use crate::secret::Secret;

/// The policy and the user tokens of a source, kept in its own records.
///
/// Until a policy is in force and at least one token is good, the source belongs to the local
/// operator alone. From then on people act in it, each with a token. Whoever owns the files of a
/// source can read and write them with other tools: this keeps honest people apart, and leaves a trace
/// of what they do.
#[derive(Debug)]
#[non_exhaustive]
pub struct Governance {
    /// The policies, of which one is in force.
    pub policies: Policies,
    /// The user tokens.
    pub tokens: Tokens,
}

impl Source {
    /// What governs this source.
    pub async fn governance(&self) -> Result<Governance> {
        let tenant = &self.profile.tenant;
        Ok(Governance {
            policies: Policies::open(self.meta().clone(), tenant).await?,
            tokens: Tokens::open(self.meta().clone(), tenant).await?,
        })
    }
}

impl Governance {
    /// Who presents `token`; the local operator, if nobody presents one.
    ///
    /// # Errors
    /// [`ErrorKind::Unauthenticated`] for a token that is not good at `now`.
    pub fn principal(&self, token: Option<&Secret>, now: Timestamp) -> Result<Principal> {
        match token {
            Some(token) => self.tokens.authenticate(None, token, now),
            None => Ok(Authority::local_operator()),
        }
    }

    /// What judges those who act now. `glass` is the reason of a local operator who administers
    /// although people with tokens act here; it is recorded with each act.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a reason that is none.
    pub async fn authority(
        &self,
        audit: Arc<dyn AuditSink>,
        glass: Option<&str>,
        now: Timestamp,
    ) -> Result<Authority> {
        let in_force = self.policies.current();
        let policies = PolicySet::new(vec![Arc::new(self.policies.clone())]);
        let operator = match (glass, self.has_people(now).await?) {
            (Some(reason), _) if reason.trim().is_empty() || reason.len() > 1024 => {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    "breaking the glass needs a reason of 1 to 1024 bytes",
                ));
            }
            (Some(reason), _) => Operator::BreaksGlass(reason.to_owned()),
            (None, true) => Operator::Refused,
            (None, false) => Operator::Administrator,
        };
        let authority = Authority::local(audit).with_policies(policies, in_force.policy.duties());
        Ok(authority.with_operator(operator))
    }

    /// Whether a policy is in force and somebody has a token that is good.
    async fn has_people(&self, now: Timestamp) -> Result<bool> {
        let tokens = self.tokens.list().await?;
        Ok(self.policies.current().version > 0 && tokens.iter().any(|token| token.check(now).is_ok()))
    }
}
