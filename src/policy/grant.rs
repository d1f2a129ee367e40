//! Grants: who may do what, and who is in which group.

use super::document::Document;
use super::index::{Names, ReachIndex};
use super::words::Selector;
use crate::access::{Action, ActionSet, Principal, Resource, UseCase};

/// The groups of a policy and who is in them.
#[derive(Clone, Debug, Default)]
pub(super) struct Members {
    names: Vec<Box<str>>,
    numbers: Names<usize>,
    users: Names<Vec<usize>>,
    services: Names<Vec<usize>>,
    peers: Names<Vec<usize>>,
}

impl Members {
    pub(super) fn new(document: &Document) -> Members {
        let mut members = Members::default();
        for (name, group) in &document.groups {
            let number = members.number(name);
            for member in group {
                let (table, name) = match member {
                    Selector::User(name) => (&mut members.users, name.as_str()),
                    Selector::Service(name) => (&mut members.services, name.as_str()),
                    Selector::Peer(name) => (&mut members.peers, name.as_str()),
                    _ => continue,
                };
                let groups = table.entry(name.into()).or_default();
                if !groups.contains(&number) {
                    groups.push(number);
                }
            }
        }
        // Groups that only credentials know.
        for to in document.grants.iter().flat_map(|grant| &grant.to) {
            if let Selector::Group(name) = to {
                members.number(name);
            }
        }
        members
    }

    fn number(&mut self, name: &str) -> usize {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.names.len();
        self.names.push(name.into());
        self.numbers.insert(name.into(), number);
        number
    }

    /// The groups that the policy puts `principal` into.
    fn groups_of(&self, principal: &Principal) -> &[usize] {
        let found = match principal {
            Principal::User(identity) => self.users.get(identity.name.as_str()),
            Principal::Service(identity) => self.services.get(identity.name.as_str()),
            Principal::Peer(peer) => self.peers.get(peer.name.as_str()),
            _ => None,
        };
        found.map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether `principal` is one of those that `who` selects.
    pub(super) fn matches(&self, who: &Selector, principal: &Principal) -> bool {
        match (who, principal) {
            (Selector::Anonymous, Principal::Anonymous) | (Selector::Link, Principal::Link(_)) => true,
            (
                Selector::Authenticated,
                Principal::User(_) | Principal::Service(_) | Principal::Token { .. },
            ) => true,
            (Selector::User(name), Principal::User(identity)) => identity.name == *name,
            (Selector::Service(name), Principal::Service(identity)) => identity.name == *name,
            (Selector::Peer(name), Principal::Peer(peer)) => peer.name == *name,
            (Selector::UseCase(case), Principal::Peer(peer)) => peer.use_case == *case,
            (Selector::Group(name), principal) => {
                principal.groups().iter().any(|group| group == name)
                    || self.groups_of(principal).iter().any(|group| *self.names[*group] == **name)
            }
            _ => false,
        }
    }
}

/// The actions of every grant, found by principal and then by what they reach.
#[derive(Clone, Debug, Default)]
pub(super) struct Grants {
    users: Names<ReachIndex<ActionSet>>,
    services: Names<ReachIndex<ActionSet>>,
    peers: Names<ReachIndex<ActionSet>>,
    /// By the number of the group.
    groups: Vec<ReachIndex<ActionSet>>,
    use_cases: Vec<(UseCase, ReachIndex<ActionSet>)>,
    anonymous: ReachIndex<ActionSet>,
    authenticated: ReachIndex<ActionSet>,
}

impl Grants {
    pub(super) fn new(document: &Document, members: &Members) -> Grants {
        let mut grants = Grants::default();
        grants.groups.resize_with(members.names.len(), ReachIndex::default);
        for grant in &document.grants {
            let actions: ActionSet = grant.may.iter().copied().collect();
            for to in &grant.to {
                let Some(index) = grants.index_of(to, members) else { continue };
                for reach in &grant.on {
                    index.insert(reach, actions);
                }
            }
        }
        grants
    }

    fn index_of(&mut self, to: &Selector, members: &Members) -> Option<&mut ReachIndex<ActionSet>> {
        Some(match to {
            Selector::Anonymous => &mut self.anonymous,
            Selector::Authenticated => &mut self.authenticated,
            Selector::User(name) => self.users.entry(name.as_str().into()).or_default(),
            Selector::Service(name) => self.services.entry(name.as_str().into()).or_default(),
            Selector::Peer(name) => self.peers.entry(name.as_str().into()).or_default(),
            Selector::Group(name) => {
                let number = members.numbers.get(name.as_str())?;
                self.groups.get_mut(*number)?
            }
            Selector::UseCase(case) => {
                let known = self.use_cases.iter().position(|(one, _)| one == case);
                let at = known.unwrap_or_else(|| {
                    self.use_cases.push((*case, ReachIndex::default()));
                    self.use_cases.len() - 1
                });
                &mut self.use_cases[at].1
            }
            Selector::Link => return None,
        })
    }

    /// Whether a grant lets `principal` do `action` on `resource`.
    pub(super) fn permit(
        &self,
        members: &Members,
        principal: &Principal,
        action: Action,
        resource: Resource<'_>,
    ) -> bool {
        let by = |index: &ReachIndex<ActionSet>| index.any(resource, |actions| actions.contains(action));
        let named = |table: &Names<ReachIndex<ActionSet>>, name: &str| table.get(name).is_some_and(by);
        let own = match principal {
            Principal::Anonymous => by(&self.anonymous),
            Principal::User(identity) => named(&self.users, &identity.name) || by(&self.authenticated),
            Principal::Service(identity) => named(&self.services, &identity.name) || by(&self.authenticated),
            Principal::Peer(peer) => {
                named(&self.peers, peer.name.as_str())
                    || self.use_cases.iter().any(|(case, index)| *case == peer.use_case && by(index))
            }
            _ => return false,
        };
        own || members.groups_of(principal).iter().any(|group| by(&self.groups[*group]))
            || principal.groups().iter().any(|group| {
                members.numbers.get(group.as_str()).is_some_and(|number| by(&self.groups[*number]))
            })
    }
}

/// What a paired service may do without any grant: as little as its use case needs.
///
/// | use case | may |
/// | --- | --- |
/// | source-edge | receive, withdraw, list and audit (it is the witness of the log); read the documents of bundles, no artifact |
/// | edge-edge | read and list |
/// | control | administer, audit, mint and list |
/// | peer | read |
pub(super) fn peer_may(use_case: UseCase, action: Action, resource: Resource<'_>) -> bool {
    match use_case {
        UseCase::SourceEdge => match action {
            Action::Receive | Action::Withdraw | Action::List | Action::Audit => true,
            Action::Read => matches!(resource, Resource::Bundle { .. }),
            _ => false,
        },
        UseCase::EdgeEdge => matches!(action, Action::Read | Action::List),
        UseCase::Control => {
            matches!(action, Action::Administer | Action::Audit | Action::Mint | Action::List)
        }
        UseCase::Peer => action == Action::Read,
    }
}
