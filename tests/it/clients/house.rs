//! One source and its edges, all programs of their own, as their operators run them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::process::EdgeProcess;

/// The program `source` with its data directory.
pub struct SourceProgram {
    program: PathBuf,
    data: PathBuf,
}

impl SourceProgram {
    fn new(data: PathBuf) -> SourceProgram {
        let program = crate::process::edge_binary().with_file_name("source");
        assert!(program.exists(), "{} is missing: run `cargo build --examples` first", program.display());
        SourceProgram { program, data }
    }

    /// A command of the source, free of this machine's own settings.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).stdin(Stdio::null()).env("DISTEDGE_SOURCE_DATA", &self.data);
        command.env_remove("DISTEDGE_EDGE_TOKEN").env_remove("RUST_LOG");
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the source starts")
    }

    /// Runs a command that has to succeed, and gives its standard output.
    pub fn good(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.good(&[&["--json"], arguments].concat())).unwrap()
    }

    /// What `source status` says of an edge.
    pub fn status(&self, edge: &str) -> Value {
        named(&self.json(&["status"]), |row| &row["edge"]["name"], edge)
    }
}

/// The row of a list whose name is `name`.
pub fn named(rows: &Value, of: impl Fn(&Value) -> &Value, name: &str) -> Value {
    let row = rows.as_array().unwrap().iter().find(|row| *of(row) == name);
    row.unwrap_or_else(|| panic!("{name} is not in {rows}")).clone()
}

/// A source with two release keys, one of each kind, both of which must sign; and edges that it
/// knows by the addresses they listen on.
pub struct House {
    directory: tempfile::TempDir,
    pub source: SourceProgram,
    edges: BTreeMap<String, EdgeProcess>,
    tokens: BTreeMap<String, String>,
}

impl House {
    pub fn new(names: &[&str]) -> House {
        let directory = tempfile::tempdir().unwrap();
        let source = SourceProgram::new(directory.path().join("source"));
        source.good(&["init"]);
        source.good(&["key", "new", "manager", "--type", "openpgp"]);
        source.good(&["key", "threshold", "2"]);
        let mut house = House { directory, source, edges: BTreeMap::new(), tokens: BTreeMap::new() };
        for name in names {
            house.start(name);
            house.know(name, &house.url(name));
        }
        house
    }

    /// Starts an edge, for the first time or again.
    pub fn start(&mut self, name: &str) {
        let (data, log, token) = (self.data(name), self.path(&format!("{name}.log")), self.token_file(name));
        let token = token.to_str().unwrap();
        let edge = EdgeProcess::start(&data, &log, &["--name", name, "--public", "--token-file", token]);
        self.tokens.insert(name.to_owned(), fs::read_to_string(token).unwrap().trim().to_owned());
        self.edges.insert(name.to_owned(), edge);
    }

    /// Makes the source know an edge at `url`.
    pub fn know(&self, name: &str, url: &str) {
        self.source.good(&[
            "edge",
            "add",
            name,
            url,
            "--token-file",
            self.token_file(name).to_str().unwrap(),
        ]);
    }

    /// kill -9.
    pub fn kill(&mut self, name: &str) {
        self.edges.remove(name).unwrap().kill();
    }

    pub fn edge(&self, name: &str) -> &EdgeProcess {
        &self.edges[name]
    }

    pub fn url(&self, name: &str) -> String {
        format!("http://{}", self.edge(name).address)
    }

    pub fn token(&self, name: &str) -> &str {
        &self.tokens[name]
    }

    /// The data directory of an edge.
    pub fn data(&self, name: &str) -> PathBuf {
        self.path(name)
    }

    /// Adds a file to be released.
    pub fn add(&self, to: &str, name: &str, content: &[u8]) {
        let file = self.path("to-add");
        fs::write(&file, content).unwrap();
        self.source.good(&["add", to, file.to_str().unwrap(), "--as", name, "--label", "approved"]);
    }

    /// Makes a bundle of all that is labelled, signed with both keys.
    pub fn release(&self, name: &str, version: &str, options: &[&str]) {
        let create = ["bundle", "create", name, version, "--label", "approved"];
        self.source.good(&[&create[..], options].concat());
        self.source.good(&["bundle", "sign", name, version, "--key", "release", "--key", "manager"]);
        self.source.good(&["bundle", "verify", name, version]);
    }

    /// A path in the directory that goes away with the house.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn token_file(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.token"))
    }
}

/// The file in which an edge keeps a blob.
pub fn blob_file(data: &Path, digest: &str) -> PathBuf {
    fn find(directory: &Path, name: &str) -> Option<PathBuf> {
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).find_map(|path| {
            if path.is_dir() { find(&path, name) } else { path.ends_with(name).then_some(path) }
        })
    }
    let hex = digest.trim_start_matches("sha256:");
    find(data, hex).unwrap_or_else(|| panic!("{} has no blob {hex}", data.display()))
}
