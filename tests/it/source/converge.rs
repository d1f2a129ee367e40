use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use distedge::distribute::Event;
use distedge::error::{Error, ErrorKind, Result};
use distedge::name::NodeName;
use distedge::secret::Secret;
use distedge::source::{ConvergeOptions, ConvergeProgress, Dial, EdgeOutcome, EdgeRecord, Pattern, Rule};
use distedge::transport::{Answer, Call, Credentials, Transport};

use super::{Bench, parse};
use crate::support::{LoopTransport, TOKEN, TestEdge};

/// Edges without sockets; a name without an edge cannot be reached. The second part is the name an
/// impostor called `e9` goes by.
#[derive(Debug, Default)]
struct Wires(Mutex<BTreeMap<NodeName, TestEdge>>, Mutex<Option<&'static str>>);

#[derive(Debug)]
struct Impostor(LoopTransport, &'static str);

#[async_trait]
impl Transport for Impostor {
    async fn call(&self, call: Call) -> Result<Answer> {
        let mut answer = self.0.call(call).await?;
        let body = String::from_utf8_lossy(&answer.body).replace("\"e9\"", &format!("{:?}", self.1));
        answer.body = body.into();
        Ok(answer)
    }
}

#[derive(Debug)]
struct Cut;

#[async_trait]
impl Transport for Cut {
    async fn call(&self, _call: Call) -> Result<Answer> {
        Err(Error::new(ErrorKind::Unavailable, "connecting to 192.0.2.1: connection refused"))
    }
}

impl Dial for Wires {
    fn dial(&self, edge: &EdgeRecord, credentials: Credentials) -> Result<Arc<dyn Transport>> {
        assert!(credentials.token.is_some_and(|token| token.ct_eq(TOKEN.as_bytes())));
        match self.0.lock().unwrap().get(&edge.name) {
            Some(reached) => {
                let wire = LoopTransport { edge: reached.edge.clone(), token: Some(TOKEN) };
                match *self.1.lock().unwrap() {
                    Some(called) => Ok(Arc::new(Impostor(wire, called))),
                    None => Ok(Arc::new(wire)),
                }
            }
            None => Ok(Arc::new(Cut)),
        }
    }
}

impl Wires {
    async fn plug(&self, name: &str) -> TestEdge {
        let edge = TestEdge::new(name).await;
        self.0.lock().unwrap().insert(parse(name), edge.clone());
        edge
    }

    fn pull(&self, name: &str) {
        self.0.lock().unwrap().remove(&parse::<NodeName>(name));
    }
}

async fn know(bench: &Bench, names: &[&str]) {
    for name in names {
        let edge = EdgeRecord::new(parse(name), format!("https://{name}.example"));
        bench.source.set_edge(&edge, Some(&Secret::new(TOKEN))).await.unwrap();
    }
}

fn silent() -> ConvergeProgress {
    Arc::new(|_, _| ())
}

async fn converge(bench: &Bench, wires: &Wires) -> Vec<EdgeOutcome> {
    bench.source.converge(wires, &ConvergeOptions::default(), &silent()).await.unwrap()
}

async fn drifts(bench: &Bench) -> Vec<u64> {
    bench.source.status().await.unwrap().iter().map(|status| status.drift).collect()
}

async fn assign(bench: &Bench, name: &str, version: &str, pattern: &str) -> u64 {
    let rule = Rule::named(Pattern::new(pattern).unwrap());
    let edges: Vec<NodeName> =
        bench.source.matching_edges(&[rule]).await.unwrap().into_iter().map(|edge| edge.name).collect();
    bench.source.assign(&parse(name), &parse(version), &edges).await.unwrap()
}

#[tokio::test]
async fn an_edge_that_was_away_is_caught_up_when_it_returns() {
    let bench = Bench::with_keys().await;
    let wires = Wires::default();
    let here = wires.plug("e1").await;
    know(&bench, &["e1", "e2"]).await;
    bench.add("files/app/one", b"1", &[]).await;
    bench.add("files/app/two", b"22", &[]).await;
    bench.release("app", "1.0", "**").await;
    assert_eq!(assign(&bench, "app", "1.0", "e*").await, 2);
    assert_eq!(drifts(&bench).await, [3, 3], "a bundle and two artifacts each");

    let outcomes = converge(&bench, &wires).await;
    assert!(outcomes[0].is_complete());
    assert_eq!((outcomes[0].proven, outcomes[0].sent_blobs, outcomes[0].drift), (1, 2, 0));
    assert_eq!(outcomes[1].error.as_ref().unwrap().kind(), ErrorKind::Unavailable);
    assert_eq!(drifts(&bench).await, [0, 3]);
    let status = bench.source.status().await.unwrap();
    assert!(status[0].contact.identity.is_some() && status[0].contact.error.is_none());
    assert_eq!(status[1].contact.contacted, None);
    assert!(status[1].contact.error.as_ref().unwrap().contains("connection refused"));
    assert_eq!(here.get("/files/app/two").await.1, "22");

    let late = wires.plug("e2").await;
    let outcomes = converge(&bench, &wires).await;
    assert_eq!((outcomes[0].sent_blobs, outcomes[1].sent_blobs), (0, 2));
    assert_eq!(drifts(&bench).await, [0, 0]);
    assert_eq!(bench.source.status().await.unwrap()[1].contact.error, None);
    assert_eq!(late.get("/files/app/one").await.1, "1");
    let receipts = bench.source.receipts(&parse("e2")).await.unwrap();
    assert_eq!((receipts[0].items, receipts[0].bytes), (2, 3));
    let statement = bench.source.statement(&parse("app"), &parse("1.0")).await.unwrap();
    assert_eq!(receipts[0].root, statement.root());
}

#[tokio::test]
async fn an_edge_that_comes_back_with_another_key_is_refused_until_it_is_meant() {
    let bench = Bench::with_keys().await;
    let wires = Wires::default();
    wires.plug("e1").await;
    know(&bench, &["e1"]).await;
    converge(&bench, &wires).await;
    let known = bench.source.status().await.unwrap()[0].contact.identity.clone().unwrap();

    // Another edge answers under e1's address, by its own name and then by e1's.
    let other = TestEdge::new("e9").await;
    wires.0.lock().unwrap().insert(parse("e1"), other);
    for (called, words) in [("e9", "calls itself"), ("e1", "identity")] {
        *wires.1.lock().unwrap() = Some(called);
        let outcomes = converge(&bench, &wires).await;
        let error = outcomes[0].error.as_ref().unwrap();
        assert_eq!(error.kind(), ErrorKind::Untrusted, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
    *wires.1.lock().unwrap() = None;
    assert_eq!(bench.source.status().await.unwrap()[0].contact.identity.as_ref(), Some(&known));

    wires.pull("e1");
    bench.source.forget_identity(&parse("e1")).await.unwrap();
    assert_eq!(bench.source.status().await.unwrap()[0].contact.identity, None);
    wires.plug("e1").await;
    assert!(converge(&bench, &wires).await[0].is_complete());
}

#[tokio::test]
async fn a_dry_run_lists_what_would_be_sent_and_changes_nothing() {
    let bench = Bench::with_keys().await;
    let wires = Wires::default();
    let edge = wires.plug("e1").await;
    know(&bench, &["e1"]).await;
    bench.add("files/app/one", b"1", &[]).await;
    bench.release("app", "1.0", "**").await;
    assign(&bench, "app", "1.0", "*").await;
    converge(&bench, &wires).await;
    bench.add("files/app/two", b"22", &[]).await;
    bench.release("app", "2.0", "**").await;
    let (name, version) = (parse("app"), parse("2.0"));
    let before = bench.source.status().await.unwrap();
    let trust = bench.source.trust_record().await.unwrap();
    let options = ConvergeOptions::default();
    let outcomes =
        bench.source.preview(&name, &version, &[parse("e1")], &wires, &options, &silent()).await.unwrap();
    assert!(outcomes[0].is_complete(), "{:?}", outcomes[0]);
    let plan: Vec<_> =
        outcomes[0].plan.iter().map(|blob| (blob.name.as_str(), blob.size - blob.have)).collect();
    assert_eq!(plan, [("files/app/two", 2)], "the shared blob is there already");
    assert_eq!(bench.source.status().await.unwrap(), before);
    assert_eq!(bench.source.trust_record().await.unwrap(), trust);
    assert!(bench.source.assignments_of(&name, &version).await.unwrap().is_empty());
    assert_eq!(edge.get("/files/app/two").await.0.as_u16(), 404);
    let error =
        bench.source.preview(&name, &version, &[parse("e7")], &wires, &options, &silent()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_withdrawn_bundle_leaves_every_edge() {
    let bench = Bench::with_keys().await;
    let wires = Wires::default();
    let edge = wires.plug("e1").await;
    know(&bench, &["e1"]).await;
    bench.add("files/app/one", b"1", &[]).await;
    bench.release("app", "1.0", "**").await;
    assign(&bench, "app", "1.0", "*").await;
    converge(&bench, &wires).await;
    bench.source.withdraw_bundle(&parse("app"), &parse("1.0"), "bad build", false).await.unwrap();
    assert_eq!(drifts(&bench).await, [0], "what is withdrawn is not wanted");
    assert!(converge(&bench, &wires).await[0].is_complete());
    assert_eq!(edge.get("/files/app/one").await.0.as_u16(), 410);
    assert!(bench.source.receipts(&parse("e1")).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_bundle_that_fails_does_not_stop_the_others() {
    let bench = Bench::with_keys().await;
    let wires = Wires::default();
    wires.plug("e1").await;
    know(&bench, &["e1"]).await;
    bench.add("files/bad/x", b"bad", &[]).await;
    bench.add("files/good/x", b"good", &[]).await;
    bench.release("bad", "1.0", "files/bad/**").await;
    bench.release("good", "1.0", "files/good/**").await;
    assign(&bench, "bad", "1.0", "*").await;
    assign(&bench, "good", "1.0", "*").await;
    // A bit flips in the source's own store.
    let digest = distedge::digest::Digest::of(b"bad");
    assert!(bench.blobs.damage(&digest, |bytes| bytes[0] ^= 1));
    let outcomes = converge(&bench, &wires).await;
    assert_eq!((outcomes[0].proven, outcomes[0].failed.len(), outcomes[0].drift), (1, 1, 2));
    let status = bench.source.status().await.unwrap();
    assert!(status[0].contact.error.as_ref().unwrap().contains("bad 1.0"), "{:?}", status[0].contact);
    assert!(bench.blobs.damage(&digest, |bytes| bytes[0] ^= 1));
    assert!(converge(&bench, &wires).await[0].is_complete());
    assert_eq!(drifts(&bench).await, [0]);
}

#[tokio::test]
async fn constraints_and_unknown_edges_are_refused_before_anything_is_recorded() {
    let bench = Bench::with_keys().await;
    know(&bench, &["e1", "x1"]).await;
    bench.add("files/x", b"1", &[]).await;
    let mut new = super::new_bundle("app", "1.0", "**");
    new.constraints.edges = Some(vec![parse("e*")]);
    bench.source.create_bundle(&new).await.unwrap();
    let (name, version) = (parse("app"), parse("1.0"));
    let error = bench.source.assign(&name, &version, &[parse("e1")]).await.unwrap_err();
    assert!(error.to_string().contains("is a draft"), "{error}");
    bench.source.sign_bundle(&name, &version, &[]).await.unwrap();
    let error = bench.source.assign(&name, &version, &[parse("e1"), parse("x1")]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Forbidden, "{error}");
    let error = bench.source.assign(&name, &version, &[parse("e1"), parse("e7")]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(bench.source.assignments().await.unwrap().is_empty());
    let gone = bench.source.remove_edge(&parse("x1")).await.unwrap();
    assert!(gone && bench.source.edge_token(&parse("x1")).unwrap().is_none());
}

#[tokio::test]
async fn progress_is_told_edge_by_edge() {
    let bench = Bench::with_keys().await;
    let wires = Wires::default();
    wires.plug("e1").await;
    know(&bench, &["e1"]).await;
    bench.add("files/x", b"12345", &[]).await;
    bench.release("app", "1.0", "**").await;
    assign(&bench, "app", "1.0", "*").await;
    let told: Arc<Mutex<Vec<(NodeName, Event)>>> = Arc::default();
    let heard = told.clone();
    let progress: ConvergeProgress =
        Arc::new(move |edge, event| heard.lock().unwrap().push((edge.clone(), event)));
    bench.source.converge(&wires, &ConvergeOptions::default(), &progress).await.unwrap();
    let told = told.lock().unwrap();
    assert!(told.iter().all(|(edge, _)| edge.as_str() == "e1"));
    assert!(told.iter().any(|(_, event)| matches!(event, Event::Wanted { blobs: 1, bytes: 5, .. })));
    assert!(told.iter().any(|(_, event)| matches!(event, Event::Proven { .. })));
}

#[cfg(feature = "delta")]
#[tokio::test]
async fn an_edge_is_sent_what_differs_within_its_hours() {
    use distedge::distribute::{Method, Planner, PlannerOptions};

    let plans = tempfile::tempdir().unwrap();
    let mut bench = Bench::with_keys().await;
    let options = PlannerOptions { effort: 0, ..PlannerOptions::default() };
    bench.source = bench.source.with_planner(Planner::open(plans.path(), options).unwrap());
    let wires = Wires::default();
    let edge = wires.plug("e1").await;
    know(&bench, &["e1"]).await;
    let text = |version: u32| -> String {
        (0..2000).map(|line: u32| format!("{}\n", line.wrapping_mul(2_654_435_761))).collect::<String>()
            + &format!("version {version}\n")
    };
    bench.add("files/app/1.0/data.txt", text(1).as_bytes(), &[]).await;
    bench.release("app", "1.0", "files/app/1.0/*").await;
    assign(&bench, "app", "1.0", "*").await;
    let outcome = converge(&bench, &wires).await.remove(0);
    assert!(outcome.is_complete(), "{outcome:?}");
    assert_eq!(outcome.methods.keys().collect::<Vec<_>>(), [&Method::Compressed]);

    // The old version need not be there any more; until the edge is told so, it is what it has.
    bench.add("files/app/1.1/data.txt", text(2).as_bytes(), &[]).await;
    bench.release("app", "1.1", "files/app/1.1/*").await;
    bench.source.unassign(&parse("app"), &parse("1.0"), &[parse("e1")]).await.unwrap();
    assign(&bench, "app", "1.1", "*").await;
    let mut record = bench.source.edge(&parse("e1")).await.unwrap().unwrap();
    // The clock shows 05:00.
    record.windows = vec!["22:00-04:00".parse().unwrap()];
    record.rate = Some(999);
    assert!(bench.source.set_edge(&record, None).await.unwrap_err().to_string().contains("1000 bytes"));
    record.rate = Some(10_000_000);
    bench.source.set_edge(&record, None).await.unwrap();
    assert_eq!(bench.source.edge(&parse("e1")).await.unwrap().unwrap(), record);
    let dry = ConvergeOptions { dry_run: true, ..ConvergeOptions::default() };
    let outcome = bench.source.converge(&wires, &dry, &silent()).await.unwrap().remove(0);
    assert_eq!(outcome.plan[0].method, Method::Patch, "a dry run looks at what is there: {outcome:?}");
    let outcome = converge(&bench, &wires).await.remove(0);
    assert_eq!((outcome.failed.len(), outcome.sent_bytes, outcome.drift), (0, 0, 2), "{outcome:?}");
    assert_eq!(outcome.waits.unwrap().to_string(), "2026-11-22T22:00:00Z");
    assert!(!outcome.is_complete());
    assert_eq!(edge.get("/files/app/1.0/data.txt").await.0.as_u16(), 404, "the trust document does not wait");

    record.windows.push("04:30-05:30".parse().unwrap());
    bench.source.set_edge(&record, None).await.unwrap();
    let outcome = converge(&bench, &wires).await.remove(0);
    assert!(outcome.is_complete() && outcome.fell_back.is_empty(), "{outcome:?}");
    assert!(edge.get("/files/app/1.1/data.txt").await.1 == text(2));
    let whole = ConvergeOptions { whole: true, ..ConvergeOptions::default() };
    bench.add("files/app/1.2/data.txt", text(3).as_bytes(), &[]).await;
    bench.release("app", "1.2", "files/app/1.2/*").await;
    assign(&bench, "app", "1.2", "*").await;
    let outcome = bench.source.converge(&wires, &whole, &silent()).await.unwrap().remove(0);
    assert_eq!(outcome.sent_bytes, text(3).len() as u64);
}
