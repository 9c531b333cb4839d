// SPDX-License-Identifier: Apache-2.0
//! Grants as people say them: one sentence for many machines, groups, and what a change would do before it is made.

use crate::support::{Person, TestGateway, page, peers, person::location};
use reqwest::StatusCode;

/// Three hypervisors with six machines each; nothing answers there, and nothing has to.
fn three_hypervisors() -> String {
    let guest = |hypervisor: &str, n: u8| {
        let tag = if n < 4 { "vendor-x" } else { "own" };
        format!(
            "[[hypervisors.guests]]\nid = \"vm-{n}\"\nname = \"{hypervisor}-{n}\"\ntags = [\"{tag}\"]\n\
             vnc = \"127.0.0.1:9\"\n"
        )
    };
    let one = |hypervisor: &str| {
        let guests: Vec<String> = (0..6).map(|n| guest(hypervisor, n)).collect();
        format!("[[hypervisors]]\nname = \"{hypervisor}\"\nkind = \"qemu\"\n{}", guests.concat())
    };
    ["berlin", "oslo", "paris"].map(one).concat()
}

/// The machines of the contractor, as somebody would paste them.
fn pasted() -> String {
    let of = |h: &str| (0..4).map(|n| format!("{h}-{n}")).collect::<Vec<_>>().join(", ");
    ["berlin", "oslo", "paris"].map(of).join("\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_contractor_gets_twelve_machines_of_three_hypervisors_for_two_weeks_in_one_form() {
    let gateway = TestGateway::start(&three_hypervisors()).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let zoe = ada.invite("zoe").await;
    let user = gateway.user_id("zoe").await;
    let fields = [
        ("user", user.as_str()),
        ("role", "console-user"),
        ("on", &pasted()),
        ("hours", "336"),
        ("note", "update of the vendor's software"),
        ("step_up_seconds", "300"),
        ("record", "on"),
    ];
    // What it would do is said first, and nothing is done by saying it.
    let answer = ada.submit("/grants/preview", &fields).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let html = page::unescape(&answer.text().await.expect("a page"));
    assert!(
        html.contains("</span> on <bdi>berlin/vm-0, berlin/vm-1")
            && html.contains("</bdi>: see it, watch its screen, use its keyboard and mouse"),
        "{html}"
    );
    assert!(gateway.grants_of("zoe").await.is_empty());
    let answer = ada.submit("/grants", &fields).await;
    assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{}", answer.text().await.unwrap_or_default());
    assert_eq!(gateway.grants_of("zoe").await.len(), 12);
    let mine: serde_json::Value = zoe.get("/api/v1/machines").await.json().await.expect("JSON");
    let text = mine.to_string();
    for hypervisor in ["berlin", "oslo", "paris"] {
        assert!(text.contains(&format!("{hypervisor}-3")) && !text.contains(&format!("{hypervisor}-4")), "{text}");
    }
    assert_eq!(zoe.get("/c/berlin/vm-4").await.status(), StatusCode::NOT_FOUND);
    assert_ne!(zoe.get("/c/oslo/vm-3").await.status(), StatusCode::NOT_FOUND);
    let given = gateway
        .find_event(&["--resource", "gateway:policy"], |e| {
            e["reason"].as_str().is_some_and(|r| r.contains("was given"))
        })
        .await;
    let said = given["reason"].as_str().unwrap_or_default();
    assert!(said.contains("zoe") && said.contains("update of the vendor's software"), "{given}");
    gateway.clock.advance(time::Duration::days(14));
    let (_, told) = gateway.shell(&["grant", "list"]);
    assert_eq!(told.matches("console-user").count(), 12, "they are over, and still told: {told}");
    let mut later = Person::with_key(&gateway, "zoe", zoe.key());
    later.sign_in().await;
    assert_eq!(later.get("/c/oslo/vm-3").await.status(), StatusCode::NOT_FOUND);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_wrong_name_in_a_list_gives_nothing_at_all() {
    let gateway = TestGateway::start(&three_hypervisors()).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    ada.invite("zoe").await;
    let user = gateway.user_id("zoe").await;
    let on = format!("{}\noslo-9", pasted());
    let fields = [("user", &*user), ("role", "console-user"), ("on", &*on), ("hours", "1"), ("step_up_seconds", "300")];
    for path in ["/grants", "/grants/preview"] {
        let answer = ada.submit(path, &fields).await;
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY, "{path}");
        assert!(answer.text().await.expect("a page").contains("oslo-9: no machine has this name"), "{path}");
    }
    // A field that the form does not have is refused whole.
    let more = [&fields[..], &[("source", "setup")]].concat();
    assert_eq!(ada.submit("/grants", &more).await.status(), StatusCode::BAD_REQUEST);
    assert!(gateway.grants_of("zoe").await.is_empty());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_into_a_group_may_at_once_and_who_leaves_it_no_longer() {
    let gateway = TestGateway::start(&three_hypervisors()).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let zoe = ada.invite("zoe").await;
    let (user, own) = (gateway.user_id("zoe").await, gateway.user_id("ada").await);
    let made = location(&ada.submit("/groups", &[("name", "night shift"), ("words", "keeps it running")]).await);
    let id = made.strip_prefix("/groups/").expect("the page of the group").to_owned();
    let who = format!("group:{id}");
    let fields =
        [("user", &*who), ("role", "console-user"), ("on", "tag:vendor-x"), ("hours", "1"), ("step_up_seconds", "300")];
    assert_eq!(ada.submit("/grants", &fields).await.status(), StatusCode::SEE_OTHER);
    assert_eq!(zoe.get("/c/oslo/vm-3").await.status(), StatusCode::NOT_FOUND);
    let add = format!("{made}/add");
    assert_eq!(location(&ada.submit(&add, &[("user", &user)]).await), made);
    assert_ne!(zoe.get("/c/oslo/vm-3").await.status(), StatusCode::NOT_FOUND, "she is in it");
    // Nobody puts themselves in, and nobody gives a group that they are in.
    assert_eq!(ada.submit(&add, &[("user", &own)]).await.status(), StatusCode::CONFLICT);
    let (code, text) = gateway.shell(&["group", "join", "night shift", "ada"]);
    assert_eq!(code, Some(0), "{text}");
    let answer = ada.submit("/grants", &fields).await;
    assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer.text().await.expect("a page").contains("You are in this group"));
    let (code, text) = gateway.shell(&["group", "members", "night shift"]);
    assert!(code == Some(0) && text.contains("zoe") && text.contains("ada"), "{text}");
    assert!(ada.page("/groups").await.contains("night shift"));
    let forbidden = [("user", &*user), ("on", "hypervisor:oslo"), ("forbid", "on")];
    let forbidden = [&forbidden[..], &[("role", "console-user"), ("hours", "1"), ("step_up_seconds", "300")]].concat();
    assert_eq!(ada.submit("/grants", &forbidden).await.status(), StatusCode::SEE_OTHER);
    assert_eq!(zoe.get("/c/oslo/vm-3").await.status(), StatusCode::NOT_FOUND, "forbidden, whatever the group gives");
    assert_ne!(zoe.get("/c/paris/vm-3").await.status(), StatusCode::NOT_FOUND, "and nowhere else");
    assert_eq!(location(&ada.submit(&format!("{made}/remove"), &[("user", &user)]).await), made);
    assert_eq!(zoe.get("/c/paris/vm-3").await.status(), StatusCode::NOT_FOUND, "she is out of it");
    // A group that holds something is not removed.
    assert_eq!(ada.submit(&format!("{made}/delete"), &[]).await.status(), StatusCode::CONFLICT);
    // From the shell: several things at once, for a group, and forbidden for one who is in it.
    let (code, text) =
        gateway.shell(&["grant", "add", "group:night shift", "viewer", "hypervisor:oslo", "machine:paris/vm-5"]);
    assert_eq!((code, text.lines().count()), (Some(0), 2), "{text}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_says_what_people_did_that_they_could_no_longer_do() {
    let gateway = TestGateway::start(&three_hypervisors()).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let zoe = ada.invite("zoe").await;
    ada.grant("zoe", "console-user", "hypervisor", "oslo").await;
    zoe.step_up().await;
    assert_eq!(zoe.get("/c/oslo/vm-1").await.status(), StatusCode::OK);
    gateway.find_event(&["--resource", "oslo/vm-1", "--user", "zoe"], |e| e["outcome"] == "done").await;
    let user = gateway.user_id("zoe").await;
    let fields = [
        ("user", user.as_str()),
        ("role", "console-user"),
        ("on", "oslo-1"),
        ("hours", "24"),
        ("step_up_seconds", "300"),
        ("forbid", "on"),
    ];
    let answer = ada.submit("/grants/preview", &fields).await;
    let html = page::unescape(&answer.text().await.expect("a page"));
    assert!(html.contains("must not act as console-user on machine oslo/vm-1"), "{html}");
    assert!(
        html.contains("loses")
            && html.contains("</span> on <bdi>oslo/vm-1</bdi>: ")
            && html.contains("use its keyboard and mouse"),
        "{html}"
    );
    assert!(html.contains("refused"), "{html}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_taken_over_whole_told_in_the_trail_and_rolled_back() {
    let gateway = TestGateway::start(&three_hypervisors()).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let zoe = ada.invite("zoe").await;
    // A shell reads the machine's clock: what it gives must have begun by the gateway's.
    gateway.clock.advance(time::Duration::minutes(2));
    let folder = gateway.dir.path().join("policy");
    std::fs::create_dir_all(folder.join("tests")).expect("a folder");
    let path = folder.display().to_string();
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("written");
    write("grants.csv", "p, group:night, console-user, tag:vendor-x, , allow\ng, person:zoe, group:night\n");
    let test = |verdict: &str| {
        format!(
            "[[test]]\nwho = \"person:zoe\"\naction = \"console.view\"\non = \"oslo/vm-3\"\ntags = [\"vendor-x\"]\n\
             at = \"2026-12-01T10:00:00Z\"\nverdict = \"{verdict}\"\n"
        )
    };
    write("tests/night.toml", &test("deny"));
    let (code, text) = gateway.shell(&["policy", "apply", &path]);
    assert!(code == Some(1) && text.contains("permit, not deny"), "a test that does not hold: {text}");
    write("tests/night.toml", &test("permit"));
    let text = peers::program(&["policy", "check", &path]);
    assert!(text.contains("1 tests hold"), "{text}");
    let (code, text) = gateway.shell(&["policy", "diff", &path]);
    assert!(
        code == Some(0)
            && text.contains("zoe gains on berlin/vm-0, berlin/vm-1")
            && text.contains(": see it, watch its screen, use its keyboard and mouse"),
        "{text}"
    );
    assert_eq!(zoe.get("/c/oslo/vm-3").await.status(), StatusCode::NOT_FOUND, "nothing was done yet");
    let (code, text) = gateway.shell(&["policy", "apply", &path, "--why", "the night shift begins"]);
    assert!(code == Some(0) && text.contains("Version 1 is in effect"), "{text}");
    let hash = text.trim().rsplit(' ').next().expect("a hash").to_owned();
    let event = gateway.find_event(&["--kind", "policy"], |e| e["outcome"] == "pending").await;
    let said = event["reason"].as_str().unwrap_or_default();
    assert!(said.contains(&hash) && said.contains("the night shift begins"), "before it was done: {event}");
    ada.grant("zoe", "viewer", "machine", "paris/vm-5").await;
    assert_ne!(zoe.get("/c/oslo/vm-3").await.status(), StatusCode::NOT_FOUND);
    // What a file gives, no page takes back.
    let html = ada.page("/grants").await;
    assert!(html.contains("It comes from a file: change the file."), "{html}");
    // A wrong line changes nothing, and says where.
    write("more.csv", "# more\np, person:zoe, viewer, tag:own, , maybe\n");
    let (code, text) = gateway.shell(&["policy", "apply", &path]);
    assert!(code == Some(2) && text.contains("more.csv:2"), "{text}");
    write("more.csv", "p, person:zoe, console-user, hypervisor:oslo, , deny\n");
    write("tests/night.toml", &test("deny"));
    let (code, text) = gateway.shell(&["policy", "simulate", &path, "--days", "1"]);
    assert!(code.is_some_and(|c| c < 2) && text.contains(" in 1 day: "), "{text}");
    assert_eq!(gateway.shell(&["policy", "apply", &path]).0, Some(0));
    // A change on a page has this node look again at once.
    ada.grant("zoe", "viewer", "machine", "paris/vm-4").await;
    assert_eq!(zoe.get("/c/oslo/vm-3").await.status(), StatusCode::NOT_FOUND, "forbidden by the second version");
    let (code, text) = gateway.shell(&["policy", "rollback", "1"]);
    assert!(code == Some(0) && text.contains("Version 3 is in effect"), "{text}");
    let (code, text) = gateway.shell(&["policy", "history", "--json"]);
    assert!(code == Some(0) && text.lines().count() == 3 && text.contains("back to version 1"), "{text}");
    assert_eq!(gateway.shell(&["policy", "rollback", "9"]).0, Some(2));
    // What is exported is a set that is taken over again without a change of what people may do.
    let out = gateway.dir.path().join("out").display().to_string();
    assert_eq!(gateway.shell(&["policy", "export", &out]).0, Some(0));
    let text = peers::program(&["policy", "check", &out]);
    assert!(text.contains("good"), "{text}");
    let (_, text) = gateway.shell(&["policy", "diff", &out]);
    assert!(!text.contains("gains") && !text.contains("loses"), "{text}");
    gateway.stop().await;
}

// SEC-184
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_do_what_is_told_both_ways_with_its_last_use_and_as_a_table() {
    let gateway = TestGateway::start(&three_hypervisors()).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let zoe = ada.invite("+zoe").await;
    ada.grant("+zoe", "console-user", "tag", "vendor-x").await;
    let user = gateway.user_id("+zoe").await;
    let ask = async |query: &str| {
        let answer = ada.get(&format!("/access?{query}")).await;
        (answer.status(), page::unescape(&answer.text().await.expect("a page")))
    };
    let (status, html) = ask(&format!("user={user}")).await;
    assert_eq!(status, StatusCode::OK);
    assert!(html.contains("oslo/vm-3") && !html.contains("on=oslo%2Fvm-4"), "{html}");
    assert!(html.contains("console.control") && html.contains("never used"), "{html}");

    // What is forbidden counts, and who cannot come in may do nothing.
    let (_, html) = ask("on=oslo/vm-3").await;
    assert!(html.contains("+zoe") && html.contains("ada"), "{html}");
    let forbid = [
        ("user", &*user),
        ("role", "viewer"),
        ("on", "machine:oslo/vm-3"),
        ("forbid", "on"),
        ("hours", "1"),
        ("step_up_seconds", "300"),
    ];
    assert_eq!(ada.submit("/grants", &forbid).await.status(), StatusCode::SEE_OTHER);
    let (_, file) = ask("on=oslo/vm-3&as=csv").await;
    assert!(!file.contains("zoe\",\"oslo/vm-3\",\"view\""), "{file}");
    assert!(file.contains("zoe\",\"oslo/vm-3\",\"console.view\""), "only what the role allows was forbidden: {file}");

    // The table has a line for each action, its last use, and no formula.
    assert_eq!(zoe.get("/c/berlin/vm-0").await.status(), StatusCode::OK);
    let answer = ada.get(&format!("/access?user={user}&as=csv")).await;
    assert_eq!(answer.headers()["content-type"], "text/csv; charset=utf-8; header=present");
    let file = answer.text().await.expect("a table");
    assert!(file.lines().skip(1).all(|line| line.starts_with("\"'+zoe")), "{file}");
    gateway.shell(&["user", "disable", "+zoe"]);
    gateway.clock.advance(time::Duration::seconds(2));
    let (_, html) = ask(&format!("user={user}")).await;
    assert!(html.contains("Nothing."), "{html}");

    for (query, field) in [
        ("user=x", "There is no such person."),
        ("on=oslo/vm-99", "There is no such machine"),
        ("on=nowhere", "There is no such machine"),
        ("on=%2F", "There is no such machine"),
    ] {
        let (status, html) = ask(query).await;
        assert!(status == StatusCode::UNPROCESSABLE_ENTITY && html.contains(field), "{query}: {status} {html}");
    }
    assert_eq!(ask("other=1").await.0, StatusCode::BAD_REQUEST);
    gateway.stop().await;
}
