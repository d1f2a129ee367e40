use distedge::error::ErrorKind;
use distedge::source::{MAX_QUERY, Pattern, Query};
use proptest::prelude::*;

use super::{Bench, parse};
use distedge::source::Selection;

#[tokio::test]
async fn patterns_labels_and_query_must_all_hold() {
    let bench = Bench::new().await;
    bench.add("generic-local/app/1.0/app.tar.gz", b"a", &["RC1-Approved", "tested"]).await;
    bench.add("generic-local/app/1.0/app.sig", b"b", &["tested"]).await;
    bench.add("generic-local/app/2.0/app.tar.gz", b"c", &["RC1-Approved"]).await;
    bench.add("other/app/1.0/app.tar.gz", b"d", &["RC1-Approved"]).await;
    let places = async |selection: Selection| -> Vec<String> {
        bench.source.artifacts(&selection).await.unwrap().iter().map(|one| one.place()).collect()
    };
    let pattern = |text: &str| Pattern::new(text).unwrap();
    let selection = Selection::new().with_pattern(pattern("*/app/1.0/**")).with_label("RC1-Approved");
    assert_eq!(
        places(selection.clone()).await,
        ["generic-local/app/1.0/app.tar.gz", "other/app/1.0/app.tar.gz"]
    );
    let selection = selection.with_query(parse("repo=generic-local"));
    assert_eq!(places(selection).await, ["generic-local/app/1.0/app.tar.gz"]);
    // A pattern whose literal part ends inside the repository's name or inside a path.
    assert_eq!(places(Selection::new().with_pattern(pattern("oth*/**"))).await.len(), 1);
    assert_eq!(places(Selection::new().with_pattern(pattern("generic-local/app/2*/**"))).await.len(), 1);
    assert_eq!(places(Selection::new().with_pattern(pattern("generic/**"))).await.len(), 0);
    let both = Selection::new().with_pattern(pattern("other/**")).with_pattern(pattern("**/*.sig"));
    assert_eq!(places(both).await.len(), 2);
}

#[test]
fn hostile_queries_are_refused_without_harm() {
    let nested =
        |open: &str, close: &str, levels| format!("{}repo=a{}", open.repeat(levels), close.repeat(levels));
    for hostile in [
        nested("(", ")", 8000),
        "not ".repeat(4000),
        "(".repeat(MAX_QUERY),
        "\"".repeat(MAX_QUERY),
        "repo=\"\\".to_owned(),
        "repo=a or ".repeat(1000),
        "\u{202e}repo=a".to_owned(),
        "repo=a\0and".to_owned() + " label",
        "size>-1".to_owned(),
        "size>1e9".to_owned(),
        "prop.=x".to_owned(),
        "path~".to_owned() + &"*".repeat(4000),
        " ".repeat(MAX_QUERY),
        "a".repeat(MAX_QUERY + 1),
        "repo==a".to_owned(),
        "repo!a".to_owned(),
    ] {
        let error = Query::new(&hostile).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{:.40}", hostile);
        assert!(error.to_string().len() < 400, "the sentence stays readable: {error}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in ".{0,200}") {
        let _ = Query::new(&text);
        let _ = Pattern::new(&text).map(|pattern| pattern.matches(&text));
    }

    #[test]
    fn no_mix_of_words_makes_the_parser_panic(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "repo", "path", "size", "label", "prop.os", "and", "or", "not", "(", ")", "=", "!=", "~", ">=",
                "<", "a", "5", "\"x y\"", "\"", "\\", "é", "digest", "**",
            ]),
            0..40,
        )
    ) {
        let text = words.join(" ");
        if let Ok(query) = Query::new(&text) {
            prop_assert_eq!(&Query::new(query.as_str()).unwrap(), &query);
        }
    }

    /// Whatever a pattern without `**/` matches, plain backtracking matches, and nothing else.
    #[test]
    fn patterns_match_as_backtracking_would(pattern in "[ab/?*]{1,8}", name in "[ab/]{0,8}") {
        prop_assume!(!pattern.contains("**"));
        fn slow(pattern: &[u8], name: &[u8]) -> bool {
            match (pattern.first(), name.first()) {
                (None, None) => true,
                (Some(b'*'), _) if slow(&pattern[1..], name) => true,
                (Some(b'*'), Some(found)) => *found != b'/' && slow(pattern, &name[1..]),
                (Some(b'?'), Some(found)) => *found != b'/' && slow(&pattern[1..], &name[1..]),
                (Some(wanted), Some(found)) => wanted == found && slow(&pattern[1..], &name[1..]),
                _ => false,
            }
        }
        prop_assert_eq!(
            Pattern::new(&pattern).unwrap().matches(&name),
            slow(pattern.as_bytes(), name.as_bytes())
        );
    }
}
