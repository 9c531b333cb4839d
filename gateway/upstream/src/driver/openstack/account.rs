// SPDX-License-Identifier: Apache-2.0
//! Signing in at Keystone (Identity API v3, "Authentication and token management"): by password or application
//! credential, again before the token runs out. What its catalog says is compared and never followed.

use super::{Place, credential::Application, words};
use crate::{
    badge::{Account, Renewed},
    driver::{
        LIST, clean_text,
        rest::{Call, Told},
    },
    error::Fault,
    rotate::KnownAs,
    secret::Held,
    wire::Dialer,
};
use http::Method;
use portcullis_domain::{Action, Secret};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{collections::HashMap, sync::Arc, time::Duration};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// The longest token, bytes: Fernet's are about 250.
const MAX_TOKEN: usize = 8 * 1024;
/// A token is used for at most so much of its life.
const USED: f64 = 0.75;

/// Who the gateway is there.
pub(super) enum Who {
    Password { user: String, user_domain: String, project: String, project_domain: String },
    Application { id: String },
}

/// The way to Keystone.
pub(super) struct Keystone {
    pub(super) dialer: Dialer,
    pub(super) place: Place,
    pub(super) who: Who,
    pub(super) secret: Arc<Held>,
    pub(super) token: Arc<Renewed>,
}

/// What a sign-in gave.
pub(super) struct SignedIn {
    /// How long the token is to be used.
    pub(super) lasts: Duration,
    /// Where Keystone says that Nova is.
    pub(super) compute: Vec<String>,
    pub(super) user: Named,
    roles: Vec<Named>,
}

#[derive(Deserialize)]
struct Answer {
    token: Token,
}

#[derive(Deserialize)]
struct Token {
    issued_at: String,
    expires_at: String,
    #[serde(default)]
    project: Option<Project>,
    #[serde(default)]
    catalog: Vec<Service>,
    #[serde(default)]
    user: Named,
    #[serde(default)]
    roles: Vec<Named>,
}

#[derive(Default, Deserialize)]
pub(super) struct Named {
    #[serde(default)]
    id: String,
    #[serde(default)]
    name: String,
}

impl Named {
    /// The id, which goes into addresses as it is.
    pub(super) fn id(&self) -> Result<&str, Fault> {
        let is_id = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if self.id.is_empty() || !self.id.bytes().all(is_id) {
            return Err(Fault::Protocol("a sign-in without a user".to_owned()));
        }
        Ok(&self.id)
    }
}

#[derive(Deserialize)]
struct Project {
    id: String,
    name: String,
}

#[derive(Deserialize)]
struct Service {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    endpoints: Vec<Endpoint>,
}

#[derive(Deserialize)]
struct Endpoint {
    #[serde(default)]
    region: Option<String>,
    #[serde(default)]
    url: String,
}

#[derive(Deserialize)]
struct Projects {
    projects: Vec<Project>,
}

impl Keystone {
    fn request(&self) -> Result<String, Fault> {
        let secret = self.secret.value()?;
        let secret = secret.expose_text().ok_or_else(|| Fault::Refused("the secret is no text".to_owned()))?;
        let auth = match &self.who {
            Who::Password { user, user_domain, project, project_domain } => json!({
                "identity": { "methods": ["password"], "password": { "user": {
                    "name": user, "domain": { "name": user_domain }, "password": secret,
                }}},
                "scope": { "project": { "name": project, "domain": { "name": project_domain } } },
            }),
            Who::Application { id } => {
                let Application { id, secret } = Application::read(id, secret);
                json!({
                    "identity": {
                        "methods": ["application_credential"],
                        "application_credential": { "id": id, "secret": secret },
                    },
                })
            }
        };
        Ok(json!({ "auth": auth }).to_string())
    }

    /// Signs in, and shows the new token from now on.
    pub(super) async fn sign_in(&self, base: &str) -> Result<SignedIn, Fault> {
        let target = format!("{}/auth/tokens", self.place.path);
        let body = Some(("application/json", self.request()?));
        let call = Call { method: Method::POST, target: &target, body, patience: LIST };
        let (Told { status, text, .. }, headers) = call.send_with(&self.dialer, &self.place.host, &[]).await?;
        if status.as_u16() != 201 {
            return Err(Fault::Refused(format!("the gateway's sign-in: {}", words(status, &text))));
        }
        let wrong = |why: &str| Fault::Protocol(format!("a sign-in without {why}"));
        let answer: Answer = serde_json::from_slice(&text).map_err(|_| wrong("what belongs to it"))?;
        let value = headers.get("x-subject-token").cloned().ok_or_else(|| wrong("a token"))?;
        if value.len() > MAX_TOKEN || !value.as_bytes().iter().all(u8::is_ascii_graphic) {
            return Err(wrong("a proper token"));
        }
        let project = answer.token.project.ok_or_else(|| wrong("a project"))?;
        // By its own clock: ours may differ.
        let lasts = life(&answer.token.issued_at, &answer.token.expires_at).ok_or_else(|| wrong("an end"))?;
        let compute = answer.token.catalog.into_iter().filter(|s| s.kind == "compute").flat_map(|s| s.endpoints);
        let compute: Vec<Endpoint> = compute.collect();
        let region = compute.iter().find_map(|e| e.region.clone()).unwrap_or_else(|| "RegionOne".to_owned());
        let account = Account { project: project.id, project_name: project.name, base: base.to_owned(), region };
        self.token.set(Some(value), Some(account));
        let (user, roles) = (answer.token.user, answer.token.roles);
        Ok(SignedIn { lasts, compute: compute.into_iter().map(|e| e.url).collect(), user, roles })
    }

    /// Signs in, and says as whom.
    pub(super) async fn known_as(&self, base: &str) -> Result<KnownAs, Fault> {
        let SignedIn { user, roles, .. } = self.sign_in(base).await?;
        let roles = roles.into_iter().map(|r| clean_text(&r.name));
        let meaning = |role: &str| match role {
            "admin" => Action::AccessAdmin,
            "manager" => Action::NodeAdmin,
            "reader" => Action::View,
            _ => Action::Configure,
        };
        let mut known =
            KnownAs::new(clean_text(&user.name), roles.map(|r| (meaning(&r), format!("role {r}"))).collect());
        if let Who::Application { .. } = self.who {
            match self.own_credential(&user).await {
                Ok(own) => {
                    if own.unrestricted {
                        let word =
                            "unrestricted: it makes other application credentials (only secrets rotate needs that)";
                        known.powers.push((Action::AccessAdmin, word.to_owned()));
                    }
                    known.ends_at = own.ends_at();
                }
                Err(fault) => known.untold = Some(format!("its application credential cannot be read: {fault}")),
            }
        }
        Ok(known)
    }

    /// Gives the gateway's own user another password (Identity API v3, "Change password for user"). Keystone takes every
    /// token of the user away then.
    pub(super) async fn change_password(&self, base: &str, new: &Secret) -> Result<(), Fault> {
        let SignedIn { user, .. } = self.sign_in(base).await?;
        let user = user.id()?;
        let old = self.secret.value()?;
        let text = |secret: &Secret| secret.expose_text().map(str::to_owned);
        let body = json!({ "user": { "password": text(new), "original_password": text(&old) } });
        let target = format!("{}/users/{user}/password", self.place.path);
        let body = Some(("application/json", body.to_string()));
        let call = Call { method: Method::POST, target: &target, body, patience: LIST };
        let Told { status, .. } = call.send(&self.dialer, &self.place.host).await?;
        // Its words may hold what was sent.
        if status.as_u16() == 204 { Ok(()) } else { Err(Fault::Refused(format!("status {status}"))) }
    }

    /// The names of projects by their ids, as far as the account may know them. A name that two have is none.
    pub(super) async fn projects(&self) -> Result<HashMap<String, String>, Fault> {
        let all: Projects = self.ask(Method::GET, "projects", None).await?;
        let mut times: HashMap<&str, usize> = HashMap::new();
        for project in &all.projects {
            *times.entry(&project.name).or_default() += 1;
        }
        let once: Vec<bool> = all.projects.iter().map(|p| times.get(p.name.as_str()) == Some(&1)).collect();
        let named = all.projects.into_iter().zip(once).filter(|(_, once)| *once);
        Ok(named.map(|(p, _)| (p.id, p.name)).collect())
    }

    /// Asks with the token in use.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        what: &str,
        body: Option<&Value>,
    ) -> Result<T, Fault> {
        let told = self.tell(method, what, body).await?;
        serde_json::from_slice(&told.text).map_err(|_| Fault::Protocol(format!("{what}: an answer of another shape")))
    }

    /// The same, where nothing is read from the answer.
    pub(super) async fn tell(&self, method: Method, what: &str, body: Option<&Value>) -> Result<Told, Fault> {
        let target = format!("{}/{what}", self.place.path);
        let body = body.map(|b| ("application/json", b.to_string()));
        let call = Call { method, target: &target, body, patience: LIST };
        let (name, value) = self.token.show()?;
        let value = value.to_str().unwrap_or_default();
        let (told, _) = call.send_with(&self.dialer, &self.place.host, &[(name.as_str(), value)]).await?;
        if told.status.is_success() { Ok(told) } else { Err(Fault::Refused(words(told.status, &told.text))) }
    }
}

fn life(issued: &str, expires: &str) -> Option<Duration> {
    let read = |text: &str| OffsetDateTime::parse(text, &Rfc3339).ok();
    let life: Duration = (read(expires)? - read(issued)?).try_into().ok()?;
    Some(life.mul_f64(USED)).filter(|l| *l >= Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_used_for_a_part_of_its_life_by_the_clock_that_gave_it() {
        let of = |to: &str| life("2026-11-28T18:00:00.000000Z", to);
        assert_eq!(of("2026-11-28T19:00:00.000000Z"), Some(Duration::from_mins(45)));
        for bad in ["2026-11-28T18:00:00.000000Z", "2026-11-28T17:00:00Z", "never", ""] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
