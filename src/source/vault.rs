//! Where the source keeps its secrets: beside the metadata, never in it.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::digest::to_hex;
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

/// A place for a few small secrets, each under a name of `a-z 0-9 . -`.
///
/// # Contract
/// - **A secret that was put is durable** when `put` returns, and replaces an earlier one at once
///   and whole.
/// - **Absence is not an error**: `get` answers `None`, `remove` answers `false`.
pub trait Vault: fmt::Debug + Send + Sync + 'static {
    /// The secret of this name.
    fn get(&self, name: &str) -> Result<Option<Secret>>;
    /// Keeps `secret` under `name`.
    fn put(&self, name: &str, secret: &Secret) -> Result<()>;
    /// Forgets a secret; `true` if it was there.
    fn remove(&self, name: &str) -> Result<bool>;
}

fn check(name: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
    if name.is_empty() || name.len() > 200 || name.starts_with('.') || !name.bytes().all(plain) {
        return Err(Error::new(ErrorKind::Internal, format!("{name:?} cannot name a secret")));
    }
    Ok(())
}

/// Secrets in files of one directory: one file a secret, mode 0600, the directory 0700.
#[derive(Debug)]
pub struct DirVault {
    directory: PathBuf,
}

impl DirVault {
    /// Opens `directory`, which is created if it is missing.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if it cannot be created or its mode not be set.
    pub fn open(directory: impl Into<PathBuf>) -> Result<DirVault> {
        let directory = directory.into();
        std::fs::create_dir_all(&directory)
            .map_err(|cause| Error::io(format!("creating {}", directory.display()), cause))?;
        restrict(&directory)?;
        Ok(DirVault { directory })
    }

    fn path(&self, name: &str) -> Result<PathBuf> {
        check(name)?;
        Ok(self.directory.join(name))
    }
}

#[cfg(unix)]
fn restrict(directory: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700))
        .map_err(|cause| Error::io(format!("making {} private", directory.display()), cause))
}

#[cfg(not(unix))]
fn restrict(_directory: &Path) -> Result<()> {
    Ok(())
}

/// A new file that only its owner can read.
pub(super) fn create_private(path: &Path) -> std::io::Result<std::fs::File> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    options.open(path)
}

impl Vault for DirVault {
    fn get(&self, name: &str) -> Result<Option<Secret>> {
        let path = self.path(name)?;
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(Secret::new(bytes))),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(Error::io(format!("reading {}", path.display()), cause)),
        }
    }

    fn put(&self, name: &str, secret: &Secret) -> Result<()> {
        let path = self.path(name)?;
        // Written aside and renamed: a crash leaves the old secret or the new one, never a part.
        let aside = self.directory.join(format!(".{}.tmp", to_hex(Secret::random(8)?.expose())));
        let written = (|| {
            let mut file = create_private(&aside)?;
            file.write_all(secret.expose())?;
            file.sync_all()?;
            std::fs::rename(&aside, &path)?;
            #[cfg(unix)]
            std::fs::File::open(&self.directory)?.sync_all()?;
            Ok(())
        })();
        written.map_err(|cause| {
            // The file aside is of no use to anyone; the first error is the one worth telling.
            let _ = std::fs::remove_file(&aside);
            Error::io(format!("writing {}", path.display()), cause)
        })
    }

    fn remove(&self, name: &str) -> Result<bool> {
        let path = self.path(name)?;
        match std::fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(cause) => Err(Error::io(format!("removing {}", path.display()), cause)),
        }
    }
}

/// Secrets in memory: for tests, and for sources whose keys live elsewhere.
#[derive(Debug, Default)]
pub struct MemoryVault {
    secrets: Mutex<BTreeMap<String, Secret>>,
}

impl MemoryVault {
    /// An empty vault.
    pub fn new() -> MemoryVault {
        MemoryVault::default()
    }
}

impl Vault for MemoryVault {
    fn get(&self, name: &str) -> Result<Option<Secret>> {
        Ok(self.secrets.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned())
    }

    fn put(&self, name: &str, secret: &Secret) -> Result<()> {
        check(name)?;
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        secrets.insert(name.to_owned(), secret.clone());
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<bool> {
        Ok(self.secrets.lock().unwrap_or_else(PoisonError::into_inner).remove(name).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_the_directory() {
        for bad in ["", "../x", "a/b", ".x", "A", "a\0", "a_b"] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
        assert!(check("key-0123.secret").is_ok());
    }
}
