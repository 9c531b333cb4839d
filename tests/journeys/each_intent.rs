// SPDX-License-Identifier: Apache-2.0
//! Where a grant asks for a confirmation of each intent: one prompt for one intent, and none of it is left for another.

use crate::support::{
    Person, TestGateway,
    lab::{lab, ready, ticket},
    page,
    peers::Peer,
    person::location,
    screen::Screen,
};
use reqwest::{Response, StatusCode};
use serde_json::Value;
use std::time::Duration;

const TICKET: &str = "/api/v1/consoles/lab/web-1/ticket/control";

/// Confirms on the page that an answer leads to, with the next code; what comes of it.
async fn confirm(person: &Person<'_>, place: &str) -> Response {
    let form = person.page(place).await;
    let csrf = page::csrf(&form).expect("a form");
    let code = person.next_code();
    let (next, what) = (page::field(&form, "next").expect("where"), page::field(&form, "for").expect("for what"));
    person.post("/step-up", &[("csrf", &csrf), ("code", &code), ("next", &next), ("for", &what)]).await
}

/// Where a refused request of a script says that it can be confirmed.
async fn where_to(answer: Response) -> String {
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    let place = answer.headers()["x-step-up"].to_str().expect("text").to_owned();
    let body: Value = answer.json().await.expect("a problem document");
    assert_eq!(body["step_up"].as_str(), Some(&*place));
    place
}

/// Gives somebody who has just proven both factors grants that ask for each intent, and waits until the gateway knows.
async fn ask_each(person: &Person<'_>) {
    person.gateway.ask_each(&person.name).await;
    for _ in 0..100 {
        if !person.page("/me").await.contains("data-fresh-until") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the gateway does not read its grants again");
}

/// A gateway with one machine that runs and one that does not, and its administrator.
async fn house(guest: &Peer) -> TestGateway {
    let other = "[[hypervisors.guests]]\nid = \"web-2\"\nvnc = \"127.0.0.1:9\"\n";
    TestGateway::start(&format!("{}\n{other}", lab(guest))).await
}

// SEC-123
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_console_is_confirmed_once_for_its_page_ticket_stream_and_both_modes() {
    let guest = Peer::qemu("web-1", "none");
    let gateway = house(&guest).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    ready(&gateway, &ada).await;
    ask_each(&ada).await;
    // Signing in was no confirmation of this.
    let asked = ada.get("/c/lab/web-1").await;
    assert_eq!(location(&asked), "/step-up?next=%2Fc%2Flab%2Fweb-1");
    let done = confirm(&ada, &location(&asked)).await;
    assert_eq!(location(&done), "/c/lab/web-1");
    assert_eq!(ada.get("/c/lab/web-1").await.status(), StatusCode::OK);
    let view = ticket(&ada, "view").await;
    let control = ticket(&ada, "control").await;
    let watching = Screen::open(&ada, "lab/web-1", "view", &view).await;
    let mut using = Screen::open(&ada, "lab/web-1", "control", &control).await;
    using.handshake().await;
    // Another machine, and another action, are other intents.
    assert_eq!(location(&ada.get("/c/lab/web-2").await), "/step-up?next=%2Fc%2Flab%2Fweb-2");
    let place = where_to(ada.post_json("/api/v1/consoles/lab/web-2/ticket/view").await).await;
    assert_eq!(place, "/step-up?for=POST+%2Fapi%2Fv1%2Fconsoles%2Flab%2Fweb-2%2Fticket%2Fview");
    assert_eq!(ada.submit("/users", &[("name", "noa")]).await.status(), StatusCode::FORBIDDEN);
    // When one of them has ended, another console asks again, and the one that goes on is not cut.
    drop(watching);
    asked_again(&ada).await;
    assert!(using.picture().await > 10_000, "it goes on");
    let place = where_to(ada.post_json(TICKET).await).await;
    assert_eq!(location(&confirm(&ada, &format!("{place}&next=%2Fc%2Flab%2Fweb-1")).await), "/c/lab/web-1");
    ticket(&ada, "control").await;
    gateway.stop().await;
}

/// Waits until the gateway has noticed that a console ended.
async fn asked_again(person: &Person<'_>) {
    for _ in 0..50 {
        if person.get("/c/lab/web-1").await.status() == StatusCode::SEE_OTHER {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("a console that ended is opened again without a question");
}

// SEC-123
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_taken_back_is_confirmed_each_time() {
    let gateway = TestGateway::start("").await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    ask_each(&ada).await;
    let add = async |name: &str, code: Option<&str>| {
        let mut fields = vec![("name", name), ("display_name", name)];
        fields.extend(code.map(|code| ("step_up_code", code)));
        ada.submit("/users", &fields).await.status()
    };
    assert_eq!(add("noa", None).await, StatusCode::FORBIDDEN);
    // With the form itself: for this form only.
    let code = ada.next_code();
    assert_eq!(add("noa", Some(&code)).await, StatusCode::OK);
    assert_eq!(add("ben", None).await, StatusCode::FORBIDDEN);
    assert_eq!(add("ben", Some(&code)).await, StatusCode::BAD_REQUEST, "a code counts once");
    // Before it, on the page for that: once, and not for another object.
    let place = "/step-up?for=POST+%2Fusers&next=%2Fusers";
    assert_eq!(location(&confirm(&ada, place).await), "/users");
    let noa = gateway.user_id("noa").await;
    let grant = [("user", &*noa), ("role", "viewer"), ("on_kind", "everything"), ("step_up_seconds", "300")];
    assert_eq!(ada.submit("/grants", &grant).await.status(), StatusCode::FORBIDDEN);
    assert_eq!(add("ben", None).await, StatusCode::OK);
    assert_eq!(add("eli", None).await, StatusCode::FORBIDDEN, "it was used");
    // At the same time: one of them.
    confirm(&ada, place).await;
    let won = futures_util::future::join_all(["una", "dua", "tri", "kva"].map(|name| add(name, None))).await;
    assert_eq!(won.into_iter().filter(|status| *status == StatusCode::OK).count(), 1);
    gateway.stop().await;
}

// SEC-123
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_confirmation_outlives_a_restart_and_not_its_window() {
    let guest = Peer::qemu("web-1", "none");
    let gateway = house(&guest).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    ready(&gateway, &ada).await;
    ask_each(&ada).await;
    confirm(&ada, "/step-up?next=%2Fc%2Flab%2Fweb-1").await;
    confirm(&ada, "/step-up?next=%2Fusers&for=POST+%2Fusers").await;
    assert_eq!(ada.submit("/users", &[("name", "noa")]).await.status(), StatusCode::OK);
    gateway.restart().await;
    ready(&gateway, &ada).await;
    assert_eq!(ada.get("/c/lab/web-1").await.status(), StatusCode::OK);
    assert_eq!(ada.submit("/users", &[("name", "ben")]).await.status(), StatusCode::FORBIDDEN, "it stays used");
    confirm(&ada, "/step-up?next=%2Fc%2Flab%2Fweb-1").await;
    gateway.clock.advance(time::Duration::seconds(299));
    assert_eq!(ada.get("/c/lab/web-1").await.status(), StatusCode::OK);
    gateway.clock.advance(time::Duration::seconds(2));
    assert_eq!(ada.get("/c/lab/web-1").await.status(), StatusCode::SEE_OTHER);
    gateway.stop().await;
}
