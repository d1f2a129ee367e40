use proptest::prelude::*;

use super::*;

/// An artefact, the blob it is for, and which of its frames a pack carries.
#[derive(Clone, Debug)]
struct Sent {
    head: PartHead,
    bytes: Vec<u8>,
    end: u64,
}

fn sent(bytes: Vec<u8>, bases: usize, first: u64, end: u64) -> Sent {
    let section = Descriptor { digest: Digest::of(&bytes), size: bytes.len() as u64 };
    let other = |n: usize| Descriptor { digest: Digest::of(&[n as u8]), size: n as u64 * 1_000_003 };
    let bases = (0..bases).map(other).collect();
    let head = PartHead::artefact(section, other(77), bases).from_frame(first);
    Sent { head, bytes, end }
}

/// Bytes that are not all alike, made quickly.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut step = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..length).map(|_| step()).collect()
}

fn write(parts: &[Sent]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new()).unwrap();
    for sent in parts {
        writer.part(sent.head.clone(), &sent.bytes, sent.end).unwrap();
    }
    writer.finish().unwrap()
}

/// All events of `bytes`, given in pieces of `step`.
fn events(bytes: &[u8], step: usize) -> Result<Vec<Event>> {
    let mut reader = Reader::new();
    let mut events = Vec::new();
    for mut piece in bytes.chunks(step.max(1)) {
        while let Some(event) = reader.feed(&mut piece)? {
            events.push(event);
        }
    }
    reader.finish()?;
    Ok(events)
}

fn expected(parts: &[Sent]) -> Vec<Event> {
    let mut events = Vec::new();
    for sent in parts {
        events.push(Event::Head(sent.head.clone()));
        for index in sent.head.first..sent.end {
            let start = (index * FRAME) as usize;
            let bytes = &sent.bytes[start..start + frame_length(sent.head.length, index) as usize];
            events.push(Event::Frame(Frame::new(&sent.head.section, index, bytes.to_vec().into())));
        }
        events.push(Event::PartEnd);
    }
    events.push(Event::End);
    events
}

fn two_parts() -> Vec<Sent> {
    vec![sent(noise(3, 1), 1, 0, 1), sent(noise(0, 1), 0, 0, 0), sent(noise(150, 2), 3, 0, 1)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn what_is_written_is_read_however_it_arrives(
        shapes in prop::collection::vec((0usize..600_000, 0usize..4, 0u64..4, 0u64..4), 0..4),
        step in 1usize..700_000,
    ) {
        let parts: Vec<Sent> = shapes
            .into_iter()
            .enumerate()
            .map(|(n, (size, bases, first, end))| {
                let first = first.min(frames(size as u64));
                sent(noise(size, n as u64), bases, first, end.clamp(first, frames(size as u64).max(first)))
            })
            .collect();
        let pack = write(&parts);
        prop_assert_eq!(pack.len() as u64, length(parts.iter().map(|sent| (&sent.head, sent.head.first..sent.end))));
        prop_assert_eq!(events(&pack, step).unwrap(), expected(&parts));
    }

    #[test]
    fn odd_bytes_are_refused_or_read_the_same_in_any_pieces(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        step in 1usize..50,
    ) {
        let mut pack = write(&two_parts());
        let at = bytes.len() % pack.len();
        pack.truncate(at.max(9));
        pack.extend_from_slice(&bytes);
        let whole = events(&pack, pack.len());
        let pieces = events(&pack, step);
        prop_assert_eq!(
            whole.map_err(|error| error.message().to_owned()),
            pieces.map_err(|error| error.message().to_owned())
        );
    }
}

#[test]
fn a_cut_anywhere_is_told_with_the_frames_before_it() {
    let pack = write(&[sent(noise(300_000, 3), 1, 0, 2)]);
    // Far from the records' ends all places are alike.
    let near_an_end = |at: usize| at < 200 || at > pack.len() - 100 || (262_000..262_500).contains(&at);
    for at in (0..pack.len()).filter(|at| near_an_end(*at) || at % 1009 == 0) {
        let mut reader = Reader::new();
        let mut input = &pack[..at];
        let mut given = 0;
        while let Some(event) = reader.feed(&mut input).unwrap() {
            given += u64::from(matches!(event, Event::Frame(_)));
        }
        let error = reader.finish().unwrap_err();
        assert_eq!(reader.frames(), given, "cut at {at}");
        assert_eq!(error.kind(), ErrorKind::Corrupted, "cut at {at}: {error}");
        assert!(error.message().contains(&format!("{given} whole frames")), "cut at {at}: {error}");
    }
}

#[test]
fn every_changed_byte_is_an_error() {
    let pack = write(&two_parts());
    for at in 0..pack.len() {
        for change in [1, 0x80, 0xff] {
            let mut bad = pack.clone();
            bad[at] ^= change;
            assert!(events(&bad, 64).is_err(), "byte {at} changed by {change:#x} is taken");
        }
    }
}

#[test]
fn records_left_out_or_in_another_place_are_errors() {
    let (one, two) = (sent(noise(300_000, 3), 0, 0, 2), sent(noise(200, 4), 0, 0, 1));
    let both = write(&[one.clone(), two.clone()]);
    let alone = write(std::slice::from_ref(&one));
    let first_part = alone.len() - end_len(1);
    let second_part = both.len() - end_len(2);
    // The second part in the place of the first, and nothing but the second.
    let swapped =
        [&both[..9], &both[first_part..second_part], &both[9..first_part], &both[second_part..]].concat();
    let left_out = [&both[..9], &both[first_part..]].concat();
    let cut_short = [&both[..first_part], &both[second_part..]].concat();
    for (name, bad) in [("swapped", swapped), ("left out", left_out), ("cut short", cut_short)] {
        let error = events(&bad, 4096).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupted, "{name}: {error}");
    }
}

fn end_len(parts: u64) -> usize {
    writer::end_length(parts) as usize
}

#[test]
fn what_is_not_a_pack_of_this_version_is_named() {
    let pack = write(&two_parts());
    let mut future = pack.clone();
    future[8] = 2;
    let mut longer = pack.clone();
    longer.push(0);
    let mut mangled = pack.clone();
    mangled.remove(6);
    for (bytes, kind, words) in [
        (b"PK\x03\x04 this is a zip".to_vec(), ErrorKind::Invalid, "not a pack"),
        (b"PK".to_vec(), ErrorKind::Invalid, "not a pack"),
        (mangled, ErrorKind::Invalid, "not a pack"),
        (future, ErrorKind::Unsupported, "version 2"),
        (longer, ErrorKind::Invalid, "bytes follow the end"),
        (Vec::new(), ErrorKind::Corrupted, "cut off"),
        (pack[..4].to_vec(), ErrorKind::Corrupted, "cut off"),
    ] {
        let error = events(&bytes, 7).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(words), "{error}");
    }
}

#[test]
fn a_head_past_the_limits_is_refused() {
    let head = sent(vec![1], 0, 0, 1).head;
    let base = Descriptor { digest: head.section, size: 1 };
    for (head, kind) in [
        (PartHead { length: MAX_ARTEFACT + 1, ..head.clone() }, ErrorKind::TooLarge),
        (PartHead { bases: vec![base; MAX_BASES + 1], ..head.clone() }, ErrorKind::TooLarge),
        (PartHead { first: 2, ..head.clone() }, ErrorKind::Invalid),
        (PartHead { role: Role::Trust, length: MAX_DOCUMENT + 1, ..head.clone() }, ErrorKind::TooLarge),
    ] {
        let mut body = Vec::new();
        wire::put_head(&mut body, &head);
        assert_eq!(wire::parse_head(&body).unwrap_err().kind(), kind);
        assert_eq!(Writer::new(Vec::new()).unwrap().begin(head).unwrap_err().kind(), kind);
    }
    let most = PartHead { bases: vec![Descriptor { size: u64::MAX, ..base }; MAX_BASES], ..head };
    let mut body = Vec::new();
    wire::put_head(&mut body, &most);
    assert!(body.len() as u64 <= wire::MAX_HEAD);
    assert_eq!(wire::parse_head(&body).unwrap(), most);
}

#[test]
fn a_declared_length_makes_no_room_before_bytes_come() {
    let pack = write(&[sent(noise(10, 1), 0, 0, 1)]);
    // A record that claims 2 MiB, where a head stands.
    let bad = [&pack[..9], &[1, 0xff, 0xff, 0x7f]].concat();
    assert_eq!(events(&bad, 64).unwrap_err().kind(), ErrorKind::TooLarge);
    // A frame that claims more than its artefact has.
    let mut bad = pack.clone();
    let at =
        (0..pack.len()).find(|at| pack[*at..].starts_with(&[&[2, 10], &noise(10, 1)[..]].concat())).unwrap();
    bad[at + 1] = 11;
    let error = events(&bad, 64).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
}

#[test]
fn whole_blobs_cost_less_than_one_per_cent_more() {
    for size in [64 * 1024, FRAME as usize, FRAME as usize + 1, 3_000_000] {
        let pack = write(&[sent(noise(size, 1), 1, 0, frames(size as u64))]);
        assert!(pack.len() * 100 <= size * 101, "{size} bytes make a pack of {}", pack.len());
        // Magic and end apart, and the tags of the further frames.
        let overhead = pack.len() - size - 9 - end_len(1) - 12 * (frames(size as u64) as usize - 1);
        assert!(overhead <= 160, "a part of {size} bytes costs {overhead} more");
    }
}
