// SPDX-License-Identifier: Apache-2.0
//! An OpenStack that is as strict as the real one where a gateway could go wrong: Keystone takes one user or application
//! credential and gives tokens that run out; Nova takes one of those as its only credential, answers a list in pages,
//! gives tags from microversion 2.26 on, refuses an action with two keys and names itself by `Host`; the console proxy
//! takes the token of a console, and no `Origin` but its own. The screen behind is a real QEMU's.
//!
//! Known differences: one project is the account's, names are listed in full; power changes at once; the catalog names
//! another host on purpose; calls that are not here are answered with an empty 202 and noted down; Nova never asks
//! Keystone.

use super::{
    fake::{Answer, Came, body_of, bridge, listen_tls, secret_file},
    peers::{self, Peer},
};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Secrets of its own that nobody but the gateway may ever see.
const PASSWORD: &str = "canary-0f3a7781-password";
const SECRET: &str = "canary-6b2d1c90-secret";
const TOKEN: &str = "gAAAAABcanary-token-";
const CONSOLE: &str = "canary0console0token";
pub(crate) const CANARIES: [&str; 6] =
    [PASSWORD, SECRET, TOKEN, CONSOLE, "canary-admin-pass", "Y2FuYXJ5LXVzZXItZGF0YQ"];
/// Servers of the projects blue, red and blue.
pub(crate) const WEB: &str = "0a1b2c3d-0000-4000-8000-000000000001";
pub(crate) const PAYROLL: &str = "0a1b2c3d-0000-4000-8000-000000000002";
pub(crate) const DB: &str = "0a1b2c3d-0000-4000-8000-000000000003";
const PROJECT: &str = "50c0ffee000000000000000000000001";
/// Servers of a page at most.
const PAGE: usize = 2;

/// It runs until the test ends.
pub(crate) struct FakeOpenStack {
    dir: TempDir,
    inside: Arc<Inside>,
    ports: (u16, u16, u16),
}

struct Inside {
    vnc: String,
    life: Mutex<Duration>,
    came: Mutex<Vec<Came>>,
    wrongs: Mutex<Vec<String>>,
    tokens: Mutex<BTreeMap<String, Instant>>,
    consoles: Mutex<HashSet<String>>,
    states: Mutex<BTreeMap<String, (&'static str, u8)>>,
    /// Where a console is said to be.
    console: OnceLock<String>,
    compute: OnceLock<String>,
    elsewhere: Mutex<bool>,
    circles: Mutex<bool>,
    password: Mutex<String>,
    /// Application credentials by id.
    applications: Mutex<BTreeMap<String, Application>>,
    made: AtomicUsize,
    /// As whom each token was given.
    holders: Mutex<BTreeMap<String, String>>,
}

/// One application credential.
#[derive(Clone)]
pub(crate) struct Application {
    pub(crate) secret: String,
    pub(crate) is_unrestricted: bool,
    /// What was said when it was made.
    pub(crate) said: Value,
}

impl FakeOpenStack {
    /// Starts one; its server [`WEB`] has the screen of a guest without a password, if there is one.
    pub(crate) async fn start(guest: Option<&Peer>) -> Self {
        let dir = tempfile::Builder::new().prefix("pc").tempdir_in("/tmp").expect("a folder");
        let tls = peers::certificates(&dir.path().join("certificates"));
        secret_file(&dir.path().join("password"), PASSWORD);
        secret_file(&dir.path().join("secret"), SECRET);
        let states = [(WEB, ("ACTIVE", 1)), (PAYROLL, ("SHUTOFF", 4)), (DB, ("ACTIVE", 1))];
        let inside = Arc::new(Inside {
            vnc: guest.map(|g| g.get("VNC").to_owned()).unwrap_or_default(),
            life: Mutex::new(Duration::from_hours(1)),
            came: Mutex::default(),
            wrongs: Mutex::default(),
            tokens: Mutex::default(),
            consoles: Mutex::default(),
            states: Mutex::new(states.map(|(id, state)| (id.to_owned(), state)).into()),
            console: OnceLock::new(),
            compute: OnceLock::new(),
            elsewhere: Mutex::default(),
            circles: Mutex::default(),
            password: Mutex::new(PASSWORD.to_owned()),
            applications: Mutex::default(),
            made: AtomicUsize::new(0),
            holders: Mutex::default(),
        });
        let first =
            Application { secret: SECRET.to_owned(), is_unrestricted: false, said: json!({ "name": "gateway" }) };
        inside.applications.lock().expect("whole").insert("ac1".to_owned(), first);
        let (one, two, three) = (Arc::clone(&inside), Arc::clone(&inside), Arc::clone(&inside));
        let keystone = move |request| {
            let inside = Arc::clone(&one);
            async move { inside.keystone(request).await }
        };
        let nova = move |request| {
            let inside = Arc::clone(&two);
            async move { inside.nova(request).await }
        };
        let proxy = move |request| {
            let inside = Arc::clone(&three);
            async move { inside.proxy(request).await }
        };
        let ports = (listen_tls(&tls, keystone).await, listen_tls(&tls, nova).await, listen_tls(&tls, proxy).await);
        inside.console.set(format!("https://localhost:{}", ports.2)).expect("once");
        inside.compute.set(format!("localhost:{}", ports.1)).expect("once");
        Self { dir, inside, ports }
    }

    /// What the configuration says about it, with a password or an application credential.
    pub(crate) fn config(&self, name: &str, port: u16, by: &str) -> String {
        self.config_with(name, port, by, "")
    }

    /// The same with these lines for more credentials.
    pub(crate) fn config_with(&self, name: &str, port: u16, by: &str, more: &str) -> String {
        let file = |name: &str| self.dir.path().join(name).display().to_string();
        let (keystone, nova, proxy) = self.ports;
        let who = match by {
            "password" => format!("user = \"gateway\"\nproject = \"service\"\nsecret_file = {:?}", file("password")),
            _ => format!("application_credential = \"ac1\"\nsecret_file = {:?}", file("secret")),
        };
        format!(
            "[[hypervisors]]\nname = {name:?}\nkind = \"openstack\"\nidentity = \"https://localhost:{keystone}/v3\"\n\
             compute = \"https://localhost:{nova}/v2.1\"\nconsole = \"https://localhost:{proxy}\"\n{who}\n\
             [hypervisors.tls]\nca_file = {:?}\n[hypervisors.api]\nport = {port}\n{more}",
            file("certificates/ca-cert.pem")
        )
    }

    /// The application credentials that there are, by id.
    pub(crate) fn applications(&self) -> BTreeMap<String, Application> {
        self.inside.applications.lock().expect("whole").clone()
    }

    /// The application credential of the configuration may make others from now on, or not.
    pub(crate) fn unrestrict(&self, id: &str, is_unrestricted: bool) {
        self.inside.applications.lock().expect("whole").get_mut(id).expect("there").is_unrestricted = is_unrestricted;
    }

    /// One more of them.
    pub(crate) fn add_application(&self, id: &str, secret: &str) {
        let one = Application { secret: secret.to_owned(), is_unrestricted: false, said: json!({ "name": id }) };
        self.inside.applications.lock().expect("whole").insert(id.to_owned(), one);
    }

    /// One of them counts no more.
    pub(crate) fn remove_application(&self, id: &str) {
        self.inside.applications.lock().expect("whole").remove(id);
        self.inside.forget(id);
    }

    /// As whom requests with a beginning came: `password`, or the id of an application credential.
    pub(crate) fn came_as(&self, beginning: &str) -> Vec<String> {
        let holders = self.inside.holders.lock().expect("whole");
        let of = |came: Came| {
            let token = came.headers.get("x-auth-token").and_then(|t| t.to_str().ok()).unwrap_or_default().to_owned();
            holders.get(&token).cloned().unwrap_or_else(|| "nobody".to_owned())
        };
        let mut all: Vec<_> = self.came(beginning).into_iter().map(of).collect();
        all.sort();
        all.dedup();
        all
    }

    /// The password that counts now.
    pub(crate) fn password(&self) -> String {
        self.inside.password.lock().expect("whole").clone()
    }

    /// The requests that came with a beginning, as `METHOD /path`.
    pub(crate) fn came(&self, beginning: &str) -> Vec<Came> {
        self.inside.came.lock().expect("whole").iter().filter(|c| c.line.starts_with(beginning)).cloned().collect()
    }

    /// What came that a real one would have refused.
    pub(crate) fn wrongs(&self) -> Vec<String> {
        self.inside.wrongs.lock().expect("whole").clone()
    }

    /// From now on, tokens live for so long.
    pub(crate) fn shorten_tokens(&self, life: Duration) {
        *self.inside.life.lock().expect("whole") = life;
    }

    /// Every token that it gave is worth nothing from now on.
    pub(crate) fn forget_tokens(&self) {
        self.inside.tokens.lock().expect("whole").clear();
    }

    /// Whether each page of servers names another one, the last one the first.
    pub(crate) fn go_in_circles(&self, is: bool) {
        *self.inside.circles.lock().expect("whole") = is;
    }

    /// From now on, consoles are said to be at another host.
    pub(crate) fn send_consoles_elsewhere(&self) {
        *self.inside.elsewhere.lock().expect("whole") = true;
    }
}

fn whole(status: StatusCode, body: &Value) -> Answer {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let mut answer = Response::new(Full::from(text));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer.headers_mut().insert("x-openstack-request-id", HeaderValue::from_static("req-of-nova"));
    answer
}

impl Inside {
    fn wrong(&self, status: StatusCode, why: &str) -> Answer {
        self.wrongs.lock().expect("whole").push(why.to_owned());
        whole(status, &json!({ "badRequest": { "code": status.as_u16(), "message": why } }))
    }

    fn note(&self, request: &Request<Incoming>, body: &[u8]) {
        self.came.lock().expect("whole").push(Came {
            line: format!("{} {}", request.method(), request.uri()),
            headers: request.headers().clone(),
            body: body.to_vec(),
        });
    }

    /// Whether the request's one credential is a token that lives.
    fn knows(&self, request: &Request<Incoming>) -> bool {
        let shown: Vec<_> = request.headers().get_all("x-auth-token").iter().collect();
        let [token] = shown.as_slice() else { return false };
        let tokens = self.tokens.lock().expect("whole");
        tokens.get(token.to_str().unwrap_or_default()).is_some_and(|until| *until > Instant::now())
    }

    async fn keystone(&self, mut request: Request<Incoming>) -> Answer {
        let body = body_of(&mut request).await;
        self.note(&request, &body);
        let refused = || {
            let error = json!({ "code": 401, "title": "Unauthorized", "message": "The request you have made requires authentication." });
            whole(StatusCode::UNAUTHORIZED, &json!({ "error": error }))
        };
        match (request.method().as_str(), request.uri().path()) {
            ("POST", "/v3/auth/tokens") => {
                let said: Value = serde_json::from_slice(&body).unwrap_or_default();
                let domain = json!({ "name": "Default" });
                let by_password = json!({ "auth": {
                    "identity": { "methods": ["password"], "password": { "user": {
                        "name": "gateway", "domain": domain, "password": *self.password.lock().expect("whole") } } },
                    "scope": { "project": { "name": "service", "domain": domain } },
                }});
                let applications = self.applications.lock().expect("whole").clone();
                let by_secret = applications.iter().find(|(id, one)| {
                    said == json!({ "auth": { "identity": {
                        "methods": ["application_credential"],
                        "application_credential": { "id": id, "secret": one.secret },
                    }}})
                });
                let holder = match by_secret {
                    Some((id, _)) => id.clone(),
                    None if said == by_password => "password".to_owned(),
                    None => return refused(),
                };
                let life = *self.life.lock().expect("whole");
                let mut tokens = self.tokens.lock().expect("whole");
                let token = format!("{TOKEN}{}", tokens.len() + 1000 + self.came.lock().expect("whole").len());
                tokens.insert(token.clone(), Instant::now() + life);
                self.holders.lock().expect("whole").insert(token.clone(), holder);
                let time = |seconds: u64| {
                    format!("2026-11-28T{:02}:{:02}:{:02}.000000Z", seconds / 3600, seconds / 60 % 60, seconds % 60)
                };
                let url = "https://evil.example:8774/v2.1";
                let mut answer = whole(
                    StatusCode::CREATED,
                    &json!({ "token": {
                        "methods": ["password"], "issued_at": time(0), "expires_at": time(life.as_secs()),
                        "project": { "id": PROJECT, "name": "service", "domain": { "id": "default", "name": "Default" } },
                        "user": { "id": "u1", "name": "gateway" }, "roles": [{ "id": "r1", "name": "admin" }],
                        "catalog": [{ "type": "compute", "name": "nova", "id": "s1", "endpoints": [
                            { "id": "e1", "interface": "public", "region": "north", "region_id": "north", "url": url }] }],
                    }}),
                );
                answer.headers_mut().insert("x-subject-token", token.parse().expect("a token"));
                answer
            }
            ("POST", "/v3/users/u1/password") => {
                let said: Value = serde_json::from_slice(&body).unwrap_or_default();
                let mut password = self.password.lock().expect("whole");
                let new = said["user"]["password"].as_str().filter(|new| new.len() >= 12 && *new != password.as_str());
                let (Some(new), true) = (new, said["user"]["original_password"] == json!(*password)) else {
                    return refused();
                };
                new.clone_into(&mut password);
                // With its password every token of a user is gone.
                self.tokens.lock().expect("whole").clear();
                let mut done = Answer::default();
                *done.status_mut() = StatusCode::NO_CONTENT;
                done
            }
            (method, path) if path.starts_with("/v3/users/u1/application_credentials") && self.knows(&request) => {
                let by = self.holder(&request);
                self.application(method, path, &by, &body)
            }
            ("GET", "/v3/projects") if self.knows(&request) => whole(
                StatusCode::OK,
                &json!({ "projects": [
                    { "id": PROJECT, "name": "service" }, { "id": "p-blue", "name": "blue" }, { "id": "p-red", "name": "red" },
                    { "id": "p-x", "name": "twice" }, { "id": "p-y", "name": "twice" },
                ]}),
            ),
            _ => refused(),
        }
    }

    /// As whom somebody asks.
    fn holder(&self, request: &Request<Incoming>) -> String {
        let token = request.headers()["x-auth-token"].to_str().expect("text");
        self.holders.lock().expect("whole")[token].clone()
    }

    /// The tokens of one application credential are gone.
    fn forget(&self, id: &str) {
        let holders = self.holders.lock().expect("whole").clone();
        self.tokens.lock().expect("whole").retain(|token, _| holders.get(token).is_none_or(|h| h != id));
    }

    /// Application credentials of the user: read by their owner, made and deleted by who is unrestricted.
    fn application(&self, method: &str, path: &str, by: &str, body: &[u8]) -> Answer {
        let no = |status: StatusCode, why: &str| {
            whole(status, &json!({ "error": { "code": status.as_u16(), "title": why, "message": why } }))
        };
        let shown = |id: &str, one: &Application| {
            let said = |key: &str| one.said.get(key).cloned().unwrap_or_default();
            json!({ "id": id, "name": said("name"), "description": said("description"), "project_id": PROJECT,
                "unrestricted": one.is_unrestricted, "expires_at": "2027-02-13T12:12:12.000000",
                "roles": [{ "id": "r1", "name": "admin", "domain_id": null }, { "id": "r2", "name": "reader" }],
                "access_rules": [{ "id": "rule1", "path": "/v2.1/servers", "method": "GET", "service": "compute" }] })
        };
        let mut all = self.applications.lock().expect("whole");
        let id = path.strip_prefix("/v3/users/u1/application_credentials").expect("checked").trim_start_matches('/');
        let may_change = by == "password" || all.get(by).is_some_and(|one| one.is_unrestricted);
        match (method, id) {
            ("GET", "") => {
                let rows: Vec<Value> = all.iter().map(|(id, one)| shown(id, one)).collect();
                whole(StatusCode::OK, &json!({ "application_credentials": rows, "links": {} }))
            }
            ("GET", id) => match all.get(id) {
                Some(one) => whole(StatusCode::OK, &json!({ "application_credential": shown(id, one) })),
                None => no(StatusCode::NOT_FOUND, "Not Found"),
            },
            _ if !may_change => no(StatusCode::FORBIDDEN, "You are not authorized to perform the requested action"),
            ("POST", "") => {
                let said: Value = serde_json::from_slice(body).unwrap_or_default();
                let said = said["application_credential"].clone();
                if !said["name"].is_string() || all.values().any(|one| one.said["name"] == said["name"]) {
                    return no(StatusCode::CONFLICT, "Conflict");
                }
                let id = format!("ac{}", self.made.fetch_add(1, Ordering::Relaxed) + 100);
                let is_unrestricted = said["unrestricted"] == true;
                let one = Application { secret: format!("canary-made-{id}"), is_unrestricted, said };
                let mut answer = shown(&id, &one);
                answer["secret"] = json!(one.secret);
                all.insert(id, one);
                whole(StatusCode::CREATED, &json!({ "application_credential": answer }))
            }
            ("DELETE", id) if all.remove(id).is_some() => {
                drop(all);
                self.forget(id);
                let mut done = Answer::default();
                *done.status_mut() = StatusCode::NO_CONTENT;
                done
            }
            _ => no(StatusCode::NOT_FOUND, "Not Found"),
        }
    }

    fn server(&self, id: &str, minor: u32) -> Value {
        let (name, project, tags) = match id {
            WEB => ("web-1", "p-blue", json!(["web"])),
            PAYROLL => ("payroll", "p-red", json!([])),
            _ => ("db-1", "p-x", json!([])),
        };
        let (status, power) = self.states.lock().expect("whole")[id];
        let host = self.compute.get().expect("a place");
        let mut server = json!({
            "id": id, "name": name, "status": status, "tenant_id": project, "user_id": "u1", "metadata": {},
            "OS-EXT-STS:power_state": power, "OS-EXT-STS:task_state": null, "OS-EXT-STS:vm_state": "active",
            "OS-EXT-SRV-ATTR:host": "cmp1", "OS-EXT-SRV-ATTR:user_data": "Y2FuYXJ5LXVzZXItZGF0YQ==",
            "flavor": { "id": "1" }, "image": { "id": "i1" }, "addresses": {}, "created": "2026-11-28T10:00:00Z",
            "links": [{ "rel": "self", "href": format!("https://{host}/v2.1/servers/{id}") },
                      { "rel": "bookmark", "href": format!("https://{host}/servers/{id}") }],
        });
        if minor >= 26 {
            server["tags"] = tags;
        }
        server
    }

    async fn nova(&self, mut request: Request<Incoming>) -> Answer {
        let body = body_of(&mut request).await;
        self.note(&request, &body);
        let headers = request.headers();
        if !self.knows(&request) {
            return whole(StatusCode::UNAUTHORIZED, &json!({ "error": { "code": 401, "message": "token" } }));
        }
        let reserved =
            ["authorization", "cookie", "x-service-token", "x-subject-token", "x-roles", "x-identity-status"];
        if reserved.iter().any(|name| headers.contains_key(*name)) {
            return self.wrong(StatusCode::BAD_REQUEST, "another credential beside the token");
        }
        let tied = headers.get_all("x-openstack-request-id").iter().collect::<Vec<_>>();
        if tied.len() > 1
            || tied.first().is_some_and(|id| !id.to_str().is_ok_and(|t| t.starts_with("req-") && t.len() == 40))
        {
            return self.wrong(StatusCode::BAD_REQUEST, "a request id that is none");
        }
        let version = headers.get("openstack-api-version").and_then(|v| v.to_str().ok()).unwrap_or("compute 2.1");
        let minor: u32 = version.strip_prefix("compute 2.").and_then(|m| m.parse().ok()).unwrap_or(999);
        if minor > 96 {
            return self.wrong(StatusCode::NOT_ACCEPTABLE, "a version that it does not have");
        }
        let path = request.uri().path().to_owned();
        let query = request.uri().query().unwrap_or_default().to_owned();
        let method = request.method().clone();
        let of = |rest: &str| path.strip_prefix("/v2.1/servers/").and_then(|p| p.strip_suffix(rest)).map(str::to_owned);
        let is_known = |id: &String| self.states.lock().expect("whole").contains_key(id);
        let host = self.compute.get().expect("a place");
        let absent = || {
            whole(
                StatusCode::NOT_FOUND,
                &json!({ "itemNotFound": { "code": 404, "message": "Instance could not be found." } }),
            )
        };
        match (method, path.as_str()) {
            (Method::GET, "/v2.1" | "/v2.1/") => whole(
                StatusCode::OK,
                &json!({ "version": {
                    "id": "v2.1", "status": "CURRENT", "version": "2.96", "min_version": "2.1", "updated": "2013-07-23T11:33:21Z",
                    "links": [{ "rel": "self", "href": format!("https://{host}/v2.1/") }], "media-types": [],
                }}),
            ),
            (Method::GET, "/v2.1/flavors/detail") => whole(
                StatusCode::OK,
                &json!({ "flavors": [
                { "id": "1", "name": "tiny", "ram": 64, "vcpus": 1, "disk": 0,
                  "links": [{ "rel": "self", "href": format!("https://{host}/v2.1/flavors/1") }] }] }),
            ),
            (Method::GET, "/v2.1/servers/detail" | "/v2.1/servers") => self.list(&query, minor),
            (Method::POST, "/v2.1/servers") => whole(
                StatusCode::ACCEPTED,
                &json!({ "server": {
                "id": "0a1b2c3d-0000-4000-8000-000000000009", "adminPass": "canary-admin-pass",
                "links": [{ "rel": "self", "href": format!("https://{host}/v2.1/servers/9") }] } }),
            ),
            (Method::POST, _) if let Some(id) = of("/action").filter(is_known) => self.action(&id, &body),
            (Method::POST, _) if let Some(id) = of("/remote-consoles").filter(is_known) => {
                self.console(&id, &body, minor)
            }
            (Method::GET, _) if let Some(id) = of("").filter(is_known) => {
                whole(StatusCode::OK, &json!({ "server": self.server(&id, minor) }))
            }
            (Method::GET, other) if other.starts_with("/v2.1/servers/") => absent(),
            _ => whole(StatusCode::ACCEPTED, &Value::Null),
        }
    }

    fn list(&self, query: &str, minor: u32) -> Answer {
        let value = |key: &str| query.split('&').find_map(|p| p.strip_prefix(&format!("{key}=")).map(str::to_owned));
        let all: Vec<String> = self.states.lock().expect("whole").keys().cloned().collect();
        let begin = match value("marker") {
            Some(marker) => match all.iter().position(|id| *id == marker) {
                Some(at) => at + 1,
                None => return self.wrong(StatusCode::BAD_REQUEST, "a marker that it does not know"),
            },
            None => 0,
        };
        let named = |id: &&String| value("name").is_none_or(|name| self.server(id, 1)["name"] == name.as_str());
        let found: Vec<&String> = all[begin..].iter().filter(named).collect();
        let circles = *self.circles.lock().expect("whole");
        let found = if circles && found.is_empty() { all.iter().collect() } else { found };
        let page: Vec<Value> = found.iter().take(PAGE).map(|id| self.server(id, minor)).collect();
        let mut answer = json!({ "servers": page });
        if found.len() > PAGE || circles {
            let (host, last) = (self.compute.get().expect("a place"), found[PAGE.min(found.len()) - 1]);
            let href = format!("https://{host}/v2.1/servers/detail?limit={PAGE}&marker={last}");
            answer["servers_links"] = json!([{ "rel": "next", "href": href }]);
        }
        whole(StatusCode::OK, &answer)
    }

    fn action(&self, id: &str, body: &[u8]) -> Answer {
        let said: Value = serde_json::from_slice(body).unwrap_or_default();
        let keys: Vec<&String> = said.as_object().map(|o| o.keys().collect()).unwrap_or_default();
        let [key] = keys.as_slice() else {
            return self.wrong(StatusCode::BAD_REQUEST, "Malformed request body: too many body keys");
        };
        let state = match key.as_str() {
            "os-start" | "reboot" | "unpause" | "resume" => ("ACTIVE", 1),
            "os-stop" => ("SHUTOFF", 4),
            "pause" => ("PAUSED", 3),
            "suspend" => ("SUSPENDED", 7),
            "createImage" => return whole(StatusCode::ACCEPTED, &json!({ "image_id": "i2" })),
            "rebuild" => {
                let server = json!({ "server": { "id": id, "adminPass": "canary-admin-pass" } });
                return whole(StatusCode::ACCEPTED, &server);
            }
            _ => return whole(StatusCode::ACCEPTED, &Value::Null),
        };
        let mut states = self.states.lock().expect("whole");
        if key.as_str() == "os-start" && states[id].0 == "ACTIVE" {
            let why = "Cannot 'start' instance while it is in vm_state active";
            return whole(StatusCode::CONFLICT, &json!({ "conflictingRequest": { "code": 409, "message": why } }));
        }
        states.insert(id.to_owned(), state);
        whole(StatusCode::ACCEPTED, &Value::Null)
    }

    fn console(&self, id: &str, body: &[u8], minor: u32) -> Answer {
        let said: Value = serde_json::from_slice(body).unwrap_or_default();
        if minor < 6 || said != json!({ "remote_console": { "protocol": "vnc", "type": "novnc" } }) {
            return self.wrong(StatusCode::BAD_REQUEST, "a console that it does not have");
        }
        if self.states.lock().expect("whole")[id].0 != "ACTIVE" {
            let why = "Instance is not ready";
            return whole(StatusCode::CONFLICT, &json!({ "conflictingRequest": { "code": 409, "message": why } }));
        }
        let mut consoles = self.consoles.lock().expect("whole");
        let token = format!("{CONSOLE}{}", consoles.len());
        consoles.insert(token.clone());
        let elsewhere = *self.elsewhere.lock().expect("whole");
        let at = if elsewhere { "https://evil.example" } else { self.console.get().expect("a place") };
        let url = format!("{at}/vnc_lite.html?path=%3Ftoken%3D{token}");
        whole(StatusCode::OK, &json!({ "remote_console": { "protocol": "vnc", "type": "novnc", "url": url } }))
    }

    async fn proxy(&self, mut request: Request<Incoming>) -> Answer {
        self.note(&request, b"");
        let query = request.uri().query().unwrap_or_default();
        let token = query.strip_prefix("token=").unwrap_or_default().to_owned();
        if request.headers().contains_key(header::ORIGIN) || request.headers().contains_key("x-auth-token") {
            return self.wrong(StatusCode::FORBIDDEN, "something that only a browser or Nova is shown");
        }
        if !self.consoles.lock().expect("whole").contains(&token) {
            return self.wrong(StatusCode::FORBIDDEN, "a token that it does not know");
        }
        match bridge(&mut request, &self.vnc, "binary").await {
            Ok(answer) => answer,
            Err(why) => self.wrong(StatusCode::BAD_REQUEST, why),
        }
    }
}
