// SPDX-License-Identifier: Apache-2.0
//! Managing people: nobody climbs by it, and what is taken away is gone within seconds.

use crate::support::{Person, TestGateway, page, person::location};
use reqwest::StatusCode;

async fn id_of(ada: &Person<'_>, name: &str) -> String {
    ada.gateway.user_id(name).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_administrator_cannot_reset_or_disable_a_security_lead() {
    let gateway = TestGateway::start("").await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let bob = ada.invite("bob").await;
    ada.invite("zoe").await;
    ada.grant("bob", "administrator", "everything", "").await;
    ada.grant("zoe", "security-lead", "everything", "").await;
    let zoe = id_of(&ada, "zoe").await;
    for deed in ["reset", "disable"] {
        let answer = bob.submit(&format!("/users/{zoe}/{deed}"), &[]).await;
        assert_eq!(answer.status(), StatusCode::CONFLICT, "{deed}");
    }
    // Nor himself, nor may he give roles.
    let own = id_of(&ada, "bob").await;
    assert_eq!(bob.submit(&format!("/users/{own}/reset"), &[]).await.status(), StatusCode::CONFLICT);
    let fields = [
        ("user", own.as_str()),
        ("role", "security-lead"),
        ("on", "everything"),
        ("hours", ""),
        ("step_up_seconds", "300"),
    ];
    assert_eq!(bob.submit("/grants", &fields).await.status(), StatusCode::FORBIDDEN);
    let answer = ada
        .submit(
            "/grants",
            &[
                ("user", &id_of(&ada, "ada").await),
                ("role", "auditor"),
                ("on", "everything"),
                ("hours", "1"),
                ("step_up_seconds", "300"),
            ],
        )
        .await;
    assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY, "nobody gives themselves a role");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disabled_person_is_out_at_once_and_tokens_with_them() {
    let gateway = TestGateway::start("").await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let bob = ada.invite("bob").await;
    let fields = [("name", "tool"), ("hypervisor", ""), ("days", "1")];
    assert_eq!(bob.submit("/me/tokens", &fields).await.status(), StatusCode::OK);
    assert_eq!(gateway.count_tokens("bob").await, 1);
    let id = id_of(&ada, "bob").await;
    let answer = ada.submit(&format!("/users/{id}/disable"), &[]).await;
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    assert!(location(&bob.get("/me").await).starts_with("/sign-in"));
    let mut again = Person::stranger(&gateway, "bob");
    let fields = [("name", "bob"), ("password", crate::support::person::PASSWORD), ("next", "/")];
    assert_eq!(again.post("/sign-in", &fields).await.status(), StatusCode::UNPROCESSABLE_ENTITY);
    // Enabled again, and reset: the old password is gone, a new link leads through enrolment.
    assert_eq!(ada.submit(&format!("/users/{id}/enable"), &[]).await.status(), StatusCode::SEE_OTHER);
    assert_eq!(gateway.count_tokens("bob").await, 0, "enabling revives no token");
    let answer = ada.submit(&format!("/users/{id}/reset"), &[]).await;
    let html = answer.text().await.expect("a page");
    let at = html.find(&format!("{}/invitation#", gateway.url())).expect("a one-time link is shown");
    let link: String = html[at..].chars().take_while(|c| !matches!(c, '"' | '<' | ' ')).collect();
    assert_eq!(again.post("/sign-in", &fields).await.status(), StatusCode::UNPROCESSABLE_ENTITY);
    again.redeem(&page::unescape(&link)).await;
    assert_eq!(again.get("/me").await.status(), StatusCode::OK);
    gateway.stop().await;
}

// SEC-080
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_people_and_machines_are_called_stays_text() {
    let hostile = "<script>alert(1)</script>";
    let lab = format!(
        "[[hypervisors]]\nname = \"lab\"\nkind = \"qemu\"\n[[hypervisors.guests]]\nid = \"web-1\"\nname = {hostile:?}\n\
         tags = [{hostile:?}]\nvnc = \"127.0.0.1:9\"\n"
    );
    let gateway = TestGateway::start(&lab).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    ada.submit("/users", &[("name", "mallory"), ("display_name", hostile)]).await;
    for path in [
        "/",
        "/?q=%3Cscript%3Ealert(1)%3C%2Fscript%3E",
        "/users",
        "/grants",
        "/c/lab/web-1",
        "/trail?who=%3Cscript%3E",
        "/sign-in?next=%2F%2Fevil",
    ] {
        let html = ada.get(path).await.text().await.expect("a page");
        assert!(!html.contains(hostile) && !html.contains("//evil"), "{path}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shell_leaves_somebody_who_can_run_the_gateway_and_every_try_in_the_trail() {
    let gateway = TestGateway::start("").await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let (code, text) = gateway.shell(&["user", "disable", "ada"]);
    assert!(code == Some(2) && text.contains("last one who can"), "{text}");
    // Of her two grants, in whatever order, the one that gives roles stays.
    let tried: Vec<_> = gateway.grants_of("ada").await.iter().map(|g| gateway.shell(&["grant", "revoke", g])).collect();
    let refused: Vec<_> = tried.iter().filter(|t| t.0 == Some(2)).collect();
    assert!(refused.len() == 1 && refused[0].1.contains("last one who can"), "{tried:?}");
    assert_eq!(gateway.grants_of("ada").await.len(), 1);
    let tried = gateway.find_event(&["--kind", "user", "--resource", "ada"], |e| e["outcome"] == "failed").await;
    assert!(tried["reason"].as_str().is_some_and(|r| r.contains("last one who can")), "{tried}");
    let (code, text) = gateway.shell(&["grant", "add", "ada", "emperor", "everything"]);
    assert!(code == Some(2) && text.contains("emperor"), "{text}");
    // A lost phone is no end: the shell gives a way back in, also to the last one.
    let (code, link) = gateway.shell(&["user", "reset", "ada"]);
    assert_eq!(code, Some(0), "{link}");
    let mut again = Person::stranger(&gateway, "ada");
    again.redeem(link.trim()).await;
    assert_eq!(again.get("/grants").await.status(), StatusCode::OK);
    assert_ne!(ada.get("/me").await.status(), StatusCode::OK, "what was open before has ended");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shell_says_who_may_do_what_and_why() {
    let gateway = TestGateway::start("").await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    ada.invite("bob").await;
    let (code, text) = gateway.shell(&["policy", "explain", "ada", "write", "gateway:users"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.starts_with("permit: ") && text.contains("roles that count: administrator"), "{text}");
    let (code, text) = gateway.shell(&["policy", "explain", "bob", "write", "gateway:users", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((code, told["decision"].as_str()), (Some(1), Some("deny")), "{told}");
    let (code, text) = gateway.shell(&["policy", "explain", "bob", "console.control", "lab/web-1"]);
    assert_eq!(code, Some(1), "{text}");
    let (code, text) = gateway.shell(&["policy", "explain", "eve", "read", "gateway:audit"]);
    assert!(code == Some(2) && text.contains("no such person"), "{text}");
    let (code, text) = gateway.shell(&["user", "disable", "bob", "--json"]);
    assert_eq!((code, text.trim()), (Some(0), r#"{"state":"disabled","user":"bob"}"#));
    gateway.stop().await;
}
