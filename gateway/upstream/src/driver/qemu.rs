// SPDX-License-Identifier: Apache-2.0
//! QEMU guests, each with a QMP socket of its own.
//!
//! A QMP socket serves one client at a time, so one connection a guest is kept and every command goes through it. A
//! guest whose socket is gone is off; one whose socket is silent is unknown.

use super::{Built, Driver, PowerVerb, REFRESH, Screen, ScreenLogin};
use crate::{
    config::{GuestConfig, QemuConfig, Verify},
    driver::UNVERIFIED,
    error::{Error, Fault},
    fleet::Board,
    secret::{Held, Site},
    tls::TlsUpgrade,
    wire::{Address, Dialer},
};
use async_trait::async_trait;
use bytes::BytesMut;
use futures_util::future::join_all;
use portcullis_domain::{Action, ConsoleKind, Machine, MachineId, MachineKind, MachineRef, PowerState, Secret};
use portcullis_policy::classify::qmp::Commands;
use serde::Deserialize;
use std::{
    collections::HashSet,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::{mpsc, oneshot},
};

const MAX_GUESTS: usize = 1_000;
/// The longest QMP line, bytes.
const MAX_LINE: usize = 1024 * 1024;
/// How long one QMP answer may take.
const REPLY: Duration = Duration::from_secs(10);
/// How often a guest that is off is looked for.
const LOOK: Duration = Duration::from_millis(500);
/// How long the first list waits for slow guests.
const FIRST_LOOK: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);

struct Order {
    verb: PowerVerb,
    done: oneshot::Sender<Result<(), Fault>>,
}

struct Guest {
    machine: Machine,
    vnc: Option<Address>,
    password: Option<Arc<Held>>,
    username: Option<String>,
    tls: Option<TlsUpgrade>,
    qmp: Option<PathBuf>,
    orders: mpsc::Sender<Order>,
    inbox: tokio::sync::Mutex<mpsc::Receiver<Order>>,
}

/// Which guests must have been tried before a list is published.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Guests {
    /// Each of them.
    Tried,
    /// None.
    All,
}

struct Qemu {
    guests: Vec<Guest>,
    states: Mutex<States>,
}

/// What is known of each guest; nothing until its socket was tried once.
type States = Vec<Option<(PowerState, Option<String>)>>;

pub(crate) fn build(site: &mut Site<'_>, config: QemuConfig) -> Result<Built, Error> {
    let (key, guests) = (site.common.key_of("guests"), config.guests);
    if guests.len() > MAX_GUESTS {
        return Err(Error::config(key, format!("{} guests are too many; the limit is {MAX_GUESTS}", guests.len())));
    }
    let mut ids = HashSet::new();
    let mut warnings = Vec::new();
    let mut built = Vec::with_capacity(guests.len());
    for guest in guests {
        let key = format!("{key}.{}", guest.id);
        if !ids.insert(guest.id.clone()) {
            return Err(Error::config(key, "two guests have this id"));
        }
        if guest.tls.as_ref().is_some_and(|t| t.verify == Verify::None) {
            warnings.push(format!("{}: {UNVERIFIED}", guest.id));
        }
        built.push(Guest::new(site, &key, guest)?);
    }
    // Without QMP there is nothing to wait for.
    let states = built.iter().map(|g| if g.qmp.is_some() { None } else { Some((PowerState::Unknown, None)) });
    let states = Mutex::new(states.collect());
    let address = format!("{} guests", built.len());
    Ok(Built { driver: Box::new(Qemu { guests: built, states }), api: None, warnings, address })
}

impl Guest {
    fn new(site: &mut Site<'_>, key: &str, config: GuestConfig) -> Result<Self, Error> {
        let hypervisor = site.common.name.clone();
        let vnc = config.vnc.as_deref().map(|v| Address::parse(&format!("{key}.vnc"), v)).transpose()?;
        let host = vnc.as_ref().and_then(Address::host);
        let tls = config.tls.as_ref().map(|t| TlsUpgrade::new(key, t, host, None)).transpose()?;
        let credential = format!("guest {}", config.id);
        let password = config.password.map(|source| site.hold_as(&credential, key, "password", source, |_| Ok(())));
        let password = password.transpose()?;
        if config.username.is_some() && tls.is_none() {
            let why = "a user name goes out in the clear without tls: add tls, or drop the user name";
            return Err(Error::config(format!("{key}.username"), why));
        }
        let (orders, inbox) = mpsc::channel(8);
        let machine = Machine {
            name: config.name.unwrap_or_else(|| config.id.to_string()),
            at: MachineRef { hypervisor, machine: config.id },
            kind: MachineKind::Guest,
            state: PowerState::Unknown,
            pool: config.pool,
            tags: config.tags,
            node: None,
            console: if vnc.is_some() { ConsoleKind::Vnc } else { ConsoleKind::None },
        };
        let inbox = tokio::sync::Mutex::new(inbox);
        Ok(Self { machine, vnc, password, username: config.username, tls, qmp: config.qmp, orders, inbox })
    }

    /// Read each time, so that a changed password needs no restart.
    fn password(&self) -> Result<Option<Secret>, Fault> {
        let Some(held) = &self.password else { return Ok(None) };
        held.fresh().map(|secret| Some(Secret::clone(&secret))).map_err(|e| Fault::NoScreen(e.to_string()))
    }
}

#[async_trait]
impl Driver for Qemu {
    fn dialer(&self) -> Option<&Dialer> {
        None
    }

    async fn follow(&self, board: &Board) -> Fault {
        self.publish(board, Guests::Tried);
        let late = async {
            tokio::time::sleep(FIRST_LOOK).await;
            self.publish(board, Guests::All);
        };
        let all = join_all(self.guests.iter().enumerate().map(|(i, g)| self.attend(i, g, board)));
        tokio::join!(all, late);
        // Only a list without a guest that has QMP comes here: there is nothing to follow.
        std::future::pending().await
    }

    async fn power(&self, machine: &MachineId, verb: PowerVerb) -> Result<(), Fault> {
        let guest = self.guest(machine)?;
        if verb == PowerVerb::Start {
            let why = "a QEMU guest without a manager is started on its own host; here it can only be paused, reset and stopped";
            return Err(Fault::Unsupported(why.to_owned()));
        }
        if guest.qmp.is_none() {
            return Err(Fault::Unsupported("the configuration names no qmp socket for this guest".to_owned()));
        }
        let (done, answer) = oneshot::channel();
        let gone = || Fault::hung_up("the guest is not running, or its QMP socket does not answer");
        let sent = tokio::time::timeout(REPLY, guest.orders.send(Order { verb, done })).await;
        if !matches!(sent, Ok(Ok(()))) {
            return Err(Fault::TooSlow("to take another command"));
        }
        match tokio::time::timeout(REPLY, answer).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => Err(gone()),
            Err(_) => Err(Fault::TooSlow("to answer on its QMP socket")),
        }
    }

    fn can(&self, verb: PowerVerb) -> bool {
        verb != PowerVerb::Start
    }

    async fn open_screen(&self, machine: &MachineId) -> Result<Screen, Fault> {
        let guest = self.guest(machine)?;
        let vnc = guest.vnc.as_ref();
        let vnc =
            vnc.ok_or_else(|| Fault::NoScreen("the configuration names no vnc address for this guest".to_owned()))?;
        let stream = vnc.dial().await?;
        let password = guest.password()?;
        Ok(Screen { stream, login: ScreenLogin { username: guest.username.clone(), password }, tls: guest.tls.clone() })
    }
}

impl Qemu {
    fn guest(&self, machine: &MachineId) -> Result<&Guest, Fault> {
        let found = self.guests.iter().find(|g| g.machine.at.machine == *machine);
        found.ok_or_else(|| Fault::Refused(format!("there is no guest {machine}")))
    }

    /// Waits with the first list until every guest was tried, unless one takes too long.
    fn publish(&self, board: &Board, which: Guests) {
        let states = self.states.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if which == Guests::Tried && states.iter().any(Option::is_none) && !board.has_published() {
            return;
        }
        let states: Vec<_> = states.into_iter().map(|s| s.unwrap_or((PowerState::Unknown, None))).collect();
        let machines =
            self.guests.iter().zip(&states).map(|(g, (state, _))| Machine { state: *state, ..g.machine.clone() });
        let notes = self
            .guests
            .iter()
            .zip(&states)
            .filter_map(|(g, (_, why))| why.as_ref().map(|why| format!("{}: {why}", g.machine.at.machine)));
        board.publish(machines.collect(), notes.collect());
    }

    fn set(&self, board: &Board, index: usize, state: PowerState, note: Option<String>) {
        {
            let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(slot) = states.get_mut(index) else { return };
            let news = Some((state, note));
            if *slot == news {
                return;
            }
            *slot = news;
        }
        self.publish(board, Guests::Tried);
    }

    /// Keeps one guest's connection, for ever.
    async fn attend(&self, index: usize, guest: &Guest, board: &Board) {
        let Some(path) = &guest.qmp else { return };
        let mut inbox = guest.inbox.lock().await;
        let mut delay = LOOK;
        loop {
            let fault = match Qmp::connect(path).await {
                Ok(mut qmp) => {
                    delay = LOOK;
                    let lost = self.serve(&mut qmp, index, &mut inbox, board).await;
                    // The process may be gone, or only the connection: the next look tells which.
                    if matches!(lost, Fault::Unreachable { .. }) {
                        self.set(board, index, PowerState::Off, None);
                    }
                    lost
                }
                Err(fault) => fault,
            };
            match &fault {
                Fault::Unreachable { source: Some(e), .. }
                    if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) =>
                {
                    self.set(board, index, PowerState::Off, None);
                    delay = LOOK;
                }
                Fault::Unreachable { source: None, .. } => {}
                _ => self.set(board, index, PowerState::Unknown, Some(fault.to_string())),
            }
            // Nobody waits for a guest that is gone.
            let pause = tokio::time::sleep(delay);
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    () = &mut pause => break,
                    Some(order) = inbox.recv() => {
                        let _ = order.done.send(Err(Fault::hung_up("the guest is not running")));
                    }
                }
            }
            delay = (delay * 2).min(LAST_RETRY);
        }
    }

    async fn serve(&self, qmp: &mut Qmp, index: usize, inbox: &mut mpsc::Receiver<Order>, board: &Board) -> Fault {
        match qmp.status().await {
            Ok(state) => self.set(board, index, state, None),
            Err(fault) => return fault,
        }
        loop {
            if let Some(state) = qmp.news.take() {
                self.set(board, index, state, None);
            }
            let step = tokio::select! {
                line = qmp.line() => line.and_then(|line| qmp.note(&line)).map(|_| None),
                Some(order) = inbox.recv() => Ok(Some(order)),
                () = tokio::time::sleep(REFRESH) => match qmp.status().await {
                    Ok(state) => {
                        qmp.news = Some(state);
                        Ok(None)
                    }
                    Err(fault) => Err(fault),
                },
            };
            match step {
                Ok(None) => {}
                Ok(Some(Order { verb, done })) => {
                    let result = qmp.execute(command(verb), Some(Action::Power)).await;
                    let is_lost =
                        matches!(result, Err(Fault::Unreachable { .. } | Fault::TooSlow(_) | Fault::Protocol(_)));
                    let left = verb == PowerVerb::Stop && matches!(result, Err(Fault::Unreachable { .. }));
                    let _ = done.send(if left { Ok(()) } else { result.map(|_| ()) });
                    if is_lost {
                        return Fault::hung_up("closed its QMP socket");
                    }
                }
                Err(fault) => return fault,
            }
        }
    }
}

const fn command(verb: PowerVerb) -> &'static str {
    match verb {
        PowerVerb::Shutdown => "system_powerdown",
        PowerVerb::Stop => "quit",
        PowerVerb::Reset => "system_reset",
        PowerVerb::Pause => "stop",
        // Refused before it comes here for a start.
        PowerVerb::Resume | PowerVerb::Start => "cont",
    }
}

/// One line from QEMU: a greeting, an answer or an event. What else stands in it is not looked at.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "QMP")]
    greeting: Option<serde::de::IgnoredAny>,
    #[serde(rename = "return")]
    answer: Option<serde_json::Value>,
    error: Option<QmpError>,
    event: Option<String>,
}

#[derive(Deserialize)]
struct QmpError {
    desc: String,
}

#[derive(Deserialize)]
struct Status {
    status: String,
}

struct Qmp {
    socket: UnixStream,
    buffer: BytesMut,
    /// The state that the last event told, until it is taken.
    news: Option<PowerState>,
}

impl Qmp {
    async fn connect(path: &Path) -> Result<Self, Fault> {
        let connected = tokio::time::timeout(REPLY, UnixStream::connect(path)).await;
        let socket = connected
            .map_err(|_| Fault::TooSlow("to accept a QMP connection"))?
            .map_err(|e| Fault::unreachable(path.display().to_string(), e))?;
        let mut qmp = Self { socket, buffer: BytesMut::with_capacity(4096), news: None };
        let greeting = tokio::time::timeout(REPLY, qmp.line()).await;
        let greeting = greeting.map_err(|_| {
            Fault::TooSlow("to greet on its QMP socket; it serves one client at a time: is another one connected?")
        })??;
        if greeting.greeting.is_none() {
            return Err(Fault::Protocol("no QMP greeting".to_owned()));
        }
        qmp.execute("qmp_capabilities", None).await?;
        Ok(qmp)
    }

    async fn status(&mut self) -> Result<PowerState, Fault> {
        let answer = self.execute("query-status", Some(Action::View)).await?;
        let status: Status =
            serde_json::from_value(answer).map_err(|_| Fault::Protocol("a status that is none".to_owned()))?;
        Ok(state_of(&status.status))
    }

    /// Sends a command, where the reviewed table says that it is what was permitted, and nothing beside it.
    async fn execute(&mut self, command: &str, permitted: Option<Action>) -> Result<serde_json::Value, Fault> {
        Commands::builtin().check(command, permitted).map_err(|why| Fault::Refused(why.into_owned()))?;
        let line = format!("{}\n", serde_json::json!({ "execute": command }));
        let run = async {
            let gone = |e| Fault::unreachable("its QMP socket", e);
            self.socket.write_all(line.as_bytes()).await.map_err(gone)?;
            loop {
                let line = self.line().await?;
                if let Some(answer) = self.note(&line)? {
                    return Ok(answer);
                }
            }
        };
        match tokio::time::timeout(REPLY, run).await {
            Ok(done) => done,
            Err(_) => Err(Fault::TooSlow("to answer on its QMP socket")),
        }
    }

    /// Keeps what an event tells; gives what an answer says.
    fn note(&mut self, line: &Line) -> Result<Option<serde_json::Value>, Fault> {
        if let Some(error) = &line.error {
            return Err(Fault::Refused(super::clean_text(&error.desc)));
        }
        if let Some(event) = &line.event {
            self.news = match event.as_str() {
                "STOP" | "SUSPEND" => Some(PowerState::Paused),
                "RESUME" | "RESET" | "WAKEUP" => Some(PowerState::Running),
                "SHUTDOWN" => Some(PowerState::Off),
                "GUEST_PANICKED" => Some(PowerState::Crashed),
                _ => self.news,
            };
        }
        Ok(line.answer.clone())
    }

    /// The next line. May be dropped between two reads: what was read stays in the buffer.
    async fn line(&mut self) -> Result<Line, Fault> {
        let mut searched = 0;
        loop {
            let rest = self.buffer.get(searched..).unwrap_or_default();
            if let Some(end) = rest.iter().position(|b| *b == b'\n') {
                let line = self.buffer.split_to(searched + end + 1);
                return serde_json::from_slice(&line)
                    .map_err(|_| Fault::Protocol("a QMP line that is no JSON".to_owned()));
            }
            searched = self.buffer.len();
            if searched > MAX_LINE {
                return Err(Fault::Protocol("a QMP line larger than 1 MiB".to_owned()));
            }
            match self.socket.read_buf(&mut self.buffer).await {
                Ok(0) => return Err(Fault::hung_up("closed its QMP socket")),
                Ok(_) => {}
                Err(e) => return Err(Fault::unreachable("its QMP socket", e)),
            }
        }
    }
}

fn state_of(status: &str) -> PowerState {
    match status {
        "running" => PowerState::Running,
        "shutdown" => PowerState::Off,
        "guest-panicked" | "internal-error" | "io-error" => PowerState::Crashed,
        "paused" | "suspended" | "prelaunch" | "inmigrate" | "postmigrate" | "finish-migrate" | "save-vm"
        | "restore-vm" | "debug" | "watchdog" | "colo" => PowerState::Paused,
        _ => PowerState::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_sends_what_asks_for_power() {
        for verb in PowerVerb::ALL {
            assert_eq!(Commands::builtin().check(command(*verb), Some(Action::Power)), Ok(()), "{verb:?}");
        }
    }

    #[tokio::test]
    async fn a_command_that_is_not_what_was_permitted_is_not_sent() {
        let (socket, mut other) = UnixStream::pair().expect("a pair");
        let mut qmp = Qmp { socket, buffer: BytesMut::new(), news: None };
        for (command, permitted) in [
            ("quit", Some(Action::View)),
            ("device_add", Some(Action::Power)),
            ("human-monitor-command", Some(Action::NodeAdmin)),
            ("query-status", None),
            ("no-such-command", Some(Action::Power)),
            ("quit\"}{\"execute\":\"cont", Some(Action::Power)),
        ] {
            let told = qmp.execute(command, permitted).await;
            assert!(matches!(told, Err(Fault::Refused(_))), "{command}");
        }
        drop(qmp);
        let mut sent = Vec::new();
        other.read_to_end(&mut sent).await.expect("read");
        assert_eq!(sent, b"", "nothing of it was sent");
    }
}
