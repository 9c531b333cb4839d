// SPDX-License-Identifier: Apache-2.0
//! Where a provider's endpoints are and which keys it signs with (OpenID Connect Discovery 1.0).

use super::{
    Flaw, LARGEST_ANSWER, Provider, Trouble,
    settings::is_safe_address,
    token::{Kind, Proven, Unproven, asymmetric},
};
use http::{Method, Request, Response, header};
use openidconnect::core::{CoreJsonWebKeySet, CoreJwsSigningAlgorithm};
use serde::Deserialize;
use std::sync::Arc;
use time::{Duration, OffsetDateTime};

/// How long the document and the keys are believed without a new look.
const LASTS: Duration = Duration::HOUR;
/// A key that is not known is looked for at most so often, whoever asks.
const AGAIN: Duration = Duration::MINUTE;

/// What is known of a provider.
#[derive(Default)]
pub(super) struct Known {
    document: Option<(Arc<Document>, OffsetDateTime)>,
    keys: Option<(Arc<CoreJsonWebKeySet>, OffsetDateTime)>,
    /// When the keys were last asked for because one was missing.
    asked_again: Option<OffsetDateTime>,
}

#[derive(Deserialize)]
struct Raw {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    userinfo_endpoint: Option<String>,
    end_session_endpoint: Option<String>,
    id_token_signing_alg_values_supported: Vec<String>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

/// How the gateway says who it is at the token endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Credentials {
    /// In the `Authorization` header.
    Basic,
    /// In the form.
    Form,
}

/// What the discovery document says, checked.
pub(super) struct Document {
    pub(super) authorization: String,
    pub(super) token: String,
    jwks: String,
    pub(super) userinfo: Option<String>,
    pub(super) end_session: Option<String>,
    pub(super) algorithms: Vec<CoreJwsSigningAlgorithm>,
    pub(super) credentials: Credentials,
    /// Whether answers carry `iss` (RFC 9207 section 3).
    pub(super) names_issuer: bool,
}

impl Document {
    fn read(bytes: &[u8], issuer: &str) -> Result<Self, Flaw> {
        let raw: Raw = serde_json::from_slice(bytes).map_err(|_| Flaw::Discovery)?;
        if raw.issuer != issuer {
            return Err(Flaw::Discovery);
        }
        let needed = [&raw.authorization_endpoint, &raw.token_endpoint, &raw.jwks_uri];
        let optional = [raw.userinfo_endpoint.as_ref(), raw.end_session_endpoint.as_ref()];
        if !needed.into_iter().chain(optional.into_iter().flatten()).all(|address| is_safe_address(address)) {
            return Err(Flaw::Discovery);
        }
        let algorithms: Vec<_> =
            raw.id_token_signing_alg_values_supported.iter().filter_map(|name| asymmetric(name)).collect();
        if algorithms.is_empty() {
            return Err(Flaw::Discovery);
        }
        // RFC 8414 section 2: without the list it is basic.
        let methods = raw.token_endpoint_auth_methods_supported.unwrap_or_default();
        let has = |name: &str| methods.iter().any(|m| m == name);
        let form = has("client_secret_post") && !has("client_secret_basic");
        Ok(Self {
            authorization: raw.authorization_endpoint,
            token: raw.token_endpoint,
            jwks: raw.jwks_uri,
            userinfo: raw.userinfo_endpoint,
            end_session: raw.end_session_endpoint,
            algorithms,
            credentials: if form { Credentials::Form } else { Credentials::Basic },
            names_issuer: raw.authorization_response_iss_parameter_supported,
        })
    }
}

impl Provider {
    /// Sends a request; an answer that is a redirect, an error or too large is none.
    pub(super) async fn ask(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, Trouble> {
        let answer = (self.connection.fetch)(request).await.map_err(|e| Trouble::Down(e.to_string()))?;
        if answer.body().len() > LARGEST_ANSWER {
            return Err(Trouble::Down("its answer was too large".to_owned()));
        }
        if !answer.status().is_success() {
            return Err(Trouble::Down(format!("it answered with status {}", answer.status().as_u16())));
        }
        Ok(answer)
    }

    async fn get(&self, address: &str) -> Result<Vec<u8>, Trouble> {
        let request = Request::builder().method(Method::GET).uri(address).header(header::ACCEPT, "application/json");
        let request = request.body(Vec::new()).map_err(|_| Flaw::Discovery)?;
        Ok(self.ask(request).await?.into_body())
    }

    /// The provider's endpoints.
    pub(super) async fn document(&self, now: OffsetDateTime) -> Result<Arc<Document>, Trouble> {
        let mut known = self.known.lock().await;
        if let Some((document, at)) = &known.document
            && now < *at + LASTS
        {
            return Ok(Arc::clone(document));
        }
        let issuer = &self.settings.issuer;
        let base = issuer.strip_suffix('/').unwrap_or(issuer);
        let bytes = self.get(&format!("{base}/.well-known/openid-configuration")).await?;
        let document = Arc::new(Document::read(&bytes, issuer)?);
        known.document = Some((Arc::clone(&document), now));
        Ok(document)
    }

    /// The provider's keys; with `missing` one was not among those that are known.
    async fn keys(
        &self,
        document: &Document,
        missing: bool,
        now: OffsetDateTime,
    ) -> Result<Arc<CoreJsonWebKeySet>, Trouble> {
        let mut known = self.known.lock().await;
        if let Some((keys, at)) = &known.keys {
            let asked = known.asked_again.is_some_and(|again| now < again + AGAIN);
            if (!missing && now < *at + LASTS) || (missing && asked) {
                return Ok(Arc::clone(keys));
            }
        }
        // Before the question: one that fails counts too, or a flood of unknown keys would become one of questions.
        if missing {
            known.asked_again = Some(now);
        }
        let bytes = self.get(&document.jwks).await?;
        let keys: CoreJsonWebKeySet = serde_json::from_slice(&bytes).map_err(|_| Flaw::Discovery)?;
        let keys = Arc::new(keys);
        known.keys = Some((Arc::clone(&keys), now));
        Ok(keys)
    }

    /// Checks a token's signature by the provider's own keys; asks for them once more when its key is not among them.
    pub(super) async fn prove(
        &self,
        document: &Document,
        text: &str,
        kind: Kind,
        now: OffsetDateTime,
    ) -> Result<Proven, Trouble> {
        let unproven = Unproven::read(text, kind, &document.algorithms)?;
        let keys = self.keys(document, false, now).await?;
        match unproven.prove(&keys) {
            Ok(proven) => Ok(proven),
            Err((Flaw::UnknownKey, unproven)) => {
                let keys = self.keys(document, true, now).await?;
                Ok(unproven.prove(&keys).map_err(|(flaw, _)| flaw)?)
            }
            Err((flaw, _)) => Err(flaw.into()),
        }
    }
}
