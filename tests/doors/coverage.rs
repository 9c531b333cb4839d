// SPDX-License-Identifier: Apache-2.0
//! Every route × {nobody, wrong role, stale factor, right role}, held against the table beside this file, with what each
//! visit leaves in the trail. The list is the live one: a route that has no row, or a row that has no route, is red.

use super::table::{Row, TABLE};
use crate::support::{
    Person, TestGateway, page,
    person::{PASSWORD, location},
    trail::{Left, Log},
};
use portcullis_domain::Clock as _;
use portcullis_policy::classify::own::{Door, OwnRoute, ROUTES};
use reqwest::{Method, Response, StatusCode, header};
use std::collections::BTreeSet;

/// A machine that exists in the inventory and answers nothing: doors are decided before anybody dials. Nobody knocks as
/// often as the table does.
const LAB: &str = "[limits]\nsign_in_per_minute = 600\nstranger_per_second = 200\nstranger_burst = 600\n[scim]\naccount = \"directory\"\n\
                   [[identity.providers]]\nname = \"corp\"\ntitle = \"Corp\"\nissuer = \"http://127.0.0.1:9\"\nclient_id = \"p\"\n\
                   [[hypervisors]]\nname = \"lab\"\nkind = \"qemu\"\n[[hypervisors.guests]]\nid = \"web-1\"\n\
                   vnc = \"127.0.0.1:9\"\n";

fn route(row: &Row) -> &'static OwnRoute {
    let is = |r: &&OwnRoute| row.route == format!("{} {}", r.method, r.pattern);
    ROUTES.iter().find(is).unwrap_or_else(|| panic!("there is no {}", row.route))
}

// SEC-001
#[test]
fn every_route_has_its_row() {
    let rows: BTreeSet<String> = TABLE.iter().map(|r| r.route.to_owned()).collect();
    assert_eq!(rows.len(), TABLE.len(), "a row stands twice");
    assert_eq!(rows, ROUTES.iter().map(|r| format!("{} {}", r.method, r.pattern)).collect());
    for row in TABLE {
        let asks_for_a_role = matches!(route(row).door, Door::Own(..) | Door::Machine(_));
        assert_eq!(row.wrong != "-", asks_for_a_role, "{}", row.route);
    }
}

/// A gateway with somebody in it, and what its things are called.
struct Place<'a> {
    gateway: &'a TestGateway,
    log: Log,
    /// Somebody to do things to.
    mia: String,
    /// A group that is kept here.
    group: String,
    asset: String,
}

impl Place<'_> {
    /// What a `$name` of the table stands for, as this person sees it now.
    async fn means(&self, person: &Person<'_>, word: &str) -> String {
        let beside = |html: &str, action: &str| {
            // The last of its kind: the first authenticator app is the one in the person's hand.
            let at = html.rfind(&format!("action=\"{action}\"")).unwrap_or_else(|| panic!("no {action}: {html}"));
            page::field(&html[at..], "id").expect("an id")
        };
        match word {
            "$password" => PASSWORD.to_owned(),
            "$user" => self.mia.clone(),
            "$grant" => self.gateway.grants_of("mia").await.pop().expect("a grant"),
            "$session" => beside(&person.page("/me").await, "/me/sessions/end"),
            "$factor" => beside(&person.page("/me").await, "/me/factors/remove"),
            "$token" => beside(&person.page("/me").await, "/me/tokens/revoke"),
            "$code" => person.next_code(),
            "$day" => (self.gateway.clock.now() + time::Duration::days(30)).date().to_string(),
            "$new-code" => person.code_of_new_key().await,
            "$new-passkey" => person.answer_of_new_passkey().await.1,
            plain => plain.to_owned(),
        }
    }

    fn path(&self, route: &OwnRoute) -> String {
        route
            .pattern
            .replace("{hypervisor}/{machine}", "lab/web-1")
            .replace("{mode}", "control")
            .replace("/groups/{id}", &format!("/groups/{}", self.group))
            .replace("{name}", "lab")
            .replace("{id}", &self.mia)
            .replace("{provider}", "corp")
            .replace("{version}", "1")
            .replace("{node}/{number}", &self.log.place())
            .replace("/assets/{*path}", &self.asset)
    }

    /// Tries one door; gives what it answers, and what that leaves in the trail.
    async fn knock(&mut self, person: &Person<'_>, row: &Row, csrf: &str, expected: &Left) -> (String, Left) {
        let route = route(row);
        let mut fields = vec![("csrf", csrf.to_owned())];
        for (name, word) in row.form {
            // Who is nobody sees nothing of what the words stand for.
            let value = if csrf.is_empty() && *word != "$password" {
                (*word).to_owned()
            } else {
                self.means(person, word).await
            };
            fields.push((name, value));
        }
        let method: Method = route.method.parse().expect("a method");
        let url = format!("{}{}", self.gateway.url(), self.path(route));
        let mut request = person.browser.request(method, url).header("sec-fetch-site", "same-origin");
        if route.method == "POST" {
            request = request.header(header::ORIGIN, self.gateway.url()).form(&fields);
        }
        self.log.settle().await;
        let answer = read(request.send().await.expect("an answer")).await;
        (answer, self.log.left(expected).await)
    }
}

/// An answer as the table says it.
async fn read(answer: Response) -> String {
    let (status, to) = (answer.status(), location(&answer));
    let fresh = answer.headers().contains_key("x-step-up");
    let text = answer.text().await.unwrap_or_default();
    match status {
        StatusCode::SEE_OTHER => format!("303 {to}"),
        StatusCode::FORBIDDEN if fresh || text.contains("Confirm that it is you") => "403 fresh".to_owned(),
        other => other.as_u16().to_string(),
    }
}

/// The answer begins as it should: what follows in an address is the business of journeys.
fn check(row: &Row, who: &str, answer: &str, expected: &str) {
    let same = if expected.starts_with("303 ") { answer.starts_with(expected) } else { answer == expected };
    assert!(same, "{} to {who}: {answer}, not {expected}", row.route);
}

/// What a visit should leave: a door that was opened has both ends in the trail, a denial is one event.
fn should_leave(row: &Row, turned_away: bool) -> Left {
    let route = route(row);
    match (route.trailed, turned_away) {
        (false, _) => Left::Nothing,
        (true, true) => Left::Denial { kind: route.kind.to_owned() },
        (true, false) => Left::Bracket { kind: route.kind.to_owned() },
    }
}

/// The first administrator with everything that the rows need, and mia.
async fn furnish(gateway: &TestGateway) -> (Place<'_>, Person<'_>) {
    let ada = Person::first_administrator(gateway, "ada").await;
    ada.invite("mia").await;
    ada.grant("mia", "viewer", "everything", "").await;
    let code = ada.code_of_new_key().await;
    assert_eq!(location(&ada.submit("/enrol", &[("code", &code)]).await), "/me");
    ada.add_passkey().await;
    ada.token("").await;
    ada.another_browser().await;
    ada.another_browser().await;
    let html = ada.page("/me").await;
    let at = html.find("/assets/").expect("an asset");
    let asset = html[at..].chars().take_while(|c| !matches!(c, '"' | '?')).collect();
    let made = location(&ada.submit("/groups", &[("name", "night shift")]).await);
    let group = made.strip_prefix("/groups/").expect("a group was made").to_owned();
    let place = Place { gateway, log: Log::of(gateway), mia: gateway.user_id("mia").await, group, asset };
    ada.step_up().await;
    (place, ada)
}

/// The token that forms carry, wherever this browser stands.
async fn csrf(person: &Person<'_>) -> String {
    for path in ["/me", "/sign-in", "/sign-in/code"] {
        let answer = person.get(path).await;
        if answer.status() == StatusCode::OK {
            return page::csrf(&answer.text().await.expect("a page")).unwrap_or_default();
        }
    }
    String::new()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody() {
    let gateway = TestGateway::start(LAB).await;
    let (mut place, _) = furnish(&gateway).await;
    for row in TABLE {
        let stranger = Person::stranger(&gateway, "nobody");
        let turned_away = matches!(
            route(row).door,
            Door::Enrolling | Door::SignedIn | Door::Directory | Door::Own(..) | Door::Machine(_)
        );
        let expected = should_leave(row, turned_away);
        let (answer, left) = place.knock(&stranger, row, "", &expected).await;
        check(row, "nobody", &answer, row.nobody);
        assert_eq!(left, expected, "{}", row.route);
    }
    gateway.stop().await;
}

// SEC-114
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_must_enrol_finds_every_other_door_closed() {
    let gateway = TestGateway::start(LAB).await;
    let (mut place, ada) = furnish(&gateway).await;
    let (zoe, link) = ada.invitation("zoe").await;
    // What somebody may do must not matter before they are known.
    ada.grant("zoe", "administrator", "everything", "").await;
    zoe.set_password(&link).await;
    let csrf = page::csrf(&zoe.page("/enrol").await).expect("the form to enrol");
    let closed =
        |r: &&Row| matches!(route(r).door, Door::SignedIn | Door::Directory | Door::Own(..) | Door::Machine(_));
    for row in TABLE.iter().filter(closed) {
        let expected = should_leave(row, true);
        let route = route(row);
        let mut request = zoe
            .browser
            .request(route.method.parse().expect("a method"), format!("{}{}", gateway.url(), place.path(route)));
        request = request.header("sec-fetch-site", "same-origin");
        if route.method == "POST" {
            let form = [&[("csrf", &*csrf)], row.form].concat();
            request = request.header(header::ORIGIN, gateway.url()).form(&form);
        }
        place.log.settle().await;
        let answer = read(request.send().await.expect("an answer")).await;
        // The way back leads to where they stand.
        let way = if row.nobody == "303 /sign-in" { "303 /enrol" } else { row.nobody };
        check(row, "whoever must enrol", &answer, way);
        assert_eq!(place.log.left(&expected).await, expected, "{}", row.route);
    }
    // None of it led past the second factor.
    assert!(page::csrf(&zoe.page("/enrol").await).is_some());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wrong_role() {
    let gateway = TestGateway::start(LAB).await;
    let (mut place, ada) = furnish(&gateway).await;
    let bob = ada.invite("bob").await;
    for row in TABLE.iter().filter(|r| r.wrong != "-") {
        let expected = should_leave(row, true);
        let (answer, left) = place.knock(&bob, row, &csrf(&bob).await, &expected).await;
        check(row, "the wrong role", &answer, row.wrong);
        assert_eq!(left, expected, "{}", row.route);
    }
    // Who may see a machine is told that they may not open it.
    ada.step_up().await;
    ada.grant("bob", "viewer", "machine", "lab/web-1").await;
    for row in TABLE.iter().filter(|r| matches!(route(r).door, Door::Machine(_))) {
        let expected = should_leave(row, true);
        let (answer, left) = place.knock(&bob, row, &csrf(&bob).await, &expected).await;
        check(row, "a viewer", &answer, "403");
        assert_eq!(left, expected, "{}", row.route);
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_factor() {
    let gateway = TestGateway::start(LAB).await;
    let (mut place, ada) = furnish(&gateway).await;
    gateway.clock.advance(time::Duration::seconds(301));
    for row in TABLE {
        // Whether it is asked for by policy, before the door opens, or by what is behind it.
        let asked = row.stale == "403 fresh" || row.stale.starts_with("303 /step-up");
        let asked = asked && matches!(route(row).door, Door::Own(..) | Door::Machine(_));
        let expected = should_leave(row, asked || route(row).door == Door::Directory);
        let (answer, left) = place.knock(&ada, row, &csrf(&ada).await, &expected).await;
        check(row, "a stale factor", &answer, row.stale);
        assert_eq!(left, expected, "{}", row.route);
        // A code was given: it is old again.
        if row.form.iter().any(|(_, word)| *word == "$code") {
            gateway.clock.advance(time::Duration::seconds(301));
        }
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_right_person() {
    let gateway = TestGateway::start(LAB).await;
    let (mut place, ada) = furnish(&gateway).await;
    for row in TABLE {
        // No person is a directory.
        let expected = should_leave(row, route(row).door == Door::Directory);
        let (answer, left) = place.knock(&ada, row, &csrf(&ada).await, &expected).await;
        check(row, "the right person", &answer, row.right);
        assert_eq!(left, expected, "{}", row.route);
    }
    gateway.stop().await;
}

// SEC-048, SEC-072, SEC-078, SEC-079
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_wears_the_standing_headers() {
    let gateway = TestGateway::start(LAB).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let nobody = Person::stranger(&gateway, "nobody");
    for path in
        ["/", "/me", "/nothing", "/assets/x/y.js", "/api/v1/machines", "/c/lab/web-1", "/users", "/..%2f", "/trail/x/1"]
    {
        for person in [&ada, &nobody] {
            let answer = person.get(path).await;
            for (name, word) in [
                ("content-security-policy", "frame-ancestors 'none'"),
                ("x-content-type-options", "nosniff"),
                ("referrer-policy", "no-referrer"),
                ("cross-origin-opener-policy", "same-origin"),
                ("cross-origin-resource-policy", "same-origin"),
                ("permissions-policy", "camera=()"),
                ("cache-control", "no-store"),
            ] {
                let value = answer.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
                assert!(value.contains(word), "{path} {}: {name}: {value:?}", answer.status());
            }
            assert!(!answer.headers().contains_key("strict-transport-security"), "localhost is not ours alone");
        }
    }
    let plain = reqwest::Client::builder().tls_certs_only([gateway.ca()]).http1_only().build().expect("a client");
    let other = plain.get(gateway.url()).header(header::HOST, "evil.example").send().await.expect("an answer");
    assert_eq!(other.status(), StatusCode::MISDIRECTED_REQUEST);
    for method in ["OPTIONS", "TRACE", "CONNECT", "PROPFIND"] {
        let request = nobody.browser.request(method.parse().expect("a method"), gateway.url());
        if let Ok(answer) = request.send().await {
            assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED, "{method}");
        }
    }
    gateway.stop().await;
}
