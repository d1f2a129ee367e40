//! Group F: who may what, and what a stranger learns.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use distedge::access::Scope;
use distedge::token::NewUserToken;
use serde_json::{Value, json};

use super::rig::{Random, Rig, ask, get, new_user, pack};

const S: &str = "/vault/s.bin";

#[tokio::test]
async fn f01_what_is_private_differs_from_what_is_not_there() {
    let mut rig = Rig::new().await;
    let rule = json!({ "name": "r", "on": ["vault/d/**"], "networks": { "deny": ["10.0.0.0/8"] } });
    let grant = json!({ "name": "g", "to": ["user:bob"], "may": ["read", "list"], "on": ["vault/**"] });
    rig.policy(json!({ "grant": [grant], "restrict": [rule] })).await;
    rig.publish(vec![pack("old", "1.0", 1).with("vault", "gone.bin", b"gone")]).await;
    rig.house.withdraw("old", "1.0");
    rig.converge().await;
    let (alice, _) = rig.user(new_user("user:alice")).await;
    for method in ["GET", "HEAD"] {
        let stranger = ask(method, S).to(&rig.edge).await;
        let outsider = ask(method, S).bearer(&alice).to(&rig.edge).await;
        assert_eq!((stranger.status, outsider.status), (401, 404));
        for path in [
            "/vault/nothing.bin",
            "/vault/gone.bin",
            "/vault/d/t.txt",
            "/vault/d",
            "/vault/d/",
            "/vault/",
            "/vault",
            "/nowhere/s.bin",
            "/nowhere/",
            "/nowhere",
            "/Vault/s.bin",
            "/vault/%2fs.bin?x",
            "/vault/s.bin?edge=1",
        ] {
            if path.contains("%2f") {
                assert_eq!(ask(method, path).status(&rig.edge).await, 400);
                continue;
            }
            assert_eq!(ask(method, path).to(&rig.edge).await, stranger, "{method} {path}");
            assert_eq!(ask(method, path).bearer(&alice).to(&rig.edge).await, outsider, "{method} {path}");
        }
    }
    // Conditions and ranges tell nothing either.
    let tag = get(S).bearer(rig.token).to(&rig.edge).await.header("etag").unwrap().to_owned();
    let plain = get("/vault/nothing.bin").to(&rig.edge).await;
    for (header, value) in
        [("if-none-match", &*tag), ("if-match", "\"x\""), ("range", "bytes=99-"), ("if-none-match", "*")]
    {
        assert_eq!(get(S).header(header, value).to(&rig.edge).await, plain, "{header}: {value}");
    }
    // Bundles of private repositories, and those that do not exist.
    let none = get("/api/v1/bundles/none/1.0").to(&rig.edge).await;
    for path in [
        "sec/1.0",
        "sec/1.0/envelope",
        "sec/1.0/statement",
        "sec/1.0/receipt",
        "sec/1.0/sboms",
        "old/1.0",
        "sec/9",
    ] {
        assert_eq!(get(&format!("/api/v1/bundles/{path}")).to(&rig.edge).await, none, "{path}");
    }
}

#[tokio::test]
async fn f02_the_secret_of_one_token_under_the_id_of_another() {
    let rig = Rig::new().await;
    let grant = json!({ "name": "g", "to": ["user:alice"], "may": ["read"], "on": ["vault/**"] });
    rig.policy(json!({ "grant": [grant] })).await;
    let (alice, alice_id) = rig.user(new_user("user:alice")).await;
    let (bob, bob_id) = rig.user(new_user("user:bob")).await;
    let crossed = alice.replace(&alice_id.to_string(), &bob_id.to_string());
    assert_ne!(crossed, alice);
    let (_, crc) = alice.rsplit_once('_').unwrap();
    let no_crc = alice.replace(crc, "00000000");
    for bad in [
        &*crossed,
        &no_crc,
        &alice[..alice.len() - 1],
        &format!("{alice}x"),
        &alice.to_uppercase(),
        "eut1_",
        "",
    ] {
        assert_eq!(get(S).bearer(bad).status(&rig.edge).await, 401, "{bad}");
        assert_eq!(
            get("/files/app/1.0/a.bin").bearer(bad).status(&rig.edge).await,
            401,
            "public, too: {bad}"
        );
    }
    let basic = |user: &str, token: &str| {
        let pair = STANDARD.encode(format!("{user}:{token}"));
        get(S).header("authorization", &format!("Basic {pair}"))
    };
    let (alice_name, bob_name) = (alice_id.to_string(), bob_id.to_string());
    for (user, token, expected) in [
        ("alice", &alice, 200),
        ("", &alice, 200),
        (&*alice_name, &alice, 200),
        ("bob", &alice, 401),
        (&*bob_name, &alice, 401),
        ("alice", &bob, 401),
        (&*alice_name, &bob, 401),
        ("bob", &bob, 404),
    ] {
        assert_eq!(basic(user, token).status(&rig.edge).await, expected, "{user}");
    }
    assert_eq!(get(S).header("x-jfrog-art-api", &alice).status(&rig.edge).await, 200);
    let twice = get(S).bearer(&alice).header("x-jfrog-art-api", &alice);
    assert_eq!(twice.status(&rig.edge).await, 400);
}

const NAMES: [&str; 4] = ["alice", "bob", "carol", "dave"];
const PATHS: [(&str, &str); 6] = [
    ("files", "app/1.0/a.bin"),
    ("files", "app/1.0.1/x"),
    ("vault", "s.bin"),
    ("vault", "d/t.txt"),
    ("lab", "x/y/z"),
    ("lab", "x/w"),
];
const FOLDERS: [(&str, &str); 7] = [
    ("files", ""),
    ("files", "app"),
    ("vault", ""),
    ("vault", "d"),
    ("lab", ""),
    ("lab", "x"),
    ("lab", "x/y"),
];

/// What a grant or a scope reaches, in the words of the model.
#[derive(Clone, Debug)]
enum Where {
    All,
    Below(String),
    Exactly(String),
}

impl Where {
    fn any(random: &mut Random) -> Where {
        let (repository, path) = PATHS[random.below(PATHS.len())];
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        match random.below(8) {
            0 => Where::All,
            1 | 2 => Where::Below(format!("{repository}/")),
            3 | 4 if !folder.is_empty() => Where::Below(format!("{repository}/{folder}/")),
            _ => Where::Exactly(format!("{repository}/{path}")),
        }
    }

    fn text(&self) -> String {
        match self {
            Where::All => "*".into(),
            Where::Below(folder) => format!("{folder}**"),
            Where::Exactly(path) => path.clone(),
        }
    }

    fn reaches(&self, full: &str) -> bool {
        match self {
            Where::All => true,
            Where::Below(folder) => full.starts_with(folder.as_str()),
            Where::Exactly(path) => full == path,
        }
    }
}

/// F05: what the edge does equals what a model of it says, over a real edge.
#[tokio::test]
async fn f05_the_edge_and_the_model_of_its_policy_differ() {
    let mut rig = Rig::with(|options| options.repositories.push(("lab".parse().unwrap(), false))).await;
    rig.publish(vec![pack("lab", "1", 1).with("lab", "x/y/z", b"z").with("lab", "x/w", b"w")]).await;
    let mut random = Random(5);
    let (mut asked, mut granted, mut refused) = (0, 0, 0);
    while asked < 2_400 {
        let mut grants = Vec::new();
        for _ in 0..random.below(6) {
            let to = random.below(7);
            let read_and_list = [random.below(3) > 0, random.below(3) == 0];
            grants.push((to, read_and_list, Where::any(&mut random)));
        }
        let in_group = random.below(NAMES.len());
        let to = |to: usize| match to {
            0..4 => format!("user:{}", NAMES[to]),
            4 => "group:team".into(),
            5 => "anonymous".into(),
            _ => "authenticated".into(),
        };
        let rows: Vec<Value> = grants
            .iter()
            .enumerate()
            .filter(|(_, (_, may, _))| may[0] || may[1])
            .map(|(at, (who, may, on))| {
                let may: Vec<&str> = [(may[0], "read"), (may[1], "list")]
                    .iter()
                    .filter(|one| one.0)
                    .map(|one| one.1)
                    .collect();
                json!({ "name": format!("g{at}"), "to": [to(*who)], "may": may, "on": [on.text()] })
            })
            .collect();
        let team = json!({ "team": [format!("user:{}", NAMES[in_group])] });
        rig.policy(json!({ "groups": team, "grant": rows })).await;
        let mut tokens = Vec::new();
        for name in NAMES {
            let scope = (random.below(3) == 0).then(|| (random.below(2) == 0, Where::any(&mut random)));
            let scopes = scope.as_ref().map(|(list, on)| {
                let actions = if *list { "read,list" } else { "read" };
                vec![format!("{actions}:{}", on.text()).parse::<Scope>().unwrap()]
            });
            let new = NewUserToken { scopes, ..new_user(&format!("user:{name}")) };
            tokens.push((rig.user(new).await.0, scope));
        }
        for _ in 0..100 {
            asked += 1;
            let list = random.below(2) == 0;
            let (repository, path) =
                if list { FOLDERS[random.below(FOLDERS.len())] } else { PATHS[random.below(PATHS.len())] };
            let full = match (list, path) {
                (true, "") => format!("{repository}/"),
                (true, path) => format!("{repository}/{path}/"),
                (false, path) => format!("{repository}/{path}"),
            };
            let who = random.below(NAMES.len() + 1);
            let by_grant = grants.iter().any(|(to, may, on)| {
                let meant = match to {
                    0..4 => *to == who,
                    4 => in_group == who,
                    5 => who == NAMES.len(),
                    _ => who < NAMES.len(),
                };
                meant && may[usize::from(list)] && on.reaches(&full)
            });
            let in_scope = tokens
                .get(who)
                .and_then(|(_, scope)| scope.as_ref())
                .is_none_or(|(listing, on)| (*listing || !list) && on.reaches(&full));
            let may = in_scope && (repository == "files" || by_grant);
            let expected = match (may, who < NAMES.len()) {
                (true, _) => 200,
                (false, true) => 404,
                (false, false) => 401,
            };
            let mut request = ask(["GET", "HEAD"][random.below(2)], &format!("/{full}"));
            if let Some((token, _)) = tokens.get(who) {
                request = request.bearer(token);
            }
            let status = request.status(&rig.edge).await;
            assert_eq!(status, expected, "{full} for {who}, in {in_group}: {grants:?} {:?}", tokens.get(who));
            if may { granted += 1 } else { refused += 1 }
        }
    }
    println!("{asked} requests, {granted} granted, {refused} refused, 0 differences");
    assert!(granted > 400 && refused > 400);
}
