// SPDX-License-Identifier: Apache-2.0
//! Small JSON calls to a hypervisor's HTTP API, for the gateway's own work. One connection a call: they are rare, and
//! one that hangs hurts nothing else.

use crate::{
    driver::{LIST, MAX_ANSWER, clean_text},
    error::Fault,
    exchange::{Broken, Live, Sending},
    fleet::MAX_MACHINES,
    forward::fault,
    framed,
    wire::{Dialer, Stream, Wire},
};
use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode,
    header::{CONNECTION, CONTENT_TYPE, HOST, SEC_WEBSOCKET_PROTOCOL},
};
use http_body_util::Full;
use hyper::{
    body::{Body, Frame, Incoming},
    ext::ReasonPhrase,
};
use portcullis_domain::counted;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{fmt::Write as _, future::poll_fn, marker::PhantomData, pin::Pin, task::Poll, time::Duration};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

/// What wraps every answer of LXD's API.
#[derive(Deserialize)]
#[serde(bound = "T: DeserializeOwned")]
struct Envelope<T> {
    metadata: Option<T>,
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
}

/// The same where the answer holds nothing.
pub(super) async fn tell(
    dialer: &Dialer,
    host: &HeaderValue,
    method: Method,
    target: &str,
    body: Option<String>,
) -> Result<(), Fault> {
    let call = Call { method, target, body: body.map(|b| ("application/json", b)), patience: LIST };
    read(&call.send(dialer, host).await?).map(drop)
}

fn read(told: &Told) -> Result<&[u8], Fault> {
    if told.status.is_success() {
        return Ok(&told.text);
    }
    let why = serde_json::from_slice::<Refusal>(&told.text);
    let why = why.map_or_else(|_| format!("status {}", told.status), |r| r.error);
    Err(Fault::Refused(clean_text(&why)))
}

/// Asks LXD once; the answer is at most 32 MiB, and all of it comes within `patience`.
pub(super) async fn ask<T: DeserializeOwned>(
    dialer: &Dialer,
    host: &HeaderValue,
    method: Method,
    target: &str,
    body: Option<String>,
    patience: Duration,
) -> Result<T, Fault> {
    let call = Call { method, target, body: body.map(|b| ("application/json", b)), patience };
    call.send(dialer, host).await.and_then(|told| content(&told))
}

/// What an answer of LXD holds.
pub(super) fn content<T: DeserializeOwned>(told: &Told) -> Result<T, Fault> {
    let envelope: Envelope<T> =
        serde_json::from_slice(read(told)?).map_err(|e| Fault::Protocol(format!("an answer of another shape: {e}")))?;
    envelope.metadata.ok_or_else(|| Fault::Protocol("an answer without content".to_owned()))
}

/// One call.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) target: &'a str,
    /// Its media type, and what it says.
    pub(super) body: Option<(&'static str, String)>,
    /// How long all of it may take.
    pub(super) patience: Duration,
}

/// What was answered.
pub(super) struct Told {
    pub(super) status: StatusCode,
    /// What the status line says in words.
    pub(super) reason: Option<String>,
    pub(super) text: BytesMut,
}

impl Call<'_> {
    /// Asks once, on a connection of its own.
    pub(super) async fn send(self, dialer: &Dialer, host: &HeaderValue) -> Result<Told, Fault> {
        self.ask(dialer, host, &[], MAX_ANSWER).await.map(|(told, _)| told)
    }

    /// The same, where the answer may have so many bytes.
    pub(super) async fn send_up_to(self, dialer: &Dialer, host: &HeaderValue, most: usize) -> Result<Told, Fault> {
        self.ask(dialer, host, &[], most).await.map(|(told, _)| told)
    }

    /// The same with headers of the API's own, and those of the answer.
    pub(super) async fn send_with(
        self,
        dialer: &Dialer,
        host: &HeaderValue,
        headers: &[(&str, &str)],
    ) -> Result<(Told, HeaderMap), Fault> {
        self.ask(dialer, host, headers, MAX_ANSWER).await
    }

    async fn ask(
        self,
        dialer: &Dialer,
        host: &HeaderValue,
        headers: &[(&str, &str)],
        most: usize,
    ) -> Result<(Told, HeaderMap), Fault> {
        let patience = self.patience;
        let wire = dialer.dial().await?;
        let run = async {
            let (mut live, response) = self.begin(wire, dialer, host, headers).await?;
            let status = response.status();
            let reason = response.extensions().get::<ReasonPhrase>();
            let reason = reason.and_then(|r| str::from_utf8(r.as_bytes()).ok()).map(clean_text);
            let (head, body) = response.into_parts();
            let text = collect(&mut live, body, most).await?;
            Ok((Told { status, reason, text }, head.headers))
        };
        match tokio::time::timeout(patience, run).await {
            Ok(done) => done,
            Err(_) => Err(Fault::TooSlow("to send its answer")),
        }
    }

    /// Asks once and gives the lines of the answer as they come, for as long as they come: at most so many bytes each.
    pub(super) async fn follow(self, dialer: &Dialer, host: &HeaderValue, longest: usize) -> Result<Lines, Fault> {
        let patience = self.patience;
        let wire = dialer.dial().await?;
        let Ok(begun) = tokio::time::timeout(patience, self.begin(wire, dialer, host, &[])).await else {
            return Err(Fault::TooSlow("to answer"));
        };
        let (live, response) = begun?;
        let status = response.status();
        Ok(Lines { status, live, body: response.into_body(), early: BytesMut::new(), longest })
    }

    /// Asks on a connection and waits for the head of the answer.
    async fn begin(
        self,
        wire: Wire,
        dialer: &Dialer,
        host: &HeaderValue,
        headers: &[(&str, &str)],
    ) -> Result<(Box<Live<Full<Bytes>>>, http::Response<Incoming>), Fault> {
        let Self { method, target, body, patience } = self;
        let mut live = Live::open(wire).await.map_err(|e| fault(&e))?;
        let wrong = |e: http::Error| Fault::Protocol(e.to_string());
        let mut request = Request::builder().method(method).uri(target).header(HOST, host).header(CONNECTION, "close");
        if let Some(badge) = &dialer.authorization {
            let (name, value) = badge.show()?;
            request = request.header(name, value);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some((media_type, _)) = &body {
            request = request.header(CONTENT_TYPE, *media_type);
        }
        let (body, progress) = Sending::new(Full::new(Bytes::from(body.map(|(_, b)| b).unwrap_or_default())));
        let request = request.body(body).map_err(wrong)?;
        let response = match live.exchange(Box::new(request), progress.as_deref(), Some(patience)).await {
            Ok(response) => response,
            Err(Broken::Failed(e)) => return Err(fault(&e)),
            Err(Broken::Unsent(_)) => return Err(Fault::hung_up("closed the connection at once")),
            Err(Broken::TooSlow) => return Err(Fault::TooSlow("to answer")),
        };
        crate::headers::check_answer(response.headers())?;
        if response.status().as_u16() == 401
            && let Some(badge) = &dialer.authorization
        {
            badge.refused();
        }
        Ok((live, response))
    }
}

/// The lines of an answer that goes on.
pub(super) struct Lines {
    pub(super) status: StatusCode,
    live: Box<Live<Full<Bytes>>>,
    body: Incoming,
    early: BytesMut,
    longest: usize,
}

impl Lines {
    /// All that comes, where it is short.
    pub(super) async fn whole(mut self) -> Result<BytesMut, Fault> {
        collect(&mut self.live, self.body, self.longest).await
    }

    /// The next line without its end; none when there are no more. May be dropped while it waits: nothing is lost.
    pub(super) async fn next(&mut self) -> Result<Option<BytesMut>, Fault> {
        let mut looked_at = 0;
        loop {
            let fresh = self.early.get(looked_at..).unwrap_or_default();
            if let Some(at) = fresh.iter().position(|b| *b == b'\n') {
                let mut line = self.early.split_to(looked_at + at + 1);
                line.truncate(looked_at + at);
                return Ok(Some(line));
            }
            looked_at = self.early.len();
            if looked_at > self.longest {
                return Err(Fault::Protocol(format!("a line longer than {} KiB", self.longest >> 10)));
            }
            match next_frame(&mut self.live, &mut self.body).await {
                None => return Ok(None),
                Some(Err(e)) => return Err(fault(&e)),
                Some(Ok(frame)) => self.early.extend_from_slice(frame.data_ref().map_or(&[][..], |d| d)),
            }
        }
    }
}

/// The list: rows of the right shape, how many had another, and how many were too many. Only what is kept takes
/// memory: 32 MiB of small rows would otherwise become gigabytes.
pub(super) struct Rows<T> {
    pub(super) good: Vec<T>,
    bad: usize,
    beyond: usize,
}

impl<T> Rows<T> {
    /// What people should know of what is missing.
    pub(super) fn notes(&self, one: &str, many: &str) -> Vec<String> {
        let (one, many) = (format!("{one} was"), format!("{many} were"));
        let mut notes = Vec::new();
        if self.bad > 0 {
            notes.push(format!("{} left out: the entry has another shape", counted(self.bad, &one, &many)));
        }
        if self.beyond > 0 {
            notes.push(format!("{} left out: only {MAX_MACHINES} are shown", counted(self.beyond, &one, &many)));
        }
        notes
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Rows<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(RowsVisitor(PhantomData))
    }
}

struct RowsVisitor<T>(PhantomData<T>);

impl<'de, T: DeserializeOwned> Visitor<'de> for RowsVisitor<T> {
    type Value = Rows<T>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Rows<T>, A::Error> {
        let mut rows = Rows { good: Vec::new(), bad: 0, beyond: 0 };
        // Each row's text is taken first and read on its own: one bad row hides no other.
        while rows.good.len() < MAX_MACHINES {
            let Some(text) = list.next_element::<&RawValue>()? else { return Ok(rows) };
            match serde_json::from_str(text.get()) {
                Ok(row) => rows.good.push(row),
                Err(_) => rows.bad += 1,
            }
        }
        while list.next_element::<IgnoredAny>()?.is_some() {
            rows.beyond += 1;
        }
        Ok(rows)
    }
}

/// Opens a WebSocket on a connection of its own, and takes the bytes of its messages. What was asked is in no error: its
/// address may hold a ticket.
pub(super) async fn screen(
    dialer: &Dialer,
    host: &HeaderValue,
    target: &str,
    protocol: &'static str,
) -> Result<Stream, Fault> {
    // The scheme only satisfies the library: TLS, where there is any, is already on the wire.
    let address = format!("ws://{}{target}", host.to_str().unwrap_or("hypervisor"));
    let wrong = || Fault::Protocol("a screen's ticket that cannot be sent".to_owned());
    let mut request: Request<()> = address.into_client_request().map_err(|_| wrong())?;
    let headers = request.headers_mut();
    headers.insert(HOST, host.clone());
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    if let Some(badge) = &dialer.authorization {
        let (name, value) = badge.show()?;
        headers.insert(name, value);
    }
    framed::open(request, dialer.dial().await?).await
}

/// A value as it stands in an address.
pub(super) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// The whole of an answer's body, at most so many bytes.
pub(crate) async fn collect(live: &mut Live<Full<Bytes>>, mut body: Incoming, most: usize) -> Result<BytesMut, Fault> {
    let mut all = BytesMut::new();
    loop {
        match next_frame(live, &mut body).await {
            None => return Ok(all),
            Some(Err(e)) => return Err(fault(&e)),
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    if all.len() + data.len() > most {
                        return Err(Fault::Protocol(format!("an answer larger than {} MiB", most >> 20)));
                    }
                    all.extend_from_slice(data);
                }
            }
        }
    }
}

/// What of a body comes next.
async fn next_frame(live: &mut Live<Full<Bytes>>, body: &mut Incoming) -> Option<Result<Frame<Bytes>, hyper::Error>> {
    poll_fn(|cx| {
        if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        live.poll_drive(cx);
        Pin::new(&mut *body).poll_frame(cx)
    })
    .await
}
