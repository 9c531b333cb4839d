// SPDX-License-Identifier: Apache-2.0
//! What the engine answers in JSON, as far as it is looked at, and what its words mean.

use crate::driver::{clean_text, rest::Rows};
use http::StatusCode;
use portcullis_domain::PowerState;
use serde::Deserialize;

/// Something that is named by its id.
#[derive(Deserialize)]
pub(super) struct Link {
    #[serde(default)]
    pub(super) id: String,
}

/// Something with a name.
#[derive(Deserialize)]
pub(super) struct Named {
    #[serde(default)]
    pub(super) id: String,
    #[serde(default)]
    pub(super) name: String,
}

#[derive(Deserialize, Default)]
pub(super) struct Tags {
    #[serde(default)]
    pub(super) tag: Vec<Named>,
}

/// One machine; what else stands in it is not looked at.
#[derive(Deserialize)]
pub(super) struct Row {
    pub(super) id: String,
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) status: String,
    #[serde(default)]
    pub(super) cluster: Option<Link>,
    #[serde(default)]
    pub(super) host: Option<Link>,
    #[serde(default)]
    pub(super) tags: Tags,
}

/// A list. The engine leaves out what is empty.
#[derive(Deserialize)]
pub(super) struct Machines {
    #[serde(default)]
    pub(super) vm: Option<Rows<Row>>,
}

/// What the API says of itself.
#[derive(Deserialize)]
pub(super) struct Root {
    /// As whom it knows whoever asks.
    pub(super) authenticated_user: Option<Link>,
}

#[derive(Deserialize)]
pub(super) struct Permissions {
    #[serde(default)]
    pub(super) permission: Vec<Permission>,
}

#[derive(Deserialize)]
pub(super) struct Permission {
    pub(super) role: Option<Link>,
}

#[derive(Deserialize)]
pub(super) struct Permits {
    #[serde(default)]
    pub(super) permit: Vec<Named>,
}

#[derive(Deserialize)]
pub(super) struct Clusters {
    #[serde(default)]
    pub(super) cluster: Option<Rows<Named>>,
}

#[derive(Deserialize)]
pub(super) struct Hosts {
    #[serde(default)]
    pub(super) host: Option<Rows<Named>>,
}

#[derive(Deserialize)]
pub(super) struct Events {
    #[serde(default)]
    pub(super) event: Option<Rows<Link>>,
}

#[derive(Deserialize)]
pub(super) struct Consoles {
    #[serde(default)]
    pub(super) graphics_console: Option<Rows<Console>>,
}

#[derive(Deserialize)]
pub(super) struct Console {
    pub(super) id: String,
    pub(super) protocol: String,
    #[serde(default)]
    pub(super) address: Option<String>,
    #[serde(default)]
    pub(super) port: Option<Number>,
}

/// A number, which the engine also writes as a text.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Number {
    Plain(u64),
    Text(String),
}

impl Number {
    pub(super) fn port(&self) -> Option<u16> {
        match self {
            Self::Plain(number) => u16::try_from(*number).ok(),
            Self::Text(text) => text.parse().ok(),
        }
    }
}

/// What asking for a ticket gives. No `Debug`: it is the screen's password.
#[derive(Deserialize)]
pub(super) struct Offer {
    pub(super) ticket: Ticket,
}

#[derive(Deserialize)]
pub(super) struct Ticket {
    pub(super) value: String,
}

/// Why something was refused, in the engine's own words.
#[derive(Deserialize)]
pub(super) struct Refusal {
    #[serde(default)]
    pub(super) reason: String,
    #[serde(default)]
    pub(super) detail: String,
    /// An action that failed says it inside.
    #[serde(default)]
    pub(super) fault: Option<Box<Refusal>>,
}

pub(super) fn words(status: StatusCode, text: &[u8]) -> String {
    let said: Option<Refusal> = serde_json::from_slice(text).ok();
    let said = said.map(|all| all.fault.map_or((all.reason, all.detail), |f| (f.reason, f.detail)));
    let said = said.map(|(reason, detail)| if detail.is_empty() { reason } else { format!("{reason}: {detail}") });
    said.map(|s| clean_text(&s)).filter(|s| !s.is_empty()).unwrap_or_else(|| format!("status {status}"))
}

/// What a machine's status means (`VmStatus` of the engine's model).
pub(super) fn state(status: &str) -> PowerState {
    match status {
        "up" | "powering_up" | "powering_down" | "reboot_in_progress" | "migrating" | "not_responding"
        | "saving_state" => PowerState::Running,
        "paused" | "suspended" => PowerState::Paused,
        "down" | "image_locked" | "wait_for_launch" | "restoring_state" => PowerState::Off,
        _ => PowerState::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_in_the_engines_own_words() {
        let of = |text: &str| words(StatusCode::CONFLICT, text.as_bytes());
        assert_eq!(
            of(r#"{"reason": "Operation Failed", "detail": "[VM is running.]"}"#),
            "Operation Failed: [VM is running.]"
        );
        assert_eq!(of(r#"{"status": "failed", "fault": {"reason": "Operation Failed"}}"#), "Operation Failed");
        assert_eq!(of("<html>"), "status 409 Conflict");
        assert_eq!(of(r#"{"reason": 1}"#), "status 409 Conflict");
    }

    #[test]
    fn every_status_of_the_engine_is_a_state() {
        for (status, wanted) in [
            ("up", PowerState::Running),
            ("migrating", PowerState::Running),
            ("suspended", PowerState::Paused),
            ("down", PowerState::Off),
            ("unknown", PowerState::Unknown),
            ("", PowerState::Unknown),
        ] {
            assert_eq!(state(status), wanted, "{status}");
        }
    }
}
