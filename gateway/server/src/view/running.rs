// SPDX-License-Identifier: Apache-2.0
//! What runs now and what is kept of it: live consoles, hypervisors, recordings.

use super::{Shell, When};
use askama::Template;
use portcullis_domain::ConsoleMode;

/// One live console.
#[derive(Debug, Clone)]
pub(crate) struct LiveRow {
    /// Its id.
    pub(crate) id: String,
    /// Who.
    pub(crate) user: String,
    /// From which address.
    pub(crate) place: String,
    /// The machine's hypervisor.
    pub(crate) hypervisor: String,
    /// The machine's id there.
    pub(crate) machine: String,
    /// The machine's name.
    pub(crate) machine_name: String,
    /// What it may do.
    pub(crate) mode: ConsoleMode,
    /// Since when.
    pub(crate) started: When,
    /// When it ends at the latest.
    pub(crate) ends: Option<When>,
    /// Whether it is recorded.
    pub(crate) recorded: bool,
}

/// Live consoles, at `/sessions`. Posts `csrf id reason` to `/sessions/end`.
#[derive(Template)]
#[template(path = "pages/live_consoles.html")]
pub(crate) struct LiveConsoles {
    /// Around it.
    pub(crate) shell: Shell,
    /// The consoles.
    pub(crate) rows: Vec<LiveRow>,
    /// Whether the person may end them.
    pub(crate) may_end: bool,
}

/// How a hypervisor stands.
#[derive(Debug, Clone)]
pub(crate) enum HypervisorState {
    /// It answers.
    Up,
    /// It does not; why, and since when.
    Down(String, When),
    /// It answers, but something needs attention, such as a certificate that ends soon.
    Warn(String),
}

/// One hypervisor.
#[derive(Debug, Clone)]
pub(crate) struct HypervisorRow {
    /// Its name.
    pub(crate) name: String,
    /// What it is: `libvirt`.
    pub(crate) kind: String,
    /// Where it is, without credentials.
    pub(crate) address: String,
    /// Whose word is taken for it: `CA file, until 2027-02-01`, `unix socket`.
    pub(crate) trust: String,
    /// Where native clients reach it through the gateway, if they can.
    pub(crate) api: Option<String>,
    /// How many machines it has.
    pub(crate) machines: usize,
    /// How it stands.
    pub(crate) state: HypervisorState,
}

/// Configured hypervisors, at `/hypervisors`.
#[derive(Template)]
#[template(path = "pages/hypervisors.html")]
pub(crate) struct Hypervisors {
    /// Around it.
    pub(crate) shell: Shell,
    /// The hypervisors.
    pub(crate) rows: Vec<HypervisorRow>,
    /// Whether the person may lock them.
    pub(crate) may_lock: bool,
    /// Whether the person may add one.
    pub(crate) may_add: bool,
}

/// Whether a recording is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RecordingState {
    /// Still being written.
    Live,
    /// Whole; how the session ended, in words.
    Whole(String),
    /// Not all of it is there; why, in words.
    Broken(String),
}

/// One recording.
#[derive(Debug, Clone)]
pub(crate) struct RecordingRow {
    /// Its id.
    pub(crate) id: String,
    /// Who.
    pub(crate) user: String,
    /// The machine: `hypervisor/id`.
    pub(crate) machine: String,
    /// The machine's name at that time.
    pub(crate) machine_name: String,
    /// Since when.
    pub(crate) started: When,
    /// How long it is, in words; see [`super::span`].
    pub(crate) length: String,
    /// How large it is, in words; see [`super::size`].
    pub(crate) size: String,
    /// Whether it is whole.
    pub(crate) state: RecordingState,
}

/// Recordings, newest first, at `/recordings`.
#[derive(Template)]
#[template(path = "pages/recordings.html")]
pub(crate) struct Recordings {
    /// Around it.
    pub(crate) shell: Shell,
    /// The recordings.
    pub(crate) rows: Vec<RecordingRow>,
    /// The page with older ones, if there are any.
    pub(crate) older: Option<String>,
}

super::places! { LiveConsoles = "sessions", Hypervisors = "hypervisors", Recordings = "recordings", }
