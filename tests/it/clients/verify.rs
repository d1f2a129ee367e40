//! Every line of `docs/verify.md`, run as a reader runs it.
//!
//! A section has two blocks: one fetches, one verifies. The second must succeed, and must fail once
//! a bit of what it verifies is flipped.

use std::fs;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::house::House;
use super::tool::{self, installed, node_modules, present, program, run};

/// The blocks of one section of the page.
fn section(title: &str) -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/verify.md");
    let page = fs::read_to_string(page).unwrap();
    let text = page.split("\n## ").find(|section| section.lines().next() == Some(title));
    let text = text.unwrap_or_else(|| panic!("docs/verify.md has no section {title}"));
    let blocks = text.split("\n```sh\n").skip(1);
    blocks.map(|block| block.split_once("\n```").unwrap().0.to_owned()).collect()
}

/// A reader's directory beside a serving edge.
struct Reader {
    house: House,
    directory: tempfile::TempDir,
    prelude: String,
}

impl Reader {
    fn new() -> Reader {
        let house = House::new(&["berlin"]);
        house.add("tools", "app 1.bin", &b"application".repeat(1000));
        house.add("docs/manual", "index.html", b"<p>manual");
        house.release("shop", "1.0", &[]);
        house.source.good(&["distribute", "shop", "1.0", "--edge", "*"]);
        let directory = tempfile::tempdir().unwrap();
        // A reader stands in a checkout.
        std::os::unix::fs::symlink(
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"),
            directory.path().join("tests"),
        )
        .unwrap();
        let prelude = section("Where from").join("\n");
        let prelude = prelude.replace("http://127.0.0.1:8080", &house.url("berlin"));
        Reader { house, directory, prelude }
    }

    fn shell(&self, block: &str) -> (bool, String) {
        let mut path = std::env::var_os("PATH").unwrap_or_default();
        if let Some(bin) = tool::python().parent().filter(|bin| !bin.as_os_str().is_empty()) {
            let mut all = vec![bin.to_owned()];
            all.extend(std::env::split_paths(&path));
            path = std::env::join_paths(all).unwrap();
        }
        // Short, because gpg's agent listens on a socket in there.
        let home = self.directory.path().join(".g");
        if fs::create_dir(&home).is_ok() {
            use std::os::unix::fs::PermissionsExt as _;
            fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
        }
        let script = format!("set -euo pipefail\n{{\n{}\n}} >/dev/null\n{block}", self.prelude);
        run(program("bash")
            .args(["-c", &script])
            .current_dir(self.directory.path())
            .env("PATH", path)
            .env("NODE_PATH", node_modules())
            .env("GNUPGHOME", &home))
    }

    /// Fetches and verifies after the page's section `title`, has `signed` refused with a bit
    /// flipped, and gives what the tool said to the good file.
    fn follow(&self, title: &str, signed: &str) -> String {
        let blocks = section(title);
        let [fetch, verify] = blocks.as_slice() else { panic!("{title} has {} blocks", blocks.len()) };
        let (fetched, said) = self.shell(fetch);
        assert!(fetched, "{title}: {said}");
        let (good, praise) = self.shell(verify);
        assert!(good, "{title}: {praise}");
        let file = self.directory.path().join(signed);
        let bytes = fs::read(&file).unwrap();
        let refused = |altered: &[u8], what: &str| {
            fs::write(&file, altered).unwrap();
            let (bad, said) = self.shell(verify);
            assert!(!bad, "{title} takes {signed} with {what}: {said}");
        };
        for at in [bytes.len() / 2, bytes.len() / 3] {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            refused(&altered, &format!("a flipped bit in byte {at}"));
        }
        if let Some(altered) = other_payload(&bytes) {
            refused(&altered, "another file name in its payload");
        }
        fs::write(&file, &bytes).unwrap();
        assert!(self.shell(verify).0, "{title}: it was not the altered bytes that were refused");
        praise
    }
}

/// The envelope, in a sigstore bundle or by itself, around another statement as well-formed.
fn other_payload(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut json: Value = serde_json::from_slice(bytes).ok()?;
    let envelope = if json.get("dsseEnvelope").is_some() { &mut json["dsseEnvelope"] } else { &mut json };
    let payload = STANDARD.decode(envelope["payload"].as_str()?).unwrap();
    let payload = String::from_utf8(payload).unwrap();
    assert!(payload.contains("app 1.bin"));
    envelope["payload"] = STANDARD.encode(payload.replace("app 1.bin", "app 2.bin")).into();
    Some(json.to_string().into_bytes())
}

/// What every section needs to fetch.
fn ready() -> bool {
    installed("curl") && installed("jq")
}

#[test]
fn gpg_verifies_a_downloaded_bundle() {
    if ready() && installed("gpg") {
        let said = Reader::new().follow("gpg", "release-bundle.pae");
        assert!(said.contains("Good signature"), "{said}");
    }
}

#[test]
fn sqv_verifies_a_downloaded_bundle() {
    if ready() && installed("sqv") {
        let reader = Reader::new();
        let fingerprint = reader.follow("sqv", "release-bundle.pae");
        let keys = reader.house.source.json(&["key", "list"]);
        let keys = keys["keys"].as_array().unwrap();
        let id = keys.iter().find(|key| key["pair"]["alias"] == "manager").unwrap()["id"].as_str().unwrap();
        assert_eq!(fingerprint.trim().to_lowercase(), id);
    }
}

#[test]
fn openssl_verifies_a_downloaded_bundle() {
    if ready() && present("openssl", Command::new("openssl").arg("version")) {
        let said = Reader::new().follow("openssl", "release-bundle.pae");
        assert!(said.contains("Signature Verified Successfully"), "{said}");
    }
}

#[test]
fn securesystemslib_verifies_a_downloaded_bundle() {
    let probe = "import securesystemslib.dsse, cryptography";
    if ready() && present("securesystemslib (Python)", Command::new(tool::python()).args(["-c", probe])) {
        let reader = Reader::new();
        let ids = reader.follow("securesystemslib", "release-bundle.json.dsse");
        assert_eq!(ids.trim().len(), 64, "{ids}");
        // One key is not two.
        let verify = section("securesystemslib")[1].replace(".dsse 1", ".dsse 2");
        assert!(!reader.shell(&verify).0);
    }
}

#[test]
fn sigstore_verifies_a_downloaded_bundle() {
    let mut probe = Command::new("node");
    probe.env("NODE_PATH", node_modules()).args(["-e", "require('@sigstore/verify')"]);
    if ready() && present("@sigstore/verify (node)", &mut probe) {
        Reader::new().follow("sigstore", "release-bundle.sigstore.json");
    }
}

#[test]
fn the_files_of_a_verified_bundle_are_checked_against_it() {
    if ready() {
        let reader = Reader::new();
        reader.follow("From the bundle to its files", "tools/app 1.bin");
        let manual = fs::read(reader.directory.path().join("docs/manual/index.html")).unwrap();
        assert_eq!(manual, b"<p>manual");
    }
}
