// SPDX-License-Identifier: Apache-2.0
//! An application credential of the gateway's, and another one in its place (Identity API v3, "Application credentials").
//!
//! Its secret cannot be changed: a new one has another id. So what is kept after a rotation holds both, in the shape in
//! which `openstack application credential create -f json` shows them; one that is made by hand is brought the same way.
//! Only an unrestricted one makes and deletes others: whoever steals it can make more of them, which is why Keystone's own
//! default is the other one.

use super::account::{Keystone, Named, Who};
use crate::{
    driver::clean_text,
    error::Fault,
    rotate::{COMMENT, first_name, next_name},
};
use http::Method;
use portcullis_domain::Secret;
use serde::Deserialize;
use serde_json::{Value, json};
use time::{
    OffsetDateTime, PrimitiveDateTime, format_description::well_known::Iso8601, format_description::well_known::Rfc3339,
};

const RESTRICTED: &str = "the gateway's application credential is restricted, and a restricted one makes no other: make one \
                          with the same roles there (openstack application credential create -f json …) and give what it \
                          prints with --from";

/// What stands in the secret. No `Debug`.
#[derive(Deserialize)]
pub(super) struct Application {
    #[serde(alias = "ID")]
    pub(super) id: String,
    #[serde(alias = "Secret")]
    pub(super) secret: String,
}

impl Application {
    /// Reads a secret: an id and a secret as JSON, or the secret of the one that the configuration names.
    pub(super) fn read(id: &str, text: &str) -> Self {
        let both = serde_json::from_str(text).ok().filter(|a: &Self| is_id(&a.id) && !a.secret.is_empty());
        both.unwrap_or_else(|| Self { id: id.to_owned(), secret: text.to_owned() })
    }
}

/// Whether a text is an id: it goes into addresses as it is.
fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

#[derive(Deserialize)]
struct Envelope<T> {
    application_credential: T,
}

#[derive(Deserialize)]
struct Listed {
    application_credentials: Vec<One>,
}

/// One of many.
#[derive(Deserialize)]
struct One {
    id: String,
    name: String,
    #[serde(default)]
    description: Option<String>,
}

fn label(id: &str) -> String {
    format!("the application credential {id}")
}

/// One as Keystone shows it to its owner.
#[derive(Deserialize)]
pub(super) struct Shown {
    name: String,
    #[serde(default)]
    pub(super) unrestricted: bool,
    #[serde(default)]
    expires_at: Option<String>,
    #[serde(default)]
    roles: Vec<Value>,
    #[serde(default)]
    access_rules: Vec<Value>,
}

impl Shown {
    /// When it ends: Keystone writes UTC, with or without saying so.
    pub(super) fn ends_at(&self) -> Option<OffsetDateTime> {
        let text = self.expires_at.as_deref()?;
        let plain = || PrimitiveDateTime::parse(text, &Iso8601::DEFAULT).ok().map(PrimitiveDateTime::assume_utc);
        OffsetDateTime::parse(text, &Rfc3339).ok().or_else(plain)
    }
}

/// Only the ids of what is lent on.
fn ids(all: &[Value]) -> Vec<Value> {
    all.iter().filter_map(|one| one.get("id")).map(|id| json!({ "id": id })).collect()
}

impl Keystone {
    /// The application credential in a secret, by the configuration's id where the secret holds none.
    fn application(&self, secret: &Secret) -> Result<Application, Fault> {
        let wrong = || Fault::Refused("the secret is no application credential's".to_owned());
        let Who::Application { id } = &self.who else { return Err(wrong()) };
        let found = Application::read(id, secret.expose_text().ok_or_else(wrong)?);
        if is_id(&found.id) { Ok(found) } else { Err(wrong()) }
    }

    /// What a secret's application credential is called.
    pub(super) fn label(&self, secret: &Secret) -> Option<String> {
        self.application(secret).ok().map(|a| label(&a.id))
    }

    /// Those of the same user and first name that rotations made.
    pub(super) async fn other_credentials(&self, base: &str) -> Result<Vec<String>, Fault> {
        let user = self.sign_in(base).await?.user;
        let (own, shown) = (self.application(&*self.secret.value()?)?, self.own_credential(&user).await?);
        let all: Listed = self.ask(Method::GET, &format!("users/{}/application_credentials", user.id()?), None).await?;
        let is_other = |one: &One| {
            let is_made = one.description.as_deref() == Some(COMMENT);
            is_made && one.id != own.id && first_name(&one.name) == first_name(&shown.name)
        };
        Ok(all
            .application_credentials
            .iter()
            .filter(|one| is_other(one))
            .map(|one| clean_text(&label(&one.id)))
            .collect())
    }

    /// What Keystone knows of the one in use, after a sign-in with it.
    pub(super) async fn own_credential(&self, user: &Named) -> Result<Shown, Fault> {
        let own = self.application(&*self.secret.value()?)?;
        let what = format!("users/{}/application_credentials/{}", user.id()?, own.id);
        let shown: Envelope<Shown> = self.ask(Method::GET, &what, None).await?;
        Ok(shown.application_credential)
    }

    /// Why the one in use cannot be replaced by itself, where it cannot.
    pub(super) async fn is_restricted(&self, base: &str) -> Result<Option<&'static str>, Fault> {
        let user = self.sign_in(base).await?.user;
        Ok(if self.own_credential(&user).await?.unrestricted { None } else { Some(RESTRICTED) })
    }

    /// Makes another one with the same roles, rules and end.
    pub(super) async fn make_credential(&self, base: &str) -> Result<Secret, Fault> {
        let user = self.sign_in(base).await?.user;
        let own = self.own_credential(&user).await?;
        if !own.unrestricted {
            return Err(Fault::Refused(RESTRICTED.to_owned()));
        }
        let roles = ids(&own.roles);
        if roles.is_empty() {
            // Without any, Keystone gives a new one every role that the token has.
            return Err(Fault::Protocol("an application credential without roles".to_owned()));
        }
        let rules = ids(&own.access_rules);
        // What is not there stands for the token's, or for none.
        let mut new = json!({
            "name": next_name(&own.name), "description": COMMENT, "roles": roles, "unrestricted": true,
            "expires_at": own.expires_at, "access_rules": if rules.is_empty() { Value::Null } else { json!(rules) },
        });
        if let Some(new) = new.as_object_mut() {
            new.retain(|_, value| !value.is_null());
        }
        let what = format!("users/{}/application_credentials", user.id()?);
        let body = json!({ "application_credential": new });
        let made: Envelope<Application> = self.ask(Method::POST, &what, Some(&body)).await?;
        let Application { id, secret } = made.application_credential;
        if !is_id(&id) || secret.is_empty() {
            return Err(Fault::Protocol("a new application credential that is none".to_owned()));
        }
        Ok(Secret::from(json!({ "id": id, "secret": secret }).to_string()))
    }

    /// Deletes one that is not the one in use.
    pub(super) async fn delete_credential(&self, base: &str, old: &Secret) -> Result<(), Fault> {
        let (old, own) = (self.application(old)?, self.application(&*self.secret.value()?)?);
        if old.id == own.id {
            return Err(Fault::Refused("it is the application credential in use".to_owned()));
        }
        let user = self.sign_in(base).await?.user;
        let what = format!("users/{}/application_credentials/{}", user.id()?, old.id);
        self.tell(Method::DELETE, &what, None).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_names_its_application_credential_or_is_that_of_the_configuration() {
        let read = |text: &str| {
            let Application { id, secret } = Application::read("configured", text);
            (id, secret)
        };
        let of = |id: &str, secret: &str| (id.to_owned(), secret.to_owned());
        assert_eq!(read("plain-secret"), of("configured", "plain-secret"));
        assert_eq!(read(r#"{"id": "a1b2", "secret": "s", "name": "x", "roles": []}"#), of("a1b2", "s"));
        assert_eq!(read(r#"{"ID": "a1b2", "Secret": "s"}"#), of("a1b2", "s"));
        for odd in [r#"{"id": "../x", "secret": "s"}"#, r#"{"id": "a1b2", "secret": ""}"#, r#"{"secret": "s"}"#, "[1]"]
        {
            assert_eq!(read(odd), of("configured", odd), "it is a secret like any other");
        }
    }

    #[test]
    fn an_end_is_read_in_both_of_its_forms() {
        let end = |text: Option<&str>| {
            let of = json!({ "name": "x", "expires_at": text });
            serde_json::from_value::<Shown>(of).unwrap().ends_at().map(OffsetDateTime::unix_timestamp)
        };
        assert_eq!(end(Some("2027-02-13T12:12:12.000000")), end(Some("2027-02-13T12:12:12Z")));
        assert!(
            end(Some("2027-02-13T12:12:12.000000")).is_some() && end(None).is_none() && end(Some("soon")).is_none()
        );
    }
}
