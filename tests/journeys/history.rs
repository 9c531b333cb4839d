// SPDX-License-Identifier: Apache-2.0
//! How the policy came to be what it is, on pages: versions with what each changed, going back, rows that are tried.

use crate::support::{Person, TestGateway, gateway::sql, page, person::location};
use portcullis_domain::Clock as _;
use reqwest::StatusCode;

const LAB: &str = "[[hypervisors]]\nname = \"lab\"\nkind = \"qemu\"\n[[hypervisors.guests]]\nid = \"vm-1\"\n\
                   name = \"web\"\ntags = [\"web\"]\nvnc = \"127.0.0.1:9\"\n";

/// Takes rows over by the shell.
fn apply(gateway: &TestGateway, rows: &str, why: &str) {
    let folder = gateway.dir.path().join("policy");
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("grants.csv"), rows).expect("written");
    let (code, text) = gateway.shell(&["policy", "apply", &folder.display().to_string(), "--why", why]);
    assert_eq!(code, Some(0), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_version_says_who_gained_and_lost_what_and_an_older_one_is_taken_over_again() {
    let gateway = TestGateway::start(LAB).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let (zoe, bob) = (ada.invite("zoe").await, ada.invite("bob").await);
    ada.grant("bob", "security-lead", "everything", "").await;
    // A shell reads the machine's clock: what it gives must have begun by the gateway's.
    gateway.clock.advance(time::Duration::minutes(2));
    assert!(ada.page("/policy/history").await.contains("No files were taken over."));
    apply(
        &gateway,
        "p, group:night, console-user, tag:web, , allow\ng, person:zoe, group:night\n\
         p, person:bob, viewer, tag:web, , allow\n",
        "the night shift begins",
    );
    apply(&gateway, "p, person:zoe, viewer, tag:web, , allow\n", "and ends");
    let (code, text) = gateway.shell(&["grant", "add", "zoe", "viewer", "hypervisor:lab"]);
    assert_eq!(code, Some(0), "{text}");
    ada.step_up().await;

    let mut html = String::new();
    for _ in 0..50 {
        html = page::unescape(&ada.page("/policy/history").await);
        if html.contains("viewer is given to zoe on hypervisor lab") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(html.contains("viewer is given to zoe on hypervisor lab"), "by a shell: {html}");
    assert!(html.contains("security-lead on everything") && html.contains("a shell on the gateway"), "{html}");
    assert!(html.find("Version 2").expect("newest") < html.find("Version 1").expect("older"), "{html}");
    assert!(html.contains("the night shift begins") && html.contains("and ends"), "{html}");
    // What it is filled with is what is in effect.
    assert!(html.contains("p, person:zoe, viewer, tag:web, , allow"), "{html}");

    let html = page::unescape(&ada.page("/policy/history/2").await);
    assert!(
        html.contains(
            "<bdi>zoe</bdi> <span class=\"badge bad\">loses</span> on <bdi>lab/vm-1</bdi>: watch its screen, use its"
        ),
        "{html}"
    );
    assert!(
        html.contains("<bdi>bob</bdi> <span class=\"badge bad\">loses</span> on <bdi>lab/vm-1</bdi>: see it"),
        "{html}"
    );
    assert!(html.contains("<bdi>p, group:night, console-user, tag:web, , allow</bdi>"), "rows that went: {html}");
    assert!(!html.contains("Take it over again"), "it is in effect");
    let mut status = StatusCode::OK;
    for _ in 0..50 {
        status = zoe.get("/c/lab/vm-1").await.status();
        if status == StatusCode::FORBIDDEN {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(status, StatusCode::FORBIDDEN, "a viewer");

    // Going back says beforehand what it would do, and nobody goes back to what gives them something.
    let html = page::unescape(&ada.page("/policy/history/1").await);
    assert!(
        html.contains("Take it over again") && html.contains("<bdi>zoe</bdi> <span class=\"badge good\">gains</span>")
    );
    let refused = bob.submit("/policy/history/1/rollback", &[("why", "mine")]).await;
    assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused.text().await.expect("a page").contains("This would give something to yourself"));
    assert_eq!(ada.submit("/policy/history/9/rollback", &[]).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(ada.submit("/policy/history/1/rollback", &[("force", "1")]).await.status(), StatusCode::BAD_REQUEST);
    gateway.clock.advance(time::Duration::minutes(6));
    let stale = ada.submit("/policy/history/1/rollback", &[("why", "the shift goes on")]).await;
    assert!(stale.text().await.expect("a page").contains("Confirm that it is you"));
    ada.step_up().await;
    let done = ada.submit("/policy/history/1/rollback", &[("why", "the shift goes on")]).await;
    assert_eq!(location(&done), "/policy/history", "{}", done.text().await.unwrap_or_default());
    assert!(ada.page("/policy/history").await.contains("Version 3"));
    let is_it = |e: &serde_json::Value| e["reason"].as_str().is_some_and(|r| r.contains("goes on"));
    let event = gateway.find_event(&["--kind", "intent"], is_it).await;
    assert!(event["on"] == "policy" && event["reason"].as_str().is_some_and(|r| r.contains("SHA-256")), "{event}");
    assert_ne!(zoe.get("/c/lab/vm-1").await.status(), StatusCode::NOT_FOUND);
    zoe.step_up().await;
    assert_eq!(zoe.get("/c/lab/vm-1").await.status(), StatusCode::OK, "she is of the night shift again");

    // A version that somebody wrote into the database is neither shown as what it was nor taken over.
    sql(
        &gateway.dir.path().join("portcullis.db"),
        "update policy_versions set files = '{\"x.csv\":\"\"}' where number = 2",
    );
    for answer in [ada.get("/policy/history/2").await, ada.submit("/policy/history/2/rollback", &[]).await] {
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
        assert!(answer.text().await.expect("a page").contains("version 2 cannot be read: it was changed"));
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_tried_without_being_taken_over() {
    let gateway = TestGateway::start(LAB).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let (zoe, _) = (ada.invite("zoe").await, ada.invite("kim").await);
    ada.grant("zoe", "viewer", "tag", "web").await;
    assert_eq!(zoe.get("/c/lab/vm-1").await.status(), StatusCode::FORBIDDEN);
    let tried = async |rows: &str| {
        let answer = ada.submit("/policy/try", &[("rows", rows)]).await;
        (answer.status(), page::unescape(&answer.text().await.expect("a page")))
    };
    // Several grants at once, with what people asked that would be decided otherwise.
    let mut html = String::new();
    for _ in 0..50 {
        let rows =
            "p, person:zoe, machine/console.view, tag:web, , allow\r\np, person:kim, operator, tag:web, , allow\n";
        let (status, told) = tried(rows).await;
        assert_eq!(status, StatusCode::OK, "{told}");
        html = told;
        if html.contains("let through") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(
        html.contains(
            "<bdi>zoe</bdi> <span class=\"badge good\">gains</span> on <bdi>lab/vm-1</bdi>: watch its screen"
        ),
        "{html}"
    );
    assert!(html.contains("<bdi>kim</bdi> <span class=\"badge good\">gains</span>"), "{html}");
    assert!(html.contains("lab/vm-1: watch its screen</bdi>, let through"), "{html}");
    for (rows, says) in [
        ("p, person:zoe, viewer, tag:web, , maybe", "rows.csv:1"),
        ("p, person:nobody, viewer, tag:web, , allow", "there is no person called nobody"),
        ("p, person:zoe, nobody, tag:web, , allow", "there is no role nobody"),
        ("# nothing", "empty"),
        (&"x".repeat(40_001), "At most 40000 bytes"),
    ] {
        let (status, told) = tried(rows).await;
        assert!(status == StatusCode::UNPROCESSABLE_ENTITY && told.contains(says), "{says}: {status} {told}");
    }
    assert_eq!(gateway.grants_of("zoe").await.len(), 1);
    assert!(gateway.grants_of("kim").await.is_empty(), "nothing was changed");
    assert!(ada.page("/policy/history").await.contains("No files were taken over."));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_cannot_be_read_shuts_its_holder_and_alarms_in_the_trail_once() {
    let gateway = TestGateway::start(LAB).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let zoe = ada.invite("zoe").await;
    ada.grant("zoe", "viewer", "tag", "web").await;
    assert_eq!(zoe.get("/c/lab/vm-1").await.status(), StatusCode::FORBIDDEN);
    let database = gateway.dir.path().join("portcullis.db");
    let user = gateway.user_id("zoe").await;
    sql(&database, &format!("update grants set conditions = '{{', version = version + 1000 where user_id = '{user}'"));
    sql(&database, "update epoch set value = value + 1000");
    let unread = |e: &serde_json::Value| {
        e["reason"].as_str().is_some_and(|r| r.starts_with("a grant or a group cannot be read: whoever depends on it"))
    };
    gateway.find_event(&["--kind", "alarm"], unread).await;
    assert_eq!(zoe.get("/c/lab/vm-1").await.status(), StatusCode::NOT_FOUND, "she holds something unreadable");
    assert_eq!(ada.get("/c/lab/vm-1").await.status(), StatusCode::OK, "ada does not");
    sql(&database, "update epoch set value = value + 1");
    tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
    assert_eq!(gateway.search(&["--kind", "alarm"]).iter().filter(|e| unread(e)).count(), 1);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_operations_are_read_and_asked_again_within_five_seconds() {
    let gateway = TestGateway::start(LAB).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    ada.invite("zoe").await;
    ada.grant("zoe", "console-user", "tag", "web").await;
    let (user, now) = (gateway.user_id("zoe").await, portcullis_domain::micros(gateway.clock.now()));
    sql(
        &gateway.dir.path().join("portcullis.db"),
        &format!(
            "with recursive n(i) as (select 1 union all select i + 1 from n where i < 100000) \
             insert into trail_events (node, seq, at, request, phase, kind, user_id, user_name, action, resource, outcome, \
             reason, segment, position) select '{}', i, {now} - i * 1000000, '{}', 'opened', 'console', '{user}', 'zoe', \
             case i % 2 when 0 then 'console.view' else 'view' end, 'lab/vm-1', 'pending', '', 1, i from n",
            "f".repeat(32),
            "e".repeat(32)
        ),
    );
    let file = gateway.dir.path().join("rows.csv");
    std::fs::write(&file, "p, person:zoe, machine/console.view, tag:web, , deny\n").expect("written");
    let began = std::time::Instant::now();
    let (code, text) = gateway.shell(&["policy", "simulate", &file.display().to_string(), "--days", "30"]);
    let took = began.elapsed();
    let last = text.lines().last().unwrap_or_default();
    assert_eq!(code, Some(1), "{last}");
    assert!(last.contains("in 30 days: 50000 would be decided otherwise"), "{last}");
    assert!(took < std::time::Duration::from_secs(5), "{took:?}");
    gateway.stop().await;
}
