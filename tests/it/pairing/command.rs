//! The two command lines, over a socket, and what is left in their directories.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::process::{EdgeProcess, edge_binary, edge_command};

struct Desk {
    home: TempDir,
    edge: EdgeProcess,
    url: String,
}

impl Desk {
    fn new() -> Desk {
        let home = TempDir::new().unwrap();
        let at = |name: &str| home.path().join(name);
        let admin = at("admin.token");
        let edge = EdgeProcess::start(
            &at("edge"),
            &at("edge.log"),
            &["--name", "e1", "--token-file", admin.to_str().unwrap()],
        );
        let url = format!("http://{}", edge.address);
        Desk { home, edge, url }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The edge's command line, asking the edge that runs.
    fn ask(&self, arguments: &[&str]) -> Output {
        let admin = self.path("admin.token");
        let mut command = edge_command();
        command.args(arguments).args(["--url", &self.url, "--auth-file", admin.to_str().unwrap()]);
        command.stdin(Stdio::null()).output().unwrap()
    }

    fn source(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut command = Command::new(edge_binary().with_file_name("source"));
        command.arg("--data").arg(self.path("source")).args(arguments);
        command.env_remove("DISTEDGE_EDGE_TOKEN").env("DISTEDGE_SOURCE_DATA", self.path("source"));
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = pipes.spawn().unwrap();
        // A command that wants no input may be gone already.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }
}

fn good(output: Output) -> String {
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    String::from_utf8(output.stdout).unwrap()
}

/// Files under `directory` that hold `secret`.
fn holders(directory: &Path, secret: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holders(&path, secret));
        } else if fs::read(&path).unwrap().windows(secret.len()).any(|window| window == secret) {
            found.push(path);
        }
    }
    found
}

#[test]
fn a_source_is_paired_serves_and_is_let_go() {
    if !edge_binary().with_file_name("source").exists() {
        return;
    }
    let desk = Desk::new();
    let token = desk.path("pairing.token");
    let said = good(desk.ask(&["pair-token", "--ttl", "120", "--out", token.to_str().unwrap()]));
    assert!(said.contains("source-edge with e1"), "{said}");
    let pairing = fs::read(&token).unwrap();
    good(desk.source(&["init"], b""));
    let wrong = ["edge", "pair", "e1", &desk.url, "--fingerprint", "0000-0000-0000-0000"];
    assert_eq!(desk.source(&wrong, &pairing).status.code(), Some(1));
    good(desk.source(&["edge", "pair", "e1", &desk.url, "--call-me", "house"], &pairing));
    let again = desk.source(&["edge", "pair", "e1", &desk.url], &pairing);
    assert!(String::from_utf8_lossy(&again.stderr).contains("paired already"), "{again:?}");

    fs::write(desk.path("app.bin"), b"the bytes of a release").unwrap();
    let file = desk.path("app.bin");
    good(desk.source(&["add", "files/app", file.to_str().unwrap(), "--label", "good"], b""));
    good(desk.source(&["bundle", "create", "app", "1.0", "--label", "good", "--sign"], b""));
    good(desk.source(&["distribute", "app", "1.0", "--edge", "e1"], b""));
    let status: Value = serde_json::from_str(&good(desk.source(&["--json", "key", "status"], b""))).unwrap();
    assert_eq!((&status["status"], &status["details"][0]["state"]), (&"SUCCESS".into(), &"SUCCESS".into()));
    good(desk.source(&["edge", "rotate", "e1"], b""));
    good(desk.source(&["sync"], b""));
    let listed = good(desk.ask(&["pairings"]));
    assert!(listed.contains("house\tconfirmed"), "{listed}");

    let user = desk.path("user.token");
    let out = ["user-token", "new", "user:alice", "--ttl", "600", "--out", user.to_str().unwrap()];
    good(desk.ask(&out));
    assert!(good(desk.ask(&["user-token", "list"])).contains("user:alice"));

    // F13: nothing that was issued is in the edge's directory or its log; the master token is in one
    // file of the source's vault.
    let vault = desk.path("source").join("keys");
    let mut masters = Vec::new();
    for entry in fs::read_dir(&vault).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        if bytes.starts_with(b"emt1_") {
            masters.push(bytes);
        }
    }
    assert_eq!(masters.len(), 1);
    for secret in
        [&pairing, &fs::read(&user).unwrap(), &masters[0], &fs::read(desk.path("admin.token")).unwrap()]
    {
        let secret = secret.trim_ascii();
        for part in [secret, &secret[secret.len() - 40..secret.len() - 9]] {
            assert_eq!(holders(&desk.path("edge"), part), Vec::<PathBuf>::new());
            let log = fs::read(desk.path("edge.log")).unwrap();
            assert!(!log.windows(part.len()).any(|window| window == part));
        }
    }
    assert_eq!(holders(&desk.path("source"), masters[0].trim_ascii()).len(), 1);

    good(desk.ask(&["unpair", "house", "--reason", "moved"]));
    let refused = desk.source(&["sync"], b"");
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(good(desk.ask(&["pairings"])).is_empty());
    good(desk.source(&["edge", "unpair", "e1"], b""));
    drop(desk.edge);
}
