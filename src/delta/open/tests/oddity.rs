use super::build::*;
use super::*;

#[test]
fn containers_in_containers_are_named_by_their_path() {
    let jar = zip(&[("META-INF/MANIFEST.MF", text(1, 400)), ("a/B.class", text(2, 900))]);
    let deb = ar(&[
        ("debian-binary", b"2.0\n".to_vec()),
        ("data.tar.xz", xz(&tar(&[("./usr/x", text(3, 5000))]), 0)),
    ]);
    let inner = gzip(&text(4, 3000));
    let wheel = zip_with(&[], &[entry("m.json.gz", &inner, 0), entry("n.jar", &jar, 0)], &[]);
    let blob =
        gzip(&tar(&[("package/w.whl", wheel), ("package/p.deb", deb), ("package/readme", text(5, 700))]));
    let (streams, leaves) = names(&blob);
    assert_eq!(
        streams,
        [
            "b",
            "b!package/w.whl!m.json.gz",
            "b!package/w.whl!n.jar!META-INF/MANIFEST.MF",
            "b!package/w.whl!n.jar!a/B.class",
            "b!package/p.deb!data.tar.xz",
        ]
    );
    assert_eq!(
        leaves,
        [
            "b!package/readme",
            "b!package/w.whl!m.json.gz",
            "b!package/w.whl!n.jar!META-INF/MANIFEST.MF",
            "b!package/w.whl!n.jar!a/B.class",
            "b!package/p.deb!data.tar.xz!./usr/x",
        ]
    );
    assert_eq!(super::streams(&blob), 5);
}

#[test]
fn gzip_with_every_header_field() {
    let fields = [&[3, 0, 1, 2, 3][..], b"name.tar\0", b"a comment\0", &[9, 9]].concat();
    let blob = gzip_with(&text(1, 2000), 0x1f, &fields);
    assert_eq!(streams(&blob), 1);
    // A reserved flag makes it something else.
    let reserved = gzip_with(&text(1, 2000), 0x3f, &fields);
    assert_eq!(streams(&reserved), 0);
    // A name that never ends.
    let endless = gzip_with(&[], 0x08, &[b'x'; 300]);
    assert_eq!(streams(&endless), 0);
}

#[test]
fn gzip_members_are_one_content() {
    let content = tar(&[("a", text(1, 9000)), ("b", text(2, 5000)), ("c", text(3, 5000))]);
    let members: Vec<u8> = content.chunks(4000).flat_map(gzip).collect();
    let (streams, leaves) = names(&members);
    assert_eq!(streams.len(), content.len().div_ceil(4000));
    let distinct: std::collections::BTreeSet<&String> = leaves.iter().collect();
    assert_eq!(distinct.into_iter().collect::<Vec<_>>(), ["b!a", "b!b", "b!c"]);
    super::streams(&members);
    // What follows is no member.
    for tail in [&b"garbage"[..], &[0; 600], &[0x1f, 0x8b], &gzip(&text(3, 99))[..40]] {
        let blob = [&members[..], tail].concat();
        assert_eq!(super::streams(&blob), streams.len());
    }
}

#[test]
fn a_truncated_gzip_member_stays_closed() {
    let blob = gzip(&text(1, 5000));
    for length in [5, 12, blob.len() / 2, blob.len() - 9] {
        assert_eq!(streams(&blob[..length]), 0, "{length} bytes");
    }
    // Without all of its trailer it is whole.
    assert_eq!(streams(&blob[..blob.len() - 3]), 1);
}

#[test]
fn a_stream_across_two_members_stays_closed() {
    let inner = gzip(&text(1, 40_000));
    let content = tar(&[("x.gz", inner)]);
    let blob = [gzip(&content[..2000]), gzip(&content[2000..])].concat();
    let (streams, leaves) = names(&blob);
    assert_eq!(streams.len(), 2);
    assert!(leaves.contains(&"b!x.gz".to_owned()));
    assert_eq!(super::streams(&blob), 2);
}

#[test]
fn a_member_in_two_blocks_is_one_leaf() {
    let content = tar(&[("big", text(1, 9000))]);
    let blob = xz_blocks(&content, 3000);
    let (streams, leaves) = names(&blob);
    assert_eq!(streams.len(), content.len().div_ceil(3000));
    assert_eq!(leaves, ["b!big"]);
    super::streams(&blob);
}

#[test]
fn xz_streams_follow_each_other() {
    let one = xz(&text(1, 3000), 1);
    assert_eq!(streams(&[&one[..], &[0; 8], &xz(&text(2, 3000), 0)].concat()), 2);
    // Padding that is no multiple of four ends it; so does a cut.
    assert_eq!(streams(&[&one[..], &[0; 3], &one[..]].concat()), 1);
    assert_eq!(streams(&one[..one.len() / 2]), 0);
}

#[test]
fn zstd_frames_follow_each_other() {
    let frame = zstd(&text(1, 3000), 3, true);
    let skippable = [&[0x5a, 0x2a, 0x4d, 0x18, 5, 0, 0, 0][..], b"hello"].concat();
    let blob = [&skippable[..], &frame, &skippable, &zstd(&text(2, 2000), 1, false), &frame[..30]].concat();
    assert_eq!(streams(&blob), 2);
}

#[test]
fn encoders_of_xz_and_zstd_are_found() {
    let content = text(1, 300_000);
    let mut branch = liblzma::stream::Filters::new();
    branch.x86().lzma2(&liblzma::stream::LzmaOptions::new_preset(2).unwrap());
    let filtered =
        liblzma::stream::Stream::new_stream_encoder(&branch, liblzma::stream::Check::Crc32).unwrap();
    let mut filtered = liblzma::write::XzEncoder::new_stream(Vec::new(), filtered);
    std::io::Write::write_all(&mut filtered, &content).unwrap();
    let blobs = [
        xz(&content, 0),
        xz(&content, 6),
        xz(&content, 4 | 1 << 31),
        xz_blocks(&content, 200_000),
        filtered.finish().unwrap(),
        zstd(&content, 1, false),
        zstd(&content, 7, true),
        zstd(&content, -5, true),
    ];
    for (at, blob) in blobs.iter().enumerate() {
        let image = open(blob, "b", &MemoryScratch, &Limits::default()).unwrap();
        assert!(!image.streams().is_empty(), "{at}");
        for stream in 0..image.streams().len() {
            let codec = identify(&image, stream, None, 9, true).unwrap();
            let codec = codec.unwrap_or_else(|| panic!("no encoder for {at}"));
            assert_eq!(identify(&image, stream, Some(&codec), 1, true).unwrap(), Some(codec.clone()), "{at}");
            let (tag, bytes) = codec.to_bytes();
            assert_eq!(Codec::parse(tag, &bytes).unwrap(), codec);
        }
    }
}

#[test]
fn zip_oddities() {
    let plain = text(1, 2000);
    let good = entry("good", &plain, 8);
    let two = [good.clone(), entry("other", &text(2, 1500), 8)];
    assert_eq!(streams(&zip_with(&[], &two, &[])), 2);
    assert_eq!(streams(&zip_with(b"#!/bin/sh\nexit\n", &two, &[])), 2, "a programme before it");
    assert_eq!(streams(&zip_with(&[], &two, b"a comment with PK\x05\x06 in it")), 2, "a comment");
    assert_eq!(streams(&zip_with(&[], &[good.clone(), good.clone()], &[])), 2, "the same name twice");
    let with = |change: fn(&mut Entry)| {
        let mut changed = good.clone();
        change(&mut changed);
        [changed, two[1].clone()]
    };
    assert_eq!(streams(&zip_with(&[], &with(|e| e.descriptor = true), &[])), 2, "sizes behind the data");
    assert_eq!(streams(&zip_with(&[], &with(|e| e.zip64 = true), &[])), 2, "zip64");
    assert_eq!(streams(&zip_with(&[], &with(|e| e.lie = 1), &[])), 1, "a longer stream than there is");
    assert_eq!(streams(&zip_with(&[], &with(|e| e.lie = u32::MAX), &[])), 1, "a far longer one");
    assert_eq!(streams(&zip_with(&[], &with(|e| e.plain += 1), &[])), 1, "more content than there is");
    assert_eq!(streams(&zip_with(&[], &with(|e| e.shift = 1), &[])), 1, "no header where it should be");
    assert_eq!(streams(&zip_with(&[], &with(|e| e.method = 12), &[])), 1, "another method");
    assert_eq!(streams(&zip_with(&[], &with(|e| e.method = 0), &[])), 1, "stored");
    let whole = zip_with(&[], &two, &[]);
    assert_eq!(streams(&[&whole[..], b"behind it"].concat()), 2, "bytes behind the end");
    assert_eq!(streams(&whole[..whole.len() - 1]), 0, "cut");
    // Both entries are the same bytes of the archive: the second one overlaps.
    let mut again = two[1].clone();
    again.shift = -((30 + 4 + good.coded.len()) as i64);
    again.coded = good.coded.clone();
    again.plain = good.plain;
    assert_eq!(streams(&zip_with(&[], &[good.clone(), again], &[])), 1, "overlapping");
}

#[test]
fn tar_names_and_sizes() {
    let content = text(1, 1000);
    let member =
        |header: &[Vec<u8>], content: &[u8]| [header.concat(), padded(content), vec![0; 1024]].concat();
    let long = [b'n'; 150];
    let gnu = [tar_header(b"././@LongLink", 151, b'L'), padded(&long), tar_header(b"short", 1000, b'0')];
    assert_eq!(names(&member(&gnu, &content)).1, [format!("b!{}", "n".repeat(150))]);
    let record = b"17 path=pax/name\n14 size=001000\n";
    let pax = [tar_header(b"x", 32, b'x'), padded(&record[..]), tar_header(b"short", 0, b'0')];
    let tail = |leaves: Vec<String>| leaves;
    let record_lengths = [&record[..17], &record[17..]].map(<[u8]>::len);
    assert_eq!(record_lengths, [17, 15]);
    let pax_blob = member(&pax, &content);
    assert_eq!(tail(names(&pax_blob).1).len(), 0, "a record with a wrong length is not used");
    let record = b"17 path=pax/name\n16 size=0001000\n";
    let pax = [tar_header(b"x", 33, b'x'), padded(&record[..]), tar_header(b"short", 0, b'0')];
    assert_eq!(names(&member(&pax, &content)).1, ["b!pax/name"]);
    let mut prefixed = tar_header(b"name", 1000, b'0');
    prefixed[345..351].copy_from_slice(b"prefix");
    seal(&mut prefixed);
    assert_eq!(names(&member(&[prefixed], &content)).1, ["b!prefix/name"]);
    let mut binary = tar_header(b"name", 0, b'0');
    binary[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0xe8]);
    seal(&mut binary);
    assert_eq!(names(&member(&[binary], &content)).1, ["b!name"]);
    let mut sparse = tar_header(b"sparse", 1000, b'S');
    sparse[482] = 1;
    seal(&mut sparse);
    let mut more = vec![0; 512];
    more[504] = 1;
    let blob = member(&[sparse.clone(), more, vec![0; 512]], &content);
    assert_eq!(names(&blob).1, ["b!sparse"]);
    let image_range = |blob: &Vec<u8>| {
        let image = open(blob, "b", &MemoryScratch, &Limits::default()).unwrap();
        image.leaves(&[]).into_iter().find(|leaf| leaf.kind == Kind::Content).unwrap().range
    };
    assert_eq!(image_range(&blob), 1536..2536);
    let endless = [sparse, vec![1; 1024]].concat();
    assert_eq!(names(&endless).1, Vec::<String>::new(), "a sparse map without an end");
}

#[test]
fn a_wrong_tar_checksum_ends_the_walk() {
    let mut blob = tar(&[("a", text(1, 600)), ("b", text(2, 600)), ("c", text(3, 600))]);
    blob[1536 + 20] ^= 1;
    let (_, leaves) = names(&blob);
    assert_eq!(leaves, ["b!a"]);
    assert_eq!(streams(&blob), 0);
    // A size beyond the end, too.
    let blob = [tar_header(b"a", u64::from(u32::MAX), b'0'), text(1, 600)].concat();
    assert_eq!(names(&blob).1, Vec::<String>::new());
}

#[test]
fn ar_names() {
    let bsd = [b"long-name.gz\0\0\0\0".to_vec(), gzip(&text(1, 3000))].concat();
    let blob = ar(&[("#1/16", bsd), ("gnu.gz/", gzip(&text(2, 3000)))]);
    let (streams, _) = names(&blob);
    assert_eq!(streams.len(), 2);
    assert_eq!(streams[1], "b!gnu.gz");
    assert!(streams[0].starts_with("b!long-name.gz"));
    super::streams(&blob);
}

#[test]
fn limits_keep_streams_closed() {
    let limits = Limits::default();
    let bomb = gzip(&vec![0; 8 << 20]);
    assert_eq!(names_within(&bomb, &limits).0.len(), 0, "ratio");
    let one = gzip(&text(1, 100_000));
    assert_eq!(names_within(&one, &Limits { plain: 99_999, ..limits }).0.len(), 0, "bytes");
    assert_eq!(names_within(&one, &Limits { plain: 100_000, ..limits }).0.len(), 1);
    let many: Vec<u8> = (0..9).flat_map(|seed| gzip(&text(seed, 1000))).collect();
    assert_eq!(names_within(&many, &Limits { streams: 5, ..limits }).0.len(), 5, "streams");
    let mut deep = text(1, 2000);
    for _ in 0..20 {
        deep = gzip(&deep);
    }
    assert_eq!(names_within(&deep, &Limits { depth: 3, ..limits }).0.len(), 3, "depth");
    let members: Vec<(&str, Vec<u8>)> = (0..50).map(|seed| ("m", text(seed, 600))).collect();
    assert!(names_within(&tar(&members), &Limits { parts: 20, ..limits }).1.len() <= 20, "parts");
    let wide = xz(&text(1, 3000), 6);
    assert_eq!(names_within(&wide, &Limits { memory: 4 << 20, ..limits }).0.len(), 0, "memory");
}

#[test]
fn a_recipe_beyond_the_limits_is_refused() {
    let mut blob = text(1, 3000);
    for _ in 0..5 {
        blob = gzip(&blob);
    }
    let mut image = open(&blob, "b", &MemoryScratch, &Limits::default()).unwrap();
    let split: Vec<Encoding> = (0..image.streams().len())
        .map(|stream| image.add_split(stream).map(|_| Encoding::Split).unwrap())
        .collect();
    let bytes = Recipe::new(&image, &split).unwrap().to_bytes();
    let limits = Limits::default();
    Recipe::parse(&bytes, &limits).unwrap();
    for limits in [Limits { depth: 4, ..limits }, Limits { streams: 4, ..limits }] {
        assert_eq!(Recipe::parse(&bytes, &limits).unwrap_err().kind(), ErrorKind::TooLarge);
    }
    for length in 0..bytes.len() {
        Recipe::parse(&bytes[..length], &limits).unwrap_err();
    }
}

/// A medium that is gone from some offset on.
#[derive(Debug)]
struct Broken(Vec<u8>, u64);

impl ReadAt for Broken {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        if offset + buffer.len() as u64 > self.1 {
            return Err(Error::new(ErrorKind::Io, "the disk is gone"));
        }
        self.0.read_at(buffer, offset)
    }
}

#[test]
fn a_medium_that_fails_is_an_error_and_no_damage() {
    let blob = gzip(&tar(&[("a", text(1, 400_000))]));
    let from = blob.len() as u64 / 2;
    let broken = Broken(blob, from);
    let error = open(&broken, "b", &MemoryScratch, &Limits::default()).unwrap_err();
    assert_eq!(error.message(), "the disk is gone");
}
