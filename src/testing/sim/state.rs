//! The state of a simulated disk: what programs see, what is durable, and what lies between.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::random;

/// The unit a disk writes whole.
const BLOCK: u64 = 512;

/// A path without the slash at its end: the root is empty. Plain strings, because a crash programme
/// compares millions of them.
pub(super) type Name = Arc<str>;

/// The directory that holds a name; the root holds itself.
pub(super) fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(parent, _)| parent)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Dir,
    File(u64),
}

/// An operation that changes the disk, as it is recorded.
#[derive(Clone, Debug)]
pub(super) enum Op {
    CreateDir(Name),
    Create(Name),
    Write { file: u64, offset: u64, bytes: Arc<[u8]> },
    SetLen { file: u64, length: u64 },
    Sync { file: u64, done: bool },
    Rename { from: Name, to: Name },
    Remove(Name),
    SyncDir { dir: Name, done: bool },
}

/// A change of names that is not durable yet.
#[derive(Clone, Debug)]
enum Link {
    Make(Name, Node),
    Remove(Name, Node),
    Move(Name, Name, Node),
}

impl Link {
    /// The directory whose sync makes it durable.
    fn dir(&self) -> &str {
        let (Link::Make(name, _) | Link::Remove(name, _) | Link::Move(_, name, _)) = self;
        parent(name)
    }

    fn apply(&self, names: &mut BTreeMap<Name, Node>) {
        // A name is taken away only while it leads to the same file: a later change of it may have
        // become durable earlier.
        let mut take = |name: &Name, node: &Node| {
            if names.get(name) == Some(node) {
                names.remove(name);
            }
        };
        match self {
            Link::Remove(name, node) => take(name, node),
            Link::Move(from, to, node) => {
                take(from, node);
                names.insert(Arc::clone(to), *node);
            }
            Link::Make(name, node) => {
                names.insert(Arc::clone(name), *node);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: u64, bytes: Arc<[u8]> },
    SetLen(u64),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    pub(super) live: Arc<Vec<u8>>,
    durable: Arc<Vec<u8>>,
    pending: Vec<Change>,
    /// Number of the operation that wrote last.
    pub(super) written: u64,
}

#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) names: BTreeMap<Name, Node>,
    durable: BTreeMap<Name, Node>,
    pending: Vec<Link>,
    pub(super) files: BTreeMap<u64, Inode>,
    next_file: u64,
    operations: u64,
}

impl State {
    /// A disk with nothing but a root directory.
    pub(super) fn new() -> State {
        let names = BTreeMap::from([(Name::from(""), Node::Dir)]);
        State {
            durable: names.clone(),
            names,
            pending: Vec::new(),
            files: BTreeMap::new(),
            next_file: 1,
            operations: 0,
        }
    }

    pub(super) fn file(&self, path: &str) -> io::Result<u64> {
        match self.names.get(path) {
            Some(Node::File(file)) => Ok(*file),
            Some(Node::Dir) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn dir(&self, path: &str) -> io::Result<()> {
        match self.names.get(path) {
            Some(Node::Dir) => Ok(()),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Whether `op` can be done.
    pub(super) fn check(&self, op: &Op) -> io::Result<()> {
        match op {
            Op::CreateDir(name) | Op::Create(name) => {
                self.dir(parent(name))?;
                match self.names.get(name) {
                    Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
                    None => Ok(()),
                }
            }
            Op::Rename { from, to } => {
                self.dir(parent(to))?;
                self.file(from)?;
                match self.names.get(to) {
                    Some(Node::Dir) => Err(io::ErrorKind::IsADirectory.into()),
                    _ => Ok(()),
                }
            }
            Op::Remove(name) => self.file(name).map(drop),
            Op::SyncDir { dir, .. } => self.dir(dir),
            Op::Write { .. } | Op::SetLen { .. } | Op::Sync { .. } => Ok(()),
        }
    }

    /// Does `op`, which was checked.
    pub(super) fn apply(&mut self, op: &Op) {
        self.operations += 1;
        match op {
            Op::CreateDir(name) => self.link(Link::Make(Arc::clone(name), Node::Dir)),
            Op::Create(name) => {
                let file = self.next_file;
                self.next_file += 1;
                self.files.insert(file, Inode { written: self.operations, ..Inode::default() });
                self.link(Link::Make(Arc::clone(name), Node::File(file)));
            }
            Op::Write { file, offset, bytes } => {
                let change = Change::Write { offset: *offset, bytes: Arc::clone(bytes) };
                self.change(*file, change);
            }
            Op::SetLen { file, length } => self.change(*file, Change::SetLen(*length)),
            Op::Sync { file, done } => {
                if let Some(inode) = self.files.get_mut(file) {
                    inode.sync(*done);
                }
            }
            Op::Rename { from, to } => {
                if let Some(node) = self.names.get(from).copied() {
                    self.link(Link::Move(Arc::clone(from), Arc::clone(to), node));
                }
            }
            Op::Remove(name) => {
                if let Some(node) = self.names.get(name).copied() {
                    self.link(Link::Remove(Arc::clone(name), node));
                }
            }
            Op::SyncDir { dir, done } => {
                let (synced, pending) =
                    std::mem::take(&mut self.pending).into_iter().partition(|link| link.dir() == &**dir);
                self.pending = pending;
                if *done {
                    let synced: Vec<Link> = synced;
                    synced.iter().for_each(|link| link.apply(&mut self.durable));
                }
            }
        }
    }

    /// The disk after a crash now.
    pub(super) fn crash(&self, seed: u64, mut entropy: u64) -> State {
        let mut random = || random(&mut entropy);
        let names_survive = match seed {
            0 | 3 => Survival::None,
            1 | 2 => Survival::All,
            _ => Survival::pick(random()),
        };
        let mut durable = self.durable.clone();
        let cut = random() as usize % (self.pending.len() + 1);
        for (number, link) in self.pending.iter().enumerate() {
            let survives = match names_survive {
                Survival::None => false,
                Survival::All => true,
                Survival::Prefix => number < cut,
                Survival::Subset => random() & 1 == 0,
            };
            if survives {
                link.apply(&mut durable);
            }
        }
        // What lies in a directory that was lost is lost. Names are in order, so a directory comes
        // before what is in it.
        let mut names: BTreeMap<Name, Node> = BTreeMap::new();
        for (name, node) in durable {
            if name.is_empty() || names.get(parent(&name)) == Some(&Node::Dir) {
                names.insert(name, node);
            }
        }
        let mut files = BTreeMap::new();
        for node in names.values() {
            let Node::File(file) = node else { continue };
            let bytes_survive = match seed {
                0 | 2 => Survival::None,
                1 | 3 => Survival::All,
                _ => Survival::pick(random()),
            };
            if let Some(inode) = self.files.get(file) {
                files.insert(*file, inode.crash(bytes_survive, &mut random));
            }
        }
        State {
            durable: names.clone(),
            names,
            pending: Vec::new(),
            files,
            next_file: self.next_file,
            operations: self.operations,
        }
    }

    /// Writes bytes behind everyone's back, as a decaying disk does.
    pub(super) fn overwrite(&mut self, file: u64, bytes: Vec<u8>) {
        self.operations += 1;
        let bytes = Arc::new(bytes);
        let inode =
            Inode { live: Arc::clone(&bytes), durable: bytes, pending: Vec::new(), written: self.operations };
        self.files.insert(file, inode);
    }

    fn link(&mut self, link: Link) {
        link.apply(&mut self.names);
        self.pending.push(link);
    }

    fn change(&mut self, file: u64, change: Change) {
        if let Some(inode) = self.files.get_mut(&file) {
            inode.written = self.operations;
            change.apply(Arc::make_mut(&mut inode.live));
            inode.pending.push(change);
        }
    }
}

impl Inode {
    fn sync(&mut self, done: bool) {
        let pending = std::mem::take(&mut self.pending);
        if done && !pending.is_empty() {
            let durable = Arc::make_mut(&mut self.durable);
            pending.iter().for_each(|change| change.apply(durable));
        }
    }

    fn crash(&self, survival: Survival, random: &mut impl FnMut() -> u64) -> Inode {
        let mut durable = Arc::clone(&self.durable);
        if !self.pending.is_empty() && survival != Survival::None {
            let bytes = Arc::make_mut(&mut durable);
            let cut = random() as usize % self.pending.len();
            for (number, change) in self.pending.iter().enumerate() {
                match survival {
                    Survival::Prefix if number > cut => break,
                    Survival::Prefix if number == cut => change.apply_torn(bytes, Tear::Prefix, random),
                    Survival::Subset => change.apply_torn(bytes, Tear::Blocks, random),
                    _ => change.apply(bytes),
                }
            }
        }
        Inode { live: Arc::clone(&durable), durable, pending: Vec::new(), written: self.written }
    }
}

/// How much of what was not synced survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Survival {
    None,
    All,
    Prefix,
    Subset,
}

impl Survival {
    fn pick(random: u64) -> Survival {
        match random % 8 {
            0 => Survival::None,
            1 => Survival::All,
            2..=4 => Survival::Prefix,
            _ => Survival::Subset,
        }
    }
}

enum Tear {
    Prefix,
    Blocks,
}

impl Change {
    fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Change::SetLen(length) => file.resize(*length as usize, 0),
            Change::Write { offset, bytes } => overlay(file, *offset, bytes),
        }
    }

    fn apply_torn(&self, file: &mut Vec<u8>, tear: Tear, random: &mut impl FnMut() -> u64) {
        let Change::Write { offset, bytes } = self else {
            if random() & 1 == 0 {
                self.apply(file);
            }
            return;
        };
        let end = offset + bytes.len() as u64;
        let blocks = end.div_ceil(BLOCK) - offset / BLOCK;
        let cut = random() % (blocks + 1);
        for block in 0..blocks {
            let survives = match tear {
                Tear::Prefix => block < cut,
                Tear::Blocks => random() & 1 == 0,
            };
            if survives {
                let from = ((offset / BLOCK + block) * BLOCK).max(*offset);
                let to = ((offset / BLOCK + block + 1) * BLOCK).min(end);
                overlay(file, from, &bytes[(from - offset) as usize..(to - offset) as usize]);
            }
        }
    }
}

fn overlay(file: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let (from, to) = (offset as usize, offset as usize + bytes.len());
    if file.len() < to {
        file.resize(to, 0);
    }
    file[from..to].copy_from_slice(bytes);
}
