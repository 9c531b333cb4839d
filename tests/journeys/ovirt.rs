// SPDX-License-Identifier: Apache-2.0
//! oVirt through the gateway: an unchanged ovirtsdk4 that signs in at a single sign-on which is the gateway, lists that show
//! one's own machines only, power from the pages, a screen whose ticket stays here, and an engine that lies.

use crate::support::{
    Person, TestGateway,
    gateway::{files, free_port, letters},
    lab::ticket_for,
    peers::Peer,
    screen::Screen,
};
use reqwest::{Client, Method, StatusCode, header};
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::Path, time::Duration};

/// What every secret of the simulated engine begins with.
const CANARY: &str = "canary-";

struct Lab {
    guest: Peer,
    engine: Peer,
    port: u16,
    gateway: TestGateway,
}

async fn lab() -> Lab {
    let guest = Peer::qemu("web-1", "x509-password");
    let engine = Peer::ovirt(guest.get("VNC"), guest.get("PASSWORD_FILE"));
    let port = free_port();
    let gateway = TestGateway::start(&format!(
        "[[hypervisors]]\nname = \"rhv\"\nkind = \"ovirt\"\naddress = {:?}\nusername = \"gateway@internal\"\n\
         password_file = {:?}\nscreen_hosts = [\"127.0.0.1\"]\nscreen_ports = [20000, 25000]\n\
         screen_tls = {{ ca_file = {:?} }}\n\
         [hypervisors.tls]\nca_file = {:?}\n[hypervisors.api]\nport = {port}\n",
        engine.get("ADDRESS"),
        engine.get("PASSWORD_FILE"),
        guest.get("CA_FILE"),
        engine.get("CA_FILE"),
    ))
    .await;
    Lab { guest, engine, port, gateway }
}

/// The id of a machine, once somebody sees it in a state.
async fn sees(person: &Person<'_>, name: &str, state: &str) -> String {
    for _ in 0..150 {
        let list: Value = person.get("/api/v1/machines").await.json().await.expect("JSON");
        let found =
            list["machines"].as_array().and_then(|all| all.iter().find(|m| m["name"] == name && m["state"] == state));
        if let Some(found) = found {
            return found["id"].as_str().expect("an id").to_owned();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{} does not see that {name} is {state}", person.name);
}

fn log(engine: &Peer) -> String {
    std::fs::read_to_string(engine.get("LOG")).expect("the log")
}

fn happens(engine: &Peer, what: &str) {
    std::fs::write(Path::new(engine.get("DIR")).join(what), "").expect("written");
}

/// A client of the API, with a pass.
struct Tool {
    client: Client,
    port: u16,
    pass: String,
}

impl Tool {
    async fn new(gateway: &TestGateway, port: u16, name: &str, token: &str) -> Self {
        let client = Client::builder().tls_certs_only([gateway.ca()]).build().expect("a client");
        let mut tool = Self { client, port, pass: String::new() };
        let (status, said) = tool.sign_on("sso/oauth/token", &by_password(name, token)).await;
        assert_eq!(status, StatusCode::OK, "{said}");
        assert_eq!((&said["token_type"], &said["scope"]), (&json!("bearer"), &json!("ovirt-app-api")), "{said}");
        said["access_token"].as_str().expect("a pass").clone_into(&mut tool.pass);
        assert!(!tool.pass.contains(token), "a pass holds no token");
        tool
    }

    async fn sign_on(&self, place: &str, form: &str) -> (StatusCode, Value) {
        let at = format!("https://localhost:{}/ovirt-engine/{place}", self.port);
        let request = self.client.post(at).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        let answer = request.body(form.to_owned()).send().await.expect("an answer");
        (answer.status(), answer.json().await.expect("JSON"))
    }

    fn request(&self, method: &Method, path: &str) -> reqwest::RequestBuilder {
        let at = format!("https://localhost:{}/ovirt-engine/api{path}", self.port);
        self.client.request(method.clone(), at).bearer_auth(&self.pass)
    }

    /// The same in JSON.
    async fn call(&self, method: Method, path: &str, body: &Value) -> (StatusCode, Value) {
        let mut request = self.request(&method, path).header(header::ACCEPT, "application/json");
        if !body.is_null() {
            request = request.json(body);
        }
        let (status, text) = told(request).await;
        (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{method} {path}: {text}")))
    }
}

async fn told(request: reqwest::RequestBuilder) -> (StatusCode, String) {
    let answer = request.send().await.expect("an answer");
    assert!(!answer.headers().contains_key(header::SET_COOKIE));
    let (status, text) = (answer.status(), answer.text().await.expect("a body"));
    assert!(!text.contains(CANARY), "a secret came out: {text}");
    (status, text)
}

fn by_password(name: &str, token: &str) -> String {
    format!("grant_type=password&scope=ovirt-app-api&username={name}%40internal&password={token}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unchanged_ovirtsdk_does_what_its_owner_may_and_sees_nothing_else() {
    let Lab { guest: _guest, engine, port, gateway } = lab().await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let bob = ada.invite("bob").await;
    ada.grant("bob", "operator", "pool", "rhv/blue").await;
    let web = sees(&bob, "web-1", "running").await;
    sees(&bob, "dns-1", "off").await;
    let payroll = sees(&ada, "payroll", "running").await;
    let token = bob.token("rhv").await;
    let ca = gateway.dir.path().join("tls/ca.pem").display().to_string();
    let url = format!("https://localhost:{port}");
    let said = engine.client(&[&url, &ca, "bob", &token, &web, &payroll]);
    assert!(!said.contains(CANARY) && !said.contains(engine.get("PASSWORD")), "a secret came out: {said}");
    let lines = said.lines().map(|l| serde_json::from_str::<Value>(l).expect("JSON"));
    let mut step: BTreeMap<String, Value> =
        lines.map(|l| (l["step"].as_str().expect("a step").to_owned(), l["value"].clone())).collect();
    let mut take = |name: &str| step.remove(name).unwrap_or_else(|| panic!("no step {name}: {said}"));
    let wrong = take("wrong");
    assert!(wrong["said"].as_str().is_some_and(|s| s.contains("SSO authentication access_denied")), "{wrong}");
    assert_eq!((take("product"), take("test")), (json!("oVirt Engine"), json!(true)), "{said}");
    assert_eq!(take("machines"), json!(["dns-1", "web-1"]), "of the other tenant nothing is listed");
    assert_eq!((take("searched"), take("page")), (json!([]), json!(["dns-1"])));
    assert_eq!((take("clusters"), take("hosts")), (json!(["blue"]), json!([["kvm1", null]])));
    assert_eq!(take("events"), json!([false, true]), "of the other tenant nothing is told");
    let whole = json!(["web-1", "up", "a < b & \"c\"", ["production", "web"], null, "web-1", null, null, null, true]);
    assert_eq!(take("whole"), whole);
    for hidden in ["foreign", "foreign stop", "absent"] {
        let why = take(hidden);
        assert_eq!((&why["status"], &why["fault"][0]), (&json!(404), &json!("Not found")), "{hidden}: {why}");
    }
    let why = take("wrong state");
    assert_eq!((&why["status"], &why["fault"][1]), (&json!(409), &json!("[Cannot start VM. VM is up.]")), "{why}");
    for (verb, state) in [("stop", "down"), ("start", "up"), ("shutdown", "down"), ("again", "up")] {
        assert_eq!(take(verb), json!([null, state]), "{verb}: {said}");
    }
    for closed in ["tags", "cloud-init", "settings", "move", "tag", "create", "remove", "permissions", "users"] {
        let why = take(closed);
        assert_eq!((&why["status"], &why["fault"][0]), (&json!(403), &json!("You may not do this")), "{closed}: {why}");
    }
    for (closed, words) in [
        ("transfers", "another address"),
        ("ticket", "in the browser"),
        ("viewer", "in the browser"),
        ("own ticket", "in the browser"),
    ] {
        let why = take(closed);
        let says = why["fault"][1].as_str().is_some_and(|w| w.contains(words));
        assert!(why["status"] == 403 && says, "{closed}: {why}");
    }
    assert_eq!(take("consoles"), json!([["vnc", null, null]]), "where a screen is stays here");
    assert_eq!(take("snapshot"), "before");
    let pass = take("token").as_str().expect("a pass").to_owned();
    assert!(!pass.contains(&token));
    assert_eq!(take("close"), Value::Null, "{said}");
    assert!(step.is_empty(), "{step:?}");
    let log = log(&engine);
    assert!(!log.contains("wrong") && !log.contains(&token) && !log.contains("ticket"), "{log}");
    for never in ["POST /vms {", "POST /vms <", "DELETE", "PUT", "/tags <", "cloud_init"] {
        assert!(!log.contains(never), "{never} came through:\n{log}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_see_power_and_screens_of_an_engine_and_never_its_secrets() {
    let Lab { guest, engine, gateway, .. } = lab().await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let id = sees(&ada, "web-1", "running").await;
    let list: Value = ada.get("/api/v1/machines").await.json().await.expect("JSON");
    let one = list["machines"].as_array().and_then(|a| a.iter().find(|m| m["id"] == id.as_str())).expect("it");
    assert_eq!((&one["pool"], &one["tags"]), (&json!("blue"), &json!(["production", "web"])));

    let at = format!("rhv/{id}");
    let mut screen = Screen::open(&ada, &at, "control", &ticket_for(&ada, &at, "control").await).await;
    screen.handshake().await;
    assert!(screen.picture().await > 10_000, "the first picture arrives");
    screen.press("typed-by-hand").await;
    guest.wait_for_text("typed-by-hand").await;
    assert_eq!(ada.submit("/sign-out", &[]).await.status(), StatusCode::SEE_OTHER);
    assert_eq!(screen.ended(Duration::from_secs(5)).await.0, 4000);
    let ada = ada.another_browser().await;

    // What somebody else does to it shows by the engine's events.
    for (verb, state) in [
        ("pause", "paused"),
        ("resume", "running"),
        ("reset", "running"),
        ("shutdown", "off"),
        ("start", "running"),
        ("stop", "off"),
    ] {
        let answer = ada.submit(&format!("/machines/rhv/{id}/power"), &[("verb", verb), ("next", "/")]).await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{verb}");
        sees(&ada, "web-1", state).await;
    }
    // One that is off says so; the engine's tokens end, and nobody notices; a screen somewhere else is not followed.
    let mut off = Screen::open(&ada, &at, "view", &ticket_for(&ada, &at, "view").await).await;
    let (_, why) = off.ended(Duration::from_secs(10)).await;
    assert!(why.contains("not running"), "{why}");
    happens(&engine, "expire");
    let payroll = format!("rhv/{}", sees(&ada, "payroll", "running").await);
    happens(&engine, "elsewhere");
    for attempt in 0.. {
        let mut moved = Screen::open(&ada, &payroll, "view", &ticket_for(&ada, &payroll, "view").await).await;
        let (_, why) = moved.ended(Duration::from_secs(10)).await;
        if why.contains("evil.example") && why.contains("screen_hosts") {
            break;
        }
        assert!(attempt < 20, "{why}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(log(&engine).matches("signed in").count() >= 2, "it signed in again");

    let shown = serde_json::to_string(&gateway.search(&["--limit", "1000"])).expect("JSON");
    let ticket = std::fs::read_to_string(guest.get("PASSWORD_FILE")).expect("a password");
    let dir = gateway.stop().await;
    let mut kept = Vec::new();
    files(dir.path(), &mut kept);
    for secret in [CANARY, engine.get("PASSWORD"), ticket.trim()] {
        assert!(!shown.contains(secret), "{secret} is in the trail");
        for (place, bytes) in &kept {
            assert!(!letters(bytes).contains(secret), "{secret} is in {place}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_is_the_single_sign_on_and_passes_on_what_was_decided() {
    let Lab { guest: _guest, engine, port, gateway } = lab().await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let web = sees(&ada, "web-1", "running").await;
    let token = ada.token("rhv").await;
    let tool = Tool::new(&gateway, port, "ada", &token).await;

    // Nobody signs in but by name and token.
    for form in [
        by_password("bob", &token),
        by_password("ada", &format!("pct_{}", "x".repeat(43))),
        by_password("ada", &tool.pass),
        "grant_type=password&username=gateway%40internal&password=".to_owned() + engine.get("PASSWORD"),
    ] {
        let (status, said) = tool.sign_on("sso/oauth/token", &form).await;
        assert_eq!(
            (status, &said["error_code"]),
            (StatusCode::UNAUTHORIZED, &json!("access_denied")),
            "{form}: {said}"
        );
    }
    for form in ["", "grant_type=client_credentials", "grant_type=password&username=ada&username=bob&password=x"] {
        assert_eq!(tool.sign_on("sso/oauth/token", form).await.0, StatusCode::BAD_REQUEST, "{form}");
    }
    for place in ["sso/oauth/token-http-auth", "sso/oauth/token-info", "services/pki-resource", "webadmin"] {
        assert_eq!(tool.sign_on(place, &by_password("ada", &token)).await.0, StatusCode::FORBIDDEN, "{place}");
    }

    // In XML and in JSON, whole for whoever may see all of it, but for its secrets.
    let (status, text) =
        told(tool.request(&Method::GET, "/vms?follow=tags").header(header::ACCEPT_ENCODING, "gzip")).await;
    assert!(
        status == StatusCode::OK && text.contains("<name>payroll</name>") && text.contains("<name>pay</name>"),
        "{text}"
    );
    let (status, said) = tool.call(Method::GET, "/vms", &Value::Null).await;
    assert_eq!((status, said["vm"].as_array().map(Vec::len)), (StatusCode::OK, Some(3)), "{said}");
    let (status, said) = tool.call(Method::PUT, &format!("/vms/{web}"), &json!({"memory": 1_073_741_824})).await;
    assert_eq!((status, &said["memory"]), (StatusCode::OK, &json!(1_073_741_824)), "{said}");
    let (status, said) = tool.call(Method::POST, &format!("/vms/{web}/migrate"), &json!({"host": {"id": "h"}})).await;
    assert_eq!((status, &said["status"]), (StatusCode::OK, &json!("complete")), "{said}");
    let tag = tool.request(&Method::POST, &format!("/vms/{web}/tags")).header(header::CONTENT_TYPE, "application/xml");
    let tag = tag.header("correlation-id", "of-the-client").header("filter", "true").header("all-content", "true");
    let (status, text) = told(tag.header("prefer", "persistent-auth").body("<tag><name>pay</name></tag>")).await;
    assert_eq!(status, StatusCode::CREATED, "{text}");
    let log = log(&engine);
    let asked = log.find("asked POST").and_then(|_| log.lines().skip_while(|l| !l.contains("/tags <tag>")).nth(1));
    let tied = asked.and_then(|l| l.strip_prefix("tied ")).expect("it came with an id of ours").replace('-', "");
    assert!(!log.contains("wrong") && !log.contains("of-the-client"), "{log}");
    gateway
        .find_event(&["--kind", "api", "--user", "ada"], |e| {
            e["what"] == "access-admin" && e["request"] == tied.as_str()
        })
        .await;

    // What could be read in two ways, or that nobody reviewed, goes no further.
    let before = log.lines().count();
    let bomb = "<!DOCTYPE vm [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;\">]><vm><name>&b;</name></vm>";
    for (method, path, media, body, status) in [
        (Method::PUT, format!("/vms/{web}"), "application/xml", bomb, 403),
        (Method::PUT, format!("/vms/{web}"), "application/xml", "<vm><name>a</name>", 403),
        (Method::PUT, format!("/vms/{web}"), "text/plain", "<vm/>", 403),
        (Method::PUT, format!("/vms/{web}"), "application/json", "{\"name\": \"a\", \"name\": \"b\"}", 403),
        (Method::PUT, format!("/vms/{web}"), "application/xml", "<vm><unheard_of/></vm>", 403),
        (Method::POST, format!("/vms/{web}/start;async=true"), "application/xml", "<action/>", 400),
        (Method::POST, format!("/vms/{web}%2fstart"), "application/xml", "<action/>", 400),
        (Method::POST, format!("/vms/{web}/start?async=1&async=2"), "application/xml", "<action/>", 403),
        (Method::POST, "/unheard-of".to_owned(), "application/xml", "<action/>", 403),
        (Method::GET, "/vms;max=1".to_owned(), "", "", 400),
        (Method::GET, "/vms?follow=cluster.permissions".to_owned(), "", "", 403),
    ] {
        let mut request = tool.request(&method, &path);
        if !media.is_empty() {
            request = request.header(header::CONTENT_TYPE, media).body(body);
        }
        let (got, text) = told(request).await;
        assert_eq!(got.as_u16(), status, "{method} {path} {body}: {text}");
        assert!(text.contains("<fault><reason>"), "{text}");
    }
    let other = tool.request(&Method::GET, &format!("/vms/{web}")).header("version", "3");
    assert_eq!(told(other).await.0, StatusCode::BAD_REQUEST, "another version means other things");
    let asked = |text: String| text.lines().skip(before).filter(|l| !l.contains("signed in")).count();
    assert_eq!(asked(self::log(&engine)), 0);

    // A pass counts here, for as long as its token does.
    let stranger = |pass: &str| Tool { client: tool.client.clone(), port, pass: pass.to_owned() };
    let (status, said) = stranger(&format!("{}x", tool.pass)).call(Method::GET, "/vms", &Value::Null).await;
    assert_eq!((status, &said["reason"]), (StatusCode::UNAUTHORIZED, &json!("Sign in first")), "{said}");
    assert_eq!(stranger(&token).call(Method::GET, "/vms", &Value::Null).await.0, StatusCode::OK, "a token alone does");
    let (status, said) = tool.sign_on("services/sso-logout", &format!("scope=ovirt-app-api&token={}", tool.pass)).await;
    assert_eq!((status, said), (StatusCode::OK, json!({})));
    assert_eq!(tool.sign_on("services/sso-logout", "token=x").await.0, StatusCode::UNAUTHORIZED);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_lies_is_told_and_hurts_nothing() {
    let Lab { guest: _guest, engine, gateway, .. } = lab().await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    sees(&ada, "web-1", "running").await;
    // Rows of another shape are left out, and the page says so.
    happens(&engine, "types");
    let web = |list: &Value| list["machines"].as_array().expect("a list").len();
    let mut last = Value::Null;
    for _ in 0..400 {
        last = ada.get("/api/v1/machines").await.json().await.expect("JSON");
        if web(&last) == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(web(&last), 0, "{last}");
    let page = ada.page("/hypervisors").await;
    assert!(page.contains("machines were left out"), "{page}");
    std::fs::remove_file(Path::new(engine.get("DIR")).join("types")).expect("removed");
    // No events: it is looked at all the same, and told. A list without an end has one.
    happens(&engine, "mute");
    happens(&engine, "endless");
    for attempt in 0.. {
        let page = ada.page("/hypervisors").await;
        if page.contains("too many") && page.contains("events are not told") {
            break;
        }
        assert!(attempt < 600, "{page}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    gateway.stop().await;
}
