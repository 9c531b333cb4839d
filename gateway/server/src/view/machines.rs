// SPDX-License-Identifier: Apache-2.0
//! My machines, and the page around one machine's screen.

use super::{Flash, Problems, Shell, Shut};
use askama::Template;
use portcullis_domain::{ConsoleMode, MachineKind, PowerState};

/// What a person can do with a machine's power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Power {
    /// Switch on.
    Start,
    /// Ask the guest to shut down.
    Shutdown,
    /// Halt with its memory kept.
    Pause,
    /// Go on after a pause.
    Resume,
    /// Restart without asking the guest.
    Reset,
    /// Switch off without asking the guest.
    Stop,
}

impl Power {
    /// Every verb, the gentle ones first.
    pub(crate) const ALL: [Self; 6] = [Self::Start, Self::Shutdown, Self::Pause, Self::Resume, Self::Reset, Self::Stop];

    /// The value of the form field `verb`.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Shutdown => "shutdown",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Reset => "reset",
            Self::Stop => "stop",
        }
    }

    /// Reads the form field `verb`.
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|v| v.word() == word)
    }

    /// What the button says.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Start => "Power on",
            Self::Shutdown => "Shut down",
            Self::Pause => "Pause",
            Self::Resume => "Resume",
            Self::Reset => "Reset",
            Self::Stop => "Power off",
        }
    }

    /// What is asked before it is done; empty when nothing is lost by it.
    pub(crate) const fn question(self) -> &'static str {
        match self {
            Self::Start | Self::Resume | Self::Pause => "",
            Self::Shutdown => "The guest is asked to shut down. Everyone working on it is interrupted.",
            Self::Reset => "This is like pressing the reset button: unsaved work in the guest is lost.",
            Self::Stop => "This is like pulling the plug: unsaved work in the guest is lost.",
        }
    }

    /// The verbs that make sense in a state.
    pub(crate) fn for_state(state: PowerState) -> Vec<Self> {
        match state {
            PowerState::Running => vec![Self::Shutdown, Self::Pause, Self::Reset, Self::Stop],
            PowerState::Paused => vec![Self::Resume, Self::Stop],
            PowerState::Off => vec![Self::Start],
            PowerState::Crashed => vec![Self::Reset, Self::Stop],
            PowerState::Unknown => vec![],
        }
    }
}

/// Whether a console can be opened from here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConsoleDoor {
    /// With keyboard and mouse.
    Control,
    /// Watching only.
    View,
    /// Not now, whoever asks; the words say why and what would help.
    Closed(String),
    /// Not to this person.
    Shut(Box<Shut>),
}

/// One machine in the list.
#[derive(Debug, Clone)]
pub(crate) struct MachineRow {
    /// Its hypervisor's name.
    pub(crate) hypervisor: String,
    /// Its id there.
    pub(crate) id: String,
    /// Its name.
    pub(crate) name: String,
    /// What it is.
    pub(crate) kind: MachineKind,
    /// Whether it runs.
    pub(crate) state: PowerState,
    /// Its pool or project.
    pub(crate) pool: Option<String>,
    /// Its tags.
    pub(crate) tags: Vec<String>,
    /// The node it runs on.
    pub(crate) node: Option<String>,
    /// Whether the person keeps it on top.
    pub(crate) favourite: bool,
    /// Whether its console can be opened.
    pub(crate) console: ConsoleDoor,
    /// What the person may do with its power now; empty when nothing.
    pub(crate) power: Vec<Power>,
    /// Why they may not switch its power, where it could be switched.
    pub(crate) no_power: Option<Shut>,
}

impl MachineRow {
    /// The word for what it is.
    pub(crate) const fn kind_word(&self) -> &'static str {
        match self.kind {
            MachineKind::Guest => "virtual machine",
            MachineKind::Container => "container",
            MachineKind::Template => "template",
        }
    }

    /// Whether its screen opens for this person.
    pub(crate) const fn opens(&self) -> bool {
        matches!(self.console, ConsoleDoor::Control | ConsoleDoor::View)
    }

    /// `hypervisor/id`, as in addresses.
    pub(crate) fn at(&self) -> String {
        format!("{}/{}", self.hypervisor, self.id)
    }

    /// What the search box looks through.
    pub(crate) fn words(&self) -> String {
        let mut words = format!("{} {} {} {}", self.name, self.hypervisor, self.id, self.state.word());
        for word in self.tags.iter().chain(&self.pool).chain(&self.node) {
            words.push(' ');
            words.push_str(word);
        }
        words.to_lowercase()
    }
}

/// Something to know about a hypervisor, shown above the list.
pub(crate) type Notice = Flash;

/// My machines, at `/`. Searches by `GET /?q=`; posts `csrf machine set next` to `/favourites` (`set` is `on` or `off`,
/// `machine` is `hypervisor/id`) and `csrf verb next` to `/machines/{hypervisor}/{id}/power`.
#[derive(Template)]
#[template(path = "pages/machines.html")]
pub(crate) struct Machines {
    /// Around it.
    pub(crate) shell: Shell,
    /// What is searched for.
    pub(crate) query: String,
    /// The machines to show, favourites first.
    pub(crate) rows: Vec<MachineRow>,
    /// How many the person may see in all, before the search.
    pub(crate) total: usize,
    /// Hypervisors that are down, and the like.
    pub(crate) notices: Vec<Notice>,
}

/// Whether a screen is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recorded {
    /// It is, or it does not open.
    Yes,
    /// The person's access does not ask for it.
    No,
}

/// One machine's screen, at `/c/{hypervisor}/{machine}`; `?mode=view` to watch only. The script asks for a ticket and
/// opens the stream; posts `csrf verb next` to `/machines/{hypervisor}/{id}/power`.
#[derive(Template)]
#[template(path = "pages/console.html")]
pub(crate) struct ConsolePage {
    /// Around it.
    pub(crate) shell: Shell,
    /// The machine's hypervisor.
    pub(crate) hypervisor: String,
    /// Its id there.
    pub(crate) id: String,
    /// Its name.
    pub(crate) name: String,
    /// Whether it runs.
    pub(crate) state: PowerState,
    /// What was asked for and is allowed.
    pub(crate) mode: ConsoleMode,
    /// Whether the person may also take keyboard and mouse.
    pub(crate) may_control: bool,
    /// Whether it will be recorded, as far as is known before there is a ticket.
    pub(crate) recorded: Recorded,
    /// What the person may do with its power now.
    pub(crate) power: Vec<Power>,
    /// Why they may not switch its power, where it could be switched.
    pub(crate) no_power: Option<Shut>,
    /// Why it cannot be opened, when it cannot; the script then does not try.
    pub(crate) closed: Option<String>,
    /// Why they may not use keyboard and mouse, where they may only watch.
    pub(crate) no_keys: Option<Shut>,
    /// Whether the person may lock the machine.
    pub(crate) may_lock: bool,
    /// What went wrong with a form of this page.
    pub(crate) problems: Problems,
}

impl ConsolePage {
    /// Where the script asks for a ticket.
    pub(crate) fn ticket_path(&self) -> String {
        format!("/api/v1/consoles/{}/{}/ticket/{}", self.hypervisor, self.id, self.mode.word())
    }

    /// Where the stream is.
    pub(crate) fn stream_path(&self) -> String {
        format!("/api/v1/consoles/{}/{}/stream/{}", self.hypervisor, self.id, self.mode.word())
    }
}

super::places! { Machines = "machines", }
