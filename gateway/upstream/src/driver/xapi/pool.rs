// SPDX-License-Identifier: Apache-2.0
//! A pool as the gateway is signed in at it: its hosts, the session, and what is known of its objects.

use super::objects::Index;
use crate::{
    driver::{
        clean_text,
        rest::{Call, Told as Answered},
    },
    error::Fault,
    rotate::{self, KnownAs, Meanings},
    secret::Held,
    wire::Dialer,
};
use arc_swap::ArcSwap;
use bytes::BytesMut;
use http::{HeaderValue, Method};
use portcullis_domain::{Action, Secret};
use portcullis_policy::classify::rpc::{Reply, Value, Wire, first_call, own_call};
use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Mutex, watch};

/// The largest answer, bytes: everything of a pool comes in the first one.
const MAX_ANSWER: usize = 256 * 1024 * 1024;
/// How long signing in may take.
const SIGN_IN: Duration = Duration::from_secs(20);
const PATH: &str = "/jsonrpc";

/// The permissions that tell a role of the pool from the others, of the hundreds that each has.
const MEANINGS: &Meanings = &[
    ("subject.add_to_roles", Action::AccessAdmin),
    ("host.call_plugin", Action::NodeAdmin),
    ("host.shutdown", Action::NodeAdmin),
    ("pool.join", Action::NodeAdmin),
    ("http/connect_console", Action::ConsoleControl),
    ("vm.destroy", Action::Destroy),
    ("vm.create", Action::Create),
    ("vm.start", Action::Power),
    ("vm.snapshot", Action::Snapshot),
    ("vm.pool_migrate", Action::Migrate),
    ("vm.set_vcpus_max", Action::Configure),
    ("vm.call_plugin", Action::GuestExec),
    ("vdi.create", Action::Storage),
    ("network.create", Action::Network),
];

/// One host of a pool.
pub(crate) struct Member {
    pub(crate) dialer: Arc<Dialer>,
    pub(crate) host: HeaderValue,
    /// Its name or address, as the configuration writes it.
    pub(crate) name: String,
}

/// A session that the pool gave. No `Debug`: whoever has it is the gateway.
pub(crate) struct Session {
    reference: Secret,
    /// The host that gave it.
    pub(crate) member: usize,
}

impl Session {
    /// What is shown to the pool, and to nobody else.
    pub(crate) fn reference(&self) -> &str {
        self.reference.expose_text().unwrap_or_default()
    }

    /// Takes the session out of an answer, wherever it stands.
    pub(crate) fn scrub(&self, text: &mut [u8]) {
        let own = self.reference().as_bytes();
        let mut at = 0;
        while let Some(found) = text.get(at..).and_then(|rest| rest.windows(own.len().max(1)).position(|w| w == own)) {
            let begin = at + found;
            if let Some(place) = text.get_mut(begin..begin + own.len()) {
                place.fill(b'x');
            }
            at = begin + own.len().max(1);
        }
    }
}

/// A pool.
pub(crate) struct Pool {
    members: Vec<Member>,
    active: AtomicUsize,
    username: String,
    password: Arc<Held>,
    session: Mutex<Option<Arc<Session>>>,
    index: ArcSwap<Index>,
    version: watch::Sender<u64>,
}

/// An answer of a pool, before it is read.
pub(super) struct Told(BytesMut);

impl Told {
    pub(super) fn reply(&self) -> Result<Reply<'_>, Fault> {
        Reply::read(Wire::Json, &self.0).ok_or_else(|| Fault::Protocol("an answer that is no JSON-RPC".to_owned()))
    }
}

/// Whether an answer says that its session is none here.
pub(crate) fn is_over(reply: &Reply<'_>) -> bool {
    let Reply::Failed(why) = reply else { return false };
    why.first().is_some_and(|code| matches!(&**code, "SESSION_INVALID" | "HOST_IS_SLAVE"))
}

/// What the pool said no to.
pub(super) fn refused(why: &[Cow<'_, str>]) -> Fault {
    // A session's reference may stand in what is said about it.
    let words: Vec<&str> = why.iter().filter(|w| !w.starts_with("OpaqueRef:")).map(|w| &**w).collect();
    Fault::Refused(clean_text(&words.join(" ")))
}

impl Pool {
    pub(super) fn new(members: Vec<Member>, username: String, password: Arc<Held>) -> Self {
        Self {
            members,
            active: AtomicUsize::new(0),
            username,
            password,
            session: Mutex::new(None),
            index: ArcSwap::default(),
            version: watch::Sender::new(0),
        }
    }

    pub(crate) fn member(&self, number: usize) -> Option<&Member> {
        self.members.get(number)
    }

    pub(crate) fn members(&self) -> &[Member] {
        &self.members
    }

    /// The host that has answered last.
    pub(super) fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    pub(super) fn member_called(&self, name: &str) -> Option<usize> {
        self.members.iter().position(|m| m.name.eq_ignore_ascii_case(name))
    }

    /// What belongs to what.
    pub(crate) fn index(&self) -> Arc<Index> {
        self.index.load_full()
    }

    pub(super) fn publish(&self, index: Index) {
        self.index.store(Arc::new(index));
        self.version.send_modify(|v| *v += 1);
    }

    /// Waits until something was learned, at most so long.
    pub(crate) async fn settle(&self, patience: Duration) {
        let mut version = self.version.subscribe();
        version.mark_unchanged();
        // Whatever ended it: who asks looks again.
        let _ = tokio::time::timeout(patience, version.changed()).await;
    }

    /// The session, begun if there is none. Whoever comes meanwhile waits for the same one.
    pub(crate) async fn session(&self) -> Result<Arc<Session>, Fault> {
        let mut held = self.session.lock().await;
        if let Some(session) = &*held {
            return Ok(Arc::clone(session));
        }
        let session = Arc::new(self.sign_in().await?);
        *held = Some(Arc::clone(&session));
        Ok(session)
    }

    /// Forgets a session that does not count any more, unless there is another one already.
    pub(crate) fn forget(&self, session: &Arc<Session>) {
        // Who holds it is about to have another one.
        if let Ok(mut held) = self.session.try_lock()
            && held.as_ref().is_some_and(|h| Arc::ptr_eq(h, session))
        {
            *held = None;
        }
    }

    async fn sign_in(&self) -> Result<Session, Fault> {
        let mut member = self.active();
        // The master names itself once; who names yet another one is not followed in circles.
        for _ in 0..2 {
            let password = self.password.value()?;
            let password = password.expose_text().unwrap_or_default();
            let params = [&self.username, password, "2.21", "portcullis"].map(Value::from_text);
            let body = first_call("session.login_with_password", &params);
            let told = self.send(member, body, SIGN_IN).await?;
            match told.reply()? {
                Reply::Done(Value::Text(reference)) if portcullis_policy::classify::reference(&reference).is_some() => {
                    self.active.store(member, Ordering::Relaxed);
                    return Ok(Session { reference: Secret::from(reference.into_owned()), member });
                }
                Reply::Done(_) => return Err(Fault::Protocol("a session that is none".to_owned())),
                Reply::Failed(why) if why.first().is_some_and(|c| c == "HOST_IS_SLAVE") => {
                    let master = why.get(1).map(|m| clean_text(m)).unwrap_or_default();
                    member = self.member_called(&master).ok_or_else(|| {
                        Fault::Refused(format!("it is no master; {master} is, which `members` does not name"))
                    })?;
                }
                // Not what it says about it: that holds the name that was tried.
                Reply::Failed(why) if why.first().is_some_and(|c| c == "SESSION_AUTHENTICATION_FAILED") => {
                    return Err(Fault::Refused("it does not take the gateway's name and password".to_owned()));
                }
                Reply::Failed(why) => return Err(refused(&why)),
            }
        }
        Err(Fault::Refused("its hosts do not agree who is master".to_owned()))
    }

    /// Signs in with the password in use, on a session of its own: whether it counts, and what it may do.
    pub(super) async fn known_as(&self) -> Result<KnownAs, Fault> {
        let session = self.sign_in().await?;
        let own = [Value::from_text(session.reference())];
        let root = self.ask_in(&session, "session.get_is_local_superuser", &own).await;
        let may = self.ask_in(&session, "session.get_rbac_permissions", &own).await;
        // Whatever came of it, the session ends.
        let _ = self.ask_in(&session, "session.logout", &[]).await;
        let mut powers = Vec::new();
        if matches!(root?.reply()?, Reply::Done(Value::Bool(true))) {
            powers.push((Action::AccessAdmin, "local superuser".to_owned()));
        }
        let mut known = KnownAs::new(&self.username, powers);
        match may?.reply()? {
            Reply::Done(Value::List(all)) => {
                let all = all.iter().filter_map(Value::text).map(str::to_ascii_lowercase);
                let telling = all.filter(|m| MEANINGS.iter().any(|(word, _)| word == m));
                known.powers.extend(rotate::powers(MEANINGS, telling));
            }
            Reply::Done(_) => return Err(Fault::Protocol("permissions that are no list".to_owned())),
            Reply::Failed(why) => known.untold = Some(refused(&why).to_string()),
        }
        Ok(known)
    }

    /// Gives the gateway's own user another password. The old one counts no more then.
    pub(super) async fn change_password(&self, new: &Secret) -> Result<(), Fault> {
        let old = self.password.value()?;
        let session = self.sign_in().await?;
        let texts = [&*old, new].map(|secret| secret.expose_text().unwrap_or_default());
        let told = self.ask_in(&session, "session.change_password", &texts.map(Value::from_text)).await;
        let _ = self.ask_in(&session, "session.logout", &[]).await;
        match told?.reply()? {
            Reply::Done(_) => Ok(()),
            // Its code and not its words: these may hold what was sent.
            Reply::Failed(why) => {
                Err(Fault::Refused(why.first().map_or_else(|| "no".to_owned(), |code| clean_text(code))))
            }
        }
    }

    async fn ask_in(&self, session: &Session, method: &str, args: &[Value<'_>]) -> Result<Told, Fault> {
        let body = own_call(Wire::Json, method, args).filled(session.reference());
        let body = body.and_then(|b| String::from_utf8(b).ok());
        let body = body.ok_or_else(|| Fault::Protocol("a session that is none".to_owned()))?;
        self.send(session.member, body, SIGN_IN).await
    }

    async fn send(&self, member: usize, body: String, patience: Duration) -> Result<Told, Fault> {
        let at = self.member(member).ok_or_else(|| Fault::Protocol("a host that is not there".to_owned()))?;
        let call = Call { method: Method::POST, target: PATH, body: Some(("application/json", body)), patience };
        let Answered { status, text, .. } = call.send_up_to(&at.dialer, &at.host, MAX_ANSWER).await?;
        if status.as_u16() == 200 { Ok(Told(text)) } else { Err(Fault::Refused(format!("status {status}"))) }
    }

    /// Calls a method for the gateway itself. A session that is over is begun anew, once.
    pub(super) async fn ask(&self, method: &str, args: &[Value<'_>], patience: Duration) -> Result<Told, Fault> {
        let hollow = own_call(Wire::Json, method, args);
        let mut again = true;
        loop {
            let session = self.session().await?;
            let body = hollow.filled(session.reference()).and_then(|b| String::from_utf8(b).ok());
            let body = body.ok_or_else(|| Fault::Protocol("a session that is none".to_owned()))?;
            let told = self.send(session.member, body, patience).await?;
            if !again || told.0.len() > 4096 || !is_over(&told.reply()?) {
                return Ok(told);
            }
            again = false;
            self.forget(&session);
        }
    }
}
