//! A release that moves as files: which part of it lies in which file.
//!
//! Each *volume* is a pack that can be judged alone: it begins with its description, then come the
//! trust document and the bundles' envelopes, which are the same in every volume of the set, and
//! then those parts of the artefacts that its table of contents names.

use std::io::{Read, Write};
use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::writer::{end_length, part_length};
use super::{Event, FRAME, Frame, PartHead, Reader, Role, SectionId, Writer, frame_length};
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::name::{BundleName, NodeName, Tenant, Version};

/// How many parts of artefacts one volume may have.
pub const MAX_PARTS: usize = 100_000;
/// How many volumes a set may have.
pub const MAX_VOLUMES: u32 = 100_000;
/// What one line of a table of contents takes at most.
const ROW: u64 = 100;

/// The description of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// Names the set: the SHA-256 of what is in all of its volumes.
    pub set: Digest,
    /// Which volume of the set this is, from 1 on.
    pub number: u32,
    /// How many volumes the set has.
    pub count: u32,
    /// Whose bundles these are.
    pub tenant: Tenant,
    /// The edge they are for.
    pub edge: NodeName,
    /// The envelope of the trust document.
    pub trust: SectionId,
    /// The bundles.
    pub bundles: Vec<Carried>,
    /// The parts in this volume, in their order.
    pub parts: Vec<Row>,
}

/// A bundle that a set of volumes brings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Carried {
    /// Its name.
    pub name: BundleName,
    /// Its version.
    pub version: Version,
    /// Its envelope.
    pub envelope: SectionId,
}

/// A line of a table of contents: an artefact, the first of its frames and how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row(pub SectionId, pub u64, pub u64);

impl Volume {
    /// The description as it stands in the volume.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|cause| {
            Error::new(ErrorKind::Internal, format!("a volume cannot be described: {cause}"))
        })
    }

    /// Reads a description.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for what is none.
    pub fn parse(bytes: &[u8]) -> Result<Volume> {
        let volume: Volume = serde_json::from_slice(bytes).map_err(|cause| {
            Error::invalid(format!("the description of the volume cannot be read: {cause}"))
        })?;
        if volume.number == 0 || volume.number > volume.count || volume.count > MAX_VOLUMES {
            let message = format!("there is no volume {} of {}", volume.number, volume.count);
            return Err(Error::invalid(message));
        }
        if volume.parts.len() > MAX_PARTS {
            let message = format!("a volume has at most {MAX_PARTS} parts, this one {}", volume.parts.len());
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        Ok(volume)
    }

    /// `volume 2 of 3`.
    pub fn place(&self) -> String {
        format!("volume {} of {}", self.number, self.count)
    }
}

/// Frames of one artefact that go into one volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Which of the artefacts that were laid out.
    pub artefact: usize,
    /// Which frames of it.
    pub frames: Range<u64>,
}

/// Lays artefacts out over volumes of at most `size` bytes, each of which begins with `common`: the
/// description, whose own `set`, `number`, `count` and `parts` are yet to be set, and the documents.
/// Answers the description and the slices of each volume.
///
/// # Errors
/// [`ErrorKind::TooLarge`] if the documents and one frame do not fit into a volume.
pub fn lay_out(
    common: &Volume,
    documents: &[PartHead],
    artefacts: &[PartHead],
    size: u64,
) -> Result<Vec<(Volume, Vec<Slice>)>> {
    let widest = Volume { number: u32::MAX, count: u32::MAX, parts: Vec::new(), ..common.clone() };
    let described = widest.to_bytes()?.len() as u64;
    // Magic, version, all that is there without artefacts, and the end.
    let fixed = 9
        + documents.iter().map(|head| part_length(head, 0..head.frames())).sum::<u64>()
        + part_length(&PartHead::document(Role::Volume, &[]), 0..0)
        + end_length(u64::MAX);
    let mut volumes: Vec<Vec<Slice>> = vec![Vec::new()];
    // The description grows with each part, and with it the frames it is in.
    let framing = |parts: usize| 32 + (described + parts as u64 * ROW).div_ceil(FRAME) * 16;
    let mut used = fixed + described;
    for (artefact, head) in artefacts.iter().enumerate() {
        let mut next = 0;
        loop {
            let parts = volumes.last().map_or(0, Vec::len) + 1;
            let bare = used + ROW + framing(parts) + part_length(head, next..next);
            let room = size.saturating_sub(bare);
            let end = fitting(head, next, room);
            let begun = parts > 1;
            if bare > size || (end == next && next < head.frames()) || parts > MAX_PARTS {
                if !begun {
                    return Err(too_small(size, bare + FRAME + 16));
                }
                volumes.push(Vec::new());
                used = fixed + described;
                continue;
            }
            used += ROW + part_length(head, next..end);
            if let Some(volume) = volumes.last_mut() {
                volume.push(Slice { artefact, frames: next..end });
            }
            next = end;
            if next >= head.frames() {
                break;
            }
        }
    }
    if used + framing(0) > size {
        return Err(too_small(size, used + framing(0)));
    }
    if volumes.len() as u64 > u64::from(MAX_VOLUMES) {
        let message = format!("{} volumes are more than {MAX_VOLUMES}: make them larger", volumes.len());
        return Err(Error::new(ErrorKind::TooLarge, message));
    }
    let row = |slice: &Slice| {
        let section = artefacts.get(slice.artefact).map(|head| head.section);
        section.map(|section| Row(section, slice.frames.start, slice.frames.end - slice.frames.start))
    };
    let rows: Vec<Vec<Row>> = volumes.iter().map(|slices| slices.iter().filter_map(row).collect()).collect();
    let all = Volume {
        set: Digest::of(b""),
        number: 0,
        count: rows.len() as u32,
        parts: rows.concat(),
        ..common.clone()
    };
    let lengths: Vec<usize> = rows.iter().map(Vec::len).collect();
    let named = serde_json::to_vec(&(&all, lengths)).map_err(|cause| {
        Error::new(ErrorKind::Internal, format!("a set of volumes cannot be named: {cause}"))
    })?;
    let set = Digest::of(&named);
    let described =
        rows.into_iter().zip(1..).map(|(parts, number)| Volume { set, number, parts, ..all.clone() });
    Ok(described.zip(volumes).collect())
}

/// Begins to write a volume: what stands in it before the artefacts. `documents` are those it was
/// laid out with; its slices follow as parts.
pub fn begin<W: Write>(out: W, volume: &Volume, documents: &[(PartHead, Bytes)]) -> Result<Writer<W>> {
    let mut writer = Writer::new(out)?;
    let described = volume.to_bytes()?;
    writer.whole(PartHead::document(Role::Volume, &described), &described)?;
    for (head, bytes) in documents {
        writer.whole(head.clone(), bytes)?;
    }
    Ok(writer)
}

/// The end of the frames from `first` on that fit into `room` bytes.
fn fitting(head: &PartHead, first: u64, room: u64) -> u64 {
    // Kind, length and tag of a frame's record.
    const RECORD: u64 = 16;
    let whole = room / (FRAME + RECORD);
    let end = first.saturating_add(whole);
    if end < head.frames() && frame_length(head.length, end) + RECORD <= room - whole * (FRAME + RECORD) {
        return end + 1;
    }
    end.min(head.frames())
}

/// What a [`VolumeReader`] found.
#[derive(Debug)]
pub enum Found {
    /// What volume it is.
    Volume(Volume),
    /// The envelope of the trust document, or of a bundle.
    Document(Role, Bytes),
    /// A part of an artefact begins.
    Head(PartHead),
    /// Its next frame.
    Frame(Frame),
    /// It ends.
    PartEnd,
    /// The volume ends, and is what its description says.
    End,
}

/// Reads a volume from bytes that come in pieces of any length. Keeps at most one document.
#[derive(Debug, Default)]
pub struct VolumeReader {
    reader: Reader,
    volume: Option<Volume>,
    document: Option<(PartHead, Vec<u8>)>,
    /// Documents that were given, the description left out.
    documents: usize,
    parts: usize,
    part: Option<Row>,
}

impl VolumeReader {
    /// A reader that has seen nothing.
    pub fn new() -> VolumeReader {
        VolumeReader::default()
    }

    /// What volume it is, once that was read.
    pub fn volume(&self) -> Option<&Volume> {
        self.volume.as_ref()
    }

    /// Takes bytes from the front of `input` up to what is found next; `None` when all were taken.
    ///
    /// # Errors
    /// As [`Reader::feed`]; [`ErrorKind::Invalid`] for a pack that is no volume, and
    /// [`ErrorKind::Corrupted`] for one that does not hold what it says.
    pub fn feed(&mut self, input: &mut &[u8]) -> Result<Option<Found>> {
        let found = self.step(input);
        found.map_err(|error| self.named(error))
    }

    /// Says that no more bytes come.
    ///
    /// # Errors
    /// As [`Reader::finish`].
    pub fn finish(&self) -> Result<()> {
        self.reader.finish().map_err(|error| self.named(error))
    }

    fn named(&self, error: Error) -> Error {
        match &self.volume {
            Some(volume) => error.context(volume.place()),
            None => error,
        }
    }

    fn step(&mut self, input: &mut &[u8]) -> Result<Option<Found>> {
        while let Some(event) = self.reader.feed(input)? {
            if let Some(found) = self.take(event)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn take(&mut self, event: Event) -> Result<Option<Found>> {
        match event {
            Event::Head(head) if head.role == Role::Artefact => {
                self.check_documents()?;
                self.part = Some(Row(head.section, head.first, 0));
                Ok(Some(Found::Head(head)))
            }
            Event::Head(head) => {
                self.check_order(&head)?;
                self.document = Some((head, Vec::new()));
                Ok(None)
            }
            Event::Frame(frame) => {
                if let Some((_, bytes)) = &mut self.document {
                    bytes.extend_from_slice(&frame.bytes);
                    return Ok(None);
                }
                if let Some(row) = &mut self.part {
                    row.2 += 1;
                }
                Ok(Some(Found::Frame(frame)))
            }
            Event::PartEnd => match self.document.take() {
                Some((head, bytes)) => self.document(&head, bytes).map(Some),
                None => {
                    let listed = self.volume.as_ref().and_then(|volume| volume.parts.get(self.parts));
                    if self.part.take().as_ref() != listed {
                        return Err(other_contents());
                    }
                    self.parts += 1;
                    Ok(Some(Found::PartEnd))
                }
            },
            Event::End => {
                self.check_documents()?;
                if self.volume.as_ref().is_some_and(|volume| volume.parts.len() != self.parts) {
                    return Err(other_contents());
                }
                Ok(Some(Found::End))
            }
        }
    }

    /// The description comes first, then the trust document, then the bundles, as it says.
    fn check_order(&self, head: &PartHead) -> Result<()> {
        let expected = match (&self.volume, self.documents) {
            (None, _) if head.role == Role::Volume => return Ok(()),
            (None, _) => {
                return Err(Error::invalid("this pack is not a volume: it does not say what it holds"));
            }
            (Some(volume), 0) => Some((Role::Trust, volume.trust)),
            (Some(volume), n) => volume.bundles.get(n - 1).map(|bundle| (Role::Bundle, bundle.envelope)),
        };
        if expected != Some((head.role, head.section)) || self.parts > 0 {
            return Err(other_contents());
        }
        Ok(())
    }

    fn check_documents(&self) -> Result<()> {
        match &self.volume {
            None => Err(Error::invalid("this pack is not a volume: it does not say what it holds")),
            Some(volume) if volume.bundles.len() + 1 == self.documents => Ok(()),
            Some(_) => Err(other_contents()),
        }
    }

    fn document(&mut self, head: &PartHead, bytes: Vec<u8>) -> Result<Found> {
        if head.first != 0 || bytes.len() as u64 != head.length || Digest::of(&bytes) != head.section {
            let message = "a document in the volume is not the one that is named";
            return Err(Error::new(ErrorKind::Corrupted, message));
        }
        if head.role != Role::Volume {
            self.documents += 1;
            return Ok(Found::Document(head.role, bytes.into()));
        }
        let volume = Volume::parse(&bytes)?;
        self.volume = Some(volume.clone());
        Ok(Found::Volume(volume))
    }
}

/// What [`verify`] counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// What the volume says of itself.
    pub volume: Volume,
    /// How many frames of artefacts it holds.
    pub frames: u64,
    /// How many bytes they have.
    pub bytes: u64,
}

/// Reads all of a volume, and checks everything that can be checked without the other ones.
///
/// # Errors
/// As [`VolumeReader::feed`], and those of `input`.
pub fn verify(input: &mut dyn Read) -> Result<Verified> {
    let mut reader = VolumeReader::new();
    let (mut frames, mut bytes) = (0, 0);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(cause) if cause.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(cause) => return Err(Error::io("reading a volume", cause)),
        };
        let mut rest = &buffer[..read];
        while let Some(found) = reader.feed(&mut rest)? {
            if let Found::Frame(frame) = found {
                frames += 1;
                bytes += frame.bytes.len() as u64;
            }
        }
    }
    reader.finish()?;
    match reader.volume {
        Some(volume) => Ok(Verified { volume, frames, bytes }),
        None => Err(Error::invalid("this pack is not a volume: it does not say what it holds")),
    }
}

#[cold]
fn too_small(size: u64, least: u64) -> Error {
    let message = format!("a volume of {size} bytes is too small: its documents need {least}");
    Error::new(ErrorKind::TooLarge, message)
}

#[cold]
fn other_contents() -> Error {
    Error::new(ErrorKind::Corrupted, "it does not hold what its table of contents says")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Descriptor;
    use super::*;

    fn write(
        volume: &Volume,
        slices: &[Slice],
        documents: &[(PartHead, Bytes)],
        artefacts: &[(PartHead, Vec<u8>)],
    ) -> Vec<u8> {
        let mut writer = begin(Vec::new(), volume, documents).unwrap();
        for Slice { artefact, frames } in slices {
            let (head, bytes) = &artefacts[*artefact];
            writer.part(head.from_frame(frames.start), bytes, frames.end).unwrap();
        }
        writer.finish().unwrap()
    }

    type Volumes = (Vec<(PartHead, Vec<u8>)>, Vec<(PartHead, Bytes)>, Vec<(Volume, Vec<Slice>)>);

    fn laid_out(sizes: &[usize], document: usize, size: u64) -> Result<Volumes> {
        let documents: Vec<(PartHead, Bytes)> =
            [(Role::Trust, vec![b't'; 40]), (Role::Bundle, vec![b'b'; document])]
                .map(|(role, bytes)| (PartHead::document(role, &bytes), bytes.into()))
                .into();
        let artefacts: Vec<(PartHead, Vec<u8>)> = sizes
            .iter()
            .enumerate()
            .map(|(n, size)| {
                let bytes = vec![n as u8; *size];
                let section = Descriptor { digest: Digest::of(&bytes), size: bytes.len() as u64 };
                let head = PartHead::artefact(section, section, vec![section; n % 3]);
                (head, bytes)
            })
            .collect();
        let common = Volume {
            set: Digest::of(b""),
            number: 0,
            count: 0,
            tenant: "default".parse()?,
            edge: "edge-1".parse()?,
            trust: documents[0].0.section,
            bundles: vec![Carried {
                name: "shop".parse()?,
                version: "1.0".parse()?,
                envelope: documents[1].0.section,
            }],
            parts: Vec::new(),
        };
        let heads =
            |list: &[(PartHead, Bytes)]| list.iter().map(|(head, _)| head.clone()).collect::<Vec<_>>();
        let artefact_heads: Vec<PartHead> = artefacts.iter().map(|(head, _)| head.clone()).collect();
        let volumes = lay_out(&common, &heads(&documents), &artefact_heads, size)?;
        Ok((artefacts, documents, volumes))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn volumes_keep_their_size_and_hold_every_frame_once(
            sizes in prop::collection::vec(prop_oneof![0usize..3000, 0usize..1_500_000], 0..12),
            size in 300_000u64..2_000_000,
        ) {
            let (artefacts, documents, volumes) = laid_out(&sizes, 700, size).unwrap();
            let mut seen: Vec<Vec<u64>> = artefacts.iter().map(|_| Vec::new()).collect();
            for (at, (volume, slices)) in volumes.iter().enumerate() {
                let bytes = write(volume, slices, &documents, &artefacts);
                prop_assert!(bytes.len() as u64 <= size, "{} bytes, {} were allowed", bytes.len(), size);
                prop_assert_eq!((volume.number, volume.count), (at as u32 + 1, volumes.len() as u32));
                prop_assert_eq!(volume.set, volumes[0].0.set);
                let verified = verify(&mut &bytes[..]).unwrap();
                prop_assert_eq!(&verified.volume, volume);
                for slice in slices {
                    seen[slice.artefact].extend(slice.frames.clone());
                }
            }
            for ((head, _), seen) in artefacts.iter().zip(seen) {
                prop_assert_eq!(seen, (0..head.frames()).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn a_volume_without_room_for_its_documents_is_too_small() {
        let error = laid_out(&[1000], 500_000, 400_000).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        assert!(error.message().contains("too small"), "{error}");
        assert_eq!(laid_out(&[], 500_000, 400_000).unwrap_err().kind(), ErrorKind::TooLarge);
    }

    #[test]
    fn a_volume_that_holds_something_else_is_refused() {
        let (artefacts, documents, volumes) = laid_out(&[300_000, 10], 700, 1_000_000).unwrap();
        let (volume, slices) = &volumes[0];
        let written = |volume: &Volume, slices: &[Slice], documents: &[(PartHead, Bytes)]| {
            verify(&mut &write(volume, slices, documents, &artefacts)[..])
        };
        assert_eq!(written(volume, slices, &documents).unwrap().bytes, 300_010);
        let swapped = [documents[1].clone(), documents[0].clone()];
        let whole = write(volume, slices, &documents, &artefacts);
        for (name, refused) in [
            ("a part is missing", written(volume, &slices[..1], &documents)),
            ("parts in another order", written(volume, &[slices[1].clone(), slices[0].clone()], &documents)),
            ("a document is missing", written(volume, slices, &documents[..1])),
            ("documents in another order", written(volume, slices, &swapped)),
            ("cut off", verify(&mut &whole[..whole.len() - 1])),
        ] {
            let error = refused.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupted, "{name}: {error}");
            assert!(error.message().starts_with("volume 1 of 1: "), "{name}: {error}");
        }
        let no_volume = Writer::new(Vec::new()).unwrap().finish().unwrap();
        assert!(verify(&mut &no_volume[..]).unwrap_err().message().contains("not a volume"));
    }
}
