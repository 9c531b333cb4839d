// SPDX-License-Identifier: Apache-2.0
//! XCP-ng and XenServer pools (XAPI): machines and everything that belongs to them by `event.from`, power by methods,
//! screens by `CONNECT /console` on the host that runs the machine.
//!
//! The gateway signs in by name and password and keeps the session, which is renewed when the pool says that it is over.
//! A pool answers on its master; where another host has become that, it is followed only if the configuration names it,
//! so that no answer can point the gateway somewhere else (SEC-150).

mod objects;
mod pool;
mod rows;

pub(crate) use pool::{Pool, Session, is_over};

use super::{Built, Driver, LIST, PowerVerb, Screen, ScreenLogin, clean_text};
use crate::{
    api::{Api, Dialect, Length},
    broker::strip_secrets,
    config::XapiConfig,
    error::{Error, Fault},
    fleet::Board,
    rotate::{Form, KnownAs, Rotation},
    secret::{Site, is_text},
    tls::{Tls, TlsUpgrade},
    wire::{CONNECT, Dialer, Early, Https, Stream, Wire},
};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use objects::State;
use pool::Member;
use portcullis_domain::{HypervisorName, MachineId, Secret};
use portcullis_policy::classify::rpc::{Reply, Value};
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::Instant,
};

pub(crate) use objects::Index;
pub(crate) use rows::{Keeping, keep, task};

/// What is followed. Metrics are known by their machines.
const CLASSES: [&str; 12] =
    ["vm", "vbd", "vif", "vdi", "console", "vgpu", "vusb", "vtpm", "vm_appliance", "vmss", "host", "pool"];
/// How long a silent `event.from` waits, seconds.
const SILENCE: f64 = 30.0;
/// Changes that come close together are read together.
const GATHER: Duration = Duration::from_millis(100);
/// How long a change of power is waited for; after that it goes on by itself.
const POWER: Duration = Duration::from_secs(20);
/// How often a task is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(300);
/// The longest head of an answer to `CONNECT`.
const MAX_HEAD: usize = 8 * 1024;

struct Xapi {
    pool: Arc<Pool>,
    hypervisor: HypervisorName,
}

pub(crate) fn build(site: &mut Site<'_>, config: XapiConfig) -> Result<Built, Error> {
    let key = site.common.key();
    if config.username.is_empty() {
        return Err(Error::config(format!("{key}.username"), "is empty"));
    }
    let password = site.hold("password", config.password, is_text)?;
    let common = &site.common;
    let (mut members, mut origins) = (Vec::new(), Vec::new());
    let addresses = std::iter::once(("address", &config.address)).chain(config.members.iter().map(|m| ("members", m)));
    for (word, text) in addresses {
        let Https { address, host, origin } = Https::parse(&common.key_of(word), text, Some(443))?;
        let name = address.host().unwrap_or_default().to_owned();
        let tls = Tls::Fixed(TlsUpgrade::new(&key, &common.tls, Some(&name), None)?);
        origins.push(origin);
        let dialer = Arc::new(Dialer { address, tls: Some(tls), authorization: None });
        members.push(Member { dialer, host, name });
    }
    let warnings = common.warnings();
    let pool = Arc::new(Pool::new(members, config.username, password));
    let first = pool.member(0).ok_or_else(|| Error::config(&key, "has no address"))?;
    let (dialer, host) = (Arc::clone(&first.dialer), first.host.clone());
    let address = dialer.address.to_string();
    let api = Api {
        dialer,
        host,
        origins,
        connections: common.connections,
        dialect: &DIALECT,
        pool: Some(Arc::clone(&pool)),
    };
    let driver = Box::new(Xapi { pool, hypervisor: common.name.clone() });
    Ok(Built { driver, api: Some(api), warnings, address })
}

static DIALECT: Dialect = Dialect {
    channel: |_, _| None,
    channel_address: |_, _| String::new(),
    is_long_poll: |_| true,
    length: Length::Needed,
    rows: None,
    strip: strip_secrets,
    task: |_| None,
};

/// A member's text.
fn text<'v>(value: &'v Value<'_>, name: &str) -> Option<&'v str> {
    value.member(name).and_then(Value::text)
}

impl Xapi {
    /// Reads everything, then what changes, until it fails.
    async fn watch(&self, board: &Board) -> Result<std::convert::Infallible, Fault> {
        let classes = || Value::List(CLASSES.iter().map(|c| Value::from_text(*c)).collect());
        let mut state = State::new(self.hypervisor.clone());
        let mut token = String::new();
        loop {
            let args = [classes(), Value::from_text(token.clone()), Value::Double(SILENCE)];
            let told = self.pool.ask("event.from", &args, Duration::from_secs(90)).await?;
            let batch = match told.reply()? {
                Reply::Done(batch) => batch,
                Reply::Failed(why) if why.first().is_some_and(|c| c == "EVENTS_LOST") => {
                    // Too much happened meanwhile: everything is read anew.
                    (state, token) = (State::new(self.hypervisor.clone()), String::new());
                    continue;
                }
                Reply::Failed(why) => return Err(pool::refused(&why)),
            };
            let next = text(&batch, "token").ok_or_else(|| wrong("events without a token"))?.to_owned();
            let Some(Value::List(events)) = batch.member("events") else {
                return Err(wrong("events that are no list"));
            };
            let mut is_changed = false;
            for event in events {
                is_changed |= state.learn(event);
            }
            if is_changed || token.is_empty() {
                let (machines, index, notes) = state.told();
                // First what belongs to what, then the machines: whoever sees a machine finds its parts.
                self.pool.publish(index);
                board.publish(machines, notes);
            }
            token = next;
            tokio::time::sleep(GATHER).await;
        }
    }

    async fn done(&self, method: &str, args: &[Value<'_>]) -> Result<String, Fault> {
        let told = self.pool.ask(method, args, LIST).await?;
        match told.reply()? {
            Reply::Done(Value::Text(text)) => Ok(text.into_owned()),
            Reply::Done(_) => Err(wrong("an answer of another shape")),
            Reply::Failed(why) => Err(pool::refused(&why)),
        }
    }

    async fn find(&self, machine: &MachineId) -> Result<String, Fault> {
        self.done("VM.get_by_uuid", &[Value::from_text(machine.as_str())]).await
    }

    /// Waits a while for a task, and throws it away once it has ended.
    async fn wait(&self, task: &str) -> Result<(), Fault> {
        let end = Instant::now() + POWER;
        loop {
            let told = self.pool.ask("task.get_record", &[Value::from_text(task)], LIST).await?;
            let record = match told.reply()? {
                Reply::Done(record) => record,
                Reply::Failed(why) => return Err(pool::refused(&why)),
            };
            let ended = match text(&record, "status") {
                Some("success") => Ok(()),
                Some("failure" | "cancelled") => {
                    let why = match record.member("error_info") {
                        Some(Value::List(all)) => all.iter().filter_map(Value::text).collect::<Vec<_>>().join(" "),
                        _ => String::new(),
                    };
                    Err(Fault::Refused(if why.is_empty() { "it was cancelled".to_owned() } else { clean_text(&why) }))
                }
                Some(_) if Instant::now() < end => {
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
                Some(_) => return Ok(()),
                None => return Err(wrong("a task without a status")),
            };
            self.pool.ask("task.destroy", &[Value::from_text(task)], LIST).await?;
            return ended;
        }
    }

    /// The host that shows a screen: the one that its location names, if the configuration knows it.
    async fn host_of(&self, location: &str) -> Result<usize, Fault> {
        let rest = location.strip_prefix("https://").or_else(|| location.strip_prefix("http://")).unwrap_or(location);
        let name = rest.split(['/', '?']).next().unwrap_or_default();
        let name = name.rsplit_once(':').filter(|(_, p)| p.parse::<u16>().is_ok()).map_or(name, |(name, _)| name);
        let name = name.trim_start_matches('[').trim_end_matches(']');
        if let Some(member) = self.pool.member_called(name) {
            return Ok(member);
        }
        let told = self.pool.ask("host.get_all", &[], LIST).await?;
        match told.reply()? {
            // Whatever it calls itself, there is no other.
            Reply::Done(Value::List(hosts)) if hosts.len() == 1 => Ok(self.pool.active()),
            Reply::Done(_) => {
                let name = clean_text(name);
                Err(Fault::NoScreen(format!("it is shown by {name}, which `members` does not name")))
            }
            Reply::Failed(why) => Err(pool::refused(&why)),
        }
    }

    async fn connect(&self, member: usize, console: &str) -> Result<Result<Stream, u16>, Fault> {
        let session = self.pool.session().await?;
        let at = self.pool.member(member).ok_or_else(|| wrong("a host that is not there"))?;
        let mut wire = at.dialer.dial().await?;
        let host = at.host.to_str().unwrap_or_default();
        let head = format!(
            "CONNECT /console?ref={console} HTTP/1.0\r\nHost: {host}\r\nCookie: session_id={}\r\n\r\n",
            session.reference()
        );
        match tokio::time::timeout(CONNECT, shake(&mut wire, head.as_bytes())).await {
            Ok(Ok((200, early))) => Ok(Ok(Stream::Early(Box::new(Early::new(wire, early))))),
            Ok(Ok((401 | 403, _))) => {
                self.pool.forget(&session);
                Ok(Err(401))
            }
            Ok(Ok((status, _))) => Ok(Err(status)),
            Ok(Err(e)) => Err(Fault::unreachable("its screen's connection broke", e)),
            Err(_) => Err(Fault::TooSlow("to open its screen")),
        }
    }
}

/// Asks for a tunnel: the answer's status, and what came after its head.
async fn shake(wire: &mut Wire, head: &[u8]) -> std::io::Result<(u16, Bytes)> {
    wire.write_all(head).await?;
    wire.flush().await?;
    let mut got = BytesMut::new();
    loop {
        if wire.read_buf(&mut got).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(end) = got.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = got.split_to(end + 4);
            let line =
                head.as_ref().split(|b| *b == b'\r').next().and_then(|l| str::from_utf8(l).ok()).unwrap_or_default();
            let mut words = line.split(' ');
            let is_http = words.next().is_some_and(|v| matches!(v, "HTTP/1.0" | "HTTP/1.1"));
            let status = words.next().filter(|s| is_http && s.len() == 3).and_then(|s| s.parse().ok());
            return status.map(|s| (s, got.freeze())).ok_or_else(|| std::io::ErrorKind::InvalidData.into());
        }
        if got.len() > MAX_HEAD {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
    }
}

fn wrong(what: &str) -> Fault {
    Fault::Protocol(what.to_owned())
}

#[async_trait]
impl Driver for Xapi {
    fn dialer(&self) -> Option<&Dialer> {
        self.pool.member(self.pool.active()).map(|m| &*m.dialer)
    }

    async fn follow(&self, board: &Board) -> Fault {
        match self.watch(board).await {
            Ok(never) => match never {},
            Err(fault) => fault,
        }
    }

    async fn known_as(&self) -> Result<KnownAs, Fault> {
        self.pool.known_as().await
    }

    async fn rotation(&self) -> Result<Rotation, Fault> {
        Ok(Rotation::Given(Form::Password))
    }

    /// `session.change_password` of a local superuser is that of root, on every host of the pool.
    fn caution(&self) -> Option<&'static str> {
        Some(
            "the password of root changes on every host of the pool, for its consoles and for ssh, too, and only the \
             gateway knows the new one",
        )
    }

    async fn put_secret(&self, new: &Secret) -> Result<(), Fault> {
        self.pool.change_password(new).await
    }

    /// With the new password the old one counts no more.
    async fn retire_secret(&self, _: &Secret) -> Result<(), Fault> {
        Ok(())
    }

    async fn power(&self, machine: &MachineId, verb: PowerVerb) -> Result<(), Fault> {
        let vm = self.find(machine).await?;
        let state = self.done("VM.get_power_state", &[Value::from_text(vm.as_str())]).await?;
        let (word, more) = match (verb, state.as_str()) {
            (PowerVerb::Start | PowerVerb::Resume, "Suspended") => ("resume", true),
            (PowerVerb::Start, _) => ("start", true),
            (PowerVerb::Shutdown, _) => ("clean_shutdown", false),
            (PowerVerb::Stop, _) => ("hard_shutdown", false),
            (PowerVerb::Reset, _) => ("hard_reboot", false),
            (PowerVerb::Pause, _) => ("pause", false),
            (PowerVerb::Resume, _) => ("unpause", false),
        };
        let mut args = vec![Value::from_text(vm)];
        if more {
            // Neither paused, nor on a host that is not fit for it.
            args.extend([Value::Bool(false), Value::Bool(false)]);
        }
        let task = self.done(&format!("Async.VM.{word}"), &args).await?;
        self.wait(&task).await
    }

    async fn open_screen(&self, machine: &MachineId) -> Result<Screen, Fault> {
        let vm = self.find(machine).await?;
        let told = self.pool.ask("VM.get_consoles", &[Value::from_text(vm)], LIST).await?;
        let consoles = match told.reply()? {
            Reply::Done(Value::List(all)) => all,
            Reply::Done(_) => return Err(wrong("screens that are no list")),
            Reply::Failed(why) => return Err(pool::refused(&why)),
        };
        for console in consoles.iter().filter_map(Value::text).take(8) {
            if portcullis_policy::classify::reference(console).is_none() {
                return Err(wrong("a screen without a reference"));
            }
            let told = self.pool.ask("console.get_record", &[Value::from_text(console)], LIST).await?;
            let Reply::Done(record) = told.reply()? else { continue };
            if text(&record, "protocol") != Some("rfb") {
                continue;
            }
            let member = self.host_of(text(&record, "location").unwrap_or_default()).await?;
            let mut opened = self.connect(member, console).await?;
            if opened.as_ref().is_err_and(|status| *status == 401) {
                opened = self.connect(member, console).await?;
            }
            return match opened {
                Ok(stream) => Ok(Screen { stream, login: ScreenLogin { username: None, password: None }, tls: None }),
                Err(503) => Err(Fault::NoScreen("as many people look at it as the pool allows".to_owned())),
                Err(status) => Err(Fault::Refused(format!("its screen answers with status {status}"))),
            };
        }
        Err(Fault::NoScreen("it is switched off, or has no graphical one".to_owned()))
    }
}

#[cfg(test)]
mod tests;
