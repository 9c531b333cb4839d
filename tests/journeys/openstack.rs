// SPDX-License-Identifier: Apache-2.0
//! OpenStack through the gateway: an unchanged openstacksdk that signs in at a Keystone which is the gateway, lists that
//! show one's own servers only, power from the pages, a screen whose token stays here, and no credential anywhere.

use crate::support::{
    FakeOpenStack, Person, TestGateway,
    fake_openstack::{CANARIES, DB, PAYROLL, WEB},
    full_length,
    gateway::{files, free_port, letters},
    lab::ticket_for,
    peers::Peer,
    screen::Screen,
};
use reqwest::{Client, Method, StatusCode, header};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

async fn sees(person: &Person<'_>, id: &str, state: &str) {
    for _ in 0..120 {
        let list: Value = person.get("/api/v1/machines").await.json().await.expect("JSON");
        if list["machines"].as_array().is_some_and(|all| all.iter().any(|m| m["id"] == id && m["state"] == state)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{} does not see that {id} is {state}", person.name);
}

struct Tool {
    client: Client,
    port: u16,
    pass: String,
}

impl Tool {
    /// A client that signed in with a token as its password.
    async fn new(gateway: &TestGateway, port: u16, name: &str, token: &str) -> Self {
        let client = Client::builder().tls_certs_only([gateway.ca()]).build().expect("a client");
        let mut tool = Self { client, port, pass: String::new() };
        let (status, pass, said) = tool.sign_in(&by_password(name, token)).await;
        assert_eq!(status, StatusCode::CREATED, "{said}");
        tool.pass = pass;
        tool
    }

    async fn sign_in(&self, auth: &Value) -> (StatusCode, String, Value) {
        let at = format!("https://localhost:{}/v3/auth/tokens", self.port);
        let answer = self.client.post(at).json(&json!({ "auth": auth })).send().await.expect("an answer");
        let pass = answer.headers().get("x-subject-token").map(|v| v.to_str().expect("text").to_owned());
        (answer.status(), pass.unwrap_or_default(), answer.json().await.expect("JSON"))
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let at = format!("https://localhost:{}/v2.1{path}", self.port);
        self.client.request(method, at).header("x-auth-token", &self.pass)
    }

    async fn call(&self, method: Method, path: &str, body: &str) -> (StatusCode, Value) {
        let mut request = self.request(method, path);
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json").body(body.to_owned());
        }
        told(request).await
    }
}

async fn told(request: reqwest::RequestBuilder) -> (StatusCode, Value) {
    let answer = request.send().await.expect("an answer");
    let status = answer.status();
    let text = answer.text().await.expect("a body");
    for canary in CANARIES {
        assert!(!text.contains(canary), "{canary} came out: {text}");
    }
    assert!(!text.contains("evil.example"), "the catalog's host came out: {text}");
    (status, serde_json::from_str(&text).unwrap_or_default())
}

fn by_password(name: &str, token: &str) -> Value {
    json!({ "identity": { "methods": ["password"], "password": { "user": {
        "name": name, "domain": { "id": "default" }, "password": token } } } })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_see_power_and_screens_of_a_cloud_and_never_its_secrets() {
    let guest = Peer::qemu("web-1", "none");
    let cloud = FakeOpenStack::start(Some(&guest)).await;
    let gateway = TestGateway::start(&cloud.config("os", free_port(), "password")).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    for (id, state) in [(WEB, "running"), (PAYROLL, "off"), (DB, "running")] {
        sees(&ada, id, state).await;
    }
    let list: Value = ada.get("/api/v1/machines").await.json().await.expect("JSON");
    let one =
        |id: &str| list["machines"].as_array().and_then(|a| a.iter().find(|m| m["id"] == id)).cloned().expect("it");
    assert_eq!(
        (&one(WEB)["name"], &one(WEB)["pool"], &one(WEB)["tags"]),
        (&json!("web-1"), &json!("blue"), &json!(["web"]))
    );
    assert_eq!(one(DB)["pool"], "p-x", "a name that two projects have is none");

    for (verb, state) in
        [("shutdown", "off"), ("start", "running"), ("pause", "paused"), ("resume", "running"), ("reset", "running")]
    {
        let answer = ada.submit(&format!("/machines/os/{WEB}/power"), &[("verb", verb), ("next", "/")]).await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{verb}");
        sees(&ada, WEB, state).await;
    }
    let answer = ada.submit(&format!("/machines/os/{WEB}/power"), &[("verb", "stop"), ("next", "/")]).await;
    assert_ne!(answer.status(), StatusCode::SEE_OTHER, "Nova cuts no power");

    let machine = format!("os/{WEB}");
    let mut screen = Screen::open(&ada, &machine, "control", &ticket_for(&ada, &machine, "control").await).await;
    screen.handshake().await;
    assert!(screen.picture().await > 10_000, "the first picture arrives");
    screen.press("typed-by-hand").await;
    guest.wait_for_text("typed-by-hand").await;
    assert_eq!(ada.submit("/sign-out", &[]).await.status(), StatusCode::SEE_OTHER);
    assert_eq!(screen.ended(Duration::from_secs(5)).await.0, 4000);

    // A machine that is off says so in Nova's words; a console at another host is not followed.
    let ada = ada.another_browser().await;
    let off = format!("os/{PAYROLL}");
    let mut off = Screen::open(&ada, &off, "view", &ticket_for(&ada, &off, "view").await).await;
    let (_, why) = off.ended(Duration::from_secs(10)).await;
    assert!(why.contains("not ready"), "{why}");
    cloud.send_consoles_elsewhere();
    let mut moved = Screen::open(&ada, &machine, "view", &ticket_for(&ada, &machine, "view").await).await;
    let (_, why) = moved.ended(Duration::from_secs(10)).await;
    assert!(why.contains("another place") && !why.contains("canary"), "{why}");
    assert_eq!(cloud.wrongs(), [""; 0]);

    let shown = serde_json::to_string(&gateway.search(&["--limit", "1000"])).expect("JSON");
    let dir = gateway.stop().await;
    let mut kept = Vec::new();
    files(dir.path(), &mut kept);
    for secret in CANARIES {
        assert!(!shown.contains(secret), "{secret} is in the trail");
        for (place, bytes) in &kept {
            assert!(!letters(bytes).contains(secret), "{secret} is in {place}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unchanged_openstacksdk_does_what_its_owner_may_and_sees_nothing_else() {
    let (cloud, clients) = (FakeOpenStack::start(None).await, Peer::openstack_clients());
    let port = free_port();
    let gateway = TestGateway::start(&cloud.config("os", port, "password")).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    sees(&ada, WEB, "running").await;
    let bob = ada.invite("bob").await;
    ada.grant("bob", "operator", "pool", "os/blue").await;
    sees(&bob, WEB, "running").await;
    let token = bob.token("os").await;
    let ca = gateway.dir.path().join("tls/ca.pem").display().to_string();
    for way in ["password", "application"] {
        let said = clients.client(&[&format!("localhost:{port}"), &ca, "bob", &token, way]);
        for canary in CANARIES {
            assert!(!said.contains(canary), "{canary} came out: {said}");
        }
        let lines = said.lines().map(|l| serde_json::from_str::<Value>(l).expect("JSON"));
        let mut step: BTreeMap<String, Value> =
            lines.map(|l| (l["step"].as_str().expect("a step").to_owned(), l["value"].clone())).collect();
        let mut take = |name: &str| step.remove(name).unwrap_or_else(|| panic!("no step {name}: {said}"));
        assert!(take("wrong").to_string().contains("HTTP 401"), "{said}");
        assert_eq!(take("servers"), json!(["web-1"]), "of the other tenant nothing is listed: {said}");
        assert_eq!(take("tags"), json!(["web"]));
        assert_eq!(take("flavors"), json!(["tiny"]));
        assert_eq!(take("one"), json!(["web-1", "ACTIVE", null, null]));
        assert_eq!(take("foreign"), "None", "what is hidden does not exist");
        assert_eq!((take("stop"), take("stopped")), (Value::Null, json!("SHUTOFF")), "{said}");
        assert_eq!((take("start"), take("started")), (Value::Null, json!("ACTIVE")), "{said}");
        assert_eq!(take("reboot"), Value::Null, "{said}");
        let console = take("console");
        assert_eq!(console["status"], 403, "{said}");
        assert!(console.to_string().contains("in the browser"), "it says where a console opens: {console}");
        assert_eq!(take("delete")["status"], 403, "an operator destroys nothing");
        assert_eq!(take("hosts")["status"], 403, "{said}");
        assert!(step.is_empty(), "{step:?}");
    }
    // The command line, too.
    let listed = clients.tool(
        "OPENSTACK",
        &["server", "list", "--all-projects", "-f", "value", "-c", "Name", "-c", "Status"],
        &[
            ("OS_AUTH_URL", &format!("https://localhost:{port}/v3")),
            ("OS_USERNAME", "bob"),
            ("OS_PASSWORD", &token),
            ("OS_PROJECT_NAME", "service"),
            ("OS_USER_DOMAIN_ID", "default"),
            ("OS_PROJECT_DOMAIN_ID", "default"),
            ("OS_CACERT", &ca),
            ("OS_COMPUTE_API_VERSION", "2.74"),
        ],
    );
    assert_eq!(listed.trim(), "web-1 ACTIVE");
    assert_eq!(cloud.wrongs(), [""; 0]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_revoked_opens_nothing_any_more() {
    let cloud = FakeOpenStack::start(None).await;
    let port = free_port();
    let gateway = TestGateway::start(&cloud.config("os", port, "password")).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    sees(&ada, WEB, "running").await;
    let bob = ada.invite("bob").await;
    ada.grant("bob", "operator", "pool", "os/blue").await;
    sees(&bob, WEB, "running").await;
    let token = bob.token("os").await;
    let of_ada = Tool::new(&gateway, port, "ada", &ada.token("os").await).await;
    let [first, second] =
        [Tool::new(&gateway, port, "bob", &token).await, Tool::new(&gateway, port, "bob", &token).await];
    assert_ne!(first.pass, second.pass, "each sign-in is another");
    let revoke = async |by: &Tool, subject: Option<&str>| {
        let mut request = by.client.delete(format!("https://localhost:{port}/v3/auth/tokens"));
        request = request.header("x-auth-token", &by.pass);
        if let Some(subject) = subject {
            request = request.header("x-subject-token", subject);
        }
        told(request).await.0
    };
    let lists = async |tool: &Tool| tool.call(Method::GET, "/servers", "").await.0;
    // Nobody else's, and nothing that is none.
    for (by, subject) in
        [(&first, Some(of_ada.pass.as_str())), (&of_ada, Some(&first.pass)), (&first, Some("x")), (&first, None)]
    {
        assert_eq!(revoke(by, subject).await, StatusCode::NOT_FOUND);
    }
    for tool in [&of_ada, &first, &second] {
        assert_eq!(lists(tool).await, StatusCode::OK);
    }
    assert_eq!(revoke(&second, Some(&first.pass)).await, StatusCode::NO_CONTENT, "another one of their own");
    assert_eq!(lists(&first).await, StatusCode::UNAUTHORIZED, "at once");
    assert_eq!(revoke(&first, Some(&first.pass)).await, StatusCode::UNAUTHORIZED);
    let by_pass = json!({ "identity": { "methods": ["token"], "token": { "id": first.pass } } });
    assert_eq!(first.sign_in(&by_pass).await.0, StatusCode::UNAUTHORIZED, "nor does it give another");
    assert_eq!(revoke(&second, Some(&second.pass)).await, StatusCode::NO_CONTENT, "itself");
    assert_eq!(lists(&second).await, StatusCode::UNAUTHORIZED);
    assert_eq!(lists(&of_ada).await, StatusCode::OK);
    let out = |e: &Value| e["outcome"] == "done" && e["reason"] == "signed out of the API";
    gateway.find_event(&["--kind", "api", "--user", "bob"], out).await;
    gateway.stop().await;
}

/// With a real Keystone, Nova and console proxy: `tests/run --full` only, because they are 345 Debian packages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_cloud_is_driven_through_the_gateway() {
    if !full_length() {
        return;
    }
    let guest = Peer::qemu("web-1", "none");
    let (cloud, clients) = (Peer::cloud(guest.get("VNC")), Peer::openstack_clients());
    let port = free_port();
    let gateway = TestGateway::start(&format!(
        "[[hypervisors]]\nname = \"os\"\nkind = \"openstack\"\nidentity = {:?}\ncompute = {:?}\nconsole = {:?}\n\
         user = \"admin\"\nproject = \"admin\"\nsecret_file = {:?}\n[hypervisors.api]\nport = {port}\n",
        cloud.get("IDENTITY"),
        cloud.get("COMPUTE"),
        cloud.get("CONSOLE"),
        cloud.get("PASSWORD_FILE"),
    ))
    .await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let id = cloud.get("SERVER");
    sees(&ada, id, "running").await;
    let list: Value = ada.get("/api/v1/machines").await.json().await.expect("JSON");
    let one = &list["machines"][0];
    assert_eq!((&one["name"], &one["pool"], &one["tags"]), (&json!("web-1"), &json!("admin"), &json!(["web"])));
    for (verb, state) in [("shutdown", "off"), ("start", "running"), ("pause", "paused"), ("resume", "running")] {
        let answer = ada.submit(&format!("/machines/os/{id}/power"), &[("verb", verb), ("next", "/")]).await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{verb}");
        sees(&ada, id, state).await;
    }
    let machine = format!("os/{id}");
    let mut screen = Screen::open(&ada, &machine, "control", &ticket_for(&ada, &machine, "control").await).await;
    screen.handshake().await;
    assert!(screen.picture().await > 10_000, "the first picture arrives");
    screen.press("typed-by-hand").await;
    guest.wait_for_text("typed-by-hand").await;

    let token = ada.token("os").await;
    let (ca, at) =
        (gateway.dir.path().join("tls/ca.pem").display().to_string(), format!("https://localhost:{port}/v3"));
    let run = |arguments: &[&str]| {
        let of_ada = [("OS_AUTH_URL", at.as_str()), ("OS_USERNAME", "ada"), ("OS_PASSWORD", &token)];
        let more =
            [("OS_PROJECT_NAME", "admin"), ("OS_USER_DOMAIN_ID", "default"), ("OS_PROJECT_DOMAIN_ID", "default")];
        let version = [("OS_CACERT", ca.as_str()), ("OS_COMPUTE_API_VERSION", "2.52")];
        clients.tool("OPENSTACK", arguments, &[&of_ada[..], &more, &version].concat())
    };
    let shown = run(&["server", "list", "-f", "value", "-c", "Name", "-c", "Status"]);
    assert_eq!(shown.trim(), "web-1 ACTIVE");
    run(&["server", "stop", id]);
    sees(&ada, id, "off").await;
    let password = std::fs::read_to_string(cloud.get("PASSWORD_FILE")).expect("a password");
    let trail = serde_json::to_string(&gateway.search(&["--limit", "1000"])).expect("JSON");
    let dir = gateway.stop().await;
    let mut kept = Vec::new();
    files(dir.path(), &mut kept);
    assert!(!trail.contains(password.trim()));
    for (place, bytes) in kept {
        assert!(!letters(&bytes).contains(password.trim()), "the password is in {place}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_token_is_renewed_before_its_end_and_when_it_is_refused() {
    let cloud = FakeOpenStack::start(None).await;
    cloud.shorten_tokens(Duration::from_secs(4));
    let port = free_port();
    let gateway = TestGateway::start(&cloud.config("os", port, "application credential")).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    sees(&ada, WEB, "running").await;
    let token = ada.token("os").await;
    let tool = Tool::new(&gateway, port, "ada", &token).await;
    let began = tokio::time::Instant::now();
    while began.elapsed() < Duration::from_secs(12) {
        assert_eq!(tool.call(Method::GET, &format!("/servers/{WEB}"), "").await.0, StatusCode::OK);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(cloud.came("POST /v3/auth/tokens").len() >= 3);
    cloud.shorten_tokens(Duration::from_hours(1));
    tokio::time::sleep(Duration::from_secs(4)).await;
    cloud.forget_tokens();
    assert_eq!(tool.call(Method::GET, &format!("/servers/{WEB}"), "").await.0, StatusCode::UNAUTHORIZED);
    for attempt in 0.. {
        if tool.call(Method::GET, &format!("/servers/{WEB}"), "").await.0 == StatusCode::OK {
            break;
        }
        assert!(attempt < 100, "it never signed in again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_is_keystone_and_takes_only_its_own_tokens() {
    let cloud = FakeOpenStack::start(None).await;
    let (port, other) = (free_port(), free_port());
    let both = format!("{}{}", cloud.config("os", port, "password"), cloud.config("twin", other, "password"));
    let gateway = TestGateway::start(&both).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    sees(&ada, WEB, "running").await;
    let token = ada.token("").await;
    let tool = Tool::new(&gateway, port, "ada", &token).await;
    let (status, pass, said) = tool.sign_in(&by_password("ada", &token)).await;
    assert_eq!(status, StatusCode::CREATED);
    assert!(!pass.contains(&token), "a pass holds no token");
    for service in said["token"]["catalog"].as_array().expect("a catalog") {
        for endpoint in service["endpoints"].as_array().expect("endpoints") {
            let url = endpoint["url"].as_str().expect("an address");
            assert!(url.starts_with(&format!("https://localhost:{port}/")), "{url}");
        }
    }
    // The secret of an application credential, and a pass that is renewed.
    let secret = json!({ "identity": { "methods": ["application_credential"],
        "application_credential": { "id": "x", "secret": token } } });
    assert_eq!(tool.sign_in(&secret).await.0, StatusCode::CREATED);
    let renewed = json!({ "identity": { "methods": ["token"], "token": { "id": pass } },
        "scope": { "project": { "name": "service", "domain": { "id": "default" } } } });
    assert_eq!(tool.sign_in(&renewed).await.0, StatusCode::CREATED);
    for (auth, wanted) in [
        (by_password("ada", "wrong"), StatusCode::UNAUTHORIZED),
        (by_password("bob", &token), StatusCode::UNAUTHORIZED),
        (by_password("", &token), StatusCode::UNAUTHORIZED),
        (by_password("gateway", "canary-0f3a7781-password"), StatusCode::UNAUTHORIZED),
        (
            json!({ "identity": { "methods": ["token"], "token": { "id": "gAAAAABcanary-token-1000" } } }),
            StatusCode::UNAUTHORIZED,
        ),
        (json!({ "identity": { "methods": ["totp"] } }), StatusCode::BAD_REQUEST),
        (json!({}), StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(tool.sign_in(&auth).await.0, wanted, "{auth}");
    }
    let mut elsewhere = renewed.clone();
    elsewhere["scope"] = json!({ "project": { "id": "p-blue" } });
    assert_eq!(tool.sign_in(&elsewhere).await.0, StatusCode::FORBIDDEN);

    // A pass counts at its own cloud, once in a request, and nothing else does.
    let twin = Tool { client: tool.client.clone(), port: other, pass: tool.pass.clone() };
    assert_eq!(twin.call(Method::GET, "/servers", "").await.0, StatusCode::UNAUTHORIZED);
    let bare = |shown: &[(&str, &str)]| {
        let mut request = tool.client.get(format!("https://localhost:{port}/v2.1/servers"));
        for (name, value) in shown {
            request = request.header(*name, *value);
        }
        request
    };
    let pass = tool.pass.as_str();
    assert_eq!(told(bare(&[("x-auth-token", pass)])).await.0, StatusCode::OK);
    let bearer = format!("Bearer {token}");
    for shown in [
        &[][..],
        &[("x-auth-token", pass), ("x-auth-token", pass)],
        &[("x-auth-token", "wrong")],
        &[("x-subject-token", pass)],
        &[("authorization", &bearer)],
        &[("cookie", &ada.cookie())],
    ] {
        assert_eq!(told(bare(shown)).await.0, StatusCode::UNAUTHORIZED, "{shown:?}");
    }
    // Nothing of Keystone passes.
    for path in ["/v3/users", "/v3/auth/projects", "/v3/OS-FEDERATION/saml2"] {
        let request = tool.client.get(format!("https://localhost:{port}{path}")).header("x-auth-token", pass);
        assert_eq!(told(request).await.0, StatusCode::FORBIDDEN, "{path}");
    }
    assert!(cloud.came("GET /v3/users").is_empty());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_body_asks_is_decided_and_nothing_of_the_client_goes_along() {
    let cloud = FakeOpenStack::start(None).await;
    let port = free_port();
    let gateway = TestGateway::start(&cloud.config("os", port, "password")).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    sees(&ada, WEB, "running").await;
    let bob = ada.invite("bob").await;
    ada.grant("bob", "operator", "machine", &format!("os/{WEB}")).await;
    let of_ada = Tool::new(&gateway, port, "ada", &ada.token("os").await).await;
    let of_bob = Tool::new(&gateway, port, "bob", &bob.token("os").await).await;

    // Lists show what may be seen, in pages, and addresses that count here.
    let (_, all) = of_ada.call(Method::GET, "/servers/detail?all_tenants=1", "").await;
    assert_eq!(all["servers"].as_array().map(Vec::len), Some(2));
    let next = all["servers_links"][0]["href"].as_str().expect("a next page");
    assert_eq!(next, format!("/v2.1/servers/detail?limit=2&marker={PAYROLL}"));
    let (_, more) = of_ada.call(Method::GET, next.strip_prefix("/v2.1").expect("ours"), "").await;
    assert_eq!(more["servers"][0]["id"], DB);
    let (_, own) = of_bob.call(Method::GET, "/servers/detail?all_tenants=1", "").await;
    assert_eq!(own["servers"].as_array().map(Vec::len), Some(1), "{own}");
    assert_eq!((&own["servers"][0]["id"], own.get("servers_links")), (&json!(WEB), None));

    let action = |id: &str| format!("/servers/{id}/action");
    for (id, body, status) in [
        (WEB, r#"{"os-stop": null}"#, 202),
        (WEB, r#"{"os-start": null}"#, 202),
        (WEB, r#"{"reboot": {"type": "HARD"}}"#, 202),
        (WEB, r#"{"forceDelete": null}"#, 403),
        (WEB, r#"{"rebuild": {"imageRef": "i1"}}"#, 403),
        (WEB, r#"{"changePassword": {"adminPass": "x"}}"#, 403),
        (WEB, r#"{"os-migrateLive": {"host": "cmp2", "block_migration": "auto", "force": true}}"#, 403),
        (WEB, r#"{"os-start": null, "forceDelete": null}"#, 403),
        (WEB, r#"{"os-start": null, "os-start": null}"#, 403),
        (WEB, r#"{"reboot": {"type": "HARD", "unheardOf": 1}}"#, 403),
        (WEB, r#"{"os-getVNCConsole": {"type": "novnc"}}"#, 403),
        (WEB, "{", 403),
        (WEB, "[]", 403),
        (PAYROLL, r#"{"os-stop": null}"#, 404),
        (DB, r#"{"os-stop": null}"#, 404),
        ("0a1b2c3d-0000-4000-8000-00000000000f", r#"{"os-stop": null}"#, 404),
    ] {
        let (got, said) = of_bob.call(Method::POST, &action(id), body).await;
        assert_eq!(got.as_u16(), status, "{id} {body}: {said}");
    }
    let passed: Vec<String> = cloud
        .came(&format!("POST /v2.1/servers/{WEB}/action"))
        .iter()
        .map(|c| String::from_utf8(c.body.clone()).expect("text"))
        .collect();
    assert_eq!(passed, [r#"{"os-stop": null}"#, r#"{"os-start": null}"#, r#"{"reboot": {"type": "HARD"}}"#]);
    assert!(cloud.came(&format!("POST /v2.1/servers/{PAYROLL}")).is_empty());

    // A console's address stays here, a password is cut out, and whoever asked is named to Nova.
    let console = r#"{"remote_console": {"protocol": "vnc", "type": "novnc"}}"#;
    let (status, said) = of_ada.call(Method::POST, &format!("/servers/{WEB}/remote-consoles"), console).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(said["error"]["message"].as_str().is_some_and(|m| m.contains("browser")), "{said}");
    let created = r#"{"server": {"name": "n", "flavorRef": "1", "networks": "none"}}"#;
    let request = of_ada.request(Method::POST, "/servers").header(header::CONTENT_TYPE, "application/json");
    let request = request.header("x-openstack-request-id", "req-of-the-client").header("x-roles", "admin");
    let request = request.header("x-service-token", "x").header("openstack-api-version", "compute 2.74");
    let (status, said) = told(request.body(created)).await;
    assert_eq!((status, said["server"].get("adminPass")), (StatusCode::ACCEPTED, None), "{said}");
    let came = cloud.came("POST /v2.1/servers").into_iter().rfind(|c| c.line.ends_with("/servers")).expect("it came");
    assert_eq!(
        (came.body.as_slice(), &came.headers["openstack-api-version"]),
        (created.as_bytes(), &"compute 2.74".parse::<reqwest::header::HeaderValue>().expect("a value"))
    );
    let tied = came.headers["x-openstack-request-id"]
        .to_str()
        .expect("text")
        .strip_prefix("req-")
        .expect("ours")
        .replace('-', "");
    gateway
        .find_event(&["--kind", "api", "--user", "ada"], |e| e["what"] == "create" && e["request"] == tied.as_str())
        .await;

    // What nobody reviewed is refused: a later microversion, and one that the server would choose.
    for version in ["compute latest", "compute 2.101", "compute 2.1, volume 3.0"] {
        let request = of_ada.request(Method::GET, "/servers").header("openstack-api-version", version);
        assert_eq!(told(request).await.0, StatusCode::BAD_REQUEST, "{version}");
    }
    assert_eq!(cloud.wrongs(), [""; 0]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_that_name_each_other_hold_nobody_up() {
    let cloud = FakeOpenStack::start(None).await;
    cloud.go_in_circles(true);
    let gateway = TestGateway::start(&cloud.config("os", free_port(), "application credential")).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let lists = || cloud.came("GET /v2.1/servers/detail").len();
    for _ in 0..100 {
        if ada.page("/hypervisors").await.contains("does not end") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(ada.page("/hypervisors").await.contains("does not end"));
    assert!((3..100).contains(&lists()), "{} pages were asked for", lists());
    cloud.go_in_circles(false);
    sees(&ada, WEB, "running").await;
    gateway.stop().await;
}
