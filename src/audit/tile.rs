//! Tiles: the hashes of the tree, 256 of one level in a file (C2SP `tlog-tiles`).
//!
//! Full tiles are files under `tile/`. The last, partial tile of every level is in memory; nothing of
//! a tile is ever lost, because the entries are there to compute it again.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{self, Disk};
use crate::error::{Error, ErrorKind, Result};
use crate::merkle::{Frontier, Hash, complete};

/// Hashes of a full tile.
pub const TILE: usize = 256;

/// The path of a tile below the log's prefix: `tile/<L>/<N>`, `.p/<W>` behind it for a partial one.
/// `width` is from 1 to 256.
pub fn tile_path(level: u32, index: u64, width: usize) -> String {
    format!("tile/{level}/{}", number_path(index, width))
}

/// The path of a bundle of entries: `tile/entries/<N>[.p/<W>]`.
pub fn entries_path(index: u64, width: usize) -> String {
    format!("tile/entries/{}", number_path(index, width))
}

/// "A non-negative integer encoded into zero-padded 3-digit path elements. All but the last path
/// element MUST begin with an `x`."
fn number_path(index: u64, width: usize) -> String {
    let mut text = format!("{:03}", index % 1000);
    let mut rest = index / 1000;
    while rest > 0 {
        text = format!("x{:03}/{text}", rest % 1000);
        rest /= 1000;
    }
    if width < TILE { format!("{text}.p/{width}") } else { text }
}

/// Reads what stands after `tile/<L>/` or `tile/entries/`: the index and the width.
pub fn parse_number_path<'a>(segments: impl IntoIterator<Item = &'a str>) -> Option<(u64, usize)> {
    let segments: Vec<&str> = segments.into_iter().collect();
    let (number, width) = match segments.as_slice() {
        [number @ .., last, width] if last.ends_with(".p") => {
            let plain = !width.starts_with('0') && width.bytes().all(|byte| byte.is_ascii_digit());
            let width = width.parse().ok().filter(|width| plain && (1..TILE).contains(width))?;
            ([number, &[&last[..last.len() - 2]]].concat(), width)
        }
        whole => (whole.to_vec(), TILE),
    };
    let (last, leading) = number.split_last()?;
    let mut index = 0_u64;
    for (part, marked) in leading.iter().map(|part| (*part, true)).chain([(*last, false)]) {
        let digits = if marked { part.strip_prefix('x')? } else { part };
        let value = digits.parse::<u64>().ok().filter(|_| digits.len() == 3 && !digits.starts_with('+'))?;
        index = index.checked_mul(1000)?.checked_add(value)?;
    }
    // One spelling a number.
    (number_path(index, TILE) == number.join("/")).then_some((index, width))
}

/// The tree of a log: what has been hashed.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    frontier: Frontier,
    /// The partial tile of every level.
    edge: Vec<Vec<Hash>>,
    /// Full tiles that are not in files yet.
    unwritten: Vec<Tile>,
}

#[derive(Clone, Debug)]
pub(super) struct Tile {
    level: u32,
    index: u64,
    hashes: Arc<Vec<Hash>>,
}

impl Tile {
    /// The level, the index and the hashes.
    pub(super) fn parts(&self) -> (u32, u64, &[Hash]) {
        (self.level, self.index, &self.hashes)
    }
}

impl Tree {
    /// The partial tile of every level.
    pub(super) fn edge(&self) -> &[Vec<Hash>] {
        &self.edge
    }

    pub(super) fn size(&self) -> u64 {
        self.frontier.size()
    }

    pub(super) fn root(&self) -> Hash {
        self.frontier.root()
    }

    pub(super) fn push(&mut self, leaf: Hash) {
        let (edge, unwritten) = (&mut self.edge, &mut self.unwritten);
        let size = self.frontier.size() + 1;
        self.frontier.push(leaf, |height, hash| {
            if height % 8 != 0 {
                return;
            }
            let level = height / 8;
            if edge.len() <= level as usize {
                edge.push(Vec::with_capacity(TILE));
            }
            let tile = &mut edge[level as usize];
            tile.push(*hash);
            if tile.len() == TILE {
                let hashes = Arc::new(std::mem::replace(tile, Vec::with_capacity(TILE)));
                unwritten.push(Tile { level, index: (size >> (height + 8)) - 1, hashes });
            }
        });
    }

    /// Hashes of a tile from memory.
    fn hashes(&self, level: u32, index: u64) -> Option<Vec<Hash>> {
        if let Some(tile) = self.unwritten.iter().find(|tile| tile.level == level && tile.index == index) {
            return Some(tile.hashes.to_vec());
        }
        let edge = self.edge.get(level as usize)?;
        (self.size() >> (8 * (level + 1)) == index).then(|| edge.clone())
    }
}

/// Where the tiles of a log are.
#[derive(Debug)]
pub(super) struct TileStore {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
}

impl TileStore {
    pub(super) fn new(disk: Arc<dyn Disk>, directory: &Path) -> TileStore {
        TileStore { disk, directory: directory.to_owned() }
    }

    /// Writes a full tile. It need not be durable: the entries are.
    fn write(&self, tile: &Tile) -> std::io::Result<()> {
        let path = self.directory.join(tile_path(tile.level, tile.index, TILE));
        let parent = path.parent().unwrap_or(&self.directory);
        let file = match self.disk.create(&path) {
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
                self.disk.create_dirs(parent)?;
                self.disk.create(&path)?
            }
            made => made?,
        };
        file.write_at(tile.hashes.as_flattened(), 0)
    }

    /// Writes the full tiles of `tree`; gives back those that could not be written.
    pub(super) fn flush(&self, mut tiles: Vec<Tile>) -> (Vec<Tile>, std::io::Result<()>) {
        while let Some(tile) = tiles.first() {
            if let Err(cause) = self.write(tile) {
                return (tiles, Err(cause));
            }
            tiles.remove(0);
        }
        (tiles, Ok(()))
    }

    /// Makes these tiles of level 0, and their names, durable.
    pub(super) fn sync(&self, first: u64, end: u64) -> std::io::Result<()> {
        let mut directories = std::collections::BTreeSet::new();
        for index in first..end {
            let path = self.directory.join(tile_path(0, index, TILE));
            self.disk.open(&path)?.sync()?;
            let mut parent = path.parent();
            while let Some(directory) = parent.filter(|parent| parent.starts_with(&self.directory)) {
                directories.insert(directory.to_owned());
                parent = directory.parent();
            }
        }
        directories.iter().try_for_each(|directory| self.disk.sync_dir(directory))
    }

    /// The hashes of a full tile, from its file.
    pub(super) fn read(&self, level: u32, index: u64) -> Result<Vec<Hash>> {
        let name = tile_path(level, index, TILE);
        let bytes = disk::read(&*self.disk, &self.directory.join(&name)).map_err(|cause| {
            let kind = if cause.kind() == std::io::ErrorKind::NotFound {
                ErrorKind::NotFound
            } else {
                ErrorKind::Io
            };
            Error::new(kind, format!("reading {name}: {cause}"))
        })?;
        match bytes.as_chunks() {
            (hashes, []) if hashes.len() == TILE => Ok(hashes.to_vec()),
            _ => Err(Error::new(ErrorKind::Corrupted, format!("{name} is no full tile"))),
        }
    }
}

/// Takes the tiles that wait to be written.
pub(super) fn take_unwritten(tree: &mut Tree) -> Vec<Tile> {
    std::mem::take(&mut tree.unwritten)
}

/// Gives back what could not be written.
pub(super) fn give_back(tree: &mut Tree, mut tiles: Vec<Tile>) {
    tiles.append(&mut tree.unwritten);
    tree.unwritten = tiles;
}

/// Reads the hashes of subtrees from tiles, each once.
pub(super) struct TileReader<'a> {
    store: &'a TileStore,
    tree: &'a Tree,
    /// The hashes of the 256 entries from this one on.
    leaves: &'a dyn Fn(u64) -> Result<Vec<Hash>>,
    read: HashMap<(u32, u64), Vec<Hash>>,
}

impl<'a> TileReader<'a> {
    pub(super) fn new(
        store: &'a TileStore,
        tree: &'a Tree,
        leaves: &'a dyn Fn(u64) -> Result<Vec<Hash>>,
    ) -> TileReader<'a> {
        TileReader { store, tree, leaves, read: HashMap::new() }
    }

    /// The hashes of a tile, as many as there are.
    ///
    /// A tile from a file is compared with what the tile above it says. Files of tiles are not synced,
    /// so a power cut may have taken one: then it is made again.
    pub(super) fn hashes(&mut self, level: u32, index: u64) -> Result<&[Hash]> {
        if !self.read.contains_key(&(level, index)) {
            let hashes = match self.tree.hashes(level, index) {
                Some(hashes) => hashes,
                None => self.checked(level, index)?,
            };
            // A reader of a whole log is not to hold it all.
            if self.read.len() >= 1024 {
                self.read.clear();
            }
            self.read.insert((level, index), hashes);
        }
        Ok(self.read.get(&(level, index)).map(Vec::as_slice).unwrap_or_default())
    }

    fn checked(&mut self, level: u32, index: u64) -> Result<Vec<Hash>> {
        let above = self.hashes(level + 1, index / TILE as u64)?;
        let Some(root) = above.get((index % TILE as u64) as usize).copied() else {
            return Err(Error::new(ErrorKind::NotFound, "the log does not reach that far"));
        };
        let good = |hashes: &Vec<Hash>| hashes.len() == TILE && complete(hashes) == root;
        if let Ok(hashes) = self.store.read(level, index)
            && good(&hashes)
        {
            return Ok(hashes);
        }
        let first = index * TILE as u64;
        let again = if level == 0 {
            (self.leaves)(first)?
        } else {
            let roots = (first..first + TILE as u64).map(|below| self.hashes(level - 1, below).map(complete));
            roots.collect::<Result<Vec<Hash>>>()?
        };
        if !good(&again) {
            let path = tile_path(level, index, TILE);
            return Err(Error::new(ErrorKind::Corrupted, format!("{path} does not fit the tile above it")));
        }
        let tile = Tile { level, index, hashes: Arc::new(again.clone()) };
        if let Err(cause) = self.store.write(&tile) {
            tracing::warn!(%cause, "a tile of the audit log could not be written again");
        }
        Ok(again)
    }

    /// The root of a complete subtree.
    pub(super) fn subtree(&mut self, level: u32, index: u64) -> Result<Hash> {
        let (tile_level, height) = (level / 8, level % 8);
        let first = index << height;
        let offset = (first % TILE as u64) as usize;
        let hashes = self.hashes(tile_level, first / TILE as u64)?;
        match hashes.get(offset..offset + (1 << height)) {
            Some(hashes) => Ok(complete(hashes)),
            None => Err(Error::new(ErrorKind::NotFound, "the log does not reach that far")),
        }
    }
}

/// The tree over the entries before `size`, from the tiles of the entries before `covered`, which is
/// `size` rounded down to a multiple of 256, and the leaves after it.
pub(super) fn restore(store: &TileStore, covered: u64, leaves: &[Hash]) -> Result<Tree> {
    let mut edge = Vec::new();
    // The partial tile above the leaves is made of the roots of the full tiles that are not in a full
    // tile of the level above.
    let mut full = covered / TILE as u64;
    let mut level = 0;
    edge.push(Vec::with_capacity(TILE));
    while full > 0 {
        let first = full / TILE as u64 * TILE as u64;
        let mut hashes = Vec::with_capacity(TILE);
        for index in first..full {
            hashes.push(complete(&store.read(level, index)?));
        }
        edge.push(hashes);
        (level, full) = (level + 1, full / TILE as u64);
    }
    let mut tree = Tree { frontier: Frontier::new(), edge, unwritten: Vec::new() };
    let sized = |level: u32, index: u64| -> Result<Hash> {
        let (tile_level, height) = (level / 8, level % 8);
        let first = index << height;
        let offset = (first % TILE as u64) as usize;
        let edge =
            tree.edge.get(tile_level as usize).and_then(|tile| tile.get(offset..offset + (1 << height)));
        edge.map(complete).ok_or_else(|| Error::new(ErrorKind::Internal, "a subtree is not at the edge"))
    };
    tree.frontier = Frontier::from_subtrees(covered, sized)?;
    leaves.iter().for_each(|leaf| tree.push(*leaf));
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::disk::OsDisk;
    use crate::merkle::{self, leaf};

    #[test]
    fn paths_are_those_of_the_specification() {
        assert_eq!(tile_path(0, 1_234_067, TILE), "tile/0/x001/x234/067");
        assert_eq!(tile_path(1, 0, 17), "tile/1/000.p/17");
        assert_eq!(entries_path(273, 112), "tile/entries/273.p/112");
        let parse = |path: &str| parse_number_path(path.split('/'));
        assert_eq!(parse("x001/x234/067"), Some((1_234_067, TILE)));
        assert_eq!(parse("000.p/17"), Some((0, 17)));
        for bad in
            ["", "67", "x000/067", "001/067", "x001", "000.p/0", "000.p/256", "000.p/017", "000.p", "+67"]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn tiles_give_the_roots_and_proofs_of_every_size() {
        let directory = tempfile::tempdir().unwrap();
        let store = TileStore::new(Arc::new(OsDisk), directory.path());
        let mut tree = Tree::default();
        let mut plain = Frontier::new();
        let leaves: Vec<Hash> = (0..70_000_u64).map(|at| leaf(&at.to_be_bytes())).collect();
        let mut roots = vec![merkle::empty()];
        for (at, leaf) in leaves.iter().enumerate() {
            tree.push(*leaf);
            plain.push(*leaf, |_, _| {});
            roots.push(plain.root());
            if at % 500 == 499 {
                let (rest, done) = store.flush(take_unwritten(&mut tree));
                assert!(rest.is_empty() && done.is_ok());
            }
        }
        let size = tree.size();
        assert_eq!((tree.root(), size), (plain.root(), 70_000));
        // "273 full level 0 tiles, one partial level 0 tile of width 112, one full level 1 tile, one
        // partial level 1 tile of width 17, and one partial level 2 tile of width 1."
        let widths: Vec<usize> = tree.edge.iter().map(Vec::len).collect();
        assert_eq!(widths, [112, 17, 1]);
        let mut reader = TileReader::new(&store, &tree, &|_| unreachable!());
        let mut random = 1_u64;
        for _ in 0..300 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let to = random >> 33;
            let (to, from) = (1 + to % size, (random >> 20) % (1 + to % size));
            let subtree = |level, index| reader.subtree(level, index);
            assert_eq!(merkle::root(to, subtree).unwrap(), roots[to as usize]);
            let proof = merkle::consistency(from, to, |level, index| reader.subtree(level, index)).unwrap();
            let (old, new) = (&roots[from as usize], &roots[to as usize]);
            assert!(merkle::verify_consistency(from, old, to, new, &proof), "{from} {to}");
            let proof = merkle::inclusion(from, to, |level, index| reader.subtree(level, index)).unwrap();
            assert!(merkle::verify_inclusion(&leaves[from as usize], from, to, &proof, new), "{from} {to}");
        }
        let restored = restore(&store, 69_888, &leaves[69_888..]).unwrap();
        assert_eq!((restored.root(), &restored.edge), (tree.root(), &tree.edge));
    }
}
