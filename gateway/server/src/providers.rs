// SPDX-License-Identifier: Apache-2.0
//! Identity providers: how they are reached, checked before anything listens, and the minute's question about people
//! who signed in through them.

use crate::{
    config::{Config, ConfigError},
    state::{House, chain},
};
use portcullis_domain::{Event, Outcome, Phase, Seq, Subject, Via, micros};
use portcullis_identity::{Connection, Fetch, FetchError, LARGEST_ANSWER, ProviderSettings, Renewal, Renewed};
use portcullis_policy::Engine;
use portcullis_upstream::{Fault, Outbound};
use std::{sync::Arc, time::Duration};

/// How long one question to a provider may take.
const PATIENCE: Duration = Duration::from_secs(8);
/// How often it is looked who has to be asked about.
const EVERY: Duration = Duration::from_secs(5);

/// A connection to each provider of the configuration, in its order.
pub(crate) fn connections(config: &Config, engine: &Engine) -> Result<Vec<Connection>, ConfigError> {
    config.identity.providers.iter().map(|provider| connection(config, engine, provider)).collect()
}

fn connection(config: &Config, engine: &Engine, provider: &ProviderSettings) -> Result<Connection, ConfigError> {
    let key = |name: &str| format!("identity.providers.{}.{name}", provider.name);
    let wrong = |why: String| ConfigError::new(&config.file, why);
    if let Some(rule) = provider.roles.iter().find(|rule| !engine.has_role(&rule.role)) {
        return Err(wrong(format!("{}: there is no role {}", key("roles.role"), rule.role)));
    }
    let outbound = Outbound::new(&key("ca_file"), provider.ca_file.as_deref()).map_err(|e| wrong(chain(&e)))?;
    let secret = provider.client_secret_file.as_ref();
    let secret = secret.map(|path| Outbound::read_secret(&key("client_secret_file"), path)).transpose();
    let secret = secret.map_err(|e| wrong(chain(&e)))?;
    if secret.as_ref().is_some_and(|s| s.expose_text().is_none()) {
        return Err(wrong(format!("{}: the secret is no text", key("client_secret_file"))));
    }
    let origin = config.portal.origin();
    Ok(Connection {
        fetch: fetch(outbound),
        secret,
        redirect: format!("{origin}/sign-in/callback/{}", provider.name),
        after_logout: format!("{origin}/sign-in"),
    })
}

/// How identity asks: through upstream's client, the only one of the house.
fn fetch(outbound: Outbound) -> Fetch {
    Arc::new(move |request| {
        let outbound = outbound.clone();
        Box::pin(async move {
            let answer = outbound.fetch(request, LARGEST_ANSWER, PATIENCE).await;
            answer.map_err(|fault: Fault| FetchError(chain(&fault)))
        })
    })
}

/// Asks the providers about who is signed in, for ever. What follows is written down before it is done.
pub(crate) async fn keep(house: Arc<House>) {
    if house.identity.providers().is_empty() {
        return;
    }
    loop {
        tokio::time::sleep(EVERY).await;
        match house.identity.renewals().await {
            Ok(renewals) => {
                for renewal in renewals {
                    if let Err(error) = house.settle(renewal).await {
                        tracing::error!(error = %error, "what an identity provider says could not be followed");
                    }
                }
            }
            Err(error) => tracing::error!(error = %chain(&error), "sign-ins could not be renewed"),
        }
    }
}

impl House {
    /// The addresses that lead to each provider, and what people call it.
    pub(crate) fn provider_doors(&self) -> Vec<(String, String)> {
        let all = self.identity.providers().into_iter();
        all.map(|(name, title)| (format!("/sign-in/with/{name}"), title.to_owned())).collect()
    }

    /// Two events around what follows from a provider's word, the first durable before anything is done.
    async fn settle(&self, renewal: Renewal) -> Result<(), String> {
        let (user, intended) = (renewal.user, renewal.words.clone());
        let name: Arc<str> =
            self.store.user(user).await.map_err(|e| chain(&e))?.map(|u| u.name).unwrap_or_default().into();
        let subject = renewal.session.map(|s| Subject { user, name: Arc::clone(&name), via: Via::Session(s) });
        let request = self.request_id();
        let write = async |phase, outcome, reason: &str| -> Result<Seq, String> {
            let event = Event {
                at_us: micros(self.clock.now()),
                request,
                phase,
                kind: "sign-in".into(),
                subject: subject.clone(),
                peer: None,
                action: None,
                resource: Arc::clone(&name),
                outcome,
                reason: reason.into(),
                details: vec![("user".into(), user.to_string().into())],
            };
            let seq = self.trail.append(&event).map_err(|e| e.to_string())?;
            self.trail.durable(seq).await.map_err(|e| e.to_string())?;
            Ok(seq)
        };
        let opened = write(Phase::Opened, Outcome::Pending, &intended).await?;
        let (outcome, reason) = match self.identity.settle(renewal).await {
            Ok(Renewed::Stays(words)) => (Outcome::Done, words),
            Ok(Renewed::Ended) => (Outcome::Done, intended.replace("they are to be", "they were")),
            Err(error) => (Outcome::Failed, chain(&error)),
        };
        write(Phase::Closed(opened), outcome, &reason).await.map(drop)
    }
}
