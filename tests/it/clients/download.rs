//! A release of real packages, fetched by the clients of their own worlds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use super::tool::{self, installed, missing, present, program, run};

/// The packages, by the repository they go to.
pub struct Packages(pub Vec<(&'static str, Vec<PathBuf>)>);

impl Packages {
    /// Two wheels, two Debian packages, one npm tarball; less if a client is missing or what it asks
    /// for cannot be reached, which is told.
    pub fn fetched() -> Packages {
        static ONE: Mutex<()> = Mutex::new(());
        let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut pip = pip("download");
        pip.args(["--no-deps", "--only-binary=:all:", "idna==3.10", "six==1.17.0"]);
        let mut apt = program("apt-get");
        apt.args(["download", "--quiet", "hostname", "netbase"]);
        let mut npm = program("npm");
        npm.args(["pack", "--silent", "ms@2.1.3"]);
        let worlds = [
            ("wheels", pip_is_here(), pip, ".whl", 2),
            ("debian", installed("apt-get"), apt, ".deb", 2),
            ("npm", installed("npm"), npm, ".tgz", 1),
        ];
        let mut packages = Vec::new();
        for (repository, here, mut client, suffix, count) in worlds {
            if here && let Some(files) = fetch(repository, &mut client, suffix) {
                assert_eq!(files.len(), count, "{files:?}");
                packages.push((repository, files));
            }
        }
        Packages(packages)
    }
}

/// A command of pip.
pub fn pip(command: &str) -> Command {
    let mut pip = program(tool::python());
    pip.args(["-m", "pip", "--disable-pip-version-check", command, "--quiet"]);
    pip
}

/// Whether there is a pip.
pub fn pip_is_here() -> bool {
    present("pip", Command::new(tool::python()).args(["-m", "pip", "--version"]))
}

/// What `client` downloads into its working directory; kept for the next run.
fn fetch(name: &str, client: &mut Command, suffix: &str) -> Option<Vec<PathBuf>> {
    let kept = tool::home().join("packages").join(name);
    if !kept.exists() {
        fs::create_dir_all(kept.parent().unwrap()).unwrap();
        let directory = tempfile::tempdir_in(kept.parent().unwrap()).unwrap();
        let mut tries = 0;
        loop {
            tries += 1;
            let (done, said) = run(client.current_dir(directory.path()));
            if done {
                break;
            }
            if tries == 3 {
                missing(&format!("{client:?} fails: {}", said.trim()));
                return None;
            }
            std::thread::sleep(Duration::from_secs(3));
        }
        fs::rename(directory.keep(), &kept).unwrap();
    }
    let mut files: Vec<PathBuf> = fs::read_dir(&kept).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| name_of(file).ends_with(suffix));
    files.sort();
    Some(files)
}

/// The last part of a path.
pub fn name_of(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap()
}
