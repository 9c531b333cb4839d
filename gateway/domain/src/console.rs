// SPDX-License-Identifier: Apache-2.0
//! Console sessions: how they are opened and how they end.

use crate::action::Action;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// What a console session may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConsoleMode {
    /// Watch only: the gateway drops every input.
    View,
    /// Keyboard and mouse.
    Control,
}

impl ConsoleMode {
    /// The action that opening it needs.
    pub const fn action(self) -> Action {
        match self {
            Self::View => Action::ConsoleView,
            Self::Control => Action::ConsoleControl,
        }
    }

    /// The word in tickets and addresses.
    pub const fn word(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Control => "control",
        }
    }
}

impl FromStr for ConsoleMode {
    type Err = crate::id::ParseIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "view" => Ok(Self::View),
            "control" => Ok(Self::Control),
            _ => Err(crate::id::ParseIdError::new(text, "console mode: use view or control")),
        }
    }
}

/// Why a console session ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// It never began: the hypervisor or its screen did not answer as it should. The text is the whole reason.
    Unopened(String),
    /// It never began: it must be recorded and the recording could not be started. The text is the whole reason.
    Unrecorded(String),
    /// It never began: too many are open already. The text is the whole reason.
    Crowded(String),
    /// The person closed it.
    Closed,
    /// The browser vanished: no answer to pings.
    Vanished,
    /// The hypervisor closed the screen.
    UpstreamClosed,
    /// No key or pointer input for the allowed time.
    Idle,
    /// The allowed time is over.
    TimeUp,
    /// Access was taken away: signed out, locked, grant ended, policy changed. The text says which.
    Cut(String),
    /// The recording could not be written.
    RecordingFailed,
    /// The viewer sent what RFB or WebSocket does not allow. The text says what.
    ViewerFault(String),
    /// The hypervisor sent what RFB does not allow, or too much of it. The text says what.
    UpstreamFault(String),
    /// The gateway is shutting down.
    Shutdown,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unopened(why) | Self::Unrecorded(why) | Self::Crowded(why) => f.write_str(why),
            Self::Closed => f.write_str("closed"),
            Self::Vanished => f.write_str("the browser stopped answering"),
            Self::UpstreamClosed => f.write_str("the machine closed the screen"),
            Self::Idle => f.write_str("no input for the allowed time"),
            Self::TimeUp => f.write_str("the allowed time is over"),
            Self::Cut(why) => write!(f, "access ended: {why}"),
            Self::RecordingFailed => f.write_str("the recording could not be written"),
            Self::ViewerFault(what) => write!(f, "the viewer sent something wrong: {what}"),
            Self::UpstreamFault(what) => write!(f, "the machine's screen sent something wrong: {what}"),
            Self::Shutdown => f.write_str("the gateway is shutting down"),
        }
    }
}
