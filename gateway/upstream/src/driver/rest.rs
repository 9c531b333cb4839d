// SPDX-License-Identifier: Apache-2.0
//! Small JSON calls to a hypervisor's HTTP API, for the gateway's own work. One connection a call: they are rare, and
//! one that hangs hurts nothing else.

use crate::{
    driver::{LIST, MAX_ANSWER, clean_text},
    error::Fault,
    exchange::{Broken, Live, Sending},
    forward::fault,
    wire::Dialer,
};
use bytes::{Bytes, BytesMut};
use http::{
    HeaderValue, Method, Request,
    header::{CONNECTION, CONTENT_TYPE, HOST},
};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use serde::{Deserialize, de::DeserializeOwned};
use std::{future::poll_fn, pin::Pin, task::Poll, time::Duration};

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

/// Asks once; the answer is at most 32 MiB, and all of it comes within `patience`.
pub(super) async fn ask<T: DeserializeOwned>(
    dialer: &Dialer,
    host: &HeaderValue,
    method: Method,
    target: &str,
    body: Option<String>,
    patience: Duration,
) -> Result<T, Fault> {
    let wire = dialer.dial().await?;
    let run = async {
        let mut live = Live::open(wire).await.map_err(|e| fault(&e))?;
        let wrong = |e: http::Error| Fault::Protocol(e.to_string());
        let mut request = Request::builder().method(method).uri(target).header(HOST, host).header(CONNECTION, "close");
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let (body, progress) = Sending::new(Full::new(Bytes::from(body.unwrap_or_default())));
        let request = request.body(body).map_err(wrong)?;
        let response = match live.exchange(Box::new(request), progress.as_deref(), Some(LIST)).await {
            Ok(response) => response,
            Err(Broken::Failed(e)) => return Err(fault(&e)),
            Err(Broken::Unsent(_)) => return Err(Fault::hung_up("closed the connection at once")),
            Err(Broken::TooSlow) => return Err(Fault::TooSlow("to answer")),
        };
        let status = response.status();
        crate::headers::check_answer(response.headers())?;
        let text = collect(&mut live, response.into_body()).await?;
        if !status.is_success() {
            let why = serde_json::from_slice::<Refusal>(&text).map_or_else(|_| format!("status {status}"), |r| r.error);
            return Err(Fault::Refused(clean_text(&why)));
        }
        let envelope: Envelope<T> =
            serde_json::from_slice(&text).map_err(|e| Fault::Protocol(format!("an answer of another shape: {e}")))?;
        envelope.metadata.ok_or_else(|| Fault::Protocol("an answer without content".to_owned()))
    };
    match tokio::time::timeout(patience, run).await {
        Ok(done) => done,
        Err(_) => Err(Fault::TooSlow("to send its answer")),
    }
}

async fn collect(live: &mut Live<Full<Bytes>>, mut body: Incoming) -> Result<BytesMut, Fault> {
    let mut all = BytesMut::new();
    loop {
        let frame = poll_fn(|cx| {
            if let Poll::Ready(frame) = Pin::new(&mut body).poll_frame(cx) {
                return Poll::Ready(frame);
            }
            live.poll_drive(cx);
            Pin::new(&mut body).poll_frame(cx)
        })
        .await;
        match frame {
            None => return Ok(all),
            Some(Err(e)) => return Err(fault(&e)),
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    if all.len() + data.len() > MAX_ANSWER {
                        return Err(Fault::Protocol("an answer larger than 32 MiB".to_owned()));
                    }
                    all.extend_from_slice(data);
                }
            }
        }
    }
}
