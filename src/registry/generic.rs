//! Generic repositories: files under paths.
//!
//! | path | means |
//! |---|---|
//! | `/{repository}/{path}` | an artifact, or an alias of one |
//! | `/{repository}/`, `/{repository}/{folder}/` | a folder's listing |
//! | `/artifactory/…` | the same, for clients that expect the prefix |

use crate::error::{Error, ErrorKind, Result};
use crate::name::{ArtifactPath, RepositoryName, Target};

/// What a path means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The repository.
    pub repository: RepositoryName,
    /// The path inside it; `None` for its top.
    pub path: Option<ArtifactPath>,
    /// Whether the path ended in `/`: a listing is asked for.
    pub folder: bool,
    /// Whether anything can be there: no artifact has a path that breaks the rules of paths.
    pub possible: bool,
}

/// Reads a target as a path of a generic repository.
///
/// # Errors
/// [`ErrorKind::NotFound`] if no repository can have such a name.
pub fn route(target: &Target) -> Result<Route> {
    let segments = match target.segments() {
        [first, rest @ ..] if first == "artifactory" => rest,
        segments => segments,
    };
    let Some((repository, path)) = segments.split_first() else { return Err(nothing()) };
    // A name that cannot exist is absent: what is malformed was refused before.
    let repository = RepositoryName::new(repository).map_err(|_| nothing())?;
    let (path, possible) = match path {
        [] => (None, true),
        path => {
            let path = ArtifactPath::new(&path.join("/")).ok();
            let possible = path.is_some();
            (path, possible)
        }
    };
    Ok(Route { repository, path, folder: target.has_trailing_slash(), possible })
}

#[cold]
fn nothing() -> Error {
    Error::new(ErrorKind::NotFound, "there is nothing under this path")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_changes_nothing() {
        let plain = route(&Target::parse("/libs/app/1.0/a.bin").unwrap()).unwrap();
        assert_eq!(route(&Target::parse("/artifactory/libs/app/1.0/a.bin").unwrap()).unwrap(), plain);
        assert_eq!(plain.path.unwrap().as_str(), "app/1.0/a.bin");
        let top = route(&Target::parse("/libs/").unwrap()).unwrap();
        assert_eq!((top.path, top.folder), (None, true));
    }

    #[test]
    fn names_that_cannot_exist_are_absent() {
        for path in ["/", "/Upper/x", "/api/x", "/artifactory/artifactory/x", "/artifactory/"] {
            let error = route(&Target::parse(path).unwrap()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound, "{path}");
        }
        let impossible = route(&Target::parse("/libs/e%CC%81").unwrap()).unwrap();
        assert!(!impossible.possible && impossible.path.is_none());
    }
}
