// SPDX-License-Identifier: Apache-2.0
//! A Proxmox VE that is as strict as the real one where a gateway could go wrong: it knows its API tokens, lets them be
//! made and taken away, refuses a cookie beside one, takes no chunked body, and opens a screen once, to who asked for it, at the port that it named, with
//! subprotocol `binary`. The screen behind is a real QEMU's.
//!
//! Known differences: one node, machines that never change, every other call answered with an empty 200 and noted down;
//! tickets are random instead of signed; its VNC listener is the guest's own for all screens.

use super::{
    fake::{Answer, Came, body_of, bridge, listen_tls, secret_file},
    peers::Peer,
};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};
use tempfile::TempDir;

/// Secrets of its own that nobody but the gateway may ever see.
pub(crate) const TOKEN: &str = "gateway@pve!portcullis=canary-0f3a7781-token";
const TICKET: &str = "PVEVNC:6AB01234::canary-ticket+/=";
/// Tokens that may do less, for tests that configure them.
pub(crate) const CONSOLE_TOKEN: &str = "gateway@pve!console=canary-1b2c3d44-console";
pub(crate) const POWER_TOKEN: &str = "gateway@pve!power=canary-5e6f7a88-power";
/// What stands in a machine's settings and in a task's answer.
pub(crate) const CANARIES: [&str; 4] =
    ["canary-0f3a7781-token", "canary-ticket", "canary-cipassword", "canary-storage-password"];

/// It runs until the test ends.
pub(crate) struct FakePve {
    dir: TempDir,
    port: u16,
    inside: Arc<Inside>,
}

struct Inside {
    vnc: String,
    password: String,
    came: Mutex<Vec<Came>>,
    tickets: Mutex<HashSet<(String, String)>>,
    wrongs: Mutex<Vec<String>>,
    slow: Mutex<bool>,
    destroyed: Mutex<bool>,
    /// By `user@realm!name`.
    tokens: Mutex<BTreeMap<String, Token>>,
    made: AtomicU32,
    /// What a made token is like.
    makes: Mutex<Makes>,
    /// Which requests are not answered.
    holds: Mutex<Option<(Holds, &'static str, &'static str)>>,
    held: Mutex<Vec<String>>,
}

/// When a request that is not answered is held: before it is done, or after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holds {
    Before,
    After,
}

#[derive(Clone)]
struct Token {
    secret: String,
    is_apart: bool,
    /// Of a token that is apart: where it may do what.
    rights: BTreeSet<(String, String)>,
}

/// What becomes of a token that is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Makes {
    /// It counts.
    Good,
    /// It is refused.
    None,
    /// It does not count.
    Dead,
    /// It counts, and no token can be taken away.
    Stuck,
}

impl FakePve {
    /// Starts one; its machine 100 has the screen of a guest with a VNC password, if there is one.
    pub(crate) async fn start(guest: Option<&Peer>) -> Self {
        let dir = tempfile::Builder::new().prefix("pc").tempdir_in("/tmp").expect("a folder");
        let tls = super::peers::certificates(&dir.path().join("certificates"));
        let token = dir.path().join("token");
        secret_file(&token, TOKEN);
        let password = |guest: &Peer| std::fs::read_to_string(guest.get("PASSWORD_FILE")).expect("a password");
        let password = guest.map(password).unwrap_or_default().trim().to_owned();
        let inside = Arc::new(Inside {
            vnc: guest.map(|g| g.get("VNC").to_owned()).unwrap_or_default(),
            password,
            came: Mutex::default(),
            tickets: Mutex::default(),
            wrongs: Mutex::default(),
            slow: Mutex::default(),
            destroyed: Mutex::default(),
            tokens: Mutex::default(),
            made: AtomicU32::new(0),
            makes: Mutex::new(Makes::Good),
            holds: Mutex::default(),
            held: Mutex::default(),
        });
        for (token, is_apart) in [(TOKEN, false), (CONSOLE_TOKEN, true), (POWER_TOKEN, true)] {
            inside.add(token, is_apart);
        }
        let shared = Arc::clone(&inside);
        let answer = move |request: Request<Incoming>| {
            let inside = Arc::clone(&shared);
            async move {
                let line = format!("{} {}", request.method(), request.uri().path());
                let shown = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
                let shown = shown.unwrap_or_default().to_owned();
                let holds = *inside.holds.lock().expect("whole");
                let held = holds.filter(|(_, beginning, by)| line.starts_with(beginning) && shown.contains(by));
                if held.is_some_and(|(when, ..)| when == Holds::Before) {
                    inside.held.lock().expect("whole").push(line);
                    return std::future::pending().await;
                }
                let answer = inside.answer(request).await;
                if held.is_some() {
                    inside.held.lock().expect("whole").push(line);
                    return std::future::pending().await;
                }
                answer
            }
        };
        let port = listen_tls(&tls, answer).await;
        Self { dir, port, inside }
    }

    /// What the configuration says about it.
    pub(crate) fn config(&self, name: &str, port: u16) -> String {
        self.config_with(name, port, &format!("token_file = {:?}", self.token_file()))
    }

    /// The same with these lines for its credential.
    pub(crate) fn config_with(&self, name: &str, port: u16, credential: &str) -> String {
        let file = |name: &str| self.dir.path().join(name).display().to_string();
        format!(
            "[[hypervisors]]\nname = {name:?}\nkind = \"proxmox\"\naddress = \"https://localhost:{}\"\n\
             tls = {{ ca_file = {:?} }}\napi = {{ port = {port} }}\n{credential}\n",
            self.port,
            file("certificates/ca-cert.pem")
        )
    }

    /// Where it answers.
    pub(crate) fn address(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// The file with its token.
    pub(crate) fn token_file(&self) -> String {
        self.dir.path().join("token").display().to_string()
    }

    /// One more token counts from now on; `apart` where its rights are its own.
    pub(crate) fn add(&self, token: &str, is_apart: bool) {
        self.inside.add(token, is_apart);
    }

    /// A token counts no more.
    pub(crate) fn remove(&self, token: &str) {
        let id = token.split_once('=').expect("a token").0;
        self.inside.tokens.lock().expect("whole").remove(id);
    }

    /// The ids of the tokens that count.
    pub(crate) fn tokens(&self) -> Vec<String> {
        self.inside.tokens.lock().expect("whole").keys().cloned().collect()
    }

    /// The secrets of the tokens that count.
    pub(crate) fn secrets(&self) -> Vec<String> {
        self.inside.tokens.lock().expect("whole").values().map(|t| t.secret.clone()).collect()
    }

    /// From now on, requests with such a beginning, with a token whose text holds a word, are answered no more.
    pub(crate) fn hold(&self, when: Holds, beginning: &'static str, by: &'static str) {
        *self.inside.holds.lock().expect("whole") = Some((when, beginning, by));
    }

    /// Waits until one more request is held.
    pub(crate) async fn held(&self, before: usize) {
        for _ in 0..300 {
            if self.count_held() > before {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        panic!("nothing came to be held");
    }

    /// How many requests were held.
    pub(crate) fn count_held(&self) -> usize {
        self.inside.held.lock().expect("whole").len()
    }

    /// All requests are answered again; those that were held stay so.
    pub(crate) fn let_go(&self) {
        *self.inside.holds.lock().expect("whole") = None;
    }

    /// What becomes of tokens that are made from now on.
    pub(crate) fn make(&self, what: Makes) {
        *self.inside.makes.lock().expect("whole") = what;
    }

    /// The requests that came with a beginning, as `METHOD /path`.
    pub(crate) fn came(&self, beginning: &str) -> Vec<Came> {
        self.inside.came.lock().expect("whole").iter().filter(|c| c.line.starts_with(beginning)).cloned().collect()
    }

    /// What came that a real one would have refused.
    pub(crate) fn wrongs(&self) -> Vec<String> {
        self.inside.wrongs.lock().expect("whole").clone()
    }

    /// From now on, screens are gone before anybody comes for them, as after ten seconds.
    pub(crate) fn close_screens_early(&self) {
        *self.inside.slow.lock().expect("whole") = true;
    }
}

fn whole(status: StatusCode, body: &Value) -> Answer {
    let mut answer = Response::new(Full::from(body.to_string()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json;charset=UTF-8"));
    answer.headers_mut().insert(header::SET_COOKIE, HeaderValue::from_static("PVEAuthCookie=canary-ticket"));
    answer
}

fn data(data: &Value) -> Answer {
    whole(StatusCode::OK, &json!({ "data": data }))
}

fn task(what: &str) -> Answer {
    data(&json!(format!("UPID:pve1:0000F0F0:00AABBCC:65000000:{what}:gateway@pve!portcullis:")))
}

impl Inside {
    fn wrong(&self, status: StatusCode, why: &str) -> Answer {
        self.wrongs.lock().expect("whole").push(why.to_owned());
        whole(status, &json!({ "data": null, "message": why }))
    }

    async fn answer(&self, mut request: Request<Incoming>) -> Answer {
        let (path, query) = (request.uri().path().to_owned(), request.uri().query().unwrap_or_default().to_owned());
        let method = request.method().clone();
        let headers = request.headers().clone();
        if headers.contains_key(header::TRANSFER_ENCODING) {
            return self.wrong(StatusCode::NOT_IMPLEMENTED, "chunked transfer encoding not supported");
        }
        let body = body_of(&mut request).await;
        self.came.lock().expect("whole").push(Came {
            line: format!("{method} {path}"),
            headers: headers.clone(),
            body: body.clone(),
        });
        // The cookie would win over the token.
        if headers.contains_key(header::COOKIE) || headers.contains_key("csrfpreventiontoken") {
            return self.wrong(StatusCode::UNAUTHORIZED, "a ticket beside the token");
        }
        let Some(id) = self.known(&headers) else {
            return self.wrong(StatusCode::UNAUTHORIZED, "invalid token value!");
        };
        if method != Method::GET && !body.is_empty() && !headers.contains_key(header::CONTENT_LENGTH) {
            return self.wrong(StatusCode::NOT_IMPLEMENTED, "no Content-Length");
        }
        let Some(path) = path.strip_prefix("/api2/json") else {
            return self.wrong(StatusCode::NOT_IMPLEMENTED, "another format than json");
        };
        if let Some(answer) = self.access(&id, &method, path, &body) {
            return answer;
        }
        match (method.as_str(), path) {
            ("GET", "/cluster/resources") if *self.destroyed.lock().expect("whole") => data(&json!([
                {"id": "qemu/100", "type": "qemu", "vmid": 100, "node": "pve1", "name": "web-1", "status": "running"},
            ])),
            ("DELETE", "/nodes/pve1/qemu/200") => {
                *self.destroyed.lock().expect("whole") = true;
                task("qmdestroy:200")
            }
            ("POST", "/nodes/pve1/qemu") => task("qmcreate:300"),
            ("GET", "/cluster/resources") => data(&json!([
                {"id": "qemu/100", "type": "qemu", "vmid": 100, "node": "pve1", "name": "web-1", "status": "running",
                 "pool": "blue", "tags": "web;production"},
                {"id": "qemu/200", "type": "qemu", "vmid": 200, "node": "pve1", "name": "payroll", "status": "stopped",
                 "pool": "red"},
                {"id": "node/pve1", "type": "node", "node": "pve1", "status": "online"},
            ])),
            ("GET", "/nodes/pve1/qemu/100/config") => {
                let mut settings = json!({"name": "web-1", "cipassword": "canary-cipassword", "ciuser": "web",
                    "tags": "web;production"});
                match query.as_str() {
                    "snapshot=same" => settings["snaptime"] = json!(1),
                    "snapshot=tagged" => settings["tags"] = json!("web;pay"),
                    "snapshot=with-card" => settings["hostpci0"] = json!("0000:01:00.0"),
                    _ => {}
                }
                data(&settings)
            }
            ("POST", "/nodes/pve1/qemu/100/snapshot/same/rollback") => task("qmrollback:100"),
            ("GET", "/storage/backup") => data(&json!({"storage": "backup", "password": "canary-storage-password"})),
            ("POST", "/nodes/pve1/qemu/100/vncproxy") => self.offer(&body),
            ("GET", "/nodes/pve1/qemu/100/vncwebsocket") => self.screen(&mut request, &query).await,
            _ => data(&Value::Null),
        }
    }

    fn add(&self, token: &str, is_apart: bool) {
        let (id, secret) = token.split_once('=').expect("a token");
        let rights = if is_apart { [("/vms".to_owned(), "PVEVMUser".to_owned())].into() } else { BTreeSet::new() };
        let token = Token { secret: secret.to_owned(), is_apart, rights };
        self.tokens.lock().expect("whole").insert(id.to_owned(), token);
    }

    /// Whose token a request shows, if it counts.
    fn known(&self, headers: &http::HeaderMap) -> Option<String> {
        let shown: Vec<_> = headers.get_all(header::AUTHORIZATION).iter().collect();
        let [one] = shown.as_slice() else { return None };
        let (id, secret) = one.to_str().ok()?.strip_prefix("PVEAPIToken=")?.split_once('=')?;
        let tokens = self.tokens.lock().expect("whole");
        tokens.get(id).filter(|t| t.secret == secret).map(|_| id.to_owned())
    }

    /// What is below `/access`, as far as a token of a user who may change users gets there.
    fn access(&self, by: &str, method: &Method, path: &str, body: &[u8]) -> Option<Answer> {
        let rest = path.strip_prefix("/access/")?;
        let form: BTreeMap<String, String> = std::str::from_utf8(body)
            .unwrap_or_default()
            .split('&')
            .filter_map(|p| p.split_once('='))
            .map(|(k, v)| (k.to_owned(), decoded(v)))
            .collect();
        let mut tokens = self.tokens.lock().expect("whole");
        let makes = *self.makes.lock().expect("whole");
        let own = tokens.get(by).cloned()?;
        let parts: Vec<String> = rest.split('/').map(decoded).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        Some(match (method.as_str(), parts.as_slice()) {
            ("GET", ["permissions"]) if own.is_apart => {
                let paths = own.rights.iter().map(|(path, _)| (path.clone(), json!({"VM.Console": 1, "VM.Audit": 1})));
                data(&Value::Object(paths.collect()))
            }
            ("GET", ["permissions"]) => data(&json!({"/": {"VM.Audit": 1, "VM.Console": 1, "Permissions.Modify": 1},
                "/vms": {"VM.PowerMgmt": 1, "Sys.Console": 1}})),
            ("GET", ["acl"]) => {
                let rows = tokens.iter().flat_map(|(id, t)| {
                    t.rights.iter().map(move |(path, role)| {
                        json!({"path": path, "type": "token", "ugid": id, "roleid": role, "propagate": 1})
                    })
                });
                data(&rows.collect())
            }
            ("PUT", ["acl"]) => {
                let Some(token) = form.get("tokens").and_then(|id| tokens.get_mut(id)) else {
                    drop(tokens);
                    return Some(self.wrong(StatusCode::BAD_REQUEST, "no such token"));
                };
                token.rights.insert((form["path"].clone(), form["roles"].clone()));
                data(&Value::Null)
            }
            ("GET", ["users", user, "token"]) => {
                let own = tokens.iter().filter_map(|(id, t)| Some((id.strip_prefix(&format!("{user}!"))?, t)));
                let rows = own.map(|(name, t)| {
                    let comment = if t.secret.starts_with("canary-made") { "portcullis" } else { "" };
                    json!({"tokenid": name, "comment": comment, "privsep": u8::from(t.is_apart), "expire": 0})
                });
                data(&rows.collect())
            }
            (_, ["users", user, "token", name]) => {
                let id = format!("{user}!{name}");
                match (method.as_str(), tokens.contains_key(&id)) {
                    ("GET", true) => data(&json!({"privsep": u8::from(tokens[&id].is_apart), "expire": 0})),
                    ("POST", false) if makes == Makes::None => {
                        whole(StatusCode::FORBIDDEN, &json!({"data": null, "message": "Permission check failed"}))
                    }
                    ("POST", false) => {
                        let number = self.made.fetch_add(1, Ordering::Relaxed);
                        let secret = format!("canary-made-{number}-{name}");
                        let kept = if makes == Makes::Dead { "another".to_owned() } else { secret.clone() };
                        let is_apart = form.get("privsep").is_none_or(|p| p == "1");
                        tokens.insert(id.clone(), Token { secret: kept, is_apart, rights: BTreeSet::new() });
                        data(&json!({"full-tokenid": id, "info": {"privsep": form.get("privsep")}, "value": secret}))
                    }
                    ("DELETE", true) if makes == Makes::Stuck => {
                        whole(StatusCode::INTERNAL_SERVER_ERROR, &json!({"data": null, "message": "cfs-lock timeout"}))
                    }
                    ("DELETE", true) => {
                        tokens.remove(&id);
                        data(&Value::Null)
                    }
                    _ => whole(StatusCode::BAD_REQUEST, &json!({"data": null, "message": "token or no token"})),
                }
            }
            _ => return None,
        })
    }

    fn offer(&self, body: &[u8]) -> Answer {
        if body != b"websocket=1&generate-password=1" {
            return self.wrong(StatusCode::BAD_REQUEST, "a screen that no browser shows");
        }
        let ticket = format!("{}:{TICKET}", self.password);
        let mut tickets = self.tickets.lock().expect("whole");
        let port = (5900 + tickets.len() % 100).to_string();
        if !*self.slow.lock().expect("whole") {
            tickets.insert((port.clone(), ticket.clone()));
        }
        data(&json!({"port": port, "ticket": ticket, "password": self.password, "user": "gateway@pve!portcullis",
            "cert": "PEM", "upid": "UPID:pve1:0000F0F0:00AABBCC:65000000:vncproxy:100:gateway@pve!portcullis:"}))
    }

    async fn screen(&self, request: &mut Request<Incoming>, query: &str) -> Answer {
        let value = |key: &str| {
            let pair = query.split('&').find_map(|p| p.strip_prefix(&format!("{key}=")));
            decoded(pair.unwrap_or_default())
        };
        if !self.tickets.lock().expect("whole").remove(&(value("port"), value("vncticket"))) {
            return self.wrong(StatusCode::UNAUTHORIZED, "invalid PVEVNC ticket");
        }
        match bridge(request, &self.vnc, "binary").await {
            Ok(answer) => answer,
            Err(why) => self.wrong(StatusCode::BAD_REQUEST, why),
        }
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut digit = || char::from(rest.next().expect("a digit")).to_digit(16).expect("a digit");
        bytes.push(if byte == b'%' { u8::try_from(digit() * 16 + digit()).expect("a byte") } else { byte });
    }
    String::from_utf8(bytes).expect("UTF-8")
}
