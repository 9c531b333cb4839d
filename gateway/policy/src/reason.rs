// SPDX-License-Identifier: Apache-2.0
//! Why not, in words that a person can act on.

use crate::kind::Kind;
use portcullis_domain::{Action, HypervisorName, RoleName};
use std::fmt;

/// Why a decision is no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Fewer than two factors were proven.
    Assurance,
    /// The action cannot be asked of this kind of thing, or of anything.
    Impossible(Action, Kind),
    /// The token is for another hypervisor, or for none of the gateway's own things.
    Scope(HypervisorName),
    /// There is no such machine, or the person may not see it: the two read the same.
    Hidden(Doors),
    /// No role of theirs allows it here.
    Role(Doors),
    /// A grant of theirs forbids it, whatever another one allows.
    Forbidden {
        /// What was asked.
        action: Action,
        /// On which kind of thing.
        kind: Kind,
        /// The roles of the grants that forbid it.
        by: Vec<RoleName>,
    },
    /// It needs a fresh factor, and a token cannot give one.
    TokenCannotStepUp,
    /// A grant of theirs would allow it to somebody who proved a passkey.
    Passkey,
    /// A request named no machine at all.
    Nothing,
    /// The permit is another person's, or of another session or token.
    Stranger,
    /// The permit was renewed for as long as one can be.
    Worn,
    /// The policy could not be evaluated.
    Fault,
}

/// Which roles would open a door, and who can give them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doors {
    /// What was asked.
    pub action: Action,
    /// On which kind of thing.
    pub kind: Kind,
    /// The roles that allow it, the smallest first.
    pub openers: Vec<RoleName>,
    /// The roles whose holders can give them.
    pub givers: Vec<RoleName>,
}

impl fmt::Display for Doors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.kind.place();
        match self.openers.split_first() {
            None => return write!(f, "No role allows {} {place}.", self.action),
            Some((first, [])) => write!(f, "You need the role {first} {place}.")?,
            Some((first, more)) => write!(f, "You need the role {first} (or {}) {place}.", joined(more, ", "))?,
        }
        if self.givers.is_empty() {
            return Ok(());
        }
        let people: Vec<String> = self.givers.iter().map(person).collect();
        write!(f, " Ask {}.", people.join(" or "))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Assurance => f.write_str("Sign in with both factors first."),
            Self::Impossible(action, kind) => write!(f, "The gateway never passes on {action} for a {kind}."),
            Self::Scope(h) => write!(f, "This token is for the hypervisor {h} only. Make another token."),
            Self::Hidden(doors) => write!(f, "There is no such machine, or you may not see it. {doors}"),
            Self::Role(doors) => doors.fmt(f),
            Self::Forbidden { action, kind, by } => {
                let role = if by.len() == 1 { "Your role" } else { "Your roles" };
                let verb = if by.len() == 1 { "forbids" } else { "forbid" };
                write!(f, "{role} {} {verb} {action} {}.", joined(by, ", "), kind.place())
            }
            Self::TokenCannotStepUp => {
                f.write_str("This needs a fresh code, which a token cannot give. Do it in the portal.")
            }
            Self::Passkey => f.write_str("This needs a passkey. Confirm with one, or sign in with it, and try again."),
            Self::Nothing => f.write_str("The request names no machine."),
            Self::Stranger => f.write_str("This was opened by another session. Open it again."),
            Self::Worn => f.write_str("This has been open for a day. Open it again."),
            Self::Fault => {
                f.write_str("The policy could not be evaluated, so nothing is let through. Tell an administrator.")
            }
        }
    }
}

fn joined(roles: &[RoleName], between: &str) -> String {
    roles.iter().map(RoleName::as_str).collect::<Vec<_>>().join(between)
}

/// `a security lead`, `an administrator`.
fn person(role: &RoleName) -> String {
    let name = role.as_str().replace('-', " ");
    let article = if name.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doors(openers: &[&str]) -> Doors {
        let names = |n: &[&str]| n.iter().map(|r| r.parse().unwrap()).collect();
        Doors {
            action: Action::ConsoleView,
            kind: Kind::Machine,
            openers: names(openers),
            givers: names(&["security-lead"]),
        }
    }

    #[test]
    fn a_denial_names_the_roles_that_open_the_door_and_who_gives_them() {
        let text = Reason::Role(doors(&["console-user", "operator", "administrator"])).to_string();
        assert_eq!(
            text,
            "You need the role console-user (or operator, administrator) on this machine. Ask a security lead."
        );
        assert_eq!(
            Reason::Role(doors(&["operator"])).to_string(),
            "You need the role operator on this machine. Ask a security lead."
        );
        assert_eq!(Reason::Role(doors(&[])).to_string(), "No role allows console.view on this machine.");
    }
}
