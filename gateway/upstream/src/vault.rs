// SPDX-License-Identifier: Apache-2.0
//! HashiCorp Vault, secrets engine KV version 2: reads secrets, with a token from a file or by AppRole.
//!
//! What is read stays in memory with whoever uses it; when Vault is away, the last good value goes on. Facts by
//! developer.hashicorp.com/vault/api-docs: secret/kv/kv-v2 ("Read secret version"), auth/approle ("Login"), auth/token
//! ("Renew a token (self)"), and the status codes of its index page.

use crate::{error::Error, outbound::Outbound};
use http::{HeaderValue, Method, Request};
use portcullis_domain::Secret;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{path::PathBuf, time::Duration};
use tokio::{sync::Mutex, time::Instant};
use zeroize::Zeroizing;

/// The largest answer, bytes: a secret of KV is at most 1 MiB where nobody said otherwise.
const MAX_ANSWER: usize = 2 * 1024 * 1024;
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// After this part of its life a token is renewed.
const USED: f64 = 0.66;

/// `[vault]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaultConfig {
    /// `https://host:port`, usually port 8200.
    pub address: String,
    /// PEM file with the CA certificates that may have signed its certificate; missing: the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Where the engine is mounted.
    #[serde(default = "mount")]
    pub mount: String,
    /// The namespace, of the editions that have them.
    #[serde(default)]
    pub namespace: Option<String>,
    /// File with a token, which something else keeps fresh; or `role_id_file` and `secret_id_file`.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// File with the id of an AppRole.
    #[serde(default)]
    pub role_id_file: Option<PathBuf>,
    /// File with its secret id.
    #[serde(default)]
    pub secret_id_file: Option<PathBuf>,
    /// How often secrets are read anew, in seconds, 1 to 86,400.
    #[serde(default = "refresh")]
    pub refresh_seconds: u64,
}

fn mount() -> String {
    "secret".to_owned()
}

const fn refresh() -> u64 {
    300
}

impl VaultConfig {
    /// Makes relative paths count from a folder.
    pub fn rebase(&mut self, folder: &std::path::Path) {
        let files = [&mut self.ca_file, &mut self.token_file, &mut self.role_id_file, &mut self.secret_id_file];
        for path in files.into_iter().flatten().filter(|p| p.is_relative()) {
            *path = folder.join(&*path);
        }
    }
}

/// How the gateway is known there. Files are read each time: something else may renew them.
enum Login {
    Token(PathBuf),
    AppRole { role_id: PathBuf, secret_id: PathBuf },
}

struct Token {
    value: Secret,
    /// When it is to be renewed; none where it does not end.
    renew_at: Option<Instant>,
    can_renew: bool,
}

/// A way to Vault.
pub struct Vault {
    outbound: Outbound,
    base: String,
    mount: String,
    namespace: Option<HeaderValue>,
    login: Login,
    token: Mutex<Option<Token>>,
    every: Duration,
}

/// Why a request came to nothing.
pub(crate) enum Failed {
    /// The token does not count.
    Forbidden,
    /// It is not there, or sealed: no other secret can be had either.
    Away(String),
    /// Anything else, in words.
    Else(String),
}

impl From<Failed> for String {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Forbidden => "says 403: the gateway's token or role may not read that".to_owned(),
            Failed::Away(why) | Failed::Else(why) => why,
        }
    }
}

#[derive(Deserialize)]
struct Granted {
    auth: Auth,
}

#[derive(Deserialize)]
struct Auth {
    client_token: String,
    #[serde(default)]
    lease_duration: u64,
    #[serde(default)]
    renewable: bool,
}

impl Auth {
    fn token(self) -> Result<Token, Failed> {
        let is_token = !self.client_token.is_empty() && self.client_token.bytes().all(|b| b.is_ascii_graphic());
        if !is_token {
            return Err(Failed::Else("answers a sign-in without a proper token".to_owned()));
        }
        // A life of 0 has no end.
        let life = Duration::from_secs(self.lease_duration.min(365 * 86_400));
        let renew_at = (!life.is_zero()).then(|| Instant::now() + life.mul_f64(USED));
        Ok(Token { value: Secret::from(self.client_token), renew_at, can_renew: self.renewable })
    }
}

impl Vault {
    /// Reads the section. Nothing is asked yet.
    pub fn new(config: VaultConfig) -> Result<Self, Error> {
        let wrong = |key: &str, why: String| Error::config(format!("vault.{key}"), why);
        let rest = config.address.strip_prefix("https://").map(|r| r.strip_suffix('/').unwrap_or(r));
        let rest = rest.filter(|r| !r.is_empty() && !r.contains(['/', '?', '#', '@']));
        let rest = rest.ok_or_else(|| wrong("address", format!("{:?} is no https://host:port", config.address)))?;
        let is_part = |p: &str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        if !config.mount.split('/').all(is_part) {
            return Err(wrong("mount", format!("{:?} is no mount", config.mount)));
        }
        if !(1..=86_400).contains(&config.refresh_seconds) {
            return Err(wrong("refresh_seconds", "must be 1 to 86400".to_owned()));
        }
        let namespace = config.namespace.map(|n| HeaderValue::from_str(&n)).transpose();
        let namespace = namespace.map_err(|_| wrong("namespace", "is no namespace".to_owned()))?;
        let login = match (config.token_file, config.role_id_file, config.secret_id_file) {
            (Some(file), None, None) => Login::Token(file),
            (None, Some(role_id), Some(secret_id)) => Login::AppRole { role_id, secret_id },
            _ => return Err(wrong("token_file", "set token_file, or role_id_file and secret_id_file".to_owned())),
        };
        // What can be found wrong now is not found in an outage.
        match &login {
            Login::Token(file) => drop(Outbound::read_secret("vault.token_file", file)?),
            Login::AppRole { role_id, secret_id } => {
                drop(Outbound::read_secret("vault.role_id_file", role_id)?);
                drop(Outbound::read_secret("vault.secret_id_file", secret_id)?);
            }
        }
        Ok(Self {
            outbound: Outbound::new("vault.ca_file", config.ca_file.as_deref())?,
            base: format!("https://{rest}/v1/"),
            mount: config.mount,
            namespace,
            login,
            token: Mutex::new(None),
            every: Duration::from_secs(config.refresh_seconds),
        })
    }

    /// How often secrets are to be read anew.
    pub const fn every(&self) -> Duration {
        self.every
    }

    /// One key of a secret. In words where it cannot be had; never with anything of what is there.
    pub(crate) async fn read(&self, path: &str, key: &str) -> Result<Secret, Failed> {
        let none = |why: String| Failed::Else(why);
        let target = format!("{}/data/{path}", self.mount);
        let mut is_second = false;
        let answer = loop {
            let token = self.token().await?;
            match self.ask(Method::GET, &target, None, Some(&token)).await {
                // The token may have been revoked: once more with another one.
                Err(Failed::Forbidden) if !is_second => {
                    is_second = true;
                    *self.token.lock().await = None;
                }
                done => break done?,
            }
        };
        let read: Read = serde_json::from_slice(&answer)
            .map_err(|_| none("answers with something else than a secret of KV version 2".to_owned()))?;
        if read.data.metadata.destroyed || !read.data.metadata.deletion_time.is_empty() {
            return Err(none(format!("says that {path} was deleted")));
        }
        let mut all = read.data.data.ok_or_else(|| none(format!("has nothing at {path}")))?;
        let found = match all.remove(key) {
            Some(Value::String(text)) if !text.is_empty() => Ok(Secret::from(text)),
            Some(_) => Err(none(format!("has something else than a text in {path} at {key}"))),
            None => Err(none(format!("has no {key} in {path}"))),
        };
        all.into_iter().for_each(|(_, other)| wipe(other));
        found
    }

    /// The token, got or renewed if it is time.
    async fn token(&self) -> Result<Secret, Failed> {
        let mut held = self.token.lock().await;
        if let Some(token) = &*held {
            if token.renew_at.is_none_or(|at| Instant::now() < at) {
                return Ok(token.value.clone());
            }
            if token.can_renew {
                let renewed =
                    self.ask(Method::POST, "auth/token/renew-self", Some(json!({})), Some(&token.value)).await;
                if let Ok(answer) = renewed
                    && let Ok(granted) = serde_json::from_slice::<Granted>(&answer)
                {
                    let token = granted.auth.token()?;
                    let value = token.value.clone();
                    *held = Some(token);
                    return Ok(value);
                }
            }
        }
        let token = self.sign_in().await?;
        let value = token.value.clone();
        *held = Some(token);
        Ok(value)
    }

    async fn sign_in(&self) -> Result<Token, Failed> {
        let read = |key: &str, file: &PathBuf| {
            Outbound::read_secret(key, file).map_err(|e| Failed::Else(format!("was not asked: {e}")))
        };
        match &self.login {
            Login::Token(file) => {
                let value = read("vault.token_file", file)?;
                // How long it lasts is its owner's business, unless it can be renewed: then it is, from now on.
                Ok(Token { value, renew_at: None, can_renew: false })
            }
            Login::AppRole { role_id, secret_id } => {
                let (role_id, secret_id) =
                    (read("vault.role_id_file", role_id)?, read("vault.secret_id_file", secret_id)?);
                let body = json!({ "role_id": role_id.expose_text(), "secret_id": secret_id.expose_text() });
                let answer = self.ask(Method::POST, "auth/approle/login", Some(body), None).await.map_err(
                    |failed| match failed {
                        Failed::Forbidden => Failed::Else("does not take the role and its secret id".to_owned()),
                        other => other,
                    },
                )?;
                let granted: Granted = serde_json::from_slice(&answer)
                    .map_err(|_| Failed::Else("answers a sign-in with something else".to_owned()))?;
                granted.auth.token()
            }
        }
    }

    async fn ask(
        &self,
        method: Method,
        target: &str,
        body: Option<Value>,
        token: Option<&Secret>,
    ) -> Result<Zeroizing<Vec<u8>>, Failed> {
        let wrong = |e: &dyn std::fmt::Display| Failed::Else(format!("cannot be asked: {e}"));
        let mut request = Request::builder().method(method).uri(format!("{}{target}", self.base));
        // Without it, agents and proxies in front refuse: a page in a browser cannot set it.
        request = request.header("x-vault-request", "true");
        if let Some(namespace) = &self.namespace {
            request = request.header("x-vault-namespace", namespace);
        }
        if let Some(token) = token {
            let mut value = HeaderValue::from_bytes(token.expose()).map_err(|e| wrong(&e))?;
            value.set_sensitive(true);
            request = request.header("x-vault-token", value);
        }
        if body.is_some() {
            request = request.header(http::header::CONTENT_TYPE, "application/json");
        }
        let text = body.map(|b| b.to_string()).unwrap_or_default().into_bytes();
        let request = request.header(http::header::CONTENT_LENGTH, text.len()).body(text).map_err(|e| wrong(&e))?;
        let answer =
            self.outbound.fetch(request, MAX_ANSWER, PATIENCE).await.map_err(|f| Failed::Away(f.to_string()))?;
        let (head, body) = answer.into_parts();
        let body = Zeroizing::new(body);
        match head.status.as_u16() {
            200 => Ok(body),
            403 => Err(Failed::Forbidden),
            400 if target.starts_with("auth/") => Err(Failed::Forbidden),
            404 => Err(Failed::Else(format!("has nothing at {target}"))),
            429 | 472 | 473 => Err(Failed::Away("is a standby that answers nothing".to_owned())),
            503 => Err(Failed::Away("is sealed, or under maintenance".to_owned())),
            status => Err(Failed::Else(format!("answers with status {status}"))),
        }
    }
}

#[derive(Deserialize)]
struct Read {
    data: ReadData,
}

#[derive(Deserialize)]
struct ReadData {
    data: Option<serde_json::Map<String, Value>>,
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    destroyed: bool,
    #[serde(default)]
    deletion_time: String,
}

/// Wipes what a value holds: the other keys of the same secret.
fn wipe(value: Value) {
    match value {
        Value::String(text) => drop(Zeroizing::new(text)),
        Value::Array(all) => all.into_iter().for_each(wipe),
        Value::Object(all) => all.into_iter().for_each(|(_, value)| wipe(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
