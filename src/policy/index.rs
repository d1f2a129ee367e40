//! Finds the rules whose reach contains a resource without looking at all of them.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::access::{Reach, Resource, reaches};
use crate::pattern::Pattern;

/// FNV-1a. What is put into these tables comes from the operator's policy, so nobody else can make
/// keys collide.
#[derive(Clone, Debug)]
pub(super) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        // The table takes its seven tag bits from the top, where FNV mixes least.
        self.0 ^ self.0 << 32
    }
}

/// A table by name.
pub(super) type Names<T> = HashMap<Box<str>, T, BuildHasherDefault<Fnv>>;

/// Items by what they reach. Patterns whose first two segments hold no wildcard, which nearly all
/// patterns are, are found by those.
#[derive(Clone, Debug)]
pub(super) struct ReachIndex<T> {
    everything: Vec<T>,
    edge: Vec<T>,
    every_bundle: Vec<T>,
    bundles: Vec<(Pattern, T)>,
    repositories: Names<Repository<T>>,
    anywhere: Vec<(Pattern, T)>,
}

#[derive(Clone, Debug)]
struct Repository<T> {
    all: Vec<T>,
    folders: Names<Vec<(Pattern, T)>>,
    rest: Vec<(Pattern, T)>,
}

impl<T> Default for ReachIndex<T> {
    fn default() -> ReachIndex<T> {
        ReachIndex {
            everything: Vec::new(),
            edge: Vec::new(),
            every_bundle: Vec::new(),
            bundles: Vec::new(),
            repositories: Names::default(),
            anywhere: Vec::new(),
        }
    }
}

impl<T> Default for Repository<T> {
    fn default() -> Repository<T> {
        Repository { all: Vec::new(), folders: Names::default(), rest: Vec::new() }
    }
}

impl<T: Copy> ReachIndex<T> {
    pub(super) fn insert(&mut self, reach: &Reach, item: T) {
        match reach {
            Reach::Everything => self.everything.push(item),
            Reach::Edge => self.edge.push(item),
            Reach::Bundles(pattern) if matches!(pattern.as_str(), "*" | "**") => self.every_bundle.push(item),
            Reach::Bundles(pattern) => self.bundles.push((pattern.clone(), item)),
            Reach::Artifacts(pattern) => self.insert_artifacts(pattern, item),
        }
    }

    fn insert_artifacts(&mut self, pattern: &Pattern, item: T) {
        let literal = pattern.literal_prefix();
        let Some((repository, rest)) = literal.split_once('/') else {
            self.anywhere.push((pattern.clone(), item));
            return;
        };
        let repository = self.repositories.entry(repository.into()).or_default();
        let whole = literal.len() == pattern.as_str().len();
        match rest.split_once('/') {
            _ if rest.is_empty() && pattern.as_str()[literal.len()..] == *"**" => repository.all.push(item),
            Some((folder, _)) if !folder.is_empty() => {
                repository.folders.entry(folder.into()).or_default().push((pattern.clone(), item));
            }
            None if whole && !rest.is_empty() => {
                repository.folders.entry(rest.into()).or_default().push((pattern.clone(), item));
            }
            _ => repository.rest.push((pattern.clone(), item)),
        }
    }

    /// Whether `wanted` holds for any of the items that reach `resource`.
    pub(super) fn any(&self, resource: Resource<'_>, wanted: impl Fn(T) -> bool) -> bool {
        let all = |items: &[T]| items.iter().any(|item| wanted(*item));
        if all(&self.everything) {
            return true;
        }
        match resource {
            Resource::Edge => all(&self.edge),
            Resource::Bundle { name } => {
                all(&self.every_bundle)
                    || name.is_some_and(|name| {
                        self.bundles
                            .iter()
                            .any(|(pattern, item)| pattern.matches(name.as_str()) && wanted(*item))
                    })
            }
            Resource::Repository { name, path, .. } => {
                let some = |items: &[(Pattern, T)]| {
                    items.iter().any(|(pattern, item)| reaches(pattern, name, path) && wanted(*item))
                };
                if some(&self.anywhere) {
                    return true;
                }
                let Some(repository) = self.repositories.get(name.as_str()) else { return false };
                let first = path.and_then(|path| path.segments().next());
                all(&repository.all)
                    || some(&repository.rest)
                    || first
                        .and_then(|first| repository.folders.get(first))
                        .is_some_and(|patterns| some(patterns))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::{ArtifactPath, BundleName, RepositoryName};

    #[test]
    fn an_index_finds_what_a_reach_contains() {
        let reaches = [
            "*",
            "edge",
            "bundle:*",
            "bundle:**",
            "bundle:shop",
            "bundle:s*",
            "**",
            "files/**",
            "files/*",
            "files/shop/**",
            "files/shop",
            "files/shop/app",
            "files/sh*",
            "files/shop**",
            "fil?s/shop/*",
            "files/",
            "**/app",
            "files/**/app",
            "files/shop/",
            "f**",
            "files//**",
            "*/shop/**",
            "files/é/**",
        ];
        let repositories = ["files", "file", "other"].map(|name| RepositoryName::new(name).unwrap());
        let paths = ["shop", "shop/app", "shop2/app", "app", "é/x", "s", "a/b/app"]
            .map(|path| ArtifactPath::new(path).unwrap());
        let bundles = ["shop", "store", "x"].map(|name| BundleName::new(name).unwrap());
        let mut resources = vec![Resource::Edge, Resource::Bundle { name: None }];
        resources.extend(bundles.iter().map(|name| Resource::Bundle { name: Some(name) }));
        for name in &repositories {
            let paths = paths.iter().map(Some).chain([None]);
            resources.extend(paths.map(|path| Resource::Repository { name, path, public: false }));
        }
        let mut whole = ReachIndex::default();
        let parsed: Vec<Reach> = reaches.iter().map(|reach| reach.parse().unwrap()).collect();
        for (at, reach) in parsed.iter().enumerate() {
            whole.insert(reach, at);
        }
        for (at, reach) in parsed.iter().enumerate() {
            for resource in &resources {
                let found = whole.any(*resource, |item| item == at);
                assert_eq!(found, reach.contains(*resource), "{reach} {resource:?}");
            }
        }
    }
}
