use std::collections::BTreeMap;
use std::sync::Mutex;

use bytes::Bytes;
use distedge::blob::BlobStore as _;
use distedge::digest::Digest;
use distedge::error::ErrorKind;
use distedge::source::{AddEvent, AddOptions, Selection};
use futures_util::stream;

use super::{Bench, everything, new_bundle, parse};

fn quiet(_: AddEvent) {}

#[tokio::test]
async fn an_artifact_never_changes() {
    let bench = Bench::new().await;
    let (repository, path) = (parse("generic-local"), parse("app/1.0/app.bin"));
    let labelled = |label: &str| AddOptions { labels: [label.to_owned()].into(), ..AddOptions::default() };
    let first = bench.source.add_bytes(&repository, &path, "one", &labelled("built")).await.unwrap();
    assert_eq!(first.checksums.md5.as_deref(), Some("f97c5d29941bfb1b2fdab0874906ab82"));
    assert_eq!(first.checksums.sha1.as_deref(), Some("fe05bcdcdc4928012781a5f1a2a77cbb5398e106"));

    // The same content again is harmless and merges labels.
    let again = bench.source.add_bytes(&repository, &path, "one", &labelled("tested")).await.unwrap();
    assert_eq!(again.labels, ["built".to_owned(), "tested".to_owned()].into());
    assert_eq!(again.added, first.added);

    let error = bench.source.add_bytes(&repository, &path, "two", &labelled("built")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let sentence = error.to_string();
    assert!(sentence.contains(&Digest::of(b"one").to_string()), "{sentence}");
    assert!(sentence.contains(&Digest::of(b"two").to_string()), "{sentence}");
    assert_eq!(bench.source.artifact(&repository, &path).await.unwrap().unwrap(), again);
    // The refused bytes were not stored.
    assert_eq!(bench.blobs.stat(&Digest::of(b"two")).await.unwrap(), None);
}

#[tokio::test]
async fn a_path_that_differs_by_case_alone_is_refused() {
    let bench = Bench::new().await;
    bench.add("r/Straße/A.bin", b"1", &[]).await;
    for other in ["straße/a.bin", "STRASSE/a.BIN"] {
        let error = bench
            .source
            .add_bytes(&parse("r"), &parse(other), "1", &AddOptions::default())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{other}");
        assert!(error.to_string().contains("letter case"), "{error}");
    }
    // Another repository is another place.
    bench.add("s/straße/a.bin", b"1", &[]).await;
}

#[tokio::test]
async fn a_repository_keeps_its_format() {
    let bench = Bench::new().await;
    let with = |format: &str| AddOptions { format: Some(format.into()), ..AddOptions::default() };
    bench.source.add_bytes(&parse("wheels"), &parse("a"), "1", &with("pypi")).await.unwrap();
    bench.source.add_bytes(&parse("wheels"), &parse("b"), "2", &AddOptions::default()).await.unwrap();
    let error = bench.source.add_bytes(&parse("wheels"), &parse("c"), "3", &with("npm")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(bench.source.repositories().await.unwrap()[0].format, "pypi");
    let error = bench.source.add_bytes(&parse("x"), &parse("c"), "3", &with("Np m")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn a_tree_comes_in_whole_or_not_at_all() {
    let bench = Bench::new().await;
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(directory.path().join("lib/deep")).unwrap();
    std::fs::write(directory.path().join("README"), "read").unwrap();
    std::fs::write(directory.path().join("lib/a.so"), vec![7; 3 << 20]).unwrap();
    std::fs::write(directory.path().join("lib/deep/empty"), "").unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink("a.so", directory.path().join("lib/link.so")).unwrap();
    let hashed = Mutex::new(0);
    let count = |event: AddEvent| {
        if let AddEvent::Hashed(bytes) = event {
            *hashed.lock().unwrap() += bytes;
        }
    };
    let under = parse("app/1.0");
    let added = bench
        .source
        .add_tree(&parse("r"), Some(&under), directory.path(), &AddOptions::default(), &count)
        .await
        .unwrap();
    assert_eq!((added.added, added.known, added.bytes), (3, 0, (3 << 20) + 4));
    assert_eq!(*hashed.lock().unwrap(), (3 << 20) + 4);
    #[cfg(unix)]
    assert!(added.skipped[0].1.contains("symbolic link"));
    let places: Vec<String> =
        bench.source.artifacts(&Selection::all()).await.unwrap().iter().map(|one| one.place()).collect();
    assert_eq!(places, ["r/app/1.0/README", "r/app/1.0/lib/a.so", "r/app/1.0/lib/deep/empty"]);

    // One changed file among new ones: none of them comes in.
    std::fs::write(directory.path().join("NEWS"), "news").unwrap();
    std::fs::write(directory.path().join("README"), "reread").unwrap();
    let refused = bench
        .source
        .add_tree(&parse("r"), Some(&under), directory.path(), &AddOptions::default(), &quiet)
        .await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(bench.source.artifacts(&Selection::all()).await.unwrap().len(), 3);

    // Two files that meet when case is folded are found before anything is read.
    let twins = tempfile::tempdir().unwrap();
    std::fs::write(twins.path().join("A"), "1").unwrap();
    std::fs::write(twins.path().join("a"), "2").unwrap();
    let refused =
        bench.source.add_tree(&parse("q"), None, twins.path(), &AddOptions::default(), &quiet).await;
    let sentence = refused.unwrap_err().to_string();
    assert!(sentence.contains("letter case"), "{sentence}");
    assert!(bench.source.repositories().await.unwrap().iter().all(|one| one.name.as_str() != "q"));
}

#[tokio::test]
async fn a_name_that_no_edge_could_serve_is_refused_by_name() {
    let bench = Bench::new().await;
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("100%.txt"), "1").unwrap();
    let refused =
        bench.source.add_tree(&parse("r"), None, directory.path(), &AddOptions::default(), &quiet).await;
    let error = refused.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("100%.txt"), "{error}");
    let missing = directory.path().join("missing");
    let error = bench
        .source
        .add_file(&parse("r"), &parse("x"), &missing, &AddOptions::default(), &quiet)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
    let error = bench
        .source
        .add_file(&parse("r"), &parse("x"), directory.path(), &AddOptions::default(), &quiet)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("not a regular file"), "{error}");
}

#[tokio::test]
async fn a_stream_is_spooled_and_a_broken_one_leaves_nothing() {
    let bench = Bench::new().await;
    let chunks = |chunks: Vec<distedge::error::Result<Bytes>>| Box::pin(stream::iter(chunks));
    let good = chunks(vec![Ok("ab".into()), Ok("".into()), Ok("cd".into())]);
    let artifact =
        bench.source.add_stream(&parse("r"), &parse("x"), good, &AddOptions::default()).await.unwrap();
    assert_eq!(artifact.digest, Digest::of(b"abcd"));
    assert!(bench.blobs.stat(&artifact.digest).await.unwrap().is_some());
    let broken = chunks(vec![Ok("ab".into()), Err(distedge::error::Error::invalid("cut"))]);
    let error =
        bench.source.add_stream(&parse("r"), &parse("y"), broken, &AddOptions::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "cut");
    assert_eq!(bench.source.artifact(&parse("r"), &parse("y")).await.unwrap(), None);
}

#[tokio::test]
async fn labels_and_properties_flow() {
    let bench = Bench::new().await;
    for n in 0..300 {
        bench.add(&format!("r/app/{n}.bin"), format!("{n}").as_bytes(), &["built"]).await;
    }
    let give = ["RC1-Approved".to_owned()];
    let changed =
        bench.source.label(&everything("r/app/1*.bin"), &give, &["built".to_owned()]).await.unwrap();
    assert_eq!(changed, 111);
    assert_eq!(
        bench.source.label(&everything("r/app/1*.bin"), &give, &[]).await.unwrap(),
        0,
        "nothing is left to do"
    );
    let approved = Selection::new().with_label("RC1-Approved");
    assert_eq!(bench.source.artifacts(&approved).await.unwrap().len(), 111);
    let set: BTreeMap<_, _> = [("os".to_owned(), Some("linux".to_owned()))].into();
    assert_eq!(bench.source.set_properties(&approved, &set).await.unwrap(), 111);
    let query = Selection::new().with_query(parse("prop.os=linux and not label=built"));
    assert_eq!(bench.source.artifacts(&query).await.unwrap().len(), 111);
    let clear: BTreeMap<_, _> = [("os".to_owned(), None)].into();
    assert_eq!(bench.source.set_properties(&Selection::all(), &clear).await.unwrap(), 111);

    for bad in ["", "-x", "a b", "a\0b", &"x".repeat(129)] {
        let error = bench.source.label(&approved, &[bad.to_owned()], &[]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{bad:?}");
    }
    let many: Vec<String> = (0..65).map(|n| format!("l{n}")).collect();
    assert_eq!(bench.source.label(&approved, &many, &[]).await.unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(bench.source.artifacts(&Selection::new()).await.unwrap(), [], "an empty selection is nothing");
}

#[tokio::test]
async fn what_a_bundle_holds_stays() {
    let bench = Bench::with_keys().await;
    bench.add("r/a/one", b"shared", &[]).await;
    bench.add("r/b/two", b"shared", &[]).await;
    bench.add("r/b/three", b"3", &[]).await;
    bench.create("app", "1.0", "r/a/**").await;
    let error = bench.source.remove(&Selection::all()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("r/a/one is in the bundle app 1.0"), "{error}");
    assert_eq!(bench.source.artifacts(&Selection::all()).await.unwrap().len(), 3, "nothing went");

    assert_eq!(bench.source.remove(&everything("r/b/**")).await.unwrap(), 2);
    // Bytes that another artifact has stay; the others go.
    assert!(bench.blobs.stat(&Digest::of(b"shared")).await.unwrap().is_some());
    assert!(bench.blobs.stat(&Digest::of(b"3")).await.unwrap().is_none());
    // A path that is free may come to stand for other content, and in other case.
    bench.add("r/B/Three", b"4", &[]).await;

    bench.source.discard_bundle(&parse("app"), &parse("1.0")).await.unwrap();
    assert_eq!(bench.source.remove(&Selection::all()).await.unwrap(), 2);
    let error = bench.source.create_bundle(&new_bundle("app", "1.0", "**")).await.unwrap_err();
    assert!(error.to_string().contains("nothing is selected"), "{error}");
}

/// A process that dies between storing bytes and writing the record must lose nothing that was
/// acknowledged, and must never name bytes that are not there.
#[tokio::test]
async fn bytes_are_durable_before_a_record_names_them() {
    use distedge::blob::{Blob, BlobInfo, BlobStore, BlobWriter, BoxStream};
    use distedge::range::ByteRange;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[derive(Debug)]
    struct Full(distedge::blob::MemoryBlobStore, AtomicBool);

    #[async_trait::async_trait]
    impl BlobStore for Full {
        async fn stat(&self, digest: &Digest) -> distedge::error::Result<Option<BlobInfo>> {
            self.0.stat(digest).await
        }
        async fn open(
            &self,
            digest: &Digest,
            range: Option<ByteRange>,
        ) -> distedge::error::Result<Option<Blob>> {
            self.0.open(digest, range).await
        }
        async fn create(&self, expected: &BlobInfo) -> distedge::error::Result<Box<dyn BlobWriter>> {
            if self.1.load(Ordering::Relaxed) {
                return Err(distedge::error::Error::new(ErrorKind::NoSpace, "the disk is full"));
            }
            self.0.create(expected).await
        }
        async fn remove(&self, digest: &Digest) -> distedge::error::Result<bool> {
            self.0.remove(digest).await
        }
        fn list(&self) -> BoxStream<distedge::error::Result<BlobInfo>> {
            self.0.list()
        }
    }

    let bench = Bench::new().await;
    let full = Arc::new(Full(bench.blobs.clone(), AtomicBool::new(true)));
    let ports = distedge::source::Ports { blobs: full.clone(), ..bench.ports.clone() };
    let source = distedge::source::Source::open_over(ports).await.unwrap();
    let add = async || source.add_bytes(&parse("r"), &parse("x"), "bytes", &AddOptions::default()).await;
    assert_eq!(add().await.unwrap_err().kind(), ErrorKind::NoSpace);
    assert_eq!(source.artifact(&parse("r"), &parse("x")).await.unwrap(), None);
    full.1.store(false, Ordering::Relaxed);
    let artifact = add().await.unwrap();
    assert!(bench.blobs.stat(&artifact.digest).await.unwrap().is_some());
}
