//! Steering: one address, and a version for everybody.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::document::{Choice, Chosen, Document, Otherwise, Steer};
use super::index::Names;
use super::language::Preferences;
use crate::access::{AccessRequest, Action, Refusal, RefusalKind, Resource, Steering};
use crate::error::{Error, Result};
use crate::name::ArtifactPath;

/// What stands for the version in a [`Template`].
const VERSION: &str = "{version}";

/// A path of a repository, or everything below a folder (`shop/current/**`). In the target of a
/// steering rule `{version}` stands for what was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The path, or the folder without `/**`.
    path: Box<str>,
    folder: bool,
}

impl Template {
    /// Whether it stands for everything below a folder.
    pub fn is_folder(&self) -> bool {
        self.folder
    }

    /// Whether `{version}` stands in it.
    pub fn has_version(&self) -> bool {
        self.path.contains(VERSION)
    }

    /// What `path` has behind the folder; nothing behind a single path; `None` if `path` is not one
    /// of those it stands for.
    fn rest<'p>(&self, path: &'p str) -> Option<&'p str> {
        let rest = path.strip_prefix(&*self.path)?;
        match (self.folder, rest.strip_prefix('/')) {
            (true, Some(below)) => Some(below),
            (false, None) if rest.is_empty() => Some(""),
            _ => None,
        }
    }

    fn fill(&self, version: &str, rest: &str) -> Result<ArtifactPath> {
        let mut path = self.path.replace(VERSION, version);
        if self.folder {
            path.push('/');
            path.push_str(rest);
        }
        ArtifactPath::new(&path)
    }
}

impl FromStr for Template {
    type Err = Error;

    fn from_str(text: &str) -> Result<Template> {
        let (path, folder) = match text.strip_suffix("/**") {
            Some(path) => (path, true),
            None => (text, false),
        };
        let filled = path.replace(VERSION, "1");
        if filled.contains(['*', '?', '{', '}']) {
            let shown: String = text.chars().take(80).collect();
            return Err(Error::invalid(format!(
                "{shown:?} is neither one path nor a folder like shop/current/**; the only other thing that may stand in it is {VERSION}"
            )));
        }
        ArtifactPath::new(&filled)?;
        Ok(Template { path: path.into(), folder })
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.path, if self.folder { "/**" } else { "" })
    }
}

impl Serialize for Template {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The steering rules of a document, by repository.
#[derive(Clone, Debug, Default)]
pub(super) struct Steers(Names<Vec<usize>>);

impl Steers {
    pub(super) fn new(document: &Document) -> Steers {
        let mut found = Names::<Vec<usize>>::default();
        for (at, steer) in document.steers.iter().enumerate() {
            found.entry(steer.repository.as_str().into()).or_default().push(at);
        }
        Steers(found)
    }

    /// Where the first rule about the request's path sends it.
    pub(super) fn steer(
        &self,
        document: &Document,
        request: &AccessRequest<'_>,
    ) -> Result<Option<Steering>, Refusal> {
        let (Action::Read, Resource::Repository { name, path: Some(_), .. }) =
            (request.action, request.resource)
        else {
            return Ok(None);
        };
        let Some(rules) = self.0.get(name.as_str()) else { return Ok(None) };
        for rule in rules {
            let steer = &document.steers[*rule];
            if let Some(rest) = steer.concerns(request) {
                return steer.apply(request, rest).map(Some);
            }
        }
        Ok(None)
    }
}

impl Steer {
    /// What the request's path has behind `from`; `None` if this rule is not about it.
    pub(super) fn concerns<'p>(&self, request: &AccessRequest<'p>) -> Option<&'p str> {
        match (request.action, request.resource) {
            (Action::Read, Resource::Repository { name, path: Some(path), .. })
                if *name == self.repository =>
            {
                self.from.rest(path.as_str())
            }
            _ => None,
        }
    }

    /// What this client gets.
    ///
    /// Of the choices for the client's country, those before the first one that names no languages
    /// compete: the client's preferences decide. If none of them suits, that first one is taken;
    /// if there is none, what is said under `otherwise`.
    fn chosen(&self, request: &AccessRequest<'_>) -> Option<&Chosen> {
        let open = |choice: &&Choice| {
            choice.countries.is_empty()
                || request.country.is_some_and(|country| choice.countries.contains(&country))
        };
        let open = self.choose.iter().filter(open);
        let competing = open.clone().take_while(|choice| !choice.languages.is_empty());
        let preferences = Preferences::read(request.languages);
        preferences
            .best(competing.map(|choice| (choice.languages.as_slice(), &choice.then)))
            .or_else(|| open.clone().find(|choice| choice.languages.is_empty()).map(|choice| &choice.then))
            .or(match &self.otherwise {
                Otherwise::Take(chosen) => Some(chosen),
                Otherwise::Deny => None,
            })
    }

    pub(super) fn apply(&self, request: &AccessRequest<'_>, rest: &str) -> Result<Steering, Refusal> {
        let chosen = self.chosen(request).ok_or_else(|| self.nothing_for(request))?;
        let path = self
            .to
            .fill(chosen.as_str(), rest)
            .map_err(|error| self.refuse(format!("what is chosen has no sound path: {}", error.message())))?;
        let version = match chosen {
            Chosen::Version(version) => Some(version.clone()),
            Chosen::Alias(_) => None,
        };
        Ok(Steering { path, bundle: self.bundle.clone(), version, rule: self.name.clone() })
    }

    #[cold]
    fn nothing_for(&self, request: &AccessRequest<'_>) -> Refusal {
        let country = request.country.map_or("an unknown country".to_owned(), |country| country.to_string());
        self.refuse(format!(
            "no version is meant for a client in {country} with the languages {:?}",
            request.languages.unwrap_or_default()
        ))
    }

    #[cold]
    fn refuse(&self, reason: String) -> Refusal {
        Refusal::new(RefusalKind::Restriction, self.name.clone(), reason)
    }
}
