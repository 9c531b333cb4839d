// SPDX-License-Identifier: Apache-2.0
//! A directory makes accounts, and a leaver is out when it says so (SCIM 2.0, RFC 7643 and 7644).

use crate::support::{
    Person, TestGateway,
    lab::{lab, ready, ticket},
    peers::Peer,
    screen::Screen,
};
use reqwest::{Client, Method, StatusCode, header};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const USER: &str = "urn:ietf:params:scim:schemas:core:2.0:User";
const PATCH: &str = "urn:ietf:params:scim:api:messages:2.0:PatchOp";

/// A directory with a token.
pub(super) struct Directory<'a> {
    gateway: &'a TestGateway,
    client: Client,
    token: String,
}

impl<'a> Directory<'a> {
    /// With a token of a service account, made by the shell.
    pub(super) async fn of(gateway: &'a TestGateway, account: &str) -> Self {
        let (code, text) = gateway.shell(&["user", "service", account]);
        assert_eq!(code, Some(0), "{text}");
        let (code, text) = gateway.shell(&["token", "mint", account, "scim", "--json"]);
        assert_eq!(code, Some(0), "{text}");
        let made: Value = serde_json::from_str(text.trim()).expect("JSON");
        let token = made["token"].as_str().expect("a token").to_owned();
        let client = Client::builder().tls_certs_only([gateway.ca()]).build().expect("a client");
        // The gateway hears of it within a second or two.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        Self { gateway, client, token }
    }

    pub(super) async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> (StatusCode, Value) {
        let method: Method = method.parse().expect("a method");
        let mut request = self.client.request(method, format!("{}/scim/v2{path}", self.gateway.url()));
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        if let Some(body) = body {
            request = request.header(header::CONTENT_TYPE, "application/scim+json").body(body.to_string());
        }
        let answer = request.send().await.expect("an answer");
        let status = answer.status();
        let text = answer.text().await.expect("a body");
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    async fn patch(&self, id: &str, operations: Value) -> (StatusCode, Value) {
        let body = json!({ "schemas": [PATCH], "Operations": operations });
        self.ask("PATCH", &format!("/Users/{id}"), Some(&body)).await
    }
}

pub(super) fn bob() -> Value {
    json!({
        "schemas": [USER], "userName": "bob", "externalId": "7f3", "active": true,
        "name": { "givenName": "Bob", "familyName": "Ross" },
        "emails": [{ "value": "ada@example.org", "primary": true }],
        "roles": [{ "value": "administrator" }], "password": "chosen by the directory",
    })
}

// SEC-141
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leaver_is_out_within_five_seconds_of_the_directorys_word() {
    let guest = Peer::qemu("web-1", "none");
    let gateway = TestGateway::start(&format!("[scim]\naccount = \"directory\"\n{}", lab(&guest))).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let directory = Directory::of(&gateway, "directory").await;
    let (status, made) = directory.ask("POST", "/Users", Some(&bob())).await;
    assert_eq!((status, made["displayName"].as_str()), (StatusCode::CREATED, Some("Bob Ross")), "{made}");
    let id = made["id"].as_str().expect("an id").to_owned();
    assert_eq!(made["meta"]["location"], format!("{}/scim/v2/Users/{id}", gateway.url()));
    assert!(gateway.grants_of("bob").await.is_empty(), "a directory gives no role");
    assert_eq!(made["emails"], json!([{ "value": "ada@example.org", "primary": true }]));
    let (_, text) = gateway.shell(&["user", "mail", "bob"]);
    assert!(text.contains("bob: ada@example.org, as the company's directory says"), "{text}");
    let (_, gone) = directory.patch(&id, json!([{ "op": "remove", "path": "emails" }])).await;
    assert!(gone["emails"].is_null(), "{gone}");
    let (status, again) = directory.ask("POST", "/Users", Some(&bob())).await;
    assert_eq!((status, again["scimType"].as_str()), (StatusCode::CONFLICT, Some("uniqueness")), "{again}");
    // The directory set no secret: a link does, and he is at work.
    let (code, link) = gateway.shell(&["user", "reset", "bob"]);
    assert_eq!(code, Some(0), "{link}");
    let mut bob = Person::stranger(&gateway, "bob");
    bob.redeem(link.trim()).await;
    ada.step_up().await;
    let (code, text) = gateway.shell(&["grant", "add", "bob", "console-user", "tag:web"]);
    assert_eq!(code, Some(0), "{text}");
    gateway.clock.advance(time::Duration::MINUTE);
    ready(&gateway, &bob).await;
    let tool = bob.token("").await;
    assert!(!tool.is_empty() && gateway.count_tokens("bob").await == 1);
    let mut screen = Screen::open(&bob, "lab/web-1", "control", &ticket(&bob, "control").await).await;
    screen.handshake().await;
    screen.picture().await;
    let begun = Instant::now();
    let (status, left) = directory.patch(&id, json!([{ "op": "Replace", "path": "active", "value": "False" }])).await;
    assert_eq!((status, &left["active"]), (StatusCode::OK, &Value::Bool(false)), "{left}");
    let (code, reason) = screen.ended(Duration::from_secs(5)).await;
    assert_eq!((code, reason.as_str()), (4000, "access ended: the account was disabled"));
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(bob.get("/me").await.status(), StatusCode::SEE_OTHER);
    assert_eq!(gateway.count_tokens("bob").await, 0);
    let told = |e: &Value| e["reason"].as_str().is_some_and(|r| r.contains("left, says the directory"));
    gateway.find_event(&["--kind", "scim", "--user", "directory"], told).await;
    // Back again: what ended stays ended, and he signs in anew.
    let (status, back) = directory.patch(&id, json!([{ "op": "replace", "value": { "active": true } }])).await;
    assert_eq!((status, &back["active"]), (StatusCode::OK, &Value::Bool(true)), "{back}");
    bob.sign_in().await;
    // What an administrator disabled, no directory enables.
    ada.step_up().await;
    let disable = format!("/users/{}/disable", gateway.user_id("bob").await);
    assert_eq!(ada.submit(&disable, &[]).await.status(), StatusCode::SEE_OTHER);
    let (status, refused) = directory.patch(&id, json!([{ "op": "replace", "path": "active", "value": true }])).await;
    assert_eq!(status, StatusCode::CONFLICT, "{refused}");
    assert_eq!(directory.ask("DELETE", &format!("/Users/{id}"), None).await.0, StatusCode::NO_CONTENT);
    assert_eq!(directory.ask("GET", &format!("/Users/{id}"), None).await.0, StatusCode::NOT_FOUND);
    assert!(ada.page("/users").await.contains("bob"), "the account stays, closed");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_sees_its_own_people_and_nothing_else_opens_its_door() {
    let gateway = TestGateway::start("[scim]\naccount = \"directory\"\n").await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let other = Directory::of(&gateway, "robot").await;
    let directory = Directory::of(&gateway, "directory").await;
    let nobody = Directory { token: String::new(), client: Client::clone(&directory.client), gateway: &gateway };
    for (who, wrong) in [("nobody", &nobody), ("robot", &other)] {
        for (method, path) in [("GET", "/Users"), ("POST", "/Users"), ("DELETE", "/Users/1"), ("GET", "/ResourceTypes")]
        {
            let (status, error) = wrong.ask(method, path, Some(&bob())).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{who} {method} {path}");
            assert_eq!(error["schemas"][0], "urn:ietf:params:scim:api:messages:2.0:Error", "{error}");
        }
    }
    let told = |e: &Value| e["reason"] == "the token is not the directory's";
    gateway.find_event(&["--kind", "scim", "--user", "robot", "--outcome", "denied"], told).await;
    // A browser that is signed in is nobody here.
    assert_eq!(ada.get("/scim/v2/Users").await.status(), StatusCode::UNAUTHORIZED);
    // Ada is not the directory's: it cannot see her, nor take her out.
    let hers = gateway.user_id("ada").await;
    let (status, list) = directory.ask("GET", "/Users?filter=userName%20eq%20%22ada%22", None).await;
    assert_eq!((status, &list["totalResults"]), (StatusCode::OK, &json!(0)), "{list}");
    let out = json!([{ "op": "replace", "path": "active", "value": false }]);
    assert_eq!(directory.patch(&hers, out).await.0, StatusCode::NOT_FOUND);
    assert_eq!(directory.ask("DELETE", &format!("/Users/{hers}"), None).await.0, StatusCode::NOT_FOUND);
    let named = json!({ "schemas": [USER], "userName": "ADA" });
    assert_eq!(directory.ask("POST", "/Users", Some(&named)).await.0, StatusCode::CONFLICT);
    assert_eq!(ada.get("/me").await.status(), StatusCode::OK);

    for n in 0..5 {
        let one = json!({ "schemas": [USER], "userName": format!("p{n}"), "externalId": format!("x{n}") });
        assert_eq!(directory.ask("POST", "/Users", Some(&one)).await.0, StatusCode::CREATED);
    }
    let (_, page) = directory.ask("GET", "/Users?startIndex=2&count=2", None).await;
    assert_eq!((&page["totalResults"], &page["itemsPerPage"], &page["startIndex"]), (&json!(5), &json!(2), &json!(2)));
    assert_eq!(page["Resources"][0]["userName"], "p1");
    let (_, found) = directory.ask("GET", "/Users?filter=externalId%20eq%20%22x3%22", None).await;
    let id = found["Resources"][0]["id"].as_str().expect("found").to_owned();
    for (filter, status) in
        [("userName%20sw%20%22p%22", StatusCode::BAD_REQUEST), ("nonsense", StatusCode::BAD_REQUEST)]
    {
        assert_eq!(directory.ask("GET", &format!("/Users?filter={filter}"), None).await.0, status, "{filter}");
    }
    let renamed = json!({ "schemas": [USER], "userName": "p3", "displayName": "Number Three" });
    let (status, now) = directory.ask("PUT", &format!("/Users/{id}"), Some(&renamed)).await;
    assert_eq!(
        (status, &now["displayName"], &now["externalId"]),
        (StatusCode::OK, &json!("Number Three"), &Value::Null)
    );
    let other_name = json!({ "schemas": [USER], "userName": "ada" });
    assert_eq!(directory.ask("PUT", &format!("/Users/{id}"), Some(&other_name)).await.0, StatusCode::BAD_REQUEST);
    let (status, config) = directory.ask("GET", "/ServiceProviderConfig", None).await;
    assert_eq!((status, &config["patch"]["supported"]), (StatusCode::OK, &Value::Bool(true)));
    assert_eq!(directory.ask("PUT", "/Users", Some(&renamed)).await.0, StatusCode::METHOD_NOT_ALLOWED);
    gateway.stop().await;
    // Without an account in the configuration there is nothing.
    let gateway = TestGateway::start("").await;
    let client = Client::builder().tls_certs_only([gateway.ca()]).build().expect("a client");
    let answer = client.get(format!("{}/scim/v2/Users", gateway.url())).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    gateway.stop().await;
}

// SEC-140
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_taken_out_of_a_group_loses_what_it_gave_within_five_seconds() {
    let guest = Peer::qemu("web-1", "none");
    let scim =
        "[scim]\naccount = \"directory\"\n[[scim.groups]]\nname = \"ops\"\nrole = \"console-user\"\non = \"tag:web\"\n";
    let gateway = TestGateway::start(&format!("{scim}{}", lab(&guest))).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let directory = Directory::of(&gateway, "directory").await;
    let (_, made) = directory.ask("POST", "/Users", Some(&bob())).await;
    let user = made["id"].as_str().expect("an id").to_owned();
    let (code, link) = gateway.shell(&["user", "reset", "bob"]);
    assert_eq!(code, Some(0), "{link}");
    gateway.clock.advance(time::Duration::MINUTE);
    let mut bob = Person::stranger(&gateway, "bob");
    bob.redeem(link.trim()).await;
    let group = |name: &str, members: Value| json!({ "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Group"], "displayName": name, "members": members });
    // A group that the configuration does not name gives nothing, whatever it is called.
    let all = json!([{ "value": user }]);
    let (status, other) = directory.ask("POST", "/Groups", Some(&group("administrator", all.clone()))).await;
    assert_eq!(status, StatusCode::CREATED, "{other}");
    assert!(gateway.grants_of("bob").await.is_empty());
    let (status, ops) = directory.ask("POST", "/Groups", Some(&group("ops", all.clone()))).await;
    assert_eq!((status, &ops["members"][0]["value"]), (StatusCode::CREATED, &json!(user)), "{ops}");
    assert_eq!(gateway.grants_of("bob").await.len(), 1);
    let at = format!("/Groups/{}", ops["id"].as_str().expect("an id"));
    assert_eq!(directory.ask("PUT", &at, Some(&group("ops", all))).await.0, StatusCode::OK);
    assert_eq!(gateway.grants_of("bob").await.len(), 1, "given once");
    ready(&gateway, &bob).await;
    let mut screen = Screen::open(&bob, "lab/web-1", "control", &ticket(&bob, "control").await).await;
    screen.handshake().await;
    screen.picture().await;
    let change = json!({ "schemas": [PATCH], "Operations": [
        { "op": "remove", "path": format!("members[value eq \"{user}\"]") },
    ]});
    let (status, left) = directory.ask("PATCH", &at, Some(&change)).await;
    assert_eq!((status, &left["members"]), (StatusCode::OK, &json!([])), "{left}");
    let (code, reason) = screen.ended(Duration::from_secs(5)).await;
    assert!(code == 4000 && reason.starts_with("access ended: There is no such machine"), "{code} {reason}");
    assert!(gateway.grants_of("bob").await.is_empty());
    // Whom the directory does not keep is in none of its groups.
    let hers = json!([{ "value": gateway.user_id("ada").await }]);
    assert_eq!(directory.ask("PUT", &at, Some(&group("ops", hers))).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(directory.ask("POST", "/Groups", Some(&group("ops", json!([])))).await.0, StatusCode::CONFLICT);
    let back =
        json!({ "schemas": [PATCH], "Operations": [{ "op": "add", "path": "members", "value": [{ "value": user }] }] });
    assert_eq!(directory.ask("PATCH", &at, Some(&back)).await.0, StatusCode::OK);
    assert_eq!(gateway.grants_of("bob").await.len(), 1);
    assert_eq!(directory.ask("DELETE", &at, None).await.0, StatusCode::NO_CONTENT);
    assert!(gateway.grants_of("bob").await.is_empty(), "what the group gave went with it");
    assert_eq!(ada.get("/me").await.status(), StatusCode::OK);
    gateway.stop().await;
}
