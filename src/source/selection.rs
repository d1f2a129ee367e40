//! Which artifacts are meant: path patterns, labels and a query together.

use std::collections::BTreeSet;

use super::artifact::Artifact;
use super::query::Query;
use crate::pattern::Pattern;

/// A choice of artifacts. All that is given must hold: one of the patterns, every label, and
/// the query. A selection that asks nothing selects nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selection {
    patterns: Vec<Pattern>,
    labels: BTreeSet<String>,
    query: Option<Query>,
    /// Nothing but these places, where they were judged one by one.
    only: Option<BTreeSet<String>>,
}

impl Selection {
    /// The selection of nothing.
    pub fn new() -> Selection {
        Selection::default()
    }

    /// Every artifact.
    pub fn all() -> Selection {
        Selection { patterns: Pattern::new("**").into_iter().collect(), ..Selection::default() }
    }

    /// Adds a pattern over `repository/path`; one of the patterns has to match.
    #[must_use]
    pub fn with_pattern(mut self, pattern: Pattern) -> Selection {
        self.patterns.push(pattern);
        self
    }

    /// Adds a label that has to be there.
    #[must_use]
    pub fn with_label(mut self, label: impl Into<String>) -> Selection {
        self.labels.insert(label.into());
        self
    }

    /// Sets the query that has to answer yes.
    #[must_use]
    pub fn with_query(mut self, query: Query) -> Selection {
        self.query = Some(query);
        self
    }

    /// The same selection, narrowed to these artifacts: one that comes meanwhile is not selected.
    #[must_use]
    pub(super) fn limited_to(mut self, artifacts: &[Artifact]) -> Selection {
        self.only = Some(artifacts.iter().map(Artifact::place).collect());
        self
    }

    /// Whether nothing was asked, so that nothing is selected.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty() && self.labels.is_empty() && self.query.is_none()
    }

    /// The labels that have to be there.
    pub fn labels(&self) -> &BTreeSet<String> {
        &self.labels
    }

    /// Whether `artifact` is selected.
    pub fn matches(&self, artifact: &Artifact) -> bool {
        !self.is_empty()
            && self.only.as_ref().is_none_or(|only| only.contains(&artifact.place()))
            && self.labels.is_subset(&artifact.labels)
            && (self.patterns.is_empty() || {
                let place = artifact.place();
                self.patterns.iter().any(|pattern| pattern.matches(&place))
            })
            && self.query.as_ref().is_none_or(|query| query.matches(artifact))
    }

    /// The characters that `repository/path` of every selected artifact begins with.
    pub(super) fn literal_prefix(&self) -> String {
        match self.patterns.as_slice() {
            [only] => only.literal_prefix().to_owned(),
            _ => String::new(),
        }
    }
}
