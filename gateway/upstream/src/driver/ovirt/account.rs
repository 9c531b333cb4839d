// SPDX-License-Identifier: Apache-2.0
//! Signing in at the engine's single sign-on (OAuth 2.0's password grant), again when the engine says that the token no
//! longer counts, and every half hour. The token is shown as `Authorization: Bearer`, by the driver and for people's calls.
//! And what the account may do there: the permits of its roles.

use super::{
    Ovirt,
    shape::{Permissions, Permits, Root},
};
use crate::{
    badge::Renewed,
    driver::{
        LIST, clean_text,
        rest::{Call, Told, encoded},
    },
    error::Fault,
    rotate::{KnownAs, Meanings, powers},
    secret::Held,
    wire::Dialer,
};
use http::{HeaderValue, Method};
use portcullis_domain::Action;
use serde::Deserialize;
use std::{collections::BTreeSet, sync::Arc};

/// The longest token, bytes: the engine's have 86.
const MAX_TOKEN: usize = 4 * 1024;
const TOKEN: &str = "/ovirt-engine/sso/oauth/token";
/// The most roles that are looked into.
const ROLES: usize = 32;

pub(super) const BY_HAND: &str = "the engine's API changes no password: on the engine's host, ovirt-aaa-jdbc-tool user \
                                  password-reset does, or the directory that keeps the user";

/// What a permit lets its holder do (the engine's ActionGroup).
const MEANINGS: &Meanings = &[
    ("manipulate_permissions", Action::AccessAdmin),
    ("manipulate_roles", Action::AccessAdmin),
    ("manipulate_users", Action::AccessAdmin),
    ("add_users_and_groups_from_directory", Action::AccessAdmin),
    ("configure_engine", Action::NodeAdmin),
    ("create_host", Action::NodeAdmin),
    ("edit_host_configuration", Action::NodeAdmin),
    ("delete_host", Action::NodeAdmin),
    ("manipulate_host", Action::NodeAdmin),
    ("configure_host_network", Action::NodeAdmin),
    ("create_cluster", Action::NodeAdmin),
    ("edit_cluster_configuration", Action::NodeAdmin),
    ("delete_cluster", Action::NodeAdmin),
    ("create_storage_pool", Action::NodeAdmin),
    ("edit_storage_pool_configuration", Action::NodeAdmin),
    ("delete_storage_pool", Action::NodeAdmin),
    ("create_storage_domain", Action::NodeAdmin),
    ("edit_storage_domain_configuration", Action::NodeAdmin),
    ("delete_storage_domain", Action::NodeAdmin),
    ("manipulate_storage_domain", Action::NodeAdmin),
    ("run_vm", Action::Power),
    ("stop_vm", Action::Power),
    ("shut_down_vm", Action::Power),
    ("hibernate_vm", Action::Power),
    ("reboot_vm", Action::Power),
    ("reset_vm", Action::Power),
    ("vm_basic_operations", Action::Power),
    ("connect_to_vm", Action::ConsoleControl),
    ("reconnect_to_vm", Action::ConsoleTakeover),
    ("connect_to_serial_console", Action::ConsoleControl),
    ("manipulate_vm_snapshots", Action::Snapshot),
    ("migrate_vm", Action::Migrate),
    ("move_vm", Action::Migrate),
    ("create_vm", Action::Create),
    ("create_template", Action::Create),
    ("create_instance", Action::Create),
    ("copy_template", Action::Create),
    ("import_export_vm", Action::Create),
    ("delete_vm", Action::Destroy),
    ("delete_template", Action::Destroy),
    ("edit_", Action::Configure),
    ("change_vm_", Action::Configure),
    ("configure_vm_", Action::Configure),
    ("create_disk", Action::Storage),
    ("attach_disk", Action::Storage),
    ("delete_disk", Action::Storage),
    ("configure_disk_storage", Action::Storage),
    ("configure_", Action::Network),
    ("create_storage_pool_network", Action::Network),
    ("delete_storage_pool_network", Action::Network),
    ("assign_cluster_network", Action::Network),
];

/// The way to the sign-on.
pub(super) struct Account {
    pub(super) dialer: Dialer,
    pub(super) host: HeaderValue,
    pub(super) username: String,
    pub(super) password: Arc<Held>,
    pub(super) token: Arc<Renewed>,
}

/// What is answered. No `Debug`: it holds a token.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    access_token: String,
    /// Why there is none.
    #[serde(default)]
    error: Option<String>,
}

impl Account {
    /// Signs in, and shows the new token from now on.
    pub(super) async fn sign_in(&self) -> Result<(), Fault> {
        let password = self.password.value()?;
        let password = password.expose_text().ok_or_else(|| Fault::Refused("the password is no text".to_owned()))?;
        let (name, password) = (encoded(&self.username), encoded(password));
        let form = format!("grant_type=password&scope=ovirt-app-api&username={name}&password={password}");
        let body = Some(("application/x-www-form-urlencoded", form));
        let call = Call { method: Method::POST, target: TOKEN, body, patience: LIST };
        let said = call.send_with(&self.dialer, &self.host, &[("accept", "application/json")]).await?;
        let (Told { status, text, .. }, _) = said;
        let answer: Option<Answer> = serde_json::from_slice(&text).ok();
        if status.as_u16() != 200 || answer.as_ref().is_some_and(|a| a.error.is_some()) {
            let why = answer.and_then(|a| a.error).map(|e| clean_text(&e)).filter(|e| !e.is_empty());
            return Err(Fault::Refused(format!(
                "the gateway's sign-in: {}",
                why.unwrap_or_else(|| format!("status {status}"))
            )));
        }
        let token = answer.map(|a| a.access_token).unwrap_or_default();
        let is_token = |t: &str| (16..=MAX_TOKEN).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_graphic());
        let shown =
            Some(&token).filter(|t| is_token(t)).and_then(|t| HeaderValue::from_str(&format!("Bearer {t}")).ok());
        let shown = shown.ok_or_else(|| Fault::Protocol("a sign-in without a proper token".to_owned()))?;
        self.token.set(Some(shown), None);
        Ok(())
    }
}

impl Ovirt {
    /// Signs in, and reads what the account's roles permit, wherever they are given.
    pub(super) async fn own_standing(&self) -> Result<KnownAs, Fault> {
        self.account.sign_in().await?;
        let who = &self.account.username;
        match self.permits().await {
            Ok(permits) => Ok(KnownAs::new(who, powers(MEANINGS, permits))),
            Err(fault) => Ok(KnownAs::untold(who, fault.to_string())),
        }
    }

    async fn permits(&self) -> Result<Vec<String>, Fault> {
        let own: Root = self.get("").await?;
        let user =
            own.authenticated_user.ok_or_else(|| Fault::Protocol("it does not say as whom it knows it".to_owned()))?;
        let wrong = || Fault::Protocol("an id that is none".to_owned());
        let checked = |id: &str| if super::is_id(id) { Ok(id.to_owned()) } else { Err(wrong()) };
        let given: Permissions = self.get(&format!("/users/{}/permissions", checked(&user.id)?)).await?;
        let roles: BTreeSet<String> = given.permission.into_iter().filter_map(|p| p.role).map(|r| r.id).collect();
        if roles.len() > ROLES {
            return Err(Fault::Protocol("more roles than can be looked into".to_owned()));
        }
        let mut all = Vec::new();
        for role in &roles {
            let permits: Permits = self.get(&format!("/roles/{}/permits", checked(role)?)).await?;
            all.extend(permits.permit.into_iter().map(|p| p.name));
        }
        Ok(all)
    }
}
