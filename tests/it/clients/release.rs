//! A real release goes through: packages of three worlds and a large image, from their own clients
//! over a source and two edges to the programs people download with.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use distedge::digest::Digest;
use serde_json::Value;

use super::download::{Packages, name_of, pip, pip_is_here};
use super::house::{House, blob_file, named};
use super::proxy::Proxy;
use super::tool::{good, installed, program, run};
use crate::process::call;

const IMAGE: usize = 32 << 20;
const KIB: u64 = 1024;

/// Bytes that no two pieces of are alike.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(length.div_ceil(8)).flatten().take(length).collect()
}

/// What is released: the URL path of each file, and the file it was made of.
type Files = Vec<(String, PathBuf)>;

/// A source that has packages and an image, all in the signed bundle `shop 1.0`.
fn stocked(house: &House, packages: Packages) -> Files {
    let mut files = Vec::new();
    for (repository, found) in packages.0 {
        let mut add = vec!["add", repository, "--label", "approved", "--prop", "channel=stable"];
        add.extend(found.iter().map(|file| file.to_str().unwrap()));
        house.source.good(&add);
        files.extend(found.iter().map(|file| (format!("{repository}/{}", name_of(file)), file.clone())));
    }
    let image = house.path("disk.img");
    fs::write(&image, noise(IMAGE)).unwrap();
    house.source.good(&["add", "images/v1", image.to_str().unwrap(), "--label", "approved"]);
    files.push(("images/v1/disk.img".to_owned(), image));
    house.release("shop", "1.0", &["--alias", "images/disk:latest=v1/disk.img"]);
    files
}

fn digest(file: &Path) -> String {
    Digest::of(&fs::read(file).unwrap()).to_hex()
}

/// How much of an upload an edge has, once it stands still.
fn standing(house: &House, edge: &str, hex: &str) -> u64 {
    let ask = || {
        let path = format!("/api/v1/blobs/{hex}");
        let reply = call(house.edge(edge).address, "HEAD", &path, Some(house.token(edge)), b"").unwrap();
        reply.header("upload-offset").unwrap().parse::<u64>().unwrap()
    };
    let mut before = ask();
    loop {
        thread::sleep(Duration::from_millis(200));
        let now = ask();
        if now == before && now > 0 {
            return now;
        }
        before = now;
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is not a whole number"))
}

/// Story: one of two edges dies while it receives a large file. The other one must not notice, and
/// the one that died must go on at the byte where it stood.
#[test]
fn a_release_reaches_an_edge_that_was_killed_while_it_received() {
    let packages = Packages::fetched();
    let mut house = House::new(&["berlin", "osaka"]);
    let wire = Proxy::new(house.edge("osaka").address);
    house.know("osaka", &wire.url());
    let files = stocked(&house, packages);
    let whole: u64 = files.iter().map(|(_, file)| file.metadata().unwrap().len()).sum();
    let image = digest(&files.last().unwrap().1);

    wire.hold_after(12 << 20);
    let distribute = ["--json", "distribute", "--whole", "shop", "1.0", "--edge", "*"];
    let first = house.source.command(&distribute).stdout(std::process::Stdio::piped()).spawn().unwrap();
    wire.wait_until_held();
    let stood = standing(&house, "osaka", &image);
    assert!(stood > 8 << 20 && stood < 13 << 20, "{stood}");
    house.kill("osaka");
    let first = first.wait_with_output().unwrap();
    assert_eq!(first.status.code(), Some(1), "an edge that was not reached costs the exit code");
    let outcomes: Value = serde_json::from_slice(&first.stdout).unwrap();
    let berlin = named(&outcomes, |row| &row["edge"], "berlin");
    assert_eq!((number(&berlin["drift"]), number(&berlin["sent"]["bytes"])), (0, whole));
    let osaka = named(&outcomes, |row| &row["edge"], "osaka");
    assert!(number(&osaka["drift"]) > 0, "{osaka}");
    assert_eq!(number(&house.source.status("berlin")["drift"]), 0);
    assert!(number(&house.source.status("osaka")["drift"]) > 0);

    house.start("osaka");
    wire.lead_to(house.edge("osaka").address);
    let missing = house.edge("osaka").get("/images/v1/disk.img", None).status;
    assert_eq!(missing, 401, "nothing of a bundle that did not arrive is visible");
    assert_eq!(standing(&house, "osaka", &image), stood, "a killed edge keeps what arrived");
    let plan = house.source.json(&["sync", "--whole", "--dry-run"]);
    let plan = named(&plan, |row| &row["edge"], "osaka")["plan"].clone();
    let planned = named(&plan, |blob| &blob["digest"], &format!("sha256:{image}"));
    assert_eq!((number(&planned["have"]), number(&planned["size"])), (stood, IMAGE as u64));
    let left: u64 =
        plan.as_array().unwrap().iter().map(|blob| number(&blob["size"]) - number(&blob["have"])).sum();
    wire.lead_to(house.edge("osaka").address);
    let second = house.source.json(&["sync", "--whole"]);
    let osaka = named(&second, |row| &row["edge"], "osaka");
    assert_eq!((number(&osaka["sent"]["bytes"]), number(&osaka["drift"])), (left, 0));
    // Measured on the wire: what was missing, and requests around it.
    assert!(wire.sent() >= left && wire.sent() < left + 256 * KIB, "{} bytes for {left}", wire.sent());
    assert!(wire.sent() + stood < whole + 256 * KIB);
    for edge in ["berlin", "osaka"] {
        let status = house.source.status(edge);
        assert_eq!((number(&status["drift"]), number(&status["proven"])), (0, 1), "{status}");
    }
    eprintln!("osaka died at byte {stood} of {IMAGE}; {} bytes went over the wire after that", wire.sent());

    for edge in ["berlin", "osaka"] {
        let address = house.edge(edge).address;
        let out = house.path(&format!("out-{edge}"));
        fs::create_dir(&out).unwrap();
        curl(&house.url(edge), &files, &out);
        curl_goes_on(&Proxy::new(address), &house.url(edge), files.last().unwrap(), &out);
        aria2c(&house.url(edge), &files, &out);
        browser(&house.url(edge), &files, &out);
        packagers(&house.url(edge), &files, &out);
    }
}

fn equal(fetched: &Path, file: &Path, with: &str) {
    assert!(fs::read(fetched).unwrap() == fs::read(file).unwrap(), "{with} got other bytes than {file:?}");
}

fn curl(url: &str, files: &Files, out: &Path) {
    if !installed("curl") {
        return;
    }
    for (path, file) in files {
        let to = out.join("curl");
        good(program("curl").args(["-fsS", "-o"]).arg(&to).arg(format!("{url}/{path}")));
        equal(&to, file, "curl");
    }
    let to = out.join("alias");
    good(program("curl").args(["-fsS", "-o"]).arg(&to).arg(format!("{url}/images/disk/latest")));
    equal(&to, &files.last().unwrap().1, "curl, by the alias,");
}

/// The connection breaks in the middle; `curl -C -` fetches the rest and no more.
fn curl_goes_on(wire: &Proxy, url: &str, (path, file): &(String, PathBuf), out: &Path) {
    if !installed("curl") {
        return;
    }
    let to = out.join("curl-c");
    wire.break_after(IMAGE as u64 / 2);
    let (whole, _) = run(program("curl").args(["-fsS", "-o"]).arg(&to).arg(format!("{}/{path}", wire.url())));
    let got = to.metadata().unwrap().len();
    assert!(!whole && got > 0 && got <= IMAGE as u64 / 2, "{got}");
    let mut curl = program("curl");
    curl.args(["-fsS", "-C", "-", "-w", "%{http_code} %{size_download}", "-o"]).arg(&to);
    assert_eq!(good(curl.arg(format!("{url}/{path}"))), format!("206 {}", IMAGE as u64 - got));
    equal(&to, file, "curl -C -");
}

fn aria2c(url: &str, files: &Files, out: &Path) {
    if !installed("aria2c") {
        return;
    }
    for (path, file) in files {
        let mut aria2c = program("aria2c");
        aria2c.args(["--no-conf", "--quiet", "-x4", "-s4", "-k1M", "--checksum"]);
        aria2c.arg(format!("sha-256={}", digest(file))).arg("-d").arg(out).args(["-o", name_of(file)]);
        good(aria2c.arg(format!("{url}/{path}")));
        equal(&out.join(name_of(file)), file, "aria2c");
    }
}

/// pip takes a listing for a page of links, npm takes an address: both install what they get.
fn packagers(url: &str, files: &Files, out: &Path) {
    let of = |folder: &str| files.iter().find(|(path, _)| path.starts_with(folder));
    if of("wheels/").is_some() && pip_is_here() {
        let mut pip = pip("install");
        pip.env_remove("PIP_FIND_LINKS").args([
            "--no-index",
            "--find-links",
            &format!("{url}/wheels/"),
            "--target",
        ]);
        good(pip.arg(out.join("pip")).args(["idna", "six==1.17.0"]));
        assert!(out.join("pip/six.py").exists() && out.join("pip/idna/__init__.py").exists());
    }
    if let Some((path, _)) = of("npm/").filter(|_| installed("npm")) {
        let mut npm = program("npm");
        npm.args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"]).arg(out.join("npm"));
        good(npm.arg(format!("{url}/{path}")));
        assert!(out.join("npm/node_modules/ms/package.json").exists());
    }
}

/// Opens the listings and clicks on every file.
fn browser(url: &str, files: &Files, out: &Path) {
    if !installed("chromium") || !installed("node") {
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/browser_download.cjs");
    for folder in ["wheels/", "debian/", "npm/", "images/v1/"] {
        let files: Vec<_> = files.iter().filter(|(path, _)| path.starts_with(folder)).collect();
        if files.is_empty() {
            continue;
        }
        let to = out.join(format!("browser-{}", folder.replace('/', "-")));
        fs::create_dir(&to).unwrap();
        let mut browser = program("node");
        browser.arg(&script).args(["chromium", &format!("{url}/{folder}")]).arg(&to).arg(out.join("profile"));
        let said = good(&mut browser);
        assert_eq!(said.lines().count(), 1 + files.len(), "a title and the files: {said}");
        for (_, file) in files {
            equal(&to.join(name_of(file)), file, "the browser");
        }
    }
}

/// Story: a bit flips on an edge's disk, after the file was served well. The edge must notice by
/// itself, whoever asks, and the next round of the source must heal it.
#[test]
fn a_flipped_bit_is_never_served_whole_and_heals() {
    if !installed("curl") {
        return;
    }
    let house = House::new(&["berlin"]);
    // Small ones are hashed before they are sent, large ones on the way.
    let files = [("small", noise(10_000)), ("large", noise(20 << 20))];
    for (name, content) in &files {
        house.add("files", name, content);
    }
    house.release("shop", "1.0", &[]);
    house.source.good(&["distribute", "shop", "1.0", "--edge", "berlin"]);
    let url = |name: &str| format!("{}/files/{name}", house.url("berlin"));
    let out = house.path("out");
    let fetch = |name: &str| {
        // It may not be there.
        let _ = fs::remove_file(&out);
        let mut curl = program("curl");
        run(curl.args(["-fsS", "-w", "%{http_code}", "-o"]).arg(&out).arg(url(name)))
    };
    for (name, content) in &files {
        let digest = Digest::of(content);
        for (round, place) in [content.len() / 2, content.len() - 1, 0].into_iter().enumerate() {
            assert!(fetch(name).0 && fs::read(&out).unwrap() == *content);
            let blob = blob_file(&house.data("berlin"), &digest.to_hex());
            let mut stored = fs::read(&blob).unwrap();
            stored[place] ^= 0x10;
            fs::write(&blob, stored).unwrap();
            if place == 0 {
                // Nobody asks for it, but every blob is read once a week, or when an operator says so.
                let edge = house.edge("berlin");
                let found = call(edge.address, "POST", "/api/v1/scrub", Some(house.token("berlin")), b"");
                assert_eq!(found.unwrap().json()["damaged"], 1);
            }
            for attempt in 0..2 {
                let (good, said) = fetch(name);
                let got = fs::read(&out).unwrap_or_default();
                assert!(!good && got.len() < content.len(), "{name} {place}: {said}");
                if attempt > 0 {
                    assert!(said.contains("503"), "{name} {place}: {said}");
                }
            }
            let events = house.edge("berlin").get("/api/v1/events", Some(house.token("berlin"))).json();
            let told = events.as_array().unwrap().iter().filter(|event| {
                event["kind"] == "blob.damaged" && event.to_string().contains(&digest.to_hex())
            });
            assert_eq!(told.count(), round + 1, "{events}");

            let plan = house.source.json(&["sync", "--dry-run"])[0].clone();
            assert_eq!(plan["plan"][0]["digest"], digest.to_string(), "{plan}");
            assert_eq!(plan["plan"].as_array().unwrap().len(), 1, "{plan}");
            assert_eq!(number(&plan["drift"]), 3, "{plan}");
            let asked = house.source.json(&["status", "--check"])[0].clone();
            assert_eq!((number(&asked["drift"]), number(&asked["proven"])), (3, 0), "{asked}");
            let healed = house.source.json(&["sync"])[0].clone();
            assert_eq!(number(&healed["sent"]["bytes"]), content.len() as u64, "{healed}");
            assert_eq!(number(&house.source.status("berlin")["drift"]), 0);
        }
        assert!(fetch(name).0 && fs::read(&out).unwrap() == *content);
    }
}
