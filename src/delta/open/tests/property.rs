use proptest::prelude::*;

use super::build::{ar, entry, gzip, tar, text, xz, xz_blocks, zip_with, zstd};
use super::*;
use crate::delta::open::check::refold;

#[derive(Clone, Debug)]
enum Tree {
    Noise(Vec<u8>),
    Text(u64, usize),
    Gzip(Vec<Tree>),
    Zip(Vec<(Tree, bool)>),
    Tar(Vec<Tree>),
    Ar(Vec<Tree>),
    Xz(Box<Tree>, Option<u16>),
    Zstd(Box<Tree>, i32, bool),
    /// With bytes behind it.
    Tail(Box<Tree>, Vec<u8>),
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..600).prop_map(Tree::Noise),
        (any::<u64>(), 0_usize..3000).prop_map(|(seed, length)| Tree::Text(seed, length)),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let some = || prop::collection::vec(inner.clone(), 1..4);
        prop_oneof![
            some().prop_map(Tree::Gzip),
            prop::collection::vec((inner.clone(), any::<bool>()), 1..4).prop_map(Tree::Zip),
            some().prop_map(Tree::Tar),
            some().prop_map(Tree::Ar),
            (inner.clone(), prop::option::of(500_u16..2000))
                .prop_map(|(one, block)| Tree::Xz(one.into(), block)),
            (inner.clone(), 1..4_i32, any::<bool>()).prop_map(|(one, level, sized)| Tree::Zstd(
                one.into(),
                level,
                sized
            )),
            (inner.clone(), prop::collection::vec(any::<u8>(), 0..40))
                .prop_map(|(one, tail)| Tree::Tail(one.into(), tail)),
        ]
    })
}

impl Tree {
    fn bytes(&self) -> Vec<u8> {
        let named = |trees: &[Tree]| -> Vec<(&'static str, Vec<u8>)> {
            trees.iter().zip(["a", "b/c", "d.txt"]).map(|(tree, name)| (name, tree.bytes())).collect()
        };
        match self {
            Tree::Noise(bytes) => bytes.clone(),
            Tree::Text(seed, length) => text(*seed, *length),
            Tree::Gzip(members) => members.iter().flat_map(|member| gzip(&member.bytes())).collect(),
            Tree::Zip(members) => {
                let entries = members.iter().zip(["a", "b/c", "d.txt"]);
                let entries: Vec<_> = entries
                    .map(|((tree, stored), name)| entry(name, &tree.bytes(), if *stored { 0 } else { 8 }))
                    .collect();
                zip_with(&[], &entries, &[])
            }
            Tree::Tar(members) => tar(&named(members)),
            Tree::Ar(members) => ar(&named(members)),
            Tree::Xz(one, None) => xz(&one.bytes(), 0),
            Tree::Xz(one, Some(block)) => xz_blocks(&one.bytes(), (*block).into()),
            Tree::Zstd(one, level, sized) => zstd(&one.bytes(), *level, *sized),
            Tree::Tail(one, tail) => [one.bytes(), tail.clone()].concat(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_opened_is_closed_again(tree in tree(), seed: u64) {
        let blob = tree.bytes();
        let (_, made) = reopen(&blob, seed).unwrap();
        prop_assert!(made == blob);
    }

    #[test]
    fn damage_is_closed_again_too(tree in tree(), seed: u64, at: prop::sample::Index, to: u8, cut: prop::sample::Index) {
        let mut blob = tree.bytes();
        if !blob.is_empty() {
            let at = at.index(blob.len());
            blob[at] ^= to;
            let (_, made) = reopen(&blob, seed).unwrap();
            prop_assert!(made == blob);
            blob.truncate(cut.index(blob.len()));
            let (_, made) = reopen(&blob, seed).unwrap();
            prop_assert!(made == blob);
        }
    }

    #[test]
    fn any_recipe_is_followed_or_refused(recipe: Vec<u8>, target: Vec<u8>) {
        let mut recipe = recipe;
        if let Some(version) = recipe.first_mut() {
            *version = 1;
        }
        let _ = refold(&recipe, &target);
    }

    #[test]
    fn a_damaged_recipe_does_no_harm(tree in tree(), at: prop::sample::Index, to: u8) {
        let blob = tree.bytes();
        let image = open(&blob, "b", &MemoryScratch, &Limits::default()).unwrap();
        let mut image = image;
        let mut encodings = Vec::new();
        for stream in 0..image.streams().len() {
            let split = image.streams()[stream].family() == Family::Deflate && image.add_split(stream).is_ok();
            encodings.push(if split { Encoding::Split } else { Encoding::Closed });
        }
        let mut bytes = Recipe::new(&image, &encodings).unwrap().to_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= to;
        let size = image.target(&encodings).iter().map(|leaf| leaf.range.end - leaf.range.start).sum::<u64>();
        let _ = refold(&bytes, &vec![0x55; size as usize]);
    }
}
