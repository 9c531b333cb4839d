// SPDX-License-Identifier: Apache-2.0
//! One driver a kind of hypervisor. Vendor words stay below this file.

use crate::{
    api::Api,
    desk::Desk,
    error::Fault,
    fleet::Board,
    rotate::{KnownAs, Rotation, by_hand},
    tls::TlsUpgrade,
    wire::{Dialer, Stream},
};
use async_trait::async_trait;
use http::HeaderValue;
use portcullis_domain::{HypervisorName, Machine, MachineId, Secret};
use portcullis_policy::classify::{Form, Json};
use std::sync::Arc;

pub(crate) mod kubevirt;
pub(crate) mod libvirt;
pub(crate) mod lxd;
pub(crate) mod openstack;
pub(crate) mod ovirt;
pub(crate) mod proxmox;
pub(crate) mod qemu;
mod rest;
pub(crate) mod vmm;
pub(crate) mod vsphere;
pub(crate) mod xapi;

pub(crate) use vsphere::{Automation, SESSION, keep as keep_seen};
pub(crate) use xapi::{Index, Keeping, Pool as MethodApi, Session, is_over, keep as keep_objects, task as task_of};

pub use kubevirt::{Basis, Cut, Cutter, Gaze, Step, Watched};

pub(crate) use rest::collect;

pub use libvirt::{Frame, FrameKind, FrameStatus, Frames, LinkReader, LinkWriter};

/// How often everything is read anew, even without an event.
pub(crate) const REFRESH: std::time::Duration = std::time::Duration::from_secs(30);
/// How long one answer about the inventory may take.
pub(crate) const LIST: std::time::Duration = std::time::Duration::from_secs(30);
/// The largest single answer, bytes.
pub(crate) const MAX_ANSWER: usize = 32 * 1024 * 1024;

const MAX_NAME: usize = 256;
const MAX_LABEL: usize = 128;
const MAX_TAGS: usize = 64;

/// What can be done to a machine's power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerVerb {
    /// Start it.
    Start,
    /// Ask its system to shut down.
    Shutdown,
    /// Cut its power.
    Stop,
    /// Reset it without asking its system.
    Reset,
    /// Halt it with its memory kept.
    Pause,
    /// Go on after a pause.
    Resume,
}

impl PowerVerb {
    /// Every verb.
    pub const ALL: &[Self] = &[Self::Start, Self::Shutdown, Self::Stop, Self::Reset, Self::Pause, Self::Resume];

    /// The word in addresses and on buttons.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Shutdown => "shutdown",
            Self::Stop => "stop",
            Self::Reset => "reset",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }
}

impl std::str::FromStr for PowerVerb {
    type Err = String;
    fn from_str(word: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().copied().find(|v| v.word() == word);
        found.ok_or_else(|| "use start, shutdown, stop, reset, pause or resume".to_owned())
    }
}

/// What a screen asks of whoever connects. Never shown to a person.
pub struct ScreenLogin {
    /// User name, where the screen has users.
    pub username: Option<String>,
    /// Password, where it has one.
    pub password: Option<Secret>,
}

/// An open connection to a machine's screen, before its first byte.
pub struct Screen {
    /// The connection.
    pub stream: Stream,
    /// What it will ask for.
    pub login: ScreenLogin,
    /// TLS that must be used on it; when present, a screen that offers none must be refused.
    pub tls: Option<TlsUpgrade>,
}

/// What clients of an RPC have to know and keep to.
#[derive(Debug, Clone)]
pub struct RpcFace {
    /// The address of what they may open.
    pub uri: Arc<str>,
    /// The XML namespace of the labels that grants speak of.
    pub labels: Arc<str>,
}

impl RpcFace {
    /// Where clients open it through the gateway: the address with the gateway's host and port, inside TLS.
    pub fn address(&self, host: &str, port: u16) -> Option<String> {
        let (driver, rest) = self.uri.split_once("://")?;
        let (_, what) = rest.split_once('/')?;
        Some(format!("{driver}+tls://{host}:{port}/{what}"))
    }
}

/// A machine's settings, in the words in which its API writes them.
pub enum Settings {
    /// Nested JSON.
    Json(Json),
    /// Parameters.
    Params(Form),
    /// Descriptions in XML: as it runs, and as it is defined.
    Xml(Vec<String>),
}

/// What settings of a machine are asked for beside those of now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beside {
    /// None.
    Nothing,
    /// Those that a snapshot of it holds.
    Snapshot(String),
    /// Those that are in effect, without changes that wait for its next start: what a copy has.
    Effective,
    /// Those with which it goes on where it starts with the memory that was saved; none where nothing was saved.
    Saved,
}

/// What a machine's settings are. For decisions, and for nobody to see: there may be secrets among them.
pub struct Standing {
    /// What they are now.
    pub now: Settings,
    /// What was asked for beside them.
    pub then: Option<Settings>,
    /// What the API calls these settings (RFC 9110 section 8.8.3), where it does: a change on the condition that they
    /// are the same finds no later ones.
    pub mark: Option<HeaderValue>,
}

/// One kind of hypervisor.
#[async_trait]
pub(crate) trait Driver: Send + Sync {
    /// Reads the machines and follows their changes, until it fails.
    async fn follow(&self, board: &Board) -> Fault;
    /// Changes a machine's power.
    async fn power(&self, machine: &MachineId, verb: PowerVerb) -> Result<(), Fault>;
    /// Connects to a machine's screen.
    async fn open_screen(&self, machine: &MachineId) -> Result<Screen, Fault>;
    /// Reads what a machine's settings are now, and what is asked for beside them.
    async fn standing(&self, _: &MachineId, _: &Beside) -> Result<Standing, Fault> {
        Err(Fault::Unsupported("its settings cannot be read".to_owned()))
    }
    /// Where people's own sessions with it are kept; none where its API has no sessions of that kind.
    fn desk(&self) -> Option<&Arc<Desk>> {
        None
    }
    /// How its objects are cut down to what somebody may see; none where its API has no objects of that kind.
    fn cutter(&self) -> Option<&Arc<Cutter>> {
        None
    }
    /// What its clients speak, where that is an RPC of its own.
    fn rpc(&self) -> Option<RpcFace> {
        None
    }
    /// Opens a connection for one client of that RPC.
    async fn open_rpc(&self, _: &HypervisorName, _: u32) -> Result<(LinkReader, LinkWriter), Fault> {
        Err(Fault::Unsupported("it has no RPC".to_owned()))
    }
    /// Keeps the credential usable where its inventory is read with another one, until that fails.
    async fn stay(&self) -> Fault {
        std::future::pending().await
    }
    /// As whom the gateway is known there: a call that shows that its credential counts.
    async fn known_as(&self) -> Result<KnownAs, Fault> {
        Err(Fault::Unsupported("it does not say as whom the gateway is known".to_owned()))
    }
    /// The way to its API; none where each of its machines has one of its own.
    fn dialer(&self) -> Option<&Dialer>;
    /// How its secret is replaced.
    async fn rotation(&self) -> Result<Rotation, Fault> {
        Ok(Rotation::ByHand("its secret cannot be replaced by its API"))
    }
    /// What a new secret changes beside what the gateway shows: somebody has to agree to it.
    fn caution(&self) -> Option<&'static str> {
        None
    }
    /// What a secret is called there, so that people find it. Never the secret itself.
    fn label(&self, _: &Secret) -> Option<String> {
        None
    }
    /// Has a new secret made beside the one in use.
    async fn make_secret(&self) -> Result<Secret, Fault> {
        Err(by_hand())
    }
    /// Gives it a new secret.
    async fn put_secret(&self, _: &Secret) -> Result<(), Fault> {
        Err(by_hand())
    }
    /// Takes away a secret that is not the one in use.
    async fn retire_secret(&self, _: &Secret) -> Result<(), Fault> {
        Err(by_hand())
    }
    /// What rotations made there and this credential is not: by their labels, for people to look at.
    async fn others(&self) -> Result<Vec<String>, Fault> {
        Ok(Vec::new())
    }
    /// Something was changed with another credential: what is known is read anew soon.
    fn nudge(&self) {}
    /// Whether it knows how to do that at all.
    fn can(&self, _: PowerVerb) -> bool {
        true
    }
}

/// A driver, and what else came out of its configuration.
pub(crate) struct Built {
    pub(crate) driver: Box<dyn Driver>,
    pub(crate) api: Option<Api>,
    pub(crate) warnings: Vec<String>,
    /// Where it is, for people.
    pub(crate) address: String,
}

pub(crate) const UNVERIFIED: &str =
    "tls.verify = \"none\": anybody on the way can read and change everything; use a CA or a pin";

/// Cleans what a hypervisor says about a machine. Names are shown, so they are shortened; tags and pools open doors,
/// so an odd one is left out, never changed into another.
pub(crate) fn clean(mut machine: Machine, notes: &mut Vec<String>) -> Machine {
    machine.name = clean_text(&machine.name);
    if machine.name.is_empty() {
        machine.name = machine.at.machine.to_string();
    }
    machine.node = machine.node.map(|n| clean_text(&n)).filter(|n| !n.is_empty());
    let found = machine.tags.len() + usize::from(machine.pool.is_some());
    machine.tags.retain(|t| is_label(t));
    machine.tags.truncate(MAX_TAGS);
    machine.tags.sort_unstable();
    machine.tags.dedup();
    machine.pool = machine.pool.filter(|p| is_label(p));
    if machine.tags.len() + usize::from(machine.pool.is_some()) < found {
        notes.push(format!(
            "{}: a tag or pool was left out (empty, double, too long or unprintable)",
            machine.at.machine
        ));
    }
    machine
}

/// Text of a hypervisor for people: no control characters, no change of reading direction, at most 256 characters.
pub(crate) fn clean_text(text: &str) -> String {
    let is_shown = |c: &char| {
        !c.is_control() && !matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().filter(is_shown).take(MAX_NAME).collect::<String>().trim().to_owned()
}

fn is_label(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_LABEL && text.trim() == text && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_domain::{ConsoleKind, MachineKind, PowerState};

    #[test]
    fn a_lying_name_is_shortened_and_an_odd_tag_is_left_out() {
        let machine = Machine {
            at: "lab/m1".parse().unwrap(),
            name: format!("a\u{1b}[31m\u{202e}b{}", "x".repeat(1000)),
            kind: MachineKind::Guest,
            state: PowerState::Running,
            pool: Some("p\n".into()),
            tags: vec!["web".into(), "we\u{1}b".into(), String::new(), " db".into(), "y".repeat(129), "web".into()],
            node: None,
            console: ConsoleKind::None,
        };
        let mut notes = Vec::new();
        let machine = clean(machine, &mut notes);
        assert!(machine.name.starts_with("a[31mb") && machine.name.chars().count() == 256);
        assert_eq!(machine.tags, ["web"]);
        assert_eq!(machine.pool, None);
        assert_eq!(notes.len(), 1);
    }
}
