// SPDX-License-Identifier: Apache-2.0
//! The gateway's own API token: what it may do, and a new one in its place.
//!
//! A new token is made beside the old one: `regenerate` of Proxmox VE 9 takes the old secret away before the new one can
//! be tried. One with rights of its own (`privsep`) gets the old one's.

use super::{Proxmox, encoded};
use crate::{
    driver::clean_text,
    error::Fault,
    rotate::{COMMENT, KnownAs, Meanings, first_name, next_name, powers},
};
use http::Method;
use portcullis_domain::{Action, Secret};
use serde::{Deserialize, de::IgnoredAny};
use std::collections::BTreeMap;

/// What a privilege lets its holder do.
const MEANINGS: &Meanings = &[
    ("Permissions.Modify", Action::AccessAdmin),
    ("User.Modify", Action::AccessAdmin),
    ("Realm.", Action::AccessAdmin),
    ("Group.", Action::AccessAdmin),
    ("Pool.Allocate", Action::AccessAdmin),
    ("Mapping.Modify", Action::NodeAdmin),
    ("Sys.Audit", Action::View),
    ("Sys.", Action::NodeAdmin),
    ("VM.Console", Action::ConsoleControl),
    ("VM.PowerMgmt", Action::Power),
    ("VM.Snapshot", Action::Snapshot),
    ("VM.Migrate", Action::Migrate),
    ("VM.Monitor", Action::GuestExec),
    ("VM.GuestAgent.Audit", Action::View),
    ("VM.GuestAgent", Action::GuestExec),
    ("VM.Allocate", Action::Create),
    ("VM.Clone", Action::Create),
    ("VM.Config", Action::Configure),
    ("VM.Backup", Action::Storage),
    ("Datastore.Allocate", Action::Storage),
    ("SDN.Allocate", Action::Network),
];

#[derive(Deserialize)]
struct Info {
    #[serde(default)]
    privsep: Option<u8>,
    #[serde(default)]
    expire: u64,
}

/// What making a token answers. No `Debug`: it holds the secret.
#[derive(Deserialize)]
struct Made {
    #[serde(rename = "full-tokenid")]
    id: String,
    value: String,
}

/// One of a user's tokens.
#[derive(Deserialize)]
struct Listed {
    tokenid: String,
    #[serde(default)]
    comment: String,
}

#[derive(Deserialize)]
struct Right {
    path: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    ugid: String,
    #[serde(default)]
    roleid: String,
    #[serde(default)]
    propagate: u8,
}

/// What a token is called, for people.
pub(super) fn label(user: &str, name: &str) -> String {
    format!("the token {user}!{name}")
}

/// `user@realm` and the token's name.
pub(super) fn parts(token: &Secret) -> Result<(String, String), Fault> {
    let wrong = || Fault::Refused("the gateway's token is none".to_owned());
    let (id, _) = token.expose_text().and_then(|t| t.split_once('=')).ok_or_else(wrong)?;
    id.split_once('!').map(|(user, name)| (user.to_owned(), name.to_owned())).ok_or_else(wrong)
}

impl Proxmox {
    pub(super) async fn own_standing(&self) -> Result<KnownAs, Fault> {
        let (user, name) = parts(&*self.held.value()?)?;
        let all: BTreeMap<String, BTreeMap<String, u8>> =
            self.ask(Method::GET, "/api2/json/access/permissions", None).await?;
        if all.is_empty() {
            return Err(Fault::Refused(format!("{user}!{name} may do nothing at all there")));
        }
        let powers = powers(MEANINGS, all.into_values().flat_map(BTreeMap::into_keys));
        Ok(KnownAs::new(format!("{user}!{name}"), powers))
    }

    fn address(user: &str, name: &str) -> String {
        format!("/api2/json/access/users/{}/token/{}", encoded(user), encoded(name))
    }

    pub(super) async fn make_token(&self) -> Result<Secret, Fault> {
        let (user, name) = parts(&*self.held.value()?)?;
        let info: Info = self.ask(Method::GET, &Self::address(&user, &name), None).await?;
        let next = next_name(&name);
        // Missing means apart: Proxmox's default.
        let has_own_rights = info.privsep.unwrap_or(1) != 0;
        let form = format!("privsep={}&expire={}&comment={COMMENT}", u8::from(has_own_rights), info.expire);
        let made: Made = self.ask(Method::POST, &Self::address(&user, &next), Some(&form)).await?;
        let token = Secret::from(format!("{}={}", made.id, made.value));
        let is_it = made.id == format!("{user}!{next}") && super::authorization(&token).is_some();
        let given = match (is_it, has_own_rights) {
            (false, _) => Err(Fault::Protocol("a new token that is none".to_owned())),
            (true, true) => self.copy_rights(&format!("{user}!{name}"), &made.id).await,
            (true, false) => Ok(()),
        };
        match given {
            Ok(()) => Ok(token),
            Err(fault) => {
                let _ = self.remove(&user, &next).await;
                Err(fault)
            }
        }
    }

    async fn copy_rights(&self, from: &str, to: &str) -> Result<(), Fault> {
        let all: Vec<Right> = self.ask(Method::GET, "/api2/json/access/acl", None).await?;
        let own: Vec<Right> = all.into_iter().filter(|r| r.kind == "token" && r.ugid == from).collect();
        if own.is_empty() {
            let why = "the token's own rights cannot be read, so a new one would have none: give the gateway's user a \
                       token without privilege separation, or make a new one by hand";
            return Err(Fault::Refused(why.to_owned()));
        }
        for Right { path, roleid, propagate, .. } in own {
            let form = format!(
                "path={}&roles={}&propagate={propagate}&tokens={}",
                encoded(&path),
                encoded(&roleid),
                encoded(to)
            );
            self.tell(Method::PUT, "/api2/json/access/acl", Some(&form)).await?;
        }
        Ok(())
    }

    async fn remove(&self, user: &str, name: &str) -> Result<(), Fault> {
        self.tell(Method::DELETE, &Self::address(user, name), None).await
    }

    /// Asks for something that answers nothing.
    async fn tell(&self, method: Method, target: &str, form: Option<&str>) -> Result<(), Fault> {
        match self.ask::<IgnoredAny>(method, target, form).await {
            // `null` is what it answers when it is done.
            Ok(_) => Ok(()),
            Err(Fault::Protocol(why)) if why == super::NOTHING => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    /// Tokens of the same user and first name that rotations made.
    pub(super) async fn other_tokens(&self) -> Result<Vec<String>, Fault> {
        let (user, name) = parts(&*self.held.value()?)?;
        let target = format!("/api2/json/access/users/{}/token", encoded(&user));
        let all: Vec<Listed> = self.ask(Method::GET, &target, None).await?;
        let is_other = |t: &Listed| {
            t.comment.trim() == COMMENT && t.tokenid != name && first_name(&t.tokenid) == first_name(&name)
        };
        Ok(all.iter().filter(|t| is_other(t)).map(|t| clean_text(&label(&user, &t.tokenid))).collect())
    }

    pub(super) async fn retire_token(&self, old: &Secret) -> Result<(), Fault> {
        let (user, name) = parts(old)?;
        if parts(&*self.held.value()?)? == (user.clone(), name.clone()) {
            return Err(Fault::Refused("it is the token in use".to_owned()));
        }
        self.remove(&user, &name).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_privilege_means_is_known_by_the_longest_that_fits() {
        for (privilege, action) in [
            ("VM.Console", Some(Action::ConsoleControl)),
            ("VM.Config.Network", Some(Action::Configure)),
            ("VM.GuestAgent.Audit", Some(Action::View)),
            ("VM.GuestAgent.Unrestricted", Some(Action::GuestExec)),
            ("Sys.Audit", Some(Action::View)),
            ("Sys.Console", Some(Action::NodeAdmin)),
            ("Realm.AllocateUser", Some(Action::AccessAdmin)),
            ("VM.Audit", None),
        ] {
            let found = powers(MEANINGS, [privilege.to_owned()]);
            assert_eq!(found.first().map(|(found, _)| *found), action, "{privilege}");
        }
    }
}
