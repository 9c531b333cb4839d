// SPDX-License-Identifier: Apache-2.0
//! Every id its own type, so that one kind can never be passed for another.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, sync::Arc};
use uuid::Uuid;

/// A text that is no id of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a {1}")]
pub struct ParseIdError(String, &'static str);

impl ParseIdError {
    /// For a text (cut to 64 characters) that is not a `what`.
    pub(crate) fn new(text: &str, what: &'static str) -> Self {
        Self(text.chars().take(64).collect(), what)
    }
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $what:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a UUID that was made for this kind (version 7, so that ids sort by time).
            pub const fn new(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID itself.
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_simple().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($what, ":{}"), self.0.as_simple())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                Uuid::try_parse(text).map(Self).map_err(|_| ParseIdError::new(text, concat!($what, " id")))
            }
        }
    )*};
}

ids! {
    /// A person.
    UserId = "user";
    /// A group of people.
    GroupId = "group";
    /// A signed-in browser, from sign-in to sign-out. Not the secret in its cookie.
    SessionId = "session";
    /// A token for a tool. Not the secret that the tool presents.
    TokenId = "token";
    /// One sign-in of a tool: what its pass is told from others by. Not the pass itself, which is sealed.
    PassId = "pass";
    /// One grant of a role.
    GrantId = "grant";
    /// One wish for access, from its asking to its end.
    AccessId = "access request";
    /// One change of rights that waits for a second person.
    ProposalId = "proposal";
    /// An emergency lock of a machine, a hypervisor or a token.
    LockId = "lock";
    /// One recording of one console session.
    RecordingId = "recording";
    /// One request through the passage; shown to people as the correlation id.
    RequestId = "request";
    /// One node's trail: a log belongs to the node that writes it.
    NodeId = "node";
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $what:literal, $max:literal, $ok:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($what, ":{}"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let ok: fn(&[u8]) -> bool = $ok;
                if !text.is_empty() && text.len() <= $max && ok(text.as_bytes()) {
                    Ok(Self(Arc::from(text)))
                } else {
                    Err(ParseIdError::new(text, $what))
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = String::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

names! {
    /// A configured hypervisor: 1 to 63 of `a-z 0-9 -`, first and last no hyphen; it is a DNS label.
    HypervisorName = "hypervisor name", 63, |b| {
        b.iter().all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'-')) && b.first() != Some(&b'-') && b.last() != Some(&b'-')
    };
    /// A machine inside its hypervisor, stable for its life: 1 to 128 of `A-Z a-z 0-9 . _ : -`,
    /// not starting with a dot. Drivers choose it: libvirt's UUID, LXD's `project:name`.
    MachineId = "machine id", 128, |b| {
        b.iter().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b':' | b'-')) && b.first() != Some(&b'.')
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_path_segment_are_refused() {
        for bad in ["", "..", ".x", "a/b", "a\\b", "a b", "a%2f", "a\0", "ä", &"a".repeat(129)] {
            assert!(bad.parse::<MachineId>().is_err(), "{bad:?}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", &"a".repeat(64)] {
            assert!(bad.parse::<HypervisorName>().is_err(), "{bad:?}");
        }
        assert!("default:c1".parse::<MachineId>().is_ok());
        assert!("pve-1".parse::<HypervisorName>().is_ok());
    }

    #[test]
    fn an_id_survives_its_text() {
        let id = UserId::new(Uuid::from_u128(7));
        assert_eq!(id.to_string().parse::<UserId>(), Ok(id));
    }
}
