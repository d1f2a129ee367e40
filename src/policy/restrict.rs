//! Restrictions: from where and when what is granted may be done.

use std::cell::Cell;

use super::document::{Document, Restriction, Sides};
use super::grant::Members;
use super::index::ReachIndex;
use super::sets::{AddressSet, CountrySet};
use super::words::Net;
use crate::access::{AccessRequest, Action, ActionSet, Principal, Refusal, RefusalKind, Resource};
use crate::name::Holder;
use crate::place::{Country, Network};

/// The restrictions of a document, found by what they reach.
#[derive(Clone, Debug, Default)]
pub(super) struct Restrictions {
    rules: Vec<Rule>,
    index: ReachIndex<usize>,
}

#[derive(Clone, Debug)]
struct Rule {
    actions: ActionSet,
    networks: Option<Allowed<AddressSet>>,
    countries: Option<Allowed<CountrySet>>,
}

#[derive(Clone, Debug)]
struct Allowed<S> {
    allow: Option<S>,
    deny: S,
}

/// Why a restriction does not permit a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Breach {
    AddressUnknown,
    Address,
    CountryUnknown,
    Country,
    Hours,
}

impl Restrictions {
    pub(super) fn new(document: &Document) -> Restrictions {
        let mut restrictions = Restrictions::default();
        for (at, restriction) in document.restrictions.iter().enumerate() {
            for reach in &restriction.on {
                restrictions.index.insert(reach, at);
            }
            restrictions.rules.push(Rule {
                actions: restriction.actions.iter().copied().collect(),
                networks: networks(document, &restriction.networks),
                countries: countries(&restriction.countries),
            });
        }
        restrictions
    }

    /// Whether every restriction about the request permits it: `Ok(true)` if there is one, and it
    /// does. With `asked`, the request is for a path that will be steered to another: bundles are
    /// not looked at, because the path has none.
    pub(super) fn permit(
        &self,
        document: &Document,
        members: &Members,
        request: &AccessRequest<'_>,
        asked: bool,
    ) -> Result<bool, Refusal> {
        if self.rules.is_empty() || is_exempt(request) {
            return Ok(false);
        }
        let applied = Cell::new(false);
        let breached = |at: usize| {
            let concerned = self.rules[at].actions.contains(request.action)
                && document.restrictions[at].concerns(members, request)
                && !(asked && document.restrictions[at].is_about_bundles());
            applied.set(applied.get() || concerned);
            concerned && self.breach(document, at, request).is_some()
        };
        if !self.index.any(request.resource, breached) {
            return Ok(applied.get());
        }
        Err(self.refuse(document, members, request, asked))
    }

    /// Whether the restriction `at` is about the request.
    pub(super) fn concerns(
        &self,
        document: &Document,
        members: &Members,
        at: usize,
        request: &AccessRequest<'_>,
    ) -> bool {
        let restriction = &document.restrictions[at];
        !is_exempt(request)
            && self.rules[at].actions.contains(request.action)
            && restriction.on.iter().any(|reach| reach.contains(request.resource))
            && restriction.concerns(members, request)
    }

    /// Why the restriction `at`, which is about the request, does not permit it.
    pub(super) fn breach(
        &self,
        document: &Document,
        at: usize,
        request: &AccessRequest<'_>,
    ) -> Option<Breach> {
        let rule = &self.rules[at];
        if let Some(networks) = &rule.networks {
            let Some(client) = request.client else { return Some(Breach::AddressUnknown) };
            if !networks.permit(|set| set.contains(client)) {
                return Some(Breach::Address);
            }
        }
        if let Some(countries) = &rule.countries {
            let Some(country) = request.country else { return Some(Breach::CountryUnknown) };
            if !countries.permit(|set| set.contains(country)) {
                return Some(Breach::Country);
            }
        }
        let hours = &document.restrictions[at].hours;
        let open = hours.is_empty() || hours.iter().any(|hours| hours.window.closes(request.now).is_some());
        if open { None } else { Some(Breach::Hours) }
    }

    /// The refusal of the first restriction, in the order of the document, that is breached.
    #[cold]
    fn refuse(
        &self,
        document: &Document,
        members: &Members,
        request: &AccessRequest<'_>,
        asked: bool,
    ) -> Refusal {
        let breach = (0..self.rules.len()).find_map(|at| {
            let concerned = self.concerns(document, members, at, request)
                && !(asked && document.restrictions[at].is_about_bundles());
            let breach = if concerned { self.breach(document, at, request) } else { None };
            breach.map(|breach| (at, breach))
        });
        match breach {
            Some((at, breach)) => Refusal::new(
                RefusalKind::Restriction,
                document.restrictions[at].name.clone(),
                breach.reason(request),
            ),
            // The index finds nothing that the restrictions themselves do not say.
            None => Refusal::new(RefusalKind::Restriction, "restrict", "a restriction forbids it"),
        }
    }
}

impl Breach {
    pub(super) fn reason(self, request: &AccessRequest<'_>) -> String {
        match self {
            Breach::AddressUnknown => "the client's address could not be told".into(),
            Breach::Address => match request.client {
                Some(client) => format!("{client} is not among the addresses it may be done from"),
                None => "the client's address is not among those it may be done from".into(),
            },
            Breach::CountryUnknown => "the client's country could not be told".into(),
            Breach::Country => match request.country {
                Some(country) => format!("{country} is not among the countries it may be done from"),
                None => "the client's country is not among those it may be done from".into(),
            },
            Breach::Hours => format!("it may not be done at {}", request.now),
        }
    }
}

/// The holder of the control token can always administer, or a policy could lock out whoever has to
/// mend it.
fn is_exempt(request: &AccessRequest<'_>) -> bool {
    request.action == Action::Administer && matches!(request.principal, Principal::Token { .. })
}

impl Restriction {
    /// Whether it is about the request's principal and bundles. What could not be told is one of
    /// those it is about.
    fn concerns(&self, members: &Members, request: &AccessRequest<'_>) -> bool {
        (self.principals.is_empty()
            || self.principals.iter().any(|who| members.matches(who, request.principal)))
            && self.concerns_bundle(request)
    }

    pub(super) fn is_about_bundles(&self) -> bool {
        !(self.bundles.is_empty() && self.versions.is_empty())
    }

    fn concerns_bundle(&self, request: &AccessRequest<'_>) -> bool {
        if !self.is_about_bundles() {
            return true;
        }
        let bundle = |name: &str| self.bundles.is_empty() || self.bundles.iter().any(|one| one.matches(name));
        let version =
            |name: &str| self.versions.is_empty() || self.versions.iter().any(|one| one.matches(name));
        match request.resource {
            // A folder belongs to no bundle.
            Resource::Repository { path: Some(_), .. } if request.action != Action::List => {
                request.holders.is_empty()
                    || request
                        .holders
                        .iter()
                        .any(|Holder(name, number)| bundle(name.as_str()) && version(number.as_str()))
            }
            Resource::Bundle { name: Some(name) } => {
                let mut versions = request.holders.iter().filter(|holder| holder.0 == *name).peekable();
                bundle(name.as_str())
                    && (versions.peek().is_none() || versions.any(|holder| version(holder.1.as_str())))
            }
            _ => false,
        }
    }
}

impl<S> Allowed<S> {
    fn permit(&self, holds: impl Fn(&S) -> bool) -> bool {
        !holds(&self.deny) && self.allow.as_ref().is_none_or(holds)
    }
}

fn networks(document: &Document, sides: &Sides<Net>) -> Option<Allowed<AddressSet>> {
    let set = |nets: &Vec<Net>| {
        if nets.contains(&Net::Any) {
            return AddressSet::any();
        }
        let networks = |net: &Net| -> Vec<Network> {
            match net {
                Net::Network(network) => vec![*network],
                Net::List(name) => {
                    let list = document.networks.get(name).into_iter().flatten();
                    list.filter_map(|net| if let Net::Network(one) = net { Some(*one) } else { None })
                        .collect()
                }
                Net::Any => Vec::new(),
            }
        };
        let all: Vec<Network> = nets.iter().flat_map(networks).collect();
        AddressSet::new(&all)
    };
    if sides.is_empty() {
        return None;
    }
    Some(Allowed { allow: sides.allow.as_ref().map(set), deny: set(&sides.deny) })
}

fn countries(sides: &Sides<Country>) -> Option<Allowed<CountrySet>> {
    if sides.is_empty() {
        return None;
    }
    let set = |countries: &Vec<Country>| CountrySet::new(countries);
    Some(Allowed { allow: sides.allow.as_ref().map(set), deny: set(&sides.deny) })
}
