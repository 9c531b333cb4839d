// SPDX-License-Identifier: Apache-2.0
//! The gateway's own user: what it may do (AuthorizationManager), and another password for it.
//!
//! The users of an ESXi host are its own, and each may change its own password (HostLocalAccountManager.ChangePassword, since
//! 6.7 U2, with no privilege). vCenter's users are kept by its single sign-on or a directory, which this API does not reach.

use super::{MACHINE, Vsphere, call, service};
use crate::{
    desk::Session,
    driver::clean_text,
    error::Fault,
    rotate::{Form, KnownAs, Meanings, Rotation, powers},
};
use portcullis_domain::{Action, Secret};
use portcullis_policy::classify::soap::{Element, Reference};

/// On how many machines rights are asked for, beside the folder above all of them.
const ASKED: usize = 200;

/// What a privilege lets its holder do ("Defined Privileges" of vSphere Security).
const MEANINGS: &Meanings = &[
    ("Authorization.", Action::AccessAdmin),
    ("Sessions.", Action::AccessAdmin),
    ("VcIdentity", Action::AccessAdmin),
    ("Host.", Action::NodeAdmin),
    ("Global.SetCustomField", Action::Configure),
    ("Global.ManageCustomFields", Action::Configure),
    ("Global.LogEvent", Action::View),
    ("Global.CancelTask", Action::Configure),
    ("Global.", Action::NodeAdmin),
    ("Certificate.", Action::NodeAdmin),
    ("Cryptographer.", Action::NodeAdmin),
    ("Datacenter.", Action::NodeAdmin),
    ("Extension.", Action::NodeAdmin),
    ("VirtualMachine.Interact.ConsoleInteract", Action::ConsoleControl),
    ("VirtualMachine.Interact.CreateScreenshot", Action::ConsoleScreenshot),
    ("VirtualMachine.Interact.Power", Action::Power),
    ("VirtualMachine.Interact.Reset", Action::Power),
    ("VirtualMachine.Interact.Suspend", Action::Power),
    ("VirtualMachine.Interact.PutUsbScanCodes", Action::ConsoleControl),
    ("VirtualMachine.Interact.GuestControl", Action::GuestExec),
    ("VirtualMachine.Interact.", Action::Configure),
    ("VirtualMachine.GuestOperations.", Action::GuestExec),
    ("VirtualMachine.Config.", Action::Configure),
    ("VirtualMachine.State.", Action::Snapshot),
    ("VirtualMachine.Inventory.Delete", Action::Destroy),
    ("VirtualMachine.Inventory.", Action::Create),
    ("VirtualMachine.Provisioning.", Action::Create),
    ("VApp.", Action::Configure),
    ("Folder.", Action::Create),
    ("Resource.", Action::Migrate),
    ("Datastore.", Action::Storage),
    ("StorageProfile.", Action::Storage),
    ("Network.", Action::Network),
    ("DVSwitch.", Action::Network),
    ("DVPortgroup.", Action::Network),
];

const OF_CENTER: &str = "vCenter's users are kept by its single sign-on or by a directory, which its API does not reach: \
                         change the password there (dir-cli password change, or the vSphere Client), at once";

/// How many privileges of a family are named one by one.
const NAMED: usize = 3;

/// Families of privileges that mean the same, where there are many: an administrator has hundreds.
fn families(powers: Vec<(Action, String)>) -> Vec<(Action, String)> {
    let family = |word: &str| word.rsplit_once('.').map_or_else(|| word.to_owned(), |(family, _)| family.to_owned());
    let mut told: Vec<(Action, String, Vec<String>)> = Vec::new();
    for (action, word) in powers {
        let of = family(&word);
        match told.iter_mut().find(|(a, f, _)| *a == action && *f == of) {
            Some((.., words)) => words.push(word),
            None => told.push((action, of, vec![word])),
        }
    }
    let named = told.into_iter().flat_map(|(action, family, words)| {
        let words = if words.len() > NAMED { vec![format!("{family}.* ({} privileges)", words.len())] } else { words };
        words.into_iter().map(move |word| (action, word))
    });
    named.collect()
}

impl Vsphere {
    pub(super) async fn own_standing(&self) -> Result<KnownAs, Fault> {
        let center = &self.desk.center;
        let session = center.sign_in().await?;
        let user = Some(session.user.as_str()).filter(|u| !u.is_empty()).unwrap_or_else(|| center.username());
        let privileges = self.privileges(&session, user).await;
        let known = match privileges {
            Ok(all) => KnownAs::new(clean_text(user), families(powers(MEANINGS, all))),
            Err(fault) => KnownAs::untold(clean_text(user), fault.to_string()),
        };
        center.sign_out(&session).await;
        Ok(known)
    }

    /// What a user may do, on the folder above everything and on machines that are known.
    async fn privileges(&self, session: &Session, user: &str) -> Result<Vec<String>, Fault> {
        let content = self.desk.center.content().await?;
        let root = service(&content, "rootFolder")?;
        let (machines, _) = self.machines();
        let machines =
            machines.iter().take(ASKED).map(|m| Reference { of: MACHINE.to_owned(), id: m.at.machine.to_string() });
        let entities = std::iter::once(root).chain(machines);
        let mut arguments: Vec<Element> = entities.map(|e| Element::reference("entities", &e.of, &e.id)).collect();
        arguments.push(Element::text("userName", user));
        let manager = service(&content, "authorizationManager")?;
        let told = self.ask(session, &call("FetchUserPrivilegeOnEntities", manager, arguments)).await?;
        let all = told.iter().flat_map(|result| result.all("privileges"));
        Ok(all.map(|p| p.text.clone()).collect())
    }

    /// The users of a host alone are its own.
    async fn accounts(&self) -> Result<Option<Reference>, Fault> {
        let content = self.desk.center.content().await?;
        let kind = content.child("about").and_then(|about| about.child("apiType")).map(|kind| kind.text.as_str());
        Ok(if kind == Some("HostAgent") { service(&content, "accountManager").ok() } else { None })
    }

    pub(super) async fn own_rotation(&self) -> Result<Rotation, Fault> {
        let accounts = self.accounts().await?;
        Ok(accounts.map_or(Rotation::ByHand(OF_CENTER), |_| Rotation::Given(Form::Password)))
    }

    pub(super) async fn change_password(&self, new: &Secret) -> Result<(), Fault> {
        let center = &self.desk.center;
        let accounts = self.accounts().await?.ok_or_else(|| Fault::Unsupported(OF_CENTER.to_owned()))?;
        let old = center.password()?;
        let [old, new] = [&*old, new].map(|secret| secret.expose_text().unwrap_or_default());
        let arguments = vec![
            Element::text("user", center.username()),
            Element::text("oldPassword", old),
            Element::text("newPassword", new),
        ];
        let session = center.sign_in().await?;
        let done = self.ask(&session, &call("ChangePassword", accounts, arguments)).await;
        center.sign_out(&session).await;
        match done {
            Ok(_) => Ok(()),
            // Its words may hold what was sent.
            Err(Fault::Refused(_)) => Err(Fault::Refused(
                "it does not take a new password: see its rules for passwords, and whether it is 6.7 U2 or later"
                    .to_owned(),
            )),
            Err(fault) => Err(fault),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_privilege_means_an_action_and_many_of_a_family_are_told_together() {
        let of = |words: &[&str]| families(powers(MEANINGS, words.iter().map(|w| (*w).to_owned())));
        for (privilege, action) in [
            ("VirtualMachine.Interact.PowerOn", Some(Action::Power)),
            ("VirtualMachine.Interact.ConsoleInteract", Some(Action::ConsoleControl)),
            ("VirtualMachine.Interact.DeviceConnection", Some(Action::Configure)),
            ("VirtualMachine.Inventory.Delete", Some(Action::Destroy)),
            ("VirtualMachine.Inventory.Register", Some(Action::Create)),
            ("Authorization.ModifyRoles", Some(Action::AccessAdmin)),
            ("Global.SetCustomField", Some(Action::Configure)),
            ("Global.Settings", Some(Action::NodeAdmin)),
            ("System.Read", None),
        ] {
            assert_eq!(of(&[privilege]).first().map(|(a, _)| *a), action, "{privilege}");
        }
        let many = of(&["Host.Config.A", "Host.Config.B", "Host.Config.C", "Host.Config.D", "Host.Local.A"]);
        let words: Vec<&str> = many.iter().map(|(_, word)| word.as_str()).collect();
        assert_eq!(words, ["Host.Config.* (4 privileges)", "Host.Local.A"]);
        // Of one family and not of one meaning.
        let two = of(&[
            "VirtualMachine.Interact.PowerOn",
            "VirtualMachine.Interact.PowerOff",
            "VirtualMachine.Interact.Reset",
            "VirtualMachine.Interact.ConsoleInteract",
        ]);
        assert_eq!(two.len(), 4);
    }
}
