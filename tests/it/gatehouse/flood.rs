//! K08: a hundred thousand bad tokens.

use distedge::token::{TokenId, UserToken};
use serde_json::json;

use super::rig::{Random, Rig, get, new_user, opened, order};

/// Memory that this process holds, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[tokio::test]
async fn k08_bad_tokens_fill_the_log_or_the_memory() {
    let rig = Rig::new().await;
    let grant = json!({ "name": "g", "to": ["user:alice"], "may": ["read"], "on": ["vault/**"] });
    rig.policy(json!({ "grant": [grant] })).await;
    let (user, _) = rig.user(new_user("user:alice")).await;
    let (link, _) = rig.link(order(&["vault/s.bin"])).await;
    let mut random = Random(8);
    let bad = |random: &mut Random| match random.below(5) {
        0 => {
            let token = UserToken::mint(TokenId::random().unwrap()).unwrap();
            get("/vault/s.bin").bearer(token.secret().expose_str().unwrap())
        }
        1 => get("/vault/s.bin").bearer(&format!("{:x}{}", random.below(1 << 60), "z".repeat(1_000))),
        2 => {
            let (text, _) = link.rsplit_once('.').unwrap();
            let tag = format!("{:043}", random.below(1 << 60)).replace('0', "A");
            opened("/vault/s.bin", &format!("{text}.{tag}"))
        }
        3 => {
            // As long as a token may be: a memory of them would hold 200 MB.
            let payload = format!("{:032}{}", random.below(1 << 60), "A".repeat(1_900));
            opened("/vault/s.bin", &format!("v1.k1.{payload}.{}", "A".repeat(43)))
        }
        _ => get("/vault/s.bin").header("x-jfrog-art-api", &format!("emt1_{}", random.below(1 << 60))),
    };
    for _ in 0..2_000 {
        assert_ne!(bad(&mut random).status(&rig.edge).await, 200);
    }
    let (before, entries) = (resident(), rig.log().len());
    for round in 0..100 {
        for _ in 0..1_000 {
            let status = bad(&mut random).status(&rig.edge).await;
            assert!(matches!(status, 400 | 401 | 403), "{status}");
        }
        // Whoever is good is answered meanwhile.
        assert_eq!(get("/vault/s.bin").bearer(&user).status(&rig.edge).await, 200, "round {round}");
        assert_eq!(opened("/vault/s.bin", &link).status(&rig.edge).await, 200, "round {round}");
        assert_eq!(get("/files/app/1.0.1/x").status(&rig.edge).await, 200, "round {round}");
    }
    let grown = resident().saturating_sub(before);
    let log = rig.log();
    let refusals = |log: &[distedge::audit::Entry<'_>]| {
        log.iter().filter(|entry| matches!(&*entry.kind, "auth.failed" | "download.denied")).count()
    };
    println!("100000 bad tokens: memory grew by {grown} bytes, {} refusals in the log", refusals(&log));
    assert!(grown < 48 << 20, "memory grew by {grown} bytes (other tests run beside)");
    assert_eq!(log.len(), entries + 600, "two entries for each good download, none for the flood");
    // Of one second 100 are written down, and the next one says how many there were.
    assert_eq!(refusals(&log), 100);
    // What somebody known does in that second does not drown in it.
    assert_eq!(get("/vault/nothing/else").bearer(&user).status(&rig.edge).await, 404);
    assert_eq!(get("/api/v1/events").bearer(&user).status(&rig.edge).await, 404);
    assert_eq!(&*rig.log().pop().unwrap().kind, "control.denied");
    rig.clock.advance(1);
    bad(&mut random).status(&rig.edge).await;
    let last = rig.log().pop().unwrap();
    let reason = last.res.unwrap().reason.unwrap();
    assert!(reason.contains("101900 events before this one were only counted"), "{}", reason.as_str());
    let text = rig.edge.metrics().to_text();
    assert!(text.contains("unrecorded_events_total 0\n"), "what was sampled was not lost: {text}");
}
