// SPDX-License-Identifier: Apache-2.0
//! The webhook: signed JSON to one address.

use super::{Happens, News, Undelivered};
use crate::{
    config::{Config, ConfigError},
    state::chain,
};
use aws_lc_rs::hmac;
use http::{Method, Request, header};
use portcullis_domain::Secret;
use portcullis_store::Message;
use portcullis_upstream::Outbound;
use serde_json::json;
use std::time::Duration;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// How long one answer may take, and how large it may be.
const PATIENCE: Duration = Duration::from_secs(5);
const ANSWER: usize = 16 * 1024;
/// The shortest secret.
const SECRET: usize = 32;

/// Where it is told.
pub(super) struct Hook {
    outbound: Outbound,
    address: String,
    secret: Secret,
}

impl Hook {
    /// The address of the configuration, if there is one.
    pub(super) fn new(config: &Config) -> Result<Option<Self>, ConfigError> {
        let requests = &config.requests;
        let wrong = |why: String| ConfigError::new(&config.file, why);
        let (Some(address), Some(file)) = (&requests.webhook, &requests.webhook_secret_file) else { return Ok(None) };
        let key = "requests.webhook_secret_file";
        let secret = Outbound::read_secret(key, file).map_err(|e| wrong(chain(&e)))?;
        if secret.expose().len() < SECRET {
            return Err(wrong(format!("{key}: at least {SECRET} bytes")));
        }
        let ca = requests.webhook_ca_file.as_deref();
        let outbound = Outbound::new("requests.webhook_ca_file", ca).map_err(|e| wrong(chain(&e)))?;
        Ok(Some(Self { outbound, address: address.clone(), secret }))
    }

    pub(super) async fn deliver(&self, message: &Message, now: OffsetDateTime) -> Result<(), Undelivered> {
        let body = &message.body;
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.address)
            .header(header::CONTENT_TYPE, "application/json")
            .header("x-portcullis-delivery", message.id.to_string())
            .header("x-portcullis-signature", signature(&self.secret, now, body))
            .body(body.as_bytes().to_vec())
            .map_err(|e| Undelivered::Later(e.to_string()))?;
        let answer = self.outbound.fetch(request, ANSWER, PATIENCE).await;
        let answer = answer.map_err(|e| Undelivered::Later(format!("the webhook {}", chain(&e))))?;
        if answer.status().is_success() {
            return Ok(());
        }
        Err(Undelivered::Later(format!("the webhook answered {}", answer.status())))
    }
}

/// What is told.
pub(super) fn body(news: &News) -> String {
    let request = &news.request;
    let event = match news.what {
        Happens::Step(what) => json!(what),
        Happens::Ending => json!("ending"),
    };
    json!({
        "event": event, "at": news.at.format(&Rfc3339).unwrap_or_default(), "request": request.id.to_string(),
        "who": news.asker, "role": request.role.to_string(), "on": request.selector.to_string(),
        "reason": request.reason, "by": news.by, "words": news.words, "link": news.link,
    })
    .to_string()
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
