//! Files that come in: walking, reading, spooling.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;

use super::vault::create_private;
use crate::blob::ByteStream;
use crate::blocking;
use crate::digest::to_hex;
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

/// How much is read at a time.
const CHUNK: usize = 1024 * 1024;
/// Most folders inside one another.
const MAX_DEPTH: usize = 64;

/// Opens a file for reading, and nothing but a file.
pub(super) fn open(path: &Path) -> Result<File> {
    // Asked before opening: opening a pipe would wait for a writer.
    let metadata =
        std::fs::metadata(path).map_err(|cause| Error::io(format!("reading {}", path.display()), cause))?;
    if !metadata.is_file() {
        return Err(Error::invalid(format!("{} is not a regular file", path.display())));
    }
    File::open(path).map_err(|cause| Error::io(format!("reading {}", path.display()), cause))
}

/// The next bytes from `offset`; empty at the end. Uses the file's own position, so a file must
/// have one reader at a time.
pub(super) fn read_at(mut file: &File, offset: u64, shown: &Path) -> Result<Bytes> {
    let mut bytes = vec![0; CHUNK];
    let read = (|| {
        file.seek(SeekFrom::Start(offset))?;
        let mut filled = 0;
        while filled < bytes.len() {
            match file.read(&mut bytes[filled..]) {
                Ok(0) => break,
                Ok(length) => filled += length,
                Err(cause) if cause.kind() == std::io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(cause),
            }
        }
        Ok(filled)
    })();
    let filled = read.map_err(|cause| Error::io(format!("reading {}", shown.display()), cause))?;
    bytes.truncate(filled);
    Ok(bytes.into())
}

/// The bytes of a file.
pub(super) fn stream(file: Arc<File>, shown: PathBuf) -> ByteStream {
    Box::pin(stream::try_unfold((file, shown, 0), |(file, shown, offset)| async move {
        let (reader, name) = (file.clone(), shown.clone());
        let bytes = blocking::run(move || read_at(&reader, offset, &name)).await?;
        let next = offset + bytes.len() as u64;
        Ok((!bytes.is_empty()).then_some((bytes, (file, shown, next))))
    }))
}

/// What a directory holds.
pub(super) struct Walk {
    /// `/`-separated relative path and file, by path.
    pub(super) files: Vec<(String, PathBuf)>,
    pub(super) bytes: u64,
    pub(super) skipped: Vec<(PathBuf, String)>,
}

/// All regular files under `directory`.
pub(super) fn walk(directory: &Path) -> Result<Walk> {
    let mut walk = Walk { files: Vec::new(), bytes: 0, skipped: Vec::new() };
    let mut folders = vec![(directory.to_owned(), String::new(), 0)];
    while let Some((folder, relative, depth)) = folders.pop() {
        let reading = |cause| Error::io(format!("reading {}", folder.display()), cause);
        for entry in std::fs::read_dir(&folder).map_err(reading)? {
            let entry = entry.map_err(reading)?;
            let path = entry.path();
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                return Err(Error::invalid(format!("the name of {} is not UTF-8", path.display())));
            };
            let relative = if relative.is_empty() { name } else { format!("{relative}/{name}") };
            let kind = entry.file_type().map_err(reading)?;
            if kind.is_dir() {
                if depth + 1 >= MAX_DEPTH {
                    return Err(Error::new(
                        ErrorKind::TooLarge,
                        format!("{} is more than {MAX_DEPTH} folders deep", path.display()),
                    ));
                }
                folders.push((path, relative, depth + 1));
            } else if kind.is_file() {
                walk.bytes += entry.metadata().map_err(reading)?.len();
                walk.files.push((relative, path));
            } else {
                let why =
                    if kind.is_symlink() { "it is a symbolic link" } else { "it is not a regular file" };
                walk.skipped.push((path, why.to_owned()));
            }
        }
    }
    walk.files.sort();
    walk.skipped.sort();
    Ok(walk)
}

/// A file without a name, which goes when it is closed.
pub(super) struct Spool {
    file: File,
    /// Still to be removed, where an open file cannot be.
    path: Option<PathBuf>,
}

impl Spool {
    pub(super) fn create(directory: &Path) -> Result<Spool> {
        let path = directory.join(format!("distedge-{}.spool", to_hex(Secret::random(12)?.expose())));
        let file = create_private(&path)
            .map_err(|cause| Error::io(format!("creating {}", path.display()), cause))?;
        let path = std::fs::remove_file(&path).is_err().then_some(path);
        Ok(Spool { file, path })
    }

    pub(super) async fn write(self, bytes: Bytes) -> Result<Spool> {
        blocking::run(move || {
            (&self.file).write_all(&bytes).map_err(|cause| Error::io("writing a spool file", cause))?;
            Ok(self)
        })
        .await
    }

    pub(super) fn into_file(self) -> Result<Arc<File>> {
        self.file.try_clone().map(Arc::new).map_err(|cause| Error::io("reading a spool file", cause))
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // Where the file could not be removed while open, a leftover is all that can remain.
            let _ = std::fs::remove_file(path);
        }
    }
}
