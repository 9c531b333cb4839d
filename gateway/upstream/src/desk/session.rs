// SPDX-License-Identifier: Apache-2.0
//! One session with a SOAP API: signing in with the stored credential, the cookie that stands for it, and connections
//! that are used again.

use super::answer;
use crate::{
    driver::{LIST, clean_text, collect},
    error::Fault,
    exchange::{Broken, Live, Sending},
    forward::fault,
    headers::check_answer,
    secret::Held,
    wire::Dialer,
};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE, COOKIE, HOST, SET_COOKIE},
};
use http_body_util::Full;
use portcullis_domain::Secret;
use portcullis_policy::classify::soap::{self, Call, Element, Reference};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// The most elements of an answer.
const MAX_ELEMENTS: usize = 1_000_000;
/// How many connections of a session are kept for its next calls, and for how long.
const KEPT: usize = 4;
const KEPT_FOR: Duration = Duration::from_secs(20);
/// How long nobody signs in after a name or password that was wrong: vCenter locks a name after five of them in three
/// minutes.
const TRY_AGAIN: Duration = Duration::from_mins(1);
/// What is spoken before it is known what the server speaks.
const FIRST_RELEASE: &str = "6.5";
const COOKIE_NAME: &str = "vmware_soap_session";

type Connection = Box<Live<Full<Bytes>>>;

/// One session. No `Debug`: it holds its cookie.
pub(crate) struct Session {
    cookie: HeaderValue,
    /// What ids of its own objects hold.
    pub(crate) key: String,
    /// As whom the server knows the session, in the form in which it writes users; empty where it does not say.
    pub(crate) user: String,
    idle: Mutex<Vec<(Connection, Instant)>>,
}

impl Session {
    /// The cookie's value.
    pub(crate) fn cookie_text(&self) -> &str {
        let text = self.cookie.to_str().unwrap_or_default();
        text.split_once('=').map_or(text, |(_, v)| v.trim_matches('"'))
    }
}

#[cfg(test)]
impl Session {
    pub(super) fn sample(key: &str) -> Self {
        let cookie = HeaderValue::from_static("vmware_soap_session=cookie");
        Self { cookie, key: key.to_owned(), user: String::new(), idle: Mutex::default() }
    }
}

/// Where sessions are with, and who the gateway is there.
pub(crate) struct Center {
    pub(crate) dialer: Arc<Dialer>,
    pub(crate) host: HeaderValue,
    username: String,
    password: Arc<Held>,
    /// When it last said that they are wrong.
    refused_at: Mutex<Option<Instant>>,
}

impl Center {
    pub(crate) const fn new(dialer: Arc<Dialer>, host: HeaderValue, username: String, password: Arc<Held>) -> Self {
        Self { dialer, host, username, password, refused_at: Mutex::new(None) }
    }

    pub(crate) fn username(&self) -> &str {
        &self.username
    }

    /// The password in use.
    pub(crate) fn password(&self) -> Result<Arc<Secret>, Fault> {
        self.password.value()
    }

    /// Whether the password may be shown now. A name that is tried too often with a wrong one is locked, for whoever else
    /// uses it, too.
    pub(crate) fn may_try(&self) -> Result<(), Fault> {
        let refused_at = *self.refused_at.lock().unwrap_or_else(PoisonError::into_inner);
        if refused_at.is_some_and(|at| at.elapsed() < TRY_AGAIN) {
            return Err(Fault::Refused("its name or password was wrong a moment ago".to_owned()));
        }
        Ok(())
    }

    /// It was shown, and was wrong at that time.
    pub(crate) fn tried(&self, refused_at: Option<Instant>) {
        *self.refused_at.lock().unwrap_or_else(PoisonError::into_inner) = refused_at;
    }

    /// What the server says of itself, to anybody.
    pub(crate) async fn content(&self) -> Result<Element, Fault> {
        let this = Reference { of: "ServiceInstance".to_owned(), id: "ServiceInstance".to_owned() };
        let call = Call { method: "RetrieveServiceContent".to_owned(), this, arguments: Vec::new() };
        let (status, _, root) = self.send(None, &call, FIRST_RELEASE, LIST).await?;
        let content = answer::returned(&root, status.is_success())?;
        content.into_iter().next().ok_or_else(|| Fault::Protocol("it says nothing of itself".to_owned()))
    }

    /// Signs in.
    pub(crate) async fn sign_in(&self) -> Result<Session, Fault> {
        self.may_try()?;
        let content = self.content().await?;
        let manager = content.child("sessionManager").and_then(Element::as_reference);
        let manager = manager.ok_or_else(|| Fault::Protocol("it has no sessions".to_owned()))?;
        let wrong = || Fault::Protocol("a password that is no text".to_owned());
        let password = self.password.value()?;
        let password = password.expose_text().ok_or_else(wrong)?;
        let arguments = vec![Element::text("userName", &self.username), Element::text("password", password)];
        let call = Call { method: "Login".to_owned(), this: manager, arguments };
        let (status, cookies, root) = self.send(None, &call, FIRST_RELEASE, LIST).await?;
        self.tried(answer::says(&root, "InvalidLogin").then(Instant::now));
        let returned = answer::returned(&root, status.is_success())?;
        let key = returned.first().and_then(|s| s.child("key")).map(|k| k.text.clone());
        let is_key = |k: &String| !k.is_empty() && k.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let key = key.filter(is_key).ok_or_else(|| Fault::Protocol("a session without a key".to_owned()))?;
        let cookie = cookies.ok_or_else(|| Fault::Protocol("a session without its cookie".to_owned()))?;
        let user = returned.first().and_then(|s| s.child("userName")).map(|u| u.text.clone()).unwrap_or_default();
        Ok(Session { cookie, key, user, idle: Mutex::default() })
    }

    /// Signs out, as well as it goes.
    pub(crate) async fn sign_out(&self, session: &Session) {
        let Ok(content) = self.content().await else { return };
        let Some(this) = content.child("sessionManager").and_then(Element::as_reference) else { return };
        let call = Call { method: "Logout".to_owned(), this, arguments: Vec::new() };
        if let Err(fault) = self.send(Some(session), &call, FIRST_RELEASE, LIST).await {
            tracing::debug!(%fault, "a session could not be ended");
        }
    }

    /// Asks in a session: the answer, and whether it is a refusal.
    pub(crate) async fn ask(
        &self,
        session: &Session,
        call: &Call,
        release: &str,
        patience: Duration,
    ) -> Result<(Element, bool), Fault> {
        let (status, _, root) = self.send(Some(session), call, release, patience).await?;
        Ok((root, !status.is_success()))
    }

    /// Asks in a session for the gateway's own work; a refusal is a fault.
    pub(crate) async fn own(&self, session: &Session, call: &Call, release: &str) -> Result<Vec<Element>, Fault> {
        let (root, is_fault) = self.ask(session, call, release, LIST).await?;
        answer::returned(&root, !is_fault)
    }

    async fn send(
        &self,
        session: Option<&Session>,
        call: &Call,
        release: &str,
        patience: Duration,
    ) -> Result<(StatusCode, Option<HeaderValue>, Element), Fault> {
        let document = Bytes::from(call.document());
        let run = async {
            let kept = session.and_then(Session::take);
            let mut live = if let Some(live) = kept { live } else { self.dial().await? };
            let mut request = self.request(session, release, document.clone())?;
            let response = loop {
                let (sent, progress) = request;
                match live.exchange(sent, progress.as_deref(), Some(patience)).await {
                    Ok(response) => break response,
                    // A connection that was kept was closed just now: nothing went out.
                    Err(Broken::Unsent(_)) => {
                        live = self.dial().await?;
                        request = self.request(session, release, document.clone())?;
                    }
                    Err(Broken::Failed(e)) => return Err(fault(&e)),
                    Err(Broken::TooSlow) => return Err(Fault::TooSlow("to answer")),
                }
            };
            let (head, body) = response.into_parts();
            check_answer(&head.headers)?;
            if head.headers.contains_key(CONTENT_ENCODING) {
                return Err(Fault::Protocol("a packed answer that nobody asked for".to_owned()));
            }
            let text = collect(&mut live, body, crate::driver::MAX_ANSWER).await?;
            if let Some(session) = session {
                session.keep(live);
            }
            // A fault is a 500 (SOAP 1.1, section 6.2).
            let is_soap = head.status.is_success() || head.status.as_u16() == 500;
            if !is_soap {
                return Err(Fault::Refused(format!("status {}", head.status)));
            }
            let text = str::from_utf8(&text).map_err(|_| Fault::Protocol("an answer that is no text".to_owned()))?;
            let root = Element::read(text, MAX_ELEMENTS).map_err(|why| Fault::Protocol(clean_text(why)))?;
            let wrong = || Fault::Protocol("an answer of another shape".to_owned());
            Ok((head.status, cookie(&head.headers), soap::opened(root).ok_or_else(wrong)?))
        };
        match tokio::time::timeout(patience + LIST, run).await {
            Ok(done) => done,
            Err(_) => Err(Fault::TooSlow("to send its answer")),
        }
    }

    async fn dial(&self) -> Result<Connection, Fault> {
        let wire = self.dialer.dial().await?;
        Live::open(wire).await.map_err(|e| fault(&e))
    }

    #[expect(clippy::type_complexity, reason = "a request and how far it has come")]
    fn request(
        &self,
        session: Option<&Session>,
        release: &str,
        document: Bytes,
    ) -> Result<(Box<Request<Sending<Full<Bytes>>>>, Option<Arc<crate::exchange::Progress>>), Fault> {
        let action = if release.is_empty() { "\"urn:vim25\"".to_owned() } else { format!("\"urn:vim25/{release}\"") };
        let (body, progress) = Sending::new(Full::new(document));
        let mut request = Request::post("/sdk")
            .header(HOST, &self.host)
            .header(CONTENT_TYPE, "text/xml; charset=utf-8")
            .header(HeaderName::from_static("soapaction"), action);
        if let Some(session) = session {
            request = request.header(COOKIE, &session.cookie);
        }
        let request = request.body(body).map_err(|e| Fault::Protocol(e.to_string()))?;
        Ok((Box::new(request), progress))
    }
}

impl Session {
    fn take(&self) -> Option<Connection> {
        loop {
            let (mut live, since) = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            if since.elapsed() < KEPT_FOR && live.is_clean() {
                return Some(live);
            }
        }
    }

    fn keep(&self, mut live: Connection) {
        if live.is_clean() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < KEPT {
                idle.push((live, Instant::now()));
            }
        }
    }
}

/// The session's cookie, as it is sent back.
fn cookie(headers: &HeaderMap) -> Option<HeaderValue> {
    let all = headers.get_all(SET_COOKIE).iter().filter_map(|v| v.to_str().ok());
    let mut ours = all.filter_map(|v| {
        let (name, value) = v.split(';').next()?.split_once('=')?;
        (name.trim() == COOKIE_NAME).then(|| value.trim())
    });
    let value = ours.next().filter(|v| !v.is_empty() && v.len() <= 512)?;
    let is_plain = value.bytes().all(|b| b.is_ascii_graphic() && !b";,\\".contains(&b));
    let mut cookie = HeaderValue::from_str(&format!("{COOKIE_NAME}={value}")).ok().filter(|_| is_plain)?;
    cookie.set_sensitive(true);
    Some(cookie)
}
