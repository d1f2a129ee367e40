//! Sets of actions, and what they reach.

use std::fmt;
use std::str::FromStr;

use super::{Action, Resource};
use crate::error::{Error, Result};
use crate::name::{ArtifactPath, RepositoryName};
use crate::pattern::Pattern;
use crate::place::text_serde;

/// A set of [`Action`]s. The text form is their names joined by `,`, or `*` for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ActionSet(u16);

impl ActionSet {
    /// Every action.
    pub fn all() -> ActionSet {
        Action::ALL.into_iter().collect()
    }

    /// Whether `action` is in the set.
    pub fn contains(self, action: Action) -> bool {
        self.0 & 1 << action as u16 != 0
    }

    /// The actions of both.
    #[must_use]
    pub fn union(self, other: ActionSet) -> ActionSet {
        ActionSet(self.0 | other.0)
    }

    /// Whether there is none in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The actions, in the order of [`Action::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Action> {
        Action::ALL.into_iter().filter(move |action| self.contains(*action))
    }
}

impl FromIterator<Action> for ActionSet {
    fn from_iter<I: IntoIterator<Item = Action>>(actions: I) -> ActionSet {
        ActionSet(actions.into_iter().fold(0, |set, action| set | 1 << action as u16))
    }
}

impl fmt::Display for ActionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == ActionSet::all() {
            return f.write_str("*");
        }
        let names: Vec<&str> = self.iter().map(Action::as_str).collect();
        f.write_str(&names.join(","))
    }
}

impl FromStr for ActionSet {
    type Err = Error;

    fn from_str(text: &str) -> Result<ActionSet> {
        if text == "*" {
            return Ok(ActionSet::all());
        }
        text.split(',').map(str::parse::<Action>).collect()
    }
}

/// The things a grant or a token reaches. The text form is one of
///
/// - `*`: everything;
/// - `edge`: the edge or the source itself;
/// - `bundle:PATTERN`: bundles whose names match;
/// - `PATTERN`: artifacts and folders whose `repository/path` matches. A folder is matched with a
///   trailing `/`, so that `files/shop/**` also reaches the folder `files/shop/`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reach {
    /// Everything.
    Everything,
    /// The edge or the source itself.
    Edge,
    /// Bundles whose names match. The list of all bundles is reached by `bundle:**` and `bundle:*`.
    Bundles(Pattern),
    /// Artifacts and folders whose `repository/path` matches.
    Artifacts(Pattern),
}

impl Reach {
    /// Whether everything that `other` reaches is reached, as far as their texts tell: the same
    /// text, or everything of a kind. A pattern is never taken apart.
    pub fn covers(&self, other: &Reach) -> bool {
        match (self, other) {
            (Reach::Everything, _) => true,
            (Reach::Bundles(pattern), Reach::Bundles(_)) if matches!(pattern.as_str(), "*" | "**") => true,
            (Reach::Artifacts(pattern), Reach::Artifacts(_)) if pattern.as_str() == "**" => true,
            _ => self == other,
        }
    }

    /// Whether `resource` is reached.
    pub fn contains(&self, resource: Resource<'_>) -> bool {
        match (self, resource) {
            (Reach::Everything, _) | (Reach::Edge, Resource::Edge) => true,
            (Reach::Bundles(pattern), Resource::Bundle { name: Some(name) }) => {
                pattern.matches(name.as_str())
            }
            (Reach::Bundles(pattern), Resource::Bundle { name: None }) => {
                matches!(pattern.as_str(), "*" | "**")
            }
            (Reach::Artifacts(pattern), Resource::Repository { name, path, .. }) => {
                reaches(pattern, name, path)
            }
            _ => false,
        }
    }
}

/// Whether `pattern` matches an artifact, or a folder with its trailing `/`.
pub(crate) fn reaches(pattern: &Pattern, name: &RepositoryName, path: Option<&ArtifactPath>) -> bool {
    match path.map(ArtifactPath::as_str) {
        Some(path) => {
            pattern.matches_joined(&[name.as_str(), "/", path])
                || pattern.matches_joined(&[name.as_str(), "/", path, "/"])
        }
        None => pattern.matches_joined(&[name.as_str(), "/"]),
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reach::Everything => f.write_str("*"),
            Reach::Edge => f.write_str("edge"),
            Reach::Bundles(pattern) => write!(f, "bundle:{pattern}"),
            Reach::Artifacts(pattern) => write!(f, "{pattern}"),
        }
    }
}

impl FromStr for Reach {
    type Err = Error;

    fn from_str(text: &str) -> Result<Reach> {
        match text {
            "*" => Ok(Reach::Everything),
            "edge" => Ok(Reach::Edge),
            _ => match text.strip_prefix("bundle:") {
                Some(pattern) => Ok(Reach::Bundles(pattern.parse()?)),
                None if text.contains(':') => Err(Error::invalid(format!(
                    "{:?} reaches nothing: expected \"*\", \"edge\", \"bundle:PATTERN\" or a pattern of repository/path",
                    text.chars().take(80).collect::<String>()
                ))),
                None => Ok(Reach::Artifacts(text.parse()?)),
            },
        }
    }
}

/// Some actions on some things: `read,list:files/shop/**`, `sign:bundle:shop*`, `audit:edge`, `*:*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// What may be done.
    pub actions: ActionSet,
    /// To what.
    pub reach: Reach,
}

impl Scope {
    /// Whether `action` on `resource` is in the scope.
    pub fn contains(&self, action: Action, resource: Resource<'_>) -> bool {
        self.actions.contains(action) && self.reach.contains(resource)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.actions, self.reach)
    }
}

impl FromStr for Scope {
    type Err = Error;

    fn from_str(text: &str) -> Result<Scope> {
        let (actions, reach) = text.split_once(':').ok_or_else(|| {
            let shown: String = text.chars().take(80).collect();
            Error::invalid(format!(
                "{shown:?} is not a scope: expected actions and what they reach, like read,list:files/**"
            ))
        })?;
        Ok(Scope { actions: actions.parse()?, reach: reach.parse()? })
    }
}

text_serde!(ActionSet, Reach, Scope);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::BundleName;

    #[test]
    fn scopes_are_written_as_they_are_read() {
        for text in ["read,list:files/shop/**", "sign:bundle:shop*", "audit:edge", "*:*", "mint:files/a.bin"]
        {
            assert_eq!(text.parse::<Scope>().unwrap().to_string(), text);
        }
        for bad in ["", "read", "reed:*", "read:", "read:bundle:", "read:x:y", ":*", "read,:*", "Read:*"] {
            assert!(bad.parse::<Scope>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_scope_contains_what_it_names() {
        let files = RepositoryName::new("files").unwrap();
        let (app, shop) = (ArtifactPath::new("shop/app").unwrap(), ArtifactPath::new("shop").unwrap());
        let shop2 = ArtifactPath::new("shop2/app").unwrap();
        let name = BundleName::new("shop").unwrap();
        let at = |path| Resource::Repository { name: &files, path, public: false };
        let bundle = |name| Resource::Bundle { name };
        let scope = |text: &str| text.parse::<Scope>().unwrap();
        let reading = scope("read,list:files/shop/**");
        assert!(reading.contains(Action::Read, at(Some(&app))));
        assert!(reading.contains(Action::List, at(Some(&shop))), "its own folder");
        assert!(!reading.contains(Action::Read, at(Some(&shop2))));
        assert!(!reading.contains(Action::List, at(None)));
        assert!(!reading.contains(Action::Withdraw, at(Some(&app))));
        assert!(!reading.contains(Action::Read, bundle(Some(&name))));
        assert!(scope("list:files/**").contains(Action::List, at(None)));
        assert!(scope("sign:bundle:sh*").contains(Action::Sign, bundle(Some(&name))));
        assert!(!scope("list:bundle:sh*").contains(Action::List, bundle(None)));
        assert!(scope("list:bundle:*").contains(Action::List, bundle(None)));
        assert!(!scope("*:files/**").contains(Action::Administer, Resource::Edge));
        assert!(scope("*:*").contains(Action::Administer, Resource::Edge));
        assert!(scope("audit:edge").contains(Action::Audit, Resource::Edge));
    }
}
