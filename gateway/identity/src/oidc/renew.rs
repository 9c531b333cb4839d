// SPDX-License-Identifier: Apache-2.0
//! Asking the provider again about people who are signed in: their roles follow within a minute, and who is no longer
//! vouched for is signed out.

use super::{Flaw, Provider, Trouble, arrive::words};
use crate::{Error, Identity};
use portcullis_domain::{Secret, SessionId, UserId};
use portcullis_store::{ProviderSession, Vouched};
use serde_json::{Map, Value};
use std::{collections::HashSet, sync::Arc};
use time::Duration;

/// How often a provider is asked about one sign-in.
const EVERY: Duration = Duration::MINUTE;

/// What a provider said about somebody who is signed in. Nothing was changed yet: write it down, then
/// [`Identity::settle`] it.
pub struct Renewal {
    /// Who.
    pub user: UserId,
    /// Their session here.
    pub session: Option<SessionId>,
    /// What is going to happen, in words for the trail.
    pub words: String,
    sign_in: ProviderSession,
    provider: Arc<Provider>,
    news: News,
}

/// What follows from it.
enum News {
    /// The sign-in ends, for this reason.
    Ends(Flaw),
    /// Their claims are these now.
    Claims(Map<String, Value>),
}

/// What came of a renewal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewed {
    /// They stay; what changed, in words for the trail.
    Stays(String),
    /// They were signed out.
    Ended,
}

impl Identity {
    /// Asks the providers about the live sign-ins that were not asked about for a minute, and gives what has to be
    /// written down and settled. A provider that cannot be reached is asked again later: nobody loses anything by that.
    pub async fn renewals(&self) -> Result<Vec<Renewal>, Error> {
        let inner = &self.0;
        if inner.providers.is_empty() {
            return Ok(Vec::new());
        }
        let now = inner.clock.now();
        let mut down = HashSet::new();
        let mut news = Vec::new();
        for sign_in in inner.store.provider_sessions_due(now - EVERY, now).await.map_err(Error::store)? {
            let Ok(provider) = inner.provider(&sign_in.provider).map(Arc::clone) else { continue };
            if down.contains(&sign_in.provider) || provider.settings.issuer != sign_in.issuer {
                continue;
            }
            if !inner.store.claim_renewal(sign_in.id, sign_in.renewed_at, now).await.map_err(Error::store)? {
                continue;
            }
            match self.ask_again(&provider, &sign_in).await {
                Ok(Some(claims)) => {
                    let words = "the provider's word for their roles changed";
                    news.extend(self.renewal(&provider, sign_in, News::Claims(claims), words).await?);
                }
                Ok(None) => {}
                Err(Error::NotVouched { flaw, .. }) => {
                    let words = format!("they are to be signed out: {flaw}");
                    news.extend(self.renewal(&provider, sign_in, News::Ends(flaw), &words).await?);
                }
                Err(Error::ProviderDown { .. }) => drop(down.insert(sign_in.provider)),
                Err(error) => return Err(error),
            }
        }
        Ok(news)
    }

    /// The claims of a renewed sign-in; none when the provider says nothing about them.
    async fn ask_again(
        &self,
        provider: &Provider,
        sign_in: &ProviderSession,
    ) -> Result<Option<Map<String, Value>>, Error> {
        let inner = &self.0;
        let Some(sealed) = &sign_in.refresh_token else { return Ok(None) };
        let token = inner.open_token(sign_in.id, "refresh_token", sealed)?;
        let now = inner.clock.now();
        let talk = async {
            let document = provider.document(now).await?;
            provider.renew(&document, &token, &sign_in.subject, now).await
        };
        let word = match provider.patiently(Box::pin(talk)).await {
            Ok(word) => word,
            Err(trouble @ (Trouble::Down(_) | Trouble::Flaw(Flaw::Discovery))) => {
                let Trouble::Down(why) = trouble else {
                    return Err(provider.error(Trouble::Down(Flaw::Discovery.words().to_owned()), None));
                };
                return Err(provider.error(Trouble::Down(why), None));
            }
            Err(trouble) => return Err(provider.error(trouble, Some(sign_in.user))),
        };
        let id_token = word.id_token.as_ref().and_then(Secret::expose_text);
        let id_token = id_token.map(|t| inner.seal_token(sign_in.id, "id_token", t)).transpose()?;
        let next = word.refresh_token.as_ref().and_then(Secret::expose_text);
        let next = next.map(|t| inner.seal_token(sign_in.id, "refresh_token", t)).transpose()?;
        let kept = inner.store.keep_renewed(sign_in.id, id_token.as_deref(), next.as_deref()).await;
        kept.map_err(Error::store)?;
        Ok((word.id_token.is_some() || !word.claims.is_empty()).then_some(word.claims))
    }

    /// What has to be settled, if anything has.
    async fn renewal(
        &self,
        provider: &Arc<Provider>,
        sign_in: ProviderSession,
        news: News,
        words: &str,
    ) -> Result<Option<Renewal>, Error> {
        let (news, words) = match news {
            News::Claims(claims) => match provider.settings.roles_for(&claims) {
                Ok(rules) if rules.is_empty() => {
                    (News::Ends(Flaw::NoRole), format!("they are to be signed out: {}", Flaw::NoRole))
                }
                Ok(rules) => {
                    let held = self.0.store.grants_of(sign_in.user).await.map_err(Error::store)?;
                    let held: Vec<_> =
                        held.iter().filter(|g| g.source == portcullis_domain::GrantSource::IdentityProvider).collect();
                    let same = |g: &&portcullis_domain::Grant| {
                        rules.iter().any(|r| r.role == g.role && r.on.0 == g.selector && r.conditions() == g.conditions)
                    };
                    if held.len() == rules.len() && held.iter().all(same) {
                        return Ok(None);
                    }
                    (News::Claims(claims), words.to_owned())
                }
                Err(flaw) => (News::Ends(flaw), format!("they are to be signed out: {flaw}")),
            },
            ends @ News::Ends(_) => (ends, words.to_owned()),
        };
        let (user, session) = (sign_in.user, sign_in.session);
        Ok(Some(Renewal { user, session, words, sign_in, provider: Arc::clone(provider), news }))
    }

    /// Does what follows from a renewal: roles brought in line, or the session ended.
    pub async fn settle(&self, renewal: Renewal) -> Result<Renewed, Error> {
        let inner = &self.0;
        let Renewal { user: _, session: _, words: _, sign_in, provider, news } = renewal;
        let now = inner.clock.now();
        let title = &provider.settings.title;
        let end = match news {
            News::Ends(Flaw::NoRole) => {
                inner.vouch(&provider, &sign_in.subject, &Map::new(), &[]).await?;
                Some(Flaw::NoRole)
            }
            News::Ends(flaw) => Some(flaw),
            News::Claims(claims) => {
                let rules = provider.settings.roles_for(&claims).map_err(|flaw| provider.flaw(flaw, None))?;
                match inner.vouch(&provider, &sign_in.subject, &claims, &rules).await? {
                    Vouched::Person { given, taken, .. } => {
                        self.refresh().await?;
                        return Ok(Renewed::Stays(format!("as {title} says now{}", words(false, &given, &taken))));
                    }
                    Vouched::Disabled(_) | Vouched::Nobody | Vouched::NotSetUp => Some(Flaw::Disabled),
                }
            }
        };
        if let Some(flaw) = end {
            let why = format!("{title} ended the sign-in: {flaw}");
            inner.store.end_provider_session(sign_in.id, now, &why).await.map_err(Error::store)?;
            // What they left with tools ends with it: a token is never stronger than its owner.
            let refused = inner.store.refuse_person(&sign_in.issuer, &sign_in.subject, now).await;
            refused.map_err(Error::store)?;
        }
        self.refresh().await?;
        Ok(Renewed::Ended)
    }
}
