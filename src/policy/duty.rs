//! Separation of duties: what one person must not do alone.

use serde::Serialize;

use crate::access::{Action, ActionSet, Refusal, RefusalKind};

/// What one person must not do alone. The default asks for nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Duties {
    /// Whoever signed a bundle has no part in its distribution.
    pub signer_may_not_distribute: bool,
    /// The actions, of `distribute` and `withdraw`, that two principals have to want.
    #[serde(serialize_with = "names")]
    pub four_eyes: ActionSet,
}

fn names<S: serde::Serializer>(actions: &ActionSet, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(actions.iter())
}

/// Who had a part in a bundle so far. Principals are texts as a
/// [`Principal`](crate::access::Principal) prints: `user:alice`.
#[derive(Clone, Copy, Debug, Default)]
pub struct History<'a> {
    /// Who signed the bundle.
    pub signers: &'a [String],
    /// Who asked for the action first, if somebody did.
    pub requester: Option<&'a str>,
    /// Who agreed to it since.
    pub approvers: &'a [String],
}

impl Duties {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Duties::default()
    }

    /// Whether `action` waits for a second principal.
    pub fn needs_two(&self, action: Action) -> bool {
        self.four_eyes.contains(action)
    }

    /// Whether `action` may be carried out at the word of `actor`, after what happened so far.
    ///
    /// # Errors
    /// A refusal of the kind [`Duty`](RefusalKind::Duty) by one of the rules
    ///
    /// - `signer-may-not-distribute`: the actor, the requester or an approver signed the bundle, or
    ///   nobody is known to have signed it;
    /// - `four-eyes`: nobody but the actor wants it yet. It is to be kept as a request.
    pub fn check(&self, action: Action, actor: &str, history: &History<'_>) -> Result<(), Refusal> {
        let parties = || {
            let approvers = history.approvers.iter().map(String::as_str);
            std::iter::once(actor).chain(history.requester).chain(approvers)
        };
        if self.signer_may_not_distribute && action == Action::Distribute {
            if history.signers.is_empty() {
                return Err(refuse(
                    "signer-may-not-distribute",
                    "it is not known who signed the bundle, so nobody can be told apart from the signer"
                        .into(),
                ));
            }
            if let Some(signer) = parties().find(|party| history.signers.iter().any(|signer| signer == party))
            {
                return Err(refuse(
                    "signer-may-not-distribute",
                    format!("{signer} signed the bundle and may have no part in its distribution"),
                ));
            }
        }
        if self.needs_two(action) && parties().all(|party| party == actor) {
            return Err(refuse("four-eyes", format!("to {action} needs a second person besides {actor}")));
        }
        Ok(())
    }
}

#[cold]
fn refuse(rule: &str, reason: String) -> Refusal {
    Refusal::new(RefusalKind::Duty, rule, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn people(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| format!("user:{name}")).collect()
    }

    fn rule(
        duties: &Duties,
        action: Action,
        actor: &str,
        signers: &[&str],
        requester: Option<&str>,
        approvers: &[&str],
    ) -> Option<String> {
        let (signers, approvers) = (people(signers), people(approvers));
        let requester = requester.map(|name| format!("user:{name}"));
        let history = History { signers: &signers, requester: requester.as_deref(), approvers: &approvers };
        duties.check(action, &format!("user:{actor}"), &history).err().map(|refusal| {
            assert_eq!(refusal.kind, RefusalKind::Duty);
            refusal.rule
        })
    }

    #[test]
    fn a_signer_has_no_part_in_the_distribution() {
        let duties = Duties { signer_may_not_distribute: true, ..Duties::default() };
        let check = |actor, signers: &[&str], requester, approvers: &[&str]| {
            rule(&duties, Action::Distribute, actor, signers, requester, approvers)
        };
        let refused = Some("signer-may-not-distribute".to_owned());
        assert_eq!(check("bob", &["alice"], None, &[]), None);
        assert_eq!(check("alice", &["alice"], None, &[]), refused);
        assert_eq!(check("alice", &["carol", "alice"], None, &[]), refused);
        assert_eq!(check("bob", &["alice"], Some("alice"), &[]), refused);
        assert_eq!(check("bob", &["alice"], Some("carol"), &["alice"]), refused);
        assert_eq!(check("bob", &[], None, &[]), refused, "nobody is known to have signed");
        assert_eq!(rule(&duties, Action::Withdraw, "alice", &["alice"], None, &[]), None);
        assert_eq!(rule(&Duties::default(), Action::Distribute, "alice", &["alice"], None, &[]), None);
    }

    #[test]
    fn one_person_is_not_four_eyes() {
        let four_eyes = [Action::Distribute].into_iter().collect();
        let duties = Duties { four_eyes, ..Duties::default() };
        let check = |actor, requester, approvers: &[&str]| {
            rule(&duties, Action::Distribute, actor, &["dave"], requester, approvers)
        };
        let refused = Some("four-eyes".to_owned());
        assert_eq!(check("alice", None, &[]), refused);
        assert_eq!(check("alice", Some("alice"), &[]), refused);
        assert_eq!(check("alice", Some("alice"), &["alice", "alice"]), refused);
        assert_eq!(check("bob", Some("alice"), &[]), None);
        assert_eq!(check("alice", Some("alice"), &["bob"]), None);
        assert_eq!(rule(&duties, Action::Withdraw, "alice", &[], None, &[]), None);
    }
}
