//! Where the secret parts of link keys are kept: beside the metadata, never in it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::link::KeyName;
use crate::secret::Secret;

/// A place for the secret parts of link keys.
///
/// # Contract
/// - **A secret that was put is durable** when `put` returns, and whole.
/// - **Absence is not an error**: `secret` answers `None`, `remove` answers `false`.
/// - **What was removed is gone** from every copy that the vault knows of.
pub trait LinkVault: fmt::Debug + Send + Sync + 'static {
    /// The secret of this key.
    fn secret(&self, key: &KeyName) -> Result<Option<Secret>>;
    /// Keeps the secret of a key.
    fn put(&self, key: &KeyName, secret: &Secret) -> Result<()>;
    /// Forgets the secret of a key; `true` if it was there.
    fn remove(&self, key: &KeyName) -> Result<bool>;
}

/// One file a key, `<kid>.key`, of mode 0600 in a directory of mode 0700.
#[derive(Debug)]
pub struct LinkDirectory(PathBuf);

impl LinkDirectory {
    /// The directory `path`, which is made if it is missing.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::error::ErrorKind::Io) if it cannot be made.
    pub fn open(path: impl Into<PathBuf>) -> Result<LinkDirectory> {
        let path = path.into();
        let mut directory = fs::DirBuilder::new();
        directory.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut directory, 0o700);
        directory.create(&path).map_err(|cause| Error::io(format!("creating {}", path.display()), cause))?;
        Ok(LinkDirectory(path))
    }

    fn path(&self, key: &KeyName) -> PathBuf {
        self.0.join(format!("{key}.key"))
    }

    fn sync(&self) -> io::Result<()> {
        #[cfg(unix)]
        File::open(&self.0)?.sync_all()?;
        Ok(())
    }
}

fn write(path: &Path, secret: &Secret) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file: File = options.open(path)?;
    file.write_all(secret.expose())?;
    file.sync_all()
}

impl LinkVault for LinkDirectory {
    fn secret(&self, key: &KeyName) -> Result<Option<Secret>> {
        let path = self.path(key);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(Secret::new(bytes))),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(Error::io(format!("reading {}", path.display()), cause)),
        }
    }

    fn put(&self, key: &KeyName, secret: &Secret) -> Result<()> {
        // Written aside and renamed: a crash leaves a whole file or none. A key's id has no dot, so
        // no key has this name.
        let (path, aside) = (self.path(key), self.0.join(format!("{key}.new.key")));
        let written =
            write(&aside, secret).and_then(|()| fs::rename(&aside, &path)).and_then(|()| self.sync());
        written.map_err(|cause| {
            // It is of no use to anyone; the first error is the one worth telling.
            let _ = fs::remove_file(&aside);
            Error::io(format!("writing {}", path.display()), cause)
        })
    }

    fn remove(&self, key: &KeyName) -> Result<bool> {
        let path = self.path(key);
        match fs::remove_file(&path).and_then(|()| self.sync()) {
            Ok(()) => Ok(true),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(cause) => Err(Error::io(format!("removing {}", path.display()), cause)),
        }
    }
}

/// Secrets in memory: for tests, and for edges whose keys come from elsewhere at every start.
#[derive(Debug, Default)]
pub struct MemoryLinkVault(Mutex<BTreeMap<KeyName, Secret>>);

impl LinkVault for MemoryLinkVault {
    fn secret(&self, key: &KeyName) -> Result<Option<Secret>> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned())
    }

    fn put(&self, key: &KeyName, secret: &Secret) -> Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), secret.clone());
        Ok(())
    }

    fn remove(&self, key: &KeyName) -> Result<bool> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_its_owners_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("links");
        let vault = LinkDirectory::open(&path).unwrap();
        let key = KeyName::new("k1").unwrap();
        assert!(vault.secret(&key).unwrap().is_none() && !vault.remove(&key).unwrap());
        vault.put(&key, &Secret::new("one")).unwrap();
        vault.put(&key, &Secret::new("two")).unwrap();
        assert_eq!(vault.secret(&key).unwrap().unwrap().expose(), b"two");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&path), mode(&path.join("k1.key"))), (0o700, 0o600));
        }
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
        assert!(vault.remove(&key).unwrap() && vault.secret(&key).unwrap().is_none());
    }
}
