use proptest::prelude::*;

use super::*;
use crate::delta::pack::{Descriptor, frames};

const PLENTY: u64 = 1 << 30;

fn artefact(size: usize) -> (PartHead, Vec<u8>) {
    let bytes: Vec<u8> = (0..size).map(|n| (n as u32).wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let section = Descriptor { digest: Digest::of(&bytes), size: size as u64 };
    let blob = |name: &[u8]| Descriptor { digest: Digest::of(name), size: 7 };
    (PartHead::artefact(section, blob(b"target"), vec![blob(b"base")]), bytes)
}

fn frame(head: &PartHead, bytes: &[u8], index: u64) -> Frame {
    let start = (index * FRAME) as usize;
    let end = start + frame_length(head.length, index) as usize;
    Frame::new(&head.section, index, Bytes::copy_from_slice(&bytes[start..end]))
}

fn put(inbox: &Inbox, head: &PartHead, bytes: &[u8], indexes: &[u64]) {
    let mut writer = inbox.accept(head).unwrap();
    for index in indexes {
        writer.frame(&frame(head, bytes, *index)).unwrap();
    }
}

fn content(artefact: &dyn ReadAt) -> Vec<u8> {
    let mut bytes = vec![0; artefact.size() as usize];
    artefact.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(artefact.read_at(&mut [0; 9], artefact.size()).unwrap(), 0);
    bytes
}

fn both(limit: u64, test: impl Fn(&Inbox)) {
    let directory = tempfile::tempdir().unwrap();
    test(&Inbox::memory(limit));
    test(&Inbox::directory(directory.path().join("inbox"), limit).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn frames_in_any_order_make_the_artefact_across_restarts(
        size in 0usize..1_200_000,
        order in Just((0u64..5).collect::<Vec<_>>()).prop_shuffle(),
        restarts in prop::collection::vec(any::<bool>(), 5),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let (head, bytes) = artefact(size);
        let order: Vec<u64> = order.into_iter().filter(|index| *index < frames(size as u64)).collect();
        let mut inbox = Inbox::directory(directory.path(), PLENTY).unwrap();
        put(&inbox, &head, &bytes, &[]);
        for (n, (index, restart)) in order.iter().zip(restarts).enumerate() {
            prop_assert!(inbox.complete(&head.section).unwrap().is_none());
            put(&inbox, &head, &bytes, &[*index, *index]);
            if restart {
                inbox = Inbox::directory(directory.path(), PLENTY).unwrap();
            }
            let missing: u64 =
                inbox.position(&head.section).unwrap().unwrap().missing.iter().map(|range| range.end - range.start).sum();
            prop_assert_eq!(missing, (order.len() - n - 1) as u64);
        }
        prop_assert_eq!(inbox.used(), size as u64);
        prop_assert_eq!(content(&inbox.complete(&head.section).unwrap().unwrap()), bytes);
        prop_assert!(inbox.remove(&head.section).unwrap());
        prop_assert_eq!(inbox.used(), 0);
        prop_assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}

#[test]
fn both_kinds_tell_what_is_missing() {
    both(PLENTY, |inbox| {
        let (head, bytes) = artefact(1_200_000);
        assert_eq!(inbox.position(&head.section).unwrap(), None);
        put(inbox, &head, &bytes, &[1, 4]);
        let position = inbox.position(&head.section).unwrap().unwrap();
        assert_eq!((position.head, position.missing), (head.clone(), vec![0..1, 2..4]));
        assert!(inbox.complete(&head.section).unwrap().is_none());
        put(inbox, &head, &bytes, &[3, 0, 2]);
        let whole = inbox.complete(&head.section).unwrap().unwrap();
        // Who reads it keeps it.
        inbox.remove(&head.section).unwrap();
        assert_eq!(content(&whole), bytes);
        assert!(!inbox.remove(&head.section).unwrap());
    });
}

#[test]
fn a_whole_artefact_with_another_digest_is_dropped() {
    both(PLENTY, |inbox| {
        let (head, bytes) = artefact(600_000);
        let mut other = bytes.clone();
        other[300_000] ^= 1;
        put(inbox, &head, &other, &[2, 0, 1]);
        let error = inbox.complete(&head.section).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Mismatch);
        assert!(error.message().contains(&head.section.to_string()), "{error}");
        assert_eq!(inbox.position(&head.section).unwrap(), None);
        assert_eq!(inbox.used(), 0);
        put(inbox, &head, &bytes, &[0, 1, 2]);
        assert_eq!(content(&inbox.complete(&head.section).unwrap().unwrap()), bytes);
    });
}

#[test]
fn one_part_of_a_section_is_taken_at_a_time() {
    both(PLENTY, |inbox| {
        let (head, bytes) = artefact(600_000);
        let mut first = inbox.accept(&head).unwrap();
        assert_eq!(inbox.accept(&head).unwrap_err().kind(), ErrorKind::Conflict);
        inbox.remove(&head.section).unwrap();
        // It was dropped under the writer; another one begins anew.
        assert_eq!(first.frame(&frame(&head, &bytes, 0)).unwrap_err().kind(), ErrorKind::Conflict);
        drop(inbox.accept(&head).unwrap());
        drop(first);
        put(inbox, &head, &bytes, &[0, 1, 2]);
        assert!(inbox.complete(&head.section).unwrap().is_some());
        let longer = PartHead { length: head.length + 1, ..head };
        assert_eq!(inbox.accept(&longer).unwrap_err().kind(), ErrorKind::Mismatch);
    });
}

#[test]
fn a_full_inbox_takes_no_more() {
    both(1_000_000, |inbox| {
        let ((head, bytes), (other, more)) = (artefact(600_000), artefact(600_001));
        // There is room for each of them.
        let mut late = inbox.accept(&other).unwrap();
        put(inbox, &head, &bytes, &[0, 1, 2]);
        late.frame(&frame(&other, &more, 0)).unwrap();
        let error = late.frame(&frame(&other, &more, 1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        drop(late);
        assert_eq!(inbox.accept(&other).unwrap_err().kind(), ErrorKind::NoSpace);
        inbox.remove(&other.section).unwrap();
        assert_eq!(inbox.used(), 600_000);
        inbox.remove(&head.section).unwrap();
        put(inbox, &other, &more, &[0, 1, 2]);
        assert_eq!(content(&inbox.complete(&other.section).unwrap().unwrap()), more);
    });
}

#[test]
fn frames_that_a_section_does_not_have_are_refused() {
    both(PLENTY, |inbox| {
        let (head, bytes) = artefact(600_000);
        let mut writer = inbox.accept(&head).unwrap();
        let good = frame(&head, &bytes, 2);
        for bad in [Frame { index: 3, ..good.clone() }, Frame { index: 0, ..good.clone() }] {
            assert_eq!(writer.frame(&bad).unwrap_err().kind(), ErrorKind::Invalid);
        }
        writer.frame(&good).unwrap();
        assert!(writer.has(2) && !writer.has(0));
    });
}

/// The machine crashed: the notes reached the disk, the bytes of one frame did not, and the last note
/// was torn. Counting on the notes gave an artefact with another digest, and all of it was dropped.
#[test]
fn bytes_that_a_crash_lost_are_missing_again() {
    let directory = tempfile::tempdir().unwrap();
    let (head, bytes) = artefact(1_200_000);
    put(&Inbox::directory(directory.path(), PLENTY).unwrap(), &head, &bytes, &[0, 1, 2, 3]);
    let (data, map) = paths(directory.path(), &head.section);
    let file = OpenOptions::new().write(true).open(data).unwrap();
    write_all_at(&file, &[0; 4096], FRAME + 8192).unwrap();
    let noted = fs::metadata(&map).unwrap().len();
    OpenOptions::new().write(true).open(&map).unwrap().set_len(noted - 5).unwrap();
    let inbox = Inbox::directory(directory.path(), PLENTY).unwrap();
    assert_eq!(inbox.position(&head.section).unwrap().unwrap().missing, vec![1..2, 3..5]);
    assert_eq!(inbox.used(), 2 * FRAME);
    put(&inbox, &head, &bytes, &[1, 3]);
    let inbox = Inbox::directory(directory.path(), PLENTY).unwrap();
    assert_eq!(inbox.position(&head.section).unwrap().unwrap().missing, vec![4..5]);
    put(&inbox, &head, &bytes, &[4]);
    assert_eq!(content(&inbox.complete(&head.section).unwrap().unwrap()), bytes);
}

#[test]
fn half_a_section_left_by_a_crash_is_removed_when_it_opens() {
    let directory = tempfile::tempdir().unwrap();
    let (head, bytes) = artefact(1000);
    let (other, _) = artefact(1001);
    put(&Inbox::directory(directory.path(), PLENTY).unwrap(), &head, &bytes, &[0]);
    let (data, _) = paths(directory.path(), &other.section);
    fs::write(data, b"data without a map").unwrap();
    let (_, map) = paths(directory.path(), &Digest::of(b"third"));
    fs::write(map, b"a map that is none").unwrap();
    fs::write(directory.path().join("else.txt"), b"not ours").unwrap();
    let inbox = Inbox::directory(directory.path(), PLENTY).unwrap();
    assert_eq!(inbox.sections(), vec![head]);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3);
}

#[test]
fn what_nobody_wants_or_is_old_is_collected() {
    let directory = tempfile::tempdir().unwrap();
    let inbox = Inbox::directory(directory.path(), PLENTY).unwrap();
    let parts: Vec<_> = [1000, 2000, 3000].map(artefact).into();
    for (head, bytes) in &parts {
        put(&inbox, head, bytes, &[0]);
    }
    let busy = inbox.accept(&parts[2].0).unwrap();
    let keep = |head: &PartHead| head.section == parts[0].0.section;
    assert_eq!(inbox.collect(Timestamp::EPOCH, &keep).unwrap(), 2000);
    drop(busy);
    assert_eq!(inbox.collect(Timestamp::EPOCH, &|_| true).unwrap(), 0);
    let inbox = Inbox::directory(directory.path(), PLENTY).unwrap();
    assert_eq!(inbox.used(), 4000);
    assert_eq!(inbox.collect(Timestamp::MAX, &|_| true).unwrap(), 4000);
    assert_eq!((inbox.used(), inbox.sections().len()), (0, 0));
}

#[test]
fn notes_stay_until_they_are_old() {
    let directory = tempfile::tempdir().unwrap();
    for inbox in [Inbox::memory(PLENTY), Inbox::directory(directory.path(), PLENTY).unwrap()] {
        let id = Digest::of(b"set");
        let count = |add: u8| {
            inbox.note(&id, |before| {
                let after = before.map_or(0, |before| before[0]) + add;
                Ok(((after != 9).then(|| vec![after]), after))
            })
        };
        assert_eq!(
            (count(1).unwrap(), count(2).unwrap(), count(6).unwrap(), count(3).unwrap()),
            (1, 3, 9, 3)
        );
    }
    let inbox = Inbox::directory(directory.path(), PLENTY).unwrap();
    let noted = || inbox.note(&Digest::of(b"set"), |before| Ok((before.clone(), before))).unwrap();
    assert_eq!(noted(), Some(vec![3]));
    inbox.collect(Timestamp::EPOCH, &|_| true).unwrap();
    assert_eq!(noted(), Some(vec![3]));
    inbox.collect(Timestamp::MAX, &|_| true).unwrap();
    assert_eq!(noted(), None);
}
