//! The edge as its operator meets it: configuration, first start, refusals, stop.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::time::Duration;

use crate::process::{EdgeProcess, edge_binary, edge_command, run};

const SOON: Duration = Duration::from_secs(20);

/// Checks a configuration; gives the exit code and the sentence.
fn check(text: &str) -> (i32, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("edge.toml");
    fs::write(&file, text).unwrap();
    let output = run(&["--check-config", "--config", file.to_str().unwrap()]);
    let said = String::from_utf8(output.stderr).unwrap();
    let said = said.replace(&format!("{}/", dir.path().display()), "");
    (output.status.code().unwrap(), said.trim_end().to_owned())
}

#[test]
fn the_sample_configuration_is_good() {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/edge/edge.toml");
    let output = run(&["--check-config", "--config", sample.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    assert!(!sample.with_file_name("edge-data").exists(), "a check made the data directory");
    // What is commented out is a key as well.
    let all: String = fs::read_to_string(&sample)
        .unwrap()
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(key) if key.contains(" = ") && !key.contains("pem") => format!("{key}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    assert!(all.contains("\nroots = ") && all.contains("\nhosts = ") && all.contains("\nconnections = "));
    assert_eq!(check(&all), (0, String::new()));
}

#[test]
fn a_configuration_fault_is_told_with_file_line_and_what_would_be_right() {
    let cases = [
        ("listne = \"x\"", "line 1: unknown key `listne`; did you mean `listen`?"),
        (
            "name = \"a\"\n[limits]\nheaders = 50\nstraems = 3",
            "line 4: unknown key `limits.straems`; did you mean `limits.streams`?",
        ),
        ("[limit]\nstreams = 3", "line 1: unknown key `limit`; did you mean `limits`?"),
        ("[log]\nzebra = 1", "line 2: unknown key `log.zebra`; known here are format, level"),
        (
            "listen = \"localhost\"",
            "line 1: `listen`: \"localhost\" is not an address to listen on: an IP address and a port, such as \"127.0.0.1:8080\"",
        ),
        ("\n\nname = \"A b\"", "line 3: `name`: \"A b\" is not a node name: 'A' is not allowed there"),
        ("name = 3", "line 1: `name`: invalid type: integer `3`, expected a string"),
        ("public = \"yes\"", "line 1: `public`: invalid type: string \"yes\", expected a boolean"),
        ("[limits]\nstreams = 0", "line 2: `limits.streams`: 0 is out of range: 1 to 10000 are possible"),
        (
            "[limits]\nidle_seconds = -1",
            "line 2: `limits.idle_seconds`: -1 is out of range: 1 to 86400 are possible",
        ),
        (
            "[[repository]]\nname = \"v2\"",
            "line 2: `repository.name`: \"v2\" is not a repository name: it is reserved for the edge itself",
        ),
        (
            "[[repository]]\nname = \"a\"\n[[repository]]\nname = \"a\"",
            "line 4: `repository.name`: a is described twice",
        ),
        ("[[repository]]\npublic = true", "line 1: a [[repository]] needs a `name`"),
        (
            "hosts = []",
            "line 1: `hosts`: the list is empty, and no request would be answered; leave it out to answer to any name",
        ),
        ("limits = 3", "line 1: `limits` is a table, this is: integer"),
        (
            "[tls]\ncert = \"no.pem\"\nkey = \"no.pem\"",
            "line 2: `tls.cert`: no.pem cannot be read: No such file or directory (os error 2)",
        ),
        ("[tls]\ncert = \"edge.toml\"", "line 1: [tls] needs both `cert` and `key`"),
        ("[trust]\nthreshold = 1", "line 1: `trust.threshold` needs `trust.roots`"),
        (
            "[trust]\nroots = [\"ed25519:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a\"]\nthreshold = 2",
            "line 1: [trust]: the threshold is 2, but the keys have 1 distinct owner(s): it must be 1 to 1",
        ),
        ("[log]\nformat = \"xml\"", "line 2: `log.format`: \"xml\" is neither \"text\" nor \"json\""),
        (
            "[log]\nlevel = \"loud\"",
            "line 2: `log.level`: \"loud\" is not a log level: error, warn, info, debug, trace, or a list like \"warn,distedge=debug\"",
        ),
        ("name = \"a\"\nname = \"b\"", "line 2: duplicate key"),
        ("[limits\n", "line 1: unclosed table, expected `]`"),
    ];
    for (text, sentence) in cases {
        assert_eq!(check(text), (2, format!("edge: edge.toml, {sentence}")), "{text}");
    }
    // A pair of files that are there and no certificate.
    let (code, said) = check("[tls]\ncert = \"edge.toml\"\nkey = \"edge.toml\"");
    assert!(code == 2 && said.contains("edge.toml"), "{said}");
}

#[test]
fn the_environment_overrides_the_file_and_a_flag_overrides_both() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("edge.toml");
    fs::write(&file, "name = \"of-the-file\"\ndata = \"data\"\nlisten = \"127.0.0.1:1\"").unwrap();
    let named = |environment: Option<&str>, arguments: &[&str]| {
        let mut command = edge_command();
        command.args(["--check-config", "--config"]).arg(&file).args(arguments);
        command.envs(environment.map(|value| ("DISTEDGE_LISTEN", value)));
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(named(None, &[]).0, Some(0));
    assert_eq!(named(Some("nonsense"), &["--listen", "127.0.0.1:0"]).0, Some(0));
    let (code, said) = named(Some("nonsense"), &[]);
    assert!(code == Some(2) && said.contains("nonsense") && said.contains("--listen"), "{said}");

    let log = dir.path().join("log");
    let other = dir.path().join("other");
    let edge =
        EdgeProcess::start(&other, &log, &["--config", file.to_str().unwrap(), "--name", "of-the-flag"]);
    assert_eq!(edge.get("/.well-known/distedge", None).json()["name"], "of-the-flag");
    assert!(!dir.path().join("data").exists());
}

#[test]
fn the_token_is_shown_once_kept_as_a_hash_and_the_identity_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (data, log) = (dir.path().join("data"), dir.path().join("log"));
    let edge = EdgeProcess::start(&data, &log, &[]);
    let token = edge.token().expect("the first start shows a token").to_owned();
    assert!(token.starts_with("eut1_") && token.len() == 5 + 43, "{token}");
    assert!(edge.told[1].contains("only time") && edge.told[1].contains("hash"), "{:?}", edge.told);
    let identity = edge.get("/.well-known/distedge", None).json()["identity"].clone();
    assert_eq!(edge.get("/healthz", None).status, 200);
    assert_eq!(edge.get("/readyz", None).status, 200);
    assert_eq!(edge.get("/metrics", None).status, 401);
    assert_eq!(edge.get("/metrics", Some("eut1_wrong")).status, 401);
    assert!(edge.get("/metrics", Some(&token)).text().contains("distedge_responses_total"));
    edge.terminate();
    assert_eq!(edge.wait(SOON).code(), Some(0));

    let edge = EdgeProcess::start(&data, &log, &[]);
    assert_eq!(edge.told.len(), 1, "a later start shows the address alone: {:?}", edge.told);
    assert_eq!(edge.get("/.well-known/distedge", None).json()["identity"], identity);
    assert_eq!(edge.get("/api/v1/status", Some(&token)).status, 200);
    edge.kill();
    let edge = EdgeProcess::start(&data, &log, &[]);
    assert_eq!(edge.get("/.well-known/distedge", None).json()["identity"], identity);
    assert_eq!(edge.get("/api/v1/status", Some(&token)).status, 200);
    edge.kill();

    let secret = token.trim_start_matches("eut1_").as_bytes();
    for file in ["data/meta.redb", "data/identity.key", "log"] {
        let bytes = fs::read(dir.path().join(file)).unwrap();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{file} shows the token");
    }
    assert_eq!(fs::metadata(data.join("identity.key")).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn a_token_file_is_its_owners_alone_and_nothing_is_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let (data, log, file) = (dir.path().join("data"), dir.path().join("log"), dir.path().join("token"));
    let to_file = ["--token-file", file.to_str().unwrap()];
    let edge = EdgeProcess::start(&data, &log, &to_file);
    assert_eq!(edge.token(), None);
    let token = fs::read_to_string(&file).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    assert_eq!(edge.get("/metrics", Some(token.trim_end())).status, 200);
    edge.kill();
    EdgeProcess::start(&data, &log, &to_file).kill();
    assert_eq!(fs::read_to_string(&file).unwrap(), token, "a later start leaves it alone");

    // Another edge, the same file: its token is shown rather than lost.
    let edge = EdgeProcess::start(&dir.path().join("other"), &log, &to_file);
    assert!(edge.token().is_some());
    assert_eq!(fs::read_to_string(&file).unwrap(), token);

    let nowhere = dir.path().join("missing/token");
    let third = dir.path().join("third");
    let said =
        EdgeProcess::try_start(&third, &log, &["--token-file", nowhere.to_str().unwrap()]).err().unwrap();
    assert!(said.contains("missing/token cannot be written"), "{said}");
    assert!(!third.exists(), "the edge was made although its token could not be handed over");
}

#[test]
fn tokens_are_made_and_listed_while_the_edge_stands_still() {
    let dir = tempfile::tempdir().unwrap();
    let (data, log) = (dir.path().join("data"), dir.path().join("log"));
    let path = data.to_str().unwrap().to_owned();
    let made = run(&["token", "new", "ops", "--data", &path]);
    assert_eq!(made.status.code(), Some(1));
    assert!(String::from_utf8(made.stderr).unwrap().contains("there is no edge in"));
    assert!(!data.exists());

    let edge = EdgeProcess::start(&data, &log, &[]);
    let refused = run(&["token", "new", "ops", "--data", &path]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("another process uses"));
    edge.terminate();
    assert_eq!(edge.wait(SOON).code(), Some(0));

    let made = String::from_utf8(run(&["token", "new", "ops", "--data", &path]).stdout).unwrap();
    let token = made.lines().next().unwrap().strip_prefix("token ops: ").unwrap();
    let again = run(&["token", "new", "ops", "--data", &path]);
    assert_eq!(String::from_utf8(again.stderr).unwrap(), "edge: there is a token named ops already\n");
    assert_eq!(run(&["token", "new", "a b", "--data", &path]).status.code(), Some(1));
    let list = String::from_utf8(run(&["token", "list", "--data", &path]).stdout).unwrap();
    let names: Vec<&str> = list.lines().map(|line| line.split('\t').next().unwrap()).collect();
    assert_eq!(names, ["admin", "ops"]);
    assert!(!list.contains("eut1_"));
    let edge = EdgeProcess::start(&data, &log, &[]);
    assert_eq!(edge.get("/metrics", Some(token)).status, 200);
    edge.terminate();
    assert_eq!(edge.wait(SOON).code(), Some(0));

    assert_eq!(run(&["token", "remove", "ops", "--data", &path]).status.code(), Some(0));
    let again = run(&["token", "remove", "ops", "--data", &path]);
    assert_eq!(String::from_utf8(again.stderr).unwrap(), "edge: there is no token named \"ops\"\n");
    let edge = EdgeProcess::start(&data, &log, &[]);
    assert_eq!(edge.get("/metrics", Some(token)).status, 401);
    assert_eq!(edge.token(), None, "the first token is still there");
}

#[test]
fn a_second_process_on_the_same_data_is_refused_and_the_first_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (data, log) = (dir.path().join("data"), dir.path().join("log"));
    let edge = EdgeProcess::start(&data, &log, &[]);
    let said = EdgeProcess::try_start(&data, &log, &[]).err().unwrap();
    assert!(said.starts_with("exit status: 1") && said.contains("another process uses"), "{said}");
    assert!(said.contains(data.to_str().unwrap()), "{said}");
    assert_eq!(edge.get("/readyz", None).status, 200);
}

#[test]
fn a_start_that_cannot_be_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (data, log, token) = (dir.path().join("data"), dir.path().join("log"), dir.path().join("token"));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = run(&[
        "--data",
        data.to_str().unwrap(),
        "--listen",
        &address,
        "--token-file",
        token.to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(&format!("listening on {address}: Address already in use")), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(!data.exists() && !token.exists());

    fs::write(&data, "not an edge").unwrap();
    let with_token = ["--token-file", token.to_str().unwrap()];
    let said = EdgeProcess::try_start(&data, &log, &with_token).err().unwrap();
    assert!(said.contains(&format!("the data directory {} is not a directory", data.display())), "{said}");
    assert_eq!(fs::read_to_string(&data).unwrap(), "not an edge");
    assert!(!token.exists());
}

#[test]
fn damaged_metadata_is_named_and_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (data, log) = (dir.path().join("data"), dir.path().join("log"));
    EdgeProcess::start(&data, &log, &[]).kill();
    let file = data.join("meta.redb");
    let good = fs::read(&file).unwrap();
    let halves = [b"this is no database".repeat(400), good[..good.len() / 2].to_vec()];
    for damaged in halves {
        fs::write(&file, &damaged).unwrap();
        let said = EdgeProcess::try_start(&data, &log, &[]).err().unwrap();
        assert!(said.starts_with("exit status: 1"), "{said}");
        let line = said.lines().find(|line| line.contains("edge: the metadata file")).unwrap_or(&said);
        assert!(line.contains(file.to_str().unwrap()) && line.contains("is damaged"), "{said}");
        assert_eq!(fs::read(&file).unwrap().len(), damaged.len(), "the evidence was changed");
    }
    fs::write(&file, good).unwrap();
    EdgeProcess::start(&data, &log, &[]).kill();

    fs::write(data.join("identity.key"), "scribble").unwrap();
    let said = EdgeProcess::try_start(&data, &log, &[]).err().unwrap();
    assert!(said.contains("identity.key") && !said.contains("scribble"), "{said}");
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let closed = dir.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
    let root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let binary = dir.path().join("edge");
    if fs::hard_link(edge_binary(), &binary).is_err() {
        fs::copy(edge_binary(), &binary).unwrap();
    }
    for data in [closed.clone(), closed.join("data")] {
        let mut command = std::process::Command::new(&binary);
        command.args(["--listen", "127.0.0.1:0", "--data"]).arg(&data);
        if root {
            // Nothing is closed to root.
            command.uid(65534).gid(65534);
        }
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        let line = said.lines().last().unwrap();
        assert!(line.contains(closed.to_str().unwrap()) && line.contains("Permission denied"), "{said}");
        assert_eq!(fs::read_dir(&closed).unwrap().count(), 0);
        assert!(!String::from_utf8(output.stdout).unwrap().contains("eut1_"));
    }
}

#[test]
fn the_log_is_json_when_asked_and_never_shows_credentials() {
    let dir = tempfile::tempdir().unwrap();
    let (data, log, file) = (dir.path().join("data"), dir.path().join("log"), dir.path().join("edge.toml"));
    fs::write(&file, "[log]\nformat = \"json\"\nlevel = \"debug\"").unwrap();
    let edge = EdgeProcess::start(&data, &log, &["--config", file.to_str().unwrap()]);
    let token = edge.token().unwrap().to_owned();
    edge.get("/api/v1/status?token=s3cret", Some(&token));
    edge.get("/api/v1/status", Some("eut1_wrong-one"));
    edge.terminate();
    let log = {
        let path = log.clone();
        assert_eq!(edge.wait(SOON).code(), Some(0));
        fs::read_to_string(path).unwrap()
    };
    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert!(lines.iter().any(|line| line["message"] == "request" && line["status"] == 401), "{log}");
    for secret in [token.as_str(), "wrong-one", "s3cret"] {
        assert!(!log.contains(secret), "{log}");
    }
}

/// What the process holds in memory, in bytes.
fn resident(edge: &EdgeProcess) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", edge.pid().as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
}

/// K08: whoever tries tokens must not fill the memory with them, in whatever form they come.
#[test]
fn a_hundred_thousand_bad_tokens_leave_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    let (data, log) = (dir.path().join("data"), dir.path().join("log"));
    let edge = EdgeProcess::start(&data, &log, &["--log", "error"]);
    let address = edge.address;
    let try_tokens = move |from: u32, to: u32| {
        let mut wire = crate::http::rig::Wire::to(address);
        for batch in (from..to).step_by(100) {
            let requests: String = (batch..batch + 100)
                .map(|number| {
                    let credentials = match number % 4 {
                        0 => format!("Authorization: Bearer eut1_{number:048}"),
                        1 => format!("Authorization: Bearer emt1_{number:048}"),
                        2 => format!("X-JFrog-Art-Api: {number:064}"),
                        _ => format!("Authorization: Bearer {number:040}.{number:040}.{number:040}"),
                    };
                    format!("GET /api/v1/status HTTP/1.1\r\nHost: a\r\n{credentials}\r\n\r\n")
                })
                .collect();
            wire.send(requests);
            for _ in 0..100 {
                assert_eq!(wire.reply(false).status, 401);
            }
        }
    };
    try_tokens(0, 4_000);
    let before = resident(&edge);
    let threads: Vec<_> = (0..4_u32)
        .map(|part| std::thread::spawn(move || try_tokens(10_000 + part * 25_000, 35_000 + part * 25_000)))
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let grown = resident(&edge).saturating_sub(before);
    assert!(grown <= 16 << 20, "100,000 bad tokens left {grown} bytes");
    assert_eq!(edge.get("/healthz", None).status, 200);
}

/// K07: a process that may open 128 files, and a thousand clients.
#[test]
fn more_clients_than_files_are_turned_away_and_room_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let (data, log) = (dir.path().join("data"), dir.path().join("log"));
    let edge = EdgeProcess::start_with_files(&data, &log, 128, &[]);
    let status = |path| crate::process::call(edge.address, "GET", path, None, b"").map(|reply| reply.status);
    for _ in 0..10 {
        // A hundred at once are twice as many as there is room for, and few enough for this process.
        let held: Vec<_> = (0..100).map(|_| std::net::TcpStream::connect(edge.address).ok()).collect();
        // Answered or turned away; never a hanging or a dead process.
        assert!(matches!(status("/healthz"), Ok(200 | 503) | Err(_)));
        drop(held);
    }
    let healed = (0..250).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        matches!(status("/healthz"), Ok(200))
    });
    assert!(healed, "{}", edge.log());
    assert!(!edge.log().contains("panicked"), "{}", edge.log());
}

#[test]
fn what_connections_must_prove_is_configured() {
    for (text, sentence) in [
        (
            "[tls]\nclient_auth = \"always\"",
            "line 2: `tls.client_auth`: \"always\" is neither \"optional\" nor \"required\"",
        ),
        (
            "[tls]\nclient_ca = \"edge.toml\"",
            "line 1: [tls] needs both `client_ca` and `client_auth`, or neither",
        ),
        (
            "[tls]\nclient_ca = \"edge.toml\"\nclient_auth = \"required\"",
            "line 1: [tls] needs both `cert` and `key`",
        ),
        (
            "[server]\nproxy_protocl = []",
            "line 2: unknown key `server.proxy_protocl`; did you mean `server.proxy_protocol`?",
        ),
    ] {
        assert_eq!(check(text), (2, format!("edge: edge.toml, {sentence}")), "{text}");
    }
    let (code, said) = check("[server]\nproxy_protocol = [\"10.0.0.0/33\"]");
    assert!(code == 2 && said.contains("line 2: `server.proxy_protocol`"), "{said}");

    // The whole way: who comes from a balancer, and what the log says of the request.
    let dir = tempfile::tempdir().unwrap();
    let (data, log, file) = (dir.path().join("data"), dir.path().join("log"), dir.path().join("edge.toml"));
    fs::write(&file, "[server]\nproxy_protocol = [\"127.0.0.0/8\"]").unwrap();
    let edge = EdgeProcess::start(&data, &log, &["--config", file.to_str().unwrap()]);
    let ask = |header: &str| {
        let mut wire = crate::http::rig::Wire::to(edge.address);
        wire.send(format!("{header}GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"));
        wire.try_reply(false).map(|reply| reply.status)
    };
    assert_eq!(ask("PROXY TCP4 192.0.2.7 198.51.100.1 4711 80\r\n"), Some(200));
    assert_eq!(ask("PROXY UNKNOWN\r\n"), Some(200));
    assert_eq!(ask(""), None);
    assert!(edge.log().contains("192.0.2.7"), "{}", edge.log());
}
