//! Guards the arrows between the modules: they only go down, and modules of one layer do not name
//! each other. Reads the source text, so it needs nothing of the crate itself.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// The layers from the bottom up. A module may name what stands in an earlier row, and itself.
const LAYERS: &[(&str, &[&str])] = &[
    ("L0 words: error", &["error"]),
    ("L0 words", &["digest", "name", "range", "clock", "blocking", "json", "merkle", "pattern", "place"]),
    ("L0 words made of words", &["secret", "access", "address", "window"]),
    ("L1 key", &["key"]),
    ("L1 documents", &["bundle", "link", "token", "delta"]),
    ("L2 ports", &["blob", "meta", "auth", "policy", "audit", "transport", "geo"]),
    ("beside: testing", &["testing"]),
    ("L3 catalog", &["catalog"]),
    ("L3 use cases", &["registry", "distribute", "peer", "govern"]),
    ("L4 services", &["edge", "source"]),
    ("L5 rims", &["server", "capi"]),
];

/// The crates that speak HTTP, and the modules or files that may know them.
const HTTP_CRATES: &[&str] =
    &["http", "http_body", "http_body_util", "httpdate", "hyper", "hyper_util", "hyper_rustls"];
const HTTP_KNOWN_IN: &[&str] = &["auth", "edge", "source", "server", "capi", "transport/http.rs"];

#[test]
fn arrows_only_go_down() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(files.len() > 50, "only {} files of Rust under {}", files.len(), root.display());
    let mut breaches = Vec::new();
    for file in files {
        let path = file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        breaches.extend(judge(&path, &fs::read_to_string(&file).unwrap()));
    }
    let shown: Vec<String> = breaches.iter().map(Breach::to_string).collect();
    assert!(shown.is_empty(), "{} breaches of the layers:\n{}", shown.len(), shown.join("\n"));
}

#[test]
fn a_breach_is_seen_however_it_is_written() {
    let seen = |path: &str, text: &str| -> Vec<(usize, String)> {
        judge(path, text).into_iter().map(|breach| (breach.line, breach.why)).collect()
    };
    for (path, text, line, why) in [
        ("blob/mod.rs", "\nuse crate::catalog::Catalog;\n", 2, "`blob` names `catalog`"),
        ("blob/fs.rs", "fn f() { crate::edge::run() }", 1, "`blob` names `edge`"),
        (
            "blob/fs.rs",
            "use crate::{\n    error::Error,\n    meta::{Batch, Entry},\n};",
            3,
            "`blob` names `meta`",
        ),
        ("edge/mod.rs", "pub use crate::source::Source;", 1, "`edge` names `source`"),
        ("edge/open.rs", "use super::super::source;", 1, "`edge` names `source`"),
        ("digest.rs", "use super::{error::Error, name::Tenant};", 1, "`digest` names `name`"),
        ("digest.rs", "mod tests { use super::super::key; }", 1, "`digest` names `key`"),
        ("key/mod.rs", "use distedge::bundle;", 1, "`key` names `bundle`"),
        ("edge/mod.rs", "use crate::testing::Flaky;", 1, "`edge` names `testing`"),
        ("catalog/mod.rs", "use http::StatusCode;", 1, "`catalog` names the crate `http`"),
        ("transport/mod.rs", "fn f(u: ::http::Uri) {}", 1, "`transport` names the crate `http`"),
        ("meta/mod.rs", "use ::http::Uri;", 1, "`meta` names the crate `http`"),
        ("meta/mod.rs", "use http;", 1, "`meta` names the crate `http`"),
        ("meta/mod.rs", "use hyper::{Request};", 1, "`meta` names the crate `hyper`"),
        ("helper.rs", "", 1, "`helper` stands in no layer"),
        ("lib.rs", "pub mod error;\npub mod misc;", 2, "`misc` stands in no layer"),
        ("edge/mod.rs", "let a = \"// \\\" \"; crate::misc::f();", 1, "`misc` stands in no layer"),
        ("edge/mod.rs", "let a: &'a str = '\"'; crate::server::f();", 1, "`edge` names `server`"),
    ] {
        let found = seen(path, text);
        assert_eq!(found.len(), 1, "{path}: {text}: {found:?}");
        assert_eq!(found[0].0, line, "{path}: {text}");
        assert!(found[0].1.starts_with(why), "{path}: {text}: {}", found[0].1);
    }
    for (path, text) in [
        (
            "blob/fs.rs",
            "// crate::edge\n/// [`crate::server`]\n/* crate::source /* nested */ crate::catalog */",
        ),
        ("blob/fs.rs", "let text = \"crate::edge\"; let raw = r#\"use crate::edge; \" \"#;"),
        ("blob/fs.rs", "use super::ext; mod tests { use super::super::edge; use super::*; }"),
        ("edge/body.rs", "use http::StatusCode; use crate::{edge::Body, error::Error};"),
        ("transport/mod.rs", "pub use self::http::HttpTransport;"),
        ("transport/http.rs", "use http::Uri; use crate::error::Error;"),
        ("testing/mod.rs", "crate::blob_store_suite!(a); $crate::testing::run(); use crate::meta::Batch;"),
    ] {
        assert_eq!(seen(path, text), [], "{path}: {text}");
    }
}

/// One place where a module names what it must not.
struct Breach {
    file: String,
    line: usize,
    text: String,
    why: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  src/{}:{}: {}\n    {}", self.file, self.line, self.why, self.text)
    }
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn row(module: &str) -> Option<usize> {
    LAYERS.iter().position(|(_, modules)| modules.contains(&module))
}

/// Why `from` may not name `to`, if so.
fn forbidden(from: &str, to: &str) -> Option<String> {
    let Some(target) = row(to) else {
        return Some(format!("`{to}` stands in no layer of tests/layers.rs"));
    };
    if from == to || from == "lib" {
        return None;
    }
    let home = row(from)?;
    // Nothing that ships stands on the conformance suites.
    if target < home && to != "testing" {
        return None;
    }
    Some(format!("`{from}` names `{to}`, which is not below it: {} → {}", LAYERS[home].0, LAYERS[target].0))
}

/// All breaches in the file at `path` (below `src`) with this text.
fn judge(path: &str, text: &str) -> Vec<Breach> {
    let segments: Vec<&str> = path.trim_end_matches(".rs").split('/').filter(|part| *part != "mod").collect();
    let module = segments[0];
    let mut breaches = Vec::new();
    let mut report = |line: usize, why: String| {
        let shown = text.lines().nth(line - 1).unwrap_or_default().trim().to_owned();
        breaches.push(Breach { file: path.to_owned(), line, text: shown, why });
    };
    if module != "lib" && row(module).is_none() {
        report(1, format!("`{module}` stands in no layer of tests/layers.rs"));
        return breaches;
    }
    let knows_http = HTTP_KNOWN_IN.iter().any(|known| *known == module || *known == path);

    let code = tokens(&blanked(text));
    let word = |at: usize| code.get(at).map_or("", |token| token.1.as_str());
    // How deep the file's module is below the root, and the brace depths at which `mod x {` began.
    let depth = if module == "lib" { 0 } else { segments.len() };
    let (mut braces, mut inline) = (0, Vec::new());
    for at in 0..code.len() {
        match word(at) {
            "{" => {
                braces += 1;
                if at >= 2 && word(at - 2) == "mod" {
                    inline.push(braces);
                }
            }
            "}" => {
                if inline.last() == Some(&braces) {
                    inline.pop();
                }
                braces -= 1;
            }
            "mod" if module == "lib" && braces == 0 => {
                if let Some(why) = forbidden(module, word(at + 1)) {
                    report(code[at].0, why);
                }
            }
            "crate" | "distedge" if word(at + 1) == "::" => {
                for (line, to) in named(&code, at + 2) {
                    forbidden(module, to).into_iter().for_each(|why| report(line, why));
                }
            }
            "super" if word(at + 1) == "::" && (at == 0 || word(at - 1) != "::") => {
                let mut after = at + 2;
                let mut up = 1;
                while word(after) == "super" && word(after + 1) == "::" {
                    (after, up) = (after + 2, up + 1);
                }
                if up == depth + inline.len() {
                    for (line, to) in named(&code, after) {
                        forbidden(module, to).into_iter().for_each(|why| report(line, why));
                    }
                }
            }
            name if HTTP_CRATES.contains(&name) && !knows_http => {
                let imported = at > 0 && word(at - 1) == "use";
                // `::http::` is the crate, `self::http::` is not.
                let keyword = ["", "use", "dyn", "impl", "as", "mut", "in", "return"]
                    .contains(&word(at.saturating_sub(2)));
                let inner = at > 0 && word(at - 1) == "::" && !keyword && is_word(word(at - 2));
                if imported || word(at + 1) == "::" && !inner {
                    report(code[at].0, format!("`{module}` names the crate `{name}`, but may not know HTTP"));
                }
            }
            _ => {}
        }
    }
    breaches
}

/// The names a path goes on with at `at`: one, or those of a group. A macro stands in no module.
fn named(code: &[(usize, String)], at: usize) -> Vec<(usize, &str)> {
    let word = |at: usize| code.get(at).map_or("", |token| token.1.as_str());
    if word(at) != "{" {
        let known = word(at + 1) != "!" && word(at).starts_with(|c: char| c.is_alphabetic());
        return if known { vec![(code[at].0, word(at))] } else { Vec::new() };
    }
    let (mut names, mut depth) = (Vec::new(), 0);
    for (index, (line, token)) in code.iter().enumerate().skip(at) {
        match token.as_str() {
            "{" => depth += 1,
            "}" if depth == 1 => break,
            "}" => depth -= 1,
            name if depth == 1 && ["{", ","].contains(&word(index - 1)) => names.push((*line, name)),
            _ => {}
        }
    }
    names
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// Words, `::` and single other characters, each with its line.
fn tokens(code: &str) -> Vec<(usize, String)> {
    let mut tokens: Vec<(usize, String)> = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let mut rest = line;
        while let Some(first) = rest.chars().next() {
            let length = if is_word(&rest[..first.len_utf8()]) {
                rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            if !first.is_whitespace() {
                tokens.push((number + 1, rest[..length].to_owned()));
            }
            rest = &rest[length..];
        }
    }
    tokens
}

/// The text without comments and without what stands in strings; lines stay where they are.
fn blanked(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(length) = raw_string(rest, &code) {
            length
        } else if first == '"' {
            string(rest)
        } else if first == '\'' {
            // A character such as '"', or the tick of a lifetime.
            let mut after = rest[1..].chars();
            match (after.next(), after.next()) {
                (Some('\\'), _) => 3 + rest[3..].find('\'').unwrap_or(0),
                (Some(one), Some('\'')) => 2 + one.len_utf8(),
                _ => 1,
            }
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        code.push(' ');
        code.extend(rest[..length].chars().filter(|c| *c == '\n'));
        rest = &rest[length..];
    }
    code
}

fn block_comment(text: &str) -> usize {
    let (mut at, mut depth) = (2, 1);
    while depth > 0 && at < text.len() {
        if text.as_bytes()[at..].starts_with(b"/*") {
            (at, depth) = (at + 2, depth + 1);
        } else if text.as_bytes()[at..].starts_with(b"*/") {
            (at, depth) = (at + 2, depth - 1);
        } else {
            at += 1;
        }
    }
    at
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn raw_string(text: &str, before: &str) -> Option<usize> {
    if before.ends_with(|c: char| c.is_alphanumeric() && c != 'b' && c != 'c' || c == '_') {
        return None;
    }
    let hashes = text.strip_prefix('r')?.bytes().take_while(|byte| *byte == b'#').count();
    let body = text[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(2 + hashes + body.find(&end)? + end.len())
}
