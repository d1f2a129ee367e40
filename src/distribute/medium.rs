//! Bytes at rest, as `delta` reads and writes them: stored blobs, and files that nobody else sees.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::StreamExt as _;

use crate::blob::vfs::read_at;
use crate::blob::{BlobStore, Payload};
use crate::delta::{ReadAt, Scratch, Spool};
use crate::digest::{Digest, Hasher, to_hex};
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

/// What a spool keeps in memory before it is written out.
const TAIL: usize = 128 * 1024;

/// Room for intermediate results in a directory: each is a file without a name.
#[derive(Clone, Debug)]
pub struct FileScratch(Arc<PathBuf>);

impl FileScratch {
    /// Room in `directory`, which is made if it is missing. What a crash left behind is removed.
    pub fn open(directory: impl Into<PathBuf>) -> Result<FileScratch> {
        let directory = directory.into();
        let failed = |cause| Error::io(format!("making {}", directory.display()), cause);
        fs::create_dir_all(&directory).map_err(failed)?;
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().to_string_lossy().starts_with("spool-") {
                // Where files lose their names at once there is nothing; elsewhere it may be in use.
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(FileScratch(Arc::new(directory)))
    }
}

impl Scratch for FileScratch {
    fn spool(&self) -> Result<Box<dyn Spool>> {
        Ok(Box::new(FileSpool { directory: self.0.clone(), file: None, written: 0, tail: Vec::new() }))
    }
}

/// Bytes that go to a file when they become many.
struct FileSpool {
    directory: Arc<PathBuf>,
    file: Option<Unnamed>,
    written: u64,
    tail: Vec<u8>,
}

/// A file that is gone when it is dropped.
struct Unnamed {
    file: File,
    path: PathBuf,
}

impl Unnamed {
    fn create(directory: &Path) -> Result<Unnamed> {
        let name = to_hex(Secret::random(12)?.expose());
        let path = directory.join(format!("spool-{name}"));
        let file = OpenOptions::new().read(true).append(true).create_new(true).open(&path);
        let file = file.map_err(|cause| Error::io(format!("making {}", path.display()), cause))?;
        #[cfg(unix)]
        match fs::remove_file(&path) {
            // Somebody else opened the same directory, and tidied it up.
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io(format!("removing {}", path.display()), cause));
            }
            _ => {}
        }
        Ok(Unnamed { file, path })
    }
}

impl Drop for Unnamed {
    fn drop(&mut self) {
        // On Unix the name is gone already; elsewhere a name that stays is removed at the next start.
        #[cfg(not(unix))]
        let _ = fs::remove_file(&self.path);
    }
}

impl Spool for FileSpool {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if self.tail.len() + bytes.len() <= TAIL {
            self.tail.extend_from_slice(bytes);
            return Ok(());
        }
        let unnamed = match &mut self.file {
            Some(file) => file,
            empty => empty.insert(Unnamed::create(&self.directory)?),
        };
        let failed = |cause| Error::io(format!("writing {}", unnamed.path.display()), cause);
        (&unnamed.file).write_all(&self.tail).map_err(failed)?;
        self.written += self.tail.len() as u64;
        self.tail.clear();
        if bytes.len() > TAIL {
            (&unnamed.file).write_all(bytes).map_err(failed)?;
            self.written += bytes.len() as u64;
        } else {
            self.tail.extend_from_slice(bytes);
        }
        Ok(())
    }
}

impl ReadAt for FileSpool {
    fn size(&self) -> u64 {
        self.written + self.tail.len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        match (&self.file, offset.checked_sub(self.written)) {
            (_, Some(offset)) => self.tail.read_at(buffer, offset),
            (Some(unnamed), None) => {
                let most = usize::try_from(self.written - offset).unwrap_or(usize::MAX).min(buffer.len());
                read_at(&unnamed.file, &mut buffer[..most], offset)
                    .map_err(|cause| Error::io(format!("reading {}", unnamed.path.display()), cause))
            }
            (None, None) => Ok(0),
        }
    }
}

impl fmt::Debug for FileSpool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSpool").field("size", &self.size()).finish_non_exhaustive()
    }
}

/// A part of a file.
#[derive(Debug)]
pub(super) struct FilePart {
    pub(super) file: Arc<File>,
    pub(super) from: u64,
    pub(super) size: u64,
}

impl ReadAt for FilePart {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let left = self.size.saturating_sub(offset);
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        read_at(&self.file, &mut buffer[..most], self.from + offset)
            .map_err(|cause| Error::io("reading stored bytes", cause))
    }
}

/// A stored blob, to be read anywhere; `None` if it is not here with this size. A store that has no
/// files is copied into `scratch`.
pub(super) async fn readable(
    blobs: &dyn BlobStore,
    digest: &Digest,
    size: u64,
    scratch: &dyn Scratch,
) -> Result<Option<Arc<dyn ReadAt>>> {
    let Some(blob) = blobs.open(digest, None).await? else { return Ok(None) };
    if blob.info.size != size {
        return Ok(None);
    }
    match blob.payload {
        Payload::Bytes(bytes) => Ok(Some(Arc::new(bytes))),
        Payload::File(file) => Ok(Some(Arc::new(FilePart { file, from: 0, size }))),
        Payload::Stream(mut stream) => {
            let mut spool = scratch.spool()?;
            while let Some(chunk) = stream.next().await {
                let chunk = chunk?;
                if spool.size() + chunk.len() as u64 > size {
                    return Err(Error::new(
                        ErrorKind::Corrupted,
                        format!("blob {digest} is longer than it is"),
                    ));
                }
                spool.append(&chunk)?;
            }
            Ok(Some(Arc::new(Spooled(spool))))
        }
    }
}

#[derive(Debug)]
pub(super) struct Spooled(pub(super) Box<dyn Spool>);

impl ReadAt for Spooled {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.0.read_at(buffer, offset)
    }
}

/// The digest of all bytes.
pub(super) fn digest_of(data: &dyn ReadAt) -> Result<Digest> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; TAIL];
    let mut at = 0;
    while at < data.size() {
        let read = data.read_at(&mut buffer, at)?;
        if read == 0 {
            return Err(Error::new(
                ErrorKind::Corrupted,
                format!("stored bytes end at byte {at}, too early"),
            ));
        }
        hasher.update(&buffer[..read]);
        at += read as u64;
    }
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spool_gives_back_what_it_took_and_leaves_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let scratch = FileScratch::open(directory.path()).unwrap();
        let mut spool = scratch.spool().unwrap();
        let mut whole = Vec::new();
        for (at, length) in [1, TAIL - 1, 7, TAIL + 3, 0, 5000, TAIL].into_iter().enumerate() {
            let bytes: Vec<u8> = (0..length).map(|byte| (byte * 7 + at) as u8).collect();
            spool.append(&bytes).unwrap();
            whole.extend_from_slice(&bytes);
            assert_eq!(spool.size(), whole.len() as u64);
            let mut back = vec![0; whole.len()];
            spool.read_exact_at(&mut back, 0).unwrap();
            assert!(back == whole);
        }
        let mut middle = [0; 64];
        spool.read_exact_at(&mut middle, TAIL as u64 - 10).unwrap();
        assert!(middle[..] == whole[TAIL - 10..TAIL + 54]);
        assert!(spool.read_exact_at(&mut middle, whole.len() as u64 - 3).is_err());
        assert_eq!(digest_of(&*spool).unwrap(), Digest::of(&whole));
        #[cfg(unix)]
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
