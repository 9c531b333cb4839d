// SPDX-License-Identifier: Apache-2.0
//! A HashiCorp Vault that is as strict as the real one where a gateway could go wrong: KV version 2 with its data inside
//! `data.data`, versions and deletion in `metadata`, a 404 with metadata for what was deleted, 403 for a wrong or revoked
//! token, AppRole whose wrong ids are a 400, tokens that run out and are renewed by themselves, one namespace, a
//! `X-Vault-Request` header that is asked for, and 503 when it is sealed.
//!
//! Known differences: no policies beside "may read secret/data/gateway/*"; a role's tokens last six seconds.

use super::{
    fake::{Answer, Came, body_of, listen_tls, secret_file},
    peers,
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tempfile::TempDir;

const ROLE: &str = "role-5f0c";
const SECRET_ID: &str = "canary-secret-id-77";
const TOKEN: &str = "hvs.canary-file-token";
/// How long a token of a role lasts.
const LIFE: Duration = Duration::from_secs(6);
pub(crate) const CANARIES: [&str; 3] = [SECRET_ID, TOKEN, "hvs.canary-role-token"];

/// It runs until the test ends.
pub(crate) struct FakeVault {
    pub(crate) dir: TempDir,
    port: u16,
    inside: Arc<Mutex<Inside>>,
}

#[derive(Default)]
struct Inside {
    secrets: BTreeMap<String, (u64, Option<BTreeMap<String, String>>)>,
    /// Until when each counts; none: for ever.
    tokens: BTreeMap<String, Option<Instant>>,
    minted: u32,
    is_sealed: bool,
    came: Vec<Came>,
    wrongs: Vec<String>,
}

impl FakeVault {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("pc").tempdir_in("/tmp").expect("a folder");
        let tls = peers::certificates(&dir.path().join("certificates"));
        secret_file(&dir.path().join("token"), TOKEN);
        secret_file(&dir.path().join("role"), ROLE);
        secret_file(&dir.path().join("secret-id"), SECRET_ID);
        let inside = Arc::new(Mutex::new(Inside { tokens: [(TOKEN.to_owned(), None)].into(), ..Inside::default() }));
        let shared = Arc::clone(&inside);
        let answer = move |request| {
            let inside = Arc::clone(&shared);
            async move { answer(&inside, request).await }
        };
        let port = listen_tls(&tls, answer).await;
        Self { dir, port, inside }
    }

    /// The section of the configuration; by "token" or "approle".
    pub(crate) fn config(&self, by: &str) -> String {
        let file = |name: &str| self.dir.path().join(name).display().to_string();
        let login = match by {
            "token" => format!("token_file = {:?}", file("token")),
            _ => format!("role_id_file = {:?}\nsecret_id_file = {:?}", file("role"), file("secret-id")),
        };
        format!(
            "[vault]\naddress = \"https://localhost:{}\"\nca_file = {:?}\nnamespace = \"ops\"\nrefresh_seconds = 1\n{login}\n",
            self.port,
            file("certificates/ca-cert.pem")
        )
    }

    fn inside(&self) -> std::sync::MutexGuard<'_, Inside> {
        self.inside.lock().expect("whole")
    }

    /// Writes a new version of a secret below `gateway/`.
    pub(crate) fn put(&self, path: &str, pairs: &[(&str, &str)]) {
        let mut inside = self.inside();
        let version = inside.secrets.get(path).map_or(1, |(v, _)| v + 1);
        let pairs = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        inside.secrets.insert(path.to_owned(), (version, Some(pairs)));
    }

    /// Deletes the newest version.
    pub(crate) fn delete(&self, path: &str) {
        if let Some((_, pairs)) = self.inside().secrets.get_mut(path) {
            *pairs = None;
        }
    }

    pub(crate) fn seal(&self, is_sealed: bool) {
        self.inside().is_sealed = is_sealed;
    }

    /// No token counts any more, as after a revocation; the token file holds another one from now on.
    pub(crate) fn revoke(&self) {
        let mut inside = self.inside();
        inside.minted += 1;
        let token = format!("{TOKEN}-{}", inside.minted);
        inside.tokens = [(token.clone(), None)].into();
        secret_file(&self.dir.path().join("token"), &token);
    }

    /// The requests that came with a beginning, as `METHOD /path`.
    pub(crate) fn came(&self, beginning: &str) -> usize {
        self.inside().came.iter().filter(|c| c.line.starts_with(beginning)).count()
    }

    /// What came that a real one would have refused for its form.
    pub(crate) fn wrongs(&self) -> Vec<String> {
        self.inside().wrongs.clone()
    }
}

fn whole(status: u16, body: &Value) -> Answer {
    let mut answer = Response::new(Full::from(body.to_string()));
    *answer.status_mut() = StatusCode::from_u16(status).expect("a status");
    answer
}

fn errors(status: u16, why: &str) -> Answer {
    whole(status, &json!({ "errors": if why.is_empty() { json!([]) } else { json!([why]) } }))
}

async fn answer(inside: &Mutex<Inside>, mut request: Request<Incoming>) -> Answer {
    let body = body_of(&mut request).await;
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let said = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let mut inside = inside.lock().expect("whole");
    inside.came.push(Came { line: format!("{method} {path}"), headers: request.headers().clone(), body: body.clone() });
    let mut wrong = |why: &str| {
        inside.wrongs.push(format!("{why}: {method} {path}"));
        errors(400, why)
    };
    if said("x-vault-request") != "true" {
        return wrong("missing required Vault header");
    }
    if said("x-vault-namespace") != "ops" {
        return wrong("another namespace");
    }
    let Some(path) = path.strip_prefix("/v1/") else { return wrong("no API") };
    if inside.is_sealed {
        return errors(503, "Vault is sealed");
    }
    let auth = |inside: &mut Inside, token: String| {
        inside.tokens.insert(token.clone(), Some(Instant::now() + LIFE));
        whole(
            200,
            &json!({"request_id": "r", "auth": {"client_token": token, "accessor": "a", "policies": ["gateway"],
            "lease_duration": LIFE.as_secs(), "renewable": true, "token_type": "service"}}),
        )
    };
    if (&method, path) == (&Method::POST, "auth/approle/login") {
        let said: Value = serde_json::from_slice(&body).unwrap_or_default();
        if said != json!({ "role_id": ROLE, "secret_id": SECRET_ID }) {
            return errors(400, "invalid role or secret ID");
        }
        inside.minted += 1;
        let token = format!("hvs.canary-role-token-{}", inside.minted);
        return auth(&mut inside, token);
    }
    let token = said("x-vault-token");
    let counts = inside.tokens.get(&token).is_some_and(|until| until.is_none_or(|until| Instant::now() < until));
    if !counts {
        return errors(403, "permission denied");
    }
    if (&method, path) == (&Method::POST, "auth/token/renew-self") {
        return auth(&mut inside, token);
    }
    match (&method, path.strip_prefix("secret/data/")) {
        (&Method::GET, Some(at)) if at.starts_with("gateway/") => match inside.secrets.get(at) {
            Some((version, Some(pairs))) => whole(
                200,
                &json!({"request_id": "r", "lease_id": "", "renewable": false,
                "lease_duration": 0, "data": {"data": pairs, "metadata": {"created_time": "2026-11-28T10:00:00Z",
                "custom_metadata": null, "deletion_time": "", "destroyed": false, "version": version}}}),
            ),
            Some((version, None)) => whole(
                404,
                &json!({"data": {"data": null, "metadata": {
                "created_time": "2026-11-28T10:00:00Z", "deletion_time": "2026-11-28T11:00:00Z", "destroyed": false,
                "version": version}}}),
            ),
            None => errors(404, ""),
        },
        (&Method::GET, Some(_)) => errors(403, "1 error occurred: permission denied"),
        _ => errors(405, "unsupported operation"),
    }
}
