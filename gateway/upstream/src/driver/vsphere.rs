// SPDX-License-Identifier: Apache-2.0
//! vCenter, or one ESXi host, by its SOAP API (vim25): inventory by a filter whose updates are followed, power by tasks,
//! screens by a ticket. A vCenter has the Automation API (REST) beside it, for people's clients.
//!
//! The gateway signs in with a name and a password, once for its own work and once for each person's client
//! ([`Desk`]). A screen is reached at the host that its ticket names, if the configuration lists that host, and only with
//! the certificate whose thumbprint the ticket says; the ticket is used once, here.

mod account;
mod automation;
mod rows;
mod screen;
mod versions;

use super::{Built, Driver, PowerVerb, Screen, clean_text};
use crate::{
    api::Api,
    config::{PoolsOf, VsphereConfig},
    desk::{
        Center, Desk, Face, Session,
        tree::{MACHINE, PROPERTIES},
    },
    error::{Error, Fault},
    fleet::Board,
    rotate::{KnownAs, Rotation},
    secret::{Site, is_text},
    tls::{Tls, TlsUpgrade},
    wire::{Dialer, Https},
};
use async_trait::async_trait;
pub(crate) use automation::{Automation, SESSION};
use portcullis_domain::{HypervisorName, Machine, MachineId, Secret};
use portcullis_policy::classify::soap::{Call, Element, Reference};
pub(crate) use rows::keep;
use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};
use tokio::{sync::Mutex, time::Instant};

/// How long the hypervisor waits for something to happen before it answers that nothing did, in seconds.
const UPDATES: &str = "20";
/// How long a change of power is waited for; after that it goes on by itself.
const POWER: Duration = Duration::from_secs(20);
/// How often a task is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(300);
/// How often sessions that are idle are looked for where no inventory is read.
const STAY: Duration = Duration::from_mins(1);
/// Changes that come within this time are published together.
const GATHER: Duration = Duration::from_millis(200);

struct Vsphere {
    desk: Arc<Desk>,
    hypervisor: HypervisorName,
    pools: PoolsOf,
    tags_attribute: String,
    screens: screen::Hosts,
    /// The session of the gateway's own work.
    own: Mutex<Option<Arc<Session>>>,
}

pub(crate) fn build(site: &mut Site<'_>, config: VsphereConfig) -> Result<Built, Error> {
    let key = site.common.key();
    if !(1..=1_000).contains(&config.sessions) {
        return Err(Error::config(format!("{key}.sessions"), "must be 1 to 1000"));
    }
    let Https { address, host, origin } = Https::parse(&site.common.key_of("address"), &config.address, Some(443))?;
    let tls = Tls::Fixed(TlsUpgrade::new(&key, &site.common.tls, address.host(), None)?);
    if config.username.is_empty() {
        return Err(Error::config(format!("{key}.username"), "is empty"));
    }
    let password = site.hold("password", config.password, is_text)?;
    let common = &site.common;
    let screens = screen::Hosts::read(&format!("{key}.screen_hosts"), &config.screen_hosts, &address)?;
    let warnings = common.warnings();
    let shown = address.to_string();
    let dialer = Arc::new(Dialer { address, tls: Some(tls), authorization: None });
    let api = Api {
        dialer: Arc::clone(&dialer),
        host: host.clone(),
        origins: vec![origin],
        connections: common.connections,
        dialect: &automation::DIALECT,
        pool: None,
    };
    let center = Center::new(dialer, host, config.username, password);
    let driver = Box::new(Vsphere {
        desk: Arc::new(Desk::new(center, config.sessions)),
        hypervisor: common.name.clone(),
        pools: config.pools,
        tags_attribute: config.tags_attribute,
        screens,
        own: Mutex::new(None),
    });
    Ok(Built { driver, api: Some(api), warnings, address: shown })
}

/// A reference of the server's content.
fn service(content: &Element, name: &str) -> Result<Reference, Fault> {
    let found = content.child(name).and_then(Element::as_reference);
    found.ok_or_else(|| Fault::Protocol(format!("it has no {name}")))
}

/// A call of the gateway's own.
fn call(method: &str, this: Reference, arguments: Vec<Element>) -> Call {
    Call { method: method.to_owned(), this, arguments }
}

fn reference(name: &str, to: &Reference) -> Element {
    Element::reference(name, &to.of, &to.id)
}

/// What is asked of the objects of a view, and of the folder above all of them.
fn specification(view: &Reference, root: &Reference) -> Element {
    let mut parts: Vec<Element> = Vec::new();
    for (of, properties) in PROPERTIES {
        let mut all = vec![Element::text("type", of), Element::text("all", "false")];
        all.extend(properties.iter().map(|p| Element::text("pathSet", p)));
        parts.push(Element::of_children("propSet", all));
    }
    let through = Element::of_children(
        "selectSet",
        vec![
            Element::text("name", "all"),
            Element::text("type", &view.of),
            Element::text("path", "view"),
            Element::text("skip", "false"),
        ],
    );
    let all = vec![reference("obj", view), Element::text("skip", "true"), through.typed("TraversalSpec")];
    parts.push(Element::of_children("objectSet", all));
    parts.push(Element::of_children("objectSet", vec![reference("obj", root), Element::text("skip", "false")]));
    Element::of_children("spec", parts)
}

/// One update of many objects.
struct Updates {
    version: String,
    objects: Vec<Element>,
    /// More waits already.
    is_cut: bool,
}

impl Vsphere {
    /// What it says of itself, to those who are not known yet, too.
    async fn look(&self) -> Result<Element, Fault> {
        let content = self.desk.center.content().await?;
        let about = content.child("about").map(|a| a.children.as_slice()).unwrap_or_default();
        let said = |name: &str| about.iter().find(|a| a.name == name).map(|a| a.text.clone());
        // The least that clients begin with: what it is and which release it speaks.
        let known = [
            "name",
            "fullName",
            "vendor",
            "version",
            "build",
            "localeVersion",
            "localeBuild",
            "osType",
            "productLineId",
            "apiType",
            "apiVersion",
        ];
        let about = known.iter().filter_map(|n| Some(((*n).to_owned(), clean_text(&said(n)?)))).collect();
        let services = ["rootFolder", "propertyCollector", "viewManager", "sessionManager", "searchIndex"];
        let services = services.iter().filter_map(|n| Some(((*n).to_owned(), service(&content, n).ok()?))).collect();
        let release = said("apiVersion").filter(|v| is_release(v)).unwrap_or_else(|| "6.5".to_owned());
        let (release, older) = versions::ask(&self.desk.center).await.unwrap_or((release, Vec::new()));
        self.desk.face.store(Some(Arc::new(Face { about, services, release, older })));
        Ok(content)
    }

    fn release(&self) -> String {
        self.desk.face.load().as_ref().map_or_else(|| "6.5".to_owned(), |f| f.release.clone())
    }

    /// Asks in a session of the gateway's own.
    async fn ask(&self, session: &Session, call: &Call) -> Result<Vec<Element>, Fault> {
        self.desk.center.own(session, call, &self.release()).await
    }

    /// Asks for the gateway's own work beside the inventory. A session that has ended is made anew, once.
    async fn work(&self, call: &Call) -> Result<Vec<Element>, Fault> {
        let mut own = self.own.lock().await;
        if let Some(session) = own.clone() {
            match self.ask(&session, call).await {
                Err(Fault::Unauthenticated) => {}
                other => return other,
            }
        }
        let session = Arc::new(self.desk.center.sign_in().await?);
        *own = Some(Arc::clone(&session));
        drop(own);
        self.ask(&session, call).await
    }

    /// The number of the attribute that holds tags; a host alone has none.
    async fn tags(&self, session: &Session, content: &Element) -> Option<String> {
        let manager = service(content, "customFieldsManager").ok()?;
        let values = self.properties(session, content, &manager, &["field"]).await.ok()?;
        let fields = values.into_iter().find(|(name, _)| name == "field")?.1;
        let found = fields.children.iter().find(|f| f.child("name").is_some_and(|n| n.text == self.tags_attribute));
        found.and_then(|f| f.child("key")).map(|k| k.text.clone())
    }

    /// Properties of one object.
    async fn properties(
        &self,
        session: &Session,
        content: &Element,
        of: &Reference,
        names: &[&str],
    ) -> Result<Vec<(String, Element)>, Fault> {
        self.ask(session, &retrieve(content, of, names)?).await.map(values)
    }

    async fn wait(&self, session: &Session, collector: &Reference, version: &str) -> Result<Option<Updates>, Fault> {
        let options = Element::of_children("options", vec![Element::text("maxWaitSeconds", UPDATES)]);
        let arguments = vec![Element::text("version", version), options];
        let mut told = self.ask(session, &call("WaitForUpdatesEx", collector.clone(), arguments)).await?;
        let Some(set) = told.pop() else { return Ok(None) };
        let version = set.child("version").map(|v| v.text.clone()).unwrap_or_default();
        let is_cut = set.child("truncated").is_some_and(|t| t.text == "true");
        let filters = set.children.into_iter().filter(|c| c.name == "filterSet");
        let objects = filters.flat_map(|f| f.children).filter(|c| c.name == "objectSet").collect();
        Ok(Some(Updates { version, objects, is_cut }))
    }

    fn machines(&self) -> (Vec<Machine>, Vec<String>) {
        let tree = self.desk.tree.read().unwrap_or_else(PoisonError::into_inner);
        tree.machines(&self.hypervisor, self.pools)
    }

    async fn keep(&self, board: &Board) -> Result<(), Fault> {
        let content = self.look().await?;
        let session = self.desk.center.sign_in().await?;
        let done = self.watch(board, &session, &content).await;
        self.desk.center.sign_out(&session).await;
        done
    }

    async fn watch(&self, board: &Board, session: &Session, content: &Element) -> Result<(), Fault> {
        let (root, shared) = (service(content, "rootFolder")?, service(content, "propertyCollector")?);
        // One of its own: whatever else waits in this session takes no update away.
        let collector = self.ask(session, &call("CreatePropertyCollector", shared, Vec::new())).await?;
        let collector = collector.first().and_then(Element::as_reference);
        let collector = collector.ok_or_else(|| Fault::Protocol("a collector without a name".to_owned()))?;
        let tags = self.tags(session, content).await;
        let mut arguments = vec![reference("container", &root)];
        arguments.extend(PROPERTIES.iter().map(|(of, _)| Element::text("type", of)));
        arguments.push(Element::text("recursive", "true"));
        let view = self.ask(session, &call("CreateContainerView", service(content, "viewManager")?, arguments)).await?;
        let view = view.first().and_then(Element::as_reference);
        let view = view.ok_or_else(|| Fault::Protocol("a view without a name".to_owned()))?;
        let filter = vec![specification(&view, &root), Element::text("partialUpdates", "false")];
        self.ask(session, &call("CreateFilter", collector.clone(), filter)).await?;
        {
            let mut tree = self.desk.tree.write().unwrap_or_else(PoisonError::into_inner);
            *tree = crate::desk::tree::Tree::default();
            tree.tags = tags;
        }
        let mut version = String::new();
        let mut has_news = false;
        loop {
            let updates = self.wait(session, &collector, &version).await?;
            let is_cut = updates.as_ref().is_some_and(|u| u.is_cut);
            if let Some(updates) = updates {
                has_news |= !updates.objects.is_empty() || version.is_empty();
                version = updates.version;
                let mut tree = self.desk.tree.write().unwrap_or_else(PoisonError::into_inner);
                updates.objects.iter().for_each(|u| tree.apply(u));
            }
            if !is_cut && has_news {
                has_news = false;
                let (machines, notes) = self.machines();
                board.publish(machines, notes);
                tokio::time::sleep(GATHER).await;
            }
            self.desk.tidy().await;
        }
    }

    /// Waits a while for a task, and says how it failed.
    async fn finish(&self, task: &Reference) -> Result<(), Fault> {
        let content = self.desk.center.content().await?;
        let until = Instant::now() + POWER;
        while Instant::now() < until {
            let told = self.work(&retrieve(&content, task, &["info.state", "info.error"])?).await?;
            let told = values(told);
            let value = |name: &str| told.iter().find(|(n, _)| n == name).map(|(_, v)| v);
            match value("info.state").map(|v| v.text.as_str()) {
                Some("success") => return Ok(()),
                Some("error") => {
                    let words = value("info.error").and_then(|e| e.child("localizedMessage")).map(|m| m.text.clone());
                    let kind = value("info.error").and_then(|e| e.child("fault")).and_then(Element::kind);
                    let said = words.filter(|w| !w.is_empty()).or(kind.map(str::to_owned));
                    return Err(Fault::Refused(clean_text(&said.unwrap_or_else(|| "the task failed".to_owned()))));
                }
                _ => tokio::time::sleep(LOOK).await,
            }
        }
        Ok(())
    }
}

/// The call that reads properties of one object.
fn retrieve(content: &Element, of: &Reference, names: &[&str]) -> Result<Call, Fault> {
    let mut wanted = vec![Element::text("type", &of.of)];
    wanted.extend(names.iter().map(|n| Element::text("pathSet", n)));
    let parts = vec![
        Element::of_children("propSet", wanted),
        Element::of_children("objectSet", vec![reference("obj", of), Element::text("skip", "false")]),
    ];
    let arguments = vec![Element::of_children("specSet", parts), Element::of_children("options", Vec::new())];
    Ok(call("RetrievePropertiesEx", service(content, "propertyCollector")?, arguments))
}

/// The properties of the first object of an answer.
fn values(told: Vec<Element>) -> Vec<(String, Element)> {
    let object = told.into_iter().next().and_then(|r| r.children.into_iter().find(|c| c.name == "objects"));
    let properties = object.map(|o| o.children).unwrap_or_default().into_iter().filter(|c| c.name == "propSet");
    properties.filter_map(|p| Some((p.child("name")?.text.clone(), p.child("val")?.clone()))).collect()
}

fn is_release(text: &str) -> bool {
    !text.is_empty() && text.len() <= 32 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.')
}

fn of_machine(machine: &MachineId) -> Reference {
    Reference { of: MACHINE.to_owned(), id: machine.to_string() }
}

#[async_trait]
impl Driver for Vsphere {
    fn dialer(&self) -> Option<&Dialer> {
        Some(&self.desk.center.dialer)
    }

    async fn follow(&self, board: &Board) -> Fault {
        match self.keep(board).await {
            Ok(()) => Fault::hung_up("stopped telling of changes"),
            Err(fault) => fault,
        }
    }

    async fn known_as(&self) -> Result<KnownAs, Fault> {
        self.own_standing().await
    }

    async fn rotation(&self) -> Result<Rotation, Fault> {
        self.own_rotation().await
    }

    async fn put_secret(&self, new: &Secret) -> Result<(), Fault> {
        self.change_password(new).await
    }

    /// With the new password the old one counts no more.
    async fn retire_secret(&self, _: &Secret) -> Result<(), Fault> {
        Ok(())
    }

    async fn stay(&self) -> Fault {
        loop {
            if self.desk.face.load().is_none()
                && let Err(fault) = self.look().await
            {
                return fault;
            }
            tokio::time::sleep(STAY).await;
            self.desk.tidy().await;
        }
    }

    async fn power(&self, machine: &MachineId, verb: PowerVerb) -> Result<(), Fault> {
        let method = match verb {
            // A machine that is suspended goes on when it is switched on.
            PowerVerb::Start | PowerVerb::Resume => "PowerOnVM_Task",
            PowerVerb::Shutdown => "ShutdownGuest",
            PowerVerb::Stop => "PowerOffVM_Task",
            PowerVerb::Reset => "ResetVM_Task",
            PowerVerb::Pause => "SuspendVM_Task",
        };
        let told = self.work(&call(method, of_machine(machine), Vec::new())).await?;
        match told.first().and_then(Element::as_reference) {
            Some(task) => self.finish(&task).await,
            None => Ok(()),
        }
    }

    async fn open_screen(&self, machine: &MachineId) -> Result<Screen, Fault> {
        let kind = Element::text("ticketType", "webmks");
        let told = self.work(&call("AcquireTicket", of_machine(machine), vec![kind])).await?;
        let ticket = told.into_iter().next().ok_or_else(|| Fault::Protocol("an answer without a ticket".to_owned()))?;
        self.screens.open(&ticket, &self.desk.center).await
    }

    fn desk(&self) -> Option<&Arc<Desk>> {
        Some(&self.desk)
    }
}
