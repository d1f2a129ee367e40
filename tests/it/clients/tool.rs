//! Other people's programs, which may be missing.
//!
//! `scripts/install-clients` installs them all. What is not there is named and passed over; under
//! `CI=true` that is a failure.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Runs a command; whether it succeeded, and what it said.
pub fn run(command: &mut Command) -> (bool, String) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|cause| panic!("{command:?}: {cause}"));
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// Runs a command that has to succeed, and gives what it said.
pub fn good(command: &mut Command) -> String {
    let (good, said) = run(command);
    assert!(good, "{command:?}: {said}");
    said
}

/// A program, not led astray by this machine's proxy settings.
pub fn program(name: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(name);
    command.env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1");
    command
}

/// Whether a program is there, told by a command that has to succeed.
pub fn present(name: &str, probe: &mut Command) -> bool {
    let there = probe.stdin(Stdio::null()).output().is_ok_and(|output| output.status.success());
    if !there {
        missing(&format!("{name} is not installed here (scripts/install-clients does it)"));
    }
    there
}

/// Whether a program that has the option `--version` is there.
pub fn installed(name: &str) -> bool {
    present(name, Command::new(name).arg("--version"))
}

/// Something that a test needs is not there.
pub fn missing(what: &str) {
    assert!(!in_ci(), "{what}, and CI=true");
    eprintln!("SKIPPED: {what}; nothing was compared with it");
}

fn in_ci() -> bool {
    std::env::var("CI").as_deref() == Ok("true")
}

/// The Python that has the libraries: `DISTEDGE_PYTHON`, the one that was installed for it, or the
/// machine's.
pub fn python() -> PathBuf {
    named("DISTEDGE_PYTHON", "python/bin/python").unwrap_or_else(|| "python3".into())
}

/// The directory with the libraries for Node: `DISTEDGE_NODE_MODULES`, the one that was installed
/// for it, or this one.
pub fn node_modules() -> PathBuf {
    named("DISTEDGE_NODE_MODULES", "node").unwrap_or_else(|| ".".into()).join("node_modules")
}

/// Where `scripts/install-clients` puts what Debian does not have.
pub fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients")
}

fn named(variable: &str, here: &str) -> Option<PathBuf> {
    let path = home().join(here);
    std::env::var_os(variable).map(PathBuf::from).or_else(|| path.exists().then_some(path))
}
