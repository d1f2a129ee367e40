//! Oracle of the pack reader.

use distedge::delta::pack::{Event, Reader, Writer, volume};
use distedge::digest::Digest;

/// After a zero a pack as it is; after anything else its records, each with a kind, a length in two
/// bytes and a body, to which the right tags are added: without them no record gets as far as to
/// be read.
pub fn pack(data: &[u8]) -> bool {
    match data.split_first() {
        None => false,
        Some((0, bytes)) => judge(bytes),
        Some((_, records)) => judge(&tagged(records)),
    }
}

/// Read in pieces of any length it is the same, and what is accepted is written in one way only.
fn judge(bytes: &[u8]) -> bool {
    let (events, refusal) = read(bytes, bytes.len().max(1));
    assert_eq!(read(bytes, 7), (events.clone(), refusal.clone()), "{bytes:?}");
    // A volume is a pack that says more.
    let verified = volume::verify(&mut &bytes[..]);
    if refusal.is_some() {
        assert!(verified.is_err(), "{bytes:?}");
        return false;
    }
    let mut writer = Writer::new(Vec::new()).unwrap();
    for event in events {
        match event {
            Event::Head(head) => writer.begin(head).unwrap(),
            Event::Frame(frame) => writer.frame(&frame.bytes).unwrap(),
            Event::PartEnd => writer.end().unwrap(),
            Event::End => {}
        }
    }
    assert_eq!(writer.finish().unwrap(), bytes);
    true
}

fn read(bytes: &[u8], step: usize) -> (Vec<Event>, Option<String>) {
    let mut reader = Reader::new();
    let mut events = Vec::new();
    for mut piece in bytes.chunks(step) {
        loop {
            match reader.feed(&mut piece) {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(error) => return (events, Some(error.to_string())),
            }
        }
    }
    let refusal = reader.finish().err().map(|error| error.to_string());
    (events, refusal)
}

/// The records as a pack, with the tags that docs/design.md describes.
fn tagged(mut records: &[u8]) -> Vec<u8> {
    let mut pack = b"\x89DEPAK\r\n\x01".to_vec();
    let mut reader = Reader::new();
    let mut tags = Vec::new();
    let (mut parts, mut place) = (0_u64, None);
    let mut fed = 0;
    while let [kind, low, high, rest @ ..] = records {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (body, rest) = rest.split_at(length);
        records = rest;
        let mut body = body.to_vec();
        if *kind == 4 {
            // The digest over the tags is right as well.
            body.truncate(body.iter().position(|byte| *byte < 0x80).map_or(10, |end| end + 1));
            body.extend_from_slice(Digest::of(&tags).as_bytes());
        }
        let mut tag = vec![*kind];
        match &place {
            Some((section, index)) => {
                tag.extend_from_slice(Digest::as_bytes(section));
                tag.extend_from_slice(&u64::to_le_bytes(*index));
            }
            None => tag.extend_from_slice(&parts.to_le_bytes()),
        }
        tag.extend_from_slice(&body);
        let tag = Digest::of(&tag).as_bytes()[..8].to_vec();
        pack.push(*kind);
        let mut left = body.len();
        while left >= 0x80 {
            pack.push(left as u8 | 0x80);
            left >>= 7;
        }
        pack.push(left as u8);
        pack.extend_from_slice(&body);
        pack.extend_from_slice(&tag);
        tags.extend_from_slice(&tag);
        let mut input = &pack[fed..];
        fed = pack.len();
        while let Ok(Some(event)) = reader.feed(&mut input) {
            match event {
                Event::Head(head) => place = Some((head.section, head.first)),
                Event::Frame(frame) => place = place.map(|(section, _)| (section, frame.index + 1)),
                Event::PartEnd => (parts, place) = (parts + 1, None),
                Event::End => {}
            }
        }
    }
    pack
}
