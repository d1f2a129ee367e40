//! What is in a folder: as JSON, or as a plain page for people.

use std::fmt::Write as _;

use http::Response;
use http::header::{ACCEPT, CONTENT_SECURITY_POLICY, HeaderValue, VARY};
use http::request::Parts;
use serde::Serialize;

use super::problem::Problem;
use super::service::{Edge, nothing};
use super::{Admitted, Body, media};
use crate::catalog::Listing;
use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::error::Error;
use crate::name::{ArtifactPath, RepositoryName, encode_segment};

/// Most entries of one answer.
const MOST: usize = 1000;

#[derive(Serialize)]
struct Page<'a> {
    repository: &'a RepositoryName,
    path: &'a str,
    entries: Vec<Row<'a>>,
    /// The `last` parameter that continues this listing.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<&'a str>,
}

#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    folder: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    modified: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alias_of: Option<&'a ArtifactPath>,
}

/// Answers with one level of a repository. `?n=` bounds the entries, `?last=` continues.
pub(super) async fn respond(
    edge: &Edge,
    parts: &Parts,
    admitted: &Admitted,
    repository: &RepositoryName,
    folder: Option<&ArtifactPath>,
) -> Result<Response<Body>, Problem> {
    let (limit, last) = paging(parts.uri.query().unwrap_or_default())?;
    let listing = edge.receiver().catalog().list(repository, folder, last.as_deref(), limit).await?;
    if listing.entries.is_empty() && folder.is_some() && last.is_none() {
        return Err(nothing());
    }
    let page = page(repository, folder, &listing);
    let wants_html = parts
        .headers
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html") && !accept.starts_with("application/json"));
    let mut response = if wants_html {
        let mut response = media::document(admitted.head, "text/html; charset=utf-8", html(&page));
        let policy =
            HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'");
        response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
        response
    } else {
        media::json(admitted.head, &page)?
    };
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    Ok(response)
}

fn page<'a>(
    repository: &'a RepositoryName,
    folder: Option<&'a ArtifactPath>,
    listing: &'a Listing,
) -> Page<'a> {
    let rows = listing.entries.iter().map(|entry| Row {
        name: &entry.name,
        folder: entry.folder,
        size: entry.artifact.as_ref().map(|artifact| artifact.size),
        digest: entry.artifact.as_ref().map(|artifact| artifact.digest),
        modified: entry.artifact.as_ref().map(|artifact| artifact.modified),
        alias_of: entry.alias_of.as_ref(),
    });
    Page {
        repository,
        path: folder.map_or("", ArtifactPath::as_str),
        entries: rows.collect(),
        next: listing.next.as_deref(),
    }
}

/// Reads `n` and `last`; other parameters change nothing.
fn paging(query: &str) -> Result<(usize, Option<String>), Problem> {
    let (mut limit, mut last) = (MOST, None);
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match name {
            "n" => {
                let asked: u64 = value.parse().map_err(|_| bad_paging("\"n\" is not a number"))?;
                limit = MOST.min(usize::try_from(asked).unwrap_or(MOST)).max(1);
            }
            "last" => last = Some(decode(value).ok_or_else(|| bad_paging("\"last\" is not a name"))?),
            _ => {}
        }
    }
    Ok((limit, last))
}

/// Decodes one name, which may end in `/` but hold none inside.
fn decode(value: &str) -> Option<String> {
    let value = value.replace("%2F", "/").replace("%2f", "/");
    let (name, slash) = match value.strip_suffix('/') {
        Some(name) => (name, "/"),
        None => (&*value, ""),
    };
    let target = crate::name::Target::parse(&format!("/{name}")).ok()?;
    match target.segments() {
        [segment] if !target.has_trailing_slash() => Some(format!("{segment}{slash}")),
        _ => None,
    }
}

#[cold]
fn bad_paging(why: &'static str) -> Problem {
    Problem::of(&Error::invalid(why))
}

fn html(page: &Page<'_>) -> String {
    let mut text = String::from("<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>");
    let mut title = page.repository.to_string();
    if !page.path.is_empty() {
        title.push('/');
        title.push_str(page.path);
    }
    escape(&title, &mut text);
    text.push_str("</title><style>body{font:1rem system-ui;margin:2rem}td{padding:.1rem 1rem .1rem 0}code{font-size:.8rem}</style><h1>");
    escape(&title, &mut text);
    text.push_str(
        "</h1><table><tr><th align=left>name<th align=right>bytes<th align=left>time<th align=left>sha256",
    );
    if !page.path.is_empty() {
        text.push_str("<tr><td><a href=\"../\">../</a><td><td><td>");
    }
    for row in &page.entries {
        let slash = if row.folder { "/" } else { "" };
        let mut link = String::from("./");
        encode_segment(row.name, &mut link);
        // Writing to a String does not fail.
        let _ = write!(text, "<tr><td><a href=\"{link}{slash}\">");
        escape(row.name, &mut text);
        let _ = write!(text, "{slash}</a>");
        if let Some(target) = row.alias_of {
            text.push_str(" → ");
            escape(target.as_str(), &mut text);
        }
        let size = row.size.map(|size| size.to_string()).unwrap_or_default();
        let time = row.modified.map(|time| time.to_string()).unwrap_or_default();
        let digest = row.digest.map(|digest| digest.to_hex()).unwrap_or_default();
        let _ = write!(text, "<td align=right>{size}<td>{time}<td><code>{digest}</code>");
    }
    text.push_str("</table>");
    if let Some(next) = page.next {
        let mut link = String::from("?last=");
        encode_segment(next, &mut link);
        let _ = write!(text, "<p><a href=\"{link}\">more</a>");
    }
    text.push('\n');
    text
}

fn escape(from: &str, to: &mut String) {
    for c in from.chars() {
        match c {
            '&' => to.push_str("&amp;"),
            '<' => to.push_str("&lt;"),
            '>' => to.push_str("&gt;"),
            '"' => to.push_str("&quot;"),
            '\'' => to.push_str("&#39;"),
            c => to.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_data_in_a_page() {
        let repository = RepositoryName::new("r").unwrap();
        let row = Row {
            name: "\"><script>'&",
            folder: false,
            size: None,
            digest: None,
            modified: None,
            alias_of: None,
        };
        let page = Page { repository: &repository, path: "", entries: vec![row], next: Some("a/") };
        let text = html(&page);
        assert!(!text.contains("<script>"), "{text}");
        assert!(text.contains("./%22%3E%3Cscript%3E%27%26"));
        assert!(text.contains("?last=a%2F"));
    }

    #[test]
    fn paging_parameters_are_read_strictly() {
        assert_eq!(paging("n=5&last=a%2F&x=../..").unwrap(), (5, Some("a/".into())));
        assert_eq!(paging("n=99999999999").unwrap().0, MOST);
        for bad in ["n=-1", "n=x", "last=../", "last=a%2Fb", "last=%00", "last="] {
            assert!(paging(bad).is_err(), "{bad}");
        }
    }
}
