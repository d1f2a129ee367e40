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
    /// Two wheels, two Debian packages, one npm tarball; `None` if a client is missing, or what it
    /// asks for cannot be reached.
    pub fn fetched() -> Option<Packages> {
        static ONE: Mutex<()> = Mutex::new(());
        let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let python = tool::python();
        if !present("pip", Command::new(&python).args(["-m", "pip", "--version"]))
            || !installed("npm")
            || !installed("apt-get")
        {
            return None;
        }
        let mut pip = program(&python);
        pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]);
        pip.args(["idna==3.10", "six==1.17.0"]);
        let mut apt = program("apt-get");
        apt.args(["download", "--quiet", "hostname", "netbase"]);
        let mut npm = program("npm");
        npm.args(["pack", "--silent", "ms@2.1.3"]);
        let worlds = [("wheels", pip, ".whl", 2), ("debian", apt, ".deb", 2), ("npm", npm, ".tgz", 1)];
        let mut packages = Vec::new();
        for (repository, mut client, suffix, count) in worlds {
            let files = fetch(repository, &mut client, suffix)?;
            assert_eq!(files.len(), count, "{files:?}");
            packages.push((repository, files));
        }
        Some(Packages(packages))
    }
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
