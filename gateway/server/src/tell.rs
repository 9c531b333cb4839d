// SPDX-License-Identifier: Apache-2.0
//! Tells a service of the house's choosing what happens to access requests: signed JSON, tried again, never waited for.
//!
//! What is told is in the store before; news that are lost (a full queue, a service that stays away, a restart) lose a
//! message and nothing else.

use crate::{
    config::{Config, ConfigError},
    state::{House, chain},
};
use aws_lc_rs::hmac;
use http::{Method, Request, header};
use portcullis_domain::Secret;
use portcullis_store::StepWhat;
use portcullis_upstream::Outbound;
use serde_json::json;
use std::{sync::Arc, time::Duration};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::sync::{Mutex, mpsc};

/// News that wait at most.
const WAITING: usize = 256;
/// How long one answer may take, how large it may be, and when it is tried again.
const PATIENCE: Duration = Duration::from_secs(5);
const ANSWER: usize = 16 * 1024;
const AGAIN: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(10), Duration::from_mins(1)];
/// The shortest secret.
const SECRET: usize = 32;

/// One step of one request.
pub(crate) struct News {
    pub(crate) at: OffsetDateTime,
    pub(crate) request: String,
    pub(crate) what: StepWhat,
    pub(crate) asker: String,
    pub(crate) role: String,
    pub(crate) on: String,
    pub(crate) reason: String,
    pub(crate) by: String,
    pub(crate) words: String,
    pub(crate) link: String,
}

/// Where news go.
pub(crate) struct Tell {
    to: Option<Hook>,
    send: mpsc::Sender<News>,
    queue: Mutex<mpsc::Receiver<News>>,
}

struct Hook {
    outbound: Outbound,
    address: String,
    secret: Secret,
}

impl Tell {
    /// To the address of the configuration, or to nobody.
    pub(crate) fn new(config: &Config) -> Result<Self, ConfigError> {
        let requests = &config.requests;
        let wrong = |why: String| ConfigError::new(&config.file, why);
        let to = match (&requests.webhook, &requests.webhook_secret_file) {
            (Some(address), Some(file)) => {
                let key = "requests.webhook_secret_file";
                let secret = Outbound::read_secret(key, file).map_err(|e| wrong(chain(&e)))?;
                if secret.expose().len() < SECRET {
                    return Err(wrong(format!("{key}: at least {SECRET} bytes")));
                }
                let ca = requests.webhook_ca_file.as_deref();
                let outbound = Outbound::new("requests.webhook_ca_file", ca).map_err(|e| wrong(chain(&e)))?;
                Some(Hook { outbound, address: address.clone(), secret })
            }
            _ => None,
        };
        let (send, queue) = mpsc::channel(WAITING);
        Ok(Self { to, send, queue: Mutex::new(queue) })
    }

    /// Puts news into the queue, if there is somebody to tell and room for it.
    pub(crate) fn say(&self, news: News) {
        if self.to.is_some() && self.send.try_send(news).is_err() {
            tracing::warn!("a step of an access request is not told: too many are waiting");
        }
    }
}

/// Tells the news, one after the other, for ever.
pub(crate) async fn keep(house: Arc<House>) {
    let Some(hook) = &house.tell.to else { return };
    let mut queue = house.tell.queue.lock().await;
    while let Some(news) = queue.recv().await {
        let body = body(&news);
        for wait in AGAIN {
            match hook.post(&body, house.clock.now()).await {
                Ok(()) => break,
                Err(why) => tracing::warn!(%why, "a step of an access request could not be told"),
            }
            tokio::time::sleep(wait).await;
        }
    }
}

fn body(news: &News) -> String {
    json!({
        "event": news.what, "at": news.at.format(&Rfc3339).unwrap_or_default(), "request": news.request,
        "who": news.asker, "role": news.role, "on": news.on, "reason": news.reason, "by": news.by, "words": news.words,
        "link": news.link,
    })
    .to_string()
}

impl Hook {
    async fn post(&self, body: &str, now: OffsetDateTime) -> Result<(), String> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.address)
            .header(header::CONTENT_TYPE, "application/json")
            .header("x-portcullis-signature", signature(&self.secret, now, body))
            .body(body.as_bytes().to_vec())
            .map_err(|e| e.to_string())?;
        let answer = self.outbound.fetch(request, ANSWER, PATIENCE).await.map_err(|e| chain(&e))?;
        if answer.status().is_success() { Ok(()) } else { Err(format!("it answered {}", answer.status())) }
    }
}

/// `t=TIME,v1=HEX`: HMAC-SHA-256 over the time and the body, so that an old message cannot be sent again as a new one.
fn signature(secret: &Secret, now: OffsetDateTime, body: &str) -> String {
    let at = now.unix_timestamp();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
    format!("t={at},v1={}", hex::encode(hmac::sign(&key, format!("{at}.{body}").as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn a_signature_covers_the_time_and_the_whole_body() {
        let secret = Secret::new(vec![7; 32]);
        let at = datetime!(2026-11-28 12:00 UTC);
        let signed = signature(&secret, at, "{}");
        // python: hmac.new(bytes([7])*32, b"1795867200.{}", "sha256").hexdigest()
        assert_eq!(signed, "t=1795867200,v1=451b47744b370f2ae6341cea14f8633c499fa206ec5f824a98bfeee0e315a4ce");
        assert_ne!(signature(&secret, at, "{ }"), signed);
        assert_ne!(signature(&secret, at + time::Duration::SECOND, "{}"), signed);
    }
}
