//! Whole journeys: plan, then apply, with blobs like those that are released.

use std::sync::Arc;

use proptest::prelude::*;

use super::deflate::{Encoder, Variant, encode};
use super::pair::mix;
use super::*;
use crate::digest::Digest;
use crate::error::{ErrorKind, Result};

/// Text with the redundancy of source code.
pub(super) fn text(seed: u64, length: usize) -> Vec<u8> {
    const WORDS: [&str; 16] = [
        "fn ", "let ", "return ", "(value)", " = ", ";\n", "    ", "if ", "else ", "{\n", "}\n", "index",
        "self.", "0x1f", "\"text\"", "// ",
    ];
    let mut out = Vec::new();
    let mut state = seed;
    while out.len() < length {
        state = mix(state + 1);
        out.extend_from_slice(WORDS[(state % 16) as usize].as_bytes());
        if state.is_multiple_of(7) {
            out.extend_from_slice(format!("{state:x}").as_bytes());
        }
    }
    out.truncate(length);
    out
}

fn deflated(plain: &[u8], level: u8) -> Vec<u8> {
    let mut out = Vec::new();
    encode(Encoder::zlib(Variant::Stock, level), &mut &plain[..], &mut out).unwrap();
    out
}

fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

pub(super) fn gzip(plain: &[u8], level: u8) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    out.extend(deflated(plain, level));
    out.extend(crc(plain).to_le_bytes());
    out.extend((plain.len() as u32).to_le_bytes());
    out
}

pub(super) fn tar(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, content) in members {
        let mut header = vec![0; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..107].copy_from_slice(b"0000644");
        header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        header[136..147].copy_from_slice(b"00000000000");
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        out.extend(header);
        out.extend(content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

pub(super) fn zip(members: &[(String, Vec<u8>)], time: u32, level: u8) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in members {
        let coded = deflated(content, level);
        let mut common = vec![20, 0, 0, 0, 8, 0];
        common.extend(time.to_le_bytes());
        common.extend(crc(content).to_le_bytes());
        common.extend((coded.len() as u32).to_le_bytes());
        common.extend((content.len() as u32).to_le_bytes());
        common.extend((name.len() as u16).to_le_bytes());
        common.extend([0, 0]);
        directory.extend(b"PK\x01\x02\x14\x03");
        directory.extend(&common);
        directory.extend([0; 10]);
        directory.extend((out.len() as u32).to_le_bytes());
        directory.extend(name.as_bytes());
        out.extend(b"PK\x03\x04");
        out.extend(&common);
        out.extend(name.as_bytes());
        out.extend(coded);
    }
    let start = out.len() as u32;
    out.extend(&directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend((members.len() as u16).to_le_bytes());
    out.extend((members.len() as u16).to_le_bytes());
    out.extend((directory.len() as u32).to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend([0, 0]);
    out
}

pub(super) fn base(bytes: &[u8]) -> Base {
    Base { digest: Digest::of(bytes), data: Arc::new(bytes.to_vec()) }
}

fn budget(effort: u8) -> Budget {
    Budget { effort, ..Budget::default() }
}

fn planned(new: &[u8], olds: &[&[u8]], effort: u8) -> Plan {
    let bases: Vec<Base> = olds.iter().map(|old| base(old)).collect();
    plan(&new.to_vec(), &bases, &budget(effort), &Limits::default(), &MemoryScratch, &|_| ()).unwrap()
}

fn applied(artefact: &[u8], olds: &[&[u8]]) -> Result<Vec<u8>> {
    let bases: Vec<(Digest, Arc<dyn ReadAt>)> =
        olds.iter().map(|old| (Digest::of(old), Arc::new(old.to_vec()) as Arc<dyn ReadAt>)).collect();
    let mut out = Vec::new();
    apply(&artefact.to_vec(), &bases, &Limits::default(), &MemoryScratch, &mut out)?;
    Ok(out)
}

fn bytes_of(plan: &Plan) -> Vec<u8> {
    let mut bytes = vec![0; plan.artefact.size() as usize];
    plan.artefact.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// Plans, applies, and gives the plan's method and bytes.
fn journey(new: &[u8], olds: &[&[u8]], effort: u8) -> (Method, Vec<u8>) {
    let plan = planned(new, olds, effort);
    let bytes = bytes_of(&plan);
    assert_eq!(applied(&bytes, olds).unwrap(), new, "{}", plan.why);
    (plan.method, bytes)
}

fn members(seed: u64, count: u64) -> Vec<(String, Vec<u8>)> {
    (0..count).map(|i| (format!("lib/part{i}.rs"), text(seed + i, 3000 + 97 * i as usize))).collect()
}

#[test]
fn one_line_in_a_compressed_archive_costs_little() {
    let old = members(1, 40);
    let mut new = old.clone();
    new[17].1.splice(800..810, *b"another line, longer");
    type Pack = fn(&[(String, Vec<u8>)]) -> Vec<u8>;
    let packs: [(&str, Pack); 4] = [
        ("tar.gz", |members| gzip(&tar(members), 9)),
        ("zip", |members| zip(members, 7, 6)),
        ("gz in zip", |members| zip(&[("a.tar.gz".into(), gzip(&tar(members), 6))], 7, 6)),
        ("tar", tar),
    ];
    for (what, pack) in packs {
        let (old, new) = (pack(&old), pack(&new));
        let (method, patch) = journey(&new, &[&old], 5);
        assert_eq!(method, Method::Patch, "{what}");
        assert!(patch.len() < 700, "{what}: {} bytes of {}", patch.len(), new.len());
    }
}

#[test]
fn all_times_changed_in_a_zip_cost_little() {
    let members = members(1, 200);
    let (old, new) = (zip(&members, 0x5a21_4321, 6), zip(&members, 0x5a21_6789, 6));
    let (_, patch) = journey(&new, &[&old], 5);
    assert!(patch.len() < 2500, "{} bytes of {}", patch.len(), new.len());
}

#[test]
fn two_bases_serve_one_target() {
    let (one, two) = (members(1, 20), members(1000, 20));
    let both: Vec<_> = one.iter().chain(&two).cloned().collect();
    let (old_one, old_two, new) = (gzip(&tar(&one), 6), gzip(&tar(&two), 6), gzip(&tar(&both), 6));
    let (method, patch) = journey(&new, &[&old_one, &old_two], 5);
    assert_eq!(method, Method::Patch);
    assert!(patch.len() < 600, "{} bytes", patch.len());
    let missing = applied(&patch, &[&old_one]).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.message().contains(&Digest::of(&old_two).to_string()), "{missing}");
}

#[test]
fn what_has_nothing_in_common_travels_whole_or_compressed() {
    let noise: Vec<u8> = (0..50_000_u64).map(|i| (mix(i) >> 17) as u8).collect();
    let (method, artefact) = journey(&noise, &[], 5);
    assert_eq!(method, Method::Whole);
    assert!(artefact.len() < noise.len() + 64);
    let (method, artefact) = journey(&noise, &[&text(3, 40_000)], 5);
    assert_eq!((method, artefact.len() < noise.len() + 64), (Method::Whole, true));
    let (method, artefact) = journey(&text(5, 50_000), &[], 5);
    assert_eq!((method, artefact.len() < 25_000), (Method::Compressed, true));
    for tiny in [&b""[..], b"x"] {
        assert_eq!(journey(tiny, &[], 5).0, Method::Whole);
        journey(tiny, &[b"x"], 5);
        journey(b"some more bytes than that", &[tiny], 5);
    }
}

#[test]
fn a_base_that_is_not_what_it_was_is_named() {
    let old = gzip(&tar(&members(1, 10)), 6);
    let new = gzip(&tar(&members(1, 11)), 6);
    let patch = bytes_of(&planned(&new, &[&old], 5));
    let mut refused = 0;
    for at in [12, old.len() / 3, old.len() / 2, old.len() - 1] {
        let mut damaged = old.clone();
        damaged[at] ^= 1;
        let bases: Vec<(Digest, Arc<dyn ReadAt>)> = vec![(Digest::of(&old), Arc::new(damaged))];
        let mut out = Vec::new();
        match apply(&patch, &bases, &Limits::default(), &MemoryScratch, &mut out) {
            // What is damaged is not always used.
            Ok(_) => assert_eq!(out, new),
            // Another base is opened in another way, so that other things can go wrong before.
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Mismatch | ErrorKind::Corrupted), "{error}");
                refused += 1;
            }
        }
    }
    assert!(refused >= 2, "{refused}");
}

#[test]
fn no_byte_of_a_patch_can_be_changed_unseen() {
    let old = zip(&members(1, 6), 7, 6);
    let mut changed = members(1, 6);
    changed[3].1.truncate(1000);
    changed[2].1.extend(text(77, 2000));
    let new = zip(&changed, 9, 6);
    let patch = bytes_of(&planned(&new, &[&old], 5));
    // Every byte of the header and the control, and some of the data.
    for at in (0..patch.len()).filter(|at| *at < 150 || at % 11 == 0) {
        applied(&patch[..at], &[&old]).unwrap_err();
        let mut bad = patch.clone();
        bad[at] ^= 1 << (at % 8);
        if let Ok(made) = applied(&bad, &[&old]) {
            assert_eq!(made, new, "byte {at}");
        }
    }
    applied(&[&patch[..], b"x"].concat(), &[&old]).unwrap_err();
}

#[test]
fn declared_sizes_are_limits() {
    let old = gzip(&tar(&members(1, 10)), 6);
    let new = gzip(&tar(&members(1, 30)), 6);
    let patch = bytes_of(&planned(&new, &[&old], 5));
    let bases: Vec<(Digest, Arc<dyn ReadAt>)> = vec![(Digest::of(&old), Arc::new(old.clone()))];
    for limits in [
        Limits { plain: 1000, ..Limits::default() },
        Limits { depth: 1, ..Limits::default() },
        Limits { streams: 1, ..Limits::default() },
        Limits { memory: 1 << 16, ..Limits::default() },
    ] {
        let error = apply(&patch, &bases, &limits, &MemoryScratch, &mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    }
    let header = inspect(&patch).unwrap();
    assert_eq!((header.size, header.digest), (new.len() as u64, Digest::of(&new)));
    assert_eq!(header.bases, [Digest::of(&old)]);
}

#[test]
fn effort_trades_bytes_for_time_and_never_the_blob() {
    let (old, mut new) = (members(1, 12), members(1, 12));
    new[4].1.splice(100..900, text(99, 500));
    let (old, new) = (gzip(&tar(&old), 6), gzip(&tar(&new), 6));
    for effort in 0..10 {
        journey(&new, &[&old], effort);
    }
}

/// An edit of the old members that makes the new ones.
#[derive(Clone, Debug)]
enum Edit {
    Remove(prop::sample::Index),
    Add(u64, usize),
    Replace(prop::sample::Index, u64, usize),
    Cut(prop::sample::Index, prop::sample::Index, usize, Vec<u8>),
    Swap(prop::sample::Index, prop::sample::Index),
    Rename(prop::sample::Index, u16),
}

fn edit() -> impl Strategy<Value = Edit> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        index().prop_map(Edit::Remove),
        (any::<u64>(), 0..4000_usize).prop_map(|(seed, length)| Edit::Add(seed >> 1, length)),
        (index(), any::<u64>(), 0..4000_usize).prop_map(|(at, seed, length)| Edit::Replace(
            at,
            seed >> 1,
            length
        )),
        (index(), index(), 0..200_usize, prop::collection::vec(any::<u8>(), 0..80))
            .prop_map(|(at, from, length, bytes)| Edit::Cut(at, from, length, bytes)),
        (index(), index()).prop_map(|(a, b)| Edit::Swap(a, b)),
        (index(), any::<u16>()).prop_map(|(at, name)| Edit::Rename(at, name)),
    ]
}

fn edited(mut members: Vec<(String, Vec<u8>)>, edits: &[Edit]) -> Vec<(String, Vec<u8>)> {
    for edit in edits {
        let count = members.len();
        match edit {
            Edit::Add(seed, length) => members.push((format!("new/{seed:x}"), text(*seed, *length))),
            _ if count == 0 => {}
            Edit::Remove(at) => drop(members.remove(at.index(count))),
            Edit::Replace(at, seed, length) => members[at.index(count)].1 = text(*seed, *length),
            Edit::Cut(at, from, length, bytes) => {
                let content = &mut members[at.index(count)].1;
                let from = from.index(content.len() + 1);
                let to = (from + length).min(content.len());
                content.splice(from..to, bytes.iter().copied());
            }
            Edit::Swap(a, b) => members.swap(a.index(count), b.index(count)),
            Edit::Rename(at, name) => members[at.index(count)].0 = format!("renamed/{name}"),
        }
    }
    members
}

fn wrapped(members: &[(String, Vec<u8>)], how: u8, level: u8) -> Vec<u8> {
    match how {
        0 => tar(members),
        1 => gzip(&tar(members), level),
        2 => zip(members, level.into(), level),
        3 => zip(&[("inner.zip".into(), zip(members, 1, level)), ("x".into(), text(1, 50))], 3, 6),
        4 => [gzip(&tar(members), level), gzip(b"and more", 1), b"trailing".to_vec()].concat(),
        _ => members.iter().flat_map(|(_, content)| content.iter().copied()).collect(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn what_is_applied_is_what_was_planned(
        seed in 0..1000_u64,
        count in 0..8_u64,
        edits in prop::collection::vec(edit(), 0..6),
        (old_how, new_how) in prop_oneof![3 => (0..6_u8).prop_map(|how| (how, how)), 1 => (0..6_u8, 0..6_u8)],
        (old_level, new_level) in (1..10_u8, 1..10_u8),
        effort in 0..7_u8,
    ) {
        let old = members(seed, count);
        let new = wrapped(&edited(old.clone(), &edits), new_how, new_level);
        let old = wrapped(&old, old_how, old_level);
        let (_, artefact) = journey(&new, &[&old], effort);
        prop_assert!(artefact.len() as u64 <= new.len() as u64 + 64);
    }

    #[test]
    fn bytes_of_any_kind_come_back(old: Vec<u8>, new: Vec<u8>, effort in 0..7_u8, at: prop::sample::Index) {
        let mixed = [&new[..], &old[..], &new[..]].concat();
        let (_, artefact) = journey(&mixed, &[&old], effort);
        applied(&artefact[..at.index(artefact.len())], &[&old]).unwrap_err();
    }
}
