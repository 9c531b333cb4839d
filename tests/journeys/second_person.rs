// SPDX-License-Identifier: Apache-2.0
//! Changes of rights that take two people: proposed by one, made by another, and by nobody whom they would favour.

use crate::support::{Person, TestGateway, page, person::location};
use reqwest::StatusCode;

const LAB: &str = "[[requests.rule]]\nname = \"night\"\nauto_approve = \"on-call\"\n[policy.four_eyes]\non = [\"tag:prod\"]\nrights = [\"hypervisor/access-admin\"]\nhours = 1\n\
                   [[hypervisors]]\nname = \"lab\"\nkind = \"qemu\"\n\
                   [[hypervisors.guests]]\nid = \"vm-1\"\ntags = [\"prod\"]\nvnc = \"127.0.0.1:9\"\n\
                   [[hypervisors.guests]]\nid = \"vm-2\"\ntags = [\"test\"]\nvnc = \"127.0.0.1:9\"\n";

/// Says a grant on the page; where that leads, and what it says when it leads nowhere.
async fn say(by: &Person<'_>, user: &str, role: &str, on: &str, more: &[(&str, &str)]) -> String {
    let fields = [("user", user), ("role", role), ("on", on), ("hours", "24"), ("step_up_seconds", "300")];
    by.step_up().await;
    let answer = by.submit("/grants", &[&fields, more].concat()).await;
    let to = location(&answer);
    if to.is_empty() { answer.text().await.expect("a page") } else { to }
}

/// Makes somebody a second security lead: a shell proposes it, the first one approves.
async fn second_lead(gateway: &TestGateway, ada: &Person<'_>, name: &str) {
    let (code, text) = gateway.shell(&["grant", "add", name, "security-lead", "everything", "--json"]);
    assert_eq!(code, Some(1), "{text}");
    let told: serde_json::Value = serde_json::from_str(text.trim()).expect("JSON");
    let (status, text) = approve(ada, &format!("/proposals/{}", told["proposal"].as_str().expect("an id"))).await;
    assert_eq!(status, StatusCode::SEE_OTHER, "{text}");
}

/// What somebody sees that a change would do; nothing where they cannot approve it.
async fn look(by: &Person<'_>, proposal: &str) -> String {
    page::field(&by.page(proposal).await, "seen").unwrap_or_default()
}

/// Approves what was seen.
async fn approve_as(by: &Person<'_>, proposal: &str, seen: &str) -> (StatusCode, String) {
    let answer = by.submit(&format!("{proposal}/approve"), &[("reason", "agreed"), ("seen", seen)]).await;
    (answer.status(), page::unescape(&answer.text().await.expect("an answer")))
}

/// Looks, and approves, after a fresh factor.
async fn approve(by: &Person<'_>, proposal: &str) -> (StatusCode, String) {
    by.step_up().await;
    approve_as(by, proposal, &look(by, proposal).await).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_on_what_is_named_waits_for_somebody_else_and_favours_nobody_who_decides() {
    let gateway = TestGateway::start(LAB).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let (zoe, bob, kim) = (ada.invite("zoe").await, ada.invite("bob").await, ada.invite("kim").await);
    for name in ["bob", "kim"] {
        second_lead(&gateway, &ada, name).await;
    }
    let user = gateway.user_id("zoe").await;
    // What is not named is given at once.
    assert_eq!(say(&ada, &user, "viewer", "lab/vm-2", &[]).await, "/grants");
    assert_eq!(gateway.grants_of("zoe").await.len(), 1);

    let proposal = say(&ada, &user, "viewer", "lab/vm-1", &[("note", "the night shift")]).await;
    assert!(proposal.starts_with("/proposals/"), "{proposal}");
    assert_eq!(gateway.grants_of("zoe").await.len(), 1, "nothing was changed yet");
    assert_eq!(zoe.get("/c/lab/vm-1").await.status(), StatusCode::NOT_FOUND);
    let id = proposal.trim_start_matches("/proposals/");
    let noted =
        |words: &'static str| move |e: &serde_json::Value| e["reason"].as_str().is_some_and(|r| r.contains(words));
    gateway.find_event(&["--kind", "intent"], noted("is to be proposed to a second person")).await;

    // The page says what it would do; whoever proposed it cannot approve it, however fresh.
    let html = page::unescape(&bob.page(&proposal).await);
    assert!(
        html.contains("<bdi>zoe</bdi> <span class=\"badge good\">gains</span> on <bdi>lab/vm-1</bdi>: see it"),
        "{html}"
    );
    assert!(html.contains("the night shift") && html.contains("Approve and make it"), "{html}");
    assert!(bob.page("/me").await.contains("wait for your decision"));
    assert!(!ada.page("/me").await.contains("wait for your decision"));
    let html = page::unescape(&ada.page(&proposal).await);
    assert!(html.contains("You proposed it: somebody else must approve it.") && !html.contains("Approve and make it"));
    let (status, text) = approve(&ada, &proposal).await;
    assert!(status == StatusCode::FORBIDDEN && text.contains("You proposed it"), "{status} {text}");
    assert_eq!(zoe.get(&proposal).await.status(), StatusCode::FORBIDDEN, "she may not read the policy");
    // Only with a fresh factor, and the passkey of whoever has one.
    gateway.clock.advance(time::Duration::minutes(6));
    let stale = bob.submit(&format!("{proposal}/approve"), &[]).await;
    assert!(stale.text().await.expect("a page").contains("Confirm that it is you"));
    kim.step_up().await;
    let mut key = kim.add_passkey().await;
    gateway.clock.advance(time::Duration::minutes(6));
    let (_, text) = approve(&kim, &proposal).await;
    assert!(text.contains("Confirm that it is you"), "a code is not enough for her: {text}");
    let answer = kim.answer_of(&mut key, "/api/v1/passkeys/step-up").await;
    kim.submit("/step-up", &[("code", &answer), ("next", "/me")]).await;
    let (status, text) = approve_as(&kim, &proposal, &look(&kim, &proposal).await).await;
    assert_eq!(status, StatusCode::SEE_OTHER, "{text}");
    assert_eq!(gateway.grants_of("zoe").await.len(), 2);
    assert_eq!(zoe.get("/c/lab/vm-1").await.status(), StatusCode::FORBIDDEN, "she sees it at once");
    let html = page::unescape(&ada.page(&proposal).await);
    assert!(html.contains("done") && html.contains("<bdi>kim</bdi>") && html.contains("agreed"), "{html}");
    gateway.find_event(&["--resource", id, "--kind", "intent"], noted("is to be approved and made")).await;
    // Once.
    let (status, text) = approve(&bob, &proposal).await;
    assert!(status == StatusCode::CONFLICT && text.contains("does not wait any more"), "{status} {text}");
    assert_eq!(gateway.grants_of("zoe").await.len(), 2);

    // Nobody approves what gives something to themselves: by name, or through a group.
    let own = say(&ada, &gateway.user_id("bob").await, "administrator", "lab/vm-2", &[]).await;
    let (status, text) = approve(&bob, &own).await;
    assert!(status == StatusCode::FORBIDDEN && text.contains("It would give something to yourself"), "{status} {text}");
    assert!(ada.page("/requests").await.contains("Changes of rights that take two people"));
    let list: serde_json::Value = bob.get("/api/v1/proposals").await.json().await.expect("JSON");
    assert_eq!(
        (&list["proposals"][0]["state"], &list["proposals"][0]["decide"]),
        (&"waiting".into(), &false.into()),
        "{list}"
    );
    // Two at once make it once.
    let both = say(&ada, &user, "operator", "lab/vm-1", &[]).await;
    bob.step_up().await;
    let before = gateway.grants_of("zoe").await.len();
    let seen = look(&bob, &both).await;
    let (path, fields) = (format!("{both}/approve"), [("reason", "both"), ("seen", &*seen)]);
    let answers = tokio::join!(bob.submit(&path, &fields), bob.submit(&path, &fields));
    let mut statuses = [answers.0.status(), answers.1.status()];
    statuses.sort();
    assert_eq!(statuses, [StatusCode::SEE_OTHER, StatusCode::CONFLICT]);
    assert_eq!(gateway.grants_of("zoe").await.len(), before + 1);
    // Taking one's own back, refusing another's.
    ada.step_up().await;
    assert_eq!(location(&ada.submit(&format!("{own}/refuse"), &[]).await), own);
    assert!(ada.page(&own).await.contains("withdrawn"));
    let other = say(&ada, &user, "operator", "tag:prod", &[]).await;
    bob.step_up().await;
    assert_eq!(location(&bob.submit(&format!("{other}/refuse"), &[("reason", "why?")]).await), other);
    let html = ada.page(&other).await;
    assert!(html.contains("refused") && html.contains("why?"), "{html}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_longer_possible_is_said_and_what_nobody_decides_expires() {
    let gateway = TestGateway::start(LAB).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let (_, bob, kim) = (ada.invite("zoe").await, ada.invite("bob").await, ada.invite("kim").await);
    second_lead(&gateway, &ada, "bob").await;
    let user = gateway.user_id("zoe").await;
    let proposal = say(&ada, &user, "viewer", "lab/vm-1", &[]).await;
    let (code, text) = gateway.shell(&["user", "disable", "zoe"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        page::unescape(&bob.page(&proposal).await)
            .contains("As things are, it cannot be made: There is no such person")
    );
    let (status, _) = approve(&bob, &proposal).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    let html = page::unescape(&bob.page(&proposal).await);
    assert!(
        html.contains("no longer possible") && html.contains("It can no longer be made: There is no such person"),
        "{html}"
    );
    assert!(gateway.grants_of("zoe").await.is_empty());
    gateway.shell(&["user", "enable", "zoe"]);

    // Who lost the right to change the policy has nothing made any more.
    let mine = say(&bob, &user, "viewer", "lab/vm-1", &[]).await;
    ada.step_up().await;
    ada.revoke_grants("bob").await;
    let (status, _) = approve(&ada, &mine).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    assert!(page::unescape(&ada.page(&mine).await).contains("whoever proposed it may not change this any more"));
    assert!(gateway.grants_of("zoe").await.is_empty());

    // What would only take away never waits; what takes back something that forbids does, and so does a group.
    let forbids = [("forbid", "on")];
    assert_eq!(say(&ada, &user, "operator", "tag:prod", &forbids).await, "/grants");
    let [grant] = gateway.grants_of("zoe").await.try_into().expect("one");
    ada.step_up().await;
    let waits = location(&ada.submit("/grants/revoke", &[("grant", &grant)]).await);
    assert!(waits.starts_with("/proposals/"), "{waits}");
    assert_eq!(gateway.grants_of("zoe").await.len(), 1);
    let group = location(&ada.submit("/groups", &[("name", "night")]).await);
    let who = format!("group:{}", group.trim_start_matches("/groups/"));
    // The shell's files give the group its right; joining it waits then.
    let given = say(&ada, &who, "operator", "lab/vm-1", &[]).await;
    assert!(given.starts_with("/proposals/"), "{given}");

    // No rule that approves by itself stands in for the second person.
    let (code, text) = gateway.shell(&["group", "add", "on-call"]);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = gateway.shell(&["group", "join", "on-call", "kim"]);
    assert_eq!(code, Some(0), "{text}");
    for (on, state) in [("machine:lab/vm-2", "active"), ("machine:lab/vm-1", "asked")] {
        let wish = [("role", "viewer"), ("on", on), ("reason", "a call at night"), ("hours", "1")];
        let asked = location(&kim.submit("/requests", &wish).await);
        let html = kim.page(&asked).await;
        assert!(
            html.contains(&format!(">{state}</span>")) || html.contains(&format!("{state}</span>")),
            "{on}: {html}"
        );
    }

    // The shell waits, too, and says for whom.
    let (code, text) = gateway.shell(&["grant", "add", "zoe", "viewer", "machine:lab/vm-1"]);
    assert!(
        code == Some(1) && text.contains("this waits for a second person") && text.contains("/proposals/"),
        "{text}"
    );
    let (code, text) = gateway.shell(&["grant", "add", "zoe", "administrator", "machine:lab/vm-2"]);
    assert!(code == Some(1) && text.contains("administrator holds hypervisor/access-admin"), "{text}");
    let (code, text) = gateway.shell(&["grant", "add", "zoe", "viewer", "machine:lab/vm-2"]);
    assert_eq!(code, Some(0), "{text}");
    let file = gateway.dir.path().join("rows.csv");
    std::fs::write(&file, "p, person:zoe, operator, everything, , allow\n").expect("written");
    let (code, text) = gateway.shell(&["policy", "apply", &file.display().to_string()]);
    assert!(code == Some(1) && text.contains("operator on everything reaches tag prod"), "{text}");
    // Files whose roles come to hold what is named wait as well.
    let roles = "g2, machine/view, viewer\ng2, hypervisor/access-admin, viewer\ng2, gateway:policy/write, security-lead\n\
                 g2, gateway:users/write, administrator\n";
    std::fs::write(&file, roles).expect("written");
    let (code, text) = gateway.shell(&["policy", "apply", &file.display().to_string()]);
    assert!(code == Some(1) && text.contains("viewer holds hypervisor/access-admin"), "{text}");

    gateway.clock.advance(time::Duration::minutes(61));
    let id = given.trim_start_matches("/proposals/");
    gateway
        .find_event(&["--kind", "proposal", "--resource", id], |e| e["reason"] == "nobody decided on it in time")
        .await;
    let mut later = Person::with_key(&gateway, "ada", ada.key());
    later.sign_in().await;
    assert!(later.page(&given).await.contains("expired"));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_and_joining_a_group_are_carried_out_by_whoever_approves() {
    let gateway = TestGateway::start(LAB).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let zoe = ada.invite("zoe").await;
    let user = gateway.user_id("zoe").await;
    gateway.clock.advance(time::Duration::minutes(2));
    let file = gateway.dir.path().join("rows.csv");
    std::fs::write(&file, "p, group:night, operator, tag:prod, , allow\n").expect("written");
    let propose = || {
        let (code, text) =
            gateway.shell(&["policy", "apply", &file.display().to_string(), "--why", "nights", "--json"]);
        assert_eq!(code, Some(1), "{text}");
        let told: serde_json::Value = serde_json::from_str(text.trim()).expect("JSON");
        format!("/proposals/{}", told["proposal"].as_str().expect("an id"))
    };
    // Nobody is in the group yet: a directory could fill it.
    let (status, text) = approve(&ada, &propose()).await;
    assert_eq!(status, StatusCode::SEE_OTHER, "{text}");
    let groups = ada.page("/groups").await;
    let at = groups.find("/groups/0").expect("the group of the files");
    let group = groups[at..].split('"').next().expect("its end").to_owned();
    ada.step_up().await;
    let waits = location(&ada.submit(&format!("{group}/add"), &[("user", &user)]).await);
    assert!(waits.starts_with("/proposals/"), "{waits}");
    assert_eq!(zoe.get("/c/lab/vm-1").await.status(), StatusCode::NOT_FOUND);
    // By a shell the one administrator is the second person.
    std::fs::write(&file, "p, group:night, operator, tag:prod, , allow\ng, person:zoe, group:night\n")
        .expect("written");
    let proposal = propose();
    let html = page::unescape(&ada.page(&proposal).await);
    assert!(
        html.contains("a shell on the gateway") && html.contains("<bdi>zoe</bdi>") && html.contains("nights"),
        "{html}"
    );
    let (status, text) = approve(&ada, &proposal).await;
    assert_eq!(status, StatusCode::SEE_OTHER, "{text}");
    assert_ne!(zoe.get("/c/lab/vm-1").await.status(), StatusCode::NOT_FOUND);
    assert!(ada.page("/policy/history").await.contains("Version 2"));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_comes_into_a_group_meanwhile_is_seen_before_it_is_approved() {
    let gateway = TestGateway::start(LAB).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let (_, zoe, bob) = (ada.invite("kim").await, ada.invite("zoe").await, ada.invite("bob").await);
    second_lead(&gateway, &ada, "bob").await;
    ada.step_up().await;
    let group = location(&ada.submit("/groups", &[("name", "night")]).await);
    let who = format!("group:{}", group.trim_start_matches("/groups/"));
    let (code, text) = gateway.shell(&["group", "join", "night", "kim"]);
    assert_eq!(code, Some(0), "{text}");
    let proposal = say(&ada, &who, "operator", "tag:prod", &[]).await;
    bob.step_up().await;
    assert!(page::unescape(&bob.page(&proposal).await).contains("(in the group now: "), "its members are named");
    let seen = look(&bob, &proposal).await;
    assert_eq!(seen.len(), 64);
    let (code, text) = gateway.shell(&["group", "join", "night", "zoe"]);
    assert_eq!(code, Some(0), "the group holds nothing yet: {text}");
    for stale in [&*seen, "", &"0".repeat(64)] {
        let (status, _) = approve_as(&bob, &proposal, stale).await;
        assert_eq!(status, StatusCode::SEE_OTHER);
        assert!(page::unescape(&bob.page(&proposal).await).contains("It would do something else by now"), "{stale}");
    }
    assert_eq!(zoe.get("/c/lab/vm-1").await.status(), StatusCode::NOT_FOUND, "nothing was made");
    let html = page::unescape(&bob.page(&proposal).await);
    assert!(html.contains("zoe") && html.contains("waiting"), "{html}");
    let (status, text) = approve(&bob, &proposal).await;
    assert_eq!(status, StatusCode::SEE_OTHER, "{text}");
    assert_ne!(zoe.get("/c/lab/vm-1").await.status(), StatusCode::NOT_FOUND);
    // A tag can be put on what is named: a grant on any tag waits.
    let user = gateway.user_id("zoe").await;
    let other = say(&ada, &user, "viewer", "tag:nobody-has-it", &[]).await;
    assert!(other.starts_with("/proposals/"), "{other}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shell_is_no_second_person_for_what_somebody_asks_for() {
    let gateway = TestGateway::start(LAB).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let zoe = ada.invite("zoe").await;
    for on in ["tag:prod", "machine:lab/vm-1", "everything"] {
        let wish = [("role", "viewer"), ("on", on), ("reason", "to look at it"), ("hours", "1")];
        let asked = location(&zoe.submit("/requests", &wish).await);
        let id = asked.trim_start_matches("/requests/");
        let (code, text) = gateway.shell(&["request", "approve", id, "--reason", "by telephone"]);
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains("a second person"), "{text}");
        assert_eq!(zoe.submit(&format!("{asked}/begin"), &[]).await.status(), StatusCode::CONFLICT);
    }
    assert!(gateway.grants_of("zoe").await.is_empty());
    gateway.stop().await;
}
