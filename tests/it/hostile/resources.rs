//! Groups K and L over the wire: many clients, much work, things taken away under them.

use std::time::Instant;

use distedge::digest::Digest;
use distedge::server::Limits;

use super::house::{A_BIN, Lane, SHARED, SIZE, Site, shop};
use crate::http::rig::noise;
use crate::support::TOKEN;

#[test]
fn k02_idle_connections_do_not_keep_a_new_client_waiting() {
    let idle: Vec<_> = (0..200).map(|_| SHARED.connect()).collect();
    let begun = Instant::now();
    assert_eq!(SHARED.get("/generic-local/app/1.0/one.txt", "").body, b"one");
    assert!(begun.elapsed().as_secs() < 5);
    drop(idle);
}

#[test]
fn k07_more_connections_than_there_is_room_for() {
    let mut limits = Limits::default();
    limits.connections = Some(8);
    let (site, _) = Site::with_house(limits);
    let mut held: Vec<_> = (0..40).map(|_| site.connect()).collect();
    let answered = held
        .iter_mut()
        .map(|wire| {
            wire.send("GET /generic-local/app/1.0/one.txt HTTP/1.1\r\nHost: a\r\n\r\n");
            wire.try_reply(false).is_some_and(|reply| reply.body == b"one")
        })
        .filter(|answered| *answered)
        .count();
    assert!((1..=8).contains(&answered), "{answered}");
    drop(held);
    let healed = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        let mut wire = site.connect();
        wire.send("GET /generic-local/app/1.0/one.txt HTTP/1.1\r\nHost: a\r\n\r\n");
        wire.try_reply(false).is_some()
    });
    assert!(healed);
}

#[test]
fn k08_bad_tokens_leave_nothing_behind() {
    let site = Site::new();
    let events = site.event_kinds().len();
    for round in 0..20 {
        let mut wire = site.connect();
        for at in 0..100 {
            let target = ["/secret-local/s.bin", "/api/v1/status", A_BIN, "/healthz"][at % 4];
            wire.send(format!(
                "GET {target} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer eut1_{round}_{at}\r\n\r\n"
            ));
        }
        for _ in 0..100 {
            assert_eq!(wire.reply(false).status, 401);
        }
        assert_eq!(site.get("/generic-local/app/1.0/one.txt", "").body, b"one");
    }
    assert_eq!(site.event_kinds().len(), events);
}

#[test]
fn strangers_write_no_durable_event() {
    let site = Site::new();
    let events = site.event_kinds().len();
    for (method, target) in [
        ("POST", "/api/v1/bundles"),
        ("PUT", "/api/v1/trust"),
        ("PATCH", "/api/v1/blobs/00"),
        ("DELETE", "/api/v1/bundles/app/1.0"),
        ("POST", "/api/v1/bundles/app/1.0/commit"),
        ("PUT", "/api/v1/repositories/secret-local"),
        ("GET", "/secret-local/s.bin"),
        ("GET", "/generic-local/../x"),
        ("GET", "/generic-local/nothing"),
    ] {
        for lines in ["", "Authorization: Bearer wrong\r\n"] {
            let reply = site
                .ask(format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{lines}Content-Length: 0\r\n\r\n"));
            assert!(reply.status >= 400, "{method} {target}");
        }
    }
    assert_eq!(site.event_kinds().len(), events);
    let kept = site.get_as_admin("/secret-local/s.bin");
    assert_eq!(kept.status, 200);
    assert_eq!(site.get("/secret-local/s.bin", "").status, 401);
}

#[test]
fn l04_collection_while_the_same_blob_is_published_again() {
    let mut lane = Lane::new();
    for round in 0..30_u64 {
        let version = format!("1.{round}");
        let path = format!("shop/{version}/x");
        let payload =
            lane.site.block_on(shop(&lane.house, &version, round + 1, &[(&path, b"again and again")]));
        lane.assign(&version, &payload);
        let envelope = lane.seal(&payload);
        let status = std::thread::scope(|scope| {
            let site = &lane.site;
            let collecting = scope.spawn(move || {
                for _ in 0..4 {
                    assert_eq!(site.send("POST", "/api/v1/gc", b"").status, 200);
                }
            });
            assert_eq!(lane.offer(&envelope).status, 200);
            let digest = Digest::of(b"again and again").to_hex();
            let mut wire = site.connect();
            wire.send(format!(
                "PATCH /api/v1/blobs/{digest} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n\
                 Upload-Offset: 0\r\nContent-Length: 15\r\n\r\nagain and again"
            ));
            assert!(matches!(wire.reply(false).status, 201), "round {round}");
            let status = site.send("POST", &format!("/api/v1/bundles/shop/{version}/commit"), b"").status;
            collecting.join().unwrap();
            status
        });
        assert_eq!(status, 200, "round {round}");
        assert_eq!(lane.site.get(&format!("/generic-local/{path}"), "").body, b"again and again");
        let taken_off = lane.site.send("DELETE", &format!("/api/v1/bundles/shop/{version}"), b"");
        assert_eq!(taken_off.status, 204);
    }
}

#[test]
fn l05_a_bundle_deleted_under_its_downloads() {
    let lane = Lane::new();
    let mut running: Vec<_> = (0..50).map(|_| lane.site.connect()).collect();
    for wire in &mut running {
        wire.send(format!("GET {A_BIN} HTTP/1.1\r\nHost: a\r\n\r\n"));
    }
    // The head of the last one has come: all of them were admitted.
    let first: Vec<_> = running.iter_mut().map(|wire| wire.peek()).collect();
    assert!(first.iter().all(|started| *started));
    assert_eq!(lane.site.send("DELETE", "/api/v1/bundles/app/1.0", b"").status, 204);
    assert_eq!(lane.site.send("POST", "/api/v1/gc", b"").status, 200);
    assert_eq!(lane.site.get(A_BIN, "").status, 404);
    let whole = noise(SIZE);
    for mut wire in running {
        let reply = wire.reply(false);
        assert!(reply.status == 200 && !reply.cut && reply.body == whole);
    }
}
