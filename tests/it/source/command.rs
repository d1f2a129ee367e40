//! The command-line program, run as a user runs it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// The program beside this test, if the whole project was built (as `cargo test` does).
fn program() -> Option<PathBuf> {
    let test = std::env::current_exe().unwrap();
    let program =
        test.parent()?.parent()?.join("examples").join(format!("source{}", std::env::consts::EXE_SUFFIX));
    program.is_file().then_some(program)
}

struct Session {
    program: PathBuf,
    directory: tempfile::TempDir,
}

impl Session {
    fn new() -> Option<Session> {
        let Some(program) = program() else {
            eprintln!("skipped: the example `source` is not built; run `cargo test` without a target filter");
            return None;
        };
        Some(Session { program, directory: tempfile::tempdir().unwrap() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(args)
            .current_dir(self.directory.path())
            .env("DISTEDGE_SOURCE_DATA", self.path("data"))
            .env_remove("DISTEDGE_EDGE_TOKEN")
            .env_remove("DISTEDGE_SOURCE_TOKEN")
            .env_remove("DISTEDGE_AUTH_FILE")
            .env_remove("RUST_LOG")
            .stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn good(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        let args: Vec<&str> = ["--json"].iter().chain(args).copied().collect();
        serde_json::from_str(&self.good(&args)).unwrap()
    }

    /// The one sentence of a refusal.
    fn refused(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.starts_with("error: ") && error.lines().count() == 1, "{args:?}: {error}");
        error
    }
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_release_from_files_to_a_verified_envelope() {
    let Some(session) = Session::new() else { return };
    assert!(session.refused(&["list"]).contains("holds no source"));
    assert!(!session.path("data").exists(), "a mistyped path leaves nothing behind");
    session.good(&["init", "--openpgp"]);
    session.good(&["init"]);
    std::fs::create_dir(session.path("dist")).unwrap();
    std::fs::write(session.path("dist/app.bin"), "application").unwrap();
    std::fs::write(session.path("dist/README"), "read me").unwrap();
    let added =
        session.json(&["add", "generic-local/app/1.0", "dist", "--label", "built", "--prop", "os=linux"]);
    assert_eq!((added["added"].as_u64(), added["bytes"].as_u64()), (Some(2), Some(18)));
    session.good(&["label", "generic-local/app/1.0/**", "--add", "RC1-Approved"]);
    session.good(&["prop", "**/README", "--set", "os=any"]);
    let selected = session.json(&["select", "--query", "label=RC1-Approved and prop.os=linux"]);
    assert_eq!(selected[0]["path"], "app/1.0/app.bin");
    assert!(session.good(&["list", "-l"]).contains("RC1-Approved,built"));

    let create = ["bundle", "create", "app", "1.0", "--label", "RC1-Approved"];
    let bundle = session.json(&create);
    assert_eq!((bundle["state"].as_str(), bundle["seq"].as_u64()), (Some("draft"), Some(1)));
    session.good(&["bundle", "sign", "app", "1.0", "--key", "release", "--key", "release-pgp"]);
    assert!(session.good(&["bundle", "verify", "app", "1.0"]).contains("is good"));
    assert!(session.good(&["bundle", "show", "app", "1.0"]).contains("generic-local/app/1.0/README"));
    session.good(&["bundle", "export", "app", "1.0", "-o", "app.dsse"]);
    let envelope = std::fs::read(session.path("app.dsse")).unwrap();
    assert_eq!(distedge::bundle::Envelope::parse(&envelope).unwrap().signatures.len(), 2);
    assert!(session.run(&["bundle", "export", "app", "1.0", "--pae"]).stdout.starts_with(b"DSSEv1 "));

    std::fs::write(session.path("dist/app.bin"), "tampered").unwrap();
    assert!(session.refused(&["add", "generic-local/app/1.0", "dist"]).contains("other content"));
    assert!(session.refused(&["remove", "**"]).contains("is in the bundle app 1.0"));
    assert!(session.good(&["trust", "show"]).contains("Trust document 1 of tenant default"));
    assert!(session.good(&["key", "export", "release"]).starts_with("-----BEGIN PUBLIC KEY-----"));
    assert_eq!(session.json(&["status"]), Value::Array(Vec::new()));
}

#[cfg(unix)]
#[test]
fn secrets_are_for_their_owner_alone() {
    let Some(session) = Session::new() else { return };
    session.good(&["init"]);
    std::fs::write(session.path("token"), "eut1_very-secret\n").unwrap();
    session.good(&["edge", "add", "e1", "https://e1.example", "--token-file", "token"]);
    assert_eq!(mode(&session.path("data/keys")), 0o700);
    let mut files = 0;
    for entry in std::fs::read_dir(session.path("data/keys")).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
        files += 1;
    }
    assert_eq!(files, 4, "two keys, a token and the key of who this source is");
    let metadata = std::fs::read(session.path("data/meta.redb")).unwrap();
    assert!(!metadata.windows(11).any(|window| window == b"very-secret"));
    for args in [&["edge", "list"][..], &["status"], &["--json", "status", "e1"], &["edge", "add", "--help"]]
    {
        let mut command = session.command(args);
        let output = command.env("DISTEDGE_EDGE_TOKEN", "eut1_very-secret").output().unwrap();
        assert!(!String::from_utf8_lossy(&output.stdout).contains("very-secret"), "{args:?}");
    }
    let output = session.run(&["edge", "add", "e2", "https://e2.example", "--token", "eut1_x"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("warning: a token on the command line"));
    assert!(session.refused(&["edge", "add", "e3", "https://u:p@e3.example"]).contains("nothing secret"));
}

#[test]
fn an_unreachable_edge_is_told_and_costs_the_exit_code() {
    let Some(session) = Session::new() else { return };
    session.good(&["init"]);
    std::fs::write(session.path("x"), "1").unwrap();
    session.good(&["add", "files", "x"]);
    session.good(&["bundle", "create", "app", "1.0", "**", "--sign"]);
    // Nothing listens on the discard port of this machine.
    std::fs::write(session.path("token"), "eut1_t").unwrap();
    session.good(&["edge", "add", "e1", "http://127.0.0.1:9", "--token-file", "token", "--country", "CA"]);
    session.good(&["distribute", "app", "1.0", "--country", "c*", "--later"]);
    let output = session.run(&["--json", "sync"]);
    assert_eq!(output.status.code(), Some(1));
    let outcomes: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(outcomes[0]["drift"], 2);
    assert!(outcomes[0]["error"].is_string());
    let status = session.json(&["status"]);
    assert_eq!((status[0]["drift"].as_u64(), status[0]["desired"].as_u64()), (Some(2), Some(1)));
    assert!(status[0]["contact"]["error"].is_string());
    assert!(session.refused(&["distribute", "app", "1.0", "--edge", "z*"]).contains("no edge matches"));
}

#[test]
fn a_bundle_that_lacks_an_owner_says_so_when_it_is_signed() {
    let Some(session) = Session::new() else { return };
    session.good(&["init"]);
    session.good(&["key", "new", "second"]);
    session.good(&["key", "threshold", "2"]);
    std::fs::write(session.path("x"), "1").unwrap();
    session.good(&["add", "files", "x"]);
    let said = |args: &[&str]| String::from_utf8(session.run(args).stderr).unwrap();
    let lacking = "1 of 2 needed owners signed: it cannot be distributed yet.\n";
    assert_eq!(said(&["bundle", "create", "app", "1.0", "**", "--sign"]), lacking);
    assert!(session.refused(&["distribute", "app", "1.0", "--edge", "*"]).contains("no edge is known"));
    assert_eq!(said(&["bundle", "sign", "app", "1.0", "--key", "second"]), "");
}

#[test]
fn a_command_that_cannot_be_understood_is_exit_code_2() {
    let Some(session) = Session::new() else { return };
    for args in [
        &["frobnicate"][..],
        &[],
        &["list", "--query", "size>>5"],
        &["bundle", "create", "a b", "1.0"],
        &["sync", "--watch", "0"],
        &["edge", "add", "e1", "https://e1", "--country", "Canada"],
    ] {
        let output = session.run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
    let output = session.run(&["list", "--query", "repo=a and"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("at character 11"));
}

#[test]
fn an_edge_is_given_a_rate_and_hours() {
    let Some(session) = Session::new() else { return };
    session.good(&["init"]);
    assert!(session.refused(&["edge", "set", "e1", "--rate", "1MB"]).contains("no edge called e1"));
    session.good(&["edge", "add", "e1", "https://e1.example"]);
    let set =
        ["edge", "set", "e1", "--rate", "10MB", "--window", "22:00-06:00", "--window", "sat 00:00-24:00"];
    let edge = session.json(&set);
    assert_eq!(edge["rate"], 10_000_000);
    assert_eq!(edge["windows"], serde_json::json!(["22:00-06:00", "sat 00:00-24:00"]));
    assert!(session.good(&["edge", "list"]).contains("in a second, 22:00-06:00; sat 00:00-24:00"));
    // What is not given stays; `add` touches no limits.
    session.good(&["edge", "add", "e1", "https://e1.example:8443"]);
    let edge = session.json(&["edge", "set", "e1", "--any-time"]);
    assert_eq!((&edge["rate"], &edge["windows"]), (&Value::from(10_000_000), &Value::Null));
    let edge = session.json(&["edge", "set", "e1", "--rate", "none"]);
    assert_eq!(edge["rate"], Value::Null);
    for bad in [["--rate", "fast"], ["--rate", "0"], ["--window", "noon"], ["--window", "22:00-22:00"]] {
        let output = session.run(&["edge", "set", "e1", bad[0], bad[1]]);
        assert_eq!(output.status.code(), Some(2), "{bad:?}");
    }
}

/// Two people and a rule: alice signs, bob asks, carol agrees, and nobody does two of it.
#[test]
fn people_act_with_tokens_and_some_of_it_takes_two() {
    let Some(session) = Session::new() else { return };
    session.good(&["init"]);
    std::fs::write(session.path("app"), "application").unwrap();
    session.good(&["add", "files", "app"]);
    session.good(&["edge", "add", "e1", "https://e1.example"]);
    for name in ["alice", "bob", "carol", "root"] {
        let file = format!("{name}.token");
        session.good(&["token", "new", &format!("user:{name}"), "--out", &file]);
        assert_eq!(mode(&session.path(&file)), 0o600);
    }
    let policy = r#"
        [[grant]]
        name = "makers"
        to = ["user:alice"]
        may = ["label", "bundle", "sign", "distribute"]
        on = ["*"]
        [[grant]]
        name = "shippers"
        to = ["user:bob", "user:carol"]
        may = ["distribute", "withdraw"]
        on = ["bundle:app"]
        [[grant]]
        name = "administrators"
        to = ["user:root"]
        may = ["administer"]
        on = ["*"]
        [duties]
        signer_may_not_distribute = true
        four_eyes = ["distribute"]
    "#;
    std::fs::write(session.path("policy.toml"), policy).unwrap();
    std::fs::write(session.path("bad.toml"), policy.replace("four_eyes", "for_eyes")).unwrap();
    assert!(session.refused(&["policy", "check", "bad.toml"]).contains("four_eyes"));
    assert!(session.refused(&["policy", "put", "bad.toml"]).contains("bad.toml"));
    session.good(&["policy", "check", "policy.toml"]);
    assert!(session.good(&["policy", "put", "policy.toml"]).contains("Version 1"));

    let by = |name: &str, args: &[&'static str]| {
        let mut all = args.to_vec();
        let file = format!("{name}.token");
        all.extend(["--auth-file", file.leak()]);
        all
    };
    // The local operator is somebody with the files, and no longer anybody else.
    assert!(session.refused(&["bundle", "create", "app", "1.0", "**"]).contains("(token-required)"));
    assert!(session.refused(&["policy", "rollback", "1"]).contains("(token-required)"));
    session.good(&by("alice", &["bundle", "create", "app", "1.0", "**", "--sign"]));
    let distribute = ["distribute", "app", "1.0", "--edge", "*", "--later"];
    let refused = session.refused(&by("alice", &distribute));
    assert!(
        refused.contains("user:alice signed the bundle") && refused.contains("(signer-may-not-distribute)")
    );
    let mut ask = vec!["--json"];
    ask.extend(by("bob", &distribute));
    let asked: Value = serde_json::from_str(&session.good(&ask)).unwrap();
    let id: &str = asked["id"].as_str().unwrap().to_owned().leak();
    assert_eq!(
        (&asked["state"], &asked["requested_by"]),
        (&Value::from("waiting"), &Value::from("user:bob"))
    );
    assert!(session.good(&["approvals", "list"]).contains(id));
    assert!(session.refused(&by("bob", &["approvals", "approve", id])).contains("(four-eyes)"));
    assert!(
        session.refused(&by("alice", &["approvals", "approve", id])).contains("(signer-may-not-distribute)")
    );
    assert!(session.refused(&by("root", &["approvals", "approve", id])).contains("(no-grant)"));
    assert!(session.refused(&["approvals", "approve", id]).contains("(token-required)"));
    session.good(&by("carol", &["approvals", "approve", id]));
    assert!(session.good(&["approvals", "list", "--all"]).contains("approved by user:carol"));
    assert_eq!(session.json(&["bundle", "show", "app", "1.0"])["edges"][0]["edge"], "e1");
    session.good(&by("carol", &["bundle", "withdraw", "app", "1.0", "--reason", "bad build"]));

    // A token that is revoked, or that never was, opens nothing.
    let tokens = session.json(&["token", "list"]);
    let of = |name: &str| {
        let found =
            tokens.as_array().unwrap().iter().find(|token| token["principal"] == format!("user:{name}"));
        found.unwrap()["id"].as_str().unwrap().to_owned()
    };
    let revoke = ["token", "revoke", of("carol").leak(), "--reason", "she has left"];
    assert!(session.refused(&by("bob", &revoke)).contains("(no-grant)"));
    session.good(&by("root", &revoke));
    assert!(session.refused(&by("carol", &["approvals", "list"])).contains("not valid here"));
    let forged = session.command(&["status"]).env("DISTEDGE_SOURCE_TOKEN", "eut1_forged").output().unwrap();
    assert_eq!(forged.status.code(), Some(1));

    // Whoever has the files can still administer, and the log remembers that somebody did.
    let glass = ["--break-glass", "root has lost the token"];
    assert!(session.refused(&[&distribute[..], &glass[..]].concat()).contains("(token-required)"));
    session.good(&[&["token", "new", "user:root", "--out", "new.token"][..], &glass[..]].concat());
    let secret = std::fs::read_to_string(session.path("alice.token")).unwrap();
    let segments = std::fs::read_dir(session.path("data/audit/segment")).unwrap();
    let log: Vec<u8> = segments.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
    let log = String::from_utf8_lossy(&log);
    for trace in ["root has lost the token", "signer-may-not-distribute", "change.approved", "bundle.signed"]
    {
        assert!(log.contains(trace), "{trace}");
    }
    assert!(!log.contains(secret.trim()));
}

#[test]
fn a_link_is_minted_shown_once_and_taken_back() {
    let Some(session) = Session::new() else { return };
    session.good(&["init"]);
    std::fs::write(session.path("token"), "secret").unwrap();
    // Nobody listens there.
    session.good(&["edge", "add", "e1", "http://127.0.0.1:9/acme/", "--token-file", "token"]);
    let args = ["link", "mint", "files/app/", "--prefix", "--expires", "10m", "--network", "192.0.2.0/24"];
    let output = session.run(&args);
    let (url, told) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success() && url.starts_with("http://127.0.0.1:9/acme/files/app/?edge_token=v2."));
    assert!(told.contains("e1: not told"), "{told}");
    let said = session.json(&["link", "inspect", url.trim()]);
    assert_eq!(said["claims"]["res"][0]["p"], "files/app/");
    assert_eq!(said["claims"]["exp"].as_i64().unwrap() - said["claims"]["iat"].as_i64().unwrap(), 600);
    let id = said["claims"]["id"].as_str().unwrap();
    assert!(session.good(&["link", "list"]).contains(id));
    assert!(session.refused(&["link", "mint", "files/app/"]).contains("--prefix"));
    assert!(session.refused(&["link", "mint", "files/x", "--uses", "1"]).contains("one edge"));
    assert!(session.refused(&["link", "mint", "files/x", "--edge", "e9"]).contains("no edge called e9"));

    let output = session.run(&["link", "revoke", id, "--reason", "wrong partner"]);
    assert_eq!(output.status.code(), Some(1), "an edge was not told");
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.contains(&format!("Revoked {id}.")) && told.contains("e1: not told"), "{told}");
    assert!(session.good(&["link", "list"]).contains("wrong partner"));
    let key = said["key"].as_str().unwrap();
    let file = session.path("data/keys").join(format!("link-{key}.key"));
    assert_eq!(mode(&file), 0o600);
    session.run(&["link", "key", "revoke", key, "--reason", "lost"]);
    assert!(!file.exists(), "a revoked key leaves no secret");
    assert!(session.good(&["link", "key", "list"]).contains("revoked"));
}
