//! The simulated disk as programs use it.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::random;
use super::state::{Name, Node, Op, State};
use crate::audit;
use crate::blob::vfs::{FileStat, Lock, Vfs, VfsFile};
use crate::blob::{Payload, Stamp};
use crate::range::ByteRange;

/// A kind of operation that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OpKind {
    /// Making a directory.
    CreateDir,
    /// Making a file.
    Create,
    /// Writing to a file, or changing its length. A failing write leaves its first half behind.
    Write,
    /// Syncing a file.
    Sync,
    /// Moving a file.
    Rename,
    /// Removing a file.
    Remove,
    /// Syncing a directory.
    SyncDir,
}

impl OpKind {
    /// Every kind.
    pub const ALL: [OpKind; 7] = [
        OpKind::CreateDir,
        OpKind::Create,
        OpKind::Write,
        OpKind::Sync,
        OpKind::Rename,
        OpKind::Remove,
        OpKind::SyncDir,
    ];
}

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The disk is full (ENOSPC).
    NoSpace,
    /// The disk is broken (EIO).
    Io,
}

impl Fault {
    fn error(self) -> io::Error {
        match self {
            Fault::NoSpace => io::Error::new(io::ErrorKind::StorageFull, "no space left on simulated disk"),
            Fault::Io => io::Error::other("input/output error on simulated disk"),
        }
    }
}

/// A simulated disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<Disk>>);

struct Disk {
    base: State,
    state: State,
    log: Vec<Op>,
    counts: BTreeMap<OpKind, u64>,
    faults: Vec<Planned>,
    locks: Arc<Mutex<HashSet<PathBuf>>>,
    /// Whether nothing more can be had.
    full: bool,
    /// The state at the crash point that was asked for last: points are mostly asked in order.
    replay: Option<(usize, State)>,
}

struct Planned {
    kind: OpKind,
    from: u64,
    to: u64,
    fault: Fault,
}

impl Default for SimDisk {
    fn default() -> SimDisk {
        SimDisk::new()
    }
}

impl SimDisk {
    /// An empty disk: there is the directory `/`.
    pub fn new() -> SimDisk {
        SimDisk::with_state(State::new())
    }

    fn with_state(state: State) -> SimDisk {
        SimDisk(Arc::new(Mutex::new(Disk {
            base: state.clone(),
            state,
            log: Vec::new(),
            counts: BTreeMap::new(),
            faults: Vec::new(),
            locks: Arc::default(),
            full: false,
            replay: None,
        })))
    }

    /// How many operations have changed this disk: its crash points are `0..=points()`. What was
    /// acknowledged before this call must survive a crash at this point and every later one.
    pub fn points(&self) -> usize {
        self.lock().log.len()
    }

    /// The disk as a crash after the first `point` operations may leave it; see the
    /// [module](super) for what `seed` decides. The image is a disk of its own, with crash points of
    /// its own.
    ///
    /// # Panics
    /// If there is no such point.
    pub fn crash_image(&self, point: usize, seed: u64) -> SimDisk {
        let mut disk = self.lock();
        assert!(point <= disk.log.len(), "crash point {point} of {}", disk.log.len());
        let (mut at, mut state) = match disk.replay.take() {
            Some((at, state)) if at <= point => (at, state),
            _ => (0, disk.base.clone()),
        };
        while at < point {
            state.apply(&disk.log[at]);
            at += 1;
        }
        let mut entropy = seed ^ (point as u64).rotate_left(32);
        random(&mut entropy);
        let image = state.crash(seed, entropy);
        disk.replay = Some((at, state));
        SimDisk::with_state(image)
    }

    /// Forgets what happened so far: the disk is as it is, all of it durable, and its first crash
    /// point is here. A workload prepares its disk and then calls this.
    pub fn settle(&self) {
        let mut disk = self.lock();
        let settled = disk.state.crash(1, 0);
        // Files keep their numbers, so open ones stay usable.
        disk.state = settled.clone();
        disk.base = settled;
        disk.log.clear();
        disk.counts.clear();
        disk.replay = None;
    }

    /// How many operations of this kind were tried.
    pub fn count(&self, kind: OpKind) -> u64 {
        self.lock().counts.get(&kind).copied().unwrap_or_default()
    }

    /// Lets the `n`th next operation of this kind fail, 1 being the very next.
    pub fn fail_nth(&self, kind: OpKind, n: u64, fault: Fault) {
        let mut disk = self.lock();
        let at = disk.counts.get(&kind).copied().unwrap_or_default() + n;
        disk.faults.push(Planned { kind, from: at, to: at, fault });
    }

    /// Lets every operation of this kind fail, from the `n`th next on.
    pub fn fail_from(&self, kind: OpKind, n: u64, fault: Fault) {
        let mut disk = self.lock();
        let from = disk.counts.get(&kind).copied().unwrap_or_default() + n;
        disk.faults.push(Planned { kind, from, to: u64::MAX, fault });
    }

    /// The disk is full: files can be written where they have bytes already, and nothing else.
    pub fn fill_up(&self) {
        self.lock().full = true;
    }

    /// The disk has room again.
    pub fn empty_out(&self) {
        self.lock().full = false;
    }

    /// No operation fails any more.
    pub fn heal(&self) {
        self.lock().faults.clear();
    }

    /// All files, in order.
    pub fn files(&self) -> Vec<PathBuf> {
        let disk = self.lock();
        let files = disk.state.names.iter().filter(|(_, node)| matches!(node, Node::File(_)));
        files.map(|(name, _)| PathBuf::from(&**name)).collect()
    }

    /// The bytes of a file.
    pub fn contents(&self, path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
        let disk = self.lock();
        let file = disk.state.file(&name(path.as_ref())?)?;
        Ok(disk.state.files.get(&file).map(|inode| inode.live.to_vec()).unwrap_or_default())
    }

    /// Changes the bytes of a file behind everyone's back, as a decaying disk does. This is no
    /// operation and must not be mixed with crash points: images are made without it.
    pub fn damage(&self, path: impl AsRef<Path>, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let mut bytes = self.contents(path.as_ref())?;
        change(&mut bytes);
        let mut disk = self.lock();
        let file = disk.state.file(&name(path.as_ref())?)?;
        disk.state.overwrite(file, bytes);
        Ok(())
    }

    /// Opens, or makes, a metadata store in the file `path` of this disk, in the steps
    /// [`RedbStore::open`](crate::meta::RedbStore::open) takes on a real one.
    #[cfg(feature = "redb")]
    pub fn redb(&self, path: impl AsRef<Path>) -> crate::error::Result<crate::meta::RedbStore> {
        use crate::error::Error;
        use crate::meta::RedbOptions;

        let path = path.as_ref();
        let name = path.display().to_string();
        let doing = |cause| Error::io(format_args!("preparing {name}"), cause);
        if Vfs::stat(self, path).map_or(true, |stat| stat.size == 0) {
            let new = path.with_extension("new");
            match self.remove(&new) {
                Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(doing(cause)),
                _ => {}
            }
            let file = self.create(&new).map_err(doing)?;
            drop(RedbOptions::new().open_backend(new.display().to_string(), file)?);
            self.rename(&new, path).map_err(doing)?;
            self.sync_dir(path.parent().unwrap_or(path)).map_err(doing)?;
        }
        let file = self.open(path).map_err(doing)?;
        RedbOptions::new().open_backend(name, file)
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, path: &Path) -> io::Result<SimFile> {
        Ok(SimFile { disk: self.clone(), file: self.lock().state.file(&name(path)?)? })
    }
}

fn name(path: &Path) -> io::Result<Name> {
    match path.to_str() {
        Some(path) => Ok(Name::from(path.trim_end_matches('/'))),
        None => Err(io::Error::new(io::ErrorKind::InvalidInput, "the simulated disk has UTF-8 names only")),
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDisk").field("points", &self.points()).finish_non_exhaustive()
    }
}

impl Disk {
    /// The fault planned for the next operation of this kind, which is counted.
    fn fault(&mut self, kind: OpKind) -> Option<Fault> {
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        let planned =
            |planned: &&Planned| planned.kind == kind && (planned.from..=planned.to).contains(count);
        self.faults.iter().find(planned).map(|planned| planned.fault)
    }

    fn perform(&mut self, kind: OpKind, op: Op) -> io::Result<()> {
        self.state.check(&op)?;
        if self.full && self.grows(&op) {
            return Err(Fault::NoSpace.error());
        }
        match self.fault(kind) {
            None => {
                self.record(op);
                Ok(())
            }
            Some(fault) => {
                match op {
                    Op::Write { file, offset, bytes } => {
                        let bytes = bytes[..bytes.len() / 2].into();
                        self.record(Op::Write { file, offset, bytes });
                    }
                    Op::Sync { file, .. } => self.record(Op::Sync { file, done: false }),
                    Op::SyncDir { dir, .. } => self.record(Op::SyncDir { dir, done: false }),
                    _ => {}
                }
                Err(fault.error())
            }
        }
    }

    /// Whether an operation needs room.
    fn grows(&self, op: &Op) -> bool {
        let length = |file: &u64| self.state.files.get(file).map_or(0, |inode| inode.live.len() as u64);
        match op {
            Op::Write { file, offset, bytes } => offset + bytes.len() as u64 > length(file),
            Op::SetLen { file, length: to } => *to > length(file),
            Op::Create(_) | Op::CreateDir(_) => true,
            _ => false,
        }
    }

    fn record(&mut self, op: Op) {
        self.state.apply(&op);
        self.log.push(op);
    }

    fn stat(&self, node: Node) -> FileStat {
        match node {
            Node::Dir => FileStat { size: 0, is_dir: true, stamp: Stamp([0; 5]) },
            Node::File(file) => {
                let inode = self.state.files.get(&file);
                let (size, written) = inode.map_or((0, 0), |inode| (inode.live.len() as u64, inode.written));
                FileStat { size, is_dir: false, stamp: Stamp([0, file, size, written, written]) }
            }
        }
    }
}

impl Vfs for SimDisk {
    type File = SimFile;

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.lock().perform(OpKind::CreateDir, Op::CreateDir(name(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<SimFile> {
        self.lock().perform(OpKind::Create, Op::Create(name(path)?))?;
        self.file(path)
    }

    fn append(&self, path: &Path) -> io::Result<SimFile> {
        match self.file(path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => self.create(path),
            result => result,
        }
    }

    fn open(&self, path: &Path) -> io::Result<SimFile> {
        self.file(path)
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        let disk = self.lock();
        match disk.state.names.get(&name(path)?) {
            Some(node) => Ok(disk.stat(*node)),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let disk = self.lock();
        let dir = name(path)?;
        disk.state.dir(&dir)?;
        let inside = format!("{dir}/");
        let below = disk.state.names.range::<str, _>((Bound::Excluded(&*inside), Bound::Unbounded));
        let below = below.map_while(|(name, _)| name.strip_prefix(&*inside));
        Ok(below.filter(|name| !name.contains('/')).map(OsString::from).collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.lock().perform(OpKind::Rename, Op::Rename { from: name(from)?, to: name(to)? })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.lock().perform(OpKind::Remove, Op::Remove(name(path)?))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.lock().perform(OpKind::SyncDir, Op::SyncDir { dir: name(path)?, done: true })
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        self.append(path)?;
        let locks = Arc::clone(&self.lock().locks);
        let free = locks.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned());
        Ok(free.then(|| Box::new(SimLock { locks, path: path.to_owned() }) as Lock))
    }
}

struct SimLock {
    locks: Arc<Mutex<HashSet<PathBuf>>>,
    path: PathBuf,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.path);
    }
}

/// An open file of a [`SimDisk`].
#[derive(Debug)]
pub struct SimFile {
    disk: SimDisk,
    file: u64,
}

impl SimFile {
    /// Cuts the file, or extends it with zeros.
    pub fn set_len(&self, length: u64) -> io::Result<()> {
        self.perform(OpKind::Write, Op::SetLen { file: self.file, length })
    }

    fn with_bytes<T>(&self, read: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
        match self.disk.lock().state.files.get(&self.file) {
            Some(inode) => Ok(read(&inode.live)),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn perform(&self, kind: OpKind, op: Op) -> io::Result<()> {
        self.disk.lock().perform(kind, op)
    }
}

impl VfsFile for SimFile {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let offset = self.with_bytes(|live| live.len() as u64)?;
        self.perform(OpKind::Write, Op::Write { file: self.file, offset, bytes: bytes.into() })
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with_bytes(|live| {
            let rest = live.get(offset as usize..).unwrap_or_default();
            let read = rest.len().min(buffer.len());
            buffer[..read].copy_from_slice(&rest[..read]);
            read
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.perform(OpKind::Sync, Op::Sync { file: self.file, done: true })
    }

    fn make_read_only(&self) -> io::Result<()> {
        Ok(())
    }

    fn stat(&self) -> io::Result<FileStat> {
        Ok(self.disk.lock().stat(Node::File(self.file)))
    }

    fn into_payload(self, range: ByteRange) -> io::Result<Payload> {
        let bytes = self.with_bytes(|live| {
            live.get(range.start() as usize..range.end() as usize).map(Bytes::copy_from_slice)
        })?;
        bytes.map(Payload::Bytes).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

impl audit::disk::Disk for SimDisk {
    fn create_dirs(&self, path: &Path) -> io::Result<()> {
        let mut above: Vec<&Path> = path.ancestors().collect();
        above.reverse();
        for directory in above {
            match Vfs::create_dir(self, directory) {
                Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {}
                made => {
                    made?;
                    Vfs::sync_dir(self, directory.parent().unwrap_or(directory))?;
                }
            }
        }
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn audit::disk::DiskFile>> {
        let file = Vfs::append(self, path)?;
        if file.with_bytes(<[u8]>::len)? > 0 {
            file.set_len(0)?;
        }
        Ok(Box::new(file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn audit::disk::DiskFile>> {
        Ok(Box::new(Vfs::open(self, path)?))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        Ok(Vfs::list(self, path)?.into_iter().filter_map(|name| name.into_string().ok()).collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Vfs::rename(self, from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        Vfs::remove(self, path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        Vfs::sync_dir(self, path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<audit::disk::DiskLock>> {
        Vfs::lock(self, path)
    }
}

impl audit::disk::DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        VfsFile::read_at(self, buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.perform(OpKind::Write, Op::Write { file: self.file, offset, bytes: bytes.into() })
    }

    fn length(&self) -> io::Result<u64> {
        self.with_bytes(|live| live.len() as u64)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        VfsFile::sync(self)
    }
}

#[cfg(feature = "redb")]
impl ::redb::StorageBackend for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.with_bytes(|live| live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if VfsFile::read_at(self, out, offset)? < out.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        SimFile::set_len(self, length)
    }

    fn sync_data(&self) -> io::Result<()> {
        VfsFile::sync(self)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.perform(OpKind::Write, Op::Write { file: self.file, offset, bytes: data.into() })
    }
}
